"""What a watcher of many sessions reads and writes at once: one statement each, not one a session.

monitoring.fleet ── sessions, unprotected_s ─► active_sessions, cycles, unprotected_periods
                 ── progress, store_gaps    ─► the minute tables, result_gaps_1min, finwatcher_state

All calls raise Unavailable while Postgres is away; the write may be repeated.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select, text, true, tuple_
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import ActiveSession, Cycle, User
from module.db.repositories.results_writes import drop_gaps, insert_gaps
from module.db.repositories.session_records import OVER, record_of, watched_session
from module.db.repositories.unprotected_periods import UnprotectedPeriodRepository
from module.db.results_rollups import day_of, mark_days
from module.db.results_tables import portfolio_table
from module.model.canonical import parse_instant
from module.model.errors import InvariantViolated
from module.model.market import MarketType
from module.model.results import CurvePoint, GapCause, GapRow, StoredProgress, WatchedSession

SURE_UNTIL: Final = "sure_until"
"""The member of a stored state that says up to which minute nothing is missing."""
_POINT: Final = ", ".join(field.name for field in dataclasses.fields(CurvePoint))

_LAST = """
SELECT a.session_id, greatest(p.minute, g.minute), s.document
FROM unnest(CAST(:ids AS text[])) AS a (session_id)
LEFT JOIN LATERAL (SELECT minute FROM {portfolio} AS r WHERE r.session_id = a.session_id
                   ORDER BY minute DESC LIMIT 1) AS p ON true
LEFT JOIN LATERAL (SELECT minute FROM result_gaps_1min AS r WHERE r.session_id = a.session_id
                   ORDER BY minute DESC LIMIT 1) AS g ON true
LEFT JOIN finwatcher_state AS s ON s.session_id = a.session_id
"""
_KEPT = """
SELECT a.session_id, array_agg(k.minute),
       coalesce(array_agg(k.minute) FILTER (WHERE k.unexplained), CAST(ARRAY[] AS timestamptz[]))
FROM unnest(CAST(:ids AS text[]), CAST(:first AS timestamptz[]), CAST(:last AS timestamptz[]))
    AS a (session_id, after, until)
CROSS JOIN LATERAL (
    SELECT minute, false AS unexplained FROM {portfolio} AS r
    WHERE r.session_id = a.session_id AND r.minute > a.after AND r.minute <= a.until
    UNION ALL
    SELECT minute, cause = '{not_running}' FROM result_gaps_1min AS r
    WHERE r.session_id = a.session_id AND r.minute > a.after AND r.minute <= a.until
) AS k
GROUP BY a.session_id
"""
_CURVE = """
SELECT a.session_id, {point}
FROM unnest(CAST(:ids AS text[]), CAST(:first AS timestamptz[])) AS a (session_id, after)
CROSS JOIN LATERAL (
    SELECT {point} FROM {portfolio} AS r
    WHERE r.session_id = a.session_id AND r.minute > a.after
) AS k
ORDER BY a.session_id, k.minute
"""


class FleetRepository:
    """Reads of `finplatform` and of `finwatcher` for all sessions of an installation."""

    def __init__(self, platform: Database, finwatcher: Database) -> None:
        self._platform = platform
        self._finwatcher = finwatcher
        self._unprotected = UnprotectedPeriodRepository(platform)

    def sessions(self, ended_since: datetime) -> list[WatchedSession]:
        """The sessions that are not over, and those that ended since then, oldest first; each with
        the targets of its latest cycle that has any."""
        targets = (
            select(Cycle.targets)
            .where(Cycle.session_id == ActiveSession.session_id, Cycle.targets.is_not(None))
            .order_by(Cycle.boundary.desc())
            .limit(1)
            .lateral("newest")
        )
        query = (
            select(ActiveSession, targets.c.targets, User.name)
            .join(User, User.user_id == ActiveSession.owner_id)
            .join(targets, true(), isouter=True)
            .where(
                ActiveSession.state.not_in(OVER) | (ActiveSession.ended_at >= ended_since),
            )
            .order_by(ActiveSession.started_at, ActiveSession.session_id)
        )
        with self._platform.read() as db:
            return [
                watched_session(record_of(row), wanted, name)
                for row, wanted, name in db.execute(query)
            ]

    def unprotected_s(
        self, sessions: Sequence[WatchedSession], until: datetime
    ) -> dict[str, float]:
        """Seconds × positions without their stop since each session's start, by session."""
        living = {session.account_id: session for session in sessions if not session.is_over}
        seconds = self._unprotected.seconds_of(
            {account_id: session.started_at for account_id, session in living.items()}, until
        )
        return {living[account_id].session_id: value for account_id, value in seconds.items()}

    def progress(
        self, sessions: Sequence[WatchedSession], look_back: timedelta
    ) -> dict[str, StoredProgress]:
        """Where the rows of each session stand. Without a stored `sure_until` the last `look_back`
        of its rows are looked at."""
        found: dict[str, StoredProgress] = {}
        with self._finwatcher.read() as db:
            for market, members in _by_market(sessions).items():
                found.update(_progress(db, market, members, look_back))
        return found

    def store_gaps(self, gaps: Sequence[tuple[WatchedSession, GapRow]]) -> int:
        """Record gaps for minutes that have no row, and no gap that says more; how many."""
        by_market: dict[MarketType, list[GapRow]] = defaultdict(list)
        for session, gap in gaps:
            by_market[session.market].append(gap)

        def work(db: Session) -> int:
            new = 0
            for market, rows in by_market.items():
                table = portfolio_table(market)
                keys = [(row.session_id, row.minute) for row in rows]
                there = {
                    (row.session_id, row.minute)
                    for row in db.execute(
                        select(table.c.session_id, table.c.minute).where(
                            tuple_(table.c.session_id, table.c.minute).in_(keys)
                        )
                    )
                }
                missing = [row for row in rows if (row.session_id, row.minute) not in there]
                mark_days(db, [(row.session_id, day_of(row.minute), market) for row in missing])
                new += insert_gaps(db, missing)
            return new

        if not gaps:
            return 0
        new = self._finwatcher.run_idempotent(work)
        # Another watcher may have written the row meanwhile: with both there, the row is right.
        self._finwatcher.run_idempotent(lambda db: _drop_covered(db, by_market))
        return new


def _drop_covered(db: Session, by_market: Mapping[MarketType, Sequence[GapRow]]) -> None:
    for market, gaps in by_market.items():
        table = portfolio_table(market)
        keys = [(gap.session_id, gap.minute) for gap in gaps]
        there = db.execute(
            select(table.c.session_id, table.c.minute).where(
                tuple_(table.c.session_id, table.c.minute).in_(keys)
            )
        ).all()
        drop_gaps(db, [(row.session_id, row.minute) for row in there])


def _by_market(sessions: Sequence[WatchedSession]) -> dict[MarketType, list[WatchedSession]]:
    by_market: dict[MarketType, list[WatchedSession]] = defaultdict(list)
    for session in sessions:
        by_market[session.market].append(session)
    return by_market


def _progress(
    db: Session, market: MarketType, members: Sequence[WatchedSession], look_back: timedelta
) -> dict[str, StoredProgress]:
    portfolio = portfolio_table(market).name

    def ask(query: str, **values: object) -> Sequence[Any]:
        names = {"portfolio": portfolio, "point": _POINT, "not_running": GapCause.NOT_RUNNING.value}
        return db.execute(text(query.format(**names)), values).all()

    ends = ask(_LAST, ids=[session.session_id for session in members])
    spans: dict[str, tuple[datetime, datetime]] = {}
    resumed: dict[str, datetime] = {}
    sure: dict[str, datetime | None] = {}
    for session_id, last, document in ends:
        sure[session_id] = _instant(document, SURE_UNTIL)
        if last is not None:
            known = sure[session_id]
            spans[session_id] = (last - look_back if known is None else known, last)
        at = _instant(document, "minute")
        if at is not None:
            resumed[session_id] = at
    kept = {
        session_id: (frozenset(minutes), frozenset(unexplained))
        for session_id, minutes, unexplained in ask(
            _KEPT,
            ids=list(spans),
            first=[span[0] for span in spans.values()],
            last=[span[1] for span in spans.values()],
        )
    }
    curves: dict[str, list[CurvePoint]] = defaultdict(list)
    for session_id, *point in ask(_CURVE, ids=list(resumed), first=list(resumed.values())):
        curves[session_id].append(CurvePoint(*point))
    progress = {}
    for session_id, last, document in ends:
        minutes, unexplained = kept.get(session_id, (frozenset(), frozenset()))
        progress[session_id] = StoredProgress(
            last_minute=last,
            sure_until=sure[session_id],
            kept=minutes,
            state=document,
            curve=tuple(curves[session_id]),
            unexplained=unexplained,
        )
    return progress


def _instant(document: Mapping[str, object] | None, name: str) -> datetime | None:
    if document is None or name not in document:
        return None
    try:
        return parse_instant(str(document[name]))
    except (ValueError, InvariantViolated):
        return None
