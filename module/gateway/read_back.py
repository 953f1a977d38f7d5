"""Does the exchange show what was asked for? PURE: what it tells of our orders, against what left.

Used by `order_path.py` on everything that is read: a difference halts the account (A26, B3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from module.exchange.agreement import filled_max
from module.model.market import MarketType
from module.model.money import plain
from module.model.orders import Fill, OrderRequest


def overfilled(fills: Sequence[Fill], sent: Mapping[str, OrderRequest], market: MarketType) -> str:
    """Which of our orders (by the venue's order id) was filled beyond its size; empty: none.

    A trade id counts once, however often it is told; the same execution under another id is more
    than was asked for, and so is an invented one. A spot market buy is sent in quote coin: its
    size is its own, up to `filled_max`.
    """
    trades = {(fill.order_id, fill.trade_id): fill for fill in fills if fill.order_id in sent}
    filled: dict[str, Decimal] = {}
    for (order_id, _), fill in trades.items():
        filled[order_id] = filled.get(order_id, Decimal(0)) + fill.size
    for order_id, size in filled.items():
        order = sent[order_id]
        if size > filled_max(order, market):
            return (
                f"order {order.client_id} of {plain(order.size)} {order.symbol} was filled with "
                f"{plain(size)}: an invented or doubled fill"
            )
    return ""
