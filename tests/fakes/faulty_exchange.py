"""A gateway in this process whose exchange is the real paper exchange, which fails on demand.

Stores are in memory; the venue is Bitget's adapter over loopback HTTP; time is the simulator's and
moves when the test sleeps. The protection loop is stepped by hand.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from module.clock import WorldClock
from module.exchange.bitget_venue import CcxtVenues
from module.gateway.account_opening import OpeningRules
from module.gateway.service import Gateway, GatewayRules, GatewayStores
from module.model.market import MarketType
from module.model.money import round_down
from module.model.orders import OrderRequest, StopPrices, SubmitResult, WriteStamp
from module.security.credentials import KeyRing
from tests.fakes.gateway_rig import SESSION, buy
from tests.fakes.gateway_stores import (
    CREDENTIALS_KEY,
    MemoryAccounts,
    MemoryBarePeriods,
    MemoryLeases,
    MemoryPaper,
    MemoryPostgres,
    MemoryWantedStops,
    MemoryWrites,
    account,
)
from tests.fakes.simulator_process import RunningSimulator
from tests.fakes.watched_account import KeptAlerts


@dataclass
class FaultyExchange:
    """One account, one gateway. `fault` tells the exchange how to misbehave."""

    simulator: RunningSimulator
    clock: WorldClock
    folder: Path
    postgres: MemoryPostgres = field(default_factory=MemoryPostgres)
    alerts: KeptAlerts = field(default_factory=KeptAlerts)
    market: MarketType = MarketType.FUTURES

    def __post_init__(self) -> None:
        is_spot = self.market is MarketType.SPOT
        self.keys = self.simulator.open_account(
            futures_usdt="0" if is_spot else "10007", spot_usdt="10007" if is_spot else "0"
        )
        self.account_id = f"acc-{uuid.uuid4().hex[:8]}"
        self.postgres.put_account(
            account(self.account_id, base_url=self.simulator.base_url, market=self.market),
            self.keys,
        )
        self.gateway = Gateway(
            stores=GatewayStores(
                accounts=MemoryAccounts(self.postgres),
                leases=MemoryLeases(self.postgres),
                writes=MemoryWrites(self.postgres),
                stops=MemoryWantedStops(self.postgres),
                periods=MemoryBarePeriods(self.postgres),
            ),
            venues=CcxtVenues(self.clock),
            paper=MemoryPaper(),
            clock=self.clock,
            make_loop_clock=lambda: self.clock,
            alerts=self.alerts,
            rules=GatewayRules(
                installation="test",
                is_stepped=True,
                opening=OpeningRules(
                    simulator_url=self.simulator.base_url,
                    paper_market_id=self.simulator.market_id,
                    allowed_venue_urls=(),
                    keys=KeyRing(lambda: {1: CREDENTIALS_KEY}),
                ),
                market_urls={},
                spool_folder=self.folder,
            ),
        )
        self.clock.sleep(1.2)

    def fault(self, catalogue: str, **words: object) -> None:
        self.simulator.control("POST", "faults", {"catalogue": catalogue, **words})

    def fired(self) -> int:
        rules = self.simulator.control("GET", "faults")["rules"]
        assert isinstance(rules, list)
        return sum(int(rule["fired"]) for rule in rules)

    def stamp(self) -> WriteStamp:
        return WriteStamp(SESSION, 7, self.clock.now() + timedelta(seconds=30))

    def submit(self, *orders: OrderRequest) -> list[SubmitResult]:
        """Send, and let fills happen."""
        results = self.gateway.submit(self.account_id, self.stamp(), orders)
        self.clock.sleep(1.2)
        return results

    def price(self, factor: str, symbol: str = "BTCUSDT") -> Decimal:
        quote = self.gateway.quotes(self.account_id, [symbol])[symbol]
        step = self.gateway.instruments(self.account_id)[symbol].price_step
        return round_down(quote.mark * Decimal(factor), step)

    def stops(self) -> StopPrices:
        return StopPrices(self.price("0.9"), self.price("1.1"))

    def protected_long(self, size: str = "0.0123") -> StopPrices:
        """A long with stops, seen by the guard; the stops."""
        stops = self.stops()
        self.submit(buy("af-first", size, stops=stops))
        self.look()
        return stops

    def look(self, after_s: float = 1.2) -> None:
        """The protection loop, thoroughly."""
        self.clock.sleep(after_s)
        loop = self.gateway._loop
        for watch in loop._watches.values():
            watch.due, watch.thorough_at = [], None
        loop.step(self.clock.now())

    def ledger(self) -> dict[str, object]:
        return self.simulator.ledger(self.keys.api_key)

    def orders_at_the_exchange(self, prefix: str = "af-") -> list[str]:
        rows = self.ledger()["orders"]
        assert isinstance(rows, list)
        return [row["clientOid"] for row in rows if str(row["clientOid"]).startswith(prefix)]

    def held(self, symbol: str = "BTCUSDT") -> Decimal:
        rows = self.ledger()["positions"]
        assert isinstance(rows, list)
        total = Decimal(0)
        for row in rows:
            if row["symbol"] == symbol:
                total += Decimal(row["total"]) * (1 if row["holdSide"] == "long" else -1)
        return total

    def stops_held(self, symbol: str = "BTCUSDT") -> StopPrices | None:
        for position in self.gateway.snapshot(self.account_id).positions:
            if position.symbol == symbol:
                return position.stops
        return None

    def outcomes(self) -> dict[str, str | None]:
        """What the audit says of each order."""
        return {str(write.client_id): write.outcome for write in self.postgres.orders()}


@contextmanager
def faulty_exchange(
    simulator: RunningSimulator, clock: WorldClock, market: MarketType = MarketType.FUTURES
) -> Iterator[FaultyExchange]:
    with tempfile.TemporaryDirectory() as folder:
        exchange = FaultyExchange(simulator, clock, Path(folder), market=market)
        try:
            yield exchange
        finally:
            exchange.gateway._desk.close()
            simulator.control("DELETE", "faults")
