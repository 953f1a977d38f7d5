"""A clock of virtual time that a test drives: waiting jumps, nothing ever really waits.

World, real and wall time are one. What else happens in the world is scheduled on it: `at` runs an
action when a time comes, `on_ring` runs one when a participant was rung (a process that a test
plays in the same thread).
"""

from __future__ import annotations

import heapq
import itertools
import select
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 21, 11, 2, 7, 250_000, tzinfo=UTC)
STEPS_MAX = 1_000_000


class ManualClock:
    """Fits `module.ports.Clock`."""

    def __init__(self, now: datetime = START) -> None:
        self.current = now
        self.woken: list[str] = []
        self.slept: list[float] = []
        self.paused: list[float] = []
        self._events: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._rung: list[str] = []
        self._answers: dict[str, Callable[[], None]] = {}

    # --- what a test says --------------------------------------------------------------------

    def at(self, when: datetime, action: Callable[[], None]) -> None:
        """Run `action` when world time reaches `when`."""
        heapq.heappush(self._events, (when, next(self._order), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` in `seconds` of world time."""
        self.at(self.current + timedelta(seconds=seconds), action)

    def on_ring(self, participant: str, action: Callable[[], None]) -> None:
        """Run `action` when somebody waits after `participant` was rung."""
        self._answers[participant] = action

    def advance(self, seconds: float) -> None:
        """Let time pass, with everything that is due in it."""
        self.sleep_until(self.current + timedelta(seconds=seconds))

    # --- the port ------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self.current

    def monotonic(self) -> float:
        return (self.current - START).total_seconds()

    def wall(self) -> datetime:
        return self.current

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds > 0:
            self.advance(seconds)

    def sleep_until(self, when: datetime) -> None:
        while self._run_next(until=when):
            pass
        self.current = max(self.current, when)

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.advance(seconds)

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        for _ in range(STEPS_MAX):
            ready, _, _ = select.select(list(fds), [], [], 0)
            if ready:
                return ready
            if self._rung:
                answer = self._answers.get(self._rung.pop(0))
                if answer is not None:
                    answer()
            elif not self._run_next(until=until):
                if until is None:
                    raise AssertionError("nothing will ever happen: this wait would be for ever")
                self.current = max(self.current, until)
                return []
        raise AssertionError("the world never came to rest")

    def wake(self, participant: str) -> None:
        self.woken.append(participant)
        self._rung.append(participant)

    def _run_next(self, *, until: datetime | None) -> bool:
        if not self._events or (until is not None and self._events[0][0] > until):
            return False
        when, _, action = heapq.heappop(self._events)
        self.current = max(self.current, when)
        action()
        return True
