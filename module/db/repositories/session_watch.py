"""What the finwatcher asks of `finplatform` beside the session itself: what its orders were planned
at, and how long its account stood without stops.

    cycles, order_info ── planned_orders ─┐
    unprotected_periods ── unprotected_s ─┴─► monitoring.ports.SessionRegistry
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import select

from module.db.database import Database
from module.db.platform_tables import Cycle, OrderInfoMirror
from module.db.repositories.unprotected_periods import UnprotectedPeriodRepository
from module.model.money import parse_decimal
from module.model.results import PlannedOrder, WatchedSession

CYCLES_MAX = 200


def planned_orders(
    database: Database, session: WatchedSession, since: datetime, until: datetime
) -> dict[str, PlannedOrder]:
    """The orders of the cycles of [since, until] (the newest 200), and of the one that is under
    way, by the exchange's order id."""
    ended = (
        select(Cycle.order_info["legs"])
        .where(
            Cycle.session_id == session.session_id,
            Cycle.boundary.between(since, until),
            Cycle.order_info.is_not(None),
        )
        .order_by(Cycle.boundary.desc())
        .limit(CYCLES_MAX)
    )
    current = select(OrderInfoMirror.document["legs"]).where(
        OrderInfoMirror.session_id == session.session_id
    )
    found: dict[str, PlannedOrder] = {}
    with database.read() as db:
        for legs in (*db.scalars(ended), *db.scalars(current)):
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
