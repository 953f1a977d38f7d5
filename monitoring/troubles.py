"""What goes wrong in a finwatcher minute: a part that fails is said by name, and the others go on.

    monitoring.minute ── guard(part) ─► its result, or an alert ─► AlertSink

The same cause is told again only after a quarter of an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from module.alerts import messages
from module.logs import get_logger
from module.model.errors import AifapError, Unavailable
from module.model.results import GapRow, WatchedSession
from module.ports import AlertSink, Clock

ALERT_AGAIN_AFTER = timedelta(minutes=15)
T = TypeVar("T")
_log = get_logger("monitoring.finwatcher")


class Troubles:
    """`failed` are the parts that failed in this step; alerts wait until `session` is known."""

    def __init__(self, alerts: AlertSink, clock: Clock) -> None:
        self._alerts = alerts
        self._clock = clock
        self._alerted_at: dict[str, datetime] = {}
        self.session: WatchedSession | None = None
        self.failed: list[str] = []
        self.spooling = False

    def guard(self, name: str, work: Callable[[], T]) -> T | None:
        """The result of `work`; None when it failed, which is alerted by `name`."""
        try:
            return self.guard_unless_unavailable(name, work)
        except Unavailable as error:
            self.part_failed(name, error.message)
            return None

    def guard_unless_unavailable(self, name: str, work: Callable[[], T]) -> T | None:
        """The same, but Unavailable passes."""
        try:
            return work()
        except Unavailable:
            raise
        except AifapError as error:
            self.part_failed(name, error.message)
        except Exception as error:  # noqa: BLE001 (a part that fails is said; the others go on)
            _log.exception("part failed", part=name)
            self.part_failed(name, f"{type(error).__name__}: {error}")
        return None

    def load(self, name: str, work: Callable[[], T]) -> T | None:
        """The result of `work`; None while Postgres is away (said once) or when it failed."""
        try:
            return self.guard_unless_unavailable(name, work)
        except Unavailable as error:
            self.say_spooling(error)
            return None

    def part_failed(self, name: str, error: str) -> None:
        """Record it and, unless it has just been told, alert."""
        self.failed.append(name)
        _log.error("part failed", part=name, error=error)
        now = self._clock.now()
        if self.session is not None and self._may_alert(f"part:{name}", now):
            self._alerts.notify(messages.part_failed(_subject(self.session), name, error, now))

    def say_spooling(self, error: AifapError) -> None:
        """Rows are kept locally from now on; told once until they are stored again."""
        if self.spooling:
            return
        self.spooling = True
        if self.session is not None:
            self._alerts.notify(
                messages.metrics_kept_locally(
                    _subject(self.session), error.message, self._clock.now()
                )
            )

    def say_gap(self, rows: Sequence[GapRow], count: int) -> None:
        """`count` minutes are missing; the last of `rows` says why."""
        last = rows[-1]
        if self.session is not None and self._may_alert(f"gap:{last.cause}", last.minute):
            self._alerts.notify(
                messages.minutes_missing(
                    _subject(self.session), last.cause.value, count, last.detail, self._clock.now()
                )
            )

    def _may_alert(self, cause: str, now: datetime) -> bool:
        last = self._alerted_at.get(cause)
        if last is not None and now - last < ALERT_AGAIN_AFTER:
            return False
        self._alerted_at[cause] = now
        return True


def _subject(session: WatchedSession) -> messages.Subject:
    user = session.owner_name or session.owner_id
    return messages.Subject(session.session_id, session.owner_id, user, session.market)
