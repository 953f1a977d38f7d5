"""People and their tokens.

A token is `aifap_` and 256 random bits; only its SHA-256 is kept, so reading the table opens no
door. Times here are real time (`Clock.wall`): how fast a paper world runs must not decide how long
a token opens doors.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import ApiToken, User
from module.db.repositories.audit import AuditEntry, add_audit
from module.model.errors import Conflict, NotFound, Unauthenticated

TOKEN_PREFIX: Final = "aifap_"  # noqa: S105 (what all tokens begin with, not one of them)
TOKEN_LENGTH_MAX: Final = 128
TOKEN_ID_LENGTH: Final = 16


class Role(StrEnum):
    """What a person is in the house: a trader, a manager of traders, the supervisor."""

    TRADER = "trader"
    MANAGER = "manager"
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One row of `user_details`."""

    user_id: str
    name: str
    role: Role
    active: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token as its owner may see it again: never the token itself."""

    token_id: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A fresh token; `secret` is shown once and not kept."""

    record: TokenRecord
    secret: str

    def __repr__(self) -> str:
        return f"IssuedToken({self.record!r})"


class UserRepository:
    """Rows of `user_details` and `api_tokens`. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, name: str, role: Role, at: datetime, *, audit_by: str | None = None
    ) -> UserRecord:
        """Insert a user; Conflict when the name is taken."""
        user = User(user_id=str(uuid.uuid4()), name=name, role=role, active=True, created_at=at)
        try:
            with self._database.transaction() as session:
                session.add(user)
                session.flush()
                detail = {"name": name, "role": role.value}
                add_audit(session, AuditEntry(audit_by, "user-add", user.user_id, at, detail))
                return _user(user)
        except IntegrityError as error:
            raise Conflict(f"there is a user named {name!r} already") from error

    def ensure(self, name: str, role: Role, at: datetime) -> UserRecord:
        """The user of that name, made if there is none (how an installation gets its first)."""
        found = self.by_name(name)
        if found is not None:
            return found
        try:
            return self.add(name, role, at)
        except Conflict:
            found = self.by_name(name)
            if found is None:
                raise
            return found

    def get(self, user_id: str) -> UserRecord:
        """The user; NotFound where there is none."""
        with self._database.read() as session:
            return _user(_user_row(session, user_id))

    def by_name(self, name: str) -> UserRecord | None:
        """The user of that name, or None."""
        with self._database.read() as session:
            row = session.scalars(select(User).where(User.name == name)).one_or_none()
            return None if row is None else _user(row)

    def list_all(self) -> list[UserRecord]:
        """Everybody, oldest first."""
        with self._database.read() as session:
            return [_user(row) for row in session.scalars(select(User).order_by(User.created_at))]

    def change(
        self,
        user_id: str,
        at: datetime,
        *,
        audit_by: str,
        role: Role | None = None,
        active: bool | None = None,
    ) -> UserRecord:
        """Change role or activity; it holds from the user's next request on.

        Conflict when it would leave the installation without an active supervisor.
        """
        with self._database.transaction() as session:
            supervisors = list(
                session.scalars(
                    select(User)
                    .where(User.role == Role.SUPERVISOR.value, User.active)
                    .order_by(User.user_id)
                    .with_for_update()
                )
            )
            row = session.get(User, user_id, with_for_update=True)
            if row is None:
                raise _unknown(user_id)
            row.role = row.role if role is None else role.value
            row.active = row.active if active is None else active
            stays = row.active and row.role == Role.SUPERVISOR.value
            if supervisors == [row] and not stays:
                raise Conflict(f"{row.name!r} is the only supervisor; make another one first")
            detail = {"role": row.role, "active": row.active}
            add_audit(session, AuditEntry(audit_by, "user-change", user_id, at, detail))
            session.flush()
            return _user(row)

    # --- tokens ---------------------------------------------------------------------------------

    def issue_token(
        self,
        user_id: str,
        label: str,
        at_wall: datetime,
        expires_at: datetime | None = None,
        *,
        audit_by: str | None = None,
    ) -> IssuedToken:
        """Make a token of the user's; NotFound where there is no such user."""
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        row = ApiToken(
            token_sha256=_sha256(secret),
            user_id=user_id,
            label=label,
            created_at=at_wall,
            expires_at=expires_at,
        )
        with self._database.transaction() as session:
            _user_row(session, user_id)
            session.add(row)
            record = _token(row)
            detail = {"token_id": record.token_id, "label": label}
            add_audit(session, AuditEntry(audit_by, "token-issue", user_id, at_wall, detail))
        return IssuedToken(record, secret)

    def authenticate(self, token: str, wall: datetime) -> UserRecord:
        """Whose token it is; Unauthenticated, always in the same words, when it opens nothing."""
        refusal = Unauthenticated(
            "this token is not valid; use another, or ask your operator for one"
        )
        if not token.startswith(TOKEN_PREFIX) or len(token) > TOKEN_LENGTH_MAX:
            raise refusal
        with self._database.read() as session:
            found = session.execute(
                select(ApiToken, User)
                .join(User, User.user_id == ApiToken.user_id)
                .where(ApiToken.token_sha256 == _sha256(token))
            ).one_or_none()
            if found is None:
                raise refusal
            row, user = found
            ended = row.expires_at is not None and row.expires_at <= wall
            if ended or row.revoked_at is not None or not user.active:
                raise refusal
            return _user(user)

    def list_tokens(self, user_id: str) -> list[TokenRecord]:
        """The user's tokens, newest first, revoked ones too."""
        with self._database.read() as session:
            rows = session.scalars(
                select(ApiToken)
                .where(ApiToken.user_id == user_id)
                .order_by(ApiToken.created_at.desc())
            )
            return [_token(row) for row in rows]

    def revoke_token(
        self, user_id: str, token_id: str, at_wall: datetime, *, audit_by: str
    ) -> TokenRecord:
        """End a token of the user's; repeating is harmless. NotFound where they have none such."""
        if len(token_id) != TOKEN_ID_LENGTH:
            raise NotFound(f"there is no token {token_id[:32]!r}")
        with self._database.transaction() as session:
            row = session.scalars(
                select(ApiToken)
                .where(
                    ApiToken.user_id == user_id,
                    ApiToken.token_sha256.startswith(token_id, autoescape=True),
                )
                .with_for_update()
            ).one_or_none()
            if row is None:
                raise NotFound(f"there is no token {token_id[:32]!r}")
            if row.revoked_at is None:
                row.revoked_at = at_wall
                detail = {"token_id": token_id}
                add_audit(session, AuditEntry(audit_by, "token-revoke", user_id, at_wall, detail))
            return _token(row)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _user_row(session: Session, user_id: str) -> User:
    row = session.get(User, user_id)
    if row is None:
        raise _unknown(user_id)
    return row


def _unknown(user_id: str) -> NotFound:
    return NotFound(f"there is no user {user_id[:40]!r}")


def _user(row: User) -> UserRecord:
    return UserRecord(row.user_id, row.name, Role(row.role), row.active, row.created_at)


def _token(row: ApiToken) -> TokenRecord:
    return TokenRecord(
        token_id=row.token_sha256[:TOKEN_ID_LENGTH],
        label=row.label,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
