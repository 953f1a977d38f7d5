"""Money between an account's own wallets: out of one, into the other, in one ledger entry."""

from __future__ import annotations

from decimal import Decimal

from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import TransferRecord
from module.simulator.engine.engine_types import EngineRejected, MarketType, RejectReason
from module.simulator.engine.ledger import House, WalletKey
from module.simulator.engine.margin import money
from module.simulator.engine.spot_trading import spot_available
from module.simulator.engine.valuation import futures_balance
from module.simulator.engine.world import World, check_client_id

ZERO = Decimal(0)


def transfer_between(
    world: World,
    account: AccountState,
    source: MarketType,
    target: MarketType,
    coin: str,
    amount: Decimal,
    client_id: str | None,
) -> TransferRecord:
    """Move what is free; the same client id again answers with the first transfer."""
    if client_id is not None:
        check_client_id(client_id)
        for known in account.transfers:
            if known.client_id == client_id:
                return known
    if source is target or coin != world.settings.settle_coin:
        raise EngineRejected(
            RejectReason.TRANSFER_TYPE_UNSUPPORTED,
            f"{coin} from {source.value} to {target.value}",
        )
    if not amount.is_finite() or amount <= 0 or money(amount) != amount:
        raise EngineRejected(RejectReason.VALUE_INVALID, f"amount {amount}")
    free = transferable(world, account, source, coin)
    if amount > free:
        raise EngineRejected(RejectReason.INSUFFICIENT_BALANCE, f"{amount} {coin} out of {free}")
    record = TransferRecord(
        transfer_id=world.new_id(),
        client_id=client_id or "",
        coin=coin,
        source=source,
        target=target,
        amount=amount,
        at_ms=world.now_ms,
    )
    giver = WalletKey(account.account_id, source, coin)
    taker = WalletKey(account.account_id, target, coin)
    world.ledger.move(
        world.now_ms,
        "transfer",
        record.transfer_id,
        ((giver, House.OUTSIDE, -amount), (taker, House.OUTSIDE, amount)),
    )
    for wallet, word, change in (
        (giver, "trans_to_exchange", -amount),
        (taker, "trans_from_exchange", amount),
    ):
        world.add_bill(account, wallet, symbol="", business_type=word, amount=change, fee=ZERO)
    account.transfers.append(record)
    return record


def transferable(world: World, account: AccountState, wallet: MarketType, coin: str) -> Decimal:
    """What may leave a wallet now, to the ledger's step.

    The profit in it has more decimals than the balance that a client is shown and sends back.
    """
    if wallet is MarketType.SPOT:
        return spot_available(world, account, coin)
    if coin != world.settings.settle_coin:
        return ZERO
    return money(futures_balance(world, account).available)
