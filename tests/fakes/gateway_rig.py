"""A gateway whose every part is in memory, for tests of what it decides."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from module.db.repositories.accounts import AccountRecord
from module.gateway.account_opening import OpeningRules
from module.gateway.moment import MomentClock
from module.gateway.service import Gateway, GatewayRules, GatewayStores
from module.model.orders import OrderRequest, OrderType, Side, StopPrices, WriteStamp
from module.security.credentials import KeyRing
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
from tests.fakes.hand_clock import HandClock
from tests.fakes.memory_venue import MemoryVenue, MemoryVenues
from tests.fakes.watched_account import KeptAlerts

SESSION = "2611211130-ab3x"


@dataclass
class GatewayRig:
    """Everything, with handles on it."""

    clock: HandClock = field(default_factory=HandClock)
    postgres: MemoryPostgres = field(default_factory=MemoryPostgres)
    paper: MemoryPaper = field(default_factory=MemoryPaper)
    alerts: KeptAlerts = field(default_factory=KeptAlerts)
    record: AccountRecord = field(default_factory=account)
    gateway_id: str = "gw-1"

    def __post_init__(self) -> None:
        if self.record.account_id not in self.postgres.records:
            self.postgres.put_account(self.record)
        self.venue = MemoryVenue(self.clock)
        self.venues = MemoryVenues(self.venue)
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.gateway = self.another(self.gateway_id)

    def another(self, gateway_id: str, stores: GatewayStores | None = None) -> Gateway:
        """A second gateway process over the same Postgres (or `stores`) and exchange."""
        return Gateway(
            stores=stores
            or GatewayStores(
                accounts=MemoryAccounts(self.postgres),
                leases=MemoryLeases(self.postgres, gateway_id),
                writes=MemoryWrites(self.postgres),
                stops=MemoryWantedStops(self.postgres),
                periods=MemoryBarePeriods(self.postgres),
            ),
            venues=self.venues,
            paper=self.paper,
            clock=MomentClock(self.clock),  # as the assembly does
            make_loop_clock=HandClock,  # of its own: the thread must not move the test's time
            alerts=self.alerts,
            rules=GatewayRules(
                installation="test",
                opening=OpeningRules(
                    simulator_url="http://127.0.0.1:9",
                    paper_market_id="synthetic:7",
                    allowed_venue_urls=("https://api.bitget.com",),
                    keys=KeyRing(lambda: {1: CREDENTIALS_KEY}),
                ),
                market_urls={},
                spool_folder=Path(self._folder.name),
            ),
        )

    def stamp(self, epoch: int = 7, seconds: float = 30) -> WriteStamp:
        return WriteStamp(SESSION, epoch, self.clock.now() + timedelta(seconds=seconds))


def buy(client_id: str = "af-1", size: str = "0.0123", **changes: object) -> OrderRequest:
    """An opening market buy of BTCUSDT, with whatever is changed."""
    values: dict[str, object] = {
        "client_id": client_id,
        "symbol": "BTCUSDT",
        "side": Side.BUY,
        "size": Decimal(size),
        "reduce_only": False,
        "order_type": OrderType.MARKET,
        "stops": StopPrices(),
        **changes,
    }
    return OrderRequest(**values)  # type: ignore[arg-type]


def sell(client_id: str = "af-2", size: str = "0.0123", **changes: object) -> OrderRequest:
    """A reducing market sell of BTCUSDT, with whatever is changed."""
    return buy(client_id, size, **{"side": Side.SELL, "reduce_only": True, **changes})
