"""The engine of the paper exchange alone, in this process: what backtests run on.

Fills: market orders, buys and sells in turn, each accepted and filled, the ledger checked after
each. Days: a quiet book of 12 positions with stops, simulated; beside it the same engine made to
look at every point of the price grid (what it does without its proofs that nothing can happen), and
a bare loop over the same points that only multiplies a float (the floor of any loop in Python).
Seconds are of this process's CPU, so that a busy machine counts for little.

    python -m benchmarks engine [--orders 6000] [--days 30]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from decimal import ROUND_DOWN, Decimal

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import (
    EngineSettings,
    FuturesOrderCommand,
    OrderType,
    PresetStop,
    Side,
)
from module.simulator.prices.market_source import DAY_MS
from module.simulator.prices.minute_path import POINT_MS
from module.simulator.prices.synthetic import SyntheticMarket

START_MS = 1_767_571_200_000  # 2026-01-05T00:00Z
SEED = 7
POSITIONS = 12
NOTIONAL = Decimal(2_000)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks engine")
    parser.add_argument("--orders", type=int, default=6000)
    parser.add_argument("--days", type=int, default=30)
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    fills = fills_per_second(options.orders)
    print(f"fills: {fills:.0f} market orders per second, accepted, filled and booked")
    fast = days_per_second(options.days, sleeps=True)
    slow = days_per_second(1, sleeps=False)
    bare = bare_days_per_second()
    print(f"days: {fast:.2f} simulated days per second with {POSITIONS} positions with stops")
    print(f"days: {slow:.3f} per second when every point of the grid is looked at")
    print(f"days: {bare:.2f} per second of a bare loop over those points")
    print(f"ratio  ours / every point looked at   {fast / slow:8.1f} x")
    print(f"ratio  ours / a bare loop             {fast / bare:8.2f} x")
    return 0


def fills_per_second(orders: int) -> float:
    """Market orders that are accepted and filled, per second of this process."""
    engine = Engine(SyntheticMarket(SEED), EngineSettings(latency_ms=1), START_MS)
    engine.open_account("bench", futures_usdt=Decimal(1_000_000))
    commands = [
        FuturesOrderCommand("BTCUSDT", side, OrderType.MARKET, Decimal("0.001"))
        for side in (Side.BUY, Side.SELL)
    ]
    for number in range(200):
        _fill(engine, commands[number % 2])
    started = time.process_time()
    for number in range(orders):
        _fill(engine, commands[number % 2])
    elapsed = time.process_time() - started
    filled = len(engine.fills("bench"))
    if filled != orders + 200:
        raise RuntimeError(f"{filled} fills of {orders + 200} orders")
    engine.ledger.audit()
    return orders / elapsed


def _fill(engine: Engine, command: FuturesOrderCommand) -> None:
    order = engine.place_order("bench", command)
    engine.advance_to(order.arrives_ms)


def days_per_second(days: int, *, sleeps: bool) -> float:
    """World days per second with a book of positions that have stops; prices included."""
    engine = open_book(sleeps=sleeps)
    first_ms = engine.now_ms
    started = time.process_time()
    for day in range(1, days + 1):
        engine.advance_to(first_ms + day * DAY_MS)
    elapsed = time.process_time() - started
    engine.ledger.audit()
    return days / elapsed


def open_book(*, sleeps: bool) -> Engine:
    """Twelve positions, long and short in turn, each with a far stop loss and take profit."""
    engine = Engine(SyntheticMarket(SEED), EngineSettings(), START_MS)
    engine._world.sleeps = sleeps
    engine.open_account("bench", futures_usdt=Decimal(1_000_000))
    rules = list(engine.futures_instruments().items())[:POSITIONS]
    for number, (symbol, instrument) in enumerate(rules):
        price = engine.last_price(symbol)
        size = (NOTIONAL / price / instrument.size_step).to_integral_value(ROUND_DOWN)
        step = instrument.price_step
        low, high = (
            (price * factor / step).to_integral_value(ROUND_DOWN) * step
            for factor in (Decimal("0.5"), Decimal("1.5"))
        )
        is_long = number % 2 == 0
        engine.place_order(
            "bench",
            FuturesOrderCommand(
                symbol,
                Side.BUY if is_long else Side.SELL,
                OrderType.MARKET,
                size * instrument.size_step,
                stop_loss=PresetStop(low if is_long else high),
                take_profit=PresetStop(high if is_long else low),
            ),
        )
    engine.advance_to(START_MS + POINT_MS)
    if len(engine.positions("bench")) != len(rules):
        raise RuntimeError("not every position was opened")
    return engine


def bare_days_per_second() -> float:
    """A loop over a day's points of every symbol that multiplies one float each."""
    points = DAY_MS // POINT_MS
    total = 0.0
    started = time.process_time()
    for point in range(points):
        for symbol in range(POSITIONS):
            total += point * 1.0001 * symbol
    return 1 / (time.process_time() - started)


if __name__ == "__main__":
    sys.exit(main())
