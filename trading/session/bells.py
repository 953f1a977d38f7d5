"""The four events between leader and strategy process. A bell carries nothing; the letter does.

`Bell` has the interface of `multiprocessing.Event` and survives what the stock one does not
(cpython#75158): it is one eventfd, a counter in the kernel. There is no lock and no list of
sleepers, so a waiter that was killed cannot block whoever rings.

In a stepped world a ring also tells the clock that the other side has something to do, so that
time does not run past it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from module.ports import Clock

REBALANCE_START = "rebalance_start"
STRATEGY_DONE = "strategy_done"
AUTOTRADE_DONE = "autotrade_done"
REBALANCE_DONE = "rebalance_done"
BELL_NAMES = (REBALANCE_START, STRATEGY_DONE, AUTOTRADE_DONE, REBALANCE_DONE)


class Bell:
    """One event between processes: `set`, `clear`, `is_set`, `wait`.

    `listener` is the clock participant that waits for it. Fork-inherited or passed by descriptor.
    """

    def __init__(self, clock: Clock, listener: str, descriptor: int | None = None) -> None:
        self._clock = clock
        self._listener = listener
        self._descriptor = (
            os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if descriptor is None else descriptor
        )

    def fileno(self) -> int:
        """The descriptor: readable while the bell is set."""
        return self._descriptor

    def set(self) -> None:
        """Ring. Never blocks, whoever listens or does not."""
        with contextlib.suppress(BlockingIOError):  # a full counter is set: all that was wanted
            os.eventfd_write(self._descriptor, 1)
        self._clock.wake(self._listener)

    def clear(self) -> None:
        """Make it silent."""
        with contextlib.suppress(BlockingIOError):  # it was silent already
            os.eventfd_read(self._descriptor)

    def is_set(self) -> bool:
        """Whether it rings; does not silence it."""
        import select

        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        return bool(poller.poll(0))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it rings or `timeout` world seconds are over; whether it rings."""
        if self.is_set():
            return True
        until = None if timeout is None else self._clock.now() + timedelta(seconds=timeout)
        return bool(self._clock.wait_readable([self._descriptor], until))

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Bells:
    """The four bells of one session."""

    rebalance_start: Bell
    strategy_done: Bell
    autotrade_done: Bell
    rebalance_done: Bell

    @classmethod
    def create(cls, clock: Clock, leader: str, strategy: str) -> Bells:
        """New bells; `leader` and `strategy` are the clock participants of the two sides."""
        return cls(
            Bell(clock, strategy), Bell(clock, leader), Bell(clock, strategy), Bell(clock, leader)
        )

    @classmethod
    def adopt(cls, clock: Clock, leader: str, strategy: str, descriptors: Sequence[int]) -> Bells:
        """The other side of bells whose descriptors were inherited, in the order of BELL_NAMES."""
        start, done, traded, over = descriptors
        return cls(
            Bell(clock, strategy, start),
            Bell(clock, leader, done),
            Bell(clock, strategy, traded),
            Bell(clock, leader, over),
        )

    def descriptors(self) -> list[int]:
        """In the order of BELL_NAMES."""
        return [
            bell.fileno()
            for bell in (
                self.rebalance_start,
                self.strategy_done,
                self.autotrade_done,
                self.rebalance_done,
            )
        ]

    def close(self) -> None:
        """Give all descriptors back."""
        for descriptor in self.descriptors():
            os.close(descriptor)
