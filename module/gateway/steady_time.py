"""Time for waits and windows that goes on when the machine's clock is set back.

    clock ─► SteadyTime ─► request budget, circuit breaker

Whatever was to end at a time would last longer by the whole step (C7): five minutes back are five
minutes in which no request has room. Here time goes on from where it was; only differences mean
anything.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final, Protocol

STEP_MIN: Final = timedelta(seconds=2)
"""Less is no step: requests hold a moment of their own, and threads come in any order."""


class Time(Protocol):
    """Whatever can say what time it is."""

    def now(self) -> datetime:
        """World time, aware UTC."""
        ...


class SteadyTime:
    """`clock`, without the steps back of more than STEP_MIN. Thread safe."""

    def __init__(self, clock: Time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: datetime | None = None
        self._set_back = timedelta(0)

    def now(self) -> datetime:
        """World time, plus all that it was ever set back by."""
        asked = self._clock.now()
        with self._lock:
            now = asked + self._set_back
            if self._latest is None or now > self._latest:
                self._latest = now
            elif self._latest - now > STEP_MIN:
                self._set_back += self._latest - now
                now = self._latest
            return now
