"""Spot on the wire: orders, TP/SL orders, trigger orders, batches, lists, assets, bills."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from module.clock import WorldClock, to_epoch_ms
from tests.contract.simulator.wire_words import SPOT, TRADE, calm, last_price
from tests.fakes.paper_exchange import RawBitget, SimulatorProcess

pytestmark = pytest.mark.timeout(120)
PLACE = f"{TRADE}/place-order"
PLACE_NAME = "POST /api/v2/spot/trade/place-order"
CANCEL = f"{TRADE}/cancel-order"
INFO = f"{TRADE}/orderInfo"
UNFILLED = f"{TRADE}/unfilled-orders"
HISTORY = f"{TRADE}/history-orders"
PLACE_PLAN = f"{TRADE}/place-plan-order"
BUY = {"symbol": "BTCUSDT", "side": "buy", "orderType": "market", "force": "gtc"}
SELL = {**BUY, "side": "sell"}


def price_at(raw: RawBitget, share: str) -> str:
    return str((last_price(raw) * Decimal(share)).quantize(Decimal("0.1")))


def limit(raw: RawBitget, share: str = "0.97", size: str = "0.01", **more: object) -> Any:
    words = {**BUY, "orderType": "limit", "price": price_at(raw, share), "size": size}
    return {**words, **more}


def bought(raw: RawBitget, clock: WorldClock, cost: str = "1000", **more: object) -> Any:
    order = raw.post(PLACE, **BUY, size=cost, **more)
    clock.sleep(0.1)
    (row,) = raw.get(INFO, orderId=order["orderId"])
    return row


def asset(raw: RawBitget, coin: str) -> Any:
    (row,) = raw.get(f"{SPOT}/account/assets", coin=coin)
    return row


def jump(simulator: SimulatorProcess, factor: str) -> None:
    simulator.control("POST", "prices", {"symbol": "BTCUSDT", "factor": factor})


# -- orders -----------------------------------------------------------------------------------


@pytest.mark.endpoint(PLACE_NAME, "a market buy counts quote coin; leftovers stay")
def test_a_market_buy_spends_quote_coin(raw: RawBitget, clock: WorldClock) -> None:
    row = bought(raw, clock, "777.77")
    assert " ".join(row) == (
        "userId symbol orderId clientOid price size orderType side status priceAvg baseVolume "
        "quoteVolume enterPointSource feeDetail orderSource tpslType triggerPrice quoteCoin "
        "baseCoin cancelReason cTime uTime"
    )
    assert (row["status"], row["size"], row["price"]) == ("filled", "777.77", "0")
    spent = Decimal(row["quoteVolume"])
    lot = Decimal(row["priceAvg"]) * Decimal("0.000001")
    assert Decimal("777.77") - lot < spent <= Decimal("777.77")
    assert Decimal(asset(raw, "USDT")["available"]) == 50000 - spent
    fee = json.loads(row["feeDetail"])
    assert set(fee) == {"newFees", "BTC"}
    bought_size = Decimal(row["baseVolume"])
    taken = (bought_size * Decimal("0.001")).quantize(Decimal("1e-8"), "ROUND_DOWN")
    assert Decimal(asset(raw, "BTC")["available"]) == bought_size - taken


@pytest.mark.endpoint(PLACE_NAME, "each broken rule has its code")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size": "0.5"}, "45110"),
        ({"size": "60000"}, "43012"),
        ({"size": "1e30"}, "400172"),
        ({"size": "999999999999"}, "43012"),
        ({"side": "sell", "size": "0.01"}, "43012"),
        ({"side": "sell", "size": "0.0000001"}, "40808"),
        ({"orderType": "limit", "size": "0.01", "price": "60000.05"}, "40808"),
        ({"orderType": "limit", "size": "0.01"}, "40019"),
        ({"orderType": "limit", "size": "0.01", "price": "1"}, "22008"),
        ({"size": None}, "40019"),
        ({"symbol": "NOUSDT"}, "40034"),
        ({"side": "hold"}, "400172"),
        ({"force": "day"}, "400172"),
        ({"tpslType": "later"}, "400172"),
        ({"tpslType": "tpsl"}, "40019"),
        ({"clientOid": "a b"}, "40305"),
        ({"side": "sell", "size": "0.01", "presetStopLossPrice": "5"}, "400172"),
    ],
)
def test_a_broken_rule_has_its_code(raw: RawBitget, change: dict[str, Any], code: str) -> None:
    assert raw.code("POST", PLACE, **{**BUY, "size": "500", **change}) == code
    assert raw.get(UNFILLED) == []


@pytest.mark.endpoint(PLACE_NAME, "limit: freezes, cancelled with two l, post_only, ioc")
def test_a_limit_order_freezes_its_coins(raw: RawBitget, clock: WorldClock) -> None:
    words = limit(raw, symbol="btcusdt", side="BUY", force="GTC", clientOid="s-1")
    order = raw.post(PLACE, **words)
    assert list(order) == ["clientOid", "orderId"]
    cost = Decimal(words["price"]) * Decimal("0.01")
    usdt = asset(raw, "usdt")
    assert (Decimal(usdt["frozen"]), Decimal(usdt["available"])) == (cost, 50000 - cost)
    assert raw.code("POST", PLACE, **{**words, "symbol": "BTCUSDT"}) == "43118"
    (row,) = raw.get(UNFILLED, symbol="BTCUSDT")
    assert (Decimal(row["priceAvg"]), row["basePrice"], row["tpslType"]) == (
        Decimal(words["price"]),
        "0",
        "normal",
    )
    cancelled = raw.post(CANCEL, symbol="BTCUSDT", clientOid="s-1")
    assert cancelled == {"orderId": order["orderId"], "clientOid": "s-1"}
    assert raw.code("POST", CANCEL, symbol="BTCUSDT", clientOid="s-1") == "43001"
    (row,) = raw.get(INFO, clientOid="s-1")
    assert (row["status"], row["cancelReason"], row["feeDetail"]) == (
        "cancelled",
        "normal_cancel",
        "",
    )
    for force in ("post_only", "ioc", "fok"):
        share = "1.01" if force == "post_only" else "0.99"
        gone = raw.post(PLACE, **{**limit(raw, share), "force": force})
        clock.sleep(0.1)
        (row,) = raw.get(INFO, orderId=gone["orderId"])
        assert (row["status"], row["baseVolume"]) == ("cancelled", "0")


@pytest.mark.endpoint(PLACE_NAME, "stpMode between the account's own orders")
def test_self_trade_prevention(raw: RawBitget, clock: WorldClock) -> None:
    calm(clock)
    bought(raw, clock)
    ask = str(last_price(raw) + Decimal("0.1"))
    words = {**SELL, "orderType": "limit", "force": "post_only", "price": ask, "size": "0.005"}
    resting = raw.post(PLACE, **words)
    clock.sleep(0.1)
    taker = raw.post(PLACE, **BUY, size="500", stpMode="cancel_both")
    clock.sleep(0.1)
    for order in (resting, taker):
        (row,) = raw.get(INFO, orderId=order["orderId"])
        assert (row["status"], row["cancelReason"]) == ("cancelled", "stp_cancel")


@pytest.mark.endpoint("POST /api/v2/spot/trade/batch-orders", "single and multiple, limits")
def test_batches(raw: RawBitget, clock: WorldClock) -> None:
    path = f"{TRADE}/batch-orders"
    eth = (last_price(raw, "ETHUSDT") * Decimal("0.97")).quantize(Decimal("0.01"))
    items = [
        {**limit(raw), "clientOid": "m-1"},
        {**limit(raw), "symbol": "ETHUSDT", "price": str(eth), "clientOid": "m-2"},
        {**limit(raw), "size": "90", "clientOid": "m-3"},
    ]
    answer = raw.post(path, batchMode="multiple", orderList=items)
    assert {row["clientOid"] for row in answer["successList"]} == {"m-1", "m-2"}
    assert [(row["clientOid"], row["errorCode"]) for row in answer["failureList"]] == [
        ("m-3", "43012")
    ]
    assert {row["symbol"] for row in raw.get(UNFILLED)} == {"BTCUSDT", "ETHUSDT"}
    single = raw.post(
        path,
        symbol="BTCUSDT",
        orderList=[{**items[1], "price": items[0]["price"], "clientOid": "m-4"}],
    )
    assert [row["clientOid"] for row in single["successList"]] == ["m-4"]
    assert raw.code("POST", path, symbol="BTCUSDT", orderList=items * 17) == "40912"
    assert raw.code("POST", path, symbol="BTCUSDT") == "40019"
    clock.sleep(1)
    assert raw.code("POST", path, batchMode="all", orderList=items) == "400172"
    assert raw.code("POST", path, orderList=items) == "40019"


@pytest.mark.endpoint("POST /api/v2/spot/trade/batch-cancel-order", "each by itself")
@pytest.mark.endpoint("POST /api/v2/spot/trade/cancel-symbol-order", "all of a pair")
def test_batch_cancels(raw: RawBitget, clock: WorldClock) -> None:
    for number in range(3):
        raw.post(PLACE, **limit(raw, clientOid=f"c-{number}"))
    path = f"{TRADE}/batch-cancel-order"
    items = [{"clientOid": "c-0"}, {"orderId": "5"}]
    answer = raw.post(path, symbol="BTCUSDT", orderList=items)
    assert [row["clientOid"] for row in answer["successList"]] == ["c-0"]
    assert [row["errorCode"] for row in answer["failureList"]] == ["43001"]
    assert raw.code("POST", path, symbol="BTCUSDT", orderList=items * 26) == "40912"
    all_of_it = raw.post(f"{TRADE}/cancel-symbol-order", symbol="btcusdt")
    assert all_of_it == {"symbol": "BTCUSDT"}
    assert raw.get(UNFILLED) == []


@pytest.mark.endpoint("POST /api/v2/spot/trade/cancel-replace-order", "a new order, or the old")
@pytest.mark.endpoint(
    "POST /api/v2/spot/trade/batch-cancel-replace-order", "each says what became of it"
)
def test_an_order_is_replaced(raw: RawBitget, clock: WorldClock) -> None:
    path = f"{TRADE}/cancel-replace-order"
    order = raw.post(PLACE, **limit(raw, clientOid="r-1"))
    price = price_at(raw, "0.96")
    words = {"symbol": "BTCUSDT", "price": price, "size": "0.02", "clientOid": "r-1"}
    changed = raw.post(path, **words, newClientOid="r-2")
    assert changed["orderId"] != order["orderId"]
    assert (changed["clientOid"], changed["success"], changed["msg"]) == ("r-2", "success", None)
    (row,) = raw.get(UNFILLED)
    assert (row["clientOid"], row["size"]) == ("r-2", "0.02")
    assert raw.code("POST", path, **words) == "43001"
    greedy = {**words, "clientOid": "r-2", "size": "90"}
    assert raw.code("POST", path, **greedy) == "43012"
    (row,) = raw.get(UNFILLED)
    assert row["clientOid"] == "r-2"  # a refused one leaves the old order
    rows = raw.post(
        f"{TRADE}/batch-cancel-replace-order",
        orderList=[{**words, "clientOid": "r-2", "newClientOid": "r-3"}, greedy],
    )
    assert [row["success"] for row in rows] == ["success", "failure"]
    assert rows[0]["clientOid"] == "r-3"


# -- TP/SL orders -----------------------------------------------------------------------------


@pytest.mark.endpoint(PLACE_NAME, "tpslType tpsl: waits, locks, fires on last under its id")
def test_a_tpsl_order_waits_and_locks_its_coins(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    bought(raw, clock)
    words = {**SELL, "size": "0.01", "tpslType": "tpsl", "clientOid": "t-1"}
    order = raw.post(PLACE, **words, triggerPrice=price_at(raw, "0.95"))
    assert asset(raw, "BTC")["frozen"] == "0.01"
    assert raw.code("POST", PLACE, **{**words, "triggerPrice": price_at(raw, "0.9")}) == "43118"
    assert raw.get(UNFILLED) == []
    (row,) = raw.get(UNFILLED, tpslType="tpsl")
    assert (row["orderId"], row["tpslType"], row["status"]) == (order["orderId"], "tpsl", "live")
    (info,) = raw.get(INFO, clientOid="t-1")
    assert info["status"] == "live"
    jump(simulator, "0.94")
    clock.sleep(0.1)
    (info,) = raw.get(INFO, orderId=order["orderId"])
    assert (info["status"], info["clientOid"], info["orderSource"]) == (
        "filled",
        "t-1",
        "loss_market",
    )
    assert asset(raw, "BTC")["frozen"] == "0"
    history = raw.get(HISTORY, tpslType="tpsl")
    assert [row["orderId"] for row in history] == [order["orderId"]]
    assert order["orderId"] not in {row["orderId"] for row in raw.get(HISTORY)}
    jump(simulator, "1.0638298")


@pytest.mark.endpoint("POST /api/v2/spot/trade/cancel-order", "a waiting TP/SL order")
def test_a_waiting_tpsl_order_is_cancelled(raw: RawBitget, clock: WorldClock) -> None:
    bought(raw, clock)
    words = {**SELL, "size": "0.01", "tpslType": "tpsl", "triggerPrice": price_at(raw, "1.1")}
    order = raw.post(PLACE, **words)
    raw.post(CANCEL, symbol="BTCUSDT", orderId=order["orderId"], tpslType="tpsl")
    assert asset(raw, "BTC")["frozen"] == "0"
    (info,) = raw.get(INFO, orderId=order["orderId"])
    assert info["status"] == "cancelled"
    code = raw.code("POST", CANCEL, symbol="BTCUSDT", orderId=order["orderId"], tpslType="tpsl")
    assert code == "43025"
    too_much = {**words, "size": "5"}
    assert raw.code("POST", PLACE, **too_much) == "43012"


@pytest.mark.endpoint(PLACE_NAME, "attached take profit and stop loss: one fires, the other ends")
@pytest.mark.parametrize(("factor", "source"), [("1.06", "profit"), ("0.94", "loss")])
def test_attached_stops_of_a_purchase(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess, factor: str, source: str
) -> None:
    words = {
        "presetTakeProfitPrice": price_at(raw, "1.05"),
        "presetStopLossPrice": price_at(raw, "0.95"),
        "executeStopLossPrice": price_at(raw, "0.93"),
    }
    resting = raw.post(PLACE, **limit(raw, **words))
    (row,) = raw.get(UNFILLED)
    assert Decimal(row["presetTakeProfitPrice"]) == Decimal(words["presetTakeProfitPrice"])
    assert Decimal(row["executeStopLossPrice"]) == Decimal(words["executeStopLossPrice"])
    raw.post(CANCEL, symbol="BTCUSDT", orderId=resting["orderId"])
    assert raw.get(UNFILLED, tpslType="tpsl") == []
    row = bought(raw, clock, "1000", **words)
    waiting = raw.get(UNFILLED, tpslType="tpsl")
    assert {row["orderType"] for row in waiting} == {"market", "limit"}
    frozen = Decimal(asset(raw, "BTC")["frozen"])
    size = Decimal(row["baseVolume"])
    assert size - Decimal("0.001") * size - Decimal("0.000001") < frozen < size
    jump(simulator, factor)
    clock.sleep(0.1)
    assert raw.get(UNFILLED, tpslType="tpsl") == []
    rows = {row["status"]: row for row in raw.get(HISTORY, tpslType="tpsl")}
    assert rows["filled"]["orderSource"].startswith(source)
    assert set(rows) == {"filled", "cancelled"}
    assert Decimal(asset(raw, "BTC")["frozen"]) == 0
    jump(simulator, str(1 / Decimal(factor)))


# -- trigger orders ---------------------------------------------------------------------------


@pytest.mark.endpoint("POST /api/v2/spot/trade/place-plan-order", "amount and total, fires")
@pytest.mark.endpoint("GET /api/v2/spot/trade/current-plan-order", "those that wait")
@pytest.mark.endpoint("GET /api/v2/spot/trade/history-plan-order", "those that are over")
@pytest.mark.endpoint("GET /api/v2/spot/trade/plan-sub-order", "the order that was made")
def test_trigger_orders_fire(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    words = {**BUY, "triggerType": "mark_price", "triggerPrice": float(price_at(raw, "0.95"))}
    total = raw.post(PLACE_PLAN, **words, planType="total", size="500", clientOid="by-cost")
    amount = raw.post(PLACE_PLAN, **words, planType="amount", size="0.01", clientOid="by-size")
    poor = raw.post(PLACE_PLAN, **words, planType="total", size="90000")
    assert asset(raw, "USDT")["frozen"] == "0"
    answer = raw.get(f"{TRADE}/current-plan-order", symbol="BTCUSDT", limit="2")
    assert list(answer) == ["nextFlag", "idLessThan", "orderList"]
    assert answer["nextFlag"] is True
    rest = raw.get(f"{TRADE}/current-plan-order", symbol="BTCUSDT", idLessThan=answer["idLessThan"])
    assert rest["nextFlag"] is False
    shown = {row["orderId"]: row for row in answer["orderList"] + rest["orderList"]}
    assert " ".join(shown[total["orderId"]]) == (
        "orderId clientOid symbol size executePrice triggerPrice status orderType side planType "
        "triggerType enterPointSource cTime uTime"
    )
    assert {row["status"] for row in shown.values()} == {"not_trigger"}
    jump(simulator, "0.94")
    clock.sleep(0.1)
    rows = {
        row["orderId"]: row["status"]
        for row in raw.get(f"{TRADE}/history-plan-order", symbol="BTCUSDT")["orderList"]
    }
    assert rows == {
        total["orderId"]: "executed",
        amount["orderId"]: "executed",
        poor["orderId"]: "fail_trigger",
    }
    (made,) = raw.get(f"{TRADE}/plan-sub-order", planOrderId=amount["orderId"])
    (info,) = raw.get(INFO, orderId=made["orderId"])
    assert (info["clientOid"], info["orderSource"], info["status"]) == (
        amount["orderId"],
        "plan_market",
        "filled",
    )
    assert abs(Decimal(info["baseVolume"]) - Decimal("0.01")) < Decimal("0.00001")
    assert raw.code("GET", f"{TRADE}/plan-sub-order", planOrderId="4") == "43025"
    jump(simulator, "1.0638298")


@pytest.mark.endpoint("POST /api/v2/spot/trade/modify-plan-order", "trigger, size, type")
@pytest.mark.endpoint("POST /api/v2/spot/trade/cancel-plan-order", "by id")
@pytest.mark.endpoint("POST /api/v2/spot/trade/batch-cancel-plan-order", "by pair")
def test_trigger_orders_are_changed_and_cancelled(raw: RawBitget, clock: WorldClock) -> None:
    words = {**BUY, "orderType": "limit", "executePrice": price_at(raw, "0.96"), "size": "0.01"}
    words["triggerPrice"] = price_at(raw, "0.95")
    plans = [raw.post(PLACE_PLAN, **words, clientOid=f"q-{number}") for number in range(3)]
    assert raw.code("POST", PLACE_PLAN, **words, clientOid="q-0") == "43118"
    assert raw.code("POST", PLACE_PLAN, **{**words, "executePrice": ""}) == "40019"
    assert raw.code("POST", PLACE_PLAN, **words, planType="half") == "400172"
    change = {"triggerPrice": price_at(raw, "0.9"), "size": "600", "orderType": "market"}
    code = raw.code("POST", f"{TRADE}/modify-plan-order", clientOid="q-0", **change)
    assert code == "00000"
    rows = {row["clientOid"]: row for row in raw.get(f"{TRADE}/current-plan-order")["orderList"]}
    assert (rows["q-0"]["orderType"], rows["q-0"]["size"], rows["q-0"]["executePrice"]) == (
        "market",
        "600",
        "",
    )
    cancel = f"{TRADE}/cancel-plan-order"
    assert raw.post(cancel, orderId=plans[0]["orderId"]) == {"result": "success"}
    assert raw.code("POST", cancel, orderId=plans[0]["orderId"]) == "43025"
    path = f"{TRADE}/batch-cancel-plan-order"
    assert raw.post(path, symbolList=["ETHUSDT"]) == {"successList": [], "failureList": []}
    assert len(raw.post(path, symbolList=["btcusdt"])["successList"]) == 2
    ended = raw.get(f"{TRADE}/history-plan-order")["orderList"]
    assert {row["status"] for row in ended} == {"cancelled"}


# -- lists ------------------------------------------------------------------------------------


@pytest.mark.endpoint("GET /api/v2/spot/trade/fills", "row, filters, pages")
@pytest.mark.endpoint("GET /api/v2/spot/trade/history-orders", "pages")
@pytest.mark.endpoint("GET /api/v2/spot/trade/orderInfo", "unknown is an empty list")
def test_lists(raw: RawBitget, clock: WorldClock) -> None:
    orders = [bought(raw, clock, cost) for cost in ("100", "200", "300")]
    fills = raw.get(f"{TRADE}/fills", symbol="BTCUSDT")
    assert " ".join(fills[0]) == (
        "userId symbol orderId tradeId orderType side priceAvg size amount feeDetail tradeScope "
        "cTime uTime"
    )
    fee = fills[0]["feeDetail"]
    assert (fee["feeCoin"], fee["deduction"], fills[0]["tradeScope"]) == ("BTC", "no", "taker")
    assert [row["orderId"] for row in fills] == [row["orderId"] for row in reversed(orders)]
    older = raw.get(f"{TRADE}/fills", idLessThan=fills[0]["tradeId"], limit="1")
    assert older == [fills[1]]
    (one,) = raw.get(f"{TRADE}/fills", orderId=orders[0]["orderId"])
    assert one == fills[2]
    history = raw.get(HISTORY, limit="2")
    assert [row["size"] for row in history] == ["300", "200"]
    assert [row["size"] for row in raw.get(HISTORY, idLessThan=history[1]["orderId"])] == ["100"]
    assert raw.get(HISTORY, symbol="ETHUSDT") == []
    assert raw.get(INFO, orderId="77") == []
    assert raw.code("GET", INFO) == "40019"
    now = to_epoch_ms(clock.now())
    backwards = {"startTime": str(now), "endTime": str(now - 1)}
    assert raw.code("GET", HISTORY, **backwards) == "40017"
    sale = raw.post(PLACE, **SELL, size="0.001")
    clock.sleep(0.1)
    (fill,) = raw.get(f"{TRADE}/fills", orderId=sale["orderId"])
    assert fill["feeDetail"]["feeCoin"] == "USDT"


@pytest.mark.endpoint("GET /api/v2/spot/trade/unfilled-orders", "filters")
def test_unfilled_filters(raw: RawBitget, clock: WorldClock) -> None:
    order = raw.post(PLACE, **limit(raw, clientOid="u-1"))
    (row,) = raw.get(UNFILLED)
    for words in ({"symbol": "BTCUSDT"}, {"orderId": order["orderId"]}, {"limit": "1"}):
        assert raw.get(UNFILLED, **words) == [row]
    for words in ({"symbol": "ETHUSDT"}, {"orderId": "5"}, {"endTime": "5"}):
        assert raw.get(UNFILLED, **words) == []


@pytest.mark.endpoint("GET /api/v2/spot/account/assets", "hold_only, all, one coin")
def test_assets(raw: RawBitget) -> None:
    path = f"{SPOT}/account/assets"
    (row,) = raw.get(path)
    assert row["coin"] == "USDT"
    assert " ".join(row) == "coin available frozen locked limitAvailable uTime"
    everything = {row["coin"]: row["available"] for row in raw.get(path, assetType="ALL")}
    assert (everything["USDT"], everything["BTC"], everything["DOGE"]) == ("50000", "0", "0")
    assert raw.get(path, coin="eth")[0]["available"] == "0"
    assert raw.get(path, coin="NOPE") == []
    assert raw.code("GET", path, assetType="some") == "400172"


@pytest.mark.endpoint("GET /api/v2/spot/account/bills", "row, filters, pages")
@pytest.mark.endpoint("GET /api/v2/spot/account/info", "who and what")
def test_spot_bills_and_info(raw: RawBitget, clock: WorldClock, number: int) -> None:
    bought(raw, clock)
    path = f"{SPOT}/account/bills"
    rows = raw.get(path)
    assert [(row["coin"], row["businessType"], row["groupType"]) for row in rows] == [
        ("BTC", "buy", "transaction"),
        ("USDT", "buy", "transaction"),
        ("USDT", "transfer_in", "transfer"),
    ]
    assert (
        " ".join(rows[0]) == "cTime bizOrderId coin groupType businessType size balance fees billId"
    )
    assert Decimal(rows[0]["fees"]) < 0
    assert raw.get(path, coin="btc") == rows[:1]
    assert raw.get(path, businessType="TRANSFER_IN") == rows[2:]
    assert raw.get(path, idLessThan=rows[0]["billId"], limit="1") == rows[1:2]
    info = raw.get(f"{SPOT}/account/info")
    assert info["userId"] == rows_user(raw)
    assert "stow" in info["authorities"]


def rows_user(raw: RawBitget) -> str:
    (row, *_) = raw.get(HISTORY)
    return str(row["userId"])
