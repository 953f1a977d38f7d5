"""Memory and start of sessions: our host's forks beside three fresh interpreters per session.

The alternative is what a session costs when its three processes are started as programs of their
own that import what such programs import (pandas, SQLAlchemy's ORM, ccxt, empyrical). Memory is PSS
(shared pages split between their users) after a full collection in every process. Prints ratios;
absolute numbers drift with the machine.

    python -m benchmarks.sessions [--sessions 20]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from api.client import PlatformClient
from api.standalone import Standalone, StandaloneOptions
from module.launch.host_protocol import ask_host, host_socket_path
from module.launch.processes import ProcessRecord
from module.launch.stack import free_port

FRESH_CODE = """
import gc, sys
import pandas, sqlalchemy.orm, ccxt, empyrical
frame = pandas.DataFrame({"a": range(100)}).pct_change(20)
gc.collect()
print("ready", flush=True)
sys.stdin.read()
"""
ROLES = ("leader", "strategy", "finwatcher")
FRESH_SESSIONS = 3


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sessions")
    parser.add_argument("--sessions", type=int, default=20)
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    fresh_mb, fresh_s = measure_fresh()
    print(f"fresh interpreters: {fresh_mb:.0f} MB and {fresh_s:.2f} s per session (median)")
    with tempfile.TemporaryDirectory(prefix="aifap-bench-") as folder:
        ours = measure_ours(Path(folder), options.sessions)
    per_session, marginal, starts = ours
    p95 = statistics.quantiles(starts, n=20)[-1]
    print(f"ours: {per_session:.1f} MB per session over {options.sessions}, hosts included")
    print(f"ours: {marginal:.1f} MB for a further session")
    print(f"ours: started in {statistics.median(starts):.3f} s (median), {p95:.3f} s (p95)")
    print(f"memory ratio   fresh / ours            {fresh_mb / per_session:6.1f} x")
    print(f"start ratio    fresh / ours (p95)      {fresh_s / p95:6.1f} x")
    return 0


def measure_fresh() -> tuple[float, float]:
    """MB and seconds of one session made of three fresh interpreters (medians)."""
    memory: list[float] = []
    seconds: list[float] = []
    for _ in range(FRESH_SESSIONS):
        started = time.monotonic()
        programs = [
            subprocess.Popen(
                [sys.executable, "-c", FRESH_CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in ROLES
        ]
        for program in programs:
            assert program.stdout is not None
            program.stdout.readline()
        seconds.append(time.monotonic() - started)
        memory.append(sum(pss_mb(program.pid) for program in programs))
        for program in programs:
            program.communicate()
    return statistics.median(memory), statistics.median(seconds)


def measure_ours(folder: Path, count: int) -> tuple[float, float, list[float]]:
    """MB per session (hosts included), MB of a further one, seconds of each start."""
    stack = Standalone(StandaloneOptions(folder, free_port(), speed=1.0), lambda _line: None)
    with contextlib.ExitStack() as ending:
        ending.callback(stack.stop)
        stack.start()
        token = stack.first_user("bench")
        assert token is not None
        client = PlatformClient(stack.api_url, token)
        answer = ask_host(host_socket_path(stack.settings.data_dir), {"op": "ping"})
        host = int(str(answer["pid"]))
        totals: list[float] = []
        starts: list[float] = []
        sessions: list[str] = []
        for number in range(count):
            account = client.post("/accounts/paper", {"label": f"b{number}", "balance": "10000"})
            session, seconds = start_one(stack, client, str(account["account_id"]))
            sessions.append(session)
            starts.append(seconds)
            if number + 1 in (count // 2, count):
                time.sleep(8)  # every session has traded a cycle and measured a minute, or idles
                totals.append(total_mb(stack, host, sessions))
        marginal = (totals[-1] - totals[0]) / (count - count // 2)
        for session in sessions:
            client.get(f"/command/terminate?session_id={session}&mode=flat")
        deadline = time.monotonic() + 120
        while client.get("/command/session-check")["sessions"] and time.monotonic() < deadline:
            time.sleep(0.5)
        return totals[-1] / count, marginal, starts


def start_one(stack: Standalone, client: PlatformClient, account_id: str) -> tuple[str, float]:
    """Start a session; seconds from the host being asked until all its processes are ready."""
    answer = client.post(
        "/command/run-system",
        {
            "tradeType": "futures",
            "strategy_name": "equal_weight",
            "trade_mode": "rebalancing",
            "trade_env": "paper",
            "account_id": account_id,
            "interval": "1m",
            "apply_account_settings": True,
        },
    )
    session = str(answer["session_id"])
    while client.get(f"/command/sessions/{session}")["state"] == "starting":
        time.sleep(0.01)
    return session, ready_after_s(stack.settings.data_dir / "sessions" / session)


def ready_after_s(folder: Path) -> float:
    """From the leader's fork until the strategy process and finwatcher said that they are ready."""
    forked_s = ProcessRecord(folder).read()["leader"].started_ticks / os.sysconf("SC_CLK_TCK")
    for line in (folder / "leader.log").read_text().splitlines():
        said = json.loads(line)
        if said.get("event") == "processes ready":
            return float(said["at_monotonic_s"]) - forked_s
    raise RuntimeError(f"{folder.name} never said that its processes are ready")


def total_mb(stack: Standalone, host: int, sessions: list[str]) -> float:
    """PSS of all processes of the sessions, their host and the runner host, after a collection."""
    pids = []
    for session in sessions:
        record = ProcessRecord(stack.settings.data_dir / "sessions" / session)
        pids += [identity.pid for role in ROLES if (identity := record.alive(role)) is not None]
    for pid in pids:
        os.kill(pid, signal.SIGUSR2)
    time.sleep(2)
    return sum(pss_mb(pid) for pid in [*pids, host, *children(host)])


def children(pid: int) -> list[int]:
    """The runner host and its like: children of the host that are no session's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            command = (path.parent / "cmdline").read_bytes()
            if int(fields[1]) == pid and b"runner_host" in command:
                found.append(int(path.parent.name))
    return found


def pss_mb(pid: int) -> float:
    """Proportional set size."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
