"""The state of one world: accounts, indexes by symbol, prices, ledger, and what is due when.

Commands and events are functions over a `World` (order_entry, execution, stops, risk, ...); the
`Engine` is the door. Everything that iterates here does so in a fixed order: same commands, same
ledger.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

from module.simulator.engine_records import (
    BillRecord,
    ClosedPositionRecord,
    FillRecord,
    OrderRecord,
    PlanRecord,
    PositionRecord,
)
from module.simulator.engine_types import (
    NEVER_MS,
    EngineRejected,
    EngineSettings,
    MarginMode,
    MarketType,
    OrderStatus,
    PositionMode,
    PositionSide,
    RejectReason,
)
from module.simulator.instruments import FuturesInstrument, SpotInstrument
from module.simulator.ledger import Ledger, WalletKey
from module.simulator.market_source import MINUTE_MS, FundingPoint, MarketSource
from module.simulator.order_book import BookShape, OrderBook
from module.simulator.price_feed import POINT_MS, PriceFeed

ZERO = Decimal(0)
CLIENT_ID_LENGTH_MAX = 50
_CLIENT_ID = re.compile(r"[0-9A-Za-z_+#-]+")

PositionKey = tuple[str, PositionSide]
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(slots=True)
class SymbolLeverage:
    """Leverage and margin mode of one symbol on one account."""

    margin_mode: MarginMode
    crossed: Decimal
    isolated_long: Decimal
    isolated_short: Decimal

    def effective(self, side: PositionSide) -> Decimal:
        """What applies to a position of `side` in the present margin mode."""
        if self.margin_mode is MarginMode.CROSSED:
            return self.crossed
        return self.isolated_short if side is PositionSide.SHORT else self.isolated_long


@dataclass(slots=True)
class AccountState:
    """Everything of one account. Histories are append-only, oldest first."""

    account_id: str
    position_mode: PositionMode
    leverages: dict[str, SymbolLeverage] = field(default_factory=dict)
    positions: dict[PositionKey, PositionRecord] = field(default_factory=dict)
    orders: dict[str, OrderRecord] = field(default_factory=dict)
    open_orders: dict[str, OrderRecord] = field(default_factory=dict)
    client_ids: dict[tuple[MarketType, str], str] = field(default_factory=dict)
    plans: dict[str, PlanRecord] = field(default_factory=dict)
    plan_history: list[PlanRecord] = field(default_factory=list)
    plan_client_ids: dict[str, str] = field(default_factory=dict)
    fills: list[FillRecord] = field(default_factory=list)
    closed_positions: list[ClosedPositionRecord] = field(default_factory=list)
    bills: list[BillRecord] = field(default_factory=list)

    def live_orders(self, symbol: str, market: MarketType) -> list[OrderRecord]:
        """Live orders of one symbol, oldest first."""
        return [
            order
            for order in self.open_orders.values()
            if order.symbol == symbol and order.market is market
        ]

    def positions_of(self, symbol: str) -> list[PositionRecord]:
        """Open positions of one symbol, long first."""
        sides = (PositionSide.LONG, PositionSide.SHORT)
        found = (self.positions.get((symbol, side)) for side in sides)
        return [position for position in found if position is not None]


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
        self.prices = PriceFeed(market, steps, self.exposure_at)
        self.resting: defaultdict[str, dict[str, OrderRecord]] = defaultdict(dict)
        self.plans: defaultdict[str, dict[str, PlanRecord]] = defaultdict(dict)
        self.holders: defaultdict[str, dict[tuple[str, PositionSide], PositionRecord]] = (
            defaultdict(dict)
        )
        self.risky_accounts: set[str] = set()
        self._arrivals: list[tuple[int, int, OrderRecord]] = []
        self._sequence = 0
        self._last_id = 0
        self._touched: set[str] = set()
        self._net: dict[str, Decimal] = {}
        self._net_before: dict[str, tuple[int, Decimal]] = {}
        self._funding: dict[str, FundingPoint | None] = {}
        self._funding_done_ms = start_ms

    # -- names --------------------------------------------------------------------------------

    def account(self, account_id: str) -> AccountState:
        """The account; refuses (ACCOUNT_UNKNOWN) if it was never opened."""
        account = self.accounts.get(account_id)
        if account is None:
            raise EngineRejected(RejectReason.ACCOUNT_UNKNOWN, f"no account {account_id!r}")
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
        if market is MarketType.SPOT:
            spot = self.spot_rules(symbol)
            return BookShape(market, symbol, spot.price_step, spot.size_step, spot.depth_usdt)
        rules = self.futures_rules(symbol)
        return BookShape(market, symbol, rules.price_step, rules.size_step, rules.depth_usdt)

    def require_trading(self, symbol: str) -> Decimal:
        """The last price; refuses a symbol that is not listed, over, or in a gap of its data."""
        last = self.prices.require_last(symbol, self.now_ms)
        if not self.prices.is_trading(symbol, self.now_ms):
            reason = (
                RejectReason.SYMBOL_NOT_LISTED
                if self.is_over(symbol)
                else RejectReason.SYMBOL_SUSPENDED
            )
            raise EngineRejected(reason, f"{symbol} is not trading at {self.now_ms}")
        return last

    def is_over(self, symbol: str) -> bool:
        """The source's last minute of this symbol has passed: it will never trade again."""
        _, last_ms = self.market.span(symbol)
        return last_ms is not None and self.now_ms >= last_ms + MINUTE_MS

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
        return WalletKey(account.account_id, MarketType.FUTURES, self.settings.settle_coin)

    # -- ids ----------------------------------------------------------------------------------

    def new_id(self) -> str:
        """A 19-digit id, increasing in time: milliseconds and a counter."""
        self._last_id = max(self._last_id + 1, self.now_ms * 1_000_000)
        return str(self._last_id)

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
        if self._touched:
            return self.now_ms
        due_ms = self._arrivals[0][0] if self._arrivals else NEVER_MS
        if self.resting or self.plans or self.holders:
            due_ms = min(due_ms, self.now_ms - self.now_ms % POINT_MS + POINT_MS)
        for symbol in self.holders:
            point = self._next_funding(symbol)
            if point is not None:
                due_ms = min(due_ms, point.settlement_ms)
        return due_ms

    def touch(self, symbol: str) -> None:
        """Look at `symbol` in the present moment though its price grid has no point now."""
        self._touched.add(symbol)
        self.book.refresh(symbol)

    def take_due_symbols(self) -> list[str]:
        """Symbols whose price has (perhaps) just changed and where somebody cares, sorted."""
        touched, self._touched = self._touched, set()
        if self.now_ms % POINT_MS:
            return sorted(touched)
        return sorted(self.resting.keys() | self.plans.keys() | self.holders.keys() | touched)

    def push_arrival(self, order: OrderRecord, when_ms: int) -> None:
        """`order` reaches the book at `when_ms`."""
        self._sequence += 1
        heapq.heappush(self._arrivals, (when_ms, self._sequence, order))

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

    def drop_resting(self, order: OrderRecord) -> None:
        """It waits no longer (harmless if it never did)."""
        _drop(self.resting, order.symbol, order.order_id)

    def add_plan(self, account: AccountState, plan: PlanRecord) -> None:
        """A trigger order waits for its price."""
        account.plans[plan.plan_id] = plan
        self.plans[plan.symbol][plan.plan_id] = plan

    def drop_plan(self, account: AccountState, plan: PlanRecord) -> None:
        """The plan is over: it moves to the history."""
        del account.plans[plan.plan_id]
        _drop(self.plans, plan.symbol, plan.plan_id)
        plan.updated_ms = self.now_ms
        account.plan_history.append(plan)

    def add_position(self, account: AccountState, position: PositionRecord) -> None:
        """A position begins."""
        account.positions[position.symbol, position.side] = position
        self.holders[position.symbol][account.account_id, position.side] = position

    def drop_position(self, account: AccountState, position: PositionRecord) -> None:
        """A position has ended."""
        del account.positions[position.symbol, position.side]
        _drop(self.holders, position.symbol, (account.account_id, position.side))

    def change_net(self, symbol: str, delta: Decimal) -> None:
        """All accounts together now hold `delta` more of `symbol`."""
        minute_ms = self.now_ms - self.now_ms % MINUTE_MS
        before = self._net.get(symbol, ZERO)
        remembered = self._net_before.get(symbol)
        if remembered is None or remembered[0] != minute_ms:
            self._net_before[symbol] = (minute_ms, before)
        self._net[symbol] = before + delta

    def exposure_at(self, symbol: str, minute_ms: int) -> int:
        """Sign of the net position of all accounts when the present minute opened."""
        remembered = self._net_before.get(symbol)
        if remembered is not None and remembered[0] == minute_ms:
            net = remembered[1]
        else:
            net = self._net.get(symbol, ZERO)
        return (net > 0) - (net < 0)


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
