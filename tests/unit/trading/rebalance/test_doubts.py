"""Prices that are not believed: found by what the cycle read anyhow, and nothing opens by them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from module.model.market import Candle, Frequency, MarketType, Quote
from module.model.sessions import TradeMode
from tests.fakes.exchange import MARKS
from tests.unit.trading.rebalance.books import book, policy, targets
from trading.rebalance.doubts import doubts_about, doubts_since
from trading.rebalance.legs import DiffCase, OrderPlan, SkipReason
from trading.rebalance.plan import plan_rebalance

AT = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
BTC = MARKS["BTCUSDT"]
MARKETS = pytest.mark.parametrize("market", list(MarketType))


def bar(
    low: str = "0.99", high: str = "1.01", length: str = "1m", closed: timedelta = timedelta(0)
) -> Candle:
    """Of BTCUSDT, in parts of its mark; `closed` ago."""
    frequency = Frequency.parse(length)
    opens_at = AT - closed - frequency.length
    least, most = Decimal(low) * BTC, Decimal(high) * BTC
    return Candle("BTCUSDT", frequency, opens_at, BTC, most, least, BTC, Decimal(1))


def doubted(factor: str, *bars: Candle, last: str | None = None) -> bool:
    """Whether a mark of `factor` is, and a quote of `last`, in parts of the usual one."""
    quotes = {}
    if last is not None:
        price = BTC * Decimal(last)
        quotes["BTCUSDT"] = Quote("BTCUSDT", price, price, price, BTC * Decimal(factor), AT)
    windows = [{"BTCUSDT": [each]} for each in bars]
    return "BTCUSDT" in doubts_about({"BTCUSDT": BTC * Decimal(factor)}, quotes, windows, AT)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        ("10", True),
        ("0.1", True),
        ("1.112", True),
        ("1.111", False),
        ("1", False),
        ("0.891", False),
        ("0.8909", True),
    ],
)
def test_C3_a_price_may_be_a_tenth_beyond_the_last_bar(factor: str, expected: bool) -> None:
    assert doubted(factor, bar()) is expected


def test_C3_mark_and_last_must_agree_and_both_with_the_bar() -> None:
    assert doubted("1", last="10")
    assert doubted("10", last="1")
    assert doubted("10", bar(), last="10"), "both lie in the spike"
    assert not doubted("1.05", bar(), last="1")
    assert not doubted("10", last="10"), "nothing else is known"


def test_C3_the_newest_bar_counts_the_shorter_of_two_and_none_that_is_old_or_empty() -> None:
    wide = bar("0.1", "20", "1h")
    assert doubted("10", wide, bar()), "the shorter"
    assert doubted("10", bar(), wide)
    assert not doubted("10", bar(closed=timedelta(minutes=1)), bar("9", "11"))
    assert not doubted("10", bar(closed=timedelta(minutes=61)))
    assert not doubted("10", replace(bar(), low=Decimal("NaN")))
    assert not doubted("10", bar(closed=timedelta(minutes=-1))), "one that is not closed yet"


def test_C3_no_price_is_not_an_odd_price() -> None:
    assert not doubted("0", bar())


def test_C3_a_completion_doubts_a_price_far_from_that_of_its_cycle() -> None:
    before = {"BTCUSDT": BTC, "ETHUSDT": MARKS["ETHUSDT"]}
    now = {**before, "BTCUSDT": BTC * 10, "SOLUSDT": Decimal(7)}
    assert list(doubts_since(before, now)) == ["BTCUSDT"]


# --- what is planned by them ----------------------------------------------------------------------


def planned(
    weights: dict[str, str], held: dict[str, str], market: MarketType = MarketType.FUTURES
) -> OrderPlan:
    """With the price of BTCUSDT doubted."""
    rules = policy(market=market, mode=TradeMode.REBALANCING)
    return plan_rebalance(
        targets(weights), replace(book(held), doubted=frozenset({"BTCUSDT"})), rules
    )


def reasons(plan: OrderPlan) -> dict[str, SkipReason]:
    return {item.symbol: item.reason for item in plan.skipped}


def traded(plan: OrderPlan) -> list[tuple[str, DiffCase]]:
    return [(leg.symbol, leg.case) for leg in plan.legs]


@MARKETS
def test_C3_a_doubted_symbol_is_not_opened_and_the_others_are(market: MarketType) -> None:
    plan = planned({"BTCUSDT": "0.3", "ETHUSDT": "0.2"}, {}, market)
    assert traded(plan) == [("ETHUSDT", DiffCase.NEW)]
    assert reasons(plan) == {"BTCUSDT": SkipReason.DOUBTFUL_PRICE}


@MARKETS
def test_C3_where_a_held_symbol_is_doubted_only_closes_trade(market: MarketType) -> None:
    held = {"BTCUSDT": "0.05", "SOLUSDT": "7"}
    plan = planned({"BTCUSDT": "0.1", "ETHUSDT": "0.2"}, held, market)
    assert traded(plan) == [("SOLUSDT", DiffCase.GONE)]
    doubt = SkipReason.DOUBTFUL_PRICE
    assert reasons(plan) == {"BTCUSDT": doubt, "ETHUSDT": doubt}


@MARKETS
def test_C3_a_close_is_never_held_back(market: MarketType) -> None:
    plan = planned({}, {"BTCUSDT": "0.05"}, market)
    assert traded(plan) == [("BTCUSDT", DiffCase.GONE)]


def test_C3_a_flip_is_closed_and_not_opened() -> None:
    plan = planned({"BTCUSDT": "-0.3"}, {"BTCUSDT": "0.05"})
    assert traded(plan) == [("BTCUSDT", DiffCase.OPPOSITE)]
    assert [leg.reduce_only for leg in plan.legs] == [True]
    assert reasons(plan) == {"BTCUSDT": SkipReason.DOUBTFUL_PRICE}
