"""One simulated day from its seed to its result; what worker processes run."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from tests.simulation.day_kinds import ORDINARY
from tests.simulation.day_plan import day_plan
from tests.simulation.report import DayResult
from tests.simulation.world import World


def live(
    seed: int, hours: float = 24.0, log: Path | None = None, kind: str | None = None
) -> DayResult:
    """The day of a seed, in this process; `kind` None: the kind that the seed has."""
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="aifap-day-", dir=memory_folder()) as folder:
        world = World(
            day_plan(seed, hours=hours, kind=kind), Path(folder), keep_log=log is not None
        )
        result = DayResult(seed, hours / 24, kind)
        try:
            report = world.run()
        except Exception as error:
            result.crash = f"{type(error).__name__}: {error}"
            result.digest = world.digest
        else:
            result.sessions, result.cycles = report.sessions, report.cycles
            result.done, result.is_ordinary = report.done, world.plan.kind is ORDINARY
            result.orders, result.hits = report.orders, report.hits
            result.violations, result.digest = report.violations, report.digest
            result.bare_s = report.unprotected_s
            result.bare_answering_s = report.unprotected_answering_s
            result.longest = world.judge.protection.longest
        if log is not None:
            log.write_text("".join(world.log_lines or ()))
    result.seconds = time.process_time() - started
    return result


def leave_ctrl_c() -> None:
    """A worker process is ended by the first one, which gets the signal too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def memory_folder() -> str | None:
    """Where files cost nothing to sync; None: the usual place for temporary ones."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
