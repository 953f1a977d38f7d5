"""`aifap up` ended politely or killed, and started again on the same folder: its sessions go on."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.standalone import Standalone, StandaloneOptions
from module.launch.stack import free_port
from tests.e2e.installation import Installation
from tests.e2e.test_kills import TURNING

pytestmark = pytest.mark.timeout(280)

READY_WAIT_S = 90.0
AIFAP = Path(sys.executable).with_name("aifap")


@contextlib.contextmanager
def up(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A running `aifap up`; ended politely unless the test did something worse."""
    log = folder.parent / "up.log"
    log.write_bytes(b"")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(AIFAP), "up", "--data", str(folder), "--port", str(port), "--speed", "240"],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_WAIT_S
        while not re.search(r"\bready\b", log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(90)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_D5_sessions_go_on_when_the_installation_is_started_again(
    tmp_path: Path, ending: signal.Signals
) -> None:
    from datetime import timedelta

    folder, port = tmp_path / "up", free_port()
    stack = Standalone(StandaloneOptions(folder, port), lambda _line: None)
    with up(folder, port) as first:
        found = re.search(r"aifap_[\w-]+", (tmp_path / "up.log").read_text())
        assert found is not None
        stack.settings = stack.reload_settings()
        installation = Installation(stack, found[0])
        installation.upload("turning", TURNING)
        account = installation.paper_account("goes-on")
        session = installation.start(
            account, "turning", timedelta(minutes=1), threshold="0.005", on_end="flat"
        )
        installation.wait_cycles(session, 2)
        first.send_signal(ending)
        first.wait(90)

    with up(folder, port):
        stack.settings = stack.reload_settings()
        reached = int(installation.calm_view(session)["cycle"])
        installation.wait_cycles(session, reached + 2)
        installation.terminate(session, "flat")
        view = installation.wait_over(session)
        assert view["state"] == "ended", view["reason"]
        ledger = installation.ledger(account)
        orders = {order["clientOid"]: order["orderId"] for order in ledger["orders"]}
        assert len(orders) == len(ledger["orders"]), "a client id stands twice on the exchange"
        assert installation.sent(session) == orders
        assert ledger["positions"] == []
        assert ledger["plans"] == []
    assert installation.leftovers(session) == []
