"""What one's sessions held, sent, traded, paid and planned (RqueryAPI): `/results/{session}/…`."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Response

from api.cycle_views import cycle_plan
from api.results_listings import (
    closed_position_listing,
    cycle_listing,
    order_listing,
    transaction_listing,
)
from api.results_queries import (
    Form,
    OfSession,
    answer_listing,
    csv_answer,
    json_answer,
    read_instant,
)
from api.routers.results import Symbol
from module.db.repositories.gateway_writes import WriteOutcome
from module.model.errors import InvalidInput, NotFound
from module.model.results import SymbolRow
from trading.rebalance.order_info import CycleStage

router = APIRouter(prefix="/results", tags=["results"])
NEWEST_CYCLE: Final = "latest"
SYMBOL_FIELDS: Final = tuple(field.name for field in fields(SymbolRow))
OrderKind = Literal["order", "cancel", "stops", "settings", "guard", "all"]
BillKind = Literal["trade", "funding", "transfer", "liquidation", "other"]


@router.get("/{session_id}/positions")
def get_positions(asked: OfSession) -> Response:
    """What is held at the newest minute; `minute` null before the first one."""
    latest = asked.doors.results.latest(asked.watched)
    rows = [] if latest is None else [row for row in latest[1] if row.size]
    minute = None if latest is None else latest[0].minute
    if asked.form is Form.JSON:
        return json_answer(asked.request, {"minute": minute, "positions": rows})
    cells = [(minute, *(getattr(row, name) for name in SYMBOL_FIELDS)) for row in rows]
    title = f"{asked.watched.session_id}-positions"
    return csv_answer(asked, title, ("minute", *SYMBOL_FIELDS), iter([cells]))


@router.get("/{session_id}/closed-positions")
def get_closed_positions(asked: OfSession, symbol: Symbol = None) -> Response:
    """Positions that were closed within [start, end), as the exchange settled them."""
    return answer_listing(asked, closed_position_listing(asked, symbol))


@router.get("/{session_id}/transactions")
def get_transactions(asked: OfSession, symbol: Symbol = None) -> Response:
    """The newest fills, newest first; the same as `trades`."""
    return answer_listing(asked, transaction_listing(asked, "transactions", "fill", (), symbol))


@router.get("/{session_id}/trades")
def get_trades(asked: OfSession, symbol: Symbol = None) -> Response:
    """Fills of [start, end), newest first."""
    return answer_listing(asked, transaction_listing(asked, "trades", "fill", (), symbol))


@router.get("/{session_id}/bills")
def get_bills(
    asked: OfSession, kind: Annotated[list[BillKind] | None, Query()] = None, symbol: Symbol = None
) -> Response:
    """Movements of the wallet in [start, end), newest first: fees, funding, transfers."""
    return answer_listing(asked, transaction_listing(asked, "bills", "bill", kind or (), symbol))


@router.get("/{session_id}/orders")
def get_orders(
    asked: OfSession,
    kind: OrderKind = "order",
    symbol: Symbol = None,
    outcome: WriteOutcome | None = None,
) -> Response:
    """What was sent in [start, end), and what became of it, newest first."""
    only = None if kind == "all" else kind
    said = None if outcome is None else outcome.value
    return answer_listing(asked, order_listing(asked, only, symbol, said))


@router.get("/{session_id}/cycles")
def get_cycles(asked: OfSession, state: CycleStage | None = None) -> Response:
    """Ended cycles with boundaries in [start, end), newest first: what was planned, done, skipped
    and why."""
    return answer_listing(asked, cycle_listing(asked, None if state is None else state.value))


@router.get("/{session_id}/cycles/{cycle}")
def get_cycle(asked: OfSession, cycle: str, inputs: bool = False) -> Response:
    """One cycle's plan in detail: `cycle` is its boundary, its number, or `latest`."""
    session_id = asked.watched.session_id
    history = asked.doors.history
    if cycle == NEWEST_CYCLE:
        letter = history.cycle_letter(session_id)
        plan = None if letter is None else cycle_plan(letter, with_inputs=inputs)
        return json_answer(asked.request, {"cycle": plan})
    if cycle.isdecimal() and len(cycle) <= 9:
        letter = history.cycle_letter(session_id, number=int(cycle))
    else:
        letter = history.cycle_letter(session_id, boundary=_boundary(cycle))
    if letter is None:
        raise NotFound(
            f"session {session_id} has no cycle {cycle[:40]!r}; latest names its newest one"
        )
    return json_answer(asked.request, {"cycle": cycle_plan(letter, with_inputs=inputs)})


def _boundary(text: str) -> datetime:
    try:
        return read_instant("cycle", text)
    except InvalidInput as error:
        raise InvalidInput(
            "a cycle is named by its number, its boundary (2026-11-21T10:30:00Z), or latest; "
            f"got {text[:40]!r}"
        ) from error
