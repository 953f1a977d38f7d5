"""What a letter in Postgres survives: lost commits, a fail-over, somebody's hand, a full disk."""

from __future__ import annotations

import shutil

import pytest
from sqlalchemy import text

from module.db.database import Database
from module.model.errors import InvariantViolated, OutcomeUnknown, StaleWriter, Unavailable
from tests.contract.order_info.conftest import House, letter


def change(database: Database, statement: str, **values: object) -> None:
    with database.transaction() as session:
        session.execute(text(statement), values)


def test_E4_a_mirror_that_misses_the_last_writes_is_followed_by_the_file(
    mirrored: House, database: Database
) -> None:
    store = mirrored.open()
    store.write(letter(3, 7), 3, 7)
    with database.read() as session:
        before = session.execute(
            text("SELECT revision, document, sha256 FROM order_info WHERE session_id = :id"),
            {"id": mirrored.session_id},
        ).one()
    store.write(letter(3, 8), 3, 8)
    store.write(letter(3, 9), 3, 9)
    import json

    change(
        database,
        "UPDATE order_info SET revision = :revision, document = CAST(:document AS jsonb), "
        "sha256 = :sha256 WHERE session_id = :id",
        id=mirrored.session_id,
        revision=before.revision,
        document=json.dumps(before.document),
        sha256=before.sha256,
    )
    assert mirrored.open().read() == letter(3, 9)  # the file is the truth
    store.write(letter(3, 10), 3, 10)
    (mirrored.folder / "order_info.txt").unlink()
    assert mirrored.open().read() == letter(3, 10)  # the mirror caught up


def test_E4_a_session_in_postgres_that_lost_its_last_writes_goes_on_from_what_is_left(
    in_postgres: House, database: Database
) -> None:
    store = in_postgres.open()
    store.write(letter(3, 9), 3, 9)
    change(
        database,
        "DELETE FROM order_info WHERE session_id = :id",
        id=in_postgres.session_id,
    )
    assert store.read() is None
    store.write(letter(4, 2), 4, 2)  # the next leader, whose epoch is higher
    with pytest.raises(StaleWriter):
        store.write(letter(3, 10), 3, 10)


@pytest.mark.parametrize("applied", [True, False])
def test_E2_a_commit_whose_answer_is_lost_is_written_once(
    in_postgres: House, database: Database, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    commit = Database._commit
    lost: list[bool] = []

    def lose_one(self: Database, session: object) -> None:
        if lost:
            commit(self, session)  # type: ignore[arg-type]
            return
        lost.append(True)
        if applied:
            commit(self, session)  # type: ignore[arg-type]
        raise OutcomeUnknown("the answer to a COMMIT was lost")

    monkeypatch.setattr(Database, "_commit", lose_one)
    in_postgres.open().write(letter(3, 7), 3, 7)
    assert lost
    assert in_postgres.open().read() == letter(3, 7)


@pytest.mark.parametrize("kind", ["in_postgres", "mirrored"])
def test_a_letter_that_was_altered_in_the_database_is_an_error(
    kind: str, request: pytest.FixtureRequest, database: Database
) -> None:
    house: House = request.getfixturevalue(kind)
    house.open().write(letter(3, 7), 3, 7)
    (house.folder / "order_info.txt").unlink()
    change(
        database,
        "UPDATE order_info SET document = jsonb_set(document, '{size}', '\"39.7\"') "
        "WHERE session_id = :id",
        id=house.session_id,
    )
    with pytest.raises(InvariantViolated, match=house.session_id):
        house.open().read()


def test_an_archived_cycle_that_was_altered_is_left_out(
    in_postgres: House, database: Database
) -> None:
    store = in_postgres.open()
    store.archive(letter(3, 7, minute=5))
    store.archive(letter(3, 9, minute=10))
    change(
        database,
        "UPDATE archived_cycles SET content = overlay(content placing 'X' from 40) "
        "WHERE session_id = :id AND boundary = '2026-11-21T12:05:00Z'",
        id=in_postgres.session_id,
    )
    assert store.archived(99) == [letter(3, 9, minute=10)]


def test_D21_a_disk_that_cannot_show_the_letter_does_not_hold_it_up(in_postgres: House) -> None:
    store = in_postgres.open()
    shutil.rmtree(in_postgres.folder)
    in_postgres.folder.write_text("a file in place of the folder")
    store.write(letter(3, 7), 3, 7)
    assert in_postgres.open().read() == letter(3, 7)


def test_E1_without_postgres_nothing_is_saved_there(
    in_postgres: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Database, session: object) -> None:
        raise Unavailable("Postgres is away")

    monkeypatch.setattr(Database, "_commit", away)
    with pytest.raises(Unavailable):
        in_postgres.open().write(letter(3, 7), 3, 7)
    monkeypatch.undo()
    assert in_postgres.open().read() is None
