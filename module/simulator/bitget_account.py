"""Bitget's account and position endpoints: balances, leverage, modes, bills, positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from module.simulator.bitget_codes import WireError
from module.simulator.bitget_params import PRODUCT_TYPES, Params, missing, wrong
from module.simulator.bitget_rows import (
    MARGIN_COIN,
    POSITION_MODES,
    Row,
    account_list_row,
    account_row,
    bill_row,
    closed_position_row,
    leverage_row,
    number,
    position_row,
)
from module.simulator.bitget_spot_rows import spot_asset_row
from module.simulator.engine import Engine
from module.simulator.engine_types import (
    EngineRejected,
    MarginMode,
    MarketType,
    PositionMode,
    PositionSide,
    RejectReason,
)
from module.simulator.market_source import DAY_MS
from module.simulator.venue import Call

Item = TypeVar("Item")
BILL_REACH_MS = 90 * DAY_MS
HISTORY_REACH_MS = 90 * DAY_MS


class _WirePositionMode(StrEnum):
    ONE_WAY = "one_way_mode"
    HEDGE = "hedge_mode"


class _WireHoldSide(StrEnum):
    LONG = "long"
    SHORT = "short"


def is_usdt_futures(params: Params, *, needed: bool = True) -> bool:
    """Whether the request is about the product type that this exchange trades."""
    if not needed and params.text("productType") is None:
        return True
    return params.product_type() == PRODUCT_TYPES[0]


def traded_symbol(call: Call) -> str:
    """The contract that a command names; unknown symbols and product types are refused."""
    symbol = call.params.symbol()
    if not is_usdt_futures(call.params) or symbol not in call.engine.futures_instruments():
        raise EngineRejected(RejectReason.SYMBOL_UNKNOWN, symbol)
    check_margin_coin(call.params)
    return symbol


def check_margin_coin(params: Params) -> None:
    """USDT is the only margin coin."""
    coin = params.text("marginCoin")
    if coin is not None and coin.upper() != MARGIN_COIN:
        raise wrong("marginCoin", coin)


def page(
    items: Sequence[Item],
    params: Params,
    *,
    key: Callable[[Item], str],
    at_ms: Callable[[Item], int],
    limit: int,
    limit_max: int = 100,
) -> tuple[list[Item], str | None]:
    """One page of `items` (given oldest first), newest first, and its endId (None when empty)."""
    before = params.optional_ms("idLessThan")
    start_ms, end_ms = params.optional_ms("startTime"), params.optional_ms("endTime")
    if start_ms is not None and end_ms is not None and end_ms < start_ms:
        raise WireError("40017", "Parameter verification failed startTime > endTime")
    size = max(1, params.integer("limit", limit, most=limit_max))
    found: list[Item] = []
    for item in reversed(items):
        if len(found) == size:
            break
        if before is not None and int(key(item)) >= before:
            continue
        if (start_ms is None or at_ms(item) >= start_ms) and (
            end_ms is None or at_ms(item) <= end_ms
        ):
            found.append(item)
    return found, key(found[-1]) if found else None


def btc_price(engine: Engine) -> Decimal | None:
    """What equity in BTC is counted with; None in a world without it."""
    if "BTCUSDT" not in engine.futures_instruments() or not engine.is_listed("BTCUSDT"):
        return None
    return engine.last_price("BTCUSDT")


# -- balances ---------------------------------------------------------------------------------


def accounts(call: Call) -> object:
    """`GET /api/v2/mix/account/accounts`."""
    if not is_usdt_futures(call.params):
        return []
    balance = call.engine.futures_balance(call.account_id)
    return [account_list_row(balance, btc_price(call.engine))]


def account(call: Call) -> object:
    """`GET /api/v2/mix/account/account`."""
    symbol = traded_symbol(call)
    engine = call.engine
    return account_row(
        engine.futures_balance(call.account_id),
        btc_price(engine),
        engine.leverage(call.account_id, symbol),
        engine.position_mode(call.account_id),
    )


def spot_assets(call: Call) -> object:
    """`GET /api/v2/spot/account/assets`: coins that are held (assetType all: that ever were)."""
    wanted = call.params.text("coin")
    everything = (call.params.text("assetType") or "hold_only").lower() == "all"
    return [
        spot_asset_row(balance)
        for balance in call.engine.spot_balances(call.account_id)
        if wanted in (None, balance.coin)
        and (everything or wanted or balance.available or balance.frozen)
    ]


def all_balances(call: Call) -> object:
    """`GET /api/v2/account/all-account-balance`."""
    engine = call.engine
    spot = Decimal(0)
    for balance in engine.spot_balances(call.account_id):
        amount = balance.available + balance.frozen
        pair = balance.coin + MARGIN_COIN
        if balance.coin == MARGIN_COIN:
            spot += amount
        elif pair in engine.spot_instruments() and engine.is_listed(pair):
            spot += amount * engine.last_price(pair)
    futures = engine.futures_balance(call.account_id).equity
    none = Decimal(0)
    totals = {"spot": spot, "futures": futures, "funding": none, "earn": none, "bots": none}
    return [{"accountType": name, "usdtBalance": number(amount)} for name, amount in totals.items()]


def spot_account_info(call: Call) -> object:
    """`GET /api/v2/spot/account/info`: who the key belongs to and what it may do."""
    key = call.key
    if key is None:
        raise WireError("40037", "Apikey does not exist")
    return {
        "userId": call.account_id,
        "inviterId": "",
        "ips": "",
        "authorities": list(key.authorities),
        "parentId": int(call.account_id),
        "traderType": "not_trader",
        "channelCode": "",
        "channel": "",
        "regisTime": "0",
    }


def bills(call: Call) -> object:
    """`GET /api/v2/mix/account/bill`: newest first, the last 90 days."""
    if not is_usdt_futures(call.params):
        return {"bills": [], "endId": None}
    params = call.params
    symbol, coin, kind = (
        params.optional_symbol(),
        params.text("coin"),
        params.text("businessType"),
    )
    only_funding = params.yes("onlyFunding")
    earliest_ms = call.now_ms - BILL_REACH_MS
    chosen = [
        bill
        for bill in call.engine.bills(call.account_id)
        if bill.at_ms >= earliest_ms
        and symbol in (None, bill.symbol)
        and coin in (None, bill.coin)
        and kind in (None, bill.business_type)
        and (not only_funding or bill.business_type == "contract_settle_fee")
    ]
    rows, end_id = page(
        chosen, params, key=lambda bill: bill.bill_id, at_ms=lambda bill: bill.at_ms, limit=20
    )
    return {"bills": [bill_row(bill) for bill in rows], "endId": end_id}


# -- settings ---------------------------------------------------------------------------------


def set_leverage(call: Call) -> object:
    """`POST /api/v2/mix/account/set-leverage`: leverage, or longLeverage and shortLeverage."""
    symbol = traded_symbol(call)
    params = call.params
    leverage = params.decimal("leverage")
    hold_side = params.choice("holdSide", _WireHoldSide)
    long, short = params.decimal("longLeverage"), params.decimal("shortLeverage")
    side = None if hold_side is None else PositionSide(hold_side.value)
    wanted = ((leverage, side), (long, PositionSide.LONG), (short, PositionSide.SHORT))
    chosen = [(value, of_side) for value, of_side in wanted if value is not None]
    if not chosen:
        raise missing("leverage")
    for value, of_side in chosen:
        call.engine.set_leverage(call.account_id, symbol, value, of_side)
    return leverage_row(call.engine.leverage(call.account_id, symbol))


def set_margin_mode(call: Call) -> object:
    """`POST /api/v2/mix/account/set-margin-mode`."""
    symbol = traded_symbol(call)
    mode = call.params.needed_choice("marginMode", MarginMode)
    row = leverage_row(call.engine.set_margin_mode(call.account_id, symbol, mode))
    return {name: row[name] for name in row if name != "crossMarginLeverage"}


def set_position_mode(call: Call) -> object:
    """`POST /api/v2/mix/account/set-position-mode`: of all contracts at once."""
    if not is_usdt_futures(call.params):
        raise wrong("productType", call.params.text("productType"))
    wanted = call.params.needed_choice("posMode", _WirePositionMode)
    mode = PositionMode.HEDGE if wanted is _WirePositionMode.HEDGE else PositionMode.ONE_WAY
    return {"posMode": POSITION_MODES[call.engine.set_position_mode(call.account_id, mode)]}


# -- positions --------------------------------------------------------------------------------


def all_positions(call: Call) -> object:
    """`GET /api/v2/mix/position/all-position`: [] when flat."""
    check_margin_coin(call.params)
    if not is_usdt_futures(call.params):
        return []
    return _position_rows(call, None)


def single_position(call: Call) -> object:
    """`GET /api/v2/mix/position/single-position`."""
    return _position_rows(call, traded_symbol(call))


def _position_rows(call: Call, symbol: str | None) -> list[Row]:
    mode = call.engine.position_mode(call.account_id)
    return [position_row(view, mode) for view in call.engine.positions(call.account_id, symbol)]


def position_history(call: Call) -> object:
    """`GET /api/v2/mix/position/history-position`: finished; productType may be absent."""
    if not is_usdt_futures(call.params, needed=False):
        return {"list": [], "endId": None}
    earliest_ms = call.now_ms - HISTORY_REACH_MS
    symbol = call.params.optional_symbol()
    # the cursor counts closings, because positions do not close in the order of their ids
    numbered = list(enumerate(call.engine.position_history(call.account_id), start=1))
    rows, end_id = page(
        [
            item
            for item in numbered
            if item[1].closed_ms >= earliest_ms and symbol in (None, item[1].symbol)
        ],
        call.params,
        key=lambda item: str(item[0]),
        at_ms=lambda item: item[1].closed_ms,
        limit=20,
    )
    return {"list": [closed_position_row(closed) for _, closed in rows], "endId": end_id}


def spot_bills(call: Call) -> object:
    """`GET /api/v2/spot/account/bills`: newest first."""
    chosen = [
        bill
        for bill in call.engine.bills(call.account_id, MarketType.SPOT)
        if call.params.text("coin") in (None, bill.coin)
    ]
    rows, _ = page(
        chosen,
        call.params,
        key=lambda bill: bill.bill_id,
        at_ms=lambda bill: bill.at_ms,
        limit=100,
        limit_max=500,
    )
    return [
        {
            "cTime": str(bill.at_ms),
            "coin": bill.coin,
            "groupType": "transaction" if bill.symbol else "transfer",
            "businessType": bill.business_type,
            "size": number(bill.amount),
            "balance": number(bill.balance),
            "fees": number(bill.fee),
            "billId": bill.bill_id,
        }
        for bill in rows
    ]
