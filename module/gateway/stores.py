"""What the gateway needs to remember, as Protocols: `module/db/repositories` implement them.

Tests pass stores that fail on demand; everything else passes the repositories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from module.db.repositories.accounts import AccountRecord
from module.db.repositories.gateway_writes import (
    Author,
    KnownWrite,
    Reservation,
    WriteEntry,
    WriteOutcome,
)
from module.db.repositories.unprotected_periods import BarePeriod
from module.db.repositories.wanted_stops import WantedStops
from module.model.credentials import Credentials, SealedCredentials


class AccountStore(Protocol):
    """Accounts and sealed credentials; `module.db.repositories.accounts.AccountRepository`."""

    def get(self, account_id: str) -> AccountRecord: ...

    def list_active(self) -> list[AccountRecord]: ...

    def add(self, record: AccountRecord, sealed: SealedCredentials) -> None: ...

    def sealed_credentials(self, account_id: str) -> SealedCredentials: ...

    def living_session(self, account_id: str) -> str | None: ...

    def change(self, account_id: str, *, active: bool) -> AccountRecord: ...

    def switch_off(self, account_id: str, *, erase_keys: bool) -> AccountRecord: ...

    def save_credentials(
        self,
        account_id: str,
        sealed: SealedCredentials,
        *,
        key_hint: str,
        venue_user_id: str,
        at: datetime,
        while_trading: bool,
    ) -> AccountRecord: ...


class LeaseStore(Protocol):
    """Who owns an account; `module.db.repositories.accounts.AccountLeases`."""

    @property
    def gateway_id(self) -> str: ...

    def claim(self, account_id: str) -> None: ...

    def lost(self) -> None: ...

    def close(self) -> None: ...


class WriteLog(Protocol):
    """The audit; `module.db.repositories.gateway_writes.WriteRepository`."""

    def reserve_orders(
        self, author: Author, entries: Sequence[WriteEntry], sent_at: datetime
    ) -> Reservation: ...

    def reserve(self, author: Author, entry: WriteEntry, sent_at: datetime) -> int: ...

    def rule_out(self, author: Author, entry: WriteEntry, at: datetime) -> KnownWrite: ...

    def record_outcomes(
        self,
        outcomes: Mapping[int, tuple[WriteOutcome, Mapping[str, object]]],
        answered_at: datetime,
        wanted: Sequence[WantedStops] = (),
    ) -> None: ...

    def add_late(
        self,
        author: Author,
        entries: Iterable[tuple[WriteEntry, WriteOutcome, Mapping[str, object], datetime]],
    ) -> None: ...

    def unresolved(self, account_id: str, limit: int = 200) -> list[KnownWrite]: ...

    def sent_since(self, account_id: str, since: datetime) -> list[datetime]: ...


class WantedStopStore(Protocol):
    """Wanted stops; `module.db.repositories.wanted_stops.WantedStopRepository`."""

    def list_for_account(self, account_id: str) -> list[WantedStops]: ...

    def put(self, wanted: WantedStops) -> None: ...

    def remove(self, account_id: str, symbol: str, asked_at: datetime) -> None: ...


class BarePeriodStore(Protocol):
    """`module.db.repositories.unprotected_periods.UnprotectedPeriodRepository`."""

    def put(self, periods: Sequence[BarePeriod]) -> None: ...

    def open_of(self, account_id: str) -> list[BarePeriod]: ...


class PaperExchange(Protocol):
    """The simulator's control door; `module.exchange.paper_control.PaperControl`."""

    def open_account(
        self, credentials: Credentials, *, futures_usdt: Decimal, spot_usdt: Decimal
    ) -> None: ...

    def deposit(self, api_key: str, *, is_futures: bool, amount: Decimal) -> None: ...
