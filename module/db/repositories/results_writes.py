"""How the results repository writes: one minute's rows part by part, and rows that may be there.

Called inside a transaction of `module.db.repositories.results`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

from sqlalchemy import Table, delete, literal
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from module.db.database import is_about_connection
from module.db.results_tables import (
    WatchState,
    indicator_table,
    portfolio_table,
    symbols_table,
)
from module.model.results import HistoryRows, MinuteRows, StoredMinute

ROWS_PER_STATEMENT = 1000
T = TypeVar("T")
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
