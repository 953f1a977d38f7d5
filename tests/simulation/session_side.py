"""A session's processes inside a simulated world: leader, strategy process, finwatcher, their host.

    Host ─► leader: trading.rebalancing_main.run_trading  (restarted as the session host restarts)
              └─ Forker ─► strategy: run_strategy · finwatcher: Finwatcher.step every minute

Bells, life lines and controls are real descriptors; children are forked through production's
`trading.session.children`. A process that ends leaves its descriptors closed, as the kernel does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from module.clock import to_epoch_ms
from module.model.errors import AifapError, NotFound
from module.model.market import Candle, Frequency
from module.model.sessions import SessionSpec
from module.points import reach
from module.ports import (
    AlertSink,
    Clock,
    Exchange,
    MarketData,
    OrderInfoStore,
    StrategyOutput,
    WindowRequest,
)
from module.simulator.engine.engine_types import EngineRejected
from monitoring.finwatcher import Finwatcher, FinwatcherWiring
from monitoring.minute import MINUTE
from tests.simulation.exchange_side import Exchange as SimulatedExchange
from tests.simulation.fault_postgres import SimulatedPostgres
from tests.simulation.hub import EPOCH, Hub, Process, Task
from trading.rebalancing_main import Exit, LeaderWiring, run_trading
from trading.rebalancing_strategy import StrategyWiring, policy_of, run_strategy
from trading.session.bells import Bells
from trading.session.children import FinwatcherProcess, StrategyProcess
from trading.session.control import Control
from trading.session.giving_up import give_up
from trading.session.own_coins import OwnCoins

RESTARTS_MAX = 5
RESTART_WINDOW_MS = 600_000
BACKOFF_FIRST_MS = 500
HOST_LOOK_MS = 2_000
HOLD_MAX = 6
PATIENT_TURNS = 1_000


@dataclass(frozen=True, slots=True)
class SessionGround:
    """What the processes of one session stand on; each factory is called for one process.

    `store`, `exchange`, `market`, `alerts` make the ports of a process; the seams for faults of
    files, of data and of the wire are here.
    """

    hub: Hub
    spec: SessionSpec
    postgres: SimulatedPostgres
    strategy: Callable[[datetime, MarketData], Mapping[str, Mapping[str, str]]]
    clock: Callable[[Process], Clock]
    exchange: Callable[[Process], Exchange]
    market: Callable[[Process], MarketData]
    store: Callable[[Process, SessionSpec], OrderInfoStore]
    alerts: Callable[[Process], AlertSink]
    finwatcher_folder: Callable[[SessionSpec], object]
    told: Callable[[str], None]
    raised: Callable[[Process, Exception], None]
    watched: bool = True


class Host:
    """The session host of one session: a leader that ends unasked is followed by another."""

    def __init__(self, ground: SessionGround) -> None:
        self.ground = ground
        self.leader: Process | None = None
        self.strategy: Process | None = None
        self.finwatcher: Process | None = None
        self.finwatcher_gone_at: datetime | None = None
        self.control: Control | None = None
        self.leaders = 0
        self.gave_up = False
        self.exits: list[str] = []
        self._starts: deque[int] = deque()
        self._not_before_ms = 0
        self._finwatcher_child: SimChild | None = None

    @property
    def is_over(self) -> bool:
        """The session's row says that it is over."""
        record = self.ground.postgres.session_tables.sessions[self.ground.spec.session_id]
        return record.state.is_over

    def look(self) -> None:
        """Start a leader where there is none and one is wanted; called every two seconds."""
        hub = self.ground.hub
        if self.is_over or self.gave_up or (self.leader is not None and self.leader.alive):
            return
        if hub.now_ms < self._not_before_ms:
            return
        while self._starts and hub.now_ms - self._starts[0] > RESTART_WINDOW_MS:
            self._starts.popleft()
        if len(self._starts) > RESTARTS_MAX:
            self._give_up()
            return
        self._not_before_ms = hub.now_ms + BACKOFF_FIRST_MS * 2 ** len(self._starts)
        self._starts.append(hub.now_ms)
        self.leaders += 1
        self.leader = Process(hub, "leader", f"leader-{self.leaders}")
        self.leader.on_death.append(self._leader_is_gone)
        self.ground.told(f"{self.leader.name} starts")
        self.leader.spawn(self._lead)

    def keep_looking(self) -> None:
        """`look` now, and every two seconds while there is no leader, until the session is over."""
        self.look()
        if not self.is_over and (self.leader is None or not self.leader.alive):
            self.ground.hub.at(self.ground.hub.now_ms + HOST_LOOK_MS, self.keep_looking)

    def _leader_is_gone(self) -> None:
        hub = self.ground.hub
        hub.at(hub.now_ms + HOST_LOOK_MS - hub.now_ms % HOST_LOOK_MS, self.keep_looking)

    def finwatcher_is_gone(self) -> None:
        """By itself, or killed: by the machine's clock, now."""
        self.finwatcher_gone_at = self.ground.hub.now()

    def say(self, number: signal.Signals) -> None:
        """Speak to the leader as a signal does; nobody there hears nothing."""
        if self.leader is not None and self.leader.alive and self.control is not None:
            with contextlib.suppress(OSError):
                os.write(self.control._write, bytes([number]))

    def end(self) -> None:
        """Every process of the session is gone (the machine of the simulation is cleared)."""
        for process in (self.leader, self.strategy, self.finwatcher):
            if process is not None:
                self.ground.hub.kill(process)

    def _give_up(self) -> None:
        ground = self.ground
        reason = f"its leader ended {len(self._starts)} times within ten minutes"
        host = Process(ground.hub, "host", "host")
        try:
            give_up(
                ground.postgres.sessions,
                lambda _owner_id: "the trader",
                ground.alerts(host),
                ground.spec.session_id,
                reason,
                ground.hub.now(),
            )
        except AifapError:
            return  # the next look tries again
        self.gave_up = True
        ground.told("the host gives the session up")

    def _lead(self) -> None:
        ground, process = self.ground, self.leader
        assert process is not None
        clock = ground.clock(process)
        control = Control()
        process.owns(control._read)
        process.owns(control._write)
        self.control = control
        bells = Bells.create(clock, "leader", "strategy")
        for descriptor in bells.descriptors():
            process.owns(descriptor)
        forker = SimForker(self, process)
        strategy = StrategyProcess(forker, bells.descriptors(), bells.rebalance_done.fileno())
        process.on_death.append(lambda: _let_go(strategy))
        exchange, store = ground.exchange(process), ground.store(process, ground.spec)
        ended = run_trading(
            LeaderWiring(
                spec=ground.spec,
                user="owner",
                clock=clock,
                exchange=exchange,
                store=store,
                registry=ground.postgres.sessions,
                alerts=ground.alerts(process),
                bells=bells,
                strategy=strategy,
                finwatcher=FinwatcherProcess(forker),
                control=control,
                own=OwnCoins(ground.spec, exchange, store).of,
            )
        )
        self.exits.append(ended.name)
        ground.told(f"{process.name} ends: {Exit(ended).name}")
        ground.hub.kill(process)


def _let_go(strategy: StrategyProcess) -> None:
    """The kernel closes the life line of a leader that is gone; its child sees that."""
    if strategy._life_line is not None:
        with contextlib.suppress(OSError):
            os.close(strategy._life_line)
        strategy._life_line = None
    strategy._child = None


class SimChild:
    """Fits `trading.session.children.Child`: a process of the simulation and its pidfd."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        process.on_death.append(self._gone)

    def _gone(self) -> None:
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def fileno(self) -> int:
        """Readable when it has ended."""
        return self._read

    def end(self) -> None:
        """Make it end; returns when it is gone."""
        self.process.hub.kill(self.process)


class SimForker:
    """Fits `trading.session.children.Forker`: a child is a process of the simulation."""

    def __init__(self, host: Host, leader: Process) -> None:
        self._host = host
        self._leader = leader

    def fork(self, role: str, descriptors: Sequence[int]) -> SimChild:
        """The child runs until it waits for the first time, as if it had been quick."""
        self._leader.require_alive()
        reach(f"host: fork {role}")
        if role == "strategy":
            return self._fork_strategy([os.dup(each) for each in descriptors])
        return self._fork_finwatcher(os.dup(descriptors[0]))

    def _fork_strategy(self, descriptors: list[int]) -> SimChild:
        host, ground = self._host, self._host.ground
        process = Process(ground.hub, "strategy", f"strategy-{host.leaders}-{ground.hub.steps}")
        host.strategy = process
        for descriptor in descriptors:
            process.owns(descriptor)
        *bells, leader_gone = descriptors
        child = SimChild(process)
        clock = ground.clock(process)

        def body() -> None:
            exchange, store = ground.exchange(process), ground.store(process, ground.spec)
            run_strategy(
                StrategyWiring(
                    spec=ground.spec,
                    source="",
                    initial_balance=lambda: _initial_balance(ground),
                    policy=policy_of(ground.spec),
                    clock=clock,
                    exchange=exchange,
                    market=ground.market(process),
                    runner=InlineRunner(ground.strategy),
                    store=store,
                    bells=Bells.adopt(clock, "leader", "strategy", bells),
                    own=OwnCoins(ground.spec, exchange, store).of,
                ),
                leader_gone,
            )

        self._run_now(process.spawn(_ending_with(process, body, ground.raised)))
        return child

    def _fork_finwatcher(self, ready: int) -> SimChild:
        host, ground = self._host, self._host.ground
        os.write(ready, b"1")
        os.close(ready)
        if host.finwatcher is not None and host.finwatcher.alive:
            return SimChild(host.finwatcher)
        process = Process(ground.hub, "finwatcher", f"finwatcher-{ground.hub.steps}")
        host.finwatcher = process
        process.on_death.append(host.finwatcher_is_gone)
        child = SimChild(process)
        body = (lambda: _watch(ground, process)) if ground.watched else ground.hub.block
        process.spawn(_ending_with(process, body, ground.raised))
        return child

    def _run_now(self, task: Task) -> None:
        """Let the child come to its first wait before the leader goes on."""
        hub = self._leader.hub
        for turn in itertools.count():
            if task not in hub._ready:
                return
            if turn == PATIENT_TURNS:  # one child in a hundred thousand draws the very last place
                task.tie = 0.0
            hub.wait((), hub.now_ms)


def _ending_with(
    process: Process, body: Callable[[], None], raised: Callable[[Process, Exception], None]
) -> Callable[[], None]:
    """A process whose body returns, or raises, is gone; `raised` hears what it raised before."""

    def whole() -> None:
        try:
            body()
        except Exception as error:
            raised(process, error)
            raise
        finally:
            process.hub.kill(process)

    return whole


def _initial_balance(ground: SessionGround) -> Decimal:
    balance = ground.postgres.sessions.get(ground.spec.session_id).initial_balance
    assert balance is not None
    return balance


def _watch(ground: SessionGround, process: Process) -> None:
    """`monitoring.finwatcher.run_finwatcher` without its signals."""
    clock = ground.clock(process)
    watcher = Finwatcher(
        FinwatcherWiring(
            session_id=ground.spec.session_id,
            clock=clock,
            exchange=ground.exchange(process),
            sessions=ground.postgres.sessions,
            results=ground.postgres.results,
            alerts=ground.alerts(process),
            folder=ground.finwatcher_folder(ground.spec),  # type: ignore[arg-type]
        ),
        writer=process.name,
    )
    due = watcher.first_due()
    while True:
        clock.wait_readable((), due)
        report = watcher.step()
        if report.session_over:
            watcher.settle()
            return
        due = report.minute + MINUTE


class InlineRunner:
    """Fits `StrategyRunner`: the day's function, called in place."""

    def __init__(
        self, function: Callable[[datetime, MarketData], Mapping[str, Mapping[str, str]]]
    ) -> None:
        self._function = function

    def run(
        self, source: str, config: Mapping[str, object], at: datetime, market: MarketData
    ) -> StrategyOutput:
        targets = self._function(at, market)
        window = WindowRequest(tuple(sorted(targets)), 2, Frequency.MINUTE_15, ("close",))
        return StrategyOutput(targets, (window,), "", 0.0)

    def close(self) -> None:
        """Nothing runs."""


class EngineBars:
    """Fits `MarketData`: the exchange's own closed bars."""

    def __init__(self, exchange: SimulatedExchange) -> None:
        self._exchange = exchange

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        length_ms = int(frequency.length.total_seconds()) * 1000
        end_ms = to_epoch_ms(end)
        found: dict[str, list[Candle]] = {}
        for symbol in symbols:
            try:
                bars = self._exchange.engine.candles(
                    symbol,
                    length_ms,
                    start_ms=end_ms - window * length_ms,
                    end_ms=end_ms,
                    limit=window,
                    include_forming=False,
                )
            except EngineRejected as error:
                raise NotFound(f"{symbol} is not on the market") from error
            found[symbol] = [
                Candle(
                    symbol,
                    frequency,
                    EPOCH + timedelta(milliseconds=bar.open_ms),
                    bar.open,
                    bar.high,
                    bar.low,
                    bar.close,
                    bar.volume,
                )
                for bar in bars
            ]
        return found


@dataclass(frozen=True)
class DayStrategy:
    """What the day's strategy wants at a cycle: a pure function of seed, cycle and prices.

    Every symbol's weight is drawn anew every one to six cycles; now and then one flips, one is
    dropped, and one in `flat_every` cycles everything is closed. Each target has a stop loss, some
    a take profit, anchored at the price of the draw (or of now, where that has become wrong).
    """

    seed: int
    symbols: tuple[str, ...]
    interval: timedelta
    gross: Decimal = Decimal("0.85")
    dropped: float = 0.12
    steps: Mapping[str, Decimal] = field(default_factory=dict)
    shorts: bool = True

    def __call__(self, at: datetime, market: MarketData) -> dict[str, dict[str, str]]:
        cycle = (at - EPOCH) // self.interval
        bars = market.closed_bars(self.symbols, Frequency.MINUTE_15, HOLD_MAX + 1, at)
        share = self.gross / len(self.symbols)
        targets: dict[str, dict[str, str]] = {}
        for symbol in self.symbols:
            hold = 1 + Random(f"{self.seed}:{symbol}").randrange(HOLD_MAX)
            dice = Random(f"{self.seed}:{symbol}:{cycle // hold}")
            closes = [bar.close for bar in bars.get(symbol, ())]
            if dice.random() < self.dropped or not closes:
                continue
            sign = 1 if dice.random() < 0.6 or not self.shorts else -1
            weight = sign * share * Decimal(str(round(0.35 + 0.65 * dice.random(), 3)))
            reach = Decimal(str(round(0.012 + 0.03 * dice.random(), 4)))
            stop, goal = -sign * reach, sign * reach * Decimal("1.5")
            now, anchor = closes[-1], closes[-min(1 + cycle % hold, len(closes))]
            if not anchor * (1 + min(stop, goal)) < now < anchor * (1 + max(stop, goal)):
                anchor = now
            targets[symbol] = {"weight": str(weight)}
            targets[symbol]["presetStopLossPrice"] = self._price(symbol, anchor * (1 + stop))
            if dice.random() < 0.5:
                goal_price = self._price(symbol, anchor * (1 + goal))
                targets[symbol]["presetStopSurplusPrice"] = goal_price
        return targets

    def _price(self, symbol: str, price: Decimal) -> str:
        step = self.steps.get(symbol, Decimal("0.0001"))
        return str(price // step * step)
