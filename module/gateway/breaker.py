"""The circuit breaker: an exchange that does not answer is left alone, and asked again later.

Stands before the request budget. One circuit per address and class of endpoint (orders, account
reads, public data):

    closed ── failures in a row ──► open ── its time is over ──► half-open: one probe
      ▲                              ▲                                  │
      └───────── any answer ─────────┴───────── the probe failed ───────┘

A failure is a request without an answer, a 5xx, or maintenance; a refusal is an answer. While a
circuit is open opening orders and plain reads are refused at once with the time to come back;
cancels, reductions and protection still probe, each endpoint at a bounded pace (a stop that cannot
be placed must not keep its position from being closed). Times are world time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from module.exchange.venue import EndpointClass, Priority, RequestKind
from module.gateway.steady_time import Time
from module.model.errors import Unavailable

log = logging.getLogger(__name__)

FAILURES_MAX = 5
OPEN_FIRST = timedelta(seconds=5)
OPEN_MAX = timedelta(seconds=60)
PROBE_PATIENCE = timedelta(seconds=15)
URGENT_PACE = timedelta(seconds=2)
CIRCUIT_OPEN = "circuit-open"


class CircuitState(StrEnum):
    """As the drawing above has them."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class _Circuit:
    """One address and class. `until` is when an open circuit lets the next probe through."""

    state: CircuitState = CircuitState.CLOSED
    failures: int = 0
    openings: int = 0
    until: datetime | None = None
    urgent_at: dict[str, datetime] = field(default_factory=dict)
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class CircuitReport:
    """One circuit that is not closed, for health pages; for how many seconds."""

    address: str
    endpoints: EndpointClass
    state: CircuitState
    troubled_s: float
    failures: int


class CircuitBreaker:
    """All circuits of one gateway process. Thread safe."""

    def __init__(self, clock: Time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._circuits: dict[tuple[str, EndpointClass], _Circuit] = {}

    def admit(self, address: str, requests: Iterable[RequestKind], priority: Priority) -> None:
        """Let the requests through, or raise Unavailable (code `circuit-open`): nothing was sent.

        What is let through while a circuit is not closed is its probe.
        """
        asked = {(request.endpoint_class, request.endpoint) for request in requests}
        now = self._clock.now()
        with self._lock:
            troubled = [
                (circuit, endpoint)
                for kind, endpoint in sorted(asked)
                if (circuit := self._circuits.get((address, kind))) is not None
                and circuit.state is not CircuitState.CLOSED
            ]
            for circuit, endpoint in troubled:
                wait_s = _wait_s(circuit, endpoint, priority, now)
                if wait_s > 0:
                    raise Unavailable(
                        f"{address} does not answer ({circuit.failures} failures in a row); "
                        f"nothing was sent, it is asked again in {wait_s:.1f} s",
                        code=CIRCUIT_OPEN,
                        retry_after_s=round(wait_s, 3),
                    )
            for circuit, endpoint in troubled:
                _note_probe(circuit, endpoint, now)

    def report(self, address: str, request: RequestKind, *, failed: bool) -> None:
        """What became of a request that was let through."""
        now = self._clock.now()
        key = (address, request.endpoint_class)
        with self._lock:
            circuit = self._circuits.get(key)
            if circuit is None:
                if not failed:
                    return
                circuit = self._circuits.setdefault(key, _Circuit())
            if not failed:
                if circuit.state is not CircuitState.CLOSED:
                    log.warning("%s answers again: %s", address, request.endpoint_class)
                self._circuits[key] = _Circuit()
                return
            circuit.failures += 1
            probe_failed = circuit.state is CircuitState.HALF_OPEN
            if probe_failed or (
                circuit.state is CircuitState.CLOSED and circuit.failures >= FAILURES_MAX
            ):
                length = _open(circuit, now)
                log.warning(
                    "%s: %d failures in a row of %s; left alone for %s s",
                    *(address, circuit.failures, request.endpoint_class, length.total_seconds()),
                )

    def troubled(self) -> list[CircuitReport]:
        """The circuits that are not closed."""
        now = self._clock.now()
        with self._lock:
            return [
                CircuitReport(
                    address, kind, item.state, (now - item.since).total_seconds(), item.failures
                )
                for (address, kind), item in sorted(self._circuits.items())
                if item.state is not CircuitState.CLOSED and item.since is not None
            ]


def _wait_s(circuit: _Circuit, endpoint: str, priority: Priority, now: datetime) -> float:
    """Seconds until this request may probe; 0 when it may now."""
    at = circuit.until or now
    if priority >= Priority.CANCEL:
        at = min(at, circuit.urgent_at.get(endpoint, now))
    return max(0.0, (at - now).total_seconds())


def _note_probe(circuit: _Circuit, endpoint: str, now: datetime) -> None:
    """A request goes through: others wait for its answer, or until it is overdue."""
    circuit.urgent_at[endpoint] = now + URGENT_PACE
    if circuit.until is None or circuit.until <= now:
        circuit.state = CircuitState.HALF_OPEN
        circuit.until = now + PROBE_PATIENCE


def _open(circuit: _Circuit, now: datetime) -> timedelta:
    length: timedelta = min(OPEN_FIRST * 2 ** min(circuit.openings, 10), OPEN_MAX)
    circuit.state = CircuitState.OPEN
    circuit.openings += 1
    circuit.since = circuit.since or now
    circuit.until = now + length
    return length
