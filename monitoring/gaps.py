"""Minutes without a row, and why: what a finwatcher knows of them until they are recorded.

    monitoring.minute  ── because(minute, cause) ─► MissingMinutes ── due ─► gap rows
    monitoring.keeping ── stored(record) ────────►        └─ leave ─► the note for the next process

A process cannot know what was before it but by what others have left. A minute of which Postgres
knows nothing, though the process before it had stored it, was lost there; and why a minute was
missed that could not be recorded any more, stands in the note too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from module.files.watch_note import WatchNote, leave_note, read_note
from module.model.results import GapCause, GapRow, HistoryRows, MinuteRows, WatchedSession

MINUTE = timedelta(minutes=1)
GAPS_PER_STEP_MAX = 100_000
STORED_REMEMBERED = 15
FORGOTTEN = "it was stored, and is not in the database any more"
_NOBODY_LOOKED = (GapCause.NOT_RUNNING, GapCause.OVERRUN)


class MissingMinutes:
    """One session's minutes that are not recorded yet, with their causes as far as known; and the
    newest that are, which might be forgotten. `folder`: where the note lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        note = read_note(folder)
        self._stored = set() if note is None else set(note.stored)
        self._causes: dict[datetime, tuple[GapCause, str]] = {}
        if note is not None:
            self._causes = {minute: (cause, "") for minute, cause in note.missing.items()}

    def because(self, minute: datetime, cause: GapCause, detail: str) -> None:
        """Why this minute is missing."""
        self._causes[minute] = (cause, detail)

    def put_back(self, gaps: Sequence[GapRow]) -> None:
        """They were due and are recorded nowhere: they stay due, the newest of them."""
        for gap in gaps:
            self._causes.setdefault(gap.minute, (gap.cause, gap.detail))
        for minute in sorted(self._causes)[:-GAPS_PER_STEP_MAX]:
            del self._causes[minute]

    def lost(self, minutes: Sequence[datetime]) -> None:
        """Postgres has nothing of these, and has later ones."""
        detail = "it may have been measured, and is not in the database"
        for minute in minutes:
            self._causes.setdefault(minute, (GapCause.STORE_LOST, detail))

    def stored(self, record: MinuteRows | HistoryRows | GapRow) -> None:
        """It has just been committed. (A gap that says that nobody looked may be said again.)"""
        if isinstance(record, HistoryRows):
            return
        if isinstance(record, GapRow) and record.cause in _NOBODY_LOOKED:
            return
        self._stored.add(record.minute)
        if len(self._stored) > STORED_REMEMBERED:
            self._stored.remove(min(self._stored))

    def due(
        self,
        session: WatchedSession,
        span: tuple[datetime, datetime],
        born: datetime,
        now: datetime,
    ) -> list[GapRow]:
        """The gaps to record, oldest first: all that is known of, and the rest of `span` (from its
        first minute to before its second), which nobody has measured: before `born` there was no
        process, afterwards it came too late."""
        minute, until = span
        while minute < until and len(self._causes) < GAPS_PER_STEP_MAX:
            self._causes.setdefault(minute, self._ordinary(minute, born))
            minute += MINUTE
        due = sorted(minute for minute in self._causes if minute < until)
        return [
            GapRow(session.session_id, session.owner_id, minute, *self._causes.pop(minute), now)
            for minute in due
        ]

    def leave(
        self, minute: datetime, failed: Sequence[str], waiting: tuple[int, datetime | None]
    ) -> None:
        """Leave the note of this minute. `failed`: parts, each counts once; `waiting`: how many
        minutes lie in the spool, and since when."""
        leave_note(
            self._folder,
            WatchNote(
                minute=minute,
                stored=frozenset(self._stored),
                missing={minute: cause for minute, (cause, _) in self._causes.items()},
                failed=Counter(set(failed)),
                waiting=waiting[0],
                waiting_since=waiting[1],
            ),
        )

    def _ordinary(self, minute: datetime, born: datetime) -> tuple[GapCause, str]:
        if minute >= born:
            return GapCause.OVERRUN, ""
        if minute in self._stored:
            return GapCause.STORE_LOST, FORGOTTEN
        return GapCause.NOT_RUNNING, ""
