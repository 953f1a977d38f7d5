"""How the installation stands, as metrics: read from Postgres when somebody asks.

Each worker and each pod of the platform tells the same, so rules take `max`, never `sum`, over
instances. A database that does not answer is told as away, and what it knows is left out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from api.telemetry.running_totals import RunningTotals
from api.telemetry.samples import counter, gauge, histogram
from module.db.repositories.installation_counts import (
    CYCLE_BOUNDS_S,
    InstallationCounts,
    SliceCount,
)
from module.db.repositories.installation_numbers import (
    InstallationNumbers,
    MinuteNumbers,
    PlatformNumbers,
)
from module.model.errors import Unavailable
from module.model.results import GapCause

if TYPE_CHECKING:
    from api.telemetry.finwatchers import WatchNotes
    from module.ports import Clock

log = logging.getLogger(__name__)
KEPT_S: Final = 5.0
"""So long an answer is repeated, whoever asks how often."""
CYCLE_STATES: Final = ("done", "skipped", "dropped")
OTHER: Final = "other"
CHANNELS: Final = ("slack", "discord")
NOT_ARRIVED: Final = ("pending", "sending", "dead")
MARKETS: Final = ("futures", "spot")
COUNTED_AFTER: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 2 * 60, 20 * 60, 6 * 3600)
)
"""Cycles: soon, and again for those that are recorded late."""
TIMED_AFTER: Final = COUNTED_AFTER[:2]
"""Their timings cost more to find: an order's time is on record before its cycle is."""
MEASURED_AFTER: Final = tuple(
    timedelta(seconds=seconds) for seconds in (75, 4 * 60, 30 * 60, 6 * 3600)
)
"""Minutes are stored within the next one; out of a spool, hours later."""
MINUTE_S: Final = 60
TIMED_S: Final = 30
"""In steps of so much: the scrapes between ask nothing."""
Totals = Mapping[str, tuple[int, float]]
Numbers = TypeVar("Numbers")


class InstallationMetrics:
    """Reads at most once per KEPT_S, one thread at a time. Thread safe."""

    def __init__(
        self,
        numbers: InstallationNumbers,
        counts: InstallationCounts,
        totals: RunningTotals,
        clock: Clock,
        notes: WatchNotes | None = None,
    ) -> None:
        self._numbers = numbers
        self._counts = counts
        self._totals = totals
        self._clock = clock
        self._notes = notes
        self._watched: tuple[str, ...] = ()
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
            took[database,] = took.get((database,), 0.0) + self._clock.monotonic() - began_s
            answered[database,] = 1
            return found

        platform = ask("finplatform", lambda: self._numbers.platform(now, self._clock.wall()))
        running = {} if platform is None else platform.running
        minutes = ask("finwatcher", lambda: self._numbers.minutes(running, now))
        cycles = ask("finplatform", lambda: self._cycles(now)) if platform is not None else None
        measured = None
        if platform is not None:
            self._watched = watched = platform.watched
        if platform is not None and minutes is not None:
            measured = ask("finwatcher", lambda: self._measured(watched, now))
        labels = ("database",)
        yield gauge("aifap_postgres_up", "1 while a database answers.", answered, labels)
        yield gauge(
            "aifap_postgres_answer_seconds", "How long it took to read these numbers.", took, labels
        )
        if platform is not None:
            yield from _sessions(platform)
            yield from _alerts(platform)
            if minutes is not None:
                yield from _minutes(minutes)
        if cycles is not None:
            yield from _cycles(*cycles)
        if measured is not None:
            yield from _measured(*measured)
        if self._notes is not None:
            yield from self._notes.families(self._watched, now)

    def _cycles(self, now: datetime) -> tuple[Totals, Totals]:
        counts, totals = self._counts, self._totals
        ended = totals.advance("cycles", now, COUNTED_AFTER, counts.cycles)
        return ended, totals.advance("timings", now, TIMED_AFTER, counts.timings, TIMED_S)

    def _measured(self, watched: tuple[str, ...], now: datetime) -> tuple[Totals, Totals]:
        """Measured minutes and gaps."""
        counts, totals = self._counts, self._totals

        def minutes(since: datetime, until: datetime) -> list[SliceCount]:
            return counts.minutes(watched, since, until)

        def gaps(since: datetime, until: datetime) -> list[SliceCount]:
            return counts.gaps(watched, since, until)

        stored = totals.advance("minutes", now, MEASURED_AFTER, minutes, MINUTE_S)
        return stored, totals.advance("gaps", now, MEASURED_AFTER, gaps, MINUTE_S)


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


def _cycles(ended: Totals, timings: Totals) -> Iterator[object]:
    yield counter(
        "aifap_cycles_ended",
        "Cycles that have ended since the service began, by how.",
        {(state,): ended.get(state, (0, 0.0))[0] for state in CYCLE_STATES},
        ("outcome",),
    )
    for name, key, told in (
        ("own", "own", "Real time that a cycle took of its own, from the bar on."),
        ("first_order", "first", "World time from a cycle's boundary to its first order."),
        ("last_order", "last", "World time from a cycle's boundary to its last order."),
    ):
        places = range(len(CYCLE_BOUNDS_S) + 1)
        found = [timings.get(f"{key}:{place}", (0, 0.0)) for place in places]
        counts, sums = [number for number, _ in found], [total for _, total in found]
        yield histogram(
            f"aifap_cycle_{name}_seconds", told, CYCLE_BOUNDS_S, {(): (counts, sum(sums))}
        )


def _alerts(numbers: PlatformNumbers) -> Iterator[object]:
    told: dict[tuple[str, ...], float] = {
        (channel, state): 0 for channel in CHANNELS for state in NOT_ARRIVED
    }
    told.update(numbers.alerts)  # zeros are told too: the first dead message is then a change
    yield gauge(
        "aifap_alert_deliveries",
        "Messages to people that have not arrived: pending, sending, dead.",
        told,
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


def _measured(minutes: Totals, gaps: Totals) -> Iterator[object]:
    yield counter(
        "aifap_finwatcher_measured",
        "Minutes of sessions that were measured since the service began.",
        {(market,): minutes.get(market, (0, 0.0))[0] for market in MARKETS},
        ("market",),
    )
    told: dict[tuple[str, ...], float] = {(cause.value,): 0.0 for cause in GapCause}
    told[OTHER,] = 0.0
    for cause, (count, _) in gaps.items():
        told[(cause,) if (cause,) in told else (OTHER,)] += count
    yield counter(
        "aifap_finwatcher_gaps",
        "Minutes of sessions that could not be measured since the service began, by cause.",
        told,
        ("cause",),
    )
