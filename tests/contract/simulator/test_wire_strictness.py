"""What a careless or hostile client sends is refused like on the real exchange, and breaks nothing.

Each case would pass unnoticed in a lenient paper exchange and fail (or do harm) on the real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal

import pytest
import urllib3

from module.clock import WorldClock
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_params import BODY_DEPTH_MAX, Params, read_body
from tests.contract.simulator.wire_words import (
    ACCOUNT,
    BTC,
    ORDER,
    PENDING,
    PLACE,
    POSITION,
    SPOT,
    TRADE,
    USDT,
    client_of,
    limit_order,
    market_order,
    opened,
    positions,
    priced,
)
from tests.fakes.paper_exchange import CONTROL_TOKEN, RawBitget, SimulatorProcess

pytestmark = pytest.mark.timeout(60)
TRANSFER = f"{SPOT}/wallet/transfer"

# -- bodies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":' + b"[" * (BODY_DEPTH_MAX + 1) + b"]" * (BODY_DEPTH_MAX + 1) + b"}",
        b'{"x":' + b"[" * 970 + b"]" * 970 + b"}",
        b'{"x":' + b"[" * 100_000,
        b'{"clientOid":"\\ud800"}',
        b'{"\\udfff":"x"}',
        b'{"orderList":[{"side":"\\ud800"}]}',
        b'{"clientOid":"\xff\xfe"}',
        '{"side":"buy"}'.encode("utf-16"),
        b'{"reduceOnly":NaN}',
        b'{"size":-Infinity}',
        b'{"size":1.0e99999999999999999999}',
        b'{"size":' + b"9" * 5000 + b"}",
        b"[]",
        b"null",
        b"   ",
    ],
)
def test_a_body_that_could_not_be_kept_or_echoed_is_not_read(body: bytes) -> None:
    with pytest.raises(WireError) as caught:
        read_body(body)
    assert caught.value.code == "40020"


def test_a_body_of_every_ordinary_kind_is_read() -> None:
    words = {"size": "0.01", "orderList": [{"clientOid": "a\u00e9\U0001f600", "price": 5}]}
    body = json.dumps(words).encode()
    assert b"\\ud83d\\ude00" in body  # a whole pair is a character
    assert read_body(body).values == words
    assert read_body(b'{"price":50000.10}').values == {"price": Decimal("50000.10")}


@pytest.mark.parametrize("text", ["0.0_1", " 0.01", "0.01\n", "\u0660.\u0660\u0661", "0x1", "NaN"])
def test_a_number_is_spelled_with_plain_digits(text: str) -> None:
    with pytest.raises(WireError) as caught:
        Params({"size": text}).decimal("size")
    assert caught.value.code == "400172"


def test_a_deep_body_does_not_stop_the_world(raw: RawBitget) -> None:
    answer = raw.call("POST", PLACE, market_order("buy", "0.01", more=_nested(500)))
    assert (raw.status, answer["code"]) == (400, "40020")
    assert raw.post(PLACE, **market_order("buy", "0.01"))["orderId"]


def _nested(levels: int) -> list[object]:
    inner: list[object] = []
    for _ in range(levels):
        inner = [inner]
    return inner


# -- needed words -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["marginCoin", "marginMode"])
def test_an_order_names_margin_coin_and_margin_mode(raw: RawBitget, name: str) -> None:
    words = market_order("buy", "0.01")
    del words[name]
    answer = raw.call("POST", PLACE, words)
    assert answer["code"] == "40019"
    assert name in answer["msg"]


def test_settings_and_positions_name_the_margin_coin(raw: RawBitget) -> None:
    words = {name: value for name, value in BTC.items() if name != "marginCoin"}
    assert raw.code("GET", f"{ACCOUNT}/account", **words) == "40019"
    assert raw.code("GET", f"{POSITION}/single-position", **words) == "40019"
    assert raw.code("POST", f"{ACCOUNT}/set-leverage", leverage="5", **words) == "40019"
    mode = raw.code("POST", f"{ACCOUNT}/set-margin-mode", marginMode="isolated", **words)
    assert mode == "40019"


# -- an order belongs to its symbol -----------------------------------------------------------


def test_an_order_does_not_exist_under_another_contract(raw: RawBitget) -> None:
    order = raw.post(PLACE, **limit_order(raw, clientOid="mine"))
    other = {**USDT, "symbol": "ETHUSDT"}
    new = {"newSize": "0.02", "newPrice": priced(raw, "0.96"), "newClientOid": "new"}
    assert raw.code("POST", f"{ORDER}/cancel-order", clientOid="mine", **other) == "40768"
    assert raw.code("POST", f"{ORDER}/modify-order", clientOid="mine", **new, **other) == "40768"
    batch = raw.post(f"{ORDER}/batch-cancel-orders", orderIdList=[order], **other)
    assert [item["errorCode"] for item in batch["failureList"]] == ["40768"]
    assert [row["orderId"] for row in raw.get(PENDING, **USDT)["entrustedList"]] == [
        order["orderId"]
    ]
    everywhere = raw.post(f"{ORDER}/batch-cancel-orders", orderIdList=[order], **USDT)
    assert [item["clientOid"] for item in everywhere["successList"]] == ["mine"]


def test_a_plan_does_not_exist_under_another_contract(raw: RawBitget) -> None:
    words = market_order("buy", "0.01", planType="normal_plan", triggerPrice=priced(raw, "1.02"))
    plan = raw.post(f"{ORDER}/place-plan-order", **words)
    named = {"planType": "normal_plan", "orderIdList": [{"orderId": plan["orderId"]}]}
    other = raw.post(f"{ORDER}/cancel-plan-order", **{**USDT, "symbol": "ETHUSDT"}, **named)
    assert [item["errorCode"] for item in other["failureList"]] == ["43020"]
    own = raw.post(f"{ORDER}/cancel-plan-order", **USDT, symbol="BTCUSDT", **named)
    assert [item["orderId"] for item in own["successList"]] == [plan["orderId"]]


def test_a_stop_does_not_exist_under_another_contract(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock)
    words = {"planType": "pos_loss", "holdSide": "buy", "triggerPrice": priced(raw, "0.9")}
    stop = raw.post(f"{ORDER}/place-tpsl-order", **BTC, **words)
    new = {"orderId": stop["orderId"], "triggerPrice": priced(raw, "0.8")}
    path = f"{ORDER}/modify-tpsl-order"
    assert raw.code("POST", path, **{**BTC, "symbol": "ETHUSDT"}, **new) == "43020"
    assert raw.post(path, **BTC, **new)["orderId"] == stop["orderId"]


def test_a_spot_order_does_not_exist_under_another_pair(raw: RawBitget) -> None:
    words = {"symbol": "BTCUSDT", "side": "buy", "orderType": "limit", "force": "gtc"}
    price = priced(raw, "0.97")
    order = raw.post(f"{TRADE}/place-order", **words, size="0.01", price=price)
    cancel = f"{TRADE}/cancel-order"
    assert raw.code("POST", cancel, symbol="ETHUSDT", orderId=order["orderId"]) == "43001"
    assert raw.code("POST", cancel, orderId=order["orderId"]) == "40019"
    assert raw.post(cancel, symbol="btcusdt", orderId=order["orderId"])["orderId"]


# -- what would do harm -----------------------------------------------------------------------


def test_close_positions_does_not_read_an_unknown_side_as_both(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> None:
    raw = client_of(simulator, new_number(position_mode="hedge"))
    opened(raw, clock, "buy", tradeSide="open")
    opened(raw, clock, "sell", tradeSide="open")
    clock.sleep(1)
    assert raw.code("POST", f"{ORDER}/close-positions", **USDT, holdSide="lnog") == "400172"
    clock.sleep(1)
    assert len(positions(raw)) == 2
    raw.post(f"{ORDER}/close-positions", **USDT, holdSide="LONG")
    clock.sleep(1)
    assert [row["holdSide"] for row in positions(raw)] == ["short"]


def test_margin_goes_to_the_leg_that_is_named(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> None:
    raw = client_of(simulator, new_number(position_mode="hedge"))
    raw.post(f"{ACCOUNT}/set-margin-mode", **BTC, marginMode="isolated")
    for side in ("buy", "sell"):
        opened(raw, clock, side, tradeSide="open", marginMode="isolated")
    before = {row["holdSide"]: Decimal(row["marginSize"]) for row in positions(raw)}
    path = f"{ACCOUNT}/set-margin"
    assert raw.code("POST", path, **BTC, amount="10") == "40019"
    raw.post(path, **BTC, amount="10", holdSide="short")
    after = {row["holdSide"]: Decimal(row["marginSize"]) for row in positions(raw)}
    assert after == {"long": before["long"], "short": before["short"] + 10}


def test_spot_fills_show_exactly_what_was_paid(raw: RawBitget, clock: WorldClock) -> None:
    words = {"symbol": "BTCUSDT", "side": "buy", "orderType": "market", "size": "777"}
    order = raw.post(f"{TRADE}/place-order", **words)
    clock.sleep(0.1)
    fills = raw.get(f"{TRADE}/fills", symbol="BTCUSDT", orderId=order["orderId"])
    for fill in fills:
        assert Decimal(fill["amount"]) == Decimal(fill["priceAvg"]) * Decimal(fill["size"])
    (shown,) = raw.get(f"{TRADE}/orderInfo", orderId=order["orderId"])
    assert sum(Decimal(fill["amount"]) for fill in fills) == Decimal(shown["quoteVolume"])


@pytest.mark.parametrize("size", ["29", "22.77", "17", "11.3331"])
def test_what_may_be_transferred_out_is_what_the_account_says(
    raw: RawBitget, clock: WorldClock, size: str
) -> None:
    raw.post(f"{ACCOUNT}/set-leverage", **BTC, leverage="40")
    raw.post(PLACE, **market_order("buy", size))  # over many levels: an endless entry price
    clock.sleep(1)
    (wallet,) = raw.get(f"{ACCOUNT}/accounts", **USDT)
    most = Decimal(wallet["maxTransferOut"]).quantize(Decimal("1e-8"), ROUND_DOWN)
    words = {"fromType": "usdt_futures", "toType": "spot", "coin": "USDT"}
    assert raw.code("POST", TRANSFER, **words, amount=str(most + Decimal("1e-8"))) == "43012"
    raw.post(TRANSFER, **words, amount=str(most))
    (left,) = raw.get(f"{ACCOUNT}/accounts", **USDT)
    assert Decimal(left["maxTransferOut"]) < Decimal("1e-8")


@pytest.mark.parametrize("factor", ["1e99999999999999999999", '"\\ud800"', "NaN"])
def test_the_control_door_reads_no_such_body_either(
    simulator: SimulatorProcess, clock: WorldClock, factor: str
) -> None:
    answer = urllib3.request(
        "POST",
        f"{simulator.url}/control/prices",
        body=f'{{"symbol":"BTCUSDT","factor":{factor}}}'.encode(),
        headers={"Authorization": f"Bearer {CONTROL_TOKEN}"},
        timeout=30,
        retries=False,
    )
    assert answer.status == 422
    assert simulator.control("GET", "ledger")["balanced"]
