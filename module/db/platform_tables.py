"""Tables of the `finplatform` database: who may do what, accounts, sessions, cycles, audit.

Times are given by the application's Clock; SQL never calls now(). World time unless the name says
`wall`. Money is numeric(38,18).
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

MONEY = Numeric(38, 18)
INSTANT = DateTime(timezone=True)
JSON_OBJECT = JSONB(none_as_null=True)


class PlatformBase(DeclarativeBase):
    """Everything in `finplatform`."""


class User(PlatformBase):
    """A person. `role`: trader, manager or supervisor."""

    __tablename__ = "user_details"

    user_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    active: Mapped[bool] = mapped_column(Boolean, default=True)
    created_at: Mapped[datetime] = mapped_column(INSTANT)


class Permission(PlatformBase):
    """One thing a user may do, beyond what the role gives."""

    __tablename__ = "permissions"

    user_id: Mapped[str] = mapped_column(ForeignKey("user_details.user_id"), primary_key=True)
    permission: Mapped[str] = mapped_column(String(64), primary_key=True)
    granted_at: Mapped[datetime] = mapped_column(INSTANT)


class ApiToken(PlatformBase):
    """A token a user shows; only its SHA-256 is kept."""

    __tablename__ = "api_tokens"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("user_details.user_id"), index=True)
    label: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(INSTANT)
    expires_at: Mapped[datetime | None] = mapped_column(INSTANT)
    revoked_at: Mapped[datetime | None] = mapped_column(INSTANT)


class Account(PlatformBase):
    """One set of credentials on one venue and one market; `epoch` only grows."""

    __tablename__ = "accounts"

    account_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("user_details.user_id"), index=True)
    label: Mapped[str] = mapped_column(String(64))
    venue: Mapped[str] = mapped_column(String(16))
    market: Mapped[str] = mapped_column(String(16))
    market_id: Mapped[str] = mapped_column(String(128))
    trade_env: Mapped[str] = mapped_column(String(8))
    base_url: Mapped[str] = mapped_column(String(255))
    active: Mapped[bool] = mapped_column(Boolean, default=True)
    epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    gateway_lease: Mapped[str | None] = mapped_column(String(64))
    initial_balance: Mapped[Decimal | None] = mapped_column(MONEY)
    key_hint: Mapped[str] = mapped_column(String(16), default="")
    limits: Mapped[dict[str, Any]] = mapped_column(JSON_OBJECT, default=dict)
    created_at: Mapped[datetime] = mapped_column(INSTANT)
    venue_user_id: Mapped[str] = mapped_column(String(64), default="", server_default="")

    __table_args__ = (
        Index(
            "accounts_owner_label",
            "owner_id",
            "label",
            unique=True,
            postgresql_where=text("active"),
        ),
        # One account of ours per account of the venue: two would be two writers (promise 4).
        Index(
            "accounts_one_per_venue_user",
            *("venue", "market", "trade_env", "base_url", "venue_user_id"),
            unique=True,
            postgresql_where=text("active AND venue_user_id <> ''"),
        ),
    )


class CredentialKey(PlatformBase):
    """A version of the key ring that rows may need. A retired one has no row: the reference from
    `account_credentials` then refuses whoever still seals with it."""

    __tablename__ = "credential_keys"

    key_version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)


class AccountCredential(PlatformBase):
    """Encrypted exchange keys; readable by the gateway alone."""

    __tablename__ = "account_credentials"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.account_id"), primary_key=True)
    key_version: Mapped[int] = mapped_column(
        ForeignKey("credential_keys.key_version", name="account_credentials_key_version"),
        index=True,
    )
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at: Mapped[datetime] = mapped_column(INSTANT)


class ActiveSession(PlatformBase):
    """One session, running or over. The partial unique index is promise 4: one per account."""

    __tablename__ = "active_sessions"

    session_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("user_details.user_id"), index=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.account_id"), index=True)
    state: Mapped[str] = mapped_column(String(16))
    desired: Mapped[str] = mapped_column(String(16))
    end_state: Mapped[str] = mapped_column(String(16))
    epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON_OBJECT)
    order_info_store: Mapped[str] = mapped_column(String(16), default="file")
    started_at: Mapped[datetime] = mapped_column(INSTANT)
    ends_at: Mapped[datetime] = mapped_column(INSTANT)
    ended_at: Mapped[datetime | None] = mapped_column(INSTANT)
    reason: Mapped[str] = mapped_column(Text, default="")
    cycle: Mapped[int] = mapped_column(Integer, default=0)
    last_boundary: Mapped[datetime | None] = mapped_column(INSTANT)
    heartbeat_wall: Mapped[datetime | None] = mapped_column(INSTANT)
    initial_balance: Mapped[Decimal | None] = mapped_column(MONEY)
    leader_pid: Mapped[int | None] = mapped_column(Integer)
    leader_started_ticks: Mapped[int | None] = mapped_column(BigInteger)
    leader_host: Mapped[str | None] = mapped_column(String(255))
    restarts: Mapped[int] = mapped_column(Integer, default=0)

    __table_args__ = (
        Index(
            "active_sessions_one_per_account",
            "account_id",
            unique=True,
            postgresql_where=text("state NOT IN ('ended', 'failed')"),
        ),
    )


class Cycle(PlatformBase):
    """One rebalance and its journal: inputs, targets, plan, outcome."""

    __tablename__ = "cycles"

    session_id: Mapped[str] = mapped_column(
        ForeignKey("active_sessions.session_id"), primary_key=True
    )
    boundary: Mapped[datetime] = mapped_column(INSTANT, primary_key=True)
    number: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    started_at: Mapped[datetime] = mapped_column(INSTANT)
    ended_at: Mapped[datetime | None] = mapped_column(INSTANT)
    own_ms: Mapped[float | None]
    targets: Mapped[dict[str, Any] | None] = mapped_column(JSON_OBJECT)
    order_info: Mapped[dict[str, Any] | None] = mapped_column(JSON_OBJECT)
    digest: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (Index("cycles_ended", "ended_at"),)


class OrderInfoMirror(PlatformBase):
    """The last order_info of a session as Postgres knows it; (epoch, revision) only grows.

    `sha256` is of the document's canonical spelling (None: stored before there was one).
    """

    __tablename__ = "order_info"

    session_id: Mapped[str] = mapped_column(
        ForeignKey("active_sessions.session_id"), primary_key=True
    )
    epoch: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[dict[str, Any]] = mapped_column(JSON_OBJECT)
    sha256: Mapped[str | None] = mapped_column(String(64))


class ArchivedCycle(PlatformBase):
    """An ended cycle of a session whose letter lives in Postgres: the sealed letter and the bars
    that its strategy saw, as files of the archive have them. `content` None: not ended yet."""

    __tablename__ = "archived_cycles"

    session_id: Mapped[str] = mapped_column(
        ForeignKey("active_sessions.session_id"), primary_key=True
    )
    boundary: Mapped[datetime] = mapped_column(INSTANT, primary_key=True)
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    bars: Mapped[bytes | None] = mapped_column(LargeBinary)


class GatewayWrite(PlatformBase):
    """Audit of every write that reached the gateway; the row exists before anything is sent."""

    __tablename__ = "gateway_writes"

    write_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    account_id: Mapped[str] = mapped_column(String(36), index=True)
    session_id: Mapped[str] = mapped_column(String(16))
    epoch: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    client_id: Mapped[str | None] = mapped_column(String(64))
    symbol: Mapped[str] = mapped_column(String(32))
    request: Mapped[dict[str, Any]] = mapped_column(JSON_OBJECT)
    outcome: Mapped[str | None] = mapped_column(String(16))
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON_OBJECT)
    sent_at: Mapped[datetime] = mapped_column(INSTANT)
    answered_at: Mapped[datetime | None] = mapped_column(INSTANT)

    __table_args__ = (
        Index("gateway_writes_session_sent", "session_id", "sent_at"),
        Index(
            "gateway_writes_one_order_per_client_id",
            "account_id",
            "client_id",
            unique=True,
            postgresql_where=text("kind = 'order'"),
        ),
    )


class WantedStop(PlatformBase):
    """The stop each position of an account should have; the gateway keeps it so (promise 2)."""

    __tablename__ = "wanted_stops"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.account_id"), primary_key=True)
    symbol: Mapped[str] = mapped_column(String(32), primary_key=True)
    is_long: Mapped[bool] = mapped_column(Boolean)
    stop_loss: Mapped[Decimal | None] = mapped_column(MONEY)
    take_profit: Mapped[Decimal | None] = mapped_column(MONEY)
    epoch: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(INSTANT)


class UnprotectedPeriod(PlatformBase):
    """A position that stood without the stop it should have; `ended_at` null while it does.

    `cause`: opened, removed, found (`module.db.repositories.unprotected_periods.BareCause`).
    """

    __tablename__ = "unprotected_periods"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    account_id: Mapped[str] = mapped_column(String(36))
    symbol: Mapped[str] = mapped_column(String(32))
    started_at: Mapped[datetime] = mapped_column(INSTANT)
    ended_at: Mapped[datetime | None] = mapped_column(INSTANT)
    cause: Mapped[str] = mapped_column(String(16))

    __table_args__ = (
        Index("unprotected_periods_account_start", "account_id", "started_at"),
        Index(
            "unprotected_periods_open",
            "account_id",
            postgresql_where=text("ended_at IS NULL"),
        ),
    )


class OutboxAlert(PlatformBase):
    """A message on its way to people; rows survive the process that wrote them."""

    __tablename__ = "alert_outbox"

    alert_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    severity: Mapped[str] = mapped_column(String(16))
    title: Mapped[str] = mapped_column(String(255))
    lines: Mapped[list[Any]] = mapped_column(JSONB)
    cause: Mapped[str] = mapped_column(String(128))
    session_id: Mapped[str | None] = mapped_column(String(16), index=True)
    owner_id: Mapped[str | None] = mapped_column(String(36), index=True)
    at: Mapped[datetime] = mapped_column(INSTANT)
    created_wall: Mapped[datetime] = mapped_column(INSTANT)


class AlertDelivery(PlatformBase):
    """One channel's copy of an alert: pending, sent, dead."""

    __tablename__ = "alert_deliveries"

    alert_id: Mapped[int] = mapped_column(ForeignKey("alert_outbox.alert_id"), primary_key=True)
    channel: Mapped[str] = mapped_column(String(16), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_try_wall: Mapped[datetime] = mapped_column(INSTANT)
    last_error: Mapped[str] = mapped_column(String(255), default="")


class AuditRecord(PlatformBase):
    """One state-changing command of a person."""

    __tablename__ = "audit_log"

    audit_id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(String(36), index=True)
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(128))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON_OBJECT)
    at_wall: Mapped[datetime] = mapped_column(INSTANT)


class IdempotentAnswer(PlatformBase):
    """The answer an `Idempotency-Key` got; another body under the key is a conflict."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None] = mapped_column(Integer)
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON_OBJECT)
    created_wall: Mapped[datetime] = mapped_column(INSTANT)
