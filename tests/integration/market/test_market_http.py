"""Candles over a real socket, out of a real Postgres: the service, its door, and its client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from fastapi import FastAPI, Response
from sqlalchemy import text

from api.problems import install_problems
from api.routers.market import build_router
from module.clock import SystemClock
from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.repositories.candles import PostgresCandles
from module.market.collector import Collector
from module.market.gateway_source import GatewayCandles
from module.market.market_client import HELD_S, MarketServiceClient
from module.market.service import MarketService
from module.model.canonical import canonical_json, instant_text, parse_instant
from module.model.errors import (
    InvalidInput,
    NotFound,
    NotYet,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from module.model.market import Frequency, Instrument, MarketType
from module.model.money import ONE
from module.model.series import Series, Stretch
from module.security.tokens import mint_grant, service_grant, session_grant
from module.settings import Settings
from module.wire.model_codec import to_document
from module.wire.service_http import ServiceHttp
from tests.fakes.market_data import ArithmeticVenue, HandClock, at, made_candle
from tests.fakes.serving import served

NOW = at("2025-03-05 09:20")
MINUTE = timedelta(minutes=1)
MARKET_ID = "synthetic:7"
KEY = "k" * 43


class Bench:
    """Gateway's candle routes, market service and client, each over its own socket."""

    def __init__(self, database: Database, serve: Callable[[FastAPI], str]) -> None:
        self.clock = HandClock(NOW)
        self.venue = ArithmeticVenue(self.clock)
        self.store = PostgresCandles(database)
        self.gateway_url = serve(_gateway(self.venue))
        token = mint_grant(service_grant("market"), KEY)
        source = GatewayCandles(self.gateway_url, MARKET_ID, token)
        self.service = MarketService(MARKET_ID, self.store, source, self.clock)
        app = FastAPI()
        install_problems(app)
        app.include_router(build_router(self.service, KEY))
        self.url = serve(app)
        self.client = self.client_with(mint_grant(session_grant("a-1", "s-1", "u-1"), KEY))

    def client_with(self, token: str, market_id: str = MARKET_ID) -> MarketServiceClient:
        return MarketServiceClient(self.url, market_id, MarketType.FUTURES, token, self.clock)

    def patient_client(self, url: str = "") -> tuple[MarketServiceClient, SleeplessClock]:
        """In real time, where the service holds what is still to come; and its clock."""
        clock = SleeplessClock()
        token = mint_grant(session_grant("a-1", "s-1", "u-1"), KEY)
        client = MarketServiceClient(
            url or self.url,
            MARKET_ID,
            MarketType.FUTURES,
            token,
            clock,
            not_yet_patience=timedelta(seconds=60),
            held_s=HELD_S,
        )
        return client, clock


class SleeplessClock(SystemClock):
    """Real time, which the client has no reason to let pass itself; `slept_s` says that it did."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        super().sleep(seconds)


def _gateway(venue: ArithmeticVenue) -> FastAPI:
    app = FastAPI()
    install_problems(app)

    @app.get("/gateway/markets/candles")
    def candles(market: str, symbol: str, frequency: str, end: str, limit: int) -> Response:
        series = Series(MARKET_ID, MarketType(market), symbol, Frequency(frequency))
        found = venue.candles(series, parse_instant(end), limit)
        return Response(canonical_json(to_document(found)), media_type="application/json")

    @app.get("/gateway/markets/instruments")
    def instruments(market: str) -> Response:
        kind = MarketType(market)
        found = [
            Instrument(name, name[:-4], "USDT", kind, ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE)
            for name in venue.symbols(kind)
        ]
        return Response(canonical_json(to_document(found)), media_type="application/json")

    return app


@pytest.fixture
def bench(postgres: Settings) -> Iterator[Bench]:
    database = Database(postgres, "fin_crypto", 4)
    with database.transaction() as session:
        session.execute(text("TRUNCATE candles, candle_gaps, watched_symbols"))
    with served() as serve:
        made = Bench(database, serve)
        yield made
        made.client.close()
        made.service.close()
    database.close()


def test_bars_arrive_exactly_as_the_venue_told_them(bench: Bench) -> None:
    found = bench.client.closed_bars(["ETHUSDT", "BTCUSDT"], Frequency.MINUTE_1, 300, NOW)
    assert list(found) == ["ETHUSDT", "BTCUSDT"]
    for symbol, bars in found.items():
        assert list(bars) == [
            made_candle(symbol, Frequency.MINUTE_1, NOW - back * MINUTE)
            for back in range(300, 0, -1)
        ]


@pytest.mark.parametrize("frequency", list(Frequency))
def test_every_frequency_travels(bench: Bench, frequency: Frequency) -> None:
    bars = bench.client.closed_bars(["BTCUSDT"], frequency, 7, NOW)["BTCUSDT"]
    assert len(bars) == 7
    assert all(a.closes_at == b.opens_at for a, b in pairwise(bars))
    assert bars[-1].closes_at <= NOW < bars[-1].closes_at + frequency.length


def test_a_gap_in_the_middle_is_an_absent_row(bench: Bench) -> None:
    bench.venue.holes.add((Frequency.MINUTE_1, NOW - 3 * MINUTE))
    bars = bench.client.closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 5, NOW)["BTCUSDT"]
    assert [(NOW - bar.opens_at) // MINUTE for bar in bars] == [5, 4, 2, 1]


def test_the_client_waits_in_world_time_for_a_late_bar(bench: Bench) -> None:
    bench.venue.late_by = timedelta(seconds=2)
    bars = bench.client.closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 2, NOW)["BTCUSDT"]
    assert bars[-1].closes_at == NOW
    assert timedelta(seconds=2) <= bench.clock.now() - NOW < timedelta(seconds=3)
    assert bench.clock.paused_s == 0


def test_the_client_gives_up_after_five_world_seconds(bench: Bench) -> None:
    bench.venue.late_by = timedelta(seconds=90)
    with pytest.raises(NotYet, match="has not arrived"):
        bench.client.closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 2, NOW)
    waited = bench.clock.now() - NOW
    assert timedelta(seconds=5) <= waited < timedelta(seconds=5.2)


def test_a_late_bar_ends_the_request_that_the_service_holds_for_it(bench: Bench) -> None:
    bench.venue.late_by = timedelta(seconds=90)
    client, clock = bench.patient_client()
    found: list[datetime] = []

    def ask() -> None:
        bars = client.closed_bars(["BTCUSDT", "ETHUSDT"], Frequency.MINUTE_5, 2, NOW)
        found.extend(candles[-1].closes_at for candles in bars.values())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not len(bench.service.waits):
        threading.Event().wait(0.001)
    bench.venue.late_by = timedelta(0)
    bench.clock.sleep(1)
    for thread in threads:
        thread.join(timeout=60)
    client.close()
    assert found == [NOW, NOW] * 3
    assert clock.slept_s == []


def test_a_request_is_held_for_seconds_at_most(bench: Bench) -> None:
    query = {"market_id": MARKET_ID, "symbols": "BTCUSDT", "frequency": "1m", "window": "1"}
    token = mint_grant(session_grant("a-1", "s-1", "u-1"), KEY)
    for wait_s in (str(HELD_S + 0.1), "nan", "-1"):
        answer = ServiceHttp(bench.url, token).call(
            "GET", "/market/bars", query={**query, "end": instant_text(NOW), "wait_s": wait_s}
        )
        assert answer.status == 422, wait_s


def test_the_client_asks_again_when_the_service_ends_while_it_holds(bench: Bench) -> None:
    calls: list[str] = []
    app = FastAPI()

    @app.get("/market/bars")
    def bars(wait_s: float) -> Response:
        calls.append("held" if wait_s else "not held")
        if len(calls) == 1:
            return Response(b"{", headers={"content-length": "99"})  # it ended in the middle
        rows = {"BTCUSDT": [[0, "1", "1", "1", "1", "1"]]}
        return Response(canonical_json({"bars": rows}), media_type="application/json")

    with served() as serve:
        client, _ = bench.patient_client(serve(app))
        assert client.closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 1, NOW)["BTCUSDT"]
        client.close()
    assert calls == ["held", "held"]


def test_unknown_symbols_wrong_markets_and_bad_words_are_told_apart(bench: Bench) -> None:
    with pytest.raises(NotFound, match="NOPEUSDT"):
        bench.client.closed_bars(["NOPEUSDT"], Frequency.MINUTE_1, 2, NOW)
    with pytest.raises(InvalidInput, match="window"):
        bench.client.closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 0, NOW)
    other = bench.client_with(mint_grant(service_grant("platform"), KEY), "bitget-live")
    with pytest.raises(NotFound, match="synthetic:7"):
        other.closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 2, NOW)


def test_without_a_grant_of_this_installation_there_are_no_bars(bench: Bench) -> None:
    for token in ("nonsense", mint_grant(service_grant("platform"), "x" * 43)):
        with pytest.raises(Unauthenticated):
            bench.client_with(token).closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 2, NOW)


def test_symbols_are_listed(bench: Bench) -> None:
    assert bench.client.symbols() == ["BTCUSDT", "ETHUSDT"]


def test_a_used_up_budget_of_the_gateway_reaches_the_client_as_such(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    real = bench.venue.candles

    def refusing_twice(*arguments: object) -> object:
        asked.append(bench.clock.monotonic())
        if len(asked) <= 2:
            raise RateLimited("the budget is used up", retry_after_s=0.4)
        return real(*arguments)  # type: ignore[arg-type]  # passed through unchanged

    monkeypatch.setattr(bench.venue, "candles", refusing_twice)
    assert bench.client.closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 2, NOW)["BTCUSDT"]
    assert bench.clock.now() - NOW == timedelta(seconds=0.8)


def test_a_gateway_that_is_away_is_unavailable_after_bounded_tries(bench: Bench) -> None:
    bench.venue.down = True
    with pytest.raises(Unavailable):
        bench.client.closed_bars(["BTCUSDT"], Frequency.MINUTE_1, 2, NOW)
    assert bench.clock.now() == NOW
    assert bench.clock.paused_s > 1


def test_E3_postgres_killed_in_the_middle_of_collecting_loses_no_bar(
    bench: Bench, postgres_server: EmbeddedPostgres
) -> None:
    bench.client.closed_bars(["BTCUSDT", "ETHUSDT"], Frequency.MINUTE_1, 5, NOW)
    collector = Collector(bench.service, bench.store, bench.clock, stop_fd=0)
    started = threading.Event()
    stop = threading.Event()
    failures: list[BaseException] = []

    def collect() -> None:
        try:
            # a restart is a few hundred minutes long, not the days after which nobody follows them
            while not stop.wait(0.02):
                bench.clock.sleep(60)
                collector.collect()
                started.set()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        assert started.wait(20)
        for _ in range(2):
            postgres_server.kill()
            postgres_server.start(ends_with_parent=True)
    finally:
        stop.set()
        thread.join(timeout=60)
    assert failures == []
    bench.clock.sleep(60)
    assert collector.collect() == ""
    collector.close()
    last = bench.clock.now()
    window = (last - NOW) // MINUTE
    fresh = MarketService(MARKET_ID, bench.store, bench.venue, bench.clock)
    bench.venue.given.clear()
    wanted = min(window, 120)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        series = Series(MARKET_ID, MarketType.FUTURES, symbol, Frequency.MINUTE_1)
        bars = fresh.book.bars(series, Stretch(last - wanted * MINUTE, last), last)
        assert bars == [
            made_candle(symbol, Frequency.MINUTE_1, last - back * MINUTE)
            for back in range(wanted, 0, -1)
        ]
    assert bench.venue.given == []
    fresh.close()
