"""Three lived sessions in a Postgres of this folder's own, and Grafana's role on it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.results_rollups import roll_up
from module.settings import Settings
from tests.integration.dashboards.asked import Reader, reader_of
from tests.integration.dashboards.lived_sessions import Lived, live_and_store

LONG_AFTER = date(2026, 4, 1)


@pytest.fixture(scope="module")
def lived(postgres: Settings) -> Lived:
    """What three sessions wrote, their days rolled up."""
    found = live_and_store(postgres)
    finwatcher = Database(postgres, "finwatcher", 1)
    try:
        roll_up(finwatcher, LONG_AFTER)
    finally:
        finwatcher.close()
    return found


@pytest.fixture(scope="module")
def reader(postgres: Settings, postgres_server: EmbeddedPostgres) -> Iterator[Reader]:
    """The read-only role, connected as Grafana is; one for all tests of a file, which leave its
    settings as they are."""
    assert postgres
    with reader_of(postgres_server) as found:
        yield found
