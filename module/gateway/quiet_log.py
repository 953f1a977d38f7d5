"""Warnings that may repeat without end: each cause is written at once, then once a minute."""

from __future__ import annotations

import logging
import threading

from module.ports import Clock

PERIOD_S = 60.0
CAUSES_MAX = 1000


class QuietLog:
    """Once per cause and minute (real time), with how often it happened meanwhile. Thread safe."""

    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._causes: dict[str, tuple[float, int]] = {}

    def warning(self, cause: str, message: str) -> bool:
        """Write `message` unless its cause was written in the last minute; whether it was."""
        now = self._clock.monotonic()
        with self._lock:
            written_at, missed = self._causes.get(cause, (float("-inf"), 0))
            if now - written_at < PERIOD_S:
                self._causes[cause] = (written_at, missed + 1)
                return False
            if len(self._causes) >= CAUSES_MAX:
                self._causes.clear()
            self._causes[cause] = (now, 0)
        again = f" ({missed} more times before)" if missed else ""
        self._log.warning("%s%s", message, again)
        return True
