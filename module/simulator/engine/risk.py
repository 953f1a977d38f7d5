"""Money that moves without an order: deposits, withdrawals, funding.

engine -> transfer (commands), settle_funding (at each settlement of a symbol somebody holds)
"""

from __future__ import annotations

from decimal import Decimal

from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_types import (
    EngineRejected,
    MarginMode,
    MarketType,
    RejectReason,
)
from module.simulator.engine.ledger import House, WalletKey
from module.simulator.engine.liquidation import cover
from module.simulator.engine.margin import funding_payment, money
from module.simulator.engine.spot_trading import spot_available
from module.simulator.engine.valuation import futures_balance, mark_of
from module.simulator.engine.world import World
from module.simulator.prices.market_source import FundingPoint

ZERO = Decimal(0)


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
        uncovered = ZERO
        if position.margin_mode is MarginMode.ISOLATED and payment < 0:
            uncovered = max(ZERO, -payment - position.isolated_margin)
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
        cover(world, account, uncovered, symbol)
        world.risky_accounts.add(account_id)
        world.stir(account)
