"""From series to the numbers of the page: what was found, in the words of `table`."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from typing import Final

import pandas as pd

from monitoring.tearsheets.figures.figure import Figure, Figures
from monitoring.tearsheets.figures.return_findings import (
    WORST_DRAWDOWNS,
    ratio_findings,
    result_findings,
    risk_findings,
    value_at_start,
    worst_drawdowns,
)
from monitoring.tearsheets.figures.spelling import KINDS, QUOTE, money
from monitoring.tearsheets.figures.table import TABLE, Entry
from monitoring.tearsheets.figures.trading_findings import trading_findings
from monitoring.tearsheets.frames import Frames

WORST_PERIODS: Final = 5


def measure(frames: Frames) -> Figures:
    """Every number of the sheet."""
    drawdowns = worst_drawdowns(frames)
    found = (
        result_findings(frames)
        | risk_findings(frames, drawdowns)
        | ratio_findings(frames)
        | trading_findings(frames)
    )
    ordered = frames.returns.sort_values()
    few = min(WORST_PERIODS, len(ordered) // 2)
    return Figures(
        groups=tuple(
            (name, tuple(_figure(entry, found[entry.key], frames) for entry in entries))
            for name, entries in TABLE
        ),
        drawdowns=drawdowns,
        best=tuple(_dated(ordered[::-1], few, best=True)),
        worst=tuple(_dated(ordered, few, best=False)),
    )


def _figure(entry: Entry, found: float | str, frames: Frames) -> Figure:
    asset, word = frames.document.quote_asset, frames.basis.word
    unit, spell = KINDS[entry.kind]
    words: dict[str, object] = {
        "word": word,
        "Word": word.capitalize(),
        "count": len(frames.returns),
        "days_per_year": frames.basis.days_per_year,
        "began_at": money(value_at_start(frames), asset, signed=False),
        "drawdowns": WORST_DRAWDOWNS,
    }
    figure = Figure(
        entry.key,
        entry.title.format_map(words),
        None,
        asset if unit == QUOTE else unit,
        "",
        entry.meaning.format_map(words),
    )
    if isinstance(found, str):
        return replace(figure, reason=found)
    figure = replace(figure, value=found, text=spell(found, asset))
    return _with_margin(figure, found, frames) if entry.key == "sharpe" else figure


def _with_margin(sharpe: Figure, value: float, frames: Frames) -> Figure:
    """With its standard error, √((1 + s² ÷ 2) ÷ n) of one period (Lo, 2002)."""
    count, year = len(frames.returns), frames.basis.per_year
    once = value / math.sqrt(year)
    error = math.sqrt((1.0 + once * once / 2.0) / count * year)
    meaning = sharpe.meaning
    if error > abs(value):
        meaning += (
            " The margin is wider than the number: this history does not tell luck from skill."
        )
    return replace(sharpe, text=f"{sharpe.text} ± {error:,.2f}", meaning=meaning)


def _dated(ordered: pd.Series[float], count: int, *, best: bool) -> list[tuple[datetime, float]]:
    moments = pd.DatetimeIndex(ordered.index).to_pydatetime()
    found = [(moment, float(value)) for moment, value in zip(moments, ordered, strict=True)]
    kept = [item for item in found if (item[1] > 0 if best else item[1] < 0)]
    return kept[:count]
