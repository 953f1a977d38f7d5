"""What a pass gathered is stored, or kept in the fleet's folder; what the next one needs is left.

    monitoring.fleet ─ Watched, with its Batch ─► FleetStoring ─► Postgres, or the fleet's folder

History first, then gaps, then minutes with their states, for many sessions in one transaction each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from module.files.watch_note import WatchNote, leave_note
from module.logs import get_logger
from module.model.errors import AifapError, Unavailable
from module.model.results import (
    GapCause,
    GapRow,
    HistoryRows,
    MinuteRows,
    StoredProgress,
    WatchedSession,
)
from module.model.sessions import boundary_at_or_after
from module.points import reach
from module.ports import Alert, AlertSink, Clock
from monitoring import fleet_notes
from monitoring.fleet_folder import FleetFolder, Remembered
from monitoring.fleet_notes import Notes, mark_of
from monitoring.fleet_ports import AccountReads, Batch, FleetStore, ImpatientClock, Look
from monitoring.indicators import DAYS_PER_YEAR
from monitoring.keeping import part_name
from monitoring.lanes import Lanes
from monitoring.minute import MINUTE, WAIT_FOR_THE_STORE_MAX, Finwatcher
from monitoring.ports import ResultsStore, SessionRegistry
from monitoring.spool import Spool, SpoolRecord
from monitoring.troubles import ALERT_AGAIN_AFTER
from monitoring.unsettled import LOOK_BACK

PATIENCE_S = 12.0
PASS_MAX_S = 45.0
REMEMBERED_MINUTES = 15
ALERTS_MAX = 50
SURE_UNTIL = "sure_until"
_log = get_logger("monitoring.fleet")


@dataclass(frozen=True, slots=True)
class FleetWiring:
    """What a pass needs of the world. `open_account` makes the exchange of a session's account,
    with a clock that gives up in time; `folder` is kept between passes. `session_folder` tells
    where a session's own finwatcher spools (it need not exist); None: not on this machine."""

    clock: Clock
    store: FleetStore
    results: ResultsStore
    registry: SessionRegistry
    open_account: Callable[[WatchedSession, Clock], AccountReads]
    alerts: AlertSink
    folder: Path
    lanes: Callable[[], Lanes]
    session_folder: Callable[[str], Path] | None = None
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
class Watched:
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
    failed: set[str] = field(default_factory=set)
    """Parts of this minute that failed, by name."""
    notes_left: dict[str, object] | None = None
    """What this pass leaves to the next one, once it is spelled."""


class FleetStoring:
    """The storing half of one pass. `away`: Postgres was found away, rows go to the folder;
    `known`: what the last pass remembered; `sessions`: all that the pass has heard of;
    `kept_already`: those of which another had stored this minute before."""

    def __init__(
        self, wiring: FleetWiring, folder: FleetFolder, report: PassReport, writer: str
    ) -> None:
        self._wiring = wiring
        self._clock = wiring.clock
        self.folder = folder
        self._report = report
        self._minute = report.minute
        self._writer = writer
        self.known = Remembered()
        self.sessions: dict[str, WatchedSession] = {}
        self.kept_already: set[str] = set()
        self.away = False

    def flush(self, ready: Sequence[Watched]) -> None:
        """Store what these sessions' steps gathered, or keep all of it in the folder."""
        if not ready:
            return
        reach("fleet: measured")
        batches = [one.batch for one in ready if one.batch is not None]
        self._count(ready)
        if not self.away:
            try:
                self._store(ready)
            except Unavailable as error:
                self.away = True
                _log.warning("rows are kept in the fleet's folder", error=error.message)
        if self.away:
            records = [record for batch in batches for record in _records(batch)]
            if self.folder.keep(self._minute, self._writer, records):
                self._report.spooled += len(batches)
            else:
                self._report.lost += len(batches)
                for one in ready:  # what it counted is nowhere: it has to be asked for again
                    one.history_refused = True
        self._tell(alert for batch in batches for alert in batch.alerts)

    def _store(self, ready: Sequence[Watched]) -> None:
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
        filled = [entry for one in ready if one.batch for entry in one.batch.filled]
        if filled:  # before the states that go on from them
            self._wiring.results.store_minutes(filled)
        if minutes:
            batch = [(rows, self._state(one)) for one, rows in minutes]
            unkept = []
            stored = self._wiring.results.store_minutes(batch)
            for (one, rows), outcome in zip(minutes, stored, strict=True):
                for part, error in outcome.failed.items():
                    self._report.failed += 1
                    one.failed.add(part_name(rows.market, part))
                    _log.error("part refused", session_id=rows.session_id, part=part, error=error)
                if "portfolio" in outcome.failed:
                    error = outcome.failed["portfolio"]
                    gap = gap_of(
                        one.session, self._minute, GapCause.PART_FAILED, error, self._clock.now()
                    )
                    unkept.append((one.session, gap))
            self._wiring.store.store_gaps(unkept)
        reach("fleet: minutes stored")

    def _store_histories(self, ready: Sequence[Watched]) -> None:
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

    def _state(self, one: Watched) -> Mapping[str, object] | None:
        """The indicators' sums, with what the next pass need not ask for."""
        batch = one.batch
        if batch is None or batch.state is None:
            return None
        state = dict(batch.state)
        sure = self._sure_until(one)
        if sure is not None:
            state[SURE_UNTIL] = sure.isoformat()
        notes = self._notes_left(one)
        if notes is not None:
            state[fleet_notes.MEMBER] = notes
        return state

    def _notes_left(self, one: Watched) -> dict[str, object] | None:
        """What this pass leaves to the next, spelled once; none of a history that was refused."""
        if one.history_refused:
            return None
        if one.notes_left is None:
            notes = self._next_notes(one)
            one.notes_left = None if notes is None else fleet_notes.to_document(notes)
        return one.notes_left

    def _sure_until(self, one: Watched) -> datetime | None:
        """Up to where every minute was seen to be there, and too old to be forgotten."""
        known = one.progress
        if known is None:
            return None
        sure = looked_until(one)
        if sure is None:
            return boundary_at_or_after(one.session.started_at, MINUTE) - MINUTE
        while sure + MINUTE in known.kept and sure + MINUTE <= self._minute - LOOK_BACK:
            sure += MINUTE
        return sure

    def _next_notes(self, one: Watched) -> Notes | None:
        """What this pass leaves to the next; nothing when history could not be asked for."""
        if one.look is None or one.look.snapshot is None or one.watcher is None:
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

    def _count(self, ready: Sequence[Watched]) -> None:
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

    def take_over(self, sessions: Iterable[WatchedSession]) -> None:
        """Store what the own finwatchers of sessions that are long over left in their spools.

        So long after a session's end its own finwatcher has ended by its own rule; if it was
        killed before, nobody else comes for what it measured while Postgres was away.
        """
        folder_of = self._wiring.session_folder
        if self.away or folder_of is None:
            return
        for session in sessions:
            if session.ended_at is None or not is_past_end(
                session, self._minute - WAIT_FOR_THE_STORE_MAX
            ):
                continue
            spool = Spool(folder_of(session.session_id))
            if not spool:
                continue
            try:
                records = spool.drain(lambda record: self._store_records([record]))
            except Unavailable as error:
                _log.warning("rows stay in the session's spool", error=error.message)
                return
            except (AifapError, OSError) as error:  # the others' must not wait behind it
                self._report.failed += 1
                _log.error("spool not taken over", session_id=session.session_id, error=str(error))
            else:
                _log.info("spool taken over", session_id=session.session_id, records=records)

    def drain(self, until_s: float) -> None:
        """Store what waits, oldest first, until that monotonic second."""
        if self.away or not self.folder.waiting():
            return
        try:
            files = self.folder.drain(
                self._store_records, lambda: self._clock.monotonic() > until_s
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
        known = self.sessions
        self._wiring.store.store_gaps(
            [(known[gap.session_id], gap) for gap in gaps if gap.session_id in known]
        )

    def _tells_this_minute(self, one: Watched) -> bool:
        """Whether the pass has handed over this minute's row, or its gap."""
        if one.batch is None:
            return False
        row = one.batch.minute
        if row is not None and row.portfolio is not None:
            return True
        return any(gap.minute == self._minute for gap in one.batch.gaps)

    def remember(self, sessions: Sequence[WatchedSession], watched: Mapping[str, Watched]) -> None:
        """Leave to the next pass what it needs without Postgres, and who was measured."""
        before = self.known
        notes = dict(before.notes)
        for session_id, one in watched.items():
            made = self._notes_left(one)
            if made is not None:
                notes[session_id] = made
        living = {item.session_id for item in sessions if not is_past_end(item, self._minute)}
        complete = {item.session_id for item in sessions} & before.complete
        complete |= {
            session_id
            for session_id, one in watched.items()
            if one.watcher is not None and one.watcher.has_all_history and not one.history_refused
        }
        measured = {
            minute: ids
            for minute, ids in before.measured.items()
            if timedelta(0) <= self._minute - minute <= REMEMBERED_MINUTES * MINUTE
        }
        measured[self._minute] = (
            frozenset(
                session_id for session_id, one in watched.items() if self._tells_this_minute(one)
            )
            | self.kept_already
            | measured.get(self._minute, frozenset())
        )
        now = self._clock.now()
        told = {cause: at for cause, at in self.known.told.items() if now - at < ALERT_AGAIN_AFTER}
        self.folder.remember(
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

    def leave_note(self, watched: Iterable[Watched]) -> None:
        """Say in the folder what waits there and which parts failed."""
        waiting = [minute for known in self.folder.waiting().values() for minute in known]
        failed = Counter(part for one in watched for part in one.failed)
        since = min(waiting, default=None)
        note = WatchNote(self._minute, failed=failed, waiting=len(waiting), waiting_since=since)
        leave_note(self._wiring.folder, note)

    def _tell(self, alerts: Iterable[Alert]) -> None:
        """Alert what has not just been told; at most so many in a pass, the rest is in the log."""
        now = self._clock.now()
        for alert in alerts:
            last = self.known.told.get(alert.cause)
            if last is not None and timedelta(0) <= now - last < ALERT_AGAIN_AFTER:
                continue
            self.known.told[alert.cause] = now
            fresh = sum(at == now for at in self.known.told.values())
            if fresh > ALERTS_MAX:
                _log.warning("alert not sent, too many at once", cause=alert.cause)
                continue
            self._wiring.alerts.notify(alert)


def _records(batch: Batch) -> list[SpoolRecord]:
    minute = [] if batch.minute is None else [batch.minute]
    return [*batch.histories, *minute, *batch.gaps]


def gap_of(
    session: WatchedSession, minute: datetime, cause: GapCause, detail: str, now: datetime
) -> GapRow:
    """A minute of this session that has no row."""
    return GapRow(session.session_id, session.owner_id, minute, cause, detail, now)


def is_past_end(session: WatchedSession, minute: datetime) -> bool:
    """Whether the session's last row belongs to an earlier minute."""
    return session.ended_at is not None and (
        boundary_at_or_after(session.ended_at, MINUTE) < minute
    )


def looked_until(one: Watched) -> datetime | None:
    """From where on the kept minutes were read; None before the first."""
    known = one.progress
    if known is None or known.last_minute is None:
        return None
    first = boundary_at_or_after(one.session.started_at, MINUTE)
    return known.sure_until or max(first - MINUTE, known.last_minute - LOOK_BACK)
