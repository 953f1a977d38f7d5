"""Futures of the engine and the world they stand in: the walk of prices, gaps, part fills."""

from __future__ import annotations

from decimal import Decimal

from module.simulator.engine.engine_types import (
    CancelReason,
    OrderStatus,
    RejectReason,
    Side,
)
from tests.fakes.scripted_market import START_MS, ScriptedMarket
from tests.unit.simulator.test_engine_futures import (
    MINUTE,
    D,
    limit_order,
    market_order,
    new_engine,
    refused,
    settle,
    state,
    trade,
)


def test_A20_outside_its_data_a_symbol_is_suspended_or_over() -> None:
    market = ScriptedMarket()
    market.gaps.add(("BTCUSDT", 1))
    market.last_minute = 5
    engine = new_engine(market)
    trade(engine, market_order(Side.BUY, "0.1"))
    waiting = None
    engine.advance_to(START_MS + MINUTE - 20)
    waiting = engine.place_order("ann", market_order(Side.BUY, "0.1"))
    engine.advance_to(START_MS + MINUTE + 30_000)
    assert state(waiting) == OrderStatus.LIVE
    assert not engine.is_trading("BTCUSDT")
    assert engine.is_listed("BTCUSDT")
    assert refused(engine, market_order(Side.BUY, "0.1")) is RejectReason.SYMBOL_SUSPENDED
    assert engine.last_price("BTCUSDT") == D(50000)
    engine.advance_to(START_MS + 2 * MINUTE)
    assert state(waiting) == OrderStatus.FILLED
    engine.advance_to(START_MS + 6 * MINUTE - 20)
    late = engine.place_order("ann", market_order(Side.BUY, "0.1"))
    engine.advance_to(START_MS + 7 * MINUTE)
    assert (late.status, late.cancel_reason) == (OrderStatus.CANCELED, CancelReason.SUSPENDED)
    assert not engine.is_listed("BTCUSDT")
    assert refused(engine, market_order(Side.BUY, "0.1")) is RejectReason.SYMBOL_NOT_LISTED


def test_the_extreme_that_hurts_comes_first() -> None:
    for side, first in ((Side.BUY, "49000"), (Side.SELL, "51000")):
        market = ScriptedMarket()
        market.bar_at("BTCUSDT", 1, "50000 51000 49000 50000")
        engine = new_engine(market)
        trade(engine, market_order(side, "0.1"))
        engine.advance_to(START_MS + MINUTE + 15_000)
        assert engine.last_price("BTCUSDT") == D(first)


def test_queries_do_not_move_the_world() -> None:
    asked, silent = new_engine(), new_engine()
    for engine in (asked, silent):
        trade(engine, market_order(Side.BUY, "0.1"))
    for _ in range(3):
        asked.ticker("BTCUSDT")
        asked.depth("BTCUSDT")
        asked.candles("BTCUSDT", MINUTE, limit=5)
        asked.positions("ann")
    asked.advance_to(START_MS + 10 * MINUTE)
    silent.advance_to(START_MS + 10 * MINUTE)
    assert asked.ledger_dump() == silent.ledger_dump()


def test_nothing_happens_by_itself_while_nobody_trades() -> None:
    from module.simulator.engine.engine_types import NEVER_MS

    engine = new_engine()
    assert engine.next_event_ms() == NEVER_MS
    trade(engine, market_order(Side.BUY, "0.1"))
    assert engine.next_event_ms() == START_MS + 5000
    settle(engine, engine.close_positions("ann")[0])
    assert engine.next_event_ms() == NEVER_MS


def test_the_walk_of_a_minute_does_not_depend_on_who_asked_when() -> None:
    """The position opened inside the minute turns the next walk, not the one under way."""
    seen: list[list[Decimal]] = []
    for asks_early in (True, False):
        market = ScriptedMarket()
        market.bar_at("BTCUSDT", 0, "50000 50900 49800 50000")  # the low is nearer: it comes first
        engine = new_engine(market)
        if asks_early:
            engine.ticker("BTCUSDT")
        engine.open_account("bob", futures_usdt=D(10000))
        market_short = market_order(Side.SELL, "0.1")
        engine.place_order("bob", market_short)
        prices = []
        for second in range(1, 60, 5):
            engine.advance_to(START_MS + second * 1000)
            prices.append(engine.last_price("BTCUSDT"))
        seen.append(prices)
    assert seen[0] == seen[1]
    assert seen[0][3] == D(49800)


def test_the_walk_asked_for_only_after_a_trade_is_the_same() -> None:
    """The exposure log answers for the minute's opening also when it is first asked later."""
    engine = new_engine()
    exposure = engine._world.exposure
    minute_ms = START_MS
    trade(engine, market_order(Side.BUY, "0.1"))
    assert exposure.before("BTCUSDT", minute_ms) == 0
    engine.advance_to(START_MS + MINUTE)
    assert exposure.before("BTCUSDT", START_MS + MINUTE) == 1
    settle(engine, engine.close_positions("ann")[0])
    assert exposure.before("BTCUSDT", START_MS + MINUTE) == 1
    engine.advance_to(START_MS + 2 * MINUTE)
    assert exposure.before("BTCUSDT", START_MS + 2 * MINUTE) == 0


def test_a_partial_fill_releases_its_share_of_the_reserve() -> None:
    engine = new_engine(usdt="100000000")
    depth = sum((size for price, size in engine.depth("BTCUSDT").asks if price <= 50001), D(0))
    order = engine.place_order("ann", limit_order(Side.BUY, str(depth * 4), "50001"))
    reserved = order.locked
    settle(engine, order)
    assert order.filled_size == depth
    assert order.locked == reserved * 3 / 4
    assert engine.futures_balance("ann").locked == order.locked
    engine.cancel_all("ann")
    assert engine.futures_balance("ann").locked == 0
