"""Operations: does the platform do its work, for whom not, and since when."""

# ruff: noqa: S608 - what is put into a query stands in these files; values come in quoted by Grafana
from __future__ import annotations

from typing import Final

from dashboards.grafana import queries, services
from dashboards.grafana.fleet import MANY_SESSIONS, STATES
from dashboards.grafana.panels import (
    BAD_ABOVE_ZERO,
    BLUE,
    SESSIONS,
    Board,
    Panel,
    Query,
    Row,
    bars,
    columns_in,
    lines,
    number,
    table,
)

CHOSEN: Final = queries.SESSIONS_CHOSEN
# Alerts that belong to no session are the platform's own.
ALERTS_SHOWN: Final = f"({CHOSEN} OR session_id IS NULL) AND $__timeFilter(at)"
NOT_TAKEN: Final = "(outcome IS NULL OR outcome <> 'accepted')"

CYCLES_BY_STATE: Final = f"""
SELECT $__timeGroupAlias(boundary, $__interval), state AS "metric",
       count(*)::double precision AS "value"
FROM cycles
WHERE {CHOSEN} AND $__timeFilter(boundary)
GROUP BY 1, 2
ORDER BY 1, 2
""".strip()

CYCLE_TIMES: Final = f"""
SELECT $__timeGroupAlias(boundary, $__interval),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY own_ms) AS "median",
       percentile_cont(0.99) WITHIN GROUP (ORDER BY own_ms) AS "99 of 100",
       max(own_ms) AS "slowest"
FROM cycles
WHERE {CHOSEN} AND $__timeFilter(boundary) AND own_ms IS NOT NULL
GROUP BY 1
ORDER BY 1
""".strip()

CYCLES_NOT_DONE: Final = f"""
SELECT boundary AS "Time", session_id AS "Session", number AS "Cycle", state AS "State",
       reason AS "Reason", own_ms AS "Own time"
FROM cycles
WHERE {CHOSEN} AND $__timeFilter(boundary) AND (state <> 'done' OR reason <> '')
ORDER BY boundary DESC, session_id
LIMIT 200
""".strip()

CYCLES_COUNTED: Final = f"""
SELECT count(*) FILTER (WHERE state = 'done') AS "Done",
       count(*) FILTER (WHERE state IN ('skipped', 'dropped')) AS "Skipped or dropped"
FROM cycles
WHERE {CHOSEN} AND $__timeFilter(boundary)
""".strip()

WRITES_BY_OUTCOME: Final = f"""
SELECT $__timeGroupAlias(sent_at, $__interval), coalesce(outcome, 'no answer yet') AS "metric",
       count(*)::double precision AS "value"
FROM gateway_writes
WHERE {CHOSEN} AND $__timeFilter(sent_at)
GROUP BY 1, 2
ORDER BY 1, 2
""".strip()

WRITE_TIMES: Final = f"""
SELECT $__timeGroupAlias(sent_at, $__interval),
       1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM answered_at - sent_at))
         AS "median",
       1000 * percentile_cont(0.99) WITHIN GROUP
         (ORDER BY extract(epoch FROM answered_at - sent_at)) AS "99 of 100"
FROM gateway_writes
WHERE {CHOSEN} AND $__timeFilter(sent_at) AND answered_at IS NOT NULL
GROUP BY 1
ORDER BY 1
""".strip()

WRITES_NOT_TAKEN: Final = f"""
SELECT sent_at AS "Time", session_id AS "Session", kind AS "Kind", symbol AS "Symbol",
       coalesce(outcome, 'no answer yet') AS "Outcome"
FROM gateway_writes
WHERE {CHOSEN} AND $__timeFilter(sent_at) AND {NOT_TAKEN}
ORDER BY sent_at DESC, write_id DESC
LIMIT 200
""".strip()

WRITES_COUNTED: Final = f"""
SELECT count(*) FILTER (WHERE outcome = 'rejected') AS "Refused",
       count(*) FILTER (WHERE outcome IS NULL OR outcome = 'unknown') AS "Unknown"
FROM gateway_writes
WHERE {CHOSEN} AND $__timeFilter(sent_at)
""".strip()

ALERTS_COUNTED: Final = f"""
SELECT count(*) FILTER (WHERE severity = 'critical') AS "Critical",
       count(*) FILTER (WHERE severity = 'warning') AS "Warnings"
FROM alert_outbox
WHERE {ALERTS_SHOWN}
""".strip()

ALERTS: Final = f"""
SELECT at AS "Time", severity AS "Severity", kind AS "Kind", title AS "Title",
       session_id AS "Session",
       (SELECT string_agg(d.channel || ': ' || d.state, ', ' ORDER BY d.channel)
        FROM alert_deliveries AS d WHERE d.alert_id = alert_outbox.alert_id) AS "Delivery"
FROM alert_outbox
WHERE {ALERTS_SHOWN}
ORDER BY at DESC, alert_id DESC
LIMIT 200
""".strip()

COMMANDS: Final = """
SELECT l.at_wall AS "Time", coalesce(u.name, l.user_id, 'the platform') AS "Who",
       l.action AS "Command", l.subject AS "Subject"
FROM audit_log AS l LEFT JOIN user_details AS u USING (user_id)
WHERE $__timeFilter(l.at_wall)
  AND (l.user_id IS NULL OR l.user_id IN (${owner:sqlstring}))
ORDER BY l.at_wall DESC, l.audit_id DESC
LIMIT 200
""".strip()

UNPROTECTED: Final = """
SELECT u.started_at AS "Since", u.ended_at AS "Until", a.label AS "Account", u.symbol AS "Symbol",
       u.cause AS "Cause",
       extract(epoch FROM u.ended_at - u.started_at)::double precision AS "Lasted"
FROM unprotected_periods AS u JOIN accounts AS a USING (account_id)
WHERE u.account_id IN (
    SELECT account_id FROM active_sessions WHERE session_id IN (${session:sqlstring}))
  AND u.started_at <= $__timeTo() AND (u.ended_at IS NULL OR u.ended_at >= $__timeFrom())
ORDER BY u.started_at DESC
LIMIT 200
""".strip()

GAPS_BY_CAUSE: Final = f"""
SELECT $__timeGroupAlias(minute, $__interval), cause AS "metric",
       count(*)::double precision AS "value"
FROM result_gaps_1min
WHERE {CHOSEN} AND $__timeFilter(minute)
GROUP BY 1, 2
ORDER BY 1, 2
""".strip()

GAPS_BY_SESSION: Final = f"""
SELECT session_id AS "Session", cause AS "Cause", count(*) AS "Minutes",
       min(minute) AS "First", max(minute) AS "Last"
FROM result_gaps_1min
WHERE {CHOSEN} AND $__timeFilter(minute)
GROUP BY 1, 2
ORDER BY 5 DESC, 1, 2
LIMIT 200
""".strip()

GAPS_COUNTED: Final = f"""
SELECT count(*) AS "Minutes"
FROM result_gaps_1min
WHERE {CHOSEN} AND $__timeFilter(minute)
""".strip()

SILENT_S: Final = queries.newest_of_each(
    "portfolio_result_1min",
    {
        "Silent for": "extract(epoch FROM $__timeTo()::timestamptz - r.minute)::double precision",
        "Measured after": "extract(epoch FROM r.measured_at - r.minute)::double precision",
        "Late": "r.late",
        "Flags": "r.flags",
    },
    '"Silent for" DESC, 1',
)


def board() -> Board:
    """The board of who keeps the platform running."""
    return Board(
        name="operations",
        title="AIFAP operations",
        description="Sessions, cycles, orders, alerts, measured minutes, the exchange's budget.",
        rows=(
            Row(4, _numbers()),
            Row(8, _cycles(), "Cycles"),
            Row(8, (_not_done(),)),
            Row(8, _writes(), "Orders and other writes"),
            Row(8, (_not_taken(), _unprotected())),
            Row(8, (_gaps(),), "Measured minutes"),
            Row(8, (_gap_table(), _silent())),
            Row(9, (_alerts(), _commands()), "Alerts and commands"),
            *services.rows(),
        ),
        variables=MANY_SESSIONS,
    )


def _numbers() -> tuple[Panel, ...]:
    bad, plain = BAD_ABOVE_ZERO, ((BLUE, None),)
    numbers = (
        ("Sessions", "By state, as the database has them now.", Query(STATES, SESSIONS), 7, plain),
        ("Cycles", "In the time range.", Query(CYCLES_COUNTED, SESSIONS), 5, plain),
        (
            "Writes",
            "That the exchange refused, or whose fate is open.",
            Query(WRITES_COUNTED, SESSIONS),
            4,
            bad,
        ),
        (
            "Alerts",
            "In the time range, the platform's own among them.",
            Query(ALERTS_COUNTED, SESSIONS),
            4,
            bad,
        ),
        (
            "Missing minutes",
            "Minutes of sessions that nobody could measure; each has its cause.",
            Query(GAPS_COUNTED),
            4,
            bad,
        ),
    )
    return tuple(
        number(title, told, query, width, decimals=0, steps=steps)
        for title, told, query, width, steps in numbers
    )


def _cycles() -> tuple[Panel, ...]:
    return (
        bars(
            "Cycles by state",
            "How many boundaries were traded, skipped or dropped.",
            _over_time(CYCLES_BY_STATE),
            12,
        ),
        _milliseconds(
            "Own time of a cycle",
            "From the boundary's bar to the end of trading, in real milliseconds: median, 99 of "
            "100, slowest.",
            CYCLE_TIMES,
        ),
    )


def _over_time(sql: str) -> Query:
    return Query(sql, SESSIONS, "time_series")


def _milliseconds(title: str, description: str, sql: str) -> Panel:
    query = _over_time(sql)
    return lines(title, description, query, 12, unit="ms", decimals=0, spans_holes=True)


def _not_done() -> Panel:
    return table(
        "Cycles that were not simply done",
        "The newest 200 with a reason.",
        Query(CYCLES_NOT_DONE, SESSIONS),
        24,
        overrides=columns_in("ms", "Own time", decimals=0),
    )


def _writes() -> tuple[Panel, ...]:
    return (
        bars(
            "Writes by outcome",
            "Orders, cancels, stops and settings that went to the exchange.",
            _over_time(WRITES_BY_OUTCOME),
            12,
        ),
        _milliseconds(
            "Time until the exchange answered",
            "In world time, in milliseconds: median and 99 of 100.",
            WRITE_TIMES,
        ),
    )


def _not_taken() -> Panel:
    return table(
        "Writes that were not taken",
        "The newest 200: refused, not sent, or of unknown fate.",
        Query(WRITES_NOT_TAKEN, SESSIONS),
        12,
    )


def _unprotected() -> Panel:
    return table(
        "Unprotected periods",
        "When a position lacked its stop; no end: it still does.",
        Query(UNPROTECTED, SESSIONS),
        12,
        overrides=columns_in("s", "Lasted", decimals=1),
    )


def _gaps() -> Panel:
    return bars(
        "Missing minutes by cause",
        "Minutes of sessions without a row.",
        Query(GAPS_BY_CAUSE, shape="time_series"),
        24,
    )


def _gap_table() -> Panel:
    return table(
        "Missing minutes by session",
        "The sessions whose minutes are missing, the newest first.",
        Query(GAPS_BY_SESSION),
        12,
        overrides=columns_in("none", "Minutes", decimals=0),
    )


def _silent() -> Panel:
    return table(
        "Newest minute of each session",
        "How long before the end of the time range a session was last measured, and how long after "
        "second 0 that was.",
        Query(SILENT_S),
        12,
        overrides=[
            *columns_in("s", "Silent for", decimals=0),
            *columns_in("s", "Measured after", decimals=1),
        ],
    )


def _alerts() -> Panel:
    return table(
        "Alerts",
        "The newest 200, with what became of each on its way to people.",
        Query(ALERTS, SESSIONS),
        14,
    )


def _commands() -> Panel:
    return table(
        "Commands",
        "What people asked the platform to change: the newest 200, in real time.",
        Query(COMMANDS, SESSIONS),
        10,
    )
