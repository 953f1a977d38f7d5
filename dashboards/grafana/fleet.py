"""All sessions side by side: what they are worth together, which one needs a look."""

# ruff: noqa: S608 - what is put into a query stands in these files; values come in quoted by Grafana
from __future__ import annotations

from typing import Final

from dashboards.grafana import queries
from dashboards.grafana.panels import (
    BAD_ABOVE_ZERO,
    BLUE,
    BY_NAME,
    GREEN,
    RED,
    SESSIONS,
    SIGNED,
    Board,
    Json,
    Panel,
    Query,
    Row,
    chosen,
    column,
    columns_in,
    fixed,
    lengths,
    lines,
    number,
    table,
)

PORTFOLIO: Final = "portfolio_result_1min"
INDICATORS: Final = "indicator_result_1min_1day"
MANY_SESSIONS: Final = (
    chosen("owner", "Owners", queries.OWNERS, several=True),
    chosen("session", "Sessions", queries.SESSIONS_OF_OWNERS, several=True),
)
TO_TRADER: Final[Json] = {
    "title": "Open the trader's board",
    "url": "/d/aifap-trader?var-session=${__value.raw}&${__url_time_range}",
    "targetBlank": False,
}

SESSION_ROWS: Final = f"""
SELECT s.session_id AS "Session", u.name AS "Owner", a.label AS "Account", a.trade_env AS "Env",
       s.state AS "State", s.cycle AS "Cycle", s.last_boundary AS "Last cycle",
       s.restarts AS "Restarts", s.reason AS "Reason"
FROM active_sessions AS s
JOIN accounts AS a USING (account_id)
JOIN user_details AS u ON u.user_id = s.owner_id
WHERE s.{queries.SESSIONS_CHOSEN}
ORDER BY s.started_at DESC, s.session_id
""".strip()

STATES: Final = f"""
SELECT count(*) FILTER (WHERE state = 'running') AS "Running",
       count(*) FILTER (WHERE state IN ('starting', 'stopping')) AS "On the way",
       count(*) FILTER (WHERE state = 'ended') AS "Ended",
       count(*) FILTER (WHERE state = 'failed') AS "Failed"
FROM active_sessions
WHERE {queries.SESSIONS_CHOSEN}
""".strip()

# The newest row of each session in each point, found by its key: a look-up for each, however long a
# point is. On long ranges rows of days too, for those that have no minutes any more.
_STEP: Final = queries.MINUTE_STEP_S
_OF_POINT: Final = "\n  UNION ALL\n  ".join(
    f"""(SELECT r.minute, r.current_pv FROM {market}_portfolio_result_1min AS r
   WHERE r.session_id = wanted.session_id AND $__timeFilter(r.minute)
     AND r.minute >= to_timestamp(slot) AND r.minute < to_timestamp(slot + {_STEP})
   ORDER BY r.minute DESC LIMIT 1)
  UNION ALL
  (SELECT r.minute, r.current_pv FROM {market}_portfolio_result_1day AS r
   WHERE r.session_id = wanted.session_id AND $__timeFilter(r.minute)
     AND r.day >= (to_timestamp(slot) AT TIME ZONE 'UTC')::date
     AND r.day < (to_timestamp(slot + {_STEP}) AT TIME ZONE 'UTC')::date
     AND $__interval_ms >= {queries.MINUTES_UP_TO_MS}
   ORDER BY r.day DESC LIMIT 1)"""
    for market in queries.MARKETS
)
TOTAL_OVER_TIME: Final = f"""
SELECT to_timestamp(slot) AS "time",
       sum(current_pv)::double precision AS "Portfolio value",
       count(*)::double precision AS "Sessions measured"
FROM {queries.WANTED}
CROSS JOIN generate_series(
  floor(extract(epoch FROM $__timeFrom()::timestamptz) / {_STEP})::bigint * {_STEP},
  floor(extract(epoch FROM $__timeTo()::timestamptz))::bigint, {_STEP}) AS slots(slot)
CROSS JOIN LATERAL (
  {_OF_POINT}
  ORDER BY minute DESC LIMIT 1
) AS measured
GROUP BY slot
ORDER BY slot
""".strip()

BY_SYMBOL: Final = """
SELECT held.symbol, sum(held.position_value)::double precision AS "USDT"
FROM {wanted}
CROSS JOIN LATERAL (
  SELECT symbol, position_value FROM futures_result_1min AS r
  WHERE r.session_id = wanted.session_id AND r.size <> 0 AND r.minute = (
    SELECT max(p.minute) FROM futures_portfolio_result_1min AS p
    WHERE p.session_id = wanted.session_id AND $__timeFilter(p.minute))
  UNION ALL
  SELECT symbol, position_value FROM spot_result_1min AS r
  WHERE r.session_id = wanted.session_id AND r.size <> 0 AND r.minute = (
    SELECT max(p.minute) FROM spot_portfolio_result_1min AS p
    WHERE p.session_id = wanted.session_id AND $__timeFilter(p.minute))
) AS held
GROUP BY held.symbol
ORDER BY abs(sum(held.position_value)) DESC, held.symbol
""".strip().format(wanted=queries.WANTED)


def board() -> Board:
    """The board of many sessions."""
    return Board(
        name="fleet",
        title="AIFAP fleet",
        description="All sessions: their value together, a row for each.",
        rows=(
            Row(4, (*_totals(), _states())),
            Row(9, (_value(), _by_symbol())),
            Row(11, (_sessions(),)),
            Row(9, (_returns(), _drawdowns())),
        ),
        variables=MANY_SESSIONS,
    )


def _totals() -> tuple[Panel, ...]:
    def total(title: str, aggregate: str, *columns: str) -> Query:
        return Query(queries.total_of_newest(PORTFOLIO, {title: aggregate}, columns))

    return (
        number(
            "Value",
            "Portfolio value of all chosen sessions, each at its newest minute.",
            total("USDT", "sum(current_pv)::double precision", "current_pv"),
            5,
            unit="currencyUSD",
            colour=fixed(GREEN),
        ),
        number(
            "Net profit",
            "Of all chosen sessions, net of deposits and withdrawals.",
            total("USDT", "sum(netprofit)::double precision", "netprofit"),
            4,
            unit="currencyUSD",
            steps=SIGNED,
        ),
        number(
            "Positions",
            "Open positions of all chosen sessions.",
            total("Positions", "sum(positions)::integer", "positions"),
            3,
            decimals=0,
            colour=fixed(BLUE),
        ),
        number(
            "Unprotected",
            "Positions that lack their stop.",
            total("Positions", "sum(unprotected)::integer", "unprotected"),
            3,
            decimals=0,
            steps=BAD_ABOVE_ZERO,
        ),
    )


def _states() -> Panel:
    return number(
        "Sessions",
        "By state, as the database has them now.",
        Query(STATES, SESSIONS),
        9,
        decimals=0,
        colour=fixed(BLUE),
    )


def _value() -> Panel:
    return lines(
        "Value together",
        "Sum of the sessions that were measured within each point, each at its newest minute, and "
        "how many those were (on the right): where the count dips, so does the sum.",
        Query(TOTAL_OVER_TIME, shape="time_series"),
        16,
        unit="currencyUSD",
        colour=fixed(GREEN),
        fill=15,
        overrides=[
            column(
                "Sessions measured",
                unit="short",
                decimals=0,
                color=fixed(BLUE),
                custom__axisPlacement="right",
                custom__fillOpacity=0,
            )
        ],
        points_max=120,
    )


def _by_symbol() -> Panel:
    return lengths(
        "Exposure by symbol",
        "Position values of all chosen sessions added up; opposite positions cancel out.",
        Query(BY_SYMBOL),
        8,
        unit="currencyUSD",
    )


def _sessions() -> Panel:
    portfolio = {
        "Value": "current_pv::double precision",
        "Net profit": "netprofit::double precision",
        "ROE": "roe",
        "Leverage": "gross_exposure",
        "Positions": "positions",
        "Unprotected": "unprotected",
        "Flags": "flags",
    }
    indicators = {
        "Return": "cumulative_return",
        "Sharpe": "sharpe_1day",
        "Drawdown": "drawdown",
        "Deepest": "max_drawdown",
    }
    return table(
        "Sessions",
        "A row for each: what it is, what it was worth at its newest minute in the time range. "
        "Click one to open its board.",
        (
            Query(SESSION_ROWS, SESSIONS),
            Query(queries.newest_of_each(PORTFOLIO, portfolio)),
            Query(queries.newest_of_each(INDICATORS, indicators, minute=False)),
        ),
        24,
        transformations=[{"id": "joinByField", "options": {"byField": "Session", "mode": "outer"}}],
        overrides=[
            column("Session", links=[TO_TRADER], custom__width=160),
            column(
                "Unprotected",
                decimals=0,
                thresholds={
                    "mode": "absolute",
                    "steps": [{"color": GREEN, "value": None}, {"color": RED, "value": 1}],
                },
                custom__cellOptions={"type": "color-text"},
            ),
            *columns_in("currencyUSD", "Value", "Net profit"),
            *columns_in("percentunit", "ROE", "Return", "Drawdown", "Deepest"),
            *[column(name, decimals=0) for name in ("Cycle", "Restarts", "Positions")],
        ],
    )


def _line(name: str) -> str:
    return queries.curves(queries.told(INDICATORS, name, queries.SESSIONS_DRAWN), name, name)


def _returns() -> Panel:
    return lines(
        "Return",
        "Time-weighted, net of deposits and withdrawals, since each session's start. The first 20 "
        "chosen.",
        Query(
            _line("cumulative_return"),
            shape="time_series",
        ),
        12,
        unit="percentunit",
        colour=BY_NAME,
        points_max=240,
    )


def _drawdowns() -> Panel:
    return lines(
        "Drawdown",
        "Below each session's highest value so far. The first 20 chosen.",
        Query(_line("drawdown"), shape="time_series"),
        12,
        unit="percentunit",
        colour=BY_NAME,
        points_max=240,
    )
