"""A world with nothing in it but a beat, and a thread that runs its clock."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from module.simulator.world_clock import ClockHooks, WorldClockServer

T = TypeVar("T")
START_MS = 1_763_719_200_000


@dataclass
class BeatingWorld:
    """Something happens every `beat_ms`; remembers every step."""

    now_ms: int = START_MS
    beat_ms: int = 60_000
    steps: list[int] = field(default_factory=list)

    def next_event_ms(self) -> int:
        return (self.now_ms // self.beat_ms + 1) * self.beat_ms

    def advance_to(self, when_ms: int) -> None:
        assert when_ms >= self.now_ms
        self.now_ms = when_ms
        self.steps.append(when_ms)


class ClockThread:
    """A WorldClockServer in an event loop of its own thread."""

    def __init__(
        self,
        world: BeatingWorld,
        *,
        speed: float = 0,
        port: int = 0,
        expected: tuple[str, ...] = (),
        hold_s: float = 10.0,
    ) -> None:
        self.world = world
        self.marks: list[tuple[int, tuple[str, ...]]] = []
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

        async def start() -> tuple[WorldClockServer, int]:
            hooks = ClockHooks(mark=lambda now_ms, names: self.marks.append((now_ms, names)))
            server = WorldClockServer(
                world, speed=speed, expected=expected, hold_s=hold_s, hooks=hooks
            )
            bound = socket.create_server(("127.0.0.1", port))
            await server.start(bound)
            return server, int(bound.getsockname()[1])

        self.server, self.port = asyncio.run_coroutine_threadsafe(start(), self.loop).result(10)

    def call(self, function: Callable[[], T]) -> T:
        """Run something in the loop and wait for it."""
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(function())
            except BaseException as error:
                answer.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return answer.result(10)

    def close(self) -> None:
        """Drop the clients, stop the loop."""
        if self.loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self.server.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@contextmanager
def running_clock(world: BeatingWorld, *, speed: float = 0) -> Iterator[ClockThread]:
    """A clock server for the length of a with block."""
    thread = ClockThread(world, speed=speed)
    try:
        yield thread
    finally:
        thread.close()
