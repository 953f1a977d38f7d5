"""One simulated installation for one day, in one thread, made from a seed.

    World(plan, folder) ─► run() ─► DayReport
      hub        virtual time, processes, death                         hub.py
      exchange   the paper exchange and the way to it                   exchange_side.py
                 its application, the gateway's venue: no socket        in_process_*.py
      postgres   the databases and their faults (group E)               fault_postgres.py
      gateway    production's gateway, its protection loop              gateway_side.py
      host       leader, strategy process, finwatcher of a session      session_side.py
      judge      the invariants, against the exchange's own state       judge.py
      plan       which faults, kills, pauses, commands, and when        world_plan.py, day_plan.py

For whoever adds faults: everything that can go wrong is a `Stroke`, a frozen value with the id of
the catalogue, a time (seconds from the start of the day) and `apply(world)`. It is called outside
of every process when its time comes, and may

    world.hit(fault_id)                  count it: it really changed something
    world.kill("leader" | "strategy" | "finwatcher" | "gateway")       die at this moment
    world.kill_at("leader", point, nth)  … when that process reaches that named point
    world.pause("leader", seconds)       stand still (SIGSTOP); `world.pause_at` at a point
    world.step_wall_clock(seconds)       the machine's clock is off by so much from now on (C7)
    world.exchange.fault(words)          a rule of the exchange's fault desk (groups A and B)
    world.exchange.act(lambda engine: …) somebody trades by hand
    world.postgres.arm([...])            a fault of the database
    world.owner.terminate(end_state) / kill_switch(on) / run_system() …  commands (group O)
    world.at(seconds_from_now, action)

Ports can be wrapped for a whole day: `world.wrap_market`, `world.wrap_store`, `world.wrap_exchange`
are lists of functions (process, port) → port; each process gets its ports through them. Named
points: `module.points.reach`; `world.at_point` is a list of functions (process, name) → None that
hear all of them (they may raise `Died` by `world.hub.kill(process)`, or `world.hub.wait`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from module import points
from module.alerts.outbox import AlertOutbox
from module.db.repositories.accounts import AccountRecord
from module.files.order_info_file import FileOrderInfoStore, RenderedLetter
from module.files.session_folder import make_session_folder
from module.model.accounts import TradeEnv
from module.model.sessions import EndState, SessionSpec, new_session_id
from module.ports import AlertSink, Clock, Exchange, MarketData, OrderInfoStore
from module.security.credentials import seal_credentials
from tests.fakes.gateway_stores import CREDENTIALS_KEY
from tests.simulation import exchange_side
from tests.simulation.day_market import market_of, symbols_of
from tests.simulation.fault_files import PlainLock
from tests.simulation.fault_postgres import SimulatedPostgres
from tests.simulation.fault_strokes import equip
from tests.simulation.gateway_side import DirectExchange, Door, GatewayProcess, Ground
from tests.simulation.hub import EPOCH, NEVER_MS, Hub, Process, SimClock, Task
from tests.simulation.judge import Judge
from tests.simulation.owner import Owner
from tests.simulation.session_side import DayStrategy, EngineBars, Host, SessionGround
from tests.simulation.silent_machine import silent_machine
from tests.simulation.spot_judge import SpotJudge
from tests.simulation.world_plan import DayReport, Stroke, WorldPlan

START_MS = 1_772_445_570_000  # 2026-03-02T09:59:30Z
BALANCE = Decimal(10_000)
ACCOUNT = "5b0f77c1-0000-4000-8000-000000000001"
INSTALLATION = "simulated"
GATEWAY_RESTART_MS = 1_500
END_MAX_MS = 1_800_000
LIMITS: dict[str, object] = {
    "order_notional_max": "4000",
    "position_notional_max": "4000",
    "leverage_max": "5",
    "orders_per_minute": 80,
}


@dataclass(frozen=True, slots=True)
class _Ambush:
    """What happens to a process when it reaches a point for the nth time from now on."""

    role: str
    point: str
    pause_s: float | None
    fault_id: str
    left: list[int] = field(default_factory=list)


class World:
    """See the module's docstring."""

    threshold = Decimal("0.004")

    def __init__(self, plan: WorldPlan, folder: Path, *, keep_log: bool = False) -> None:
        self.plan = plan
        self.folder = folder
        self.hub = Hub(START_MS, plan.seed)
        self.hits: Counter[str] = Counter()
        self.log_lines: list[str] | None = [] if keep_log else None
        self._hash = hashlib.blake2b(digest_size=16)
        self.wrap_market: list[Callable[[Process, MarketData], MarketData]] = []
        self.wrap_store: list[Callable[[Process, OrderInfoStore], OrderInfoStore]] = []
        self.wrap_exchange: list[Callable[[Process, Exchange], Exchange]] = []
        self.wrap_clock: list[Callable[[Process, Clock], Clock]] = []
        self.at_point: list[Callable[[Process, str], None]] = []
        self.points_seen: Counter[tuple[str, str]] = Counter()
        self._ambushes: list[_Ambush] = []
        market = market_of(plan.market_seed)
        kind = plan.kind
        self.leverage = kind.leverage
        self.exchange = exchange_side.Exchange(self.hub, market, plan.seed, BALANCE, kind.market)
        self.postgres = SimulatedPostgres(self.hub.now, plan.database)
        self._open_account()
        self.gateways = 0
        self.gateway: GatewayProcess | None = None
        self._gateway_back_ms = 0
        self._stood: list[tuple[int, int]] = []
        self.judge = judge_of(self)
        self.owner = Owner(self)
        self.host: Host | None = None
        self.hosts: list[Host] = []
        listed = market.spot() if kind.is_spot else market.futures()
        steps = {rules.symbol: rules.price_step for rules in listed}
        self.symbols = symbols_of(plan.seed, plan.symbols)
        self.strategy = DayStrategy(
            plan.seed,
            self.symbols,
            plan.interval,
            dropped=plan.dropped,
            steps=steps,
            shorts=not kind.is_spot,
        )
        self.exchange.on_request = self.judge.on_request
        self.exchange.on_answer = self.judge.on_answer
        self.exchange.on_change = self.judge.on_change
        self.exchange.on_version = self._stir
        self.hub.ended = self._task_ended
        self.kit = equip(self)

    @property
    def account_key(self) -> str:
        """The account's id in our installation."""
        return ACCOUNT

    @property
    def limits(self) -> Mapping[str, object]:
        """The account's limits, as Postgres has them."""
        return self.postgres.gateway_tables.accounts[ACCOUNT].limits

    @property
    def goes_wrong(self) -> bool:
        """Whether something may still go wrong, or has within the last half hour."""
        return self.second < self.plan.calm_from_s

    # --- the day ---------------------------------------------------------------------------------

    @property
    def second(self) -> float:
        """Seconds since the start of the day."""
        return (self.hub.now_ms - START_MS) / 1000

    def run(self) -> DayReport:
        """The whole day, then the end of its session, then the last judgement."""
        with self.kit.disk, self.hub.touches, silent_machine(self.judge.errors.heard):
            points.listen(self._reached)
            try:
                self._run()
            finally:
                points.listen(None)
                self._clear()
        return self._report()

    def _run(self) -> None:
        self._start()
        end_ms = START_MS + int(self.plan.hours * 3_600_000)
        self.hub.run(end_ms)
        self.judge.at_rest()
        self.owner.end_of_day()
        self.hub.run(end_ms + END_MAX_MS, self.owner.day_is_over)
        self.hub.run(self.hub.now_ms + 70_000)
        self.judge.at_end()

    def _start(self) -> None:
        for stroke in self.plan.strokes:
            self.hub.at(START_MS + int(stroke.at_s * 1000), _applying(stroke, self))
        self.start_gateway()
        self.owner.run_system()

    def start_session(self, spec: SessionSpec) -> Host:
        """The machine's part of run-system: the session host begins to look after it."""
        ground = SessionGround(
            hub=self.hub,
            spec=spec,
            postgres=self.postgres,
            strategy=self.strategy,
            clock=self._clock,
            exchange=self._exchange,
            market=self._market,
            store=self._store,
            alerts=self.alerts,
            finwatcher_folder=lambda of: make_session_folder(self.folder, of.session_id),
            told=self.log,
            raised=self._body_raised,
            watched=self.plan.watched,
        )
        self.host = Host(ground)
        self.hosts.append(self.host)
        self.hub.at(self.hub.now_ms, self.host.keep_looking)
        return self.host

    def start_gateway(self) -> None:
        """A gateway process; the one before is gone, or taken for dead."""
        self._stood = [(since, min(until, self.hub.now_ms)) for since, until in self.gateway_stood]
        self.gateways += 1
        ground = Ground(
            hub=self.hub,
            exchange=self.exchange,
            postgres=self.postgres,
            folder=self.folder,
            account_id=ACCOUNT,
            installation=INSTALLATION,
            alerts=self.alerts,
            caught=self.judge.errors.caught,
        )
        gateway = GatewayProcess(ground, self.gateways)
        gateway.process.on_death.append(gateway.death)
        gateway.process.on_death.append(self._gateway_is_gone)
        self.gateway = gateway
        self.log(f"{gateway.process.name} starts")

    @property
    def gateway_stood(self) -> list[tuple[int, int]]:
        """Spans of time in which the gateway lived and did not run, and no other one did."""
        return self._stood + ([] if self.gateway is None else self.gateway.process.stood)

    def _stir(self) -> None:
        if self.gateway is not None:
            self.gateway.stir()

    def _gateway_is_gone(self) -> None:
        self.log("gateway is gone")
        self.hub.at(self.hub.now_ms + GATEWAY_RESTART_MS, self._gateway_back)

    def _gateway_back(self) -> None:
        if self.gateway is None or not self.gateway.process.alive:
            self.start_gateway()

    def _task_ended(self, task: Task) -> None:
        """A process body that raised: in production its process would have ended so."""
        if task.error is not None and task.process.alive:
            self.log(f"{task.name} raised {type(task.error).__name__}: {task.error}")
            self.judge.errors.raised(task)

    def _body_raised(self, process: Process, error: Exception) -> None:
        """The body of a process raised: a mistake, or an error that outlived its retries."""
        self.log(f"{process.name} raised {type(error).__name__}: {error}")
        self.judge.errors.caught(process, error, "ended its process")

    # --- what strokes do -------------------------------------------------------------------------

    def hit(self, fault_id: str, count: int = 1) -> None:
        """A fault of the catalogue has really changed something."""
        self.hits[fault_id] += count

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Run `action` outside of every process, in so many seconds."""
        self.hub.at(self.hub.now_ms + int(seconds * 1000), action)

    def process(self, role: str) -> Process | None:
        """The process of that role, while it lives."""
        found: Process | None = None
        if role == "gateway":
            found = None if self.gateway is None else self.gateway.process
        elif self.host is not None:
            found = getattr(self.host, role)
        return found if found is not None and found.alive else None

    def kill(self, role: str) -> bool:
        """SIGKILL; whether there was a process to kill."""
        process = self.process(role)
        if process is None:
            return False
        self.log(f"kill {process.name}")
        self.hub.kill(process)
        return True

    def kill_at(self, role: str, point: str, nth: int, fault_id: str) -> None:
        """SIGKILL when a process of that role reaches the point for the nth time from now on.

        `point` may be a prefix ("order_info:"), or "" for any."""
        self._ambushes.append(_Ambush(role, point, None, fault_id, [nth]))

    def pause_at(self, role: str, point: str, nth: int, seconds: float, fault_id: str) -> None:
        """SIGSTOP for so long when it reaches the point."""
        self._ambushes.append(_Ambush(role, point, seconds, fault_id, [nth]))

    def pause(self, role: str, seconds: float) -> bool:
        """SIGSTOP now, SIGCONT in so many seconds; whether there was a process."""
        process = self.process(role)
        if process is None:
            return False
        self.log(f"pause {process.name} {seconds}")
        process.stand_still(seconds)
        return True

    def step_wall_clock(self, seconds: float) -> None:
        """The machine's wall clock is off by so much from now on; 0 sets it right."""
        self.log(f"wall clock {seconds:+}")
        self.hub.skew_ms = int(seconds * 1000)
        self._stir()

    def _reached(self, name: str) -> None:
        """A process is at a named point."""
        task = self.hub.current
        if task is None:
            return
        process = task.process
        process.require_alive()
        self.points_seen[process.role, name] += 1
        self.judge.writers.reached(process, name)
        for ambush in tuple(self._ambushes):
            if ambush.role != process.role or not name.startswith(ambush.point):
                continue
            ambush.left[0] -= 1
            if ambush.left[0] > 0:
                continue
            self._ambushes.remove(ambush)
            self.hit(ambush.fault_id)
            if ambush.pause_s is None:
                self.log(f"kill {process.name} at {name}")
                self.hub.kill(process)
            self.log(f"pause {process.name} at {name}")
            process.stand_still(ambush.pause_s or 0)
            self.hub.wait((), self.hub.now_ms)
        for listener in self.at_point:
            listener(process, name)

    # --- ports -----------------------------------------------------------------------------------

    def _clock(self, process: Process) -> Clock:
        clock: Clock = SimClock(process)
        for wrap in self.wrap_clock:
            clock = wrap(process, clock)
        return clock

    def _exchange(self, process: Process) -> Exchange:
        door = Door(self.hub, process, ACCOUNT, lambda: self.gateway)
        exchange: Exchange = DirectExchange(door, ACCOUNT, process)
        for wrap in self.wrap_exchange:
            exchange = wrap(process, exchange)
        return exchange

    def _market(self, process: Process) -> MarketData:
        market: MarketData = EngineBars(self.exchange)
        for wrap in self.wrap_market:
            market = wrap(process, market)
        return market

    def _store(self, process: Process, spec: SessionSpec) -> OrderInfoStore:
        folder = make_session_folder(self.folder, spec.session_id)
        store: OrderInfoStore
        if self.plan.letters == "postgres":
            store = self.postgres.letters(spec.session_id, RenderedLetter(folder))
        else:
            mirror = self.postgres.mirror(spec.session_id)
            store = files = FileOrderInfoStore(folder, mirror, lock_timeout_s=0.0)
            files._lock = cast(Any, PlainLock(files.path.with_name(f"{files.path.name}.lock")))
        store = self.judge.watched_store(process, store)
        for wrap in self.wrap_store:
            store = wrap(process, store)
        return store

    def alerts(self, process: Process) -> AlertSink:
        """The alert outbox of a process."""
        return AlertOutbox(self.postgres.alerts, self.folder, ("slack",), SimClock(process))

    # --- the log ---------------------------------------------------------------------------------

    def log(self, line: str) -> None:
        """One event, with its time."""
        text = f"{self.hub.now_ms - START_MS} {line}\n"
        self._hash.update(text.encode())
        if self.log_lines is not None:
            self.log_lines.append(text)

    @property
    def digest(self) -> str:
        """Of the event log so far."""
        return self._hash.hexdigest()

    # --- parts -----------------------------------------------------------------------------------

    def new_spec(self, number: int) -> SessionSpec:
        """Session `number` of the day, as its owner asks for it."""
        now, kind = self.hub.now(), self.plan.kind
        session_id = new_session_id(
            EPOCH + timedelta(milliseconds=self.hub.now_ms), f"{self.plan.seed}:{number}".encode()
        )
        return SessionSpec(
            session_id=session_id,
            installation=INSTALLATION,
            owner_id="owner-1",
            account_id=ACCOUNT,
            market=kind.market,
            market_id=f"synthetic:{self.plan.market_seed}",
            trade_env=TradeEnv.PAPER,
            trade_mode=kind.mode,
            strategy_name="day",
            strategy_digest=f"{self.plan.seed:x}",
            config={},
            interval=kind.interval,
            leverage=kind.leverage,
            margin_mode=kind.margin_mode,
            allocated=kind.allocated,
            compounding=kind.allocated is None,
            threshold=self.threshold,
            default_stop_loss_pct=None,
            target_volatility=kind.target_volatility,
            on_end=EndState.PROTECTED,
            apply_account_settings=True,
            adopt_existing=not kind.is_spot or number > 0,
            started_at=now,
            ends_at=now + timedelta(hours=self.plan.hours + 2),
        )

    def _open_account(self) -> None:
        record = AccountRecord(
            account_id=ACCOUNT,
            owner_id="owner-1",
            label="day",
            venue="bitget",
            market=self.plan.kind.market,
            market_id="synthetic:0",
            trade_env=TradeEnv.PAPER,
            base_url="http://exchange.simulated",
            active=True,
            epoch=0,
            gateway_lease=None,
            initial_balance=BALANCE,
            key_hint="…",
            limits=LIMITS,
            created_at=self.hub.now(),
        )
        sealed = seal_credentials(exchange_side.KEYS, ACCOUNT, CREDENTIALS_KEY)
        self.postgres.accounts.add(record, sealed)

    def set_limits(self, **changes: object) -> None:
        """The account's limits are these from now on, if Postgres takes it."""
        record = self.postgres.gateway_tables.accounts[ACCOUNT]
        self.postgres.accounts.change(ACCOUNT, limits={**record.limits, **changes})

    def _clear(self) -> None:
        """Nothing of the day is left: no descriptor, no task."""
        self._gateway_back_ms = NEVER_MS
        for host in self.hosts:
            host.end()
        if self.gateway is not None:
            self.hub.kill(self.gateway.process)

    def _report(self) -> DayReport:
        self.judge.count_faults()
        return DayReport(
            seed=self.plan.seed,
            hours=self.plan.hours,
            sessions=len(self.hosts),
            cycles=self.judge.cycles,
            done=self.judge.done,
            orders=len(self.exchange.account.orders),
            requests=self.exchange.requests,
            hits=self.hits + self.postgres.hits,
            violations=self.judge.violations,
            digest=self.digest,
            unprotected_s=self.judge.unprotected_s,
            unprotected_answering_s=self.judge.unprotected_answering_s,
            ended=self.owner.how_it_ended(),
            steps=self.hub.steps,
        )


def _applying(stroke: Stroke, world: World) -> Callable[[], None]:
    def apply() -> None:
        world.log(f"stroke {stroke.fault_id}")
        stroke.apply(world)

    return apply


def judge_of(world: World) -> Judge:
    """The judge for the day's market."""
    return SpotJudge(world) if world.plan.kind.is_spot else Judge(world)
