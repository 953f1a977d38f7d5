"""Time for waits and windows that goes on whatever somebody does to the machine's clock.

    clock ─► SteadyTime ─► request budget, circuit breaker

A wait that ends at a time would last longer by a whole step back, and would be over at once with a
step forward (C7): five minutes back are five minutes in which no request has room, an hour forward
ends the silence that an exchange has just asked for. Real time has no steps. A stepped world runs
faster than that, so its own time counts there, and goes on from where it was when it is set back.
Only differences mean anything.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

STEP_MIN: Final = timedelta(seconds=2)
"""Less is no step: requests hold a moment of their own, and threads come in any order."""
_START: Final = datetime(2000, 1, 1, tzinfo=UTC)


class Time(Protocol):
    """Whatever can say what time it is."""

    def now(self) -> datetime:
        """World time, aware UTC."""
        ...


class MachineTime(Time, Protocol):
    """It also knows real seconds."""

    def monotonic(self) -> float:
        """Real seconds from an arbitrary start."""
        ...


class SteadyTime:
    """`clock` without its steps. Thread safe."""

    def __init__(self, clock: MachineTime, *, is_stepped: bool = False) -> None:
        """`is_stepped`: the clock is a stepped world's."""
        self._clock = clock
        self._is_stepped = is_stepped
        self._lock = threading.Lock()
        self._latest: datetime | None = None
        self._set_back = timedelta(0)

    def now(self) -> datetime:
        """Real time from an arbitrary start; a stepped world's, plus all it was ever set back."""
        if not self._is_stepped:
            return _START + timedelta(seconds=self._clock.monotonic())
        asked = self._clock.now()
        with self._lock:
            now = asked + self._set_back
            if self._latest is None or now > self._latest:
                self._latest = now
            elif self._latest - now > STEP_MIN:
                self._set_back += self._latest - now
                now = self._latest
            return now
