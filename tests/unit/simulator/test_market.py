"""Market sources and the walk inside a minute."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.errors import InvalidInput
from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import (
    EngineRejected,
    EngineSettings,
    FuturesOrderCommand,
    OrderType,
    RejectReason,
    Side,
)
from module.simulator.engine.price_feed import merge_bars
from module.simulator.prices.instruments import futures_instrument, spot_instrument
from module.simulator.prices.market_source import DAY_MS, HOUR_MS, MINUTE_MS, Bar
from module.simulator.prices.minute_path import expand_hour, walk_minute
from module.simulator.prices.replay import ReplayMarket
from module.simulator.prices.synthetic import SyntheticMarket
from tests.fakes.scripted_market import START_MS, ScriptedMarket

D = Decimal
DAY = START_MS // DAY_MS * DAY_MS
SHARED = Path(__file__).parents[4] / "shared" / "data"


def test_the_same_seed_gives_the_same_bars_in_any_order() -> None:
    first, second, other = SyntheticMarket(7), SyntheticMarket(7), SyntheticMarket(8)
    moments = [DAY + index * 7 * HOUR_MS for index in range(20)]
    forwards = [first.bar("ETHUSDT", moment) for moment in moments]
    backwards = [second.bar("ETHUSDT", moment) for moment in reversed(moments)]
    assert forwards == backwards[::-1]
    assert forwards != [other.bar("ETHUSDT", moment) for moment in moments]
    assert first.market_id == "synthetic:7"


def test_synthetic_bars_are_whole_and_continuous_also_over_midnight() -> None:
    market = SyntheticMarket(7)
    for rules in market.futures():
        before: Bar | None = None
        for minute in range(-30, 30):
            bar = market.bar(rules.symbol, DAY + minute * MINUTE_MS)
            assert bar is not None
            assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
            assert bar.low > 0
            assert bar.open % rules.price_step == 0
            assert bar.volume > 0
            assert before is None or before.close == bar.open
            before = bar


def test_synthetic_prices_look_like_crypto() -> None:
    market = SyntheticMarket(7)
    closes = {}
    for symbol in ("BTCUSDT", "DOGEUSDT"):
        days = [market.merged_bar(symbol, DAY + day * DAY_MS, 1440) for day in range(60)]
        closes[symbol] = [float(bar.close) for bar in days if bar is not None]
        assert len(closes[symbol]) == 60
    changes = {
        symbol: [after / before - 1 for before, after in pairwise(days)]
        for symbol, days in closes.items()
    }
    btc, doge = changes["BTCUSDT"], changes["DOGEUSDT"]
    deviation = {
        symbol: (sum(change * change for change in days) / len(days)) ** 0.5
        for symbol, days in changes.items()
    }
    assert 0.008 < deviation["BTCUSDT"] < deviation["DOGEUSDT"] < 0.12
    together = sum(a * b for a, b in zip(btc, doge, strict=True)) / len(btc)
    assert together / (deviation["BTCUSDT"] * deviation["DOGEUSDT"]) > 0.3


@settings(max_examples=30, deadline=None)
@given(st.integers(-3000, 3000), st.integers(1, 300))
def test_a_merged_bar_equals_its_minutes(first: int, minutes: int) -> None:
    market = SyntheticMarket(3)
    open_ms = DAY + first * MINUTE_MS
    singles = [market.bar("XRPUSDT", open_ms + index * MINUTE_MS) for index in range(minutes)]
    merged = merge_bars(open_ms, [bar for bar in singles if bar is not None])
    found = market.merged_bar("XRPUSDT", open_ms, minutes)
    assert merged is not None
    assert found is not None
    assert (merged.open, merged.high, merged.low, merged.close, merged.volume) == (
        found.open,
        found.high,
        found.low,
        found.close,
        found.volume,
    )
    assert abs(merged.quote_volume - found.quote_volume) <= D("0.0001") * minutes


def test_synthetic_funding_settles_every_eight_hours() -> None:
    market = SyntheticMarket(7)
    points = market.funding_between("BTCUSDT", DAY, DAY + 2 * DAY_MS)
    assert [point.settlement_ms - DAY for point in points] == [
        index * 8 * HOUR_MS for index in range(7)
    ]
    assert market.next_funding("BTCUSDT", DAY) == points[1]
    assert all(abs(point.rate) <= D("0.00075") for point in points)


ordered = st.lists(st.integers(1, 10_000), min_size=4, max_size=4).map(sorted)


@given(ordered, st.booleans(), st.sampled_from([-1, 0, 1]))
def test_the_walk_starts_ends_and_turns_where_the_bar_says(
    values: list[int], rising: bool, exposure: int
) -> None:
    low, lower, upper, high = (D(value) / 10 for value in values)
    opened, closed = (lower, upper) if rising else (upper, lower)
    points = walk_minute(Bar(0, opened, high, low, closed, D(1), D(1)), exposure, D("0.1"))
    assert (points[0], points[-1]) == (opened, closed)
    assert (max(points), min(points)) == (high, low)
    assert all(point % D("0.1") == 0 for point in points)
    if exposure:
        hurting = low if exposure > 0 else high
        assert points[3] == hurting


def test_candles_are_closed_bars_and_at_most_one_forming() -> None:
    market = ScriptedMarket()
    market.bar_at("BTCUSDT", 0, "50000 50400 49900 50300")
    market.bar_at("BTCUSDT", 1, "50300 50600 50200 50500")
    engine = Engine(market, EngineSettings(), START_MS)
    engine.advance_to(START_MS + MINUTE_MS + 20_000)
    closed, forming = engine.candles("BTCUSDT", MINUTE_MS, limit=2)
    assert (closed.open_ms, closed.high, closed.low) == (START_MS, D(50400), D(49900))
    assert (forming.open, forming.close) == (D(50300), engine.last_price("BTCUSDT"))
    assert forming.high < D(50600)  # the high has not come yet
    only_closed = engine.candles("BTCUSDT", MINUTE_MS, limit=1, include_forming=False)
    assert only_closed == [closed]
    past = engine.candles("BTCUSDT", MINUTE_MS, end_ms=START_MS, limit=200)
    assert len(past) == 200
    assert past[-1].open_ms == START_MS - MINUTE_MS
    bounded = engine.candles("BTCUSDT", MINUTE_MS, start_ms=START_MS, limit=200)
    assert [bar.open_ms for bar in bounded] == [START_MS, START_MS + MINUTE_MS]
    with pytest.raises(EngineRejected) as unknown:
        engine.candles("NOPEUSDT", MINUTE_MS)
    assert unknown.value.reason is RejectReason.SYMBOL_UNKNOWN


def test_longer_candles_open_on_their_boundaries() -> None:
    engine = Engine(SyntheticMarket(7), EngineSettings(), START_MS)
    for interval_ms, offset_ms in (
        (5 * MINUTE_MS, 0),
        (DAY_MS, 16 * HOUR_MS),
        (7 * DAY_MS, 4 * DAY_MS),
    ):
        bars = engine.candles("BTCUSDT", interval_ms, limit=3, offset_ms=offset_ms)
        assert [bar.open_ms % interval_ms for bar in bars] == [offset_ms % interval_ms] * 3
        assert bars[-1].open_ms <= START_MS < bars[-1].open_ms + interval_ms


def test_ticker_and_depth_agree() -> None:
    engine = Engine(SyntheticMarket(7), EngineSettings(), START_MS)
    for symbol in engine.futures_instruments():
        ticker, depth = engine.ticker(symbol), engine.depth(symbol, 15)
        assert (ticker.ask, ticker.ask_size) == depth.asks[0]
        assert (ticker.bid, ticker.bid_size) == depth.bids[0]
        assert ticker.bid < ticker.last < ticker.ask
        assert ticker.low_24h <= ticker.last <= ticker.high_24h
        assert [price for price, _ in depth.asks] == sorted(price for price, _ in depth.asks)


def test_rules_of_unknown_symbols_fit_their_price() -> None:
    for symbol, price in (("PEPEUSDT", "0.00001234"), ("WEIRDUSDT", "123456.7")):
        rules = futures_instrument(symbol, D(price))
        assert D(price) / rules.price_step >= 1000
        assert rules.size_min * D(price) < 50
        assert spot_instrument(symbol, D(price)).size_step > 0


def write_csv(path: Path, rows: Sequence[Sequence[object]], header: str) -> None:
    with path.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(header.split())
        writer.writerows(rows)


CANDLES = "timestamp open high low close volume"


def minute_rows(count: int) -> list[list[object]]:
    return [
        [START_MS + i * MINUTE_MS, 100.1 + i, 102.3 + i, 99.7 + i, 101.1 + i, 12.5]
        for i in range(count)
    ]


def test_replay_of_a_csv_folder_with_a_gap(tmp_path: Path) -> None:
    rows = minute_rows(10)
    del rows[4]
    write_csv(tmp_path / "LTCUSDT.csv", rows, CANDLES)
    funding = [[START_MS + 3 * MINUTE_MS + 4, 0.00012]]
    write_csv(tmp_path / "LTCUSDT.funding.csv", funding, "timestamp fundingRate")
    market = ReplayMarket(tmp_path)
    assert market.span("LTCUSDT") == (START_MS, START_MS + 8 * MINUTE_MS)  # the last bar is dropped
    bar = market.bar("LTCUSDT", START_MS + MINUTE_MS)
    assert bar is not None
    assert (bar.open, bar.high, bar.low, bar.close) == (
        D("101.10"),
        D("103.30"),
        D("100.70"),
        D("102.10"),
    )
    gap_ms = START_MS + 4 * MINUTE_MS
    assert market.bar("LTCUSDT", gap_ms) is None
    latest = market.latest_bar("LTCUSDT", gap_ms)
    assert latest is not None
    assert latest.open_ms == gap_ms - MINUTE_MS
    point = market.next_funding("LTCUSDT", START_MS)
    assert point is not None
    assert (point.settlement_ms, point.rate) == (START_MS + 3 * MINUTE_MS, D("0.00012"))
    assert market.next_funding("LTCUSDT", point.settlement_ms) is None
    assert market.market_id == ReplayMarket(tmp_path).market_id
    assert market.market_id.startswith("replay:")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[START_MS, 1, 2, 1, 1, 1]], "at least 3"),
        ([[START_MS + i * 300_000, 1, 2, 1, 1, 1] for i in range(4)], "300000"),
        ([[START_MS - i * 60_000, 1, 2, 1, 1, 1] for i in range(4)], "sorted"),
        ([[START_MS + i * 60_000, 100, 90, 80, 85, 1] for i in range(4)], "contain"),
        ([[START_MS + i * 60_000, "nan", 2, 1, 1, 1] for i in range(4)], "finite"),
        ([[START_MS + i * 60_000, 100, 101, 99, 100, -1] for i in range(4)], "negative"),
    ],
)
def test_C5_a_broken_candle_file_is_refused_with_its_reason(
    tmp_path: Path, rows: list[list[object]], says: str
) -> None:
    write_csv(tmp_path / "LTCUSDT.csv", rows, CANDLES)
    with pytest.raises(InvalidInput, match=says):
        ReplayMarket(tmp_path)


def test_an_empty_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no"):
        ReplayMarket(tmp_path)
    (tmp_path / "LTCUSDT.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidInput, match="columns"):
        ReplayMarket(tmp_path)


@given(ordered, st.booleans(), st.integers(0, 10**9))
def test_an_expanded_hour_merges_into_itself(values: list[int], rising: bool, lots: int) -> None:
    low, lower, upper, high = values
    opened, closed = (lower, upper) if rising else (upper, lower)
    parts = list(expand_hour((opened, high, low, closed), lots))
    assert len(parts) == 60
    ticks = [part for part, _ in parts]
    assert (ticks[0][0], ticks[-1][3]) == (opened, closed)
    assert max(part[1] for part in ticks) == high
    assert min(part[2] for part in ticks) == low
    assert sum(share for _, share in parts) == lots
    assert all(before[3] == after[0] for before, after in pairwise(ticks))


@pytest.mark.skipif(
    not (SHARED / "perp_1m_2025-05").is_dir(), reason="the folder of real candles is absent"
)
def test_a_real_crash_liquidates_a_long_and_keeps_the_books(tmp_path: Path) -> None:
    """LAYERUSDT falls by half within hours on 2025-05-06 while BTC is flat.

    Its funding was so negative that a long of 20,000 USDT was paid 2,000 and survived; 28,000 do
    not.
    """
    for name in ("LAYERUSDT", "BTCUSDT"):
        for suffix in ("parquet", "funding.parquet"):
            (tmp_path / f"{name}.{suffix}").symlink_to(
                SHARED / "perp_1m_2025-05" / f"{name}.{suffix}"
            )
    market = ReplayMarket(tmp_path)
    start_ms = 1_746_403_200_000  # 2025-05-05 00:00 UTC
    engine = Engine(market, EngineSettings(), start_ms)
    engine.open_account("ann", futures_usdt=D(10_000))
    for symbol, usdt in (("LAYERUSDT", 28_000), ("BTCUSDT", 10_000)):
        rules = engine.futures_instruments()[symbol]
        size = D(usdt) / engine.last_price(symbol)
        size -= size % rules.size_step
        engine.place_order("ann", FuturesOrderCommand(symbol, Side.BUY, OrderType.MARKET, size))
    engine.advance_to(start_ms + 2 * DAY_MS)
    closed = [row for row in engine.position_history("ann") if row.liquidated]
    assert closed
    assert closed[0].symbol == "LAYERUSDT"
    assert closed[0].funding > 500
    engine.ledger.audit()
    bar = market.bar("BTCUSDT", start_ms)
    assert bar is not None
    hour = market.merged_bar("BTCUSDT", start_ms, 60)
    assert hour is not None
    assert hour.open == bar.open


@pytest.mark.skipif(
    not (SHARED / "perp_1h_2025").is_dir(), reason="the folder of real candles is absent"
)
def test_real_hours_expand_into_minutes_that_merge_back(tmp_path: Path) -> None:
    source = SHARED / "perp_1h_2025"
    for name in ("HYPEUSDT.parquet", "BTCUSDT.parquet", "BTCUSDT.mark.parquet"):
        (tmp_path / name).symlink_to(source / name)
    market = ReplayMarket(tmp_path)
    assert [rules.symbol for rules in market.futures()] == ["BTCUSDT", "HYPEUSDT"]
    first_ms, _ = market.span("BTCUSDT")
    assert first_ms == 1_735_603_200_000
    hour = market.merged_bar("BTCUSDT", first_ms, 60)
    assert hour is not None
    assert (hour.open, hour.high, hour.low, hour.close) == (
        D("92759.3"),
        D("92875.4"),
        D("92345.0"),
        D("92435.8"),
    )
    assert hour.volume == D("4354.027")
    listed_ms, _ = market.span("HYPEUSDT")
    assert listed_ms is not None
    engine = Engine(market, EngineSettings(), first_ms)
    engine.open_account("ann", futures_usdt=D(1000))
    assert not engine.is_listed("HYPEUSDT")
    with pytest.raises(EngineRejected) as early:
        engine.place_order(
            "ann", FuturesOrderCommand("HYPEUSDT", Side.BUY, OrderType.MARKET, D(10))
        )
    assert early.value.reason is RejectReason.SYMBOL_NOT_LISTED
    engine.advance_to(listed_ms)
    assert engine.is_listed("HYPEUSDT")
