"""A results store on a real Postgres, and the log as the product writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from sqlalchemy import text

from module.db.database import Database
from module.db.repositories.results import ResultsRepository
from module.db.results_tables import ResultsBase
from module.logs import configure_logs
from module.model.results import HistoryRows, MinuteRows, StoredMinute
from module.settings import Settings

configure_logs("tests")
BESIDE = "2603030917-beef"


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


class InBulk(ResultsRepository):
    """Each write goes through the bulk path, beside a session that nobody asks for."""

    def store_minute(
        self, rows: MinuteRows, state: Mapping[str, object] | None = None
    ) -> StoredMinute:
        beside = replace(rows, session_id=BESIDE, symbols=())
        return self.store_minutes([(rows, state), (beside, None)])[0]

    def store_history(self, rows: HistoryRows) -> int:
        stored = self.store_histories([rows, replace(rows, session_id=BESIDE)])[0]
        assert stored.refused is None
        return stored.new


@pytest.fixture(params=[ResultsRepository, InBulk])
def store(request: pytest.FixtureRequest, database: Database) -> ResultsRepository:
    """Both ways to write promise the same: every case runs through both."""
    made: ResultsRepository = request.param(database)
    return made
