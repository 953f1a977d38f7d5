"""Prices at any moment, computed when asked: the walk inside a minute, jumps, candles.

Inside a minute the price is a step function on a grid of 5 seconds: the open at 0 s, the first
extreme at 15 s, the second at 40 s, the close at 55 s, straight lines on the tick in between. The
extreme that hurts the net position of all accounts (as it was when the minute opened) comes first;
with no net position, the one nearer to the open. Index, mark and last are one price.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise

from module.model.errors import require
from module.simulator.engine_types import EngineRejected, RejectReason
from module.simulator.market_source import MINUTE_MS, Bar, MarketSource

POINT_MS = 5_000
_POINTS = MINUTE_MS // POINT_MS
_FIRST_EXTREME = 3
_SECOND_EXTREME = 8
_LAST_POINT = _POINTS - 1


def walk_minute(bar: Bar, exposure: int, step: Decimal) -> tuple[Decimal, ...]:
    """The 12 grid prices of one bar. `exposure` > 0: longs are held, so the low comes first."""
    if exposure > 0:
        low_first = True
    elif exposure < 0:
        low_first = False
    else:
        low_first = bar.open - bar.low <= bar.high - bar.open
    first, second = (bar.low, bar.high) if low_first else (bar.high, bar.low)
    corners = (
        (0, bar.open),
        (_FIRST_EXTREME, first),
        (_SECOND_EXTREME, second),
        (_LAST_POINT, bar.close),
    )
    points: list[Decimal] = [bar.open]
    for (start, price), (end, target) in pairwise(corners):
        ticks = (target - price) / step
        for index in range(start + 1, end):
            share = (ticks * (index - start) / (end - start)).to_integral_value(ROUND_HALF_EVEN)
            points.append(price + share * step)
        points.append(target)
    return tuple(points)


@dataclass(frozen=True, slots=True)
class _Minute:
    open_ms: int
    points: tuple[Decimal, ...] | None
    """None: no bar in this minute; `close_before` is the last price then."""
    close_before: Decimal
    bar: Bar | None


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
        steps: dict[str, Decimal],
        exposure_at: Callable[[str, int], int],
    ) -> None:
        self._market = market
        self._steps = steps
        self._exposure_at = exposure_at
        self._minutes: dict[str, _Minute] = {}
        self._jumps: dict[str, list[_Jump]] = {}

    def _minute(self, symbol: str, at_ms: int) -> _Minute | None:
        open_ms = at_ms - at_ms % MINUTE_MS
        cached = self._minutes.get(symbol)
        if cached is not None and cached.open_ms == open_ms:
            return cached
        bar = self._market.bar(symbol, open_ms)
        if bar is not None:
            walk = walk_minute(bar, self._exposure_at(symbol, open_ms), self._steps[symbol])
            minute = _Minute(open_ms, walk, bar.open, bar)
        else:
            before = self._market.latest_bar(symbol, open_ms)
            if before is None:
                return None
            minute = _Minute(open_ms, None, before.close, None)
        self._minutes[symbol] = minute
        return minute

    def last(self, symbol: str, at_ms: int) -> Decimal | None:
        """The price at `at_ms` (now, or any moment of its minute); None before it is listed."""
        minute = self._minute(symbol, at_ms)
        if minute is None:
            return None
        if minute.points is None:
            raw = minute.close_before
        else:
            raw = minute.points[(at_ms - minute.open_ms) // POINT_MS]
        return self._scaled(symbol, raw, at_ms)

    def require_last(self, symbol: str, at_ms: int) -> Decimal:
        """The price at `at_ms`; refuses (SYMBOL_NOT_LISTED) where there has been none yet."""
        price = self.last(symbol, at_ms)
        if price is None:
            raise EngineRejected(
                RejectReason.SYMBOL_NOT_LISTED, f"{symbol} has no price before its first bar"
            )
        return price

    def is_trading(self, symbol: str, at_ms: int) -> bool:
        """There is a bar for this minute; otherwise nothing can fill."""
        minute = self._minute(symbol, at_ms)
        return minute is not None and minute.points is not None

    # -- jumps --------------------------------------------------------------------------------

    def jump(self, symbol: str, at_ms: int, factor: Decimal) -> None:
        """Multiply every price of `symbol` from `at_ms` on by `factor`."""
        minute = self._minute(symbol, at_ms)
        jumps = self._jumps.setdefault(symbol, [])
        require(not jumps or jumps[-1].at_ms <= at_ms, "jumps come in order of time")
        total = factor * (jumps[-1].factor if jumps else 1)
        jumps.append(_Jump(at_ms, total, minute.points if minute is not None else None))

    def _factor(self, symbol: str, at_ms: int) -> Decimal | None:
        """The factor at `at_ms`; None where the price has not been touched."""
        for jump in reversed(self._jumps.get(symbol, ())):
            if jump.at_ms <= at_ms:
                return jump.factor
        return None

    def _scaled(self, symbol: str, raw: Decimal, at_ms: int) -> Decimal:
        if symbol not in self._jumps:
            return raw
        factor = self._factor(symbol, at_ms)
        return raw if factor is None else self._on_tick(symbol, raw * factor)

    def _on_tick(self, symbol: str, price: Decimal) -> Decimal:
        step = self._steps[symbol]
        return max(step, (price / step).to_integral_value(ROUND_HALF_EVEN) * step)

    # -- candles ------------------------------------------------------------------------------

    def closed_bar(self, symbol: str, open_ms: int, minutes: int) -> Bar | None:
        """The finished bar [open_ms, open_ms + minutes), with jumps; None if there is no data."""
        end_ms = open_ms + minutes * MINUTE_MS
        jumps = self._jumps.get(symbol)
        if not jumps or end_ms <= jumps[0].at_ms:
            return self._market.merged_bar(symbol, open_ms, minutes)
        if not any(open_ms < jump.at_ms < end_ms for jump in jumps):
            bar = self._market.merged_bar(symbol, open_ms, minutes)
            return None if bar is None else self._scaled_bar(symbol, bar, open_ms)
        singles = [
            self._jumped_minute(symbol, open_ms + index * MINUTE_MS) for index in range(minutes)
        ]
        return merge_bars(open_ms, [bar for bar in singles if bar is not None])

    def forming_bar(self, symbol: str, open_ms: int, now_ms: int) -> Bar | None:
        """The bar that opened at `open_ms` and is not over at `now_ms`; None without data."""
        minute_ms = now_ms - now_ms % MINUTE_MS
        parts: list[Bar] = []
        whole_minutes = (minute_ms - open_ms) // MINUTE_MS
        if whole_minutes > 0:
            before = self.closed_bar(symbol, open_ms, whole_minutes)
            if before is not None:
                parts.append(before)
        current = self._current_minute(symbol, now_ms)
        if current is not None:
            parts.append(current)
        return merge_bars(open_ms, parts)

    def _current_minute(self, symbol: str, now_ms: int) -> Bar | None:
        minute = self._minute(symbol, now_ms)
        if minute is None or minute.points is None or minute.bar is None:
            return None
        reached = (now_ms - minute.open_ms) // POINT_MS + 1
        prices = self._minute_prices(symbol, minute.open_ms, minute.points, now_ms)
        share = Decimal(reached) / _POINTS
        volume = (minute.bar.volume * share).quantize(minute.bar.volume)
        quote = (minute.bar.quote_volume * share).quantize(minute.bar.quote_volume)
        return Bar(minute.open_ms, prices[0], max(prices), min(prices), prices[-1], volume, quote)

    def _minute_prices(
        self, symbol: str, open_ms: int, points: Sequence[Decimal], until_ms: int
    ) -> list[Decimal]:
        moments = [open_ms + index * POINT_MS for index in range(_POINTS)]
        moments += [
            jump.at_ms
            for jump in self._jumps.get(symbol, ())
            if open_ms <= jump.at_ms < open_ms + MINUTE_MS
        ]
        return [
            self._scaled(symbol, points[(moment - open_ms) // POINT_MS], moment)
            for moment in sorted(moments)
            if moment <= until_ms
        ]

    def _jumped_minute(self, symbol: str, open_ms: int) -> Bar | None:
        bar = self._market.bar(symbol, open_ms)
        if bar is None:
            return None
        for jump in self._jumps[symbol]:
            if open_ms <= jump.at_ms < open_ms + MINUTE_MS and jump.points is not None:
                end_ms = open_ms + MINUTE_MS - 1
                prices = self._minute_prices(symbol, open_ms, jump.points, end_ms)
                return Bar(
                    open_ms,
                    prices[0],
                    max(prices),
                    min(prices),
                    prices[-1],
                    bar.volume,
                    bar.quote_volume,
                )
        return self._scaled_bar(symbol, bar, open_ms)

    def _scaled_bar(self, symbol: str, bar: Bar, at_ms: int) -> Bar:
        factor = self._factor(symbol, at_ms)
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
