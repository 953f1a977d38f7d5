"""The letter on disk, written and locked by other processes, and on disks that fail."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from module.files.order_info_file import FileOrderInfoStore
from module.model.errors import Unavailable
from tests.integration.trading.test_order_info_file import ROOT, document, written


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
    for kill in range(60):  # four, unless the machine is too busy for a writer to get anywhere
        if kill >= 4 and revision > 0:
            break
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
