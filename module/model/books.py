"""Public depth and margin rules of one symbol: what an order meets, what a position must keep."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from module.model.orders import Side


@dataclass(frozen=True, slots=True)
class BookLevel:
    """So much (base asset) is offered at this price."""

    price: Decimal
    size: Decimal


@dataclass(frozen=True, slots=True)
class Depth:
    """The order book of one symbol at one moment: bids downwards, asks upwards, best first."""

    symbol: str
    bids: tuple[BookLevel, ...]
    asks: tuple[BookLevel, ...]
    at: datetime

    def met_by(self, side: Side) -> tuple[BookLevel, ...]:
        """The levels that an order of `side` trades with."""
        return self.asks if side is Side.BUY else self.bids


@dataclass(frozen=True, slots=True)
class MarginTier:
    """A position whose notional (USDT) is above `from_notional` and at most `to_notional` must keep
    `maintenance_rate` (a fraction of it)."""

    from_notional: Decimal
    to_notional: Decimal
    maintenance_rate: Decimal
