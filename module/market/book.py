"""The book of candles: memory in front of the store, the source behind it, one asker at a time.

The collector and the request handlers both read here. For each series one caller at a time looks
for what is missing and asks the source for exactly that; whoever comes second finds it done.
Nothing is handed out that has not been stored. `on_bars` hears what has come into memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from module.market.series import bar_count, floor_to, is_sound, missing_stretches, openings
from module.market.store import CandleSource, CandleStore
from module.model.market import Candle
from module.model.series import Gap, Series, Stretch

# The largest page that every candle endpoint gives; an empty page is then a hole of that length.
PAGE_BARS: Final = 200
BARS_KEPT_PER_SERIES: Final = 2_000
BARS_KEPT_MAX: Final = 150_000
# A gap is asked for again after 1, 4, 16, 64 … minutes, then once a day.
GAP_REST_FIRST: Final = timedelta(seconds=60)
GAP_REST_MAX: Final = timedelta(days=1)
GAP_TRIES_COUNTED_MAX: Final = 8
# A venue may publish a bar late: younger than this, an absent bar is late, not a gap.
SETTLED_AFTER: Final = timedelta(minutes=2)
EDGE_RETRY_AFTER: Final = timedelta(milliseconds=200)


@dataclass(slots=True)
class _Shelf:
    """What memory holds of one series: all that exists in `known`, which is one stretch."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    known: Stretch | None = None
    bars: dict[datetime, Candle] = field(default_factory=dict)
    gaps: dict[datetime, Gap] = field(default_factory=dict)
    edge_asked_at: datetime | None = None
    edge_asked_until: datetime | None = None


def _nobody(series: Series, opened_at: Collection[datetime]) -> None:
    """Nobody waits for bars."""


class CandleBook:
    """Native bars of all series, complete as far as the venue has them."""

    def __init__(
        self, store: CandleStore, source: CandleSource, *, page_bars: int = PAGE_BARS
    ) -> None:
        """`page_bars` must not be more than the source looks back in one answer."""
        self._store = store
        self._source = source
        self._page_bars = page_bars
        self._shelves: OrderedDict[Series, _Shelf] = OrderedDict()
        self._lock = threading.Lock()
        self.unsound_bars = 0
        self.on_bars: Callable[[Series, Collection[datetime]], None] = _nobody

    def bars(self, series: Series, wanted: Stretch, now: datetime) -> list[Candle]:
        """The bars that open in `wanted` and are closed at `now`, oldest first.

        What memory and store lack is asked of the source, stored, then returned. Bars that the
        venue does not have are absent. Retryable errors of store and source pass through.
        """
        until = min(wanted.until, floor_to(series.frequency, now))
        wanted = Stretch(wanted.first, until)
        if wanted.first >= wanted.until:
            return []
        shelf = self._shelf(series)
        with shelf.lock:
            held = len(shelf.bars)
            if shelf.known is not None and wanted.until < shelf.known.first:
                shelf = _Shelf()  # old history passes through without pushing out the present
            if shelf.known is None or not shelf.known.covers(wanted):
                self._load(series, shelf, wanted)
            self._fill(series, shelf, wanted, now)
            found = _between(shelf, series, wanted)
            self._trim(series, shelf)
            has_grown = len(shelf.bars) > held
        if has_grown:  # counting all shelves costs more than a request that is answered from them
            self._forget_oldest()
        return found

    def has(self, series: Series, opens_at: datetime) -> bool:
        """Whether memory holds the bar: it is handed out without asking anybody."""
        with self._lock:
            shelf = self._shelves.get(series)
        return shelf is not None and opens_at in shelf.bars

    def covers(self, series: Series, wanted: Stretch) -> bool:
        """Whether memory knows all of `wanted`, its newest bar being there."""
        with self._lock:
            shelf = self._shelves.get(series)
        known = None if shelf is None else shelf.known
        newest = wanted.until - series.frequency.length
        return known is not None and known.covers(wanted) and self.has(series, newest)

    def last_stored(self, series: Series) -> datetime | None:
        """The opening of the newest bar in the store."""
        return self._store.last_opening(series)

    def _shelf(self, series: Series) -> _Shelf:
        with self._lock:
            shelf = self._shelves.setdefault(series, _Shelf())
            self._shelves.move_to_end(series)
            return shelf

    def _load(self, series: Series, shelf: _Shelf, wanted: Stretch) -> None:
        """Read from the store what memory lacks of `wanted`; `known` grows or starts anew."""
        known = shelf.known
        touching = known is not None and (
            wanted.first <= known.until and known.first <= wanted.until
        )
        if known is None or not touching:
            parts = [wanted]
            shelf.known = None
            shelf.bars.clear()
            shelf.gaps.clear()
            grown = wanted
        else:
            parts = []
            if wanted.first < known.first:
                parts.append(Stretch(wanted.first, known.first))
            if wanted.until > known.until:
                parts.append(Stretch(known.until, wanted.until))
            grown = Stretch(min(wanted.first, known.first), max(wanted.until, known.until))
        loaded: list[datetime] = []
        for part in parts:
            for candle in self._store.candles(series, part):
                shelf.bars[candle.opens_at] = candle
                loaded.append(candle.opens_at)
            for gap in self._store.gaps(series, part):
                shelf.gaps[gap.stretch.first] = gap
        shelf.known = grown
        self.on_bars(series, loaded)

    def _fill(self, series: Series, shelf: _Shelf, wanted: Stretch, now: datetime) -> None:
        settled_until = floor_to(series.frequency, now - SETTLED_AFTER)
        held = [at for at in openings(series.frequency, wanted) if at in shelf.bars]
        for missing in missing_stretches(held, series.frequency, wanted):
            for asked in self._worth_asking(series, shelf, missing, now, settled_until):
                self._ask(series, shelf, asked, now)
                self._record_gaps(series, shelf, asked, now, settled_until)

    def _worth_asking(
        self,
        series: Series,
        shelf: _Shelf,
        missing: Stretch,
        now: datetime,
        settled_until: datetime,
    ) -> list[Stretch]:
        """`missing` without what the venue was asked for often enough, or a moment ago."""
        resting = [gap.stretch for gap in shelf.gaps.values() if now - gap.tried_at < _rest_of(gap)]
        left = _without(missing, resting)
        if not left or left[-1].until <= settled_until:
            return left
        asked_at, asked_until = shelf.edge_asked_at, shelf.edge_asked_until
        if (
            asked_at is not None
            and asked_until is not None
            and asked_until >= left[-1].until
            and timedelta(0) <= now - asked_at < EDGE_RETRY_AFTER
        ):
            edge = left.pop()
            if edge.first < settled_until:
                left.append(Stretch(edge.first, settled_until))
        return left

    def _ask(self, series: Series, shelf: _Shelf, asked: Stretch, now: datetime) -> None:
        """Page backwards through `asked`; each page is stored before it counts."""
        length = series.frequency.length
        end = asked.until
        while end > asked.first:
            limit = min(self._page_bars, bar_count(series.frequency, Stretch(asked.first, end)))
            page = self._source.candles(series, end, limit)
            sound = [candle for candle in page if is_sound(candle, series, now)]
            self.unsound_bars += len(page) - len(sound)
            fresh = [candle for candle in sound if asked.first <= candle.opens_at < end]
            self._store.save(series, fresh)
            for candle in fresh:
                shelf.bars[candle.opens_at] = candle
            self.on_bars(series, [candle.opens_at for candle in fresh])
            oldest = min((candle.opens_at for candle in fresh), default=end)
            # An empty page is a hole as long as a page, or the time before the listing.
            end = oldest if oldest < end else end - limit * length

    def _record_gaps(
        self,
        series: Series,
        shelf: _Shelf,
        asked: Stretch,
        now: datetime,
        settled_until: datetime,
    ) -> None:
        held = [at for at in openings(series.frequency, asked) if at in shelf.bars]
        for missing in missing_stretches(held, series.frequency, asked):
            if missing.until > settled_until:
                shelf.edge_asked_at, shelf.edge_asked_until = now, missing.until
            hole = Stretch(missing.first, min(missing.until, settled_until))
            if hole.first >= hole.until:
                continue
            earlier = [gap.tries for gap in shelf.gaps.values() if gap.stretch.covers(hole)]
            gap = Gap(hole, min(GAP_TRIES_COUNTED_MAX, 1 + max(earlier, default=0)), now)
            self._store.record_gap(series, gap)
            shelf.gaps[hole.first] = gap

    def _trim(self, series: Series, shelf: _Shelf) -> None:
        """Keep the newest bars; `known` shrinks to what is still whole."""
        known = shelf.known
        if known is None or bar_count(series.frequency, known) <= BARS_KEPT_PER_SERIES:
            return
        first = known.until - BARS_KEPT_PER_SERIES * series.frequency.length
        shelf.known = replace(known, first=first)
        shelf.bars = {at: bar for at, bar in shelf.bars.items() if at >= first}
        shelf.gaps = {at: gap for at, gap in shelf.gaps.items() if gap.stretch.until > first}

    def _forget_oldest(self) -> None:
        with self._lock:
            held = sum(len(shelf.bars) for shelf in self._shelves.values())
            while held > BARS_KEPT_MAX and len(self._shelves) > 1:
                _, forgotten = self._shelves.popitem(last=False)
                held -= len(forgotten.bars)


def _between(shelf: _Shelf, series: Series, wanted: Stretch) -> list[Candle]:
    held = (shelf.bars.get(opens_at) for opens_at in openings(series.frequency, wanted))
    return [candle for candle in held if candle is not None]


def _rest_of(gap: Gap) -> timedelta:
    """How long a gap is left alone after it was last asked for."""
    factor: int = 4 ** (gap.tries - 1)
    return min(GAP_REST_MAX, GAP_REST_FIRST * factor)


def _without(stretch: Stretch, taken: Sequence[Stretch]) -> list[Stretch]:
    """What is left of `stretch`, oldest first."""
    left: list[Stretch] = []
    first = stretch.first
    for hole in sorted(taken, key=lambda hole: hole.first):
        if hole.until <= first or hole.first >= stretch.until:
            continue
        if hole.first > first:
            left.append(Stretch(first, hole.first))
        first = max(first, hole.until)
    if first < stretch.until:
        left.append(Stretch(first, stretch.until))
    return left
