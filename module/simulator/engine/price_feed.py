"""Prices at any moment, computed when asked: the way inside a minute, jumps, candles.

    market source -> PriceFeed -> engine (last: orders and triggers; mark: margins; band: the book)

Inside a minute a price is a step function on a grid of 5 seconds (`minute_path`). Last, mark and
index walk together: the extreme that hurts comes first in all three, as the net position of all
accounts, or else their waiting orders, were when the minute opened. Bars that the source knows
only as hours are walked the same way, decided ten minutes into the hour.

The band. Nobody trades farther from the mark than the contract's limit ratio: the book stands
around `tradable`, which is last kept within mark x (1 +- band). A bad print of last is in the
candles, but fills only at the edge of the band, and the mark does not follow it (see `replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal

from module.model.errors import InvalidInput, require
from module.simulator.engine.engine_types import EngineRejected, RejectReason
from module.simulator.prices.market_source import HOUR_MS, MINUTE_MS, Bar, MarketSource, PriceKind
from module.simulator.prices.minute_path import (
    HOUR_DECISION_MINUTE,
    HOUR_MINUTES,
    POINT_MS,
    POINTS,
    low_comes_first,
    walk_minute,
)

__all__ = ["ALL_PRICES", "POINT_MS", "MinuteRanges", "PriceFeed", "merge_bars", "price_kinds"]

ALL_PRICES = frozenset(PriceKind)
_JUMPED_KEPT = 3_000
"""Minutes kept of one price that has jumped: two days."""


@dataclass(frozen=True, slots=True)
class MinuteRanges:
    """What last and mark can still become: no price of the time asked about is outside."""

    last_low: Decimal
    last_high: Decimal
    mark_low: Decimal
    mark_high: Decimal


@dataclass(slots=True)
class _Minute:
    open_ms: int
    bar: Bar | None
    """None: nothing was traded in this minute; the close of `before` is the price."""
    before: Bar
    exposure: int
    """+1 low first, -1 high first: decided by the bar of last, the same for all three prices."""
    hour_low_first: bool | None
    points: dict[PriceKind, tuple[Decimal, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Jump:
    at_ms: int
    factor: Decimal
    """All jumps up to and including this one, multiplied."""
    points: tuple[Decimal, ...] | None
    """The unscaled walk of the minute in which it happened."""


class PriceFeed:
    """The one place that knows what a symbol costs at `at_ms`."""

    def __init__(
        self,
        market: MarketSource,
        steps: Mapping[str, Decimal],
        exposure_at: Callable[[str, int], int],
        bands: Mapping[str, Decimal] | None = None,
    ) -> None:
        self._market = market
        self._steps = steps
        self._bands = bands or {}
        self._exposure_at = exposure_at
        self._minutes: dict[str, _Minute] = {}
        self._jumps: dict[tuple[str, PriceKind], list[_Jump]] = {}
        self._halts: dict[str, int] = {}
        self._jumped: dict[tuple[str, PriceKind], dict[int, Bar | None]] = {}

    # -- prices -------------------------------------------------------------------------------

    def last(self, symbol: str, at_ms: int) -> Decimal | None:
        """The traded price at `at_ms` (now, or any moment of its minute); None before listing."""
        return self.price(symbol, at_ms, PriceKind.LAST)

    def mark(self, symbol: str, at_ms: int) -> Decimal | None:
        """The price that margins, liquidation, funding and mark triggers use."""
        return self.price(symbol, at_ms, PriceKind.MARK)

    def index(self, symbol: str, at_ms: int) -> Decimal | None:
        """The price that the mark follows."""
        return self.price(symbol, at_ms, PriceKind.INDEX)

    def price(self, symbol: str, at_ms: int, kind: PriceKind) -> Decimal | None:
        """One of the three prices at `at_ms`; None before the symbol's first bar."""
        minute = self._minute(symbol, at_ms)
        if minute is None:
            return None
        raw = self._points(symbol, minute, kind)[(at_ms - minute.open_ms) // POINT_MS]
        return self._scaled(symbol, raw, at_ms, kind)

    def require_last(self, symbol: str, at_ms: int) -> Decimal:
        """Last at `at_ms`; refuses (SYMBOL_NOT_LISTED) where there has been none yet."""
        return self.require_price(symbol, at_ms, PriceKind.LAST)

    def require_mark(self, symbol: str, at_ms: int) -> Decimal:
        """Mark at `at_ms`; refuses (SYMBOL_NOT_LISTED) where there has been none yet."""
        return self.require_price(symbol, at_ms, PriceKind.MARK)

    def require_price(self, symbol: str, at_ms: int, kind: PriceKind) -> Decimal:
        """One of the three prices; refuses (SYMBOL_NOT_LISTED) where there has been none yet."""
        price = self.price(symbol, at_ms, kind)
        if price is None:
            raise EngineRejected(
                RejectReason.SYMBOL_NOT_LISTED, f"{symbol} has no price before its first bar"
            )
        return price

    def require_tradable(self, symbol: str, at_ms: int) -> Decimal:
        """Last, kept within mark x (1 +- band): what the book stands around and orders meet.

        With a band of 5 %, a mark of 4.000 and a print of 0.001, it is 3.800.
        """
        last = self.require_last(symbol, at_ms)
        band = self._bands.get(symbol)
        if band is None:
            return last
        mark = self.require_mark(symbol, at_ms)
        if abs(last - mark) <= mark * band:
            return last
        edge = mark * (1 + band) if last > mark else mark * (1 - band)
        return self._on_tick(symbol, edge)

    def is_trading(self, symbol: str, at_ms: int) -> bool:
        """There is a bar for this minute and no halt; otherwise nothing can fill."""
        if self._halts and at_ms < self._halts.get(symbol, 0):
            return False
        minute = self._minute(symbol, at_ms)
        return minute is not None and minute.bar is not None

    def halt(self, symbol: str, until_ms: int) -> None:
        """Nothing is traded before `until_ms`, though the source has prices (scripted faults)."""
        self._halts[symbol] = until_ms

    # -- what can still happen ----------------------------------------------------------------

    def minute_ranges(self, symbol: str, at_ms: int) -> MinuteRanges | None:
        """All prices from `at_ms` to the end of its minute; None before the symbol's first bar.

        At the minute's first point this costs no walk. A later jump is a command, not foreseen.
        """
        minute = self._minute(symbol, at_ms)
        if minute is None:
            return None
        last = self._rest_of_minute(symbol, minute, at_ms, PriceKind.LAST)
        mark = self._rest_of_minute(symbol, minute, at_ms, PriceKind.MARK)
        return MinuteRanges(*last, *mark)

    def ranges_until(self, symbol: str, at_ms: int, until_ms: int) -> MinuteRanges | None:
        """Bounds of last and mark in [at_ms, until_ms]: never too narrow, perhaps too wide.

        One look at the bars for any length, for whoever wants to know whether anything can happen
        in the next hour or day. None before the symbol's first bar, also when that lies within.
        """
        ranges = self.minute_ranges(symbol, at_ms)
        open_ms = at_ms - at_ms % MINUTE_MS + MINUTE_MS
        if ranges is None or until_ms < open_ms:
            return ranges
        minutes = (until_ms - open_ms) // MINUTE_MS + 1
        last = self._market.extremes(symbol, open_ms, minutes)
        if last is None:
            return ranges
        # a minute without a mark of its own follows last, so last bounds the mark too
        mark = self._market.extremes(symbol, open_ms, minutes, PriceKind.MARK) or last
        lowest, highest = min(mark[0], last[0]), max(mark[1], last[1])
        return MinuteRanges(
            min(ranges.last_low, self._scaled(symbol, last[0], at_ms, PriceKind.LAST)),
            max(ranges.last_high, self._scaled(symbol, last[1], at_ms, PriceKind.LAST)),
            min(ranges.mark_low, self._scaled(symbol, lowest, at_ms, PriceKind.MARK)),
            max(ranges.mark_high, self._scaled(symbol, highest, at_ms, PriceKind.MARK)),
        )

    def _rest_of_minute(
        self, symbol: str, minute: _Minute, at_ms: int, kind: PriceKind
    ) -> tuple[Decimal, Decimal]:
        index = (at_ms - minute.open_ms) // POINT_MS
        if index == 0 and minute.bar is not None:
            bar = minute.bar if kind is PriceKind.LAST else self._own_bar(symbol, minute, kind)
            lowest, highest = bar.low, bar.high
        else:
            rest = self._points(symbol, minute, kind)[index:]
            lowest, highest = min(rest), max(rest)
        return (
            self._scaled(symbol, lowest, at_ms, kind),
            self._scaled(symbol, highest, at_ms, kind),
        )

    # -- one minute ---------------------------------------------------------------------------

    def _minute(self, symbol: str, at_ms: int) -> _Minute | None:
        open_ms = at_ms - at_ms % MINUTE_MS
        cached = self._minutes.get(symbol)
        if cached is not None and cached.open_ms == open_ms:
            return cached
        minute = self._make_minute(symbol, open_ms)
        if minute is not None:
            self._minutes[symbol] = minute
        return minute

    def _make_minute(self, symbol: str, open_ms: int) -> _Minute | None:
        low_first = self._hour_low_first(symbol, open_ms)
        bar = self._market.bar(symbol, open_ms, PriceKind.LAST, low_first)
        before = bar if bar is not None else self._market.latest_bar(symbol, open_ms)
        if before is None:
            return None
        exposure = self._exposure_at(symbol, open_ms)
        if bar is not None:
            exposure = 1 if low_comes_first(bar, exposure) else -1
        return _Minute(open_ms, bar, before, exposure, low_first)

    def _hour_low_first(self, symbol: str, open_ms: int) -> bool | None:
        """Where minutes come out of hours: what the state ten minutes into the hour asks for."""
        if self._market.native_minutes(symbol) != HOUR_MINUTES:
            return None
        decision_ms = open_ms - open_ms % HOUR_MS + HOUR_DECISION_MINUTE * MINUTE_MS
        if open_ms < decision_ms:
            return None  # until then both ways are the same
        exposure = self._exposure_at(symbol, decision_ms)
        return exposure > 0 if exposure else None

    def _points(self, symbol: str, minute: _Minute, kind: PriceKind) -> tuple[Decimal, ...]:
        """The unscaled prices of a minute: twelve, all the same in a gap."""
        found = minute.points.get(kind)
        if found is None:
            bar = self._own_bar(symbol, minute, kind)
            if minute.bar is None:
                found = (bar.close,) * POINTS
            else:
                found = walk_minute(bar, minute.exposure, self._steps[symbol])
            minute.points[kind] = found
        return found

    def _own_bar(self, symbol: str, minute: _Minute, kind: PriceKind) -> Bar:
        """The bar that the minute's prices of `kind` come from; mark and index can follow last."""
        if kind is not PriceKind.LAST:
            own = self._market.bar(symbol, minute.before.open_ms, kind, minute.hour_low_first)
            if own is not None:
                return own
        return minute.before

    # -- jumps --------------------------------------------------------------------------------

    def jump(
        self,
        symbol: str,
        at_ms: int,
        factor: Decimal,
        kinds: Iterable[PriceKind] = ALL_PRICES,
    ) -> None:
        """Multiply from `at_ms` on the prices of `symbol` named by `kinds` (all three) by `factor`.

        A mark that follows last does not follow it through a jump of last alone.
        """
        minute = self._minute(symbol, at_ms)
        for kind in sorted(kinds):
            jumps = self._jumps.setdefault((symbol, kind), [])
            require(not jumps or jumps[-1].at_ms <= at_ms, "jumps come in order of time")
            total = factor * (jumps[-1].factor if jumps else 1)
            points = None
            if minute is not None and minute.bar is not None:
                points = self._points(symbol, minute, kind)
            jumps.append(_Jump(at_ms, total, points))
            self._jumped.pop((symbol, kind), None)

    def _factor(self, symbol: str, at_ms: int, kind: PriceKind) -> Decimal | None:
        """The factor at `at_ms`; None where the price has not been touched."""
        for jump in reversed(self._jumps.get((symbol, kind), ())):
            if jump.at_ms <= at_ms:
                return jump.factor
        return None

    def _scaled(self, symbol: str, raw: Decimal, at_ms: int, kind: PriceKind) -> Decimal:
        if (symbol, kind) not in self._jumps:
            return raw
        factor = self._factor(symbol, at_ms, kind)
        return raw if factor is None else self._on_tick(symbol, raw * factor)

    def _on_tick(self, symbol: str, price: Decimal) -> Decimal:
        step = self._steps[symbol]
        return max(step, (price / step).to_integral_value(ROUND_HALF_EVEN) * step)

    # -- candles ------------------------------------------------------------------------------

    def closed_bar(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> Bar | None:
        """The finished bar [open_ms, open_ms + minutes), with jumps; None if there is no data."""
        end_ms = open_ms + minutes * MINUTE_MS
        jumps = self._jumps.get((symbol, kind))
        if not jumps or end_ms <= jumps[0].at_ms:
            return self._merged(symbol, open_ms, minutes, kind)
        if not any(open_ms < jump.at_ms < end_ms for jump in jumps):
            bar = self._merged(symbol, open_ms, minutes, kind)
            return None if bar is None else self._scaled_bar(symbol, bar, open_ms, kind)
        singles = [
            self._jumped_minute(symbol, open_ms + index * MINUTE_MS, kind)
            for index in range(minutes)
        ]
        return merge_bars(open_ms, [bar for bar in singles if bar is not None])

    def _merged(self, symbol: str, open_ms: int, minutes: int, kind: PriceKind) -> Bar | None:
        """Unscaled bars as one; an hour that is only partly in it, minute by minute if it must."""
        end_ms = open_ms + minutes * MINUTE_MS
        if self._market.native_minutes(symbol) == HOUR_MINUTES:
            first_hour_ms = -(-open_ms // HOUR_MS) * HOUR_MS
            last_hour_ms = max(first_hour_ms, end_ms - end_ms % HOUR_MS)
            parts: list[Bar] = []
            for start_ms, stop_ms in (
                (open_ms, min(first_hour_ms, end_ms)),
                (first_hour_ms, last_hour_ms),
                (last_hour_ms, end_ms),
            ):
                if start_ms < stop_ms:
                    parts += self._part(symbol, start_ms, stop_ms, kind)
            return merge_bars(open_ms, parts)
        bar = self._market.merged_bar(symbol, open_ms, minutes, kind)
        if bar is None and kind is not PriceKind.LAST:
            return _without_volume(self._market.merged_bar(symbol, open_ms, minutes))
        return bar

    def _part(self, symbol: str, start_ms: int, stop_ms: int, kind: PriceKind) -> list[Bar]:
        """Whole hours as one bar, or minutes of a single hour in the way that it took."""
        minutes = (stop_ms - start_ms) // MINUTE_MS
        low_first = self._hour_low_first(symbol, stop_ms - MINUTE_MS)
        if minutes >= HOUR_MINUTES or low_first is None:
            bars = [self._market.merged_bar(symbol, start_ms, minutes, kind)]
        else:
            bars = [
                self._market.bar(symbol, start_ms + index * MINUTE_MS, kind, low_first)
                for index in range(minutes)
            ]
        return [bar for bar in bars if bar is not None]

    def forming_bar(
        self, symbol: str, open_ms: int, now_ms: int, kind: PriceKind = PriceKind.LAST
    ) -> Bar | None:
        """The bar that opened at `open_ms` and is not over at `now_ms`; None without data."""
        minute_ms = now_ms - now_ms % MINUTE_MS
        parts: list[Bar] = []
        whole_minutes = (minute_ms - open_ms) // MINUTE_MS
        if whole_minutes > 0:
            before = self.closed_bar(symbol, open_ms, whole_minutes, kind)
            if before is not None:
                parts.append(before)
        current = self._current_minute(symbol, now_ms, kind)
        if current is not None:
            parts.append(current)
        return merge_bars(open_ms, parts)

    def _current_minute(self, symbol: str, now_ms: int, kind: PriceKind) -> Bar | None:
        minute = self._minute(symbol, now_ms)
        if minute is None or minute.bar is None:
            return None
        reached = (now_ms - minute.open_ms) // POINT_MS + 1
        points = self._points(symbol, minute, kind)
        prices = self._minute_prices(symbol, minute.open_ms, points, now_ms, kind)
        bar = self._own_bar(symbol, minute, kind)
        share = Decimal(reached) / POINTS
        volume = (bar.volume * share).quantize(bar.volume)
        quote = (bar.quote_volume * share).quantize(bar.quote_volume)
        whole = Bar(minute.open_ms, prices[0], max(prices), min(prices), prices[-1], volume, quote)
        return whole if kind is PriceKind.LAST else _without_volume(whole)

    def _minute_prices(
        self,
        symbol: str,
        open_ms: int,
        points: Sequence[Decimal],
        until_ms: int,
        kind: PriceKind,
    ) -> list[Decimal]:
        moments = [open_ms + index * POINT_MS for index in range(POINTS)]
        moments += [
            jump.at_ms
            for jump in self._jumps.get((symbol, kind), ())
            if open_ms <= jump.at_ms < open_ms + MINUTE_MS
        ]
        return [
            self._scaled(symbol, points[(moment - open_ms) // POINT_MS], moment, kind)
            for moment in sorted(moments)
            if moment <= until_ms
        ]

    def _jumped_minute(self, symbol: str, open_ms: int, kind: PriceKind) -> Bar | None:
        """One finished minute with jumps; kept, because a day's bar asks for most of them again."""
        kept = self._jumped.setdefault((symbol, kind), {})
        if open_ms not in kept:
            if len(kept) >= _JUMPED_KEPT:
                kept.clear()
            kept[open_ms] = self._make_jumped_minute(symbol, open_ms, kind)
        return kept[open_ms]

    def _make_jumped_minute(self, symbol: str, open_ms: int, kind: PriceKind) -> Bar | None:
        bar = self._merged(symbol, open_ms, 1, kind)
        if bar is None:
            return None
        for jump in self._jumps[symbol, kind]:
            if open_ms <= jump.at_ms < open_ms + MINUTE_MS and jump.points is not None:
                end_ms = open_ms + MINUTE_MS - 1
                prices = self._minute_prices(symbol, open_ms, jump.points, end_ms, kind)
                return Bar(
                    open_ms,
                    prices[0],
                    max(prices),
                    min(prices),
                    prices[-1],
                    bar.volume,
                    bar.quote_volume,
                )
        return self._scaled_bar(symbol, bar, open_ms, kind)

    def _scaled_bar(self, symbol: str, bar: Bar, at_ms: int, kind: PriceKind) -> Bar:
        factor = self._factor(symbol, at_ms, kind)
        if factor is None:
            return bar
        return Bar(
            bar.open_ms,
            self._on_tick(symbol, bar.open * factor),
            self._on_tick(symbol, bar.high * factor),
            self._on_tick(symbol, bar.low * factor),
            self._on_tick(symbol, bar.close * factor),
            bar.volume,
            (bar.quote_volume * factor).quantize(bar.quote_volume),
        )


def price_kinds(words: object) -> frozenset[PriceKind]:
    """Which prices a jump moves: a list of last, mark and index; None is all three."""
    if words is None:
        return ALL_PRICES
    if not isinstance(words, list) or not words:
        raise InvalidInput(f"prices must be a list of {sorted(ALL_PRICES)}, not {words!r}")
    try:
        return frozenset(PriceKind(word) for word in words)
    except ValueError as error:
        raise InvalidInput(f"prices: {error}; known are {sorted(ALL_PRICES)}") from error


def _without_volume(bar: Bar | None) -> Bar | None:
    if bar is None or not (bar.volume or bar.quote_volume):
        return bar
    return replace(bar, volume=Decimal(0), quote_volume=Decimal(0))


def merge_bars(open_ms: int, bars: Sequence[Bar]) -> Bar | None:
    """Consecutive bars as one that opens at `open_ms`; None of none."""
    if not bars:
        return None
    return Bar(
        open_ms,
        bars[0].open,
        max(bar.high for bar in bars),
        min(bar.low for bar in bars),
        bars[-1].close,
        sum((bar.volume for bar in bars), Decimal(0)),
        sum((bar.quote_volume for bar in bars), Decimal(0)),
    )
