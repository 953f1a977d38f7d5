"""Which key versions stored credentials need, and how rows move from one version to the next.

account added ─► admit_key_version ─► account_credentials ─► credential_keys ◄─ rotation

The database itself keeps a key from being retired while a row needs it, and a row from being sealed
with a retired one. Ciphertexts only; who opens them is `module/gateway/key_rotation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import Account, AccountCredential, CredentialKey
from module.model.credentials import SealedCredentials
from module.model.errors import Conflict

_ROTATION_LOCK = 0x6169_6661_7003  # held by the one rotation that runs
_RETIRE_LOCK = 0x6169_6661_7004  # shared by whoever stores a row, exclusive while a key retires


@dataclass(frozen=True, slots=True)
class SealedRow:
    """Whose credentials a row holds."""

    account_id: str
    label: str
    key_version: int


def admit_key_version(session: Session, key_version: int) -> None:
    """Let rows of this transaction be sealed with the version, unless a newer one has replaced it:
    then the reference from `account_credentials` refuses them."""
    session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _RETIRE_LOCK})
    session.execute(
        text(
            "INSERT INTO credential_keys (key_version) SELECT :version WHERE NOT EXISTS "
            "(SELECT 1 FROM credential_keys WHERE key_version >= :version) ON CONFLICT DO NOTHING"
        ),
        {"version": key_version},
    )


class CredentialKeyRepository:
    """Rows of `credential_keys`, and of `account_credentials` by their version."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def rotating(self) -> Iterator[None]:
        """Be the only rotation of the installation; Conflict while another one runs."""
        with self._database.hold_lock(_ROTATION_LOCK) as free:
            if not free:
                raise Conflict("another rotation of the keys is under way; wait for its end")
            yield

    def counts(self) -> dict[int, int]:
        """Key version → how many rows need it; registered versions that none needs are 0."""
        query = select(AccountCredential.key_version, func.count()).group_by(
            AccountCredential.key_version
        )
        with self._database.read() as session:
            found = dict.fromkeys(session.scalars(select(CredentialKey.key_version)), 0)
            found.update((version, count) for version, count in session.execute(query))
            return found

    def rows_below(self, key_version: int) -> list[SealedRow]:
        """Rows that older versions sealed, by account."""
        query = (
            select(AccountCredential.account_id, Account.label, AccountCredential.key_version)
            .join(Account, Account.account_id == AccountCredential.account_id)
            .where(AccountCredential.key_version < key_version)
            .order_by(AccountCredential.account_id)
        )
        with self._database.read() as session:
            return [SealedRow(*row) for row in session.execute(query)]

    def admit(self, key_version: int) -> None:
        """Register the version as the newest."""
        with self._database.transaction() as session:
            admit_key_version(session, key_version)

    def reseal(
        self,
        account_id: str,
        at: datetime,
        work: Callable[[SealedCredentials], SealedCredentials],
    ) -> None:
        """Replace one row by what `work` makes of it, in one transaction that holds the row.

        Nothing where the row is gone. What `work` raises leaves the row as it was.
        """
        with self._database.transaction() as session:
            row = session.get(AccountCredential, account_id, with_for_update=True)
            if row is None:
                return
            sealed = work(SealedCredentials(row.key_version, bytes(row.ciphertext)))
            row.key_version, row.ciphertext = sealed.key_version, sealed.ciphertext
            row.updated_at = at

    def retire(self, key_version: int) -> int:
        """No row is sealed with the version from now on; 0. Else how many rows still need it."""
        with self._database.transaction() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _RETIRE_LOCK})
            needed = session.scalar(
                select(func.count()).where(AccountCredential.key_version == key_version)
            )
            if needed:
                return int(needed)
            session.execute(delete(CredentialKey).where(CredentialKey.key_version == key_version))
            return 0
