"""Accounts, their sealed credentials, and which gateway process owns them.

The platform API lists accounts; the gateway alone reads credentials and takes leases.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from module.db.database import Database
from module.db.platform_tables import Account, AccountCredential
from module.model.accounts import TradeEnv
from module.model.credentials import SealedCredentials
from module.model.errors import Conflict, InvalidInput, NotFound, Unavailable
from module.model.market import MarketType

LEASE_LOST = "lease-lost"


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """One row of `accounts`. `limits` is the JSON that the last gate reads."""

    account_id: str
    owner_id: str
    label: str
    venue: str
    market: MarketType
    market_id: str
    trade_env: TradeEnv
    base_url: str
    active: bool
    epoch: int
    gateway_lease: str | None
    initial_balance: Decimal | None
    key_hint: str
    limits: Mapping[str, object]
    created_at: datetime


class AccountRepository:
    """Rows of `accounts` and `account_credentials`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, account_id: str) -> AccountRecord:
        """The account; NotFound where there is none."""
        with self._database.read() as session:
            row = session.execute(
                select(Account).where(Account.account_id == account_id)
            ).scalar_one_or_none()
            if row is None:
                raise NotFound(f"there is no account {account_id[:64]!r}")
            return _record(row)

    def list_for_owner(self, owner_id: str) -> list[AccountRecord]:
        """The owner's active accounts, oldest first."""
        return self._list(Account.owner_id == owner_id)

    def list_active(self) -> list[AccountRecord]:
        """All active accounts, oldest first."""
        return self._list()

    def add(self, record: AccountRecord, sealed: SealedCredentials) -> None:
        """Insert account and credentials together.

        Conflict when the owner has an account of that label; InvalidInput for an unknown owner.
        """
        try:
            with self._database.transaction() as session:
                session.execute(
                    insert(Account).values(
                        account_id=record.account_id,
                        owner_id=record.owner_id,
                        label=record.label,
                        venue=record.venue,
                        market=record.market.value,
                        market_id=record.market_id,
                        trade_env=record.trade_env.value,
                        base_url=record.base_url,
                        active=record.active,
                        epoch=record.epoch,
                        gateway_lease=record.gateway_lease,
                        initial_balance=record.initial_balance,
                        key_hint=record.key_hint,
                        limits=dict(record.limits),
                        created_at=record.created_at,
                    )
                )
                session.execute(
                    insert(AccountCredential).values(
                        account_id=record.account_id,
                        key_version=sealed.key_version,
                        ciphertext=sealed.ciphertext,
                        updated_at=record.created_at,
                    )
                )
        except IntegrityError as error:
            if "accounts_owner_label" in str(error.orig):
                raise Conflict(f"the owner has an account labelled {record.label!r}") from error
            raise InvalidInput(f"there is no user {record.owner_id[:64]!r}") from error

    def sealed_credentials(self, account_id: str) -> SealedCredentials:
        """What is stored of the account's keys; NotFound where there are none."""
        with self._database.read() as session:
            row = session.execute(
                select(AccountCredential).where(AccountCredential.account_id == account_id)
            ).scalar_one_or_none()
            if row is None:
                raise NotFound(f"account {account_id} has no credentials; save them first")
            return SealedCredentials(row.key_version, bytes(row.ciphertext))

    def set_limits(self, account_id: str, limits: Mapping[str, object]) -> None:
        """Replace the account's limits; they hold from the next order on."""
        with self._database.transaction() as session:
            session.execute(
                update(Account).where(Account.account_id == account_id).values(limits=dict(limits))
            )

    def _list(self, *conditions: object) -> list[AccountRecord]:
        query = select(Account).where(Account.active, *conditions)  # type: ignore[arg-type]
        with self._database.read() as session:
            rows = session.execute(query.order_by(Account.created_at, Account.account_id))
            return [_record(row) for row in rows.scalars()]


class AccountLeases:
    """Which accounts this gateway process may write to.

    A lease is a Postgres advisory lock on one connection that lives as long as the process, so a
    dead process holds nothing, plus the process's name in `accounts.gateway_lease`, which every
    audited write compares: a gateway that lost its connection without noticing is fenced out.
    """

    def __init__(self, database: Database, gateway_id: str) -> None:
        """`database` should be one of its own: the lease keeps a connection for good."""
        self._database = database
        self.gateway_id = gateway_id
        self._connection: Connection | None = None
        self._held: set[str] = set()
        self._lock = threading.Lock()

    def claim(self, account_id: str) -> None:
        """Own the account from here on; Unavailable while another gateway owns it."""
        with self._lock:
            if account_id in self._held and self._connection is not None:
                return
            try:
                connection = self._live_connection()
                got = connection.execute(
                    text("SELECT pg_try_advisory_lock(:key)"), {"key": _lock_key(account_id)}
                ).scalar_one()
                if got:
                    connection.execute(
                        update(Account)
                        .where(Account.account_id == account_id)
                        .values(gateway_lease=self.gateway_id)
                    )
            except DBAPIError as error:
                self._forget()
                raise Unavailable("Postgres does not answer, so no account is owned") from error
            if not got:
                raise Unavailable(
                    f"another gateway process owns account {account_id}; this one does not write",
                    code=LEASE_LOST,
                    retry_after_s=1.0,
                )
            self._held.add(account_id)

    def lost(self) -> None:
        """A write found another name in the row: claim everything anew before the next write."""
        with self._lock:
            self._forget()

    def close(self) -> None:
        """Give all leases back."""
        with self._lock:
            self._forget()

    def _live_connection(self) -> Connection:
        if self._connection is not None:
            try:
                self._connection.execute(text("SELECT 1"))
                return self._connection
            except DBAPIError:
                self._forget()
        self._connection = (
            self._database.engine().connect().execution_options(isolation_level="AUTOCOMMIT")
        )
        return self._connection

    def _forget(self) -> None:
        """Drop the connection; the server frees its locks. A broken one is dropped as well."""
        self._held.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _lock_key(account_id: str) -> int:
    raw = hashlib.sha256(b"aifap gateway lease\0" + account_id.encode()).digest()
    return int.from_bytes(raw[:8], "big", signed=True)


def _record(row: Account) -> AccountRecord:
    return AccountRecord(
        account_id=row.account_id,
        owner_id=row.owner_id,
        label=row.label,
        venue=row.venue,
        market=MarketType(row.market),
        market_id=row.market_id,
        trade_env=TradeEnv(row.trade_env),
        base_url=row.base_url,
        active=row.active,
        epoch=row.epoch,
        gateway_lease=row.gateway_lease,
        initial_balance=row.initial_balance,
        key_hint=row.key_hint,
        limits=dict(row.limits or {}),
        created_at=row.created_at,
    )
