"""Bells between real processes: what `multiprocessing.Event` promises, and what it cannot (D1)."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from module.clock import SystemClock
from tests.fakes.clock import ManualClock
from trading.session.bells import BELL_NAMES, Bell, Bells

CLOCK = SystemClock()
REAL_S = 20.0


@pytest.fixture
def bell() -> Iterator[Bell]:
    found = Bell(CLOCK, "strategy")
    yield found
    found.close()


class Forked:
    """A child that runs `body` and tells what it returned; `gone` waits for its end."""

    def __init__(self, body: Callable[[], bool]) -> None:
        self.read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.write(write, b"!")
                os.write(write, b"1" if body() else b"0")
            finally:
                os._exit(0)
        os.close(write)
        self._alive = True
        assert self.hear() == b"!"

    def hear(self) -> bytes:
        """The next thing it says; empty when it has ended."""
        ready, _, _ = select.select([self.read], [], [], REAL_S)
        assert ready, "the child says nothing"
        return os.read(self.read, 1)

    def await_sleep(self) -> None:
        """Return once it sleeps in the kernel."""
        deadline = CLOCK.monotonic() + REAL_S
        while CLOCK.monotonic() < deadline:
            with open(f"/proc/{self.pid}/stat") as file:  # noqa: PTH123
                if file.read().rsplit(")", 1)[1].split()[0] == "S":
                    return
            CLOCK.pause(0.002)
        raise AssertionError("the child never slept")

    def kill(self) -> None:
        if self._alive:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.read)
            self._alive = False


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], bool]], Forked]]:
    children: list[Forked] = []

    def fork(body: Callable[[], bool]) -> Forked:
        child = Forked(body)
        children.append(child)
        return child

    yield fork
    for child in children:
        child.kill()


Fork = Callable[[Callable[[], bool]], Forked]


def test_it_has_the_interface_of_a_multiprocessing_event(bell: Bell) -> None:
    event = multiprocessing.get_context("spawn").Event()
    for name in ("set", "clear", "is_set", "wait"):
        assert callable(getattr(event, name))
        assert callable(getattr(bell, name))
    for found in (event, bell):
        assert found.is_set() is False
        assert found.wait(timeout=0.001) is False
        found.set()
        found.set()
        assert found.is_set() is True
        assert found.wait() is True
        assert found.wait(0) is True
        assert found.is_set() is True  # waiting does not silence it
        found.clear()
        found.clear()
        assert found.is_set() is False


def test_a_ring_wakes_another_process(bell: Bell, forked: Fork) -> None:
    child = forked(lambda: bell.wait(REAL_S))
    child.await_sleep()
    bell.set()
    assert child.hear() == b"1"


def test_a_ring_wakes_every_waiter(bell: Bell, forked: Fork) -> None:
    children = [forked(lambda: bell.wait(REAL_S)) for _ in range(4)]
    bell.set()
    assert [child.hear() for child in children] == [b"1"] * 4


def test_a_wait_ends_at_its_time(bell: Bell, forked: Fork) -> None:
    assert forked(lambda: bell.wait(0.05)).hear() == b"0"


def test_D1_killed_waiters_block_nobody(bell: Bell, forked: Fork) -> None:
    for number in range(20):
        child = forked(lambda: bell.wait(REAL_S))
        if number % 2:
            child.await_sleep()
        child.kill()
        bell.set()  # the stock event hangs here
        assert bell.wait(0)
        bell.clear()
    child = forked(lambda: bell.wait(REAL_S))
    bell.set()
    assert child.hear() == b"1"


def test_D1_a_waiter_killed_while_it_polls_blocks_nobody(bell: Bell, forked: Fork) -> None:
    def poll() -> bool:
        while True:
            bell.wait(0.0005)
            bell.is_set()
            bell.clear()

    for _ in range(20):
        child = forked(poll)
        CLOCK.pause(0.003)
        child.kill()
        bell.set()
        bell.clear()
    assert not bell.is_set()


def test_D1_a_stopped_waiter_does_not_hold_the_ringer(bell: Bell, forked: Fork) -> None:
    child = forked(lambda: bell.wait(REAL_S))
    os.kill(child.pid, signal.SIGSTOP)
    for _ in range(100):
        bell.set()
    os.kill(child.pid, signal.SIGCONT)
    assert child.hear() == b"1"


def test_a_full_counter_is_simply_set(bell: Bell) -> None:
    os.eventfd_write(bell.fileno(), 2**64 - 2)
    bell.set()
    assert bell.is_set()
    bell.clear()
    assert not bell.is_set()


def test_the_four_bells_are_adopted_by_their_descriptors(forked: Fork) -> None:
    mine = Bells.create(CLOCK, "leader", "strategy")
    assert len(mine.descriptors()) == len(BELL_NAMES) == 4

    def other_side() -> bool:
        theirs = Bells.adopt(CLOCK, "leader", "strategy", mine.descriptors())
        heard = theirs.rebalance_start.wait(REAL_S)
        theirs.strategy_done.set()
        heard = heard and theirs.autotrade_done.wait(REAL_S)
        theirs.rebalance_done.set()
        return heard

    child = forked(other_side)
    mine.rebalance_start.set()
    assert mine.strategy_done.wait(REAL_S)
    mine.autotrade_done.set()
    assert mine.rebalance_done.wait(REAL_S)
    assert child.hear() == b"1"
    mine.close()


def test_a_ring_tells_a_stepped_world_who_has_something_to_do() -> None:
    clock = ManualClock()
    bells = Bells.create(clock, "leader", "strategy")
    for bell in (
        bells.rebalance_start,
        bells.strategy_done,
        bells.autotrade_done,
        bells.rebalance_done,
    ):
        bell.set()
    assert clock.woken == ["strategy", "leader", "strategy", "leader"]
    bells.close()


def test_waiting_is_world_time() -> None:
    clock = ManualClock()
    began = clock.now()
    bell = Bell(clock, "strategy")
    assert bell.wait(3600.0) is False
    assert clock.now() - began == timedelta(hours=1)
    clock.after(60, bell.set)
    assert bell.wait(3600.0) is True
    assert clock.now() - began == timedelta(hours=1, seconds=60)
    bell.close()


def test_bells_are_not_inherited_by_programs_that_are_started(bell: Bell) -> None:
    assert os.get_inheritable(bell.fileno()) is False
