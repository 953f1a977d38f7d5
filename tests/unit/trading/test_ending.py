"""A session that is told to end does, whatever it is doing and whatever else goes wrong."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import pytest

from module import points
from module.model.errors import Unavailable
from module.model.sessions import EndState, SessionState
from tests.fakes.crashes import Crash
from tests.fakes.exchange import Lost
from tests.unit.trading.leading import FIRST_BOUNDARY, FIVE_MINUTES, Session
from trading.rebalance.order_info import OrderInfo
from trading.rebalancing_main import Exit

AWAY_S: Final = 40
LEADERS_MAX: Final = 4
SECOND: Final = FIRST_BOUNDARY + FIVE_MINUTES
ENDS_WITHIN_S: Final = 15
"""World seconds from the owner's word to the end of a session that nothing hinders."""


@pytest.fixture
def session() -> Iterator[Session]:
    with closing(Session()) as found:
        yield found


def terminate(session: Session, end_state: EndState) -> None:
    """What the owner's word does: the row, and a signal to the leader."""
    session.registry.stop(end_state)
    session.control.say(signal.SIGUSR1)


def lead_to_the_end(session: Session) -> list[str]:
    """Leaders, one after another as the host starts them, until the session is over; how they
    ended."""
    ends: list[str] = []
    while session.registry.row.state is not SessionState.ENDED:
        assert len(ends) < LEADERS_MAX, (ends, session.registry.states)
        session.control.hand_over = False
        try:
            ends.append(session.lead().name)
        except Crash:
            session.crashes.forgive()
            ends.append("died")
        session.clock.advance(2)
    return ends


# --- a strategy that hangs ---


def hang_in(session: Session, cycle: datetime, then: Callable[[], None]) -> None:
    """The strategy process never answers in that cycle; `then` happens five seconds later."""

    def answer(asked: OrderInfo) -> OrderInfo | None:
        if asked.cycle != cycle:
            return session.plan(asked)
        session.clock.after(5, then)
        return None

    session.strategy.answer = answer


@pytest.mark.parametrize("end_state", list(EndState))
def test_O2_a_strategy_that_hangs_keeps_no_session_from_ending(
    session: Session, end_state: EndState
) -> None:
    hang_in(session, SECOND, lambda: terminate(session, end_state))
    assert session.lead() is Exit.OVER
    assert session.clock.now() < SECOND + timedelta(seconds=5 + ENDS_WITHIN_S)
    assert bool(session.exchange.snapshot().positions) is (end_state is EndState.PROTECTED)
    assert session.registry.row.state is SessionState.ENDED
    assert session.stages()[:2] == ["done", "skipped"]
    assert session.registry.cycles[SECOND].reason.startswith("stopping")
    assert not session.strategy.lives
    assert session.alerts.kinds() == ["system-started", "system-stopped"]


def test_D16_a_strategy_that_hangs_keeps_no_leader_from_handing_over(session: Session) -> None:
    hang_in(session, FIRST_BOUNDARY, lambda: session.control.say(signal.SIGTERM))
    assert session.lead() is Exit.HANDED_OVER
    assert session.clock.now() < FIRST_BOUNDARY + timedelta(seconds=10)
    assert not session.strategy.lives
    session.strategy.answer = session.plan
    session.control.hand_over = False
    session.lead()
    assert session.stages() == ["done"] * 3  # the cycle was planned anew by the next leader


def test_a_strategy_that_answers_while_its_session_ends_is_heard(session: Session) -> None:
    """What its plan reduces is traded, nothing opens."""
    session.exchange.hold("SOLUSDT", "3")

    def answer(asked: OrderInfo) -> OrderInfo:
        terminate(session, EndState.PROTECTED)
        return session.plan(asked)

    session.spec = replace(session.spec, adopt_existing=True)
    session.strategy.answer = answer
    assert session.lead() is Exit.OVER
    assert session.exchange.snapshot().positions == ()
    assert [order.symbol for order in session.exchange.ledger] == ["SOLUSDT"]


def test_a_long_wait_for_the_strategy_does_not_stop_the_heart(session: Session) -> None:
    hang_in(session, FIRST_BOUNDARY, lambda: None)
    session.lead()
    waited = FIRST_BOUNDARY + timedelta(seconds=120)
    beats = [at for at in session.registry.beats if FIRST_BOUNDARY < at <= waited]
    assert len(beats) >= 10


# --- at every point, whatever else happens ---


@contextmanager
def at_point(session: Session, name: str, action: Callable[[], None]) -> Iterator[None]:
    """`action` runs once, when the named point is reached from the second cycle on."""
    armed = [True]

    def listen(reached: str) -> None:
        if armed[0] and reached == name and session.clock.now() >= SECOND:
            armed[0] = False
            action()

    points.listen(listen)
    try:
        yield
    finally:
        points.listen(None)


def troubled() -> Session:
    """A session whose second cycle closes, turns round and opens."""
    session = Session()

    def answer(asked: OrderInfo) -> OrderInfo:
        session.weights = {"BTCUSDT": "0.3", "ETHUSDT": "-0.2", "XRPUSDT": "0.1"}
        if asked.cycle >= SECOND:
            session.weights = {"BTCUSDT": "-0.2", "ETHUSDT": "-0.3", "SOLUSDT": "0.2"}
        return session.plan(asked)

    session.strategy.answer = answer
    return session


def points_of_a_session() -> list[str]:
    """Every named point of one that is told to end flat, each once."""
    seen: dict[str, None] = {}
    with closing(troubled()) as session:
        ends_at = SECOND + timedelta(seconds=61)
        session.clock.at(ends_at, lambda: terminate(session, EndState.FLAT))
        points.listen(lambda name: seen.update({name: None}))
        try:
            session.lead()
        finally:
            points.listen(None)
    return list(seen)


def nothing_else(session: Session) -> None:
    """The owner's word alone."""


def gateway_away(session: Session) -> None:
    """Nobody answers: nothing is sent."""
    session.exchange.down = Unavailable("the gateway does not answer; nothing was sent")
    session.clock.after(AWAY_S, lambda: setattr(session.exchange, "down", None))


def exchange_away(session: Session) -> None:
    """The next batch is taken in part, its answer lost; then nobody answers."""
    session.exchange.script["submit"].append(Lost(accepted=1))
    gateway_away(session)


def hand_over_twice(session: Session) -> None:
    """SIGTERM, SIGTERM."""
    for _ in range(2):
        session.control.say(signal.SIGTERM)


def death(session: Session) -> None:
    """SIGKILL: the owner's word is obeyed by a leader that recovers."""
    raise Crash("killed")


def death_while_the_gateway_is_away(session: Session) -> None:
    """Both at once."""
    gateway_away(session)
    raise Crash("killed")


TROUBLES: Final = (
    nothing_else,
    gateway_away,
    exchange_away,
    hand_over_twice,
    death,
    death_while_the_gateway_is_away,
)


@pytest.mark.parametrize("end_state", list(EndState))
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__)
def test_D16_O2_a_session_ends_as_asked_from_every_point(
    trouble: Callable[[Session], None], end_state: EndState
) -> None:
    for name in points_of_a_session():
        with closing(troubled()) as session:
            told_at: list[datetime] = []

            def told() -> None:
                told_at.append(session.clock.now())  # noqa: B023
                terminate(session, end_state)
                trouble(session)

            with at_point(session, name, told):
                ends = lead_to_the_end(session)
            where = (name, ends, session.registry.states[-1])
            if end_state is EndState.FLAT:
                assert session.exchange.snapshot().positions == (), where
            session.exchange.require_exactly_once()
            if not told_at:
                continue  # points of closing all, in a session that is to stay protected
            if trouble in (nothing_else, hand_over_twice, death):
                assert session.clock.now() - told_at[0] < timedelta(seconds=2 * ENDS_WITHIN_S), (
                    where
                )


@pytest.mark.parametrize("trouble", TROUBLES[:4], ids=lambda trouble: trouble.__name__)
def test_D16_O2_a_session_that_is_ended_while_a_leader_recovers_ends(
    trouble: Callable[[Session], None],
) -> None:
    for dies_at in ("execution: letter saved", "execution: after submit"):
        for found_at in ("leader: before recovery", "execution: letter to be saved"):
            with closing(troubled()) as session:
                with at_point(session, dies_at, partial(death, session)), pytest.raises(Crash):
                    session.lead()
                session.clock.advance(2)

                def told() -> None:
                    terminate(session, EndState.FLAT)
                    trouble(session)

                with at_point(session, found_at, told):
                    ends = lead_to_the_end(session)
                assert session.exchange.snapshot().positions == (), (dies_at, found_at, ends)
                session.exchange.require_exactly_once()


def test_O3_twenty_words_to_end_are_one(session: Session) -> None:
    def often() -> None:
        for number in range(20):
            session.clock.after(number / 10, lambda: terminate(session, EndState.FLAT))

    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=61), often)
    assert session.lead() is Exit.OVER
    assert session.exchange.snapshot().positions == ()
    closes = [order for order in session.exchange.ledger if order.reduce_only]
    assert len(closes) == 2
    assert session.alerts.kinds().count("system-stopped") == 1
