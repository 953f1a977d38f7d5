"""The SQL of the boards, over the tables of `module.db.results_tables` and `active_sessions`.

Grafana replaces `${session:sqlstring}` and the `$__` macros before Postgres sees a query; a macro's
arguments must not hold parentheses. A session is of one market, so each query asks both markets'
tables and gets rows from one. Money is cast to double precision: it is only looked at here.
"""

# ruff: noqa: S608 - what is put into a query stands in this file; values come in quoted by Grafana
from __future__ import annotations

from typing import Final

MARKETS: Final = ("futures", "spot")
SESSION: Final = "session_id = ${session:sqlstring}"

OWNERS: Final = "SELECT DISTINCT owner_id FROM active_sessions ORDER BY 1"

SESSIONS: Final = """
SELECT s.session_id AS "__value", s.session_id || ' · ' || a.label || ' · ' || s.state AS "__text"
FROM active_sessions AS s JOIN accounts AS a USING (account_id)
WHERE s.owner_id = ${owner:sqlstring}
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


def newest_of(subject: str, columns: str) -> str:
    """One row: `columns` at the newest minute of the time range, from `<market>_<subject>`."""
    shown = ", ".join(f"newest.{name}" for name in _names_of(columns))
    branches = "\n  UNION ALL\n  ".join(
        f"(SELECT minute, {columns} FROM {market}_{subject}\n"
        f"   WHERE {SESSION} AND $__timeFilter(minute) ORDER BY minute DESC LIMIT 1)"
        for market in MARKETS
    )
    return f"SELECT {shown}\nFROM (\n  {branches}\n) AS newest\nORDER BY minute DESC LIMIT 1"


def portfolio_over_time() -> str:
    """Portfolio value and capital at work: the last minute of each interval, gaps left open."""
    branches = "\n  UNION ALL\n  ".join(
        f"SELECT minute, current_pv, available FROM {market}_portfolio_result_1min\n"
        f"  WHERE {SESSION} AND $__timeFilter(minute)"
        for market in MARKETS
    )
    return (
        "SELECT $__timeGroupAlias(minute, $__interval, NULL),\n"
        "       (array_agg(current_pv ORDER BY minute DESC))[1]::double precision"
        ' AS "Portfolio value",\n'
        "       (array_agg(available ORDER BY minute DESC))[1]::double precision"
        ' AS "Capital at work"\n'
        f"FROM (\n  {branches}\n) AS curve\nGROUP BY 1\nORDER BY 1"
    )


def positions(value: str) -> str:
    """One row per symbol held at the newest minute: its name and `value`, the largest first.

    The newest minute is the portfolio's: a flat account has no rows of symbols, and its last
    positions must not be shown for ever.
    """
    branches = "\n  UNION ALL\n  ".join(
        f"SELECT symbol, position_value FROM {market}_result_1min\n"
        f"  WHERE {SESSION} AND size <> 0 AND minute = (\n"
        f"    SELECT max(minute) FROM {market}_portfolio_result_1min\n"
        f"    WHERE {SESSION} AND $__timeFilter(minute))"
        for market in MARKETS
    )
    return (
        f'SELECT symbol, ({value})::double precision AS "USDT"\n'
        f"FROM (\n  {branches}\n) AS held\nORDER BY abs(position_value) DESC, symbol"
    )


def _names_of(columns: str) -> list[str]:
    """The names that a select list gives: `roe AS "ROE"` is `"ROE"`."""
    return [part.split(" AS ")[-1].strip() for part in columns.split(",")]
