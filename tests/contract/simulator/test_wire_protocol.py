"""The wire itself, read raw: signatures, envelope, codes, limits, and the traps of the venue."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest

from module.clock import WorldClock, to_epoch_ms
from tests.contract.simulator.wire_words import (
    DETAIL,
    PLACE,
    last_price,
    limit_order,
    opened,
)
from tests.contract.simulator.wire_words import PLANS as PENDING
from tests.fakes.paper_exchange import (
    BTC,
    MIX,
    SPOT,
    USDT,
    RawBitget,
    SimulatorProcess,
    market_order,
)

pytestmark = pytest.mark.timeout(120)
# -- who is calling ---------------------------------------------------------------------------


ACCOUNTS = f"{MIX}/account/accounts"
QUERY = "productType=USDT-FUTURES"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ACCESS-KEY": ""}, "40001"),
        ({"ACCESS-SIGN": ""}, "40002"),
        ({"ACCESS-TIMESTAMP": ""}, "40003"),
        ({"ACCESS-PASSPHRASE": ""}, "40011"),
        ({"ACCESS-TIMESTAMP": "soon"}, "40005"),
        ({"ACCESS-KEY": "nobody"}, "40006"),
        ({"ACCESS-SIGN": "AAAA"}, "40009"),
        ({"ACCESS-SIGN": "no base64!"}, "40009"),
        ({"ACCESS-PASSPHRASE": "other"}, "40012"),
        ({"paptrading": "1"}, "40099"),
    ],
)
def test_a_call_that_is_not_authentic_has_its_own_code(
    raw: RawBitget, change: dict[str, str], code: str
) -> None:
    stamp = str(int(time.time() * 1000))
    headers = raw.signed(f"GET{ACCOUNTS}?{QUERY}", stamp)
    assert raw.send("GET", ACCOUNTS, QUERY, "", headers)["code"] == "00000"
    answer = raw.send("GET", ACCOUNTS, QUERY, "", {**headers, **change})
    assert (answer["code"], answer["data"], raw.status) == (code, None, 400)


def test_the_body_is_part_of_the_signature(raw: RawBitget) -> None:
    stamp = str(int(time.time() * 1000))
    headers = raw.signed(f'POST{PLACE}{{"symbol":"BTCUSDT"}}', stamp)
    assert raw.send("POST", PLACE, "", '{"symbol":"ETHUSDT"}', headers)["code"] == "40009"


def test_timestamps_may_be_of_the_wall_or_of_the_world_and_expire_after_30_seconds(
    raw: RawBitget, clock: WorldClock
) -> None:
    world, wall = to_epoch_ms(clock.now()), int(time.time() * 1000)
    codes = [
        raw.call("GET", ACCOUNTS, dict(USDT), stamp_ms=stamp)["code"]
        for stamp in (world, world - 29_000, wall, wall + 20_000, world - 31_000, wall - 60_000)
    ]
    assert codes == ["00000", "00000", "00000", "00000", "40008", "40008"]


@pytest.mark.parametrize("decoded", [True, False])
def test_a_query_is_signed_as_sent_or_decoded(
    raw: RawBitget, clock: WorldClock, decoded: bool
) -> None:
    raw.post(PLACE, **market_order("buy", "0.01", clientOid="odd#one+two"))
    sent = f"clientOid={quote('odd#one+two')}&productType=USDT-FUTURES&symbol=BTCUSDT"
    plain = "clientOid=odd#one+two&productType=USDT-FUTURES&symbol=BTCUSDT"
    stamp = str(int(time.time() * 1000))
    headers = raw.signed(f"GET{DETAIL}?{plain if decoded else sent}", stamp)
    answer = raw.send("GET", DETAIL, sent, "", headers)
    assert answer["data"]["clientOid"] == "odd#one+two"


@pytest.mark.endpoint("POST /api/v2/mix/account/set-leverage", "words in the query of a POST")
def test_a_post_may_carry_its_words_in_the_query(raw: RawBitget) -> None:
    path, query = (
        f"{MIX}/account/set-leverage",
        "symbol=BTCUSDT&leverage=7&marginCoin=USDT&" + QUERY,
    )
    headers = raw.signed(f"POST{path}?{query}", str(int(time.time() * 1000)))
    assert raw.send("POST", path, query, "", headers)["data"]["longLeverage"] == "7"


@pytest.mark.endpoint("GET /api/v2/mix/order/fill-history", "40404 for demo accounts")
def test_demo_keys_need_the_demo_header_and_have_no_fill_history(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> None:
    number = new_number(environment="demo")
    keys = (f"key-{number}", f"secret-{number}", f"pass-{number}")
    path = f"{MIX}/order/fill-history"
    demo = RawBitget(simulator.url, *keys, demo=True)
    assert demo.get(f"{MIX}/order/fills", **USDT) == {"fillList": None, "endId": None}
    assert demo.code("GET", path, **USDT) == "40404"
    assert RawBitget(simulator.url, *keys).code("GET", path, **USDT) == "40099"


@pytest.mark.endpoint("GET /api/v2/spot/account/info", "the key's authorities")
def test_a_key_does_only_what_it_is_allowed_to_and_says_so(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> None:
    number = new_number(authorities=["coor", "cpor", "stor", "wwow"])
    raw = RawBitget(simulator.url, f"key-{number}", f"secret-{number}", f"pass-{number}")
    info = raw.get(f"{SPOT}/account/info")
    assert info["authorities"] == ["coor", "cpor", "stor", "wwow"]
    assert raw.code("POST", PLACE, **market_order("buy", "0.01")) == "40014"
    assert raw.get(f"{MIX}/position/all-position", **USDT) == []


# -- the envelope -----------------------------------------------------------------------------


def test_every_number_is_a_string_without_trailing_zeros_and_times_are_world_time(
    raw: RawBitget, clock: WorldClock
) -> None:
    opened(raw, clock, presetStopLossPrice=str((last_price(raw) * 9 / 10).quantize(Decimal(1))))
    paths: list[tuple[str, dict[str, Any]]] = [
        (f"{MIX}/position/all-position", USDT),
        (f"{MIX}/account/accounts", USDT),
        (f"{MIX}/account/bill", USDT),
        (f"{MIX}/order/fills", USDT),
        (f"{MIX}/order/orders-history", USDT),
        (f"{MIX}/order/orders-plan-pending", {**USDT, "planType": "profit_loss"}),
        (f"{MIX}/market/tickers", USDT),
        (f"{MIX}/market/contracts", USDT),
        (f"{MIX}/market/candles", {**USDT, "symbol": "BTCUSDT", "granularity": "5m"}),
    ]
    for path, params in paths:
        answer = raw.call("GET", path, params)
        assert answer["code"] == "00000", (path, answer)
        assert answer["requestTime"] == to_epoch_ms(clock.now())
        assert isinstance(answer["requestTime"], int)
        leaves = [leaf for leaf in every_leaf(answer["data"]) if leaf is not None]
        assert leaves
        for leaf in leaves:
            assert isinstance(leaf, str), (path, leaf)
            if re.fullmatch(r"-?\d+\.\d+", leaf) and leaf != "0.00000000":
                assert not leaf.endswith("0"), (path, leaf)


def every_leaf(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in every_leaf(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in every_leaf(item)]
    return [value]


@pytest.mark.endpoint("GET /api/v2/mix/order/detail", "keys in the recorded order")
@pytest.mark.endpoint("GET /api/v2/mix/position/single-position", "keys in the recorded order")
def test_keys_stand_in_the_recorded_order(raw: RawBitget, clock: WorldClock) -> None:
    order = opened(raw, clock)
    assert list(order) == ["clientOid", "orderId"]
    detail = raw.get(DETAIL, orderId=order["orderId"], symbol="BTCUSDT", **USDT)
    assert " ".join(detail) == (
        "symbol size orderId clientOid baseVolume fee price priceAvg state side force totalProfits "
        "posSide marginCoin presetStopSurplusPrice presetStopSurplusType "
        "presetStopSurplusExecutePrice presetStopLossPrice presetStopLossExecutePrice "
        "presetStopLossType quoteVolume orderType leverage marginMode reduceOnly "
        "enterPointSource tradeSide posMode orderSource newTradeSide cancelReason cTime uTime"
    )
    (position,) = raw.get(f"{MIX}/position/single-position", **BTC)
    assert " ".join(position) == (
        "marginCoin symbol holdSide openDelegateSize marginSize available locked total leverage "
        "achievedProfits openPriceAvg marginMode posMode unrealizedPL liquidationPrice "
        "keepMarginRate markPrice marginRatio breakEvenPrice totalFee deductedFee grant assetMode "
        "autoMargin takeProfit stopLoss takeProfitId stopLossId cashDividend cTime uTime"
    )


@pytest.mark.endpoint("GET /api/v2/mix/order/orders-pending", "null when there is nothing")
@pytest.mark.endpoint("GET /api/v2/mix/order/orders-history", "null when there is nothing")
@pytest.mark.endpoint("GET /api/v2/mix/order/fills", "null when there is nothing")
@pytest.mark.endpoint("GET /api/v2/mix/order/orders-plan-pending", "null when there is nothing")
@pytest.mark.endpoint("GET /api/v2/mix/position/all-position", "[] when flat")
def test_empty_lists_are_null_where_the_exchange_says_null(raw: RawBitget) -> None:
    empty = {"entrustedList": None, "endId": None}
    assert raw.get(f"{MIX}/order/orders-pending", **USDT) == empty
    assert raw.get(f"{MIX}/order/orders-history", **USDT) == empty
    plans = {**USDT, "planType": "profit_loss"}
    assert raw.get(f"{MIX}/order/orders-plan-pending", **plans) == empty
    assert raw.get(f"{MIX}/order/fills", **USDT) == {"fillList": None, "endId": None}
    assert raw.get(f"{MIX}/position/all-position", **USDT) == []
    assert raw.get(f"{MIX}/position/history-position") == {"list": [], "endId": None}


def test_unknown_paths_and_the_unified_account_are_answered_as_the_exchange_does(
    raw: RawBitget,
) -> None:
    assert raw.code("GET", "/api/v2/mix/account/nothing") == "40404"
    assert raw.status == 404
    assert raw.code("GET", "/api/v3/account/settings") == "40084"
    assert raw.status == 400
    assert raw.code("POST", PLACE, **{**market_order("buy", "0.01"), "side": ""}) == "40019"
    assert raw.code("POST", PLACE, **{**market_order("buy", "0.01"), "side": "up"}) == "400172"
    assert raw.code("POST", PLACE, **{**market_order("buy", "0.01"), "symbol": "NOUSDT"}) == "40034"
    assert raw.get(f"{MIX}/market/contracts", productType="SUSDT-FUTURES") == []


@pytest.mark.endpoint("GET /api/v2/mix/order/orders-pending", "10 a second, counted in the header")
def test_limits_count_per_endpoint_and_world_second(raw: RawBitget, clock: WorldClock) -> None:
    left = []
    for _ in range(10):
        raw.get(f"{MIX}/order/orders-pending", **USDT)
        left.append(int(raw.headers["x-mbx-used-remain-limit"]))
    assert left == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    refused = raw.call("GET", f"{MIX}/order/orders-pending", dict(USDT))
    assert (raw.status, refused["code"], refused["msg"]) == (429, "429", "Too Many Requests")
    raw.get(f"{MIX}/order/orders-history", **USDT)  # another endpoint has its own count
    clock.sleep(1)
    raw.get(f"{MIX}/order/orders-pending", **USDT)


# -- orders -----------------------------------------------------------------------------------


@pytest.mark.endpoint("POST /api/v2/mix/order/place-order", "live at first, then filled")
@pytest.mark.endpoint("GET /api/v2/mix/order/fills", "fee truncated to 8 decimals")
def test_an_accepted_order_is_live_for_a_moment_and_then_filled(
    raw: RawBitget, clock: WorldClock
) -> None:
    order = raw.post(PLACE, **market_order("buy", "0.01"))
    detail = raw.get(DETAIL, orderId=order["orderId"], symbol="BTCUSDT", **USDT)
    assert (detail["state"], detail["baseVolume"], detail["priceAvg"]) == ("live", "0", "")
    clock.sleep(0.05)
    detail = raw.get(DETAIL, orderId=order["orderId"], symbol="BTCUSDT", **USDT)
    assert (detail["state"], detail["tradeSide"], detail["posSide"]) == (
        "filled",
        "buy_single",
        "net",
    )
    assert detail["newTradeSide"] is None
    (fill,) = raw.get(f"{MIX}/order/fills", **USDT)["fillList"]
    fee = Decimal(fill["price"]) * Decimal(fill["baseVolume"]) * Decimal("0.0006")
    assert Decimal(fill["feeDetail"][0]["totalFee"]) == -fee.quantize(
        Decimal("1e-8"), rounding="ROUND_DOWN"
    )
    assert int(fill["tradeId"]) > int(order["orderId"])
    assert int(fill["cTime"]) == int(detail["cTime"]) + 50


@pytest.mark.endpoint("POST /api/v2/mix/order/place-order", "the same clientOid twice: 40786")
@pytest.mark.endpoint("POST /api/v2/mix/order/batch-place-order", "the same clientOid twice: 40786")
def test_A6_a_client_id_makes_one_order_in_place_and_batch(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess, number: int
) -> None:
    words = market_order("buy", "0.01", clientOid="twice")
    raw.post(PLACE, **words)
    assert raw.code("POST", PLACE, **words) == "40786"
    batch = raw.post(
        f"{MIX}/order/batch-place-order", **BTC, orderList=[words], marginMode="crossed"
    )
    assert batch["successList"] == []
    (failed,) = batch["failureList"]
    assert (failed["errorCode"], failed["clientOid"]) == ("40786", "twice")
    clock.sleep(0.1)
    assert [row["clientOid"] for row in simulator.account(number)["orders"]] == ["twice"]
    assert raw.code("POST", PLACE, **{**words, "clientOid": "x" * 51}) == "40304"
    assert raw.code("POST", PLACE, **{**words, "clientOid": "a b"}) == "40305"


@pytest.mark.endpoint(
    "POST /api/v2/mix/order/batch-place-order", "one bad item: 00000 and failureList"
)
def test_A7_a_batch_with_one_bad_item_says_which_in_its_failure_list(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess, number: int
) -> None:
    items = [
        {"side": "buy", "orderType": "market", "size": "0.01", "clientOid": "good"},
        {"side": "buy", "orderType": "market", "size": "99999", "clientOid": "giant"},
        {"side": "buy", "orderType": "limit", "size": "0.01", "clientOid": "priceless"},
    ]
    answer = raw.call(
        "POST",
        f"{MIX}/order/batch-place-order",
        {**BTC, "marginMode": "crossed", "orderList": items},
    )
    assert (answer["code"], raw.status) == ("00000", 200)
    (done,) = answer["data"]["successList"]
    assert done["clientOid"] == "good"
    failed = {row["clientOid"]: row["errorCode"] for row in answer["data"]["failureList"]}
    assert failed == {"giant": "45112", "priceless": "40019"}
    assert {row["orderId"] for row in answer["data"]["failureList"]} == {""}
    clock.sleep(0.1)
    assert [row["clientOid"] for row in simulator.account(number)["orders"]] == ["good"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size": "0.01005"}, "22038"),
        ({"size": "0"}, "400172"),
        ({"size": "1e5"}, "45112"),
        ({"size": "90"}, "40762"),
        ({"reduceOnly": "YES"}, "22002"),
        ({"tradeSide": "open"}, "40774"),
        ({"marginCoin": "BTC"}, "400172"),
        ({"productType": "COIN-FUTURES"}, "40034"),
        ({"orderType": "limit", "price": "1"}, "22008"),
    ],
)
def test_A17_an_order_that_breaks_a_rule_is_refused_with_its_code_and_leaves_nothing(
    raw: RawBitget, simulator: SimulatorProcess, number: int, change: dict[str, str], code: str
) -> None:
    assert raw.code("POST", PLACE, **{**market_order("buy", "0.01"), **change}) == code
    assert simulator.account(number)["orders"] == []


@pytest.mark.endpoint("POST /api/v2/mix/order/cancel-order", "what is over or unknown")
def test_A31_cancelling_what_is_over_or_unknown_is_refused(
    raw: RawBitget, clock: WorldClock
) -> None:
    order = opened(raw, clock)
    cancel = f"{MIX}/order/cancel-order"
    assert raw.code("POST", cancel, **BTC, orderId=order["orderId"]) == "22001"
    assert raw.code("POST", cancel, **BTC, orderId="12345") == "40768"
    assert raw.code("POST", cancel, **BTC) == "40924"
    assert raw.code("GET", DETAIL, symbol="BTCUSDT", orderId="12345", **USDT) == "40109"
    assert raw.code("POST", f"{MIX}/order/cancel-all-orders", **USDT) == "22001"


@pytest.mark.endpoint("GET /api/v2/mix/order/orders-pending", "newest first, page by page")
def test_lists_are_paged_newest_first_until_null(raw: RawBitget, clock: WorldClock) -> None:
    for number in range(5):
        raw.post(PLACE, **limit_order(raw, clientOid=f"page-{number}"))
    seen: list[str] = []
    more: dict[str, object] = {}
    while True:
        answer = raw.get(f"{MIX}/order/orders-pending", **USDT, limit="2", **more)
        if answer["entrustedList"] is None:
            break
        seen += [row["clientOid"] for row in answer["entrustedList"]]
        more = {"idLessThan": answer["endId"]}
    assert seen == [f"page-{number}" for number in (4, 3, 2, 1, 0)]
    clock.sleep(1)
    items = [{"clientOid": "page-1"}, {"clientOid": "nobody"}]
    answer = raw.post(f"{MIX}/order/batch-cancel-orders", **BTC, orderIdList=items)
    assert [row["clientOid"] for row in answer["successList"]] == ["page-1"]
    assert [row["errorCode"] for row in answer["failureList"]] == ["40768"]
    rest = raw.post(f"{MIX}/order/batch-cancel-orders", **BTC)
    assert len(rest["successList"]) == 4


@pytest.mark.endpoint(
    "POST /api/v2/mix/order/close-positions", "once a second; dust; nothing is 22002"
)
def test_close_positions_is_allowed_once_a_second_and_closes_dust(
    raw: RawBitget, clock: WorldClock
) -> None:
    close = f"{MIX}/order/close-positions"
    assert raw.code("POST", close, **USDT) == "22002"
    clock.sleep(1)
    opened(raw, clock)
    raw.post(PLACE, **market_order("sell", "0.0099", reduceOnly="YES"))
    clock.sleep(0.1)
    clock.sleep(1)
    answer = raw.post(close, **USDT)
    assert [row["symbol"] for row in answer["successList"]] == ["BTCUSDT"]
    assert raw.code("POST", close, **USDT) == "429"
    clock.sleep(0.1)
    assert raw.get(f"{MIX}/position/all-position", **USDT) == []


@pytest.mark.endpoint(
    "POST /api/v2/mix/account/set-position-mode", "refused while anything is open"
)
@pytest.mark.endpoint("POST /api/v2/mix/account/set-margin-mode", "refused while anything is open")
def test_settings_cannot_change_while_something_is_open(raw: RawBitget, clock: WorldClock) -> None:
    mode = f"{MIX}/account/set-position-mode"
    assert raw.post(mode, **USDT, posMode="one_way_mode") == {"posMode": "one_way_mode"}
    isolated = raw.post(f"{MIX}/account/set-margin-mode", **BTC, marginMode="isolated")
    assert list(isolated) == ["symbol", "marginCoin", "longLeverage", "shortLeverage", "marginMode"]
    answer = raw.post(f"{MIX}/account/set-leverage", **BTC, leverage="3")
    assert answer["crossMarginLeverage"] == ""
    assert (answer["longLeverage"], answer["shortLeverage"]) == ("3", "3")
    opened(raw, clock, marginMode="isolated")
    assert raw.code("POST", mode, **USDT, posMode="hedge_mode") == "40920"
    crossed = {**BTC, "marginMode": "crossed"}
    assert raw.code("POST", f"{MIX}/account/set-margin-mode", **crossed) == "45117"
    assert raw.code("POST", f"{MIX}/account/set-leverage", **BTC, leverage="500") == "45045"


# -- stops ------------------------------------------------------------------------------------


@pytest.mark.endpoint("POST /api/v2/mix/order/place-plan-order", "waits and fires")
@pytest.mark.endpoint("GET /api/v2/mix/order/plan-sub-order", "the order that was made")
@pytest.mark.endpoint("GET /api/v2/mix/order/orders-plan-history", "executed")
def test_a_trigger_order_waits_for_its_price_and_names_the_order_it_made(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    last = last_price(raw, "LTCUSDT")
    trigger = (last * 11 / 10).quantize(Decimal("0.01"))
    words = {**market_order("buy", "10"), "symbol": "LTCUSDT", "planType": "normal_plan"}
    plan = raw.post(
        f"{MIX}/order/place-plan-order", **words, triggerPrice=float(trigger), clientOid="plan-1"
    )
    assert raw.code("GET", PENDING, **USDT, planType="pos_loss") == "40812"
    (row,) = raw.get(PENDING, **USDT, planType="normal_plan")["entrustedList"]
    assert (row["orderId"], Decimal(row["triggerPrice"])) == (plan["orderId"], trigger)
    simulator.control("POST", "prices", {"symbol": "LTCUSDT", "factor": "1.2"})
    clock.sleep(0.1)
    history = raw.get(f"{MIX}/order/orders-plan-history", **USDT, planType="normal_plan")
    (row,) = history["entrustedList"]
    assert (row["planStatus"], row["baseVolume"]) == ("executed", "10")
    detail = raw.get(DETAIL, symbol="LTCUSDT", orderId=row["executeOrderId"], **USDT)
    assert (detail["clientOid"], detail["orderSource"]) == (plan["orderId"], "plan_market")
    (sub,) = raw.get(
        f"{MIX}/order/plan-sub-order", **USDT, planType="normal_plan", planOrderId=plan["orderId"]
    )
    assert sub["orderId"] == row["executeOrderId"]


# -- market and spot --------------------------------------------------------------------------


def test_depth_is_numbers_and_straddles_the_price(raw: RawBitget) -> None:
    depth = raw.get(f"{MIX}/market/merge-depth", symbol="BTCUSDT", limit="5", **USDT)
    last = float(last_price(raw))
    assert all(isinstance(cell, (int, float)) for row in depth["asks"] for cell in row)
    assert depth["bids"][0][0] < last < depth["asks"][0][0]
    assert len(depth["asks"]) == 5
    book = raw.get(f"{SPOT}/market/orderbook", symbol="BTCUSDT", limit="5")
    assert all(isinstance(cell, str) for row in book["bids"] for cell in row)


def test_history_candles_hold_closed_bars_only_and_days_begin_where_asked(
    raw: RawBitget, clock: WorldClock
) -> None:
    words = {**USDT, "symbol": "BTCUSDT"}
    now = to_epoch_ms(clock.now())
    minutes = raw.get(f"{MIX}/market/history-candles", **words, granularity="1m", limit="3")
    assert int(minutes[-1][0]) == now - now % 60_000 - 60_000
    many = {**words, "granularity": "1m"}
    assert len(raw.get(f"{MIX}/market/history-candles", **many, limit="200")) == 200
    assert raw.code("GET", f"{MIX}/market/history-candles", **many, limit="201") == "40053"
    china = raw.get(f"{MIX}/market/candles", **words, granularity="1D", limit="1")
    utc = raw.get(f"{MIX}/market/candles", **words, granularity="1Dutc", limit="1")
    week = raw.get(f"{MIX}/market/candles", **words, granularity="1Wutc", limit="1")
    assert int(china[0][0]) % 86_400_000 == 16 * 3_600_000
    assert int(utc[0][0]) % 86_400_000 == 0
    assert (int(week[0][0]) // 86_400_000 + 3) % 7 == 0  # a Monday
    assert raw.code("GET", f"{MIX}/market/candles", **words, granularity="7m") == "400172"
    backwards = {**words, "granularity": "1m", "startTime": "200", "endTime": "100"}
    assert raw.code("GET", f"{MIX}/market/candles", **backwards) == "40017"
    spot = f"{SPOT}/market/history-candles"
    assert raw.code("GET", spot, symbol="BTCUSDT", granularity="1h") == "40019"
    assert len(raw.get(spot, symbol="BTCUSDT", granularity="1h", endTime=str(now))[0]) == 8


@pytest.mark.endpoint("POST /api/v2/spot/trade/place-order", "late requests")
def test_A3_a_spot_order_outside_its_receive_window_is_refused(
    raw: RawBitget, clock: WorldClock
) -> None:
    place = f"{SPOT}/trade/place-order"
    buy = {"symbol": "BTCUSDT", "side": "buy", "orderType": "market", "size": "500"}
    now = to_epoch_ms(clock.now())
    late = {"requestTime": str(now - 8_000), "receiveWindow": "5000"}
    assert raw.code("POST", place, **buy, **late) == "40078"
    assert raw.code("POST", place, **buy, requestTime=str(now), receiveWindow="60000") == "40079"
    assert raw.code("POST", place, **buy, requestTime=str(now), receiveWindow="5000") == "00000"


def test_nonsense_in_a_request_is_refused_and_breaks_nothing(
    raw: RawBitget, simulator: SimulatorProcess
) -> None:
    bodies = ["[]", "{", '"text"', '{"symbol": {"a": 1}}', '{"size": NaN, "symbol": "BTCUSDT"}']
    for body in bodies:
        headers = raw.signed(f"POST{PLACE}{body}", str(int(time.time() * 1000)))
        assert raw.send("POST", PLACE, "", body, headers)["code"] in ("40020", "40019", "400172")
    huge = "9" * 60
    assert raw.code("POST", PLACE, **market_order("buy", huge)) == "400172"
    assert raw.code("GET", f"{MIX}/order/fills", **USDT, limit="-1") == "400172"
    assert simulator.control("GET", "ledger")["balanced"] is True
