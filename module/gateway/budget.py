"""The request budget: no exchange limit is ever exceeded, and protection always gets through.

One `RequestBudget` per gateway process; sessions of all accounts share it. A request counts
against its endpoint (per key where it is private, per address where it is public) and against the
address's total per minute. Windows slide, so that no second anywhere holds more than its limit,
however the exchange cuts its own. Times have no steps (`steady_time.py`).
Nobody waits here: RateLimited says when there is room, and the caller sleeps on its own clock.

Priorities keep parts of the address's total free: market data may fill half of it, protection all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from module.exchange.venue import Priority, RequestKind
from module.gateway.breaker import CircuitBreaker, CircuitReport
from module.gateway.numbers import BudgetRoom, GatewayCounts
from module.gateway.steady_time import SteadyTime
from module.model.errors import RateLimited, require
from module.ports import Clock

# A second, and by how much two requests may take different times to get there: those of one second
# here must not fall into one second there with those of the next.
WINDOW = timedelta(milliseconds=1100)
MINUTE = timedelta(seconds=61)
ADDRESS_PER_MINUTE = 5700
SHARE = {
    Priority.MARKET_DATA: 0.5,
    Priority.READ: 0.7,
    Priority.ORDER: 0.85,
    Priority.CANCEL: 0.95,
    Priority.PROTECTION: 1.0,
}
# Of an endpoint's own second, this many stay free of plain reads where it has more than four.
ENDPOINT_RESERVE = 1
PENALTY_MAX_S = 600.0


@dataclass(slots=True)
class _Window:
    """Times of the requests inside one sliding window, oldest first."""

    length: timedelta
    times: deque[datetime] = field(default_factory=deque)

    def used(self, now: datetime) -> int:
        while self.times and self.times[0] <= now - self.length:
            self.times.popleft()
        return len(self.times)

    def room_in_s(self, now: datetime, excess: int) -> float:
        """Seconds until `excess` of the oldest have left."""
        index = min(excess, len(self.times)) - 1
        return max(0.001, (self.times[index] + self.length - now).total_seconds())


class RequestBudget:
    """All sliding windows of one process. Thread safe."""

    def __init__(
        self, clock: Clock, counts: GatewayCounts | None = None, *, is_stepped: bool = False
    ) -> None:
        """`is_stepped`: the clock is a stepped world's (see `SteadyTime`)."""
        self.counts = counts or GatewayCounts()
        self._time = SteadyTime(clock, is_stepped=is_stepped)
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], _Window] = {}
        self._totals: dict[str, _Window] = {}
        self._closed_until: dict[str, datetime] = {}
        self._breaker = CircuitBreaker(self._time)

    def for_account(self, address: str, key: str) -> AccountBudget:
        """The budget as one account's adapter sees it: `address` is the base URL, `key` its id."""
        return AccountBudget(self, address.rstrip("/"), key)

    def take(
        self, address: str, key: str, requests: Sequence[RequestKind], priority: Priority
    ) -> None:
        """Count all of `requests`, or none and raise RateLimited (or Unavailable while the
        address does not answer)."""
        self._breaker.admit(address, requests, priority)
        now = self._time.now()
        wanted: dict[tuple[str, str], tuple[RequestKind, int]] = {}
        for request in requests:
            scope = (key if request.private else address, request.endpoint)
            wanted[scope] = (request, wanted.get(scope, (request, 0))[1] + 1)
        with self._lock:
            wait_s = max(
                self._penalty_s(address, now),
                self._penalty_s(key, now),
                self._total_wait_s(address, len(requests), priority, now),
                *(
                    self._endpoint_wait_s(scope, request, count, priority, now)
                    for scope, (request, count) in wanted.items()
                ),
            )
            if wait_s > 0:
                self.counts.refused(priority.name.lower())
                raise RateLimited(
                    f"the request budget has no room for {len(requests)} more; nothing was sent, "
                    f"ask again in {wait_s:.3f} s",
                    retry_after_s=round(wait_s, 3),
                )
            self._totals[address].times.extend([now] * len(requests))
            for scope, (_, count) in wanted.items():
                self._windows[scope].times.extend([now] * count)

    def penalise(self, scope: str, seconds: float) -> None:
        """Close a key or an address for so long, because the exchange said so."""
        until = self._time.now() + timedelta(seconds=min(max(seconds, 0.0), PENALTY_MAX_S))
        with self._lock:
            self._closed_until[scope] = max(until, self._closed_until.get(scope, until))

    def report(self, address: str, request: RequestKind, *, failed: bool) -> None:
        """What became of a request, for the address's circuits."""
        self._breaker.report(address, request, failed=failed)

    def troubled(self) -> list[CircuitReport]:
        """Addresses that do not answer now."""
        return self._breaker.troubled()

    def rooms(self) -> list[BudgetRoom]:
        """What each priority may still ask of each address that was asked."""
        now = self._time.now()
        with self._lock:
            used = {address: window.used(now) for address, window in self._totals.items()}
        return [
            BudgetRoom(address, priority.name.lower(), max(0, limit - count), limit)
            for address, count in sorted(used.items())
            for priority, share in SHARE.items()
            if (limit := int(ADDRESS_PER_MINUTE * share))
        ]

    def shut_out(self) -> int:
        """How many keys and addresses the exchange has told to be silent now."""
        now = self._time.now()
        with self._lock:
            return sum(until > now for until in self._closed_until.values())

    def _penalty_s(self, scope: str, now: datetime) -> float:
        until = self._closed_until.get(scope)
        return 0.0 if until is None else max(0.0, (until - now).total_seconds())

    def _total_wait_s(self, address: str, count: int, priority: Priority, now: datetime) -> float:
        window = self._totals.setdefault(address, _Window(MINUTE))
        excess = window.used(now) + count - int(ADDRESS_PER_MINUTE * SHARE[priority])
        return window.room_in_s(now, excess) if excess > 0 else 0.0

    def _endpoint_wait_s(
        self,
        scope: tuple[str, str],
        request: RequestKind,
        count: int,
        priority: Priority,
        now: datetime,
    ) -> float:
        limit = request.per_second
        if priority < Priority.ORDER and limit > 4:
            limit -= ENDPOINT_RESERVE
        require(
            count <= limit,
            f"{count} requests to {request.endpoint} at once never fit into {limit} per second",
        )
        window = self._windows.setdefault(scope, _Window(WINDOW))
        excess = window.used(now) + count - limit
        return window.room_in_s(now, excess) if excess > 0 else 0.0


class AccountBudget:
    """`RequestGate` of one account: its key, its address."""

    def __init__(self, budget: RequestBudget, address: str, key: str) -> None:
        self._budget = budget
        self._address = address
        self._key = key

    def admit(self, requests: Sequence[RequestKind], priority: Priority) -> None:
        """Take all of `requests` at once or none: RateLimited says when there is room,
        Unavailable when the address is left alone for a while."""
        self._budget.take(self._address, self._key, requests, priority)

    def penalise(self, seconds: float, *, whole_address: bool) -> None:
        """Nothing of this key (or of the whole address) is admitted for so long."""
        self._budget.penalise(self._address if whole_address else self._key, seconds)

    def report(self, request: RequestKind, *, failed: bool) -> None:
        """What became of a request that was admitted."""
        self._budget.report(self._address, request, failed=failed)

    def took(self, request: RequestKind, outcome: str, seconds: float) -> None:
        """How long it took until that became of it."""
        self._budget.counts.took(request.endpoint, outcome, seconds)
