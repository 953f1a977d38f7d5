"""Bitget's public lists: contracts, position tiers, spot pairs, coins."""

from __future__ import annotations

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_types import EngineRejected, RejectReason
from module.simulator.prices.instruments import FuturesInstrument, SpotInstrument
from module.simulator.venue import Call
from module.simulator.wire.bitget_params import PRODUCT_TYPES
from module.simulator.wire.bitget_rows import MARGIN_COIN, Row, number

_USDT_FUTURES = PRODUCT_TYPES[0]
_ENDLESS_SINCE_MS = 1_514_764_800_000  # 2018-01-01


def contracts(call: Call) -> object:
    """`GET /api/v2/mix/market/contracts`; other product types have none."""
    if call.params.product_type() != _USDT_FUTURES:
        return []
    wanted = call.params.optional_symbol()
    engine = call.engine
    rows = [
        _contract_row(engine, rules)
        for symbol, rules in engine.futures_instruments().items()
        if wanted in (None, symbol) and _has_begun(engine, symbol)
    ]
    if wanted is not None and not rows:
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, wanted)
    return rows


def _has_begun(engine: Engine, symbol: str) -> bool:
    """It has had its first bar (it may have ended since)."""
    first_ms, _ = engine.market.span(symbol)
    return first_ms is None or first_ms <= engine.now_ms


def _listed_ms(engine: Engine, symbol: str) -> int:
    """When it was listed; markets without a first bar are older than everything."""
    first_ms, _ = engine.market.span(symbol)
    return _ENDLESS_SINCE_MS if first_ms is None else first_ms


def _contract_status(engine: Engine, symbol: str) -> str:
    if not engine.is_listed(symbol):
        return "off"
    return "normal" if engine.is_trading(symbol) else "maintain"


def _contract_row(engine: Engine, rules: FuturesInstrument) -> Row:
    return {
        "symbol": rules.symbol,
        "baseCoin": rules.base_coin,
        "quoteCoin": rules.quote_coin,
        "buyLimitPriceRatio": number(rules.price_band),
        "sellLimitPriceRatio": number(rules.price_band),
        "feeRateUpRatio": "0.005",
        "makerFeeRate": number(rules.maker_fee),
        "takerFeeRate": number(rules.taker_fee),
        "openCostUpRatio": "0.01",
        "supportMarginCoins": [MARGIN_COIN],
        "minTradeNum": number(rules.size_min),
        "priceEndStep": str(rules.price_end_step),
        "volumePlace": str(rules.volume_place),
        "pricePlace": str(rules.price_place),
        "sizeMultiplier": number(rules.size_step),
        "symbolType": "perpetual",
        "minTradeUSDT": number(rules.notional_min),
        "maxSymbolOrderNum": str(engine.settings.open_orders_max),
        "maxProductOrderNum": str(engine.settings.product_orders_max),
        "maxPositionNum": str(engine.settings.positions_max),
        "symbolStatus": _contract_status(engine, rules.symbol),
        "offTime": "-1",
        "limitOpenTime": "-1",
        "deliveryTime": "",
        "deliveryStartTime": "",
        "deliveryPeriod": "",
        "launchTime": "",
        "fundInterval": str(engine.funding_interval_h(rules.symbol)),
        "minLever": "1",
        "maxLever": number(rules.leverage_max),
        "posLimit": "0.05",
        "maintainTime": "",
        "maxMarketOrderQty": number(rules.market_size_max),
        "maxOrderQty": number(rules.limit_size_max),
        "isRwa": "NO",
    }


def position_tiers(call: Call) -> object:
    """`GET /api/v2/mix/market/query-position-lever`."""
    rules = contract_of(call)
    return [
        {
            "symbol": rules.symbol,
            "level": str(tier.level),
            "startUnit": number(tier.start),
            "endUnit": number(tier.end),
            "leverage": number(tier.leverage),
            "keepMarginRate": number(tier.maintenance),
        }
        for tier in rules.tiers
    ]


def spot_symbols(call: Call) -> object:
    """`GET /api/v2/spot/public/symbols`."""
    wanted = call.params.optional_symbol()
    rows = [
        _spot_symbol_row(call.engine, rules)
        for symbol, rules in call.engine.spot_instruments().items()
        if wanted in (None, symbol) and _has_begun(call.engine, symbol)
    ]
    if wanted is not None and not rows:
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, wanted)
    return rows


def _spot_symbol_row(engine: Engine, rules: SpotInstrument) -> Row:
    status = {"normal": "online", "maintain": "halt", "off": "offline"}
    return {
        "symbol": rules.symbol,
        "baseCoin": rules.base_coin,
        "quoteCoin": rules.quote_coin,
        "minTradeAmount": number(rules.size_min),
        "maxTradeAmount": number(rules.size_max),
        "takerFeeRate": number(rules.taker_fee),
        "makerFeeRate": number(rules.maker_fee),
        "pricePrecision": str(rules.price_precision),
        "quantityPrecision": str(rules.quantity_precision),
        "quotePrecision": str(rules.quote_precision),
        "status": status[_contract_status(engine, rules.symbol)],
        "minTradeUSDT": number(rules.notional_min),
        "buyLimitPriceRatio": number(rules.price_band),
        "sellLimitPriceRatio": number(rules.price_band),
        "areaSymbol": "no",
        "orderQuantity": str(engine.settings.open_orders_max),
        "maxLimitOrderValue": "50000000",
        "maxMarketOrderValue": number(rules.depth_usdt * 150),
        "openTime": str(_listed_ms(engine, rules.symbol)),
        "offTime": "",
    }


def spot_coins(call: Call) -> object:
    """`GET /api/v2/spot/public/coins`: every coin of every pair; deposits are not offered."""
    coins = {MARGIN_COIN}
    for rules in call.engine.spot_instruments().values():
        coins.add(rules.base_coin)
    wanted = call.params.text("coin")
    return [
        _coin_row(str(position), coin)
        for position, coin in enumerate(sorted(coins), start=1)
        if wanted in (None, coin)
    ]


def _coin_row(coin_id: str, coin: str) -> Row:
    chain: Row = {
        "chain": coin,
        "needTag": "false",
        "withdrawable": "false",
        "rechargeable": "false",
        "withdrawFee": "0",
        "extraWithdrawFee": "0",
        "depositConfirm": "1",
        "withdrawConfirm": "1",
        "minDepositAmount": "0",
        "minWithdrawAmount": "0",
        "browserUrl": "",
        "contractAddress": "",
        "withdrawStep": "0",
        "withdrawMinScale": "8",
        "congestion": "normal",
    }
    return {
        "coinId": coin_id,
        "coin": coin,
        "transfer": "true",
        "areaCoin": "no",
        "chains": [chain],
    }


def no_rows(call: Call) -> object:
    """An endpoint whose list is empty here (margin currencies)."""
    return []


def contract_of(call: Call) -> FuturesInstrument:
    """The rules of the contract that the request names."""
    symbol = call.params.symbol()
    known = call.params.product_type() == _USDT_FUTURES
    rules = call.engine.futures_instruments().get(symbol) if known else None
    if rules is None:
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, symbol)
    return rules


def pair_of(call: Call) -> SpotInstrument:
    """The rules of the spot pair that the request names."""
    symbol = call.params.symbol()
    rules = call.engine.spot_instruments().get(symbol)
    if rules is None:
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, symbol)
    return rules
