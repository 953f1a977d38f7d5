"""Spot trading on the paper exchange."""

from __future__ import annotations

from decimal import Decimal

import pytest

from module.simulator.engine import Engine
from module.simulator.engine_records import OrderRecord, SpotBalanceView
from module.simulator.engine_types import (
    EngineRejected,
    EngineSettings,
    MarketType,
    OrderStatus,
    OrderType,
    RejectReason,
    Side,
    SpotOrderCommand,
)
from tests.fakes.scripted_market import START_MS, ScriptedMarket

D = Decimal
MINUTE = 60_000


def state(item: OrderRecord) -> str:
    """What it is now (a call, so that a type checker does not remember the answer)."""
    return item.status.value


def new_engine(market: ScriptedMarket | None = None) -> Engine:
    engine = Engine(market or ScriptedMarket(), EngineSettings(), START_MS)
    engine.open_account("sam", spot={"USDT": D(1000), "BTC": D("0.01")})
    return engine


def trade(
    engine: Engine, side: Side, size: str, price: str | None = None, client_id: str | None = None
) -> OrderRecord:
    order = engine.place_spot_order(
        "sam",
        SpotOrderCommand(
            "BTCUSDT",
            side,
            OrderType.LIMIT if price else OrderType.MARKET,
            D(size),
            D(price) if price else None,
            client_id=client_id,
        ),
    )
    engine.advance_to(order.arrives_ms)
    return order


def balance(engine: Engine, coin: str) -> SpotBalanceView:
    return {view.coin: view for view in engine.spot_balances("sam")}[coin]


def test_a_market_buy_spends_quote_and_pays_its_fee_in_the_coin() -> None:
    engine = new_engine()
    order = trade(engine, Side.BUY, "100")
    assert state(order) == OrderStatus.FILLED
    assert order.filled_size == D("0.001999")  # 100 / 50001 down to the lot
    assert order.fee == D("-0.00000199")
    assert order.fee_coin == "BTC"
    assert balance(engine, "BTC").available == D("0.01") + D("0.001999") - D("0.00000199")
    assert balance(engine, "USDT").available == D(1000) - D("0.001999") * D(50001)
    assert balance(engine, "USDT").frozen == 0


def test_a_market_sale_pays_its_fee_in_quote() -> None:
    engine = new_engine()
    order = trade(engine, Side.SELL, "0.01")
    assert (order.fee, order.fee_coin) == (D("-0.49999000"), "USDT")
    assert balance(engine, "BTC").available == 0
    assert balance(engine, "USDT").available == D(1000) + D("499.99") - D("0.49999")


def test_a_limit_order_freezes_and_a_cancel_releases() -> None:
    engine = new_engine()
    order = trade(engine, Side.BUY, "0.01", "49000")
    assert (balance(engine, "USDT").available, balance(engine, "USDT").frozen) == (D(510), D(490))
    with pytest.raises(EngineRejected) as poor:
        trade(engine, Side.BUY, "0.02", "49000")
    assert poor.value.reason is RejectReason.INSUFFICIENT_BALANCE
    engine.cancel_spot_order("sam", order_id=order.order_id)
    assert balance(engine, "USDT").available == D(1000)


def test_a_resting_sale_fills_when_the_price_comes() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 51000 50000 50500")
    engine = new_engine(market)
    order = trade(engine, Side.SELL, "0.005", "50800")
    assert balance(engine, "BTC").frozen == D("0.005")
    engine.advance_to(START_MS + 2 * MINUTE)
    assert state(order) == OrderStatus.FILLED
    assert order.average_price == D(50800)
    engine.ledger.audit()


def test_spot_refusals() -> None:
    engine = new_engine()
    trade(engine, Side.BUY, "50", client_id="s-1")
    for size, price, client_id, reason in (
        ("0.5", None, None, RejectReason.NOTIONAL_BELOW_MIN),
        ("2000", None, None, RejectReason.INSUFFICIENT_BALANCE),
        ("50", None, "s-1", RejectReason.CLIENT_ID_DUPLICATE),
        ("0.0000001", "49000", None, RejectReason.SIZE_STEP),
        ("0.001", "49000.05", None, RejectReason.PRICE_STEP),
    ):
        with pytest.raises(EngineRejected) as caught:
            trade(engine, Side.BUY, size, price, client_id)
        assert caught.value.reason is reason
    assert engine.order("sam", client_id="s-1", market=MarketType.SPOT).fee < 0
    assert engine.all_orders("sam") == []
    assert [bill.coin for bill in engine.bills("sam", MarketType.SPOT)[-2:]] == ["USDT", "BTC"]


def test_a_spot_holding_is_no_futures_money() -> None:
    engine = new_engine()
    assert engine.futures_balance("sam").equity == 0
