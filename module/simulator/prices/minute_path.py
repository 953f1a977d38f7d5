"""The way of a price inside a bar: twelve points of a minute, sixty minutes of an hour.

    replay (hours -> minutes)  ->  price_feed (minutes -> points of 5 seconds)

Pure. Whoever holds a position must not be flattered by a candle whose inside is unknown: the
extreme that hurts comes first, as `low_first` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise

from module.simulator.prices.market_source import MINUTE_MS, Bar

POINT_MS = 5_000
POINTS = MINUTE_MS // POINT_MS
HOUR_MINUTES = 60
HOUR_DECISION_MINUTE = 10
"""Until here an expanded hour waits at its open; who is exposed then decides how it goes on."""

_POINT_FIRST_EXTREME = 3
_POINT_SECOND_EXTREME = 8
_POINT_LAST = POINTS - 1
_HOUR_CORNERS = (0, HOUR_DECISION_MINUTE, 30, 50, HOUR_MINUTES)

Ticks = tuple[int, int, int, int]
"""Open, high, low, close."""


def low_comes_first(bar: Bar, exposure: int) -> bool:
    """Longs (`exposure` > 0) meet the low first, shorts the high; nobody: the one nearer by."""
    if exposure:
        return exposure > 0
    return bar.open - bar.low <= bar.high - bar.open


def walk_minute(bar: Bar, exposure: int, step: Decimal) -> tuple[Decimal, ...]:
    """The 12 grid prices of one bar: the open at 0 s, extremes at 15 s and 40 s, close at 55 s.

    Straight lines on the tick `step` in between.
    """
    low_first = low_comes_first(bar, exposure)
    first, second = (bar.low, bar.high) if low_first else (bar.high, bar.low)
    corners = (
        (0, bar.open),
        (_POINT_FIRST_EXTREME, first),
        (_POINT_SECOND_EXTREME, second),
        (_POINT_LAST, bar.close),
    )
    points: list[Decimal] = [bar.open]
    for (start, price), (end, target) in pairwise(corners):
        if price == target:
            points += [price] * (end - start)
            continue
        ticks = (target - price) / step
        for index in range(start + 1, end):
            share = (ticks * (index - start) / (end - start)).to_integral_value(ROUND_HALF_EVEN)
            points.append(price + share * step)
        points.append(target)
    return tuple(points)


def nearer_is_low(ticks: Ticks) -> bool:
    """The low of an hour is not farther from its open than the high."""
    opened, high, low, _ = ticks
    return opened - low <= high - opened


def part_of_hour(ticks: Ticks, first: int, end: int, *, low_first: bool) -> Ticks:
    """Minutes [first, end) of an expanded hour as one; all sixty are exactly the hour again.

    The hour stays at its open until minute 10, is at one extreme at 30, at the other at 50, and at
    its close at 60; straight lines on the tick in between.
    """
    opened, high, low, closed = ticks
    near, far = (low, high) if low_first else (high, low)
    turns = (opened, opened, near, far, closed)
    begins, ends = _at_minute(turns, first), _at_minute(turns, end)
    met = [begins, ends]
    met += [turn for corner, turn in zip(_HOUR_CORNERS, turns, strict=True) if first < corner < end]
    return begins, max(met), min(met), ends


def _at_minute(turns: Sequence[int], minute: int) -> int:
    leg = 0
    while minute > _HOUR_CORNERS[leg + 1]:  # ends: minute <= 60, the last corner
        leg += 1
    start, end = _HOUR_CORNERS[leg], _HOUR_CORNERS[leg + 1]
    way = (turns[leg + 1] - turns[leg]) * (minute - start)
    return turns[leg] + (2 * way + end - start) // (2 * (end - start))


def share_of_hour(total: int, first: int, end: int) -> int:
    """What of an hour's volume falls into minutes [first, end); the sixty sum up to `total`."""
    return total * end // HOUR_MINUTES - total * first // HOUR_MINUTES


def expand_hour(ticks: Ticks, lots: int) -> Iterable[tuple[Ticks, int]]:
    """Sixty minutes with their volumes: open, nearer extreme, other extreme, close."""
    low_first = nearer_is_low(ticks)
    for minute in range(HOUR_MINUTES):
        part = part_of_hour(ticks, minute, minute + 1, low_first=low_first)
        yield part, share_of_hour(lots, minute, minute + 1)
