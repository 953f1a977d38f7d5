"""Bitget's public prices: time, tickers, last, mark and index.

Nothing here needs a key; limits count per address.
"""

from __future__ import annotations

from decimal import Decimal

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import TickerView
from module.simulator.engine.engine_types import MarketType
from module.simulator.prices.market_source import PriceKind
from module.simulator.venue import Call
from module.simulator.wire.bitget_instruments import contract_of, pair_of
from module.simulator.wire.bitget_params import PRODUCT_TYPES
from module.simulator.wire.bitget_rows import Row, number

_USDT_FUTURES = PRODUCT_TYPES[0]


def server_time(call: Call) -> object:
    """`GET /api/v2/public/time`."""
    return {"serverTime": str(call.now_ms)}


# -- prices -----------------------------------------------------------------------------------


def tickers(call: Call) -> object:
    """`GET /api/v2/mix/market/tickers`: every contract that has a price."""
    if call.params.product_type() != _USDT_FUTURES:
        return []
    engine = call.engine
    return [
        _ticker_row(engine, engine.ticker(symbol))
        for symbol in engine.futures_instruments()
        if engine.is_listed(symbol)
    ]


def ticker(call: Call) -> object:
    """`GET /api/v2/mix/market/ticker`: a list of one."""
    symbol = contract_of(call).symbol
    return [_ticker_row(call.engine, call.engine.ticker(symbol))]


def _ticker_row(engine: Engine, view: TickerView) -> Row:
    funding = engine.next_funding(view.symbol)
    return {
        "symbol": view.symbol,
        "lastPr": number(view.last),
        "askPr": number(view.ask),
        "bidPr": number(view.bid),
        "bidSz": number(view.bid_size),
        "askSz": number(view.ask_size),
        "high24h": number(view.high_24h),
        "low24h": number(view.low_24h),
        "ts": str(view.at_ms),
        "change24h": _change(view.last, view.open_24h),
        "baseVolume": number(view.base_volume),
        "quoteVolume": number(view.quote_volume),
        "usdtVolume": number(view.quote_volume),
        "openUtc": number(view.open_utc),
        "changeUtc24h": _change(view.last, view.open_utc),
        "indexPrice": number(view.index),
        "fundingRate": number(funding.rate) if funding else "0",
        "holdingAmount": number(engine.open_interest(view.symbol)),
        "deliveryStartTime": None,
        "deliveryTime": None,
        "deliveryStatus": "",
        "open24h": number(view.open_24h),
        "markPrice": number(view.mark),
    }


def _change(last: Decimal, first: Decimal) -> str:
    return number((last / first - 1).quantize(Decimal("0.00001"))) if first else "0"


def symbol_price(call: Call) -> object:
    """`GET /api/v2/mix/market/symbol-price`."""
    symbol = contract_of(call).symbol
    return [
        {
            "symbol": symbol,
            "price": number(call.engine.price(symbol, PriceKind.LAST)),
            "indexPrice": number(call.engine.price(symbol, PriceKind.INDEX)),
            "markPrice": number(call.engine.price(symbol, PriceKind.MARK)),
            "ts": str(call.now_ms),
        }
    ]


def spot_tickers(call: Call) -> object:
    """`GET /api/v2/spot/market/tickers`."""
    wanted = call.params.optional_symbol()
    engine = call.engine
    if wanted is not None:
        pair_of(call)
    return [
        _spot_ticker_row(engine.ticker(symbol, MarketType.SPOT))
        for symbol in engine.spot_instruments()
        if wanted in (None, symbol) and engine.is_listed(symbol)
    ]


def _spot_ticker_row(view: TickerView) -> Row:
    return {
        "open": number(view.open_24h),
        "symbol": view.symbol,
        "high24h": number(view.high_24h),
        "low24h": number(view.low_24h),
        "lastPr": number(view.last),
        "quoteVolume": number(view.quote_volume),
        "baseVolume": number(view.base_volume),
        "usdtVolume": number(view.quote_volume),
        "ts": str(view.at_ms),
        "bidPr": number(view.bid),
        "askPr": number(view.ask),
        "bidSz": number(view.bid_size),
        "askSz": number(view.ask_size),
        "openUtc": number(view.open_utc),
        "changeUtc24h": _change(view.last, view.open_utc),
        "change24h": _change(view.last, view.open_24h),
    }
