"""Just at a limit and just beyond it: ages, sizes that agree, prices at which a stop has fired."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.model.accounts import BillKind, SymbolSettings
from module.model.orders import RULED_OUT, Fill, FillCause, Side, StopPrices
from tests.unit.trading.execution.desk import Desk, wanted
from tests.unit.trading.execution.test_reconcile import AT, bill, closed, fill
from trading.execution.freshness import (
    CLOCK_BACK_MAX_S,
    FIRST_ORDER_AGE_MAX_S,
    LOOK_AGAIN_S,
    OPENING_AGE_MAX_S,
    SPENT,
    STALE,
    agree,
    changed_symbols,
    is_stale,
    must_be_proven,
    must_look_again,
    thrown_away,
    too_old_to_begin,
    too_old_to_open,
)
from trading.execution.reconcile import (
    CORRECTIONS_MAX,
    Difference,
    Evidence,
    Finding,
    Verdict,
    classify,
    differences,
    judge,
    transfers,
)
from trading.execution.scribe import SETTINGS_AGE_MAX_S, Known
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    CycleStage,
    Holding,
    OrderInfo,
    Slice,
    given_up,
    requested,
)

ZERO = Decimal(0)
LOT = Decimal("0.1")
MOMENT = timedelta(milliseconds=1)


def letter() -> OrderInfo:
    """ETHUSDT is to be closed, SOLUSDT opened; nothing has left."""
    desk = Desk()
    desk.trade(wanted({"ETHUSDT": "0.3"}))
    return desk.planned(wanted({"SOLUSDT": "0.25"}))


def blank() -> OrderInfo:
    return requested("2611211102-ab3x", AT, 1, 3, 0)


def slice_of(state: LegState) -> Slice:
    return Slice(0, "af-1", Decimal(1), state)


# --- ages -----------------------------------------------------------------------------------------


def test_C8_a_plan_may_begin_to_the_last_moment_of_its_time() -> None:
    info = letter()
    assert info.basis is not None
    last = info.basis.at + timedelta(seconds=FIRST_ORDER_AGE_MAX_S)
    assert too_old_to_begin(info, last) == ""
    assert too_old_to_begin(info, last + MOMENT).startswith(STALE)
    assert too_old_to_begin(blank(), last + MOMENT) == "", "nothing says how old it is"
    record = replace(info.legs[0], slices=(slice_of(LegState.SENT),))
    begun = info.with_legs({record.leg.leg_id: record})
    assert too_old_to_begin(begun, last + MOMENT) == "", "what has begun is finished"


def with_slices(info: OrderInfo, *parts: Slice) -> OrderInfo:
    record = replace(info.legs[0], slices=parts)
    return info.with_legs({record.leg.leg_id: record})


@pytest.mark.parametrize(
    ("part", "has_begun"),
    [
        (slice_of(LegState.PLANNED), False),
        (slice_of(LegState.SENT), True),
        (slice_of(LegState.UNKNOWN), True),
        (slice_of(LegState.ACKNOWLEDGED), True),
        (slice_of(LegState.REJECTED), True),
        (slice_of(LegState.FILLED), True),
        (slice_of(LegState.ABANDONED), False),
        (replace(slice_of(LegState.ABANDONED), code=RULED_OUT), False),
        (replace(slice_of(LegState.ABANDONED), order_id="70001"), True),
        (replace(slice_of(LegState.ABANDONED), filled_size=Decimal("0.1")), True),
    ],
)
def test_C8_what_is_proven_absent_has_not_begun_a_plan(part: Slice, has_begun: bool) -> None:
    info = with_slices(letter(), part)
    assert info.basis is not None
    late = info.basis.at + timedelta(seconds=FIRST_ORDER_AGE_MAX_S) + MOMENT
    assert info.has_begun is has_begun
    assert bool(too_old_to_begin(info, late)) is not has_begun
    spent = part.state is LegState.ABANDONED and not has_begun
    assert too_old_to_begin(info, late).startswith(SPENT) is spent
    given = replace(info.legs[0], abandoned=f"{SPENT}: old")
    assert thrown_away(info.with_legs({given.leg.leg_id: given})) == (
        "" if has_begun else "spent-plan: old"
    )


@pytest.mark.parametrize("unproven", [LegState.SENT, LegState.UNKNOWN])
def test_C8_only_a_plan_too_old_to_begin_waits_for_the_proof_whether_it_has(
    unproven: LegState,
) -> None:
    info = with_slices(letter(), slice_of(unproven))
    assert info.basis is not None
    last = info.basis.at + timedelta(seconds=FIRST_ORDER_AGE_MAX_S)
    assert not must_be_proven(info, last)
    assert must_be_proven(info, last + MOMENT)
    assert must_be_proven(info, last, FIRST_ORDER_AGE_MAX_S + 1)
    absent = slice_of(LegState.ABANDONED)
    assert must_be_proven(with_slices(info, absent, slice_of(unproven)), last + MOMENT)
    known = with_slices(info, slice_of(LegState.FILLED), slice_of(unproven))
    assert not must_be_proven(known, last + MOMENT), "it has begun: others go on"
    assert not must_be_proven(with_slices(info, absent), last + MOMENT)
    assert not must_be_proven(letter(), last + MOMENT)


def test_C8_nothing_more_opens_after_its_time() -> None:
    info = letter()
    assert info.basis is not None
    last = info.basis.at + timedelta(seconds=OPENING_AGE_MAX_S)
    assert too_old_to_open(info, last) == ""
    assert too_old_to_open(info, last + MOMENT) != ""
    assert too_old_to_open(blank(), last + MOMENT) == ""


def test_C8_a_clock_that_was_set_back_a_little_is_no_matter() -> None:
    info = letter()
    assert info.basis is not None
    least = info.basis.at - timedelta(seconds=CLOCK_BACK_MAX_S)
    assert too_old_to_begin(info, least) == ""
    assert too_old_to_open(info, least) == ""
    why = too_old_to_begin(info, least - MOMENT)
    assert why.startswith(STALE)
    assert f" {CLOCK_BACK_MAX_S:.1f} s from now" in why
    assert too_old_to_open(info, least - MOMENT) != ""


def test_A15_a_plan_that_is_not_of_just_now_is_compared_once_more() -> None:
    info = letter()
    assert info.basis is not None
    last = info.basis.at + timedelta(seconds=LOOK_AGAIN_S)
    assert not must_look_again(info, last)
    assert must_look_again(info, last + MOMENT)
    assert not must_look_again(replace(info, legs=()), last + MOMENT), "nothing would be sent"
    assert not must_look_again(replace(info, basis=None), last + MOMENT)


def test_only_a_letter_that_was_dropped_as_stale_is_planned_anew() -> None:
    info = letter()
    assert is_stale(info.changed(stage=CycleStage.DROPPED, reason=f"{STALE}: old"))
    assert not is_stale(info.changed(stage=CycleStage.DONE, reason=f"{STALE}: old"))
    assert not is_stale(info.changed(stage=CycleStage.DROPPED, reason=f"not {STALE}"))


def test_a_plan_that_was_thrown_away_says_why_unless_something_has_left() -> None:
    info = letter()
    first, second = info.legs
    late = given_up(second, f"{STALE}: old")
    assert thrown_away(info) == ""
    assert thrown_away(info.with_legs({late.leg.leg_id: late})) == f"{STALE}: old"
    other = given_up(second, "no margin left")
    assert thrown_away(info.with_legs({other.leg.leg_id: other})) == ""
    left = replace(first, slices=(slice_of(LegState.SENT),))
    both = {left.leg.leg_id: left, late.leg.leg_id: late}
    assert thrown_away(info.with_legs(both)) == ""


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "actual", "lot", "agrees"),
    [
        ("10", "10", "0", True),
        ("10", "10.2", "0.1", True),  # 2 %
        ("10", "9.8", "0.1", True),
        ("10", "10.21", "0.1", False),
        ("-10", "-9.79", "0.1", False),
        ("-10", "-9.8", "0.1", True),
        ("10", "10.5", "0.5", True),  # a lot
        ("10", "10.51", "0.5", False),
        ("0.04", "-0.04", "0.1", False),  # the other side, though within a lot
        ("0", "0.1", "0.1", True),
        ("0.1", "0", "0.1", True),
        ("0", "0.11", "0.1", False),
    ],
)
def test_B13_sizes_agree_within_a_lot_or_two_percent_on_one_side(
    expected: str, actual: str, lot: str, agrees: bool
) -> None:
    assert agree(Decimal(expected), Decimal(actual), Decimal(lot)) is agrees


def test_B12_only_the_plans_symbols_with_a_known_end_are_compared() -> None:
    desk = Desk()
    desk.trade(wanted({"ETHUSDT": "0.3", "BTCUSDT": "0.2"}))
    info = desk.planned(wanted({"SOLUSDT": "0.25", "BTCUSDT": "0.2"}))  # BTC is left as it is
    assert {record.leg.symbol for record in info.legs} == {"ETHUSDT", "SOLUSDT"}
    empty = replace(desk.exchange.snapshot(), positions=())
    lots = dict.fromkeys(("ETHUSDT", "SOLUSDT", "BTCUSDT"), Decimal("0.001"))
    assert changed_symbols(info, desk.exchange.snapshot(), lots) == {}
    changed = changed_symbols(info, empty, lots)
    assert list(changed) == ["ETHUSDT"]
    (close,) = (record for record in info.legs if record.leg.symbol == "ETHUSDT")
    assert changed["ETHUSDT"].endswith(f"is 0, by the letter {close.leg.size.normalize():f}")
    waiting = replace(close, slices=(slice_of(LegState.UNKNOWN),))
    assert changed_symbols(info.with_legs({close.leg.leg_id: waiting}), empty, lots) == {}
    assert changed_symbols(blank(), empty, lots) == {}
    assert list(changed_symbols(info, empty, {})) == ["ETHUSDT"], (
        "of unknown rules nothing is let by"
    )
    huge = {"ETHUSDT": close.leg.size}
    assert changed_symbols(info, empty, huge) == {}, "a lot may be missing"


# --- what a difference is -------------------------------------------------------------------------


def kind_of(
    should: str, held: str, evidence: Evidence, stops: StopPrices | None, lot: Decimal = LOT
) -> Difference:
    found = {"SOLUSDT": (Decimal(should), Decimal(held))}
    wanted_stops = {} if stops is None else {"SOLUSDT": stops}
    (finding,) = classify(found, evidence, {"SOLUSDT": lot}, wanted_stops)
    return finding.kind


LONG = StopPrices(Decimal(140), Decimal(170))
SHORT = StopPrices(Decimal(170), Decimal(140))


@pytest.mark.parametrize(
    ("should", "stops", "price", "kind"),
    [
        ("10", LONG, "142.8", Difference.STOP_LOSS),  # 2 % before it
        ("10", LONG, "142.81", Difference.MANUAL_TRADE),
        ("10", LONG, "99", Difference.STOP_LOSS),
        ("10", LONG, "166.6", Difference.TAKE_PROFIT),
        ("10", LONG, "166.59", Difference.MANUAL_TRADE),
        ("10", LONG, "199", Difference.TAKE_PROFIT),
        ("-10", SHORT, "166.6", Difference.STOP_LOSS),
        ("-10", SHORT, "166.59", Difference.MANUAL_TRADE),
        ("-10", SHORT, "199", Difference.STOP_LOSS),
        ("-10", SHORT, "142.8", Difference.TAKE_PROFIT),
        ("-10", SHORT, "142.81", Difference.MANUAL_TRADE),
        ("10", StopPrices(Decimal(140), None), "199", Difference.MANUAL_TRADE),
        ("10", StopPrices(None, Decimal(170)), "99", Difference.MANUAL_TRADE),
        ("10", None, "139", Difference.MANUAL_TRADE),
    ],
)
def test_a_stop_has_fired_where_its_price_was_reached(
    should: str, stops: StopPrices | None, price: str, kind: Difference
) -> None:
    side = Side.SELL if should == "10" else Side.BUY
    assert kind_of(should, "0", Evidence([fill("10", side, price)]), stops) is kind
    assert kind_of(should, "0", Evidence(closed=[closed(price)]), stops) is kind


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        ("0.2", Difference.STOP_LOSS),  # a coin's stop leaves what is off the lot
        ("-0.2", Difference.STOP_LOSS),
        ("0.3", Difference.MANUAL_TRADE),
    ],
)
def test_a_stop_ends_a_position_but_for_what_is_off_the_lot(held: str, kind: Difference) -> None:
    sold = fill(str(Decimal(10) - Decimal(held)), price="139")
    assert kind_of("10", held, Evidence([sold]), LONG) is kind


@pytest.mark.parametrize(
    ("should", "side", "price", "kind"),
    [
        ("0.05", Side.SELL, "139", Difference.STOP_LOSS),
        ("0.05", Side.SELL, "171", Difference.TAKE_PROFIT),
        ("-0.05", Side.BUY, "171", Difference.STOP_LOSS),
        ("-0.05", Side.BUY, "139", Difference.TAKE_PROFIT),
    ],
)
def test_a_stop_of_less_than_one_coin_fires_as_any_other(
    should: str, side: Side, price: str, kind: Difference
) -> None:
    stops = LONG if should == "0.05" else SHORT
    evidence = Evidence([fill("0.05", side, price)])
    assert kind_of(should, "0", evidence, stops, Decimal("0.001")) is kind


def test_a_small_difference_of_less_than_one_coin_is_small() -> None:
    small = kind_of("0.5", "0.495", Evidence(), None, Decimal("0.001"))
    assert small is Difference.SMALL


def test_one_of_several_fills_at_the_stop_is_enough_and_the_last_close_counts() -> None:
    parts = [fill("4", price="150", trade_id="t-1"), fill("6", price="139", trade_id="t-2")]
    assert kind_of("10", "0", Evidence(parts), LONG) is Difference.STOP_LOSS
    last = Evidence(closed=[closed("155"), closed("139")])
    assert kind_of("10", "0", last, LONG) is Difference.STOP_LOSS
    first = Evidence(closed=[closed("139"), closed("155")])
    assert kind_of("10", "0", first, LONG) is Difference.MANUAL_TRADE


def test_a_closed_position_explains_nothing_that_is_still_or_newly_held() -> None:
    evidence = Evidence(closed=[closed("139")])
    assert kind_of("10", "3", evidence, LONG) is Difference.UNEXPLAINED
    assert kind_of("0", "3", evidence, LONG) is Difference.UNEXPLAINED
    elsewhere = Evidence(closed=[replace(closed("139"), symbol="ETHUSDT")])
    assert kind_of("10", "0", elsewhere, LONG) is Difference.UNEXPLAINED


@pytest.mark.parametrize(
    ("sold", "explained"), [("3.1", True), ("2.9", True), ("3.11", False), ("2.89", False)]
)
def test_fills_explain_a_difference_to_the_lot(sold: str, explained: bool) -> None:
    kind = kind_of("10", "7", Evidence([fill(sold)]), LONG)
    assert kind is (Difference.MANUAL_TRADE if explained else Difference.UNEXPLAINED)


@pytest.mark.parametrize(
    ("sold", "explained"), [("102", True), ("98", True), ("102.1", False), ("97.9", False)]
)
def test_fills_explain_a_large_difference_to_two_percent(sold: str, explained: bool) -> None:
    kind = kind_of("300", "200", Evidence([fill(sold)]), LONG)
    assert kind is (Difference.MANUAL_TRADE if explained else Difference.UNEXPLAINED)


@pytest.mark.parametrize(
    ("amount", "moved"), [("3", True), ("3.06", True), ("2.94", True), ("3.07", False)]
)
def test_a_transfer_of_the_coin_explains_what_it_moved(amount: str, moved: bool) -> None:
    evidence = Evidence(bills=[bill(BillKind.TRANSFER, amount, "SOL")])
    kind = kind_of("10", "13", evidence, LONG)
    assert kind is (Difference.TRANSFER if moved else Difference.UNEXPLAINED)
    fee = Evidence(bills=[bill(BillKind.FUNDING, amount, "SOL")])
    assert kind_of("10", "13", fee, LONG) is Difference.UNEXPLAINED
    other = Evidence(bills=[bill(BillKind.TRANSFER, amount, "ETH")])
    assert kind_of("10", "13", other, LONG) is Difference.UNEXPLAINED


def test_a_liquidation_counts_more_than_a_deleveraging_and_both_more_than_a_hand() -> None:
    def forced(cause: FillCause, number: int) -> Fill:
        return fill("5", cause=cause, trade_id=f"t-{number}")

    both = Evidence([forced(FillCause.ADL, 1), forced(FillCause.LIQUIDATION, 2)])
    assert kind_of("10", "0", both, LONG) is Difference.LIQUIDATION
    hand = Evidence([forced(FillCause.ORDER, 1), forced(FillCause.ADL, 2)])
    assert kind_of("10", "0", hand, LONG) is Difference.ADL
    wallet = Evidence(bills=[bill(BillKind.LIQUIDATION)])
    assert kind_of("10", "4", wallet, LONG) is Difference.PARTIAL_LIQUIDATION
    elsewhere = Evidence(bills=[bill(BillKind.LIQUIDATION, symbol="ETHUSDT")])
    assert kind_of("10", "4", elsewhere, LONG) is Difference.UNEXPLAINED
    own = [fill("5", cause=FillCause.LIQUIDATION, order_id="own")]
    known = Evidence(own, own_orders=frozenset({"own"}))
    assert kind_of("10", "5", known, LONG) is Difference.UNEXPLAINED


def test_other_symbols_fills_explain_nothing() -> None:
    other = replace(fill("3"), symbol="ETHUSDT")
    assert kind_of("10", "7", Evidence([other]), LONG) is Difference.UNEXPLAINED


def test_a_fill_at_just_the_last_look_is_after_it() -> None:
    at_once = fill("3", at=AT, trade_id="t-1")
    before = fill("2", at=AT - MOMENT, trade_id="t-2", cause=FillCause.LIQUIDATION)
    evidence = Evidence([at_once, before], since=AT)
    assert kind_of("10", "7", evidence, LONG) is Difference.MANUAL_TRADE
    assert kind_of("10", "5", evidence, LONG) is Difference.PARTIAL_LIQUIDATION


def test_every_difference_is_found_in_order_and_says_its_sizes() -> None:
    should = Holding(AT, {"ETHUSDT": Decimal(1), "BTCUSDT": Decimal(2), "XRPUSDT": Decimal(5)})
    held = Holding(AT, {"ETHUSDT": Decimal(1), "ADAUSDT": Decimal(-3), "XRPUSDT": Decimal(6)})
    found = differences(should, held, uncertain=["XRPUSDT"])
    assert list(found.items()) == [
        ("ADAUSDT", (ZERO, Decimal(-3))),
        ("BTCUSDT", (Decimal(2), ZERO)),
    ]
    findings = classify(found, Evidence(), {}, {})
    assert [(each.symbol, each.expected, each.actual) for each in findings] == [
        ("ADAUSDT", ZERO, Decimal(-3)),
        ("BTCUSDT", Decimal(2), ZERO),
    ]
    noted = findings[0].noted(AT)
    assert (noted.kind, noted.symbol, noted.expected, noted.actual, noted.detail, noted.at) == (
        "unexplained", "ADAUSDT", ZERO, Decimal(-3), "ADAUSDT is -3, by the letters 0", AT,
    )  # fmt: skip


def test_transfers_say_how_much_of_what() -> None:
    incoming = replace(bill(BillKind.TRANSFER, "500"), bill_id="b-2")
    found = transfers([bill(BillKind.TRANSFER, "-7"), incoming])
    assert found == (
        Finding(Difference.TRANSFER, "", ZERO, Decimal(-7), "-7 USDT (transfer)"),
        Finding(Difference.TRANSFER, "", ZERO, Decimal(500), "500 USDT (transfer)"),
    )


def test_A28_what_was_corrected_before_is_counted_on_by_symbol() -> None:
    def hand(symbol: str) -> Finding:
        return Finding(Difference.MANUAL_TRADE, symbol, ZERO, Decimal(1), "by hand")

    verdict = judge([hand("SOLUSDT")], {"SOLUSDT": CORRECTIONS_MAX, "ETHUSDT": CORRECTIONS_MAX})
    assert verdict.corrections == {"SOLUSDT": CORRECTIONS_MAX + 1, "ETHUSDT": CORRECTIONS_MAX}
    assert list(verdict.frozen) == ["SOLUSDT"]
    assert judge((), {}) == Verdict()


# --- what is known of just before -----------------------------------------------------------------


def test_A21_a_reading_of_settings_holds_for_its_time_and_its_symbols() -> None:
    desk = Desk()
    settings: dict[str, SymbolSettings] = dict(
        desk.exchange.symbol_settings(["SOLUSDT", "ETHUSDT"])
    )
    known = Known(AT, {}, settings)
    last = AT + timedelta(seconds=SETTINGS_AGE_MAX_S)
    assert known.settings_of(["SOLUSDT"], last) == settings
    assert known.settings_of(["SOLUSDT"], last + MOMENT) is None
    assert known.settings_of(["SOLUSDT", "BTCUSDT"], AT) is None
    assert known.settings_of([], AT) == settings
