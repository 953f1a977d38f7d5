"""When the bars of a plan go to the archive: after the first order had its way to the disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import pytest

from tests.fakes.clock import ManualClock
from tests.fakes.exchange import FakeExchange
from tests.fakes.market import FakeMarket
from tests.fakes.order_info import MemoryOrderInfoStore
from tests.unit.trading.leading import FIRST_BOUNDARY, SESSION, make_spec
from tests.unit.trading.test_strategy_process import ScriptedRunner
from trading.rebalance.order_info import requested, to_json
from trading.rebalancing_strategy import ORDERS_FIRST, StrategyWiring, policy_of, run_strategy
from trading.session.bells import Bells


@dataclass(slots=True)
class TimedArchive:
    """Fits `module.ports.BarsArchive`: seconds after the bell at which bars were kept."""

    clock: ManualClock
    rung_at: datetime | None = None
    kept_s: list[float] = field(default_factory=list)

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        assert self.rung_at is not None, "kept before the leader was told"
        self.kept_s.append((self.clock.now() - self.rung_at).total_seconds())

    def bars_of(self, cycle: datetime) -> bytes | None:
        return None


Heard = Callable[[Bells, ManualClock, Callable[[], None]], None]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def kept(clock: ManualClock, heard: Heard) -> list[float]:
    """One cycle; `heard` is what the leader does once it has the plan. It is gone at the end."""
    bells = Bells.create(clock, "leader", "strategy")
    life_read, life_write = os.pipe()
    archive, store = TimedArchive(clock), MemoryOrderInfoStore()

    def hear() -> None:
        if bells.strategy_done.is_set():
            bells.strategy_done.clear()
            archive.rung_at = clock.now()
            heard(bells, clock, lambda: os.close(life_write))
        elif bells.rebalance_done.is_set():
            bells.rebalance_done.clear()
            if archive.rung_at is None:
                info = requested(SESSION, FIRST_BOUNDARY, 1, 1, 0)
                store.write(to_json(info), 1, 0)
                bells.rebalance_start.set()
            else:
                os.close(life_write)

    clock.on_ring("leader", hear)
    spec = make_spec()
    wiring = StrategyWiring(
        spec=spec,
        source="the source",
        initial_balance=lambda: Decimal(10_007),
        policy=policy_of(spec),
        clock=clock,
        exchange=FakeExchange(clock),
        market=FakeMarket(),
        runner=ScriptedRunner(),
        store=store,
        bells=bells,
        archive=archive,
    )
    try:
        run_strategy(wiring, life_read)
    finally:
        bells.close()
        os.close(life_read)
    return archive.kept_s


def test_bars_wait_until_the_first_order_is_on_its_way(clock: ManualClock) -> None:
    def trade_for_a_minute(bells: Bells, clock: ManualClock, _gone: Callable[[], None]) -> None:
        clock.after(60, bells.autotrade_done.set)

    assert kept(clock, trade_for_a_minute) == [ORDERS_FIRST.total_seconds()]


def test_a_leader_that_is_done_sooner_does_not_wait_for_the_bars(clock: ManualClock) -> None:
    def trade_nothing(bells: Bells, _clock: ManualClock, _gone: Callable[[], None]) -> None:
        bells.autotrade_done.set()

    assert kept(clock, trade_nothing) == [0]


def test_D2_bars_are_kept_though_the_leader_dies_while_it_trades(clock: ManualClock) -> None:
    def die(_bells: Bells, clock: ManualClock, gone: Callable[[], None]) -> None:
        clock.after(0.1, gone)

    assert kept(clock, die) == [pytest.approx(0.1)]
