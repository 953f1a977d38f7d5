"""Indicators equal empyrical's on the same curve, and survive what a curve can do."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.results import NO_TRADES, CurvePoint, IndicatorRow, TradeSums
from monitoring.indicators import MINUTES_PER_DAY, IndicatorState, replay
from monitoring.metrics import Totals
from monitoring.stacks import StackFuturesIndicatorResult
from tests.fakes.measured_curves import portfolio_row
from tests.fakes.watched_account import MINUTE, minute

if TYPE_CHECKING:
    import pandas as pd


def curve_of(values: list[Decimal], step: timedelta = MINUTE) -> list[CurvePoint]:
    return [
        CurvePoint(minute(0) + number * step, value, Decimal(0), Decimal(10_000))
        for number, value in enumerate(values)
    ]


def wave(count: int) -> list[Decimal]:
    """A curve with ups and downs that nobody mistakes for another."""
    value, curve = Decimal(10_000), []
    for number in range(count):
        value += Decimal((number * 7919) % 113 - 54) / Decimal(4)
        curve.append(value)
    return curve


def returns_of(points: Sequence[CurvePoint]) -> list[float]:
    """The curve's returns as anybody would write them down, from the initial balance on."""
    before, moved, found = Decimal(10_000), Decimal(0), []
    for point in points:
        change = (point.current_pv - (point.net_transfers - moved)) / before - 1
        found.append(float(change))
        before, moved = point.current_pv, point.net_transfers
    return found


def assert_same(ours: float | None, theirs: float, name: str) -> None:
    if ours is None:
        assert not math.isfinite(theirs), (name, theirs)
    else:
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9), name


def assert_equals_empyrical(row: IndicatorRow, returns: pd.Series, basis: str, year: int) -> None:
    """Every number of one basis, and whether it exists at all."""
    import empyrical

    drawdowns = empyrical.stats.drawdown_series(returns)
    theirs = {
        "sharpe": empyrical.sharpe_ratio(returns, annualization=year),
        "sortino": empyrical.sortino_ratio(returns, annualization=year),
        "volatility": empyrical.annual_volatility(returns, annualization=year),
        "calmar": empyrical.calmar_ratio(returns, annualization=year),
        "max_drawdown": empyrical.max_drawdown(returns),
        "drawdown": drawdowns.iloc[-1],
    }
    for name, value in theirs.items():
        suffix = "" if basis == "1min" and "drawdown" in name else f"_{basis}"
        assert_same(getattr(row, name + suffix), float(value), name + suffix)
    assert getattr(row, f"returns_{basis}") == len(returns)


def assert_both_bases(points: Sequence[CurvePoint], year: int = 365) -> IndicatorRow:
    import empyrical
    import numpy as np
    import pandas as pd

    state = replay(None, points)
    assert state is not None
    row = state.read(NO_TRADES, year)
    index = pd.DatetimeIndex([point.minute for point in points])
    returns = pd.Series(returns_of(points), index=index)
    with np.errstate(all="ignore"):
        assert_equals_empyrical(row, returns, "1min", year * MINUTES_PER_DAY)
        day_of = (index - pd.Timedelta(microseconds=1)).floor("D")
        daily = (1 + returns).groupby(day_of).prod() - 1
        assert_equals_empyrical(row, daily, "1day", year)
    assert_same(row.cumulative_return, float(empyrical.cum_returns_final(returns)), "cumulative")
    return row


@pytest.mark.parametrize(
    ("count", "step_minutes", "year"),
    [(1, 1, 365), (2, 1, 365), (3, 1, 252), (700, 1, 365), (4_000, 7, 360), (60_000, 1, 365)],
)
def test_indicators_equal_empyrical_on_the_same_curve(
    count: int, step_minutes: int, year: int
) -> None:
    assert_both_bases(curve_of(wave(count), timedelta(minutes=step_minutes)), year)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(min_value=-900, max_value=1_500),
            st.sampled_from([0, 0, 0, 0, 1_000, -500, 2_500]),
            st.sampled_from([1, 1, 1, 7, 600]),
        ),
        min_size=1,
        max_size=60,
    ),
)
def test_indicators_equal_empyrical_whatever_the_curve_and_its_transfers(
    moves: list[tuple[int, int, int]],
) -> None:
    """Moves in 1e-4 of the value; money comes and goes; minutes are missing."""
    value, moved, at, points = Decimal(10_000), Decimal(0), minute(0), []
    for change, transfer, step in moves:
        value *= 1 + Decimal(change) / 10_000
        if value + transfer > 0:
            value, moved = value + transfer, moved + transfer
        points.append(CurvePoint(at, value, moved, Decimal(10_000)))
        at += step * MINUTE
    assert_both_bases(points)


@pytest.mark.parametrize(
    "values", [["10000"] * 4, ["10100"], ["10100", "10201", "10303.01"], ["9000", "9000", "8000"]]
)
def test_E11_where_nothing_varies_or_nothing_is_lost_a_ratio_does_not_exist(
    values: list[str],
) -> None:
    row = assert_both_bases(curve_of([Decimal(value) for value in values]))
    if len(set(returns_of(curve_of([Decimal(value) for value in values])))) == 1:
        assert row.sharpe_1min is None


@settings(max_examples=40, deadline=None)
@given(
    st.integers(min_value=-900, max_value=900).filter(bool),
    st.integers(min_value=3, max_value=9),
    st.decimals(min_value=1, max_value=10**9, places=8),
)
def test_E11_returns_that_are_all_the_same_have_no_sharpe_whatever_floats_make_of_them(
    change: int, count: int, first: Decimal
) -> None:
    factor = 1 + Decimal(change) / 10_000
    points = [
        CurvePoint(minute(number), first * factor**number, Decimal(0), first)
        for number in range(1, count + 1)
    ]
    state = replay(None, points)
    assert state is not None
    row = state.read(NO_TRADES)
    assert row.sharpe_1min is None
    assert row.volatility_1min == pytest.approx(0.0, abs=1e-9)


def test_trades_and_fills_are_read_with_the_curve() -> None:
    state = replay(None, curve_of([Decimal(10_000), Decimal(14_000)]))
    assert state is not None
    sums = TradeSums(
        trades=5,
        trades_won=3,
        won=Decimal(120),
        lost=Decimal(-80),
        traded_notional=Decimal(30_000),
        slippage_cost=Decimal(6),
        slippage_notional=Decimal(24_000),
    )
    row = state.read(sums)
    assert (row.win_rate, row.profit_factor) == (0.6, 1.5)
    assert (row.average_win, row.average_loss) == (Decimal(40), Decimal(-40))
    assert (row.traded_notional, row.turnover) == (Decimal(30_000), 2.5)
    assert (row.slippage_bps, row.slippage_cost) == (2.5, Decimal(6))
    empty = state.read(NO_TRADES)
    assert (empty.traded_notional, empty.turnover) == (Decimal(0), 0.0)
    missing = ("win_rate", "profit_factor", "average_win", "average_loss", "slippage_bps")
    assert all(getattr(empty, name) is None for name in missing)
    all_won = state.read(TradeSums(trades=1, trades_won=1, won=Decimal(3)))
    assert all_won.profit_factor is None


def test_drawdown_is_measured_from_the_highest_point_so_far() -> None:
    state = replay(None, curve_of([Decimal(12_000), Decimal(9_000), Decimal(10_500)]))
    assert state is not None
    row = state.read(NO_TRADES)
    assert row.drawdown == pytest.approx(-0.125)
    assert row.max_drawdown == pytest.approx(-0.25)
    assert row.win_rate is None


def test_a_deposit_is_no_profit() -> None:
    state = IndicatorState.begin(minute(0), Decimal(10_000))
    state = state.advance(minute(0), Decimal(10_100), Decimal(0))
    state = state.advance(minute(1), Decimal(15_100), Decimal(5_000))
    row = state.read(NO_TRADES)
    assert row.cumulative_return == pytest.approx(0.01)
    assert row.max_drawdown == 0.0


def test_a_day_ends_at_its_midnight() -> None:
    midnight = datetime(2026, 3, 4, tzinfo=UTC)
    state = IndicatorState.begin(midnight - MINUTE, Decimal(1_000))
    state = state.advance(midnight - MINUTE, Decimal(1_010), Decimal(0))
    state = state.advance(midnight, Decimal(1_100), Decimal(0))
    assert state.read(NO_TRADES).returns_1day == 1
    state = state.advance(midnight + MINUTE, Decimal(1_045), Decimal(0))
    row = state.read(NO_TRADES)
    assert row.returns_1day == 2
    assert row.volatility_1day == pytest.approx(
        math.sqrt((0.1 - 0.025) ** 2 + (-0.05 - 0.025) ** 2) * math.sqrt(365)
    )


def test_E11_a_curve_at_zero_has_no_return_and_goes_on() -> None:
    state = replay(None, curve_of([Decimal(0), Decimal(500), Decimal(550)]))
    assert state is not None
    row = state.read(NO_TRADES)
    assert row.flags == "return-undefined"
    assert row.max_drawdown == -1.0
    assert row.returns_1min == 2
    assert all(
        value is None or math.isfinite(value)
        for value in (row.sharpe_1min, row.sortino_1min, row.volatility_1min, row.sharpe_1day)
    )


def test_E11_a_day_in_which_no_return_exists_is_no_day() -> None:
    """All money leaves on the second day; the only point of the third is what came again."""
    import pandas as pd

    points = [
        CurvePoint(minute(day * 24 * 60 + at), Decimal(value), Decimal(moved), Decimal(10_000))
        for day, at, value, moved in [
            (0, 0, 10_100, 0),
            (1, 0, 0, -10_100),
            (2, 0, 5_000, -5_100),
            (3, 0, 5_500, -5_100),
            (3, 1, 5_390, -5_100),
            (4, 0, 5_929, -5_100),
        ]
    ]
    whole = replay(None, points)
    assert whole is not None
    row = whole.read(NO_TRADES)
    assert (row.returns_1min, row.returns_1day, row.flags) == (5, 4, "return-undefined")
    assert_equals_empyrical(row, pd.Series([0.01, 0.0, 1.1 * 0.98 - 1, 0.1]), "1day", 365)
    early = replay(None, points[:3])
    assert early is not None
    assert early.read(NO_TRADES).returns_1day == 2  # nor is it one while it runs


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.decimals(min_value=-(10**12), max_value=10**19, places=6),
            st.decimals(min_value=-(10**6), max_value=10**6, places=2),
        ),
        max_size=30,
    ),
    st.integers(min_value=0, max_value=30),
)
def test_E11_every_curve_gives_finite_numbers_and_survives_a_restart(
    points: list[tuple[Decimal, Decimal]], cut: int
) -> None:
    curve = [
        CurvePoint(minute(number * 300), value, transfers, Decimal(10_000))
        for number, (value, transfers) in enumerate(points)
    ]
    whole = replay(None, curve)
    stopped = replay(None, curve[:cut])
    if stopped is not None:
        stopped = IndicatorState.from_document(json.loads(json.dumps(stopped.to_document())))
        assert stopped is not None
    assert replay(stopped, curve[cut:]) == whole
    if whole is not None:
        row = whole.read(NO_TRADES)
        for name in row.__slots__:
            value = getattr(row, name)
            assert not isinstance(value, float) or math.isfinite(value), name
        json.dumps(whole.to_document(), allow_nan=False)


def test_a_state_that_was_stored_with_an_exact_sum_of_pv_goes_on() -> None:
    """Version 3 once kept that sum as a decimal of any length."""
    whole = replay(None, curve_of(wave(3_000)))
    assert whole is not None
    document = whole.to_document()
    document["pv_total"] = str(sum(wave(3_000), Decimal(0)) + Decimal("0.000000000000000001"))
    again = IndicatorState.from_document(json.loads(json.dumps(document)))
    assert again is not None
    sums = TradeSums(traded_notional=Decimal(30_000))
    assert again.read(sums).turnover == pytest.approx(whole.read(sums).turnover, rel=1e-12)


def test_figures_of_trades_follow_them_from_minute_to_minute() -> None:
    part = StackFuturesIndicatorResult()
    first = TradeSums(trades=1, trades_won=1, won=Decimal(3), traded_notional=Decimal(500))
    second = first + TradeSums(trades=1, lost=Decimal(-2), traded_notional=Decimal(700))
    rows = [
        part.measure(minute(number), portfolio_row(minute(number), "10000"), Totals({}, sums=sums))
        for number, sums in enumerate([first, first, second])
    ]
    assert [row.win_rate for row in rows] == [1.0, 1.0, 0.5]
    assert [row.profit_factor for row in rows] == [None, None, 1.5]
    assert [row.turnover for row in rows] == pytest.approx([0.05, 0.05, 0.12])


@pytest.mark.parametrize(
    "document", [{}, {"version": 2, "pv": "1"}, {"version": 3}, {"version": 3, "minute": "x"}]
)
def test_a_state_that_cannot_be_read_is_rebuilt_from_rows(document: dict[str, object]) -> None:
    assert IndicatorState.from_document(document) is None
