"""SQL that several boards share, over the tables of `module.db.results_tables` and the sessions'.

Grafana replaces `${session:sqlstring}` and the `$__` macros before Postgres sees a query; a macro's
arguments must not hold parentheses. A session is of one market, so each query asks both markets'
tables and gets rows from one. Money is cast to double precision: it is only looked at here.

Each query of minutes names its sessions and its time range: the key of the minute tables is
(session_id, minute), and of a partitioned table only the months of the range are read. Where a
point is wider than `MINUTES_UP_TO_MS`, the tables of days are read instead: a year is 365 rows.
"""

# ruff: noqa: S608 - what is put into a query stands in this file; values come in quoted by Grafana
from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MARKETS: Final = ("futures", "spot")
SESSION: Final = "session_id = ${session:sqlstring}"
SESSIONS_CHOSEN: Final = "session_id IN (${session:sqlstring})"
LINES_MAX: Final = 20
SESSIONS_DRAWN: Final = f"session_id = ANY ((ARRAY[${{session:sqlstring}}]::text[])[1:{LINES_MAX}])"
"""Of the chosen sessions the first: more lines than that nobody tells apart."""
WANTED: Final = "unnest(ARRAY[${session:sqlstring}]::text[]) AS wanted(session_id)"
MINUTES_UP_TO_MS: Final = 7_200_000
MINUTE_STEP_S: Final = "greatest($__interval_ms / 1000, 60)::bigint"
STEP_S: Final = (
    f"(CASE WHEN $__interval_ms >= {MINUTES_UP_TO_MS} THEN 86400 ELSE {MINUTE_STEP_S} END)"
)
"""How many seconds one point of a curve stands for: a minute at least, a day on long ranges."""

OWNERS: Final = """
SELECT user_id AS "__value", name AS "__text"
FROM user_details
WHERE user_id IN (SELECT owner_id FROM active_sessions)
ORDER BY name
""".strip()

SESSIONS_OF_OWNERS: Final = """
SELECT s.session_id AS "__value", s.session_id || ' · ' || a.label || ' · ' || s.state AS "__text"
FROM active_sessions AS s JOIN accounts AS a USING (account_id)
WHERE s.owner_id IN (${owner:sqlstring})
  AND s.started_at <= $__timeTo()
  AND (s.ended_at IS NULL OR s.ended_at >= $__timeFrom())
ORDER BY s.started_at DESC, s.session_id
""".strip()

# Neighbouring minutes of one cause are one region.
GAPS: Final = f"""
SELECT min(minute) AS "time", max(minute) + interval '1 minute' AS "timeend",
       cause || ' (' || count(*) || ' min)' AS "text"
FROM (
  SELECT minute, cause,
         minute - interval '1 minute' * row_number() OVER (PARTITION BY cause ORDER BY minute)
           AS run
  FROM result_gaps_1min
  WHERE {SESSION} AND $__timeFilter(minute)
) AS missing
GROUP BY cause, run
ORDER BY 1
""".strip()


def newest_of(subject: str, columns: Mapping[str, str]) -> str:
    """One row: expressions by title at the newest minute of the time range, from
    `<market>_<subject>`."""
    asked = ", ".join(f'{expression} AS "{title}"' for title, expression in columns.items())
    shown = ", ".join(f'newest."{title}"' for title in columns)
    branches = _of_both_markets(
        "(SELECT minute, {asked} FROM {market}_{subject}\n"
        "   WHERE {session} AND $__timeFilter(minute) ORDER BY minute DESC LIMIT 1)",
        asked=asked,
        subject=subject,
        session=SESSION,
    )
    return f"SELECT {shown}\nFROM (\n  {branches}\n) AS newest\nORDER BY minute DESC LIMIT 1"


def newest_of_each(
    subject: str, columns: Mapping[str, str], order: str = "1", *, minute: bool = True
) -> str:
    """A row for each chosen session: its id, the `minute`, expressions by title, at its newest
    minute of the time range. A session without rows in the range has none.

    Without the minute where the answer is joined to one that has it: two columns must not have one
    name."""
    asked = ", ".join(f'{expression} AS "{title}"' for title, expression in columns.items())
    shown = ",\n       ".join(f'newest."{title}"' for title in columns)
    when = ' newest.minute AS "Minute",' if minute else ""
    return (
        f'SELECT wanted.session_id AS "Session",{when}\n       {shown}\n'
        f"FROM {WANTED}\n{_newest_minute(subject, asked)}\nORDER BY {order}"
    )


def total_of_newest(subject: str, sums: Mapping[str, str], columns: tuple[str, ...]) -> str:
    """One row: aggregates by title over the newest rows of the chosen sessions."""
    shown = ", ".join(f'{aggregate} AS "{title}"' for title, aggregate in sums.items())
    return f"SELECT {shown}\nFROM {WANTED}\n{_newest_minute(subject, ', '.join(columns))}"


def _newest_minute(subject: str, asked: str) -> str:
    branches = _of_both_markets(
        "(SELECT r.minute, {asked} FROM {market}_{subject} AS r\n"
        "   WHERE r.session_id = wanted.session_id AND $__timeFilter(r.minute)\n"
        "   ORDER BY r.minute DESC LIMIT 1)",
        asked=asked,
        subject=subject,
    )
    return f"CROSS JOIN LATERAL (\n  {branches}\n  ORDER BY minute DESC LIMIT 1\n) AS newest"


def told(
    subject: str,
    columns: str,
    sessions: str = SESSION,
    during: str = "$__timeFilter(minute)",
    until: str = "$__timeTo()::timestamptz",
) -> str:
    """Rows of the sessions `during` a time: `session_id`, `minute`, `columns`, and `slot`, the
    point (seconds since 1970) that a row belongs to.

    Rows of minutes, or on long ranges of days: those are kept once a day is over, so the minutes of
    the last two days are read too. The row of 00:00 belongs to the day before it.
    """
    days = subject.replace("_1min_1day", "_1day").replace("_1min", "_1day")
    return _of_both_markets(
        "SELECT session_id, minute, {columns},\n"
        "    floor(extract(epoch FROM minute) / {step})::bigint * {step} AS slot\n"
        "  FROM {market}_{subject}\n"
        "  WHERE {sessions} AND {during} AND $__interval_ms < {limit}\n"
        "  UNION ALL\n"
        "  SELECT session_id, minute, {columns},\n"
        "    extract(epoch FROM day::timestamp)::bigint AS slot\n"
        "  FROM {market}_{days}\n"
        "  WHERE {sessions} AND {during} AND $__interval_ms >= {limit}\n"
        "  UNION ALL\n"
        "  SELECT session_id, minute, {columns},\n"
        "    ceil(extract(epoch FROM minute) / 86400 - 1)::bigint * 86400 AS slot\n"
        "  FROM {market}_{subject}\n"
        "  WHERE {sessions} AND {during} AND minute > {until} - interval '48 hours'\n"
        "    AND $__interval_ms >= {limit}",
        columns=columns,
        subject=subject,
        days=days,
        sessions=sessions,
        during=during,
        until=until,
        step=MINUTE_STEP_S,
        limit=MINUTES_UP_TO_MS,
    )


def curve(subject: str, columns: Mapping[str, str]) -> str:
    """One session over time: columns by title, the last row of each point; where a point has no
    row there is one of nulls, so that a hole stays a hole."""
    names = ", ".join(columns.values())
    shown = ",\n       ".join(
        f'points.{name}::double precision AS "{title}"' for title, name in columns.items()
    )
    return (
        f"WITH told AS (\n  {told(subject, names)}\n), points AS (\n"
        f"  SELECT DISTINCT ON (slot) slot, {names}\n"
        "  FROM told ORDER BY slot, minute DESC\n"
        ")\n"
        f'SELECT to_timestamp(slot) AS "time",\n       {shown}\n'
        "FROM generate_series((SELECT min(slot) FROM points), (SELECT max(slot) FROM points),\n"
        f"                     {STEP_S}) AS slots(slot)\n"
        "LEFT JOIN points USING (slot)\nORDER BY 1"
    )


def curves(
    rows: str,
    column: str,
    value: str,
    *,
    at: str = "to_timestamp(slot)",
    name: str = "session_id",
) -> str:
    """Several sessions over time, a line each: `value` of `column` at the last of the `rows` (see
    `told`) of each point. In `value` and `at`, `own` is the window of a session's points."""
    return (
        f"WITH told AS (\n  {rows}\n), points AS (\n"
        f"  SELECT DISTINCT ON (session_id, slot) session_id, slot, {column}\n"
        "  FROM told ORDER BY session_id, slot, minute DESC\n"
        ")\n"
        f'SELECT {at} AS "time", {name} AS "metric",\n'
        f'       ({value})::double precision AS "value"\n'
        "FROM points\n"
        "WINDOW own AS (PARTITION BY session_id ORDER BY slot)\n"
        "ORDER BY 1, 2"
    )


def symbols_over_time(value: str, columns: str, condition: str = "true") -> str:
    """Each symbol of a session over time, a line each: `value` at the last row of each point."""
    branches = _of_both_markets(
        "SELECT minute, symbol, {columns} FROM {market}_result_1min\n"
        "  WHERE {session} AND $__timeFilter(minute) AND ({condition})",
        columns=columns,
        session=SESSION,
        condition=condition,
    )
    return (
        'SELECT slot AS "time", symbol AS "metric",'
        f' ({value})::double precision AS "value"\n'
        "FROM (\n"
        "  SELECT DISTINCT ON (slot, symbol) slot, symbol, " + columns + "\n"
        f"  FROM (SELECT told.*, $__timeGroup(minute, $__interval) AS slot FROM (\n"
        f"    {branches}\n"
        "  ) AS told) AS grouped\n"
        "  ORDER BY slot, symbol, minute DESC\n"
        ") AS points\n"
        "ORDER BY 1, 2"
    )


def symbols_now(columns: Mapping[str, str], condition: str, order: str) -> str:
    """A row for each symbol at the session's newest minute: expressions by title.

    The newest minute is the portfolio's: a flat account has no rows of symbols, and its last
    positions must not be shown for ever.
    """
    shown = ",\n       ".join(f'{expression} AS "{title}"' for title, expression in columns.items())
    branches = _of_both_markets(
        "SELECT * FROM {market}_result_1min\n"
        "  WHERE {session} AND ({condition}) AND minute = (\n"
        "    SELECT max(minute) FROM {market}_portfolio_result_1min\n"
        "    WHERE {session} AND $__timeFilter(minute))",
        session=SESSION,
        condition=condition,
    )
    return f"SELECT {shown}\nFROM (\n  {branches}\n) AS held\nORDER BY {order}"


def _of_both_markets(template: str, **words: object) -> str:
    return "\n  UNION ALL\n  ".join(template.format(market=market, **words) for market in MARKETS)
