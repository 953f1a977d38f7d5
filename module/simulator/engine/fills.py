"""The money and the positions of one execution: profit, fees, entry price, bills, history."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

from module.model.errors import require
from module.simulator.engine import stops
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import (
    ClosedPositionRecord,
    FillRecord,
    OrderRecord,
    PositionRecord,
)
from module.simulator.engine.engine_types import (
    ForcedClose,
    MarginMode,
    MarketType,
    OrderSource,
    PositionMode,
    PositionSide,
    Side,
    TradeScope,
    TradeSide,
)
from module.simulator.engine.ledger import House, WalletKey
from module.simulator.engine.margin import (
    FEE_STEP,
    average_entry,
    money,
    price_profit,
    truncated_fee,
    truncated_quote,
)
from module.simulator.engine.world import World

ZERO = Decimal(0)


def fill_futures(
    world: World,
    account: AccountState,
    order: OrderRecord,
    price: Decimal,
    size: Decimal,
    scope: TradeScope,
) -> PositionRecord | None:
    """Apply one futures execution: close what it closes, open the rest, move the money.

    Returns the position that has ended with it, if one has.
    """
    rules = world.futures[order.symbol]
    rate = rules.taker_fee if scope is TradeScope.TAKER else rules.maker_fee
    if order.forced is not None and not order.forced.trades:
        rate = ZERO
    fee = truncated_fee(price, size, rate)
    closing = _position_that_it_closes(account, order)
    closed_size = min(size, closing.size) if closing is not None else ZERO
    if order.closes:
        require(closed_size == size, f"order {order.order_id} would open {size - closed_size}")
    close_fee = truncated_fee(price, closed_size, rate)
    profit = ZERO
    ended: PositionRecord | None = None
    if closing is not None and closed_size > 0:
        profit = price_profit(closing.entry_price, price, closed_size, closing.side.sign)
        _reduce(world, closing, price, closed_size, profit, close_fee)
        if closing.size == 0:
            ended = closing
    if size > closed_size:
        _open(world, account, order, price, size - closed_size, fee - close_fee)
    fill = _record(world, account, order, price, size, scope, (fee, profit))
    wallet = world.futures_wallet(account)
    business_type = _business_type(order)
    world.ledger.move(
        world.now_ms,
        business_type,
        fill.trade_id,
        ((wallet, House.MARKET, profit), (wallet, House.FEES, -fee)),
    )
    world.add_bill(
        account,
        wallet,
        symbol=order.symbol,
        business_type=business_type,
        amount=profit,
        fee=-fee,
    )
    world.change_net(order.symbol, size * order.direction)
    if ended is not None:
        _end_position(world, account, ended, order)
    return ended


def _position_that_it_closes(account: AccountState, order: OrderRecord) -> PositionRecord | None:
    if order.position_mode is PositionMode.HEDGE:
        if order.trade_side is not TradeSide.CLOSE:
            return None
        return account.positions.get((order.symbol, order.position_side))
    side = PositionSide.SHORT if order.direction > 0 else PositionSide.LONG
    return account.positions.get((order.symbol, side))


def _reduce(
    world: World,
    position: PositionRecord,
    price: Decimal,
    size: Decimal,
    profit: Decimal,
    fee: Decimal,
) -> None:
    if position.margin_mode is MarginMode.ISOLATED:
        kept = position.isolated_margin * (position.size - size) / position.size
        position.isolated_margin = kept.quantize(FEE_STEP, rounding=ROUND_DOWN)
    position.size -= size
    position.achieved_profits += profit
    position.close_fee -= fee
    position.closed_size += size
    position.closed_cost += size * price
    position.updated_ms = world.now_ms


def _open(
    world: World,
    account: AccountState,
    order: OrderRecord,
    price: Decimal,
    size: Decimal,
    fee: Decimal,
) -> None:
    side = PositionSide.LONG if order.direction > 0 else PositionSide.SHORT
    position = account.positions.get((order.symbol, side))
    if position is None:
        settings = world.leverage_of(account, order.symbol)
        position = PositionRecord(
            position_id=world.new_id(),
            account_id=account.account_id,
            symbol=order.symbol,
            side=side,
            margin_mode=settings.margin_mode,
            leverage=settings.effective(side),
            size=size,
            entry_price=price,
            created_ms=world.now_ms,
            updated_ms=world.now_ms,
        )
        world.add_position(account, position)
    else:
        position.entry_price = average_entry(position.entry_price, position.size, price, size)
        position.size += size
        position.updated_ms = world.now_ms
    position.open_fee -= fee
    position.opened_size += size
    position.opened_cost += size * price
    if position.margin_mode is MarginMode.ISOLATED:
        added = price * size / position.leverage
        position.isolated_margin += added.quantize(FEE_STEP, rounding=ROUND_DOWN)


def _end_position(
    world: World, account: AccountState, position: PositionRecord, order: OrderRecord
) -> None:
    """The position is closed: write its history, forget its stops."""
    world.drop_position(account, position)
    stops.cancel_stops_of(world, account, position.symbol, position.side)
    total = position.achieved_profits + position.funding + position.open_fee + position.close_fee
    account.closed_positions.append(
        ClosedPositionRecord(
            position_id=position.position_id,
            account_id=account.account_id,
            symbol=position.symbol,
            side=position.side,
            margin_mode=position.margin_mode,
            position_mode=account.position_mode,
            open_average=position.opened_cost / position.opened_size,
            close_average=position.closed_cost / position.closed_size,
            open_total=position.opened_size,
            close_total=position.closed_size,
            pnl=position.achieved_profits,
            net_profit=total.quantize(FEE_STEP, rounding=ROUND_DOWN),
            funding=position.funding,
            open_fee=position.open_fee,
            close_fee=position.close_fee,
            created_ms=position.created_ms,
            closed_ms=world.now_ms,
            liquidated=order.source is OrderSource.LIQUIDATION,
        )
    )


_FORCED_WORDS = {
    ForcedClose.BURST: "burst_",
    ForcedClose.REDUCE: "force_",
    ForcedClose.OFFSET: "force_",
    ForcedClose.DELIVERY: "",
    ForcedClose.ADL: "adl_",
}


def _business_type(order: OrderRecord) -> str:
    """Bitget's word on the bill: buy/sell one-way, open_long … in hedge, burst_* liquidated.

    A liquidation in part (or netting) is force_*; a settled contract has the ordinary words.
    """
    if order.position_mode is PositionMode.ONE_WAY:
        word = "buy" if order.direction > 0 else "sell"
    else:
        action = "close" if order.trade_side is TradeSide.CLOSE else "open"
        word = f"{action}_{order.position_side.value}"
    return _FORCED_WORDS[order.forced] + word if order.forced is not None else word


def fill_spot(
    world: World,
    account: AccountState,
    order: OrderRecord,
    price: Decimal,
    size: Decimal,
    scope: TradeScope,
) -> None:
    """Apply one spot execution: coins change hands, the fee is taken from what is received."""
    rules = world.spot[order.symbol]
    rate = rules.taker_fee if scope is TradeScope.TAKER else rules.maker_fee
    base = WalletKey(account.account_id, MarketType.SPOT, rules.base_coin)
    quote = WalletKey(account.account_id, MarketType.SPOT, rules.quote_coin)
    cost = money(price * size)
    if order.side is Side.BUY:
        fee = truncated_fee(Decimal(1), size, rate)
        fee_wallet, received, paid = base, (base, size), (quote, -cost)
    else:
        fee = truncated_fee(price, size, rate)
        fee_wallet, received, paid = quote, (quote, cost), (base, -size)
    fill = _record(world, account, order, price, size, scope, (fee, ZERO))
    world.ledger.move(
        world.now_ms,
        f"spot_{order.side.value}",
        fill.trade_id,
        (
            (paid[0], House.MARKET, paid[1]),
            (received[0], House.MARKET, received[1]),
            (fee_wallet, House.FEES, -fee),
        ),
    )
    for (wallet, amount), taken in ((paid, ZERO), (received, -fee)):
        world.add_bill(
            account,
            wallet,
            symbol=order.symbol,
            business_type=order.side.value,
            amount=amount,
            fee=taken,
        )


def _record(
    world: World,
    account: AccountState,
    order: OrderRecord,
    price: Decimal,
    size: Decimal,
    scope: TradeScope,
    result: tuple[Decimal, Decimal],
) -> FillRecord:
    """Append the fill and add it to the order's own figures; `result` is (fee >= 0, profit)."""
    fee, profit = result
    quote_volume = truncated_quote(price, size)
    fill = FillRecord(
        trade_id=world.new_id(),
        order_id=order.order_id,
        client_id=order.client_id,
        account_id=account.account_id,
        market=order.market,
        symbol=order.symbol,
        side=order.side,
        direction=order.direction,
        price=price,
        size=size,
        quote_volume=quote_volume,
        fee=-fee,
        fee_coin=order.fee_coin,
        profit=profit,
        trade_side=order.trade_side,
        position_mode=order.position_mode,
        order_type=order.order_type,
        scope=scope,
        source=order.source,
        at_ms=world.now_ms,
        forced=order.forced,
    )
    account.fills.append(fill)
    order.filled_size += size
    order.filled_cost += price * size
    order.quote_volume += quote_volume
    order.fee -= fee
    order.realized_pnl += profit
    return fill
