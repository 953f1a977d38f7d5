"""The simulated disk: what survives a cut is what was synced, and errors come when they are due."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from module.files.atomic import write_durably
from module.files.order_info_file import FILE_NAME, PREVIOUS_NAME, FileOrderInfoStore
from module.model.errors import AifapError, Unavailable
from module.model.results import GapCause, GapRow
from monitoring.spool import Spool
from tests.simulation.fault_files import FileFault, SimulatedDisk

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SEEDS = range(40)


def letter(revision: int) -> dict[str, object]:
    """A document long enough to tear."""
    return {"epoch": 3, "revision": revision, "cycle": "2026-11-21T12:00:00Z", "text": "x" * 500}


def disk_of(folder: Path, seed: int = 7) -> SimulatedDisk:
    return SimulatedDisk(folder, lambda: NOON, seed)


def test_D6_a_letter_that_was_saved_survives_every_cut(tmp_path: Path) -> None:
    for seed in SEEDS:
        with disk_of(tmp_path, seed) as disk:
            FileOrderInfoStore(tmp_path).write(letter(seed), 3, seed)
            disk.power_cut()
            assert FileOrderInfoStore(tmp_path).read() == letter(seed)
            assert disk.hits["D6"] == 0
            assert disk.leftovers() == []


def test_D6_a_cut_before_the_folder_is_synced_leaves_old_or_new(tmp_path: Path) -> None:
    seen: set[object] = set()
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        with disk_of(tmp_path, seed) as disk:
            store = FileOrderInfoStore(folder)
            store.write(letter(1), 3, 1)
            with pytest.raises(_Cut):
                _write_until_renamed(store, letter(2))
            disk.power_cut()
            found = FileOrderInfoStore(folder).read()
            assert found is not None
            seen.add(found["revision"])
    assert seen == {1, 2}


def test_D6_a_cut_between_two_generations_mixes_no_files(tmp_path: Path) -> None:
    """Until the rename the letter and the generation before it are two names of one file."""
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        with disk_of(folder, seed) as disk:
            store = FileOrderInfoStore(folder)
            store.write(letter(1), 3, 1)
            store.write(letter(2), 3, 2)
            with pytest.raises(_Cut):
                _write_until_renamed(store, letter(3), name=PREVIOUS_NAME)
            disk.power_cut()
            assert FileOrderInfoStore(folder).read() == letter(2)


class _Cut(BaseException):
    """The power is gone."""


def _write_until_renamed(
    store: FileOrderInfoStore, document: dict[str, object], name: str = FILE_NAME
) -> None:
    hooked = os.replace

    def cut(source: str, target: str) -> None:
        hooked(source, target)
        if Path(target).name == name:
            raise _Cut

    os.replace = cut  # type: ignore[assignment]
    try:
        store.write(document, 3, int(str(document["revision"])))
    finally:
        os.replace = hooked


def test_D6_what_is_written_in_place_tears(tmp_path: Path) -> None:
    found: set[bytes] = set()
    path = tmp_path / "letter"
    for seed in SEEDS:
        with disk_of(tmp_path, seed) as disk:
            write_durably(path, b"old" * 9)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(b"new" * 9)
            disk.power_cut()
            found.add(path.read_bytes())
    assert {b"old" * 9, b"new" * 9} < found, "some are torn"


def test_D20_an_error_of_the_disk_is_said_and_the_old_letter_stays(tmp_path: Path) -> None:
    with disk_of(tmp_path) as disk:
        store = FileOrderInfoStore(tmp_path)
        store.write(letter(1), 3, 1)
        disk.arm([FileFault("D20", NOON, part=".tmp")])
        with pytest.raises(Unavailable):
            store.write(letter(2), 3, 2)
        assert store.read() == letter(1)
        store.write(letter(2), 3, 2)
        assert disk.hits == {"D20": 1}


def test_D21_a_full_disk_is_full_until_it_is_not(tmp_path: Path) -> None:
    now = [NOON]
    with SimulatedDisk(tmp_path, lambda: now[0]) as disk:
        store = FileOrderInfoStore(tmp_path)
        disk.arm([FileFault("D21", NOON, seconds=30)])
        for _ in range(3):
            with pytest.raises(Unavailable):
                store.write(letter(1), 3, 1)
        now[0] += timedelta(seconds=30)
        store.write(letter(1), 3, 1)
        assert disk.hits["D21"] == 1  # one fault, however often it strikes
        assert disk.leftovers() == []


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_D9_a_lock_that_is_no_file_is_refused_and_mended(tmp_path: Path, kind: str) -> None:
    with disk_of(tmp_path) as disk:
        store = FileOrderInfoStore(tmp_path, lock_timeout_s=0.0)
        store.write(letter(1), 3, 1)
        lock = Path(f"{store.path}.lock")
        disk.break_lock(lock, kind)
        try:
            store.write(letter(2), 3, 2)
        except AifapError:
            assert disk.hits["D9"] > 0
        disk.mend_lock(lock)
        store.write(letter(3), 3, 3)
        assert store.read() == letter(3)


def test_D10_a_lock_that_hangs_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    with disk_of(tmp_path) as disk:
        store = FileOrderInfoStore(tmp_path, lock_timeout_s=0.0)
        lock = Path(f"{store.path}.lock")
        disk.hold_lock(lock)
        with pytest.raises(Unavailable):
            store.write(letter(1), 3, 1)
        disk.let_go(lock)
        store.write(letter(1), 3, 1)
        assert disk.hits["D10"] > 0


def test_what_a_killed_writer_left_is_gone_after_the_next_letter(tmp_path: Path) -> None:
    with disk_of(tmp_path) as disk:
        store = FileOrderInfoStore(tmp_path)
        store.write(letter(1), 3, 1)
        disk.litter(store.path)
        store.write(letter(2), 3, 2)
        assert disk.leftovers() == []


def test_D6_a_spooled_minute_that_was_appended_is_kept_whole(tmp_path: Path) -> None:
    gaps = [
        GapRow("s", "o", NOON + timedelta(minutes=n), GapCause.NOT_RUNNING, "why", NOON)
        for n in range(3)
    ]
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        with disk_of(tmp_path, seed) as disk:
            spool = Spool(folder)
            for gap in gaps:
                spool.append(gap)
            disk.power_cut()
            read: list[object] = []
            Spool(folder).drain(read.append)
            assert read == gaps


def test_the_operating_system_is_its_own_again_afterwards(tmp_path: Path) -> None:
    before = (os.open, os.fsync, os.replace, os.unlink)
    with disk_of(tmp_path):
        assert os.fsync is not before[1]
    assert (os.open, os.fsync, os.replace, os.unlink) == before
