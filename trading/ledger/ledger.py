"""Immutable facts → what is held and what it earned. Pure passes, each fact counted once. PURE.

    fills ─► book_fills ─┐
    bills ─► book_bills ─┴─► Ledger(holdings, wallet, profit) ─► differences(…, what the venue says)

A fill is known by (symbol, trade id), a bill by its id: the same fact booked again changes nothing,
in the same call or years later. Positions are kept at average cost:

    wallet = opening balance + transfers + realised PnL + fees + funding + other
    equity = wallet + Σ (size × mark − cost)                  futures and spot alike
    cash   = wallet − Σ cost                                  what is left of a spot account's money

Sizes are exact. The cost of a part of a position is a quotient, with the 28 digits that Decimal
keeps; it is exact again when the position is closed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from operator import attrgetter
from typing import NamedTuple

from module.model.accounts import Bill, BillKind, Position
from module.model.errors import InvariantViolated
from module.model.money import ZERO
from module.model.orders import Fill, Side

FactKey = tuple[str, str]
BILL = ""  # where a fill's key has its symbol
_AT, _TRADE_ID = attrgetter("at"), attrgetter("trade_id")
_BUY = Side.BUY  # a plain name: looking it up per fill costs as much as adding two Decimals


class Holding(NamedTuple):
    """One symbol's position and what it earned so far. (A tuple: one is made per booked fill.)

    `size` signed in base asset; `cost` = signed size × average entry price; the rest in quote
    asset, fees and funding negative when paid.
    """

    size: Decimal = ZERO
    cost: Decimal = ZERO
    realized_pnl: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO

    @property
    def entry_price(self) -> Decimal | None:
        """Average price of what is held; None when nothing is."""
        return self.cost / self.size if self.size else None


FLAT = Holding()


@dataclass(frozen=True, slots=True)
class Ledger:
    """What follows from all facts booked so far. Money in `quote_asset`.

    `holdings` has every symbol ever booked, flat ones too. `foreign_fees`: what was paid in assets
    that are neither quote nor base of the symbol, by asset. `seen`: keys of the facts, in
    generations that are merged as they grow, so that one more fact costs no copy of all.
    """

    quote_asset: str = "USDT"
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    wallet: Decimal = ZERO
    transfers: Decimal = ZERO
    realized_pnl: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO
    other: Decimal = ZERO
    foreign_fees: Mapping[str, Decimal] = field(default_factory=dict)
    seen: tuple[frozenset[FactKey], ...] = ()

    @property
    def sizes(self) -> dict[str, Decimal]:
        """Signed size of every symbol that is held."""
        return {symbol: held.size for symbol, held in self.holdings.items() if held.size}

    @property
    def cash(self) -> Decimal:
        """What is left of a spot account's quote asset: wallet − what the coins cost."""
        return self.wallet - sum((held.cost for held in self.holdings.values()), ZERO)

    def unrealized_pnl(self, marks: Mapping[str, Decimal]) -> Decimal:
        """Σ (size × mark − cost) of what is held; every held symbol needs a mark."""
        return sum((held.size * marks[symbol] - held.cost for symbol, held in self._held()), ZERO)

    def equity(self, marks: Mapping[str, Decimal]) -> Decimal:
        """PV: wallet + unrealised PnL, on futures and on spot."""
        return self.wallet + self.unrealized_pnl(marks)

    def _held(self) -> Iterable[tuple[str, Holding]]:
        return ((symbol, held) for symbol, held in self.holdings.items() if held.size)


def opened_with(
    positions: Iterable[Position], wallet: Decimal, quote_asset: str = "USDT"
) -> Ledger:
    """A ledger that starts with what an account holds, at its entry prices (the mark where the
    entry is not known)."""
    holdings = {
        position.symbol: Holding(
            position.size, position.size * (position.entry_price or position.mark_price)
        )
        for position in positions
    }
    return Ledger(quote_asset, holdings, wallet)


def book_fills(ledger: Ledger, fills: Collection[Fill]) -> Ledger:
    """The ledger after `fills`, in order of time; those that it knows already change nothing.

    A fee in the coin that was bought is taken out of what is held, and counted at the fill's price:
    1 BTC at 100 with a fee of 0.001 BTC leaves 0.999 BTC that cost 99.9, and a fee of 0.1.
    InvariantViolated when two fills share a trade id and differ.
    """
    fresh = _fresh(ledger, fills)
    if not fresh:
        return ledger
    holdings = dict(ledger.holdings)
    quote = ledger.quote_asset
    gains = fees = ZERO
    foreign = ledger.foreign_fees
    for fill in sorted(sorted(fresh.values(), key=_TRADE_ID), key=_AT):
        symbol = fill.symbol
        price = fill.price
        size = fill.size if fill.side is _BUY else -fill.size
        fee = fill.fee
        if fill.fee_asset != quote and fee:
            if symbol == fill.fee_asset + quote:
                size += fee
                fee *= price
            else:
                foreign = {**foreign, fill.fee_asset: foreign.get(fill.fee_asset, ZERO) + fee}
                fee = ZERO
        held, cost, realized, paid, funding = holdings.get(symbol, FLAT)
        if not held or (held > ZERO) is (size > ZERO):
            held += size
            cost += size * price
        else:
            held, cost, gain = _reduced(held, cost, size, price)
            gains += gain
            realized += gain
        holdings[symbol] = Holding(held, cost, realized, paid + fee, funding)
        fees += fee
    return Ledger(
        quote,
        holdings,
        ledger.wallet + gains + fees,
        ledger.transfers,
        ledger.realized_pnl + gains,
        ledger.fees + fees,
        ledger.funding,
        ledger.other,
        foreign,
        _remember(ledger.seen, frozenset(fresh)),
    )


def _reduced(
    held: Decimal, cost: Decimal, size: Decimal, price: Decimal
) -> tuple[Decimal, Decimal, Decimal]:
    """(size, cost, realised PnL) after a fill against what is held; the rest of a flip opens."""
    kept = held + size
    if not kept:
        return ZERO, ZERO, held * price - cost
    if (kept > ZERO) is (held > ZERO):
        given_up = cost * size / held  # negative share of the cost
        return kept, cost + given_up, given_up - size * price
    return kept, kept * price, held * price - cost


def book_bills(ledger: Ledger, bills: Collection[Bill]) -> Ledger:
    """The ledger after funding, transfers and other movements of the wallet, each counted once.

    Bills of trades and liquidations are left out: their fills say the same.
    """
    fresh = {
        key: bill
        for bill in bills
        if not _known(ledger.seen, key := (BILL, bill.bill_id))
        and bill.kind not in (BillKind.TRADE, BillKind.LIQUIDATION)
        and bill.asset == ledger.quote_asset
    }
    if not fresh:
        return ledger
    holdings = dict(ledger.holdings)
    funding = transfers = other = fees = ZERO
    for bill in fresh.values():
        fees += bill.fee
        if bill.kind is BillKind.TRANSFER:
            transfers += bill.amount
        elif bill.kind is BillKind.FUNDING:
            funding += bill.amount
            held = holdings.get(bill.symbol, FLAT)
            holdings[bill.symbol] = held._replace(funding=held.funding + bill.amount)
        else:
            other += bill.amount
    return Ledger(
        ledger.quote_asset,
        holdings,
        ledger.wallet + transfers + funding + other + fees,
        ledger.transfers + transfers,
        ledger.realized_pnl,
        ledger.fees + fees,
        ledger.funding + funding,
        ledger.other + other,
        ledger.foreign_fees,
        _remember(ledger.seen, frozenset(fresh)),
    )


def differences(ledger: Ledger, actual: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Signed size per symbol that is really held − what the facts say, where it is not zero."""
    booked = ledger.sizes
    found = {
        symbol: actual.get(symbol, ZERO) - booked.get(symbol, ZERO)
        for symbol in sorted({*booked, *actual})
    }
    return {symbol: size for symbol, size in found.items() if size}


def filled_by_order(fills: Iterable[Fill]) -> dict[str, Decimal]:
    """Order id → executed size, each trade id counted once."""
    once = {(fill.symbol, fill.trade_id): fill for fill in fills}
    sizes: dict[str, Decimal] = {}
    for fill in once.values():
        sizes[fill.order_id] = sizes.get(fill.order_id, ZERO) + fill.size
    return sizes


def overfilled(fills: Iterable[Fill], ordered: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Order id → how much more was executed than ordered (B3: halt). Orders that `ordered` does not
    name are somebody else's."""
    return {
        order_id: size - ordered[order_id]
        for order_id, size in filled_by_order(fills).items()
        if order_id in ordered and size > ordered[order_id]
    }


def _fresh(ledger: Ledger, fills: Collection[Fill]) -> dict[FactKey, Fill]:
    """The fills that are not booked yet, by key."""
    fresh = {(fill.symbol, fill.trade_id): fill for fill in fills}
    if len(fresh) != len(fills):
        for fill in fills:
            if fresh[fill.symbol, fill.trade_id] != fill:
                raise InvariantViolated(
                    f"two fills of {fill.symbol} share the trade id {fill.trade_id} and differ; "
                    "nothing of them is booked"
                )
    for generation in ledger.seen:
        if not generation.isdisjoint(fresh):
            fresh = {key: fill for key, fill in fresh.items() if key not in generation}
    return fresh


def _known(seen: tuple[frozenset[FactKey], ...], key: FactKey) -> bool:
    return any(key in generation for generation in seen)


def _remember(
    seen: tuple[frozenset[FactKey], ...], new: frozenset[FactKey]
) -> tuple[frozenset[FactKey], ...]:
    """`seen` with one more generation; a generation is merged into the next one of its size or
    larger, so that a key is copied about log2 of their number times in its life."""
    generations = list(seen)
    while generations and len(generations[-1]) <= len(new):
        new = generations.pop() | new
    return (*generations, new)
