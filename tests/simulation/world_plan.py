"""What a simulated day depends on, and what it was: before and after a `World`.

day_plan.day_plan(seed) ─► WorldPlan ─► World.run() ─► DayReport ─► report
                           └─ strokes: what goes wrong, and when
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from tests.simulation.day_kinds import ORDINARY, DayKind
from tests.simulation.day_market import MARKETS
from tests.simulation.fault_postgres import DatabaseFault
from tests.simulation.judge import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World


class Stroke(Protocol):
    """One thing that goes wrong; `world` says what it may do there."""

    @property
    def fault_id(self) -> str: ...

    @property
    def at_s(self) -> float: ...

    def apply(self, world: World) -> None:
        """Do it, now."""
        ...


@dataclass(frozen=True)
class WorldPlan:
    """Everything that a day depends on. The same plan gives the same event log, byte for byte."""

    seed: int
    hours: float = 24.0
    symbols: int = 9
    kind: DayKind = ORDINARY
    strokes: tuple[Stroke, ...] = ()
    database: tuple[DatabaseFault, ...] = ()
    letters: str = "file"
    watched: bool = True
    """Whether finwatcher runs (it asks for more than all the others together)."""
    calm_hours: float = 0.75
    """At the end nothing goes wrong any more: the time to converge in."""
    ends_flat: bool = True
    dropped: float = 0.12
    """How often the day's strategy leaves a symbol out."""

    @property
    def calm_from_s(self) -> float:
        """From this second on the account must be where it should be."""
        return self.hours * 3600 - 1900 if self.strokes or self.database else 0.0

    @property
    def interval(self) -> timedelta:
        """Length of a cycle."""
        return self.kind.interval

    @property
    def market_seed(self) -> int:
        """Few markets: their prices are made once and shared by many seeds."""
        return self.seed % MARKETS


@dataclass
class DayReport:
    """What a day was. `digest` is of the event log."""

    seed: int
    hours: float
    sessions: int
    cycles: int
    done: int
    """Cycles that were traded to their end."""
    orders: int
    requests: int
    hits: Counter[str]
    violations: list[Violation]
    digest: str
    unprotected_s: list[float]
    unprotected_answering_s: list[float]
    ended: str
    steps: int
