"""Minute rows, history and gaps in memory; see `module.db.repositories.results`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from module.model.market import MarketType
from module.model.money import ZERO
from module.model.results import (
    ClosedPositionRow,
    CurvePoint,
    GapCause,
    GapRow,
    HistoryRows,
    MinuteRows,
    StoredAdditions,
    StoredHistory,
    StoredMinute,
    SymbolTotals,
    TradeSums,
    TransactionRow,
    WatchedSession,
)
from tests.simulation.memory_postgres.server import Connection, Transaction
from tests.simulation.memory_postgres.session_rows import SessionRows

QUOTE_ASSET = "USDT"
MinuteKey = tuple[str, datetime]


@dataclass(slots=True)
class ResultTables:
    """The rows by their keys. `minutes` holds portfolio rows with their parts."""

    minutes: SessionRows[MinuteKey, MinuteRows] = field(default_factory=SessionRows)
    gaps: SessionRows[MinuteKey, GapRow] = field(default_factory=SessionRows)
    states: dict[str, tuple[datetime, Mapping[str, object]]] = field(default_factory=dict)
    transactions: SessionRows[tuple[str, str, str], TransactionRow] = field(
        default_factory=SessionRows
    )
    positions: SessionRows[tuple[str, str], ClosedPositionRow] = field(default_factory=SessionRows)


class MemoryResults:
    """`ResultsRepository` as the finwatcher uses it."""

    def __init__(self, connection: Connection, tables: ResultTables) -> None:
        self._connection = connection
        self._tables = tables

    def store_minute(
        self, rows: MinuteRows, state: Mapping[str, object] | None = None
    ) -> StoredMinute:
        """Write a minute's rows in one transaction; another writer's minute stays as it is."""
        tables, key = self._tables, (rows.session_id, rows.minute)

        def work(transaction: Transaction) -> StoredMinute:
            known = tables.minutes.get(key)
            owns = False
            if rows.portfolio is not None:
                if known is not None and known.portfolio is not None:
                    owns = known.writer == rows.writer
                    if not owns:
                        return StoredMinute(False, {})
                owns = True
                transaction.remove(tables.gaps, key)
            transaction.put(tables.minutes, key, _merged(known, rows, owns=owns))
            if rows.indicators is not None and state is not None:
                before = tables.states.get(rows.session_id)
                if before is None or before[0] <= rows.minute:
                    transaction.put(tables.states, rows.session_id, (rows.minute, dict(state)))
            return StoredMinute(True, {})

        return self._connection.run_idempotent(work)

    def store_minutes(
        self, batch: Sequence[tuple[MinuteRows, Mapping[str, object] | None]]
    ) -> list[StoredMinute]:
        """`store_minute`, one after the other."""
        return [self.store_minute(rows, state) for rows, state in batch]

    def store_histories(self, batch: Sequence[HistoryRows]) -> list[StoredAdditions]:
        """`store_history`, one after the other."""
        return [StoredAdditions(self.store_history(rows)) for rows in batch]

    def store_history(self, rows: HistoryRows) -> int:
        """Add historical rows that are not there yet; how many were new."""
        tables = self._tables

        def work(transaction: Transaction) -> int:
            new = 0
            for row in rows.transactions:
                key = (rows.session_id, row.source, row.exchange_id)
                if key not in tables.transactions:
                    transaction.put(tables.transactions, key, row)
                    new += 1
            for closed in rows.positions:
                place = (rows.session_id, closed.exchange_id)
                if place not in tables.positions:
                    transaction.put(tables.positions, place, closed)
                    new += 1
            return new

        return self._connection.run_idempotent(work)

    def store_gaps(self, session: WatchedSession, gaps: Sequence[GapRow]) -> int:
        """Record gaps for minutes that have neither row nor gap; how many were new."""
        if not gaps:
            return 0
        tables = self._tables

        def work(transaction: Transaction) -> int:
            new = 0
            for gap in gaps:
                key = (gap.session_id, gap.minute)
                row = tables.minutes.get((session.session_id, gap.minute))
                known = tables.gaps.get(key)
                better = known is None or (
                    known.cause is GapCause.NOT_RUNNING and gap.cause is not known.cause
                )
                if (row is None or row.portfolio is None) and better:
                    transaction.put(tables.gaps, key, gap)
                    new += 1
            return new

        return self._connection.run_idempotent(work)

    def last_minute(self, session: WatchedSession) -> datetime | None:
        """The last minute with a portfolio row or a recorded gap."""
        self._connection.read()
        ends = [
            minute
            for (_, minute), rows in self._tables.minutes.of(session.session_id)
            if rows.portfolio is not None
        ]
        ends += [minute for (_, minute), _ in self._tables.gaps.of(session.session_id)]
        return max(ends, default=None)

    def kept_minutes(
        self, session: WatchedSession, first: datetime, last: datetime
    ) -> set[datetime]:
        """The minutes of [first, last] with a portfolio row or a recorded gap."""
        self._connection.read()
        kept: set[datetime] = set()
        minute = first
        while minute <= last:
            key = (session.session_id, minute)
            rows = self._tables.minutes.get(key)
            if key in self._tables.gaps or (rows is not None and rows.portfolio is not None):
                kept.add(minute)
            minute += timedelta(minutes=1)
        return kept

    def indicator_state(self, session: WatchedSession) -> Mapping[str, object] | None:
        """The running indicator state as last stored."""
        self._connection.read()
        known = self._tables.states.get(session.session_id)
        return None if known is None else known[1]

    def curve(self, session: WatchedSession, after: datetime | None) -> Sequence[CurvePoint]:
        """The stored curve after a minute (None: all of it), oldest first."""
        self._connection.read()
        points: list[CurvePoint] = []
        for (_, minute), rows in self._tables.minutes.of(session.session_id):
            row = rows.portfolio
            if row is None or (after and minute <= after):
                continue
            points.append(
                CurvePoint(minute, row.current_pv, row.net_transfers, row.initial_balance)
            )
        return sorted(points, key=lambda point: point.minute)

    def trade_sums_at(
        self, session: WatchedSession, moments: Sequence[datetime]
    ) -> list[TradeSums]:
        """What the stored trades and fills up to each of these moments add up to."""
        self._connection.read()
        mine = [row for _, row in self._tables.transactions.of(session.session_id)]
        closed = [row for _, row in self._tables.positions.of(session.session_id)]
        return [
            _trade_sums(
                [row for row in mine if row.at <= moment],
                [row for row in closed if row.closed_at <= moment],
            )
            for moment in moments
        ]

    def history(self, session: WatchedSession, overlap: timedelta) -> StoredHistory:
        """The stored history's sums, newest times, and the ids within twice `overlap` of them."""
        self._connection.read()
        mine = [row for _, row in self._tables.transactions.of(session.session_id)]
        closed = [row for _, row in self._tables.positions.of(session.session_id)]
        newest = {
            source: max((row.at for row in mine if row.source == source), default=None)
            for source in ("fill", "bill")
        }
        closed_at = max((row.closed_at for row in closed), default=None)
        recent: set[str] = set()
        for row in mine:
            last = newest[row.source]
            if last is not None and row.at >= last - 2 * overlap:
                recent.add(f"{row.source}:{row.exchange_id}")
        for item in closed:
            if closed_at is not None and item.closed_at >= closed_at - 2 * overlap:
                recent.add(f"position:{item.exchange_id}")
        return StoredHistory(
            by_symbol=_totals(mine),
            net_transfers=sum((_moved(row) for row in mine), ZERO),
            sums=_trade_sums(mine, closed),
            fill_at=newest["fill"],
            bill_at=newest["bill"],
            position_closed_at=closed_at,
            recent=frozenset(recent),
            open_fills=_open_fills(mine, closed) if session.market is MarketType.SPOT else (),
            ended=_last_closed(closed) if session.market is MarketType.SPOT else {},
        )


def _merged(known: MinuteRows | None, rows: MinuteRows, *, owns: bool) -> MinuteRows:
    """Parts that are there stay unless the minute's own writer writes them again."""
    if known is None:
        return rows
    writer = rows.writer if owns else known.writer
    portfolio = rows.portfolio if rows.portfolio is not None else known.portfolio
    symbols, indicators = known.symbols, known.indicators
    if rows.symbols is not None and (owns or symbols is None):
        symbols = rows.symbols
    elif rows.symbols is not None and symbols is not None:
        names = {row.symbol for row in symbols}
        symbols = (*symbols, *(row for row in rows.symbols if row.symbol not in names))
    if rows.indicators is not None and (owns or indicators is None):
        indicators = rows.indicators
    return dataclasses.replace(
        known, writer=writer, portfolio=portfolio, symbols=symbols, indicators=indicators
    )


def _is_bill(row: TransactionRow, kind: str) -> bool:
    return row.source == "bill" and row.kind == kind and row.asset == QUOTE_ASSET


def _moved(row: TransactionRow) -> Decimal:
    """What came from outside (negative: went out), in quote asset."""
    if row.source != "bill" or row.kind != "transfer":
        return ZERO
    return row.amount + row.fee if row.asset == QUOTE_ASSET else row.quote_size or ZERO


def _trade_sums(rows: Sequence[TransactionRow], closed: Sequence[ClosedPositionRow]) -> TradeSums:
    won = [row.net_profit for row in closed if row.net_profit > 0]
    lost = [row.net_profit for row in closed if row.net_profit <= 0]
    traded = cost = notional = ZERO
    for row in rows:
        if row.source != "fill" or row.price is None or row.size is None:
            continue
        traded += row.price * row.size
        if row.decision_price is None:
            continue
        sign = 1 if row.side == "buy" else -1
        cost += sign * (row.price - row.decision_price) * row.size
        notional += row.price * row.size
    return TradeSums(len(closed), len(won), sum(won, ZERO), sum(lost, ZERO), traded, cost, notional)


def _last_closed(closed: Sequence[ClosedPositionRow]) -> dict[str, datetime]:
    ends: dict[str, datetime] = {}
    for item in closed:
        ends[item.symbol] = max(item.closed_at, ends.get(item.symbol, item.closed_at))
    return ends


def _open_fills(
    rows: Sequence[TransactionRow], closed: Sequence[ClosedPositionRow]
) -> tuple[TransactionRow, ...]:
    ends = _last_closed(closed)
    items = [
        row
        for row in rows
        if (row.source == "fill" or (row.kind == "transfer" and row.asset != QUOTE_ASSET))
        and (row.symbol not in ends or row.at > ends[row.symbol])
    ]
    return tuple(sorted(items, key=lambda row: (row.at, row.exchange_id)))


def _totals(rows: Sequence[TransactionRow]) -> dict[str, SymbolTotals]:
    sums: dict[str, list[Decimal]] = {}
    for row in rows:
        is_fill = row.source == "fill"
        if not is_fill and not _is_bill(row, "funding"):
            continue
        part = sums.setdefault(row.symbol, [ZERO, ZERO, ZERO])
        if not is_fill:
            part[2] += row.amount + row.fee
            continue
        part[0] += row.amount
        if row.fee_asset == QUOTE_ASSET:
            part[1] += row.fee
        elif row.price is not None and row.fee_asset + QUOTE_ASSET == row.symbol:
            part[1] += row.fee * row.price
    return {symbol: SymbolTotals(*values) for symbol, values in sums.items()}
