"""Which way a price would hurt: net positions and waiting orders of all accounts, with history.

    fills, orders, plans  ->  World  ->  ExposureLog  ->  PriceFeed (which extreme comes first)

The way inside a bar is a function of what was known when the bar opened, so the log answers for
any moment of the past, the same whenever it is asked.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from decimal import Decimal

from module.simulator.engine.engine_records import OrderRecord, PlanRecord
from module.simulator.engine.engine_types import Side, TradeSide

ZERO = Decimal(0)


@dataclass(slots=True)
class _SymbolExposure:
    net: Decimal = ZERO
    waiting: dict[str, Decimal] = field(default_factory=dict)
    """Signed size of every order that waits to open something, by its id."""
    waiting_net: Decimal = ZERO
    moments: list[int] = field(default_factory=list)
    """When the direction changed, ascending; `directions` is what it was from then on."""
    directions: list[int] = field(default_factory=list)

    def direction(self) -> int:
        if self.net:
            return 1 if self.net > 0 else -1
        # a long that is bought on the way must meet the low after its purchase: high first
        return (self.waiting_net < 0) - (self.waiting_net > 0)


class ExposureLog:
    """Direction per symbol: +1 the low hurts more and comes first, -1 the high, 0 nobody cares."""

    def __init__(self) -> None:
        self._symbols: dict[str, _SymbolExposure] = {}

    def change_net(self, symbol: str, delta: Decimal, now_ms: int) -> None:
        """All accounts together now hold `delta` more of `symbol`."""
        exposure = self._of(symbol)
        exposure.net += delta
        _note(exposure, now_ms)

    def wait_order(self, order: OrderRecord, now_ms: int) -> None:
        """An accepted order is under way or rests, until `wait_no_more`."""
        self._wait(order.symbol, order.order_id, _opening_size_of_order(order), now_ms)

    def wait_plan(self, plan: PlanRecord, now_ms: int) -> None:
        """A trigger order waits for its price, until `wait_no_more`."""
        self._wait(plan.symbol, plan.plan_id, _opening_size_of_plan(plan), now_ms)

    def wait_no_more(self, symbol: str, order_id: str, now_ms: int) -> None:
        """It is over (harmless if it never waited)."""
        exposure = self._symbols.get(symbol)
        size = exposure.waiting.pop(order_id, None) if exposure is not None else None
        if exposure is None or size is None:
            return
        exposure.waiting_net -= size
        _note(exposure, now_ms)

    def before(self, symbol: str, at_ms: int) -> int:
        """The direction just before `at_ms`: what happened at that very moment is not in it."""
        exposure = self._symbols.get(symbol)
        if exposure is None:
            return 0
        index = bisect.bisect_left(exposure.moments, at_ms)
        return exposure.directions[index - 1] if index else 0

    def forget_before(self, at_ms: int) -> None:
        """Drop history that ends before `at_ms`; bars from then on are answered as before."""
        for exposure in self._symbols.values():
            index = bisect.bisect_left(exposure.moments, at_ms) - 1
            if index > 0:
                del exposure.moments[:index]
                del exposure.directions[:index]

    def _wait(self, symbol: str, order_id: str, signed_size: Decimal, now_ms: int) -> None:
        if not signed_size:
            return
        exposure = self._of(symbol)
        exposure.waiting_net += signed_size - exposure.waiting.get(order_id, ZERO)
        exposure.waiting[order_id] = signed_size
        _note(exposure, now_ms)

    def _of(self, symbol: str) -> _SymbolExposure:
        found = self._symbols.get(symbol)
        if found is None:
            found = self._symbols[symbol] = _SymbolExposure()
        return found


def _note(exposure: _SymbolExposure, now_ms: int) -> None:
    direction = exposure.direction()
    if exposure.moments and exposure.moments[-1] == now_ms:
        exposure.directions[-1] = direction
    elif (exposure.directions[-1] if exposure.directions else 0) != direction:
        exposure.moments.append(now_ms)
        exposure.directions.append(direction)


def _opening_size_of_order(order: OrderRecord) -> Decimal:
    """Signed size that an order could open, 0 for one that only closes.

    Whoever sells on spot holds the coin and fears the low: like a waiting short, low first.
    """
    if order.closes:
        return ZERO
    if order.quote_sized:
        return Decimal(1)  # its size counts money; the direction is what matters
    return order.size * order.direction


def _opening_size_of_plan(plan: PlanRecord) -> Decimal:
    """Signed size that a trigger order could open, 0 for stops and for what only closes."""
    if plan.protects is not None or plan.reduce_only or plan.trade_side is TradeSide.CLOSE:
        return ZERO
    size = Decimal(1) if plan.in_quote or plan.size is None else plan.size
    return size if plan.side is Side.BUY else -size
