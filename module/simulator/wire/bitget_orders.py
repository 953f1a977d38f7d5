"""Bitget's futures order endpoints: place, batch, modify, cancel, close, look up."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from module.simulator.engine.engine_records import OrderRecord
from module.simulator.engine.engine_types import (
    EngineRejected,
    Force,
    FuturesOrderCommand,
    MarginMode,
    ModifyOrderCommand,
    OrderStatus,
    OrderType,
    PositionMode,
    PositionSide,
    PresetStop,
    RejectReason,
    Side,
    StpMode,
    TradeSide,
    TriggerType,
)
from module.simulator.venue import Call
from module.simulator.wire.bitget_account import (
    check_margin_coin,
    is_usdt_futures,
    margined_symbol,
    traded_symbol,
)
from module.simulator.wire.bitget_codes import WireError, wire_error
from module.simulator.wire.bitget_pages import HISTORY_REACH_MS, HISTORY_SPAN_DAYS, oldest_ms, page
from module.simulator.wire.bitget_params import Params, missing, wrong
from module.simulator.wire.bitget_rows import (
    Row,
    fill_row,
    order_detail_row,
    order_history_row,
    order_list_row,
)

BATCH_MAX = 50
FILL_HISTORY_SPAN_DAYS = 7
_CLOSE_SIDES = {"long": PositionSide.LONG, "short": PositionSide.SHORT}


def answer_of(order: OrderRecord) -> Row:
    """What placing and cancelling answer."""
    return {"clientOid": order.client_id, "orderId": order.order_id}


def success_of(order: OrderRecord) -> Row:
    """An item of a successList."""
    return {"orderId": order.order_id, "clientOid": order.client_id}


def failure_of(error: WireError, params: Params) -> Row:
    """An item of a failureList."""
    return {
        "orderId": params.text("orderId") or "",
        "clientOid": params.text("clientOid") or "",
        "errorMsg": error.message,
        "errorCode": error.code,
    }


def each_alone(
    items: list[Params], work: Callable[[Params], Row], family: str
) -> dict[str, list[Row]]:
    """Do each item by itself: one that is refused does not keep the others back."""
    done: list[Row] = []
    failed: list[Row] = []
    for item in items:
        try:
            done.append(work(item))
        except EngineRejected as error:
            failed.append(failure_of(wire_error(error, family), item))
        except WireError as error:
            failed.append(failure_of(error, item))
    return {"successList": done, "failureList": failed}


def preset(params: Params, price: str, execute: str, trigger: str) -> PresetStop | None:
    """A stop that travels with an order; None when its price is absent or 0."""
    trigger_price = params.positive(price)
    if trigger_price is None:
        return None
    kind = params.choice(trigger, TriggerType) or TriggerType.FILL_PRICE
    return PresetStop(trigger_price, params.positive(execute), kind)


def order_command(params: Params) -> FuturesOrderCommand:
    """The engine's command for the words of place-order, batch items and plan orders."""
    order_type = params.needed_choice("orderType", OrderType)
    limit = order_type is OrderType.LIMIT
    if limit and params.text("price") is None:
        raise missing("price")
    force = params.choice("force", Force) or Force.GTC
    return FuturesOrderCommand(
        symbol=params.symbol(),
        side=params.needed_choice("side", Side),
        order_type=order_type,
        size=params.needed_positive("size"),
        price=params.needed_positive("price") if limit else None,
        force=force if limit else Force.GTC,
        trade_side=params.choice("tradeSide", TradeSide),
        reduce_only=params.yes("reduceOnly"),
        margin_mode=params.needed_choice("marginMode", MarginMode),
        client_id=params.text("clientOid"),
        take_profit=preset(
            params,
            "presetStopSurplusPrice",
            "presetStopSurplusExecutePrice",
            "presetStopSurplusTriggerType",
        ),
        stop_loss=preset(
            params,
            "presetStopLossPrice",
            "presetStopLossExecutePrice",
            "presetStopLossTriggerType",
        ),
        stp_mode=params.choice("stpMode", StpMode) or StpMode.NONE,
    )


def changed_preset(params: Params, price: str, execute: str, trigger: str) -> PresetStop | None:
    """As `preset`, but a price of 0 is a wish to take the stop off (trigger price 0)."""
    if params.decimal(price) == 0:
        return PresetStop(Decimal(0))
    return preset(params, price, execute, trigger)


# -- commands ---------------------------------------------------------------------------------


def place_order(call: Call) -> object:
    """`POST /api/v2/mix/order/place-order`: acceptance only, the fill comes later."""
    margined_symbol(call)
    return answer_of(call.engine.place_order(call.account_id, order_command(call.params)))


def batch_place_order(call: Call) -> object:
    """`POST /api/v2/mix/order/batch-place-order`: up to 50 orders of one symbol."""
    margined_symbol(call)
    items = call.params.items("orderList", most=BATCH_MAX, code_too_many="40912")
    if not items:
        raise missing("orderList")
    shared = ("marginMode", "marginCoin", "productType")

    def place(item: Params) -> Row:
        words = Params({**item.values, "symbol": call.params.symbol()})
        command = order_command(words.with_defaults(call.params, shared))
        return success_of(call.engine.place_order(call.account_id, command))

    return each_alone(items, place, "mix")


def modify_order(call: Call) -> object:
    """`POST /api/v2/mix/order/modify-order`: size and price together make a new order."""
    params = call.params
    order_id, client_id = _ids(params)
    _require_of_symbol(call, traded_symbol(call), params)
    command = ModifyOrderCommand(
        new_client_id=params.text("newClientOid"),
        new_size=params.positive("newSize"),
        new_price=params.positive("newPrice"),
        new_take_profit=changed_preset(
            params,
            "newPresetStopSurplusPrice",
            "newPresetStopSurplusExecutePrice",
            "newPresetStopSurplusTriggerType",
        ),
        new_stop_loss=changed_preset(
            params,
            "newPresetStopLossPrice",
            "newPresetStopLossExecutePrice",
            "newPresetStopLossTriggerType",
        ),
    )
    order = call.engine.modify_order(
        call.account_id, command, order_id=order_id, client_id=client_id
    )
    return success_of(order)


def cancel_order(call: Call) -> object:
    """`POST /api/v2/mix/order/cancel-order`."""
    symbol = traded_symbol(call)
    order_id, client_id = _ids(call.params)
    _require_of_symbol(call, symbol, call.params)
    order = call.engine.cancel_order(call.account_id, order_id=order_id, client_id=client_id)
    return success_of(order)


def batch_cancel_orders(call: Call) -> object:
    """`POST /api/v2/mix/order/batch-cancel-orders`: without a list, everything of the symbol."""
    _require_usdt_futures(call)
    items = call.params.items("orderIdList", most=BATCH_MAX, code_too_many="40912")
    if items is None:
        return _all_cancelled(call)

    symbol = call.params.optional_symbol()

    def cancel(item: Params) -> Row:
        order_id, client_id = _ids(item)
        engine = call.engine
        if symbol is not None:
            _require_of_symbol(call, symbol, item)
        return success_of(
            engine.cancel_order(call.account_id, order_id=order_id, client_id=client_id)
        )

    return each_alone(items, cancel, "mix")


def cancel_all_orders(call: Call) -> object:
    """`POST /api/v2/mix/order/cancel-all-orders`: 22001 when there is nothing."""
    _require_usdt_futures(call)
    answer = _all_cancelled(call)
    if not answer["successList"]:
        raise EngineRejected(RejectReason.ORDER_DONE, "no live order")
    return answer


def close_positions(call: Call) -> object:
    """`POST /api/v2/mix/order/close-positions`: closes at market what matches, even dust."""
    _require_usdt_futures(call)
    params = call.params
    hedge = call.engine.position_mode(call.account_id) is PositionMode.HEDGE
    word = (params.text("holdSide") or "").lower()
    if hedge and word and word not in _CLOSE_SIDES:
        raise wrong("holdSide", word)  # closing both legs instead would be worse than refusing
    side = _CLOSE_SIDES.get(word)
    orders = call.engine.close_positions(call.account_id, params.optional_symbol(), side)
    return {
        "successList": [{**success_of(order), "symbol": order.symbol} for order in orders],
        "failureList": [],
    }


def click_backhand(call: Call) -> object:
    """`POST /api/v2/mix/order/click-backhand`: turns a position around."""
    symbol = traded_symbol(call)
    params = call.params
    if call.engine.position_mode(call.account_id) is PositionMode.ONE_WAY:
        if params.text("tradeSide") is not None:
            raise EngineRejected(RejectReason.MODE_MISMATCH, "tradeSide in one-way mode")
    elif params.text("tradeSide") is None:
        raise EngineRejected(RejectReason.MODE_MISMATCH, "no tradeSide in hedge mode")
    order = call.engine.reverse_position(
        call.account_id,
        symbol,
        side=params.choice("side", Side),
        size=params.positive("size"),
        client_id=params.text("clientOid"),
    )
    return success_of(order)


def _all_cancelled(call: Call) -> dict[str, list[Row]]:
    orders = call.engine.cancel_all(call.account_id, call.params.optional_symbol())
    return {"successList": [success_of(order) for order in orders], "failureList": []}


# -- questions --------------------------------------------------------------------------------


def order_detail(call: Call) -> object:
    """`GET /api/v2/mix/order/detail`: 40109 when there is no such order."""
    symbol = traded_symbol(call)
    order_id, client_id = _ids(call.params)
    _require_of_symbol(call, symbol, call.params)
    order = call.engine.order(call.account_id, order_id=order_id, client_id=client_id)
    return order_detail_row(order)


def orders_pending(call: Call) -> object:
    """`GET /api/v2/mix/order/orders-pending`: null instead of an empty list."""
    if not is_usdt_futures(call.params):
        return _entrusted([], None)
    status = call.params.choice("status", OrderStatus)
    orders = call.engine.open_orders(call.account_id, call.params.optional_symbol())
    chosen = [order for order in _with_ids(orders, call) if status in (None, order.status)]
    rows, end_id = _order_page(chosen, call.params)
    return _entrusted([order_list_row(order) for order in rows], end_id)


def orders_history(call: Call) -> object:
    """`GET /api/v2/mix/order/orders-history`: filled and cancelled, 90 days back."""
    if not is_usdt_futures(call.params):
        return _entrusted([], None)
    source = call.params.text("orderSource")
    earliest_ms = call.now_ms - HISTORY_REACH_MS
    orders = call.engine.order_history(call.account_id, call.params.optional_symbol())
    chosen = [
        order
        for order in _with_ids(orders, call)
        if order.updated_ms >= earliest_ms
        and (source is None or source.lower() == order.source.value)
    ]
    rows, end_id = _order_page(chosen, call.params)
    return _entrusted([order_history_row(order) for order in rows], end_id)


def fills(call: Call) -> object:
    """`GET /api/v2/mix/order/fills`: newest first, 90 days back."""
    return _fill_page(call, HISTORY_SPAN_DAYS)


def _fill_page(call: Call, span_days: int) -> object:
    if not is_usdt_futures(call.params):
        return {"fillList": None, "endId": None}
    found = call.engine.fills(
        call.account_id,
        call.params.optional_symbol(),
        call.params.text("orderId"),
        since_ms=oldest_ms(call),
    )
    rows, end_id = page(
        found,
        call.params,
        key=lambda fill: fill.trade_id,
        at_ms=lambda fill: fill.at_ms,
        limit=100,
        span_days=span_days,
    )
    return {"fillList": [fill_row(fill) for fill in rows] or None, "endId": end_id}


def fill_history(call: Call) -> object:
    """`GET /api/v2/mix/order/fill-history`: a week at a time; demo accounts do not have it."""
    if call.key is not None and call.key.environment == "demo":
        raise WireError("40404", "Request URL NOT FOUND", status=404)
    return _fill_page(call, FILL_HISTORY_SPAN_DAYS)


def _order_page(orders: list[OrderRecord], params: Params) -> tuple[list[OrderRecord], str | None]:
    return page(
        orders,
        params,
        key=lambda order: order.order_id,
        at_ms=lambda order: order.created_ms,
        limit=100,
    )


def _with_ids(orders: list[OrderRecord], call: Call) -> list[OrderRecord]:
    order_id, client_id = call.params.text("orderId"), call.params.text("clientOid")
    return [
        order
        for order in orders
        if order_id in (None, order.order_id) and client_id in (None, order.client_id)
    ]


def _entrusted(rows: list[Row], end_id: str | None) -> Row:
    return {"entrustedList": rows or None, "endId": end_id}


def _ids(params: Params) -> tuple[str | None, str | None]:
    """orderId and clientOid, of which one is needed."""
    order_id, client_id = params.text("orderId"), params.text("clientOid")
    if order_id is None and client_id is None:
        raise WireError("40924", "orderId and clientOid cannot both be empty")
    return order_id, client_id


def _require_of_symbol(call: Call, symbol: str, ids: Params) -> None:
    """Refuse an order that is of another contract than the request: to it, it does not exist."""
    order = call.engine.order(
        call.account_id, order_id=ids.text("orderId"), client_id=ids.text("clientOid")
    )
    if order.symbol != symbol:
        raise EngineRejected(RejectReason.ORDER_UNKNOWN, f"{order.order_id} is not of {symbol}")


def _require_usdt_futures(call: Call) -> None:
    check_margin_coin(call.params)
    symbol = call.params.optional_symbol()
    if not is_usdt_futures(call.params):
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, symbol or "productType")
    if symbol is not None and symbol not in call.engine.futures_instruments():
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, symbol)
