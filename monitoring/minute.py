"""One finwatcher minute: one look at the account becomes rows, or a gap with its cause.

    gather (snapshot, fills, bills) → measure (the five Stack… parts) → store
                                                                        └─ Postgres away ─► spool

`Finwatcher.step` is driven by the loop of `monitoring.finwatcher`, by the one-pass form
(`python -m monitoring --all`) and by the simulation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TypeVar

from module.logs import get_logger
from module.model.accounts import AccountSnapshot
from module.model.errors import AifapError, NotFound, Unavailable
from module.model.results import (
    ClosedPositionRow,
    GapCause,
    GapRow,
    HistoryRows,
    MinuteRows,
    PortfolioRow,
    TransactionRow,
    WatchedSession,
)
from module.model.sessions import boundary_at_or_after, boundary_at_or_before
from module.ports import AlertSink, Clock, Exchange
from monitoring.ledger import OVERLAP, HistoryLedger
from monitoring.metrics import IndicatorState, replay
from monitoring.ports import ResultsStore, SessionRegistry
from monitoring.spool import Spool, SpoolRecord
from monitoring.stacks import Stacks
from monitoring.troubles import Troubles
from monitoring.unsettled import LOOK_BACK, Unsettled

MINUTE = timedelta(minutes=1)
LATE_AFTER = timedelta(seconds=10)
GAPS_PER_STEP_MAX = 100_000
WAIT_FOR_THE_STORE_MAX = timedelta(hours=1)
LASTING_S = 3.0
"""What Postgres has kept for so long is on its replica too."""
SETTLE_LOOKS_MAX = 200
T = TypeVar("T")
_log = get_logger("monitoring.finwatcher")


@dataclass(frozen=True, slots=True)
class FinwatcherWiring:
    """What a finwatcher needs of the world. `folder` is the session's own folder (spool file)."""

    session_id: str
    clock: Clock
    exchange: Exchange
    sessions: SessionRegistry
    results: ResultsStore
    alerts: AlertSink
    folder: Path


class Kept(Enum):
    """Where a record is after a step."""

    IN_DATABASE = "database"
    LOCALLY = "spool"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did. `spooled`: kept locally because Postgres was away."""

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
        self._spool = Spool(wiring.folder)
        self._unsettled = Unsettled()
        self._writer = writer or f"{os.getpid()}-{os.urandom(6).hex()}"
        self._session: WatchedSession | None = None
        self._stacks: Stacks | None = None
        self._ledger: HistoryLedger | None = None
        self._ledger_stale = False
        self._resumed = False
        self._last_minute: datetime | None = None
        self._known_gaps: dict[datetime, tuple[GapCause, str]] = {}
        self._born: datetime | None = None

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
        if session is None:
            return StepReport(minute, False, False, 0, tuple(self._troubles.failed), False)
        self._find_last_minute(session)
        self._drain_spool(session)
        self._look_for_losses(session)
        self._resume(session)
        gaps = self._record_gaps(session, minute)
        outcome = Kept.NOWHERE
        if not self._is_past_end(session, minute):
            outcome = self._measure(session, minute, look, final=final)
            if self._last_minute is not None:
                self._last_minute = max(self._last_minute, minute)
            gaps += self._record_gaps(session, minute + MINUTE)
        return StepReport(
            minute,
            outcome is not Kept.NOWHERE,
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
            self._drain_spool(session)
            if self._look_for_losses(session):
                self._record_gaps(session, last + MINUTE)
                return

    # --- gather -----------------------------------------------------------------------------------

    def _read_session(self, minute: datetime) -> WatchedSession | None:
        try:
            self._session = self._sessions.watched(self._session_id)
            self._troubles.session = self._session
        except NotFound:
            raise
        except AifapError as error:
            _log.warning("session cannot be read", error=error.message)
            if self._session is None:
                self._known_gaps[minute] = (GapCause.SESSION_UNREADABLE, error.message)
                self._troubles.failed.append("session")
        return self._session

    def _find_last_minute(self, session: WatchedSession) -> None:
        """Where the stored rows end; asked before the spool is drained, so that a hole between
        the stored rows and the spooled ones is seen."""
        if self._last_minute is not None:
            return
        last = self._load("last minute", lambda: (self._results.last_minute(session),))
        if last is not None:
            first = boundary_at_or_after(session.started_at, MINUTE)
            self._last_minute = last[0] or first - MINUTE
            self._unsettled.sure_until = max(first - MINUTE, self._last_minute - LOOK_BACK)

    def _resume(self, session: WatchedSession) -> None:
        """Pick up the sums where the stored rows end; the curve waits until Postgres is there.

        Without Postgres the history is counted afresh from what the exchange still tells.
        """
        if self._ledger is None or self._ledger_stale:
            loaded = self._load("history", lambda: self._load_ledger(session))
            self._ledger = loaded or self._ledger or HistoryLedger(session.started_at)
            self._ledger_stale = False
        if not self._resumed and not self._spool:
            state = self._load("curve", lambda: (self._load_state(session),))
            if state is not None:
                self._parts(session).indicators.resume(state[0])
                self._resumed = True

    def _load(self, name: str, work: Callable[[], T]) -> T | None:
        """The result of `work`; None while Postgres is away (said once) or when it failed."""
        try:
            return self._troubles.guard_unless_unavailable(name, work)
        except Unavailable as error:
            self._troubles.say_spooling(error)
            return None

    def _parts(self, session: WatchedSession) -> Stacks:
        if self._stacks is None:
            self._stacks = Stacks.of(session.market)
        return self._stacks

    def _load_ledger(self, session: WatchedSession) -> HistoryLedger:
        stored = self._results.history(session, OVERLAP)
        return HistoryLedger.resume(session.started_at, stored)

    def _load_state(self, session: WatchedSession) -> IndicatorState | None:
        document = self._results.indicator_state(session)
        state = None if document is None else IndicatorState.from_document(document)
        after = None if state is None else state.minute
        return replay(state, self._results.curve(session, after))

    def _is_past_end(self, session: WatchedSession, minute: datetime) -> bool:
        """The session's last row is older than this minute: nothing is left to measure."""
        return session.is_over and _last_minute_of(session, minute) < minute

    def _is_done(self, session: WatchedSession, minute: datetime) -> bool:
        """The session is over and its last row is stored; for that it waits no longer than an
        hour. The clock may have been set back since the session ended."""
        if not session.is_over:
            return False
        end = _last_minute_of(session, minute)
        if minute - end > WAIT_FOR_THE_STORE_MAX:
            return True
        return self._last_minute is not None and self._last_minute >= end and not self._spool

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
            self._known_gaps[minute] = snapshot
            return Kept.NOWHERE
        flags = self._collect_history(session)
        rows = self._rows(session, minute, snapshot, flags, final=final)
        outcome = self._store(session, rows)
        if outcome is Kept.NOWHERE:
            detail = "the portfolio row could not be measured or stored"
            self._known_gaps[minute] = (GapCause.PART_FAILED, detail)
        return outcome

    def _collect_history(self, session: WatchedSession) -> tuple[str, ...]:
        """Store what is new in the history; flags for a row whose sums may be stale."""
        stacks = self._parts(session)
        ledger = self._ledger = self._ledger or HistoryLedger(session.started_at)
        transactions: tuple[TransactionRow, ...] | None = self._troubles.guard(
            stacks.transactions.name, lambda: stacks.transactions.collect(self._exchange, ledger)
        )
        positions: tuple[ClosedPositionRow, ...] | None = self._troubles.guard(
            stacks.positions.name, lambda: stacks.positions.collect(self._exchange, ledger)
        )
        self._store_history(session, stacks.transactions.name, transactions or (), ())
        self._store_history(session, stacks.positions.name, (), positions or ())
        return ("history-stale",) if transactions is None or positions is None else ()

    def _store_history(
        self,
        session: WatchedSession,
        name: str,
        transactions: tuple[TransactionRow, ...],
        positions: tuple[ClosedPositionRow, ...],
    ) -> None:
        if not transactions and not positions:
            return
        rows = HistoryRows(
            session.session_id,
            session.owner_id,
            session.account_id,
            session.market,
            transactions,
            positions,
        )

        def store() -> Kept:
            kept = self._keep(rows, lambda: self._results.store_history(rows))
            if kept is Kept.IN_DATABASE:
                self._unsettled.note(rows)
            return kept

        if self._troubles.guard(name, store) in (None, Kept.NOWHERE):
            self._ledger_stale = True  # counted but not stored: read the truth back next minute

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
        ledger = self._ledger or HistoryLedger(session.started_at)
        totals = ledger.totals_at(snapshot.at)
        late = not final and snapshot.at - minute > LATE_AFTER
        portfolio: PortfolioRow | None = self._troubles.guard(
            stacks.portfolio.name,
            lambda: stacks.portfolio.measure(snapshot, session, totals, late=late, flags=flags),
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

    # --- store ------------------------------------------------------------------------------------

    def _store(self, session: WatchedSession, rows: MinuteRows) -> Kept:
        """Store a minute's rows, or keep them locally."""
        stacks = self._parts(session)
        state = stacks.indicators.state if rows.indicators is not None else None
        names = {
            "symbols": stacks.result.name,
            "portfolio": stacks.portfolio.name,
            "indicators": stacks.indicators.name,
        }
        refused: set[str] = set()

        def store() -> None:
            stored = self._results.store_minute(rows, state)
            if not stored.written:
                _log.info("minute has another writer", minute=str(rows.minute))
                self._resumed = False  # the stored curve is the other's: read it back
            refused.update(stored.failed)
            for part, error in stored.failed.items():
                self._troubles.part_failed(names.get(part, part), error)
            if "portfolio" not in refused:
                self._unsettled.note(rows)

        kept = self._troubles.guard("store", lambda: self._keep(rows, store)) or Kept.NOWHERE
        if rows.portfolio is None or "portfolio" in refused:
            return Kept.NOWHERE
        return kept

    def _keep(self, record: SpoolRecord, store: Callable[[], object]) -> Kept:
        """Store `record`, or spool it while Postgres is away. Order is kept: while older records
        wait, new ones queue behind them."""
        if not self._spool:
            try:
                store()
            except Unavailable as error:
                self._troubles.say_spooling(error)
            else:
                self._troubles.spooling = False
                return Kept.IN_DATABASE
        if self._spool.append(record):
            return Kept.LOCALLY
        self._troubles.part_failed("Spool", "the local spool is full; minutes become gaps")
        return Kept.NOWHERE

    def _drain_spool(self, session: WatchedSession) -> None:
        if not self._spool:
            return

        def store(record: SpoolRecord) -> None:
            self._write(session, record)

        try:
            stored = self._spool.drain(store)
        except Unavailable as error:
            _log.warning("rows stay in the spool", error=error.message)
            return
        except Exception as error:  # noqa: BLE001 (it stays in the spool, and is said)
            _log.exception("a spooled record cannot be stored")
            self._troubles.part_failed("Spool", f"{type(error).__name__}: {error}")
            return
        self._troubles.spooling = False
        _log.info("spooled records filled in", records=stored)

    def _write(self, session: WatchedSession, record: SpoolRecord) -> None:
        """Store a record of an earlier minute."""
        failed: Mapping[str, str] = {}
        if isinstance(record, MinuteRows):
            failed = self._results.store_minute(record).failed
            for part, error in failed.items():
                self._troubles.part_failed(part, error)
        elif isinstance(record, HistoryRows):
            if self._results.store_history(record) == 0:
                return  # it was there: nothing that could be forgotten any more
        else:
            self._results.store_gaps(session, (record,))
        if "portfolio" not in failed:
            self._unsettled.note(record)

    def _look_for_losses(self, session: WatchedSession) -> bool:
        """What was stored lately and is not there any more is stored again: a replica that took
        over has missed it. Before this minute's rows, so that a process that dies leaves no hole
        behind them. False while Postgres cannot be asked."""
        last, sure = self._last_minute, self._unsettled.sure_until
        if last is None or sure is None or self._spool:
            return False
        there = self._load(
            "stored minutes", lambda: self._results.kept_minutes(session, sure + MINUTE, last)
        )
        if there is None:
            return False

        def store_again(record: SpoolRecord) -> None:
            _log.warning("stored rows were lost; storing them again")
            self._troubles.guard(
                "store again", partial(self._keep, record, partial(self._write, session, record))
            )

        for minute in self._unsettled.look(there, last, store_again):
            detail = "it may have been measured, and is not in the database"
            self._known_gaps.setdefault(minute, (GapCause.STORE_LOST, detail))
        for rows in self._unsettled.histories_to_repeat():
            self._troubles.guard(
                "history again", partial(self._keep, rows, partial(self._write, session, rows))
            )
        return not self._spool

    # --- gaps -------------------------------------------------------------------------------------

    def _record_gaps(self, session: WatchedSession, until: datetime) -> int:
        """Record every minute after the last one and before `until` as a gap with its cause."""
        if self._last_minute is None or self._born is None:
            return 0
        if session.is_over:
            until = min(until, _last_minute_of(session, until) + MINUTE)
        minute = self._last_minute + MINUTE
        while minute < until and len(self._known_gaps) < GAPS_PER_STEP_MAX:
            ordinary = GapCause.NOT_RUNNING if minute < self._born else GapCause.OVERRUN
            self._known_gaps.setdefault(minute, (ordinary, ""))
            minute += MINUTE
        rows = [
            GapRow(session.session_id, session.owner_id, minute, cause, detail, self._clock.now())
            for minute, (cause, detail) in sorted(self._known_gaps.items())
            if minute < until
        ]
        if not rows:
            return 0
        for row in rows:
            del self._known_gaps[row.minute]
        self._last_minute = max(self._last_minute, rows[-1].minute)
        stored = self._troubles.guard("gaps", lambda: self._store_gaps(session, rows))
        if stored:
            self._troubles.say_gap(rows, stored)
        return stored or 0

    def _store_gaps(self, session: WatchedSession, rows: list[GapRow]) -> int:
        """Record gaps (a minute that has a row keeps it); how many there are, spooled ones too."""
        if not self._spool:
            try:
                stored = self._results.store_gaps(session, rows)
            except Unavailable as error:
                self._troubles.say_spooling(error)
            else:
                for row in rows:
                    self._unsettled.note(row)
                return stored
        for row in rows:
            self._spool.append(row)
        return len(rows)


def _last_minute_of(session: WatchedSession, otherwise: datetime) -> datetime:
    """The minute of a session's last row: the first second 0 at or after its end."""
    if session.ended_at is None:
        return otherwise
    return boundary_at_or_after(session.ended_at, MINUTE)
