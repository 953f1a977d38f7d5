"""What the paper exchange keeps and hands out: orders, fills, positions, plans, bills, views.

Orders, plans and positions are live objects of the engine: readers read, only the engine writes.
Fills, bills, closed positions and views are frozen facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from module.simulator.engine.engine_types import (
    CancelReason,
    Force,
    ForcedClose,
    MarginMode,
    MarketType,
    OrderSource,
    OrderStatus,
    OrderType,
    PlanStatus,
    PlanType,
    PositionMode,
    PositionSide,
    PresetStop,
    Side,
    StpMode,
    TradeScope,
    TradeSide,
    TriggerType,
)

ZERO = Decimal(0)


@dataclass(slots=True, kw_only=True)
class OrderRecord:
    """One order of a futures or spot account.

    `side` is as sent (hedge close of a long: buy); `direction` is what is really bought (+1) or
    sold (-1). `size` is in base coin, except spot market buys, where it is the quote amount.
    `fee` is negative when paid and sums the fills, in `fee_coin`. `quote_volume` sums the
    truncated quote volumes of the fills; `average_price` is None while nothing is filled.
    """

    order_id: str
    client_id: str
    account_id: str
    market: MarketType
    symbol: str
    side: Side
    direction: int
    order_type: OrderType
    force: Force
    size: Decimal
    price: Decimal | None
    position_side: PositionSide
    trade_side: TradeSide | None
    reduce_only: bool
    margin_mode: MarginMode
    position_mode: PositionMode
    leverage: Decimal
    source: OrderSource
    take_profit: PresetStop | None
    stop_loss: PresetStop | None
    created_ms: int
    updated_ms: int
    arrives_ms: int
    fee_coin: str
    status: OrderStatus = OrderStatus.LIVE
    arrived: bool = False
    filled_size: Decimal = ZERO
    filled_cost: Decimal = ZERO
    quote_volume: Decimal = ZERO
    fee: Decimal = ZERO
    realized_pnl: Decimal = ZERO
    cancel_reason: CancelReason = CancelReason.NONE
    locked: Decimal = ZERO
    """What it still reserves: margin (futures), quote coin (spot buy) or base coin (spot sell)."""
    opening_size: Decimal = ZERO
    """Futures: the part of `size` for which margin was reserved at acceptance."""
    stp_mode: StpMode = StpMode.NONE
    plan_id: str = ""
    """The plan that made it."""
    trigger_price: Decimal | None = None
    """Spot TP/SL orders: the price that they have waited for."""
    forced: ForcedClose | None = None
    """The exchange made it to close a position by force."""

    @property
    def average_price(self) -> Decimal | None:
        """Volume-weighted fill price."""
        return self.filled_cost / self.filled_size if self.filled_size else None

    @property
    def quote_sized(self) -> bool:
        """A spot market buy: `size` counts quote coin."""
        return (
            self.market is MarketType.SPOT
            and self.order_type is OrderType.MARKET
            and self.side is Side.BUY
        )

    @property
    def remaining(self) -> Decimal:
        """What is not filled yet, in the unit of `size`."""
        return self.size - (self.filled_cost if self.quote_sized else self.filled_size)

    @property
    def closes(self) -> bool:
        """It can only take a position down: reduce only, or a hedge close."""
        return self.reduce_only or self.trade_side is TradeSide.CLOSE


@dataclass(frozen=True, slots=True, kw_only=True)
class FillRecord:
    """One execution. `fee` negative when paid, truncated to 8 decimals; `quote_volume` to 4."""

    trade_id: str
    order_id: str
    client_id: str
    account_id: str
    market: MarketType
    symbol: str
    side: Side
    direction: int
    price: Decimal
    size: Decimal
    quote_volume: Decimal
    fee: Decimal
    fee_coin: str
    profit: Decimal
    trade_side: TradeSide | None
    position_mode: PositionMode
    order_type: OrderType
    scope: TradeScope
    source: OrderSource
    at_ms: int
    forced: ForcedClose | None = None


@dataclass(slots=True, kw_only=True)
class PositionRecord:
    """One open position. `side` is LONG or SHORT in both modes; `size` > 0 in base coin."""

    position_id: str
    account_id: str
    symbol: str
    side: PositionSide
    margin_mode: MarginMode
    leverage: Decimal
    size: Decimal
    entry_price: Decimal
    created_ms: int
    updated_ms: int
    isolated_margin: Decimal = ZERO
    achieved_profits: Decimal = ZERO
    funding: Decimal = ZERO
    open_fee: Decimal = ZERO
    close_fee: Decimal = ZERO
    opened_size: Decimal = ZERO
    opened_cost: Decimal = ZERO
    closed_size: Decimal = ZERO
    closed_cost: Decimal = ZERO

    @property
    def signed_size(self) -> Decimal:
        """Positive long, negative short."""
        return -self.size if self.side is PositionSide.SHORT else self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedPositionRecord:
    """A finished position. net_profit = pnl + funding + open_fee + close_fee, truncated to 8."""

    position_id: str
    account_id: str
    symbol: str
    side: PositionSide
    margin_mode: MarginMode
    position_mode: PositionMode
    open_average: Decimal
    close_average: Decimal
    open_total: Decimal
    close_total: Decimal
    pnl: Decimal
    net_profit: Decimal
    funding: Decimal
    open_fee: Decimal
    close_fee: Decimal
    created_ms: int
    closed_ms: int
    liquidated: bool


@dataclass(slots=True, kw_only=True)
class PlanRecord:
    """A trigger order. `side`, `position_side`, `trade_side` are what the wire shows.

    Stops: one-way shows NET and the closing side, hedge shows the position's side and CLOSE;
    `protects` is the position side it belongs to (None for normal_plan and track_plan). `size` is
    None for pos_* (the whole position). `fires_above`: it fires when price >= trigger, else <=.
    """

    plan_id: str
    client_id: str
    account_id: str
    symbol: str
    plan_type: PlanType
    trigger_price: Decimal
    trigger_type: TriggerType
    fires_above: bool
    side: Side
    position_side: PositionSide
    trade_side: TradeSide | None
    protects: PositionSide | None
    position_mode: PositionMode
    margin_mode: MarginMode
    order_type: OrderType
    size: Decimal | None
    price: Decimal | None
    execute_price: Decimal | None
    reduce_only: bool
    callback_ratio: Decimal | None
    take_profit: PresetStop | None
    stop_loss: PresetStop | None
    force: Force
    created_ms: int
    updated_ms: int
    status: PlanStatus = PlanStatus.LIVE
    execute_order_id: str = ""
    fail_reason: str = ""
    best_price: Decimal | None = None
    """Trailing plans after their activation: the best price seen since."""
    stp_mode: StpMode = StpMode.NONE
    market: MarketType = MarketType.FUTURES
    locked: Decimal = ZERO
    """Spot TP/SL orders: the coins that they reserve."""
    in_quote: bool = False
    """Spot: the size counts quote coin."""
    sibling_id: str = ""
    """Spot TP/SL of one purchase: the other one; when either fires, the other ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BillRecord:
    """One change of a wallet: balance_after = balance_before + amount + fee, exactly.

    `business_type` is Bitget's word (buy, sell, open_long, close_long, contract_settle_fee,
    trans_from_exchange, burst_buy, ...). Spot bills carry the coin that moved.
    """

    bill_id: str
    account_id: str
    market: MarketType
    symbol: str
    coin: str
    business_type: str
    amount: Decimal
    fee: Decimal
    balance: Decimal
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRecord:
    """Money that went from one of the account's wallets to another."""

    transfer_id: str
    client_id: str
    coin: str
    source: MarketType
    target: MarketType
    amount: Decimal
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeverageView:
    """Leverage and margin mode of one symbol on one account."""

    symbol: str
    margin_mode: MarginMode
    crossed: Decimal
    isolated_long: Decimal
    isolated_short: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class FuturesBalance:
    """A futures wallet at one moment, in USDT at mark prices.

    equity = wallet + unrealized. available = wallet - margins - order locks - crossed loss, never
    below 0; max_available adds the crossed profit.
    """

    wallet: Decimal
    equity: Decimal
    unrealized: Decimal
    crossed_unrealized: Decimal
    isolated_unrealized: Decimal
    crossed_margin: Decimal
    isolated_margin: Decimal
    locked: Decimal
    available: Decimal
    max_available: Decimal
    crossed_equity: Decimal
    maintenance: Decimal
    margin_ratio: Decimal
    """Crossed: maintenance incl. closing fee over crossed equity; 1 means liquidation, 0 idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionView:
    """One open position valued at the mark of the moment; stops are the live pos_* plans."""

    position: PositionRecord
    mark_price: Decimal
    unrealized: Decimal
    margin_size: Decimal
    liquidation_price: Decimal
    """<= 0 or absurdly far away means none, as on the real exchange."""
    maintenance_rate: Decimal
    margin_ratio: Decimal
    break_even_price: Decimal
    deducted_fee: Decimal
    available: Decimal
    locked: Decimal
    open_order_size: Decimal
    take_profit: PlanRecord | None
    stop_loss: PlanRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotBalanceView:
    """One coin of a spot wallet. total = available + frozen."""

    coin: str
    available: Decimal
    frozen: Decimal
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TickerView:
    """Prices of one symbol at `at_ms`; the 24 h and UTC-day figures come from minute bars."""

    symbol: str
    market: MarketType
    last: Decimal
    mark: Decimal
    index: Decimal
    bid: Decimal
    ask: Decimal
    bid_size: Decimal
    ask_size: Decimal
    open_24h: Decimal
    high_24h: Decimal
    low_24h: Decimal
    open_utc: Decimal
    base_volume: Decimal
    quote_volume: Decimal
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthView:
    """The book: (price, size) best first."""

    symbol: str
    asks: tuple[tuple[Decimal, Decimal], ...]
    bids: tuple[tuple[Decimal, Decimal], ...]
    at_ms: int
