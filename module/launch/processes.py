"""Knowing a process for sure: pid and start time together, because pids are reused."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from module.model.errors import InvariantViolated

KILL_WAIT_S = 5.0
POLLS_PER_WAIT = 50


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of this boot. `started_ticks` is field 22 of /proc/<pid>/stat."""

    pid: int
    started_ticks: int
    boot_id: str


def identify(pid: int) -> ProcessIdentity | None:
    """Who `pid` is now, or None when nobody (or a zombie) has that pid."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rsplit(")", 1)[1].split()
    if fields[0] in ("Z", "X"):
        return None
    return ProcessIdentity(pid, int(fields[19]), boot_id())


def boot_id() -> str:
    """Differs after each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_alive(identity: ProcessIdentity | None) -> bool:
    """Whether exactly this process still runs."""
    return identity is not None and identify(identity.pid) == identity


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """A descriptor that becomes readable when the process ends; None if it has already."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if not is_alive(identity):
        os.close(descriptor)
        return None
    return descriptor


def send_signal(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly this process; whether it was there."""
    descriptor = open_pidfd(identity)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def end_process(identity: ProcessIdentity, grace_s: float) -> None:
    """SIGTERM, `grace_s` real seconds, then SIGKILL; returns when it is gone."""
    end_processes([identity], grace_s)


def end_processes(identities: Sequence[ProcessIdentity], grace_s: float) -> None:
    """The same for several at once: all are told first, and share the one grace."""
    opened = [found for item in identities if (found := open_pidfd(item)) is not None]
    try:
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_WAIT_S)):
            for descriptor in opened:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
            if _all_ended(opened, wait_s):
                return
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _all_ended(pidfds: Sequence[int], wait_s: float) -> bool:
    """Whether every one became readable within `wait_s` real seconds."""
    waiting = set(pidfds)
    poller = select.poll()
    for descriptor in waiting:
        poller.register(descriptor, select.POLLIN)
    for _ in range(POLLS_PER_WAIT):
        for descriptor, _events in poller.poll(wait_s * 1000 / POLLS_PER_WAIT):
            poller.unregister(descriptor)
            waiting.discard(descriptor)
        if not waiting:
            return True
    return False


class ProcessRecord:
    """`processes.json` in a session's folder: which processes it has, for whoever adopts it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "processes.json"

    def read(self) -> dict[str, ProcessIdentity]:
        """Role → identity, dead ones included."""
        try:
            loaded = json.loads(self._path.read_text())
            return {role: ProcessIdentity(**fields) for role, fields in loaded.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise InvariantViolated(f"{self._path} is damaged: {error}") from error

    def put(self, role: str, identity: ProcessIdentity) -> None:
        """Remember the newest process of a role."""
        known = {**self.read(), role: identity}
        text = json.dumps({name: asdict(item) for name, item in known.items()})
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(text)
        temporary.replace(self._path)

    def alive(self, role: str) -> ProcessIdentity | None:
        """The process of a role, if it still runs."""
        identity = self.read().get(role)
        return identity if is_alive(identity) else None
