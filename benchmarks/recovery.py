"""How long an account is without its leader's care: from a kill to reconciled and protected.

A whole installation at the speed of real time, a session that holds 20 positions with stops. Again
and again its leader is ended with SIGKILL, quietly between two cycles and in the middle of one; and
then everything but the exchange and Postgres: gateway, market service, platform, session host,
runner host, all of the session's processes. Timed twice: from the moment the host has started the
new leader (*restart*), and from the kill itself, which adds the supervisor's look and its back-off.
*Reconciled*: the leader has compared the account with its letters and finished or dropped what was
interrupted. Then the exchange's own ledger is asked for positions without a stop.

    python -m benchmarks recovery [--kills 4] [--sessions 3]
"""

from __future__ import annotations

import argparse
import json
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

QUIET_S = 30.0
BUSY_S = 1.3
WAIT_S = 60.0
SETTLED_S = 75.0
PROGRAMS = (b"api.compose", b"trading.session_host", b"trading.runner_host")


@dataclass(frozen=True, slots=True)
class Recovery:
    """One kill: seconds from it, and from the restart, and what stood without a stop then."""

    what: str
    from_kill_s: float
    from_restart_s: float
    bare: int


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks recovery")
    parser.add_argument("--kills", type=int, default=4, help="of each session (five at most)")
    parser.add_argument("--sessions", type=int, default=3, help="one after another")
    parser.add_argument("--symbols", type=int, default=20)
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    found: list[Recovery] = []
    with tempfile.TemporaryDirectory(prefix="aifap-bench-") as folder:
        trading = Trading(Path(folder), symbol_names(options.symbols), stops=True)
        try:
            for number in range(options.sessions):
                found += kill_again_and_again(trading, options.kills, everything=number == 0)
        finally:
            trading.stop()
    for what in dict.fromkeys(item.what for item in found):
        report(what, [item for item in found if item.what == what])
    return 0


def kill_again_and_again(trading: Trading, kills: int, *, everything: bool) -> list[Recovery]:
    """One session, killed so often; `everything`: the whole installation but what must live."""
    session_id = trading.start_session("1m")
    trading.clock.pause(SETTLED_S)  # a cycle has opened the positions
    found: list[Recovery] = []
    for number in range(kills):
        is_busy = number % 2 == 1
        _wait_for_second(trading, BUSY_S if is_busy else QUIET_S)
        what = "everything" if everything else "leader"
        item = kill_once(
            trading, session_id, f"{what}, {'in a cycle' if is_busy else 'quiet'}", everything
        )
        print(
            f"{item.what:24} {item.from_restart_s:6.2f} s from restart, {item.from_kill_s:6.2f} s"
        )
        found.append(item)
    trading.client.get(f"/command/terminate?session_id={session_id}&mode=flat")
    trading.await_state(session_id, "ended")
    return found


def kill_once(trading: Trading, session_id: str, what: str, everything: bool) -> Recovery:
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
    reconciled_at = _await_event(trading, leader_log, "reconciled", killed_at)
    started_at = _await_event(trading, host_log, "leader started", killed_at)
    return Recovery(
        what,
        (reconciled_at - killed_at).total_seconds(),
        (reconciled_at - started_at).total_seconds(),
        _bare(trading.ledger()),
    )


def report(what: str, found: list[Recovery]) -> None:
    """p50, worst, and whether anything stood without a stop."""
    for name, times in (
        ("restart", [item.from_restart_s for item in found]),
        ("kill", [item.from_kill_s for item in found]),
    ):
        print(
            f"{what:24} from {name:8} p50 {statistics.median(times):5.2f} s   max "
            f"{max(times):5.2f} s   of {len(times)}"
        )
    print(f"{what:24} positions without a stop when reconciled: {sum(i.bare for i in found)}")


def _wait_for_second(trading: Trading, second: float) -> None:
    """Until so many seconds after a boundary of the world."""
    from module.clock import WorldClock

    host, _, port = trading.settings.world_clock.rpartition(":")
    clock = WorldClock(host, int(port), None)
    now = clock.now()
    trading.clock.pause((second - now.second - now.microsecond / 1e6) % 60)
    clock.close()


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
