"""The state of one world: accounts, indexes by symbol, prices, ledger, and what is due when.

Commands and events are functions over a `World` (order_entry, execution, stops, risk, ...); the
`Engine` is the door. Everything that iterates here does so in a fixed order: same commands, same
ledger.
"""

from __future__ import annotations

import heapq
import re
import zlib
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

from module.simulator.engine.account_state import AccountState, SymbolLeverage
from module.simulator.engine.attention import Attention
from module.simulator.engine.engine_records import (
    BillRecord,
    OrderRecord,
    PlanRecord,
    PositionRecord,
)
from module.simulator.engine.engine_types import (
    NEVER_MS,
    EngineRejected,
    EngineSettings,
    MarketType,
    OrderStatus,
    PositionSide,
    RejectReason,
    TriggerType,
)
from module.simulator.engine.exposure import ExposureLog
from module.simulator.engine.ledger import Ledger, WalletKey
from module.simulator.engine.order_book import BookShape, OrderBook
from module.simulator.engine.price_feed import POINT_MS, PriceFeed
from module.simulator.prices.instruments import FuturesInstrument, SpotInstrument
from module.simulator.prices.market_source import MINUTE_MS, FundingPoint, MarketSource

ZERO = Decimal(0)
CLIENT_ID_LENGTH_MAX = 50
ID_ROOM = 4_000_000
"""Order ids of one millisecond: 19 digits until the year 2043."""
IDS_PER_OWNER = 128
_CLIENT_ID = re.compile(r"[0-9A-Za-z_+#-]+")

Key = TypeVar("Key")
Value = TypeVar("Value")


class World:
    """One exchange. `now_ms` is written by the engine alone."""

    def __init__(self, market: MarketSource, settings: EngineSettings, start_ms: int) -> None:
        self.market = market
        self.settings = settings
        self.now_ms = start_ms
        self.ledger = Ledger()
        self.book = OrderBook()
        self.accounts: dict[str, AccountState] = {}
        self.futures = {rules.symbol: rules for rules in market.futures()}
        self.spot = {rules.symbol: rules for rules in market.spot()}
        steps = {rules.symbol: rules.price_step for rules in market.spot()}
        steps.update({rules.symbol: rules.price_step for rules in market.futures()})
        bands = {rules.symbol: rules.price_band for rules in market.spot()}
        bands.update({rules.symbol: rules.price_band for rules in market.futures()})
        self.exposure = ExposureLog()
        self.prices = PriceFeed(market, steps, self.exposure.before, bands)
        self.resting: defaultdict[str, dict[str, OrderRecord]] = defaultdict(dict)
        self.plans: defaultdict[str, dict[str, PlanRecord]] = defaultdict(dict)
        self.holders: defaultdict[str, dict[tuple[str, PositionSide], PositionRecord]] = (
            defaultdict(dict)
        )
        self.risky_accounts: set[str] = set()
        self.attention = Attention()
        self.sleeps = True
        """False looks at every point of the price grid: slower, with the same result (tests)."""
        self.trigger_gate: Callable[[PlanRecord], None] = lambda plan: None
        """Asked before a fired plan's order is made; may refuse it (scripted faults)."""
        self._delisted: set[str] = set()
        self._changed_contracts: dict[str, FuturesInstrument] = {}
        self._changed_pairs: dict[str, SpotInstrument] = {}
        self._arrivals: list[tuple[int, int, OrderRecord]] = []
        self._last_id = 0
        listed = sorted((MarketType.FUTURES, symbol) for symbol in self.futures)
        listed += sorted((MarketType.SPOT, symbol) for symbol in self.spot)
        self._id_rank = {each: rank for rank, each in enumerate(listed)}
        self._issued_ms = -1
        self._issued: set[int] = set()
        self._issued_of: dict[tuple[str, MarketType, str], int] = {}
        self._settlement_ms: int | None = None
        self._marks: dict[str, Decimal] = {}
        self._marks_point = -1
        self._shapes: dict[tuple[MarketType, str], BookShape] = {}
        self._futures_wallets: dict[str, WalletKey] = {}
        self._funding: dict[str, FundingPoint | None] = {}
        self._funding_done_ms = start_ms

    # -- names --------------------------------------------------------------------------------

    def account(self, account_id: str) -> AccountState:
        """The account; refuses (ACCOUNT_UNKNOWN) if it was never opened."""
        account = self.accounts.get(account_id)
        if account is None:
            raise EngineRejected(RejectReason.ACCOUNT_UNKNOWN, f"no account {account_id!r}")
        return account

    def acting(self, account_id: str) -> AccountState:
        """The account of a command that may change it; refuses as `account` does."""
        account = self.account(account_id)
        self.stir(account)
        return account

    def require_known(self, symbol: str) -> None:
        """Refuse (SYMBOL_UNKNOWN) a symbol that neither market has."""
        if symbol not in self.futures and symbol not in self.spot:
            raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, f"no symbol {symbol!r}")

    def futures_rules(self, symbol: str) -> FuturesInstrument:
        """Contract rules; refuses SYMBOL_UNKNOWN."""
        rules = self.futures.get(symbol)
        if rules is None:
            raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, f"no contract {symbol!r}")
        return rules

    def spot_rules(self, symbol: str) -> SpotInstrument:
        """Spot rules; refuses SYMBOL_UNKNOWN."""
        rules = self.spot.get(symbol)
        if rules is None:
            raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, f"no spot pair {symbol!r}")
        return rules

    def book_shape(self, market: MarketType, symbol: str) -> BookShape:
        """What the book of a symbol is made of."""
        found = self._shapes.get((market, symbol))
        if found is None:
            spot = market is MarketType.SPOT
            rules = self.spot_rules(symbol) if spot else self.futures_rules(symbol)
            found = BookShape(market, symbol, rules.price_step, rules.size_step, rules.depth_usdt)
            self._shapes[market, symbol] = found
        return found

    def require_trading(self, symbol: str) -> Decimal:
        """The price that orders meet (last, within the band around the mark).

        Refuses a symbol that is not listed, over, or in a gap of its data.
        """
        last = self.prices.require_tradable(symbol, self.now_ms)
        if not self.prices.is_trading(symbol, self.now_ms):
            reason = (
                RejectReason.SYMBOL_NOT_LISTED
                if self.is_over(symbol)
                else RejectReason.SYMBOL_SUSPENDED
            )
            raise EngineRejected(reason, f"{symbol} is not trading at {self.now_ms}")
        return last

    def trigger_price(self, symbol: str, trigger_type: TriggerType) -> Decimal:
        """The price that triggers of this type follow: the last price or the mark."""
        if trigger_type is TriggerType.MARK_PRICE:
            return self.prices.require_mark(symbol, self.now_ms)
        return self.prices.require_last(symbol, self.now_ms)

    def mark(self, symbol: str) -> Decimal:
        """The price that values positions: margin, profit, liquidation, funding."""
        point = self.now_ms // POINT_MS
        if point != self._marks_point:
            self._marks_point = point
            self._marks.clear()
        mark = self._marks.get(symbol)
        if mark is None:
            mark = self._marks[symbol] = self.prices.require_mark(symbol, self.now_ms)
        return mark

    def change_rules(self, rules: FuturesInstrument | SpotInstrument) -> None:
        """A symbol has other rules from now on than its source says (scripted faults)."""
        if isinstance(rules, SpotInstrument):
            self._changed_pairs[rules.symbol] = rules
        else:
            self._changed_contracts[rules.symbol] = rules
        self.renew_rules()
        for account_id, _ in self.holders.get(rules.symbol, ()):
            self.attention.stir(account_id)  # what was safe under the old tiers may not be now
        self.touch(rules.symbol)

    def renew_rules(self) -> None:
        """Put changed rules in force (again: a world that comes back begins with its source's)."""
        self.futures.update(self._changed_contracts)
        self.spot.update(self._changed_pairs)
        for symbol in self._changed_contracts.keys() | self._changed_pairs.keys():
            for market in MarketType:
                self._shapes.pop((market, symbol), None)

    def delist(self, symbol: str) -> None:
        """The symbol ends now, before its source does (scripted faults)."""
        self._delisted.add(symbol)
        self.prices.halt(symbol, NEVER_MS)
        self.touch(symbol)

    def is_over(self, symbol: str) -> bool:
        """The source's last minute of this symbol has passed: it will never trade again."""
        if symbol in self._delisted:
            return True
        _, last_ms = self.market.span(symbol)
        return last_ms is not None and self.now_ms >= last_ms + MINUTE_MS

    def delisted_ms(self, symbol: str) -> int:
        """When the symbol ends while others go on; NEVER_MS if it does not.

        At the end of all data nothing is settled: there the world merely stops moving.
        """
        if symbol in self._delisted:
            return self.now_ms
        _, last_ms = self.market.span(symbol)
        _, end_ms = self.market.span()
        if last_ms is None or (end_ms is not None and last_ms >= end_ms):
            return NEVER_MS
        return last_ms + MINUTE_MS

    def leverage_of(self, account: AccountState, symbol: str) -> SymbolLeverage:
        """The account's settings of a symbol, made from the defaults at first use."""
        found = account.leverages.get(symbol)
        if found is None:
            rules = self.futures_rules(symbol)
            default = min(self.settings.default_leverage, rules.leverage_max)
            found = SymbolLeverage(self.settings.default_margin_mode, default, default, default)
            account.leverages[symbol] = found
        return found

    def futures_wallet(self, account: AccountState) -> WalletKey:
        """The wallet that margin, profits and fees move in."""
        found = self._futures_wallets.get(account.account_id)
        if found is None:
            found = WalletKey(account.account_id, MarketType.FUTURES, self.settings.settle_coin)
            self._futures_wallets[account.account_id] = found
        return found

    # -- ids ----------------------------------------------------------------------------------

    def new_id(self) -> str:
        """A 19-digit id, increasing in time: milliseconds and a counter."""
        self._last_id = max(self._last_id + 1, self.now_ms * ID_ROOM)
        return str(self._last_id)

    def new_order_id(self, account_id: str, market: MarketType, symbol: str) -> str:
        """A 19-digit id of an order or plan: milliseconds, then symbol, account, and a counter.

        Of one account and symbol they increase in the order of acceptance; between symbols and
        accounts the order of requests within one millisecond does not matter, so that clients who
        send at once always get the same ids, and the same book.
        """
        if self._issued_ms != self.now_ms:
            self._issued_ms = self.now_ms
            self._issued.clear()
            self._issued_of.clear()
        room = ID_ROOM // max(1, len(self._id_rank))
        key = (account_id, market, symbol)
        count = self._issued_of.get(key, 0)
        self._issued_of[key] = count + 1
        owner = int(account_id) if account_id.isdecimal() else zlib.crc32(account_id.encode())
        place = (
            self._id_rank.get((market, symbol), 0) * room + (owner * IDS_PER_OWNER + count) % room
        )
        while place in self._issued:
            place = (place + 1) % ID_ROOM
        self._issued.add(place)
        return str(self.now_ms * ID_ROOM + place)

    def claim_client_id(
        self, known: dict[tuple[MarketType, str], str], market: MarketType, client_id: str
    ) -> None:
        """Refuse a client id that is malformed or was used before."""
        check_client_id(client_id)
        if (market, client_id) in known:
            raise EngineRejected(
                RejectReason.CLIENT_ID_DUPLICATE,
                f"client id {client_id} belongs to order {known[market, client_id]}",
            )

    # -- bills --------------------------------------------------------------------------------

    def add_bill(
        self,
        account: AccountState,
        wallet: WalletKey,
        *,
        symbol: str,
        business_type: str,
        amount: Decimal,
        fee: Decimal,
    ) -> None:
        """Append the bill of a movement that the ledger has just recorded."""
        account.bills.append(
            BillRecord(
                bill_id=self.new_id(),
                account_id=account.account_id,
                market=wallet.market,
                symbol=symbol,
                coin=wallet.coin,
                business_type=business_type,
                amount=amount,
                fee=fee,
                balance=self.ledger.balance(wallet),
                at_ms=self.now_ms,
            )
        )

    # -- what is due --------------------------------------------------------------------------

    def next_event_ms(self) -> int:
        """When something happens by itself next."""
        due_ms = self._arrivals[0][0] if self._arrivals else NEVER_MS
        watched = bool(self.resting or self.plans or self.holders)
        look_ms = self.attention.next_ms(self.now_ms, watched=watched)
        return min(due_ms, look_ms, self._next_settlement_ms())

    def _next_settlement_ms(self) -> int:
        if self._settlement_ms is None:
            points = [self._next_funding(symbol) for symbol in self.holders]
            moments = [point.settlement_ms for point in points if point is not None]
            self._settlement_ms = min(moments, default=NEVER_MS)
        return self._settlement_ms

    def touch(self, symbol: str) -> None:
        """Look at `symbol` in the present moment though its price grid has no point now."""
        self.attention.touch(symbol)
        self.book.refresh(symbol)
        self._marks.clear()

    def stir(self, account: AccountState) -> None:
        """Something of the account has changed: its symbols are looked at at the next point."""
        if account.positions or account.open_orders or account.plans:
            self.attention.stir(account.account_id)

    def take_due(self) -> tuple[list[str], list[str]]:
        """Symbols to look at now, sorted, and the accounts that had been stirred before."""
        symbols = self.attention.take_touched()
        if self.now_ms % POINT_MS:
            return sorted(symbols), []
        symbols |= self.attention.due(self.now_ms)
        stirred = list(self.attention.take_stirred())
        for account_id in stirred:
            account = self.accounts[account_id]
            symbols.update(symbol for symbol, _ in account.positions)
            symbols.update(order.symbol for order in account.open_orders.values())
            symbols.update(plan.symbol for plan in account.plans.values())
        return sorted(symbols), stirred

    def push_arrival(self, order: OrderRecord, when_ms: int) -> None:
        """`order` reaches the book at `when_ms`; of one moment in the order of the ids."""
        heapq.heappush(self._arrivals, (when_ms, int(order.order_id), order))
        self.exposure.wait_order(order, self.now_ms)

    def take_arrival(self, now_ms: int) -> OrderRecord | None:
        """The next live order that has reached the book by `now_ms`."""
        while self._arrivals and self._arrivals[0][0] <= now_ms:
            order = heapq.heappop(self._arrivals)[2]
            if order.status is OrderStatus.LIVE:
                return order
        return None

    def _next_funding(self, symbol: str) -> FundingPoint | None:
        if symbol in self._funding:
            point = self._funding[symbol]
            if point is None or point.settlement_ms > self._funding_done_ms:
                return point
        point = self.market.next_funding(symbol, self._funding_done_ms)
        self._funding[symbol] = point
        return point

    def take_due_funding(self) -> list[tuple[str, FundingPoint]]:
        """Settlements of this very moment for symbols that somebody holds, once each."""
        due: list[tuple[str, FundingPoint]] = []
        if self._next_settlement_ms() > self.now_ms:
            self._funding_done_ms = self.now_ms
            return due
        self._settlement_ms = None
        self._funding_done_ms = max(self._funding_done_ms, self.now_ms - 1)
        for symbol in sorted(self.holders):
            point = self._next_funding(symbol)
            if point is not None and point.settlement_ms == self.now_ms:
                due.append((symbol, point))
        self._funding_done_ms = self.now_ms
        return due

    # -- indexes ------------------------------------------------------------------------------

    def add_resting(self, order: OrderRecord) -> None:
        """A limit order waits in the book."""
        self.resting[order.symbol][order.order_id] = order
        self.attention.stir(order.account_id)

    def drop_resting(self, order: OrderRecord) -> None:
        """It waits no longer (harmless if it never did)."""
        _drop(self.resting, order.symbol, order.order_id)
        self.exposure.wait_no_more(order.symbol, order.order_id, self.now_ms)

    def add_plan(self, account: AccountState, plan: PlanRecord) -> None:
        """A trigger order waits for its price."""
        account.plans[plan.plan_id] = plan
        self.attention.stir(account.account_id)
        self.plans[plan.symbol][plan.plan_id] = plan
        self.exposure.wait_plan(plan, self.now_ms)

    def drop_plan(self, account: AccountState, plan: PlanRecord) -> None:
        """The plan is over: it moves to the history."""
        del account.plans[plan.plan_id]
        _drop(self.plans, plan.symbol, plan.plan_id)
        self.exposure.wait_no_more(plan.symbol, plan.plan_id, self.now_ms)
        plan.updated_ms = self.now_ms
        account.plan_history.append(plan)

    def add_position(self, account: AccountState, position: PositionRecord) -> None:
        """A position begins."""
        account.positions[position.symbol, position.side] = position
        self._settlement_ms = None
        self.holders[position.symbol][account.account_id, position.side] = position

    def drop_position(self, account: AccountState, position: PositionRecord) -> None:
        """A position has ended."""
        del account.positions[position.symbol, position.side]
        self._settlement_ms = None
        _drop(self.holders, position.symbol, (account.account_id, position.side))

    def change_net(self, symbol: str, delta: Decimal) -> None:
        """All accounts together now hold `delta` more of `symbol`."""
        self.exposure.change_net(symbol, delta, self.now_ms)


def check_client_id(client_id: str) -> None:
    """Refuse a client id that is too long or has characters that the exchange does not take."""
    if len(client_id) > CLIENT_ID_LENGTH_MAX:
        raise EngineRejected(
            RejectReason.CLIENT_ID_TOO_LONG,
            f"client id has {len(client_id)} characters, {CLIENT_ID_LENGTH_MAX} are allowed",
        )
    if not _CLIENT_ID.fullmatch(client_id):
        raise EngineRejected(RejectReason.CLIENT_ID_CHARSET, f"client id {client_id!r}")


def _drop(index: dict[str, dict[Key, Value]], symbol: str, key: Key) -> None:
    inner = index.get(symbol)
    if inner is not None:
        inner.pop(key, None)
        if not inner:
            del index[symbol]
