"""Minute bars as whole numbers of ticks and lots: compact, exact, quick to merge.

The synthetic market keeps its minutes in such blocks (a replay keeps `tick_series`); Decimals are
made only for what is asked.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from module.simulator.prices.market_source import Bar
from module.simulator.prices.minute_path import Ticks
from module.simulator.prices.tick_series import turnover_of

Whole = npt.NDArray[np.int64]
ZERO = Decimal(0)
QUOTE_STEP = Decimal("0.0001")
_FEW = 128
"""Below so many minutes an array is dearer to make than to do without."""


@dataclass(frozen=True, slots=True)
class TickScale:
    """What one tick and one lot of a symbol are worth."""

    price_step: Decimal
    size_step: Decimal

    def bar(self, open_ms: int, ticks: Ticks, lots: int, turnover: int) -> Bar:
        """A bar from its ticks, lots, and the sum of lots x price ticks."""
        step = self.price_step
        volume = quote_volume = ZERO
        if lots:
            volume = lots * self.size_step
            quote_volume = (turnover * step * self.size_step).quantize(QUOTE_STEP)
        return Bar(
            open_ms,
            ticks[0] * step,
            ticks[1] * step,
            ticks[2] * step,
            ticks[3] * step,
            volume,
            quote_volume,
        )


@dataclass(frozen=True, slots=True)
class TickBlock:
    """Consecutive minutes of one symbol. Arrays of machine words: 57 kB a day, read one by one."""

    opens: array[int]
    highs: array[int]
    lows: array[int]
    closes: array[int]
    lots: array[int]

    @classmethod
    def of(cls, opens: Whole, highs: Whole, lows: Whole, closes: Whole, lots: Whole) -> TickBlock:
        """Minutes in columns: ticks, and volumes in lots."""
        return cls(*(array("q", column.tobytes()) for column in (opens, highs, lows, closes, lots)))

    def __len__(self) -> int:
        return len(self.lots)

    def prices(self) -> tuple[array[int], array[int], array[int], array[int]]:
        """Opens, highs, lows and closes."""
        return self.opens, self.highs, self.lows, self.closes

    def extremes(self, first: int, end: int) -> tuple[int, int]:
        """Lowest and highest tick of minutes [first, end), at least one."""
        if end - first < _FEW:
            return min(self.lows[first:end]), max(self.highs[first:end])
        return int(_whole(self.lows)[first:end].min()), int(_whole(self.highs)[first:end].max())

    def merged(self, first: int, end: int) -> tuple[Ticks, int, int]:
        """Minutes [first, end), at least one: (ticks, lots, turnover)."""
        low, high = self.extremes(first, end)
        ticks = (self.opens[first], high, low, self.closes[end - 1])
        if end - first < _FEW:
            opens, closes = self.opens[first:end], self.closes[first:end]
            lots = self.lots[first:end]
            triples = zip(lots, opens, closes, strict=True)
            twice = sum(size * (opened + closed) for size, opened, closed in triples)
            return ticks, sum(lots), twice // 2
        columns = [_whole(each)[first:end] for each in (self.opens, self.closes, self.lots)]
        return ticks, int(columns[2].sum()), turnover_of(*columns) // 2


def _whole(column: array[int]) -> Whole:
    """The same machine words as numpy sees them."""
    return np.frombuffer(column, dtype=np.int64)
