"""A session's stored rows as a curve, thinned in Postgres: what tear sheets are made from.

A year of minutes is half a million rows; a picture of it has a few thousand points. Of each step
the last row is read, month by month, so that every statement is short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Table,
    TextClause,
    case,
    func,
    select,
    text,
    true,
)

from module.db.database import Database
from module.db.results_rollups import begin_of, day_of
from module.db.results_tables import (
    ResultGap,
    indicator_days_table,
    indicator_table,
    portfolio_days_table,
    portfolio_table,
    positions_table,
    symbols_table,
    transactions_table,
)
from module.model.market import MarketType
from module.model.results import WatchedSession

QUOTE_ASSET: Final = "USDT"
MINUTE: Final = timedelta(minutes=1)
CHUNK: Final = timedelta(days=31)
MINUTES_ASKED_MAX: Final = 500
_DUE_DAYS: Final = text(
    "SELECT day FROM result_days_due WHERE session_id = :name "
    "AND day BETWEEN :first_day AND :last_day ORDER BY day"
)


@dataclass(frozen=True, slots=True)
class CurveSpan:
    """The first and last stored minute of a range."""

    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class CurveStock:
    """What is stored in a span: whatever comes late, or is corrected, changes it.

    `rolled` is a digest of which roll-ups of its days there are: one that is made anew, because a
    row of its day came or changed, is another. `minutes`, `indicators` and `measured_at` are of the
    days whose roll-up is due.
    """

    rolled: str
    minutes: int
    indicators: int
    gaps: int
    fills: int
    trades: int
    measured_at: datetime | None


@dataclass(frozen=True, slots=True)
class CurveRow:
    """One minute of the curve."""

    minute: datetime
    current_pv: Decimal
    net_transfers: Decimal
    gross_position_value: Decimal
    position_value: Decimal
    fees: Decimal
    funding: Decimal
    initial_balance: Decimal | None
    cumulative_return: float | None


@dataclass(frozen=True, slots=True)
class FillRow:
    """One fill; `fee` in the quote asset."""

    at: datetime
    symbol: str
    side: str
    size: Decimal
    price: Decimal
    fee: Decimal
    decision_price: Decimal | None


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """What the finwatcher measured every minute, as of the last one."""

    max_drawdown: float | None
    unprotected_s: float | None


class CurveRepository:
    """Reads only. Ranges are [since, until)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def span(self, session: WatchedSession, since: datetime, until: datetime) -> CurveSpan | None:
        """The first and the last minute that is stored; None without any."""
        ends = []
        for table in (portfolio_table(session.market), portfolio_days_table(session.market)):
            query = select(func.min(table.c.minute), func.max(table.c.minute)).where(
                table.c.session_id == session.session_id,
                table.c.minute >= since,
                table.c.minute < until,
            )
            with self._database.read() as db:
                ends += [minute for minute in db.execute(query).one() if minute is not None]
        return CurveSpan(min(ends), max(ends)) if ends else None

    def stock(self, session: WatchedSession, span: CurveSpan) -> CurveStock:
        """What a curve of the span is made of. A year costs its 365 roll-ups; only the days whose
        roll-up is due are counted minute by minute."""
        own: dict[str, object] = {
            "name": session.session_id,
            "first": span.first,
            "before": span.first - MINUTE,
            "last": span.last,
            "first_day": day_of(span.first),
            "last_day": day_of(span.last),
        }
        with self._database.read() as db:
            due = db.scalars(_DUE_DAYS, own).all()
            bounds = {**own, "begins": [begin_of(day) for day in due]}
            return CurveStock(*db.execute(_stock_query(session.market), bounds).one())

    def points(self, session: WatchedSession, span: CurveSpan, step: timedelta) -> list[CurveRow]:
        """The last row of each UTC step of the span, oldest first; 00:00 closes the step before.

        Where minutes are no longer kept, the days are.
        """
        found: list[CurveRow] = []
        for since, until in _chunks(span):
            found += self._points(session, since, until, step)
        kept_since = found[0].minute if found else span.last + MINUTE
        found = self._days(session, span.first, kept_since) + found
        # A step that lies across two months was read in two halves: the later one counts.
        return [
            row
            for place, row in enumerate(found)
            if place + 1 == len(found)
            or _step_of(row.minute, step) != _step_of(found[place + 1].minute, step)
        ]

    def position_values(
        self, session: WatchedSession, minutes: Sequence[datetime]
    ) -> list[tuple[datetime, str, Decimal]]:
        """The signed value of each symbol at these minutes."""
        table = symbols_table(session.market)
        found: list[tuple[datetime, str, Decimal]] = []
        for first in range(0, len(minutes), MINUTES_ASKED_MAX):
            query = select(table.c.minute, table.c.symbol, table.c.position_value).where(
                table.c.session_id == session.session_id,
                table.c.minute.in_(minutes[first : first + MINUTES_ASKED_MAX]),
            )
            with self._database.read() as db:
                found += [(row[0], row[1], row[2]) for row in db.execute(query)]
        return found

    def fills(self, session: WatchedSession, span: CurveSpan, rows_max: int) -> list[FillRow]:
        """The newest fills of the span, oldest first."""
        t = transactions_table(session.market)
        fee = case((t.c.fee_asset == QUOTE_ASSET, t.c.fee), else_=t.c.fee * t.c.price)
        query = (
            select(t.c.at, t.c.symbol, t.c.side, t.c.size, t.c.price, fee, t.c.decision_price)
            .where(
                t.c.session_id == session.session_id,
                t.c.source == "fill",
                t.c.at >= span.first - MINUTE,
                t.c.at <= span.last,
                t.c.side.in_(("buy", "sell")),
                t.c.size > 0,
                t.c.price > 0,
            )
            .order_by(t.c.at.desc(), t.c.exchange_id.desc())
            .limit(rows_max)
        )
        with self._database.read() as db:
            return [FillRow(*row) for row in db.execute(query)][::-1]

    def trades(
        self, session: WatchedSession, span: CurveSpan, rows_max: int
    ) -> list[tuple[datetime, str, Decimal]]:
        """When, in what, with which net profit: the newest closed positions, oldest first."""
        p = positions_table(session.market)
        query = (
            select(p.c.closed_at, p.c.symbol, p.c.net_profit)
            .where(
                p.c.session_id == session.session_id,
                p.c.closed_at >= span.first - MINUTE,
                p.c.closed_at <= span.last,
            )
            .order_by(p.c.closed_at.desc(), p.c.exchange_id.desc())
            .limit(rows_max)
        )
        with self._database.read() as db:
            return [(row[0], row[1], row[2]) for row in db.execute(query)][::-1]

    def gap_minutes(self, session: WatchedSession, span: CurveSpan) -> int:
        """How many minutes of the span are recorded as not measured."""
        query = select(func.count()).where(
            ResultGap.session_id == session.session_id,
            ResultGap.minute.between(span.first, span.last),
        )
        with self._database.read() as db:
            return int(db.scalars(query).one())

    def measured(self, session: WatchedSession, minute: datetime) -> MeasuredRow:
        """The deepest drawdown and the unprotected seconds since the session's start."""
        indicators, portfolio = indicator_table(session.market), portfolio_table(session.market)
        with self._database.read() as db:
            depth, unprotected = (
                db.scalars(
                    select(column).where(
                        column.table.c.session_id == session.session_id,
                        column.table.c.minute == minute,
                    )
                ).one_or_none()
                for column in (indicators.c.max_drawdown, portfolio.c.unprotected_s)
            )
        return MeasuredRow(depth, unprotected)

    def _points(
        self, session: WatchedSession, since: datetime, until: datetime, step: timedelta
    ) -> list[CurveRow]:
        p, i = portfolio_table(session.market), indicator_table(session.market)
        if step > MINUTE:  # one look into the key for each step, not at each of its minutes
            first = datetime.fromtimestamp(_step_of(since, step) * step.total_seconds(), UTC)
            steps = func.generate_series(first, until, step).table_valued("begins")
            begins = steps.render_derived(name="steps").c.begins
            inside = _within(select(p), p, session, since, until)
            newest = (
                inside.where(p.c.minute > begins, p.c.minute <= begins + step)
                .order_by(p.c.minute.desc())
                .limit(1)
                .lateral("newest")
            )
            query = (
                _curve_columns(newest, i)
                .select_from(begins.table.join(newest, true()))
                .outerjoin(i, _same_minute(newest, i, since, until))
                .order_by(newest.c.minute)
            )
        else:
            together = p.outerjoin(i, _same_minute(p, i, since, until))
            query = _within(_curve_columns(p, i).select_from(together), p, session, since, until)
            query = query.order_by(p.c.minute)
        with self._database.read() as db:
            return [CurveRow(*row) for row in db.execute(query)]

    def _days(self, session: WatchedSession, since: datetime, until: datetime) -> list[CurveRow]:
        p, i = portfolio_days_table(session.market), indicator_days_table(session.market)
        together = p.outerjoin(i, (p.c.session_id == i.c.session_id) & (p.c.day == i.c.day))
        query = _within(_curve_columns(p, i).select_from(together), p, session, since, until)
        with self._database.read() as db:
            return [CurveRow(*row) for row in db.execute(query.order_by(p.c.minute))]


@cache
def _stock_query(market: MarketType) -> TextClause:
    """One row of CurveStock's fields. A roll-up's version is the transaction that wrote it."""
    days, minutes = portfolio_days_table(market).name, portfolio_table(market).name
    fills, trades = transactions_table(market).name, positions_table(market).name
    inside = (
        "CROSS JOIN LATERAL (SELECT {wanted} FROM {table} AS m WHERE m.session_id = :name "
        "AND m.minute > due.begins AND m.minute <= due.begins + interval '24 hours' "
        "AND m.minute BETWEEN :first AND :last) AS {name} "
    )
    counted = "count(*) AS count, max(m.measured_at) AS measured_at"
    return text(
        "SELECT "  # noqa: S608  # names of tables alone
        "(SELECT coalesce(md5(string_agg(CAST(d.xmin AS text), ',' ORDER BY d.day)), '') "
        f"FROM {days} AS d WHERE d.session_id = :name "
        "AND d.day BETWEEN :first_day AND :last_day) AS rolled, "
        "CAST(coalesce(sum(p.count), 0) AS bigint), CAST(coalesce(sum(i.count), 0) AS bigint), "
        "(SELECT count(*) FROM result_gaps_1min AS g WHERE g.session_id = :name "
        "AND g.minute BETWEEN :before AND :last), "
        f"(SELECT count(*) FROM {fills} AS t WHERE t.session_id = :name "
        "AND t.at BETWEEN :before AND :last), "
        f"(SELECT count(*) FROM {trades} AS c WHERE c.session_id = :name "
        "AND c.closed_at BETWEEN :before AND :last), "
        "max(p.measured_at) "
        "FROM unnest(CAST(:begins AS timestamptz[])) AS due (begins) "
        + inside.format(wanted=counted, table=minutes, name="p")
        + inside.format(wanted="count(*) AS count", table=indicator_table(market).name, name="i")
    )


def _same_minute(
    p: FromClause, i: FromClause, since: datetime, until: datetime
) -> ColumnElement[bool]:
    """The range once more, so that Postgres leaves out the other months of both tables."""
    here = (i.c.minute >= since) & (i.c.minute < until)
    return (p.c.session_id == i.c.session_id) & (p.c.minute == i.c.minute) & here


def _curve_columns(p: FromClause, i: FromClause) -> Select[Any]:
    return select(
        p.c.minute,
        p.c.current_pv,
        p.c.net_transfers,
        p.c.gross_position_value,
        p.c.position_value,
        p.c.fees,
        p.c.funding,
        p.c.initial_balance,
        i.c.cumulative_return,
    )


def _within(
    query: Select[Any], table: Table, session: WatchedSession, since: datetime, until: datetime
) -> Select[Any]:
    return query.where(
        table.c.session_id == session.session_id,
        table.c.minute >= since,
        table.c.minute < until,
    )


def _step_of(minute: datetime, step: timedelta) -> int:
    return (int(minute.timestamp()) - 1) // int(step.total_seconds())


def _chunks(span: CurveSpan) -> Iterator[tuple[datetime, datetime]]:
    since = span.first.astimezone(UTC)
    while since <= span.last:
        until = min(since + CHUNK, span.last + MINUTE)
        yield since, until
        since = until
