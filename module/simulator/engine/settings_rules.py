"""Leverage, margin mode and position mode: when they may change, and what a change does."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_UP, Decimal

from module.simulator.engine.account_state import AccountState, SymbolLeverage
from module.simulator.engine.engine_records import LeverageView
from module.simulator.engine.engine_types import (
    EngineRejected,
    MarginMode,
    MarketType,
    PositionMode,
    PositionSide,
    RejectReason,
)
from module.simulator.engine.margin import FEE_STEP, money
from module.simulator.engine.valuation import futures_balance, mark_of, unrealized
from module.simulator.engine.world import World

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
    world.futures_rules(symbol)
    settings = world.leverage_of(account, symbol)
    both = (PositionSide.LONG, PositionSide.SHORT)
    crossed = settings.margin_mode is MarginMode.CROSSED
    sides = both if crossed or hold_side not in both else (hold_side,)
    return set_leverages(world, account, symbol, dict.fromkeys(sides, leverage))


def set_leverages(
    world: World, account: AccountState, symbol: str, wanted: Mapping[PositionSide, Decimal]
) -> LeverageView:
    """Set the leverage of one side or of both at once; crossed margin has one for both."""
    rules = world.futures_rules(symbol)
    for leverage in wanted.values():
        if not leverage.is_finite() or leverage < 1 or leverage != leverage.to_integral_value():
            raise EngineRejected(RejectReason.LEVERAGE_OUT_OF_RANGE, f"leverage {leverage}")
        if leverage > rules.leverage_max:
            raise EngineRejected(
                RejectReason.LEVERAGE_TOO_HIGH, f"{leverage} is above {rules.leverage_max}"
            )
    settings = world.leverage_of(account, symbol)
    crossed = settings.margin_mode is MarginMode.CROSSED
    if crossed and len(set(wanted.values())) > 1:
        raise EngineRejected(
            RejectReason.VALUE_INVALID, f"{symbol} is crossed: one leverage for both sides"
        )
    if crossed and wanted:
        wanted = dict.fromkeys((PositionSide.LONG, PositionSide.SHORT), *set(wanted.values()))
    if all(settings.effective(side) == leverage for side, leverage in wanted.items()):
        return leverage_view(world, account, symbol)
    if account.live_orders(symbol, MarketType.FUTURES):
        raise EngineRejected(RejectReason.LEVERAGE_OPEN_ORDERS, f"{symbol} has live orders")
    _require_affordable(world, account, symbol, wanted)
    _apply_leverages(settings, wanted)
    for position in account.positions_of(symbol):
        if position.side in wanted:
            position.leverage = wanted[position.side]
            if position.margin_mode is MarginMode.ISOLATED:
                position.isolated_margin += _missing_isolated(
                    position.entry_price * position.size,
                    position.leverage,
                    position.isolated_margin,
                )
    return leverage_view(world, account, symbol)


def _apply_leverages(settings: SymbolLeverage, wanted: Mapping[PositionSide, Decimal]) -> None:
    for side, leverage in wanted.items():
        if settings.margin_mode is MarginMode.CROSSED:
            settings.crossed = leverage
        elif side is PositionSide.LONG:
            settings.isolated_long = leverage
        else:
            settings.isolated_short = leverage


def _missing_isolated(notional: Decimal, leverage: Decimal, margin: Decimal) -> Decimal:
    """A lower leverage adds margin to an isolated position; a higher one takes none out."""
    wanted = (notional / leverage).quantize(FEE_STEP, rounding=ROUND_UP)
    return max(ZERO, wanted - margin)


def _require_affordable(
    world: World,
    account: AccountState,
    symbol: str,
    wanted: Mapping[PositionSide, Decimal],
) -> None:
    held = [position for position in account.positions_of(symbol) if position.side in wanted]
    if not held:
        return
    rules = world.futures[symbol]
    mark = mark_of(world, symbol)
    extra = ZERO
    for position in held:
        leverage = wanted[position.side]
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
            f"the leverage of {symbol} needs {extra} USDT more, {free} are available",
        )


def set_position_margin(
    world: World,
    account: AccountState,
    symbol: str,
    hold_side: PositionSide | None,
    amount: Decimal,
) -> None:
    """Put margin into an isolated position (negative: take out what is beyond its need).

    At least notional at mark / leverage stays inside, counting a loss against what is there.
    """
    world.futures_rules(symbol)
    if world.leverage_of(account, symbol).margin_mode is not MarginMode.ISOLATED:
        raise EngineRejected(RejectReason.MARGIN_NOT_ISOLATED, f"{symbol} is crossed")
    held = account.positions_of(symbol)
    if account.position_mode is PositionMode.HEDGE:
        held = [position for position in held if hold_side in (None, position.side)]
    if not held:
        raise EngineRejected(RejectReason.NO_POSITION, f"no position of {symbol}")
    if not amount.is_finite() or amount == 0 or money(amount) != amount:
        raise EngineRejected(RejectReason.VALUE_INVALID, f"amount {amount}")
    position = held[0]
    if amount > 0:
        free = money(futures_balance(world, account).available)
        if amount > free:
            raise EngineRejected(RejectReason.INSUFFICIENT_MARGIN, f"{amount} USDT out of {free}")
    else:
        mark = mark_of(world, symbol)
        needed = mark * position.size / position.leverage
        spare = position.isolated_margin + min(ZERO, unrealized(position, mark)) - needed
        if -amount > spare:
            raise EngineRejected(
                RejectReason.MARGIN_REDUCE_TOO_LARGE, f"{-amount} USDT out of {max(ZERO, spare)}"
            )
    position.isolated_margin += amount
    position.updated_ms = world.now_ms


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
        plans = [plan for plan in account.plans.values() if plan.market is MarketType.FUTURES]
        if account.positions or live or plans:
            raise EngineRejected(
                RejectReason.POSITION_MODE_BUSY,
                "Position or order exists, the position mode cannot be switched",
            )
        account.position_mode = mode
    return account.position_mode
