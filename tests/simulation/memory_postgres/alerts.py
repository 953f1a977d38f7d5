"""Alerts on their way to people, in memory; see `module.db.repositories.alerts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from module.ports import Alert
from tests.simulation.memory_postgres.server import Connection


@dataclass(slots=True)
class AlertTables:
    """The rows by their number, with the channels that they are for."""

    alerts: dict[int, tuple[Alert, tuple[str, ...], datetime]] = field(default_factory=dict)
    next_id: int = 1


class MemoryAlerts:
    """`AlertStore`: what an outbox needs of the table. Delivery is no part of a simulated day."""

    def __init__(self, connection: Connection, tables: AlertTables) -> None:
        self._connection = connection
        self._tables = tables

    def add(self, alert: Alert, channels: Sequence[str], created_wall: datetime) -> int:
        """Store the alert; its number."""
        with self._connection.transaction() as transaction:
            number = self._tables.next_id
            self._tables.next_id += 1
            transaction.put(self._tables.alerts, number, (alert, tuple(channels), created_wall))
            return number

    def latest(self, owner_id: str | None, rows_max: int) -> list[tuple[int, Alert]]:
        """The newest alerts (of one owner), newest first."""
        self._connection.read()
        found = [
            (number, alert)
            for number, (alert, _, _) in sorted(self._tables.alerts.items(), reverse=True)
            if owner_id is None or alert.owner_id == owner_id
        ]
        return found[:rows_max]
