"""Keeps looking at every account of the installation, so that positions stay protected.

    roster, writes, time ─► step ─► the accounts that are due ─► workers ─► PositionGuard.look

Right after each write, twice a second while a position has not the stop it should have, every
second while something is open, once a minute while the account is flat. An account has one look at
a time, and a worker of its own for it: one whose exchange hangs keeps nobody else waiting. In a
stepped world, which stands still meanwhile, accounts are looked at one after another, by the thread
that holds the world, and every five seconds of its time (it may run faster than anybody can look).

One look at futures is one request, of five a second that an account has, and of 5,700 a minute that
an address has: of these the looks at open accounts take a third at most (LOOKS_PER_S_MAX), so from
thirty open accounts on each is looked at less often.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from module.db.repositories.accounts import LEASE_LOST
from module.exchange.venue import KeysRefused
from module.gateway.account_desk import AccountDesk
from module.gateway.alarms import Alarms, position_lines
from module.gateway.numbers import GatewayCounts, ProtectionNumbers
from module.gateway.owned_account import OwnedAccount
from module.gateway.protection import PARTICIPANT, Look, PositionGuard
from module.gateway.quiet_log import QuietLog
from module.model.errors import (
    AifapError,
    Conflict,
    Forbidden,
    NotFound,
    RateLimited,
    Retryable,
    Unavailable,
)
from module.ports import Clock

log = logging.getLogger(__name__)

MENDING_PERIOD = timedelta(milliseconds=500)
MENDING_SLOWLY = timedelta(seconds=1)
MENDING_SLOWLY_AFTER = timedelta(seconds=10)
ACTIVE_PERIOD = timedelta(seconds=1)
STEPPED_PERIOD = timedelta(seconds=5)
IDLE_PERIOD = timedelta(seconds=60)
LOOKS_PER_S_MAX = 30
AFTER_WRITE = (timedelta(milliseconds=200), timedelta(seconds=1))
THOROUGH_AGAIN = timedelta(seconds=5)
"""After a thorough look that failed the next ones are plain for so long: what only it asks for must
not keep positions without their stops."""
CREDENTIALS_PAUSE = timedelta(minutes=5)
ROSTER_PERIOD = timedelta(seconds=60)
ROSTER_AGAIN = timedelta(seconds=5)
ROOM_S = (0.05, 2.0)
SKEW_TOLD_S = 2.0
WORKERS_MAX = 16
SLOW_WORKERS_MAX = WORKERS_MAX // 2
"""So many workers may be with accounts whose last look took longer than SLOW_LOOK_S."""
SLOW_LOOK_S = 2.0
STUCK_S = 60.0
BLIND_S = 120.0
"""Looks at an account with something open have failed for so long: people are told."""
FAILURES_MAX = 5
AFTER_FAILURE_S = 1.0


@dataclass(slots=True)
class _Watch:
    """When an account is looked at next, what the last look found, since when one goes on."""

    due: list[datetime] = field(default_factory=list)
    thorough_at: datetime | None = None
    open: bool = False
    unprotected: tuple[str, ...] = ()
    unprotected_since: datetime | None = None
    last_error: str = ""
    busy_since_s: float | None = None
    failing_since_s: float | None = None
    looked_s: float | None = None
    is_slow: bool = False


class ProtectionLoop:
    """The thread, and its workers. `make_clock` makes a participant named `PARTICIPANT` in the
    thread itself. Without `start`, `step` looks by itself."""

    def __init__(
        self,
        desk: AccountDesk,
        guard: PositionGuard,
        alarms: Alarms,
        make_clock: Callable[[], Clock],
        *,
        is_stepped: bool = False,
        counts: GatewayCounts | None = None,
    ) -> None:
        """`is_stepped`: the clock is a stepped world's, and stands still during a look."""
        self._counts = counts or GatewayCounts()
        self._began_s = desk.clock.monotonic()
        self._desk = desk
        self._guard = guard
        self._alarms = alarms
        self._quiet = QuietLog(log, desk.clock)
        self._make_clock = make_clock
        self._is_stepped = is_stepped
        self._active_period = STEPPED_PERIOD if is_stepped else ACTIVE_PERIOD
        self._watches: dict[str, _Watch] = {}
        self._nudged: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._workers: ThreadPoolExecutor | None = None
        self._stopping = False
        self._pipe: tuple[int, int] | None = None
        self._roster_at: datetime | None = None
        self._reads_roster = threading.Lock()
        self._stepped_at: datetime | None = None
        self._failures = 0
        self._ready = threading.Event()

    def start(self) -> None:
        """Run until `stop`; returns once the thread has its clock."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[0], False)
        os.set_blocking(self._pipe[1], False)
        if not self._is_stepped:
            self._workers = ThreadPoolExecutor(WORKERS_MAX, thread_name_prefix="protection")
        self._thread = threading.Thread(target=self._run, name="protection", daemon=True)
        self._thread.start()
        self._ready.wait(timeout=60)

    def stop(self) -> None:
        """End the thread and the workers; what they were doing is finished first."""
        self._stopping = True
        self._ring()
        if self._thread is not None:
            self._thread.join(timeout=30)
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)
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
        """What a person wants to know: is it alive (and how often did it fail), what is
        unprotected, what went wrong, which accounts have waited for an answer for a minute."""
        now_s = self._desk.clock.monotonic()
        with self._lock:
            watches = sorted(self._watches.items())
            return {
                "alive": self.is_alive(),
                "failures": self._failures,
                "accounts": len(watches),
                "unprotected": {
                    name: list(watch.unprotected) for name, watch in watches if watch.unprotected
                },
                "errors": {name: watch.last_error for name, watch in watches if watch.last_error},
                "stuck": [name for name, watch in watches if _is_stuck(watch, now_s)],
            }

    def numbers(self) -> ProtectionNumbers:
        """See `ProtectionNumbers`."""
        now_s = self._desk.clock.monotonic()
        with self._lock:
            watches = list(self._watches.values())
        watched = [watch for watch in watches if watch.open or watch.looked_s is None]
        seen_s = [self._began_s if w.looked_s is None else w.looked_s for w in watched]
        return ProtectionNumbers(
            alive=self.is_alive(),
            failures=self._failures,
            accounts=len(watches),
            open_accounts=sum(watch.open for watch in watches),
            look_age_s=max((now_s - looked_s for looked_s in seen_s), default=0.0),
            stuck=sum(_is_stuck(watch, now_s) for watch in watches),
        )

    def _ring(self) -> None:
        if self._pipe is None:
            return
        with contextlib.suppress(BlockingIOError):  # a full pipe is a rung bell
            os.write(self._pipe[1], b"!")
        self._desk.clock.wake(PARTICIPANT)

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        """Until `stop`. What fails is told, and begins again; too often, and the process is of no
        use any more: then the thread ends, and with it the process's health."""
        while not self._stopping:
            clock = self._make_clock()
            self._ready.set()
            try:
                self._serve(clock)
            except Exception as error:  # the top of a thread: record, tell, begin again
                log.exception("the protection loop failed")
                self._failed(error)
                if self._failures >= FAILURES_MAX:
                    raise
                clock.pause(AFTER_FAILURE_S)
            finally:
                close = getattr(clock, "close", None)
                if callable(close):
                    close()

    def _serve(self, clock: Clock) -> None:
        while not self._stopping:
            try:
                until = self.step(clock.now())
                self._wait(clock, until)
            except Unavailable as error:
                self._quiet.warning("time", f"the protection loop has no time: {error.message}")
                clock.pause(1.0)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._forget_times()
        is_last = self._failures >= FAILURES_MAX
        for owned in self._desk.all_owned():
            self._alarms.tell(
                owned,
                "protection",
                "The gateway's guard of positions failed",
                (
                    ("why", f"{type(error).__name__}: see the gateway's log"),
                    *position_lines(owned.last_seen),
                    ("what now", "the gateway must be started again" if is_last else "it goes on"),
                ),
                cause="guard",
            )

    def _wait(self, clock: Clock, until: datetime) -> None:
        if self._pipe is None:
            return
        if clock.wait_readable([self._pipe[0]], until):
            os.read(self._pipe[0], 4096)

    def step(self, now: datetime) -> datetime:
        """Have every account looked at that is due; when the next one is."""
        if self._stepped_at is not None and now < self._stepped_at:
            self._forget_times()
        self._stepped_at = now
        if self._roster_at is None or now >= self._roster_at:
            self._roster_at = now + ROSTER_PERIOD
            self._hand_over(lambda: self._read_roster(now))
        with self._lock:
            for account_id in self._nudged:
                watch = self._watches.setdefault(account_id, _Watch())
                watch.due = [now + delay for delay in AFTER_WRITE]
            self._nudged.clear()
            due = [
                (account_id, watch)
                for account_id, watch in self._watches.items()
                if watch.busy_since_s is None and (not watch.due or watch.due[0] <= now)
            ]
        for account_id, watch in due:
            self._begin_look(account_id, watch, now)
        self._tell_stuck()
        with self._lock:
            watches = self._watches.values()
            times = [w.due[0] for w in watches if w.due and w.busy_since_s is None]
        return min([*times, self._roster_at, now + IDLE_PERIOD])

    # --- workers ---------------------------------------------------------------------------------

    def _hand_over(self, task: Callable[[], None]) -> None:
        """To a worker; where there is none it is done here and now."""
        if self._workers is None:
            task()
        elif not self._stopping:
            self._workers.submit(task)

    def _begin_look(self, account_id: str, watch: _Watch, now: datetime) -> None:
        if self._workers is None:
            self._look(account_id, watch, now)
            return
        with self._lock:
            slow = sum(
                other.is_slow and other.busy_since_s is not None for other in self._watches.values()
            )
            if watch.is_slow and slow >= SLOW_WORKERS_MAX:
                watch.due = [now + MENDING_PERIOD]  # others' workers stay free
                return
            watch.busy_since_s = self._desk.clock.monotonic()
        self._hand_over(lambda: self._look_apart(account_id, watch, now))

    def _look_apart(self, account_id: str, watch: _Watch, now: datetime) -> None:
        """A worker's look; the thread hears when it is over."""
        try:
            self._look(account_id, watch, now)
        finally:
            with self._lock:
                began_s, watch.busy_since_s = watch.busy_since_s, None
                took_s = self._desk.clock.monotonic() - (began_s or 0.0)
                watch.is_slow = took_s > SLOW_LOOK_S
            self._alarms_over(account_id)
            self._ring()

    def _tell_stuck(self) -> None:
        """An account whose look has not ended for a minute has nobody who looks after it."""
        now_s = self._desk.clock.monotonic()
        with self._lock:
            stuck = {name for name, watch in self._watches.items() if _is_stuck(watch, now_s)}
        for owned in self._desk.all_owned() if stuck else ():
            if owned.account_id in stuck:
                self._alarms.tell_once(
                    owned,
                    "protection",
                    "The gateway has waited for a minute for one look at the account",
                    (*position_lines(owned.last_seen), ("what now", "it goes on waiting")),
                    cause="stuck",
                )

    def _alarms_over(self, account_id: str) -> None:
        for owned in self._desk.all_owned():
            if owned.account_id == account_id:
                self._alarms.over(owned, "stuck")

    def _forget_times(self) -> None:
        """The clock was set back (C7): what was due at a time is due now."""
        self._roster_at = None
        with self._lock:
            for watch in self._watches.values():
                watch.due, watch.thorough_at = [], None

    def _look(self, account_id: str, watch: _Watch, now: datetime) -> None:
        """One look, and when the next one is due."""
        pause = self._period()
        thorough = watch.thorough_at is None or watch.thorough_at <= now
        owned: OwnedAccount | None = None
        try:
            owned = self._desk.open(account_id)
            self._desk.keep_owning(owned)
            if thorough:
                watch.thorough_at = now + THOROUGH_AGAIN
                self._compare_clocks(owned)
            found = self._guard.look(owned, thorough=thorough)
            pause = self._note(watch, found, now)
            if thorough:
                watch.thorough_at = now + IDLE_PERIOD
            self._alarms.over(owned, "credentials")
            self._alarms.over(owned, "blind")
            watch.looked_s, watch.failing_since_s = self._desk.clock.monotonic(), None
        except NotFound as error:
            watch.last_error, pause = error.message, IDLE_PERIOD
        except Forbidden as error:
            log.error("account %s: %s", account_id, error.message)
            watch.last_error, pause = error.message, CREDENTIALS_PAUSE
            if isinstance(error, KeysRefused):
                pause = timedelta(seconds=error.again_in_s)
            if owned is not None:
                self._tell_unmanaged(owned, error.message)
        except AifapError as error:
            self._quiet.warning(
                f"{account_id}:{error.code}",
                f"account {account_id} could not be looked at: {error.message}",
            )
            watch.last_error = error.message
            if error.code == LEASE_LOST:  # it is another gateway's now, which looks at it
                watch.open, watch.unprotected, watch.failing_since_s = False, (), None
            else:
                self._tell_blind(owned, watch, at_once=isinstance(error, Conflict))
            if isinstance(error, RateLimited):
                pause = _until_room(error.retry_after_s)
            elif watch.open and isinstance(error, Retryable):
                pause = min(pause, MENDING_SLOWLY)
        except Exception as error:  # the top of a process loop: record, and look again
            log.exception("account %s: the guard failed", account_id)
            watch.last_error = f"{type(error).__name__}: see the log"
            self._tell_blind(owned, watch)
        self._counts.looked(ended_well=not watch.last_error)
        with self._lock:
            watch.due = [when for when in watch.due if when > now] or [now + pause]

    def _note(self, watch: _Watch, found: Look, now: datetime) -> timedelta:
        """Keep what a look has found; how long until the next one."""
        watch.unprotected, watch.last_error = found.unprotected, ""
        watch.open = found.open
        if not found.unprotected:
            watch.unprotected_since = None
        elif watch.unprotected_since is None:
            watch.unprotected_since = now
        if found.room_in_s is not None:
            return _until_room(found.room_in_s)
        if watch.unprotected_since is not None:
            is_new = now - watch.unprotected_since < MENDING_SLOWLY_AFTER
            return MENDING_PERIOD if is_new else MENDING_SLOWLY
        if not found.open and len(watch.due) <= 1:
            return IDLE_PERIOD
        return self._period()

    def _period(self) -> timedelta:
        """Between two looks at an account with something open, within the address's budget."""
        with self._lock:
            opened = sum(watch.open for watch in self._watches.values())
        return max(self._active_period, timedelta(seconds=opened / LOOKS_PER_S_MAX))

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

    def _tell_blind(
        self, owned: OwnedAccount | None, watch: _Watch, *, at_once: bool = False
    ) -> None:
        """No look has ended well for minutes, whatever the cause: an exchange that is away, one
        answer that cannot be read. What is open has only the stops that are placed; before the
        first look that may be all of which a stop is wanted. `at_once`: what does not pass by
        itself (a symbol that is held long and short)."""
        now_s = self._desk.clock.monotonic()
        if watch.failing_since_s is None:
            watch.failing_since_s = now_s
        is_long = now_s - watch.failing_since_s >= BLIND_S
        if owned is None or not (is_long or at_once):
            return
        if not (at_once or watch.open or (watch.looked_s is None and owned.wanted)):
            return
        how_long = "cannot be looked at" if at_once else f"could not be looked at for {BLIND_S:g} s"
        self._alarms.tell_once(
            owned,
            "protection",
            f"The account {how_long}: its stops are not mended",
            (
                ("why", watch.last_error),
                *position_lines(owned.last_seen),
                ("what now", "stops at the exchange stay; it is tried again until it answers"),
            ),
            cause="blind",
        )

    def _read_roster(self, now: datetime) -> None:
        """Which accounts there are; asked once a minute, and again soon after a failure."""
        if not self._reads_roster.acquire(blocking=False):
            return  # Postgres has not answered yet
        try:
            active = set(self._desk.active_ids())
            if self._desk.audit.adopt():
                for owned in self._desk.all_owned():
                    owned.relist_periods = True  # what was brought home may be open still
        except Unavailable as error:
            self._quiet.warning("roster", f"accounts cannot be listed: {error.message}")
            self._roster_at = now + ROSTER_AGAIN
            with self._lock:
                for owned in self._desk.all_owned():
                    self._watches.setdefault(owned.account_id, _Watch())
        else:
            with self._lock:
                for account_id in active:
                    self._watches.setdefault(account_id, _Watch())
                for account_id in set(self._watches) - active:
                    del self._watches[account_id]
        finally:
            self._reads_roster.release()
        if self._workers is not None:
            self._ring()


def _until_room(seconds: float | None) -> timedelta:
    shortest_s, longest_s = ROOM_S
    return timedelta(seconds=min(max(seconds or 0.0, shortest_s), longest_s))


def _is_stuck(watch: _Watch, now_s: float) -> bool:
    return watch.busy_since_s is not None and now_s - watch.busy_since_s > STUCK_S
