"""Messages to and from user code: length, then one JSON object; anything else ends the talk."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.errors import InvalidInput
from module.security.framing import ConnectionEnded, receive_message, send_message

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    for end in (left, right):
        end.settimeout(10)
    yield left, right
    left.close()
    right.close()


def frame(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_sent_is_received(message: dict[str, object]) -> None:
    left, right = socket.socketpair()
    with left, right:
        send_message(left, message)
        send_message(left, {"next": 1})
        assert receive_message(right) == message
        assert receive_message(right) == {"next": 1}


def test_a_long_message_arrives_whole_in_pieces(pair: Pair) -> None:
    left, right = pair
    message: dict[str, object] = {"rows": ["x" * 1000] * 3000}
    sender = threading.Thread(target=send_message, args=(left, message))
    sender.start()
    assert receive_message(right) == message
    sender.join(10)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b'"text"',
        b"null",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b"\xff\xfe{}",
        b'{"a": 1}{"b": 2}',
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_S42_what_is_not_one_object_is_refused(pair: Pair, body: bytes) -> None:
    left, right = pair
    left.sendall(frame(body))
    with pytest.raises(InvalidInput):
        receive_message(right)


def test_a_length_over_the_limit_is_refused_before_a_byte_of_it_is_read(pair: Pair) -> None:
    left, right = pair
    left.sendall(struct.pack("!I", 2**32 - 1))
    with pytest.raises(InvalidInput, match="4294967295"):
        receive_message(right)
    left.sendall(frame(json.dumps({"a": "x" * 100}).encode()))
    with pytest.raises(InvalidInput, match="at most 50"):
        receive_message(right, 50)


@pytest.mark.parametrize("sent", [b"", b"\x00", b"\x00\x00\x00\x05", frame(b'{"a":1}')[:-1]])
def test_an_ended_channel_is_an_end_wherever_it_broke(pair: Pair, sent: bytes) -> None:
    left, right = pair
    left.sendall(sent)
    left.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionEnded):
        receive_message(right)


def test_sending_to_nobody_is_an_end(pair: Pair) -> None:
    left, right = pair
    right.close()
    with pytest.raises(ConnectionEnded):
        send_message(left, {"a": "x" * 1_000_000})


def test_silence_is_a_time_out(pair: Pair) -> None:
    _, right = pair
    right.settimeout(0.01)
    with pytest.raises(TimeoutError):
        receive_message(right)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_sent(pair: Pair, value: float) -> None:
    left, _ = pair
    with pytest.raises(ValueError, match="JSON"):
        send_message(left, {"a": value})
