"""Tables of the `fin_crypto` database: closed candles, what is watched, what the venue lacks.

Every key begins with the series (market_id, market, symbol, frequency) and contains `opens_at`, so
that the candles can be partitioned by month later without another key. A futures contract and a
spot pair of one name are two series: `market` tells them apart. Times are world time.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import DateTime, Integer, Numeric, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

MONEY = Numeric(38, 18)
INSTANT = DateTime(timezone=True)


class MarketBase(DeclarativeBase):
    """Everything in `fin_crypto`."""


class _Series:
    """One line of candles: `frequency` is 1m, 1h or 1d, as the venue itself closes them."""

    market_id: Mapped[str] = mapped_column(String(128), primary_key=True, sort_order=-9)
    market: Mapped[str] = mapped_column(String(16), primary_key=True, sort_order=-8)
    symbol: Mapped[str] = mapped_column(String(32), primary_key=True, sort_order=-7)
    frequency: Mapped[str] = mapped_column(String(4), primary_key=True, sort_order=-6)


class StoredCandle(_Series, MarketBase):
    """One closed bar, as the venue told it; volume in base asset."""

    __tablename__ = "candles"

    opens_at: Mapped[datetime] = mapped_column(INSTANT, primary_key=True, sort_order=-5)
    open: Mapped[Decimal] = mapped_column(MONEY)
    high: Mapped[Decimal] = mapped_column(MONEY)
    low: Mapped[Decimal] = mapped_column(MONEY)
    close: Mapped[Decimal] = mapped_column(MONEY)
    volume: Mapped[Decimal] = mapped_column(MONEY)


class CandleGap(_Series, MarketBase):
    """A stretch [opens_at, until) that the venue was asked for and had no bars of.

    `tries` counts how often; after a few the stretch is believed to be empty.
    """

    __tablename__ = "candle_gaps"

    opens_at: Mapped[datetime] = mapped_column(INSTANT, primary_key=True, sort_order=-5)
    until: Mapped[datetime] = mapped_column(INSTANT)
    tries: Mapped[int] = mapped_column(Integer)
    tried_at: Mapped[datetime] = mapped_column(INSTANT)


class WatchedSymbol(MarketBase):
    """A symbol that somebody asked for; the collector follows it until nobody has for a while."""

    __tablename__ = "watched_symbols"

    market_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    market: Mapped[str] = mapped_column(String(16), primary_key=True)
    symbol: Mapped[str] = mapped_column(String(32), primary_key=True)
    first_asked_at: Mapped[datetime] = mapped_column(INSTANT)
    last_asked_at: Mapped[datetime] = mapped_column(INSTANT)
