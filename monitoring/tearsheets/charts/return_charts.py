"""Charts of what was earned and risked. Each draws on a (sub)figure of any size; the functions in
`…_why` say what a history lacks for one (empty: nothing)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import empyrical
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from monitoring.tearsheets.charts.axes import (
    DASHED,
    at,
    day,
    is_narrow,
    legend,
    percent_axis,
    plain_axis,
    room_around,
    small_title,
    thin,
    time_axis,
    two,
    zero_line,
)
from monitoring.tearsheets.charts.look import BAD, BLUE, GOOD, GROUND, PAGE, SOFT, WARN
from monitoring.tearsheets.figures.figure import Figures
from monitoring.tearsheets.figures.spelling import percent
from monitoring.tearsheets.frames import Frames
from monitoring.tearsheets.returns import DAY, HOUR, Basis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

RETURNS_NEEDED: Final = 20
BARS_MAX: Final = 120
BARS_DRAWN_MAX: Final = 400
MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


def line_why(frames: Frames) -> str:
    """A line needs two points."""
    return "" if len(frames.index) > 1 else "There is one point only; a line needs two."


def returns_why(frames: Frames) -> str:
    """What is counted or looked back over needs many returns that differ."""
    count = len(frames.returns)
    if count < RETURNS_NEEDED:
        return f"It needs {RETURNS_NEEDED} returns of one {frames.basis.word}; there are {count}."
    return "" if bool(frames.returns.std() > 0) else "The portfolio's value never varied."


def months_why(frames: Frames) -> str:
    """One month says no more than the total."""
    months = frames.daily.index.tz_convert(None).to_period("M").nunique()  # type: ignore[attr-defined]
    return "" if months >= 2 else "It needs days of two different months."


# --- over time ------------------------------------------------------------------------------------


def growth(figure: FigureBase, frames: Frames, figures: Figures) -> None:
    """The return so far, and below it the distance to the peak."""
    above, below = two(figure, (2.2, 1.0))
    total = thin(frames.index / frames.index.iloc[0] - 1.0)
    colour = GOOD if total.iloc[-1] >= 0 else BAD
    above.plot(at(total), total, color=colour)
    above.fill_between(at(total), total, 0, color=colour, alpha=0.10, linewidth=0)
    zero_line(above)
    for item in figures.drawdowns[:3]:
        until = item.recovered or frames.index.index[-1].to_pydatetime()
        above.axvspan(day(item.peak), day(until), color=BAD, alpha=0.055, linewidth=0)
    room_around(above, total, 1e-4)
    percent_axis(above)
    _underwater(below, frames)
    time_axis(below, figure)
    figure.align_ylabels([above, below])


def _underwater(axes: Axes, frames: Frames) -> None:
    below = thin(frames.index / frames.index.cummax() - 1.0)
    axes.fill_between(at(below), below, 0, color=BAD, alpha=0.35, linewidth=0)
    axes.plot(at(below), below, color=BAD, linewidth=1.0)
    deepest = float(below.min())
    axes.set_ylim(min(deepest * 1.15, -1e-4), 0)
    percent_axis(axes, bins=3)


def worth(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    """Value of the portfolio, and what was paid in."""
    axes = figure.subplots()
    pv = thin(frames.pv)
    axes.plot(at(pv), pv, color=BLUE, label="value of the portfolio")
    moved = frames.document.curve.net_transfers
    begins = frames.document.initial_balance
    if begins is not None:
        paid = pd.Series(float(begins), index=frames.pv.index)
        if moved is not None:
            paid = paid + pd.Series([float(item) for item in moved], index=frames.pv.index)
        paid = thin(paid)
        axes.step(at(paid), paid, where="post", color=SOFT, linewidth=1.0,
                  linestyle=DASHED, label="paid in so far")  # fmt: skip
        legend(figure, axes)
    room_around(axes, pv, max(abs(float(pv.iloc[-1])) * 1e-4, 1e-6))
    plain_axis(axes)
    time_axis(axes, figure)


def rolling(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    """Sharpe ratio and volatility of the latest stretch at each moment."""
    window, year = _rolling_window(frames), frames.basis.per_year
    above, below = two(figure, (1.0, 1.0))
    sharpe = thin(
        empyrical.roll_sharpe_ratio(frames.returns, window=window, annualization=year)
        .replace([np.inf, -np.inf], np.nan)
    )  # fmt: skip
    above.plot(at(sharpe), sharpe, color=BLUE)
    zero_line(above)
    small_title(above, "Sharpe ratio")
    plain_axis(above, bins=4)
    swing = thin(
        empyrical.roll_annual_volatility(frames.returns, window=window, annualization=year)
    )
    below.plot(at(swing), swing, color=WARN)
    small_title(below, "volatility per year")
    below.set_ylim(bottom=0)
    percent_axis(below, bins=4)
    time_axis(below, figure)


def _rolling_window(frames: Frames) -> int:
    """How many returns a rolling ratio looks back over: a month of days, a day of hours, an hour
    of minutes; fewer where the history is short."""
    usual = {DAY: 30, HOUR: 24}.get(frames.basis.length, 60)
    return max(10, min(usual, len(frames.returns) // 3))


# --- by period ------------------------------------------------------------------------------------


def bars(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    """The return of each period."""
    axes = figure.subplots()
    values, basis = _bars_of(frames)
    values = values.iloc[-BARS_DRAWN_MAX:]
    colours = np.where(values >= 0, GOOD, BAD)
    width = 0.8 * basis.length / DAY
    axes.bar(at(values), values, width=width, color=list(colours))
    zero_line(axes)
    small_title(
        axes, f"returns of {basis.word if basis.word[0].isdigit() else 'one ' + basis.word}"
    )
    room_around(axes, values, 1e-4)
    percent_axis(axes)
    time_axis(axes, figure)


def _bars_of(frames: Frames) -> tuple[pd.Series[float], Basis]:
    """Days where there are several, else the basis of the numbers, gathered to BARS_MAX bars."""
    if len(frames.daily) >= 5:
        return frames.daily, Basis(DAY)
    returns, basis = frames.returns, frames.basis
    if basis.length < HOUR and len(returns) > BARS_MAX:
        starts = pd.DatetimeIndex(returns.index) - pd.Timedelta(1, "us")
        gathered = (1.0 + returns).groupby(starts.floor("15min"))
        return gathered.prod() - 1.0, Basis(HOUR / 4)
    return returns, basis


def months(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    """The return of each month: years down, months across."""
    axes = figure.subplots()
    found = empyrical.aggregate_returns(frames.daily, "monthly")
    table = found.unstack()
    if len(table) > 1:
        table = table.reindex(columns=range(1, 13))
    bound = max(float(np.nanmax(np.abs(table.to_numpy()))), 1e-4)
    colours = mpl.colors.LinearSegmentedColormap.from_list("result", [BAD, GROUND, GOOD])
    colours.set_bad(PAGE)
    axes.imshow(table.to_numpy(), cmap=colours, vmin=-bound, vmax=bound, aspect="auto")
    crowded = is_narrow(figure) and len(table.columns) > 6
    for row, year in enumerate(table.index):
        for month, value in enumerate(table.loc[year]):
            if not np.isnan(value):
                text = f"{value * 100:+.1f}".replace("-", "−")
                axes.text(month, row, text, ha="center", va="center", fontsize=6 if crowded else 10)
    names = [MONTHS[month - 1][: 1 if crowded else 3] for month in table]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(table)), [str(year) for year in table.index])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def spread(figure: FigureBase, frames: Frames, figures: Figures) -> None:
    """How many periods had which return."""
    axes = figure.subplots()
    values = frames.returns.to_numpy()
    # Zero is an edge: no bar holds losses and gains, and periods without a change are neither.
    step = float(np.ptp(values)) / min(41, max(9, len(values) // 6))
    first, last = math.floor(values.min() / step - 1e-9), math.floor(values.max() / step) + 1
    edges = np.arange(first, last + 1) * step
    counts, _ = np.histogram(values[values != 0], edges)
    middles = edges[:-1] + step / 2
    axes.bar(middles, counts, width=step * 0.9, color=np.where(middles < 0, BAD, GOOD))
    unchanged = np.count_nonzero(values == 0)
    if unchanged:
        axes.bar(step / 2, unchanged, width=step * 0.9, bottom=counts[-first], color=SOFT)
    bad = figures.find("value_at_risk").value
    if bad is not None:
        axes.axvline(bad, color=WARN, linestyle=DASHED, linewidth=1.2)
        axes.annotate(f"1 in 20 is worse than {percent(bad)}", (bad, 0.97), color=WARN,
                      fontsize=8.5, xycoords=("data", "axes fraction"), ha="left", va="top",
                      xytext=(5, 0), textcoords="offset points")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: percent(float(x))))
    plain_axis(axes)
