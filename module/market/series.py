"""PURE: which bars there are, which are missing, and how short bars make long ones.

A series is one line of native bars (1m, 1h, 1d); every other frequency is made of them. All bars
lie on the UTC grid; weeks begin on Monday. Stretches are half-open: [first, until).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from module.model.market import Candle, Frequency
from module.model.series import Series, Stretch

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MONDAY: Final = datetime(1970, 1, 5, tzinfo=UTC)

_LENGTHS: Final = {frequency: frequency.length for frequency in Frequency}
NATIVE_FREQUENCIES: Final = (Frequency.MINUTE_1, Frequency.HOUR_1, Frequency.DAY_1)


def floor_to(frequency: Frequency, when: datetime) -> datetime:
    """The opening of the bar that contains `when`: the close of the last one that is over.

    Wednesday 2025-01-01 09:17 is Monday 2024-12-30 00:00 in weeks, 09:15 in 3 or 15 minutes.
    """
    origin = _FIRST_MONDAY if frequency is Frequency.WEEK_1 else _EPOCH
    return when - (when - origin) % _LENGTHS[frequency]


@cache
def native_of(frequency: Frequency) -> Frequency:
    """The native bars that `frequency` is made of: the longest that fit its grid."""
    for native in reversed(NATIVE_FREQUENCIES):
        if frequency.length % native.length == timedelta(0):
            return native
    raise AssertionError(f"{frequency} is not made of minutes")


def openings(frequency: Frequency, stretch: Stretch) -> list[datetime]:
    """The openings of all bars of `stretch`, whether or not they exist."""
    length = _LENGTHS[frequency]
    count = max(0, -((stretch.first - stretch.until) // length))
    return [stretch.first + length * number for number in range(count)]


def bar_count(frequency: Frequency, stretch: Stretch) -> int:
    """How many bars a whole `stretch` has."""
    return max(0, (stretch.until - stretch.first) // frequency.length)


def missing_stretches(
    present: Iterable[datetime], frequency: Frequency, wanted: Stretch
) -> list[Stretch]:
    """The longest stretches of `wanted` of which no bar is `present` (openings), oldest first."""
    length = _LENGTHS[frequency]
    missing: list[Stretch] = []
    expected = wanted.first
    for opens_at in sorted(set(present)):
        if opens_at < expected:
            continue
        if opens_at >= wanted.until:
            break
        if opens_at > expected:
            missing.append(Stretch(expected, opens_at))
        expected = opens_at + length
    if expected < wanted.until:
        missing.append(Stretch(expected, wanted.until))
    return missing


def aggregate(candles: Sequence[Candle], frequency: Frequency) -> list[Candle]:
    """Bars of `frequency` out of shorter ones of one series, oldest first in and out.

    A long bar exists only when every short bar of it is there: never half a bar.
    """
    if not candles or candles[0].frequency is frequency:
        return list(candles)
    length = _LENGTHS[frequency]
    parts_wanted = length // _LENGTHS[candles[0].frequency]
    made: list[Candle] = []
    parts: list[Candle] = []
    opens_at = until = _EPOCH
    for candle in candles:
        if not opens_at <= candle.opens_at < until:
            opens_at = floor_to(frequency, candle.opens_at)
            until = opens_at + length
            parts = []
        parts.append(candle)
        if len(parts) == parts_wanted:
            made.append(_joined(parts, frequency, opens_at))
    return made


def _joined(parts: Sequence[Candle], frequency: Frequency, opens_at: datetime) -> Candle:
    return Candle(
        parts[0].symbol,
        frequency,
        opens_at,
        parts[0].open,
        max(part.high for part in parts),
        min(part.low for part in parts),
        parts[-1].close,
        sum((part.volume for part in parts[1:]), parts[0].volume),
    )


def is_sound(candle: Candle, series: Series, now: datetime) -> bool:
    """Whether `candle` may be stored: of this series, on the grid, closed, with prices that can be.

    The low is not above, the high not below, open and close; prices are positive and finite
    (C1, C5: an unfinished, shifted or broken bar counts as missing).
    """
    prices = (candle.open, candle.high, candle.low, candle.close)
    return (
        candle.symbol == series.symbol
        and candle.frequency is series.frequency
        and floor_to(series.frequency, candle.opens_at) == candle.opens_at
        and candle.closes_at <= now
        and all(price.is_finite() and price > 0 for price in prices)
        and candle.low <= min(candle.open, candle.close)
        and candle.high >= max(candle.open, candle.close)
        and candle.volume.is_finite()
        and candle.volume >= 0
    )
