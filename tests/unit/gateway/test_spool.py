"""What Postgres does not take is in a file before the call returns, and comes home in order."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from module.gateway.spool import Record, Spool
from module.model.errors import Unavailable


class Store:
    """Takes what it is handed; `away` refuses, `only` takes so many."""

    def __init__(self) -> None:
        self.taken: list[object] = []
        self.away = False
        self.only = 10**6

    def __call__(self, records: Sequence[Record]) -> int:
        if self.away:
            raise Unavailable("Postgres is away")
        count = min(self.only, len(records))
        self.taken.extend(record["n"] for record in records[:count])
        return count


@pytest.fixture
def store() -> Store:
    return Store()


def fill(spool: Spool, *numbers: int) -> None:
    for number in numbers:
        spool.append({"n": number})


def test_records_come_home_in_their_order_and_once(tmp_path: Path, store: Store) -> None:
    spool = Spool(tmp_path)
    fill(spool, 1, 2, 3)
    assert spool.count == 3
    assert spool.drain(store) == 3
    fill(spool, 4)
    spool.drain(store)
    assert (store.taken, spool.count) == ([1, 2, 3, 4], 0)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_stored_stays(tmp_path: Path, store: Store) -> None:
    spool = Spool(tmp_path)
    fill(spool, 1, 2)
    store.away = True
    with pytest.raises(Unavailable):
        spool.drain(store)
    store.away, store.only = False, 1
    assert spool.drain(store) == 1
    fill(spool, 3)
    store.only = 9
    assert spool.drain(store) == 2
    assert store.taken == [1, 2, 3]
    spool.close()


def test_a_process_that_lives_keeps_its_file_and_one_that_died_is_inherited(
    tmp_path: Path, store: Store
) -> None:
    first, second = Spool(tmp_path), Spool(tmp_path)
    fill(first, 1, 2)
    assert second.adopt(store) == 0
    first.close()
    assert second.adopt(store) == 2
    assert store.taken == [1, 2]
    assert second.adopt(store) == 0
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_an_inheritance_that_cannot_be_stored_is_tried_again(tmp_path: Path, store: Store) -> None:
    dead, alive = Spool(tmp_path), Spool(tmp_path)
    fill(dead, 7)
    dead.close()
    store.away = True
    with pytest.raises(Unavailable):
        alive.adopt(store)
    store.away = False
    assert alive.adopt(store) == 1
    alive.close()


def test_D21_a_file_that_the_disk_does_not_give_out_keeps_no_other_from_coming_home(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, alive = Spool(tmp_path), Spool(tmp_path), Spool(tmp_path)
    names = []
    for number, dead in enumerate(sorted((first, second), key=lambda each: each._path)):
        fill(dead, number)
        dead.close()
        names.append(dead._path)
    real_open = os.open

    def full(path: os.PathLike[str], flags: int, mode: int = 0o777) -> int:
        if Path(path) == names[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", full)
    assert alive.adopt(store) == 1
    assert store.taken == [1]
    monkeypatch.undo()
    assert alive.adopt(store) == 1
    assert store.taken == [1, 0]
    alive.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tail", [b'{"n":3', b'{"n":', b"\x00\x00"])
def test_a_line_that_was_torn_by_a_power_cut_was_never_promised(
    tmp_path: Path, store: Store, tail: bytes
) -> None:
    spool = Spool(tmp_path)
    fill(spool, 1, 2)
    spool.close()
    (left,) = tmp_path.iterdir()
    with left.open("ab") as file:
        file.write(tail)
    heir = Spool(tmp_path)
    assert heir.adopt(store) == 2
    assert store.taken == [1, 2]
    heir.close()


def test_the_folder_and_the_file_are_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "gateway")
    fill(spool, 1)
    (path,) = (tmp_path / "gateway").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "gateway").stat().st_mode & 0o777 == 0o700
    spool.close()
