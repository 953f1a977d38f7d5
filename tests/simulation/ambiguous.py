"""`python -m tests.simulation --ambiguous 100000`: every submit's answer is lost or lies.

    letters that flip twelve symbols ─► auto_trade (production) ─► door ─► gateway (production)
        ─► Doubt: what becomes of this request, and of its answer? ─► the exchange
    the exchange's ledger ─► how often was a planned leg executed twice, or an order made twice?

No request to place an order is answered truly: it is taken and the answer lost, lost on its way,
held up and delivered later, delivered twice, answered with garbage, with a code that says nothing,
or with one of the six "duplicate" codes. A third of the questions about an order find nothing in
its first seconds, or fail. Worlds of a few hundred submits, each with its seed; the judge of the
simulated days looks on.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from module import points
from module.model.accounts import MarginMode
from module.model.errors import PASSING, Conflict
from module.ports import Exchange
from module.simulator.wire.bitget_app import WireRequest
from module.simulator.wire.wire_answer import Ending, Reply, WireAnswer, envelope
from tests.simulation.day import memory_folder
from tests.simulation.hub import EPOCH, NEVER_MS, Hub, Process, SimClock
from tests.simulation.in_process_app import SaidRequest
from tests.simulation.judge import Violation
from tests.simulation.letters_seen import Document
from tests.simulation.silent_machine import silent_machine
from tests.simulation.world import INSTALLATION, World
from tests.simulation.world_plan import WorldPlan
from trading.execution.auto_trade import ExecutionPorts, ExecutionRules, auto_trade
from trading.rebalance.order_info import (
    Holding,
    OrderInfo,
    from_json,
    requested,
    to_json,
    with_plan,
)
from trading.rebalance.plan import Book, Policy, plan_rebalance
from trading.rebalance.weights import Target
from trading.rebalancing_strategy import policy_of

PLACE: Final = "/api/v2/mix/order/place-order"
DETAIL: Final = "/api/v2/mix/order/detail"
SYMBOLS: Final = 12
SUBMITS_A_WORLD: Final = 600
WEIGHT: Final = Decimal("0.06")
LETTERS_MAX: Final = 400
AMBIGUOUS_CODES: Final = (
    "40010", "40015", "40725", "45001", "31016", "40908", "40910", "12018",
)  # fmt: skip
DUPLICATE_CODES: Final = ("40786", "40708", "43118", "45034", "50060", "25212")
GARBAGE: Final = (b"<html>Bad Gateway</html>", b"", b'{"code":"00000","da', b'{"data":null}')
HIDDEN_MS: Final = 3_000
HELD_UP_MS: Final = (300, 2_000, 8_000, 30_000)
KINDS: Final = (
    "taken, answer lost",
    "taken, no answer for ten seconds",
    "taken, garbage answered",
    "taken, a code that says nothing",
    "taken, called a duplicate",
    "taken, delivered twice",
    "lost on its way",
    "not taken, a code that says nothing",
    "held up, delivered later",
)


@dataclass
class Doubt:
    """Stands before the exchange's application: what becomes of each request to place an order."""

    app: Any
    hub: Hub
    chance: Random
    moved: Any
    kinds: Counter[str] = field(default_factory=Counter)
    questions: int = 0
    _born_ms: dict[str, int] = field(default_factory=dict)

    def serve(self, request: WireRequest) -> Reply:
        """The true answer, for everything else."""
        path = request.signed.path
        if path == DETAIL:
            return self._asked(request)
        if path != PLACE:
            return cast(Reply, self.app.serve(request))
        kind = self.chance.choice(KINDS)
        self.kinds[kind] += 1
        if kind.startswith("taken"):
            self._born_ms.setdefault(_client_id(request), self.hub.now_ms)
            reply: Reply = self.app.serve(request)
            if kind.endswith("twice"):
                return cast(Reply, self.app.serve(request))
            return self._spoiled(kind, reply)
        if kind.startswith("held up"):
            self.hub.at(self.hub.now_ms + self.chance.choice(HELD_UP_MS), self._late(request))
        if kind.endswith("nothing"):
            return Reply(self._says(AMBIGUOUS_CODES))
        return Reply(WireAnswer(200, b""), self.chance.choice((Ending.RESET, Ending.SILENT)))

    def _late(self, request: WireRequest) -> Any:
        def deliver() -> None:
            self.app.serve(request)
            self.moved(surely=True)

        return deliver

    def _spoiled(self, kind: str, reply: Reply) -> Reply:
        if kind.endswith("answer lost"):
            return Reply(reply.answer, self.chance.choice((Ending.RESET, Ending.CUT)))
        if kind.endswith("seconds"):
            return Reply(reply.answer, Ending.SILENT)
        if kind.endswith("garbage answered"):
            return Reply(WireAnswer(200, self.chance.choice(GARBAGE)))
        if kind.endswith("duplicate"):
            return Reply(self._says(DUPLICATE_CODES))
        return Reply(self._says(AMBIGUOUS_CODES))

    def _asked(self, request: WireRequest) -> Reply:
        """An index that lags behind, a question that fails (A9, A10)."""
        self.questions += 1
        reply: Reply = self.app.serve(request)
        dice = self.chance.random()
        if dice < 0.08:
            return Reply(reply.answer, Ending.RESET)
        young = self.hub.now_ms - self._born_ms.get(_client_id(request), 0) < HIDDEN_MS
        if dice < 0.4 and young:
            text = "The data of the order cannot be found, please confirm the order"
            return Reply(envelope(self.hub.now_ms, None, "40109", text, status=400))
        return reply

    def _says(self, codes: Sequence[str]) -> WireAnswer:
        code = self.chance.choice(codes)
        status = self.chance.choice((200, 400))
        return envelope(self.hub.now_ms, None, code, "scripted", status=status)


def _client_id(request: WireRequest) -> str:
    return str(cast(SaidRequest, request).words.get("clientOid", ""))


@dataclass(frozen=True, slots=True)
class Doubted:
    """What one world saw."""

    seed: int
    submits: int
    kinds: Counter[str]
    questions: int
    legs: int
    orders: int
    duplicates: int
    foreign: int
    violations: tuple[Violation, ...]
    crash: str = ""


@dataclass
class Box:
    """Fits `OrderInfoStore`: the newest letter, in memory."""

    letter: Document | None = None

    def read(self) -> Document | None:
        """It."""
        return self.letter

    def write(self, document: Document, epoch: int, revision: int) -> None:
        """Durable at once."""
        self.letter = json.loads(json.dumps(document))

    def archive(self, document: Document) -> None:
        """Nobody asks for it again."""

    def archived(self, count_max: int) -> Sequence[Document]:
        """None."""
        return ()


class Trader:
    """A leader without its processes: letter after letter, until enough was submitted."""

    def __init__(self, world: World, doubt: Doubt, submits: int) -> None:
        self._world = world
        self._doubt = doubt
        self._submits = submits
        self.process = Process(world.hub, "leader", "leader-1")
        self._clock = SimClock(self.process)
        self._exchange: Exchange = world._exchange(self.process)
        self._store = world.judge.watched_store(self.process, cast(Any, Box()))
        self.over = False

    def begin(self) -> None:
        """Register the session; trade in a task of its own."""
        world = self._world
        spec = world.new_spec(0)
        world.postgres.sessions.create(spec, sessions_max=5)
        self._spec, self._epoch = spec, world.postgres.sessions.take_epoch(spec.session_id)
        self.process.spawn(self._live)

    def _live(self) -> None:
        revision, sign = 0, 1
        for number in range(1, LETTERS_MAX):
            if sum(self._doubt.kinds.values()) >= self._submits:
                break
            info = self._patiently(lambda n=number, r=revision, s=sign: self._planned(n, r, s))
            done = self._traded(info)
            self._store.archive(to_json(done))
            revision, sign = done.revision, -sign
            self._clock.sleep(2.0)
        self.over = True

    def _traded(self, info: OrderInfo) -> OrderInfo:
        """As a leader does: when somebody is away, wait, and take the letter up again."""
        while True:
            try:
                return auto_trade(info, self._ports(), self._rules())
            except (*PASSING, Conflict):
                self._clock.sleep(1.0)
                letter = self._store.read()
                assert letter is not None
                info = from_json(letter)

    def _patiently(self, work: Any) -> Any:
        while True:
            try:
                return work()
            except PASSING:
                self._clock.sleep(1.0)

    def _planned(self, number: int, revision: int, sign: int) -> OrderInfo:
        snapshot, rules = self._exchange.snapshot(), self._exchange.instruments()
        symbols = self._world.symbols
        marks = {name: quote.mark for name, quote in self._exchange.quotes(symbols).items()}
        held = {position.symbol: position for position in snapshot.positions}
        book = Book(snapshot.equity, snapshot.available, held, marks, rules)
        weights = {
            name: WEIGHT * (sign if place % 2 else -sign) for place, name in enumerate(symbols)
        }
        targets = {name: Target(name, weight) for name, weight in weights.items()}
        cycle = EPOCH + timedelta(seconds=self._world.hub.now_ms // 1000)
        info = with_plan(
            requested(self._spec.session_id, cycle, number, self._epoch, revision + 1),
            plan_rebalance(targets, book, self._policy),
            inputs={},
            targets={name: {"weight": format(weight, "f")} for name, weight in weights.items()},
            strategy_digest="ambiguous",
            basis=Holding(snapshot.at, {name: each.size for name, each in held.items()}),
        )
        self._store.write(to_json(info), info.epoch, info.revision)
        return info

    @property
    def _policy(self) -> Policy:
        return policy_of(self._spec)

    def _ports(self) -> ExecutionPorts:
        return ExecutionPorts(self._exchange, self._store, self._clock)

    def _rules(self) -> ExecutionRules:
        return ExecutionRules(
            installation=INSTALLATION,
            session_id=self._spec.session_id,
            epoch=self._epoch,
            policy=self._policy,
            margin_mode=MarginMode.CROSSED,
            apply_account_settings=True,
            stop_requested=lambda: False,
        )


def doubt_all(seed: int, submits: int = SUBMITS_A_WORLD) -> Doubted:
    """One world in which no submit is answered truly."""
    plan = WorldPlan(seed, symbols=SYMBOLS, watched=False)
    with tempfile.TemporaryDirectory(prefix="aifap-doubt-", dir=memory_folder()) as folder:
        world = World(plan, Path(folder))
        world.set_limits(orders_per_minute=10_000)
        doubt = Doubt(
            world.exchange._app, world.hub, Random(f"doubt:{seed}"), world.exchange._moved
        )
        world.exchange._app = cast(Any, doubt)
        trader, crash = Trader(world, doubt, submits), ""
        with world.kit.disk, silent_machine():
            points.listen(world._reached)
            try:
                world.start_gateway()
                trader.begin()
                world.hub.run(NEVER_MS - 1, lambda: trader.over)
                world.hub.run(world.hub.now_ms + 60_000)  # what is still held up arrives
            except Exception as error:
                crash = f"{type(error).__name__}: {error}"
            finally:
                points.listen(None)
                world.hub.kill(trader.process)
                world._clear()
    return _counted(seed, world, doubt, crash)


def _counted(seed: int, world: World, doubt: Doubt, crash: str) -> Doubted:
    """By the exchange's ledger: what each planned leg became."""
    account, planned = world.exchange.account, world.judge.letters.planned
    executed: defaultdict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    ids: Counter[str] = Counter()
    foreign = 0
    for order in account.orders.values():
        ids[order.client_id] += 1
        part = planned.get(order.client_id)
        if part is None:
            foreign += not order.client_id.startswith(f"{world.judge._prefix}guard-")
            continue
        executed[part.leg] += order.filled_size
    sizes = {part.leg: part.leg_size for part in planned.values()}
    twice = sum(count - 1 for count in ids.values()) + sum(
        size > sizes[leg] for leg, size in executed.items()
    )
    return Doubted(
        seed=seed,
        submits=sum(doubt.kinds.values()),
        kinds=doubt.kinds,
        questions=doubt.questions,
        legs=len(sizes),
        orders=len(account.orders),
        duplicates=twice,
        foreign=foreign,
        # I14 cannot be judged: the way itself repeats requests, and delivers them late.
        violations=tuple(item for item in world.judge.violations if item.invariant != "I14"),
        crash=crash,
    )


def ambiguous(submits: int, workers: int, first: int = 0) -> int:
    """All of it; prints counts, one JSON object; the exit code."""
    started = time.monotonic()
    totals: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    broken = 0
    for world in _worlds(submits, workers, first):
        kinds.update(world.kinds)
        totals.update(
            submits=world.submits,
            questions=world.questions,
            legs=world.legs,
            orders=world.orders,
            duplicates=world.duplicates,
            foreign=world.foreign,
        )
        again = f"again: python -m tests.simulation --ambiguous {SUBMITS_A_WORLD} --first"
        for item in world.violations:
            print(f"VIOLATION {item.invariant} {item.what}  {again} {world.seed}", flush=True)
        if world.crash:
            print(f"CRASH {world.crash}  {again} {world.seed}", flush=True)
        broken += len(world.violations) + bool(world.crash) + world.duplicates + world.foreign
    for kind, count in sorted(kinds.items()):
        print(f"  {count:7}  {kind}")
    summary = {**totals, "violations": broken, "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps(summary), flush=True)
    return 1 if broken else 0


def _worlds(submits: int, workers: int, first: int) -> Iterator[Doubted]:
    seeds = range(first, first + -(-submits // SUBMITS_A_WORLD))
    if workers <= 1 or len(seeds) == 1:
        yield from map(doubt_all, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=40) as pool:
        yield from pool.imap_unordered(doubt_all, seeds)
