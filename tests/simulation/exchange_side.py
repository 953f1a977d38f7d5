"""The paper exchange inside a simulated world, and the wire to it: no socket, no thread.

    gateway's venue (production) ─► InProcessWire ─► latency ─► BitgetApp.serve ─► latency ─► answer
    hub ─► Exchange.advance_to: every event of the engine at its own moment, the judge after each

The exchange never dies and never lies to the judge: what is judged is the engine's own state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from random import Random
from typing import Any, Generic, ParamSpec, TypeVar, cast

import orjson

from module.exchange.bitget_account import BitgetAccount
from module.exchange.bitget_codes import SUCCESS
from module.exchange.bitget_spot import BitgetSpot
from module.exchange.bitget_venue import CcxtVenues
from module.exchange.bitget_wire import BitgetWire, Endpoint, RawAnswer
from module.exchange.venue import RequestGate, Venue, VenueAccess
from module.exchange.venue_clock import TOLERATED_MS
from module.model.credentials import Credentials
from module.model.errors import OutcomeUnknown, Unavailable
from module.ports import Clock
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineSettings, MarketType
from module.simulator.faults.fault_desk import FaultCase
from module.simulator.faults.fault_words import parse_words
from module.simulator.faults.faults import FaultEdit, FaultRule, FaultWords, names
from module.simulator.prices.market_source import MarketSource
from module.simulator.prices.minute_path import POINT_MS
from module.simulator.venue import Endpoint as VenueEndpoint
from module.simulator.venue import NewAccount
from module.simulator.venue import Venue as ExchangeVenue
from module.simulator.wire.bitget_app import BitgetApp, WireRequest
from module.simulator.wire.bitget_auth import ApiKey, SignedRequest, authenticate
from module.simulator.wire.bitget_params import Params
from module.simulator.wire.bitget_table import ENDPOINTS
from module.simulator.wire.wire_answer import Ending, Reply, WireAnswer, envelope
from tests.simulation.hub import EPOCH, Hub, HubLock, Process
from tests.simulation.true_answers import TrueAnswers, fired_rules

KEYS = Credentials("key-of-the-day", "secret-of-the-day", "phrase-of-the-day")
ADDRESS = "10.0.0.7"
UNSIGNED = "in one process"
TIMEOUT_MS = 10_000
TIME_PATH = "/api/v2/public/time"
CLOCK_LOOKS_MS = 300_000
"""While no clock can have moved it is looked at so often, not once a minute as in production."""
POSITIONS_PATH = "/api/v2/mix/position/all-position"
LOOK_PATHS = (
    POSITIONS_PATH,
    "/api/v2/mix/order/orders-plan-pending",
    "/api/v2/spot/account/assets",
    "/api/v2/spot/market/tickers",
    "/api/v2/spot/trade/current-plan-order",
)
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SaidRequest(WireRequest):
    """A request whose words are handed over as they are: no query, no body, no signature."""

    words: Mapping[str, object]


class SaidAnswer(WireAnswer):
    """An answer that no fault has touched: its document goes over as it is, and is spelled when
    somebody looks at the bytes."""

    __slots__ = ("document",)

    document: Mapping[str, object]

    def __init__(self, document: Mapping[str, object], headers: Mapping[str, str]) -> None:
        for name, value in (("status", 200), ("headers", headers), ("document", document)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "content_type", "application/json")

    @property
    def body(self) -> bytes:
        """The bytes that would go over a socket."""
        return orjson.dumps(self.document)


class HeardAnswer(RawAnswer):
    """What the client makes of a `SaidAnswer`."""

    __slots__ = ("said",)

    said: Mapping[str, object]

    def document(self) -> Mapping[str, object]:
        """What was said."""
        return self.said


class InProcessApp(BitgetApp):
    """The exchange's application for requests that come as words. All that it decides is
    production's; an answer that a fault has hit is spelled, so that the fault spoils real bytes.

    Positions are valued once while neither the account nor a price has changed (`of_moment`).
    """

    of_moment: Callable[[], tuple[int, ...]]
    _valued: tuple[tuple[int, ...], object] | None = None

    def _execute(
        self, endpoint: VenueEndpoint, key: ApiKey | None, params: Params, now_ms: int
    ) -> object:
        if endpoint.path != POSITIONS_PATH:
            return super()._execute(endpoint, key, params, now_ms)
        moment = self.of_moment()
        if self._valued is None or self._valued[0] != moment:
            self._valued = (moment, super()._execute(endpoint, key, params, now_ms))
        return self._valued[1]

    def _signer(self, signed: SignedRequest, now_ms: int) -> ApiKey:
        keys, wall_ms = self._venue.keys, self._wall_ms()
        return authenticate(signed, keys, now_ms, wall_ms, fits=_is_unsigned)

    def _words(self, request: WireRequest) -> Params:
        return Params(cast(SaidRequest, request).words)

    def _envelope(
        self, now_ms: int, shown: object, headers: Mapping[str, str], case: FaultCase | None
    ) -> WireAnswer:
        if case is not None:
            return envelope(now_ms, shown, headers=headers)
        said = {"code": SUCCESS, "msg": "success", "requestTime": now_ms, "data": shown}
        return SaidAnswer(said, headers)


def _is_unsigned(signed: SignedRequest, secret: str) -> bool:
    return signed.headers["access-sign"] == UNSIGNED


@dataclass(frozen=True, slots=True)
class Carried:
    """One request as the exchange side saw it; `reply` is what left for the client."""

    sent_ms: int
    served_ms: int
    process: Process
    method: str
    path: str
    params: Mapping[str, object]
    reply: Reply

    @property
    def arrives(self) -> bool:
        """Whether the client reads a whole answer."""
        return self.reply.ending is Ending.ANSWERED and self.reply.delay_s * 1000 < TIMEOUT_MS


class Exchange:
    """One venue with the account of the day. `watch` is told of every request and every change."""

    def __init__(
        self,
        hub: Hub,
        market: MarketSource,
        seed: int,
        balance: Decimal,
        kind: MarketType = MarketType.FUTURES,
    ) -> None:
        self._hub = hub
        engine = Engine(market, EngineSettings(), hub.now_ms)
        self.venue = ExchangeVenue(engine, ENDPOINTS)
        self.broken: list[BaseException] = []
        self._app = InProcessApp(self.venue, self, self._time, failed=self.broken.append)
        self._app.of_moment = lambda: (self.version, self.fired, hub.now_ms // POINT_MS)
        self._chance = Random(f"latency:{seed}")
        is_spot = kind is MarketType.SPOT
        self.account_id = self.venue.open_account(
            NewAccount(
                KEYS.api_key,
                KEYS.api_secret,
                KEYS.passphrase,
                futures_usdt=Decimal(0) if is_spot else balance,
                spot={"USDT": balance} if is_spot else {},
            )
        )
        self.on_request: Callable[[Carried], None] = lambda carried: None
        self.on_change: Callable[[], None] = lambda: None
        self.on_version: Callable[[], None] = lambda: None
        self.on_answer: Callable[[Carried], None] = lambda carried: None
        self.given: list[FaultRule] = []
        self.truth = TrueAnswers()
        self.was_spoiled = False
        """Whether a scripted fault changed the request that is served now."""
        self.requests = 0
        self.version = 0
        """Grows with every change of the account, whoever made it."""
        self._shape: tuple[int, ...] = ()
        self._fired_before = 0
        self._next_ms = 0
        """Nothing happens at the exchange by itself before this time."""
        hub.advance = self.advance_to

    @property
    def engine(self) -> Engine:
        """What really happened, until now."""
        self.sync()
        return self.venue.engine

    @property
    def account(self) -> AccountState:
        """The account's own state: positions, orders, plans, fills, bills."""
        return self.venue.engine.world.accounts[self.account_id]

    def sync(self) -> int:
        """World time, as the application asks for it; nothing happens on the way there."""
        if self.venue.now_ms < self._hub.now_ms:
            self.venue.advance_to(self._hub.now_ms)
        return self.venue.now_ms

    def advance_to(self, when_ms: int) -> None:
        """Let the world's time move; whatever the engine does on the way is seen at its moment."""
        while self._next_ms <= when_ms:
            self.sync()
            due_ms = self._next_ms = self.venue.next_event_ms()
            if due_ms > when_ms:
                break
            self._hub.now_ms = max(due_ms, self._hub.now_ms)
            self.venue.advance_to(self._hub.now_ms)
            self._moved()
            self._next_ms = self.venue.next_event_ms()
        self._hub.now_ms = when_ms

    def _moved(self, *, surely: bool = False) -> None:
        """Something may have changed: the judge looks, and looks of the guard are due."""
        self._next_ms = 0
        account = self.account
        shape = (
            len(account.fills),
            len(account.orders),
            len(account.open_orders),
            len(account.plans),
            len(account.plan_history),
            len(account.positions),
            len(account.bills),
        )
        if surely or shape != self._shape:
            self._shape = shape
            self.version += 1
            self.on_change()
            self.on_version()

    def act(self, deed: Callable[[Engine], object]) -> object:
        """Somebody else does something at the exchange: by hand, on its web page."""
        done = deed(self.engine)
        self._moved(surely=True)
        return done

    def fault(self, words: Mapping[str, object]) -> FaultRule:
        """One rule of the fault desk, in the words of docs/faults.md."""
        rule = self.venue.faults.add(parse_words(words, self.sync()))
        self.given.append(rule)
        self._moved(surely=True)
        return rule

    @property
    def fired(self) -> int:
        """How often scripted faults have changed something, of those that still may."""
        return sum(rule.fired for rule in self.venue.faults.plan.rules) + self._fired_before

    @property
    def may_disturb_a_look(self) -> bool:
        """Whether a scripted fault may act on what the guard reads, or at the next moment."""
        now_ms = self._hub.now_ms
        return any(
            not rule.is_over and not rule.has_ended(now_ms) and _meets_a_look(rule.words)
            for rule in self.venue.faults.plan.rules
        )

    @property
    def clocks_agree(self) -> bool:
        """Whether a look at the exchange's time can only find that no clock has moved."""
        now_ms = self._hub.now_ms
        return not self._hub.skew_ms and not any(
            not rule.is_over
            and not rule.has_ended(now_ms)
            and (rule.words.edit is FaultEdit.SKEW or names(rule.words.operation, TIME_PATH))
            for rule in self.venue.faults.plan.rules
        )

    def forget_ended_faults(self) -> None:
        """Rules that are over cost time at every request; what they did stays counted."""
        plan, now_ms = self.venue.faults.plan, self._hub.now_ms
        over = [
            rule
            for rule in plan.rules
            if rule.is_over
            or rule.has_ended(now_ms)
            or (rule.words.at_ms is not None and rule.seen)
        ]
        self._fired_before += sum(rule.fired for rule in over)
        for rules in (plan._rules, plan._of_clock, plan._of_triggers, plan._timed):
            rules[:] = [rule for rule in rules if rule not in over]

    def latency_ms(self) -> int:
        """One way of a request."""
        return 4 + int(self._chance.random() ** 3 * 60)

    def carry(
        self,
        process: Process,
        method: str,
        path: str,
        params: Mapping[str, object],
        headers: Mapping[str, str],
    ) -> Carried:
        """A request goes there, is served, and its answer comes back, in world time.

        Once it has left it arrives, whatever becomes of the process that sent it.
        """
        sent_ms = self._hub.now_ms
        arrives_ms = sent_ms + self.latency_ms()
        words = params if method == "POST" else {name: str(word) for name, word in params.items()}
        request = SaidRequest(SignedRequest(method, path, "", b"", headers), ADDRESS, None, words)
        served: list[Carried] = []

        def serve() -> None:
            rules = self.venue.faults.plan.rules
            before = [(rule, rule.fired) for rule in rules]
            reply = self._app.serve(request)
            spoilers = fired_rules(rules, before) if before else []
            self.was_spoiled = bool(spoilers)
            if self.broken:
                raise self.broken[0]
            self.requests += 1
            served.append(Carried(sent_ms, self._hub.now_ms, process, method, path, params, reply))
            if spoilers:
                self.truth.spoiled(served[0], spoilers)
            else:
                self.truth.answered(served[0])
            self.on_request(served[0])
            self._moved(surely=method != "GET")

        self._hub.at(arrives_ms, serve)
        self._hub.wait((), arrives_ms)
        (carried,) = served
        reply = carried.reply
        back_ms = carried.served_ms + self.latency_ms() + int(reply.delay_s * 1000)
        if reply.ending is Ending.SILENT or reply.delay_s * 1000 >= TIMEOUT_MS:
            back_ms = carried.served_ms + TIMEOUT_MS
        self._hub.wait((), back_ms)
        if carried.arrives:
            self.on_answer(carried)
        return carried

    def _time(self) -> datetime:
        return EPOCH + timedelta(milliseconds=self._hub.now_ms)


def _meets_a_look(words: FaultWords) -> bool:
    if words.edit is FaultEdit.SKEW or words.at_ms is not None:
        return True
    return any(names(words.operation, path) for path in LOOK_PATHS)


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

    def _exchange(self, target: Endpoint, params: Mapping[str, object]) -> RawAnswer:
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
        carried = self.exchange.carry(self.process, method, path, params, headers)
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
