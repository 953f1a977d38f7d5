"""Starting is recovering: the account is compared with the letters before anything is traded."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest

from module import points
from module.model.errors import Unavailable
from module.model.orders import FillCause, OrderRequest, Side
from module.model.sessions import EndState, SessionState, client_id_prefix, installation_prefix
from tests.fakes.crashes import Crash
from tests.fakes.exchange import MARKS, Fails, FillsPart
from tests.unit.trading.leading import FIRST_BOUNDARY, FIVE_MINUTES, Session, make_spec
from trading.execution.reconcile import CORRECTIONS_MAX
from trading.rebalance.order_info import OrderInfo
from trading.rebalancing_main import PLANS_MAX, Exit

LATER = {"BTCUSDT": "0.2", "ETHUSDT": "-0.2", "SOLUSDT": "0.2"}


@pytest.fixture
def session() -> Iterator[Session]:
    with opened(Session()) as found:
        yield found


@contextmanager
def opened(session: Session) -> Iterator[Session]:
    try:
        yield session
    finally:
        session.close()


def long_session(cycles: int) -> Session:
    return Session(make_spec(cycles_max=cycles))


def between(cycle: int) -> datetime:
    """A minute after the cycle with this number."""
    return FIRST_BOUNDARY + FIVE_MINUTES * (cycle - 1) + timedelta(seconds=61)


def kinds(letter: OrderInfo) -> list[str]:
    return [found.kind for found in letter.noted]


# --- while a leader lives ---


def test_A28_a_trade_by_hand_is_recorded_told_once_and_traded_back(session: Session) -> None:
    session.clock.at(between(1), lambda: session.exchange.outside("BTCUSDT", "-0.0200"))
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3
    assert [kinds(letter) for letter in session.letters()] == [[], ["manual_trade"], []]
    (noted,) = session.letters()[1].noted
    assert (noted.expected, noted.actual) == (Decimal("0.0499"), Decimal("0.0299"))
    assert session.alerts.kinds().count("account-changed") == 1
    assert session.exchange.held("BTCUSDT") == Decimal("0.0499")


def test_A28_who_keeps_changing_a_position_is_not_fought_for_ever() -> None:
    with opened(long_session(CORRECTIONS_MAX + 4)) as session:
        for cycle in range(1, CORRECTIONS_MAX + 4):
            session.clock.at(between(cycle), lambda: session.exchange.close_by_hand("BTCUSDT"))
        session.lead()
        bought = [o for o in session.exchange.ledger if o.symbol == "BTCUSDT" and not o.reduce_only]
        assert len(bought) == 1 + CORRECTIONS_MAX
        assert session.exchange.held("BTCUSDT") == 0
        assert "changed from outside" in str(session.letters()[-1].leg("BTCUSDT-open").abandoned)
        assert session.exchange.held("ETHUSDT") < 0  # the others are traded on
        assert session.registry.row.state is SessionState.ENDED


@pytest.mark.parametrize(
    ("cause", "left", "kind"),
    [
        (FillCause.LIQUIDATION, "0", "liquidation"),
        (FillCause.LIQUIDATION, "0.0200", "partial_liquidation"),
        (FillCause.ADL, "0.0200", "adl"),
    ],
)
def test_B11_B12_a_forced_close_is_classified_and_alerted(
    session: Session, cause: FillCause, left: str, kind: str
) -> None:
    def force() -> None:
        held = session.exchange.held("BTCUSDT")
        session.exchange.outside("BTCUSDT", str(Decimal(left) - held), cause)

    session.clock.at(between(1), force)
    session.lead()
    assert kinds(session.letters()[1]) == [kind]
    alerts = [alert for alert in session.alerts.sent if alert.kind == "account-changed"]
    assert [alert.severity for alert in alerts] == ["critical"]


def test_B13_a_difference_that_nothing_explains_stops_the_session_protected(
    session: Session,
) -> None:
    def vanish() -> None:
        session.exchange.hold("BTCUSDT", "0.0200")

    session.clock.at(between(1), vanish)
    sent = len(session.exchange.ledger)
    assert session.lead() is Exit.OVER
    state, reason = session.registry.states[-1]
    assert state is SessionState.FAILED
    assert "BTCUSDT is 0.02, by the letters 0.0499" in reason
    assert len(session.exchange.ledger) == sent + 2  # the first cycle's, nothing after
    assert session.alerts.kinds()[-2:] == ["account-changed", "error"]


@pytest.mark.parametrize(("size", "kind"), [("0.0498", "one_lot"), ("0.0492", "small")])
def test_B13_a_small_difference_is_recorded_and_nobody_is_woken(
    session: Session, size: str, kind: str
) -> None:
    session.clock.at(between(1), lambda: session.exchange.hold("BTCUSDT", size))
    assert session.lead() is Exit.OVER
    assert kinds(session.letters()[1]) == [kind]
    assert "account-changed" not in session.alerts.kinds()
    assert session.stages() == ["done"] * 3


def test_evidence_that_is_published_late_is_waited_for(session: Session) -> None:
    def trade_by_hand() -> None:
        session.exchange.fills_hidden_until = FIRST_BOUNDARY + FIVE_MINUTES + timedelta(seconds=2)
        session.exchange.outside("BTCUSDT", "-0.0200")

    session.clock.at(between(1), trade_by_hand)
    session.lead()
    assert kinds(session.letters()[1]) == ["manual_trade"]
    assert session.registry.row.state is SessionState.ENDED


def test_an_account_as_expected_is_asked_for_no_evidence(session: Session) -> None:
    session.lead()
    assert not {"fills", "closed_positions"} & set(session.exchange.calls)


# --- plans that may not be traded any more ---


def test_A15_an_outage_between_plan_and_order_makes_a_new_plan_of_the_new_account(
    session: Session,
) -> None:
    hits = iter([True])

    def away(_orders: Sequence[OrderRequest]) -> None:
        if next(hits, False):
            session.exchange.outside("BTCUSDT", "0.0100")
            session.exchange.script["snapshot"].extend([Fails(Unavailable("maintenance"))] * 5)
            raise Unavailable("maintenance; nothing was sent")

    session.exchange.before_submit = away
    session.lead()
    assert session.exchange.held("BTCUSDT") == Decimal("0.0499")
    first = session.letters()[0]
    assert first.stage.value == "done"
    assert first.leg("BTCUSDT-open").leg.size == Decimal("0.0399")
    assert len(session.strategy.asked) == 4  # the first cycle was planned twice
    session.exchange.require_exactly_once()


def test_A15_a_plan_that_is_always_stale_is_dropped_after_a_few_tries(session: Session) -> None:
    def slow(asked: OrderInfo) -> OrderInfo:
        planned = session.plan(asked)
        session.clock.advance(31)
        return planned

    session.strategy.answer = slow
    session.lead()
    assert set(session.stages()) == {"dropped"}
    assert session.exchange.ledger == []
    assert 3 <= len(session.strategy.asked) <= 3 * PLANS_MAX


def test_D10_D20_a_letter_that_cannot_be_saved_for_a_moment_is_saved_a_little_later(
    session: Session,
) -> None:
    def fails() -> None:
        session.store.fails_next = Unavailable("order_info.txt.lock is held by another process")

    session.clock.at(between(1), fails)
    session.lead()
    assert session.stages() == ["done"] * 3
    assert session.clock.paused == [1.0]


def test_D20_a_disk_that_stays_broken_ends_the_session_and_nothing_is_sent(
    session: Session,
) -> None:
    session.store.broken = Unavailable("order_info.txt could not be saved: Input/output error")
    assert session.lead() is Exit.OVER
    state, reason = session.registry.states[-1]
    assert state is SessionState.FAILED
    assert "Input/output error" in reason
    assert session.exchange.ledger == []


def test_D21_a_cycle_that_cannot_be_archived_is_archived_later(session: Session) -> None:
    session.store.archive_broken = Unavailable("archive: the disk is full")

    def make_room() -> None:
        session.store.archive_broken = None

    session.clock.at(between(2), make_room)
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3
    assert session.registry.states[-1][0] is SessionState.ENDED
    assert session.clock.paused == []


# --- at the start ---


def crash_after_first_cycle(session: Session) -> None:
    session.clock.at(between(1), session.crashes.die_next)
    with pytest.raises(Crash):
        session.lead()
    session.crashes.forgive()


def test_A29_open_orders_of_an_earlier_run_are_canceled_before_trading(session: Session) -> None:
    old = client_id_prefix("test-house", "2611200000-zzzz") + "old"
    guard = installation_prefix("test-house") + "guard-7"
    for client_id in (old, guard, "by-hand"):
        session.exchange.rest(OrderRequest(client_id, "SOLUSDT", Side.BUY, Decimal(1), False))
    assert session.lead() is Exit.OVER
    assert session.exchange.canceled == [old]
    first_cancel = session.exchange.calls.index("cancel")
    assert first_cancel < session.exchange.calls.index("submit")
    told = [alert for alert in session.alerts.sent if alert.kind == "account-changed"]
    assert [[label for label, _ in alert.lines[2:]] for alert in told] == [
        ["leftover order", "foreign order", "What Now"]
    ]


def test_what_happened_while_nobody_led_is_told_once_however_often_it_starts(
    session: Session,
) -> None:
    crash_after_first_cycle(session)
    session.exchange.outside("BTCUSDT", "-0.0200")
    for _ in range(3):
        session.clock.after(1, lambda: session.control.say(signal.SIGTERM))
        assert session.lead() is Exit.HANDED_OVER
        session.control.hand_over = False
    session.lead()
    assert session.alerts.kinds().count("account-changed") == 1
    assert kinds(session.letters()[1])[0] == "manual_trade"
    assert session.letters()[1].corrections == {"BTCUSDT": 1}
    assert session.exchange.held("BTCUSDT") == Decimal("0.0499")


def test_A27_an_unexplained_account_at_the_start_stops_before_it_trades(session: Session) -> None:
    crash_after_first_cycle(session)
    session.exchange.hold("ETHUSDT", "3")
    sent = len(session.exchange.ledger)
    assert session.lead() is Exit.OVER
    assert session.registry.states[-1][0] is SessionState.FAILED
    assert len(session.exchange.ledger) == sent


def test_B4_an_order_that_is_forgotten_while_nobody_led_is_over_as_its_fills_say(
    session: Session,
) -> None:
    """It was cancelled by the exchange with a part of it filled, and the leader died right then."""
    session.exchange.taken = True
    session.exchange.script["submit"].append(FillsPart("BTCUSDT", Decimal("0.0123")))
    assert die_at_point(session, "execution: after submit", 1)
    (lost,) = (o for o in session.exchange.ledger if o.symbol == "BTCUSDT")
    session.exchange.lose_sight(lost.client_id)
    session.clock.advance(3 * 3600)
    assert session.lead() is Exit.OVER
    part = session.letters()[0].leg("BTCUSDT-open").slices[0]
    assert (part.filled_size, part.code) == (Decimal("0.0123"), "forgotten")
    assert session.alerts.kinds().count("order-forgotten") == 1
    assert "account-changed" not in session.alerts.kinds()
    assert session.exchange.held("BTCUSDT") == Decimal("0.0499")  # the next cycles trade the rest


def named_points(session: Session) -> list[str]:
    """The program's own points that a whole session reaches, in order."""
    reached: list[str] = []
    points.listen(reached.append)
    try:
        session.lead()
    finally:
        points.listen(None)
    return reached


def die_at_point(session: Session, name: str, nth: int) -> bool:
    """Lead until the point `name` is reached for the nth time; whether it was."""
    seen = 0

    def listen(reached: str) -> None:
        nonlocal seen
        seen += reached == name
        if seen == nth and reached == name:
            raise Crash(name)

    points.listen(listen)
    try:
        session.lead()
    except Crash:
        return True
    finally:
        points.listen(None)
    return False


def rehearse() -> list[tuple[str, int]]:
    with opened(Session()) as session:
        reached = named_points(session)
    counts = Counter(reached)
    return [(name, nth) for name in counts for nth in sorted({1, 2, counts[name]})]


def test_D2_D3_a_leader_that_dies_at_any_named_point_costs_no_order_and_no_journal() -> None:
    tried = 0
    for name, nth in rehearse():
        with opened(Session()) as session:
            session.exchange.fee_rate = Decimal(0)
            if not die_at_point(session, name, nth):
                continue
            tried += 1
            session.clock.advance(5)
            assert session.lead() is Exit.OVER, (name, nth)
            assert session.registry.row.state is SessionState.ENDED, (name, nth)
            numbers = [letter.number for letter in session.letters()]
            assert numbers == [1, 2, 3], (name, nth, numbers)
            assert session.stages() == ["done"] * 3, (name, nth)
            assert session.exchange.held("BTCUSDT") == Decimal("0.0499")
            session.exchange.require_exactly_once()
    assert tried > 20


def test_D17_a_leader_that_dies_at_every_start_trades_nothing_twice() -> None:
    with opened(Session()) as session:
        assert die_at_point(session, "execution: after submit", 1)
        for _ in range(20):
            session.clock.advance(2)
            assert die_at_point(session, "leader: before recovery", 1)
        session.lead()
        assert session.registry.row.state is SessionState.ENDED
        session.exchange.require_exactly_once()
        assert session.alerts.kinds().count("system-started") == 1


def test_D2_a_plan_that_was_thrown_away_is_made_anew_by_the_next_leader(
    session: Session,
) -> None:
    """The leader dies between the drop of a stale plan and its request for another one."""

    def stand_still(asked: OrderInfo) -> OrderInfo:
        planned = session.plan(asked)
        if len(session.strategy.asked) == 1:
            session.clock.current += timedelta(seconds=40)
        return planned

    session.strategy.answer = stand_still

    def listen(reached: str) -> None:
        dropped = bool(session.store.written) and session.store.last["stage"] == "dropped"
        if dropped and reached == "leader: letter to be saved":
            raise Crash(reached)

    points.listen(listen)
    try:
        with pytest.raises(Crash):
            session.lead()
    finally:
        points.listen(None)
    assert session.exchange.ledger == []
    session.lead()
    assert session.stages() == ["done"] * 3
    assert session.letters()[0].cycle == FIRST_BOUNDARY


@pytest.mark.parametrize("point", ["leader: strategy answered", "leader: letter saved"])
def test_B11_D2_a_liquidation_right_before_a_leader_dies_is_classified_by_the_next(
    session: Session, point: str
) -> None:
    """The plan was made after it, so that the account is as the plan says: only what the letters
    before lead to shows it."""

    def force() -> None:
        held = session.exchange.held("BTCUSDT")
        session.exchange.outside("BTCUSDT", str(-held), FillCause.LIQUIDATION)

    session.clock.at(between(1), force)
    seen = 0

    def listen(reached: str) -> None:
        nonlocal seen
        planned = bool(session.store.written) and session.store.last["stage"] == "planned"
        seen += reached == point and planned and session.store.last["number"] == 2
        if seen and reached == point:
            raise Crash(reached)

    points.listen(listen)
    try:
        with pytest.raises(Crash):
            session.lead()
    finally:
        points.listen(None)
    session.lead()
    assert [kinds(letter) for letter in session.letters()] == [[], ["liquidation"], []]
    assert session.letters()[1].corrections == {"BTCUSDT": 1}
    severities = [a.severity for a in session.alerts.sent if a.kind == "account-changed"]
    assert severities == ["critical"]


def test_B13_D17_a_leader_that_dies_after_it_recorded_the_unexplained_still_stops_the_session(
    session: Session,
) -> None:
    session.clock.at(between(1), lambda: session.exchange.hold("BTCUSDT", "0.0200"))

    def listen(reached: str) -> None:
        noted = bool(session.store.written) and session.store.last["noted"]
        if noted and reached == "leader: letter saved":
            raise Crash(reached)

    points.listen(listen)
    try:
        with pytest.raises(Crash):
            session.lead()
    finally:
        points.listen(None)
    sent = len(session.exchange.ledger)
    assert session.lead() is Exit.OVER
    assert session.registry.row.state is SessionState.FAILED
    assert len(session.exchange.ledger) == sent


@pytest.mark.parametrize("nth", [1, 2])
def test_A28_D2_a_trade_by_hand_during_an_interrupted_cycle_is_told_and_counted_once(
    nth: int,
) -> None:
    with opened(Session()) as session:
        session.weights = {**session.weights, "SOLUSDT": "0.1"}
        assert die_at_point(session, "execution: after submit", 1)
        session.exchange.outside("ETHUSDT", "0.5")
        for _ in range(nth - 1):
            assert die_at_point(session, "leader: before recovery", 1)
        assert session.lead() is Exit.OVER
        told = [a for a in session.alerts.sent if a.kind == "account-changed"]
        found = [kind for letter in session.letters() for kind in kinds(letter)]
        assert found == ["manual_trade"]
        assert len(told) == 1
        assert session.letters()[-1].corrections == {"ETHUSDT": 1}
        assert session.stages() == ["done"] * 3


HAPPENED = {
    "liquidated": ("-1", FillCause.LIQUIDATION),
    "adl halved it": ("-0.5", FillCause.ADL),
    "closed by hand": ("-1", FillCause.ORDER),
    "grown by hand": ("0.5", FillCause.ORDER),
    "flipped by hand": ("-1.5", FillCause.ORDER),
}
INTERRUPTED_AT = (
    ("leader: letter saved", 2),
    ("leader: strategy answered", 2),
    ("execution: letter saved", 5),
    ("execution: before submit", 2),
    ("execution: after submit", 2),
)


@pytest.mark.parametrize("what", list(HAPPENED))
def test_A28_B11_B12_D2_what_happens_while_a_cycle_is_interrupted_is_found_and_settled(
    what: str,
) -> None:
    """In every state of the second cycle: nothing is traded twice, the change is told, and the
    account is at its targets in the end, on the side that they say."""
    share, cause = HAPPENED[what]
    for point, nth in INTERRUPTED_AT:
        with opened(long_session(3)) as session:
            session.weights = {"BTCUSDT": "0.3", "ETHUSDT": "-0.2", "SOLUSDT": "0.1"}
            session.clock.at(between(1), partial(session.__setattr__, "weights", LATER))
            assert die_at_point(session, point, nth), point
            held = session.exchange.held("ETHUSDT")
            session.exchange.outside("ETHUSDT", str(round(held * Decimal(share), 2)), cause)
            session.clock.advance(3)
            assert session.lead() is Exit.OVER, point
            assert session.registry.row.state is SessionState.ENDED, point
            session.exchange.require_exactly_once()
            found = {kind for letter in session.letters() for kind in kinds(letter)}
            assert len(found) == 1, (point, found)
            assert session.alerts.kinds().count("account-changed") == 1, point
            assert session.letters()[-1].corrections == {"ETHUSDT": 1}, point
            for symbol, weight in LATER.items():
                value = session.exchange.held(symbol) * MARKS[symbol]
                off = abs(value - Decimal(weight) * session.exchange.wallet)
                assert off < Decimal("0.011") * session.exchange.wallet, (point, symbol, value)


def test_A29_a_leftover_order_whose_cancel_fails_is_canceled_before_trading_all_the_same(
    session: Session,
) -> None:
    old = client_id_prefix("test-house", "2611200000-zzzz") + "old"
    session.exchange.rest(OrderRequest(old, "SOLUSDT", Side.BUY, Decimal(1), False))
    away = Fails(Unavailable("502"))
    session.exchange.script["cancel"].extend([away] * 5)
    assert session.lead() is Exit.OVER
    assert session.exchange.canceled == [old]
    calls = session.exchange.calls
    assert len(calls) - calls[::-1].index("cancel") < calls.index("submit") + 1
    assert session.alerts.kinds().count("account-changed") == 1


def test_A29_I21_a_session_that_leaves_flat_leaves_no_order_behind(session: Session) -> None:
    old = client_id_prefix("test-house", "2611200000-zzzz") + "late"

    def terminate() -> None:
        for client_id in (old, "by-hand"):
            session.exchange.rest(OrderRequest(client_id, "SOLUSDT", Side.BUY, Decimal(1), False))
        session.registry.stop(EndState.FLAT)
        session.control.say(signal.SIGUSR1)

    session.clock.at(between(1), terminate)
    assert session.lead() is Exit.OVER
    assert session.exchange.canceled == [old]
    assert session.exchange.snapshot().positions == ()


# --- ending ---


@pytest.mark.parametrize("dies_at", range(1, 40, 3))
def test_D16_a_close_all_that_was_killed_is_finished_by_the_next_leader(dies_at: int) -> None:
    with opened(Session()) as session:

        def terminate() -> None:
            session.registry.stop(EndState.FLAT)
            session.control.say(signal.SIGUSR1)
            session.crashes.die_at = len(session.crashes.reached) + dies_at

        session.clock.at(between(1), terminate)
        try:
            session.lead()
        except Crash:
            session.crashes.forgive()
            assert session.lead() is Exit.OVER
        session.crashes.forgive()
        assert session.exchange.snapshot().positions == ()
        assert session.registry.row.state is SessionState.ENDED
        numbers = {letter.cycle: letter.number for letter in session.letters()}
        assert sorted(numbers.values()) == list(range(1, len(numbers) + 1))
        session.exchange.require_exactly_once()


def test_D16_told_to_hand_over_twice_while_closing_it_still_closes(session: Session) -> None:
    def terminate() -> None:
        session.registry.stop(EndState.FLAT)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            session.control.say(number)

    session.clock.at(between(1), terminate)
    session.lead()
    if session.registry.row.state is not SessionState.ENDED:
        session.control.hand_over = False
        session.lead()
    assert session.exchange.snapshot().positions == ()
    assert session.registry.row.state is SessionState.ENDED


@pytest.mark.parametrize("end_state", list(EndState))
def test_O2_a_stop_while_a_phase_leaves_opens_nothing_more_and_ends_as_asked(
    end_state: EndState,
) -> None:
    with opened(Session()) as session:
        session.weights = dict.fromkeys(MARKS, "0.1")

        def stop(_orders: Sequence[OrderRequest]) -> None:
            session.registry.stop(end_state)
            session.control.say(signal.SIGUSR1)

        session.exchange.before_submit = stop
        session.lead()
        opened_symbols = {o.symbol for o in session.exchange.ledger if not o.reduce_only}
        assert len(opened_symbols) == 5
        held = session.exchange.snapshot().positions
        assert (len(held) == 5) is (end_state is EndState.PROTECTED)
        assert session.registry.row.state is SessionState.ENDED


def test_a_hand_over_while_a_phase_leaves_is_finished_by_the_next_leader(
    session: Session,
) -> None:
    session.weights = dict.fromkeys(MARKS, "0.1")

    def hand_over(_orders: Sequence[OrderRequest]) -> None:
        session.control.say(signal.SIGTERM)
        session.exchange.before_submit = None

    session.exchange.before_submit = hand_over
    assert session.lead() is Exit.HANDED_OVER
    assert len(session.exchange.ledger) == 5
    session.control.hand_over = False
    session.spec = replace(session.spec, cycles_max=1)
    session.lead()
    assert len(session.exchange.snapshot().positions) == len(MARKS)
    assert [letter.number for letter in session.letters()] == [1]
    session.exchange.require_exactly_once()


def test_O3_protected_then_flat_ends_flat(session: Session) -> None:
    def first() -> None:
        session.registry.stop(EndState.PROTECTED)
        session.registry.stop(EndState.FLAT)
        session.control.say(signal.SIGUSR1)

    session.clock.at(between(1), first)
    session.lead()
    assert session.exchange.snapshot().positions == ()


def test_the_plan_that_is_archived_is_the_plan_that_was_made(session: Session) -> None:
    """What execution had to change stands beside it: the digest is the first letter's."""
    made: list[str] = []

    def answer(asked: OrderInfo) -> OrderInfo:
        planned = session.plan(asked)
        made.append(planned.plan_digest)
        session.exchange.wallet -= Decimal(2_500)
        return planned

    session.strategy.answer = answer
    session.spec = replace(session.spec, cycles_max=1)
    session.weights = {"BTCUSDT": "0.5", "SOLUSDT": "0.45"}
    session.lead()
    (letter,) = session.letters()
    assert letter.plan_digest == made[0]
    assert all(record.sized is not None for record in letter.legs)
    assert all(record.size < record.leg.size for record in letter.legs)
