"""The strategy process's loop: a request becomes a plan or a reason, and a bell carries nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

import pytest

from module.model.accounts import AccountSnapshot, PositionMode
from module.model.errors import (
    AifapError,
    NotYet,
    StaleWriter,
    StrategyFailed,
    Unavailable,
)
from module.model.market import Candle, Frequency
from module.model.orders import StopPrices
from module.model.sessions import SessionSpec, TradeMode
from module.ports import MarketData, StrategyOutput, WindowRequest
from tests.fakes.clock import ManualClock
from tests.fakes.exchange import FakeExchange
from tests.fakes.market import FakeMarket
from tests.fakes.order_info import MemoryOrderInfoStore
from tests.unit.trading.leading import FIRST_BOUNDARY, FIVE_MINUTES, SESSION, make_spec
from trading.gathering import VOLATILITY_BARS
from trading.rebalance.order_info import CycleStage, OrderInfo, from_json, requested, to_json
from trading.rebalancing_main import NOT_THE_STRATEGYS
from trading.rebalancing_strategy import (
    READING_AGE_MAX,
    StrategyWiring,
    policy_of,
    run_strategy,
)
from trading.session.bells import Bells

WINDOW = WindowRequest(("BTCUSDT", "ETHUSDT"), 100, Frequency.MINUTE_1, ())
Targets = Mapping[str, Mapping[str, str]]


class ScriptedRunner:
    """Fits `module.ports.StrategyRunner`: asks for its windows, then returns or raises."""

    def __init__(self) -> None:
        self.targets: Targets = {"BTCUSDT": {"weight": "0.3", "presetStopLossPrice": "55000.04"}}
        self.windows: tuple[WindowRequest, ...] = (WINDOW,)
        self.raises: list[AifapError] = []
        self.calls: list[tuple[str, datetime]] = []

    def run(
        self, source: str, config: Mapping[str, object], at: datetime, market: MarketData
    ) -> StrategyOutput:
        self.calls.append((source, at))
        for window in self.windows:
            market.closed_bars(window.assets, window.frequency, window.window, at)
        if self.raises:
            raise self.raises.pop(0)
        return StrategyOutput(self.targets, self.windows, "", 0.01)

    def close(self) -> None:
        pass


@dataclass(slots=True)
class Process:
    """A strategy process in the test's own thread; the test plays the leader, by its bells."""

    spec: SessionSpec = field(default_factory=make_spec)
    clock: ManualClock = field(default_factory=ManualClock)
    market: FakeMarket = field(default_factory=FakeMarket)
    runner: ScriptedRunner = field(default_factory=ScriptedRunner)
    store: MemoryOrderInfoStore = field(default_factory=MemoryOrderInfoStore)
    answers: list[OrderInfo] = field(default_factory=list)
    exchange: FakeExchange = field(init=False)
    bells: Bells = field(init=False)
    life_line: tuple[int, int] = field(init=False)
    between: Callable[[int], bool] = field(default=lambda _number: False)

    def __post_init__(self) -> None:
        self.exchange = FakeExchange(self.clock)
        self.bells = Bells.create(self.clock, "leader", "strategy")
        self.life_line = os.pipe()

    def serve(self, cycles: int) -> list[OrderInfo]:
        """Ask for so many plans, then let the leader be gone; what was answered."""

        def hear() -> None:
            if self.bells.strategy_done.is_set():
                self.bells.strategy_done.clear()
                self.answers.append(from_json(self.store.last))
                self.bells.autotrade_done.set()
            elif self.bells.rebalance_done.is_set():
                self.bells.rebalance_done.clear()
                if len(self.answers) == cycles:
                    os.close(self.life_line[1])
                    self.life_line = (self.life_line[0], -1)
                elif not self.between(len(self.answers)):  # True: it asks itself, later
                    self.ask(len(self.answers))

        self.clock.on_ring("leader", hear)
        run_strategy(
            StrategyWiring(
                spec=self.spec,
                source="the source",
                initial_balance=lambda: Decimal(10_007),
                policy=policy_of(self.spec),
                clock=self.clock,
                exchange=self.exchange,
                market=self.market,
                runner=self.runner,
                store=self.store,
                bells=self.bells,
            ),
            self.life_line[0],
        )
        return self.answers

    def ask(self, number: int) -> None:
        """What the leader does at a boundary."""
        revision = 0
        if self.store.written:
            revision = from_json(self.store.last).revision + 1
        boundary = FIRST_BOUNDARY + FIVE_MINUTES * number
        info = requested(SESSION, boundary, number + 1, 1, revision)
        self.store.write(to_json(info), 1, revision)
        self.bells.rebalance_start.set()

    def close(self) -> None:
        self.bells.close()
        for descriptor in self.life_line:
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def process() -> Iterator[Process]:
    found = Process()
    try:
        yield found
    finally:
        found.close()


def test_a_request_becomes_a_plan_with_everything_it_was_made_of(process: Process) -> None:
    (answer,) = process.serve(1)
    assert answer.stage is CycleStage.PLANNED
    assert (answer.cycle, answer.number, answer.revision) == (FIRST_BOUNDARY, 1, 1)
    assert [record.leg.size for record in answer.legs] == [Decimal("0.0499")]
    assert answer.stops == {"BTCUSDT": StopPrices(Decimal("55000.0"))}
    assert answer.targets == {"BTCUSDT": {"weight": "0.3", "presetStopLossPrice": "55000.04"}}
    assert answer.strategy_digest == "5f3a"
    assert answer.inputs["initial_balance"] == "10007"
    assert answer.inputs["marks"] == {"BTCUSDT": "60123.4"}
    assert process.runner.calls == [("the source", FIRST_BOUNDARY)]


def test_the_same_inputs_give_the_same_letter_byte_for_byte(process: Process) -> None:
    first, second = process.serve(2)
    renamed = replace(second, cycle=first.cycle, number=first.number, revision=first.revision)
    seen = {name: first.inputs[name] for name in ("cycle", "bars")}  # later bars are others
    renamed = replace(renamed, inputs={**second.inputs, **seen})
    assert to_json(renamed) == to_json(first)


def test_each_window_is_fetched_once_a_cycle(process: Process) -> None:
    process.runner.windows = (WINDOW, WINDOW)
    process.serve(3)
    asked = [(symbols, window, end) for symbols, _, window, end in process.market.asked]
    assert asked == [(WINDOW.assets, 100, FIRST_BOUNDARY + FIVE_MINUTES * n) for n in range(3)]


@pytest.mark.parametrize(("bar_takes_s", "looks"), [(2.5, 1), (2.6, 2)])
def test_A14_the_account_is_read_while_the_bar_is_on_its_way_and_again_if_it_was_late(
    process: Process, monkeypatch: pytest.MonkeyPatch, bar_takes_s: float, looks: int
) -> None:
    events: list[str] = []
    snapshot, closed_bars = process.exchange.snapshot, process.market.closed_bars

    def look(_exchange: FakeExchange) -> AccountSnapshot:
        events.append("account")
        return snapshot()

    def wait_for_bars(
        _market: FakeMarket,
        symbols: Sequence[str],
        frequency: Frequency,
        window: int,
        end: datetime,
    ) -> Mapping[str, Sequence[Candle]]:
        process.clock.sleep(bar_takes_s)
        events.append("bars")
        return closed_bars(symbols, frequency, window, end)

    monkeypatch.setattr(FakeExchange, "snapshot", look)
    monkeypatch.setattr(FakeMarket, "closed_bars", wait_for_bars)
    (answer,) = process.serve(1)
    assert answer.stage is CycleStage.PLANNED
    assert events == ["account", "bars", *["account"] * (looks - 1)]
    assert answer.basis is not None
    assert process.clock.now() - answer.basis.at <= READING_AGE_MAX


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StrategyFailed("raised ValueError on line 7"), "strategy-failed: raised ValueError"),
        (NotYet("the bar of 11:05"), "no-bar: "),
        (Unavailable("no runner host"), "unavailable: no runner host"),
    ],
)
def test_G3_what_goes_wrong_is_a_reason_and_the_next_cycle_goes_on(
    process: Process, error: AifapError, reason: str
) -> None:
    process.runner.raises = [error]
    first, second = process.serve(2)
    assert first.stage is CycleStage.SKIPPED
    assert first.reason.startswith(reason)
    assert first.legs == ()
    assert second.stage is CycleStage.PLANNED


@pytest.mark.parametrize(
    "targets",
    [
        {"BTCUSDT": {"weight": "NaN"}},
        {"NOSUCH": {"weight": "0.1"}},
        {"BTCUSDT": {"weight": "7"}},
        {"BTCUSDT": {"weight": "0.1", "presetStopLossPrice": "1e400"}},
    ],
)
def test_G2_nonsense_from_the_runner_is_a_reason_not_a_crash(
    process: Process, targets: Targets
) -> None:
    process.runner.targets = targets
    (answer,) = process.serve(1)
    assert answer.stage is CycleStage.SKIPPED
    assert answer.reason.startswith("strategy-failed")


def test_a_hedge_mode_account_is_refused_with_the_way_out(process: Process) -> None:
    process.exchange.position_mode = PositionMode.HEDGE
    (answer,) = process.serve(1)
    assert answer.stage is CycleStage.SKIPPED
    assert "one-way" in answer.reason


def test_a_bell_that_rings_without_a_letter_plans_nothing(process: Process) -> None:
    def ring_for_nothing(number: int) -> bool:
        process.bells.rebalance_start.set()
        process.clock.after(60, lambda: process.ask(number))
        return True

    process.between = ring_for_nothing
    answers = process.serve(2)
    assert [answer.number for answer in answers] == [1, 2]
    assert len(process.runner.calls) == 2


def test_it_ends_when_its_leader_is_gone_even_in_mid_cycle(process: Process) -> None:
    def vanish() -> None:
        os.close(process.life_line[1])
        process.life_line = (process.life_line[0], -1)

    original = process.runner.run

    def run(
        source: str, config: Mapping[str, object], at: datetime, market: MarketData
    ) -> StrategyOutput:
        vanish()
        return original(source, config, at, market)

    object.__setattr__(process.runner, "run", run)
    process.serve(99)
    assert from_json(process.store.last).stage is CycleStage.PLANNED


def test_I8_it_never_writes_over_a_newer_leaders_letter(process: Process) -> None:
    def take_over(
        source: str, config: Mapping[str, object], at: datetime, market: MarketData
    ) -> StrategyOutput:
        process.store.write({**process.store.last, "epoch": 2, "revision": 0}, 2, 0)
        return StrategyOutput(process.runner.targets, (), "", 0.01)

    object.__setattr__(process.runner, "run", take_over)
    with pytest.raises(StaleWriter):
        process.serve(1)
    assert process.store.last["epoch"] == 2


def test_held_symbols_take_their_marks_from_the_snapshot_others_from_quotes(
    process: Process,
) -> None:
    process.exchange.hold("ETHUSDT", "0.31")
    (answer,) = process.serve(1)
    assert answer.inputs["marks"] == {"BTCUSDT": "60123.4", "ETHUSDT": "3001.25"}
    assert [record.leg.leg_id for record in answer.legs] == ["ETHUSDT-close", "BTCUSDT-open"]
    assert process.exchange.calls.count("snapshot") == 1


def test_A14_candles_behind_an_open_circuit_are_no_fault_of_the_strategy(process: Process) -> None:
    process.runner.raises = [Unavailable("asked again in 59 s", code="circuit-open")]
    (answer,) = process.serve(1)
    assert answer.stage is CycleStage.SKIPPED
    assert answer.reason.startswith(NOT_THE_STRATEGYS)


def test_A20_a_symbol_without_a_price_is_left_out_and_the_others_are_traded(
    process: Process,
) -> None:
    process.runner.targets = {"BTCUSDT": {"weight": "0.2"}, "ETHUSDT": {"weight": "0.3"}}
    del process.exchange.marks["ETHUSDT"]
    (answer,) = process.serve(1)
    assert [record.leg.leg_id for record in answer.legs] == ["BTCUSDT-open"]
    assert [(item.symbol, item.reason.value) for item in answer.skipped] == [
        ("ETHUSDT", "no_price")
    ]


@pytest.mark.parametrize("odd", ["BTCUSDT", "LINKUSDT", "XRPUSDT"])
def test_C1_one_symbol_without_a_quote_among_many_costs_few_questions(
    process: Process, odd: str
) -> None:
    names = sorted(process.exchange.marks)
    process.runner.targets = {name: {"weight": "0.05"} for name in names}
    del process.exchange.marks[odd]
    (answer,) = process.serve(1)
    assert {record.leg.symbol for record in answer.legs} == set(names) - {odd}
    assert [(item.symbol, item.reason.value) for item in answer.skipped] == [(odd, "no_price")]
    assert process.exchange.calls.count("quotes") <= 1 + 2 * len(names).bit_length()


def test_volatility_targeting_scales_by_what_the_book_realised() -> None:
    spec = make_spec(
        trade_mode=TradeMode.VOLATILITY_TARGETING, target_volatility=Decimal("0.000001")
    )
    process = Process(spec)
    try:
        process.exchange.wallet = Decimal(10_000_000)
        process.spec = replace(spec, threshold=Decimal(0), compounding=True)
        (answer,) = process.serve(1)
        weight = Decimal(answer.targets["BTCUSDT"]["weight"])
        assert 0 < weight < Decimal("0.3")
    finally:
        process.close()


def test_bands_are_planned_with_the_volatility_and_spread_of_everything_that_is_named() -> None:
    process = Process(make_spec(no_trade_band=Decimal(1)))
    try:
        process.exchange.hold("BTCUSDT", "0.05")
        process.runner.targets = {"BTCUSDT": {"weight": "0.3"}, "ETHUSDT": {"weight": "0.3"}}
        (answer,) = process.serve(1)
        volatility, spreads = answer.inputs["volatility"], answer.inputs["spreads"]
        assert isinstance(volatility, dict)
        assert isinstance(spreads, dict)
        assert set(volatility) == set(spreads) == {"BTCUSDT", "ETHUSDT"}
        assert Decimal(volatility["BTCUSDT"]) > 0
    finally:
        process.close()


def test_without_bands_neither_is_read(process: Process) -> None:
    process.exchange.hold("BTCUSDT", "0.05")
    (answer,) = process.serve(1)
    assert (answer.inputs["volatility"], answer.inputs["spreads"]) == ({}, {})
    assert "quotes" not in process.exchange.calls


def test_volatility_that_cannot_be_measured_skips_the_cycle_and_says_so() -> None:
    spec = make_spec(trade_mode=TradeMode.VOLATILITY_TARGETING, target_volatility=Decimal("0.4"))
    process = Process(spec)
    try:
        minute = Frequency.MINUTE_1.length
        process.market.holes = {
            ("BTCUSDT", FIRST_BOUNDARY - minute * back) for back in range(20, VOLATILITY_BARS + 1)
        }
        (answer,) = process.serve(1)
        assert answer.stage is CycleStage.SKIPPED
        assert answer.reason.startswith(NOT_THE_STRATEGYS), "the session waits, it does not fail"
        assert "18 one-minute returns" in answer.reason
    finally:
        process.close()


def test_the_plan_is_for_the_boundary_whatever_the_time_is_now(process: Process) -> None:
    process.clock.advance(3.7)
    (answer,) = process.serve(1)
    assert process.runner.calls[0][1] == FIRST_BOUNDARY
    assert answer.cycle == FIRST_BOUNDARY


@pytest.mark.parametrize("factor", ["10", "0.1"])
def test_C3_what_is_priced_far_from_its_last_bar_is_not_opened(
    process: Process, factor: str
) -> None:
    process.runner.targets = {"BTCUSDT": {"weight": "0.3"}, "ETHUSDT": {"weight": "0.2"}}
    process.exchange.marks["BTCUSDT"] *= Decimal(factor)
    (answer,) = process.serve(1)
    assert answer.stage is CycleStage.PLANNED
    assert [record.leg.symbol for record in answer.legs] == ["ETHUSDT"]
    assert [(item.symbol, item.reason.value) for item in answer.skipped] == [
        ("BTCUSDT", "doubtful_price")
    ]
    assert "beyond its last closed bar" in str(answer.inputs["doubted"])
    assert process.exchange.calls.count("quotes") == 1, "nothing more is read for it"


def test_C3_a_held_symbol_with_an_odd_price_keeps_all_but_closes_from_trading(
    process: Process,
) -> None:
    process.runner.targets = {"BTCUSDT": {"weight": "0.3"}, "ETHUSDT": {"weight": "0.2"}}
    process.exchange.hold("BTCUSDT", "0.02")
    process.exchange.hold("SOLUSDT", "3")
    process.exchange.marks["BTCUSDT"] *= 10
    (answer,) = process.serve(1)
    assert [(leg.leg.symbol, leg.leg.reduce_only) for leg in answer.legs] == [("SOLUSDT", True)]
    assert {item.symbol for item in answer.skipped} == {"BTCUSDT", "ETHUSDT"}
