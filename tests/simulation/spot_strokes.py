"""What somebody else does to a spot account: by hand, in the same wallet, on a spot day.

spot_strokes(seed, …) ─► strokes, in order of time ─► WorldPlan; the engine's own orders and bills

The catalogue's effects on positions have no position to act on here; these are their siblings.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from module.model.money import round_down
from module.model.sessions import installation_prefix
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import (
    EngineRejected,
    MarketType,
    OrderType,
    PlanType,
    Side,
    SpotOrderCommand,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

QUOTE: Final = "USDT"
DEEDS: Final = {
    "buys": "A28",
    "sells half": "A28",
    "sells all": "A28",
    "leaves an order": "A29",
    "cancels the stops": "B10",
    "cancels the stops, and the price falls": "B6",
    "sends coins": "B13",
    "sends other coins": "B13",
}
"""What a person does, by the id of the catalogue that it stands for."""
HAND_USDT: Final = Decimal("210")


@dataclass(frozen=True, slots=True)
class HandStroke:
    """One deed, on one symbol of the session (of other coins: on one that is not among them)."""

    fault_id: str
    at_s: float
    deed: str
    symbol: str

    def apply(self, world: World) -> None:
        """It counts when the exchange took it."""
        try:
            done = self._do(world)
        except EngineRejected:
            return
        if done:
            world.hit(self.fault_id)

    def _do(self, world: World) -> bool:
        if self.deed.startswith("cancels"):
            return self._cancel_stops(world)
        if self.deed.startswith("sends"):
            return self._send(world)
        return self._order(world)

    def _order(self, world: World) -> bool:
        exchange, symbol = world.exchange, self.symbol
        engine = exchange.engine
        last, rules = engine.last_price(symbol), engine.world.spot[symbol]
        client_id = f"web-{world.hub.now_ms}"
        command = SpotOrderCommand(
            symbol, Side.BUY, OrderType.MARKET, HAND_USDT, client_id=client_id
        )
        if self.deed == "leaves an order":
            price = round_down(last * Decimal("0.97"), rules.price_step)
            size = round_down(HAND_USDT / price, rules.size_step)
            client_id = f"{installation_prefix('simulated')}older-{world.hub.now_ms}"
            command = SpotOrderCommand(
                symbol, Side.BUY, OrderType.LIMIT, size, price, client_id=client_id
            )
        elif self.deed.startswith("sells"):
            share = Decimal("0.5") if self.deed == "sells half" else Decimal(1)
            balances = engine.spot_balances(exchange.account_id)
            held = {each.coin + QUOTE: each.available for each in balances}.get(symbol, Decimal(0))
            size = round_down(held * share, rules.size_step)
            if not size:
                return False
            command = SpotOrderCommand(
                symbol, Side.SELL, OrderType.MARKET, size, client_id=client_id
            )
        exchange.act(lambda e: e.place_spot_order(exchange.account_id, command))
        return True

    def _cancel_stops(self, world: World) -> bool:
        """All trigger orders; with the price: the gateway stands still meanwhile, and of one
        stopped coin the price goes past where its stop was."""
        exchange = world.exchange
        waiting = [
            plan
            for plan in exchange.account.plans.values()
            if plan.plan_type is PlanType.SPOT_PLAN and plan.client_id.startswith("af-stop-")
        ]
        falls = self.deed.endswith("falls")
        if not waiting or (falls and not world.pause("gateway", 3.0)):
            return False
        for plan in waiting:
            exchange.act(partial(_cancel_plan, exchange.account_id, plan.plan_id))
        if falls:
            symbol = min(plan.symbol for plan in waiting)
            exchange.act(lambda e: e.jump_price(symbol, Decimal("0.93")))
        return True

    def _send(self, world: World) -> bool:
        symbol = self.symbol
        if self.deed == "sends other coins":
            listed = world.exchange.engine.spot_instruments()
            symbol = min(name for name in listed if name not in world.symbols)
        exchange = world.exchange
        price = exchange.engine.last_price(symbol)
        amount = round_down(HAND_USDT / price, Decimal("0.000001"))
        coin = symbol.removesuffix(QUOTE)
        exchange.act(lambda e: e.deposit(exchange.account_id, MarketType.SPOT, coin, amount))
        return True


def _cancel_plan(account_id: str, plan_id: str, engine: Engine) -> object:
    return engine.cancel_spot_plan(account_id, plan_id=plan_id)


def spot_strokes(
    seed: int, count: int, busy_s: float, symbols: tuple[str, ...], cycle_s: float
) -> list[HandStroke]:
    """So many deeds of a day, half of them while a cycle trades."""
    dice = Random(f"spot:{seed}")
    strokes = []
    for _ in range(count):
        deed = dice.choice(tuple(DEEDS))
        at_s = dice.uniform(40.0, max(41.0, busy_s))
        if dice.random() < 0.5:
            at_s += 30.0 - at_s % cycle_s + 15.0 * dice.random() ** 2
        strokes.append(HandStroke(DEEDS[deed], round(at_s, 3), deed, dice.choice(symbols)))
    return strokes
