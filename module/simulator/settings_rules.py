"""Leverage, margin mode and position mode: when they may change, and what a change does."""

from __future__ import annotations

from decimal import ROUND_UP, Decimal

from module.simulator.engine_records import LeverageView
from module.simulator.engine_types import (
    EngineRejected,
    MarginMode,
    MarketType,
    PositionMode,
    PositionSide,
    RejectReason,
)
from module.simulator.margin import FEE_STEP
from module.simulator.valuation import futures_balance, mark_of
from module.simulator.world import AccountState, SymbolLeverage, World

ZERO = Decimal(0)


def leverage_view(world: World, account: AccountState, symbol: str) -> LeverageView:
    """What is set for a symbol."""
    settings = world.leverage_of(account, symbol)
    return LeverageView(
        symbol=symbol,
        margin_mode=settings.margin_mode,
        crossed=settings.crossed,
        isolated_long=settings.isolated_long,
        isolated_short=settings.isolated_short,
    )


def set_leverage(
    world: World,
    account: AccountState,
    symbol: str,
    leverage: Decimal,
    hold_side: PositionSide | None,
) -> LeverageView:
    """Set a whole-numbered leverage; open positions of the symbol take it over."""
    rules = world.futures_rules(symbol)
    if not leverage.is_finite() or leverage < 1 or leverage != leverage.to_integral_value():
        raise EngineRejected(RejectReason.LEVERAGE_OUT_OF_RANGE, f"leverage {leverage}")
    if leverage > rules.leverage_max:
        raise EngineRejected(
            RejectReason.LEVERAGE_TOO_HIGH, f"{leverage} is above {rules.leverage_max}"
        )
    settings = world.leverage_of(account, symbol)
    sides = _sides(settings, hold_side)
    if all(settings.effective(side) == leverage for side in sides):
        return leverage_view(world, account, symbol)
    if account.live_orders(symbol, MarketType.FUTURES):
        raise EngineRejected(RejectReason.LEVERAGE_OPEN_ORDERS, f"{symbol} has live orders")
    _require_affordable(world, account, symbol, leverage, sides)
    if settings.margin_mode is MarginMode.CROSSED:
        settings.crossed = leverage
    else:
        if PositionSide.LONG in sides:
            settings.isolated_long = leverage
        if PositionSide.SHORT in sides:
            settings.isolated_short = leverage
    for position in account.positions_of(symbol):
        if position.side in sides:
            position.leverage = leverage
            if position.margin_mode is MarginMode.ISOLATED:
                position.isolated_margin += _missing_isolated(
                    position.entry_price * position.size, leverage, position.isolated_margin
                )
    return leverage_view(world, account, symbol)


def _sides(settings: SymbolLeverage, hold_side: PositionSide | None) -> tuple[PositionSide, ...]:
    both = (PositionSide.LONG, PositionSide.SHORT)
    if settings.margin_mode is MarginMode.CROSSED or hold_side not in both:
        return both
    return (hold_side,)


def _missing_isolated(notional: Decimal, leverage: Decimal, margin: Decimal) -> Decimal:
    """A lower leverage adds margin to an isolated position; a higher one takes none out."""
    wanted = (notional / leverage).quantize(FEE_STEP, rounding=ROUND_UP)
    return max(ZERO, wanted - margin)


def _require_affordable(
    world: World,
    account: AccountState,
    symbol: str,
    leverage: Decimal,
    sides: tuple[PositionSide, ...],
) -> None:
    held = [position for position in account.positions_of(symbol) if position.side in sides]
    if not held:
        return
    rules = world.futures[symbol]
    mark = mark_of(world, symbol)
    extra = ZERO
    for position in held:
        notional = mark * position.size
        if leverage > rules.tier(notional).leverage:
            raise EngineRejected(
                RejectReason.POSITION_TIER_LIMIT,
                f"a position of {notional} USDT allows leverage {rules.tier(notional).leverage}",
            )
        if position.margin_mode is MarginMode.ISOLATED:
            entry_notional = position.entry_price * position.size
            extra += _missing_isolated(entry_notional, leverage, position.isolated_margin)
        else:
            extra += max(ZERO, notional / leverage - notional / position.leverage)
    free = futures_balance(world, account).available
    if extra > free:
        raise EngineRejected(
            RejectReason.INSUFFICIENT_MARGIN,
            f"leverage {leverage} needs {extra} USDT more, {free} are available",
        )


def set_margin_mode(
    world: World, account: AccountState, symbol: str, mode: MarginMode
) -> LeverageView:
    """Crossed or isolated; same again is success, a change needs an idle symbol."""
    world.futures_rules(symbol)
    settings = world.leverage_of(account, symbol)
    if settings.margin_mode is not mode:
        if account.positions_of(symbol) or account.live_orders(symbol, MarketType.FUTURES):
            raise EngineRejected(
                RejectReason.MARGIN_MODE_BUSY, f"{symbol} has a position or an order"
            )
        settings.margin_mode = mode
    return leverage_view(world, account, symbol)


def set_position_mode(world: World, account: AccountState, mode: PositionMode) -> PositionMode:
    """One-way or hedge; same again is success, a change needs an account without anything open."""
    if account.position_mode is not mode:
        live = [
            order for order in account.open_orders.values() if order.market is MarketType.FUTURES
        ]
        if account.positions or live or account.plans:
            raise EngineRejected(
                RejectReason.POSITION_MODE_BUSY,
                "Position or order exists, the position mode cannot be switched",
            )
        account.position_mode = mode
    return account.position_mode
