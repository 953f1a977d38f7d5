"""Bitget's depth and public trades.

The public trades are made from the candles, so that the two never disagree: every minute is
traded at its open, its two extremes and its close, a quarter of its volume each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import DepthView
from module.simulator.engine.engine_types import MarketType
from module.simulator.prices.market_source import MINUTE_MS, Bar
from module.simulator.venue import Call
from module.simulator.wire.bitget_instruments import contract_of, pair_of
from module.simulator.wire.bitget_params import Params, wrong
from module.simulator.wire.bitget_rows import Row, number

_LIMITS = {"1": 1, "5": 5, "15": 15, "50": 50, "max": 1000}
_LIMIT_MAX = 1000
_SCALES = ("scale0", "scale1", "scale2", "scale3")
_STEPS = {f"step{number}": number for number in range(6)}
_TRADES_MAX = 1000
_TRADE_MINUTES_MAX = 90 * 24 * 60
_OPEN_AT_MS, _FIRST_AT_MS, _SECOND_AT_MS, _CLOSE_AT_MS = 0, 15_000, 40_000, 55_000


# -- depth ------------------------------------------------------------------------------------


def merge_depth(call: Call) -> object:
    """`GET /api/v2/mix/market/merge-depth`: here, and only here, levels are JSON numbers."""
    rules = contract_of(call)
    view = call.engine.depth(rules.symbol, _LIMIT_MAX)
    return _merged(call, view, rules.price_step)


def spot_merge_depth(call: Call) -> object:
    """`GET /api/v2/spot/market/merge-depth`."""
    rules = pair_of(call)
    view = call.engine.depth(rules.symbol, _LIMIT_MAX, MarketType.SPOT)
    return _merged(call, view, rules.price_step)


def _merged(call: Call, view: DepthView, tick: Decimal) -> Row:
    """Levels merged on 10^N ticks of scaleN, asks upwards and bids downwards."""
    scale = (call.params.text("precision") or _SCALES[0]).lower()
    if scale not in _SCALES:
        raise wrong("precision", scale)
    step = tick.scaleb(_SCALES.index(scale))
    limit = _depth_limit(call.params)
    return {
        "asks": [_json_level(level) for level in _merge(view.asks, step, ROUND_CEILING)[:limit]],
        "bids": [_json_level(level) for level in _merge(view.bids, step, ROUND_FLOOR)[:limit]],
        "ts": str(view.at_ms),
        "scale": number(step),
        "precision": scale,
        "isMaxPrecision": "YES" if scale == _SCALES[-1] else "NO",
    }


def spot_order_book(call: Call) -> object:
    """`GET /api/v2/spot/market/orderbook`: strings; `type` step0 ... step5 merges."""
    rules = pair_of(call)
    text = (call.params.text("type") or "step0").lower()
    if text not in _STEPS:
        raise wrong("type", text)
    step = rules.price_step.scaleb(_STEPS[text])
    limit = _depth_limit(call.params)
    view = call.engine.depth(rules.symbol, _LIMIT_MAX, MarketType.SPOT)
    return {
        "asks": [_text_level(level) for level in _merge(view.asks, step, ROUND_CEILING)[:limit]],
        "bids": [_text_level(level) for level in _merge(view.bids, step, ROUND_FLOOR)[:limit]],
        "ts": str(view.at_ms),
    }


def _merge(
    levels: Sequence[tuple[Decimal, Decimal]], step: Decimal, rounding: str
) -> list[tuple[Decimal, Decimal]]:
    """The levels on multiples of `step`, sizes added up; nothing below one step."""
    merged: dict[Decimal, Decimal] = {}
    for price, size in levels:
        on_step = (price / step).to_integral_value(rounding) * step
        if on_step > 0:
            merged[on_step] = merged.get(on_step, Decimal(0)) + size
    return list(merged.items())


def _depth_limit(params: Params) -> int:
    text = (params.text("limit") or "100").lower()
    return _LIMITS.get(text) or max(1, params.integer("limit", 100, most=_LIMIT_MAX))


def _json_level(level: tuple[Decimal, Decimal]) -> list[int | float]:
    return [_json_number(value) for value in level]


def _text_level(level: tuple[Decimal, Decimal]) -> list[str]:
    return [number(value) for value in level]


def _json_number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


# -- public trades ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PublicTrade:
    at_ms: int
    number: int
    price: Decimal
    size: Decimal
    is_buy: bool

    @property
    def trade_id(self) -> int:
        """19 digits, increasing in time."""
        return self.at_ms * 1_000_000 + self.number


def public_trades(call: Call) -> object:
    """`GET /api/v2/mix/market/fills`: the latest, newest first."""
    rules = contract_of(call)
    return _rows(call, rules.symbol, rules.size_step, capital=False)


def public_trades_history(call: Call) -> object:
    """`GET /api/v2/mix/market/fills-history`: pages; sides begin with a capital letter here."""
    rules = contract_of(call)
    return _rows(call, rules.symbol, rules.size_step, capital=True)


def spot_public_trades(call: Call) -> object:
    """`GET /api/v2/spot/market/fills`."""
    rules = pair_of(call)
    return _rows(call, rules.symbol, rules.size_step, capital=False)


def spot_public_trades_history(call: Call) -> object:
    """`GET /api/v2/spot/market/fills-history`."""
    rules = pair_of(call)
    return _rows(call, rules.symbol, rules.size_step, capital=True)


def _rows(call: Call, symbol: str, size_step: Decimal, *, capital: bool) -> list[Row]:
    params = call.params
    limit = max(1, params.integer("limit", 100, most=_TRADES_MAX))
    before_id = params.integer("idLessThan", 2**62)
    start_ms = params.optional_ms("startTime") or 0
    end_ms = params.optional_ms("endTime")
    until_ms = min(call.now_ms, before_id // 1_000_000, call.now_ms if end_ms is None else end_ms)
    rows: list[Row] = []
    for trade in _newest_first(call.engine, symbol, size_step, until_ms):
        if trade.at_ms < start_ms or len(rows) == limit:
            break
        if trade.trade_id < before_id:
            side = "buy" if trade.is_buy else "sell"
            rows.append(
                {
                    "tradeId": str(trade.trade_id),
                    "price": number(trade.price),
                    "size": number(trade.size),
                    "side": side.capitalize() if capital else side,
                    "ts": str(trade.at_ms),
                    "symbol": symbol,
                }
            )
    return rows


def _newest_first(
    engine: Engine, symbol: str, size_step: Decimal, until_ms: int
) -> Iterator[_PublicTrade]:
    """The trades of the closed minutes up to `until_ms`, and the first of the present one."""
    minute_ms = until_ms - until_ms % MINUTE_MS
    first_ms, _ = engine.market.span(symbol)
    lowest_ms = max(first_ms or 0, minute_ms - _TRADE_MINUTES_MAX * MINUTE_MS)
    while minute_ms >= lowest_ms:
        bar = engine.candle(symbol, minute_ms, MINUTE_MS)
        if bar is not None:
            is_over = minute_ms + MINUTE_MS <= engine.now_ms
            trades = _minute_trades(bar, size_step, is_over=is_over)
            yield from (trade for trade in reversed(trades) if trade.at_ms <= until_ms)
        minute_ms -= MINUTE_MS


def _minute_trades(bar: Bar, size_step: Decimal, *, is_over: bool) -> list[_PublicTrade]:
    rises = bar.close >= bar.open
    extremes = (bar.low, bar.high) if rises else (bar.high, bar.low)
    quarter = (bar.volume / 4 / size_step).to_integral_value(ROUND_DOWN) * size_step
    size = max(size_step, quarter)
    moments = [(_OPEN_AT_MS, bar.open, rises)]
    if is_over:
        moments += [
            (_FIRST_AT_MS, extremes[0], not rises),
            (_SECOND_AT_MS, extremes[1], rises),
            (_CLOSE_AT_MS, bar.close, not rises),
        ]
    return [
        _PublicTrade(bar.open_ms + after_ms, index, price, size, is_buy)
        for index, (after_ms, price, is_buy) in enumerate(moments)
    ]
