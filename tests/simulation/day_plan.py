"""Which faults happen on the day of a seed, and when: a pure function of the seed.

    exchange (groups A and B) ─ the exchange's own catalogue and fault desk
    database (group E)        ─ fault_postgres
    the rest (C, D, O …)      ─ fault_strokes

Three of four fall where a cycle trades. Faults that end a session are rarer than those that it must
live through. The last part of the day is calm, so that everything has time to come to rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Final

from module.model.sessions import installation_prefix
from module.simulator.faults.fault_catalogue import CATALOGUE, INJECTABLE, catalogue_words
from tests.simulation.excused import EXCUSED
from tests.simulation.fault_draws import KINDS, drawn_strokes
from tests.simulation.fault_postgres import DATABASE_FAULTS, seeded_database_faults
from tests.simulation.hub import EPOCH
from tests.simulation.world import INSTALLATION, START_MS, WorldPlan, symbols_of

if TYPE_CHECKING:
    from tests.simulation.world import World

CALM_S: Final = 2700.0
FIRST_BOUNDARY_S: Final = 30.0
CYCLE_S: Final = 900.0
SPOT_ONLY: Final = {("A18", "spot"), ("B13", "dust")}
RARE: Final[Mapping[str, int]] = {
    "A13": 2, "A14": 1, "A15": 1, "A16": 1, "A20": 1, "A22": 1, "A23": 2, "A24": 1, "A26": 1,
    "B3": 2, "B6": 3, "B11": 2, "B14": 2,
}  # fmt: skip
USUAL: Final = 6
LASTING_S: Final = (30, 120, 400)


@dataclass(frozen=True, slots=True)
class ExchangeStroke:
    """A fault of the exchange's catalogue: armed now, for so long, at the nth fitting request."""

    fault_id: str
    at_s: float
    variant: str
    nth: int
    lasts_s: int

    def apply(self, world: World) -> None:
        """It counts when its rule has changed something."""
        world.exchange.forget_ended_faults()
        own: dict[str, object] = {"from_s": 0, "until_s": self.lasts_s, "nth": self.nth}
        if self.fault_id == "A29" and self.nth > 1:
            own["client_id"] = f"{installation_prefix(INSTALLATION)}older-"
        if self.fault_id == "A18":
            own["amount"] = "1700"
        for words in catalogue_words(self.fault_id, self.variant, own):
            world.exchange.fault(words)


def possible_ids() -> tuple[str, ...]:
    """Every id that a simulated day can meet."""
    found = {fault for fault in INJECTABLE if fault not in EXCUSED}
    found |= set(DATABASE_FAULTS) | {kind.fault_id for kind in KINDS}
    return tuple(sorted(found, key=_by_group))


def day_plan(
    seed: int,
    *,
    hours: float = 24.0,
    exchange: int = 56,
    strokes: int = 26,
    database: int = 6,
    watched: bool | None = None,
) -> WorldPlan:
    """The day of `seed`, with so many planned faults of each kind (for 24 hours)."""
    dice = Random(f"day:{seed}")
    share = hours / 24
    busy_s = max(0.0, hours * 3600 - CALM_S)
    symbols = symbols_of(seed)
    planned = [_exchange_stroke(dice, busy_s) for _ in range(round(exchange * share))]
    others = drawn_strokes(dice, round(strokes * share), busy_s / 3600, symbols)
    start = EPOCH + timedelta(milliseconds=START_MS)
    faults = seeded_database_faults(
        dice, start, start + timedelta(seconds=busy_s), round(database * share)
    )
    return WorldPlan(
        seed,
        hours=hours,
        strokes=tuple(sorted((*planned, *others), key=lambda s: (s.at_s, s.fault_id))),
        database=tuple(faults),
        letters="postgres" if seed % 4 == 3 else "file",
        watched=seed % WATCHED_EVERY == 0 if watched is None else watched,
        ends_flat=seed % 3 != 2,
    )


WATCHED_EVERY: Final = 5


def _exchange_stroke(dice: Random, busy_s: float) -> ExchangeStroke:
    ids = [fault for fault in INJECTABLE if fault not in EXCUSED]
    fault = dice.choices(ids, weights=[RARE.get(each, USUAL) for each in ids])[0]
    variants = [name for name in CATALOGUE[fault].variants if _is_ours(fault, name)]
    at_s = dice.uniform(0, busy_s)
    if dice.random() < 0.75:
        at_s -= (at_s - FIRST_BOUNDARY_S) % CYCLE_S
        at_s = max(0.0, at_s - 2.0 + 12.0 * dice.random() ** 2)
    nth = dice.choice((1, 1, 2, 3, 5))
    return ExchangeStroke(fault, round(at_s, 3), dice.choice(variants), nth, dice.choice(LASTING_S))


def _is_ours(fault: str, variant: str) -> bool:
    return (fault, variant) not in SPOT_ONLY and not variant.startswith("spot_")


def _by_group(fault: str) -> tuple[str, int]:
    return fault[0], int(fault[1:])
