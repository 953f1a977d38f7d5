"""Boards drawn as plain pages with their real answers: what a person sees, without a Grafana.

    boards + answers ─► one HTML page per board, to open in any browser

Not Grafana's drawing: places, titles, numbers, lines and tables, enough to see what is too wide,
empty, or of the wrong unit.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tests.integration.dashboards.asked import Json, Question, boards, questions_of
from tests.integration.dashboards.frames import NUMBERS, WORDS, Answer

COLUMN_PX, ROW_PX = 58, 34
COLOURS: Final = ("#00FF88", "#4A90D9", "#FF6B35", "#9B59B6", "#F5C542", "#FF6B6B", "#3EC6C6")
STYLE: Final = """
body{background:#1a1a1a;color:#eee;font:12px sans-serif;margin:16px}
.board{position:relative}
.panel{position:absolute;background:#2a2a2a;border-radius:6px;overflow:hidden;box-sizing:border-box;
padding:6px}
.row{position:absolute;color:#9cf;font-weight:bold;padding-top:8px}
h2{font-size:12px;margin:0 0 4px}
.big{font-size:24px;text-align:center;padding-top:18px}
td,th{padding:1px 8px;text-align:left;white-space:nowrap;font-size:11px}
"""


def draw_pages(folder: Path, answers: Mapping[Question, Answer]) -> None:
    """A page for each board into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, board in boards().items():
        page = "".join(_panel(name, panel, answers) for panel in board["panels"])
        height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"]) * ROW_PX
        (folder / f"{name}.html").write_text(
            f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><h1>{board['title']}</h1>"
            f"<div class=board style='height:{height}px'>{page}</div>"
        )


def _panel(name: str, panel: Json, answers: Mapping[Question, Answer]) -> str:
    place = panel["gridPos"]
    width, height = place["w"] * COLUMN_PX - 8, place["h"] * ROW_PX - 8
    where = (
        f"left:{place['x'] * COLUMN_PX}px;top:{place['y'] * ROW_PX}px;"
        f"width:{width}px;height:{height}px"
    )
    title = html.escape(panel["title"])
    if panel["type"] == "row":
        return f"<div class=row style='{where}'>{title}</div>"
    one = {"panels": [panel], "templating": {"list": []}, "annotations": {"list": []}}
    found = [answers[question] for question in questions_of(name, one) if question in answers]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    draw = {"stat": _number, "timeseries": _lines}.get(panel["type"], _table)
    inner = "".join(draw(answer, unit, width, height - 30) for answer in found if answer.names)
    inner = inner or "<i>Prometheus</i>"
    return f"<div class=panel style='{where}'><h2>{title}</h2>{inner}</div>"


def _number(answer: Answer, unit: str, _width: int, _height: int) -> str:
    row = answer.rows[0] if answer.rows else ()
    cells = " · ".join(
        f"{html.escape(name)} {_shown(value, unit)}"
        for name, value in zip(answer.names, row, strict=False)
    )
    return f"<div class=big>{cells or '–'}</div>"


def _table(answer: Answer, _unit: str, _width: int, _height: int) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in answer.names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_shown(value, '')}</td>" for value in row) + "</tr>"
        for row in answer.rows[:12]
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _lines(answer: Answer, unit: str, width: int, height: int) -> str:
    lines = _series(answer)
    points = [(at, value) for line in lines.values() for at, value in line if value is not None]
    if not points:
        return "<div class=big>–</div>"
    (first, last), (low, high) = ((min(each), max(each)) for each in zip(*points, strict=True))
    across, up = (last - first) or 1.0, (high - low) or 1.0
    drawn = ""
    for number, line in enumerate(lines.values()):
        colour, pen = COLOURS[number % len(COLOURS)], "M"
        path = ""
        for at, value in line:
            if value is None:
                pen = "M"
                continue
            x, y = (at - first) / across * (width - 20), (1 - (value - low) / up) * (height - 40)
            path += f"{pen}{x:.1f},{y:.1f}"
            pen = "L"
        drawn += f"<path d='{path}' fill=none stroke='{colour}' stroke-width=1.5 />"
    names = " ".join(
        f"<span style='color:{COLOURS[number % len(COLOURS)]}'>{html.escape(name)}</span>"
        for number, name in enumerate(lines)
    )
    return (
        f"<div>{_shown(low, unit)} … {_shown(high, unit)}</div>"
        f"<svg width={width} height={height - 40}>{drawn}</svg><div>{names}</div>"
    )


def _series(answer: Answer) -> dict[str, list[tuple[float, float | None]]]:
    found: dict[str, list[tuple[float, float | None]]] = {}
    kinds = dict(zip(answer.names, answer.types, strict=True))
    numbers = [name for name in answer.names if kinds[name] in NUMBERS and name != "time"]
    words = [name for name in answer.names if kinds[name] in WORDS]
    for row in answer.rows:
        cells = dict(zip(answer.names, row, strict=True))
        at = cells["time"]
        seconds = at.timestamp() if isinstance(at, datetime) else float(at)
        for name in numbers:
            value = cells[name]
            line = str(cells[words[0]]) if words else name
            found.setdefault(line, []).append((seconds, None if value is None else float(value)))
    return found


def _shown(value: Any, unit: str) -> str:
    if isinstance(value, datetime):
        return f"{value:%m-%d %H:%M:%S}"
    if isinstance(value, float | Decimal):
        text = {"percentunit": f"{value:.2%}", "currencyUSD": f"${value:,.2f}"}.get(unit)
        return text or f"{value:,.4g}"
    return html.escape("" if value is None else str(value))
