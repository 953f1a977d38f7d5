"""Production's venue of a gateway process, wired to its world's exchange: no socket, no thread.

SimVenues.open_venue ─► BitgetAccount or BitgetSpot (production)
                        ├─ its wire    InProcessWire ─► Exchange.carry (latency both ways)
                        └─ its threads TaskPool      ─► tasks of the hub
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Generic, ParamSpec, TypeVar, cast

from module.exchange.bitget_account import BitgetAccount
from module.exchange.bitget_spot import BitgetSpot
from module.exchange.bitget_venue import CcxtVenues
from module.exchange.bitget_wire import BitgetWire, Endpoint, RawAnswer
from module.exchange.venue import RequestGate, Venue, VenueAccess
from module.exchange.venue_clock import TOLERATED_MS
from module.model.errors import OutcomeUnknown, Unavailable
from module.ports import Clock
from module.simulator.wire.wire_answer import WireAnswer
from tests.simulation.exchange_side import Exchange
from tests.simulation.hub import HubLock, Process
from tests.simulation.in_process_app import UNSIGNED, SaidAnswer

CLOCK_LOOKS_MS = 300_000
"""While no clock can have moved it is looked at so often, not once a minute as in production."""
P = ParamSpec("P")
T = TypeVar("T")


class HeardAnswer(RawAnswer):
    """What the client makes of a `SaidAnswer`."""

    __slots__ = ("said",)

    said: Mapping[str, object]

    def document(self) -> Mapping[str, object]:
        """What was said."""
        return self.said


class InProcessWire(BitgetWire):
    """The production wire with the exchange at its other end instead of ccxt and a socket.

    Nothing is signed, and nothing is spelled that no fault has touched (the contract tests prove
    both); admission, stamps, codes, penalties, circuits and what a lost answer means are
    production's.
    """

    exchange: Exchange
    process: Process
    clock_looked_ms: int = -CLOCK_LOOKS_MS

    def measure_clock(self) -> float:
        """As production, but four of five looks that cannot find anything new are not made."""
        now_ms, skew_s = self.process.hub.now_ms, self._venue_clock.skew_s
        calm = abs(skew_s) * 1000 <= TOLERATED_MS and self.exchange.clocks_agree
        if calm and now_ms - self.clock_looked_ms < CLOCK_LOOKS_MS:
            return skew_s
        found = super().measure_clock()
        self.clock_looked_ms = now_ms
        return found

    def _exchange(
        self, target: Endpoint, params: Mapping[str, object], timeout_ms: int
    ) -> RawAnswer:
        self.process.require_alive()
        method, path = route_of(target.method)
        stamp = str(self.timestamp_ms())
        if target.is_write:
            self.require_in_time()
        headers: dict[str, str] = {}
        if self._credentials is not None and target.kind.private:
            headers = {
                "access-key": self._credentials.api_key,
                "access-sign": UNSIGNED,
                "access-timestamp": stamp,
                "access-passphrase": self._credentials.passphrase,
            }
        carried = self.exchange.carry(self.process, method, path, params, headers, timeout_ms)
        if carried.arrives:
            return _heard(carried.reply.answer)
        if target.is_write:
            raise OutcomeUnknown(
                f"{target.method}: {carried.reply.ending}; it may have happened, ask the exchange"
            )
        raise Unavailable(f"{target.method}: {carried.reply.ending}; ask again", retry_after_s=0.5)


def _heard(answer: WireAnswer) -> RawAnswer:
    if not isinstance(answer, SaidAnswer):
        return RawAnswer(answer.status, answer.headers, answer.body.decode("utf-8", "replace"))
    heard = HeardAnswer(answer.status, answer.headers, "")
    object.__setattr__(heard, "said", answer.document)
    return heard


class TaskPool:
    """Stands for the venue's thread pool: calls side by side are tasks of the gateway."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Later[T]:
        """Begin `call`; its future."""
        return Later(self._process, lambda: call(*args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """There is nothing to end."""


class Later(Generic[T]):
    """The future of a call that runs in a task of its own."""

    def __init__(self, process: Process, call: Callable[[], T]) -> None:
        self._process = process
        self._call = call
        self._value: T | None = None
        self._error: Exception | None = None
        self._task = process.spawn(self._run, "side by side")

    def _run(self) -> None:
        try:
            self._value = self._call()
        except Exception as error:
            self._error = error

    def exception(self) -> Exception | None:
        """What it raised; waits for its end."""
        waiting = self._process.hub.current
        if not self._task.over and waiting is not None:
            self._task.on_end.append(lambda: self._process.hub.make_ready(waiting))
            while not self._task.over:
                self._process.hub.block()
        return self._error

    def result(self) -> T:
        """What it returned."""
        return cast(T, self._value)


class SimVenues(CcxtVenues):
    """`CcxtVenues` of one gateway process, wired to the exchange of its world."""

    def __init__(self, clock: Clock, exchange: Exchange, process: Process) -> None:
        class Wire(InProcessWire):
            pass

        Wire.exchange, Wire.process = exchange, process
        super().__init__(clock, wire=Wire)
        self._process = process

    def open_venue(self, venue: str, access: VenueAccess, gate: RequestGate) -> Venue:
        opened = super().open_venue(venue, access, gate)
        if isinstance(opened, BitgetAccount):
            opened._threads.shutdown(wait=False)
            opened._threads = cast(Any, TaskPool(self._process))
        if isinstance(opened, BitgetSpot):
            opened._stops._lock = cast(Any, HubLock(self._process.hub))
        return opened


@cache
def route_of(method: str) -> tuple[str, str]:
    """HTTP method and path of one of ccxt's implicit calls."""
    from ccxt.abstract.bitget import ImplicitAPI

    entry = ImplicitAPI.__dict__[method]
    return str(entry.method), f"/api/{entry.path}"
