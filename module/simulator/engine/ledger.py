"""The double-entry ledger of the paper exchange: money is neither made nor lost.

Every change of every wallet is one entry whose legs add up to zero per coin. The other side of a
user's wallet is one of the house's accounts: the market (price profits), fees, funding, insurance
(losses beyond a liquidated wallet) and outside (deposits). Wallet balances are read from here;
there is no second truth.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from module.model.errors import require
from module.simulator.engine.engine_types import MarketType

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
    name: str = field(init=False, compare=False, repr=False)
    """Its account in the ledger."""

    def __post_init__(self) -> None:
        name = f"user:{self.account_id}:{self.market.value}:{self.coin}"
        object.__setattr__(self, "name", name)

    def __str__(self) -> str:
        return self.name


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
    """All entries that are still kept, and the balances that they add up to.

    Old entries can be folded into opening balances: opening + kept entries = balances, always.
    """

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []
        self._folded = 0
        self._opening: dict[tuple[str, str], Decimal] = {}
        self._balances: dict[tuple[str, str], Decimal] = {}
        self._changed: dict[tuple[str, str], Decimal] = {}
        """What has moved since the last check, and its balance then."""

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """Every kept entry, oldest first."""
        return tuple(self._entries)

    @property
    def opening(self) -> dict[tuple[str, str], Decimal]:
        """(account, coin) -> amount before the first kept entry, sorted."""
        return dict(sorted(self._opening.items()))

    @property
    def count(self) -> int:
        """How many entries have ever been recorded."""
        return self._folded + len(self._entries)

    def entries_after(self, number: int) -> Iterator[LedgerEntry]:
        """Kept entries with a number above `number` (the first one ever is 1)."""
        return iter(self._entries[max(0, number - self._folded) :])

    def balance(self, wallet: WalletKey) -> Decimal:
        """What is in a user's wallet; 0 if it was never used."""
        return self._balances.get((wallet.name, wallet.coin), ZERO)

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
                legs.append(LedgerLeg(wallet.name, wallet.coin, amount))
                legs.append(LedgerLeg(house.value, wallet.coin, -amount))
        if legs:
            self._post(LedgerEntry(self.count + 1, at_ms, what, reference, tuple(legs)))

    def _post(self, entry: LedgerEntry) -> None:
        totals = _sums((leg.coin, leg.amount) for leg in entry.legs)
        for coin, total in totals.items():
            require(total == 0, f"entry {entry.what} {entry.reference}: {coin} is off by {total}")
        for leg in entry.legs:
            key = (leg.account, leg.coin)
            self._changed.setdefault(key, self._balances.get(key, ZERO))
        _add(self._balances, entry.legs)
        self._entries.append(entry)

    def check(self) -> None:
        """Raise InvariantViolated unless all balances of each coin add up to exactly zero.

        They did at the last check, so what the balances have changed by since then must add up
        to zero: only accounts that moved are looked at, which is cheap after every event.
        """
        changes = ((key[1], self._balances[key] - was) for key, was in self._changed.items())
        for coin, change in _sums(changes).items():
            require(change == 0, f"ledger is out of balance: {coin} is off by {change}")
        self._changed.clear()

    def fold(self, before_ms: int) -> int:
        """Entries of before `before_ms` become part of the opening balances; how many did."""
        count = bisect.bisect_left(self._entries, before_ms, key=lambda entry: entry.at_ms)
        for entry in self._entries[:count]:
            _add(self._opening, entry.legs)
        del self._entries[:count]
        self._folded += count
        return count

    def audit(self) -> None:
        """Recompute every balance from opening and entries, and every sum from the balances.

        Raises InvariantViolated on any difference.
        """
        recomputed = dict(self._opening)
        for entry in self._entries:
            _add(recomputed, entry.legs)
        for key in recomputed.keys() | self._balances.keys():
            balance = self._balances.get(key, ZERO)
            wanted = recomputed.get(key, ZERO)
            require(balance == wanted, f"ledger balance of {key} is {balance}, entries: {wanted}")
        for coin, total in _sums((key[1], kept) for key, kept in self._balances.items()).items():
            require(total == 0, f"ledger is out of balance: {coin} adds up to {total}, not 0")
        self.check()


def _add(balances: dict[tuple[str, str], Decimal], legs: tuple[LedgerLeg, ...]) -> None:
    for leg in legs:
        key = (leg.account, leg.coin)
        balances[key] = balances.get(key, ZERO) + leg.amount


def _sums(amounts: Iterable[tuple[str, Decimal]]) -> dict[str, Decimal]:
    totals: dict[str, Decimal] = {}
    for coin, amount in amounts:
        totals[coin] = totals.get(coin, ZERO) + amount
    return totals
