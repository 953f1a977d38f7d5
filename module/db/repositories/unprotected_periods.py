"""Since when, until when and why a position stood without the stop it should have had.

    gateway's looks ── put ─► unprotected_periods ── seconds ─► finwatcher's portfolio row

A period is written when it begins and again when it ends; both may be repeated. World time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import UnprotectedPeriod
from module.model.canonical import instant_text


class BareCause(StrEnum):
    """How a position came to have no stop."""

    OPENED = "opened"
    """It has had none since it was opened."""
    REMOVED = "removed"
    """It had one at an earlier look."""
    FOUND = "found"
    """It was found without one: since when nobody saw, the period begins with the finding."""


@dataclass(frozen=True, slots=True)
class BarePeriod:
    """One position without its stop; `ended_at` None while it is. The first end that is told
    counts."""

    period_id: str
    account_id: str
    symbol: str
    started_at: datetime
    cause: BareCause
    ended_at: datetime | None = None

    def ended(self, at: datetime) -> BarePeriod:
        """The same, over at `at` (never before it began)."""
        return replace(self, ended_at=max(at, self.started_at))


def begin_period(account_id: str, symbol: str, at: datetime, cause: BareCause) -> BarePeriod:
    """A period whose id follows from what it is: told twice it is one."""
    spelled = f"{account_id} {symbol} {instant_text(at)}"
    period_id = hashlib.sha256(spelled.encode()).hexdigest()[:32]
    return BarePeriod(period_id, account_id, symbol, at, cause)


class UnprotectedPeriodRepository:
    """Rows of `unprotected_periods`. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, periods: Sequence[BarePeriod]) -> None:
        """Insert them, or add their ends; an end that is there stays. Unavailable."""
        if not periods:
            return

        def work(session: Session) -> None:
            for period in periods:
                statement = insert(UnprotectedPeriod).values(
                    id=period.period_id,
                    account_id=period.account_id,
                    symbol=period.symbol,
                    started_at=period.started_at,
                    ended_at=period.ended_at,
                    cause=period.cause.value,
                )
                known_end = UnprotectedPeriod.ended_at
                session.execute(
                    statement.on_conflict_do_update(
                        index_elements=["id"],
                        set_={"ended_at": func.coalesce(known_end, statement.excluded.ended_at)},
                    )
                )

        self._database.run_idempotent(work)

    def open_of(self, account_id: str) -> list[BarePeriod]:
        """Those of the account that are not over, the oldest first."""
        query = (
            select(UnprotectedPeriod)
            .where(UnprotectedPeriod.account_id == account_id, UnprotectedPeriod.ended_at.is_(None))
            .order_by(UnprotectedPeriod.started_at)
        )
        with self._database.read() as session:
            return [_period(row) for row in session.scalars(query)]

    def seconds(self, account_id: str, since: datetime, until: datetime) -> float:
        """Seconds × positions of the account without their stop within [since, until)."""
        return self.seconds_of({account_id: since}, until)[account_id]

    def seconds_of(self, since: Mapping[str, datetime], until: datetime) -> dict[str, float]:
        """As `seconds`, of many accounts with one query, each since a time of its own."""
        if not since:
            return {}
        values = {"accounts": list(since), "since": list(since.values()), "until": until}
        with self._database.read() as session:
            rows = session.execute(text(_SECONDS), values).all()
        return {**dict.fromkeys(since, 0.0), **{account: float(found) for account, found in rows}}


_SECONDS = """
SELECT asked.account_id,
       sum(extract(epoch FROM least(coalesce(p.ended_at, :until), :until)
                              - greatest(p.started_at, asked.since)))
FROM unnest(CAST(:accounts AS varchar[]), CAST(:since AS timestamptz[])) AS asked(account_id, since)
JOIN unprotected_periods AS p ON p.account_id = asked.account_id
 AND p.started_at < :until AND (p.ended_at IS NULL OR p.ended_at > asked.since)
GROUP BY asked.account_id
"""


def _period(row: UnprotectedPeriod) -> BarePeriod:
    return BarePeriod(
        row.id, row.account_id, row.symbol, row.started_at, BareCause(row.cause), row.ended_at
    )
