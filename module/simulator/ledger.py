"""The double-entry ledger of the paper exchange: money is neither made nor lost.

Every change of every wallet is one entry whose legs add up to zero per coin. The other side of a
user's wallet is one of the house's accounts: the market (price profits), fees, funding, insurance
(losses beyond a liquidated wallet) and outside (deposits). Wallet balances are read from here;
there is no second truth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from module.model.errors import require
from module.simulator.engine_types import MarketType

ZERO = Decimal(0)


class House(StrEnum):
    """The exchange's own accounts, one per coin each."""

    MARKET = "house:market"
    FEES = "house:fees"
    FUNDING = "house:funding"
    INSURANCE = "house:insurance"
    OUTSIDE = "house:outside"


@dataclass(frozen=True, slots=True)
class WalletKey:
    """A user's wallet of one coin."""

    account_id: str
    market: MarketType
    coin: str

    def __str__(self) -> str:
        return f"user:{self.account_id}:{self.market.value}:{self.coin}"


@dataclass(frozen=True, slots=True)
class LedgerLeg:
    """`amount` of `coin` goes into `account` (out of it where negative)."""

    account: str
    coin: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One event's money; its legs add up to zero per coin. `what` is the bill's word."""

    number: int
    at_ms: int
    what: str
    reference: str
    legs: tuple[LedgerLeg, ...]


class Ledger:
    """All entries since the world began, and the balances that they add up to."""

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []
        self._balances: defaultdict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        self._dirty_coins: set[str] = set()

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """Every entry, oldest first."""
        return tuple(self._entries)

    def entries_after(self, number: int) -> Iterator[LedgerEntry]:
        """Entries with a number above `number` (the first one is 1)."""
        return iter(self._entries[number:])

    def balance(self, wallet: WalletKey) -> Decimal:
        """What is in a user's wallet; 0 if it was never used."""
        return self._balances.get((str(wallet), wallet.coin), ZERO)

    def house_balance(self, house: House, coin: str) -> Decimal:
        """What one of the house's accounts holds of `coin`."""
        return self._balances.get((house.value, coin), ZERO)

    def balances(self) -> dict[tuple[str, str], Decimal]:
        """(account, coin) -> amount of every account that was ever used, sorted."""
        return dict(sorted(self._balances.items()))

    def coins_of(self, account_id: str, market: MarketType) -> list[str]:
        """The coins that a user's wallet has ever held, sorted."""
        prefix = f"user:{account_id}:{market.value}:"
        return sorted(coin for account, coin in self._balances if account == prefix + coin)

    def move(
        self,
        at_ms: int,
        what: str,
        reference: str,
        movements: tuple[tuple[WalletKey, House, Decimal], ...],
    ) -> None:
        """Record one entry: each movement puts `amount` into the wallet out of the house account.

        Zero movements are left out; an entry without any is not recorded.
        """
        legs: list[LedgerLeg] = []
        for wallet, house, amount in movements:
            require(amount.is_finite(), f"{what} {reference}: amount {amount} is not finite")
            if amount:
                legs.append(LedgerLeg(str(wallet), wallet.coin, amount))
                legs.append(LedgerLeg(house.value, wallet.coin, -amount))
        if legs:
            number = len(self._entries) + 1
            self._post(LedgerEntry(number, at_ms, what, reference, tuple(legs)))

    def _post(self, entry: LedgerEntry) -> None:
        totals: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
        for leg in entry.legs:
            totals[leg.coin] += leg.amount
        for coin, total in totals.items():
            require(total == 0, f"entry {entry.what} {entry.reference}: {coin} is off by {total}")
        for leg in entry.legs:
            self._balances[leg.account, leg.coin] += leg.amount
            self._dirty_coins.add(leg.coin)
        self._entries.append(entry)

    def check(self) -> None:
        """Raise InvariantViolated unless all balances of each coin add up to exactly zero.

        Looks only at coins that moved since the last check, so it is cheap to run every event.
        """
        if not self._dirty_coins:
            return
        totals = dict.fromkeys(self._dirty_coins, ZERO)
        for (_, coin), amount in self._balances.items():
            if coin in totals:
                totals[coin] += amount
        for coin, total in totals.items():
            require(total == 0, f"ledger is out of balance: {coin} adds up to {total}, not 0")
        self._dirty_coins.clear()

    def audit(self) -> None:
        """Recompute every balance from the entries; raise InvariantViolated on any difference."""
        recomputed: defaultdict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        for entry in self._entries:
            for leg in entry.legs:
                recomputed[leg.account, leg.coin] += leg.amount
        for key in recomputed.keys() | self._balances.keys():
            require(
                recomputed[key] == self._balances[key],
                f"ledger balance of {key} is {self._balances[key]}, entries say {recomputed[key]}",
            )
        self._dirty_coins.update(coin for _, coin in self._balances)
        self.check()
