"""The schema a database gets, and what an unfit schema is told (E10)."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from module.db.database import DATABASE_NAMES, Database, DatabaseName
from module.db.embedded import EmbeddedPostgres
from module.db.migrate import (
    NOT_READABLE,
    check_schema,
    migrate,
    migrate_all,
    schema_states,
    tables_of,
)
from module.db.results_partitions import PARTITIONED
from module.model.errors import Conflict
from module.settings import Settings


@pytest.fixture
def empty(postgres_server: EmbeddedPostgres) -> Settings:
    connection = postgres_server.superuser_connection()
    with connection.cursor() as cursor:
        for name in DATABASE_NAMES:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name} OWNER aifap STRATEGY file_copy")
    connection.close()
    return Settings(data_dir=postgres_server.folder.parent)


def _run(settings: Settings, name: DatabaseName, statement: str) -> None:
    database = Database(settings, name, 1)
    with database.transaction() as session:
        session.execute(text(statement))
    database.close()


@pytest.mark.parametrize("name", DATABASE_NAMES)
def test_migrations_make_exactly_the_tables_of_the_code(
    postgres: Settings, name: DatabaseName
) -> None:
    database = Database(postgres, name, 1)
    with database.engine().connect() as connection:
        partitions = set(
            connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition"))
        )
        options = {
            "compare_type": True,
            "include_name": lambda name, kind, _: kind != "table" or name not in partitions,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables_of(name)) == []
    database.close()


def test_the_views_of_the_results_have_the_columns_of_the_dictionary(postgres: Settings) -> None:
    database = Database(postgres, "finwatcher", 1)
    with database.read() as session:
        numbers = session.execute(text("SELECT column_id FROM result_columns")).scalars().all()
        session.execute(text("SELECT value FROM futures_portfolio_result_1min_columns")).all()
        session.execute(text("SELECT value FROM spot_portfolio_result_1min_columns")).all()
    database.close()
    assert sorted(numbers) == [1, 2, 3, 4, 5, 8, 9, 10, 11]


def test_E10_an_empty_database_is_refused_until_it_is_migrated(empty: Settings) -> None:
    with pytest.raises(Conflict, match="finplatform has no AIFAP schema yet"):
        check_schema(empty)
    migrate_all(empty)
    check_schema(empty)


def test_E10_migrating_twice_changes_nothing(empty: Settings) -> None:
    migrate_all(empty)
    first = schema_states(empty)
    migrate_all(empty)
    assert schema_states(empty) == first
    assert all(state.applied == state.wanted for state in first)


def test_E10_processes_and_threads_that_migrate_at_once_apply_it_once(empty: Settings) -> None:
    script = (
        "from module.db.migrate import migrate_all\n"
        "from module.settings import Settings\n"
        f"migrate_all(Settings(data_dir={str(empty.data_dir)!r}))\n"
    )
    others = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=Path(__file__).parents[3], stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    with ThreadPoolExecutor(3) as threads:
        ours = [threads.submit(migrate_all, empty) for _ in range(3)]
    said = [other.communicate(timeout=60)[1] for other in others]
    assert [other.returncode for other in others] == [0, 0], said
    assert [each.exception() for each in ours] == [None] * 3
    check_schema(empty)


def test_E10_code_older_than_the_schema_refuses_and_leaves_it_alone(empty: Settings) -> None:
    migrate_all(empty)
    _run(empty, "fin_crypto", "UPDATE alembic_version SET version_num = 'market_9731'")
    with pytest.raises(Conflict, match="market_9731, which this build does not know"):
        check_schema(empty)
    with pytest.raises(Conflict, match="a newer AIFAP has migrated it"):
        migrate_all(empty)
    state = next(s for s in schema_states(empty) if s.name == "fin_crypto")
    assert (state.applied, state.known) == ("market_9731", False)


def test_E10_one_database_behind_the_others_is_refused_by_name(empty: Settings) -> None:
    migrate_all(empty)
    _run(empty, "finwatcher", "DELETE FROM alembic_version")
    with pytest.raises(Conflict, match="finwatcher has no AIFAP schema yet"):
        check_schema(empty)


def test_E10_a_schema_that_lacks_a_column_is_refused_by_name(empty: Settings) -> None:
    migrate_all(empty)
    _run(empty, "finplatform", "ALTER TABLE accounts DROP COLUMN epoch")
    with pytest.raises(Conflict, match=r"lacks accounts\.epoch"):
        check_schema(empty)


def test_E10_a_migration_that_fails_half_way_leaves_nothing(empty: Settings) -> None:
    _run(empty, "fin_crypto", "CREATE TABLE watched_symbols (in_the_way int)")
    with pytest.raises(Exception, match="watched_symbols"):
        migrate_all(empty)
    database = Database(empty, "fin_crypto", 1)
    with database.read() as session:
        found = session.execute(text("SELECT to_regclass('candles')")).scalar()
    database.close()
    assert found is None


def _rows_of(settings: Settings, tables: tuple[str, ...]) -> dict[str, list[str]]:
    """Each table's rows as sorted JSON, without what is null."""
    database = Database(settings, "finwatcher", 1)
    with database.read() as session:
        found = {
            table: sorted(
                session.scalars(
                    text(f"SELECT CAST(jsonb_strip_nulls(to_jsonb(t)) AS text) FROM {table} AS t")
                )
            )
            for table in tables
        }
    database.close()
    return found


def _insert_minutes(settings: Settings, table: str, minutes: list[str]) -> None:
    """Rows with a value in every column that wants one, whatever the revision has."""
    database = Database(settings, "finwatcher", 1)
    with database.transaction() as session:
        columns = session.execute(
            text(
                "SELECT column_name, data_type FROM information_schema.columns "
                "WHERE table_name = :table AND is_nullable = 'NO'"
            ),
            {"table": table},
        ).all()
        values = {"numeric": "'12.345678901234567891'", "timestamp with time zone": ":minute"}
        values |= {"integer": "7", "boolean": "true"}
        shown = ", ".join(values.get(kind, "'text-97'") for _, kind in columns)
        names = ", ".join(name for name, _ in columns)
        for minute in minutes:
            session.execute(
                text(f"INSERT INTO {table} ({names}) VALUES ({shown})"), {"minute": minute}
            )
    database.close()


def test_rows_that_older_schemas_stored_are_there_after_the_upgrade(empty: Settings) -> None:
    tables = tuple(
        table.name
        for table in tables_of("finwatcher").sorted_tables
        if table.name in PARTITIONED or table.name.endswith(("_details", "_info"))
    )
    migrate(empty, "finwatcher", "results_0001")
    for table in PARTITIONED:
        _insert_minutes(empty, table, ["2025-12-31T23:59Z", "2026-01-01T00:00Z"])
    for table in set(tables) - set(PARTITIONED):
        _insert_minutes(empty, table, ["2025-12-31T23:59Z"])
    migrate(empty, "finwatcher", "results_0002")
    for table in PARTITIONED:
        _insert_minutes(empty, table, ["2026-03-01T07:15Z"])
    before = _rows_of(empty, tables)
    migrate_all(empty)
    check_schema(empty)
    assert _rows_of(empty, tables) == before
    assert {len(before[table]) for table in PARTITIONED} == {3}
    views = ("futures_portfolio_result_1min_columns", "spot_portfolio_result_1min_columns")
    assert [len(rows) for rows in _rows_of(empty, views).values()] == [27, 27]
    database = Database(empty, "finwatcher", 1)
    with database.read() as session:
        readable = session.scalars(
            text(
                "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND "
                "relnamespace = 'public'::regnamespace AND "
                "has_table_privilege('aifap_reader', oid, 'SELECT')"
            )
        ).all()
        months = session.scalars(
            text("SELECT CAST(tableoid::regclass AS text) FROM spot_result_1min ORDER BY minute")
        ).all()
        due = session.execute(
            text("SELECT CAST(day AS text), market FROM result_days_due ORDER BY 1, 2")
        ).all()
    database.close()
    shown = {table.name for table in tables_of("finwatcher").sorted_tables} - set(NOT_READABLE)
    assert shown | set(views) <= set(readable)
    assert months == [f"spot_result_1min_y{month}" for month in ("2025m12", "2026m01", "2026m03")]
    # the row of 00:00 belongs to the day before; the session's two markets are one mark
    assert [day for day, _ in due] == ["2025-12-31", "2026-03-01"]
