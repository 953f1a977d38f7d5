"""Bitget's futures account and position endpoints: balance, leverage, modes, bills, positions."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import ClosedPositionRecord
from module.simulator.engine.engine_types import (
    EngineRejected,
    MarginMode,
    PositionMode,
    PositionSide,
    RejectReason,
)
from module.simulator.venue import Call
from module.simulator.wire.bitget_pages import oldest_ms, page
from module.simulator.wire.bitget_params import PRODUCT_TYPES, Params, missing, wrong
from module.simulator.wire.bitget_rows import (
    MARGIN_COIN,
    POSITION_MODES,
    Row,
    account_list_row,
    account_row,
    bill_row,
    closed_position_row,
    leverage_row,
    position_row,
)

BILL_SPAN_DAYS = 30
CURSORS_PER_MS = 1_000_000
"""Positions of an account that may close within one millisecond."""


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


def margined_symbol(call: Call) -> str:
    """As `traded_symbol`, where the margin coin must be named too."""
    call.params.needed("marginCoin")
    return traded_symbol(call)


def check_margin_coin(params: Params) -> None:
    """USDT is the only margin coin."""
    coin = params.text("marginCoin")
    if coin is not None and coin.upper() != MARGIN_COIN:
        raise wrong("marginCoin", coin)


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
    symbol = margined_symbol(call)
    engine = call.engine
    return account_row(
        engine.futures_balance(call.account_id),
        btc_price(engine),
        engine.leverage(call.account_id, symbol),
        engine.position_mode(call.account_id),
    )


def bills(call: Call) -> object:
    """`GET /api/v2/mix/account/bill`: newest first, the last 90 days."""
    if not is_usdt_futures(call.params):
        return {"bills": [], "endId": None}
    params = call.params
    symbol, coin, kind = params.optional_symbol(), params.coin(), params.text("businessType")
    only_funding = params.yes("onlyFunding")
    chosen = [
        bill
        for bill in call.engine.bills(call.account_id, since_ms=oldest_ms(call))
        if symbol in (None, bill.symbol)
        and coin in (None, bill.coin)
        and (kind is None or kind.lower() == bill.business_type)
        and (not only_funding or bill.business_type == "contract_settle_fee")
    ]
    rows, end_id = page(
        chosen,
        params,
        key=lambda bill: bill.bill_id,
        at_ms=lambda bill: bill.at_ms,
        limit=20,
        span_days=BILL_SPAN_DAYS,
    )
    return {"bills": [bill_row(bill) for bill in rows], "endId": end_id}


# -- settings ---------------------------------------------------------------------------------


def set_leverage(call: Call) -> object:
    """`POST /api/v2/mix/account/set-leverage`: leverage, or longLeverage and shortLeverage."""
    symbol = margined_symbol(call)
    params = call.params
    leverage = params.decimal("leverage")
    hold_side = params.choice("holdSide", _WireHoldSide)
    long, short = params.decimal("longLeverage"), params.decimal("shortLeverage")
    side = None if hold_side is None else PositionSide(hold_side.value)
    sides = ((PositionSide.LONG, long), (PositionSide.SHORT, short))
    wanted = {of_side: value for of_side, value in sides if value is not None}
    if wanted:
        return leverage_row(call.engine.set_leverages(call.account_id, symbol, wanted))
    if leverage is None:
        raise missing("leverage")
    return leverage_row(call.engine.set_leverage(call.account_id, symbol, leverage, side))


def set_margin(call: Call) -> object:
    """`POST /api/v2/mix/account/set-margin`: into (negative: out of) an isolated position."""
    symbol = margined_symbol(call)
    hold_side = call.params.choice("holdSide", _WireHoldSide)
    side = None if hold_side is None else PositionSide(hold_side.value)
    if side is None and call.engine.position_mode(call.account_id) is PositionMode.HEDGE:
        raise missing("holdSide")  # which of two legs is not for the exchange to guess
    amount = call.params.decimal("amount")
    if amount is None:
        raise missing("amount")
    call.engine.set_position_margin(call.account_id, symbol, side, amount)
    return ""


def set_asset_mode(call: Call) -> object:
    """`POST /api/v2/mix/account/set-asset-mode`: USDT is the only margin here, so single only."""
    if not is_usdt_futures(call.params):
        raise wrong("productType", call.params.text("productType"))
    mode = call.params.needed("assetMode").lower()
    if mode not in ("single", "union"):
        raise wrong("assetMode", mode)
    if mode == "union":
        raise EngineRejected(RejectReason.ASSET_MODE_UNSUPPORTED, mode)
    return "success"


def set_margin_mode(call: Call) -> object:
    """`POST /api/v2/mix/account/set-margin-mode`."""
    symbol = margined_symbol(call)
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
    return _position_rows(call, margined_symbol(call))


def _position_rows(call: Call, symbol: str | None) -> list[Row]:
    mode = call.engine.position_mode(call.account_id)
    return [position_row(view, mode) for view in call.engine.positions(call.account_id, symbol)]


def position_history(call: Call) -> object:
    """`GET /api/v2/mix/position/history-position`: finished; productType may be absent."""
    if not is_usdt_futures(call.params, needed=False):
        return {"list": [], "endId": None}
    symbol = call.params.optional_symbol()
    history = call.engine.position_history(call.account_id, since_ms=oldest_ms(call))
    rows, end_id = page(
        [item for item in _with_cursors(history) if symbol in (None, item[1].symbol)],
        call.params,
        key=lambda item: item[0],
        at_ms=lambda item: item[1].closed_ms,
        limit=20,
    )
    return {"list": [closed_position_row(closed) for _, closed in rows], "endId": end_id}


def _with_cursors(
    history: list[ClosedPositionRecord],
) -> list[tuple[str, ClosedPositionRecord]]:
    """Each with a cursor that grows with closing: positions do not close in order of their ids."""
    found: list[tuple[str, ClosedPositionRecord]] = []
    moment, rank = -1, 0
    for closed in history:
        rank = rank + 1 if closed.closed_ms == moment else 0
        moment = closed.closed_ms
        found.append((str(moment * CURSORS_PER_MS + rank), closed))
    return found
