"""One finwatcher minute: one look at the account becomes rows, or a gap with its cause.

    gather (snapshot, fills, bills) → measure (the five Stack… parts) → keep ─► Postgres, or spool

A minute is measured once: while the clock is set back, what this process has measured stays as it
is. `Finwatcher.step` is driven by the loop of `monitoring.finwatcher`, by the one-pass form
(`python -m monitoring --all`) and by the simulation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from module.logs import get_logger
from module.model.accounts import AccountSnapshot
from module.model.errors import AifapError, NotFound, Unavailable
from module.model.results import (
    GapCause,
    MinuteRows,
    PlannedOrder,
    PortfolioRow,
    WatchedSession,
)
from module.model.sessions import boundary_at_or_after, boundary_at_or_before
from module.ports import AlertSink, Clock, Exchange
from monitoring.gaps import MissingMinutes
from monitoring.history import SessionHistory, last_minute_of
from monitoring.indicators import DAYS_PER_YEAR, IndicatorState
from monitoring.keeping import Kept, RowKeeper
from monitoring.ledger import HistoryLedger
from monitoring.ports import ResultsStore, SessionRegistry
from monitoring.resuming import resume_curve
from monitoring.spool import Spool
from monitoring.stacks import Stacks
from monitoring.troubles import Troubles
from monitoring.unsettled import LOOK_BACK, Unsettled

MINUTE = timedelta(minutes=1)
LATE_AFTER = timedelta(seconds=10)
MEASURED_REMEMBERED = 3_000
PLANNED_BEFORE = timedelta(hours=1)
"""So long before a fill its cycle may have begun."""
WAIT_FOR_THE_STORE_MAX = timedelta(hours=1)
LASTING_S = 3.0
"""What Postgres has kept for so long is on its replica too."""
SETTLE_LOOKS_MAX = 200
_log = get_logger("monitoring.finwatcher")


@dataclass(frozen=True, slots=True)
class FinwatcherWiring:
    """What a finwatcher needs of the world. `folder` is the session's own folder (spool file);
    `days_per_year` annualises its indicators. `deep_look`: whether to ask for history from far
    back now; None: it decides itself."""

    session_id: str
    clock: Clock
    exchange: Exchange
    sessions: SessionRegistry
    results: ResultsStore
    alerts: AlertSink
    folder: Path
    days_per_year: int = DAYS_PER_YEAR
    deep_look: bool | None = None


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did. `measured`: the minute has its row. `spooled`: kept locally because
    Postgres was away."""

    minute: datetime
    measured: bool
    spooled: bool
    gaps: int
    failed: tuple[str, ...]
    session_over: bool


class Finwatcher:
    """One session's watcher: what it remembers between minutes, and the step of one minute."""

    def __init__(self, wiring: FinwatcherWiring, writer: str | None = None) -> None:
        self._clock = wiring.clock
        self._exchange = wiring.exchange
        self._sessions = wiring.sessions
        self._results = wiring.results
        self._troubles = Troubles(wiring.alerts, wiring.clock)
        self._session_id = wiring.session_id
        self._days_per_year = wiring.days_per_year
        self._unsettled = Unsettled()
        self._missing = MissingMinutes(wiring.folder)
        self._keeper = RowKeeper(
            wiring.results, Spool(wiring.folder), self._unsettled, self._missing, self._troubles
        )
        self._history = SessionHistory(
            wiring.exchange, wiring.results, self._keeper, self._troubles, wiring.deep_look
        )
        self._writer = writer or f"{os.getpid()}-{os.urandom(6).hex()}"
        self._session: WatchedSession | None = None
        self._stacks: Stacks | None = None
        self._resumed = False
        self._registry_there = False
        self._measured: dict[datetime, None] = {}
        self._last_minute: datetime | None = None
        self._born: datetime | None = None

    @property
    def ledger(self) -> HistoryLedger | None:
        """The session's history as counted; None where that is not what is stored."""
        return self._history.ledger

    @property
    def has_all_history(self) -> bool:
        """Whether history was asked for, and answered, after the session's end."""
        ended_at = None if self._session is None else self._session.ended_at
        return ended_at is not None and self._history.is_known_until(ended_at)

    def first_due(self) -> datetime:
        """When the first row is to be measured: now, if this minute has none yet; else the next.

        A session's minutes begin with the first second 0 after its start.
        """
        minute = boundary_at_or_before(self._clock.now(), MINUTE)
        try:
            session = self._sessions.watched(self._session_id)
            last = self._results.last_minute(session)
        except Unavailable as error:
            _log.warning("first minute measured without knowing the last", error=error.message)
            return minute
        expected = boundary_at_or_after(session.started_at, MINUTE)
        if minute < expected or (last is not None and last >= minute):
            return minute + MINUTE
        return minute

    def step(self, *, final: bool = False) -> StepReport:
        """Measure the minute that is now; record what is missing since the last one.

        `final` measures again a minute that this process already wrote: the session's last row.
        Errors of a part are alerted by name; nothing but a missing session leaves this method.
        """
        minute = boundary_at_or_before(self._clock.now(), MINUTE)
        self._born = self._born or minute
        self._troubles.failed.clear()
        look = self._look()  # before anything that may have to wait: a minute's row is second 0
        session = self._read_session(minute)
        report = (
            StepReport(minute, False, False, 0, tuple(self._troubles.failed), False)
            if session is None
            else self._watch(session, minute, look, final=final)
        )
        self._missing.leave(minute, report.failed, self._keeper.waiting())
        return report

    def _watch(
        self,
        session: WatchedSession,
        minute: datetime,
        look: AccountSnapshot | tuple[GapCause, str],
        *,
        final: bool,
    ) -> StepReport:
        """Mend what is missing, then measure: whoever dies in between leaves no hole behind."""
        self._find_last_minute(session)
        if self._keeper.drain(session):
            self._resumed = False  # the curve is read back, and tells what those minutes lack
        self._look_for_losses(session)
        self._resume(session, minute)
        gaps = self._record_gaps(session, minute)
        outcome = Kept.NOWHERE
        if self._is_past_end(session, minute):
            self._complete_history(session, look)
        elif not self._stays(minute, final=final):
            outcome = self._measure(session, minute, look, final=final)
            if outcome.is_kept:
                self._note_measured(minute)
            if self._last_minute is not None:
                self._last_minute = max(self._last_minute, minute)
            gaps += self._record_gaps(session, minute + MINUTE)
        return StepReport(
            minute,
            minute in self._measured,
            outcome is Kept.LOCALLY,
            gaps,
            tuple(self._troubles.failed),
            self._is_done(session, minute),
        )

    def settle(self) -> None:
        """After the session's last step: see that its last rows have lasted; waits real seconds,
        minutes while Postgres is away."""
        for _ in range(SETTLE_LOOKS_MAX):
            self._clock.pause(LASTING_S)
            session, last = self._session, self._last_minute
            if session is None or last is None:
                return
            self._keeper.drain(session)
            if self._look_for_losses(session):
                self._record_gaps(session, last + MINUTE)
                return

    def _stays(self, minute: datetime, *, final: bool) -> bool:
        """Whether this process has measured it and may not do it again: only the newest minute is
        measured again, as the last one. (The clock was set back, or a step came twice.)"""
        if minute not in self._measured:
            return False
        return not final or minute < max(self._measured)

    def _note_measured(self, minute: datetime) -> None:
        self._measured[minute] = None
        if len(self._measured) > MEASURED_REMEMBERED:
            del self._measured[min(self._measured)]

    # --- gather -----------------------------------------------------------------------------------

    def _read_session(self, minute: datetime) -> WatchedSession | None:
        self._registry_there = False
        try:
            self._session = self._sessions.watched(self._session_id)
            self._troubles.session = self._session
            self._registry_there = True
        except NotFound:
            raise
        except AifapError as error:
            _log.warning("session cannot be read", error=error.message)
            if self._session is None:
                self._missing.because(minute, GapCause.SESSION_UNREADABLE, error.message)
                self._troubles.failed.append("session")
        return self._session

    def _find_last_minute(self, session: WatchedSession) -> None:
        """Where the stored rows end; asked before the spool is drained, so that a hole between
        the stored rows and the spooled ones is seen."""
        if self._last_minute is not None:
            return
        last = self._troubles.load("last minute", lambda: (self._results.last_minute(session),))
        if last is not None:
            first = boundary_at_or_after(session.started_at, MINUTE)
            self._last_minute = last[0] or first - MINUTE
            self._unsettled.sure_until = max(first - MINUTE, self._last_minute - LOOK_BACK)

    def _resume(self, session: WatchedSession, minute: datetime) -> None:
        """Pick up the sums where the stored rows end; the curve waits until Postgres is there."""
        self._history.resume(session, minute)
        if not self._resumed and not self._keeper.waits:
            found = self._troubles.load("curve", lambda: self._load_curve(session))
            if found is not None and found[1]:
                self._parts(session).indicators.resume(found[0])
                self._resumed = True

    def _parts(self, session: WatchedSession) -> Stacks:
        if self._stacks is None:
            self._stacks = Stacks.of(session.market, self._days_per_year)
        return self._stacks

    def _load_curve(self, session: WatchedSession) -> tuple[IndicatorState | None, bool]:
        return resume_curve(
            self._results, session, self._writer, self._keeper.say_refused, self._days_per_year
        )

    def _is_past_end(self, session: WatchedSession, minute: datetime) -> bool:
        """The session's last row is older than this minute: nothing is left to measure."""
        return session.is_over and last_minute_of(session, minute) < minute

    def _is_done(self, session: WatchedSession, minute: datetime) -> bool:
        """The session is over, its last row is stored and all its history; for that it waits no
        longer than an hour. The clock may have been set back since the session ended."""
        if not session.is_over:
            return False
        end = last_minute_of(session, minute)
        if minute - end > WAIT_FOR_THE_STORE_MAX:
            return True
        if self._last_minute is None or self._last_minute < end or self._keeper.waits:
            return False
        return session.ended_at is None or self._history.is_known_until(session.ended_at)

    # --- one minute -------------------------------------------------------------------------------

    def _look(self) -> AccountSnapshot | tuple[GapCause, str]:
        """The account now, or why it cannot be seen."""
        try:
            return self._exchange.snapshot()
        except AifapError as error:
            _log.warning("no snapshot", error=error.message)
            return GapCause.EXCHANGE_UNREACHABLE, error.message
        except Exception as error:  # noqa: BLE001 (one minute's failure is a gap, not the end)
            self._troubles.part_failed("snapshot", repr(error))
            return GapCause.PART_FAILED, repr(error)

    def _measure(
        self,
        session: WatchedSession,
        minute: datetime,
        snapshot: AccountSnapshot | tuple[GapCause, str],
        *,
        final: bool,
    ) -> Kept:
        """Measure one minute and keep its rows; without a portfolio row it becomes a gap."""
        if isinstance(snapshot, tuple):
            self._missing.because(minute, *snapshot)
            return Kept.NOWHERE
        flags = self._collect(session, snapshot)
        rows = self._rows(session, minute, snapshot, flags, final=final)
        state = self._parts(session).indicators.state if rows.indicators is not None else None
        outcome, is_ours = self._keeper.keep_minute(rows, state)
        lacks = rows.portfolio is not None and rows.indicators is None
        self._resumed &= is_ours and not lacks  # the stored curve is the other's, or has a hole
        if outcome is Kept.NO_ROOM:
            detail = "it was measured while Postgres was away, and the spool had no room"
            self._missing.because(minute, GapCause.SPOOL_FULL, detail)
        elif not outcome.is_kept:
            detail = "the portfolio row could not be measured or stored"
            self._missing.because(minute, GapCause.PART_FAILED, detail)
        return outcome

    def _collect(self, session: WatchedSession, snapshot: AccountSnapshot) -> tuple[str, ...]:
        return self._history.collect(
            session, snapshot, self._parts(session), partial(self._planned_orders, session)
        )

    def _planned_orders(
        self, session: WatchedSession, first: datetime, last: datetime
    ) -> Mapping[str, PlannedOrder] | None:
        """What was decided of the orders executed from `first` to `last`; None: it cannot be asked
        now. A minute does not wait for it."""
        if not self._registry_there:
            return None
        try:
            return self._sessions.planned_orders(session, first - PLANNED_BEFORE, last)
        except AifapError as error:
            _log.warning("decision prices cannot be read", error=error.message)
            return None

    def _unprotected_s(self, session: WatchedSession, at: datetime) -> float | None:
        """None: it cannot be asked now."""
        if not self._registry_there:
            return None
        try:
            return self._sessions.unprotected_s(session, at)
        except AifapError as error:
            _log.warning("unprotected seconds cannot be read", error=error.message)
            return None

    def _complete_history(
        self, session: WatchedSession, look: AccountSnapshot | tuple[GapCause, str]
    ) -> None:
        """After a session's end: what it did last may still be missing, the exchange was away."""
        ended_at = session.ended_at
        if ended_at is None or self._history.is_known_until(ended_at):
            return
        if isinstance(look, AccountSnapshot):
            self._collect(session, look)

    def _rows(
        self,
        session: WatchedSession,
        minute: datetime,
        snapshot: AccountSnapshot,
        flags: tuple[str, ...],
        *,
        final: bool,
    ) -> MinuteRows:
        stacks = self._parts(session)
        totals = self._history.ledger_of(session).totals_at(snapshot.at)
        late = not final and snapshot.at - minute > LATE_AFTER
        bare_s = self._unprotected_s(session, snapshot.at)
        portfolio: PortfolioRow | None = self._troubles.guard(
            stacks.portfolio.name,
            lambda: stacks.portfolio.measure(
                snapshot, session, totals, late=late, flags=flags, unprotected_s=bare_s
            ),
        )
        indicators = None
        if portfolio is not None and self._resumed:
            indicators = self._troubles.guard(
                stacks.indicators.name,
                lambda: stacks.indicators.measure(minute, portfolio, totals),
            )
        return MinuteRows(
            session_id=session.session_id,
            owner_id=session.owner_id,
            account_id=session.account_id,
            market=session.market,
            minute=minute,
            writer=self._writer,
            symbols=self._troubles.guard(
                stacks.result.name, lambda: stacks.result.measure(snapshot, session, totals)
            ),
            portfolio=portfolio,
            indicators=indicators,
        )

    # --- gaps -------------------------------------------------------------------------------------

    def _record_gaps(self, session: WatchedSession, until: datetime) -> int:
        """Record every minute after the last one and before `until` as a gap with its cause; before
        it is known where the stored rows end, those alone whose cause is known."""
        if self._born is None:
            return 0
        if session.is_over:
            until = min(until, last_minute_of(session, until) + MINUTE)
        span = (until if self._last_minute is None else self._last_minute + MINUTE, until)
        rows = self._missing.due(session, span, self._born, self._clock.now())
        if not rows:
            return 0
        if self._last_minute is not None:
            self._last_minute = max(self._last_minute, rows[-1].minute)
        stored = self._troubles.guard("gaps", lambda: self._keeper.keep_gaps(session, rows))
        if stored:
            self._troubles.say_gap(rows, stored)
        return stored or 0

    def _look_for_losses(self, session: WatchedSession) -> bool:
        """See that what was stored lately is there; False while Postgres cannot be asked. Before
        this minute's rows, so that a process that dies leaves no hole behind them."""
        if self._last_minute is None:
            return False
        lost = self._keeper.look_for_losses(session, self._last_minute)
        self._missing.lost(lost or ())
        return lost is not None and not self._keeper.waits
