"""A clock whose time a test moves by hand; sleeping moves it too, so nothing ever waits."""

from __future__ import annotations

import select
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 21, 11, 30, 7, tzinfo=UTC)


class HandClock:
    """Fits `module.ports.Clock`. World and wall time are one; who sets `current` steps the clock,
    and real time goes on."""

    def __init__(self, now: datetime = START) -> None:
        self.current = now
        self.real_s = (now - START).total_seconds()
        self.woken: list[str] = []
        self.slept: list[float] = []
        self.paused: list[float] = []

    def now(self) -> datetime:
        return self.current

    def monotonic(self) -> float:
        return self.real_s

    def wall(self) -> datetime:
        return self.current

    def advance(self, seconds: float) -> None:
        self.current += timedelta(seconds=seconds)
        self.real_s += seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def sleep_until(self, when: datetime) -> None:
        self.advance(max(0.0, (when - self.current).total_seconds()))

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.advance(seconds)

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        ready, _, _ = select.select(list(fds), [], [], 0)
        if not ready and until is not None:
            self.sleep_until(until)
        return ready

    def wake(self, participant: str) -> None:
        self.woken.append(participant)
