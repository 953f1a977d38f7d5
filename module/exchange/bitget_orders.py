"""Placing orders on Bitget futures, and proving of each what became of it.

One order of a symbol goes through `place-order`, several through `batch-place-order`, whose raw
success and failure lists are matched by exact client id. Everything that proves nothing is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from module.exchange import bitget_rows as rows
from module.exchange.bitget_rows import BadRow, Row
from module.exchange.bitget_wire import (
    AgainstRules,
    BitgetWire,
    Duplicate,
    Endpoint,
    endpoint,
)
from module.exchange.venue import CLIENT_ID_CLASH, OnAnswer
from module.model.errors import AifapError, OutcomeUnknown, Rejected, Retryable
from module.model.money import plain
from module.model.orders import NOT_SENT, OrderRequest, OrderType, Outcome, SubmitResult

PLACE: Final = endpoint("privateMixPostV2MixOrderPlaceOrder", 10, is_write=True)
PLACE_BATCH: Final = endpoint("privateMixPostV2MixOrderBatchPlaceOrder", 5, is_write=True)

LookUp = Callable[[OrderRequest], SubmitResult]


def requests_for(orders: Sequence[OrderRequest]) -> list[Endpoint]:
    """The requests that submitting `orders` takes."""
    groups = by_symbol(orders)
    return [PLACE if len(group) == 1 else PLACE_BATCH for group in groups.values()]


def by_symbol(orders: Sequence[OrderRequest]) -> dict[str, list[OrderRequest]]:
    """`orders` grouped, in their order: a batch on the wire has one symbol."""
    groups: dict[str, list[OrderRequest]] = {}
    for order in orders:
        groups.setdefault(order.symbol, []).append(order)
    return groups


def place(
    wire: BitgetWire, common: Mapping[str, object], group: Sequence[OrderRequest], look_up: LookUp
) -> dict[str, SubmitResult | Retryable]:
    """Send the orders of one symbol; Retryable as a value: certainly not sent.

    `common` names symbol, product, margin coin and mode; `look_up` resolves duplicates.
    """
    if len(group) == 1:
        (order,) = group
        params = {**common, **order_params(order)}
        return {order.client_id: place_one(wire, PLACE, params, order, look_up)}
    return _place_batch(wire, common, group, look_up)


def place_one(
    wire: BitgetWire,
    target: Endpoint,
    params: Mapping[str, object],
    order: OrderRequest,
    look_up: LookUp,
) -> SubmitResult | Retryable:
    """Send `order`, spelled as `params`; Retryable as a value: certainly not sent."""
    try:
        order_id = _accepted_id(wire.send(target, params), order.client_id)
    except (BadRow, OutcomeUnknown) as error:
        return _unknown(order, str(error))
    except Duplicate:
        return look_up(order)
    except Retryable as error:
        return error
    except Rejected as error:
        return refused(order, error)
    return SubmitResult(order.client_id, Outcome.ACCEPTED, order_id)


def _place_batch(
    wire: BitgetWire, common: Mapping[str, object], group: Sequence[OrderRequest], look_up: LookUp
) -> dict[str, SubmitResult | Retryable]:
    params = {**common, "orderList": [order_params(order) for order in group]}
    try:
        data = rows.row_of(wire.send(PLACE_BATCH, params))
        done = rows.rows_of(data, "successList")
        failed = rows.rows_of(data, "failureList")
    except (BadRow, OutcomeUnknown) as error:
        return {order.client_id: _unknown(order, str(error)) for order in group}
    except Retryable as error:
        return {order.client_id: error for order in group}
    except Rejected as error:
        return {order.client_id: refused(order, error) for order in group}
    return {order.client_id: _classify(wire, order, done, failed, look_up) for order in group}


def _classify(
    wire: BitgetWire,
    order: OrderRequest,
    done: Sequence[Row],
    failed: Sequence[Row],
    look_up: LookUp,
) -> SubmitResult | Retryable:
    """One leg of a batch by its exact client id; in neither list, or in both, is unknown (A7)."""
    good = [row for row in done if row.get("clientOid") == order.client_id]
    bad = [row for row in failed if row.get("clientOid") == order.client_id]
    if good and bad:
        return SubmitResult(
            order.client_id,
            Outcome.UNKNOWN,
            None,
            CLIENT_ID_CLASH,
            f"the exchange lists {order.client_id} as placed and as failed",
        )
    if len(good) == 1 and rows.optional_text(good[0], "orderId"):
        return SubmitResult(order.client_id, Outcome.ACCEPTED, rows.text(good[0], "orderId"))
    if len(bad) != 1:
        return _unknown(order, "the batch's answer does not name it")
    code = rows.optional_text(bad[0], "errorCode")
    message = rows.optional_text(bad[0], "errorMsg")
    error = wire.error_of(PLACE_BATCH, code, message)
    if isinstance(error, Duplicate):
        return look_up(order)
    if isinstance(error, Retryable):
        return error
    if isinstance(error, Rejected):
        return refused(order, error)
    return _unknown(order, error.message)


def settle(
    answers: Sequence[SubmitResult | Retryable], orders: Sequence[OrderRequest]
) -> list[SubmitResult]:
    """Results of a batch. When none was sent its reason is raised; else those say `NOT_SENT`."""
    unsent = [answer for answer in answers if isinstance(answer, Retryable)]
    if len(unsent) == len(answers):
        raise max(unsent, key=lambda error: error.retry_after_s or 0.0)
    return [
        SubmitResult(order.client_id, Outcome.REJECTED, None, NOT_SENT, answer.message)
        if isinstance(answer, Retryable)
        else answer
        for answer, order in zip(answers, orders, strict=True)
    ]


def tell_answers(answers: Iterable[SubmitResult | Retryable], on_answer: OnAnswer) -> None:
    """Let whoever listens hear what the exchange said; a Retryable is no word of its."""
    for answer in answers:
        if not isinstance(answer, Retryable):
            on_answer(answer)


def order_params(order: OrderRequest) -> dict[str, object]:
    """One order in Bitget's words; its stops are attached as presets."""
    params: dict[str, object] = {
        "clientOid": order.client_id,
        "side": order.side.value,
        "orderType": order.order_type.value,
        "size": plain(order.size),
        "reduceOnly": "YES" if order.reduce_only else "NO",
    }
    if order.order_type is OrderType.LIMIT and order.price is not None:
        params["price"] = plain(order.price)
        params["force"] = "gtc"
    if order.stops.stop_loss is not None:
        params["presetStopLossPrice"] = plain(order.stops.stop_loss)
    if order.stops.take_profit is not None:
        params["presetStopSurplusPrice"] = plain(order.stops.take_profit)
    return params


def _accepted_id(data: object, client_id: str) -> str:
    """The order id of an acceptance; BadRow unless it is of exactly this client id (A8)."""
    row = rows.row_of(data)
    if row.get("clientOid") != client_id:
        raise BadRow("the answer is of another client id")
    order_id = rows.optional_text(row, "orderId")
    if not order_id:
        raise BadRow("the answer has no order id")
    return order_id


def _unknown(order: OrderRequest, why: str) -> SubmitResult:
    return SubmitResult(order.client_id, Outcome.UNKNOWN, message=why)


def refused(order: OrderRequest, error: AifapError) -> SubmitResult:
    """A proven refusal; it says so when the trading rules may have changed."""
    return SubmitResult(
        order.client_id,
        Outcome.REJECTED,
        None,
        error.code,
        error.message,
        rules_changed=isinstance(error, AgainstRules),
    )
