"""Accounts, their sealed credentials, and which gateway process owns them.

The platform API lists accounts; the gateway alone reads credentials and takes leases.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, Select, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from module.db.circuit import allowed_s, waiting
from module.db.database import Database
from module.db.platform_tables import Account, AccountCredential, ActiveSession, WantedStop
from module.db.repositories.credential_keys import admit_key_version
from module.db.repositories.halts import limits_with_halt
from module.model.accounts import TradeEnv
from module.model.credentials import SealedCredentials
from module.model.errors import AifapError, Conflict, InvalidInput, NotFound, Unavailable
from module.model.market import MarketType
from module.model.sessions import SessionState

LEASE_LOST = "lease-lost"
CLAIM_WAIT_S = 30.0
_OVER = tuple(state.value for state in SessionState if state.is_over)


class KeyRetired(Conflict):
    """The key version that sealed this has been retired meanwhile: seal again with the newest."""

    code = "key-retired"


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """One row of `accounts`. `limits` is the JSON that the last gate reads.

    `venue_user_id` is the venue's own name of the account behind the keys; empty: not known.
    """

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
    venue_user_id: str = ""


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

    def list_for_owner(self, owner_id: str, *, with_inactive: bool = False) -> list[AccountRecord]:
        """The owner's active accounts (or all of them), oldest first."""
        query = select(Account).where(Account.owner_id == owner_id)
        return self._list(query if with_inactive else query.where(Account.active))

    def list_named(self, account_ids: Collection[str]) -> list[AccountRecord]:
        """The accounts of these ids that there are, switched off or not, in one query."""
        return self._list(select(Account).where(Account.account_id.in_(account_ids)))

    def list_active(self) -> list[AccountRecord]:
        """All active accounts, oldest first."""
        return self._list(select(Account).where(Account.active))

    def add(self, record: AccountRecord, sealed: SealedCredentials) -> None:
        """Insert account and credentials together.

        Conflict when the owner has an active account of that label, or the venue's account is one
        of ours already; KeyRetired; InvalidInput for an unknown owner.
        """
        try:
            with self._database.transaction() as session:
                admit_key_version(session, sealed.key_version)
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
                        venue_user_id=record.venue_user_id,
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
            raise _conflict(error, record.label, record.owner_id) from error

    def sealed_credentials(self, account_id: str) -> SealedCredentials:
        """What is stored of the account's keys; NotFound where there are none."""
        with self._database.read() as session:
            row = session.execute(
                select(AccountCredential).where(AccountCredential.account_id == account_id)
            ).scalar_one_or_none()
            if row is None:
                raise NotFound(f"account {account_id} has no credentials; save them first")
            return SealedCredentials(row.key_version, bytes(row.ciphertext))

    def change(
        self,
        account_id: str,
        *,
        label: str | None = None,
        active: bool | None = None,
        limits: Mapping[str, object] | None = None,
    ) -> AccountRecord:
        """Change what is given; limits hold from the next order on; what `HaltRepository.halt` set
        stays, unless they name `kill_switch`. NotFound.

        Conflict when the label is taken, when a session is not over on an account that is to be
        switched off, or when there are no keys to switch it on with.
        """
        named = label or account_id
        try:
            with self._database.transaction() as session:
                row = _locked(session, account_id)
                named = label or row.label
                if active is False and row.active:
                    _require_idle(session, row)
                if active is True and not row.active and _credential(session, account_id) is None:
                    raise Conflict(
                        f"account {row.label!r} has no keys any more; save new ones first"
                    )
                row.label = row.label if label is None else label
                row.active = row.active if active is None else active
                if limits is not None:
                    row.limits = limits_with_halt(row.limits or {}, limits)
                session.flush()
                return _record(row)
        except IntegrityError as error:
            raise _conflict(error, named, "") from error

    def switch_off(self, account_id: str, *, erase_keys: bool) -> AccountRecord:
        """Make the account inactive, and forget its keys where asked; its history stays.

        What was wanted of its positions is over. Conflict while a session on it is not over.
        """
        with self._database.transaction() as session:
            row = _locked(session, account_id)
            _require_idle(session, row)
            row.active = False
            session.execute(delete(WantedStop).where(WantedStop.account_id == account_id))
            if erase_keys:
                session.execute(
                    delete(AccountCredential).where(AccountCredential.account_id == account_id)
                )
                row.key_hint = ""
            session.flush()
            return _record(row)

    def save_credentials(
        self,
        account_id: str,
        sealed: SealedCredentials,
        *,
        key_hint: str,
        venue_user_id: str,
        at: datetime,
        while_trading: bool,
    ) -> AccountRecord:
        """Replace the account's keys; the account after it. KeyRetired, NotFound.

        Conflict while a session on it is not over, unless `while_trading`.
        """
        try:
            with self._database.transaction() as session:
                admit_key_version(session, sealed.key_version)
                row = _locked(session, account_id)
                if not while_trading:
                    _require_idle(session, row)
                row.key_hint, row.venue_user_id = key_hint, venue_user_id
                kept = _credential(session, account_id)
                if kept is None:
                    kept = AccountCredential(account_id=account_id)
                    session.add(kept)
                kept.key_version, kept.ciphertext = sealed.key_version, sealed.ciphertext
                kept.updated_at = at
                session.flush()
                return _record(row)
        except IntegrityError as error:
            raise _conflict(error, account_id, "") from error

    def living_session(self, account_id: str) -> str | None:
        """The session of the account that is not over, if there is one."""
        with self._database.read() as session:
            return _living_session(session, account_id)

    def _list(self, query: Select[Account]) -> list[AccountRecord]:
        with self._database.read() as session:
            rows = session.scalars(query.order_by(Account.created_at, Account.account_id))
            return [_record(row) for row in rows]


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
        """Own the account from here on; Unavailable while another gateway owns it.

        What is owned already waits for nobody, not for another account's claim either.
        """
        if account_id in self._held and self._connection is not None:
            return
        with self._locked():
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

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One claim at a time; Unavailable when whoever is hurried cannot wait for another's."""
        with waiting():
            is_mine = self._lock.acquire(timeout=allowed_s(CLAIM_WAIT_S))
        if not is_mine:
            raise Unavailable("another account is being claimed, and Postgres does not answer")
        try:
            yield
        finally:
            self._lock.release()

    def lost(self) -> None:
        """A write found another name in the row: claim everything anew before the next write."""
        with self._lock:
            self._forget()

    def close(self) -> None:
        """Give all leases back; when this returns another gateway may claim them."""
        with self._lock:
            if self._connection is not None and self._held:
                # the server frees them with the connection as well, but only some time after it
                with contextlib.suppress(DBAPIError):
                    self._connection.execute(text("SELECT pg_advisory_unlock_all()"))
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
        venue_user_id=row.venue_user_id,
    )


def _locked(session: Session, account_id: str) -> Account:
    row = session.get(Account, account_id, with_for_update=True)
    if row is None:
        raise NotFound(f"there is no account {account_id[:64]!r}")
    return row


def _credential(session: Session, account_id: str) -> AccountCredential | None:
    return session.get(AccountCredential, account_id, with_for_update=True)


def _living_session(session: Session, account_id: str) -> str | None:
    return session.scalar(
        select(ActiveSession.session_id).where(
            ActiveSession.account_id == account_id, ActiveSession.state.not_in(_OVER)
        )
    )


def _require_idle(session: Session, row: Account) -> None:
    living = _living_session(session, row.account_id)
    if living is not None:
        raise Conflict(
            f"session {living} trades on account {row.label!r}; terminate it and wait for its end"
        )


def _conflict(error: IntegrityError, label: str, owner_id: str) -> AifapError:
    """What the database's refusal means."""
    said = str(error.orig)
    if "accounts_owner_label" in said:
        return Conflict(f"label: the owner has an active account labelled {label!r}")
    if "accounts_one_per_venue_user" in said:
        return Conflict(
            "these keys are of an account at the exchange that this installation trades already; "
            "an account has one writer"
        )
    if "account_credentials_key_version" in said:
        return KeyRetired("the key version that sealed the credentials has just been retired")
    return InvalidInput(f"there is no user {owner_id[:64]!r}")
