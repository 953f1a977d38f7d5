"""A service that somebody started ends when that somebody is gone, however it went."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

PARENT_VARIABLE = "AIFAP_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the starter ends; end now if it has already.

    Does nothing unless the starter named itself in the environment (a container has no starter).
    """
    named = os.environ.pop(PARENT_VARIABLE, "")
    if not named:
        return
    _tie(int(named))


def end_with_server() -> None:
    """The same for a worker of a server with several: it ends when the server was killed."""
    server = multiprocessing.parent_process()
    if server is not None and server.pid is not None:
        _tie(server.pid)


def end_with_starter() -> None:
    """The same for a program that is given no environment: whoever is its parent now."""
    _tie(os.getppid())


def _tie(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the process that started this one is gone; ending too")
