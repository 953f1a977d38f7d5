"""A leader's children: the strategy process and finwatcher, forked by whoever may fork.

The leader owns the bells and the life line; a child that is forked gets their descriptors. It is
known by pid and start time and watched through a pidfd, so it need not be the leader's own child.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Sequence
from typing import Protocol

from module.model.errors import Unavailable

READY_WAIT_MS = 60_000


class Child(Protocol):
    """A process that was forked for the leader."""

    def fileno(self) -> int:
        """Readable when it has ended."""
        ...

    def end(self) -> None:
        """Make it end, bounded; returns when it is gone."""
        ...


class Forker(Protocol):
    """Forks trusted processes of a session: the session host, or the leader itself."""

    def fork(self, role: str, descriptors: Sequence[int]) -> Child:
        """A new process of that role (for finwatcher: the one that already runs)."""
        ...


class StrategyProcess:
    """The strategy process of a session: bells in, a life line that ends when the leader does."""

    def __init__(self, forker: Forker, bell_descriptors: Sequence[int], ready: int) -> None:
        self._forker = forker
        self._bells = list(bell_descriptors)
        self._ready = ready
        self._child: Child | None = None
        self._life_line: int | None = None
        self._begun = False

    def start(self) -> None:
        """Fork one and wait (real time) until it rang that it is ready."""
        self.begin()
        self.await_ready()

    def begin(self) -> None:
        """Fork one, unless one was begun already; `await_ready` must follow."""
        if self._begun:
            return
        self.stop()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._ready)  # a late ring of the one before is not this one's
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self._life_line = write_end
        try:
            self._child = self._forker.fork("strategy", [*self._bells, read_end])
        finally:
            os.close(read_end)
        self._begun = True

    def await_ready(self) -> None:
        """Return when it rang that it is ready; Unavailable when it ended instead."""
        if self._child is None:
            raise Unavailable("the strategy process was never started")
        self._begun = False
        _await_ready(self._ready, self._child, "strategy process")
        os.eventfd_read(self._ready)

    def fileno(self) -> int:
        """Readable when it has ended."""
        if self._child is None:
            raise Unavailable("the strategy process was never started")
        return self._child.fileno()

    def stop(self) -> None:
        """End it and forget it."""
        self._begun = False
        if self._life_line is not None:
            os.close(self._life_line)
            self._life_line = None
        if self._child is not None:
            self._child.end()
            os.close(self._child.fileno())
            self._child = None


class FinwatcherProcess:
    """Finwatcher of a session: outlives the leader, is adopted by the next one."""

    def __init__(self, forker: Forker) -> None:
        self._forker = forker
        self._child: Child | None = None
        self._ready: int | None = None

    def start(self) -> None:
        """Adopt the one that runs, or fork one, and wait until it watches."""
        self.begin()
        self.await_ready()

    def begin(self) -> None:
        """Adopt the one that runs, or fork one, unless that was begun already."""
        if self._ready is not None:
            return
        self.stop()
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        try:
            self._child = self._forker.fork("finwatcher", [ready_write])
        except BaseException:
            os.close(ready_read)
            raise
        finally:
            os.close(ready_write)
        self._ready = ready_read

    def await_ready(self) -> None:
        """Return when it watches; Unavailable when it ended instead."""
        if self._child is None or self._ready is None:
            raise Unavailable("finwatcher was never started")
        try:
            _await_ready(self._ready, self._child, "finwatcher")
        finally:
            os.close(self._ready)
            self._ready = None

    def fileno(self) -> int:
        """Readable when it has ended."""
        if self._child is None:
            raise Unavailable("finwatcher was never started")
        return self._child.fileno()

    def stop(self) -> None:
        """Let go of it; it ends by itself when the session is over."""
        if self._child is not None:
            os.close(self._child.fileno())
            self._child = None


def _await_ready(descriptor: int, child: Child, name: str) -> None:
    """Real time: a stepped world must stand still until the new process is part of it."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.register(child.fileno(), select.POLLIN)
    ready = [found for found, _ in poller.poll(READY_WAIT_MS)]
    if descriptor not in ready:
        raise Unavailable(f"the {name} ended or did not become ready; see the session's log")
