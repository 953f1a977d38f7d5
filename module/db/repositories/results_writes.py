"""How the results repository writes: one minute's rows part by part, and rows that may be there.

Called inside a transaction of `module.db.repositories.results`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar, cast

from sqlalchemy import Table, delete, literal, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from module.db.database import is_about_connection
from module.db.results_rollups import day_of, mark_days
from module.db.results_tables import (
    ResultGap,
    WatchState,
    indicator_table,
    portfolio_table,
    symbols_table,
)
from module.model.results import GapCause, GapRow, HistoryRows, MinuteRows, StoredMinute

ROWS_PER_STATEMENT = 1000
T = TypeVar("T")
_GAPS = cast(Table, ResultGap.__table__)
_STATES = cast(Table, WatchState.__table__)


def write_minute(
    session: Session, rows: MinuteRows, state: Mapping[str, object] | None
) -> StoredMinute:
    """Write the minute, each part under a savepoint of its own; what was refused, by part."""
    failed: dict[str, str] = {}

    def part(name: str, work: Callable[[], T]) -> T | None:
        try:
            with session.begin_nested():
                return work()
        except DBAPIError as error:
            if is_about_connection(error):
                raise  # Postgres itself is in trouble: the whole minute waits
            failed[name] = f"the database refused {name}: {str(error.orig).strip()[:300]}"
            return None

    owns: bool | None = None
    if rows.portfolio is not None:
        owns = part("portfolio", lambda: _write_portfolio(session, rows))
        if owns is False:
            return StoredMinute(False, {})
    mark_days(session, [(rows.session_id, day_of(rows.minute), rows.market)])
    if rows.symbols is not None:
        part("symbols", lambda: _write_symbols(session, rows, replace=bool(owns)))
    if rows.indicators is not None:
        part("indicators", lambda: _write_indicators(session, rows, replace=bool(owns)))
        if state is not None and not failed:
            part("state", lambda: _write_state(session, rows, state))
    if owns:
        drop_gaps(session, [(rows.session_id, rows.minute)])
    return StoredMinute(True, failed)


def drop_gaps(session: Session, keys: Sequence[tuple[str, datetime]]) -> None:
    """A row takes the place of its minute's gap: it came late (from a spool), or another watcher
    of the session had not seen the account."""
    if keys:
        session.execute(
            text(
                "DELETE FROM result_gaps_1min AS g "
                "USING unnest(CAST(:ids AS text[]), CAST(:minutes AS timestamptz[])) "
                "AS k (session_id, minute) "
                "WHERE g.session_id = k.session_id AND g.minute = k.minute"
            ),
            {"ids": [key[0] for key in keys], "minutes": [key[1] for key in keys]},
        )


def _write_portfolio(session: Session, rows: MinuteRows) -> bool:
    """Write the row; False when it is another writer's."""
    table = portfolio_table(rows.market)
    values = _minute_key(rows) | values_of(rows.portfolio) | {"writer": rows.writer}
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
    insert_new(session, table, [_minute_key(rows) | values_of(row) for row in rows.symbols or ()])


def _write_indicators(session: Session, rows: MinuteRows, *, replace: bool) -> None:
    table = indicator_table(rows.market)
    values = _minute_key(rows) | values_of(rows.indicators)
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


def insert_new(session: Session, table: Table, values: Sequence[Mapping[str, object]]) -> int:
    """Insert what is not there yet; how many rows were new."""
    new = 0
    for start in range(0, len(values), ROWS_PER_STATEMENT):
        chunk = [dict(item) for item in values[start : start + ROWS_PER_STATEMENT]]
        inserted = session.execute(
            insert(table).values(chunk).on_conflict_do_nothing().returning(literal(1))
        )
        new += len(inserted.all())
    return new


def insert_gaps(session: Session, gaps: Sequence[GapRow]) -> int:
    """Record gaps; how many are new or say more. One that says only that nobody was running, as who
    knows nothing says, is replaced by one that knows the cause."""
    recorded = 0
    for start in range(0, len(gaps), ROWS_PER_STATEMENT):
        statement = insert(_GAPS).values(
            [values_of(gap) for gap in gaps[start : start + ROWS_PER_STATEMENT]]
        )
        told = statement.excluded
        better = statement.on_conflict_do_update(
            index_elements=[_GAPS.c.session_id, _GAPS.c.minute],
            set_={"cause": told.cause, "detail": told.detail, "recorded_at": told.recorded_at},
            where=(_GAPS.c.cause == GapCause.NOT_RUNNING.value) & (told.cause != _GAPS.c.cause),
        )
        recorded += len(session.execute(better.returning(literal(1))).all())
    return recorded


def values_of(row: object) -> dict[str, object]:
    """The row of `module.model.results` by column."""
    return {
        field.name: getattr(row, field.name)
        for field in dataclasses.fields(row)  # type: ignore[arg-type]  # a row of model.results
    }


def owner_columns(rows: MinuteRows | HistoryRows) -> dict[str, object]:
    """Whose rows they are, as every table wants it."""
    return {
        "session_id": rows.session_id,
        "owner_id": rows.owner_id,
        "account_id": rows.account_id,
    }


def _minute_key(rows: MinuteRows) -> dict[str, object]:
    return owner_columns(rows) | {"minute": rows.minute}
