"""Promise 2 does not wait for Postgres: one that stands still is asked, and not waited for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from decimal import Decimal

import psutil
import pytest
from sqlalchemy import event, select

from module.clock import SystemClock
from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.platform_tables import GatewayWrite
from module.db.repositories.accounts import AccountLeases, AccountRepository
from module.db.repositories.gateway_writes import WriteRepository
from module.db.repositories.unprotected_periods import UnprotectedPeriodRepository
from module.db.repositories.users import Role, UserRepository
from module.db.repositories.wanted_stops import WantedStopRepository
from module.gateway.service import Gateway, GatewayStores
from module.model.errors import Unavailable
from module.model.orders import StopPrices
from module.security.credentials import new_credentials, seal_credentials
from module.settings import Settings
from tests.fakes.frozen_postgres import standing_still
from tests.fakes.gateway_rig import GatewayRig, buy
from tests.fakes.gateway_stores import CREDENTIALS_KEY
from tests.fakes.stored_rows import NOON, paper_account

pytestmark = pytest.mark.timeout(120)
STOPS = {
    "BTCUSDT": StopPrices(Decimal("55000.5")),
    "ETHUSDT": StopPrices(Decimal("2700.25")),
    "XRPUSDT": StopPrices(Decimal("0.4321")),
}
SIZES = {"BTCUSDT": "0.0123", "ETHUSDT": "0.37", "XRPUSDT": "1234"}
REAL = SystemClock()


@pytest.fixture
def database(postgres: Settings) -> Iterator[Database]:
    made = Database(postgres, "finplatform")
    yield made
    made.close()


@pytest.fixture
def rig(database: Database) -> GatewayRig:
    """An account in a real Postgres; its exchange is in memory."""
    owner = UserRepository(database).add(f"u-{uuid.uuid4()}", Role.TRADER, NOON)
    record = paper_account(owner.user_id, epoch=7)
    sealed = seal_credentials(new_credentials(), record.account_id, CREDENTIALS_KEY)
    AccountRepository(database).add(record, sealed)
    return GatewayRig(record=record)


@pytest.fixture
def gateway(rig: GatewayRig, database: Database, postgres: Settings) -> Iterator[Gateway]:
    """It owns the account, and three positions with a stop loss each."""
    leases = Database(postgres, "finplatform", 1)
    stores = GatewayStores(
        accounts=AccountRepository(database),
        leases=AccountLeases(leases, "gw-1"),
        writes=WriteRepository(database),
        stops=WantedStopRepository(database),
        periods=UnprotectedPeriodRepository(database),
    )
    found = rig.another("gw-1", stores)
    account_id = rig.record.account_id
    rig.venues.by_account[account_id] = rig.venue
    for number, (symbol, stops) in enumerate(STOPS.items()):
        order = buy(f"af-{number}", SIZES[symbol], symbol=symbol, stops=stops)
        found.submit(account_id, rig.stamp(), [order])
    assert found.protect_now(account_id) == ()
    yield found
    found.stop()
    leases.close()


def _stops(rig: GatewayRig) -> dict[str, StopPrices]:
    return {position.symbol: position.stops for position in rig.venue._positions()}


def _guard_rows(database: Database, account_id: str) -> list[GatewayWrite]:
    """Waits until the circuit has heard the server again."""
    while True:
        try:
            with database.read() as session:
                named = (GatewayWrite.account_id == account_id, GatewayWrite.kind == "guard")
                return list(session.scalars(select(GatewayWrite).where(*named)))
        except Unavailable:
            REAL.pause(0.05)


def test_E1_stops_that_the_exchange_lost_are_back_while_postgres_stands_still(
    rig: GatewayRig, gateway: Gateway, database: Database, postgres_server: EmbeddedPostgres
) -> None:
    account_id = rig.record.account_id
    assert postgres_server.pid is not None
    with standing_still(postgres_server):
        rig.venue.stops.clear()
        assert gateway.protect_now(account_id) == ()
        still = psutil.Process(postgres_server.pid).status()
        assert (_stops(rig), still) == (STOPS, psutil.STATUS_STOPPED)
        rig.clock.advance(7)
        rig.venue.stops.clear()
        assert gateway.protect_now(account_id) == ()
        assert _stops(rig) == STOPS
    while gateway.health()["spooled"]:
        gateway.protect_now(account_id)
        REAL.pause(0.05)
    rows = _guard_rows(database, account_id)
    assert [(row.outcome, "late_id" in row.request) for row in rows] == [("accepted", True)] * 6


def test_E2_a_stop_whose_row_nobody_heard_of_is_one_row(
    rig: GatewayRig,
    gateway: Gateway,
    database: Database,
    postgres_server: EmbeddedPostgres,
) -> None:
    """The server stands still between the reservation and the answer to its COMMIT."""
    account_id = rig.record.account_id
    rig.clock.advance(0.123456)
    frozen = standing_still(postgres_server)
    event.listen(database.engine(), "commit", lambda _: frozen.__enter__(), once=True)
    try:
        del rig.venue.stops["ETHUSDT", True]
        assert gateway.protect_now(account_id) == ()
        assert _stops(rig) == STOPS
    finally:
        frozen.__exit__(None, None, None)
    while not _guard_rows(database, account_id):  # the COMMIT had reached the server
        REAL.pause(0.05)
    while gateway.health()["spooled"]:
        gateway.protect_now(account_id)
        REAL.pause(0.05)
    (row,) = _guard_rows(database, account_id)
    assert (row.symbol, row.outcome) == ("ETHUSDT", "accepted")
