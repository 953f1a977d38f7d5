"""What the live page shows, in pieces small enough to be sent every second.

    repositories ─► LiveBoard (one per connection) ─► only what changed ─► /stream/live

A piece that did not change is not sent again, so an idle second costs some forty bytes. What ages
by itself (how long a session runs) is left to the page, which has the world's time of each event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from api.answers import json_text
from api.dependencies import Doors, own_session
from api.session_views import alert_views, latest_view, letter_view, session_views, watched_shape
from module.db.repositories.results_series import LatestMinute
from module.db.repositories.session_records import SessionRecord
from module.db.repositories.users import Role, UserRecord

OVER_SESSIONS_MAX: Final = 50
ALERTS_MAX: Final = 30
QUIET_FROM_S: Final = 30.0
QUIET_STEP_S: Final = 10
TRADER_BOARD: Final = "/d/aifap-trader/aifap-trader"
_DIGEST: Final = (
    "session_id",
    "state",
    "desired",
    "end_state",
    "reason",
    "cycle",
    "last_boundary",
    "account_id",
    "account",
    "halted",
    "trade_env",
    "tradeType",
    "strategy_name",
    "trade_mode",
    "interval_s",
    "leverage",
    "started_at",
    "ends_at",
    "ended_at",
    "restarts",
)


class LiveBoard:
    """What one connection has been told so far. `wanted`: the session whose details it shows (None:
    the newest). Not safe to share."""

    def __init__(self, wanted: str | None) -> None:
        self._wanted = wanted
        self._told: dict[str, str] = {}

    def changes(self, doors: Doors, user: UserRecord) -> dict[str, object]:
        """`now`, and what is not as it was told last.

        `who`: the person and what they may do. `order`: the ids of their sessions, as listed.
        `sessions`: digests by id (null: gone). `selected`: newest minute and letter of one session.
        `alerts`: the newest ones, whole.
        """
        records = doors.sessions.list_for_owner(user.user_id, over_max=OVER_SESSIONS_MAX)
        records.sort(key=lambda record: record.session_id, reverse=True)  # begins with its minute
        records.sort(key=lambda record: record.state.is_over)
        shown = self._shown(doors, user, records)
        listed = records if shown is None or shown in records else [shown, *records]
        changed: dict[str, object] = {"now": doors.clock.now()}
        self._note(changed, "who", who_view(doors, user))
        self._note(changed, "order", [record.session_id for record in records])
        digests = _digests(doors, listed)
        gone = {key for key in self._told if key.startswith("session ")} - {
            f"session {session_id}" for session_id in digests
        }
        sessions: dict[str, object] = {key.removeprefix("session "): None for key in gone}
        for key in gone:
            del self._told[key]
        for session_id, digest in digests.items():
            if self._is_new(f"session {session_id}", digest):
                sessions[session_id] = digest
        if sessions:
            changed["sessions"] = sessions
        self._note(changed, "selected", None if shown is None else _details(doors, shown))
        self._note(changed, "alerts", alert_views(doors.alerts.latest(user.user_id, ALERTS_MAX)))
        return changed

    def _shown(
        self, doors: Doors, user: UserRecord, records: Sequence[SessionRecord]
    ) -> SessionRecord | None:
        if self._wanted is None:
            if not records:
                return None
            self._wanted = records[0].session_id  # it stays, though a newer one may come
        for record in records:
            if record.session_id == self._wanted:
                return record
        return own_session(doors, user, self._wanted)

    def _note(self, changed: dict[str, object], part: str, value: object) -> None:
        if self._is_new(part, value):
            changed[part] = value

    def _is_new(self, part: str, value: object) -> bool:
        text = json_text(value)
        if self._told.get(part) == text:
            return False
        self._told[part] = text
        return True


def who_view(doors: Doors, user: UserRecord) -> dict[str, object]:
    """The person, what they may do here, and how the installation shows things."""
    return {
        "name": user.name,
        "role": user.role,
        "may": {"start": True, "stop": True, "halt": True, "halt_all": _is_supervisor(user)},
        "timezone": doors.settings.display_timezone,
        "installation": doors.settings.installation,
        "grafana": grafana_board(doors.settings.grafana_url),
    }


def _is_supervisor(user: UserRecord) -> bool:
    return user.role is Role.SUPERVISOR


def grafana_board(url: str) -> str | None:
    """Address of the trader's board in Grafana, without its session; None where there is none."""
    if not url:
        return None
    return url.rstrip("/") + TRADER_BOARD


def grafana_origin(url: str) -> str:
    """`https://host[:port]` of Grafana, as a Content-Security-Policy names it; "" for none."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if url else ""


def _digests(doors: Doors, records: Sequence[SessionRecord]) -> dict[str, dict[str, object]]:
    newest = doors.series.latest_of([watched_shape(record) for record in records])
    return {
        record.session_id: _digest(view, newest.get(record.session_id))
        for record, view in zip(records, session_views(doors, records), strict=True)
    }


def _digest(view: Mapping[str, object], newest: LatestMinute | None) -> dict[str, object]:
    age_s = view["heartbeat_age_s"]
    quiet_s = age_s if isinstance(age_s, float) and age_s >= QUIET_FROM_S else None
    return {
        **{name: view[name] for name in _DIGEST},
        "quiet_s": None if quiet_s is None else int(quiet_s) // QUIET_STEP_S * QUIET_STEP_S,
        "newest": None if newest is None else _value(newest),
    }


def _value(newest: LatestMinute) -> dict[str, object]:
    row = newest.portfolio
    return {
        "minute": newest.minute,
        "current_pv": row.current_pv,
        "netprofit": row.netprofit,
        "roe": row.roe,
    }


def _details(doors: Doors, record: SessionRecord) -> dict[str, object]:
    return {
        "session_id": record.session_id,
        "result": latest_view(doors.results.latest(watched_shape(record))),
        "letter": letter_view(doors, record),
    }
