"""The market service: closed bars of any frequency, made of native ones, never half a bar.

Stands between the HTTP door (`api.routers.market`) and the book of candles. No thread waits for
time: what is not there yet is NotYet, and the caller asks again on its own clock, or is told by
`waits` when it is there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from module.market.book import SETTLED_AFTER, CandleBook
from module.market.paced_source import PacedSource
from module.market.series import (
    aggregate,
    floor_to,
    missing_stretches,
    native_of,
    openings,
)
from module.market.store import CandleSource, CandleStore
from module.market.waiting import Bar, BarWaits
from module.model.canonical import instant_text
from module.model.errors import (
    InvalidInput,
    NotFound,
    NotYet,
    RateLimited,
    Rejected,
    Retryable,
    Unavailable,
)
from module.model.market import Candle, Frequency, MarketType
from module.model.series import Series, Stretch
from module.ports import Clock

WINDOW_MAX: Final = 10_000
SYMBOLS_MAX: Final = 200
NATIVE_BARS_MAX: Final = 60_000
FETCH_THREADS: Final = 4
MADE_BARS_KEPT_PER_LINE: Final = 4_000
MADE_BARS_KEPT_MAX: Final = 100_000
WATCH_RENEWED_AFTER: Final = timedelta(hours=1)
SYMBOLS_FRESH_S: Final = 600.0
UNKNOWN_SYMBOL_RECHECK_S: Final = 30.0
RETRY_NOT_YET_S: Final = 0.05
RETRY_NO_ROOM_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class BarsRequest:
    """`window` bars of each symbol, the last closing at or before `end`."""

    market: MarketType
    symbols: tuple[str, ...]
    frequency: Frequency
    window: int
    end: datetime


@dataclass(frozen=True, slots=True)
class MarketHealth:
    """What the service says of itself. `problem` is empty while all is well."""

    market_id: str
    collector_running: bool
    collected_until: datetime | None
    watched: int
    unsound_bars: int
    problem: str

    @property
    def ok(self) -> bool:
        """Whether candles arrive."""
        return not self.problem


@dataclass(slots=True)
class _Listing:
    symbols: frozenset[str]
    read_at_s: float


class MarketService:
    """Candles of one `market_id`. Threads may share it; one process per installation owns it."""

    def __init__(
        self, market_id: str, store: CandleStore, source: CandleSource, clock: Clock
    ) -> None:
        """`clock` is only looked at, never waited on: an observer's clock will do."""
        self.market_id = market_id
        self._store = store
        self._source = PacedSource(source, clock)
        self._clock = clock
        self.book = CandleBook(store, self._source)
        self.waits = BarWaits(self.book, self.look)
        self._made: dict[Series, dict[datetime, Candle]] = {}
        self._listings: dict[MarketType, _Listing] = {}
        self._watched_at: dict[tuple[MarketType, str], datetime] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="market-fetch")
        self._collector_health = MarketHealth(market_id, False, None, 0, 0, "")
        self._watch_problem = ""

    def bars(self, request: BarsRequest) -> Mapping[str, Sequence[Candle]]:
        """Closed bars of each symbol, oldest first; a bar the venue does not have is absent.

        NotYet while the last bar is still to come (or late). NotFound names unknown symbols.
        InvalidInput for a window that is too large. Retryable errors of gateway and Postgres pass;
        of a budget that is used up it is said to ask again soon, since others fetch the same bars.
        """
        self.check(request)
        now = self._clock.now()
        frequency = request.frequency
        until = floor_to(frequency, request.end)
        if until > now:
            raise NotYet(
                f"the {frequency} bar that closes at {instant_text(until)} is still open",
                retry_after_s=min(5.0, (until - now).total_seconds()),
            )
        self._require_listed(request.market, request.symbols)
        self._watch(request.market, request.symbols, now)
        wanted = Stretch(until - request.window * frequency.length, until)

        def one(symbol: str) -> list[Candle]:
            line = Series(self.market_id, request.market, symbol, frequency)
            return self._closed(line, wanted, now)

        try:
            others = [s for s in request.symbols if not self._is_at_hand(request, s, wanted)]
            fetched = dict(zip(others, self._threads.map(one, others), strict=True))
            found = {s: fetched[s] if s in fetched else one(s) for s in request.symbols}
        except RateLimited as error:
            wait_s = min(error.retry_after_s or RETRY_NO_ROOM_S, RETRY_NO_ROOM_S)
            raise RateLimited(error.message, retry_after_s=wait_s) from error
        if now - until < SETTLED_AFTER:
            last = until - frequency.length
            late = [s for s in request.symbols if not found[s] or found[s][-1].opens_at < last]
            if late:
                raise NotYet(
                    f"the {frequency} bar that closes at {instant_text(until)} has not arrived "
                    f"for {', '.join(late[:5])}",
                    retry_after_s=RETRY_NOT_YET_S,
                )
        return found

    def newest(self, request: BarsRequest) -> frozenset[Bar]:
        """The native bars that the last bar of each symbol is made of: what `bars` says NotYet
        for."""
        frequency = request.frequency
        until = floor_to(frequency, request.end)
        native = native_of(frequency)
        opened_at = openings(native, Stretch(until - frequency.length, until))
        return frozenset(
            (Series(self.market_id, request.market, symbol, native), opens_at)
            for symbol in request.symbols
            for opens_at in opened_at
        )

    def look(self, bars: Collection[Bar]) -> None:
        """Ask for bars that somebody waits for; one that cannot be had now is left for later."""
        now = self._clock.now()

        def one(bar: Bar) -> None:
            series, opens_at = bar
            stretch = Stretch(opens_at, opens_at + series.frequency.length)
            with contextlib.suppress(Retryable, Rejected):
                self.book.bars(series, stretch, now)

        list(self._threads.map(one, bars))

    def symbols(self, market: MarketType) -> list[str]:
        """Everything that the market lists, sorted; at most ten minutes old."""
        return sorted(self._listed(market, SYMBOLS_FRESH_S))

    def health(self) -> MarketHealth:
        """What the collector last said, and whether anything is wrong."""
        with self._lock:
            health = self._collector_health
        return MarketHealth(
            self.market_id,
            health.collector_running,
            health.collected_until,
            health.watched,
            self.book.unsound_bars,
            health.problem or self._watch_problem,
        )

    def ready(self) -> bool:
        """Whether candles arrive: what a readiness probe asks."""
        return self.health().ok

    def report(
        self, *, running: bool, collected_until: datetime | None, watched: int, problem: str
    ) -> None:
        """The collector says how it is."""
        with self._lock:
            self._collector_health = MarketHealth(
                self.market_id, running, collected_until, watched, 0, problem
            )

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _closed(self, line: Series, wanted: Stretch, now: datetime) -> list[Candle]:
        """Closed bars of any frequency; those that are not native are made once and kept."""
        native = native_of(line.frequency)
        if native is line.frequency:
            return self.book.bars(line, wanted, now)
        source = replace(line, frequency=native)
        with self._lock:
            made = self._made.setdefault(line, {})
        wanted_openings = openings(line.frequency, wanted)
        held = [opens_at for opens_at in wanted_openings if opens_at in made]
        for missing in missing_stretches(held, line.frequency, wanted):
            for candle in aggregate(self.book.bars(source, missing, now), line.frequency):
                made[candle.opens_at] = candle
        found = [made[opens_at] for opens_at in wanted_openings if opens_at in made]
        self._bound_made(line, found)
        return found

    def _is_at_hand(self, request: BarsRequest, symbol: str, wanted: Stretch) -> bool:
        """Whether memory has the bars: a thread for them would cost more than it saves."""
        native = native_of(request.frequency)
        return self.book.covers(Series(self.market_id, request.market, symbol, native), wanted)

    def _bound_made(self, line: Series, just_served: list[Candle]) -> None:
        """Forget what was made long ago: of one line what was not just served, at worst all."""
        with self._lock:
            if len(self._made.get(line, ())) > MADE_BARS_KEPT_PER_LINE:
                newest = just_served[-MADE_BARS_KEPT_PER_LINE // 2 :]
                self._made[line] = {candle.opens_at: candle for candle in newest}
            if sum(map(len, self._made.values())) > MADE_BARS_KEPT_MAX:
                self._made.clear()

    def check(self, request: BarsRequest) -> None:
        """InvalidInput for what is never answered: no symbols, too many of them or of bars."""
        if not 1 <= len(request.symbols) <= SYMBOLS_MAX:
            raise InvalidInput(f"symbols: 1 to {SYMBOLS_MAX}, got {len(request.symbols)}")
        if not 1 <= request.window <= WINDOW_MAX:
            raise InvalidInput(f"window: 1 to {WINDOW_MAX} bars, got {request.window}")
        native = native_of(request.frequency)
        count = request.window * (request.frequency.length // native.length)
        if count > NATIVE_BARS_MAX:
            largest = NATIVE_BARS_MAX * native.length // request.frequency.length
            raise InvalidInput(
                f"window: {request.window} bars of {request.frequency} are {count} bars of "
                f"{native}; at most {largest} can be asked for at once"
            )

    def _require_listed(self, market: MarketType, symbols: Sequence[str]) -> None:
        listed = self._listed(market, SYMBOLS_FRESH_S)
        unknown = [symbol for symbol in symbols if symbol not in listed]
        if unknown:
            listed = self._listed(market, UNKNOWN_SYMBOL_RECHECK_S)
            unknown = [symbol for symbol in symbols if symbol not in listed]
        if unknown:
            raise NotFound(f"{self.market_id} has no {market} symbol {', '.join(unknown[:10])}")

    def _listed(self, market: MarketType, age_max_s: float) -> frozenset[str]:
        """What the market lists; an older listing is used while the gateway does not answer."""
        listing = self._listings.get(market)
        now_s = self._clock.monotonic()
        if listing is not None and now_s - listing.read_at_s < age_max_s:
            return listing.symbols
        try:
            symbols = self._source.symbols(market)
        except Unavailable:
            if listing is None:
                raise
            return listing.symbols
        self._listings[market] = _Listing(symbols, now_s)
        return symbols

    def _watch(self, market: MarketType, symbols: Sequence[str], now: datetime) -> None:
        """Have the collector follow them. Without Postgres the next request says it again."""
        due = [
            symbol
            for symbol in symbols
            if now - self._watched_at.get((market, symbol), now - 2 * WATCH_RENEWED_AFTER)
            >= WATCH_RENEWED_AFTER
        ]
        if not due:
            return
        try:
            self._store.watch(self.market_id, market, due, now)
        except Unavailable as error:
            self._watch_problem = f"watched symbols cannot be stored: {error.message}"
            return
        self._watch_problem = ""
        for symbol in due:
            self._watched_at[market, symbol] = now
