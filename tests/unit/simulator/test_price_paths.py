"""The way inside a bar does not flatter: who holds or waits meets the bad end first."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import (
    EngineSettings,
    FuturesOrderCommand,
    HoldSide,
    OrderSource,
    OrderType,
    PlanOrderCommand,
    PlanType,
    PositionStopCommand,
    PresetStop,
    Side,
    TriggerType,
)
from module.simulator.engine.exposure import ExposureLog
from module.simulator.engine.price_feed import PriceFeed, merge_bars
from module.simulator.prices.market_source import HOUR_MS, MINUTE_MS, Bar, PriceKind
from module.simulator.prices.minute_path import expand_hour, part_of_hour
from module.simulator.prices.replay import ReplayMarket
from tests.fakes.scripted_market import START_MS, ScriptedMarket

D = Decimal
BTC = "BTCUSDT"
HOUR_START_MS = START_MS - START_MS % HOUR_MS + HOUR_MS


def engine_of(market: ScriptedMarket) -> Engine:
    engine = Engine(market, EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(100_000))
    return engine


def market_order(
    side: Side, loss: Decimal | None = None, profit: Decimal | None = None
) -> FuturesOrderCommand:
    return FuturesOrderCommand(
        BTC,
        side,
        OrderType.MARKET,
        D("0.1"),
        take_profit=None if profit is None else PresetStop(profit),
        stop_loss=None if loss is None else PresetStop(loss),
    )


def closing_sources(engine: Engine) -> list[OrderSource]:
    return [order.source for order in engine.order_history("ann") if order.closes]


# -- positions ------------------------------------------------------------------------------------

distances = st.integers(1, 2000)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([Side.BUY, Side.SELL]), distances, distances, distances, distances)
def test_with_both_stops_inside_one_bar_the_loss_comes_first(
    side: Side, loss: int, profit: int, beyond_loss: int, beyond_profit: int
) -> None:
    sign = 1 if side is Side.BUY else -1
    stop_loss, take_profit = D(50_000 - sign * (loss + 10)), D(50_000 + sign * (profit + 10))
    worst, best = stop_loss - sign * beyond_loss, take_profit + sign * beyond_profit
    market = ScriptedMarket()
    market.bar_at(BTC, 1, f"50000 {max(worst, best)} {min(worst, best)} 50000")
    engine = engine_of(market)
    engine.place_order("ann", market_order(side, stop_loss, take_profit))
    engine.advance_to(START_MS + 3 * MINUTE_MS)
    assert closing_sources(engine) == [OrderSource.POS_LOSS_MARKET]
    close = engine.fills("ann")[-1]
    assert (close.price - stop_loss) * sign <= 0  # never better than its trigger


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([Side.BUY, Side.SELL]), distances, distances, distances)
def test_a_waiting_order_does_not_get_the_profit_of_the_bar_that_fills_it(
    side: Side, away: int, loss: int, profit: int
) -> None:
    """The stop is reachable after the fill and the bar closes short of the take profit."""
    sign = 1 if side is Side.BUY else -1
    limit = D(50_000 - sign * (away + 10))
    stop_loss, take_profit = limit - sign * (loss + 5), limit + sign * (profit + 5)
    worst, best = stop_loss - sign * 3, max(sign * take_profit, sign * D(50_000)) * sign + sign * 3
    market = ScriptedMarket()
    market.bar_at(BTC, 1, f"50000 {max(worst, best)} {min(worst, best)} {limit}")
    engine = engine_of(market)
    order = FuturesOrderCommand(
        BTC,
        side,
        OrderType.LIMIT,
        D("0.1"),
        price=limit,
        take_profit=PresetStop(take_profit),
        stop_loss=PresetStop(stop_loss),
    )
    engine.place_order("ann", order)
    engine.advance_to(START_MS + 2 * MINUTE_MS - 1)
    assert closing_sources(engine) == [OrderSource.POS_LOSS_MARKET]


def test_a_trigger_order_that_buys_meets_the_low_after_its_purchase() -> None:
    market = ScriptedMarket()
    market.bar_at(BTC, 1, "50000 50500 49000 50000")  # the low is farther, the high comes first
    market.bar_at(BTC, 2, "50000 51500 49500 50000")  # the low is nearer, yet the high comes first
    engine = engine_of(market)
    order = FuturesOrderCommand(
        BTC, Side.BUY, OrderType.MARKET, D("0.1"), stop_loss=PresetStop(D(49600))
    )
    engine.place_plan_order("ann", PlanOrderCommand(order, D(51000)))
    engine.advance_to(START_MS + 3 * MINUTE_MS - 1)
    assert closing_sources(engine) == [OrderSource.POS_LOSS_MARKET]


def test_a_stop_between_two_points_fires_at_the_first_one_beyond_and_slips() -> None:
    market = ScriptedMarket()
    market.bar_at(BTC, 1, "50000 50000 47000 47000")  # 1000 down every 5 seconds
    engine = engine_of(market)
    engine.place_order("ann", market_order(Side.BUY, D(48500)))
    engine.advance_to(START_MS + MINUTE_MS + 10_000 - 1)
    assert not closing_sources(engine)
    engine.advance_to(START_MS + MINUTE_MS + 14_000)
    assert closing_sources(engine) == [OrderSource.POS_LOSS_MARKET]
    assert engine.fills("ann")[-1].price <= 48_000


def test_the_way_of_a_bar_is_settled_at_its_open() -> None:
    log = ExposureLog()
    log.change_net(BTC, D(2), 60_000)
    assert log.before(BTC, 60_000) == 0  # what happens at the open came too late
    assert log.before(BTC, 60_001) == 1
    log.change_net(BTC, D(-3), 90_000)
    log.change_net(BTC, D(1), 90_000)
    assert log.before(BTC, 90_000) == 1
    assert log.before(BTC, 120_000) == 0
    log.change_net(BTC, D(-1), 150_000)
    assert [log.before(BTC, at) for at in (60_001, 120_000, 180_000)] == [1, 0, -1]
    log.forget_before(130_000)
    assert [log.before(BTC, at) for at in (130_000, 180_000)] == [0, -1]


# -- hours ----------------------------------------------------------------------------------------

ordered = st.lists(st.integers(1, 10_000), min_size=4, max_size=4).map(sorted)


@given(ordered, st.booleans(), st.booleans(), st.integers(0, 60), st.integers(0, 60))
def test_a_part_of_an_hour_is_its_minutes(
    values: list[int], rising: bool, low_first: bool, one: int, other: int
) -> None:
    low, lower, upper, high = values
    hour = (lower, high, low, upper) if rising else (upper, high, low, lower)
    first, end = sorted((one, other))
    if first == end:
        return
    minutes = [part_of_hour(hour, at, at + 1, low_first=low_first) for at in range(first, end)]
    assert part_of_hour(hour, first, end, low_first=low_first) == (
        minutes[0][0],
        max(minute[1] for minute in minutes),
        min(minute[2] for minute in minutes),
        minutes[-1][3],
    )
    assert part_of_hour(hour, 0, 60, low_first=low_first) == hour
    until_low = next(at for at in range(60) if low in _minute(hour, at, low_first))
    until_high = next(at for at in range(60) if high in _minute(hour, at, low_first))
    if low < lower and upper < high:
        assert (until_low < until_high) is low_first


def _minute(hour: tuple[int, int, int, int], at: int, low_first: bool) -> tuple[int, ...]:
    return part_of_hour(hour, at, at + 1, low_first=low_first)


def test_expanded_hours_wait_at_their_open_until_the_way_is_chosen() -> None:
    minutes = [ticks for ticks, _ in expand_hour((100, 130, 90, 110), 600)]
    assert minutes[:10] == [(100, 100, 100, 100)] * 10


def write_hours(folder: Path, name: str, hours: list[tuple[float, float, float, float]]) -> None:
    with (folder / name).open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["timestamp", "open", "high", "low", "close", "volume"])
        for index, prices in enumerate([*hours, hours[-1]]):
            writer.writerow([HOUR_START_MS + index * HOUR_MS, *prices, 1200])


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_in_a_replay_of_hours_the_loss_comes_first_too(tmp_path: Path, side: Side) -> None:
    flat = (50_000.0, 50_000.0, 50_000.0, 50_000.0)
    wide = (50_000.0, 52_000.0, 48_000.0, 50_500.0)
    write_hours(tmp_path, "BTCUSDT.csv", [flat, wide, flat])
    engine = Engine(ReplayMarket(tmp_path), EngineSettings(), HOUR_START_MS + HOUR_MS)
    engine.open_account("ann", futures_usdt=D(100_000))
    sign = 1 if side is Side.BUY else -1
    order = market_order(side, D(50_000 - sign * 1500), D(50_000 + sign * 600))
    engine.place_order("ann", order)
    engine.advance_to(HOUR_START_MS + 2 * HOUR_MS - 1)
    assert closing_sources(engine) == [OrderSource.POS_LOSS_MARKET]
    slip = engine.fills("ann")[-1].price - (50_000 - sign * 1500)
    assert abs(slip) < 30  # the hour is walked in small steps
    engine.advance_to(HOUR_START_MS + 2 * HOUR_MS + 1)
    minutes = engine.candles(
        BTC,
        MINUTE_MS,
        start_ms=HOUR_START_MS + HOUR_MS,
        end_ms=HOUR_START_MS + 2 * HOUR_MS,
        limit=60,
    )
    hour = merge_bars(HOUR_START_MS + HOUR_MS, minutes)
    assert hour is not None
    assert [hour.open, hour.high, hour.low, hour.close] == [
        D(50_000),
        D(52_000),
        D(48_000),
        D(50_500),
    ]
    fill = engine.fills("ann")[-1]
    during = next(bar for bar in minutes if bar.open_ms <= fill.at_ms < bar.open_ms + MINUTE_MS)
    assert during.low - 10 <= fill.price <= during.high + 10  # candles show the way that was taken
    five = engine.candles(BTC, 5 * MINUTE_MS, end_ms=HOUR_START_MS + 2 * HOUR_MS, limit=12)
    for index, bar in enumerate(five):
        part = merge_bars(bar.open_ms, minutes[index * 5 : index * 5 + 5])
        assert part == bar


# -- what can still happen ------------------------------------------------------------------------


def directions(symbol: str, at_ms: int) -> int:
    """A world whose exposure changes all the time."""
    return (at_ms // MINUTE_MS * 7 // 3) % 3 - 1


@pytest.fixture(scope="module")
def hourly(tmp_path_factory: pytest.TempPathFactory) -> ReplayMarket:
    folder = tmp_path_factory.mktemp("hours")
    for name, basis in (("BTCUSDT.csv", 0.0), ("BTCUSDT.mark.csv", 11.3)):
        base = 50_000 + basis
        hours = [
            (base + i * 90, base + 400 + i * 95, base - 300 + i * 80, base + 90 + i * 90)
            for i in range(40)
        ]
        write_hours(folder, name, hours)
    return ReplayMarket(folder)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(60, 36 * 60),
    st.integers(0, MINUTE_MS - 1),
    st.integers(0, 200),
    st.sampled_from([D(1), D("0.93")]),
)
def test_no_price_is_ever_outside_the_announced_ranges(
    hourly: ReplayMarket, minute: int, inside_ms: int, ahead: int, factor: Decimal
) -> None:
    feed = PriceFeed(hourly, {BTC: D("0.1")}, directions)
    at_ms = HOUR_START_MS + minute * MINUTE_MS + inside_ms
    if factor != 1:
        feed.jump(BTC, at_ms - 30 * MINUTE_MS, factor, {PriceKind.MARK})
    until_ms = at_ms + ahead * MINUTE_MS // 2
    near, far = feed.minute_ranges(BTC, at_ms), feed.ranges_until(BTC, at_ms, until_ms)
    assert near is not None
    assert far is not None
    minute_end_ms = at_ms - at_ms % MINUTE_MS + MINUTE_MS
    for moment in range(at_ms, max(until_ms, minute_end_ms - 1) + 1, 2_500):
        last, mark = feed.require_last(BTC, moment), feed.require_mark(BTC, moment)
        if moment < minute_end_ms:
            assert near.last_low <= last <= near.last_high
            assert near.mark_low <= mark <= near.mark_high
        if moment <= until_ms:
            assert far.last_low <= last <= far.last_high
            assert far.mark_low <= mark <= far.mark_high


@settings(max_examples=60, deadline=None)
@given(st.integers(-120, 30 * 60), st.integers(1, 400), st.sampled_from(list(PriceKind)))
def test_long_bars_are_their_minutes_whatever_way_the_hours_went(
    hourly: ReplayMarket, first: int, minutes: int, kind: PriceKind
) -> None:
    feed = PriceFeed(hourly, {BTC: D("0.1")}, directions)
    open_ms = HOUR_START_MS + first * MINUTE_MS
    singles = [feed.closed_bar(BTC, open_ms + at * MINUTE_MS, 1, kind) for at in range(minutes)]
    expected = merge_bars(open_ms, [bar for bar in singles if bar is not None])
    found = feed.closed_bar(BTC, open_ms, minutes, kind)
    if expected is None or found is None:
        assert found == expected
        return
    assert _without_quote(found) == _without_quote(expected)
    assert abs(found.quote_volume - expected.quote_volume) <= D("0.0001") * minutes


def _without_quote(bar: Bar) -> tuple[Decimal, ...]:
    return bar.open, bar.high, bar.low, bar.close, bar.volume


def test_B14_a_stop_on_the_mark_stays_where_only_last_crosses_it() -> None:
    engine = engine_of(ScriptedMarket())
    engine.place_order("ann", market_order(Side.BUY))
    engine.advance_to(START_MS + 1_000)
    stop = PositionStopCommand(
        BTC, PlanType.POS_LOSS, HoldSide.BUY, D(48_000), TriggerType.MARK_PRICE
    )
    engine.place_position_stop("ann", stop)
    engine.jump_price(BTC, D("0.94"), frozenset({PriceKind.LAST}))
    engine.advance_to(START_MS + MINUTE_MS)
    assert engine.price(BTC, PriceKind.LAST) == 47_000
    assert engine.price(BTC, PriceKind.MARK) == 50_000
    assert len(engine.plans("ann")) == 1
    assert not closing_sources(engine)
    engine.jump_price(BTC, D("0.94"), frozenset({PriceKind.MARK}))
    engine.advance_to(START_MS + 2 * MINUTE_MS)
    assert closing_sources(engine) == [OrderSource.POS_LOSS_MARKET]
