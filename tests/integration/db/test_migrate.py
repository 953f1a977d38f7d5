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
from module.db.migrate import check_schema, migrate_all, schema_states, tables_of
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
        context = MigrationContext.configure(connection, opts={"compare_type": True})
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
