"""Where a session keeps its files: `<data>/sessions/<session id>/`, and how its logs are read.

Its processes write `<part>.log` there; people read the tail of them through the API.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from module.files.atomic import make_private_folder, require_regular
from module.model.errors import InvalidInput, NotFound
from module.model.sessions import check_session_id

LOG_PARTS = ("leader", "strategy", "finwatcher", "user")
TAIL_BYTES_MAX = 256 * 1024
TAIL_LINES_MAX = 2_000


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log of a session."""

    part: str
    size_bytes: int


def session_folder(data_dir: Path, session_id: str) -> Path:
    """The session's folder (whether or not it exists). InvalidInput when it is no session id."""
    return data_dir / "sessions" / check_session_id(session_id)


def make_session_folder(data_dir: Path, session_id: str) -> Path:
    """The session's folder, made with mode 0700 if it is missing."""
    return make_private_folder(session_folder(data_dir, session_id))


def log_path(data_dir: Path, session_id: str, part: str) -> Path:
    """Where the log of one part of the session is; the parts are `LOG_PARTS`."""
    if part not in LOG_PARTS:
        raise InvalidInput(f"unknown log {part[:40]!r}; known are {', '.join(LOG_PARTS)}")
    return session_folder(data_dir, session_id) / f"{part}.log"


def list_logs(data_dir: Path, session_id: str) -> list[LogFile]:
    """The logs that the session has so far."""
    found = []
    for part in LOG_PARTS:
        path = log_path(data_dir, session_id, part)
        if path.is_file() and not path.is_symlink():
            found.append(LogFile(part, path.stat().st_size))
    return found


def read_log_tail(data_dir: Path, session_id: str, part: str, lines: int) -> list[str]:
    """The last `lines` (1 to 2,000) lines, of at most 256 KiB; bytes that are no text are shown
    escaped. NotFound while there is no such log; links are not followed."""
    if not 1 <= lines <= TAIL_LINES_MAX:
        raise InvalidInput(f"lines must be 1 to {TAIL_LINES_MAX}, got {lines}")
    path = log_path(data_dir, session_id, part)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"session {session_id} has no {part} log yet") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidInput(f"the {part} log is a symbolic link; it is not followed") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        size = require_regular(file.fileno(), path)
        file.seek(max(0, size - TAIL_BYTES_MAX))
        raw = file.read(TAIL_BYTES_MAX)
    found = raw.decode("utf-8", errors="backslashreplace").splitlines()
    if size > TAIL_BYTES_MAX and len(found) > 1:
        found = found[1:]  # the first one is cut
    return found[-lines:]
