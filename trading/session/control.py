"""How a process of a session is spoken to: signals only leave a byte; the loop reads them.

SIGUSR1: look at your desired state. SIGTERM: hand over (end, but the session goes on elsewhere).
"""

from __future__ import annotations

import contextlib
import os
import signal


class Control:
    """A descriptor that becomes readable when somebody speaks, and what was said so far."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.hand_over = False

    def install(self) -> None:
        """Let the signals of this process speak through it."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def fileno(self) -> int:
        """Readable when there is something to look at."""
        return self._read

    def look(self) -> bool:
        """Read what was said; whether anything was. Keeps `hand_over` once it was asked."""
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._read, 4096)
        if signal.SIGTERM in said:
            self.hand_over = True
        return bool(said)

    def close(self) -> None:
        """Undo `install` and give the descriptors back."""
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)
