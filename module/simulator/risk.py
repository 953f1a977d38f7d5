"""Money that moves without an order of the user: transfers, funding, liquidation, insurance."""

from __future__ import annotations

from decimal import Decimal

from module.simulator.engine_records import OrderRecord, PositionRecord
from module.simulator.engine_types import (
    CancelReason,
    EngineRejected,
    MarginMode,
    MarketType,
    OrderSource,
    RejectReason,
)
from module.simulator.execution import end_order, execute_at_once
from module.simulator.ledger import House, WalletKey
from module.simulator.margin import funding_payment, money
from module.simulator.market_source import FundingPoint
from module.simulator.order_entry import build_order, closing_command
from module.simulator.spot_trading import spot_available
from module.simulator.valuation import (
    crossed_requirements,
    crossed_risk,
    futures_balance,
    isolated_must_liquidate,
    mark_of,
)
from module.simulator.world import AccountState, World

ZERO = Decimal(0)
INSURANCE_BILL = "risk_captital_user_transfer"
"""Bitget's own spelling."""


def transfer(
    world: World, account: AccountState, wallet: MarketType, coin: str, amount: Decimal
) -> None:
    """Bring money in (negative: take it out, as far as it is free)."""
    if not amount.is_finite() or amount == 0 or money(amount) != amount:
        raise EngineRejected(RejectReason.VALUE_INVALID, f"amount {amount} of {coin}")
    if wallet is MarketType.FUTURES and coin != world.settings.settle_coin:
        raise EngineRejected(
            RejectReason.VALUE_INVALID, f"a futures wallet holds {world.settings.settle_coin}"
        )
    if amount < 0:
        free = (
            futures_balance(world, account).available
            if wallet is MarketType.FUTURES
            else spot_available(world, account, coin)
        )
        if -amount > free:
            raise EngineRejected(
                RejectReason.INSUFFICIENT_BALANCE, f"{-amount} {coin} out of {free}"
            )
    key = WalletKey(account.account_id, wallet, coin)
    what = "trans_from_exchange" if amount > 0 else "trans_to_exchange"
    world.ledger.move(world.now_ms, what, account.account_id, ((key, House.OUTSIDE, amount),))
    world.add_bill(account, key, symbol="", business_type=what, amount=amount, fee=ZERO)


def settle_funding(world: World, symbol: str, point: FundingPoint) -> None:
    """Every holder of `symbol` pays or receives notional at mark x rate; longs pay if rate > 0."""
    mark = mark_of(world, symbol)
    for (account_id, _), position in list(world.holders.get(symbol, {}).items()):
        account = world.accounts[account_id]
        payment = funding_payment(position.size, mark, point.rate, position.side.sign)
        if payment == 0:
            continue
        wallet = world.futures_wallet(account)
        position.funding += payment
        position.updated_ms = world.now_ms
        if position.margin_mode is MarginMode.ISOLATED and payment < 0:
            position.isolated_margin = max(ZERO, position.isolated_margin + payment)
        world.ledger.move(
            world.now_ms,
            "contract_settle_fee",
            position.position_id,
            ((wallet, House.FUNDING, payment),),
        )
        world.add_bill(
            account,
            wallet,
            symbol=symbol,
            business_type="contract_settle_fee",
            amount=payment,
            fee=ZERO,
        )
        world.risky_accounts.add(account_id)


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
        _cover(world, account, -world.ledger.balance(world.futures_wallet(account)), "")


def _liquidate_isolated(world: World, account: AccountState, position: PositionRecord) -> None:
    """Close it; a loss beyond the position's own margin is not the account's."""
    margin_before, size_before = position.isolated_margin, position.size
    order = _liquidate_position(world, account, position)
    at_stake = margin_before * order.filled_size / size_before
    loss = -(order.realized_pnl + order.fee)
    _cover(world, account, money(loss - at_stake), position.symbol)


def _liquidate_crossed(world: World, account: AccountState) -> None:
    """Cancel what is open, then close the position that needs most, until the rest is covered."""
    for order in list(account.open_orders.values()):
        if order.market is MarketType.FUTURES and order.margin_mode is MarginMode.CROSSED:
            end_order(world, account, order, CancelReason.LIQUIDATION)
    required = crossed_requirements(world, account)
    crossed = [
        position
        for position in account.positions.values()
        if position.margin_mode is MarginMode.CROSSED
    ]
    crossed.sort(key=lambda position: (-required[position.symbol], position.position_id))
    for position in crossed:
        if not crossed_risk(world, account).must_liquidate:
            return
        if world.prices.is_trading(position.symbol, world.now_ms):
            _liquidate_position(world, account, position)
    if not crossed_requirements(world, account):
        # nothing crossed is left: what is missing now would come out of isolated margins
        _cover(world, account, -crossed_risk(world, account).equity, "")


def _liquidate_position(
    world: World, account: AccountState, position: PositionRecord
) -> OrderRecord:
    """Market-close a position at once; what the book cannot take stays for the next price."""
    command = closing_command(position, account.position_mode, position.size)
    order = build_order(world, account, command, source=OrderSource.LIQUIDATION)
    account.orders[order.order_id] = order
    account.client_ids[order.market, order.client_id] = order.order_id
    execute_at_once(world, account, order)
    return order


def _cover(world: World, account: AccountState, missing: Decimal, symbol: str) -> None:
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
