"""Mark and index as prices of their own, and what a replay does with odd data."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.errors import InvalidInput
from module.model.money import decimal_from_float
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import (
    EngineSettings,
    FuturesOrderCommand,
    HoldSide,
    MarketType,
    OrderSource,
    OrderType,
    PlanType,
    PositionStopCommand,
    Side,
    SpotOrderCommand,
    TriggerType,
)
from module.simulator.prices.candle_files import decimals_needed, whole_steps
from module.simulator.prices.derived_marks import derive_index_and_mark
from module.simulator.prices.market_source import DAY_MS, HOUR_MS, MINUTE_MS, PriceKind
from module.simulator.prices.replay import ReplayMarket
from module.simulator.prices.synthetic import SyntheticMarket
from module.simulator.prices.tick_series import TickSeries, turnover_of

D = Decimal
SHARED = Path(__file__).parents[4] / "shared" / "data"
START_MS = 1_750_003_200_000  # 2025-06-15 16:00:00 UTC
CANDLES = "timestamp open high low close volume"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real candles is absent")

Prices = tuple[float, float, float, float]


def write_bars(folder: Path, name: str, bars: Sequence[Prices], step_ms: int = MINUTE_MS) -> None:
    with (folder / name).open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(CANDLES.split())
        for index, prices in enumerate([*bars, bars[-1]]):  # the last one is dropped
            writer.writerow([START_MS + index * step_ms, *prices, 1200])


def flat(price: float) -> Prices:
    return (price, price, price, price)


@cache
def real(folder: str) -> ReplayMarket:
    return ReplayMarket(SHARED / folder)


# -- mark files -----------------------------------------------------------------------------------


def test_a_mark_file_is_the_mark_and_last_is_not(tmp_path: Path) -> None:
    write_bars(tmp_path, "LTCUSDT.csv", [flat(100.0)] * 5)
    marks = [(99.0, 99.6, 98.7, 99.3)] * 3
    write_bars(tmp_path, "LTCUSDT.mark.csv", marks)
    market = ReplayMarket(tmp_path)
    bar = market.bar("LTCUSDT", START_MS, PriceKind.MARK)
    assert bar is not None
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume) == (
        D("99.00"),
        D("99.60"),
        D("98.70"),
        D("99.30"),
        D(0),
    )
    later = market.bar("LTCUSDT", START_MS + 4 * MINUTE_MS, PriceKind.MARK)
    assert later is not None
    assert later.close == 100  # the file has ended: derived from last
    engine = Engine(market, EngineSettings(), START_MS)
    ticker = engine.ticker("LTCUSDT")
    assert [ticker.last, ticker.mark, ticker.index] == [D(100), D(99), D(99)]
    candle = engine.candles("LTCUSDT", MINUTE_MS, limit=1, kind=PriceKind.MARK)[0]
    assert [candle.open, candle.volume] == [D(99), D(0)]


def test_a_mark_file_of_another_length_is_refused(tmp_path: Path) -> None:
    write_bars(tmp_path, "LTCUSDT.csv", [flat(100.0)] * 5)
    write_bars(tmp_path, "LTCUSDT.mark.csv", [flat(100.0)] * 5, HOUR_MS)
    with pytest.raises(InvalidInput, match="different lengths"):
        ReplayMarket(tmp_path)


def test_an_hourly_mark_moves_with_last_and_merges_into_its_hour(tmp_path: Path) -> None:
    """The extremes of the mark alone would be taken the other way round."""
    write_bars(tmp_path, "LTCUSDT.csv", [(100.0, 103.0, 99.0, 101.0)] * 3, HOUR_MS)
    write_bars(tmp_path, "LTCUSDT.mark.csv", [(100.0, 101.6, 98.0, 101.5)] * 3, HOUR_MS)
    market = ReplayMarket(tmp_path)
    hour = market.merged_bar("LTCUSDT", START_MS, 60, PriceKind.MARK)
    assert hour is not None
    assert (hour.open, hour.high, hour.low, hour.close) == (
        D(100),
        D("101.60"),
        D(98),
        D("101.50"),
    )
    at_half = market.bar("LTCUSDT", START_MS + 29 * MINUTE_MS, PriceKind.MARK)
    assert at_half is not None
    assert at_half.close == 98
    for low_first, close in ((True, 98), (False, D("101.60"))):
        minute = market.bar(
            "LTCUSDT", START_MS + 29 * MINUTE_MS, PriceKind.MARK, low_first=low_first
        )
        assert minute is not None
        assert minute.close == close


# -- derived marks --------------------------------------------------------------------------------


def series_of(bars: Sequence[tuple[int, int, int, int]]) -> TickSeries:
    opens, highs, lows, closes = (
        np.array(column, dtype=np.int64) for column in zip(*bars, strict=True)
    )
    times = np.arange(len(bars), dtype=np.int64) * MINUTE_MS
    return TickSeries(1, times, opens, highs, lows, closes, opens - lows <= highs - opens)


tick_bars = st.lists(st.integers(1, 50_000), min_size=4, max_size=4).map(
    lambda ticks: (sorted(ticks)[1], max(ticks), min(ticks), sorted(ticks)[2])
)


@given(st.lists(tick_bars, min_size=1, max_size=30))
def test_derived_prices_are_bars_and_the_mark_stays_near_the_index(
    bars: list[tuple[int, int, int, int]],
) -> None:
    index, mark = derive_index_and_mark(series_of(bars))
    for series in (index, mark):
        assert (series.lows >= 1).all()
        assert (series.lows <= np.minimum(series.opens, series.closes)).all()
        assert (series.highs >= np.maximum(series.opens, series.closes)).all()
    for name in ("opens", "highs", "lows", "closes"):
        near, far = getattr(mark, name).astype(np.int64), getattr(index, name).astype(np.int64)
        assert (np.abs(near - far) <= far // 50).all()


def test_one_bad_minute_does_not_move_the_index_and_hardly_the_mark(tmp_path: Path) -> None:
    bars = [flat(3.5)] * 6
    bars[3] = (3.5, 3.5, 0.0001, 0.0002)
    write_bars(tmp_path, "LINKUSDT.csv", bars)
    market = ReplayMarket(tmp_path)
    bad_ms = START_MS + 3 * MINUTE_MS
    last = market.bar("LINKUSDT", bad_ms)
    index = market.merged_bar("LINKUSDT", START_MS, 6, PriceKind.INDEX)
    mark = market.merged_bar("LINKUSDT", START_MS, 6, PriceKind.MARK)
    assert last is not None
    assert index is not None
    assert mark is not None
    assert (last.low, last.close) == (D("0.0001"), D("0.0002"))
    assert (index.high, index.low) == (D("3.5"), D("3.5"))
    assert mark.low >= D("3.43")


def test_synthetic_last_trades_within_a_small_basis_around_its_index() -> None:
    market, again = SyntheticMarket(7), SyntheticMarket(7)
    furthest = D(0)
    for rules in market.futures():
        before: Decimal | None = None
        for minute in range(0, 1440, 3):
            open_ms = START_MS + minute * MINUTE_MS
            last, mark, index = (market.bar(rules.symbol, open_ms, kind) for kind in PriceKind)
            assert last is not None
            assert mark is not None
            assert index is not None
            ratio = last.open / index.open - 1
            furthest = max(furthest, abs(ratio))
            low, high = sorted((last.open, index.open))
            assert low - rules.price_step <= mark.open <= high + rules.price_step
            assert mark.low <= min(mark.open, mark.close)
            assert mark.high >= max(mark.open, mark.close)
            assert mark.volume == 0
            before = index.close
        assert before is not None
        moment = START_MS + 17 * MINUTE_MS
        assert again.bar(rules.symbol, moment, PriceKind.MARK) == market.bar(
            rules.symbol, moment, PriceKind.MARK
        )
    assert D("0.0001") < furthest < D("0.0006")


# -- bad prints -----------------------------------------------------------------------------------


def bad_print_world(tmp_path: Path) -> Engine:
    hours = [(3.5, 3.6, 3.4, 3.5)] * 5
    hours[2] = (3.5, 3.6, 0.0001, 3.5)
    write_bars(tmp_path, "LINKUSDT.csv", hours, HOUR_MS)
    engine = Engine(ReplayMarket(tmp_path), EngineSettings(), START_MS)
    engine.open_account("ann", futures_usdt=D(10_000), spot={"USDT": D(10_000)})
    return engine


def test_a_bad_print_is_in_the_candles_and_liquidates_nobody(tmp_path: Path) -> None:
    engine = bad_print_world(tmp_path)
    order = FuturesOrderCommand("LINKUSDT", Side.BUY, OrderType.MARKET, D(10_000))
    engine.place_order("ann", order)
    engine.advance_to(START_MS + HOUR_MS)
    stop = PositionStopCommand(
        "LINKUSDT", PlanType.POS_LOSS, HoldSide.BUY, D("3.2"), TriggerType.MARK_PRICE
    )
    engine.place_position_stop("ann", stop)
    bid = FuturesOrderCommand("LINKUSDT", Side.BUY, OrderType.LIMIT, D(10), price=D("3.325"))
    resting = engine.place_order("ann", bid)
    equity_low = min(_equities(engine, until_ms=START_MS + 4 * HOUR_MS))
    assert equity_low > 8_000
    assert len(engine.positions("ann")) == 1
    assert len(engine.plans("ann")) == 1
    assert resting.filled_size in (0, 10)  # at the edge of the band, never far beyond
    candle = engine.candles("LINKUSDT", HOUR_MS, end_ms=START_MS + 3 * HOUR_MS, limit=1)[0]
    assert candle.low == D("0.0001")
    engine.ledger.audit()


def _equities(engine: Engine, until_ms: int) -> list[Decimal]:
    found = []
    while engine.now_ms < until_ms:
        engine.advance_to(engine.now_ms + MINUTE_MS)
        found.append(engine.futures_balance("ann").equity)
    return found


def test_at_a_bad_print_orders_meet_the_edge_of_the_band(tmp_path: Path) -> None:
    engine = bad_print_world(tmp_path)
    while engine.last_price("LINKUSDT") > 1:
        engine.advance_to(engine.now_ms + MINUTE_MS)
    mark = engine.price("LINKUSDT", PriceKind.MARK)
    assert mark >= D("3.4")
    buy = FuturesOrderCommand("LINKUSDT", Side.BUY, OrderType.MARKET, D(100))
    engine.place_order("ann", buy)
    spot = SpotOrderCommand("LINKUSDT", Side.BUY, OrderType.MARKET, D(1_000))
    engine.place_spot_order("ann", spot)
    engine.advance_to(engine.now_ms + 4_000)
    futures, coins = engine.fills("ann"), engine.fills("ann", market=MarketType.SPOT)
    assert futures
    assert coins
    for fill in (*futures, *coins):
        assert fill.price >= mark * D("0.949")
    assert sum(fill.size for fill in coins) < 320
    depth, ticker = engine.depth("LINKUSDT", 5), engine.ticker("LINKUSDT")
    assert depth.bids[0][0] >= mark * D("0.949")
    assert ticker.bid < ticker.ask


def test_a_stop_on_last_may_fire_at_a_bad_print_but_sells_within_the_band(tmp_path: Path) -> None:
    engine = bad_print_world(tmp_path)
    engine.place_order("ann", FuturesOrderCommand("LINKUSDT", Side.BUY, OrderType.MARKET, D(100)))
    engine.advance_to(START_MS + HOUR_MS)
    stop = PositionStopCommand("LINKUSDT", PlanType.POS_LOSS, HoldSide.BUY, D("2.5"))
    engine.place_position_stop("ann", stop)
    engine.advance_to(START_MS + 4 * HOUR_MS)
    closed = [order for order in engine.order_history("ann") if order.closes]
    assert [order.source for order in closed] == [OrderSource.POS_LOSS_MARKET]
    assert engine.fills("ann")[-1].price >= D("3.2")


@needs_data
def test_the_real_bad_print_of_2020_keeps_its_place() -> None:
    market = real("spot_1h_2019-2022")
    bad_ms = 1_584_007_200_000  # 2020-03-12 10:00 UTC
    hour = market.merged_bar("LINKUSDT", bad_ms, 60)
    mark = market.merged_bar("LINKUSDT", bad_ms, 60, PriceKind.MARK)
    assert hour is not None
    assert mark is not None
    assert hour.low == D("0.0001")
    assert mark.low == min(hour.open, hour.close)


# -- files ----------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1e12) | st.decimals(0, 10**6, places=7).map(float), min_size=1),
    st.integers(0, 10),
)
def test_floats_fall_on_the_tick_that_their_decimal_falls_on(
    values: list[float], places: int
) -> None:
    step = D(1).scaleb(-places)
    expected = [
        int((decimal_from_float(value) / step).to_integral_value(ROUND_HALF_EVEN))
        for value in values
    ]
    if max(expected) < 2**62:
        assert whole_steps(np.array(values), step).tolist() == expected


@needs_data
@pytest.mark.parametrize("folder", ["perp_1m_2025-05", "perp_1h_2025", "spot_1h_2019-2022"])
def test_real_prices_are_spelled_exactly(folder: str) -> None:
    """No candle is off by anything: every 997th price of every file, through Decimal."""
    from module.simulator.prices.candle_files import candle_files, read_candles

    market = real(folder)
    for rules in market.futures():
        candles = read_candles(candle_files(SHARED / folder)[rules.symbol])
        for index in range(0, len(candles.times), 997):
            bar = market.merged_bar(rules.symbol, int(candles.times[index]), candles.minutes)
            assert bar is not None
            assert [bar.open, bar.high, bar.low, bar.close, bar.volume] == [
                decimal_from_float(float(column[index]))
                for column in (*candles.prices, candles.volumes)
            ]
        reference = decimal_from_float(float(np.median(candles.prices[3])))
        assert D("1e-7") < rules.price_step / reference <= D("0.001")
        assert rules.size_step * reference < 100


def test_prices_with_noise_in_their_last_digits_fall_on_a_plausible_tick(tmp_path: Path) -> None:
    noisy = (68431.123456, 68440.654321, 68420.111111, 68433.3333333333)
    write_bars(tmp_path, "BTCUSDT.csv", [noisy] * 4)
    write_bars(tmp_path, "NEWUSDT.csv", [flat(value / 7e6) for value in noisy])
    market = ReplayMarket(tmp_path)
    bar = market.bar("BTCUSDT", START_MS)
    assert bar is not None
    assert [bar.open, bar.high, bar.low] == [D("68431.1"), D("68440.7"), D("68420.1")]
    for rules in market.futures():
        last = market.latest_bar(rules.symbol, START_MS)
        assert last is not None
        assert D("0.0000001") < rules.price_step / last.close < D("0.001")


def test_the_places_that_prices_need_are_found() -> None:
    assert decimals_needed([np.array([0.1, 2.25, 3.0])], 10) == 2
    assert decimals_needed([np.array([0.0000123])], 10) == 7
    assert decimals_needed([np.array([1 / 3])], 10) is None


def test_turnover_is_exact_beyond_64_bits() -> None:
    count = 40
    opens = np.full(count, 2**33 - 7, dtype=np.int64)
    lots = np.full(count, 2**52 + 11, dtype=np.int64)
    expected = count * (2**52 + 11) * (2**33 - 7 + 2**33 - 5)
    assert turnover_of(opens, opens + 2, lots) == expected


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 40), min_size=4), st.integers(-50, 50 * 60), st.integers(1, 5 * 60))
def test_gaps_are_skipped_by_every_kind_of_bar(
    tmp_path_factory: pytest.TempPathFactory, present: set[int], first: int, minutes: int
) -> None:
    folder = tmp_path_factory.mktemp("gaps")
    hours = sorted({*present, 1, 2})  # two neighbours tell the length of a bar
    with (folder / "LTCUSDT.csv").open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(CANDLES.split())
        for hour in hours:
            price = 100.0 + hour
            writer.writerow([START_MS + hour * HOUR_MS, price, price + 2, price - 3, price + 1, 60])
    market = ReplayMarket(folder)
    open_ms = START_MS + first * MINUTE_MS
    singles = [market.bar("LTCUSDT", open_ms + at * MINUTE_MS) for at in range(minutes)]
    there = [bar for bar in singles if bar is not None]
    merged = market.merged_bar("LTCUSDT", open_ms, minutes)
    bounds = market.extremes("LTCUSDT", open_ms, minutes)
    latest = market.latest_bar("LTCUSDT", open_ms)
    covered = [hour for hour in hours[:-1] if hour * 60 <= first]
    assert (latest is None) == (not covered)
    if latest is not None:
        assert latest.open_ms == START_MS + min(first, covered[-1] * 60 + 59) * MINUTE_MS
    if not there:
        assert merged is None
        return
    assert merged is not None
    assert bounds is not None
    assert (merged.open, merged.close) == (there[0].open, there[-1].close)
    assert (merged.high, merged.low) == (
        max(bar.high for bar in there),
        min(bar.low for bar in there),
    )
    assert merged.volume == sum(bar.volume for bar in there)
    assert bounds[0] <= merged.low <= merged.high <= bounds[1]


def test_funding_intervals_follow_the_settlements(tmp_path: Path) -> None:
    write_bars(tmp_path, "ORCAUSDT.csv", [(3.5, 3.6, 3.4, 3.5)] * 30, HOUR_MS)
    hours = (0, 4, 8, 9, 10, 11, 12, 16, 20)
    with (tmp_path / "ORCAUSDT.funding.csv").open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["timestamp", "fundingRate"])
        for hour in hours:
            writer.writerow([START_MS + hour * HOUR_MS + 3, 0.0001 * hour])
    market = ReplayMarket(tmp_path)
    asked = {-1: 4, 1: 4, 7: 4, 8: 1, 9: 1, 11: 1, 12: 4, 18: 4, 25: 4}
    found = {
        hour: market.funding_interval_h("ORCAUSDT", START_MS + hour * HOUR_MS) for hour in asked
    }
    assert found == asked
    points = market.funding_between("ORCAUSDT", START_MS, START_MS + DAY_MS)
    assert [(point.settlement_ms - START_MS) / HOUR_MS for point in points] == list(hours)
    engine = Engine(market, EngineSettings(), START_MS + 9 * HOUR_MS)
    assert engine.funding_interval_h("ORCAUSDT") == 1


@needs_data
def test_real_funding_intervals_change_there_and_back() -> None:
    market = real("perp_1h_2025")
    first_ms, last_ms = market.span("ORCAUSDT")
    assert first_ms is not None
    assert last_ms is not None
    points = market.funding_between("ORCAUSDT", first_ms, last_ms)
    assert all(point.settlement_ms % 1000 == 0 for point in points)
    hours = [market.funding_interval_h("ORCAUSDT", point.settlement_ms) for point in points[:-1]]
    stretches = [hour for hour, _ in groupby(hours)]
    assert stretches == [4, 2, 4, 2, 4, 1, 4, 1]  # it also went to two hours for some days
