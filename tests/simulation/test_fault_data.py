"""Data faults: what arrives is another answer, once it is due, and it is counted once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest

from module.model.errors import NotYet
from module.model.market import Candle, Frequency
from tests.fakes.hand_clock import HandClock
from tests.simulation.fault_data import DATA_FAULTS, TICKERS, DataFault, DataFaults, uneven_weights
from tests.simulation.fault_draws import KINDS, drawn_strokes

CLOCK_START = HandClock().now()
BODY = json.dumps(
    {
        "code": "00000",
        "data": [
            {
                "symbol": symbol,
                "lastPr": "100",
                "askPr": "101",
                "bidPr": "99",
                "markPrice": "100",
                "indexPrice": "100",
                "ts": "1",
            }
            for symbol in ("BTCUSDT", "ETHUSDT")
        ],
    }
)


def faults(clock: HandClock, fault_id: str, variant: str, symbol: str | None = None) -> DataFaults:
    fault = DataFault(fault_id, variant, clock.now() + timedelta(seconds=5), 60.0, symbol)
    return DataFaults(clock.now, [fault])


def row(body: str, number: int = 0) -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads(body)["data"][number]
    return found


@pytest.mark.parametrize("variant", DATA_FAULTS["C1"])
def test_C1_a_price_that_is_none_arrives_as_it_is_for_a_while(variant: str) -> None:
    clock = HandClock()
    data = faults(clock, "C1", variant, "ETHUSDT")
    assert data.edit_answer(TICKERS, BODY) is BODY
    clock.advance(10)
    edited = data.edit_answer(TICKERS, BODY)
    assert row(edited)["lastPr"] == "100", "another symbol is as it was"
    assert row(edited, 1).get("lastPr") != "100"
    data.edit_answer(TICKERS, BODY)
    assert data.hits == {"C1": 1}, "counted once"
    clock.advance(60)
    assert data.edit_answer(TICKERS, BODY) is BODY


def test_C2_prices_stand_still_and_C3_one_is_ten_times_as_high() -> None:
    clock = HandClock()
    data = faults(clock, "C2", "fresh time")
    clock.advance(10)
    assert data.edit_answer(TICKERS, BODY) == BODY, "the first look freezes"
    moved = BODY.replace('"100"', '"105"').replace('"ts": "1"', '"ts": "2"')
    assert row(data.edit_answer(TICKERS, moved))["lastPr"] == "100"
    assert row(data.edit_answer(TICKERS, moved))["ts"] == "2"
    spike = faults(HandClock(), "C3", "spike", "BTCUSDT")
    spike._now = lambda: CLOCK_START + timedelta(seconds=6)
    assert Decimal(row(spike.edit_answer(TICKERS, BODY))["markPrice"]) == 1000


def test_C4_a_book_is_crossed_or_empty() -> None:
    clock = HandClock()
    crossed, empty = faults(clock, "C4", "crossed"), faults(clock, "C4", "empty")
    clock.advance(6)
    found = row(crossed.edit_answer(TICKERS, BODY))
    assert Decimal(found["bidPr"]) > Decimal(found["askPr"])
    assert row(empty.edit_answer(TICKERS, BODY))["askPr"] == ""


class Bars:
    """Ten bars of whatever is asked for."""

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        one = Decimal(1)
        return {
            symbol: [
                Candle(symbol, frequency, end - frequency.length * n, one, one, one, one, one)
                for n in range(window, 0, -1)
            ]
            for symbol in symbols
        }


@pytest.mark.parametrize(("variant", "left"), [("gap", 9), ("short", 1)])
def test_C5_bars_are_missing(variant: str, left: int) -> None:
    clock = HandClock()
    data = faults(clock, "C5", variant, "BTCUSDT")
    clock.advance(6)
    noon = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    bars = data.market(Bars(), clock)
    found = bars.closed_bars(["BTCUSDT", "ETHUSDT"], Frequency.MINUTE_1, 10, noon)
    assert (len(found["BTCUSDT"]), len(found["ETHUSDT"])) == (left, 10)
    assert data.hits == {"C5": 1}


def test_C5_a_late_bar_is_waited_for_as_the_market_service_does() -> None:
    clock = HandClock()
    data = faults(clock, "C5", "late")
    clock.advance(6)
    bars = data.market(Bars(), clock)
    with pytest.raises(NotYet):
        bars.closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 2, clock.now())
    assert clock.slept == [5.0]


def test_C9_weights_are_not_quite_what_they_were_meant_to_be() -> None:
    targets = {"BTCUSDT": {"weight": "0.3"}, "ETHUSDT": {"weight": "-0.45"}}

    def gross(variant: str) -> Decimal:
        changed = uneven_weights(targets, variant)
        return sum((abs(Decimal(each["weight"])) for each in changed.values()), Decimal(0))

    assert 1 < gross("a hair above one") < 1 + Decimal("1e-9")
    assert gross("half as much again") == Decimal("1.5")
    assert uneven_weights(targets, "minus nothing")["BTCUSDT"]["weight"] == "-0.0"
    assert uneven_weights({}, "half as much again") == {}


def test_a_seed_draws_the_same_strokes_again_in_order_of_time() -> None:
    symbols = ("BTCUSDT", "ETHUSDT")
    one = drawn_strokes(Random(7), 60, 24.0, symbols)
    assert one == drawn_strokes(Random(7), 60, 24.0, symbols)
    assert [stroke.at_s for stroke in one] == sorted(stroke.at_s for stroke in one)
    assert {kind.fault_id for kind in KINDS} <= {
        stroke.fault_id
        for seed in range(20)
        for stroke in drawn_strokes(Random(seed), 60, 24.0, symbols)
    }
