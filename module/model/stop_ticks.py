"""Trigger prices onto the exchange's grid. PURE."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from module.model.market import Instrument
from module.model.money import ONE
from module.model.orders import StopPrices


def round_stops(stops: StopPrices, instrument: Instrument) -> StopPrices:
    """Trigger prices on the tick (nearest, ties to even), and never at nothing: at least one."""
    return StopPrices(
        stop_loss=_on_tick(stops.stop_loss, instrument.price_step),
        take_profit=_on_tick(stops.take_profit, instrument.price_step),
    )


def _on_tick(price: Decimal | None, step: Decimal) -> Decimal | None:
    if price is None:
        return None
    return ((price / step).to_integral_value(rounding=ROUND_HALF_EVEN) or ONE) * step
