"""`order_info.txt` on a real disk: old or new, never a mixture, whatever dies or is full."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
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


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Whatever a test starts and puts here is gone afterwards."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def run_python(
    started: list[subprocess.Popen[bytes]], code: str, *arguments: str
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE
    )
    started.append(process)
    return process


def await_line(process: subprocess.Popen[bytes], seconds: float = 20) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    assert ready, "the other process said nothing"
    return process.stdout.readline()


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


# --- other processes ------------------------------------------------------------------------------


WRITER = """
import sys
from pathlib import Path
from module.files.order_info_file import FileOrderInfoStore
store = FileOrderInfoStore(Path(sys.argv[1]))
first = int(sys.argv[2])
print("ready", flush=True)
for revision in range(first, first + 100_000):
    padding = chr(97 + revision % 26) * 60_000
    store.write({"epoch": 3, "revision": revision, "padding": padding}, 3, revision)
"""


def test_D6_a_writer_killed_at_any_moment_leaves_old_or_new(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    store = FileOrderInfoStore(tmp_path)
    revision = -1
    for kill in range(4):
        writer = run_python(processes, WRITER, str(tmp_path), str(revision + 1))
        await_line(writer)
        select.select([], [], [], 0.004 + kill * 0.0117)
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
        found = store.read()
        if found is None:
            continue
        now = int(str(found["revision"]))
        assert now >= revision
        assert found["padding"] == chr(97 + now % 26) * 60_000
        revision = now
    assert revision > 0
    store.write(document(3, revision + 1), 3, revision + 1)
    assert list(tmp_path.glob(".*.tmp")) == []


HOLDER = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_D10_a_lock_held_by_a_living_process_is_a_bounded_wait(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    store = written(tmp_path)
    holder = run_python(processes, HOLDER, f"{store.path}.lock")
    await_line(holder)
    holder.send_signal(signal.SIGSTOP)
    for attempt in (store.read, lambda: store.write(document(3, 8), 3, 8)):
        with pytest.raises(Unavailable) as found:
            attempt()
        assert f"{store.path}.lock" in found.value.message


def test_D7_the_lock_of_a_dead_process_is_free(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    store = written(tmp_path)
    holder = run_python(processes, HOLDER, f"{store.path}.lock")
    await_line(holder)
    holder.kill()
    holder.wait(10)
    store.write(document(3, 8), 3, 8)
    assert store.read() == document(3, 8)


RACER = """
import sys
from pathlib import Path
from module.files.order_info_file import FileOrderInfoStore
from module.model.errors import StaleWriter
store = FileOrderInfoStore(Path(sys.argv[1]))
epoch = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.read(1)
lost = 0
for revision in range(60):
    try:
        store.write({"epoch": epoch, "revision": revision, "writer": str(epoch)}, epoch, revision)
    except StaleWriter:
        lost += 1
print(lost, flush=True)
"""


def test_D8_of_two_writers_the_newer_epoch_wins_for_good(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    racers = []
    for epoch in (4, 5):
        racer = subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), str(epoch)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
        )
        processes.append(racer)
        racers.append(racer)
    for racer in racers:
        await_line(racer)
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
    lost = [int(await_line(racer)) for racer in racers]
    assert lost[1] == 0
    found = FileOrderInfoStore(tmp_path).read()
    assert found == {"epoch": 5, "revision": 59, "writer": "5"}


# --- disks ----------------------------------------------------------------------------------------


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from module.files.order_info_file import FileOrderInfoStore
from module.model.errors import Unavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = FileOrderInfoStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.write({"epoch": 3, "revision": 8, "padding": "x" * 5000}, 3, 8)
except Unavailable as error:
    print("refused", error.message, flush=True)
"""


def test_D21_a_full_disk_is_not_saved_and_the_old_letter_stays(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    store = written(tmp_path)
    line = await_line(run_python(processes, FULL_DISK, str(tmp_path)))
    assert line.startswith(b"refused")
    assert str(store.path).encode() in line
    assert store.read() == document(3, 7)
    assert list(tmp_path.glob(".*.tmp")) == []


def test_D20_a_disk_that_fails_at_fsync_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = written(tmp_path)

    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(Unavailable) as found:
        store.write(document(3, 8), 3, 8)
    assert str(store.path) in found.value.message
    monkeypatch.undo()
    assert store.read() == document(3, 7)


READ_ONLY = """
import ctypes, sys
from pathlib import Path
from module.files.order_info_file import FileOrderInfoStore
from module.model.errors import Unavailable
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND = 0x20000, 1, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
folder = sys.argv[1].encode()
store = FileOrderInfoStore(Path(sys.argv[1]))
if (
    libc.unshare(CLONE_NEWNS)
    or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    or libc.mount(folder, folder, None, MS_BIND, None)
    or libc.mount(b"none", folder, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)
):
    print("cannot", flush=True)
    sys.exit()
for attempt in (lambda: store.write({"epoch": 3, "revision": 8}, 3, 8), store.read):
    try:
        attempt()
    except Unavailable as error:
        print("refused", error.message, flush=True)
try:
    FileOrderInfoStore(Path(sys.argv[1]) / "new")
except Unavailable as error:
    print("refused", error.message, flush=True)
"""


def test_D20_a_read_only_disk_is_an_error_that_names_the_file(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    store = written(tmp_path)
    other = run_python(processes, READ_ONLY, str(tmp_path))
    first = await_line(other)
    if first == b"cannot\n":
        pytest.skip("mounting needs privileges that this test run does not have")
    for line in (first, await_line(other), await_line(other)):
        assert line.startswith(b"refused")
        assert str(tmp_path).encode() in line
    assert store.read() == document(3, 7)
