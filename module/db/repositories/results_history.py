"""Sums over a session's stored history: what the finwatcher goes on from, and where it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.orm import Session

from module.db.results_tables import positions_table, transactions_table
from module.model.market import MarketType
from module.model.results import (
    StoredHistory,
    SymbolTotals,
    TradeSums,
    TransactionRow,
    WatchedSession,
)

QUOTE_ASSET = "USDT"


def sum_history(db: Session, session: WatchedSession, overlap: timedelta) -> StoredHistory:
    """The sums, the newest times, and the ids within twice the `overlap` of them.

    Realised PnL and fees come from fills, funding and transfers from bills.
    """
    newest = _newest(db, session)
    return StoredHistory(
        by_symbol=_symbol_totals(db, session),
        net_transfers=_net_transfers(db, session),
        sums=trade_sums(db, session),
        fill_at=newest["fill"],
        bill_at=newest["bill"],
        position_closed_at=newest["position"],
        recent=_recent_ids(db, session, newest, 2 * overlap),
        open_fills=_open_fills(db, session) if session.market is MarketType.SPOT else (),
        ended=_last_closed(db, session) if session.market is MarketType.SPOT else {},
    )


def _symbol_totals(db: Session, session: WatchedSession) -> dict[str, SymbolTotals]:
    t = transactions_table(session.market)
    fill = t.c.source == "fill"
    fee_in_quote = case(
        (t.c.fee_asset == QUOTE_ASSET, t.c.fee),
        (t.c.fee_asset + QUOTE_ASSET == t.c.symbol, t.c.fee * t.c.price),
        else_=0,
    )
    funding = and_(t.c.source == "bill", t.c.kind == "funding", t.c.asset == QUOTE_ASSET)
    rows = db.execute(
        select(
            t.c.symbol,
            _sum_where(t.c.amount, fill),
            _sum_where(fee_in_quote, fill),
            _sum_where(t.c.amount + t.c.fee, funding),
        )
        .where(t.c.session_id == session.session_id, or_(fill, funding))
        .group_by(t.c.symbol)
    )
    return {symbol: SymbolTotals(realized, fees, paid) for symbol, realized, fees, paid in rows}


def _net_transfers(db: Session, session: WatchedSession) -> Decimal:
    t = transactions_table(session.market)
    moved = case((t.c.asset == QUOTE_ASSET, t.c.amount + t.c.fee), else_=t.c.quote_size)
    total = db.scalars(
        select(func.coalesce(func.sum(moved), 0)).where(
            t.c.session_id == session.session_id,
            t.c.source == "bill",
            t.c.kind == "transfer",
        )
    ).one()
    return Decimal(total)


def trade_sums(
    db: Session,
    session: WatchedSession,
    after: datetime | None = None,
    until: datetime | None = None,
) -> TradeSums:
    """What closed positions and fills of (after, until] add up to; of all of them without these."""
    p, t = positions_table(session.market), transactions_table(session.market)
    net = p.c.net_profit
    trades, trades_won, won, lost = db.execute(
        select(
            func.count(),
            func.count().filter(net > 0),
            _sum_where(net, net > 0),
            _sum_where(net, net <= 0),
        ).where(p.c.session_id == session.session_id, *_between(p.c.closed_at, after, until))
    ).one()
    direction = case((t.c.side == "buy", 1), else_=-1)
    decided = t.c.decision_price.is_not(None)
    value = t.c.price * t.c.size  # the venue's own product, quote_size, is rounded
    traded, cost, notional = db.execute(
        select(
            func.coalesce(func.sum(value), 0),
            _sum_where(direction * (t.c.price - t.c.decision_price) * t.c.size, decided),
            _sum_where(value, decided),
        ).where(
            t.c.session_id == session.session_id,
            t.c.source == "fill",
            *_between(t.c.at, after, until),
        )
    ).one()
    return TradeSums(
        trades, trades_won, Decimal(won), Decimal(lost), Decimal(traded), cost, notional
    )


def trade_sums_at(
    db: Session, session: WatchedSession, moments: Sequence[datetime]
) -> list[TradeSums]:
    """`trade_sums` up to each of these moments, oldest first: summed up to the first one, then
    row by row."""
    if not moments:
        return []
    p, t = positions_table(session.market), transactions_table(session.market)
    total = trade_sums(db, session, None, moments[0])
    span = (moments[0], moments[-1])
    closed = select(p.c.closed_at, p.c.net_profit).where(
        p.c.session_id == session.session_id, *_between(p.c.closed_at, *span)
    )
    changes = [(at, _trade(profit)) for at, profit in db.execute(closed)]
    fills = select(t.c.at, t.c.side, t.c.price, t.c.decision_price, t.c.size).where(
        t.c.session_id == session.session_id, t.c.source == "fill", *_between(t.c.at, *span)
    )
    changes += [(at, _traded(*fill)) for at, *fill in db.execute(fills)]
    changes.sort(key=lambda change: change[0], reverse=True)
    found = []
    for moment in moments:
        while changes and changes[-1][0] <= moment:
            total += changes.pop()[1]
        found.append(total)
    return found


def _trade(net_profit: Decimal) -> TradeSums:
    if net_profit > 0:
        return TradeSums(trades=1, trades_won=1, won=net_profit)
    return TradeSums(trades=1, lost=net_profit)


def _traded(side: str, price: Decimal, decided: Decimal | None, size: Decimal) -> TradeSums:
    notional = price * size
    if decided is None:
        return TradeSums(traded_notional=notional)
    cost = (price - decided) * size * (1 if side == "buy" else -1)
    return TradeSums(traded_notional=notional, slippage_cost=cost, slippage_notional=notional)


def _open_fills(db: Session, session: WatchedSession) -> tuple[TransactionRow, ...]:
    """The fills and coin transfers of each symbol after its last closed position."""
    t, p = transactions_table(session.market), positions_table(session.market)
    coins = and_(t.c.kind == "transfer", t.c.asset != QUOTE_ASSET)
    last_closed = (
        select(p.c.symbol, func.max(p.c.closed_at).label("closed_at"))
        .where(p.c.session_id == session.session_id)
        .group_by(p.c.symbol)
        .subquery()
    )
    columns = [t.c[field.name] for field in dataclasses.fields(TransactionRow)]
    rows = db.execute(
        select(*columns)
        .outerjoin(last_closed, last_closed.c.symbol == t.c.symbol)
        .where(
            t.c.session_id == session.session_id,
            or_(t.c.source == "fill", coins),
            or_(last_closed.c.closed_at.is_(None), t.c.at > last_closed.c.closed_at),
        )
        .order_by(t.c.at, t.c.exchange_id)
    )
    return tuple(TransactionRow(*row) for row in rows)


def _last_closed(db: Session, session: WatchedSession) -> dict[str, datetime]:
    """When each symbol's last position was over."""
    p = positions_table(session.market)
    rows = db.execute(
        select(p.c.symbol, func.max(p.c.closed_at))
        .where(p.c.session_id == session.session_id)
        .group_by(p.c.symbol)
    )
    return {str(symbol): closed_at for symbol, closed_at in rows}


def _newest(db: Session, session: WatchedSession) -> dict[str, datetime | None]:
    t, p = transactions_table(session.market), positions_table(session.market)
    newest: dict[str, datetime | None] = {"fill": None, "bill": None, "position": None}
    newest["position"] = db.scalars(
        select(func.max(p.c.closed_at)).where(p.c.session_id == session.session_id)
    ).one()
    rows = db.execute(
        select(t.c.source, func.max(t.c.at))
        .where(t.c.session_id == session.session_id)
        .group_by(t.c.source)
    )
    for source, at in rows:
        newest[source] = at
    return newest


def _recent_ids(
    db: Session,
    session: WatchedSession,
    newest: Mapping[str, datetime | None],
    length: timedelta,
) -> frozenset[str]:
    t, p = transactions_table(session.market), positions_table(session.market)
    recent: set[str] = set()
    for source in ("fill", "bill"):
        last = newest[source]
        if last is not None:
            ids = db.scalars(
                select(t.c.exchange_id).where(
                    t.c.session_id == session.session_id,
                    t.c.source == source,
                    t.c.at >= last - length,
                )
            )
            recent.update(f"{source}:{exchange_id}" for exchange_id in ids)
    last = newest["position"]
    if last is not None:
        ids = db.scalars(
            select(p.c.exchange_id).where(
                p.c.session_id == session.session_id, p.c.closed_at >= last - length
            )
        )
        recent.update(f"position:{exchange_id}" for exchange_id in ids)
    return frozenset(recent)


def _sum_where(amount: ColumnElement[Any], condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(amount).filter(condition), 0)


def _between(
    column: ColumnElement[Any], after: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    """(after, until]; None: open."""
    found = []
    if after is not None:
        found.append(column > after)
    if until is not None:
        found.append(column <= until)
    return found
