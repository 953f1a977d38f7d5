"""Bitget's public endpoints: time, tickers, depth, candles, funding.

Nothing here needs a key; limits count per address.
"""

from __future__ import annotations

from decimal import Decimal

from module.simulator.bitget_codes import WireError
from module.simulator.bitget_instruments import contract_of
from module.simulator.bitget_params import PRODUCT_TYPES, Params, wrong
from module.simulator.bitget_rows import Row, number
from module.simulator.engine import Engine
from module.simulator.engine_records import TickerView
from module.simulator.engine_types import EngineRejected, MarketType, RejectReason
from module.simulator.market_source import DAY_MS, HOUR_MS, MINUTE_MS, Bar
from module.simulator.venue import Call

_USDT_FUTURES = PRODUCT_TYPES[0]
_CHINA_DAY_MS = 16 * HOUR_MS
_MONDAY_MS = 4 * DAY_MS

# granularity → (length, offset of its opens from the epoch); plain days start at 16:00 UTC
_MIX_GRANULARITIES: dict[str, tuple[int, int]] = {
    "1m": (MINUTE_MS, 0),
    "3m": (3 * MINUTE_MS, 0),
    "5m": (5 * MINUTE_MS, 0),
    "15m": (15 * MINUTE_MS, 0),
    "30m": (30 * MINUTE_MS, 0),
    "1H": (HOUR_MS, 0),
    "2H": (2 * HOUR_MS, 0),
    "4H": (4 * HOUR_MS, 0),
    "6H": (6 * HOUR_MS, _CHINA_DAY_MS % (6 * HOUR_MS)),
    "12H": (12 * HOUR_MS, _CHINA_DAY_MS % (12 * HOUR_MS)),
    "1D": (DAY_MS, _CHINA_DAY_MS),
    "3D": (3 * DAY_MS, _CHINA_DAY_MS),
    "1W": (7 * DAY_MS, _MONDAY_MS - DAY_MS + _CHINA_DAY_MS),
    "6Hutc": (6 * HOUR_MS, 0),
    "12Hutc": (12 * HOUR_MS, 0),
    "1Dutc": (DAY_MS, 0),
    "3Dutc": (3 * DAY_MS, 0),
    "1Wutc": (7 * DAY_MS, _MONDAY_MS),
}
_SPOT_NAMES = {
    "1min": "1m",
    "3min": "3m",
    "5min": "5m",
    "15min": "15m",
    "30min": "30m",
    "1h": "1H",
    "4h": "4H",
    "6h": "6H",
    "12h": "12H",
    "1day": "1D",
    "3day": "3D",
    "1week": "1W",
}
# how far back `candles` reaches; older bars come from `history-candles`
_REACH_MS = {
    MINUTE_MS: 31 * DAY_MS,
    3 * MINUTE_MS: 31 * DAY_MS,
    5 * MINUTE_MS: 31 * DAY_MS,
    15 * MINUTE_MS: 52 * DAY_MS,
    30 * MINUTE_MS: 62 * DAY_MS,
    HOUR_MS: 83 * DAY_MS,
    2 * HOUR_MS: 120 * DAY_MS,
    4 * HOUR_MS: 240 * DAY_MS,
    6 * HOUR_MS: 360 * DAY_MS,
}
_CANDLES_LIMIT_MAX = 1000
_HISTORY_LIMIT_MAX = 200
_DEPTH_LIMITS = {"1": 1, "5": 5, "15": 15, "50": 50, "max": 100}


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
        "holdingAmount": "0",
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
    price = number(call.engine.last_price(symbol))
    return [
        {
            "symbol": symbol,
            "price": price,
            "indexPrice": price,
            "markPrice": price,
            "ts": str(call.now_ms),
        }
    ]


def spot_tickers(call: Call) -> object:
    """`GET /api/v2/spot/market/tickers`."""
    wanted = call.params.optional_symbol()
    engine = call.engine
    if wanted is not None and wanted not in engine.spot_instruments():
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, wanted)
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


def merge_depth(call: Call) -> object:
    """`GET /api/v2/mix/market/merge-depth`: here, and only here, prices are JSON numbers."""
    rules = contract_of(call)
    view = call.engine.depth(rules.symbol, _depth_limit(call.params, "100"))
    return {
        "asks": [[_json_number(price), _json_number(size)] for price, size in view.asks],
        "bids": [[_json_number(price), _json_number(size)] for price, size in view.bids],
        "ts": str(view.at_ms),
        "scale": number(rules.price_step),
        "precision": "scale0",
        "isMaxPrecision": "NO",
    }


def spot_order_book(call: Call) -> object:
    """`GET /api/v2/spot/market/orderbook`."""
    limit = _depth_limit(call.params, "100")
    view = call.engine.depth(call.params.symbol(), limit, MarketType.SPOT)
    return {
        "asks": [[number(price), number(size)] for price, size in view.asks],
        "bids": [[number(price), number(size)] for price, size in view.bids],
        "ts": str(view.at_ms),
    }


def _depth_limit(params: Params, default: str) -> int:
    text = (params.text("limit") or default).lower()
    if text in _DEPTH_LIMITS:
        return _DEPTH_LIMITS[text]
    return max(1, params.integer("limit", 100, most=150))


def _json_number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


# -- candles ----------------------------------------------------------------------------------


def candles(call: Call) -> object:
    """`GET /api/v2/mix/market/candles`: ascending, the bar that is not over comes last."""
    return _mix_candles(call, history=False)


def history_candles(call: Call) -> object:
    """`GET /api/v2/mix/market/history-candles` (also mark, index): finished bars only."""
    return _mix_candles(call, history=True)


def _mix_candles(call: Call, *, history: bool) -> object:
    symbol = contract_of(call).symbol
    name = call.params.needed("granularity")
    if name not in _MIX_GRANULARITIES:
        raise wrong("granularity", name)
    bars = _bars(call, symbol, name, history=history)
    return [[*_prices(bar), number(bar.volume), number(bar.quote_volume)] for bar in bars]


def spot_candles(call: Call) -> object:
    """`GET /api/v2/spot/market/candles`."""
    return _spot_bars(call, history=False)


def spot_history_candles(call: Call) -> object:
    """`GET /api/v2/spot/market/history-candles`: endTime is needed."""
    call.params.needed("endTime")
    return _spot_bars(call, history=True)


def _spot_bars(call: Call, *, history: bool) -> object:
    symbol = call.params.symbol()
    if symbol not in call.engine.spot_instruments():
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, symbol)
    text = call.params.needed("granularity")
    name = _SPOT_NAMES.get(text, text if text.endswith("utc") else "")
    if name not in _MIX_GRANULARITIES:
        raise wrong("granularity", text)
    return [
        [*_prices(bar), number(bar.volume), number(bar.quote_volume), number(bar.quote_volume)]
        for bar in _bars(call, symbol, name, history=history)
    ]


def _bars(call: Call, symbol: str, granularity: str, *, history: bool) -> list[Bar]:
    length_ms, offset_ms = _MIX_GRANULARITIES[granularity]
    params = call.params
    start_ms, end_ms = params.optional_ms("startTime"), params.optional_ms("endTime")
    if start_ms is not None and end_ms is not None and end_ms < start_ms:
        raise WireError("40017", "Parameter verification failed startTime > endTime")
    most = _HISTORY_LIMIT_MAX if history else _CANDLES_LIMIT_MAX
    if not history and length_ms in _REACH_MS:
        start_ms = max(start_ms or 0, call.now_ms - _REACH_MS[length_ms])
    return call.engine.candles(
        symbol,
        length_ms,
        start_ms=start_ms,
        end_ms=end_ms,
        limit=max(1, params.integer("limit", 100, most=most)),
        offset_ms=offset_ms,
        include_forming=not history,
    )


def _prices(bar: Bar) -> list[str]:
    prices = (bar.open, bar.high, bar.low, bar.close)
    return [str(bar.open_ms), *(number(price) for price in prices)]


# -- funding ----------------------------------------------------------------------------------


def current_funding(call: Call) -> object:
    """`GET /api/v2/mix/market/current-fund-rate`."""
    if call.params.product_type() != _USDT_FUTURES:
        return []
    wanted = call.params.optional_symbol()
    engine = call.engine
    if wanted is not None:
        contract_of(call)
    rows: list[Row] = []
    for symbol, rules in engine.futures_instruments().items():
        if wanted not in (None, symbol) or not engine.is_listed(symbol):
            continue
        point = engine.next_funding(symbol)
        if point is not None:
            rows.append(
                {
                    "symbol": symbol,
                    "fundingRate": number(point.rate),
                    "fundingRateInterval": str(rules.funding_interval_h),
                    "nextUpdate": str(point.settlement_ms),
                    "minFundingRate": "-0.003",
                    "maxFundingRate": "0.003",
                }
            )
    return rows


def funding_history(call: Call) -> object:
    """`GET /api/v2/mix/market/history-fund-rate`: newest first, in pages."""
    symbol = contract_of(call).symbol
    size = max(1, call.params.integer("pageSize", 20, most=100))
    page = max(1, call.params.integer("pageNo", 1, most=1000))
    rules = call.engine.futures_instruments()[symbol]
    reach_ms = (size * page + 1) * rules.funding_interval_h * HOUR_MS
    points = call.engine.funding_history(symbol, call.now_ms - reach_ms, call.now_ms)
    newest_first = points[::-1][size * (page - 1) : size * page]
    return [
        {
            "symbol": symbol,
            "fundingRate": number(point.rate),
            "fundingTime": str(point.settlement_ms),
        }
        for point in newest_first
    ]


def funding_time(call: Call) -> object:
    """`GET /api/v2/mix/market/funding-time`."""
    rules = contract_of(call)
    point = call.engine.next_funding(rules.symbol)
    return [
        {
            "symbol": rules.symbol,
            "nextFundingTime": str(point.settlement_ms) if point else "",
            "ratePeriod": str(rules.funding_interval_h),
        }
    ]


def open_interest(call: Call) -> object:
    """`GET /api/v2/mix/market/open-interest`: this world has no other traders."""
    symbol = contract_of(call).symbol
    return {"openInterestList": [{"symbol": symbol, "size": "0"}], "ts": str(call.now_ms)}
