"""The door to Postgres: one pool per database and process, transactions, errors in our words.

Repositories get a `Session` from here; nothing else in the product makes an engine. Engines are
made at first use and once more after a fork, so that no socket is ever shared between processes.
What must be quick and may be repeated goes as single statements through `express`.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from sqlalchemy import URL, Engine, Executable, Row, create_engine, event, text
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from module.clock import SystemClock
from module.db.address import server_address
from module.db.circuit import Circuit, allowed_s, patience, somebody_answers, waiting
from module.db.express import Express
from module.db.other_schema import is_about_schema, other_schema
from module.model.errors import InvariantViolated, OutcomeUnknown, Unavailable

if TYPE_CHECKING:
    import psycopg2.extensions
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect

    from module.settings import Settings

DatabaseName = Literal["finplatform", "fin_crypto", "finwatcher"]
DATABASE_NAMES: Final[tuple[DatabaseName, ...]] = ("finplatform", "fin_crypto", "finwatcher")

CONNECT_TIMEOUT_S: Final = 5
TIMED_OUT_SHARE: Final = 0.9
POOL_TIMEOUT_S: Final = 5.0
ROOM_LOOK_S: Final = 0.01
# Over TCP each end finds out within a minute that the other one is gone without a word: an idle
# connection then fails at once, and a machine that vanished holds no lock for hours (leases).
_KEEPALIVES: Final = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
_SERVERS_KEEPALIVES: Final = "-c tcp_user_timeout=60000 " + " ".join(
    f"-c tcp_{name}={value}" for name, value in _KEEPALIVES.items()
)
TRANSACTION_ATTEMPTS_MAX: Final = 3
# serialization_failure, deadlock_detected: Postgres undid the whole transaction (E6)
RETRIED_SQLSTATES: Final = frozenset({"40001", "40P01"})
CHECK_VIOLATION: Final = "23514"
INTERNAL_CLASS: Final = "XX"

Result = TypeVar("Result")
_CLOCK: Final = SystemClock()


class Database:
    """One of the three databases, as one process uses it.

    `pool_size` connections at most (default: the setting). Give a path that must not wait for
    others (orders) a `Database` of its own. `statement_timeout_ms` bounds every statement (the
    server keeps it; where it says nothing for a grace longer, `module.db.silence` ends the wait),
    `pool_timeout_s` (real) the wait for a connection. While the server is silent every call is
    Unavailable at once (`module.db.circuit`).
    """

    def __init__(
        self,
        settings: Settings,
        name: DatabaseName,
        pool_size: int | None = None,
        *,
        statement_timeout_ms: int | None = None,
        pool_timeout_s: float = POOL_TIMEOUT_S,
    ) -> None:
        self.name = name
        self._pool_timeout_s = pool_timeout_s
        self._settings = settings
        self._pool_size = settings.database_pool_size if pool_size is None else pool_size
        self._statement_timeout_ms = (
            settings.database_statement_timeout_ms
            if statement_timeout_ms is None
            else statement_timeout_ms
        )
        self._engine: Engine | None = None
        self._engine_pid = 0
        self._lock = threading.Lock()
        self._circuit = Circuit(name, self._knock)
        self._express = Express(
            name, self._connect, self._pool_size, pool_timeout_s, self._circuit.admit
        )

    @property
    def express(self) -> Express:
        """Single statements, committed with one round trip each; harmless to repeat."""
        return self._express

    def engine(self) -> Engine:
        """The pool of this process; made at first use, and again in a forked child."""
        if self._engine is not None and self._engine_pid == os.getpid():
            return self._engine
        with self._lock:
            if self._engine is not None and self._engine_pid == os.getpid():
                return self._engine
            if self._engine is not None:
                # The parent's sockets: forget them without closing what the parent still uses.
                self._engine.dispose(close=False)
            self._engine = self._make_engine()
            self._engine_pid = os.getpid()
            return self._engine

    def _engine_now(self) -> Engine:
        """The pool, when the server may be asked and the pool has room for whoever is hurried."""
        self._circuit.admit()
        engine = self.engine()
        if patience() is not None:
            until_s = _CLOCK.monotonic() + allowed_s(self._pool_timeout_s)
            with waiting():
                while _busy(engine) >= self._pool_size:
                    if _CLOCK.monotonic() >= until_s:
                        raise _all_busy(self.name)
                    _CLOCK.pause(ROOM_LOOK_S)
        return engine

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose work is committed at the end of the block, or undone by an exception.

        Unavailable when Postgres cannot be reached or gives up (nothing was done).
        OutcomeUnknown when the answer to COMMIT was lost: read back by key, or use
        `run_idempotent` for writes that may be repeated.
        """
        session = Session(self._engine_now(), expire_on_commit=False)
        try:
            with _translated(self.name, NOTHING_WRITTEN):
                yield session
                session.flush()
            self._commit(session)
        finally:
            _close(session)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading only; Postgres refuses writes in it. Unavailable as above."""
        session = Session(
            self._engine_now().execution_options(postgresql_readonly=True),
            expire_on_commit=False,
        )
        try:
            with _translated(self.name, NOTHING_WRITTEN):
                yield session
        finally:
            _close(session)

    def run_idempotent(self, work: Callable[[Session], Result]) -> Result:
        """Run `work` in a transaction; the whole of it again, at most three times altogether.

        Again after a deadlock, a serialisation failure, or a COMMIT whose answer was lost, so
        `work` must be harmless to repeat (upserts). Unavailable when Postgres stays away.
        """
        for attempt in range(1, TRANSACTION_ATTEMPTS_MAX + 1):
            try:
                with self.transaction() as session:
                    return work(session)
            except OutcomeUnknown as error:
                if attempt == TRANSACTION_ATTEMPTS_MAX:
                    raise Unavailable(f"{error.message}; the write may be repeated") from error
            except Unavailable as error:
                undone = error.code == UNDONE_CODE
                if not undone or attempt == TRANSACTION_ATTEMPTS_MAX:
                    raise
        raise InvariantViolated("the last attempt neither returned nor raised")

    def run_alone(self, statement: Executable, values: Mapping[str, object]) -> Sequence[Row[Any]]:
        """Execute one statement as a transaction of its own, without BEGIN and COMMIT around it;
        the rows it returned. For statements that are harmless to repeat: it may be executed again.

        Unavailable when Postgres stays away; whether it was done is then not known.
        """
        for attempt in range(1, TRANSACTION_ATTEMPTS_MAX + 1):
            try:
                with _translated(self.name, MAY_REPEAT), self._engine_now().connect() as connection:
                    alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                    result = alone.execute(statement, values)
                    return result.all() if result.returns_rows else []
            except Unavailable as error:
                if error.code != UNDONE_CODE or attempt == TRANSACTION_ATTEMPTS_MAX:
                    raise
        raise InvariantViolated("the last attempt neither returned nor raised")

    @contextmanager
    def hold_lock(self, key: int) -> Iterator[bool]:
        """Whether this process has the advisory lock `key`, for as long as the block lasts.

        It lives on a connection of its own, which is in no transaction: the work may take long.
        """
        with _translated(self.name, MAY_REPEAT), self._engine_now().connect() as connection:
            keeper = connection.execution_options(isolation_level="AUTOCOMMIT")
            values = {"key": key}
            taken = keeper.execute(text("SELECT pg_try_advisory_lock(:key)"), values).scalar_one()
            try:
                yield bool(taken)
            finally:
                if taken:
                    keeper.execute(text("SELECT pg_advisory_unlock(:key)"), values)

    def ping(self) -> None:
        """Return when Postgres answers; Unavailable otherwise."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give all connections back; the next use makes new ones."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose(close=self._engine_pid == os.getpid())
                self._engine = None
        self._express.close()
        from module.db.silence import rest

        rest()

    def _commit(self, session: Session) -> None:
        try:
            session.commit()
        except DBAPIError as error:
            if not is_about_connection(error):
                raise
            if _is_undone(error):
                raise _undone(self.name, error) from error
            if error.connection_invalidated or not _sqlstate(error):
                session.invalidate()  # nobody knows what state that connection is in
                raise OutcomeUnknown(
                    f"the answer to a COMMIT in {self.name} was lost ({_first_line(error)}); "
                    "what it wrote may or may not be there: read it back by its key"
                ) from error
            raise _unavailable(self.name, error, NOTHING_WRITTEN) from error

    def _connect(self) -> psycopg2.extensions.connection:
        """A connection beside the pool, whose every statement is committed by itself."""
        import psycopg2

        address = server_address(self._settings)
        with self._connecting():
            connection: psycopg2.extensions.connection = psycopg2.connect(
                host=address.host,
                port=address.port,
                user=self._settings.database_user,
                password=self._settings.secret("database_password"),
                dbname=self.name,
                **self._connect_words(),
            )
        connection.autocommit = True
        return connection

    @contextmanager
    def _connecting(self) -> Iterator[None]:
        """A connection is made in here. One that took all the time it may makes the server suspect;
        whoever is hurried knocks first, since libpq gives nobody less than two seconds."""
        import psycopg2

        if patience() is not None:
            self._circuit.suspect()
        try:
            self._circuit.admit()
        except Unavailable as error:
            raise psycopg2.OperationalError("nobody answered a moment ago") from error
        began_s = _CLOCK.monotonic()
        try:
            with waiting():
                yield
        except Exception:
            if _CLOCK.monotonic() - began_s >= CONNECT_TIMEOUT_S * TIMED_OUT_SHARE:
                self._circuit.suspect()
            raise

    def _knock(self, limit_s: float) -> bool:
        return somebody_answers(server_address(self._settings), limit_s)

    def _connect_words(self) -> dict[str, Any]:
        from module.db.silence import ANSWER_GRACE_S, answered_connections

        limit_s = self._statement_timeout_ms / 1000 + ANSWER_GRACE_S
        return {
            "connection_factory": answered_connections(limit_s, self._circuit.suspect),
            "connect_timeout": CONNECT_TIMEOUT_S,
            **_KEEPALIVES,
            "application_name": f"aifap-{os.getpid()}",
            "options": (
                f"-c statement_timeout={self._statement_timeout_ms}"
                " -c idle_in_transaction_session_timeout=60000 -c timezone=UTC"
                f" {_SERVERS_KEEPALIVES}"
            ),
        }

    def _url(self) -> URL:
        address = server_address(self._settings)
        return URL.create(
            "postgresql+psycopg2",
            username=self._settings.database_user,
            password=self._settings.secret("database_password"),
            host=None if address.host.startswith("/") else address.host,
            port=None if address.host.startswith("/") else address.port,
            database=self.name,
            query=(
                {"host": address.host, "port": str(address.port)}
                if address.host.startswith("/")
                else {}
            ),
        )

    def _make_engine(self) -> Engine:
        engine = create_engine(
            self._url(),
            pool_size=self._pool_size,
            max_overflow=0,
            pool_timeout=self._pool_timeout_s,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=self._connect_words(),
        )

        def connect(
            dialect: Dialect, _record: object, words: tuple[Any, ...], named: dict[str, Any]
        ) -> DBAPIConnection:
            with self._connecting():
                return dialect.connect(*words, **named)

        event.listen(engine, "do_connect", connect)
        return engine

    def __repr__(self) -> str:
        return f"Database({self.name!r})"


UNDONE_CODE: Final = "transaction-undone"
NOTHING_WRITTEN: Final = "nothing was written"
MAY_REPEAT: Final = "what was to be written may be repeated"


@contextmanager
def _translated(name: str, outcome: str) -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise _all_busy(name) from error
    except DBAPIError as error:
        if not is_about_connection(error):
            raise
        if _is_undone(error):
            raise _undone(name, error) from error
        raise _unavailable(name, error, outcome) from error


def _all_busy(name: str) -> Unavailable:
    return Unavailable(
        f"all connections to {name} are busy and none became free; ask again later",
        retry_after_s=1.0,
    )


def _busy(engine: Engine) -> int:
    return engine.pool.checkedout() if isinstance(engine.pool, QueuePool) else 0


def is_about_connection(error: DBAPIError) -> bool:
    """Whether it says something of Postgres or the way there, and nothing of the statement.

    psycopg2 raises its bare DatabaseError when the server ends while an answer is read; what the
    server itself says always has a SQLSTATE. A table that is not there yet, or may not be used,
    says that the migration has not run; an internal error that the server is broken.
    """
    if isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated:
        return True
    if _is_undone(error) or is_about_schema(_sqlstate(error)):
        return True
    if _sqlstate(error).startswith(INTERNAL_CLASS):
        return True
    return type(error) is DatabaseError and not _sqlstate(error)


def _is_undone(error: DBAPIError) -> bool:
    """A deadlock, a serialisation failure, or a row whose partition was made while it was written
    (the default one no longer takes it): the same once more finds its way."""
    state = _sqlstate(error)
    if state == CHECK_VIOLATION:
        # a constraint that a table declares has a name, the bounds of a partition have none
        said = getattr(error.orig, "diag", None)
        return said is not None and said.constraint_name is None
    return state in RETRIED_SQLSTATES


_ADDRESS = re.compile(r' (?:on socket|at) "[^"]*"(?: \([^)]*\))?(?:, port \d+)?')


def _unavailable(name: str, error: DBAPIError, outcome: str) -> Unavailable:
    if is_about_schema(_sqlstate(error)):
        return other_schema(name, _first_line(error))
    return Unavailable(
        f"database {name} does not answer ({_first_line(error)}); {outcome}",
        retry_after_s=1.0,
    )


def _undone(name: str, error: DBAPIError) -> Unavailable:
    return Unavailable(
        f"Postgres undid a transaction in {name} ({_first_line(error)}); it may be repeated whole",
        code=UNDONE_CODE,
        retry_after_s=0.1,
    )


def _first_line(error: DBAPIError) -> str:
    """What psycopg2 says, without the server's address: users read it too."""
    lines = str(error.orig).strip().splitlines()
    return _ADDRESS.sub("", lines[0]) if lines else type(error.orig).__name__


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "pgcode", None) or "")


def _close(session: Session) -> None:
    """Roll back what is open and return the connection; a dead connection is no second error."""
    try:
        session.close()
    except DBAPIError as error:
        if not is_about_connection(error):
            raise
        session.invalidate()
