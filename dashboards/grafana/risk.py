"""Risk and execution of one session: what it dares, and what its trading costs."""

# ruff: noqa: S608 - what is put into a query stands in these files; values come in quoted by Grafana
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dashboards.grafana import queries
from dashboards.grafana.panels import (
    BAD_ABOVE_ZERO,
    BLUE,
    BY_NAME,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SESSIONS,
    SIGNED,
    Board,
    Json,
    Panel,
    Query,
    Row,
    Steps,
    column,
    columns_in,
    fixed,
    lines,
    number,
    table,
)
from dashboards.grafana.trader import MISSING_MINUTES, ONE_SESSION

PORTFOLIO: Final = "portfolio_result_1min"
INDICATORS: Final = "indicator_result_1min_1day"
# How far the mark may still move before the exchange liquidates, as a fraction of the mark.
TO_LIQUIDATION: Final = "abs(mark_price - liquidation_price) / nullif(mark_price, 0)"
HAS_LIQUIDATION: Final = "size <> 0 AND liquidation_price > 0 AND mark_price > 0"
NEAR: Final = ((RED, None), (ORANGE, 0.1), (GREEN, 0.25))

NEAREST_LIQUIDATION: Final = queries.symbols_now(
    {"Nearest": f"({TO_LIQUIDATION})::double precision", "Symbol": "symbol"}, HAS_LIQUIDATION, "1"
)

FILLS: Final = "\nUNION ALL\n".join(
    f"""SELECT at AS "Time", symbol AS "Symbol", side AS "Side",
       size::double precision AS "Size", price::double precision AS "Price",
       decision_price::double precision AS "Decided at",
       (CASE side WHEN 'buy' THEN 1 ELSE -1 END * (price - decision_price)
         / nullif(decision_price, 0) * 10000)::double precision AS "Slippage",
       amount::double precision AS "Realised", fee::double precision AS "Fee"
FROM {market}_historical_transactions_details
WHERE {queries.SESSION} AND source = 'fill' AND $__timeFilter(at)"""
    for market in queries.MARKETS
)

UNPROTECTED: Final = """
SELECT u.started_at AS "Since", u.ended_at AS "Until", u.symbol AS "Symbol", u.cause AS "Cause",
       extract(epoch FROM u.ended_at - u.started_at)::double precision AS "Lasted"
FROM unprotected_periods AS u
JOIN active_sessions AS s USING (account_id)
WHERE s.session_id = ${session:sqlstring}
  AND u.started_at <= least(coalesce(s.ended_at, $__timeTo()), $__timeTo())
  AND (u.ended_at IS NULL OR u.ended_at >= greatest(s.started_at, $__timeFrom()))
ORDER BY u.started_at DESC
LIMIT 200
""".strip()


def board() -> Board:
    """The board of one session."""
    return Board(
        name="risk",
        title="AIFAP risk and execution",
        description="One session: weights against targets, leverage, distance to liquidation, "
        "slippage, fees and funding, protection.",
        rows=(
            Row(4, _numbers()),
            Row(8, (_weights(),), "Weights against targets"),
            Row(8, (_drift(), _distance())),
            Row(8, (_exposure(), _drawdown()), "Leverage and drawdown"),
            Row(8, (_slippage(), _costs()), "Execution"),
            Row(8, (_fills(),)),
            Row(8, (_unprotected_over_time(), _unprotected()), "Protection"),
        ),
        variables=ONE_SESSION,
        annotations=(MISSING_MINUTES,),
    )


def _numbers() -> tuple[Panel, ...]:
    return (
        _newest(
            "Leverage",
            "Gross position value ÷ portfolio value: how many times the account is at stake.",
            PORTFOLIO,
            {"Gross": "gross_exposure"},
            colour=fixed(BLUE),
        ),
        _newest(
            "Net exposure",
            "Long minus short position value ÷ portfolio value.",
            PORTFOLIO,
            {"Net": "net_exposure"},
            unit="percentunit",
            colour=fixed(BLUE),
        ),
        number(
            "Nearest liquidation",
            "How far the mark of the nearest position may move against it before the exchange "
            "liquidates. Nothing is shown while no position has a liquidation price.",
            Query(
                f'SELECT "Nearest"\nFROM (\n{NEAREST_LIQUIDATION}\n) AS near\nORDER BY 1 LIMIT 1'
            ),
            4,
            unit="percentunit",
            steps=NEAR,
        ),
        number(
            "Unprotected now",
            "Positions that lack their stop at the newest minute.",
            Query(queries.newest_of(PORTFOLIO, {"Positions": "unprotected"})),
            4,
            decimals=0,
            steps=BAD_ABOVE_ZERO,
        ),
        _newest(
            "Slippage",
            "Cost against the decision price ÷ notional of those fills, in basis points, since the "
            "session's start; positive is worse than decided.",
            INDICATORS,
            {"bps": "slippage_bps"},
            steps=((GREEN, None), (ORANGE, 5.0), (RED, 20.0)),
        ),
        _newest(
            "Fees and funding",
            "Since the session's start, in USDT; negative is paid.",
            PORTFOLIO,
            {"Fees": "fees::double precision", "Funding": "funding::double precision"},
            unit="currencyUSD",
            steps=SIGNED,
        ),
    )


def _newest(
    title: str,
    description: str,
    source: str,
    columns: Mapping[str, str],
    *,
    unit: str = "none",
    colour: Json | None = None,
    steps: Steps = ((GREY, None),),
) -> Panel:
    """Columns of the newest minute, large."""
    query = Query(queries.newest_of(source, columns))
    return number(title, description, query, 4, unit=unit, colour=colour, steps=steps)


def _over_time(
    title: str,
    description: str,
    sql: str | tuple[str, ...],
    *,
    unit: str = "none",
    colour: Json | None = None,
    fill: int = 0,
    overrides: Sequence[Json] = (),
) -> Panel:
    """Lines on half a row."""
    texts = (sql,) if isinstance(sql, str) else sql
    return lines(
        title,
        description,
        tuple(Query(text, shape="time_series") for text in texts),
        12,
        unit=unit,
        colour=colour,
        fill=fill,
        overrides=overrides,
    )


def _weights() -> Panel:
    names = {
        "Symbol": "symbol",
        "Weight": "weight",
        "Target": "target",
        "Drift": "coalesce(weight, 0) - coalesce(target, 0)",
        "Size": "size::double precision",
        "Value": "position_value::double precision",
        "Entry": "entry_price::double precision",
        "Mark": "mark_price::double precision",
        "Stop": "stop_loss::double precision",
        "Take profit": "take_profit::double precision",
        "Liquidation": "liquidation_price::double precision",
        "To liquidation": f"({TO_LIQUIDATION})::double precision",
        "Unrealised": "unrealized_pnl::double precision",
        "Leverage": "leverage::double precision",
    }
    return table(
        "Weights against targets",
        "Every symbol that is held or wanted, at the newest minute. Weight: signed margin ÷ base; "
        "target: what the strategy last asked for; drift: weight − target.",
        Query(queries.symbols_now(names, "true", "abs(position_value) DESC, symbol")),
        24,
        overrides=[
            *columns_in("percentunit", "Weight", "Target", "Drift", "To liquidation"),
            *columns_in("currencyUSD", "Value", "Unrealised"),
            *[
                column(name, decimals=4)
                for name in ("Size", "Entry", "Mark", "Stop", "Take profit", "Liquidation")
            ],
        ],
    )


def _drift() -> Panel:
    drift = "coalesce(weight, 0) - coalesce(target, 0)"
    return _over_time(
        "Drift from target",
        "Weight − target of each symbol; trading brings it under the session's threshold.",
        queries.symbols_over_time(drift, "weight, target"),
        unit="percentunit",
        colour=BY_NAME,
    )


def _distance() -> Panel:
    prices = "mark_price, liquidation_price"
    return _over_time(
        "Distance to liquidation",
        "How far each position's mark may move against it, as a fraction of the mark.",
        queries.symbols_over_time(TO_LIQUIDATION, prices, HAS_LIQUIDATION),
        unit="percentunit",
        colour=BY_NAME,
    )


def _exposure() -> Panel:
    return _over_time(
        "Exposure",
        "Position value ÷ portfolio value: gross (the leverage in use) and net.",
        queries.curve(PORTFOLIO, {"Gross": "gross_exposure", "Net": "net_exposure"}),
        unit="percentunit",
    )


def _drawdown() -> Panel:
    return _over_time(
        "Drawdown",
        "Below the highest value so far: now, and the deepest yet.",
        queries.curve(INDICATORS, {"Drawdown": "drawdown", "Deepest": "max_drawdown"}),
        unit="percentunit",
        colour=fixed(RED),
        fill=15,
    )


def _slippage() -> Panel:
    return _over_time(
        "Slippage and its cost",
        "Since the session's start: basis points against the decision price, and USDT (on the "
        "right); positive is worse than decided.",
        queries.curve(INDICATORS, {"bps": "slippage_bps", "USDT": "slippage_cost"}),
        overrides=[column("USDT", unit="currencyUSD", custom__axisPlacement="right")],
    )


def _costs() -> Panel:
    return _over_time(
        "Fees, funding, turnover",
        "Sums since the session's start in USDT, negative when paid, and the notional traded (on "
        "the right).",
        (
            queries.curve(PORTFOLIO, {"Fees": "fees", "Funding": "funding"}),
            queries.curve(INDICATORS, {"Traded notional": "traded_notional"}),
        ),
        unit="currencyUSD",
        overrides=[column("Traded notional", custom__axisPlacement="right")],
    )


def _fills() -> Panel:
    return table(
        "Fills",
        "The newest 500 in the time range. Slippage in basis points against the price that the leg "
        "was planned at; empty where nobody planned it (a stop, a liquidation, a hand).",
        Query(f'{FILLS}\nORDER BY "Time" DESC\nLIMIT 500'),
        24,
        overrides=[
            *columns_in("currencyUSD", "Realised", "Fee", decimals=4),
            *[column(name, decimals=4) for name in ("Size", "Price", "Decided at")],
        ],
    )


def _unprotected_over_time() -> Panel:
    return _over_time(
        "Unprotected seconds",
        "Seconds × positions without their stop since the session's start.",
        queries.curve(PORTFOLIO, {"Unprotected": "unprotected_s"}),
        unit="s",
        colour=fixed(ORANGE),
    )


def _unprotected() -> Panel:
    return table(
        "Unprotected periods",
        "When a position of the session's account lacked its stop, and why; no end: it still does.",
        Query(UNPROTECTED, SESSIONS),
        12,
        overrides=columns_in("s", "Lasted", decimals=1),
    )
