"""A strategy's answer is refused, by name, or it is within the limits."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.errors import StrategyFailed
from module.model.market import MarketType
from module.model.orders import StopPrices
from tests.fakes.exchange import MARKS, make_instrument
from trading.rebalance.weights import Target, read_targets, scale_to_volatility

RULES = {symbol: make_instrument(symbol) for symbol in MARKS}


def read(answer: dict[str, dict[str, str]], market: MarketType = MarketType.FUTURES) -> object:
    return read_targets(answer, RULES, market)


def test_weights_and_stops_are_read_exactly() -> None:
    answer = {
        "SOLUSDT": {"weight": "-0.1"},
        "BTCUSDT": {
            "weight": "0.30000000000000004",
            "presetStopSurplusPrice": "70001.7",
            "presetStopLossPrice": "51234.5",
        },
    }
    found = read_targets(answer, RULES, MarketType.FUTURES)
    assert list(found) == ["BTCUSDT", "SOLUSDT"]
    assert found["BTCUSDT"] == Target(
        "BTCUSDT",
        Decimal("0.30000000000000004"),
        StopPrices(stop_loss=Decimal("51234.5"), take_profit=Decimal("70001.7")),
    )
    assert found["SOLUSDT"].weight == Decimal("-0.1")


def test_nothing_returned_means_flat() -> None:
    assert read({}) == {}


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({"BTCUSDT": {"weight": "nan"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "-Infinity"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "sNaN"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "a lot"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "1.0000001"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "1e308"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "9e999999"}, "ETHUSDT": {"weight": "9e999999"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "1e9999999"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "1e-999999999"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "0.6"}, "ETHUSDT": {"weight": "-0.5"}}, "1.1"),
        ({"BTCUSD": {"weight": "0.1"}}, "BTCUSD"),
        ({"btcusdt": {"weight": "0.1"}}, "btcusdt"),
        ({"ВTCUSDT": {"weight": "0.1"}}, "ВTCUSDT"),
        ({"BTC/USDT:USDT": {"weight": "0.1"}}, "BTC/USDT:USDT"),
        ({"BTCUSDT": {}}, "BTCUSDT"),
        ({"BTCUSDT": {"weigth": "0.1"}}, "BTCUSDT"),
        ({"BTCUSDT": {"weight": "0.1", "leverage": "125"}}, "leverage"),
        ({"BTCUSDT": {"weight": "0.1", "presetStopLossPrice": "0"}}, "stop_loss"),
        ({"BTCUSDT": {"weight": "0.1", "presetStopLossPrice": "-3"}}, "stop_loss"),
        ({"BTCUSDT": {"weight": "0.1", "presetStopLossPrice": "nan"}}, "presetStopLossPrice"),
        ({"BTCUSDT": {"weight": "0.1", "presetStopSurplusPrice": "1e308"}}, "take_profit"),
    ],
)
def test_G2_C10_what_is_no_set_of_weights_is_refused_and_named(
    answer: dict[str, dict[str, str]], named: str
) -> None:
    with pytest.raises(StrategyFailed) as refused:
        read(answer)
    assert named in refused.value.message


def test_G2_too_many_symbols_are_refused() -> None:
    with pytest.raises(StrategyFailed):
        read({f"X{number}USDT": {"weight": "0"} for number in range(501)})


def test_spot_refuses_a_negative_weight_and_takes_the_others() -> None:
    with pytest.raises(StrategyFailed, match="short"):
        read({"BTCUSDT": {"weight": "-0.000001"}}, MarketType.SPOT)
    assert read({"BTCUSDT": {"weight": "1"}}, MarketType.SPOT)


def test_C9_a_sum_over_one_by_rounding_is_scaled_to_at_most_one() -> None:
    thirds = {s: {"weight": "0.3333333336"} for s in ("BTCUSDT", "ETHUSDT", "SOLUSDT")}
    found = read_targets(thirds, RULES, MarketType.FUTURES)
    assert sum(abs(t.weight) for t in found.values()) <= 1 + Decimal("1e-27")
    thirds["BTCUSDT"] = {"weight": "0.3333333361"}
    with pytest.raises(StrategyFailed):
        read(thirds)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from([*MARKS, "NOSUCH", ""]),
        st.dictionaries(
            st.sampled_from(["weight", "presetStopLossPrice", "presetStopSurplusPrice", "x"]),
            st.one_of(
                st.decimals(allow_nan=True, allow_infinity=True).map(str),
                st.floats(-2, 2).map(repr),
                st.text(max_size=6),
            ),
            max_size=3,
        ),
        max_size=5,
    )
)
def test_C9_whatever_is_returned_is_refused_or_within_one(
    answer: dict[str, dict[str, str]],
) -> None:
    try:
        found = read_targets(answer, RULES, MarketType.FUTURES)
    except StrategyFailed:
        return
    assert sum(abs(t.weight) for t in found.values()) <= 1 + Decimal("1e-27")
    assert all(t.weight.is_finite() for t in found.values())


def test_volatility_scaling_is_capped_by_the_sum_of_weights() -> None:
    wanted = {
        "BTCUSDT": Target("BTCUSDT", Decimal("0.3")),
        "ETHUSDT": Target("ETHUSDT", Decimal("-0.2")),
    }
    halved = scale_to_volatility(wanted, Decimal("0.8"), Decimal("0.4"))
    assert [t.weight for t in halved.values()] == [Decimal("0.15"), Decimal("-0.10")]
    capped = scale_to_volatility(wanted, Decimal("0.01"), Decimal("0.4"))
    assert [t.weight for t in capped.values()] == [Decimal("0.6"), Decimal("-0.4")]
    assert scale_to_volatility(wanted, Decimal(0), Decimal("0.4")) == wanted
    assert scale_to_volatility({}, Decimal("0.8"), Decimal("0.4")) == {}
