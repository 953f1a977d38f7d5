"""Futures accounts on the wire: balances, settings, margin, bills, positions and their history."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from module.clock import WorldClock
from tests.contract.simulator.wire_words import (
    ACCOUNT,
    BTC,
    ORDER,
    PLACE,
    POSITION,
    SPOT,
    USDT,
    calm,
    client_of,
    closed,
    limit_order,
    market_order,
    opened,
    positions,
)
from tests.fakes.paper_exchange import RawBitget, SimulatorProcess

pytestmark = pytest.mark.timeout(120)
LEVERAGE = f"{ACCOUNT}/set-leverage"
MARGIN_MODE = f"{ACCOUNT}/set-margin-mode"
POSITION_MODE = f"{ACCOUNT}/set-position-mode"
SET_MARGIN = f"{ACCOUNT}/set-margin"
LEVERAGE_NAME = "POST /api/v2/mix/account/set-leverage"
BILL = f"{ACCOUNT}/bill"
FEE = Decimal("0.0006")


@pytest.fixture
def hedge(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> RawBitget:
    """A client of a fresh hedge account."""
    return client_of(simulator, new_number(position_mode="hedge"))


def account_of(raw: RawBitget) -> Any:
    return raw.get(f"{ACCOUNT}/account", **BTC)


def isolated(raw: RawBitget) -> None:
    raw.post(MARGIN_MODE, **BTC, marginMode="isolated")


def close_to(found: object, wanted: Decimal) -> bool:
    return abs(Decimal(str(found)) - wanted) < Decimal("1e-10") * max(Decimal(1), abs(wanted))


# -- balances ---------------------------------------------------------------------------------


@pytest.mark.endpoint("GET /api/v2/mix/account/accounts", "idle: the row, five equal amounts")
def test_an_idle_account_in_the_list(raw: RawBitget) -> None:
    (row,) = raw.get(f"{ACCOUNT}/accounts", productType="usdt-futures")
    assert " ".join(row) == (
        "marginCoin locked available crossedMaxAvailable isolatedMaxAvailable maxTransferOut "
        "accountEquity usdtEquity btcEquity crossedRiskRate unrealizedPL coupon unionTotalMargin "
        "unionAvailable unionMm assetList isolatedMargin crossedMargin crossedUnrealizedPL "
        "isolatedUnrealizedPL assetMode grant"
    )
    five = ("available", "crossedMaxAvailable", "isolatedMaxAvailable", "maxTransferOut")
    assert {row[name] for name in five} == {"100000"}
    assert (row["accountEquity"], row["locked"], row["assetList"]) == ("100000", "0", [])
    assert (row["assetMode"], row["grant"], row["crossedRiskRate"]) == ("single", "", "0")
    assert Decimal(row["btcEquity"]) > 0
    assert raw.get(f"{ACCOUNT}/accounts", productType="COIN-FUTURES") == []
    assert raw.code("GET", f"{ACCOUNT}/accounts") == "40019"


@pytest.mark.endpoint("GET /api/v2/mix/account/account", "idle, held crossed, held isolated")
def test_one_account_idle_and_held(raw: RawBitget, clock: WorldClock) -> None:
    idle = account_of(raw)
    assert (idle["crossedMargin"], idle["isolatedMargin"]) == (None, None)
    assert (idle["crossedUnrealizedPL"], idle["isolatedUnrealizedPL"]) == ("0", "")
    levers = ("crossedMarginLeverage", "isolatedLongLever", "isolatedShortLever")
    assert [idle[name] for name in levers] == [20, 20, 20]
    assert "unionMm" not in idle
    assert "assetList" not in idle
    calm(clock)
    opened(raw, clock)
    held = account_of(raw)
    (position,) = positions(raw)
    assert held["crossedMargin"] == position["marginSize"]
    assert held["isolatedMargin"] is None
    assert held["crossedUnrealizedPL"] == position["unrealizedPL"]
    loss = min(Decimal(0), Decimal(position["unrealizedPL"]))
    wallet = Decimal(held["accountEquity"]) - Decimal(held["unrealizedPL"])
    free = wallet - Decimal(position["marginSize"]) + loss
    assert close_to(held["available"], free)
    assert held["available"] == held["maxTransferOut"]
    closed(raw, clock)
    isolated(raw)
    opened(raw, clock, marginMode="isolated")
    held = account_of(raw)
    assert Decimal(held["isolatedMargin"]) > 0
    assert (held["marginMode"], held["crossedUnrealizedPL"], held["crossedMargin"]) == (
        "isolated",
        "",
        None,
    )


@pytest.mark.endpoint("GET /api/v2/account/all-account-balance", "each account's worth")
def test_all_balances(raw: RawBitget) -> None:
    rows = raw.get("/api/v2/account/all-account-balance")
    assert {row["accountType"]: row["usdtBalance"] for row in rows} == {
        "spot": "50000",
        "futures": "100000",
        "funding": "0",
        "earn": "0",
        "bots": "0",
        "margin": "0",
    }


# -- leverage and modes -----------------------------------------------------------------------


@pytest.mark.endpoint(LEVERAGE_NAME, "crossed: one for both sides; same again is success")
def test_crossed_leverage(raw: RawBitget) -> None:
    first, row = (raw.post(LEVERAGE, **BTC, leverage="3") for _ in range(2))
    assert first == row
    assert row == {
        "symbol": "BTCUSDT",
        "marginCoin": "USDT",
        "longLeverage": "3",
        "shortLeverage": "3",
        "crossMarginLeverage": "3",
        "marginMode": "crossed",
    }
    assert raw.post(LEVERAGE, **BTC, leverage=5, holdSide="long")["shortLeverage"] == "5"
    assert raw.code("POST", LEVERAGE, **BTC, longLeverage="4", shortLeverage="6") == "400172"


@pytest.mark.endpoint(LEVERAGE_NAME, "isolated: by side, both at once or neither")
def test_isolated_leverage_by_side(hedge: RawBitget, clock: WorldClock) -> None:
    isolated(hedge)
    row = hedge.post(LEVERAGE, **BTC, leverage="5")
    assert (row["longLeverage"], row["shortLeverage"], row["crossMarginLeverage"]) == (
        "5",
        "5",
        "",
    )
    row = hedge.post(LEVERAGE, **BTC, leverage="7", holdSide="SHORT")
    assert (row["longLeverage"], row["shortLeverage"]) == ("5", "7")
    row = hedge.post(LEVERAGE, **BTC, longLeverage="8", shortLeverage="9")
    assert (row["longLeverage"], row["shortLeverage"]) == ("8", "9")
    assert hedge.code("POST", LEVERAGE, **BTC, longLeverage="2", shortLeverage="500") == "45045"
    assert account_of(hedge)["isolatedLongLever"] == 8


@pytest.mark.endpoint(LEVERAGE_NAME, "what is refused")
def test_refused_leverages(raw: RawBitget, clock: WorldClock) -> None:
    for words, code in (
        ({"leverage": "0"}, "45044"),
        ({"leverage": "2.5"}, "45044"),
        ({"leverage": "126"}, "45045"),
        ({"leverage": ""}, "40019"),
        ({"leverage": "ten"}, "400172"),
        ({"leverage": "5", "holdSide": "up"}, "400172"),
    ):
        assert raw.code("POST", LEVERAGE, **BTC, **words) == code, words
        clock.sleep(0.2)
    clock.sleep(1)
    raw.post(PLACE, **limit_order(raw))
    assert raw.code("POST", LEVERAGE, **BTC, leverage="5") == "40730"
    assert raw.post(LEVERAGE, **BTC, leverage="20")["longLeverage"] == "20"


@pytest.mark.endpoint(LEVERAGE_NAME, "a held position takes it over")
def test_a_held_position_takes_the_leverage_over(raw: RawBitget, clock: WorldClock) -> None:
    calm(clock)
    opened(raw, clock)
    (before,) = positions(raw)
    raw.post(LEVERAGE, **BTC, leverage="10")
    (after,) = positions(raw)
    assert (after["leverage"], Decimal(after["marginSize"])) == (
        "10",
        2 * Decimal(before["marginSize"]),
    )
    raw.post(PLACE, **market_order("buy", "1.5"))
    clock.sleep(0.1)
    assert raw.code("POST", LEVERAGE, **BTC, leverage="1") == "40762"


@pytest.mark.endpoint("POST /api/v2/mix/account/set-margin-mode", "idle, same again, busy")
def test_margin_mode(raw: RawBitget, clock: WorldClock) -> None:
    row = raw.post(MARGIN_MODE, **BTC, marginMode="ISOLATED")
    assert list(row) == ["symbol", "marginCoin", "longLeverage", "shortLeverage", "marginMode"]
    assert raw.post(MARGIN_MODE, **BTC, marginMode="isolated")["marginMode"] == "isolated"
    assert raw.code("POST", MARGIN_MODE, **BTC, marginMode="both") == "400172"
    raw.post(PLACE, **limit_order(raw, marginMode="isolated"))
    assert raw.code("POST", MARGIN_MODE, **BTC, marginMode="crossed") == "45117"
    crossed = {**limit_order(raw), "marginMode": "crossed"}
    assert raw.code("POST", PLACE, **crossed) == "45117"


@pytest.mark.endpoint("POST /api/v2/mix/account/set-position-mode", "same, idle, busy")
def test_position_mode(raw: RawBitget, clock: WorldClock) -> None:
    assert raw.post(POSITION_MODE, **USDT, posMode="one_way_mode") == {"posMode": "one_way_mode"}
    assert raw.post(POSITION_MODE, **USDT, posMode="HEDGE_MODE") == {"posMode": "hedge_mode"}
    assert raw.post(POSITION_MODE, **USDT, posMode="one_way_mode") == {"posMode": "one_way_mode"}
    assert raw.code("POST", POSITION_MODE, **USDT, posMode="both") == "400172"
    raw.post(PLACE, **limit_order(raw))
    clock.sleep(1)
    answer = raw.call("POST", POSITION_MODE, {**USDT, "posMode": "hedge_mode"})
    assert (answer["code"], answer["msg"]) == (
        "40920",
        "Position or order exists, the position mode cannot be switched",
    )
    assert raw.post(POSITION_MODE, **USDT, posMode="one_way_mode") == {"posMode": "one_way_mode"}


@pytest.mark.endpoint("POST /api/v2/mix/account/set-asset-mode", "single only")
def test_asset_mode(raw: RawBitget) -> None:
    path = f"{ACCOUNT}/set-asset-mode"
    assert raw.post(path, **USDT, assetMode="single") == "success"
    assert raw.code("POST", path, **USDT, assetMode="union") == "40812"
    assert raw.code("POST", path, **USDT, assetMode="double") == "400172"


@pytest.mark.endpoint("POST /api/v2/mix/account/set-margin", "add, reduce, refused")
def test_margin_of_an_isolated_position(raw: RawBitget, clock: WorldClock) -> None:
    assert raw.code("POST", SET_MARGIN, **BTC, holdSide="long", amount="1") == "40714"
    isolated(raw)
    assert raw.code("POST", SET_MARGIN, **BTC, holdSide="long", amount="1") == "40709"
    opened(raw, clock, marginMode="isolated")
    (before,) = positions(raw)
    answer = raw.call("POST", SET_MARGIN, {**BTC, "holdSide": "long", "amount": 25})
    assert (answer["code"], answer["data"]) == ("00000", "")
    (after,) = positions(raw)
    assert Decimal(after["marginSize"]) == Decimal(before["marginSize"]) + 25
    assert Decimal(after["liquidationPrice"]) < Decimal(before["liquidationPrice"])
    clock.sleep(1)
    assert raw.code("POST", SET_MARGIN, **BTC, holdSide="long", amount="-40") == "40713"
    assert raw.code("POST", SET_MARGIN, **BTC, holdSide="long", amount="999999") == "40712"
    raw.post(SET_MARGIN, **BTC, holdSide="long", amount="-20")
    (left,) = positions(raw)
    assert Decimal(left["marginSize"]) == Decimal(before["marginSize"]) + 5


# -- bills ------------------------------------------------------------------------------------


@pytest.mark.endpoint("GET /api/v2/mix/account/bill", "row, filters, pages")
def test_bills(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock)
    closed(raw, clock)
    everything = raw.get(BILL, **USDT)
    assert [row["businessType"] for row in everything["bills"]] == [
        "sell",
        "buy",
        "trans_from_exchange",
    ]
    sell, buy, deposit = everything["bills"]
    assert " ".join(sell) == "billId symbol amount fee feeByCoupon businessType coin balance cTime"
    assert (buy["amount"], deposit["fee"], deposit["symbol"]) == ("0", "0", "")
    assert Decimal(buy["fee"]) < 0
    gained = Decimal(buy["balance"]) + Decimal(sell["amount"]) + Decimal(sell["fee"])
    assert Decimal(sell["balance"]) == gained
    first = raw.get(BILL, **USDT, limit="2")
    assert first["endId"] == buy["billId"]
    rest = raw.get(BILL, **USDT, idLessThan=first["endId"])
    assert [row["businessType"] for row in rest["bills"]] == ["trans_from_exchange"]
    assert raw.get(BILL, **USDT, idLessThan=rest["endId"]) == {"bills": [], "endId": None}
    clock.sleep(1)
    for words, kinds in (
        ({"businessType": "BUY"}, ["buy"]),
        ({"symbol": "btcusdt"}, ["sell", "buy"]),
        ({"symbol": "ETHUSDT"}, []),
        ({"coin": "usdt", "limit": "1"}, ["sell"]),
        ({"coin": "BTC"}, []),
        ({"onlyFunding": "yes"}, []),
        ({"startTime": sell["cTime"]}, ["sell"]),
        ({"endTime": deposit["cTime"]}, ["trans_from_exchange"]),
    ):
        found = raw.get(BILL, **USDT, **words)["bills"]
        assert [row["businessType"] for row in found] == kinds, words


@pytest.mark.endpoint("GET /api/v2/mix/account/bill", "hedge words, funding")
def test_hedge_bills_and_funding(hedge: RawBitget, clock: WorldClock) -> None:
    opened(hedge, clock, "sell", tradeSide="open")
    clock.sleep(8 * 3600)
    closed(hedge, clock)
    funding = hedge.get(BILL, **USDT, businessType="contract_settle_fee")["bills"]
    assert funding
    same = hedge.get(BILL, **USDT, onlyFunding="YES")["bills"]
    assert [row["billId"] for row in same] == [row["billId"] for row in funding]
    kinds = {row["businessType"] for row in hedge.get(BILL, **USDT)["bills"]}
    assert {"open_short", "close_short", "contract_settle_fee"} <= kinds
    (row,) = hedge.get(f"{POSITION}/history-position", **USDT)["list"]
    assert Decimal(row["totalFunding"]) == sum(Decimal(bill["amount"]) for bill in funding)


# -- positions --------------------------------------------------------------------------------


@pytest.mark.endpoint("GET /api/v2/mix/position/single-position", "formulas of a crossed position")
def test_the_figures_of_a_crossed_position(raw: RawBitget, clock: WorldClock) -> None:
    assert raw.get(f"{POSITION}/single-position", **BTC) == []
    calm(clock)
    opened(raw, clock)
    (row,) = raw.get(f"{POSITION}/single-position", **BTC)
    equity = Decimal(account_of(raw)["accountEquity"])
    entry, mark = Decimal(row["openPriceAvg"]), Decimal(row["markPrice"])
    size, keep = Decimal(row["total"]), Decimal(row["keepMarginRate"])
    assert close_to(row["unrealizedPL"], (mark - entry) * size)
    assert close_to(row["marginSize"], mark * size / 20)
    assert close_to(row["deductedFee"], entry * size * FEE)
    assert close_to(row["breakEvenPrice"], entry * (1 + FEE) / (1 - FEE))
    assert close_to(row["marginRatio"], mark * size * (keep + FEE) / equity)
    wallet = equity - Decimal(row["unrealizedPL"])
    assert close_to(row["liquidationPrice"], (size * entry - wallet) / (size * (1 - keep - FEE)))
    constants = {name: row[name] for name in ("grant", "autoMargin", "assetMode", "cashDividend")}
    assert constants == {
        "grant": "",
        "autoMargin": "off",
        "assetMode": "single",
        "cashDividend": "",
    }
    assert (row["totalFee"], row["takeProfit"], row["stopLossId"]) == ("", "", "")
    assert (row["available"], row["locked"], row["openDelegateSize"]) == ("0.01", "0", "0")


@pytest.mark.endpoint("GET /api/v2/mix/position/single-position", "formulas of an isolated short")
def test_the_figures_of_an_isolated_short(raw: RawBitget, clock: WorldClock) -> None:
    isolated(raw)
    calm(clock)
    opened(raw, clock, "sell", marginMode="isolated")
    (row,) = raw.get(f"{POSITION}/single-position", **BTC)
    entry, size = Decimal(row["openPriceAvg"]), Decimal(row["total"])
    keep, margin = Decimal(row["keepMarginRate"]), Decimal(row["marginSize"])
    assert row["marginMode"] == "isolated"
    assert abs(margin - entry * size / 20) < Decimal("1e-7")
    wanted = (margin + size * entry) / (size * (keep + FEE + 1))
    assert close_to(row["liquidationPrice"], wanted)
    assert close_to(row["breakEvenPrice"], entry * (1 - FEE) / (1 + FEE))


@pytest.mark.endpoint("GET /api/v2/mix/position/all-position", "a hedge pair; other coins")
def test_a_hedge_pair_has_two_rows(hedge: RawBitget, clock: WorldClock) -> None:
    for side in ("buy", "sell"):
        opened(hedge, clock, side, tradeSide="open")
    long, short = positions(hedge)
    assert (long["holdSide"], short["holdSide"], long["posMode"]) == (
        "long",
        "short",
        "hedge_mode",
    )
    assert long["marginRatio"] == short["marginRatio"]
    path = f"{POSITION}/all-position"
    assert len(hedge.get(path, **USDT, marginCoin="usdt")) == 2
    assert hedge.get(path, productType="USDC-FUTURES") == []
    assert hedge.code("GET", path, **USDT, marginCoin="BTC") == "400172"
    assert hedge.code("GET", path) == "40019"


@pytest.mark.endpoint("GET /api/v2/mix/position/all-position", "the margin moves with the mark")
def test_the_margin_moves_with_the_mark(
    raw: RawBitget, clock: WorldClock, simulator: SimulatorProcess
) -> None:
    opened(raw, clock)
    simulator.control("POST", "prices", {"symbol": "BTCUSDT", "factor": "1.1"})
    (row,) = positions(raw)
    mark = Decimal(row["markPrice"])
    assert close_to(row["marginSize"], mark * Decimal("0.01") / 20)
    simulator.control("POST", "prices", {"symbol": "BTCUSDT", "factor": str(1 / Decimal("1.1"))})


@pytest.mark.endpoint("GET /api/v2/mix/position/history-position", "one row per position, cursor")
def test_position_history(raw: RawBitget, clock: WorldClock) -> None:
    path = f"{POSITION}/history-position"
    for size in ("0.01", "0.02", "0.03"):
        raw.post(PLACE, **market_order("buy", size))
        clock.sleep(0.1)
        raw.post(PLACE, **market_order("sell", "0.004", reduceOnly="YES"))
        clock.sleep(0.1)
        closed(raw, clock)
    rows = raw.get(path)["list"]  # without productType, as some clients ask
    assert [row["openTotalPos"] for row in rows] == ["0.03", "0.02", "0.01"]
    newest = rows[0]
    assert " ".join(newest) == (
        "positionId symbol marginCoin holdSide openAvgPrice closeAvgPrice marginMode openTotalPos "
        "closeTotalPos pnl netProfit totalFunding openFee closeFee posMode cashDividend utime "
        "ctime"
    )
    parts = ("pnl", "totalFunding", "openFee", "closeFee")
    total = sum(Decimal(newest[name]) for name in parts)
    assert abs(Decimal(newest["netProfit"]) - total) < Decimal("1e-8")
    assert newest["cashDividend"] == "0.00000000"
    fills = raw.get(f"{ORDER}/fills", **USDT, limit="2")["fillList"]
    cost = sum(Decimal(fill["price"]) * Decimal(fill["baseVolume"]) for fill in fills)
    assert close_to(newest["closeAvgPrice"], cost / Decimal("0.03"))
    first = raw.get(path, **USDT, limit="2")
    assert len(first["list"]) == 2
    assert first["endId"] not in {row["positionId"] for row in rows}
    second = raw.get(path, **USDT, limit="2", idLessThan=first["endId"])
    assert [row["openTotalPos"] for row in second["list"]] == ["0.01"]
    assert raw.get(path, **USDT, idLessThan=second["endId"]) == {"list": [], "endId": None}
    assert raw.get(path, **USDT, symbol="ETHUSDT") == {"list": [], "endId": None}
    assert raw.get(path, productType="COIN-FUTURES") == {"list": [], "endId": None}


# -- transfers --------------------------------------------------------------------------------


@pytest.mark.endpoint("POST /api/v2/spot/wallet/transfer", "both ways, once per clientOid")
def test_transfers_between_spot_and_futures(raw: RawBitget, clock: WorldClock) -> None:
    path = f"{SPOT}/wallet/transfer"
    words = {"fromType": "spot", "toType": "usdt_futures", "coin": "usdt", "amount": 1500.5}
    first = raw.post(path, **words, clientOid="move-1")
    assert raw.post(path, **words, clientOid="move-1") == first
    assert first["clientOid"] == "move-1"
    assert account_of(raw)["accountEquity"] == "101500.5"
    (usdt,) = raw.get(f"{SPOT}/account/assets", coin="USDT")
    assert usdt["available"] == "48499.5"
    back = {"fromType": "USDT_FUTURES", "toType": "SPOT", "coin": "USDT"}
    raw.post(path, **back, amount="101500.5")
    assert account_of(raw)["accountEquity"] == "0"
    for wrong, code in (
        ({"amount": "0.1"}, "43012"),
        ({"amount": "-1"}, "400172"),
        ({"amount": ""}, "40019"),
        ({"fromType": "p2p", "amount": "1"}, "400172"),
        ({"fromType": "spot", "amount": "1"}, "400172"),
        ({"coin": "BTC", "amount": "1"}, "400172"),
    ):
        assert raw.code("POST", path, **{**back, **wrong}) == code, wrong
    kinds = [row["businessType"] for row in raw.get(BILL, **USDT)["bills"]]
    assert kinds == ["trans_to_exchange", "trans_from_exchange", "trans_from_exchange"]
    spot = raw.get(f"{SPOT}/account/bills", groupType="transfer")
    assert [row["businessType"] for row in spot] == ["transfer_in", "transfer_out", "transfer_in"]


@pytest.mark.endpoint("GET /api/v2/spot/account/transferRecords", "by coin and source")
@pytest.mark.endpoint("GET /api/v2/spot/wallet/transfer-coin-info", "USDT")
def test_transfer_records(raw: RawBitget, clock: WorldClock) -> None:
    path = f"{SPOT}/account/transferRecords"
    assert raw.get(path, coin="USDT") == []
    words = {"fromType": "spot", "toType": "usdt_futures", "coin": "USDT"}
    done = raw.post(f"{SPOT}/wallet/transfer", **words, amount="5")
    (row,) = raw.get(path, coin="usdt", fromType="spot")
    assert (row["transferId"], row["size"], row["status"], row["toType"]) == (
        done["transferId"],
        "5",
        "Successful",
        "usdt_futures",
    )
    assert raw.get(path, coin="USDT", fromType="usdt_futures") == []
    assert raw.code("GET", path) == "40019"
    coins = f"{SPOT}/wallet/transfer-coin-info"
    assert raw.get(coins, fromType="spot", toType="usdt_futures") == ["USDT"]


@pytest.mark.endpoint("POST /api/v2/mix/order/place-order", "a transfer cannot take used margin")
def test_a_transfer_leaves_the_margin_of_positions(raw: RawBitget, clock: WorldClock) -> None:
    opened(raw, clock)
    free = Decimal(account_of(raw)["maxTransferOut"])
    words = {"fromType": "usdt_futures", "toType": "spot", "coin": "USDT"}
    too_much = str((free + 1).quantize(Decimal("0.01")))
    assert raw.code("POST", f"{SPOT}/wallet/transfer", **words, amount=too_much) == "43012"
