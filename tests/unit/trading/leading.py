"""A whole session in one thread: the real leader, a played strategy process, fakes for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from module.model.accounts import MarginMode, TradeEnv
from module.model.errors import StrategyFailed
from module.model.market import MarketType
from module.model.sessions import EndState, SessionSpec, TradeMode
from tests.fakes.clock import ManualClock
from tests.fakes.crashes import CrashPlan
from tests.fakes.exchange import FakeExchange
from tests.fakes.leader import (
    HandControl,
    MemoryAlerts,
    MemoryRegistry,
    PlayedChild,
    PlayedStrategy,
)
from tests.fakes.order_info import MemoryOrderInfoStore
from trading.rebalance.order_info import CycleStage, Holding, OrderInfo, from_json, with_plan
from trading.rebalance.plan import Book, plan_rebalance
from trading.rebalance.weights import read_targets
from trading.rebalancing_main import Exit, LeaderWiring, run_trading
from trading.rebalancing_strategy import policy_of
from trading.session.bells import Bells

SESSION = "2611211102-ab3x"
FIRST_BOUNDARY = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
FIVE_MINUTES = timedelta(minutes=5)
Weights = Mapping[str, str]


def make_spec(**changes: object) -> SessionSpec:
    """Three cycles of five minutes, on paper."""
    spec = SessionSpec(
        session_id=SESSION,
        installation="test-house",
        owner_id="owner-3",
        account_id="account-7",
        market=MarketType.FUTURES,
        market_id="replay:17",
        trade_env=TradeEnv.PAPER,
        trade_mode=TradeMode.REBALANCING,
        strategy_name="momentum",
        strategy_digest="5f3a",
        config={},
        interval=FIVE_MINUTES,
        leverage=Decimal(1),
        margin_mode=MarginMode.CROSSED,
        allocated=None,
        compounding=False,
        threshold=Decimal("0.01"),
        default_stop_loss_pct=None,
        target_volatility=None,
        on_end=EndState.PROTECTED,
        apply_account_settings=False,
        adopt_existing=False,
        started_at=datetime(2026, 11, 21, 11, 2, tzinfo=UTC),
        ends_at=datetime(2026, 11, 22, 11, 2, tzinfo=UTC),
        cycles_max=3,
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


@dataclass(slots=True)
class Session:
    """`weights` is what the played strategy wants; `failing` makes its next cycles fail."""

    spec: SessionSpec = field(default_factory=make_spec)
    clock: ManualClock = field(default_factory=ManualClock)
    weights: Weights = field(default_factory=lambda: {"BTCUSDT": "0.3", "ETHUSDT": "-0.2"})
    failing: int = 0
    crashes: CrashPlan = field(default_factory=CrashPlan)
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    alerts: MemoryAlerts = field(default_factory=MemoryAlerts)
    finwatcher: PlayedChild = field(default_factory=PlayedChild)
    control: HandControl = field(default_factory=HandControl)
    exchange: FakeExchange = field(init=False)
    store: MemoryOrderInfoStore = field(init=False)
    bells: Bells = field(init=False)
    strategy: PlayedStrategy = field(init=False)

    def __post_init__(self) -> None:
        self.exchange = FakeExchange(self.clock, crashes=self.crashes)
        self.store = MemoryOrderInfoStore(self.crashes)
        self.bells = Bells.create(self.clock, "leader", "strategy")
        self.strategy = PlayedStrategy(self.clock, self.store, self.bells, self.plan)

    def plan(self, asked: OrderInfo) -> OrderInfo:
        """What the strategy process answers."""
        if self.failing:
            self.failing -= 1
            error = StrategyFailed("the strategy raised ZeroDivisionError (line 3 of strategy.py)")
            reason = f"{error.code}: {error.message}"
            return asked.changed(stage=CycleStage.SKIPPED, reason=reason)
        snapshot = self.exchange.snapshot()
        answer = {symbol: {"weight": weight} for symbol, weight in self.weights.items()}
        targets = read_targets(answer, self.exchange.rules, self.spec.market)
        book = Book(
            base=snapshot.equity,
            available=snapshot.available,
            positions={position.symbol: position for position in snapshot.positions},
            marks=dict(self.exchange.marks),
            instruments=self.exchange.rules,
        )
        plan = plan_rebalance(targets, book, policy_of(self.spec))
        basis = Holding(snapshot.at, {p.symbol: p.size for p in snapshot.positions})
        return with_plan(
            asked, plan, inputs={}, targets=answer, strategy_digest="5f3a", basis=basis
        )

    def lead(self) -> Exit:
        """Run a leader until it ends."""
        return run_trading(
            LeaderWiring(
                spec=self.spec,
                user="ada",
                clock=self.clock,
                exchange=self.exchange,
                store=self.store,
                registry=self.registry,
                alerts=self.alerts,
                bells=self.bells,
                strategy=self.strategy,
                finwatcher=self.finwatcher,
                control=self.control,
            )
        )

    def letters(self) -> list[OrderInfo]:
        """Every ended cycle, as it was archived."""
        return [from_json(document) for document in self.store.archive_box]

    def stages(self) -> list[str]:
        """How each recorded cycle ended, in the order of boundaries."""
        return [self.registry.cycles[when].state for when in sorted(self.registry.cycles)]

    def close(self) -> None:
        self.bells.close()
        self.control.close()
        self.finwatcher.stop()
        self.strategy.stop()
