"""Where tear sheets and their jobs lie: `<data>/tearsheets/<owner>/<job>/`, for all API workers.

    job.json    what was asked, how far it is, why it failed
    sheet.html  sheet.png  sheet.json

A job's id is the digest of what it depends on (owner, subject, range, what is stored in it, days
a year, version of this code), so the same question is the same folder: the cache needs no index.
Who works on a job holds `<job>.lock`; the kernel lets go of it when its process ends, however it
ends, so a job that says it is being drawn and is held by nobody was interrupted. Places in the
queue are held the same way. Folders are 0700, files 0600, links are not followed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

from module.files.atomic import make_private_folder, read_regular, write_durably
from module.model.canonical import instant_text
from module.model.errors import InvalidInput, NotFound, RateLimited, Unavailable
from monitoring.tearsheets.process import Sheet

KEPT: Final = timedelta(days=7)
KEPT_PER_OWNER_MAX: Final = 40
BYTES_MAX: Final = 256 * 1024**2
JOB_BYTES_MAX: Final = 64 * 1024
PART_BYTES_MAX: Final = 24 * 1024**2
QUEUE_MAX: Final = 8
QUEUE_PER_OWNER_MAX: Final = 3
DRAWING_MAX: Final = 2
PARTS: Final = ("html", "png", "json")
_JOB: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_OWNER: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class JobState(StrEnum):
    """How far a job is. The last three are final, until it is asked for again."""

    QUEUED = "queued"
    DRAWING = "drawing"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `problem` is the problem document of why it failed."""

    job_id: str
    owner_id: str
    subject: Mapping[str, object]
    state: JobState
    asked_at: str
    finished_at: str | None = None
    problem: Mapping[str, object] = field(default_factory=dict)


class Held:
    """A lock file that is held until `release`, or until this process ends."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self.path = path

    def release(self) -> None:
        """Let go; once more is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Shelf:
    """The tear sheets of an installation."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "tearsheets"

    @property
    def scratch(self) -> Path:
        """What drawing processes may write to: their font cache."""
        return self._folder / ".scratch"

    def job_id(self, owner_id: str, subject: Mapping[str, object]) -> str:
        """32 hex digits out of everything that the sheet depends on."""
        whole = {"owner": owner_id, "subject": dict(subject), "code": code_version()}
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    # --- jobs -----------------------------------------------------------------------------------

    def find(self, owner_id: str, job_id: str) -> Job:
        """The owner's job; NotFound without one. One that nobody holds and that is not over was
        interrupted, and says so."""
        job = self._read(owner_id, job_id)
        if job.state in (JobState.QUEUED, JobState.DRAWING) and not self._is_held(job):
            job = self._read(owner_id, job_id)  # it may have ended in between
            if job.state in (JobState.QUEUED, JobState.DRAWING):
                return replace(job, state=JobState.FAILED, problem=_INTERRUPTED)
        return job

    def jobs(self, owner_id: str) -> list[Job]:
        """The owner's jobs, newest first."""
        found = []
        for _, path in sorted(self._aged(self._owner_folder(owner_id)), reverse=True):
            with contextlib.suppress(NotFound):
                found.append(self.find(owner_id, path.name))
        return found

    def save(self, job: Job) -> None:
        """Write the job's record; Unavailable when the disk refuses."""
        folder = make_private_folder(self._job_folder(job.owner_id, job.job_id))
        write_durably(folder / "job.json", json.dumps(asdict(job)).encode())

    def hold(self, owner_id: str, job_id: str) -> Held | None:
        """The right to work on the job; None while somebody else has it."""
        make_private_folder(self._owner_folder(owner_id))
        return _hold(self._lock_path(owner_id, job_id))

    def stop(self, owner_id: str, job_id: str) -> None:
        """Ask whoever works on the job to stop."""
        (self._job_folder(owner_id, job_id) / "stop").touch(mode=0o600)

    def wants_stop(self, job: Job) -> bool:
        """Whether somebody asked."""
        return (self._job_folder(job.owner_id, job.job_id) / "stop").exists()

    def forget_stop(self, job: Job) -> None:
        """Begin anew."""
        (self._job_folder(job.owner_id, job.job_id) / "stop").unlink(missing_ok=True)

    # --- sheets ---------------------------------------------------------------------------------

    def put(self, job: Job, sheet: Sheet) -> None:
        """Keep a drawn sheet; Unavailable when the disk refuses."""
        folder = make_private_folder(self._job_folder(job.owner_id, job.job_id))
        for part, content in zip(PARTS, (sheet.html, sheet.png, sheet.json), strict=True):
            write_durably(folder / f"sheet.{part}", content)

    def part(self, owner_id: str, job_id: str, part: str) -> bytes:
        """One part of a sheet that is ready; NotFound when it is not there (any more)."""
        if part not in PARTS:
            raise InvalidInput(f"a tear sheet has {', '.join(PARTS)}")
        path = self._job_folder(owner_id, job_id) / f"sheet.{part}"
        try:
            content = read_regular(path, PART_BYTES_MAX)
            os.utime(path.parent)  # what is looked at is kept
        except FileNotFoundError as error:
            raise NotFound("this tear sheet is not there (any more); ask for it again") from error
        except OSError as error:
            raise Unavailable(f"the tear sheet cannot be read: {error.strerror}") from error
        return content

    def has_all(self, owner_id: str, job_id: str) -> bool:
        """Whether every part lies there."""
        folder = self._job_folder(owner_id, job_id)
        return all((folder / f"sheet.{part}").is_file() for part in PARTS)

    def remove(self, owner_id: str, job_id: str) -> bool:
        """Forget a job that nobody works on; whether it could be."""
        held = self.hold(owner_id, job_id)
        if held is None:
            return False
        try:
            shutil.rmtree(self._job_folder(owner_id, job_id), ignore_errors=True)
            held.path.unlink(missing_ok=True)
        finally:
            held.release()
        return True

    def tidy(self, wall: datetime) -> None:
        """Forget what is old, and the oldest beyond what one owner and all together may have."""
        everything: list[tuple[float, Path, int]] = []
        for owner in self._owners():
            aged = sorted(self._aged(owner), reverse=True)
            for place, (changed_at, path) in enumerate(aged):
                too_old = changed_at < (wall - KEPT).timestamp()
                if too_old or place >= KEPT_PER_OWNER_MAX:
                    self.remove(owner.name, path.name)
                else:
                    everything.append((changed_at, path, _bytes_of(path)))
        total = sum(size for _, _, size in everything)
        for _, path, size in sorted(everything):
            if total <= BYTES_MAX:
                return
            if self.remove(path.parent.name, path.name):
                total -= size

    # --- places ---------------------------------------------------------------------------------

    def take_place(self, owner_id: str) -> tuple[Held, Held]:
        """A place in the queue, the owner's and the installation's.

        RateLimited when the owner has as many jobs under way as they may, Unavailable when the
        queue is full.
        """
        own = self._take(self._owner_folder(owner_id) / ".places", QUEUE_PER_OWNER_MAX)
        if own is None:
            raise RateLimited(
                f"{QUEUE_PER_OWNER_MAX} of your tear sheets are being made; wait for one",
                retry_after_s=5.0,
            )
        place = self._take(self._folder / ".queue", QUEUE_MAX)
        if place is None:
            own.release()
            raise Unavailable(
                f"{QUEUE_MAX} tear sheets are being made already; ask again later",
                code="tear-sheet-queue-full",
                retry_after_s=10.0,
            )
        return own, place

    def take_drawing_place(self) -> Held | None:
        """One of the few rights to draw at this moment; None while all are taken."""
        return self._take(self._folder / ".drawing", DRAWING_MAX)

    def _take(self, folder: Path, places: int) -> Held | None:
        make_private_folder(folder)
        for number in range(places):
            held = _hold(folder / f"{number}.lock")
            if held is not None:
                return held
        return None

    # --- paths ----------------------------------------------------------------------------------

    def _owner_folder(self, owner_id: str) -> Path:
        if not _OWNER.fullmatch(owner_id):
            raise InvalidInput(f"not the id of a person: {owner_id[:40]!r}")
        return self._folder / owner_id

    def _job_folder(self, owner_id: str, job_id: str) -> Path:
        if not _JOB.fullmatch(job_id):
            raise NotFound(f"there is no tear sheet {job_id[:40]!r}")
        return self._owner_folder(owner_id) / job_id

    def _lock_path(self, owner_id: str, job_id: str) -> Path:
        return self._job_folder(owner_id, job_id).with_suffix(".lock")

    def _read(self, owner_id: str, job_id: str) -> Job:
        path = self._job_folder(owner_id, job_id) / "job.json"
        try:
            loaded = json.loads(read_regular(path, JOB_BYTES_MAX))
        except FileNotFoundError as error:
            raise NotFound(f"there is no tear sheet {job_id}") from error
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
        return Job(**{**loaded, "state": JobState(loaded["state"])})

    def _is_held(self, job: Job) -> bool:
        held = _hold(self._lock_path(job.owner_id, job.job_id), shared=True)
        if held is None:
            return True
        held.release()
        return False

    def _owners(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return [path for path in self._folder.iterdir() if _OWNER.fullmatch(path.name)]

    def _aged(self, owner: Path) -> list[tuple[float, Path]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in owner.iterdir():
                if _JOB.fullmatch(path.name):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((path.stat().st_mtime, path))
        return found


_INTERRUPTED: Final[Mapping[str, object]] = {
    "type": "about:blank",
    "title": "unavailable",
    "status": 503,
    "detail": "the process that made this tear sheet ended; ask for it again",
    "code": "unavailable",
    "reason": "tear-sheet-interrupted",
}


@cache
def code_version() -> str:
    """The digest of the code that makes tear sheets: another version is another sheet."""
    digest, folder = hashlib.sha256(), Path(__file__).parent
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".html"):
            name = path.relative_to(folder).as_posix()
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def new_job(job_id: str, owner_id: str, subject: Mapping[str, object], wall: datetime) -> Job:
    """A job that waits."""
    return Job(job_id, owner_id, dict(subject), JobState.QUEUED, instant_text(wall))


def _hold(path: Path, *, shared: bool = False) -> Held | None:
    """The lock of `path`, or None while another has it. A file that was removed meanwhile is no
    lock any more: the one that took its place is."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise Unavailable(f"{path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return Held(descriptor, path)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _bytes_of(folder: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
    return total
