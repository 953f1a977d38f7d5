"""Knowing a process for sure: by pid and start time, through descriptors, never by pid alone."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from module.launch.processes import (
    ProcessRecord,
    end_process,
    identify,
    is_alive,
    open_pidfd,
    send_signal,
)
from module.model.errors import InvariantViolated

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('up', flush=True); time.sleep(60)"
)


def spawn(code: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = spawn(SLEEPER)
    yield process
    process.kill()
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


def test_a_process_is_itself_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    who = identify(sleeper.pid)
    assert who is not None
    assert who == identify(sleeper.pid)
    assert is_alive(who)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(who)  # a zombie is nobody
    sleeper.wait(10)
    assert identify(sleeper.pid) is None


def test_D7_a_reused_pid_is_somebody_else(sleeper: subprocess.Popen[bytes]) -> None:
    who = identify(sleeper.pid)
    assert who is not None
    for other in (
        replace(who, started_ticks=who.started_ticks - 1),
        replace(who, boot_id="another boot"),
    ):
        assert not is_alive(other)
        assert open_pidfd(other) is None
        assert send_signal(other, signal.SIGKILL) is False
        end_process(other, grace_s=0.1)
    assert sleeper.poll() is None
    assert not is_alive(None)


def test_a_name_with_parentheses_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to(sys.executable)
    process = subprocess.Popen([str(program), "-c", SLEEPER], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        who = identify(process.pid)
        assert who is not None
        assert who.started_ticks > 0
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_its_descriptor_tells_of_its_end(sleeper: subprocess.Popen[bytes]) -> None:
    who = identify(sleeper.pid)
    assert who is not None
    descriptor = open_pidfd(who)
    assert descriptor is not None
    assert select.select([descriptor], [], [], 0)[0] == []
    assert send_signal(who, signal.SIGTERM) is True
    assert select.select([descriptor], [], [], 10)[0] == [descriptor]
    os.close(descriptor)
    sleeper.wait(10)
    assert send_signal(who, signal.SIGTERM) is False
    assert open_pidfd(who) is None


def test_a_process_is_ended_politely_or_not() -> None:
    for code, status in ((SLEEPER, -signal.SIGTERM), (STUBBORN, -signal.SIGKILL)):
        process = spawn(code)
        who = identify(process.pid)
        assert who is not None
        end_process(who, grace_s=0.3)
        assert process.wait(10) == status
        assert process.stdout is not None
        process.stdout.close()
        end_process(who, grace_s=0.3)  # again is harmless


def test_the_record_says_who_plays_which_part(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    record = ProcessRecord(tmp_path)
    assert record.read() == {}
    assert record.alive("leader") is None
    me, other = identify(os.getpid()), identify(sleeper.pid)
    assert me is not None
    assert other is not None
    record.put("leader", me)
    record.put("strategy", other)
    assert ProcessRecord(tmp_path).read() == {"leader": me, "strategy": other}
    assert record.alive("strategy") == other
    sleeper.kill()
    sleeper.wait(10)
    assert record.alive("strategy") is None
    assert record.alive("leader") == me
    assert [path.name for path in tmp_path.iterdir()] == ["processes.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"leader": 7}', '{"leader": {"pid": 1}}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "processes.json").write_text(content)
    with pytest.raises(InvariantViolated, match=r"processes\.json"):
        ProcessRecord(tmp_path).read()


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    me = identify(os.getpid())
    assert me is not None
    ProcessRecord(tmp_path).put("leader", me)
    loaded = json.loads((tmp_path / "processes.json").read_text())
    assert loaded["leader"]["pid"] == os.getpid()
