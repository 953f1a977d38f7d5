"""Sizes and prices onto the exchange's grid. Sizes round toward zero; a close is exact."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

from module.model.market import Instrument
from module.model.money import round_down
from module.model.orders import StopPrices


def size_for_notional(notional: Decimal, price: Decimal, instrument: Instrument) -> Decimal:
    """The largest lot multiple worth at most |notional| at `price`, with notional's sign."""
    return round_down(notional / price, instrument.size_step)


def round_stops(stops: StopPrices, instrument: Instrument) -> StopPrices:
    """Trigger prices on the tick (nearest, ties to even)."""
    return StopPrices(
        stop_loss=_on_tick(stops.stop_loss, instrument.price_step),
        take_profit=_on_tick(stops.take_profit, instrument.price_step),
    )


def _on_tick(price: Decimal | None, step: Decimal) -> Decimal | None:
    if price is None:
        return None
    ticks = (price / step).to_integral_value(rounding=ROUND_HALF_EVEN)
    if ticks == 0:
        ticks = (price / step).to_integral_value(rounding=ROUND_DOWN) or Decimal(1)
    return (ticks * step).quantize(step) if step <= 1 else ticks * step
