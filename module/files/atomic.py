"""Files that are old or new, never a mixture, even through a power cut.

temporary file (mode 0600, no symlink followed) → fsync → rename → fsync of the folder.

Between the steps `module.points` is told where we are ("order_info: renamed"), so that a simulation
can end the process there. Every step is one call of `os` (or of a Path that makes it), so that it
can make one fail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from module.model.errors import InvalidInput, Unavailable
from module.points import reach

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def write_durably(
    path: Path,
    content: bytes,
    *,
    mode: int = FILE_MODE,
    previous: Path | None = None,
    what: str = "file",
) -> None:
    """Make `path` hold exactly `content`; when this returns it survives a power cut.

    The folder must exist. `previous`: where the content before this one is kept. Unavailable when
    the disk refuses (full, read-only, failing): it counts as not saved. The old content is still
    there, unless the very last step failed (the folder's fsync): then the new one may be.

    Points: `<what>: temporary written`, `temporary synced`, `previous kept`, `renamed`, `durable`.
    """
    temporary = _temporary(path)
    with _disk_errors(path, "the old content is still there"):
        try:
            _write_new(temporary, content, mode, what)
            if previous is not None:
                _keep(path, previous)
                reach(f"{what}: previous kept")
            temporary.replace(path)
        except OSError:
            _remove(temporary)
            raise
    reach(f"{what}: renamed")
    with _disk_errors(path, "its new content is there, but may not survive a power cut"):
        _sync_folder(path.parent)
    reach(f"{what}: durable")


def create_durably(path: Path, content: bytes, *, mode: int = FILE_MODE) -> bool:
    """Like `write_durably`, but only if `path` does not exist yet; whether it was made.

    What is there already is never touched: the way to write something immutable.
    """
    temporary = _temporary(path)
    with _disk_errors(path, "nothing was changed"):
        try:
            _write_new(temporary, content, mode, "file")
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            _remove(temporary)
        _sync_folder(path.parent)
        return True


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers of `path` that were killed. The caller holds whatever
    lock keeps other writers away."""
    head = f".{path.name}."
    try:
        with os.scandir(path.parent) as entries:  # a third of what a glob costs
            left = [each for each in entries if each.name.startswith(head)]
    except FileNotFoundError:
        return
    for entry in left:
        if entry.name.endswith(".tmp"):
            _remove(Path(entry.path))


def make_private_folder(path: Path) -> Path:
    """Create `path` and its missing parents with mode 0700; the folder."""
    with _disk_errors(path, "nothing was changed"):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=FOLDER_MODE)
    return path


def read_regular(path: Path, bytes_max: int) -> bytes:
    """The content of a regular file of at most `bytes_max` bytes; no symlink is followed.

    FileNotFoundError when it is not there; InvalidInput when it is a link, a device, a folder, or
    too long.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidInput(f"{path} is a symbolic link; it is not followed") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        require_regular(file.fileno(), path)
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise InvalidInput(f"{path} is longer than {bytes_max} bytes")
    return content


def require_regular(descriptor: int, path: Path) -> int:
    """The size of the open regular file; InvalidInput when it is anything else."""
    import stat

    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise InvalidInput(f"{path} is not a regular file")
    return facts.st_size


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def _write_new(path: Path, content: bytes, mode: int, what: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        reach(f"{what}: temporary written")
        os.fsync(descriptor)
        reach(f"{what}: temporary synced")
    finally:
        os.close(descriptor)


def _keep(path: Path, previous: Path) -> None:
    """Let `previous` be what `path` is now; nothing where there is none yet."""
    temporary = _temporary(path)
    try:
        os.link(path, temporary, follow_symlinks=False)
    except FileNotFoundError:
        return
    try:
        temporary.replace(previous)
    finally:
        _remove(temporary)  # rename leaves it where both are one file: a writer was killed here


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(path: Path, left: str) -> Iterator[None]:
    """`left`: what is there when it fails."""
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
        raise Unavailable(f"{path} could not be saved: {what}; {left}") from error
