"""Previews on disk: each owner's own, immutable, gone after an hour."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from module.files import preview_store
from module.files.preview_store import PreviewStore
from module.model.errors import InvalidInput, InvariantViolated, NotFound

WALL = datetime.now(UTC)
HASH = "3f" * 32
OWNER = "5b1c-owner"


def test_what_was_put_is_there_for_its_owner_alone(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path)
    store.put(OWNER, HASH, {"epoch": 7, "text": "ü"}, WALL, bars=b"\x00packed")
    store.put(OWNER, HASH, {"epoch": 7, "text": "ü"}, WALL)  # the same again
    assert store.get(OWNER, HASH) == {"epoch": 7, "text": "ü"}
    assert store.bars(OWNER, HASH) == b"\x00packed"
    with pytest.raises(NotFound, match="make one"):
        store.get("another", HASH)
    with pytest.raises(NotFound):
        store.get(OWNER, "4e" * 32)
    assert store.bars(OWNER, "4e" * 32) is None
    (file,) = (tmp_path / "previews" / OWNER).glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc", "A" * 64, "3f", HASH + "\n", "/etc/passwd"]
)
def test_S12_a_hash_that_is_none_reaches_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="64 hex"):
        PreviewStore(tmp_path).get(OWNER, name)
    with pytest.raises(InvalidInput):
        PreviewStore(tmp_path).get("../" + OWNER, HASH)


def test_D9_a_flipped_byte_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path)
    store.put(OWNER, HASH, {"epoch": 7}, WALL)
    (file,) = (tmp_path / "previews" / OWNER).glob("*.json")
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InvariantViolated, match=HASH):
            store.get(OWNER, HASH)


def test_old_ones_go_when_new_ones_come(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path)
    store.put(OWNER, HASH, {"number": 0}, WALL, bars=b"bars")
    folder = tmp_path / "previews" / OWNER
    long_ago = (WALL - timedelta(hours=1, seconds=1)).timestamp()
    os.utime(folder / f"{HASH}.json", (long_ago, long_ago))
    store.put(OWNER, "4e" * 32, {"number": 1}, WALL)
    assert [path.name for path in folder.iterdir()] == [f"{'4e' * 32}.json"]


def test_they_are_bounded_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_store, "KEPT_MAX", 5)
    store = PreviewStore(tmp_path)
    for number in range(8):
        store.put(OWNER, f"{number:064x}", {"number": number}, WALL)
    assert len(list((tmp_path / "previews" / OWNER).glob("*.json"))) == 5
