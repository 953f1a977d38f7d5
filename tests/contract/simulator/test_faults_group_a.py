"""Every fault of group A that an exchange can cause, as a client sees it, and its count.

In this process, without a socket: a Reply says how a request ended.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from module.model.errors import InvalidInput
from module.simulator.faults.fault_catalogue import CATALOGUE
from module.simulator.wire.wire_answer import Ending, Reply
from tests.fakes.paper_exchange import BTC, MIX, SPOT, USDT, market_order
from tests.fakes.paper_venue import PaperVenue

pytestmark = pytest.mark.timeout(60)
PLACE = f"{MIX}/order/place-order"
BATCH = f"{MIX}/order/batch-place-order"
DETAIL = f"{MIX}/order/detail"
CANCEL = f"{MIX}/order/cancel-order"
POSITIONS = f"{MIX}/position/all-position"
LEVERAGE = f"{MIX}/account/set-leverage"


@pytest.fixture
def paper() -> PaperVenue:
    return PaperVenue()


def buy(paper: PaperVenue, client_id: str, size: str = "0.01", **more: object) -> Reply:
    return paper.call("POST", PLACE, market_order("buy", size, clientOid=client_id, **more))


def limit(client_id: str, price: str, size: str = "0.01") -> dict[str, object]:
    words = market_order("buy", size, clientOid=client_id)
    return {**words, "orderType": "limit", "price": price, "force": "gtc"}


def far_price(paper: PaperVenue) -> str:
    return str((paper.engine.last_price("BTCUSDT") * Decimal("0.97")).quantize(Decimal("0.1")))


def legs(*client_ids: str) -> dict[str, object]:
    rows = [
        {"side": "buy", "orderType": "market", "size": "0.01", "clientOid": client_id}
        for client_id in client_ids
    ]
    return {**BTC, "marginMode": "crossed", "orderList": rows}


def accepted(paper: PaperVenue) -> list[str]:
    return [order.client_id for order in paper.engine.all_orders(paper.account_id)]


def code(reply: Reply) -> str:
    assert reply.ending is Ending.ANSWERED
    return str(json.loads(reply.answer.body)["code"])


def detail_code(paper: PaperVenue, client_id: str) -> str:
    words = {"symbol": "BTCUSDT", "clientOid": client_id, **USDT}
    return code(paper.call("GET", DETAIL, words))


@pytest.mark.parametrize(
    ("variant", "ending"), [("reset", Ending.RESET), ("silence", Ending.SILENT)]
)
def test_A1_an_accepted_orders_answer_is_lost_and_only_an_accepted_ones(
    paper: PaperVenue, variant: str, ending: Ending
) -> None:
    (rule,) = paper.fault(catalogue="A1", variant=variant)
    assert code(buy(paper, "refused", size="0.00001")) == "45111"
    assert (rule.seen, rule.fired) == (1, 0)
    assert buy(paper, "lost").ending is ending
    assert (rule.fired, accepted(paper)) == (1, ["lost"])
    assert code(buy(paper, "lost")) == "40786"


def test_A2_a_batch_arrives_in_part_and_fills_and_nobody_is_told(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A2", leg=2)
    assert paper.call("POST", BATCH, legs("a", "b", "c")).ending is Ending.RESET
    assert (accepted(paper), rule.fired) == (["a", "b"], 1)
    (position,) = paper.get(POSITIONS, **USDT)
    assert position["total"] == "0.02"


def test_A2_an_order_fills_and_is_closed_again_before_its_answer_is_lost(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A2", variant="closed")
    assert buy(paper, "gone").ending is Ending.RESET
    assert (paper.get(POSITIONS, **USDT), rule.fired) == ([], 1)
    assert len(paper.engine.position_history(paper.account_id)) == 1
    paper.engine.ledger.audit()


def test_A3_a_request_arrives_eight_seconds_late(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A3")
    assert buy(paper, "late").ending is Ending.RESET
    assert (rule.fired, accepted(paper)) == (1, [])
    assert detail_code(paper, "late") == "40109"
    paper.advance(7.999)
    assert accepted(paper) == []
    paper.advance(0.001)
    assert accepted(paper) == ["late"]
    order = paper.engine.order(paper.account_id, client_id="late")
    assert order.created_ms == paper.venue.now_ms


def test_A3_what_comes_after_its_receive_window_or_stamp_never_arrives(paper: PaperVenue) -> None:
    paper.fault(catalogue="A3", count=3)
    now_ms = paper.venue.now_ms
    words = {"symbol": "BTCUSDT", "side": "buy", "orderType": "market", "size": "100"}
    for client_id, window_ms in (("short", 5000), ("long", 9000)):
        sent = {"requestTime": str(now_ms), "receiveWindow": str(window_ms), "clientOid": client_id}
        paper.call("POST", f"{SPOT}/trade/place-order", {**words, **sent})
    paper.call("POST", PLACE, market_order("buy", "0.01", clientOid="old"), now_ms - 25_000)
    paper.advance(20)
    orders = [order["clientOid"] for order in paper.get(f"{SPOT}/trade/history-orders")]
    assert (orders, accepted(paper)) == (["long"], [])


@pytest.mark.parametrize(
    ("variant", "ending", "kept"),
    [
        ("reset", Ending.RESET, ["x"]),
        ("cut", Ending.CUT, ["x"]),
        ("never_read", Ending.RESET, []),
    ],
)
def test_A4_the_connection_is_reset(
    paper: PaperVenue, variant: str, ending: Ending, kept: list[str]
) -> None:
    (rule,) = paper.fault(catalogue="A4", variant=variant)
    assert buy(paper, "x").ending is ending
    assert (accepted(paper), rule.fired) == (kept, 1)


@pytest.mark.parametrize("variant", list(CATALOGUE["A5"].variants))
def test_A5_a_200_that_is_no_answer(paper: PaperVenue, variant: str) -> None:
    (rule,) = paper.fault(catalogue="A5", variant=variant)
    reply = buy(paper, "x")
    assert (reply.answer.status, rule.fired, accepted(paper)) == (200, 1, ["x"])
    body, kind = reply.answer.body, reply.answer.content_type
    match variant:
        case "html":
            assert (body[:6], kind) == (b"<html>", "text/html")
        case "empty":
            assert body == b""
        case "truncated":
            with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
                json.loads(body)
        case "null":
            assert json.loads(body)["data"] is None
        case _:
            assert (json.loads(body)["code"], kind) == ("00000", "text/plain")


@pytest.mark.parametrize("wanted", list(CATALOGUE["A6"].variants))
def test_A6_each_duplicate_code_for_an_order_that_was_taken(paper: PaperVenue, wanted: str) -> None:
    (rule,) = paper.fault(catalogue="A6", variant=wanted)
    assert code(buy(paper, "twice")) == wanted
    assert (accepted(paper), rule.fired) == (["twice"], 1)


def batch_answer(paper: PaperVenue, *client_ids: str) -> tuple[list[str], list[str]]:
    data = paper.post(BATCH, **legs(*client_ids))
    lists: list[Any] = [data["successList"], data["failureList"]]
    done, failed = ([row["clientOid"] for row in rows] for rows in lists)
    return done, failed


@pytest.mark.parametrize(
    ("variant", "done", "failed"),
    [("lost", ["a", "c"], []), ("both", ["a", "b", "c"], ["b"]), ("mixed", ["a", "c"], ["b"])],
)
def test_A7_a_leg_in_neither_list_in_both_or_refused(
    paper: PaperVenue, variant: str, done: list[str], failed: list[str]
) -> None:
    (rule,) = paper.fault(catalogue="A7", variant=variant, leg=1)
    assert code(buy(paper, "single")) == "00000"
    assert batch_answer(paper, "a", "b", "c") == (done, failed)
    assert rule.fired == 1
    assert ("b" in accepted(paper)) == (variant != "mixed")


def test_A8_a_shuffle_counts_only_when_the_order_changed(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A8")
    assert batch_answer(paper, "alone") == (["alone"], [])
    assert rule.fired == 0
    assert batch_answer(paper, "a", "b", "c")[0] == ["c", "b", "a"]
    assert rule.fired == 1


@pytest.mark.parametrize(("variant", "echoed"), [("case", "AbC-7"), ("cut", "aBc-")])
def test_A8_client_ids_come_back_wrong(paper: PaperVenue, variant: str, echoed: str) -> None:
    (rule,) = paper.fault(catalogue="A8", variant=variant)
    data = paper.post(PLACE, **market_order("buy", "0.01", clientOid="aBc-7"))
    assert (data["clientOid"], rule.fired) == (echoed, 1)


def test_A9_reads_do_not_know_a_young_order_anywhere(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A9", lag_s=3)
    paper.post(PLACE, **limit("young", far_price(paper)))
    pending, history = f"{MIX}/order/orders-pending", f"{MIX}/order/orders-history"
    assert detail_code(paper, "young") == "40109"
    assert paper.get(pending, **USDT) == {"entrustedList": None, "endId": None}
    assert rule.fired == 2
    assert paper.get(history, **USDT)["entrustedList"] is None
    assert rule.fired == 2
    paper.advance(3)
    assert detail_code(paper, "young") == "00000"
    assert len(paper.get(pending, **USDT)["entrustedList"]) == 1
    assert rule.fired == 2


def test_A10_questions_after_an_order_find_no_connection(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A10", count=3)
    words = {"symbol": "BTCUSDT", "clientOid": "x", **USDT}
    assert code(paper.call("GET", DETAIL, words)) == "40109"
    assert code(buy(paper, "x")) == "00000"
    endings = [paper.call("GET", DETAIL, words).ending for _ in range(4)]
    assert endings == [Ending.RESET] * 3 + [Ending.ANSWERED]
    assert rule.fired == 3


@pytest.mark.parametrize("wanted", list(CATALOGUE["A11"].variants))
def test_A11_each_code_that_proves_nothing(paper: PaperVenue, wanted: str) -> None:
    (rule,) = paper.fault(catalogue="A11", variant=wanted)
    assert code(buy(paper, "x")) == wanted
    assert (accepted(paper), rule.fired) == (["x"], 1)


def test_A12_429_says_when_to_come_back(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A12", nth=2)
    assert code(buy(paper, "first")) == "00000"
    answer = buy(paper, "second").answer
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert (accepted(paper), rule.fired) == (["first"], 1)


@pytest.mark.parametrize("banned", ["418", "403"])
def test_A13_429_then_429_in_the_body_then_a_ban_of_two_minutes(
    paper: PaperVenue, banned: str
) -> None:
    rules = paper.fault(catalogue="A13", variant=banned)
    replies = [buy(paper, f"x{number}") for number in range(4)]
    statuses = [reply.answer.status for reply in replies]
    assert statuses == [429, 200, int(banned), int(banned)]
    assert "retry-after" not in replies[0].answer.headers
    assert code(replies[1]) == "429"
    paper.advance(119)
    assert paper.call("GET", f"{MIX}/market/tickers", USDT).answer.status == int(banned)
    paper.advance(1)
    assert code(buy(paper, "free")) == "00000"
    assert [rule.fired for rule in rules] == [1, 1, 3]
    assert accepted(paper) == ["free"]


@pytest.mark.parametrize("variant", ["503", "40200", "45043"])
def test_A14_maintenance_lasts_ten_minutes_of_world_time(paper: PaperVenue, variant: str) -> None:
    (rule,) = paper.fault(catalogue="A14", variant=variant)
    for _ in range(2):
        reply = paper.call("GET", POSITIONS, USDT)
        assert reply.answer.status == 503 if variant == "503" else code(reply) == variant
        paper.advance(599.999 / 2)
    paper.advance(0.002)
    assert paper.get(POSITIONS, **USDT) == []
    assert rule.fired == 2


def test_A15_maintenance_begins_between_the_read_and_the_order(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A15", variant="40200", nth=2)
    assert paper.get(POSITIONS, **USDT) == []
    assert code(buy(paper, "first")) == "00000"
    assert code(buy(paper, "second")) == "40200"
    assert code(paper.call("GET", POSITIONS, USDT)) == "40200"
    paper.advance(600)
    assert code(buy(paper, "third")) == "00000"
    assert (accepted(paper), rule.fired) == (["first", "third"], 2)


@pytest.mark.parametrize("wanted", list(CATALOGUE["A16"].variants))
def test_A16_a_dead_key_is_refused_everywhere_but_in_public(paper: PaperVenue, wanted: str) -> None:
    (rule,) = paper.fault(catalogue="A16", variant=wanted, nth=2)
    assert code(buy(paper, "alive")) == "00000"
    assert code(buy(paper, "dead")) == wanted
    assert code(paper.call("GET", POSITIONS, USDT)) == wanted
    assert len(paper.get(f"{MIX}/market/tickers", **USDT)) > 1
    assert (accepted(paper), rule.fired) == (["alive"], 2)


def test_A18_the_coins_are_gone_between_two_orders(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A18", variant="spot", nth=2)
    order = {"symbol": "BTCUSDT", "side": "buy", "orderType": "market", "size": "100"}
    spot = f"{SPOT}/trade/place-order"
    codes = [code(paper.call("POST", spot, order)) for _ in range(2)]
    assert (codes, rule.fired) == (["00000", "43012"], 1)
    paper.engine.ledger.audit()


def test_A18_the_money_is_gone_between_two_legs(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A18", nth=2)
    assert code(buy(paper, "first")) == "00000"
    assert code(buy(paper, "second")) == "40762"
    assert rule.fired == 1
    (bill, *_) = paper.get(f"{MIX}/account/bill", **USDT)["bills"]
    assert bill["businessType"] == "trans_to_exchange"
    paper.engine.ledger.audit()
    paper.advance(1)
    assert code(buy(paper, "third")) == "40762"


@pytest.mark.parametrize(
    ("variant", "size", "wanted"),
    [("lot", "0.0101", "22038"), ("minimum", "0.0003", "45110")],
)
def test_A19_the_rules_of_a_contract_change(
    paper: PaperVenue, variant: str, size: str, wanted: str
) -> None:
    (rule,) = paper.fault(catalogue="A19", variant=variant, nth=2)
    assert code(buy(paper, "before", size=size)) == "00000"
    assert code(buy(paper, "after", size=size)) == wanted
    assert rule.fired == 1


def test_A19_what_is_held_off_the_new_lot_can_be_closed_whole_and_only_whole(
    paper: PaperVenue,
) -> None:
    assert code(buy(paper, "held", size="0.0123")) == "00000"
    paper.advance(1)
    paper.fault(catalogue="A19", variant="lot")
    assert code(buy(paper, "finds-the-new-lot", size="0.0101")) == "22038"
    close = {**market_order("sell", "0.0101"), "reduceOnly": "YES"}
    assert code(paper.call("POST", PLACE, {**close, "clientOid": "part"})) == "22038"
    whole = {**close, "size": "0.0123", "clientOid": "whole"}
    assert code(paper.call("POST", PLACE, whole)) == "00000"
    paper.advance(1)
    assert paper.get(f"{MIX}/position/all-position", **USDT) == []


@pytest.mark.parametrize(
    ("variant", "words", "wanted"),
    [
        ("spot_lot", {"size": "0.000105"}, "40808"),
        ("spot_minimum", {"size": "0.0001"}, "45110"),
        ("spot_tick", {"size": "0.001", "price": "80000.1"}, "40808"),
    ],
)
def test_A19_the_rules_of_a_pair_change(
    paper: PaperVenue, variant: str, words: dict[str, str], wanted: str
) -> None:
    spot = f"{SPOT}/trade/place-order"
    kind = {"orderType": "limit", "force": "gtc"} if "price" in words else {"orderType": "market"}
    order = {"symbol": "BTCUSDT", "side": "sell", **kind, **words}
    if "price" in words:
        order["side"] = "buy"
    (rule,) = paper.fault(catalogue="A19", variant=variant, nth=2)
    assert code(paper.call("POST", spot, order)) == "00000"
    assert code(paper.call("POST", spot, order)) == wanted
    assert rule.fired == 1


def test_A19_a_new_tick_is_in_the_contracts_and_refuses_old_prices(paper: PaperVenue) -> None:
    price = Decimal(far_price(paper)).quantize(Decimal(1)) + Decimal("0.1")
    (rule,) = paper.fault(catalogue="A19", variant="tick")
    assert code(paper.call("POST", PLACE, limit("old", str(price)))) == "45115"
    (row,) = paper.get(f"{MIX}/market/contracts", symbol="BTCUSDT", **USDT)
    assert (row["pricePlace"], row["priceEndStep"], rule.fired) == ("1", "10", 1)


def test_A20_a_suspended_symbol_comes_back_and_orders_wait(paper: PaperVenue) -> None:
    paper.post(PLACE, **limit("waits", far_price(paper)))
    (rule,) = paper.fault(catalogue="A20", variant="suspended", halt_s=90)
    assert code(buy(paper, "closed")) == "40844"
    (row,) = paper.get(f"{MIX}/market/contracts", symbol="BTCUSDT", **USDT)
    assert row["symbolStatus"] == "maintain"
    paper.advance(90)
    assert code(buy(paper, "open")) == "00000"
    assert (accepted(paper), rule.fired) == (["waits", "open"], 1)


def test_A20_a_delisted_symbol_is_over_and_what_was_held_is_settled(paper: PaperVenue) -> None:
    buy(paper, "held")
    paper.post(PLACE, **limit("rests", far_price(paper)))
    paper.advance(1)
    (rule,) = paper.fault(catalogue="A20", variant="delisted", symbol="BTCUSDT")
    assert code(buy(paper, "over")) == "40309"
    assert (paper.get(POSITIONS, **USDT), rule.fired) == ([], 1)
    assert detail_state(paper, "rests") == "canceled"
    (row,) = paper.get(f"{MIX}/market/contracts", symbol="BTCUSDT", **USDT)
    assert row["symbolStatus"] == "off"
    paper.engine.ledger.audit()
    paper.advance(3600)
    assert code(buy(paper, "still")) == "40309"
    eth = {**market_order("buy", "0.1", clientOid="other"), "symbol": "ETHUSDT"}
    assert code(paper.call("POST", PLACE, eth)) == "00000"


def test_A21_a_setting_is_made_and_nobody_is_told(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A21")
    reply = paper.call("POST", LEVERAGE, {**BTC, "leverage": "7"})
    assert (reply.ending, rule.fired) == (Ending.RESET, 1)
    assert paper.engine.leverage(paper.account_id, "BTCUSDT").crossed == 7


@pytest.mark.parametrize("wanted", ["45117", "40920"])
def test_A21_a_setting_is_refused_as_busy(paper: PaperVenue, wanted: str) -> None:
    before = paper.engine.leverage(paper.account_id, "BTCUSDT").crossed
    (rule,) = paper.fault(catalogue="A21", variant=wanted)
    assert code(paper.call("POST", LEVERAGE, {**BTC, "leverage": "7"})) == wanted
    assert paper.engine.leverage(paper.account_id, "BTCUSDT").crossed == before
    assert rule.fired == 1


def test_A22_the_position_mode_is_switched_from_outside(paper: PaperVenue) -> None:
    buy(paper, "held")
    paper.advance(1)
    (rule,) = paper.fault(catalogue="A22")
    assert code(buy(paper, "more")) == "00000"
    assert rule.fired == 0
    paper.advance(1)
    paper.post(f"{MIX}/order/close-positions", **USDT)
    paper.advance(1)
    assert code(buy(paper, "again")) == "40774"
    assert rule.fired == 1


def test_A23_the_exchanges_clock_is_forty_seconds_ahead(paper: PaperVenue) -> None:
    paper.wall_ms = paper.venue.now_ms
    assert code(buy(paper, "before")) == "00000"
    (rule,) = paper.fault(catalogue="A23", skew_s=40, until_s=100)
    told_ms = int(paper.get("/api/v2/public/time")["serverTime"])
    assert told_ms == paper.venue.now_ms + 40_000
    assert code(buy(paper, "skewed")) == "40008"
    assert rule.fired == 2
    corrected = market_order("buy", "0.01", clientOid="corrected")
    assert code(paper.call("POST", PLACE, corrected, told_ms)) == "00000"
    assert rule.fired == 2
    paper.advance(101)
    assert code(buy(paper, "after")) == "00000"


def test_A24_answers_come_late_for_five_minutes(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A24")
    reply = buy(paper, "slow")
    assert (reply.ending, reply.delay_s, code(reply)) == (Ending.ANSWERED, 25, "00000")
    paper.advance(300)
    assert (buy(paper, "quick").delay_s, rule.fired) == (0, 1)


def test_A26_an_order_is_taken_with_another_size_and_echoed_as_usual(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A26", factor="1.5")
    data = paper.post(PLACE, **market_order("buy", "0.01", clientOid="mine"))
    assert (data["clientOid"], rule.fired) == ("mine", 1)
    assert paper.engine.order(paper.account_id, client_id="mine").size == Decimal("0.015")


def test_A26_an_order_is_taken_with_another_price(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A26", variant="price")
    assert code(buy(paper, "no-price")) == "00000"
    assert rule.fired == 0
    price = far_price(paper)
    paper.post(PLACE, **limit("mine", price))
    order = paper.engine.order(paper.account_id, client_id="mine")
    assert order.price == (Decimal(price) * Decimal("0.99")).quantize(Decimal("0.1"), "ROUND_DOWN")
    assert rule.fired == 1


def test_A28_somebody_else_orders_cancels_and_closes(paper: PaperVenue) -> None:
    (order,) = paper.fault(catalogue="A28", variant="order", amount="0.02", side="sell")
    symbol = {"symbol": "BTCUSDT", **USDT, "marginCoin": "USDT"}
    (row,) = paper.get(f"{MIX}/position/single-position", **symbol)
    assert (row["holdSide"], row["total"], order.fired) == ("short", "0.02", 1)
    assert accepted(paper)[0].startswith("web-")
    (close,) = paper.fault(catalogue="A28", variant="close")
    assert (paper.get(POSITIONS, **USDT), close.fired) == ([], 1)
    (cancel,) = paper.fault(catalogue="A28", variant="cancel")
    assert paper.get(POSITIONS, **USDT) == []
    assert cancel.fired == 0
    paper.post(PLACE, **limit("mine", far_price(paper)))
    assert paper.get(POSITIONS, **USDT) == []
    assert (detail_state(paper, "mine"), cancel.fired) == ("canceled", 1)


def detail_state(paper: PaperVenue, client_id: str) -> str:
    row = paper.get(DETAIL, symbol="BTCUSDT", clientOid=client_id, **USDT)
    return str(row["state"])


def test_A29_an_order_of_an_older_run_lies_in_the_book(paper: PaperVenue) -> None:
    (rule,) = paper.fault(catalogue="A29", client_id="zz-old-", symbol="ETHUSDT")
    assert len(paper.get(f"{MIX}/market/tickers", **USDT)) > 1
    assert rule.fired == 0
    (row,) = paper.get(f"{MIX}/order/orders-pending", symbol="ETHUSDT", **USDT)["entrustedList"]
    assert (row["clientOid"][:7], row["symbol"], rule.fired) == ("zz-old-", "ETHUSDT", 1)


@pytest.mark.parametrize(("variant", "ending"), [("lost", Ending.RESET), ("told", Ending.ANSWERED)])
def test_A30_an_order_fills_while_its_cancel_is_on_the_way(
    paper: PaperVenue, variant: str, ending: Ending
) -> None:
    paper.post(PLACE, **limit("racing", far_price(paper)))
    paper.advance(1)
    (rule,) = paper.fault(catalogue="A30", variant=variant)
    reply = paper.call("POST", CANCEL, {**BTC, "clientOid": "racing"})
    assert (reply.ending, rule.fired) == (ending, 1)
    assert detail_state(paper, "racing") == "filled"
    paper.engine.ledger.audit()


@pytest.mark.parametrize(("variant", "state"), [("filled", "filled"), ("cancelled", "canceled")])
def test_A31_the_cancel_of_an_order_that_has_just_ended(
    paper: PaperVenue, variant: str, state: str
) -> None:
    paper.post(PLACE, **limit("over", far_price(paper)))
    paper.advance(1)
    (rule,) = paper.fault(catalogue="A31", variant=variant)
    assert code(paper.call("POST", CANCEL, {**BTC, "clientOid": "over"})) == "22001"
    assert (detail_state(paper, "over"), rule.fired) == (state, 1)


@pytest.mark.parametrize("wanted", ["43001", "45055", "22001"])
def test_A31_a_cancel_that_worked_is_told_otherwise(paper: PaperVenue, wanted: str) -> None:
    paper.post(PLACE, **limit("over", far_price(paper)))
    (rule,) = paper.fault(catalogue="A31", variant=wanted)
    assert code(paper.call("POST", CANCEL, {**BTC, "clientOid": "never"})) != wanted
    assert rule.fired == 0
    assert code(paper.call("POST", CANCEL, {**BTC, "clientOid": "over"})) == wanted
    assert (detail_state(paper, "over"), rule.fired) == ("canceled", 1)


@pytest.mark.parametrize("fault", ["A17", "A25", "A27"])
def test_what_an_exchange_cannot_cause_is_excused_by_name(paper: PaperVenue, fault: str) -> None:
    with pytest.raises(InvalidInput, match=f"{fault} cannot be injected here: .+"):
        paper.fault(catalogue=fault)
