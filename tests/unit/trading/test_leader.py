"""The leader's loop in virtual time: cycles, failures, endings, recovery, take-over."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, PositionMode, SymbolSettings
from module.model.errors import Conflict, OutcomeUnknown, RateLimited, StaleWriter, Unavailable
from module.model.orders import OrderRequest
from module.model.sessions import EndState, SessionState
from tests.fakes.crashes import Crash
from tests.fakes.exchange import Fails, Refuses
from tests.unit.trading.leading import FIRST_BOUNDARY, FIVE_MINUTES, Session, make_spec
from trading.rebalance.order_info import CycleStage, OrderInfo, from_json, to_json
from trading.rebalancing_main import STRATEGY_FAILURES_MAX, Exit


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


# --- cycles ---


def test_a_session_trades_at_each_boundary_and_ends_protected(session: Session) -> None:
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done", "done", "done"]
    assert sorted(session.registry.cycles) == [FIRST_BOUNDARY + FIVE_MINUTES * n for n in range(3)]
    assert [session.registry.cycles[b].number for b in sorted(session.registry.cycles)] == [1, 2, 3]
    assert session.exchange.held("BTCUSDT") == Decimal("0.0499")
    assert session.exchange.held("ETHUSDT") == Decimal("-0.67")
    assert [state for state, _ in session.registry.states] == [
        SessionState.RUNNING,
        SessionState.STOPPING,
        SessionState.ENDED,
    ]
    assert session.registry.row.initial_balance == Decimal(10_007)
    assert session.alerts.kinds() == ["system-started", "system-stopped"]
    assert session.registry.beats
    session.exchange.require_exactly_once()


def test_the_last_cycles_book_is_held_until_its_end(session: Session) -> None:
    session.lead()
    assert session.clock.now() >= FIRST_BOUNDARY + FIVE_MINUTES * 3


def test_the_journal_has_what_the_cycle_was_made_of(session: Session) -> None:
    session.lead()
    record = session.registry.cycles[FIRST_BOUNDARY]
    letter = session.letters()[0]
    assert record.order_info == to_json(letter)
    assert record.digest == letter.plan_digest
    assert record.targets == {"BTCUSDT": {"weight": "0.3"}, "ETHUSDT": {"weight": "-0.2"}}
    assert record.own_ms is not None


def test_a_session_trades_what_the_strategy_newly_wants(session: Session) -> None:
    wants = iter([{"BTCUSDT": "0.3"}, {"BTCUSDT": "-0.3"}, {"SOLUSDT": "0.1"}])

    def answer(asked: OrderInfo) -> OrderInfo:
        session.weights = next(wants)
        return session.plan(asked)

    session.strategy.answer = answer
    session.lead()
    held = {s: session.exchange.held(s) for s in ("BTCUSDT", "SOLUSDT")}
    assert held["BTCUSDT"] == 0
    assert held["SOLUSDT"] > 0
    session.exchange.require_exactly_once()


# --- endings ---


def test_trading_hours_over_ends_as_the_session_was_told() -> None:
    spec = make_spec(
        cycles_max=None, ends_at=FIRST_BOUNDARY + timedelta(minutes=7), on_end=EndState.FLAT
    )
    with opened(Session(spec)) as session:
        assert session.lead() is Exit.OVER
        assert session.clock.now() >= spec.ends_at
        assert session.stages()[:2] == ["done", "done"]
        assert session.exchange.snapshot().positions == ()
        assert session.registry.row.state is SessionState.ENDED


@pytest.mark.parametrize("end_state", list(EndState))
def test_a_terminated_session_ends_at_once_as_its_owner_asked(
    session: Session, end_state: EndState
) -> None:
    def terminate() -> None:
        session.registry.stop(end_state)
        session.control.say(signal.SIGUSR1)

    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=61), terminate)
    assert session.lead() is Exit.OVER
    assert session.clock.now() < FIRST_BOUNDARY + timedelta(seconds=90)
    assert bool(session.exchange.snapshot().positions) is (end_state is EndState.PROTECTED)
    assert session.registry.row.state is SessionState.ENDED
    assert session.alerts.kinds()[-1] == "system-stopped"


def test_I21_going_flat_right_after_a_flip_uses_ids_of_its_own(session: Session) -> None:
    """A flip's close and the closing of what it opened may fall into one second."""
    session.exchange.hold("BTCUSDT", "-0.0300")
    session.spec = replace(session.spec, adopt_existing=True)
    session.weights = {"BTCUSDT": "0.3"}

    def terminate(orders: Sequence[OrderRequest]) -> None:
        if not orders[0].reduce_only:
            session.registry.stop(EndState.FLAT)
            session.control.say(signal.SIGUSR1)

    session.exchange.before_submit = terminate
    session.lead()
    assert session.exchange.snapshot().positions == ()
    assert session.registry.row.state is SessionState.ENDED
    session.exchange.require_exactly_once()


def test_I21_a_close_that_was_refused_is_tried_again_under_another_id(session: Session) -> None:
    def refuse() -> None:
        session.exchange.script["submit"].append(Refuses({"BTCUSDT": "45034", "ETHUSDT": "45034"}))
        session.registry.stop(EndState.FLAT)
        session.control.say(signal.SIGUSR1)

    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=61), refuse)
    session.lead()
    assert session.exchange.snapshot().positions == ()
    assert session.registry.row.state is SessionState.ENDED
    # each letter of the session is named by a number of its own, the closing ones too
    assert [letter.number for letter in session.letters()] == [1, 2, 3]
    assert session.registry.row.cycle == 3


def test_I21_an_account_that_cannot_be_made_flat_says_what_is_left(session: Session) -> None:
    def refuse() -> None:
        session.exchange.script["submit"].extend(
            [Refuses({"BTCUSDT": "45034"}), Refuses({"BTCUSDT": "45034"})] * 9
        )
        session.registry.stop(EndState.FLAT)
        session.control.say(signal.SIGUSR1)

    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=61), refuse)
    assert session.lead() is Exit.OVER
    state, reason = session.registry.states[-1]
    assert state is SessionState.FAILED
    assert "BTCUSDT 0.0499" in reason
    assert session.exchange.held("ETHUSDT") == 0
    assert session.alerts.kinds()[-1] == "error"


def test_a_hand_over_leaves_everything_to_the_next_leader(session: Session) -> None:
    session.clock.at(
        FIRST_BOUNDARY + timedelta(seconds=61), lambda: session.control.say(signal.SIGTERM)
    )
    assert session.lead() is Exit.HANDED_OVER
    assert session.registry.row.state is SessionState.RUNNING
    assert session.exchange.held("BTCUSDT") == Decimal("0.0499")
    assert not session.strategy.lives


def test_a_session_whose_owner_wanted_it_stopped_before_it_ran_never_trades(
    session: Session,
) -> None:
    session.registry.stop(EndState.FLAT)
    assert session.lead() is Exit.OVER
    assert session.exchange.ledger == []
    assert session.registry.row.state is SessionState.ENDED


# --- failures ---


def test_a_failing_strategy_alerts_each_time_and_a_success_forgives(session: Session) -> None:
    session.failing = 2
    session.lead()
    assert session.stages() == ["skipped", "skipped", "done"]
    assert session.alerts.kinds() == [
        "system-started",
        "cycle-skipped",
        "cycle-skipped",
        "system-stopped",
    ]
    reasons = [dict(alert.lines)["Reason"] for alert in session.alerts.sent[1:3]]
    assert all("line 3 of strategy.py" in reason for reason in reasons)


def test_G1_a_strategy_that_fails_five_times_fails_its_session() -> None:
    with opened(Session(make_spec(cycles_max=None))) as session:
        session.failing = 999
        assert session.lead() is Exit.OVER
        assert session.stages() == ["skipped"] * STRATEGY_FAILURES_MAX
        state, reason = session.registry.states[-1]
        assert state is SessionState.FAILED
        assert "line 3 of strategy.py" in reason
        assert session.alerts.kinds().count("cycle-skipped") == STRATEGY_FAILURES_MAX
        assert session.alerts.kinds()[-1] == "error"
        assert session.exchange.ledger == []


def test_failures_count_only_in_a_row() -> None:
    with opened(Session(make_spec(cycles_max=9))) as session:

        def answer(asked: OrderInfo) -> OrderInfo:
            session.failing = 1 if asked.number not in (4, 9) else 0
            return session.plan(asked)

        session.strategy.answer = answer
        assert session.lead() is Exit.OVER
        assert session.stages().count("skipped") == 7
        assert session.registry.row.state is SessionState.ENDED


def test_a_missing_bar_skips_the_cycle_and_is_not_the_strategys_fault() -> None:
    with opened(Session(make_spec(cycles_max=9))) as session:

        def answer(asked: OrderInfo) -> OrderInfo:
            return asked.changed(stage=CycleStage.SKIPPED, reason="no-bar: it did not come")

        session.strategy.answer = answer
        assert session.lead() is Exit.OVER
        assert session.stages() == ["skipped"] * 9
        assert session.registry.row.state is SessionState.ENDED


def test_a_strategy_process_that_dies_in_mid_cycle_is_replaced(session: Session) -> None:
    def answer(asked: OrderInfo) -> OrderInfo | None:
        if asked.cycle == FIRST_BOUNDARY:
            session.strategy.die()
            return None
        return session.plan(asked)

    session.strategy.answer = answer
    session.lead()
    assert session.stages() == ["skipped", "done", "done"]
    assert session.registry.cycles[FIRST_BOUNDARY].reason.startswith("strategy-gone")
    assert session.strategy.starts == 2


def test_a_strategy_process_that_says_nothing_is_replaced(session: Session) -> None:
    def answer(asked: OrderInfo) -> OrderInfo | None:
        return None if asked.cycle == FIRST_BOUNDARY else session.plan(asked)

    session.strategy.answer = answer
    session.lead()
    assert session.stages() == ["skipped", "done", "done"]
    assert session.strategy.starts == 2


def test_a_plan_for_another_cycle_is_never_traded(session: Session) -> None:
    """G6: a late result is discarded by its cycle."""

    def answer(asked: OrderInfo) -> OrderInfo:
        late = session.plan(asked)
        return replace(late, cycle=asked.cycle - FIVE_MINUTES)

    session.strategy.answer = answer
    session.lead()
    assert session.exchange.ledger == []
    assert session.stages() == ["skipped"] * 3


def test_a_strategy_process_that_does_not_confirm_is_replaced(session: Session) -> None:
    session.strategy.confirms = False
    session.lead()
    assert session.stages() == ["done"] * 3
    assert session.strategy.starts == 4


def test_children_that_end_between_cycles_are_started_again(session: Session) -> None:
    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=61), session.strategy.die)
    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=62), session.finwatcher.die)
    session.lead()
    assert session.stages() == ["done"] * 3
    assert (session.strategy.starts, session.finwatcher.starts) == (2, 2)


def test_children_are_waited_for_while_the_host_restarts(session: Session) -> None:
    def both() -> None:
        session.strategy.fails = 3
        session.strategy.die()

    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=61), both)
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3
    assert session.strategy.starts == 5
    assert len(session.clock.paused) == 3


def test_a_strategy_process_that_never_starts_fails_the_session(session: Session) -> None:
    session.strategy.fails = 999
    assert session.lead() is Exit.OVER
    assert session.registry.row.state is SessionState.FAILED
    assert session.strategy.starts < 50


@pytest.mark.parametrize("dies_later", [False, True])
def test_a_session_trades_on_without_finwatcher_and_says_so_once(
    session: Session, dies_later: bool
) -> None:
    def die() -> None:
        session.finwatcher.fails = 4
        session.finwatcher.die()

    if dies_later:
        session.clock.at(FIRST_BOUNDARY + timedelta(seconds=61), die)
    else:
        session.finwatcher.fails = 4
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3
    assert session.alerts.kinds().count("part-failed") == 1
    assert session.finwatcher.starts == (6 if dies_later else 5)
    assert session.finwatcher.lives


def test_a_critical_error_fails_the_session_with_an_alert(session: Session) -> None:
    session.exchange.modes["BTCUSDT"] = SymbolSettings("BTCUSDT", Decimal(20), MarginMode.CROSSED)
    assert session.lead() is Exit.OVER
    state, reason = session.registry.states[-1]
    assert state is SessionState.FAILED
    assert "apply_account_settings" in reason
    assert session.alerts.kinds()[-1] == "error"
    assert not session.strategy.lives


def test_a_failure_that_cannot_be_recorded_is_a_crash_for_the_host(session: Session) -> None:
    session.exchange.script["snapshot"].append(Fails(Conflict("the account is closed")))
    session.registry.fail_next("set_state", *[Unavailable("Postgres is down")] * 99)
    assert session.lead() is Exit.CRASHED
    assert session.alerts.kinds() == ["error"]


def test_what_the_account_held_before_is_refused_unless_adopted(session: Session) -> None:
    session.exchange.hold("XRPUSDT", "1007")
    assert session.lead() is Exit.OVER
    state, reason = session.registry.states[-1]
    assert state is SessionState.FAILED
    assert "XRPUSDT" in reason
    assert session.exchange.ledger == []


def test_A22_an_account_in_hedge_mode_is_refused_before_the_first_cycle(session: Session) -> None:
    session.exchange.position_mode = PositionMode.HEDGE
    assert session.lead() is Exit.OVER
    state, reason = session.registry.states[-1]
    assert state is SessionState.FAILED
    assert "set position mode to one-way" in reason
    assert session.stages() == []


def test_what_was_adopted_is_rebalanced_like_the_rest() -> None:
    with opened(Session(make_spec(adopt_existing=True))) as session:
        session.exchange.hold("XRPUSDT", "1007")
        session.lead()
        assert session.exchange.held("XRPUSDT") == 0


# --- Postgres away ---


def test_postgres_away_for_a_while_costs_no_cycle_and_no_journal(session: Session) -> None:
    session.registry.fail_next("heartbeat", *[Unavailable("down")] * 5)
    session.registry.fail_next("record_cycle", Unavailable("down"), OutcomeUnknown("COMMIT lost"))
    session.lead()
    assert session.stages() == ["done"] * 3


def test_a_start_waits_for_postgres(session: Session) -> None:
    for operation in ("take_epoch", "get", "set_initial_balance", "set_state"):
        session.registry.fail_next(operation, *[Unavailable("down")] * 3)
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3
    assert len(session.clock.paused) == 12


# --- the exchange away ---


def test_A14_a_start_waits_for_the_exchange_and_says_so_once(session: Session) -> None:
    session.exchange.script["snapshot"].extend([Fails(Unavailable("down for upkeep"))] * 9)
    assert session.lead() is Exit.OVER
    assert session.alerts.kinds().count("exchange-away") == 1
    assert session.registry.states[-1][0] is SessionState.ENDED
    assert "done" in session.stages()


def test_A14_a_short_outage_in_mid_cycle_is_outlasted_and_the_plan_carried_out(
    session: Session,
) -> None:
    session.exchange.script["instruments"].extend([Fails(Unavailable("502"))] * 4)
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3
    assert session.exchange.held("BTCUSDT") == Decimal("0.0499")
    assert session.alerts.kinds() == [
        "system-started",
        "exchange-away",
        "exchange-back",
        "system-stopped",
    ]
    session.exchange.require_exactly_once()


def test_A14_a_long_outage_drops_the_plan_by_age_and_the_next_cycle_is_fresh(
    session: Session,
) -> None:
    session.exchange.script["instruments"].extend([Fails(Unavailable("maintenance"))] * 25)
    assert session.lead() is Exit.OVER
    assert session.stages() == ["dropped", "dropped", "done"]
    assert session.exchange.held("BTCUSDT") == Decimal("0.0499")
    session.exchange.require_exactly_once()


def test_A14_a_second_outage_is_told_again(session: Session) -> None:
    def goes_away() -> None:
        session.exchange.script["instruments"].extend([Fails(Unavailable("down"))] * 2)

    goes_away()  # once while it warms up, once in the cycle
    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=100), goes_away)
    session.lead()
    assert session.alerts.kinds().count("exchange-away") == 2
    assert session.stages() == ["done"] * 3


def test_a_cycle_that_the_exchange_missed_is_not_the_strategys_fault(session: Session) -> None:
    answer = session.strategy.answer
    missed = iter(range(STRATEGY_FAILURES_MAX + 2))

    def away(asked: OrderInfo) -> OrderInfo:
        if next(missed, None) is None:
            made = answer(asked)
            assert made is not None
            return made
        return asked.changed(stage=CycleStage.SKIPPED, reason="away: the gateway does not answer")

    session.strategy.answer = away
    session.spec = replace(session.spec, cycles_max=STRATEGY_FAILURES_MAX + 4)
    assert session.lead() is Exit.OVER
    assert session.stages()[-1] == "done"
    assert session.alerts.kinds().count("exchange-away") == 1


def test_a_session_hands_over_while_the_exchange_is_away(session: Session) -> None:
    session.exchange.script["snapshot"].extend([Fails(RateLimited("full"))] * 999)
    session.clock.at(
        session.clock.now() + timedelta(seconds=90), lambda: session.control.say(signal.SIGTERM)
    )
    assert session.lead() is Exit.HANDED_OVER


def test_a_session_ends_protected_although_the_exchange_is_away(session: Session) -> None:
    def goes_away() -> None:
        session.registry.stop(EndState.PROTECTED)
        session.exchange.script["snapshot"].extend([Fails(Unavailable("gone"))] * 99)

    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=100), goes_away)
    assert session.lead() is Exit.OVER
    assert session.registry.states[-1][0] is SessionState.ENDED


# --- one writer ---


def test_I8_a_leader_that_was_replaced_ends_quietly(session: Session) -> None:
    def take_over() -> None:
        session.registry.epoch += 1
        session.exchange.epoch = session.registry.epoch

    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=61), take_over)
    assert session.lead() is Exit.OVER
    assert session.registry.row.state is SessionState.RUNNING
    assert session.alerts.kinds() == ["system-started"]
    assert len(session.letters()) == 1


def test_I8_a_leader_that_is_replaced_in_mid_cycle_sends_nothing_more(session: Session) -> None:
    def take_over(_orders: Sequence[OrderRequest]) -> None:
        session.exchange.epoch = 9

    session.exchange.before_submit = take_over
    assert session.lead() is Exit.OVER
    assert session.exchange.ledger == []
    assert session.alerts.kinds() == ["system-started"]


def test_I8_the_letter_of_a_newer_leader_is_never_overwritten(session: Session) -> None:
    def take_over() -> None:
        newer = {**session.store.last, "epoch": 7, "revision": 0}
        session.store.write(newer, 7, 0)

    session.clock.at(FIRST_BOUNDARY + timedelta(seconds=61), take_over)
    assert session.lead() is Exit.OVER
    assert session.store.last["epoch"] == 7
    with pytest.raises(StaleWriter):
        session.store.write({**session.store.last, "epoch": 6}, 6, 0)


# --- recovery ---


def crash_in_cycle(session: Session, name: str, times: int = 1) -> None:
    """The leader dies when it reaches the point `name` for the `times`-th time."""
    with opened(Session(session.spec)) as rehearsal:
        rehearsal.lead()
        places = [i for i, found in enumerate(rehearsal.crashes.reached, 1) if found == name]
    session.crashes.die_at = places[times - 1]
    with pytest.raises(Crash):
        session.lead()
    session.crashes.forgive()


def test_D3_a_fresh_interrupted_cycle_is_finished_by_the_next_leader(session: Session) -> None:
    crash_in_cycle(session, "exchange.submit: sent")
    assert len(session.exchange.ledger) == 2
    session.clock.advance(20)
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3
    assert session.registry.row.cycle == 3
    assert session.registry.epoch == 2
    session.exchange.require_exactly_once()
    assert session.alerts.kinds() == ["system-started", "system-stopped"]


def test_an_old_interrupted_cycle_is_settled_and_dropped(session: Session) -> None:
    crash_in_cycle(session, "exchange.submit: called")
    session.clock.advance(200)
    session.exchange.before_submit = None
    before = session.clock.now()
    session.lead()
    dropped = session.registry.cycles[FIRST_BOUNDARY]
    assert dropped.state == "dropped"
    assert "old when it was found" in dropped.reason
    assert session.stages() == ["dropped", "done", "done"]
    assert all(record.leg.size for record in from_json(session.store.last).legs)
    assert before < FIRST_BOUNDARY + FIVE_MINUTES


def die_while_asking(session: Session) -> None:
    """The leader dies while the strategy process makes the first plan."""

    def answer(asked: OrderInfo) -> OrderInfo:
        session.crashes.die_at = len(session.crashes.reached) + 1
        return session.plan(asked)

    session.strategy.answer = answer
    with pytest.raises(Crash):
        session.lead()
    session.crashes.forgive()
    session.strategy.answer = session.plan
    assert from_json(session.store.last).stage is CycleStage.REQUESTED


def test_D2_a_fresh_cycle_that_was_only_requested_is_planned_by_the_next_leader(
    session: Session,
) -> None:
    die_while_asking(session)
    session.lead()
    assert session.stages() == ["done"] * 3
    assert [letter.number for letter in session.letters()] == [1, 2, 3]
    session.exchange.require_exactly_once()


def test_D2_an_old_cycle_that_was_only_requested_is_dropped_without_a_trade(
    session: Session,
) -> None:
    die_while_asking(session)
    session.clock.advance(200)
    session.lead()
    assert FIRST_BOUNDARY not in {letter.cycle for letter in session.letters()}
    assert session.registry.row.state is SessionState.ENDED


def test_a_leader_that_starts_again_says_hello_only_once(session: Session) -> None:
    crash_in_cycle(session, "exchange.submit: called", 1)
    session.lead()
    assert session.alerts.kinds().count("system-started") == 1
    assert session.registry.row.initial_balance == Decimal(10_007)


def test_a_stop_wanted_while_nobody_led_is_obeyed_by_the_next_leader(session: Session) -> None:
    crash_in_cycle(session, "exchange.submit: sent")
    session.registry.stop(EndState.FLAT)
    session.lead()
    assert session.exchange.snapshot().positions == ()
    assert session.registry.row.state is SessionState.ENDED
    session.exchange.require_exactly_once()


def test_cycles_that_postgres_missed_are_stored_by_the_next_leader(session: Session) -> None:
    session.registry.fail_next("record_cycle", *[Unavailable("down")] * 2)
    session.clock.at(
        FIRST_BOUNDARY + timedelta(seconds=61), lambda: session.control.say(signal.SIGTERM)
    )
    session.lead()
    assert session.registry.cycles == {}
    session.registry.fails.clear()
    session.lead()
    assert sorted(session.registry.cycles)[0] == FIRST_BOUNDARY
    assert session.registry.cycles[FIRST_BOUNDARY].state == "done"


def test_an_archived_cycle_that_cannot_be_read_stops_nobody(session: Session) -> None:
    session.store.archive_box.append({"version": 1, "cycle": "2026-11-21T11:00:00Z"})
    assert session.lead() is Exit.OVER
    assert session.stages() == ["done"] * 3


@pytest.mark.parametrize("wait_s", [5, 200, 4000])
def test_D2_a_leader_that_dies_anywhere_is_followed_by_one_that_converges(wait_s: int) -> None:
    for point in range(1, 400, 1 if wait_s == 5 else 5):
        with opened(Session()) as session:
            session.exchange.fee_rate = Decimal(0)
            session.crashes.die_at = point
            try:
                session.lead()
            except Crash:
                session.crashes.forgive()
            else:
                break
            session.clock.advance(wait_s)
            session.spec = replace(session.spec, cycles_max=session.registry.row.cycle + 3)
            assert session.lead() is Exit.OVER
            assert session.registry.row.state is SessionState.ENDED, session.registry.states
            assert session.exchange.held("BTCUSDT") == Decimal("0.0499")
            assert session.exchange.held("ETHUSDT") == Decimal("-0.67")
            session.exchange.require_exactly_once()
    else:
        pytest.fail("the sweep never ran through")
