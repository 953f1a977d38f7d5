"""Every fault of group A that an exchange can cause, as a client sees it, and its count.

In this process, without a socket: a Reply says how a request ended.
"""

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
BATCH = f"{MIX}/order/batch-place-order"
DETAIL = f"{MIX}/order/detail"
CANCEL = f"{MIX}/order/cancel-order"
POSITIONS = f"{MIX}/position/all-position"
LEVERAGE = f"{MIX}/account/set-leverage"


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
