"""The two stores of a letter, each as a house with a key that a test can go in and out of."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from module.db.database import Database
from module.db.repositories.accounts import AccountRepository
from module.db.repositories.order_info import PostgresMirror, PostgresOrderInfoStore
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.users import Role, UserRepository
from module.files.order_info_file import FileOrderInfoStore, RenderedLetter
from module.model.credentials import SealedCredentials
from module.settings import Settings
from tests.fakes.stored_rows import NOON, paper_account, session_spec

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
    account = paper_account(user.user_id)
    AccountRepository(database).add(account, SealedCredentials(1, b"sealed"))
    spec = session_spec(user.user_id, account.account_id)
    SessionRepository(database).create(spec, sessions_max=10_000)
    return spec.session_id
