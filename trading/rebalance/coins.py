"""Which coins of a spot account are a session's, and what they have cost it. PURE.

    ledger of the session's fills ─┬─► own_coins(positions) ─► the book's positions
    coins that it names or adopts ─┘            └─► taken_over: the ledger to go on from

A spot account has no positions of its own: a coin is a session's when the session has bought,
adopted or named it. Others in the same wallet are left alone, whatever the mode.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from module.model.accounts import MarginMode, Position, SpotBalance
from module.model.money import ZERO
from module.model.orders import NO_STOPS
from trading.ledger.ledger import Holding, Ledger

QUOTE = "USDT"
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def own_coins(
    positions: Iterable[Position], ledger: Ledger, adopted: Container[str]
) -> tuple[Position, ...]:
    """Those that `ledger` has something of, entered at their average cost, and `adopted` ones,
    entered at the price now. What is neither is somebody else's and left out.

    Sizes stay the exchange's: an answer that lacks a fill must not make a coin look unbought.
    """
    own: list[Position] = []
    for position in positions:
        known = ledger.holdings.get(position.symbol)
        if known is not None and known.size > 0 and known.entry_price is not None:
            own.append(replace(position, entry_price=known.entry_price))
        elif position.symbol in adopted:
            own.append(position)
    return tuple(own)


def unpriced_coins(
    balances: Iterable[SpotBalance], positions: Iterable[Position], ledger: Ledger
) -> tuple[Position, ...]:
    """Own coins that lie in the wallet but have no price (their pair was delisted, or the prices
    were read without it): worth nothing and not to be sold, but there."""
    priced = {position.symbol for position in positions}
    found: list[Position] = []
    for balance in balances:
        symbol, size = balance.asset + QUOTE, balance.free + balance.locked
        known = ledger.holdings.get(symbol)
        if size <= 0 or symbol in priced or known is None or known.entry_price is None:
            continue
        if known.size > 0:
            found.append(_unpriced(symbol, size, known.entry_price))
    return tuple(found)


def _unpriced(symbol: str, size: Decimal, entry_price: Decimal) -> Position:
    return Position(
        symbol=symbol,
        size=size,
        entry_price=entry_price,
        mark_price=ZERO,
        margin_size=ZERO,
        unrealized_pnl=ZERO,
        realized_pnl=ZERO,
        fees=ZERO,
        funding=ZERO,
        leverage=Decimal(1),
        margin_mode=MarginMode.CROSSED,
        liquidation_price=None,
        stops=NO_STOPS,
        opened_at=_UNKNOWN_TIME,
        locked=size,
    )


def taken_over(ledger: Ledger, own: Iterable[Position]) -> Ledger:
    """`ledger` with the sizes that the exchange has, at the cost that is known; what has been sold
    completely is forgotten."""
    holdings = {symbol: held for symbol, held in ledger.holdings.items() if held.size > 0}
    for position in own:
        holdings[position.symbol] = Holding(position.size, position.size * position.entry_price)
    return replace(ledger, holdings=holdings)
