"""Stops and trigger orders on the wire."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from module.clock import WorldClock
from tests.contract.simulator.wire_words import (
    BTC,
    DETAIL,
    ORDER,
    PLACE,
    PLANS,
    STOPS,
    USDT,
    client_of,
    closed,
    detail_of,
    limit_order,
    market_order,
    opened,
    positions,
    priced,
)
from tests.fakes.paper_exchange import RawBitget, SimulatorProcess

pytestmark = pytest.mark.timeout(120)
TPSL = f"{ORDER}/place-tpsl-order"
TPSL_NAME = "POST /api/v2/mix/order/place-tpsl-order"
POS_TPSL = f"{ORDER}/place-pos-tpsl"
MODIFY_TPSL = f"{ORDER}/modify-tpsl-order"
PLACE_PLAN = f"{ORDER}/place-plan-order"
CANCEL_PLAN = f"{ORDER}/cancel-plan-order"
PLAN_HISTORY = f"{ORDER}/orders-plan-history"


@pytest.fixture
def hedge(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> RawBitget:
    """A client of a fresh hedge account."""
    return client_of(simulator, new_number(position_mode="hedge"))


def stop(raw: RawBitget, share: str, plan_type: str = "pos_loss", side: str = "buy") -> Any:
    return {**BTC, "planType": plan_type, "triggerPrice": priced(raw, share), "holdSide": side}


def stops_of(raw: RawBitget) -> list[Any]:
    return list(raw.get(PLANS, **STOPS)["entrustedList"] or [])


def history(raw: RawBitget, plan_type: str = "profit_loss", **more: object) -> list[Any]:
    return list(raw.get(PLAN_HISTORY, **USDT, planType=plan_type, **more)["entrustedList"] or [])


def jump(simulator: SimulatorProcess, factor: str, symbol: str = "BTCUSDT") -> None:
    simulator.control("POST", "prices", {"symbol": symbol, "factor": factor})


# -- stops of positions -----------------------------------------------------------------------


@pytest.mark.endpoint(TPSL_NAME, "each broken rule has its code, and the old stop stays")
def test_B6_a_refused_stop_leaves_the_old_one(raw: RawBitget, clock: WorldClock) -> None:
    assert raw.code("POST", TPSL, **stop(raw, "0.9")) == "43023"
    opened(raw, clock)
    placed = raw.post(TPSL, **stop(raw, "0.9"))
    assert list(placed) == ["clientOid", "orderId"]
    part = stop(raw, "1.1", "profit_plan")
    for words, code in (
        (stop(raw, "1.1"), "40917"),
        (stop(raw, "0.9", "pos_profit"), "40915"),
        (stop(raw, "0.9", side="long"), "43011"),
        (stop(raw, "0.9", side="up"), "43011"),
        ({**stop(raw, "0.9"), "triggerPrice": "60000.05"}, "45115"),
        ({**stop(raw, "0.9"), "triggerPrice": ""}, "40019"),
        (stop(raw, "0.9", "normal_plan"), "40812"),
        (part, "40019"),
        ({**part, "size": "0.02"}, "43029"),
        ({**part, "size": "0.00005"}, "45111"),
    ):
        assert raw.code("POST", TPSL, **words) == code, words
        clock.sleep(0.2)
    (row,) = stops_of(raw)
    assert (row["orderId"], row["clientOid"]) == (placed["orderId"], placed["clientOid"])
    answer = raw.call("POST", TPSL, stop(raw, "0.9", side="short"))
    assert answer["msg"].endswith("holdSide error")


@pytest.mark.endpoint(TPSL_NAME, "short positions, hedge words")
def test_stops_of_shorts_and_the_words_of_hedge_mode(hedge: RawBitget, clock: WorldClock) -> None:
    opened(hedge, clock, "sell", tradeSide="open")
    answer = hedge.call("POST", TPSL, stop(hedge, "1.1", side="buy"))
    assert (answer["code"], answer["msg"].endswith("delegateType is error")) == ("43011", True)
    assert hedge.code("POST", TPSL, **stop(hedge, "0.9", side="short")) == "45122"
    assert hedge.code("POST", TPSL, **stop(hedge, "1.1", "pos_profit", "short")) == "40832"
    hedge.post(TPSL, **stop(hedge, "1.1", side="SHORT"))
    (row,) = stops_of(hedge)
    assert (row["side"], row["posSide"], row["tradeSide"], row["marginMode"]) == (
        "sell",
        "short",
        "close",
        "",
    )
    (position,) = positions(hedge)
    assert (position["stopLossId"], position["takeProfitId"]) == (row["orderId"], "")


@pytest.mark.endpoint(TPSL_NAME, "pos_*: placing again moves the stop under its id")
def test_an_upsert_keeps_the_id(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock, presetStopLossPrice=priced(raw, "0.9"))
    (first,) = stops_of(raw)
    again = raw.post(TPSL, **stop(raw, "0.92"), clientOid="mine", size="5")
    assert (again["orderId"], again["clientOid"]) == (first["orderId"], "mine")
    (row,) = stops_of(raw)
    assert row["size"] == "0"
    assert Decimal(row["triggerPrice"]) == Decimal(priced(raw, "0.92"))


@pytest.mark.endpoint(TPSL_NAME, "trigger: the closing order's clientOid is the plan's id")
@pytest.mark.parametrize(
    ("plan_type", "share", "factor", "source"),
    [
        ("pos_loss", "0.95", "0.9", "pos_loss_market"),
        ("pos_profit", "1.05", "1.1", "pos_profit_market"),
        ("loss_plan", "0.95", "0.9", "loss_market"),
        ("profit_plan", "1.05", "1.1", "profit_market"),
    ],
)
def test_a_reached_stop_closes_at_market(
    raw: RawBitget,
    clock: WorldClock,
    simulator: SimulatorProcess,
    plan_type: str,
    share: str,
    factor: str,
    source: str,
) -> None:
    opened(raw, clock)
    plan = raw.post(TPSL, **stop(raw, share, plan_type), size="0.004")
    jump(simulator, factor)
    clock.sleep(0.1)
    whole = plan_type.startswith("pos_")
    assert [row["total"] for row in positions(raw)] == ([] if whole else ["0.006"])
    order = raw.get(DETAIL, symbol="BTCUSDT", clientOid=plan["orderId"], **USDT)
    assert (order["orderSource"], order["state"], order["tradeSide"], order["reduceOnly"]) == (
        source,
        "filled",
        "sell_single",
        "YES",
    )
    (row,) = history(raw, planStatus="EXECUTED")
    assert (row["executeOrderId"], row["planStatus"], row["orderId"]) == (
        order["orderId"],
        "executed",
        plan["orderId"],
    )
    assert (row["priceAvg"], row["baseVolume"]) == (order["priceAvg"], order["baseVolume"])
    jump(simulator, str(1 / Decimal(factor)))


@pytest.mark.endpoint(TPSL_NAME, "executePrice: a limit order closes")
def test_a_stop_with_an_execute_price_sends_a_limit_order(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    opened(raw, clock)
    execute = priced(raw, "0.95")
    plan = raw.post(TPSL, **stop(raw, "0.96"), executePrice=execute)
    (row,) = stops_of(raw)
    assert (row["orderType"], Decimal(row["executePrice"])) == ("limit", Decimal(execute))
    assert Decimal(row["stopLossExecutePrice"]) == Decimal(execute)
    jump(simulator, "0.9")
    clock.sleep(0.1)
    order = raw.get(DETAIL, symbol="BTCUSDT", clientOid=plan["orderId"], **USDT)
    assert (order["orderSource"], order["state"], order["orderType"]) == (
        "pos_loss_limit",
        "live",
        "limit",
    )
    assert [row["total"] for row in positions(raw)] == ["0.01"]  # the limit lies above the market
    jump(simulator, "1.111112")
    clock.sleep(5)
    assert positions(raw) == []


@pytest.mark.endpoint(TPSL_NAME, "moving_plan follows the price and fires on the way back")
def test_a_moving_plan_trails(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    opened(raw, clock)
    words = stop(raw, "1.02", "moving_plan")
    assert raw.code("POST", TPSL, **words, size="0.01") == "40019"
    assert raw.code("POST", TPSL, **words, size="0.01", rangeRate="11") == "400172"
    limit = {"rangeRate": "1", "executePrice": priced(raw, "1.02")}
    assert raw.code("POST", TPSL, **words, size="0.01", **limit) == "400172"
    plan = raw.post(TPSL, **words, size="0.01", rangeRate="3")
    (row,) = stops_of(raw)
    assert (row["planType"], row["callbackRatio"], row["size"]) == ("moving_plan", "3", "0.01")
    jump(simulator, "1.05")
    clock.sleep(0.1)
    assert len(positions(raw)) == 1
    jump(simulator, "0.9523810")
    clock.sleep(0.1)
    assert positions(raw) == []
    order = raw.get(DETAIL, symbol="BTCUSDT", clientOid=plan["orderId"], **USDT)
    assert order["orderSource"] == "move_market"


@pytest.mark.endpoint("POST /api/v2/mix/order/place-pos-tpsl", "both at once or, refused, neither")
def test_both_stops_at_once(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock)
    words = {**BTC, "holdSide": "buy", "stopSurplusTriggerPrice": priced(raw, "1.1")}
    wrong = {**words, "stopLossTriggerPrice": priced(raw, "1.1")}
    assert raw.code("POST", POS_TPSL, **wrong) == "40917"
    assert stops_of(raw) == []
    assert raw.code("POST", POS_TPSL, **BTC, holdSide="buy") == "40019"
    right = {
        **words,
        "stopLossTriggerPrice": priced(raw, "0.9"),
        "stopLossTriggerType": "mark_price",
        "stopSurplusExecutePrice": "0",
    }
    rows = raw.post(POS_TPSL, **right, stopSurplusClientOid="up", stopLossClientOid="down")
    assert [list(row) for row in rows] == [
        ["orderId", "stopSurplusClientOid", "stopLossClientOid"]
    ] * 2
    assert [row["stopSurplusClientOid"] for row in rows] == ["up", ""]
    assert {row["clientOid"]: row["triggerType"] for row in stops_of(raw)} == {
        "up": "fill_price",
        "down": "mark_price",
    }
    (position,) = positions(raw)
    assert (position["takeProfitId"], position["stopLossId"]) == (
        rows[0]["orderId"],
        rows[1]["orderId"],
    )


@pytest.mark.endpoint("POST /api/v2/mix/order/place-order", "attached stops: parent, then position")
def test_attached_stops_are_the_parents_and_then_the_positions(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    loss, profit = priced(raw, "0.9"), priced(raw, "1.1")
    presets = {
        "presetStopLossPrice": loss,
        "presetStopSurplusPrice": profit,
        "presetStopSurplusExecutePrice": priced(raw, "1.12"),
    }
    gone = raw.post(PLACE, **limit_order(raw, **presets))
    row = detail_of(raw, gone)
    assert (Decimal(row["presetStopLossPrice"]), row["presetStopLossExecutePrice"]) == (
        Decimal(loss),
        "",
    )
    assert Decimal(row["presetStopSurplusExecutePrice"]) == Decimal(priced(raw, "1.12"))
    assert stops_of(raw) == []
    raw.post(f"{ORDER}/cancel-order", **BTC, orderId=gone["orderId"])
    assert stops_of(raw) == []  # a cancelled parent takes them along
    opened(raw, clock, **presets)
    rows = {row["planType"]: row for row in stops_of(raw)}
    assert Decimal(rows["pos_loss"]["triggerPrice"]) == Decimal(loss)
    assert rows["pos_profit"]["orderType"] == "limit"
    assert rows["pos_loss"]["stopSurplusTriggerPrice"] is None
    (position,) = positions(raw)
    assert (Decimal(position["stopLoss"]), Decimal(position["takeProfit"])) == (
        Decimal(loss),
        Decimal(profit),
    )
    opened(raw, clock, presetStopLossPrice=priced(raw, "0.93"))
    again = {row["planType"]: row for row in stops_of(raw)}
    assert again["pos_loss"]["orderId"] == rows["pos_loss"]["orderId"]
    assert Decimal(again["pos_loss"]["triggerPrice"]) == Decimal(priced(raw, "0.93"))
    closed(raw, clock)
    assert raw.get(PLANS, **STOPS) == {"entrustedList": None, "endId": None}
    assert {row["planStatus"] for row in history(raw)} == {"cancelled"}


@pytest.mark.endpoint("GET /api/v2/mix/order/orders-plan-pending", "the row of a stop")
def test_the_row_of_a_stop(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock)
    raw.post(TPSL, **stop(raw, "0.9"))
    (row,) = stops_of(raw)
    assert " ".join(row) == (
        "planType symbol size orderId clientOid price executePrice callbackRatio triggerPrice "
        "triggerType planStatus side posSide marginCoin marginMode enterPointSource tradeSide "
        "posMode orderType stopSurplusTriggerPrice stopSurplusExecutePrice "
        "stopSurplusTriggerType stopLossTriggerPrice stopLossExecutePrice stopLossTriggerType "
        "cTime uTime"
    )
    shown = {name: row[name] for name in row if name not in ("orderId", "clientOid")}
    for name, value in {
        "size": "0",
        "price": "",
        "executePrice": "",
        "callbackRatio": "",
        "planStatus": "live",
        "side": "sell",
        "posSide": "net",
        "marginMode": "crossed",
        "enterPointSource": "API",
        "tradeSide": "sell_single",
        "orderType": "market",
        "stopSurplusTriggerPrice": None,
        "stopSurplusTriggerType": None,
        "stopLossExecutePrice": None,
        "stopLossTriggerType": "fill_price",
    }.items():
        assert shown[name] == value, name
    for words in (
        {"symbol": "ETHUSDT"},
        {"orderId": "5"},
        {"clientOid": "x"},
        {"idLessThan": row["orderId"]},
        {"endTime": "5"},
    ):
        assert raw.get(PLANS, **STOPS, **words) == {"entrustedList": None, "endId": None}
    assert raw.code("GET", PLANS, **USDT, planType="pos_loss") == "40812"
    assert raw.code("GET", PLANS, **USDT) == "40019"


@pytest.mark.endpoint("POST /api/v2/mix/order/modify-tpsl-order", "moves a stop; unknown is 43020")
def test_a_stop_is_modified_by_its_id(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock)
    plan = raw.post(TPSL, **stop(raw, "1.1", "profit_plan"), size="0.004", clientOid="part")
    words = {**BTC, "triggerPrice": priced(raw, "1.2"), "size": "0.006"}
    changed = raw.post(MODIFY_TPSL, **words, clientOid="part")
    assert changed == {"orderId": plan["orderId"], "clientOid": "part"}
    (row,) = stops_of(raw)
    assert (row["size"], Decimal(row["triggerPrice"])) == ("0.006", Decimal(priced(raw, "1.2")))
    ids = {"orderId": plan["orderId"]}
    assert raw.code("POST", MODIFY_TPSL, **{**words, "orderId": "4"}) == "43020"
    assert raw.code("POST", MODIFY_TPSL, **{**words, **ids, "size": "0.02"}) == "43029"
    wrong = {**words, **ids, "triggerPrice": priced(raw, "0.9")}
    assert raw.code("POST", MODIFY_TPSL, **wrong) == "40915"
    assert raw.code("POST", MODIFY_TPSL, **{**words, **ids, "triggerPrice": ""}) == "40019"
    raw.post(MODIFY_TPSL, **words, **ids, executePrice=priced(raw, "1.19"))
    (row,) = stops_of(raw)
    assert row["orderType"] == "limit"


# -- cancel -----------------------------------------------------------------------------------


@pytest.mark.endpoint("POST /api/v2/mix/order/cancel-plan-order", "planType must be the plan's own")
def test_a_cancel_under_another_plan_type_does_nothing(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock)
    plan = raw.post(TPSL, **stop(raw, "0.9"))
    nothing: dict[str, list[object]] = {"successList": [], "failureList": []}
    ids = [{"orderId": plan["orderId"]}]
    for kind in ({"planType": "profit_loss"}, {"planType": "pos_profit"}, {}):
        assert raw.post(CANCEL_PLAN, **BTC, **kind, orderIdList=ids) == nothing
    assert raw.code("POST", CANCEL_PLAN, **BTC, planType="all", orderIdList=ids) == "40812"
    assert raw.code("POST", CANCEL_PLAN, **BTC, orderIdList=ids * 51) == "40912"
    done = raw.post(CANCEL_PLAN, **BTC, planType="POS_LOSS", orderIdList=[*ids, {"orderId": "7"}])
    assert [row["orderId"] for row in done["successList"]] == [plan["orderId"]]
    assert [list(row) for row in done["successList"]] == [["clientOid", "orderId"]]
    assert [row["errorCode"] for row in done["failureList"]] == ["43020"]
    assert stops_of(raw) == []


# -- trigger orders ---------------------------------------------------------------------------


def plan_words(raw: RawBitget, share: str, **more: object) -> dict[str, object]:
    words = {**market_order("buy", "0.01"), "planType": "normal_plan"}
    return {**words, "triggerPrice": priced(raw, share), "triggerType": "mark_price", **more}


@pytest.mark.endpoint("POST /api/v2/mix/order/place-plan-order", "limit, with attached stops")
def test_a_trigger_order_with_a_limit_price_and_stops(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    limit = priced(raw, "1.06")
    words = plan_words(
        raw,
        "1.05",
        orderType="limit",
        price=limit,
        executePrice=limit,
        stopLossTriggerPrice=priced(raw, "0.9"),
        stopLossTriggerType="mark_price",
        stopSurplusTriggerPrice=priced(raw, "1.3"),
        stopSurplusExecutePrice=priced(raw, "1.31"),
        clientOid="my-plan",
    )
    plan = raw.post(PLACE_PLAN, **words)
    assert list(plan) == ["orderId", "clientOid"]
    assert raw.code("POST", PLACE_PLAN, **words) == "40786"
    (row,) = raw.get(PLANS, **USDT, planType="normal_plan")["entrustedList"]
    assert (row["orderType"], Decimal(row["price"])) == ("limit", Decimal(limit))
    assert (row["stopLossTriggerType"], row["tradeSide"], row["posSide"]) == (
        "mark_price",
        "buy_single",
        "net",
    )
    jump(simulator, "1.055")
    clock.sleep(0.1)
    order = raw.get(DETAIL, symbol="BTCUSDT", clientOid=plan["orderId"], **USDT)
    assert (order["orderSource"], order["state"]) == ("plan_limit", "filled")
    kinds = {row["planType"]: row["orderType"] for row in stops_of(raw)}
    assert kinds == {"pos_loss": "market", "pos_profit": "limit"}
    sub = raw.get(
        f"{ORDER}/plan-sub-order", **USDT, planType="normal_plan", planOrderId=plan["orderId"]
    )
    assert [(row["orderId"], row["type"], row["status"]) for row in sub] == [
        (order["orderId"], "limit", "success")
    ]
    jump(simulator, "0.9478673")


@pytest.mark.endpoint("POST /api/v2/mix/order/place-plan-order", "what is refused")
def test_refused_trigger_orders(raw: RawBitget) -> None:
    for change, code in (
        ({"planType": "pos_loss"}, "40812"),
        ({"planType": "later"}, "400172"),
        ({"triggerPrice": None}, "40019"),
        ({"triggerPrice": "60000.05"}, "45115"),
        ({"size": "0.00005"}, "45111"),
        ({"tradeSide": "open"}, "40774"),
        ({"planType": "track_plan"}, "40019"),
        ({"planType": "track_plan", "callbackRatio": "10.5"}, "400172"),
    ):
        assert raw.code("POST", PLACE_PLAN, **{**plan_words(raw, "1.1"), **change}) == code, change
    assert raw.get(PLANS, **USDT, planType="normal_plan")["entrustedList"] is None


@pytest.mark.endpoint("GET /api/v2/mix/order/orders-plan-history", "fail_execute, cancelled")
def test_a_trigger_order_that_cannot_be_placed_has_failed(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    assert history(raw, "normal_plan") == []
    raw.post(PLACE_PLAN, **plan_words(raw, "1.05", size="60", clientOid="greedy"))
    raw.post(PLACE_PLAN, **plan_words(raw, "0.9", clientOid="bored"))
    jump(simulator, "1.06")
    clock.sleep(0.1)
    raw.post(CANCEL_PLAN, **BTC, orderIdList=[{"clientOid": "bored"}])
    rows = {row["clientOid"]: row for row in history(raw, "normal_plan")}
    assert {name: row["planStatus"] for name, row in rows.items()} == {
        "greedy": "fail_execute",
        "bored": "cancelled",
    }
    assert (rows["greedy"]["executeOrderId"], rows["greedy"]["baseVolume"]) == ("", "0")
    failed = history(raw, "normal_plan", planStatus="fail_execute")
    assert [row["clientOid"] for row in failed] == ["greedy"]
    sub = f"{ORDER}/plan-sub-order"
    words = {**USDT, "planType": "normal_plan"}
    assert raw.get(sub, **words, planOrderId=rows["greedy"]["orderId"]) == []
    assert raw.code("GET", sub, **words, planOrderId="5") == "43020"
    jump(simulator, "0.9433963")


@pytest.mark.endpoint("POST /api/v2/mix/order/modify-plan-order", "trigger, size, stops")
def test_a_trigger_order_is_modified(raw: RawBitget) -> None:
    plan = raw.post(PLACE_PLAN, **plan_words(raw, "1.05"))
    path = f"{ORDER}/modify-plan-order"
    words = {**USDT, "symbol": "BTCUSDT", "orderId": plan["orderId"]}
    change = {
        "newTriggerPrice": priced(raw, "0.95"),
        "newSize": "0.02",
        "newStopLossTriggerPrice": priced(raw, "0.8"),
    }
    assert raw.post(path, **words, **change)["orderId"] == plan["orderId"]
    (row,) = raw.get(PLANS, **USDT, planType="normal_plan")["entrustedList"]
    assert (row["size"], Decimal(row["triggerPrice"])) == ("0.02", Decimal(priced(raw, "0.95")))
    assert Decimal(row["stopLossTriggerPrice"]) == Decimal(priced(raw, "0.8"))
    raw.post(path, **words, newStopLossTriggerPrice="0")
    (row,) = raw.get(PLANS, **USDT, planType="normal_plan")["entrustedList"]
    assert row["stopLossTriggerPrice"] == ""
    assert raw.code("POST", path, **{**words, "orderId": "6"}, newSize="1") == "43020"
    assert raw.code("POST", path, **words, newSize="0.00015") == "22038"


@pytest.mark.endpoint("POST /api/v2/mix/order/place-plan-order", "track_plan trails the price")
def test_a_track_plan_sells_on_the_way_down(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    opened(raw, clock)
    words = {**market_order("sell", "0.01"), "planType": "track_plan", "reduceOnly": "YES"}
    plan = raw.post(PLACE_PLAN, **words, triggerPrice=priced(raw, "1.02"), callbackRatio="2")
    (row,) = raw.get(PLANS, **USDT, planType="track_plan")["entrustedList"]
    assert (row["callbackRatio"], row["orderId"]) == ("2", plan["orderId"])
    jump(simulator, "1.05")
    clock.sleep(0.1)
    jump(simulator, "0.9523810")
    clock.sleep(0.1)
    assert positions(raw) == []
    order = raw.get(DETAIL, symbol="BTCUSDT", clientOid=plan["orderId"], **USDT)
    assert (order["reduceOnly"], order["state"]) == ("YES", "filled")
