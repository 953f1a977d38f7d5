"""Bitget's rows: the engine's records as the exchange spells them.

Keys stand in the recorded order. Numbers are strings without trailing zeros, times strings of
milliseconds, a missing value is `""` unless the real exchange says null.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from module.model.money import plain
from module.simulator.engine.engine_records import (
    BillRecord,
    ClosedPositionRecord,
    FillRecord,
    FuturesBalance,
    LeverageView,
    OrderRecord,
    PlanRecord,
    PositionView,
)
from module.simulator.engine.engine_types import (
    CancelReason,
    ForcedClose,
    MarginMode,
    PositionMode,
    PositionSide,
    PresetStop,
    Side,
    TradeSide,
)

Row = dict[str, object]
MARGIN_COIN = "USDT"
_PLACES_MAX = 16
_FINEST = Decimal(1).scaleb(-_PLACES_MAX)
POSITION_MODES = {PositionMode.ONE_WAY: "one_way_mode", PositionMode.HEDGE: "hedge_mode"}


def number(value: Decimal | None) -> str:
    """A number as Bitget writes it; `""` for None. At most 16 decimals, none of them a last 0."""
    if value is None:
        return ""
    text = plain(value)
    if len(text) <= _PLACES_MAX + 1:
        return text
    point = text.find(".")
    if 0 <= point < len(text) - 1 - _PLACES_MAX:
        text = plain(value.quantize(_FINEST, rounding=ROUND_HALF_EVEN))
    return text


def single_trade_side(forced: ForcedClose | None, side: Side) -> str:
    """One-way tradeSide: buy_single; a liquidation is burst_buy_single or reduce_buy_single."""
    if forced is ForcedClose.ADL:
        word = "in" if side is Side.BUY else "out"
        return f"{forced.value}_{side.value}_{word}_single_side_mode"
    return f"{forced.value}_{side.value}_single" if forced is not None else f"{side.value}_single"


def shown_trade_side(
    mode: PositionMode,
    trade_side: TradeSide | None,
    side: Side,
    position_side: PositionSide,
    forced: ForcedClose | None = None,
) -> str:
    """tradeSide of an order, fill or plan in either position mode."""
    if mode is PositionMode.ONE_WAY:
        return single_trade_side(forced, side)
    if forced is not None:
        return f"{forced.value}_close_{position_side.value}"
    return (trade_side or TradeSide.OPEN).value


# -- orders -----------------------------------------------------------------------------------


def order_detail_row(order: OrderRecord) -> Row:
    """`GET …/order/detail`; the two attached stops stand in the recorded, uneven order."""
    presets = _presets(order.take_profit, order.stop_loss, "Type")
    hedge = order.position_mode is PositionMode.HEDGE
    return {
        **_order_head(order, "state"),
        "posSide": order.position_side.value,
        "marginCoin": MARGIN_COIN,
        "presetStopSurplusPrice": presets["presetStopSurplusPrice"],
        "presetStopSurplusType": presets["presetStopSurplusType"],
        "presetStopSurplusExecutePrice": presets["presetStopSurplusExecutePrice"],
        "presetStopLossPrice": presets["presetStopLossPrice"],
        "presetStopLossExecutePrice": presets["presetStopLossExecutePrice"],
        "presetStopLossType": presets["presetStopLossType"],
        **_order_middle(order),
        "reduceOnly": "YES" if order.closes else "NO",
        "enterPointSource": "API",
        "tradeSide": _order_trade_side(order),
        "posMode": POSITION_MODES[order.position_mode],
        "orderSource": order.source.value,
        "newTradeSide": (order.trade_side or TradeSide.OPEN).value if hedge else None,
        "cancelReason": shown_cancel_reason(order),
        **shown_times(order.created_ms, order.updated_ms),
    }


def order_list_row(order: OrderRecord) -> Row:
    """A row of `GET …/order/orders-pending`."""
    return {
        **_order_head(order, "status"),
        "posSide": order.position_side.value,
        "marginCoin": MARGIN_COIN,
        **_presets(order.take_profit, order.stop_loss, "TriggerType"),
        **_order_middle(order),
        "reduceOnly": "YES" if order.closes else "NO",
        "enterPointSource": "api",
        "tradeSide": _order_trade_side(order),
        "posMode": POSITION_MODES[order.position_mode],
        "orderSource": order.source.value,
        **shown_times(order.created_ms, order.updated_ms),
    }


def order_history_row(order: OrderRecord) -> Row:
    """A row of `GET …/order/orders-history`."""
    row = order_list_row(order)
    return {**row, "posAvg": "", "liqPrice": "", "cancelReason": shown_cancel_reason(order)}


def shown_cancel_reason(order: OrderRecord) -> str:
    """The reasons that Bitget has; others stay empty."""
    if order.cancel_reason in (CancelReason.NORMAL_CANCEL, CancelReason.MODIFIED):
        return CancelReason.NORMAL_CANCEL.value
    is_own = order.cancel_reason is CancelReason.SELF_TRADE
    return order.cancel_reason.value if is_own else ""


def _order_head(order: OrderRecord, status_key: str) -> Row:
    return {
        "symbol": order.symbol,
        "size": number(order.size),
        "orderId": order.order_id,
        "clientOid": order.client_id,
        "baseVolume": number(order.filled_size),
        "fee": number(order.fee),
        "price": number(order.price),
        "priceAvg": number(order.average_price),
        status_key: order.status.value,
        "side": order.side.value,
        "force": order.force.value,
        "totalProfits": number(order.realized_pnl),
    }


def _order_middle(order: OrderRecord) -> Row:
    return {
        "quoteVolume": number(order.quote_volume),
        "orderType": order.order_type.value,
        "leverage": number(order.leverage),
        "marginMode": order.margin_mode.value,
    }


def _order_trade_side(order: OrderRecord) -> str:
    return shown_trade_side(
        order.position_mode, order.trade_side, order.side, order.position_side, order.forced
    )


def _presets(take_profit: PresetStop | None, stop_loss: PresetStop | None, suffix: str) -> Row:
    def fields(name: str, preset: PresetStop | None) -> Row:
        return {
            f"preset{name}Price": number(preset.trigger_price) if preset else "",
            f"preset{name}ExecutePrice": number(preset.execute_price) if preset else "",
            f"preset{name}{suffix}": preset.trigger_type.value if preset else "",
        }

    return {**fields("StopSurplus", take_profit), **fields("StopLoss", stop_loss)}


def shown_times(created_ms: int, updated_ms: int) -> Row:
    """cTime and uTime."""
    return {"cTime": str(created_ms), "uTime": str(updated_ms)}


def fill_row(fill: FillRecord) -> Row:
    """A row of `GET …/order/fills`."""
    position_side = PositionSide.LONG if fill.direction < 0 else PositionSide.SHORT
    return {
        "tradeId": fill.trade_id,
        "symbol": fill.symbol,
        "orderId": fill.order_id,
        "price": number(fill.price),
        "baseVolume": number(fill.size),
        "feeDetail": [
            {
                "deduction": "no",
                "feeCoin": fill.fee_coin,
                "totalDeductionFee": None,
                "totalFee": number(fill.fee),
            }
        ],
        "side": fill.side.value,
        "quoteVolume": number(fill.quote_volume),
        "profit": number(fill.profit),
        "enterPointSource": "api",
        "tradeSide": shown_trade_side(
            fill.position_mode, fill.trade_side, fill.side, position_side, fill.forced
        ),
        "posMode": POSITION_MODES[fill.position_mode],
        "tradeScope": fill.scope.value,
        "cTime": str(fill.at_ms),
        "marginCoin": MARGIN_COIN,
    }


# -- positions --------------------------------------------------------------------------------


def position_row(view: PositionView, mode: PositionMode) -> Row:
    """A row of `GET …/position/all-position`."""
    position = view.position
    return {
        "marginCoin": MARGIN_COIN,
        "symbol": position.symbol,
        "holdSide": position.side.value,
        "openDelegateSize": number(view.open_order_size),
        "marginSize": number(view.margin_size),
        "available": number(view.available),
        "locked": number(view.locked),
        "total": number(position.size),
        "leverage": number(position.leverage),
        "achievedProfits": number(position.achieved_profits),
        "openPriceAvg": number(position.entry_price),
        "marginMode": position.margin_mode.value,
        "posMode": POSITION_MODES[mode],
        "unrealizedPL": number(view.unrealized),
        "liquidationPrice": number(view.liquidation_price),
        "keepMarginRate": number(view.maintenance_rate),
        "markPrice": number(view.mark_price),
        "marginRatio": number(view.margin_ratio),
        "breakEvenPrice": number(view.break_even_price),
        "totalFee": number(position.funding) if position.funding else "",
        "deductedFee": number(view.deducted_fee),
        "grant": "",
        "assetMode": "single",
        "autoMargin": "off",
        "takeProfit": number(view.take_profit.trigger_price) if view.take_profit else "",
        "stopLoss": number(view.stop_loss.trigger_price) if view.stop_loss else "",
        "takeProfitId": view.take_profit.plan_id if view.take_profit else "",
        "stopLossId": view.stop_loss.plan_id if view.stop_loss else "",
        "cashDividend": "",
        **shown_times(position.created_ms, position.updated_ms),
    }


def closed_position_row(closed: ClosedPositionRecord) -> Row:
    """A row of `GET …/position/history-position`; utime and ctime are lower case there."""
    return {
        "positionId": closed.position_id,
        "symbol": closed.symbol,
        "marginCoin": MARGIN_COIN,
        "holdSide": closed.side.value,
        "openAvgPrice": number(closed.open_average),
        "closeAvgPrice": number(closed.close_average),
        "marginMode": closed.margin_mode.value,
        "openTotalPos": number(closed.open_total),
        "closeTotalPos": number(closed.close_total),
        "pnl": number(closed.pnl),
        "netProfit": number(closed.net_profit),
        "totalFunding": number(closed.funding),
        "openFee": number(closed.open_fee),
        "closeFee": number(closed.close_fee),
        "posMode": POSITION_MODES[closed.position_mode],
        "cashDividend": "0.00000000",
        "utime": str(closed.closed_ms),
        "ctime": str(closed.created_ms),
    }


# -- stops and plans --------------------------------------------------------------------------


def plan_row(plan: PlanRecord) -> Row:
    """A row of `GET …/order/orders-plan-pending`."""
    hedge = plan.position_mode is PositionMode.HEDGE
    stop = plan.plan_type.protects_position
    return {
        "planType": plan.plan_type.value,
        "symbol": plan.symbol,
        "size": number(plan.size) if plan.size is not None else "0",
        "orderId": plan.plan_id,
        "clientOid": plan.client_id,
        "price": number(plan.price),
        "executePrice": number(plan.execute_price),
        "callbackRatio": "" if plan.callback_ratio is None else number(plan.callback_ratio * 100),
        "triggerPrice": number(plan.trigger_price),
        "triggerType": plan.trigger_type.value,
        "planStatus": plan.status.value,
        "side": plan.side.value,
        "posSide": plan.position_side.value,
        "marginCoin": MARGIN_COIN,
        "marginMode": "" if hedge and stop else plan.margin_mode.value,
        "enterPointSource": "API",
        "tradeSide": shown_trade_side(
            plan.position_mode, plan.trade_side, plan.side, plan.position_side
        ),
        "posMode": POSITION_MODES[plan.position_mode],
        "orderType": "limit" if plan.execute_price is not None else plan.order_type.value,
        **({} if stop else {"orderSource": "normal"}),
        **_plan_stops(plan),
        **shown_times(plan.created_ms, plan.updated_ms),
    }


def plan_history_row(plan: PlanRecord, executed: OrderRecord | None) -> Row:
    """A row of `GET …/order/orders-plan-history`."""
    return {
        **plan_row(plan),
        "executeOrderId": plan.execute_order_id,
        "priceAvg": number(executed.average_price) if executed else "",
        "baseVolume": number(executed.filled_size) if executed else "0",
    }


def _plan_stops(plan: PlanRecord) -> Row:
    """A stop shows itself in its own three fields, null elsewhere; a trigger order writes ""."""
    own = PresetStop(plan.trigger_price, plan.execute_price, plan.trigger_type)
    take_profit, stop_loss = plan.take_profit, plan.stop_loss
    nothing = None if plan.plan_type.protects_position else ""
    if plan.plan_type.protects_position:
        take_profit, stop_loss = (own, None) if plan.plan_type.takes_profit else (None, own)

    def fields(name: str, preset: PresetStop | None) -> Row:
        execute = preset.execute_price if preset else None
        return {
            f"{name}TriggerPrice": number(preset.trigger_price) if preset else nothing,
            f"{name}ExecutePrice": nothing if execute is None else number(execute),
            f"{name}TriggerType": preset.trigger_type.value if preset else nothing,
        }

    return {**fields("stopSurplus", take_profit), **fields("stopLoss", stop_loss)}


# -- accounts ---------------------------------------------------------------------------------


def account_list_row(balance: FuturesBalance, btc_price: Decimal | None) -> Row:
    """A row of `GET …/mix/account/accounts`."""
    return {
        **_account_head(balance, btc_price),
        "coupon": "0",
        "unionTotalMargin": "0",
        "unionAvailable": "0",
        "unionMm": "0",
        "assetList": [],
        "isolatedMargin": number(balance.isolated_margin),
        "crossedMargin": number(balance.crossed_margin),
        "crossedUnrealizedPL": number(balance.crossed_unrealized),
        "isolatedUnrealizedPL": number(balance.isolated_unrealized),
        "assetMode": "single",
        "grant": "",
    }


def account_row(
    balance: FuturesBalance, btc_price: Decimal | None, leverage: LeverageView, mode: PositionMode
) -> Row:
    """`GET …/mix/account/account`: the margins are null while nothing is held, the three leverage
    fields are JSON integers, the unrealised profit of the other margin mode is empty."""
    crossed = leverage.margin_mode is MarginMode.CROSSED
    return {
        **_account_head(balance, btc_price),
        "coupon": "0",
        "crossedMarginLeverage": int(leverage.crossed),
        "isolatedLongLever": int(leverage.isolated_long),
        "isolatedShortLever": int(leverage.isolated_short),
        "marginMode": leverage.margin_mode.value,
        "posMode": POSITION_MODES[mode],
        "isolatedMargin": number(balance.isolated_margin) if balance.isolated_margin else None,
        "crossedMargin": number(balance.crossed_margin) if balance.crossed_margin else None,
        "crossedUnrealizedPL": number(balance.crossed_unrealized) if crossed else "",
        "isolatedUnrealizedPL": "" if crossed else number(balance.isolated_unrealized),
        "assetMode": "single",
        "grant": "",
    }


def _account_head(balance: FuturesBalance, btc_price: Decimal | None) -> Row:
    btc = Decimal(0) if not btc_price else (balance.equity / btc_price).quantize(Decimal("1e-12"))
    return {
        "marginCoin": MARGIN_COIN,
        "locked": number(balance.locked),
        "available": number(balance.available),
        "crossedMaxAvailable": number(balance.max_available),
        "isolatedMaxAvailable": number(balance.max_available),
        "maxTransferOut": number(balance.available),
        "accountEquity": number(balance.equity),
        "usdtEquity": number(balance.equity),
        "btcEquity": number(btc),
        "crossedRiskRate": number(balance.margin_ratio),
        "unrealizedPL": number(balance.unrealized),
    }


def leverage_row(view: LeverageView) -> Row:
    """The answer of set-leverage: in isolated mode crossMarginLeverage is empty."""
    crossed = view.margin_mode is MarginMode.CROSSED
    long = view.crossed if crossed else view.isolated_long
    short = view.crossed if crossed else view.isolated_short
    return {
        "symbol": view.symbol,
        "marginCoin": MARGIN_COIN,
        "longLeverage": number(long),
        "shortLeverage": number(short),
        "crossMarginLeverage": number(view.crossed) if crossed else "",
        "marginMode": view.margin_mode.value,
    }


def bill_row(bill: BillRecord) -> Row:
    """A row of `GET …/mix/account/bill`."""
    return {
        "billId": bill.bill_id,
        "symbol": bill.symbol,
        "amount": number(bill.amount),
        "fee": number(bill.fee),
        "feeByCoupon": "",
        "businessType": bill.business_type,
        "coin": bill.coin,
        "balance": number(bill.balance),
        "cTime": str(bill.at_ms),
    }
