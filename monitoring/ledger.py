"""Fills, bills and closed positions of one session as rows and running sums. PURE.

Every item counts once, whatever is fetched again: exchanges publish late and answers overlap, so
the ids of the newest part are remembered. Sums go up to a moment: what happened after the snapshot
must not be in the row that the snapshot makes. On spot, what coins cost and which round trips are
over follows from the fills (`monitoring.lots`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from module.model.accounts import Bill, BillKind, ClosedPosition
from module.model.money import ZERO
from module.model.orders import Fill, Side
from module.model.results import (
    NO_TRADES,
    ClosedPositionRow,
    PlannedOrder,
    StoredHistory,
    SymbolTotals,
    TradeSums,
    TransactionRow,
)
from monitoring.lots import CoinTrade, SpotBook
from monitoring.metrics import QUOTE_ASSET, Totals

OVERLAP = timedelta(minutes=10)
"""What is published so far behind the newest item that is known is found at once."""
DEEP_OVERLAP = timedelta(days=1)
"""So far behind it a deep look finds it; every exchange keeps its history for longer."""
_NOTHING = SymbolTotals()
_NO_PLANS: Mapping[str, PlannedOrder] = {}
_NO_PRICES: Mapping[str, Decimal] = {}


@dataclass(frozen=True, slots=True)
class _Change:
    """What one item does to the sums, and when."""

    at: datetime
    symbol: str
    totals: SymbolTotals = _NOTHING
    transfer: Decimal = ZERO
    sums: TradeSums = NO_TRADES


@dataclass(slots=True)
class HistoryLedger:
    """The sums of one session's history. Mutable, owned by one finwatcher.

    `book` is a spot session's; futures have None. What happened after `ends_at` is not the
    session's (the account may have another one by then).
    """

    started_at: datetime
    book: SpotBook | None = None
    ends_at: datetime | None = None
    overlap: timedelta = OVERLAP
    totals: dict[str, SymbolTotals] = field(default_factory=dict)
    net_transfers: Decimal = ZERO
    sums: TradeSums = NO_TRADES
    newest: dict[str, datetime] = field(default_factory=dict)
    _seen: dict[str, datetime] = field(default_factory=dict)
    _later: list[_Change] = field(default_factory=list)
    _trips: list[ClosedPositionRow] = field(default_factory=list)

    @classmethod
    def resume(
        cls,
        started_at: datetime,
        stored: StoredHistory,
        book: SpotBook | None = None,
        overlap: timedelta = OVERLAP,
    ) -> HistoryLedger:
        """The ledger as the stored rows leave it; `book` an empty one for a spot session.

        With a longer `overlap`, for which `stored` must have the ids, it asks from further back
        until `look_near`.
        A round trip whose fills are stored and whose row is not (the process was killed between)
        is over again: `round_trips` has it.
        """
        marks = {
            "fill": stored.fill_at,
            "bill": stored.bill_at,
            "position": stored.position_closed_at,
        }
        newest = {source: at for source, at in marks.items() if at is not None}
        if book is not None:
            book = SpotBook.resume(stored.lots or (), stored.ended)
        ledger = cls(
            started_at,
            book,
            overlap=overlap,
            totals=dict(stored.by_symbol),
            net_transfers=stored.net_transfers,
            sums=stored.sums,
            newest=newest,
        )
        for key in stored.recent:
            ledger._seen[key] = newest.get(key.partition(":")[0], started_at)
        if book is not None and stored.lots is None:
            for row in stored.open_fills:
                ledger._rebook(book, row)
        return ledger

    def stored(self) -> StoredHistory:
        """What `resume` goes on from: all that is booked, as if its rows were stored and summed."""
        totals, transfers, sums = dict(self.totals), self.net_transfers, self.sums
        for change in self._later:
            totals[change.symbol] = _sum(totals.get(change.symbol, _NOTHING), change.totals)
            transfers += change.transfer
            sums += change.sums
        return StoredHistory(
            by_symbol=totals,
            net_transfers=transfers,
            sums=sums,
            fill_at=self.newest.get("fill"),
            bill_at=self.newest.get("bill"),
            position_closed_at=self.newest.get("position"),
            recent=frozenset(self._seen),
            lots=None if self.book is None else self.book.lots,
            ended={} if self.book is None else self.book.ended,
        )

    def look_near(self) -> None:
        """Ask from OVERLAP before the newest items only, from now on."""
        self.overlap = OVERLAP
        for source in self.newest:
            self._forget(source)

    def since(self, source: str) -> datetime:
        """From when on to ask the exchange for `source` (fill, bill or position)."""
        newest = self.newest.get(source)
        return self.started_at if newest is None else max(self.started_at, newest - self.overlap)

    def new_fills(self, fills: Iterable[Fill]) -> list[Fill]:
        """Those that do not count yet, oldest first."""
        new = {
            fill.trade_id: fill for fill in fills if self._is_new("fill", fill.trade_id, fill.at)
        }
        return sorted(new.values(), key=lambda fill: (fill.at, fill.trade_id))

    def new_bills(self, bills: Iterable[Bill]) -> list[Bill]:
        """Those that do not count yet, oldest first."""
        new = {bill.bill_id: bill for bill in bills if self._is_new("bill", bill.bill_id, bill.at)}
        return sorted(new.values(), key=lambda bill: (bill.at, bill.bill_id))

    def book_fills(
        self, fills: Iterable[Fill], plans: Mapping[str, PlannedOrder] = _NO_PLANS
    ) -> tuple[TransactionRow, ...]:
        """Count the fills that are new; their rows. `plans`: by order id, what was decided."""
        rows = []
        for fill in self.new_fills(fills):
            self._remember("fill", fill.trade_id, fill.at)
            realized = fill.realized_pnl
            if self.book is not None:
                realized = self._trade(self.book, _coin_trade(fill))
            row = _fill_row(fill, realized, plans.get(fill.order_id))
            self._later.append(_fill_change(fill, row))
            rows.append(row)
        return tuple(rows)

    def book_bills(
        self, bills: Iterable[Bill], prices: Mapping[str, Decimal] = _NO_PRICES
    ) -> tuple[TransactionRow, ...]:
        """Count the bills that are new; their rows. A trade's profit and fee count by its fill.

        Coins that were sent in or out of a spot account count at their price (`prices`, by symbol).
        """
        rows = []
        for bill in self.new_bills(bills):
            self._remember("bill", bill.bill_id, bill.at)
            price = None
            if self.book is not None and is_coin_transfer(bill):
                symbol = bill.asset + QUOTE_ASSET
                price = prices.get(symbol)
                if price is not None:
                    self.book.receive(symbol, bill.amount + bill.fee, price, bill.at)
            self._later.append(_bill_change(bill, price))
            rows.append(_bill_row(bill, price))
        return tuple(rows)

    def book_positions(self, closed: Iterable[ClosedPosition]) -> tuple[ClosedPositionRow, ...]:
        """Count the closed positions that are new; their rows."""
        new = [
            _position_row(item)
            for item in closed
            if self._is_new("position", item.position_id, item.closed_at)
        ]
        return self._book_closed(new)

    def round_trips(self) -> tuple[ClosedPositionRow, ...]:
        """Count the round trips that the fills booked so far have ended; their rows."""
        ended, self._trips = self._trips, []
        return self._book_closed(ended)

    def totals_at(self, moment: datetime) -> Totals:
        """The sums of everything up to `moment`."""
        due = [change for change in self._later if change.at <= moment]
        self._later = [change for change in self._later if change.at > moment]
        for change in due:
            before = self.totals.get(change.symbol, _NOTHING)
            self.totals[change.symbol] = _sum(before, change.totals)
            self.net_transfers += change.transfer
            self.sums += change.sums
        costs = {} if self.book is None else self.book.costs()
        return Totals(dict(self.totals), self.net_transfers, self.sums, costs)

    def _book_closed(self, rows: Iterable[ClosedPositionRow]) -> tuple[ClosedPositionRow, ...]:
        new = []
        for row in rows:
            if self._is_new("position", row.exchange_id, row.closed_at):
                self._remember("position", row.exchange_id, row.closed_at)
                self._later.append(_Change(row.closed_at, row.symbol, sums=_trade_of(row)))
                new.append(row)
        return tuple(new)

    def _trade(self, book: SpotBook, trade: CoinTrade) -> Decimal:
        realized, ended = book.trade(trade)
        if ended is not None:
            self._trips.append(ended)
        return realized

    def _rebook(self, book: SpotBook, row: TransactionRow) -> None:
        """A stored fill or coin transfer, in the book again. Its sums are counted already."""
        if row.source == "fill":
            if row.price is not None and row.size is not None:
                self._trade(book, _stored_trade(row, row.price, row.size))
        elif row.price is not None:
            book.receive(row.symbol, row.amount + row.fee, row.price, row.at)

    def _is_new(self, source: str, exchange_id: str, at: datetime) -> bool:
        # At the very start: the deposit that opened the account is in the initial balance.
        if at <= self.started_at or (self.ends_at is not None and at > self.ends_at):
            return False
        return f"{source}:{exchange_id}" not in self._seen

    def _remember(self, source: str, exchange_id: str, at: datetime) -> None:
        self._seen[f"{source}:{exchange_id}"] = at
        if at > self.newest.get(source, self.started_at):
            self.newest[source] = at
            self._forget(source)

    def _forget(self, source: str) -> None:
        horizon = self.newest[source] - 2 * self.overlap
        prefix = f"{source}:"
        stale = [key for key, at in self._seen.items() if at < horizon and key.startswith(prefix)]
        for key in stale:
            del self._seen[key]


def is_coin_transfer(bill: Bill) -> bool:
    """Coins that came from outside, or left."""
    return bill.kind is BillKind.TRANSFER and bill.asset != QUOTE_ASSET


def quote_fee(fill: Fill) -> Decimal:
    """The fee in quote asset: one in the coin that was traded counts at its price. One in a third
    coin (the venue's own) counts as nothing: nobody says what it is worth."""
    return _in_quote(fill.fee, fill.fee_asset, fill.symbol, fill.price)


def _in_quote(fee: Decimal, asset: str, symbol: str, price: Decimal) -> Decimal:
    if asset == QUOTE_ASSET:
        return fee
    return fee * price if asset + QUOTE_ASSET == symbol else ZERO


def _sum(one: SymbolTotals, other: SymbolTotals) -> SymbolTotals:
    return SymbolTotals(
        one.realized_pnl + other.realized_pnl, one.fees + other.fees, one.funding + other.funding
    )


def _trade_of(row: ClosedPositionRow) -> TradeSums:
    """One closed position; it is won above zero net profit."""
    if row.net_profit > 0:
        return TradeSums(trades=1, trades_won=1, won=row.net_profit)
    return TradeSums(trades=1, lost=row.net_profit)


def _coin_trade(fill: Fill) -> CoinTrade:
    in_coin = fill.symbol == fill.fee_asset + QUOTE_ASSET
    return CoinTrade(
        fill.trade_id,
        fill.symbol,
        fill.side is Side.BUY,
        fill.size,
        fill.price,
        quote_fee(fill),
        fill.fee if in_coin else ZERO,
        fill.at,
    )


def _stored_trade(row: TransactionRow, price: Decimal, size: Decimal) -> CoinTrade:
    in_coin = row.symbol == row.fee_asset + QUOTE_ASSET
    return CoinTrade(
        row.exchange_id,
        row.symbol,
        row.side == Side.BUY.value,
        size,
        price,
        _in_quote(row.fee, row.fee_asset, row.symbol, price),
        row.fee if in_coin else ZERO,
        row.at,
    )


def _fill_change(fill: Fill, row: TransactionRow) -> _Change:
    notional = fill.price * fill.size  # the venue's own product is rounded
    traded = TradeSums(traded_notional=notional)
    if row.decision_price is not None:
        worse = fill.side.sign * (fill.price - row.decision_price) * fill.size
        traded = TradeSums(
            traded_notional=notional, slippage_cost=worse, slippage_notional=notional
        )
    totals = SymbolTotals(realized_pnl=row.amount, fees=quote_fee(fill))
    return _Change(fill.at, fill.symbol, totals, sums=traded)


def _bill_change(bill: Bill, price: Decimal | None) -> _Change:
    moved = bill.amount + bill.fee
    if bill.asset != QUOTE_ASSET:
        return _Change(bill.at, bill.symbol, transfer=ZERO if price is None else moved * price)
    if bill.kind is BillKind.FUNDING:
        return _Change(bill.at, bill.symbol, SymbolTotals(funding=moved))
    if bill.kind is BillKind.TRANSFER:
        return _Change(bill.at, bill.symbol, transfer=moved)
    return _Change(bill.at, bill.symbol)


def _fill_row(fill: Fill, realized: Decimal, plan: PlannedOrder | None) -> TransactionRow:
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
        amount=realized,
        fee=fill.fee,
        fee_asset=fill.fee_asset,
        balance=None,
        is_taker=fill.is_taker,
        at=fill.at,
        client_id=None if plan is None else plan.client_id,
        decision_price=None if plan is None else plan.decision_price,
    )


def _bill_row(bill: Bill, price: Decimal | None) -> TransactionRow:
    return TransactionRow(
        source="bill",
        exchange_id=bill.bill_id,
        kind=bill.kind.value,
        venue_kind=bill.venue_kind,
        order_id=None,
        symbol=bill.symbol if price is None else bill.asset + QUOTE_ASSET,
        side=None,
        price=price,
        size=None,
        quote_size=None if price is None else (bill.amount + bill.fee) * price,
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
