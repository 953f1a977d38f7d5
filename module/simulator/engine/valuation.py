"""What an account is worth and how near to liquidation it is, at the marks of the moment.

Convention for the split that the real exchange does not document: available = wallet - isolated
margins - crossed margins (mark x size / leverage) - order locks - crossed loss, never below zero;
max available adds the crossed profit. Isolated positions put their own margin at stake and nothing
else; crossed ones share the rest of the wallet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from module.simulator.engine import margin
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import FuturesBalance, PositionRecord, PositionView
from module.simulator.engine.engine_types import (
    MarginMode,
    MarketType,
    PlanType,
    PositionMode,
    TradeSide,
)
from module.simulator.engine.world import World

ZERO = Decimal(0)


def mark_of(world: World, symbol: str) -> Decimal:
    """The mark price now."""
    return world.mark(symbol)


def unrealized(position: PositionRecord, mark: Decimal) -> Decimal:
    """Profit at `mark`, exact."""
    return (mark - position.entry_price) * position.signed_size


def requirement_rate(world: World, symbol: str, notional: Decimal) -> Decimal:
    """Maintenance rate of the tier plus the fee of closing."""
    rules = world.futures[symbol]
    return rules.tier(notional).maintenance + rules.taker_fee


def position_margin(position: PositionRecord, mark: Decimal) -> Decimal:
    """Margin in use: at mark for crossed, what was set aside for isolated."""
    if position.margin_mode is MarginMode.ISOLATED:
        return position.isolated_margin
    return mark * position.size / position.leverage


def crossed_requirements(world: World, account: AccountState) -> dict[str, Decimal]:
    """Per symbol, what its crossed positions must keep: of two hedged legs the larger one only."""
    required: dict[str, Decimal] = {}
    for position in account.positions.values():
        if position.margin_mode is MarginMode.CROSSED:
            notional = mark_of(world, position.symbol) * position.size
            need = notional * requirement_rate(world, position.symbol, notional)
            required[position.symbol] = max(required.get(position.symbol, ZERO), need)
    return required


@dataclass(frozen=True, slots=True)
class _Sums:
    """What the positions and live orders of an account add up to at the marks of now."""

    wallet: Decimal
    crossed_unrealized: Decimal
    isolated_unrealized: Decimal
    crossed_margin: Decimal
    isolated_margin: Decimal
    locked: Decimal

    @property
    def free(self) -> Decimal:
        """What no margin and no order holds, before profits and losses."""
        return self.wallet - self.isolated_margin - self.crossed_margin - self.locked

    @property
    def available(self) -> Decimal:
        return max(ZERO, self.free + min(ZERO, self.crossed_unrealized))

    @property
    def max_available(self) -> Decimal:
        return max(ZERO, self.free + self.crossed_unrealized)


def _add_up(world: World, account: AccountState) -> _Sums:
    crossed_unrealized = isolated_unrealized = crossed_margin = isolated_margin = ZERO
    for position in account.positions.values():
        mark = mark_of(world, position.symbol)
        if position.margin_mode is MarginMode.CROSSED:
            crossed_unrealized += unrealized(position, mark)
            crossed_margin += position_margin(position, mark)
        else:
            isolated_unrealized += unrealized(position, mark)
            isolated_margin += position.isolated_margin
    return _Sums(
        wallet=world.ledger.balance(world.futures_wallet(account)),
        crossed_unrealized=crossed_unrealized,
        isolated_unrealized=isolated_unrealized,
        crossed_margin=crossed_margin,
        isolated_margin=isolated_margin,
        locked=sum(
            (
                order.locked
                for order in account.open_orders.values()
                if order.market is MarketType.FUTURES
            ),
            ZERO,
        ),
    )


def free_margin(world: World, account: AccountState, mode: MarginMode) -> Decimal:
    """What a new position may use: crossed ones count the crossed profit, isolated ones do not."""
    sums = _add_up(world, account)
    return sums.max_available if mode is MarginMode.CROSSED else sums.available


def futures_balance(world: World, account: AccountState) -> FuturesBalance:
    """Value the futures wallet now."""
    sums = _add_up(world, account)
    profit = sums.crossed_unrealized + sums.isolated_unrealized
    crossed_equity = sums.wallet - sums.isolated_margin + sums.crossed_unrealized
    maintenance = sum(crossed_requirements(world, account).values(), ZERO)
    return FuturesBalance(
        wallet=sums.wallet,
        equity=sums.wallet + profit,
        unrealized=profit,
        crossed_unrealized=sums.crossed_unrealized,
        isolated_unrealized=sums.isolated_unrealized,
        crossed_margin=sums.crossed_margin,
        isolated_margin=sums.isolated_margin,
        locked=sums.locked,
        available=sums.available,
        max_available=sums.max_available,
        crossed_equity=crossed_equity,
        maintenance=maintenance,
        margin_ratio=_ratio(maintenance, crossed_equity),
    )


def _ratio(required: Decimal, equity: Decimal) -> Decimal:
    if not required:
        return ZERO
    return required / equity if equity > 0 else Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class CrossedRisk:
    """A crossed account against its requirement; `by_symbol` adds up to `required`."""

    equity: Decimal
    required: Decimal
    by_symbol: Mapping[str, Decimal]

    @property
    def must_liquidate(self) -> bool:
        """Equity no longer covers what the positions must keep."""
        return self.required > 0 and self.equity <= self.required


def crossed_risk(world: World, account: AccountState) -> CrossedRisk:
    """Equity and requirement of the crossed positions now."""
    equity = world.ledger.balance(world.futures_wallet(account))
    for position in account.positions.values():
        if position.margin_mode is MarginMode.CROSSED:
            equity += unrealized(position, mark_of(world, position.symbol))
        else:
            equity -= position.isolated_margin
    required = crossed_requirements(world, account)
    return CrossedRisk(equity, sum(required.values(), ZERO), required)


def isolated_must_liquidate(world: World, position: PositionRecord) -> bool:
    """The position's own margin and profit no longer cover its requirement."""
    mark = mark_of(world, position.symbol)
    notional = mark * position.size
    required = notional * requirement_rate(world, position.symbol, notional)
    return position.isolated_margin + unrealized(position, mark) <= required


def liquidation_price(
    world: World,
    account: AccountState,
    position: PositionRecord,
    risk: CrossedRisk | None = None,
) -> Decimal:
    """Mark price at which the position would be liquidated, all other prices unchanged.

    Both legs of a crossed hedge have the same one: the larger leg's tier counts. `risk` is the
    account's at the marks of now, where somebody has it already.
    """
    mark = mark_of(world, position.symbol)
    if position.margin_mode is MarginMode.ISOLATED:
        rate = requirement_rate(world, position.symbol, mark * position.size)
        direction = position.side.sign
        return margin.isolated_liquidation_price(
            position.size, position.entry_price, direction, position.isolated_margin, rate
        )
    risk = risk or crossed_risk(world, account)
    net, largest = position.signed_size, position.size
    if account.position_mode is PositionMode.HEDGE:
        legs = [
            leg
            for leg in account.positions_of(position.symbol)
            if leg.margin_mode is MarginMode.CROSSED
        ]
        net = sum((leg.signed_size for leg in legs), ZERO)
        largest = max(leg.size for leg in legs)
    return margin.crossed_liquidation_price(
        net=net,
        largest=largest,
        mark=mark,
        equity=risk.equity,
        others=risk.required - risk.by_symbol[position.symbol],
        rate=requirement_rate(world, position.symbol, mark * largest),
    )


def position_view(
    world: World,
    account: AccountState,
    position: PositionRecord,
    risk: CrossedRisk | None = None,
) -> PositionView:
    """Everything that the exchange shows of a position; `risk` as for `liquidation_price`."""
    mark = mark_of(world, position.symbol)
    notional = mark * position.size
    rate = requirement_rate(world, position.symbol, notional)
    taker = world.futures[position.symbol].taker_fee
    if position.margin_mode is MarginMode.ISOLATED:
        own = position.isolated_margin + unrealized(position, mark)
        ratio = _ratio(notional * rate, own)
    else:
        risk = risk or crossed_risk(world, account)
        ratio = _ratio(risk.required, risk.equity)
    stops = {
        plan.plan_type: plan
        for plan in account.plans.values()
        if plan.symbol == position.symbol and plan.protects is position.side
    }
    locked = closing_size(account, position)
    return PositionView(
        position=position,
        mark_price=mark,
        unrealized=unrealized(position, mark),
        margin_size=position_margin(position, mark),
        liquidation_price=liquidation_price(world, account, position, risk),
        maintenance_rate=rate - taker,
        margin_ratio=ratio,
        break_even_price=margin.break_even(position.entry_price, position.side.sign, taker),
        deducted_fee=position.entry_price * position.size * taker,
        available=max(ZERO, position.size - locked),
        locked=min(position.size, locked),
        open_order_size=_opening_size(account, position),
        take_profit=stops.get(PlanType.POS_PROFIT),
        stop_loss=stops.get(PlanType.POS_LOSS),
    )


def closing_size(account: AccountState, position: PositionRecord) -> Decimal:
    """What live orders that can only close it would take from a position."""
    if not account.open_orders:
        return ZERO
    return sum(
        (
            order.remaining
            for order in account.live_orders(position.symbol, MarketType.FUTURES)
            if order.closes and order.direction == -position.side.sign
        ),
        ZERO,
    )


def _opening_size(account: AccountState, position: PositionRecord) -> Decimal:
    if not account.open_orders:
        return ZERO
    return sum(
        (
            order.remaining
            for order in account.live_orders(position.symbol, MarketType.FUTURES)
            if order.trade_side is not TradeSide.CLOSE
            and not order.reduce_only
            and order.direction == position.side.sign
        ),
        ZERO,
    )
