"""How the results repository writes many sessions at once: COPY beside the tables, then one insert.

    store_minutes ── chunks ─► COPY into temporary tables ─► INSERT … SELECT … ON CONFLICT
                        └─ what the database refuses: halves, down to one: write_minute as ever

The outcome for each session is that of `results_writes.write_minute`, which stays the one that
says what a minute is: whoever wrote a minute first owns it, its owner may write it again. A chunk
is one transaction; rows go in by (session, minute), so that two who write the same do not lock each
other out.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from sqlalchemy import Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from module.db.database import Database, is_about_connection
from module.db.repositories.results_writes import drop_gaps, owner_columns, write_minute
from module.db.results_rollups import day_of, mark_days
from module.db.results_tables import (
    WatchState,
    indicator_table,
    portfolio_table,
    positions_table,
    symbols_table,
    transactions_table,
)
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    HistoryRows,
    IndicatorRow,
    MinuteRows,
    PortfolioRow,
    StoredAdditions,
    StoredMinute,
    SymbolRow,
    TransactionRow,
)

if TYPE_CHECKING:
    import psycopg2.extensions

MINUTES_PER_TRANSACTION: Final = 500
HISTORIES_PER_TRANSACTION: Final = 500
STATES: Final = cast(Table, WatchState.__table__)
MinuteEntry = tuple[MinuteRows, Mapping[str, object] | None]
MinuteKey = tuple[str, datetime]
Entry = TypeVar("Entry")
Outcome = TypeVar("Outcome")
_ESCAPED: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_OWNER: Final = ("session_id", "owner_id", "account_id")
_MINUTE_KEY: Final = (*_OWNER, "minute")


@dataclass(frozen=True, slots=True)
class _Shape:
    """How rows of one dataclass become columns behind a common key."""

    columns: tuple[str, ...]
    read: Callable[[object], tuple[object, ...]]

    @classmethod
    def of(cls, kind: type[object], key: Sequence[str]) -> _Shape:
        names = tuple(item.name for item in fields(kind))  # type: ignore[arg-type]  # a dataclass
        return cls((*key, *names), attrgetter(*names))


_PORTFOLIO: Final = _Shape.of(PortfolioRow, (*_MINUTE_KEY, "writer"))
_SYMBOLS: Final = _Shape.of(SymbolRow, _MINUTE_KEY)
_INDICATORS: Final = _Shape.of(IndicatorRow, _MINUTE_KEY)
_TRANSACTIONS: Final = _Shape.of(TransactionRow, _OWNER)
_POSITIONS: Final = _Shape.of(ClosedPositionRow, _OWNER)


def write_minutes(database: Database, batch: Sequence[MinuteEntry]) -> list[StoredMinute]:
    """Write the minutes; for each, in order, what `write_minute` would have said.

    Unavailable: some may have been written, the whole batch may be repeated.
    """

    def bulk(db: Session, some: Sequence[MinuteEntry]) -> list[StoredMinute]:
        return _write_chunk(db, some)

    def alone(db: Session, entry: MinuteEntry) -> StoredMinute:
        return write_minute(db, *entry)

    stored: list[StoredMinute] = []
    for chunk in _chunks(batch):
        stored.extend(_halving(database, chunk, bulk, alone))
    return stored


def write_histories(database: Database, batch: Sequence[HistoryRows]) -> list[StoredAdditions]:
    """Add the rows that are not there yet; for each entry, in order, what became of it."""
    stored: list[StoredAdditions] = []
    for start in range(0, len(batch), HISTORIES_PER_TRANSACTION):
        chunk = batch[start : start + HISTORIES_PER_TRANSACTION]
        stored.extend(_halving(database, chunk, _add_chunk, _add_alone))
    return stored


def _halving(
    database: Database,
    entries: Sequence[Entry],
    bulk: Callable[[Session, Sequence[Entry]], list[Outcome]],
    alone: Callable[[Session, Entry], Outcome],
) -> list[Outcome]:
    """All at once; where the database refuses that, each half; one by itself at last."""
    if len(entries) == 1:
        return [database.run_idempotent(lambda db: alone(db, entries[0]))]
    try:
        return database.run_idempotent(lambda db: bulk(db, entries))
    except DBAPIError:  # about the rows: what is about the connection is Unavailable by now
        middle = len(entries) // 2
        first = _halving(database, entries[:middle], bulk, alone)
        return first + _halving(database, entries[middle:], bulk, alone)


# --- minutes --------------------------------------------------------------------------------------


def _chunks(batch: Sequence[MinuteEntry]) -> Iterator[list[MinuteEntry]]:
    """Bounded chunks of one market in which no minute of a session comes twice."""
    chunk: list[MinuteEntry] = []
    keys: set[MinuteKey] = set()
    for entry in batch:
        key = _key(entry[0])
        is_full = len(chunk) == MINUTES_PER_TRANSACTION
        if is_full or key in keys or (chunk and chunk[0][0].market is not entry[0].market):
            yield chunk
            chunk, keys = [], set()
        chunk.append(entry)
        keys.add(key)
    if chunk:
        yield chunk


def _write_chunk(db: Session, entries: Sequence[MinuteEntry]) -> list[StoredMinute]:
    market = entries[0][0].market
    owned = _write_portfolios(db, market, [rows for rows, _ in entries])
    mine = [rows for rows, _ in entries if _key(rows) in owned]
    beside = [rows for rows, _ in entries if rows.portfolio is None]
    mark_days(db, [(rows.session_id, day_of(rows.minute), market) for rows in (*mine, *beside)])
    _write_symbols(db, market, mine, beside)
    for some, replace in ((mine, True), (beside, False)):
        _write_indicators(db, market, some, replace=replace)
    told = [entry for entry in entries if _key(entry[0]) in owned or entry[0].portfolio is None]
    _write_states(db, told)
    drop_gaps(db, sorted(owned))
    return [StoredMinute(rows.portfolio is None or _key(rows) in owned, {}) for rows, _ in entries]


def _write_portfolios(
    db: Session, market: MarketType, minutes: Sequence[MinuteRows]
) -> set[MinuteKey]:
    """Write the rows; the keys of those that are ours."""
    lines = [
        _line((*_key_values(rows), rows.writer, *_PORTFOLIO.read(rows.portfolio)))
        for rows in minutes
        if rows.portfolio is not None
    ]
    table = portfolio_table(market)
    insert = _staged_insert(db, table, _PORTFOLIO.columns, lines)
    if insert is None:
        return set()
    found = db.execute(
        text(
            f"{insert} ON CONFLICT (session_id, minute) DO UPDATE "
            f"SET {_excluded(_PORTFOLIO.columns)} WHERE kept.writer = excluded.writer "
            "RETURNING kept.session_id, kept.minute"
        )
    )
    return {(str(name), minute) for name, minute in found}


def _write_symbols(
    db: Session, market: MarketType, mine: Sequence[MinuteRows], beside: Sequence[MinuteRows]
) -> None:
    table = symbols_table(market)
    again = [rows for rows in mine if rows.symbols is not None]
    if again:
        # both lists prune and lead into the key; the pairs make it exact
        db.execute(
            text(
                f"DELETE FROM {table.name} AS old WHERE old.session_id = ANY(:names) "  # noqa: S608
                "AND old.minute = ANY(CAST(:minutes AS timestamptz[])) "
                "AND (old.session_id, old.minute) IN (SELECT * FROM unnest("
                "CAST(:of_names AS text[]), CAST(:of_minutes AS timestamptz[])))"
            ),
            {
                "names": sorted({rows.session_id for rows in again}),
                "minutes": sorted({rows.minute for rows in again}),
                "of_names": [rows.session_id for rows in again],
                "of_minutes": [rows.minute for rows in again],
            },
        )
    lines = [
        _line((*_key_values(rows), *_SYMBOLS.read(symbol)))
        for rows in (*mine, *beside)
        for symbol in rows.symbols or ()
    ]
    insert = _staged_insert(db, table, _SYMBOLS.columns, lines)
    if insert is not None:
        db.execute(text(f"{insert} ON CONFLICT DO NOTHING"))


def _write_indicators(
    db: Session, market: MarketType, minutes: Sequence[MinuteRows], *, replace: bool
) -> None:
    lines = [
        _line((*_key_values(rows), *_INDICATORS.read(rows.indicators)))
        for rows in minutes
        if rows.indicators is not None
    ]
    insert = _staged_insert(db, indicator_table(market), _INDICATORS.columns, lines)
    if insert is None:
        return
    action = f"DO UPDATE SET {_excluded(_INDICATORS.columns)}" if replace else "DO NOTHING"
    db.execute(text(f"{insert} ON CONFLICT (session_id, minute) {action}"))


def _write_states(db: Session, entries: Sequence[MinuteEntry]) -> None:
    """The newest state of each session among the entries, unless a newer one is there."""
    newest: dict[str, tuple[datetime, str]] = {}
    for rows, state in entries:
        if state is None or rows.indicators is None:
            continue
        known = newest.get(rows.session_id)
        if known is None or known[0] <= rows.minute:
            newest[rows.session_id] = (rows.minute, json.dumps(dict(state)))
    lines = [_line((name, *found)) for name, found in newest.items()]
    columns = ("session_id", "minute", "document")
    insert = _staged_insert(db, STATES, columns, lines, order="session_id")
    if insert is not None:
        db.execute(
            text(
                f"{insert} ON CONFLICT (session_id) DO UPDATE SET {_excluded(columns)} "
                "WHERE kept.minute <= excluded.minute"
            )
        )


# --- history --------------------------------------------------------------------------------------


def _add_chunk(db: Session, batch: Sequence[HistoryRows]) -> list[StoredAdditions]:
    new = [0] * len(batch)
    for market in MarketType:
        numbered = [(number, rows) for number, rows in enumerate(batch) if rows.market is market]
        transactions = {
            (rows.session_id, row.source, row.exchange_id): number
            for number, rows in reversed(numbered)
            for row in rows.transactions
        }
        lines = [
            _line((*owner_columns(rows).values(), *_TRANSACTIONS.read(row)))
            for _, rows in numbered
            for row in rows.transactions
        ]
        key = ("session_id", "source", "exchange_id")
        for found in _add(db, transactions_table(market), _TRANSACTIONS, lines, key):
            new[transactions[found]] += 1
        positions = {
            (rows.session_id, row.exchange_id): number
            for number, rows in reversed(numbered)
            for row in rows.positions
        }
        lines = [
            _line((*owner_columns(rows).values(), *_POSITIONS.read(row)))
            for _, rows in numbered
            for row in rows.positions
        ]
        for found in _add(
            db, positions_table(market), _POSITIONS, lines, ("session_id", "exchange_id")
        ):
            new[positions[found]] += 1
    return [StoredAdditions(count) for count in new]


def _add_alone(db: Session, rows: HistoryRows) -> StoredAdditions:
    try:
        with db.begin_nested():
            return _add_chunk(db, [rows])[0]
    except DBAPIError as error:
        if is_about_connection(error):
            raise
        said = str(error.orig).strip()[:300]
        return StoredAdditions(0, f"the database refused history of {rows.session_id}: {said}")


def _add(
    db: Session, table: Table, shape: _Shape, lines: Sequence[str], key: Sequence[str]
) -> list[Any]:
    """Insert what is not there; the keys of what was new."""
    insert = _staged_insert(db, table, shape.columns, lines, order=", ".join(key))
    if insert is None:
        return []
    returned = ", ".join(f"kept.{name}" for name in key)
    found = db.execute(text(f"{insert} ON CONFLICT DO NOTHING RETURNING {returned}"))
    return [tuple(row) for row in found]


# --- COPY -----------------------------------------------------------------------------------------


def _staged_insert(
    db: Session,
    table: Table,
    columns: Sequence[str],
    lines: Sequence[str],
    order: str = "session_id, minute",
) -> str | None:
    """COPY the lines beside the table; the statement that takes them over, None without lines.

    The temporary table stays with the connection, empty between transactions.
    """
    if not lines:
        return None
    staged, names = f"staged_{table.name}", ", ".join(columns)
    db.execute(
        text(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged} (LIKE {table.name}) "
            "ON COMMIT DELETE ROWS"
        )
    )
    db.execute(text(f"DELETE FROM {staged}"))  # noqa: S608
    _copy(db, f"COPY {staged} ({names}) FROM STDIN", "".join(lines))
    return (
        f"INSERT INTO {table.name} AS kept ({names}) SELECT {names} FROM {staged} ORDER BY {order}"  # noqa: S608
    )


def _copy(db: Session, statement: str, content: str) -> None:
    import psycopg2

    cursor = cast("psycopg2.extensions.cursor", db.connection().connection.cursor())
    try:
        with cursor:
            cursor.copy_expert(statement, io.StringIO(content))
    except psycopg2.Error as error:
        # the same words for it as for a statement that went through SQLAlchemy
        raise DBAPIError.instance(statement, None, error, psycopg2.Error) from error


def _line(values: Iterable[object]) -> str:
    """One row in COPY's text format."""
    return "\t".join([_CELLS.get(type(value), str)(value) for value in values]) + "\n"


def _text_cell(value: object) -> str:
    return str(value).translate(_ESCAPED)


def _none_cell(_value: object) -> str:
    return r"\N"


_CELLS: Final[Mapping[type, Callable[[object], str]]] = {type(None): _none_cell, str: _text_cell}
"""How a value of each type is spelled; numbers and times as they print."""


def _excluded(columns: Iterable[str]) -> str:
    return ", ".join(f"{name} = excluded.{name}" for name in columns)


def _key(rows: MinuteRows) -> MinuteKey:
    return rows.session_id, rows.minute


def _key_values(rows: MinuteRows) -> tuple[object, ...]:
    return rows.session_id, rows.owner_id, rows.account_id, rows.minute
