"""The world clock's wire: newline-delimited JSON over TCP, one connection per client.

    module/clock.WorldClock == lines ==> ClockConnection ==> world_clock.WorldClockServer

A line that is no sense is answered with an error, and its connection closed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Protocol, cast

from module.model.errors import InvalidInput
from module.simulator.clock_status import ClockStatus, status_json

_LINE_BYTES_MAX = 65_536
_NAME_LENGTH_MAX = 200
TURN_MAX = 9


class ClockCalls(Protocol):
    """What clients ask of the clock; see `WorldClockServer`."""

    def connected(self, connection: ClockConnection) -> None: ...

    def hello(
        self, connection: ClockConnection, name: str | None, known_ms: int, turn: int
    ) -> None: ...

    def wait(self, connection: ClockConnection, seq: int, until_ms: int | None) -> None: ...

    def alarm(self, connection: ClockConnection, seq: int, until_ms: int | None) -> None: ...

    def busy(self, connection: ClockConnection, seq: int) -> None: ...

    def wake(self, connection: ClockConnection, name: str) -> None: ...

    def disconnected(self, connection: ClockConnection) -> None: ...

    def sync(self) -> int: ...

    def status(self) -> ClockStatus: ...


class ClockConnection(asyncio.Protocol):
    """One client: splits lines, checks them, hands them to the server."""

    def __init__(self, server: ClockCalls) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None
        self.name: str | None = None
        self._greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._server.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.disconnected(self)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if self._transport is None or self._transport.is_closing():
                return
            try:
                self._handle(line)
            except InvalidInput as error:
                self.send({"op": "error", "message": error.message})
                self.drop()
                return
        if len(self._buffer) > _LINE_BYTES_MAX:
            self.send({"op": "error", "message": f"a line has at most {_LINE_BYTES_MAX} bytes"})
            self.drop()

    def send(self, message: Mapping[str, object]) -> None:
        """Write one line; nothing if the client is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def drop(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._transport.close()

    def _handle(self, line: bytes) -> None:
        message = _parse_line(line)
        op = message.get("op")
        if not self._greeted and op not in ("hello", "status", "now"):
            raise InvalidInput(f"say hello before {op!r}")
        match op:
            case "hello":
                self._greeted = True
                name = message.get("participant")
                if name is not None and (
                    not isinstance(name, str) or not 0 < len(name) <= _NAME_LENGTH_MAX
                ):
                    raise InvalidInput(f"not a participant's name: {name!r}")
                turn = _integer(message, "turn", 0)
                if turn > TURN_MAX:
                    raise InvalidInput(f"turn is 0 to {TURN_MAX}, not {turn}")
                self._server.hello(self, name, _integer(message, "known_ms", 0), turn)
            case "wait":
                self._server.wait(self, _integer(message, "seq"), _moment(message))
            case "alarm":
                self._server.alarm(self, _integer(message, "seq"), _moment(message))
            case "busy":
                self._server.busy(self, _integer(message, "seq"))
            case "wake":
                self._server.wake(self, str(message.get("participant")))
            case "now":
                self.send({"op": "now", "now_ms": self._server.sync()})
            case "status":
                self.send({"op": "status", **status_json(self._server.status())})
            case _:
                raise InvalidInput(f"unknown op {op!r}")


def _parse_line(line: bytes) -> dict[str, object]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"not a JSON line: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise InvalidInput(f"not a JSON object: {line[:80]!r}")
    return message


def _integer(message: dict[str, object], key: str, default: int | None = None) -> int:
    value = message.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        raise InvalidInput(f"{key} must be a whole number, not {value!r}")
    return value


def _moment(message: dict[str, object]) -> int | None:
    return None if message.get("until_ms") is None else _integer(message, "until_ms")
