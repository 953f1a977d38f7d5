"""SessionLauncher on one machine: asks the session host, and starts one if there is none.

The host outlives whoever started it; a lock makes sure that there is one.
"""

from __future__ import annotations

import os
import subprocess
import sys

from filelock import FileLock, Timeout

from module.launch.host_protocol import ask_host, host_socket_path
from module.launch.processes import identify, is_alive
from module.logs import open_log
from module.model.errors import Unavailable
from module.ports import Clock
from module.settings import Settings

START_TRIES = 300
START_PAUSE_S = 0.1
SHUTDOWN_WAIT_S = 60.0
ELSEWHERE_TRIES = 20
ELSEWHERE_PAUSE_S = 0.5


class LocalLauncher:
    """start, stop, poll through the session host of this build."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._path = host_socket_path(settings.data_dir)
        self._started: subprocess.Popen[bytes] | None = None

    def start(self, session_id: str) -> None:
        """Make the session's processes run; Unavailable says why they cannot."""
        self.ensure_host()
        ask_host(self._path, {"op": "start", "session_id": session_id})

    def stop(self, session_id: str) -> None:
        """Tell the session to look at its desired state now."""
        self.ensure_host()
        ask_host(self._path, {"op": "stop", "session_id": session_id})

    def poll(self, session_id: str) -> bool:
        """Whether its leader runs."""
        try:
            answer = ask_host(self._path, {"op": "poll", "session_id": session_id})
        except Unavailable:
            return False
        return bool(answer.get("running"))

    def host_answers(self) -> bool:
        """Whether a host of this build listens."""
        try:
            ask_host(self._path, {"op": "ping"}, timeout_s=2.0)
        except Unavailable:
            return False
        return True

    def shut_down(self) -> None:
        """End the host and hand its sessions over (they go on at the next start)."""
        try:
            host = identify(int(str(ask_host(self._path, {"op": "ping"}, timeout_s=5.0)["pid"])))
            ask_host(self._path, {"op": "shutdown"}, timeout_s=5.0)
        except Unavailable:
            return
        give_up_at = self._clock.monotonic() + SHUTDOWN_WAIT_S
        while is_alive(host) and self._clock.monotonic() < give_up_at:
            self._clock.pause(START_PAUSE_S)
        if self._started is not None:
            self._started.poll()

    def ensure_host(self) -> None:
        """Start a host unless one listens; returns when it does.

        Where the host is somebody else's to start (a pod of its own) it is waited for, bounded.
        """
        if self.host_answers():
            return
        if self._settings.session_host_elsewhere:
            self._wait_for_host()
            return
        folder = self._settings.data_dir / "run"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with FileLock(str(folder / "host-start.lock"), timeout=30):
                if not self.host_answers():
                    self._spawn()
        except Timeout as error:
            raise Unavailable("another process has been starting the session host for 30 s") from (
                error
            )

    def _wait_for_host(self) -> None:
        for _ in range(ELSEWHERE_TRIES):
            self._clock.pause(ELSEWHERE_PAUSE_S)
            if self.host_answers():
                return
        raise Unavailable(
            f"no session host of this build listens at {self._path}; it is started elsewhere "
            "(AIFAP_SESSION_HOST_ELSEWHERE): look at its pod, then try again"
        )

    def _spawn(self) -> None:
        environment = {
            **os.environ,
            "AIFAP_DATA_DIR": str(self._settings.data_dir.resolve()),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        with open_log(self._settings.data_dir / "logs" / "session_host.log") as log:
            self._started = subprocess.Popen(
                [sys.executable, "-m", "trading.session_host"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        for _ in range(START_TRIES):
            if self.host_answers():
                return
            code = self._started.poll()
            if code is not None:
                raise Unavailable(
                    f"the session host ended with code {code} while starting; "
                    f"see {self._settings.data_dir}/logs/session_host.log"
                )
            self._clock.pause(START_PAUSE_S)
        raise Unavailable("the session host did not become ready within 30 s")
