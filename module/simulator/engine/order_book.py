"""The book: a spread around the last price and levels of depth, so that large orders slip.

The book is a pure function of (symbol, price, moment of the price grid). What orders take from it
is remembered until the next price, so that slicing an order does not make it cheaper.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

from module.simulator.engine.engine_types import MarketType
from module.simulator.engine.price_feed import POINT_MS

LEVELS = 50
_HALF_SPREAD = Decimal("0.00002")
_LEVEL_GAP = Decimal("0.00005")


@dataclass(frozen=True, slots=True)
class BookShape:
    """What the book of one symbol is made of."""

    market: MarketType
    symbol: str
    price_step: Decimal
    size_step: Decimal
    depth_usdt: Decimal


def _ticks(price: Decimal, ratio: Decimal, step: Decimal) -> Decimal:
    """`ratio` of `price` on the tick, at least one tick."""
    return max(step, (price * ratio / step).to_integral_value(ROUND_HALF_EVEN) * step)


def best_ask(last: Decimal, step: Decimal) -> Decimal:
    """What a buyer pays at best."""
    return last + _ticks(last, _HALF_SPREAD, step)


def best_bid(last: Decimal, step: Decimal) -> Decimal:
    """What a seller gets at best; never below one tick."""
    return max(step, last - _ticks(last, _HALF_SPREAD, step))


class OrderBook:
    """Levels of every symbol, and what has been taken from them at the present price."""

    def __init__(self) -> None:
        self._taken: dict[tuple[MarketType, str, int], tuple[int, Decimal]] = {}

    def levels(
        self, shape: BookShape, last: Decimal, direction: int, now_ms: int
    ) -> Iterator[tuple[Decimal, Decimal]]:
        """(price, size left) that an order of `direction` (+1 buys from asks) meets, best first."""
        moment = now_ms // POINT_MS
        key = (shape.market, shape.symbol, direction)
        taken_moment, taken = self._taken.get(key, (moment, Decimal(0)))
        if taken_moment != moment:
            taken = Decimal(0)
        step = shape.price_step
        best = best_ask(last, step) if direction > 0 else best_bid(last, step)
        gap = _ticks(last, _LEVEL_GAP, step)
        for index in range(LEVELS):
            price = best + direction * index * gap
            if price <= 0:
                return
            noise = zlib.crc32(f"{shape.symbol}:{moment}:{direction}:{index}".encode()) % 61 + 70
            notional = shape.depth_usdt * (2 + index) * noise / 200
            size = (notional / price / shape.size_step).to_integral_value(ROUND_DOWN)
            size = max(Decimal(1), size) * shape.size_step
            used = min(size, taken)
            taken -= used
            if size > used:
                yield price, size - used

    def take(self, shape: BookShape, direction: int, size: Decimal, now_ms: int) -> None:
        """Remember that an order took `size` from the levels it met."""
        moment = now_ms // POINT_MS
        key = (shape.market, shape.symbol, direction)
        taken_moment, taken = self._taken.get(key, (moment, Decimal(0)))
        self._taken[key] = (moment, size + (taken if taken_moment == moment else 0))

    def refresh(self, symbol: str) -> None:
        """The price jumped: the book of `symbol` is new."""
        for key in [key for key in self._taken if key[1] == symbol]:
            del self._taken[key]

    def available(
        self, shape: BookShape, last: Decimal, direction: int, now_ms: int, limit: Decimal
    ) -> Decimal:
        """How much an order of `direction` could get at `limit` or better."""
        total = Decimal(0)
        for price, size in self.levels(shape, last, direction, now_ms):
            if (price - limit) * direction > 0:
                break
            total += size
        return total

    def estimate(
        self, shape: BookShape, last: Decimal, direction: int, now_ms: int, size: Decimal
    ) -> Decimal:
        """Average price that a market order of `size` would get (the last level's beyond it)."""
        left, cost, price = size, Decimal(0), last
        for price, level in self.levels(shape, last, direction, now_ms):
            part = min(left, level)
            cost += part * price
            left -= part
            if left <= 0:
                break
        return (cost + left * price) / size
