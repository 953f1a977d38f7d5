"""Services of a stack: restarted when they end, ended in order, those that were restarted too."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from module.clock import SystemClock
from module.launch.stack import USELESS_ANSWERS, Service, Stack, free_port, useless_by

LIVES = """
import os, sys, time
from module.life_line import end_with_parent
end_with_parent()
with open(sys.argv[1], "a") as starts:
    starts.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_D5_a_restarted_service_lives_until_it_is_its_turn_to_end(tmp_path: Path) -> None:
    """The kernel ends a child with the thread that started it, and a watcher's thread ends early:
    the exchange was gone while the gateway still had to end its protection."""
    starts = tmp_path / "starts"

    def pids() -> list[int]:
        return [int(line) for line in starts.read_text().split()] if starts.exists() else []

    service = Service(
        "sleeper", [sys.executable, "-c", LIVES, str(starts)], lambda: len(pids()) == 1
    )
    (tmp_path / "logs").mkdir()
    stack = Stack(tmp_path / "logs", SystemClock())
    stack.start(service)
    stack.watch()
    try:
        os.kill(stack.pids()["sleeper"], signal.SIGKILL)
        until(lambda: len(pids()) == 2)
        stack.stop_watching()
        time.sleep(0.3)  # a signal of the kernel's would have arrived
        restarted = stack.pids()["sleeper"]
        assert restarted == pids()[1]
        assert Path(f"/proc/{restarted}/stat").read_text().split()[2] != "Z"
    finally:
        stack.stop()
    assert not Path(f"/proc/{restarted}").exists()


def sleeper(starts: Path, ready: Callable[[], bool]) -> Service:
    command = [sys.executable, "-c", LIVES, str(starts)]
    return Service(starts.name, command, ready, goes_first=starts.name == "gateway")


def lines(path: Path) -> int:
    return len(path.read_text().split()) if path.exists() else 0


def test_D5_a_guard_that_waits_keeps_no_service_from_being_started_again(tmp_path: Path) -> None:
    """The session host takes seconds to start: the gateway, and positions, must not wait."""
    starts, guarding, over = tmp_path / "gateway", threading.Event(), threading.Event()

    def guard() -> None:
        guarding.set()
        over.wait(60)

    (tmp_path / "logs").mkdir()
    stack = Stack(tmp_path / "logs", SystemClock())
    stack.start(sleeper(starts, lambda: lines(starts) > 0))
    stack.watch([guard])
    try:
        assert guarding.wait(60)
        os.kill(stack.pids()["gateway"], signal.SIGKILL)
        until(lambda: lines(starts) == 2)
    finally:
        over.set()
        stack.stop()


LIVES_WITHOUT_USE = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from module.life_line import end_with_parent
end_with_parent()
starts, port, first_answer = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        with open(starts) as lines:
            is_first = len(lines.read().split()) == 1
        self.send_response(first_answer if is_first else 200)
        self.end_headers()
        self.wfile.write(b'{"ended": ["protection"]}')

server = HTTPServer(("127.0.0.1", port), Health)
with open(starts, "a") as file:
    file.write(f"{os.getpid()}\\n")
server.serve_forever()
"""


def healthy_or_not(starts: Path, first_answer: int, asked: list[str | None]) -> Service:
    """A service whose first process answers `first_answer` when it is asked whether it lives."""
    port = free_port()

    def useless() -> str | None:
        asked.append(useless_by("127.0.0.1", port))
        return asked[-1]

    command = [sys.executable, "-c", LIVES_WITHOUT_USE, str(starts), str(port), str(first_answer)]
    return Service(starts.name, command, lambda: lines(starts) > 0, useless=useless)


def test_D5_a_gateway_whose_protection_has_ended_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("module.launch.stack.LIVE_PAUSE_S", 0.05)
    starts, asked = tmp_path / "gateway", list[str | None]()
    (tmp_path / "logs").mkdir()
    stack = Stack(tmp_path / "logs", SystemClock())
    stack.start(healthy_or_not(starts, 503, asked))
    first = stack.pids()["gateway"]
    stack.watch()
    try:
        until(lambda: lines(starts) == 2)
        until(lambda: asked[-1] is None and stack.pids()["gateway"] != first)
    finally:
        stack.stop()
    assert '{"ended": ["protection"]}' in asked
    assert stack.failure is None


@pytest.mark.parametrize("answer", [200, 404, 500])
def test_a_service_that_does_not_call_itself_useless_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    monkeypatch.setattr("module.launch.stack.LIVE_PAUSE_S", 0.01)
    starts, asked = tmp_path / "gateway", list[str | None]()
    (tmp_path / "logs").mkdir()
    stack = Stack(tmp_path / "logs", SystemClock())
    stack.start(healthy_or_not(starts, answer, asked))
    stack.watch()
    try:
        until(lambda: len(asked) > USELESS_ANSWERS + 1)
    finally:
        stack.stop()
    assert lines(starts) == 1


def test_a_service_that_does_not_answer_calls_itself_nothing() -> None:
    assert useless_by("127.0.0.1", free_port()) is None


def test_D5_of_several_that_ended_the_gateway_is_ready_before_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("module.launch.stack.REVIVED_ALONE_S", 60.0)
    first, second, ready = tmp_path / "gateway", tmp_path / "platform", threading.Event()
    ready.set()
    seen: list[int] = []

    def gateway_is_ready() -> bool:
        if lines(first) == 2:
            seen.append(lines(second))
        return ready.is_set() and lines(first) > 0

    (tmp_path / "logs").mkdir()
    stack = Stack(tmp_path / "logs", SystemClock())
    stack.start(sleeper(first, gateway_is_ready))
    stack.start(sleeper(second, lambda: lines(second) > 0))
    ready.clear()
    for pid in stack.pids().values():
        os.kill(pid, signal.SIGKILL)
    stack.watch()
    try:
        until(lambda: len(seen) >= 2)
        ready.set()
        until(lambda: lines(second) == 2)
    finally:
        stack.stop()
    assert seen[:2] == [1, 1]
