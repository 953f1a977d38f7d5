"""Sessions' curves as the finwatcher stores them, minute by minute, for those who read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from module.db.repositories.results import ResultsRepository
from module.model.results import (
    NO_TRADES,
    IndicatorRow,
    MinuteRows,
    PortfolioRow,
    SymbolRow,
    TransactionRow,
    WatchedSession,
)
from monitoring.indicators import IndicatorState

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def symbol_row(symbol: str, weight: float) -> SymbolRow:
    """One symbol at one minute."""
    return SymbolRow(
        symbol=symbol,
        size=Decimal("0.037"),
        entry_price=Decimal(61_000),
        mark_price=Decimal("61234.5"),
        position_value=Decimal("2265.6765"),
        margin_size=Decimal("2265.6765"),
        unrealized_pnl=Decimal("8.6765"),
        unrealized_roe=0.0038,
        realized_pnl=Decimal(0),
        fees=Decimal("-1.3542"),
        funding=Decimal(0),
        weight=weight,
        target=0.25,
        leverage=Decimal(1),
        liquidation_price=None,
        stop_loss=Decimal(59_000),
        take_profit=None,
        flags="",
    )


def portfolio_row(minute: datetime, worth: str, **changes: object) -> PortfolioRow:
    """An account that began with 10,000 USDT."""
    pv = Decimal(worth)
    row = PortfolioRow(
        current_pv=pv,
        netprofit=pv - 10_000,
        roe=float((pv - 10_000) / 10_000),
        position_value=Decimal("2265.6765"),
        gross_position_value=Decimal("2265.6765"),
        cash=Decimal("7734.3235"),
        unrealized_pnl=Decimal("8.6765"),
        unrealized_roe=0.0038,
        margin_size=Decimal("2265.6765"),
        available=Decimal(10_000),
        wallet_balance=Decimal("9998.6458"),
        initial_balance=Decimal(10_000),
        net_transfers=Decimal(0),
        realized_pnl=Decimal(0),
        fees=Decimal("-1.3542"),
        funding=Decimal(0),
        positions=1,
        open_orders=0,
        unprotected=0,
        measured_at=minute,
        late=False,
        flags="",
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def indicator_row(drawdown: float | None) -> IndicatorRow:
    """A curve of one return."""
    return IndicatorRow(
        returns_1min=1,
        cumulative_return=0.0007,
        drawdown=drawdown,
        max_drawdown=drawdown,
        sharpe_1min=None,
        sortino_1min=None,
        volatility_1min=None,
        returns_1day=1,
        sharpe_1day=None,
        sortino_1day=None,
        volatility_1day=None,
        trades=0,
        trades_won=0,
        win_rate=None,
        flags="sharpe:too-few",
    )


def fill_row(number: int, at: datetime) -> TransactionRow:
    """A purchase that was decided at 60,990 and filled at 61,000."""
    return TransactionRow(
        source="fill",
        exchange_id=f"trade-{number:04d}",
        kind="trade",
        venue_kind="open_long",
        order_id=f"order-{number:04d}",
        symbol="BTCUSDT",
        side="buy",
        price=Decimal(61_000),
        size=Decimal("0.037"),
        quote_size=Decimal(2_257),
        asset="USDT",
        amount=Decimal(0),
        fee=Decimal("-1.3542"),
        fee_asset="USDT",
        balance=None,
        is_taker=True,
        at=at,
        client_id=f"afabc-def-{number:04d}",
        decision_price=Decimal(60_990),
    )


def store_curve(
    results: ResultsRepository,
    session: WatchedSession,
    points: Sequence[tuple[datetime, Decimal, Decimal]],
) -> IndicatorState:
    """Store a minute per (minute, PV, net transfers), measured as the finwatcher measures a curve;
    its state at the end. Fees are one USDT a minute."""
    balance = session.initial_balance or points[0][1]
    state = IndicatorState.begin(session.started_at, balance)
    for number, (minute, pv, transfers) in enumerate(points, start=1):
        state = state.advance(minute, pv, transfers)
        row = portfolio_row(minute, str(pv), net_transfers=transfers, fees=Decimal(-number))
        results.store_minute(
            MinuteRows(
                session_id=session.session_id,
                owner_id=session.owner_id,
                account_id=session.account_id,
                market=session.market,
                minute=minute,
                writer="tests",
                symbols=(symbol_row("BTCUSDT", 0.2266), symbol_row("ETHUSDT", -0.1)),
                portfolio=row,
                indicators=state.read(NO_TRADES),
            )
        )
    return state
