"""Bitget's spot trading endpoints. Lists are lists here, never null.

A TP/SL order (tpslType tpsl) waits for its price under the id that it keeps when it fires; it is
listed and cancelled as an order, under its own tpslType.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from module.simulator.engine.engine_records import OrderRecord, PlanRecord
from module.simulator.engine.engine_types import (
    EngineRejected,
    Force,
    MarketType,
    OrderType,
    PlanStatus,
    PlanType,
    RejectReason,
    Side,
    SpotOrderCommand,
    SpotPlanCommand,
    StpMode,
)
from module.simulator.venue import Call
from module.simulator.wire.bitget_codes import WireError, wire_error
from module.simulator.wire.bitget_orders import (
    BATCH_MAX,
    answer_of,
    each_alone,
    preset,
    success_of,
)
from module.simulator.wire.bitget_pages import HISTORY_REACH_MS, oldest_ms, page
from module.simulator.wire.bitget_params import Params, missing, wrong
from module.simulator.wire.bitget_rows import Row
from module.simulator.wire.bitget_spot_rows import (
    spot_fill_row,
    spot_open_order_row,
    spot_order_row,
    waiting_open_row,
    waiting_order_row,
)

Listed = TypeVar("Listed", OrderRecord, PlanRecord, OrderRecord | PlanRecord)
FAMILY = "spot"
_TPSL = frozenset({PlanType.SPOT_TPSL})


def spot_command(params: Params, price: str = "price") -> SpotOrderCommand:
    """The engine's command for the words of place-order and its kin."""
    order_type = params.needed_choice("orderType", OrderType)
    limit = order_type is OrderType.LIMIT
    if limit and params.text(price) is None:
        raise missing(price)
    force = params.choice("force", Force) or Force.GTC
    return SpotOrderCommand(
        symbol=params.symbol(),
        side=params.needed_choice("side", Side),
        order_type=order_type,
        size=params.needed_positive("size"),
        price=params.needed_positive(price) if limit else None,
        force=force if limit else Force.GTC,
        client_id=params.text("clientOid"),
        take_profit=preset(params, "presetTakeProfitPrice", "executeTakeProfitPrice", ""),
        stop_loss=preset(params, "presetStopLossPrice", "executeStopLossPrice", ""),
        stp_mode=params.choice("stpMode", StpMode) or StpMode.NONE,
    )


def _is_tpsl(params: Params) -> bool:
    word = (params.text("tpslType") or "normal").lower()
    if word not in ("normal", "tpsl"):
        raise wrong("tpslType", word)
    return word == "tpsl"


# -- commands ---------------------------------------------------------------------------------


def place_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/place-order`: the size of a market buy is in quote coin."""
    return _place(call, call.params)


def _place(call: Call, params: Params) -> Row:
    spot_symbol(call, params)
    command = spot_command(params)
    if not _is_tpsl(params):
        return answer_of(call.engine.place_spot_order(call.account_id, command))
    trigger = params.needed_positive("triggerPrice")
    plan = call.engine.place_spot_plan(
        call.account_id, SpotPlanCommand(command, trigger, locks=True)
    )
    return {"clientOid": plan.client_id, "orderId": plan.plan_id}


def batch_orders(call: Call) -> object:
    """`POST /api/v2/spot/trade/batch-orders`: up to 50, each by itself; multiple: any symbol."""
    items = _items(call)

    def place(item: Params) -> Row:
        answer = _place(call, item)
        return {"orderId": answer["orderId"], "clientOid": answer["clientOid"]}

    return each_alone(items, place, FAMILY)


def _items(call: Call) -> list[Params]:
    """The orders of a batch; in batchMode single all of them are of the request's symbol."""
    mode = (call.params.text("batchMode") or "single").lower()
    if mode not in ("single", "multiple"):
        raise wrong("batchMode", mode)
    items = call.params.items("orderList", most=BATCH_MAX, code_too_many="40912")
    if not items:
        raise missing("orderList")
    if mode == "multiple":
        return items
    symbol = call.params.symbol()
    return [Params({**item.values, "symbol": symbol}) for item in items]


def cancel_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/cancel-order`: a live order, or a waiting TP/SL order."""
    spot_symbol(call, call.params)
    return _cancel(call, call.params)


def _cancel(call: Call, params: Params) -> Row:
    order_id, client_id = _ids(params)
    _require_of_symbol(call, params.optional_symbol(), order_id, client_id)
    if _is_tpsl(params) or _is_waiting(call, order_id, client_id):
        plan = call.engine.cancel_spot_plan(
            call.account_id, plan_id=order_id, client_id=client_id, kind=PlanType.SPOT_TPSL
        )
        return {"orderId": plan.plan_id, "clientOid": plan.client_id}
    return success_of(
        call.engine.cancel_spot_order(call.account_id, order_id=order_id, client_id=client_id)
    )


def _require_of_symbol(
    call: Call, symbol: str | None, order_id: str | None, client_id: str | None
) -> None:
    """Refuse a live order that is of another pair than the request: to it, it does not exist."""
    for order in call.engine.open_orders(call.account_id, None, MarketType.SPOT):
        named = order_id == order.order_id or (order_id is None and client_id == order.client_id)
        if named and symbol not in (None, order.symbol):
            raise EngineRejected(RejectReason.ORDER_UNKNOWN, f"{order.order_id} is not of {symbol}")


def _is_waiting(call: Call, order_id: str | None, client_id: str | None) -> bool:
    return any(
        order_id == plan.plan_id or (order_id is None and client_id == plan.client_id)
        for plan in call.engine.plans(call.account_id, _TPSL)
    )


def batch_cancel_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/batch-cancel-order`: up to 50, each by itself."""
    items = call.params.items("orderList", most=BATCH_MAX, code_too_many="40912")
    if not items:
        raise missing("orderList")
    return each_alone(items, lambda item: _cancel(call, item), FAMILY)


def cancel_symbol_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/cancel-symbol-order`: every live order of a pair."""
    symbol = spot_symbol(call, call.params)
    call.engine.cancel_all_spot(call.account_id, symbol)
    return {"symbol": symbol}


def cancel_replace_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/cancel-replace-order`: a new limit order in the old one's place."""
    return _replace(call, call.params)


def _replace(call: Call, params: Params) -> Row:
    symbol = spot_symbol(call, params)
    order_id, client_id = _ids(params)
    command = SpotOrderCommand(
        symbol=symbol,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=params.needed_positive("size"),
        price=params.needed_positive("price"),
        client_id=params.text("newClientOid"),
        take_profit=preset(params, "presetTakeProfitPrice", "executeTakeProfitPrice", ""),
        stop_loss=preset(params, "presetStopLossPrice", "executeStopLossPrice", ""),
    )
    order = call.engine.replace_spot_order(
        call.account_id, command, order_id=order_id, client_id=client_id
    )
    return {**success_of(order), "success": "success", "msg": None}


def batch_cancel_replace(call: Call) -> object:
    """`POST /api/v2/spot/trade/batch-cancel-replace-order`: each says whether it was done."""
    items = call.params.items("orderList", most=BATCH_MAX, code_too_many="40912")
    if not items:
        raise missing("orderList")
    return [_replace_alone(call, item) for item in items]


def _replace_alone(call: Call, item: Params) -> Row:
    try:
        return _replace(call, item)
    except EngineRejected as error:
        failure = wire_error(error, FAMILY)
    except WireError as error:
        failure = error
    return {
        "orderId": item.text("orderId"),
        "clientOid": item.text("clientOid"),
        "success": "failure",
        "msg": failure.message,
    }


# -- questions --------------------------------------------------------------------------------


def order_info(call: Call) -> object:
    """`GET /api/v2/spot/trade/orderInfo`: a list of one, or of none."""
    order_id, client_id = _ids(call.params)
    try:
        order = call.engine.order(
            call.account_id, order_id=order_id, client_id=client_id, market=MarketType.SPOT
        )
    except EngineRejected as error:
        if error.reason is not RejectReason.ORDER_UNKNOWN:
            raise
    else:
        return [spot_order_row(order)]
    return [
        waiting_order_row(plan)
        for plan in (*_waiting(call), *_waited_in_vain(call))
        if order_id == plan.plan_id or (order_id is None and client_id == plan.client_id)
    ]


def _waiting(call: Call) -> list[PlanRecord]:
    return call.engine.plans(call.account_id, _TPSL)


def _waited_in_vain(call: Call) -> list[PlanRecord]:
    """TP/SL orders that ended before they became an order."""
    history = call.engine.plan_history(call.account_id, _TPSL)
    return [plan for plan in history if plan.status is not PlanStatus.EXECUTED]


def unfilled_orders(call: Call) -> object:
    """`GET /api/v2/spot/trade/unfilled-orders`: tpslType tpsl lists those that wait."""
    symbol = call.params.optional_symbol()
    if _is_tpsl(call.params):
        plans = [plan for plan in _waiting(call) if symbol in (None, plan.symbol)]
        return _listed(call, plans, waiting_open_row)
    orders = call.engine.open_orders(call.account_id, symbol, MarketType.SPOT)
    return _listed(call, orders, spot_open_order_row)


def history_orders(call: Call) -> object:
    """`GET /api/v2/spot/trade/history-orders`: 90 days back; tpslType tpsl: those that waited."""
    earliest_ms = call.now_ms - HISTORY_REACH_MS
    symbol = call.params.optional_symbol()
    tpsl = _is_tpsl(call.params)
    orders: list[OrderRecord | PlanRecord] = [
        order
        for order in call.engine.order_history(call.account_id, symbol, MarketType.SPOT)
        if (order.trigger_price is not None) == tpsl
    ]
    if tpsl:
        orders += [plan for plan in _waited_in_vain(call) if symbol in (None, plan.symbol)]
    chosen = [order for order in orders if order.updated_ms >= earliest_ms]
    return _listed(call, sorted(chosen, key=_number), _history_row)


def _history_row(order: OrderRecord | PlanRecord) -> Row:
    return spot_order_row(order) if isinstance(order, OrderRecord) else waiting_order_row(order)


def fills(call: Call) -> object:
    """`GET /api/v2/spot/trade/fills`: newest first, 90 days back."""
    found = call.engine.fills(
        call.account_id,
        call.params.optional_symbol(),
        call.params.text("orderId"),
        MarketType.SPOT,
        since_ms=oldest_ms(call),
    )
    rows, _ = page(
        found,
        call.params,
        key=lambda fill: fill.trade_id,
        at_ms=lambda fill: fill.at_ms,
        limit=100,
    )
    return [spot_fill_row(fill) for fill in rows]


def _listed(call: Call, items: list[Listed], row: Callable[[Listed], Row]) -> list[Row]:
    order_id, client_id = call.params.text("orderId"), call.params.text("clientOid")
    chosen = [
        item
        for item in items
        if order_id in (None, _id(item)) and client_id in (None, item.client_id)
    ]
    rows, _ = page(chosen, call.params, key=_id, at_ms=lambda item: item.created_ms, limit=100)
    return [row(item) for item in rows]


def _id(item: OrderRecord | PlanRecord) -> str:
    return item.order_id if isinstance(item, OrderRecord) else item.plan_id


def _number(item: OrderRecord | PlanRecord) -> int:
    return int(_id(item))


def spot_symbol(call: Call, params: Params) -> str:
    """The pair that a request (or an item of its list) names; unknown ones are refused."""
    symbol = params.symbol()
    if symbol not in call.engine.spot_instruments():
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, symbol)
    return symbol


def _ids(params: Params) -> tuple[str | None, str | None]:
    order_id, client_id = params.text("orderId"), params.text("clientOid")
    if order_id is None and client_id is None:
        raise missing("orderId")
    return order_id, client_id
