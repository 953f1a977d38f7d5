"""The account against the letters: what differs is explained by evidence, looked at again before it
stops a session, and orders that nobody waits for are cleared away."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from module.model.accounts import Bill, BillKind, ClosedPosition
from module.model.market import MarketType
from module.model.orders import FillCause, OrderReport, OrderRequest, OrderStatus, Side, StopPrices
from module.model.sessions import installation_prefix
from tests.unit.trading.execution.desk import INSTALLATION, Desk, wanted
from trading.execution.account_review import (
    COIN_FEE_MAX,
    LOOK_AGAIN_S,
    LOOKS_MAX,
    AccountReview,
    Review,
)
from trading.execution.reconcile import (
    CORRECTIONS_MAX,
    EVIDENCE_MARGIN,
    Difference,
    Finding,
    Verdict,
    holding_of,
)
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import Holding, OrderInfo, Slice, from_json, to_json

ZERO = Decimal(0)
MINE = installation_prefix(INSTALLATION)
SOL = {"SOLUSDT": "0.25"}
HELD = Decimal("16.5")
"""What weight 0.25 of SOLUSDT is."""


def done_cycle(desk: Desk, stops: tuple[str | None, str | None] = (None, None)) -> OrderInfo:
    """A cycle that bought 16.5 SOL, and a minute afterwards."""
    letter = desk.trade(wanted(SOL, {"SOLUSDT": stops}))
    assert desk.exchange.held("SOLUSDT") == HELD
    desk.clock.advance(60)
    desk.clock.slept.clear()
    desk.exchange.calls.clear()
    return letter


def review_of(desk: Desk, *recent: OrderInfo, spot: bool = False) -> AccountReview:
    """`recent`: the newest letters, oldest first."""
    rules = desk.rules()
    if spot:
        rules = replace(rules, policy=replace(rules.policy, market=MarketType.SPOT))
    return AccountReview(desk.ports(), rules, desk.exchange.snapshot, lambda: recent)


def compared(desk: Desk, letter: OrderInfo, *, spot: bool = False) -> Review:
    """As a leader that took the letter up would: the account now against what it leads to."""
    held = holding_of(desk.exchange.snapshot())
    review = review_of(desk, letter, spot=spot)
    return review.compare(letter, letter.leads_to(), held, led_by=letter)


def kinds(found: Review) -> list[tuple[str, Difference]]:
    return [(finding.symbol, finding.kind) for finding in found.findings]


def waiting(desk: Desk, client_id: str, side: Side = Side.BUY, filled: str = "0") -> OrderReport:
    """An order of 5 SOL that rests on the exchange."""
    desk.exchange.rest(OrderRequest(client_id, "SOLUSDT", side, Decimal(5), reduce_only=False))
    report = desk.exchange.order("SOLUSDT", client_id)
    return replace(report, filled_size=Decimal(filled), status=OrderStatus.PARTIALLY_FILLED)


# --- positions ------------------------------------------------------------------------------------


def test_an_account_that_is_as_the_letters_say_is_asked_nothing() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    found = compared(desk, letter)
    assert found == Review((), Verdict(), Holding(desk.clock.now(), {"SOLUSDT": HELD}))
    assert desk.exchange.calls == ["snapshot"]
    assert desk.clock.slept == []


def test_A28_a_trade_by_hand_is_named_and_counted() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.outside("SOLUSDT", "-3.5")
    found = compared(desk, letter)
    (finding,) = found.findings
    assert (finding.kind, finding.expected, finding.actual) == (
        Difference.MANUAL_TRADE, HELD, Decimal(13),
    )  # fmt: skip
    assert found.verdict == Verdict("", {}, {"SOLUSDT": 1})
    assert found.held.sizes == {"SOLUSDT": Decimal(13)}
    assert desk.clock.slept == [], "what is explained at once is not looked at again"


def test_A28_the_letters_count_is_counted_on() -> None:
    desk = Desk()
    letter = done_cycle(desk).changed(corrections={"SOLUSDT": CORRECTIONS_MAX})
    desk.exchange.outside("SOLUSDT", "-3.5")
    verdict = compared(desk, letter).verdict
    assert verdict.corrections == {"SOLUSDT": CORRECTIONS_MAX + 1}
    assert list(verdict.frozen) == ["SOLUSDT"]


def test_A28_a_frozen_symbol_stays_frozen_where_nobody_knows_what_should_be_held() -> None:
    desk = Desk()
    letter = done_cycle(desk).changed(corrections={"SOLUSDT": CORRECTIONS_MAX + 1})
    held = holding_of(desk.exchange.snapshot())
    found = review_of(desk).compare(letter, None, held, led_by=letter)
    assert (found.findings, found.held) == ((), held)
    assert list(found.verdict.frozen) == ["SOLUSDT"]
    without = review_of(desk).compare(None, Holding(held.at, {}), held, led_by=None)
    assert without == Review((), Verdict(), held)


def test_fills_that_are_published_late_explain_what_the_first_looks_cannot() -> None:
    """Stopped at the first look, a session would end for every stop that fires at a boundary."""
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.outside("SOLUSDT", "-3.5")
    desk.exchange.fills_hidden_until = desk.clock.now() + timedelta(seconds=1.5)
    found = compared(desk, letter)
    assert kinds(found) == [("SOLUSDT", Difference.MANUAL_TRADE)]
    assert desk.clock.slept == [LOOK_AGAIN_S] * 2
    assert desk.exchange.calls.count("snapshot") == 3


def test_a_position_that_is_shown_late_is_no_difference_in_the_end() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.hold("SOLUSDT", "11")
    desk.clock.after(1.5, lambda: desk.exchange.hold("SOLUSDT", HELD))
    found = compared(desk, letter)
    assert found.findings == ()
    assert found.verdict == Verdict()
    assert found.held == Holding(desk.clock.now(), {"SOLUSDT": HELD})


def test_I16_what_nothing_explains_stops_the_session_after_a_bounded_number_of_looks() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.hold("SOLUSDT", "11")
    desk.clock.after(2.5, lambda: desk.exchange.hold("SOLUSDT", "12"))
    found = compared(desk, letter)
    assert kinds(found) == [("SOLUSDT", Difference.UNEXPLAINED)]
    assert "SOLUSDT is 12, by the letters 16.5" in found.verdict.stop
    assert found.held.sizes == {"SOLUSDT": Decimal(12)}
    assert desk.clock.slept == [LOOK_AGAIN_S] * (LOOKS_MAX - 1)


def test_one_symbol_without_an_explanation_is_enough_to_look_again() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.outside("BTCUSDT", "0.1")
    desk.exchange.hold("SOLUSDT", "11")
    desk.clock.after(0.5, lambda: desk.exchange.hold("SOLUSDT", HELD))
    found = compared(desk, letter)
    assert kinds(found) == [("BTCUSDT", Difference.MANUAL_TRADE)]
    assert desk.clock.slept == [LOOK_AGAIN_S]


def test_a_symbol_whose_order_is_not_resolved_is_not_judged() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    (record,) = letter.legs
    open_slice = replace(record.slices[0], state=LegState.UNKNOWN, filled_size=ZERO)
    waiting = letter.with_legs({record.leg.leg_id: replace(record, slices=(open_slice,))})
    assert compared(desk, waiting).findings == ()
    assert desk.exchange.calls == ["snapshot"]


# --- evidence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [timedelta(0), EVIDENCE_MARGIN])
def test_evidence_is_asked_for_from_a_little_before_the_plans_look(before: timedelta) -> None:
    """Clocks differ: an execution may carry a time before the look that does not show it yet."""
    desk = Desk()
    letter = done_cycle(desk)
    expected = letter.leads_to()
    assert expected is not None
    desk.clock.current = expected.at - before
    desk.exchange.outside("SOLUSDT", "-3.5")
    assert kinds(compared(desk, letter)) == [("SOLUSDT", Difference.MANUAL_TRADE)]


def test_what_happened_longer_before_explains_nothing() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    expected = letter.leads_to()
    assert expected is not None
    now = desk.clock.now()
    desk.clock.current = expected.at - EVIDENCE_MARGIN - timedelta(milliseconds=1)
    desk.exchange.outside("SOLUSDT", "-3.5")
    desk.clock.current = now
    assert kinds(compared(desk, letter)) == [("SOLUSDT", Difference.UNEXPLAINED)]


def test_what_was_there_at_the_plans_look_is_told_from_what_came_after() -> None:
    """What was executed just before the look is in what should be held already."""
    desk = Desk()
    letter = done_cycle(desk)
    expected = letter.leads_to()
    assert expected is not None
    now = desk.clock.now()
    desk.clock.current = expected.at - timedelta(seconds=2)
    desk.exchange.outside("SOLUSDT", "-2")
    desk.exchange.hold("SOLUSDT", HELD)
    desk.clock.current = now
    desk.exchange.outside("SOLUSDT", "-3.5")
    assert kinds(compared(desk, letter)) == [("SOLUSDT", Difference.MANUAL_TRADE)]


def test_B11_a_liquidation_before_the_plans_look_is_not_found_twice() -> None:
    """It was recorded then, and what it had closed was opened again at once."""
    desk = Desk()
    letter = done_cycle(desk)
    expected = letter.leads_to()
    assert expected is not None
    now = desk.clock.now()
    desk.clock.current = expected.at - timedelta(seconds=2)
    desk.exchange.outside("SOLUSDT", "-2", FillCause.LIQUIDATION)
    desk.exchange.outside("SOLUSDT", "2")
    desk.clock.current = now
    desk.exchange.outside("SOLUSDT", "-3.5")
    assert kinds(compared(desk, letter)) == [("SOLUSDT", Difference.MANUAL_TRADE)]


@pytest.mark.parametrize("where", ["the letter", "a letter before it", "the one that led here"])
def test_an_order_of_a_letter_is_nobody_elses_trade(where: str) -> None:
    """Its own order, executed beyond what was booked, is not put down to somebody else: the
    session stops instead of trading it back."""
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.outside("SOLUSDT", "-3.5")
    (fill,) = desk.exchange.fills(letter.cycle)[-1:]
    (record,) = letter.legs
    other = replace(record.slices[0], client_id="af-other", order_id=fill.order_id)
    known = replace(record, slices=(*record.slices, other))
    knowing = letter.with_legs({record.leg.leg_id: known})
    before = timedelta(minutes=1)
    held, expected = holding_of(desk.exchange.snapshot()), letter.leads_to()
    if where == "the letter":
        found = review_of(desk).compare(knowing, expected, held, led_by=None)
    elif where == "a letter before it":
        older = replace(knowing, cycle=letter.cycle - before)
        found = review_of(desk, older).compare(letter, expected, held, led_by=None)
    else:
        found = review_of(desk).compare(letter, expected, held, led_by=knowing)
    assert kinds(found) == [("SOLUSDT", Difference.UNEXPLAINED)]


def test_a_slice_without_an_order_id_is_no_own_order() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    (record,) = letter.legs
    unsent = Slice(1, "af-unsent-1", Decimal(1), LegState.ABANDONED)
    more = replace(record, slices=(*record.slices, unsent))
    desk.exchange.outside("SOLUSDT", "-3.5")
    found = compared(desk, letter.with_legs({record.leg.leg_id: more}))
    assert kinds(found) == [("SOLUSDT", Difference.MANUAL_TRADE)]


def test_B8_the_stop_that_fired_is_the_one_of_the_letter_that_led_here() -> None:
    """The plan made since has another stop, which was never at the exchange."""
    desk = Desk()
    led_by = done_cycle(desk, ("140", None))
    newest = replace(
        led_by,
        cycle=led_by.cycle + timedelta(minutes=1),
        stops={"SOLUSDT": StopPrices(Decimal(120)), "BTCUSDT": StopPrices(Decimal(50_000))},
    )
    desk.exchange.marks["SOLUSDT"] = Decimal(139)
    desk.exchange.outside("SOLUSDT", "-16.5")
    held, expected = holding_of(desk.exchange.snapshot()), led_by.leads_to()
    review = review_of(desk, led_by, newest)
    for known_as in (led_by, None):  # None: only the archive has it
        found = review.compare(newest, expected, held, led_by=known_as)
        assert kinds(found) == [("SOLUSDT", Difference.STOP_LOSS)]
    only_newest = review_of(desk, newest).compare(newest, expected, held, led_by=None)
    assert kinds(only_newest) == [("SOLUSDT", Difference.MANUAL_TRADE)]


def test_B8_an_older_letters_stop_gives_way_to_the_newer_ones() -> None:
    desk = Desk()
    older = done_cycle(desk, ("100", None))
    led_by = replace(
        older,
        cycle=older.cycle + timedelta(minutes=1),
        stops={"SOLUSDT": StopPrices(Decimal(140))},
    )
    newest = replace(led_by, cycle=older.cycle + timedelta(minutes=2))
    desk.exchange.marks["SOLUSDT"] = Decimal(139)
    desk.exchange.outside("SOLUSDT", "-16.5")
    held, expected = holding_of(desk.exchange.snapshot()), older.leads_to()
    for recent in ((older, led_by), (older,)):
        known_as = None if led_by in recent else led_by
        found = review_of(desk, *recent).compare(newest, expected, held, led_by=known_as)
        assert kinds(found) == [("SOLUSDT", Difference.STOP_LOSS)]


def ended(price: str, at: datetime) -> ClosedPosition:
    return ClosedPosition(
        "p-7", "SOLUSDT", True, Decimal(150), Decimal(price), HELD, ZERO, ZERO, ZERO, ZERO,
        ZERO, at, at,
    )  # fmt: skip


def test_B8_where_fills_are_missing_the_list_of_closed_positions_tells() -> None:
    desk = Desk()
    letter = done_cycle(desk, ("140", None))
    desk.exchange.hold("SOLUSDT", "0")
    desk.exchange.ended.append(ended("139.5", desk.clock.now()))
    assert kinds(compared(desk, letter)) == [("SOLUSDT", Difference.STOP_LOSS)]


def bill(kind: BillKind, amount: str, at: datetime, asset: str = "USDT") -> Bill:
    return Bill("b-7", kind, "in", "SOLUSDT", asset, Decimal(amount), ZERO, ZERO, at)


def test_B11_where_fills_are_missing_the_wallet_tells_of_a_liquidation() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.hold("SOLUSDT", "0")
    desk.exchange.billed.append(bill(BillKind.LIQUIDATION, "-2497", desk.clock.now()))
    found = compared(desk, letter)
    assert kinds(found) == [("SOLUSDT", Difference.LIQUIDATION)]
    assert found.verdict.corrections == {"SOLUSDT": 1}


def test_B13_one_lot_is_tolerated_by_the_symbols_own_rules() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.hold("SOLUSDT", "16.6")
    assert kinds(compared(desk, letter)) == [("SOLUSDT", Difference.ONE_LOT)]
    assert desk.clock.slept == []


# --- spot -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        (HELD * (1 - COIN_FEE_MAX), None),  # the purchase's fee
        (HELD * (1 - COIN_FEE_MAX) - Decimal("0.001"), Difference.DUST),
        (HELD + Decimal("0.001"), Difference.DUST),
        (HELD + 3, Difference.TRANSFER),
        (HELD - 3, Difference.UNEXPLAINED),
        (ZERO, Difference.UNEXPLAINED),
    ],
)
def test_on_spot_a_fee_is_no_difference_and_coins_may_come_from_outside(
    held: Decimal, kind: Difference | None
) -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.hold("SOLUSDT", held)
    found = compared(desk, letter, spot=True)
    assert kinds(found) == ([] if kind is None else [("SOLUSDT", kind)])
    assert bool(found.verdict.stop) is (kind is Difference.UNEXPLAINED)


def test_on_spot_a_small_amount_below_one_coin_has_its_fee_too() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    assert letter.basis is not None
    small = replace(letter, held_after=Holding(letter.basis.at, {"SOLUSDT": Decimal("0.5")}))
    desk.exchange.hold("SOLUSDT", "0.4995")
    assert compared(desk, small, spot=True).findings == ()


def test_on_spot_coins_that_were_bought_by_hand_are_no_transfer() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.outside("SOLUSDT", "3")
    assert kinds(compared(desk, letter, spot=True)) == [("SOLUSDT", Difference.MANUAL_TRADE)]


def test_on_spot_a_transfer_says_which_coins() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.hold("SOLUSDT", HELD + 3)
    (finding,) = compared(desk, letter, spot=True).findings
    assert finding == Finding(
        Difference.TRANSFER,
        "SOLUSDT",
        HELD,
        HELD + 3,
        "SOLUSDT is 19.5, by the letters 16.5: coins that no order of this session bought",
    )


def test_on_futures_a_missing_thousandth_is_told_and_more_is_unexplained() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.hold("SOLUSDT", HELD * (1 - COIN_FEE_MAX))
    assert kinds(compared(desk, letter)) == [("SOLUSDT", Difference.DUST)]
    desk.exchange.hold("SOLUSDT", HELD + 3)
    assert kinds(compared(desk, letter)) == [("SOLUSDT", Difference.UNEXPLAINED)]


# --- at a start -----------------------------------------------------------------------------------


def at_start(desk: Desk, letter: OrderInfo | None, *recent: OrderInfo) -> Review:
    return review_of(desk, *recent).at_start(letter, desk.exchange.snapshot())


def test_a_session_that_never_traded_takes_the_account_as_it_is() -> None:
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "3")
    desk.exchange.billed.append(bill(BillKind.TRANSFER, "-500", desk.clock.now()))
    waiting(desk, "by-hand")
    found = at_start(desk, None)
    assert kinds(found) == [("SOLUSDT", Difference.FOREIGN_ORDER)]
    assert (found.verdict, found.held.sizes) == (Verdict(), {"SOLUSDT": Decimal(3)})


def test_A29_at_a_start_positions_transfers_and_orders_are_gone_through() -> None:
    desk = Desk()
    letter = done_cycle(desk, ("140", None))
    expected = letter.leads_to()
    assert expected is not None
    desk.exchange.marks["SOLUSDT"] = Decimal(139)
    desk.exchange.outside("SOLUSDT", "-16.5")
    waiting(desk, f"{MINE}old-1")
    waiting(desk, letter.legs[0].slices[0].client_id)  # the letter sees to it
    desk.exchange.billed += [
        bill(BillKind.TRANSFER, "-500", expected.at),
        replace(bill(BillKind.TRANSFER, "-9", expected.at - timedelta(seconds=1)), bill_id="b-0"),
    ]
    found = at_start(desk, letter, letter)
    assert kinds(found) == [
        ("SOLUSDT", Difference.STOP_LOSS),
        ("", Difference.TRANSFER),
        ("SOLUSDT", Difference.LEFTOVER_ORDER),
    ]
    assert found.findings[1].actual == Decimal(-500)
    assert found.held.sizes == {}
    assert desk.exchange.canceled == [f"{MINE}old-1"]


def test_what_was_found_already_is_not_found_again_at_the_next_start() -> None:
    desk = Desk()
    letter = done_cycle(desk)
    desk.exchange.outside("SOLUSDT", "-3.5")
    first = at_start(desk, letter, letter)
    now = desk.clock.now()
    told = letter.changed(noted=tuple(finding.noted(now) for finding in first.findings))
    told = from_json(to_json(told))
    assert [item.kind for item in told.noted] == ["manual_trade"]
    assert at_start(desk, told, told).findings == ()
