"""The market service: any frequency, closed bars only, clear answers for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from module.market import service as service_module
from module.market.collector import LATE_LOOKS_S, Collector
from module.market.series import aggregate
from module.market.service import BarsRequest, MarketService
from module.model.errors import InvalidInput, NotFound, NotYet, Unavailable
from module.model.market import Frequency, MarketType
from module.model.series import Series
from tests.fakes.market_data import ArithmeticVenue, HandClock, MemoryCandles, at, made_candle

NOW = at("2025-03-05 09:20")
MARKET_ID = "synthetic:7"


class Bench:
    def __init__(self) -> None:
        self.clock = HandClock(NOW)
        self.venue = ArithmeticVenue(self.clock)
        self.store = MemoryCandles()
        self.service = MarketService(MARKET_ID, self.store, self.venue, self.clock)
        self.collector = Collector(self.service, self.store, self.clock, stop_fd=0)

    def ask(
        self,
        *symbols: str,
        frequency: Frequency = Frequency.MINUTE_5,
        window: int = 3,
        end: datetime = NOW,
    ) -> dict[str, list[datetime]]:
        request = BarsRequest(MarketType.FUTURES, symbols, frequency, window, end)
        found = self.service.bars(request)
        return {symbol: [bar.closes_at for bar in bars] for symbol, bars in found.items()}


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.collector.close()
    made.service.close()


@pytest.mark.parametrize("frequency", list(Frequency))
def test_every_frequency_is_served_and_ends_with_the_last_closed_bar(
    bench: Bench, frequency: Frequency
) -> None:
    request = BarsRequest(MarketType.FUTURES, ("BTCUSDT",), frequency, 4, NOW)
    bars = bench.service.bars(request)["BTCUSDT"]
    assert len(bars) == 4
    assert bars[-1].closes_at <= NOW < bars[-1].closes_at + frequency.length
    assert [bar.frequency for bar in bars] == [frequency] * 4


def test_an_aggregated_bar_is_what_its_minutes_say(bench: Bench) -> None:
    request = BarsRequest(MarketType.FUTURES, ("ETHUSDT",), Frequency.MINUTE_5, 1, NOW)
    minutes = [
        made_candle("ETHUSDT", Frequency.MINUTE_1, NOW - timedelta(minutes=back))
        for back in range(5, 0, -1)
    ]
    assert bench.service.bars(request)["ETHUSDT"] == aggregate(minutes, Frequency.MINUTE_5)


def test_an_end_between_boundaries_means_the_boundary_before(bench: Bench) -> None:
    assert bench.ask("BTCUSDT", end=NOW - timedelta(seconds=61)) == {
        "BTCUSDT": [at("2025-03-05 09:05"), at("2025-03-05 09:10"), at("2025-03-05 09:15")]
    }


def test_a_bar_that_closes_in_the_future_is_not_yet(bench: Bench) -> None:
    with pytest.raises(NotYet, match="still open"):
        bench.ask("BTCUSDT", end=NOW + timedelta(minutes=5))


def test_a_late_last_bar_is_not_yet_and_then_there(bench: Bench) -> None:
    bench.venue.late_by = timedelta(milliseconds=700)
    with pytest.raises(NotYet, match="09:20:00Z has not arrived for BTCUSDT"):
        bench.ask("BTCUSDT")
    bench.clock.sleep(0.75)
    assert bench.ask("BTCUSDT")["BTCUSDT"][-1] == NOW


def test_a_bar_with_a_missing_minute_is_absent_whole(bench: Bench) -> None:
    bench.venue.holes.add((Frequency.MINUTE_1, at("2025-03-05 09:12")))
    assert bench.ask("BTCUSDT") == {"BTCUSDT": [at("2025-03-05 09:10"), NOW]}


def test_long_bars_are_made_again_after_memory_forgot_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty = bench.ask("BTCUSDT", window=50)
    for name, bound in (("MADE_BARS_KEPT_PER_LINE", 10), ("MADE_BARS_KEPT_MAX", 7)):
        monkeypatch.setattr(service_module, name, bound)
        assert bench.ask("BTCUSDT", window=50) == plenty
        assert bench.ask("BTCUSDT", "ETHUSDT", window=50)["BTCUSDT"] == plenty["BTCUSDT"]


def test_a_minute_that_arrives_late_completes_its_long_bar(bench: Bench) -> None:
    late = (Frequency.MINUTE_1, at("2025-03-05 09:12"))
    bench.venue.holes.add(late)
    assert at("2025-03-05 09:15") not in bench.ask("BTCUSDT")["BTCUSDT"]
    bench.venue.holes.discard(late)
    bench.clock.sleep(61)
    assert at("2025-03-05 09:15") in bench.ask("BTCUSDT")["BTCUSDT"]


def test_C10_unknown_symbols_are_named_all_of_them(bench: Bench) -> None:
    with pytest.raises(NotFound, match="synthetic:7 has no futures symbol btcusdt, BTC/USDT"):
        bench.ask("ETHUSDT", "btcusdt", "BTC/USDT")


def test_a_symbol_listed_later_is_found_later(bench: Bench) -> None:
    bench.ask("BTCUSDT")
    bench.venue.names |= {"NEWUSDT"}
    bench.clock.sleep(31)
    bench.ask("NEWUSDT")


@pytest.mark.parametrize(
    ("window", "frequency"),
    [
        (0, Frequency.MINUTE_1),
        (10_001, Frequency.MINUTE_1),
        (2_001, Frequency.MINUTE_30),
        (-5, Frequency.DAY_1),
    ],
)
def test_a_window_out_of_bounds_says_what_is_possible(
    bench: Bench, window: int, frequency: Frequency
) -> None:
    with pytest.raises(InvalidInput, match="window"):
        bench.ask("BTCUSDT", window=window, frequency=frequency)


def test_the_collector_follows_what_was_asked_for(bench: Bench) -> None:
    bench.ask("BTCUSDT")
    bench.ask("ETHUSDT", frequency=Frequency.HOUR_1)
    bench.clock.sleep_until(NOW + timedelta(minutes=1))
    assert bench.collector.collect() == ""
    for symbol in ("BTCUSDT", "ETHUSDT"):
        series = Series(MARKET_ID, MarketType.FUTURES, symbol, Frequency.MINUTE_1)
        assert max(bench.store.rows[series]) == NOW
    bench.venue.down = True
    assert bench.ask("ETHUSDT", frequency=Frequency.MINUTE_1, end=NOW + timedelta(minutes=1))


def test_a_new_series_gets_its_newest_bars_first_and_its_day_of_history_once(bench: Bench) -> None:
    bench.ask("BTCUSDT", frequency=Frequency.MINUTE_1)
    series = Series(MARKET_ID, MarketType.FUTURES, "BTCUSDT", Frequency.MINUTE_1)
    assert bench.collector.collect() == ""
    assert max(bench.store.rows[series]) == NOW - timedelta(minutes=1)
    assert min(bench.store.rows[series]) > NOW - timedelta(hours=12)
    bench.collector.catch_up(NOW + timedelta(seconds=50))
    day = {NOW - timedelta(minutes=number) for number in range(1, 24 * 60 + 1)}
    assert day <= set(bench.store.rows[series])
    calls = bench.venue.calls
    bench.collector.catch_up(NOW + timedelta(seconds=50))
    assert bench.venue.calls == calls


def test_the_collector_forgets_what_nobody_has_asked_for_in_two_days(bench: Bench) -> None:
    bench.ask("BTCUSDT")
    bench.clock.sleep(2 * 86_400 + 1)
    calls = bench.venue.calls
    assert bench.collector.collect() == ""
    assert bench.venue.calls == calls


def test_the_collector_says_that_the_gateway_is_away_and_fills_the_gap_afterwards(
    bench: Bench,
) -> None:
    bench.ask("BTCUSDT")
    assert bench.collector.collect() == ""
    bench.venue.down = True
    for _ in range(3):
        bench.clock.sleep(60)
        assert "the gateway does not answer" in bench.collector.collect()
    assert bench.clock.paused_s > 0
    bench.venue.down = False
    bench.clock.sleep(60)
    assert bench.collector.collect() == ""
    series = Series(MARKET_ID, MarketType.FUTURES, "BTCUSDT", Frequency.MINUTE_1)
    minutes = [NOW + timedelta(minutes=number) for number in range(4)]
    assert set(minutes) <= set(bench.store.rows[series])


def test_the_collector_looks_again_for_a_late_bar(bench: Bench) -> None:
    bench.ask("BTCUSDT")
    bench.collector.collect()
    bench.venue.late_by = timedelta(seconds=1.2)
    bench.clock.sleep_until(NOW + timedelta(minutes=1))
    assert bench.collector.collect() == ""
    assert bench.clock.now() < NOW + timedelta(minutes=1, seconds=sum(LATE_LOOKS_S))


def test_without_postgres_what_is_known_is_served_and_the_rest_is_unavailable(
    bench: Bench,
) -> None:
    bench.ask("BTCUSDT")
    bench.store.down = True
    assert bench.ask("BTCUSDT")["BTCUSDT"][-1] == NOW
    assert bench.service.ready()
    with pytest.raises(Unavailable):
        bench.ask("ETHUSDT")
    assert not bench.service.ready()
    assert "watched symbols cannot be stored" in bench.service.health().problem
    bench.store.down = False
    bench.ask("ETHUSDT")
    assert bench.service.ready()
