"""The only room that reads a clock or sleeps. Everybody else is handed one of these.

`SystemClock` is real time. `WorldClock` is one participant (or observer) of a simulator's stepped
world: it talks newline-delimited JSON over TCP with `module/simulator/world_clock.py`. Both fit
`module.ports.Clock`.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from module.model.errors import Conflict, InvalidInput, InvariantViolated, Unavailable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LINE_BYTES_MAX = 65_536
_SPARE_LINES_MAX = 16
_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 30.0
_BACKOFF_FIRST_S = 0.02
_BACKOFF_MAX_S = 1.0
_SLACK_S = 0.5  # two clocks drift apart within one wait
_WAIT_FOR_NOTHING = "waiting for nothing, for ever: give a descriptor or a time"


def to_epoch_ms(when: datetime) -> int:
    """Whole milliseconds since the epoch, rounded up, so that a wait never ends too early."""
    if when.tzinfo is None:
        raise InvariantViolated(f"naive time {when!r} handed to a clock")
    return -((_EPOCH - when) // _MILLISECOND)


def from_epoch_ms(epoch_ms: int) -> datetime:
    """The aware UTC time of `epoch_ms`."""
    return _EPOCH + epoch_ms * _MILLISECOND


class SystemClock:
    """Real time. World time and real time are the same here."""

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Real seconds from an arbitrary start; the same for all processes of one machine."""
        return time.monotonic()

    def wall(self) -> datetime:
        """Real time, aware UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass; nothing for zero or less."""
        if seconds > 0:
            time.sleep(seconds)

    def sleep_until(self, when: datetime) -> None:
        """Return when `when` has come (at once if it has)."""
        while (left_s := (when - self.now()).total_seconds()) > 0:
            time.sleep(left_s)

    def pause(self, seconds: float) -> None:
        """Let real time pass."""
        self.sleep(seconds)

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        """The descriptors that became readable (or were closed by the other end); [] at `until`,
        or once as much real time has passed as lay before it: a clock that is set back in the
        middle of a wait makes it no longer."""
        if until is None and not fds:
            raise InvalidInput(_WAIT_FOR_NOTHING)
        poller = _poller(fds)
        if until is None:
            return _ready(poller.poll(None), fds)
        give_up_s = self.monotonic() + max(0.0, (until - self.now()).total_seconds()) + _SLACK_S
        while True:
            left_ms = max(0, to_epoch_ms(until) - to_epoch_ms(self.now()))
            left_ms = min(left_ms, max(0, math.ceil((give_up_s - self.monotonic()) * 1000)))
            ready = _ready(poller.poll(left_ms), fds)
            if ready or self.now() >= until or self.monotonic() >= give_up_s:
                return ready

    def wake(self, participant: str) -> None:
        """Nothing to do: real time does not wait for anybody."""

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(slots=True)
class _Answer:
    """One line of the server, checked."""

    op: str
    now_ms: int
    seq: int | None


class _Line:
    """One TCP connection to the clock server that has said hello. Not thread safe."""

    def __init__(
        self, address: tuple[str, int], participant: str | None, known_ms: int, turn: int
    ) -> None:
        self._buffer = b""
        self.participant = participant
        self.socket = socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self.socket.settimeout(_ANSWER_TIMEOUT_S)
            hello: dict[str, str | int | None]
            hello = {"op": "hello", "participant": participant, "known_ms": known_ms}
            self.send({**hello, "turn": turn} if turn else hello)
            self.now_ms = self.receive("hello").now_ms
        except BaseException:
            self.socket.close()
            raise

    def adopt(self, fresh: _Line) -> None:
        """Become `fresh`, a new connection that took this dead one's place."""
        self.socket.close()
        self.socket, self._buffer, self.now_ms = fresh.socket, fresh._buffer, fresh.now_ms

    def send(self, message: dict[str, str | int | None]) -> None:
        """Write one line."""
        self.socket.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def receive(self, *ops: str) -> _Answer:
        """The next line whose op is one of `ops`; others are late answers to an older wait."""
        while True:
            answer = self._next_answer()
            if answer.op in ops:
                return answer

    def has_input(self) -> bool:
        """Whether a whole line has been read already."""
        return b"\n" in self._buffer

    def _next_answer(self) -> _Answer:
        while b"\n" not in self._buffer:
            chunk = self.socket.recv(_LINE_BYTES_MAX)
            if not chunk:
                raise ConnectionResetError("the clock server closed the connection")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer = _parse_answer(line)
        if answer.op == "replaced":
            raise Conflict(
                f"another process took the name {self.participant!r} at the world clock; "
                "this one has no time of its own any more and must end"
            )
        return answer


class WorldClock(SystemClock):
    """World time of a simulator: a participant holds time while it is busy, an observer never does.

    A participant (`participant` is a name, unique in the world) is busy from construction on;
    time moves only when every participant waits, so `now()` of a busy participant is exact and
    costs nothing. An observer (`participant=None`) asks the server each time. Of participants whose
    time comes at the same moment, those with a lower `turn` (0 to 9) go first, and the others are
    told when nobody of a lower turn is busy any more.

    Threads may share a clock; only one may wait as the participant at a time (the others' calls go
    over connections of their own). A forked child must make its own clock: the inherited one is
    closed there and says so when it is used. When the server goes away, calls reconnect and repeat
    what they were in for `reconnect_s` real seconds; then they raise Unavailable.
    """

    def __init__(
        self,
        host: str,
        port: int,
        participant: str | None,
        *,
        turn: int = 0,
        reconnect_s: float = 30.0,
    ) -> None:
        if participant is not None and not participant:
            raise InvalidInput("a participant needs a name; None is an observer")
        self._address = (host, port)
        self._participant = participant
        self._turn = turn
        self._reconnect_s = reconnect_s
        self._pid = os.getpid()
        self._closed = False
        self._seq = 0
        self._now_ms = 0
        self._spare: list[_Line] = []
        self._spare_lock = threading.Lock()
        self._wait_lock = threading.Lock()
        self._line: _Line | None = None
        _alive.add(self)
        if participant is not None:
            self._line = self._connect(participant)
        else:
            with self._borrowed_line():
                pass

    @property
    def participant(self) -> str | None:
        """The name under which this clock holds time; None for an observer."""
        return self._participant

    def now(self) -> datetime:
        """World time, aware UTC."""
        return from_epoch_ms(self._ask_now_ms())

    def sleep(self, seconds: float) -> None:
        """Let `seconds` of world time pass."""
        if seconds > 0:
            self.sleep_until(self.now() + timedelta(seconds=seconds))

    def sleep_until(self, when: datetime) -> None:
        """Return when world time has reached `when` (at once if it has)."""
        self.wait_readable((), when)

    def pause(self, seconds: float) -> None:
        """Let real time pass; a participant goes on holding the world."""
        if seconds > 0:
            time.sleep(seconds)

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        """Give time away until a descriptor is readable; [] when `until` came first.

        When it returns, a participant is busy again and its `now()` is right.
        """
        self._check_usable()
        until_ms = None if until is None else to_epoch_ms(until)
        if until_ms is None and not fds:
            raise InvalidInput(_WAIT_FOR_NOTHING)
        if ready := _ready(_poller(fds).poll(0), fds):
            return ready
        if until_ms is not None and until_ms <= self._now_ms:
            return []
        if self._participant is None:
            with self._borrowed_line() as line:
                return self._wait(line, "alarm", fds, until_ms)
        if not self._wait_lock.acquire(blocking=False):
            raise InvariantViolated(
                f"two threads wait as the one participant {self._participant!r}; "
                "give each its own clock"
            )
        try:
            return self._wait(self._participant_line(), "wait", fds, until_ms)
        finally:
            self._wait_lock.release()

    def wake(self, participant: str) -> None:
        """Say that `participant` has just been rung: it counts as busy before this returns."""
        self._call({"op": "wake", "participant": participant}, "ok")

    def close(self) -> None:
        """Leave the world: it does not wait for this participant any more."""
        self._closed = True
        self._drop_connections()

    def _ask_now_ms(self) -> int:
        self._check_usable()
        if self._participant is not None and self._wait_lock.acquire(blocking=False):
            self._wait_lock.release()
            return self._now_ms
        return self._call({"op": "now"}, "now").now_ms

    def _call(self, message: dict[str, str | int | None], answer_op: str) -> _Answer:
        """One question and its answer, over a line that nobody waits on."""
        self._check_usable()
        deadline_s = time.monotonic() + self._reconnect_s
        while True:
            try:
                with self._borrowed_line() as line:
                    line.send(message)
                    answer = line.receive(answer_op)
                    self._learn(answer.now_ms)
                    return answer
            except OSError as error:
                self._require_before(deadline_s, error)

    def _wait(self, line: _Line, op: str, fds: Sequence[int], until_ms: int | None) -> list[int]:
        """Wait on `line`, over reconnections; see `wait_readable`."""
        while True:
            try:
                ready = self._wait_once(line, op, fds, until_ms)
            except OSError:
                line.socket.close()
                time.sleep(_BACKOFF_FIRST_S)
                line.adopt(self._connect(line.participant))
                continue
            if ready or (until_ms is not None and self._now_ms >= until_ms):
                return ready

    def _wait_once(
        self, line: _Line, op: str, fds: Sequence[int], until_ms: int | None
    ) -> list[int]:
        self._seq += 1
        seq = self._seq
        line.send({"op": op, "seq": seq, "until_ms": until_ms})
        poller = _poller(fds)
        poller.register(line.socket.fileno(), select.POLLIN)
        while True:
            events = [] if line.has_input() else poller.poll()
            ready = _ready(events, fds)
            if ready:
                line.send({"op": "busy", "seq": seq})
                self._learn(line.receive("busy").now_ms)
                return ready
            answer = line.receive("due", "woken")
            if answer.seq == seq:
                self._learn(answer.now_ms)
                return _ready(_poller(fds).poll(0), fds)

    def _learn(self, now_ms: int) -> None:
        self._now_ms = max(self._now_ms, now_ms)

    def _participant_line(self) -> _Line:
        if self._line is None:
            self._line = self._connect(self._participant)
        return self._line

    def _connect(self, participant: str | None) -> _Line:
        """A new line; repeats with back-off until `reconnect_s` have passed."""
        deadline_s = time.monotonic() + self._reconnect_s
        backoff_s = _BACKOFF_FIRST_S
        while True:
            try:
                turn = 0 if participant is None else self._turn
                line = _Line(self._address, participant, self._now_ms, turn)
            except OSError as error:
                self._require_before(deadline_s, error)
                time.sleep(backoff_s)
                backoff_s = min(_BACKOFF_MAX_S, backoff_s * 2)
                continue
            self._learn(line.now_ms)
            return line

    def _require_before(self, deadline_s: float, error: OSError) -> None:
        if self._closed:
            raise InvariantViolated("this WorldClock was closed while it was in use") from error
        if time.monotonic() >= deadline_s:
            host, port = self._address
            raise Unavailable(
                f"the world clock at {host}:{port} has not answered for {self._reconnect_s:g} s "
                f"({error}); start the simulator again and repeat"
            ) from error

    @contextmanager
    def _borrowed_line(self) -> Iterator[_Line]:
        """An observer's line for one call; kept for the next one unless the call failed."""
        with self._spare_lock:
            line = self._spare.pop() if self._spare else None
        if line is None:
            line = self._connect(None)
        try:
            yield line
        except BaseException:
            line.socket.close()
            raise
        with self._spare_lock:
            if len(self._spare) < _SPARE_LINES_MAX and not self._closed:
                self._spare.append(line)
                return
        line.socket.close()

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise InvariantViolated(
                f"this WorldClock belongs to process {self._pid}, not to its child {os.getpid()}; "
                "make a new one after the fork"
            )
        if self._closed:
            raise InvariantViolated("this WorldClock is closed")

    def _drop_connections(self) -> None:
        """Close every socket of this clock. Also runs in a forked child: a descriptor that lives
        on there would keep a dead parent registered, and the world waiting for it."""
        lines = [*self._spare, self._line]
        self._spare = []
        self._line = None
        for line in lines:
            if line is not None:
                line.socket.close()


def _parse_answer(line: bytes) -> _Answer:
    try:
        message = json.loads(line)
        op, now_ms, seq = message["op"], message.get("now_ms", 0), message.get("seq")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvariantViolated(f"the clock server said {line[:80]!r}") from error
    if op == "error":
        raise InvariantViolated(f"the clock server refused: {message.get('message')}")
    if not isinstance(op, str) or not isinstance(now_ms, int):
        raise InvariantViolated(f"the clock server said {line[:80]!r}")
    return _Answer(op, now_ms, seq if isinstance(seq, int) else None)


def _poller(fds: Sequence[int]) -> select.poll:
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return poller


def _ready(events: Sequence[tuple[int, int]], fds: Sequence[int]) -> list[int]:
    """Those of `fds` that have news, in the caller's order; a closed descriptor is an error."""
    news = dict(events)
    for fd in fds:
        if news.get(fd, 0) & select.POLLNVAL:
            raise InvariantViolated(f"waiting on descriptor {fd}, which is not open")
    return [fd for fd in fds if news.get(fd)]


_alive: weakref.WeakSet[WorldClock] = weakref.WeakSet()


def _close_inherited() -> None:
    for clock in list(_alive):
        clock._drop_connections()


os.register_at_fork(after_in_child=_close_inherited)
