"""What the coins of a spot account have cost, from its fills alone. PURE.

    ledger: fills, coin transfers, in order ─► SpotBook ─► average cost, realised PnL, round trips

An exchange does not know what a coin has cost, and spot has no closed positions. A round trip
begins with the first coins bought (or sent in, at their price then) and is over when a sale leaves
less than DUST_QUOTE of them; that rest is forgotten. Coins that were there before the session have
no known cost: selling them realises nothing, here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from module.model.money import ZERO
from module.model.results import ClosedPositionRow, OpenLot

DUST_QUOTE = Decimal(1)
"""A rest worth less than this, in quote asset, is no position: no venue would sell it."""


@dataclass(frozen=True, slots=True)
class LotCost:
    """Coins whose cost is known: `size` of them cost `average` each, fees not counted."""

    size: Decimal
    average: Decimal


@dataclass(frozen=True, slots=True)
class CoinTrade:
    """One fill as the book wants it. `fee` in quote asset, `coin_fee` in the coin; both negative
    when paid, one of them states the other's money again."""

    trade_id: str
    symbol: str
    is_buy: bool
    size: Decimal
    price: Decimal
    fee: Decimal
    coin_fee: Decimal
    at: datetime


@dataclass(slots=True)
class SpotBook:
    """The lots of one session. Mutable, owned by its ledger."""

    _lots: dict[str, OpenLot] = field(default_factory=dict)
    _closed_at: dict[str, datetime] = field(default_factory=dict)

    @classmethod
    def resume(cls, lots: Iterable[OpenLot], ended: Mapping[str, datetime]) -> SpotBook:
        """The book with these trips running; `ended`: when each symbol's last one was over."""
        return cls({lot.symbol: lot for lot in lots}, dict(ended))

    @property
    def lots(self) -> tuple[OpenLot, ...]:
        """The running round trips, by symbol."""
        return tuple(self._lots[symbol] for symbol in sorted(self._lots))

    @property
    def ended(self) -> dict[str, datetime]:
        """By symbol, when its last round trip was over."""
        return dict(self._closed_at)

    def costs(self) -> dict[str, LotCost]:
        """What is held of each symbol, and what it cost on average."""
        return {
            symbol: LotCost(lot.size, lot.cost / lot.size)
            for symbol, lot in self._lots.items()
            if lot.size > 0
        }

    def receive(self, symbol: str, size: Decimal, price: Decimal, at: datetime) -> None:
        """Coins that came from outside at their price then (negative: that left, at their cost)."""
        if self._is_over(symbol, at):
            return
        lot = self._lots.get(symbol) or OpenLot(symbol, at)
        if size > 0:
            self._lots[symbol] = replace(lot, size=lot.size + size, cost=lot.cost + size * price)
        elif lot.size > 0:
            left = max(lot.size + size, ZERO)
            self._keep(symbol, replace(lot, size=left, cost=lot.cost * left / lot.size), price)

    def trade(self, trade: CoinTrade) -> tuple[Decimal, ClosedPositionRow | None]:
        """What it realised (without fees), and the round trip that it ended.

        Bought 1 at 100 for a fee of 0.001 coins, sold 0.999 at 110 for 0.1 USDT: realised 9.99,
        fees −0.1 and −0.1, net 9.79.
        """
        symbol = trade.symbol
        if self._is_over(symbol, trade.at):
            return ZERO, None
        lot = self._lots.get(symbol)
        if trade.is_buy:
            lot = lot or OpenLot(symbol, trade.at)
            got = trade.size + trade.coin_fee
            self._lots[symbol] = replace(
                lot,
                size=lot.size + got,
                cost=lot.cost + got * trade.price,
                open_fee=lot.open_fee + trade.fee,
            )
            return ZERO, None
        if lot is None or lot.size <= 0:
            return ZERO, None
        size = min(trade.size, lot.size)
        cost = lot.cost * size / lot.size
        after = replace(
            lot,
            size=lot.size - size,
            cost=lot.cost - cost,
            close_fee=lot.close_fee + trade.fee * size / trade.size,
            sold=lot.sold + size,
            sold_cost=lot.sold_cost + cost,
            proceeds=lot.proceeds + size * trade.price,
        )
        if not self._keep(symbol, after, trade.price):
            self._closed_at[symbol] = trade.at
            return size * trade.price - cost, _row(trade, after)
        return size * trade.price - cost, None

    def _keep(self, symbol: str, lot: OpenLot, price: Decimal) -> bool:
        """Go on with the lot, unless dust is all that is left."""
        if lot.size * price >= DUST_QUOTE:
            self._lots[symbol] = lot
            return True
        self._lots.pop(symbol, None)
        return False

    def _is_over(self, symbol: str, at: datetime) -> bool:
        """It was published late and belongs to a round trip that is told already."""
        closed_at = self._closed_at.get(symbol)
        return closed_at is not None and at <= closed_at


def _row(last: CoinTrade, lot: OpenLot) -> ClosedPositionRow:
    gross = lot.proceeds - lot.sold_cost
    return ClosedPositionRow(
        exchange_id=last.trade_id,
        symbol=last.symbol,
        side="long",
        entry_price=lot.sold_cost / lot.sold,
        close_price=lot.proceeds / lot.sold,
        size=lot.sold,
        gross_pnl=gross,
        funding=ZERO,
        open_fee=lot.open_fee,
        close_fee=lot.close_fee,
        net_profit=gross + lot.open_fee + lot.close_fee,
        opened_at=lot.opened_at,
        closed_at=last.at,
    )
