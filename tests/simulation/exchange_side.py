"""The paper exchange inside a simulated world, and the way to it and back: no socket, no thread.

    in_process_venue ─► Exchange.carry ─► latency ─► in_process_app ─► latency ─► answer
    hub ─► Exchange.advance_to: every event of the engine at its own moment, the judge after each

The exchange never dies and never lies to the judge: what is judged is the engine's own state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from module.model.credentials import Credentials
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineSettings, MarketType
from module.simulator.faults.fault_words import parse_words
from module.simulator.faults.faults import FaultEdit, FaultRule, FaultWords, names
from module.simulator.prices.market_source import MarketSource
from module.simulator.prices.minute_path import POINT_MS
from module.simulator.venue import NewAccount
from module.simulator.venue import Venue as ExchangeVenue
from module.simulator.wire.bitget_auth import SignedRequest
from module.simulator.wire.bitget_table import ENDPOINTS
from module.simulator.wire.wire_answer import Ending, Reply
from tests.simulation.hub import EPOCH, Hub, Process
from tests.simulation.in_process_app import POSITIONS_PATH, InProcessApp, SaidRequest
from tests.simulation.true_answers import TrueAnswers, fired_rules

KEYS = Credentials("key-of-the-day", "secret-of-the-day", "phrase-of-the-day")
ADDRESS = "10.0.0.7"
TIMEOUT_MS = 10_000
TIME_PATH = "/api/v2/public/time"
STOPS_PATH = "/api/v2/mix/order/orders-plan-pending"
LOOK_PATHS = (
    POSITIONS_PATH,
    "/api/v2/spot/account/assets",
    "/api/v2/spot/market/tickers",
    "/api/v2/spot/trade/current-plan-order",
)


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
    timeout_ms: int = TIMEOUT_MS

    @property
    def arrives(self) -> bool:
        """Whether the client reads a whole answer."""
        in_time = self.reply.delay_s * 1000 < self.timeout_ms
        return self.reply.ending is Ending.ANSWERED and in_time


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

    def may_disturb_a_look(self, *, thorough: bool) -> bool:
        """Whether a scripted fault may act on what such a look of the guard reads, or at the next
        moment. Only a thorough one reads stops of futures apart from their positions."""
        now_ms, plan = self._hub.now_ms, self.venue.faults.plan
        paths = (*LOOK_PATHS, STOPS_PATH) if thorough else LOOK_PATHS
        return any(
            not rule.is_over and not rule.has_ended(now_ms) and _meets(rule.words, paths)
            for rule in plan.rules
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
        timeout_ms: int,
    ) -> Carried:
        """A request goes there, is served, and its answer comes back, in world time; without one
        the client waits for `timeout_ms`.

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
            at_ms = self._hub.now_ms
            served.append(Carried(sent_ms, at_ms, process, method, path, params, reply, timeout_ms))
            if spoilers:
                self.truth.spoiled(served[0], spoilers)
            else:
                self.truth.answered(served[0])
            self.on_request(served[0])
            self._moved(surely=method != "GET")
            waiting.due_ms = self._back_ms(served[0])

        waiting = self._hub.running
        self._hub.at(arrives_ms, serve)
        self._hub.block()  # until `serve` has said when the answer is back
        (carried,) = served
        if carried.arrives:
            self.on_answer(carried)
        return carried

    def _back_ms(self, carried: Carried) -> int:
        """When the client has the answer that leaves now, or gives it up."""
        now_ms, reply = self._hub.now_ms, carried.reply
        back_ms = now_ms + self.latency_ms() + int(reply.delay_s * 1000)
        if reply.ending is Ending.SILENT or reply.delay_s * 1000 >= carried.timeout_ms:
            back_ms = now_ms + carried.timeout_ms
        return back_ms

    def _time(self) -> datetime:
        return EPOCH + timedelta(milliseconds=self._hub.now_ms)


def _meets(words: FaultWords, paths: Sequence[str]) -> bool:
    if words.edit is FaultEdit.SKEW or words.at_ms is not None:
        return True
    return any(names(words.operation, path) for path in paths)
