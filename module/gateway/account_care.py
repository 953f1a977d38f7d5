"""What is done to an account that is there: a look at it, other keys, switching it off and on.

platform API ─► AccountCare ─► the exchange first, then the row; running adapters take it up
"""

from __future__ import annotations

from module.db.repositories.accounts import AccountRecord, KeyRetired
from module.exchange.venue import Priority, VenueAccess, VenueFactory
from module.gateway.account_check import Findings, describe, examine
from module.gateway.account_desk import AccountDesk
from module.gateway.budget import RequestBudget
from module.gateway.stores import AccountStore
from module.model.accounts import AccountCheck, TradeEnv
from module.model.credentials import Credentials
from module.model.errors import AifapError, Conflict, Forbidden, Retryable, Unavailable
from module.model.market import MarketType
from module.ports import Clock
from module.security.credentials import KeyRing


class AccountCare:
    """Checks, replaces keys, switches off and on. Thread safe."""

    def __init__(
        self,
        *,
        accounts: AccountStore,
        desk: AccountDesk,
        venues: VenueFactory,
        budget: RequestBudget,
        keys: KeyRing,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._desk = desk
        self._venues = venues
        self._budget = budget
        self._keys = keys
        self._clock = clock

    def check(self, account_id: str) -> AccountCheck:
        """What the exchange says of the account now; it need not be active.

        Forbidden when its keys are refused or do not open; Retryable when nobody answers.
        """
        record = self._accounts.get(account_id)
        found = self._examine(record, self._stored(account_id))
        base_url = self._desk.base_url_of(record)
        return describe(record, base_url, found, self._clock.now())

    def replace_keys(self, account_id: str, credentials: Credentials, *, force: bool) -> None:
        """Check other keys of the same account of the exchange, save them, use them from now on.

        While a session trades, only keys that the exchange says are of the same account; what is
        under way ends with the old ones. Conflict for another account's keys, Forbidden for keys
        that do not fit (see `AccountOpening.add`) and for paper accounts.
        """
        record = self._accounts.get(account_id)
        if record.trade_env is TradeEnv.PAPER:
            raise Forbidden("the keys of a paper account are made here and are not replaced")
        found = self._examine(record, credentials)
        found.require_fit(may_withdraw=force)
        known, told = record.venue_user_id, found.report.user_id
        if known and told and known != told:
            raise Conflict(
                "these keys belong to another account at the exchange; add it as an account of "
                "its own"
            )
        proven = bool(known) and known == told
        try:
            self._save(record, credentials, told or known, while_trading=proven)
        except KeyRetired:  # between sealing and storing; the ring finds the newest now
            self._save(record, credentials, told or known, while_trading=proven)
        self._desk.renew(account_id)

    def switch_off(self, account_id: str, *, erase_keys: bool, force: bool) -> None:
        """Trade and protect the account no more; its history stays.

        Conflict while a session on it is not over, or while it has positions, orders or stops at
        the exchange. Unavailable where the exchange cannot be asked, unless `force`: then what is
        there stays there, unprotected.
        """
        record = self._accounts.get(account_id)
        living = self._accounts.living_session(account_id)
        if living is not None:
            raise Conflict(
                f"session {living} trades on account {record.label!r}; terminate it and wait for "
                "its end"
            )
        if record.active:
            self._require_flat(record, force=force)
        self._accounts.switch_off(account_id, erase_keys=erase_keys)
        self._desk.forget(account_id)

    def switch_on(self, account_id: str) -> None:
        """Let sessions trade it again, after the exchange has been asked; see `replace_keys`."""
        record = self._accounts.get(account_id)
        if not record.active:
            found = self._examine(record, self._stored(account_id))
            found.require_fit(may_withdraw=True)
            self._accounts.change(account_id, active=True)
        self._desk.on_write(account_id)

    def _require_flat(self, record: AccountRecord, *, force: bool) -> None:
        try:
            there = self._what_is_there(record)
        except (Retryable, Forbidden) as error:
            if force:
                return
            raise Unavailable(
                f"account {record.label!r} cannot be looked at ({error.message}), so nobody knows "
                "whether it is flat; repeat it later, or insist with force: what is there then "
                "stays, unprotected",
                retry_after_s=error.retry_after_s if isinstance(error, Retryable) else None,
            ) from error
        if there:
            raise Conflict(
                f"account {record.label!r} has {there} at the exchange; close and cancel them "
                "first, so that nothing is left without protection"
            )

    def _what_is_there(self, record: AccountRecord) -> str:
        """In words; empty when the account is flat and clean."""
        venue = self._desk.open(record.account_id).venue
        snapshot = venue.snapshot(priority=Priority.READ)
        positions = stops = 0  # coins are no positions: an account may keep them while it is off
        if record.market is MarketType.FUTURES:
            positions = len(snapshot.positions)
            stops = len(venue.placed_stops(priority=Priority.READ))
        counts = (
            (positions, "position"),
            (len(snapshot.open_orders), "open order"),
            (stops, "stop"),
        )
        return ", ".join(f"{n} {word}{'s' if n > 1 else ''}" for n, word in counts if n)

    def _examine(self, record: AccountRecord, credentials: Credentials) -> Findings:
        access = VenueAccess(
            record.account_id,
            self._desk.base_url_of(record),
            record.market,
            record.trade_env,
            credentials,
        )
        try:
            return examine(self._venues, self._budget, record.venue, access)
        except AifapError as error:
            error.add_note(f"account {record.account_id}")
            raise

    def _stored(self, account_id: str) -> Credentials:
        return self._keys.open(self._accounts.sealed_credentials(account_id), account_id)

    def _save(
        self,
        record: AccountRecord,
        credentials: Credentials,
        venue_user_id: str,
        *,
        while_trading: bool,
    ) -> None:
        self._accounts.save_credentials(
            record.account_id,
            self._keys.seal(credentials, record.account_id),
            key_hint=credentials.hint,
            venue_user_id=venue_user_id,
            at=self._clock.now(),
            while_trading=while_trading,
        )
