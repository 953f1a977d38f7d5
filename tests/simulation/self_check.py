"""Does the simulation notice? Plants known bugs, one at a time, and shows which check sees each.

    python -m tests.simulation.self_check [--only WORDS] [--workers 2]     (make self-check)

Of every bug two things are shown: the day on which it is looked for is clean without the bug, and
with the bug an invariant that it must break is seen broken; after how many events of the exchange,
with which seed. Exit code 1 when a bug escapes, or a clean day is not clean: then the checks or the
faults of the simulation are too weak, whatever its report says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.simulation.judge import Violation
from tests.simulation.planted_bugs import BUGS, Hunt, PlantedBug, planted
from tests.simulation.world import World
from tests.simulation.world_plan import WorldPlan

MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one bug. `events`: requests and changes up to the first broken invariant."""

    bug: str
    what: str
    caught: bool
    invariant: str
    second: float
    events: int
    seed: int
    others: tuple[str, ...]
    unclean: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class _Day:
    """One day that was lived: its violations, and how many events came before each."""

    violations: tuple[Violation, ...]
    events: tuple[int, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.self_check")
    parser.add_argument("--only", default="", help="bugs whose names contain these words")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    chosen = [number for number, bug in enumerate(BUGS) if options.only in bug.name]
    if not chosen:
        print(f"no planted bug is called {options.only!r}; there are:", file=sys.stderr)
        print("\n".join(bug.name for bug in BUGS), file=sys.stderr)
        return 2
    findings: list[Finding] = []
    with ProcessPoolExecutor(max_workers=options.workers) as pool:
        for finding in pool.map(check_number, chosen):
            findings.append(finding)
            print(line_of(finding), flush=True)
    escaped = [finding for finding in findings if not finding.caught]
    unclean = [finding for finding in findings if finding.unclean]
    for finding in escaped:
        print(
            f"ESCAPED  {finding.bug}: {finding.what}; seen instead: {finding.others or 'nothing'}"
        )
    for finding in unclean:
        print(f"UNCLEAN  without {finding.bug!r} the day breaks {finding.unclean}")
    print(
        json.dumps(
            {
                "planted": len(findings),
                "caught": len(findings) - len(escaped),
                "escaped": [finding.bug for finding in escaped],
                "unclean": [finding.bug for finding in unclean],
            }
        )
    )
    return 1 if escaped or unclean else 0


def line_of(finding: Finding) -> str:
    """One row of the table."""
    if not finding.caught:
        return f"{finding.bug:36} ESCAPED"
    return (
        f"{finding.bug:36} {finding.invariant:5} after {finding.events:6} events, "
        f"at {finding.second:8.1f} s, seed {finding.seed}"
    )


def check_number(number: int) -> Finding:
    """Plant the bug of that number (bugs themselves do not travel between processes)."""
    return check(BUGS[number])


def check(bug: PlantedBug) -> Finding:
    """Live the days of its hunt with the bug and, where it is caught, without."""
    others: set[str] = set()
    for seed in bug.hunt.seeds:
        with planted(bug):
            day = live(bug.hunt, seed, bug.caught_by)
        others.update(violation.invariant for violation in day.violations)
        for violation, events in zip(day.violations, day.events, strict=True):
            if violation.invariant not in bug.caught_by:
                continue
            clean = live(bug.hunt, seed)
            return Finding(
                bug=bug.name,
                what=bug.what,
                caught=True,
                invariant=violation.invariant,
                second=violation.second,
                events=events,
                seed=seed,
                others=tuple(sorted(others - {violation.invariant})),
                unclean=tuple(sorted({each.invariant for each in clean.violations})),
                detail=violation.what,
            )
    return Finding(bug.name, bug.what, False, "", 0.0, 0, 0, tuple(sorted(others)), (), "")


def live(hunt: Hunt, seed: int, until: Sequence[str] = ()) -> _Day:
    """One day of a hunt, or as much of it as there is before one of `until` is seen broken."""
    plan = WorldPlan(
        seed, hours=hunt.hours, strokes=tuple(hunt.strokes), database=tuple(hunt.database)
    )
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(plan, Path(folder))
        events: list[int] = []
        seen: list[Violation] = []
        violate, run = world.judge.violate, world.hub.run

        def is_caught() -> bool:
            return any(violation.invariant in until for violation in seen)

        def counted(invariant: str, what: str) -> None:
            if not is_caught():
                violate(invariant, what)
                seen.append(Violation(invariant, world.second, what))
                events.append(world.hub.steps)

        def run_until_caught(until_ms: int, finished: Callable[[], bool] = lambda: False) -> None:
            run(until_ms, lambda: is_caught() or finished())

        world.judge.violate = counted  # type: ignore[method-assign]
        world.hub.run = run_until_caught  # type: ignore[method-assign]
        try:
            world.run()
        except Exception as error:
            counted("world", f"{type(error).__name__}: {error}")
    return _Day(tuple(seen), tuple(events))


def as_json(findings: Sequence[Finding]) -> str:
    """For whoever keeps the table."""
    return json.dumps([asdict(finding) for finding in findings], indent=1)


if __name__ == "__main__":
    sys.exit(main())
