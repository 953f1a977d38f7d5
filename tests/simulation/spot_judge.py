"""The judge of a spot day: coins instead of positions, trigger orders instead of stops.

    Judge ─► SpotJudge            what opens, what was sent, what is held, what it is worth
    ProtectionWatch ─► SpotWatch  a coin is protected by a trigger order over all that can be sold

A purchase leaves in quote coin: what counts of a leg is which part of that money was spent. Coins
that the session has neither bought nor named are its owner's: nobody may touch them.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from module.model.money import round_down
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import FillRecord, OrderRecord, PlanRecord
from module.simulator.engine.engine_types import MarketType, PlanType, Side
from tests.simulation.exchange_side import Carried
from tests.simulation.judge import CAP_TOLERANCE, Judge
from tests.simulation.letters_seen import Document, PlannedSlice
from tests.simulation.protection_watch import ProtectionWatch

if TYPE_CHECKING:
    from tests.simulation.world import World

QUOTE: Final = "USDT"
LOSS_PREFIX: Final = "af-stop-l-"
STOP_PREFIX: Final = "af-stop-"
SPENT_TOLERANCE: Final = Decimal("0.1")
"""A purchase may differ so much from size × price: the price moves on its way."""
SETTLED_S: Final = 2.0
NEAR_MINIMUM: Final = Decimal("1.2")
"""A coin this close to its pair's minimum may count as dust or not: the price decides."""
ZERO: Final = Decimal(0)


class SpotJudge(Judge):
    """See the module's docstring."""

    market = MarketType.SPOT

    def __init__(self, world: World) -> None:
        self._sent: dict[str, Decimal] = {}
        super().__init__(world)

    @staticmethod
    def _protection_watch(world: World) -> ProtectionWatch:
        return SpotWatch(world)

    @staticmethod
    def _opens(words: Mapping[str, Any]) -> bool:
        return bool(words["side"] == "buy")

    def equity(self) -> Decimal:
        """Money, and coins at their last price."""
        held = coins(self._world)
        money = held.pop(QUOTE, ZERO)
        return money + sum((size * self.price(coin + QUOTE) for coin, size in held.items()), ZERO)

    def price(self, symbol: str) -> Decimal:
        """The last price."""
        return self._world.exchange.engine.last_price(symbol)

    def sizes(self) -> dict[str, Decimal]:
        """Coins that the session may touch."""
        return own_coins(self._world)

    # --- orders ----------------------------------------------------------------------------------

    def _check_order(self, carried: Carried, words: Mapping[str, Any]) -> None:
        self._sent[str(words.get("clientOid"))] = Decimal(str(words["size"]))
        super()._check_order(carried, words)

    def _compare(self, planned: PlannedSlice, words: Mapping[str, Any], client_id: str) -> None:
        """I3: what leaves is what the letter says; of a purchase the money that it is worth."""
        buys, size = words["side"] == "buy", Decimal(str(words["size"]))
        if (words["symbol"], buys) != (planned.symbol, planned.buys):
            self.violate("I3", f"order {client_id} left as {words}, planned was {planned}")
        elif not buys and size != planned.size:
            self.violate("I3", f"order {client_id} sells {size}, planned was {planned.size}")
        elif buys and not self.protection.misbehaved_lately:
            worth = planned.size * self.price(planned.symbol)
            if abs(size / worth - 1) > SPENT_TOLERANCE:
                self.violate("I3", f"order {client_id} spends {size}, planned was {worth:.2f}")

    def _is_altered(self, order: OrderRecord, planned: PlannedSlice) -> bool:
        return order.size != self._sent.get(order.client_id, order.size)

    def _executed_of(self, fill: FillRecord, planned: PlannedSlice) -> Decimal:
        """Of a purchase: as much of its slice as of its money was spent."""
        if fill.side is Side.SELL:
            return fill.size
        return planned.size * fill.price * fill.size / self._sent[fill.client_id]

    def _check_caps(self, order: OrderRecord) -> None:
        """I9: limits of the account, from the exchange's own numbers."""
        limits = self._world.limits
        if order.side is Side.SELL:
            return
        if order.size > Decimal(str(limits["order_notional_max"])) * CAP_TOLERANCE:
            self.violate("I9", f"{order.client_id} is larger than one order may be")
        held = coins(self._world).get(order.symbol.removesuffix(QUOTE), ZERO)
        after = order.size + held * self.price(order.symbol)
        if after > Decimal(str(limits["position_notional_max"])) * CAP_TOLERANCE:
            self.violate("I9", f"{order.client_id} makes a holding larger than allowed")
        self._check_rate()

    # --- letters ---------------------------------------------------------------------------------

    def _check_named(self, document: Document) -> None:
        """I3: coins that are somebody else's are not traded, whatever the mode."""
        super()._check_named(document)
        known = universe(self._world)
        if known is None:
            return
        others = {record["leg"]["symbol"] for record in document["legs"]} - known
        if others:
            self.violate("I3", f"the plan trades {sorted(others)}, which is not the session's")

    def _check_stops(self, document: Document) -> None:
        """Promise 2, in calm times: exactly the wanted stop is at the exchange.

        A little later: the gateway's own look may have been on its way with the older wish (stops
        of coins follow every change of the balance), and then looks once more."""
        self._world.at(SETTLED_S, lambda: self._stops_settled(document))

    def _stops_settled(self, document: Document) -> None:
        if self.letters.decided is None or self.letters.decided["cycle"] != document["cycle"]:
            return
        moved = self._moved_by_others(document)
        wanted = {**document["stops"], **document["stops_now"]}
        account = self._world.exchange.account
        for symbol in sellable(self._world):
            stop = wanted.get(symbol, {}).get("stop_loss")
            if stop is None or symbol not in document["targets"] or symbol in moved:
                continue
            found = [plan.trigger_price for plan in stop_losses(account, symbol)]
            if found != [Decimal(stop)]:
                self.violate("I2", f"{symbol} has stops {found}, wanted is {stop}")

    def left_over(self) -> list[str]:
        """What of the session's is still there. A coin whose pair was delisted stays: nobody can
        sell it (A20)."""
        account = self._world.exchange.account
        own = own_coins(self._world)
        listed = self._world.exchange.engine.is_listed
        return [
            *(
                f"coin {symbol} {size}"
                for symbol, size in sellable(self._world).items()
                if listed(symbol)
            ),
            *(
                f"order {order.client_id}"
                for order in account.open_orders.values()
                if order.client_id.startswith(self._prefix)
            ),
            *(
                f"stop of {plan.symbol}"
                for plan in account.plans.values()
                if plan.symbol in own and plan.client_id.startswith(STOP_PREFIX)
            ),
        ]


class SpotWatch(ProtectionWatch):
    """I2 of coins. A coin counts when the newest plan has a stop for it and it can be sold."""

    def look(self, decided: Document | None) -> None:
        """What is bare now; clocks run on from the last look."""
        now_ms, account = self._world.hub.now_ms, self._world.exchange.account
        self._let_clocks_run(now_ms)
        engine = self._world.exchange.engine
        bare = {
            symbol
            for symbol, size in sellable(self._world).items()
            if engine.is_trading(symbol)  # a suspended pair takes neither a stop nor a sale (A20)
            and self._is_wanted(decided, symbol, True)
            and not any(plan.size == size for plan in stop_losses(account, symbol))
        }
        host = self._world.host
        if host is None or host.is_over:
            bare &= set(self._bare)  # a coin that comes when nobody trades is its owner's
        some = own_coins(self._world)
        orphans = {
            plan.plan_id
            for plan in account.plans.values()
            if plan.client_id.startswith(STOP_PREFIX) and plan.symbol not in some
        }
        self._note(bare, orphans, now_ms)
        self._judge()


def coins(world: World) -> dict[str, Decimal]:
    """What the spot wallet holds, by coin."""
    exchange = world.exchange
    balances = exchange.engine.spot_balances(exchange.account_id)
    return {each.coin: held for each in balances if (held := each.available + each.frozen)}


def universe(world: World) -> set[str] | None:
    """The symbols that the living session may touch; None: all, it has adopted what was there."""
    host = world.host
    if host is None or host.ground.spec.adopt_existing:
        return None
    return set(world.symbols)


def own_coins(world: World) -> dict[str, Decimal]:
    """Sizes of the coins that the session may touch, by symbol."""
    known = universe(world)
    held = {coin + QUOTE: size for coin, size in coins(world).items() if coin != QUOTE}
    return {symbol: size for symbol, size in held.items() if known is None or symbol in known}


def sellable(world: World) -> dict[str, Decimal]:
    """How much of each own coin an order can sell: on the lot, surely over the minimum."""
    engine = world.exchange.engine
    exchange = world.exchange
    free = {each.coin + QUOTE: each.available for each in engine.spot_balances(exchange.account_id)}
    found: dict[str, Decimal] = {}
    for symbol in own_coins(world):
        rules = engine.world.spot[symbol]
        size = round_down(free[symbol], rules.size_step)
        least = NEAR_MINIMUM * rules.notional_min
        if size >= rules.size_min and size * engine.last_price(symbol) >= least:
            found[symbol] = size
    return found


def stop_losses(account: AccountState, symbol: str) -> list[PlanRecord]:
    """The stop losses of ours that wait for a coin's price."""
    return [
        plan
        for plan in account.plans.values()
        if plan.symbol == symbol
        and plan.plan_type is PlanType.SPOT_PLAN
        and plan.client_id.startswith(LOSS_PREFIX)
    ]
