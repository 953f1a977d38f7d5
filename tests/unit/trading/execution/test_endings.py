"""How a letter ends: done, dropped to be planned anew, with legs that were given up and say why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.model.accounts import PositionMode
from module.model.errors import Conflict, OutcomeUnknown
from module.model.orders import NO_STOPS, OrderRequest, Outcome, Side, StopPrices, SubmitResult
from tests.fakes.exchange import Edits, Fails, FillsPart, Late, Lost, Refuses, make_instrument
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.auto_trade import (
    TOO_MANY_SLICES,
    auto_trade,
    is_stale,
    settle_open_slices,
)
from trading.execution.freshness import FIRST_ORDER_AGE_MAX_S, SPENT
from trading.execution.scribe import SEND_WINDOW_S
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import SLICES_MAX, CycleStage, OrderInfo, Slice, from_json

ZERO = Decimal(0)
THREE = {"BTCUSDT": "0.3", "ETHUSDT": "-0.2", "SOLUSDT": "0.25"}


def carried_out(desk: Desk, info: OrderInfo) -> OrderInfo:
    desk.exchange.calls.clear()
    return auto_trade(info, desk.ports(), desk.rules())


def dropped(desk: Desk, info: OrderInfo) -> OrderInfo:
    desk.exchange.calls.clear()
    return settle_open_slices(info, desk.ports(), desk.rules(), "too old")


def stages(desk: Desk) -> list[CycleStage]:
    """The stages that the letter was durably in, in order."""
    found: list[CycleStage] = []
    for document in desk.store.written:
        stage = from_json(document).stage
        if not found or found[-1] is not stage:
            found.append(stage)
    return found


def begun(info: OrderInfo, leg_id: str, **of_slice: object) -> OrderInfo:
    """As a process before this one left it: trading, with one slice of the leg."""
    record = info.leg(leg_id)
    part = Slice(0, f"af-{record.leg.symbol.lower()}-0", record.size, LegState.SENT)
    part = replace(part, **of_slice)  # type: ignore[arg-type]
    return info.with_legs({leg_id: replace(record, slices=(part,))}, stage=CycleStage.TRADING)


# --- done -----------------------------------------------------------------------------------------


def test_a_cycle_goes_from_planned_to_done_with_a_letter_at_each_step() -> None:
    desk = Desk()
    done = carried_out(desk, desk.planned(wanted(THREE)))
    assert stages(desk) == [CycleStage.PLANNED, CycleStage.TRADING, CycleStage.DONE]
    assert from_json(desk.store.last) == done
    assert len(desk.store.written) == 4, (
        "planned, sent, over, done: each write is a wait for a disk"
    )


def test_a_plan_without_legs_is_done_without_a_question_about_settings() -> None:
    desk = Desk()
    done = carried_out(desk, desk.planned(wanted({})))
    assert done.stage is CycleStage.DONE
    assert desk.exchange.calls == ["instruments"]


def test_a_plan_that_only_closes_neither_reads_settings_nor_sizes_anything() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    carried_out(desk, desk.planned(wanted({})))
    assert desk.exchange.calls == ["instruments", "submit", "order"]


def test_a_leg_of_too_many_slices_is_given_up_and_the_session_goes_on() -> None:
    """A position so large that the exchange's largest order is a small part of it: its rest waits
    for the next cycle. The last check before the door would halt the session at slice 41."""
    desk = Desk()
    desk.exchange.rules["SOLUSDT"] = make_instrument("SOLUSDT", market_size_max=Decimal("0.3"))
    targets = {"SOLUSDT": "0.25", "BTCUSDT": "0.3"}
    done = carried_out(desk, desk.planned(wanted(targets)))
    record = done.leg("SOLUSDT-open")
    assert (len(record.slices), record.filled_size) == (SLICES_MAX, Decimal("12.0"))
    assert record.abandoned == TOO_MANY_SLICES
    assert done.stage is CycleStage.DONE
    assert all(r.abandoned is None for r in done.legs if r.leg.symbol != "SOLUSDT")
    desk.clock.advance(60)
    again = desk.trade(wanted(targets))
    assert desk.exchange.held("SOLUSDT") == Decimal("16.5")
    assert again.stage is CycleStage.DONE


def test_every_leg_that_has_had_its_slices_is_given_up() -> None:
    desk = Desk()
    desk.exchange.wallet = Decimal(20_000)
    info = desk.planned(wanted({"BTCUSDT": "0.3", "SOLUSDT": "0.25"}))
    for record in info.legs:
        size = record.size / 100
        parts = [
            Slice(number, f"af-{record.leg.leg_id}-{number}", size, LegState.FILLED, None, size)
            for number in range(SLICES_MAX)
        ]
        info = info.with_legs({record.leg.leg_id: replace(record, slices=tuple(parts))})
    done = carried_out(desk, info.changed(stage=CycleStage.TRADING))
    assert [record.abandoned for record in done.legs] == [TOO_MANY_SLICES] * 2
    assert desk.exchange.ledger == []


def test_a_leg_that_ends_with_its_last_slice_is_not_given_up() -> None:
    desk = Desk()
    size_max = Decimal("16.5") / SLICES_MAX
    desk.exchange.rules["SOLUSDT"] = make_instrument(
        "SOLUSDT", market_size_max=size_max, size_step=Decimal("0.0125"), size_min=Decimal("0.0125")
    )
    done = carried_out(desk, desk.planned(wanted({"SOLUSDT": "0.249"})))
    record = done.leg("SOLUSDT-open")
    assert len(record.slices) == SLICES_MAX
    assert (record.state, record.abandoned) == (LegState.FILLED, None)


# --- a leg that brought nothing -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        ("40762", "not enough margin", "not enough margin"),
        ("40762", None, "40762"),
        (None, None, "slice 0 rejected"),
    ],
)
def test_a_refused_leg_is_given_up_with_the_best_words_there_are(
    code: str | None, message: str | None, told: str
) -> None:
    desk = Desk()

    def refuse(results: list[SubmitResult]) -> list[SubmitResult]:
        desk.exchange.forget(results[0].client_id)
        return [SubmitResult(results[0].client_id, Outcome.REJECTED, None, code, message)]

    desk.exchange.script["submit"].append(Edits(refuse))
    done = carried_out(desk, desk.planned(wanted({"BTCUSDT": "0.3"})))
    assert done.leg("BTCUSDT-open").abandoned == told
    assert desk.exchange.calls.count("submit") == 1


def test_D4_what_was_refused_before_a_crash_is_not_sent_again_after_it() -> None:
    desk = Desk()
    info = begun(
        desk.planned(wanted({"BTCUSDT": "0.3", "SOLUSDT": "0.25"})),
        "BTCUSDT-open",
        state=LegState.REJECTED,
        code="40762",
    )
    done = carried_out(desk, info)
    assert done.leg("BTCUSDT-open").abandoned == "40762"
    assert [order.symbol for order in desk.exchange.ledger] == ["SOLUSDT"]


def test_D4_what_never_arrived_before_a_crash_leaves_once_more_after_it() -> None:
    desk = Desk()
    info = begun(desk.planned(wanted({"BTCUSDT": "0.3"})), "BTCUSDT-open", state=LegState.ABANDONED)
    done = carried_out(desk, info)
    parts = done.leg("BTCUSDT-open").slices
    assert [part.state for part in parts] == [LegState.ABANDONED, LegState.FILLED]


def test_B1_a_part_that_was_filled_before_a_crash_is_added_to_after_it() -> None:
    desk = Desk()
    info = desk.planned(wanted({"SOLUSDT": "0.25"}))
    desk.exchange.hold("SOLUSDT", "6.3")
    info = begun(info, "SOLUSDT-open", state=LegState.ABANDONED, filled_size=Decimal("6.3"))
    done = carried_out(desk, info)
    assert [order.size for order in desk.exchange.ledger] == [Decimal("10.2")]
    assert done.leg("SOLUSDT-open").filled_size == Decimal("16.5")


def test_a_refused_close_does_not_end_what_opens_and_the_reverse() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    desk.exchange.script["submit"].append(Refuses({"XRPUSDT": "40309"}))
    desk.exchange.script["submit"].append(Refuses({"BTCUSDT": "40762"}))
    done = carried_out(desk, desk.planned(wanted({"BTCUSDT": "0.3", "SOLUSDT": "0.1"})))
    assert {record.leg.leg_id: record.abandoned for record in done.legs} == {
        "XRPUSDT-close": "refused",
        "BTCUSDT-open": "refused",
        "SOLUSDT-open": None,
    }


def test_a_refused_leg_is_given_up_behind_one_that_is_bought_in_parts() -> None:
    desk = Desk()
    desk.exchange.rules["ADAUSDT"] = make_instrument("ADAUSDT", market_size_max=Decimal(900))
    desk.exchange.script["submit"].append(Refuses({"SOLUSDT": "40762"}))
    done = carried_out(desk, desk.planned(wanted({"ADAUSDT": "0.1", "SOLUSDT": "0.25"})))
    assert len(done.leg("ADAUSDT-open").slices) == 3
    assert len(done.leg("SOLUSDT-open").slices) == 1
    assert done.leg("SOLUSDT-open").abandoned == "refused"


def test_a_refused_leg_is_given_up_behind_one_that_nobody_has_seen() -> None:
    desk = Desk()
    desk.exchange.index_lag_s = 8.0

    def first_unknown(results: list[SubmitResult]) -> list[SubmitResult]:
        desk.exchange.forget(results[1].client_id)
        return [SubmitResult(results[1].client_id, Outcome.REJECTED, None, "40762", "refused")]

    desk.exchange.script["submit"].append(Edits(first_unknown))
    done = carried_out(desk, desk.planned(wanted({"BTCUSDT": "0.3", "SOLUSDT": "0.25"})))
    assert done.leg("BTCUSDT-open").state is LegState.FILLED
    assert done.leg("SOLUSDT-open").abandoned == "refused"
    assert len(done.leg("SOLUSDT-open").slices) == 1


def test_a_leg_that_an_earlier_pass_gave_up_keeps_its_reason() -> None:
    desk = Desk(frozen={"BTCUSDT": "changed by hand"})
    done = carried_out(desk, desk.planned(wanted({"BTCUSDT": "0.3", "SOLUSDT": "0.1"})))
    assert done.leg("BTCUSDT-open").abandoned == "changed by hand"
    assert done.leg("SOLUSDT-open").abandoned is None


# --- rules that changed ---------------------------------------------------------------------------


def test_A19_a_leg_that_cannot_be_traded_any_more_hides_none_that_can() -> None:
    desk = Desk()
    rules = {
        "BTCUSDT": make_instrument("BTCUSDT", size_min=Decimal(5)),
        "SOLUSDT": make_instrument("SOLUSDT", size_step=Decimal("0.5")),
    }
    codes = {"BTCUSDT": "22038", "SOLUSDT": "22038"}
    desk.exchange.script["submit"].append(Refuses(codes, rules))
    done = carried_out(desk, desk.planned(wanted(THREE)))
    assert "nothing of it can be traded" in (done.leg("BTCUSDT-open").abandoned or "")
    sol = done.leg("SOLUSDT-open")
    assert (sol.state, sol.filled_size) == (LegState.FILLED, Decimal("16.5"))
    assert sol.sized is not None
    assert sol.sized.reason == "the trading rules changed"


def test_A19_the_new_rules_are_read_once() -> None:
    """Solana is bought in three orders; bitcoin was given up after the first of them."""
    desk = Desk()
    desk.exchange.rules["SOLUSDT"] = make_instrument("SOLUSDT", market_size_max=Decimal(7))
    rules = {"BTCUSDT": make_instrument("BTCUSDT", size_min=Decimal(5))}
    desk.exchange.script["submit"].append(Refuses({"BTCUSDT": "22038"}, rules))
    done = carried_out(desk, desk.planned(wanted({"BTCUSDT": "0.3", "SOLUSDT": "0.25"})))
    assert len(done.leg("SOLUSDT-open").slices) == 3
    assert desk.exchange.calls.count("instruments") == 2


@pytest.mark.parametrize("gone", [True, False])
def test_A20_a_leg_whose_symbol_is_gone_or_suspended_is_given_up(gone: bool) -> None:
    desk = Desk()

    def refuse(results: list[SubmitResult]) -> list[SubmitResult]:
        client_id = results[0].client_id
        desk.exchange.forget(client_id)
        if gone:
            del desk.exchange.rules["BTCUSDT"]
        else:
            desk.exchange.rules["BTCUSDT"] = make_instrument("BTCUSDT", tradable=False)
        return [SubmitResult(client_id, Outcome.REJECTED, None, "1", "no", rules_changed=True)]

    desk.exchange.script["submit"].append(Edits(refuse))
    done = carried_out(desk, desk.planned(wanted({"BTCUSDT": "0.3"})))
    assert "nothing of it can be traded" in (done.leg("BTCUSDT-open").abandoned or "")
    assert desk.exchange.ledger == []


def test_A19_a_close_by_new_rules_leaves_once_more() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    rules = {"XRPUSDT": make_instrument("XRPUSDT", size_step=Decimal(10), size_min=Decimal(10))}
    desk.exchange.script["submit"].append(Refuses({"XRPUSDT": "22038"}, rules))
    done = carried_out(desk, desk.planned(wanted({})))
    assert desk.exchange.held("XRPUSDT") == Decimal(7)
    assert done.leg("XRPUSDT-close").state is LegState.FILLED


def test_A19_stops_go_onto_the_new_tick_with_the_order_and_need_not_be_set_again() -> None:
    desk = Desk()
    rules = {
        "ETHUSDT": make_instrument("ETHUSDT", price_step=Decimal("0.5")),
        "SOLUSDT": make_instrument("SOLUSDT", price_step=Decimal("0.5")),
    }
    codes = {"ETHUSDT": "22038", "SOLUSDT": "22038"}
    desk.exchange.script["submit"].append(Refuses(codes, rules))
    stops = {"BTCUSDT": ("55000", None), "ETHUSDT": ("3500.13", None)}
    done = carried_out(desk, desk.planned(wanted(THREE, stops)))
    assert desk.exchange.stops_of("ETHUSDT") == StopPrices(Decimal("3500.0"))
    assert desk.exchange.stops_of("SOLUSDT") == NO_STOPS
    assert done.stops_now["ETHUSDT"] == StopPrices(Decimal("3500.0"))
    assert desk.exchange.calls.count("set_stops") == 0
    assert from_json(desk.store.last) == done


# --- dropped, to be planned anew ------------------------------------------------------------------


def resumed(desk: Desk) -> OrderInfo:
    """A leader died before its first order left."""
    desk.exchange.hold("SOLUSDT", "10")
    info = desk.planned(wanted(THREE))
    return info.changed(stage=CycleStage.TRADING)


def test_A15_a_plan_that_is_taken_up_again_is_compared_with_the_account_at_once() -> None:
    desk = Desk()
    info = resumed(desk)
    desk.exchange.hold("SOLUSDT", "7")
    done = carried_out(desk, info)
    assert is_stale(done)
    assert from_json(desk.store.last) == done
    assert desk.exchange.ledger == []


def test_A15_a_plan_of_just_now_is_not_looked_at_twice() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    info = desk.planned(wanted({}))
    carried_out(desk, info)
    assert "snapshot" not in desk.exchange.calls


def test_A15_a_plan_that_is_taken_up_again_unchanged_is_traded() -> None:
    desk = Desk()
    done = carried_out(desk, resumed(desk))
    assert done.stage is CycleStage.DONE
    assert desk.exchange.held("SOLUSDT") == Decimal("16.5")


def test_B13_a_lot_more_or_less_does_not_throw_a_plan_away() -> None:
    desk = Desk()
    desk.exchange.rules["SOLUSDT"] = make_instrument("SOLUSDT", size_step=Decimal(1))
    info = resumed(desk)
    desk.exchange.hold("SOLUSDT", "9")
    assert not is_stale(carried_out(desk, info))


def test_A22_a_plan_that_is_taken_up_again_stops_at_hedge_mode() -> None:
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "10")
    info = desk.planned(wanted({})).changed(stage=CycleStage.TRADING)
    desk.exchange.position_mode = PositionMode.HEDGE
    with pytest.raises(Conflict, match="hedge mode"):
        carried_out(desk, info)
    assert desk.exchange.ledger == []


def sent_before_a_crash(desk: Desk) -> OrderInfo:
    """Of four legs the close was sent; of the others nothing."""
    desk.exchange.hold("XRPUSDT", "1007")
    not_after = desk.clock.now() + timedelta(seconds=SEND_WINDOW_S)
    return begun(desk.planned(wanted(THREE)), "XRPUSDT-close", not_after=not_after)


def close_arrives(desk: Desk) -> None:
    order = OrderRequest("af-xrpusdt-0", "XRPUSDT", Side.SELL, Decimal(1007), reduce_only=True)
    desk.exchange.ledger.append(order)
    desk.exchange.handed.add(order.client_id)
    desk.exchange.rest(order)
    desk.exchange.fill_rest("XRPUSDT")


def test_D2_a_plan_of_which_something_has_arrived_is_finished_however_old_it_is() -> None:
    desk = Desk()
    info = sent_before_a_crash(desk)
    close_arrives(desk)
    desk.clock.advance(100)
    done = carried_out(desk, info)
    assert done.stage is CycleStage.DONE
    assert desk.exchange.held("XRPUSDT") == 0
    assert desk.exchange.held("BTCUSDT") > 0


def test_D2_what_arrived_and_is_shown_late_is_waited_for_before_an_old_plan_is_judged() -> None:
    desk = Desk()
    info = sent_before_a_crash(desk)
    close_arrives(desk)
    desk.exchange.takes_late_s = 30.0
    desk.exchange.index_lag_s = FIRST_ORDER_AGE_MAX_S + 5
    desk.clock.advance(FIRST_ORDER_AGE_MAX_S + 1)
    done = carried_out(desk, info)
    assert done.stage is CycleStage.DONE
    assert desk.exchange.calls.index("rule_out") < desk.exchange.calls.index("submit")
    assert {record.state for record in done.legs} == {LegState.FILLED}


@pytest.mark.parametrize("left_the_gateway", [False, True])
def test_C8_an_old_plan_of_which_nothing_arrived_has_not_begun_and_sends_nothing(
    left_the_gateway: bool,
) -> None:
    """By the gateway's record it never left, or it is proven absent only at a further look: until
    then nothing of the other legs leaves either."""
    desk = Desk()
    info = sent_before_a_crash(desk)
    if left_the_gateway:
        desk.exchange.handed.add("af-xrpusdt-0")
    desk.clock.advance(95)
    done = carried_out(desk, info)
    assert done.stage is CycleStage.DROPPED
    assert done.reason.startswith(SPENT)
    assert not is_stale(done), "its client ids are used up: it is not made anew under them"
    assert (done.has_sent, done.has_begun) == (True, False)
    assert all(record.is_over for record in done.legs)
    assert desk.exchange.ledger == []
    assert "submit" not in desk.exchange.calls
    assert from_json(desk.store.last) == done


def test_C8_a_process_that_learns_too_late_that_nothing_arrived_sends_nothing_more() -> None:
    """The first batch is proven never to have left, when the plan is old already."""
    desk = Desk()
    desk.exchange.script["submit"].append(Fails(OutcomeUnknown("HTTP 502")))
    desk.exchange.script["rule_out"].append(Late(FIRST_ORDER_AGE_MAX_S + 1))
    done = carried_out(desk, desk.planned(wanted(THREE)))
    assert done.reason.startswith(SPENT)
    assert desk.exchange.ledger == []


# --- dropped, as too old --------------------------------------------------------------------------


def test_D2_what_is_too_old_is_settled_and_nothing_of_it_is_sent() -> None:
    desk = Desk()
    desk.exchange.script["submit"].extend([Lost(), Fails(OutcomeUnknown("lost"))])
    info = desk.planned(wanted({"BTCUSDT": "0.3", "SOLUSDT": "0.25"}))
    desk.exchange.script["order"].append(Fails(Conflict("the leader dies here")))
    with pytest.raises(Conflict):
        carried_out(desk, info)
    left = from_json(desk.store.last)
    desk.exchange.forget(left.leg("SOLUSDT-open").slices[0].client_id)
    sent = len(desk.exchange.batches)
    desk.clock.advance(3600)
    done = dropped(desk, left)
    assert (done.stage, done.reason) == (CycleStage.DROPPED, "too old")
    assert done.leg("BTCUSDT-open").state is LegState.FILLED
    assert done.leg("BTCUSDT-open").abandoned is None
    assert done.leg("SOLUSDT-open").abandoned == "too old"
    assert len(desk.exchange.batches) == sent
    assert from_json(desk.store.last) == done
    assert desk.exchange.calls.count("instruments") == 0


def test_I2_what_is_held_is_protected_before_anybody_waits_for_orders_and_again_after() -> None:
    """Bitcoin is held without its stop; of the ether that was bought nobody has heard yet."""
    desk = Desk()
    desk.exchange.presets_lost = True
    desk.exchange.hold("BTCUSDT", "0.0100")
    stops = {"BTCUSDT": ("55000", None), "ETHUSDT": ("2500", None)}
    info = desk.planned(wanted({"BTCUSDT": "0.06", "ETHUSDT": "0.2"}, stops))
    desk.exchange.script["order"].append(Fails(Conflict("the leader dies here")))
    desk.exchange.script["submit"].append(Lost())
    with pytest.raises(Conflict):
        carried_out(desk, replace(info, number=2))
    left = from_json(desk.store.last)
    desk.exchange.hold("BTCUSDT", "0.0100")
    desk.exchange.hold("ETHUSDT", "0")
    desk.exchange.stop_calls.clear()
    desk.exchange.stops_at.clear()
    desk.clock.after(5, lambda: desk.exchange.hold("ETHUSDT", "0.66"))
    desk.exchange.index_lag_s = 7
    began = desk.clock.now()
    dropped(desk, left)
    assert [symbol for symbol, _ in desk.exchange.stop_calls] == ["BTCUSDT", "ETHUSDT"]
    assert desk.exchange.stops_at[0] == began
    assert desk.exchange.stops_of("ETHUSDT") == StopPrices(Decimal("2500.00"))


def test_a_letter_of_which_nothing_was_sent_is_dropped_with_all_its_legs() -> None:
    desk = Desk()
    done = dropped(desk, desk.planned(wanted(THREE)))
    assert {record.abandoned for record in done.legs} == {"too old"}
    assert set(desk.exchange.calls) == {"snapshot"}
    assert desk.clock.slept == []


# --- one pass after another -----------------------------------------------------------------------


def test_I5_what_waited_for_an_unknown_order_is_traded_in_a_second_pass() -> None:
    """The close is found late; only then its flip opens, and the stops are seen to once more."""
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    desk.exchange.script["submit"].append(Lost())
    desk.exchange.index_lag_s = 8.0
    done = carried_out(desk, desk.planned(wanted({"XRPUSDT": "-0.05"})))
    assert all(record.state is LegState.FILLED for record in done.legs)
    assert stages(desk) == [
        CycleStage.PLANNED,
        CycleStage.TRADING,
        CycleStage.PROTECTING,
        CycleStage.TRADING,
        CycleStage.DONE,
    ]


def test_a_rest_of_a_close_is_sent_before_anything_opens() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    desk.exchange.script["submit"].append(FillsPart("XRPUSDT", Decimal(411)))
    done = carried_out(desk, desk.planned(wanted({"BTCUSDT": "0.3"})))
    sizes = [(order.symbol, order.size) for order in desk.exchange.ledger]
    assert sizes[:2] == [("XRPUSDT", Decimal(1007)), ("XRPUSDT", Decimal(596))]
    assert sizes[2][0] == "BTCUSDT"
    assert all(record.state is LegState.FILLED for record in done.legs)


def test_D2_a_close_that_rests_since_before_a_crash_is_over_before_anything_opens() -> None:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    info = desk.planned(wanted({"BTCUSDT": "0.3"}))
    info = begun(info, "XRPUSDT-close", state=LegState.ACKNOWLEDGED)
    order = OrderRequest("af-xrpusdt-0", "XRPUSDT", Side.SELL, Decimal(1007), reduce_only=True)
    desk.exchange.ledger.append(order)
    desk.exchange.rest(order)
    desk.clock.after(3, lambda: desk.exchange.fill_rest("XRPUSDT"))
    held: list[Decimal] = []
    desk.exchange.before_submit = lambda _orders: held.append(desk.exchange.held("XRPUSDT"))
    done = carried_out(desk, info)
    assert held == [ZERO]
    assert all(record.state is LegState.FILLED for record in done.legs)
