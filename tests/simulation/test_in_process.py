"""What a simulated day leaves out because it would change nothing, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from module.simulator.wire.bitget_app import BitgetApp
from module.simulator.wire.wire_answer import envelope
from tests.simulation.day import live
from tests.simulation.fault_files import PlainLock
from tests.simulation.hub import Hub
from tests.simulation.in_process_app import InProcessApp


def test_answers_that_are_not_spelled_and_descriptors_not_asked_again_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = live(2, 1.0)
    monkeypatch.setattr(
        InProcessApp,
        "_envelope",
        lambda app, now_ms, shown, headers, case: envelope(now_ms, shown, headers=headers),
    )
    monkeypatch.setattr(InProcessApp, "_execute", BitgetApp._execute)
    monkeypatch.setattr(Hub, "_is_silent", lambda hub, task: False)
    whole = live(2, 1.0)
    assert whole.digest == short.digest
    assert whole.orders == short.orders > 0


def test_the_plain_lock_and_a_filelock_shut_each_other_out(tmp_path: Path) -> None:
    path = tmp_path / "letter.lock"
    plain, other = PlainLock(path), FileLock(str(path), timeout=0)
    plain.acquire()
    with pytest.raises(Timeout):
        other.acquire()
    with pytest.raises(Timeout):
        PlainLock(path).acquire()
    plain.release()
    with other, pytest.raises(Timeout):
        plain.acquire()
    plain.acquire()
    plain.release()


def test_D9_the_plain_lock_refuses_what_is_no_file(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder.lock", tmp_path / "link.lock"
    folder.mkdir()
    link.symlink_to(tmp_path / "nowhere")
    for path in (folder, link):
        with pytest.raises(OSError, match=r"directory|symbolic"):
            PlainLock(path).acquire()
