"""What an account is worth, and indicators that equal empyrical's on the same curve."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.accounts import AccountSnapshot, SpotBalance
from module.model.errors import InvariantViolated
from module.model.market import MarketType
from module.model.results import CurvePoint, SymbolTotals
from monitoring.metrics import (
    DAYS_PER_YEAR,
    MINUTES_PER_YEAR,
    IndicatorState,
    Totals,
    measure_portfolio,
    measure_symbols,
    rebalance_base,
    replay,
)
from tests.fakes.watched_account import (
    MINUTE,
    START,
    AccountExchange,
    WatchClock,
    minute,
    position,
    session,
)

NOTHING = Totals({})


def look(wallet: str = "10000", *positions: object) -> AccountSnapshot:
    exchange = AccountExchange(WatchClock(START), Decimal(wallet))
    exchange.positions = positions  # type: ignore[assignment]
    return exchange.snapshot()


def test_portfolio_follows_the_worked_numbers() -> None:
    totals = Totals(
        {"BTCUSDT": SymbolTotals(Decimal("7.5"), Decimal("-1.5"), Decimal("-0.25"))}, Decimal(500)
    )
    row = measure_portfolio(look("10870", position()), session(), totals)
    assert row.current_pv == Decimal(10_920)
    assert row.available == Decimal(10_500)
    assert row.netprofit == Decimal(420)
    assert row.roe == 0.04
    assert row.position_value == Decimal(3_100)
    assert row.margin_size == Decimal(1_550)
    assert row.cash == Decimal(9_320)
    assert row.cash + row.margin_size + row.unrealized_pnl == row.current_pv
    assert row.unrealized_roe == pytest.approx(50 / 1550)
    assert (row.realized_pnl, row.fees, row.funding) == (
        Decimal("7.5"),
        Decimal("-1.5"),
        Decimal("-0.25"),
    )
    assert (row.positions, row.unprotected, row.flags) == (1, 0, "")


def test_short_positions_are_negative_and_gross_counts_both_sides() -> None:
    short = position("ETHUSDT", "-1.5", "2000", "1500", "-20", stop_loss=None)
    row = measure_portfolio(look("10000", position(), short), session(), NOTHING)
    assert row.position_value == Decimal(100)
    assert row.gross_position_value == Decimal(6_100)
    assert row.unprotected == 1


def test_spot_coins_and_money_add_up_to_pv_and_dust_needs_no_stop() -> None:
    coin = replace(
        position("BTCUSDT", "0.06", "62000", "3720", "0", stop_loss="58000"),
        leverage=Decimal(1),
    )
    dust = replace(
        position("ADAUSDT", "0.7", "0.5", "0.35", "0", stop_loss=None), locked=Decimal("0.7")
    )
    snapshot = replace(
        look("10037.85", coin, dust),
        balances=(
            SpotBalance("ADA", Decimal("0.7"), Decimal(0)),
            SpotBalance("BTC", Decimal("0.05"), Decimal("0.01")),
            SpotBalance("USDT", Decimal("6000"), Decimal("317.5")),
        ),
    )
    watched = session(market=MarketType.SPOT, leverage=Decimal(1))
    row = measure_portfolio(snapshot, watched, NOTHING)
    assert (row.cash, row.position_value) == (Decimal("6317.5"), Decimal("3720.35"))
    assert row.cash + row.position_value == row.current_pv
    assert row.unprotected == 0
    ada, bitcoin = measure_symbols(snapshot, watched, NOTHING)
    assert (bitcoin.size, bitcoin.entry_price) == (Decimal("0.06"), None)
    assert bitcoin.weight == 0.372
    assert ada.size == Decimal("0.7"), "dust is visible"


def test_symbols_are_those_held_or_wanted_with_weight_and_target() -> None:
    watched = session(targets=(("BTCUSDT", Decimal("0.3")), ("SOLUSDT", Decimal("-0.1"))))
    rows = measure_symbols(look("10000", position()), watched, NOTHING)
    assert [row.symbol for row in rows] == ["BTCUSDT", "SOLUSDT"]
    held, wanted = rows
    assert held.weight == pytest.approx(0.05 * 62_000 / 2 / 10_000)
    assert held.target == 0.3
    assert held.stop_loss == Decimal(58_000)
    assert (wanted.size, wanted.weight, wanted.target) == (Decimal(0), 0.0, -0.1)
    assert wanted.mark_price is None


def test_base_is_the_smaller_of_allocation_and_pv_unless_profits_compound() -> None:
    assert rebalance_base(session(allocated=Decimal(4_000)), Decimal(9_000)) == Decimal(4_000)
    assert rebalance_base(session(allocated=Decimal(9_500)), Decimal(9_000)) == Decimal(9_000)
    assert rebalance_base(session(), Decimal(11_000)) == Decimal(10_000)
    assert rebalance_base(session(compounding=True), Decimal(11_000)) == Decimal(11_000)
    assert rebalance_base(session(initial_balance=None), Decimal(11_000)) is None


def test_E11_nothing_to_divide_by_is_null_with_a_flag() -> None:
    row = measure_portfolio(look("0"), session(initial_balance=Decimal(0)), NOTHING)
    assert (row.current_pv, row.netprofit, row.roe) == (Decimal(0), Decimal(0), None)
    assert row.flags == "roe-undefined"
    unknown = measure_portfolio(look(), session(initial_balance=None), NOTHING)
    assert (unknown.netprofit, unknown.roe, unknown.available) == (None, None, None)
    assert unknown.flags == "initial-balance-unknown"
    (held,) = measure_symbols(
        look("0", position(margin="0", pnl="0")), session(allocated=Decimal(0)), NOTHING
    )
    assert (held.weight, held.unrealized_roe) == (None, None)
    assert held.flags == "unrealized_roe-undefined,weight-undefined"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_E11_a_number_that_is_none_is_refused_by_name(number: str) -> None:
    with pytest.raises(InvariantViolated, match="wallet_balance is"):
        measure_portfolio(look(number), session(), NOTHING)
    with pytest.raises(InvariantViolated, match=r"Position\.mark_price"):
        measure_symbols(look("10000", position(mark=number)), session(), NOTHING)


def test_a_symbol_held_twice_is_refused() -> None:
    with pytest.raises(InvariantViolated, match="one-way"):
        measure_symbols(look("10000", position(), position()), session(), NOTHING)


# --- the curve ------------------------------------------------------------------------------------


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


def assert_same(ours: float | None, theirs: float) -> None:
    if ours is None:
        assert not math.isfinite(theirs)
    else:
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("count", "step_minutes"), [(2, 1), (3, 1), (700, 1), (4_000, 7)])
def test_indicators_equal_empyrical_on_the_same_curve(count: int, step_minutes: int) -> None:
    import empyrical
    import pandas as pd

    points = curve_of(wave(count), timedelta(minutes=step_minutes))
    state = replay(None, points)
    assert state is not None
    row = state.read(trades=7, trades_won=3)

    index = [point.minute for point in points]
    curve = pd.Series([10_000.0, *(float(point.current_pv) for point in points)])
    returns = curve.pct_change().dropna()
    returns.index = pd.DatetimeIndex(index)
    assert row.returns_1min == len(returns)
    assert_same(row.cumulative_return, float(empyrical.cum_returns_final(returns)))
    assert_same(row.max_drawdown, float(empyrical.max_drawdown(returns)))
    for name, function in (
        ("sharpe", empyrical.sharpe_ratio),
        ("sortino", empyrical.sortino_ratio),
        ("volatility", empyrical.annual_volatility),
    ):
        ours = getattr(row, f"{name}_1min")
        assert_same(ours, float(function(returns, annualization=MINUTES_PER_YEAR)))

    day_of = (returns.index - pd.Timedelta(microseconds=1)).floor("D")
    daily = (1 + returns).groupby(day_of).prod() - 1
    assert row.returns_1day == len(daily)
    if len(daily) > 2:
        assert_same(row.sharpe_1day, empyrical.sharpe_ratio(daily, annualization=DAYS_PER_YEAR))
        assert_same(row.sortino_1day, empyrical.sortino_ratio(daily, annualization=DAYS_PER_YEAR))
        volatility = empyrical.annual_volatility(daily, annualization=DAYS_PER_YEAR)
        assert_same(row.volatility_1day, volatility)
    assert row.win_rate == 3 / 7


def test_drawdown_is_measured_from_the_highest_point_so_far() -> None:
    state = replay(None, curve_of([Decimal(12_000), Decimal(9_000), Decimal(10_500)]))
    assert state is not None
    row = state.read(0, 0)
    assert row.drawdown == pytest.approx(-0.125)
    assert row.max_drawdown == pytest.approx(-0.25)
    assert row.win_rate is None


def test_a_deposit_is_no_profit() -> None:
    state = IndicatorState.begin(minute(0), Decimal(10_000))
    state = state.advance(minute(0), Decimal(10_100), Decimal(0))
    state = state.advance(minute(1), Decimal(15_100), Decimal(5_000))
    row = state.read(0, 0)
    assert row.cumulative_return == pytest.approx(0.01)
    assert row.max_drawdown == 0.0


def test_a_day_ends_at_its_midnight() -> None:
    midnight = datetime(2026, 3, 4, tzinfo=UTC)
    state = IndicatorState.begin(midnight - MINUTE, Decimal(1_000))
    state = state.advance(midnight - MINUTE, Decimal(1_010), Decimal(0))
    state = state.advance(midnight, Decimal(1_100), Decimal(0))
    assert state.read(0, 0).returns_1day == 1
    state = state.advance(midnight + MINUTE, Decimal(1_045), Decimal(0))
    row = state.read(0, 0)
    assert row.returns_1day == 2
    assert row.volatility_1day == pytest.approx(
        math.sqrt((0.1 - 0.025) ** 2 + (-0.05 - 0.025) ** 2) * math.sqrt(365)
    )


def test_E11_a_curve_at_zero_has_no_return_and_goes_on() -> None:
    state = replay(None, curve_of([Decimal(0), Decimal(500), Decimal(550)]))
    assert state is not None
    row = state.read(0, 0)
    assert row.flags == "return-undefined"
    assert row.max_drawdown == -1.0
    assert row.returns_1min == 2
    assert all(
        value is None or math.isfinite(value)
        for value in (row.sharpe_1min, row.sortino_1min, row.volatility_1min, row.sharpe_1day)
    )


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
        row = whole.read(0, 0)
        for name in row.__slots__:
            value = getattr(row, name)
            assert not isinstance(value, float) or math.isfinite(value), name


@pytest.mark.parametrize("document", [{}, {"version": 1}, {"version": 1, "minute": "x"}])
def test_a_state_that_cannot_be_read_is_rebuilt_from_rows(document: dict[str, object]) -> None:
    assert IndicatorState.from_document(document) is None
