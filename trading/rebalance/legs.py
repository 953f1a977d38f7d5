"""The words of a plan: policy and book go in; legs, skipped legs and residuals come out. PURE.

Everything that plans, stores, previews or executes an order plan speaks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from module.model.accounts import Position
from module.model.market import Instrument, MarketType
from module.model.orders import NO_STOPS, Side, StopPrices
from module.model.sessions import TradeMode


class DiffCase(StrEnum):
    """How a target differs from what is held."""

    NEW = "new"
    INCREASE = "increase"
    DECREASE = "decrease"
    OPPOSITE = "opposite"
    GONE = "gone"
    SAME = "same"


class SkipReason(StrEnum):
    """Why a difference is not traded."""

    BELOW_THRESHOLD = "below_threshold"
    BELOW_MIN_SIZE = "below_min_size"
    BELOW_MIN_NOTIONAL = "below_min_notional"
    NOT_TRADABLE = "not_tradable"
    NO_PRICE = "no_price"
    STOP_ON_WRONG_SIDE = "stop_on_wrong_side"
    NO_MARGIN_LEFT = "no_margin_left"
    WITHIN_BAND = "within_band"
    TURNOVER_CAP = "turnover_cap"
    OPEN_ORDER = "open_order"
    DUST = "dust"
    LOT_ROUNDING = "lot_rounding"
    BOOK_LIMIT = "book_limit"
    DOUBTFUL_PRICE = "doubtful_price"


@dataclass(frozen=True, slots=True)
class Policy:
    """The session's rules for planning. `threshold` and weights are fractions of the base.

    `threshold_relative`: |difference| ÷ |target|; a difference is traded only when it reaches both
    thresholds. `no_trade_band`: a multiplier of the half-width that `bands.half_width` gives; what
    is outside is traded to the edge; None: to the target itself. `turnover_max`: the margin that
    one cycle may trade, as a fraction of the base; closes count in it and are never held back.
    """

    mode: TradeMode
    market: MarketType
    leverage: Decimal
    threshold: Decimal
    default_stop_loss_pct: Decimal | None = None
    slippage_buffer: Decimal = Decimal("0.002")
    threshold_relative: Decimal | None = None
    no_trade_band: Decimal | None = None
    turnover_max: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Book:
    """What is held and what it is worth, from one snapshot. `base` in quote asset, > 0.

    `open_orders`: every symbol with orders that may still fill, and what these can add at most, in
    base asset, ≥ 0. `spreads`: half of ask − bid as a fraction of the mark. `volatility`: of the
    price, annualised, as a fraction. Only bands need these two; a symbol without volatility has no
    band. `doubted`: symbols whose price is not believed; they only close, and with one of them held
    all only close.
    """

    base: Decimal
    available: Decimal
    positions: Mapping[str, Position]
    marks: Mapping[str, Decimal]
    instruments: Mapping[str, Instrument]
    open_orders: Mapping[str, Decimal] = field(default_factory=dict)
    spreads: Mapping[str, Decimal] = field(default_factory=dict)
    volatility: Mapping[str, Decimal] = field(default_factory=dict)
    doubted: frozenset[str] = frozenset()


class Leg(NamedTuple):
    """One planned order. `size` in base asset, > 0, on the lot. (A tuple: plans make hundreds, and
    a frozen dataclass takes five times as long to make.)

    `after` names the leg that must be confirmed first (the close of a flip). `stops` is what the
    position must have once this leg is filled.
    """

    leg_id: str
    symbol: str
    case: DiffCase
    side: Side
    size: Decimal
    reduce_only: bool
    reference_price: Decimal
    current_weight: Decimal
    target_weight: Decimal
    stops: StopPrices = NO_STOPS
    after: str | None = None

    @property
    def notional(self) -> Decimal:
        """Size at the reference price, in quote asset."""
        return self.size * self.reference_price


@dataclass(frozen=True, slots=True)
class SkippedLeg:
    """A difference that is not traded, and why; the residual stays visible."""

    symbol: str
    reason: SkipReason
    current_weight: Decimal
    target_weight: Decimal


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """Legs in the order they are to be sent; `stops` of every position that should be there.

    `residuals`: target − what is held once every leg is filled, as signed weight, per symbol where
    it is not zero. Nothing has to carry it: the next cycle plans from what is held.
    """

    legs: tuple[Leg, ...]
    skipped: tuple[SkippedLeg, ...]
    stops: Mapping[str, StopPrices]
    residuals: Mapping[str, Decimal] = field(default_factory=dict)
