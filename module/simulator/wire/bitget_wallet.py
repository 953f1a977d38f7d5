"""Bitget's wallet endpoints: spot assets and bills, balances of all accounts, transfers."""

from __future__ import annotations

from decimal import Decimal

from module.simulator.engine.engine_records import BillRecord, SpotBalanceView, TransferRecord
from module.simulator.engine.engine_types import EngineRejected, MarketType, RejectReason
from module.simulator.venue import Call
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_pages import HISTORY_REACH_MS, oldest_ms, page
from module.simulator.wire.bitget_params import wrong
from module.simulator.wire.bitget_rows import MARGIN_COIN, Row, number
from module.simulator.wire.bitget_spot_rows import spot_asset_row

BILL_LIMIT_MAX = 500
_WALLETS = {
    "spot": MarketType.SPOT,
    "usdt_futures": MarketType.FUTURES,
    "usdt_m_futures": MarketType.FUTURES,
}
_OTHER_WALLETS = frozenset(
    {
        "p2p",
        "coin_futures",
        "coin_m_futures",
        "usdc_futures",
        "usdc_m_futures",
        "crossed_margin",
        "cross_margin",
        "isolated_margin",
    }
)
_WALLET_NAMES = {MarketType.SPOT: "spot", MarketType.FUTURES: "usdt_futures"}
_SPOT_BILLS = {"trans_from_exchange": "transfer_in", "trans_to_exchange": "transfer_out"}

# -- balances ---------------------------------------------------------------------------------


def spot_assets(call: Call) -> object:
    """`GET /api/v2/spot/account/assets`: coins that are held; assetType all: every coin."""
    wanted = call.params.coin()
    kind = (call.params.text("assetType") or "hold_only").lower()
    if kind not in ("hold_only", "all"):
        raise wrong("assetType", kind)
    held = {balance.coin: balance for balance in call.engine.spot_balances(call.account_id)}
    if kind == "all" or wanted is not None:
        for coin in _every_coin(call):
            held.setdefault(
                coin,
                SpotBalanceView(
                    coin=coin, available=Decimal(0), frozen=Decimal(0), updated_ms=call.now_ms
                ),
            )
    return [
        spot_asset_row(balance)
        for coin, balance in sorted(held.items())
        if wanted in (None, coin)
        and (kind == "all" or wanted or balance.available or balance.frozen)
    ]


def _every_coin(call: Call) -> set[str]:
    pairs = call.engine.spot_instruments().values()
    return {MARGIN_COIN, *(rules.base_coin for rules in pairs)}


def all_balances(call: Call) -> object:
    """`GET /api/v2/account/all-account-balance`: each account's worth in USDT."""
    engine = call.engine
    spot = Decimal(0)
    for balance in engine.spot_balances(call.account_id):
        amount = balance.available + balance.frozen
        pair = balance.coin + MARGIN_COIN
        if balance.coin == MARGIN_COIN:
            spot += amount
        elif pair in engine.spot_instruments() and engine.is_listed(pair):
            spot += amount * engine.last_price(pair)
    none = Decimal(0)
    totals = {
        "spot": spot,
        "futures": engine.futures_balance(call.account_id).equity,
        "funding": none,
        "earn": none,
        "bots": none,
        "margin": none,
    }
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


# -- bills ------------------------------------------------------------------------------------


def spot_bills(call: Call) -> object:
    """`GET /api/v2/spot/account/bills`: newest first, the last 90 days."""
    params = call.params
    coin, group, kind = params.coin(), params.text("groupType"), params.text("businessType")
    chosen = [
        bill
        for bill in call.engine.bills(call.account_id, MarketType.SPOT, oldest_ms(call))
        if coin in (None, bill.coin)
        and (group is None or group.lower() == _group(bill))
        and (kind is None or kind.lower() == _business(bill))
    ]
    rows, _ = page(
        chosen,
        params,
        key=lambda bill: bill.bill_id,
        at_ms=lambda bill: bill.at_ms,
        limit=100,
        limit_max=BILL_LIMIT_MAX,
    )
    return [_spot_bill_row(bill) for bill in rows]


def _group(bill: BillRecord) -> str:
    return "transaction" if bill.symbol else "transfer"


def _business(bill: BillRecord) -> str:
    return _SPOT_BILLS.get(bill.business_type, bill.business_type)


def _spot_bill_row(bill: BillRecord) -> Row:
    return {
        "cTime": str(bill.at_ms),
        "bizOrderId": bill.bill_id,  # the order is not in the bill; clients need a number here
        "coin": bill.coin,
        "groupType": _group(bill),
        "businessType": _business(bill),
        "size": number(bill.amount),
        "balance": number(bill.balance),
        "fees": number(bill.fee),
        "billId": bill.bill_id,
    }


# -- transfers --------------------------------------------------------------------------------


def transfer(call: Call) -> object:
    """`POST /api/v2/spot/wallet/transfer`: between spot and USDT futures, at once.

    The same clientOid again answers with the first transfer and moves nothing.
    """
    params = call.params
    record = call.engine.transfer(
        call.account_id,
        _wallet(call, "fromType"),
        _wallet(call, "toType"),
        (params.needed("coin")).upper(),
        params.needed_positive("amount"),
        params.text("clientOid"),
    )
    return {"transferId": record.transfer_id, "clientOid": record.client_id}


def _wallet(call: Call, name: str) -> MarketType:
    """An account that this exchange keeps; the others are refused by name."""
    word = call.params.needed(name).lower()
    if word not in _WALLETS:
        if word in _OTHER_WALLETS:
            raise EngineRejected(RejectReason.TRANSFER_TYPE_UNSUPPORTED, f"{name} {word}")
        raise wrong(name, word)
    return _WALLETS[word]


def transfer_coins(call: Call) -> object:
    """`GET /api/v2/spot/wallet/transfer-coin-info`: what may go between two accounts."""
    source, target = _wallet(call, "fromType"), _wallet(call, "toType")
    return [] if source is target else [MARGIN_COIN]


def transfer_records(call: Call) -> object:
    """`GET /api/v2/spot/account/transferRecords`: newest first, 90 days back."""
    coin = call.params.needed("coin").upper()
    source = call.params.text("fromType")
    client_id = call.params.text("clientOid")
    earliest_ms = call.now_ms - HISTORY_REACH_MS
    chosen = [
        record
        for record in call.engine.transfers(call.account_id)
        if record.at_ms >= earliest_ms
        and record.coin == coin
        and client_id in (None, record.client_id)
        and (source is None or _WALLETS.get(source.lower()) is record.source)
    ]
    rows, _ = page(
        chosen,
        call.params,
        key=lambda record: record.transfer_id,
        at_ms=lambda record: record.at_ms,
        limit=100,
        limit_max=BILL_LIMIT_MAX,
    )
    return [_transfer_row(record) for record in rows]


def _transfer_row(record: TransferRecord) -> Row:
    return {
        "coin": record.coin,
        "status": "Successful",
        "toType": _WALLET_NAMES[record.target],
        "toSymbol": "",
        "fromType": _WALLET_NAMES[record.source],
        "fromSymbol": "",
        "size": number(record.amount),
        "ts": str(record.at_ms),
        "clientOid": record.client_id,
        "transferId": record.transfer_id,
    }
