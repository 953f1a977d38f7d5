"""Transactions against a real Postgres: what happens when it is slow, gone, or answers nobody."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DatabaseError, ProgrammingError
from sqlalchemy.orm import Session

from module.db.circuit import hurried
from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.model.errors import OutcomeUnknown, Unavailable
from module.settings import Settings
from tests.fakes.postgres_proxy import CommitLosingProxy

COUNT = text("SELECT count(*) FROM marks")
ADD = text("INSERT INTO marks (id) VALUES (:id) ON CONFLICT DO NOTHING")


@pytest.fixture
def database(postgres: Settings) -> Iterator[Database]:
    made = Database(postgres, "finplatform", 2, pool_timeout_s=0.3)
    with made.transaction() as session:
        session.execute(text("DROP TABLE IF EXISTS marks"))
        session.execute(text("CREATE TABLE marks (id int PRIMARY KEY, value int DEFAULT 0)"))
    yield made
    made.close()


def _add(database: Database, number: int) -> None:
    with database.transaction() as session:
        session.execute(ADD, {"id": number})


def _count(database: Database) -> int:
    with database.read() as session:
        return int(session.execute(COUNT).scalar_one())


def test_a_transaction_is_whole_or_nothing(database: Database) -> None:
    _add(database, 31)
    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        session.execute(ADD, {"id": 32})
        _ = 1 // 0
    assert _count(database) == 1


def test_a_statement_alone_is_committed_by_itself_and_leaves_transactions_as_they_are(
    postgres: Settings, database: Database
) -> None:
    one = Database(postgres, "finplatform", 1)
    try:
        say = text("SELECT set_config('synchronous_commit', 'off', true) FROM marks WHERE id = :id")
        one.run_alone(ADD, {"id": 34})
        assert _count(database) == 1
        assert one.run_alone(say, {"id": 34})[0][0] == "off"
        assert one.run_alone(text("SHOW synchronous_commit"), {})[0][0] == "on"
        with pytest.raises(ZeroDivisionError), one.transaction() as session:
            session.execute(ADD, {"id": 35})
            _ = 1 // 0
        assert _count(database) == 1
    finally:
        one.close()


def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match="read-only"), database.read() as session:
        session.execute(ADD, {"id": 33})


@pytest.mark.parametrize("way", ["transaction", "read", "run_alone", "express"])
@pytest.mark.parametrize(
    "asked", ["SELECT id FROM not_migrated", "SELECT later FROM marks", "SELECT * FROM pg_authid"]
)
def test_what_a_migration_has_not_brought_yet_is_asked_for_again(
    database: Database, way: str, asked: str
) -> None:
    """A table, a column, a right."""

    def ask(statement: str) -> None:
        if way == "express":
            database.express.run(statement, {})
        elif way == "run_alone":
            database.run_alone(text(statement), {})
        else:
            with database.transaction() if way == "transaction" else database.read() as session:
                session.execute(text(statement))

    with pytest.raises(Unavailable, match="run the migration"):
        ask(asked)
    ask("SELECT id FROM marks")


def test_a_mistake_of_ours_is_not_taken_for_a_missing_migration(database: Database) -> None:
    with pytest.raises(ProgrammingError), database.read() as session:
        session.execute(text("SELECT 'a'::text = 1"))


def test_whoever_is_hurried_waits_so_long_altogether(postgres: Settings) -> None:
    """For a connection, a statement, a lock; and the server, which lives, is not suspected."""
    narrow = Database(postgres, "finplatform", 1, pool_timeout_s=600.0)
    with narrow.transaction() as session:
        session.execute(text("SELECT 1"))
        with hurried(0.2), pytest.raises(Unavailable, match="busy"):
            narrow.ping()
    with hurried(0.2):
        for _ in range(2):
            with pytest.raises(Unavailable):
                narrow.run_alone(text("SELECT pg_sleep(600)"), {})
        with hurried(600), pytest.raises(Unavailable, match="no time is left"):
            narrow.express.run("SELECT 1", {})
    narrow.ping()
    assert list(narrow.express.run("SELECT 1", {})) == [(1,)]
    narrow.close()


def test_E3_the_same_database_works_on_after_a_crash_of_postgres(
    database: Database, postgres_server: EmbeddedPostgres
) -> None:
    _add(database, 41)
    postgres_server.kill()
    assert postgres_server.pid is None
    with pytest.raises(Unavailable):
        _add(database, 42)
    postgres_server.start(ends_with_parent=True)
    _add(database, 43)
    assert _count(database) == 2


def test_E2_a_commit_whose_answer_is_lost_is_unknown_not_failed(
    database: Database, postgres: Settings, postgres_server: EmbeddedPostgres
) -> None:
    proxy = CommitLosingProxy(postgres_server.socket_path)
    behind = Database(_through(postgres, proxy.folder), "finplatform", 1)
    try:
        behind.ping()
        proxy.lose = 1
        with pytest.raises(OutcomeUnknown, match="read it back"):
            _add(behind, 51)
        assert proxy.lost == 1
        assert _count(database) == 1
    finally:
        behind.close()
        proxy.close()


@pytest.mark.parametrize("moment", ["commit", "before_cursor_execute"])
def test_E3_a_server_that_ends_while_its_answer_is_read_is_no_mistake_of_the_statement(
    database: Database, moment: str
) -> None:
    def lose(*_: object) -> None:  # psycopg2 tells it as a bare DatabaseError, without a code
        said = psycopg2.DatabaseError("server closed the connection unexpectedly")
        raise DatabaseError("", None, said)

    event.listen(database.engine(), moment, lose)
    expected = OutcomeUnknown if moment == "commit" else Unavailable
    with pytest.raises(expected), database.transaction() as session:
        session.execute(text("SELECT 1"))
    event.remove(database.engine(), moment, lose)
    database.ping()


def test_E2_an_idempotent_write_repeats_itself_when_the_answer_is_lost(
    database: Database, postgres: Settings, postgres_server: EmbeddedPostgres
) -> None:
    proxy = CommitLosingProxy(postgres_server.socket_path)
    behind = Database(_through(postgres, proxy.folder), "finplatform", 1)
    try:
        behind.ping()
        proxy.lose = 2
        behind.run_idempotent(lambda session: session.execute(ADD, {"id": 52}))
        proxy.lose = 3
        with pytest.raises(Unavailable, match="may be repeated"):
            behind.run_idempotent(lambda session: session.execute(ADD, {"id": 53}))
        assert proxy.lost == 5
        assert _count(database) == 2
    finally:
        behind.close()
        proxy.close()


def test_E5_a_pool_with_no_free_connection_is_unavailable_and_others_are_not(
    database: Database, postgres: Settings
) -> None:
    own = Database(postgres, "finplatform", 1)
    with database.read() as one, database.read() as two:
        one.execute(COUNT)
        two.execute(COUNT)
        with pytest.raises(Unavailable, match="busy"):
            database.ping()
        own.ping()
    database.ping()
    own.close()


def test_E5_a_long_lock_ends_in_unavailable(database: Database, postgres: Settings) -> None:
    _add(database, 61)
    hasty = Database(postgres, "finplatform", 1, statement_timeout_ms=200)
    with database.transaction() as session:
        session.execute(text("LOCK TABLE marks"))
        with pytest.raises(Unavailable, match="statement timeout"):
            _add(hasty, 62)
    _add(hasty, 62)
    hasty.close()


def test_E6_a_deadlock_is_repeated_whole(database: Database) -> None:
    _add(database, 1)
    _add(database, 2)
    meeting = threading.Barrier(2, timeout=20)
    met: set[int] = set()
    failures: list[BaseException] = []

    def change(first: int, second: int) -> None:
        def work(session: Session) -> None:
            raise_value = text("UPDATE marks SET value = value + 1 WHERE id = :id")
            session.execute(raise_value, {"id": first})
            if first not in met:
                met.add(first)
                meeting.wait()
            session.execute(raise_value, {"id": second})

        try:
            database.run_idempotent(work)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=change, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert failures == []
    with database.read() as session:
        assert session.execute(text("SELECT sum(value) FROM marks")).scalar_one() == 4


def test_a_forked_child_gets_connections_of_its_own(database: Database) -> None:
    with database.read() as session:
        ours = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        with database.read() as session:
            theirs = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        os.write(write_end, str(theirs).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        theirs_text = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    assert int(theirs_text) != ours
    with database.read() as session:
        assert session.execute(text("SELECT pg_backend_pid()")).scalar_one() == ours


def test_no_password_is_in_what_is_printed(database: Database, postgres: Settings) -> None:
    secret = postgres.secret("database_password")
    elsewhere = Database(_through(postgres, Path("/nonexistent")), "finplatform", 1)
    with pytest.raises(Unavailable) as caught:
        elsewhere.ping()
    texts = [repr(database), str(caught.value), repr(caught.value.__cause__)]
    texts.append(repr(database.engine()))
    assert not any(secret in each for each in texts)
    assert "/nonexistent" not in str(caught.value)  # its answer is read by users


def test_a_data_folder_without_a_server_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no Postgres has been started"):
        Database(Settings(data_dir=tmp_path), "finplatform").ping()


def _through(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"database_host": str(folder), "database_port": 5432})


# --- single statements over kept connections ---

EXPRESS_ADD = "INSERT INTO marks (id) VALUES (%(id)s) ON CONFLICT DO NOTHING RETURNING id"


def test_a_single_statement_is_committed_when_it_returns(
    database: Database, postgres: Settings
) -> None:
    assert list(database.express.run(EXPRESS_ADD, {"id": 71})) == [(71,)]
    other = Database(postgres, "finplatform", 1)
    assert _count(other) == 1
    other.close()


def test_E3_a_kept_connection_that_died_is_replaced_and_the_statement_goes_again(
    database: Database, postgres_server: EmbeddedPostgres
) -> None:
    database.express.run(EXPRESS_ADD, {"id": 72})
    (pid,) = database.express.run("SELECT pg_backend_pid()", {})[0]
    with database.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    assert list(database.express.run(EXPRESS_ADD, {"id": 73})) == [(73,)]
    postgres_server.kill()
    with pytest.raises(Unavailable, match="may be repeated"):
        database.express.run(EXPRESS_ADD, {"id": 74})
    postgres_server.start(ends_with_parent=True)
    assert list(database.express.run(EXPRESS_ADD, {"id": 75})) == [(75,)]
    assert _count(database) == 3


def test_E5_single_statements_wait_for_a_free_connection_no_longer_than_they_may(
    postgres: Settings, database: Database
) -> None:
    narrow = Database(postgres, "finplatform", 1, pool_timeout_s=0.2)
    entered = threading.Event()

    def hold() -> None:
        entered.set()
        narrow.express.run("SELECT pg_sleep(2)", {})

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(10)
    refusals: list[str] = []
    while thread.is_alive() and not refusals:
        try:
            narrow.express.run("SELECT 1", {})
        except Unavailable as error:
            refusals.append(error.message)
    thread.join(20)
    assert "busy" in refusals[0]
    assert list(narrow.express.run("SELECT 1", {})) == [(1,)]
    narrow.close()


def test_a_forked_child_makes_single_statements_over_a_connection_of_its_own(
    database: Database,
) -> None:
    (ours,) = database.express.run("SELECT pg_backend_pid()", {})[0]
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        (theirs,) = database.express.run("SELECT pg_backend_pid()", {})[0]
        os.write(write_end, str(theirs).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        assert int(answer.read()) != ours
    assert os.waitpid(child, 0)[1] == 0
    assert database.express.run("SELECT pg_backend_pid()", {})[0] == (ours,)
