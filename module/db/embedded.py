"""The installation's own Postgres: real, unprivileged, in one folder, started and stopped here.

Used where no database host is set. `<data>/postgres` holds `data` (the cluster), `run` (the
socket), `start.log`, `address.json`. The server reaches its folder through an inherited
descriptor, never by walking the path, so it works as another system user below `/root` and no
parent's permissions are ever touched.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from module.db.address import SOCKET_PORT, address_file, postgres_folder
from module.db.database import DATABASE_NAMES
from module.db.postgres_programs import PostgresPrograms, ServerUser
from module.model.errors import Conflict, Forbidden, Unavailable

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

    from module.settings import Settings

SUPERUSER: Final = "postgres"
READER: Final = "aifap_reader"
DISK_FREE_MIN_MB: Final = 256
SOCKET_PATH_BYTES_MAX: Final = 100
START_POLL_MS: Final = 50
START_POLLS_MAX: Final = 1200  # a minute: recovery after a crash included
STOP_WAIT_MS: Final = 30_000
KILL_WAIT_MS: Final = 10_000
SET_UP_ANSWER_S: Final = 120.0  # a copy of a database on a slow disk included
SHARED_MEMORY_BUSY_TRIES_MAX: Final = 20

SERVER_OPTIONS: Final = (
    "fsync=on",
    "full_page_writes=on",
    "shared_buffers=64MB",
    "max_connections=120",
    "max_wal_size=512MB",
    "maintenance_work_mem=32MB",
    "huge_pages=off",
    "timezone=UTC",
    "log_timezone=UTC",
    "password_encryption=scram-sha-256",
    "logging_collector=on",
    "log_directory=log",
    "log_filename=postgres-%a.log",
    "log_truncate_on_rotation=on",
    "log_rotation_age=1d",
    "log_checkpoints=off",
    "log_parameter_max_length_on_error=0",
)


class EmbeddedPostgres:
    """The server of one data folder. Every call may come from any process of the installation."""

    def __init__(self, settings: Settings, *, tcp_port: int | None = None) -> None:
        """`tcp_port`: listen on 127.0.0.1 as well (dashboards); None: the Unix socket alone."""
        self._settings = settings
        self._tcp_port = tcp_port
        self.folder = postgres_folder(settings)
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The running server's process, or None. A pid that became somebody else's is None."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
            lives_in = Path(f"/proc/{pid}/cwd").readlink()
        except (OSError, ValueError, IndexError):
            return None
        return pid if lives_in == self._data else None

    @property
    def port(self) -> int:
        """The port in the socket's name, and on 127.0.0.1 where asked for."""
        return self._tcp_port or SOCKET_PORT

    @property
    def socket_path(self) -> Path:
        """The Unix socket itself."""
        return self._socket_folder() / f".s.PGSQL.{self.port}"

    def start(self, *, ends_with_parent: bool = False) -> None:
        """Make the server run and answer; a server of this folder that runs already is kept.

        Creates the cluster, the role of the settings, the three databases and the read-only role
        at the first start. `ends_with_parent` ties it to the calling thread's process (tests).
        Conflict: the port is taken. Forbidden: the folder is not ours. Unavailable: no disk
        space, or the server does not come up; the message ends with what Postgres said.
        """
        self._reap()
        self._make_folder()
        with self._locked():
            if self.pid is None or not self._answers_in_time(launched=False):
                user = ServerUser.for_folder(self.folder, self._data)
                programs = PostgresPrograms.for_user(user)
                if not self._data.exists():
                    self._initialise(programs)
                self._launch(programs, ends_with_parent=ends_with_parent)
                self._answers_in_time(launched=True)
            self._set_up()

    def stop(self) -> None:
        """End the server: open transactions are undone, everything committed is on disk."""
        with self._locked():
            pid = self.pid
            if pid is not None:
                self._end(pid)
                with suppress(OSError):  # a short one elsewhere is nobody's once it is empty
                    self._socket_folder().rmdir()
        self._reap()

    def kill(self) -> None:
        """End the server as a crash would, at once and without a checkpoint (tests of recovery)."""
        pid = self.pid
        if pid is not None:
            _signal_and_wait(pid, signal.SIGQUIT, KILL_WAIT_MS)
        self._reap()

    def reader_password(self) -> str:
        """The password of the read-only role, for dashboards."""
        return self._derived_password(READER)

    def superuser_connection(self, database: str = "postgres") -> Connection:
        """A connection in autocommit mode as the cluster's owner; Unavailable if it fails."""
        import psycopg2

        from module.db.silence import answered_connections

        try:
            connection: Connection = psycopg2.connect(
                connection_factory=answered_connections(SET_UP_ANSWER_S),
                host=str(self._socket_folder()),
                port=self.port,
                user=SUPERUSER,
                password=self._derived_password(SUPERUSER),
                dbname=database,
                connect_timeout=5,
            )
        except psycopg2.OperationalError as error:
            raise Unavailable(f"Postgres in {self.folder} does not answer: {error}") from error
        connection.autocommit = True
        return connection

    # -- the folder ---------------------------------------------------------------------------

    def _make_folder(self) -> None:
        try:
            self._settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise Forbidden(
                f"{self.folder} cannot be created ({error.strerror}); choose another folder with "
                "AIFAP_DATA_DIR"
            ) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            owner = self.folder.stat().st_uid
            raise Forbidden(
                f"{self.folder} is not writable for user {os.geteuid()} (it belongs to user "
                f"{owner}); run as its owner or choose another folder with AIFAP_DATA_DIR"
            )
        free_mb = shutil.disk_usage(self.folder).free // (1 << 20)
        if free_mb < DISK_FREE_MIN_MB:
            raise Unavailable(
                f"only {free_mb} MB are free below {self.folder}; Postgres needs "
                f"{DISK_FREE_MIN_MB} MB to start: make room and start again"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One start or stop at a time; the kernel frees the lock of a dead process."""
        path = self.folder.with_name("postgres.lock")
        if not path.parent.exists():
            yield
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _socket_folder(self) -> Path:
        """`run` in our folder, or a short one elsewhere when its path is too long for a socket."""
        own = self.folder / "run"
        if len(os.fsencode(own)) + len("/.s.PGSQL.65535") <= SOCKET_PATH_BYTES_MAX:
            return own
        name = "aifap-" + hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - checked below
        return (runtime if runtime.is_dir() else Path("/tmp")) / name  # noqa: S108

    def _make_socket_folder(self, user: ServerUser) -> Path:
        path = self._socket_folder()
        try:
            path.mkdir(mode=0o700)
            user.take(path)
        except FileExistsError:
            status = path.lstat()
            if path.is_symlink() or status.st_uid != user.uid:
                raise Forbidden(
                    f"{path} is not a folder of user {user.name}; remove it and start again"
                ) from None
        return path

    # -- the cluster --------------------------------------------------------------------------

    def _initialise(self, programs: PostgresPrograms) -> None:
        """Create the cluster beside its place and move it there once it is whole."""
        user = programs.user
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        user.take(self.folder)
        password = self.folder / "initial-password"
        password.unlink(missing_ok=True)
        descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(self._derived_password(SUPERUSER) + "\n")
            user.take(password)
            with _opened(self.folder) as folder:
                programs.initdb(
                    f"--pgdata=/proc/self/fd/{folder}/{unfinished.name}",
                    f"--pwfile=/proc/self/fd/{folder}/{password.name}",
                    f"--username={SUPERUSER}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--locale=C",
                    descriptors=(folder,),
                )
        finally:
            password.unlink(missing_ok=True)
        unfinished.rename(self._data)

    def _launch(self, programs: PostgresPrograms, *, ends_with_parent: bool) -> None:
        stale = self._data / "postmaster.pid"
        stale.unlink(missing_ok=True)  # `pid` was None under our lock: nobody lives in this folder
        if self._tcp_port is not None:
            _refuse_taken_port(self._tcp_port)
        socket_folder = self._make_socket_folder(programs.user)
        for _ in range(SHARED_MEMORY_BUSY_TRIES_MAX):
            with (
                _opened(self.folder) as folder,
                _opened(socket_folder) as run,
                (self.folder / "start.log").open("wb") as log,
            ):
                options = (
                    *SERVER_OPTIONS,
                    f"unix_socket_directories=/proc/self/fd/{run}",
                    "unix_socket_permissions=0700",
                    f"listen_addresses={'' if self._tcp_port is None else '127.0.0.1'}",
                    f"port={self.port}",
                )
                self._process = programs.postgres(
                    "-D",
                    f"/proc/self/fd/{folder}/data",
                    *(word for option in options for word in ("-c", option)),
                    descriptors=(folder, run),
                    log=log,
                    ends_with_parent=ends_with_parent,
                )
            if not self._ended_over_shared_memory():
                break
        self._write_address(socket_folder)

    def _ended_over_shared_memory(self) -> bool:
        """Whether it gave up because processes of a killed server are still ending."""
        process = self._process
        if process is None or not _ended_within(process.pid, 200):
            return False
        process.wait()
        return "shared memory block" in self._said()

    def _write_address(self, socket_folder: Path) -> None:
        path = address_file(self._settings)
        temporary = path.with_suffix(".tmp")
        document = {"socket_folder": str(socket_folder), "port": self.port}
        temporary.write_text(json.dumps(document) + "\n")
        temporary.chmod(0o600)
        temporary.replace(path)

    def _answers_in_time(self, *, launched: bool) -> bool:
        """Wait until the server answers; False when one that we did not launch was just ending.

        Unavailable, with what it said, when the one that we launched ends or stays mute.
        """
        import psycopg2

        last: Exception | None = None
        for _ in range(START_POLLS_MAX):
            process = self._process if launched else None
            if process is not None and process.poll() is not None:
                raise Unavailable(
                    f"Postgres in {self.folder} ended at its start (exit code "
                    f"{process.returncode}); it said: {self._said()}"
                )
            try:
                self.superuser_connection().close()
                return True
            except Unavailable as error:
                cause = error.__cause__
                if isinstance(cause, psycopg2.OperationalError) and "password" in str(cause):
                    raise Conflict(
                        f"the cluster in {self.folder} was made with another password than "
                        f"{self._settings.data_dir}/secrets/database_password; put the old secret "
                        "back, or remove both to start empty"
                    ) from error
                last = error
            pid = process.pid if process is not None else self.pid
            if pid is None:
                return False
            _ended_within(pid, START_POLL_MS)
        raise Unavailable(f"Postgres in {self.folder} does not come up: {last}; {self._said()}")

    def _set_up(self) -> None:
        """Roles and databases; each step looks first, so an interrupted first start is mended."""
        from psycopg2 import sql

        connection = self.superuser_connection()
        try:
            owner = self._settings.database_user
            _make_role(connection, owner, self._settings.secret("database_password"))
            _make_role(connection, READER, self._derived_password(READER))
            with connection.cursor() as cursor:
                reader = sql.Identifier(READER)
                cursor.execute(
                    sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(reader)
                )
                cursor.execute(
                    sql.SQL("ALTER ROLE {} SET statement_timeout = '15s'").format(reader)
                )
                cursor.execute("SELECT datname FROM pg_database")
                known = {str(row[0]) for row in cursor.fetchall()}
                for name in DATABASE_NAMES:
                    if name in known:
                        continue
                    database = sql.Identifier(name)
                    cursor.execute(
                        sql.SQL("CREATE DATABASE {} OWNER {}").format(
                            database, sql.Identifier(owner)
                        )
                    )
                    cursor.execute(
                        sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(database)
                    )
                    cursor.execute(
                        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, reader)
                    )
        finally:
            connection.close()

    # -- small things -------------------------------------------------------------------------

    def _derived_password(self, role: str) -> str:
        key = self._settings.secret("database_password").encode()
        return hmac.new(key, f"postgres-role:{role}".encode(), hashlib.sha256).hexdigest()

    def _said(self) -> str:
        try:
            lines = (self.folder / "start.log").read_text(errors="replace").splitlines()
        except OSError:
            return "nothing"
        return " | ".join(lines[-4:])[-600:] or "nothing"

    def _end(self, pid: int) -> None:
        if _signal_and_wait(pid, signal.SIGINT, STOP_WAIT_MS):
            return
        if _signal_and_wait(pid, signal.SIGQUIT, KILL_WAIT_MS):
            return
        raise Unavailable(f"Postgres (pid {pid}) in {self.folder} does not end; end it by hand")

    def _reap(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None


def _make_role(connection: Connection, role: str, password: str) -> None:
    from psycopg2 import sql
    from psycopg2.extensions import encrypt_password

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
        if cursor.fetchone() is not None:
            return
        # The verifier, not the password: a statement that fails is written to the server's log.
        verifier = encrypt_password(password, role, connection, "scram-sha-256")
        cursor.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(role), sql.Literal(verifier)
            )
        )


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Conflict(
                f"port {port} on 127.0.0.1 cannot be used for Postgres ({error.strerror}); choose "
                "another one or none"
            ) from error


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ended_within(pid: int, wait_ms: int) -> bool:
    """Whether the process is over, looking for at most `wait_ms` of real time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(wait_ms))
    finally:
        os.close(descriptor)


def _signal_and_wait(pid: int, number: signal.Signals, wait_ms: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return True
    return _ended_within(pid, wait_ms)
