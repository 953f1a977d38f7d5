"""What happened in an installation within some time, counted by Postgres in slices of it.

    /metrics ─► running totals ─► InstallationCounts ─► finplatform, finwatcher

Each question is bounded by the time it is about, and served by an index. Nothing names a session,
an account or a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from module.db.database import Database

SLICE_S: Final = 10
CYCLE_BOUNDS_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class SliceCount:
    """Rows of one key in the slice that begins at `slice_s` (epoch seconds); the sum of what they
    bear, if anything."""

    slice_s: int
    key: str
    number: int
    total: float


class InstallationCounts:
    """Counts of [since, until); each call is one statement. Unavailable while the database is
    away."""

    def __init__(self, finplatform: Database, finwatcher: Database) -> None:
        self._finplatform = finplatform
        self._finwatcher = finwatcher

    def cycles(self, since: datetime, until: datetime) -> list[SliceCount]:
        """Cycles that ended; key: how (done, skipped, dropped)."""
        return _ask(self._finplatform, _OUTCOMES, since, until)

    def timings(self, since: datetime, until: datetime) -> list[SliceCount]:
        """Seconds of cycles that ended; key: own, first or last, a colon, and the place among
        CYCLE_BOUNDS_S of the first that is not less (their number: above all)."""
        return _ask(self._finplatform, _TIMINGS, since, until, bounds=list(CYCLE_BOUNDS_S))

    def gaps(self, sessions: Sequence[str], since: datetime, until: datetime) -> list[SliceCount]:
        """Minutes of these sessions that could not be measured; key: the cause."""
        return _ask(self._finwatcher, _GAPS, since, until, ids=list(sessions))

    def minutes(
        self, sessions: Sequence[str], since: datetime, until: datetime
    ) -> list[SliceCount]:
        """Measured minutes of these sessions; key: the market."""
        return _ask(self._finwatcher, _MINUTES, since, until, ids=list(sessions))


def _ask(
    database: Database, statement: str, since: datetime, until: datetime, **more: object
) -> list[SliceCount]:
    values = {"since": since, "until": until, "slice": SLICE_S, **more}
    with database.read() as session:
        rows = session.execute(text(statement), values).all()
    return [SliceCount(row.slice_s, row.key, row.number, float(row.total)) for row in rows]


_OUTCOMES = """
SELECT CAST(floor(extract(epoch FROM ended_at) / :slice) * :slice AS bigint) AS slice_s,
       state AS key, count(*) AS number, 0 AS total
FROM cycles WHERE ended_at >= :since AND ended_at < :until GROUP BY 1, 2
"""
_TIMINGS = """
WITH ended AS MATERIALIZED (
    SELECT session_id, boundary, ended_at, own_ms FROM cycles
    WHERE ended_at >= :since AND ended_at < :until
), found AS (
    SELECT CAST(floor(extract(epoch FROM ended_at) / :slice) * :slice AS bigint) AS slice_s,
           ended.own_ms / 1000 AS own,
           extract(epoch FROM sent.first_at - ended.boundary) AS first,
           extract(epoch FROM sent.last_at - ended.boundary) AS last
    FROM ended CROSS JOIN LATERAL (
        SELECT min(sent_at) AS first_at, max(sent_at) AS last_at FROM gateway_writes AS w
        WHERE w.session_id = ended.session_id AND w.kind = 'order'
          AND w.sent_at BETWEEN ended.boundary AND ended.ended_at
    ) AS sent
)
SELECT slice_s,
       what || ':' || width_bucket(seconds::float8, CAST(:bounds AS float8[])) AS key,
       count(*) AS number, sum(seconds) AS total
FROM found CROSS JOIN LATERAL (
    VALUES ('own', own::numeric), ('first', first), ('last', last)
) AS each(what, seconds)
WHERE seconds IS NOT NULL GROUP BY 1, 2
"""
_GAPS = """
SELECT CAST(floor(extract(epoch FROM minute) / :slice) * :slice AS bigint) AS slice_s,
       cause AS key, count(*) AS number, 0 AS total
FROM result_gaps_1min
WHERE session_id = ANY(:ids) AND minute >= :since AND minute < :until GROUP BY 1, 2
"""
_MINUTES = """
SELECT CAST(floor(extract(epoch FROM minute) / :slice) * :slice AS bigint) AS slice_s,
       market AS key, count(*) AS number, 0 AS total
FROM (
    SELECT 'futures' AS market, minute FROM futures_portfolio_result_1min
    WHERE session_id = ANY(:ids) AND minute >= :since AND minute < :until
    UNION ALL
    SELECT 'spot', minute FROM spot_portfolio_result_1min
    WHERE session_id = ANY(:ids) AND minute >= :since AND minute < :until
) AS measured GROUP BY 1, 2
"""
