"""The request budget never lets a published limit be exceeded, and keeps room for protection."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.exchange.venue import Priority, RequestKind
from module.gateway.budget import ADDRESS_PER_MINUTE, RequestBudget
from module.model.errors import InvariantViolated, RateLimited
from tests.fakes.hand_clock import START, HandClock

PLACE = RequestKind("place", 10, private=True)
READ = RequestKind("positions", 5, private=True)
TICKERS = RequestKind("tickers", 20, private=False)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_two_batches_of_five_fit_into_a_second_and_the_third_waits(clock: HandClock) -> None:
    budget = RequestBudget(clock).for_account("http://x", "k1")
    budget.admit([PLACE] * 5, Priority.ORDER)
    budget.admit([PLACE] * 5, Priority.ORDER)
    with pytest.raises(RateLimited) as caught:
        budget.admit([PLACE] * 5, Priority.ORDER)
    clock.advance(caught.value.retry_after_s or 0)
    budget.admit([PLACE] * 5, Priority.ORDER)


def test_a_refused_batch_takes_nothing(clock: HandClock) -> None:
    budget = RequestBudget(clock).for_account("http://x", "k1")
    budget.admit([PLACE] * 7, Priority.ORDER)
    for _ in range(3):
        with pytest.raises(RateLimited):
            budget.admit([TICKERS, *[PLACE] * 5], Priority.ORDER)
    budget.admit([PLACE] * 3, Priority.ORDER)


def test_private_limits_are_per_key_and_public_ones_per_address(clock: HandClock) -> None:
    budget = RequestBudget(clock)
    first, second = budget.for_account("http://x", "k1"), budget.for_account("http://x", "k2")
    first.admit([PLACE] * 10, Priority.ORDER)
    second.admit([PLACE] * 10, Priority.ORDER)
    first.admit([TICKERS] * 19, Priority.READ)
    with pytest.raises(RateLimited):
        second.admit([TICKERS], Priority.READ)
    budget.for_account("http://y", "k2").admit([TICKERS], Priority.READ)


def test_protection_finds_room_where_plain_reads_do_not(clock: HandClock) -> None:
    budget = RequestBudget(clock).for_account("http://x", "k1")
    for _ in range(4):
        budget.admit([READ], Priority.READ)
    with pytest.raises(RateLimited):
        budget.admit([READ], Priority.READ)
    budget.admit([READ], Priority.PROTECTION)


def test_market_data_leaves_half_of_the_address_to_others(clock: HandClock) -> None:
    budget = RequestBudget(clock).for_account("http://x", "k1")
    sent = 0
    while clock.now() < START + timedelta(seconds=60):
        for n in range(100):
            budget.admit([RequestKind(f"e{n}", 20, private=False)], Priority.MARKET_DATA)
            sent += 1
            if sent == ADDRESS_PER_MINUTE // 2:
                break
        if sent == ADDRESS_PER_MINUTE // 2:
            break
        clock.advance(1.1)
    with pytest.raises(RateLimited):
        budget.admit([TICKERS], Priority.MARKET_DATA)
    budget.admit([TICKERS], Priority.ORDER)


def test_A12_after_a_429_nothing_of_the_key_is_admitted_until_the_stated_time(
    clock: HandClock,
) -> None:
    budget = RequestBudget(clock)
    mine, other = budget.for_account("http://x", "k1"), budget.for_account("http://x", "k2")
    mine.penalise(7, whole_address=False)
    with pytest.raises(RateLimited) as caught:
        mine.admit([READ], Priority.PROTECTION)
    assert caught.value.retry_after_s == 7
    other.admit([READ], Priority.READ)
    clock.advance(7)
    mine.admit([READ], Priority.READ)


def test_A13_a_ban_closes_the_whole_address(clock: HandClock) -> None:
    budget = RequestBudget(clock)
    budget.for_account("http://x", "k1").penalise(120, whole_address=True)
    with pytest.raises(RateLimited):
        budget.for_account("http://x", "k2").admit([READ], Priority.PROTECTION)
    budget.for_account("http://y", "k2").admit([READ], Priority.READ)


def test_a_batch_that_can_never_fit_is_our_own_bug(clock: HandClock) -> None:
    with pytest.raises(InvariantViolated):
        RequestBudget(clock).for_account("http://x", "k").admit([PLACE] * 11, Priority.ORDER)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 700)), min_size=1, max_size=120))
def test_I14_no_second_anywhere_holds_more_than_the_limit(steps: list[tuple[int, int]]) -> None:
    clock = HandClock()
    budget = RequestBudget(clock).for_account("http://x", "k")
    sent: list[float] = []
    refusals = 0
    for count, pause_ms in steps:
        try:
            budget.admit([PLACE] * count, Priority.ORDER)
            sent.extend([clock.monotonic()] * count)
        except RateLimited:
            refusals += 1
        clock.advance(pause_ms / 1000)
    for start in sent:
        assert sum(1 for when in sent if start <= when < start + 1) <= 10
    assert len(sent) + refusals >= len(steps)


def test_C7_a_clock_that_is_set_back_five_minutes_closes_no_window(clock: HandClock) -> None:
    budget = RequestBudget(clock).for_account("http://x", "k1")
    budget.admit([PLACE] * 10, Priority.ORDER)
    clock.current -= timedelta(seconds=300)
    with pytest.raises(RateLimited) as caught:
        budget.admit([PLACE], Priority.ORDER)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s < 2
    clock.advance(caught.value.retry_after_s)
    budget.admit([PLACE] * 10, Priority.ORDER)


def test_C7_a_clock_that_is_set_an_hour_ahead_ends_no_silence_and_no_window(
    clock: HandClock,
) -> None:
    budget = RequestBudget(clock).for_account("http://x", "k1")
    budget.admit([PLACE] * 10, Priority.ORDER)
    budget.penalise(3, whole_address=False)
    clock.current += timedelta(hours=1)
    for waited_s in (0.0, 2.9):
        clock.advance(waited_s)
        with pytest.raises(RateLimited):
            budget.admit([PLACE], Priority.PROTECTION)
    clock.advance(0.2)
    budget.admit([PLACE] * 10, Priority.ORDER)


def test_C7_time_of_a_stepped_world_is_its_own_and_goes_on_when_it_is_set_back(
    clock: HandClock,
) -> None:
    budget = RequestBudget(clock, is_stepped=True).for_account("http://x", "k1")
    budget.admit([PLACE] * 10, Priority.ORDER)
    clock.current += timedelta(seconds=2)  # two seconds of the world, in no real time
    budget.admit([PLACE] * 10, Priority.ORDER)
    clock.current -= timedelta(seconds=300)
    with pytest.raises(RateLimited):
        budget.admit([PLACE], Priority.ORDER)
    clock.current += timedelta(seconds=2)
    budget.admit([PLACE] * 10, Priority.ORDER)
