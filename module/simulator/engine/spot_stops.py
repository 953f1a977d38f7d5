"""Take profits and stop losses of spot purchases: waiting sales that lock the coins bought.

execution (a spot order is over) -> here -> plans of the world -> spot_plans (fires them)

Both wait for one amount of coins: the first holds the lock, and when one of them ends, the lock
goes to the other, or both end because one has fired.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord, PlanRecord
from module.simulator.engine.engine_types import (
    Force,
    MarketType,
    OrderType,
    PlanStatus,
    PlanType,
    PositionSide,
    PresetStop,
    Side,
    SpotPlanCommand,
)
from module.simulator.engine.world import World

ZERO = Decimal(0)


def attach_presets(world: World, account: AccountState, order: OrderRecord) -> None:
    """The attached stops of a purchase that is over wait for the price now."""
    if order.side is not Side.BUY or (order.take_profit is None and order.stop_loss is None):
        return
    step = world.spot[order.symbol].size_step
    bought = order.filled_size + order.fee
    size = (bought / step).to_integral_value(ROUND_DOWN) * step
    if size <= 0:
        return
    made = [
        _sale(world, account, order, preset, size)
        for preset in (order.take_profit, order.stop_loss)
        if preset is not None
    ]
    made[0].locked = size
    if len(made) == 2:
        made[0].sibling_id, made[1].sibling_id = made[1].plan_id, made[0].plan_id


def _sale(
    world: World, account: AccountState, order: OrderRecord, preset: PresetStop, size: Decimal
) -> PlanRecord:
    plan_id = world.new_order_id(account.account_id, MarketType.SPOT, order.symbol)
    plan = PlanRecord(
        plan_id=plan_id,
        client_id=plan_id,
        account_id=account.account_id,
        symbol=order.symbol,
        plan_type=PlanType.SPOT_TPSL,
        trigger_price=preset.trigger_price,
        trigger_type=preset.trigger_type,
        fires_above=preset is order.take_profit,
        side=Side.SELL,
        position_side=PositionSide.NET,
        trade_side=None,
        protects=None,
        position_mode=account.position_mode,
        margin_mode=order.margin_mode,
        order_type=OrderType.MARKET if preset.execute_price is None else OrderType.LIMIT,
        size=size,
        price=preset.execute_price,
        execute_price=preset.execute_price,
        reduce_only=False,
        callback_ratio=None,
        take_profit=None,
        stop_loss=None,
        force=Force.GTC,
        created_ms=world.now_ms,
        updated_ms=world.now_ms,
        market=order.market,
    )
    register(world, account, plan)
    return plan


def register(world: World, account: AccountState, plan: PlanRecord) -> None:
    """A spot plan waits; a TP/SL order shares the client ids of orders."""
    if plan.plan_type is PlanType.SPOT_TPSL:
        account.client_ids[plan.market, plan.client_id] = plan.plan_id
    else:
        account.plan_client_ids[plan.client_id] = plan.plan_id
    world.add_plan(account, plan)


def build_plan(
    world: World, account: AccountState, command: SpotPlanCommand, locked: Decimal
) -> PlanRecord:
    """The record of a spot plan that has passed its checks."""
    order = command.order
    plan_id = world.new_order_id(account.account_id, MarketType.SPOT, order.symbol)
    present = world.trigger_price(order.symbol, command.trigger_type)
    return PlanRecord(
        plan_id=plan_id,
        client_id=order.client_id or plan_id,
        account_id=account.account_id,
        symbol=order.symbol,
        plan_type=PlanType.SPOT_TPSL if command.locks else PlanType.SPOT_PLAN,
        trigger_price=command.trigger_price,
        trigger_type=command.trigger_type,
        fires_above=command.trigger_price > present,
        side=order.side,
        position_side=PositionSide.NET,
        trade_side=None,
        protects=None,
        position_mode=account.position_mode,
        margin_mode=world.settings.default_margin_mode,
        order_type=order.order_type,
        size=order.size,
        price=order.price,
        execute_price=order.price,
        reduce_only=False,
        callback_ratio=None,
        take_profit=None,
        stop_loss=None,
        force=order.force,
        created_ms=world.now_ms,
        updated_ms=world.now_ms,
        stp_mode=order.stp_mode,
        market=MarketType.SPOT,
        locked=locked,
        in_quote=command.in_quote,
    )


def end_waiting(world: World, account: AccountState, plan: PlanRecord, status: PlanStatus) -> None:
    """A waiting plan is over. Cancelled: its sibling takes the lock; executed: it ends too."""
    plan.status = status
    locked, plan.locked = plan.locked, ZERO
    world.drop_plan(account, plan)
    sibling = account.plans.get(plan.sibling_id)
    if sibling is None:
        return
    sibling.sibling_id = ""
    if status is PlanStatus.CANCELLED:
        sibling.locked += locked
    else:
        sibling.locked = ZERO
        sibling.status = PlanStatus.CANCELLED
        world.drop_plan(account, sibling)
