"""Files that are old or new, never a mixture."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from module.files.atomic import (
    create_durably,
    make_private_folder,
    read_regular,
    write_durably,
)
from module.model.errors import InvalidInput, Unavailable


def test_content_is_replaced_whole_and_privately(tmp_path: Path) -> None:
    path = tmp_path / "letter"
    write_durably(path, b"old")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["letter"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "kept").write_bytes(b"kept")
    with pytest.raises(Unavailable, match="the old content is still there"):
        write_durably(path, b"cannot replace a folder")
    assert [item.name for item in tmp_path.iterdir()] == ["folder"]


def test_a_missing_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        write_durably(tmp_path / "no" / "letter", b"x")


def test_creating_never_touches_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "version"
    assert create_durably(path, b"first")
    assert not create_durably(path, b"second")
    assert path.read_bytes() == b"first"
    assert [item.name for item in tmp_path.iterdir()] == ["version"]


def test_a_link_at_the_target_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"outside")
    path = tmp_path / "letter"
    path.symlink_to(outside)
    write_durably(path, b"new")
    assert outside.read_bytes() == b"outside"
    assert not path.is_symlink()


def test_folders_are_private_all_the_way_down(tmp_path: Path) -> None:
    made = make_private_folder(tmp_path / "a" / "b")
    assert made.is_dir()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert make_private_folder(made) == made


def test_S3_only_regular_files_of_bounded_length_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(InvalidInput, match="longer"):
        read_regular(path, 4)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(InvalidInput, match="symbolic link"):
        read_regular(link, 100)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InvalidInput, match="not a regular file"):
        read_regular(pipe, 100)
    with pytest.raises(InvalidInput, match="not a regular file"):
        read_regular(Path("/dev/zero"), 100)
