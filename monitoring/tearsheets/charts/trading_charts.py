"""Charts of what was held, traded and paid. Shaped like those of `return_charts`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from monitoring.tearsheets.charts.axes import (
    DASHED,
    at,
    days,
    legend,
    percent_axis,
    plain_axis,
    small_title,
    thin,
    time_axis,
    zero_line,
)
from monitoring.tearsheets.charts.look import BAD, BLUE, HUES, OTHERS, WARN
from monitoring.tearsheets.charts.return_charts import BARS_DRAWN_MAX, line_why
from monitoring.tearsheets.figures.figure import Figures
from monitoring.tearsheets.frames import Frames
from monitoring.tearsheets.returns import DAY

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

SYMBOLS_DRAWN_MAX: Final = 8
STACKS_MAX: Final = 240


def exposure_why(frames: Frames) -> str:
    """Exposures are measured, or come from the positions."""
    if frames.gross is None or not bool(frames.gross.notna().any()):
        return "The value of the positions over time is not known."
    return "" if len(frames.gross) > 1 else "There is one point only; a line needs two."


def exposure(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    """Gross and net exposure over time."""
    axes = figure.subplots()
    if frames.gross is not None:
        gross = thin(frames.gross)
        axes.plot(at(gross), gross, color=BLUE, label="gross: leverage in use")
    if frames.net is not None:
        net = thin(frames.net)
        axes.plot(at(net), net, color=WARN, linewidth=1.1, label="net: long minus short")
    zero_line(axes)
    legend(figure, axes)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.02), max(high, 0.1))
    plain_axis(axes, suffix=" ×")
    time_axis(axes, figure)


def positions_why(frames: Frames) -> str:
    """A stack needs positions at two moments."""
    if frames.positions is None or len(frames.positions) < 2:
        return "The value of each position over time is not known."
    held = frames.positions.drop(columns="cash")
    return "" if bool((held != 0).any().any()) else "No position was held."


def positions(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    """Stacked in parts of the portfolio's value: long upwards, short downwards."""
    axes = figure.subplots()
    if frames.positions is None:
        return
    shares = _shares(frames.positions)
    ranked = shares.abs().mean().sort_values(ascending=False)
    ranked = ranked[ranked > 0]
    shown = [str(name) for name in ranked.index[:SYMBOLS_DRAWN_MAX]]
    parts = {name: shares[name] for name in shown}
    rest = [name for name in ranked.index if name not in shown]
    if rest:
        parts[f"{len(rest)} others"] = shares[rest].sum(axis=1)
    colours = [*HUES[: len(shown)], *([OTHERS] if rest else [])]
    moments = days(pd.DatetimeIndex(shares.index))
    for sign in (1, -1):
        sided = [(part * sign).clip(lower=0) * sign for part in parts.values()]
        labels = list(parts) if sign == 1 else None
        axes.stackplot(moments, *sided, colors=colours, labels=labels or (), linewidth=0,
                       alpha=0.85)  # fmt: skip
    zero_line(axes)
    legend(figure, axes)
    percent_axis(axes)
    time_axis(axes, figure)


def _shares(positions: pd.DataFrame) -> pd.DataFrame:
    """Each symbol's share of the value, at STACKS_MAX moments at most: the mean of each stretch, as
    a stack of single moments is only noise."""
    from pyfolio.pos import get_percent_alloc

    shares: pd.DataFrame = get_percent_alloc(positions).drop(columns="cash")
    step = math.ceil(len(shares) / STACKS_MAX)
    if step == 1:
        return shares
    place = np.arange(len(shares)) // step
    ends = np.minimum(np.arange(step - 1, len(shares) + step - 1, step), len(shares) - 1)
    return shares.groupby(place).mean().set_axis(shares.index[ends])


def turnover_why(frames: Frames) -> str:
    """Turnover comes from fills."""
    if frames.turnover is None:
        return "Its fills are not known."
    return "" if bool((frames.turnover > 0).any()) else "Nothing was traded."


def turnover(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    """How much was traded in each period."""
    axes = figure.subplots()
    if frames.turnover is None:
        return
    length = frames.turnover_basis.length
    values = frames.turnover.iloc[-BARS_DRAWN_MAX:]
    axes.bar(at(values), values, width=0.8 * length / DAY, align="edge", color=BLUE)
    mean = float(values.mean())
    axes.axhline(mean, color=WARN, linestyle=DASHED, linewidth=1.1)
    small_title(
        axes,
        f"value traded per {frames.turnover_basis.word}, in parts of the portfolio; "
        f"mean {mean * 100:,.1f} %",
    )
    percent_axis(axes)
    time_axis(axes, figure)


def costs_why(frames: Frames) -> str:
    """One of both is enough."""
    if frames.fees is None and frames.funding is None:
        return "Fees and funding over time are not known."
    return line_why(frames)


def costs(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    """Fees and funding so far."""
    axes = figure.subplots()
    for series, colour, name in ((frames.fees, BAD, "fees"), (frames.funding, WARN, "funding")):
        if series is not None:
            line = thin(series)
            axes.step(at(line), line, where="post", color=colour, label=name)
    zero_line(axes)
    legend(figure, axes)
    plain_axis(axes)
    time_axis(axes, figure)
