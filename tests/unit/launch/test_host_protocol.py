"""Words between a launcher and the session host: one line each way, descriptors beside it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from module.launch.host_protocol import (
    DESCRIPTORS_MAX,
    LINE_MAX,
    ask_host,
    build_id,
    host_socket_path,
    peer_uid,
    read_request,
    runner_socket_path,
)
from module.model.errors import Unavailable

Serve = Callable[[socket.socket], None]


@pytest.fixture
def path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hp-"))
    yield folder / "host.sock"
    shutil.rmtree(folder)


@pytest.fixture
def host(path: Path) -> Iterator[Callable[[Serve], None]]:
    """Serves one connection with what a test gives."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(10)
    threads: list[threading.Thread] = []

    def serve(answer: Serve) -> None:
        def run() -> None:
            channel, _ = listener.accept()
            channel.settimeout(10)
            with channel:
                answer(channel)

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)

    yield serve
    for thread in threads:
        thread.join(15)
    listener.close()


def test_a_question_and_its_descriptors_arrive_and_are_answered(
    path: Path, host: Callable[[Serve], None]
) -> None:
    heard: list[object] = []

    def answer(channel: socket.socket) -> None:
        request, descriptors = read_request(channel)
        heard.append(request)
        heard.append(peer_uid(channel))
        for descriptor in descriptors:
            os.write(descriptor, b"heard")
            os.close(descriptor)
        channel.sendall(b'{"ok": true, "pid": 17}\n')

    host(answer)
    read, write = os.pipe()
    question = {"op": "fork", "role": "strategy", "session_id": "2611211102-ab3x"}
    assert ask_host(path, question, [write])["pid"] == 17
    os.close(write)
    assert heard == [question, os.geteuid()]
    assert os.read(read, 9) == b"heard"
    os.close(read)


def test_a_question_without_descriptors_may_come_in_pieces(
    path: Path, host: Callable[[Serve], None]
) -> None:
    heard: list[tuple[dict[str, object], list[int]]] = []
    host(lambda channel: heard.append(read_request(channel)))
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.connect(str(path))
    for piece in (b'{"op": ', b'"ping"', b"}\n"):
        channel.sendall(piece)
    assert channel.recv(1) == b""
    channel.close()
    assert heard == [({"op": "ping"}, [])]


@pytest.mark.parametrize("line", [b"", b"\n", b"nonsense\n", b"[1]\n", b"\xff\n", b"7\n"])
def test_nonsense_is_no_request(path: Path, host: Callable[[Serve], None], line: bytes) -> None:
    heard: list[tuple[dict[str, object], list[int]]] = []
    host(lambda channel: heard.append(read_request(channel)))
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.connect(str(path))
    channel.sendall(line)
    channel.shutdown(socket.SHUT_WR)
    assert channel.recv(1) == b""
    channel.close()
    assert heard == [({}, [])]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"not json\n",
        b"[]\n",
        b"\xff\xfe\n",
        b'{"ok": false, "error": "no such session"}\n',
        b"{}\n",
        b"x" * (LINE_MAX + 9000),
    ],
)
def test_a_host_that_refuses_or_talks_nonsense_is_unavailable(
    path: Path, host: Callable[[Serve], None], answer: bytes
) -> None:
    def say(channel: socket.socket) -> None:
        read_request(channel)
        try:
            channel.sendall(answer)
        except OSError:
            return  # it did not want to hear all of that

    host(say)
    with pytest.raises(Unavailable):
        ask_host(path, {"op": "ping"}, timeout_s=5)


def test_a_refusal_says_why(path: Path, host: Callable[[Serve], None]) -> None:
    def refuse(channel: socket.socket) -> None:
        read_request(channel)
        channel.sendall(json.dumps({"ok": False, "error": "it is over"}).encode() + b"\n")

    host(refuse)
    with pytest.raises(Unavailable, match="start: it is over"):
        ask_host(path, {"op": "start"})


def test_a_host_that_is_not_there_or_silent_is_unavailable(
    path: Path, host: Callable[[Serve], None]
) -> None:
    with pytest.raises(Unavailable):
        ask_host(path.with_name("nobody.sock"), {"op": "ping"})
    gate = threading.Event()

    def keep_silent(_channel: socket.socket) -> None:
        gate.wait(10)

    host(keep_silent)
    with pytest.raises(Unavailable):
        ask_host(path, {"op": "ping"}, timeout_s=0.1)
    gate.set()


def test_more_descriptors_than_allowed_do_not_pass(
    path: Path, host: Callable[[Serve], None]
) -> None:
    heard: list[int] = []

    def count(channel: socket.socket) -> None:
        _, descriptors = read_request(channel)
        heard.append(len(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        channel.sendall(b'{"ok": true}\n')

    host(count)
    pipes = [os.pipe() for _ in range(DESCRIPTORS_MAX)]
    flat = [end for pair in pipes for end in pair]
    ask_host(path, {"op": "fork"}, flat)
    for end in flat:
        os.close(end)
    assert heard[0] <= DESCRIPTORS_MAX * 2


def test_each_build_has_sockets_of_its_own(tmp_path: Path) -> None:
    assert len(build_id()) == 8
    assert host_socket_path(tmp_path) != runner_socket_path(tmp_path)
    assert build_id() in host_socket_path(tmp_path).name


def test_descriptors_of_a_line_that_never_ends_are_closed(path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    sent = os.open(os.devnull, os.O_RDONLY)
    with ours, theirs:
        theirs.settimeout(0.05)
        socket.send_fds(ours, [b'{"op": "fork"'], [sent])
        os.close(sent)
        before = set(Path("/proc/self/fd").iterdir())
        with pytest.raises(TimeoutError):
            read_request(theirs)
        assert set(Path("/proc/self/fd").iterdir()) == before
