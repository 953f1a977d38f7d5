"""Replays a folder of candle files: SYMBOL.parquet or SYMBOL.csv, and its companions.

Columns: timestamp (bar open, ms UTC), open, high, low, close, volume; SYMBOL.funding.*: timestamp,
fundingRate; SYMBOL.mark.*: the mark price, with the columns of candles. One-minute files are taken
as they are; the minutes of one-hour files are computed so that sixty merge into exactly the hour
again (`minute_path`), mark and last moving together. The last bar of a file can be partial and is
dropped. Prices are on a tick that is fine enough to spell every price of the file.

Where there is no mark (no file, or none for a bar) mark and index are derived from last
(`derived_marks`); with a file the index is the mark.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np

from module.model.errors import InvalidInput
from module.model.money import decimal_from_float
from module.simulator.prices.candle_files import (
    CandleColumns,
    Floats,
    candle_files,
    companion_file,
    decimals_needed,
    digest_of,
    read_candles,
    read_funding,
    release_reading_memory,
    whole_steps,
)
from module.simulator.prices.derived_marks import derive_index_and_mark, with_marks_of_file
from module.simulator.prices.instruments import (
    PLACES_MAX,
    FuturesInstrument,
    SpotInstrument,
    futures_instrument,
    spot_instrument,
)
from module.simulator.prices.market_source import (
    FOREVER_MS,
    HOUR_MS,
    MINUTE_MS,
    Bar,
    FundingPoint,
    PriceKind,
)
from module.simulator.prices.tick_bars import TickScale
from module.simulator.prices.tick_series import PRICE_TICKS_MAX, Merged, TickSeries, compact

_DEFAULT_FUNDING_H = 8
_DEFAULT_RATE = Decimal("0.0001")
_SIGNIFICANT_DIGITS = 9
_VOLUME_PLACES_MAX = 8
_LOTS_MAX = float(1 << 53)


@dataclass(frozen=True, slots=True)
class _Symbol:
    """Everything of one symbol."""

    futures: FuturesInstrument
    spot: SpotInstrument
    scale: TickScale
    series: dict[PriceKind, TickSeries]
    funding: tuple[FundingPoint, ...]


class ReplayMarket:
    """The bars of a folder. InvalidInput says what is wrong with a file."""

    def __init__(self, folder: Path) -> None:
        self._symbols = {
            symbol: _load(folder, symbol, path) for symbol, path in candle_files(folder).items()
        }
        self._market_id = f"replay:{digest_of(folder)}"

    # -- MarketSource -------------------------------------------------------------------------

    @property
    def market_id(self) -> str:
        """`replay:` and 16 hex digits of the SHA-256 over names and contents of all files."""
        return self._market_id

    def futures(self) -> Sequence[FuturesInstrument]:
        """One contract per file."""
        return tuple(found.futures for found in self._symbols.values())

    def spot(self) -> Sequence[SpotInstrument]:
        """One pair per file."""
        return tuple(found.spot for found in self._symbols.values())

    def span(self, symbol: str | None = None) -> tuple[int | None, int | None]:
        """Open times of the first and the last minute."""
        if symbol is not None:
            last = self._last(symbol)
            return (last.first_ms, last.last_ms) if last is not None else (None, None)
        every = [found.series[PriceKind.LAST] for found in self._symbols.values()]
        return min(series.first_ms for series in every), max(series.last_ms for series in every)

    def native_minutes(self, symbol: str) -> int:
        """1 or 60, as the file is."""
        last = self._last(symbol)
        return last.minutes if last is not None else 1

    def bar(
        self,
        symbol: str,
        open_ms: int,
        kind: PriceKind = PriceKind.LAST,
        low_first: bool | None = None,
    ) -> Bar | None:
        """The minute that opens at `open_ms`."""
        found = self._symbols.get(symbol)
        if found is None or open_ms % MINUTE_MS:
            return None
        return _bar(found.scale, open_ms, found.series[kind].minute(open_ms, low_first))

    def merged_bar(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> Bar | None:
        """Minutes as one bar; what lies outside the file or in a gap is skipped."""
        found = self._symbols.get(symbol)
        if found is None or open_ms % MINUTE_MS or minutes <= 0:
            return None
        merged = found.series[kind].merged(open_ms, open_ms + minutes * MINUTE_MS)
        return _bar(found.scale, open_ms, merged)

    def extremes(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> tuple[Decimal, Decimal] | None:
        """Lowest and highest price of all bars of the file that reach into these minutes."""
        found = self._symbols.get(symbol)
        if found is None:
            return None
        ticks = found.series[kind].extremes(open_ms, open_ms + minutes * MINUTE_MS)
        step = found.scale.price_step
        return (ticks[0] * step, ticks[1] * step) if ticks is not None else None

    def latest_bar(self, symbol: str, open_ms: int) -> Bar | None:
        """The last existing minute at or before `open_ms`."""
        last = self._last(symbol)
        index = last.index_before(open_ms) if last is not None else -1
        if last is None or index < 0:
            return None
        latest_ms = int(last.times[index]) + last.length_ms - MINUTE_MS
        return self.bar(symbol, min(open_ms, latest_ms))

    def known_until_ms(self, now_ms: int) -> int:
        """Files do not change."""
        return FOREVER_MS

    def next_funding(self, symbol: str, after_ms: int) -> FundingPoint | None:
        """The file's next settlement; without a file, every 8 hours at 0.01 %."""
        found = self._symbols.get(symbol)
        if found is None:
            return None
        if not found.funding:
            return FundingPoint(_next_default(after_ms), _DEFAULT_RATE)
        index = bisect.bisect_right(found.funding, after_ms, key=_settlement_ms)
        return found.funding[index] if index < len(found.funding) else None

    def funding_between(self, symbol: str, first_ms: int, last_ms: int) -> Sequence[FundingPoint]:
        """The settlements of [first_ms, last_ms]."""
        found = self._symbols.get(symbol)
        if found is None:
            return ()
        if not found.funding:
            moments = range(_next_default(first_ms - 1), last_ms + 1, _DEFAULT_FUNDING_H * HOUR_MS)
            return tuple(FundingPoint(moment, _DEFAULT_RATE) for moment in moments)
        first = bisect.bisect_left(found.funding, first_ms, key=_settlement_ms)
        end = bisect.bisect_right(found.funding, last_ms, key=_settlement_ms)
        return found.funding[first:end]

    def funding_interval_h(self, symbol: str, at_ms: int) -> int:
        """From the settlement before `at_ms` to the one after it, as the file has them.

        Before the first and after the last it is the nearest that is known.
        """
        found = self._symbols.get(symbol)
        if found is None or len(found.funding) < 2:
            return _DEFAULT_FUNDING_H
        after = bisect.bisect_right(found.funding, at_ms, key=_settlement_ms)
        after = min(max(after, 1), len(found.funding) - 1)
        return _hours_between(found.funding[after - 1], found.funding[after])

    def _last(self, symbol: str) -> TickSeries | None:
        found = self._symbols.get(symbol)
        return found.series[PriceKind.LAST] if found is not None else None


def _bar(scale: TickScale, open_ms: int, merged: Merged | None) -> Bar | None:
    if merged is None:
        return None
    return scale.bar(open_ms, merged.ticks, merged.lots, merged.twice_turnover // 2)


def _settlement_ms(point: FundingPoint) -> int:
    return point.settlement_ms


def _next_default(after_ms: int) -> int:
    interval_ms = _DEFAULT_FUNDING_H * HOUR_MS
    return (after_ms // interval_ms + 1) * interval_ms


def _hours_between(before: FundingPoint, after: FundingPoint) -> int:
    return max(1, round((after.settlement_ms - before.settlement_ms) / HOUR_MS))


# -- loading --------------------------------------------------------------------------------------


def _load(folder: Path, symbol: str, path: Path) -> _Symbol:
    """Read the files of one symbol and find the rules that fit them."""
    candles = read_candles(path)
    funding = _read_funding_points(folder, symbol)
    reference = decimal_from_float(float(np.median(candles.prices[3])))
    if reference <= 0:
        raise InvalidInput(f"{path}: its prices are {reference}")
    places = decimals_needed(candles.prices, _places_at_most(candles.prices[1]))
    futures = replace(
        futures_instrument(symbol, reference, places),
        funding_interval_h=_usual_interval_h(funding),
    )
    scale = TickScale(futures.price_step, _volume_step(candles, futures.size_step))
    last = _tick_series(candles, scale, with_volume=True)
    index, mark = derive_index_and_mark(last)
    mark_path = companion_file(folder, symbol, "mark")
    if mark_path is not None:
        marks = read_candles(mark_path)
        if marks.minutes != candles.minutes:
            raise InvalidInput(f"{mark_path} and {path} have bars of different lengths")
        mark = index = with_marks_of_file(mark, _tick_series(marks, scale, with_volume=False))
    release_reading_memory()
    series = {PriceKind.LAST: last, PriceKind.MARK: mark, PriceKind.INDEX: index}
    return _Symbol(futures, spot_instrument(symbol, reference, places), scale, series, funding)


def _places_at_most(highs: Floats) -> int:
    """A price has nine significant digits at most: finer ones are no exchange's, but noise."""
    digits_before = Decimal(float(highs.max())).adjusted() + 1
    return max(0, min(PLACES_MAX, _SIGNIFICANT_DIGITS - digits_before))


def _volume_step(candles: CandleColumns, size_step: Decimal) -> Decimal:
    """Fine enough to spell every volume, where that is possible; `size_step` at least."""
    places = decimals_needed([candles.volumes], _VOLUME_PLACES_MAX)
    finest = size_step if places is None else min(size_step, Decimal(1).scaleb(-places))
    return finest if float(candles.volumes.max()) / float(finest) < _LOTS_MAX else size_step


def _tick_series(candles: CandleColumns, scale: TickScale, *, with_volume: bool) -> TickSeries:
    """A file's bars on ticks and lots."""
    opens, highs, lows, closes = (
        np.maximum(whole_steps(column, scale.price_step), 1) for column in candles.prices
    )
    if int(highs.max()) > PRICE_TICKS_MAX:
        raise InvalidInput(f"{candles.path}: a price of {highs.max()} ticks is too large")
    bars = TickSeries(
        candles.minutes,
        candles.times,
        compact(opens),
        compact(highs),
        compact(lows),
        compact(closes),
        opens - lows <= highs - opens,
    )
    if not with_volume:
        return bars
    if float(candles.volumes.max()) / float(scale.size_step) > _LOTS_MAX:
        raise InvalidInput(f"{candles.path}: a volume of {candles.volumes.max()} is too large")
    return replace(bars, lots=whole_steps(candles.volumes, scale.size_step))


def _read_funding_points(folder: Path, symbol: str) -> tuple[FundingPoint, ...]:
    path = companion_file(folder, symbol, "funding")
    if path is None:
        return ()
    times, rates = read_funding(path)
    return tuple(FundingPoint(at, rate) for at, rate in zip(times.tolist(), rates, strict=True))


def _usual_interval_h(points: Sequence[FundingPoint]) -> int:
    """The most frequent distance between settlements, in whole hours; 8 where it is unknown."""
    distances = [_hours_between(before, after) for before, after in pairwise(points)]
    return statistics.mode(distances) if distances else _DEFAULT_FUNDING_H
