"""Bitget's funding rates, open interest and fee rates."""

from __future__ import annotations

from module.simulator.prices.instruments import MAKER_FEE, SPOT_FEE, TAKER_FEE
from module.simulator.prices.market_source import HOUR_MS
from module.simulator.venue import Call
from module.simulator.wire.bitget_instruments import contract_of, pair_of
from module.simulator.wire.bitget_params import PRODUCT_TYPES, wrong
from module.simulator.wire.bitget_rows import Row, number

_USDT_FUTURES = PRODUCT_TYPES[0]
_FUNDING_INTERVAL_H_MAX = 8


def current_funding(call: Call) -> object:
    """`GET /api/v2/mix/market/current-fund-rate`."""
    if call.params.product_type() != _USDT_FUTURES:
        return []
    wanted = call.params.optional_symbol()
    engine = call.engine
    if wanted is not None:
        contract_of(call)
    rows: list[Row] = []
    for symbol in engine.futures_instruments():
        if wanted not in (None, symbol) or not engine.is_listed(symbol):
            continue
        point = engine.next_funding(symbol)
        if point is not None:
            rows.append(
                {
                    "symbol": symbol,
                    "fundingRate": number(point.rate),
                    "fundingRateInterval": str(engine.funding_interval_h(symbol)),
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
    reach_ms = (size * page + 1) * _FUNDING_INTERVAL_H_MAX * HOUR_MS
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
            "ratePeriod": str(call.engine.funding_interval_h(rules.symbol)),
        }
    ]


def open_interest(call: Call) -> object:
    """`GET /api/v2/mix/market/open-interest`: what the accounts of this world hold, base coin."""
    symbol = contract_of(call).symbol
    size = number(call.engine.open_interest(symbol))
    return {"openInterestList": [{"symbol": symbol, "size": size}], "ts": str(call.now_ms)}


# -- fees: one level for everybody ------------------------------------------------------------


def mix_fee_levels(call: Call) -> object:
    """`GET /api/v2/mix/market/vip-fee-rate`."""
    return [_fee_level(number(TAKER_FEE), number(MAKER_FEE))]


def spot_fee_levels(call: Call) -> object:
    """`GET /api/v2/spot/market/vip-fee-rate`."""
    return [_fee_level(number(SPOT_FEE), number(SPOT_FEE))]


def _fee_level(taker: str, maker: str) -> Row:
    return {
        "level": "0",
        "dealAmount": "0",
        "assetAmount": "0",
        "takerFeeRate": taker,
        "makerFeeRate": maker,
        "btcWithdrawAmount": "0",
        "usdtWithdrawAmount": "0",
    }


def trade_rate(call: Call) -> object:
    """`GET /api/v2/common/trade-rate`: the account's own rates for a symbol."""
    business = call.params.needed("businessType").lower()
    if business == "mix":
        symbol = call.params.symbol()
        contract = call.engine.futures_instruments().get(symbol)
        if contract is None:
            raise wrong("symbol", symbol)
        return _rates(number(contract.maker_fee), number(contract.taker_fee))
    if business == "spot":
        pair = pair_of(call)
        return _rates(number(pair.maker_fee), number(pair.taker_fee))
    raise wrong("businessType", business)


def all_trade_rates(call: Call) -> object:
    """`GET /api/v2/common/all-trade-rate`."""
    business = call.params.needed("businessType").lower()
    if business == "mix":
        return [
            {"symbol": symbol, **_rates(number(rules.maker_fee), number(rules.taker_fee))}
            for symbol, rules in call.engine.futures_instruments().items()
        ]
    if business == "spot":
        return [
            {"symbol": symbol, **_rates(number(rules.maker_fee), number(rules.taker_fee))}
            for symbol, rules in call.engine.spot_instruments().items()
        ]
    raise wrong("businessType", business)


def _rates(maker: str, taker: str) -> Row:
    return {"makerFeeRate": maker, "takerFeeRate": taker}
