"""The finwatcher process: `run_finwatcher` measures a session at second 0 of every world minute.

It is forked by the session host (or started by `python -m monitoring --session`), needs nobody and
ends by itself when the session is over. The work of one minute is `monitoring.minute`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from monitoring.minute import MINUTE, Finwatcher, FinwatcherWiring, StepReport

__all__ = ["Finwatcher", "FinwatcherWiring", "StepReport", "run_finwatcher"]


def run_finwatcher(wiring: FinwatcherWiring, stop_fd: int) -> None:
    """Measure the session every minute until it is over, SIGTERM comes, or `stop_fd` is readable.

    Each end writes a last row first. Call it in a process of its own (it handles SIGTERM there);
    the end of the process that holds the other side of `stop_fd` counts as a stop.
    """
    watcher = Finwatcher(wiring)
    clock = wiring.clock
    with _sigterm_pipe() as signal_fd:
        stops = (stop_fd, signal_fd)
        due = watcher.first_due()
        while True:
            if clock.wait_readable(stops, due):
                watcher.step(final=True)
                return
            report = watcher.step()
            if report.session_over:
                watcher.settle()
                return
            due = report.minute + MINUTE


@contextmanager
def _sigterm_pipe() -> Iterator[int]:
    """SIGTERM as a readable descriptor: the handler only enqueues."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def enqueue(_number: int, _frame: object) -> None:
        with suppress(BlockingIOError):  # the pipe is full of earlier ones
            os.write(writer, b"T")

    before = signal.signal(signal.SIGTERM, enqueue)
    try:
        yield reader
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(reader)
        os.close(writer)
