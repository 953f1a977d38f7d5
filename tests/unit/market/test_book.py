"""The book of candles hands out what the venue has, asks once, and stores before it answers."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.market.book import BARS_KEPT_PER_SERIES, PAGE_BARS, CandleBook
from module.model.errors import Unavailable
from module.model.market import Frequency, MarketType
from module.model.series import Series, Stretch
from tests.fakes.market_data import ArithmeticVenue, HandClock, MemoryCandles, at, made_candle

NOW = at("2025-03-03 09:17")
MINUTE = timedelta(minutes=1)
BTC = Series("synthetic:7", MarketType.FUTURES, "BTCUSDT", Frequency.MINUTE_1)


class Bench:
    """A book with its store, its venue and its time."""

    def __init__(self) -> None:
        self.clock = HandClock(NOW)
        self.venue = ArithmeticVenue(self.clock)
        self.store = MemoryCandles()
        self.book = CandleBook(self.store, self.venue)

    def openings(self, first_back: int, until_back: int = 0) -> list[int]:
        """Minutes before NOW at which the bars open that the book has of this stretch."""
        wanted = Stretch(NOW - first_back * MINUTE, NOW - until_back * MINUTE)
        bars = self.book.bars(BTC, wanted, self.clock.now())
        assert all(bar == self.stored(bar.opens_at) for bar in bars)
        return [(NOW - bar.opens_at) // MINUTE for bar in bars]

    def stored(self, opens_at: object) -> object:
        return self.store.rows[BTC][opens_at]  # type: ignore[index]  # an opening of a bar

    def hole(self, back: int) -> None:
        self.venue.holes.add((Frequency.MINUTE_1, NOW - back * MINUTE))


def test_what_nobody_asked_for_before_is_fetched_stored_and_complete() -> None:
    bench = Bench()
    assert bench.openings(5) == [5, 4, 3, 2, 1]
    assert sorted(bench.store.rows[BTC]) == [NOW - back * MINUTE for back in range(5, 0, -1)]


def test_what_is_known_is_not_asked_for_again() -> None:
    bench = Bench()
    bench.openings(50)
    calls = bench.venue.calls
    assert bench.openings(30, 10) == list(range(30, 10, -1))
    bench.venue.down = bench.store.down = True
    assert bench.openings(50) == list(range(50, 0, -1))
    assert bench.venue.calls == calls


def test_what_another_process_stored_is_not_asked_for() -> None:
    bench = Bench()
    bench.openings(20)
    again = CandleBook(bench.store, ArithmeticVenue(bench.clock, down=True))
    assert len(again.bars(BTC, Stretch(NOW - 20 * MINUTE, NOW), NOW)) == 20


def test_only_the_missing_part_is_asked_for_page_by_page() -> None:
    bench = Bench()
    bench.book = CandleBook(bench.store, bench.venue, page_bars=7)
    bench.openings(10)
    bench.venue.given.clear()
    assert bench.openings(25) == list(range(25, 0, -1))
    assert len(bench.venue.given) == 15


def test_the_bar_that_is_open_now_is_never_handed_out() -> None:
    bench = Bench()
    bench.clock.sleep(59)
    wanted = Stretch(NOW - 2 * MINUTE, NOW + 3 * MINUTE)
    bars = bench.book.bars(BTC, wanted, bench.clock.now())
    assert [bar.closes_at for bar in bars] == [NOW - MINUTE, NOW]


def test_a_late_bar_is_asked_for_again_a_moment_later_and_is_no_gap() -> None:
    bench = Bench()
    bench.venue.late_by = timedelta(seconds=1)
    assert bench.openings(3) == [3, 2]
    calls = bench.venue.calls
    assert bench.openings(3) == [3, 2]
    assert bench.venue.calls == calls
    bench.clock.sleep(1.0)
    assert bench.openings(3) == [3, 2, 1]
    assert bench.store.gap_rows == {}


def test_a_hole_of_the_venue_stays_absent_and_is_asked_for_more_and_more_rarely() -> None:
    bench = Bench()
    bench.hole(40)
    assert 40 not in bench.openings(60)
    calls = bench.venue.calls
    assert len(bench.openings(60)) == 59
    assert bench.venue.calls == calls
    asked_after_minutes = []
    for minute in range(1, 100):
        bench.clock.sleep(60)
        before = bench.venue.calls
        bench.openings(60)
        if bench.venue.calls > before:
            asked_after_minutes.append(minute)
    assert asked_after_minutes == [1, 5, 21, 85]


def test_a_hole_that_the_venue_fills_later_is_filled_here_too() -> None:
    bench = Bench()
    bench.hole(40)
    bench.openings(60)
    bench.venue.holes.clear()
    bench.clock.sleep(61)
    assert 40 in bench.openings(60)


def test_the_time_before_a_listing_ends_the_search() -> None:
    bench = Bench()
    bench.venue.listed_at = NOW - 30 * MINUTE
    assert bench.openings(5_000) == list(range(30, 0, -1))
    assert bench.venue.calls <= 5_000 // PAGE_BARS + 1
    calls = bench.venue.calls
    assert bench.openings(100) == list(range(30, 0, -1))
    assert bench.venue.calls == calls


def test_old_history_does_not_push_the_present_out_of_memory() -> None:
    bench = Bench()
    bench.openings(100)
    assert bench.openings(90_000, 89_000) == list(range(90_000, 89_000, -1))
    bench.venue.down = bench.store.down = True
    assert len(bench.openings(100)) == 100


def test_memory_is_bounded_and_a_long_window_is_complete_all_the_same() -> None:
    bench = Bench()
    long = BARS_KEPT_PER_SERIES + 321
    assert len(bench.openings(long)) == long
    bench.venue.down = True
    assert len(bench.openings(long)) == long
    bench.store.down = True
    assert len(bench.openings(BARS_KEPT_PER_SERIES)) == BARS_KEPT_PER_SERIES


def test_C1_a_broken_bar_counts_as_missing_and_is_never_stored() -> None:
    bench = Bench()
    opens_at = NOW - 20 * MINUTE
    good = made_candle("BTCUSDT", Frequency.MINUTE_1, opens_at)
    bench.venue.spoiled[Frequency.MINUTE_1, opens_at] = replace(good, low=Decimal("NaN"))
    assert 20 not in bench.openings(25)
    assert opens_at not in bench.store.rows[BTC]
    assert bench.book.unsound_bars == 1


def test_E1_nothing_is_handed_out_that_could_not_be_stored() -> None:
    bench = Bench()
    bench.openings(10)
    bench.store.down = True
    bench.clock.sleep(60)
    with pytest.raises(Unavailable):
        bench.book.bars(BTC, Stretch(NOW, NOW + MINUTE), bench.clock.now())
    bench.store.down = False
    bars = bench.book.bars(BTC, Stretch(NOW, NOW + MINUTE), bench.clock.now())
    assert [bar.opens_at for bar in bars] == [NOW]


def test_many_callers_at_once_ask_the_venue_once() -> None:
    bench = Bench()
    results: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: results.append(bench.openings(200))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == [list(range(200, 0, -1))] * 8
    assert len(bench.venue.given) == 200


@settings(max_examples=80, deadline=None)
@given(
    holes=st.sets(st.integers(3, 120), max_size=20),
    page_bars=st.integers(1, 50),
    asks=st.lists(
        st.tuples(st.integers(1, 130), st.integers(0, 130), st.booleans()), min_size=1, max_size=8
    ),
)
def test_whatever_is_asked_in_whatever_order_the_answer_is_what_the_venue_has(
    holes: set[int], page_bars: int, asks: list[tuple[int, int, bool]]
) -> None:
    bench = Bench()
    bench.book = CandleBook(bench.store, bench.venue, page_bars=page_bars)
    for back in holes:
        bench.hole(back)
    for first, length, restart in asks:
        if restart:
            bench.book = CandleBook(bench.store, bench.venue, page_bars=page_bars)
        until = max(0, first - length)
        expected = [back for back in range(first, until, -1) if back not in holes]
        assert bench.openings(first, until) == expected
    assert len(bench.venue.given) == len(set(bench.venue.given))
