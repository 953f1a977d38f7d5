"""All bars of one symbol as numpy arrays of ticks and lots, at the length that the file has.

    candle_files -> TickSeries -> replay (minutes, merged bars)

Nothing is expanded in memory: minutes of an hourly file are computed when asked, prices take four
bytes where they fit. Sums are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from module.simulator.prices.market_source import MINUTE_MS
from module.simulator.prices.minute_path import Ticks, part_of_hour, share_of_hour

Whole = npt.NDArray[np.int64]
Stored = npt.NDArray[np.int32] | Whole
Flags = npt.NDArray[np.bool_]

_LOW_BITS = 26
_LOW_MASK = (1 << _LOW_BITS) - 1
PRICE_TICKS_MAX = 1 << 34
"""Above this the products of ticks and lots would not fit into the arrays."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Some minutes as one: ticks, lots, and twice the sum of lots x price ticks."""

    ticks: Ticks
    lots: int
    twice_turnover: int


def compact(column: Whole) -> Stored:
    """The same numbers in half the memory, where they fit."""
    if int(column.max()) <= np.iinfo(np.int32).max and int(column.min()) >= 0:
        return column.astype(np.int32)
    return column


def turnover_of(opens: Stored, closes: Stored, lots: Whole) -> int:
    """Twice the sum of lots x price ticks; a bar's typical price is the mean of open and close.

    Exact for millions of bars of any size: products are split before they are summed.
    """
    twice_price = opens.astype(np.int64) + closes
    low = (lots & _LOW_MASK) * twice_price
    high = (lots >> _LOW_BITS) * twice_price + (low >> _LOW_BITS)
    return (_exact_sum(high) << _LOW_BITS) + _exact_sum(low & _LOW_MASK)


def _exact_sum(values: Whole) -> int:
    return (int((values >> _LOW_BITS).sum()) << _LOW_BITS) + int((values & _LOW_MASK).sum())


@dataclass(frozen=True, slots=True)
class TickSeries:
    """Bars of `minutes` (1 or 60) that open at `times`, ascending; gaps are simply not there.

    `low_first` is the way through each bar where nobody says another; series of one symbol share
    it, so that last, mark and index move together.
    """

    minutes: int
    times: Whole
    opens: Stored
    highs: Stored
    lows: Stored
    closes: Stored
    low_first: Flags
    lots: Whole | None = None
    """None: prices without volume (mark and index)."""

    @property
    def length_ms(self) -> int:
        """Length of one bar."""
        return self.minutes * MINUTE_MS

    @property
    def first_ms(self) -> int:
        """Open time of the first minute."""
        return int(self.times[0])

    @property
    def last_ms(self) -> int:
        """Open time of the last minute."""
        return int(self.times[-1]) + self.length_ms - MINUTE_MS

    def minute(self, open_ms: int, low_first: bool | None = None) -> Merged | None:
        """The minute that opens at `open_ms`; None in a gap."""
        return self._within(open_ms, open_ms + MINUTE_MS, low_first)

    def merged(self, open_ms: int, end_ms: int, low_first: bool | None = None) -> Merged | None:
        """The minutes of [open_ms, end_ms) as one; None if there are none.

        `low_first` is for the bars that are only partly in it.
        """
        first, end = self._indexes(open_ms, end_ms)
        if first > end:
            return self._within(open_ms, end_ms, low_first)
        parts: list[Merged | None] = []
        head_end_ms = -(-open_ms // self.length_ms) * self.length_ms
        tail_ms = end_ms - end_ms % self.length_ms
        if open_ms < head_end_ms <= end_ms:
            parts.append(self._within(open_ms, head_end_ms, low_first))
        if first < end:
            parts.append(self._whole(first, end))
        if max(open_ms, head_end_ms) <= tail_ms < end_ms:
            parts.append(self._within(tail_ms, end_ms, low_first))
        return _joined(parts)

    def extremes(self, open_ms: int, end_ms: int) -> tuple[int, int] | None:
        """Lowest and highest tick of the bars that reach into [open_ms, end_ms); None of none."""
        first, end = self._indexes(
            open_ms - open_ms % self.length_ms, -(-end_ms // self.length_ms) * self.length_ms
        )
        if first >= end:
            return None
        return int(self.lows[first:end].min()), int(self.highs[first:end].max())

    def _indexes(self, open_ms: int, end_ms: int) -> tuple[int, int]:
        """The bars that lie wholly in [open_ms, end_ms): from, to; from > to: within one bar."""
        first = int(self.times.searchsorted(open_ms))
        return first, int(self.times.searchsorted(end_ms - self.length_ms, side="right"))

    def _within(self, open_ms: int, end_ms: int, low_first: bool | None) -> Merged | None:
        """Minutes of a single bar as one; None in a gap."""
        index = self.index_at(open_ms)
        if index < 0:
            return None
        whole = self._whole(index, index + 1)
        if self.minutes == 1:
            return whole
        first, end = ((at - int(self.times[index])) // MINUTE_MS for at in (open_ms, end_ms))
        way = bool(self.low_first[index]) if low_first is None else low_first
        return Merged(
            part_of_hour(whole.ticks, first, end, low_first=way),
            share_of_hour(whole.lots, first, end),
            share_of_hour(whole.twice_turnover, first, end),
        )

    def index_at(self, at_ms: int) -> int:
        """Which bar `at_ms` falls into; -1 in a gap and outside."""
        index = self.index_before(at_ms)
        if index >= 0 and at_ms - int(self.times[index]) >= self.length_ms:
            return -1
        return index

    def index_before(self, at_ms: int) -> int:
        """The last bar that opens at or before `at_ms`; -1 before the first."""
        guess = (at_ms - int(self.times[0])) // self.length_ms
        if 0 <= guess < len(self.times) and 0 <= at_ms - int(self.times[guess]) < self.length_ms:
            return int(guess)  # no gap before it
        return int(self.times.searchsorted(at_ms, side="right")) - 1

    def _whole(self, first: int, end: int) -> Merged:
        """Bars [first, end), at least one, as one."""
        if end - first == 1:
            high, low = int(self.highs[first]), int(self.lows[first])
        else:
            high, low = int(self.highs[first:end].max()), int(self.lows[first:end].min())
        ticks = (int(self.opens[first]), high, low, int(self.closes[end - 1]))
        if self.lots is None:
            return Merged(ticks, 0, 0)
        if end - first == 1:
            lots = int(self.lots[first])
            return Merged(ticks, lots, lots * (ticks[0] + ticks[3]))
        sizes = self.lots[first:end]
        twice = turnover_of(self.opens[first:end], self.closes[first:end], sizes)
        return Merged(ticks, int(sizes.sum()), twice)


def _joined(parts: list[Merged | None]) -> Merged | None:
    present = [part for part in parts if part is not None]
    if len(present) < 2:
        return present[0] if present else None
    return Merged(
        (
            present[0].ticks[0],
            max(part.ticks[1] for part in present),
            min(part.ticks[2] for part in present),
            present[-1].ticks[3],
        ),
        sum(part.lots for part in present),
        sum(part.twice_turnover for part in present),
    )
