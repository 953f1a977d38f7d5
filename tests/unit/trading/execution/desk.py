"""A session's execution at a test's hand: exchange, letter box, clock, and the cycle to trade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from module.model.accounts import MarginMode
from module.model.market import MarketType
from module.model.orders import StopPrices
from module.model.sessions import TradeMode, boundary_at_or_before
from module.ports import Clock
from tests.fakes.clock import ManualClock
from tests.fakes.crashes import CrashPlan
from tests.fakes.exchange import FakeExchange
from tests.fakes.order_info import MemoryOrderInfoStore
from trading.execution.auto_trade import (
    ExecutionPorts,
    ExecutionRules,
    auto_trade,
    settle_open_slices,
)
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

SESSION = "2611211102-ab3x"
INSTALLATION = "test-house"


def wanted(
    weights: Mapping[str, str], stops: Mapping[str, tuple[str | None, str | None]] | None = None
) -> dict[str, Target]:
    """Targets from text; `stops` are (stop loss, take profit)."""
    found: dict[str, Target] = {}
    for symbol, weight in weights.items():
        loss, profit = (stops or {}).get(symbol, (None, None))
        found[symbol] = Target(
            symbol,
            Decimal(weight),
            StopPrices(
                None if loss is None else Decimal(loss), None if profit is None else Decimal(profit)
            ),
        )
    return found


@dataclass(slots=True)
class Desk:
    """One session's execution. `epoch` is the leader's; `die_at` is for crash sweeps."""

    clock: ManualClock = field(default_factory=ManualClock)
    crashes: CrashPlan = field(default_factory=CrashPlan)
    leverage: Decimal = Decimal(1)
    threshold: Decimal = Decimal("0.01")
    default_stop_loss_pct: Decimal | None = None
    apply_account_settings: bool = False
    stopping: bool = False
    epoch: int = 3
    frozen: Mapping[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    exchange: FakeExchange = field(init=False)
    store: MemoryOrderInfoStore = field(init=False)

    def __post_init__(self) -> None:
        self.exchange = FakeExchange(
            self.clock, leverage=self.leverage, crashes=self.crashes, epoch=self.epoch
        )
        self.store = MemoryOrderInfoStore(self.crashes)

    @property
    def policy(self) -> Policy:
        return Policy(
            TradeMode.REBALANCING,
            MarketType.FUTURES,
            self.leverage,
            self.threshold,
            self.default_stop_loss_pct,
        )

    def ports(self) -> ExecutionPorts:
        clock: Clock = self.clock
        return ExecutionPorts(self.exchange, self.store, clock)

    def rules(self) -> ExecutionRules:
        return ExecutionRules(
            installation=INSTALLATION,
            session_id=SESSION,
            epoch=self.epoch,
            policy=self.policy,
            margin_mode=MarginMode.CROSSED,
            apply_account_settings=self.apply_account_settings,
            stop_requested=lambda: self.stopping,
            frozen=self.frozen,
            tell_forgotten=self.told.append,
        )

    def planned(self, targets: Mapping[str, Target], cycle: datetime | None = None) -> OrderInfo:
        """A planned letter for what the exchange holds now, as the strategy process writes it."""
        snapshot = self.exchange.snapshot()
        held = {position.symbol: position for position in snapshot.positions}
        book = Book(
            base=snapshot.equity,
            available=snapshot.available,
            positions=held,
            marks=dict(self.exchange.marks),
            instruments=self.exchange.rules,
        )
        boundary = cycle or boundary_at_or_before(self.clock.now(), timedelta(minutes=1))
        revision = 0
        if self.store.written:
            revision = from_json(self.store.last).revision + 1
        info = with_plan(
            requested(SESSION, boundary, 1, self.epoch, revision),
            plan_rebalance(targets, book, self.policy),
            inputs={},
            targets={s: {"weight": format(t.weight, "f")} for s, t in targets.items()},
            strategy_digest="5f3a",
            basis=Holding(snapshot.at, {s: position.size for s, position in held.items()}),
        )
        self.store.write(to_json(info), info.epoch, info.revision)
        return info

    def trade(self, targets: Mapping[str, Target]) -> OrderInfo:
        """Plan and carry out one cycle."""
        return auto_trade(self.planned(targets), self.ports(), self.rules())

    def resume(self) -> OrderInfo:
        """A new leader finds the letter that was durable and goes on with it."""
        self.crashes.forgive()
        self.epoch += 1
        info = from_json(self.store.last).changed(epoch=self.epoch)
        self.store.write(to_json(info), info.epoch, info.revision)
        return auto_trade(info, self.ports(), self.rules())

    def settle(self) -> OrderInfo:
        """A new leader finds the letter too old, and drops it."""
        self.crashes.forgive()
        self.epoch += 1
        info = from_json(self.store.last).changed(epoch=self.epoch)
        self.store.write(to_json(info), info.epoch, info.revision)
        return settle_open_slices(info, self.ports(), self.rules(), "too old")
