"""How long positions stood without the stop loss they should have: figures and periods, no alarm.

    looks ─► UnprotectedTimes ─► figures, for health and metrics
                    └─ changed ─► Audit.keep_periods ─► unprotected_periods (or the spool)

The guard notes what each look finds and hands on what changed once the look has mended: a period
that begins and ends within one look is written once. One that a dead gateway left open ends where
the next gateway's begins, or with its first look, when that sees the stop. World time.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

from module.db.repositories.unprotected_periods import BareCause, BarePeriod, begin_period

KEPT = 10_000
UNWRITTEN_MAX = 1000
"""Of one account, while neither Postgres nor the disk takes them; older ones are forgotten."""
NEW_POSITION = timedelta(seconds=60)

Key = tuple[str, str, datetime]
"""Account, symbol, when the position was opened."""


class UnprotectedTimes:
    """One period from when a stop was missing until it was there, or the position was gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Key, BarePeriod] = {}
        self._protected: set[Key] = set()
        self._changed: dict[str, dict[str, BarePeriod]] = {}
        self._seconds: deque[float] = deque(maxlen=KEPT)
        self._ended_count = 0
        self._ended_s = 0.0

    def missing(self, key: Key, now: datetime) -> None:
        """There is no stop. A position that is new, and was never seen with one, had none since it
        was opened."""
        account_id, symbol, opened_at = key
        with self._lock:
            if key in self._open:
                return
            cause, since = BareCause.FOUND, now
            if key in self._protected:
                cause = BareCause.REMOVED
            elif now - opened_at <= NEW_POSITION:
                cause, since = BareCause.OPENED, min(opened_at, now)
            period = begin_period(account_id, symbol, since, cause)
            self._open[key] = period
            self._note(period)

    def over(self, key: Key, now: datetime, *, has_stop: bool = True) -> None:
        """The stop is there, or (`has_stop` False) none is wanted any more."""
        with self._lock:
            if has_stop:
                self._protected.add(key)
            period = self._open.pop(key, None)
            if period is not None:
                self._end(period, now)

    def gone(self, account_id: str, held: set[Key], now: datetime) -> None:
        """Positions of the account that are not `held` any more need no stop."""
        with self._lock:
            self._protected = {
                key for key in self._protected if key[0] != account_id or key in held
            }
            for key in [key for key in self._open if key[0] == account_id and key not in held]:
                self._end(self._open.pop(key), now)

    def reconcile(self, account_id: str, listed: Sequence[BarePeriod], now: datetime) -> None:
        """`listed` are open in Postgres, where everything of the account is written that was found
        here, and a look at all of it has ended at `now`: what others left open is over, and what is
        open here only was ended by another gateway. Of what is still bare the older finding ends
        where the newer begins; one of here that claims to be older was guessed, and is dropped."""
        known = {period.period_id for period in listed}
        with self._lock:
            mine = {key: period for key, period in self._open.items() if key[0] == account_id}
            for key, period in mine.items():
                if period.period_id not in known:
                    del self._open[key]
            keys = {period.symbol: key for key, period in mine.items() if key in self._open}
            for period in listed:
                key_of = keys.get(period.symbol)
                own = None if key_of is None else self._open[key_of]
                if key_of is None or own is None:
                    self._end(period, now)
                elif own.period_id == period.period_id:
                    continue
                elif own.started_at <= period.started_at:
                    self._open[key_of] = period
                    self._note(own.ended(own.started_at))
                else:
                    self._end(period, own.started_at)

    def changed(self, account_id: str) -> list[BarePeriod]:
        """What is to be written of the account."""
        with self._lock:
            return list(self._changed.get(account_id, {}).values())

    def written(self, account_id: str, periods: Sequence[BarePeriod]) -> None:
        """These are written down as they are here."""
        with self._lock:
            waiting = self._changed.get(account_id, {})
            for period in periods:
                if waiting.get(period.period_id) == period:
                    del waiting[period.period_id]

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

    def open_now(self) -> list[BarePeriod]:
        """The periods that are not over, as the last looks left them."""
        with self._lock:
            return list(self._open.values())

    def totals(self, now: datetime) -> tuple[int, float]:
        """How many periods have ended in this process, and the seconds of all, open ones until
        `now`: neither ever falls while the process lives."""
        with self._lock:
            running = [(now - period.started_at).total_seconds() for period in self._open.values()]
            return self._ended_count, self._ended_s + sum(max(0.0, span_s) for span_s in running)

    def _end(self, period: BarePeriod, now: datetime) -> None:
        ended = period.ended(now)
        span_s = (now - period.started_at).total_seconds()
        self._seconds.append(max(0.0, span_s))
        self._ended_count += 1
        self._ended_s += max(0.0, span_s)
        self._note(ended)

    def _note(self, period: BarePeriod) -> None:
        waiting = self._changed.setdefault(period.account_id, {})
        waiting[period.period_id] = period
        if len(waiting) > UNWRITTEN_MAX:
            del waiting[next(iter(waiting))]


def _rank_ms(spans: list[float], share: float) -> int:
    return round(1000 * spans[max(0, math.ceil(share * len(spans)) - 1)])
