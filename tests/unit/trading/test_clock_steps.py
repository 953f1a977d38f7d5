"""A machine's clock is set back or forward while a session runs (C7): what is traded, and when."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar

import pytest

from module.logs import configure_logs
from module.model.errors import Unavailable
from module.model.orders import OrderRequest
from module.model.sessions import EndState
from tests.fakes.clock import ManualClock
from tests.fakes.exchange import MARKS, Fails
from tests.unit.trading.leading import FIRST_BOUNDARY, FIVE_MINUTES, Session, make_spec
from trading.rebalance.order_info import CycleStage, Holding, OrderInfo, requested
from trading.rebalancing_main import Exit
from trading.session.letters import Errors, Letters, PatientStore
from trading.session.time_steps import Boundaries, FirstSight

configure_logs("tests")

HOUR = 3600.0
T = TypeVar("T")


class SteppedClock(ManualClock):
    """`current` is true time; the machine's clock is off by `off_s`. A wait is never longer by real
    time than it was by the clock when it began, as with `module.clock`."""

    def __init__(self) -> None:
        super().__init__()
        self.off_s = 0.0

    def step(self, off_s: float) -> None:
        """From now on it is off by so much."""
        self.off_s = off_s

    def now(self) -> datetime:
        return self.current + timedelta(seconds=self.off_s)

    def wall(self) -> datetime:
        return self.now()

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        off = timedelta(seconds=self.off_s)
        return super().wait_readable(fds, None if until is None else until - off)


def minutes(number: float) -> datetime:
    """So many minutes after the first boundary."""
    return FIRST_BOUNDARY + timedelta(minutes=number)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def session(clock: SteppedClock) -> Iterator[Session]:
    found = Session(clock=clock)
    # Each cycle trades something, so that each has order ids of its own.
    wants = [{"BTCUSDT": f"0.{number % 7 + 1}"} for number in range(60)]

    def answer(asked: OrderInfo) -> OrderInfo:
        found.weights = wants[asked.number % 60]
        return found.plan(asked)

    found.strategy.answer = answer
    try:
        yield found
    finally:
        found.close()


def ends_at(session: Session, clock: SteppedClock, when: datetime) -> None:
    """Its owner stops it then, by true time."""

    def stop() -> None:
        session.registry.stop(EndState.PROTECTED)
        session.control.say(signal.SIGUSR1)

    session.spec = make_spec(cycles_max=None)
    clock.at(when, stop)


def traded(session: Session) -> list[str]:
    """Boundaries that were traded, in the order in which they were."""
    return [f"{info.cycle:%H:%M}" for info in session.letters() if info.stage is CycleStage.DONE]


def reasons(session: Session, kind: str) -> list[str]:
    """What the alerts of this kind say."""
    found = [alert for alert in session.alerts.sent if alert.kind == kind]
    return [value for alert in found for name, value in alert.lines if name == "Reason"]


def test_C7_a_clock_that_was_an_hour_fast_and_is_set_right_costs_no_cycle_of_the_true_hour(
    session: Session, clock: SteppedClock
) -> None:
    ends_at(session, clock, minutes(72))
    clock.at(minutes(11), lambda: clock.step(HOUR))
    clock.at(minutes(21), lambda: clock.step(0))
    assert session.lead() is Exit.OVER
    done = traded(session)
    # 11:20 was missed at the step; 12:20 and 12:25 were traded at 11:20 and 11:25 of true time.
    assert done[:5] == ["11:05", "11:10", "11:15", "12:20", "12:25"]
    assert done[5:14] == [f"{11 + n // 60}:{n % 60:02d}" for n in range(30, 75, 5)]
    assert done[14:] == ["12:15"], "what was traded while the clock was ahead comes only once"
    session.exchange.require_exactly_once()


def test_C7_a_cycle_that_was_traded_while_the_clock_was_ahead_is_passed_over_and_told_once(
    session: Session, clock: SteppedClock
) -> None:
    ends_at(session, clock, minutes(90))
    clock.at(minutes(11), lambda: clock.step(HOUR))
    clock.at(minutes(21), lambda: clock.step(0))
    session.lead()
    done = traded(session)
    assert len(done) == len(set(done))
    assert done[-1] == "12:30"
    told = [why for why in reasons(session, "cycle-skipped") if why.startswith("already-traded")]
    assert len(told) == 2
    assert "12:20" in told[0]
    assert "12:30" in told[0], "the next one is named"
    assert "12:25" in told[1]


def test_C7_a_boundary_that_is_long_over_when_it_is_noticed_is_recorded_as_missed(
    session: Session, clock: SteppedClock
) -> None:
    session.spec = make_spec(cycles_max=4)
    clock.at(minutes(11), lambda: clock.step(HOUR))
    session.lead()
    missed = session.registry.cycles[minutes(15)]
    assert missed.state == "skipped"
    assert missed.reason.startswith("missed: 11:20 UTC")
    assert reasons(session, "cycle-skipped") == [missed.reason]
    assert traded(session) == ["11:05", "11:10", "11:15"]


@pytest.mark.parametrize("back_s", [-300.0, -40.0, -2.5])
def test_C7_a_clock_that_is_set_back_over_a_boundary_trades_no_cycle_twice(
    session: Session, clock: SteppedClock, back_s: float
) -> None:
    ends_at(session, clock, minutes(31) - timedelta(seconds=back_s))
    clock.at(minutes(10) + timedelta(seconds=1), lambda: clock.step(back_s))
    assert session.lead() is Exit.OVER
    done = traded(session)
    assert done == ["11:05", "11:10", "11:15", "11:20", "11:25", "11:30", "11:35"]
    session.exchange.require_exactly_once()


def test_C7_a_slewed_clock_neither_doubles_a_cycle_nor_tells_of_it(
    session: Session, clock: SteppedClock
) -> None:
    clock.at(minutes(5) + timedelta(milliseconds=50), lambda: clock.step(-0.4))
    session.lead()
    assert traded(session) == ["11:05", "11:10", "11:15"]
    assert session.alerts.kinds() == ["system-started", "system-stopped"]


def test_C7_the_next_leader_knows_what_was_traded_while_the_clock_was_ahead(
    session: Session, clock: SteppedClock
) -> None:
    ends_at(session, clock, minutes(88))
    clock.at(minutes(11), lambda: clock.step(HOUR))
    clock.at(minutes(21), lambda: clock.step(0))

    clock.at(minutes(41), lambda: session.control.say(signal.SIGTERM))
    assert session.lead() is Exit.HANDED_OVER
    session.control.hand_over = False
    assert session.lead() is Exit.OVER
    done = traded(session)
    assert len(done) == len(set(done))
    assert {"12:00", "12:15", "12:20", "12:25", "12:30"} <= set(done)
    session.exchange.require_exactly_once()


def test_C7_an_outage_is_not_waited_for_longer_because_the_clock_was_set_back(
    session: Session, clock: SteppedClock
) -> None:
    session.exchange.script["snapshot"].extend([Fails(Unavailable("maintenance"))] * 2)
    clock.after(1.5, lambda: clock.step(-HOUR))
    clock.at(minutes(1), lambda: clock.step(0))
    ends_at(session, clock, minutes(3))
    session.lead()
    assert traded(session) == ["10:05"], "by true time at 11:05: the outage was over by then"


def test_C7_an_old_plan_does_not_look_young_because_the_clock_was_set_back_in_an_outage(
    session: Session, clock: SteppedClock
) -> None:
    """The exchange goes away before the opens of a cycle, for as long as the clock is set back."""
    session.weights = dict.fromkeys(MARKS, "0.1")
    session.strategy.answer = session.plan
    session.spec = make_spec(cycles_max=1)

    def first(_orders: Sequence[OrderRequest]) -> None:
        session.exchange.before_submit = second

    def second(_orders: Sequence[OrderRequest]) -> None:
        session.exchange.before_submit = None
        clock.current += timedelta(seconds=200)
        clock.step(-200)
        raise Unavailable("maintenance")

    session.exchange.before_submit = first
    session.lead()
    (letter,) = [info for info in session.letters() if info.number == 1]
    late = [record for record in letter.legs if record.abandoned is not None]
    assert late
    assert "s old" in str(late[0].abandoned)


# --- the parts ---


def letter_of(cycle: datetime, stage: CycleStage) -> OrderInfo:
    return requested("2611211102-ab3x", cycle, 1, 1, 0).changed(stage=stage)


def test_C7_a_skipped_cycle_of_a_clock_that_was_ahead_is_traded_at_its_own_time() -> None:
    boundaries = Boundaries(FIVE_MINUTES)
    boundaries.note(letter_of(minutes(60), CycleStage.SKIPPED))
    assert boundaries.next_after(minutes(56)).boundary == minutes(60)
    boundaries.note(letter_of(minutes(60), CycleStage.DONE))
    found = boundaries.next_after(minutes(56))
    assert (found.boundary, found.passed_over) == (minutes(65), (minutes(60),))
    assert boundaries.next_after(minutes(57)).passed_over == (), "it is named once"


def test_a_boundary_comes_after_now_never_at_it() -> None:
    boundaries = Boundaries(FIVE_MINUTES)
    assert boundaries.next_after(minutes(0)).boundary == minutes(5)
    assert boundaries.next_after(minutes(0) - timedelta(milliseconds=1)).boundary == minutes(0)


def test_C7_a_plans_age_is_at_least_the_real_time_since_it_was_seen(clock: SteppedClock) -> None:
    sight = FirstSight(clock)
    plan = letter_of(FIRST_BOUNDARY, CycleStage.PLANNED).changed(basis=Holding(clock.now(), {}))
    clock.advance(2)
    sight.note(plan)
    clock.advance(40)
    clock.step(-HOUR)
    assert sight.age_s(plan.changed(stage=CycleStage.TRADING)) == pytest.approx(42)
    other = plan.changed(basis=Holding(clock.now(), {"BTCUSDT": Decimal(1)}))
    assert sight.age_s(other) == 0, "it was not seen"
    assert sight.age_s(letter_of(FIRST_BOUNDARY, CycleStage.REQUESTED)) == 0


def test_C7_letters_are_remembered_in_the_order_in_which_they_ended(session: Session) -> None:
    session.spec = make_spec(cycles_max=6)
    session.lead()
    box = session.store.archive_box
    box[:] = [*box[2:], *box[:2]]  # as an archive that sorts by cycles of a clock that was ahead
    letters = Letters(PatientStore(session.store, keep_at_once), session.spec.session_id)
    assert [info.number for info in letters.archive()] == [1, 2, 3, 4, 5, 6]
    assert [info.number for info in letters.recent()] == [3, 4, 5, 6]


def keep_at_once(work: Callable[[], T], at_once: Errors = ()) -> T:
    """A store that refuses nothing."""
    return work()
