"""What may be done with orders and positions that exist: cancel, modify, close, reverse.

engine -> here -> order_entry (a modified or reversed order goes through the same acceptance)
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from module.simulator.engine import order_checks
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord, PositionRecord
from module.simulator.engine.engine_types import (
    CancelReason,
    EngineRejected,
    FuturesOrderCommand,
    MarketType,
    ModifyOrderCommand,
    OrderSource,
    OrderType,
    PositionMode,
    PositionSide,
    PresetStop,
    RejectReason,
    Side,
    TradeSide,
)
from module.simulator.engine.execution import end_order
from module.simulator.engine.order_entry import (
    accept_futures_order,
    build_order,
    closing_command,
    find_order,
    make_room_to_reduce,
    submit_order,
)
from module.simulator.engine.valuation import mark_of, position_margin
from module.simulator.engine.world import World

CANCEL_REPEAT_MS = 1000
"""Within this time a second cancel of the same order has an answer of its own."""

# -- cancel -----------------------------------------------------------------------------------


def cancel_by_id(
    world: World,
    account: AccountState,
    market: MarketType,
    order_id: str | None,
    client_id: str | None,
) -> OrderRecord:
    """Cancel a live order at once; its attached stops end with it."""
    order = find_order(account, market, order_id, client_id)
    cancelled = order.cancel_reason is CancelReason.NORMAL_CANCEL
    if cancelled and world.now_ms - order.updated_ms < CANCEL_REPEAT_MS:
        raise EngineRejected(
            RejectReason.CANCEL_REPEATED, f"order {order.order_id} was cancelled just now"
        )
    _require_live(order)
    end_order(world, account, order, CancelReason.NORMAL_CANCEL)
    return order


def _require_live(order: OrderRecord) -> None:
    if order.status.is_terminal:
        raise EngineRejected(
            RejectReason.ORDER_DONE, f"order {order.order_id} is {order.status.value}"
        )


# -- modify -----------------------------------------------------------------------------------


def modify(
    world: World,
    account: AccountState,
    command: ModifyOrderCommand,
    order_id: str | None,
    client_id: str | None,
) -> OrderRecord:
    """Cancel and replace (new size and price) or change the attached stops in place.

    An attached stop with trigger price 0 is taken off.
    """
    order = find_order(account, MarketType.FUTURES, order_id, client_id)
    _require_live(order)
    if (command.new_size is None) != (command.new_price is None):
        raise EngineRejected(
            RejectReason.MODIFY_NEEDS_SIZE_AND_PRICE, "new size and new price go together"
        )
    take_profit = _changed_preset(order.take_profit, command.new_take_profit)
    stop_loss = _changed_preset(order.stop_loss, command.new_stop_loss)
    if command.new_size is None or command.new_price is None:
        return _modify_presets(world, order, take_profit, stop_loss)
    if command.new_client_id is None:
        raise EngineRejected(RejectReason.MODIFY_NEEDS_CLIENT_ID, "newClientOid is missing")
    if (command.new_size, command.new_price) == (order.size, order.price):
        raise EngineRejected(RejectReason.MODIFY_UNCHANGED, "size and price are the same")
    if order.order_type is OrderType.MARKET:
        raise EngineRejected(RejectReason.VALUE_INVALID, "a market order cannot be modified")
    wanted = replace(
        _command_of(order),
        size=command.new_size,
        price=command.new_price,
        client_id=command.new_client_id,
        take_profit=take_profit,
        stop_loss=stop_loss,
    )
    return _replace_order(world, account, order, wanted)


def _changed_preset(present: PresetStop | None, new: PresetStop | None) -> PresetStop | None:
    if new is None:
        return present
    return new if new.trigger_price else None


def _modify_presets(
    world: World,
    order: OrderRecord,
    take_profit: PresetStop | None,
    stop_loss: PresetStop | None,
) -> OrderRecord:
    if (take_profit, stop_loss) == (order.take_profit, order.stop_loss):
        raise EngineRejected(RejectReason.MODIFY_UNCHANGED, "nothing to change")
    command = replace(_command_of(order), take_profit=take_profit, stop_loss=stop_loss)
    rules = world.futures[order.symbol]
    order_checks.check_futures_shape(rules, command, closes=order.closes)
    reference = order.price or world.prices.require_last(order.symbol, world.now_ms)
    order_checks.check_preset_sides(command, order.direction, reference)
    order.take_profit = take_profit
    order.stop_loss = stop_loss
    order.updated_ms = world.now_ms
    return order


def _command_of(order: OrderRecord) -> FuturesOrderCommand:
    return FuturesOrderCommand(
        symbol=order.symbol,
        side=order.side,
        order_type=order.order_type,
        size=order.size,
        price=order.price,
        force=order.force,
        trade_side=order.trade_side,
        reduce_only=order.reduce_only and order.position_mode is PositionMode.ONE_WAY,
        take_profit=order.take_profit,
        stop_loss=order.stop_loss,
        stp_mode=order.stp_mode,
    )


def _replace_order(
    world: World, account: AccountState, order: OrderRecord, wanted: FuturesOrderCommand
) -> OrderRecord:
    """Accept the new order with the old one out of the way; a refusal leaves the old one live."""
    before = account.open_orders
    account.open_orders = {key: other for key, other in before.items() if other is not order}
    try:
        replacement = accept_futures_order(world, account, wanted)
    except EngineRejected:
        account.open_orders = before
        raise
    end_order(world, account, order, CancelReason.MODIFIED)
    return replacement


# -- close ------------------------------------------------------------------------------------


def close_all_positions(
    world: World,
    account: AccountState,
    symbol: str | None,
    hold_side: PositionSide | None,
) -> list[OrderRecord]:
    """Close exactly what is held, whatever minimum; orders that would also close it give way.

    One-way accounts have one position per symbol: the side is not looked at.
    """
    if symbol is not None:
        world.futures_rules(symbol)
    one_way = account.position_mode is PositionMode.ONE_WAY
    chosen = [
        position
        for position in account.positions.values()
        if symbol in (None, position.symbol) and (one_way or hold_side in (None, position.side))
    ]
    if not chosen:
        raise EngineRejected(RejectReason.NO_POSITION, "no position to close")
    made: list[OrderRecord] = []
    for position in chosen:
        make_room_to_reduce(world, account, position, position.size)
        command = closing_command(position, account.position_mode, position.size)
        made.append(submit_order(world, account, build_order(world, account, command)))
    return made


# -- reverse ----------------------------------------------------------------------------------


def reverse_position(
    world: World,
    account: AccountState,
    symbol: str,
    side: Side | None,
    size: Decimal | None,
    client_id: str | None,
) -> OrderRecord:
    """Close a position at market and open the same size on the other side.

    One-way: the whole position turns with one order, `size` is ignored. Hedge: `side` is the
    position's own (buy: a long), at most `size` of it turns. What the margin does not allow to
    open stays unopened: the position is closed all the same.
    """
    position = _position_to_reverse(world, account, symbol, side)
    if client_id is not None:
        world.claim_client_id(account.client_ids, MarketType.FUTURES, client_id)
    turned = position.size
    if account.position_mode is PositionMode.HEDGE:
        turned = min(position.size, size or position.size)
    order_checks.check_size_step(turned, world.futures[symbol].size_step)
    make_room_to_reduce(world, account, position, turned)
    closing = closing_command(position, account.position_mode, turned)
    freed = position_margin(position, mark_of(world, symbol)) * turned / position.size
    opening = FuturesOrderCommand(
        symbol=symbol,
        side=Side.SELL if position.side is PositionSide.LONG else Side.BUY,
        order_type=OrderType.MARKET,
        size=turned,
        client_id=client_id,
    )
    if account.position_mode is PositionMode.HEDGE:
        opening = replace(opening, trade_side=TradeSide.OPEN)
        made = _opened(world, account, opening, freed)
        first = closing if made is not None else replace(closing, client_id=client_id)
        closed = _submit(world, account, first)
        return made or closed
    # one order of twice the size closes and opens
    made = _opened(world, account, replace(opening, size=2 * turned), freed)
    return made or _submit(world, account, replace(closing, client_id=client_id))


def _position_to_reverse(
    world: World, account: AccountState, symbol: str, side: Side | None
) -> PositionRecord:
    world.futures_rules(symbol)
    world.require_trading(symbol)
    if account.position_mode is PositionMode.HEDGE:
        if side is None:
            raise EngineRejected(RejectReason.PARAMETER_MISSING, "side")
        wanted = PositionSide.LONG if side is Side.BUY else PositionSide.SHORT
        position = account.positions.get((symbol, wanted))
    else:
        position = next(iter(account.positions_of(symbol)), None)
    if position is None:
        raise EngineRejected(RejectReason.NOTHING_TO_REVERSE, f"no position of {symbol}")
    return position


def _opened(
    world: World, account: AccountState, command: FuturesOrderCommand, freed: Decimal
) -> OrderRecord | None:
    """The opening order, or None where it is not allowed; `freed` margin is on its way back."""
    try:
        return accept_futures_order(world, account, command, OrderSource.REVERSE, credit=freed)
    except EngineRejected:
        return None


def _submit(world: World, account: AccountState, command: FuturesOrderCommand) -> OrderRecord:
    order = build_order(world, account, command, source=OrderSource.REVERSE)
    return submit_order(world, account, order)
