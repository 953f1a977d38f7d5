"""What a finwatcher says of itself, left in its folder after each minute: `finwatcher.note`.

    monitoring.minute, monitoring.fleet ── leave_note ─► <folder>/finwatcher.note
                                 the next process of the session, `/metrics` ◄── read_note

A hint, never the truth: it is not synced to the disk, and one that is not there, or cannot be read,
costs only what it would have told.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from module.logs import get_logger
from module.model.canonical import parse_instant
from module.model.errors import InvariantViolated
from module.model.results import GapCause

NOTE_NAME = "finwatcher.note"
BYTES_MAX = 64_000
SPANS_MAX = 500
"""The newest of them are left; an outage is one, however long."""
SPAN_MINUTES_MAX = 100_000
MINUTE = timedelta(minutes=1)
_log = get_logger("files.watch_note")


@dataclass(frozen=True, slots=True)
class WatchNote:
    """`minute`: the one that it was left after. `stored`: minutes that Postgres took lately, as a
    row or as a gap; `missing`: those whose cause could not be recorded yet. `failed`: in how many
    sessions each part failed in that minute. `waiting`: how many minutes wait for Postgres in the
    folder, and since when."""

    minute: datetime
    stored: frozenset[datetime] = frozenset()
    missing: Mapping[datetime, GapCause] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0
    waiting_since: datetime | None = None


def passes_folder(data_dir: Path, finwatcher_dir: Path | None) -> Path:
    """What passes over all sessions keep between them, and where their note lies: as it is set, or
    in the data folder."""
    return finwatcher_dir or data_dir / "finwatcher"


def leave_note(folder: Path, note: WatchNote) -> None:
    """Replace the folder's note; without the folder nothing is left. A disk that refuses is said
    in the log."""
    since = note.waiting_since
    document = {
        "minute": note.minute.isoformat(),
        "stored": sorted(minute.isoformat() for minute in note.stored),
        "missing": _spell_spans(note.missing),
        "failed": dict(note.failed),
        "waiting": note.waiting,
        "waiting_since": None if since is None else since.isoformat(),
    }
    temporary = folder / f".{NOTE_NAME}.new"  # a folder has one finwatcher
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "w") as file:
            json.dump(document, file)
        temporary.replace(folder / NOTE_NAME)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("the finwatcher's note is not left", error=str(error))
        with contextlib.suppress(OSError):  # it may be what the full disk has kept of it
            temporary.unlink()


def read_note(folder: Path) -> WatchNote | None:
    """The folder's note; None when there is none, or none that can be read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(folder / NOTE_NAME, flags), "rb") as file:
            content = file.read(BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("a finwatcher's note cannot be read", folder=str(folder), error=str(error))
        return None
    note = _parsed(content)
    if note is None:  # torn by a power cut: it was never synced
        _log.warning("a finwatcher's note is damaged", folder=str(folder), size=len(content))
    return note


def _parsed(content: bytes) -> WatchNote | None:
    try:
        document = json.loads(content)
        since = document["waiting_since"]
        return WatchNote(
            minute=parse_instant(document["minute"]),
            stored=frozenset(parse_instant(minute) for minute in document["stored"]),
            missing=_read_spans(document["missing"]),
            failed={str(part): int(count) for part, count in document["failed"].items()},
            waiting=int(document["waiting"]),
            waiting_since=None if since is None else parse_instant(since),
        )
    except (ValueError, KeyError, TypeError, AttributeError, InvariantViolated):
        return None


def _spell_spans(missing: Mapping[datetime, GapCause]) -> list[tuple[str, str, str]]:
    """Neighbouring minutes of one cause are one span: its first and its last minute, the cause."""
    spans: list[tuple[datetime, datetime, GapCause]] = []
    for minute in sorted(missing):
        cause = missing[minute]
        if spans and spans[-1][1:] == (minute - MINUTE, cause):
            spans[-1] = (spans[-1][0], minute, cause)
        else:
            spans.append((minute, minute, cause))
    return [
        (first.isoformat(), last.isoformat(), cause) for first, last, cause in spans[-SPANS_MAX:]
    ]


def _read_spans(spelled: list[list[str]]) -> dict[datetime, GapCause]:
    missing = {}
    for first, last, cause in spelled:
        begin = parse_instant(first)
        minutes = (parse_instant(last) - begin) // MINUTE + 1
        if not 0 < minutes <= SPAN_MINUTES_MAX:
            raise ValueError(f"a span from {first} to {last}")
        for number in range(minutes):
            missing[begin + number * MINUTE] = GapCause(cause)
    return missing
