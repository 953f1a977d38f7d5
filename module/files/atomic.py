"""Files that are old or new, never a mixture, even through a power cut.

temporary file (mode 0600, no symlink followed) → fsync → rename → fsync of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from module.model.errors import InvalidInput, Unavailable

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def write_durably(path: Path, content: bytes, *, mode: int = FILE_MODE) -> None:
    """Make `path` hold exactly `content`; when this returns it survives a power cut.

    The folder must exist. Unavailable when the disk refuses (full, read-only, failing): the old
    content is still there.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with _disk_errors(path):
        try:
            _write_new(temporary, content, mode)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def create_durably(path: Path, content: bytes, *, mode: int = FILE_MODE) -> bool:
    """Like `write_durably`, but only if `path` does not exist yet; whether it was made.

    What is there already is never touched: the way to write something immutable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with _disk_errors(path):
        try:
            _write_new(temporary, content, mode)
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return True


def make_private_folder(path: Path) -> Path:
    """Create `path` and its missing parents with mode 0700; the folder."""
    with _disk_errors(path):
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


def _write_new(path: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
        raise Unavailable(f"{path} could not be saved: {what}; nothing was changed") from error
