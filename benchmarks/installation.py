"""A whole installation with as many symbols as a benchmark wants: candles, a trader, the ledger.

It runs in real time, as with a real exchange: no world is stepped, so nobody's work stops anybody
else's clock. The paper exchange's own time is a second or two ahead of this machine's.

Used by `benchmarks/cycle.py` and `benchmarks/recovery.py`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import urllib3

from api.client import PlatformClient
from api.standalone import Standalone, StandaloneOptions
from module.clock import SystemClock
from module.files.session_folder import session_folder
from module.launch.processes import ProcessRecord
from module.launch.stack import free_port

DAYS_BEFORE = 1
BARS = (DAYS_BEFORE + 1) * 24 * 60
SIMULATOR_STARTS_S = 5.0
BALANCE = "1000000"
STATE_WAIT_S = 120.0

# Every leg trades in every cycle: half of the symbols halve, the others double.
TURNING = """
def strategy(context, config_dict):
    symbols = config_dict["symbols"]
    closes = context.get_history(symbols, window=2, frequency="1m", fields="close")
    minute = int(closes.index[-1].timestamp() // 60)
    unit = config_dict["exposure"] / (1.5 * len(symbols))
    found = {}
    for number, symbol in enumerate(symbols):
        weight = unit * (1 + (number + minute) % 2)
        price = float(closes[symbol].iloc[-1])
        found[symbol] = {"weight": round(weight, 6)}
        if config_dict.get("stops"):
            found[symbol]["presetStopLossPrice"] = round(price * 0.8, 2)
    return found
"""


def symbol_names(count: int) -> list[str]:
    """`COIN00USDT` …: names that no real market has."""
    return [f"COIN{number:02d}USDT" for number in range(count)]


def write_candles(folder: Path, symbols: list[str], first: datetime) -> None:
    """Minutes of a calm market from `first` on: each symbol swings by a percent around 100."""
    folder.mkdir(parents=True)
    first_ms = int(first.timestamp() * 1000)
    for number, symbol in enumerate(symbols):
        lines = ["timestamp,open,high,low,close,volume"]
        price = 100.0
        for bar in range(BARS):
            close = round(100 + math.sin((bar + 40 * number) / 200), 2)
            high, low = max(price, close) + 0.01, min(price, close) - 0.01
            lines.append(f"{first_ms + bar * 60_000},{price},{high:.2f},{low:.2f},{close},90000")
            price = close
        (folder / f"{symbol}.csv").write_text("\n".join(lines) + "\n")


def process_ids(*programs: bytes) -> list[int]:
    """Programs that run in this folder, but for this one, the paper exchange and Postgres; of
    several named ones only those."""
    here, found = Path.cwd(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            if (entry / "cwd").resolve() != here or b"module.simulator" in command:
                continue
        except OSError:
            continue  # it ended
        if b"python" in command and (not programs or any(name in command for name in programs)):
            found.append(int(entry.name))
    return found


@dataclass(frozen=True, slots=True)
class Burden:
    """Milliseconds of processes: on a CPU, and ready to run while others had it."""

    cpu_ms: float = 0.0
    queue_ms: float = 0.0

    def __add__(self, other: Burden) -> Burden:
        return Burden(self.cpu_ms + other.cpu_ms, self.queue_ms + other.queue_ms)

    def __sub__(self, other: Burden) -> Burden:
        return Burden(self.cpu_ms - other.cpu_ms, self.queue_ms - other.queue_ms)


def burden_of(pids: Iterable[int]) -> Burden:
    """Of all threads of these processes so far; one that ended counts no more."""
    total = Burden()
    for pid in pids:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                cpu_ns, queue_ns, _ = (task / "schedstat").read_text().split()
                total += Burden(int(cpu_ns) / 1e6, int(queue_ns) / 1e6)
        except (OSError, ValueError):
            continue  # it ended
    return total


def ended_children_ms(pid: int) -> float:
    """Milliseconds that ended children of a process were on a CPU, in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _command(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


class RealTime(Standalone):
    """An installation whose processes read the machine's clock."""

    def _start_simulator(self) -> None:
        begins = SystemClock().now() + timedelta(seconds=SIMULATOR_STARTS_S)
        self._options = replace(self._options, start=begins.replace(microsecond=0))
        super()._start_simulator()

    def _save(self, **changes: object) -> None:
        if "world_clock" in changes:
            changes["world_clock"] = ""
        super()._save(**changes)


class Trading:
    """A running installation in real time, and one session in it."""

    def __init__(self, folder: Path, symbols: list[str], *, stops: bool) -> None:
        self.symbols = symbols
        self.clock = SystemClock()
        today = self.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        write_candles(folder / "candles", symbols, today - timedelta(days=DAYS_BEFORE))
        options = StandaloneOptions(
            folder / "data", free_port(), speed=1.0, candles=folder / "candles"
        )
        self.stack = RealTime(options, lambda _line: None)
        self.stack.start()
        token = self.stack.first_user("bench")
        if token is None:
            raise RuntimeError("the folder had users already")
        self.settings = self.stack.reload_settings()
        self.client = PlatformClient(self.stack.api_url, token)
        self.client.post(
            "/upload/strategies",
            {
                "name": "turning",
                "source": TURNING,
                "config": {"symbols": symbols, "exposure": 0.9, "stops": stops},
            },
        )
        account = self.client.post("/accounts/paper", {"label": "bench", "balance": BALANCE})
        self.account_id = str(account["account_id"])

    def start_session(self, interval: str) -> str:
        """A session in which every leg trades; its id once it runs."""
        answer = self.client.post(
            "/command/run-system",
            {
                "tradeType": "futures",
                "strategy_name": "turning",
                "trade_mode": "rebalancing",
                "trade_env": "paper",
                "account_id": self.account_id,
                "interval": interval,
                "threshold": "0.001",
                "apply_account_settings": True,
            },
        )
        session_id = str(answer["session_id"])
        self.await_state(session_id, "running")
        return session_id

    def session(self, session_id: str) -> dict[str, Any]:
        """The session as its owner sees it."""
        return self.client.get(f"/command/sessions/{session_id}")

    def await_state(self, session_id: str, state: str) -> None:
        """Until the session is in this state; RuntimeError says what it is instead."""
        deadline = self.clock.monotonic() + STATE_WAIT_S
        while (view := self.session(session_id))["state"] != state:
            if self.clock.monotonic() > deadline or view["state"] in ("failed", "ended"):
                raise RuntimeError(f"session is {view['state']}: {view['reason']}")
            self.clock.pause(0.05)

    def processes(self, session_id: str) -> dict[str, list[int]]:
        """Process ids by role: of the session, and of the services by name."""
        record = ProcessRecord(session_folder(self.settings.data_dir, session_id))
        found = {role: [identity.pid] for role, identity in record.read().items()}
        for name, url in (
            ("gateway", self.settings.gateway_url),
            ("market", self.settings.market_url),
        ):
            port = url.rpartition(":")[2].encode()
            found[name] = [pid for pid in process_ids(b"api.compose") if port in _command(pid)]
        hosts = set(process_ids(b"trading.session_host"))
        found["runner host"] = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit()
            and b"trading.runner_host" in _command(int(entry.name))
            and _parent(int(entry.name)) in hosts  # its working folder is not ours
        ]
        return found

    def ledger(self) -> dict[str, Any]:
        """What the exchange itself says of the account."""
        answer = urllib3.request(
            "GET",
            f"{self.settings.simulator_url}/control/ledger",
            headers={"Authorization": f"Bearer {self.settings.secret('control_token')}"},
            timeout=30.0,
        )
        accounts = json.loads(answer.data)["accounts"]
        return dict(max(accounts, key=lambda item: len(item["orders"]) + len(item["positions"])))

    def stop(self) -> None:
        """End the session's processes and everything else."""
        self.stack.stop()
