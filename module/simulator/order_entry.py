"""How a futures order is accepted: mode, words, reduce-only rules, tier, margin; cancel, modify.

Acceptance reserves margin and answers at once; the order reaches the book one latency later
(`execution.arrive`). A refusal changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_UP, Decimal

from module.simulator import order_checks
from module.simulator.engine_records import OrderRecord, PositionRecord
from module.simulator.engine_types import (
    CancelReason,
    EngineRejected,
    FuturesOrderCommand,
    MarginMode,
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
from module.simulator.execution import end_order
from module.simulator.instruments import FuturesInstrument
from module.simulator.margin import MONEY_STEP
from module.simulator.valuation import closing_size, futures_balance
from module.simulator.world import AccountState, World

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class _Draft:
    """An order on its way to acceptance."""

    command: FuturesOrderCommand
    rules: FuturesInstrument
    direction: int
    closes: bool
    last: Decimal

    @property
    def position_side(self) -> PositionSide:
        """The side that the order's direction builds."""
        return PositionSide.LONG if self.direction > 0 else PositionSide.SHORT


def order_direction(command: FuturesOrderCommand, mode: PositionMode) -> int:
    """+1 or -1: what is really bought or sold (hedge close of a long: sent buy, really sold)."""
    closing = mode is PositionMode.HEDGE and command.trade_side is TradeSide.CLOSE
    return -command.side.sign if closing else command.side.sign


def check_mode(command: FuturesOrderCommand, mode: PositionMode) -> None:
    """tradeSide is needed in hedge mode and forbidden in one-way mode."""
    if (command.trade_side is not None) != (mode is PositionMode.HEDGE):
        raise EngineRejected(
            RejectReason.MODE_MISMATCH,
            "The order type for unilateral position must also be the unilateral position type.",
        )


def accept_futures_order(
    world: World,
    account: AccountState,
    command: FuturesOrderCommand,
    source: OrderSource | None = None,
) -> OrderRecord:
    """Check everything, reserve the margin, and send the order on its way."""
    rules = world.futures_rules(command.symbol)
    if command.client_id is not None:
        world.claim_client_id(account.client_ids, MarketType.FUTURES, command.client_id)
    check_mode(command, account.position_mode)
    hedge = account.position_mode is PositionMode.HEDGE
    closes = command.trade_side is TradeSide.CLOSE if hedge else command.reduce_only
    order_checks.check_futures_shape(rules, command, closes=closes)
    last = world.require_trading(command.symbol)
    direction = order_direction(command, account.position_mode)
    draft = _Draft(command, rules, direction, closes, last)
    if command.order_type is OrderType.LIMIT and command.price is not None:
        order_checks.check_band(command.price, last, rules.price_band)
    live = account.live_orders(command.symbol, MarketType.FUTURES)
    if len(live) >= world.settings.open_orders_max:
        raise EngineRejected(RejectReason.TOO_MANY_ORDERS, f"{len(live)} live orders")
    if closes:
        return _accept_closing(world, account, draft, source)
    return _accept_opening(world, account, draft, source)


def _accept_closing(
    world: World, account: AccountState, draft: _Draft, source: OrderSource | None
) -> OrderRecord:
    command = draft.command
    opposite = PositionSide.SHORT if draft.direction > 0 else PositionSide.LONG
    position = account.positions.get((command.symbol, opposite))
    if position is None:
        raise EngineRejected(
            RejectReason.NO_POSITION, f"no {opposite.value} position of {command.symbol} to reduce"
        )
    size = command.size
    if account.position_mode is PositionMode.HEDGE:
        size = _hedge_close_size(world, account, position, command)
    else:
        _make_room_to_reduce(world, account, position, command.size)
    order = build_order(world, account, replace(command, size=size), source=source)
    return submit_order(world, account, order)


def _hedge_close_size(
    world: World,
    account: AccountState,
    position: PositionRecord,
    command: FuturesOrderCommand,
) -> Decimal:
    """A market close takes what resting closes leave; if they leave nothing, it replaces them."""
    free = position.size - closing_size(account, position)
    limit = command.order_type is OrderType.LIMIT
    if command.size > position.size or (limit and command.size > free):
        raise EngineRejected(
            RejectReason.CLOSE_TOO_LARGE,
            f"close of {command.size} with {position.size} held and {free} not yet closing",
        )
    if command.size <= free:
        return command.size
    if free > 0:
        return free
    _make_room_to_reduce(world, account, position, command.size)
    return command.size


def _make_room_to_reduce(
    world: World, account: AccountState, position: PositionRecord, size: Decimal
) -> None:
    """Closing orders together may not exceed the position: the oldest give way first."""
    total = closing_size(account, position)
    for order in account.live_orders(position.symbol, MarketType.FUTURES):
        if total + size <= position.size:
            return
        if order.closes and order.direction == -position.side.sign:
            total -= order.remaining
            end_order(world, account, order, CancelReason.REPLACED_REDUCE_ONLY)


def _accept_opening(
    world: World, account: AccountState, draft: _Draft, source: OrderSource | None
) -> OrderRecord:
    command, rules = draft.command, draft.rules
    limit_price = command.price if command.order_type is OrderType.LIMIT else None
    reference = limit_price if limit_price is not None else draft.last
    order_checks.check_preset_sides(command, draft.direction, reference)
    order_checks.check_notional(command.size * reference, rules.notional_min)
    _settle_margin_mode(world, account, command, change=False)
    opening = _opening_part(account, draft)
    _check_tier(world, account, draft, opening, reference)
    lock = _required_margin(world, account, draft, opening, limit_price)
    balance = futures_balance(world, account)
    mode = command.margin_mode or world.leverage_of(account, command.symbol).margin_mode
    free = balance.max_available if mode is MarginMode.CROSSED else balance.available
    if lock > free:
        raise EngineRejected(
            RejectReason.INSUFFICIENT_MARGIN, f"needs {lock} USDT, {free} are available"
        )
    _settle_margin_mode(world, account, command, change=True)
    order = build_order(world, account, command, source=source)
    order.locked = lock
    order.opening_size = opening
    return submit_order(world, account, order)


def _settle_margin_mode(
    world: World, account: AccountState, command: FuturesOrderCommand, *, change: bool
) -> None:
    """An order in another margin mode switches an idle symbol, and is refused on a busy one."""
    settings = world.leverage_of(account, command.symbol)
    if command.margin_mode in (None, settings.margin_mode) or command.margin_mode is None:
        return
    busy = account.positions_of(command.symbol) or account.live_orders(
        command.symbol, MarketType.FUTURES
    )
    if busy:
        raise EngineRejected(
            RejectReason.MARGIN_MODE_MISMATCH,
            f"{command.symbol} is {settings.margin_mode.value}, the order says "
            f"{command.margin_mode.value}",
        )
    if change:
        settings.margin_mode = command.margin_mode


def _opening_part(account: AccountState, draft: _Draft) -> Decimal:
    """How much of a one-way order exceeds what it closes (hedge opens: all of it)."""
    command = draft.command
    if account.position_mode is PositionMode.HEDGE:
        return command.size
    opposite = PositionSide.SHORT if draft.direction > 0 else PositionSide.LONG
    position = account.positions.get((command.symbol, opposite))
    if position is None:
        return command.size
    pledged = sum(
        (
            order.remaining
            for order in account.live_orders(command.symbol, MarketType.FUTURES)
            if order.direction == draft.direction
        ),
        ZERO,
    )
    return max(ZERO, command.size - max(ZERO, position.size - pledged))


def _check_tier(
    world: World, account: AccountState, draft: _Draft, opening: Decimal, reference: Decimal
) -> None:
    """The position after the order may not need a tier that forbids the leverage."""
    command = draft.command
    leverage = world.leverage_of(account, command.symbol).effective(draft.position_side)
    held = account.positions.get((command.symbol, draft.position_side))
    notional = (opening + (held.size if held is not None else ZERO)) * reference
    tier = draft.rules.tier(notional)
    if opening > 0 and (leverage > tier.leverage or notional > draft.rules.tiers[-1].end):
        raise EngineRejected(
            RejectReason.POSITION_TIER_LIMIT,
            f"{notional} USDT of {command.symbol} allow leverage {tier.leverage}, not {leverage}",
        )


def _required_margin(
    world: World,
    account: AccountState,
    draft: _Draft,
    opening: Decimal,
    limit_price: Decimal | None,
) -> Decimal:
    """Notional / leverage + opening fee, at the limit price or at what the book would give."""
    if opening == 0:
        return ZERO
    command, rules = draft.command, draft.rules
    if limit_price is not None:
        price = limit_price
    else:
        shape = world.book_shape(MarketType.FUTURES, command.symbol)
        price = world.book.estimate(shape, draft.last, draft.direction, world.now_ms, command.size)
    leverage = world.leverage_of(account, command.symbol).effective(draft.position_side)
    notional = price * opening
    need = notional / leverage + notional * rules.taker_fee
    return need.quantize(MONEY_STEP, rounding=ROUND_UP)


def build_order(
    world: World,
    account: AccountState,
    command: FuturesOrderCommand,
    *,
    source: OrderSource | None = None,
) -> OrderRecord:
    """The record of an order that has passed its checks."""
    direction = order_direction(command, account.position_mode)
    hedge = account.position_mode is PositionMode.HEDGE
    closes = command.trade_side is TradeSide.CLOSE if hedge else command.reduce_only
    sent_side = PositionSide.LONG if command.side is Side.BUY else PositionSide.SHORT
    built = PositionSide.LONG if direction > 0 else PositionSide.SHORT
    opposite = PositionSide.SHORT if direction > 0 else PositionSide.LONG
    settings = world.leverage_of(account, command.symbol)
    market = command.order_type is OrderType.MARKET
    order_id = world.new_id()
    return OrderRecord(
        order_id=order_id,
        client_id=command.client_id or world.new_id(),
        account_id=account.account_id,
        market=MarketType.FUTURES,
        symbol=command.symbol,
        side=command.side,
        direction=direction,
        order_type=command.order_type,
        force=command.force,
        size=command.size,
        price=None if market else command.price,
        position_side=sent_side if hedge else PositionSide.NET,
        trade_side=command.trade_side,
        reduce_only=closes,
        margin_mode=settings.margin_mode,
        position_mode=account.position_mode,
        leverage=settings.effective(opposite if closes else built),
        source=source or (OrderSource.MARKET if market else OrderSource.NORMAL),
        take_profit=None if closes else command.take_profit,
        stop_loss=None if closes else command.stop_loss,
        created_ms=world.now_ms,
        updated_ms=world.now_ms,
        arrives_ms=world.now_ms + world.settings.latency_ms,
        fee_coin=world.settings.settle_coin,
    )


def submit_order(world: World, account: AccountState, order: OrderRecord) -> OrderRecord:
    """Enter an order into the account and send it on its way to the book."""
    account.orders[order.order_id] = order
    account.open_orders[order.order_id] = order
    account.client_ids[order.market, order.client_id] = order.order_id
    world.push_arrival(order, order.arrives_ms)
    return order


def closing_command(
    position: PositionRecord, mode: PositionMode, size: Decimal, client_id: str | None = None
) -> FuturesOrderCommand:
    """A market order that takes `size` off a position, in the words of either position mode."""
    long = position.side is PositionSide.LONG
    hedge = mode is PositionMode.HEDGE
    return FuturesOrderCommand(
        symbol=position.symbol,
        side=Side.BUY if long == hedge else Side.SELL,
        order_type=OrderType.MARKET,
        size=size,
        trade_side=TradeSide.CLOSE if hedge else None,
        reduce_only=not hedge,
        client_id=client_id,
    )


def close_all_positions(
    world: World,
    account: AccountState,
    symbol: str | None,
    hold_side: PositionSide | None,
) -> list[OrderRecord]:
    """Close exactly what is held, whatever minimum; orders that would also close it give way."""
    if symbol is not None:
        world.futures_rules(symbol)
    chosen = [
        position
        for position in account.positions.values()
        if symbol in (None, position.symbol) and hold_side in (None, position.side)
    ]
    if not chosen:
        raise EngineRejected(RejectReason.NO_POSITION, "no position to close")
    made: list[OrderRecord] = []
    for position in chosen:
        _make_room_to_reduce(world, account, position, position.size)
        command = closing_command(position, account.position_mode, position.size)
        made.append(submit_order(world, account, build_order(world, account, command)))
    return made


def find_order(
    account: AccountState, market: MarketType, order_id: str | None, client_id: str | None
) -> OrderRecord:
    """An order, live or over, by id or client id; ORDER_UNKNOWN otherwise."""
    key = order_id or account.client_ids.get((market, client_id or ""))
    order = account.orders.get(key or "")
    if order is None or order.market is not market:
        raise EngineRejected(RejectReason.ORDER_UNKNOWN, f"no order {order_id or client_id!r}")
    return order


def cancel_by_id(
    world: World,
    account: AccountState,
    market: MarketType,
    order_id: str | None,
    client_id: str | None,
) -> OrderRecord:
    """Cancel a live order at once."""
    order = find_order(account, market, order_id, client_id)
    _require_live(order)
    end_order(world, account, order, CancelReason.NORMAL_CANCEL)
    return order


def _require_live(order: OrderRecord) -> None:
    if order.status.is_terminal:
        raise EngineRejected(
            RejectReason.ORDER_DONE, f"order {order.order_id} is {order.status.value}"
        )


def modify(
    world: World,
    account: AccountState,
    command: ModifyOrderCommand,
    order_id: str | None,
    client_id: str | None,
) -> OrderRecord:
    """Cancel and replace (new size and price) or change the attached stops in place."""
    order = find_order(account, MarketType.FUTURES, order_id, client_id)
    _require_live(order)
    if (command.new_size is None) != (command.new_price is None):
        raise EngineRejected(
            RejectReason.MODIFY_NEEDS_SIZE_AND_PRICE, "new size and new price go together"
        )
    take_profit = command.new_take_profit or order.take_profit
    stop_loss = command.new_stop_loss or order.stop_loss
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
    )


def _replace_order(
    world: World, account: AccountState, order: OrderRecord, wanted: FuturesOrderCommand
) -> OrderRecord:
    """Accept the new order with the old one out of the way; a refusal leaves the old one live."""
    del account.open_orders[order.order_id]
    try:
        replacement = accept_futures_order(world, account, wanted)
    except EngineRejected:
        account.open_orders[order.order_id] = order
        account.open_orders = dict(sorted(account.open_orders.items()))
        raise
    account.open_orders[order.order_id] = order
    end_order(world, account, order, CancelReason.MODIFIED)
    return replacement
