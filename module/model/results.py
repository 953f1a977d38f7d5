"""What a session is worth and what it did: the rows that the finwatcher hands to the results store.

Money is Decimal, ratios are floats or None where they do not exist; `flags` name what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from module.model.market import MarketType
from module.model.money import ZERO


class GapCause(StrEnum):
    """Why a minute has no row."""

    NOT_RUNNING = "not-running"
    OVERRUN = "overrun"
    EXCHANGE_UNREACHABLE = "exchange-unreachable"
    SESSION_UNREADABLE = "session-unreadable"
    PART_FAILED = "part-failed"
    SPOOL_FULL = "spool-full"
    STORE_LOST = "store-lost"


@dataclass(frozen=True, slots=True)
class WatchedSession:
    """What the finwatcher must know of a session. `targets`: symbol → weight last asked for;
    `owner_name`: how people know the owner ("" where nobody is told of it).

    `base` rule: min(allocated, PV), or PV with `compounding`; `allocated` None: initial balance.
    """

    session_id: str
    owner_id: str
    account_id: str
    market: MarketType
    strategy_name: str
    started_at: datetime
    leverage: Decimal
    allocated: Decimal | None
    compounding: bool
    initial_balance: Decimal | None
    is_over: bool
    ended_at: datetime | None
    targets: tuple[tuple[str, Decimal], ...] = ()
    owner_name: str = ""


@dataclass(frozen=True, slots=True)
class SymbolRow:
    """One symbol at one minute; see `module.db.results_tables` for each column's meaning."""

    symbol: str
    size: Decimal
    entry_price: Decimal | None
    mark_price: Decimal | None
    position_value: Decimal
    margin_size: Decimal
    unrealized_pnl: Decimal
    unrealized_roe: float | None
    realized_pnl: Decimal
    fees: Decimal
    funding: Decimal
    weight: float | None
    target: float | None
    leverage: Decimal
    liquidation_price: Decimal | None
    stop_loss: Decimal | None
    take_profit: Decimal | None
    flags: str


@dataclass(frozen=True, slots=True)
class PortfolioRow:
    """The whole account at one minute. Each number's formula: docs/metrics.md."""

    current_pv: Decimal
    netprofit: Decimal | None
    roe: float | None
    position_value: Decimal
    gross_position_value: Decimal
    cash: Decimal
    unrealized_pnl: Decimal
    unrealized_roe: float | None
    margin_size: Decimal
    available: Decimal | None
    wallet_balance: Decimal
    initial_balance: Decimal | None
    net_transfers: Decimal
    realized_pnl: Decimal
    fees: Decimal
    funding: Decimal
    positions: int
    open_orders: int
    unprotected: int
    measured_at: datetime
    late: bool
    flags: str
    gross_exposure: float | None = None
    net_exposure: float | None = None
    unprotected_s: float | None = None


@dataclass(slots=True, unsafe_hash=True)
class IndicatorRow:
    """Indicators of the curve up to one minute. Each number's formula: docs/metrics.md.

    A value like the other rows: nobody changes one. It is not frozen, because that would make
    building it cost more than the sums it tells.
    """

    returns_1min: int
    cumulative_return: float | None
    drawdown: float | None
    max_drawdown: float | None
    sharpe_1min: float | None
    sortino_1min: float | None
    volatility_1min: float | None
    returns_1day: int
    sharpe_1day: float | None
    sortino_1day: float | None
    volatility_1day: float | None
    trades: int
    trades_won: int
    win_rate: float | None
    flags: str
    calmar_1min: float | None = None
    calmar_1day: float | None = None
    drawdown_1day: float | None = None
    max_drawdown_1day: float | None = None
    profit_factor: float | None = None
    average_win: Decimal | None = None
    average_loss: Decimal | None = None
    traded_notional: Decimal | None = None
    turnover: float | None = None
    slippage_bps: float | None = None
    slippage_cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class MinuteRows:
    """Everything of one session and minute, written together. A part that failed is None.

    `writer` names the process: it may write its minute again, another one may not.
    """

    session_id: str
    owner_id: str
    account_id: str
    market: MarketType
    minute: datetime
    writer: str
    symbols: tuple[SymbolRow, ...] | None
    portfolio: PortfolioRow | None
    indicators: IndicatorRow | None


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """One fill or one movement of the wallet, keyed by `source` and the exchange's id.

    `client_id` and `decision_price` are a fill's: the slice that was sent and the price its leg was
    planned at; None where nobody planned it. A transfer of coins has its value in `quote_size`.
    """

    source: str
    exchange_id: str
    kind: str
    venue_kind: str
    order_id: str | None
    symbol: str
    side: str | None
    price: Decimal | None
    size: Decimal | None
    quote_size: Decimal | None
    asset: str
    amount: Decimal
    fee: Decimal
    fee_asset: str
    balance: Decimal | None
    is_taker: bool | None
    at: datetime
    client_id: str | None = None
    decision_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ClosedPositionRow:
    """One position that is over, keyed by the exchange's id (spot: the id of its last fill)."""

    exchange_id: str
    symbol: str
    side: str
    entry_price: Decimal
    close_price: Decimal
    size: Decimal
    gross_pnl: Decimal
    funding: Decimal
    open_fee: Decimal
    close_fee: Decimal
    net_profit: Decimal
    opened_at: datetime
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class HistoryRows:
    """Historical rows of one session, stored once each."""

    session_id: str
    owner_id: str
    account_id: str
    market: MarketType
    transactions: tuple[TransactionRow, ...] = ()
    positions: tuple[ClosedPositionRow, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedOrder:
    """What is known of an order that a leg became: its slice, and what the leg was planned at."""

    client_id: str
    decision_price: Decimal


@dataclass(frozen=True, slots=True)
class GapRow:
    """One minute without a row."""

    session_id: str
    owner_id: str
    minute: datetime
    cause: GapCause
    detail: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class SymbolTotals:
    """What one symbol realised, paid and received since a session's start, in quote asset."""

    realized_pnl: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class TradeSums:
    """What closed positions and fills add up to since a session's start, in quote asset.

    `lost` is negative or zero. `slippage_cost` is Σ side × (price − decision price) × size over the
    fills that have a decision price, `slippage_notional` Σ price × size over the same.
    """

    trades: int = 0
    trades_won: int = 0
    won: Decimal = ZERO
    lost: Decimal = ZERO
    traded_notional: Decimal = ZERO
    slippage_cost: Decimal = ZERO
    slippage_notional: Decimal = ZERO

    def __add__(self, other: TradeSums) -> TradeSums:
        return TradeSums(
            self.trades + other.trades,
            self.trades_won + other.trades_won,
            self.won + other.won,
            self.lost + other.lost,
            self.traded_notional + other.traded_notional,
            self.slippage_cost + other.slippage_cost,
            self.slippage_notional + other.slippage_notional,
        )


NO_TRADES = TradeSums()


@dataclass(frozen=True, slots=True)
class OpenLot:
    """One running round trip of a spot account: what is left of it (`size` coins that cost `cost`)
    and what was sold so far. Fees are in quote asset, negative when paid."""

    symbol: str
    opened_at: datetime
    size: Decimal = ZERO
    cost: Decimal = ZERO
    open_fee: Decimal = ZERO
    close_fee: Decimal = ZERO
    sold: Decimal = ZERO
    sold_cost: Decimal = ZERO
    proceeds: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """A session's stored history: sums, how far it goes, and the ids of its newest part.

    `open_fills`: on spot, the fills (and transfers of coins) of each symbol after its last closed
    position, oldest first. `lots`: the round trips that these leave open, where somebody has kept
    them; `open_fills` is then not needed, and empty. `ended`: on spot, when each symbol's last
    closed position was over.
    `recent` has "fill:<id>", "bill:<id>", "position:<id>" of what is asked for again, because
    exchanges publish late. A time is None where nothing is stored yet.
    """

    by_symbol: Mapping[str, SymbolTotals]
    net_transfers: Decimal
    sums: TradeSums
    fill_at: datetime | None
    bill_at: datetime | None
    position_closed_at: datetime | None
    recent: frozenset[str]
    open_fills: tuple[TransactionRow, ...] = ()
    lots: tuple[OpenLot, ...] | None = None
    ended: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredMinute:
    """What became of a minute's rows: `written` False when another process owns the minute.

    `failed` maps a part (symbols, portfolio, indicators) to why the database refused it.
    """

    written: bool
    failed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredAdditions:
    """What became of a session's historical rows: how many were `new`, or why the database
    `refused` them all (nothing of them was written)."""

    new: int
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of a session's curve, as stored."""

    minute: datetime
    current_pv: Decimal
    net_transfers: Decimal
    initial_balance: Decimal | None


@dataclass(frozen=True, slots=True)
class StoredProgress:
    """Where a session's stored rows stand: what a watcher that knows nothing of it goes on from.

    `kept`: the minutes after `sure_until` (after which it is not yet known for good that each
    minute has its row or its gap) up to `last_minute` that have one. `unexplained`: those of them
    whose gap only says that nobody was running. `curve` are the points after the minute of
    `state`, the running indicators as last stored.
    """

    last_minute: datetime | None
    sure_until: datetime | None
    kept: frozenset[datetime]
    state: Mapping[str, object] | None
    curve: tuple[CurvePoint, ...]
    unexplained: frozenset[datetime] = frozenset()
