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
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Final, cast

from module.model.sessions import installation_prefix
from module.simulator.engine.engine_types import PlanType, PositionSide
from module.simulator.faults.fault_catalogue import CATALOGUE, INJECTABLE, catalogue_words
from tests.simulation.day_kinds import day_kind
from tests.simulation.day_market import symbols_of
from tests.simulation.excused import EXCUSED
from tests.simulation.fault_draws import KINDS, drawn_strokes
from tests.simulation.fault_postgres import DATABASE_FAULTS, seeded_database_faults
from tests.simulation.hub import EPOCH
from tests.simulation.spot_strokes import HandStroke, spot_strokes
from tests.simulation.world import INSTALLATION, START_MS
from tests.simulation.world_plan import WorldPlan

if TYPE_CHECKING:
    from tests.simulation.world import World

CALM_S: Final = 2700.0
FIRST_BOUNDARY_S: Final = 30.0
CYCLE_S: Final = 900.0
SPOT_ONLY: Final = {("A18", "spot"), ("B13", "dust")}
SPOT_VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("A7", "A21", "A22", "A28", "A29"), ()),
    **dict.fromkeys(("B8", "B9", "B10", "B11", "B12", "B16", "B17"), ()),
    "A2": ("filled",), "A18": ("spot",), "A19": ("spot_tick", "spot_lot", "spot_minimum"),
    "B6": ("moved",), "B7": ("43071",), "B13": ("dust",), "B14": ("last",),
}  # fmt: skip
"""What of these ids can happen to a spot account: there are no positions, settings, or batches.
Somebody else's orders and lost stops are strokes of their own there (`spot_strokes.py`)."""
RARE: Final[Mapping[str, int]] = {
    "A13": 2, "A14": 1, "A15": 1, "A16": 1, "A20": 1, "A21": 2, "A22": 1, "A23": 2, "A24": 1,
    "A26": 1,
    "B3": 2, "B6": 3, "B11": 2, "B14": 2, "B15": 2,
}  # fmt: skip
USUAL: Final = 6
LASTING_S: Final = (30, 120, 400)
AT_THE_START: Final = {"A21", "A22"}
"""Settings are made, and the mode can be switched, while nothing is held: as a session begins."""
FIRST_CYCLES_S: Final = 1_200
OF_CANCELS: Final = {"A30", "A31"}
"""Only orders of an older run are cancelled, when a leader starts: both are made to happen."""
OF_FILLS: Final = {"B2", "B3"}
"""Fills are read young only where the account differs from the letters: somebody trades by hand."""
OF_STOPS: Final = "B15"
"""A stop has to fire for it."""
LEADER_DIES_AFTER_S: Final = 3.0


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
        if self.variant == "dust":
            own["coin"] = world.symbols[0].removesuffix("USDT")
        for words in catalogue_words(self.fault_id, self.variant, own):
            world.exchange.fault(words)
        if not world.plan.kind.is_spot:
            self._bring_about(world)

    def _bring_about(self, world: World) -> None:
        """What has to happen so that some rules can find a request to change."""
        own: dict[str, object] = {"from_s": 0, "until_s": 60}
        if self.fault_id in OF_CANCELS:
            own["client_id"] = f"{installation_prefix(INSTALLATION)}older-"
            world.exchange.fault(*catalogue_words("A29", "older", own))
            world.at(LEADER_DIES_AFTER_S, lambda: cast(None, world.kill("leader")))
        elif self.fault_id in OF_FILLS:
            world.exchange.fault(*catalogue_words("A28", "order", own))
        elif self.fault_id == OF_STOPS:
            _pass_a_stop(world)


def possible_ids() -> tuple[str, ...]:
    """Every id that a simulated day can meet."""
    found = {fault for fault in INJECTABLE if fault not in EXCUSED}
    found |= set(DATABASE_FAULTS) | {kind.fault_id for kind in KINDS}
    return tuple(sorted(found, key=_by_group))


def day_plan(
    seed: int,
    *,
    hours: float = 24.0,
    exchange: int = 60,
    strokes: int = 30,
    database: int = 6,
    watched: bool | None = None,
    kind: str | None = None,
) -> WorldPlan:
    """The day of `seed`, with so many planned faults of each kind (for 24 hours).

    `kind`: a name of `day_kinds.KINDS`; None: the seed's own."""
    chosen = day_kind(seed, kind)
    dice = Random(f"day:{seed}")
    share = hours / 24
    busy_s = max(0.0, hours * 3600 - CALM_S)
    symbols = symbols_of(seed)
    fitting = SPOT_IDS if chosen.is_spot else FUTURES_IDS
    planned = [_exchange_stroke(dice, busy_s, fitting) for _ in range(round(exchange * share))]
    others = drawn_strokes(dice, round(strokes * share), busy_s / 3600, symbols)
    by_hand: list[HandStroke] = []
    if chosen.is_spot:
        by_hand = spot_strokes(
            seed, round(BY_HAND * share), busy_s, symbols, chosen.interval.total_seconds()
        )
    start = EPOCH + timedelta(milliseconds=START_MS)
    faults = seeded_database_faults(
        dice, start, start + timedelta(seconds=busy_s), round(database * share)
    )
    return WorldPlan(
        seed,
        hours=hours,
        strokes=tuple(sorted((*planned, *others, *by_hand), key=lambda s: (s.at_s, s.fault_id))),
        database=tuple(faults),
        letters="postgres" if seed % 4 == 3 else "file",
        watched=seed % WATCHED_EVERY == 0 if watched is None else watched,
        ends_flat=seed % 3 != 2,
        kind=chosen,
    )


WATCHED_EVERY: Final = 5
BY_HAND: Final = 16
"""Deeds of somebody else in a spot day's wallet."""


def _exchange_stroke(
    dice: Random, busy_s: float, fitting: Mapping[str, tuple[str, ...]]
) -> ExchangeStroke:
    ids = list(fitting)
    fault = dice.choices(ids, weights=[RARE.get(each, USUAL) for each in ids])[0]
    variants = fitting[fault]
    at_s = dice.uniform(0, busy_s)
    if dice.random() < 0.75:
        at_s -= (at_s - FIRST_BOUNDARY_S) % CYCLE_S
        at_s = max(0.0, at_s - 2.0 + 12.0 * dice.random() ** 2)
    nth, lasts_s = dice.choice((1, 1, 2, 3, 5)), dice.choice(LASTING_S)
    if fault in AT_THE_START:
        at_s, lasts_s = 0.0, FIRST_CYCLES_S
    if fault in AT_THE_START | OF_CANCELS | OF_FILLS:
        nth = 1
    return ExchangeStroke(fault, round(at_s, 3), dice.choice(variants), nth, lasts_s)


def _pass_a_stop(world: World) -> None:
    """The price of one held symbol jumps past its stop."""
    stops = (
        plan
        for plan in world.exchange.account.plans.values()
        if plan.plan_type is PlanType.POS_LOSS and plan.protects is not None
    )
    stop = next(stops, None)
    if stop is not None:
        factor = Decimal("0.93" if stop.protects is PositionSide.LONG else "1.07")
        world.exchange.act(lambda engine: engine.jump_price(stop.symbol, factor))


def _variants(*, spot: bool) -> dict[str, tuple[str, ...]]:
    """What of the exchange's catalogue can happen on a market, by id."""
    found: dict[str, tuple[str, ...]] = {}
    for fault in INJECTABLE:
        names = tuple(CATALOGUE[fault].variants)
        if spot:
            names = SPOT_VARIANTS.get(fault, names)
        else:
            names = tuple(name for name in names if not _is_of_spot(fault, name))
        if fault not in EXCUSED and names:
            found[fault] = names
    return found


def _is_of_spot(fault: str, variant: str) -> bool:
    return (fault, variant) in SPOT_ONLY or variant.startswith("spot_")


FUTURES_IDS: Final = _variants(spot=False)
SPOT_IDS: Final = _variants(spot=True)


def _by_group(fault: str) -> tuple[str, int]:
    return fault[0], int(fault[1:])
