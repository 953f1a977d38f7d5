"""A market whose bars are arithmetic: the close of a bar is a function of its symbol and time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from module.model.errors import AifapError, NotFound
from module.model.market import Candle, Frequency

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_CLOSE = {
    "BTCUSDT": Decimal(60_000),
    "ETHUSDT": Decimal(3_000),
    "SOLUSDT": Decimal(150),
}


def close_of(symbol: str, opens_at: datetime) -> Decimal:
    """Rises by one part in 100,000 a minute for BTC and SOL, falls for ETH."""
    minutes = int((opens_at - datetime(2026, 11, 21, tzinfo=UTC)) / timedelta(minutes=1))
    direction = -1 if symbol == "ETHUSDT" else 1
    return FIRST_CLOSE[symbol] * (1 + direction * Decimal(minutes) / 100_000)


def make_bar(symbol: str, frequency: Frequency, opens_at: datetime) -> Candle:
    """One closed bar."""
    close = close_of(symbol, opens_at)
    return Candle(symbol, frequency, opens_at, close, close * 2, close / 2, close, Decimal("17.25"))


@dataclass(slots=True)
class FakeMarket:
    """Fits `module.ports.MarketData`. `fails` are raised by the next calls, in order; bars in
    `holes` (symbol, opening time) are missing."""

    fails: deque[AifapError] = field(default_factory=deque)
    holes: set[tuple[str, datetime]] = field(default_factory=set)
    asked: list[tuple[tuple[str, ...], Frequency, int, datetime]] = field(default_factory=list)

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        self.asked.append((tuple(symbols), frequency, window, end))
        if self.fails:
            raise self.fails.popleft()
        unknown = sorted(set(symbols) - set(FIRST_CLOSE))
        if unknown:
            raise NotFound(f"the market has no {', '.join(unknown)}")
        last = EPOCH + ((end - EPOCH) // frequency.length) * frequency.length
        opens = [last - frequency.length * back for back in range(window, 0, -1)]
        return {
            symbol: [
                make_bar(symbol, frequency, opens_at)
                for opens_at in opens
                if (symbol, opens_at) not in self.holes
            ]
            for symbol in symbols
        }
