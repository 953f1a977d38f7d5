"""One request, one moment: world time is asked once for all that a request decides.

A stepped world stands still while somebody waits for the gateway's answer, so asking it again
within a request says the same twice, over a socket each time (some twenty times for one order).
Real time costs nothing to ask; a world that runs freely moves on by the milliseconds of a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from module.ports import Clock


class MomentClock:
    """`clock`, whose `now()` stays the same inside `moment()`, and in threads that are handed its
    context. Thread safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: ContextVar[datetime | None] = ContextVar("held", default=None)

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Hold the present; a moment inside a moment is the outer one."""
        if self._held.get() is not None:
            yield
            return
        token = self._held.set(self._clock.now())
        try:
            yield
        finally:
            self._held.reset(token)

    def now(self) -> datetime:
        """World time; inside a moment, that of its beginning."""
        return self._held.get() or self._clock.now()

    def monotonic(self) -> float:
        """Real seconds from an arbitrary start."""
        return self._clock.monotonic()

    def wall(self) -> datetime:
        """Real time."""
        return self._clock.wall()

    def sleep(self, seconds: float) -> None:
        """Let world time pass; whoever does so has left the moment."""
        self._held.set(None)
        self._clock.sleep(seconds)

    def sleep_until(self, when: datetime) -> None:
        """See `sleep`."""
        self._held.set(None)
        self._clock.sleep_until(when)

    def pause(self, seconds: float) -> None:
        """Let real time pass."""
        self._clock.pause(seconds)

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        """See `ports.Clock`; whoever waits has left the moment."""
        self._held.set(None)
        return self._clock.wait_readable(fds, until)

    def wake(self, participant: str) -> None:
        """See `ports.Clock`."""
        self._clock.wake(participant)
