"""Real time whose wall clock is set back while somebody waits (C7)."""

from __future__ import annotations

from datetime import datetime, timedelta

from module.clock import SystemClock


class SetBackClock(SystemClock):
    """A clock that is five minutes earlier from its third reading on."""

    def __init__(self) -> None:
        self.readings = 0

    def now(self) -> datetime:
        self.readings += 1
        step = timedelta(minutes=5) if self.readings > 2 else timedelta(0)
        return super().now() - step


def test_C7_a_wait_ends_when_its_time_has_passed_though_the_clock_was_set_back() -> None:
    clock = SetBackClock()
    until = clock.now() + timedelta(seconds=0.05)
    assert clock.wait_readable((), until) == []
    assert clock.now() < until
