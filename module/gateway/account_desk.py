"""The accounts of this gateway process: who may write to which, by whose word.

    request ─► AccountDesk.open ─► OwnedAccount      adapter and keys, at first use
    write   ─► permit / admit   ─► Permission        owner of the account, epoch, `not_after`
            ─► want_stops, record                    what must not be forgotten goes to `Audit`

With Postgres the account's row decides, without it what was known last (and then only for writes
that reduce or protect).
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta

from module.db.circuit import hurried
from module.db.repositories.accounts import LEASE_LOST, AccountRecord
from module.db.repositories.gateway_writes import Author, WriteOutcome
from module.db.repositories.wanted_stops import WantedStops
from module.exchange.venue import Priority, Venue, VenueAccess, VenueFactory
from module.gateway.audit import Audit
from module.gateway.budget import RequestBudget
from module.gateway.limits import read_limits
from module.gateway.owned_account import OwnedAccount
from module.gateway.stores import AccountStore, LeaseStore
from module.model.accounts import Position, TradeEnv
from module.model.canonical import instant_text
from module.model.errors import (
    AifapError,
    Conflict,
    NotFound,
    StaleWriter,
    TooLate,
    Unavailable,
)
from module.model.market import Quote
from module.model.orders import WriteStamp
from module.ports import Clock
from module.security.credentials import KeyRing

REPLACED_MAX = 8
_MICROSECOND = timedelta(microseconds=1)
KEEP_PATIENCE_S = 3.0
ONE_WAY_HINT = (
    "one-way position mode is required: while the account is flat and has no open orders, switch "
    "it at the exchange (Bitget: Futures, Settings, Position mode, One-way mode)"
)


@dataclass(frozen=True, slots=True)
class Permission:
    """A write that may proceed. `audited` False: Postgres is away, reduce and protect only.

    `is_read`: the account's row was read for it; else its epoch and limits are those known last,
    and the statement that puts the write on record compares them.
    """

    author: Author
    audited: bool
    is_read: bool = True


class AccountDesk:
    """All accounts of this process. Thread safe."""

    def __init__(
        self,
        *,
        accounts: AccountStore,
        leases: LeaseStore,
        audit: Audit,
        venues: VenueFactory,
        budget: RequestBudget,
        clock: Clock,
        keys: KeyRing,
        paper_url: str = "",
    ) -> None:
        """`paper_url`: where the paper exchange is now; an account's row has where it once was."""
        self._accounts = accounts
        self._leases = leases
        self.audit = audit
        self._venues = venues
        self._budget = budget
        self.clock = clock
        self._keys = keys
        self._paper_url = paper_url
        self._owned: dict[str, OwnedAccount] = {}
        self._replaced: deque[Venue] = deque()
        self._renewed = 0
        self._lock = threading.Lock()
        self.on_write: Callable[[str], None] = _nobody

    def __repr__(self) -> str:
        return f"AccountDesk({len(self._owned)} accounts)"

    def open(self, account_id: str) -> OwnedAccount:
        """The account, with its adapter; NotFound where there is none, Conflict when it is
        switched off, CredentialsUnreadable when its keys do not open."""
        while True:
            with self._lock:
                owned = self._owned.get(account_id)
                renewed = self._renewed
            if owned is not None:
                return owned
            record = self._accounts.get(account_id)
            if not record.active:
                raise Conflict(f"account {account_id} is switched off")
            venue = self._open_venue(record)
            with self._lock:
                owned = self._owned.get(account_id)
                if owned is None and renewed == self._renewed:
                    owned = OwnedAccount(record, venue, epoch=record.epoch)
                    owned.limits = read_limits(record.limits)
                    self._owned[account_id] = owned
                    return owned
            venue.close()  # another thread was first, or the keys changed meanwhile

    def base_url_of(self, record: AccountRecord) -> str:
        """Where the account is now: the paper exchange moves, a venue does not."""
        is_paper = record.trade_env is TradeEnv.PAPER
        return self._paper_url if is_paper and self._paper_url else record.base_url

    def renew(self, account_id: str) -> None:
        """Use the keys that are stored now; what is under way ends with the old ones."""
        with self._lock:
            self._renewed += 1
            owned = self._owned.get(account_id)
        if owned is not None:
            venue = self._open_venue(self._accounts.get(account_id))
            with self._lock:
                self._replaced.append(owned.venue)
                owned.venue = venue
                late = [self._replaced.popleft()] if len(self._replaced) > REPLACED_MAX else []
            for adapter in late:
                adapter.close()
        self.on_write(account_id)

    def forget(self, account_id: str) -> None:
        """The account is switched off: its adapter ends."""
        with self._lock:
            self._renewed += 1
            owned = self._owned.pop(account_id, None)
        if owned is not None:
            owned.venue.close()

    def _open_venue(self, record: AccountRecord) -> Venue:
        sealed = self._accounts.sealed_credentials(record.account_id)
        credentials = self._keys.open(sealed, record.account_id)
        base_url = self.base_url_of(record)
        access = VenueAccess(
            record.account_id, base_url, record.market, record.trade_env, credentials
        )
        gate = self._budget.for_account(base_url, credentials.api_key)
        return self._venues.open_venue(record.venue, access, gate)

    def all_owned(self) -> list[OwnedAccount]:
        """The accounts that are open here."""
        with self._lock:
            return list(self._owned.values())

    def active_ids(self) -> list[str]:
        """All active accounts of the installation; Unavailable without Postgres."""
        return [record.account_id for record in self._accounts.list_active()]

    def close(self) -> None:
        """End adapters and give the leases back."""
        with self._lock:
            owned, self._owned = list(self._owned.values()), {}
            replaced, self._replaced = list(self._replaced), deque()
        for adapter in [account.venue for account in owned] + replaced:
            adapter.close()
        self.audit.close()
        self._leases.close()

    # --- who may write -----------------------------------------------------------------------

    def admit(self, owned: OwnedAccount, stamp: WriteStamp) -> Permission:
        """As `permit`, without asking Postgres where this process owns the account and knows the
        epoch: for orders, whose reservation compares both."""
        if not (owned.lease_held and owned.recovered) or stamp.epoch != owned.epoch:
            return self.permit(owned, stamp)
        self.check_deadline(stamp)
        try:
            self._leases.claim(owned.account_id)
        except Unavailable:
            return self.permit(owned, stamp)
        author = self.author(owned, stamp.session_id, stamp.epoch)
        return Permission(author, audited=True, is_read=False)

    def permit(self, owned: OwnedAccount, stamp: WriteStamp) -> Permission:
        """The first check of every write: owner of the account, epoch, `not_after`.

        Without Postgres the permission is not audited, and only for the last known epoch of an
        account that this process owned. StaleWriter, TooLate, Unavailable.
        """
        self.check_deadline(stamp)
        author = self.author(owned, stamp.session_id, stamp.epoch)
        try:
            self.own(owned)
            record = self._accounts.get(owned.account_id)
        except Unavailable as error:
            if not owned.lease_held or error.code == LEASE_LOST:
                raise
            if stamp.epoch != owned.epoch:
                raise Unavailable(
                    f"Postgres does not answer, and epoch {stamp.epoch} is not the last known "
                    f"epoch {owned.epoch} of account {owned.account_id}; nothing was sent"
                ) from error
            return Permission(author, audited=False)
        if not record.active:
            raise Conflict(f"account {owned.account_id} is switched off")
        with owned.lock:
            owned.record = record
            owned.begin_epoch(record.epoch)
            owned.limits = read_limits(record.limits)
        if stamp.epoch != record.epoch:
            raise StaleWriter(
                f"epoch {stamp.epoch} may not write to account {owned.account_id}: its epoch is "
                f"{record.epoch}; nothing was sent"
            )
        return Permission(author, audited=True)

    def author(self, owned: OwnedAccount, session_id: str, epoch: int) -> Author:
        """Who writes, for the audit."""
        return Author(owned.account_id, session_id, epoch, self._leases.gateway_id)

    def check_deadline(self, stamp: WriteStamp) -> None:
        """TooLate once `not_after` has passed in world time."""
        now = self.clock.now()
        if now > stamp.not_after:
            raise TooLate(
                f"not_after {instant_text(stamp.not_after)} passed, it is {instant_text(now)}; "
                "nothing was sent"
            )

    def own(self, owned: OwnedAccount) -> None:
        """Take the lease, and at the first time read back what the process before left behind."""
        try:
            self._leases.claim(owned.account_id)
        except Unavailable as error:
            if error.code == LEASE_LOST:
                owned.lease_held = False
                owned.owned_since = None
            raise
        owned.lease_held = True
        if owned.owned_since is None:
            owned.owned_since = self.clock.now()
        if not owned.recovered:
            self.audit.adopt()
            self.audit.flush()
            wanted = self.audit.stops.list_for_account(owned.account_id)
            unresolved = self.audit.writes.unresolved(owned.account_id)
            minute_ago = self.clock.now() - timedelta(seconds=60)
            left = self.audit.writes.sent_since(owned.account_id, minute_ago)
            with owned.lock:
                if not owned.order_times:
                    owned.order_times.extend(left)
                for row in wanted:
                    owned.wanted.setdefault(row.symbol, row)
                for write in unresolved:
                    owned.unresolved.setdefault(write.write_id, write)
                owned.recovered = True

    def keep_owning(self, owned: OwnedAccount) -> None:
        """As `own`, but an account that was owned stays so while Postgres is away, and no look at
        it waits long for that."""
        try:
            with hurried(KEEP_PATIENCE_S) if owned.recovered else nullcontext():
                self.own(owned)
        except Unavailable as error:
            if not owned.lease_held or error.code == LEASE_LOST:
                raise

    def fenced(self, owned: OwnedAccount, error: AifapError) -> None:
        """A store refused a write: when another gateway took over, stop owning at once."""
        if error.code == LEASE_LOST:
            self._leases.lost()
            owned.lease_held = False
            owned.owned_since = None
            owned.recovered = False
            owned.relist_periods = True

    # --- wanted stops ------------------------------------------------------------------------

    def want_stops(self, owned: OwnedAccount, wanted: WantedStops) -> None:
        """Keep these stops from now on: in Postgres, or in the spool until Postgres is back."""
        kept = self._keep_wish(owned, wanted)
        if kept is None:
            return
        self.audit.want(kept)
        self.on_write(owned.account_id)

    def expect_stops(self, owned: OwnedAccount, wanted: WantedStops) -> WantedStops | None:
        """The guard shall know these stops now; what is kept of them, which `record` is about to
        put where it lasts. None: a later leader wished before."""
        kept = self._keep_wish(owned, wanted)
        if kept is not None:
            self.on_write(owned.account_id)
        return kept

    def unwant_stops(self, owned: OwnedAccount, symbol: str) -> None:
        """Nothing is wanted for this symbol any more."""
        now = self.clock.now()
        with owned.lock:
            known = owned.wanted.pop(symbol, None)
        at = now if known is None else max(now, known.updated_at)
        self.audit.unwant(owned.account_id, symbol, at)

    def record(
        self,
        owned: OwnedAccount,
        outcomes: Mapping[int, tuple[WriteOutcome, Mapping[str, object]]],
        wanted: Sequence[WantedStops] = (),
    ) -> bool:
        """Write outcomes down, in Postgres or the spool, with the stops that are kept from now on
        (the caller says `on_write`); False when Postgres does not have them yet."""
        with owned.lock:
            kept = [k for wish in wanted if (k := self._keep_wish(owned, wish)) is not None]
        return self.audit.record(outcomes, kept)

    @staticmethod
    def _keep_wish(owned: OwnedAccount, wanted: WantedStops) -> WantedStops | None:
        """What is wanted of a symbol from now on; None: a later leader wished before.

        Its time is after that of the wish before it, though the clock was set back since (C7):
        Postgres and spools keep the newest by time."""
        with owned.lock:
            current = owned.wanted.get(wanted.symbol)
            if current is not None and current is not wanted:
                if current.epoch > wanted.epoch:
                    return None
                later = max(wanted.updated_at, current.updated_at + _MICROSECOND)
                wanted = replace(wanted, updated_at=later)
            owned.wanted[wanted.symbol] = wanted
            return wanted

    # --- readings ----------------------------------------------------------------------------

    def read_positions(self, owned: OwnedAccount, priority: Priority) -> dict[str, Position]:
        """Positions (on spot: free coins) by symbol, from the exchange, remembered for seconds."""
        reading = owned.begin_reading(self.clock.now())
        positions = owned.venue.holdings(priority=priority)
        by_symbol = {position.symbol: position for position in positions}
        if len(by_symbol) != len(positions):
            seen = Counter(position.symbol for position in positions)
            twice = ", ".join(symbol for symbol, count in seen.items() if count > 1)
            raise Conflict(
                f"account {owned.account_id} holds two positions of {twice}; {ONE_WAY_HINT}"
            )
        owned.keep_positions(positions, reading)
        return by_symbol

    def read_quotes(self, owned: OwnedAccount, symbols: set[str]) -> dict[str, Quote]:
        """Quotes of those of `symbols` that have one, at most a few seconds old."""
        now = self.clock.now()
        quotes = owned.fresh_quotes(symbols, now)
        missing = sorted(symbols - set(quotes))
        if missing:
            fresh = _quotes_there(owned.venue, missing)
            with owned.lock:
                owned.quotes.update({symbol: (quote, now) for symbol, quote in fresh.items()})
            quotes.update(fresh)
        return quotes


def _quotes_there(venue: Venue, symbols: Sequence[str]) -> Mapping[str, Quote]:
    """One that has no price now keeps no other order of its batch from leaving (C1)."""
    try:
        return venue.quotes(symbols, priority=Priority.ORDER)
    except NotFound:
        if len(symbols) == 1:
            return {}
        found: dict[str, Quote] = {}
        for symbol in symbols:
            found.update(_quotes_there(venue, [symbol]))
        return found


def _nobody(account_id: str) -> None:
    """Before the protection loop is attached nobody needs to know of a write."""
