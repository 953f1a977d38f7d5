"""A letter in which every field says something: nothing of it is lost, swapped or made up."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from module.model.canonical import canonical_json
from module.model.errors import InvariantViolated
from module.model.orders import NO_STOPS, OrderReport, OrderStatus, Side, StopPrices
from trading.rebalance.leg_record import (
    OVERFILL,
    LegRecord,
    Sized,
    Slice,
    given_up,
    next_slice,
    with_report,
)
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    CycleStage,
    Holding,
    Noted,
    OrderInfo,
    from_json,
    requested,
    to_json,
    with_plan,
)
from trading.rebalance.plan import DiffCase, Leg, OrderPlan, SkippedLeg, SkipReason

CYCLE = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
LEG = Leg(
    leg_id="SOLUSDT-open",
    symbol="SOLUSDT",
    case=DiffCase.OPPOSITE,
    side=Side.SELL,
    size=Decimal("39.6"),
    reduce_only=True,
    reference_price=Decimal("151.37"),
    current_weight=Decimal("0.1234"),
    target_weight=Decimal("-0.2"),
    stops=StopPrices(Decimal("160.01"), Decimal("120.5")),
    after="SOLUSDT-close",
)
SLICE = Slice(
    number=3,
    client_id="af-solusdt-open-3",
    size=Decimal("31.7"),
    state=LegState.REJECTED,
    order_id="70001",
    filled_size=Decimal("2.3"),
    average_price=Decimal("151.36"),
    fee=Decimal("-0.21"),
    code="40762",
    message="insufficient balance",
    not_after=CYCLE + timedelta(seconds=17),
    rules_changed=True,
)
PLANNED = Slice(4, "af-solusdt-open-4", Decimal("29.4"))


def whole() -> OrderInfo:
    skipped = SkippedLeg("BTCUSDT", SkipReason.BELOW_THRESHOLD, Decimal("0.301"), Decimal("0.3"))
    later = SkippedLeg("ETHUSDT", SkipReason.NO_MARGIN_LEFT, Decimal("0.017"), Decimal("0.2"))
    sized = Sized(Decimal("31.7"), StopPrices(Decimal("160.1")), "less is free")
    return replace(
        requested("2611211102-ab3x", CYCLE, 17, 3, 40),
        stage=CycleStage.PROTECTING,
        reason="a word",
        strategy_digest="5f3a",
        inputs={"base": "10007"},
        targets={"SOLUSDT": {"weight": "-0.2", "presetStopLossPrice": "160.01"}},
        legs=(LegRecord(LEG, (SLICE, PLANNED), "for a reason", sized), LegRecord(LEG)),
        skipped=(skipped,),
        stops={"SOLUSDT": LEG.stops},
        residuals={"BTCUSDT": Decimal("-0.001")},
        basis=Holding(CYCLE - timedelta(seconds=3), {"SOLUSDT": Decimal("16.3")}),
        held_before=Holding(CYCLE - timedelta(minutes=5), {"SOLUSDT": Decimal("16.4")}),
        held_after=Holding(CYCLE + timedelta(minutes=1), {"SOLUSDT": Decimal("-29.4")}),
        stops_now={"SOLUSDT": StopPrices(None, Decimal("120.6"))},
        skipped_later=(later,),
        noted=(
            Noted("manual", "SOLUSDT", Decimal("16.4"), Decimal("16.3"), "sold by hand", CYCLE),
        ),
        corrections={"SOLUSDT": 2},
    )


def test_every_field_of_a_letter_is_written_and_read() -> None:
    info = whole()
    blank = requested(info.session_id, info.cycle, info.number, info.epoch, info.revision)
    for field in fields(OrderInfo)[5:]:
        if field.name != "pinned":
            assert getattr(info, field.name) != getattr(blank, field.name), field.name
    text = canonical_json(to_json(info))
    back = from_json(json.loads(text))
    assert back == info
    assert canonical_json(to_json(back)) == text


def test_the_written_names_are_those_that_other_programs_read() -> None:
    """The file is looked at by people and by earlier builds: its names do not change unnoticed."""
    document = json.loads(canonical_json(to_json(whole())))
    assert document["version"] == 2
    assert document["noted"] == [
        {
            "kind": "manual",
            "symbol": "SOLUSDT",
            "expected": "16.4",
            "actual": "16.3",
            "detail": "sold by hand",
            "at": "2026-11-21T11:05:00Z",
        }
    ]
    assert document["basis"] == {"at": "2026-11-21T11:04:57Z", "sizes": {"SOLUSDT": "16.3"}}
    assert document["skipped_later"] == [
        {
            "symbol": "ETHUSDT",
            "reason": "no_margin_left",
            "current_weight": "0.017",
            "target_weight": "0.2",
        }
    ]
    record = document["legs"][0]
    assert {name: record[name] for name in ("state", "abandoned", "sized")} == {
        "state": "abandoned",
        "abandoned": "for a reason",
        "sized": {
            "size": "31.7",
            "stops": {"stop_loss": "160.1", "take_profit": None},
            "reason": "less is free",
        },
    }
    assert record["leg"] == {
        "leg_id": "SOLUSDT-open",
        "symbol": "SOLUSDT",
        "case": "opposite",
        "side": "sell",
        "size": "39.6",
        "reduce_only": True,
        "reference_price": "151.37",
        "current_weight": "0.1234",
        "target_weight": "-0.2",
        "stops": {"stop_loss": "160.01", "take_profit": "120.5"},
        "after": "SOLUSDT-close",
    }
    assert record["slices"][0] == {
        "number": 3,
        "client_id": "af-solusdt-open-3",
        "size": "31.7",
        "state": "rejected",
        "order_id": "70001",
        "filled_size": "2.3",
        "average_price": "151.36",
        "fee": "-0.21",
        "code": "40762",
        "message": "insufficient balance",
        "not_after": "2026-11-21T11:05:17Z",
        "rules_changed": True,
    }


def test_a_letter_of_the_build_before_is_read_with_nothing_that_it_does_not_say() -> None:
    """Format 1 had no residuals, holdings, notes; nor slices that know of changed rules."""
    info = replace(
        whole(), residuals={}, basis=None, held_before=None, held_after=None, stops_now={},
        skipped_later=(), noted=(), corrections={},
    )  # fmt: skip
    document = json.loads(canonical_json(to_json(info)))
    for name in (
        "residuals", "basis", "held_before", "held_after", "stops_now", "skipped_later", "noted",
        "corrections",
    ):  # fmt: skip
        del document[name]
    document["version"] = 1
    for part in document["legs"][0]["slices"]:
        del part["rules_changed"]
    del document["legs"][1]["sized"]
    known = replace(SLICE, rules_changed=False)
    records = (replace(info.legs[0], slices=(known, PLANNED)), info.legs[1])
    assert from_json(document) == replace(info, legs=records)


def test_stops_of_nothing_are_the_one_that_stands_for_none() -> None:
    info = replace(whole(), stops={"SOLUSDT": NO_STOPS})
    assert from_json(json.loads(canonical_json(to_json(info)))).stops["SOLUSDT"] is NO_STOPS


def test_the_plans_digest_is_over_residuals_too_where_there_are_any() -> None:
    info = whole()
    digests = {
        info.plan_digest,
        replace(info, residuals={}).plan_digest,
        replace(info, residuals={"BTCUSDT": Decimal("0.001")}).plan_digest,
        replace(info, skipped=()).plan_digest,
        replace(info, stops={}).plan_digest,
        replace(info, legs=info.legs[:1]).plan_digest,
    }
    assert len(digests) == 6


def test_the_plans_digest_is_the_same_in_every_build() -> None:
    """Archived letters are checked by it."""
    assert whole().plan_digest == (
        "da7aaea95afd4645526b7c095b1594332a66e7519163cbe79bba4abf6c1d993c"
    )


def test_a_pinned_digest_is_not_that_of_another_decision() -> None:
    """`with_plan` keeps the digest at hand; every part that it is over makes it another one."""
    plan = OrderPlan((LEG,), whole().skipped, {"SOLUSDT": LEG.stops}, {"BTCUSDT": Decimal(1)})
    info = with_plan(whole(), plan, inputs={}, targets={}, strategy_digest="5f3a")
    other = LEG._replace(size=Decimal("39.5"))
    altered = [
        replace(info, legs=()),
        replace(info, legs=(LegRecord(LEG), LegRecord(LEG))),
        replace(info, legs=(LegRecord(other),)),
        replace(info, skipped=()),
        replace(info, stops={}),
        replace(info, residuals={}),
    ]
    found = [each.plan_digest for each in altered]
    assert info.plan_digest not in found
    assert found == [replace(each, pinned=None).plan_digest for each in altered]
    moved = info.changed(stage=CycleStage.DONE, legs=(LegRecord(LEG, (PLANNED,)),))
    assert moved.plan_digest == info.plan_digest == replace(moved, pinned=None).plan_digest


# --- what should be held --------------------------------------------------------------------------


def test_what_should_be_held_is_the_basis_and_what_was_booked_since() -> None:
    basis = Holding(CYCLE, {"SOLUSDT": Decimal("16.3"), "BTCUSDT": Decimal("0.01")})
    buy = LEG._replace(symbol="ADAUSDT", side=Side.BUY)
    records = (
        LegRecord(LEG, (replace(SLICE, filled_size=Decimal("16.3")),)),
        LegRecord(buy, (replace(SLICE, filled_size=Decimal(7)), PLANNED)),
        LegRecord(buy._replace(symbol="XRPUSDT"), (PLANNED,)),
    )
    info = replace(whole(), basis=basis, legs=records, held_after=None)
    assert info.expected() == Holding(CYCLE, {"BTCUSDT": Decimal("0.01"), "ADAUSDT": Decimal(7)})


def test_what_was_seen_after_the_cycle_counts_more_and_without_a_plan_the_letters_before() -> None:
    info = whole()
    assert info.expected() == info.held_after
    assert replace(info, basis=None, held_after=None).expected() == info.held_before
    assert requested("2611211102-ab3x", CYCLE, 17, 3, 40).expected() is None


def note(kind: str, expected: str, actual: str, seconds: int, symbol: str = "SOLUSDT") -> Noted:
    at = CYCLE + timedelta(seconds=seconds)
    return Noted(kind, symbol, Decimal(expected), Decimal(actual), "seen", at)


@pytest.mark.parametrize(
    ("noted", "sizes"),
    [
        ((), {"SOLUSDT": "10", "BTCUSDT": "0.01"}),
        ((note("manual_trade", "10", "7", 1),), {"SOLUSDT": "7", "BTCUSDT": "0.01"}),
        ((note("manual_trade", "10", "7", 0),), {"SOLUSDT": "10", "BTCUSDT": "0.01"}),  # before it
        ((note("unexplained", "10", "7", 1),), {"SOLUSDT": "10", "BTCUSDT": "0.01"}),
        ((note("manual_trade", "12", "10", 1),), {"SOLUSDT": "10", "BTCUSDT": "0.01"}),  # it knew
        (
            (note("manual_trade", "12", "10", 1), note("manual_trade", "0", "4", 1, "ADAUSDT")),
            {"SOLUSDT": "10", "BTCUSDT": "0.01", "ADAUSDT": "4"},
        ),
        (
            (note("manual_trade", "3", "0", 1, "ADAUSDT"),),  # nor was there any when it began
            {"SOLUSDT": "10", "BTCUSDT": "0.01"},
        ),
        ((note("liquidation", "10", "0", 1),), {"BTCUSDT": "0.01"}),
        (
            (note("foreign_order", "0", "3", 1), note("manual_trade", "0", "4", 1, "ADAUSDT")),
            {"SOLUSDT": "10", "BTCUSDT": "0.01", "ADAUSDT": "4"},
        ),
        (
            (note("manual_trade", "10", "7", 1), note("manual_trade", "7", "5", 2)),
            {"SOLUSDT": "5", "BTCUSDT": "0.01"},
        ),
        ((note("transfer", "0", "500", 1, ""),), {"SOLUSDT": "10", "BTCUSDT": "0.01"}),  # money
    ],
)
def test_A28_what_others_are_known_to_have_moved_is_not_found_again(
    noted: tuple[Noted, ...], sizes: dict[str, str]
) -> None:
    basis = Holding(CYCLE, {"SOLUSDT": Decimal(10), "BTCUSDT": Decimal("0.01")})
    info = replace(whole(), basis=basis, held_after=None, legs=(LegRecord(LEG),), noted=noted)
    assert info.leads_to() == Holding(CYCLE, {name: Decimal(size) for name, size in sizes.items()})


def test_what_was_seen_after_the_cycle_has_everything_in_it() -> None:
    info = replace(whole(), noted=(note("manual_trade", "10", "7", 1),))
    assert info.leads_to() == info.held_after
    unplanned = replace(info, basis=None, held_after=None)
    assert unplanned.held_before is not None
    began = unplanned.held_before.at
    assert unplanned.leads_to() == Holding(began, {"SOLUSDT": Decimal("13.4")}), "three less"
    assert replace(unplanned, noted=()).leads_to() == info.held_before
    assert replace(unplanned, held_before=None).leads_to() is None


def test_replacing_one_leg_leaves_the_others_and_changes_what_else_is_said() -> None:
    other = LegRecord(LEG._replace(leg_id="ADAUSDT-open", symbol="ADAUSDT"))
    info = replace(whole(), legs=(LegRecord(LEG), other))
    over = given_up(other, "too old")
    found = info.with_legs({"ADAUSDT-open": over}, stage=CycleStage.DONE, reason="so it is")
    assert found.legs == (info.legs[0], over)
    assert (found.stage, found.reason) == (CycleStage.DONE, "so it is")
    assert found.revision == info.revision + 1


def test_a_rest_of_less_than_one_coin_is_a_slice_too() -> None:
    record = LegRecord(LEG._replace(size=Decimal("0.3")))
    part = next_slice(record, Decimal(9), lambda leg_id, number: f"{leg_id}-{number}").current
    assert part == Slice(0, "SOLUSDT-open-0", Decimal("0.3"))


def test_wanted_stops_are_those_that_had_to_be_rounded_since() -> None:
    info = replace(whole(), stops={"SOLUSDT": LEG.stops, "ADAUSDT": StopPrices(Decimal("0.3"))})
    assert info.wanted_stops() == {
        "SOLUSDT": StopPrices(None, Decimal("120.6")),
        "ADAUSDT": StopPrices(Decimal("0.3")),
    }


# --- a leg that is given up, and reports ----------------------------------------------------------


@pytest.mark.parametrize("state", list(LegState))
def test_giving_a_leg_up_ends_the_slice_that_did_not_leave_and_no_other(state: LegState) -> None:
    record = LegRecord(LEG, (SLICE, replace(PLANNED, state=state)))
    over = given_up(record, "too old")
    assert over.abandoned == "too old"
    assert over.state is LegState.ABANDONED
    ended = LegState.ABANDONED if state is LegState.PLANNED else state
    assert over.slices == (SLICE, replace(PLANNED, state=ended))
    assert over.is_over is ended.is_terminal


def test_a_leg_without_a_slice_can_be_given_up() -> None:
    assert given_up(LegRecord(LEG), "no margin") == LegRecord(LEG, (), "no margin")


def report(filled: Decimal, status: OrderStatus = OrderStatus.PARTIALLY_FILLED) -> OrderReport:
    return OrderReport(
        order_id="70009",
        client_id=PLANNED.client_id,
        symbol="SOLUSDT",
        side=Side.SELL,
        status=status,
        size=PLANNED.size,
        filled_size=filled,
        average_price=Decimal("151.35"),
        fee=Decimal("-0.11"),
        realized_pnl=Decimal(0),
        reduce_only=True,
        source="normal",
        created_at=CYCLE,
        updated_at=CYCLE,
    )


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (OrderStatus.LIVE, LegState.ACKNOWLEDGED),
        (OrderStatus.PARTIALLY_FILLED, LegState.ACKNOWLEDGED),
        (OrderStatus.FILLED, LegState.FILLED),
        (OrderStatus.CANCELED, LegState.ABANDONED),
    ],
)
@pytest.mark.parametrize("before", [LegState.SENT, LegState.UNKNOWN, LegState.ACKNOWLEDGED])
def test_a_report_is_booked_whole(before: LegState, status: OrderStatus, state: LegState) -> None:
    waiting = LegRecord(LEG, (SLICE, replace(PLANNED, state=before)))
    found = with_report(waiting, report(Decimal("11.2"), status))
    booked = replace(
        PLANNED,
        state=state,
        order_id="70009",
        filled_size=Decimal("11.2"),
        average_price=Decimal("151.35"),
        fee=Decimal("-0.11"),
    )
    assert found.slices == (SLICE, booked)


def test_B3_more_executed_than_sent_halts_beyond_what_a_price_can_do() -> None:
    waiting = LegRecord(LEG, (SLICE, replace(PLANNED, state=LegState.SENT)))
    most = PLANNED.size * OVERFILL
    assert with_report(waiting, report(most)).filled_size == SLICE.filled_size + most
    with pytest.raises(InvariantViolated):
        with_report(waiting, report(most + Decimal("0.001")))


def test_a_filled_order_is_done_though_it_was_a_little_more_or_less_than_its_size() -> None:
    part = replace(PLANNED, state=LegState.FILLED, filled_size=Decimal("29.1"))
    less = LegRecord(LEG._replace(size=Decimal("29.4")), (part,))
    assert (less.done_size, less.is_over) == (Decimal("29.4"), True)
    more = LegRecord(less.leg, (replace(part, filled_size=Decimal("29.7")),))
    assert (more.done_size, more.filled_size) == (Decimal("29.7"), Decimal("29.7"))


def test_a_sized_leg_is_carried_out_as_it_was_sized() -> None:
    record = whole().legs[0]
    assert record.sized is not None
    assert (record.size, record.stops) == (record.sized.size, record.sized.stops)
    assert record.carried == LEG._replace(size=record.sized.size, stops=record.sized.stops)
    plain = LegRecord(LEG)
    assert (plain.size, plain.stops, plain.carried) == (LEG.size, LEG.stops, LEG)
