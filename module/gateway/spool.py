"""What the gateway may not forget while Postgres is away: an append-only file, synced line by line.

    audit ── Postgres away ──► <data>/gateway/<process>.spool ── Postgres back ──► Postgres

Each process writes a file of its own and holds a lock on it. A file whose lock is free belonged to
a process that died: whoever finds it brings it home. What is stored may be stored again (a process
may die between storing and forgetting), so every record can be repeated without harm.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from module.files.atomic import make_private_folder, require_regular
from module.model.errors import Unavailable
from module.points import reach

log = logging.getLogger(__name__)

Record = Mapping[str, object]
BYTES_MAX = 64_000_000
SUFFIX = ".spool"


class Spool:
    """One process's file, and those that dead processes left beside it. Thread safe."""

    def __init__(self, folder: Path) -> None:
        """Unavailable when the folder cannot be written."""
        self._folder = make_private_folder(folder)
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(6)}{SUFFIX}"
        self._lock = threading.Lock()
        self._draining = threading.Lock()
        self._stored_bytes = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be made: {error.strerror}") from error
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._count = 0

    @property
    def count(self) -> int:
        """How many records of this process wait."""
        return self._count

    @property
    def size_bytes(self) -> int:
        """How large this process's file is; BYTES_MAX is as large as it gets."""
        with self._lock:
            return os.fstat(self._file).st_size if self._file >= 0 else 0

    def append(self, record: Record) -> None:
        """Keep it; when this returns it survives a power cut. Unavailable when the disk refuses."""
        line = json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n"
        with self._lock:
            size = os.fstat(self._file).st_size
            if size + len(line) > BYTES_MAX:
                raise Unavailable(f"{self._path} is full ({size} bytes); nothing more is kept")
            try:
                _write_whole(self._file, line)
                reach("spool: written")
                os.fsync(self._file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, size)
                raise Unavailable(f"{self._path} refuses: {error.strerror}") from error
            self._count += 1
        reach("spool: synced")

    def drain(self, store: Callable[[Sequence[Record]], int]) -> int:
        """Hand the waiting records to `store`, oldest first; how many it took.

        `store` says how many from the front are safe now; the rest stays. What it raises leaves
        everything where it is.
        """
        with self._draining:
            with self._lock:
                records = _read(self._file, self._stored_bytes)
            if not records:
                return 0
            taken = store([record for record, _ in records])
            reach("spool: stored")
            with self._lock:
                if taken:
                    self._stored_bytes = records[taken - 1][1]
                    self._count -= taken
                if self._stored_bytes and os.fstat(self._file).st_size == self._stored_bytes:
                    os.ftruncate(self._file, 0)
                    os.fsync(self._file)
                    self._stored_bytes = 0
            return taken

    def adopt(self, store: Callable[[Sequence[Record]], int]) -> int:
        """Bring home what dead processes left in the folder; how many records. A file that the
        disk does not give out now (D21) is left for the next time."""
        found = 0
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path == self._path:
                continue
            try:
                found += self._adopt_file(path, store)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("%s is not brought home yet: %s", path.name, error.strerror)
        return found

    def _adopt_file(self, path: Path, store: Callable[[Sequence[Record]], int]) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return self._adopt_one(path, descriptor, store)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the file; an empty one is removed, another is found by the next process."""
        with self._lock:
            if self._file < 0:
                return
            if os.fstat(self._file).st_size in (0, self._stored_bytes):
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def _adopt_one(
        self, path: Path, descriptor: int, store: Callable[[Sequence[Record]], int]
    ) -> int:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # its process lives
        require_regular(descriptor, path)
        records = [record for record, _ in _read(descriptor, 0)]
        if records:
            log.warning("bringing home %d records that %s left", len(records), path.name)
            taken = store(records)
            if taken < len(records):
                raise Unavailable(f"{path} could not be brought home whole; it is tried again")
        path.unlink(missing_ok=True)
        return len(records)


def _write_whole(descriptor: int, line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, start: int) -> list[tuple[Record, int]]:
    """Records from byte `start` on, each with where it ends. A torn last line was never promised;
    a damaged one in the middle is told and left out."""
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, size - start, start) if size > start else b""
    found: list[tuple[Record, int]] = []
    end = start
    for line in content.splitlines(keepends=True):
        end += len(line)
        try:
            record = json.loads(line)
        except ValueError:
            log.error("a spooled record of %d bytes ending at %d cannot be read", len(line), end)
            continue
        if isinstance(record, dict) and line.endswith(b"\n"):
            found.append((record, end))
    return found
