"""Sessions, cycles and the letters' copies in memory; see `module.db.repositories.sessions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from module.db.repositories.audit import AuditEntry
from module.db.repositories.session_records import (
    REACHED_FROM,
    Leader,
    SessionRecord,
    Wishes,
    watched_session,
)
from module.db.repositories.session_watch import orders_of_legs
from module.model.errors import Conflict, InvariantViolated, NotFound, RateLimited, StaleWriter
from module.model.results import PlannedOrder, WatchedSession
from module.model.sessions import DesiredState, EndState, SessionSpec, SessionState
from module.ports import CycleRecord
from tests.simulation.memory_postgres.gateway import GatewayTables, MemoryBarePeriods
from tests.simulation.memory_postgres.server import Connection, Transaction

Letter = tuple[int, int, Mapping[str, object]]


@dataclass(slots=True)
class SessionTables:
    """The rows. `latest_targets`: the newest cycle that had any, by session."""

    accounts: GatewayTables
    cycles: dict[tuple[str, datetime], CycleRecord] = field(default_factory=dict)
    letters: dict[str, Letter] = field(default_factory=dict)
    latest_targets: dict[str, CycleRecord] = field(default_factory=dict)
    archive: dict[tuple[str, datetime], bytes] = field(default_factory=dict)
    bars: dict[tuple[str, datetime], bytes] = field(default_factory=dict)
    audit: dict[int, AuditEntry] = field(default_factory=dict)

    @property
    def sessions(self) -> dict[str, SessionRecord]:
        """Rows of `active_sessions`."""
        return self.accounts.sessions

    def session(self, session_id: str) -> SessionRecord:
        """NotFound where there is none."""
        record = self.sessions.get(session_id)
        if record is None:
            raise NotFound(f"there is no session {session_id[:32]!r}")
        return record


class MemorySessions:
    """`SessionRepository`, in memory."""

    def __init__(self, connection: Connection, tables: SessionTables) -> None:
        self._connection = connection
        self._tables = tables

    # --- owners ---------------------------------------------------------------------------------

    def create(
        self,
        spec: SessionSpec,
        *,
        sessions_max: int,
        audit: AuditEntry | None = None,
        order_info_store: str = "file",
    ) -> SessionRecord:
        """Insert the session; Conflict for a busy account, RateLimited when there are too many."""
        tables = self._tables
        with self._connection.transaction() as transaction:
            living = tables.accounts.living(spec.account_id)
            if living is not None:
                raise Conflict(
                    f"account {spec.account_id} already has session {living.session_id}; terminate "
                    "it first, an account has one session that may trade it"
                )
            account = tables.accounts.accounts.get(spec.account_id)
            if account is None:
                raise InvariantViolated(f"session {spec.session_id} could not be stored")
            if not account.active:
                raise Conflict(
                    f"account {spec.account_id} is switched off; switch it on, or take another"
                )
            count = sum(not record.state.is_over for record in tables.sessions.values())
            if count >= sessions_max:
                raise RateLimited(
                    f"this installation runs {count} sessions and takes {sessions_max}; end one "
                    "first",
                    retry_after_s=60.0,
                )
            if spec.session_id in tables.sessions:
                raise Conflict(f"session {spec.session_id} exists already")
            record = _new_record(spec, order_info_store)
            transaction.put(tables.sessions, spec.session_id, record)
            self._audit(transaction, audit)
            return record

    def get(self, session_id: str) -> SessionRecord:
        """The session; NotFound."""
        self._connection.read()
        return self._tables.session(session_id)

    def find(self, session_id: str) -> SessionRecord | None:
        """The session, or None."""
        self._connection.read()
        return self._tables.sessions.get(session_id)

    def living_on_account(self, account_id: str) -> SessionRecord | None:
        """The session of the account that is not over."""
        self._connection.read()
        return self._tables.accounts.living(account_id)

    def set_desired(
        self,
        session_id: str,
        desired: DesiredState,
        end_state: EndState | None = None,
        *,
        audit: AuditEntry | None = None,
    ) -> SessionRecord:
        """What the owner wants; Conflict when it is over, or ends already in another way."""
        with self._connection.transaction() as transaction:
            record = self._tables.session(session_id)
            if record.state.is_over:
                raise Conflict(f"session {session_id} is over already ({record.state.value})")
            is_ending = record.state is SessionState.STOPPING
            if is_ending and end_state is not None and end_state is not record.end_state:
                raise Conflict(
                    f"session {session_id} is ending already, {record.end_state}; it cannot end "
                    f"{end_state} any more"
                )
            changed = replace(record, desired=desired, end_state=end_state or record.end_state)
            self._put(transaction, changed)
            self._audit(transaction, audit)
            return changed

    # --- leaders --------------------------------------------------------------------------------

    def take_epoch(self, session_id: str) -> int:
        """Raise the account's epoch; Conflict when the session is over."""

        def work(transaction: Transaction) -> int:
            record = self._tables.session(session_id)
            if record.state.is_over:
                raise Conflict(f"session {session_id} is over ({record.state}); it may not trade")
            accounts = self._tables.accounts.accounts
            account = accounts[record.account_id]
            epoch = account.epoch + 1
            transaction.put(accounts, record.account_id, replace(account, epoch=epoch))
            self._put(transaction, replace(record, epoch=epoch))
            return epoch

        return self._connection.run_idempotent(work)

    def record_leader(self, session_id: str, leader: Leader) -> None:
        """Who leads it from now on."""
        with self._connection.transaction() as transaction:
            record = self._tables.session(session_id)
            self._put(transaction, replace(record, leader=leader))

    def record_restart(self, session_id: str) -> int:
        """Count one more start of the session's processes."""
        with self._connection.transaction() as transaction:
            record = self._tables.session(session_id)
            changed = replace(record, restarts=record.restarts + 1)
            self._put(transaction, changed)
            return changed.restarts

    def heartbeat(self, session_id: str, epoch: int, wall: datetime) -> Wishes:
        """The leader of `epoch` lives; what the owner wants."""
        with self._connection.transaction() as transaction:
            record = self._guarded(session_id, epoch)
            self._put(transaction, replace(record, heartbeat_wall=wall))
            return Wishes(record.desired, record.end_state, record.state)

    def wishes(self, session_id: str) -> Wishes:
        """What the owner wants."""
        record = self.get(session_id)
        return Wishes(record.desired, record.end_state, record.state)

    def set_state(
        self,
        session_id: str,
        state: SessionState,
        at: datetime,
        *,
        reason: str = "",
        epoch: int | None = None,
    ) -> SessionRecord:
        """Move the session along the table; StaleWriter for an older epoch."""
        with self._connection.transaction() as transaction:
            record = self._guarded(session_id, epoch)
            if record.state is state:
                return record
            if record.state not in REACHED_FROM[state]:
                raise Conflict(
                    f"session {session_id} is {record.state.value}; it cannot become {state}"
                )
            changed = replace(
                record,
                state=state,
                reason=reason or record.reason,
                ended_at=at if state.is_over else record.ended_at,
            )
            self._put(transaction, changed)
            return changed

    def set_initial_balance(self, session_id: str, epoch: int, balance: Decimal) -> None:
        """The first one stays."""
        with self._connection.transaction() as transaction:
            record = self._guarded(session_id, epoch)
            if record.initial_balance is None:
                self._put(transaction, replace(record, initial_balance=balance))

    def record_cycle(self, epoch: int, cycle: CycleRecord) -> None:
        """Write the cycle as it is now."""

        def work(transaction: Transaction) -> None:
            record = self._guarded(cycle.session_id, epoch)
            last = record.last_boundary
            changed = replace(
                record,
                cycle=max(record.cycle, cycle.number),
                last_boundary=cycle.boundary if last is None else max(last, cycle.boundary),
            )
            self._put(transaction, changed)
            transaction.put(self._tables.cycles, (cycle.session_id, cycle.boundary), cycle)
            known = self._tables.latest_targets.get(cycle.session_id)
            newer = known is None or known.boundary <= cycle.boundary
            if cycle.targets is not None and newer:
                transaction.put(self._tables.latest_targets, cycle.session_id, cycle)

        self._connection.run_idempotent(work)

    def latest_cycle(self, session_id: str) -> CycleRecord | None:
        """The cycle of the latest boundary."""
        found = self.cycles(session_id, 1)
        return found[0] if found else None

    def cycles(self, session_id: str, count_max: int) -> list[CycleRecord]:
        """The latest cycles, newest first."""
        self._connection.read()
        mine = [cycle for (owner, _), cycle in self._tables.cycles.items() if owner == session_id]
        return sorted(mine, key=lambda cycle: cycle.boundary, reverse=True)[:count_max]

    # --- the letter's copy ----------------------------------------------------------------------

    def write_order_info(
        self, session_id: str, document: Mapping[str, object], epoch: int, revision: int
    ) -> None:
        """Make the copy follow; StaleWriter when a newer (epoch, revision) is there."""
        letters = self._tables.letters

        def work(transaction: Transaction) -> None:
            known = letters.get(session_id)
            if known is not None and known[:2] > (epoch, revision):
                raise StaleWriter(
                    f"the letter of session {session_id} in Postgres is newer than "
                    f"{(epoch, revision)}: another process took the session over"
                )
            transaction.put(letters, session_id, (epoch, revision, dict(document)))

        self._connection.run_idempotent(work)

    def read_order_info(self, session_id: str) -> dict[str, object] | None:
        """The last copy, or None."""
        self._connection.read()
        known = self._tables.letters.get(session_id)
        return None if known is None else dict(known[2])

    # --- everybody ------------------------------------------------------------------------------

    def active_sessions(self) -> list[SessionRecord]:
        """All sessions that are not over, oldest first."""
        self._connection.read()
        living = [record for record in self._tables.sessions.values() if not record.state.is_over]
        return sorted(living, key=lambda record: (record.spec.started_at, record.session_id))

    def active(self) -> Sequence[str]:
        """Their ids."""
        return [record.session_id for record in self.active_sessions()]

    def watched(self, session_id: str) -> WatchedSession:
        """The session as the finwatcher sees it."""
        record = self.get(session_id)
        newest = self._tables.latest_targets.get(session_id)
        return watched_session(record, None if newest is None else newest.targets)

    def planned_orders(
        self, session: WatchedSession, since: datetime, until: datetime
    ) -> dict[str, PlannedOrder]:
        """The orders of the cycles of [since, until], by the exchange's order id."""
        self._connection.read()
        found: dict[str, PlannedOrder] = {}
        for (owner, boundary), cycle in self._tables.cycles.items():
            if owner == session.session_id and since <= boundary <= until and cycle.order_info:
                found.update(orders_of_legs(cycle.order_info.get("legs")))
        letter = self._tables.letters.get(session.session_id)
        return found if letter is None else found | orders_of_legs(letter[2].get("legs"))

    def unprotected_s(self, session: WatchedSession, until: datetime) -> float | None:
        """Seconds × positions of the session's account without their stop, since its start."""
        periods = MemoryBarePeriods(self._connection, self._tables.accounts)
        return periods.seconds(session.account_id, session.started_at, until)

    def _guarded(self, session_id: str, epoch: int | None) -> SessionRecord:
        record = self._tables.session(session_id)
        if epoch is not None and record.epoch != epoch:
            raise StaleWriter(
                f"session {session_id} is at epoch {record.epoch}, not {epoch}: another process "
                "took it over"
            )
        return record

    def _put(self, transaction: Transaction, record: SessionRecord) -> None:
        transaction.put(self._tables.sessions, record.session_id, record)

    def _audit(self, transaction: Transaction, entry: AuditEntry | None) -> None:
        if entry is not None:
            transaction.put(self._tables.audit, len(self._tables.audit) + 1, entry)


def _new_record(spec: SessionSpec, order_info_store: str) -> SessionRecord:
    return SessionRecord(
        spec=spec,
        state=SessionState.STARTING,
        desired=DesiredState.RUNNING,
        end_state=spec.on_end,
        epoch=0,
        order_info_store=order_info_store,
        ended_at=None,
        reason="",
        cycle=0,
        last_boundary=None,
        heartbeat_wall=None,
        initial_balance=None,
        leader=None,
        restarts=0,
    )
