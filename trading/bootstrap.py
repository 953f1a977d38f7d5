"""The composition root of the engine: settings in, processes with all their ports out.

The only file that knows which clock, exchange and store a session of paper, demo or live has.
Everything is built inside the process that uses it, after the fork.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from module.alerts.outbox import AlertOutbox, configured_channels
from module.clock import SystemClock, WorldClock
from module.db.database import Database
from module.db.repositories.alerts import AlertRepository
from module.db.repositories.order_info import PostgresMirror, PostgresOrderInfoStore
from module.db.repositories.session_records import Leader
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.users import UserRepository
from module.exchange.gateway_client import GatewayExchange
from module.files.order_info_file import FileOrderInfoStore, RenderedLetter
from module.files.session_folder import make_session_folder
from module.files.strategy_store import StrategyStore
from module.launch.host_protocol import (
    ask_host,
    build_id,
    host_socket_path,
    runner_socket_path,
)
from module.launch.processes import ProcessIdentity, identify
from module.logs import configure_logs
from module.market.market_client import HELD_S, MarketServiceClient
from module.model.errors import AifapError, InvariantViolated, Unavailable
from module.model.market import Frequency, Instrument, MarketType
from module.model.results import WatchedSession
from module.model.sessions import SessionSpec, TradeMode
from module.ports import Exchange, MarketData
from module.security.sandboxed_runner import SandboxedRunner
from module.security.tokens import mint_grant, session_grant
from module.settings import Settings
from monitoring.finwatcher import FinwatcherWiring, run_finwatcher
from trading.gathering import House
from trading.rebalance.order_info import from_json, requested, to_json, with_plan
from trading.rebalance.plan import Book, Policy, plan_rebalance
from trading.rebalance.weights import read_targets
from trading.rebalancing_main import Exit, LeaderWiring, run_trading
from trading.rebalancing_strategy import StrategyWiring, policy_of, run_strategy
from trading.session.bells import Bells
from trading.session.children import Child, FinwatcherProcess, Forker, StrategyProcess
from trading.session.control import Control
from trading.session.giving_up import give_up
from trading.session.own_coins import OwnCoins
from trading.session_host import Body, ForkedChild, HostTruth, SessionHost, fork_role

POSTGRES_STORE = "postgres"  # of `active_sessions.order_info_store`; the other is "file"
WARM_SESSION = "0000000000-warm"
TURNS = {"finwatcher": 1, "leader": 2, "strategy": 2}
"""Whose turn it is first at one moment of a stepped world: services (0) look, finwatcher measures,
then there is trading. So they meet the request budget in one order, at any speed."""


class World:
    """The adapters that one process of one session uses, built on demand, closed together."""

    def __init__(
        self, settings: Settings, session_id: str, role: str, clock: SystemClock | None = None
    ) -> None:
        self.settings = settings
        self.session_id = session_id
        self.folder: Path = make_session_folder(settings.data_dir, session_id)
        self.platform = Database(settings, "finplatform", pool_size=1)
        self.sessions = SessionRepository(self.platform)
        record = self.sessions.get(session_id)
        self.spec: SessionSpec = record.spec
        self._letter_in_postgres = record.order_info_store == POSTGRES_STORE
        self.clock = clock or session_clock(settings, session_id, role)

    def exchange(self) -> Exchange:
        """The session's account, through the gateway."""
        return GatewayExchange(
            self.settings.gateway_url, self.spec.account_id, self._token(), self.clock
        )

    def market(self) -> MarketData:
        """Closed bars, through the market service."""
        spec = self.spec
        return MarketServiceClient(
            self.settings.market_url,
            spec.market_id,
            spec.market,
            self._token(),
            self.clock,
            held_s=0.0 if self.settings.world_clock else HELD_S,
        )

    def store(self) -> FileOrderInfoStore | PostgresOrderInfoStore:
        """The letter, as the session's row says: in the file (Postgres follows), or in Postgres
        (the file shows it)."""
        if self._letter_in_postgres:
            return PostgresOrderInfoStore(
                self.platform, self.session_id, RenderedLetter(self.folder)
            )
        return FileOrderInfoStore(self.folder, PostgresMirror(self.platform, self.session_id))

    def alerts(self) -> AlertOutbox:
        """Off the trading path: into Postgres, or a spool."""
        return build_alerts(self.settings, self.platform, self.clock)

    def _token(self) -> str:
        grant = session_grant(self.spec.account_id, self.session_id, self.spec.owner_id)
        return mint_grant(grant, self.settings.secret("token_key"))


def participant(session_id: str, role: str) -> str:
    """The name of a session's process in a stepped world."""
    return f"{session_id}:{role}"


def session_clock(settings: Settings, session_id: str, role: str) -> SystemClock:
    """The clock of a session's process."""
    return build_clock(settings, participant(session_id, role), TURNS[role])


def build_clock(settings: Settings, name: str | None, turn: int = 0) -> SystemClock:
    """Real time, or a place in the installation's stepped world (None: an observer's)."""
    if not settings.world_clock:
        return SystemClock()
    host, _, port = settings.world_clock.rpartition(":")
    return WorldClock(host, int(port), name, turn=turn)


def build_alerts(settings: Settings, platform: Database, clock: SystemClock) -> AlertOutbox:
    """The outbox of this installation."""
    return AlertOutbox(
        AlertRepository(platform), settings.data_dir, configured_channels(settings), clock
    )


# --- bodies of a session's processes --------------------------------------------------------------


class HostForker:
    """Forks through the session host, over its socket."""

    def __init__(self, settings: Settings, session_id: str) -> None:
        self._path = host_socket_path(settings.data_dir)
        self._session_id = session_id

    def fork(self, role: str, descriptors: Sequence[int]) -> Child:
        """Ask the host; the descriptors travel with the request."""
        request = {"op": "fork", "role": role, "session_id": self._session_id}
        answer = ask_host(self._path, request, descriptors)
        pid, ticks, boot = answer["pid"], answer["started_ticks"], answer["boot_id"]
        if not isinstance(pid, int) or not isinstance(ticks, int):
            raise InvariantViolated(f"the session host answered {answer}")
        return ForkedChild(ProcessIdentity(pid, ticks, str(boot)))


class DirectForker:
    """Forks from this process itself: Jobs, debugging, the plain form without a host."""

    def __init__(self, settings: Settings, session_id: str) -> None:
        self._settings = settings
        self._session_id = session_id

    def fork(self, role: str, descriptors: Sequence[int]) -> Child:
        """A child of this process."""
        body = BODIES[role]
        return ForkedChild(fork_role(self._settings, self._session_id, role, descriptors, body))


def leader_body(settings: Settings, session_id: str, _descriptors: Sequence[int]) -> int:
    """A leader that forks through the host."""
    if _has_given_plan(settings, session_id):
        return int(_carry_out(settings, session_id))
    return int(_lead(settings, session_id, HostForker(settings, session_id)))


def _has_given_plan(settings: Settings, session_id: str) -> bool:
    """Asked before anything is forked: such a session needs no children."""
    database = Database(settings, "finplatform", pool_size=1)
    try:
        return SessionRepository(database).get(session_id).spec.given_plan is not None
    finally:
        database.close()


def _carry_out(settings: Settings, session_id: str) -> Exit:
    """The one process of a session with a given plan."""
    from module.files.preview_store import PreviewStore
    from trading.plan_session import PlanWiring, carry_out_plan
    from trading.rebalance.given_plan import GivenPlan, given_plan_from_json

    control = Control()
    control.install()
    world = World(settings, session_id, "leader")
    me = identify(os.getpid())
    if me is None:
        raise InvariantViolated("this process does not find itself in /proc")
    world.sessions.record_leader(session_id, Leader(me.pid, me.started_ticks, socket.gethostname()))
    spec, store = world.spec, world.store()
    previews, plan_hash = PreviewStore(settings.data_dir), world.spec.given_plan or ""

    def given() -> GivenPlan:
        return given_plan_from_json(previews.get(spec.owner_id, plan_hash))

    exchange = world.exchange()
    try:
        return carry_out_plan(
            PlanWiring(
                spec=spec,
                user=UserRepository(world.platform).get(spec.owner_id).name,
                given=given,
                bars=lambda: previews.bars(spec.owner_id, plan_hash),
                clock=world.clock,
                exchange=exchange,
                own=OwnCoins(spec, exchange, store).of,
                store=store,
                archive=store,
                registry=world.sessions,
                alerts=world.alerts(),
                control=control,
            )
        )
    finally:
        world.clock.close()
        world.platform.close()


def _lead(settings: Settings, session_id: str, forker: Forker) -> Exit:
    control = Control()
    control.install()
    clock = session_clock(settings, session_id, "leader")
    bells = Bells.create(
        clock, participant(session_id, "leader"), participant(session_id, "strategy")
    )
    strategy = StrategyProcess(forker, bells.descriptors(), bells.rebalance_done.fileno())
    finwatcher = FinwatcherProcess(forker)
    with contextlib.suppress(Unavailable):  # the leader tries again, with patience
        finwatcher.begin()
        strategy.begin()
    # The children build their worlds while this process builds its own.
    world = World(settings, session_id, "leader", clock)
    exchange, store = world.exchange(), world.store()
    me = identify(os.getpid())
    if me is None:
        raise InvariantViolated("this process does not find itself in /proc")
    world.sessions.record_leader(session_id, Leader(me.pid, me.started_ticks, socket.gethostname()))
    try:
        return run_trading(
            LeaderWiring(
                spec=world.spec,
                own=OwnCoins(world.spec, exchange, store).of,
                build=build_id(),
                user=UserRepository(world.platform).get(world.spec.owner_id).name,
                clock=world.clock,
                exchange=exchange,
                store=store,
                registry=world.sessions,
                alerts=world.alerts(),
                bells=bells,
                strategy=strategy,
                finwatcher=finwatcher,
                control=control,
            )
        )
    finally:
        world.clock.close()
        world.platform.close()


def strategy_body(settings: Settings, session_id: str, descriptors: Sequence[int]) -> int:
    """The strategy process: four bells and the leader's life line are its descriptors."""
    *bell_descriptors, leader_gone = descriptors
    world = World(settings, session_id, "strategy")
    spec = world.spec
    source = StrategyStore(settings.data_dir).read_version(
        spec.owner_id, spec.strategy_name, spec.strategy_digest
    )

    @cache
    def initial_balance() -> Decimal:
        balance = world.sessions.get(session_id).initial_balance
        if balance is None:
            raise InvariantViolated(f"session {session_id} has no initial balance yet")
        return balance

    exchange, store = world.exchange(), world.store()
    runner = SandboxedRunner(
        runner_socket_path(settings.data_dir),
        world.clock,
        timeout_s=settings.strategy_timeout_s,
        display_timezone=settings.display_timezone,
    )
    run_strategy(
        StrategyWiring(
            spec=spec,
            own=OwnCoins(spec, exchange, store).of,
            source=source.source,
            initial_balance=initial_balance,
            policy=policy_of(spec),
            clock=world.clock,
            exchange=exchange,
            market=world.market(),
            runner=runner,
            store=store,
            archive=store,
            house=House(build_id(), settings.display_timezone),
            bells=Bells.adopt(
                world.clock,
                participant(session_id, "leader"),
                participant(session_id, "strategy"),
                bell_descriptors,
            ),
        ),
        leader_gone,
    )
    return 0


def finwatcher_body(settings: Settings, session_id: str, descriptors: Sequence[int]) -> int:
    """Finwatcher: its one descriptor tells the leader that it watches."""
    from module.db.repositories.results import ResultsRepository

    world = World(settings, session_id, "finwatcher")
    os.write(descriptors[0], b"1")
    os.close(descriptors[0])
    never, keep_open = os.pipe()
    results = Database(settings, "finwatcher", pool_size=1)
    run_finwatcher(
        FinwatcherWiring(
            session_id=session_id,
            clock=world.clock,
            exchange=world.exchange(),
            sessions=world.sessions,
            results=ResultsRepository(results),
            alerts=world.alerts(),
            folder=world.folder,
            days_per_year=settings.days_per_year,
        ),
        never,
    )
    os.close(keep_open)
    world.clock.close()
    return 0


BODIES: dict[str, Body] = {
    "leader": leader_body,
    "strategy": strategy_body,
    "finwatcher": finwatcher_body,
}


# --- the host -------------------------------------------------------------------------------------


def warm_host(settings: Settings) -> None:
    """Import and use what every session's processes use, before the first fork.

    What a path allocates when it runs for the first time (compiled queries, mappers, codecs) is
    then in pages that all sessions share. Every answer here is thrown away; that a service is not
    there yet is no reason not to start.
    """
    from module.db.repositories.results import ResultsRepository
    from module.market.market_client import MarketServiceClient as Bars

    database = Database(settings, "finplatform", pool_size=1)
    results = Database(settings, "finwatcher", pool_size=1)
    clock = SystemClock()
    sessions = SessionRepository(database)
    nobody = WatchedSession(
        WARM_SESSION, "", "", MarketType.FUTURES, "", clock.wall(), Decimal(1), None,
        compounding=False, initial_balance=None, is_over=True, ended_at=None,
    )  # fmt: skip
    token = mint_grant(session_grant(WARM_SESSION, WARM_SESSION, ""), settings.secret("token_key"))
    exchange = GatewayExchange(
        settings.gateway_url, WARM_SESSION, token, clock, connect_patience_s=0.0
    )
    bars = Bars(settings.market_url, settings.market_id, MarketType.FUTURES, token, clock)
    reader = ResultsRepository(results)
    for path in (
        sessions.active_sessions,
        lambda: sessions.find(WARM_SESSION),
        lambda: sessions.watched(WARM_SESSION),
        lambda: sessions.cycles(WARM_SESSION, 1),
        lambda: sessions.heartbeat(WARM_SESSION, 0, clock.wall()),
        lambda: sessions.write_order_info(WARM_SESSION, {}, 0, 0),
        lambda: reader.latest(nobody),
        lambda: reader.portfolio_series(nobody, clock.wall(), clock.wall(), 1),
        exchange.snapshot,
        lambda: bars.closed_bars(["-"], Frequency.MINUTE_1, 1, clock.wall()),
        _warm_letter,
    ):
        with contextlib.suppress(AifapError, SQLAlchemyError):
            path()
    exchange.close()
    database.close()
    results.close()


def _warm_letter() -> None:
    """A plan and its letter, there and back."""
    at = SystemClock().wall()
    rules = Instrument(
        "W", "W", "USDT", MarketType.FUTURES, Decimal("0.1"), Decimal("0.1"), Decimal("0.1"),
        Decimal(5), Decimal(100), Decimal(10), Decimal("0.0006"), Decimal("0.0002"),
    )  # fmt: skip
    policy = Policy(TradeMode.REBALANCING, MarketType.FUTURES, Decimal(1), Decimal("0.01"))
    book = Book(Decimal(1000), Decimal(1000), {}, {"W": Decimal(10)}, {"W": rules})
    targets = read_targets({"W": {"weight": "0.5"}}, book.instruments, MarketType.FUTURES)
    letter = requested(WARM_SESSION, at, 0, 0, 0)
    plan = plan_rebalance(targets, book, policy)
    letter = with_plan(letter, plan, inputs={}, targets={}, strategy_digest="")
    from_json(to_json(letter))


def build_host(settings: Settings) -> SessionHost:
    """A host whose truth is Postgres; it keeps no connection open between looks."""

    def unfinished() -> list[str]:
        database = Database(settings, "finplatform", pool_size=1)
        try:
            return [row.session_id for row in SessionRepository(database).active_sessions()]
        finally:
            database.close()

    def tell(session_id: str, reason: str) -> None:
        database = Database(settings, "finplatform", pool_size=1)
        clock = SystemClock()
        try:
            alerts = build_alerts(settings, database, clock)
            rows, users = SessionRepository(database), UserRepository(database)
            now = clock.wall()
            give_up(rows, lambda owner: users.get(owner).name, alerts, session_id, reason, now)
        finally:
            database.close()

    return SessionHost(settings, BODIES, HostTruth(settings, unfinished, tell))


@contextlib.contextmanager
def own_runner_host(settings: Settings) -> Iterator[Callable[[str], SandboxedRunner]]:
    """A runner host of this process's own, in a folder of its own, so that nothing that runs here
    is disturbed; gives the runner that shows user code a time zone."""
    with tempfile.TemporaryDirectory(prefix="aifap-runner-") as folder:
        own = settings.model_copy(update={"data_dir": Path(folder)})
        clock = SystemClock()
        with build_host(own).runner_only():
            yield lambda timezone: SandboxedRunner(
                runner_socket_path(own.data_dir),
                clock,
                timeout_s=settings.strategy_timeout_s,
                display_timezone=timezone,
            )


def lead_without_host(session_id: str) -> Exit:
    """One session in the foreground; its runner host is this process's own."""
    settings = Settings()
    configure_logs(f"{session_id}:leader", settings.log_level)
    if _has_given_plan(settings, session_id):
        return _carry_out(settings, session_id)
    host = build_host(settings)
    with host.runner_only():
        return _lead(settings, session_id, DirectForker(settings, session_id))
