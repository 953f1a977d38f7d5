"""Where prices come from: the Protocol that the engine reads, and what it returns.

A market source is a pure function of (symbol, minute): asking twice, in any order, gives the same.
`synthetic.SyntheticMarket` and `replay.ReplayMarket` are the two sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from module.simulator.prices.instruments import FuturesInstrument, SpotInstrument

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
FOREVER_MS = 2**62
"""A moment that never comes."""


class PriceKind(StrEnum):
    """Which of the three prices of a symbol: what was traded, what margins use, what it follows."""

    LAST = "last"
    MARK = "mark"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Bar:
    """Prices of [open_ms, open_ms + length). Volume in base coin, quote_volume in quote coin.

    Bars of mark and index have no volume.
    """

    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal


@dataclass(frozen=True, slots=True)
class FundingPoint:
    """One settlement: longs pay `rate` x notional when it is positive."""

    settlement_ms: int
    rate: Decimal


class MarketSource(Protocol):
    """History and future of every symbol of one market."""

    @property
    def market_id(self) -> str:
        """`synthetic:<seed>` or `replay:<digest of the files>`."""
        ...

    def futures(self) -> Sequence[FuturesInstrument]:
        """All contracts, in symbol order, whether or not they are listed at the moment."""
        ...

    def spot(self) -> Sequence[SpotInstrument]:
        """All spot pairs, in symbol order. A pair has the prices of the symbol of its name."""
        ...

    def native_minutes(self, symbol: str) -> int:
        """Length of the bars that the source really knows, 1 or 60; longer ones are expanded."""
        ...

    def bar(
        self,
        symbol: str,
        open_ms: int,
        kind: PriceKind = PriceKind.LAST,
        low_first: bool | None = None,
    ) -> Bar | None:
        """The 1-minute bar that opens at `open_ms` (a whole minute); None without data.

        None for mark or index where last has a bar: they follow last. `low_first` says which
        extreme of an hour its minutes reach first (None: the source chooses, the same for all
        kinds); where minutes are native it means nothing.
        """
        ...

    def merged_bar(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> Bar | None:
        """The bars of [open_ms, open_ms + minutes) as one; gaps skipped; None if all are."""
        ...

    def extremes(
        self, symbol: str, open_ms: int, minutes: int, kind: PriceKind = PriceKind.LAST
    ) -> tuple[Decimal, Decimal] | None:
        """Lowest and highest price of the merged bar, or wider: quick, whichever way hours go."""
        ...

    def latest_bar(self, symbol: str, open_ms: int) -> Bar | None:
        """The last existing 1-minute bar of last that opens at or before `open_ms`."""
        ...

    def span(self, symbol: str | None = None) -> tuple[int | None, int | None]:
        """First and last bar's open time, of one symbol or all together; None is endless."""
        ...

    def known_until_ms(self, now_ms: int) -> int:
        """Bars that end by this moment will never change: a source that follows live prices says
        `now_ms`, one that knows its whole future says a moment that never comes."""
        ...

    def next_funding(self, symbol: str, after_ms: int) -> FundingPoint | None:
        """The first settlement strictly after `after_ms`."""
        ...

    def funding_between(self, symbol: str, first_ms: int, last_ms: int) -> Sequence[FundingPoint]:
        """The settlements of [first_ms, last_ms], oldest first."""
        ...

    def funding_interval_h(self, symbol: str, at_ms: int) -> int:
        """Whole hours between the settlements around `at_ms`; it can change in real data."""
        ...
