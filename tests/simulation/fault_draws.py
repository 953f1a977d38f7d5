"""Which strokes a day gets: every id of groups C, D and O, some of E, drawn by a seed.

    drawn_strokes(random, count, hours, symbols) ─► fault_strokes, in order of time ─► WorldPlan

`excused.EXCUSED` names every id of groups A to E and O that a simulated day cannot meet; every
other id of C, D and O is in `KINDS`, of E also in `fault_postgres.DATABASE_FAULTS`, of A and B in
the exchange's own catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tests.simulation.fault_data import DATA_FAULTS
from tests.simulation.fault_strokes import (
    ClockStep,
    Command,
    DataStroke,
    DiskStroke,
    GapMove,
    Kill,
    Litter,
    LockStroke,
    LoseLetter,
    Pause,
    PowerCut,
    SecondGateway,
    SecondLeader,
    Storm,
)

CYCLE_S: Final = 900.0
FIRST_BOUNDARY_S: Final = 30.0
"""Seconds from the start of a day to its first quarter of an hour."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of stroke: its id, how likely it is, and how one is drawn at a second."""

    fault_id: str
    weight: int
    draw: Callable[[Random, float, Sequence[str]], Any]


LEADER_POINTS: Final = ("execution:", "order_info:", "leader:", "postgres:")
GATEWAY_POINTS: Final = ("gateway:", "postgres:")
GATES: Final = ("gateway: judged", "gateway: reserved", "gateway: sending", "wire: about to leave")


def _data(fault_id: str) -> Kind:
    def draw(random: Random, at_s: float, symbols: Sequence[str]) -> DataStroke:
        variant = random.choice(DATA_FAULTS[fault_id])
        seconds = {"C2": 600.0, "C3": 8.0}.get(fault_id, float(random.choice((6, 20, 90))))
        symbol = (
            random.choice(symbols) if fault_id in ("C3", "C5") else random.choice((None, *symbols))
        )
        return DataStroke(fault_id, max(0.0, at_s - 3.0), variant, seconds, symbol)

    return Kind(fault_id, 2, draw)


def _kill(fault_id: str, weight: int, role: str, points: Sequence[str | None]) -> Kind:
    def draw(random: Random, at_s: float, symbols: Sequence[str]) -> Kill:
        return Kill(fault_id, at_s, role, random.choice(points), random.choice((1, 1, 2, 3, 5)))

    return Kind(fault_id, weight, draw)


def _pause(fault_id: str, weight: int, role: str, points: Sequence[str | None]) -> Kind:
    def draw(random: Random, at_s: float, symbols: Sequence[str]) -> Pause:
        seconds = 75.0 if fault_id == "E8" else random.choice((7.0, 30.0, 90.0))
        return Pause(fault_id, at_s, role, seconds, random.choice(points), random.choice((1, 2, 3)))

    return Kind(fault_id, weight, draw)


def _command(fault_id: str, weight: int, command: str) -> Kind:
    return Kind(fault_id, weight, lambda random, at_s, symbols: Command(fault_id, at_s, command))


def _before_cycle(at_s: float) -> float:
    """Just before the next cycle begins to write: at other times nobody asks for the lock."""
    return at_s + (FIRST_BOUNDARY_S - at_s) % CYCLE_S - 1.0


KINDS: Final[tuple[Kind, ...]] = (
    *(_data(fault_id) for fault_id in DATA_FAULTS),
    Kind("B6", 1, lambda r, s, _: GapMove(s + 120.0)),
    Kind("C7", 2, lambda r, s, _: ClockStep(s, r.choice((-300.0, 3600.0, -2.0, 40.0)))),
    _pause("C8", 2, "leader", (None, *LEADER_POINTS)),
    _pause("C8", 2, "gateway", (None, *GATEWAY_POINTS)),
    _pause("C8", 1, "strategy", (None,)),
    Kind("C8", 1, lambda r, s, _: SecondLeader(s, r.choice((5.0, 30.0, 90.0)))),
    Kind(
        "C8",
        1,
        lambda r, s, _: SecondGateway(
            s, r.choice((5.0, 20.0, 30.0)), r.choice(GATES), leader_too=r.random() < 0.5
        ),
    ),
    _kill("D1", 3, "strategy", (None, "order_info:")),
    _kill("D2", 5, "leader", (None, *LEADER_POINTS)),
    _kill("D2", 4, "gateway", (None, *GATEWAY_POINTS)),
    _kill("D3", 3, "leader", ("execution: after submit",)),
    _kill("D4", 3, "leader", ("execution: before submit",)),
    Kind("D6", 2, lambda r, s, _: PowerCut(s, r.choice(("", "order_info:")), r.choice((1, 2, 3)))),
    Kind("D6", 1, lambda r, s, _: Litter(s)),
    Kind("D6", 1, lambda r, s, _: LoseLetter(s)),
    Kind("D9", 1, lambda r, s, _: LockStroke("D9", s, 20.0, r.choice(("folder", "link", "fifo")))),
    Kind("D10", 2, lambda r, s, _: LockStroke("D10", _before_cycle(s), r.choice((3.0, 45.0)))),
    _command("D16", 1, "terminate flat, and die"),
    Kind("D17", 1, lambda r, s, _: Storm(s, r.choice((2, 3, 6)))),
    Kind("D20", 2, lambda r, s, _: DiskStroke("D20", s, times=r.choice((1, 2, 4)))),
    Kind("D21", 2, lambda r, s, _: DiskStroke("D21", s, seconds=r.choice((1.0, 5.0, 30.0)))),
    _pause("E8", 2, "finwatcher", (None,)),
    _kill("E9", 2, "finwatcher", (None,)),
    _command("A27", 1, "run-system again"),
    _command("O1", 1, "run-system again"),
    _command("O2", 1, "terminate protected"),
    _command("O3", 1, "terminate flat, twenty times"),
    _command("O5", 1, "somebody else's session"),
    _command("O8", 1, "kill switch"),
)


def drawn_strokes(
    random: Random, count: int, hours: float, symbols: Sequence[str]
) -> tuple[Any, ...]:
    """`count` strokes of a day of so many hours, in order of time; the same for the same seed.

    Three of four fall where a cycle trades: into the first twenty seconds after a boundary.
    """
    weights = [kind.weight for kind in KINDS]
    strokes: list[Any] = []
    for _ in range(count):
        kind = random.choices(KINDS, weights=weights)[0]
        at_s = random.uniform(FIRST_BOUNDARY_S, hours * 3600)
        if random.random() < 0.75:
            at_s -= (at_s - FIRST_BOUNDARY_S) % CYCLE_S
            at_s += 20.0 * random.random() ** 2
        strokes.append(kind.draw(random, round(at_s, 3), symbols))
    return tuple(sorted(strokes, key=lambda stroke: (stroke.at_s, stroke.fault_id)))
