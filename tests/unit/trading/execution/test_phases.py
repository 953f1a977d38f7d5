"""How a phase leaves: back to back, no wait for fills; an unknown order freezes its symbol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest

from module.model.accounts import MarginMode, PositionMode, SymbolSettings
from module.model.errors import Conflict, InvariantViolated, NotFound, OutcomeUnknown, TooLate
from module.model.orders import OrderRequest
from tests.fakes.exchange import Edits, Fails, FillsPart, Late, Lost, Refuses
from tests.unit.trading.execution.desk import Desk, wanted
from tests.unit.trading.execution.test_auto_trade import SEVEN, THREE, passed_through, states
from trading.execution.auto_trade import BATCH_MAX, auto_trade
from trading.execution.freshness import FIRST_ORDER_AGE_MAX_S, OPENING_AGE_MAX_S, is_stale
from trading.execution.scribe import SEND_WINDOW_S
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import CycleStage, from_json

LEVERAGE_9 = SymbolSettings("BTCUSDT", Decimal(9), MarginMode.ISOLATED)


def test_batches_of_one_phase_follow_each_other_without_a_look_or_a_wait() -> None:
    desk = Desk()
    moments = []
    desk.exchange.before_submit = lambda _orders: moments.append(desk.clock.now())
    desk.trade(wanted(SEVEN))
    first = desk.exchange.calls.index("submit")
    last = len(desk.exchange.calls) - 1 - desk.exchange.calls[::-1].index("submit")
    assert set(desk.exchange.calls[first : last + 1]) == {"submit"}
    assert len(moments) == 2
    assert len(set(moments)) == 1


def test_a_batch_costs_one_durable_write_before_it_leaves() -> None:
    desk = Desk()
    written = []
    desk.exchange.before_submit = lambda _orders: written.append(len(desk.store.written))
    desk.trade(wanted(SEVEN))
    assert written[1] - written[0] == 1


def turning_book() -> Desk:
    """Everything that is held is closed or turned round."""
    desk = Desk()
    for symbol, size in (("XRPUSDT", "1007"), ("SOLUSDT", "-3"), ("ETHUSDT", "0.31")):
        desk.exchange.hold(symbol, size)
    return desk


def test_openings_follow_a_look_at_the_account_and_ends_are_booked_afterwards() -> None:
    desk = turning_book()
    done = desk.trade(wanted({"BTCUSDT": "0.3", "ETHUSDT": "-0.2"}))
    sent = [index for index, call in enumerate(desk.exchange.calls) if call == "submit"]
    assert desk.exchange.calls[sent[0] + 1 : sent[1]] == ["snapshot"]
    assert set(states(done).values()) == {LegState.FILLED}
    for record in done.legs:
        assert record.filled_size == record.leg.size
        assert record.slices[0].average_price is not None


def test_a_close_that_the_account_does_not_show_is_asked_for_before_anything_opens() -> None:
    desk = turning_book()
    desk.exchange.script["submit"].append(FillsPart("ETHUSDT", Decimal("0.11")))
    done = desk.trade(wanted({"BTCUSDT": "0.3", "ETHUSDT": "-0.2"}))
    sent = [index for index, call in enumerate(desk.exchange.calls) if call == "submit"]
    assert "order" in desk.exchange.calls[sent[0] : sent[1]]
    assert set(states(done).values()) == {LegState.FILLED}
    kinds = [order.reduce_only for order in desk.exchange.ledger]
    assert kinds == sorted(kinds, reverse=True)
    assert desk.exchange.held("ETHUSDT") == Decimal("-0.67")


# --- I5: an order that nobody has seen ---


def test_I5_an_unknown_order_freezes_its_symbol_and_the_others_go_on() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    desk.exchange.hold("ETHUSDT", "0.31")
    began = desk.clock.now()
    desk.exchange.script["submit"].append(Lost(accepted=1))  # ETH's close; XRP's is unknown
    opened: list[float] = []

    def look(orders: Sequence[OrderRequest]) -> None:
        if not orders[0].reduce_only:
            opened.append((desk.clock.now() - began).total_seconds())

    desk.exchange.before_submit = look
    done = desk.trade(wanted({"BTCUSDT": "0.3", "ETHUSDT": "-0.2", "XRPUSDT": "-0.05"}))
    assert opened[0] < 2
    assert desk.exchange.held("BTCUSDT") > 0
    assert states(done)["XRPUSDT-close"] is LegState.ABANDONED
    assert states(done)["XRPUSDT-open"] is LegState.ABANDONED
    assert desk.exchange.held("XRPUSDT") == Decimal(1007)
    assert done.stage is CycleStage.DONE


def test_I5_a_flip_whose_close_is_found_late_opens_after_all() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    desk.exchange.script["submit"].append(Lost())
    desk.exchange.index_lag_s = 8.0
    done = desk.trade(wanted({"XRPUSDT": "-0.05"}))
    assert set(states(done).values()) == {LegState.FILLED}
    assert desk.exchange.held("XRPUSDT") < 0
    desk.exchange.require_exactly_once()


def test_I5_stops_do_not_wait_for_an_unknown_order() -> None:
    desk = Desk()
    desk.exchange.presets_lost = True
    desk.exchange.hold("XRPUSDT", "1007")
    desk.exchange.script["submit"].append(Lost(accepted=0))
    began = desk.clock.now()
    desk.trade(wanted({"BTCUSDT": "0.3"}, {"BTCUSDT": ("55000", None)}))
    assert (desk.exchange.stops_at[0] - began).total_seconds() < 2
    proven_s = SEND_WINDOW_S + desk.exchange.takes_late_s
    assert (desk.clock.now() - began).total_seconds() > proven_s


def test_A3_an_order_that_arrives_late_is_adopted_and_never_sent_again() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Lost(accepted=0))

    def hold_back(orders: Sequence[OrderRequest]) -> None:
        for order in orders:
            desk.clock.after(8, partial(desk.exchange.arrive, order))

    desk.exchange.before_submit = hold_back
    done = desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert states(done) == {"BTCUSDT-open": LegState.FILLED}
    assert len(desk.exchange.batches) == 1
    desk.exchange.require_exactly_once()


# --- what is refused, canceled, executed ---


def test_A18_a_refused_opening_sizes_what_has_not_left_anew_once() -> None:
    desk = Desk()

    def debit(orders: Sequence[OrderRequest]) -> None:
        desk.exchange.wallet -= Decimal(4_000)
        desk.exchange.before_submit = None

    desk.exchange.before_submit = debit
    done = desk.trade(wanted(SEVEN))
    late = [record for record in done.legs if record.leg.symbol in ("SOLUSDT", "XRPUSDT")]
    assert all(record.sized is None or record.size < record.leg.size for record in late)
    assert desk.exchange.snapshot().available >= 0
    assert any(part.code == "40762" for record in done.legs for part in record.slices)
    assert from_json(desk.store.last).plan_digest == done.plan_digest


def test_A20_a_symbol_that_is_suspended_is_given_up_and_the_others_go_on() -> None:
    desk = Desk()
    for symbol in ("XRPUSDT", "SOLUSDT"):
        desk.exchange.hold(symbol, "100")
    desk.exchange.script["submit"].append(Refuses({"XRPUSDT": "40309"}))
    done = desk.trade(wanted({"BTCUSDT": "0.1"}))
    assert states(done)["XRPUSDT-close"] is LegState.ABANDONED
    assert desk.exchange.held("SOLUSDT") == 0
    assert desk.exchange.held("BTCUSDT") > 0


def test_A30_a_cancel_whose_answer_is_lost_while_the_order_fills_is_a_fill() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(FillsPart("SOLUSDT", Decimal("6.3"), rests=True))
    desk.exchange.before_cancel = desk.exchange.fill_rest
    desk.exchange.script["cancel"].append(Fails(OutcomeUnknown("the answer was lost")))
    done = desk.trade(wanted({"SOLUSDT": "0.25"}))
    record = done.leg("SOLUSDT-open")
    assert record.state is LegState.FILLED
    assert record.filled_size == record.leg.size == desk.exchange.held("SOLUSDT")
    assert desk.exchange.canceled == []


def test_A31_a_cancel_of_an_order_that_is_gone_is_asked_for_not_believed() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(FillsPart("SOLUSDT", Decimal("6.3"), rests=True))
    desk.exchange.script["submit"].append(Refuses({"SOLUSDT": "40762"}))
    desk.exchange.script["cancel"].append(Fails(NotFound("43001")))
    done = desk.trade(wanted({"SOLUSDT": "0.25"}))
    assert done.leg("SOLUSDT-open").filled_size == Decimal("6.3")
    assert done.stage is CycleStage.DONE


def test_B3_an_order_that_is_executed_beyond_its_size_halts_the_session() -> None:
    desk = Desk()
    desk.exchange.overfills = Decimal("1.5")
    with pytest.raises(InvariantViolated, match="was executed of"):
        desk.trade(wanted({"BTCUSDT": "0.3"}))


def test_B10_a_leader_that_comes_back_protects_before_it_trades() -> None:
    desk = Desk()
    desk.exchange.hold("BTCUSDT", "0.0100")
    letter = desk.planned(wanted(THREE, {"BTCUSDT": ("55000", None)}))
    desk.store.write({**desk.store.last, "stage": "trading"}, letter.epoch, letter.revision)
    desk.exchange.calls.clear()
    desk.resume()
    first_write = next(c for c in desk.exchange.calls if c in ("set_stops", "submit"))
    assert first_write == "set_stops"
    assert desk.exchange.stops_of("BTCUSDT").stop_loss == Decimal("55000.0")


def test_B12_a_position_that_was_halved_since_the_plan_is_not_added_to() -> None:
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "10")
    desk.exchange.hold("XRPUSDT", "1007")

    def halve(orders: Sequence[OrderRequest]) -> None:
        desk.exchange.hold("SOLUSDT", "5")
        desk.exchange.before_submit = None

    desk.exchange.before_submit = halve
    done = desk.trade(wanted({"SOLUSDT": "0.25", "BTCUSDT": "0.1"}))
    assert desk.exchange.held("SOLUSDT") == Decimal(5)
    assert "is 5, by the letter 10" in (done.leg("SOLUSDT-open").abandoned or "")
    assert desk.exchange.held("BTCUSDT") > 0


# --- settings and modes before the first order ---


def test_A21_settings_are_verified_before_the_first_order_even_a_reducing_one() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    desk.exchange.modes["BTCUSDT"] = LEVERAGE_9
    with pytest.raises(Conflict, match="apply_account_settings"):
        desk.trade(wanted(THREE))
    assert desk.exchange.ledger == []
    assert desk.exchange.held("XRPUSDT") == Decimal(1007)


@pytest.mark.parametrize("error", [OutcomeUnknown("lost"), TooLate("nothing was sent")])
def test_A21_a_setting_whose_answer_is_lost_is_said_again_and_read_back(
    error: OutcomeUnknown | TooLate,
) -> None:
    desk = Desk(apply_account_settings=True)
    desk.exchange.modes["BTCUSDT"] = LEVERAGE_9
    desk.exchange.script["apply_symbol_settings"].append(Fails(error))
    done = desk.trade(wanted(THREE))
    assert set(states(done).values()) == {LegState.FILLED}
    assert desk.exchange.modes["BTCUSDT"].leverage == 1


def test_A22_nothing_opens_in_hedge_mode() -> None:
    desk = Desk()
    letter = desk.planned(wanted(THREE))
    desk.exchange.position_mode = PositionMode.HEDGE
    with pytest.raises(Conflict, match="hedge mode"):
        auto_trade(letter, desk.ports(), desk.rules())
    assert desk.exchange.ledger == []


# --- the age of a plan ---


def test_A15_a_plan_whose_snapshot_is_old_is_thrown_away_before_its_first_order() -> None:
    desk = Desk()
    letter = desk.planned(wanted(THREE))
    desk.clock.advance(FIRST_ORDER_AGE_MAX_S + 1)
    done = auto_trade(letter, desk.ports(), desk.rules())
    assert is_stale(done)
    assert done.stage is CycleStage.DROPPED
    assert desk.exchange.ledger == []
    assert from_json(desk.store.last).reason == done.reason


def test_A15_a_plan_whose_positions_changed_is_thrown_away_before_its_first_order() -> None:
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "10")
    letter = desk.planned(wanted(THREE))
    desk.clock.advance(5)
    desk.exchange.hold("SOLUSDT", "7")
    done = auto_trade(letter, desk.ports(), desk.rules())
    assert is_stale(done)
    assert "SOLUSDT is 7, by the letter 10" in done.reason
    assert desk.exchange.ledger == []


def test_C8_a_plan_that_grew_old_between_two_batches_opens_nothing_more() -> None:
    desk = Desk()

    def stand_still(orders: Sequence[OrderRequest]) -> None:
        desk.exchange.before_submit = lambda _orders: None

    desk.exchange.before_submit = stand_still

    def pause(results: list[object]) -> list[object]:
        desk.clock.advance(OPENING_AGE_MAX_S + 1)
        return results

    desk.exchange.script["submit"].append(Edits(pause))  # type: ignore[arg-type]
    done = desk.trade(wanted(SEVEN))
    assert len(desk.exchange.ledger) == BATCH_MAX
    assert "old" in (done.leg("XRPUSDT-open").abandoned or "")


@pytest.mark.parametrize("held", ["0", "10"])
def test_C8_a_plan_that_grew_old_right_before_its_first_order_is_made_anew(held: str) -> None:
    """The leader stood still after the plan was judged: in either phase nothing leaves, and the
    cycle is planned again instead of being lost."""
    desk = Desk()
    desk.exchange.hold("XRPUSDT", held)
    letter = desk.planned(wanted(THREE))
    desk.exchange.script["symbol_settings"].append(Late(90))
    done = auto_trade(letter, desk.ports(), desk.rules())
    assert desk.exchange.ledger == []
    assert is_stale(done)
    assert from_json(desk.store.last) == done


@pytest.mark.parametrize("held", ["0", "10"])
def test_C7_C8_a_process_that_stood_still_while_the_clock_was_set_back_sends_nothing_old(
    held: str,
) -> None:
    """By the clock the deadline is still to come; by real time it is long over."""
    desk = Desk()
    desk.exchange.hold("XRPUSDT", held)
    letter = desk.planned(wanted(THREE))
    real_s = 0.0
    desk.clock.monotonic = lambda: real_s  # type: ignore[method-assign]

    def stand_still(document: Mapping[str, object], epoch: int, revision: int) -> None:
        nonlocal real_s
        write(document, epoch, revision)
        if "sent" in str(document["legs"]) and not real_s:
            real_s = 90.0
            desk.clock.current -= timedelta(seconds=210)

    write = desk.store.write
    desk.store.write = stand_still  # type: ignore[method-assign]
    done = auto_trade(letter, desk.ports(), desk.rules())
    assert desk.exchange.ledger == []
    assert is_stale(done)
    assert "set back" in done.reason


def test_C7_a_clock_that_is_set_back_between_two_batches_opens_nothing_more() -> None:
    desk = Desk()

    def set_back(results: list[object]) -> list[object]:
        desk.clock.current -= timedelta(seconds=300)
        return results

    desk.exchange.script["submit"].append(Edits(set_back))  # type: ignore[arg-type]
    done = desk.trade(wanted(SEVEN))
    assert len(desk.exchange.ledger) == BATCH_MAX
    assert "set back" in (done.leg("XRPUSDT-open").abandoned or "")


def test_C8_what_did_not_leave_does_not_make_an_old_plan_a_begun_one() -> None:
    desk = Desk()

    def too_late(_orders: Sequence[OrderRequest]) -> None:
        desk.clock.advance(FIRST_ORDER_AGE_MAX_S + 1)
        raise TooLate("nothing was sent")

    desk.exchange.before_submit = too_late
    done = desk.trade(wanted(THREE))
    assert desk.exchange.ledger == []
    assert is_stale(done)


def test_frozen_symbols_open_nothing_and_still_close() -> None:
    desk = Desk(frozen={"BTCUSDT": "changed from outside", "XRPUSDT": "changed from outside"})
    desk.exchange.hold("XRPUSDT", "1007")
    done = desk.trade(wanted(THREE))
    assert done.leg("BTCUSDT-open").abandoned == "changed from outside"
    assert desk.exchange.held("BTCUSDT") == 0
    assert desk.exchange.held("XRPUSDT") == 0
    assert desk.exchange.held("SOLUSDT") > 0


# --- the account opens nothing at all ---


@pytest.mark.parametrize("code", ["kill-switch", "halted", "clock-skew"])
def test_I22_a_gate_that_opens_nothing_is_asked_once_and_reductions_go_on(code: str) -> None:
    desk = Desk()
    desk.exchange.hold("DOGEUSDT", "5000")
    refused = Refuses(dict.fromkeys(SEVEN, code))
    desk.exchange.script["submit"].extend([FillsPart("none", Decimal(0)), refused, refused])
    done = desk.trade(wanted({name: w for name, w in SEVEN.items() if name != "DOGEUSDT"}))
    assert [len(batch) for batch in desk.exchange.batches] == [1, BATCH_MAX]
    assert desk.exchange.held("DOGEUSDT") == 0
    assert {order.symbol for order in desk.exchange.ledger} == {"DOGEUSDT"}
    assert done.stage is CycleStage.DONE
    assert all(record.is_over for record in done.legs)


def test_a_slice_that_did_not_leave_is_over_with_its_leg() -> None:
    desk = Desk()
    desk.stopping = False

    def stop(_orders: Sequence[OrderRequest]) -> None:
        desk.stopping = True

    desk.exchange.before_submit = stop
    desk.exchange.script["submit"].append(Fails(TooLate("nothing was sent")))
    done = desk.trade(wanted(THREE))
    assert desk.exchange.ledger == []
    assert all(record.is_over for record in done.legs)
    assert passed_through(desk, "BTCUSDT-open")[-1] is LegState.ABANDONED
    assert [part.state for part in done.leg("BTCUSDT-open").slices] == [LegState.ABANDONED]
