"""Rows that Postgres could not take, kept in the session's folder until it is back.

One JSON document a line, appended and fsynced; read back oldest first. Everything in it is keyed,
so storing a line twice is harmless. Over `detail_bytes_max` only portfolio rows and gaps are kept
(the detail of a long outage is compacted away by rule, never a minute). Over four times that, or on
a full disk, nothing is added: the minutes are gaps, and `monitoring.gaps` knows their causes until
the store is back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import types
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Union, cast, get_args, get_origin, get_type_hints

from module.logs import get_logger
from module.model.canonical import parse_instant
from module.model.errors import InvariantViolated
from module.model.results import GapRow, HistoryRows, MinuteRows

DETAIL_BYTES_MAX = 32_000_000
_HARD_LIMIT_FACTOR = 4
_log = get_logger("monitoring.spool")

SpoolRecord = MinuteRows | HistoryRows | GapRow
_KINDS: dict[str, type] = {"minute": MinuteRows, "history": HistoryRows, "gap": GapRow}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_OF_A_MINUTE = tuple(f'{{"kind": "{name}"'.encode() for name in ("minute", "gap"))
UNREADABLE = (ValueError, KeyError, TypeError, ArithmeticError, InvariantViolated)


class Spool:
    """The append-only file of one session; one process writes it at a time."""

    def __init__(self, folder: Path, detail_bytes_max: int = DETAIL_BYTES_MAX) -> None:
        self._path = folder / "finwatcher.spool"
        self._detail_bytes_max = detail_bytes_max
        self._waiting: tuple[int, datetime | None] | None = None

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return self._path.exists()

    def waiting(self) -> tuple[int, datetime | None]:
        """How many minutes wait (their rows or their gaps), and the oldest of them."""
        if not self:
            return 0, None
        if self._waiting is None:
            self._waiting = _minutes_of(self._path.read_bytes().splitlines())
        return self._waiting

    def append(self, record: SpoolRecord) -> bool:
        """Keep `record`; False when the file has reached its bound, or the disk takes no more, and
        it was not kept."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size > self._detail_bytes_max * _HARD_LIMIT_FACTOR:
            return False
        if size > self._detail_bytes_max and isinstance(record, MinuteRows):
            record = dataclasses.replace(record, symbols=None, indicators=None)
        line = record_line(record).encode()
        try:
            self._write(line)
        except OSError as error:
            _log.error("the spool cannot be written", error=str(error))
            with contextlib.suppress(OSError):  # part of a line: the next one would end it
                os.truncate(self._path, size)
            return False
        if not size:
            self._waiting = _minutes_of((line,))
        elif self._waiting is not None and not isinstance(record, HistoryRows):
            count, oldest = self._waiting
            self._waiting = count + 1, min(oldest or record.minute, record.minute)
        return True

    def _write(self, line: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(self._path, flags, 0o600), "ab") as file:
            if not _ends_with_newline(file.fileno()):  # a line torn by a kill
                file.write(b"\n")
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def drain(self, store: Callable[[SpoolRecord], None]) -> int:
        """Hand every record to `store`, oldest first; how many were stored.

        When `store` raises, that record and the later ones stay. A line that cannot be read (torn
        by a kill) is put aside in a file beside, with an error in the log.
        """
        if not self._path.exists():
            return 0
        lines = self._path.read_bytes().splitlines(keepends=True)
        done = stored = 0
        try:
            for line in lines:
                record = self._read(line)
                if record is not None:
                    store(record)
                    stored += 1
                done += 1
        finally:
            if done or not lines:
                self._keep(lines[done:])
        return stored

    def _read(self, line: bytes) -> SpoolRecord | None:
        if not line.strip():
            return None
        try:
            return record_of_line(line)
        except UNREADABLE:
            aside = self._path.with_suffix(".unreadable")
            _log.exception("spooled line cannot be read", kept_in=str(aside))
            with aside.open("ab") as file:
                file.write(line)
            return None

    def _keep(self, lines: list[bytes]) -> None:
        self._waiting = None
        if not lines:
            self._path.unlink(missing_ok=True)
            return
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def _minutes_of(lines: Iterable[bytes]) -> tuple[int, datetime | None]:
    """How many of the lines are of a minute, and the first one's."""
    minutes = [line for line in lines if line.startswith(_OF_A_MINUTE)]
    for line in minutes:
        with contextlib.suppress(*UNREADABLE):
            record = record_of_line(line)
            if not isinstance(record, HistoryRows):
                return len(minutes), record.minute
    return len(minutes), None


def record_line(record: SpoolRecord) -> str:
    """The record as one line of JSON, with its line break."""
    return json.dumps({"kind": _NAMES[type(record)], "record": spell_plain(record)}) + "\n"


def record_of_line(line: bytes | str) -> SpoolRecord:
    """What `record_line` spelled; ValueError, KeyError, TypeError, ArithmeticError or
    InvariantViolated where it is not that."""
    document = json.loads(line)
    return cast(SpoolRecord, read_plain(_KINDS[document["kind"]], document["record"]))


def _ends_with_newline(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def spell_plain(value: object) -> object:
    """Dataclasses, Decimals, times as plain JSON; floats as they are, times to the microsecond."""
    kind: type = type(value)
    if value is None or kind is str or kind is int or kind is float or kind is bool:
        return value
    if kind is Decimal:
        return str(value)
    names = _field_names(kind)
    if names is not None:
        return {name: spell_plain(getattr(value, name)) for name in names}
    if isinstance(value, (list, tuple)):
        return [spell_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()  # keeps microseconds
    if isinstance(value, (str, int, float)):
        return value
    raise InvariantViolated(f"{kind.__name__} cannot be spooled")


@cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    """Of a dataclass; None for anything else."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


def read_plain(kind: object, value: object) -> object:
    """The `kind` that `spell_plain` spelled; TypeError, ValueError … where it is not one."""
    return _reader(kind)(value)


@cache
def _reader(kind: object) -> Callable[[object], object]:
    """How to read a `kind`; thought out once."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        (choice,) = (choice for choice in get_args(kind) if choice is not type(None))
        read_choice = _reader(choice)
        return lambda value: None if value is None else read_choice(value)
    if origin is tuple:
        return partial(_read_list, _reader(get_args(kind)[0]))
    if not isinstance(kind, type):
        raise TypeError(f"no reader for {kind!r}")
    if dataclasses.is_dataclass(kind):
        readers = {name: _reader(hint) for name, hint in get_type_hints(kind).items()}
        return partial(_read_object, kind, readers)
    return partial(_read_plain, kind)


def _read_list(read_item: Callable[[object], object], value: object) -> object:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return tuple([read_item(item) for item in value])


def _read_object(
    kind: type, readers: Mapping[str, Callable[[object], object]], value: object
) -> object:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return kind(**{name: readers[name](item) for name, item in value.items()})


def _read_plain(kind: type, value: object) -> object:
    if kind is Decimal:
        return Decimal(str(value))
    if kind is datetime:
        return parse_instant(str(value))
    if issubclass(kind, Enum):
        return kind(value)
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value
