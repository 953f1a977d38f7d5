"""Spot trading on the paper exchange."""

from __future__ import annotations

from decimal import Decimal

import pytest

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import OrderRecord, SpotBalanceView
from module.simulator.engine.engine_types import (
    EngineRejected,
    EngineSettings,
    MarketType,
    OrderSource,
    OrderStatus,
    OrderType,
    PlanStatus,
    PlanType,
    PositionMode,
    PresetStop,
    RejectReason,
    Side,
    SpotOrderCommand,
    SpotPlanCommand,
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


# -- orders that wait -------------------------------------------------------------------------


def frozen(engine: Engine, coin: str = "BTC") -> Decimal:
    return balance(engine, coin).frozen


def bought_with_stops(
    engine: Engine, profit: str | None = "51000", loss: str | None = "49000"
) -> OrderRecord:
    order = engine.place_spot_order(
        "sam",
        SpotOrderCommand(
            "BTCUSDT",
            Side.BUY,
            OrderType.LIMIT,
            D("0.01"),
            D(50100),
            take_profit=PresetStop(D(profit)) if profit else None,
            stop_loss=PresetStop(D(loss)) if loss else None,
        ),
    )
    engine.advance_to(order.arrives_ms)
    return order


def test_attached_stops_lock_what_was_bought_less_its_fee_once() -> None:
    engine = new_engine()
    order = bought_with_stops(engine)
    assert (order.filled_size, order.fee) == (D("0.01"), D("-0.00001"))
    profit, loss = engine.plans("sam")
    assert {profit.size, loss.size} == {D("0.00999")}
    assert (profit.fires_above, loss.fires_above) == (True, False)
    assert frozen(engine) == D("0.00999")
    engine.cancel_spot_plan("sam", plan_id=profit.plan_id, kind=PlanType.SPOT_TPSL)
    assert frozen(engine) == D("0.00999")  # the lock goes to the one that is left
    engine.cancel_spot_plan("sam", plan_id=loss.plan_id, kind=PlanType.SPOT_TPSL)
    assert frozen(engine) == 0


@pytest.mark.parametrize(
    ("bar", "source"),
    [
        ("50000 51200 49900 51100", OrderSource.PROFIT_MARKET),
        ("50000 50100 48900 49000", OrderSource.LOSS_MARKET),
    ],
)
def test_one_of_the_attached_stops_sells_and_the_other_ends(bar: str, source: OrderSource) -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, bar)
    engine = new_engine(market)
    bought_with_stops(engine)
    engine.advance_to(START_MS + 2 * MINUTE)
    assert engine.plans("sam") == []
    assert frozen(engine) == 0
    sale = engine.order_history("sam", market=MarketType.SPOT)[-1]
    assert (sale.source, sale.filled_size) == (source, D("0.00999"))
    statuses = {plan.status for plan in engine.plan_history("sam")}
    assert statuses == {PlanStatus.EXECUTED, PlanStatus.CANCELLED}
    engine.ledger.audit()


def test_a_cancelled_purchase_protects_what_it_has_bought() -> None:
    engine = new_engine()
    order = engine.place_spot_order(
        "sam",
        SpotOrderCommand(
            "BTCUSDT",
            Side.BUY,
            OrderType.LIMIT,
            D("0.01"),
            D(49000),
            stop_loss=PresetStop(D(48000)),
        ),
    )
    engine.advance_to(order.arrives_ms)
    engine.cancel_spot_order("sam", order_id=order.order_id)
    assert engine.plans("sam") == []


def plan(
    side: Side, size: str, trigger: str, *, locks: bool = False, in_quote: bool = False
) -> SpotPlanCommand:
    return SpotPlanCommand(
        SpotOrderCommand("BTCUSDT", side, OrderType.MARKET, D(size)),
        D(trigger),
        locks=locks,
        in_quote=in_quote,
    )


def test_a_tpsl_order_locks_and_keeps_its_id_when_it_fires() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 50000 48900 49000")
    engine = new_engine(market)
    with pytest.raises(EngineRejected) as poor:
        engine.place_spot_plan("sam", plan(Side.SELL, "0.02", "49000", locks=True))
    assert poor.value.reason is RejectReason.INSUFFICIENT_BALANCE
    waiting = engine.place_spot_plan("sam", plan(Side.SELL, "0.01", "49000", locks=True))
    assert frozen(engine) == D("0.01")
    with pytest.raises(EngineRejected) as locked:
        trade(engine, Side.SELL, "0.001")
    assert locked.value.reason is RejectReason.INSUFFICIENT_BALANCE
    engine.advance_to(START_MS + 2 * MINUTE)
    order = engine.order("sam", order_id=waiting.plan_id, market=MarketType.SPOT)
    assert state(order) == OrderStatus.FILLED
    assert (order.client_id, order.trigger_price) == (waiting.client_id, D(49000))


def test_a_trigger_order_locks_nothing_and_may_fail() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 50000 48900 49000")
    engine = new_engine(market)
    by_size = engine.place_spot_plan("sam", plan(Side.BUY, "0.01", "49000"))
    by_cost = engine.place_spot_plan("sam", plan(Side.BUY, "100", "49000", in_quote=True))
    too_much = engine.place_spot_plan("sam", plan(Side.BUY, "900", "49000", in_quote=True))
    assert frozen(engine, "USDT") == 0
    engine.advance_to(START_MS + 2 * MINUTE)
    made = engine.order("sam", client_id=by_size.plan_id, market=MarketType.SPOT)
    assert D("0.0099") < made.filled_size <= D("0.01")
    assert by_cost.status is PlanStatus.EXECUTED
    assert (too_much.status, too_much.execute_order_id) == (PlanStatus.FAIL_EXECUTE, "")


def test_waiting_spot_orders_do_not_keep_the_position_mode() -> None:
    engine = new_engine()
    engine.place_spot_plan("sam", plan(Side.SELL, "0.01", "49000", locks=True))
    assert engine.set_position_mode("sam", PositionMode.HEDGE) is PositionMode.HEDGE
