"""Sums over a session's stored history: what the finwatcher goes on from, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.orm import Session

from module.db.results_tables import positions_table, transactions_table
from module.model.results import StoredHistory, SymbolTotals, WatchedSession

QUOTE_ASSET = "USDT"


def sum_history(db: Session, session: WatchedSession, overlap: timedelta) -> StoredHistory:
    """The sums, the newest times, and the ids within twice the `overlap` of them.

    Realised PnL and fees come from fills, funding and transfers from bills.
    """
    newest = _newest(db, session)
    trades, won = _count_trades(db, session)
    return StoredHistory(
        by_symbol=_symbol_totals(db, session),
        net_transfers=_net_transfers(db, session),
        trades=trades,
        trades_won=won,
        fill_at=newest["fill"],
        bill_at=newest["bill"],
        position_closed_at=newest["position"],
        recent=_recent_ids(db, session, newest, 2 * overlap),
    )


def _symbol_totals(db: Session, session: WatchedSession) -> dict[str, SymbolTotals]:
    t = transactions_table(session.market)
    fill = t.c.source == "fill"
    fee_in_quote = case((t.c.fee_asset == QUOTE_ASSET, t.c.fee), else_=t.c.fee * t.c.price)
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
    total = db.scalars(
        select(func.coalesce(func.sum(t.c.amount + t.c.fee), 0)).where(
            t.c.session_id == session.session_id,
            t.c.source == "bill",
            t.c.kind == "transfer",
            t.c.asset == QUOTE_ASSET,
        )
    ).one()
    return Decimal(total)


def _count_trades(db: Session, session: WatchedSession) -> tuple[int, int]:
    p = positions_table(session.market)
    trades, won = db.execute(
        select(func.count(), func.count().filter(p.c.net_profit > 0)).where(
            p.c.session_id == session.session_id
        )
    ).one()
    return int(trades), int(won)


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
