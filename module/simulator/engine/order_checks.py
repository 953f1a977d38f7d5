"""Checks of an order's words: steps, limits, price band, attached stops. Refuse or do nothing."""

from __future__ import annotations

from decimal import Decimal

from module.simulator.engine.engine_types import (
    EngineRejected,
    FuturesOrderCommand,
    OrderType,
    PresetStop,
    RejectReason,
    SpotOrderCommand,
)
from module.simulator.prices.instruments import FuturesInstrument

ZERO = Decimal(0)


def _refuse(reason: RejectReason, detail: str) -> EngineRejected:
    return EngineRejected(reason, detail)


def check_price_step(price: Decimal, step: Decimal, name: str) -> None:
    """A price is above zero and a multiple of the step."""
    if not price.is_finite() or price <= 0:
        raise _refuse(RejectReason.VALUE_INVALID, f"{name} {price} must be above 0")
    if price % step:
        raise _refuse(RejectReason.PRICE_STEP, f"{name} {price} is not a multiple of {step}")


def check_size_step(size: Decimal, step: Decimal, size_min: Decimal = ZERO) -> None:
    """A size is above zero, not below the minimum (looked at first), and a multiple of the step."""
    if not size.is_finite() or size <= 0:
        raise _refuse(RejectReason.VALUE_INVALID, f"size {size} must be above 0")
    if size < size_min:
        raise _refuse(RejectReason.SIZE_BELOW_MIN, f"size {size} is below {size_min}")
    if size % step:
        raise _refuse(RejectReason.SIZE_STEP, f"size {size} is not a multiple of {step}")


def check_size_max(size: Decimal, size_max: Decimal) -> None:
    """A size is not above the symbol's limit."""
    if size > size_max:
        raise _refuse(RejectReason.SIZE_ABOVE_MAX, f"size {size} is above {size_max}")


def check_price_type(order_type: OrderType, price: Decimal | None) -> None:
    """A limit order has a price; a market order's price is ignored."""
    if order_type is OrderType.LIMIT and price is None:
        raise _refuse(RejectReason.PARAMETER_MISSING, "price")


def check_band(price: Decimal, last: Decimal, band: Decimal) -> None:
    """A limit price stays within last x (1 +- band)."""
    if price > last * (1 + band):
        raise _refuse(
            RejectReason.PRICE_ABOVE_BAND, f"price {price} is above {last} by more than {band}"
        )
    if price < last * (1 - band):
        raise _refuse(
            RejectReason.PRICE_BELOW_BAND, f"price {price} is below {last} by more than {band}"
        )


def check_notional(notional: Decimal, notional_min: Decimal) -> None:
    """An opening order is worth at least the minimum."""
    if notional < notional_min:
        raise _refuse(
            RejectReason.NOTIONAL_BELOW_MIN,
            f"less than the minimum amount {notional_min} USDT: {notional}",
        )


def check_futures_shape(
    rules: FuturesInstrument, command: FuturesOrderCommand, *, closes: bool, whole: bool = False
) -> None:
    """Steps and limits of a futures order, without looking at the market.

    `whole`: it closes exactly what is held, which may be off a lot that has changed since.
    """
    if not whole:
        check_size_step(command.size, rules.size_step, rules.size_min)
    market = command.order_type is OrderType.MARKET
    check_size_max(command.size, rules.market_size_max if market else rules.limit_size_max)
    check_price_type(command.order_type, command.price)
    if command.order_type is OrderType.LIMIT and command.price is not None:
        check_price_step(command.price, rules.price_step, "price")
    if closes:
        return
    for preset in (command.take_profit, command.stop_loss):
        if preset is not None:
            check_preset_steps(preset, rules.price_step)


def check_preset_steps(preset: PresetStop, step: Decimal) -> None:
    """Both prices of an attached stop are multiples of the step."""
    check_price_step(preset.trigger_price, step, "preset price")
    if preset.execute_price is not None:
        check_price_step(preset.execute_price, step, "preset execute price")


def check_preset_sides(
    command: FuturesOrderCommand | SpotOrderCommand, direction: int, reference: Decimal
) -> None:
    """Attached stops lie on their side of the order's price."""
    long = direction > 0
    if command.take_profit is not None:
        trigger = command.take_profit.trigger_price
        if (trigger <= reference) if long else (trigger >= reference):
            reason = (
                RejectReason.PRESET_TAKE_PROFIT_LONG
                if long
                else RejectReason.PRESET_TAKE_PROFIT_SHORT
            )
            raise _refuse(reason, f"take profit {trigger} against price {reference}")
    if command.stop_loss is not None:
        trigger = command.stop_loss.trigger_price
        if (trigger >= reference) if long else (trigger <= reference):
            reason = (
                RejectReason.PRESET_STOP_LOSS_LONG if long else RejectReason.PRESET_STOP_LOSS_SHORT
            )
            raise _refuse(reason, f"stop loss {trigger} against price {reference}")
