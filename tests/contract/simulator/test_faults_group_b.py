"""Every fault of group B (fills, positions, stops) as a client sees it, and its count."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from module.simulator.faults.fault_catalogue import CATALOGUE
from module.simulator.wire.wire_answer import Ending, Reply
from tests.fakes.paper_exchange import BTC, MIX, SPOT, USDT, market_order
from tests.fakes.paper_venue import PaperVenue

pytestmark = pytest.mark.timeout(60)
PLACE = f"{MIX}/order/place-order"
DETAIL = f"{MIX}/order/detail"
FILLS = f"{MIX}/order/fills"
POSITIONS = f"{MIX}/position/all-position"
STOP = f"{MIX}/order/place-tpsl-order"
PLANS = f"{MIX}/order/orders-plan-pending"


def price(paper: PaperVenue, share: str) -> str:
    last = paper.engine.last_price("BTCUSDT")
    return str((last * Decimal(share)).quantize(Decimal("0.1")))


def hold(paper: PaperVenue, size: str = "0.01", client_id: str = "entry", **more: object) -> None:
    """A long position, filled."""
    paper.post(PLACE, **market_order("buy", size, clientOid=client_id, **more))
    paper.advance(1)


def protect(paper: PaperVenue, share: str = "0.9", **more: object) -> Reply:
    words = {
        **BTC,
        "planType": "pos_loss",
        "holdSide": "buy",
        "triggerPrice": price(paper, share),
        "triggerType": "mark_price",
    }
    return paper.call("POST", STOP, {**words, **more})


def code(reply: Reply) -> str:
    assert reply.ending is Ending.ANSWERED
    return str(json.loads(reply.answer.body)["code"])


def plans(paper: PaperVenue) -> list[Any]:
    words = {**USDT, "planType": "profit_loss"}
    return paper.get(PLANS, **words)["entrustedList"] or []


def total(paper: PaperVenue) -> str:
    rows = paper.get(POSITIONS, **USDT)
    return str(rows[0]["total"]) if rows else "0"


def test_B1_a_part_fills_and_the_rest_is_cancelled(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="B1", share="0.35")
    hold(paper, "0.02")
    row = paper.get(DETAIL, symbol="BTCUSDT", clientOid="entry", **USDT)
    assert (row["state"], row["baseVolume"], total(paper)) == ("canceled", "0.007", "0.007")
    assert rule.fired == 1
    paper.engine.ledger.audit()


def test_B2_a_fill_is_missing_from_the_list_for_a_while(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="B2", lag_s=10)
    assert paper.get(FILLS, **USDT)["fillList"] is None
    assert rule.fired == 0
    hold(paper)
    assert paper.get(FILLS, **USDT) == {"fillList": None, "endId": None}
    assert (total(paper), rule.fired) == ("0.01", 1)
    paper.advance(10)
    assert len(paper.get(FILLS, **USDT)["fillList"]) == 1
    assert rule.fired == 1


@pytest.mark.parametrize(("variant", "rows", "ids"), [("repeated", 3, 1), ("renumbered", 2, 2)])
def test_B3_a_fill_is_told_more_than_once(
    paper: PaperVenue, variant: str, rows: int, ids: int
) -> None:
    (rule,) = paper.fault(catalogue="B3", variant=variant)
    assert paper.get(FILLS, **USDT)["fillList"] is None
    hold(paper)
    listed = paper.get(FILLS, **USDT)["fillList"]
    assert (len(listed), len({row["tradeId"] for row in listed}), rule.fired) == (rows, ids, 1)
    assert len(paper.get(FILLS, **USDT)["fillList"]) == 1


def test_B4_a_fill_is_there_before_the_order_is_acknowledged(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="B4")
    paper.post(PLACE, **market_order("buy", "0.01", clientOid="early"))
    order = paper.engine.order(paper.account_id, client_id="early")
    assert (order.status.value, order.updated_ms) == ("filled", order.created_ms)
    assert rule.fired == 1


@pytest.mark.parametrize(("variant", "state"), [("backwards", "live"), ("cancelled", "canceled")])
def test_B4_a_filled_order_is_shown_in_an_earlier_state_once(
    paper: PaperVenue, variant: str, state: str
) -> None:
    (rule,) = paper.fault(catalogue="B4", variant=variant)
    hold(paper)
    words = {"symbol": "BTCUSDT", "clientOid": "entry", **USDT}
    row = paper.get(DETAIL, **words)
    assert (row["state"], row["baseVolume"], rule.fired) == (state, "0", 1)
    assert paper.get(DETAIL, **words)["state"] == "filled"
    assert rule.fired == 1


@pytest.mark.parametrize(("variant", "stops"), [("done", 1), ("not_done", 0)])
def test_B5_the_answer_to_a_stop_is_lost(paper: PaperVenue, variant: str, stops: int) -> None:
    hold(paper)
    (rule,) = paper.fault(catalogue="B5", variant=variant)
    assert protect(paper).ending is Ending.RESET
    assert (len(plans(paper)), rule.fired) == (stops, 1)


@pytest.mark.parametrize("wanted", ["40834", "40836", "40917", "45062", "45122"])
def test_B6_a_stop_is_refused_for_the_wrong_side(paper: PaperVenue, wanted: str) -> None:
    hold(paper)
    (rule,) = paper.fault(catalogue="B6", variant=wanted)
    assert code(protect(paper)) == wanted
    assert (plans(paper), rule.fired) == ([], 1)


def test_B6_a_stop_is_refused_because_the_price_really_moved(paper: PaperVenue) -> None:
    hold(paper)
    (rule,) = paper.fault(catalogue="B6", variant="moved", factor="0.85")
    before = paper.engine.last_price("BTCUSDT")
    assert code(protect(paper)) == "40917"
    assert paper.engine.last_price("BTCUSDT") < before * Decimal("0.86")
    assert rule.fired == 1


@pytest.mark.parametrize("wanted", ["43031", "40890", "43071"])
def test_B7_a_stop_is_refused_for_other_reasons(paper: PaperVenue, wanted: str) -> None:
    hold(paper)
    (rule,) = paper.fault(catalogue="B7", variant=wanted)
    assert code(protect(paper)) == wanted
    assert (plans(paper), rule.fired) == ([], 1)


def test_B8_a_stop_is_still_listed_after_its_position(paper: PaperVenue) -> None:
    hold(paper)
    protect(paper)
    (rule,) = paper.fault(catalogue="B8", lag_s=30)
    assert (len(plans(paper)), rule.fired) == (1, 0)
    paper.post(f"{MIX}/order/close-positions", **USDT)
    paper.advance(1)
    (left,) = plans(paper)
    assert (left["planType"], left["planStatus"], rule.fired) == ("pos_loss", "live", 1)
    paper.advance(30)
    assert (plans(paper), rule.fired) == ([], 1)


def test_B8_a_stop_is_really_left_behind_and_can_be_cancelled(paper: PaperVenue) -> None:
    hold(paper)
    protect(paper)
    (rule,) = paper.fault(catalogue="B8", variant="really")
    assert (len(plans(paper)), rule.fired) == (1, 0)
    paper.post(f"{MIX}/order/close-positions", **USDT)
    paper.advance(1)
    (left,) = plans(paper)
    assert rule.fired == 1
    words = {**BTC, "planType": "pos_loss", "orderId": left["orderId"]}
    paper.post(f"{MIX}/order/cancel-plan-order", **words)
    assert plans(paper) == []


@pytest.mark.parametrize(("variant", "ending"), [("refused", None), ("lost", Ending.RESET)])
def test_B9_the_old_stop_is_cancelled_and_the_new_one_fails(
    paper: PaperVenue, variant: str, ending: Ending | None
) -> None:
    hold(paper)
    (rule,) = paper.fault(catalogue="B9", variant=variant)
    assert code(protect(paper)) == "00000"
    assert rule.fired == 0
    reply = protect(paper, "0.95")
    assert reply.ending is ending or code(reply) == "40725"
    assert (plans(paper), rule.fired) == ([], 1)


@pytest.mark.parametrize("variant", ["cancelled", "opened"])
def test_B10_a_position_stands_there_without_a_stop(paper: PaperVenue, variant: str) -> None:
    if variant == "cancelled":
        hold(paper, presetStopLossPrice=price(paper, "0.9"))
        assert len(plans(paper)) == 1
    (rule,) = paper.fault(catalogue="B10", variant=variant, symbol="BTCUSDT")
    (row,) = paper.get(f"{MIX}/position/single-position", **BTC)
    assert (row["stopLoss"], plans(paper), rule.fired) == ("", [], 1)


@pytest.mark.parametrize("variant", ["liquidated", "deleveraged"])
def test_B11_a_position_goes_between_two_requests(paper: PaperVenue, variant: str) -> None:
    (rule,) = paper.fault(catalogue="B11", variant=variant)
    assert total(paper) == "0"
    assert rule.fired == 0
    hold(paper, presetStopLossPrice=price(paper, "0.9"))
    close = market_order("sell", "0.01", clientOid="late", reduceOnly="YES")
    assert code(paper.call("POST", PLACE, close)) == "22002"
    assert (total(paper), plans(paper), rule.fired) == ("0", [], 1)
    assert paper.get(FILLS, **USDT)["fillList"][0]["tradeSide"] == (
        "burst_sell_single" if variant == "liquidated" else "dte_sys_adl_sell_out_single_side_mode"
    )
    paper.engine.ledger.audit()


def test_B11_a_take_profit_fires_between_two_requests(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="B11", variant="profit")
    hold(paper, presetStopSurplusPrice=price(paper, "1.2"), presetStopLossPrice=price(paper, "0.9"))
    assert total(paper) == "0.01"  # the close is on its way
    paper.advance(1)
    assert (total(paper), plans(paper), rule.fired) == ("0", [], 1)
    sources = {order.source.value for order in paper.engine.all_orders(paper.account_id)}
    assert "pos_profit_market" in sources


def test_B12_a_partial_liquidation_halves_a_position(paper: PaperVenue) -> None:
    hold(paper, "0.03")
    (rule,) = paper.fault(catalogue="B12")
    assert (total(paper), rule.fired) == ("0.015", 1)
    assert paper.get(FILLS, **USDT)["fillList"][0]["tradeSide"] == "reduce_sell_single"
    paper.engine.ledger.audit()


@pytest.mark.parametrize(("variant", "left"), [("lot", "0.0301"), ("third", "0.021")])
def test_B13_a_position_differs_from_what_was_booked(
    paper: PaperVenue, variant: str, left: str
) -> None:
    hold(paper, "0.03")
    (rule,) = paper.fault(catalogue="B13", variant=variant)
    assert (total(paper), rule.fired) == (left, 1)
    foreign = paper.engine.all_orders(paper.account_id)[-1]
    assert foreign.client_id.startswith("web-")


def test_B13_a_coin_differs_by_dust(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="B13", variant="dust")
    rows = paper.get(f"{SPOT}/account/assets", coin="BTC")
    assert (rows[0]["available"], rule.fired) == ("0.99999999", 1)
    paper.engine.ledger.audit()


@pytest.mark.parametrize(("variant", "fires"), [("last", False), ("mark", True)])
def test_B14_a_stop_on_the_mark_looks_at_the_mark_alone(
    paper: PaperVenue, variant: str, fires: bool
) -> None:
    hold(paper)
    assert code(protect(paper, "0.97")) == "00000"
    (rule,) = paper.fault(catalogue="B14", variant=variant, factor="0.96")
    assert total(paper) == "0.01"
    row = paper.get(f"{MIX}/market/symbol-price", symbol="BTCUSDT", **USDT)[0]
    last, mark = Decimal(row["price"]), Decimal(row["markPrice"])
    assert (last < mark * Decimal("0.98")) == (variant == "last")
    assert (mark < last * Decimal("0.98")) == (variant == "mark")
    paper.advance(1)
    assert (total(paper), rule.fired) == ("0" if fires else "0.01", 1)


def test_B15_a_stop_fires_and_its_order_is_refused(paper: PaperVenue) -> None:
    hold(paper)
    protect(paper)
    (rule,) = paper.fault(catalogue="B15")
    paper.fault(at_s=1, effect="jump", factor="0.8", symbol="BTCUSDT")
    paper.advance(10)
    assert (total(paper), plans(paper), rule.fired) == ("0.01", [], 1)
    words = {**USDT, "planType": "profit_loss", "planStatus": "fail_execute"}
    listed = paper.get(f"{MIX}/order/orders-plan-history", **words)["entrustedList"]
    assert [row["planType"] for row in listed] == ["pos_loss"]


def test_B16_funding_settles_between_two_requests(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="B16", rate="0.01")
    assert total(paper) == "0"
    assert rule.fired == 0
    hold(paper)
    words = {**USDT, "businessType": "contract_settle_fee"}
    (bill,) = paper.get(f"{MIX}/account/bill", **words)["bills"]
    assert Decimal(bill["amount"]) < -5
    assert rule.fired == 1


def test_B17_a_position_shrinks_under_its_stop(paper: PaperVenue) -> None:
    hold(paper, "0.04")
    assert code(protect(paper, planType="loss_plan", size="0.04")) == "00000"
    (rule,) = paper.fault(catalogue="B17", share="0.75")
    assert (total(paper), rule.fired) == ("0.01", 1)
    (stop,) = plans(paper)
    assert stop["size"] == "0.04"


def test_every_entry_of_group_B_can_be_injected() -> None:
    assert [fault for fault, entry in CATALOGUE.items() if fault[0] == "B" and entry.excuse] == []
