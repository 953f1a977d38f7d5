"""Differences between the letters and the account: each gets its cause, and what follows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from module.model.accounts import Bill, BillKind, ClosedPosition
from module.model.orders import Fill, FillCause, OrderReport, OrderStatus, Side, StopPrices
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.reconcile import (
    CORRECTIONS_MAX,
    Difference,
    Evidence,
    Finding,
    classify,
    differences,
    judge,
    leftovers,
    transfers,
)
from trading.rebalance.order_info import Holding

AT = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
LOT = Decimal("0.1")
STOPS = StopPrices(Decimal(140), Decimal(170))
ZERO = Decimal(0)


def fill(
    size: str,
    side: Side = Side.SELL,
    price: str = "151.37",
    cause: FillCause = FillCause.ORDER,
    trade_id: str = "t-1",
    order_id: str = "foreign",
    at: datetime = AT + timedelta(seconds=7),
) -> Fill:
    amount, each = Decimal(size), Decimal(price)
    return Fill(
        trade_id, order_id, "SOLUSDT", side, each, amount, amount * each, ZERO, "USDT", ZERO, True,
        at, cause,
    )  # fmt: skip


def bill(kind: BillKind, amount: str = "-7", asset: str = "USDT", symbol: str = "SOLUSDT") -> Bill:
    return Bill("b-1", kind, kind.value, symbol, asset, Decimal(amount), ZERO, ZERO, AT)


def closed(price: str) -> ClosedPosition:
    return ClosedPosition(
        "p-1", "SOLUSDT", True, Decimal(150), Decimal(price), Decimal(10), ZERO, ZERO, ZERO, ZERO,
        ZERO, AT, AT,
    )  # fmt: skip


def kind_of(should: str, held: str, evidence: Evidence, lot: Decimal = LOT) -> Difference:
    found = differences(
        Holding(AT, {"SOLUSDT": Decimal(should)}), Holding(AT, {"SOLUSDT": Decimal(held)})
    )
    (finding,) = classify(found, evidence, {"SOLUSDT": lot}, {"SOLUSDT": STOPS})
    return finding.kind


def test_what_is_as_expected_is_no_difference() -> None:
    held = {"SOLUSDT": Decimal("10.0"), "BTCUSDT": Decimal("-0.5")}
    assert differences(Holding(AT, held), Holding(AT, dict(held))) == {}
    assert differences(Holding(AT, held), Holding(AT, {}), uncertain=held) == {}


@pytest.mark.parametrize(
    ("should", "held", "evidence", "kind"),
    [
        ("10", "0", Evidence([fill("10", cause=FillCause.LIQUIDATION)]), Difference.LIQUIDATION),
        (
            "10", "5", Evidence([fill("5", cause=FillCause.LIQUIDATION)]),
            Difference.PARTIAL_LIQUIDATION,
        ),
        ("10", "4", Evidence([fill("6", cause=FillCause.ADL)]), Difference.ADL),
        ("10", "0", Evidence(bills=[bill(BillKind.LIQUIDATION)]), Difference.LIQUIDATION),
        ("10", "0", Evidence([fill("10", price="139.7")]), Difference.STOP_LOSS),
        ("10", "0", Evidence([fill("10", price="131.2")]), Difference.STOP_LOSS),
        ("10", "0", Evidence([fill("10", price="170.4")]), Difference.TAKE_PROFIT),
        ("10", "0", Evidence(closed=[closed("139.9")]), Difference.STOP_LOSS),
        ("10", "0", Evidence(closed=[closed("155.5")]), Difference.MANUAL_TRADE),
        ("10", "0", Evidence([fill("10", price="155.5")]), Difference.MANUAL_TRADE),
        ("10", "7", Evidence([fill("3", price="139.7")]), Difference.MANUAL_TRADE),
        ("10", "13", Evidence([fill("3", Side.BUY)]), Difference.MANUAL_TRADE),
        ("0", "3", Evidence([fill("3", Side.BUY)]), Difference.MANUAL_TRADE),
        ("10", "13", Evidence(bills=[bill(BillKind.TRANSFER, "3", "SOL")]), Difference.TRANSFER),
        ("10", "7", Evidence([fill("3", order_id="own")], own_orders=frozenset({"own"})),
         Difference.UNEXPLAINED),
        ("10", "7", Evidence([fill("9")]), Difference.UNEXPLAINED),
        ("10", "0", Evidence(), Difference.UNEXPLAINED),
    ],
)  # fmt: skip
def test_A28_B11_every_difference_gets_its_cause_by_evidence(
    should: str, held: str, evidence: Evidence, kind: Difference
) -> None:
    assert kind_of(should, held, evidence) is kind


@pytest.mark.parametrize(
    ("held", "evidence", "told"),
    [
        ("0", Evidence([fill("10", price="139.7")]), "its stop loss fired"),
        ("0", Evidence(closed=[closed("170.4")]), "its take profit fired"),
        ("7", Evidence([fill("3")]), "an order that is not this session's"),
        ("4", Evidence([fill("6", cause=FillCause.ADL)]), "closed by force"),
        ("4", Evidence(bills=[bill(BillKind.LIQUIDATION)]), "the wallet shows a liquidation"),
        ("13", Evidence(bills=[bill(BillKind.TRANSFER, "3", "SOL")]), "the coin was transferred"),
    ],
)
def test_the_owner_is_told_what_was_what_should_have_been_and_why(
    held: str, evidence: Evidence, told: str
) -> None:
    found = {"SOLUSDT": (Decimal(10), Decimal(held))}
    (finding,) = classify(found, evidence, {"SOLUSDT": LOT}, {"SOLUSDT": STOPS})
    assert finding.detail == f"SOLUSDT is {held}, by the letters 10: {told}"


def test_a_session_that_stops_names_everything_that_nothing_explains() -> None:
    found = {"BTCUSDT": (ZERO, Decimal(3)), "SOLUSDT": (Decimal(10), Decimal(7))}
    verdict = judge(classify(found, Evidence(), {}, {}), {})
    assert verdict.stop.endswith(
        "explains it: BTCUSDT is 3, by the letters 0; SOLUSDT is 7, by the letters 10"
    )


@pytest.mark.parametrize(
    ("should", "held", "kind"),
    [
        ("10", "10.05", Difference.DUST),
        ("10", "9.9", Difference.ONE_LOT),
        ("10", "10.1", Difference.ONE_LOT),
        ("10", "9.8", Difference.SMALL),
        ("10", "9.7", Difference.UNEXPLAINED),
        ("10", "13", Difference.UNEXPLAINED),
        ("10", "-10", Difference.UNEXPLAINED),
        ("0", "3", Difference.UNEXPLAINED),
        ("0", "0.05", Difference.DUST),
    ],
)
def test_B13_what_nothing_explains_is_judged_by_its_size(
    should: str, held: str, kind: Difference
) -> None:
    assert kind_of(should, held, Evidence()) is kind


def test_B3_a_fill_that_is_listed_three_times_counts_once() -> None:
    assert kind_of("10", "7", Evidence([fill("3")] * 3)) is Difference.MANUAL_TRADE


def test_what_happened_before_the_plans_look_explains_only_what_it_must() -> None:
    before = fill("2", at=AT - timedelta(seconds=3), trade_id="t-0")
    after = fill("3")
    assert kind_of("10", "7", Evidence([before, after], since=AT)) is Difference.MANUAL_TRADE
    assert kind_of("10", "5", Evidence([before, after], since=AT)) is Difference.MANUAL_TRADE
    assert kind_of("10", "2", Evidence([before, after], since=AT)) is Difference.UNEXPLAINED


def test_transfers_are_found_once_each() -> None:
    bills = [bill(BillKind.TRANSFER, "-500")] * 2 + [bill(BillKind.FUNDING)]
    (found,) = transfers(bills)
    assert (found.kind, found.actual) == (Difference.TRANSFER, Decimal(-500))


def test_A29_orders_that_no_letter_waits_for_are_told_apart() -> None:
    desk = Desk()
    letter = desk.trade(wanted({"SOLUSDT": "0.25"}))
    known = letter.leg("SOLUSDT-open").slices[0].client_id

    def order(client_id: str) -> OrderReport:
        return OrderReport(
            "1", client_id, "SOLUSDT", Side.BUY, OrderStatus.LIVE, Decimal(1), ZERO, None, ZERO,
            ZERO, False, "normal", AT, AT,
        )  # fmt: skip

    listed = [order(known), order("afxyz-old"), order("by-hand")]
    mine, others = leftovers(listed, letter, "afxyz-")
    assert [found.client_id for found in mine] == ["afxyz-old"]
    assert [found.client_id for found in others] == ["by-hand"]
    assert len(leftovers(listed, None, "af")[0]) == 2


def finding(kind: Difference, symbol: str = "SOLUSDT") -> Finding:
    return Finding(kind, symbol, Decimal(10), Decimal(5), f"{symbol} is 5")


def test_B13_only_what_nothing_explains_stops_the_session() -> None:
    for kind in Difference:
        verdict = judge([finding(kind)], {})
        assert bool(verdict.stop) is (kind is Difference.UNEXPLAINED)
        assert verdict.frozen == {}


@pytest.mark.parametrize("kind", [Difference.MANUAL_TRADE, Difference.LIQUIDATION, Difference.ADL])
def test_A28_nobody_is_fought_more_than_three_times(kind: Difference) -> None:
    corrections: dict[str, int] = {}
    for cycle in range(1, CORRECTIONS_MAX + 2):
        verdict = judge([finding(kind), finding(kind)], corrections)
        corrections = dict(verdict.corrections)
        assert corrections == {"SOLUSDT": cycle}
        assert bool(verdict.frozen) is (cycle > CORRECTIONS_MAX)
    assert "SOLUSDT" in judge((), corrections).frozen  # and it stays so


def test_a_stop_that_fired_may_be_followed_by_a_new_position_for_ever() -> None:
    verdict = judge([finding(Difference.STOP_LOSS)] * 9, {})
    assert (verdict.frozen, verdict.corrections, verdict.stop) == ({}, {}, "")


SIZES = st.decimals(-50, 50, places=1)


@given(SIZES, SIZES, st.lists(st.tuples(SIZES, st.booleans()), max_size=4))
def test_every_difference_has_exactly_one_cause_and_no_cause_is_invented(
    should: Decimal, held: Decimal, fills: list[tuple[Decimal, bool]]
) -> None:
    evidence = Evidence(
        [
            fill(
                str(abs(size)),
                Side.BUY if size > 0 else Side.SELL,
                trade_id=f"t-{number}",
                order_id="own" if own else "foreign",
            )
            for number, (size, own) in enumerate(fills)
            if size
        ],
        own_orders=frozenset({"own"}),
    )
    found = differences(Holding(AT, {"SOLUSDT": should}), Holding(AT, {"SOLUSDT": held}))
    findings = classify(found, evidence, {"SOLUSDT": LOT}, {})
    assert len(findings) == (should != held)
    foreign = any(size and not own for size, own in fills)
    if findings and findings[0].kind is Difference.MANUAL_TRADE:
        assert foreign
