"""How long an account is without its leader's care: from a kill to reconciled and protected.

A whole installation in real time, a session that holds 20 positions with stops. Again
and again its leader is ended with SIGKILL, quietly between two cycles and in the middle of one; and
then everything but the exchange and Postgres: gateway, market service, platform, session host,
runner host, all of the session's processes. Kills in a cycle come later and later in it: while it
is planned, between its batches, while it is settled. Timed twice: from the moment the host has
started the new leader (*restart*), and from the kill itself, which adds the supervisor's look and
its back-off. A session bears five kills within ten minutes, so there are as many as it takes.
*Reconciled*: the leader has compared the account with its letters; at that moment the exchange's
own ledger is asked for positions without a stop. *Finished*: the interrupted cycle is traded to its
end, or dropped; that takes what the exchange's limit forces, and for an order of which nobody knows
whether it left the time after which its absence is proven (15 s).

    python -m benchmarks recovery [--kills 10] [--kinds "leader, quiet" …]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.installation import Trading, process_ids, symbol_names
from module.files.session_folder import log_path, session_folder
from module.launch.processes import ProcessRecord
from module.model.canonical import parse_instant
from module.model.errors import Unavailable

KINDS = ("leader, quiet", "leader, in a cycle", "everything, quiet", "everything, in a cycle")
KILLS_PER_SESSION = 5
QUIET_SECONDS = (15.0, 48.0)
BUSY_FIRST_S = 1.2
BUSY_STEP_S = 0.8
WAIT_S = 60.0
SETTLED_S = 75.0
PROGRAMS = (b"api.compose", b"trading.session_host", b"trading.runner_host")


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill: seconds from it, and from the restart, and what stood without a stop then."""

    what: str
    from_kill_s: float
    from_restart_s: float
    finished_s: float
    bare: int


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks recovery")
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--symbols", type=int, default=20)
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    found: list[Recovery] = []
    with tempfile.TemporaryDirectory(prefix="aifap-bench-") as folder:
        trading = Trading(Path(folder), symbol_names(options.symbols), stops=True)
        try:
            for kind in options.kinds:
                for first in range(0, options.kills, KILLS_PER_SESSION):
                    numbers = range(first, min(first + KILLS_PER_SESSION, options.kills))
                    found += kill_again_and_again(trading, kind, numbers)
        finally:
            trading.stop()
    for what in dict.fromkeys(item.what for item in found):
        report(what, [item for item in found if item.what == what])
    return 0


def kill_again_and_again(trading: Trading, kind: str, numbers: range) -> list[Recovery]:
    """One session, and its kills of one kind."""
    session_id = trading.start_session("1m")
    trading.clock.pause(SETTLED_S)  # a cycle has opened the positions
    found: list[Recovery] = []
    for number in numbers:
        if kind.endswith("quiet"):
            _wait_until_quiet(trading)
        else:
            _wait_for_second(trading, BUSY_FIRST_S + BUSY_STEP_S * (number % KILLS_PER_SESSION))
        item = kill_once(trading, session_id, kind, everything=kind.startswith("everything"))
        print(
            f"{item.what:24} {item.from_restart_s:6.2f} s from restart, {item.from_kill_s:6.2f} s "
            f"from the kill; finished {item.finished_s:6.2f} s from restart",
            flush=True,
        )
        found.append(item)
    _await_platform(trading)
    trading.client.get(f"/command/terminate?session_id={session_id}&mode=flat")
    trading.await_state(session_id, "ended")
    return found


def kill_once(trading: Trading, session_id: str, what: str, *, everything: bool) -> Recovery:
    """SIGKILL, then wait for the next leader's word."""
    killed_at = trading.clock.wall()
    if everything:
        for pid in process_ids(*PROGRAMS):
            os.kill(pid, signal.SIGKILL)
    else:
        record = ProcessRecord(session_folder(trading.settings.data_dir, session_id))
        leader = record.alive("leader")
        if leader is None:
            raise RuntimeError("the session has no leader")
        os.kill(leader.pid, signal.SIGKILL)
    leader_log = log_path(trading.settings.data_dir, session_id, "leader")
    host_log = trading.settings.data_dir / "logs" / "session_host.log"
    compared_at = _await_event(trading, leader_log, "account compared", killed_at)
    bare = _bare(trading.ledger())
    started_at = _await_event(trading, host_log, "leader started", killed_at)
    finished_at = _await_event(trading, leader_log, "reconciled", killed_at)
    return Recovery(
        what,
        (compared_at - killed_at).total_seconds(),
        (compared_at - started_at).total_seconds(),
        (finished_at - started_at).total_seconds(),
        bare,
    )


def report(what: str, found: list[Recovery]) -> None:
    """p50, p99, worst, and whether anything stood without a stop."""
    for name, times in (
        ("restart", [item.from_restart_s for item in found]),
        ("kill", [item.from_kill_s for item in found]),
        ("restart, finished", [item.finished_s for item in found]),
    ):
        print(
            f"{what:24} from {name:18} p50 {statistics.median(times):5.2f} s   p99 "
            f"{_rank(times, 0.99):5.2f} s   max {max(times):5.2f} s   of {len(times)}"
        )
    print(f"{what:24} positions without a stop when reconciled: {sum(i.bare for i in found)}")


def _rank(values: list[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _await_platform(trading: Trading) -> None:
    """Until the API that was killed answers again: it comes back after the gateway."""
    deadline = trading.clock.monotonic() + WAIT_S
    while True:
        try:
            trading.client.get("/command/session-check")
            return
        except Unavailable:
            if trading.clock.monotonic() > deadline:
                raise
            trading.clock.pause(0.2)


def _wait_until_quiet(trading: Trading) -> None:
    """Until a time in the minute at which no cycle is under way."""
    second = trading.clock.now().second
    if not QUIET_SECONDS[0] <= second <= QUIET_SECONDS[1]:
        _wait_for_second(trading, QUIET_SECONDS[0])


def _wait_for_second(trading: Trading, second: float) -> None:
    """Until so many seconds after a boundary."""
    now = trading.clock.now()
    trading.clock.pause((second - now.second - now.microsecond / 1e6) % 60)


def _await_event(trading: Trading, path: Path, event: str, after: datetime) -> datetime:
    """When the log's first `event` after that time was written."""
    deadline = trading.clock.monotonic() + WAIT_S
    while trading.clock.monotonic() < deadline:
        for line in path.read_text().splitlines():
            record = _read(line)
            if record.get("event") == event and parse_instant(str(record["timestamp"])) > after:
                return parse_instant(str(record["timestamp"]))
        trading.clock.pause(0.1)
    raise RuntimeError(f"{path} has no {event!r} after {after}")


def _read(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _bare(ledger: dict[str, Any]) -> int:
    """Positions that no stop loss protects, by the exchange's own word."""
    return sum(not position.get("stopLoss") for position in ledger["positions"])


if __name__ == "__main__":
    sys.exit(main())
