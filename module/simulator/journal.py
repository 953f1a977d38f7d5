"""The simulator's memory: every command that reaches the engine, and what time it was last.

Commands are appended before they act, and therefore before their answer leaves. A simulator that
was killed replays them through the same deterministic engine and has the same ledger. Folder:

    journal.jsonl   a header that names the world, then one command a line
    time.json       the last world time and who was registered at the clock (replaced atomically)
    snapshot.json   the state at some byte of the journal, so that coming back is quick
    keys.json       credentials of the accounts (mode 0600; the journal itself holds no secret)
    lock            held while a simulator uses the folder

Writes reach the operating system before the call returns: they survive the death of the process.
A loss of power may cost the last moments of a paper world, unless `sync` is called before answers.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

from module.model.errors import Conflict, InvalidInput, InvariantViolated
from module.simulator.wire.bitget_auth import ApiKey

FORMAT = 1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One command: world time, endpoint (`POST /api/…`), account, parameters as they came."""

    at_ms: int
    call: str
    account_id: str
    params: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class LastTime:
    """What the clock said last."""

    now_ms: int
    participants: tuple[str, ...]


class WorldFolder:
    """One simulator's data folder. Only one process has it at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._journal_path = folder / "journal.jsonl"
        self._time_path = folder / "time.json"
        self._keys_path = folder / "keys.json"
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._snapshot_path = folder / "snapshot.json"
        self._journal: int | None = None
        self._length = 0
        self._last_line = b""
        self._synced_length = 0
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise Conflict(
                f"another simulator uses {folder}; stop it or choose another folder"
            ) from error

    @property
    def holds_world(self) -> bool:
        """Whether a world has been started here before."""
        return self._journal_path.exists() and self._journal_path.stat().st_size > 0

    def read_header(self) -> dict[str, object]:
        """What the world of this folder is; InvalidInput if the file is not a journal."""
        with self._journal_path.open("rb") as file:
            line = file.readline()
        header = _parse(line, f"{self._journal_path} line 1")
        self._length, self._last_line = len(line), line
        if header.get("format") != FORMAT:
            raise InvalidInput(
                f"{self._journal_path} has format {header.get('format')!r}, this program writes "
                f"{FORMAT}; use another folder"
            )
        return header

    def start_world(self, header: Mapping[str, object]) -> None:
        """Write the header of a new world."""
        self._append({"format": FORMAT, **header})

    def append(self, entry: JournalEntry) -> None:
        """Make `entry` survive this process."""
        self._append(
            {
                "at": entry.at_ms,
                "call": entry.call,
                "account": entry.account_id,
                "params": entry.params,
            }
        )

    def entries(self, after_bytes: int = 0) -> Iterator[JournalEntry]:
        """All commands after the header (or after so many bytes, where a line ended), oldest first.

        A last line that was cut off by a kill is removed.
        """
        self._cut_unfinished_line()
        self._length = 0
        with self._journal_path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                self._length += len(line)
                self._last_line = line
                if number > 1 and self._length > after_bytes:
                    where = f"{self._journal_path} line {number}"
                    yield _entry(_parse(line, where), where)

    def position(self) -> tuple[int, str]:
        """How long the journal is, and the digest of its last line."""
        return self._length, _digest(self._last_line)

    def tail_at(self, length: int) -> str:
        """The digest of the line that ends at byte `length`; "" if none does."""
        with self._journal_path.open("rb") as file:
            file.seek(max(0, length - _CHUNK_BYTES))
            before = file.read(length - file.tell())
            if file.tell() != length or not before.endswith(b"\n"):
                return ""
        return _digest(before[before.rfind(b"\n", 0, -1) + 1 :])

    @property
    def length(self) -> int:
        """Bytes of the journal."""
        return self._length

    @property
    def synced_length(self) -> int:
        """So many of them would outlive a loss of power."""
        return self._synced_length

    def sync(self) -> None:
        """Have the disk hold everything that was appended before this call."""
        length = self._length
        if self._journal is not None:
            os.fdatasync(self._journal)
        self._synced_length = length

    def read_snapshot(self) -> bytes | None:
        """What was written last; None if nothing was."""
        return self._snapshot_path.read_bytes() if self._snapshot_path.exists() else None

    def write_snapshot(self, content: bytes) -> None:
        """Replace it, whole and durable."""
        temporary = self._snapshot_path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._snapshot_path)
        finally:
            temporary.unlink(missing_ok=True)

    def save_time(self, now_ms: int, participants: tuple[str, ...]) -> None:
        """Remember the world time; a few microseconds, no disk is waited for."""
        text = json.dumps({"now_ms": now_ms, "participants": participants})
        temporary = self._time_path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(self._time_path)

    def last_time(self) -> LastTime | None:
        """What `save_time` wrote last."""
        if not self._time_path.exists():
            return None
        loaded = _parse(self._time_path.read_bytes(), str(self._time_path))
        now_ms, names = loaded.get("now_ms"), loaded.get("participants")
        if not isinstance(now_ms, int) or not isinstance(names, list):
            raise InvalidInput(f"{self._time_path} does not hold a time; remove it to go on")
        return LastTime(now_ms, tuple(str(name) for name in names))

    def save_keys(self, keys: Mapping[str, ApiKey]) -> None:
        """Replace the credentials file."""
        temporary = self._keys_path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump([asdict(key) for key in keys.values()], file, indent=1)
        temporary.replace(self._keys_path)

    def load_keys(self) -> dict[str, ApiKey]:
        """The credentials by api key."""
        if not self._keys_path.exists():
            return {}
        try:
            rows = json.loads(self._keys_path.read_bytes())
            keys = [ApiKey(**{**row, "authorities": tuple(row["authorities"])}) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"{self._keys_path} does not parse; restore or remove it") from error
        return {key.api_key: key for key in keys}

    def close(self) -> None:
        """Let another process have the folder."""
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None
        os.close(self._lock)

    def _append(self, record: Mapping[str, object]) -> None:
        if self._journal is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._journal = os.open(self._journal_path, flags, 0o600)
        line = json.dumps(record, separators=(",", ":"), default=_json_default).encode() + b"\n"
        try:
            written = os.write(self._journal, line)
        except OSError as error:
            raise InvariantViolated(self._not_kept(error.strerror)) from error
        if written != len(line):
            raise InvariantViolated(self._not_kept(f"{written} of {len(line)} bytes were written"))
        self._length += len(line)
        self._last_line = line

    def _not_kept(self, why: str | None) -> str:
        return (
            f"{self._journal_path} cannot be written ({why}); the simulator stops, so that nothing "
            "is answered that is not kept"
        )

    def _cut_unfinished_line(self) -> None:
        """Drop what follows the last line feed: its command never acted, nobody was answered."""
        with self._journal_path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            position = end
            while position > 0:
                start = max(0, position - _CHUNK_BYTES)
                file.seek(start)
                found = file.read(position - start).rfind(b"\n")
                if found >= 0:
                    position = start + found + 1
                    break
                position = start
            if position != end:
                file.truncate(position)


def _json_default(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise InvariantViolated(f"{type(value).__name__} cannot be journaled: {value!r}"[:200])


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _parse(line: bytes, where: str) -> dict[str, object]:
    try:
        loaded = json.loads(line)
    except ValueError as error:
        raise InvalidInput(
            f"{where} does not parse: {line[:60]!r}; restore the folder, or use another"
        ) from error
    if not isinstance(loaded, dict):
        raise InvalidInput(f"{where} is not an object: {line[:60]!r}")
    return loaded


def _entry(record: Mapping[str, object], where: str) -> JournalEntry:
    at_ms, params = record.get("at"), record.get("params")
    if not isinstance(at_ms, int) or not isinstance(params, dict):
        raise InvalidInput(f"{where} is not a command: {record!r}"[:240])
    return JournalEntry(at_ms, str(record.get("call")), str(record.get("account")), params)
