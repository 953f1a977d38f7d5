"""What `make simulate` prints: a line per violation, the faults that were hit, how long positions
were bare, and one JSON object at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.day_plan import possible_ids
from tests.simulation.excused import EXCUSED
from tests.simulation.judge import Violation

FAULTS_A_DAY = 30
ORDERS_A_DAY = 150
"""A clean ordinary day has 300 to 700."""
DONE_A_DAY = 48
"""Cycles of 96 that are traded to their end; a clean day has more than 85."""
JUDGED_FROM_HOURS = 6
"""Shorter days say too little to have a floor."""
LONGEST = 5


@dataclass
class DayResult:
    """One day, as a worker process hands it over. `crash`: the harness itself broke.
    `kind`: asked for by name, not the seed's own."""

    seed: int
    days: float
    kind: str | None = None
    sessions: int = 0
    cycles: int = 0
    done: int = 0
    orders: int = 0
    is_ordinary: bool = True
    hits: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    digest: str = ""
    bare_s: list[float] = field(default_factory=list)
    bare_answering_s: list[float] = field(default_factory=list)
    longest: list[tuple[float, float, float, str]] = field(default_factory=list)
    """Seconds without a stop while the exchange answered, in all, when that ended, and of what."""
    seconds: float = 0.0
    crash: str = ""

    @property
    def faults(self) -> int:
        """Faults that really changed something."""
        return sum(self.hits.values())

    @property
    def is_calm(self) -> bool:
        """Whether less went wrong than should (a day that broke off is not called calm)."""
        return not self.crash and self.faults < FAULTS_A_DAY * self.days

    @property
    def is_idle(self) -> bool:
        """Whether less was traded than the day's strategy leads to (an ordinary day of some
        length, that did not break off)."""
        if self.crash or not self.is_ordinary or self.days * 24 < JUDGED_FROM_HOURS:
            return False
        return self.orders < ORDERS_A_DAY * self.days or self.done < DONE_A_DAY * self.days


@dataclass
class Totals:
    """All days of a run."""

    days: list[DayResult] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def hits(self) -> Counter[str]:
        """By catalogue id."""
        total: Counter[str] = Counter()
        for day in self.days:
            total.update(day.hits)
        return total

    @property
    def violations(self) -> int:
        """Broken promises, and days that could not be lived to their end."""
        return sum(len(day.violations) + bool(day.crash) for day in self.days)

    @property
    def too_calm(self) -> list[DayResult]:
        """Whole days in which too little went wrong to mean much."""
        return [day for day in self.days if day.days >= 1 and day.is_calm]

    @property
    def idle(self) -> list[DayResult]:
        """Days in which too little was traded to mean much."""
        return [day for day in self.days if day.is_idle]

    def never_hit(self) -> list[str]:
        """Ids that no day of this run met and that nobody excuses."""
        hits = self.hits
        return [fault for fault in possible_ids() if not hits[fault]]


def day_lines(day: DayResult, *, verbose: bool) -> list[str]:
    """What is printed of one day: nothing while all is well, unless `verbose`."""
    again = f"python -m tests.simulation --seed {day.seed}"
    if day.kind is not None:
        again += f" --kind {day.kind}"
    if day.days != 1:
        again += f" --hours {day.days * 24:g}"
    lines = []
    if day.crash:
        lines.append(f"seed {day.seed}  CRASH  {day.crash}  again: {again}")
    for item in day.violations:
        lines.append(
            f"seed {day.seed}  VIOLATION {item.invariant} at {item.second:.3f} s: {item.what}  "
            f"again: {again}"
        )
    if day.days >= 1 and day.is_calm:
        lines.append(
            f"seed {day.seed}  TOO CALM: {day.faults} faults changed something, {FAULTS_A_DAY} are "
            f"wanted  again: {again}"
        )
    if day.is_idle:
        lines.append(
            f"seed {day.seed}  TOO IDLE: {day.orders} orders, {ORDERS_A_DAY * day.days:g} are "
            f"wanted; {day.done} cycles done, {DONE_A_DAY * day.days:g} are wanted  again: {again}"
        )
    if verbose and not lines:
        lines.append(
            f"seed {day.seed}  ok  {day.cycles} cycles, {day.done} done, {day.sessions} sessions, "
            f"{day.orders} orders, {day.faults} faults, {day.seconds:.1f} s, log {day.digest}"
        )
    return lines


def summary_lines(totals: Totals) -> list[str]:
    """The tables and, last, the JSON object."""
    hits = totals.hits
    lines = ["", "faults that changed something, by catalogue id"]
    known = sorted(hits, key=lambda fault: (fault[0], int(fault[1:])))
    for group in sorted({fault[0] for fault in known}):
        row = "  ".join(f"{fault} {hits[fault]}" for fault in known if fault[0] == group)
        lines.append(f"  {row}")
    missed = totals.never_hit()
    if missed:
        lines.append(f"  not met in this run: {' '.join(missed)}")
    lines.append("excused (a simulated day cannot meet them)")
    for fault, excuse in EXCUSED.items():
        where = ", ".join(dict.fromkeys(test.partition("::")[0] for test in excuse.tests))
        lines.append(f"  {fault:4} {excuse.why}{': ' if where else ''}{where}")
    bare = sorted(seconds for day in totals.days for seconds in day.bare_s)
    answering = sorted(seconds for day in totals.days for seconds in day.bare_answering_s)
    lines.append(f"positions without their stop, {len(bare)} times, in seconds")
    lines.append(f"  while the exchange answers  {percentiles(answering)}")
    lines.append(f"  in all                      {percentiles(bare)}")
    longest = sorted(
        ((*each, day.seed) for day in totals.days for each in day.longest), reverse=True
    )
    for answering_s, total_s, second, symbol, seed in longest[:LONGEST]:
        lines.append(
            f"  {answering_s:.2f} of {total_s:.2f} s until {second:.3f} s: {symbol}, seed {seed}"
        )
    simulated = sum(day.days for day in totals.days)
    calm = [day.seed for day in totals.days if day.is_calm]
    idle = [day.seed for day in totals.idle]
    if idle:
        lines.append(f"too little was traded: seeds {idle[:20]}")
    if calm:
        lines.append(f"fewer than {FAULTS_A_DAY} faults a day: seeds {calm[:20]}")
    lines.append(
        json.dumps(
            {
                "sessions": sum(day.sessions for day in totals.days),
                "simulated_days": round(simulated, 3),
                "faults": sum(hits.values()),
                "violations": totals.violations,
                "days_per_second": round(simulated / max(totals.wall_s, 0.001), 3),
                "cycles": sum(day.cycles for day in totals.days),
                "cycles_done": sum(day.done for day in totals.days),
                "orders": sum(day.orders for day in totals.days),
                "fault_ids": len(hits),
                "faults_per_day_min": min((day.faults for day in totals.days), default=0),
                "idle_days": len(totals.idle),
                "unprotected_p99_s": at_share(answering, 0.99),
                "unprotected_max_s": at_share(answering, 1.0),
                "seconds": round(totals.wall_s, 1),
            }
        )
    )
    return lines


def progress_line(totals: Totals, wanted: int) -> str:
    """How far a long run is, for a person who waits."""
    done = len(totals.days)
    left_s = totals.wall_s / done * (wanted - done)
    return (
        f"{done} of {wanted} days, {done / max(totals.wall_s, 0.001):.2f} a second, about "
        f"{left_s / 60:.0f} min left, {totals.violations} violations"
    )


def percentiles(values: Sequence[float]) -> str:
    """p50, p99 and max of sorted values."""
    return (
        f"p50 {at_share(values, 0.5):.2f}  p99 {at_share(values, 0.99):.2f}  "
        f"max {at_share(values, 1.0):.2f}"
    )


def at_share(values: Sequence[float], share: float) -> float:
    """The value at that share of sorted values; 0 of none."""
    if not values:
        return 0.0
    return round(values[min(len(values) - 1, int(share * len(values)))], 3)
