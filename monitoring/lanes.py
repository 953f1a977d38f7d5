"""Many small tasks that wait for others, side by side: a task that hangs costs one lane, not all.

    monitoring.fleet ── put(name, task) ─► lanes ─► done() ── (name, result or error) ─► fleet

Tasks are begun in the order they were put. Whenever all lanes are busy and some task has held its
lane for long, another lane is opened beside it, so that hundreds of accounts that do not answer
do not keep the others waiting.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from module.ports import Clock

STUCK_AFTER_S = 2.0
LANES_MAX = 192


@dataclass(frozen=True, slots=True)
class Done:
    """A task's end: what it returned, or what it raised."""

    name: str
    result: object = None
    error: Exception | None = None


class Lanes(Protocol):
    """Where tasks run."""

    def put(self, name: str, task: Callable[[], object]) -> None:
        """Run `task` when a lane is free."""
        ...

    def done(self, timeout_s: float) -> Done | None:
        """The next task that ended; None when none did for so long (real seconds)."""
        ...

    def close(self) -> None:
        """Begin no further task. What hangs is left to end by itself."""
        ...


class InlineLanes:
    """One lane, the caller's own: a task runs when it is put. For simulations."""

    def __init__(self) -> None:
        self._ended: deque[Done] = deque()

    def put(self, name: str, task: Callable[[], object]) -> None:
        """Run it now."""
        self._ended.append(_run(name, task))

    def done(self, timeout_s: float) -> Done | None:
        """The next that ended."""
        return self._ended.popleft() if self._ended else None

    def close(self) -> None:
        """Nothing runs."""


class ThreadLanes:
    """Daemon threads: at first `size` of them, more only beside stuck ones."""

    def __init__(self, size: int, clock: Clock) -> None:
        self._clock = clock
        self._size = size
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[str, Callable[[], object]] | None] = (
            queue.SimpleQueue()
        )
        self._ended: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self._begun_s: dict[int, float] = {}
        self._threads = 0
        self._closed = False

    def put(self, name: str, task: Callable[[], object]) -> None:
        """Run it when a lane is free."""
        self._tasks.put((name, task))
        if self._threads < self._size:
            self._open()

    def done(self, timeout_s: float) -> Done | None:
        """The next task that ended; opens lanes beside stuck ones while it waits."""
        give_up_s = self._clock.monotonic() + timeout_s
        while True:
            left_s = give_up_s - self._clock.monotonic()
            try:
                return self._ended.get(timeout=max(0.0, min(left_s, STUCK_AFTER_S / 4)))
            except queue.Empty:
                self._relieve()
            if left_s <= 0:
                return None

    def close(self) -> None:
        """Begin no further task."""
        self._closed = True
        for _ in range(self._threads):
            self._tasks.put(None)

    def _relieve(self) -> None:
        before_s = self._clock.monotonic() - STUCK_AFTER_S
        with self._lock:
            stuck = sum(1 for begun_s in self._begun_s.values() if begun_s < before_s)
        wanted = min(self._size + stuck, LANES_MAX)
        while self._threads < wanted and not self._tasks.empty():
            self._open()

    def _open(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"lane-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        lane = threading.get_ident()
        while (next_one := self._tasks.get()) is not None and not self._closed:
            with self._lock:
                self._begun_s[lane] = self._clock.monotonic()
            done = _run(*next_one)
            with self._lock:
                self._begun_s.pop(lane, None)
            self._ended.put(done)


def _run(name: str, task: Callable[[], object]) -> Done:
    try:
        return Done(name, task())
    except Exception as error:  # noqa: BLE001 (it is the answer: who put the task judges it)
        return Done(name, error=error)
