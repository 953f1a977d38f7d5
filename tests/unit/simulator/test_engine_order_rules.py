"""Rules of orders, margin and transfers that no other file tells: inside the engine."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import OrderRecord
from module.simulator.engine.engine_types import (
    CancelReason,
    EngineRejected,
    EngineSettings,
    Force,
    FuturesOrderCommand,
    MarginMode,
    MarketType,
    ModifyOrderCommand,
    OrderSource,
    OrderType,
    PositionMode,
    PositionSide,
    PresetStop,
    RejectReason,
    Side,
    StpMode,
    TradeSide,
)
from tests.fakes.scripted_market import START_MS, ScriptedMarket

D = Decimal
MINUTE = 60_000


def state(item: OrderRecord) -> str:
    """What it is now (a call, so that a type checker does not remember the answer)."""
    return item.status.value


def new_engine(
    mode: PositionMode = PositionMode.ONE_WAY,
    *,
    money: str = "10000",
    market: ScriptedMarket | None = None,
    settings: EngineSettings | None = None,
) -> Engine:
    engine = Engine(market or ScriptedMarket(), settings or EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(money), position_mode=mode)
    return engine


def market_order(side: Side, size: str, symbol: str = "BTCUSDT") -> FuturesOrderCommand:
    return FuturesOrderCommand(symbol, side, OrderType.MARKET, D(size))


def limit_order(side: Side, size: str, price: str) -> FuturesOrderCommand:
    return FuturesOrderCommand("BTCUSDT", side, OrderType.LIMIT, D(size), D(price))


def filled(engine: Engine, command: FuturesOrderCommand) -> OrderRecord:
    order = engine.place_order("ann", command)
    engine.advance_to(order.arrives_ms)
    return order


def reason_of(call: object) -> RejectReason:
    assert callable(call)
    with pytest.raises(EngineRejected) as caught:
        call()
    return caught.value.reason


# -- self-trade prevention --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "resting", "arriving"),
    [
        (StpMode.NONE, "live", "filled"),
        (StpMode.CANCEL_TAKER, "live", "canceled"),
        (StpMode.CANCEL_MAKER, "canceled", "filled"),
        (StpMode.CANCEL_BOTH, "canceled", "canceled"),
    ],
)
def test_an_order_that_meets_its_own_accounts_order(
    mode: StpMode, resting: str, arriving: str
) -> None:
    engine = new_engine()
    engine.open_account("bob", futures_usdt=D(10000))
    maker = filled(engine, replace(limit_order(Side.SELL, "0.1", "50001"), force=Force.POST_ONLY))
    other = engine.place_order("bob", limit_order(Side.SELL, "0.1", "50001"))
    taker = filled(engine, replace(market_order(Side.BUY, "0.1"), stp_mode=mode))
    assert (state(maker), state(taker)) == (resting, arriving)
    assert state(other) != "canceled"  # another account's order is no concern
    for order in (maker, taker):
        expected = CancelReason.SELF_TRADE if state(order) == "canceled" else CancelReason.NONE
        assert order.cancel_reason is expected
    engine.ledger.audit()


def test_self_trade_prevention_looks_only_as_far_as_the_order_reaches() -> None:
    engine = new_engine()
    maker = filled(engine, limit_order(Side.SELL, "0.1", "50400"))
    taker = filled(engine, replace(market_order(Side.BUY, "0.1"), stp_mode=StpMode.CANCEL_BOTH))
    assert (state(maker), state(taker)) == ("live", "filled")


# -- limits -----------------------------------------------------------------------------------


def test_orders_of_all_contracts_and_positions_are_counted() -> None:
    settings = EngineSettings(product_orders_max=2, positions_max=1)
    engine = new_engine(settings=settings)
    filled(engine, market_order(Side.BUY, "0.01"))
    second = market_order(Side.BUY, "0.1", "ETHUSDT")
    assert reason_of(lambda: engine.place_order("ann", second)) is RejectReason.TOO_MANY_POSITIONS
    filled(engine, market_order(Side.BUY, "0.01"))  # more of the same position is no new one
    for price in ("49000", "49001"):
        engine.place_order("ann", limit_order(Side.BUY, "0.01", price))
    third = limit_order(Side.BUY, "0.01", "49002")
    assert reason_of(lambda: engine.place_order("ann", third)) is RejectReason.TOO_MANY_ORDERS
    engine.close_positions("ann")  # closing is always possible
    engine.advance_to(START_MS + MINUTE)
    assert engine.positions("ann") == []


# -- cancel and modify ------------------------------------------------------------------------


def test_a_second_cancel_is_told_apart_from_one_that_comes_late() -> None:
    engine = new_engine()
    order = filled(engine, limit_order(Side.BUY, "0.01", "49000"))
    engine.cancel_order("ann", order_id=order.order_id)

    def again() -> object:
        return engine.cancel_order("ann", order_id=order.order_id)

    assert reason_of(again) is RejectReason.CANCEL_REPEATED
    engine.advance_to(engine.now_ms + 1000)
    assert reason_of(again) is RejectReason.ORDER_DONE


def test_a_change_of_price_ends_the_old_order_and_keeps_its_words() -> None:
    engine = new_engine()
    command = replace(
        limit_order(Side.BUY, "0.01", "49000"),
        force=Force.POST_ONLY,
        stp_mode=StpMode.CANCEL_MAKER,
        stop_loss=PresetStop(D(48000)),
        client_id="old",
    )
    order = filled(engine, command)
    wish = ModifyOrderCommand(new_client_id="new", new_size=D("0.02"), new_price=D(49100))
    new = engine.modify_order("ann", wish, client_id="old")
    assert (state(order), order.cancel_reason) == ("canceled", CancelReason.MODIFIED)
    assert (new.force, new.stp_mode, new.stop_loss) == (
        Force.POST_ONLY,
        StpMode.CANCEL_MAKER,
        PresetStop(D(48000)),
    )
    engine.modify_order("ann", ModifyOrderCommand(new_stop_loss=PresetStop(D(0))), client_id="new")
    assert new.stop_loss is None
    assert [item.client_id for item in engine.open_orders("ann")] == ["new"]


def test_the_margin_of_the_old_order_counts_for_its_replacement() -> None:
    engine = new_engine(money="1000")
    order = filled(engine, limit_order(Side.BUY, "0.35", "49000"))
    assert order.locked > 800
    wish = ModifyOrderCommand(new_client_id="n", new_size=D("0.38"), new_price=D(49000))
    new = engine.modify_order("ann", wish, order_id=order.order_id)
    assert new.locked > order.locked
    larger = ModifyOrderCommand(new_client_id="m", new_size=D("0.5"), new_price=D(49000))

    def grow() -> object:
        return engine.modify_order("ann", larger, order_id=new.order_id)

    assert reason_of(grow) is RejectReason.INSUFFICIENT_MARGIN
    assert [item.order_id for item in engine.open_orders("ann")] == [new.order_id]


# -- reverse ----------------------------------------------------------------------------------


def test_a_reversed_position_is_as_large_on_the_other_side() -> None:
    engine = new_engine()
    filled(engine, market_order(Side.SELL, "0.1"))
    order = engine.reverse_position("ann", "BTCUSDT", client_id="turn")
    engine.advance_to(order.arrives_ms)
    [view] = engine.positions("ann")
    assert (view.position.side, view.position.size) == (PositionSide.LONG, D("0.1"))
    assert (order.source, order.client_id) == (OrderSource.REVERSE, "turn")
    assert engine.position_history("ann")[0].close_total == D("0.1")
    engine.ledger.audit()


def test_a_full_account_can_still_turn_because_the_close_frees_its_margin() -> None:
    engine = new_engine(PositionMode.HEDGE, money="1000")
    opening = replace(market_order(Side.BUY, "0.36"), trade_side=TradeSide.OPEN)
    filled(engine, opening)
    order = engine.reverse_position("ann", "BTCUSDT", side=Side.BUY)
    engine.advance_to(order.arrives_ms)
    [view] = engine.positions("ann")
    assert (view.position.side, view.position.size) == (PositionSide.SHORT, D("0.36"))


def test_what_may_not_be_opened_stays_closed() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "49000")
    engine = new_engine(money="1000", market=market)
    filled(engine, market_order(Side.BUY, "0.36"))
    engine.advance_to(START_MS + 2 * MINUTE)
    order = engine.reverse_position("ann", "BTCUSDT")
    engine.advance_to(order.arrives_ms)
    assert engine.positions("ann") == []
    assert order.filled_size == D("0.36")


def test_nothing_to_reverse() -> None:
    engine = new_engine(PositionMode.HEDGE)
    filled(engine, replace(market_order(Side.BUY, "0.1"), trade_side=TradeSide.OPEN))
    for side, reason in (
        (Side.SELL, RejectReason.NOTHING_TO_REVERSE),
        (None, RejectReason.PARAMETER_MISSING),
    ):
        found = reason_of(lambda side=side: engine.reverse_position("ann", "BTCUSDT", side=side))
        assert found is reason


# -- margin of isolated positions -------------------------------------------------------------


def test_isolated_margin_goes_in_and_out_without_touching_the_wallet() -> None:
    engine = new_engine()
    engine.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
    filled(engine, market_order(Side.BUY, "0.1"))
    before = engine.futures_balance("ann")
    engine.set_position_margin("ann", "BTCUSDT", PositionSide.LONG, D(100))
    after = engine.futures_balance("ann")
    assert after.wallet == before.wallet
    assert after.available == before.available - 100
    assert after.isolated_margin == before.isolated_margin + 100

    def take(amount: str) -> None:
        engine.set_position_margin("ann", "BTCUSDT", PositionSide.LONG, D(amount))

    assert reason_of(lambda: take("-101")) is RejectReason.MARGIN_REDUCE_TOO_LARGE
    assert reason_of(lambda: take("999999")) is RejectReason.INSUFFICIENT_MARGIN
    take("-99")
    assert engine.futures_balance("ann").isolated_margin == before.isolated_margin + 1


def test_both_leverages_or_neither() -> None:
    engine = new_engine(PositionMode.HEDGE)
    engine.set_margin_mode("ann", "BTCUSDT", MarginMode.ISOLATED)
    both = {PositionSide.LONG: D(7), PositionSide.SHORT: D(500)}
    reason = reason_of(lambda: engine.set_leverages("ann", "BTCUSDT", both))
    assert reason is RejectReason.LEVERAGE_TOO_HIGH
    assert engine.leverage("ann", "BTCUSDT").isolated_long == 20
    view = engine.set_leverages("ann", "BTCUSDT", {**both, PositionSide.SHORT: D(9)})
    assert (view.isolated_long, view.isolated_short) == (D(7), D(9))


# -- transfers --------------------------------------------------------------------------------


def test_a_transfer_moves_money_once_and_never_what_is_used() -> None:
    engine = new_engine()
    filled(engine, market_order(Side.BUY, "0.1"))
    free = engine.futures_balance("ann").available
    both = (MarketType.FUTURES, MarketType.SPOT, "USDT")
    too_much = free + D("0.01")
    reason = reason_of(lambda: engine.transfer("ann", *both, too_much))
    assert reason is RejectReason.INSUFFICIENT_BALANCE
    first = engine.transfer("ann", *both, D(1000), "once")
    assert engine.transfer("ann", *both, D(1000), "once") is first
    assert engine.wallet_balance("ann", MarketType.SPOT, "USDT") == D(1000)
    assert engine.futures_balance("ann").available == free - 1000
    assert [bill.amount for bill in engine.bills("ann", MarketType.SPOT)] == [D(1000)]
    engine.ledger.audit()
