"""The collector: right after each minute, the newly closed bars of every watched symbol.

A loop in a thread of the market service with a clock of its own (participant `market:collector`):
it gives time away only after it has stored, so a stepped world cannot run past a bar. Nothing that
fails here ends it; what is wrong is said in the service's health, and the gap is filled later.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from itertools import groupby
from typing import Final, Protocol

from module.market.series import NATIVE_FREQUENCIES, floor_to
from module.market.service import MarketService
from module.market.store import CandleStore
from module.model.errors import AifapError, RateLimited, Rejected, Retryable
from module.model.market import Frequency
from module.model.series import Series, Stretch, Watched
from module.ports import Clock

PARTICIPANT: Final = "market:collector"
WATCHED_FOR: Final = timedelta(days=2)
# How far back a series that is new to this process is made complete; and how far every look goes.
CATCH_UP: Final = {
    Frequency.MINUTE_1: timedelta(days=1),
    Frequency.HOUR_1: timedelta(days=7),
    Frequency.DAY_1: timedelta(days=30),
}
LOOK_BACK: Final = {
    Frequency.MINUTE_1: timedelta(hours=2),
    Frequency.HOUR_1: timedelta(days=1),
    Frequency.DAY_1: timedelta(days=3),
}
CATCH_UP_ENDS_BEFORE: Final = timedelta(seconds=10)
TRIES_MAX: Final = 4
FETCH_THREADS: Final = 4
BACK_OFF_FIRST_S: Final = 0.1
LATE_LOOKS_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
RATE_LIMIT_WAIT_MAX_S: Final = 5.0
CLOCK_LOST_PAUSE_S: Final = 1.0


class _Look(Enum):
    """A look that failed in no way."""

    ARRIVED = "arrived"
    LATE = "late"


_ARRIVED: Final = _Look.ARRIVED
_LATE: Final = _Look.LATE
_Outcome = _Look | Retryable | Rejected


class ClosableClock(Clock, Protocol):
    """A clock that holds a connection."""

    def close(self) -> None:
        """Leave the world."""
        ...


class Collector:
    """Follows the watched symbols of one service."""

    def __init__(
        self, service: MarketService, store: CandleStore, clock: Clock, stop_fd: int
    ) -> None:
        """`stop_fd` becomes readable when the loop is to end."""
        self._service = service
        self._store = store
        self._clock = clock
        self._stop_fd = stop_fd
        self._collected: dict[Series, datetime] = {}
        self._complete: set[Series] = set()
        self._watched: list[Watched] = []
        self._collected_until: datetime | None = None
        self._threads = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="collector-fetch")

    def run(self) -> None:
        """Collect each minute until told to stop."""
        try:
            while True:
                now = self._clock.now()
                problem = self.collect()
                self._report(problem, running=True)
                next_minute = floor_to(Frequency.MINUTE_1, now) + Frequency.MINUTE_1.length
                if not problem:
                    self.catch_up(next_minute - CATCH_UP_ENDS_BEFORE)
                if self._stopped(until=next_minute):
                    self._report("", running=False)
                    return
        finally:
            self.close()

    def close(self) -> None:
        """End the fetching threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def collect(self) -> str:
        """One round at the world time that it is; "" or what went wrong, for people."""
        now = self._clock.now()
        minute = floor_to(Frequency.MINUTE_1, now)
        try:
            self._watched = self._store.watched(self._service.market_id, now - WATCHED_FOR)
        except Retryable as error:
            return error.message
        due = [
            series
            for watched in self._watched
            for series in self._series_of(watched)
            if self._collected.get(series) != floor_to(series.frequency, now)
        ]
        problem = self._collect_all(due, minute)
        if not problem:
            self._collected_until = minute
        return problem

    def catch_up(self, until: datetime) -> None:
        """Older bars of series that are new here, one after another, until `until` at most.

        After what is due, so that nobody who waits for the newest bar waits for history; what the
        request budget has no room for goes on with the next minute.
        """
        new = self._collected.keys() - self._complete
        for series in sorted(new, key=_in_order):
            while (now := self._clock.now()) < until:
                newest = floor_to(series.frequency, now)
                oldest = floor_to(series.frequency, newest - CATCH_UP[series.frequency])
                try:
                    self._service.book.bars(series, Stretch(oldest, newest), now)
                except RateLimited as error:
                    if not self._backed_off(error, 1):
                        return
                    continue
                except Retryable:
                    return  # the next round says what is wrong
                except Rejected:
                    pass  # it was told when the series was due
                self._complete.add(series)
                break

    def _collect_all(self, due: list[Series], minute: datetime) -> str:
        """Fetch until everything is there; failures and late bars each have a bound."""
        late_looks_s = list(LATE_LOOKS_S)
        failures = arrived = 0
        refused = ""
        while due:
            now = self._clock.now()
            look = partial(self._look, minute=minute, now=now)
            due.sort(key=_in_order)
            outcomes = [  # minutes first: what a strategy waits for must not depend on who was late
                outcome
                for _, together in groupby(due, key=lambda series: series.frequency)
                for outcome in list(self._threads.map(look, together))
            ]
            arrived += outcomes.count(_ARRIVED)
            refusals = [each for each in outcomes if isinstance(each, Rejected)]
            refused = refusals[0].message if refusals else refused
            retryable = [each for each in outcomes if isinstance(each, Retryable)]
            due = [
                series
                for series, each in zip(due, outcomes, strict=True)
                if each is not _ARRIVED and not isinstance(each, Rejected)
            ]
            if retryable:
                failures += 1
                if failures >= TRIES_MAX or not self._backed_off(retryable[0], failures):
                    return retryable[0].message
            elif due and (not late_looks_s or self._stopped(now + _seconds(late_looks_s.pop(0)))):
                break
        if due and not arrived:
            names = sorted({series.symbol for series in due})
            return f"no bar has arrived for {', '.join(names[:5])}"
        return refused

    def _look(self, series: Series, minute: datetime, now: datetime) -> _Outcome:
        """One look for one series: has the newest bar arrived, is it late, or what went wrong."""
        until = floor_to(series.frequency, minute)
        oldest = floor_to(series.frequency, until - LOOK_BACK[series.frequency])
        wanted = Stretch(oldest, until)
        try:
            bars = self._service.book.bars(series, wanted, now)
        except (Retryable, Rejected) as error:
            return error
        if not bars or bars[-1].closes_at < until:
            return _LATE
        self._collected[series] = until
        return _ARRIVED

    def _backed_off(self, error: Retryable, failures: int) -> bool:
        """Wait before the next try; False when told to stop meanwhile.

        A used-up budget comes back with world time. A part of our own installation that restarts
        does so in real time, and a stepped world holds still for it.
        """
        if isinstance(error, RateLimited):
            wait_s = min(RATE_LIMIT_WAIT_MAX_S, error.retry_after_s or 1.0)
            return not self._stopped(self._clock.now() + _seconds(wait_s))
        self._clock.pause(BACK_OFF_FIRST_S * 4 ** (failures - 1))
        return True

    def _series_of(self, watched: Watched) -> list[Series]:
        return [
            Series(self._service.market_id, watched.market, watched.symbol, frequency)
            for frequency in NATIVE_FREQUENCIES
        ]

    def _stopped(self, until: datetime) -> bool:
        return bool(self._clock.wait_readable((self._stop_fd,), until))

    def _report(self, problem: str, *, running: bool) -> None:
        self._service.report(
            running=running,
            collected_until=self._collected_until,
            watched=len(self._watched),
            problem=problem,
        )


class CollectorThread:
    """Runs a collector beside the service's requests; makes its clock in its own thread."""

    def __init__(
        self, service: MarketService, store: CandleStore, make_clock: Callable[[], ClosableClock]
    ) -> None:
        """`make_clock` gives the participant `market:collector` of the world (or real time)."""
        self._service = service
        self._store = store
        self._make_clock = make_clock
        self._stop_read, self._stop_write = os.pipe()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="market-collector", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread runs; what it does not know how to mend ends it for good."""
        return self._thread.is_alive()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the loop and wait for its thread."""
        self._ending.set()
        with suppress(OSError):
            os.write(self._stop_write, b".")
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            for descriptor in (self._stop_read, self._stop_write):
                with suppress(OSError):
                    os.close(descriptor)

    def _run(self) -> None:
        """The top of the loop: a clock that was lost is made again, for ever, with pauses."""
        while not self._ending.is_set():
            try:
                clock = self._make_clock()
            except AifapError as error:
                self._failed(error)
                self._ending.wait(CLOCK_LOST_PAUSE_S)
                continue
            try:
                Collector(self._service, self._store, clock, self._stop_read).run()
            except Retryable as error:
                self._failed(error)
                self._ending.wait(CLOCK_LOST_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - the top of a process loop: say it and end
                self._failed(error)
                return
            finally:
                clock.close()

    def _failed(self, error: Exception) -> None:
        self._service.report(
            running=False,
            collected_until=None,
            watched=0,
            problem=f"the collector is not running: {type(error).__name__}: {error}",
        )


def _in_order(series: Series) -> tuple[int, str, str]:
    """Minutes first, then by name: the same order in every run."""
    return NATIVE_FREQUENCIES.index(series.frequency), series.market.value, series.symbol


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
