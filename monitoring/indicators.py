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
STATE_VERSION = 2
VALUE_MAX = 1e300
"""A curve that grew further is nonsense; its return counts as undefined."""
_INSTANT_BEFORE = timedelta(microseconds=1)


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
        if self.returns < 2:
            return None, None, None
        volatility = _finite(math.sqrt(self.squares / (self.returns - 1) * periods))
        downside = math.sqrt(self.downside / self.returns * periods)
        growth = self.mean * periods
        return (
            volatility,
            _finite(growth / volatility) if volatility else None,
            _finite(growth / downside) if downside else None,
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

    @property
    def now(self) -> float:
        """The drawdown at its end."""
        return (self.value - self.peak) / self.peak

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
    was not above zero); the curve goes on from the next point. `pv_total` is the sum of the PV of
    `points`.
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
    days: ReturnSums = ReturnSums()
    day_drop: Drop = Drop()

    @classmethod
    def begin(cls, minute: datetime, initial_balance: Decimal) -> IndicatorState:
        """The curve before its first point."""
        return cls(minute, initial_balance, ZERO)

    def advance(self, minute: datetime, pv: Decimal, transfers: Decimal) -> IndicatorState:
        """The state after one more point; `transfers` are net transfers since the start."""
        day = (minute - _INSTANT_BEFORE).date()
        start, days, day_drop = self.index_at_day_start, self.days, self.day_drop
        if day != self.day and self.day is not None:
            days, day_drop = self._with_day()
            start = self.drop.value
        change = _return(self.pv, pv - (transfers - self.transfers))
        undefined, minutes, drop = self.undefined, self.minutes, self.drop
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
            days,
            day_drop,
        )

    def read(self, sums: TradeSums, days_per_year: int = DAYS_PER_YEAR) -> IndicatorRow:
        """The indicators now; the running day counts with its return so far."""
        days, day_drop = self._with_day() if self.day is not None else (self.days, self.day_drop)
        minutes, drop = self.minutes, self.drop
        some, some_day = minutes.returns > 0, days.returns > 0
        minutes_per_year = days_per_year * MINUTES_PER_DAY
        volatility_1min, sharpe_1min, sortino_1min = minutes.ratios(minutes_per_year)
        volatility_1day, sharpe_1day, sortino_1day = days.ratios(days_per_year)
        won, lost = sums.trades_won, sums.trades - sums.trades_won
        slipped = sums.slippage_notional
        return IndicatorRow(
            returns_1min=minutes.returns,
            cumulative_return=_finite(drop.value - 1.0) if some else None,
            drawdown=_finite(drop.now) if some else None,
            max_drawdown=_finite(drop.deepest) if some else None,
            sharpe_1min=sharpe_1min,
            sortino_1min=sortino_1min,
            volatility_1min=volatility_1min,
            returns_1day=days.returns,
            sharpe_1day=sharpe_1day,
            sortino_1day=sortino_1day,
            volatility_1day=volatility_1day,
            trades=sums.trades,
            trades_won=won,
            win_rate=won / sums.trades if sums.trades else None,
            flags="return-undefined" if self.undefined else "",
            calmar_1min=drop.calmar(minutes.returns, minutes_per_year),
            calmar_1day=day_drop.calmar(days.returns, days_per_year),
            drawdown_1day=_finite(day_drop.now) if some_day else None,
            max_drawdown_1day=_finite(day_drop.deepest) if some_day else None,
            profit_factor=-float(sums.won) / float(sums.lost) if sums.lost else None,
            average_win=sums.won / won if won else None,
            average_loss=sums.lost / lost if lost else None,
            traded_notional=sums.traded_notional,
            turnover=float(sums.traded_notional) * self.points / float(self.pv_total)
            if self.pv_total > 0
            else None,
            slippage_bps=float(sums.slippage_cost) * BASIS_POINTS / float(slipped)
            if slipped
            else None,
            slippage_cost=sums.slippage_cost if slipped else None,
        )

    def _with_day(self) -> tuple[ReturnSums, Drop]:
        """The daily series with the running day as it is now; a day that began at or under zero
        has no return."""
        if self.index_at_day_start <= 0:
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
