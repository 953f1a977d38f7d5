"""Group A from A18 on: money, rules, settings, time and other people around an order."""

from __future__ import annotations

from decimal import Decimal

import pytest

from module.model.errors import InvalidInput
from module.simulator.wire.wire_answer import Ending
from tests.contract.simulator.test_faults_group_a import (
    CANCEL,
    DETAIL,
    LEVERAGE,
    PLACE,
    POSITIONS,
    accepted,
    buy,
    code,
    far_price,
    limit,
)
from tests.fakes.paper_exchange import BTC, MIX, SPOT, USDT, market_order
from tests.fakes.paper_venue import PaperVenue

pytestmark = pytest.mark.timeout(60)


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
