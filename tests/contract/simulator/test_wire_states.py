"""What the market does to an account, as the wire shows it: gaps, ends, liquidation, funding.

In one process, over bars that the test writes: the endpoints' handlers are called directly.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineSettings, PositionMode
from module.simulator.venue import Call, Venue
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_params import Params
from module.simulator.wire.bitget_table import ENDPOINTS
from tests.fakes.scripted_market import START_MS, ScriptedMarket

pytestmark = pytest.mark.timeout(60)
MIX = "/api/v2/mix"
MINUTE = 60_000
BTC = {"symbol": "BTCUSDT", "productType": "USDT-FUTURES", "marginCoin": "USDT"}
BUY = {**BTC, "marginMode": "crossed", "side": "buy", "orderType": "market", "size": "0.1"}
PLACE_NAME = "POST /api/v2/mix/order/place-order"


class EndingMarket(ScriptedMarket):
    """BTCUSDT ends with minute 3, other symbols go on; minute 1 has no data."""

    def __init__(self) -> None:
        super().__init__()
        self.gaps.update(("BTCUSDT", minute) for minute in (1, *range(4, 100)))

    def span(self, symbol: str | None = None) -> tuple[int | None, int | None]:
        first_ms, last_ms = super().span(symbol)
        return first_ms, START_MS + 3 * MINUTE if symbol == "BTCUSDT" else last_ms


class Wire:
    """The endpoints of one venue, called by name for one account."""

    def __init__(self, market: ScriptedMarket, mode: PositionMode, money: str = "1000") -> None:
        self.engine = Engine(market, EngineSettings(), START_MS)
        self.venue = Venue(self.engine, ENDPOINTS)
        self.engine.open_account("1", futures_usdt=Decimal(money), position_mode=mode)

    def ask(self, name: str, **words: object) -> Any:
        """The data of a call."""
        call = Call(self.engine, "1", Params({**BTC, **words}))
        return self.venue.execute(ENDPOINTS[name], call)

    def code(self, name: str, **words: object) -> str:
        """The code of a call that is refused."""
        with pytest.raises(WireError) as caught:
            self.ask(name, **words)
        return caught.value.code

    def minutes(self, count: float) -> None:
        """Let time pass."""
        self.engine.advance_to(self.engine.now_ms + int(count * MINUTE))


@pytest.mark.endpoint(PLACE_NAME, "maintenance is 40844, a removed contract 40309")
def test_A20_a_contract_in_maintenance_and_one_that_is_gone() -> None:
    wire = Wire(EndingMarket(), PositionMode.ONE_WAY)
    wire.minutes(1.2)
    assert wire.code(PLACE_NAME, **BUY) == "40844"
    wire.minutes(1)
    wire.ask(PLACE_NAME, **BUY)
    wire.minutes(3)
    assert wire.code(PLACE_NAME, **BUY) == "40309"
    assert wire.ask(f"GET {MIX}/position/all-position") == []
    (row, _) = wire.ask(f"GET {MIX}/order/orders-history")["entrustedList"]
    assert row["orderSource"] == "delivery_close_long"


@pytest.mark.endpoint("GET /api/v2/mix/order/orders-history", "a liquidation")
@pytest.mark.endpoint("GET /api/v2/mix/account/bill", "a liquidation")
@pytest.mark.endpoint("GET /api/v2/mix/position/history-position", "a liquidation")
@pytest.mark.parametrize(
    ("mode", "words", "trade_side"),
    [
        (PositionMode.ONE_WAY, {}, "burst_sell_single"),
        (PositionMode.HEDGE, {"tradeSide": "open"}, "burst_close_long"),
    ],
)
def test_a_liquidation_is_an_order_a_bill_and_a_history_row(
    mode: PositionMode, words: dict[str, str], trade_side: str
) -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 50000 39000 39000")
    wire = Wire(market, mode)
    wire.ask(PLACE_NAME, **BUY, **words)
    wire.minutes(2)
    assert wire.ask(f"GET {MIX}/position/all-position") == []
    history = wire.ask(f"GET {MIX}/order/orders-history")["entrustedList"]
    forced = [row for row in history if row["orderSource"] == "liquidation"]
    assert {row["tradeSide"] for row in forced} == {trade_side}
    assert wire.ask(f"GET {MIX}/order/orders-history", orderSource="LIQUIDATION") == {
        "entrustedList": forced,
        "endId": forced[-1]["orderId"],
    }
    kinds = [row["businessType"] for row in wire.ask(f"GET {MIX}/account/bill")["bills"]]
    assert any(kind.startswith("burst_") for kind in kinds)
    (row,) = wire.ask(f"GET {MIX}/position/history-position")["list"]
    assert (row["openTotalPos"], row["closeTotalPos"]) == ("0.1", "0.1")
    wire.engine.ledger.audit()


@pytest.mark.endpoint("GET /api/v2/mix/position/single-position", "funding in totalFee")
@pytest.mark.endpoint("GET /api/v2/mix/account/bill", "funding between two polls")
def test_funding_changes_the_balance_between_two_polls() -> None:
    market = ScriptedMarket()
    market.fund(2, "0.001")
    wire = Wire(market, PositionMode.ONE_WAY)
    wire.ask(PLACE_NAME, **BUY)
    wire.minutes(1)
    (before,) = wire.ask(f"GET {MIX}/position/single-position")
    (account,) = wire.ask(f"GET {MIX}/account/accounts")
    assert before["totalFee"] == ""
    wire.minutes(2)
    (after,) = wire.ask(f"GET {MIX}/position/single-position")
    (later,) = wire.ask(f"GET {MIX}/account/accounts")
    assert after["totalFee"] == "-5"
    assert Decimal(later["accountEquity"]) == Decimal(account["accountEquity"]) - 5
    (bill,) = wire.ask(f"GET {MIX}/account/bill", onlyFunding="yes")["bills"]
    assert (bill["businessType"], bill["amount"], bill["fee"]) == (
        "contract_settle_fee",
        "-5",
        "0",
    )
    wire.ask(f"POST {MIX}/order/close-positions")
    wire.minutes(1)
    (row,) = wire.ask(f"GET {MIX}/position/history-position")["list"]
    parts = ("pnl", "totalFunding", "openFee", "closeFee")
    assert row["totalFunding"] == "-5"
    assert Decimal(row["netProfit"]) == sum(Decimal(row[name]) for name in parts)


@pytest.mark.endpoint(PLACE_NAME, "a large order fills in parts and slips")
@pytest.mark.endpoint("GET /api/v2/mix/order/detail", "partially filled")
def test_a_resting_order_fills_in_parts() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "49000")
    wire = Wire(market, PositionMode.ONE_WAY, "9000000")
    words = {**BUY, "orderType": "limit", "price": "49001", "size": "60"}
    order = wire.ask(PLACE_NAME, **words)
    wire.minutes(1.01)
    name = f"GET {MIX}/order/detail"
    row = wire.ask(name, orderId=order["orderId"])
    assert row["state"] == "partially_filled"
    assert 0 < Decimal(row["baseVolume"]) < 60
    pending = wire.ask(f"GET {MIX}/order/orders-pending", status="PARTIALLY_FILLED")
    assert [found["status"] for found in pending["entrustedList"]] == ["partially_filled"]
    wire.ask(f"POST {MIX}/order/cancel-order", orderId=order["orderId"])
    row = wire.ask(name, orderId=order["orderId"])
    assert (row["state"], Decimal(row["baseVolume"]) > 0) == ("canceled", True)
