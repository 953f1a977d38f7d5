"""The world clock: decides when the simulated world's time moves, and tells who waits for it.

    module/clock.WorldClock (participants, observers) == JSON lines over TCP ==> WorldClockServer
                                                                       | steps
                                                                       v
                                                       SteppedWorld (engine behind the wire)

Time moves only while every registered participant waits. Then it jumps to the earliest of: a wait
that is due, an observer's alarm, the world's own next event; never faster than `speed` world
seconds per real second. With nobody registered it runs freely at `speed`. Speed 0 is unbounded:
time then moves only towards somebody's wait or alarm, otherwise it would race away.

Those whose time comes at one moment are told together, unless they take turns: who has a higher
`turn` is told only when nobody with a lower one is busy. Two processes that share something (a
request budget, a cache) then meet it in the same order on every machine and at every speed.

Lives in the simulator's event loop; pacing is the loop's own time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from module.model.errors import InvalidInput
from module.simulator.clock_status import ClockStatus, ParticipantStatus
from module.simulator.clock_wire import ClockConnection

_PACE_DEBT_S_MAX = 0.1
"""How much lateness of timers may be caught up; anything longer is simply lost."""
_MARK_INTERVAL_S = 1.0
_MARK_AHEAD_S = 0.2
"""Of freely running time so much is noted before anybody has seen it, so that not every look has to
be noted. A world that was killed goes on from there."""
_SYNC_STEPS_MAX = 500

_log = logging.getLogger(__name__)


class SteppedWorld(Protocol):
    """What the clock moves."""

    @property
    def now_ms(self) -> int:
        """World time."""
        ...

    def next_event_ms(self) -> int:
        """When something happens by itself next; huge if nothing will."""
        ...

    def advance_to(self, when_ms: int) -> None:
        """Process everything up to `when_ms`; then that is the time."""
        ...


@dataclass(slots=True)
class _Wait:
    """A participant's wait, or an observer's alarm."""

    seq: int
    until_ms: int | None


@dataclass(slots=True)
class _Participant:
    """One name that holds time while it is busy (`wait` is None)."""

    name: str
    connection: ClockConnection
    since_s: float
    turn: int = 0
    wait: _Wait | None = None
    woken: bool = False


@dataclass(slots=True)
class ClockHooks:
    """What the clock tells its owner: durable marks of time, and the end of the world."""

    mark: Callable[[int, tuple[str, ...]], None] = field(default=lambda now_ms, names: None)
    failed: Callable[[BaseException], None] = field(default=lambda error: None)


class WorldClockServer:
    """Steps one world for any number of clients. All calls from the event loop."""

    def __init__(
        self,
        world: SteppedWorld,
        *,
        speed: float,
        expected: tuple[str, ...] = (),
        hold_s: float = 10.0,
        hooks: ClockHooks | None = None,
    ) -> None:
        """`expected`: who was registered before a restart; time stands still until they are back,
        for `hold_s` real seconds at most."""
        self._world = world
        self._speed = check_speed(speed)
        self._hooks = hooks or ClockHooks()
        self._participants: dict[str, _Participant] = {}
        self._alarms: dict[tuple[ClockConnection, int], int] = {}
        self._connections: set[ClockConnection] = set()
        self._expected = set(expected)
        self._hold_s = hold_s
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._hold_timer: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._anchor_ms = world.now_ms
        self._anchor_s = 0.0
        self._marked_s = 0.0
        self._marked_ms = world.now_ms
        self._paused = False
        self._free = False
        self._stopped = False

    async def start(self, bound: socket.socket) -> None:
        """Listen on a bound socket, and let time go."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ClockConnection(self), sock=bound)
        self._anchor_s = loop.time()
        if self._expected:
            self._hold_timer = loop.call_later(self._hold_s, self._stop_expecting)
        self._plan()

    async def close(self) -> None:
        """Stop time and drop every client."""
        self._stopped = True
        for handle in (self._timer, self._hold_timer):
            if handle is not None:
                handle.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.drop()
        self._mark()

    @property
    def speed(self) -> float:
        """World seconds per real second at most; 0 is unbounded."""
        return self._speed

    def set_speed(self, speed: float) -> None:
        """Change the pace from now on."""
        self.sync()
        self._speed = check_speed(speed)
        self._anchor_ms, self._anchor_s = self._world.now_ms, self._loop_time()
        self._plan()

    def set_paused(self, paused: bool) -> None:
        """Hold time whatever anybody waits for, or let it go on; what was held is not caught up."""
        self.sync()
        self._paused = paused
        self._plan()

    def status(self) -> ClockStatus:
        """Who is registered, who is busy and for how long."""
        now_s = self._loop_time()
        return ClockStatus(
            now_ms=self._world.now_ms,
            speed=self._speed,
            participants=tuple(
                ParticipantStatus(
                    name=name,
                    busy=participant.wait is None,
                    since_s=now_s - participant.since_s,
                    until_ms=None if participant.wait is None else participant.wait.until_ms,
                )
                for name, participant in sorted(self._participants.items())
            ),
            expected=tuple(sorted(self._expected)),
            alarms=len(self._alarms),
            paused=self._paused,
        )

    def sync(self) -> int:
        """Bring a world whose time is free to the paced present; returns world time.

        Called before a request is served, so that somebody who holds no time sees it flow. A world
        that a busy participant holds, and one of unbounded speed, stay where they are. What it
        returns has been noted: no restart goes back behind it.
        """
        if not self._stopped and self._speed > 0:
            self._flow()
        if self._world.now_ms > self._marked_ms:
            self._mark(self._ahead_ms())
        return self._world.now_ms

    def _flow(self) -> None:
        """Let a free world come to the paced present."""
        for _ in range(_SYNC_STEPS_MAX):
            if self._held() or not self._free:
                return
            paced_ms = self._paced_ms()
            target_ms = self._target_ms()
            if target_ms is not None and target_ms <= paced_ms:
                self._step_to(target_ms)
                continue
            if paced_ms > self._world.now_ms:
                self._advance(paced_ms)
            return

    def poke(self) -> None:
        """The world's next event may have changed: plan again."""
        self._plan()

    # -- what clients say ---------------------------------------------------------------------

    def connected(self, connection: ClockConnection) -> None:
        """A TCP connection came; it counts from its hello on."""
        self._connections.add(connection)

    def hello(
        self, connection: ClockConnection, name: str | None, known_ms: int, turn: int
    ) -> None:
        """Register; time becomes at least what the client has already seen."""
        self.sync()
        connection.name = name
        if known_ms > self._world.now_ms:
            self._advance(known_ms)
            self._anchor_ms, self._anchor_s = known_ms, self._loop_time()
        if name is not None:
            older = self._participants.get(name)
            if older is not None:
                older.connection.send({"op": "replaced"})
                older.connection.drop()
            self._participants[name] = _Participant(name, connection, self._loop_time(), turn)
            self._expected.discard(name)
            self._mark()
        connection.send({"op": "hello", "now_ms": self._world.now_ms, "speed": self._speed})
        self._release_due()
        self._plan()

    def wait(self, connection: ClockConnection, seq: int, until_ms: int | None) -> None:
        """The participant gives time away until `until_ms` (None: until it is woken)."""
        participant = self._participant_of(connection)
        if participant.woken:
            participant.woken = False
            connection.send({"op": "woken", "seq": seq, "now_ms": self._world.now_ms})
            return
        participant.wait = _Wait(seq, until_ms)
        participant.since_s = self._loop_time()
        self._release_due()
        self._plan()

    def alarm(self, connection: ClockConnection, seq: int, until_ms: int | None) -> None:
        """Tell an observer when `until_ms` has come; holds nothing."""
        self.sync()
        if until_ms is not None:
            self._alarms[connection, seq] = until_ms
        self._release_due()
        self._plan()

    def busy(self, connection: ClockConnection, seq: int) -> None:
        """It woke by other means: what it waited for is off."""
        self._alarms.pop((connection, seq), None)
        now_ms = self.sync()
        if connection.name is not None:
            participant = self._participant_of(connection)
            if participant.wait is not None:
                participant.wait = None
                participant.since_s = self._loop_time()
        connection.send({"op": "busy", "now_ms": now_ms})
        self._plan()

    def wake(self, connection: ClockConnection, name: str) -> None:
        """`name` has been rung: it is busy from now on, or does not get to sleep next time."""
        self.sync()
        participant = self._participants.get(name)
        if participant is not None and participant.wait is None:
            participant.woken = True
        elif participant is not None and participant.wait is not None:
            answer = {"op": "woken", "seq": participant.wait.seq, "now_ms": self._world.now_ms}
            participant.wait = None
            participant.since_s = self._loop_time()
            participant.connection.send(answer)
        connection.send({"op": "ok", "now_ms": self._world.now_ms})
        self._plan()

    def disconnected(self, connection: ClockConnection) -> None:
        """An ended connection releases its participant at once."""
        self.sync()
        self._connections.discard(connection)
        for key in [key for key in self._alarms if key[0] is connection]:
            del self._alarms[key]
        name = connection.name
        if name is not None:
            participant = self._participants.get(name)
            if participant is not None and participant.connection is connection:
                del self._participants[name]
                if not self._stopped:
                    self._mark()
                    self._release_due()
        self._plan()

    # -- stepping -----------------------------------------------------------------------------

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()

    def _participant_of(self, connection: ClockConnection) -> _Participant:
        name = connection.name
        participant = self._participants.get(name) if name is not None else None
        if participant is None or participant.connection is not connection:
            raise InvalidInput("say hello as a participant first")
        return participant

    def _held(self) -> bool:
        """Somebody is busy, or is expected back, or time was told to stand still."""
        if self._expected or self._paused:
            return True
        return any(participant.wait is None for participant in self._participants.values())

    def _target_ms(self) -> int | None:
        """Where time jumps next; None: it has nowhere to go by itself."""
        waits = [
            participant.wait.until_ms
            for participant in self._participants.values()
            if participant.wait is not None and participant.wait.until_ms is not None
        ]
        asked = [*waits, *self._alarms.values()]
        if self._speed == 0 and not asked:
            return None
        return max(self._world.now_ms, min([*asked, self._world.next_event_ms()]))

    def _paced_ms(self) -> int:
        """The furthest that time may be now."""
        passed_s = self._loop_time() - self._anchor_s
        return self._anchor_ms + int(passed_s * 1000 * self._speed + 1e-3)

    def _real_s_of(self, when_ms: int) -> float:
        """When the loop's time allows `when_ms`."""
        return self._anchor_s + (when_ms - self._anchor_ms) / 1000 / self._speed

    def _plan(self) -> None:
        """Set the one timer for the next step, or none while time is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stopped:
            return
        if self._held():
            self._free = False
            return
        if not self._free:
            self._free = True
            self._forget_old_debt()
        target_ms = self._target_ms()
        if target_ms is None:
            return
        loop = asyncio.get_running_loop()
        if self._speed == 0:
            self._timer = loop.call_soon(self._step)
            return
        # a far target is approached in stretches: timers hold no more than about a day
        delay_s = min(3600.0, self._real_s_of(target_ms) - loop.time())
        self._timer = loop.call_later(max(0.0, delay_s), self._step)

    def _forget_old_debt(self) -> None:
        """Time that was held, or that a slow machine lost, does not come back."""
        if self._speed == 0:
            return
        now_ms = self._world.now_ms
        earliest_s = self._loop_time() - _PACE_DEBT_S_MAX
        self._anchor_s = max(self._real_s_of(now_ms), earliest_s)
        self._anchor_ms = now_ms

    def _step(self) -> None:
        self._timer = None
        if self._stopped:
            return
        if self._speed == 0:
            target_ms = self._target_ms()
            if target_ms is not None and not self._held():
                self._step_to(target_ms)
        else:
            self.sync()
            self._forget_old_debt()
        self._plan()

    def _step_to(self, target_ms: int) -> None:
        self._advance(target_ms)
        self._release_due()

    def _advance(self, when_ms: int) -> None:
        try:
            self._world.advance_to(when_ms)
        except BaseException as error:
            self._stopped = True
            self._hooks.failed(error)
            raise
        if self._loop_time() - self._marked_s >= _MARK_INTERVAL_S:
            self._mark(self._ahead_ms())

    def _release_due(self) -> None:
        """Everybody whose time and turn have come is busy, then told, in the order of names."""
        now_ms = self._world.now_ms
        now_s = self._loop_time()
        told: list[tuple[ClockConnection, int]] = []
        for participant, wait in self._whose_turn_it_is(now_ms):
            participant.wait = None
            participant.since_s = now_s
            told.append((participant.connection, wait.seq))
        for (connection, seq), until_ms in list(self._alarms.items()):
            if until_ms <= now_ms:
                del self._alarms[connection, seq]
                told.append((connection, seq))
        if told:
            self._mark(self._ahead_ms())
        for connection, seq in told:
            connection.send({"op": "due", "seq": seq, "now_ms": now_ms})

    def _whose_turn_it_is(self, now_ms: int) -> list[tuple[_Participant, _Wait]]:
        """Those who are due, by name, but for whom somebody of a lower turn goes first."""
        due: list[tuple[_Participant, _Wait]] = []
        turns: list[int] = []
        for _, participant in sorted(self._participants.items()):
            wait = participant.wait
            if wait is None:
                turns.append(participant.turn)
            elif wait.until_ms is not None and wait.until_ms <= now_ms:
                due.append((participant, wait))
                turns.append(participant.turn)
        lowest = min(turns, default=0)
        return [(participant, wait) for participant, wait in due if participant.turn <= lowest]

    def _ahead_ms(self) -> int:
        """How far ahead time may be noted: participants must find it exactly where it was."""
        return 0 if self._participants else int(_MARK_AHEAD_S * 1000 * self._speed)

    def _mark(self, ahead_ms: int = 0) -> None:
        """Note how far time is. A full disk must not stop the world: the next mark carries it."""
        self._marked_s = self._loop_time()
        self._marked_ms = self._world.now_ms + ahead_ms
        try:
            self._hooks.mark(self._marked_ms, tuple(sorted(self._participants)))
        except OSError as error:
            _log.error("the world's time could not be noted: %s", error)

    def _stop_expecting(self) -> None:
        if self._expected:
            _log.warning("not waiting any longer for %s", ", ".join(sorted(self._expected)))
            self._expected.clear()
            self._plan()


def check_speed(speed: float) -> float:
    """A usable speed: 0 (unbounded) up to a million; InvalidInput otherwise."""
    if not 0 <= speed <= 1_000_000:
        raise InvalidInput(f"speed must be between 0 (unbounded) and 1000000, not {speed!r}")
    return speed
