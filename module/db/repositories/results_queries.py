"""What may be asked of the stored results: the words of `module.db.repositories.results_series`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from sqlalchemy import Table

from module.db.results_rollups import OWN_COLUMNS_OF_DAYS
from module.db.results_tables import indicator_table, portfolio_table, symbols_table
from module.model.errors import InvalidInput
from module.model.market import MarketType
from module.model.results import IndicatorRow, PortfolioRow

ROWS_MAX: Final = 100_000
_KEY_COLUMNS: Final = frozenset({"session_id", "owner_id", "account_id", "minute", "symbol"})
SeriesRow = tuple[Any, ...]  # the database's own types, in the order of the page's columns


class SessionKey(Protocol):
    """Which session, in which tables; `WatchedSession` is one."""

    @property
    def session_id(self) -> str: ...

    @property
    def market(self) -> MarketType: ...


class Resolution(StrEnum):
    """How far apart the rows of a series are at least.

    Above one minute a row is the last one of each bucket (begin, begin + length], UTC: the row of
    00:00 ends the day (the hour, …) before it, as in the indicators.
    """

    MINUTE = "1m"
    FIVE_MINUTES = "5m"
    QUARTER_HOUR = "15m"
    HOUR = "1h"
    FOUR_HOURS = "4h"
    DAY = "1d"

    @property
    def length(self) -> timedelta:
        """From one bucket to the next."""
        return _LENGTHS[self]


_LENGTHS = {
    Resolution.MINUTE: timedelta(minutes=1),
    Resolution.FIVE_MINUTES: timedelta(minutes=5),
    Resolution.QUARTER_HOUR: timedelta(minutes=15),
    Resolution.HOUR: timedelta(hours=1),
    Resolution.FOUR_HOURS: timedelta(hours=4),
    Resolution.DAY: timedelta(days=1),
}


class Subject(StrEnum):
    """Which minute table."""

    PORTFOLIO = "portfolio"
    INDICATORS = "indicators"
    SYMBOLS = "symbols"


@dataclass(frozen=True, slots=True)
class SeriesCursor:
    """The key of the last row that was read; `symbol` only in a series of symbols."""

    minute: datetime
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Rows of [start, end), oldest first, after `after`, at most `rows_max` of them.

    `columns` are names of `series_columns`; `symbol` (symbols only) asks for one of them.
    `newest_first`: the rows run backwards in time, so that a page holds the newest of the range and
    the next one what is older (the results API's default page asks so).
    """

    subject: Subject
    columns: tuple[str, ...]
    start: datetime
    end: datetime
    resolution: Resolution = Resolution.MINUTE
    rows_max: int = 1000
    after: SeriesCursor | None = None
    symbol: str | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class SeriesPage:
    """`columns` names what each row holds: `minute`, then (symbols only) `symbol`, then what was
    asked for. `next_after` leads to the following page; None: this was the last one."""

    columns: tuple[str, ...]
    rows: list[SeriesRow]
    next_after: SeriesCursor | None


@dataclass(frozen=True, slots=True)
class LatestMinute:
    """A session's newest minute; `indicators` None where that part failed."""

    minute: datetime
    portfolio: PortfolioRow
    indicators: IndicatorRow | None


@dataclass(frozen=True, slots=True)
class TransactionCursor:
    """The key of the last transaction that was read."""

    at: datetime
    source: str
    exchange_id: str


@dataclass(frozen=True, slots=True)
class TransactionQuery:
    """Transactions with `at` in [start, end) (None: open), newest first, after `after`.

    `source` fill or bill; `kinds` as in `TransactionRow.kind` (empty: all); `symbol` exactly.
    """

    source: str | None = None
    kinds: tuple[str, ...] = ()
    symbol: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    rows_max: int = 100
    after: TransactionCursor | None = None


@dataclass(frozen=True, slots=True)
class PositionCursor:
    """The key of the last closed position that was read."""

    closed_at: datetime
    exchange_id: str


@dataclass(frozen=True, slots=True)
class PositionQuery:
    """Closed positions with `closed_at` in [start, end) (None: open), newest first."""

    symbol: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    rows_max: int = 100
    after: PositionCursor | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """First and last minute that a session has rows of, and the first day of its roll-ups.

    A session that ended long ago has days and no minutes: then both minutes are None.
    """

    first_minute: datetime | None
    last_minute: datetime | None
    first_minute_of_days: datetime | None


def series_columns(subject: Subject, resolution: Resolution = Resolution.MINUTE) -> tuple[str, ...]:
    """The names that a series may be asked for, in the table's order.

    A portfolio's days have four more: `minutes`, `gaps`, `low_pv`, `high_pv`.
    """
    names = tuple(
        column.name
        for column in minutes_of(subject, MarketType.FUTURES).columns
        if column.name not in _KEY_COLUMNS
    )
    if subject is Subject.PORTFOLIO and resolution is Resolution.DAY:
        return names + OWN_COLUMNS_OF_DAYS
    return names


def minutes_of(subject: Subject, market: MarketType) -> Table:
    """Its minute table."""
    return {
        Subject.PORTFOLIO: portfolio_table,
        Subject.INDICATORS: indicator_table,
        Subject.SYMBOLS: symbols_table,
    }[subject](market)


def check_query(query: SeriesQuery) -> None:
    """InvalidInput names what cannot be asked for."""
    known = series_columns(query.subject, query.resolution)
    for name in query.columns:
        if name not in known:
            raise InvalidInput(
                f"{query.subject.value} has no column {name!r} at {query.resolution.value}; it has "
                f"{', '.join(known)}"
            )
    if query.start.tzinfo is None or query.end.tzinfo is None or query.end < query.start:
        raise InvalidInput(
            f"a series runs from a time to a later one, both with a zone; asked was "
            f"{query.start} to {query.end}"
        )
    if query.symbol is not None and query.subject is not Subject.SYMBOLS:
        raise InvalidInput(f"{query.subject.value} is of the whole account and has no symbol")
    check_limit(query.rows_max)


def check_limit(rows_max: int) -> int:
    """`rows_max` itself; InvalidInput when no page is that long."""
    if not 1 <= rows_max <= ROWS_MAX:
        raise InvalidInput(f"a page has 1 to {ROWS_MAX} rows, not {rows_max}")
    return rows_max
