"""A session's stored rows as the neutral document."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from module.db.repositories.results_curves import CurveRepository
from module.model.errors import NotFound
from module.model.money import ZERO
from module.model.results import WatchedSession
from monitoring.indicators import DAYS_PER_YEAR
from monitoring.tearsheets.document import (
    CELLS_MAX,
    SYMBOLS_MAX,
    TRADES_MAX,
    TRANSACTIONS_MAX,
    Curve,
    CurveDocument,
    Measured,
    Positions,
    Trades,
    Transactions,
)

STEPS: Final = (  # up to this length → one point per
    (timedelta(days=2), timedelta(minutes=1)),
    (timedelta(days=14), timedelta(minutes=5)),
    (timedelta(days=60), timedelta(minutes=15)),
    (timedelta(days=800), timedelta(hours=1)),
)
STEP_MAX: Final = timedelta(days=1)
POSITION_TIMES_MAX: Final = 1_500


def step_of(length: timedelta) -> timedelta:
    """How far apart the points of a curve of this length are."""
    return next((step for longest, step in STEPS if length <= longest), STEP_MAX)


def session_document(
    rows: CurveRepository,
    session: WatchedSession,
    since: datetime,
    until: datetime,
    days_per_year: int = DAYS_PER_YEAR,
) -> CurveDocument:
    """The stored rows of [since, until); NotFound when there are none. `days_per_year`: those that
    the finwatcher annualises with.

    From its beginning on, the session's curve starts at the initial balance, so that the total
    return is the one that the finwatcher shows.
    """
    span = rows.span(session, since, until)
    if span is None:
        raise NotFound(f"session {session.session_id} has no stored minutes in that range")
    points = rows.points(session, span, step_of(span.last - span.first))
    whole = since <= session.started_at
    balance = points[0].initial_balance if whole else None
    fills = rows.fills(session, span, TRANSACTIONS_MAX + 1)
    trades = rows.trades(session, span, TRADES_MAX)
    measured = rows.measured(session, span.last) if whole else None
    notes = []
    if len(fills) > TRANSACTIONS_MAX:
        fills = fills[1:]
        notes.append(f"Only the newest {TRANSACTIONS_MAX:,} fills are counted.")
    if all(point.cumulative_return is None for point in points):
        notes.append("Measured returns are missing; they are computed from values and transfers.")
    return CurveDocument(
        title=f"Session {session.session_id}",
        subtitle=f"{session.strategy_name[:100]}, {session.market.value}",
        initial_balance=balance if balance is not None and balance > 0 else None,
        started_at=min(session.started_at, points[0].minute) if whole else None,
        days_per_year=days_per_year,
        curve=Curve(
            at=[point.minute for point in points],
            pv=[point.current_pv for point in points],
            net_transfers=[point.net_transfers for point in points],
            cumulative_return=[point.cumulative_return for point in points],
            gross_position_value=[point.gross_position_value for point in points],
            position_value=[point.position_value for point in points],
            fees=[point.fees for point in points],
            funding=[point.funding for point in points],
        ),
        positions=_positions(rows, session, [point.minute for point in points]),
        transactions=Transactions(
            at=[fill.at for fill in fills],
            symbol=[fill.symbol for fill in fills],
            side=["buy" if fill.side == "buy" else "sell" for fill in fills],
            size=[fill.size for fill in fills],
            price=[fill.price for fill in fills],
            fee=[fill.fee for fill in fills],
            decision_price=[fill.decision_price for fill in fills],
        ),
        trades=Trades(
            closed_at=[at for at, _, _ in trades],
            symbol=[symbol for _, symbol, _ in trades],
            net_profit=[profit for _, _, profit in trades],
        ),
        measured=Measured(
            max_drawdown=None if measured is None else measured.max_drawdown,
            unprotected_s=None if measured is None else measured.unprotected_s,
            gap_minutes=rows.gap_minutes(session, span),
        ),
        notes=notes,
    )


def _positions(
    rows: CurveRepository, session: WatchedSession, minutes: list[datetime]
) -> Positions:
    """Values at evenly chosen minutes; the smallest symbols beyond the bound are left out."""
    every = -(-len(minutes) // POSITION_TIMES_MAX)
    chosen = minutes[::-1][::every][::-1]  # the newest one is among them
    held: dict[str, dict[datetime, Decimal]] = defaultdict(dict)
    for minute, symbol, value in rows.position_values(session, chosen):
        held[symbol][minute] = value
    room = min(SYMBOLS_MAX, CELLS_MAX // max(1, len(chosen)))
    largest = sorted(held, key=lambda name: -max(map(abs, held[name].values())))[:room]
    return Positions(
        at=chosen,
        value={
            name: [held[name].get(minute, ZERO) for minute in chosen] for name in sorted(largest)
        },
    )
