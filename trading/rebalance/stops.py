"""The stops that a position should have, on the tick. PURE."""

from __future__ import annotations

from decimal import Decimal

from module.model.accounts import Position
from module.model.market import Instrument
from module.model.money import ONE
from module.model.orders import NO_STOPS, StopPrices
from module.model.stop_ticks import round_stops
from trading.rebalance.legs import Policy
from trading.rebalance.weights import Target


def wanted_stops(
    target: Target, entry: Decimal, instrument: Instrument, policy: Policy
) -> StopPrices:
    """The target's stops on the tick; the session's default from `entry` where it gives none."""
    stop_loss = target.stops.stop_loss
    if stop_loss is None and policy.default_stop_loss_pct is not None:
        direction = ONE if target.weight > 0 else -ONE
        stop_loss = entry * (ONE - direction * policy.default_stop_loss_pct / 100)
    if stop_loss is None and target.stops.take_profit is None:
        return NO_STOPS
    return round_stops(StopPrices(stop_loss, target.stops.take_profit), instrument)


def entry_price(target: Target, position: Position | None, mark: Decimal) -> Decimal:
    """What a default stop is measured from: the entry of what is held on that side, else the mark.

    Measured from the mark it would follow a slow fall down for ever and never trigger.
    """
    if position is not None and position.size * target.weight > 0:
        return position.entry_price
    return mark


def stops_fit(stops: StopPrices, mark: Decimal, *, is_long: bool) -> bool:
    """A long's stop-loss is below the price and its take-profit above; a short's the reverse."""
    if stops is NO_STOPS:
        return True
    direction = 1 if is_long else -1
    if stops.stop_loss is not None and (mark - stops.stop_loss) * direction <= 0:
        return False
    return stops.take_profit is None or (stops.take_profit - mark) * direction > 0
