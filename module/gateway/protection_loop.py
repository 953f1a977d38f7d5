"""The thread that keeps positions protected: looks at every account of the installation.

Right after each write, every few world seconds while something is open, once a minute while the
account is flat. It waits on a clock of its own, so it never holds a stepped world while idle.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from module.gateway.owned_account import AccountDesk
from module.gateway.protection import PARTICIPANT, PositionGuard
from module.model.errors import AifapError, Forbidden, NotFound, Unavailable
from module.ports import Clock

log = logging.getLogger(__name__)

ACTIVE_PERIOD = timedelta(seconds=5)
IDLE_PERIOD = timedelta(seconds=60)
AFTER_WRITE = (timedelta(milliseconds=200), timedelta(seconds=1))
CREDENTIALS_PAUSE = timedelta(minutes=5)
ROSTER_PERIOD = timedelta(seconds=60)


@dataclass(slots=True)
class _Watch:
    """When an account is looked at next, and what the last look found."""

    due: list[datetime] = field(default_factory=list)
    thorough_at: datetime | None = None
    unprotected: tuple[str, ...] = ()
    last_error: str = ""


class ProtectionLoop:
    """The thread. `make_clock` makes a participant named `PARTICIPANT` in the thread itself."""

    def __init__(
        self, desk: AccountDesk, guard: PositionGuard, make_clock: Callable[[], Clock]
    ) -> None:
        self._desk = desk
        self._guard = guard
        self._make_clock = make_clock
        self._watches: dict[str, _Watch] = {}
        self._nudged: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._pipe: tuple[int, int] | None = None
        self._roster_at: datetime | None = None
        self._ready = threading.Event()

    def start(self) -> None:
        """Run until `stop`; returns once the thread has its clock."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[0], False)
        os.set_blocking(self._pipe[1], False)
        self._thread = threading.Thread(target=self._run, name="protection", daemon=True)
        self._thread.start()
        self._ready.wait(timeout=60)

    def stop(self) -> None:
        """End the thread; what it was doing is finished first."""
        self._stopping = True
        self._ring()
        if self._thread is not None:
            self._thread.join(timeout=30)
        if self._pipe is not None and (self._thread is None or not self._thread.is_alive()):
            os.close(self._pipe[0])
            os.close(self._pipe[1])
            self._pipe = None

    def nudge(self, account_id: str) -> None:
        """An order or a stop was written: look soon. Called by request handlers."""
        with self._lock:
            self._nudged.add(account_id)
        self._ring()

    def health(self) -> dict[str, object]:
        """What a person wants to know: is it alive, what is unprotected, what went wrong."""
        with self._lock:
            return {
                "alive": self._thread is not None and self._thread.is_alive(),
                "accounts": len(self._watches),
                "unprotected": {
                    account_id: list(watch.unprotected)
                    for account_id, watch in self._watches.items()
                    if watch.unprotected
                },
                "errors": {
                    account_id: watch.last_error
                    for account_id, watch in self._watches.items()
                    if watch.last_error
                },
            }

    def _ring(self) -> None:
        if self._pipe is None:
            return
        with contextlib.suppress(BlockingIOError):  # a full pipe is a rung bell
            os.write(self._pipe[1], b"!")
        self._desk.clock.wake(PARTICIPANT)

    def _run(self) -> None:
        clock = self._make_clock()
        self._ready.set()
        try:
            while not self._stopping:
                try:
                    until = self.step(clock.now())
                    self._wait(clock, until)
                except Unavailable as error:
                    log.warning("the protection loop has no time: %s", error.message)
                    clock.pause(1.0)
        finally:
            close = getattr(clock, "close", None)
            if callable(close):
                close()

    def _wait(self, clock: Clock, until: datetime) -> None:
        if self._pipe is None:
            return
        if clock.wait_readable([self._pipe[0]], until):
            os.read(self._pipe[0], 4096)

    def step(self, now: datetime) -> datetime:
        """Look at every account that is due; when the next one is."""
        self._read_roster(now)
        with self._lock:
            for account_id in self._nudged:
                watch = self._watches.setdefault(account_id, _Watch())
                watch.due = [now + delay for delay in AFTER_WRITE]
            self._nudged.clear()
            due = [
                account_id
                for account_id, watch in self._watches.items()
                if not watch.due or watch.due[0] <= now
            ]
        for account_id in due:
            self._look(account_id, self._watches[account_id], now)
        times = [watch.due[0] for watch in self._watches.values() if watch.due]
        return min([*times, now + IDLE_PERIOD])

    def _look(self, account_id: str, watch: _Watch, now: datetime) -> None:
        pause = ACTIVE_PERIOD
        thorough = watch.thorough_at is None or watch.thorough_at <= now
        try:
            owned = self._desk.open(account_id)
            self._desk.keep_owning(owned)
            found = self._guard.look(owned, thorough=thorough)
            watch.unprotected, watch.last_error = found.unprotected, ""
            if not found.open and len(watch.due) <= 1:
                pause = IDLE_PERIOD
            if thorough:
                watch.thorough_at = now + IDLE_PERIOD
        except NotFound as error:
            watch.last_error, pause = error.message, IDLE_PERIOD
        except Forbidden as error:
            log.error("account %s: %s", account_id, error.message)
            watch.last_error, pause = error.message, CREDENTIALS_PAUSE
        except AifapError as error:
            log.warning("account %s could not be looked at: %s", account_id, error.message)
            watch.last_error = error.message
        except Exception as error:  # the top of a process loop: record, and look again
            log.exception("account %s: the guard failed", account_id)
            watch.last_error = f"{type(error).__name__}: see the log"
        with self._lock:
            watch.due = [when for when in watch.due if when > now] or [now + pause]

    def _read_roster(self, now: datetime) -> None:
        """Which accounts there are; asked once a minute, and again soon after a failure."""
        if self._roster_at is not None and now < self._roster_at:
            return
        try:
            active = set(self._desk.active_ids())
        except Unavailable as error:
            log.warning("accounts cannot be listed: %s", error.message)
            self._roster_at = now + ACTIVE_PERIOD
            with self._lock:
                for owned in self._desk.all_owned():
                    self._watches.setdefault(owned.account_id, _Watch())
            return
        self._roster_at = now + ROSTER_PERIOD
        with self._lock:
            for account_id in active:
                self._watches.setdefault(account_id, _Watch())
            for account_id in set(self._watches) - active:
                del self._watches[account_id]
