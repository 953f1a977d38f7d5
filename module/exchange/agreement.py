"""Whether what an exchange tells of an order, or of stops, is what was asked for. PURE.

adapters, order path ── OrderRequest + OrderReport ─► difference: in words, "" where it agrees
protection           ── Position + its PlacedStops ─► StopReading: in order, or untidy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from module.exchange.venue import PlacedStop
from module.model.accounts import Position
from module.model.market import MarketType
from module.model.money import plain
from module.model.orders import (
    NO_STOPS,
    OrderReport,
    OrderRequest,
    OrderType,
    Side,
    StopPrices,
)

QUOTE_SIZED_FILL_MAX = Decimal("1.1")
"""A purchase that was sent in quote coin buys more where the price falls on the way, up to this
share of its size; more was not asked for."""


def is_in_quote(order: OrderRequest, market: MarketType) -> bool:
    """Whether it was sent in quote coin, so that its size in coins is the exchange's own."""
    is_market_buy = order.order_type is OrderType.MARKET and order.side is Side.BUY
    return market is MarketType.SPOT and is_market_buy


def filled_max(order: OrderRequest, market: MarketType) -> Decimal:
    """More than so much, in base asset, cannot have been filled of it by right."""
    return order.size * QUOTE_SIZED_FILL_MAX if is_in_quote(order, market) else order.size


def difference(order: OrderRequest, report: OrderReport, market: MarketType) -> str:
    """In what the exchange's order is not the one that was asked for; empty when it is (A6, A26).

    On spot a market buy is sent in quote coin, so its size is its own up to `filled_max`, and
    nothing is reduce-only.
    """
    if report.client_id != order.client_id:
        return f"client id {report.client_id!r}"
    if report.symbol != order.symbol:
        return f"symbol {report.symbol}, sent {order.symbol}"
    if report.side is not order.side:
        return f"side {report.side}, sent {order.side}"
    is_spot = market is MarketType.SPOT
    if not is_in_quote(order, market) and report.size != order.size:
        return f"size {plain(report.size)}, sent {plain(order.size)}"
    if report.filled_size > filled_max(order, market):
        return f"filled with {plain(report.filled_size)}, sent {plain(order.size)}"
    if not is_spot and report.reduce_only != order.reduce_only:
        return f"reduce-only {report.reduce_only}, sent {order.reduce_only}"
    paid, limit = report.average_price, order.price
    if paid is not None and limit is not None and (paid - limit) * order.side.sign > 0:
        return f"average price {plain(paid)}, worse than the limit {plain(limit)}"
    return ""


@dataclass(frozen=True, slots=True)
class StopReading:
    """The stops of one holding: those in order, and the kinds (True: stop loss) that are not."""

    stops: StopPrices = NO_STOPS
    untidy: frozenset[bool] = frozenset()


def read_stops(held: Position, placed: Sequence[PlacedStop]) -> StopReading:
    """What protects `held` among `placed`: in order is exactly one stop of its size.

    Two stops of a kind, one of another size (the balance has changed since), or one that the price
    has passed and that did not act (a trigger order fires when the price *comes* to it) are untidy.
    """
    is_long = held.size > 0
    found: dict[bool, Decimal] = {}
    untidy: set[bool] = set()
    for is_loss in (True, False):
        stops = [
            stop
            for stop in placed
            if (stop.symbol, stop.protects_long, stop.is_stop_loss)
            == (held.symbol, is_long, is_loss)
        ]
        for stop in stops:
            is_passed = passed(stop.trigger_price, held, is_stop_loss=is_loss)
            if len(stops) > 1 or stop.size not in (None, abs(held.size)) or is_passed:
                untidy.add(is_loss)
            else:
                found[is_loss] = stop.trigger_price
    return StopReading(StopPrices(found.get(True), found.get(False)), frozenset(untidy))


def passed(trigger_price: Decimal, held: Position, *, is_stop_loss: bool) -> bool:
    """Whether the price is already beyond (or at) the trigger of a stop of `held`."""
    direction = 1 if (held.size > 0) == is_stop_loss else -1
    return (held.mark_price - trigger_price) * direction <= 0
