"""The same stores twice: repositories on a real Postgres, and the simulation's model of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from module.db.database import Database
from module.db.repositories.accounts import AccountLeases, AccountRecord, AccountRepository
from module.db.repositories.gateway_writes import Author, WriteRepository
from module.db.repositories.order_info import PostgresOrderInfoStore
from module.db.repositories.results import ResultsRepository
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.users import Role, UserRepository
from module.db.repositories.wanted_stops import WantedStopRepository
from module.gateway.stores import LeaseStore
from module.model.accounts import MarginMode, TradeEnv
from module.model.credentials import SealedCredentials
from module.model.market import MarketType
from module.model.sessions import EndState, SessionSpec, TradeMode, new_session_id
from module.settings import Settings
from tests.simulation.fault_postgres import SimulatedPostgres
from tests.simulation.memory_postgres.gateway import (
    MemoryAccounts,
    MemoryWantedStops,
    MemoryWrites,
)
from tests.simulation.memory_postgres.letters import MemoryLetterStore
from tests.simulation.memory_postgres.results import MemoryResults
from tests.simulation.memory_postgres.sessions import MemorySessions

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@dataclass
class Stores:
    """One installation's stores; `database` is None for the model."""

    accounts: AccountRepository | MemoryAccounts
    writes: WriteRepository | MemoryWrites
    stops: WantedStopRepository | MemoryWantedStops
    sessions: SessionRepository | MemorySessions
    results: ResultsRepository | MemoryResults
    database: Database | None
    model: SimulatedPostgres | None

    def leases(self, gateway_id: str) -> LeaseStore:
        """The leases of one gateway process."""
        if self.database is not None:
            return AccountLeases(self.database, gateway_id)
        assert self.model is not None
        return self.model.leases(gateway_id)

    def letters(self, session_id: str) -> PostgresOrderInfoStore | MemoryLetterStore:
        """The store of a session whose letter's truth is its row."""
        if self.database is not None:
            return PostgresOrderInfoStore(self.database, session_id)
        assert self.model is not None
        return self.model.letters(session_id)

    def owner(self) -> str:
        """A fresh user."""
        if self.database is None:
            return str(uuid.uuid4())
        return UserRepository(self.database).add(f"u-{uuid.uuid4()}", Role.TRADER, NOON).user_id

    def account(self, **changes: object) -> AccountRecord:
        """A stored paper account of epoch 7 of a fresh user."""
        record = AccountRecord(
            account_id=str(uuid.uuid4()),
            owner_id=self.owner(),
            label="mine",
            venue="bitget",
            market=MarketType.FUTURES,
            market_id="synthetic:7",
            trade_env=TradeEnv.PAPER,
            base_url="http://127.0.0.1:9",
            active=True,
            epoch=7,
            gateway_lease=None,
            initial_balance=Decimal("10007.5"),
            key_hint="…",
            limits={},
            created_at=NOON,
        )
        record = replace(record, **changes)  # type: ignore[arg-type]
        self.accounts.add(record, SealedCredentials(1, b"sealed"))
        return record

    def author(self, account: AccountRecord, *, epoch: int = 7, gateway: str = "gw-1") -> Author:
        """Who writes to it."""
        return Author(account.account_id, "2611211130-ab3x", epoch, gateway)

    def spec(self, account: AccountRecord) -> SessionSpec:
        """A session on it that is not stored yet."""
        return SessionSpec(
            session_id=new_session_id(NOON, uuid.uuid4().bytes),
            installation="local",
            owner_id=account.owner_id,
            account_id=account.account_id,
            market=MarketType.FUTURES,
            market_id="synthetic:7",
            trade_env=TradeEnv.PAPER,
            trade_mode=TradeMode.REBALANCING,
            strategy_name="equal_weight",
            strategy_digest="d" * 64,
            config={"symbols": ["BTCUSDT"]},
            interval=timedelta(minutes=15),
            leverage=Decimal(2),
            margin_mode=MarginMode.CROSSED,
            allocated=None,
            compounding=False,
            threshold=Decimal("0.01"),
            default_stop_loss_pct=None,
            target_volatility=None,
            on_end=EndState.PROTECTED,
            apply_account_settings=False,
            adopt_existing=False,
            started_at=NOON,
            ends_at=NOON + timedelta(hours=24),
        )


@pytest.fixture(params=["model", "postgres"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """The model, then the truth."""
    if request.param == "model":
        model = SimulatedPostgres(lambda: NOON)
        yield Stores(
            model.accounts, model.writes, model.stops, model.sessions, model.results, None, model
        )
        return
    postgres: Settings = request.getfixturevalue("postgres")
    database = Database(postgres, "finplatform", 5)
    results = Database(postgres, "finwatcher", 2)
    yield Stores(
        AccountRepository(database),
        WriteRepository(database),
        WantedStopRepository(database),
        SessionRepository(database),
        ResultsRepository(results),
        database,
        None,
    )
    database.close()
    results.close()
