"""A writer of `order_info.txt` that dies, or whose disk fails, at each of its system calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from module.files.order_info_file import FILE_NAME, FileOrderInfoStore
from module.model.sealed import unseal
from module.points import listen

ROOT = Path(__file__).resolve().parents[3]
CALLS = ("open", "write", "fsync", "link", "replace", "unlink", "close")

# Forks a writer per call number; in each the n-th call of `os` is its last, or fails. After each
# one the folder is judged by a fresh store. One line of JSON per writer.
SWEEP = """
import errno, json, os, signal, sys
from pathlib import Path
from module.files.order_info_file import FileOrderInfoStore
from module.model.errors import Unavailable

folder, fault, names = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")

def document(revision):
    return {"epoch": 3, "revision": revision, "padding": chr(97 + revision % 26) * 5000}

def spoil(number):
    seen = []
    def wrap(name, real):
        def call(*arguments, **words):
            seen.append(name)
            if len(seen) != number:
                return real(*arguments, **words)
            if fault == "kill":
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[:1700])  # torn
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(getattr(errno, fault), os.strerror(getattr(errno, fault)))
        return call
    for name in names:
        setattr(os, name, wrap(name, getattr(os, name)))
    return seen

store = FileOrderInfoStore(folder)
revision = 10
store.write(document(revision), 3, revision)
for number in range(1, 60):
    child = os.fork()
    if child == 0:
        mine = FileOrderInfoStore(folder)
        seen = spoil(number)
        code = 0
        try:
            mine.write(document(revision + 1), 3, revision + 1)
        except Unavailable:
            code = 7
        os._exit(9 if len(seen) < number else code)
    _, status = os.waitpid(child, 0)
    ended = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    found = FileOrderInfoStore(folder).read()
    whole = found == document(found["revision"])
    print(json.dumps([number, ended, found["revision"] - revision, whole]))
    revision += 2
    FileOrderInfoStore(folder).write(document(revision), 3, revision)
    left = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
    if left:
        print(json.dumps([number, "left", left, False]))
    if ended == 9:
        break
"""


def sweep(folder: Path, fault: str, calls: tuple[str, ...]) -> list[tuple[int, int, int, bool]]:
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, str(folder), fault, ",".join(calls)],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=True,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_D6_a_writer_killed_at_each_system_call_leaves_old_or_new(tmp_path: Path) -> None:
    rows = sweep(tmp_path, "kill", CALLS)
    assert all(whole for *_, whole in rows), rows
    assert [ended for _, ended, _, _ in rows] == [-9] * (len(rows) - 1) + [9]
    moved = [step for _, _, step, _ in rows]
    assert len(rows) > 10
    assert moved == sorted(moved)  # from one call on it is the new one
    assert {0, 1} == set(moved)


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EROFS"])
def test_D20_D21_a_disk_that_fails_at_each_system_call_is_not_saved(
    tmp_path: Path, fault: str
) -> None:
    rows = sweep(tmp_path, fault, ("open", "write", "fsync", "link", "replace"))
    assert all(whole for *_, whole in rows), rows
    assert [ended for _, ended, _, _ in rows] == [7] * (len(rows) - 1) + [9]
    # Old but for the folder's open and fsync, after the rename.
    assert [step for _, _, step, _ in rows] == [0] * (len(rows) - 3) + [1] * 3


class Killed(BaseException):
    """The process ends here."""


def test_D6_a_letter_is_whole_at_every_named_point(tmp_path: Path) -> None:
    FileOrderInfoStore(tmp_path).write({"epoch": 3, "revision": 0}, 3, 0)
    reached: list[str] = []
    listen(reached.append)
    try:
        FileOrderInfoStore(tmp_path).write({"epoch": 3, "revision": 1}, 3, 1)
    finally:
        listen(None)
    assert reached == [
        "order_info: temporary written",
        "order_info: temporary synced",
        "order_info: previous kept",
        "order_info: renamed",
        "order_info: durable",
        "order_info: written",
    ]
    for number, name in enumerate(reached, start=1):

        def end(point: str, wanted: str = name) -> None:
            if point == wanted:
                raise Killed

        listen(end)
        try:
            with pytest.raises(Killed):
                FileOrderInfoStore(tmp_path).write({"epoch": 4, "revision": number}, 4, number)
        finally:
            listen(None)
        content = (tmp_path / FILE_NAME).read_bytes()
        stamp = unseal(content, "letter")["revision"]
        assert stamp == (number if number >= 4 else max(1, number - 1))  # 4: renamed
        FileOrderInfoStore(tmp_path).write({"epoch": 4, "revision": number}, 4, number)
        assert FileOrderInfoStore(tmp_path).read() == {"epoch": 4, "revision": number}
        assert not list(tmp_path.glob(".*.tmp"))
