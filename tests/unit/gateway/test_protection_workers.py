"""Nobody waits for somebody else's exchange: one look per account at a time, by workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from module.clock import SystemClock
from module.gateway.protection_loop import FAILURES_MAX, SLOW_WORKERS_MAX, ProtectionLoop
from module.model.accounts import Position
from module.model.errors import RateLimited
from module.model.orders import StopPrices
from module.ports import Clock
from tests.fakes.gateway_rig import GatewayRig, buy
from tests.fakes.gateway_stores import account
from tests.fakes.hand_clock import HandClock
from tests.fakes.memory_venue import MemoryVenue

STOPS = StopPrices(Decimal("55000.5"), Decimal("66000.1"))


class HangingVenue(MemoryVenue):
    """An exchange that takes the question and says nothing until it is let go."""

    def __init__(self, account_id: str) -> None:
        super().__init__(HandClock(), account_id)
        self.asked, self.let_go = threading.Event(), threading.Event()

    def _positions(self) -> tuple[Position, ...]:
        self.asked.set()
        self.let_go.wait(60)
        return super()._positions()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def loop_of(rig: GatewayRig, make_clock: Callable[[], Clock] = SystemClock) -> ProtectionLoop:
    gateway = rig.gateway
    return ProtectionLoop(gateway._desk, gateway._guard, gateway._alarms, make_clock)


def stops_of(rig: GatewayRig, symbol: str = "BTCUSDT") -> StopPrices:
    return next(p for p in rig.venue._positions() if p.symbol == symbol).stops


@pytest.fixture
def rig() -> GatewayRig:
    """With a position whose preset stops the exchange has lost."""
    rig = GatewayRig()
    rig.venue.presets_lost = True
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    return rig


@pytest.fixture
def hanging(rig: GatewayRig) -> Iterator[list[HangingVenue]]:
    """More accounts than there are workers for slow ones; each hangs when it is looked at."""
    venues = [HangingVenue(f"hang-{number:02}") for number in range(SLOW_WORKERS_MAX + 2)]
    yield venues
    for venue in venues:
        venue.let_go.set()


def join(rig: GatewayRig, venue: HangingVenue) -> None:
    rig.postgres.put_account(account(venue.account_id, label=venue.account_id))
    rig.venues.by_account[venue.account_id] = venue


def test_A1_I2_an_account_whose_exchange_hangs_keeps_no_other_from_protection(
    rig: GatewayRig, hanging: list[HangingVenue]
) -> None:
    join(rig, hanging[0])
    loop = loop_of(rig)
    loop.start()
    try:
        assert hanging[0].asked.wait(60)
        for _ in range(2):
            until(lambda: stops_of(rig) == STOPS)
            rig.venue.stops.clear()  # somebody removes them again: also seen while it hangs
        until(lambda: stops_of(rig) == STOPS)
        assert not hanging[0].let_go.is_set()
    finally:
        hanging[0].let_go.set()
        loop.stop()


def test_A1_accounts_that_are_known_to_be_slow_leave_workers_to_the_others(
    rig: GatewayRig, hanging: list[HangingVenue]
) -> None:
    loop = loop_of(rig)
    for venue in hanging:
        join(rig, venue)
    loop._read_roster(rig.clock.now())
    for venue in hanging:
        loop._watches[venue.account_id].is_slow = True
    loop.start()
    try:
        until(lambda: sum(venue.asked.is_set() for venue in hanging) == SLOW_WORKERS_MAX)
        for _ in range(2):
            rig.venue.stops.clear()
            until(lambda: stops_of(rig) == STOPS)
        assert sum(venue.asked.is_set() for venue in hanging) == SLOW_WORKERS_MAX
    finally:
        for venue in hanging:
            venue.let_go.set()
        loop.stop()


def test_A1_a_look_that_does_not_end_for_a_minute_is_told(
    rig: GatewayRig, hanging: list[HangingVenue]
) -> None:
    join(rig, hanging[0])
    loop = loop_of(rig)
    loop.start()
    try:
        assert hanging[0].asked.wait(60)
        until(lambda: stops_of(rig) == STOPS)
        rig.clock.advance(61)
        loop.nudge("acc")
        until(lambda: loop.health()["stuck"] == [hanging[0].account_id])
        until(lambda: len(rig.alerts.of_kind("protection")) == 1)
        loop.nudge("acc")
    finally:
        hanging[0].let_go.set()
        loop.stop()
    assert len(rig.alerts.of_kind("protection")) == 1


class FailingClock(SystemClock):
    """Fails at its first waits, as a bug in the loop would."""

    failures = 0

    def wait_readable(self, fds: object, until: object) -> list[int]:
        if FailingClock.failures > 0:
            FailingClock.failures -= 1
            raise RuntimeError("a bug")
        time.sleep(0.01)
        return []

    def pause(self, seconds: float) -> None:
        """Not in a test."""


def test_D5_a_loop_that_fails_is_told_and_begins_again(rig: GatewayRig) -> None:
    FailingClock.failures = 2
    loop = loop_of(rig, FailingClock)
    loop.start()
    try:
        until(lambda: loop.health()["failures"] == 2)
        rig.venue.stops.clear()
        until(lambda: stops_of(rig) == STOPS)
        assert loop.is_alive()
    finally:
        loop.stop()
    assert len(rig.alerts.of_kind("protection")) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_D5_a_loop_that_fails_again_and_again_ends_and_the_process_is_of_no_use(
    rig: GatewayRig,
) -> None:
    FailingClock.failures = 1000
    loop = loop_of(rig, FailingClock)
    loop.start()
    until(lambda: not loop.is_alive())
    loop.stop()
    assert loop.health()["failures"] == FAILURES_MAX


def test_I2_missing_stop_losses_come_before_everything_else_when_requests_are_scarce(
    rig: GatewayRig,
) -> None:
    eth = StopPrices(Decimal("2500.5"), Decimal("3500.5"))
    rig.gateway.submit("acc", rig.stamp(), [buy("af-2", "1", symbol="ETHUSDT", stops=eth)])
    rig.venue.script["set_stop"].extend(["done", "done", RateLimited("full", retry_after_s=0.3)])
    loop = loop_of(rig)
    wait = loop.step(rig.clock.now()) - rig.clock.now()
    assert stops_of(rig) == StopPrices(STOPS.stop_loss)
    assert stops_of(rig, "ETHUSDT") == StopPrices(eth.stop_loss)
    assert wait.total_seconds() == pytest.approx(0.3)
    rig.clock.advance(0.3)
    loop.step(rig.clock.now())
    assert (stops_of(rig), stops_of(rig, "ETHUSDT")) == (STOPS, eth)


def test_I2_no_room_for_a_stop_loss_is_asked_again_as_soon_as_there_is(rig: GatewayRig) -> None:
    rig.venue.script["set_stop"].append(RateLimited("full", retry_after_s=0.2))
    loop = loop_of(rig)
    wait = loop.step(rig.clock.now()) - rig.clock.now()
    assert loop.health()["unprotected"] == {"acc": ["BTCUSDT"]}
    assert wait.total_seconds() == pytest.approx(0.2)
    rig.clock.advance(0.2)
    loop.step(rig.clock.now())
    assert loop.health()["unprotected"] == {}
    assert stops_of(rig) == STOPS


def test_I14_many_open_accounts_are_looked_at_less_often(rig: GatewayRig) -> None:
    loop = loop_of(rig)
    for number in range(59):
        other = MemoryVenue(rig.clock, f"acc-{number}")
        other.hold("BTCUSDT", Decimal("0.01"))
        rig.postgres.put_account(account(other.account_id, label=other.account_id))
        rig.venues.by_account[other.account_id] = other
    loop.step(rig.clock.now())
    rig.clock.advance(60)
    wait = loop.step(rig.clock.now()) - rig.clock.now()
    assert wait.total_seconds() == pytest.approx(2.0)
