"""Instruments and candles: what can be traded, in which steps, and what its price did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from module.model.errors import InvalidInput


class MarketType(StrEnum):
    """The two markets an account can be of."""

    FUTURES = "futures"
    SPOT = "spot"


class Frequency(StrEnum):
    """Bar lengths a strategy may ask for. Bars, days and weeks (Monday) are UTC."""

    MINUTE_1 = "1m"
    MINUTE_3 = "3m"
    MINUTE_5 = "5m"
    MINUTE_15 = "15m"
    MINUTE_30 = "30m"
    HOUR_1 = "1h"
    HOUR_2 = "2h"
    HOUR_4 = "4h"
    HOUR_6 = "6h"
    HOUR_12 = "12h"
    DAY_1 = "1d"
    WEEK_1 = "1w"

    @property
    def length(self) -> timedelta:
        """How long one bar is."""
        unit = {"m": 60, "h": 3600, "d": 86400, "w": 604800}[self.value[-1]]
        return timedelta(seconds=int(self.value[:-1]) * unit)

    @classmethod
    def parse(cls, text: str) -> Frequency:
        """The frequency that `text` names; InvalidInput lists the known ones."""
        try:
            return cls(text)
        except ValueError as error:
            known = ", ".join(cls)
            raise InvalidInput(f"unknown frequency {text!r}; known are {known}") from error


@dataclass(frozen=True, slots=True)
class Instrument:
    """The trading rules of one symbol on one venue."""

    symbol: str
    base_asset: str
    quote_asset: str
    market: MarketType
    price_step: Decimal
    size_step: Decimal
    size_min: Decimal
    notional_min: Decimal
    market_size_max: Decimal
    leverage_max: Decimal
    taker_fee: Decimal
    maker_fee: Decimal
    tradable: bool = True


@dataclass(frozen=True, slots=True)
class Candle:
    """One closed bar. `opens_at` inclusive, `closes_at` exclusive; volume in base asset."""

    symbol: str
    frequency: Frequency
    opens_at: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal

    @property
    def closes_at(self) -> datetime:
        """The index a strategy sees: the time at which the bar was complete."""
        return self.opens_at + self.frequency.length


@dataclass(frozen=True, slots=True)
class Quote:
    """Best prices and mark of one symbol at one moment."""

    symbol: str
    bid: Decimal
    ask: Decimal
    last: Decimal
    mark: Decimal
    at: datetime
