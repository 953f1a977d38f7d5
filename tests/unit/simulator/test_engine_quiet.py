"""Sleeping through quiet time changes nothing: every record is the same, byte for byte."""

from __future__ import annotations

from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import (
    EngineSettings,
    FuturesOrderCommand,
    MarginMode,
    MarketType,
    OrderType,
    PlanOrderCommand,
    PlanType,
    PositionMode,
    PresetStop,
    Side,
    TriggerType,
)
from module.simulator.prices.market_source import DAY_MS, MINUTE_MS
from module.simulator.prices.synthetic import SyntheticMarket
from tests.fakes.scripted_market import START_MS
from tests.unit.simulator.test_engine_properties import Driver, random_operation, sequences

D = Decimal


def every_record(engine: Engine) -> str:
    """All that anybody could ever ask of an engine's past."""
    parts: list[object] = [engine.ledger_dump()]
    for account_id in engine.account_ids():
        for market in MarketType:
            parts += engine.fills(account_id, market=market)
            parts += engine.bills(account_id, market)
            parts += engine.all_orders(account_id, market=market)
        parts += engine.position_history(account_id)
        parts += engine.plan_history(account_id)
        parts += engine.plans(account_id)
        parts += [view.position for view in engine.positions(account_id)]
        parts.append(engine.futures_balance(account_id))
    return "\n".join(str(part) for part in parts)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(PositionMode)), st.booleans(), sequences)
def test_sleeping_is_the_same_as_looking_at_every_point(
    mode: PositionMode, isolated: bool, drawn: list[tuple[object, ...]]
) -> None:
    sleeping, walking = Driver(mode, isolated), Driver(mode, isolated)
    walking.engine._world.sleeps = False
    for operation in [*drawn, ("time", 3_000_000)]:
        sleeping.apply(operation)
        walking.apply(operation)
    assert every_record(sleeping.engine) == every_record(walking.engine)


@pytest.mark.parametrize("seed", range(12))
def test_long_random_worlds_are_the_same(seed: int) -> None:
    random = Random(f"quiet {seed}")
    mode = random.choice(list(PositionMode))
    isolated = random.random() < 0.4
    sleeping, walking = Driver(mode, isolated), Driver(mode, isolated)
    walking.engine._world.sleeps = False
    for _ in range(60):
        operation = random_operation(random)
        sleeping.apply(operation)
        walking.apply(operation)
    assert every_record(sleeping.engine) == every_record(walking.engine)


def one_of_each(engine: Engine, leverage: int) -> None:
    """A hedged book with stops on both prices, resting orders and trigger orders."""
    engine.open_account("ann", futures_usdt=D(3000))
    for number, (symbol, rules) in enumerate(engine.futures_instruments().items()):
        if number % 3 == 2:
            engine.set_margin_mode("ann", symbol, MarginMode.ISOLATED)
        engine.set_leverage("ann", symbol, D(leverage))
        side = Side.SELL if number % 2 else Side.BUY
        last = engine.last_price(symbol)

        def near(percent: int, around: Decimal = last, step: Decimal = rules.price_step) -> Decimal:
            return (around * (100 + percent) / 100 / step).to_integral_value() * step

        size = (D(100 * leverage) / last / rules.size_step).to_integral_value() * rules.size_step
        on_mark = TriggerType.MARK_PRICE if number % 2 else TriggerType.FILL_PRICE
        stop = PresetStop(near(-6 * side.sign), trigger_type=on_mark)
        order = FuturesOrderCommand(
            symbol, side, OrderType.MARKET, size, stop_loss=stop if number % 4 else None
        )
        engine.place_order("ann", order)
        engine.place_order(
            "ann", FuturesOrderCommand(symbol, side, OrderType.LIMIT, size, near(-4 * side.sign))
        )
        engine.place_plan_order(
            "ann",
            PlanOrderCommand(
                FuturesOrderCommand(symbol, side, OrderType.MARKET, size),
                near(5 * side.sign),
                PlanType.TRACK_PLAN if number % 3 == 0 else PlanType.NORMAL_PLAN,
                on_mark,
                D("0.01") if number % 3 == 0 else None,
            ),
        )


@pytest.mark.parametrize("leverage", [2, 20])
def test_a_busy_book_over_hours_is_the_same(leverage: int) -> None:
    worlds = []
    for sleeps in (True, False):
        engine = Engine(SyntheticMarket(29), EngineSettings(), START_MS)
        engine._world.sleeps = sleeps
        one_of_each(engine, leverage)
        engine.advance_to(START_MS + DAY_MS // (2 + leverage))
        worlds.append(every_record(engine))
    assert worlds[0] == worlds[1]


def test_a_quiet_day_is_few_events_and_prices_stay_right() -> None:
    engine = Engine(SyntheticMarket(5), EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(100_000))
    engine.place_order("ann", FuturesOrderCommand("BTCUSDT", Side.BUY, OrderType.MARKET, D("0.1")))
    engine.advance_to(START_MS + MINUTE_MS)
    events = 0
    while (due_ms := engine.next_event_ms()) < START_MS + DAY_MS:
        engine.advance_to(due_ms)
        events += 1
    assert events < 40
    engine.advance_to(START_MS + DAY_MS)
    bar = engine.candles("BTCUSDT", MINUTE_MS, limit=1)[0]
    assert engine.last_price("BTCUSDT") == bar.close
