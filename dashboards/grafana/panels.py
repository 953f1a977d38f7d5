"""The kit that boards are made of: panels in rows, variables, annotations, as Grafana's JSON.

    board file ─► Row(height, panels) … ─► lay_out ─► render_board ─► build ─► boards/*.json

A panel says what is asked and what the numbers mean; where it stands follows from its row. Names of
options are those of Grafana 11 and 12 (schema version 39).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

Json = dict[str, object]
Steps = Sequence[tuple[str, float | None]]
"""Colours, each from which value on; the first from nowhere."""

POSTGRES: Final = "grafana-postgresql-datasource"
RESULTS: Final[Json] = {"type": POSTGRES, "uid": "aifap-results"}
SESSIONS: Final[Json] = {"type": POSTGRES, "uid": "aifap-sessions"}
METRICS: Final[Json] = {"type": "prometheus", "uid": "aifap-metrics"}
MIXED: Final[Json] = {"type": "datasource", "uid": "-- Mixed --"}
SCHEMA_VERSION: Final = 39
COLUMNS: Final = 24
GREEN, RED, BLUE, GREY = "#00FF88", "#FF6B6B", "#4A90D9", "#8A8A8A"
ORANGE, PURPLE = "#FF6B35", "#9B59B6"

BY_NAME: Final[Json] = {"mode": "palette-classic-by-name"}
"""A symbol, or a session, has one colour on all panels."""
SIGNED: Final = ((RED, None), (GREEN, 0.0))
BAD_ABOVE_ZERO: Final = ((GREEN, None), (RED, 1e-9))


def fixed(colour: str) -> Json:
    """One colour, whatever the value."""
    return {"mode": "fixed", "fixedColor": colour}


@dataclass(frozen=True, slots=True)
class Query:
    """What a panel asks. `shape` of a Postgres query: `table`, or `time_series` (a column `time`,
    and `metric` where rows belong to several lines). `legend` is for Prometheus."""

    text: str
    source: Json = field(default_factory=lambda: RESULTS)
    shape: str = "table"
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: what it asks, how Grafana draws it, what its numbers mean."""

    kind: str
    title: str
    description: str
    queries: tuple[Query, ...]
    width: int
    unit: str = "none"
    decimals: int | None = 2
    colour: Mapping[str, object] = field(default_factory=dict)
    steps: Steps = ((GREY, None),)
    custom: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()
    points_max: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side, all of one height; a `title` draws a heading above them."""

    height: int
    panels: tuple[Panel, ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """One board, before Grafana's JSON. `span` is how far back it looks at first."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Json, ...]
    annotations: tuple[Json, ...] = ()
    span: str = "now-24h"
    refresh: str = "1m"


# --- panels ---------------------------------------------------------------------------------------


def number(
    title: str,
    description: str,
    query: Query,
    width: int,
    *,
    unit: str = "none",
    decimals: int | None = 2,
    colour: Mapping[str, object] | None = None,
    steps: Steps = ((GREY, None),),
) -> Panel:
    """One or few numbers, large: the query gives one row, each column is a number."""
    return Panel(
        kind="stat",
        title=title,
        description=description,
        queries=(query,),
        width=width,
        unit=unit,
        decimals=decimals,
        colour=colour or {},
        steps=steps,
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "auto",
            "textMode": "auto",
            "wideLayout": True,
        },
    )


def lines(
    title: str,
    description: str,
    query: Query | tuple[Query, ...],
    width: int,
    *,
    unit: str = "none",
    decimals: int | None = 2,
    colour: Mapping[str, object] | None = None,
    fill: int = 0,
    draw: str = "line",
    stacked: bool = False,
    spans_holes: bool = False,
    overrides: Sequence[Json] = (),
    points_max: int | None = None,
) -> Panel:
    """Numbers over time. `draw`: line, bars or points; a hole stays a hole unless it is spanned
    (what happens now and then has no value in between)."""
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        queries=query if isinstance(query, tuple) else (query,),
        width=width,
        unit=unit,
        decimals=decimals,
        colour=colour or {"mode": "palette-classic"},
        custom={
            "drawStyle": draw,
            "lineInterpolation": "linear",
            "lineWidth": 2 if draw == "line" else 1,
            "fillOpacity": 70 if draw == "bars" else fill,
            "gradientMode": "opacity" if draw == "line" and fill else "none",
            "showPoints": "always" if draw == "points" else "never",
            "pointSize": 5,
            "spanNulls": spans_holes,
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        },
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
        overrides=overrides,
        points_max=points_max,
    )


def bars(title: str, description: str, query: Query, width: int) -> Panel:
    """How often something happened, by kind: stacked bars."""
    return lines(
        title,
        description,
        query,
        width,
        decimals=0,
        draw="bars",
        stacked=True,
        spans_holes=True,
    )


def table(
    title: str,
    description: str,
    query: Query | tuple[Query, ...],
    width: int,
    *,
    decimals: int | None = 2,
    overrides: Sequence[Json] = (),
    transformations: Sequence[Json] = (),
) -> Panel:
    """Rows and columns; `overrides` give columns their units."""
    return Panel(
        kind="table",
        title=title,
        description=description,
        queries=query if isinstance(query, tuple) else (query,),
        width=width,
        decimals=decimals,
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True},
        options={"showHeader": True, "cellHeight": "sm", "footer": {"show": False}},
        overrides=overrides,
        transformations=transformations,
    )


EVERY_ROW: Final[Json] = {"calcs": ["lastNotNull"], "fields": "", "values": True, "limit": 50}


def shares(title: str, description: str, query: Query, width: int, *, unit: str) -> Panel:
    """A ring: one slice for each row (a name and a number)."""
    return Panel(
        kind="piechart",
        title=title,
        description=description,
        queries=(query,),
        width=width,
        unit=unit,
        colour=BY_NAME,
        options={
            "reduceOptions": EVERY_ROW,
            "pieType": "donut",
            "displayLabels": ["name", "percent"],
            "legend": {"displayMode": "list", "placement": "right", "showLegend": True},
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )


def lengths(
    title: str, description: str, query: Query, width: int, *, unit: str, decimals: int = 2
) -> Panel:
    """Lying bars: one for each row (a name and a number)."""
    return Panel(
        kind="bargauge",
        title=title,
        description=description,
        queries=(query,),
        width=width,
        unit=unit,
        decimals=decimals,
        colour=BY_NAME,
        options={
            "reduceOptions": EVERY_ROW,
            "orientation": "horizontal",
            "displayMode": "basic",
            "valueMode": "text",
            "showUnfilled": True,
        },
    )


def column(name: str, **properties: object) -> Json:
    """How one column is drawn: `unit="percentunit"`, `custom__width=180` for nested names."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [
            {"id": key.replace("__", "."), "value": value} for key, value in properties.items()
        ],
    }


def columns_in(unit: str, *names: str, decimals: int = 2) -> list[Json]:
    """The same unit for several columns."""
    return [column(name, unit=unit, decimals=decimals) for name in names]


# --- variables, annotations -----------------------------------------------------------------------


def chosen(name: str, label: str, sql: str, *, several: bool = False) -> Json:
    """A choice from what the sessions' database has; `several`: any number, all at first."""
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
        "multi": several,
        "includeAll": several,
        "skipUrlSync": False,
        "options": [],
        "current": {"text": ["All"], "value": ["$__all"]} if several else {},
    }


def picked(name: str, label: str, values: Mapping[str, str]) -> Json:
    """A choice among a few fixed values: label → value; the first one at first."""
    options: list[Json] = [
        {"text": text, "value": value, "selected": number == 0}
        for number, (text, value) in enumerate(values.items())
    ]
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "query": ", ".join(f"{text} : {value}" for text, value in values.items()),
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "skipUrlSync": False,
        "options": options,
        "current": {"text": options[0]["text"], "value": options[0]["value"]},
    }


def marks(name: str, query: Query, colour: str) -> Json:
    """Regions or moments over every line: columns time, timeend, text."""
    return {
        "name": name,
        "datasource": query.source,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "target": {"refId": "Anno", **_asked(query)},
    }


# --- rendering ------------------------------------------------------------------------------------


def render_board(board: Board) -> Json:
    """The board as Grafana stores it."""
    return {
        "uid": f"aifap-{board.name}",
        "title": board.title,
        "description": board.description,
        "tags": ["aifap"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": board.refresh,
        "time": {"from": board.span, "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "title": "AIFAP",
                "tags": ["aifap"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
            }
        ],
        "annotations": {"list": list(board.annotations)},
        "templating": {"list": list(board.variables)},
        "panels": lay_out(board.rows),
    }


def lay_out(rows: Sequence[Row]) -> list[Json]:
    """The rows one under another, their panels from left to right.

    ValueError for a row that is wider than the grid.
    """
    panels: list[Json] = []
    y = 0
    for row in rows:
        if row.title:
            panels.append(_heading(row.title, len(panels) + 1, y))
            y += 1
        x = 0
        for panel in row.panels:
            place: Json = {"x": x, "y": y, "w": panel.width, "h": row.height}
            panels.append(render_panel(panel, len(panels) + 1, place))
            x += panel.width
        if x > COLUMNS:
            raise ValueError(f"the row with {row.panels[0].title!r} is {x} columns wide")
        y += row.height
    return panels


def render_panel(panel: Panel, panel_id: int, place: Json) -> Json:
    """The panel as Grafana's JSON."""
    steps: list[Json] = [{"color": colour, "value": value} for colour, value in panel.steps]
    defaults: Json = {
        "unit": panel.unit,
        "noValue": "–",
        "color": dict(panel.colour) or {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": dict(panel.custom),
        "mappings": [],
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    sources = [query.source for query in panel.queries]
    rendered: Json = {
        "id": panel_id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": sources[0] if all(one == sources[0] for one in sources) else MIXED,
        "gridPos": place,
        "interval": "1m",
        "fieldConfig": {"defaults": defaults, "overrides": list(panel.overrides)},
        "options": dict(panel.options),
        "targets": [
            {"refId": chr(ord("A") + index), **_asked(query)}
            for index, query in enumerate(panel.queries)
        ],
    }
    if panel.transformations:
        rendered["transformations"] = list(panel.transformations)
    if panel.points_max is not None:
        rendered["maxDataPoints"] = panel.points_max
    return rendered


def _heading(title: str, panel_id: int, y: int) -> Json:
    return {
        "id": panel_id,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        "panels": [],
    }


def _asked(query: Query) -> Json:
    if query.source["type"] != POSTGRES:
        return {
            "datasource": query.source,
            "editorMode": "code",
            "expr": query.text,
            "legendFormat": query.legend or "__auto",
            "range": True,
            "instant": False,
        }
    return {
        "datasource": query.source,
        "format": query.shape,
        "rawQuery": True,
        "editorMode": "code",
        "rawSql": query.text,
    }
