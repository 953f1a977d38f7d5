"""The audit log: one row per state-changing command of a person, in the command's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import AuditRecord

_SUBJECT_MAX = 128


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to what, in real time. `detail` is plain JSON and never holds a secret."""

    user_id: str | None
    action: str
    subject: str
    at_wall: datetime
    detail: Mapping[str, object] = field(default_factory=dict)


def add_audit(session: Session, entry: AuditEntry) -> None:
    """Add the row to the transaction that carries the command out."""
    session.add(
        AuditRecord(
            user_id=entry.user_id,
            action=entry.action,
            subject=entry.subject[:_SUBJECT_MAX],
            detail=dict(entry.detail),
            at_wall=entry.at_wall,
        )
    )


class AuditRepository:
    """Rows of `audit_log`; they are only ever added."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, entry: AuditEntry) -> None:
        """Add a row of its own, for commands that are carried out elsewhere."""
        with self._database.transaction() as session:
            add_audit(session, entry)

    def latest(self, count_max: int, user_id: str | None = None) -> list[AuditEntry]:
        """The newest rows (of one user), newest first."""
        query = select(AuditRecord).order_by(AuditRecord.audit_id.desc()).limit(count_max)
        if user_id is not None:
            query = query.where(AuditRecord.user_id == user_id)
        with self._database.read() as session:
            return [
                AuditEntry(row.user_id, row.action, row.subject, row.at_wall, dict(row.detail))
                for row in session.scalars(query)
            ]
