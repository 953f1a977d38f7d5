"""The fleet's folder: what Postgres could not take, and what a pass has to know without Postgres.

    pass ── keep(records) ─► <minute>-<writer>.spool, whole or not at all ─► drain ─► Postgres
         ── remember ──────► remembered.json: sessions, their notes, who was measured lately

A pass that ends at any moment leaves whole files. Everything in them is keyed, so storing one twice
is harmless. Over `bytes_max` a pass keeps its portfolio rows and gaps only; over four times that,
or on a full disk, only which minutes are lost and why, in room that was set aside for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final, cast

from module.logs import get_logger
from module.model.canonical import parse_instant
from module.model.errors import InvariantViolated
from module.model.results import GapCause, GapRow, MinuteRows, WatchedSession
from module.points import reach
from monitoring.spool import SpoolRecord, read_plain, record_line, record_of_line, spell_plain

BYTES_MAX: Final = 512_000_000
RESERVED_BYTES: Final = 1_000_000
_HARD_LIMIT_FACTOR: Final = 4
_UNREADABLE = (ValueError, KeyError, TypeError, ArithmeticError, InvariantViolated)
_log = get_logger("monitoring.fleet")


@dataclass(slots=True)
class Remembered:
    """What the last passes knew. `measured`: who had a row handed to Postgres, or was found to have
    the minute already, by minute; `notes` are those of `monitoring.fleet_notes`, spelled; `told`:
    when a cause was last alerted; `complete`: sessions that are over and whose whole history is
    there."""

    sessions: tuple[WatchedSession, ...] = ()
    notes: dict[str, object] = field(default_factory=dict)
    measured: dict[datetime, frozenset[str]] = field(default_factory=dict)
    told: dict[str, datetime] = field(default_factory=dict)
    complete: frozenset[str] = frozenset()
    minute: datetime | None = None
    ended_at: datetime | None = None


class FleetFolder:
    """One folder, used by one pass at a time; a second one finds it busy and leaves it alone."""

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        self._path = path
        self._bytes_max = bytes_max

    # --- what is remembered -----------------------------------------------------------------------

    def recall(self) -> Remembered:
        """What the last pass remembered; nothing when it cannot be read."""
        try:
            document = json.loads((self._path / "remembered.json").read_bytes())
            return Remembered(
                tuple(_read_session(item) for item in document["sessions"]),
                dict(document["notes"]),
                {
                    parse_instant(minute): frozenset(ids)
                    for minute, ids in document["measured"].items()
                },
                {cause: parse_instant(at) for cause, at in document["told"].items()},
                frozenset(document["complete"]),
                _instant(document["minute"]),
                _instant(document["ended_at"]),
            )
        except FileNotFoundError:
            return Remembered()
        except (OSError, *_UNREADABLE) as error:
            _log.warning("what the last pass remembered cannot be read", error=str(error))
            return Remembered()

    def remember(self, known: Remembered) -> None:
        """Keep it for the next pass; a disk that refuses is said, and costs only time later."""
        document = {
            "sessions": [_spell_session(session) for session in known.sessions],
            "notes": known.notes,
            "measured": {minute.isoformat(): sorted(ids) for minute, ids in known.measured.items()},
            "told": {cause: at.isoformat() for cause, at in known.told.items()},
            "complete": sorted(known.complete),
            "minute": spell_plain(known.minute),
            "ended_at": spell_plain(known.ended_at),
        }
        try:
            self._write("remembered.json", json.dumps(document).encode())
        except OSError as error:
            _log.warning("the next pass will not know of this one", error=str(error))

    # --- the spool --------------------------------------------------------------------------------

    def waiting(self) -> dict[str, frozenset[datetime]]:
        """The minutes that lie here, by session."""
        found: dict[str, set[datetime]] = {}
        for file in self._files():
            head = self._head(file)
            for session_id, minutes in head.items():
                found.setdefault(session_id, set()).update(minutes)
        return {session_id: frozenset(minutes) for session_id, minutes in found.items()}

    def keep(self, minute: datetime, writer: str, records: Sequence[SpoolRecord]) -> bool:
        """Keep a pass's records; False where only the fact that they are lost was kept, or not
        even that."""
        size = sum(file.stat().st_size for file in self._files())
        name = f"{minute:%Y%m%dT%H%M}-{writer}-{len(self._files()):06d}.spool"
        if size <= self._bytes_max * _HARD_LIMIT_FACTOR:
            if size > self._bytes_max:
                records = [_compact(record) for record in records]
            try:
                self._reserve()
                self._write(name, _spell_file(records))
                return True
            except OSError as error:
                _log.error("the spool cannot be written", error=str(error))
        lost = [_lost(record) for record in records if isinstance(record, MinuteRows)]
        gaps = [record for record in records if isinstance(record, GapRow)]
        with contextlib.suppress(OSError):  # nothing is left to be tried
            (self._path / "reserved").unlink(missing_ok=True)
            self._write(name, _spell_file([*lost, *gaps]))
        return False

    def drain(
        self, store: Callable[[Sequence[SpoolRecord]], None], until: Callable[[], bool]
    ) -> int:
        """Hand each file's records to `store`, oldest first, until `until()`; how many files.

        What `store` raises leaves that file and the later ones. A line that cannot be read is put
        aside in a file beside, with an error in the log.
        """
        drained = 0
        for file in self._files():
            if until():
                break
            store(self._records(file))
            reach("fleet: spool file stored")
            file.unlink(missing_ok=True)
            drained += 1
        return drained

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other pass works in this folder; none will until the block ends. A folder that
        cannot be used costs what it is for, not the pass."""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self._path / "fleet.lock").open("ab")
        except OSError as error:
            _log.error("the fleet's folder cannot be used", error=str(error))
            yield False
            return
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _files(self) -> list[Path]:
        return sorted(self._path.glob("*.spool"))

    def _head(self, file: Path) -> dict[str, list[datetime]]:
        try:
            with file.open("rb") as lines:
                head = json.loads(lines.readline())
            return {
                session_id: [parse_instant(minute) for minute in minutes]
                for session_id, minutes in head["minutes"].items()
            }
        except (OSError, *_UNREADABLE):
            return {}

    def _records(self, file: Path) -> list[SpoolRecord]:
        records = []
        for line in file.read_bytes().splitlines(keepends=True)[1:]:
            try:
                records.append(record_of_line(line))
            except _UNREADABLE:
                aside = file.with_suffix(".unreadable")
                _log.exception("spooled line cannot be read", kept_in=str(aside))
                with aside.open("ab") as kept:
                    kept.write(line)
        return records

    def _reserve(self) -> None:
        """Room for the last word on a full disk."""
        reserved = self._path / "reserved"
        if not reserved.exists():
            self._write("reserved", b"\0" * RESERVED_BYTES)

    def _write(self, name: str, content: bytes) -> None:
        """The whole file or none."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._path / f".{name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def _spell_file(records: Sequence[SpoolRecord]) -> bytes:
    minutes: dict[str, list[str]] = {}
    for record in records:
        if isinstance(record, GapRow) or (
            isinstance(record, MinuteRows) and record.portfolio is not None
        ):
            minutes.setdefault(record.session_id, []).append(record.minute.isoformat())
    head = json.dumps({"minutes": minutes}) + "\n"
    return (head + "".join(map(record_line, records))).encode()


def _compact(record: SpoolRecord) -> SpoolRecord:
    if isinstance(record, MinuteRows):
        return replace(record, symbols=None, indicators=None)
    return record


def _lost(rows: MinuteRows) -> GapRow:
    detail = "it was measured while Postgres was away, and the spool had no room"
    return GapRow(
        rows.session_id, rows.owner_id, rows.minute, GapCause.SPOOL_FULL, detail, rows.minute
    )


def _spell_session(session: WatchedSession) -> object:
    document = spell_plain(replace(session, targets=()))
    targets = [[symbol, str(weight)] for symbol, weight in session.targets]
    return {"session": document, "targets": targets}


def _read_session(document: Mapping[str, object]) -> WatchedSession:
    from decimal import Decimal

    spelled = dict(cast(Mapping[str, object], document["session"]))
    spelled.pop("targets")
    made = cast(WatchedSession, read_plain(WatchedSession, spelled))
    pairs = cast(Sequence[tuple[str, str]], document["targets"])
    return replace(made, targets=tuple((symbol, Decimal(weight)) for symbol, weight in pairs))


def _instant(value: object) -> datetime | None:
    return None if value is None else parse_instant(str(value))
