"""What one's sessions were worth, minute by minute (RqueryAPI): `/results`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Depends, Query, Response

from api.answers import answer, spelled_object
from api.dependencies import AtDoors, Doors, SignedIn, own_session
from api.session_views import latest_view, session_views, visible_owner, watched_shape
from module.db.repositories.results import StoredRow
from module.db.repositories.users import UserRecord
from module.model.canonical import instant_text, parse_instant
from module.model.errors import InvalidInput, InvariantViolated
from module.model.results import WatchedSession

router = APIRouter(prefix="/results", tags=["results"])
ROWS_MAX: Final = 2_000
ROWS_DEFAULT: Final = 500
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)
Instant = Annotated[str | None, Query(max_length=40)]
Rows = Annotated[int, Query(ge=1, le=ROWS_MAX)]
T = TypeVar("T")


def _watched(doors: Doors, user: UserRecord, session_id: str) -> WatchedSession:
    return watched_shape(own_session(doors, user, session_id))


def _range(doors: Doors, start: str | None, end: str | None) -> tuple[datetime, datetime]:
    since = _FIRST if start is None else _instant("start", start)
    until = doors.clock.now() + _MINUTE if end is None else _instant("end", end)
    if since >= until:
        raise InvalidInput(f"start must be before end, which is {instant_text(until)}")
    return since, until


def _instant(name: str, text: str) -> datetime:
    try:
        return parse_instant(text)
    except (ValueError, OverflowError, InvariantViolated) as error:
        raise InvalidInput(
            f"{name} must be an ISO 8601 time with an offset, e.g. 2026-11-21T10:30:00Z"
        ) from error


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The session that was asked about, and [since, until) of its minutes."""

    watched: WatchedSession
    since: datetime
    until: datetime
    rows_max: int


def _stretch(
    doors: AtDoors,
    user: SignedIn,
    session_id: str,
    start: Instant = None,
    end: Instant = None,
    limit: Rows = ROWS_DEFAULT,
) -> _Stretch:
    watched = _watched(doors, user, session_id)
    since, until = _range(doors, start, end)
    return _Stretch(watched, since, until, limit)


Stretch = Annotated[_Stretch, Depends(_stretch)]


def _series_answer(rows: Sequence[StoredRow[T]]) -> Response:
    return answer({"rows": [{"minute": item.minute, **spelled_object(item.row)} for item in rows]})


@router.get("/sessions")
def get_sessions(
    doors: AtDoors, user: SignedIn, over: Annotated[int, Query(ge=0, le=500)] = 100
) -> Response:
    """The sessions that there are results of."""
    records = doors.sessions.list_for_owner(visible_owner(user), over_max=over)
    return answer({"sessions": session_views(doors, records)})


@router.get("/{session_id}/latest")
def get_latest(doors: AtDoors, user: SignedIn, session_id: str) -> Response:
    """The newest minute: portfolio, symbols, indicators; null before the first one."""
    watched = _watched(doors, user, session_id)
    return answer({"session_id": session_id, "result": latest_view(doors.results.latest(watched))})


@router.get("/{session_id}/portfolio")
def get_portfolio(doors: AtDoors, asked: Stretch) -> Response:
    """Portfolio rows of [start, end), oldest first; beyond `limit` the newest of them."""
    rows = doors.results.portfolio_series(asked.watched, asked.since, asked.until, asked.rows_max)
    return _series_answer(rows)


@router.get("/{session_id}/indicators")
def get_indicators(doors: AtDoors, asked: Stretch) -> Response:
    """Indicator rows of [start, end), oldest first; beyond `limit` the newest of them."""
    rows = doors.results.indicator_series(asked.watched, asked.since, asked.until, asked.rows_max)
    return _series_answer(rows)


@router.get("/{session_id}/symbols")
def get_symbols(doors: AtDoors, asked: Stretch) -> Response:
    """Rows of each symbol of [start, end), oldest first; beyond `limit` the newest of them."""
    rows = doors.results.symbol_series(asked.watched, asked.since, asked.until, asked.rows_max)
    return _series_answer(rows)


@router.get("/{session_id}/gaps")
def get_gaps(doors: AtDoors, asked: Stretch) -> Response:
    """Minutes without a row, and why."""
    gaps = doors.results.gaps(asked.watched, asked.since, asked.until, asked.rows_max)
    return answer({"gaps": gaps})


@router.get("/{session_id}/transactions")
def get_transactions(
    doors: AtDoors, user: SignedIn, session_id: str, limit: Rows = ROWS_DEFAULT
) -> Response:
    """The newest fills, newest first."""
    watched = _watched(doors, user, session_id)
    return answer({"transactions": doors.results.transactions(watched, "fill", limit)})
