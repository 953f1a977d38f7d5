"""`python -m tests.simulation --sweep`: kills at every point of a cycle, and of the recovery.

One cycle opens twelve positions with stops, the next one turns some over. Each named point that the
leader, the strategy process or the gateway reaches during the first cycle is a place to die, at
each of its occurrences. Then, for the first occurrence of each, whoever follows (the next leader,
strategy process or gateway) dies at every point of its recovery too. Every run must satisfy every
invariant, be at its targets after the next cycle, and end flat with nothing left behind.

`--part 2/6` runs every sixth place, from the second on, and what its recovery reaches: six parts
are the whole.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.day import memory_folder
from tests.simulation.hub import Process
from tests.simulation.judge import Violation
from tests.simulation.world import World
from tests.simulation.world_plan import WorldPlan

LEGS = 12
HOURS = 0.3
CYCLE_FROM_S = 30.0
CYCLE_UNTIL_S = 60.0
SEED = 4
ROLES = ("leader", "strategy", "gateway")
RECOVERY_OCCURRENCES_MAX = 2


@dataclass(frozen=True, slots=True)
class Death:
    """A process of `role` (or of that very name) dies when it reaches `point` for the nth time."""

    role: str
    point: str
    nth: int


@dataclass(frozen=True, slots=True)
class SweepResult:
    """One run: where it was killed, what was broken, which points the recovery reached."""

    deaths: tuple[Death, ...]
    killed: int
    violations: tuple[Violation, ...]
    points: Counter[tuple[str, str]]
    ended: str
    crash: str = ""


def sweep(workers: int, part: tuple[int, int] = (1, 1)) -> int:
    """All of it, or part i of n; prints counts, each violation with its deaths, one JSON object;
    the exit code."""
    started = time.monotonic()
    first = run_once(())
    places = [
        Death(role, point, nth)
        for (role, point), count in sorted(first.points.items())
        if role in ROLES
        for nth in range(1, count + 1)
    ]
    print(f"{len(places)} places to die in a cycle of {LEGS} legs with stops", flush=True)
    places = places[part[0] - 1 :: part[1]]
    broken = _print_broken([first])
    once = 0
    recoveries: list[tuple[Death, ...]] = []
    for result in _run_all([(place,) for place in places], workers):
        once += result.killed
        broken += _print_broken([result])
        if result.deaths[0].nth == 1:
            recoveries += [(result.deaths[0], again) for again in _again(result)]
    print(f"{once} kills; {len(recoveries)} places to die again while recovering", flush=True)
    twice = 0
    for result in _run_all(recoveries, workers):
        twice += result.killed == 2
        broken += _print_broken([result])
    summary = {
        "part": f"{part[0]}/{part[1]}",
        "kills": once,
        "second_kills": twice,
        "runs": 1 + len(places) + len(recoveries),
        "points": len({(place.role, place.point) for place in places}),
        "violations": broken,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary), flush=True)
    return 1 if broken else 0


def run_once(deaths: tuple[Death, ...]) -> SweepResult:
    """One short day with these deaths."""
    plan = WorldPlan(SEED, hours=HOURS, symbols=LEGS, watched=False, dropped=0.0)
    with tempfile.TemporaryDirectory(prefix="aifap-sweep-", dir=memory_folder()) as folder:
        world = World(plan, Path(folder))
        reaper = Reaper(world, deaths)
        world.at_point.append(reaper.reached)
        try:
            report = world.run()
        except Exception as error:
            crash = f"{type(error).__name__}: {error}"
            return SweepResult(deaths, reaper.killed, (), reaper.points, "", crash)
    violations = tuple(report.violations)
    return SweepResult(deaths, reaper.killed, violations, reaper.points, report.ended)


class Reaper:
    """Kills at the places of `deaths`, one after the other; counts the points of what interests:
    without a death those of the first cycle, after one those of the process that follows."""

    def __init__(self, world: World, deaths: Sequence[Death]) -> None:
        self._world = world
        self._left = list(deaths)
        self._count = 0
        self._dead: Process | None = None
        self.killed = 0
        self.points: Counter[tuple[str, str]] = Counter()
        self._all = not deaths

    def reached(self, process: Process, point: str) -> None:
        """A process is at a point."""
        if self._world.second < CYCLE_FROM_S:
            return
        follows = self._who_follows(process)
        if (self._all or follows) and self._world.second < CYCLE_UNTIL_S:
            self.points[follows or process.role, point] += 1
        if not self._left:
            return
        death = self._left[0]
        if point != death.point or death.role not in (process.role, process.name):
            return
        self._count += 1
        if self._count >= death.nth:
            del self._left[0]
            self._count = 0
            self.killed += 1
            self._dead = self._dead or process
            self._world.hub.kill(process)

    def _who_follows(self, process: Process) -> str:
        """The name that a second death calls `process` by, when it stands for the one that died."""
        dead = self._dead
        if dead is None or process is dead:
            return ""
        if process.name == "leader-2" or (dead.role == process.role == "gateway"):
            return process.name
        return process.role if dead.role == process.role == "strategy" else ""


def _again(result: SweepResult) -> Iterable[Death]:
    for (name, point), count in sorted(result.points.items()):
        for nth in range(1, min(count, RECOVERY_OCCURRENCES_MAX) + 1):
            yield Death(name, point, nth)


def _run_all(runs: Sequence[tuple[Death, ...]], workers: int) -> Iterator[SweepResult]:
    live: Callable[[tuple[Death, ...]], SweepResult] = run_once
    if workers <= 1:
        yield from map(live, runs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(live, runs, chunksize=4)


def _print_broken(results: Iterable[SweepResult]) -> int:
    broken = 0
    for result in results:
        where = ", ".join(f"{d.role} at {d.point!r} #{d.nth}" for d in result.deaths) or "nowhere"
        for item in result.violations:
            print(f"killed {where}: VIOLATION {item.invariant} {item.what}", flush=True)
        if result.crash:
            print(f"killed {where}: CRASH {result.crash}", flush=True)
        broken += len(result.violations) + bool(result.crash)
    return broken
