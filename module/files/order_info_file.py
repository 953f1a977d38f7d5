"""`order_info.txt`: the letter as a file, old or new, never a mixture, even through a power cut.

Written under a `filelock` on a sibling `.lock` (a lock on the file itself breaks once it is
replaced): temporary file, fsync, rename, fsync of the folder. The document carries its own digest.
Postgres follows as a mirror; a mirror that is down does not hold the file up.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from module.files.atomic import make_private_folder, read_regular, write_durably
from module.model.canonical import canonical_json, digest
from module.model.errors import (
    InvariantViolated,
    OutcomeUnknown,
    Retryable,
    StaleWriter,
    Unavailable,
)

FILE_NAME = "order_info.txt"
LOCK_TIMEOUT_S = 10.0
ARCHIVE_MAX = 500
BYTES_MAX = 16 * 1024 * 1024


class Mirror(Protocol):
    """The copy in Postgres."""

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        """Follow the file; Retryable when it cannot now."""
        ...

    def read(self) -> Mapping[str, object] | None:
        """The last copy."""
        ...


class FileOrderInfoStore:
    """The letter of one session, in its folder. One truth: the file."""

    def __init__(
        self,
        folder: Path,
        mirror: Mirror | None = None,
        *,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        self._folder = make_private_folder(folder)
        self._path = folder / FILE_NAME
        self._lock_timeout_s = lock_timeout_s
        self._lock = FileLock(str(self._path) + ".lock", timeout=lock_timeout_s)
        self._mirror = mirror

    @property
    def path(self) -> Path:
        """Where the letter lies."""
        return self._path

    def read(self) -> Mapping[str, object] | None:
        """The document; rebuilt from the mirror if the file is missing; damaged is an error."""
        with self._locked():
            document = self._read_file()
        if document is None and self._mirror is not None:
            return self._mirror.read()
        return document

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        """Replace the file durably, then let the mirror follow.

        StaleWriter when the file holds a newer (epoch, revision): another leader took over.
        Unavailable when the disk refuses (full, read-only, failing): treat as not saved.
        """
        with self._locked():
            current = self._read_file()
            if current is not None and _stamp(current) > (epoch, revision):
                raise StaleWriter(
                    f"{self._path} is at {_stamp(current)}, newer than {(epoch, revision)}: "
                    "another process took this session over"
                )
            self._replace(document)
        if self._mirror is not None:
            try:
                self._mirror.write(document, epoch, revision)
            except (Retryable, OutcomeUnknown):
                return  # the next write carries everything; the file is the truth

    def archive(self, document: Mapping[str, object]) -> None:
        """Keep an ended cycle as `archive/<cycle>.json`; the oldest go beyond ARCHIVE_MAX."""
        folder = make_private_folder(self._folder / "archive")
        name = str(document["cycle"]).replace(":", "").replace("-", "")
        write_durably(folder / f"{name}.json", canonical_json(document).encode())
        kept = sorted(folder.glob("*.json"))
        for old in kept[: max(0, len(kept) - ARCHIVE_MAX)]:
            old.unlink(missing_ok=True)

    def archived(self, count_max: int) -> list[Mapping[str, object]]:
        """The newest ended cycles, oldest first; one that cannot be read is left out."""
        found: list[Mapping[str, object]] = []
        for path in sorted((self._folder / "archive").glob("*.json"))[-count_max:]:
            with contextlib.suppress(ValueError, OSError):
                document = json.loads(path.read_text())
                if isinstance(document, dict):
                    found.append(document)
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise Unavailable(
                f"{self._path}.lock is held by another process for over {self._lock_timeout_s:g} s"
            ) from error
        except OSError as error:
            raise Unavailable(f"{self._path}.lock cannot be taken: {error}") from error
        try:
            yield
        finally:
            self._lock.release()

    def _read_file(self) -> Mapping[str, object] | None:
        try:
            content = read_regular(self._path, BYTES_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error}; nothing is traded") from error
        try:
            envelope = json.loads(content)
            document = envelope["document"]
            stated = envelope["sha256"]
            found = digest(document)
        except (ValueError, KeyError, TypeError, InvariantViolated) as error:
            raise InvariantViolated(
                f"{self._path} cannot be read ({error!r}); it is not empty, so nothing is traded "
                "until it is mended or moved away"
            ) from error
        if found != stated:
            raise InvariantViolated(
                f"{self._path} does not match its own digest: it was altered; nothing is traded "
                "until it is mended or moved away"
            )
        if not isinstance(document, dict):
            raise InvariantViolated(f"{self._path} holds no object")
        return document

    def _replace(self, document: Mapping[str, object]) -> None:
        for left in self._folder.glob(f".{FILE_NAME}.*.tmp"):
            left.unlink(missing_ok=True)  # of a writer that was killed: we hold the lock
        text = canonical_json({"document": document, "sha256": digest(document)})
        write_durably(self._path, text.encode())


def _stamp(document: Mapping[str, object]) -> tuple[int, int]:
    return int(str(document["epoch"])), int(str(document["revision"]))
