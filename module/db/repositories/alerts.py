"""Alerts waiting for delivery: rows of `alert_outbox` and `alert_deliveries`.

outbox ── add ─► pending ── claim ─► sending ─► sent │ pending again │ dead

One alert per cause and window is sent: the first at once, the others are counted into the next
one (`merged`). A claim is a lease: a dispatcher that dies leaves `sending` rows, which are due
again when the lease is over (at most one duplicate). Times are real time. All calls raise
Unavailable while Postgres is away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import and_, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import AlertDelivery, OutboxAlert
from module.ports import Alert, AlertBacklog, ClaimedAlert

PENDING, SENDING, SENT, MERGED, DEAD = "pending", "sending", "sent", "merged", "dead"
_CLAIM_LOCK: Final = 0x6169_6661_7002
_DUE_MAX: Final = 500
_ERROR_LENGTH_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An alert with its deliveries by channel (state)."""

    alert_id: int
    alert: Alert
    deliveries: Mapping[str, str]


class AlertRepository:
    """`AlertStore` and `DeliveryStore` of module.alerts on Postgres. Safe to share."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, alert: Alert, channels: Sequence[str], created_wall: datetime) -> int:
        """Store the alert with one pending delivery per channel; its id."""
        row = OutboxAlert(
            kind=alert.kind[:32],
            severity=alert.severity[:16],
            title=alert.title[:255],
            lines=[list(pair) for pair in alert.lines],
            cause=alert.cause[:128],
            session_id=alert.session_id,
            owner_id=alert.owner_id,
            at=alert.at,
            created_wall=created_wall,
        )
        with self._database.transaction() as session:
            session.add(row)
            session.flush()
            for channel in channels:
                session.add(_pending(row.alert_id, channel, created_wall))
            session.flush()
            return row.alert_id

    def claim(
        self,
        channel: str,
        now: datetime,
        *,
        window: timedelta,
        lease: timedelta,
        count_max: int,
    ) -> list[ClaimedAlert]:
        """Take what may be sent on `channel` now: the oldest alert of each cause, with the number
        of alerts it stands for. A cause that was sent within `window` waits for its end."""

        def work(session: Session) -> list[ClaimedAlert]:
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CLAIM_LOCK})
            claimed: list[ClaimedAlert] = []
            for cause in _due_causes(session, channel, now):
                if len(claimed) == count_max:
                    break
                taken = _claim_cause(session, channel, cause, now, window, lease)
                if taken is not None:
                    claimed.append(taken)
            return claimed

        return self._database.run_idempotent(work)

    def mark_sent(self, claimed: ClaimedAlert, channel: str) -> None:
        """It was delivered; the alerts it stood for are merged into it."""

        def work(session: Session) -> None:
            _set(session, [claimed.alert_id], channel, state=SENT)
            others = [number for number in claimed.stands_for if number != claimed.alert_id]
            note = f"counted in alert {claimed.alert_id}"
            _set(session, others, channel, state=MERGED, last_error=note)

        self._database.run_idempotent(work)

    def retry(
        self, alert_id: int, channel: str, next_try: datetime, error: str, *, counted: bool
    ) -> None:
        """Try again at `next_try`; an attempt that does not count is given back."""

        def work(session: Session) -> None:
            _set(
                session,
                [alert_id],
                channel,
                state=PENDING,
                next_try_wall=next_try,
                last_error=error[:_ERROR_LENGTH_MAX],
                **({} if counted else {"attempts": AlertDelivery.attempts - 1}),
            )

        self._database.run_idempotent(work)

    def mark_dead(
        self,
        claimed: ClaimedAlert,
        channel: str,
        error: str,
        *,
        escalate_to: Sequence[str],
        now: datetime,
    ) -> None:
        """It cannot be delivered on `channel`; hand it to the channels of `escalate_to`."""

        def work(session: Session) -> None:
            dead_error = error[:_ERROR_LENGTH_MAX]
            _set(session, claimed.stands_for, channel, state=DEAD, last_error=dead_error)
            for other in escalate_to:
                session.execute(
                    insert(AlertDelivery)
                    .values(
                        alert_id=claimed.alert_id,
                        channel=other,
                        state=PENDING,
                        attempts=0,
                        next_try_wall=now,
                        last_error="",
                    )
                    .on_conflict_do_nothing()
                )

        self._database.run_idempotent(work)

    def backlog(self) -> AlertBacklog:
        """What has not reached anybody: pending, and dead on every channel it had."""
        waiting = AlertDelivery.state.in_((PENDING, SENDING))
        with self._database.read() as session:
            pending, oldest = session.execute(
                select(func.count(), func.min(OutboxAlert.created_wall))
                .select_from(AlertDelivery)
                .join(OutboxAlert, OutboxAlert.alert_id == AlertDelivery.alert_id)
                .where(waiting)
            ).one()
            undelivered = session.scalars(
                select(func.count()).select_from(
                    select(AlertDelivery.alert_id)
                    .group_by(AlertDelivery.alert_id)
                    .having(func.bool_and(AlertDelivery.state == DEAD))
                    .subquery()
                )
            ).one()
        return AlertBacklog(int(pending), oldest, int(undelivered))

    def latest(self, owner_id: str | None, rows_max: int) -> list[StoredAlert]:
        """The newest alerts (of one owner), newest first."""
        query = select(OutboxAlert).order_by(OutboxAlert.alert_id.desc()).limit(rows_max)
        if owner_id is not None:
            query = query.where(OutboxAlert.owner_id == owner_id)
        with self._database.read() as session:
            rows = list(session.scalars(query))
            ids = [row.alert_id for row in rows]
            deliveries: dict[int, dict[str, str]] = {number: {} for number in ids}
            for item in session.scalars(
                select(AlertDelivery).where(AlertDelivery.alert_id.in_(ids))
            ):
                deliveries[item.alert_id][item.channel] = item.state
            return [
                StoredAlert(row.alert_id, _alert(row), deliveries[row.alert_id]) for row in rows
            ]


def _due_causes(session: Session, channel: str, now: datetime) -> list[str]:
    """Causes with something due, the longest waiting first."""
    due = (
        select(OutboxAlert.cause, AlertDelivery.alert_id)
        .join(OutboxAlert, OutboxAlert.alert_id == AlertDelivery.alert_id)
        .where(
            AlertDelivery.channel == channel,
            AlertDelivery.state.in_((PENDING, SENDING)),
            AlertDelivery.next_try_wall <= now,
        )
        .order_by(AlertDelivery.alert_id)
        .limit(_DUE_MAX)
        .subquery()
    )
    return list(
        session.scalars(
            select(due.c.cause).group_by(due.c.cause).order_by(func.min(due.c.alert_id))
        )
    )


def _claim_cause(
    session: Session,
    channel: str,
    cause: str,
    now: datetime,
    window: timedelta,
    lease: timedelta,
) -> ClaimedAlert | None:
    """Lease the oldest undelivered alert of a cause, or put the cause off."""
    of_cause = and_(AlertDelivery.channel == channel, OutboxAlert.cause == cause)
    joined = select(AlertDelivery, OutboxAlert).join(
        OutboxAlert, OutboxAlert.alert_id == AlertDelivery.alert_id
    )
    live_lease = and_(AlertDelivery.state == SENDING, AlertDelivery.next_try_wall > now)
    opened: datetime | None = session.scalars(
        select(func.max(OutboxAlert.created_wall))
        .select_from(AlertDelivery)
        .join(OutboxAlert, OutboxAlert.alert_id == AlertDelivery.alert_id)
        .where(
            of_cause,
            OutboxAlert.created_wall > now - window,
            or_(AlertDelivery.state == SENT, live_lease),
        )
    ).one()
    waiting = session.execute(
        joined.where(of_cause, AlertDelivery.state.in_((PENDING, SENDING)), ~live_lease).order_by(
            AlertDelivery.alert_id
        )
    ).all()
    ids = [delivery.alert_id for delivery, _ in waiting]
    if not waiting:
        return None
    delivery, row = waiting[0]
    if opened is not None and delivery.attempts == 0:
        _set(session, ids, channel, next_try_wall=opened + window)
        return None
    if delivery.next_try_wall > now:  # its back-off; the others of the cause wait with it
        _set(session, ids, channel, next_try_wall=delivery.next_try_wall)
        return None
    attempts = delivery.attempts + 1
    _set(
        session,
        [delivery.alert_id],
        channel,
        state=SENDING,
        attempts=attempts,
        next_try_wall=now + lease,
    )
    return ClaimedAlert(delivery.alert_id, _alert(row), attempts, tuple(ids))


def _set(session: Session, ids: Sequence[int], channel: str, **values: object) -> None:
    if ids:
        session.execute(
            update(AlertDelivery)
            .where(AlertDelivery.alert_id.in_(ids), AlertDelivery.channel == channel)
            .values(**values)
            .execution_options(synchronize_session=False)
        )


def _pending(alert_id: int, channel: str, now: datetime) -> AlertDelivery:
    return AlertDelivery(
        alert_id=alert_id,
        channel=channel,
        state=PENDING,
        attempts=0,
        next_try_wall=now,
        last_error="",
    )


def _alert(row: OutboxAlert) -> Alert:
    return Alert(
        kind=row.kind,
        severity=row.severity,
        title=row.title,
        lines=tuple((str(label), str(value)) for label, value in row.lines),
        cause=row.cause,
        session_id=row.session_id,
        owner_id=row.owner_id,
        at=row.at,
    )
