"""Minute rows, history and gaps of sessions in the `finwatcher` database.

finwatcher ── store_minute, store_history, store_gaps ─► the ten tables ◄─ readers: results API

Every write may be repeated: minutes are keyed by (session, minute) and belong to the process that
wrote them first, history is keyed by the exchange's ids, a gap never covers a row. All calls raise
Unavailable while Postgres is away (a commit whose answer was lost is repeated, not reported).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    Row,
    Table,
    and_,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.results_tables import ResultGap, ResultsBase, WatchState
from module.model.market import MarketType
from module.model.results import (
    CurvePoint,
    GapCause,
    GapRow,
    HistoryRows,
    IndicatorRow,
    MinuteRows,
    PortfolioRow,
    StoredHistory,
    StoredMinute,
    SymbolRow,
    SymbolTotals,
    TransactionRow,
    WatchedSession,
)

QUOTE_ASSET = "USDT"
ROWS_PER_STATEMENT = 1000
T = TypeVar("T")
_GAPS = cast(Table, ResultGap.__table__)
_STATES = cast(Table, WatchState.__table__)


def _table(market: MarketType, subject: str) -> Table:
    return ResultsBase.metadata.tables[f"{market.value}_{subject}"]


def symbols_table(market: MarketType) -> Table:
    """`…_result_1min` of the market."""
    return _table(market, "result_1min")


def portfolio_table(market: MarketType) -> Table:
    """`…_portfolio_result_1min` of the market."""
    return _table(market, "portfolio_result_1min")


def indicator_table(market: MarketType) -> Table:
    """`…_indicator_result_1min_1day` of the market."""
    return _table(market, "indicator_result_1min_1day")


def transactions_table(market: MarketType) -> Table:
    """`…_historical_transactions_details` of the market."""
    return _table(market, "historical_transactions_details")


def positions_table(market: MarketType) -> Table:
    """`…_historical_positions_info` of the market."""
    return _table(market, "historical_positions_info")


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
        return self._database.run_idempotent(lambda session: _store_minute(session, rows, state))

    def store_history(self, rows: HistoryRows) -> int:
        """Add historical rows that are not there yet; how many were new."""

        def work(session: Session) -> int:
            return sum(
                _insert_new(session, table, [_owned(rows) | _values(row) for row in items])
                for table, items in (
                    (transactions_table(rows.market), rows.transactions),
                    (positions_table(rows.market), rows.positions),
                )
            )

        return self._database.run_idempotent(work)

    def store_gaps(self, session: WatchedSession, gaps: Sequence[GapRow]) -> int:
        """Record gaps for minutes that have neither row nor gap; how many were new."""
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
            values = [_values(gap) for gap in gaps if gap.minute not in there]
            return _insert_new(db, _GAPS, values)

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

    def history(self, session: WatchedSession, overlap: timedelta) -> StoredHistory:
        """The stored history's sums, its newest times, and the ids within `overlap` of them.

        Realised PnL and fees come from fills, funding and transfers from bills.
        """
        with self._database.read() as db:
            newest = _newest(db, session)
            trades, won = _count_trades(db, session)
            return StoredHistory(
                by_symbol=_symbol_totals(db, session),
                net_transfers=_net_transfers(db, session),
                trades=trades,
                trades_won=won,
                fill_at=newest["fill"],
                bill_at=newest["bill"],
                position_closed_at=newest["position"],
                recent=_recent_ids(db, session, newest, 2 * overlap),
            )

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


# --- one minute -----------------------------------------------------------------------------------


def _store_minute(
    session: Session, rows: MinuteRows, state: Mapping[str, object] | None
) -> StoredMinute:
    failed: dict[str, str] = {}

    def part(name: str, work: Callable[[], T]) -> T | None:
        try:
            with session.begin_nested():
                return work()
        except (OperationalError, InterfaceError):
            raise  # Postgres itself is in trouble: the whole minute waits
        except DBAPIError as error:
            failed[name] = f"the database refused {name}: {str(error.orig).strip()[:300]}"
            return None

    owns: bool | None = None
    if rows.portfolio is not None:
        owns = part("portfolio", lambda: _write_portfolio(session, rows))
        if owns is False:
            return StoredMinute(False, {})
    if rows.symbols is not None:
        part("symbols", lambda: _write_symbols(session, rows, replace=bool(owns)))
    if rows.indicators is not None:
        part("indicators", lambda: _write_indicators(session, rows, replace=bool(owns)))
        if state is not None and owns and not failed:
            part("state", lambda: _write_state(session, rows, state))
    return StoredMinute(True, failed)


def _write_portfolio(session: Session, rows: MinuteRows) -> bool:
    """Write the row; False when it is another writer's."""
    table = portfolio_table(rows.market)
    values = _minute_key(rows) | _values(rows.portfolio) | {"writer": rows.writer}
    statement = insert(table).values(values)
    mine = statement.on_conflict_do_update(
        index_elements=[table.c.session_id, table.c.minute],
        set_=values,
        where=table.c.writer == rows.writer,
    )
    return session.execute(mine.returning(table.c.minute)).one_or_none() is not None


def _write_symbols(session: Session, rows: MinuteRows, *, replace: bool) -> None:
    table = symbols_table(rows.market)
    if replace:
        session.execute(
            delete(table).where(
                table.c.session_id == rows.session_id, table.c.minute == rows.minute
            )
        )
    _insert_new(session, table, [_minute_key(rows) | _values(row) for row in rows.symbols or ()])


def _write_indicators(session: Session, rows: MinuteRows, *, replace: bool) -> None:
    table = indicator_table(rows.market)
    values = _minute_key(rows) | _values(rows.indicators)
    statement = insert(table).values(values)
    key = [table.c.session_id, table.c.minute]
    session.execute(
        statement.on_conflict_do_update(index_elements=key, set_=values)
        if replace
        else statement.on_conflict_do_nothing(index_elements=key)
    )


def _write_state(session: Session, rows: MinuteRows, state: Mapping[str, object]) -> None:
    values = {"session_id": rows.session_id, "minute": rows.minute, "document": dict(state)}
    statement = insert(_STATES).values(values)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[_STATES.c.session_id],
            set_=values,
            where=_STATES.c.minute <= statement.excluded.minute,
        )
    )


def _insert_new(session: Session, table: Table, values: Sequence[Mapping[str, object]]) -> int:
    """Insert what is not there yet; how many rows were new."""
    new = 0
    for start in range(0, len(values), ROWS_PER_STATEMENT):
        chunk = [dict(item) for item in values[start : start + ROWS_PER_STATEMENT]]
        inserted = session.execute(
            insert(table).values(chunk).on_conflict_do_nothing().returning(literal(1))
        )
        new += len(inserted.all())
    return new


# --- history --------------------------------------------------------------------------------------


def _symbol_totals(db: Session, session: WatchedSession) -> dict[str, SymbolTotals]:
    t = transactions_table(session.market)
    fill = t.c.source == "fill"
    fee_in_quote = case((t.c.fee_asset == QUOTE_ASSET, t.c.fee), else_=t.c.fee * t.c.price)
    funding = and_(t.c.source == "bill", t.c.kind == "funding", t.c.asset == QUOTE_ASSET)
    rows = db.execute(
        select(
            t.c.symbol,
            _sum_where(t.c.amount, fill),
            _sum_where(fee_in_quote, fill),
            _sum_where(t.c.amount + t.c.fee, funding),
        )
        .where(t.c.session_id == session.session_id, or_(fill, funding))
        .group_by(t.c.symbol)
    )
    return {symbol: SymbolTotals(realized, fees, paid) for symbol, realized, fees, paid in rows}


def _net_transfers(db: Session, session: WatchedSession) -> Decimal:
    t = transactions_table(session.market)
    total = db.scalars(
        select(func.coalesce(func.sum(t.c.amount + t.c.fee), 0)).where(
            t.c.session_id == session.session_id,
            t.c.source == "bill",
            t.c.kind == "transfer",
            t.c.asset == QUOTE_ASSET,
        )
    ).one()
    return Decimal(total)


def _count_trades(db: Session, session: WatchedSession) -> tuple[int, int]:
    p = positions_table(session.market)
    trades, won = db.execute(
        select(func.count(), func.count().filter(p.c.net_profit > 0)).where(
            p.c.session_id == session.session_id
        )
    ).one()
    return int(trades), int(won)


def _newest(db: Session, session: WatchedSession) -> dict[str, datetime | None]:
    t, p = transactions_table(session.market), positions_table(session.market)
    newest: dict[str, datetime | None] = {"fill": None, "bill": None, "position": None}
    newest["position"] = db.scalars(
        select(func.max(p.c.closed_at)).where(p.c.session_id == session.session_id)
    ).one()
    rows = db.execute(
        select(t.c.source, func.max(t.c.at))
        .where(t.c.session_id == session.session_id)
        .group_by(t.c.source)
    )
    for source, at in rows:
        newest[source] = at
    return newest


def _recent_ids(
    db: Session,
    session: WatchedSession,
    newest: Mapping[str, datetime | None],
    length: timedelta,
) -> frozenset[str]:
    t, p = transactions_table(session.market), positions_table(session.market)
    recent: set[str] = set()
    for source in ("fill", "bill"):
        last = newest[source]
        if last is not None:
            ids = db.scalars(
                select(t.c.exchange_id).where(
                    t.c.session_id == session.session_id,
                    t.c.source == source,
                    t.c.at >= last - length,
                )
            )
            recent.update(f"{source}:{exchange_id}" for exchange_id in ids)
    last = newest["position"]
    if last is not None:
        ids = db.scalars(
            select(p.c.exchange_id).where(
                p.c.session_id == session.session_id, p.c.closed_at >= last - length
            )
        )
        recent.update(f"position:{exchange_id}" for exchange_id in ids)
    return frozenset(recent)


def _sum_where(amount: ColumnElement[Any], condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(amount).filter(condition), 0)


# --- shapes ---------------------------------------------------------------------------------------


def _values(row: object) -> dict[str, object]:
    return {
        field.name: getattr(row, field.name)
        for field in dataclasses.fields(row)  # type: ignore[arg-type]  # a row of model.results
    }


def _shape(shape: type[T], row: Row[Any]) -> T:
    names = [field.name for field in dataclasses.fields(shape)]  # type: ignore[arg-type]
    return shape(**{name: getattr(row, name) for name in names})


def _owned(rows: MinuteRows | HistoryRows) -> dict[str, object]:
    return {
        "session_id": rows.session_id,
        "owner_id": rows.owner_id,
        "account_id": rows.account_id,
    }


def _minute_key(rows: MinuteRows) -> dict[str, object]:
    return _owned(rows) | {"minute": rows.minute}
