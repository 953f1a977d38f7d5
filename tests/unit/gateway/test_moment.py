"""World time is asked once for all that a request decides."""

from __future__ import annotations

import threading
from contextvars import copy_context
from datetime import datetime, timedelta

from module.gateway.moment import HELD_MAX_S, MomentClock
from tests.fakes.hand_clock import HandClock


class CountingClock(HandClock):
    """World time moves on by a second whenever it is asked; `real_s` is moved by hand."""

    def now(self) -> datetime:
        found = super().now()
        self.current += timedelta(seconds=1)
        return found


def test_inside_a_moment_the_time_is_that_of_its_beginning() -> None:
    clock = MomentClock(CountingClock())
    first = clock.now()
    with clock.moment():
        held = clock.now()
        assert held == first + timedelta(seconds=1)
        with clock.moment():
            assert clock.now() == held
        assert clock.now() == held
    assert clock.now() == held + timedelta(seconds=1)


def test_a_moment_goes_along_with_the_context_and_nowhere_else() -> None:
    clock = MomentClock(CountingClock())
    seen: list[datetime] = []
    with clock.moment():
        held = clock.now()
        context = copy_context()
        for work in (
            lambda: context.run(lambda: seen.append(clock.now())),
            lambda: seen.append(clock.now()),
        ):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(timeout=10)
    assert seen[0] == held
    assert seen[1] > held


def test_C8_a_moment_in_which_a_process_stood_still_is_asked_anew() -> None:
    world = CountingClock()
    clock = MomentClock(world)
    with clock.moment():
        held = clock.now()
        world.real_s += HELD_MAX_S
        assert clock.now() == held
        world.real_s += 0.001
        later = clock.now()
        assert later == held + timedelta(seconds=1)
        assert clock.now() == later
        world.real_s += 60
        with clock.moment():
            assert clock.now() == later + timedelta(seconds=1)
    assert clock.now() == later + timedelta(seconds=2)


def test_whoever_sleeps_has_left_the_moment() -> None:
    clock = MomentClock(HandClock())
    with clock.moment():
        before = clock.now()
        clock.sleep(7)
        assert clock.now() >= before + timedelta(seconds=7)
