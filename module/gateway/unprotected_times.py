"""How long positions stood without the stop loss they should have: a figure, not an alarm.

The guard notes what each look finds; `Gateway.health` tells the figures. World time.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from datetime import datetime, timedelta

KEPT = 10_000
NEW_POSITION = timedelta(seconds=60)

Key = tuple[str, str, datetime]
"""Account, symbol, when the position was opened."""


class UnprotectedTimes:
    """One span from when a stop was missing until it was there, or the position was gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[Key, datetime] = {}
        self._seconds: deque[float] = deque(maxlen=KEPT)

    def missing(self, key: Key, now: datetime) -> None:
        """There is no stop. A position that is new had none since it was opened."""
        _, _, opened_at = key
        is_new = timedelta(0) <= now - opened_at <= NEW_POSITION
        with self._lock:
            self._since.setdefault(key, opened_at if is_new else now)

    def over(self, key: Key, now: datetime) -> None:
        """The stop is there."""
        with self._lock:
            since = self._since.pop(key, None)
            if since is not None:
                self._seconds.append((now - since).total_seconds())

    def gone(self, account_id: str, held: set[Key], now: datetime) -> None:
        """Positions of the account that are not `held` any more need no stop."""
        with self._lock:
            ended = [key for key in self._since if key[0] == account_id and key not in held]
        for key in ended:
            self.over(key, now)

    def figures(self) -> dict[str, int]:
        """How many spans there were, and their milliseconds: median, 99th percentile, longest."""
        with self._lock:
            spans = sorted(self._seconds)
        if not spans:
            return {"count": 0, "p50_ms": 0, "p99_ms": 0, "max_ms": 0}
        return {
            "count": len(spans),
            "p50_ms": _rank_ms(spans, 0.50),
            "p99_ms": _rank_ms(spans, 0.99),
            "max_ms": _rank_ms(spans, 1.0),
        }


def _rank_ms(spans: list[float], share: float) -> int:
    return round(1000 * spans[max(0, math.ceil(share * len(spans)) - 1)])
