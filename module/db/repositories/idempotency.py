"""`Idempotency-Key`: one command per key and user, however often its request arrives.

    reserve ──► ours: carry out, then keep the answer (or release, when nothing was done)
            └─► somebody else is at it: wait, bounded ──► its answer
            └─► it was answered: the same answer again

A reservation carries a plan (the session id to be made), so that whoever takes over from a process
that died in the middle goes on with the same one instead of making a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert

from module.db.database import Database
from module.db.platform_tables import IdempotentAnswer
from module.model.errors import Conflict

TAKE_OVER_AFTER: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a key stands for now.

    `answer` with `status`: it was answered. Else `ours` says whether the caller carries it out,
    with `plan`; not ours: another process is at it.
    """

    plan: Mapping[str, object]
    ours: bool
    status: int | None = None
    answer: Mapping[str, object] | None = None


class IdempotencyRepository:
    """Rows of `idempotency_keys`, in real time. Keys of different users never meet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(
        self,
        user_id: str,
        key: str,
        body_sha256: str,
        plan: Mapping[str, object],
        wall: datetime,
    ) -> Reservation:
        """Claim the key, or say what became of it. Conflict when it came with another body.

        A reservation without an answer that is older than a minute is taken over.
        """
        with self._database.transaction() as session:
            inserted = session.execute(
                insert(IdempotentAnswer)
                .values(
                    user_id=user_id,
                    key=key,
                    body_sha256=body_sha256,
                    answer=dict(plan),
                    created_wall=wall,
                )
                .on_conflict_do_nothing()
                .returning(IdempotentAnswer.key)
            ).one_or_none()
            if inserted is not None:
                return Reservation(plan, ours=True)
            row = session.get(IdempotentAnswer, (user_id, key), with_for_update=True)
            if row is None:
                return Reservation({}, ours=False)  # released this moment: ask again
            if row.body_sha256 != body_sha256:
                raise Conflict(
                    f"Idempotency-Key {key[:40]!r} was used with another request; use a new key"
                )
            kept = dict(row.answer or {})
            if row.status is not None:
                return Reservation({}, ours=False, status=row.status, answer=kept)
            if wall - row.created_wall < TAKE_OVER_AFTER:
                return Reservation(kept, ours=False)
            row.created_wall = wall
            return Reservation(kept, ours=True)

    def keep(self, user_id: str, key: str, status: int, answer: Mapping[str, object]) -> None:
        """Keep what was answered; harmless to repeat."""
        with self._database.transaction() as session:
            session.execute(
                update(IdempotentAnswer)
                .where(IdempotentAnswer.user_id == user_id, IdempotentAnswer.key == key)
                .values(status=status, answer=dict(answer))
            )

    def release(self, user_id: str, key: str) -> None:
        """Nothing was done under the key: it may be used again."""
        with self._database.transaction() as session:
            session.execute(
                delete(IdempotentAnswer).where(
                    IdempotentAnswer.user_id == user_id,
                    IdempotentAnswer.key == key,
                    IdempotentAnswer.status.is_(None),
                )
            )
