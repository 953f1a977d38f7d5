"""Liquidation: what the exchange does to an account that no longer covers its maintenance.

    engine (prices, funding, fills have changed something) -> liquidate_where_due -> execution

As the venue's support pages describe it, at the mark, when the margin ratio reaches 100 %:

crossed    equity without isolated margins <= sum over symbols of notional x (maintenance rate +
           taker fee), of two hedged legs the larger one. Steps, each only while that still holds:
           1. every futures order of the account is cancelled, isolated ones too;
           2. hedged pairs are netted at the mark, without trade or fee (`offset_*`, `force_*`);
           3. the position that needs most is reduced by two tiers, again and again, until all are
              in tier 1 (`reduce_*`, `force_*`);
           4. the position that needs most is closed whole (`burst_*`), until the rest is covered.
isolated   margin + profit <= notional x (rate + fee): the orders of that position are cancelled
           and it is closed whole (the venue's partial steps leave isolated positions out).

Closing is a market order against the book at that moment, with the taker fee: what is left after
it stays with the trader, and what is missing is paid by the insurance fund, so that a wallet never
ends below zero and an isolated position never costs more than its own margin. What the book cannot
take (and a symbol in a gap of its data) waits for the next price. There is no auto-deleveraging but
the scripted one.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord, PositionRecord
from module.simulator.engine.engine_types import (
    CancelReason,
    ForcedClose,
    MarginMode,
    MarketType,
    OrderSource,
    PositionSide,
)
from module.simulator.engine.execution import end_order, execute_at_once, execute_at_price
from module.simulator.engine.ledger import House
from module.simulator.engine.margin import money
from module.simulator.engine.order_entry import build_order, closing_command
from module.simulator.engine.valuation import (
    crossed_requirements,
    crossed_risk,
    isolated_must_liquidate,
    mark_of,
)
from module.simulator.engine.world import World

ZERO = Decimal(0)
INSURANCE_BILL = "risk_captital_user_transfer"
"""Bitget's own spelling."""
TIERS_AT_ONCE = 2


def liquidate_where_due(world: World) -> None:
    """Check every account whose prices, positions or wallet have just changed."""
    while world.risky_accounts:
        account_id = min(world.risky_accounts)
        world.risky_accounts.discard(account_id)
        _check_account(world, world.accounts[account_id])
        world.risky_accounts.discard(account_id)


def _check_account(world: World, account: AccountState) -> None:
    for position in list(account.positions.values()):
        if (
            position.margin_mode is MarginMode.ISOLATED
            and world.prices.is_trading(position.symbol, world.now_ms)
            and isolated_must_liquidate(world, position)
        ):
            _liquidate_isolated(world, account, position)
    if crossed_risk(world, account).must_liquidate:
        _liquidate_crossed(world, account)
    if not account.positions:
        cover(world, account, -world.ledger.balance(world.futures_wallet(account)), "")


# -- isolated ---------------------------------------------------------------------------------


def _liquidate_isolated(world: World, account: AccountState, position: PositionRecord) -> None:
    """Close it; a loss beyond the position's own margin is not the account's."""
    for order in account.live_orders(position.symbol, MarketType.FUTURES):
        if _belongs_to(order, position):
            end_order(world, account, order, CancelReason.LIQUIDATION)
    margin_before, size_before = position.isolated_margin, position.size
    order = force_close(world, account, position, position.size, ForcedClose.BURST)
    at_stake = margin_before * order.filled_size / size_before
    loss = -(order.realized_pnl + order.fee)
    cover(world, account, money(loss - at_stake), position.symbol)


def _belongs_to(order: OrderRecord, position: PositionRecord) -> bool:
    """It opens or closes this position (one-way: any order of its symbol does)."""
    return order.position_side in (PositionSide.NET, position.side)


# -- crossed ----------------------------------------------------------------------------------


def _liquidate_crossed(world: World, account: AccountState) -> None:
    for order in list(account.open_orders.values()):
        if order.market is MarketType.FUTURES:
            end_order(world, account, order, CancelReason.LIQUIDATION)
    _net_pairs(world, account)
    _reduce_tiers(world, account)
    _close_rest(world, account)
    if not crossed_requirements(world, account):
        # nothing crossed is left: what is missing now would come out of isolated margins
        cover(world, account, -crossed_risk(world, account).equity, "")


def _neediest(world: World, account: AccountState) -> list[PositionRecord]:
    """Crossed positions that can trade now, those of the largest requirement first."""
    required = crossed_requirements(world, account)
    found = [
        position
        for position in account.positions.values()
        if position.margin_mode is MarginMode.CROSSED
        and world.prices.is_trading(position.symbol, world.now_ms)
    ]
    return sorted(found, key=lambda each: (-required[each.symbol], -each.size, each.position_id))


def _net_pairs(world: World, account: AccountState) -> None:
    for position in _neediest(world, account):
        if not crossed_risk(world, account).must_liquidate:
            return
        legs = account.positions_of(position.symbol)
        if len(legs) < 2:
            continue
        size = min(leg.size for leg in legs)
        mark = mark_of(world, position.symbol)
        for leg in legs:
            _close_at(world, account, leg, size, mark, ForcedClose.OFFSET)


def _reduce_tiers(world: World, account: AccountState) -> None:
    """Two tiers at a time, until every position is in the first one."""
    stuck: set[str] = set()
    while crossed_risk(world, account).must_liquidate:
        larger = [
            position
            for position in _neediest(world, account)
            if position.position_id not in stuck and _lower_tier_size(world, position) is not None
        ]
        if not larger:
            return
        position = larger[0]
        target = _lower_tier_size(world, position) or ZERO
        wanted = position.size - target
        order = force_close(world, account, position, wanted, ForcedClose.REDUCE)
        if order.filled_size < wanted:  # the book is empty: the rest waits for the next price
            stuck.add(position.position_id)


def _lower_tier_size(world: World, position: PositionRecord) -> Decimal | None:
    """The largest size in the tier two below the position's (at least 1); None in tier 1."""
    rules = world.futures[position.symbol]
    mark = mark_of(world, position.symbol)
    index = rules.tiers.index(rules.tier(mark * position.size))
    if index == 0:
        return None
    limit = rules.tiers[max(0, index - TIERS_AT_ONCE)].end  # not part of the tier itself
    lots = (limit / mark / rules.size_step).to_integral_value(ROUND_DOWN)
    if lots * rules.size_step * mark >= limit:
        lots -= 1
    return lots * rules.size_step if lots > 0 else None


def _close_rest(world: World, account: AccountState) -> None:
    for position in _neediest(world, account):
        if not crossed_risk(world, account).must_liquidate:
            return
        tier_one = _lower_tier_size(world, position) is None
        if tier_one:  # else the book could not take its reduction: at the next price
            force_close(world, account, position, position.size, ForcedClose.BURST)


# -- closing by force -------------------------------------------------------------------------


def force_close(
    world: World,
    account: AccountState,
    position: PositionRecord,
    size: Decimal,
    forced: ForcedClose,
) -> OrderRecord:
    """Market-close `size` at once; what the book cannot take stays for the next price."""
    order = _forced_order(world, account, position, size, forced)
    execute_at_once(world, account, order)
    return order


def _close_at(
    world: World,
    account: AccountState,
    position: PositionRecord,
    size: Decimal,
    price: Decimal,
    forced: ForcedClose,
) -> None:
    order = _forced_order(world, account, position, size, forced)
    execute_at_price(world, account, order, price)


def deleverage(
    world: World, account: AccountState, position: PositionRecord, size: Decimal
) -> None:
    """Close `size` at the mark against somebody else's liquidation (only when it is scripted)."""
    _close_at(world, account, position, size, mark_of(world, position.symbol), ForcedClose.ADL)


def settle_position(
    world: World, account: AccountState, position: PositionRecord, price: Decimal
) -> None:
    """The contract is over: the whole position closes at `price`, without fee."""
    _close_at(world, account, position, position.size, price, ForcedClose.DELIVERY)


def _forced_order(
    world: World,
    account: AccountState,
    position: PositionRecord,
    size: Decimal,
    forced: ForcedClose,
) -> OrderRecord:
    source = OrderSource.LIQUIDATION
    if forced is ForcedClose.DELIVERY:
        long = position.side is PositionSide.LONG
        source = OrderSource.DELIVERY_CLOSE_LONG if long else OrderSource.DELIVERY_CLOSE_SHORT
    command = closing_command(position, account.position_mode, size)
    order = build_order(world, account, command, source=source)
    order.forced = forced
    account.orders[order.order_id] = order
    account.client_ids[order.market, order.client_id] = order.order_id
    return order


def cover(world: World, account: AccountState, missing: Decimal, symbol: str) -> None:
    """The insurance fund pays a loss beyond what was at stake."""
    if missing <= 0:
        return
    wallet = world.futures_wallet(account)
    world.ledger.move(
        world.now_ms,
        INSURANCE_BILL,
        account.account_id,
        ((wallet, House.INSURANCE, missing),),
    )
    world.add_bill(
        account,
        wallet,
        symbol=symbol,
        business_type=INSURANCE_BILL,
        amount=missing,
        fee=ZERO,
    )
