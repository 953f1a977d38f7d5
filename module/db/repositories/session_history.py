"""What sessions planned and sent, read in pages: lists of sessions, their cycles, their orders.

    active_sessions, cycles, order_info, gateway_writes ─► SessionHistory ─► results API

Reading only. Every list goes on from a key that the last row of the page before had, so that the
thousandth page costs what the first one does. All calls raise Unavailable while Postgres is away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Row, Select, and_, case, literal, or_, select, tuple_
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import ActiveSession, Cycle, GatewayWrite, OrderInfoMirror
from module.db.repositories.gateway_writes import WriteKind
from module.db.repositories.session_records import OVER, SessionRecord, record_of

SessionKey = tuple[int, datetime, str]
"""(0 while it is not over, else 1; start; id): the order of a list of sessions, newest first."""


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions; None: all. `states` of `SessionState`, times of the session's start."""

    owner_id: str | None = None
    states: Sequence[str] | None = None
    account_id: str | None = None
    strategy_name: str | None = None
    market: str | None = None
    trade_env: str | None = None
    started_since: datetime | None = None
    started_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredCycle:
    """One ended cycle without its inputs. `legs` and `skipped` as the letter spells them."""

    boundary: datetime
    number: int
    state: str
    reason: str
    started_at: datetime
    ended_at: datetime | None
    own_ms: float | None
    targets: Mapping[str, object] | None
    digest: str | None
    legs: Sequence[Mapping[str, object]]
    skipped: Sequence[Mapping[str, object]]
    residuals: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SentWrite:
    """One write that reached the gateway. `request` and `answer` are plain JSON; `outcome` None:
    it is under way, or the gateway died with it."""

    write_id: int
    kind: str
    client_id: str | None
    symbol: str
    epoch: int
    request: Mapping[str, object]
    outcome: str | None
    answer: Mapping[str, object]
    sent_at: datetime
    answered_at: datetime | None


@dataclass(frozen=True, slots=True)
class WriteFilter:
    """Which writes of a session; None: all. [since, until) of when they were sent."""

    since: datetime
    until: datetime
    kind: str | None = WriteKind.ORDER.value
    symbol: str | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class CycleFilter:
    """Which cycles of a session; None: all. [since, until) of the boundary."""

    since: datetime
    until: datetime
    state: str | None = None


@dataclass(frozen=True, slots=True)
class CycleLegs:
    """The legs of one cycle, as the letter spells them, and the cycle's number."""

    number: int
    legs: Sequence[Mapping[str, object]] = field(default_factory=tuple)


class SessionHistory:
    """Reads of `finplatform`. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sessions(
        self, wanted: SessionFilter, after: SessionKey | None, count_max: int
    ) -> list[SessionRecord]:
        """Sessions that are not over, newest first, then those that are; those behind `after`."""
        query = _filtered(select(ActiveSession), wanted)
        if after is not None:
            started, session_id = after[1:]
            later = tuple_(ActiveSession.started_at, ActiveSession.session_id) < tuple_(
                started, session_id
            )
            rank = literal(after[0])
            query = query.where(or_(rank < _RANK, and_(rank == _RANK, later)))
        query = query.order_by(
            _RANK, ActiveSession.started_at.desc(), ActiveSession.session_id.desc()
        ).limit(count_max)
        with self._database.read() as session:
            return [record_of(row) for row in session.scalars(query)]

    def cycles(
        self,
        session_id: str,
        wanted: CycleFilter,
        after: datetime | None,
        count_max: int,
        *,
        newest_first: bool = True,
    ) -> list[StoredCycle]:
        """Ended cycles, those behind the boundary `after`."""
        query = select(*_CYCLE_COLUMNS).where(
            Cycle.session_id == session_id,
            Cycle.boundary >= wanted.since,
            Cycle.boundary < wanted.until,
        )
        if wanted.state is not None:
            query = query.where(Cycle.state == wanted.state)
        if after is not None:
            query = query.where(Cycle.boundary < after if newest_first else Cycle.boundary > after)
        order = Cycle.boundary.desc() if newest_first else Cycle.boundary.asc()
        with self._database.read() as session:
            return [_cycle(row) for row in session.execute(query.order_by(order).limit(count_max))]

    def cycle_letter(
        self, session_id: str, *, boundary: datetime | None = None, number: int | None = None
    ) -> dict[str, object] | None:
        """The whole letter of one cycle, ended or under way: of a boundary, of a number, or
        (without either) of the newest; None where there is none."""
        with self._database.read() as session:
            for document in (
                _current_letter(session, session_id),
                *_ended_letters(session, session_id, boundary, number),
            ):
                if document is not None and _is_of(document, boundary, number):
                    return document
        return None

    def writes(
        self,
        session_id: str,
        wanted: WriteFilter,
        after: int | None,
        count_max: int,
        *,
        newest_first: bool = True,
    ) -> list[SentWrite]:
        """What the session sent, in the order of its rows; those behind the write `after`."""
        table = GatewayWrite
        query = select(table).where(
            table.session_id == session_id,
            table.sent_at >= wanted.since,
            table.sent_at < wanted.until,
        )
        for column, value in (
            (table.kind, wanted.kind),
            (table.symbol, wanted.symbol),
            (table.outcome, wanted.outcome),
        ):
            if value is not None:
                query = query.where(column == value)
        if after is not None:
            query = query.where(table.write_id < after if newest_first else table.write_id > after)
        order = table.write_id.desc() if newest_first else table.write_id.asc()
        with self._database.read() as session:
            return [
                _write(each) for each in session.scalars(query.order_by(order).limit(count_max))
            ]

    def legs(self, session_id: str, boundaries: Sequence[datetime]) -> dict[datetime, CycleLegs]:
        """The legs of these cycles, ended or under way, by boundary."""
        if not boundaries:
            return {}
        query = select(Cycle.boundary, Cycle.number, _LEGS).where(
            Cycle.session_id == session_id, Cycle.boundary.in_(set(boundaries))
        )
        with self._database.read() as session:
            found = {row[0]: CycleLegs(row[1], _objects(row[2])) for row in session.execute(query)}
            current = _current_letter(session, session_id)
        if current is not None:
            boundary = _boundary_of(current)
            if boundary is not None and boundary not in found:
                number = current.get("number")
                found[boundary] = CycleLegs(
                    number if isinstance(number, int) else 0, _objects(current.get("legs"))
                )
        return found


_RANK: Final[ColumnElement[int]] = case((ActiveSession.state.in_(OVER), 1), else_=0)
_LEGS: Final = Cycle.order_info["legs"]
_CYCLE_COLUMNS: Final = (
    Cycle.boundary,
    Cycle.number,
    Cycle.state,
    Cycle.reason,
    Cycle.started_at,
    Cycle.ended_at,
    Cycle.own_ms,
    Cycle.targets,
    Cycle.digest,
    _LEGS.label("legs"),
    Cycle.order_info["skipped"].label("skipped"),
    Cycle.order_info["skipped_later"].label("skipped_later"),
    Cycle.order_info["residuals"].label("residuals"),
)


def _filtered(query: Select[ActiveSession], wanted: SessionFilter) -> Select[ActiveSession]:
    row = ActiveSession
    if wanted.states is not None:
        query = query.where(row.state.in_(wanted.states))
    for column, value in (
        (row.owner_id, wanted.owner_id),
        (row.account_id, wanted.account_id),
        (row.spec["strategy_name"].as_string(), wanted.strategy_name),
        (row.spec["market"].as_string(), wanted.market),
        (row.spec["trade_env"].as_string(), wanted.trade_env),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.started_since is not None:
        query = query.where(row.started_at >= wanted.started_since)
    if wanted.started_before is not None:
        query = query.where(row.started_at < wanted.started_before)
    return query


def _current_letter(session: Session, session_id: str) -> dict[str, object] | None:
    document = session.scalars(
        select(OrderInfoMirror.document).where(OrderInfoMirror.session_id == session_id)
    ).one_or_none()
    return None if document is None else dict(document)


def _ended_letters(
    session: Session, session_id: str, boundary: datetime | None, number: int | None
) -> list[dict[str, object] | None]:
    query = select(Cycle.order_info).where(
        Cycle.session_id == session_id, Cycle.order_info.is_not(None)
    )
    if boundary is not None:
        query = query.where(Cycle.boundary == boundary)
    if number is not None:
        query = query.where(Cycle.number == number)
    found = session.scalars(query.order_by(Cycle.boundary.desc()).limit(1))
    return [None if document is None else dict(document) for document in found]


def _is_of(document: Mapping[str, object], boundary: datetime | None, number: int | None) -> bool:
    if boundary is not None and _boundary_of(document) != boundary:
        return False
    return number is None or document.get("number") == number


def _boundary_of(document: Mapping[str, object]) -> datetime | None:
    text = document.get("cycle")
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _cycle(row: Row[Any]) -> StoredCycle:
    return StoredCycle(
        boundary=row.boundary,
        number=row.number,
        state=row.state,
        reason=row.reason,
        started_at=row.started_at,
        ended_at=row.ended_at,
        own_ms=row.own_ms,
        targets=row.targets,
        digest=row.digest,
        legs=_objects(row.legs),
        skipped=(*_objects(row.skipped), *_objects(row.skipped_later)),
        residuals=row.residuals if isinstance(row.residuals, dict) else {},
    )


def _write(row: GatewayWrite) -> SentWrite:
    return SentWrite(
        write_id=row.write_id,
        kind=row.kind,
        client_id=row.client_id,
        symbol=row.symbol,
        epoch=row.epoch,
        request=dict(row.request),
        outcome=row.outcome,
        answer=dict(row.answer or {}),
        sent_at=row.sent_at,
        answered_at=row.answered_at,
    )


def _objects(value: object) -> tuple[Mapping[str, object], ...]:
    """The objects of a JSON list; nothing where there is none."""
    if not isinstance(value, list):
        return ()
    return tuple(cast(Mapping[str, object], item) for item in value if isinstance(item, dict))
