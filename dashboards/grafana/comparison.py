"""Several sessions, or several periods of one, on the same scale."""

from __future__ import annotations

from typing import Final

from dashboards.grafana import queries
from dashboards.grafana.fleet import MANY_SESSIONS
from dashboards.grafana.panels import (
    BY_NAME,
    Board,
    Panel,
    Query,
    Row,
    columns_in,
    lines,
    picked,
    table,
)

PORTFOLIO: Final = "portfolio_result_1min"
INDICATORS: Final = "indicator_result_1min_1day"
EARLIER: Final = picked(
    "earlier",
    "Compared with",
    {
        "a day before": "24 hours",
        "a week before": "168 hours",
        "30 days before": "720 hours",
        "a year before": "8760 hours",
    },
)
STARTED_AT_100: Final = (
    "100 * (1 + cumulative_return) / nullif(1 + first_value(cumulative_return) OVER own, 0)"
)

# How far a session's point is from its first one, put on the left edge of the time range.
FROM_THE_LEFT: Final = (
    "$__timeFrom()::timestamptz + (slot - first_value(slot) OVER own) * interval '1 second'"
)
LATER_S: Final = "extract(epoch FROM interval ${earlier:sqlstring})"
EARLIER_FROM: Final = "$__timeFrom()::timestamptz - interval ${earlier:sqlstring}"
EARLIER_TO: Final = "$__timeTo()::timestamptz - interval ${earlier:sqlstring}"
RETURN: Final = "cumulative_return"

NOW_ROWS: Final = queries.told(INDICATORS, RETURN, queries.SESSIONS_DRAWN)
EARLIER_ROWS: Final = queries.told(
    INDICATORS,
    RETURN,
    queries.SESSIONS_DRAWN,
    f"minute BETWEEN {EARLIER_FROM} AND {EARLIER_TO}",
    EARLIER_TO,
)

# A day's return from the one before; a session's first day starts at its start.
RETURNS_OF_DAYS: Final = """
SELECT (day::timestamp AT TIME ZONE 'UTC') AS "time", session_id AS "metric",
       (1 + cumulative_return) / nullif(1 + before, 0) - 1 AS "value"
FROM (
  SELECT session_id, day, cumulative_return,
         coalesce(lag(cumulative_return) OVER own, 0) AS before
  FROM (
    SELECT session_id, day, cumulative_return FROM futures_indicator_result_1day
    WHERE {drawn}
    UNION ALL
    SELECT session_id, day, cumulative_return FROM spot_indicator_result_1day
    WHERE {drawn}
  ) AS kept
  WINDOW own AS (PARTITION BY session_id ORDER BY day)
) AS days
WHERE day BETWEEN ($__timeFrom()::timestamptz AT TIME ZONE 'UTC')::date
              AND ($__timeTo()::timestamptz AT TIME ZONE 'UTC')::date
ORDER BY 1, 2
""".strip().format(drawn=queries.SESSIONS_DRAWN)

METRICS_NOW: Final = {
    "Return": "cumulative_return",
    "Sharpe": "sharpe_1day",
    "Sortino": "sortino_1day",
    "Calmar": "calmar_1day",
    "Volatility": "volatility_1day",
    "Sharpe (minutes)": "sharpe_1min",
    "Deepest drawdown": "max_drawdown",
    "Trades": "trades",
    "Win rate": "win_rate",
    "Profit factor": "profit_factor",
    "Average win": "average_win::double precision",
    "Average loss": "average_loss::double precision",
    "Turnover": "turnover",
    "Slippage (bps)": "slippage_bps",
}
MONEY_NOW: Final = {
    "Value": "current_pv::double precision",
    "Net profit": "netprofit::double precision",
    "ROE": "roe",
    "Fees": "fees::double precision",
    "Funding": "funding::double precision",
    "Unprotected": "unprotected_s",
}


def board() -> Board:
    """The board that compares."""
    return Board(
        name="comparison",
        title="AIFAP comparison",
        description="Sessions and periods against each other, each started at 100.",
        rows=(
            Row(10, (_side_by_side(), _from_each_start()), "Sessions"),
            Row(9, (_metrics(),)),
            Row(8, (_drawdowns(), _days())),
            Row(10, (_periods(), _period_numbers()), "This period and an earlier one"),
        ),
        variables=(*MANY_SESSIONS, EARLIER),
        span="now-7d",
    )


def _side_by_side() -> Panel:
    return lines(
        "Started at 100",
        "Each session's value, net of deposits and withdrawals, as if it were 100 at its first "
        "point in the time range.",
        Query(queries.curves(NOW_ROWS, RETURN, STARTED_AT_100), shape="time_series"),
        12,
        colour=BY_NAME,
        points_max=400,
    )


def _from_each_start() -> Panel:
    return lines(
        "From each one's start",
        "The same, with all sessions moved to one start (the left edge): sessions of different "
        "times beside each other.",
        Query(
            queries.curves(NOW_ROWS, RETURN, STARTED_AT_100, at=FROM_THE_LEFT), shape="time_series"
        ),
        12,
        colour=BY_NAME,
        points_max=400,
    )


def _metrics() -> Panel:
    return table(
        "Metrics",
        "At each session's newest minute in the time range, since its own start. Ratios without a "
        "note are of days.",
        (
            Query(queries.newest_of_each(INDICATORS, METRICS_NOW)),
            Query(queries.newest_of_each(PORTFOLIO, MONEY_NOW, minute=False)),
        ),
        24,
        transformations=[
            {"id": "joinByField", "options": {"byField": "Session", "mode": "outer"}}
        ],
        overrides=[
            *columns_in(
                "percentunit", "Return", "Volatility", "Deepest drawdown", "Win rate", "ROE"
            ),
            *columns_in(
                "currencyUSD", "Average win", "Average loss", "Value", "Net profit", "Fees",
                "Funding",
            ),
            *columns_in("none", "Trades", decimals=0),
            *columns_in("s", "Unprotected", decimals=0),
        ],
    )  # fmt: skip


def _drawdowns() -> Panel:
    return lines(
        "Drawdown",
        "Below each session's highest value so far.",
        Query(
            queries.curves(
                queries.told(INDICATORS, "drawdown", queries.SESSIONS_DRAWN), "drawdown", "drawdown"
            ),
            shape="time_series",
        ),
        12,
        unit="percentunit",
        colour=BY_NAME,
        points_max=400,
    )


def _days() -> Panel:
    return lines(
        "Returns of days",
        "Each UTC day's return of each session; the day before the first one shown counts as its "
        "start.",
        Query(RETURNS_OF_DAYS, shape="time_series"),
        12,
        unit="percentunit",
        colour=BY_NAME,
        draw="bars",
        spans_holes=True,
    )


def _periods() -> Panel:
    return lines(
        "Started at 100, then and now",
        "Each session in the time range, and the same session earlier by what is chosen above, "
        "drawn at the time that it is compared with.",
        (
            Query(queries.curves(NOW_ROWS, RETURN, STARTED_AT_100), shape="time_series"),
            Query(
                queries.curves(
                    EARLIER_ROWS,
                    RETURN,
                    STARTED_AT_100,
                    at=f"to_timestamp(slot + {LATER_S})",
                    name="session_id || ' earlier'",
                ),
                shape="time_series",
            ),
        ),
        14,
        colour=BY_NAME,
        points_max=400,
    )


def _period_numbers() -> Panel:
    return table(
        "Return of the period, then and now",
        "First to last point in the time range, and in the one that lies earlier.",
        (
            Query(_return_of_period("Return", NOW_ROWS)),
            Query(_return_of_period("Earlier", EARLIER_ROWS)),
        ),
        10,
        transformations=[{"id": "joinByField", "options": {"byField": "Session", "mode": "outer"}}],
        overrides=columns_in("percentunit", "Return", "Earlier"),
    )


def _return_of_period(title: str, rows: str) -> str:
    first, last = (
        f"(array_agg(cumulative_return ORDER BY minute {order}))[1]" for order in ("ASC", "DESC")
    )
    return (
        f"WITH told AS (\n  {rows}\n)\n"
        f'SELECT session_id AS "Session",\n'
        f'       (1 + {last}) / nullif(1 + {first}, 0) - 1 AS "{title}"\n'
        "FROM told GROUP BY session_id ORDER BY 1"
    )
