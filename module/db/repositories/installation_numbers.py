"""How an installation stands, counted by Postgres: sessions, cycles, alerts, minutes.

    /metrics ─► InstallationNumbers ─► finplatform, finwatcher

Every answer follows from the tables alone and says how it stands now, so each worker of the API
gives the same; what is counted over time: `installation_counts.py`. Nothing names a session, an
account or a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, text

from module.db.database import Database

LATELY: Final = timedelta(minutes=15)
BEHIND_AFTER: Final = timedelta(minutes=3)
LIVING_MAX: Final = 20_000
LATE_MAX: Final = timedelta(hours=6)
"""Rows of a session that is over may come so late and are still counted."""


@dataclass(frozen=True, slots=True)
class PlatformNumbers:
    """What `finplatform` knows. `running`: living sessions that trade, with their start;
    `watched`: those that have, or lately had, minutes to be measured."""

    sessions: Mapping[tuple[str, ...], int]
    failed_lately: int
    restarts: int
    heartbeat_age_s: float
    accounts: Mapping[tuple[str, ...], int]
    halted_accounts: int
    alerts: Mapping[tuple[str, ...], int]
    alert_age_s: float
    bare_positions: int
    running: Mapping[str, datetime]
    watched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MinuteNumbers:
    """What `finwatcher` knows of sessions that run. `behind`: without a minute for three."""

    behind: int
    oldest_s: float


class InstallationNumbers:
    """Reads them; each call is a few statements. Unavailable while that database is away."""

    def __init__(self, finplatform: Database, finwatcher: Database) -> None:
        self._finplatform = finplatform
        self._finwatcher = finwatcher

    def platform(self, now: datetime, wall: datetime) -> PlatformNumbers:
        """At world time `now`, real time `wall`."""
        with self._finplatform.read() as session:

            def rows(statement: str, **more: object) -> Sequence[Row[Any]]:
                return session.execute(text(statement), more).all()

            living = rows(_LIVING, rows_max=LIVING_MAX)
            (ended,) = rows(_ENDED, since=now - LATELY)
            late = rows(_LATE, since=now - LATE_MAX, rows_max=LIVING_MAX)
            accounts = rows(_ACCOUNTS)
            alerts = rows(_ALERTS)
            oldest_alert = rows(_OLDEST_ALERT)[0][0]
            bare = rows(_BARE)[0][0]
        sessions: dict[tuple[str, ...], int] = {}
        for row in living:
            key = (row.state, row.market, row.trade_env)
            sessions[key] = sessions.get(key, 0) + 1
        running = [row for row in living if row.state == "running"]
        beats = [row.heartbeat_wall for row in running if row.heartbeat_wall is not None]
        return PlatformNumbers(
            sessions=sessions,
            failed_lately=ended.failed,
            restarts=sum(row.restarts for row in living) + (ended.restarts or 0),
            heartbeat_age_s=_age_s(wall, min(beats, default=None)),
            accounts={(row.market, row.trade_env): row.number for row in accounts},
            halted_accounts=sum(row.halted for row in accounts),
            alerts={(row.channel, row.state): row.number for row in alerts},
            alert_age_s=_age_s(wall, oldest_alert),
            bare_positions=bare,
            running={row.session_id: row.started_at for row in running},
            watched=tuple(row.session_id for row in [*living, *late]),
        )

    def minutes(self, running: Mapping[str, datetime], now: datetime) -> MinuteNumbers:
        """Of the sessions that run, with their starts."""
        with self._finwatcher.read() as session:
            known = session.execute(text(_WATCHED), {"ids": list(running)}).all()
        last = {**running, **{row.session_id: row.minute for row in known}}
        ages = [now - max(last[name], started) for name, started in running.items()]
        return MinuteNumbers(
            behind=sum(age > BEHIND_AFTER for age in ages),
            oldest_s=max((age.total_seconds() for age in ages), default=0.0),
        )


_LIVING = """
SELECT s.session_id, s.state, s.started_at, s.heartbeat_wall, s.restarts, a.market, a.trade_env
FROM active_sessions AS s JOIN accounts AS a USING (account_id)
WHERE s.state NOT IN ('ended', 'failed') LIMIT :rows_max
"""
_ENDED = """
SELECT count(*) FILTER (WHERE state = 'failed') AS failed, sum(restarts) AS restarts
FROM active_sessions WHERE state IN ('ended', 'failed') AND ended_at >= :since
"""
_LATE = """
SELECT session_id FROM active_sessions
WHERE state IN ('ended', 'failed') AND ended_at >= :since LIMIT :rows_max
"""
_ACCOUNTS = """
SELECT market, trade_env, count(*) AS number,
       count(*) FILTER (WHERE limits ->> 'kill_switch' = 'true') AS halted
FROM accounts WHERE active GROUP BY 1, 2
"""
_ALERTS = """
SELECT channel, state, count(*) AS number FROM alert_deliveries
WHERE state IN ('pending', 'sending', 'dead') GROUP BY 1, 2
"""
_OLDEST_ALERT = """
SELECT min(o.created_wall) FROM alert_deliveries AS d JOIN alert_outbox AS o USING (alert_id)
WHERE d.state IN ('pending', 'sending')
"""
_BARE = "SELECT count(*) FROM unprotected_periods WHERE ended_at IS NULL"
_WATCHED = "SELECT session_id, minute FROM finwatcher_state WHERE session_id = ANY(:ids)"


def _age_s(now: datetime, then: datetime | None) -> float:
    return 0.0 if then is None else max(0.0, (now - then).total_seconds())
