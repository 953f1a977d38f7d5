"""`python -m tests.simulation.minutes`: the report, one line of JSON, exit code 1 on a violation.

--minutes 10000   simulated minutes (three sessions at a time)
--seed 1          what goes wrong, and when
--self-check      plants known bugs, one at a time: each must be caught
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from module.logs import configure_logs
from tests.simulation.minutes.planted import check_all
from tests.simulation.minutes.world import Lived, MinutesWorld

MEMORY = Path("/dev/shm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Live the minutes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.minutes")
    parser.add_argument("--minutes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--self-check", action="store_true")
    options = parser.parse_args(arguments)
    silence()
    if options.self_check:
        return check_all()
    begun_s = time.process_time()
    lived = live(options.seed, options.minutes)
    seconds = time.process_time() - begun_s
    _print(lived, seconds)
    return 1 if lived.violations else 0


def live(seed: int, minutes: int) -> Lived:
    """One run, in memory."""
    where = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="aifap-minutes-", dir=where) as folder:
        return MinutesWorld(seed, minutes, Path(folder)).run()


def silence() -> None:
    """The log of production's code goes nowhere: what goes wrong here is meant to."""
    configure_logs("minutes", "ERROR")
    logging.disable(logging.CRITICAL)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


def _print(lived: Lived, seconds: float) -> None:
    what = f"{lived.minutes} minutes, {lived.sessions} sessions"
    print(f"seed {lived.seed}: {what}, {seconds:.0f} s CPU")
    print(f"  {lived.passes} passes, {lived.kills} kills; {lived.history} historical rows")
    print("  went wrong: " + ", ".join(f"{n} {c}" for n, c in sorted(lived.troubles.items())))
    print(f"  {lived.rows} rows, {lived.gaps} gaps: " + _counts(lived.causes))
    for violation in lived.violations[:20]:
        at = "" if violation.minute is None else f" {violation.minute:%d %H:%M}"
        print(f"  VIOLATION {violation.name} {violation.session_id}{at}: {violation.detail}")
    lost = sum(item.name == "lost-minute" for item in lived.violations)
    print(f"  minutes lost without a gap row: {lost}; violations: {len(lived.violations)}")
    document = dataclasses.asdict(lived) | {"violations": len(lived.violations), "lost": lost}
    print(json.dumps(document | {"cpu_s": round(seconds, 1)}))


def _counts(causes: dict[str, int]) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in sorted(causes.items())) or "none"


if __name__ == "__main__":
    sys.exit(main())
