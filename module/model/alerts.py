"""Alerts on their way: what a dispatcher takes from the outbox, and how much waits there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from module.ports import Alert


@dataclass(frozen=True, slots=True)
class ClaimedAlert:
    """One alert to be sent now; `stands_for` are the ids it covers, its own among them."""

    alert_id: int
    alert: Alert
    attempts: int
    stands_for: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many alerts of the cause this message stands for."""
        return len(self.stands_for)


@dataclass(frozen=True, slots=True)
class AlertBacklog:
    """What has not reached anybody; `oldest_wall` is when the oldest pending one was made."""

    pending: int
    oldest_wall: datetime | None
    undelivered: int
