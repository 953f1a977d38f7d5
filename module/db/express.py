"""Statements that are a transaction of their own, over connections that are kept: the order path.

One statement, one round trip: no ping before it, no BEGIN and COMMIT around it. A connection that
died meanwhile is noticed by the statement itself, which then goes once more over a new one; so
whatever is sent here must be harmless to repeat (promise 1 is kept by keys, not by luck).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from module.db.circuit import allowed_s, waiting
from module.db.other_schema import is_about_schema, other_schema
from module.model.errors import Unavailable

if TYPE_CHECKING:
    import psycopg2.extensions

Row = tuple[Any, ...]  # the database's own types
Connect = Callable[[], "psycopg2.extensions.connection"]

ATTEMPTS_MAX: Final = 3
# serialization_failure, deadlock_detected: Postgres undid the statement (E6)
UNDONE_SQLSTATES: Final = frozenset({"40001", "40P01"})


class Express:
    """At most `size` kept connections of one process. Thread safe; a forked child makes its own."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        size: int,
        timeout_s: float,
        admit: Callable[[], None],
    ) -> None:
        """`timeout_s` (real): how long a statement waits for a free connection; `admit` raises
        Unavailable while the server is not to be asked."""
        self._name = name
        self._connect = connect
        self._size = size
        self._timeout_s = timeout_s
        self._admit = admit
        self._lock = threading.Lock()
        self._pid = -1
        self._idle: list[psycopg2.extensions.connection] = []
        self._parents: list[psycopg2.extensions.connection] = []
        self._free = threading.BoundedSemaphore(size)

    def run(self, statement: str, values: Mapping[str, object]) -> Sequence[Row]:
        """Execute one statement and commit it with the same round trip; the rows it returned.

        `statement` must be harmless to repeat: it is, after a lost connection or a deadlock, at
        most three times altogether. Unavailable when Postgres stays away, or gives up for time.
        """
        self._begin_process()
        self._admit()
        with waiting():
            is_free = self._free.acquire(timeout=allowed_s(self._timeout_s))
        if not is_free:
            raise Unavailable(
                f"all connections to {self._name} are busy and none became free; ask again later",
                retry_after_s=1.0,
            )
        try:
            return self._run(statement, values)
        finally:
            self._free.release()

    def close(self) -> None:
        """Give the idle connections back."""
        with self._lock:
            idle, self._idle = self._idle, []
        if self._pid == os.getpid():
            for connection in idle:
                connection.close()

    def _run(self, statement: str, values: Mapping[str, object]) -> Sequence[Row]:
        import psycopg2

        for attempt in range(1, ATTEMPTS_MAX + 1):
            connection = None
            try:
                connection = self._take(anew=attempt > 1)
                with connection.cursor() as cursor:
                    cursor.execute(statement, values)
                    rows = cursor.fetchall() if cursor.description is not None else []
                self._keep(connection)
                return rows
            except psycopg2.Error as error:
                passing = isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError))
                # what the server says has a code; without one the connection itself broke, which
                # psycopg2 may tell as a plain DatabaseError of a connection that still looks open
                broke = error.pgcode is None and (passing or type(error) is psycopg2.DatabaseError)
                lost = connection is not None and (connection.closed != 0 or broke)
                if connection is not None and lost:
                    connection.close()
                    self.close()  # the others were opened to the same server
                elif connection is not None:
                    self._keep(connection)
                if is_about_schema(error.pgcode):
                    raise other_schema(self._name, _first_line(error)) from error
                if not lost and not passing:
                    raise  # our own mistake: the statement, or its values
                is_repeated = lost or error.pgcode in UNDONE_SQLSTATES
                if not is_repeated or attempt == ATTEMPTS_MAX:
                    raise Unavailable(
                        f"database {self._name} does not answer ({_first_line(error)}); what was "
                        "to be written may be repeated",
                        retry_after_s=1.0,
                    ) from error
        raise Unavailable(f"database {self._name} does not answer")

    def _take(self, *, anew: bool) -> psycopg2.extensions.connection:
        with self._lock:
            if self._idle and not anew:
                return self._idle.pop()
        return self._connect()

    def _keep(self, connection: psycopg2.extensions.connection) -> None:
        with self._lock:
            if not connection.closed and len(self._idle) < self._size:
                self._idle.append(connection)
                return
        connection.close()

    def _begin_process(self) -> None:
        """The parent's sockets: forget them without closing what the parent still uses."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid != os.getpid():
                self._parents = self._idle  # kept referenced: collecting them would close them
                self._idle = []
                self._free = threading.BoundedSemaphore(self._size)
                self._pid = os.getpid()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
