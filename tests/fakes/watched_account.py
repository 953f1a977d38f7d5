"""An account that a finwatcher looks at: exchange, results store, sessions and alerts in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from module.model.accounts import (
    AccountSnapshot,
    Bill,
    BillKind,
    ClosedPosition,
    MarginMode,
    Position,
    PositionMode,
    SpotBalance,
    SymbolSettings,
)
from module.model.errors import AifapError, NotFound, Unavailable
from module.model.market import Instrument, MarketType, Quote
from module.model.orders import (
    Fill,
    MissingOrder,
    OrderReport,
    OrderRequest,
    OrderTrace,
    Side,
    StopPrices,
    SubmitResult,
    WriteStamp,
)
from module.model.results import (
    CurvePoint,
    GapRow,
    HistoryRows,
    MinuteRows,
    PlannedOrder,
    StoredAdditions,
    StoredHistory,
    StoredMinute,
    SymbolTotals,
    TradeSums,
    TransactionRow,
    WatchedSession,
)
from module.ports import Alert, Clock

START = datetime(2026, 3, 3, 9, 17, 41, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SESSION_ID = "2603030917-ab3x"


def minute(number: int) -> datetime:
    """Minute `number` of the session; 0 is its first second 0."""
    return START.replace(second=0) + (number + 1) * MINUTE


def money(text: str) -> Decimal:
    """A Decimal."""
    return Decimal(text)


def session(**changes: object) -> WatchedSession:
    """The session that is watched in these tests."""
    made = WatchedSession(
        session_id=SESSION_ID,
        owner_id="7c1e6a52-owner",
        account_id="5b0f77c1-account",
        market=MarketType.FUTURES,
        strategy_name="momentum",
        started_at=START,
        leverage=Decimal(2),
        allocated=None,
        compounding=False,
        initial_balance=Decimal(10_000),
        is_over=False,
        ended_at=None,
        targets=(("BTCUSDT", Decimal("0.3")),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def position(
    symbol: str = "BTCUSDT",
    size: str = "0.05",
    mark: str = "62000",
    margin: str = "1550",
    pnl: str = "50",
    stop_loss: str | None = "58000",
) -> Position:
    """An open position at 2x."""
    return Position(
        symbol=symbol,
        size=Decimal(size),
        entry_price=Decimal(61_000),
        mark_price=Decimal(mark),
        margin_size=Decimal(margin),
        unrealized_pnl=Decimal(pnl),
        realized_pnl=Decimal(0),
        fees=Decimal(0),
        funding=Decimal(0),
        leverage=Decimal(2),
        margin_mode=MarginMode.CROSSED,
        liquidation_price=None,
        stops=StopPrices(stop_loss=None if stop_loss is None else Decimal(stop_loss)),
        opened_at=START,
    )


def fill(number: int, at: datetime, *, pnl: str = "0", fee: str = "-1.5") -> Fill:
    """One execution in BTCUSDT."""
    return Fill(
        trade_id=f"trade-{number}",
        order_id=f"order-{number}",
        symbol="BTCUSDT",
        side=Side.BUY,
        price=Decimal(61_000),
        size=Decimal("0.05"),
        quote_size=Decimal(3050),
        fee=Decimal(fee),
        fee_asset="USDT",
        realized_pnl=Decimal(pnl),
        is_taker=True,
        at=at,
    )


def bill(number: int, at: datetime, kind: BillKind, amount: str, asset: str = "USDT") -> Bill:
    """One movement of the wallet."""
    return Bill(
        bill_id=f"bill-{number}",
        kind=kind,
        venue_kind=kind.value,
        symbol="BTCUSDT" if kind is BillKind.FUNDING else "",
        asset=asset,
        amount=Decimal(amount),
        fee=Decimal(0),
        balance=Decimal(0),
        at=at,
    )


def closed(number: int, at: datetime, net_profit: str) -> ClosedPosition:
    """A position that ended."""
    return ClosedPosition(
        position_id=f"position-{number}",
        symbol="BTCUSDT",
        is_long=True,
        entry_price=Decimal(60_000),
        close_price=Decimal(61_000),
        size=Decimal("0.05"),
        gross_pnl=Decimal(net_profit),
        funding=Decimal(0),
        open_fee=Decimal(0),
        close_fee=Decimal(0),
        net_profit=Decimal(net_profit),
        opened_at=START,
        closed_at=at,
    )


class WatchClock:
    """World time moved by hand; a wait ends at its time unless `interrupt_at` comes first."""

    def __init__(self, now: datetime) -> None:
        self.time = now
        self.interrupt_at: datetime | None = None
        self.on_wait: Callable[[datetime], None] = lambda _until: None
        self.on_pause: Callable[[], object] = lambda: None

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def wall(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def sleep_until(self, when: datetime) -> None:
        self.time = max(self.time, when)

    def pause(self, seconds: float) -> None:
        self.on_pause()

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        assert until is not None
        self.on_wait(until)
        if self.interrupt_at is not None and self.interrupt_at < until:
            self.sleep_until(self.interrupt_at)
            return [fds[0]]
        self.sleep_until(until)
        return []

    def wake(self, participant: str) -> None:
        pass


@dataclass
class AccountExchange:
    """An account whose numbers a test sets. `slow_s` passes in every snapshot; `down` raises."""

    clock: Clock
    wallet: Decimal = Decimal(10_000)
    positions: tuple[Position, ...] = ()
    all_fills: list[Fill] = field(default_factory=list)
    all_bills: list[Bill] = field(default_factory=list)
    all_closed: list[ClosedPosition] = field(default_factory=list)
    slow_s: float = 0.0
    down: AifapError | None = None
    history_down: Exception | None = None
    balances: tuple[SpotBalance, ...] = ()
    marks: dict[str, Decimal] = field(default_factory=dict)
    asked_since: list[datetime] = field(default_factory=list)

    def snapshot(self) -> AccountSnapshot:
        if self.down is not None:
            raise self.down
        at = self.clock.now()
        self.clock.sleep(self.slow_s)
        pnl = sum((item.unrealized_pnl for item in self.positions), Decimal(0))
        margin = sum((item.margin_size for item in self.positions), Decimal(0))
        return AccountSnapshot(
            account_id="5b0f77c1-account",
            at=at,
            wallet_balance=self.wallet,
            unrealized_pnl=pnl,
            equity=self.wallet + pnl,
            available=self.wallet - margin,
            margin_used=margin,
            position_mode=PositionMode.ONE_WAY,
            positions=self.positions,
            open_orders=(),
            balances=self.balances,
        )

    def fills(self, since: datetime) -> Sequence[Fill]:
        if self.history_down is not None:
            raise self.history_down
        self.asked_since.append(since)
        return [item for item in self.all_fills if item.at >= since]

    def bills(self, since: datetime) -> Sequence[Bill]:
        return [item for item in self.all_bills if item.at >= since]

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        return [item for item in self.all_closed if item.closed_at >= since]

    def instruments(self) -> Mapping[str, Instrument]:
        one = Decimal(1)
        return {
            symbol: Instrument(
                symbol, symbol[:-4], "USDT", MarketType.SPOT, one, one, one, one, one, one, one, one
            )
            for symbol in self.marks
        }

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        at = self.clock.now()
        return {
            symbol: Quote(symbol, price, price, price, price, at)
            for symbol, price in self.marks.items()
            if symbol in symbols
        }

    def symbol_settings(self, symbols: Sequence[str]) -> Mapping[str, SymbolSettings]:
        raise NotImplementedError

    def apply_symbol_settings(
        self, stamp: WriteStamp, symbol: str, leverage: Decimal, margin_mode: MarginMode
    ) -> SymbolSettings:
        raise NotImplementedError

    def submit(self, stamp: WriteStamp, orders: Sequence[OrderRequest]) -> list[SubmitResult]:
        raise NotImplementedError

    def order(self, symbol: str, client_id: str) -> OrderReport:
        raise NotImplementedError

    def rule_out(self, stamp: WriteStamp, missing: MissingOrder) -> OrderTrace:
        raise NotImplementedError

    def cancel(self, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        raise NotImplementedError

    def set_stops(self, stamp: WriteStamp, symbol: str, stops: StopPrices) -> StopPrices:
        raise NotImplementedError


@dataclass
class MemorySessions:
    """One session in a registry that can be away."""

    current: WatchedSession | None
    away: bool = False
    planned: dict[str, PlannedOrder] = field(default_factory=dict)
    bare_s: float | None = None

    def watched(self, session_id: str) -> WatchedSession:
        if self.away:
            raise Unavailable("database finplatform does not answer")
        if self.current is None:
            raise NotFound(f"there is no session {session_id}")
        return self.current

    def active(self) -> Sequence[str]:
        return [] if self.current is None else [self.current.session_id]

    def planned_orders(
        self, session: WatchedSession, since: datetime, until: datetime
    ) -> Mapping[str, PlannedOrder]:
        if self.away:
            raise Unavailable("database finplatform does not answer")
        return self.planned

    def unprotected_s(self, session: WatchedSession, until: datetime) -> float | None:
        if self.away:
            raise Unavailable("database finplatform does not answer")
        return self.bare_s


class MemoryResults:
    """A results store that keeps the promises of `ResultsStore`; `away` makes it unavailable."""

    def __init__(self) -> None:
        self.away = False
        self.refuses: set[str] = set()
        self.minutes: dict[datetime, MinuteRows] = {}
        self.gap_rows: dict[datetime, GapRow] = {}
        self.transactions: dict[tuple[str, str], TransactionRow] = {}
        self.closed: dict[str, object] = {}
        self.state: Mapping[str, object] | None = None
        self.totals: dict[str, SymbolTotals] = {}

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("database finwatcher does not answer")

    def store_minute(
        self, rows: MinuteRows, state: Mapping[str, object] | None = None
    ) -> StoredMinute:
        self._answer()
        there = self.minutes.get(rows.minute)
        if there is not None and there.writer != rows.writer and rows.portfolio is not None:
            return StoredMinute(False, {})
        if there is not None and rows.portfolio is None:  # what is there stays
            rows = replace(
                there,
                symbols=rows.symbols if there.symbols is None else there.symbols,
                indicators=rows.indicators if there.indicators is None else there.indicators,
            )
        self.minutes[rows.minute] = replace(  # what the database refuses is not there
            rows,
            symbols=None if "symbols" in self.refuses else rows.symbols,
            portfolio=None if "portfolio" in self.refuses else rows.portfolio,
            indicators=None if "indicators" in self.refuses else rows.indicators,
        )
        if self.minutes[rows.minute].portfolio is not None:
            self.gap_rows.pop(rows.minute, None)
        if state is not None:
            self.state = state
        return StoredMinute(True, dict.fromkeys(self.refuses, "numeric field overflow"))

    def store_minutes(
        self, batch: Sequence[tuple[MinuteRows, Mapping[str, object] | None]]
    ) -> list[StoredMinute]:
        return [self.store_minute(rows, state) for rows, state in batch]

    def store_histories(self, batch: Sequence[HistoryRows]) -> list[StoredAdditions]:
        return [StoredAdditions(self.store_history(rows)) for rows in batch]

    def store_history(self, rows: HistoryRows) -> int:
        self._answer()
        before = len(self.transactions) + len(self.closed)
        for row in rows.transactions:
            self.transactions.setdefault((row.source, row.exchange_id), row)
        for item in rows.positions:
            self.closed.setdefault(item.exchange_id, item)
        return len(self.transactions) + len(self.closed) - before

    def store_gaps(self, session: WatchedSession, gaps: Sequence[GapRow]) -> int:
        self._answer()
        new = [gap for gap in gaps if gap.minute not in {*self.measured(), *self.gap_rows}]
        self.gap_rows.update({gap.minute: gap for gap in new})
        return len(new)

    def last_minute(self, session: WatchedSession) -> datetime | None:
        self._answer()
        return max([*self.measured(), *self.gap_rows], default=None)

    def kept_minutes(
        self, session: WatchedSession, first: datetime, last: datetime
    ) -> set[datetime]:
        self._answer()
        return {at for at in {*self.measured(), *self.gap_rows} if first <= at <= last}

    def measured(self) -> set[datetime]:
        """Minutes with a portfolio row."""
        return {at for at, rows in self.minutes.items() if rows.portfolio is not None}

    def indicator_state(self, session: WatchedSession) -> Mapping[str, object] | None:
        self._answer()
        return self.state

    def curve(self, session: WatchedSession, after: datetime | None) -> Sequence[CurvePoint]:
        self._answer()
        points = []
        for at, rows in sorted(self.minutes.items()):
            row = rows.portfolio
            if row is not None and (after is None or at > after):
                points.append(
                    CurvePoint(at, row.current_pv, row.net_transfers, row.initial_balance)
                )
        return points

    def trade_sums_at(
        self, session: WatchedSession, moments: Sequence[datetime]
    ) -> list[TradeSums]:
        self._answer()
        return [TradeSums(trades=len(self.closed)) for _ in moments]

    def history(self, session: WatchedSession, overlap: timedelta) -> StoredHistory:
        self._answer()
        newest: dict[str, datetime] = {}
        totals = dict(self.totals)
        for row in self.transactions.values():
            newest[row.source] = max(row.at, newest.get(row.source, row.at))
            if row.source == "fill":
                before = totals.get(row.symbol, SymbolTotals())
                earned = before.realized_pnl + row.amount
                totals[row.symbol] = replace(before, realized_pnl=earned)
        recent = {
            f"{row.source}:{row.exchange_id}"
            for row in self.transactions.values()
            if row.at >= newest[row.source] - 2 * overlap
        }
        recent |= {f"position:{number}" for number in self.closed}
        return StoredHistory(
            totals,
            Decimal(0),
            TradeSums(trades=len(self.closed)),
            newest.get("fill"),
            newest.get("bill"),
            None,
            frozenset(recent),
        )


class KeptAlerts:
    """An alert sink that a test reads."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def notify(self, alert: Alert) -> None:
        self.alerts.append(alert)

    def of_kind(self, kind: str) -> list[Alert]:
        return [alert for alert in self.alerts if alert.kind == kind]
