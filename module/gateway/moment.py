"""One request, one moment: world time is asked once for all that a request decides.

A stepped world stands still while somebody waits for the gateway's answer, so asking it again
within a request says the same twice, over a socket each time (some twenty times for one order).
Real time costs nothing to ask; a world that runs freely moves on by the milliseconds of a request.

A process that stood still in the middle of a request must see that (C8): what is held longer than a
quarter of a real second is asked anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from module.ports import Clock

HELD_MAX_S = 0.25
"""Real seconds for which a moment is the present."""


@dataclass(frozen=True, slots=True)
class _Held:
    """World time, and when by real time it was asked."""

    now: datetime
    asked_s: float


class MomentClock:
    """`clock`, whose `now()` stays the same inside `moment()` for up to HELD_MAX_S, and in threads
    that are handed its context. Thread safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: ContextVar[_Held | None] = ContextVar("held", default=None)

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Hold the present; a moment inside a moment is the outer one."""
        if self._held.get() is not None:
            yield
            return
        token = self._held.set(self._ask())
        try:
            yield
        finally:
            self._held.reset(token)

    def now(self) -> datetime:
        """World time; inside a moment, that of its beginning, or of when it was asked anew."""
        held = self._held.get()
        if held is None:
            return self._clock.now()
        if self._clock.monotonic() - held.asked_s > HELD_MAX_S:
            held = self._ask()
            self._held.set(held)
        return held.now

    def _ask(self) -> _Held:
        # Real time first: a process that stands still right here holds something old for less long.
        asked_s = self._clock.monotonic()
        return _Held(self._clock.now(), asked_s)

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
