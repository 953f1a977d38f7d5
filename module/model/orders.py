"""Orders as a session asks for them and as the exchange reports them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from module.model.money import plain


class Side(StrEnum):
    """Direction of an order on the wire."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """+1 for buy, -1 for sell."""
        return 1 if self is Side.BUY else -1


class OrderType(StrEnum):
    MARKET = "market"
    LIMIT = "limit"


class OrderStatus(StrEnum):
    """What an exchange says of an order it knows."""

    LIVE = "live"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"

    @property
    def is_terminal(self) -> bool:
        """Nothing more will happen to it."""
        return self in (OrderStatus.FILLED, OrderStatus.CANCELED)


class Outcome(StrEnum):
    """What is known of one submitted order when the call returns."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


NOT_SENT = "not-sent"
"""Code of a refused order that certainly never left: it may be sent again under its client id."""


RULED_OUT = "ruled-out"
"""Code of an order that never left, and whose client id nothing can leave under any more."""


@dataclass(frozen=True, slots=True)
class StopPrices:
    """Trigger prices that protect a position; None where there is none."""

    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None

    @property
    def empty(self) -> bool:
        """Nothing is protected."""
        return self.stop_loss is None and self.take_profit is None


NO_STOPS = StopPrices()


PRICE_OFF_MAX = Decimal("0.1")
"""An order opens only where prices are at most this share off the one it was planned at. (A last
price may be 5 % off the book for minutes, where little is traded: B14.)"""
PRICE_MOVED = "price-moved"
"""Code of an order that was not sent, because the price is not the one it was planned at."""


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """One order as it leaves a session. `size` in base asset, > 0, already on the lot.

    `reference_price`: what it was planned at, in quote asset; None where nobody planned it. It is
    not sent: see `off_plan`.
    """

    client_id: str
    symbol: str
    side: Side
    size: Decimal
    reduce_only: bool
    order_type: OrderType = OrderType.MARKET
    price: Decimal | None = None
    stops: StopPrices = NO_STOPS
    reference_price: Decimal | None = None

    def off_plan(self, price: Decimal) -> str:
        """Why this order must not open at `price`: it is too far off the one it was planned at
        (C3: a tenfold tick would spend ten times the money). Empty: it may."""
        planned = self.reference_price
        if planned is None or self.reduce_only or abs(price - planned) <= planned * PRICE_OFF_MAX:
            return ""
        return (
            f"{self.symbol} was planned at {plain(planned)} and is at {plain(price)} now, more "
            f"than {PRICE_OFF_MAX:%} off; nothing was sent, the next cycle plans anew"
        )


@dataclass(frozen=True, slots=True)
class WriteStamp:
    """Who writes: checked at the last gate before anything is sent."""

    session_id: str
    epoch: int
    not_after: datetime
    cycle: datetime | None = None


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """What became of one order of a batch. `code` is the venue's own where it refused.

    `rules_changed`: it was refused for its size or price although it kept the rules we had; they
    are read anew, and the same intent may be rounded again for one further slice.
    """

    client_id: str
    outcome: Outcome
    order_id: str | None = None
    code: str | None = None
    message: str | None = None
    rules_changed: bool = False


class Passage(StrEnum):
    """How far an order came, by the record that is made before anything leaves.

    never: it is not at the exchange and never will be. left: it was handed over, or nobody can know
    that it was not. taken: the exchange has answered that it has it.
    """

    NEVER = "never"
    LEFT = "left"
    TAKEN = "taken"


@dataclass(frozen=True, slots=True)
class MissingOrder:
    """An order that was to leave by `not_after`, of whose sending nobody heard, and that the
    exchange does not know."""

    client_id: str
    symbol: str
    reduce_only: bool
    not_after: datetime


@dataclass(frozen=True, slots=True)
class OrderTrace:
    """What the record says of one client id.

    `arrives_by` (of *left*): the exchange takes nothing of it after this world time. `code`, with
    `detail` in words, says of *never* why: RULED_OUT, or what refused it. `order_id` (of *taken*):
    the number that the exchange gave it.
    """

    client_id: str
    passage: Passage
    arrives_by: datetime | None = None
    code: str | None = None
    detail: str = ""
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class OrderReport:
    """One order as the exchange knows it. Sizes in base asset, fee negative when paid."""

    order_id: str
    client_id: str
    symbol: str
    side: Side
    status: OrderStatus
    size: Decimal
    filled_size: Decimal
    average_price: Decimal | None
    fee: Decimal
    realized_pnl: Decimal
    reduce_only: bool
    source: str
    created_at: datetime
    updated_at: datetime


class FillCause(StrEnum):
    """Why the exchange executed it: an order (anybody's), or by force."""

    ORDER = "order"
    LIQUIDATION = "liquidation"
    ADL = "adl"


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution, keyed by the exchange's trade id. Fee negative when paid."""

    trade_id: str
    order_id: str
    symbol: str
    side: Side
    price: Decimal
    size: Decimal
    quote_size: Decimal
    fee: Decimal
    fee_asset: str
    realized_pnl: Decimal
    is_taker: bool
    at: datetime
    cause: FillCause = FillCause.ORDER
