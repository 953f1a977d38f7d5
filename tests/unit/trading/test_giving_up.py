"""A session whose leader cannot live: its owner is told before its row says that it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from module.model.errors import Unavailable
from module.model.sessions import SessionSpec, SessionState
from module.ports import Alert
from tests.unit.trading.leading import make_spec
from trading.session.giving_up import give_up

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SESSION = "2611211130-ab3x"


@dataclass
class Row:
    spec: SessionSpec = field(default_factory=make_spec)
    owner_id: str = "owner"


@dataclass
class Happened:
    """The rows and the alerts, and in which order things happened."""

    away: bool = False
    events: list[object] = field(default_factory=list)

    def get(self, session_id: str) -> Row:
        if self.away:
            raise Unavailable("finplatform does not answer")
        return Row()

    def set_state(
        self, session_id: str, state: SessionState, at: datetime, *, reason: str = ""
    ) -> object:
        self.events.append((session_id, state, reason))
        return None

    def notify(self, alert: Alert) -> None:
        self.events.append(alert)


def test_D17_the_owner_is_told_and_then_the_row_says_that_it_is_over() -> None:
    happened = Happened()
    why = "its leader ended 6 times within ten minutes"
    give_up(happened, {"owner": "Ada"}.__getitem__, happened, SESSION, why, NOON)
    alert, state = happened.events
    assert isinstance(alert, Alert)
    assert (alert.severity, alert.session_id, alert.owner_id) == ("critical", SESSION, "owner")
    assert why in dict(alert.lines).values()
    assert dict(alert.lines)["User"] == "Ada"
    assert state == (SESSION, SessionState.FAILED, why)


def test_D17_without_postgres_nothing_is_told_twice_it_is_done_later() -> None:
    happened = Happened(away=True)
    with pytest.raises(Unavailable):
        give_up(happened, {"owner": "Ada"}.__getitem__, happened, SESSION, "why", NOON)
    assert happened.events == []
