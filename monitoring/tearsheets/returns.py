"""From a curve to returns. PURE: the same arithmetic as `monitoring.metrics`, over any period.

    CurveDocument ─► growth (index of 1 unit, net of transfers) ─► returns_of (minute, hour, day)

A point belongs to the period that ends at or after it: the point at 00:00 closes the day before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Final

from module.model.money import ZERO
from monitoring.indicators import DAYS_PER_YEAR
from monitoring.tearsheets.document import CurveDocument

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TICK: Final = timedelta(microseconds=1)
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
DAYS_WANTED: Final = 10
HOURS_WANTED: Final = 24


@dataclass(frozen=True, slots=True)
class Basis:
    """What one return covers, and how many days a year has, whatever the length."""

    length: timedelta
    days_per_year: int = DAYS_PER_YEAR

    @property
    def per_year(self) -> float:
        """How many of them a year has; of 365 days: 365 days, 8,760 hours, 525,600 minutes."""
        return self.days_per_year * DAY / self.length

    @property
    def word(self) -> str:
        """One of them, in words."""
        for length, word in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
            if self.length == length:
                return word
            if self.length > length and self.length % length == timedelta(0):
                return f"{self.length // length} {word}s"
        return f"{self.length.total_seconds():g} seconds"


@dataclass(frozen=True, slots=True)
class Growth:
    """What 1 unit became, net of transfers. `undefined` counts steps that have no return."""

    at: tuple[datetime, ...]
    index: tuple[float, ...]
    undefined: int


@dataclass(frozen=True, slots=True)
class Returns:
    """One return per period that has a point; `ends` are the periods' ends."""

    basis: Basis
    ends: tuple[datetime, ...]
    values: tuple[float, ...]


def growth(document: CurveDocument) -> Growth:
    """The time-weighted index of the curve; it begins at 1.

    A step's return is (PV − transfers since) ÷ PV before − 1, so that a deposit is no profit:
    10,000, then a deposit of 500 and PV 10,605: 0.0105. A measured `cumulative_return` goes
    before the computed one. With `initial_balance` the curve begins there. A step from a PV of
    zero or less has no return; the index goes on from the next point.
    """
    curve = document.curve
    transfers = curve.net_transfers or [ZERO] * len(curve.at)
    told = curve.cumulative_return or [None] * len(curve.at)
    at: list[datetime] = []
    index: list[float] = []
    before: _Point | None = None
    undefined = 0
    if document.initial_balance is not None:
        at.append(min(document.started_at or curve.at[0] - MINUTE, curve.at[0] - TICK))
        index.append(1.0)
        before = _Point(document.initial_balance, ZERO, 0.0)
    for moment, pv, moved, measured in zip(curve.at, curve.pv, transfers, told, strict=True):
        point = _Point(pv, moved, measured)
        level = 1.0
        if before is not None:
            change = _step(before, point)
            undefined += change is None
            level = index[-1] * (1.0 + (change or 0.0))
        at.append(moment)
        index.append(level)
        before = point
    return Growth(tuple(at), tuple(index), undefined)


def returns_of(curve: Growth, basis: Basis) -> Returns:
    """The index's return over each period of `basis` that has a point.

    The first period counts from the curve's first value, the last one as far as it has come. A
    period without points has no return; the next one covers it.
    """
    if len(curve.at) < 2:
        return Returns(basis, (), ())
    ends: list[datetime] = []
    levels: list[float] = []
    for moment, level in zip(curve.at[1:], curve.index[1:], strict=True):
        end = period_end(moment, basis.length)
        if ends and ends[-1] == end:
            levels[-1] = level
        else:
            ends.append(end)
            levels.append(level)
    values = [
        after / before - 1.0 if before > 0 else 0.0
        for before, after in pairwise([curve.index[0], *levels])
    ]
    return Returns(basis, tuple(ends), tuple(values))


def period_end(moment: datetime, length: timedelta) -> datetime:
    """The end of the UTC period that `moment` closes or lies in."""
    return EPOCH + ((moment - TICK - EPOCH) // length + 1) * length


def choose_basis(curve: Growth, days_per_year: int = DAYS_PER_YEAR) -> Basis:
    """Days where there are at least ten of them, else hours (24), else what the curve has."""
    finest = Basis(_spacing(curve.at), days_per_year)
    for length, wanted in ((DAY, DAYS_WANTED), (HOUR, HOURS_WANTED)):
        basis = Basis(length, days_per_year)
        if basis.length <= finest.length:
            return finest
        if len(returns_of(curve, basis).values) >= wanted:
            return basis
    return finest


def _spacing(at: Sequence[datetime]) -> timedelta:
    """The usual distance of two points, in whole minutes (hours, days where it is that long)."""
    if len(at) < 3:
        return MINUTE
    usual_s = median((later - earlier).total_seconds() for earlier, later in pairwise(at[1:]))
    for length in (DAY, HOUR, MINUTE):
        if usual_s >= length.total_seconds():
            return round(usual_s / length.total_seconds()) * length
    return MINUTE


@dataclass(frozen=True, slots=True)
class _Point:
    pv: Decimal
    transfers: Decimal
    measured: float | None


def _step(before: _Point, after: _Point) -> float | None:
    """The return from one point to the next; the measured one where both ends were measured."""
    if before.measured is not None and after.measured is not None and before.measured > -1.0:
        return (1.0 + after.measured) / (1.0 + before.measured) - 1.0
    if before.pv <= 0:
        return None
    change = float((after.pv - (after.transfers - before.transfers)) / before.pv) - 1.0
    return change if math.isfinite(change) else None
