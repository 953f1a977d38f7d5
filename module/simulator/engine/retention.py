"""Forgetting: an exchange keeps its records for 90 days, so that a world of many months fits.

    engine (the first moment of a new UTC day) -> forget -> histories, ledger, exposure log

What is kept is a function of world time alone: after any moment of a day, exactly the records of
`retention_days` before that day's midnight are left. Ledger entries that go become part of the
opening balances, so the books still add up. What is live (orders, plans, positions) stays.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import TypeVar

from module.simulator.engine.account_state import AccountState
from module.simulator.engine.world import World
from module.simulator.prices.market_source import DAY_MS

Record = TypeVar("Record")


def forget(world: World) -> None:
    """Drop what is older than the settings keep; called at least once a day of world time."""
    midnight_ms = world.now_ms - world.now_ms % DAY_MS
    before_ms = midnight_ms - world.settings.retention_days * DAY_MS
    world.ledger.fold(before_ms)
    world.exposure.forget_before(before_ms)
    for account in world.accounts.values():
        _cut(account.fills, before_ms, lambda fill: fill.at_ms)
        _cut(account.bills, before_ms, lambda bill: bill.at_ms)
        _cut(account.transfers, before_ms, lambda transfer: transfer.at_ms)
        _cut(account.closed_positions, before_ms, lambda closed: closed.closed_ms)
        _forget_orders(account, before_ms)
        _forget_plans(account, before_ms)


def _cut(records: list[Record], before_ms: int, moment: Callable[[Record], int]) -> list[Record]:
    """Remove the oldest records of a list that is in order of time; returns them."""
    count = bisect.bisect_left(records, before_ms, key=moment)
    gone = records[:count]
    del records[:count]
    return gone


def _forget_orders(account: AccountState, before_ms: int) -> None:
    gone = [
        order
        for order in account.orders.values()
        if order.status.is_terminal and order.updated_ms < before_ms
    ]
    for order in gone:
        del account.orders[order.order_id]
        key = (order.market, order.client_id)
        if account.client_ids.get(key) == order.order_id:
            del account.client_ids[key]


def _forget_plans(account: AccountState, before_ms: int) -> None:
    for plan in _cut(account.plan_history, before_ms, lambda plan: plan.updated_ms):
        if account.plan_client_ids.get(plan.client_id) == plan.plan_id:
            del account.plan_client_ids[plan.client_id]
        key = (plan.market, plan.client_id)
        if account.client_ids.get(key) == plan.plan_id:
            del account.client_ids[key]
