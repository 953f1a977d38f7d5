"""`make simulate SEEDS=1000`: whole sessions through days in which everything goes wrong.

    --seeds N      days of seeds 0 to N-1, on --workers processes
    --seed N       one day; --log FILE writes its events (the same bytes each time)
    --sweep        instead: kills at every point of one cycle, and again during the recovery;
                   --part 2/6: every sixth of them, from the second on
    --ambiguous N  instead: N submits, none of which is answered truly
    --hours H      shorter days
    --kind NAME    days of this kind (day_kinds.py), whatever the kinds of the seeds are

Every violation is one line with the command that replays it; the last line is one JSON object. Exit
code 1 on any violation, when a whole day met too few faults, and when a day traded too little; 130
after Ctrl-C, which ends with the summary of the days so far. How far it is is told on stderr.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.simulation.day import leave_ctrl_c, live
from tests.simulation.day_kinds import KINDS
from tests.simulation.report import (
    DayResult,
    Totals,
    day_lines,
    progress_line,
    summary_lines,
)

DAYS_PER_WORKER = 25
PROGRESS_DAYS = 20
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--kind", choices=tuple(KINDS), help="all days of this kind")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--log", type=Path, help="with --seed: the event log")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--part", default="1/1", help="with --sweep: i/n, a part of it")
    parser.add_argument("--ambiguous", type=int, metavar="N")
    options = parser.parse_args(arguments)
    if options.sweep:
        from tests.simulation.sweep import sweep

        number, _, of = options.part.partition("/")
        return sweep(options.workers, (int(number), int(of)))
    if options.ambiguous is not None:
        from tests.simulation.ambiguous import ambiguous

        return ambiguous(options.ambiguous, options.workers, options.first)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
        days: Iterator[DayResult] = map(
            partial(live, hours=options.hours, log=options.log, kind=options.kind), seeds
        )
    else:
        seeds = range(options.first, options.first + options.seeds)
        days = _all_days(seeds, options.hours, options.workers, options.kind)
    return _report(days, len(seeds))


def _report(days: Iterator[DayResult], wanted: int) -> int:
    """A line of each day as it comes, then the summary; the exit code."""
    totals, started, interrupted = Totals(), time.monotonic(), False
    try:
        for day in days:
            totals.days.append(day)
            totals.wall_s = time.monotonic() - started
            for line in day_lines(day, verbose=True):
                print(line, flush=True)
            if len(totals.days) % PROGRESS_DAYS == 0:
                print(progress_line(totals, wanted), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        interrupted = True
        print(f"interrupted after {len(totals.days)} of {wanted} days", file=sys.stderr)
    totals.wall_s = time.monotonic() - started
    print("\n".join(summary_lines(totals)), flush=True)
    if totals.violations or totals.too_calm or totals.idle:
        return 1
    return INTERRUPTED if interrupted else 0


def _all_days(
    seeds: Sequence[int], hours: float, workers: int, kind: str | None
) -> Iterator[DayResult]:
    day = partial(live, hours=hours, kind=kind)
    spawning = multiprocessing.get_context("spawn")
    with spawning.Pool(workers, leave_ctrl_c, maxtasksperchild=DAYS_PER_WORKER) as pool:
        yield from pool.imap_unordered(day, seeds)


if __name__ == "__main__":
    sys.exit(main())
