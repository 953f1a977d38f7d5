"""What finwatchers say of themselves, as metrics: minutes that wait for Postgres, parts that fail.

    <data>/sessions/<id>/finwatcher.note ─┐
    <the passes' folder>/finwatcher.note ─┴─► WatchNotes ─► families of `/metrics`

A finwatcher has no port, and while Postgres is away it can tell nobody but its own folder. Notes of
folders that are not on this machine's disks (a CronJob's volume) are not told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from api.telemetry.samples import gauge
from module.files.session_folder import session_folder
from module.files.watch_note import WatchNote, read_note
from module.model.market import MarketType
from module.model.sessions import SESSION_ID_PATTERN
from monitoring.spool import Spool
from monitoring.stacks import Stacks

NOTES_MAX: Final = 5_000
"""So many sessions' notes are read at most, the newest ones first."""
FRESH: Final = timedelta(minutes=3)
"""An older note's failed parts are history."""
OTHER: Final = "other"


def part_names() -> tuple[str, ...]:
    """The Stack classes, of futures and of spot."""
    kinds = [Stacks.of(market) for market in (MarketType.FUTURES, MarketType.SPOT)]
    return tuple(
        part.name
        for stacks in kinds
        for part in (
            stacks.result,
            stacks.portfolio,
            stacks.indicators,
            stacks.transactions,
            stacks.positions,
        )
    )


class WatchNotes:
    """The notes of one data folder; `passes`: where the passes over all sessions leave theirs."""

    def __init__(self, data_dir: Path, passes: Path) -> None:
        self._data_dir = data_dir
        self._passes = passes
        self._parts = part_names()

    def families(self, watched: Sequence[str], now: datetime) -> Iterator[object]:
        """Of the sessions `watched` (empty: not known, then of the newest that have a folder), at
        world time `now`."""
        waiting, oldest = 0, now
        failed = dict.fromkeys((*self._parts, OTHER), 0)
        for note in self._notes(watched):
            waiting += note.waiting
            oldest = min(oldest, note.waiting_since or now)
            if now - note.minute < FRESH:
                for part, sessions in note.failed.items():
                    failed[part if part in failed else OTHER] += sessions
        yield gauge(
            "aifap_finwatcher_waiting_records",
            "Minutes of sessions (rows or gaps) that wait for Postgres in local files.",
            waiting,
        )
        yield gauge(
            "aifap_finwatcher_waiting_oldest_seconds",
            "World time since the oldest of them.",
            (now - oldest).total_seconds(),
        )
        yield gauge(
            "aifap_finwatcher_failed_parts",
            "Sessions of which this part of the finwatcher failed in its last minute.",
            {(part,): count for part, count in failed.items()},
            ("part",),
        )

    def _notes(self, watched: Sequence[str]) -> Iterator[WatchNote]:
        note = read_note(self._passes)
        if note is not None:
            yield note
        for session_id in sorted(watched or self._newest(), reverse=True)[:NOTES_MAX]:
            folder = session_folder(self._data_dir, session_id)
            note = read_note(folder)
            if note is None:
                continue
            if note.waiting and not Spool(folder):  # another has stored what a dead one left
                note = WatchNote(note.minute, failed=note.failed)
            yield note

    def _newest(self) -> list[str]:
        """A session's folder is named by when it began."""
        try:
            names = [folder.name for folder in (self._data_dir / "sessions").iterdir()]
        except FileNotFoundError:
            return []
        return [name for name in names if SESSION_ID_PATTERN.match(name)]
