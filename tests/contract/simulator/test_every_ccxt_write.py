"""Every kind of order and setting that unmodified ccxt sends, in both position modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from module.clock import WorldClock, to_epoch_ms
from tests.fakes.paper_exchange import SimulatorProcess, ccxt_client

pytestmark = pytest.mark.timeout(60)
BTC, PAIR = "BTC/USDT:USDT", "BTC/USDT"
STOPS = {"trigger": True, "planType": "profit_loss"}
TRIGGERS = {"trigger": True, "planType": "normal_plan"}
endpoint = pytest.mark.endpoint


@dataclass(frozen=True)
class Trader:
    """A ccxt client of a fresh account."""

    ccxt: Any
    clock: WorldClock
    hedge: bool
    last: float

    @property
    def mode(self) -> dict[str, bool]:
        """What ccxt needs to be told in hedge mode."""
        return {"hedged": True} if self.hedge else {}

    def create(self, kind: str, side: str, amount: float, price: Any = None, **params: Any) -> Any:
        """An order in BTC; it has been worked on when this returns."""
        order = self.ccxt.create_order(BTC, kind, side, amount, price, {**self.mode, **params})
        self.clock.sleep(0.3)
        return order

    def held(self) -> dict[str, float]:
        """Side to size of the BTC positions."""
        return {row["side"]: row["contracts"] for row in self.ccxt.fetch_positions([BTC])}


@pytest.fixture(params=[False, True], ids=["one_way", "hedge"])
def trader(
    request: pytest.FixtureRequest,
    simulator: SimulatorProcess,
    clock: WorldClock,
    new_number: Callable[..., int],
) -> Trader:
    number = new_number()
    client = ccxt_client(simulator.url, f"key-{number}", number)
    client.milliseconds = lambda: to_epoch_ms(clock.now())  # histories are asked for up to now
    client.load_markets()
    assert client.set_position_mode(request.param)["data"]["posMode"] == (
        "hedge_mode" if request.param else "one_way_mode"
    )
    return Trader(client, clock, request.param, round(client.fetch_ticker(BTC)["last"], -2))


@endpoint("POST /api/v2/mix/account/set-position-mode", "set_position_mode, both ways")
@endpoint("POST /api/v2/mix/account/set-leverage", "set_leverage, cross and isolated holdSide")
@endpoint("POST /api/v2/mix/account/set-margin-mode", "set_margin_mode")
def test_settings_are_set(trader: Trader) -> None:
    client = trader.ccxt
    assert client.set_leverage(5, BTC)["data"]["crossMarginLeverage"] == "5"
    assert client.fetch_leverage(BTC)["longLeverage"] == 5
    assert client.set_margin_mode("isolated", BTC)["data"]["marginMode"] == "isolated"
    client.set_leverage(7, BTC, {"holdSide": "long"})
    assert client.fetch_leverage(BTC)["longLeverage"] == 7
    client.set_margin_mode("cross", BTC)
    assert client.fetch_margin_mode(BTC)["marginMode"] == "cross"
    other = not trader.hedge
    assert client.set_position_mode(other, BTC)["data"]["posMode"] == (
        "hedge_mode" if other else "one_way_mode"
    )


@endpoint("POST /api/v2/mix/order/place-order", "create_order: market, limit, PO, IOC, stops")
@endpoint("POST /api/v2/mix/order/close-positions", "close_position, close_all_positions")
def test_orders_of_every_kind(trader: Trader) -> None:
    client, last = trader.ccxt, trader.last
    trader.create(
        "market",
        "buy",
        0.01,
        clientOrderId="with-stops",
        stopLoss={"triggerPrice": last * 0.9},
        takeProfit={"triggerPrice": last * 1.2, "price": last * 1.2 + 10},
    )
    assert trader.held() == {"long": 0.01}
    assert len(client.fetch_open_orders(BTC, params=STOPS)) == 2
    trader.create("limit", "buy", 0.01, last * 0.97, clientOrderId="gtc")
    maker = trader.create("limit", "buy", 0.01, last * 0.97, postOnly=True)
    assert client.fetch_order(maker["id"], BTC)["timeInForce"] == "PO"
    crossing = trader.create("limit", "buy", 0.01, last * 1.03, postOnly=True)
    assert client.fetch_order(crossing["id"], BTC)["status"] == "canceled"
    ioc = trader.create("limit", "buy", 0.01, last * 0.97, timeInForce="IOC")
    assert client.fetch_order(ioc["id"], BTC)["status"] == "canceled"
    assert len(client.fetch_open_orders(BTC)) == 2
    trader.create("market", "sell", 0.004, reduceOnly=True)
    assert trader.held() == {"long": 0.006}
    client.close_position(BTC, "long" if trader.hedge else None)
    trader.clock.sleep(1)
    assert trader.held() == {}
    trader.create("market", "sell", 0.01)
    assert trader.held() == {"short": 0.01}
    assert len(client.close_all_positions()) == 1
    trader.clock.sleep(0.3)
    assert trader.held() == {}


@endpoint("POST /api/v2/mix/order/batch-place-order", "create_orders")
@endpoint("POST /api/v2/mix/order/modify-order", "edit_order")
@endpoint("POST /api/v2/mix/order/cancel-order", "cancel_order by id and by client id")
@endpoint("POST /api/v2/mix/order/batch-cancel-orders", "cancel_orders, cancel_all_orders")
def test_batches_edits_and_cancels(trader: Trader) -> None:
    client, price = trader.ccxt, trader.last * 0.97
    wanted = [
        {
            "symbol": BTC,
            "type": "limit",
            "side": "buy",
            "amount": 0.01,
            "price": price,
            "params": {**trader.mode, "clientOrderId": f"batch-{number}"},
        }
        for number in range(5)
    ]
    made = client.create_orders(wanted)
    trader.clock.sleep(0.3)
    assert {row["clientOrderId"] for row in made} == {f"batch-{number}" for number in range(5)}
    edited = client.edit_order(made[0]["id"], BTC, "limit", "buy", 0.02, price * 0.99)
    trader.clock.sleep(0.3)
    amounts = {row["id"]: row["amount"] for row in client.fetch_open_orders(BTC)}
    assert amounts[edited["id"]] == 0.02
    client.cancel_order(edited["id"], BTC)
    client.cancel_order(None, BTC, {"clientOrderId": "batch-1"})
    assert len(client.cancel_orders([made[2]["id"], made[3]["id"]], BTC)) == 2
    assert [row["clientOrderId"] for row in client.fetch_open_orders(BTC)] == ["batch-4"]
    assert len(client.cancel_all_orders(BTC)) == 1
    assert client.fetch_open_orders(BTC) == []


@endpoint("POST /api/v2/mix/order/place-tpsl-order", "create_order stopLossPrice, takeProfitPrice")
@endpoint("POST /api/v2/mix/order/modify-tpsl-order", "edit_order of a stop")
@endpoint("POST /api/v2/mix/order/place-plan-order", "create_order triggerPrice, trailingPercent")
@endpoint("POST /api/v2/mix/order/cancel-plan-order", "cancel_order trigger")
@endpoint("POST /api/v2/mix/order/place-pos-tpsl", "raw")
def test_stops_and_triggers(trader: Trader) -> None:
    client, last = trader.ccxt, trader.last
    trader.create("market", "buy", 0.02)
    stop = trader.create("market", "sell", 0.02, stopLossPrice=last * 0.9)
    trader.create("market", "sell", 0.02, takeProfitPrice=last * 1.2)
    part = trader.create("market", "sell", 0.01, stopLossPrice=last * 0.8, planType="loss_plan")
    trader.clock.sleep(1)
    moved = client.edit_order(
        stop["id"], BTC, "market", "sell", 0.02, None, {"stopLossPrice": last * 0.91}
    )
    assert moved["id"] == stop["id"]
    kinds = {row["info"]["planType"] for row in client.fetch_open_orders(BTC, params=STOPS)}
    assert kinds == {"pos_loss", "pos_profit", "loss_plan"}
    client.cancel_order(part["id"], BTC, {"trigger": True, "planType": "loss_plan"})
    hold = "long" if trader.hedge else "buy"
    words = {"marginCoin": "USDT", "productType": "USDT-FUTURES", "symbol": "BTCUSDT"}
    words |= {"stopLossTriggerPrice": str(round(last * 0.92)), "holdSide": hold}
    answer = client.privateMixPostV2MixOrderPlacePosTpsl(words)
    assert [row["orderId"] for row in answer["data"]] == [stop["id"]]
    trigger = trader.create("limit", "buy", 0.01, last * 1.02, triggerPrice=last * 1.02)
    trader.create(
        "market", "sell", 0.01, trailingPercent=1, trailingTriggerPrice=last * 1.02, reduceOnly=True
    )
    assert len(client.fetch_open_orders(BTC, params=TRIGGERS)) == 1
    trailing = client.fetch_open_orders(BTC, params={"trailing": True})
    assert [row["info"]["callbackRatio"] for row in trailing] == ["1"]
    trader.clock.sleep(1)
    client.cancel_order(trigger["id"], BTC, {"trigger": True})
    assert client.fetch_open_orders(BTC, params=TRIGGERS) == []
    client.close_position(BTC)


@endpoint("POST /api/v2/spot/trade/place-order", "create_order: cost, amount, limit")
@endpoint("POST /api/v2/spot/trade/batch-orders", "create_orders")
@endpoint("POST /api/v2/spot/trade/cancel-order", "cancel_order")
@endpoint("POST /api/v2/spot/trade/batch-cancel-order", "cancel_orders")
@endpoint("POST /api/v2/spot/trade/cancel-symbol-order", "cancel_all_orders")
@endpoint("POST /api/v2/spot/trade/cancel-replace-order", "edit_order")
@endpoint("POST /api/v2/spot/trade/place-plan-order", "create_order triggerPrice")
@endpoint("GET /api/v2/spot/trade/current-plan-order", "fetch_open_orders trigger")
@endpoint("POST /api/v2/spot/trade/cancel-plan-order", "cancel_order trigger")
@endpoint("GET /api/v2/spot/trade/history-plan-order", "fetch_canceled_and_closed_orders trigger")
def test_spot_orders_of_every_kind(trader: Trader) -> None:
    client, last = trader.ccxt, trader.last

    def create(kind: str, side: str, amount: float, price: Any = None, **params: Any) -> Any:
        order = client.create_order(PAIR, kind, side, amount, price, params)
        trader.clock.sleep(0.3)
        return order

    create("market", "buy", 500, cost=500)
    create("market", "buy", 0.01, last)
    free = client.fetch_balance({"type": "spot"})["BTC"]["free"]
    assert free == pytest.approx(0.01 + 500 / last, rel=0.01)
    create("market", "sell", float(client.amount_to_precision(PAIR, free / 2)))
    resting = create("limit", "buy", 0.001, last * 0.97)
    edited = client.edit_order(resting["id"], PAIR, "limit", "buy", 0.002, last * 0.96)
    trader.clock.sleep(0.3)
    (row,) = client.fetch_open_orders(PAIR)
    assert (row["id"], row["amount"]) == (edited["id"], 0.002)
    client.cancel_order(edited["id"], PAIR)
    one = {"symbol": PAIR, "type": "limit", "side": "buy", "amount": 0.001, "price": last * 0.97}
    made = client.create_orders([one, one, one])
    trader.clock.sleep(0.3)
    client.cancel_orders([made[0]["id"]], PAIR)
    assert len(client.fetch_open_orders(PAIR)) == 2
    client.cancel_all_orders(PAIR)
    trader.clock.sleep(0.3)
    assert client.fetch_open_orders(PAIR) == []
    stop = create("market", "sell", 0.001, triggerPrice=last * 0.9)
    (waiting,) = client.fetch_open_orders(PAIR, params={"trigger": True})
    assert waiting["id"] == stop["id"]
    client.cancel_order(stop["id"], PAIR, {"trigger": True})
    assert client.fetch_open_orders(PAIR, params={"trigger": True}) == []
    (over,) = client.fetch_canceled_and_closed_orders(PAIR, params={"trigger": True})
    assert over["id"] == stop["id"]


@endpoint("POST /api/v2/spot/wallet/transfer", "transfer")
@endpoint("GET /api/v2/spot/account/transferRecords", "fetch_transfers")
@endpoint("GET /api/v2/spot/account/bills", "fetch_ledger")
def test_transfers(trader: Trader) -> None:
    client = trader.ccxt
    client.transfer("USDT", 25, "spot", "swap")
    assert client.fetch_balance({"type": "swap"})["USDT"]["total"] == 100_025
    (record,) = client.fetch_transfers("USDT", params={"fromAccount": "spot"})
    assert (record["amount"], record["status"]) == (25, "ok")
    newest = client.fetch_ledger("USDT", params={"type": "spot"})
    assert any(entry["amount"] == 25 for entry in newest)


@endpoint("GET /api/v2/mix/order/fill-history", "not in demo trading")
def test_demo_trading_trades_with_a_demo_key_alone(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> None:
    import ccxt

    number = new_number(environment="demo")
    client = ccxt_client(simulator.url, f"key-{number}", number)
    with pytest.raises(ccxt.ExchangeError, match="40099"):
        client.fetch_balance()
    client.enable_demo_trading(True)
    client.load_markets()
    assert client.fetch_balance({"type": "swap"})["USDT"]["free"] == 100_000
    order = client.create_order(BTC, "market", "buy", 0.01)
    clock.sleep(0.3)
    assert client.fetch_order(order["id"], BTC)["status"] == "closed"
