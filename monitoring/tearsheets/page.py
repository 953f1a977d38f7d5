"""The page of a tear sheet: one HTML file that needs nothing else; imported by the worker.

Pictures are inline, there is no script, and its own content policy forbids the rest. Every text
that somebody gave is escaped.
"""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from module.model.canonical import instant_text
from monitoring.tearsheets.charts.drawing import Drawn
from monitoring.tearsheets.figures.figure import Drawdown, Figures
from monitoring.tearsheets.figures.spelling import percent, span
from monitoring.tearsheets.frames import Frames
from monitoring.tearsheets.returns import DAY

HEADLINES: Final = ("total_return", "net_profit", "max_drawdown", "sharpe")


def render(frames: Frames, figures: Figures, drawn: list[Drawn]) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    document = frames.document
    begin, end = frames.index.index[0].to_pydatetime(), frames.index.index[-1].to_pydatetime()
    return environment.get_template("page.html").render(
        document=document,
        begin=_moment(begin),
        end=_moment(end),
        length=span(frames.length),
        notes=_notes(frames),
        headlines=[figures.find(key) for key in HEADLINES],
        charts=[
            {
                "title": item.chart.title,
                "meaning": item.chart.meaning,
                "reason": item.reason,
                "wide": _inline(item.wide),
                "narrow": _inline(item.narrow),
            }
            for item in drawn
        ],
        groups=figures.groups,
        drawdowns=[_drawdown(item) for item in figures.drawdowns],
        word=frames.basis.word,
        days_per_year=frames.basis.days_per_year,
        best=[(_period(frames, at), percent(value)) for at, value in figures.best],
        worst=[(_period(frames, at), percent(value)) for at, value in figures.worst],
    )


def numbers(frames: Frames, figures: Figures) -> dict[str, object]:
    """The same numbers for programs."""
    return {
        "title": frames.document.title,
        "from": instant_text(frames.index.index[0].to_pydatetime()),
        "to": instant_text(frames.index.index[-1].to_pydatetime()),
        "basis": frames.basis.word,
        "returns": len(frames.returns),
        "periods_per_year": frames.basis.per_year,
        "figures": {
            item.key: {
                "value": item.value,
                "unit": item.unit,
                **({"reason": item.reason} if item.reason else {}),
            }
            for _, items in figures.groups
            for item in items
        },
        "drawdowns": [
            {
                "depth": item.depth,
                "peak": instant_text(item.peak),
                "valley": instant_text(item.valley),
                "recovered": None if item.recovered is None else instant_text(item.recovered),
                "length_s": item.length.total_seconds(),
            }
            for item in figures.drawdowns
        ],
    }


def _notes(frames: Frames) -> list[str]:
    """What a reader must know before the numbers."""
    count, word = len(frames.returns), frames.basis.word
    year = f"a year has {frames.basis.days_per_year} days"
    notes = [f"Ratios come from {count:,} returns of one {word}; {year}, all times are UTC."]
    if frames.basis.length < DAY and len(frames.index) > 1:
        days = len(frames.daily)
        days_word = "day" if days == 1 else "days"
        notes.append(
            f"The history has {days} UTC {days_word}, so ratios are of one {word}; scaled to a "
            "year they swing widely."
        )
    if len(frames.index) == 1:
        notes.append("There is one point only: most of what a tear sheet tells needs two.")
    elif bool(frames.index.max() == frames.index.min()):
        notes.append("The value never changed, so there is no risk to measure.")
    if frames.undefined:
        notes.append(
            f"{frames.undefined} steps began at a value of zero or less and have no return; "
            "the curve goes on after them."
        )
    gaps = frames.document.measured.gap_minutes
    if gaps:
        notes.append(
            f"{gaps:,} minutes were not measured; the return over each gap counts where the curve "
            "goes on."
        )
    return notes + list(frames.document.notes)


def _inline(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"


def _period(frames: Frames, end: datetime) -> str:
    if frames.basis.length == DAY:
        return f"{end - DAY:%Y-%m-%d}"
    return f"to {_moment(end)}"


def _drawdown(item: Drawdown) -> dict[str, str]:
    return {
        "depth": percent(item.depth),
        "peak": _moment(item.peak),
        "valley": _moment(item.valley),
        "recovered": "not yet" if item.recovered is None else _moment(item.recovered),
        "length": span(item.length),
    }
