"""What charts have in common: axes of time and of percent, legends, lines of few enough points."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from monitoring.tearsheets.charts.look import NARROW_BELOW, SOFT
from monitoring.tearsheets.returns import DAY, EPOCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
POINTS_DRAWN_MAX: Final = 700
DASHED: Final = (0, (4, 3))


def two(figure: FigureBase, ratios: tuple[float, float]) -> tuple[Axes, Axes]:
    """One above the other, over the same time."""
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
    return above, below


def is_narrow(figure: FigureBase) -> bool:
    """Whether the canvas is a phone's."""
    return float(figure.get_figure(root=True).get_size_inches()[0]) < NARROW_BELOW


def zero_line(axes: Axes) -> None:
    """Where nothing is gained or lost."""
    axes.axhline(0, color=SOFT, linewidth=0.7)


def small_title(axes: Axes, words: str) -> None:
    """What these axes show, above them."""
    axes.set_title(words, loc="left", fontsize=9, color=SOFT)


def time_axis(axes: Axes, figure: FigureBase) -> None:
    """Times below; the last word on the axes' width, so called last.

    The ticks are found once, not at every look that a layout takes.
    """
    axes.margins(x=0.01)
    ticks = AutoDateLocator(minticks=3, maxticks=5 if is_narrow(figure) else 10)  # type: ignore[no-untyped-call]
    ticks.set_axis(axes.xaxis)
    axes.xaxis.set_major_locator(FixedLocator(ticks()))
    formatter = ConciseDateFormatter(ticks, show_offset=True)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.xaxis.get_offset_text().set_color(SOFT)


def percent_axis(axes: Axes, *, bins: int = 5) -> None:
    """Fractions as percent, with as many digits as the scale needs."""
    low, high = axes.get_ylim()
    digits = max(0, min(4, 1 - math.floor(math.log10(max(high - low, 1e-9) * 100 / bins))))
    digits = 0 if (high - low) * 100 / bins >= 1 else digits
    axes.yaxis.set_major_locator(MaxNLocator(bins))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value * 100:.{digits}f} %".replace("-", "−"))
    )


def plain_axis(axes: Axes, suffix: str = "", bins: int = 5) -> None:
    """Numbers as they are."""
    axes.yaxis.set_major_locator(MaxNLocator(bins))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.10g}{suffix}".replace("-", "−"))
    )


def room_around(axes: Axes, series: pd.Series[float], least: float) -> None:
    """A flat line lies in the middle of a scale, not on a scale of rounding errors."""
    low, high = float(series.min()), float(series.max())
    if high - low < least:
        middle = (high + low) / 2
        axes.set_ylim(middle - least, middle + least)


def legend(figure: FigureBase, axes: Axes) -> None:
    """Under the axes, so that it covers no line."""
    handles, names = axes.get_legend_handles_labels()
    columns = 3 if is_narrow(figure) else 9
    figure.legend(handles, names, loc="outside lower center", ncols=min(columns, len(names)))


# --- points ---------------------------------------------------------------------------------------


def thin(series: pd.Series[float]) -> pd.Series[float]:
    """At most POINTS_DRAWN_MAX points and the two ends: of each stretch its lowest and highest, in
    order."""
    count, stretches = len(series), POINTS_DRAWN_MAX // 2
    if count <= POINTS_DRAWN_MAX:
        return series
    values = series.to_numpy()
    length, longer = divmod(count, stretches)
    middle = longer * (length + 1)  # the first stretches are longer by one
    kept = [np.array([0, count - 1])]
    for begin, rows in (
        (0, values[:middle].reshape(longer, length + 1)),
        (middle, values[middle:].reshape(stretches - longer, length)),
    ):
        missing = np.isnan(rows)
        starts = begin + np.arange(len(rows)) * rows.shape[1]
        lowest = np.where(missing, np.inf, rows).argmin(axis=1)
        highest = np.where(missing, -np.inf, rows).argmax(axis=1)
        known = ~missing.all(axis=1)
        kept += [(starts + lowest)[known], (starts + highest)[known]]
    return series.iloc[np.unique(np.concatenate(kept))]


def at(series: pd.Series[float]) -> Floats:
    """The series' times as matplotlib counts them: days since the epoch."""
    return days(pd.DatetimeIndex(series.index))


def days(moments: pd.DatetimeIndex) -> Floats:
    """Moments as matplotlib counts them."""
    since = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    return np.asarray(since, dtype=np.float64)


def day(moment: datetime) -> float:
    """One moment as matplotlib counts it."""
    return (moment - EPOCH) / DAY
