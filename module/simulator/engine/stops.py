"""Take profits and stop losses of positions: place, move, attach, cancel.

pos_profit and pos_loss cover the whole position; there is one of each kind per position side and
placing again moves it under the same id. They vanish with their position. Firing is in `plans`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import PlanRecord, PositionRecord
from module.simulator.engine.engine_types import (
    CancelReason,
    EngineRejected,
    Force,
    HoldSide,
    MarketType,
    ModifyPlanCommand,
    OrderType,
    PlanStatus,
    PlanType,
    PositionMode,
    PositionSide,
    PositionStopCommand,
    PresetStop,
    RejectReason,
    Side,
    TradeSide,
)
from module.simulator.engine.order_checks import (
    check_preset_steps,
    check_price_step,
    check_size_step,
)
from module.simulator.engine.world import World, check_client_id

CALLBACK_RATIO_MAX = Decimal("0.1")
_WRONG_SIDE = {
    (True, PositionSide.LONG): RejectReason.STOP_TAKE_PROFIT_LONG,
    (True, PositionSide.SHORT): RejectReason.STOP_TAKE_PROFIT_SHORT,
    (False, PositionSide.LONG): RejectReason.STOP_LOSS_LONG,
    (False, PositionSide.SHORT): RejectReason.STOP_LOSS_SHORT,
}


@dataclass(frozen=True, slots=True)
class _CheckedStop:
    """A stop that may be placed."""

    command: PositionStopCommand
    position: PositionRecord
    existing: PlanRecord | None
    size: Decimal | None
    callback: Decimal | None


def place_position_stop(
    world: World, account: AccountState, command: PositionStopCommand
) -> PlanRecord:
    """Protect an open position, or move the pos_* stop that it has."""
    return place_position_stops(world, account, (command,))[0]


def place_position_stops(
    world: World, account: AccountState, commands: Sequence[PositionStopCommand]
) -> list[PlanRecord]:
    """Place or move several stops; one that is refused keeps all of them back."""
    checked = [_check_stop(world, account, command) for command in commands]
    return [_place_checked(world, account, stop) for stop in checked]


def _check_stop(world: World, account: AccountState, command: PositionStopCommand) -> _CheckedStop:
    rules = world.futures_rules(command.symbol)
    if not command.plan_type.protects_position:
        raise EngineRejected(
            RejectReason.PLAN_TYPE_UNSUPPORTED, f"{command.plan_type.value} protects no position"
        )
    side = _position_side(account, command.hold_side)
    position = account.positions.get((command.symbol, side))
    if position is None:
        raise EngineRejected(
            RejectReason.NO_POSITION, f"no {side.value} position of {command.symbol} to protect"
        )
    preset = PresetStop(command.trigger_price, command.execute_price, command.trigger_type)
    check_preset_steps(preset, rules.price_step)
    _check_side(world, command.symbol, side, command.plan_type, preset)
    callback = _checked_callback(command)
    size: Decimal | None = None
    if not command.plan_type.whole_position:
        size = _checked_part(world, position, command.size)
    existing = _whole_stop(account, command.symbol, side, command.plan_type)
    _claim_plan_client_id(account, command.client_id, existing)
    return _CheckedStop(command, position, existing, size, callback)


def _place_checked(world: World, account: AccountState, stop: _CheckedStop) -> PlanRecord:
    command, existing = stop.command, stop.existing
    preset = PresetStop(command.trigger_price, command.execute_price, command.trigger_type)
    if existing is not None:
        _move(world, existing, preset)
        if command.client_id:
            existing.client_id = command.client_id
            account.plan_client_ids[command.client_id] = existing.plan_id
        return existing
    plan = _create_stop(
        world, account, stop.position, command.plan_type, preset, stop.size, command.client_id
    )
    plan.callback_ratio = stop.callback
    plan.stp_mode = command.stp_mode
    return plan


def _checked_callback(command: PositionStopCommand) -> Decimal | None:
    """moving_plan needs its callback ratio and always executes at market."""
    if not command.plan_type.trails:
        return None
    if command.execute_price is not None:
        raise EngineRejected(
            RejectReason.VALUE_INVALID, "executePrice: a moving_plan executes at market"
        )
    return checked_callback_ratio(command.callback_ratio, "rangeRate")


def checked_callback_ratio(ratio: Decimal | None, name: str) -> Decimal:
    """A trailing plan's callback: more than 0, at most 10 %."""
    if ratio is None:
        raise EngineRejected(RejectReason.PARAMETER_MISSING, name)
    if not 0 < ratio <= CALLBACK_RATIO_MAX:
        raise EngineRejected(RejectReason.VALUE_INVALID, f"{name} {ratio}")
    return ratio


def attach_presets(
    world: World,
    account: AccountState,
    position: PositionRecord,
    take_profit: PresetStop | None,
    stop_loss: PresetStop | None,
) -> None:
    """Turn an order's attached stops into the position's stops, or move those it has."""
    for plan_type, preset in ((PlanType.POS_PROFIT, take_profit), (PlanType.POS_LOSS, stop_loss)):
        if preset is None:
            continue
        existing = _whole_stop(account, position.symbol, position.side, plan_type)
        if existing is None:
            _create_stop(world, account, position, plan_type, preset, None, None)
        elif _differs(existing, preset):
            _move(world, existing, preset)


def _differs(plan: PlanRecord, preset: PresetStop) -> bool:
    return (plan.trigger_price, plan.trigger_type, plan.execute_price) != (
        preset.trigger_price,
        preset.trigger_type,
        preset.execute_price,
    )


def cancel_stops_of(world: World, account: AccountState, symbol: str, side: PositionSide) -> None:
    """The position is gone: its stops go with it."""
    for plan in list(account.plans.values()):
        if plan.symbol == symbol and plan.protects is side:
            _cancel(world, account, plan)


def plan_failed(account: AccountState, plan_id: str, reason: CancelReason) -> None:
    """The market order of a fired plan found nothing to trade with: the plan has failed."""
    for plan in reversed(account.plan_history):
        if plan.plan_id == plan_id:
            plan.status = PlanStatus.FAIL_EXECUTE
            plan.fail_reason = reason.value
            return


def find_plan(account: AccountState, plan_id: str | None, client_id: str | None) -> PlanRecord:
    """A live plan by id or client id; PLAN_UNKNOWN otherwise."""
    key = plan_id or account.plan_client_ids.get(client_id or "")
    plan = account.plans.get(key or "")
    if plan is None:
        raise EngineRejected(RejectReason.PLAN_UNKNOWN, f"no live plan {plan_id or client_id!r}")
    return plan


def cancel_plan(
    world: World, account: AccountState, plan_id: str | None, client_id: str | None
) -> PlanRecord:
    """Cancel a live stop or plan order."""
    plan = find_plan(account, plan_id, client_id)
    _cancel(world, account, plan)
    return plan


def _cancel(world: World, account: AccountState, plan: PlanRecord) -> None:
    plan.status = PlanStatus.CANCELLED
    world.drop_plan(account, plan)


def modify_plan(
    world: World,
    account: AccountState,
    command: ModifyPlanCommand,
    plan_id: str | None,
    client_id: str | None,
) -> PlanRecord:
    """Change trigger, size or price of a live plan; a refused change leaves it as it was."""
    plan = find_plan(account, plan_id, client_id)
    rules = world.futures_rules(plan.symbol)
    trigger = command.new_trigger_price or plan.trigger_price
    trigger_type = command.new_trigger_type or plan.trigger_type
    for price in (trigger, command.new_execute_price, command.new_price):
        if price:
            check_price_step(price, rules.price_step, "price")
    if plan.protects is not None:
        wanted = PresetStop(trigger, trigger_type=trigger_type)
        _check_side(world, plan.symbol, plan.protects, plan.plan_type, wanted)
        fires_above = plan.fires_above
    else:
        fires_above = trigger > world.trigger_price(plan.symbol, trigger_type)
    callback = plan.callback_ratio
    if command.new_callback_ratio is not None and callback is not None:
        callback = checked_callback_ratio(command.new_callback_ratio, "newCallbackRatio")
    presets = _changed_presets(plan, command, rules.price_step)
    size = plan.size
    if command.new_size is not None and not plan.plan_type.whole_position:
        if plan.protects is not None:
            position = account.positions[plan.symbol, plan.protects]
            size = _checked_part(world, position, command.new_size)
        else:
            check_size_step(command.new_size, rules.size_step, rules.size_min)
            size = command.new_size
    plan.size = size
    plan.fires_above = fires_above
    plan.price = command.new_price if command.new_price is not None else plan.price
    plan.callback_ratio = callback
    plan.take_profit, plan.stop_loss = presets
    plan.order_type = command.new_order_type or plan.order_type
    execute_price = (
        command.new_execute_price if command.new_execute_price is not None else plan.execute_price
    )
    _move(world, plan, PresetStop(trigger, execute_price, trigger_type))
    return plan


def _changed_presets(
    plan: PlanRecord, command: ModifyPlanCommand, step: Decimal
) -> tuple[PresetStop | None, PresetStop | None]:
    """Take profit and stop loss of a plan order after a change; trigger price 0 takes one off."""
    presets = [plan.take_profit, plan.stop_loss]
    for index, new in enumerate((command.new_take_profit, command.new_stop_loss)):
        if new is not None and new.trigger_price:
            check_preset_steps(new, step)
            presets[index] = new
        elif new is not None:
            presets[index] = None
    return presets[0], presets[1]


def _move(world: World, plan: PlanRecord, wanted: PresetStop) -> None:
    plan.trigger_price = wanted.trigger_price
    plan.trigger_type = wanted.trigger_type
    plan.execute_price = wanted.execute_price or None
    plan.best_price = None
    plan.updated_ms = world.now_ms


def _position_side(account: AccountState, hold_side: HoldSide) -> PositionSide:
    words = (
        {HoldSide.LONG: PositionSide.LONG, HoldSide.SHORT: PositionSide.SHORT}
        if account.position_mode is PositionMode.HEDGE
        else {HoldSide.BUY: PositionSide.LONG, HoldSide.SELL: PositionSide.SHORT}
    )
    side = words.get(hold_side)
    if side is None:
        hedge = account.position_mode is PositionMode.HEDGE
        raise EngineRejected(
            RejectReason.HOLD_SIDE_INVALID_HEDGE if hedge else RejectReason.HOLD_SIDE_INVALID,
            f"holdSide {hold_side.value} does not fit position mode {account.position_mode.value}",
        )
    return side


def _check_side(
    world: World, symbol: str, side: PositionSide, plan_type: PlanType, stop: PresetStop
) -> None:
    """A stop loss lies on the losing side of its price, a take profit on the winning side."""
    trigger = stop.trigger_price
    mark = world.trigger_price(symbol, stop.trigger_type)
    wanted_above = plan_type.takes_profit == (side is PositionSide.LONG)
    if (trigger > mark) if wanted_above else (trigger < mark):
        return
    reason = _WRONG_SIDE[plan_type.takes_profit, side]
    relation = ">" if wanted_above else "<"
    raise EngineRejected(reason, f"trigger {trigger} must be {relation} mark price {mark}")


def _checked_part(world: World, position: PositionRecord, size: Decimal | None) -> Decimal:
    if size is None:
        raise EngineRejected(RejectReason.PARAMETER_MISSING, "size")
    rules = world.futures[position.symbol]
    check_size_step(size, rules.size_step, rules.size_min)
    if size > position.size:
        raise EngineRejected(
            RejectReason.STOP_SIZE_TOO_LARGE, f"{size} of a position of {position.size}"
        )
    return size


def _whole_stop(
    account: AccountState, symbol: str, side: PositionSide, plan_type: PlanType
) -> PlanRecord | None:
    if not plan_type.whole_position:
        return None
    for plan in account.plans.values():
        if plan.symbol == symbol and plan.protects is side and plan.plan_type is plan_type:
            return plan
    return None


def _claim_plan_client_id(
    account: AccountState, client_id: str | None, existing: PlanRecord | None
) -> None:
    if not client_id:
        return
    check_client_id(client_id)
    owner = account.plan_client_ids.get(client_id)
    if owner is not None and (existing is None or owner != existing.plan_id):
        raise EngineRejected(
            RejectReason.CLIENT_ID_DUPLICATE, f"client id {client_id} belongs to plan {owner}"
        )


def claim_new_plan_client_id(account: AccountState, client_id: str | None) -> None:
    """Refuse a malformed or used client id of a new plan."""
    _claim_plan_client_id(account, client_id, None)


def _create_stop(
    world: World,
    account: AccountState,
    position: PositionRecord,
    plan_type: PlanType,
    preset: PresetStop,
    size: Decimal | None,
    client_id: str | None,
) -> PlanRecord:
    plan_id = world.new_order_id(account.account_id, MarketType.FUTURES, position.symbol)
    long = position.side is PositionSide.LONG
    hedge = account.position_mode is PositionMode.HEDGE
    shown_buy = long if hedge else not long
    plan = PlanRecord(
        plan_id=plan_id,
        client_id=client_id or plan_id,
        account_id=account.account_id,
        symbol=position.symbol,
        plan_type=plan_type,
        trigger_price=preset.trigger_price,
        trigger_type=preset.trigger_type,
        fires_above=plan_type.takes_profit == long,
        side=Side.BUY if shown_buy else Side.SELL,
        position_side=position.side if hedge else PositionSide.NET,
        trade_side=TradeSide.CLOSE if hedge else None,
        protects=position.side,
        position_mode=account.position_mode,
        margin_mode=position.margin_mode,
        order_type=OrderType.MARKET,
        size=size,
        price=None,
        execute_price=preset.execute_price or None,
        reduce_only=True,
        callback_ratio=None,
        take_profit=None,
        stop_loss=None,
        force=Force.GTC,
        created_ms=world.now_ms,
        updated_ms=world.now_ms,
    )
    account.plan_client_ids[plan.client_id] = plan_id
    world.add_plan(account, plan)
    return plan
