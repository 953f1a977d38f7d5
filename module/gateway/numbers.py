"""What the gateway counts of itself, as plain numbers: `/metrics` spells them.

    wire, budget, order path, protection loop ─► counters here ─► Gateway.numbers ─► api/telemetry

Counters only grow while the process lives. Nothing here names an account, a key or a session.
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

REQUEST_BOUNDS_S: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Spread:
    """A histogram: how many were at most each bound (not cumulative; the last: above all)."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """One more."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> Spread:
        """The same numbers, which stay."""
        return Spread(self.bounds, list(self.counts), self.total)


class GatewayCounts:
    """Counters of one gateway process. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str], Spread] = {}
        self._refused: Counter[str] = Counter()
        self._orders: Counter[str] = Counter()
        self._looks: Counter[str] = Counter()

    def took(self, endpoint: str, outcome: str, seconds: float) -> None:
        """A request to an exchange ended: answered, limited, failed (5xx) or lost (no answer)."""
        with self._lock:
            key = (endpoint, outcome)
            if key not in self._requests:
                self._requests[key] = Spread(REQUEST_BOUNDS_S)
            self._requests[key].add(seconds)

    def refused(self, priority: str) -> None:
        """The request budget had no room."""
        with self._lock:
            self._refused[priority] += 1

    def ordered(self, outcome: str) -> None:
        """An order that a session submitted was answered."""
        with self._lock:
            self._orders[outcome] += 1

    def looked(self, *, ended_well: bool) -> None:
        """A look at an account is over."""
        with self._lock:
            self._looks["ended" if ended_well else "failed"] += 1

    def read(self) -> CountsRead:
        """All of them now."""
        with self._lock:
            return CountsRead(
                requests={key: spread.copy() for key, spread in self._requests.items()},
                refused=dict(self._refused),
                orders=dict(self._orders),
                looks=dict(self._looks),
            )


@dataclass(frozen=True, slots=True)
class CountsRead:
    """Counters as they were. `requests`: by endpoint and outcome; the others by their label."""

    requests: Mapping[tuple[str, str], Spread]
    refused: Mapping[str, int]
    orders: Mapping[str, int]
    looks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BudgetRoom:
    """What one priority may still ask of one address within the running minute."""

    address: str
    priority: str
    left: int
    capacity: int


@dataclass(frozen=True, slots=True)
class ProtectionNumbers:
    """How the protection loop is. `look_age_s`: real seconds since the last look that ended well at
    the account with something open (or never seen) that has waited longest; 0 without any."""

    alive: bool
    failures: int
    accounts: int
    open_accounts: int
    look_age_s: float
    stuck: int


@dataclass(frozen=True, slots=True)
class GatewayNumbers:
    """The gateway now. `circuits`: not closed ones by class of endpoint; `skew_s`: the exchange's
    clock against ours, where it is furthest off."""

    counts: CountsRead
    protection: ProtectionNumbers
    rooms: tuple[BudgetRoom, ...]
    shut_out: int
    circuits: Mapping[str, int]
    accounts_open: int
    leases_held: int
    halted: int
    unprotected: int
    unprotected_oldest_s: float
    unprotected_periods: int
    unprotected_s: float
    unresolved: int
    spooled: int
    spool_bytes: int
    skew_s: float
