"""Nobody waits for a Postgres that was asked a moment ago and said nothing.

    a round trip was cut, a connect timed out ─► suspect ─► knock ─► silence ─► the circuit opens
    a call ─► admit ─► open: Unavailable at once, but for one caller a second, which knocks

A server that refuses answers too, and fast: only silence opens the circuit, so a restart is seen at
once. `hurried` bounds what a piece of work waits for Postgres altogether, living or not.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from module.clock import SystemClock
from module.db.address import ServerAddress
from module.model.errors import Unavailable

KNOCK_S: Final = 1.0
PAUSE_S: Final = 1.0
LEAST_S: Final = 0.1
"""A round trip that has begun gets so long even when its work's time is used up."""
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
_monotonic = SystemClock().monotonic


class Patience:
    """Real seconds that a piece of work may still wait for Postgres."""

    __slots__ = ("left_s",)

    def __init__(self, total_s: float) -> None:
        self.left_s = total_s


_patience: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextmanager
def hurried(total_s: float) -> Iterator[None]:
    """All that is done in here waits for Postgres for so long altogether, and never longer than an
    outer `hurried` allows; then each call is Unavailable at once."""
    outer = _patience.get()
    mine = Patience(total_s if outer is None else min(total_s, outer.left_s))
    before_s = mine.left_s
    token = _patience.set(mine)
    try:
        yield
    finally:
        _patience.reset(token)
        if outer is not None:
            outer.left_s -= before_s - mine.left_s


def patience() -> Patience | None:
    """What holds here and now; None: nobody is in a hurry."""
    return _patience.get()


def allowed_s(most_s: float) -> float:
    """`most_s`, or what is left of it to whoever is in a hurry."""
    mine = _patience.get()
    return most_s if mine is None else min(most_s, max(mine.left_s, LEAST_S))


@contextmanager
def waiting() -> Iterator[None]:
    """What this takes is taken from the patience that holds."""
    mine = _patience.get()
    if mine is None:
        yield
        return
    began_s = _monotonic()
    try:
        yield
    finally:
        mine.left_s -= _monotonic() - began_s


class Circuit:
    """Whether the server of one `Database` is worth asking. Thread safe."""

    def __init__(self, name: str, knock: Callable[[float], bool]) -> None:
        """`knock(limit_s)`: whether anybody answers at the server's door within real seconds; an
        answer that nobody listens there is one."""
        self._name = name
        self._knock = knock
        self._is_open = False
        self._again_at_s = 0.0
        self._knocking = threading.Lock()
        _circuits.add(self)

    @property
    def is_open(self) -> bool:
        """Whether callers are turned away."""
        return self._is_open

    def admit(self) -> None:
        """Return when the server may be asked. Unavailable, at once, while it is silent, and when
        the caller's own time for it is used up; of all callers one a second waits for a knock."""
        mine = _patience.get()
        if mine is not None and mine.left_s <= 0:
            raise Unavailable(
                f"no time is left for database {self._name}; nothing was asked of it",
                retry_after_s=1.0,
            )
        if not self._is_open:
            return
        if self._knocking.acquire(blocking=False):
            try:
                if _monotonic() >= self._again_at_s and self._found_answering():
                    return
            finally:
                self._knocking.release()
        raise Unavailable(
            f"database {self._name} has been silent for a while; it is asked again every second, "
            "and nothing was written",
            retry_after_s=PAUSE_S,
        )

    def suspect(self) -> None:
        """An answer did not come: open the circuit unless somebody answers at the door."""
        with self._knocking:
            if not self._is_open:
                self._found_answering()

    def _found_answering(self) -> bool:
        with waiting():
            answers = self._knock(allowed_s(KNOCK_S))
        self._again_at_s = _monotonic() + PAUSE_S
        self._is_open = not answers
        return answers

    def begin_process(self) -> None:
        """A forked child has none of its parent's threads, which may be knocking."""
        self._knocking = threading.Lock()


_circuits: weakref.WeakSet[Circuit] = weakref.WeakSet()


def _begin_process() -> None:
    for circuit in tuple(_circuits):
        circuit.begin_process()


os.register_at_fork(after_in_child=_begin_process)


def somebody_answers(address: ServerAddress, limit_s: float) -> bool:
    """Whether a Postgres says anything within `limit_s`; a refusal is an answer.

    Asks whether it speaks TLS (one byte comes back, from a process that it forks for it, and the
    server's log stays quiet); a folder of a Unix socket has the same door.
    """
    until_s = _monotonic() + limit_s
    is_local = address.host.startswith("/")
    try:
        if is_local:
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(limit_s)
        else:
            link = socket.create_connection((address.host, address.port), limit_s)
        with link:
            if is_local:
                link.connect(f"{address.host}/.s.PGSQL.{address.port}")
            link.sendall(_SSL_REQUEST)
            link.settimeout(max(LEAST_S, until_s - _monotonic()))
            link.recv(1)  # nothing: it hung up, and so it lives
    except (TimeoutError, BlockingIOError):  # a backlog that nobody empties is silence too
        return False
    except OSError:
        return True
    return True
