"""How a session's curve has done: returns, risk and drawdowns as running sums. PURE.

    portfolio rows, one by one ─► IndicatorState.advance ─► IndicatorState.read ─► indicator row

Definitions are empyrical's, on the same returns (docs/metrics.md has every formula): risk-free
rate and required return are 0, deviations are of the sample, downside risk divides by all returns,
Calmar takes the compound annual growth. What does not exist (too few returns, no variance, no loss,
an overflow) is None; empyrical says NaN or infinity there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from module.model.canonical import instant_text, parse_instant
from module.model.errors import InvariantViolated
from module.model.money import ZERO
from module.model.results import CurvePoint, IndicatorRow, TradeSums

DAYS_PER_YEAR = 365
MINUTES_PER_DAY = 24 * 60
BASIS_POINTS = 10_000
STATE_VERSION = 3
VALUE_MAX = 1e300
"""A curve that grew further is nonsense; its return counts as undefined."""
_INSTANT_BEFORE = timedelta(microseconds=1)
_is_finite = math.isfinite


class ReturnSums(NamedTuple):
    """Running moments of a series of returns (Welford); `downside` sums squares below zero."""

    returns: int = 0
    mean: float = 0.0
    squares: float = 0.0
    downside: float = 0.0

    def add(self, value: float) -> ReturnSums:
        """The sums with one more return."""
        count = self.returns + 1
        step = value - self.mean
        mean = self.mean + step / count
        return ReturnSums(
            count,
            mean,
            self.squares + step * (value - mean),
            self.downside + value * value if value < 0.0 else self.downside,
        )

    def ratios(self, periods: int) -> tuple[float | None, float | None, float | None]:
        """Volatility, Sharpe and Sortino, annualised by `periods` a year; None under two returns.

        Volatility: sample standard deviation × √periods. Sharpe: mean ÷ that deviation × √periods;
        None where nothing varies. Sortino: the same over the downside deviation; None without a
        loss.
        """
        count, mean, squares, downside = self
        if count < 2:
            return None, None, None
        volatility = math.sqrt(squares / (count - 1) * periods)
        below = math.sqrt(downside / count * periods)
        growth = mean * periods
        sharpe = growth / volatility if volatility else math.inf
        sortino = growth / below if below else math.inf
        return (
            volatility if _is_finite(volatility) else None,
            sharpe if _is_finite(sharpe) and _is_finite(volatility) else None,
            sortino if _is_finite(sortino) else None,
        )


class Drop(NamedTuple):
    """A curve that began at 1: where it is, its highest point, its deepest drawdown (≤ 0)."""

    value: float = 1.0
    peak: float = 1.0
    deepest: float = 0.0

    def times(self, factor: float) -> Drop:
        """The curve after one more return."""
        value = self.value * factor
        if value > self.peak:
            return Drop(value, value, self.deepest)
        now = (value - self.peak) / self.peak
        return Drop(value, self.peak, now if now < self.deepest else self.deepest)

    def calmar(self, count: int, periods: int) -> float | None:
        """Compound annual growth ÷ |deepest drawdown|; None without a drawdown."""
        if self.deepest >= 0.0 or self.value < 0.0 or not count:
            return None
        try:
            growth = self.value ** (periods / count) - 1.0
        except OverflowError:
            return None
        return _finite(growth / -self.deepest)


class IndicatorState(NamedTuple):
    """A curve so far, as running sums: a minute costs the same however long the curve is. A value:
    `advance` gives a new one.

    The curve begins at the initial balance. A return is (PV − transfers since) ÷ PV before − 1, so
    that a deposit is no profit. A point belongs to the UTC day that ends at or after it: the
    point at 00:00 closes the day before. `undefined` counts returns that do not exist (PV before
    was not above zero); the curve goes on from the next point, and a day in which no return exists
    has none either. `pv_total` is the sum of the PV of `points`.
    """

    minute: datetime
    pv: Decimal
    transfers: Decimal
    pv_total: Decimal = ZERO
    points: int = 0
    undefined: int = 0
    minutes: ReturnSums = ReturnSums()
    drop: Drop = Drop()
    day: date | None = None
    index_at_day_start: float = 1.0
    returns_at_day_start: int = 0
    days: ReturnSums = ReturnSums()
    day_drop: Drop = Drop()

    @classmethod
    def begin(cls, minute: datetime, initial_balance: Decimal) -> IndicatorState:
        """The curve before its first point."""
        return cls(minute, initial_balance, ZERO)

    def advance(self, minute: datetime, pv: Decimal, transfers: Decimal) -> IndicatorState:
        """The state after one more point; `transfers` are net transfers since the start."""
        day = (minute - _INSTANT_BEFORE).date()
        minutes, drop, undefined = self.minutes, self.drop, self.undefined
        start, before = self.index_at_day_start, self.returns_at_day_start
        days, day_drop = self.days, self.day_drop
        if day != self.day and self.day is not None:
            days, day_drop = self._with_day()
            start, before = drop.value, minutes.returns
        came = transfers - self.transfers
        change = _return(self.pv, pv - came if came else pv)
        moved = None if change is None else drop.times(1.0 + change)
        if change is None or moved is None or abs(moved.value) > VALUE_MAX:
            undefined += 1
        else:
            minutes, drop = minutes.add(change), moved
        return IndicatorState(
            minute,
            pv,
            transfers,
            self.pv_total + pv,
            self.points + 1,
            undefined,
            minutes,
            drop,
            day,
            start,
            before,
            days,
            day_drop,
        )

    def read(self, sums: TradeSums, days_per_year: int = DAYS_PER_YEAR) -> IndicatorRow:
        """The indicators now; the running day counts with its return so far."""
        days, day_drop = self._with_day()
        minutes, drop = self.minutes, self.drop
        count, day_count = minutes.returns, days.returns
        minutes_per_year = days_per_year * MINUTES_PER_DAY
        volatility_1min, sharpe_1min, sortino_1min = minutes.ratios(minutes_per_year)
        volatility_1day, sharpe_1day, sortino_1day = days.ratios(days_per_year)
        trades, won = sums.trades, sums.trades_won
        lost = trades - won
        traded, slipped = sums.traded_notional, sums.slippage_notional
        pv_total = self.pv_total
        return IndicatorRow(  # by position, in the order of its fields: this runs every minute
            count,
            _finite(drop.value - 1.0) if count else None,
            (drop.value - drop.peak) / drop.peak if count else None,
            drop.deepest if count else None,
            sharpe_1min,
            sortino_1min,
            volatility_1min,
            day_count,
            sharpe_1day,
            sortino_1day,
            volatility_1day,
            trades,
            won,
            won / trades if trades else None,
            "return-undefined" if self.undefined else "",
            drop.calmar(count, minutes_per_year),
            day_drop.calmar(day_count, days_per_year),
            (day_drop.value - day_drop.peak) / day_drop.peak if day_count else None,
            day_drop.deepest if day_count else None,
            -float(sums.won) / float(sums.lost) if sums.lost else None,
            sums.won / won if won else None,
            sums.lost / lost if lost else None,
            traded,
            float(traded) * self.points / float(pv_total) if pv_total > 0 else None,
            float(sums.slippage_cost) * BASIS_POINTS / float(slipped) if slipped else None,
            sums.slippage_cost if slipped else None,
        )

    def _with_day(self) -> tuple[ReturnSums, Drop]:
        """The daily series with the running day as it is now; a day that began at or under zero,
        or in which no minute's return exists, has no return."""
        if self.index_at_day_start <= 0 or self.minutes.returns == self.returns_at_day_start:
            return self.days, self.day_drop
        factor = self.drop.value / self.index_at_day_start
        return self.days.add(factor - 1.0), self.day_drop.times(factor)

    def to_document(self) -> dict[str, object]:
        """Plain JSON; floats survive the round trip bit by bit."""
        return {
            "version": STATE_VERSION,
            "minute": instant_text(self.minute),
            "pv": str(self.pv),
            "transfers": str(self.transfers),
            "pv_total": str(self.pv_total),
            "points": self.points,
            "undefined": self.undefined,
            "minutes": list(self.minutes),
            "drop": list(self.drop),
            "day": None if self.day is None else self.day.isoformat(),
            "index_at_day_start": self.index_at_day_start,
            "returns_at_day_start": self.returns_at_day_start,
            "days": list(self.days),
            "day_drop": list(self.day_drop),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> IndicatorState | None:
        """What `to_document` wrote; None when it is another version or not that at all: the curve
        is then read again from the rows."""
        if document.get("version") != STATE_VERSION:
            return None
        try:
            day = document["day"]
            return cls(
                minute=parse_instant(str(document["minute"])),
                pv=Decimal(str(document["pv"])),
                transfers=Decimal(str(document["transfers"])),
                pv_total=Decimal(str(document["pv_total"])),
                points=int(_number(document["points"])),
                undefined=int(_number(document["undefined"])),
                minutes=_sums(document["minutes"]),
                drop=Drop(*_numbers(document["drop"], len(Drop._fields))),
                day=None if day is None else date.fromisoformat(str(day)),
                index_at_day_start=_number(document["index_at_day_start"]),
                returns_at_day_start=int(_number(document["returns_at_day_start"])),
                days=_sums(document["days"]),
                day_drop=Drop(*_numbers(document["day_drop"], len(Drop._fields))),
            )
        except (KeyError, ValueError, ArithmeticError, TypeError, InvariantViolated):
            return None


def replay(state: IndicatorState | None, curve: Iterable[CurvePoint]) -> IndicatorState | None:
    """The state after `curve`, continued from `state` or, without one, from the curve's start.

    A curve without an initial balance begins at its first point. None for an empty curve.
    """
    for point in curve:
        state = advance_or_begin(
            state, point.minute, point.current_pv, point.net_transfers, point.initial_balance
        )
    return state


def advance_or_begin(
    state: IndicatorState | None,
    minute: datetime,
    pv: Decimal,
    transfers: Decimal,
    initial_balance: Decimal | None,
) -> IndicatorState:
    """`state` after one more point, or the curve's first state when there is none yet."""
    if state is not None:
        return state.advance(minute, pv, transfers)
    if initial_balance is not None:
        return IndicatorState.begin(minute, initial_balance).advance(minute, pv, transfers)
    return IndicatorState(minute, pv, transfers, pv_total=pv, points=1)


def _return(before: Decimal, after: Decimal) -> float | None:
    if before <= 0:
        return None
    return _finite(float(after / before - 1))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: object) -> float:
    if not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return float(value)


def _numbers(value: object, count: int) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != count:
        raise TypeError(f"expected {count} numbers")
    return tuple(_number(item) for item in value)


def _sums(value: object) -> ReturnSums:
    count, mean, squares, downside = _numbers(value, len(ReturnSums._fields))
    return ReturnSums(int(count), mean, squares, downside)
