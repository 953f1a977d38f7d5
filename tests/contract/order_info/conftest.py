"""The two stores of a letter, each as a house with a key that a test can go in and out of."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from module.db.database import Database
from module.db.repositories.accounts import AccountRecord, AccountRepository
from module.db.repositories.order_info import PostgresMirror, PostgresOrderInfoStore
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.users import Role, UserRepository
from module.files.order_info_file import FileOrderInfoStore, RenderedLetter
from module.model.accounts import MarginMode, TradeEnv
from module.model.credentials import SealedCredentials
from module.model.market import MarketType
from module.model.sessions import EndState, SessionSpec, TradeMode, new_session_id
from module.settings import Settings

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
Store = FileOrderInfoStore | PostgresOrderInfoStore


@dataclass(frozen=True, slots=True)
class House:
    """One session's letter box; `open` gives a further process's store of the same letter."""

    kind: str
    folder: Path
    database: Database
    session_id: str

    def open(self) -> Store:
        if self.kind == "postgres":
            return PostgresOrderInfoStore(
                self.database, self.session_id, RenderedLetter(self.folder)
            )
        if self.kind == "file":
            return FileOrderInfoStore(self.folder)
        return FileOrderInfoStore(self.folder, PostgresMirror(self.database, self.session_id))


@pytest.fixture(scope="module")
def database(postgres: Settings) -> Iterator[Database]:
    made = Database(postgres, "finplatform", 5)
    yield made
    made.close()


@pytest.fixture(params=["file", "mirrored file", "postgres"])
def house(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> House:
    return House(request.param, tmp_path, database, stored_session(database))


@pytest.fixture
def mirrored(database: Database, tmp_path: Path) -> House:
    return House("mirrored file", tmp_path, database, stored_session(database))


@pytest.fixture
def in_postgres(database: Database, tmp_path: Path) -> House:
    return House("postgres", tmp_path, database, stored_session(database))


def letter(epoch: int, revision: int, minute: int = 0) -> Mapping[str, object]:
    """A document with the fields that stores look at, and some that they do not."""
    return {
        "epoch": epoch,
        "revision": revision,
        "cycle": f"2026-11-21T12:{minute:02}:00Z",
        "size": "39.600",
        "note": 'ünïcode, "quotes" and \n breaks',
        "legs": [{"leg_id": "BTCUSDT-open", "after": None, "reduce_only": False}],
    }


def stored_session(database: Database) -> str:
    """A session of a fresh user on a fresh account."""
    user = UserRepository(database).add(f"u-{uuid.uuid4()}", Role.TRADER, NOON)
    account = AccountRecord(
        account_id=str(uuid.uuid4()),
        owner_id=user.user_id,
        label="mine",
        venue="bitget",
        market=MarketType.FUTURES,
        market_id="synthetic:7",
        trade_env=TradeEnv.PAPER,
        base_url="http://127.0.0.1:9",
        active=True,
        epoch=3,
        gateway_lease=None,
        initial_balance=Decimal(1),
        key_hint="…",
        limits={},
        created_at=NOON,
    )
    AccountRepository(database).add(account, SealedCredentials(1, b"sealed"))
    spec = SessionSpec(
        session_id=new_session_id(NOON, uuid.uuid4().bytes),
        installation="local",
        owner_id=user.user_id,
        account_id=account.account_id,
        market=MarketType.FUTURES,
        market_id="synthetic:7",
        trade_env=TradeEnv.PAPER,
        trade_mode=TradeMode.REBALANCING,
        strategy_name="equal_weight",
        strategy_digest="d" * 64,
        config={},
        interval=timedelta(minutes=5),
        leverage=Decimal(1),
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
        ends_at=NOON + timedelta(hours=2),
    )
    SessionRepository(database).create(spec, sessions_max=10_000)
    return spec.session_id
