"""Bitget's spot trading endpoints. Lists are lists here, never null."""

from __future__ import annotations

from module.simulator.bitget_account import HISTORY_REACH_MS, page
from module.simulator.bitget_codes import WireError
from module.simulator.bitget_orders import BATCH_MAX, answer_of, each_alone, success_of
from module.simulator.bitget_params import Params, missing
from module.simulator.bitget_rows import Row
from module.simulator.bitget_spot_rows import spot_fill_row, spot_open_order_row, spot_order_row
from module.simulator.engine_records import OrderRecord
from module.simulator.engine_types import (
    EngineRejected,
    Force,
    MarketType,
    OrderType,
    RejectReason,
    Side,
    SpotOrderCommand,
)
from module.simulator.venue import Call

_FAMILY = "spot"


def _command(params: Params) -> SpotOrderCommand:
    order_type = params.needed_choice("orderType", OrderType)
    limit = order_type is OrderType.LIMIT
    if limit and params.text("price") is None:
        raise missing("price")
    if (params.text("tpslType") or "normal").lower() != "normal":
        raise WireError("40812", "The condition tpslType is not met")
    force = params.choice("force", Force) or Force.GTC
    return SpotOrderCommand(
        symbol=params.symbol(),
        side=params.needed_choice("side", Side),
        order_type=order_type,
        size=params.needed_positive("size"),
        price=params.needed_positive("price") if limit else None,
        force=force if limit else Force.GTC,
        client_id=params.text("clientOid"),
    )


def place_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/place-order`: the size of a market buy is in quote coin."""
    _require_symbol(call)
    return answer_of(call.engine.place_spot_order(call.account_id, _command(call.params)))


def batch_orders(call: Call) -> object:
    """`POST /api/v2/spot/trade/batch-orders`: up to 50, each by itself."""
    items = call.params.items("orderList", most=BATCH_MAX, code_too_many="40912")
    if not items:
        raise missing("orderList")

    def place(item: Params) -> Row:
        command = _command(item.with_defaults(call.params, ("symbol",)))
        return success_of(call.engine.place_spot_order(call.account_id, command))

    return each_alone(items, place, _FAMILY)


def cancel_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/cancel-order`."""
    order_id, client_id = _ids(call.params)
    order = call.engine.cancel_spot_order(call.account_id, order_id=order_id, client_id=client_id)
    return success_of(order)


def batch_cancel_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/batch-cancel-order`."""
    items = call.params.items("orderList", most=BATCH_MAX, code_too_many="40912")
    if not items:
        raise missing("orderList")

    def cancel(item: Params) -> Row:
        order_id, client_id = _ids(item)
        engine = call.engine
        return success_of(
            engine.cancel_spot_order(call.account_id, order_id=order_id, client_id=client_id)
        )

    return each_alone(items, cancel, _FAMILY)


def cancel_symbol_order(call: Call) -> object:
    """`POST /api/v2/spot/trade/cancel-symbol-order`: every live order of a pair."""
    symbol = _require_symbol(call)
    call.engine.cancel_all_spot(call.account_id, symbol)
    return {"symbol": symbol}


def order_info(call: Call) -> object:
    """`GET /api/v2/spot/trade/orderInfo`: a list of one, or of none."""
    order_id, client_id = _ids(call.params)
    try:
        order = call.engine.order(
            call.account_id, order_id=order_id, client_id=client_id, market=MarketType.SPOT
        )
    except EngineRejected as error:
        if error.reason is RejectReason.ORDER_UNKNOWN:
            return []
        raise
    return [spot_order_row(order)]


def unfilled_orders(call: Call) -> object:
    """`GET /api/v2/spot/trade/unfilled-orders`."""
    orders = call.engine.open_orders(
        call.account_id, call.params.optional_symbol(), MarketType.SPOT
    )
    return [spot_open_order_row(order) for order in _order_page(orders, call.params)]


def history_orders(call: Call) -> object:
    """`GET /api/v2/spot/trade/history-orders`: 90 days back."""
    earliest_ms = call.now_ms - HISTORY_REACH_MS
    orders = call.engine.order_history(
        call.account_id, call.params.optional_symbol(), MarketType.SPOT
    )
    chosen = [order for order in orders if order.updated_ms >= earliest_ms]
    return [spot_order_row(order) for order in _order_page(chosen, call.params)]


def fills(call: Call) -> object:
    """`GET /api/v2/spot/trade/fills`."""
    found = call.engine.fills(
        call.account_id,
        call.params.optional_symbol(),
        call.params.text("orderId"),
        MarketType.SPOT,
    )
    rows, _ = page(
        found,
        call.params,
        key=lambda fill: fill.trade_id,
        at_ms=lambda fill: fill.at_ms,
        limit=100,
    )
    return [spot_fill_row(fill) for fill in rows]


def _order_page(orders: list[OrderRecord], params: Params) -> list[OrderRecord]:
    order_id, client_id = params.text("orderId"), params.text("clientOid")
    chosen = [
        order
        for order in orders
        if order_id in (None, order.order_id) and client_id in (None, order.client_id)
    ]
    rows, _ = page(
        chosen,
        params,
        key=lambda order: order.order_id,
        at_ms=lambda order: order.created_ms,
        limit=100,
    )
    return rows


def _require_symbol(call: Call) -> str:
    symbol = call.params.symbol()
    if symbol not in call.engine.spot_instruments():
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, symbol)
    return symbol


def _ids(params: Params) -> tuple[str | None, str | None]:
    order_id, client_id = params.text("orderId"), params.text("clientOid")
    if order_id is None and client_id is None:
        raise missing("orderId")
    return order_id, client_id
