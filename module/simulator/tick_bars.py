"""Minute bars as whole numbers of ticks and lots: compact, exact, quick to merge.

The synthetic market keeps its minutes in such blocks (a replay keeps `tick_series`); Decimals are
made only for what is asked.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from module.simulator.market_source import Bar
from module.simulator.minute_path import Ticks

ZERO = Decimal(0)
QUOTE_STEP = Decimal("0.0001")


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
    """Consecutive minutes of one symbol."""

    opens: array[int]
    highs: array[int]
    lows: array[int]
    closes: array[int]
    lots: array[int]

    @classmethod
    def of(
        cls,
        opens: Sequence[int],
        highs: Sequence[int],
        lows: Sequence[int],
        closes: Sequence[int],
        lots: Sequence[int],
    ) -> TickBlock:
        """Minutes in columns: ticks, and volumes in lots."""
        return cls(
            array("q", opens),
            array("q", highs),
            array("q", lows),
            array("q", closes),
            array("q", lots),
        )

    def __len__(self) -> int:
        return len(self.lots)

    def extremes(self, first: int, end: int) -> tuple[int, int]:
        """Lowest and highest tick of minutes [first, end), at least one."""
        return min(self.lows[first:end]), max(self.highs[first:end])

    def merged(self, first: int, end: int) -> tuple[Ticks, int, int]:
        """Minutes [first, end), at least one: (ticks, lots, turnover)."""
        opens, closes, lots = self.opens[first:end], self.closes[first:end], self.lots[first:end]
        ticks = (opens[0], max(self.highs[first:end]), min(self.lows[first:end]), closes[-1])
        # a minute's typical price is the mean of its open and close; twice the sum stays whole
        pairs = zip(lots, opens, closes, strict=True)
        twice = sum(size * (opened + closed) for size, opened, closed in pairs)
        return ticks, sum(lots), twice // 2
