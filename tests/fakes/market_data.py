"""A venue's candles made of arithmetic, a store in memory, and a clock moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from module.market.series import floor_to
from module.model.errors import Unavailable
from module.model.market import Candle, Frequency, MarketType
from module.model.series import Gap, Series, Stretch, Watched

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    """`2025-03-03 09:17` as aware UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def made_candle(symbol: str, frequency: Frequency, opens_at: datetime) -> Candle:
    """The one bar that this symbol has at this time: prices that nobody mistakes for others."""
    minute = (opens_at - EPOCH) // timedelta(minutes=1)
    base = 1_000 + (minute * 7919 + sum(map(ord, symbol)) * 31) % 997
    return Candle(
        symbol,
        frequency,
        opens_at,
        Decimal(base),
        Decimal(base + 3 + minute % 5),
        Decimal(base - 2 - minute % 3),
        Decimal(base + minute % 3) + Decimal("0.25"),
        Decimal(minute % 11) + Decimal("0.125"),
    )


class HandClock:
    """World time moves when a test says so, or when somebody sleeps."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self.paused_s = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return (self._now - EPOCH).total_seconds() + self.paused_s

    def wall(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    def sleep_until(self, when: datetime) -> None:
        self._now = max(self._now, when)

    def pause(self, seconds: float) -> None:
        self.paused_s += seconds

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        assert until is not None
        self.sleep_until(until)
        return []

    def wake(self, participant: str) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class ArithmeticVenue:
    """Every symbol has every bar, except `holes`, and nothing before `listed_at`.

    `late_by` is how long after its close a bar appears; `down` makes every call fail; `page_max`
    is how many bars one answer has at most. Counts what it was asked for.
    """

    clock: HandClock
    names: frozenset[str] = frozenset({"BTCUSDT", "ETHUSDT"})
    holes: set[tuple[Frequency, datetime]] = field(default_factory=set)
    listed_at: datetime = EPOCH
    late_by: timedelta = timedelta(0)
    page_max: int = 1_000
    down: bool = False
    calls: int = 0
    given: list[tuple[str, Frequency, datetime]] = field(default_factory=list)
    spoiled: dict[tuple[Frequency, datetime], Candle] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def symbols(self, market: MarketType) -> frozenset[str]:
        self._answer()
        return self.names

    def candles(self, series: Series, end: datetime, limit: int) -> list[Candle]:
        self._answer()
        length = series.frequency.length
        last = min(
            floor_to(series.frequency, end),
            floor_to(series.frequency, self.clock.now() - self.late_by),
        )
        page: list[Candle] = []
        with self.lock:
            for back in range(min(limit, self.page_max), 0, -1):
                opens_at = last - back * length
                hole = (series.frequency, opens_at) in self.holes
                if opens_at < self.listed_at or hole:
                    continue
                made = made_candle(series.symbol, series.frequency, opens_at)
                page.append(self.spoiled.get((series.frequency, opens_at), made))
                self.given.append((series.symbol, series.frequency, opens_at))
        return page

    def _answer(self) -> None:
        with self.lock:
            self.calls += 1
        if self.down:
            raise Unavailable("the gateway does not answer (refused)")


class MemoryCandles:
    """A CandleStore that forgets at the end of the test; `down` makes every call fail."""

    def __init__(self) -> None:
        self.rows: dict[Series, dict[datetime, Candle]] = {}
        self.gap_rows: dict[tuple[Series, datetime], Gap] = {}
        self.watched_rows: dict[tuple[str, MarketType, str], datetime] = {}
        self.down = False
        self.saved = 0

    def candles(self, series: Series, stretch: Stretch) -> list[Candle]:
        self._answer()
        rows = self.rows.get(series, {})
        return [rows[key] for key in sorted(rows) if stretch.first <= key < stretch.until]

    def save(self, series: Series, candles: Sequence[Candle]) -> None:
        self._answer()
        self.saved += len(candles)
        self.rows.setdefault(series, {}).update({each.opens_at: each for each in candles})

    def last_opening(self, series: Series) -> datetime | None:
        self._answer()
        return max(self.rows.get(series, {}), default=None)

    def gaps(self, series: Series, stretch: Stretch) -> list[Gap]:
        self._answer()
        return [
            gap
            for (owner, _), gap in self.gap_rows.items()
            if owner == series
            and gap.stretch.first < stretch.until
            and gap.stretch.until > stretch.first
        ]

    def record_gap(self, series: Series, gap: Gap) -> None:
        self._answer()
        self.gap_rows[series, gap.stretch.first] = gap

    def watch(
        self, market_id: str, market: MarketType, symbols: Sequence[str], asked_at: datetime
    ) -> None:
        self._answer()
        for symbol in symbols:
            self.watched_rows[market_id, market, symbol] = asked_at

    def watched(self, market_id: str, asked_since: datetime) -> list[Watched]:
        self._answer()
        return [
            Watched(market, symbol, when)
            for (owner, market, symbol), when in sorted(self.watched_rows.items())
            if owner == market_id and when >= asked_since
        ]

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("database fin_crypto does not answer")
