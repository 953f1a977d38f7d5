"""What a session's leader has around it, in memory: registry, children, alerts, control."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from module.model.errors import AifapError, StaleWriter, Unavailable
from module.model.sessions import DesiredState, EndState, SessionState
from module.ports import Alert, CycleRecord
from tests.fakes.clock import ManualClock
from tests.fakes.order_info import MemoryOrderInfoStore
from trading.rebalance.order_info import OrderInfo, from_json, to_json
from trading.session.bells import Bells
from trading.session.control import Control


class HandControl(Control):
    """A control that a test speaks through, without signals."""

    def say(self, number: signal.Signals) -> None:
        """As if the process had got this signal."""
        os.write(self._write, bytes([number]))


@dataclass(slots=True)
class MemoryAlerts:
    """Fits `module.ports.AlertSink`."""

    sent: list[Alert] = field(default_factory=list)

    def notify(self, alert: Alert) -> None:
        self.sent.append(alert)

    def kinds(self) -> list[str]:
        return [alert.kind for alert in self.sent]


@dataclass(slots=True)
class Row:
    """Fits `module.ports.SessionRow`."""

    state: SessionState = SessionState.STARTING
    desired: DesiredState = DesiredState.RUNNING
    end_state: EndState = EndState.PROTECTED
    cycle: int = 0
    last_boundary: datetime | None = None
    initial_balance: Decimal | None = None


@dataclass(slots=True)
class MemoryRegistry:
    """Fits `module.ports.SessionRegistry` for one session. `fails` are raised by the next calls of
    an operation, in order."""

    row: Row = field(default_factory=Row)
    epoch: int = 0
    states: list[tuple[SessionState, str]] = field(default_factory=list)
    cycles: dict[datetime, CycleRecord] = field(default_factory=dict)
    beats: list[datetime] = field(default_factory=list)
    fails: dict[str, deque[AifapError]] = field(default_factory=dict)

    def get(self, session_id: str) -> Row:
        self._happens("get")
        return self.row

    def take_epoch(self, session_id: str) -> int:
        self._happens("take_epoch")
        self.epoch += 1
        return self.epoch

    def set_state(
        self,
        session_id: str,
        state: SessionState,
        at: datetime,
        *,
        reason: str = "",
        epoch: int | None = None,
    ) -> Row:
        self._happens("set_state")
        self._require_current(epoch)
        self.row.state = state
        self.states.append((state, reason))
        return self.row

    def set_initial_balance(self, session_id: str, epoch: int, balance: Decimal) -> None:
        self._happens("set_initial_balance")
        self._require_current(epoch)
        if self.row.initial_balance is None:
            self.row.initial_balance = balance

    def heartbeat(self, session_id: str, epoch: int, wall: datetime) -> Row:
        self._happens("heartbeat")
        self._require_current(epoch)
        self.beats.append(wall)
        return self.row

    def wishes(self, session_id: str) -> Row:
        self._happens("wishes")
        return self.row

    def record_cycle(self, epoch: int, cycle: CycleRecord) -> None:
        self._happens("record_cycle")
        self._require_current(epoch)
        self.cycles[cycle.boundary] = cycle
        self.row.cycle = max(self.row.cycle, cycle.number)
        last = self.row.last_boundary
        self.row.last_boundary = cycle.boundary if last is None else max(last, cycle.boundary)

    def stop(self, end_state: EndState) -> None:
        """The owner wants it to end."""
        self.row.desired = DesiredState.STOPPED
        self.row.end_state = end_state

    def fail_next(self, operation: str, *errors: AifapError) -> None:
        self.fails.setdefault(operation, deque()).extend(errors)

    def _happens(self, operation: str) -> None:
        queue = self.fails.get(operation)
        if queue:
            raise queue.popleft()

    def _require_current(self, epoch: int | None) -> None:
        if epoch is not None and epoch < self.epoch:
            raise StaleWriter(f"epoch {epoch} is older than {self.epoch}")


class PlayedChild:
    """Fits `module.ports.SessionChild`: a process that ends when a test says so."""

    def __init__(self) -> None:
        self.starts = 0
        self.stops = 0
        self.fails = 0  # so many starts fail from now on
        self._life: tuple[int, int] | None = None

    @property
    def lives(self) -> bool:
        return self._life is not None and self._life[1] >= 0

    def start(self) -> None:
        self.stop()
        self.starts += 1
        if self.fails:
            self.fails -= 1
            raise Unavailable("the session host does not answer")
        self._life = os.pipe()

    def begin(self) -> None:
        self.start()

    def await_ready(self) -> None:
        assert self._life is not None, "never begun"

    def fileno(self) -> int:
        assert self._life is not None, "never started"
        return self._life[0]

    def die(self) -> None:
        """It is gone; whoever watches it finds out."""
        assert self._life is not None
        os.close(self._life[1])
        self._life = (self._life[0], -1)

    def stop(self) -> None:
        if self._life is None:
            return
        self.stops += 1
        for descriptor in self._life:
            if descriptor >= 0:
                os.close(descriptor)
        self._life = None


Answer = Callable[[OrderInfo], OrderInfo | None]


class PlayedStrategy(PlayedChild):
    """The strategy process, played when its bells ring: `answer` makes the next letter.

    None from `answer` is a process that says nothing; one that dies calls `die`.
    """

    def __init__(
        self, clock: ManualClock, store: MemoryOrderInfoStore, bells: Bells, answer: Answer
    ) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[OrderInfo] = []
        self.confirms = True
        self._store = store
        self._bells = bells
        clock.on_ring("strategy", self._hear)

    def _hear(self) -> None:
        if not self.lives:
            return
        if self._bells.rebalance_start.is_set():
            self._bells.rebalance_start.clear()
            document = self._store.read()
            assert document is not None
            asked = from_json(document)
            self.asked.append(asked)
            answered = self.answer(asked)
            if answered is not None:
                self._store.write(to_json(answered), answered.epoch, answered.revision)
                self._bells.strategy_done.set()
        if self._bells.autotrade_done.is_set() and self.confirms:
            self._bells.autotrade_done.clear()
            self._bells.rebalance_done.set()
