"""One pass over all sessions of an installation: every one's minute measured and stored together.

    sessions, targets (one query) ─► looks, side by side ─┐
    stored state, holes (bulk)  ──────────────────────────┴► Finwatcher.step of each session
        ─► batch ─► store_histories, store_minutes, store_gaps ─► Postgres, or the fleet's folder

A pass belongs to the minute it began in and knows nothing but what is stored (and, without
Postgres, what the last pass remembered), so it may end at any moment: the next one records what is
missing. A session whose account does not answer gets a gap with the cause and costs no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import cast

from module.logs import get_logger
from module.model.errors import Unavailable
from module.model.money import ZERO
from module.model.results import (
    NO_TRADES,
    GapCause,
    GapRow,
    HistoryRows,
    MinuteRows,
    StoredHistory,
    StoredProgress,
    WatchedSession,
)
from module.model.sessions import boundary_at_or_after, boundary_at_or_before
from module.points import reach
from module.ports import Alert, AlertSink, Clock, Exchange
from monitoring import fleet_notes
from monitoring.fleet_folder import FleetFolder, Remembered
from monitoring.fleet_notes import Notes, mark_of
from monitoring.fleet_ports import (
    AccountReads,
    Batch,
    FleetStore,
    ImpatientClock,
    Look,
    LookedAccount,
    MinuteClock,
    PreparedResults,
    PreparedSession,
    why,
    with_detail,
)
from monitoring.indicators import DAYS_PER_YEAR
from monitoring.lanes import Done, Lanes
from monitoring.ledger import OVERLAP
from monitoring.minute import (
    MINUTE,
    WAIT_FOR_THE_STORE_MAX,
    Finwatcher,
    FinwatcherWiring,
)
from monitoring.ports import ResultsStore, SessionRegistry
from monitoring.spool import SpoolRecord
from monitoring.troubles import ALERT_AGAIN_AFTER
from monitoring.unsettled import LOOK_BACK

ENDED_MAX = timedelta(days=7)
"""A session that ended longer ago gets no gaps any more."""
FLUSH_SESSIONS = 250
PATIENCE_S = 12.0
PASS_MAX_S = 45.0
REMEMBERED_MINUTES = 15
ALERTS_MAX = 50
SURE_UNTIL = "sure_until"
NO_HISTORY = StoredHistory({}, ZERO, NO_TRADES, None, None, None, frozenset())
_log = get_logger("monitoring.fleet")


@dataclass(frozen=True, slots=True)
class FleetWiring:
    """What a pass needs of the world. `open_account` makes the exchange of a session's account,
    with a clock that gives up in time; `folder` is kept between passes."""

    clock: Clock
    store: FleetStore
    results: ResultsStore
    registry: SessionRegistry
    open_account: Callable[[WatchedSession, Clock], AccountReads]
    alerts: AlertSink
    folder: Path
    lanes: Callable[[], Lanes]
    patience_s: float = PATIENCE_S
    pass_max_s: float = PASS_MAX_S
    days_per_year: int = DAYS_PER_YEAR


@dataclass(slots=True)
class PassReport:
    """What one pass did, in sessions; `rows` counts those of the minute tables."""

    minute: datetime
    sessions: int = 0
    measured: int = 0
    gaps: int = 0
    rows: int = 0
    history_asked: int = 0
    spooled: int = 0
    lost: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Watched:
    """One session within a pass."""

    session: WatchedSession
    clock: ImpatientClock
    account: AccountReads | None = None
    look: Look | None = None
    notes: Notes | None = None
    progress: StoredProgress | None = None
    watcher: Finwatcher | None = None
    batch: Batch | None = None
    quiet: bool = False
    history_refused: bool = False


class Fleet:
    """One pass: made, stepped once, thrown away. `writer` owns the minutes that it writes."""

    def __init__(self, wiring: FleetWiring, writer: str | None = None) -> None:
        self._wiring = wiring
        self._clock = wiring.clock
        self._writer = writer or f"{os.getpid()}-{os.urandom(6).hex()}"
        self._folder = FleetFolder(wiring.folder)
        self._known = Remembered()
        self._sessions: dict[str, WatchedSession] = {}
        self._waiting: dict[str, frozenset[datetime]] = {}
        self._unprotected: Mapping[str, float] = {}
        self._away = False
        self._ends_s = 0.0
        self._minute = boundary_at_or_before(self._clock.now(), MINUTE)
        self._report = PassReport(self._minute)

    def step(self) -> PassReport:
        """Measure the minute that is now for every session; record what earlier ones lack.

        Ends at once when there is no session and nothing waits to be stored.
        """
        self._ends_s = self._clock.monotonic() + self._wiring.pass_max_s
        with self._folder.alone() as alone:
            self._known = self._folder.recall()
            sessions = self._read_sessions()
            for session in (*self._known.sessions, *sessions):
                self._sessions[session.session_id] = session
            self._waiting = self._folder.waiting()
            watched = self._choose(sessions)
            if watched:
                self._measure_all(watched)
            self._report.sessions = len(watched)
            if alone:
                self._drain()
                if sessions or self._known.sessions:
                    self._remember(sessions, watched)
        return self._report

    # --- gather -----------------------------------------------------------------------------------

    def _read_sessions(self) -> Sequence[WatchedSession]:
        """All sessions that may need something; those remembered while Postgres is away."""
        try:
            return self._wiring.store.sessions(self._clock.now() - ENDED_MAX)
        except Unavailable as error:
            self._away = True
            _log.warning(
                "sessions as the last pass knew them",
                count=len(self._known.sessions),
                error=error.message,
            )
            return self._known.sessions

    def _choose(self, sessions: Iterable[WatchedSession]) -> dict[str, _Watched]:
        """Those whose minutes have begun."""
        chosen = {}
        for session in sessions:
            if boundary_at_or_after(session.started_at, MINUTE) <= self._minute:
                clock = ImpatientClock(self._clock, self._minute, self._wiring.patience_s)
                chosen[session.session_id] = _Watched(session, clock)
        return chosen

    def _measure_all(self, watched: dict[str, _Watched]) -> None:
        """Looks first, all of them, so that each row is near second 0; then the steps."""
        lanes = self._wiring.lanes()
        try:
            looked = [
                one
                for one in watched.values()
                if not self._is_past_end(one.session) or self._lacks_history(one.session)
            ]
            for one in looked:
                lanes.put(f"look {one.session.session_id}", partial(self._look, one))
            self._read_progress(watched)
            open_tasks = {one.session.session_id for one in looked}
            for session_id, one in list(watched.items()):
                if self._is_complete(one):
                    del watched[session_id]
                elif session_id not in open_tasks:
                    one.look = Look(None, Unavailable("the session is over"))
                    open_tasks.add(session_id)
                    lanes.put(f"step {session_id}", partial(self._step, one))
            self._collect(lanes, watched, open_tasks)
        finally:
            lanes.close()

    def _look(self, one: _Watched) -> None:
        one.clock.begin()
        try:
            one.account = self._wiring.open_account(one.session, one.clock)
            one.look = Look(one.account.snapshot())
        except Exception as error:  # noqa: BLE001 (one account's failure is its gap, not the end)
            one.look = Look(None, error)

    def _read_progress(self, watched: Mapping[str, _Watched]) -> None:
        """Where each session's rows stand: one read for all."""
        sessions = [one.session for one in watched.values()]
        found: Mapping[str, StoredProgress] = {}
        try:
            found = self._wiring.store.progress(sessions, LOOK_BACK)
        except Unavailable as error:
            self._away = True
            _log.warning("stored rows cannot be asked for", error=error.message)
        try:
            self._unprotected = self._wiring.store.unprotected_s(sessions, self._clock.now())
        except Unavailable as error:
            _log.warning("unprotected periods cannot be asked for", error=error.message)
        for session_id, one in watched.items():
            one.progress = found.get(session_id)
            state = None if one.progress is None else one.progress.state
            document = (
                self._known.notes.get(session_id)
                if one.progress is None
                else (state or {}).get(fleet_notes.MEMBER)
            )
            one.notes = fleet_notes.from_document(document)
        reach("fleet: read")

    def _is_past_end(self, session: WatchedSession) -> bool:
        return session.ended_at is not None and (
            boundary_at_or_after(session.ended_at, MINUTE) < self._minute
        )

    def _lacks_history(self, session: WatchedSession) -> bool:
        """It ended lately, and history has not been asked for since; asked for an hour long."""
        if session.ended_at is None or session.session_id in self._known.complete:
            return False
        end = boundary_at_or_after(session.ended_at, MINUTE)
        return self._minute - end <= WAIT_FOR_THE_STORE_MAX

    def _is_complete(self, one: _Watched) -> bool:
        """This minute has its row or its gap already, or the session its last one, and nothing
        is missing before it."""
        known, session = one.progress, one.session
        if known is None or known.last_minute is None or self._lacks_history(session):
            return False
        end = self._minute
        if session.ended_at is not None:
            end = min(end, boundary_at_or_after(session.ended_at, MINUTE))
        if known.last_minute < end:
            return False
        minute = self._looked_until(one)
        waiting = self._waiting.get(session.session_id, frozenset())
        while minute is not None and minute < end:
            minute += MINUTE
            if minute not in known.kept and minute not in waiting:
                return False
        return True

    def _looked_until(self, one: _Watched) -> datetime | None:
        """From where on the kept minutes were read; None before the first."""
        known = one.progress
        if known is None or known.last_minute is None:
            return None
        first = boundary_at_or_after(one.session.started_at, MINUTE)
        return known.sure_until or max(first - MINUTE, known.last_minute - LOOK_BACK)

    # --- measure ----------------------------------------------------------------------------------

    def _collect(self, lanes: Lanes, watched: Mapping[str, _Watched], open_tasks: set[str]) -> None:
        """See every session through its look and its step; what is not there in time is a gap."""
        ready: list[_Watched] = []
        while open_tasks:
            done = lanes.done(max(0.0, self._ends_s - self._clock.monotonic()))
            if done is None:
                break
            stage, session_id = done.name.split(" ", 1)
            one = watched.get(session_id)
            if one is None or session_id not in open_tasks:
                open_tasks.discard(session_id)
                continue
            if stage == "look":
                lanes.put(f"step {session_id}", partial(self._step, one))
                continue
            open_tasks.discard(session_id)
            if done.error is not None:
                self._say_failed(one, done)
            ready.append(one)
            if len(ready) >= FLUSH_SESSIONS:
                self._flush(ready)
                ready = []
        for session_id in open_tasks:
            one = watched[session_id]
            detail = f"the account did not answer in the {self._wiring.pass_max_s:g} s of a pass"
            one.batch = self._gap_batch(one.session, GapCause.EXCHANGE_UNREACHABLE, detail)
            ready.append(one)
        self._flush(ready)

    def _step(self, one: _Watched) -> None:
        """Measure one session by the production code of the per-session finwatcher."""
        session = one.session
        look = one.look or Look(None)
        batch = Batch(session)
        waiting = self._waiting.get(session.session_id, frozenset())
        if look.snapshot is not None:
            mark = mark_of(look.snapshot)
            one.quiet = (
                not session.is_over
                and one.notes is not None
                and one.notes.is_quiet(mark, self._minute)
            )
        one.clock.begin()
        account = LookedAccount(look, one.account, quiet=one.quiet)
        one.watcher = Finwatcher(
            FinwatcherWiring(
                session_id=session.session_id,
                clock=MinuteClock(self._clock, self._minute),
                exchange=cast(Exchange, account),
                sessions=PreparedSession(
                    session, self._unprotected.get(session.session_id), self._wiring.registry
                ),
                results=PreparedResults(
                    batch,
                    one.progress,
                    partial(self._history, one),
                    self._wiring.results,
                    waiting,
                    self._true_cause,
                ),
                alerts=batch,
                folder=self._wiring.folder / "none",
                days_per_year=self._wiring.days_per_year,
            ),
            self._writer,
        )
        one.watcher.step()
        batch.gaps.extend(self._old_holes(one, waiting))
        if look.snapshot is None and one.progress is None and not self._is_past_end(session):
            error = look.error or Unavailable("the account was not looked at")
            batch.gaps.append(
                self._gap(session, self._minute, GapCause.EXCHANGE_UNREACHABLE, why(error))
            )
        one.batch = batch

    def _history(self, one: _Watched) -> StoredHistory:
        if one.notes is not None and one.notes.history is not None:
            return one.notes.history
        if one.progress is not None and one.progress.last_minute is None:
            return NO_HISTORY  # its first minute: the exchange tells everything since the start
        return self._wiring.results.history(one.session, OVERLAP)

    def _old_holes(self, one: _Watched, waiting: frozenset[datetime]) -> list[GapRow]:
        """Minutes without anything from before those that a new watcher looks back at."""
        known = one.progress
        if known is None or known.sure_until is None or known.last_minute is None:
            return []
        holes = []
        minute = known.sure_until + MINUTE
        while minute <= known.last_minute - LOOK_BACK:
            if minute not in known.kept and minute not in waiting:
                detail = "it may have been measured, and is not in the database"
                holes.append(self._gap(one.session, minute, GapCause.STORE_LOST, detail))
            minute += MINUTE
        return holes

    def _true_cause(self, gap: GapRow) -> GapRow:
        """A minute that nothing is stored of may have been measured, or slept over by a slow pass;
        what the last passes remembered tells."""
        if gap.cause is not GapCause.NOT_RUNNING:
            return gap
        if gap.session_id in self._known.measured.get(gap.minute, ()):
            return with_detail(
                gap, GapCause.STORE_LOST, "it was stored, and is not in the database any more"
            )
        began, ended = self._known.minute, self._known.ended_at
        if began is not None and ended is not None and began < gap.minute <= ended:
            return with_detail(
                gap, GapCause.OVERRUN, f"the pass of {began:%H:%M} ended at {ended:%H:%M:%S}"
            )
        return gap

    def _gap(
        self, session: WatchedSession, minute: datetime, cause: GapCause, detail: str
    ) -> GapRow:
        return GapRow(
            session.session_id, session.owner_id, minute, cause, detail, self._clock.now()
        )

    def _gap_batch(self, session: WatchedSession, cause: GapCause, detail: str) -> Batch:
        return Batch(session, gaps=[self._gap(session, self._minute, cause, detail)])

    def _say_failed(self, one: _Watched, done: Done) -> None:
        self._report.failed += 1
        error = done.error or Unavailable("no step")
        _log.error("not measured", session_id=one.session.session_id, error=why(error))
        one.batch = self._gap_batch(one.session, GapCause.PART_FAILED, why(error))

    # --- store ------------------------------------------------------------------------------------

    def _flush(self, ready: Sequence[_Watched]) -> None:
        """Store what these sessions' steps gathered, or keep all of it in the folder."""
        if not ready:
            return
        reach("fleet: measured")
        batches = [one.batch for one in ready if one.batch is not None]
        self._count(ready)
        if not self._away:
            try:
                self._store(ready)
            except Unavailable as error:
                self._away = True
                _log.warning("rows are kept in the fleet's folder", error=error.message)
        if self._away:
            records = [record for batch in batches for record in _records(batch)]
            if self._folder.keep(self._minute, self._writer, records):
                self._report.spooled += len(batches)
            else:
                self._report.lost += len(batches)
        self._tell(alert for batch in batches for alert in batch.alerts)

    def _store(self, ready: Sequence[_Watched]) -> None:
        """History, then gaps, then minutes with their states: a state that is stored counts no
        history that is not, and behind a minute that is stored nothing is left untold."""
        self._store_histories(ready)
        reach("fleet: history stored")
        self._wiring.store.store_gaps(
            [(one.session, gap) for one in ready if one.batch for gap in one.batch.gaps]
        )
        reach("fleet: gaps stored")
        minutes = [
            (one, one.batch.minute)
            for one in ready
            if one.batch is not None and one.batch.minute is not None
        ]
        if minutes:
            batch = [(rows, self._state(one)) for one, rows in minutes]
            unkept = []
            stored = self._wiring.results.store_minutes(batch)
            for (one, rows), outcome in zip(minutes, stored, strict=True):
                for part, error in outcome.failed.items():
                    self._report.failed += 1
                    _log.error("part refused", session_id=rows.session_id, part=part, error=error)
                if "portfolio" in outcome.failed:
                    error = outcome.failed["portfolio"]
                    gap = self._gap(one.session, self._minute, GapCause.PART_FAILED, error)
                    unkept.append((one.session, gap))
            self._wiring.store.store_gaps(unkept)
        reach("fleet: minutes stored")

    def _store_histories(self, ready: Sequence[_Watched]) -> None:
        """Store what happened; a session of which the database refused it counts it again."""
        histories = [(one, rows) for one in ready if one.batch for rows in one.batch.histories]
        if not histories:
            return
        added = self._wiring.results.store_histories([rows for _, rows in histories])
        for (one, rows), addition in zip(histories, added, strict=True):
            if addition.refused is not None:
                self._report.failed += 1
                _log.error("history refused", session_id=rows.session_id, error=addition.refused)
                one.history_refused = True

    def _state(self, one: _Watched) -> Mapping[str, object] | None:
        """The indicators' sums, with what the next pass need not ask for."""
        batch = one.batch
        if batch is None or batch.state is None:
            return None
        state = dict(batch.state)
        sure = self._sure_until(one)
        if sure is not None:
            state[SURE_UNTIL] = sure.isoformat()
        notes = self._next_notes(one)
        if notes is not None:
            state[fleet_notes.MEMBER] = fleet_notes.to_document(notes)
        return state

    def _sure_until(self, one: _Watched) -> datetime | None:
        """Up to where every minute was seen to be there, and too old to be forgotten."""
        known = one.progress
        if known is None:
            return None
        sure = self._looked_until(one)
        if sure is None:
            return boundary_at_or_after(one.session.started_at, MINUTE) - MINUTE
        while sure + MINUTE in known.kept and sure + MINUTE <= self._minute - LOOK_BACK:
            sure += MINUTE
        return sure

    def _next_notes(self, one: _Watched) -> Notes | None:
        """What this pass leaves to the next; nothing when history could not be asked for."""
        if one.look is None or one.look.snapshot is None or one.watcher is None:
            return None
        if one.history_refused:
            return None
        rows = None if one.batch is None else one.batch.minute
        if rows is None or rows.portfolio is None or "history-stale" in rows.portfolio.flags:
            return None
        mark = mark_of(one.look.snapshot)
        before = one.notes
        same = before is not None and before.mark == mark
        ledger = one.watcher.ledger
        return Notes(
            history=None if ledger is None else ledger.stored(),
            mark=mark,
            changed_at=before.changed_at if before is not None and same else self._minute,
            asked_at=before.asked_at if before is not None and one.quiet else self._minute,
        )

    def _count(self, ready: Sequence[_Watched]) -> None:
        for one in ready:
            batch = one.batch
            if batch is None:
                continue
            self._report.gaps += len(batch.gaps)
            rows = batch.minute
            if rows is not None and rows.portfolio is not None:
                self._report.measured += 1
                self._report.rows += 1 + len(rows.symbols or ()) + (rows.indicators is not None)
                self._report.history_asked += not one.quiet

    # --- the folder -------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Store what waits, oldest first, while there is time."""
        if self._away or not self._folder.waiting():
            return
        try:
            files = self._folder.drain(
                self._store_records, lambda: self._clock.monotonic() > self._ends_s
            )
        except Unavailable as error:
            _log.warning("rows stay in the fleet's folder", error=error.message)
        else:
            _log.info("spooled passes filled in", files=files)

    def _store_records(self, records: Sequence[SpoolRecord]) -> None:
        """Store the records of one earlier pass with their own times."""
        histories = [record for record in records if isinstance(record, HistoryRows)]
        minutes = [record for record in records if isinstance(record, MinuteRows)]
        gaps = [record for record in records if isinstance(record, GapRow)]
        if histories:
            self._wiring.results.store_histories(histories)
        if minutes:
            self._wiring.results.store_minutes([(rows, None) for rows in minutes])
        known = self._sessions
        self._wiring.store.store_gaps(
            [(known[gap.session_id], gap) for gap in gaps if gap.session_id in known]
        )

    def _remember(
        self, sessions: Sequence[WatchedSession], watched: Mapping[str, _Watched]
    ) -> None:
        """Leave to the next pass what it needs without Postgres, and who was measured."""
        before = self._known
        notes = dict(before.notes)
        for session_id, one in watched.items():
            made = self._next_notes(one)
            if made is not None:
                notes[session_id] = fleet_notes.to_document(made)
        living = {item.session_id for item in sessions if not self._is_past_end(item)}
        complete = {item.session_id for item in sessions} & before.complete
        complete |= {
            session_id
            for session_id, one in watched.items()
            if one.watcher is not None and one.watcher.has_all_history
        }
        measured = {
            minute: ids
            for minute, ids in before.measured.items()
            if timedelta(0) <= self._minute - minute <= REMEMBERED_MINUTES * MINUTE
        }
        measured[self._minute] = frozenset(
            session_id
            for session_id, one in watched.items()
            if one.batch is not None
            and one.batch.minute is not None
            and one.batch.minute.portfolio is not None
        ) | measured.get(self._minute, frozenset())
        now = self._clock.now()
        told = {cause: at for cause, at in self._known.told.items() if now - at < ALERT_AGAIN_AFTER}
        self._folder.remember(
            Remembered(
                sessions=tuple(item for item in sessions if item.session_id in living),
                notes={name: item for name, item in notes.items() if name in living},
                measured=measured,
                told=told,
                complete=frozenset(complete),
                minute=self._minute,
                ended_at=now,
            )
        )

    def _tell(self, alerts: Iterable[Alert]) -> None:
        """Alert what has not just been told; at most so many in a pass, the rest is in the log."""
        now = self._clock.now()
        for alert in alerts:
            last = self._known.told.get(alert.cause)
            if last is not None and timedelta(0) <= now - last < ALERT_AGAIN_AFTER:
                continue
            self._known.told[alert.cause] = now
            fresh = sum(at == now for at in self._known.told.values())
            if fresh > ALERTS_MAX:
                _log.warning("alert not sent, too many at once", cause=alert.cause)
                continue
            self._wiring.alerts.notify(alert)


def _records(batch: Batch) -> list[SpoolRecord]:
    minute = [] if batch.minute is None else [batch.minute]
    return [*batch.histories, *minute, *batch.gaps]
