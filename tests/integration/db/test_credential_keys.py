"""Key versions in Postgres: the database itself keeps keys and rows together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import app
from module.db.database import Database
from module.db.repositories.accounts import AccountRecord, AccountRepository, KeyRetired
from module.db.repositories.credential_keys import CredentialKeyRepository
from module.db.repositories.users import Role, UserRepository
from module.gateway.key_rotation import RotationReport, rotate_keys
from module.model.accounts import TradeEnv
from module.model.credentials import Credentials, SealedCredentials
from module.model.errors import Conflict
from module.model.market import MarketType
from module.security.credentials import KeyRing, new_credentials
from module.security.key_files import KeyFolder
from module.settings import Settings

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 21, 12, 7, tzinfo=UTC)


class Shelf:
    """Accounts with sealed keys, and the folder of their key versions."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.database = Database(settings, "finplatform", 8)
        self.accounts = AccountRepository(self.database)
        self.rows = CredentialKeyRepository(self.database)
        self.folder = KeyFolder(folder / "secrets")
        users = UserRepository(self.database)
        self.owner = users.ensure("keeper", Role.TRADER, NOW).user_id
        self.secrets: dict[str, Credentials] = {}

    def add(self, sealed: SealedCredentials | None = None) -> str:
        account_id = str(uuid.uuid4())
        secrets = new_credentials()
        sealed = sealed or KeyRing(self.folder.read).seal(secrets, account_id)
        self.accounts.add(
            AccountRecord(
                account_id=account_id,
                owner_id=self.owner,
                label=account_id,
                venue="bitget",
                market=MarketType.FUTURES,
                market_id="bitget-live",
                trade_env=TradeEnv.LIVE,
                base_url="https://api.bitget.com",
                active=True,
                epoch=0,
                gateway_lease=None,
                initial_balance=None,
                key_hint="…",
                limits={},
                created_at=NOW,
            ),
            sealed,
        )
        self.secrets[account_id] = secrets
        return account_id

    def rotate(self) -> RotationReport:
        with self.rows.rotating():
            return rotate_keys(self.folder, self.rows, NOW, lambda _line: None)

    def opens(self) -> None:
        ring = KeyRing(self.folder.read)
        for account_id, secrets in self.secrets.items():
            sealed = self.accounts.sealed_credentials(account_id)
            assert ring.open(sealed, account_id) == secrets


@pytest.fixture
def shelf(postgres: Settings, tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(postgres, tmp_path)
    with shelf.database.transaction() as session:
        connection = session.connection()
        for table in ("account_credentials", "accounts", "credential_keys"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    yield shelf
    shelf.database.close()


def test_S31_rows_move_to_the_new_version(shelf: Shelf) -> None:
    for _ in range(7):
        shelf.add()
    report = shelf.rotate()
    assert (report.version, report.moved, report.retired, report.failed) == (2, 7, (1,), ())
    assert shelf.rows.counts() == {2: 7}
    shelf.opens()


def test_S31_nothing_is_sealed_with_a_key_that_has_been_retired(shelf: Shelf) -> None:
    shelf.add()
    late = KeyRing(shelf.folder.read).seal(new_credentials(), "acc")
    shelf.rotate()
    with pytest.raises(KeyRetired):
        shelf.add(late)
    assert shelf.rows.counts() == {2: 1}


def test_S31_a_key_that_a_row_needs_is_not_retired(shelf: Shelf) -> None:
    shelf.add()
    assert shelf.rows.retire(1) == 1
    shelf.add()
    shelf.opens()


def test_two_rotations_never_run_at_once(shelf: Shelf) -> None:
    with shelf.rows.rotating():
        with pytest.raises(Conflict, match="another rotation"):
            shelf.rotate()
    shelf.rotate()


def test_accounts_that_are_added_while_keys_rotate_all_open(shelf: Shelf) -> None:
    done = threading.Event()
    errors: list[BaseException] = []

    def add_many() -> None:
        try:
            for _ in range(30):
                if done.is_set():
                    return
                try:
                    shelf.add()
                except KeyRetired:
                    shelf.add()  # as AccountOpening does
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=add_many) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            report = shelf.rotate()
            assert report.failed == ()
    finally:
        done.set()
        for thread in threads:
            thread.join(timeout=20)
    assert errors == []
    shelf.rotate()
    shelf.opens()


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from module.db.database import Database
from module.db.repositories.credential_keys import CredentialKeyRepository
from module.gateway.key_rotation import rotate_keys
from module.security.key_files import KeyFolder
from module.settings import Settings

class Dying(CredentialKeyRepository):
    left = int(sys.argv[3])
    def reseal(self, account_id, at, work):
        def counted(sealed):
            Dying.left -= 1
            if Dying.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)  # inside the row's transaction
            return work(sealed)
        super().reseal(account_id, at, counted)

rows = Dying(Database(Settings(data_dir=Path(sys.argv[1])), "finplatform", 2))
with rows.rotating():
    rotate_keys(KeyFolder(Path(sys.argv[2])), rows, datetime.now(UTC), print)
"""


def test_S31_a_rotation_killed_in_the_middle_of_a_row_goes_on(
    shelf: Shelf, postgres: Settings
) -> None:
    for _ in range(5):
        shelf.add()
    words = [sys.executable, "-c", KILLED, str(postgres.data_dir), str(shelf.folder.folder), "3"]
    environment = {name: value for name, value in os.environ.items() if "AIFAP" not in name}
    died = subprocess.run(words, cwd=ROOT, env=environment, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    assert shelf.rows.counts() == {1: 2, 2: 3}
    shelf.opens()
    report = shelf.rotate()
    assert (report.created, report.version, report.moved, report.retired) == (False, 2, 2, (1,))
    shelf.opens()


def test_S31_the_keys_at_rest_are_listed_and_rotated_by_command(
    shelf: Shelf, postgres: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIFAP_DATA_DIR", str(postgres.data_dir))
    data = ["--data", str(postgres.data_dir)]
    assert shelf.rows.counts() == {}
    before = CliRunner().invoke(app, ["keys", "list", *data])
    assert "seals what is new" in before.stdout
    rotated = CliRunner().invoke(app, ["keys", "rotate", *data])
    assert "is retired" in rotated.stdout
    after = CliRunner().invoke(app, ["keys", "list", *data])
    assert "kept for backups" in after.stdout
