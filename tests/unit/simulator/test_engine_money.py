"""Funding, liquidation, transfers and the ledger of the paper exchange."""

from __future__ import annotations

from decimal import Decimal

import pytest

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import OrderRecord
from module.simulator.engine.engine_types import (
    EngineRejected,
    EngineSettings,
    FuturesOrderCommand,
    MarginMode,
    MarketType,
    OrderSource,
    OrderStatus,
    OrderType,
    PositionMode,
    PresetStop,
    RejectReason,
    Side,
    TradeSide,
)
from module.simulator.engine.ledger import House
from tests.fakes.scripted_market import START_MS, ScriptedMarket

D = Decimal
MINUTE = 60_000


def state(item: OrderRecord) -> str:
    """What it is now (a call, so that a type checker does not remember the answer)."""
    return item.status.value


def new_engine(
    market: ScriptedMarket, usdt: str = "10000", mode: PositionMode = PositionMode.ONE_WAY
) -> Engine:
    engine = Engine(market, EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(usdt), position_mode=mode)
    return engine


def trade(
    engine: Engine,
    side: Side,
    size: str,
    symbol: str = "BTCUSDT",
    *,
    account: str = "ann",
    trade_side: TradeSide | None = None,
    loss: str | None = None,
) -> OrderRecord:
    order = engine.place_order(
        account,
        FuturesOrderCommand(
            symbol,
            side,
            OrderType.MARKET,
            D(size),
            trade_side=trade_side,
            stop_loss=PresetStop(D(loss)) if loss else None,
        ),
    )
    engine.advance_to(order.arrives_ms)
    return order


def kinds(engine: Engine) -> list[str]:
    return [bill.business_type for bill in engine.bills("ann")]


def audited(engine: Engine) -> None:
    engine.ledger.check()
    engine.ledger.audit()
    running: dict[str, Decimal] = {}
    for market in MarketType:
        for bill in engine.bills("ann", market):
            key = f"{market}:{bill.coin}"
            running[key] = running.get(key, D(0)) + bill.amount + bill.fee
            assert bill.balance == running[key]
    assert engine.futures_balance("ann").wallet == running["futures:USDT"]


def test_longs_pay_a_positive_rate_once_and_shorts_receive_it() -> None:
    market = ScriptedMarket()
    market.fund(3, "0.0003")
    engine = new_engine(market)
    engine.open_account("bob", futures_usdt=D(10000))
    trade(engine, Side.BUY, "0.1")
    trade(engine, Side.SELL, "0.1", account="bob")
    before = engine.futures_balance("ann").wallet
    engine.advance_to(START_MS + 3 * MINUTE)
    engine.advance_to(START_MS + 5 * MINUTE)
    assert engine.futures_balance("ann").wallet - before == D("-1.5")  # 5000 x 0.0003
    assert engine.positions("ann")[0].position.funding == D("-1.5")
    assert engine.positions("bob")[0].position.funding == D("1.5")
    assert kinds(engine).count("contract_settle_fee") == 1
    assert engine.ledger.house_balance(House.FUNDING, "USDT") == 0
    engine.close_positions("ann")
    engine.advance_to(START_MS + 6 * MINUTE)
    closed = engine.position_history("ann")[0]
    assert closed.funding == D("-1.5")
    assert closed.net_profit == engine.futures_balance("ann").wallet - D(10000)
    audited(engine)


def test_one_whose_position_arrives_at_the_settlement_does_not_pay_it() -> None:
    market = ScriptedMarket()
    market.fund(1, "0.0003")
    engine = new_engine(market)
    engine.advance_to(START_MS + MINUTE - 50)
    trade(engine, Side.BUY, "0.1")
    assert engine.now_ms == START_MS + MINUTE
    engine.jump_price("BTCUSDT", D(1))
    engine.advance_to(START_MS + 2 * MINUTE)
    assert "contract_settle_fee" not in kinds(engine)


def test_liquidation_price_is_where_liquidation_happens() -> None:
    market = ScriptedMarket()
    engine = new_engine(market, usdt="1000")
    trade(engine, Side.BUY, "0.3")
    price = engine.positions("ann")[0].liquidation_price
    wallet = engine.futures_balance("ann").wallet
    assert price == (D("0.3") * D(50001) - wallet) / (D("0.3") * (1 - D("0.004") - D("0.0006")))
    step = D("0.1")
    above = (price / step).to_integral_value(rounding="ROUND_CEILING") * step
    market.flat_from("BTCUSDT", 1, str(above))
    engine.advance_to(START_MS + 2 * MINUTE - 1)
    assert len(engine.positions("ann")) == 1
    market.flat_from("BTCUSDT", 2, str(above - step))
    engine.advance_to(START_MS + 2 * MINUTE)
    assert engine.positions("ann") == []


def test_B11_liquidation_leaves_an_order_a_bill_and_a_history_row() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "46000")
    engine = new_engine(market, usdt="1000")
    trade(engine, Side.BUY, "0.3", loss="45000")
    resting = engine.place_order(
        "ann", FuturesOrderCommand("ETHUSDT", Side.BUY, OrderType.LIMIT, D(1), D(1950))
    )
    engine.advance_to(START_MS + MINUTE)
    assert engine.positions("ann") == []
    assert engine.plans("ann") == []
    assert state(resting) == OrderStatus.CANCELED
    burst = [o for o in engine.order_history("ann") if o.source is OrderSource.LIQUIDATION]
    assert [order.filled_size for order in burst] == [D("0.3")]
    assert "burst_sell" in kinds(engine)
    assert engine.position_history("ann")[0].liquidated
    # 4000 x 0.3 is lost of 1000: the fund pays the rest, the wallet ends at zero
    assert engine.futures_balance("ann").wallet == 0
    assert kinds(engine)[-1] == "risk_captital_user_transfer"
    assert engine.ledger.house_balance(House.INSURANCE, "USDT") < 0
    audited(engine)


def test_B12_only_as_much_is_liquidated_as_must_be() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "46200")
    engine = new_engine(market, usdt="1200")
    trade(engine, Side.BUY, "0.3")
    trade(engine, Side.BUY, "0.5", "ETHUSDT")
    engine.advance_to(START_MS + MINUTE)
    assert [view.position.symbol for view in engine.positions("ann")] == ["ETHUSDT"]
    assert engine.futures_balance("ann").wallet > 0


def test_a_liquidated_short_in_hedge_mode_is_called_burst_close_short() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "54000")
    engine = new_engine(market, usdt="1000", mode=PositionMode.HEDGE)
    trade(engine, Side.SELL, "0.3", trade_side=TradeSide.OPEN)
    engine.advance_to(START_MS + MINUTE)
    assert "burst_close_short" in kinds(engine)
    audited(engine)


def test_an_isolated_loss_stops_at_its_own_margin() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "40000")
    engine = new_engine(market, usdt="10000")
    engine.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
    engine.set_leverage("ann", "BTCUSDT", D(10))
    trade(engine, Side.BUY, "0.1")
    after_opening = engine.futures_balance("ann")
    engine.advance_to(START_MS + MINUTE)
    assert engine.positions("ann") == []
    wallet = engine.futures_balance("ann").wallet
    assert wallet == after_opening.wallet - after_opening.isolated_margin
    audited(engine)


def test_lower_leverage_adds_margin_to_an_isolated_position() -> None:
    engine = new_engine(ScriptedMarket())
    engine.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
    trade(engine, Side.BUY, "0.1")
    engine.set_leverage("ann", "BTCUSDT", D(2))
    assert engine.futures_balance("ann").isolated_margin == D("2500.05")
    with pytest.raises(EngineRejected) as poor:
        trade(engine, Side.BUY, "0.4")
    assert poor.value.reason is RejectReason.INSUFFICIENT_MARGIN


def test_position_tiers_bound_leverage() -> None:
    engine = new_engine(ScriptedMarket(), usdt="1000000")
    engine.set_leverage("ann", "BTCUSDT", D(125))
    with pytest.raises(EngineRejected) as large:
        trade(engine, Side.BUY, "4")
    assert large.value.reason is RejectReason.POSITION_TIER_LIMIT
    engine.set_leverage("ann", "BTCUSDT", D(50))
    trade(engine, Side.BUY, "4")
    assert engine.positions("ann")[0].maintenance_rate == D("0.005")


def test_transfers_have_bills_and_cannot_take_what_is_not_free() -> None:
    engine = new_engine(ScriptedMarket())
    engine.deposit("ann", MarketType.FUTURES, "USDT", D("123.45"))
    engine.deposit("ann", MarketType.FUTURES, "USDT", D("-23.45"))
    assert kinds(engine) == ["trans_from_exchange", "trans_from_exchange", "trans_to_exchange"]
    trade(engine, Side.BUY, "0.1")
    for amount in ("-10000", "0", "NaN"):
        with pytest.raises(EngineRejected):
            engine.deposit("ann", MarketType.FUTURES, "USDT", D(amount))
    with pytest.raises(EngineRejected):
        engine.deposit("ann", MarketType.FUTURES, "BTC", D(1))
    audited(engine)


def test_opening_an_account_twice_changes_nothing() -> None:
    engine = new_engine(ScriptedMarket())
    assert not engine.open_account("ann", futures_usdt=D(5))
    assert engine.futures_balance("ann").wallet == D(10000)
    with pytest.raises(EngineRejected) as unknown:
        engine.futures_balance("nobody")
    assert unknown.value.reason is RejectReason.ACCOUNT_UNKNOWN


def test_A18_available_counts_margin_orders_and_losses() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "49000")
    engine = new_engine(market)
    trade(engine, Side.BUY, "0.1")
    engine.advance_to(START_MS + MINUTE)
    order = engine.place_order(
        "ann", FuturesOrderCommand("BTCUSDT", Side.BUY, OrderType.LIMIT, D("0.1"), D(48000))
    )
    balance = engine.futures_balance("ann")
    assert order.locked == D("242.88")  # 4800 / 20 + 4800 x 0.0006
    assert balance.available == balance.wallet - D(245) - D("242.88") - D("100.1")
    assert balance.equity == balance.wallet - D("100.1")


def test_a_crossed_loss_does_not_reach_isolated_margins() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "40000")
    engine = new_engine(market, usdt="1500")
    engine.set_margin_mode("ann", "ETHUSDT", MarginMode.ISOLATED)
    trade(engine, Side.BUY, "1", "ETHUSDT")
    trade(engine, Side.BUY, "0.3")
    kept = engine.futures_balance("ann").isolated_margin
    engine.advance_to(START_MS + MINUTE)
    assert [view.position.symbol for view in engine.positions("ann")] == ["ETHUSDT"]
    assert engine.futures_balance("ann").wallet == kept
    audited(engine)
