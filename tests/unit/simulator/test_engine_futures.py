"""Futures on the paper exchange: orders, fills, positions, in both position modes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import OrderRecord, PositionView
from module.simulator.engine.engine_types import (
    CancelReason,
    EngineRejected,
    EngineSettings,
    Force,
    FuturesOrderCommand,
    MarginMode,
    ModifyOrderCommand,
    OrderStatus,
    OrderType,
    PositionMode,
    PositionSide,
    RejectReason,
    Side,
    TradeScope,
    TradeSide,
)
from tests.fakes.scripted_market import START_MS, ScriptedMarket

D = Decimal
MINUTE = 60_000


def state(item: OrderRecord) -> str:
    """What it is now (a call, so that a type checker does not remember the answer)."""
    return item.status.value


def new_engine(
    market: ScriptedMarket | None = None,
    *,
    usdt: str = "10000",
    mode: PositionMode = PositionMode.ONE_WAY,
) -> Engine:
    engine = Engine(market or ScriptedMarket(), EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(usdt), position_mode=mode)
    return engine


def market_order(side: Side, size: str, **more: object) -> FuturesOrderCommand:
    return FuturesOrderCommand("BTCUSDT", side, OrderType.MARKET, D(size), **more)  # type: ignore[arg-type]


def limit_order(side: Side, size: str, price: str, **more: object) -> FuturesOrderCommand:
    return FuturesOrderCommand("BTCUSDT", side, OrderType.LIMIT, D(size), D(price), **more)  # type: ignore[arg-type]


def settle(engine: Engine, order: OrderRecord) -> OrderRecord:
    engine.advance_to(max(engine.now_ms, order.arrives_ms))
    return order


def trade(engine: Engine, command: FuturesOrderCommand) -> OrderRecord:
    return settle(engine, engine.place_order("ann", command))


def position(engine: Engine, index: int = 0) -> PositionView:
    return engine.positions("ann")[index]


def refused(engine: Engine, command: FuturesOrderCommand) -> RejectReason:
    before = engine.ledger_dump()
    with pytest.raises(EngineRejected) as caught:
        engine.place_order("ann", command)
    assert engine.ledger_dump() == before
    return caught.value.reason


def test_acceptance_comes_first_and_the_fill_one_latency_later() -> None:
    engine = new_engine()
    order = engine.place_order("ann", market_order(Side.BUY, "0.1"))
    assert state(order) == OrderStatus.LIVE
    assert engine.next_event_ms() == START_MS + 50
    engine.advance_to(START_MS + 49)
    assert state(order) == OrderStatus.LIVE
    engine.advance_to(START_MS + 50)
    assert state(order) == OrderStatus.FILLED
    assert order.average_price == D("50001.0")  # half a spread above 50000


def test_a_long_costs_the_fee_and_is_valued_at_mark() -> None:
    engine = new_engine()
    order = trade(engine, market_order(Side.BUY, "0.1"))
    assert order.fee == D("-3.00006000")  # 50001 x 0.1 x 0.0006
    balance = engine.futures_balance("ann")
    assert balance.wallet == D("9996.99994")
    assert balance.unrealized == D("-0.1")
    view = position(engine)
    assert view.margin_size == D("250")  # 50000 x 0.1 / 20
    assert view.position.entry_price == D("50001")
    assert view.deducted_fee == D("3.00006")


def test_fee_is_truncated_to_eight_decimals_as_recorded() -> None:
    market = ScriptedMarket({"BTCUSDT": D("83463.0")})
    engine = new_engine(market)
    trade(engine, market_order(Side.BUY, "0.0001"))
    fill = engine.fills("ann")[0]
    assert fill.price == D("83464.7")
    assert fill.fee == D("-0.00500788")
    assert fill.quote_volume == D("8.3464")


def test_increase_reduce_and_close_one_way() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "52000")
    engine = new_engine(market)
    trade(engine, market_order(Side.BUY, "0.1"))
    engine.advance_to(START_MS + MINUTE)
    trade(engine, market_order(Side.BUY, "0.1"))
    assert position(engine).position.entry_price == D("51001")  # (50001 + 52001) / 2
    reduced = trade(engine, market_order(Side.SELL, "0.05", reduce_only=True))
    assert reduced.realized_pnl == D("49.9")  # (51999 - 51001) x 0.05
    [closing] = engine.close_positions("ann")
    settle(engine, closing)
    assert engine.positions("ann") == []
    [closed] = engine.position_history("ann")
    assert closed.pnl == D("199.6")
    assert closed.close_total == D("0.2")
    gained = engine.futures_balance("ann").wallet - D(10000)
    assert closed.net_profit == gained == closed.pnl + closed.open_fee + closed.close_fee


def test_an_opposite_order_larger_than_the_position_flips_it() -> None:
    engine = new_engine()
    trade(engine, market_order(Side.BUY, "0.1"))
    trade(engine, market_order(Side.SELL, "0.3"))
    view = position(engine)
    assert (view.position.side, view.position.size) == (PositionSide.SHORT, D("0.2"))
    assert view.position.entry_price == D("49999")
    assert len(engine.position_history("ann")) == 1


def test_reduce_only_needs_a_position_and_never_turns_it() -> None:
    engine = new_engine()
    assert refused(engine, market_order(Side.SELL, "0.1", reduce_only=True)) is (
        RejectReason.NO_POSITION
    )
    trade(engine, market_order(Side.BUY, "0.1"))
    order = trade(engine, market_order(Side.SELL, "0.3", reduce_only=True))
    assert order.filled_size == D("0.1")
    assert state(order) == OrderStatus.CANCELED
    assert engine.positions("ann") == []


def test_older_reduce_only_orders_give_way() -> None:
    engine = new_engine()
    trade(engine, market_order(Side.BUY, "0.1"))
    first = trade(engine, limit_order(Side.SELL, "0.08", "51000", reduce_only=True))
    second = trade(engine, limit_order(Side.SELL, "0.05", "51500", reduce_only=True))
    assert state(first) == OrderStatus.CANCELED
    assert state(second) == OrderStatus.LIVE


def test_resting_orders_that_only_close_end_with_their_position() -> None:
    engine = new_engine()
    trade(engine, market_order(Side.BUY, "0.1"))
    resting = trade(engine, limit_order(Side.SELL, "0.05", "51000", reduce_only=True))
    trade(engine, market_order(Side.SELL, "0.1"))
    assert state(resting) == OrderStatus.CANCELED
    assert engine.open_orders("ann") == []


def test_A1_same_client_id_never_makes_a_second_order() -> None:
    engine = new_engine()
    trade(engine, market_order(Side.BUY, "0.1", client_id="a-17"))
    assert refused(engine, market_order(Side.BUY, "0.1", client_id="a-17")) is (
        RejectReason.CLIENT_ID_DUPLICATE
    )
    assert engine.order("ann", client_id="a-17").filled_size == D("0.1")
    assert refused(engine, market_order(Side.BUY, "0.1", client_id="x" * 51)) is (
        RejectReason.CLIENT_ID_TOO_LONG
    )
    assert refused(engine, market_order(Side.BUY, "0.1", client_id="a b")) is (
        RejectReason.CLIENT_ID_CHARSET
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (market_order(Side.BUY, "0.00001"), RejectReason.SIZE_BELOW_MIN),
        (market_order(Side.BUY, "0.00015"), RejectReason.SIZE_STEP),
        (market_order(Side.BUY, "100000"), RejectReason.SIZE_ABOVE_MAX),
        (limit_order(Side.BUY, "0.1", "50000.05"), RejectReason.PRICE_STEP),
        (limit_order(Side.BUY, "0.1", "52500.1"), RejectReason.PRICE_ABOVE_BAND),
        (limit_order(Side.BUY, "0.1", "47499.9"), RejectReason.PRICE_BELOW_BAND),
        (market_order(Side.BUY, "5"), RejectReason.INSUFFICIENT_MARGIN),
        (market_order(Side.BUY, "0.1", trade_side=TradeSide.OPEN), RejectReason.MODE_MISMATCH),
        (market_order(Side.BUY, "-0.1"), RejectReason.VALUE_INVALID),
        (market_order(Side.BUY, "NaN"), RejectReason.VALUE_INVALID),
    ],
)
def test_A17_refusals_change_nothing(command: FuturesOrderCommand, reason: RejectReason) -> None:
    assert refused(new_engine(), command) is reason


def test_A17_five_dollars_are_the_least_to_open_with_but_not_to_close() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "49000")
    engine = new_engine(market)
    trade(engine, market_order(Side.BUY, "0.0001"))
    engine.advance_to(START_MS + MINUTE)
    assert refused(engine, market_order(Side.BUY, "0.0001")) is RejectReason.NOTIONAL_BELOW_MIN
    trade(engine, market_order(Side.SELL, "0.0001", reduce_only=True))
    assert engine.positions("ann") == []


def test_a_limit_order_rests_and_fills_as_maker_at_its_price() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 50000 49400 49800")
    engine = new_engine(market)
    order = trade(engine, limit_order(Side.BUY, "0.1", "49500"))
    assert state(order) == OrderStatus.LIVE
    assert engine.futures_balance("ann").locked == D("250.47")  # 4950 / 20 + 4950 x 0.0006
    engine.advance_to(START_MS + 2 * MINUTE)
    assert state(order) == OrderStatus.FILLED
    [fill] = engine.fills("ann")
    assert (fill.price, fill.scope, fill.fee) == (D("49500"), TradeScope.MAKER, D("-0.99000000"))
    assert engine.futures_balance("ann").locked == 0


def test_time_in_force() -> None:
    engine = new_engine()
    post = trade(engine, limit_order(Side.BUY, "0.1", "50100", force=Force.POST_ONLY))
    assert (post.status, post.cancel_reason) == (OrderStatus.CANCELED, CancelReason.WOULD_TAKE)
    ioc = trade(engine, limit_order(Side.BUY, "0.1", "49900", force=Force.IOC))
    assert (ioc.status, ioc.filled_size) == (OrderStatus.CANCELED, D(0))
    depth = sum(size for price, size in engine.depth("BTCUSDT").asks if price <= D("50001"))
    rich = new_engine(usdt="100000000")
    more = str(depth + D("1.0000"))
    fok = trade(rich, limit_order(Side.BUY, more, "50001", force=Force.FOK))
    assert (fok.status, fok.filled_size) == (OrderStatus.CANCELED, D(0))
    part = trade(rich, limit_order(Side.BUY, more, "50001", force=Force.IOC))
    assert (part.status, part.filled_size) == (OrderStatus.CANCELED, depth)


def test_B1_a_large_limit_order_fills_in_parts() -> None:
    market = ScriptedMarket()
    engine = new_engine(market, usdt="100000000")
    depth = sum(size for price, size in engine.depth("BTCUSDT").asks if price <= D("50001"))
    order = trade(engine, limit_order(Side.BUY, str(depth + D("1.0000")), "50001"))
    assert (order.status, order.filled_size) == (OrderStatus.PARTIALLY_FILLED, depth)
    engine.advance_to(START_MS + 20_000)
    assert state(order) == OrderStatus.FILLED


def test_large_orders_slip_and_slicing_does_not_help() -> None:
    rich = new_engine(usdt="100000000")
    whole = trade(rich, market_order(Side.BUY, "60"))
    assert whole.average_price is not None
    assert whole.average_price > D("50001")
    sliced = new_engine(usdt="100000000")
    parts = [sliced.place_order("ann", market_order(Side.BUY, "20")) for _ in range(3)]
    settle(sliced, parts[-1])
    assert sum(part.filled_cost for part in parts) == whole.filled_cost


def test_A30_A31_cancel_is_immediate_and_says_when_it_is_too_late() -> None:
    engine = new_engine()
    order = engine.place_order("ann", limit_order(Side.BUY, "0.1", "49500", client_id="c-1"))
    engine.cancel_order("ann", client_id="c-1")
    assert state(order) == OrderStatus.CANCELED
    assert engine.futures_balance("ann").locked == 0
    with pytest.raises(EngineRejected) as done:
        engine.cancel_order("ann", order_id=order.order_id)
    assert done.value.reason is RejectReason.CANCEL_REPEATED  # within a second
    engine.advance_to(START_MS + 2000)
    with pytest.raises(EngineRejected) as later:
        engine.cancel_order("ann", order_id=order.order_id)
    assert later.value.reason is RejectReason.ORDER_DONE
    with pytest.raises(EngineRejected) as unknown:
        engine.cancel_order("ann", order_id="17")
    assert unknown.value.reason is RejectReason.ORDER_UNKNOWN
    engine.advance_to(START_MS + MINUTE)
    assert engine.positions("ann") == []


def test_modify_makes_a_new_order_and_a_refused_one_keeps_the_old() -> None:
    engine = new_engine()
    old = trade(engine, limit_order(Side.BUY, "0.1", "49500"))
    with pytest.raises(EngineRejected) as refusal:
        engine.modify_order(
            "ann",
            ModifyOrderCommand(new_client_id="m-1", new_size=D("9"), new_price=D("49600")),
            order_id=old.order_id,
        )
    assert refusal.value.reason is RejectReason.INSUFFICIENT_MARGIN
    assert state(old) == OrderStatus.LIVE
    new = engine.modify_order(
        "ann",
        ModifyOrderCommand(new_client_id="m-1", new_size=D("0.2"), new_price=D("49600")),
        order_id=old.order_id,
    )
    assert state(old) == OrderStatus.CANCELED
    assert (new.size, new.price, new.client_id) == (D("0.2"), D("49600"), "m-1")


def test_hedge_mode_holds_both_sides_and_closes_with_the_positions_side() -> None:
    engine = new_engine(mode=PositionMode.HEDGE)
    trade(engine, market_order(Side.BUY, "0.2", trade_side=TradeSide.OPEN))
    trade(engine, market_order(Side.SELL, "0.1", trade_side=TradeSide.OPEN, reduce_only=True))
    assert [view.position.side for view in engine.positions("ann")] == [
        PositionSide.LONG,
        PositionSide.SHORT,
    ]
    close = trade(engine, market_order(Side.BUY, "0.2", trade_side=TradeSide.CLOSE))
    assert (close.direction, close.position_side) == (-1, PositionSide.LONG)
    assert [view.position.side for view in engine.positions("ann")] == [PositionSide.SHORT]
    assert refused(engine, market_order(Side.BUY, "0.1")) is RejectReason.MODE_MISMATCH
    too_large = market_order(Side.SELL, "0.2", trade_side=TradeSide.CLOSE)
    assert refused(engine, too_large) is RejectReason.CLOSE_TOO_LARGE
    assert [bill.business_type for bill in engine.bills("ann")[1:]] == [
        "open_long",
        "open_short",
        "close_long",
    ]


def test_hedge_market_close_takes_what_a_resting_close_leaves() -> None:
    engine = new_engine(mode=PositionMode.HEDGE)
    trade(engine, market_order(Side.BUY, "0.2", trade_side=TradeSide.OPEN))
    resting = trade(engine, limit_order(Side.BUY, "0.15", "51000", trade_side=TradeSide.CLOSE))
    close = trade(engine, market_order(Side.BUY, "0.2", trade_side=TradeSide.CLOSE))
    assert close.filled_size == D("0.05")
    assert state(resting) == OrderStatus.LIVE
    again = trade(engine, market_order(Side.BUY, "0.15", trade_side=TradeSide.CLOSE))
    assert again.filled_size == D("0.15")
    assert state(resting) == OrderStatus.CANCELED
    assert engine.positions("ann") == []


def test_hedged_legs_keep_the_larger_ones_requirement_only() -> None:
    engine = new_engine(mode=PositionMode.HEDGE)
    trade(engine, market_order(Side.BUY, "0.2", trade_side=TradeSide.OPEN))
    alone = engine.futures_balance("ann").maintenance
    trade(engine, market_order(Side.SELL, "0.2", trade_side=TradeSide.OPEN))
    assert engine.futures_balance("ann").maintenance == alone
    long, short = engine.positions("ann")
    assert long.liquidation_price == short.liquidation_price
    equity = engine.futures_balance("ann").equity
    assert long.liquidation_price == equity / (D("0.2") * D("0.0046"))


def test_leverage_rules() -> None:
    engine = new_engine()
    engine.set_leverage("ann", "BTCUSDT", D(3))
    assert engine.leverage("ann", "BTCUSDT").crossed == D(3)
    engine.set_leverage("ann", "BTCUSDT", D(3))
    for leverage, reason in (
        ("126", RejectReason.LEVERAGE_TOO_HIGH),
        ("0", RejectReason.LEVERAGE_OUT_OF_RANGE),
        ("2.5", RejectReason.LEVERAGE_OUT_OF_RANGE),
    ):
        with pytest.raises(EngineRejected) as caught:
            engine.set_leverage("ann", "BTCUSDT", D(leverage))
        assert caught.value.reason is reason
    engine.place_order("ann", limit_order(Side.BUY, "0.1", "49500"))
    with pytest.raises(EngineRejected) as busy:
        engine.set_leverage("ann", "BTCUSDT", D(4))
    assert busy.value.reason is RejectReason.LEVERAGE_OPEN_ORDERS
    engine.cancel_all("ann")
    trade(engine, market_order(Side.BUY, "0.1"))
    engine.set_leverage("ann", "BTCUSDT", D(5))
    assert position(engine).margin_size == D(1000)


def test_A21_modes_change_only_while_idle() -> None:
    engine = new_engine()
    assert engine.set_position_mode("ann", PositionMode.ONE_WAY) is PositionMode.ONE_WAY
    engine.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
    trade(engine, market_order(Side.BUY, "0.1"))
    with pytest.raises(EngineRejected) as margin:
        engine.set_margin_mode("ann", "BTCUSDT", MarginMode.CROSSED)
    assert margin.value.reason is RejectReason.MARGIN_MODE_BUSY
    with pytest.raises(EngineRejected) as mode:
        engine.set_position_mode("ann", PositionMode.HEDGE)
    assert mode.value.reason is RejectReason.POSITION_MODE_BUSY
    mismatch = market_order(Side.BUY, "0.1", margin_mode=MarginMode.CROSSED)
    assert refused(engine, mismatch) is RejectReason.MARGIN_MODE_MISMATCH
    settle(engine, engine.close_positions("ann")[0])
    engine.set_position_mode("ann", PositionMode.HEDGE)
    engine.set_margin_mode("ann", "BTCUSDT", MarginMode.CROSSED)


def test_isolated_margin_is_set_aside_and_released() -> None:
    engine = new_engine()
    engine.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
    engine.set_leverage("ann", "BTCUSDT", D(10))
    trade(engine, market_order(Side.BUY, "0.1"))
    balance = engine.futures_balance("ann")
    assert balance.isolated_margin == D("500.01")
    view = position(engine)
    wanted = (D("500.01") - D("0.1") * D("50001")) / (D("0.1") * (D("0.0046") - 1))
    assert view.liquidation_price == wanted
    trade(engine, market_order(Side.SELL, "0.05", reduce_only=True))
    assert engine.futures_balance("ann").isolated_margin == D("250.005")
