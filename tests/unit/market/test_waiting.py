"""Waiting for bars: told by their arrival, one look for all who wait, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta

import pytest

from module.market import waiting
from module.market.book import CandleBook
from module.market.service import BarsRequest, MarketService
from module.market.waiting import Bar, BarWaits
from module.model.market import Frequency, MarketType
from module.model.series import Series, Stretch
from tests.fakes.market_data import ArithmeticVenue, HandClock, MemoryCandles, at

NOW = at("2025-03-05 09:20")
MINUTE = timedelta(minutes=1)
LONG_S = 60.0


def line(symbol: str) -> Series:
    return Series("synthetic:7", MarketType.FUTURES, symbol, Frequency.MINUTE_1)


def newest(symbol: str) -> Bar:
    return line(symbol), NOW - MINUTE


class Bench:
    """A book whose venue is late, and who waits for it. `looks`: what was asked for meanwhile."""

    def __init__(self) -> None:
        self.clock = HandClock(NOW)
        self.venue = ArithmeticVenue(self.clock, late_by=MINUTE)
        self.store = MemoryCandles()
        self.book = CandleBook(self.store, self.venue)
        self.looks: list[list[Bar]] = []
        self.waits = BarWaits(self.book, self.look)

    def look(self, bars: Collection[Bar]) -> None:
        self.looks.append(sorted(bars, key=str))

    def fetch(self, symbol: str) -> None:
        """Somebody else's look: the bar has been published, and is stored."""
        self.venue.late_by = timedelta(0)
        self.clock.sleep(1)
        self.book.bars(line(symbol), Stretch(NOW - 5 * MINUTE, NOW), self.clock.now())


async def has_begun(waits: BarWaits, count: int) -> None:
    while len(waits) < count:
        await asyncio.sleep(0)


def in_time(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), LONG_S))


def test_what_is_there_already_is_not_waited_for() -> None:
    bench = Bench()
    bench.fetch("BTCUSDT")

    async def work() -> None:
        assert not await bench.waits.until_there([newest("BTCUSDT")], LONG_S)
        assert len(bench.waits) == 0

    in_time(work)


def test_a_wait_ends_with_the_last_bar_that_it_lacks_from_whatever_thread() -> None:
    bench = Bench()

    async def work() -> None:
        both = [newest("BTCUSDT"), newest("ETHUSDT")]
        waiting_task = asyncio.create_task(bench.waits.until_there(both, LONG_S))
        await has_begun(bench.waits, 2)
        await asyncio.to_thread(bench.fetch, "ETHUSDT")
        await has_begun(bench.waits, 1)
        assert not waiting_task.done()
        await asyncio.to_thread(bench.fetch, "BTCUSDT")
        assert await waiting_task
        assert len(bench.waits) == 0

    in_time(work)


def test_bars_that_the_store_had_arrive_as_well() -> None:
    bench = Bench()
    bench.fetch("BTCUSDT")
    bench.book = CandleBook(bench.store, bench.venue)
    bench.waits = BarWaits(bench.book, bench.look)

    async def work() -> None:
        task = asyncio.create_task(bench.waits.until_there([newest("BTCUSDT")], LONG_S))
        await has_begun(bench.waits, 1)
        await asyncio.to_thread(bench.fetch, "BTCUSDT")
        assert await task

    in_time(work)


def test_a_wait_that_is_over_or_given_up_leaves_nothing_behind() -> None:
    bench = Bench()

    async def work() -> None:
        assert await bench.waits.until_there([newest("BTCUSDT")], 0.001)
        assert len(bench.waits) == 0
        other = asyncio.create_task(bench.waits.until_there([newest("BTCUSDT")], LONG_S))
        await has_begun(bench.waits, 1)
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        assert len(bench.waits) == 0

    in_time(work)


def test_bars_are_looked_for_while_all_that_is_lacking_is_waited_for() -> None:
    bench = Bench()
    both = [newest("BTCUSDT"), newest("ETHUSDT")]

    async def work() -> None:
        assert not bench.waits.are_looked_for(both)
        task = asyncio.create_task(bench.waits.until_there([newest("BTCUSDT")], LONG_S))
        await has_begun(bench.waits, 1)
        assert bench.waits.are_looked_for([newest("BTCUSDT")])
        assert not bench.waits.are_looked_for(both)  # nobody asks for the other one
        bench.fetch("ETHUSDT")
        assert bench.waits.are_looked_for(both)
        bench.fetch("BTCUSDT")
        assert await task
        assert not bench.waits.are_looked_for(both)

    in_time(work)


def test_a_thousand_who_wait_are_one_look_and_one_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_AGAIN_S", 0.001)
    bench = Bench()

    async def work() -> None:
        tasks = [
            asyncio.create_task(bench.waits.until_there([newest("BTCUSDT")], LONG_S))
            for _ in range(1_000)
        ]
        while not bench.looks:
            await asyncio.sleep(0.001)
        bench.fetch("BTCUSDT")
        assert all(await asyncio.gather(*tasks))

    in_time(work)
    assert all(look == [newest("BTCUSDT")] for look in bench.looks)


def test_an_aggregated_bar_waits_for_all_that_it_is_made_of() -> None:
    bench = Bench()
    service = MarketService("synthetic:7", MemoryCandles(), bench.venue, bench.clock)
    request = BarsRequest(MarketType.FUTURES, ("BTCUSDT",), Frequency.MINUTE_5, 300, NOW)
    assert service.newest(request) == {
        (line("BTCUSDT"), NOW - back * MINUTE) for back in range(1, 6)
    }
    service.close()


def test_a_look_leaves_for_later_what_cannot_be_had() -> None:
    bench = Bench()
    service = MarketService("synthetic:7", MemoryCandles(), bench.venue, bench.clock)
    bench.venue.down = True
    service.look([newest("BTCUSDT")])
    bench.venue.down, bench.venue.late_by = False, timedelta(0)
    service.look([newest("BTCUSDT")])
    assert service.book.has(*newest("BTCUSDT"))
    service.close()
