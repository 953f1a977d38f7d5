"""What a scripted fault does inside the exchange: real orders, transfers and rules, money balanced.

    FaultDesk -> Engine.disturb -> here -> order_entry, execution, risk, stops, prices

Every effect goes the way that a real event of its kind would go, so that the ledger stays balanced
and a replay does it again, byte for byte. An effect answers whether it changed anything; where it
has nothing to act on (no position, no free money), nothing happens and it may be tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_UP, Decimal

from module.simulator.engine import liquidation, plans, risk, settings_rules, stops
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord, PositionRecord
from module.simulator.engine.engine_types import (
    CancelReason,
    EngineRejected,
    ForcedClose,
    FuturesOrderCommand,
    MarketType,
    OrderSource,
    OrderType,
    PlanStatus,
    PositionMode,
    PositionSide,
    Side,
    TradeSide,
)
from module.simulator.engine.execution import end_order, fill_by_force
from module.simulator.engine.margin import FEE_STEP
from module.simulator.engine.order_changes import cancel_by_id
from module.simulator.engine.order_entry import (
    accept_futures_order,
    build_order,
    closing_command,
    submit_order,
)
from module.simulator.engine.spot_trading import spot_available
from module.simulator.engine.valuation import futures_balance
from module.simulator.engine.world import World
from module.simulator.faults import fault_market
from module.simulator.faults.faults import FaultEffect, FaultWords

ZERO = Decimal(0)
FOREIGN_PREFIX = "web-"
"""Client ids of what somebody else does on the account."""
LEFTOVER_PREFIX = "older-"
_FAR = Decimal("0.97")


@dataclass(frozen=True, slots=True)
class EffectTarget:
    """Whom it hits: account, symbol (empty: any that fits), and the orders of the request."""

    account_id: str
    symbol: str
    order_ids: tuple[str, ...] = ()
    number: int = 0
    """Which effect of this world it is, for client ids that no other has."""


@dataclass(frozen=True, slots=True)
class _Scene:
    world: World
    account: AccountState
    words: FaultWords
    target: EffectTarget

    def position(self) -> PositionRecord | None:
        """The first open position of the symbol (or of any)."""
        for position in self.account.positions.values():
            if self.target.symbol in ("", position.symbol):
                return position
        return None

    def symbol(self) -> str:
        """The symbol meant; else that of the first position; else the first contract."""
        if self.target.symbol:
            return self.target.symbol
        position = self.position()
        return next(iter(self.world.futures)) if position is None else position.symbol

    def orders(self) -> list[OrderRecord]:
        """The request's orders that are not over; else all live ones of the symbol."""
        named = [self.account.orders.get(order_id) for order_id in self.target.order_ids]
        if named:
            return [order for order in named if order is not None and not order.status.is_terminal]
        return [
            order
            for order in self.account.open_orders.values()
            if self.target.symbol in ("", order.symbol)
        ]


def apply_effect(world: World, words: FaultWords, target: EffectTarget) -> bool:
    """Do it to the first account that it can be done to; whether anything has changed."""
    market_effect = fault_market.EFFECTS.get(words.effect)
    if market_effect is not None:
        return market_effect(world, words, target.symbol)
    act = _EFFECTS.get(words.effect)
    if act is None:
        return False
    account_ids = [target.account_id] if target.account_id else list(world.accounts)
    for account_id in account_ids:
        account = world.accounts.get(account_id)
        if account is None:
            continue
        try:
            if act(_Scene(world, account, words, target)):
                world.stir(account)
                return True
        except EngineRejected:
            continue
    return False


# -- money and settings -----------------------------------------------------------------------


def _debit(scene: _Scene) -> bool:
    """Money leaves for outside: `amount`, or `share` of what is free."""
    words, world, account = scene.words, scene.world, scene.account
    wallet = MarketType(words.wallet)
    if wallet is MarketType.FUTURES:
        free = futures_balance(world, account).available
    else:
        free = spot_available(world, account, words.coin)
    wanted = words.amount or free * words.share
    amount = min(wanted, free).quantize(FEE_STEP, rounding=ROUND_DOWN)
    if amount <= 0:
        return False
    risk.transfer(world, account, wallet, words.coin, -amount)
    return True


def _position_mode(scene: _Scene) -> bool:
    """Somebody switches the account to the other position mode (refused while it is not flat)."""
    one_way = scene.account.position_mode is PositionMode.ONE_WAY
    mode = PositionMode.HEDGE if one_way else PositionMode.ONE_WAY
    settings_rules.set_position_mode(scene.world, scene.account, mode)
    return True


# -- what somebody else does on the account ---------------------------------------------------


def _foreign_order(scene: _Scene) -> bool:
    """A market order with a client id of its own, at once: `amount`, or `share` of the position
    (at least a lot), or the smallest order where nothing is held."""
    world, account, words = scene.world, scene.account, scene.words
    position, symbol = scene.position(), scene.symbol()
    step = world.futures_rules(symbol).size_step
    if words.amount:
        size = max(step, words.amount // step * step)
    elif position is not None:
        size = max(step, position.size * words.share // step * step)
    else:
        size = _smallest(world, symbol, world.require_trading(symbol))
    command = _command(
        account,
        symbol,
        _side(words.side, position),
        size,
        _client_id(scene, FOREIGN_PREFIX),
        position,
    )
    return _at_once(world, accept_futures_order(world, account, command))


def _leftover(scene: _Scene) -> bool:
    """A limit order far from the price, with the client id prefix of another time or program."""
    world, account = scene.world, scene.account
    symbol = scene.symbol()
    tick = world.futures_rules(symbol).price_step
    price = world.require_trading(symbol) * _FAR // tick * tick
    size = _smallest(world, symbol, price)
    client_id = _client_id(scene, LEFTOVER_PREFIX)
    command = _command(account, symbol, Side.BUY, size, client_id, None)
    accept_futures_order(world, account, replace(command, order_type=OrderType.LIMIT, price=price))
    return True


def _smallest(world: World, symbol: str, price: Decimal) -> Decimal:
    """The smallest size that the exchange takes at this price, with a lot to spare."""
    rules = world.futures_rules(symbol)
    lots = (rules.notional_min / price / rules.size_step).to_integral_value(ROUND_UP) + 1
    return max(rules.size_min, lots * rules.size_step)


def _foreign_cancel(scene: _Scene) -> bool:
    orders = scene.orders()
    for order in orders:
        cancel_by_id(scene.world, scene.account, order.market, order.order_id, None)
    return bool(orders)


def _client_id(scene: _Scene, prefix: str) -> str:
    """The prefix, the moment, and the number of the effect: no two are the same."""
    head = scene.words.client_id or prefix
    return f"{head}{scene.world.now_ms}-{scene.target.number}"


def _side(word: str, position: PositionRecord | None) -> Side:
    if word in ("buy", "sell"):
        return Side(word)
    long = position is None or position.side is PositionSide.LONG
    return Side.BUY if long == (word != "against") else Side.SELL


def _command(
    account: AccountState,
    symbol: str,
    side: Side,
    size: Decimal,
    client_id: str,
    position: PositionRecord | None,
) -> FuturesOrderCommand:
    """A market order; in hedge mode it builds its own side, or takes down the opposite one."""
    trade_side: TradeSide | None = None
    if account.position_mode is PositionMode.HEDGE:
        trade_side = TradeSide.OPEN
        if position is not None and position.side.sign != side.sign:
            trade_side = TradeSide.CLOSE
            side = Side.SELL if side is Side.BUY else Side.BUY
    return FuturesOrderCommand(
        symbol=symbol,
        side=side,
        order_type=OrderType.MARKET,
        size=size,
        trade_side=trade_side,
        client_id=client_id,
    )


# -- orders of the request --------------------------------------------------------------------


def _at_once(world: World, order: OrderRecord) -> bool:
    """It reaches the book in this very moment."""
    order.arrives_ms = world.now_ms
    world.push_arrival(order, world.now_ms)
    return True


def _settle(scene: _Scene) -> bool:
    waiting = [order for order in scene.orders() if not order.arrived]
    for order in waiting:
        _at_once(scene.world, order)
    return bool(waiting)


def _settle_and_close(scene: _Scene) -> bool:
    """The request's orders fill in full and what they have built is closed again."""
    orders = [order for order in scene.orders() if order.market is MarketType.FUTURES]
    filled = [
        order
        for order in orders
        if not order.closes and fill_by_force(scene.world, scene.account, order, order.remaining)
    ]
    if filled:
        _foreign_close(scene)
    return bool(filled)


def _fill_part(scene: _Scene) -> bool:
    """`share` of each order fills (on the lot), the rest is cancelled by the exchange."""
    world, changed = scene.world, False
    for order in scene.orders():
        if order.quote_sized:
            continue
        step = world.book_shape(order.market, order.symbol).size_step
        size = order.remaining * scene.words.share // step * step
        if 0 < size < order.remaining and fill_by_force(world, scene.account, order, size):
            end_order(world, scene.account, order, CancelReason.NO_LIQUIDITY)
            changed = True
    return changed


def _fill_order(scene: _Scene) -> bool:
    """Live orders fill in full, though the price has not come to them."""
    changed = False
    for order in scene.orders():
        if not order.quote_sized:
            changed |= fill_by_force(scene.world, scene.account, order, order.remaining)
    return changed


def _cancel_order(scene: _Scene) -> bool:
    orders = scene.orders()
    for order in orders:
        end_order(scene.world, scene.account, order, CancelReason.NO_LIQUIDITY)
    return bool(orders)


# -- positions and stops ----------------------------------------------------------------------


def _part(scene: _Scene, position: PositionRecord) -> Decimal:
    """`share` of a position, on the lot, at least one lot."""
    if scene.words.share == 1:
        return position.size
    step = scene.world.futures_rules(position.symbol).size_step
    return min(position.size, max(step, position.size * scene.words.share // step * step))


def _open_position(scene: _Scene) -> PositionRecord | None:
    """The position meant, where it trades now."""
    position = scene.position()
    if position is None or not scene.world.prices.is_trading(position.symbol, scene.world.now_ms):
        return None
    return position


def _foreign_close(scene: _Scene) -> bool:
    """Somebody closes `share` of a position at market."""
    position = _open_position(scene)
    if position is None:
        return False
    world, account, size = scene.world, scene.account, _part(scene, position)
    client_id = _client_id(scene, FOREIGN_PREFIX)
    command = closing_command(position, account.position_mode, size, client_id)
    order = build_order(world, account, command, source=OrderSource.MARKET)
    return _at_once(world, submit_order(world, account, order))


def _liquidate(scene: _Scene) -> bool:
    """The exchange takes `share` of a position, as if its margin did not suffice."""
    position = _open_position(scene)
    if position is None:
        return False
    kind = ForcedClose.BURST if scene.words.share == 1 else ForcedClose.REDUCE
    size = _part(scene, position)
    order = liquidation.force_close(scene.world, scene.account, position, size, kind)
    return order.filled_size > 0


def _deleverage(scene: _Scene) -> bool:
    position = _open_position(scene)
    if position is None:
        return False
    liquidation.deleverage(scene.world, scene.account, position, _part(scene, position))
    return True


def _take_profit(scene: _Scene) -> bool:
    """The take profit of a position fires now, wherever the price is."""
    for plan in list(scene.account.plans.values()):
        mine = scene.target.symbol in ("", plan.symbol)
        if mine and plan.protects is not None and plan.plan_type.takes_profit:
            plans.fire_at_once(scene.world, plan)
            return True
    return False


def _cancel_stops(scene: _Scene) -> bool:
    chosen = [
        plan
        for plan in scene.account.plans.values()
        if plan.protects is not None and scene.target.symbol in ("", plan.symbol)
    ]
    for plan in chosen:
        stops.cancel_plan(scene.world, scene.account, plan.plan_id, None)
    return bool(chosen)


def _leave_stop(scene: _Scene) -> bool:
    """The last stop of a position that is gone lives again: an orphan, bound to nothing."""
    world, account = scene.world, scene.account
    for plan in reversed(account.plan_history):
        if plan.protects is None or scene.target.symbol not in ("", plan.symbol):
            continue
        if (plan.symbol, plan.protects) in account.positions:
            continue
        orphan = replace(
            plan,
            plan_id=world.new_order_id(account.account_id, plan.market, plan.symbol),
            client_id=_client_id(scene, LEFTOVER_PREFIX),
            status=PlanStatus.LIVE,
            created_ms=world.now_ms,
            updated_ms=world.now_ms,
            execute_order_id="",
            fail_reason="",
        )
        account.plan_client_ids[orphan.client_id] = orphan.plan_id
        world.add_plan(account, orphan)
        return True
    return False


_EFFECTS: dict[FaultEffect, Callable[[_Scene], bool]] = {
    FaultEffect.DEBIT: _debit,
    FaultEffect.POSITION_MODE: _position_mode,
    FaultEffect.FOREIGN_ORDER: _foreign_order,
    FaultEffect.FOREIGN_CANCEL: _foreign_cancel,
    FaultEffect.FOREIGN_CLOSE: _foreign_close,
    FaultEffect.LEFTOVER: _leftover,
    FaultEffect.FILL_ORDER: _fill_order,
    FaultEffect.CANCEL_ORDER: _cancel_order,
    FaultEffect.FILL_PART: _fill_part,
    FaultEffect.SETTLE: _settle,
    FaultEffect.SETTLE_AND_CLOSE: _settle_and_close,
    FaultEffect.CANCEL_STOPS: _cancel_stops,
    FaultEffect.LEAVE_STOP: _leave_stop,
    FaultEffect.LIQUIDATE: _liquidate,
    FaultEffect.ADL: _deleverage,
    FaultEffect.TAKE_PROFIT: _take_profit,
}
