"""The gateway's memory in memory: same promises as the repositories, and it can be away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

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
from module.db.repositories.unprotected_periods import BarePeriod
from module.db.repositories.wanted_stops import WantedStops
from module.model.credentials import Credentials, SealedCredentials
from module.model.errors import Conflict, NotFound, StaleWriter, Unavailable
from module.security.credentials import new_credentials, seal_credentials
from tests.fakes.stored_rows import paper_account

CREDENTIALS_KEY = "k" * 43


def account(account_id: str = "acc", **changes: object) -> AccountRecord:
    """A paper futures account of epoch 7."""
    opened_at = datetime(2026, 11, 1, tzinfo=UTC)
    record = paper_account("owner", account_id=account_id, epoch=7, created_at=opened_at)
    return replace(record, initial_balance=Decimal(10_007), **changes)  # type: ignore[arg-type]


@dataclass
class MemoryPostgres:
    """All stores at once; `away` makes every call raise Unavailable."""

    records: dict[str, AccountRecord] = field(default_factory=dict)
    sealed: dict[str, SealedCredentials] = field(default_factory=dict)
    writes: list[KnownWrite] = field(default_factory=list)
    wanted: dict[tuple[str, str], WantedStops] = field(default_factory=dict)
    periods: dict[str, BarePeriod] = field(default_factory=dict)
    living: dict[str, str] = field(default_factory=dict)
    owner: str | None = None
    away: bool = False

    def answer(self) -> None:
        if self.away:
            raise Unavailable("database finplatform does not answer")

    def put_account(self, record: AccountRecord, keys: Credentials | None = None) -> None:
        """With `keys`, or some of chance."""
        self.records[record.account_id] = record
        self.sealed[record.account_id] = seal_credentials(
            keys or new_credentials(), record.account_id, CREDENTIALS_KEY
        )

    def orders(self) -> list[KnownWrite]:
        return [write for write in self.writes if write.kind is WriteKind.ORDER]


class MemoryAccounts:
    def __init__(self, postgres: MemoryPostgres) -> None:
        self._postgres = postgres

    def get(self, account_id: str) -> AccountRecord:
        self._postgres.answer()
        record = self._postgres.records.get(account_id)
        if record is None:
            raise NotFound(f"there is no account {account_id}")
        return record

    def list_active(self) -> list[AccountRecord]:
        self._postgres.answer()
        return [record for record in self._postgres.records.values() if record.active]

    def add(self, record: AccountRecord, sealed: SealedCredentials) -> None:
        self._postgres.answer()
        for known in self._postgres.records.values():
            if (known.owner_id, known.label) == (record.owner_id, record.label):
                raise Conflict("label")
        self._postgres.records[record.account_id] = record
        self._postgres.sealed[record.account_id] = sealed

    def sealed_credentials(self, account_id: str) -> SealedCredentials:
        self._postgres.answer()
        return self._postgres.sealed[account_id]

    def living_session(self, account_id: str) -> str | None:
        self._postgres.answer()
        return self._postgres.living.get(account_id)

    def change(self, account_id: str, *, active: bool) -> AccountRecord:
        record = replace(self.get(account_id), active=active)
        self._postgres.records[account_id] = record
        return record

    def switch_off(self, account_id: str, *, erase_keys: bool) -> AccountRecord:
        self._require_idle(account_id)
        if erase_keys:
            self._postgres.sealed.pop(account_id)
        return self.change(account_id, active=False)

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
        if not while_trading:
            self._require_idle(account_id)
        record = replace(self.get(account_id), key_hint=key_hint, venue_user_id=venue_user_id)
        self._postgres.records[account_id] = record
        self._postgres.sealed[account_id] = sealed
        return record

    def _require_idle(self, account_id: str) -> None:
        if self.living_session(account_id) is not None:
            raise Conflict(f"a session trades on {account_id}")


class MemoryLeases:
    def __init__(self, postgres: MemoryPostgres, gateway_id: str = "gw-1") -> None:
        self._postgres = postgres
        self._gateway_id = gateway_id

    @property
    def gateway_id(self) -> str:
        return self._gateway_id

    def claim(self, account_id: str) -> None:
        self._postgres.answer()
        if self._postgres.owner not in (None, self._gateway_id):
            raise Unavailable("another gateway", code=LEASE_LOST)
        self._postgres.owner = self._gateway_id

    def lost(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        if self._postgres.owner == self._gateway_id:
            self._postgres.owner = None


class MemoryWrites:
    def __init__(self, postgres: MemoryPostgres) -> None:
        self._postgres = postgres

    def _compare(self, author: Author) -> None:
        self._postgres.answer()
        record = self._postgres.records[author.account_id]
        if not record.active:
            raise NotFound(f"there is no active account {author.account_id}")
        if self._postgres.owner != author.gateway_id:
            raise Unavailable("another gateway", code=LEASE_LOST)
        if record.epoch != author.epoch:
            raise StaleWriter(f"epoch {author.epoch} is not {record.epoch}")

    def _append(self, author: Author, entry: WriteEntry, sent_at: datetime) -> KnownWrite:
        write = KnownWrite(
            write_id=len(self._postgres.writes) + 1,
            kind=entry.kind,
            client_id=entry.client_id,
            symbol=entry.symbol,
            epoch=author.epoch,
            request=dict(entry.request),
            outcome=None,
            sent_at=sent_at,
        )
        self._postgres.writes.append(write)
        return write

    def reserve_orders(
        self, author: Author, entries: Sequence[WriteEntry], sent_at: datetime
    ) -> Reservation:
        self._compare(author)
        known = {write.client_id: write for write in self._postgres.orders()}
        fresh: dict[str, int] = {}
        seen: dict[str, KnownWrite] = {}
        again: set[str] = set()
        for entry in entries:
            assert entry.client_id is not None
            write = known.get(entry.client_id)
            if write is None:
                fresh[entry.client_id] = self._append(author, entry, sent_at).write_id
            elif write.outcome is WriteOutcome.NOT_SENT:
                self._postgres.writes[write.write_id - 1] = replace(
                    write, outcome=None, symbol=entry.symbol, request=dict(entry.request)
                )
                fresh[entry.client_id] = write.write_id
                if not write.answer.get(GATE_REFUSED):
                    again.add(entry.client_id)
            else:
                seen[entry.client_id] = write
        limits = self._postgres.records[author.account_id].limits
        return Reservation(fresh, seen, limits, frozenset(again))

    def reserve(self, author: Author, entry: WriteEntry, sent_at: datetime) -> int:
        self._compare(author)
        return self._append(author, entry, sent_at).write_id

    def rule_out(self, author: Author, entry: WriteEntry, at: datetime) -> KnownWrite:
        self._compare(author)
        known = {write.client_id: write for write in self._postgres.orders()}
        write = known.get(entry.client_id) or self._append(author, entry, at)
        if write.client_id not in known or write.outcome is WriteOutcome.NOT_SENT:
            write = replace(write, outcome=WriteOutcome.RULED_OUT)
            self._postgres.writes[write.write_id - 1] = write
        return write

    def record_outcomes(
        self,
        outcomes: Mapping[int, tuple[WriteOutcome, Mapping[str, object]]],
        answered_at: datetime,
        wanted: Sequence[WantedStops] = (),
    ) -> None:
        self._postgres.answer()
        for wish in wanted:
            MemoryWantedStops(self._postgres).put(wish)
        for write_id, (outcome, answer) in outcomes.items():
            write = self._postgres.writes[write_id - 1]
            if write.outcome in (None, WriteOutcome.UNKNOWN):
                self._postgres.writes[write_id - 1] = replace(
                    write, outcome=outcome, answer=dict(answer), answered_at=answered_at
                )

    def add_late(
        self,
        author: Author,
        entries: Iterable[tuple[WriteEntry, WriteOutcome, Mapping[str, object], datetime]],
    ) -> None:
        self._postgres.answer()
        told = {write.request.get("late_id") for write in self._postgres.writes}
        for entry, outcome, answer, at in entries:
            if entry.request.get("late_id", "new") in told:
                continue
            name = entry.request.get(RESERVED_AS, "")
            reserved = [w for w in self._postgres.writes if w.request.get(RESERVED_AS) == name]
            write = reserved[0] if reserved else self._append(author, entry, at)
            self._postgres.writes[write.write_id - 1] = replace(
                write, request=dict(entry.request), outcome=outcome, answer=dict(answer)
            )

    def unresolved(self, account_id: str, limit: int = 200) -> list[KnownWrite]:
        self._postgres.answer()
        open_outcomes = (None, WriteOutcome.UNKNOWN)
        kinds = (WriteKind.ORDER, WriteKind.STOPS)
        return [w for w in self._postgres.writes if w.outcome in open_outcomes and w.kind in kinds]

    def sent_since(self, account_id: str, since: datetime) -> list[datetime]:
        self._postgres.answer()
        left = [w for w in self._postgres.orders() if w.outcome not in NEVER_LEFT]
        return [w.sent_at for w in left if w.sent_at is not None and w.sent_at > since]


class MemoryWantedStops:
    def __init__(self, postgres: MemoryPostgres) -> None:
        self._postgres = postgres

    def list_for_account(self, account_id: str) -> list[WantedStops]:
        self._postgres.answer()
        return [w for (owner, _), w in self._postgres.wanted.items() if owner == account_id]

    def put(self, wanted: WantedStops) -> None:
        self._postgres.answer()
        known = self._postgres.wanted.get((wanted.account_id, wanted.symbol))
        if known is not None and (known.epoch, known.updated_at) > (
            wanted.epoch,
            wanted.updated_at,
        ):
            return
        self._postgres.wanted[(wanted.account_id, wanted.symbol)] = wanted

    def remove(self, account_id: str, symbol: str, asked_at: datetime) -> None:
        self._postgres.answer()
        known = self._postgres.wanted.get((account_id, symbol))
        if known is not None and known.updated_at <= asked_at:
            del self._postgres.wanted[(account_id, symbol)]


class MemoryBarePeriods:
    def __init__(self, postgres: MemoryPostgres) -> None:
        self._postgres = postgres

    def put(self, periods: Sequence[BarePeriod]) -> None:
        self._postgres.answer()
        for period in periods:
            known = self._postgres.periods.setdefault(period.period_id, period)
            if known.ended_at is None:
                ended = replace(known, ended_at=period.ended_at)
                self._postgres.periods[period.period_id] = ended

    def open_of(self, account_id: str) -> list[BarePeriod]:
        self._postgres.answer()
        known = sorted(self._postgres.periods.values(), key=lambda each: each.started_at)
        return [p for p in known if p.account_id == account_id and p.ended_at is None]


class MemoryPaper:
    """The simulator's control door."""

    def __init__(self) -> None:
        self.accounts: dict[str, tuple[Decimal, Decimal]] = {}
        self.deposits: list[tuple[str, bool, Decimal]] = []
        self.secrets: list[Credentials] = []

    def open_account(
        self, credentials: Credentials, *, futures_usdt: Decimal, spot_usdt: Decimal
    ) -> None:
        self.accounts[credentials.api_key] = (futures_usdt, spot_usdt)
        self.secrets.append(credentials)

    def deposit(self, api_key: str, *, is_futures: bool, amount: Decimal) -> None:
        self.deposits.append((api_key, is_futures, amount))
