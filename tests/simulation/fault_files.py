"""The simulation's disk, and what goes wrong with it: files of group D of the fault catalogue.

    production code ─► os.open, os.fsync, os.replace ─► SimulatedDisk (installed in `os`) ─► tmpfs
    world's strokes ─► arm(faults), power_cut(), hold_lock(), litter()

Files are real files under `root`; what is simulated is how lasting they are. Nothing is really
synced: the disk remembers what would have survived. A killed process leaves its files as they are
(the page cache lives on); a power cut takes back what no fsync covered: written data comes back
whole, in part, or not at all, a rename without a sync of its folder is done or undone. So a letter
that is written by the protocol is old or new after any cut, and one that is not is seen to tear.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

from filelock import Timeout

FILE_FAULTS: Final[Mapping[str, str]] = {
    "D6": "power cut at a step of a write: what was not synced is lost or torn",
    "D9": "the lock file has become a folder, a link, or a FIFO",
    "D10": "the holder of the lock hangs, alive",
    "D20": "EIO at fsync",
    "D21": "the disk is full",
}
WRITING: Final = os.O_WRONLY | os.O_RDWR
StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class FileFault:
    """One thing that goes wrong from world time `at` on, for `seconds`, in files whose name
    contains `part` (the empty one: all of them)."""

    fault_id: str
    at: datetime
    seconds: float = 0.0
    times: int = 1
    part: str = ""

    def strikes(self, name: str, now: datetime) -> bool:
        """Whether an operation on that file meets it now."""
        if now < self.at or self.part not in name:
            return False
        return not self.seconds or now < self.at + timedelta(seconds=self.seconds)


@dataclass(slots=True)
class _Unsynced:
    """A file with data that no fsync covered: what a power cut may bring back (None: no file)."""

    before: bytes | None


@dataclass(slots=True)
class _Renamed:
    """A rename that no sync of the folder covered; `torn` when its data was not synced either."""

    path: str
    before: bytes | None
    torn: bool


@dataclass
class SimulatedDisk:
    """The disk under `root`. `with disk:` puts it into `os` for as long as the block lasts."""

    root: Path
    now: Callable[[], datetime]
    seed: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    syncs: int = 0
    _armed: list[FileFault] = field(default_factory=list)
    _unsynced: dict[str, _Unsynced] = field(default_factory=dict)
    _renamed: list[_Renamed] = field(default_factory=list)
    _holders: dict[Path, int] = field(default_factory=dict)
    _broken_locks: set[Path] = field(default_factory=set)
    _wanted_in_vain: set[Path] = field(default_factory=set)
    _struck: set[FileFault] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.root = self.root.resolve()
        self._prefix = f"{self.root}{os.sep}"
        self._chance = Random(f"disk:{self.seed}")
        self._remember()

    def _remember(self) -> None:
        self._open, self._fsync = os.open, os.fsync
        self._replace, self._unlink, self._stat = os.replace, os.unlink, os.stat

    # --- installing -----------------------------------------------------------------------------

    def __enter__(self) -> SimulatedDisk:
        self._remember()
        hooks: dict[str, object] = {
            "open": self._hooked_open,
            "fsync": self._hooked_fsync,
            "replace": self._hooked_replace,
            "unlink": self._hooked_unlink,
            "stat": self._hooked_stat,
        }
        for name, hook in hooks.items():
            setattr(os, name, hook)
        return self

    def __exit__(self, *_: object) -> None:
        real: dict[str, object] = {
            "open": self._open,
            "fsync": self._fsync,
            "replace": self._replace,
            "unlink": self._unlink,
            "stat": self._stat,
        }
        for name, function in real.items():
            setattr(os, name, function)
        for path in list(self._holders):
            self.let_go(path)

    def arm(self, faults: Iterable[FileFault]) -> None:
        """These happen from their times on."""
        self._armed = sorted([*self._armed, *faults], key=lambda fault: fault.at)

    # --- what the production code meets -----------------------------------------------------------

    def _hooked_open(
        self, path: StrPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        text = os.fspath(path)
        if dir_fd is not None or not text.startswith(self._prefix):
            return self._open(path, flags, mode, dir_fd=dir_fd)
        if self._broken_locks or self._holders:
            place = Path(text)
            if place in self._broken_locks or place in self._holders:
                self._met("D9" if place in self._broken_locks else "D10", place)
        if not flags & WRITING or text.endswith(".lock"):
            return self._open(path, flags, mode)
        self._fail("D21", text, errno.ENOSPC)
        if not flags & os.O_EXCL:
            self._begin_write(text, _content(text))
            return self._open(path, flags, mode)
        descriptor = self._open(path, flags, mode)
        self._begin_write(text, None)
        return descriptor

    def _hooked_stat(
        self, path: int | StrPath, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> os.stat_result:
        if self._broken_locks and isinstance(path, Path) and path in self._broken_locks:
            self._met("D9", path)
        return self._stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    def _hooked_fsync(self, descriptor: int) -> None:
        name = self._name(descriptor)
        if name is None:
            self._fsync(descriptor)
            return
        self.syncs += 1
        self._fail("D20", name, errno.EIO)
        self._fail("D21", name, errno.ENOSPC)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._renamed = [
                known for known in self._renamed if known.path.rpartition(os.sep)[0] != name
            ]
        else:
            self._unsynced.pop(name, None)

    def _hooked_replace(
        self,
        source: StrPath,
        target: StrPath,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        place = os.fspath(target)
        if src_dir_fd is not None or dst_dir_fd is not None or not place.startswith(self._prefix):
            self._replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            return
        before = _content(place)
        self._replace(source, target)
        unsynced = self._unsynced.pop(os.fspath(source), None)
        self._renamed.append(_Renamed(place, before, unsynced is not None))

    def _hooked_unlink(self, path: StrPath, *, dir_fd: int | None = None) -> None:
        self._unlink(path, dir_fd=dir_fd)
        if dir_fd is None:
            self._unsynced.pop(os.fspath(path), None)

    def _begin_write(self, path: str, before: bytes | None) -> None:
        if path not in self._unsynced:
            self._unsynced[path] = _Unsynced(before)

    def _fail(self, fault_id: str, name: str, number: int) -> None:
        if not self._armed or self._armed[0].at > self.now():
            return
        now = self.now()
        for fault in self._armed:
            if fault.fault_id != fault_id or not fault.strikes(name, now):
                continue
            if fault not in self._struck:  # once, however often it strikes
                self._struck.add(fault)
                self.hits[fault_id] += 1
            if not fault.seconds:
                self._armed.remove(fault)
                if fault.times > 1:
                    again = replace(fault, times=fault.times - 1)
                    self._struck.add(again)
                    self.arm([again])
            raise OSError(number, os.strerror(number), name)

    # --- what the world does ----------------------------------------------------------------------

    def power_cut(self) -> int:
        """The machine is off and on again: how many files are not what they looked like (D6)."""
        changed = 0
        for renamed in reversed(self._renamed):
            changed += self._undo_rename(renamed)
        for path, unsynced in sorted(self._unsynced.items(), key=lambda item: Path(item[0])):
            changed += self._lose(path, unsynced)
        self._renamed.clear()
        self._unsynced.clear()
        if changed:
            self.hits["D6"] += 1
        return changed

    def _undo_rename(self, renamed: _Renamed) -> int:
        now = _content(renamed.path)
        outcome = self._chance.choice(("done", "undone"))
        if outcome == "undone":
            return self._put(renamed.path, renamed.before, now)
        if renamed.torn and now is not None:
            return self._put(renamed.path, self._part_of(now), now)
        return 0

    def _lose(self, path: str, unsynced: _Unsynced) -> int:
        now = _content(path)
        if now is None:
            return 0
        outcome = self._chance.choice(("written", "torn", "lost"))
        if outcome == "written":
            return 0
        before = unsynced.before
        if outcome == "lost":
            return self._put(path, before, now)
        if before is not None and now.startswith(before):  # appended: what was there stays
            return self._put(path, before + self._part_of(now[len(before) :]), now)
        return self._put(path, self._part_of(now), now)

    def _part_of(self, content: bytes) -> bytes:
        return content[: self._chance.randrange(len(content))] if content else content

    def _put(self, path: str, content: bytes | None, now: bytes | None) -> int:
        if content == now:
            return 0
        with contextlib.suppress(FileNotFoundError):
            self._unlink(path)  # another name of the same file keeps what it has
        if content is not None:
            Path(path).write_bytes(content)
        return 1

    def _met(self, fault_id: str, lock: Path) -> None:
        """Somebody wanted this lock: counted once, however often it is tried."""
        if lock not in self._wanted_in_vain:
            self._wanted_in_vain.add(lock)
            self.hits[fault_id] += 1

    def hold_lock(self, lock: Path) -> None:
        """Another process holds this lock and hangs (D10), until `let_go`."""
        descriptor = self._open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return
        self._holders[lock] = descriptor

    def let_go(self, lock: Path) -> None:
        """It ended; the kernel frees the lock."""
        self._wanted_in_vain.discard(lock)
        descriptor = self._holders.pop(lock, None)
        if descriptor is not None:
            os.close(descriptor)

    def break_lock(self, lock: Path, kind: str) -> None:
        """The lock's file has become a "folder", a "link" or a "fifo" (D9), until `mend_lock`."""
        self.mend_lock(lock)
        if kind == "folder":
            lock.mkdir()
        elif kind == "link":
            lock.symlink_to(lock.with_name("nowhere") / "at all")
        else:
            os.mkfifo(lock, 0o600)
        self._broken_locks.add(lock)

    def mend_lock(self, lock: Path) -> None:
        """A person has put it right."""
        self._broken_locks.discard(lock)
        self._wanted_in_vain.discard(lock)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(lock).st_mode):
                lock.rmdir()
            else:
                self._unlink(lock)

    def litter(self, file: Path) -> Path:
        """A writer of `file` was killed before its rename, on an earlier day; what it left."""
        left = file.with_name(f".{file.name}.{self._chance.randbytes(6).hex()}.tmp")
        left.write_bytes(b'{"document": {"torn')
        self.hits["D6"] += 1
        return left

    def leftovers(self) -> list[Path]:
        """Temporary files that lie about now."""
        return sorted(self.root.rglob(".*.tmp"))

    def _name(self, descriptor: int) -> str | None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  (it is asked thousands of times)
        return name if f"{name}/".startswith(self._prefix) else None


class PlainLock:
    """Fits `filelock.FileLock` with a time-out of zero: the same system calls on the same file,
    without its care for threads and forks, which a simulated day does not have."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._descriptor = -1

    def acquire(self) -> None:
        """Take it; Timeout when another one has it, OSError when it is no lock."""
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            descriptor = os.open(self._path, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise Timeout(self._path) from error
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


@contextlib.contextmanager
def simulated_disk(
    root: Path, now: Callable[[], datetime], seed: int = 0
) -> Iterator[SimulatedDisk]:
    """A disk that is installed for the length of the block."""
    with SimulatedDisk(root, now, seed) as disk:
        yield disk


def _content(path: str) -> bytes | None:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with io.FileIO(path) as file:
            return file.readall()
    except FileNotFoundError:
        return None
