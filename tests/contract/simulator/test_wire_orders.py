"""Futures orders on the wire: accepted, refused, changed, cancelled, closed, reversed, listed."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from module.clock import WorldClock, to_epoch_ms
from tests.contract.simulator.wire_words import (
    BTC,
    ORDER,
    PENDING,
    PLACE,
    USDT,
    calm,
    client_of,
    detail_of,
    last_price,
    limit_order,
    market_order,
    opened,
    positions,
    priced,
)
from tests.fakes.paper_exchange import RawBitget, SimulatorProcess

pytestmark = pytest.mark.timeout(120)
PLACE_NAME = "POST /api/v2/mix/order/place-order"
MODIFY = f"{ORDER}/modify-order"
CANCEL = f"{ORDER}/cancel-order"
HISTORY = f"{ORDER}/orders-history"


@pytest.fixture
def hedge(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> RawBitget:
    """A client of a fresh hedge account."""
    return client_of(simulator, new_number(position_mode="hedge"))


# -- place ------------------------------------------------------------------------------------


@pytest.mark.endpoint(PLACE_NAME, "words in any case, numbers as JSON numbers")
def test_words_come_in_any_case_and_numbers_as_numbers(raw: RawBitget, clock: WorldClock) -> None:
    price = float(priced(raw, "0.97"))
    words = {
        "symbol": "btcusdt",
        "productType": "usdt-futures",
        "marginCoin": "usdt",
        "marginMode": "CROSSED",
        "side": "Buy",
        "orderType": "LIMIT",
        "force": "GTC",
        "size": 0.01,
        "price": price,
        "stpMode": "None",
        "reduceOnly": "no",
    }
    order = raw.post(PLACE, **words)
    row = detail_of(raw, order)
    assert (row["symbol"], row["force"], row["side"]) == ("BTCUSDT", "gtc", "buy")
    assert Decimal(row["price"]) == Decimal(str(price))
    assert not [
        value
        for value in row.values()
        if isinstance(value, str)
        and "E" in value[1:-1]
        and value.replace("E", "").replace("-", "").replace("+", "").isdigit()
    ]


@pytest.mark.endpoint(PLACE_NAME, "each broken rule has its code")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size": "0.00005"}, "45111"),  # the minimum is looked at before the step
        ({"size": "0.00015"}, "22038"),
        ({"size": "-1"}, "400172"),
        ({"size": "much"}, "400172"),
        ({"size": None}, "40019"),
        ({"size": "99999"}, "45112"),
        ({"size": "1e11"}, "45112"),
        ({"size": "1e30"}, "400172"),
        ({"orderType": "limit", "price": "60000.05"}, "45115"),
        ({"orderType": "limit"}, "40019"),
        ({"orderType": "limit", "price": "1"}, "22008"),
        ({"orderType": "limit", "price": "9999999"}, "22006"),
        ({"symbol": "NOUSDT"}, "40034"),
        ({"symbol": ""}, "40019"),
        ({"side": "up"}, "400172"),
        ({"side": None}, "40019"),
        ({"orderType": None}, "40019"),
        ({"orderType": "stop"}, "400172"),
        ({"force": "day"}, "400172"),
        ({"stpMode": "sometimes"}, "400172"),
        ({"marginMode": "cash"}, "400172"),
        ({"productType": None}, "40019"),
        ({"productType": "SPOT"}, "400172"),
        ({"reduceOnly": "YES"}, "22002"),
        ({"tradeSide": "close"}, "40774"),
        ({"clientOid": "x" * 51}, "40304"),
        ({"clientOid": "a,b"}, "40305"),
        ({"presetStopLossPrice": "9999999"}, "40834"),
        ({"presetStopSurplusPrice": "1"}, "40830"),
        ({"presetStopLossPrice": "60000.05"}, "45115"),
        ({"side": "sell", "presetStopLossPrice": "1"}, "40836"),
        ({"side": "sell", "presetStopSurplusPrice": "9999999"}, "40832"),
    ],
)
def test_A17_a_broken_rule_has_its_code(raw: RawBitget, change: dict[str, Any], code: str) -> None:
    words = {**market_order("buy", "0.01"), **change}
    assert raw.code("POST", PLACE, **words) == code
    assert raw.get(PENDING, **USDT)["entrustedList"] is None


@pytest.mark.endpoint(PLACE_NAME, "less than 5 USDT is refused, a close is not")
def test_a_small_order_is_refused_unless_it_closes(raw: RawBitget, clock: WorldClock) -> None:
    doge = {**market_order("buy", "1"), "symbol": "DOGEUSDT"}
    answer = raw.call("POST", PLACE, doge)
    assert (answer["code"], answer["msg"]) == ("45110", "less than the minimum amount 5 USDT")
    raw.post(PLACE, **{**doge, "size": "100"})
    clock.sleep(0.1)
    raw.post(PLACE, **{**doge, "side": "sell", "reduceOnly": "YES"})
    clock.sleep(0.1)
    (row,) = positions(raw)
    assert row["total"] == "99"


@pytest.mark.endpoint(PLACE_NAME, "margin and tier")
def test_margin_and_tier_are_looked_at(raw: RawBitget, clock: WorldClock) -> None:
    assert raw.code("POST", PLACE, **market_order("buy", "60")) == "40762"
    raw.post("/api/v2/mix/account/set-leverage", **BTC, leverage="125")
    assert raw.code("POST", PLACE, **market_order("buy", "6")) == "40921"


@pytest.mark.endpoint(PLACE_NAME, "one-way: larger than the other side flips to the remainder")
def test_a_larger_order_flips_a_one_way_position(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock)
    order = raw.post(PLACE, **market_order("sell", "0.03"))
    clock.sleep(0.1)
    (row,) = positions(raw)
    assert (row["holdSide"], row["total"], row["posMode"]) == ("short", "0.02", "one_way_mode")
    shown = detail_of(raw, order)
    assert (shown["posSide"], shown["tradeSide"], shown["reduceOnly"]) == (
        "net",
        "sell_single",
        "NO",
    )


@pytest.mark.endpoint(PLACE_NAME, "one-way reduce-only orders give way oldest first")
def test_older_reduce_only_orders_are_cancelled_until_the_new_one_fits(
    raw: RawBitget, clock: WorldClock
) -> None:
    opened(raw, clock)
    words = {"orderType": "limit", "reduceOnly": "YES", "price": priced(raw, "1.03")}
    for number, size in enumerate(("0.004", "0.004", "0.002")):
        raw.post(PLACE, **market_order("sell", size, **words, clientOid=f"close-{number}"))
    raw.post(PLACE, **market_order("sell", "0.005", **words, clientOid="close-3"))
    left = [row["clientOid"] for row in raw.get(PENDING, **USDT)["entrustedList"]]
    assert left == ["close-3", "close-2"]


@pytest.mark.endpoint(PLACE_NAME, "hedge: a close larger than the position is 40757")
def test_a_hedge_close_takes_what_other_closes_leave(hedge: RawBitget, clock: WorldClock) -> None:
    opened(hedge, clock, tradeSide="open")
    close = market_order("buy", "0.011", tradeSide="close")
    assert hedge.code("POST", PLACE, **close) == "40757"
    limit = {"orderType": "limit", "price": priced(hedge, "1.03"), "tradeSide": "close"}
    resting = hedge.post(PLACE, **market_order("buy", "0.006", **limit))
    assert hedge.code("POST", PLACE, **market_order("buy", "0.006", **limit)) == "40757"
    hedge.post(PLACE, **market_order("buy", "0.01", tradeSide="close"))
    clock.sleep(0.1)
    (row,) = positions(hedge)
    assert (row["total"], row["locked"], row["available"]) == ("0.006", "0.006", "0")
    hedge.post(PLACE, **market_order("buy", "0.006", tradeSide="close"))
    assert detail_of(hedge, resting)["state"] == "canceled"  # it covered everything
    clock.sleep(0.1)
    assert positions(hedge) == []


@pytest.mark.endpoint(PLACE_NAME, "hedge: 40774 without tradeSide; open with reduceOnly opens")
def test_hedge_needs_a_trade_side_and_ignores_reduce_only(
    hedge: RawBitget, clock: WorldClock
) -> None:
    answer = hedge.call("POST", PLACE, market_order("buy", "0.01"))
    assert answer["code"] == "40774"
    assert answer["msg"].startswith("The order type for unilateral position must also be")
    opened(hedge, clock, "sell", tradeSide="OPEN", reduceOnly="YES")
    (row,) = positions(hedge)
    assert (row["holdSide"], row["total"]) == ("short", "0.01")
    assert hedge.code("POST", PLACE, **market_order("buy", "0.01", tradeSide="close")) == "22002"
    order = hedge.post(PLACE, **market_order("sell", "0.01", tradeSide="close"))
    clock.sleep(0.1)
    shown = detail_of(hedge, order)
    assert (shown["side"], shown["posSide"], shown["tradeSide"], shown["newTradeSide"]) == (
        "sell",
        "short",
        "close",
        "close",
    )


@pytest.mark.endpoint(PLACE_NAME, "post_only, ioc and fok end cancelled where they must")
@pytest.mark.parametrize(
    ("force", "share", "size", "filled"),
    [
        ("post_only", "1.01", "0.01", "0"),
        ("ioc", "0.99", "0.01", "0"),
        ("fok", "0.99", "0.01", "0"),
        ("IOC", "1.01", "0.01", "0.01"),
        ("FOK", "1.01", "0.01", "0.01"),
    ],
)
def test_time_in_force(
    raw: RawBitget, clock: WorldClock, force: str, share: str, size: str, filled: str
) -> None:
    order = raw.post(PLACE, **{**limit_order(raw, share), "force": force, "size": size})
    clock.sleep(0.1)
    row = detail_of(raw, order)
    assert (row["baseVolume"], row["force"]) == (filled, force.lower())
    assert row["state"] == ("filled" if filled != "0" else "canceled")
    assert row["cancelReason"] == ""


@pytest.mark.endpoint(PLACE_NAME, "a resting post_only order is a maker")
def test_a_post_only_order_that_does_not_cross_rests_and_fills_as_a_maker(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    words = {"symbol": "BNBUSDT", "size": "0.1", "orderType": "limit", "force": "post_only"}
    price = str((last_price(raw, "BNBUSDT") * Decimal("0.99")).quantize(Decimal("0.01")))
    raw.post(PLACE, **{**market_order("buy", "0.1"), **words, "price": price})
    clock.sleep(0.1)
    simulator.control("POST", "prices", {"symbol": "BNBUSDT", "factor": "0.97"})
    (fill,) = raw.get(f"{ORDER}/fills", **USDT, symbol="BNBUSDT")["fillList"]
    assert (fill["tradeScope"], fill["price"]) == ("maker", str(Decimal(price).normalize()))
    fee = Decimal(price) * Decimal("0.1") * Decimal("0.0002")
    assert Decimal(fill["feeDetail"][0]["totalFee"]) == -fee.quantize(
        Decimal("1e-8"), rounding="ROUND_DOWN"
    )


@pytest.mark.endpoint(PLACE_NAME, "stpMode between the account's own orders")
@pytest.mark.parametrize(
    ("mode", "maker", "taker"),
    [
        ("cancel_taker", "live", "canceled"),
        ("cancel_maker", "canceled", "filled"),
        ("cancel_both", "canceled", "canceled"),
        ("none", "live", "filled"),
    ],
)
def test_self_trade_prevention(
    raw: RawBitget, clock: WorldClock, mode: str, maker: str, taker: str
) -> None:
    calm(clock)
    ask = str(last_price(raw) + Decimal("0.1"))
    limit = {"orderType": "limit", "price": ask, "force": "post_only"}
    resting = raw.post(PLACE, **market_order("sell", "0.01", **limit))
    clock.sleep(0.1)
    order = raw.post(PLACE, **market_order("buy", "0.01", stpMode=mode))
    clock.sleep(0.1)
    rows = {"maker": detail_of(raw, resting), "taker": detail_of(raw, order)}
    assert {name: row["state"] for name, row in rows.items()} == {"maker": maker, "taker": taker}
    for row in rows.values():
        assert row["cancelReason"] == ("stp_cancel" if row["state"] == "canceled" else "")


@pytest.mark.endpoint(PLACE_NAME, "200 live orders of a symbol and no more")
def test_a_symbol_takes_two_hundred_live_orders(raw: RawBitget, clock: WorldClock) -> None:
    price = priced(raw, "0.96")
    item = {"side": "buy", "orderType": "limit", "size": "0.0002", "price": price}
    batch = {**BTC, "marginMode": "crossed", "orderList": [item] * 50}
    for _ in range(4):
        done = raw.post(f"{ORDER}/batch-place-order", **batch)
        assert len(done["successList"]) == 50
    refused = raw.post(f"{ORDER}/batch-place-order", **{**batch, "orderList": [item]})
    assert [row["errorCode"] for row in refused["failureList"]] == ["45118"]
    assert raw.code("POST", PLACE, **market_order("buy", "0.01")) == "45118"
    assert len(raw.post(f"{ORDER}/batch-cancel-orders", **BTC)["successList"]) == 200


@pytest.mark.endpoint("POST /api/v2/mix/order/batch-place-order", "more than 50 items are refused")
def test_batches_have_a_limit_and_need_a_list(raw: RawBitget) -> None:
    path = f"{ORDER}/batch-place-order"
    many = [{"side": "buy", "orderType": "market", "size": "0.01"}] * 51
    assert raw.code("POST", path, **BTC, orderList=many) == "40912"
    assert raw.code("POST", path, **BTC) == "40019"
    assert raw.code("POST", path, **BTC, orderList="many") == "400172"
    assert raw.get(PENDING, **USDT)["entrustedList"] is None


# -- modify -----------------------------------------------------------------------------------


@pytest.mark.endpoint("POST /api/v2/mix/order/modify-order", "size and price make a new order")
def test_a_modified_order_is_a_new_one(raw: RawBitget, clock: WorldClock) -> None:
    order = raw.post(PLACE, **limit_order(raw, clientOid="first"))
    clock.sleep(0.1)
    price = priced(raw, "0.965")
    words = {**BTC, "orderId": order["orderId"], "newSize": "0.02", "newPrice": price}
    changed = raw.post(MODIFY, **words, newClientOid="second")
    assert list(changed) == ["orderId", "clientOid"]
    assert changed["orderId"] != order["orderId"]
    assert changed["clientOid"] == "second"
    old, new = detail_of(raw, order), detail_of(raw, changed)
    assert (old["state"], new["state"]) == ("canceled", "live")
    assert (new["size"], Decimal(new["price"])) == ("0.02", Decimal(price))
    (row,) = raw.get(PENDING, **USDT)["entrustedList"]
    assert row["clientOid"] == "second"


@pytest.mark.endpoint("POST /api/v2/mix/order/modify-order", "what is refused leaves the old order")
def test_a_refused_change_leaves_the_order_as_it_was(raw: RawBitget, clock: WorldClock) -> None:
    order = raw.post(PLACE, **limit_order(raw, clientOid="kept"))
    row = detail_of(raw, order)
    ids = {**BTC, "orderId": order["orderId"]}
    price = priced(raw, "0.965")
    for change, code in (
        ({"newSize": "0.02", "newPrice": price}, "22003"),
        ({"newSize": "0.02", "newClientOid": "n"}, "40925"),
        ({"newPrice": price, "newClientOid": "n"}, "40925"),
        ({"newSize": row["size"], "newPrice": row["price"], "newClientOid": "n"}, "40923"),
        ({"newSize": "0.02", "newPrice": price, "newClientOid": "kept"}, "40786"),
        ({"newSize": "50", "newPrice": price, "newClientOid": "n"}, "40762"),
        ({"newPresetStopLossPrice": "9999999"}, "40834"),
        ({}, "40923"),
    ):
        assert raw.code("POST", MODIFY, **ids, **change) == code, change
    assert raw.code("POST", MODIFY, **BTC, newSize="1") == "40924"
    clock.sleep(1)
    assert raw.code("POST", MODIFY, **{**ids, "orderId": "12"}, newSize="1") == "40768"
    assert detail_of(raw, order)["state"] == "live"


@pytest.mark.endpoint("POST /api/v2/mix/order/modify-order", "attached stops change in place")
def test_attached_stops_are_changed_in_place_and_taken_off_with_zero(
    raw: RawBitget, clock: WorldClock
) -> None:
    order = raw.post(PLACE, **limit_order(raw, presetStopLossPrice=priced(raw, "0.9")))
    ids = {**BTC, "orderId": order["orderId"]}
    loss, profit = priced(raw, "0.91"), priced(raw, "1.1")
    same = raw.post(MODIFY, **ids, newPresetStopLossPrice=loss, newPresetStopSurplusPrice=profit)
    assert same["orderId"] == order["orderId"]
    row = detail_of(raw, order)
    assert (Decimal(row["presetStopLossPrice"]), row["presetStopLossType"]) == (
        Decimal(loss),
        "fill_price",
    )
    assert Decimal(row["presetStopSurplusPrice"]) == Decimal(profit)
    raw.post(MODIFY, **ids, newPresetStopLossPrice="0")
    (pending,) = raw.get(PENDING, **USDT)["entrustedList"]
    assert (pending["presetStopLossPrice"], pending["presetStopLossTriggerType"]) == ("", "")
    assert Decimal(pending["presetStopSurplusPrice"]) == Decimal(profit)


# -- cancel -----------------------------------------------------------------------------------


@pytest.mark.endpoint("POST /api/v2/mix/order/cancel-order", "the same id twice within a second")
def test_A31_a_second_cancel_within_a_second_has_its_own_code(
    raw: RawBitget, clock: WorldClock
) -> None:
    order = raw.post(PLACE, **limit_order(raw, clientOid="bye"))
    answer = raw.post(CANCEL, **BTC, clientOid="bye")
    assert answer == {"orderId": order["orderId"], "clientOid": "bye"}
    assert raw.code("POST", CANCEL, **BTC, orderId=order["orderId"]) == "45129"
    clock.sleep(1.1)
    assert raw.code("POST", CANCEL, **BTC, orderId=order["orderId"]) == "22001"
    row = detail_of(raw, order)
    assert (row["state"], row["cancelReason"]) == ("canceled", "normal_cancel")


@pytest.mark.endpoint("POST /api/v2/mix/order/cancel-order", "no id, unknown id")
def test_a_cancel_needs_an_id_that_is_known(raw: RawBitget) -> None:
    assert raw.code("POST", CANCEL, **BTC) == "40924"
    assert raw.code("POST", CANCEL, **BTC, orderId="17") == "40768"
    assert raw.code("POST", CANCEL, **BTC, clientOid="nobody") == "40768"


@pytest.mark.endpoint("POST /api/v2/mix/order/batch-cancel-orders", "ids, more than 50, all")
def test_batch_cancels(raw: RawBitget, clock: WorldClock) -> None:
    path = f"{ORDER}/batch-cancel-orders"
    orders = [raw.post(PLACE, **limit_order(raw, clientOid=f"b-{n}")) for n in range(3)]
    items = [{"orderId": orders[0]["orderId"]}, {"clientOid": "nobody"}, {}]
    answer = raw.post(path, **BTC, orderIdList=items)
    assert [row["clientOid"] for row in answer["successList"]] == ["b-0"]
    codes = [row["errorCode"] for row in answer["failureList"]]
    assert codes == ["40768", "40924"]
    assert raw.code("POST", path, **BTC, orderIdList=[{"orderId": "1"}] * 51) == "40912"
    rest = raw.post(path, **USDT, symbol="BTCUSDT")
    assert {row["clientOid"] for row in rest["successList"]} == {"b-1", "b-2"}
    assert raw.post(path, **BTC) == {"successList": [], "failureList": []}


@pytest.mark.endpoint("POST /api/v2/mix/order/cancel-all-orders", "everything, nothing, too late")
def test_cancel_all(raw: RawBitget, clock: WorldClock) -> None:
    path = f"{ORDER}/cancel-all-orders"
    assert raw.code("POST", path, **USDT) == "22001"
    raw.post(PLACE, **limit_order(raw, clientOid="a-1"))
    now = to_epoch_ms(clock.now())
    late = {"requestTime": str(now - 9_000), "receiveWindow": "3000"}
    assert raw.code("POST", path, **USDT, **late) == "40078"
    assert raw.code("POST", path, **USDT, symbol="ETHUSDT") == "22001"
    answer = raw.post(path, **USDT, requestTime=str(now), receiveWindow="3000")
    assert [row["clientOid"] for row in answer["successList"]] == ["a-1"]


# -- close and reverse ------------------------------------------------------------------------


@pytest.mark.endpoint("POST /api/v2/mix/order/close-positions", "one side of a hedge pair")
def test_one_side_of_a_hedge_pair_is_closed(hedge: RawBitget, clock: WorldClock) -> None:
    opened(hedge, clock, "buy", tradeSide="open")
    opened(hedge, clock, "sell", tradeSide="open")
    answer = hedge.post(f"{ORDER}/close-positions", **BTC, holdSide="LONG")
    assert [list(row) for row in answer["successList"]] == [["orderId", "clientOid", "symbol"]]
    clock.sleep(0.1)
    assert [row["holdSide"] for row in positions(hedge)] == ["short"]
    clock.sleep(1)
    assert hedge.code("POST", f"{ORDER}/close-positions", **BTC, holdSide="long") == "22002"


@pytest.mark.endpoint("POST /api/v2/mix/order/click-backhand", "one-way: the whole position turns")
def test_click_backhand_turns_a_one_way_position(raw: RawBitget, clock: WorldClock) -> None:
    path = f"{ORDER}/click-backhand"
    assert raw.code("POST", path, **BTC) == "40757"
    opened(raw, clock, presetStopLossPrice=priced(raw, "0.9"))
    assert raw.code("POST", path, **BTC, tradeSide="open") == "40774"
    order = raw.post(path, **BTC, size="0.003", clientOid="turn")
    assert order["clientOid"] == "turn"
    clock.sleep(0.1)
    (row,) = positions(raw)
    assert (row["holdSide"], row["total"], row["stopLoss"]) == ("short", "0.01", "")
    assert detail_of(raw, order)["orderSource"] == "reverse"


@pytest.mark.endpoint("POST /api/v2/mix/order/click-backhand", "hedge: a part turns")
def test_click_backhand_turns_a_part_of_a_hedge_position(
    hedge: RawBitget, clock: WorldClock
) -> None:
    path = f"{ORDER}/click-backhand"
    opened(hedge, clock, "buy", tradeSide="open")
    assert hedge.code("POST", path, **BTC, side="buy") == "40774"
    words = {**BTC, "tradeSide": "open"}
    assert hedge.code("POST", path, **words, side="sell") == "40757"
    hedge.post(path, **words, side="buy", size="0.003")
    clock.sleep(0.1)
    assert {row["holdSide"]: row["total"] for row in positions(hedge)} == {
        "long": "0.007",
        "short": "0.003",
    }


@pytest.mark.endpoint(
    "POST /api/v2/mix/order/click-backhand", "too little margin to open: it only closes"
)
def test_click_backhand_closes_even_where_it_cannot_open(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> None:
    raw = client_of(simulator, new_number(futures_usdt="100"))
    raw.post("/api/v2/mix/account/set-leverage", **BTC, leverage="10")
    size = (Decimal(950) / last_price(raw)).quantize(Decimal("0.0001"), rounding="ROUND_DOWN")
    raw.post(PLACE, **market_order("buy", str(size)))
    clock.sleep(0.1)
    simulator.control("POST", "prices", {"symbol": "BTCUSDT", "factor": "0.97"})
    raw.post(f"{ORDER}/click-backhand", **BTC)
    clock.sleep(0.1)
    assert positions(raw) == []
    simulator.control("POST", "prices", {"symbol": "BTCUSDT", "factor": "1.030928"})
