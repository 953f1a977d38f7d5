"""Bitget's candles: which bars a request means, and how they are written.

    granularity -> opens (a fixed length on a grid, or calendar months) -> engine bars -> rows

A request is aligned at its end, as at the real exchange: the latest `limit` bars that open in
[startTime, endTime); no endTime is up to now. Plain days, weeks and months begin at 16:00 UTC (the
day of UTC+8), those named `utc` at midnight. The bar that is not over comes only from `candles`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from module.simulator.prices.market_source import DAY_MS, HOUR_MS, MINUTE_MS, Bar, PriceKind
from module.simulator.venue import Call
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_instruments import contract_of, pair_of
from module.simulator.wire.bitget_params import Params, wrong
from module.simulator.wire.bitget_rows import number

_CHINA_DAY_MS = 16 * HOUR_MS
_CHINA_AHEAD_MS = 8 * HOUR_MS
_MONDAY_MS = 4 * DAY_MS


@dataclass(frozen=True, slots=True)
class _Grid:
    """Opens are multiples of `length_ms` plus `offset_ms`; months (0) start on their first day."""

    length_ms: int
    offset_ms: int = 0

    @property
    def is_monthly(self) -> bool:
        return self.length_ms == 0

    def opens_until(self, until_ms: int) -> Iterator[tuple[int, int]]:
        """(open, length) of the bars that open before `until_ms`, latest first, without end."""
        if self.is_monthly:
            yield from _months_until(until_ms, self.offset_ms)
            return
        open_ms = (until_ms - 1 - self.offset_ms) // self.length_ms * self.length_ms
        while True:
            yield open_ms + self.offset_ms, self.length_ms
            open_ms -= self.length_ms


def _months_until(until_ms: int, ahead_ms: int) -> Iterator[tuple[int, int]]:
    """Calendar months of a zone that is `ahead_ms` of UTC, latest first."""
    last = datetime.fromtimestamp((until_ms - 1 + ahead_ms) / 1000, UTC)
    index = last.year * 12 + last.month - 1
    while index > 1970 * 12:
        open_ms, next_ms = _month_ms(index), _month_ms(index + 1)
        yield open_ms - ahead_ms, next_ms - open_ms
        index -= 1


def _month_ms(index: int) -> int:
    return int(datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1000


_GRANULARITIES: dict[str, _Grid] = {
    "1m": _Grid(MINUTE_MS),
    "3m": _Grid(3 * MINUTE_MS),
    "5m": _Grid(5 * MINUTE_MS),
    "15m": _Grid(15 * MINUTE_MS),
    "30m": _Grid(30 * MINUTE_MS),
    "1H": _Grid(HOUR_MS),
    "2H": _Grid(2 * HOUR_MS),
    "4H": _Grid(4 * HOUR_MS),
    "6H": _Grid(6 * HOUR_MS, _CHINA_DAY_MS % (6 * HOUR_MS)),
    "12H": _Grid(12 * HOUR_MS, _CHINA_DAY_MS % (12 * HOUR_MS)),
    "1D": _Grid(DAY_MS, _CHINA_DAY_MS),
    "3D": _Grid(3 * DAY_MS, _CHINA_DAY_MS),
    "1W": _Grid(7 * DAY_MS, _MONDAY_MS - DAY_MS + _CHINA_DAY_MS),
    "1M": _Grid(0, _CHINA_AHEAD_MS),
    "6Hutc": _Grid(6 * HOUR_MS),
    "12Hutc": _Grid(12 * HOUR_MS),
    "1Dutc": _Grid(DAY_MS),
    "3Dutc": _Grid(3 * DAY_MS),
    "1Wutc": _Grid(7 * DAY_MS, _MONDAY_MS),
    "1Mutc": _Grid(0),
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
    "1M": "1M",
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
_LINE_KINDS = {
    "MARKET": PriceKind.LAST,
    "MARK": PriceKind.MARK,
    "INDEX": PriceKind.INDEX,
}
_CANDLES_LIMIT_MAX = 1000
_HISTORY_LIMIT_MAX = 200
_SPAN_DAYS_MAX = 90


def candles(call: Call) -> object:
    """`GET /api/v2/mix/market/candles`: ascending, the bar that is not over comes last."""
    return _mix_candles(call, _kind(call.params), history=False)


def history_candles(call: Call) -> object:
    """`GET /api/v2/mix/market/history-candles`: finished bars only."""
    return _mix_candles(call, _kind(call.params), history=True)


def history_mark_candles(call: Call) -> object:
    """`GET /api/v2/mix/market/history-mark-candles`: the same of the mark price."""
    return _mix_candles(call, PriceKind.MARK, history=True)


def history_index_candles(call: Call) -> object:
    """`GET /api/v2/mix/market/history-index-candles`: the same of the index price."""
    return _mix_candles(call, PriceKind.INDEX, history=True)


def spot_candles(call: Call) -> object:
    """`GET /api/v2/spot/market/candles`: eight strings a row, quote volume twice."""
    return _spot_candles(call, history=False)


def spot_history_candles(call: Call) -> object:
    """`GET /api/v2/spot/market/history-candles`: endTime is needed, startTime means nothing."""
    call.params.needed("endTime")
    without_start = {k: v for k, v in call.params.values.items() if k != "startTime"}
    call = Call(call.engine, call.account_id, Params(without_start), call.key)
    return _spot_candles(call, history=True)


def _kind(params: Params) -> PriceKind:
    """The price that `kLineType` names: MARKET (default), MARK or INDEX."""
    text = params.text("kLineType") or "MARKET"
    kind = _LINE_KINDS.get(text.upper())
    if kind is None:
        raise wrong("kLineType", text)
    return kind


def _mix_candles(call: Call, kind: PriceKind, *, history: bool) -> object:
    symbol = contract_of(call).symbol
    name = call.params.needed("granularity")
    if name not in _GRANULARITIES:
        raise wrong("granularity", name)
    _check_span(call.params)
    bars = _bars(call, symbol, _GRANULARITIES[name], kind, history=history)
    return [[*_prices(bar), number(bar.volume), number(bar.quote_volume)] for bar in bars]


def _spot_candles(call: Call, *, history: bool) -> object:
    symbol = pair_of(call).symbol
    text = call.params.needed("granularity")
    name = _SPOT_NAMES.get(text, text if text.endswith("utc") else "")
    if name not in _GRANULARITIES:
        raise wrong("granularity", text)
    return [
        [*_prices(bar), number(bar.volume), number(bar.quote_volume), number(bar.quote_volume)]
        for bar in _bars(call, symbol, _GRANULARITIES[name], PriceKind.LAST, history=history)
    ]


def _check_span(params: Params) -> None:
    start_ms, end_ms = params.optional_ms("startTime"), params.optional_ms("endTime")
    if start_ms is not None and end_ms is not None and end_ms - start_ms > _SPAN_DAYS_MAX * DAY_MS:
        raise WireError(
            "00001", f"startTime and endTime interval cannot be greater than {_SPAN_DAYS_MAX} days"
        )


def _bars(call: Call, symbol: str, grid: _Grid, kind: PriceKind, *, history: bool) -> list[Bar]:
    """The bars that the request means, ascending."""
    params, engine = call.params, call.engine
    start_ms, end_ms = params.optional_ms("startTime"), params.optional_ms("endTime")
    if start_ms is not None and end_ms is not None and end_ms < start_ms:
        raise WireError("40017", "Parameter verification failed startTime > endTime")
    limit = _limit(params, _HISTORY_LIMIT_MAX if history else _CANDLES_LIMIT_MAX)
    if not history and grid.length_ms in _REACH_MS:
        start_ms = max(start_ms or 0, call.now_ms - _REACH_MS[grid.length_ms])
    if not grid.is_monthly:
        return engine.candles(
            symbol,
            grid.length_ms,
            start_ms=start_ms,
            end_ms=end_ms,
            limit=limit,
            offset_ms=grid.offset_ms,
            include_forming=not history,
            kind=kind,
        )
    first_ms, _ = engine.market.span(symbol)
    lowest_ms = max(start_ms or 0, first_ms or 0)
    found: list[Bar] = []
    until_ms = call.now_ms + 1 if end_ms is None else min(call.now_ms + 1, end_ms)
    for open_ms, length_ms in grid.opens_until(until_ms):
        if len(found) == limit or open_ms + length_ms <= lowest_ms or open_ms < (start_ms or 0):
            break
        bar = engine.candle(symbol, open_ms, length_ms, kind, include_forming=not history)
        if bar is not None:
            found.append(bar)
    return found[::-1]


def _limit(params: Params, most: int) -> int:
    limit = params.integer("limit", 100)
    if not 1 <= limit <= most:
        text = f"Value range verification failed: limit should be between 1~{most}"
        raise WireError("40053", text)
    return limit


def _prices(bar: Bar) -> list[str]:
    prices = (bar.open, bar.high, bar.low, bar.close)
    return [str(bar.open_ms), *(number(price) for price in prices)]
