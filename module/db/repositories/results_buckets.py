"""The rows of one page of a series: minutes as they are, the last one of each bucket, days.

    results_series.ResultsSeries.series ── plain_rows, bucketed_…, day_rows ─► one or two statements

A bucket costs one step into the key (session, minute) of one month, whatever lies between two
buckets. Each function returns one row more than the page holds, where there is one more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import Table, func, select, text
from sqlalchemy.orm import Session

from module.db.repositories.results_queries import (
    SeriesQuery,
    SeriesRow,
    SessionKey,
    Subject,
    minutes_of,
)
from module.db.results_rollups import (
    DAY,
    OWN_COLUMNS_OF_DAYS,
    begin_of,
    day_of,
    indicator_days_sql,
    portfolio_days_sql,
)
from module.db.results_tables import (
    indicator_days_table,
    portfolio_days_table,
    portfolio_table,
    symbols_table,
)
from module.model.market import MarketType

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT: Final = timedelta(microseconds=1)


def plain_rows(
    db: Session, session: SessionKey, query: SeriesQuery, columns: Sequence[str]
) -> list[SeriesRow]:
    """Every minute there is."""
    table = minutes_of(query.subject, session.market)
    order = "minute, symbol" if query.subject is Subject.SYMBOLS else "minute"
    return _rows(
        db,
        f"SELECT {', '.join(columns)} FROM {table.name} WHERE session_id = :name "  # noqa: S608
        f"AND minute >= :start AND minute < :end {_after_sql(query)} {_symbol_sql(query)} "
        f"ORDER BY {_directed(order, query)} LIMIT :most",
        _binds(session, query),
    )


def bucketed_rows(
    db: Session, session: SessionKey, query: SeriesQuery, columns: Sequence[str]
) -> list[SeriesRow]:
    """One step into the key per bucket: the minutes between are never read."""
    buckets = _buckets(db, session, query, skips_cursors_bucket=True)
    if buckets is None:
        return []
    table = minutes_of(query.subject, session.market)
    wanted = ", ".join(f"newest.{name}" for name in columns)
    return _rows(
        db,
        f"SELECT {wanted} FROM {_newest_of_buckets(table, query)} "  # noqa: S608
        f"ORDER BY {_directed('bucket.begins', query)} LIMIT :most",
        {**_binds(session, query), **buckets},
    )


def bucketed_symbols(
    db: Session, session: SessionKey, query: SeriesQuery, columns: Sequence[str]
) -> list[SeriesRow]:
    """The book at each bucket's last measured minute: a symbol that is no longer held by then has
    no row, as in the minute itself."""
    buckets = _buckets(db, session, query, skips_cursors_bucket=False)
    if buckets is None:
        return []
    wanted = ", ".join(f"held.{name}" for name in columns)
    symbols, portfolio = symbols_table(session.market), portfolio_table(session.market)
    return _rows(
        db,
        f"SELECT {wanted} FROM {_newest_of_buckets(portfolio, query)} "  # noqa: S608
        f"CROSS JOIN LATERAL (SELECT * FROM {symbols.name} WHERE session_id = :name "
        f"AND minute = newest.minute {_after_sql(query)} {_symbol_sql(query)}) AS held "
        f"ORDER BY {_directed('bucket.begins, held.symbol', query)} LIMIT :most",
        {**_binds(session, query), **buckets},
    )


def _newest_of_buckets(table: Table, query: SeriesQuery) -> str:
    # the order within is the one without: the limit ends the steps
    return (
        "(SELECT begins FROM generate_series(CAST(:first AS timestamptz), "  # noqa: S608
        "CAST(:last AS timestamptz), CAST(:step AS interval)) AS each (begins) "
        f"ORDER BY {_directed('begins', query)}) AS bucket CROSS JOIN LATERAL ("
        f"SELECT p.* FROM {table.name} AS p WHERE p.session_id = :name "
        "AND p.minute > bucket.begins AND p.minute <= bucket.begins + CAST(:step AS interval) "
        "AND p.minute >= :start AND p.minute < :end ORDER BY p.minute DESC LIMIT 1) AS newest"
    )


def _buckets(
    db: Session, session: SessionKey, query: SeriesQuery, *, skips_cursors_bucket: bool
) -> dict[str, object] | None:
    """First and last bucket that can have rows, by their begins; None when there is none."""
    span = minutes_span(db, session)
    if span is None:
        return None
    length = query.resolution.length
    first = _begin_of_bucket(max(span[0], query.start), length)
    last = _begin_of_bucket(min(span[1], query.end - _INSTANT), length)
    if query.after is not None:
        reached = _begin_of_bucket(query.after.minute, length)
        step = length if skips_cursors_bucket else timedelta(0)
        if query.newest_first:
            last = min(last, reached - step)
        else:
            first = max(first, reached + step)
    if last < first:
        return None
    return {"first": first, "last": last, "step": f"{int(length.total_seconds())} seconds"}


def _begin_of_bucket(minute: datetime, length: timedelta) -> datetime:
    return _EPOCH + ((minute - _INSTANT - _EPOCH) // length) * length


# --- days -----------------------------------------------------------------------------------------


def day_rows(
    db: Session, session: SessionKey, query: SeriesQuery, columns: Sequence[str]
) -> list[SeriesRow]:
    """Roll-ups; over them the days that are due, and the one that the range's end cuts in two.

    What is due is asked first: a day that is rolled up meanwhile is then read twice, never missed.
    """
    first, last = day_of(query.start), day_of(query.end - _INSTANT)
    if query.after is not None:
        reached = day_of(query.after.minute)
        if query.newest_first:
            last = min(last, reached - DAY)
        else:
            first = max(first, reached + DAY)
    if last < first:
        return []
    bounds = {**_binds(session, query), "first": first, "last": last}
    order = _directed("day", query)
    due = set(
        db.scalars(
            text(
                "SELECT day FROM result_days_due WHERE session_id = :name "  # noqa: S608
                f"AND day >= :first AND day <= :last ORDER BY {order} LIMIT :most"
            ),
            bounds,
        )
    )
    due.add(last)
    table = _days_of(query.subject, session.market)
    wanted = ", ".join(columns)
    rolled = _rows(
        db,
        f"SELECT day, {wanted} FROM {table.name} WHERE session_id = :name "  # noqa: S608
        "AND day >= :first AND day <= :last AND minute >= :start AND minute < :end "
        f"ORDER BY {order} LIMIT :most",
        bounds,
    )
    days = {row[0]: row[1:] for row in rolled}
    for day, *row in _fresh_days(db, session, query, wanted, sorted(due)):
        if day not in days or days[day][0] <= row[0]:
            days[day] = tuple(row)
    return [days[day] for day in sorted(days, reverse=query.newest_first)][: query.rows_max + 1]


def _fresh_days(
    db: Session, session: SessionKey, query: SeriesQuery, wanted: str, days: Sequence[date]
) -> list[SeriesRow]:
    if query.subject is Subject.PORTFOLIO:
        sums = not set(query.columns).isdisjoint(OWN_COLUMNS_OF_DAYS)
        days_sql = portfolio_days_sql(session.market, with_sums=sums)
    else:
        days_sql = indicator_days_sql(session.market)
    return _rows(
        db,
        f"SELECT day, {wanted} FROM ({days_sql}) AS fresh "  # noqa: S608
        "WHERE minute >= :start",
        {
            "sessions": [session.session_id] * len(days),
            "days": list(days),
            "begins": [begin_of(day) for day in days],
            "until": query.end,
            "start": query.start,
        },
    )


# --- small things ---------------------------------------------------------------------------------


def _rows(db: Session, statement: str, binds: Mapping[str, object]) -> list[SeriesRow]:
    return [tuple(row) for row in db.execute(text(statement), binds)]


def _binds(session: SessionKey, query: SeriesQuery) -> dict[str, object]:
    """One row more than asked for tells whether there is a following page."""
    binds: dict[str, object] = {
        "name": session.session_id,
        "start": query.start,
        "end": query.end,
        "most": query.rows_max + 1,
    }
    if query.after is not None:
        binds["after"] = query.after.minute
        binds["after_symbol"] = query.after.symbol
    if query.symbol is not None:
        binds["symbol"] = query.symbol
    return binds


def _after_sql(query: SeriesQuery) -> str:
    if query.after is None:
        return ""
    beyond = "<" if query.newest_first else ">"
    if query.subject is not Subject.SYMBOLS:
        return f"AND minute {beyond} :after"
    # the first condition prunes months, which the second does not
    return f"AND minute {beyond}= :after AND (minute, symbol) {beyond} (:after, :after_symbol)"


def _symbol_sql(query: SeriesQuery) -> str:
    return "" if query.symbol is None else "AND symbol = :symbol"


def _directed(names: str, query: SeriesQuery) -> str:
    direction = "DESC" if query.newest_first else "ASC"
    return ", ".join(f"{name.strip()} {direction}" for name in names.split(","))


def minutes_span(db: Session, session: SessionKey) -> tuple[datetime, datetime] | None:
    """The first and the last minute that is there."""
    minute = portfolio_table(session.market).c.minute
    mine = portfolio_table(session.market).c.session_id == session.session_id
    first, last = db.execute(select(func.min(minute), func.max(minute)).where(mine)).one()
    return None if first is None else (first, last)


def _days_of(subject: Subject, market: MarketType) -> Table:
    if subject is Subject.PORTFOLIO:
        return portfolio_days_table(market)
    return indicator_days_table(market)
