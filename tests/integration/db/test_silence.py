"""A Postgres that stands still, or that nobody reaches any more, lets nobody wait for ever."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil
import psycopg2
import pytest
from sqlalchemy import event, text, update

import module.db.database as database_module
from module.clock import SystemClock
from module.db import silence
from module.db.address import ServerAddress, server_address
from module.db.circuit import somebody_answers
from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.platform_tables import Account
from module.db.repositories.accounts import AccountRepository
from module.db.repositories.gateway_writes import (
    Author,
    Reservation,
    WriteEntry,
    WriteKind,
    WriteRepository,
)
from module.model.credentials import SealedCredentials
from module.model.errors import OutcomeUnknown, Unavailable
from module.settings import Settings
from tests.fakes.frozen_postgres import standing_still
from tests.fakes.platform import fake_platform
from tests.fakes.stored_rows import NOON, paper_account

LIMIT_S = 0.2
REAL = SystemClock()
Result = TypeVar("Result")


@pytest.fixture
def database(postgres: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT_S", 2)
    monkeypatch.setattr(silence, "ANSWER_GRACE_S", LIMIT_S)
    made = Database(postgres, "finplatform", 2, statement_timeout_ms=1000)
    with made.transaction() as session:
        session.execute(text("DROP TABLE IF EXISTS marks"))
        session.execute(text("CREATE TABLE marks (id int PRIMARY KEY)"))
    yield made
    made.close()


def when_it_answers(call: Callable[[], Result]) -> Result:
    """What the call returns once the circuit has heard the server again."""
    while True:
        try:
            return call()
        except Unavailable:
            REAL.pause(0.05)


def _raw(settings: Settings, limit_s: float) -> silence.AnsweredConnection:
    """A connection whose server limits nothing."""
    address = server_address(settings)
    made: silence.AnsweredConnection = psycopg2.connect(
        host=address.host,
        port=address.port,
        user=settings.database_user,
        password=settings.secret("database_password"),
        dbname="finplatform",
        connection_factory=silence.answered_connections(limit_s),
    )
    return made


def test_E1_nobody_waits_for_ever_for_a_server_that_stands_still(
    database: Database, postgres: Settings, postgres_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """A statement, a transaction, a request of the API, and an order on its way at the gateway."""
    hasty = postgres.model_copy(update={"database_statement_timeout_ms": 1000})
    platform = fake_platform(hasty, tmp_path)
    user, client = platform.person("ada")
    writes, author = _gateway(database, user.user_id)

    def ask() -> tuple[int, object]:
        answer = client.get("/results/sessions")
        return answer.status, answer.json().get("code")

    def reserve() -> Reservation:
        entry = WriteEntry(WriteKind.ORDER, "BTCUSDT", {"size": "0.01"}, "aifap-1")
        return writes.reserve_orders(author, [entry], NOON)

    assert ask() == (200, None)
    with ThreadPoolExecutor() as threads:
        with standing_still(postgres_server):
            asked, reserved = threads.submit(ask), threads.submit(reserve)
            alone = threads.submit(lambda: database.run_alone(text("SELECT 1"), {}))
            whole = threads.submit(database.ping)
            assert asked.result() == (503, "unavailable")
            assert "may be repeated" in str(reserved.exception())
            assert "may be repeated" in str(alone.exception())
            assert "nothing was written" in str(whole.exception())
        errors = [each.exception() for each in (reserved, alone, whole)]
        assert [type(error) for error in errors] == [Unavailable] * 3
    when_it_answers(database.ping)
    while ask() != (200, None):
        REAL.pause(0.05)
    again = reserve()  # the first one may have arrived with the thaw: one row, fresh or seen
    assert {*again.fresh, *again.seen} == {"aifap-1"}
    platform.close()


def _gateway(database: Database, owner_id: str) -> tuple[WriteRepository, Author]:
    """An account of epoch 7 that the gateway `gw-1` owns, and its writes."""
    record = paper_account(owner_id, epoch=7)
    AccountRepository(database).add(record, SealedCredentials(1, b"sealed"))
    with database.transaction() as session:
        session.execute(
            update(Account)
            .where(Account.account_id == record.account_id)
            .values(gateway_lease="gw-1")
        )
    author = Author(record.account_id, "2611211130-ab3x", 7, "gw-1")
    return WriteRepository(database), author


def test_E2_a_commit_to_a_server_that_stands_still_is_unknown_not_failed(
    database: Database, postgres_server: EmbeddedPostgres
) -> None:
    database.ping()
    frozen = standing_still(postgres_server)
    event.listen(database.engine(), "commit", lambda _: frozen.__enter__(), once=True)
    try:
        with (
            pytest.raises(OutcomeUnknown, match=r"no answer within 1\.2 s"),
            database.transaction() as session,
        ):
            session.execute(text("INSERT INTO marks (id) VALUES (4)"))
    finally:
        frozen.__exit__(None, None, None)
    when_it_answers(database.ping)


def test_E1_once_it_was_silent_nobody_waits_until_it_is_heard_again(
    database: Database, postgres_server: EmbeddedPostgres
) -> None:
    """Thirty that waited a limit's time each would see it go on by itself."""
    assert postgres_server.pid is not None
    asks: list[Callable[[], object]] = [
        database.ping,
        lambda: database.express.run("SELECT 1", {}),
    ]
    database.ping()
    with standing_still(postgres_server):
        for ask in asks * 15:
            with pytest.raises(Unavailable):
                ask()
        assert psutil.Process(postgres_server.pid).status() == psutil.STATUS_STOPPED
    when_it_answers(database.ping)
    database.express.run("SELECT 1", {})


def test_E1_connections_that_time_out_open_the_circuit_too(
    postgres: Settings, postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT_S", 2)
    fresh = Database(postgres, "finplatform", 2)
    assert postgres_server.pid is not None
    with standing_still(postgres_server):
        for _ in range(30):
            with pytest.raises(Unavailable):
                fresh.ping()
        assert psutil.Process(postgres_server.pid).status() == psutil.STATUS_STOPPED
    when_it_answers(fresh.ping)
    fresh.close()


def test_a_server_that_refuses_is_no_silent_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
        assert not somebody_answers(ServerAddress(host, port), 0.2), "it listens and says nothing"
    assert somebody_answers(ServerAddress(host, port), 60)
    assert somebody_answers(ServerAddress(str(tmp_path), 5432), 60)


def test_E1_a_copy_that_nobody_takes_any_more_ends(
    postgres: Settings, postgres_server: EmbeddedPostgres
) -> None:
    link = _raw(postgres, LIMIT_S)
    frozen = standing_still(postgres_server)

    class Endless(io.StringIO):
        def read(self, _size: int | None = -1) -> str:
            if not self.closed:
                frozen.__enter__()
                self.close()
            return "5\n" * 4096

    try:
        with link.cursor() as cursor, pytest.raises(psycopg2.OperationalError, match="was cut"):
            cursor.execute("CREATE TEMPORARY TABLE taken (id int)")
            cursor.copy_expert("COPY taken FROM STDIN", Endless())
    finally:
        frozen.__exit__(None, None, None)
    assert link.closed


def test_a_statement_that_nobody_answers_ends_and_others_go_on(postgres: Settings) -> None:
    silent, patient = _raw(postgres, LIMIT_S), _raw(postgres, 60.0)
    rows: list[object] = []

    def wait() -> None:
        with patient.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.8), 41")
            rows.append(cursor.fetchone())

    thread = threading.Thread(target=wait)
    thread.start()
    with silent.cursor() as cursor, pytest.raises(psycopg2.OperationalError, match="was cut"):
        cursor.execute("SELECT pg_sleep(60)")
    thread.join(60)
    assert rows == [("", 41)]
    assert silent.closed
    patient.close()


def test_many_statements_have_a_limit_each_not_one_together(postgres: Settings) -> None:
    link = _raw(postgres, 1.0)
    with link.cursor() as cursor:
        cursor.executemany("SELECT pg_sleep(%s)", [(0.15,)] * 8)
    link.commit()
    link.close()


def test_a_forked_child_is_not_kept_waiting_either(postgres: Settings) -> None:
    ours = _raw(postgres, 60.0)
    with ours.cursor() as cursor:
        cursor.execute("SELECT 1")
    child = os.fork()
    if child == 0:
        theirs = _raw(postgres, LIMIT_S)
        try:
            theirs.cursor().execute("SELECT pg_sleep(60)")
        except psycopg2.OperationalError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    ours.close()


def test_a_descriptor_that_is_somebody_elses_by_now_is_left_alone(postgres: Settings) -> None:
    link, other = _raw(postgres, LIMIT_S), _raw(postgres, 60.0)
    number = link.fileno()
    os.dup2(other.fileno(), number)  # as if libpq had closed it and another had got the number
    link.answer.cut()
    with other.cursor() as cursor:
        cursor.execute("SELECT 43")
        assert cursor.fetchone() == (43,)
    other.close()


def test_no_thread_is_left_when_the_last_database_is_closed(postgres: Settings) -> None:
    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate()}

    made = Database(postgres, "finplatform", 1)
    for _ in range(2):
        made.ping()
        assert silence.THREAD_NAME in threads()
        made.close()
        assert silence.THREAD_NAME not in threads()
