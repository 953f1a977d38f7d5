"""Sessions and their cycles in Postgres: what owners want, what leaders do, who may trade.

platform API ── create, set_desired ─► active_sessions ◄─ take_epoch, heartbeat, set_state ── leader

The desired state lives here, so any API worker, and a restarted one, lists and stops sessions. A
write of a leader carries its epoch: one that has been overtaken gets StaleWriter (promise 4). All
calls raise Unavailable while Postgres is away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Update, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import Account, ActiveSession, Cycle, User
from module.db.repositories import session_watch
from module.db.repositories.audit import AuditEntry, add_audit
from module.db.repositories.order_info import read_letter, write_letter
from module.db.repositories.session_records import (
    OVER,
    REACHED_FROM,
    Leader,
    SessionRecord,
    Wishes,
    cycle_of,
    new_row,
    record_of,
    watched_session,
)
from module.model.errors import Conflict, InvariantViolated, NotFound, RateLimited, StaleWriter
from module.model.results import PlannedOrder, WatchedSession
from module.model.sessions import DesiredState, EndState, SessionSpec, SessionState
from module.ports import CycleRecord

_ONE_PER_ACCOUNT: Final = "active_sessions_one_per_account"
_ADMISSION_LOCK: Final = 0x6169_6661_7001  # one at a time counts and inserts


class SessionRepository:
    """Rows of `active_sessions`, `cycles` and `order_info`. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- owners ---------------------------------------------------------------------------------

    def create(
        self,
        spec: SessionSpec,
        *,
        sessions_max: int,
        audit: AuditEntry | None = None,
        order_info_store: str = "file",
    ) -> SessionRecord:
        """Insert the session (desired running, state starting) and its audit row together.

        Conflict names the session that already has the account, or says that the account is
        switched off; RateLimited when the installation has `sessions_max` sessions that are not
        over.
        """
        try:
            with self._database.transaction() as session:
                session.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADMISSION_LOCK}
                )
                row = _living(session, spec.account_id)
                if row is not None:
                    raise _busy(spec.account_id, row.session_id)
                _require_active(session, spec.account_id)
                _admit(session, sessions_max)
                row = new_row(spec, order_info_store)
                session.add(row)
                if audit is not None:
                    add_audit(session, audit)
                session.flush()
                return record_of(row)
        except IntegrityError as error:
            if _ONE_PER_ACCOUNT in str(error.orig):
                raise _busy(spec.account_id, "of another request") from error
            if "active_sessions_pkey" in str(error.orig):
                raise Conflict(f"session {spec.session_id} exists already") from error
            raise InvariantViolated(f"session {spec.session_id} could not be stored") from error

    def get(self, session_id: str) -> SessionRecord:
        """The session; NotFound where there is none."""
        with self._database.read() as session:
            return record_of(_row(session, session_id))

    def find(self, session_id: str) -> SessionRecord | None:
        """The session, or None."""
        with self._database.read() as session:
            row = session.get(ActiveSession, session_id)
            return None if row is None else record_of(row)

    def list_for_owner(
        self, owner_id: str | None, *, over_max: int = 0, ids: Sequence[str] | None = None
    ) -> list[SessionRecord]:
        """Sessions of an owner (None: of everybody): those that are not over, newest first, then
        the newest `over_max` that are."""
        query = select(ActiveSession).order_by(ActiveSession.started_at.desc())
        if owner_id is not None:
            query = query.where(ActiveSession.owner_id == owner_id)
        if ids is not None:
            query = query.where(ActiveSession.session_id.in_(ids))
        with self._database.read() as session:
            rows = list(session.scalars(query.where(ActiveSession.state.not_in(OVER))))
            if over_max:
                over = query.where(ActiveSession.state.in_(OVER)).limit(over_max)
                rows.extend(session.scalars(over))
            return [record_of(row) for row in rows]

    def living_on_account(self, account_id: str) -> SessionRecord | None:
        """The session of the account that is not over, if there is one."""
        with self._database.read() as session:
            row = _living(session, account_id)
            return None if row is None else record_of(row)

    def set_desired(
        self,
        session_id: str,
        desired: DesiredState,
        end_state: EndState | None = None,
        *,
        audit: AuditEntry | None = None,
    ) -> SessionRecord:
        """Record what the owner wants, and its audit row; the session after it.

        Repeating is harmless. Conflict when the session is over, or is ending already in another
        way; NotFound where there is none.
        """
        with self._database.transaction() as session:
            row = session.get(ActiveSession, session_id, with_for_update=True)
            if row is None:
                raise _unknown(session_id)
            if SessionState(row.state).is_over:
                raise Conflict(f"session {session_id} is over already ({row.state})")
            is_ending = SessionState(row.state) is SessionState.STOPPING
            if is_ending and end_state is not None and end_state.value != row.end_state:
                raise Conflict(
                    f"session {session_id} is ending already, {row.end_state}; it cannot end "
                    f"{end_state} any more"
                )
            row.desired = desired.value
            if end_state is not None:
                row.end_state = end_state.value
            if audit is not None:
                add_audit(session, audit)
            session.flush()
            return record_of(row)

    # --- leaders --------------------------------------------------------------------------------

    def take_epoch(self, session_id: str) -> int:
        """Raise the account's epoch and make it this session's: all older writers are out.

        Conflict when the session is over. Taking twice is harmless: the last one counts.
        """

        def work(session: Session) -> int:
            row = session.get(ActiveSession, session_id, with_for_update=True)
            if row is None:
                raise _unknown(session_id)
            if SessionState(row.state).is_over:
                raise Conflict(f"session {session_id} is over ({row.state}); it may not trade")
            epoch = session.execute(
                update(Account)
                .where(Account.account_id == row.account_id)
                .values(epoch=Account.epoch + 1)
                .returning(Account.epoch)
            ).scalar_one()
            row.epoch = epoch
            return epoch

        return self._database.run_idempotent(work)

    def record_leader(self, session_id: str, leader: Leader) -> None:
        """Who leads the session from now on; NotFound where there is no session."""
        self._update(
            session_id,
            None,
            leader_pid=leader.pid,
            leader_started_ticks=leader.started_ticks,
            leader_host=leader.host,
        )

    def record_restart(self, session_id: str) -> int:
        """Count one more start of the session's processes; how many restarts there were."""
        with self._database.transaction() as session:
            count = session.execute(
                update(ActiveSession)
                .where(ActiveSession.session_id == session_id)
                .values(restarts=ActiveSession.restarts + 1)
                .returning(ActiveSession.restarts)
            ).scalar_one_or_none()
        if count is None:
            raise _unknown(session_id)
        return count

    def heartbeat(self, session_id: str, epoch: int, wall: datetime) -> Wishes:
        """Say that the leader of `epoch` lives at `wall`; what the owner wants meanwhile."""
        with self._database.transaction() as session:
            row = session.execute(
                update(ActiveSession)
                .where(ActiveSession.session_id == session_id, ActiveSession.epoch == epoch)
                .values(heartbeat_wall=wall)
                .returning(ActiveSession.desired, ActiveSession.end_state, ActiveSession.state)
            ).one_or_none()
            if row is None:
                raise _overtaken(session, session_id, epoch)
            return Wishes(DesiredState(row[0]), EndState(row[1]), SessionState(row[2]))

    def wishes(self, session_id: str) -> Wishes:
        """What the owner wants of the session now."""
        with self._database.read() as session:
            row = _row(session, session_id)
            return Wishes(
                DesiredState(row.desired), EndState(row.end_state), SessionState(row.state)
            )

    def set_state(
        self,
        session_id: str,
        state: SessionState,
        at: datetime,
        *,
        reason: str = "",
        epoch: int | None = None,
    ) -> SessionRecord:
        """Move the session to `state` at world time `at`; the session after it.

        Moving to where it is is harmless (the first reason stays). Conflict for a move that
        `REACHED_FROM` does not know; StaleWriter when `epoch` is given and is not the session's.
        """
        with self._database.transaction() as session:
            row = session.get(ActiveSession, session_id, with_for_update=True)
            if row is None:
                raise _unknown(session_id)
            if epoch is not None and row.epoch != epoch:
                raise _stale(session_id, epoch, row.epoch)
            now = SessionState(row.state)
            if now is not state:
                if now not in REACHED_FROM[state]:
                    raise Conflict(f"session {session_id} is {now.value}; it cannot become {state}")
                row.state = state.value
                row.reason = reason or row.reason
                if state.is_over:
                    row.ended_at = at
            session.flush()
            return record_of(row)

    def set_initial_balance(self, session_id: str, epoch: int, balance: Decimal) -> None:
        """What the account was worth when the session began; the first one stays."""
        with self._database.transaction() as session:
            row = session.get(ActiveSession, session_id, with_for_update=True)
            if row is None:
                raise _unknown(session_id)
            if row.epoch != epoch:
                raise _stale(session_id, epoch, row.epoch)
            if row.initial_balance is None:
                row.initial_balance = balance

    def record_cycle(self, epoch: int, cycle: CycleRecord) -> None:
        """Write the cycle as it is now (again and again while it goes on)."""
        values: dict[str, Any] = {
            "number": cycle.number,
            "state": cycle.state,
            "reason": cycle.reason,
            "started_at": cycle.started_at,
            "ended_at": cycle.ended_at,
            "own_ms": cycle.own_ms,
            "targets": None if cycle.targets is None else dict(cycle.targets),
            "order_info": None if cycle.order_info is None else dict(cycle.order_info),
            "digest": cycle.digest,
        }

        def work(session: Session) -> None:
            changed = session.execute(
                _guarded(cycle.session_id, epoch)
                .values(
                    cycle=func.greatest(ActiveSession.cycle, cycle.number),
                    last_boundary=func.greatest(ActiveSession.last_boundary, cycle.boundary),
                )
                .returning(ActiveSession.session_id)
            ).one_or_none()
            if changed is None:
                raise _overtaken(session, cycle.session_id, epoch)
            statement = insert(Cycle).values(
                session_id=cycle.session_id, boundary=cycle.boundary, **values
            )
            session.execute(
                statement.on_conflict_do_update(
                    index_elements=[Cycle.session_id, Cycle.boundary], set_=values
                )
            )

        self._database.run_idempotent(work)

    def latest_cycle(self, session_id: str) -> CycleRecord | None:
        """The cycle of the latest boundary."""
        found = self.cycles(session_id, 1)
        return found[0] if found else None

    def cycles(self, session_id: str, count_max: int) -> list[CycleRecord]:
        """The latest cycles, newest first."""
        with self._database.read() as session:
            rows = session.scalars(
                select(Cycle)
                .where(Cycle.session_id == session_id)
                .order_by(Cycle.boundary.desc())
                .limit(count_max)
            )
            return [cycle_of(row) for row in rows]

    # --- the letter's copy ----------------------------------------------------------------------

    def write_order_info(
        self, session_id: str, document: Mapping[str, object], epoch: int, revision: int
    ) -> None:
        """Make the copy follow; StaleWriter when a newer (epoch, revision) is there."""
        write_letter(self._database, session_id, document, epoch, revision)

    def read_order_info(self, session_id: str) -> dict[str, object] | None:
        """The last copy, or None."""
        return read_letter(self._database, session_id)

    # --- everybody ------------------------------------------------------------------------------

    def active_sessions(self) -> list[SessionRecord]:
        """All sessions that are not over, oldest first."""
        with self._database.read() as session:
            rows = session.scalars(
                select(ActiveSession)
                .where(ActiveSession.state.not_in(OVER))
                .order_by(ActiveSession.started_at, ActiveSession.session_id)
            )
            return [record_of(row) for row in rows]

    def active(self) -> Sequence[str]:
        """The ids of the sessions that are not over, oldest first."""
        return [record.session_id for record in self.active_sessions()]

    def watched(self, session_id: str) -> WatchedSession:
        """The session as the finwatcher sees it; `targets` are those of the latest cycle that has
        any."""
        record = self.get(session_id)
        targets = (
            select(Cycle.targets)
            .where(Cycle.session_id == session_id, Cycle.targets.is_not(None))
            .order_by(Cycle.boundary.desc())
            .limit(1)
            .scalar_subquery()
        )
        with self._database.read() as session:
            query = select(User.name, targets).where(User.user_id == record.owner_id)
            name, wanted = session.execute(query).one()
        return watched_session(record, wanted, name)

    def planned_orders(
        self, session: WatchedSession, since: datetime, until: datetime
    ) -> dict[str, PlannedOrder]:
        """The orders of the cycles of [since, until], by the exchange's order id."""
        return session_watch.planned_orders(self._database, session, since, until)

    def unprotected_s(self, session: WatchedSession, until: datetime) -> float | None:
        """Seconds × positions of the session's account without their stop, since its start."""
        return session_watch.unprotected_s(self._database, session, until)

    def _update(self, session_id: str, epoch: int | None, **values: object) -> None:
        with self._database.transaction() as session:
            statement = _guarded(session_id, epoch).values(**values)
            changed = session.execute(statement.returning(ActiveSession.epoch)).one_or_none()
            if changed is None:
                raise _overtaken(session, session_id, epoch)


def _living(session: Session, account_id: str) -> ActiveSession | None:
    return session.scalars(
        select(ActiveSession).where(
            ActiveSession.account_id == account_id, ActiveSession.state.not_in(OVER)
        )
    ).one_or_none()


def _require_active(session: Session, account_id: str) -> None:
    """The account stays switched on until this transaction ends."""
    active = select(Account.active).where(Account.account_id == account_id)
    if session.scalar(active.with_for_update(read=True)) is False:
        raise Conflict(f"account {account_id} is switched off; switch it on, or take another")


def _admit(session: Session, sessions_max: int) -> None:
    count = session.scalars(
        select(func.count()).select_from(ActiveSession).where(ActiveSession.state.not_in(OVER))
    ).one()
    if count >= sessions_max:
        raise RateLimited(
            f"this installation runs {count} sessions and takes {sessions_max}; end one first",
            retry_after_s=60.0,
        )


def _guarded(session_id: str, epoch: int | None) -> Update:
    statement = update(ActiveSession).where(ActiveSession.session_id == session_id)
    return statement if epoch is None else statement.where(ActiveSession.epoch == epoch)


def _row(session: Session, session_id: str) -> ActiveSession:
    row = session.get(ActiveSession, session_id)
    if row is None:
        raise _unknown(session_id)
    return row


def _unknown(session_id: str) -> NotFound:
    return NotFound(f"there is no session {session_id[:32]!r}")


def _busy(account_id: str, session_id: str) -> Conflict:
    return Conflict(
        f"account {account_id} already has session {session_id}; terminate it first, an account "
        "has one session that may trade it"
    )


def _stale(session_id: str, epoch: int, newer: int) -> StaleWriter:
    return StaleWriter(
        f"session {session_id} is at epoch {newer}, not {epoch}: another process took it over"
    )


def _overtaken(session: Session, session_id: str, epoch: int | None) -> NotFound | StaleWriter:
    row = session.get(ActiveSession, session_id)
    if row is None or epoch is None:
        return _unknown(session_id)
    return _stale(session_id, epoch, row.epoch)
