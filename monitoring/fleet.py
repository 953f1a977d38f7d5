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
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import cast
from zlib import crc32

from module.files.watch_note import read_note
from module.logs import get_logger
from module.model.errors import Unavailable
from module.model.money import ZERO
from module.model.results import (
    NO_TRADES,
    GapCause,
    GapRow,
    StoredHistory,
    StoredProgress,
    WatchedSession,
)
from module.model.sessions import boundary_at_or_after, boundary_at_or_before
from module.points import reach
from module.ports import Exchange
from monitoring import fleet_notes
from monitoring.fleet_folder import FleetFolder
from monitoring.fleet_notes import mark_of
from monitoring.fleet_ports import (
    Batch,
    ImpatientClock,
    Look,
    LookedAccount,
    MinuteClock,
    PreparedResults,
    PreparedSession,
    why,
    with_detail,
)
from monitoring.fleet_storing import (
    FleetStoring,
    FleetWiring,
    PassReport,
    Watched,
    gap_of,
    is_past_end,
    looked_until,
)
from monitoring.gaps import FORGOTTEN
from monitoring.lanes import Done, Lanes
from monitoring.ledger import OVERLAP
from monitoring.minute import (
    MINUTE,
    WAIT_FOR_THE_STORE_MAX,
    Finwatcher,
    FinwatcherWiring,
)
from monitoring.unsettled import LOOK_BACK

ENDED_MAX = timedelta(days=7)
"""A session that ended longer ago gets no gaps any more."""
FLUSH_SESSIONS = 250
NO_HISTORY = StoredHistory({}, ZERO, NO_TRADES, None, None, None, frozenset())
_log = get_logger("monitoring.fleet")


class Fleet:
    """One pass: made, stepped once, thrown away. `writer` owns the minutes that it writes."""

    def __init__(self, wiring: FleetWiring, writer: str | None = None) -> None:
        self._wiring = wiring
        self._clock = wiring.clock
        self._writer = writer or f"{os.getpid()}-{os.urandom(6).hex()}"
        self._waiting: dict[str, frozenset[datetime]] = {}
        self._unprotected: Mapping[str, float] = {}
        self._own_stored: dict[str, frozenset[datetime]] = {}
        self._ends_s = 0.0
        self._minute = boundary_at_or_before(self._clock.now(), MINUTE)
        self._report = PassReport(self._minute)
        self._folder = FleetFolder(wiring.folder)
        self._storing = FleetStoring(wiring, self._folder, self._report, self._writer)

    def step(self) -> PassReport:
        """Measure the minute that is now for every session; record what earlier ones lack.

        Ends at once when there is no session and nothing waits to be stored.
        """
        self._ends_s = self._clock.monotonic() + self._wiring.pass_max_s
        with self._folder.alone() as alone:
            self._storing.known = self._folder.recall()
            sessions = self._read_sessions()
            for session in (*self._storing.known.sessions, *sessions):
                self._storing.sessions[session.session_id] = session
            self._waiting = self._folder.waiting()
            watched = self._choose(sessions)
            if watched:
                self._measure_all(watched)
            self._report.sessions = len(watched)
            if alone:
                self._storing.drain(self._ends_s)
                self._storing.take_over(sessions)
                if sessions or self._storing.known.sessions:
                    self._storing.remember(sessions, watched)
                self._storing.leave_note(watched.values())
        return self._report

    # --- gather -----------------------------------------------------------------------------------

    def _read_sessions(self) -> Sequence[WatchedSession]:
        """All sessions that may need something; those remembered while Postgres is away."""
        try:
            return self._wiring.store.sessions(self._clock.now() - ENDED_MAX)
        except Unavailable as error:
            self._storing.away = True
            _log.warning(
                "sessions as the last pass knew them",
                count=len(self._storing.known.sessions),
                error=error.message,
            )
            return self._storing.known.sessions

    def _choose(self, sessions: Iterable[WatchedSession]) -> dict[str, Watched]:
        """Those whose minutes have begun."""
        chosen = {}
        for session in sessions:
            if boundary_at_or_after(session.started_at, MINUTE) <= self._minute:
                clock = ImpatientClock(self._clock, self._minute, self._wiring.patience_s)
                chosen[session.session_id] = Watched(session, clock)
        return chosen

    def _measure_all(self, watched: dict[str, Watched]) -> None:
        """Looks first, all of them, so that each row is near second 0; then the steps."""
        lanes = self._wiring.lanes()
        try:
            looked = [
                one
                for one in watched.values()
                if not is_past_end(one.session, self._minute) or self._lacks_history(one.session)
            ]
            for one in looked:
                lanes.put(f"look {one.session.session_id}", partial(self._look, one))
            self._read_progress(watched)
            open_tasks = {one.session.session_id for one in looked}
            for session_id, one in list(watched.items()):
                if self._is_complete(one):
                    known = one.progress
                    if known is not None and self._minute in known.kept - known.unexplained:
                        self._storing.kept_already.add(session_id)
                    del watched[session_id]
                elif session_id not in open_tasks:
                    one.look = Look(None, Unavailable("the session is over"))
                    open_tasks.add(session_id)
                    lanes.put(f"step {session_id}", partial(self._step, one))
            self._collect(lanes, watched, open_tasks)
        finally:
            lanes.close()

    def _look(self, one: Watched) -> None:
        one.clock.begin()
        try:
            one.account = self._wiring.open_account(one.session, one.clock)
            one.look = Look(one.account.snapshot())
        except Exception as error:  # noqa: BLE001 (one account's failure is its gap, not the end)
            one.look = Look(None, error)

    def _read_progress(self, watched: Mapping[str, Watched]) -> None:
        """Where each session's rows stand: one read for all."""
        sessions = [one.session for one in watched.values()]
        found: Mapping[str, StoredProgress] = {}
        try:
            found = self._wiring.store.progress(sessions, LOOK_BACK)
        except Unavailable as error:
            self._storing.away = True
            _log.warning("stored rows cannot be asked for", error=error.message)
        try:
            self._unprotected = self._wiring.store.unprotected_s(sessions, self._clock.now())
        except Unavailable as error:
            _log.warning("unprotected periods cannot be asked for", error=error.message)
        for session_id, one in watched.items():
            one.progress = found.get(session_id)
            state = None if one.progress is None else one.progress.state
            document = (
                self._storing.known.notes.get(session_id)
                if one.progress is None
                else (state or {}).get(fleet_notes.MEMBER)
            )
            one.notes = fleet_notes.from_document(document)
        reach("fleet: read")

    def _lacks_history(self, session: WatchedSession) -> bool:
        """It ended lately, and history has not been asked for since; asked for an hour long."""
        if session.ended_at is None or session.session_id in self._storing.known.complete:
            return False
        end = boundary_at_or_after(session.ended_at, MINUTE)
        return self._minute - end <= WAIT_FOR_THE_STORE_MAX

    def _is_complete(self, one: Watched) -> bool:
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
        if self._better_known(one):
            return False
        minute = looked_until(one)
        waiting = self._waiting.get(session.session_id, frozenset())
        while minute is not None and minute < end:
            minute += MINUTE
            if minute not in known.kept and minute not in waiting:
                return False
        return True

    # --- measure ----------------------------------------------------------------------------------

    def _collect(self, lanes: Lanes, watched: Mapping[str, Watched], open_tasks: set[str]) -> None:
        """See every session through its look and its step; what is not there in time is a gap."""
        ready: list[Watched] = []
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
                self._storing.flush(ready)
                ready = []
        for session_id in open_tasks:
            one = watched[session_id]
            detail = f"the account did not answer in the {self._wiring.pass_max_s:g} s of a pass"
            one.batch = self._gap_batch(one.session, GapCause.EXCHANGE_UNREACHABLE, detail)
            ready.append(one)
        self._storing.flush(ready)

    def _step(self, one: Watched) -> None:
        """Measure one session by the production code of the per-session finwatcher."""
        session = one.session
        look = one.look or Look(None)
        batch = Batch(session)
        waiting = self._waiting.get(session.session_id, frozenset())
        deep = (
            not waiting
            and one.progress is not None
            and (session.is_over or _is_deep_minute(session, self._minute))
        )
        if look.snapshot is not None:
            mark = mark_of(look.snapshot)
            one.quiet = (
                not session.is_over
                and not deep
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
                deep_look=deep,
            ),
            self._writer,
        )
        one.failed.update(one.watcher.step().failed)
        batch.gaps.extend(self._old_holes(one, waiting))
        batch.gaps.extend(self._better_known(one))
        one.batch = batch

    def _history(self, one: Watched, overlap: timedelta) -> StoredHistory:
        if overlap == OVERLAP and one.notes is not None and one.notes.history is not None:
            return one.notes.history
        if one.progress is not None and one.progress.last_minute is None:
            return NO_HISTORY  # its first minute: the exchange tells everything since the start
        return self._wiring.results.history(one.session, overlap)

    def _old_holes(self, one: Watched, waiting: frozenset[datetime]) -> list[GapRow]:
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

    def _better_known(self, one: Watched) -> list[GapRow]:
        """Minutes that were measured, were lost with a fail-over, and then were recorded as those
        of nobody by a session's own watcher, which was born too late to know better."""
        if one.progress is None:
            return []
        session_id = one.session.session_id
        minutes = one.progress.unexplained - self._waiting.get(session_id, frozenset())
        return [
            self._gap(one.session, minute, GapCause.STORE_LOST, FORGOTTEN)
            for minute in sorted(minutes)
            if session_id in self._storing.known.measured.get(minute, ())
        ]

    def _true_cause(self, gap: GapRow) -> GapRow:
        """A minute that nothing is stored of may have been measured, or slept over by a slow pass;
        what the last passes remembered tells."""
        if gap.cause is not GapCause.NOT_RUNNING:
            return gap
        if gap.session_id in self._storing.known.measured.get(
            gap.minute, ()
        ) or gap.minute in self._stored_by_its_own(gap.session_id):
            return with_detail(gap, GapCause.STORE_LOST, FORGOTTEN)
        began, ended = self._storing.known.minute, self._storing.known.ended_at
        if began is not None and ended is not None and began < gap.minute <= ended:
            return with_detail(
                gap, GapCause.OVERRUN, f"the pass of {began:%H:%M} ended at {ended:%H:%M:%S}"
            )
        return gap

    def _stored_by_its_own(self, session_id: str) -> frozenset[datetime]:
        """The newest minutes that the session's own watcher had stored, where it has one here."""
        known = self._own_stored.get(session_id)
        if known is None:
            folder_of = self._wiring.session_folder
            note = None if folder_of is None else read_note(folder_of(session_id))
            known = self._own_stored[session_id] = frozenset() if note is None else note.stored
        return known

    def _gap(
        self, session: WatchedSession, minute: datetime, cause: GapCause, detail: str
    ) -> GapRow:
        return gap_of(session, minute, cause, detail, self._clock.now())

    def _gap_batch(self, session: WatchedSession, cause: GapCause, detail: str) -> Batch:
        return Batch(session, gaps=[self._gap(session, self._minute, cause, detail)])

    def _say_failed(self, one: Watched, done: Done) -> None:
        self._report.failed += 1
        one.failed.add("step")
        error = done.error or Unavailable("no step")
        _log.error("not measured", session_id=one.session.session_id, error=why(error))
        one.batch = self._gap_batch(one.session, GapCause.PART_FAILED, why(error))


def _is_deep_minute(session: WatchedSession, minute: datetime) -> bool:
    """Once an hour, the sessions spread over it."""
    return crc32(session.session_id.encode()) % 60 == minute.minute
