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
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

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
ROUNDING = 1e-14
"""Deviations so small beside their mean are what floats leave of returns that are all the same."""
_INSTANT_BEFORE = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_MIDNIGHT = time(tzinfo=UTC)
_INFINITY = math.inf
_sqrt = math.sqrt


@dataclass(slots=True)
class ReturnSeries:
    """A series of returns as running sums, with the curve from 1 on that they make. Mutable, owned
    by its state.

    `mean` and `squares` are Welford's moments, `downside` sums squares below zero; the curve is at
    `value`, was at `peak` at most, and `deepest` is its deepest drawdown (≤ 0).
    """

    returns: int = 0
    mean: float = 0.0
    squares: float = 0.0
    downside: float = 0.0
    value: float = 1.0
    peak: float = 1.0
    deepest: float = 0.0

    def add(self, change: float, value: float) -> None:
        """One more return, which has brought the curve to `value`."""
        self.returns = count = self.returns + 1
        step = change - self.mean
        self.mean = mean = self.mean + step / count
        self.squares += step * (change - mean)
        if change < 0.0:
            self.downside += change * change
        self.value = value
        peak = self.peak
        if value > peak:
            self.peak = value
        elif (drawdown := (value - peak) / peak) < self.deepest:
            self.deepest = drawdown

    def become(self, other: ReturnSeries) -> None:
        """Have the other's numbers."""
        self.returns = other.returns
        self.mean = other.mean
        self.squares = other.squares
        self.downside = other.downside
        self.value = other.value
        self.peak = other.peak
        self.deepest = other.deepest

    def ratios(self, periods: int) -> tuple[float | None, float | None, float | None, float | None]:
        """Volatility, Sharpe, Sortino, Calmar, annualised by `periods` a year.

        Volatility: sample standard deviation × √periods. Sharpe: mean ÷ that deviation × √periods;
        None where nothing varies. Sortino: the same over the downside deviation; None without a
        loss. These three are None under two returns. Calmar: compound annual growth ÷ |deepest
        drawdown|; None without a drawdown.
        """
        count = self.returns
        calmar = None
        if self.deepest < 0.0 <= self.value:
            try:
                calmar = _finite((self.value ** (periods / count) - 1.0) / -self.deepest)
            except OverflowError:
                calmar = None
        if count < 2:
            return None, None, None, calmar
        volatility = _sqrt(self.squares / (count - 1) * periods)
        below = _sqrt(self.downside / count * periods)
        growth = self.mean * periods
        noise = self.mean * ROUNDING
        varies = self.squares > noise * noise * count
        sortino = growth / below if below else _INFINITY
        is_finite = volatility < _INFINITY
        return (
            volatility if is_finite else None,
            growth / volatility if varies and is_finite else None,
            sortino if -_INFINITY < sortino < _INFINITY else None,
            calmar,
        )


@dataclass(slots=True)
class DaySeries:
    """The days of a curve. `series` has those that are over; the one that runs until `ends_at`
    (None before the first point) began at `index`, after so many `returns` of the minutes. A value:
    another takes its place at a day's end; `_so_far` is where the running day is added up."""

    ends_at: datetime | None = None
    index: float = 1.0
    returns: int = 0
    series: ReturnSeries = field(default_factory=ReturnSeries)
    _so_far: ReturnSeries = field(default_factory=ReturnSeries, repr=False, compare=False)

    def with_day(self, minutes: ReturnSeries) -> ReturnSeries:
        """The series with the running day as it is now, until the next call; a day that began at or
        under zero, or in which no minute's return exists, has no return."""
        series, so_far = self.series, self._so_far
        if self.index <= 0.0 or minutes.returns == self.returns:
            return series
        factor = minutes.value / self.index
        so_far.become(series)
        so_far.add(factor - 1.0, series.value * factor)
        return so_far

    def begin(self, minute: datetime, minutes: ReturnSeries) -> DaySeries:
        """The days as that of `minute` begins; a point at 00:00 belongs to the day it ends."""
        midnight = datetime.combine((minute - _INSTANT_BEFORE).date() + _DAY, _MIDNIGHT)
        if self.ends_at is None:
            return DaySeries(midnight)
        series = replace(self.with_day(minutes))
        return DaySeries(midnight, minutes.value, minutes.returns, series)


@dataclass(slots=True)
class TradeFigures:
    """What follows from the trades and fills alone: it changes with them, not every minute.

    `traded` is the traded notional as a float, for the turnover.
    """

    sums: TradeSums
    win_rate: float | None
    profit_factor: float | None
    average_win: Decimal | None
    average_loss: Decimal | None
    traded: float
    slippage_bps: float | None
    slippage_cost: Decimal | None

    @classmethod
    def of(cls, sums: TradeSums) -> TradeFigures:
        """The figures of these sums; what does not exist (no trade, no loss) is None."""
        trades, won = sums.trades, sums.trades_won
        lost = trades - won
        slipped = sums.slippage_notional
        return cls(
            sums=sums,
            win_rate=won / trades if trades else None,
            profit_factor=-float(sums.won) / float(sums.lost) if sums.lost else None,
            average_win=sums.won / won if won else None,
            average_loss=sums.lost / lost if lost else None,
            traded=float(sums.traded_notional),
            slippage_bps=float(sums.slippage_cost) * BASIS_POINTS / float(slipped)
            if slipped
            else None,
            slippage_cost=sums.slippage_cost if slipped else None,
        )


@dataclass(slots=True)
class IndicatorState:
    """A curve so far, as running sums: a minute costs the same however long the curve is. Mutable,
    owned by who measures the curve.

    The curve begins at the initial balance. A return is (PV − transfers since) ÷ PV before − 1, so
    that a deposit is no profit. A point belongs to the UTC day that ends at or after it: the
    point at 00:00 closes the day before. `undefined` counts returns that do not exist (PV before
    was not above zero); the curve goes on from the next point, and a day in which no return exists
    has none either. `worth` is PV as a float, `pv_total` the sum of that over the `points`.
    """

    minute: datetime
    pv: Decimal
    transfers: Decimal
    worth: float
    pv_total: float = 0.0
    points: int = 0
    undefined: int = 0
    minutes: ReturnSeries = field(default_factory=ReturnSeries)
    days: DaySeries = field(default_factory=DaySeries)

    @classmethod
    def begin(cls, minute: datetime, initial_balance: Decimal) -> IndicatorState:
        """The curve before its first point."""
        return cls(minute, initial_balance, ZERO, float(initial_balance))

    def advance(self, minute: datetime, pv: Decimal, transfers: Decimal) -> IndicatorState:
        """This state, one more point on; `transfers` are net transfers since the start."""
        minutes, ends_at = self.minutes, self.days.ends_at
        if ends_at is None or minute > ends_at:
            self.days = self.days.begin(minute, minutes)
        gain = pv - self.pv
        if transfers != self.transfers:
            gain -= transfers - self.transfers
        before = self.worth
        change = float(gain) / before if before > 0.0 else _INFINITY
        value = minutes.value * (1.0 + change)
        if -VALUE_MAX <= value <= VALUE_MAX:
            minutes.add(change, value)
        else:
            self.undefined += 1
        self.minute, self.pv, self.transfers = minute, pv, transfers
        self.worth = worth = float(pv)
        self.pv_total += worth
        self.points += 1
        return self

    def become(self, other: IndicatorState) -> None:
        """Be where the other is; what either does next is its own."""
        self.minute = other.minute
        self.pv = other.pv
        self.transfers = other.transfers
        self.worth = other.worth
        self.pv_total = other.pv_total
        self.points = other.points
        self.undefined = other.undefined
        self.minutes.become(other.minutes)
        self.days = other.days

    def copy(self) -> IndicatorState:
        """Another that is where this one is."""
        return replace(self, minutes=replace(self.minutes))

    def read(
        self, trades: TradeSums | TradeFigures, days_per_year: int = DAYS_PER_YEAR
    ) -> IndicatorRow:
        """The indicators now; the running day counts with its return so far."""
        figures = trades if isinstance(trades, TradeFigures) else TradeFigures.of(trades)
        minutes = self.minutes
        days = self.days.with_day(minutes)
        count, day_count = minutes.returns, days.returns
        volatility, sharpe, sortino, calmar = minutes.ratios(days_per_year * MINUTES_PER_DAY)
        volatility_1day, sharpe_1day, sortino_1day, calmar_1day = days.ratios(days_per_year)
        sums = figures.sums
        return IndicatorRow(  # by position, in the order of its fields: this runs every minute
            count,
            minutes.value - 1.0 if count else None,
            (minutes.value - minutes.peak) / minutes.peak if count else None,
            minutes.deepest if count else None,
            sharpe,
            sortino,
            volatility,
            day_count,
            sharpe_1day,
            sortino_1day,
            volatility_1day,
            sums.trades,
            sums.trades_won,
            figures.win_rate,
            "return-undefined" if self.undefined else "",
            calmar,
            calmar_1day,
            (days.value - days.peak) / days.peak if day_count else None,
            days.deepest if day_count else None,
            figures.profit_factor,
            figures.average_win,
            figures.average_loss,
            sums.traded_notional,
            figures.traded * self.points / self.pv_total if self.pv_total > 0.0 else None,
            figures.slippage_bps,
            figures.slippage_cost,
        )

    def to_document(self) -> dict[str, object]:
        """Plain JSON; floats survive the round trip bit by bit."""
        days = self.days
        return {
            "version": STATE_VERSION,
            "minute": instant_text(self.minute),
            "pv": str(self.pv),
            "transfers": str(self.transfers),
            "pv_total": str(self.pv_total),
            "points": self.points,
            "undefined": self.undefined,
            "minutes": _sums_of(self.minutes),
            "drop": _drop_of(self.minutes),
            "day": None if days.ends_at is None else (days.ends_at - _DAY).date().isoformat(),
            "index_at_day_start": days.index,
            "returns_at_day_start": days.returns,
            "days": _sums_of(days.series),
            "day_drop": _drop_of(days.series),
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
                worth=float(str(document["pv"])),
                pv_total=float(str(document["pv_total"])),
                points=int(_number(document["points"])),
                undefined=int(_number(document["undefined"])),
                minutes=_series(document["minutes"], document["drop"]),
                days=DaySeries(
                    ends_at=None
                    if day is None
                    else datetime.combine(date.fromisoformat(str(day)) + _DAY, _MIDNIGHT),
                    index=_number(document["index_at_day_start"]),
                    returns=int(_number(document["returns_at_day_start"])),
                    series=_series(document["days"], document["day_drop"]),
                ),
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
    """`state`, one more point on, or the curve's first state when there is none yet."""
    if state is not None:
        return state.advance(minute, pv, transfers)
    if initial_balance is not None:
        return IndicatorState.begin(minute, initial_balance).advance(minute, pv, transfers)
    return IndicatorState(minute, pv, transfers, float(pv), pv_total=float(pv), points=1)


def _finite(value: float) -> float | None:
    return value if -_INFINITY < value < _INFINITY else None


def _number(value: object) -> float:
    if not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return float(value)


def _numbers(value: object, count: int) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != count:
        raise TypeError(f"expected {count} numbers")
    return tuple(_number(item) for item in value)


def _sums_of(series: ReturnSeries) -> list[float]:
    return [series.returns, series.mean, series.squares, series.downside]


def _drop_of(series: ReturnSeries) -> list[float]:
    return [series.value, series.peak, series.deepest]


def _series(sums: object, drop: object) -> ReturnSeries:
    count, mean, squares, downside = _numbers(sums, 4)
    return ReturnSeries(int(count), mean, squares, downside, *_numbers(drop, 3))
