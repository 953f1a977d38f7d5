"""A session with a given plan: carried out once, as it was looked at, or not at all."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

import pytest

from module.model.errors import Unavailable
from module.model.orders import OrderRequest, Side, StopPrices
from module.model.sessions import EndState, SessionSpec, SessionState
from tests.fakes.clock import ManualClock
from tests.fakes.crashes import Crash, CrashPlan
from tests.fakes.exchange import Fails, FakeExchange, Lost, Refuses
from tests.fakes.leader import HandControl, MemoryAlerts, MemoryRegistry
from tests.fakes.market import FakeMarket
from tests.fakes.order_info import MemoryOrderInfoStore
from tests.unit.trading.leading import make_spec
from trading.gathering import Gatherer, SeenMarket
from trading.plan_session import PlanWiring, carry_out_plan
from trading.rebalance.given_plan import Freshness, GivenPlan, give_plan, sizes_of
from trading.rebalance.order_info import CycleStage, OrderInfo, from_json
from trading.rebalancing_main import Exit
from trading.rebalancing_strategy import policy_of

ANSWER = {
    "BTCUSDT": {"weight": "0.3", "presetStopLossPrice": "55000"},
    "ETHUSDT": {"weight": "-0.2"},
    "SOLUSDT": {"weight": "0"},
}
BEFORE = 7


@dataclass(slots=True)
class KeptBars:
    """Fits `module.ports.BarsArchive`."""

    kept: dict[datetime, bytes] = field(default_factory=dict)

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        self.kept[cycle] = content

    def bars_of(self, cycle: datetime) -> bytes | None:
        return self.kept.get(cycle)


@dataclass(slots=True)
class House:
    """Everything around one plan: SOL is held and closed, BTC bought, ETH sold short."""

    answer: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: ANSWER)
    clock: ManualClock = field(default_factory=ManualClock)
    registry: MemoryRegistry = field(default_factory=lambda: MemoryRegistry(epoch=BEFORE))
    control: HandControl = field(default_factory=HandControl)
    alerts: MemoryAlerts = field(default_factory=MemoryAlerts)
    archive: KeptBars = field(default_factory=KeptBars)
    crashes: CrashPlan = field(default_factory=CrashPlan)
    exchange: FakeExchange = field(init=False)
    store: MemoryOrderInfoStore = field(init=False)
    given: GivenPlan = field(init=False)
    spec: SessionSpec = field(init=False)

    def __post_init__(self) -> None:
        self.exchange = FakeExchange(self.clock, crashes=self.crashes)
        self.store = MemoryOrderInfoStore(self.crashes)
        self.exchange.hold("SOLUSDT", "10.5")
        at = self.clock.now().replace(second=0, microsecond=0)
        spec = make_spec()
        gatherer = Gatherer(spec, policy_of(spec), self.exchange, lambda: Decimal(10_007))
        inputs = gatherer.gather(at, self.answer, SeenMarket(FakeMarket()))
        held = sizes_of(self.exchange.snapshot().positions)
        self.given = give_plan(inputs, BEFORE, Freshness(), held)
        self.spec = replace(spec, given_plan=self.given.plan_hash, cycles_max=1)

    def carry_out(self) -> Exit:
        return carry_out_plan(
            PlanWiring(
                spec=self.spec,
                user="ann",
                given=lambda: self.given,
                bars=lambda: b"packed",
                clock=self.clock,
                exchange=self.exchange,
                store=self.store,
                archive=self.archive,
                registry=self.registry,
                alerts=self.alerts,
                control=self.control,
            )
        )

    @property
    def letter(self) -> OrderInfo:
        return from_json(self.store.last)

    @property
    def end(self) -> tuple[SessionState, str]:
        return self.registry.states[-1]

    def sizes(self) -> dict[str, Decimal]:
        return sizes_of(self.exchange.snapshot().positions)


def test_exactly_the_plan_is_carried_out_under_an_epoch_of_its_own() -> None:
    house = House()
    legs = house.given.decision.plan.legs

    assert house.carry_out() is Exit.OVER

    assert [(o.symbol, o.side, o.size) for o in house.exchange.ledger] == [
        (leg.symbol, leg.side, leg.size) for leg in legs
    ]
    assert house.exchange.ledger[0].symbol == "SOLUSDT"  # what reduces goes first
    assert {stamp.epoch for stamp in house.exchange.stamps} == {BEFORE + 1}
    assert house.exchange.stops_of("BTCUSDT") == StopPrices(stop_loss=Decimal(55_000))
    assert house.letter.stage is CycleStage.DONE
    assert house.letter.plan_digest == house.given.letter.plan_digest
    assert house.letter.inputs == house.given.inputs.to_json()
    states = [state for state, _ in house.registry.states]
    assert states == [SessionState.RUNNING, SessionState.STOPPING, SessionState.ENDED]
    assert house.end[1] == "the plan was carried out: 3 of 3 legs filled"
    (cycle,) = house.registry.cycles.values()
    assert cycle.digest == house.given.letter.plan_digest
    assert house.store.archive_box[0]["stage"] == "done"
    assert house.archive.kept == {house.given.inputs.cycle: b"packed"}
    assert house.alerts.kinds() == ["system-stopped"]


def test_a_leg_that_was_cut_to_the_free_money_is_filled_and_said_to_be_cut() -> None:
    house = House(answer={"BTCUSDT": {"weight": "1"}})
    assert house.carry_out() is Exit.OVER
    assert house.end[1] == (
        "the plan was carried out: 2 of 2 legs filled, 1 of them cut to the money that was free"
    )


def not_traded(house: House, why: str) -> None:
    before = house.sizes()
    assert house.carry_out() is Exit.OVER
    assert house.exchange.ledger == []
    assert house.sizes() == before
    state, reason = house.end
    assert state is SessionState.ENDED
    assert reason.startswith("not carried out: ")
    assert why in reason
    assert house.letter.stage is CycleStage.DROPPED
    assert house.store.archive_box[-1]["reason"] == reason


def test_a_position_that_changed_since_is_not_traded_over() -> None:
    house = House()
    house.exchange.hold("SOLUSDT", "10.4")
    not_traded(house, "SOLUSDT was 10.5, is 10.4")


def test_a_price_that_moved_too_far_is_not_traded() -> None:
    house = House()
    house.exchange.marks["ETHUSDT"] *= Decimal("1.006")
    not_traded(house, "ETHUSDT moved +0.60 %")


def test_an_order_that_appeared_since_is_not_traded_over() -> None:
    house = House()
    house.exchange.rest(
        OrderRequest("theirs", "BTCUSDT", Side.BUY, Decimal("0.1"), reduce_only=False)
    )
    not_traded(house, "an order for BTCUSDT has appeared")


def test_somebody_who_took_the_account_in_between_is_noticed_by_the_epoch() -> None:
    house = House()
    house.registry.epoch = BEFORE + 1
    not_traded(house, "its epoch is 8, it was 7")


def test_a_process_that_starts_much_too_late_trades_nothing() -> None:
    house = House()
    house.clock.advance(60 + 600 + 1)
    not_traded(house, "s old")


def test_a_plan_that_takes_a_moment_to_start_is_still_carried_out() -> None:
    house = House()
    house.clock.advance(61)
    assert house.carry_out() is Exit.OVER
    assert house.letter.stage is CycleStage.DONE


def test_its_owner_may_still_stop_it() -> None:
    house = House()
    house.registry.stop(EndState.PROTECTED)
    not_traded(house, "terminated by its owner")


def test_flat_is_honoured_even_of_a_plan() -> None:
    house = House()
    house.registry.stop(EndState.FLAT)
    assert house.carry_out() is Exit.OVER
    assert house.sizes() == {}
    assert house.end[0] is SessionState.ENDED
    assert len(house.exchange.ledger) == 1


def test_I21_a_close_all_whose_exchange_goes_away_in_the_middle_is_finished() -> None:
    house = House()
    house.registry.stop(EndState.FLAT)
    away = Unavailable("the gateway does not answer; nothing was sent")
    house.exchange.script["submit"].extend([Fails(away)] * 2)
    assert house.carry_out() is Exit.OVER
    assert house.sizes() == {}
    assert house.end[0] is SessionState.ENDED


def test_I21_a_plan_that_cannot_leave_flat_says_what_is_left() -> None:
    house = House()
    house.registry.stop(EndState.FLAT)
    held = house.sizes()
    refused = Refuses(dict.fromkeys(held, "40309"))
    house.exchange.script["submit"].extend([refused] * 50)
    assert house.carry_out() is Exit.OVER
    assert house.end[0] is SessionState.FAILED
    assert all(symbol in house.end[1] for symbol in held)


def test_an_exchange_that_is_away_at_first_is_waited_for() -> None:
    house = House()
    house.exchange.script["snapshot"].extend([Fails(Unavailable("upkeep"))] * 3)
    assert house.carry_out() is Exit.OVER
    assert house.letter.stage is CycleStage.DONE
    assert len(house.exchange.ledger) == 3


def test_A1_a_lost_answer_is_asked_for_and_nothing_is_sent_twice() -> None:
    house = House()
    house.exchange.script["submit"].append(Lost())
    assert house.carry_out() is Exit.OVER
    ids = house.exchange.accepted_ids()
    assert len(ids) == len(set(ids)) == 3
    assert house.end[1] == "the plan was carried out: 3 of 3 legs filled"


def test_a_hand_over_breaks_off_and_the_next_process_goes_on() -> None:
    house = House()

    def told(_orders: object) -> None:
        house.control.say(signal.SIGTERM)

    house.exchange.before_submit = told
    assert house.carry_out() is Exit.HANDED_OVER
    assert not house.letter.stage.is_over
    house.exchange.before_submit = None
    house.control = HandControl()
    assert house.carry_out() is Exit.OVER
    ids = house.exchange.accepted_ids()
    assert len(ids) == len(set(ids)) == 3
    assert house.end[1] == "the plan was carried out: 3 of 3 legs filled"


def test_D2_killed_anywhere_and_started_again_each_leg_is_one_order() -> None:
    whole = House()
    made_at = len(whole.crashes.reached)
    whole.carry_out()
    points = whole.crashes.reached[made_at:]
    assert len(points) > 10
    for number in range(len(points)):
        house = House()
        house.crashes.die_at = len(house.crashes.reached) + number + 1
        with pytest.raises(Crash):
            house.carry_out()
        house.control = HandControl()
        house.crashes.forgive()
        house.carry_out()
        ids = house.exchange.accepted_ids()
        assert len(ids) == len(set(ids)), points[number]
        state, reason = house.end
        assert state is SessionState.ENDED, points[number]
        # Before the letter exists nothing is known of the epoch that was taken: then nothing
        # is traded, and it says so.
        assert len(ids) == (0 if reason.startswith("not carried out") else 3), points[number]


def test_a_plan_that_only_moves_stops_moves_them() -> None:
    house = House(answer={"SOLUSDT": {"weight": "0.158825", "presetStopLossPrice": "99"}})
    assert house.given.decision.plan.legs == ()
    assert house.given.moved_stops == ("SOLUSDT",)
    assert house.carry_out() is Exit.OVER
    assert house.exchange.ledger == []
    assert house.exchange.stops_of("SOLUSDT") == StopPrices(stop_loss=Decimal(99))
    assert house.end[1].endswith("its stops are set")
