"""Bitget's spot rows to our vocabulary, PURE; the rules of `bitget_rows.py` hold here too."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Final

from module.exchange import bitget_rows as rows
from module.exchange.bitget_rows import BadRow, Row
from module.exchange.venue import PlacedStop
from module.model.accounts import Bill, SpotBalance
from module.model.orders import Fill, OrderReport, Side

STOP_PREFIX: Final = "af-stop-"
"""How the client id of a stop of ours begins; then `l-` (stop loss) or `p-` (take profit)."""


def spot_order(row: Row) -> OrderReport:
    """A row of `orderInfo` or `unfilled-orders`; `feeDetail` is JSON in a text."""
    state = rows.ORDER_STATUS.get(rows.text(row, "status"))
    if state is None:
        raise BadRow("the order's status is unknown")
    bought_in_quote = row.get("orderType") == "market" and row.get("side") == "buy"
    size = rows.number(row, "size")
    filled = rows.number_or_zero(row, "baseVolume")
    return OrderReport(
        order_id=rows.text(row, "orderId"),
        client_id=rows.optional_text(row, "clientOid"),
        symbol=rows.text(row, "symbol").upper(),
        side=rows.side(row),
        status=state,
        size=filled if bought_in_quote else size,
        filled_size=filled,
        average_price=rows.optional_number(row, "priceAvg") if filled else None,
        fee=_order_fee(rows.optional_text(row, "feeDetail")),
        realized_pnl=Decimal(0),
        reduce_only=row.get("side") == "sell",
        source=rows.optional_text(row, "orderSource") or "normal",
        created_at=rows.instant(row, "cTime"),
        updated_at=rows.instant(row, "uTime", "cTime"),
    )


def _order_fee(detail: str) -> Decimal:
    """The sum that `newFees` states; zero where nothing was paid."""
    if not detail:
        return Decimal(0)
    try:
        loaded = json.loads(detail, parse_float=str)
    except ValueError as error:
        raise BadRow("feeDetail is not JSON") from error
    fees = loaded.get("newFees") if isinstance(loaded, dict) else None
    if isinstance(fees, dict):
        return rows.number_or_zero(fees, "t")
    return Decimal(0)


def spot_fill(row: Row) -> Fill:
    """A row of spot `fills`; `feeDetail` is one object."""
    fee = rows.row_of(row.get("feeDetail") or {})
    return Fill(
        trade_id=rows.text(row, "tradeId"),
        order_id=rows.text(row, "orderId"),
        symbol=rows.text(row, "symbol").upper(),
        side=rows.side(row),
        price=rows.number(row, "priceAvg"),
        size=rows.number(row, "size"),
        quote_size=rows.number(row, "amount"),
        fee=rows.number_or_zero(fee, "totalFee"),
        fee_asset=rows.optional_text(fee, "feeCoin") or "USDT",
        realized_pnl=Decimal(0),
        is_taker=rows.optional_text(row, "tradeScope") != "maker",
        at=rows.instant(row, "cTime"),
    )


def spot_bill(row: Row) -> Bill:
    venue_kind = rows.optional_text(row, "businessType") or rows.optional_text(row, "groupType")
    kind = rows.bill_kind(venue_kind.lower())
    if rows.optional_text(row, "groupType").lower() in ("transfer", "deposit", "withdraw"):
        kind = rows.bill_kind("trans_")
    return Bill(
        bill_id=rows.text(row, "billId"),
        kind=kind,
        venue_kind=venue_kind,
        symbol="",
        asset=rows.text(row, "coin").upper(),
        amount=rows.number(row, "size"),
        fee=rows.number_or_zero(row, "fees"),
        balance=rows.number_or_zero(row, "balance"),
        at=rows.instant(row, "cTime"),
    )


def spot_balance(row: Row) -> SpotBalance:
    return SpotBalance(
        asset=rows.text(row, "coin").upper(),
        free=rows.number(row, "available"),
        locked=rows.number_or_zero(row, "frozen") + rows.number_or_zero(row, "locked"),
    )


def spot_stop(row: Row) -> PlacedStop | None:
    """A row of `current-plan-order`, if it is a stop of ours; a person's own are not touched."""
    client_id = rows.optional_text(row, "clientOid")
    kind = client_id.removeprefix(STOP_PREFIX)[:2]
    is_ours = client_id.startswith(STOP_PREFIX) and kind in ("l-", "p-")
    if not is_ours or rows.side(row) is not Side.SELL:
        return None
    return PlacedStop(
        symbol=rows.text(row, "symbol").upper(),
        order_id=rows.text(row, "orderId"),
        is_stop_loss=kind == "l-",
        protects_long=True,
        trigger_price=rows.number(row, "triggerPrice"),
        size=rows.number(row, "size"),
    )
