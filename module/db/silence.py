"""No statement waits for ever: a connection whose answer does not come is cut from our side.

    execute, copy, commit … ─► Answer (its deadline) ─► Watch (one thread) ─► the socket is shut
                                      └─ was cut ─► Circuit.suspect

`statement_timeout` is the server's: one that stands still, or sits behind a network that drops
packets without a word, keeps its client in libpq for ever. Keepalives and `tcp_user_timeout` see
nothing of it (the kernel of a process that stands still goes on acknowledging, and Unix sockets
have neither), and psycopg2's wait callback takes COPY away. A socket that is shut wakes libpq up.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from psycopg2.extensions import connection, cursor

from module.clock import SystemClock
from module.db.circuit import allowed_s, patience

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg2.sql import Composable

    Statement = str | bytes | Composable

ANSWER_GRACE_S: Final = 2.0
"""How long after the server's own limit its word that it gave up is waited for."""
OVERSLEPT_S: Final = 1.0
THREAD_NAME: Final = "database-silence"
REST_WAIT_S: Final = 5.0
_monotonic = SystemClock().monotonic
log = logging.getLogger(__name__)


class Answer:
    """What one connection waits for, again and again: `with answer:` around each round trip.

    An error of a round trip that was cut is psycopg2's OperationalError and says so.
    """

    __slots__ = (
        "_began_s",
        "_file",
        "_inode",
        "_limit_s",
        "_suspect",
        "_waits_s",
        "deadline",
        "was_cut",
        "was_spared",
    )

    def __init__(self, file: int, limit_s: float, suspect: Callable[[], None]) -> None:
        """`file`: the descriptor of the connection's socket; `limit_s`: real seconds, fewer for
        whoever is `hurried`; `suspect` is called after a cut, by the thread that waited."""
        self._file = file
        self._inode = os.fstat(file).st_ino
        self._limit_s = limit_s
        self._suspect = suspect
        self._waits_s = limit_s
        self._began_s = 0.0
        self.deadline = 0.0
        self.was_cut = False
        self.was_spared = False

    def __enter__(self) -> None:
        self.begin()
        _watch.add(self)

    def __exit__(
        self, _kind: object, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _watch.remove(self)
        self.end()
        if self.was_cut and isinstance(error, psycopg2.Error):
            self._suspect()
            raise psycopg2.OperationalError(
                f"no answer within {self._waits_s:.3g} s, so the connection was cut"
            ) from error

    def begin(self) -> None:
        """A round trip begins: so long from now its answer may take."""
        self._waits_s = allowed_s(self._limit_s)
        self._began_s = _monotonic()
        self.deadline = self._began_s + self._waits_s
        self.was_spared = False

    def end(self) -> None:
        """A round trip is over: what it took is taken from the patience of whoever is hurried."""
        mine = patience()
        if mine is not None:
            mine.left_s -= _monotonic() - self._began_s

    def cut(self) -> bool:
        """Shut the socket, so that libpq hears of an end; False: not now, no descriptor is free.

        libpq closes its descriptor when it finds the connection broken, and the number may be
        somebody else's a moment later: a duplicate is looked at first, then shut.
        """
        self.was_cut = True
        try:
            duplicate = os.dup(self._file)
        except OSError as error:
            return error.errno == errno.EBADF  # libpq was quicker
        if os.fstat(duplicate).st_ino != self._inode:
            os.close(duplicate)
            return True
        # Not connected any more: libpq has heard already.
        with contextlib.suppress(OSError), socket.socket(fileno=duplicate) as link:
            link.shutdown(socket.SHUT_RDWR)
        return True


class Watch:
    """The answers that are waited for in this process, and the thread that looks at the clock.

    The thread begins with the first of them and sleeps to the earliest deadline it knows: while
    statements are answered it wakes once in a limit's time, and not at all where there are none.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: set[Answer] = set()
        self._wakes_at: float | None = None
        self._thread: threading.Thread | None = None

    def add(self, answer: Answer) -> None:
        """Cut it after its deadline, unless it is removed before."""
        with self._lock:
            self._waiting.add(answer)
            if self._thread is None or not self._thread.is_alive():
                self._begin()
            elif self._wakes_at is None or answer.deadline < self._wakes_at:
                self._changed.notify_all()

    def remove(self, answer: Answer) -> None:
        """The round trip is over. When this returns it is not cut any more."""
        with self._lock:
            self._waiting.discard(answer)

    def rest(self) -> None:
        """End the thread while nothing is waited for: a process that forks wants to be alone."""
        with self._lock:
            thread = self._thread
            if thread is None or self._waiting:
                return
            self._thread = self._wakes_at = None
            self._changed.notify_all()
        thread.join(REST_WAIT_S)

    def _begin(self) -> None:
        thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had now, or the interpreter is ending
            log.warning("this statement has the server's limit alone: no thread can be started")
        else:
            self._thread = thread

    def _run(self) -> None:
        with self._lock:
            while self._thread is threading.current_thread():
                now = _monotonic()
                for answer in [each for each in self._waiting if each.deadline <= now]:
                    self._overdue(answer, now)
                self._wakes_at = min((each.deadline for each in self._waiting), default=None)
                left_s = None if self._wakes_at is None else max(0.0, self._wakes_at - now)
                self._changed.wait(left_s)

    def _overdue(self, answer: Answer, now: float) -> None:
        if now - answer.deadline > OVERSLEPT_S and not answer.was_spared:
            # This process stood still itself: the answer may have come, and waits to be read.
            answer.was_spared = True
            answer.deadline = now + OVERSLEPT_S
            return
        if answer.cut():
            self._waiting.discard(answer)
        else:
            answer.deadline = now + OVERSLEPT_S


_watch = Watch()


def rest() -> None:
    """End this process's thread, unless a statement is under way; the next one begins it again."""
    _watch.rest()


def _begin_process() -> None:
    """The parent's thread, and what its other threads wait for, are not the child's."""
    global _watch  # noqa: PLW0603  # one per process: the thread cannot be handed along
    _watch = Watch()


os.register_at_fork(after_in_child=_begin_process)


def _nobody() -> None:
    """Nobody wants to know."""


def answered_connections(
    limit_s: float, suspect: Callable[[], None] = _nobody
) -> Callable[..., AnsweredConnection]:
    """A `connection_factory` for psycopg2: every round trip ends within so many real seconds;
    `suspect` is called after one that had to be cut."""

    def make(dsn: str, **words: int) -> AnsweredConnection:
        made = AnsweredConnection(dsn, **words)
        made.answer = Answer(made.fileno(), limit_s, suspect)
        return made

    return make


class AnsweredConnection(connection):
    """psycopg2's, whose every round trip has an end. Made by `answered_connections`."""

    answer: Answer

    def __init__(self, dsn: str, **words: int) -> None:
        super().__init__(dsn, **words)
        self.cursor_factory = AnsweredCursor

    def commit(self) -> None:
        """Whether it happened is not known when the answer did not come."""
        with self.answer:
            super().commit()

    def rollback(self) -> None:
        """As psycopg2's."""
        with self.answer:
            super().rollback()


class AnsweredCursor(cursor):
    """psycopg2's, over an `AnsweredConnection`."""

    connection: AnsweredConnection

    def execute(self, query: Statement, vars: Any = None) -> None:  # noqa: A002
        """As psycopg2's."""
        with self.connection.answer:
            super().execute(query, vars)

    def executemany(self, query: Statement, vars_list: Iterable[Any]) -> None:
        """As psycopg2's: a statement for each, and the limit for each of them."""
        answer = self.connection.answer

        def each() -> Iterator[Any]:
            for values in vars_list:
                answer.end()
                answer.begin()
                yield values

        with answer:
            super().executemany(query, each())

    def copy_expert(self, sql: Statement, file: Any, size: int = 8192) -> None:
        """As psycopg2's; the limit is for the whole, as the server's is."""
        with self.connection.answer:
            super().copy_expert(sql, file, size)
