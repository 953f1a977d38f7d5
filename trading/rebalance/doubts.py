"""Which prices of a cycle are not believed (C3). PURE.

    the mark that sizes ──┐
    the quote's last ─────┼─► doubts ─► CycleInputs.doubted ─► the plan only closes
    the last closed bar ──┘

The bars are those that the cycle has seen anyhow: nothing more is read. A symbol of which it saw
none is judged by mark against last alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from module.model.market import Candle, Quote
from module.model.money import ONE, plain

BEYOND_MAX = Decimal("0.1")
"""A price may be so far beyond the range of the last closed bar, or of another price."""

BAR_AGE_MAX = timedelta(hours=1)
"""A bar that closed longer ago says nothing about the price now."""


def doubts_about(
    marks: Mapping[str, Decimal],
    quotes: Mapping[str, Quote],
    windows: Iterable[Mapping[str, Sequence[Candle]]],
    at: datetime,
) -> dict[str, str]:
    """Symbol → why its price is not believed. `windows`: bars by symbol, oldest first."""
    bars = _last_bars(windows, at)
    found: dict[str, str] = {}
    for symbol, mark in sorted(marks.items()):
        if mark <= 0:
            continue  # it has none
        quote, bar = quotes.get(symbol), bars.get(symbol)
        last = mark if quote is None else quote.last
        why = _apart(mark, last, "the last price")
        if not why and bar is not None:
            why = _beyond(mark, bar) or _beyond(last, bar)
        if why:
            found[symbol] = why
    return found


def doubts_since(before: Mapping[str, Decimal], marks: Mapping[str, Decimal]) -> dict[str, str]:
    """Symbol → why its price is not believed, by the prices of a moment `before`."""
    return {
        symbol: why
        for symbol, mark in sorted(marks.items())
        if mark > 0 and symbol in before
        if (why := _apart(mark, before[symbol], "the price before"))
    }


def _last_bars(
    windows: Iterable[Mapping[str, Sequence[Candle]]], at: datetime
) -> dict[str, Candle]:
    """Each symbol's newest usable bar; of two that closed together the shorter one."""
    found: dict[str, Candle] = {}
    for bars in windows:
        for symbol, series in bars.items():
            if not series:
                continue
            bar, known = series[-1], found.get(symbol)
            if not timedelta(0) <= at - bar.closes_at <= BAR_AGE_MAX or not _is_usable(bar):
                continue
            if known is None or (bar.closes_at, bar.opens_at) > (known.closes_at, known.opens_at):
                found[symbol] = bar
    return found


def _is_usable(bar: Candle) -> bool:
    return bar.low.is_finite() and bar.high.is_finite() and 0 < bar.low <= bar.high


def _beyond(price: Decimal, bar: Candle) -> str:
    if bar.low * (ONE - BEYOND_MAX) <= price <= bar.high * (ONE + BEYOND_MAX):
        return ""
    return (
        f"{plain(price)} is more than {BEYOND_MAX:.0%} beyond its last closed bar, "
        f"{plain(bar.low)} to {plain(bar.high)}"
    )


def _apart(price: Decimal, other: Decimal, name: str) -> str:
    if abs(price - other) <= other * BEYOND_MAX:
        return ""
    return f"{plain(price)} is more than {BEYOND_MAX:.0%} off {name} {plain(other)}"
