"""A results store on a real Postgres, and the log as the product writes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from module.db.database import Database
from module.db.repositories.results import ResultsRepository
from module.db.results_tables import ResultsBase
from module.logs import configure_logs
from module.settings import Settings

configure_logs("tests")


@pytest.fixture
def database(postgres: Settings) -> Iterator[Database]:
    """The `finwatcher` database, empty."""
    made = Database(postgres, "finwatcher", 4)
    tables = ", ".join(
        table.name for table in ResultsBase.metadata.sorted_tables if table.name != "result_columns"
    )
    with made.transaction() as session:
        session.execute(text(f"TRUNCATE {tables}"))
    yield made
    made.close()


@pytest.fixture
def store(database: Database) -> ResultsRepository:
    return ResultsRepository(database)
