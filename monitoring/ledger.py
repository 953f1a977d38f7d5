"""Fills, bills and closed positions of one session as rows and running sums. PURE.

Every item counts once, whatever is fetched again: exchanges publish late and answers overlap, so
the ids of the newest part are remembered. Sums go up to a moment: what happened after the snapshot
must not be in the row that the snapshot makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from module.model.accounts import Bill, BillKind, ClosedPosition
from module.model.money import ZERO
from module.model.orders import Fill
from module.model.results import ClosedPositionRow, StoredHistory, SymbolTotals, TransactionRow
from monitoring.metrics import QUOTE_ASSET, Totals

OVERLAP = timedelta(minutes=10)
_NOTHING = SymbolTotals()
Item = TypeVar("Item", Fill, Bill)


@dataclass(frozen=True, slots=True)
class _Change:
    """What one item does to the sums, and when."""

    at: datetime
    symbol: str
    totals: SymbolTotals = _NOTHING
    transfer: Decimal = ZERO


@dataclass(slots=True)
class HistoryLedger:
    """The sums of one session's history. Mutable, owned by one finwatcher."""

    started_at: datetime
    totals: dict[str, SymbolTotals] = field(default_factory=dict)
    net_transfers: Decimal = ZERO
    trades: int = 0
    trades_won: int = 0
    newest: dict[str, datetime] = field(default_factory=dict)
    _seen: dict[str, datetime] = field(default_factory=dict)
    _later: list[_Change] = field(default_factory=list)

    @classmethod
    def resume(cls, started_at: datetime, stored: StoredHistory) -> HistoryLedger:
        """The ledger as the stored rows leave it."""
        marks = {
            "fill": stored.fill_at,
            "bill": stored.bill_at,
            "position": stored.position_closed_at,
        }
        newest = {source: at for source, at in marks.items() if at is not None}
        ledger = cls(
            started_at,
            dict(stored.by_symbol),
            stored.net_transfers,
            stored.trades,
            stored.trades_won,
            newest,
        )
        for key in stored.recent:
            ledger._seen[key] = newest.get(key.partition(":")[0], started_at)
        return ledger

    def since(self, source: str) -> datetime:
        """From when on to ask the exchange for `source` (fill, bill or position)."""
        newest = self.newest.get(source)
        return self.started_at if newest is None else max(self.started_at, newest - OVERLAP)

    def book_fills(self, fills: Iterable[Fill]) -> tuple[TransactionRow, ...]:
        """Count the fills that are new; their rows."""
        return tuple(self._book(fills, _fill_row, _fill_change))

    def book_bills(self, bills: Iterable[Bill]) -> tuple[TransactionRow, ...]:
        """Count the bills that are new; their rows. A trade's profit and fee count by its fill."""
        return tuple(self._book(bills, _bill_row, _bill_change))

    def book_positions(self, closed: Iterable[ClosedPosition]) -> tuple[ClosedPositionRow, ...]:
        """Count the closed positions that are new; their rows."""
        rows = []
        for item in closed:
            if not self._is_new("position", item.position_id, item.closed_at):
                continue
            self.trades += 1
            self.trades_won += item.net_profit > 0
            rows.append(_position_row(item))
        return tuple(rows)

    def totals_at(self, moment: datetime) -> Totals:
        """The sums of everything up to `moment`."""
        due = [change for change in self._later if change.at <= moment]
        self._later = [change for change in self._later if change.at > moment]
        for change in due:
            before = self.totals.get(change.symbol, _NOTHING)
            self.totals[change.symbol] = _sum(before, change.totals)
            self.net_transfers += change.transfer
        return Totals(dict(self.totals), self.net_transfers, self.trades, self.trades_won)

    def _book(
        self,
        items: Iterable[Item],
        spell: Callable[[Item], TransactionRow],
        measure: Callable[[Item], _Change],
    ) -> Iterable[TransactionRow]:
        for item in items:
            row = spell(item)
            if self._is_new(row.source, row.exchange_id, row.at):
                self._later.append(measure(item))
                yield row

    def _is_new(self, source: str, exchange_id: str, at: datetime) -> bool:
        key = f"{source}:{exchange_id}"
        # At the very start: the deposit that opened the account is in the initial balance.
        if at <= self.started_at or key in self._seen:
            return False
        self._seen[key] = at
        if at > self.newest.get(source, self.started_at):
            self.newest[source] = at
            self._forget(source)
        return True

    def _forget(self, source: str) -> None:
        horizon = self.newest[source] - 2 * OVERLAP
        prefix = f"{source}:"
        stale = [key for key, at in self._seen.items() if at < horizon and key.startswith(prefix)]
        for key in stale:
            del self._seen[key]


def _sum(one: SymbolTotals, other: SymbolTotals) -> SymbolTotals:
    return SymbolTotals(
        one.realized_pnl + other.realized_pnl, one.fees + other.fees, one.funding + other.funding
    )


def _fill_change(fill: Fill) -> _Change:
    return _Change(
        fill.at, fill.symbol, SymbolTotals(realized_pnl=fill.realized_pnl, fees=quote_fee(fill))
    )


def quote_fee(fill: Fill) -> Decimal:
    """The fee in quote asset: a fee taken in the coin that was bought counts at its price."""
    return fill.fee if fill.fee_asset == QUOTE_ASSET else fill.fee * fill.price


def _bill_change(bill: Bill) -> _Change:
    if bill.asset != QUOTE_ASSET:
        return _Change(bill.at, bill.symbol)
    if bill.kind is BillKind.FUNDING:
        return _Change(bill.at, bill.symbol, SymbolTotals(funding=bill.amount + bill.fee))
    if bill.kind is BillKind.TRANSFER:
        return _Change(bill.at, bill.symbol, transfer=bill.amount + bill.fee)
    return _Change(bill.at, bill.symbol)


def _fill_row(fill: Fill) -> TransactionRow:
    return TransactionRow(
        source="fill",
        exchange_id=fill.trade_id,
        kind=BillKind.TRADE.value,
        venue_kind="",
        order_id=fill.order_id,
        symbol=fill.symbol,
        side=fill.side.value,
        price=fill.price,
        size=fill.size,
        quote_size=fill.quote_size,
        asset=QUOTE_ASSET,
        amount=fill.realized_pnl,
        fee=fill.fee,
        fee_asset=fill.fee_asset,
        balance=None,
        is_taker=fill.is_taker,
        at=fill.at,
    )


def _bill_row(bill: Bill) -> TransactionRow:
    return TransactionRow(
        source="bill",
        exchange_id=bill.bill_id,
        kind=bill.kind.value,
        venue_kind=bill.venue_kind,
        order_id=None,
        symbol=bill.symbol,
        side=None,
        price=None,
        size=None,
        quote_size=None,
        asset=bill.asset,
        amount=bill.amount,
        fee=bill.fee,
        fee_asset=bill.asset,
        balance=bill.balance,
        is_taker=None,
        at=bill.at,
    )


def _position_row(item: ClosedPosition) -> ClosedPositionRow:
    return ClosedPositionRow(
        exchange_id=item.position_id,
        symbol=item.symbol,
        side="long" if item.is_long else "short",
        entry_price=item.entry_price,
        close_price=item.close_price,
        size=item.size,
        gross_pnl=item.gross_pnl,
        funding=item.funding,
        open_fee=item.open_fee,
        close_fee=item.close_fee,
        net_profit=item.net_profit,
        opened_at=item.opened_at,
        closed_at=item.closed_at,
    )
