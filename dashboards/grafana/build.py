"""Writes the Grafana boards: `python -m dashboards.grafana.build` (a test compares them).

    queries ─► panels ─► boards/trader.json ─► Grafana, provisioned from `provisioning/`

The trader's board: ROE, Sharpe and drawdown on top, the portfolio's value over time, what it holds.
Two datasources by uid, both the read-only role: results (finwatcher) and sessions (finplatform).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dashboards.grafana import queries

Json = dict[str, object]

BOARDS: Final = Path(__file__).parent / "boards"
DATASOURCE_TYPE: Final = "grafana-postgresql-datasource"
RESULTS: Final[Json] = {"type": DATASOURCE_TYPE, "uid": "aifap-results"}
SESSIONS: Final[Json] = {"type": DATASOURCE_TYPE, "uid": "aifap-sessions"}
SCHEMA_VERSION: Final = 39  # Grafana 11
COLUMNS: Final = 24
GREEN, RED, BLUE, GREY = "#00FF88", "#FF6B6B", "#4A90D9", "#8A8A8A"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a panel stands on the grid of 24 columns."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its query, how Grafana draws it, what its numbers mean."""

    kind: str
    title: str
    description: str
    place: Place
    sql: str
    shape: str = "table"
    unit: str = "none"
    decimals: int = 2
    colour: Mapping[str, object] = field(default_factory=dict)
    steps: Sequence[tuple[str, float | None]] = ((GREY, None),)
    custom: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    overrides: Sequence[Json] = ()


def render_panel(panel: Panel, number: int) -> Json:
    """The panel as Grafana's JSON."""
    steps: list[Json] = [{"color": colour, "value": value} for colour, value in panel.steps]
    defaults: Json = {
        "unit": panel.unit,
        "decimals": panel.decimals,
        "noValue": "–",
        "color": dict(panel.colour) or {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": dict(panel.custom),
        "mappings": [],
    }
    place = panel.place
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": RESULTS,
        "gridPos": {"x": place.x, "y": place.y, "w": place.width, "h": place.height},
        "interval": "1m",
        "fieldConfig": {"defaults": defaults, "overrides": list(panel.overrides)},
        "options": dict(panel.options),
        "targets": [
            {
                "refId": "A",
                "datasource": RESULTS,
                "format": panel.shape,
                "rawQuery": True,
                "editorMode": "code",
                "rawSql": panel.sql,
            }
        ],
    }


def _number_options() -> Json:
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
    }


def _stats() -> list[Panel]:
    third = COLUMNS // 3
    return [
        Panel(
            kind="stat",
            title="ROE",
            description="Net profit ÷ capital at work, at the newest minute shown.",
            place=Place(0, 0, third, 4),
            sql=queries.newest_of("portfolio_result_1min", 'roe AS "ROE"'),
            unit="percentunit",
            steps=((RED, None), (GREEN, 0.0)),
            options=_number_options(),
        ),
        Panel(
            kind="stat",
            title="Sharpe Ratio",
            description="Annualised, risk-free rate 0: of days, and of minutes.",
            place=Place(third, 0, third, 4),
            sql=queries.newest_of(
                "indicator_result_1min_1day", 'sharpe_1day AS "days", sharpe_1min AS "minutes"'
            ),
            colour={"mode": "fixed", "fixedColor": BLUE},
            options=_number_options(),
        ),
        Panel(
            kind="stat",
            title="Max Drawdown",
            description="The deepest fall below an earlier peak since the session's start.",
            place=Place(2 * third, 0, third, 4),
            sql=queries.newest_of("indicator_result_1min_1day", 'max_drawdown AS "Max drawdown"'),
            unit="percentunit",
            colour={"mode": "fixed", "fixedColor": RED},
            options=_number_options(),
        ),
    ]


def _curve() -> Panel:
    capital: Json = {
        "matcher": {"id": "byName", "options": "Capital at work"},
        "properties": [
            {"id": "color", "value": {"mode": "fixed", "fixedColor": GREY}},
            {"id": "custom.fillOpacity", "value": 0},
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
        ],
    }
    return Panel(
        kind="timeseries",
        title="Portfolio Value Over Time",
        description="Wallet balance and unrealised profit, minute by minute; a hole is a hole.",
        place=Place(0, 4, COLUMNS, 12),
        sql=queries.portfolio_over_time(),
        shape="time_series",
        unit="currencyUSD",
        colour={"mode": "fixed", "fixedColor": GREEN},
        custom={
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 2,
            "fillOpacity": 20,
            "gradientMode": "opacity",
            "showPoints": "never",
            "spanNulls": False,
        },
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
        overrides=(capital,),
    )


def _holdings() -> list[Panel]:
    half = COLUMNS // 2
    by_name: Json = {"mode": "palette-classic-by-name"}  # a symbol has one colour in both
    every_row: Json = {"calcs": ["lastNotNull"], "fields": "", "values": True, "limit": 50}
    return [
        Panel(
            kind="piechart",
            title="Position Allocation",
            description="Shares of the positions' value, whatever their direction.",
            place=Place(0, 16, half, 8),
            sql=queries.positions("abs(position_value)"),
            unit="currencyUSD",
            colour=by_name,
            options={
                "reduceOptions": every_row,
                "pieType": "donut",
                "displayLabels": ["name", "percent"],
                "legend": {"displayMode": "list", "placement": "right", "showLegend": True},
                "tooltip": {"mode": "single", "sort": "none"},
            },
        ),
        Panel(
            kind="bargauge",
            title="Position Sizes (USDT)",
            description="Value at the mark price; short positions are negative.",
            place=Place(half, 16, half, 8),
            sql=queries.positions("position_value"),
            unit="currencyUSD",
            colour=by_name,
            options={
                "reduceOptions": every_row,
                "orientation": "horizontal",
                "displayMode": "basic",
                "valueMode": "text",
                "showUnfilled": True,
            },
        ),
    ]


def _variable(name: str, label: str, sql: str) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SESSIONS,
        "query": sql,
        "definition": sql,
        "refresh": 2,  # whenever the time range changes
        "sort": 0,
        "regex": "",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "skipUrlSync": False,
        "options": [],
        "current": {},
    }


def _gaps() -> Json:
    return {
        "name": "Missing minutes",
        "datasource": RESULTS,
        "enable": True,
        "hide": False,
        "iconColor": RED,
        "target": {
            "refId": "Anno",
            "datasource": RESULTS,
            "format": "table",
            "rawQuery": True,
            "editorMode": "code",
            "rawSql": queries.GAPS,
        },
    }


def build_trader_board() -> Json:
    """The board of one session, as Grafana stores it."""
    panels = [*_stats(), _curve(), *_holdings()]
    return {
        "uid": "aifap-trader",
        "title": "AIFAP trader",
        "description": "One session: what it earns, what it is worth, what it holds.",
        "tags": ["aifap"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-7d", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_gaps()]},
        "templating": {
            "list": [
                _variable("owner", "Owner", queries.OWNERS),
                _variable("session", "Session", queries.SESSIONS),
            ]
        },
        "panels": [render_panel(panel, number) for number, panel in enumerate(panels, 1)],
    }


def render_files() -> dict[Path, str]:
    """Every generated file and its text."""
    text = json.dumps(build_trader_board(), indent=2, ensure_ascii=False) + "\n"
    return {BOARDS / "trader.json": text}


def main() -> int:
    """Write them."""
    for path, text in render_files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
