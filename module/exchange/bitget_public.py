"""Public market data of Bitget: trading rules and candles, without keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from module.exchange import bitget_rows as rows
from module.exchange.bitget_futures import PRODUCT, read_contracts
from module.exchange.bitget_requests import readable, understood
from module.exchange.bitget_wire import BitgetWire, endpoint
from module.exchange.venue import Priority
from module.model.books import Depth, MarginTier
from module.model.errors import InvalidInput, NotFound, Rejected
from module.model.market import Candle, Frequency, Instrument, MarketType
from module.ports import Clock

CANDLES = endpoint("publicMixGetV2MixMarketCandles", 20)
OLD_CANDLES = endpoint("publicMixGetV2MixMarketHistoryCandles", 20)
SPOT_SYMBOLS = endpoint("publicSpotGetV2SpotPublicSymbols", 20)
SPOT_CANDLES = endpoint("publicSpotGetV2SpotMarketCandles", 20)
SPOT_OLD_CANDLES = endpoint("publicSpotGetV2SpotMarketHistoryCandles", 20)
DEPTH = endpoint("publicMixGetV2MixMarketMergeDepth", 20)
SPOT_DEPTH = endpoint("publicSpotGetV2SpotMarketMergeDepth", 20)
TIERS = endpoint("publicMixGetV2MixMarketQueryPositionLever", 20)

CHUNK: Final = 200
SPAN_MAX: Final = timedelta(days=88)
_MONDAY: Final = datetime(1970, 1, 5, tzinfo=UTC)
_GRANULARITY: Final = {
    Frequency.MINUTE_1: ("1m", "1min"),
    Frequency.MINUTE_3: ("3m", "3min"),
    Frequency.MINUTE_5: ("5m", "5min"),
    Frequency.MINUTE_15: ("15m", "15min"),
    Frequency.MINUTE_30: ("30m", "30min"),
    Frequency.HOUR_1: ("1H", "1h"),
    Frequency.HOUR_2: ("2H", ""),
    Frequency.HOUR_4: ("4H", "4h"),
    Frequency.HOUR_6: ("6Hutc", "6Hutc"),
    Frequency.HOUR_12: ("12Hutc", "12Hutc"),
    Frequency.DAY_1: ("1Dutc", "1Dutc"),
    Frequency.WEEK_1: ("1Wutc", "1Wutc"),
}
# How far back `candles` reaches (published); older bars come from `history-candles`.
_REACH_DAYS: Final = {
    Frequency.MINUTE_1: 29,
    Frequency.MINUTE_3: 29,
    Frequency.MINUTE_5: 29,
    Frequency.MINUTE_15: 51,
    Frequency.MINUTE_30: 61,
    Frequency.HOUR_1: 82,
    Frequency.HOUR_2: 119,
    Frequency.HOUR_4: 239,
}
_REACH_DAYS_LONG: Final = 359


class BitgetPublic:
    """Implements `module.exchange.venue.PublicMarket`. Thread safe."""

    def __init__(self, wire: BitgetWire, clock: Clock) -> None:
        self._wire = wire
        self._clock = clock

    def instruments(self, market: MarketType) -> Mapping[str, Instrument]:
        """Trading rules by symbol."""
        if market is MarketType.FUTURES:
            return read_contracts(self._wire, Priority.MARKET_DATA)
        return read_spot_symbols(self._wire, Priority.MARKET_DATA)

    def candles(
        self,
        market: MarketType,
        symbol: str,
        frequency: Frequency,
        end: datetime,
        limit: int,
    ) -> list[Candle]:
        """Up to `limit` closed bars that close at or before `end`, oldest first; gaps stay gaps.

        NotFound for a symbol that the venue does not have.
        """
        length = frequency.length
        last_close = _grid_at_or_before(min(end, self._clock.now()), frequency)
        first_open = last_close - limit * length
        found: dict[datetime, Candle] = {}
        chunk = min(CHUNK, max(1, int(SPAN_MAX / length)))
        start = first_open
        while start < last_close:
            stop = min(start + chunk * length, last_close)
            for candle in self._chunk(market, symbol, frequency, start, stop):
                found[candle.opens_at] = candle
            start = stop
        return [found[opens_at] for opens_at in sorted(found)]

    def depth(self, market: MarketType, symbol: str) -> Depth:
        """The order book now, as many levels as the venue shows, best prices first.

        NotFound for a symbol that the venue does not have.
        """
        params: dict[str, object] = {"symbol": symbol, "limit": "max"}
        target = SPOT_DEPTH
        if market is MarketType.FUTURES:
            target = DEPTH
            params["productType"] = PRODUCT
        data = self._ask(symbol, lambda: self._wire.call(target, params, Priority.MARKET_DATA))
        return understood(lambda: rows.depth(rows.row_of(data), symbol))

    def margin_tiers(self, symbol: str) -> tuple[MarginTier, ...]:
        """What positions must keep, by size, smallest first; NotFound for an unknown symbol."""
        params: dict[str, object] = {"symbol": symbol, "productType": PRODUCT}
        data = self._ask(symbol, lambda: self._wire.call(TIERS, params, Priority.MARKET_DATA))
        found = understood(lambda: [rows.margin_tier(row) for row in rows.rows_of(data)])
        return tuple(sorted(found, key=lambda tier: tier.from_notional))

    def close(self) -> None:
        """End connections."""
        self._wire.close()

    def _chunk(
        self,
        market: MarketType,
        symbol: str,
        frequency: Frequency,
        start: datetime,
        stop: datetime,
    ) -> list[Candle]:
        """Bars that open within [start, stop); asked for with a bar of margin on both sides."""
        reach = timedelta(days=_REACH_DAYS.get(frequency, _REACH_DAYS_LONG))
        is_recent = start > self._clock.now() - reach
        mix_name, spot_name = _GRANULARITY[frequency]
        params: dict[str, object] = {
            "symbol": symbol,
            "startTime": rows.to_ms(start - frequency.length),
            "endTime": rows.to_ms(stop),
        }
        if market is MarketType.FUTURES:
            target = CANDLES if is_recent else OLD_CANDLES
            params.update(productType=PRODUCT, granularity=mix_name)
        else:
            if not spot_name:
                raise InvalidInput(f"Bitget has no {frequency} candles of spot pairs")
            target = SPOT_CANDLES if is_recent else SPOT_OLD_CANDLES
            params["granularity"] = spot_name
        params["limit"] = str(CHUNK + 2 if is_recent else CHUNK)
        data = self._ask(
            target_name=symbol, call=lambda: self._wire.call(target, params, Priority.MARKET_DATA)
        )
        candles = understood(lambda: rows.candles(data, symbol, frequency))
        now = self._clock.now()
        return [
            candle
            for candle in candles
            if start <= candle.opens_at < stop and candle.closes_at <= now
        ]

    @staticmethod
    def _ask(target_name: str, call: Callable[[], object]) -> object:
        try:
            return call()
        except Rejected as error:
            if error.code in ("40034", "40072", "40102", "40309"):
                raise NotFound(f"the exchange does not have {target_name}") from error
            raise


def read_spot_symbols(wire: BitgetWire, priority: Priority) -> dict[str, Instrument]:
    """All USDT pairs by symbol."""
    data = wire.call(SPOT_SYMBOLS, {}, priority)
    found = readable(data, rows.spot_symbol)
    return {item.symbol: item for item in found if item.quote_asset == "USDT"}


def _grid_at_or_before(when: datetime, frequency: Frequency) -> datetime:
    """The last close of a bar of `frequency` at or before `when`; weeks begin on Monday."""
    return _MONDAY + ((when - _MONDAY) // frequency.length) * frequency.length
