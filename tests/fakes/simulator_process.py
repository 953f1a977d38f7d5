"""The real paper exchange as a process of its own, for the length of a test module."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import urllib3

from module.clock import WorldClock
from module.exchange.paper_control import PaperControl
from module.model.credentials import Credentials
from module.security.credentials import new_credentials

CONTROL_TOKEN = "control-token-of-the-tests-0123456789"
_READY = re.compile(r"simulator ready: (http://\S+)\s+clock ([\d.]+):(\d+)\s+market (\S+)")


@dataclass
class RunningSimulator:
    """Its addresses, its process, and what a test asks of its control door."""

    base_url: str
    clock_host: str
    clock_port: int
    market_id: str
    process: subprocess.Popen[str] = field(repr=False)

    def clock(self, participant: str | None) -> WorldClock:
        return WorldClock(self.clock_host, self.clock_port, participant)

    def open_account(self, *, futures_usdt: str = "10007", spot_usdt: str = "0") -> Credentials:
        credentials = new_credentials()
        control = PaperControl(self.base_url, CONTROL_TOKEN)
        control.open_account(
            credentials, futures_usdt=Decimal(futures_usdt), spot_usdt=Decimal(spot_usdt)
        )
        control.close()
        return credentials

    def control(self, method: str, path: str, document: object = None) -> dict[str, object]:
        """A call of the control door; its answer."""
        response = urllib3.request(
            method,
            f"{self.base_url}/control/{path}",
            headers={"Authorization": f"Bearer {CONTROL_TOKEN}"},
            json=document,
        )
        assert response.status == 200, response.data
        answer = response.json()
        assert isinstance(answer, dict)
        return answer

    def ledger(self, api_key: str) -> dict[str, object]:
        """What really happened to the account."""
        accounts = self.control("GET", "ledger")["accounts"]
        assert isinstance(accounts, list)
        return next(item for item in accounts if item["api_key"] == api_key)


START = "2026-03-02T10:00:07.250Z"
"""The same prices and depth on every day of the year."""


@contextmanager
def running_simulator(
    folder: Path, *, speed: float = 0, extra: Sequence[str] = (), port: int = 0
) -> Iterator[RunningSimulator]:
    """Start one in `folder` (kept worlds go on); it ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    secrets_file = folder / "secrets.json"
    secrets_file.write_text(json.dumps({"control_token": CONTROL_TOKEN}))
    secrets_file.chmod(0o600)
    command = [
        sys.executable,
        *("-m", "module.simulator.server", "--port", str(port), "--speed", str(speed)),
        *("--secrets-file", str(secrets_file), "--data", str(folder / "world")),
        *("--start", START, *extra),
    ]
    root = Path(__file__).parents[2]
    with (folder / "simulator.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=root)
    try:
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            found = _READY.search(line)
            if found:
                break
        assert found, (folder / "simulator.log").read_text()
        yield RunningSimulator(found[1], found[2], int(found[3]), found[4], process)
    finally:
        process.terminate()
        process.wait(timeout=20)
        if process.stdout is not None:
            process.stdout.close()
