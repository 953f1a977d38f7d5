"""What every store of a letter does: one truth that only grows, an archive of what has ended."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from module.model.errors import StaleWriter
from module.model.sealed import unseal
from tests.contract.order_info.conftest import House, letter

CYCLE = datetime(2026, 11, 21, 12, 5, tzinfo=UTC)


def test_there_is_no_letter_before_the_first_one(house: House) -> None:
    assert house.open().read() is None
    assert list(house.open().archived(10)) == []


def test_what_was_written_is_read_by_another_process(house: House) -> None:
    house.open().write(letter(3, 7), 3, 7)
    assert house.open().read() == letter(3, 7)


@pytest.mark.parametrize(("epoch", "revision"), [(2, 9_999), (3, 6), (1, 0)])
def test_I8_an_older_writer_is_refused_and_changes_nothing(
    house: House, epoch: int, revision: int
) -> None:
    house.open().write(letter(3, 7), 3, 7)
    with pytest.raises(StaleWriter):
        house.open().write(letter(epoch, revision), epoch, revision)
    assert house.open().read() == letter(3, 7)


@pytest.mark.parametrize(("epoch", "revision"), [(3, 7), (3, 8), (4, 0)])
def test_the_same_or_a_newer_writer_replaces(house: House, epoch: int, revision: int) -> None:
    store = house.open()
    store.write(letter(3, 7), 3, 7)
    store.write(letter(epoch, revision, minute=5), epoch, revision)
    assert store.read() == letter(epoch, revision, minute=5)


def test_the_file_shows_the_letter_whoever_holds_the_truth(house: House) -> None:
    house.open().write(letter(3, 7), 3, 7)
    content = (house.folder / "order_info.txt").read_bytes()
    assert unseal(content, "the file") == letter(3, 7)


def test_ended_cycles_come_back_oldest_first(house: House) -> None:
    store = house.open()
    for minute in (10, 0, 5):
        store.archive(letter(3, minute, minute))
    assert house.open().archived(99) == [letter(3, minute, minute) for minute in (0, 5, 10)]
    assert house.open().archived(2) == [letter(3, minute, minute) for minute in (5, 10)]


def test_archiving_again_replaces(house: House) -> None:
    store = house.open()
    store.archive(letter(3, 7))
    store.archive(letter(3, 8))
    assert house.open().archived(99) == [letter(3, 8)]


def test_the_bars_of_a_cycle_lie_beside_its_letter(house: House) -> None:
    store = house.open()
    store.keep_bars(CYCLE, b"\x00bars\xff")  # before the cycle has ended
    assert list(store.archived(99)) == []
    store.archive(letter(3, 7, minute=5))
    assert house.open().bars_of(CYCLE) == b"\x00bars\xff"
    assert house.open().bars_of(CYCLE.replace(minute=10)) is None
    assert house.open().archived(99) == [letter(3, 7, minute=5)]


def test_the_oldest_cycles_go_beyond_a_number(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("module.files.cycle_archive.ARCHIVE_MAX", 3)
    monkeypatch.setattr("module.db.repositories.order_info.ARCHIVE_MAX", 3)
    store = house.open()
    for minute in range(5):
        store.keep_bars(CYCLE.replace(minute=minute), b"bars")
        store.archive(letter(3, minute, minute))
    assert [found["revision"] for found in store.archived(99)] == [2, 3, 4]
    kept = [store.bars_of(CYCLE.replace(minute=minute)) for minute in range(5)]
    assert kept == [None, None, b"bars", b"bars", b"bars"]
