"""A market whose bars a test writes itself: flat at one price unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from module.simulator.engine.price_feed import merge_bars
from module.simulator.prices.instruments import (
    FuturesInstrument,
    SpotInstrument,
    futures_instrument,
    spot_instrument,
)
from module.simulator.prices.market_source import HOUR_MS, MINUTE_MS, Bar, FundingPoint, PriceKind

START_MS = 1_750_000_020_000  # a whole minute: 2025-06-15 15:07:00 UTC
DEFAULT_PRICES = {"BTCUSDT": Decimal("50000.0"), "ETHUSDT": Decimal("2000.00")}


class ScriptedMarket:
    """Bars by (symbol, minute number since START_MS); a minute without one stays at the last."""

    market_id = "scripted"

    def __init__(self, prices: dict[str, Decimal] | None = None) -> None:
        self.prices = dict(prices or DEFAULT_PRICES)
        self.script: dict[tuple[str, int], tuple[Decimal, Decimal, Decimal, Decimal]] = {}
        self.marks: dict[tuple[str, int], tuple[Decimal, Decimal, Decimal, Decimal]] = {}
        self.gaps: set[tuple[str, int]] = set()
        self.rates: dict[int, Decimal] = {}
        self.first_minute = -10_000
        self.last_minute: int | None = None

    def bar_at(self, symbol: str, minute: int, prices: str) -> None:
        """Write one bar as "open high low close"."""
        opened, high, low, closed = (Decimal(word) for word in prices.split())
        self.script[symbol, minute] = (opened, high, low, closed)

    def flat_from(self, symbol: str, minute: int, price: str) -> None:
        """From `minute` on the price is `price` (until the script says otherwise)."""
        self.bar_at(symbol, minute, f"{price} {price} {price} {price}")

    def mark_at(self, symbol: str, minute: int, prices: str) -> None:
        """Write one bar of mark (and index); where there is none they follow last."""
        opened, high, low, closed = (Decimal(word) for word in prices.split())
        self.marks[symbol, minute] = (opened, high, low, closed)

    def fund(self, minute: int, rate: str) -> None:
        """A settlement at the opening of `minute`, for every symbol."""
        self.rates[START_MS + minute * MINUTE_MS] = Decimal(rate)

    def futures(self) -> Sequence[FuturesInstrument]:
        return [futures_instrument(name, price) for name, price in sorted(self.prices.items())]

    def spot(self) -> Sequence[SpotInstrument]:
        return [spot_instrument(name, price) for name, price in sorted(self.prices.items())]

    def span(self, symbol: str | None = None) -> tuple[int | None, int | None]:
        last_ms = None if self.last_minute is None else START_MS + self.last_minute * MINUTE_MS
        return START_MS + self.first_minute * MINUTE_MS, last_ms

    def native_minutes(self, symbol: str) -> int:
        return 1

    def bar(
        self,
        symbol: str,
        open_ms: int,
        kind: PriceKind = PriceKind.LAST,
        low_first: bool | None = None,
    ) -> Bar | None:
        minute = (open_ms - START_MS) // MINUTE_MS
        if kind is not PriceKind.LAST:
            mark = self.marks.get((symbol, minute))
            return None if mark is None else Bar(open_ms, *mark, Decimal(0), Decimal(0))
        over = self.last_minute is not None and minute > self.last_minute
        if (
            symbol not in self.prices
            or over
            or minute < self.first_minute
            or (symbol, minute) in self.gaps
        ):
            return None
        values = self.script.get((symbol, minute))
        if values is None:
            earlier = [at for name, at in self.script if name == symbol and at < minute]
            close = self.script[symbol, max(earlier)][3] if earlier else self.prices[symbol]
            values = (close, close, close, close)
        return Bar(open_ms, *values, Decimal(12), values[3] * 12)

    def merged_bar(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> Bar | None:
        bars = [self.bar(symbol, open_ms + index * MINUTE_MS, kind) for index in range(minutes)]
        return merge_bars(open_ms, [bar for bar in bars if bar is not None])

    def extremes(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> tuple[Decimal, Decimal] | None:
        bar = self.merged_bar(symbol, open_ms, minutes, kind)
        return (bar.low, bar.high) if bar is not None else None

    def latest_bar(self, symbol: str, open_ms: int) -> Bar | None:
        for back in range(1000):
            bar = self.bar(symbol, open_ms - back * MINUTE_MS)
            if bar is not None:
                return bar
        return None

    def known_until_ms(self, now_ms: int) -> int:
        """A test may write the next minute at any time."""
        return now_ms

    def next_funding(self, symbol: str, after_ms: int) -> FundingPoint | None:
        later = [moment for moment in self.rates if moment > after_ms]
        if later:
            return FundingPoint(min(later), self.rates[min(later)])
        return FundingPoint(after_ms + 8 * HOUR_MS, Decimal("0.0001"))

    def funding_between(self, symbol: str, first_ms: int, last_ms: int) -> Sequence[FundingPoint]:
        return [
            FundingPoint(moment, rate)
            for moment, rate in sorted(self.rates.items())
            if first_ms <= moment <= last_ms
        ]

    def funding_interval_h(self, symbol: str, at_ms: int) -> int:
        return 8
