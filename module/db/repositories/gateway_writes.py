"""Audit of the gateway: a row per write, committed before anything is sent.

The row is also the fence: in the same statement the account's epoch and owner are compared, and
the unique index on (account, client id) makes an order a thing that is sent at most once. A batch
of orders costs one round trip before it is sent and one after.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import Account, GatewayWrite
from module.db.repositories.accounts import LEASE_LOST
from module.db.repositories.wanted_stops import WantedStops, spell_wanted
from module.model.errors import NotFound, StaleWriter, Unavailable

# The share lock makes a raise of the epoch, and a change of limits, wait until this write is on
# record; what is read under it is the row as it is after whoever changed it before.
_RESERVE: Final = """
WITH account AS MATERIALIZED (
    SELECT epoch, gateway_lease, active, limits FROM accounts
    WHERE account_id = %(account_id)s FOR SHARE
), inserted AS (
    INSERT INTO gateway_writes
        (account_id, session_id, epoch, kind, client_id, symbol, request, answer, sent_at)
    SELECT %(account_id)s, %(session_id)s, %(epoch)s, 'order', entry.client_id, entry.symbol,
           entry.request, %(answer)s::jsonb, %(sent_at)s
    FROM account, jsonb_to_recordset(%(entries)s::jsonb)
        AS entry(client_id text, symbol text, request jsonb)
    WHERE account.active AND account.gateway_lease = %(gateway_id)s AND account.epoch = %(epoch)s
    ON CONFLICT (account_id, client_id) WHERE kind = 'order' DO NOTHING
    RETURNING client_id, write_id
)
SELECT account.epoch, account.gateway_lease, account.active, account.limits,
       (SELECT jsonb_object_agg(client_id, write_id) FROM inserted)
FROM account
"""
# A proven outcome is never weakened; a wish of a higher epoch, or newer, stays.
_RECORD: Final = """
WITH told AS (
    UPDATE gateway_writes
    SET outcome = learnt.outcome, answer = learnt.answer, answered_at = %(answered_at)s
    FROM jsonb_to_recordset(%(learnt)s::jsonb)
        AS learnt(write_id bigint, outcome text, answer jsonb)
    WHERE gateway_writes.write_id = learnt.write_id
      AND (gateway_writes.outcome IS NULL OR gateway_writes.outcome = 'unknown')
)
INSERT INTO wanted_stops
    (account_id, symbol, is_long, stop_loss, take_profit, epoch, updated_at)
SELECT account_id, symbol, is_long, stop_loss, take_profit, epoch, updated_at
FROM jsonb_to_recordset(%(wanted)s::jsonb) AS wish(
    account_id text, symbol text, is_long boolean, stop_loss numeric, take_profit numeric,
    epoch bigint, updated_at timestamptz)
ON CONFLICT (account_id, symbol) DO UPDATE
SET is_long = EXCLUDED.is_long, stop_loss = EXCLUDED.stop_loss,
    take_profit = EXCLUDED.take_profit, epoch = EXCLUDED.epoch, updated_at = EXCLUDED.updated_at
WHERE wanted_stops.epoch < EXCLUDED.epoch
   OR (wanted_stops.epoch = EXCLUDED.epoch AND wanted_stops.updated_at <= EXCLUDED.updated_at)
"""


class WriteKind(StrEnum):
    """What a write wanted."""

    ORDER = "order"
    CANCEL = "cancel"
    STOPS = "stops"
    SETTINGS = "settings"
    GUARD = "guard"


class WriteOutcome(StrEnum):
    """What became of it. Only `not_sent` may be sent again under the same client id; under one that
    is `ruled_out` nothing was sent and nothing ever is."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"
    RULED_OUT = "ruled_out"


GATE_REFUSED: Final = "gate_refused"
"""In the answer of an order that was not sent: the last gate had refused it before."""
NEVER_LEFT: Final = (WriteOutcome.NOT_SENT, WriteOutcome.RULED_OUT)


@dataclass(frozen=True, slots=True)
class WriteEntry:
    """One write that is about to be sent; `request` is plain JSON without any secret."""

    kind: WriteKind
    symbol: str
    request: Mapping[str, object]
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes: account, session, epoch, and the gateway process that carries it."""

    account_id: str
    session_id: str
    epoch: int
    gateway_id: str


@dataclass(frozen=True, slots=True)
class KnownWrite:
    """A row that is there: what was asked, what is known of it."""

    write_id: int
    kind: WriteKind
    client_id: str | None
    symbol: str
    epoch: int
    request: Mapping[str, object]
    outcome: WriteOutcome | None
    answer: Mapping[str, object] = field(default_factory=dict)
    sent_at: datetime | None = None
    answered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The rows of a batch: `fresh` may be sent, `seen` have been here before.

    `limits` are the account's at that moment: whoever changed them later waits for this batch.
    `again`: those of `fresh` that were on their way before, and did not get there.
    """

    fresh: Mapping[str, int]
    seen: Mapping[str, KnownWrite]
    limits: Mapping[str, object] = field(default_factory=dict)
    again: frozenset[str] = frozenset()


class WriteRepository:
    """Rows of `gateway_writes`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve_orders(
        self, author: Author, entries: Sequence[WriteEntry], sent_at: datetime
    ) -> Reservation:
        """Commit a row per order, each with its client id, after comparing epoch and owner.

        StaleWriter for another epoch than the account's; Unavailable when another gateway owns it
        (code `lease-lost`) or when Postgres does not answer. Repeating is harmless.
        """
        token = secrets.token_hex(8)
        found = self._database.express.run(
            _RESERVE,
            {
                "account_id": author.account_id,
                "session_id": author.session_id,
                "epoch": author.epoch,
                "gateway_id": author.gateway_id,
                "answer": _spell({"reservation": token}),
                "sent_at": sent_at,
                "entries": _spell(
                    [
                        {
                            "client_id": entry.client_id,
                            "symbol": entry.symbol,
                            "request": entry.request,
                        }
                        for entry in entries
                    ]
                ),
            },
        )
        epoch, lease, active, limits, inserted = found[0] if found else (0, None, False, {}, {})
        _require_author(author, epoch=epoch, lease=lease, active=active)
        fresh = {str(name): int(number) for name, number in (inserted or {}).items()}
        if len(fresh) == len(entries):
            return Reservation(fresh, {}, dict(limits or {}))
        return self._reserve_again(author, entries, sent_at, token)

    def _reserve_again(
        self, author: Author, entries: Sequence[WriteEntry], sent_at: datetime, token: str
    ) -> Reservation:
        """Some of these client ids have been here before: those that were certainly not sent are
        free again (for an order of another size too: a plan that is made anew has the ids of the
        one before), and those that carry `token` are our own of a moment ago."""
        ids = [entry.client_id for entry in entries]

        def work(session: Session) -> Reservation:
            limits = _compare_author(session, author)
            for entry in entries:
                session.execute(
                    update(GatewayWrite)
                    .where(
                        GatewayWrite.account_id == author.account_id,
                        GatewayWrite.kind == WriteKind.ORDER.value,
                        GatewayWrite.client_id == entry.client_id,
                        GatewayWrite.outcome == WriteOutcome.NOT_SENT.value,
                    )
                    .values(
                        outcome=None,
                        answer=func.jsonb_build_object(
                            "reservation",
                            token,
                            "again",
                            func.coalesce(
                                GatewayWrite.answer[GATE_REFUSED].as_boolean(), False
                            ).is_(False),
                        ),
                        symbol=entry.symbol,
                        request=dict(entry.request),
                        epoch=author.epoch,
                        sent_at=sent_at,
                    )
                )
            found = session.execute(
                select(GatewayWrite).where(
                    GatewayWrite.account_id == author.account_id,
                    GatewayWrite.kind == WriteKind.ORDER.value,
                    GatewayWrite.client_id.in_(ids),
                )
            ).scalars()
            return _split(found, token, limits)

        return self._database.run_idempotent(work)

    def reserve(self, author: Author, entry: WriteEntry, sent_at: datetime) -> int:
        """Commit the row of one cancel, stop or settings write; its write id. Errors as above."""
        with self._database.transaction() as session:
            _compare_author(session, author)
            row = _values(author, entry, sent_at, "")
            return session.execute(
                insert(GatewayWrite).values(row).returning(GatewayWrite.write_id)
            ).scalar_one()

    def rule_out(self, author: Author, entry: WriteEntry, at: datetime) -> KnownWrite:
        """The order's row as it is now. Where there was none, or one that was certainly not sent,
        it is ruled out from now on: no later reservation takes its client id.

        Errors as above; repeating is harmless.
        """

        def work(session: Session) -> KnownWrite:
            _compare_author(session, author)
            named = (
                GatewayWrite.account_id == author.account_id,
                GatewayWrite.kind == WriteKind.ORDER.value,
                GatewayWrite.client_id == entry.client_id,
            )
            row = {**_values(author, entry, at, ""), "outcome": WriteOutcome.RULED_OUT.value}
            session.execute(insert(GatewayWrite).values(row).on_conflict_do_nothing())
            session.execute(
                update(GatewayWrite)
                .where(*named, GatewayWrite.outcome == WriteOutcome.NOT_SENT.value)
                .values(outcome=WriteOutcome.RULED_OUT.value)
            )
            return _known(session.execute(select(GatewayWrite).where(*named)).scalar_one())

        return self._database.run_idempotent(work)

    def record_outcomes(
        self,
        outcomes: Mapping[int, tuple[WriteOutcome, Mapping[str, object]]],
        answered_at: datetime,
        wanted: Sequence[WantedStops] = (),
    ) -> None:
        """Write down what became of these rows; a proven outcome is never weakened.

        `wanted`: the stops that go with what was accepted, kept in the same transaction as by
        `WantedStopRepository.put`, so that no crash can part them.
        """
        if not outcomes and not wanted:
            return
        wishes = {(item.account_id, item.symbol): spell_wanted(item) for item in wanted}
        self._database.express.run(
            _RECORD,
            {
                "answered_at": answered_at,
                "learnt": _spell(
                    [
                        {"write_id": number, "outcome": outcome.value, "answer": answer}
                        for number, (outcome, answer) in outcomes.items()
                    ]
                ),
                "wanted": _spell(list(wishes.values())),
            },
        )

    def add_late(
        self,
        author: Author,
        entries: Iterable[tuple[WriteEntry, WriteOutcome, Mapping[str, object], datetime]],
    ) -> None:
        """Write down what was sent while Postgres was away, or what the guard did by itself.

        A request that carries a `late_id` is written once, however often it is told. One that is
        `named_for_later` ends in its reserved row, if that is there without an outcome.
        """
        rows: list[dict[str, Any]] = []
        for entry, outcome, answer, sent_at in entries:
            row = _values(author, entry, sent_at, "")
            row.update(outcome=outcome.value, answer=dict(answer), answered_at=sent_at)
            rows.append(row)
        if not rows:
            return

        def work(session: Session) -> None:
            late_id = GatewayWrite.request["late_id"].astext
            told = set(
                session.execute(
                    select(late_id).where(
                        GatewayWrite.account_id == author.account_id,
                        GatewayWrite.sent_at.in_([row["sent_at"] for row in rows]),
                        late_id.is_not(None),
                    )
                ).scalars()
            )
            new = [
                row
                for row in rows
                if row["request"].get("late_id") not in told and not _end_reserved(session, row)
            ]
            if new:
                session.execute(insert(GatewayWrite).values(new).on_conflict_do_nothing())

        self._database.run_idempotent(work)

    def unresolved(self, account_id: str, limit: int = 200) -> list[KnownWrite]:
        """Orders and stops whose outcome nobody knows, newest first."""
        with self._database.read() as session:
            rows = session.execute(
                select(GatewayWrite)
                .where(
                    GatewayWrite.account_id == account_id,
                    GatewayWrite.kind.in_([WriteKind.ORDER.value, WriteKind.STOPS.value]),
                    or_(
                        GatewayWrite.outcome.is_(None),
                        GatewayWrite.outcome == WriteOutcome.UNKNOWN.value,
                    ),
                )
                .order_by(GatewayWrite.write_id.desc())
                .limit(limit)
            ).scalars()
            return [_known(row) for row in rows]

    def sent_since(self, account_id: str, since: datetime) -> list[datetime]:
        """When the account's orders of the last while left (or may have), oldest first."""
        with self._database.read() as session:
            return list(
                session.execute(
                    select(GatewayWrite.sent_at)
                    .where(
                        GatewayWrite.account_id == account_id,
                        GatewayWrite.kind == WriteKind.ORDER.value,
                        GatewayWrite.sent_at > since,
                        or_(
                            GatewayWrite.outcome.is_(None),
                            GatewayWrite.outcome.not_in(NEVER_LEFT),
                        ),
                    )
                    .order_by(GatewayWrite.sent_at)
                ).scalars()
            )


RESERVED_AS: Final = "reserved_as"


def named_for_later(entry: WriteEntry) -> WriteEntry:
    """The same with a name of its own: reserved, with the answer lost, and told again by `add_late`
    (at the same time) it is one row."""
    return replace(entry, request={**entry.request, RESERVED_AS: secrets.token_hex(8)})


def _end_reserved(session: Session, row: Mapping[str, Any]) -> bool:
    """Whether the row was reserved, which nobody knew; then it has its outcome now."""
    name = row["request"].get(RESERVED_AS)
    if name is None:
        return False
    ended = session.execute(
        update(GatewayWrite)
        .where(
            GatewayWrite.account_id == row["account_id"],
            GatewayWrite.sent_at == row["sent_at"],
            GatewayWrite.request[RESERVED_AS].astext == name,
            GatewayWrite.outcome.is_(None),
        )
        .values({key: row[key] for key in ("request", "outcome", "answer", "answered_at")})
        .returning(GatewayWrite.write_id)
    )
    return ended.first() is not None


def _spell(value: object) -> str:
    """JSON for a parameter that the statement takes apart."""
    import orjson

    return orjson.dumps(value, default=str).decode()


def _compare_author(session: Session, author: Author) -> Mapping[str, object]:
    """The fence; the account's limits now. The share lock makes a raise of the epoch, and a change
    of limits, wait until this write is on record."""
    row = session.execute(
        select(Account.epoch, Account.gateway_lease, Account.active, Account.limits)
        .where(Account.account_id == author.account_id)
        .with_for_update(read=True)
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no active account {author.account_id}")
    _require_author(author, epoch=row.epoch, lease=row.gateway_lease, active=row.active)
    return dict(row.limits or {})


def _require_author(author: Author, *, epoch: int, lease: str | None, active: bool) -> None:
    """NotFound, Unavailable (`lease-lost`) or StaleWriter where the account is not the author's."""
    if not active:
        raise NotFound(f"there is no active account {author.account_id}")
    if lease != author.gateway_id:
        raise Unavailable(
            f"gateway {lease} owns account {author.account_id} now; nothing was sent",
            code=LEASE_LOST,
            retry_after_s=1.0,
        )
    if epoch != author.epoch:
        raise StaleWriter(
            f"epoch {author.epoch} may not write to account {author.account_id}: "
            f"its epoch is {epoch}; nothing was sent"
        )


def _values(author: Author, entry: WriteEntry, sent_at: datetime, token: str) -> dict[str, Any]:
    return {
        "account_id": author.account_id,
        "session_id": author.session_id,
        "epoch": author.epoch,
        "kind": entry.kind.value,
        "client_id": entry.client_id,
        "symbol": entry.symbol,
        "request": dict(entry.request),
        "outcome": None,
        "answer": {"reservation": token} if token else None,
        "sent_at": sent_at,
        "answered_at": None,
    }


def _split(rows: Iterable[GatewayWrite], token: str, limits: Mapping[str, object]) -> Reservation:
    fresh: dict[str, int] = {}
    seen: dict[str, KnownWrite] = {}
    again: set[str] = set()
    for row in rows:
        client_id, answer = row.client_id or "", row.answer or {}
        if row.outcome is None and answer.get("reservation") == token:
            fresh[client_id] = row.write_id
            if answer.get("again"):
                again.add(client_id)
        else:
            seen[client_id] = _known(row)
    return Reservation(fresh, seen, limits, frozenset(again))


def _known(row: GatewayWrite) -> KnownWrite:
    return KnownWrite(
        write_id=row.write_id,
        kind=WriteKind(row.kind),
        client_id=row.client_id,
        symbol=row.symbol,
        epoch=row.epoch,
        request=dict(row.request),
        outcome=WriteOutcome(row.outcome) if row.outcome else None,
        answer=dict(row.answer or {}),
        sent_at=row.sent_at,
        answered_at=row.answered_at,
    )
