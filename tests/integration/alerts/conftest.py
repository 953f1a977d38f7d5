"""Two webhooks on 127.0.0.1, the outbox tables in a real Postgres, and a clock moved by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from module.db.database import Database
from module.db.repositories.alerts import AlertRepository
from module.logs import configure_logs
from module.settings import Settings
from tests.fakes.watched_account import WatchClock
from tests.fakes.webhook_server import WebhookServer

configure_logs("tests")


@pytest.fixture
def slack() -> Iterator[WebhookServer]:
    server = WebhookServer()
    yield server
    server.close()


@pytest.fixture
def discord() -> Iterator[WebhookServer]:
    server = WebhookServer()
    yield server
    server.close()


@pytest.fixture
def platform(postgres: Settings) -> Iterator[Database]:
    """The `finplatform` database without alerts."""
    made = Database(postgres, "finplatform", 4)
    with made.transaction() as session:
        session.execute(text("TRUNCATE alert_deliveries, alert_outbox"))
    yield made
    made.close()


@pytest.fixture
def alerts(platform: Database) -> AlertRepository:
    return AlertRepository(platform)


@pytest.fixture
def clock() -> WatchClock:
    return WatchClock(datetime(2026, 3, 3, 9, 17, 41, tzinfo=UTC))
