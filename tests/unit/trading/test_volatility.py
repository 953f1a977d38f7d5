"""What volatility targeting scales by, and what bands are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from module.model.errors import StrategyFailed, Unavailable
from module.model.market import Candle, Frequency, MarketType
from module.model.sessions import TradeMode
from tests.fakes.exchange import MARKS, make_instrument
from tests.fakes.market import FakeMarket
from trading.gathering import (
    VOLATILITY_BARS,
    VOLATILITY_RETURNS_MIN,
    annualised_deviation,
    measure_volatility,
    minute_returns,
)
from trading.rebalance.plan import Policy
from trading.rebalance.weights import read_targets, scale_to_volatility

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
RULES = {symbol: make_instrument(symbol) for symbol in MARKS}
SCALED = Policy(TradeMode.VOLATILITY_TARGETING, MarketType.FUTURES, Decimal(1), Decimal("0.01"))
BANDED = replace(SCALED, mode=TradeMode.REBALANCING, no_trade_band=Decimal(1))
ANSWER = {"BTCUSDT": {"weight": "0.6"}, "ETHUSDT": {"weight": "-0.4"}}


class Shorter:
    """A market whose bars are only the newest `kept`, with closes as a test says."""

    def __init__(self, kept: int, closes: Mapping[str, Sequence[str]] | None = None) -> None:
        self.kept = kept
        self.closes = closes or {}

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        bars = FakeMarket().closed_bars(symbols, frequency, window, end)
        return {symbol: self._said(symbol, found[-self.kept :]) for symbol, found in bars.items()}

    def _said(self, symbol: str, bars: Sequence[Candle]) -> list[Candle]:
        closes = self.closes.get(symbol)
        if closes is None:
            return list(bars)
        return [
            replace(bar, close=Decimal(close))
            for bar, close in zip(bars[-len(closes) :], closes, strict=True)
        ]


def bars_of(*closes: str, gap_after: int | None = None) -> dict[str, list[Candle]]:
    """One-minute bars of BTCUSDT with these closes; one minute is missing after `gap_after`."""
    found = []
    for number, close in enumerate(closes):
        late = 1 if gap_after is not None and number > gap_after else 0
        opens_at = AT + timedelta(minutes=number + late)
        price = Decimal(close)
        found.append(
            Candle("BTCUSDT", Frequency.MINUTE_1, opens_at, price, price, price, price, Decimal(1))
        )
    return {"BTCUSDT": found}


def test_deviation_is_the_samples_own_for_a_year_of_minutes() -> None:
    returns = minute_returns({"BTCUSDT": Decimal(1)}, bars_of("100", "101", "99.99"))
    assert returns == pytest.approx([0.01, -0.01])
    assert float(annualised_deviation(returns)) == pytest.approx(math.sqrt(0.0002 * 365 * 24 * 60))


def test_half_the_weight_is_half_the_deviation() -> None:
    bars = FakeMarket().closed_bars(["BTCUSDT"], Frequency.MINUTE_1, VOLATILITY_BARS, AT)
    alone = annualised_deviation(minute_returns({"BTCUSDT": Decimal(1)}, bars))
    half = annualised_deviation(minute_returns({"BTCUSDT": Decimal("0.5")}, bars))
    assert alone > 0
    assert abs(half * 2 - alone) < Decimal("1e-9")


def test_a_gap_is_no_return_and_a_price_that_is_none_is_no_bar() -> None:
    weights = {"BTCUSDT": Decimal(1)}
    assert minute_returns(weights, bars_of("100", "101", "150", "151.5", gap_after=1)) == (
        pytest.approx([0.01, 0.01])
    )
    assert minute_returns(weights, bars_of("100", "NaN", "0", "101")) == []


def test_the_book_is_measured_only_where_it_scales() -> None:
    measured = measure_volatility(ANSWER, RULES, SCALED, FakeMarket(), AT)
    assert measured.of_book is not None
    assert measured.of_book > 0
    assert measured.by_symbol == {}
    plain = replace(SCALED, mode=TradeMode.REBALANCING)
    market = FakeMarket()
    assert measure_volatility(ANSWER, RULES, plain, market, AT).of_book is None
    assert market.asked == []


def test_too_few_minutes_say_so_instead_of_leaving_the_weights_as_they_are() -> None:
    with pytest.raises(Unavailable, match=r"BTCUSDT, ETHUSDT .* 29 one-minute returns"):
        measure_volatility(ANSWER, RULES, SCALED, Shorter(VOLATILITY_RETURNS_MIN), AT)
    enough = Shorter(VOLATILITY_RETURNS_MIN + 1)
    assert measure_volatility(ANSWER, RULES, SCALED, enough, AT).of_book is not None


def test_a_flat_book_needs_no_minutes() -> None:
    assert measure_volatility({}, RULES, SCALED, Shorter(0), AT).of_book is None


def test_bands_have_the_volatility_of_each_symbol_that_has_enough_minutes() -> None:
    quiet = Shorter(VOLATILITY_BARS, {"ETHUSDT": ["3000"] * 5})
    measured = measure_volatility(ANSWER, RULES, BANDED, quiet, AT)
    assert set(measured.by_symbol) == {"BTCUSDT"}
    assert measured.by_symbol["BTCUSDT"] > 0


@pytest.mark.parametrize("realized", ["0.0001", "0.4", "3", "1000"])
def test_scaled_weights_never_add_up_to_more_than_one(realized: str) -> None:
    targets = read_targets(ANSWER, RULES, MarketType.FUTURES)
    scaled = scale_to_volatility(targets, Decimal(realized), Decimal("0.4"))
    total = sum(abs(target.weight) for target in scaled.values())
    assert total <= 1
    assert total == pytest.approx(min(Decimal("0.4") / Decimal(realized), 1), rel=Decimal("1e-9"))
    ratio = scaled["BTCUSDT"].weight / scaled["ETHUSDT"].weight
    assert ratio == pytest.approx(Decimal("-1.5"), rel=Decimal("1e-9"))


def test_on_spot_negative_weights_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(StrategyFailed, match="cannot be short"):
        measure_volatility(ANSWER, RULES, replace(SCALED, market=MarketType.SPOT), FakeMarket(), AT)
