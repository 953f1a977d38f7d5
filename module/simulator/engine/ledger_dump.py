"""The ledger of a world as text: equal worlds give equal bytes.

What is in it depends on nothing but what was traded: neither on the time that it is now, nor on
the order in which requests of one world moment came in.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from module.model.canonical import canonical_json
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import OrderRecord
from module.simulator.engine.engine_types import OrderStatus
from module.simulator.engine.world import World


def dump_ledger(world: World, until_ms: int | None = None) -> str:
    """Entries, balances and orders as canonical JSON, all of them or as they stood at `until_ms`.

    `entries`: [number, ms, what, reference, [[account, coin, amount], …]]; `balances`: [account,
    coin, amount]; `orders`: [account, order id, client id, status, filled size], by id.
    """
    last_ms = world.now_ms if until_ms is None else until_ms
    entries = [entry for entry in world.ledger.entries if entry.at_ms <= last_ms]
    balances: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal, world.ledger.opening)
    for entry in entries:
        for leg in entry.legs:
            balances[leg.account, leg.coin] += leg.amount
    return canonical_json(
        {
            "entries": [
                [
                    entry.number,
                    entry.at_ms,
                    entry.what,
                    entry.reference,
                    [[leg.account, leg.coin, leg.amount] for leg in entry.legs],
                ]
                for entry in entries
            ],
            "balances": [
                [account, coin, amount] for (account, coin), amount in sorted(balances.items())
            ],
            "orders": [
                [account_id, order.order_id, order.client_id, *_state_at(account, order, last_ms)]
                for account_id, account in sorted(world.accounts.items())
                for order in sorted(account.orders.values(), key=by_id)
                if order.created_ms <= last_ms
            ],
        }
    )


def by_id(order: OrderRecord) -> int:
    """Sorts orders as the exchange numbers them."""
    return int(order.order_id)


def _state_at(account: AccountState, order: OrderRecord, at_ms: int) -> tuple[str, Decimal]:
    """Status and filled size; of an order that changed later, what it had filled by then."""
    if order.updated_ms <= at_ms:
        return order.status, order.filled_size
    filled = sum(
        (
            fill.size
            for fill in account.fills
            if fill.order_id == order.order_id and fill.at_ms <= at_ms
        ),
        Decimal(0),
    )
    return (OrderStatus.PARTIALLY_FILLED if filled else OrderStatus.LIVE), filled
