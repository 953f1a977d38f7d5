"""The pictures of a tear sheet, drawn dark with matplotlib; imported by the worker.

Each chart is one function on a (sub)figure, so that the page shows it twice (wide, and narrow for
a phone) and the one picture of all shows it once more. What a history is too short for is not
drawn: `why_not` says what is missing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from monitoring.tearsheets.figures import Figures, percent
from monitoring.tearsheets.frames import Frames
from monitoring.tearsheets.returns import DAY, EPOCH, HOUR, Basis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
GROUND: Final = "#181e24"
PAGE: Final = "#101418"
EDGE: Final = "#2b343d"
TEXT: Final = "#e6ebf0"
SOFT: Final = "#9aa7b4"
GOOD: Final = "#4cc38a"
BAD: Final = "#f2756b"
WARN: Final = "#e8b44a"
BLUE: Final = "#6cabf0"
HUES: Final = (
    "#6cabf0", "#4cc38a", "#e8b44a", "#c78df2", "#f2756b", "#5fd0d6", "#f29ac0", "#a9c25d",
)  # fmt: skip
OTHERS: Final = "#6b7885"
POINTS_DRAWN_MAX: Final = 700
SYMBOLS_DRAWN_MAX: Final = 8
STACKS_MAX: Final = 240
BARS_MAX: Final = 120
MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
WIDE: Final = (10.0, 3.6)
NARROW: Final = (4.6, 3.5)
STYLE: Final = {
    "figure.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "savefig.facecolor": GROUND,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": EDGE,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": TEXT,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "lines.linewidth": 1.6,
    "lines.solid_joinstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "aifap",
    "svg.fonttype": "path",
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
}


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


def draw_all(frames: Frames, figures: Figures) -> list[Drawn]:
    """Every chart of the page, in its order."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # its stubs list every name
        return [_drawn(chart, frames, figures) for chart in CHARTS]


def draw_picture(frames: Frames, figures: Figures) -> bytes:
    """All charts that can be drawn and the main numbers, as one PNG."""
    charts = [chart for chart in CHARTS if not chart.why_not(frames)]
    heights = [1.15, *[3.1 * _height(chart, frames) + 0.45 for chart in charts], 0.35]
    style = STYLE | {"savefig.facecolor": PAGE, "figure.facecolor": PAGE}
    with mpl.rc_context(style):  # type: ignore[arg-type]  # its stubs list every name
        layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.06)
        canvas = Canvas(figsize=(11.0, sum(heights)), dpi=110, layout=layout)
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


def _save(canvas: Canvas, kind: str) -> bytes:
    out = io.BytesIO()
    canvas.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else None)
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
    shown = ("total_return", "net_profit", "max_drawdown", "sharpe", "volatility", "turnover")
    for place, key in enumerate(shown):
        figure = figures.find(key)
        left = 0.02 + place * 0.163
        room.text(left, 0.34, figure.title, fontsize=8.5, color=SOFT, va="center")
        text = figure.text or "—"
        colour = TEXT
        if key in ("total_return", "net_profit") and figure.value:
            colour = GOOD if figure.value > 0 else BAD
        room.text(left, 0.12, text, fontsize=11, fontweight="bold", color=colour, va="center")


# --- axes -----------------------------------------------------------------------------------------


def _width(figure: FigureBase) -> float:
    """In inches, of the whole canvas."""
    return float(figure.get_figure(root=True).get_size_inches()[0])


def _time_axis(axes: Axes, figure: FigureBase) -> None:
    ticks = AutoDateLocator(minticks=3, maxticks=5 if _width(figure) < 6 else 10)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(ticks)
    formatter = ConciseDateFormatter(ticks, show_offset=True)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.xaxis.get_offset_text().set_color(SOFT)
    axes.margins(x=0.01)


def _percent_axis(axes: Axes, *, bins: int = 5) -> None:
    low, high = axes.get_ylim()
    digits = max(0, min(4, 1 - math.floor(math.log10(max(high - low, 1e-9) * 100 / bins))))
    digits = 0 if (high - low) * 100 / bins >= 1 else digits
    axes.yaxis.set_major_locator(MaxNLocator(bins))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value * 100:.{digits}f} %".replace("-", "−"))
    )


def _plain_axis(axes: Axes, suffix: str = "", bins: int = 5) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(bins))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.10g}{suffix}".replace("-", "−"))
    )


def _thin(series: pd.Series[float]) -> pd.Series[float]:
    """At most POINTS_DRAWN_MAX points: of each stretch its lowest and highest, in order."""
    if len(series) <= POINTS_DRAWN_MAX:
        return series
    stretches = np.array_split(np.arange(len(series)), POINTS_DRAWN_MAX // 2)
    values = series.to_numpy()
    kept = {0, len(series) - 1}
    for places in stretches:
        part = values[places]
        if not np.all(np.isnan(part)):
            kept |= {int(places[np.nanargmin(part)]), int(places[np.nanargmax(part)])}
    return series.iloc[sorted(kept)]


def _at(series: pd.Series[float]) -> Floats:
    """The series' times as matplotlib counts them: days since the epoch."""
    return _days(pd.DatetimeIndex(series.index))


def _days(at: pd.DatetimeIndex) -> Floats:
    since = (at - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    return np.asarray(since, dtype=np.float64)


def _day(moment: datetime) -> float:
    return (moment - EPOCH) / DAY


def _room_around(axes: Axes, series: pd.Series[float], least: float) -> None:
    """A flat line lies in the middle of a scale, not on a scale of rounding errors."""
    low, high = float(series.min()), float(series.max())
    if high - low < least:
        middle = (high + low) / 2
        axes.set_ylim(middle - least, middle + least)


def _legend(figure: FigureBase, axes: Axes) -> None:
    """Under the axes, so that it covers no line."""
    handles, names = axes.get_legend_handles_labels()
    columns = 3 if _width(figure) < 6 else 9
    figure.legend(handles, names, loc="outside lower center", ncols=min(columns, len(names)))


def _two(figure: FigureBase, ratios: tuple[float, float]) -> tuple[Axes, Axes]:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
    return above, below


# --- charts ---------------------------------------------------------------------------------------


def _needs_two(frames: Frames) -> str:
    return "" if len(frames.index) > 1 else "There is one point only; a line needs two."


def _growth(figure: FigureBase, frames: Frames, figures: Figures) -> None:
    above, below = _two(figure, (2.2, 1.0))
    total = _thin(frames.index / frames.index.iloc[0] - 1.0)
    colour = GOOD if total.iloc[-1] >= 0 else BAD
    above.plot(_at(total), total, color=colour)
    above.fill_between(_at(total), total, 0, color=colour, alpha=0.10, linewidth=0)
    above.axhline(0, color=SOFT, linewidth=0.7)
    for item in figures.drawdowns[:3]:
        until = item.recovered or frames.index.index[-1].to_pydatetime()
        above.axvspan(_day(item.peak), _day(until), color=BAD, alpha=0.055, linewidth=0)
    _room_around(above, total, 1e-4)
    _percent_axis(above)
    _underwater(below, frames)
    _time_axis(below, figure)
    figure.align_ylabels([above, below])


def _underwater(axes: Axes, frames: Frames) -> None:
    below = _thin(frames.index / frames.index.cummax() - 1.0)
    axes.fill_between(_at(below), below, 0, color=BAD, alpha=0.35, linewidth=0)
    axes.plot(_at(below), below, color=BAD, linewidth=1.0)
    deepest = float(below.min())
    axes.set_ylim(min(deepest * 1.15, -1e-4), 0)
    _percent_axis(axes, bins=3)


def _worth(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    axes = figure.subplots()
    pv = _thin(frames.pv)
    axes.plot(_at(pv), pv, color=BLUE, label="value of the portfolio")
    moved = frames.document.curve.net_transfers
    begins = frames.document.initial_balance
    if begins is not None:
        paid = pd.Series(float(begins), index=frames.pv.index)
        if moved is not None:
            paid = paid + pd.Series([float(item) for item in moved], index=frames.pv.index)
        paid = _thin(paid)
        axes.step(_at(paid), paid, where="post", color=SOFT, linewidth=1.0,
                  linestyle=(0, (4, 3)), label="paid in so far")  # fmt: skip
        _legend(figure, axes)
    _room_around(axes, pv, max(abs(float(pv.iloc[-1])) * 1e-4, 1e-6))
    _plain_axis(axes)
    _time_axis(axes, figure)


def rolling_window(frames: Frames) -> int:
    """How many returns a rolling ratio looks back over: a month of days, a day of hours, an hour
    of minutes; fewer where the history is short."""
    usual = {DAY: 30, HOUR: 24}.get(frames.basis.length, 60)
    return max(10, min(usual, len(frames.returns) // 3))


def _rolling_why(frames: Frames) -> str:
    count, wanted = len(frames.returns), 20
    if count < wanted:
        return f"It needs {wanted} returns of one {frames.basis.word}; there are {count}."
    return "" if bool(frames.returns.std() > 0) else "The portfolio's value never varied."


def _rolling(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    import empyrical

    window, year = rolling_window(frames), frames.basis.per_year
    above, below = _two(figure, (1.0, 1.0))
    sharpe = _thin(
        empyrical.roll_sharpe_ratio(frames.returns, window=window, annualization=year)
        .replace([np.inf, -np.inf], np.nan)
    )  # fmt: skip
    above.plot(_at(sharpe), sharpe, color=BLUE)
    above.axhline(0, color=SOFT, linewidth=0.7)
    above.set_title("Sharpe ratio", loc="left", fontsize=9, color=SOFT)
    _plain_axis(above, bins=4)
    swing = _thin(
        empyrical.roll_annual_volatility(frames.returns, window=window, annualization=year)
    )
    below.plot(_at(swing), swing, color=WARN)
    below.set_title("volatility per year", loc="left", fontsize=9, color=SOFT)
    below.set_ylim(bottom=0)
    _percent_axis(below, bins=4)
    _time_axis(below, figure)


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


def _bars(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    axes = figure.subplots()
    values, basis = _bars_of(frames)
    if len(values) > 400:
        values = values.iloc[-400:]
    colours = np.where(values >= 0, GOOD, BAD)
    width = 0.8 * basis.length / DAY
    axes.bar(_at(values), values, width=width, color=list(colours))
    axes.axhline(0, color=SOFT, linewidth=0.7)
    axes.set_title(f"returns of {basis.word if basis.word[0].isdigit() else 'one ' + basis.word}",
                   loc="left", fontsize=9, color=SOFT)  # fmt: skip
    _room_around(axes, values, 1e-4)
    _percent_axis(axes)
    _time_axis(axes, figure)


def _months_why(frames: Frames) -> str:
    months = frames.daily.index.tz_convert(None).to_period("M").nunique()  # type: ignore[attr-defined]
    return "" if months >= 2 else "It needs days of two different months."


def _months(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    import empyrical

    axes = figure.subplots()
    found = empyrical.aggregate_returns(frames.daily, "monthly")
    table = found.unstack()
    if len(table) > 1:
        table = table.reindex(columns=range(1, 13))
    bound = max(float(np.nanmax(np.abs(table.to_numpy()))), 1e-4)
    colours = mpl.colors.LinearSegmentedColormap.from_list("result", [BAD, GROUND, GOOD])
    colours.set_bad(PAGE)
    axes.imshow(table.to_numpy(), cmap=colours, vmin=-bound, vmax=bound, aspect="auto")
    small = _width(figure) < 6
    size = 6 if small and len(table.columns) > 6 else 10
    for row, year in enumerate(table.index):
        for month, value in enumerate(table.loc[year]):
            if not np.isnan(value):
                text = f"{value * 100:+.1f}".replace("-", "−")
                axes.text(month, row, text, ha="center", va="center", fontsize=size)
    names = [MONTHS[month - 1][: 1 if small and len(table.columns) > 6 else 3] for month in table]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(table)), [str(year) for year in table.index])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _spread_why(frames: Frames) -> str:
    count, wanted = len(frames.returns), 20
    if count < wanted:
        return f"It needs {wanted} returns of one {frames.basis.word}; there are {count}."
    return "" if bool(frames.returns.std() > 0) else "The portfolio's value never varied."


def _spread(figure: FigureBase, frames: Frames, figures: Figures) -> None:
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
        axes.axvline(bad, color=WARN, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.annotate(f"1 in 20 is worse than {percent(bad)}", (bad, 0.97), color=WARN,
                      fontsize=8.5, xycoords=("data", "axes fraction"), ha="left", va="top",
                      xytext=(5, 0), textcoords="offset points")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: percent(float(x))))
    _plain_axis(axes)


def _exposure_why(frames: Frames) -> str:
    if frames.gross is None or not bool(frames.gross.notna().any()):
        return "The value of the positions over time is not known."
    return "" if len(frames.gross) > 1 else "There is one point only; a line needs two."


def _exposure(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    axes = figure.subplots()
    if frames.gross is not None:
        gross = _thin(frames.gross)
        axes.plot(_at(gross), gross, color=BLUE, label="gross: leverage in use")
    if frames.net is not None:
        net = _thin(frames.net)
        axes.plot(_at(net), net, color=WARN, linewidth=1.1, label="net: long minus short")
    axes.axhline(0, color=SOFT, linewidth=0.7)
    _legend(figure, axes)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.02), max(high, 0.1))
    _plain_axis(axes, suffix=" ×")
    _time_axis(axes, figure)


def _positions_why(frames: Frames) -> str:
    if frames.positions is None or len(frames.positions) < 2:
        return "The value of each position over time is not known."
    held = frames.positions.drop(columns="cash")
    return "" if bool((held != 0).any().any()) else "No position was held."


def _positions(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    """Stacked in parts of the portfolio's value: long upwards, short downwards."""
    from pyfolio.pos import get_percent_alloc

    axes = figure.subplots()
    if frames.positions is None:
        return
    shares = get_percent_alloc(frames.positions).drop(columns="cash")
    step = math.ceil(len(shares) / STACKS_MAX)
    if step > 1:  # the mean of each stretch: a stack of single moments is only noise
        place = np.arange(len(shares)) // step
        ends = shares.index[
            np.minimum(np.arange(step - 1, len(shares) + step - 1, step), len(shares) - 1)
        ]
        shares = shares.groupby(place).mean().set_axis(ends)
    ranked = shares.abs().mean().sort_values(ascending=False)
    ranked = ranked[ranked > 0]
    shown = [str(name) for name in ranked.index[:SYMBOLS_DRAWN_MAX]]
    parts = {name: shares[name] for name in shown}
    rest = [name for name in ranked.index if name not in shown]
    if rest:
        parts[f"{len(rest)} others"] = shares[rest].sum(axis=1)
    colours = [*HUES[: len(shown)], *([OTHERS] if rest else [])]
    at = _days(pd.DatetimeIndex(shares.index))
    for sign in (1, -1):
        sided = [(part * sign).clip(lower=0) * sign for part in parts.values()]
        labels = list(parts) if sign == 1 else None
        axes.stackplot(at, *sided, colors=colours, labels=labels or (), linewidth=0, alpha=0.85)
    axes.axhline(0, color=SOFT, linewidth=0.7)
    _legend(figure, axes)
    _percent_axis(axes)
    _time_axis(axes, figure)


def _turnover_why(frames: Frames) -> str:
    if frames.turnover is None:
        return "Its fills are not known."
    return "" if bool((frames.turnover > 0).any()) else "Nothing was traded."


def _turnover(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    axes = figure.subplots()
    if frames.turnover is None:
        return
    values, length = frames.turnover, frames.turnover_basis.length
    if len(values) > 400:
        values = values.iloc[-400:]
    axes.bar(_at(values), values, width=0.8 * length / DAY, align="edge", color=BLUE)
    mean = float(values.mean())
    axes.axhline(mean, color=WARN, linestyle=(0, (4, 3)), linewidth=1.1)
    axes.set_title(f"value traded per {frames.turnover_basis.word}, in parts of the portfolio; "
                   f"mean {mean * 100:,.1f} %", loc="left", fontsize=9, color=SOFT)  # fmt: skip
    _percent_axis(axes)
    _time_axis(axes, figure)


def _costs_why(frames: Frames) -> str:
    if frames.fees is None and frames.funding is None:
        return "Fees and funding over time are not known."
    return _needs_two(frames)


def _costs(figure: FigureBase, frames: Frames, _figures: Figures) -> None:
    axes = figure.subplots()
    for series, colour, name in (
        (frames.fees, BAD, "fees"),
        (frames.funding, WARN, "funding"),
    ):
        if series is not None:
            line = _thin(series)
            axes.step(_at(line), line, where="post", color=colour, label=name)
    axes.axhline(0, color=SOFT, linewidth=0.7)
    _legend(figure, axes)
    _plain_axis(axes)
    _time_axis(axes, figure)


CHARTS: Final = (
    Chart(
        "growth",
        "Return, and how far below its peak",
        "Above: what was earned so far, net of deposits and withdrawals; the shaded stretches are "
        "the three deepest drawdowns. Below: the distance to the highest point so far.",
        _needs_two,
        _growth,
        1.25,
    ),
    Chart(
        "worth",
        "Value of the portfolio",
        "Wallet balance plus unrealised profit, in the quote asset; deposits and withdrawals show.",
        _needs_two,
        _worth,
    ),
    Chart(
        "bars",
        "Return of each period",
        "One bar per UTC day (or shorter period, where there are few days); at most the last 400.",
        _needs_two,
        _bars,
    ),
    Chart(
        "months",
        "Return of each month",
        "In percent; red lost, green gained.",
        _months_why,
        _months,
        0.8,
    ),
    Chart(
        "rolling",
        "Return for risk, looking back",
        "Sharpe ratio and volatility of the latest stretch at each moment, per year: a "
        "month of days, a day of hours, or an hour of minutes, shorter where the history is.",
        _rolling_why,
        _rolling,
        1.25,
    ),
    Chart(
        "spread",
        "How often which return",
        "How many periods had which return.",
        _spread_why,
        _spread,
        0.9,
    ),
    Chart(
        "exposure",
        "Exposure and leverage",
        "Value of the positions divided by the portfolio's value. Gross counts long and short "
        "alike, net sets one against the other.",
        _exposure_why,
        _exposure,
    ),
    Chart(
        "positions",
        "Positions over time",
        "Each symbol's share of the portfolio's value; long above the line, short below.",
        _positions_why,
        _positions,
        1.15,
    ),
    Chart(
        "turnover",
        "Turnover",
        "How much was bought and sold, against what the portfolio was worth.",
        _turnover_why,
        _turnover,
    ),
    Chart(
        "costs",
        "Fees and funding so far",
        "In the quote asset; negative was paid, positive was received.",
        _costs_why,
        _costs,
    ),
)
