"""The world clock on an event loop whose own time is virtual: nothing is really waited for."""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from module.simulator.world_clock import ClockHooks, WorldClockServer
from tests.fakes.stepped_world import BeatingWorld


class _JumpingSelector(selectors.DefaultSelector):
    """Looks at the sockets, and where it would sleep it lets the loop's time jump instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        for _ in range(20):
            if events or timeout is None or timeout <= 0:
                break
            events = super().select(0.001)  # an answer that is on its way comes first
        if not events and timeout is not None and timeout > 0:
            self.loop.virtual_s += timeout
        return events if timeout is not None else events or super().select(None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting costs nothing and takes exactly as long as asked."""

    def __init__(self) -> None:
        self.virtual_s = 1000.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.virtual_s


class Client:
    """A participant that speaks the wire by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._seq = 0

    @classmethod
    async def connect(cls, port: int, name: str | None, turn: int = 0) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        await client.ask({"op": "hello", "participant": name, "known_ms": 0, "turn": turn})
        return client

    async def ask(self, message: dict[str, object]) -> dict[str, Any]:
        self._writer.write(json.dumps(message).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        return dict(json.loads(await self._reader.readline()))

    async def wait(self, until_ms: int) -> int:
        await self.begin_wait(until_ms)
        return int((await self.answer())["now_ms"])

    async def begin_wait(self, until_ms: int) -> None:
        self._seq += 1
        message = {"op": "wait", "seq": self._seq, "until_ms": until_ms}
        self._writer.write(json.dumps(message).encode() + b"\n")
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


Scenario = Callable[[WorldClockServer, int, VirtualLoop], Coroutine[Any, Any, None]]


def play(
    scenario: Scenario, world: BeatingWorld, speed: float, hooks: ClockHooks | None = None
) -> None:
    """Run `scenario(server, port, loop)` against a clock server of `world`."""
    loop = VirtualLoop()

    async def main() -> None:
        server = WorldClockServer(world, speed=speed, hooks=hooks)
        bound = socket.create_server(("127.0.0.1", 0))
        await server.start(bound)
        await scenario(server, bound.getsockname()[1], loop)
        await server.close()
        await asyncio.sleep(0)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
