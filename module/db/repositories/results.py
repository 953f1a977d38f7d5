"""Minute rows, history and gaps of sessions in the `finwatcher` database.

finwatcher ── store_minute, store_history, store_gaps ─► the ten tables ◄─ readers: results API

Every write may be repeated: minutes are keyed by (session, minute) and belong to the process that
wrote them first, history is keyed by the exchange's ids, a gap never covers a row. All calls raise
Unavailable while Postgres is away (a commit whose answer was lost is repeated, not reported).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Row, Table, func, select, union_all
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.repositories.results_bulk import write_histories, write_minutes
from module.db.repositories.results_history import sum_history, trade_sums_at
from module.db.repositories.results_writes import (
    insert_gaps,
    insert_new,
    owner_columns,
    values_of,
    write_minute,
)
from module.db.results_rollups import day_of, mark_days
from module.db.results_tables import (
    ResultGap,
    WatchState,
    indicator_table,
    portfolio_table,
    positions_table,
    symbols_table,
    transactions_table,
)
from module.model.results import (
    CurvePoint,
    GapCause,
    GapRow,
    HistoryRows,
    IndicatorRow,
    MinuteRows,
    PortfolioRow,
    StoredAdditions,
    StoredHistory,
    StoredMinute,
    SymbolRow,
    TradeSums,
    TransactionRow,
    WatchedSession,
)

T = TypeVar("T")
_GAPS = cast(Table, ResultGap.__table__)
_STATES = cast(Table, WatchState.__table__)


@dataclasses.dataclass(frozen=True, slots=True)
class StoredRow(Generic[T]):
    """A row and its minute."""

    minute: datetime
    row: T


class ResultsRepository:
    """`monitoring.ports.ResultsStore` on Postgres, and the reads of the results API."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- writing --------------------------------------------------------------------------------

    def store_minute(
        self, rows: MinuteRows, state: Mapping[str, object] | None = None
    ) -> StoredMinute:
        """Write a minute's rows, and with them the running indicator `state`, in one transaction.

        A minute that another writer owns is left as it is (`written` False). Each part has a
        savepoint: what the database refuses of one does not undo the others.
        """
        return self._database.run_idempotent(lambda session: write_minute(session, rows, state))

    def store_minutes(
        self, batch: Sequence[tuple[MinuteRows, Mapping[str, object] | None]]
    ) -> list[StoredMinute]:
        """`store_minute` for many sessions at once, with the same outcome for each, in order."""
        return write_minutes(self._database, batch)

    def store_history(self, rows: HistoryRows) -> int:
        """Add historical rows that are not there yet; how many were new."""

        def work(session: Session) -> int:
            return sum(
                insert_new(session, table, [owner_columns(rows) | values_of(row) for row in items])
                for table, items in (
                    (transactions_table(rows.market), rows.transactions),
                    (positions_table(rows.market), rows.positions),
                )
            )

        return self._database.run_idempotent(work)

    def store_histories(self, batch: Sequence[HistoryRows]) -> list[StoredAdditions]:
        """`store_history` for many sessions at once; for each, in order, what became of it."""
        return write_histories(self._database, batch)

    def store_gaps(self, session: WatchedSession, gaps: Sequence[GapRow]) -> int:
        """Record gaps for minutes that have no row, and no gap that says more; how many."""
        if not gaps:
            return 0
        portfolio = portfolio_table(session.market)
        minutes = [gap.minute for gap in gaps]

        def work(db: Session) -> int:
            there = set(
                db.scalars(
                    select(portfolio.c.minute).where(
                        portfolio.c.session_id == session.session_id,
                        portfolio.c.minute.between(min(minutes), max(minutes)),
                    )
                )
            )
            new = [gap for gap in gaps if gap.minute not in there]
            mark_days(db, [(gap.session_id, day_of(gap.minute), session.market) for gap in new])
            return insert_gaps(db, new)

        return self._database.run_idempotent(work)

    # --- resuming -------------------------------------------------------------------------------

    def last_minute(self, session: WatchedSession) -> datetime | None:
        """The last minute with a portfolio row or a recorded gap."""
        portfolio = portfolio_table(session.market)
        with self._database.read() as db:
            ends = union_all(
                select(func.max(portfolio.c.minute)).where(
                    portfolio.c.session_id == session.session_id
                ),
                select(func.max(_GAPS.c.minute)).where(_GAPS.c.session_id == session.session_id),
            )
            found = [minute for minute in db.scalars(ends) if minute is not None]
        return max(found, default=None)

    def kept_minutes(
        self, session: WatchedSession, first: datetime, last: datetime
    ) -> set[datetime]:
        """The minutes of [first, last] with a portfolio row or a recorded gap."""
        portfolio = portfolio_table(session.market)
        with self._database.read() as db:
            kept = union_all(
                *(
                    select(table.c.minute).where(
                        table.c.session_id == session.session_id,
                        table.c.minute.between(first, last),
                    )
                    for table in (portfolio, _GAPS)
                )
            )
            return set(db.scalars(kept))

    def indicator_state(self, session: WatchedSession) -> Mapping[str, object] | None:
        """The running indicator state as last stored."""
        with self._database.read() as db:
            return db.scalars(
                select(_STATES.c.document).where(_STATES.c.session_id == session.session_id)
            ).one_or_none()

    def curve(self, session: WatchedSession, after: datetime | None) -> Sequence[CurvePoint]:
        """The stored curve after a minute (None: all of it), oldest first."""
        table = portfolio_table(session.market)
        columns = [table.c[field.name] for field in dataclasses.fields(CurvePoint)]
        query = select(*columns).where(table.c.session_id == session.session_id)
        if after is not None:
            query = query.where(table.c.minute > after)
        with self._database.read() as db:
            return [CurvePoint(*row) for row in db.execute(query.order_by(table.c.minute))]

    def trade_sums_at(
        self, session: WatchedSession, moments: Sequence[datetime]
    ) -> list[TradeSums]:
        """What the stored trades and fills up to each of these moments (oldest first) add up to."""
        with self._database.read() as db:
            return trade_sums_at(db, session, moments)

    def history(self, session: WatchedSession, overlap: timedelta) -> StoredHistory:
        """The stored history's sums, its newest times, and the ids within `overlap` of them.

        Realised PnL and fees come from fills, funding and transfers from bills.
        """
        with self._database.read() as db:
            return sum_history(db, session, overlap)

    # --- reading --------------------------------------------------------------------------------

    def portfolio_series(
        self, session: WatchedSession, start: datetime, end: datetime, rows_max: int
    ) -> list[StoredRow[PortfolioRow]]:
        """Portfolio rows of [start, end), oldest first, at most `rows_max` (the newest of them)."""
        return self._series(
            portfolio_table(session.market), PortfolioRow, session, start, end, rows_max
        )

    def indicator_series(
        self, session: WatchedSession, start: datetime, end: datetime, rows_max: int
    ) -> list[StoredRow[IndicatorRow]]:
        """Indicator rows of [start, end), oldest first, at most `rows_max` (the newest of them)."""
        return self._series(
            indicator_table(session.market), IndicatorRow, session, start, end, rows_max
        )

    def symbol_series(
        self, session: WatchedSession, start: datetime, end: datetime, rows_max: int
    ) -> list[StoredRow[SymbolRow]]:
        """Symbol rows of [start, end), oldest first, at most `rows_max` (the newest of them)."""
        return self._series(symbols_table(session.market), SymbolRow, session, start, end, rows_max)

    def latest(
        self, session: WatchedSession
    ) -> tuple[StoredRow[PortfolioRow], tuple[SymbolRow, ...], IndicatorRow | None] | None:
        """The newest minute: portfolio, its symbols, its indicators; None before the first one."""
        portfolio = portfolio_table(session.market)
        mine = portfolio.c.session_id == session.session_id
        with self._database.read() as db:
            row = db.execute(
                select(portfolio).where(mine).order_by(portfolio.c.minute.desc()).limit(1)
            ).one_or_none()
            if row is None:
                return None
            minute = row.minute
            symbols = symbols_table(session.market)
            indicators = indicator_table(session.market)
            held = db.execute(
                select(symbols)
                .where(symbols.c.session_id == session.session_id, symbols.c.minute == minute)
                .order_by(symbols.c.symbol)
            ).all()
            numbers = db.execute(
                select(indicators).where(
                    indicators.c.session_id == session.session_id, indicators.c.minute == minute
                )
            ).one_or_none()
        return (
            StoredRow(minute, _shape(PortfolioRow, row)),
            tuple(_shape(SymbolRow, item) for item in held),
            None if numbers is None else _shape(IndicatorRow, numbers),
        )

    def gaps(
        self, session: WatchedSession, start: datetime, end: datetime, rows_max: int
    ) -> list[GapRow]:
        """Recorded gaps of [start, end), oldest first, at most `rows_max` (the newest of them)."""
        query = (
            select(_GAPS)
            .where(
                _GAPS.c.session_id == session.session_id,
                _GAPS.c.minute >= start,
                _GAPS.c.minute < end,
            )
            .order_by(_GAPS.c.minute.desc())
            .limit(rows_max)
        )
        with self._database.read() as db:
            found = db.execute(query).all()
        gaps = [_shape(GapRow, row) for row in reversed(found)]
        return [dataclasses.replace(gap, cause=GapCause(gap.cause)) for gap in gaps]

    def transactions(
        self, session: WatchedSession, source: str, rows_max: int
    ) -> list[TransactionRow]:
        """The newest fills (`source` fill) or bills, newest first."""
        table = transactions_table(session.market)
        query = (
            select(table)
            .where(table.c.session_id == session.session_id, table.c.source == source)
            .order_by(table.c.at.desc(), table.c.exchange_id.desc())
            .limit(rows_max)
        )
        with self._database.read() as db:
            return [_shape(TransactionRow, row) for row in db.execute(query)]

    def _series(
        self,
        table: Table,
        shape: type[T],
        session: WatchedSession,
        start: datetime,
        end: datetime,
        rows_max: int,
    ) -> list[StoredRow[T]]:
        query = (
            select(table)
            .where(
                table.c.session_id == session.session_id,
                table.c.minute >= start,
                table.c.minute < end,
            )
            .order_by(table.c.minute.desc())
            .limit(rows_max)
        )
        with self._database.read() as db:
            found = db.execute(query).all()
        return [StoredRow(row.minute, _shape(shape, row)) for row in reversed(found)]


def _shape(shape: type[T], row: Row[Any]) -> T:
    names = [field.name for field in dataclasses.fields(shape)]  # type: ignore[arg-type]
    return shape(**{name: getattr(row, name) for name in names})
