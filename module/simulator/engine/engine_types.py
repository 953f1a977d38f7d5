"""Words of the paper exchange: enums, refusals, settings and commands.

Everything that enters the engine is one of the frozen commands below; everything that it keeps and
hands out is in `engine_records`. Times are world milliseconds (`*_ms`), money is Decimal.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from module.model.accounts import MarginMode, PositionMode
from module.model.market import MarketType
from module.model.orders import OrderStatus, OrderType, Side

__all__ = [
    "NEVER_MS",
    "CancelReason",
    "EngineRejected",
    "EngineSettings",
    "Force",
    "ForcedClose",
    "FuturesOrderCommand",
    "HoldSide",
    "MarginMode",
    "MarketType",
    "ModifyOrderCommand",
    "ModifyPlanCommand",
    "OrderSource",
    "OrderStatus",
    "OrderType",
    "PlanOrderCommand",
    "PlanStatus",
    "PlanType",
    "PositionMode",
    "PositionSide",
    "PositionStopCommand",
    "PresetStop",
    "RejectReason",
    "Side",
    "SpotOrderCommand",
    "SpotPlanCommand",
    "StpMode",
    "TradeScope",
    "TradeSide",
    "TriggerType",
]

NEVER_MS = 2**62
"""`Engine.next_event_ms()` when nothing will happen by itself."""


class Force(StrEnum):
    """How long a limit order lives."""

    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"
    POST_ONLY = "post_only"


class StpMode(StrEnum):
    """What happens when an order would trade against the account's own resting order."""

    NONE = "none"
    CANCEL_TAKER = "cancel_taker"
    CANCEL_MAKER = "cancel_maker"
    CANCEL_BOTH = "cancel_both"


class TradeSide(StrEnum):
    """Hedge mode only: does the order build a position or take it down."""

    OPEN = "open"
    CLOSE = "close"


class PositionSide(StrEnum):
    """Which position an order belongs to; NET is one-way mode."""

    LONG = "long"
    SHORT = "short"
    NET = "net"

    @property
    def sign(self) -> int:
        """+1 long, -1 short, 0 net."""
        return _SIGNS[self]


_SIGNS = {PositionSide.LONG: 1, PositionSide.SHORT: -1, PositionSide.NET: 0}


class HoldSide(StrEnum):
    """Vocabulary of stop orders: long/short in hedge mode, buy (a long)/sell (a short) one-way."""

    LONG = "long"
    SHORT = "short"
    BUY = "buy"
    SELL = "sell"


class OrderSource(StrEnum):
    """Who made the order."""

    NORMAL = "normal"
    MARKET = "market"
    PROFIT_MARKET = "profit_market"
    LOSS_MARKET = "loss_market"
    PROFIT_LIMIT = "profit_limit"
    LOSS_LIMIT = "loss_limit"
    POS_PROFIT_MARKET = "pos_profit_market"
    POS_LOSS_MARKET = "pos_loss_market"
    POS_PROFIT_LIMIT = "pos_profit_limit"
    POS_LOSS_LIMIT = "pos_loss_limit"
    PLAN_MARKET = "plan_market"
    PLAN_LIMIT = "plan_limit"
    TRACK_MARKET = "move_market"
    REVERSE = "reverse"
    LIQUIDATION = "liquidation"
    DELIVERY_CLOSE_LONG = "delivery_close_long"
    DELIVERY_CLOSE_SHORT = "delivery_close_short"


class ForcedClose(StrEnum):
    """Why the exchange itself closed (a part of) a position; the words of its tradeSide."""

    BURST = "burst"
    """Liquidated whole."""
    REDUCE = "reduce"
    """Liquidated in part: down to a lower tier."""
    OFFSET = "offset"
    """Liquidation netted it against the other leg of a hedged pair: no trade, no fee."""
    DELIVERY = "delivery"
    """The contract ended: settled at its last price, no fee."""
    ADL = "dte_sys_adl"
    """Deleveraged against somebody else's liquidation, at the mark, no fee."""

    @property
    def trades(self) -> bool:
        """It goes through the book and pays the taker fee."""
        return self in (ForcedClose.BURST, ForcedClose.REDUCE)


class CancelReason(StrEnum):
    """Why an order ended before it was filled; the wire shows those that Bitget knows."""

    NONE = ""
    NORMAL_CANCEL = "normal_cancel"
    UNFILLED_IOC = "ioc_unfilled"
    UNFILLED_FOK = "fok_unfilled"
    WOULD_TAKE = "post_only_cross"
    NO_LIQUIDITY = "no_liquidity"
    NOTHING_TO_REDUCE = "reduce_only_no_position"
    REPLACED_REDUCE_ONLY = "reduce_only_replaced"
    POSITION_CLOSED = "position_closed"
    LIQUIDATION = "liquidation_cancel"
    MODIFIED = "modify_cancel"
    SUSPENDED = "symbol_suspended"
    SELF_TRADE = "stp_cancel"


class TradeScope(StrEnum):
    TAKER = "taker"
    MAKER = "maker"


class TriggerType(StrEnum):
    """Which price fires a trigger. Last and mark are one price in this exchange."""

    FILL_PRICE = "fill_price"
    MARK_PRICE = "mark_price"


class PlanType(StrEnum):
    """Kinds of trigger orders. pos_*: the whole position; *_plan: a part of it, or an order."""

    NORMAL_PLAN = "normal_plan"
    TRACK_PLAN = "track_plan"
    POS_PROFIT = "pos_profit"
    POS_LOSS = "pos_loss"
    PROFIT_PLAN = "profit_plan"
    LOSS_PLAN = "loss_plan"
    MOVING_PLAN = "moving_plan"
    SPOT_PLAN = "spot_plan"
    SPOT_TPSL = "spot_tpsl"

    @property
    def protects_position(self) -> bool:
        """A take profit or stop loss of a position (whole or part)."""
        return self.whole_position or self in (
            PlanType.PROFIT_PLAN,
            PlanType.LOSS_PLAN,
            PlanType.MOVING_PLAN,
        )

    @property
    def trails(self) -> bool:
        """It follows the price after its activation and fires on the way back."""
        return self in (PlanType.TRACK_PLAN, PlanType.MOVING_PLAN)

    @property
    def whole_position(self) -> bool:
        """pos_profit or pos_loss: one per position side and kind, placing again moves it."""
        return self in (PlanType.POS_PROFIT, PlanType.POS_LOSS)

    @property
    def takes_profit(self) -> bool:
        """Fires (or begins to trail) on the winning side of the price."""
        return self in (PlanType.POS_PROFIT, PlanType.PROFIT_PLAN, PlanType.MOVING_PLAN)


class PlanStatus(StrEnum):
    LIVE = "live"
    EXECUTED = "executed"
    FAIL_EXECUTE = "fail_execute"
    CANCELLED = "cancelled"


class RejectReason(StrEnum):
    """Why the exchange refuses; the wire layer maps each to a Bitget code. Comment: likely code."""

    ACCOUNT_UNKNOWN = "account_unknown"  # 40037
    SYMBOL_UNKNOWN = "symbol_unknown"  # 40034
    SYMBOL_NOT_LISTED = "symbol_not_listed"  # 40309: before its first or after its last bar
    SYMBOL_SUSPENDED = "symbol_suspended"  # 40844: a gap in the data, maintenance
    VALUE_INVALID = "value_invalid"  # 400172
    PARAMETER_MISSING = "parameter_missing"  # 40019
    MODE_MISMATCH = "mode_mismatch"  # 40774: tradeSide present/absent against the position mode
    MARGIN_MODE_MISMATCH = "margin_mode_mismatch"  # 45117
    CLIENT_ID_DUPLICATE = "client_id_duplicate"  # 40786, spot 43118
    CLIENT_ID_TOO_LONG = "client_id_too_long"  # 40304
    CLIENT_ID_CHARSET = "client_id_charset"  # 40305
    SIZE_BELOW_MIN = "size_below_min"  # 45111
    SIZE_ABOVE_MAX = "size_above_max"  # 45112
    SIZE_STEP = "size_step"  # 22038 / spot 40808
    NOTIONAL_BELOW_MIN = "notional_below_min"  # 45110
    PRICE_STEP = "price_step"  # 45115
    PRICE_ABOVE_BAND = "price_above_band"  # 22006
    PRICE_BELOW_BAND = "price_below_band"  # 22008
    INSUFFICIENT_MARGIN = "insufficient_margin"  # 40762
    INSUFFICIENT_BALANCE = "insufficient_balance"  # spot 43012
    POSITION_TIER_LIMIT = "position_tier_limit"  # 40921
    TOO_MANY_ORDERS = "too_many_orders"  # 45118
    TOO_MANY_POSITIONS = "too_many_positions"  # 40761
    NO_POSITION = "no_position"  # 22002 (reduce only, close), 43023 for stops
    CLOSE_TOO_LARGE = "close_too_large"  # 40757
    PRESET_TAKE_PROFIT_LONG = "preset_take_profit_long"  # 40830
    PRESET_TAKE_PROFIT_SHORT = "preset_take_profit_short"  # 40832
    PRESET_STOP_LOSS_LONG = "preset_stop_loss_long"  # 40834
    PRESET_STOP_LOSS_SHORT = "preset_stop_loss_short"  # 40836
    STOP_TAKE_PROFIT_LONG = "stop_take_profit_long"  # 40915
    STOP_TAKE_PROFIT_SHORT = "stop_take_profit_short"  # 40832
    STOP_LOSS_LONG = "stop_loss_long"  # 40917
    STOP_LOSS_SHORT = "stop_loss_short"  # 45122
    STOP_SIZE_TOO_LARGE = "stop_size_too_large"  # 43029
    HOLD_SIDE_INVALID = "hold_side_invalid"  # 43011: long/short in one-way mode
    HOLD_SIDE_INVALID_HEDGE = "hold_side_invalid_hedge"  # 43011: buy/sell in hedge mode
    PLAN_UNKNOWN = "plan_unknown"  # 43020
    PLAN_TYPE_UNSUPPORTED = "plan_type_unsupported"  # 40812
    ORDER_UNKNOWN = "order_unknown"  # 40109 (detail), 43001/40768 (cancel)
    ORDER_DONE = "order_done"  # 22001: already filled or cancelled
    CANCEL_REPEATED = "cancel_repeated"  # 45129: the same id twice within a second
    NOTHING_TO_REVERSE = "nothing_to_reverse"  # 40757
    MODIFY_NEEDS_CLIENT_ID = "modify_needs_client_id"  # 22003
    MODIFY_NEEDS_SIZE_AND_PRICE = "modify_needs_size_and_price"  # 40925
    MODIFY_UNCHANGED = "modify_unchanged"  # 40923
    LEVERAGE_TOO_HIGH = "leverage_too_high"  # 45045
    LEVERAGE_OUT_OF_RANGE = "leverage_out_of_range"  # 45044
    LEVERAGE_OPEN_ORDERS = "leverage_open_orders"  # 40730
    MARGIN_MODE_BUSY = "margin_mode_busy"  # 45117
    POSITION_MODE_BUSY = "position_mode_busy"  # 40920
    MARGIN_NOT_ISOLATED = "margin_not_isolated"  # 40803
    MARGIN_REDUCE_TOO_LARGE = "margin_reduce_too_large"  # 40804
    ASSET_MODE_UNSUPPORTED = "asset_mode_unsupported"  # 40812
    TRANSFER_TYPE_UNSUPPORTED = "transfer_type_unsupported"  # 400172


class EngineRejected(Exception):
    """The exchange refuses a command; nothing has changed. `detail` is for people."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How this exchange behaves. The same settings, market and commands give the same ledger."""

    latency_ms: int = 50
    """From acceptance of an order to its arrival in the book."""
    default_leverage: Decimal = Decimal(20)
    default_margin_mode: MarginMode = MarginMode.CROSSED
    settle_coin: str = "USDT"
    open_orders_max: int = 200
    """Live orders per account and symbol."""
    product_orders_max: int = 1000
    """Live futures orders per account."""
    positions_max: int = 150
    """Open positions per account."""
    retention_days: int = 90
    """Finished orders, fills, bills and ledger entries older than this are forgotten at the
    beginning of each UTC day of world time."""


@dataclass(frozen=True, slots=True)
class PresetStop:
    """A take profit or stop loss that waits inside an order; execute_price None = market."""

    trigger_price: Decimal
    execute_price: Decimal | None = None
    trigger_type: TriggerType = TriggerType.FILL_PRICE


@dataclass(frozen=True, slots=True)
class FuturesOrderCommand:
    """`side` and `trade_side` as sent on the wire: in hedge mode side is the position's direction.

    `size` in base coin. `margin_mode` None means the symbol's own; another one than the symbol's
    switches the symbol while it is idle and is refused while it is not.
    """

    symbol: str
    side: Side
    order_type: OrderType
    size: Decimal
    price: Decimal | None = None
    force: Force = Force.GTC
    trade_side: TradeSide | None = None
    reduce_only: bool = False
    margin_mode: MarginMode | None = None
    client_id: str | None = None
    take_profit: PresetStop | None = None
    stop_loss: PresetStop | None = None
    stp_mode: StpMode = StpMode.NONE


@dataclass(frozen=True, slots=True)
class SpotOrderCommand:
    """`size` in base coin, except a market buy: quote coin.

    `take_profit` and `stop_loss` of a limit buy become waiting sales of what it has bought.
    """

    symbol: str
    side: Side
    order_type: OrderType
    size: Decimal
    price: Decimal | None = None
    force: Force = Force.GTC
    client_id: str | None = None
    take_profit: PresetStop | None = None
    stop_loss: PresetStop | None = None
    stp_mode: StpMode = StpMode.NONE


@dataclass(frozen=True, slots=True)
class SpotPlanCommand:
    """A spot order that waits for a price.

    `locks` True is a TP/SL order: it reserves its coins while it waits and keeps its id when it
    fires. False is a trigger order: it reserves nothing, and the order that it makes is a new one.
    `in_quote`: the size counts quote coin (buys only).
    """

    order: SpotOrderCommand
    trigger_price: Decimal
    trigger_type: TriggerType = TriggerType.FILL_PRICE
    locks: bool = False
    in_quote: bool = False


@dataclass(frozen=True, slots=True)
class ModifyOrderCommand:
    """New size and price go together and make a NEW order; stops alone change it in place."""

    new_client_id: str | None = None
    new_size: Decimal | None = None
    new_price: Decimal | None = None
    new_take_profit: PresetStop | None = None
    new_stop_loss: PresetStop | None = None


@dataclass(frozen=True, slots=True)
class PositionStopCommand:
    """A stop of an open position; pos_* covers all of it (`size` is ignored), *_plan a part."""

    symbol: str
    plan_type: PlanType
    hold_side: HoldSide
    trigger_price: Decimal
    trigger_type: TriggerType = TriggerType.FILL_PRICE
    execute_price: Decimal | None = None
    size: Decimal | None = None
    client_id: str | None = None
    callback_ratio: Decimal | None = None
    """moving_plan: how far the price must come back, as a fraction."""
    stp_mode: StpMode = StpMode.NONE


@dataclass(frozen=True, slots=True)
class PlanOrderCommand:
    """An order that is placed when the price reaches `trigger_price` (track_plan: then retraces).

    `callback_ratio` is a fraction (0.01 = 1 %), needed by track_plan only. `order.price` is the
    limit price, None with a market order. `order.client_id` is the plan's own client id.
    """

    order: FuturesOrderCommand
    trigger_price: Decimal
    plan_type: PlanType = PlanType.NORMAL_PLAN
    trigger_type: TriggerType = TriggerType.FILL_PRICE
    callback_ratio: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ModifyPlanCommand:
    """What changes in a live plan; None leaves it."""

    new_trigger_price: Decimal | None = None
    new_trigger_type: TriggerType | None = None
    new_size: Decimal | None = None
    new_price: Decimal | None = None
    new_execute_price: Decimal | None = None
    new_callback_ratio: Decimal | None = None
    new_take_profit: PresetStop | None = None
    new_stop_loss: PresetStop | None = None
    new_order_type: OrderType | None = None
