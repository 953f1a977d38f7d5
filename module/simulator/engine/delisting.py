"""The end of a contract while others go on: orders and plans end, positions are settled.

    engine (at the first moment after the symbol's last minute) -> settle

Positions close at the last price, without a fee, as orders of source delivery_close_long or
delivery_close_short; bills have the ordinary words of closing. Coins of a spot pair stay in their
wallets. New orders are refused from then on (SYMBOL_NOT_LISTED).
"""

from __future__ import annotations

from module.simulator.engine import spot_stops, stops
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import PlanRecord
from module.simulator.engine.engine_types import CancelReason, MarketType, PlanStatus
from module.simulator.engine.execution import end_order
from module.simulator.engine.liquidation import settle_position
from module.simulator.engine.world import World


def settle(world: World, symbol: str) -> None:
    """End everything of `symbol`, account by account; nothing to do where nobody cares."""
    price = world.prices.last(symbol, world.now_ms)
    for account in world.accounts.values():
        for order in list(account.open_orders.values()):
            if order.symbol == symbol:
                end_order(world, account, order, CancelReason.SUSPENDED)
        for position in account.positions_of(symbol):
            if price is not None:
                settle_position(world, account, position, price)
                world.risky_accounts.add(account.account_id)
        for plan in list(account.plans.values()):
            if plan.symbol == symbol and plan.plan_id in account.plans:
                _end_plan(world, account, plan)


def _end_plan(world: World, account: AccountState, plan: PlanRecord) -> None:
    if plan.market is MarketType.SPOT:
        spot_stops.end_waiting(world, account, plan, PlanStatus.CANCELLED)
    else:
        stops.cancel_plan(world, account, plan.plan_id, None)
