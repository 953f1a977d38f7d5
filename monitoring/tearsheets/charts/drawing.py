"""All charts of a sheet: for the page, each wide and narrow; and together as one picture.

What a history is too short for is not drawn: `why_not` says what is missing.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine

from monitoring.tearsheets.charts import return_charts, trading_charts
from monitoring.tearsheets.charts.look import (
    BAD,
    GOOD,
    NARROW,
    PAGE,
    PAGE_STYLE,
    SOFT,
    STYLE,
    TEXT,
    WIDE,
)
from monitoring.tearsheets.figures.figure import Figures
from monitoring.tearsheets.frames import Frames

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

SVG_DPI: Final = 72
PICTURE_DPI: Final = 110
PICTURE_WIDTH: Final = 11.0
HEADLINES: Final = (
    "total_return", "net_profit", "max_drawdown", "sharpe", "volatility", "turnover",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. `why_not` is why it cannot be drawn (empty: it can)."""

    key: str
    title: str
    meaning: str
    why_not: Callable[[Frames], str]
    draw: Callable[[FigureBase, Frames, Figures], None]
    height: float = 1.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """One chart as two SVG pictures, or why there is none."""

    chart: Chart
    wide: bytes
    narrow: bytes
    reason: str


CHARTS: Final = (
    Chart(
        "growth",
        "Return, and how far below its peak",
        "Above: what was earned so far, net of deposits and withdrawals; the shaded stretches are "
        "the three deepest drawdowns. Below: the distance to the highest point so far.",
        return_charts.line_why,
        return_charts.growth,
        1.25,
    ),
    Chart(
        "worth",
        "Value of the portfolio",
        "Wallet balance plus unrealised profit, in the quote asset; deposits and withdrawals show.",
        return_charts.line_why,
        return_charts.worth,
    ),
    Chart(
        "bars",
        "Return of each period",
        "One bar per UTC day (or shorter period, where there are few days); at most the last 400.",
        return_charts.line_why,
        return_charts.bars,
    ),
    Chart(
        "months",
        "Return of each month",
        "In percent; red lost, green gained.",
        return_charts.months_why,
        return_charts.months,
        0.8,
    ),
    Chart(
        "rolling",
        "Return for risk, looking back",
        "Sharpe ratio and volatility of the latest stretch at each moment, per year: a "
        "month of days, a day of hours, or an hour of minutes, shorter where the history is.",
        return_charts.returns_why,
        return_charts.rolling,
        1.25,
    ),
    Chart(
        "spread",
        "How often which return",
        "How many periods had which return.",
        return_charts.returns_why,
        return_charts.spread,
        0.9,
    ),
    Chart(
        "exposure",
        "Exposure and leverage",
        "Value of the positions divided by the portfolio's value. Gross counts long and short "
        "alike, net sets one against the other.",
        trading_charts.exposure_why,
        trading_charts.exposure,
    ),
    Chart(
        "positions",
        "Positions over time",
        "Each symbol's share of the portfolio's value; long above the line, short below.",
        trading_charts.positions_why,
        trading_charts.positions,
        1.15,
    ),
    Chart(
        "turnover",
        "Turnover",
        "How much was bought and sold, against what the portfolio was worth.",
        trading_charts.turnover_why,
        trading_charts.turnover,
    ),
    Chart(
        "costs",
        "Fees and funding so far",
        "In the quote asset; negative was paid, positive was received.",
        trading_charts.costs_why,
        trading_charts.costs,
    ),
)


def draw_all(frames: Frames, figures: Figures) -> list[Drawn]:
    """Every chart of the page, in its order."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # its stubs list every name
        return [_drawn(chart, frames, figures) for chart in CHARTS]


def draw_picture(frames: Frames, figures: Figures) -> bytes:
    """All charts that can be drawn and the main numbers, as one PNG."""
    charts = [chart for chart in CHARTS if not chart.why_not(frames)]
    heights = [1.15, *[3.1 * _height(chart, frames) + 0.45 for chart in charts], 0.35]
    with mpl.rc_context(PAGE_STYLE):  # type: ignore[arg-type]  # its stubs list every name
        layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.06)
        canvas = Canvas(figsize=(PICTURE_WIDTH, sum(heights)), dpi=PICTURE_DPI, layout=layout)
        rooms = list(np.ravel(canvas.subfigures(len(heights), 1, height_ratios=heights)))  # type: ignore[arg-type]
        _headline(rooms[0], frames, figures)
        for room, chart in zip(rooms[1:], charts, strict=False):
            room.set_facecolor(PAGE)
            room.suptitle(chart.title, x=0.02, ha="left", fontsize=12, fontweight="bold")
            chart.draw(room, frames, figures)
        basis = frames.basis
        about = (
            f"All times UTC; returns of one {basis.word}; a year has {basis.days_per_year} days."
        )
        rooms[-1].text(0.02, 0.5, about, color=SOFT, fontsize=8.5, va="center")
        return _save(canvas, "png")


def _drawn(chart: Chart, frames: Frames, figures: Figures) -> Drawn:
    reason = chart.why_not(frames)
    if reason:
        return Drawn(chart, b"", b"", reason)
    pictures = []
    for width, height in (WIDE, NARROW):
        size = (width, height * _height(chart, frames))
        canvas = Canvas(figsize=size, layout="constrained")
        chart.draw(canvas, frames, figures)
        pictures.append(_save(canvas, "svg"))
    return Drawn(chart, pictures[0], pictures[1], "")


def _height(chart: Chart, frames: Frames) -> float:
    """Of the usual height; the months need a row a year."""
    if chart.key != "months":
        return chart.height
    years = pd.DatetimeIndex(frames.daily.index).year.nunique()
    return min(1.6, 0.2 + 0.13 * int(years))


def _save(canvas: Canvas, kind: Literal["svg", "png"]) -> bytes:
    """The file. Left to itself, `savefig` draws everything once without ink, only to lay it out,
    which costs a third of it all; so the layout is done before, by what will draw."""
    dpi = canvas.dpi
    if kind == "svg":
        FigureCanvasSVG(canvas)
        canvas.set_dpi(SVG_DPI)
    else:
        FigureCanvasAgg(canvas)
    layout = canvas.get_layout_engine()
    if layout is not None and canvas.axes:
        layout.execute(canvas)
    canvas.set_layout_engine(None)
    out = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    canvas.savefig(out, format=kind, dpi=dpi, metadata=metadata)
    return out.getvalue()


def _headline(room: FigureBase, frames: Frames, figures: Figures) -> None:
    document = frames.document
    room.set_facecolor(PAGE)
    begin, end = frames.index.index[0], frames.index.index[-1]
    room.text(
        0.02, 0.84, document.title, fontsize=15, fontweight="bold", va="center", parse_math=False
    )
    when = f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    line = f"{document.subtitle}   {when}" if document.subtitle else when
    room.text(0.02, 0.60, line, fontsize=9, color=SOFT, va="center", parse_math=False)
    for place, key in enumerate(HEADLINES):
        figure = figures.find(key)
        left = 0.02 + place * 0.163
        room.text(left, 0.34, figure.title, fontsize=8.5, color=SOFT, va="center")
        text = figure.text or "—"
        colour = TEXT
        if key in ("total_return", "net_profit") and figure.value:
            colour = GOOD if figure.value > 0 else BAD
        room.text(left, 0.12, text, fontsize=11, fontweight="bold", color=colour, va="center")
