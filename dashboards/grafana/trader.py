"""The trader's board: ROE, Sharpe and drawdown on top, the value over time, what is held below.

As the product was first drawn: a sixth of the height for the numbers, half for the curve, a third
for what is held.
"""

from __future__ import annotations

from typing import Final

from dashboards.grafana import queries
from dashboards.grafana.panels import (
    BLUE,
    COLUMNS,
    GREEN,
    GREY,
    RED,
    SIGNED,
    Board,
    Json,
    Panel,
    Query,
    Row,
    chosen,
    fixed,
    lengths,
    lines,
    marks,
    number,
    shares,
)

ONE_SESSION: Final = (
    chosen("owner", "Owner", queries.OWNERS),
    chosen("session", "Session", queries.SESSIONS_OF_OWNERS),
)
MISSING_MINUTES: Final = marks("Missing minutes", Query(queries.GAPS), RED)
THIRD, HALF = COLUMNS // 3, COLUMNS // 2


def board() -> Board:
    """The board of one session."""
    return Board(
        name="trader",
        title="AIFAP trader",
        description="One session: what it earns, what it is worth, what it holds.",
        rows=(Row(4, _numbers()), Row(12, (_value(),)), Row(8, _holdings())),
        variables=ONE_SESSION,
        annotations=(MISSING_MINUTES,),
        span="now-7d",
    )


def _numbers() -> tuple[Panel, ...]:
    return (
        number(
            "ROE",
            "Net profit ÷ capital at work, at the newest minute shown.",
            Query(queries.newest_of("portfolio_result_1min", {"ROE": "roe"})),
            THIRD,
            unit="percentunit",
            steps=SIGNED,
        ),
        number(
            "Sharpe Ratio",
            "Annualised, risk-free rate 0: of days, and of minutes.",
            Query(
                queries.newest_of(
                    "indicator_result_1min_1day", {"days": "sharpe_1day", "minutes": "sharpe_1min"}
                )
            ),
            THIRD,
            colour=fixed(BLUE),
        ),
        number(
            "Max Drawdown",
            "The deepest fall below an earlier peak since the session's start.",
            Query(
                queries.newest_of("indicator_result_1min_1day", {"Max drawdown": "max_drawdown"})
            ),
            THIRD,
            unit="percentunit",
            colour=fixed(RED),
        ),
    )


def _value() -> Panel:
    capital: Json = {
        "matcher": {"id": "byName", "options": "Capital at work"},
        "properties": [
            {"id": "color", "value": fixed(GREY)},
            {"id": "custom.fillOpacity", "value": 0},
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
        ],
    }
    return lines(
        "Portfolio Value Over Time",
        "Wallet balance and unrealised profit, minute by minute, day by day on long ranges; a hole "
        "is a hole.",
        Query(
            queries.curve(
                "portfolio_result_1min",
                {"Portfolio value": "current_pv", "Capital at work": "available"},
            ),
            shape="time_series",
        ),
        COLUMNS,
        unit="currencyUSD",
        colour=fixed(GREEN),
        fill=20,
        overrides=(capital,),
    )


def _holdings() -> tuple[Panel, ...]:
    largest_first = "abs(position_value) DESC, symbol"

    def held(value: str) -> Query:
        return Query(
            queries.symbols_now(
                {"symbol": "symbol", "USDT": f"({value})::double precision"},
                "size <> 0",
                largest_first,
            )
        )

    return (
        shares(
            "Position Allocation",
            "Shares of the positions' value, whatever their direction.",
            held("abs(position_value)"),
            HALF,
            unit="currencyUSD",
        ),
        lengths(
            "Position Sizes (USDT)",
            "Value at the mark price; short positions are negative.",
            held("position_value"),
            HALF,
            unit="currencyUSD",
        ),
    )
