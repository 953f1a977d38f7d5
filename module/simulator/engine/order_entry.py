"""How a futures order is accepted: mode, words, reduce-only rules, tier, margin.

Acceptance reserves margin and answers at once; the order reaches the book one latency later
(`execution.arrive`). A refusal changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_UP, Decimal

from module.simulator.engine import order_checks
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord, PositionRecord
from module.simulator.engine.engine_types import (
    CancelReason,
    EngineRejected,
    FuturesOrderCommand,
    MarketType,
    OrderSource,
    OrderType,
    PositionMode,
    PositionSide,
    RejectReason,
    Side,
    TradeSide,
)
from module.simulator.engine.execution import end_order
from module.simulator.engine.margin import MONEY_STEP
from module.simulator.engine.valuation import closing_size, free_margin
from module.simulator.engine.world import World
from module.simulator.prices.instruments import FuturesInstrument

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
    *,
    credit: Decimal = ZERO,
) -> OrderRecord:
    """Check everything, reserve the margin, and send the order on its way.

    `credit` is margin that another order of the same request is about to free.
    """
    rules = world.futures_rules(command.symbol)
    if command.client_id is not None:
        world.claim_client_id(account.client_ids, MarketType.FUTURES, command.client_id)
    check_mode(command, account.position_mode)
    hedge = account.position_mode is PositionMode.HEDGE
    closes = command.trade_side is TradeSide.CLOSE if hedge else command.reduce_only
    direction = order_direction(command, account.position_mode)
    opposite = PositionSide.SHORT if direction > 0 else PositionSide.LONG
    held = account.positions.get((command.symbol, opposite))
    whole = closes and held is not None and held.size == command.size
    order_checks.check_futures_shape(rules, command, closes=closes, whole=whole)
    last = world.require_trading(command.symbol)
    draft = _Draft(command, rules, direction, closes, last)
    if command.order_type is OrderType.LIMIT and command.price is not None:
        order_checks.check_band(command.price, last, rules.price_band)
    _check_counts(world, account, command.symbol)
    if closes:
        return _accept_closing(world, account, draft, source)
    return _accept_opening(world, account, draft, source, credit)


def _check_counts(world: World, account: AccountState, symbol: str) -> None:
    """Live orders of the symbol and of all contracts are limited."""
    of_symbol = len(account.live_orders(symbol, MarketType.FUTURES))
    settings = world.settings
    if of_symbol >= settings.open_orders_max:
        raise EngineRejected(RejectReason.TOO_MANY_ORDERS, f"{of_symbol} live orders of {symbol}")
    if len(account.open_orders) < settings.product_orders_max:
        return
    futures = [
        order for order in account.open_orders.values() if order.market is MarketType.FUTURES
    ]
    if len(futures) >= settings.product_orders_max:
        raise EngineRejected(RejectReason.TOO_MANY_ORDERS, f"{len(futures)} live orders")


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
        make_room_to_reduce(world, account, position, command.size)
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
    make_room_to_reduce(world, account, position, command.size)
    return command.size


def make_room_to_reduce(
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
    world: World,
    account: AccountState,
    draft: _Draft,
    source: OrderSource | None,
    credit: Decimal,
) -> OrderRecord:
    command, rules = draft.command, draft.rules
    limit_price = command.price if command.order_type is OrderType.LIMIT else None
    reference = limit_price if limit_price is not None else draft.last
    order_checks.check_preset_sides(command, draft.direction, reference)
    order_checks.check_notional(command.size * reference, rules.notional_min)
    _settle_margin_mode(world, account, command, change=False)
    opening = _opening_part(account, draft)
    _check_position_count(world, account, draft, opening)
    _check_tier(world, account, draft, opening, reference)
    lock = _required_margin(world, account, draft, opening, limit_price)
    mode = command.margin_mode or world.leverage_of(account, command.symbol).margin_mode
    free = free_margin(world, account, mode)
    if lock > free + credit:
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


def _check_position_count(
    world: World, account: AccountState, draft: _Draft, opening: Decimal
) -> None:
    held = len(account.positions)
    new = opening > 0 and (draft.command.symbol, draft.position_side) not in account.positions
    if new and held >= world.settings.positions_max:
        raise EngineRejected(RejectReason.TOO_MANY_POSITIONS, f"{held} positions are open")


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
    order_id = world.new_order_id(account.account_id, MarketType.FUTURES, command.symbol)
    return OrderRecord(
        order_id=order_id,
        client_id=command.client_id or order_id,
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
        stp_mode=command.stp_mode,
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


def find_order(
    account: AccountState, market: MarketType, order_id: str | None, client_id: str | None
) -> OrderRecord:
    """An order, live or over, by id or client id; ORDER_UNKNOWN otherwise."""
    key = order_id or account.client_ids.get((market, client_id or ""))
    order = account.orders.get(key or "")
    if order is None or order.market is not market:
        raise EngineRejected(RejectReason.ORDER_UNKNOWN, f"no order {order_id or client_id!r}")
    return order
