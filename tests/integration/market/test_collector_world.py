"""The collector as a participant of a stepped world: time waits for candles, never for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from module.clock import WorldClock, from_epoch_ms
from module.market.collector import PARTICIPANT, CollectorThread
from module.market.service import BarsRequest, MarketService
from module.model.errors import Unavailable
from module.model.market import Candle, Frequency, MarketType
from module.model.series import Series
from tests.fakes.market_data import MemoryCandles, made_candle
from tests.fakes.stepped_world import START_MS, BeatingWorld, ClockThread

START = from_epoch_ms(START_MS)
MINUTE = timedelta(minutes=1)
BTC = Series("synthetic:7", MarketType.FUTURES, "BTCUSDT", Frequency.MINUTE_1)


class WorldVenue:
    """Has every closed bar of the world's time; stops in its tracks at `hold_at` until let go."""

    def __init__(self, world: BeatingWorld) -> None:
        self._world = world
        self.hold_at: datetime | None = None
        self.reached = threading.Event()
        self.released = threading.Event()
        self.fails_left = 0

    def symbols(self, market: MarketType) -> frozenset[str]:
        return frozenset({"BTCUSDT"})

    def candles(self, series: Series, end: datetime, limit: int) -> list[Candle]:
        now = from_epoch_ms(self._world.now_ms)
        if self.hold_at is not None and now >= self.hold_at and not self.released.is_set():
            self.reached.set()
            assert self.released.wait(20)
        if self.fails_left > 0:
            self.fails_left -= 1
            raise Unavailable("the gateway does not answer (refused)")
        length = series.frequency.length
        return [
            made_candle(series.symbol, series.frequency, end - back * length)
            for back in range(limit, 0, -1)
            if end - (back - 1) * length <= now
        ]


class Bench:
    def __init__(self) -> None:
        self.world = BeatingWorld()
        self.time = ClockThread(self.world)
        self.tester = WorldClock("127.0.0.1", self.time.port, "tester")
        self.observer = WorldClock("127.0.0.1", self.time.port, None)
        self.venue = WorldVenue(self.world)
        self.store = MemoryCandles()
        self.service = MarketService("synthetic:7", self.store, self.venue, self.observer)
        self.thread = CollectorThread(self.service, self.store, self.make_clock)
        self.clock_failures_left = 0

    def make_clock(self) -> WorldClock:
        if self.clock_failures_left > 0:
            self.clock_failures_left -= 1
            raise Unavailable("the world clock is away")
        return WorldClock("127.0.0.1", self.time.port, PARTICIPANT)

    def watch(self) -> None:
        now = self.tester.now()
        request = BarsRequest(MarketType.FUTURES, ("BTCUSDT",), Frequency.MINUTE_1, 3, now)
        self.service.bars(request)

    def openings(self) -> set[datetime]:
        return set(self.store.rows[BTC])

    def close(self) -> None:
        self.venue.released.set()
        self.thread.stop()
        self.tester.close()
        self.observer.close()
        self.service.close()
        self.time.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def _start(bench: Bench) -> None:
    """Begin to collect; returns once the collector takes part (the tester holds time till then)."""
    bench.thread.start()
    never = threading.Event()
    for _ in range(400):
        if bench.service.health().collector_running:
            return
        never.wait(0.02)
    pytest.fail("the collector did not begin")


def test_every_minute_that_the_world_has_left_is_stored(bench: Bench) -> None:
    bench.watch()
    _start(bench)
    for minute in range(1, 31):
        bench.tester.sleep_until(START + minute * MINUTE + timedelta(seconds=1))
        assert START + (minute - 1) * MINUTE in bench.openings()
    assert bench.service.ready()
    assert bench.service.health().watched == 1


def test_the_world_does_not_run_past_a_bar_that_is_being_fetched(bench: Bench) -> None:
    bench.watch()
    _start(bench)
    bench.venue.hold_at = START + 3 * MINUTE
    bench.tester.close()
    assert bench.venue.reached.wait(20)
    for _ in range(50):
        assert bench.time.call(lambda: bench.world.now_ms) == START_MS + 3 * 60_000
    bench.venue.hold_at = None
    bench.venue.released.set()


def test_the_gateway_away_for_a_while_holds_the_world_and_loses_nothing(bench: Bench) -> None:
    bench.watch()
    _start(bench)
    bench.venue.fails_left = 3
    bench.tester.sleep_until(START + 2 * MINUTE + timedelta(seconds=1))
    assert {START, START + MINUTE} <= bench.openings()


def test_the_gateway_away_for_long_lets_time_go_on_and_the_gap_is_filled(bench: Bench) -> None:
    bench.watch()
    _start(bench)
    bench.venue.fails_left = 10_000
    bench.tester.sleep_until(START + 2 * MINUTE + timedelta(seconds=1))
    assert not bench.service.ready()
    assert "the gateway does not answer" in bench.service.health().problem
    bench.venue.fails_left = 0
    bench.tester.sleep_until(START + 3 * MINUTE + timedelta(seconds=1))
    assert {START, START + MINUTE, START + 2 * MINUTE} <= bench.openings()
    assert bench.service.ready()


def test_a_world_clock_that_is_away_does_not_end_the_collector(bench: Bench) -> None:
    bench.watch()
    bench.clock_failures_left = 1
    _start(bench)
    bench.tester.sleep_until(START + MINUTE + timedelta(seconds=1))
    assert START in bench.openings()
