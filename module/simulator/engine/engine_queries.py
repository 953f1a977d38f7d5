"""Everything that can be asked of the paper exchange. Nothing here changes anything.

Lists are oldest first. An unknown account, symbol or order is refused as commands are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from decimal import Decimal

from module.simulator.engine.engine_records import (
    BillRecord,
    ClosedPositionRecord,
    DepthView,
    FillRecord,
    FuturesBalance,
    LeverageView,
    OrderRecord,
    PlanRecord,
    PositionView,
    SpotBalanceView,
    TickerView,
    TransferRecord,
)
from module.simulator.engine.engine_types import (
    EngineRejected,
    EngineSettings,
    MarketType,
    PlanType,
    PositionMode,
    RejectReason,
)
from module.simulator.engine.ledger import Ledger, WalletKey
from module.simulator.engine.ledger_dump import by_id, dump_ledger
from module.simulator.engine.order_entry import find_order
from module.simulator.engine.settings_rules import leverage_view
from module.simulator.engine.spot_trading import spot_available, spot_frozen
from module.simulator.engine.stops import find_plan
from module.simulator.engine.valuation import crossed_risk, futures_balance, position_view
from module.simulator.engine.world import World
from module.simulator.prices.instruments import FuturesInstrument, SpotInstrument
from module.simulator.prices.market_source import (
    DAY_MS,
    MINUTE_MS,
    Bar,
    FundingPoint,
    MarketSource,
    PriceKind,
)

CANDLES_MAX = 1000


class EngineQueries:
    """The reading half of the engine."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._days: dict[str, tuple[int, Bar | None]] = {}

    @property
    def world(self) -> World:
        """Everything that it is made of, for those who keep it."""
        return self._world

    # -- the world ----------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """World time, milliseconds since the epoch, UTC."""
        return self._world.now_ms

    @property
    def settings(self) -> EngineSettings:
        """How this exchange behaves."""
        return self._world.settings

    @property
    def market(self) -> MarketSource:
        """Where its prices come from."""
        return self._world.market

    @property
    def ledger(self) -> Ledger:
        """The double-entry ledger: entries, balances, check, audit."""
        return self._world.ledger

    def futures_instruments(self) -> Mapping[str, FuturesInstrument]:
        """All contracts by symbol."""
        return self._world.futures

    def spot_instruments(self) -> Mapping[str, SpotInstrument]:
        """All spot pairs by symbol."""
        return self._world.spot

    def is_listed(self, symbol: str) -> bool:
        """It has had its first bar and not yet its last."""
        world = self._world
        if world.prices.last(symbol, world.now_ms) is None:
            return False
        return not world.is_over(symbol)

    def is_trading(self, symbol: str) -> bool:
        """Orders are taken and filled now; a listed symbol that is not trading has a gap."""
        return self._world.prices.is_trading(symbol, self._world.now_ms)

    # -- accounts -----------------------------------------------------------------------------

    def account_ids(self) -> list[str]:
        """Every account, in order of opening."""
        return list(self._world.accounts)

    def has_account(self, account_id: str) -> bool:
        """The account was opened."""
        return account_id in self._world.accounts

    def position_mode(self, account_id: str) -> PositionMode:
        """One-way or hedge."""
        return self._world.account(account_id).position_mode

    def leverage(self, account_id: str, symbol: str) -> LeverageView:
        """Leverage and margin mode of a symbol."""
        return leverage_view(self._world, self._world.account(account_id), symbol)

    def futures_balance(self, account_id: str) -> FuturesBalance:
        """The futures wallet valued at the marks of now."""
        return futures_balance(self._world, self._world.account(account_id))

    def spot_balances(self, account_id: str) -> list[SpotBalanceView]:
        """Every coin that the spot wallet has ever held, by name."""
        world = self._world
        account = world.account(account_id)
        coins = world.ledger.coins_of(account_id, MarketType.SPOT)
        changed: dict[str, int] = {}
        for bill in reversed(account.bills):
            if len(changed) == len(coins):
                break
            if bill.market is MarketType.SPOT:
                changed.setdefault(bill.coin, bill.at_ms)
        return [
            SpotBalanceView(
                coin=coin,
                available=spot_available(world, account, coin),
                frozen=spot_frozen(world, account, coin),
                updated_ms=changed.get(coin, world.now_ms),
            )
            for coin in coins
        ]

    def wallet_balance(self, account_id: str, market: MarketType, coin: str) -> Decimal:
        """What the ledger says is in a wallet."""
        return self._world.ledger.balance(WalletKey(account_id, market, coin))

    # -- orders and fills ---------------------------------------------------------------------

    def order(
        self,
        account_id: str,
        *,
        order_id: str | None = None,
        client_id: str | None = None,
        market: MarketType = MarketType.FUTURES,
    ) -> OrderRecord:
        """One order, live or over; ORDER_UNKNOWN otherwise."""
        return find_order(self._world.account(account_id), market, order_id, client_id)

    def open_orders(
        self,
        account_id: str,
        symbol: str | None = None,
        market: MarketType = MarketType.FUTURES,
    ) -> list[OrderRecord]:
        """Live and partially filled orders, by id."""
        found = [
            order
            for order in self._world.account(account_id).open_orders.values()
            if order.market is market and symbol in (None, order.symbol)
        ]
        return sorted(found, key=by_id)

    def all_orders(
        self,
        account_id: str,
        symbol: str | None = None,
        market: MarketType = MarketType.FUTURES,
    ) -> list[OrderRecord]:
        """Every order ever accepted, by id."""
        found = [
            order
            for order in self._world.account(account_id).orders.values()
            if order.market is market and symbol in (None, order.symbol)
        ]
        return sorted(found, key=by_id)

    def order_history(
        self,
        account_id: str,
        symbol: str | None = None,
        market: MarketType = MarketType.FUTURES,
    ) -> list[OrderRecord]:
        """Filled and cancelled orders, by id."""
        orders = self.all_orders(account_id, symbol, market)
        return [order for order in orders if order.status.is_terminal]

    def fills(
        self,
        account_id: str,
        symbol: str | None = None,
        order_id: str | None = None,
        market: MarketType = MarketType.FUTURES,
        since_ms: int = 0,
    ) -> list[FillRecord]:
        """Executions from `since_ms` on, by trade id."""
        fills = self._world.account(account_id).fills
        first = bisect_left(fills, since_ms, key=lambda fill: fill.at_ms)
        return [
            fill
            for fill in fills[first:]
            if fill.market is market
            and symbol in (None, fill.symbol)
            and order_id in (None, fill.order_id)
        ]

    # -- positions, plans, bills --------------------------------------------------------------

    def positions(self, account_id: str, symbol: str | None = None) -> list[PositionView]:
        """Open positions valued now, in order of opening."""
        world = self._world
        account = world.account(account_id)
        risk = crossed_risk(world, account) if account.positions else None
        return [
            position_view(world, account, position, risk)
            for position in account.positions.values()
            if symbol in (None, position.symbol)
        ]

    def position_history(
        self, account_id: str, symbol: str | None = None, since_ms: int = 0
    ) -> list[ClosedPositionRecord]:
        """Positions finished from `since_ms` on, in order of closing."""
        history = self._world.account(account_id).closed_positions
        first = bisect_left(history, since_ms, key=lambda closed: closed.closed_ms)
        return [closed for closed in history[first:] if symbol in (None, closed.symbol)]

    def plan(
        self, account_id: str, *, plan_id: str | None = None, client_id: str | None = None
    ) -> PlanRecord:
        """A live stop or plan order; PLAN_UNKNOWN otherwise."""
        return find_plan(self._world.account(account_id), plan_id, client_id)

    def plans(
        self,
        account_id: str,
        plan_types: frozenset[PlanType] | None = None,
        symbol: str | None = None,
    ) -> list[PlanRecord]:
        """Live stops and plan orders, by id."""
        found = [
            plan
            for plan in self._world.account(account_id).plans.values()
            if symbol in (None, plan.symbol)
            and (plan_types is None or plan.plan_type in plan_types)
        ]
        return sorted(found, key=lambda plan: int(plan.plan_id))

    def plan_history(
        self,
        account_id: str,
        plan_types: frozenset[PlanType] | None = None,
        symbol: str | None = None,
    ) -> list[PlanRecord]:
        """Executed, failed and cancelled plans, in order of their end."""
        return [
            plan
            for plan in self._world.account(account_id).plan_history
            if symbol in (None, plan.symbol)
            and (plan_types is None or plan.plan_type in plan_types)
        ]

    def transfers(self, account_id: str) -> list[TransferRecord]:
        """Money that went between the account's own wallets, oldest first."""
        return list(self._world.account(account_id).transfers)

    def bills(
        self, account_id: str, market: MarketType = MarketType.FUTURES, since_ms: int = 0
    ) -> list[BillRecord]:
        """Every change of a wallet from `since_ms` on, by bill id."""
        bills = self._world.account(account_id).bills
        first = bisect_left(bills, since_ms, key=lambda bill: bill.at_ms)
        return [bill for bill in bills[first:] if bill.market is market]

    # -- market -------------------------------------------------------------------------------

    def last_price(self, symbol: str) -> Decimal:
        """The last price now; SYMBOL_NOT_LISTED before the first bar."""
        return self.price(symbol, PriceKind.LAST)

    def price(self, symbol: str, kind: PriceKind) -> Decimal:
        """Last, mark or index now; SYMBOL_NOT_LISTED before the first bar."""
        self._world.require_known(symbol)
        return self._world.prices.require_price(symbol, self._world.now_ms, kind)

    def ticker(self, symbol: str, market: MarketType = MarketType.FUTURES) -> TickerView:
        """Prices now; the 24 h figures are whole minutes plus the forming one."""
        world = self._world
        now_ms = world.now_ms
        shape = world.book_shape(market, symbol)
        last = world.prices.require_last(symbol, now_ms)
        middle = world.prices.require_tradable(symbol, now_ms)
        ask = next(world.book.levels(shape, middle, 1, now_ms), (middle, Decimal(0)))
        bid = next(world.book.levels(shape, middle, -1, now_ms), (middle, Decimal(0)))
        day = self._rolling_day(symbol)
        return TickerView(
            symbol=symbol,
            market=market,
            last=last,
            mark=world.prices.require_mark(symbol, now_ms),
            index=world.prices.require_price(symbol, now_ms, PriceKind.INDEX),
            bid=bid[0],
            ask=ask[0],
            bid_size=bid[1],
            ask_size=ask[1],
            open_24h=day.open if day is not None else last,
            high_24h=max(day.high, last) if day is not None else last,
            low_24h=min(day.low, last) if day is not None else last,
            open_utc=self._utc_open(symbol, last),
            base_volume=day.volume if day is not None else Decimal(0),
            quote_volume=day.quote_volume if day is not None else Decimal(0),
            at_ms=now_ms,
        )

    def _utc_open(self, symbol: str, otherwise: Decimal) -> Decimal:
        """The first price of the UTC day; `otherwise` where its first minute has no bar (yet)."""
        midnight_ms = self.now_ms - self.now_ms % DAY_MS
        if self.now_ms - midnight_ms < MINUTE_MS:
            bar = self._world.prices.forming_bar(symbol, midnight_ms, self.now_ms)
        else:
            bar = self._world.prices.closed_bar(symbol, midnight_ms, 1)
        return bar.open if bar is not None else otherwise

    def _rolling_day(self, symbol: str) -> Bar | None:
        """The 24 hours before the present minute, merged once per minute and symbol."""
        end_ms = self.now_ms - self.now_ms % MINUTE_MS
        cached = self._days.get(symbol)
        if cached is None or cached[0] != end_ms:
            minutes = DAY_MS // MINUTE_MS
            bar = self._world.prices.closed_bar(symbol, end_ms - DAY_MS, minutes)
            cached = (end_ms, bar)
            self._days[symbol] = cached
        return cached[1]

    def depth(
        self, symbol: str, limit: int = 50, market: MarketType = MarketType.FUTURES
    ) -> DepthView:
        """The first `limit` levels of each side."""
        world = self._world
        shape = world.book_shape(market, symbol)
        middle = world.prices.require_tradable(symbol, world.now_ms)
        asks = tuple(world.book.levels(shape, middle, 1, world.now_ms))[:limit]
        bids = tuple(world.book.levels(shape, middle, -1, world.now_ms))[:limit]
        return DepthView(symbol=symbol, asks=asks, bids=bids, at_ms=world.now_ms)

    def candles(
        self,
        symbol: str,
        interval_ms: int,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = 100,
        offset_ms: int = 0,
        include_forming: bool = True,
        kind: PriceKind = PriceKind.LAST,
    ) -> list[Bar]:
        """Bars that open in [start_ms, end_ms), ascending; the latest `limit` (at most 1000).

        `interval_ms` is whole minutes; opens are multiples of it plus `offset_ms` (weeks that begin
        on Monday: 4 days; days of UTC+8: 16 hours). Nothing after now_ms; the bar that is not over
        comes only with `include_forming`. Where the source has no data there is no bar.
        """
        self._world.require_known(symbol)
        if interval_ms < MINUTE_MS or interval_ms % MINUTE_MS:
            raise EngineRejected(RejectReason.VALUE_INVALID, f"interval of {interval_ms} ms")
        now_ms = self.now_ms
        until_ms = min(now_ms + 1, end_ms) if end_ms is not None else now_ms + 1
        open_ms = (until_ms - 1 - offset_ms) // interval_ms * interval_ms + offset_ms
        first_ms, _ = self._world.market.span(symbol)
        lowest_ms = max(start_ms or 0, (first_ms or 0) - interval_ms + 1)
        found: list[Bar] = []
        while open_ms >= lowest_ms and len(found) < min(limit, CANDLES_MAX):
            bar = self.candle(symbol, open_ms, interval_ms, kind, include_forming=include_forming)
            if bar is not None:
                found.append(bar)
            open_ms -= interval_ms
        found.reverse()
        return found

    def candle(
        self,
        symbol: str,
        open_ms: int,
        interval_ms: int,
        kind: PriceKind = PriceKind.LAST,
        *,
        include_forming: bool = True,
    ) -> Bar | None:
        """The one bar of [open_ms, open_ms + interval_ms), which may be a calendar month.

        None where there is no data, and for a bar that is not over without `include_forming`.
        """
        prices = self._world.prices
        if open_ms + interval_ms <= self.now_ms:
            return prices.closed_bar(symbol, open_ms, interval_ms // MINUTE_MS, kind)
        return prices.forming_bar(symbol, open_ms, self.now_ms, kind) if include_forming else None

    def open_interest(self, symbol: str) -> Decimal:
        """What all accounts together hold, base coin; the book is the other side of each."""
        return sum(
            (
                position.size
                for account in self._world.accounts.values()
                for position in account.positions.values()
                if position.symbol == symbol
            ),
            Decimal(0),
        )

    def next_funding(self, symbol: str) -> FundingPoint | None:
        """The next settlement and its rate, as far as the source knows it."""
        self._world.futures_rules(symbol)
        return self._world.market.next_funding(symbol, self.now_ms)

    def funding_interval_h(self, symbol: str) -> int:
        """Hours between the settlements around now; real contracts change it."""
        self._world.futures_rules(symbol)
        return self._world.market.funding_interval_h(symbol, self.now_ms)

    def funding_history(self, symbol: str, first_ms: int, last_ms: int) -> list[FundingPoint]:
        """Settlements of [first_ms, last_ms] that are not in the future."""
        self._world.futures_rules(symbol)
        until_ms = min(last_ms, self.now_ms)
        return list(self._world.market.funding_between(symbol, first_ms, until_ms))

    # -- proof --------------------------------------------------------------------------------

    def ledger_dump(self, until_ms: int | None = None) -> str:
        """Entries, balances and orders as canonical JSON: equal worlds give equal bytes."""
        return dump_ledger(self._world, until_ms)
