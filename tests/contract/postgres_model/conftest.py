"""The same stores twice: repositories on a real Postgres, and the simulation's model of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.db.database import Database
from module.db.repositories.accounts import AccountLeases, AccountRecord, AccountRepository
from module.db.repositories.gateway_writes import Author, WriteRepository
from module.db.repositories.order_info import PostgresOrderInfoStore
from module.db.repositories.results import ResultsRepository
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.unprotected_periods import UnprotectedPeriodRepository
from module.db.repositories.users import Role, UserRepository
from module.db.repositories.wanted_stops import WantedStopRepository
from module.gateway.stores import LeaseStore
from module.model.credentials import SealedCredentials
from module.model.sessions import SessionSpec
from module.settings import Settings
from tests.fakes.stored_rows import NOON, paper_account, session_spec
from tests.simulation.fault_postgres import SimulatedPostgres
from tests.simulation.memory_postgres.gateway import (
    MemoryAccounts,
    MemoryBarePeriods,
    MemoryWantedStops,
    MemoryWrites,
)
from tests.simulation.memory_postgres.letters import MemoryLetterStore
from tests.simulation.memory_postgres.results import MemoryResults
from tests.simulation.memory_postgres.sessions import MemorySessions


@dataclass
class Stores:
    """One installation's stores; `database` is None for the model."""

    accounts: AccountRepository | MemoryAccounts
    writes: WriteRepository | MemoryWrites
    stops: WantedStopRepository | MemoryWantedStops
    periods: UnprotectedPeriodRepository | MemoryBarePeriods
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
        record = paper_account(self.owner(), epoch=7, initial_balance=Decimal("10007.5"))
        record = replace(record, **changes)  # type: ignore[arg-type]
        self.accounts.add(record, SealedCredentials(1, b"sealed"))
        return record

    def author(self, account: AccountRecord, *, epoch: int = 7, gateway: str = "gw-1") -> Author:
        """Who writes to it."""
        return Author(account.account_id, "2611211130-ab3x", epoch, gateway)

    def spec(self, account: AccountRecord) -> SessionSpec:
        """A session on it that is not stored yet."""
        return session_spec(
            account.owner_id,
            account.account_id,
            config={"symbols": ["BTCUSDT"]},
            interval=timedelta(minutes=15),
            leverage=Decimal(2),
            ends_at=NOON + timedelta(hours=24),
        )


@pytest.fixture(params=["model", "postgres"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """The model, then the truth."""
    if request.param == "model":
        model = SimulatedPostgres(lambda: NOON)
        yield Stores(
            model.accounts,
            model.writes,
            model.stops,
            model.periods,
            model.sessions,
            model.results,
            None,
            model,
        )
        return
    postgres: Settings = request.getfixturevalue("postgres")
    database = Database(postgres, "finplatform", 5)
    results = Database(postgres, "finwatcher", 2)
    yield Stores(
        AccountRepository(database),
        WriteRepository(database),
        WantedStopRepository(database),
        UnprotectedPeriodRepository(database),
        SessionRepository(database),
        ResultsRepository(results),
        database,
        None,
    )
    database.close()
    results.close()
