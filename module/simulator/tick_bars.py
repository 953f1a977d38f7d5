"""Minute bars as whole numbers of ticks and lots: compact, exact, quick to merge.

Both market sources keep their minutes in such blocks; Decimals are made only for what is asked.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from decimal import Decimal

from module.simulator.market_source import Bar

MISSING = -1
QUOTE_STEP = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class TickScale:
    """What one tick and one lot of a symbol are worth."""

    price_step: Decimal
    size_step: Decimal

    def bar(self, open_ms: int, ticks: tuple[int, int, int, int], lots: int, turnover: int) -> Bar:
        """A bar from ticks (open, high, low, close), lots, and the sum of lots x price ticks."""
        step = self.price_step
        return Bar(
            open_ms,
            ticks[0] * step,
            ticks[1] * step,
            ticks[2] * step,
            ticks[3] * step,
            lots * self.size_step,
            (turnover * step * self.size_step).quantize(QUOTE_STEP),
        )


def _integers() -> array[int]:
    return array("q")


@dataclass(slots=True)
class TickBlock:
    """Consecutive minutes of one symbol; a missing minute has volume MISSING."""

    opens: array[int] = field(default_factory=_integers)
    highs: array[int] = field(default_factory=_integers)
    lows: array[int] = field(default_factory=_integers)
    closes: array[int] = field(default_factory=_integers)
    lots: array[int] = field(default_factory=_integers)

    def __len__(self) -> int:
        return len(self.lots)

    def append(self, ticks: tuple[int, int, int, int], lots: int) -> None:
        """One more minute: (open, high, low, close) in ticks and its volume in lots."""
        self.opens.append(ticks[0])
        self.highs.append(ticks[1])
        self.lows.append(ticks[2])
        self.closes.append(ticks[3])
        self.lots.append(lots)

    def append_missing(self) -> None:
        """One more minute without data."""
        self.append((0, 0, 0, 0), MISSING)

    def merged(self, first: int, end: int) -> tuple[tuple[int, int, int, int], int, int] | None:
        """Minutes [first, end) as (ticks, lots, turnover); None if all of them are missing."""
        lots = self.lots[first:end]
        if MISSING in lots:
            present = [index for index in range(first, end) if self.lots[index] != MISSING]
            if not present:
                return None
        else:
            present = list(range(first, end))
        opens, highs, lows, closes = self.opens, self.highs, self.lows, self.closes
        ticks = (
            opens[present[0]],
            max(highs[index] for index in present),
            min(lows[index] for index in present),
            closes[present[-1]],
        )
        volume = sum(self.lots[index] for index in present)
        # a minute's typical price is the mean of its open and close; twice the sum stays whole
        twice = sum(self.lots[index] * (opens[index] + closes[index]) for index in present)
        return ticks, volume, twice // 2
