"""What the finwatcher asks of `finplatform` beside the session itself: what its orders were planned
at, and how long its account stood without stops.

    cycles, order_info ── planned_orders ─┐
    unprotected_periods ── unprotected_s ─┴─► monitoring.ports.SessionRegistry
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import text

from module.db.database import Database
from module.db.repositories.unprotected_periods import UnprotectedPeriodRepository
from module.model.money import parse_decimal
from module.model.results import PlannedOrder, WatchedSession

CYCLES_MAX = 200
# One statement, spelled out: a pass asks it of every session that has just traded.
_LEGS = text(
    """
    (SELECT order_info -> 'legs' FROM cycles
     WHERE session_id = :session AND boundary BETWEEN :since AND :until AND order_info IS NOT NULL
     ORDER BY boundary DESC LIMIT :cycles)
    UNION ALL
    SELECT document -> 'legs' FROM order_info WHERE session_id = :session
    """
)


def planned_orders(
    database: Database, session: WatchedSession, since: datetime, until: datetime
) -> dict[str, PlannedOrder]:
    """The orders of the cycles of [since, until] (the newest 200), and of the one that is under
    way, by the exchange's order id."""
    asked = {"session": session.session_id, "since": since, "until": until}
    found: dict[str, PlannedOrder] = {}
    with database.read() as db:
        for legs in db.scalars(_LEGS, {**asked, "cycles": CYCLES_MAX}):
            found.update(orders_of_legs(legs))
    return found


def orders_of_legs(legs: object) -> dict[str, PlannedOrder]:
    """The slices of a letter's `legs` that the exchange has given an id."""
    found: dict[str, PlannedOrder] = {}
    for record in _objects(legs):
        leg = record.get("leg")
        price = leg.get("reference_price") if isinstance(leg, Mapping) else None
        if price is None:
            continue
        decided = parse_decimal(price, name="reference_price")
        for part in _objects(record.get("slices")):
            if part.get("order_id"):
                planned = PlannedOrder(str(part.get("client_id")), decided)
                found[str(part["order_id"])] = planned
    return found


def unprotected_s(database: Database, session: WatchedSession, until: datetime) -> float:
    """Seconds × positions of the account without their stop, from the session's start on."""
    periods = UnprotectedPeriodRepository(database)
    return periods.seconds(session.account_id, session.started_at, until)


def _objects(value: object) -> Iterable[Mapping[str, object]]:
    return (item for item in value if isinstance(item, Mapping)) if isinstance(value, list) else ()
