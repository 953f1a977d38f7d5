"""`order_info.txt`: the letter as a file, old or new, never a mixture, even through a power cut.

    write ─► under a lock: newer than what is there? ─► temporary, fsync, rename, fsync of the
             folder (the generation before stays as `order_info.previous.txt`) ─► the mirror follows
    read  ─► the file ─ missing ─► the mirror, and the file is made again
                      └ damaged ─► the mirror, if that is proven to be the lost content; else an
                                   error that names the file

The lock is a `filelock` on a sibling `.lock` (a lock on the file itself breaks once it is
replaced). The document carries its own seal. Postgres follows as a mirror; a mirror that is down
does not hold the file up.
"""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from module.files.atomic import (
    make_private_folder,
    read_regular,
    remove_leftovers,
    write_durably,
)
from module.files.cycle_archive import CycleArchive
from module.logs import get_logger
from module.model.errors import (
    PASSING,
    InvariantViolated,
    OutcomeUnknown,
    Retryable,
    StaleWriter,
    Unavailable,
)
from module.model.sealed import seal, stamp_of, unseal
from module.points import reach

FILE_NAME = "order_info.txt"
PREVIOUS_NAME = "order_info.previous.txt"
DAMAGED_NAME = "order_info.damaged.txt"
LOCK_TIMEOUT_S = 10.0
BYTES_MAX = 16 * 1024 * 1024
NOTHING_SENT = ("requested", "planned")
"""Stages of a letter that the mirror need not have: if it is lost, nothing has left. That saves two
round trips between a bar's arrival and the first order."""
Stamp = tuple[int, int]
Identity = tuple[int, int, int]

log = get_logger("files.order_info")


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
        self._archive = CycleArchive(folder)
        self._known: tuple[Identity, Stamp] | None = None

    @property
    def path(self) -> Path:
        """Where the letter lies."""
        return self._path

    def read(self) -> Mapping[str, object] | None:
        """The document, or None where there never was one.

        Made again from the mirror if the file is missing, or damaged while the mirror is newer than
        the generation before it. InvariantViolated names a damaged file that nothing can replace;
        Unavailable while a missing file's mirror cannot be asked: it may be there.
        """
        with self._locked():
            return self._read_or_rebuild()

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        """Replace the file durably, then let the mirror follow (once anything is to be sent).

        StaleWriter when there is a newer (epoch, revision): another leader took over. Unavailable
        when the disk refuses (full, read-only, failing): treat as not saved.
        """
        with self._locked():
            current = self._current_stamp()
            if current is not None and current > (epoch, revision):
                raise StaleWriter(
                    f"{self._path} is at {current}, newer than {(epoch, revision)}: "
                    "another process took this session over"
                )
            self._replace(document, (epoch, revision))
        reach("order_info: written")
        if self._mirror is not None and document.get("stage") not in NOTHING_SENT:
            try:
                self._mirror.write(document, epoch, revision)
            except (Retryable, OutcomeUnknown) as error:
                # The next write carries everything; the file is the truth.
                log.debug("the letter's mirror did not follow", detail=error.message)
            reach("order_info: mirrored")

    def archive(self, document: Mapping[str, object]) -> None:
        """Keep an ended cycle. Unavailable when the disk refuses."""
        self._archive.keep(document)

    def archived(self, count_max: int) -> Sequence[Mapping[str, object]]:
        """The newest ended cycles, oldest first; one that cannot be read is left out."""
        return self._archive.newest(count_max)

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        """Keep the bars that a cycle saw."""
        self._archive.keep_bars(cycle, content)

    def bars_of(self, cycle: datetime) -> bytes | None:
        """What was kept of a cycle's bars."""
        return self._archive.bars_of(cycle)

    # --- under the lock ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._require_plain_lock()
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

    def _require_plain_lock(self) -> None:
        """A pipe or a device can be locked too, but whoever put it there may lock another one."""
        try:
            mode = self._path.with_name(f"{FILE_NAME}.lock").lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file")

    def _read_or_rebuild(self) -> Mapping[str, object] | None:
        try:
            document = self._read_file()
        except InvariantViolated as error:
            return self._replace_damaged(error)
        if document is None and self._mirror is not None:
            document = self._mirror.read()
            if document is not None:
                log.warning("the letter was missing; made again from Postgres", path=self._path)
                self._replace(document, stamp_of(document))
        return document

    def _replace_damaged(self, error: InvariantViolated) -> Mapping[str, object]:
        """The mirror's copy in place of a file that cannot be read, where that is proven.

        The file is written before the mirror, and its generation before stays. So a mirror that is
        newer than that generation holds what the file held; an older one would lose orders.
        """
        if self._mirror is None:
            raise error
        try:
            copy = self._mirror.read()
        except PASSING as away:
            raise error from away
        if copy is None or stamp_of(copy) <= self._previous_stamp(error):
            raise error
        damaged = self._folder / DAMAGED_NAME
        with contextlib.suppress(OSError):  # kept for whoever looks into it
            self._path.replace(damaged)
        log.error("a damaged letter was replaced from Postgres", detail=error.message, kept=damaged)
        self._replace(copy, stamp_of(copy))
        return copy

    def _previous_stamp(self, error: InvariantViolated) -> Stamp:
        """Of the generation before a damaged one; (-1, -1) where there was none."""
        path = self._folder / PREVIOUS_NAME
        try:
            return stamp_of(unseal(read_regular(path, BYTES_MAX), str(path)))
        except FileNotFoundError:
            return (-1, -1)
        except (OSError, InvariantViolated) as second:
            raise error from second

    def _current_stamp(self) -> Stamp | None:
        """(epoch, revision) of what is there; from memory while the file is the one we know."""
        if self._known is not None and self._identity() == self._known[0]:
            return self._known[1]
        try:
            document = self._read_or_rebuild()
        except PASSING:
            if self._identity() is not None:
                raise
            return None  # missing, and the mirror away: the epoch at the gateway is the fence
        return None if document is None else stamp_of(document)

    def _read_file(self) -> Mapping[str, object] | None:
        identity = self._identity()
        try:
            content = read_regular(self._path, BYTES_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error}; nothing is traded") from error
        try:
            document = unseal(content, str(self._path))
        except InvariantViolated as error:
            raise InvariantViolated(
                f"{error.message}; it is not empty, so nothing is traded until it is mended or "
                "moved away"
            ) from error
        if identity is not None:
            self._known = (identity, stamp_of(document))
        return document

    def _replace(self, document: Mapping[str, object], stamp: Stamp) -> None:
        remove_leftovers(self._path)  # of a writer that was killed: we hold the lock
        self._known = None
        write_durably(
            self._path,
            seal(document),
            previous=self._folder / PREVIOUS_NAME,
            what="order_info",
        )
        identity = self._identity()
        if identity is not None:
            self._known = (identity, stamp)

    def _identity(self) -> Identity | None:
        """Which file lies there: every replacement is another one."""
        try:
            facts = self._path.stat(follow_symlinks=False)
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size


class RenderedLetter:
    """The files of a session whose truth is Postgres: for people to look at, and for replay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archive = CycleArchive(folder)

    def render(self, document: Mapping[str, object]) -> None:
        """Make the file show `document`. Unavailable when the disk refuses: nothing is lost."""
        path = make_private_folder(self._folder) / FILE_NAME
        write_durably(path, seal(document), what="order_info rendered")

    def archive(self, document: Mapping[str, object]) -> None:
        """Show an ended cycle."""
        self._archive.keep(document)

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        """Show the bars that a cycle saw."""
        self._archive.keep_bars(cycle, content)
