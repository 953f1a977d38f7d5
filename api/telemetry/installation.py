"""How the installation stands, as metrics: read from Postgres when somebody asks.

Each worker and each pod of the platform tells the same, so rules take `max`, never `sum`, over
instances. A database that does not answer is told as away, and what it knows is left out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from api.telemetry.samples import counter, gauge, histogram
from module.db.repositories.installation_numbers import (
    CYCLE_BOUNDS_S,
    InstallationNumbers,
    MinuteNumbers,
    PlatformNumbers,
)
from module.model.errors import Unavailable
from module.model.results import GapCause

if TYPE_CHECKING:
    from module.ports import Clock

log = logging.getLogger(__name__)
KEPT_S: Final = 1.0
"""So long an answer is repeated, whoever asks how often."""
CYCLE_STATES: Final = ("done", "skipped", "dropped")
OTHER: Final = "other"
Numbers = TypeVar("Numbers")


class InstallationMetrics:
    """Reads at most once per KEPT_S, one thread at a time. Thread safe."""

    def __init__(self, numbers: InstallationNumbers, clock: Clock) -> None:
        self._numbers = numbers
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: list[object] = []
        self._kept_until_s = float("-inf")

    def families(self) -> list[object]:
        """Families for `samples.once`."""
        with self._lock:
            now_s = self._clock.monotonic()
            if now_s >= self._kept_until_s:
                self._kept = list(self._read())
                self._kept_until_s = now_s + KEPT_S
            return self._kept

    def _read(self) -> Iterator[object]:
        now = self._clock.now()
        answered: dict[tuple[str, ...], float] = {}
        took: dict[tuple[str, ...], float] = {}

        def ask(database: str, question: Callable[[], Numbers]) -> Numbers | None:
            began_s = self._clock.monotonic()
            try:
                found = question()
            except Unavailable as error:
                log.warning("metrics of %s are left out: %s", database, error.message)
                answered[database,] = 0
                return None
            took[database,] = self._clock.monotonic() - began_s
            answered[database,] = 1
            return found

        platform = ask("finplatform", lambda: self._numbers.platform(now, self._clock.wall()))
        running = {} if platform is None else platform.running
        minutes = ask("finwatcher", lambda: self._numbers.minutes(running, now))
        labels = ("database",)
        yield gauge("aifap_postgres_up", "1 while a database answers.", answered, labels)
        yield gauge(
            "aifap_postgres_answer_seconds", "How long it took to read these numbers.", took, labels
        )
        if platform is not None:
            yield from _sessions(platform)
            yield from _cycles(platform)
            yield from _alerts(platform)
            if minutes is not None:
                yield from _minutes(minutes)


def _sessions(numbers: PlatformNumbers) -> Iterator[object]:
    yield gauge(
        "aifap_sessions",
        "Sessions that are not over.",
        numbers.sessions,
        ("state", "market", "trade_env"),
    )
    yield gauge(
        "aifap_sessions_failed_last_15m",
        "Sessions that ended with an error within the last 15 minutes of world time.",
        numbers.failed_lately,
    )
    yield gauge(
        "aifap_sessions_restarts",
        "How often processes of these (and of those that ended lately) were started again.",
        numbers.restarts,
    )
    yield gauge(
        "aifap_sessions_heartbeat_age_seconds",
        "Real time since the running session that has been silent longest was heard.",
        numbers.heartbeat_age_s,
    )
    yield gauge("aifap_accounts", "Active accounts.", numbers.accounts, ("market", "trade_env"))
    yield gauge(
        "aifap_accounts_halted", "Accounts whose kill switch is set.", numbers.halted_accounts
    )
    yield gauge(
        "aifap_unprotected_periods_open",
        "Unprotected periods on record that are not over.",
        numbers.bare_positions,
    )


def _cycles(numbers: PlatformNumbers) -> Iterator[object]:
    yield counter(
        "aifap_cycles_ended",
        "Cycles that ended since the running hour began, by how.",
        {(state,): numbers.cycles.get(state, 0) for state in CYCLE_STATES},
        ("outcome",),
    )
    for name, told, timings in (
        ("own", "Real time that a cycle took of its own, from the bar on.", numbers.own),
        (
            "first_order",
            "World time from a cycle's boundary to its first order.",
            numbers.first_order,
        ),
        ("last_order", "World time from a cycle's boundary to its last order.", numbers.last_order),
    ):
        yield histogram(
            f"aifap_cycle_{name}_seconds",
            f"{told} Since the running ten minutes began.",
            CYCLE_BOUNDS_S,
            {(): (timings.counts, timings.total_s)},
        )


def _alerts(numbers: PlatformNumbers) -> Iterator[object]:
    yield gauge(
        "aifap_alert_deliveries",
        "Messages to people that have not arrived: pending, sending, dead.",
        numbers.alerts,
        ("channel", "state"),
    )
    yield gauge(
        "aifap_alert_oldest_seconds",
        "Real time that the oldest of those that are not dead has waited.",
        numbers.alert_age_s,
    )


def _minutes(numbers: MinuteNumbers) -> Iterator[object]:
    yield gauge(
        "aifap_finwatcher_sessions_behind",
        "Running sessions without a measured minute for three minutes of world time.",
        numbers.behind,
    )
    yield gauge(
        "aifap_finwatcher_minute_age_seconds",
        "World time since the last measured minute of the session that has waited longest.",
        numbers.oldest_s,
    )
    told: dict[tuple[str, ...], float] = {(cause.value,): 0.0 for cause in GapCause}
    told[OTHER,] = 0.0
    for cause, count in numbers.gaps.items():
        told[(cause,) if (cause,) in told else (OTHER,)] += count
    yield counter(
        "aifap_finwatcher_gaps",
        "Minutes of the running hour that could not be measured, by cause.",
        told,
        ("cause",),
    )
