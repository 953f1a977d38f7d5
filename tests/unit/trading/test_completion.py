"""A cycle that became too old on its way is completed once, where its slot is long enough (A14)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from module import points
from module.model.errors import Unavailable
from module.model.orders import OrderRequest
from module.model.sessions import EndState, SessionState
from module.ports import MarketData, StrategyOutput
from tests.fakes.crashes import Crash
from tests.fakes.exchange import MARKS, Lost
from tests.unit.trading.leading import Session, make_spec
from trading.completion import SLOT_LEFT_MIN
from trading.execution.freshness import SPENT
from trading.rebalance.decision import AccountInputs, CycleInputs, StrategyCall, decide, plan_letter
from trading.rebalance.order_info import CycleStage, OrderInfo
from trading.rebalancing_strategy import policy_of
from trading.replay import Journal, Verdict, read_inputs, replay_cycle

HOUR = timedelta(hours=1)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
WEIGHTS = dict.fromkeys(MARKS, "0.1")


def hourly(cycles: int = 1, **changes: object) -> Session:
    """A session of one-hour cycles whose letters hold what their plans were made of."""
    session = Session(make_spec(interval=HOUR, cycles_max=cycles, **changes))
    session.strategy.answer = lambda asked: planned(session, asked)
    return session


def planned(session: Session, asked: OrderInfo) -> OrderInfo:
    snapshot = session.exchange.snapshot()
    inputs = CycleInputs(
        session_id=asked.session_id,
        cycle=asked.cycle,
        policy=policy_of(session.spec),
        account=AccountInputs.of(snapshot),
        initial_balance=Decimal(10_007),
        allocated=None,
        compounding=False,
        answer={symbol: {"weight": weight} for symbol, weight in WEIGHTS.items()},
        marks=dict(session.exchange.marks),
        instruments=dict(session.exchange.rules),
        call=StrategyCall("owner-3", "momentum", "5f3a"),
    )
    return plan_letter(asked, inputs, decide(inputs))


def interrupt(session: Session, away_s: float) -> None:
    """After the first batch of orders nobody answers for so long."""

    def go_away(_orders: Sequence[OrderRequest]) -> None:
        session.exchange.before_submit = None

        def leave() -> None:
            session.exchange.down = Unavailable("the gateway does not answer")

        def come_back() -> None:
            session.exchange.down = None

        leave_now.append(leave)
        session.clock.after(away_s, come_back)

    leave_now: list[object] = []

    def listen(name: str) -> None:
        if leave_now and name == "execution: after submit":
            leave_now.pop()()  # type: ignore[operator]

    session.exchange.before_submit = go_away
    points.listen(listen)


@contextmanager
def quiet_points() -> Iterator[None]:
    try:
        yield
    finally:
        points.listen(None)


def opened(session: Session) -> set[str]:
    return {position.symbol for position in session.exchange.snapshot().positions}


@pytest.mark.parametrize(
    ("away_s", "completed"),
    [(60, False), (400, True), (2000, True), (3600 - SLOT_LEFT_MIN.total_seconds(), False)],
)
def test_A14_what_an_outage_left_half_open_is_completed_while_its_slot_lasts(
    away_s: float, completed: bool
) -> None:
    with closing(hourly()) as session, quiet_points():
        interrupt(session, away_s)
        session.lead()
        letters = session.letters()
        assert [letter.cycle == NOON for letter in letters] == [True, *[False] * completed]
        assert (opened(session) == set(MARKS)) is (completed or away_s == 60)
        assert session.registry.row.state is SessionState.ENDED
        session.exchange.require_exactly_once()
        if completed:
            done = letters[-1]
            assert done.stage is CycleStage.DONE
            assert done.reason.startswith("completes 12:00:00 UTC: ")
            assert done.cycle in session.registry.cycles
            assert done.number == letters[0].number
            assert done.targets == letters[0].targets


def test_a_completion_is_replayed_without_a_strategy_and_without_bars() -> None:
    with closing(hourly()) as session, quiet_points():
        interrupt(session, 400)
        session.lead()
        letter = session.letters()[-1]
        inputs = read_inputs(letter)
        assert inputs is not None
        assert (inputs.call.name, inputs.call.digest) == ("", "5f3a")
        report = replay_cycle(Journal(letter, None, None), _NobodyAsks(), "")
        assert report.verdict is Verdict.SAME


class _NobodyAsks:
    """Fits `StrategyRunner`."""

    def run(
        self, source: str, config: Mapping[str, object], at: datetime, market: MarketData
    ) -> StrategyOutput:
        raise AssertionError("the strategy was asked")

    def close(self) -> None:
        """Nothing runs."""


def test_A14_a_completion_that_is_interrupted_itself_is_not_completed_again() -> None:
    with closing(hourly()) as session, quiet_points():
        interrupt(session, 400)
        session.exchange.script["submit"].append(Lost(accepted=3))
        session.clock.at(NOON + timedelta(seconds=395), lambda: interrupt(session, 400))
        session.lead()
        assert [letter.cycle == NOON for letter in session.letters()] == [True, False]
        session.exchange.require_exactly_once()


@pytest.mark.parametrize("point", ["leader: before completion", "leader: letter saved"])
def test_D2_a_leader_that_dies_before_or_in_a_completion_is_followed_by_one_that_does_it(
    point: str,
) -> None:
    with closing(hourly()) as session, quiet_points():
        interrupt(session, 400)
        armed = []

        def die(name: str) -> None:
            if name == "leader: before completion":
                armed.append(True)
            if armed and name == point:
                raise Crash(name)

        session.clock.at(NOON + timedelta(seconds=390), lambda: points.listen(die))
        with pytest.raises(Crash):
            session.lead()
        points.listen(None)
        session.clock.advance(3)
        session.lead()
        assert opened(session) == set(MARKS)
        assert [letter.cycle == NOON for letter in session.letters()] == [True, False]
        session.exchange.require_exactly_once()


def test_C8_D2_an_old_plan_of_which_nothing_arrived_is_made_anew_under_ids_of_its_own() -> None:
    """The gateway stood still with the batch; then the leader died. Nothing may leave under the
    ids of that batch any more."""
    with closing(hourly()) as session, quiet_points():

        def die(name: str) -> None:
            if name == "execution: before submit":
                raise Crash(name)

        points.listen(die)
        with pytest.raises(Crash):
            session.lead()
        points.listen(None)
        session.clock.advance(95)
        session.lead()
        spent, completed = session.letters()
        assert (spent.cycle, spent.stage) == (NOON, CycleStage.DROPPED)
        assert spent.reason.startswith(SPENT)
        assert completed.stage is CycleStage.DONE
        assert completed.reason == f"completes 12:00:00 UTC: {spent.reason}"
        assert completed.basis is not None
        assert completed.basis.at >= NOON + timedelta(seconds=95)
        assert opened(session) == set(MARKS)
        assert session.exchange.ruled_out
        assert not session.exchange.ruled_out & set(session.exchange.accepted_ids())
        session.exchange.require_exactly_once()
        inputs = read_inputs(spent)
        assert inputs is not None
        assert decide(inputs).plan.legs == tuple(record.leg for record in spent.legs)
        report = replay_cycle(Journal(completed, None, None), _NobodyAsks(), "")
        assert report.verdict is Verdict.SAME


def test_O2_a_session_that_is_to_end_completes_nothing() -> None:
    with closing(hourly()) as session, quiet_points():
        interrupt(session, 400)
        session.clock.at(
            NOON + timedelta(seconds=300), lambda: session.registry.stop(EndState.PROTECTED)
        )
        session.lead()
        assert opened(session) < set(MARKS)
        assert [letter.cycle for letter in session.letters()] == [NOON]


def test_the_next_boundary_comes_as_ever_after_a_completion() -> None:
    with closing(hourly(cycles=2)) as session, quiet_points():
        interrupt(session, 400)
        session.lead()
        cycles = [letter.cycle for letter in session.letters()]
        assert cycles[0] == NOON
        assert cycles[-1] == NOON + HOUR
        assert [letter.number for letter in session.letters()] == [1, 1, 2]


def test_nothing_is_left_to_complete_where_the_account_is_as_wanted_by_now() -> None:
    with closing(hourly()) as session, quiet_points():
        interrupt(session, 400)

        def somebody_opens_the_rest() -> None:
            for symbol in MARKS:
                if session.exchange.held(symbol) == 0:
                    session.exchange.hold(symbol, Decimal(1000) / session.exchange.marks[symbol])

        session.clock.at(NOON + timedelta(seconds=399), somebody_opens_the_rest)
        session.spec = replace(session.spec, threshold=Decimal("0.05"))
        session.lead()
        assert [letter.cycle for letter in session.letters()] == [NOON]
