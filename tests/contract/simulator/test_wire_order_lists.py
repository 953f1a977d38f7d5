"""Lists of futures orders and fills on the wire: detail, pending, history, fills."""

from __future__ import annotations

from decimal import Decimal

import pytest

from module.clock import WorldClock, to_epoch_ms
from tests.contract.simulator.wire_words import (
    BTC,
    DETAIL,
    ORDER,
    PENDING,
    PLACE,
    POSITION,
    USDT,
    closed,
    limit_order,
    opened,
    priced,
)
from tests.fakes.paper_exchange import RawBitget

pytestmark = pytest.mark.timeout(120)
CANCEL = f"{ORDER}/cancel-order"
HISTORY = f"{ORDER}/orders-history"


@pytest.mark.endpoint("GET /api/v2/mix/order/detail", "by id and client id, unknown, other symbol")
def test_detail(raw: RawBitget, clock: WorldClock) -> None:
    order = raw.post(PLACE, **limit_order(raw, clientOid="d#1_+-"))
    by_client = raw.get(DETAIL, symbol="BTCUSDT", clientOid="d#1_+-", **USDT)
    assert by_client["orderId"] == order["orderId"]
    words = {**USDT, "orderId": order["orderId"]}
    assert raw.code("GET", DETAIL, **words, symbol="ETHUSDT") == "40109"
    assert raw.code("GET", DETAIL, **USDT, symbol="BTCUSDT", clientOid="no") == "40109"
    assert raw.code("GET", DETAIL, **USDT, symbol="BTCUSDT") == "40924"
    assert by_client["newTradeSide"] is None
    assert (by_client["price"] != "", by_client["priceAvg"], by_client["baseVolume"]) == (
        True,
        "",
        "0",
    )


@pytest.mark.endpoint("GET /api/v2/mix/order/orders-pending", "filters and row")
def test_pending_filters_and_its_row(raw: RawBitget, clock: WorldClock) -> None:
    order = raw.post(
        PLACE,
        **limit_order(raw, clientOid="p-1", presetStopLossPrice=priced(raw, "0.9")),
    )
    (row,) = raw.get(PENDING, **USDT)["entrustedList"]
    assert " ".join(row) == (
        "symbol size orderId clientOid baseVolume fee price priceAvg status side force "
        "totalProfits posSide marginCoin presetStopSurplusPrice presetStopSurplusExecutePrice "
        "presetStopSurplusTriggerType presetStopLossPrice presetStopLossExecutePrice "
        "presetStopLossTriggerType quoteVolume orderType leverage marginMode reduceOnly "
        "enterPointSource tradeSide posMode orderSource cTime uTime"
    )
    assert (row["enterPointSource"], row["presetStopSurplusPrice"]) == ("api", "")
    found: dict[str, object] = {
        "symbol": "BTCUSDT",
        "orderId": order["orderId"],
        "clientOid": "p-1",
        "status": "live",
        "startTime": row["cTime"],
        "endTime": row["cTime"],
    }
    other: dict[str, object] = {
        "symbol": "ETHUSDT",
        "orderId": "5",
        "clientOid": "p-2",
        "status": "partially_filled",
        "startTime": str(int(row["cTime"]) + 1),
        "endTime": str(int(row["cTime"]) - 1),
    }
    for name, value in found.items():
        (same,) = raw.get(PENDING, **USDT, **{name: value})["entrustedList"]
        assert same == row
        clock.sleep(0.2)
    clock.sleep(1)
    nothing = {"entrustedList": None, "endId": None}
    for name, value in other.items():
        assert raw.get(PENDING, **USDT, **{name: value}) == nothing, name


@pytest.mark.endpoint("GET /api/v2/mix/order/orders-history", "filled and cancelled, by source")
def test_history_holds_filled_and_cancelled_orders(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock, clientOid="h-1")
    raw.post(PLACE, **limit_order(raw, clientOid="h-2"))
    raw.post(CANCEL, **BTC, clientOid="h-2")
    raw.post(PLACE, **limit_order(raw, clientOid="h-3"))
    rows = raw.get(HISTORY, **USDT)["entrustedList"]
    assert [(row["clientOid"], row["status"]) for row in rows] == [
        ("h-2", "canceled"),
        ("h-1", "filled"),
    ]
    assert (rows[0]["cancelReason"], rows[1]["force"], rows[1]["price"]) == (
        "normal_cancel",
        "gtc",
        "",
    )
    (row,) = raw.get(HISTORY, **USDT, orderSource="MARKET")["entrustedList"]
    assert row["clientOid"] == "h-1"
    assert raw.get(HISTORY, **USDT, orderSource="liquidation")["entrustedList"] is None


@pytest.mark.endpoint("GET /api/v2/mix/order/orders-history", "a range of time has its limits")
@pytest.mark.parametrize(
    ("path", "days"),
    [
        (HISTORY, 90),
        (PENDING, 90),
        (f"{ORDER}/fills", 90),
        (f"{ORDER}/fill-history", 7),
        ("/api/v2/mix/account/bill", 30),
        (f"{POSITION}/history-position", 90),
    ],
)
def test_a_range_of_time_has_its_limits(
    raw: RawBitget, clock: WorldClock, path: str, days: int
) -> None:
    now = to_epoch_ms(clock.now())
    reach = days * 86_400_000
    fits = {"startTime": str(now - reach), "endTime": str(now)}
    assert raw.code("GET", path, **USDT, **fits) == "00000"
    assert raw.code("GET", path, **USDT, **{**fits, "startTime": str(now - reach - 1)}) == "00001"
    assert raw.code("GET", path, **USDT, startTime=str(now), endTime=str(now - 1)) == "40017"
    assert raw.code("GET", path, **USDT, startTime="yesterday") == "400172"


@pytest.mark.endpoint("GET /api/v2/mix/order/fills", "row, filters, pages")
def test_fills_are_paged_and_filtered(raw: RawBitget, clock: WorldClock) -> None:
    orders = [opened(raw, clock) for _ in range(3)]
    path = f"{ORDER}/fills"
    first = raw.get(path, **USDT, limit="2")
    assert [row["orderId"] for row in first["fillList"]] == [
        orders[2]["orderId"],
        orders[1]["orderId"],
    ]
    assert first["endId"] == first["fillList"][-1]["tradeId"]
    second = raw.get(path, **USDT, idLessThan=first["endId"])
    assert [row["orderId"] for row in second["fillList"]] == [orders[0]["orderId"]]
    last = raw.get(path, **USDT, idLessThan=second["endId"])
    assert last == {"fillList": None, "endId": None}
    (row,) = raw.get(path, **USDT, orderId=orders[1]["orderId"])["fillList"]
    assert " ".join(row) == (
        "tradeId symbol orderId price baseVolume feeDetail side quoteVolume profit "
        "enterPointSource tradeSide posMode tradeScope cTime marginCoin"
    )
    (fee,) = row["feeDetail"]
    assert (fee["deduction"], fee["feeCoin"], fee["totalDeductionFee"]) == ("no", "USDT", None)
    volume = Decimal(row["price"]) * Decimal(row["baseVolume"])
    assert Decimal(row["quoteVolume"]) == volume.quantize(Decimal("1e-4"), "ROUND_DOWN")
    closed(raw, clock)
    (closing, *_) = raw.get(path, **USDT)["fillList"]
    entries = [Decimal(fill["price"]) for fill in raw.get(path, **USDT)["fillList"][1:]]
    entry = sum(entries, Decimal(0)) / 3
    gain = (Decimal(closing["price"]) - entry) * Decimal(closing["baseVolume"])
    assert abs(Decimal(closing["profit"]) - gain) < Decimal("1e-9")


@pytest.mark.endpoint("GET /api/v2/mix/order/fill-history", "as fills, a week at a time")
def test_fill_history_is_as_fills(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock)
    fills = raw.get(f"{ORDER}/fills", **USDT)
    assert raw.get(f"{ORDER}/fill-history", **USDT) == fills
