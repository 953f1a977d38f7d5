"""Accounts, leases, audit rows, wanted stops and unprotected periods of the gateway, in memory.

The promises are those of
`module.db.repositories.{accounts,gateway_writes,wanted_stops,unprotected_periods}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from module.db.repositories.accounts import LEASE_LOST, AccountRecord
from module.db.repositories.gateway_writes import (
    GATE_REFUSED,
    NEVER_LEFT,
    RESERVED_AS,
    Author,
    KnownWrite,
    Reservation,
    WriteEntry,
    WriteKind,
    WriteOutcome,
)
from module.db.repositories.session_records import SessionRecord
from module.db.repositories.unprotected_periods import BarePeriod
from module.db.repositories.wanted_stops import WantedStops
from module.model.credentials import SealedCredentials
from module.model.errors import Conflict, NotFound, StaleWriter, Unavailable
from tests.simulation.memory_postgres.server import Connection, Transaction

UNPROVEN = (None, WriteOutcome.UNKNOWN)
RESOLVED_BY_ASKING = (WriteKind.ORDER, WriteKind.STOPS)


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """One row of `gateway_writes`."""

    account_id: str
    session_id: str
    write: KnownWrite
    answered_at: datetime | None = None


@dataclass(slots=True)
class GatewayTables:
    """The rows. `orders` is the unique index on (account, client id) of orders."""

    accounts: dict[str, AccountRecord] = field(default_factory=dict)
    credentials: dict[str, SealedCredentials] = field(default_factory=dict)
    sessions: dict[str, SessionRecord] = field(default_factory=dict)
    writes: dict[int, StoredWrite] = field(default_factory=dict)
    orders: dict[tuple[str, str], int] = field(default_factory=dict)
    open_writes: dict[int, str] = field(default_factory=dict)
    late_ids: dict[tuple[str, datetime, str], int] = field(default_factory=dict)
    wanted: dict[tuple[str, str], WantedStops] = field(default_factory=dict)
    periods: dict[str, BarePeriod] = field(default_factory=dict)
    next_write_id: int = 1

    def living(self, account_id: str) -> SessionRecord | None:
        """The session of the account that is not over."""
        for record in self.sessions.values():
            if record.account_id == account_id and not record.state.is_over:
                return record
        return None

    def account(self, account_id: str) -> AccountRecord:
        """NotFound where there is none."""
        record = self.accounts.get(account_id)
        if record is None:
            raise NotFound(f"there is no account {account_id[:64]!r}")
        return record


class MemoryAccounts:
    """`AccountRepository`, as far as the gateway and a session need it."""

    def __init__(self, connection: Connection, tables: GatewayTables) -> None:
        self._connection = connection
        self._tables = tables

    def get(self, account_id: str) -> AccountRecord:
        """The account; NotFound."""
        self._connection.read()
        return self._tables.account(account_id)

    def list_active(self) -> list[AccountRecord]:
        """All active accounts, oldest first."""
        self._connection.read()
        active = [record for record in self._tables.accounts.values() if record.active]
        return sorted(active, key=lambda record: (record.created_at, record.account_id))

    def add(self, record: AccountRecord, sealed: SealedCredentials) -> None:
        """Insert account and credentials together; Conflict for a label that is taken."""
        tables = self._tables
        with self._connection.transaction() as transaction:
            for known in tables.accounts.values():
                same = (known.owner_id, known.label) == (record.owner_id, record.label)
                if known.active and record.active and same:
                    raise Conflict(
                        f"label: the owner has an active account labelled {record.label!r}"
                    )
            transaction.put(tables.accounts, record.account_id, record)
            transaction.put(tables.credentials, record.account_id, sealed)

    def sealed_credentials(self, account_id: str) -> SealedCredentials:
        """What is stored of the keys; NotFound where there are none."""
        self._connection.read()
        sealed = self._tables.credentials.get(account_id)
        if sealed is None:
            raise NotFound(f"account {account_id} has no credentials; save them first")
        return sealed

    def living_session(self, account_id: str) -> str | None:
        """The session of the account that is not over."""
        self._connection.read()
        living = self._tables.living(account_id)
        return None if living is None else living.session_id

    def change(
        self,
        account_id: str,
        *,
        active: bool | None = None,
        limits: Mapping[str, object] | None = None,
    ) -> AccountRecord:
        """Change what is given; the account after it."""
        with self._connection.transaction() as transaction:
            record = self._tables.account(account_id)
            if active is False and record.active:
                self._require_idle(record)
            if active is True and account_id not in self._tables.credentials:
                raise Conflict(
                    f"account {record.label!r} has no keys any more; save new ones first"
                )
            changed = replace(
                record,
                active=record.active if active is None else active,
                limits=record.limits if limits is None else dict(limits),
            )
            transaction.put(self._tables.accounts, account_id, changed)
            return changed

    def switch_off(self, account_id: str, *, erase_keys: bool) -> AccountRecord:
        """Make it inactive; what was wanted of its positions is over."""
        tables = self._tables
        with self._connection.transaction() as transaction:
            record = tables.account(account_id)
            self._require_idle(record)
            for key in [key for key in tables.wanted if key[0] == account_id]:
                transaction.remove(tables.wanted, key)
            if erase_keys:
                transaction.remove(tables.credentials, account_id)
            hint = "" if erase_keys else record.key_hint
            changed = replace(record, active=False, key_hint=hint)
            transaction.put(tables.accounts, account_id, changed)
            return changed

    def save_credentials(
        self,
        account_id: str,
        sealed: SealedCredentials,
        *,
        key_hint: str,
        venue_user_id: str,
        at: datetime,
        while_trading: bool,
    ) -> AccountRecord:
        """Replace the keys."""
        with self._connection.transaction() as transaction:
            record = self._tables.account(account_id)
            if not while_trading:
                self._require_idle(record)
            changed = replace(record, key_hint=key_hint, venue_user_id=venue_user_id)
            transaction.put(self._tables.accounts, account_id, changed)
            transaction.put(self._tables.credentials, account_id, sealed)
            return changed

    def _require_idle(self, record: AccountRecord) -> None:
        living = self._tables.living(record.account_id)
        if living is not None:
            raise Conflict(
                f"session {living.session_id} trades on account {record.label!r}; terminate it "
                "and wait for its end"
            )


class MemoryLeases:
    """`AccountLeases`: an advisory lock on a connection, and the name in the account's row."""

    def __init__(self, connection: Connection, tables: GatewayTables, gateway_id: str) -> None:
        self._connection = connection
        self._tables = tables
        self._gateway_id = gateway_id
        self._held: set[str] = set()

    @property
    def gateway_id(self) -> str:
        """The process's name."""
        return self._gateway_id

    def claim(self, account_id: str) -> None:
        """Own the account; Unavailable while another gateway does, or Postgres is away."""
        if account_id in self._held:
            return
        server = self._connection.server
        try:
            self._connection.read()
        except Unavailable:
            self._forget()
            raise
        holder = server.locks.get(account_id)
        if holder is not None and holder[0] != self._gateway_id:
            raise Unavailable(
                f"another gateway process owns account {account_id}; this one does not write",
                code=LEASE_LOST,
                retry_after_s=1.0,
            )
        server.locks[account_id] = (self._gateway_id, server.generation)
        record = self._tables.accounts.get(account_id)
        if record is not None:
            transaction = Transaction()
            named = replace(record, gateway_lease=self._gateway_id)
            transaction.put(self._tables.accounts, account_id, named)
            server.commit(transaction)
        self._held.add(account_id)

    def lost(self) -> None:
        """Claim everything anew before the next write."""
        self._forget()

    def close(self) -> None:
        """Give all leases back; a dead process does the same by its connection's end."""
        self._forget()

    def _forget(self) -> None:
        locks = self._connection.server.locks
        for account_id in self._held:
            if locks.get(account_id, ("", 0))[0] == self._gateway_id:
                del locks[account_id]
        self._held.clear()


class MemoryWrites:
    """`WriteRepository`: rows that are the fence, unique per client id of an order."""

    def __init__(self, connection: Connection, tables: GatewayTables) -> None:
        self._connection = connection
        self._tables = tables

    def reserve_orders(
        self, author: Author, entries: Sequence[WriteEntry], sent_at: datetime
    ) -> Reservation:
        """Commit a row per order after comparing epoch and owner."""
        tables = self._tables
        token = f"{tables.next_write_id:016x}"

        def work(transaction: Transaction) -> Reservation:
            limits = self._compare(author)
            fresh: dict[str, int] = {}
            seen: dict[str, KnownWrite] = {}
            again: set[str] = set()
            for entry in entries:
                client_id = entry.client_id or ""
                number = tables.orders.get((author.account_id, client_id))
                if number is None:
                    answer = {"reservation": token}
                    fresh[client_id] = self._append(transaction, author, entry, sent_at, answer)
                    continue
                known = tables.writes[number].write
                mine = known.outcome is None and known.answer.get("reservation") == token
                reopened = known.outcome is WriteOutcome.NOT_SENT
                if reopened:
                    self._reopen(transaction, number, entry, author, sent_at, token)
                if reopened or mine:
                    fresh[client_id] = number
                    if tables.writes[number].write.answer.get("again"):
                        again.add(client_id)
                else:
                    seen[client_id] = known
            return Reservation(fresh, seen, limits, frozenset(again))

        return self._connection.run_idempotent(work)

    def reserve(self, author: Author, entry: WriteEntry, sent_at: datetime) -> int:
        """Commit the row of one cancel, stop or settings write; its id."""
        with self._connection.transaction() as transaction:
            self._compare(author)
            return self._append(transaction, author, entry, sent_at, {})

    def rule_out(self, author: Author, entry: WriteEntry, at: datetime) -> KnownWrite:
        """The order's row as it is; ruled out from now on where it never left."""

        def work(transaction: Transaction) -> KnownWrite:
            self._compare(author)
            number = self._tables.orders.get((author.account_id, entry.client_id or ""))
            if number is None:
                number = self._append(transaction, author, entry, at, {})
            elif self._tables.writes[number].write.outcome is not WriteOutcome.NOT_SENT:
                return self._tables.writes[number].write
            stored = self._tables.writes[number]
            write = replace(stored.write, outcome=WriteOutcome.RULED_OUT)
            self._put(transaction, replace(stored, write=write))
            return write

        return self._connection.run_idempotent(work)

    def record_outcomes(
        self,
        outcomes: Mapping[int, tuple[WriteOutcome, Mapping[str, object]]],
        answered_at: datetime,
        wanted: Sequence[WantedStops] = (),
    ) -> None:
        """A proven outcome is never weakened; `wanted` is kept in the same transaction."""
        if not outcomes and not wanted:
            return

        def work(transaction: Transaction) -> None:
            for wish in wanted:
                put_wanted(transaction, self._tables, wish)
            for number, (outcome, answer) in outcomes.items():
                stored = self._tables.writes.get(number)
                if stored is None or stored.write.outcome not in UNPROVEN:
                    continue
                write = replace(
                    stored.write, outcome=outcome, answer=dict(answer), answered_at=answered_at
                )
                self._put(transaction, replace(stored, write=write, answered_at=answered_at))

        self._connection.run_idempotent(work)

    def add_late(
        self,
        author: Author,
        entries: Iterable[tuple[WriteEntry, WriteOutcome, Mapping[str, object], datetime]],
    ) -> None:
        """A request that carries a `late_id` is written once, however often it is told; one that
        is `named_for_later` in its reserved row, where there is one without an outcome."""
        rows = list(entries)
        if not rows:
            return

        def work(transaction: Transaction) -> None:
            tables = self._tables
            told = set(tables.late_ids)
            for entry, outcome, answer, at in rows:
                late_id = entry.request.get("late_id")
                key = (author.account_id, at, str(late_id))
                if late_id is not None and key in told:
                    continue
                is_order = entry.kind is WriteKind.ORDER
                if is_order and (author.account_id, entry.client_id or "") in tables.orders:
                    continue
                number = self._reserved(author, entry, at) or self._append(
                    transaction, author, entry, at, {}
                )
                stored = tables.writes[number]
                write = replace(
                    stored.write,
                    request=dict(entry.request),
                    outcome=outcome,
                    answer=dict(answer),
                )
                self._put(transaction, replace(stored, write=write, answered_at=at))
                if late_id is not None:
                    transaction.put(tables.late_ids, key, number)

        self._connection.run_idempotent(work)

    def _reserved(self, author: Author, entry: WriteEntry, at: datetime) -> int | None:
        name = entry.request.get(RESERVED_AS)
        if name is None:
            return None
        for number, stored in self._tables.writes.items():
            write = stored.write
            is_open = write.sent_at == at and write.outcome is None
            if is_open and write.request.get(RESERVED_AS) == name:
                return number
        return None

    def unresolved(self, account_id: str, limit: int = 200) -> list[KnownWrite]:
        """Orders and stops whose outcome nobody knows, newest first."""
        self._connection.read()
        numbers = sorted(
            (n for n, owner in self._tables.open_writes.items() if owner == account_id),
            reverse=True,
        )
        return [self._tables.writes[number].write for number in numbers[:limit]]

    def sent_since(self, account_id: str, since: datetime) -> list[datetime]:
        """When the account's orders of the last while left (or may have), oldest first."""
        self._connection.read()
        found: list[datetime] = []
        for number in reversed(self._tables.writes):
            stored = self._tables.writes[number]
            at = stored.write.sent_at
            if at is None or at <= since:
                break
            mine = stored.account_id == account_id and stored.write.kind is WriteKind.ORDER
            if mine and stored.write.outcome not in NEVER_LEFT:
                found.append(at)
        return sorted(found)

    def under_way(self, account_ids: Sequence[str]) -> dict[str, list[str]]:
        """Client ids of opening orders that are on record and not answered yet, by account."""
        self._connection.read()
        found: dict[str, list[str]] = {}
        for number in sorted(self._tables.open_writes):
            stored = self._tables.writes[number]
            write, order = stored.write, stored.write.request.get("order")
            if write.kind is not WriteKind.ORDER or write.outcome is not None:
                continue
            opens = isinstance(order, Mapping) and not order.get("reduce_only")
            if opens and stored.account_id in account_ids:
                found.setdefault(stored.account_id, []).append(write.client_id or "")
        return found

    def _compare(self, author: Author) -> Mapping[str, object]:
        record = self._tables.accounts.get(author.account_id)
        if record is None or not record.active:
            raise NotFound(f"there is no active account {author.account_id}")
        if record.gateway_lease != author.gateway_id:
            raise Unavailable(
                f"gateway {record.gateway_lease} owns account {author.account_id} now; nothing "
                "was sent",
                code=LEASE_LOST,
                retry_after_s=1.0,
            )
        if record.epoch != author.epoch:
            raise StaleWriter(
                f"epoch {author.epoch} may not write to account {author.account_id}: its epoch is "
                f"{record.epoch}; nothing was sent"
            )
        return dict(record.limits)

    def _append(
        self,
        transaction: Transaction,
        author: Author,
        entry: WriteEntry,
        sent_at: datetime,
        answer: Mapping[str, object],
    ) -> int:
        number = self._tables.next_write_id
        self._tables.next_write_id += 1  # a sequence: not undone with its transaction
        write = KnownWrite(
            write_id=number,
            kind=entry.kind,
            client_id=entry.client_id,
            symbol=entry.symbol,
            epoch=author.epoch,
            request=dict(entry.request),
            outcome=None,
            answer=dict(answer),
            sent_at=sent_at,
        )
        if entry.kind is WriteKind.ORDER:
            key = (author.account_id, entry.client_id or "")
            transaction.put(self._tables.orders, key, number)
        self._put(transaction, StoredWrite(author.account_id, author.session_id, write))
        return number

    def _reopen(
        self,
        transaction: Transaction,
        number: int,
        entry: WriteEntry,
        author: Author,
        sent_at: datetime,
        token: str,
    ) -> None:
        stored = self._tables.writes[number]
        write = replace(
            stored.write,
            outcome=None,
            answer={
                "reservation": token,
                "again": not stored.write.answer.get(GATE_REFUSED, False),
            },
            symbol=entry.symbol,
            request=dict(entry.request),
            epoch=author.epoch,
            sent_at=sent_at,
        )
        self._put(transaction, replace(stored, write=write))

    def _put(self, transaction: Transaction, stored: StoredWrite) -> None:
        number, write = stored.write.write_id, stored.write
        transaction.put(self._tables.writes, number, stored)
        if write.outcome in UNPROVEN and write.kind in RESOLVED_BY_ASKING:
            transaction.put(self._tables.open_writes, number, stored.account_id)
        else:
            transaction.remove(self._tables.open_writes, number)


class MemoryWantedStops:
    """`WantedStopRepository`."""

    def __init__(self, connection: Connection, tables: GatewayTables) -> None:
        self._connection = connection
        self._tables = tables
        self._wanted = tables.wanted

    def list_for_account(self, account_id: str) -> list[WantedStops]:
        """All rows of the account."""
        self._connection.read()
        return [wanted for (owner, _), wanted in self._wanted.items() if owner == account_id]

    def put(self, wanted: WantedStops) -> None:
        """Insert or replace; a row of a higher epoch, or of this epoch and newer, stays."""
        self._connection.run_idempotent(lambda tx: put_wanted(tx, self._tables, wanted))

    def remove(self, account_id: str, symbol: str, asked_at: datetime) -> None:
        """Nothing was wanted any more at `asked_at`: a newer wish stays."""
        key = (account_id, symbol)

        def work(transaction: Transaction) -> None:
            known = self._wanted.get(key)
            if known is not None and known.updated_at <= asked_at:
                transaction.remove(self._wanted, key)

        self._connection.run_idempotent(work)


class MemoryBarePeriods:
    """`UnprotectedPeriodRepository`."""

    def __init__(self, connection: Connection, tables: GatewayTables) -> None:
        self._connection = connection
        self._periods = tables.periods

    def put(self, periods: Sequence[BarePeriod]) -> None:
        """Insert them, or add their ends; an end that is there stays."""
        if not periods:
            return

        def work(transaction: Transaction) -> None:
            for period in periods:
                known = self._periods.get(period.period_id)
                if known is None:
                    transaction.put(self._periods, period.period_id, period)
                elif known.ended_at is None and period.ended_at is not None:
                    ended = replace(known, ended_at=period.ended_at)
                    transaction.put(self._periods, period.period_id, ended)

        self._connection.run_idempotent(work)

    def open_of(self, account_id: str) -> list[BarePeriod]:
        """Those of the account that are not over, the oldest first."""
        self._connection.read()
        mine = [p for p in self._periods.values() if p.account_id == account_id]
        return sorted((p for p in mine if p.ended_at is None), key=lambda each: each.started_at)

    def seconds(self, account_id: str, since: datetime, until: datetime) -> float:
        """Seconds × positions of the account without their stop within [since, until)."""
        return self.seconds_of({account_id: since}, until)[account_id]

    def seconds_of(self, since: Mapping[str, datetime], until: datetime) -> dict[str, float]:
        """As `seconds`, of many accounts."""
        self._connection.read()
        found = dict.fromkeys(since, 0.0)
        for period in self._periods.values():
            if period.account_id in since:
                start = max(period.started_at, since[period.account_id])
                end = min(period.ended_at or until, until)
                found[period.account_id] += max(0.0, (end - start).total_seconds())
        return found


def put_wanted(transaction: Transaction, tables: GatewayTables, wanted: WantedStops) -> None:
    """Insert or replace; a row of a higher epoch, or of this epoch and newer, stays."""
    key = (wanted.account_id, wanted.symbol)
    known = tables.wanted.get(key)
    mine = (wanted.epoch, wanted.updated_at)
    if known is None or (known.epoch, known.updated_at) <= mine:
        transaction.put(tables.wanted, key, wanted)


def keep_newest(
    transaction: Transaction, table: dict[tuple[str, str], WantedStops], wanted: WantedStops
) -> None:
    """Insert or replace a wish; one of a higher epoch, or of this epoch and newer, stays."""
    known = table.get((wanted.account_id, wanted.symbol))
    if known is None or (known.epoch, known.updated_at) <= (wanted.epoch, wanted.updated_at):
        transaction.put(table, (wanted.account_id, wanted.symbol), wanted)
