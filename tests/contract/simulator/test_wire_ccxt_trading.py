"""Unmodified ccxt trades at the simulator over real sockets: whole round trips."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from module.clock import WorldClock
from tests.fakes.paper_exchange import SimulatorProcess, ccxt_client

pytestmark = pytest.mark.timeout(120)
BTC = "BTC/USDT:USDT"
ETH = "ETH/USDT:USDT"


@pytest.fixture
def exchange(simulator: SimulatorProcess, clock: WorldClock, number: int) -> Any:
    client = ccxt_client(simulator.url, f"key-{number}", number)
    client.load_markets()
    return client


def settled(clock: WorldClock, exchange: Any, order: Any, symbol: str = BTC) -> Any:
    """The order as it is a moment after its acceptance."""
    clock.sleep(0.1)
    return exchange.fetch_order(order["id"], symbol)


def test_load_markets_sees_contracts_and_pairs_and_that_the_account_is_classic(
    exchange: Any,
) -> None:
    assert exchange.options["uta"] is False
    market = exchange.markets[BTC]
    assert (market["linear"], market["active"], market["contractSize"]) == (True, True, 1)
    assert market["precision"] == {"amount": 0.0001, "price": 0.1, **nothing(market)}
    assert market["limits"]["cost"]["min"] == 5
    assert exchange.markets["BTC/USDT"]["active"]
    tiers = exchange.fetch_market_leverage_tiers(BTC)
    assert tiers[0]["maxLeverage"] == 125


def nothing(market: dict[str, Any]) -> dict[str, None]:
    return {name: None for name, value in market["precision"].items() if value is None}


def test_a_long_is_opened_with_stops_increased_reduced_flipped_and_closed(
    exchange: Any, clock: WorldClock, simulator: SimulatorProcess, number: int
) -> None:
    last = exchange.fetch_ticker(BTC)["last"]
    exchange.set_leverage(5, BTC)
    order = exchange.create_order(
        BTC,
        "market",
        "buy",
        0.05,
        None,
        {
            "clientOrderId": "open-1",
            "stopLoss": {"triggerPrice": last * 0.9},
            "takeProfit": {"triggerPrice": last * 1.2},
        },
    )
    assert exchange.fetch_order(order["id"], BTC)["status"] == "open"
    filled = settled(clock, exchange, order)
    assert (filled["status"], filled["filled"], filled["clientOrderId"]) == (
        "closed",
        0.05,
        "open-1",
    )
    (position,) = exchange.fetch_positions([BTC])
    assert (position["side"], position["contracts"], position["leverage"]) == ("long", 0.05, 5.0)
    stops = exchange.fetch_open_orders(BTC, params={"trigger": True, "planType": "profit_loss"})
    by_kind = {row["info"]["planType"]: row for row in stops}
    assert by_kind["pos_loss"]["triggerPrice"] == float(
        exchange.price_to_precision(BTC, last * 0.9)
    )
    assert position["info"]["stopLossId"] == by_kind["pos_loss"]["id"]
    assert position["info"]["takeProfitId"] == by_kind["pos_profit"]["id"]

    settled(clock, exchange, exchange.create_order(BTC, "market", "buy", 0.02))
    assert exchange.fetch_position(BTC)["contracts"] == 0.07
    reduced = exchange.create_order(BTC, "market", "sell", 0.03, None, {"reduceOnly": True})
    assert settled(clock, exchange, reduced)["reduceOnly"] is True
    assert exchange.fetch_position(BTC)["contracts"] == 0.04

    settled(clock, exchange, exchange.create_order(BTC, "market", "sell", 0.1))
    flipped = exchange.fetch_position(BTC)
    assert (flipped["side"], flipped["contracts"]) == ("short", 0.06)
    assert flipped["info"]["stopLoss"] == ""  # the long's stops went with the long

    exchange.close_position(BTC)
    clock.sleep(0.1)
    assert exchange.fetch_positions([BTC]) == []
    assert (
        exchange.fetch_open_orders(BTC, params={"trigger": True, "planType": "profit_loss"}) == []
    )

    trades = exchange.fetch_my_trades(BTC)
    assert [trade["amount"] for trade in trades] == [0.05, 0.02, 0.03, 0.1, 0.06]
    history = exchange.fetch_positions_history([BTC])
    assert [row["side"] for row in history] == ["short", "long"]
    judge = simulator.account(number)
    net = sum(Decimal(row["netProfit"]) for row in judge["closed_positions"])
    assert Decimal(judge["wallet"]) == Decimal(100_000) + net
    ledger = exchange.fetch_ledger("USDT", limit=100)
    assert sum(
        Decimal(str(row["info"]["amount"])) + Decimal(row["info"]["fee"]) for row in ledger
    ) == (Decimal(judge["wallet"]))
    assert Decimal(exchange.fetch_balance({"type": "swap"})["info"][0]["accountEquity"]) == (
        Decimal(judge["wallet"])
    )
    assert len(exchange.fetch_canceled_and_closed_orders(BTC)) == 5


def test_a_short_with_stops_and_its_stop_loss_fires(
    exchange: Any, clock: WorldClock, simulator: SimulatorProcess, number: int
) -> None:
    last = exchange.fetch_ticker(ETH)["last"]
    params = {"stopLoss": {"triggerPrice": last * 1.01}, "takeProfit": {"triggerPrice": last * 0.5}}
    settled(clock, exchange, exchange.create_order(ETH, "market", "sell", 2, None, params), ETH)
    (position,) = exchange.fetch_positions([ETH])
    assert (position["side"], position["contracts"]) == ("short", 2.0)
    stop_id = position["info"]["stopLossId"]
    simulator.control("POST", "prices", {"symbol": "ETHUSDT", "factor": "1.02"})
    clock.sleep(0.1)
    assert exchange.fetch_positions([ETH]) == []
    closed = exchange.fetch_order(None, ETH, {"clientOrderId": stop_id})
    assert closed["info"]["orderSource"] == "pos_loss_market"
    (executed,) = [
        row
        for row in exchange.fetch_canceled_and_closed_orders(
            ETH, params={"trigger": True, "planType": "profit_loss"}
        )
        if row["info"]["planStatus"] == "executed"
    ]
    assert executed["id"] == stop_id
    assert simulator.account(number)["plans"] == []


def test_limit_orders_rest_are_edited_and_cancelled(exchange: Any, clock: WorldClock) -> None:
    last = exchange.fetch_ticker(BTC)["last"]
    order = exchange.create_order(BTC, "limit", "buy", 0.01, last * 0.97, {"clientOrderId": "rest"})
    clock.sleep(0.1)
    (resting,) = exchange.fetch_open_orders(BTC)
    assert (resting["clientOrderId"], resting["status"]) == ("rest", "open")
    edited = exchange.edit_order(order["id"], BTC, "limit", "buy", 0.02, last * 0.96)
    clock.sleep(0.1)
    (resting,) = exchange.fetch_open_orders(BTC)
    assert (resting["id"], resting["amount"]) == (edited["id"], 0.02)
    exchange.cancel_order(edited["id"], BTC)
    assert exchange.fetch_open_orders(BTC) == []
    assert exchange.fetch_order(edited["id"], BTC)["status"] == "canceled"
    for client_id in ("a", "b", "c"):
        exchange.create_order(BTC, "limit", "buy", 0.01, last * 0.97, {"clientOrderId": client_id})
    assert len(exchange.cancel_all_orders(BTC)) == 3


def test_stops_are_placed_moved_and_cancelled_by_their_own_kind(
    exchange: Any, clock: WorldClock
) -> None:
    last = exchange.fetch_ticker(BTC)["last"]
    settled(clock, exchange, exchange.create_order(BTC, "market", "buy", 0.01))
    first = exchange.create_order(BTC, "market", "sell", 0.01, None, {"stopLossPrice": last * 0.9})
    again = exchange.create_order(BTC, "market", "sell", 0.01, None, {"stopLossPrice": last * 0.95})
    assert first["id"] == again["id"]
    moved = exchange.edit_order(
        first["id"], BTC, "market", "sell", 0.01, None, {"stopLossPrice": last * 0.92}
    )
    assert moved["id"] == first["id"]
    exchange.cancel_order(first["id"], BTC, {"trigger": True, "planType": "profit_loss"})
    pending = {"trigger": True, "planType": "profit_loss"}
    (stop,) = exchange.fetch_open_orders(BTC, params=pending)
    assert stop["triggerPrice"] == float(exchange.price_to_precision(BTC, last * 0.92))
    exchange.cancel_order(first["id"], BTC, {"trigger": True, "planType": "pos_loss"})
    assert exchange.fetch_open_orders(BTC, params=pending) == []
    exchange.close_all_positions()


def test_hedge_mode_holds_both_sides(
    simulator: SimulatorProcess, clock: WorldClock, new_number: Callable[..., int]
) -> None:
    number = new_number(position_mode="hedge")
    exchange = ccxt_client(simulator.url, f"key-{number}", number)
    exchange.load_markets()
    for side in ("buy", "sell"):
        exchange.create_order(BTC, "market", side, 0.02, None, {"hedged": True})
    clock.sleep(0.1)
    held = {row["side"]: row["contracts"] for row in exchange.fetch_positions([BTC])}
    assert held == {"long": 0.02, "short": 0.02}
    exchange.create_order(BTC, "market", "sell", 0.02, None, {"hedged": True, "reduceOnly": True})
    clock.sleep(0.1)
    (left,) = exchange.fetch_positions([BTC])
    assert (left["side"], left["hedged"]) == ("short", True)
    exchange.close_position(BTC, "short")
    clock.sleep(0.1)
    assert exchange.fetch_positions([BTC]) == []
    exchange.set_position_mode(False)
    assert exchange.fetch_leverage(BTC)["longLeverage"] == 20


def test_funding_is_paid_at_the_settlement_and_shows_in_the_bills(
    exchange: Any, clock: WorldClock
) -> None:
    settled(clock, exchange, exchange.create_order(BTC, "market", "buy", 0.5))
    rate = exchange.fetch_funding_rate(BTC)
    seconds = (rate["fundingTimestamp"] - exchange.fetch_time()) / 1000
    clock.sleep(seconds + 1)
    (funding,) = exchange.fetch_funding_history(BTC)
    assert funding["timestamp"] == rate["fundingTimestamp"]
    assert (funding["amount"] < 0) == (rate["fundingRate"] > 0)
    newest = exchange.fetch_funding_rate_history(BTC, limit=3)[-1]
    assert newest["timestamp"] == rate["fundingTimestamp"]
    exchange.close_position(BTC)


def test_candles_are_ascending_contiguous_and_end_with_the_forming_bar(
    exchange: Any, clock: WorldClock
) -> None:
    bars = exchange.fetch_ohlcv(BTC, "1m", limit=200)
    now = exchange.fetch_time()
    assert [bar[0] for bar in bars] == [
        now - now % 60_000 - 60_000 * back for back in reversed(range(200))
    ]
    hours = exchange.fetch_ohlcv(BTC, "1h", limit=1)
    minutes = [bar for bar in exchange.fetch_ohlcv(BTC, "1m", limit=60) if bar[0] >= hours[0][0]]
    assert hours[0][2] == max(bar[2] for bar in minutes)
    old = exchange.fetch_ohlcv(BTC, "1h", since=now - 200 * 86_400_000, limit=50)
    assert len(old) == 50
    assert exchange.fetch_ohlcv(BTC, "1d", limit=5)[-1][0] == now - now % 86_400_000
    assert exchange.fetch_ohlcv("BTC/USDT", "1h", limit=5)[-1][0] == hours[0][0]


def test_spot_buys_and_sells_with_the_fee_in_the_coin_received(
    exchange: Any, clock: WorldClock, simulator: SimulatorProcess, number: int
) -> None:
    bought = exchange.create_order("BTC/USDT", "market", "buy", 1000, None, {"cost": 1000})
    clock.sleep(0.1)
    order = exchange.fetch_order(bought["id"], "BTC/USDT")
    assert order["status"] == "closed"
    (trade,) = exchange.fetch_my_trades("BTC/USDT")
    assert trade["fee"]["currency"] == "BTC"
    have = exchange.fetch_balance({"type": "spot"})["BTC"]["free"]
    assert have == pytest.approx(trade["amount"] - trade["fee"]["cost"])
    amount = float(exchange.amount_to_precision("BTC/USDT", have))
    exchange.create_order("BTC/USDT", "market", "sell", amount)
    clock.sleep(0.1)
    resting = exchange.create_order("BTC/USDT", "limit", "buy", 0.01, trade["price"] * 0.97)
    clock.sleep(0.1)
    assert [row["id"] for row in exchange.fetch_open_orders("BTC/USDT")] == [resting["id"]]
    exchange.cancel_order(resting["id"], "BTC/USDT")
    assert exchange.fetch_order(resting["id"], "BTC/USDT")["status"] == "canceled"
    assert len(simulator.account(number)["spot_fills"]) == 2
