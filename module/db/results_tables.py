"""Tables of the `finwatcher` database: what a session was worth, minute by minute, and what it did.

The finwatcher writes them (through `module.db.repositories.results`), dashboards and the results
API read them. A futures table and its spot twin have the same columns. Money is numeric(38,18);
ratios are double precision and null where they do not exist (a division by zero, too few returns):
`flags` then says why. Times are given by the application's Clock; SQL never calls now(). The minute
tables and the gaps are partitioned by month, their days are rolled up and kept for ever.
The definition is final: it changes through migrations only.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Boolean, Date, DateTime, Double, Index, Integer, Numeric, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from module.model.market import MarketType

MONEY = Numeric(38, 18)
INSTANT = DateTime(timezone=True)
BY_MONTH = {"postgresql_partition_by": "RANGE (minute)"}


class ResultsBase(DeclarativeBase):
    """Everything in `finwatcher`."""


class _Owned:
    """Whose row it is; promise 6 is checked against `owner_id`."""

    session_id: Mapped[str] = mapped_column(String(16), primary_key=True, sort_order=-9)
    owner_id: Mapped[str] = mapped_column(String(36), sort_order=-5)
    account_id: Mapped[str] = mapped_column(String(36), sort_order=-4)


class _ByMonth:
    """Partitioned by month on `minute` (module.db.results_partitions)."""

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[dict[str, str]]:
        return (dict(BY_MONTH),)


class _SymbolResult(_ByMonth, _Owned):
    """One symbol held (or wanted) at one minute. `size`, `position_value`, `weight` are signed.

    `weight` is value ÷ leverage ÷ base, `target` the weight last asked for (null: not asked for).
    `realized_pnl`, `fees` and `funding` are since the session's start; fees negative when paid.
    """

    minute: Mapped[datetime] = mapped_column(INSTANT, primary_key=True, sort_order=-8)
    symbol: Mapped[str] = mapped_column(String(32), primary_key=True, sort_order=-7)
    size: Mapped[Decimal] = mapped_column(MONEY)
    entry_price: Mapped[Decimal | None] = mapped_column(MONEY)
    mark_price: Mapped[Decimal | None] = mapped_column(MONEY)
    position_value: Mapped[Decimal] = mapped_column(MONEY)
    margin_size: Mapped[Decimal] = mapped_column(MONEY)
    unrealized_pnl: Mapped[Decimal] = mapped_column(MONEY)
    unrealized_roe: Mapped[float | None] = mapped_column(Double)
    realized_pnl: Mapped[Decimal] = mapped_column(MONEY)
    fees: Mapped[Decimal] = mapped_column(MONEY)
    funding: Mapped[Decimal] = mapped_column(MONEY)
    weight: Mapped[float | None] = mapped_column(Double)
    target: Mapped[float | None] = mapped_column(Double)
    leverage: Mapped[Decimal] = mapped_column(MONEY)
    liquidation_price: Mapped[Decimal | None] = mapped_column(MONEY)
    stop_loss: Mapped[Decimal | None] = mapped_column(MONEY)
    take_profit: Mapped[Decimal | None] = mapped_column(MONEY)
    flags: Mapped[str] = mapped_column(String(255), default="")


class _PortfolioNumbers(_Owned):
    """The whole account at one moment.

    current_pv = wallet balance + unrealised PnL = cash + margin_size + unrealized_pnl (futures)
    or cash + position_value (spot); available = initial balance + net transfers;
    netprofit = current_pv − available; roe = netprofit ÷ available. `late` marks a row measured
    well after second 0; `writer` is the process that owns the minute. Exposures are position values
    ÷ current_pv. `unprotected_s`: seconds × positions without their stop since the session's start
    (null: unknown).
    """

    current_pv: Mapped[Decimal] = mapped_column(MONEY)
    netprofit: Mapped[Decimal | None] = mapped_column(MONEY)
    roe: Mapped[float | None] = mapped_column(Double)
    position_value: Mapped[Decimal] = mapped_column(MONEY)
    gross_position_value: Mapped[Decimal] = mapped_column(MONEY)
    cash: Mapped[Decimal] = mapped_column(MONEY)
    unrealized_pnl: Mapped[Decimal] = mapped_column(MONEY)
    unrealized_roe: Mapped[float | None] = mapped_column(Double)
    margin_size: Mapped[Decimal] = mapped_column(MONEY)
    available: Mapped[Decimal | None] = mapped_column(MONEY)
    wallet_balance: Mapped[Decimal] = mapped_column(MONEY)
    initial_balance: Mapped[Decimal | None] = mapped_column(MONEY)
    net_transfers: Mapped[Decimal] = mapped_column(MONEY)
    realized_pnl: Mapped[Decimal] = mapped_column(MONEY)
    fees: Mapped[Decimal] = mapped_column(MONEY)
    funding: Mapped[Decimal] = mapped_column(MONEY)
    positions: Mapped[int] = mapped_column(Integer)
    open_orders: Mapped[int] = mapped_column(Integer)
    unprotected: Mapped[int] = mapped_column(Integer)
    measured_at: Mapped[datetime] = mapped_column(INSTANT)
    late: Mapped[bool] = mapped_column(Boolean)
    writer: Mapped[str] = mapped_column(String(36))
    flags: Mapped[str] = mapped_column(String(255), default="")
    gross_exposure: Mapped[float | None] = mapped_column(Double)
    net_exposure: Mapped[float | None] = mapped_column(Double)
    unprotected_s: Mapped[float | None] = mapped_column(Double)


class _PortfolioResult(_PortfolioNumbers):
    """The whole account at one minute."""

    minute: Mapped[datetime] = mapped_column(INSTANT, primary_key=True, sort_order=-8)

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[Index | dict[str, str], ...]:
        table = str(cls.__tablename__)  # type: ignore[attr-defined]  # set by each table class
        return (Index(f"{table}_owner_minute", "owner_id", "minute"), dict(BY_MONTH))


class _PortfolioDay(_PortfolioNumbers):
    """The last minute of one UTC day, and the day: rows in `minutes`, recorded `gaps`, lowest and
    highest value. The row of 00:00 belongs to the day before it."""

    day: Mapped[date] = mapped_column(Date, primary_key=True, sort_order=-8)
    minute: Mapped[datetime] = mapped_column(INSTANT, sort_order=-7)
    minutes: Mapped[int] = mapped_column(Integer)
    gaps: Mapped[int] = mapped_column(Integer)
    low_pv: Mapped[Decimal] = mapped_column(MONEY)
    high_pv: Mapped[Decimal] = mapped_column(MONEY)


class _IndicatorNumbers(_Owned):
    """Indicators of the curve up to one moment: `_1min` of minute returns annualised by 525,600,
    `_1day` of UTC days (the running day counts so far) annualised by 365; risk-free rate 0.

    Drawdowns are fractions ≤ 0. A trade is one closed position; it is won above zero net profit.
    """

    returns_1min: Mapped[int] = mapped_column(Integer)
    cumulative_return: Mapped[float | None] = mapped_column(Double)
    drawdown: Mapped[float | None] = mapped_column(Double)
    max_drawdown: Mapped[float | None] = mapped_column(Double)
    sharpe_1min: Mapped[float | None] = mapped_column(Double)
    sortino_1min: Mapped[float | None] = mapped_column(Double)
    volatility_1min: Mapped[float | None] = mapped_column(Double)
    returns_1day: Mapped[int] = mapped_column(Integer)
    sharpe_1day: Mapped[float | None] = mapped_column(Double)
    sortino_1day: Mapped[float | None] = mapped_column(Double)
    volatility_1day: Mapped[float | None] = mapped_column(Double)
    trades: Mapped[int] = mapped_column(Integer)
    trades_won: Mapped[int] = mapped_column(Integer)
    win_rate: Mapped[float | None] = mapped_column(Double)
    flags: Mapped[str] = mapped_column(String(255), default="")
    calmar_1min: Mapped[float | None] = mapped_column(Double)
    calmar_1day: Mapped[float | None] = mapped_column(Double)
    drawdown_1day: Mapped[float | None] = mapped_column(Double)
    max_drawdown_1day: Mapped[float | None] = mapped_column(Double)
    profit_factor: Mapped[float | None] = mapped_column(Double)
    average_win: Mapped[Decimal | None] = mapped_column(MONEY)
    average_loss: Mapped[Decimal | None] = mapped_column(MONEY)
    traded_notional: Mapped[Decimal | None] = mapped_column(MONEY)
    turnover: Mapped[float | None] = mapped_column(Double)
    slippage_bps: Mapped[float | None] = mapped_column(Double)
    slippage_cost: Mapped[Decimal | None] = mapped_column(MONEY)


class _IndicatorResult(_ByMonth, _IndicatorNumbers):
    """Indicators of the curve up to one minute."""

    minute: Mapped[datetime] = mapped_column(INSTANT, primary_key=True, sort_order=-8)


class _IndicatorDay(_IndicatorNumbers):
    """Indicators of the curve at the last minute of one UTC day."""

    day: Mapped[date] = mapped_column(Date, primary_key=True, sort_order=-8)
    minute: Mapped[datetime] = mapped_column(INSTANT, sort_order=-7)


class _HistoricalTransaction(_Owned):
    """One fill (`source` fill) or one movement of the wallet (`source` bill), stored once.

    `kind`: trade, funding, transfer, liquidation, other. `amount` excludes `fee`; a fill's amount
    is its realised PnL. A trade is both a fill and a bill: sums take one source.
    """

    source: Mapped[str] = mapped_column(String(8), primary_key=True, sort_order=-8)
    exchange_id: Mapped[str] = mapped_column(String(64), primary_key=True, sort_order=-7)
    kind: Mapped[str] = mapped_column(String(16))
    venue_kind: Mapped[str] = mapped_column(String(64))
    order_id: Mapped[str | None] = mapped_column(String(64))
    symbol: Mapped[str] = mapped_column(String(32))
    side: Mapped[str | None] = mapped_column(String(8))
    price: Mapped[Decimal | None] = mapped_column(MONEY)
    size: Mapped[Decimal | None] = mapped_column(MONEY)
    quote_size: Mapped[Decimal | None] = mapped_column(MONEY)
    asset: Mapped[str] = mapped_column(String(16))
    amount: Mapped[Decimal] = mapped_column(MONEY)
    fee: Mapped[Decimal] = mapped_column(MONEY)
    fee_asset: Mapped[str] = mapped_column(String(16))
    balance: Mapped[Decimal | None] = mapped_column(MONEY)
    is_taker: Mapped[bool | None] = mapped_column(Boolean)
    at: Mapped[datetime] = mapped_column(INSTANT)
    client_id: Mapped[str | None] = mapped_column(String(64))
    decision_price: Mapped[Decimal | None] = mapped_column(MONEY)

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[Index, ...]:
        table = str(cls.__tablename__)  # type: ignore[attr-defined]  # set by each table class
        return (Index(f"{table}_session_at", "session_id", "at"),)


class _HistoricalPosition(_Owned):
    """One position that is over, as the exchange settled it, stored once."""

    exchange_id: Mapped[str] = mapped_column(String(64), primary_key=True, sort_order=-7)
    symbol: Mapped[str] = mapped_column(String(32))
    side: Mapped[str] = mapped_column(String(8))
    entry_price: Mapped[Decimal] = mapped_column(MONEY)
    close_price: Mapped[Decimal] = mapped_column(MONEY)
    size: Mapped[Decimal] = mapped_column(MONEY)
    gross_pnl: Mapped[Decimal] = mapped_column(MONEY)
    funding: Mapped[Decimal] = mapped_column(MONEY)
    open_fee: Mapped[Decimal] = mapped_column(MONEY)
    close_fee: Mapped[Decimal] = mapped_column(MONEY)
    net_profit: Mapped[Decimal] = mapped_column(MONEY)
    opened_at: Mapped[datetime] = mapped_column(INSTANT)
    closed_at: Mapped[datetime] = mapped_column(INSTANT)

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[Index, ...]:
        table = str(cls.__tablename__)  # type: ignore[attr-defined]  # set by each table class
        return (Index(f"{table}_session_closed", "session_id", "closed_at"),)


class FuturesResult(_SymbolResult, ResultsBase):
    """One row per session, minute and symbol of a futures account."""

    __tablename__ = "futures_result_1min"


class SpotResult(_SymbolResult, ResultsBase):
    """One row per session, minute and symbol of a spot account."""

    __tablename__ = "spot_result_1min"


class FuturesPortfolioResult(_PortfolioResult, ResultsBase):
    """One row per session and minute of a futures account."""

    __tablename__ = "futures_portfolio_result_1min"


class SpotPortfolioResult(_PortfolioResult, ResultsBase):
    """One row per session and minute of a spot account."""

    __tablename__ = "spot_portfolio_result_1min"


class FuturesIndicatorResult(_IndicatorResult, ResultsBase):
    """One row per session and minute of a futures account."""

    __tablename__ = "futures_indicator_result_1min_1day"


class SpotIndicatorResult(_IndicatorResult, ResultsBase):
    """One row per session and minute of a spot account."""

    __tablename__ = "spot_indicator_result_1min_1day"


class FuturesPortfolioDay(_PortfolioDay, ResultsBase):
    """One row per session and day of a futures account, kept for ever."""

    __tablename__ = "futures_portfolio_result_1day"


class SpotPortfolioDay(_PortfolioDay, ResultsBase):
    """One row per session and day of a spot account, kept for ever."""

    __tablename__ = "spot_portfolio_result_1day"


class FuturesIndicatorDay(_IndicatorDay, ResultsBase):
    """One row per session and day of a futures account, kept for ever."""

    __tablename__ = "futures_indicator_result_1day"


class SpotIndicatorDay(_IndicatorDay, ResultsBase):
    """One row per session and day of a spot account, kept for ever."""

    __tablename__ = "spot_indicator_result_1day"


class FuturesHistoricalTransaction(_HistoricalTransaction, ResultsBase):
    """Fills, fees, funding and transfers of a futures account since a session's start."""

    __tablename__ = "futures_historical_transactions_details"


class SpotHistoricalTransaction(_HistoricalTransaction, ResultsBase):
    """Fills, fees and transfers of a spot account since a session's start."""

    __tablename__ = "spot_historical_transactions_details"


class FuturesHistoricalPosition(_HistoricalPosition, ResultsBase):
    """Positions of a futures account that ended since a session's start."""

    __tablename__ = "futures_historical_positions_info"


class SpotHistoricalPosition(_HistoricalPosition, ResultsBase):
    """Positions of a spot account that ended since a session's start."""

    __tablename__ = "spot_historical_positions_info"


class ResultGap(_ByMonth, ResultsBase):
    """One minute of a session that has no row, and why (promise 5)."""

    __tablename__ = "result_gaps_1min"

    session_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    minute: Mapped[datetime] = mapped_column(INSTANT, primary_key=True)
    owner_id: Mapped[str] = mapped_column(String(36))
    cause: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str] = mapped_column(Text, default="")
    recorded_at: Mapped[datetime] = mapped_column(INSTANT)


class WatchState(ResultsBase):
    """Running sums of a session's indicators at `minute`, so that a restart need not read the
    whole curve. A cache: it can be rebuilt from the rows."""

    __tablename__ = "finwatcher_state"

    session_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    minute: Mapped[datetime] = mapped_column(INSTANT)
    document: Mapped[dict[str, Any]] = mapped_column(JSONB)


class ResultDayDue(ResultsBase):
    """A day of a session whose roll-up is missing, or older than the day's newest row or gap.

    Whoever writes a minute or a gap marks its day in the same transaction; the roll-up takes the
    mark away once the day is over (module.db.results_rollups).
    """

    __tablename__ = "result_days_due"

    session_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    market: Mapped[str] = mapped_column(String(8))


class ResultColumn(ResultsBase):
    """The dictionary: what a `column_id` of the portfolio tables means."""

    __tablename__ = "result_columns"

    column_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(32), unique=True)
    unit: Mapped[str] = mapped_column(String(16))
    meaning: Mapped[str] = mapped_column(Text)


def _table(market: MarketType, subject: str) -> Table:
    return ResultsBase.metadata.tables[f"{market.value}_{subject}"]


def symbols_table(market: MarketType) -> Table:
    """`…_result_1min` of the market."""
    return _table(market, "result_1min")


def portfolio_table(market: MarketType) -> Table:
    """`…_portfolio_result_1min` of the market."""
    return _table(market, "portfolio_result_1min")


def indicator_table(market: MarketType) -> Table:
    """`…_indicator_result_1min_1day` of the market."""
    return _table(market, "indicator_result_1min_1day")


def portfolio_days_table(market: MarketType) -> Table:
    """`…_portfolio_result_1day` of the market."""
    return _table(market, "portfolio_result_1day")


def indicator_days_table(market: MarketType) -> Table:
    """`…_indicator_result_1day` of the market."""
    return _table(market, "indicator_result_1day")


def transactions_table(market: MarketType) -> Table:
    """`…_historical_transactions_details` of the market."""
    return _table(market, "historical_transactions_details")


def positions_table(market: MarketType) -> Table:
    """`…_historical_positions_info` of the market."""
    return _table(market, "historical_positions_info")


RESULT_COLUMNS: tuple[tuple[int, str, str, str], ...] = (
    (1, "current_pv", "USDT", "wallet balance + unrealised PnL"),
    (2, "netprofit", "USDT", "current_pv - initial balance - net transfers"),
    (3, "roe", "fraction", "netprofit / available"),
    (4, "position_value", "USDT", "sum of signed notionals at mark"),
    (5, "cash", "USDT", "wallet balance that no position uses as margin"),
    (8, "unrealized_pnl", "USDT", "profit of open positions at mark"),
    (9, "unrealized_roe", "fraction", "unrealized_pnl / marginSize"),
    (10, "marginSize", "USDT", "margin of open positions"),
    (11, "available", "USDT", "capital at work: initial balance + net transfers"),
)

_VIEW_OF_COLUMNS = """
CREATE VIEW {table}_columns AS
SELECT r.session_id, r.owner_id, r.minute, c.column_id, d.name, c.value
FROM {table} AS r
CROSS JOIN LATERAL (VALUES
    (1, r.current_pv::double precision),
    (2, r.netprofit::double precision),
    (3, r.roe),
    (4, r.position_value::double precision),
    (5, r.cash::double precision),
    (8, r.unrealized_pnl::double precision),
    (9, r.unrealized_roe),
    (10, r.margin_size::double precision),
    (11, r.available::double precision)
) AS c (column_id, value)
JOIN result_columns AS d USING (column_id)
""".strip()

CREATE_VIEWS_SQL: tuple[str, ...] = tuple(
    _VIEW_OF_COLUMNS.format(table=table)
    for table in ("futures_portfolio_result_1min", "spot_portfolio_result_1min")
)

FILL_DICTIONARY_SQL: str = (
    "INSERT INTO result_columns (column_id, name, unit, meaning) VALUES\n    "
    + ",\n    ".join(
        f"({number}, '{name}', '{unit}', '{meaning}')"
        for number, name, unit, meaning in RESULT_COLUMNS
    )
    + "\nON CONFLICT (column_id) DO NOTHING"
)
