"""Spot orders that wait for a price: TP/SL orders (they lock their coins) and trigger orders.

engine -> place, modify, cancel;  plans.fire_plans -> fire_spot_plan -> spot_trading
"""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_DOWN, Decimal

from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord, PlanRecord
from module.simulator.engine.engine_types import (
    CancelReason,
    EngineRejected,
    MarketType,
    ModifyPlanCommand,
    OrderSource,
    OrderType,
    PlanStatus,
    PlanType,
    RejectReason,
    Side,
    SpotOrderCommand,
    SpotPlanCommand,
)
from module.simulator.engine.execution import end_order
from module.simulator.engine.order_checks import check_price_step, check_size_max
from module.simulator.engine.order_entry import find_order
from module.simulator.engine.spot_stops import build_plan, end_waiting, register
from module.simulator.engine.spot_trading import (
    accept_spot_order,
    check_shape,
    needed_coins,
    require_coins,
)
from module.simulator.engine.stops import claim_new_plan_client_id
from module.simulator.engine.world import World

ZERO = Decimal(0)
PRICE_REACH = 1000
"""No waiting order names a price further away than this many times the last one."""


def place_spot_plan(world: World, account: AccountState, command: SpotPlanCommand) -> PlanRecord:
    """Accept a spot order that waits; a TP/SL order locks what it will spend."""
    order = command.order
    rules = world.spot_rules(order.symbol)
    if command.locks and order.client_id is not None:
        world.claim_client_id(account.client_ids, MarketType.SPOT, order.client_id)
    elif not command.locks:
        claim_new_plan_client_id(account, order.client_id)
    _check_words(world, command)
    check_price_step(command.trigger_price, rules.price_step, "trigger price")
    last = world.require_trading(order.symbol)
    for price in (command.trigger_price, order.price):
        if price is not None and price > last * PRICE_REACH:
            raise EngineRejected(RejectReason.VALUE_INVALID, f"price {price} with {last} now")
    locked = ZERO
    if command.locks:
        reference = order.price or command.trigger_price
        coin, locked = needed_coins(rules, order, reference)
        require_coins(world, account, coin, locked)
    plan = build_plan(world, account, command, locked)
    register(world, account, plan)
    return plan


def _check_words(world: World, command: SpotPlanCommand) -> None:
    order = command.order
    rules = world.spot_rules(order.symbol)
    if order.order_type is OrderType.LIMIT and order.price is None:
        raise EngineRejected(RejectReason.PARAMETER_MISSING, "executePrice")
    market_buy = order.order_type is OrderType.MARKET and order.side is Side.BUY
    if command.in_quote == market_buy or command.locks:
        check_shape(rules, order)
        return
    # a trigger order may count the other coin; what it buys is counted when it fires
    if not command.in_quote:
        check_size_max(order.size, rules.size_max)
    if command.in_quote and order.side is Side.SELL:
        raise EngineRejected(RejectReason.VALUE_INVALID, "planType total of a sale")
    if order.price is not None:
        check_price_step(order.price, rules.price_step, "price")


def modify_spot_plan(
    world: World,
    account: AccountState,
    command: ModifyPlanCommand,
    plan_id: str | None,
    client_id: str | None,
) -> PlanRecord:
    """Change a waiting trigger order; a refused change leaves it as it was."""
    plan = find_spot_plan(account, plan_id, client_id)
    order_type = command.new_order_type or plan.order_type
    price = command.new_execute_price or plan.price if order_type is OrderType.LIMIT else None
    trigger = command.new_trigger_price or plan.trigger_price
    order = SpotOrderCommand(
        plan.symbol, plan.side, order_type, command.new_size or plan.size or ZERO, price
    )
    _check_words(world, SpotPlanCommand(order, trigger, in_quote=plan.in_quote))
    check_price_step(trigger, world.spot_rules(plan.symbol).price_step, "trigger price")
    plan.order_type, plan.size, plan.price = order_type, order.size, price
    plan.execute_price = price
    plan.trigger_price = trigger
    plan.fires_above = trigger > world.trigger_price(plan.symbol, plan.trigger_type)
    plan.updated_ms = world.now_ms
    return plan


def find_spot_plan(
    account: AccountState,
    plan_id: str | None,
    client_id: str | None,
    kind: PlanType = PlanType.SPOT_PLAN,
) -> PlanRecord:
    """A waiting spot plan by id or client id; PLAN_UNKNOWN otherwise."""
    if kind is PlanType.SPOT_TPSL:
        found = account.client_ids.get((MarketType.SPOT, client_id or ""))
    else:
        found = account.plan_client_ids.get(client_id or "")
    plan = account.plans.get(plan_id or found or "")
    if plan is None or plan.plan_type is not kind:
        raise EngineRejected(RejectReason.PLAN_UNKNOWN, f"no waiting {plan_id or client_id!r}")
    return plan


def cancel_spot_plan(
    world: World,
    account: AccountState,
    plan_id: str | None,
    client_id: str | None,
    kind: PlanType = PlanType.SPOT_PLAN,
) -> PlanRecord:
    """End a waiting spot plan; its coins are free again."""
    plan = find_spot_plan(account, plan_id, client_id, kind)
    end_waiting(world, account, plan, PlanStatus.CANCELLED)
    return plan


def fire_spot_plan(world: World, account: AccountState, plan: PlanRecord) -> OrderRecord:
    """The order that a reached plan makes; a TP/SL order keeps its id, its sibling ends."""
    plan.locked = ZERO
    sibling = account.plans.get(plan.sibling_id)
    if sibling is not None:
        sibling.locked = ZERO
        sibling.sibling_id = plan.sibling_id = ""
        end_waiting(world, account, sibling, PlanStatus.CANCELLED)
    market = plan.order_type is OrderType.MARKET
    tpsl = plan.plan_type is PlanType.SPOT_TPSL
    command = SpotOrderCommand(
        symbol=plan.symbol,
        side=plan.side,
        order_type=plan.order_type,
        size=_order_size(world, plan),
        price=None if market else plan.price,
        force=plan.force,
        client_id=None if tpsl else plan.plan_id,
        stp_mode=plan.stp_mode,
    )
    source = OrderSource.PLAN_MARKET if market else OrderSource.PLAN_LIMIT
    if tpsl:
        source = OrderSource.LOSS_MARKET if market else OrderSource.LOSS_LIMIT
        if plan.fires_above == (plan.side is Side.SELL):
            source = OrderSource.PROFIT_MARKET if market else OrderSource.PROFIT_LIMIT
    order = accept_spot_order(world, account, command, source, waited=plan if tpsl else None)
    order.trigger_price = plan.trigger_price if tpsl else None
    return order


def _order_size(world: World, plan: PlanRecord) -> Decimal:
    """The plan's size in the unit that its order counts."""
    size = plan.size or ZERO
    if plan.side is Side.SELL or plan.plan_type is PlanType.SPOT_TPSL:
        return size
    rules = world.spot_rules(plan.symbol)
    market = plan.order_type is OrderType.MARKET
    if market and not plan.in_quote:
        last = world.prices.require_last(plan.symbol, world.now_ms)
        return (size * last).quantize(Decimal(1).scaleb(-rules.quote_precision), ROUND_DOWN)
    if not market and plan.in_quote and plan.price:
        lots = (size / plan.price / rules.size_step).to_integral_value(ROUND_DOWN)
        return lots * rules.size_step
    return size


def replace_spot_order(
    world: World,
    account: AccountState,
    wanted: SpotOrderCommand,
    order_id: str | None,
    client_id: str | None,
) -> OrderRecord:
    """Accept the new order with the old one out of the way; a refusal leaves the old one live."""
    order = find_order(account, MarketType.SPOT, order_id, client_id)
    if order.status.is_terminal or order.symbol != wanted.symbol:
        raise EngineRejected(
            RejectReason.ORDER_DONE, f"{order.order_id} of {order.symbol}: {order.status.value}"
        )
    before = account.open_orders
    account.open_orders = {key: other for key, other in before.items() if other is not order}
    command = replace(wanted, side=order.side, order_type=OrderType.LIMIT, force=order.force)
    try:
        replacement = accept_spot_order(world, account, command)
    except EngineRejected:
        account.open_orders = before
        raise
    end_order(world, account, order, CancelReason.MODIFIED)
    return replacement
