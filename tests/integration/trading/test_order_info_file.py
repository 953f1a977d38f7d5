"""`order_info.txt` on a real disk: old or new, never a mixture, whatever dies or is full."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from module.files.order_info_file import (
    DAMAGED_NAME,
    FILE_NAME,
    PREVIOUS_NAME,
    FileOrderInfoStore,
)
from module.model.errors import (
    AifapError,
    InvalidInput,
    InvariantViolated,
    OutcomeUnknown,
    StaleWriter,
    Unavailable,
)
from module.model.sealed import unseal

ROOT = Path(__file__).resolve().parents[3]
CYCLE = "2026-11-21T11:05:00Z"


def document(epoch: int, revision: int, padding: int = 10) -> dict[str, object]:
    return {
        "epoch": epoch,
        "revision": revision,
        "cycle": CYCLE,
        "size": "39.6",
        "padding": chr(97 + revision % 26) * padding,
    }


def written(folder: Path, epoch: int = 3, revision: int = 7) -> FileOrderInfoStore:
    store = FileOrderInfoStore(folder, lock_timeout_s=0.2)
    store.write(document(epoch, revision), epoch, revision)
    return store


class MemoryMirror:
    """A mirror that a test can take down."""

    def __init__(self, down: AifapError | None = None) -> None:
        self.down = down
        self.copy: Mapping[str, object] | None = None

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        if self.down is not None:
            raise self.down
        self.copy = dict(document)

    def read(self) -> Mapping[str, object] | None:
        if self.down is not None:
            raise self.down
        return self.copy


# --- one writer -----------------------------------------------------------------------------------


def test_what_was_written_is_read_by_another_store(tmp_path: Path) -> None:
    written(tmp_path)
    assert FileOrderInfoStore(tmp_path).read() == document(3, 7)


def test_there_is_no_letter_before_the_first_one(tmp_path: Path) -> None:
    assert FileOrderInfoStore(tmp_path / "new" / "folder").read() is None


@pytest.mark.parametrize(("epoch", "revision"), [(2, 9_999), (3, 6), (1, 0)])
def test_I8_an_older_writer_is_refused(tmp_path: Path, epoch: int, revision: int) -> None:
    store = written(tmp_path)
    with pytest.raises(StaleWriter):
        store.write(document(epoch, revision), epoch, revision)
    assert store.read() == document(3, 7)


@pytest.mark.parametrize(("epoch", "revision"), [(3, 7), (3, 8), (4, 0)])
def test_the_same_or_a_newer_writer_replaces(tmp_path: Path, epoch: int, revision: int) -> None:
    store = written(tmp_path)
    store.write(document(epoch, revision, 11), epoch, revision)
    assert store.read() == document(epoch, revision, 11)


def test_the_file_is_private_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    store = written(tmp_path / "session")
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in store.path.parent.iterdir()) == [
        FILE_NAME,
        f"{FILE_NAME}.lock",
    ]


def test_archived_cycles_are_kept_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("module.files.cycle_archive.ARCHIVE_MAX", 3)
    store = FileOrderInfoStore(tmp_path)
    for minute in range(5):
        store.archive({**document(3, minute), "cycle": f"2026-11-21T11:0{minute}:00Z"})
    kept = sorted(path.name for path in (tmp_path / "archive").iterdir())
    assert kept == ["20261121T110200Z.json", "20261121T110300Z.json", "20261121T110400Z.json"]
    assert [found["revision"] for found in store.archived(99)] == [2, 3, 4]


# --- damage ---------------------------------------------------------------------------------------


def test_I13_every_flipped_byte_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    store = written(tmp_path)
    good = store.path.read_bytes()
    for place in range(len(good)):
        for bit in (0x01, 0x80):
            damaged = bytearray(good)
            damaged[place] ^= bit
            store.path.write_bytes(bytes(damaged))
            with pytest.raises(InvariantViolated) as found:
                store.read()
            assert str(store.path) in found.value.message


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b'{"document": {}}', b'{"document": 1.5, "sha256": "x"}', b"\xff"],
)
def test_a_file_that_does_not_parse_is_never_empty(tmp_path: Path, content: bytes) -> None:
    store = written(tmp_path)
    store.path.write_bytes(content)
    with pytest.raises(InvariantViolated) as found:
        store.read()
    assert str(store.path) in found.value.message
    with pytest.raises(InvariantViolated):
        store.write(document(3, 8), 3, 8)
    assert store.path.read_bytes() == content


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    store = written(tmp_path)
    good = store.path.read_bytes()
    for length in range(len(good)):
        store.path.write_bytes(good[:length])
        with pytest.raises(InvariantViolated):
            store.read()


def test_D9_a_link_in_place_of_the_letter_is_not_followed(tmp_path: Path) -> None:
    store = written(tmp_path / "mine")
    elsewhere = written(tmp_path / "theirs", 9, 9).path
    store.path.unlink()
    store.path.symlink_to(elsewhere)
    with pytest.raises(InvalidInput) as found:
        store.read()
    assert str(store.path) in found.value.message


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_D9_a_lock_that_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / f"{FILE_NAME}.lock"
    target = tmp_path / "target"
    if kind == "link":
        lock.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    store = FileOrderInfoStore(tmp_path, lock_timeout_s=0.2)
    with pytest.raises(Unavailable) as found:
        store.write(document(3, 7), 3, 7)
    assert str(lock) in found.value.message
    assert not target.exists()


def test_D9_a_pipe_in_place_of_the_letter_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE_NAME)
    with pytest.raises(AifapError, match="not a regular file"):
        FileOrderInfoStore(tmp_path).read()


def test_a_folder_in_place_of_the_letter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(AifapError) as found:
        FileOrderInfoStore(tmp_path).read()
    assert FILE_NAME in found.value.message


# --- the mirror -----------------------------------------------------------------------------------


def test_a_missing_file_is_rebuilt_from_the_mirror(tmp_path: Path) -> None:
    mirror = MemoryMirror()
    store = FileOrderInfoStore(tmp_path, mirror)
    store.write(document(3, 7), 3, 7)
    store.path.unlink()
    assert store.read() == document(3, 7)
    assert FileOrderInfoStore(tmp_path).read() == document(3, 7)


@pytest.mark.parametrize("down", [Unavailable("no Postgres"), OutcomeUnknown("COMMIT was lost")])
def test_a_mirror_that_is_down_does_not_hold_the_letter_up(
    tmp_path: Path, down: AifapError
) -> None:
    mirror = MemoryMirror(down)
    store = FileOrderInfoStore(tmp_path, mirror)
    store.write(document(3, 7), 3, 7)
    assert store.read() == document(3, 7)
    mirror.down = None
    store.write(document(3, 8), 3, 8)
    assert mirror.copy == document(3, 8)


def test_E4_the_mirror_has_every_letter_of_which_something_may_have_been_sent(
    tmp_path: Path,
) -> None:
    mirror = MemoryMirror()
    store = FileOrderInfoStore(tmp_path, mirror)
    for revision, stage in enumerate(["requested", "planned"]):
        store.write({**document(3, revision), "stage": stage}, 3, revision)
    assert mirror.copy is None
    for revision, stage in enumerate(["trading", "protecting", "done", "skipped"], start=2):
        store.write({**document(3, revision), "stage": stage}, 3, revision)
        assert mirror.copy == store.read()


def damaged(folder: Path, mirror: MemoryMirror) -> FileOrderInfoStore:
    """A store whose second letter can no longer be read."""
    store = FileOrderInfoStore(folder, mirror)
    store.write(document(3, 7), 3, 7)
    store.write(document(3, 8), 3, 8)
    store.path.write_text("{")
    return store


def test_D6_a_damaged_file_comes_back_from_a_mirror_that_has_the_same(tmp_path: Path) -> None:
    store = damaged(tmp_path, MemoryMirror())
    assert store.read() == document(3, 8)
    assert FileOrderInfoStore(tmp_path).read() == document(3, 8)
    assert (tmp_path / DAMAGED_NAME).read_text() == "{"


def test_E4_a_damaged_file_is_not_papered_over_by_a_mirror_that_missed_the_last_letter(
    tmp_path: Path,
) -> None:
    mirror = MemoryMirror()
    store = damaged(tmp_path, mirror)
    mirror.copy = document(3, 7)
    for attempt in (store.read, lambda: store.write(document(3, 9), 3, 9)):
        with pytest.raises(InvariantViolated) as found:
            attempt()
        assert str(store.path) in found.value.message
    assert store.path.read_text() == "{"


@pytest.mark.parametrize("down", [Unavailable("no Postgres"), None])
def test_a_damaged_file_without_a_mirrors_proof_is_an_error(
    tmp_path: Path, down: AifapError | None
) -> None:
    mirror = MemoryMirror()
    store = damaged(tmp_path, mirror)
    mirror.down, mirror.copy = down, None
    with pytest.raises(InvariantViolated):
        store.read()


def test_a_damaged_generation_before_proves_nothing(tmp_path: Path) -> None:
    store = damaged(tmp_path, MemoryMirror())
    (tmp_path / PREVIOUS_NAME).write_text("{")
    with pytest.raises(InvariantViolated):
        store.read()


def test_the_generation_before_is_kept(tmp_path: Path) -> None:
    store = written(tmp_path)
    store.write(document(3, 8), 3, 8)
    previous = tmp_path / PREVIOUS_NAME
    assert unseal(previous.read_bytes(), "previous") == document(3, 7)
    assert previous.stat().st_mode & 0o777 == 0o600


def test_I8_a_missing_file_is_not_begun_anew_below_its_mirror(tmp_path: Path) -> None:
    mirror = MemoryMirror()
    store = FileOrderInfoStore(tmp_path, mirror)
    store.write(document(4, 7), 4, 7)
    store.path.unlink()
    with pytest.raises(StaleWriter):
        FileOrderInfoStore(tmp_path, mirror).write(document(3, 9), 3, 9)
    assert store.read() == document(4, 7)


def test_a_missing_file_is_unknown_while_its_mirror_is_away(tmp_path: Path) -> None:
    store = FileOrderInfoStore(tmp_path, MemoryMirror(Unavailable("no Postgres")))
    with pytest.raises(Unavailable):
        store.read()
