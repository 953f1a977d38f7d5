"""Logs of a session: the tail of one, links and other paths refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from module.files.session_folder import (
    TAIL_BYTES_MAX,
    list_logs,
    log_path,
    make_session_folder,
    read_log_tail,
)
from module.model.errors import InvalidInput, NotFound

SESSION = "2611211010-ab3x"


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    make_session_folder(tmp_path, SESSION)
    log_path(tmp_path, SESSION, "leader").write_text("one\ntwo\nthree\n")
    assert read_log_tail(tmp_path, SESSION, "leader", 2) == ["two", "three"]
    assert [(log.part, log.size_bytes) for log in list_logs(tmp_path, SESSION)] == [("leader", 14)]


def test_a_huge_log_is_read_only_at_its_end_and_from_a_whole_line(tmp_path: Path) -> None:
    make_session_folder(tmp_path, SESSION)
    path = log_path(tmp_path, SESSION, "strategy")
    path.write_text("".join(f"line {number:09d}\n" for number in range(50_000)))
    tail = read_log_tail(tmp_path, SESSION, "strategy", 2_000)
    assert tail[-1] == "line 000049999"
    assert all(len(line) == 14 for line in tail)
    path.write_bytes(b"x" * (TAIL_BYTES_MAX + 7))
    assert read_log_tail(tmp_path, SESSION, "strategy", 5) == ["x" * TAIL_BYTES_MAX]


def test_bytes_that_are_no_text_are_shown_escaped(tmp_path: Path) -> None:
    make_session_folder(tmp_path, SESSION)
    log_path(tmp_path, SESSION, "user").write_bytes(b"\xff\xfe ok\n")
    assert read_log_tail(tmp_path, SESSION, "user", 5) == ["\\xff\\xfe ok"]


def test_there_may_be_no_log_yet(tmp_path: Path) -> None:
    assert list_logs(tmp_path, SESSION) == []
    with pytest.raises(NotFound):
        read_log_tail(tmp_path, SESSION, "leader", 5)


@pytest.mark.parametrize("session", ["..", "2611211010-ab3x/..", "2611211010-ab3x\n", "%2e%2e", ""])
def test_S2_a_session_id_is_never_a_path(tmp_path: Path, session: str) -> None:
    with pytest.raises(InvalidInput):
        read_log_tail(tmp_path, session, "leader", 5)


@pytest.mark.parametrize("part", ["../leader", "order_info.txt", "", "leader.log", "leader\0"])
def test_S2_a_part_is_one_of_a_list(tmp_path: Path, part: str) -> None:
    with pytest.raises(InvalidInput, match="unknown log"):
        read_log_tail(tmp_path, SESSION, part, 5)


def test_S2_a_link_is_not_followed(tmp_path: Path) -> None:
    make_session_folder(tmp_path, SESSION)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    log_path(tmp_path, SESSION, "leader").symlink_to(secret)
    with pytest.raises(InvalidInput, match="symbolic link"):
        read_log_tail(tmp_path, SESSION, "leader", 5)
    assert list_logs(tmp_path, SESSION) == []
