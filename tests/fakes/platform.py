"""A platform API with a real Postgres behind it, and hand-made neighbours: launcher and gateway."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from fastapi import FastAPI

from api.app import create_app
from api.dependencies import Doors
from api.preview_wiring import PreviewPorts
from api.wiring import ApiWiring, Platform
from module.clock import SystemClock
from module.db.database import Database
from module.db.repositories.accounts import AccountRecord, AccountRepository
from module.db.repositories.users import Role, UserRecord
from module.model.accounts import AccountCheck, PositionMode, TradeEnv
from module.model.credentials import Credentials, SealedCredentials
from module.model.errors import AifapError
from module.model.market import MarketType
from module.ports import Alert
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient

TOKEN_KEY = "a-key-that-only-tests-sign-with-0123456789"
MARKET_ID = "synthetic:7"


@dataclass(slots=True)
class FakeLauncher:
    """Notes what it was told; `failure` is raised instead while it is set."""

    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    failure: AifapError | None = None

    def start(self, session_id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.started.append(session_id)

    def stop(self, session_id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.stopped.append(session_id)

    def poll(self, session_id: str) -> bool:
        return session_id in self.started


@dataclass(slots=True)
class FakeGateway:
    """Makes account rows as the gateway does, without any exchange; keeps what it was told."""

    accounts: AccountRepository
    deposits: list[tuple[str, Decimal]] = field(default_factory=list)
    added: list[tuple[str, Credentials, bool]] = field(default_factory=list)
    replaced: list[tuple[str, Credentials, bool]] = field(default_factory=list)
    opened: int = 0
    failure: AifapError | None = None
    lose_answer: AifapError | None = None

    def open_paper_account(
        self, owner_id: str, label: str, market: MarketType, balance: Decimal
    ) -> str:
        if self.failure is not None:
            raise self.failure
        account_id = self.put(owner_id, label, market, TradeEnv.PAPER, balance)
        self.opened += 1
        if self.lose_answer is not None:
            raise self.lose_answer
        return account_id

    def deposit(self, account_id: str, amount: Decimal) -> None:
        if self.failure is not None:
            raise self.failure
        self.deposits.append((account_id, amount))

    def add_account(
        self,
        *,
        owner_id: str,
        label: str,
        venue: str,
        market: MarketType,
        trade_env: TradeEnv,
        base_url: str,
        credentials: Credentials,
        force: bool = False,
    ) -> str:
        if self.failure is not None:
            raise self.failure
        self.added.append((base_url, credentials, force))
        return self.put(owner_id, label, market, trade_env, None, venue)

    def check_account(self, account_id: str) -> AccountCheck:
        if self.failure is not None:
            raise self.failure
        record = self.accounts.get(account_id)
        return AccountCheck(
            account_id=account_id,
            at=datetime.now(UTC),
            trade_env=record.trade_env,
            base_url=record.base_url,
            family="classic",
            may_trade=True,
            may_withdraw=False,
            address_bound=True,
            authorities=("coow", "coor"),
            position_mode=PositionMode.ONE_WAY,
            equity=Decimal("10007.5"),
            available=Decimal("9000.25"),
            positions=1,
            open_orders=2,
            clock_ahead_ms=-37,
            faults=(),
            warnings=(),
        )

    def replace_keys(
        self, account_id: str, credentials: Credentials, *, force: bool = False
    ) -> None:
        if self.failure is not None:
            raise self.failure
        self.replaced.append((account_id, credentials, force))

    def switch_off_account(self, account_id: str, *, erase_keys: bool, force: bool) -> None:
        if self.failure is not None and not force:
            raise self.failure
        self.accounts.switch_off(account_id, erase_keys=erase_keys)

    def switch_on_account(self, account_id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.accounts.change(account_id, active=True)

    def put(
        self,
        owner_id: str,
        label: str,
        market: MarketType,
        trade_env: TradeEnv,
        balance: Decimal | None,
        venue: str = "bitget",
    ) -> str:
        """An account row."""
        account_id = str(uuid.uuid4())
        record = AccountRecord(
            account_id=account_id,
            owner_id=owner_id,
            label=label,
            venue=venue,
            market=market,
            market_id=MARKET_ID,
            trade_env=trade_env,
            base_url="http://127.0.0.1:9",
            active=True,
            epoch=0,
            gateway_lease=None,
            initial_balance=balance,
            key_hint="…wxyz",
            limits={},
            created_at=datetime.now(UTC),
        )
        self.accounts.add(record, SealedCredentials(1, b"sealed"))
        return account_id


@dataclass(slots=True)
class FakeAlerts:
    """Keeps what it is told."""

    alerts: list[Alert] = field(default_factory=list)

    def notify(self, alert: Alert) -> None:
        self.alerts.append(alert)


@dataclass(slots=True)
class FakePlatform:
    """One application and its neighbours. `folder` is its data folder."""

    app: FastAPI
    doors: Doors
    launcher: FakeLauncher
    gateway: FakeGateway
    alerts: FakeAlerts
    folder: Path
    databases: tuple[Database, ...]

    @property
    def anonymous(self) -> AsgiClient:
        """A caller without a token."""
        return AsgiClient(self.app)

    def person(self, name: str, role: Role = Role.TRADER) -> tuple[UserRecord, AsgiClient]:
        """A user of that name, with a token."""
        now = datetime.now(UTC)
        user = self.doors.users.ensure(name, role, now)
        issued = self.doors.users.issue_token(user.user_id, "tests", now)
        return user, AsgiClient(self.app, issued.secret)

    def close(self) -> None:
        """Give the connections back."""
        for database in self.databases:
            database.close()


def fake_platform(
    postgres: Settings, folder: Path, previews: PreviewPorts | None = None, **settings: object
) -> FakePlatform:
    """An application over the databases of `postgres`, with `folder` for its files."""
    own = postgres.model_copy(update={"data_dir": folder, **settings})
    finplatform = Database(postgres, "finplatform", 10)
    finwatcher = Database(postgres, "finwatcher", 5)
    launcher = FakeLauncher()
    gateway = FakeGateway(AccountRepository(finplatform))
    alerts = FakeAlerts()
    app = create_app(
        ApiWiring(
            settings=own,
            clock=SystemClock(),
            platform=Platform(finplatform, finwatcher, launcher, gateway, alerts, previews),
            token_key=TOKEN_KEY,
            probes={"postgres": finplatform.ping},
        )
    )
    return FakePlatform(
        app, app.state.doors, launcher, gateway, alerts, folder, (finplatform, finwatcher)
    )
