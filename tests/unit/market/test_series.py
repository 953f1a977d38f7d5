"""Bars on their grid: which there are, which are missing, what long bars are made of."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.market.series import (
    aggregate,
    bar_count,
    floor_to,
    is_sound,
    missing_stretches,
    native_of,
)
from module.model.market import Candle, Frequency, MarketType
from module.model.series import Series, Stretch
from tests.fakes.market_data import EPOCH, at, made_candle

BTC = Series("synthetic:7", MarketType.FUTURES, "BTCUSDT", Frequency.MINUTE_1)
MADE_OF_OTHERS = [each for each in Frequency if native_of(each) is not each]


@pytest.mark.parametrize(
    ("frequency", "when", "opening"),
    [
        (Frequency.MINUTE_3, "2025-01-01 09:17", "2025-01-01 09:15"),
        (Frequency.HOUR_4, "2025-01-01 09:17", "2025-01-01 08:00"),
        (Frequency.DAY_1, "2024-02-29 23:59", "2024-02-29 00:00"),
        (Frequency.WEEK_1, "2025-01-01 09:17", "2024-12-30 00:00"),
        (Frequency.WEEK_1, "2024-12-30 00:00", "2024-12-30 00:00"),
    ],
)
def test_bars_lie_on_the_utc_grid_and_weeks_begin_on_monday(
    frequency: Frequency, when: str, opening: str
) -> None:
    assert floor_to(frequency, at(when)) == at(opening)


def test_every_frequency_is_made_of_the_longest_native_bars_that_fit() -> None:
    assert {each.value: native_of(each).value for each in Frequency} == {
        **dict.fromkeys(("1m", "3m", "5m", "15m", "30m"), "1m"),
        **dict.fromkeys(("1h", "2h", "4h", "6h", "12h"), "1h"),
        **dict.fromkeys(("1d", "1w"), "1d"),
    }


@settings(max_examples=60, deadline=None)
@given(
    frequency=st.sampled_from(MADE_OF_OTHERS),
    start=st.integers(0, 30_000),
    absent=st.sets(st.integers(0, 90), max_size=12),
    count=st.integers(0, 90),
)
def test_C5_aggregation_equals_a_plain_recomputation_and_never_makes_half_a_bar(
    frequency: Frequency, start: int, absent: set[int], count: int
) -> None:
    native = native_of(frequency)
    short = [
        made_candle("BTCUSDT", native, EPOCH + (start + number) * native.length)
        for number in range(count)
        if number not in absent
    ]
    by_opening = {candle.opens_at: candle for candle in short}
    expected: list[Candle] = []
    for opening in sorted({floor_to(frequency, candle.opens_at) for candle in short}):
        wanted = [
            opening + number * native.length for number in range(frequency.length // native.length)
        ]
        if all(each in by_opening for each in wanted):
            parts = [by_opening[each] for each in wanted]
            expected.append(
                Candle(
                    "BTCUSDT",
                    frequency,
                    opening,
                    parts[0].open,
                    max(part.high for part in parts),
                    min(part.low for part in parts),
                    parts[-1].close,
                    sum((part.volume for part in parts), Decimal(0)),
                )
            )
    assert aggregate(short, frequency) == expected


@given(present=st.sets(st.integers(-3, 40)), first=st.integers(0, 20), length=st.integers(0, 20))
def test_missing_stretches_are_exactly_the_absent_bars(
    present: set[int], first: int, length: int
) -> None:
    def opening(number: int) -> object:
        return EPOCH + timedelta(minutes=number)

    wanted = Stretch(EPOCH + timedelta(minutes=first), EPOCH + timedelta(minutes=first + length))
    found = missing_stretches(
        [EPOCH + timedelta(minutes=number) for number in present], Frequency.MINUTE_1, wanted
    )
    numbers = [
        stretch.first + timedelta(minutes=number)
        for stretch in found
        for number in range(bar_count(Frequency.MINUTE_1, stretch))
    ]
    assert numbers == [
        opening(number) for number in range(first, first + length) if number not in present
    ]
    assert all(a.until < b.first for a, b in pairwise(found))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("low", Decimal("NaN")),
        ("high", Decimal("Infinity")),
        ("low", Decimal(0)),
        ("close", Decimal(-1)),
        ("high", Decimal(1)),
        ("low", Decimal(5000)),
        ("volume", Decimal("-0.1")),
        ("symbol", "ETHUSDT"),
        ("frequency", Frequency.HOUR_1),
        ("opens_at", at("2025-01-01 09:00") + timedelta(seconds=1)),
        ("opens_at", at("2025-01-01 10:00")),
    ],
)
def test_C1_C5_a_bar_that_cannot_be_is_not_sound(field: str, value: object) -> None:
    now = at("2025-01-01 10:00")
    good = made_candle("BTCUSDT", Frequency.MINUTE_1, at("2025-01-01 09:59"))
    assert is_sound(good, BTC, now)
    values = {name: getattr(good, name) for name in Candle.__slots__} | {field: value}
    assert not is_sound(Candle(**values), BTC, now)
