"""What the gateway writes down: late rows once, newer wishes kept, limits as of the very moment."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, update

from module.db.database import Database
from module.db.platform_tables import Account, GatewayWrite, User
from module.db.repositories.accounts import AccountRepository
from module.db.repositories.gateway_writes import (
    GATE_REFUSED,
    Author,
    WriteEntry,
    WriteKind,
    WriteOutcome,
    WriteRepository,
)
from module.db.repositories.wanted_stops import WantedStopRepository, WantedStops
from module.model.orders import StopPrices
from module.security.credentials import new_credentials, seal_credentials
from module.settings import Settings
from tests.fakes.gateway_stores import CREDENTIALS_KEY, account

pytestmark = pytest.mark.timeout(60)
AT = datetime(2026, 11, 21, 11, 30, 7, tzinfo=UTC)
OWNER = "77777777-2222-3333-4444-555555555555"
LOW, HIGH = StopPrices(Decimal("50000.5")), StopPrices(Decimal("51000.5"))


@dataclass
class Memory:
    """An account in a real Postgres."""

    database: Database
    account_id: str

    @property
    def writes(self) -> WriteRepository:
        return WriteRepository(self.database)

    @property
    def stops(self) -> WantedStopRepository:
        return WantedStopRepository(self.database)

    @property
    def author(self) -> Author:
        return Author(self.account_id, "2611211130-ab3x", 7, "gw-1")

    def rows(self) -> list[GatewayWrite]:
        with self.database.read() as session:
            query = select(GatewayWrite).where(GatewayWrite.account_id == self.account_id)
            return list(session.execute(query.order_by(GatewayWrite.write_id)).scalars())

    def wanted(self, stops: StopPrices, *, epoch: int = 7, seconds: int = 0) -> WantedStops:
        at = AT + timedelta(seconds=seconds)
        return WantedStops(self.account_id, "BTCUSDT", True, stops, epoch, at)

    def kept(self) -> list[StopPrices]:
        return [row.stops for row in self.stops.list_for_account(self.account_id)]


@pytest.fixture
def memory(postgres: Settings) -> Iterator[Memory]:
    database = Database(postgres, "finplatform")
    account_id = str(uuid.uuid4())
    with database.transaction() as session:
        session.merge(
            User(user_id=OWNER, name="gateway memory", role="trader", active=True, created_at=AT)
        )
    record = account(account_id, owner_id=OWNER, label=account_id)
    sealed = seal_credentials(new_credentials(), account_id, CREDENTIALS_KEY)
    AccountRepository(database).add(record, sealed)
    with database.transaction() as session:
        session.execute(
            update(Account).where(Account.account_id == account_id).values(gateway_lease="gw-1")
        )
    yield Memory(database, account_id)
    database.close()


def test_a_late_write_is_written_once_however_often_it_is_told(memory: Memory) -> None:
    first = WriteEntry(WriteKind.STOPS, "BTCUSDT", {"late_id": "a1"})
    second = WriteEntry(WriteKind.STOPS, "BTCUSDT", {"late_id": "b2"})
    for _ in range(3):
        memory.writes.add_late(memory.author, [(first, WriteOutcome.ACCEPTED, {}, AT)])
    memory.writes.add_late(memory.author, [(second, WriteOutcome.UNKNOWN, {}, AT)])
    assert [row.request["late_id"] for row in memory.rows()] == ["a1", "b2"]
    assert [write.request["late_id"] for write in memory.writes.unresolved(memory.account_id)] == [
        "b2"
    ]


def test_a_wish_that_comes_late_never_replaces_a_newer_one(memory: Memory) -> None:
    memory.stops.put(memory.wanted(HIGH, seconds=10))
    memory.stops.put(memory.wanted(LOW))
    memory.stops.put(memory.wanted(LOW, epoch=6, seconds=20))
    memory.stops.remove(memory.account_id, "BTCUSDT", AT + timedelta(seconds=5))
    assert memory.kept() == [HIGH]
    memory.stops.put(memory.wanted(LOW, epoch=8))
    assert memory.kept() == [LOW]
    memory.stops.remove(memory.account_id, "BTCUSDT", AT)
    assert memory.kept() == []


def test_I22_rows_come_back_with_the_limits_of_that_moment(memory: Memory) -> None:
    def reserve(client_id: str) -> object:
        entry = WriteEntry(WriteKind.ORDER, "BTCUSDT", {}, client_id)
        return dict(memory.writes.reserve_orders(memory.author, [entry], AT).limits)

    assert reserve("af-1") == {}
    AccountRepository(memory.database).change(memory.account_id, limits={"kill_switch": True})
    assert reserve("af-2") == {"kill_switch": True}
    assert reserve("af-2") == {"kill_switch": True}, "seen before, and still told"


def test_an_outcome_and_the_stops_that_go_with_it_are_kept_as_one(memory: Memory) -> None:
    entry = WriteEntry(WriteKind.ORDER, "BTCUSDT", {}, "af-1")
    reserved = memory.writes.reserve_orders(memory.author, [entry], AT)
    (number,) = reserved.fresh.values()
    outcome = {number: (WriteOutcome.ACCEPTED, {"order_id": "77"})}
    memory.writes.record_outcomes(outcome, AT, [memory.wanted(LOW), memory.wanted(HIGH)])
    assert [row.outcome for row in memory.rows()] == ["accepted"]
    assert memory.kept() == [HIGH], "the last wish for a symbol"
    memory.writes.record_outcomes({}, AT, [memory.wanted(LOW, epoch=6)])
    assert memory.kept() == [HIGH], "an older epoch's wish changes nothing"
    memory.writes.record_outcomes({number: (WriteOutcome.UNKNOWN, {})}, AT)
    assert [row.outcome for row in memory.rows()] == ["accepted"], "never weakened"


def test_I1_a_batch_of_new_and_known_ids_says_which_is_which(memory: Memory) -> None:
    def entries(*names: str) -> list[WriteEntry]:
        return [WriteEntry(WriteKind.ORDER, "BTCUSDT", {"name": name}, name) for name in names]

    first = memory.writes.reserve_orders(memory.author, entries("af-1", "af-2"), AT)
    assert set(first.fresh) == {"af-1", "af-2"}
    numbers = first.fresh
    memory.writes.record_outcomes({numbers["af-1"]: (WriteOutcome.NOT_SENT, {})}, AT)
    again = memory.writes.reserve_orders(memory.author, entries("af-1", "af-2", "af-3"), AT)
    assert set(again.fresh) == {"af-1", "af-3"}, "what was not sent is free again"
    assert set(again.seen) == {"af-2"}
    assert again.again == {"af-1"}, "it was on its way before"
    assert again.seen["af-2"].request == {"name": "af-2"}
    assert memory.writes.sent_since(memory.account_id, AT - timedelta(seconds=1)) == [AT] * 3
    refused = {GATE_REFUSED: True}
    memory.writes.record_outcomes({numbers["af-1"]: (WriteOutcome.NOT_SENT, refused)}, AT)
    assert not memory.writes.reserve_orders(memory.author, entries("af-1"), AT).again
