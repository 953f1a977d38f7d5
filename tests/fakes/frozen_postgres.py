"""A Postgres that stands still: alive, its sockets open, and not a word from it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psutil

from module.db.embedded import EmbeddedPostgres

STILL_MAX_S = 40.0
"""Real seconds after which it goes on by itself: who waits for it then fails, and hangs nothing."""


@contextlib.contextmanager
def standing_still(server: EmbeddedPostgres) -> Iterator[None]:
    """Every process of the server is stopped (SIGSTOP) until the block ends."""
    assert server.pid is not None
    postmaster = psutil.Process(server.pid)
    stopped: list[psutil.Process] = []

    def go_on() -> None:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    in_any_case = threading.Timer(STILL_MAX_S, go_on)
    in_any_case.daemon = True
    in_any_case.start()
    try:
        # the postmaster first: then no process comes to be that is not seen here
        postmaster.suspend()
        stopped.append(postmaster)
        for child in postmaster.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.suspend()
                stopped.append(child)
        yield
    finally:
        in_any_case.cancel()
        go_on()
