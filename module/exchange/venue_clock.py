"""How far an exchange's clock is from ours: one per address, shared by the accounts there.

Signatures carry a time that the exchange compares with its own. What it stated last corrects ours.
An exchange of a stepped world states world time and takes signatures in world or in real time, so
the nearer of our two clocks is the one that is compared.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final

from module.clock import to_epoch_ms
from module.ports import Clock

MEASURE_PERIOD: Final = timedelta(seconds=60)
TOLERATED_MS: Final = 250


class VenueClock:
    """The exchange's time as we know it. Thread safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._offset_ms = 0
        self._by_world = False
        self._skew_ms = 0
        self._measured_at: datetime | None = None

    @property
    def skew_s(self) -> float:
        """Seconds that the exchange is ahead of ours by the last measurement."""
        return self._skew_ms / 1000

    def is_due(self) -> bool:
        """Whether a minute of world time has passed since the last measurement."""
        at = self._measured_at
        return at is None or self._clock.now() - at >= MEASURE_PERIOD

    def timestamp_ms(self) -> int:
        """What to sign with."""
        now = self._clock.now() if self._by_world else self._clock.wall()
        return to_epoch_ms(now) + self._offset_ms

    def learn(self, stated_ms: int, asked_wall: datetime, *, was_refused: bool) -> float:
        """The exchange stated its time, asked at `asked_wall`; seconds that it is ahead of ours.

        Half of the way there and back is taken off. A difference that is smaller than what a way
        may take is none, unless a signature was refused for it.
        """
        world, wall = self._clock.now(), self._clock.wall()
        middle = asked_wall + (wall - asked_wall) / 2
        by_wall = stated_ms - to_epoch_ms(middle)
        by_world = stated_ms - to_epoch_ms(world)
        is_world = abs(by_world) < abs(by_wall)
        skew = by_world if is_world else by_wall
        with self._lock:
            self._measured_at, self._skew_ms = world, skew
            if abs(skew) > TOLERATED_MS or was_refused:
                self._by_world, self._offset_ms = is_world, skew
            else:
                self._by_world, self._offset_ms = False, 0
        return self.skew_s
