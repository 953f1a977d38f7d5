"""How an account comes to be: paper ones are made at the simulator, real ones checked first."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from urllib.parse import urlsplit

from module.db.repositories.accounts import AccountRecord, KeyRetired
from module.exchange.venue import VenueAccess, VenueFactory
from module.gateway.account_check import examine
from module.gateway.budget import RequestBudget
from module.gateway.stores import AccountStore, PaperExchange
from module.model.accounts import TradeEnv
from module.model.credentials import Credentials
from module.model.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from module.model.market import MarketType
from module.ports import Clock
from module.security.credentials import KeyRing, new_credentials

LABEL_LENGTH_MAX = 64
BALANCE_MAX = Decimal("1e9")
PAPER_VENUE = "bitget"
SEEDED_IDS_MAX = 1000


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What a user says of a real or demo account. repr shows no secret."""

    owner_id: str
    label: str
    venue: str
    market: MarketType
    trade_env: TradeEnv
    base_url: str
    credentials: Credentials = field(repr=False)
    force: bool = False


@dataclass(frozen=True, slots=True)
class OpeningRules:
    """Where accounts may be; `keys` seal what is stored."""

    simulator_url: str
    paper_market_id: str
    allowed_venue_urls: Sequence[str]
    keys: KeyRing
    id_seed: int | None = None
    """Of a paper world that is to run the same again: ids of paper accounts come out of it."""


class AccountOpening:
    """Opens paper accounts, takes deposits, saves checked credentials."""

    def __init__(
        self,
        *,
        accounts: AccountStore,
        venues: VenueFactory,
        budget: RequestBudget,
        paper: PaperExchange | None,
        clock: Clock,
        rules: OpeningRules,
    ) -> None:
        self._accounts = accounts
        self._venues = venues
        self._budget = budget
        self._paper = paper
        self._clock = clock
        self._rules = rules

    def open_paper(self, owner_id: str, label: str, market: MarketType, balance: Decimal) -> str:
        """A new paper account with `balance` USDT; its account id."""
        paper = self._paper_exchange()
        _check_label(label)
        if not 0 < balance <= BALANCE_MAX:
            raise InvalidInput(f"balance must be within 0 and {BALANCE_MAX:f}, got {balance}")
        credentials = new_credentials()
        is_futures = market is MarketType.FUTURES
        paper.open_account(
            credentials,
            futures_usdt=balance if is_futures else Decimal(0),
            spot_usdt=Decimal(0) if is_futures else balance,
        )
        account = NewAccount(
            owner_id=owner_id,
            label=label,
            venue=PAPER_VENUE,
            market=market,
            trade_env=TradeEnv.PAPER,
            base_url=self._rules.simulator_url,
            credentials=credentials,
        )
        return self._save(account, self._rules.paper_market_id, balance)

    def deposit(self, account_id: str, amount: Decimal) -> None:
        """Transfer `amount` USDT into a paper account; Forbidden for any other account."""
        paper = self._paper_exchange()
        record = self._accounts.get(account_id)
        if record.trade_env is not TradeEnv.PAPER:
            raise Forbidden("deposits here are for paper accounts only")
        if not 0 < amount <= BALANCE_MAX:
            raise InvalidInput(f"amount must be within 0 and {BALANCE_MAX:f}, got {amount}")
        sealed = self._accounts.sealed_credentials(account_id)
        credentials = self._rules.keys.open(sealed, account_id)
        is_futures = record.market is MarketType.FUTURES
        paper.deposit(credentials.api_key, is_futures=is_futures, amount=amount)

    def add(self, account: NewAccount) -> str:
        """Check the keys against the exchange, then save them; the account id.

        InvalidInput for an address that is not allowed; Forbidden when the exchange refuses the
        keys, when they may not trade, or may withdraw without `force`, or are of a unified account;
        Conflict in hedge mode, where coins share collateral, and for an account of the exchange
        that this installation trades already.
        """
        _check_label(account.label)
        if account.trade_env is TradeEnv.PAPER:
            raise InvalidInput("paper accounts are opened, not added")
        base_url = check_venue_url(account.base_url, self._rules.allowed_venue_urls)
        access = VenueAccess(
            "new", base_url, account.market, account.trade_env, account.credentials
        )
        found = examine(self._venues, self._budget, account.venue, access)
        found.require_fit(may_withdraw=account.force)
        market_id = f"{account.venue}-live"
        return self._save(account, market_id, found.snapshot.equity, found.report.user_id)

    def _save(
        self, account: NewAccount, market_id: str, balance: Decimal, venue_user_id: str = ""
    ) -> str:
        account_id = self._new_id(account)
        record = AccountRecord(
            account_id=account_id,
            owner_id=account.owner_id,
            label=account.label,
            venue=account.venue,
            market=account.market,
            market_id=market_id,
            trade_env=account.trade_env,
            base_url=account.base_url.rstrip("/"),
            active=True,
            epoch=0,
            gateway_lease=None,
            initial_balance=balance,
            key_hint=account.credentials.hint,
            limits={},
            created_at=self._clock.now(),
            venue_user_id=venue_user_id,
        )
        try:
            self._accounts.add(record, self._rules.keys.seal(account.credentials, account_id))
        except KeyRetired:  # between sealing and storing; the ring finds the newest now
            self._accounts.add(record, self._rules.keys.seal(account.credentials, account_id))
        return account_id

    def _new_id(self, account: NewAccount) -> str:
        seed = self._rules.id_seed
        if seed is None or account.trade_env is not TradeEnv.PAPER:
            return str(uuid.uuid4())
        text = f"{seed}|{self._clock.now().isoformat()}|{account.market}|{account.label}"
        for number in range(SEEDED_IDS_MAX):
            found = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{text}|{number}"))
            try:
                self._accounts.get(found)
            except NotFound:
                return found
        raise Conflict(f"{SEEDED_IDS_MAX} accounts {account.label!r} were opened at this moment")

    def _paper_exchange(self) -> PaperExchange:
        if self._paper is None or not self._rules.simulator_url:
            raise Unavailable("this installation has no paper exchange; set AIFAP_SIMULATOR_URL")
        return self._paper


def check_venue_url(base_url: str, allowed: Sequence[str]) -> str:
    """The address without its trailing slash; InvalidInput unless it is exactly an allowed one.

    Compared whole, so that credentials, ports, paths, look-alike hosts cannot slip in (S18).
    """
    wanted = base_url.rstrip("/")
    parts = urlsplit(wanted)
    is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if is_plain and wanted in {address.rstrip("/") for address in allowed}:
        return wanted
    raise InvalidInput(f"{base_url[:80]!r} is not an allowed exchange address: {list(allowed)}")


def _check_label(label: str) -> None:
    if not 1 <= len(label) <= LABEL_LENGTH_MAX or not label.isprintable():
        raise InvalidInput(f"a label has 1 to {LABEL_LENGTH_MAX} printable characters")
