"""What can be read in pages of the results: series, history, orders, cycles, sessions.

    Asked ─► Listing (its columns, and how a page behind a key is read) ─► api.results_queries

Each function names one list; nothing here answers a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Final

from api.cycle_views import (
    CYCLE_COLUMNS,
    ORDER_COLUMNS,
    cycle_of_write,
    cycle_row,
    order_rows,
)
from api.results_queries import (
    Asked,
    AskedOfSession,
    Form,
    Key,
    Listing,
    PageRows,
    key_instant,
    key_number,
    read_columns,
)
from api.session_views import session_views, watched_shape
from module.db.repositories.results_series import (
    LatestMinute,
    PositionCursor,
    PositionQuery,
    Resolution,
    SeriesCursor,
    SeriesQuery,
    Subject,
    TransactionCursor,
    TransactionQuery,
    series_columns,
)
from module.db.repositories.session_history import CycleFilter, SessionFilter, WriteFilter
from module.db.repositories.session_records import SessionRecord
from module.model.errors import InvalidInput
from module.model.results import ClosedPositionRow, GapRow, TransactionRow

TRANSACTION_COLUMNS: Final = tuple(field.name for field in fields(TransactionRow))
POSITION_COLUMNS: Final = tuple(field.name for field in fields(ClosedPositionRow))
GAP_COLUMNS: Final = tuple(field.name for field in fields(GapRow))
INTERNAL: Final = frozenset({"writer"})
"""Which process wrote a row is nobody's question."""
LATEST_PORTFOLIO: Final = (
    *("current_pv", "netprofit", "roe", "cash", "margin_size", "unrealized_pnl"),
    *("gross_exposure", "net_exposure", "positions", "unprotected"),
)
LATEST_INDICATORS: Final = (
    *("cumulative_return", "drawdown", "max_drawdown"),
    *("sharpe_1day", "sortino_1day", "volatility_1day", "win_rate", "turnover"),
)
LATEST_COLUMNS: Final = ("minute", *LATEST_PORTFOLIO, *LATEST_INDICATORS)
SESSION_COLUMNS: Final = (
    *("session_id", "owner_id", "state", "desired", "end_state", "reason", "account_id", "account"),
    *("trade_env", "tradeType", "strategy_name", "trade_mode", "interval_s", "leverage", "cycle"),
    *("last_boundary", "started_at", "ends_at", "ended_at", "restarts"),
)


# --- series ---------------------------------------------------------------------------------------


def series_listing(
    asked: AskedOfSession,
    subject: Subject,
    resolution: Resolution,
    columns: str | None,
    symbol: str | None = None,
) -> Listing:
    """Minutes, or the last one of each bucket; `columns` as `a,b`, all of them without."""
    keys = ("minute", "symbol") if subject is Subject.SYMBOLS else ("minute",)
    known = (name for name in series_columns(subject, resolution) if name not in INTERNAL)
    names = read_columns(columns, (*keys, *known))
    wanted = tuple(name for name in names if name not in keys)

    def read(key: Key | None, count: int) -> PageRows:
        page = asked.doors.series.series(
            asked.watched,
            SeriesQuery(
                subject=subject,
                columns=wanted,
                start=asked.since,
                end=asked.until,
                resolution=resolution,
                rows_max=count,
                after=None if key is None else _series_cursor(key, len(keys)),
                symbol=symbol,
                newest_first=asked.newest_first,
            ),
        )
        last = page.next_after
        if last is None:
            return PageRows(page.rows, None)
        return PageRows(page.rows, (last.minute.isoformat(), last.symbol)[: len(keys)])

    title = f"{asked.watched.session_id}-{subject}-{resolution}"
    return Listing("rows", title, (*keys, *wanted), read, read_newest_last=True)


def _series_cursor(key: Key, parts: int) -> SeriesCursor:
    _check_length(key, parts)
    return SeriesCursor(key_instant(key[0]), str(key[1]) if parts > 1 else "")


def gap_listing(asked: AskedOfSession) -> Listing:
    """Minutes without a row, and why."""

    def read(key: Key | None, count: int) -> PageRows:
        until = asked.until
        if key is not None:
            _check_length(key, 1)
            until = min(until, key_instant(key[0]))
        if until <= asked.since:
            return PageRows([], None)
        found = asked.doors.results.gaps(asked.watched, asked.since, until, count + 1)
        newest = list(reversed(found))[:count]
        following = (newest[-1].minute.isoformat(),) if len(found) > count else None
        return PageRows([_values(gap, GAP_COLUMNS) for gap in newest], following)

    title = f"{asked.watched.session_id}-gaps"
    return Listing("gaps", title, GAP_COLUMNS, read, read_newest_last=True)


# --- history --------------------------------------------------------------------------------------


def transaction_listing(
    asked: AskedOfSession, name: str, source: str, kinds: Sequence[str], symbol: str | None
) -> Listing:
    """Fills or bills, newest first."""

    def read(key: Key | None, count: int) -> PageRows:
        after = None
        if key is not None:
            _check_length(key, 3)
            after = TransactionCursor(key_instant(key[0]), str(key[1]), str(key[2]))
        found = asked.doors.series.transactions(
            asked.watched,
            TransactionQuery(
                source=source,
                kinds=tuple(kinds),
                symbol=symbol,
                start=asked.since,
                end=asked.until,
                rows_max=count,
                after=after,
            ),
        )
        following = None
        if len(found) >= count:
            last = found[-1]
            following = (last.at.isoformat(), last.source, last.exchange_id)
        return PageRows([_values(row, TRANSACTION_COLUMNS) for row in found], following)

    return Listing(name, f"{asked.watched.session_id}-{name}", TRANSACTION_COLUMNS, read)


def closed_position_listing(asked: AskedOfSession, symbol: str | None) -> Listing:
    """Positions that are over, by the time they closed, newest first."""

    def read(key: Key | None, count: int) -> PageRows:
        after = None
        if key is not None:
            _check_length(key, 2)
            after = PositionCursor(key_instant(key[0]), str(key[1]))
        found = asked.doors.series.closed_positions(
            asked.watched,
            PositionQuery(
                symbol=symbol,
                start=asked.since,
                end=asked.until,
                rows_max=count,
                after=after,
            ),
        )
        following = None
        if len(found) >= count:
            following = (found[-1].closed_at.isoformat(), found[-1].exchange_id)
        return PageRows([_values(row, POSITION_COLUMNS) for row in found], following)

    title = f"{asked.watched.session_id}-closed-positions"
    return Listing("positions", title, POSITION_COLUMNS, read)


def order_listing(
    asked: AskedOfSession, kind: str | None, symbol: str | None, outcome: str | None
) -> Listing:
    """What was sent, in the order of sending, newest first unless asked otherwise."""
    session_id = asked.watched.session_id
    wanted = WriteFilter(asked.since, asked.until, kind, symbol, outcome)

    def read(key: Key | None, count: int) -> PageRows:
        after = None
        if key is not None:
            _check_length(key, 1)
            after = key_number(key[0])
        writes = asked.doors.history.writes(
            session_id, wanted, after, count + 1, newest_first=asked.newest_first
        )
        shown = writes[:count]
        cycles = {cycle for write in shown if (cycle := cycle_of_write(write)) is not None}
        legs = asked.doors.history.legs(session_id, tuple(cycles))
        rows = [_values(row, ORDER_COLUMNS) for row in order_rows(shown, legs)]
        return PageRows(rows, (shown[-1].write_id,) if len(writes) > count else None)

    return Listing("orders", f"{session_id}-orders", ORDER_COLUMNS, read)


def cycle_listing(asked: AskedOfSession, state: str | None) -> Listing:
    """Ended cycles, newest first unless asked otherwise."""
    session_id = asked.watched.session_id
    wanted = CycleFilter(asked.since, asked.until, state)

    def read(key: Key | None, count: int) -> PageRows:
        after = None
        if key is not None:
            _check_length(key, 1)
            after = key_instant(key[0])
        found = asked.doors.history.cycles(
            session_id, wanted, after, count + 1, newest_first=asked.newest_first
        )
        shown = found[:count]
        rows = [_values(cycle_row(cycle), CYCLE_COLUMNS) for cycle in shown]
        return PageRows(rows, (shown[-1].boundary.isoformat(),) if len(found) > count else None)

    return Listing("cycles", f"{session_id}-cycles", CYCLE_COLUMNS, read)


# --- sessions -------------------------------------------------------------------------------------


def session_listing(asked: Asked, wanted: SessionFilter) -> Listing:
    """Sessions with what they were worth last: those that are not over first, newest first.

    JSON rows have everything that session-check tells, and `latest`; CSV has one column for each.
    """
    flat = asked.form is Form.CSV

    def read(key: Key | None, count: int) -> PageRows:
        after = None
        if key is not None:
            _check_length(key, 3)
            after = (key_number(key[0]), key_instant(key[1]), str(key[2]))
        found = asked.doors.history.sessions(wanted, after, count + 1)
        shown = found[:count]
        following: Key | None = None
        if len(found) > count:
            last = shown[-1]
            started = last.spec.started_at.isoformat()
            following = (int(last.state.is_over), started, last.session_id)
        views = session_documents(asked, shown)
        rows = [_flat_session(view) if flat else (view,) for view in views]
        return PageRows(rows, following)

    columns = (*SESSION_COLUMNS, *(f"latest_{name}" for name in LATEST_COLUMNS))
    if flat:
        return Listing("sessions", "sessions", columns, read)
    return Listing("sessions", "sessions", ("session",), read, of_documents=True)


def session_documents(asked: Asked, records: Sequence[SessionRecord]) -> list[dict[str, object]]:
    """The views of these sessions, each with its `latest` values; one query for all of them."""
    latest = asked.doors.series.latest_of([watched_shape(record) for record in records])
    return [
        {**view, "latest": _latest(latest.get(record.session_id))}
        for view, record in zip(session_views(asked.doors, records), records, strict=True)
    ]


def _latest(newest: LatestMinute | None) -> dict[str, object] | None:
    if newest is None:
        return None
    numbers = newest.indicators
    return {
        "minute": newest.minute,
        **{name: getattr(newest.portfolio, name) for name in LATEST_PORTFOLIO},
        **{name: None if numbers is None else getattr(numbers, name) for name in LATEST_INDICATORS},
    }


def _flat_session(view: Mapping[str, object]) -> tuple[object, ...]:
    latest = view["latest"]
    values = latest if isinstance(latest, dict) else {}
    return (
        *(view[name] for name in SESSION_COLUMNS),
        *(values.get(name) for name in LATEST_COLUMNS),
    )


# --- parts ----------------------------------------------------------------------------------------


def _values(row: object, columns: Iterable[str]) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in columns)


def _check_length(key: Key, parts: int) -> None:
    if len(key) != parts:
        raise InvalidInput("cursor is not the `next` of a page")
