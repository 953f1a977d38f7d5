"""Stops and plans of the paper exchange: attached, moved, fired, gone with their position."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import OrderRecord, PlanRecord
from module.simulator.engine.engine_types import (
    EngineRejected,
    EngineSettings,
    FuturesOrderCommand,
    HoldSide,
    ModifyOrderCommand,
    ModifyPlanCommand,
    OrderSource,
    OrderStatus,
    OrderType,
    PlanOrderCommand,
    PlanStatus,
    PlanType,
    PositionMode,
    PositionSide,
    PositionStopCommand,
    PresetStop,
    RejectReason,
    Side,
    TradeSide,
    TriggerType,
)
from module.simulator.prices.market_source import PriceKind
from tests.fakes.scripted_market import START_MS, ScriptedMarket

D = Decimal
MINUTE = 60_000


def state(item: OrderRecord | PlanRecord) -> str:
    """What it is now (a call, so that a type checker does not remember the answer)."""
    return item.status.value


def new_engine(
    market: ScriptedMarket | None = None, mode: PositionMode = PositionMode.ONE_WAY
) -> Engine:
    engine = Engine(market or ScriptedMarket(), EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(10000), position_mode=mode)
    return engine


def trade(
    engine: Engine,
    side: Side,
    size: str,
    *,
    loss: str | None = None,
    profit: str | None = None,
    trade_side: TradeSide | None = None,
) -> OrderRecord:
    order = engine.place_order(
        "ann",
        FuturesOrderCommand(
            "BTCUSDT",
            side,
            OrderType.MARKET,
            D(size),
            trade_side=trade_side,
            stop_loss=PresetStop(D(loss)) if loss else None,
            take_profit=PresetStop(D(profit)) if profit else None,
        ),
    )
    engine.advance_to(order.arrives_ms)
    return order


def stop(
    plan_type: PlanType, hold_side: HoldSide, trigger: str, size: str | None = None
) -> PositionStopCommand:
    return PositionStopCommand(
        "BTCUSDT", plan_type, hold_side, D(trigger), size=D(size) if size else None
    )


def triggers(engine: Engine) -> dict[PlanType, Decimal]:
    return {plan.plan_type: plan.trigger_price for plan in engine.plans("ann")}


def test_attached_stops_become_the_positions_on_fill() -> None:
    engine = new_engine()
    order = trade(engine, Side.BUY, "0.1", loss="49000", profit="52000")
    assert order.stop_loss is not None
    view = engine.positions("ann")[0]
    assert view.stop_loss is not None
    assert view.take_profit is not None
    assert view.stop_loss.trigger_price == D(49000)
    shown = view.stop_loss
    assert (shown.side, shown.position_side, shown.trade_side, shown.size) == (
        Side.SELL,
        PositionSide.NET,
        None,
        None,
    )


def test_a_cancelled_order_takes_its_attached_stops_along() -> None:
    engine = new_engine()
    order = engine.place_order(
        "ann",
        FuturesOrderCommand(
            "BTCUSDT",
            Side.BUY,
            OrderType.LIMIT,
            D("0.1"),
            D(49500),
            stop_loss=PresetStop(D(49000)),
        ),
    )
    engine.modify_order(
        "ann", ModifyOrderCommand(new_stop_loss=PresetStop(D(48900))), order_id=order.order_id
    )
    assert order.stop_loss == PresetStop(D(48900))
    engine.cancel_order("ann", order_id=order.order_id)
    engine.advance_to(START_MS + MINUTE)
    assert engine.plans("ann") == []


def test_placing_again_moves_the_stop_and_keeps_its_id() -> None:
    engine = new_engine()
    trade(engine, Side.BUY, "0.1", loss="49000")
    [first] = engine.plans("ann")
    again = engine.place_position_stop("ann", stop(PlanType.POS_LOSS, HoldSide.BUY, "49500"))
    assert again.plan_id == first.plan_id
    assert triggers(engine) == {PlanType.POS_LOSS: D(49500)}
    trade(engine, Side.BUY, "0.1", loss="49700")
    assert [plan.plan_id for plan in engine.plans("ann")] == [first.plan_id]
    assert triggers(engine) == {PlanType.POS_LOSS: D(49700)}


def test_B6_a_stop_on_the_wrong_side_is_refused_and_the_old_one_stays() -> None:
    engine = new_engine()
    trade(engine, Side.BUY, "0.1", loss="49000")
    for kind, trigger, reason in (
        (PlanType.POS_LOSS, "50000", RejectReason.STOP_LOSS_LONG),
        (PlanType.POS_PROFIT, "50000", RejectReason.STOP_TAKE_PROFIT_LONG),
        (PlanType.POS_LOSS, "49000.05", RejectReason.PRICE_STEP),
    ):
        with pytest.raises(EngineRejected) as caught:
            engine.place_position_stop("ann", stop(kind, HoldSide.BUY, trigger))
        assert caught.value.reason is reason
    assert triggers(engine) == {PlanType.POS_LOSS: D(49000)}


@pytest.mark.parametrize(
    ("side", "loss", "profit", "reason"),
    [
        (Side.BUY, "50000", None, RejectReason.PRESET_STOP_LOSS_LONG),
        (Side.BUY, None, "49999", RejectReason.PRESET_TAKE_PROFIT_LONG),
        (Side.SELL, "49999", None, RejectReason.PRESET_STOP_LOSS_SHORT),
        (Side.SELL, None, "50000", RejectReason.PRESET_TAKE_PROFIT_SHORT),
    ],
)
def test_attached_stops_on_the_wrong_side_refuse_the_order(
    side: Side, loss: str | None, profit: str | None, reason: RejectReason
) -> None:
    engine = new_engine()
    with pytest.raises(EngineRejected) as caught:
        trade(engine, side, "0.1", loss=loss, profit=profit)
    assert caught.value.reason is reason
    assert engine.all_orders("ann") == []


def test_hold_side_words_follow_the_position_mode() -> None:
    one_way = new_engine()
    trade(one_way, Side.BUY, "0.1")
    with pytest.raises(EngineRejected) as wrong:
        one_way.place_position_stop("ann", stop(PlanType.POS_LOSS, HoldSide.LONG, "49000"))
    assert wrong.value.reason is RejectReason.HOLD_SIDE_INVALID
    with pytest.raises(EngineRejected) as nothing:
        one_way.place_position_stop("ann", stop(PlanType.POS_LOSS, HoldSide.SELL, "51000"))
    assert nothing.value.reason is RejectReason.NO_POSITION
    hedge = new_engine(mode=PositionMode.HEDGE)
    trade(hedge, Side.SELL, "0.1", trade_side=TradeSide.OPEN)
    plan = hedge.place_position_stop("ann", stop(PlanType.POS_LOSS, HoldSide.SHORT, "51000"))
    assert (plan.side, plan.position_side, plan.trade_side) == (
        Side.SELL,
        PositionSide.SHORT,
        TradeSide.CLOSE,
    )


@pytest.mark.parametrize(
    ("side", "loss", "profit", "bar", "source"),
    [
        (Side.BUY, "49000", "52000", "50000 50100 48900 49500", OrderSource.POS_LOSS_MARKET),
        (Side.BUY, "49000", "52000", "50000 52100 49100 52000", OrderSource.POS_PROFIT_MARKET),
        (Side.SELL, "51000", "48000", "50000 51100 49900 50500", OrderSource.POS_LOSS_MARKET),
        (Side.SELL, "51000", "48000", "50000 50900 47900 48500", OrderSource.POS_PROFIT_MARKET),
    ],
)
def test_a_stop_fires_and_closes_the_whole_position(
    side: Side, loss: str, profit: str, bar: str, source: OrderSource
) -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, bar)
    engine = new_engine(market)
    trade(engine, side, "0.1", loss=loss, profit=profit)
    trade(engine, side, "0.1")
    engine.advance_to(START_MS + 2 * MINUTE)
    assert engine.positions("ann") == []
    assert engine.plans("ann") == []
    closing = engine.order_history("ann")[-1]
    assert (closing.source, closing.filled_size) == (source, D("0.2"))
    by_status = {plan.status: plan for plan in engine.plan_history("ann")}
    executed = by_status[PlanStatus.EXECUTED]
    assert closing.client_id == executed.plan_id
    assert executed.execute_order_id == closing.order_id
    assert PlanStatus.CANCELLED in by_status  # the other one went with the position


def test_B8_stops_are_gone_after_a_close_and_cannot_open_a_position() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "48000")
    engine = new_engine(market)
    trade(engine, Side.BUY, "0.1", loss="49000", profit="52000")
    trade(engine, Side.SELL, "0.1")
    assert engine.plans("ann") == []
    engine.advance_to(START_MS + 3 * MINUTE)
    assert engine.positions("ann") == []


def test_a_stop_that_races_a_manual_close_does_not_turn_the_position() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "48000")
    engine = new_engine(market)
    trade(engine, Side.BUY, "0.1", loss="49000")
    engine.advance_to(START_MS + MINUTE - 30)
    engine.close_positions("ann")
    engine.advance_to(START_MS + 2 * MINUTE)
    assert engine.positions("ann") == []
    assert engine.position_history("ann")[0].close_total == D("0.1")


def test_flip_drops_the_old_sides_stops_and_takes_the_new_ones() -> None:
    engine = new_engine()
    trade(engine, Side.BUY, "0.1", loss="49000")
    trade(engine, Side.SELL, "0.3", loss="51000")
    [plan] = engine.plans("ann")
    assert (plan.protects, plan.trigger_price) == (PositionSide.SHORT, D(51000))


def test_partial_stops_take_their_part() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 51500 49900 51000")
    engine = new_engine(market)
    trade(engine, Side.BUY, "0.2")
    with pytest.raises(EngineRejected) as too_large:
        engine.place_position_stop("ann", stop(PlanType.PROFIT_PLAN, HoldSide.BUY, "51000", "0.3"))
    assert too_large.value.reason is RejectReason.STOP_SIZE_TOO_LARGE
    engine.place_position_stop("ann", stop(PlanType.PROFIT_PLAN, HoldSide.BUY, "51000", "0.05"))
    engine.advance_to(START_MS + 2 * MINUTE)
    assert engine.positions("ann")[0].position.size == D("0.15")
    assert engine.order_history("ann")[-1].source is OrderSource.PROFIT_MARKET


def test_modify_and_cancel_a_stop() -> None:
    engine = new_engine()
    trade(engine, Side.BUY, "0.1", loss="49000")
    [plan] = engine.plans("ann")
    engine.modify_plan("ann", ModifyPlanCommand(new_trigger_price=D(49200)), plan_id=plan.plan_id)
    assert plan.trigger_price == D(49200)
    engine.cancel_plan("ann", client_id=plan.client_id)
    assert engine.plans("ann") == []
    with pytest.raises(EngineRejected) as gone:
        engine.cancel_plan("ann", plan_id=plan.plan_id)
    assert gone.value.reason is RejectReason.PLAN_UNKNOWN
    assert engine.positions("ann")[0].stop_loss is None


def plan_order(
    engine: Engine, trigger: str, *, size: str = "0.1", callback: str | None = None
) -> PlanRecord:
    return engine.place_plan_order(
        "ann",
        PlanOrderCommand(
            FuturesOrderCommand(
                "BTCUSDT",
                Side.BUY,
                OrderType.MARKET,
                D(size),
                stop_loss=PresetStop(D(40000)),
                client_id=f"plan-{trigger}-{D(size) * 10:f}".replace(".", "_"),
            ),
            D(trigger),
            plan_type=PlanType.TRACK_PLAN if callback else PlanType.NORMAL_PLAN,
            callback_ratio=D(callback) if callback else None,
        ),
    )


def test_a_plan_order_is_placed_when_the_price_comes() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 50000 49000 49500")
    engine = new_engine(market)
    plan = plan_order(engine, "49500")
    too_large = plan_order(engine, "49400", size="50")
    engine.advance_to(START_MS + 2 * MINUTE)
    assert state(plan) == PlanStatus.EXECUTED
    assert engine.order("ann", client_id=plan.plan_id).status is OrderStatus.FILLED
    assert triggers(engine) == {PlanType.POS_LOSS: D(40000)}
    assert state(too_large) == PlanStatus.FAIL_EXECUTE
    assert "insufficient_margin" in too_large.fail_reason


def test_a_track_plan_buys_on_the_way_back_up() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 50000 48000 48000")
    market.bar_at("BTCUSDT", 2, "48000 48400 48000 48400")
    market.bar_at("BTCUSDT", 3, "48400 48600 48400 48600")
    engine = new_engine(market)
    plan = plan_order(engine, "49000", callback="0.01")
    engine.advance_to(START_MS + 3 * MINUTE)
    assert state(plan) == PlanStatus.LIVE
    engine.advance_to(START_MS + 4 * MINUTE)
    assert state(plan) == PlanStatus.EXECUTED
    assert engine.positions("ann")[0].position.entry_price >= D(48480)


def test_nothing_fires_in_a_gap_of_the_data() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 2, "48000")
    market.gaps.add(("BTCUSDT", 1))
    engine = new_engine(market)
    trade(engine, Side.BUY, "0.1", loss="49000")
    engine.advance_to(START_MS + 2 * MINUTE - 1)
    assert len(engine.positions("ann")) == 1
    engine.advance_to(START_MS + 3 * MINUTE)
    assert engine.positions("ann") == []


def test_a_price_jump_acts_at_once() -> None:
    engine = new_engine()
    trade(engine, Side.BUY, "0.1", loss="49000")
    engine.advance_to(START_MS + 7_000)
    assert engine.jump_price("BTCUSDT", D("0.9")) == D(45000)
    engine.advance_to(START_MS + 7_050)
    assert engine.positions("ann") == []
    engine.advance_to(START_MS + 2 * MINUTE)
    forming, jumped = engine.candles("BTCUSDT", MINUTE, limit=3)[-1], None
    jumped = engine.candles("BTCUSDT", MINUTE, limit=3)[0]
    assert (jumped.open, jumped.high, jumped.low, jumped.close) == (
        D(50000),
        D(50000),
        D(45000),
        D(45000),
    )
    assert forming.close == D(45000)
    merged = engine.candles("BTCUSDT", 5 * MINUTE, limit=1)[0]
    assert (merged.high, merged.close) == (D(50000), D(45000))


def test_B15_a_stop_whose_order_finds_nothing_to_trade_with_has_failed() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 50000 48900 48900")
    market.last_minute = 1  # the contract ends before the order reaches the book
    engine = Engine(market, EngineSettings(latency_ms=58_000), START_MS)
    engine.open_account("ann", futures_usdt=D(10000))
    trade(engine, Side.BUY, "0.1")
    plan = engine.place_position_stop("ann", stop(PlanType.POS_LOSS, HoldSide.BUY, "48950"))
    engine.advance_to(START_MS + 4 * MINUTE)
    assert (state(plan), bool(plan.fail_reason)) == (PlanStatus.FAIL_EXECUTE, True)
    assert engine.order("ann", client_id=plan.plan_id).filled_size == 0


def test_a_triggered_order_that_a_person_cancels_is_no_failure_of_its_plan() -> None:
    market = ScriptedMarket()
    market.flat_from("BTCUSDT", 1, "48900")
    engine = new_engine(market)
    trade(engine, Side.BUY, "0.1")
    plan = engine.place_position_stop("ann", stop(PlanType.POS_LOSS, HoldSide.BUY, "48950"))
    engine.advance_to(START_MS + MINUTE)
    engine.cancel_order("ann", client_id=plan.plan_id)
    assert state(plan) == PlanStatus.EXECUTED


def moving(trigger: str, callback: str | None, size: str = "0.1") -> PositionStopCommand:
    return PositionStopCommand(
        "BTCUSDT",
        PlanType.MOVING_PLAN,
        HoldSide.BUY,
        D(trigger),
        size=D(size),
        callback_ratio=D(callback) if callback else None,
    )


def test_a_moving_plan_follows_a_long_up_and_closes_on_the_way_down() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 1, "50000 50900 49500 50900")
    market.bar_at("BTCUSDT", 2, "50900 52000 50900 52000")
    market.bar_at("BTCUSDT", 3, "52000 52000 51500 51500")
    market.bar_at("BTCUSDT", 4, "51500 51500 51000 51000")
    engine = new_engine(market)
    trade(engine, Side.BUY, "0.1")
    for command, reason in (
        (moving("51000", None), RejectReason.PARAMETER_MISSING),
        (moving("51000", "0.2"), RejectReason.VALUE_INVALID),
        (moving("49000", "0.01"), RejectReason.STOP_TAKE_PROFIT_LONG),
    ):
        with pytest.raises(EngineRejected) as refused:
            engine.place_position_stop("ann", command)
        assert refused.value.reason is reason
    plan = engine.place_position_stop("ann", moving("51000", "0.015"))
    engine.advance_to(START_MS + 4 * MINUTE - 1)
    assert (state(plan), plan.best_price) == (PlanStatus.LIVE, D(52000))
    engine.advance_to(START_MS + 5 * MINUTE)  # 52000 x 0.985 = 51220
    assert state(plan) == PlanStatus.EXECUTED
    assert engine.positions("ann") == []
    [closing] = [order for order in engine.order_history("ann") if order.plan_id == plan.plan_id]
    assert closing.source is OrderSource.TRACK_MARKET
    assert closing.average_price is not None
    assert D(51000) <= closing.average_price <= D(51220)


def test_two_stops_at_once_are_both_placed_or_neither() -> None:
    engine = new_engine()
    trade(engine, Side.BUY, "0.1")
    right = stop(PlanType.POS_PROFIT, HoldSide.BUY, "52000")
    with pytest.raises(EngineRejected) as refused:
        engine.place_position_stops("ann", [right, stop(PlanType.POS_LOSS, HoldSide.BUY, "51000")])
    assert refused.value.reason is RejectReason.STOP_LOSS_LONG
    assert engine.plans("ann") == []
    placed = engine.place_position_stops(
        "ann", [right, stop(PlanType.POS_LOSS, HoldSide.BUY, "49000")]
    )
    assert [plan.plan_type for plan in placed] == [PlanType.POS_PROFIT, PlanType.POS_LOSS]


def test_B14_a_stop_on_the_mark_does_not_fire_though_last_crosses() -> None:
    engine = new_engine()
    trade(engine, Side.BUY, "0.1")
    command = stop(PlanType.LOSS_PLAN, HoldSide.BUY, "49900", "0.05")
    on_mark = engine.place_position_stop(
        "ann", replace(command, trigger_type=TriggerType.MARK_PRICE)
    )
    on_last = engine.place_position_stop("ann", command)
    engine.advance_to(START_MS + 7_000)
    engine.jump_price("BTCUSDT", D("0.99"), frozenset({PriceKind.LAST}))
    engine.advance_to(START_MS + 8_000)
    assert (state(on_last), state(on_mark)) == (PlanStatus.EXECUTED, PlanStatus.LIVE)
    engine.jump_price("BTCUSDT", D("0.99"), frozenset({PriceKind.MARK}))
    engine.advance_to(START_MS + 9_000)
    assert state(on_mark) == PlanStatus.EXECUTED
