"""Mark and index of a symbol without a mark file, from its last prices alone. Pure, on arrays.

Bitget's mark is the index plus a moving basis; here nothing but last is known, so the index is a
robust, short memory of last, and the mark goes half the way from it to last, at most 2 % far.

Minutes: index = median of the last three bars, for open, high, low and close each; a single bad
bar does not move it at all. Mark = index + half of (last - index), within index x (1 +- 0.02).

Hours: an hour is too long for a memory, so index and mark are last itself, except for a wick that
goes beyond a tenth, or ten times, of the nearer end of its body: that is a misprint and is cut to
the body. (LINKUSDT 2020-03-12 10:00 fell from 3.5 to 0.0001 and back; the deepest hour of real
trading in the same years, FTTUSDT, kept 19 %.)
"""

from __future__ import annotations

import numpy as np

from module.simulator.prices.tick_series import Stored, TickSeries, Whole, compact

_MISPRINT_RATIO = 10
_MARK_DISTANCE_PARTS = 50


def derive_index_and_mark(last: TickSeries) -> tuple[TickSeries, TickSeries]:
    """Index and mark of every bar of `last`; they open at the same times."""
    columns = (last.opens, last.highs, last.lows, last.closes)
    if last.minutes > 1:
        believed = _believed(last)
        return believed, believed
    indexes = [_median_of_three(column.astype(np.int64)) for column in columns]
    marks = [_half_way(column, index) for column, index in zip(columns, indexes, strict=True)]
    return _series(last, *indexes), _series(last, *marks)


def _median_of_three(column: Whole) -> Whole:
    """Of each bar and the two before it (the first bar stands for those that are not there)."""
    one, two = np.empty_like(column), np.empty_like(column)
    one[:1], one[1:] = column[0], column[:-1]
    two[:2], two[2:] = column[0], column[:-2]
    lower, upper = np.minimum(column, one), np.maximum(column, one)
    median: Whole = np.maximum(lower, np.minimum(upper, two))
    return median


def _half_way(last: Stored, index: Whole) -> Whole:
    reach = index // _MARK_DISTANCE_PARTS
    half = (last + index) // 2
    mark: Whole = np.minimum(np.maximum(half, np.maximum(index - reach, 1)), index + reach)
    return mark


def _believed(last: TickSeries) -> TickSeries:
    opens, closes = last.opens.astype(np.int64), last.closes.astype(np.int64)
    highs, lows = last.highs.astype(np.int64), last.lows.astype(np.int64)
    body_low, body_high = np.minimum(opens, closes), np.maximum(opens, closes)
    lows = np.where(lows * _MISPRINT_RATIO < body_low, body_low, lows)
    highs = np.where(highs > body_high * _MISPRINT_RATIO, body_high, highs)
    return _series(last, opens, highs, lows, closes)


def _series(last: TickSeries, opens: Whole, highs: Whole, lows: Whole, closes: Whole) -> TickSeries:
    return TickSeries(
        last.minutes,
        last.times,
        compact(opens),
        compact(highs),
        compact(lows),
        compact(closes),
        last.low_first,
    )


def with_marks_of_file(derived: TickSeries, file: TickSeries) -> TickSeries:
    """`file` where it has a bar, `derived` where it has none; at the times of `derived`."""
    place = np.searchsorted(file.times, derived.times)
    place = np.minimum(place, len(file.times) - 1)
    there = file.times[place] == derived.times
    columns = (
        np.where(there, own[place], other).astype(np.int64)
        for own, other in (
            (file.opens, derived.opens),
            (file.highs, derived.highs),
            (file.lows, derived.lows),
            (file.closes, derived.closes),
        )
    )
    return _series(derived, *columns)
