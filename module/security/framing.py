"""Messages between the trusted side and user code: length, then JSON. No pickle anywhere.

Both sides cap the length, refuse NaN and infinity in what they decode, and drop the connection on
anything that is not one JSON object.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping

from module.model.errors import InvalidInput

HEADER = struct.Struct("!I")
MESSAGE_MAX = 64 * 1024 * 1024


class ConnectionEnded(Exception):
    """The other side closed the channel, or is gone."""


def send_message(channel: socket.socket, message: Mapping[str, object]) -> None:
    """Send one object; ConnectionEnded when nobody is there."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    try:
        channel.sendall(HEADER.pack(len(body)) + body)
    except (BrokenPipeError, ConnectionError) as error:
        raise ConnectionEnded(str(error)) from error


def receive_message(channel: socket.socket, length_max: int = MESSAGE_MAX) -> dict[str, object]:
    """Receive one object of at most `length_max` bytes; TimeoutError as the socket is set."""
    (length,) = HEADER.unpack(_exactly(channel, HEADER.size))
    if length > length_max:
        raise InvalidInput(f"a message of {length} bytes was refused; at most {length_max}")
    try:
        message = json.loads(_exactly(channel, length), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"a message was not valid JSON: {error}") from error
    if not isinstance(message, dict):
        raise InvalidInput(f"a message was {type(message).__name__}, not an object")
    return message


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    missing = count
    while missing:
        try:
            part = channel.recv(min(missing, 1 << 20))
        except ConnectionError as error:
            raise ConnectionEnded(str(error)) from error
        if not part:
            raise ConnectionEnded("the other side closed the channel")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
