"""A socket whose answer does not come is cut, as soon as a descriptor can be had for that."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from module.db.silence import Answer


def test_without_a_free_descriptor_the_cut_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()

    def none_free(_file: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with ours, theirs:
        answer = Answer(ours.fileno(), 1.0, lambda: None)
        with monkeypatch.context() as patched:
            patched.setattr(os, "dup", none_free)
            assert not answer.cut()
        assert answer.cut()
        assert theirs.recv(1) == b""


def test_a_descriptor_that_is_somebody_else_s_by_now_is_left_alone() -> None:
    ours, theirs = socket.socketpair()
    others, far = socket.socketpair()
    with theirs, others, far:
        file = ours.fileno()
        answer = Answer(file, 1.0, lambda: None)
        ours.close()
        os.dup2(others.fileno(), file)
        try:
            assert answer.cut()
            others.send(b"x")
            assert far.recv(1) == b"x"
        finally:
            os.close(file)
