"""A plan is carried out: durable before sent, in order, in batches, sized by what is free."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, SymbolSettings
from module.model.errors import (
    Conflict,
    InvariantViolated,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    StaleWriter,
    Unavailable,
)
from module.model.orders import (
    NOT_SENT,
    RULED_OUT,
    OrderRequest,
    Outcome,
    StopPrices,
    SubmitResult,
)
from tests.fakes.exchange import (
    Edits,
    Fails,
    FillsPart,
    Late,
    Lost,
    Refuses,
    ShowsCanceled,
    make_instrument,
)
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.auto_trade import BATCH_MAX, auto_trade, is_stale
from trading.execution.evidence import WITHOUT_RECORD_S
from trading.execution.scribe import SEND_WINDOW_S
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import CycleStage, OrderInfo, from_json

THREE = {"BTCUSDT": "0.3", "ETHUSDT": "-0.2", "SOLUSDT": "0.25"}
SEVEN = {
    "ADAUSDT": "0.1",
    "BTCUSDT": "0.11",
    "DOGEUSDT": "-0.12",
    "ETHUSDT": "0.13",
    "LINKUSDT": "-0.14",
    "SOLUSDT": "0.15",
    "XRPUSDT": "0.16",
}


def states(info: OrderInfo) -> dict[str, LegState]:
    return {record.leg.leg_id: record.state for record in info.legs}


def passed_through(desk: Desk, leg_id: str) -> list[LegState]:
    """The states that the leg was durably in, in order."""
    found: list[LegState] = []
    for document in desk.store.written:
        for record in from_json(document).legs:
            if record.leg.leg_id == leg_id and (not found or found[-1] is not record.state):
                found.append(record.state)
    return found


def client_ids(info: OrderInfo, symbol: str) -> list[str]:
    return [
        part.client_id
        for record in info.legs
        if record.leg.symbol == symbol
        for part in record.slices
    ]


def test_a_plan_is_carried_out_and_the_letter_says_so() -> None:
    desk = Desk()
    done = desk.trade(wanted(THREE))
    assert done.stage is CycleStage.DONE
    assert set(states(done).values()) == {LegState.FILLED}
    assert desk.exchange.held("BTCUSDT") == Decimal("0.0499")
    assert desk.exchange.held("ETHUSDT") == Decimal("-0.67")
    assert desk.exchange.held("SOLUSDT") == Decimal("16.5")
    record = done.leg("BTCUSDT-open")
    assert record.current is not None
    assert record.current.average_price == Decimal("60123.4")
    assert record.current.fee == -Decimal("0.0499") * Decimal("60123.4") * Decimal("0.0006")
    assert from_json(desk.store.last) == done
    assert desk.trade(wanted(THREE)).legs == ()


def test_I3_every_order_is_durable_as_sent_before_it_is_sent() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    looks: list[int] = []

    def look(orders: Sequence[OrderRequest]) -> None:
        letter = from_json(desk.store.last)
        slices = {part.client_id: part for record in letter.legs for part in record.slices}
        for order in orders:
            assert slices[order.client_id].state is LegState.SENT
            assert slices[order.client_id].size == order.size
            assert slices[order.client_id].not_after is not None
        looks.append(len(orders))

    desk.exchange.before_submit = look
    desk.trade(wanted(THREE))
    assert looks == [1, 3]


def test_nothing_is_sent_when_the_letter_cannot_be_saved() -> None:
    desk = Desk()
    letter = desk.planned(wanted(THREE))
    desk.store.fails_next = Unavailable("the disk is full")
    with pytest.raises(Unavailable):
        desk.resume()
    assert desk.exchange.ledger == []
    assert letter.stage is CycleStage.PLANNED


def test_orders_leave_five_at_a_time() -> None:
    desk = Desk()
    desk.trade(wanted(SEVEN))
    assert [len(batch) for batch in desk.exchange.batches] == [BATCH_MAX, 2]


def test_reducing_orders_are_over_before_anything_opens() -> None:
    desk = Desk()
    for symbol in SEVEN:
        desk.exchange.hold(symbol, make_instrument(symbol).size_step * 40)
    desk.exchange.wallet = Decimal(30_000)
    desk.trade(wanted({"ADAUSDT": "0.3", "BTCUSDT": "-0.2"}))
    kinds = [order.reduce_only for order in desk.exchange.ledger]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds.count(True) == 6
    assert desk.exchange.held("BTCUSDT") < 0
    assert all(desk.exchange.held(s) == 0 for s in SEVEN if s not in ("ADAUSDT", "BTCUSDT"))


def test_every_write_carries_epoch_cycle_and_a_deadline() -> None:
    desk = Desk()
    done = desk.trade(wanted(THREE, {"BTCUSDT": ("55000", None)}))
    assert desk.exchange.stamps
    for stamp in desk.exchange.stamps:
        assert (stamp.epoch, stamp.cycle) == (3, done.cycle)
        assert stamp.not_after > done.cycle


def test_slices_are_cut_on_the_lot_and_follow_each_other() -> None:
    desk = Desk()
    desk.exchange.rules["SOLUSDT"] = make_instrument("SOLUSDT", market_size_max=Decimal("7.777"))
    done = desk.trade(wanted({"SOLUSDT": "0.25"}))
    assert [order.size for order in desk.exchange.ledger] == [
        Decimal("7.7"),
        Decimal("7.7"),
        Decimal("1.1"),
    ]
    assert len(set(client_ids(done, "SOLUSDT"))) == 3


# --- answers that are lost, late, shuffled, missing ---


def test_A1_timeout_after_accept_is_unknown_and_found_by_its_id() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Lost())
    done = desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert states(done) == {"BTCUSDT-open": LegState.FILLED}
    assert len(desk.exchange.ledger) == 1


def test_A2_a_batch_accepted_partly_then_dropped_is_resolved_leg_by_leg() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Lost(accepted=1))
    done = desk.trade(wanted(THREE, {"BTCUSDT": ("55000", None)}))
    assert states(done) == {
        "BTCUSDT-open": LegState.FILLED,
        "ETHUSDT-open": LegState.ABANDONED,
        "SOLUSDT-open": LegState.ABANDONED,
    }
    assert [order.symbol for order in desk.exchange.ledger] == ["BTCUSDT"]
    assert desk.exchange.stops_of("BTCUSDT").stop_loss == Decimal("55000.0")
    # the next cycle opens what is missing, under ids of its own
    desk.clock.advance(60)
    again = desk.trade(wanted(THREE, {"BTCUSDT": ("55000", None)}))
    assert states(again) == {"ETHUSDT-open": LegState.FILLED, "SOLUSDT-open": LegState.FILLED}
    desk.exchange.require_exactly_once()


def test_A2_absence_is_proven_only_after_the_deadline_and_two_looks() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Lost(accepted=0))
    began = desk.clock.now()
    done = desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert states(done) == {"BTCUSDT-open": LegState.ABANDONED}
    record = done.leg("BTCUSDT-open").current
    assert record is not None
    assert record.not_after is not None
    waited = desk.clock.now() - began
    assert waited > record.not_after - began
    assert desk.exchange.calls.count("order") > 2


def test_A9_one_late_absence_is_not_a_proof_the_second_look_may_find_it() -> None:
    desk = Desk()
    desk.exchange.index_lag_s = 16.3  # after the first look beyond the deadline
    desk.exchange.script["submit"].append(Lost())
    done = desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert states(done) == {"BTCUSDT-open": LegState.FILLED}
    assert len(desk.exchange.ledger) == 1


def test_A7_a_leg_that_no_result_names_is_unknown_until_found() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Edits(lambda results: results[1:]))
    done = desk.trade(wanted(THREE))
    assert LegState.UNKNOWN in passed_through(desk, "BTCUSDT-open")
    assert LegState.UNKNOWN not in passed_through(desk, "ETHUSDT-open")
    assert set(states(done).values()) == {LegState.FILLED}
    desk.exchange.require_exactly_once()


def test_A8_results_in_another_order_go_to_their_own_legs() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Edits(lambda results: results[::-1]))
    done = desk.trade(wanted(THREE))
    for record in done.legs:
        assert record.current is not None
        report = desk.exchange.order(record.leg.symbol, record.current.client_id)
        assert record.current.order_id == report.order_id


def test_A8_an_id_in_other_letters_is_not_that_id() -> None:
    def shout(results: list[SubmitResult]) -> list[SubmitResult]:
        return [
            SubmitResult(result.client_id.upper(), Outcome.REJECTED, None, "22002", "no")
            for result in results
        ]

    desk = Desk()
    desk.exchange.script["submit"].append(Edits(shout))
    done = desk.trade(wanted(THREE))
    assert set(states(done).values()) == {LegState.FILLED}
    assert all(LegState.UNKNOWN in passed_through(desk, leg_id) for leg_id in states(done))


def test_A9_not_found_for_three_seconds_then_found_is_sent_once() -> None:
    desk = Desk()
    desk.exchange.index_lag_s = 3.0
    desk.exchange.script["submit"].append(Lost())
    done = desk.trade(wanted(THREE))
    assert set(states(done).values()) == {LegState.FILLED}
    assert len(desk.exchange.ledger) == 3


def test_B4_one_look_that_shows_a_filled_order_as_canceled_is_no_proof() -> None:
    desk = Desk()
    desk.exchange.script["order"].append(ShowsCanceled())
    done = desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert states(done) == {"BTCUSDT-open": LegState.FILLED}
    assert done.leg("BTCUSDT-open").filled_size == desk.exchange.held("BTCUSDT")
    assert len(desk.exchange.ledger) == 1


def test_A10_a_failing_query_is_never_an_absence() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Lost())
    desk.exchange.script["order"].append(Fails(Unavailable("no name service")))
    with pytest.raises(Unavailable):
        desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert passed_through(desk, "BTCUSDT-open")[-1] is LegState.UNKNOWN
    done = desk.resume()
    assert states(done) == {"BTCUSDT-open": LegState.FILLED}
    assert len(desk.exchange.ledger) == 1


def test_A12_a_rate_limit_in_mid_phase_is_waited_for_and_the_same_ids_leave_again() -> None:
    desk = Desk()
    limit = Fails(RateLimited("the budget is used up; nothing was sent", retry_after_s=7))
    desk.exchange.script["submit"].extend([Late(0), limit])
    began = desk.clock.now()
    done = desk.trade(wanted(SEVEN))
    assert set(states(done).values()) == {LegState.FILLED}
    assert all(len(record.slices) == 1 for record in done.legs)
    assert LegState.PLANNED in passed_through(desk, "SOLUSDT-open")[1:]
    assert LegState.UNKNOWN not in passed_through(desk, "SOLUSDT-open")
    assert 7 <= (desk.clock.now() - began).total_seconds() < 9
    desk.exchange.require_exactly_once()


def test_A12_a_rate_limit_that_does_not_end_throws_the_plan_away_before_its_first_order() -> None:
    desk = Desk()
    limit = Fails(RateLimited("the budget is used up; nothing was sent", retry_after_s=25))
    desk.exchange.script["submit"].extend([limit] * 9)
    desk.exchange.hold("XRPUSDT", "1007")
    done = desk.trade(wanted({}))
    assert is_stale(done)
    assert set(states(done).values()) == {LegState.ABANDONED}
    assert desk.exchange.ledger == []
    desk.clock.advance(60)
    desk.exchange.script["submit"].clear()
    assert set(states(desk.trade(wanted({}))).values()) == {LegState.FILLED}


def test_A14_a_gateway_that_is_away_keeps_the_slices_and_they_leave_later_under_their_ids() -> None:
    desk = Desk()
    away = Fails(Unavailable("Postgres does not answer; nothing was sent"))
    desk.exchange.script["submit"].append(away)
    with pytest.raises(Unavailable):
        desk.trade(wanted(THREE))
    letter = from_json(desk.store.last)
    assert set(states(letter).values()) == {LegState.PLANNED}
    ids = {part.client_id for record in letter.legs for part in record.slices}
    done = desk.resume()
    assert set(states(done).values()) == {LegState.FILLED}
    assert set(desk.exchange.accepted_ids()) == ids


def test_A14_a_batch_whose_answer_was_lost_waits_for_its_proof_and_the_next_cycle() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Lost(accepted=0))
    done = desk.trade(wanted(THREE))
    assert done.stage is CycleStage.DONE
    assert set(states(done).values()) == {LegState.ABANDONED}
    assert desk.exchange.ledger == []
    desk.clock.advance(60)
    assert set(states(desk.trade(wanted(THREE))).values()) == {LegState.FILLED}


def test_A14_a_batch_that_never_left_by_the_gateways_record_leaves_at_once_under_new_ids() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Fails(OutcomeUnknown("HTTP 502")))
    began = desk.clock.now()
    done = desk.trade(wanted(THREE))
    assert set(states(done).values()) == {LegState.FILLED}
    assert (desk.clock.now() - began).total_seconds() < 1
    parts = [record.slices for record in done.legs]
    assert [[part.code for part in pair] for pair in parts] == [[RULED_OUT, None]] * 3
    assert {part.client_id for pair in parts for part in pair[:1]} == desk.exchange.ruled_out


def test_A14_what_never_leaves_twice_waits_for_the_next_cycle() -> None:
    desk = Desk()
    for _ in range(2):
        desk.exchange.script["submit"].append(Fails(OutcomeUnknown("HTTP 502")))
    done = desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert states(done) == {"BTCUSDT-open": LegState.ABANDONED}
    assert len(done.leg("BTCUSDT-open").slices) == 2


def test_an_order_that_the_record_calls_accepted_is_waited_for_not_given_up() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Lost())
    desk.exchange.index_lag_s = 70.0
    desk.exchange.taken = True
    done = desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert states(done) == {"BTCUSDT-open": LegState.FILLED}
    desk.exchange.require_exactly_once()


def test_while_the_gateway_cannot_say_how_far_an_order_came_absence_takes_longest() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Lost(accepted=0))
    away = Fails(Unavailable("records wait for Postgres"))
    desk.exchange.script["rule_out"].extend([away] * 400)
    began = desk.clock.now()
    done = desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert states(done) == {"BTCUSDT-open": LegState.ABANDONED}
    assert (desk.clock.now() - began).total_seconds() > SEND_WINDOW_S + WITHOUT_RECORD_S


def test_A12_one_order_of_a_batch_that_did_not_leave_follows_under_its_id() -> None:
    desk = Desk()

    def unsent(results: list[SubmitResult]) -> list[SubmitResult]:
        client_id = results[0].client_id
        desk.exchange.forget(client_id)
        return [SubmitResult(client_id, Outcome.REJECTED, None, NOT_SENT, "429"), *results[1:]]

    desk.exchange.script["submit"].append(Edits(unsent))
    done = desk.trade(wanted(THREE))
    assert set(states(done).values()) == {LegState.FILLED}
    assert [len(batch) for batch in desk.exchange.batches] == [3, 1]
    assert desk.exchange.batches[0][0].client_id == desk.exchange.batches[1][0].client_id


def test_C8_a_batch_that_comes_after_its_deadline_is_dropped_not_a_new_leader() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Late(90))
    done = desk.trade(wanted({"BTCUSDT": "0.3"}))
    assert states(done) == {"BTCUSDT-open": LegState.ABANDONED}
    assert desk.exchange.ledger == []


def test_I8_a_writer_of_an_older_epoch_stops_at_once() -> None:
    desk = Desk()
    desk.exchange.epoch = 9
    with pytest.raises(StaleWriter):
        desk.trade(wanted(THREE))
    assert desk.exchange.ledger == []
    assert len(desk.exchange.stamps) == 1


def test_I8_a_letter_that_a_newer_leader_wrote_stops_the_older_one() -> None:
    desk = Desk()
    letter = desk.planned(wanted(THREE))
    newer = {**desk.store.last, "epoch": 4, "revision": 0}
    desk.store.write(newer, 4, 0)
    with pytest.raises(StaleWriter):
        desk.trade(wanted(THREE))
    assert desk.exchange.ledger == []
    assert letter.epoch == 3


# --- refused, filled partly ---


def test_one_refused_leg_waits_for_the_next_cycle_and_the_others_go_on() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Refuses({"ETHUSDT": "40762"}))
    done = desk.trade(wanted(THREE))
    assert states(done) == {
        "BTCUSDT-open": LegState.FILLED,
        "ETHUSDT-open": LegState.ABANDONED,
        "SOLUSDT-open": LegState.FILLED,
    }
    record = done.leg("ETHUSDT-open").current
    assert record is not None
    assert (record.state, record.code) == (LegState.REJECTED, "40762")
    assert len(desk.exchange.batches) == 1


def rules_changed(desk: Desk, symbol: str, times: int = 1, **changes: object) -> None:
    """The next `times` batches find other rules of `symbol` than the plan was made by."""
    rules = {symbol: make_instrument(symbol, **changes)}
    desk.exchange.script["submit"].extend([Refuses({symbol: "22038"}, rules)] * times)


def test_A19_a_leg_that_new_rules_refuse_is_rounded_anew_for_one_further_slice() -> None:
    desk = Desk()
    stops = {"ETHUSDT": ("3500.13", "2500.26")}
    rules_changed(desk, "ETHUSDT", size_step=Decimal("0.5"), price_step=Decimal("0.5"))
    done = desk.trade(wanted(THREE, stops))
    assert set(states(done).values()) == {LegState.FILLED}
    parts = done.leg("ETHUSDT-open").slices
    assert [(part.number, part.size, part.state) for part in parts] == [
        (0, Decimal("0.67"), LegState.REJECTED),
        (1, Decimal("0.5"), LegState.FILLED),
    ]
    assert len({part.client_id for part in parts}) == 2
    assert desk.exchange.held("ETHUSDT") == Decimal("-0.5")
    assert done.stops_now["ETHUSDT"] == StopPrices(Decimal("3500.0"), Decimal("2500.5"))
    assert desk.exchange.snapshot().positions[1].stops == done.stops_now["ETHUSDT"]
    assert from_json(desk.store.last) == done


def test_A19_a_leg_that_is_refused_again_waits_for_the_next_cycle() -> None:
    desk = Desk()
    rules_changed(desk, "ETHUSDT", times=4, size_step=Decimal("0.1"))
    done = desk.trade(wanted(THREE))
    record = done.leg("ETHUSDT-open")
    assert record.state is LegState.ABANDONED
    assert [part.state for part in record.slices] == [LegState.REJECTED] * 2


def test_A19_what_the_new_minimum_forbids_is_given_up_with_a_reason() -> None:
    desk = Desk()
    rules_changed(desk, "ETHUSDT", size_min=Decimal(5))
    done = desk.trade(wanted(THREE))
    record = done.leg("ETHUSDT-open")
    assert record.abandoned is not None
    assert "trading rules changed" in record.abandoned
    assert len(record.slices) == 1


def test_a_batch_that_the_last_gate_refuses_is_refused_with_proof() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Fails(Rejected("over the limit", code="limit-exceeded")))
    done = desk.trade(wanted(THREE))
    assert [r.current.code for r in done.legs if r.current] == ["limit-exceeded"] * 3
    assert desk.exchange.ledger == []


def test_a_refused_close_keeps_its_flip_from_opening() -> None:
    desk = Desk()
    desk.exchange.hold("ETHUSDT", "1.11")
    desk.exchange.script["submit"].append(Refuses({"ETHUSDT": "45034"}))
    done = desk.trade(wanted({"ETHUSDT": "-0.2"}, {"ETHUSDT": ("3300", None)}))
    assert set(states(done).values()) == {LegState.ABANDONED}
    assert desk.exchange.held("ETHUSDT") == Decimal("1.11")
    assert desk.exchange.stops_of("ETHUSDT").empty  # the short's stop is not the long's


def test_B11_a_position_that_vanished_leaves_nothing_to_close_and_opens_nothing_yet() -> None:
    desk = Desk()
    desk.exchange.hold("ETHUSDT", "1.11")
    desk.planned(wanted({"ETHUSDT": "-0.2"}))
    desk.exchange.hold("ETHUSDT", "0")
    done = desk.resume()
    assert desk.exchange.ledger == []
    assert set(states(done).values()) == {LegState.ABANDONED}


def test_B1_a_part_is_booked_and_the_rest_is_sent_once_more() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(FillsPart("SOLUSDT", Decimal("6.3")))
    done = desk.trade(wanted({"SOLUSDT": "0.25"}, {"SOLUSDT": ("140", "170")}))
    assert [order.size for order in desk.exchange.ledger] == [Decimal("16.5"), Decimal("10.2")]
    assert desk.exchange.held("SOLUSDT") == Decimal("16.5")
    assert done.leg("SOLUSDT-open").filled_size == Decimal("16.5")
    assert states(done) == {"SOLUSDT-open": LegState.FILLED}
    assert desk.exchange.stops_of("SOLUSDT") == StopPrices(Decimal("140.00"), Decimal("170.00"))


def test_B1_an_order_that_rests_is_canceled_after_a_while_and_its_part_is_kept() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(FillsPart("SOLUSDT", Decimal("6.3"), rests=True))
    desk.exchange.script["submit"].append(Refuses({"SOLUSDT": "40762"}))
    done = desk.trade(wanted({"SOLUSDT": "0.25"}))
    assert desk.exchange.canceled == client_ids(done, "SOLUSDT")[:1]
    assert done.leg("SOLUSDT-open").filled_size == Decimal("6.3")
    assert states(done) == {"SOLUSDT-open": LegState.ABANDONED}
    assert len(desk.exchange.ledger) == 1


@pytest.mark.parametrize(
    "trouble", [Fails(OutcomeUnknown("lost")), Fails(Unavailable("down")), Lost()]
)
def test_a_cancel_that_got_no_answer_is_tried_again(trouble: Fails | Lost) -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(FillsPart("SOLUSDT", Decimal("6.3"), rests=True))
    desk.exchange.script["submit"].append(Refuses({"SOLUSDT": "40762"}))
    desk.exchange.script["cancel"].append(trouble)
    done = desk.trade(wanted({"SOLUSDT": "0.25"}))
    assert done.stage is CycleStage.DONE
    assert done.leg("SOLUSDT-open").filled_size == Decimal("6.3")


# --- opening ---


def test_openings_are_shrunk_to_what_is_really_free() -> None:
    desk = Desk()
    desk.planned(wanted({"BTCUSDT": "0.5", "SOLUSDT": "0.45"}))
    desk.exchange.wallet = Decimal(4_001)
    done = desk.resume()
    assert set(states(done).values()) == {LegState.FILLED}
    spent = sum(
        (order.size * desk.exchange.marks[order.symbol] for order in desk.exchange.ledger),
        Decimal(0),
    )
    assert Decimal(3_800) < spent < Decimal(4_001)
    assert desk.exchange.snapshot().available >= 0


def test_without_anything_free_the_openings_are_given_up_with_a_reason() -> None:
    desk = Desk()
    desk.planned(wanted({"BTCUSDT": "0.5"}))
    desk.exchange.wallet = Decimal(2)
    done = desk.resume()
    assert states(done) == {"BTCUSDT-open": LegState.ABANDONED}
    assert done.leg("BTCUSDT-open").abandoned
    assert [item.reason.value for item in done.skipped_later] == ["no_margin_left"]


def test_I22_stop_beats_trade_but_reducing_goes_on() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    desk.stopping = True
    done = desk.trade(wanted(THREE))
    assert desk.exchange.held("XRPUSDT") == 0
    assert [order.symbol for order in desk.exchange.ledger] == ["XRPUSDT"]
    assert all(record.abandoned for record in done.legs if not record.leg.reduce_only)


def test_a_stop_between_two_batches_keeps_the_second_from_leaving() -> None:
    desk = Desk()

    def stop(_orders: Sequence[OrderRequest]) -> None:
        desk.stopping = True

    desk.exchange.before_submit = stop
    desk.trade(wanted(SEVEN))
    assert len(desk.exchange.ledger) == BATCH_MAX


def test_a_leverage_that_differs_stops_the_session_before_anything_opens() -> None:
    desk = Desk()
    desk.exchange.modes["BTCUSDT"] = SymbolSettings("BTCUSDT", Decimal(20), MarginMode.CROSSED)
    with pytest.raises(Conflict, match="apply_account_settings"):
        desk.trade(wanted(THREE))
    assert desk.exchange.ledger == []
    assert "apply_symbol_settings" not in desk.exchange.calls


@pytest.mark.parametrize(
    "found",
    [
        SymbolSettings("BTCUSDT", Decimal(20), MarginMode.CROSSED),
        SymbolSettings("BTCUSDT", Decimal(1), MarginMode.ISOLATED),
    ],
)
def test_with_apply_account_settings_they_are_set_while_flat(found: SymbolSettings) -> None:
    desk = Desk(apply_account_settings=True)
    desk.exchange.modes["BTCUSDT"] = found
    done = desk.trade(wanted(THREE))
    assert desk.exchange.modes["BTCUSDT"] == SymbolSettings(
        "BTCUSDT", Decimal(1), MarginMode.CROSSED
    )
    assert set(states(done).values()) == {LegState.FILLED}


def test_settings_of_a_held_symbol_are_never_changed() -> None:
    desk = Desk(apply_account_settings=True)
    desk.exchange.hold("BTCUSDT", "0.0100")
    desk.exchange.modes["BTCUSDT"] = SymbolSettings("BTCUSDT", Decimal(20), MarginMode.CROSSED)
    with pytest.raises(Conflict, match="held"):
        desk.trade(wanted(THREE))
    assert desk.exchange.ledger == []


# --- protection ---


STOPS = {"BTCUSDT": ("55000", "70000"), "ETHUSDT": ("3300", None)}


def test_I2_stops_ride_on_the_opening_orders() -> None:
    desk = Desk()
    desk.trade(wanted(THREE, STOPS))
    by_symbol = {order.symbol: order.stops for order in desk.exchange.ledger}
    assert by_symbol["BTCUSDT"] == StopPrices(Decimal("55000.0"), Decimal("70000.0"))
    assert by_symbol["SOLUSDT"].empty
    assert desk.exchange.stop_calls == []


def test_I2_stops_that_the_venue_lost_are_set_and_read_back() -> None:
    desk = Desk()
    desk.exchange.presets_lost = True
    desk.trade(wanted(THREE, STOPS))
    assert desk.exchange.stops_of("BTCUSDT") == StopPrices(Decimal("55000.0"), Decimal("70000.0"))
    assert desk.exchange.stops_of("ETHUSDT") == StopPrices(Decimal("3300.00"))


def test_stops_move_with_their_target_and_go_with_it() -> None:
    desk = Desk()
    desk.trade(wanted(THREE, STOPS))
    desk.clock.advance(60)
    desk.trade(wanted(THREE, {"BTCUSDT": ("56000", None)}))
    assert desk.exchange.stops_of("BTCUSDT") == StopPrices(Decimal("56000.0"))
    assert desk.exchange.stops_of("ETHUSDT").empty


def test_A19_a_moved_stop_goes_onto_the_new_tick() -> None:
    desk = Desk()
    desk.trade(wanted(THREE, STOPS))
    desk.clock.advance(60)
    letter = desk.planned(wanted(THREE, {**STOPS, "BTCUSDT": ("56000.4", None)}))
    desk.exchange.rules["BTCUSDT"] = make_instrument("BTCUSDT", price_step=Decimal(1))
    done = auto_trade(letter, desk.ports(), desk.rules())
    assert done.stage is CycleStage.DONE
    assert desk.exchange.stops_of("BTCUSDT") == StopPrices(Decimal(56000))
    assert done.stops_now["BTCUSDT"] == StopPrices(Decimal(56000))
    assert from_json(desk.store.last) == done


def test_B6_a_moved_stop_that_the_price_has_passed_leaves_the_old_one_and_the_session() -> None:
    desk = Desk()
    desk.trade(wanted(THREE, STOPS))
    before = desk.exchange.stops_of("BTCUSDT")
    desk.clock.advance(60)
    refusal = Rejected("Bitget 45062: the price is beyond it", code="stop-on-wrong-side")
    desk.exchange.script["set_stops"].append(Fails(refusal))
    done = desk.trade(wanted(THREE, {**STOPS, "BTCUSDT": ("56000", None)}))
    assert done.stage is CycleStage.DONE
    assert desk.exchange.stops_of("BTCUSDT") == before


def test_B5_stops_whose_answer_was_lost_are_sent_again() -> None:
    desk = Desk()
    desk.exchange.presets_lost = True
    desk.exchange.script["set_stops"].extend([Lost(), Fails(OutcomeUnknown("lost"))])
    desk.trade(wanted({"BTCUSDT": "0.3"}, STOPS))
    assert desk.exchange.stops_of("BTCUSDT").stop_loss == Decimal("55000.0")


def test_I2_stops_that_are_never_confirmed_are_said_aloud() -> None:
    desk = Desk()
    desk.exchange.presets_lost = True
    desk.exchange.script["set_stops"].extend([Fails(OutcomeUnknown("lost"))] * 9)
    with pytest.raises(Conflict, match="BTCUSDT"):
        desk.trade(wanted({"BTCUSDT": "0.3"}, STOPS))


def test_B8_a_position_that_ended_needs_no_stops() -> None:
    desk = Desk()
    desk.exchange.presets_lost = True
    desk.trade(wanted({"BTCUSDT": "0.3"}))
    desk.exchange.script["set_stops"].append(Fails(NotFound("no position")))
    desk.clock.advance(60)
    done = desk.trade(wanted({"BTCUSDT": "0.3"}, STOPS))
    assert done.stage is CycleStage.DONE


def test_orders_that_stay_unresolved_stop_the_session() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(FillsPart("SOLUSDT", Decimal(1), rests=True))
    desk.exchange.script["cancel"].extend([Fails(OutcomeUnknown("lost"))] * 1000)
    with pytest.raises(Conflict, match="unresolved"):
        desk.trade(wanted({"SOLUSDT": "0.25"}))


def test_a_bug_below_is_not_mistaken_for_a_refusal() -> None:
    desk = Desk()
    desk.exchange.script["submit"].append(Fails(InvariantViolated("id used for another order")))
    with pytest.raises(InvariantViolated):
        desk.trade(wanted(THREE))
    assert passed_through(desk, "BTCUSDT-open")[-1] is LegState.SENT
