"""The gateway: the only code that holds exchange keys and talks to an exchange.

`api/routers/gateway.py` translates HTTP to the calls of `Gateway`; a test may call them directly.
Everything it needs is an argument; `module/gateway/assembly.py` puts the real parts together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from module.exchange.venue import PublicMarket, VenueFactory
from module.gateway.account_care import AccountCare
from module.gateway.account_desk import AccountDesk
from module.gateway.account_opening import AccountOpening, NewAccount, OpeningRules
from module.gateway.alarms import Alarms
from module.gateway.audit import Audit
from module.gateway.budget import RequestBudget
from module.gateway.moment import MomentClock
from module.gateway.numbers import GatewayCounts, GatewayNumbers
from module.gateway.order_path import OrderPath
from module.gateway.protection import PositionGuard
from module.gateway.protection_loop import ProtectionLoop
from module.gateway.settings_path import CLIENT_ID, SETTINGS_FRESH_S, SettingsPath
from module.gateway.spool import Spool
from module.gateway.stores import (
    AccountStore,
    BarePeriodStore,
    LeaseStore,
    PaperExchange,
    WantedStopStore,
    WriteLog,
)
from module.gateway.tracing import Tracer
from module.model.accounts import (
    AccountCheck,
    AccountSnapshot,
    Bill,
    ClosedPosition,
    MarginMode,
    SymbolSettings,
)
from module.model.books import Depth, MarginTier
from module.model.canonical import instant_text
from module.model.credentials import Credentials
from module.model.errors import InvalidInput, NotFound
from module.model.market import Candle, Frequency, Instrument, MarketType, Quote
from module.model.orders import (
    Fill,
    MissingOrder,
    OrderReport,
    OrderRequest,
    OrderTrace,
    StopPrices,
    SubmitResult,
    WriteStamp,
)
from module.ports import AlertSink, Clock

SYMBOLS_MAX = 500
CANDLES_MAX = 1000


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """What differs between installations. `market_urls`: market_id → (venue, base URL).

    `spool_folder` keeps what Postgres does not take; None: without Postgres nothing is sent.
    """

    installation: str
    opening: OpeningRules
    market_urls: Mapping[str, tuple[str, str]]
    spool_folder: Path | None = None
    is_stepped: bool = False
    """The world's clock is a stepped one: it stands still while the gateway looks."""


@dataclass(frozen=True, slots=True)
class GatewayStores:
    """Where the gateway remembers; the repositories of `finplatform`."""

    accounts: AccountStore
    leases: LeaseStore
    writes: WriteLog
    stops: WantedStopStore
    periods: BarePeriodStore


@dataclass(slots=True)
class _Markets:
    """Public sides of venues, opened at first use."""

    venues: VenueFactory
    budget: RequestBudget
    urls: Mapping[str, tuple[str, str]]
    opened: dict[str, PublicMarket] = field(default_factory=dict)

    def get(self, market_id: str) -> PublicMarket:
        found = self.opened.get(market_id)
        if found is not None:
            return found
        if market_id not in self.urls:
            raise NotFound(
                f"this gateway has no market {market_id[:64]!r}; it has {sorted(self.urls)}"
            )
        venue, base_url = self.urls[market_id]
        gate = self.budget.for_account(base_url, "public")
        return self.opened.setdefault(market_id, self.venues.open_public(venue, base_url, gate))


class Gateway:
    """One account at a time, by its id. Callers have been let in by their grant already."""

    def __init__(
        self,
        *,
        stores: GatewayStores,
        venues: VenueFactory,
        paper: PaperExchange | None,
        clock: Clock,
        make_loop_clock: Callable[[], Clock],
        alerts: AlertSink | None,
        rules: GatewayRules,
    ) -> None:
        """`clock` serves request handlers (an observer in a stepped world: it never waits);
        `make_loop_clock` is called in the protection thread and makes the participant
        `module.gateway.protection.PARTICIPANT`.
        """
        self._counts = GatewayCounts()
        budget = self._budget = RequestBudget(clock, self._counts, is_stepped=rules.is_stepped)
        self._clock = clock
        self._moment = clock.moment if isinstance(clock, MomentClock) else nullcontext
        self._alarms = Alarms(alerts, clock)
        spool = None if rules.spool_folder is None else Spool(rules.spool_folder)
        self._desk = AccountDesk(
            accounts=stores.accounts,
            leases=stores.leases,
            audit=Audit(stores.writes, stores.stops, stores.periods, spool, clock),
            venues=venues,
            budget=budget,
            clock=clock,
            keys=rules.opening.keys,
            paper_url=rules.opening.simulator_url,
        )
        self._orders = OrderPath(self._desk, self._alarms)
        self._settings = SettingsPath(self._desk)
        self._tracer = Tracer(self._desk)
        self._guard = PositionGuard(self._desk, self._orders, rules.installation, self._alarms)
        self._loop = ProtectionLoop(
            self._desk,
            self._guard,
            self._alarms,
            make_loop_clock,
            is_stepped=rules.is_stepped,
            counts=self._counts,
        )
        self._opening = AccountOpening(
            accounts=stores.accounts,
            venues=venues,
            budget=budget,
            paper=paper,
            clock=clock,
            rules=rules.opening,
        )
        self._care = AccountCare(
            accounts=stores.accounts,
            desk=self._desk,
            venues=venues,
            budget=budget,
            keys=rules.opening.keys,
            clock=clock,
        )
        self._markets = _Markets(venues, budget, rules.market_urls)

    def start(self) -> None:
        """Begin to protect: call once, after the process has its final pid."""
        self._desk.on_write = self._loop.nudge
        self._loop.start()

    def stop(self) -> None:
        """End the protection loop and every connection."""
        self._loop.stop()
        self._desk.close()
        for market in self._markets.opened.values():
            market.close()

    def is_alive(self) -> bool:
        """Whether the protection loop runs; without it this process is of no use."""
        return self._loop.is_alive()

    def health(self) -> dict[str, object]:
        """What a person wants to know: is the protection loop alive, what is unprotected, which
        accounts this process owns and which are halted, which addresses do not answer, how many
        records wait for Postgres."""
        owned, now = self._desk.all_owned(), self._clock.now()
        return {
            **self._loop.health(),
            "owned": sum(account.lease_held for account in owned),
            "open": len(owned),
            "halted": {a.account_id: a.halted for a in owned if a.halted},
            "circuits": [
                {
                    "address": item.address,
                    "endpoints": item.endpoints.value,
                    "state": item.state.value,
                    "since": instant_text(now - timedelta(seconds=item.troubled_s)),
                    "failures": item.failures,
                }
                for item in self._budget.troubled()
            ],
            "spooled": self._desk.audit.waiting,
            "unprotected_times": self._guard.unprotected_times.figures(),
        }

    def numbers(self) -> GatewayNumbers:
        """What is counted and how things stand, without a request or a query."""
        owned = self._desk.all_owned()
        now = self._clock.now()
        bare = self._guard.unprotected_times.open_now()
        periods, unprotected_s = self._guard.unprotected_times.totals(now)
        return GatewayNumbers(
            counts=self._counts.read(),
            protection=self._loop.numbers(),
            rooms=tuple(self._budget.rooms()),
            shut_out=self._budget.shut_out(),
            circuits=Counter(item.endpoints.value for item in self._budget.troubled()),
            accounts_open=len(owned),
            leases_held=sum(account.lease_held for account in owned),
            halted=sum(bool(account.halted) for account in owned),
            unprotected=len(bare),
            unprotected_oldest_s=max(
                ((now - period.started_at).total_seconds() for period in bare), default=0.0
            ),
            unprotected_periods=periods,
            unprotected_s=unprotected_s,
            unresolved=sum(len(account.unresolved) for account in owned),
            spooled=self._desk.audit.waiting,
            spool_bytes=self._desk.audit.waiting_bytes,
            skew_s=max((account.skew_s for account in owned), key=abs, default=0.0),
        )

    # --- reads of one account ------------------------------------------------------------------

    def snapshot(self, account_id: str) -> AccountSnapshot:
        """See `ports.Exchange.snapshot`."""
        with self._moment():
            owned = self._desk.open(account_id)
            reading = owned.begin_reading(self._clock.now())
            snapshot = owned.venue.snapshot()
            owned.keep_positions(snapshot.positions, reading)
            for report in snapshot.open_orders:
                self._orders.check_read_back(owned, report)
            return snapshot

    def instruments(self, account_id: str) -> Mapping[str, Instrument]:
        """See `ports.Exchange.instruments`."""
        return self._desk.open(account_id).venue.instruments()

    def quotes(self, account_id: str, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """See `ports.Exchange.quotes`."""
        _check_symbols(symbols)
        return self._desk.open(account_id).venue.quotes(symbols)

    def symbol_settings(
        self, account_id: str, symbols: Sequence[str]
    ) -> Mapping[str, SymbolSettings]:
        """See `ports.Exchange.symbol_settings`; at most half a minute old.

        Asks the exchange symbol by symbol: where the budget ends in the middle, RateLimited is
        raised, and the repeated call goes on from there.
        """
        _check_symbols(symbols)
        venue = self._desk.open(account_id).venue
        if venue.market is not MarketType.FUTURES:
            raise InvalidInput("a spot account has neither leverage nor margin mode")
        modes = venue.trading_modes(symbols, max_age_s=SETTINGS_FRESH_S)
        return {symbol: mode.settings for symbol, mode in modes.items()}

    def order(self, account_id: str, symbol: str, client_id: str) -> OrderReport:
        """See `ports.Exchange.order`."""
        if not CLIENT_ID.match(client_id):
            raise InvalidInput(f"not a client id: {client_id[:40]!r}")
        owned = self._desk.open(account_id)
        report = owned.venue.order(symbol, client_id)
        self._orders.check_read_back(owned, report)
        return report

    def fills(self, account_id: str, since: datetime) -> list[Fill]:
        """See `ports.Exchange.fills`."""
        with self._moment():
            owned = self._desk.open(account_id)
            found = owned.venue.fills(since)
            self._orders.check_fills(owned, found)
            return found

    def bills(self, account_id: str, since: datetime) -> list[Bill]:
        """See `ports.Exchange.bills`."""
        return self._desk.open(account_id).venue.bills(since)

    def closed_positions(self, account_id: str, since: datetime) -> list[ClosedPosition]:
        """See `ports.Exchange.closed_positions`."""
        return self._desk.open(account_id).venue.closed_positions(since)

    # --- writes --------------------------------------------------------------------------------

    def submit(
        self, account_id: str, stamp: WriteStamp, orders: Sequence[OrderRequest]
    ) -> list[SubmitResult]:
        """See `ports.Exchange.submit`."""
        with self._moment():
            results = self._orders.submit(self._desk.open(account_id), stamp, orders)
        for result in results:
            self._counts.ordered(result.outcome.value)
        return results

    def rule_out(self, account_id: str, stamp: WriteStamp, missing: MissingOrder) -> OrderTrace:
        """See `ports.Exchange.rule_out`."""
        return self._tracer.rule_out(self._desk.open(account_id), stamp, missing)

    def cancel(self, account_id: str, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        """See `ports.Exchange.cancel`."""
        self._settings.cancel(self._desk.open(account_id), stamp, symbol, client_id)

    def apply_symbol_settings(
        self,
        account_id: str,
        stamp: WriteStamp,
        symbol: str,
        leverage: Decimal,
        margin_mode: MarginMode,
    ) -> SymbolSettings:
        """See `ports.Exchange.apply_symbol_settings`."""
        owned = self._desk.open(account_id)
        return self._settings.apply_settings(owned, stamp, symbol, leverage, margin_mode)

    def set_stops(
        self, account_id: str, stamp: WriteStamp, symbol: str, stops: StopPrices
    ) -> StopPrices:
        """See `ports.Exchange.set_stops`."""
        return self._guard.set_stops(self._desk.open(account_id), stamp, symbol, stops)

    # --- public market data ----------------------------------------------------------------------

    def market_instruments(self, market_id: str, market: MarketType) -> Mapping[str, Instrument]:
        """Trading rules of a public market."""
        return self._markets.get(market_id).instruments(market)

    def market_candles(
        self,
        market_id: str,
        market: MarketType,
        symbol: str,
        frequency: Frequency,
        end: datetime,
        limit: int,
    ) -> list[Candle]:
        """Up to `limit` closed bars that close at or before `end`, oldest first."""
        if not 1 <= limit <= CANDLES_MAX:
            raise InvalidInput(f"limit must be within 1 and {CANDLES_MAX}, got {limit}")
        return self._markets.get(market_id).candles(market, symbol, frequency, end, limit)

    def market_depth(self, market_id: str, market: MarketType, symbol: str) -> Depth:
        """The order book of one symbol now, best prices first."""
        return self._markets.get(market_id).depth(market, symbol)

    def market_tiers(self, market_id: str, symbol: str) -> tuple[MarginTier, ...]:
        """What futures positions of one symbol must keep, by size, smallest first."""
        return self._markets.get(market_id).margin_tiers(symbol)

    # --- accounts --------------------------------------------------------------------------------

    def open_paper_account(
        self, owner_id: str, label: str, market: MarketType, balance: Decimal
    ) -> str:
        """A new paper account; its account id."""
        return self._watched(self._opening.open_paper(owner_id, label, market, balance))

    def deposit(self, account_id: str, amount: Decimal) -> None:
        """Transfer USDT into a paper account."""
        self._opening.deposit(account_id, amount)

    def add_account(self, account: NewAccount) -> str:
        """Check and save a real or demo account; its account id."""
        return self._watched(self._opening.add(account))

    def check_account(self, account_id: str) -> AccountCheck:
        """See `AccountCare.check`."""
        return self._care.check(account_id)

    def replace_keys(self, account_id: str, credentials: Credentials, *, force: bool) -> None:
        """See `AccountCare.replace_keys`."""
        self._care.replace_keys(account_id, credentials, force=force)

    def switch_off_account(self, account_id: str, *, erase_keys: bool, force: bool) -> None:
        """See `AccountCare.switch_off`."""
        self._care.switch_off(account_id, erase_keys=erase_keys, force=force)

    def switch_on_account(self, account_id: str) -> None:
        """See `AccountCare.switch_on`."""
        self._care.switch_on(account_id)

    def _watched(self, account_id: str) -> str:
        """Protect it from now on, and have its lease and connections ready for the first order."""
        self._desk.on_write(account_id)
        return account_id

    # --- protection ------------------------------------------------------------------------------

    def protect_now(self, account_id: str) -> tuple[str, ...]:
        """Look at one account at once, as the loop does; symbols that stay unprotected."""
        owned = self._desk.open(account_id)
        self._desk.own(owned)
        return self._guard.look(owned, thorough=True).unprotected


def _check_symbols(symbols: Sequence[str]) -> None:
    if not 1 <= len(symbols) <= SYMBOLS_MAX:
        raise InvalidInput(f"name 1 to {SYMBOLS_MAX} symbols, got {len(symbols)}")
