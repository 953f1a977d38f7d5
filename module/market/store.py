"""What the market room needs of the world, as Protocols: a place for candles, a source of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from module.model.market import Candle, MarketType
from module.model.series import Gap, Series, Stretch, Watched


class CandleStore(Protocol):
    """Keeps closed candles. Every call may raise Unavailable; writes may be repeated."""

    def candles(self, series: Series, stretch: Stretch) -> list[Candle]:
        """The stored bars that open in `stretch`, oldest first."""
        ...

    def save(self, series: Series, candles: Sequence[Candle]) -> None:
        """Store them all; a bar that is there already is made equal to the new one."""
        ...

    def last_opening(self, series: Series) -> datetime | None:
        """The opening of the newest stored bar."""
        ...

    def gaps(self, series: Series, stretch: Stretch) -> list[Gap]:
        """The recorded gaps that touch `stretch`."""
        ...

    def record_gap(self, series: Series, gap: Gap) -> None:
        """Remember it under its first bar, instead of an older record there."""
        ...

    def watch(
        self, market_id: str, market: MarketType, symbols: Sequence[str], asked_at: datetime
    ) -> None:
        """Remember that `symbols` were asked for."""
        ...

    def watched(self, market_id: str, asked_since: datetime) -> list[Watched]:
        """The symbols asked for at or after `asked_since`."""
        ...


class CandleSource(Protocol):
    """Where candles come from: the gateway. Reads; Retryable errors say what to do."""

    def symbols(self, market: MarketType) -> frozenset[str]:
        """Everything that the market lists."""
        ...

    def candles(self, series: Series, end: datetime, limit: int) -> list[Candle]:
        """The closed bars among the `limit` (at most 200) last ones up to `end`, oldest first.

        An empty answer means that none of those `limit` bars exists (yet).
        """
        ...
