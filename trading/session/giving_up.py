"""A session whose leader cannot live: the host tells its owner and marks it as failed.

    session host ── too many starts ─► owner is told ─► the session's row: failed

Told first: whoever finds the row failed does not look at the session again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from module.alerts import messages
from module.model.sessions import SessionSpec, SessionState
from module.ports import AlertSink


class GivenUp(Protocol):
    """What is read of a session's row."""

    @property
    def spec(self) -> SessionSpec:
        """As it was started."""
        ...

    @property
    def owner_id(self) -> str:
        """Who is told."""
        ...


class SessionRows(Protocol):
    """The rows of sessions; every call raises Unavailable while Postgres is away."""

    def get(self, session_id: str) -> GivenUp:
        """The row; NotFound if there is none."""
        ...

    def set_state(
        self, session_id: str, state: SessionState, at: datetime, *, reason: str = ""
    ) -> object:
        """Write the state down."""
        ...


def give_up(
    rows: SessionRows,
    name_of: Callable[[str], str],
    alerts: AlertSink,
    session_id: str,
    reason: str,
    at: datetime,
) -> None:
    """Tell the owner, whose name `name_of` knows by their id, and mark the session failed.

    Unavailable: to be done again later.
    """
    record = rows.get(session_id)
    user = name_of(record.owner_id)
    subject = messages.Subject(session_id, record.owner_id, user, record.spec.market)
    alerts.notify(messages.session_given_up(subject, reason, at))
    rows.set_state(session_id, SessionState.FAILED, at, reason=reason)
