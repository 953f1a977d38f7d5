"""What kind of session a simulated day is: its market, its mode, how its account is used.

    seed ─► kind_of_seed ─► DayKind ─► WorldPlan ─► World (spec, account, strategy, judge)

The ordinary day is futures, mode rebalancing, crossed margin, all of the account; the others are
asked for by name. Within a kind the seed says how long a cycle is and whether money was allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Final

from module.model.accounts import MarginMode
from module.model.market import MarketType
from module.model.sessions import TradeMode

MINUTES: Final = (5, 10, 15)
"""Lengths of a cycle on days that are not ordinary."""
ALLOCATED: Final = Decimal(6_500)
KINDS_OF_SEEDS: Final[Mapping[int, str]] = {3: "general", 5: "volatility", 7: "spot", 9: "isolated"}
"""By the last digit of the seed, once the kinds are `MIXED` into the days; the others are
ordinary."""
MIXED: Final = False


@dataclass(frozen=True, slots=True)
class DayKind:
    """`allocated` None: `compounding`, weights are fractions of what the account is worth."""

    name: str
    market: MarketType = MarketType.FUTURES
    mode: TradeMode = TradeMode.REBALANCING
    margin_mode: MarginMode = MarginMode.CROSSED
    leverage: Decimal = Decimal(2)
    interval: timedelta = timedelta(minutes=15)
    allocated: Decimal | None = None
    target_volatility: Decimal | None = None

    @property
    def is_spot(self) -> bool:
        """Coins instead of positions."""
        return self.market is MarketType.SPOT

    def base(self, equity: Decimal) -> Decimal:
        """What weights are fractions of, with so much in the account."""
        return equity if self.allocated is None else min(self.allocated, equity)


ORDINARY: Final = DayKind("ordinary")
VOLATILITY: Final = Decimal("0.4")
_SPOT: Final = DayKind("spot", market=MarketType.SPOT, leverage=Decimal(1))
KINDS: Final[Mapping[str, DayKind]] = {
    kind.name: kind
    for kind in (
        ORDINARY,
        DayKind("general", mode=TradeMode.GENERAL),
        DayKind("volatility", mode=TradeMode.VOLATILITY_TARGETING, target_volatility=VOLATILITY),
        DayKind("isolated", margin_mode=MarginMode.ISOLATED),
        _SPOT,
        replace(_SPOT, name="spot-general", mode=TradeMode.GENERAL),
        replace(
            _SPOT,
            name="spot-volatility",
            mode=TradeMode.VOLATILITY_TARGETING,
            target_volatility=VOLATILITY,
        ),
    )
}
SPOT_MODES: Final = ("spot", "spot", "spot-general", "spot-volatility")


def day_kind(seed: int, name: str | None = None) -> DayKind:
    """The kind of the day of `seed`; `name`: this one, whatever the seed's own is.

    Spot days take turns in their modes."""
    if name is None:
        name = KINDS_OF_SEEDS.get(seed % 10, "ordinary") if MIXED else "ordinary"
        if name == "spot":
            name = SPOT_MODES[seed // 10 % len(SPOT_MODES)]
    kind = KINDS[name]
    if kind is ORDINARY:
        return kind
    dice = Random(f"kind:{seed}")
    interval = timedelta(minutes=dice.choice(MINUTES))
    return replace(kind, interval=interval, allocated=dice.choice((None, ALLOCATED)))
