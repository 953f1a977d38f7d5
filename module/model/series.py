"""Lines of candles and stretches of time on them: the words of market data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from module.model.market import Frequency, MarketType


@dataclass(frozen=True, slots=True)
class Series:
    """One line of native candles: whose market, which market of it, what, how long a bar is."""

    market_id: str
    market: MarketType
    symbol: str
    frequency: Frequency


@dataclass(frozen=True, slots=True)
class Stretch:
    """The bars that open in [first, until); both on the grid."""

    first: datetime
    until: datetime

    def covers(self, other: Stretch) -> bool:
        """Whether all of `other` lies inside."""
        return self.first <= other.first and other.until <= self.until


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch the venue was asked for `tries` times, last at `tried_at`, and had no bar of."""

    stretch: Stretch
    tries: int
    tried_at: datetime


@dataclass(frozen=True, slots=True)
class Watched:
    """A symbol that somebody asked for, and when it was last asked for."""

    market: MarketType
    symbol: str
    last_asked_at: datetime
