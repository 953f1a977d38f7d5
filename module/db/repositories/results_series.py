"""What is read out of the stored minutes: series of any length, latest values, history, gaps.

    api.routers (results, analysis) ── ResultsSeries ─► minute tables, daily roll-ups, history, gaps

Rows come as plain tuples in the order that was asked for (money Decimal, ratios float, times aware
UTC), so that a year of minutes costs no objects. Every read is bounded by `rows_max` and goes on
after a cursor: the key of the last row, not a count, so that rows that arrive meanwhile move
nothing. Whose session it is has been decided before: nothing here asks for an owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Table, func, select, text, tuple_

from module.db.database import Database
from module.db.repositories.results_buckets import (
    bucketed_rows,
    bucketed_symbols,
    day_rows,
    minutes_span,
    plain_rows,
)
from module.db.repositories.results_queries import (
    LatestMinute,
    PositionCursor,
    PositionQuery,
    Resolution,
    SeriesCursor,
    SeriesPage,
    SeriesQuery,
    SeriesRow,
    SessionKey,
    Span,
    Subject,
    TransactionCursor,
    TransactionQuery,
    check_limit,
    check_query,
    series_columns,
)
from module.db.results_tables import (
    ResultGap,
    indicator_table,
    portfolio_days_table,
    portfolio_table,
    positions_table,
    transactions_table,
)
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    GapCause,
    IndicatorRow,
    PortfolioRow,
    TransactionRow,
)

__all__ = [
    "LatestMinute",
    "PositionCursor",
    "PositionQuery",
    "Resolution",
    "ResultsSeries",
    "SeriesCursor",
    "SeriesPage",
    "SeriesQuery",
    "SeriesRow",
    "SessionKey",
    "Span",
    "Subject",
    "TransactionCursor",
    "TransactionQuery",
    "series_columns",
]
_GAPS: Final = cast(Table, ResultGap.__table__)


class ResultsSeries:
    """Reads of `finwatcher`; Unavailable while Postgres is away. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def series(self, session: SessionKey, query: SeriesQuery) -> SeriesPage:
        """One page of a series. InvalidInput names a column, range or limit that cannot be.

        Days come from the roll-ups, days that are not rolled up yet (the running one, and those
        with rows that arrived since) from the minutes.
        """
        check_query(query)
        keys = ("minute", "symbol") if query.subject is Subject.SYMBOLS else ("minute",)
        columns = (*keys, *query.columns)
        with self._database.read() as db:
            if query.resolution is Resolution.MINUTE:
                found = plain_rows(db, session, query, columns)
            elif query.subject is Subject.SYMBOLS:
                found = bucketed_symbols(db, session, query, columns)
            elif query.resolution is Resolution.DAY:
                found = day_rows(db, session, query, columns)
            else:
                found = bucketed_rows(db, session, query, columns)
        rows = found[: query.rows_max]
        following = None
        if len(found) > query.rows_max:
            last = rows[-1]
            following = SeriesCursor(last[0], last[1] if len(keys) > 1 else "")
        return SeriesPage(columns, rows, following)

    def latest_of(self, sessions: Sequence[SessionKey]) -> dict[str, LatestMinute]:
        """Session id → its newest minute, in one query per market; without rows it is left out."""
        found: dict[str, LatestMinute] = {}
        with self._database.read() as db:
            for market in MarketType:
                names = [item.session_id for item in sessions if item.market is market]
                if names:
                    rows = db.execute(text(_latest_sql(market)), {"names": names})
                    found.update({row[0]: _latest(tuple(row)) for row in rows})
        return found

    def transactions(self, session: SessionKey, query: TransactionQuery) -> list[TransactionRow]:
        """One page; go on after the last row's (at, source, exchange_id) while it is full."""
        t = transactions_table(session.market)
        key = tuple_(t.c.at, t.c.source, t.c.exchange_id)
        wanted = select(*(t.c[item.name] for item in fields(TransactionRow))).where(
            t.c.session_id == session.session_id, *_within(t.c.at, query.start, query.end)
        )
        if query.source is not None:
            wanted = wanted.where(t.c.source == query.source)
        if query.kinds:
            wanted = wanted.where(t.c.kind.in_(query.kinds))
        if query.symbol is not None:
            wanted = wanted.where(t.c.symbol == query.symbol)
        if query.after is not None:
            after = query.after
            wanted = wanted.where(
                t.c.at <= after.at, key < tuple_(after.at, after.source, after.exchange_id)
            )
        ordered = wanted.order_by(t.c.at.desc(), t.c.source.desc(), t.c.exchange_id.desc())
        with self._database.read() as db:
            rows = db.execute(ordered.limit(check_limit(query.rows_max)))
            return [TransactionRow(*row) for row in rows]

    def closed_positions(
        self, session: SessionKey, query: PositionQuery
    ) -> list[ClosedPositionRow]:
        """One page; go on after the last row's (closed_at, exchange_id) while it is full."""
        p = positions_table(session.market)
        wanted = select(*(p.c[item.name] for item in fields(ClosedPositionRow))).where(
            p.c.session_id == session.session_id, *_within(p.c.closed_at, query.start, query.end)
        )
        if query.symbol is not None:
            wanted = wanted.where(p.c.symbol == query.symbol)
        if query.after is not None:
            after = query.after
            wanted = wanted.where(
                p.c.closed_at <= after.closed_at,
                tuple_(p.c.closed_at, p.c.exchange_id) < tuple_(after.closed_at, after.exchange_id),
            )
        ordered = wanted.order_by(p.c.closed_at.desc(), p.c.exchange_id.desc())
        with self._database.read() as db:
            rows = db.execute(ordered.limit(check_limit(query.rows_max)))
            return [ClosedPositionRow(*row) for row in rows]

    def gap_counts(
        self, session: SessionKey, start: datetime, end: datetime
    ) -> dict[GapCause, int]:
        """How many minutes of [start, end) are gaps, by cause; a cause without gaps is left out."""
        counted = (
            select(_GAPS.c.cause, func.count())
            .where(_GAPS.c.session_id == session.session_id, *_within(_GAPS.c.minute, start, end))
            .group_by(_GAPS.c.cause)
        )
        with self._database.read() as db:
            return {GapCause(cause): int(count) for cause, count in db.execute(counted)}

    def span(self, session: SessionKey) -> Span | None:
        """From when to when there is anything to read; None before the first row."""
        days = portfolio_days_table(session.market)
        with self._database.read() as db:
            minutes = minutes_span(db, session)
            first_day = db.scalars(
                select(func.min(days.c.minute)).where(days.c.session_id == session.session_id)
            ).one()
        if minutes is None and first_day is None:
            return None
        first, last = minutes or (None, None)
        return Span(first, last, first_day)


def _within(
    column: ColumnElement[Any], start: datetime | None, end: datetime | None
) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if start is not None:
        found.append(column >= start)
    if end is not None:
        found.append(column < end)
    return found


def _latest_sql(market: MarketType) -> str:
    portfolio, indicators = portfolio_table(market).name, indicator_table(market).name
    columns = [f"p.{item.name}" for item in fields(PortfolioRow)]
    columns += [f"i.{item.name}" for item in fields(IndicatorRow)]
    return (
        f"SELECT p.session_id, p.minute, i.minute, {', '.join(columns)} "  # noqa: S608
        "FROM unnest(CAST(:names AS text[])) AS asked (session_id) CROSS JOIN LATERAL ("
        f"SELECT * FROM {portfolio} AS each WHERE each.session_id = asked.session_id "
        "ORDER BY each.minute DESC LIMIT 1) AS p "
        f"LEFT JOIN {indicators} AS i ON i.session_id = p.session_id AND i.minute = p.minute"
    )


def _latest(row: SeriesRow) -> LatestMinute:
    ends = 3 + len(fields(PortfolioRow))
    indicators = None if row[2] is None else IndicatorRow(*row[ends:])
    return LatestMinute(row[1], PortfolioRow(*row[3:ends]), indicators)
