"""What happens to accepted orders: they arrive, meet the book, fill, rest, end.

order_entry -> (latency) -> arrive -> fill_futures / fill_spot -> positions, ledger, bills
                              |-> rests -> match_symbol at every new price
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

from module.model.errors import require
from module.simulator.engine import spot_stops, stops
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord, PositionRecord
from module.simulator.engine.engine_types import (
    CancelReason,
    Force,
    MarketType,
    OrderStatus,
    OrderType,
    PositionSide,
    StpMode,
    TradeScope,
)
from module.simulator.engine.fills import fill_futures, fill_spot
from module.simulator.engine.margin import MONEY_STEP
from module.simulator.engine.order_book import best_ask, best_bid
from module.simulator.engine.world import World
from module.simulator.prices.market_source import MINUTE_MS

ZERO = Decimal(0)


def arrive(world: World, order: OrderRecord) -> None:
    """An accepted order reaches the book: it fills what crosses, then rests or ends."""
    if not world.prices.is_trading(order.symbol, world.now_ms):
        if world.is_over(order.symbol):
            account = world.accounts[order.account_id]
            end_order(world, account, order, CancelReason.SUSPENDED)
            return
        # a gap in the data: whatever can wait waits for the next minute
        world.push_arrival(order, world.now_ms - world.now_ms % MINUTE_MS + MINUTE_MS)
        return
    order.arrived = True
    account = world.accounts[order.account_id]
    if order.order_type is OrderType.MARKET:
        _take(world, account, order, None)
        end_order(world, account, order, CancelReason.NO_LIQUIDITY)
    else:
        _arrive_limit(world, account, order)


def _arrive_limit(world: World, account: AccountState, order: OrderRecord) -> None:
    price = _limit_price(order)
    crosses = _crosses(world, order, price)
    if order.force is Force.POST_ONLY and crosses:
        end_order(world, account, order, CancelReason.WOULD_TAKE)
        return
    if order.force is Force.FOK:
        last = world.prices.require_tradable(order.symbol, world.now_ms)
        shape = world.book_shape(order.market, order.symbol)
        found = world.book.available(shape, last, order.direction, world.now_ms, price)
        if found < order.remaining:
            end_order(world, account, order, CancelReason.UNFILLED_FOK)
            return
    if crosses:
        _take(world, account, order, price)
    if order.force is not Force.GTC and order.force is not Force.POST_ONLY:
        reason = (
            CancelReason.UNFILLED_IOC if order.force is Force.IOC else CancelReason.UNFILLED_FOK
        )
        end_order(world, account, order, reason)
    elif not order.status.is_terminal:
        if order.closes and _closable(account, order) == 0:
            end_order(world, account, order, CancelReason.NOTHING_TO_REDUCE)
        else:
            world.add_resting(order)


def match_symbol(world: World, symbol: str) -> None:
    """A new price: resting orders that it crosses fill as makers at their own price."""
    world.risky_accounts.update(account_id for account_id, _ in world.holders.get(symbol, ()))
    if not world.prices.is_trading(symbol, world.now_ms):
        return
    for order in list(world.resting.get(symbol, {}).values()):
        if order.status.is_terminal:
            continue
        price = _limit_price(order)
        if not _crosses(world, order, price):
            continue
        account = world.accounts[order.account_id]
        last = world.prices.require_tradable(symbol, world.now_ms)
        shape = world.book_shape(order.market, symbol)
        found = world.book.available(shape, last, order.direction, world.now_ms, price)
        size = min(found, order.remaining, _closable(account, order))
        if size > 0:
            world.book.take(shape, order.direction, size, world.now_ms)
            _fill(world, account, order, price, size, TradeScope.MAKER)
        if order.closes and _closable(account, order) == 0:
            end_order(world, account, order, CancelReason.NOTHING_TO_REDUCE)


def _limit_price(order: OrderRecord) -> Decimal:
    require(order.price is not None, f"limit order {order.order_id} has no price")
    return order.price if order.price is not None else ZERO


def _crosses(world: World, order: OrderRecord, price: Decimal) -> bool:
    last = world.prices.require_tradable(order.symbol, world.now_ms)
    step = world.book_shape(order.market, order.symbol).price_step
    if order.direction > 0:
        return price >= best_ask(last, step)
    return price <= best_bid(last, step)


def _closable(account: AccountState, order: OrderRecord) -> Decimal:
    """How much of `order` may still fill: for closing orders, what the position holds."""
    if not order.closes:
        return order.remaining
    side = order.position_side
    if side is PositionSide.NET:
        side = PositionSide.LONG if order.direction < 0 else PositionSide.SHORT
    position = account.positions.get((order.symbol, side))
    return min(order.remaining, position.size) if position is not None else ZERO


def _take(world: World, account: AccountState, order: OrderRecord, limit: Decimal | None) -> None:
    """Fill against the book, level by level, as a taker, as far as `limit` allows."""
    last = world.prices.require_tradable(order.symbol, world.now_ms)
    shape = world.book_shape(order.market, order.symbol)
    for price, level in world.book.levels(shape, last, order.direction, world.now_ms):
        if limit is not None and (price - limit) * order.direction > 0:
            return
        if order.stp_mode is not StpMode.NONE and not _may_pass_itself(
            world, account, order, price
        ):
            return
        if order.quote_sized:
            affordable = (order.remaining / price / shape.size_step).to_integral_value(ROUND_DOWN)
            size = min(level, affordable * shape.size_step)
        else:
            size = min(level, _closable(account, order))
        if size <= 0:
            return
        world.book.take(shape, order.direction, size, world.now_ms)
        _fill(world, account, order, price, size, TradeScope.TAKER)
        if order.status.is_terminal:
            return


def _may_pass_itself(
    world: World, account: AccountState, order: OrderRecord, price: Decimal
) -> bool:
    """Self-trade prevention: own resting orders at or before `price` end, or `order` does."""
    met = [
        other
        for other in world.resting.get(order.symbol, {}).values()
        if other.account_id == order.account_id
        and other.market is order.market
        and other.direction == -order.direction
        and (price - _limit_price(other)) * order.direction >= 0
    ]
    if not met:
        return True
    if order.stp_mode is not StpMode.CANCEL_TAKER:
        for other in met:
            end_order(world, account, other, CancelReason.SELF_TRADE)
    if order.stp_mode is StpMode.CANCEL_MAKER:
        return True
    end_order(world, account, order, CancelReason.SELF_TRADE)
    return False


def _fill(
    world: World,
    account: AccountState,
    order: OrderRecord,
    price: Decimal,
    size: Decimal,
    scope: TradeScope,
) -> None:
    """One execution: money and position first, then the order's own figures."""
    remaining = order.remaining
    locked = order.locked
    require(size > ZERO, f"order {order.order_id}: fill of {size}")
    if order.market is MarketType.SPOT:
        ended = None
        fill_spot(world, account, order, price, size, scope)
    else:
        ended = fill_futures(world, account, order, price, size, scope)
        world.risky_accounts.add(account.account_id)
    world.stir(account)
    order.updated_ms = world.now_ms
    left = order.remaining
    require(left >= 0, f"order {order.order_id}: filled beyond its size by {-left}")
    if left == 0:
        _finish(world, account, order, OrderStatus.FILLED)
    else:
        order.status = OrderStatus.PARTIALLY_FILLED
        order.locked = (locked * left / remaining).quantize(MONEY_STEP, rounding=ROUND_DOWN)
    if ended is not None:
        _cancel_closers(world, account, ended)
    if order.market is MarketType.FUTURES:
        _attach_stops(world, account, order)


def _cancel_closers(world: World, account: AccountState, ended: PositionRecord) -> None:
    """Orders that could only close a position end with it."""
    for order in account.live_orders(ended.symbol, MarketType.FUTURES):
        if order.closes and order.direction == -ended.side.sign:
            end_order(world, account, order, CancelReason.POSITION_CLOSED)


def _attach_stops(world: World, account: AccountState, order: OrderRecord) -> None:
    """Attached stops become stops of the position that the fill has built."""
    if order.closes or (order.take_profit is None and order.stop_loss is None):
        return
    side = PositionSide.LONG if order.direction > 0 else PositionSide.SHORT
    position = account.positions.get((order.symbol, side))
    if position is not None:
        stops.attach_presets(world, account, position, order.take_profit, order.stop_loss)


def end_order(
    world: World, account: AccountState, order: OrderRecord, reason: CancelReason
) -> None:
    """Cancel what is left of an order (nothing to do if it is over)."""
    if order.status.is_terminal:
        return
    if (
        order.quote_sized and order.filled_size > 0 and reason is CancelReason.NO_LIQUIDITY
    ):  # the rest of the quote amount buys less than one lot
        _finish(world, account, order, OrderStatus.FILLED)
        return
    order.cancel_reason = reason
    _finish(world, account, order, OrderStatus.CANCELED)
    fails = order.order_type is OrderType.MARKET and reason is not CancelReason.NORMAL_CANCEL
    if order.plan_id and fails and not order.filled_size:
        stops.plan_failed(account, order.plan_id, reason)


def _finish(world: World, account: AccountState, order: OrderRecord, status: OrderStatus) -> None:
    order.status = status
    order.locked = ZERO
    order.updated_ms = world.now_ms
    account.open_orders.pop(order.order_id, None)
    world.drop_resting(order)
    if order.market is MarketType.SPOT and order.filled_size:
        spot_stops.attach_presets(world, account, order)


def execute_at_once(world: World, account: AccountState, order: OrderRecord) -> None:
    """Fill a market order without latency (liquidation); what the book cannot take is cancelled."""
    require(order.forced is not None, "only the exchange's own orders skip the latency")
    order.arrived = True
    _take(world, account, order, None)
    end_order(world, account, order, CancelReason.NO_LIQUIDITY)


def execute_at_price(
    world: World, account: AccountState, order: OrderRecord, price: Decimal
) -> None:
    """Fill the exchange's own order whole at `price`, past the book (netting, settlement)."""
    require(order.forced is not None, "only the exchange's own orders pass the book")
    order.arrived = True
    _fill(world, account, order, price, order.size, TradeScope.TAKER)


def fill_by_force(world: World, account: AccountState, order: OrderRecord, size: Decimal) -> bool:
    """Fill `size` of a live order now, wherever the market is (scripted faults): a limit order at
    its own price, a market order at the best of the book. False where nothing may fill."""
    if order.status.is_terminal or not world.prices.is_trading(order.symbol, world.now_ms):
        return False
    size = min(size, _closable(account, order))
    if size <= 0:
        return False
    order.arrived = True
    if order.price is not None:
        _fill(world, account, order, order.price, size, TradeScope.MAKER)
        return True
    last = world.prices.require_tradable(order.symbol, world.now_ms)
    step = world.book_shape(order.market, order.symbol).price_step
    price = best_ask(last, step) if order.direction > 0 else best_bid(last, step)
    _fill(world, account, order, price, size, TradeScope.TAKER)
    return True
