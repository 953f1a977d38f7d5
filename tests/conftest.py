"""Fixtures for all tests: a real Postgres per test process, fresh databases per test module."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from module.db.database import DATABASE_NAMES
from module.db.embedded import EmbeddedPostgres
from module.settings import Settings

# No settings of the person who runs the tests.
for _name in [name for name in os.environ if name.startswith("AIFAP_")]:
    del os.environ[_name]
os.environ["AIFAP_DATA_DIR"] = "/nonexistent/aifap-tests"

# Whole installations first: with several workers the small tests fill up the end.
LONGEST_FIRST = ("e2e", "simulation", "integration", "security", "contract", "unit")
LAST_ON_ITS_INSTALLATION = "test_kills.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the folders of tests by what they cost; within one the order stays.

    Takes effect on several workers with `--no-loadscope-reorder` (`make test`). Where tests share
    an installation, those that kill its processes come last.
    """
    root = Path(__file__).parent

    def place(item: pytest.Item) -> tuple[int, bool]:
        folder = item.path.relative_to(root).parts[0]
        rank = LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)
        return rank, item.path.name == LAST_ON_ITS_INSTALLATION

    items.sort(key=place)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """The one embedded server of this test process; ends with it, leaves nothing behind.

    `module.db` migrations have been applied to the templates that `postgres` copies.
    """
    from module.db.migrate import migrate_all

    folder = Path(tempfile.mkdtemp(prefix="aifap-pg-"))
    settings = Settings(data_dir=folder)
    server = EmbeddedPostgres(settings)
    try:
        server.start(ends_with_parent=True)
        migrate_all(settings)
        connection = server.superuser_connection()
        with connection.cursor() as cursor:
            for name in DATABASE_NAMES:
                cursor.execute(f"ALTER DATABASE {name} RENAME TO template_{name}")
        connection.close()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgres(postgres_server: EmbeddedPostgres) -> Settings:
    """Settings that lead to three migrated, empty databases of this test module's own.

    `settings.data_dir` is the server's folder; derive other settings with `model_copy`, keeping
    `data_dir` (the password lives there).
    """
    connection = postgres_server.superuser_connection()
    with connection.cursor() as cursor:
        for name in DATABASE_NAMES:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(
                f"CREATE DATABASE {name} TEMPLATE template_{name} OWNER aifap STRATEGY file_copy"
            )
    connection.close()
    return Settings(data_dir=postgres_server.folder.parent)
