"""A whole gateway: real Postgres, the real paper exchange, the real router on a real socket."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from api.problems import install_problems
from api.routers.gateway import build_router
from module.clock import WorldClock
from module.db.database import Database
from module.db.platform_tables import Account, AccountCredential, GatewayWrite, User
from module.exchange.bitget_venue import CcxtVenues
from module.exchange.gateway_admin import GatewayAdmin
from module.exchange.gateway_client import GatewayExchange
from module.exchange.venue import Venue, VenueAccess
from module.gateway.assembly import assemble_gateway
from module.gateway.budget import RequestBudget
from module.gateway.protection import PARTICIPANT
from module.gateway.service import Gateway
from module.model.accounts import TradeEnv
from module.model.credentials import Credentials, SealedCredentials
from module.model.market import MarketType
from module.model.money import round_down
from module.model.orders import OrderRequest, Side, WriteStamp
from module.security.credentials import KeyRing
from module.security.key_files import KeyFolder
from module.security.tokens import mint_grant, service_grant, session_grant
from module.settings import Settings
from tests.fakes.serving import served
from tests.fakes.simulator_process import CONTROL_TOKEN, RunningSimulator, running_simulator

SESSION = "2611211130-ab3x"
OWNER = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running_simulator(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture(scope="module")
def settings(postgres: Settings, simulator: RunningSimulator) -> Settings:
    """Settings of an installation whose paper exchange is `simulator`."""
    secrets = postgres.data_dir / "secrets"
    secrets.mkdir(exist_ok=True)
    (secrets / "control_token").write_text(CONTROL_TOKEN)
    found = postgres.model_copy(
        update={
            "simulator_url": simulator.base_url,
            "world_clock": f"{simulator.clock_host}:{simulator.clock_port}",
            "market_id": simulator.market_id,
            "services": ("gateway",),
        }
    )
    with Database(found, "finplatform").transaction() as session:
        session.merge(
            User(
                user_id=OWNER,
                name="owner",
                role="trader",
                active=True,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )
    return found


@dataclass
class Installation:
    """What a test talks to. `clock` is a participant: time moves when the test sleeps."""

    settings: Settings
    simulator: RunningSimulator
    database: Database
    clock: WorldClock
    observer: WorldClock
    serve: Callable[[FastAPI], str]
    gateways: list[Gateway] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    url: str = ""

    def start_gateway(self) -> str:
        """One more gateway in this process; its base URL."""
        gateway = assemble_gateway(
            self.settings,
            self.database,
            clock=self.observer,
            make_loop_clock=lambda: self.simulator.clock(PARTICIPANT),
        )
        gateway.start()
        self.gateways.append(gateway)
        app = FastAPI()
        install_problems(app)
        app.include_router(build_router(gateway, self.settings.secret("token_key")))
        self.url = self.serve(app)
        return self.url

    def admin(self) -> GatewayAdmin:
        token = mint_grant(service_grant("platform"), self.settings.secret("token_key"))
        return GatewayAdmin(self.url, token)

    def open_account(self, market: MarketType = MarketType.FUTURES) -> str:
        admin = self.admin()
        account_id = admin.open_paper_account(OWNER, uuid.uuid4().hex, market, Decimal(10_007))
        admin.close()
        with self.database.transaction() as session:
            session.execute(update(Account).where(Account.account_id == account_id).values(epoch=7))
        return account_id

    def token(self, account_id: str) -> str:
        key = self.settings.secret("token_key")
        return mint_grant(session_grant(account_id, SESSION, OWNER), key)

    def exchange(
        self,
        account_id: str,
        url: str | None = None,
        *,
        connect_patience_s: float = 20.0,
        answer_timeout_s: float = 45.0,
    ) -> GatewayExchange:
        return GatewayExchange(
            url or self.url,
            account_id,
            self.token(account_id),
            self.clock,
            connect_patience_s=connect_patience_s,
            answer_timeout_s=answer_timeout_s,
        )

    def stamp(self, epoch: int = 7, seconds: float = 60) -> WriteStamp:
        return WriteStamp(SESSION, epoch, self.clock.now() + timedelta(seconds=seconds))

    def order(self, side: Side, size: str, **changes: object) -> OrderRequest:
        values: dict[str, object] = {
            "client_id": f"af-gw-{next(self.numbers)}",
            "symbol": "BTCUSDT",
            "side": side,
            "size": Decimal(size),
            "reduce_only": False,
            **changes,
        }
        return OrderRequest(**values)  # type: ignore[arg-type]

    def writes(self, account_id: str) -> list[GatewayWrite]:
        with self.database.read() as session:
            return list(
                session.execute(
                    select(GatewayWrite)
                    .where(GatewayWrite.account_id == account_id)
                    .order_by(GatewayWrite.write_id)
                ).scalars()
            )

    def keys(self, account_id: str) -> Credentials:
        with self.database.read() as session:
            row = session.execute(
                select(AccountCredential).where(AccountCredential.account_id == account_id)
            ).scalar_one()
        sealed = SealedCredentials(row.key_version, row.ciphertext)
        ring = KeyRing(KeyFolder(self.settings.data_dir / "secrets").read)
        return ring.open(sealed, account_id)

    def ledger(self, account_id: str) -> dict[str, object]:
        return self.simulator.ledger(self.keys(account_id).api_key)

    def by_hand(self, account_id: str) -> Venue:
        """The exchange's own door, as a person at its web page has it."""
        access = VenueAccess(
            account_id,
            self.simulator.base_url,
            MarketType.FUTURES,
            TradeEnv.PAPER,
            self.keys(account_id),
        )
        gate = RequestBudget(self.clock, is_stepped=True).for_account(
            self.simulator.base_url, "by-hand"
        )
        return CcxtVenues(self.clock).open_venue("bitget", access, gate)

    def price(self, exchange: GatewayExchange, factor: str, symbol: str = "BTCUSDT") -> Decimal:
        step = exchange.instruments()[symbol].price_step
        return round_down(exchange.quotes([symbol])[symbol].mark * Decimal(factor), step)


@pytest.fixture
def installation(
    settings: Settings, simulator: RunningSimulator, tmp_path: Path
) -> Iterator[Installation]:
    clock, observer = simulator.clock("test"), simulator.clock(None)
    with served() as serve:
        found = Installation(
            settings, simulator, Database(settings, "finplatform"), clock, observer, serve
        )
        found.start_gateway()
        yield found
        clock.close()
        for gateway in found.gateways:
            gateway.stop()
    simulator.control("DELETE", "faults")
    observer.close()
    found.database.close()
