"""How an installation stands, counted by Postgres: sessions, cycles, alerts, minutes.

    /metrics ─► InstallationNumbers ─► finplatform, finwatcher

Every answer follows from the tables alone, so each worker of the API gives the same. Counters count
since the running hour of world time began (timings: the running ten minutes) until SETTLED ago, and
start again: what is read stays small, and Prometheus takes the fall for a restart. It sees the fall
because a count stands at zero for SETTLED; what ends in the last SETTLED of a stretch is not
counted. Nothing names a session, an account or a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, text

from module.db.database import Database

CYCLE_BOUNDS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LATELY: Final = timedelta(minutes=15)
BEHIND_AFTER: Final = timedelta(minutes=3)
LIVING_MAX: Final = 20_000
SETTLED: Final = timedelta(seconds=30)
TIMED_MINUTES: Final = 10


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of cycles: how many were at most each of CYCLE_BOUNDS_S (not cumulative, the last:
    above all), and their sum."""

    counts: tuple[int, ...]
    total_s: float


@dataclass(frozen=True, slots=True)
class PlatformNumbers:
    """What `finplatform` knows. `running`: living sessions that trade, with their start."""

    sessions: Mapping[tuple[str, ...], int]
    failed_lately: int
    restarts: int
    heartbeat_age_s: float
    cycles: Mapping[str, int]
    own: Timings
    first_order: Timings
    last_order: Timings
    accounts: Mapping[tuple[str, ...], int]
    halted_accounts: int
    alerts: Mapping[tuple[str, ...], int]
    alert_age_s: float
    bare_positions: int
    running: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class MinuteNumbers:
    """What `finwatcher` knows of sessions that run. `behind`: without a minute for three."""

    behind: int
    oldest_s: float
    gaps: Mapping[str, int]


class InstallationNumbers:
    """Reads them; each call is a few statements. Unavailable while that database is away."""

    def __init__(self, finplatform: Database, finwatcher: Database) -> None:
        self._finplatform = finplatform
        self._finwatcher = finwatcher

    def platform(self, now: datetime, wall: datetime) -> PlatformNumbers:
        """At world time `now`, real time `wall`."""
        hour, until = now.replace(minute=0, second=0, microsecond=0), now - SETTLED
        timed = hour.replace(minute=now.minute - now.minute % TIMED_MINUTES)
        values = {"since": timed, "until": until, "bounds": list(CYCLE_BOUNDS_S)}
        with self._finplatform.read() as session:

            def rows(statement: str, **more: object) -> Sequence[Row[Any]]:
                return session.execute(text(statement), more).all()

            living = rows(_LIVING, rows_max=LIVING_MAX)
            (ended,) = rows(_ENDED, since=now - LATELY)
            outcomes = rows(_OUTCOMES, since=hour, until=until)
            timings = _timings(rows(_TIMINGS, **values))
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
            cycles={row.state: row.number for row in outcomes},
            own=timings["own"],
            first_order=timings["first"],
            last_order=timings["last"],
            accounts={(row.market, row.trade_env): row.number for row in accounts},
            halted_accounts=sum(row.halted for row in accounts),
            alerts={(row.channel, row.state): row.number for row in alerts},
            alert_age_s=_age_s(wall, oldest_alert),
            bare_positions=bare,
            running={row.session_id: row.started_at for row in running},
        )

    def minutes(self, running: Mapping[str, datetime], now: datetime) -> MinuteNumbers:
        """Of the sessions that run, with their starts."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        with self._finwatcher.read() as session:
            known = session.execute(text(_WATCHED), {"ids": list(running)}).all()
            gaps = session.execute(text(_GAPS), {"since": hour, "until": now - SETTLED}).all()
        last = {**running, **{row.session_id: row.minute for row in known}}
        ages = [now - max(last[name], started) for name, started in running.items()]
        return MinuteNumbers(
            behind=sum(age > BEHIND_AFTER for age in ages),
            oldest_s=max((age.total_seconds() for age in ages), default=0.0),
            gaps={row.cause: row.number for row in gaps},
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
_OUTCOMES = """
SELECT state, count(*) AS number FROM cycles
WHERE ended_at >= :since AND ended_at < :until GROUP BY state
"""
_TIMINGS = """
WITH ended AS MATERIALIZED (
    SELECT session_id, boundary, ended_at, own_ms FROM cycles
    WHERE ended_at >= :since AND ended_at < :until
), found AS (
    SELECT ended.own_ms / 1000 AS own,
           extract(epoch FROM sent.first_at - ended.boundary) AS first,
           extract(epoch FROM sent.last_at - ended.boundary) AS last
    FROM ended CROSS JOIN LATERAL (
        SELECT min(sent_at) AS first_at, max(sent_at) AS last_at FROM gateway_writes AS w
        WHERE w.session_id = ended.session_id AND w.kind = 'order'
          AND w.sent_at BETWEEN ended.boundary AND ended.ended_at
    ) AS sent
)
SELECT what, width_bucket(seconds::float8, CAST(:bounds AS float8[])) AS bucket,
       count(*) AS number, sum(seconds) AS total_s
FROM found CROSS JOIN LATERAL (
    VALUES ('own', own::numeric), ('first', first), ('last', last)
) AS each(what, seconds)
WHERE seconds IS NOT NULL GROUP BY 1, 2
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
_GAPS = """
SELECT cause, count(*) AS number FROM result_gaps_1min
WHERE minute >= :since AND minute < :until GROUP BY cause
"""


def _timings(rows: Sequence[Row[Any]]) -> dict[str, Timings]:
    found = {}
    for what in ("own", "first", "last"):
        counts, total_s = [0] * (len(CYCLE_BOUNDS_S) + 1), 0.0
        for row in rows:
            if row.what == what:
                counts[row.bucket] += row.number
                total_s += float(row.total_s)
        found[what] = Timings(tuple(counts), total_s)
    return found


def _age_s(now: datetime, then: datetime | None) -> float:
    return 0.0 if then is None else max(0.0, (now - then).total_seconds())
