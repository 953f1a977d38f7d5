"""Where prices come from: the Protocol that the engine reads, and what it returns.

A market source is a pure function of (symbol, minute): asking twice, in any order, gives the same.
`synthetic.SyntheticMarket` and `replay.ReplayMarket` are the two sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from module.simulator.instruments import FuturesInstrument, SpotInstrument

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Bar:
    """Prices of [open_ms, open_ms + length). Volume in base coin, quote_volume in quote coin."""

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

    def bar(self, symbol: str, open_ms: int) -> Bar | None:
        """The 1-minute bar that opens at `open_ms` (a whole minute); None without data."""
        ...

    def merged_bar(self, symbol: str, open_ms: int, minutes: int) -> Bar | None:
        """The bars of [open_ms, open_ms + minutes) as one; gaps skipped; None if all are."""
        ...

    def latest_bar(self, symbol: str, open_ms: int) -> Bar | None:
        """The last existing 1-minute bar that opens at or before `open_ms`."""
        ...

    def span(self, symbol: str | None = None) -> tuple[int | None, int | None]:
        """First and last bar's open time, of one symbol or all together; None is endless."""
        ...

    def next_funding(self, symbol: str, after_ms: int) -> FundingPoint | None:
        """The first settlement strictly after `after_ms`."""
        ...

    def funding_between(self, symbol: str, first_ms: int, last_ms: int) -> Sequence[FundingPoint]:
        """The settlements of [first_ms, last_ms], oldest first."""
        ...
