"""The session host: forks leaders and their children, adopts what an earlier host left.

    router ── Unix socket: start, stop, poll ──► host ── fork ──► leader
    leader ── Unix socket: fork + descriptors ─► host ── fork ──► strategy process, finwatcher
    host ── exec with an empty environment ────► runner host (user code's children)

Single-threaded, heavy modules loaded once and frozen, so that a session costs megabytes. The truth
about which sessions should run is in Postgres: every few seconds the host starts a leader for each
unfinished session that has none. It holds no state that a new host could not find again.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from module.clock import SystemClock
from module.files.session_folder import log_path, make_session_folder, session_folder
from module.launch.host_protocol import (
    host_socket_path,
    peer_uid,
    read_request,
    runner_socket_path,
)
from module.launch.processes import (
    ProcessIdentity,
    ProcessRecord,
    end_process,
    end_processes,
    identify,
    open_pidfd,
    send_signal,
)
from module.logs import configure_logs, get_logger, open_log
from module.model.errors import AifapError, InvalidInput, Unavailable, require
from module.model.sessions import check_session_id
from module.settings import Settings

LOOK_EVERY_S = 2.0
RESTARTS_MAX = 5
RESTART_WINDOW_S = 600.0
BACKOFF_FIRST_S = 0.5
RUNNER_PAUSE_MAX_S = 30.0
RUNNER_LIVED_S = 60.0
"""One that lived for less is, from its second end on, started again after a growing pause."""
HAND_OVER_GRACE_S = 15.0

log = get_logger("trading.host")

Body = Callable[[Settings, str, Sequence[int]], int]


class ForkedChild:
    """A process known by pid and start time."""

    def __init__(self, identity: ProcessIdentity) -> None:
        self.identity = identity
        descriptor = open_pidfd(identity)
        if descriptor is None:
            raise Unavailable(f"process {identity.pid} ended at once; see the session's log")
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Readable when it has ended."""
        return self._descriptor

    def end(self) -> None:
        """SIGTERM, then SIGKILL."""
        end_process(self.identity, grace_s=2.0)


def fork_role(
    settings: Settings, session_id: str, role: str, descriptors: Sequence[int], body: Body
) -> ProcessIdentity:
    """Fork a process of a session that runs `body` and never returns here; who it is."""
    folder = make_session_folder(settings.data_dir, session_id)
    gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(gate_write)
        _run_body(settings, session_id, role, descriptors, body, gate_read)
    os.close(gate_read)
    identity = identify(child)
    require(identity is not None, f"the forked {role} of {session_id} vanished")
    assert identity is not None
    ProcessRecord(folder).put(role, identity)
    os.close(gate_write)  # only now may it run: whoever looks finds it in the record
    return identity


def _run_body(
    settings: Settings,
    session_id: str,
    role: str,
    descriptors: Sequence[int],
    body: Body,
    gate: int,
) -> None:
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, lambda *_: gc.collect())  # for whoever measures memory
        os.read(gate, 1)
        os.close(gate)
        file = open_log(log_path(settings.data_dir, session_id, role))
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        configure_logs(f"{session_id}:{role}", settings.log_level, file)
        code = body(settings, session_id, descriptors)
    except BaseException as error:
        log.error("process ended by an error", role=role, exc_info=error)
    finally:
        os._exit(code)


@dataclass(slots=True)
class _Watched:
    """What the host remembers of one session's leader."""

    starts: deque[float] = field(default_factory=deque)
    not_before: float = 0.0


class SessionHost:
    """One per build and data folder (a lock sees to it)."""

    def __init__(self, settings: Settings, bodies: dict[str, Body], truth: HostTruth) -> None:
        self._settings = settings
        self._bodies = bodies
        self._truth = truth
        self._clock = SystemClock()
        self._watched: dict[str, _Watched] = {}
        self._stopping = False
        self._runner: subprocess.Popen[bytes] | None = None
        self._runner_pauses = GrowingPause(BACKOFF_FIRST_S, RUNNER_PAUSE_MAX_S, RUNNER_LIVED_S)
        self._runner_listener: socket.socket | None = None
        self._listener: socket.socket | None = None

    # --- loop ------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Until it is told to shut down."""
        wake = self._install_signals()
        self._listener = _listen(host_socket_path(self._settings.data_dir))
        self._runner_listener = _listen(runner_socket_path(self._settings.data_dir))
        self._start_runner()
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(self._listener, select.POLLIN)
        look_at = 0.0
        while not self._stopping:
            now = self._clock.monotonic()
            if now >= look_at:
                self._reconcile()
                look_at = self._clock.monotonic() + LOOK_EVERY_S
            for descriptor, _ in poller.poll(max(10, (look_at - now) * 1000)):
                if descriptor == wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                    look_at = min(look_at, self._clock.monotonic() + 0.05)
                else:
                    self._serve_one()
            _reap()

    def _install_signals(self) -> int:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return wake_read

    def _stop(self, *_: object) -> None:
        self._stopping = True

    @contextlib.contextmanager
    def runner_only(self) -> Iterator[None]:
        """Only the runner host, for a session that is led without a session host."""
        self._runner_listener = _listen(runner_socket_path(self._settings.data_dir))
        self._start_runner()
        try:
            yield
        finally:
            self._end_runner()

    def _end_runner(self) -> None:
        if self._runner is not None:
            self._runner.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._runner.wait(5)
            self._runner.kill()
        runner_socket_path(self._settings.data_dir).unlink(missing_ok=True)

    def close(self) -> None:
        """End what this host started; sessions are handed over, not ended."""
        self._hand_over()
        self._end_runner()
        host_socket_path(self._settings.data_dir).unlink(missing_ok=True)

    def _hand_over(self) -> None:
        """Every session's processes end, role by role; Postgres still wants the sessions to run."""
        records = [
            ProcessRecord(session_folder(self._settings.data_dir, session_id))
            for session_id in self._truth.session_folders()
        ]
        for role, grace_s in (
            ("leader", HAND_OVER_GRACE_S),
            ("strategy", 2.0),
            ("finwatcher", 5.0),
        ):
            alive = [found for record in records if (found := record.alive(role)) is not None]
            end_processes(alive, grace_s)

    # --- requests --------------------------------------------------------------------------------

    def _serve_one(self) -> None:
        require(self._listener is not None, "serving without a listener")
        assert self._listener is not None
        channel, _ = self._listener.accept()
        channel.settimeout(5.0)
        descriptors: list[int] = []
        with channel:
            try:
                if peer_uid(channel) != os.geteuid():
                    raise InvalidInput("only this host's own user may speak to it")
                request, descriptors = read_request(channel)
                answer: dict[str, object] = {"ok": True, **self._answer(request, descriptors)}
            except (AifapError, OSError) as error:
                log.warning("request refused", detail=str(error))
                answer = {"ok": False, "error": str(error)}
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            with contextlib.suppress(OSError):
                channel.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, request: dict[str, object], descriptors: Sequence[int]) -> dict[str, object]:
        operation = request.get("op")
        if operation == "ping":
            return {"pid": os.getpid()}
        if operation == "shutdown":
            self._stopping = True
            return {}
        session_id = check_session_id(str(request.get("session_id")))
        record = ProcessRecord(session_folder(self._settings.data_dir, session_id))
        if operation == "start":
            self._ensure_leader(session_id, ask=True)
            return {}
        if operation == "stop":
            leader = record.alive("leader")
            if leader is None or not send_signal(leader, signal.SIGUSR1):
                self._ensure_leader(session_id, ask=True)
            return {}
        if operation == "poll":
            return {"running": record.alive("leader") is not None}
        if operation == "fork":
            return self._fork_for_leader(session_id, str(request.get("role")), descriptors)
        raise InvalidInput(f"unknown request {operation!r}")

    def _fork_for_leader(
        self, session_id: str, role: str, descriptors: Sequence[int]
    ) -> dict[str, object]:
        if role not in self._bodies or role == "leader":
            raise InvalidInput(f"a leader cannot ask for a {role!r}")
        record = ProcessRecord(session_folder(self._settings.data_dir, session_id))
        identity = record.alive(role) if role == "finwatcher" else None
        if identity is not None:
            os.write(descriptors[0], b"1")  # it watches already
        else:
            identity = self._fork(session_id, role, descriptors)
        return {
            "pid": identity.pid,
            "started_ticks": identity.started_ticks,
            "boot_id": identity.boot_id,
        }

    def _fork(self, session_id: str, role: str, descriptors: Sequence[int]) -> ProcessIdentity:
        require(threading.active_count() == 1, "the host must be single-threaded when it forks")
        return fork_role(
            self._settings, session_id, role, descriptors, self._closing(self._bodies[role])
        )

    def _closing(self, body: Body) -> Body:
        """The child keeps nothing of the host's own sockets."""

        def run(settings: Settings, session_id: str, descriptors: Sequence[int]) -> int:
            for listener in (self._listener, self._runner_listener):
                if listener is not None:
                    listener.close()
            return body(settings, session_id, descriptors)

        return run

    # --- keeping sessions alive ------------------------------------------------------------------

    def _reconcile(self) -> None:
        """A leader for every unfinished session; a runner host; bounded restarts."""
        self._start_runner()
        try:
            unfinished = self._truth.unfinished_sessions()
        except AifapError as error:
            log.warning("sessions not read; looking again soon", detail=str(error))
            return
        for session_id in unfinished:
            try:
                self._ensure_leader(session_id, ask=False)
            except AifapError as error:
                log.warning("no leader started", session=session_id, detail=str(error))

    def _ensure_leader(self, session_id: str, *, ask: bool) -> None:
        folder = session_folder(self._settings.data_dir, session_id)
        if ProcessRecord(folder).alive("leader") is not None:
            return
        if ask and session_id not in self._truth.unfinished_sessions():
            raise InvalidInput(f"session {session_id} is over or does not exist")
        watched = self._watched.setdefault(session_id, _Watched())
        now = self._clock.monotonic()
        while watched.starts and now - watched.starts[0] > RESTART_WINDOW_S:
            watched.starts.popleft()
        if now < watched.not_before:
            return
        if len(watched.starts) > RESTARTS_MAX:
            reason = f"its leader ended {len(watched.starts)} times within ten minutes"
            self._truth.give_up(session_id, reason)
            return
        watched.not_before = now + BACKOFF_FIRST_S * 2 ** len(watched.starts)
        watched.starts.append(now)
        identity = self._fork(session_id, "leader", [])
        log.info("leader started", session=session_id, pid=identity.pid)

    def _start_runner(self) -> None:
        if self._runner is not None and self._runner.poll() is None:
            return
        now = self._clock.monotonic()
        if self._runner is not None and not self._runner_is_due(self._runner, now):
            return
        self._runner_pauses.began(now)
        require(self._runner_listener is not None, "no socket for the runner host")
        assert self._runner_listener is not None
        number = self._runner_listener.fileno()
        command = [sys.executable, "-I", "-m", "trading.runner_host", "--socket-fd", str(number)]
        command += ["--wall-s", str(self._settings.strategy_timeout_s)]
        command += ["--memory-mb", str(self._settings.strategy_memory_mb)]
        if self._settings.sandbox == "pod":
            command.append("--pod")
        with open_log(self._settings.data_dir / "logs" / "runner_host.log") as file:
            self._runner = subprocess.Popen(
                command,
                env={},
                cwd="/",
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        if self._runner_pauses.count < 2:
            log.info("runner host started", pid=self._runner.pid)

    def _runner_is_due(self, runner: subprocess.Popen[bytes], now: float) -> bool:
        """Whether it is started again now; that it keeps ending is told once."""
        before = self._runner_pauses.count
        is_due = self._runner_pauses.is_over(now)
        if self._runner_pauses.count == 2 and before == 1:
            log.error(
                "the runner host ends right after its start: no strategy can run; it is started "
                "again after pauses that grow to half a minute",
                code=runner.returncode,
                said_in=str(self._settings.data_dir / "logs" / "runner_host.log"),
            )
        return is_due


class GrowingPause:
    """When something that keeps ending is started again: at once, then after `first_s`, then after
    twice as long each time, at most `longest_s`; anew from where it lived for `lived_s`."""

    def __init__(self, first_s: float, longest_s: float, lived_s: float) -> None:
        self._first_s, self._longest_s, self._lived_s = first_s, longest_s, lived_s
        self._began_s = 0.0
        self._due_s: float | None = None
        self.count = 0
        """How often in a row it ended too soon."""

    def began(self, now_s: float) -> None:
        """It was started."""
        self._began_s, self._due_s = now_s, None

    def is_over(self, now_s: float) -> bool:
        """It has ended: whether it is to be started now. The pause runs from the first question."""
        if self._due_s is None:
            lived = now_s - self._began_s >= self._lived_s
            self.count = 0 if lived else self.count + 1
            doublings = min(self.count - 2, 30)
            pause_s = self._first_s * 2.0**doublings if doublings >= 0 else 0.0
            self._due_s = now_s + min(pause_s, self._longest_s)
        return now_s >= self._due_s


class HostTruth:
    """What the host reads from Postgres and from the data folder."""

    def __init__(
        self,
        settings: Settings,
        unfinished: Callable[[], list[str]],
        give_up: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._unfinished = unfinished
        self._give_up = give_up

    def unfinished_sessions(self) -> list[str]:
        """Sessions that are not over, whatever is wanted of them."""
        return self._unfinished()

    def give_up(self, session_id: str, reason: str) -> None:
        """Mark a session failed and say so."""
        self._give_up(session_id, reason)

    def session_folders(self) -> list[str]:
        """Sessions that ever ran here."""
        folder = self._settings.data_dir / "sessions"
        return sorted(path.name for path in folder.glob("*-*") if path.is_dir())


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be listened on ({error}); a data folder with a shorter path helps"
        ) from error
    path.chmod(0o600)
    listener.listen(64)
    return listener


def _reap() -> None:
    """Collect ended children (but the runner host, which Popen collects)."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)


def main() -> int:
    """`python -m trading.session_host`: settings come from the environment and the data folder."""
    from trading.bootstrap import build_host, warm_host

    settings = Settings()
    configure_logs("session-host", settings.log_level)
    lock = FileLock(str(settings.data_dir / "run" / "host.lock"))
    (settings.data_dir / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=20)
    except Timeout:
        log.error("another session host runs on this data folder", folder=str(settings.data_dir))
        return 2
    warm_host(settings)
    gc.collect()
    gc.freeze()
    host = build_host(settings)
    try:
        host.serve()
    finally:
        host.close()
    return 0


__all__ = ["ForkedChild", "HostTruth", "SessionHost", "fork_role", "main"]

if __name__ == "__main__":
    sys.exit(main())
