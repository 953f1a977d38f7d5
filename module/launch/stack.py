"""The services of a standalone installation, started in order, watched, and stopped in reverse.

A service that ends is started again, with growing pauses; one that keeps ending brings the stack
down with a message that names its log. One that says itself that only a restart helps
(`/health/live`, as Kubernetes asks it) is ended, and so started again. Of several that ended, one
that `goes_first` (the gateway: the others ask it, and positions need it) has the machine to itself
until it is ready, for a few seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from module.life_line import PARENT_VARIABLE
from module.logs import get_logger, open_log
from module.model.errors import AifapError, Unavailable
from module.ports import Clock

READY_WAIT_S = 120.0
READY_PAUSE_S = 0.05
STOP_GRACE_S = 20.0
RESTARTS_MAX = 5
RESTART_WINDOW_S = 600.0
WATCH_PAUSE_S = 0.2
GUARD_PAUSE_S = 1.0
REVIVED_ALONE_S = 5.0
LIVE_PAUSE_S = 5.0
LIVE_ANSWER_S = 2.0
USELESS_ANSWERS = 2
"""So many answers in a row, and a service that calls itself of no use is ended."""
LOG_TAIL_LINES = 12

log = get_logger("launch.stack")


@dataclass(frozen=True, slots=True)
class Service:
    """One process: how it starts, how one sees that it is ready. `useless`: why it says itself that
    only a restart helps; None while it does not say so."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    goes_first: bool = False
    useless: Callable[[], str | None] | None = None


@dataclass(slots=True)
class _Running:
    service: Service
    process: subprocess.Popen[bytes]
    starts: deque[float] = field(default_factory=deque)
    retry_at: float = 0.0
    useless_answers: int = 0


class Stack:
    """Services by name. `logs` is the folder for `<name>.log`."""

    def __init__(self, logs: Path, clock: Clock) -> None:
        self._logs = logs
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._watchers: dict[threading.Thread, threading.Event] = {}
        self.failure: str | None = None

    def start(self, service: Service) -> None:
        """Start it and wait until it is ready; Unavailable quotes its log when it is not."""
        process = self._spawn(service)
        with self._lock:
            self._running[service.name] = _Running(
                service, process, deque([self._clock.monotonic()])
            )
        deadline = self._clock.monotonic() + READY_WAIT_S
        while not service.ready():
            code = process.poll()
            if code is not None:
                raise Unavailable(
                    f"{service.name} ended with code {code} while starting:\n{self._said(service)}"
                )
            if self._clock.monotonic() > deadline:
                raise Unavailable(
                    f"{service.name} was not ready within {READY_WAIT_S:.0f} s:\n"
                    f"{self._said(service)}"
                )
            self._clock.pause(READY_PAUSE_S)

    def watch(self, guards: Sequence[Callable[[], None]] = ()) -> None:
        """Restart what ends, or says that it is of no use, from now on, in threads.

        `guards` look after what is not a plain child (Postgres, the session host): each is called
        every GUARD_PAUSE_S, in a thread of their own, since it may wait until what it has started
        is ready; what it raises is said in the log.
        """
        self._begin("stack-watch", self._watch)
        self._begin("stack-liveness", self._ask)
        self._begin("stack-guards", lambda idle: self._guard(tuple(guards), idle))

    def _begin(self, name: str, body: Callable[[threading.Event], None]) -> None:
        idle = threading.Event()
        thread = threading.Thread(target=body, args=(idle,), name=name, daemon=True)
        self._watchers[thread] = idle
        thread.start()

    def stop_watching(self) -> None:
        """Nothing is restarted from now on.

        The threads that restarted services stay: when a thread ends, the kernel ends the processes
        that asked to end with their parent and were started by it.
        """
        self._stopping.set()
        for idle in self._watchers.values():
            idle.wait(STOP_GRACE_S)

    def stop(self) -> None:
        """End everything that was started, newest first; returns when it is gone."""
        self.stop_watching()
        with self._lock:
            running = list(reversed(self._running.values()))
            self._running.clear()
        for item in running:
            self._end(item.process)
        self._over.set()
        for thread in self._watchers:
            thread.join(timeout=STOP_GRACE_S)
        self._watchers.clear()

    def stop_one(self, name: str) -> None:
        """End one service for good, before the others."""
        with self._lock:
            item = self._running.pop(name, None)
        if item is not None:
            self._end(item.process)

    def pids(self) -> dict[str, int]:
        """Who runs now."""
        with self._lock:
            return {name: item.process.pid for name, item in self._running.items()}

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **service.environment,
            PARENT_VARIABLE: str(os.getpid()),
        }
        with open_log(self._logs / f"{service.name}.log") as log:
            return subprocess.Popen(
                list(service.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def _watch(self, idle: threading.Event) -> None:
        while not self._stopping.is_set():
            with self._lock:
                running = list(self._running.values())
            for item in running:
                if item.process.poll() is not None:
                    self._revive(item)
                if self._has_the_machine(item):
                    break
            self._clock.pause(WATCH_PAUSE_S)
        idle.set()
        self._over.wait()

    def _has_the_machine(self, item: _Running) -> bool:
        """Whether it was started again a moment ago and is not ready: what comes after it waits."""
        if not item.service.goes_first or len(item.starts) < 2:
            return False
        if self._clock.monotonic() - item.starts[-1] > REVIVED_ALONE_S:
            return False
        return item.process.poll() is None and not item.service.ready()

    def _ask(self, idle: threading.Event) -> None:
        """End what calls itself of no use; `_watch` starts it again, as often as anything else.

        One that does not answer is left: a machine that stands still for a while would end them
        all.
        """
        while not self._stopping.wait(LIVE_PAUSE_S):
            with self._lock:
                running = list(self._running.values())
            for item in running:
                self._end_useless(item)
        idle.set()
        self._over.wait()

    def _end_useless(self, item: _Running) -> None:
        process, ask = item.process, item.service.useless
        why = None if ask is None or process.poll() is not None else ask()
        item.useless_answers = 0 if why is None else item.useless_answers + 1
        if item.useless_answers < USELESS_ANSWERS or self._stopping.is_set():
            return
        item.useless_answers = 0
        log.error("a service is of no use; it is started again", service=item.service.name, why=why)
        self._end(process)

    def _guard(self, guards: Sequence[Callable[[], None]], idle: threading.Event) -> None:
        while not self._stopping.wait(GUARD_PAUSE_S):
            for guard in guards:
                try:
                    guard()
                except AifapError as error:
                    log.warning("could not be started again; trying on", detail=error.message)
        idle.set()
        self._over.wait()

    def _revive(self, item: _Running) -> None:
        now = self._clock.monotonic()
        if now < item.retry_at or self._stopping.is_set():
            return
        while item.starts and now - item.starts[0] > RESTART_WINDOW_S:
            item.starts.popleft()
        if len(item.starts) > RESTARTS_MAX:
            self.failure = (
                f"{item.service.name} ended {len(item.starts)} times within ten minutes:\n"
                f"{self._said(item.service)}"
            )
            return
        item.retry_at = now + 0.2 * 2 ** len(item.starts)
        item.starts.append(now)
        code = item.process.returncode
        item.process = self._spawn(item.service)
        log.warning("a service ended and was started again", service=item.service.name, code=code)

    def _said(self, service: Service) -> str:
        """The end of its log, for a person."""
        path = self._logs / f"{service.name}.log"
        lines = path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (it said nothing)"

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require_free(host: str, port: int, option: str) -> None:
    """Unavailable, in one readable line, when `port` is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(
                f"port {port} on {host} cannot be used ({error.strerror}); choose another with "
                f"{option}"
            ) from error


def answers(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def useless_by(host: str, port: int) -> str | None:
    """What the process that listens there answers where it says that only a restart helps (its
    `/health/live` is 503); None while it says nothing of the kind, or nothing at all."""
    connection = HTTPConnection(host, port, timeout=LIVE_ANSWER_S)
    try:
        connection.request("GET", "/health/live")
        response = connection.getresponse()
        answer = response.read(1_000).decode(errors="replace")
        return answer if response.status == 503 else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
