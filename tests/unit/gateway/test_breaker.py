"""The circuit breaker: closed, open, half-open; who may still ask, and when."""

from __future__ import annotations

import pytest

from module.exchange.venue import Priority, RequestKind
from module.gateway.breaker import FAILURES_MAX, CircuitState
from module.gateway.budget import RequestBudget
from module.model.errors import Unavailable
from tests.fakes.hand_clock import HandClock

ADDRESS = "https://x"
PLACE = RequestKind("place", 10, True, True)
POSITIONS = RequestKind("positions", 10, True)
TICKERS = RequestKind("tickers", 20, False)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def budget(clock: HandClock) -> RequestBudget:
    return RequestBudget(clock)


def admitted(
    budget: RequestBudget,
    request: RequestKind = PLACE,
    priority: Priority = Priority.ORDER,
    key: str = "k",
) -> bool:
    try:
        budget.for_account(ADDRESS, key).admit([request], priority)
    except Unavailable:
        return False
    return True


def fail(budget: RequestBudget, times: int = FAILURES_MAX, request: RequestKind = PLACE) -> None:
    for _ in range(times):
        budget.for_account(ADDRESS, "k").report(request, failed=True)


def states(budget: RequestBudget) -> list[tuple[str, CircuitState]]:
    assert all(item.troubled_s >= 0 for item in budget.troubled())
    return [(item.endpoints.value, item.state) for item in budget.troubled()]


def test_A14_failures_in_a_row_open_the_circuit_for_everybody_of_the_address(
    budget: RequestBudget,
) -> None:
    fail(budget, FAILURES_MAX - 1)
    assert admitted(budget)
    fail(budget, 1)
    assert not admitted(budget)
    assert not admitted(budget, key="another-account")
    assert states(budget) == [("trade", CircuitState.OPEN)]


def test_an_answer_in_between_starts_the_count_again(budget: RequestBudget) -> None:
    fail(budget, FAILURES_MAX - 1)
    budget.for_account(ADDRESS, "k").report(PLACE, failed=False)
    fail(budget, FAILURES_MAX - 1)
    assert admitted(budget)


def test_other_endpoints_and_addresses_go_on(budget: RequestBudget) -> None:
    fail(budget)
    assert admitted(budget, POSITIONS)
    assert admitted(budget, TICKERS)
    budget.for_account("https://y", "k").admit([PLACE], Priority.ORDER)


def test_a_refusal_says_when_to_come_back(budget: RequestBudget, clock: HandClock) -> None:
    fail(budget)
    with pytest.raises(Unavailable) as caught:
        budget.for_account(ADDRESS, "k").admit([PLACE], Priority.ORDER)
    assert caught.value.code == "circuit-open"
    assert caught.value.retry_after_s == 5
    clock.advance(5)
    assert admitted(budget)


def test_half_open_lets_one_probe_through_and_its_answer_closes(
    budget: RequestBudget, clock: HandClock
) -> None:
    fail(budget)
    clock.advance(5)
    assert admitted(budget)
    assert states(budget) == [("trade", CircuitState.HALF_OPEN)]
    assert not admitted(budget)
    budget.for_account(ADDRESS, "k").report(PLACE, failed=False)
    assert states(budget) == []
    assert admitted(budget)


def test_a_probe_that_fails_opens_it_longer_each_time(
    budget: RequestBudget, clock: HandClock
) -> None:
    fail(budget)
    waits = []
    for _ in range(6):
        with pytest.raises(Unavailable) as caught:
            budget.for_account(ADDRESS, "k").admit([PLACE], Priority.ORDER)
        assert caught.value.retry_after_s is not None
        waits.append(caught.value.retry_after_s)
        clock.advance(waits[-1])
        assert admitted(budget)
        fail(budget, 1)
    assert waits == [5, 10, 20, 40, 60, 60]


def test_a_probe_whose_answer_is_never_reported_does_not_keep_it_half_open_for_ever(
    budget: RequestBudget, clock: HandClock
) -> None:
    fail(budget)
    clock.advance(5)
    assert admitted(budget)
    assert not admitted(budget)
    clock.advance(15)
    assert admitted(budget)


def test_protection_and_cancels_probe_an_open_circuit_at_a_bounded_pace(
    budget: RequestBudget, clock: HandClock
) -> None:
    fail(budget)
    let_through = 0
    for _ in range(40):  # ten seconds of four tries a second
        let_through += admitted(budget, priority=Priority.PROTECTION)
        if clock.monotonic() < 4.5:
            assert not admitted(budget, priority=Priority.ORDER)
        clock.advance(0.25)
    assert 4 <= let_through <= 6
    clock.advance(2)
    assert admitted(budget, priority=Priority.CANCEL)


def test_an_urgent_probe_that_succeeds_closes_it_for_all(
    budget: RequestBudget, clock: HandClock
) -> None:
    fail(budget)
    clock.advance(2)
    assert admitted(budget, priority=Priority.PROTECTION)
    budget.for_account(ADDRESS, "k").report(PLACE, failed=False)
    assert admitted(budget)
