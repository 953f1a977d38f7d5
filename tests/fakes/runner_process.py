"""A real runner host, exec'd as the session host does it: no environment, one inherited socket."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from module.clock import SystemClock
from module.security.sandboxed_runner import SandboxedRunner

READY_S = 30.0


class RunnerProcess:
    """Started at once; `stop` ends it. Its folder is short, for a socket's path."""

    def __init__(self, *, wall_s: float = 8.0, memory_mb: int = 512) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rh-"))
        self.socket_path = self.folder / "runner.sock"
        self.wall_s = wall_s
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.socket_path))
        listener.listen(16)
        number = listener.fileno()
        command = [sys.executable, "-I", "-m", "trading.runner_host", "--socket-fd", str(number)]
        command += ["--wall-s", str(wall_s), "--memory-mb", str(memory_mb)]
        self.log = (self.folder / "log").open("w+b")
        self.process = subprocess.Popen(
            command,
            env={},
            cwd="/",
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        listener.close()

    def runner(self, timeout_s: float | None = None) -> SandboxedRunner:
        """The trusted side."""
        return SandboxedRunner(
            self.socket_path,
            SystemClock(),
            timeout_s=self.wall_s if timeout_s is None else timeout_s,
            display_timezone="Asia/Seoul",
        )

    def logged(self) -> str:
        """What the host said."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.log.close()
        shutil.rmtree(self.folder)
