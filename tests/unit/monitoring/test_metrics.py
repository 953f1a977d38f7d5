"""What an account is worth at one moment."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.accounts import AccountSnapshot, SpotBalance
from module.model.errors import InvariantViolated
from module.model.market import MarketType
from module.model.results import SymbolTotals
from monitoring.lots import LotCost
from monitoring.metrics import Totals, measure_portfolio, measure_symbols, rebalance_base
from tests.fakes.watched_account import START, AccountExchange, WatchClock, position, session

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
    assert (row.gross_exposure, row.net_exposure) == (6_100 / 10_030, 100 / 10_030)
    assert row.unprotected == 1
    assert row.unprotected_s is None


def test_unprotected_seconds_are_told_by_who_records_them() -> None:
    row = measure_portfolio(look(), session(), NOTHING, unprotected_s=61.25)
    assert row.unprotected_s == 61.25


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
    assert row.unrealized_pnl == 0
    ada, bitcoin = measure_symbols(snapshot, watched, NOTHING)
    assert (bitcoin.size, bitcoin.entry_price) == (Decimal("0.06"), None)
    assert bitcoin.flags == "cost-partly-unknown"
    assert bitcoin.weight == 0.372
    assert (ada.size, ada.flags) == (Decimal("0.7"), ""), "dust is visible"


def test_spot_coins_gain_against_what_they_have_cost() -> None:
    coin = replace(position("BTCUSDT", "0.06", "62000", "3720", "0"), leverage=Decimal(1))
    snapshot = look("10037.5", coin)
    watched = session(market=MarketType.SPOT, leverage=Decimal(1))
    totals = Totals({}, costs={"BTCUSDT": LotCost(Decimal("0.05"), Decimal(61_500))})
    row = measure_portfolio(snapshot, watched, totals)
    assert row.unrealized_pnl == Decimal(25)
    assert (row.current_pv, row.wallet_balance) == (Decimal("10037.5"), Decimal("10012.5"))
    assert row.wallet_balance + row.unrealized_pnl == row.current_pv
    (held,) = measure_symbols(snapshot, watched, totals)
    assert (held.entry_price, held.unrealized_pnl) == (Decimal(61_500), Decimal(25))
    assert held.flags == "cost-partly-unknown", "a sixth of the coins was there before"


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
    assert row.flags == "exposure-undefined,roe-undefined"
    assert (row.gross_exposure, row.net_exposure) == (None, None)
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
