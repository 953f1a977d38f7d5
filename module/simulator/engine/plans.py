"""Trigger orders: plan orders are placed here, and every kind of plan fires here.

A plan fires when a new price reaches its trigger. A stop then sends a closing order whose client
id is the plan's id; a plan order goes through the same acceptance as any other order and may be
refused there (fail_execute). In a gap of the data nothing fires.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord, PlanRecord
from module.simulator.engine.engine_types import (
    EngineRejected,
    FuturesOrderCommand,
    MarketType,
    OrderSource,
    OrderType,
    PlanOrderCommand,
    PlanStatus,
    PlanType,
    PositionMode,
    PositionSide,
    RejectReason,
    Side,
    TradeSide,
    TriggerType,
)
from module.simulator.engine.order_checks import check_futures_shape, check_price_step
from module.simulator.engine.order_entry import (
    accept_futures_order,
    build_order,
    check_mode,
    closing_command,
    submit_order,
)
from module.simulator.engine.spot_plans import fire_spot_plan
from module.simulator.engine.stops import checked_callback_ratio, claim_new_plan_client_id
from module.simulator.engine.world import World

_SOURCES = {
    PlanType.POS_PROFIT: (OrderSource.POS_PROFIT_MARKET, OrderSource.POS_PROFIT_LIMIT),
    PlanType.POS_LOSS: (OrderSource.POS_LOSS_MARKET, OrderSource.POS_LOSS_LIMIT),
    PlanType.PROFIT_PLAN: (OrderSource.PROFIT_MARKET, OrderSource.PROFIT_LIMIT),
    PlanType.LOSS_PLAN: (OrderSource.LOSS_MARKET, OrderSource.LOSS_LIMIT),
    PlanType.NORMAL_PLAN: (OrderSource.PLAN_MARKET, OrderSource.PLAN_LIMIT),
    PlanType.TRACK_PLAN: (OrderSource.TRACK_MARKET, OrderSource.PLAN_LIMIT),
    PlanType.MOVING_PLAN: (OrderSource.TRACK_MARKET, OrderSource.LOSS_LIMIT),
}


def place_plan_order(world: World, account: AccountState, command: PlanOrderCommand) -> PlanRecord:
    """Accept a normal_plan or track_plan; margin is looked at when it fires, not before."""
    order = command.order
    rules = world.futures_rules(order.symbol)
    if command.plan_type not in (PlanType.NORMAL_PLAN, PlanType.TRACK_PLAN):
        raise EngineRejected(
            RejectReason.PLAN_TYPE_UNSUPPORTED, f"{command.plan_type.value} is no trigger order"
        )
    claim_new_plan_client_id(account, order.client_id)
    check_mode(order, account.position_mode)
    hedge = account.position_mode is PositionMode.HEDGE
    closes = order.trade_side is TradeSide.CLOSE if hedge else order.reduce_only
    check_futures_shape(rules, order, closes=closes)
    check_price_step(command.trigger_price, rules.price_step, "trigger price")
    callback: Decimal | None = None
    if command.plan_type.trails:
        callback = checked_callback_ratio(command.callback_ratio, "callbackRatio")
        if order.order_type is not OrderType.MARKET:
            raise EngineRejected(RejectReason.VALUE_INVALID, "orderType of a track_plan: market")
    world.require_trading(order.symbol)
    present = world.trigger_price(order.symbol, command.trigger_type)
    plan_id = world.new_order_id(account.account_id, MarketType.FUTURES, order.symbol)
    plan = PlanRecord(
        plan_id=plan_id,
        client_id=order.client_id or plan_id,
        account_id=account.account_id,
        symbol=order.symbol,
        plan_type=command.plan_type,
        trigger_price=command.trigger_price,
        trigger_type=command.trigger_type,
        fires_above=command.trigger_price > present,
        side=order.side,
        position_side=_shown_side(order, hedge=hedge),
        trade_side=order.trade_side,
        protects=None,
        position_mode=account.position_mode,
        margin_mode=order.margin_mode or world.leverage_of(account, order.symbol).margin_mode,
        order_type=order.order_type,
        size=order.size,
        price=order.price,
        execute_price=None,
        reduce_only=order.reduce_only,
        callback_ratio=callback,
        take_profit=order.take_profit,
        stop_loss=order.stop_loss,
        force=order.force,
        created_ms=world.now_ms,
        updated_ms=world.now_ms,
        stp_mode=order.stp_mode,
    )
    account.plan_client_ids[plan.client_id] = plan_id
    world.add_plan(account, plan)
    return plan


def _shown_side(order: FuturesOrderCommand, *, hedge: bool) -> PositionSide:
    if not hedge:
        return PositionSide.NET
    return PositionSide.LONG if order.side is Side.BUY else PositionSide.SHORT


def fire_plans(world: World, symbol: str) -> None:
    """Look at every live plan of `symbol` against the present price."""
    if not world.plans.get(symbol) or not world.prices.is_trading(symbol, world.now_ms):
        return
    prices = {kind: world.trigger_price(symbol, kind) for kind in TriggerType}
    for plan in list(world.plans[symbol].values()):
        if plan.status is PlanStatus.LIVE and _reached(plan, prices[plan.trigger_type]):
            _fire(world, world.accounts[plan.account_id], plan)


def _reached(plan: PlanRecord, price: Decimal) -> bool:
    if plan.best_price is None:
        hit = price >= plan.trigger_price if plan.fires_above else price <= plan.trigger_price
        if not hit:
            return False
        if plan.callback_ratio is None:
            return True
        plan.best_price = price
        return False
    # an activated trailing plan: a sale follows the price up and fires on the way down
    ratio = plan.callback_ratio or Decimal(0)
    if _really_sells(plan):
        plan.best_price = max(plan.best_price, price)
        return price <= plan.best_price * (1 - ratio)
    plan.best_price = min(plan.best_price, price)
    return price >= plan.best_price * (1 + ratio)


def _really_sells(plan: PlanRecord) -> bool:
    return (plan.side is Side.SELL) != (plan.trade_side is TradeSide.CLOSE)


def fire_at_once(world: World, plan: PlanRecord) -> None:
    """Fire a live plan wherever the price is (scripted faults)."""
    _fire(world, world.accounts[plan.account_id], plan)


def _fire(world: World, account: AccountState, plan: PlanRecord) -> None:
    try:
        world.trigger_gate(plan)
        order = _order_of(world, account, plan)
    except EngineRejected as error:
        plan.status = PlanStatus.FAIL_EXECUTE
        plan.fail_reason = str(error)
    else:
        plan.status = PlanStatus.EXECUTED
        plan.execute_order_id = order.order_id
        order.plan_id = plan.plan_id
    world.drop_plan(account, plan)


def _order_of(world: World, account: AccountState, plan: PlanRecord) -> OrderRecord:
    """The order that a fired plan makes; refused as any order may be."""
    if plan.market is MarketType.SPOT:
        return fire_spot_plan(world, account, plan)
    if plan.protects is not None:
        return _fire_stop(world, account, plan)
    return _fire_plan(world, account, plan)


def _fire_stop(world: World, account: AccountState, plan: PlanRecord) -> OrderRecord:
    """A closing order for the position (or the stop's part of it)."""
    side = plan.protects
    position = account.positions.get((plan.symbol, side)) if side is not None else None
    if position is None:
        raise EngineRejected(RejectReason.NO_POSITION, f"plan {plan.plan_id} protects nothing")
    size = position.size if plan.size is None else min(plan.size, position.size)
    command = replace(
        closing_command(position, account.position_mode, size, plan.plan_id),
        stp_mode=plan.stp_mode,
    )
    market_source, limit_source = _SOURCES[plan.plan_type]
    source = market_source
    if plan.execute_price is not None:
        command = replace(command, order_type=OrderType.LIMIT, price=plan.execute_price)
        source = limit_source
    return submit_order(world, account, build_order(world, account, command, source=source))


def _fire_plan(world: World, account: AccountState, plan: PlanRecord) -> OrderRecord:
    """The order that the plan has been waiting with."""
    market_source, limit_source = _SOURCES[plan.plan_type]
    market = plan.order_type is OrderType.MARKET
    command = FuturesOrderCommand(
        symbol=plan.symbol,
        side=plan.side,
        order_type=plan.order_type,
        size=plan.size or Decimal(0),
        price=plan.price,
        force=plan.force,
        trade_side=plan.trade_side,
        reduce_only=plan.reduce_only,
        margin_mode=plan.margin_mode,
        client_id=plan.plan_id,
        take_profit=plan.take_profit,
        stop_loss=plan.stop_loss,
        stp_mode=plan.stp_mode,
    )
    source = market_source if market else limit_source
    return accept_futures_order(world, account, command, source)
