"""The thread that keeps positions protected: looks at every account of the installation.

Right after each write, every second while a position has not the stop it should have, every few
world seconds while something is open, once a minute while the account is flat. It waits on a clock
of its own, so it never holds a stepped world while idle.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from module.gateway.alarms import Alarms, position_lines
from module.gateway.owned_account import AccountDesk, OwnedAccount
from module.gateway.protection import PARTICIPANT, PositionGuard
from module.gateway.quiet_log import QuietLog
from module.model.errors import AifapError, Forbidden, NotFound, Retryable, Unavailable
from module.ports import Clock

log = logging.getLogger(__name__)

MENDING_PERIOD = timedelta(seconds=1)
ACTIVE_PERIOD = timedelta(seconds=5)
IDLE_PERIOD = timedelta(seconds=60)
AFTER_WRITE = (timedelta(milliseconds=200), timedelta(seconds=1))
CREDENTIALS_PAUSE = timedelta(minutes=5)
ROSTER_PERIOD = timedelta(seconds=60)
SKEW_TOLD_S = 2.0


@dataclass(slots=True)
class _Watch:
    """When an account is looked at next, and what the last look found."""

    due: list[datetime] = field(default_factory=list)
    thorough_at: datetime | None = None
    open: bool = False
    unprotected: tuple[str, ...] = ()
    last_error: str = ""


class ProtectionLoop:
    """The thread. `make_clock` makes a participant named `PARTICIPANT` in the thread itself."""

    def __init__(
        self,
        desk: AccountDesk,
        guard: PositionGuard,
        alarms: Alarms,
        make_clock: Callable[[], Clock],
    ) -> None:
        self._desk = desk
        self._guard = guard
        self._alarms = alarms
        self._quiet = QuietLog(log, desk.clock)
        self._make_clock = make_clock
        self._watches: dict[str, _Watch] = {}
        self._nudged: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._pipe: tuple[int, int] | None = None
        self._roster_at: datetime | None = None
        self._stepped_at: datetime | None = None
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

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def health(self) -> dict[str, object]:
        """What a person wants to know: is it alive, what is unprotected, what went wrong."""
        with self._lock:
            return {
                "alive": self.is_alive(),
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
                    self._quiet.warning("time", f"the protection loop has no time: {error.message}")
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
        if self._stepped_at is not None and now < self._stepped_at:
            self._forget_times()
        self._stepped_at = now
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

    def _forget_times(self) -> None:
        """The clock was set back (C7): what was due at a time is due now."""
        self._roster_at = None
        with self._lock:
            for watch in self._watches.values():
                watch.due, watch.thorough_at = [], None

    def _look(self, account_id: str, watch: _Watch, now: datetime) -> None:
        pause = ACTIVE_PERIOD
        thorough = watch.thorough_at is None or watch.thorough_at <= now
        owned: OwnedAccount | None = None
        try:
            owned = self._desk.open(account_id)
            self._desk.keep_owning(owned)
            if thorough:
                self._compare_clocks(owned)
            found = self._guard.look(owned, thorough=thorough)
            watch.unprotected, watch.last_error = found.unprotected, ""
            watch.open = found.open
            if found.unprotected:
                pause = MENDING_PERIOD
            elif not found.open and len(watch.due) <= 1:
                pause = IDLE_PERIOD
            if thorough:
                watch.thorough_at = now + IDLE_PERIOD
            self._alarms.over(owned, "credentials")
        except NotFound as error:
            watch.last_error, pause = error.message, IDLE_PERIOD
        except Forbidden as error:
            log.error("account %s: %s", account_id, error.message)
            watch.last_error, pause = error.message, CREDENTIALS_PAUSE
            if owned is not None:
                self._tell_unmanaged(owned, error.message)
        except AifapError as error:
            self._quiet.warning(
                f"{account_id}:{error.code}",
                f"account {account_id} could not be looked at: {error.message}",
            )
            watch.last_error = error.message
            if watch.open and isinstance(error, Retryable):
                pause = MENDING_PERIOD
        except Exception as error:  # the top of a process loop: record, and look again
            log.exception("account %s: the guard failed", account_id)
            watch.last_error = f"{type(error).__name__}: see the log"
        with self._lock:
            watch.due = [when for when in watch.due if when > now] or [now + pause]

    def _compare_clocks(self, owned: OwnedAccount) -> None:
        """Once a minute: sign by the exchange's clock, and tell people when ours is off (A23)."""
        try:
            owned.skew_s = owned.venue.measure_clock()
        except Retryable as error:
            self._quiet.warning("clock", f"clocks were not compared: {error.message}")
            return
        if abs(owned.skew_s) <= SKEW_TOLD_S:
            self._alarms.over(owned, "clock")
            return
        self._alarms.tell_once(
            owned,
            "clock",
            f"This machine's clock is {-owned.skew_s:+.1f} s off the exchange's",
            (("what now", "signatures are corrected; above 30 s nothing opens"),),
            cause="clock",
            severity="warning",
        )

    def _tell_unmanaged(self, owned: OwnedAccount, why: str) -> None:
        """The keys are refused: nobody looks after these positions but the exchange (A16)."""
        self._alarms.tell_once(
            owned,
            "credentials",
            "The exchange refuses the account's keys; its positions are unmanaged",
            (
                ("why", why),
                *(position_lines(owned.last_seen) or [("positions", "none known")]),
                ("what now", "stops at the exchange stay; the keys are tried every five minutes"),
            ),
            cause="credentials",
        )

    def _read_roster(self, now: datetime) -> None:
        """Which accounts there are; asked once a minute, and again soon after a failure."""
        if self._roster_at is not None and now < self._roster_at:
            return
        try:
            active = set(self._desk.active_ids())
            self._desk.audit.adopt()
        except Unavailable as error:
            self._quiet.warning("roster", f"accounts cannot be listed: {error.message}")
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
