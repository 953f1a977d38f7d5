"""Virtual time and processes in one thread: whoever waits gives the world to the next in line.

A simulated process is a `Process` with tasks (greenlets). A task runs until it waits, for time or
for a descriptor; then the hub runs the one that is due next, and moves time when nobody is. Nothing
ever really waits. The same seed runs the same tasks in the same order, on every machine.

    Process.spawn ─► task ─► SimClock.sleep / wait_readable ─► Hub ─► the earliest task
    Hub.kill(process): `Died` is thrown into each of its tasks; descriptors are closed
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from greenlet import getcurrent, greenlet

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
NEVER_MS = 2**62
STEPS_AT_ONE_MOMENT_MAX = 100_000
STEP_SLACK_MS = 500


class Died(BaseException):
    """The process of this task is gone: nothing of it may run, so nothing may catch this."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.name)
        self.process = process


class WorldStuck(Exception):
    """Nobody will ever do anything again, or nobody stops doing things."""


class Touches:
    """Counts what can make a descriptor readable or silent, while it is installed in `os`: between
    two touches a descriptor that was silent need not be asked again."""

    NAMES = ("write", "read", "close", "eventfd_write", "eventfd_read", "dup", "pipe", "pipe2")

    def __init__(self) -> None:
        self.count = 0
        self.installed = False
        self._real: dict[str, Callable[..., object]] = {}

    def __enter__(self) -> Touches:
        for name in self.NAMES:
            self._real[name] = getattr(os, name)
            setattr(os, name, self._counted(self._real[name]))
        self.installed = True
        return self

    def __exit__(self, *_: object) -> None:
        self.installed = False
        for name, real in self._real.items():
            setattr(os, name, real)

    def _counted(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.count += 1
            return real(*args, **kwargs)

        return call


@dataclass(eq=False)
class Process:
    """One simulated process. `role` is leader, strategy, finwatcher or gateway; `name` is unique.

    Every port that it is handed begins each effect with `require_alive`, so that code which is
    unwound after its death (a `finally`, a context manager) changes nothing any more.
    """

    hub: Hub
    role: str
    name: str
    alive: bool = True
    paused_until_ms: int = 0
    stood: list[tuple[int, int]] = field(default_factory=list)
    """When it did not run although it lived."""
    tasks: list[Task] = field(default_factory=list)
    descriptors: set[int] = field(default_factory=set)
    on_death: list[Callable[[], None]] = field(default_factory=list)

    def spawn(self, body: Callable[[], None], name: str = "") -> Task:
        """A task of this process; it begins when the hub comes to it, at this moment."""
        task = Task(self.hub, self, f"{self.name}/{name}" if name else self.name, body)
        self.tasks.append(task)
        self.hub.make_ready(task)
        return task

    def owns(self, descriptor: int) -> int:
        """`descriptor` is closed when the process is gone."""
        self.descriptors.add(descriptor)
        return descriptor

    def disowns(self, descriptor: int) -> None:
        """The process has closed it itself."""
        self.descriptors.discard(descriptor)

    def stand_still(self, seconds: float) -> None:
        """SIGSTOP now, SIGCONT in so many seconds."""
        now_ms = self.hub.now_ms
        self.paused_until_ms = now_ms + int(seconds * 1000)
        self.stood.append((now_ms, self.paused_until_ms))

    def require_alive(self) -> None:
        """Died when the process is gone."""
        if not self.alive:
            raise Died(self)


@dataclass(eq=False)
class Task:
    """One line of execution of a process. `result` and `error` are what its body ended with."""

    hub: Hub
    process: Process
    name: str
    body: Callable[[], None]
    due_ms: int = NEVER_MS
    tie: float = 0.0
    number: int = 0
    ready: bool = False
    over: bool = False
    error: BaseException | None = None
    fds: tuple[int, ...] = ()
    poller: select.poll | None = None
    silent_at: int = -1
    """Nothing was readable when so many descriptors had been touched (`Touches`)."""
    on_end: list[Callable[[], None]] = field(default_factory=list)
    thread: greenlet = field(init=False)

    def __post_init__(self) -> None:
        self.thread = greenlet(self._run, parent=self.hub.thread)
        self.thread.task = self  # type: ignore[attr-defined]

    def _run(self) -> None:
        try:
            self.process.require_alive()
            self.body()
        except Died as death:
            if death.process is not self.process:
                self.error = death
        except Exception as error:
            self.error = error
        finally:
            self.over = True
        self.hub.task_ended(self)


class Hub:
    """The world's time and whose turn it is. `advance` brings the outside world to a time."""

    def __init__(self, start_ms: int, seed: int) -> None:
        self.now_ms = start_ms
        self.skew_ms = 0
        """How far this machine's wall clock is off the world's true time (C7)."""
        self.start_ms = start_ms
        self.thread: greenlet = getcurrent()
        self.advance: Callable[[int], None] = self._just_move
        self.ended: Callable[[Task], None] = lambda task: None
        self.steps = 0
        self._chance = Random(f"ties:{seed}")
        self._tasks: dict[Task, None] = {}
        self._ready: list[Task] = []
        self._numbers = itertools.count()
        self._actions: list[tuple[int, int, Callable[[], None]]] = []
        self._stamp: tuple[int, datetime] = (-1, EPOCH)
        self._pollers: dict[tuple[int, ...], select.poll] = {}
        self.touches = Touches()

    # --- what bodies do --------------------------------------------------------------------------

    def now(self) -> datetime:
        """This machine's time, aware UTC."""
        local_ms = self.now_ms + self.skew_ms
        if self._stamp[0] != local_ms:
            self._stamp = (local_ms, EPOCH + local_ms * _MILLISECOND)
        return self._stamp[1]

    @property
    def current(self) -> Task | None:
        """The task that runs; None in the hub itself."""
        return getattr(getcurrent(), "task", None)

    @property
    def running(self) -> Task:
        """The task that runs; WorldStuck in the hub itself, which cannot wait."""
        task = self.current
        if task is None:
            raise WorldStuck("the hub itself cannot wait")
        return task

    def wait(self, fds: Sequence[int], until_ms: int) -> list[int]:
        """Give the world away until a descriptor is readable or true time has reached
        `until_ms`; the readable ones. Whoever is sure to run earlier may move its `due_ms`."""
        task = self.running
        task.process.require_alive()
        if fds or task.fds:
            task.fds = tuple(fds)
            task.poller = self._poller(task.fds)
            task.silent_at = -1
        task.due_ms = until_ms
        task.tie = self._chance.random()
        task.number = next(self._numbers)
        self._tasks[task] = None
        self.thread.switch()
        task.process.require_alive()
        return self._readable(task) if task.fds else []

    def block(self) -> None:
        """Give the world away until `make_ready` is called for this task, or it is made due."""
        self.wait((), NEVER_MS)

    def make_ready(self, task: Task) -> None:
        """`task` goes on at this moment."""
        if not task.over and task not in self._ready:
            task.tie = self._chance.random()
            task.number = next(self._numbers)
            self._ready.append(task)

    # --- what the world does ---------------------------------------------------------------------

    def at(self, when_ms: int, action: Callable[[], None]) -> None:
        """Run `action` (outside of every process) when true time reaches `when_ms`."""
        heapq.heappush(self._actions, (max(when_ms, self.now_ms), next(self._numbers), action))

    def kill(self, process: Process) -> None:
        """End a process at this moment. A task that kills its own process does not come back."""
        if not process.alive:
            return
        process.alive = False
        own = self.current
        for descriptor in sorted(process.descriptors):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        process.descriptors.clear()
        for task in process.tasks:
            if task is own or task.over:
                continue
            self._tasks.pop(task, None)
            if task in self._ready:
                self._ready.remove(task)
            self._unwind(task)
        for action in process.on_death:
            action()
        if own is not None and own.process is process:
            raise Died(process)

    def _unwind(self, task: Task) -> None:
        """Throw its end into a task that waits; one that never ran is simply over."""
        if not task.thread:
            task.over = True
            self.task_ended(task)
            return
        before = task.thread.parent
        task.thread.parent = getcurrent()
        task.thread.throw(Died(task.process))
        if not task.over:
            raise WorldStuck(f"{task.name} survived the end of its process")
        del before

    def task_ended(self, task: Task) -> None:
        """Whoever waits for the task is told."""
        self._tasks.pop(task, None)
        for action in task.on_end:
            action()
        self.ended(task)

    def run(self, until_ms: int, finished: Callable[[], bool] = lambda: False) -> None:
        """Let the world go on until true time is `until_ms` or `finished()`."""
        self.thread = getcurrent()
        idle_steps = 0
        while not finished():
            self.steps += 1
            while self._actions and self._actions[0][0] <= self.now_ms:
                heapq.heappop(self._actions)[2]()
            task = self._next_task()
            if task is not None:
                idle_steps += 1
                if idle_steps > STEPS_AT_ONE_MOMENT_MAX:
                    raise WorldStuck(f"{task.name} and others do not let time pass")
                self._switch(task)
                continue
            due_ms = self._next_due_ms()
            if self._actions:
                due_ms = min(due_ms, self._actions[0][0])
            if self.now_ms >= until_ms:
                return
            if due_ms >= NEVER_MS and until_ms >= NEVER_MS:
                raise WorldStuck("everybody waits, for ever")
            idle_steps = 0
            self.advance(min(max(due_ms, self.now_ms), until_ms))

    def _next_due_ms(self) -> int:
        """When a task is to be looked at again: one that stands still, once it may go on."""
        now_ms, due_ms = self.now_ms, NEVER_MS
        for task in (*self._tasks, *self._ready):
            process, task_ms = task.process, task.due_ms
            if process.paused_until_ms > now_ms:
                task_ms = process.paused_until_ms
            if task_ms < due_ms and process.alive:
                due_ms = task_ms
        return due_ms

    def _next_task(self) -> Task | None:
        """Of those that can run now, the one whose turn the seed says it is."""
        chosen: Task | None = None
        now_ms = self.now_ms
        for task in self._ready:
            if task.process.paused_until_ms <= now_ms and _before(task, chosen):
                chosen = task
        for task in self._tasks:
            due = task.due_ms <= now_ms
            if not due and (task.poller is None or self._is_silent(task)):
                continue
            if task.process.paused_until_ms > now_ms or not _before(task, chosen):
                continue
            if due or self._readable(task):
                chosen = task
        if chosen is not None:
            self._tasks.pop(chosen, None)
            if chosen in self._ready:
                self._ready.remove(chosen)
        return chosen

    def _poller(self, fds: tuple[int, ...]) -> select.poll | None:
        """Asks for these numbers, whatever they belong to when it asks."""
        if not fds:
            return None
        poller = self._pollers.get(fds)
        if poller is None:
            poller = self._pollers[fds] = select.poll()
            for fd in fds:
                poller.register(fd, select.POLLIN)
        return poller

    def _is_silent(self, task: Task) -> bool:
        """It was, and nothing has happened to any descriptor since."""
        return task.silent_at == self.touches.count and self.touches.installed

    def _readable(self, task: Task) -> list[int]:
        """Those of its descriptors that are readable now, in their order."""
        if task.poller is None or self._is_silent(task):
            return []
        news = {fd for fd, _ in task.poller.poll(0)}
        if not news:
            task.silent_at = self.touches.count
            return []
        return [fd for fd in task.fds if fd in news]

    def _switch(self, task: Task) -> None:
        thread = task.thread
        if thread.parent is not self.thread:
            thread.parent = self.thread
        thread.switch()

    def _just_move(self, when_ms: int) -> None:
        self.now_ms = when_ms


def _before(task: Task, other: Task | None) -> bool:
    return other is None or (task.tie, task.number) < (other.tie, other.number)


class SimClock:
    """`module.ports.Clock` of one process: world, real and wall time are the machine's.

    A step of the machine's wall clock (C7) moves `now` and `wall`, never `monotonic`.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._hub = process.hub

    def now(self) -> datetime:
        return self._hub.now()

    def wall(self) -> datetime:
        return self._hub.now()

    def monotonic(self) -> float:
        return (self._hub.now_ms - self._hub.start_ms) / 1000 + 1000.0

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self._hub.wait((), self._hub.now_ms + max(1, round(seconds * 1000)))

    def sleep_until(self, when: datetime) -> None:
        while (left := when - self._hub.now()) > timedelta(0):
            self._hub.wait((), self._hub.now_ms + max(1, -(-left // _MILLISECOND)))

    def pause(self, seconds: float) -> None:
        self.sleep(seconds)

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        until_ms = NEVER_MS
        if until is not None:
            until_ms = -((EPOCH - until) // _MILLISECOND) - self._hub.skew_ms
        give_up_ms = max(until_ms, self._hub.now_ms) + STEP_SLACK_MS
        while True:
            ready = self._hub.wait(fds, until_ms)
            if ready or (until is not None and self._hub.now() >= until):
                return ready
            if self._hub.now_ms >= give_up_ms:
                return []  # the clock was set back meanwhile
            if until is not None:
                until_ms = -((EPOCH - until) // _MILLISECOND) - self._hub.skew_ms
                until_ms = min(until_ms, give_up_ms)

    def wake(self, participant: str) -> None:
        """Whoever waits for the descriptor sees it."""

    def close(self) -> None:
        """Nothing to close."""


class HubLock:
    """A lock between tasks of one process, for code that may wait while it holds it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._held = False
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True) -> bool:
        while self._held:
            if not blocking:
                return False
            task = self._hub.current
            if task is None:
                raise WorldStuck("the hub itself waits for a lock")
            self._waiting.append(task)
            self._hub.block()
        self._held = True
        return True

    def release(self) -> None:
        self._held = False
        if self._waiting:
            self._hub.make_ready(self._waiting.pop(0))

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
