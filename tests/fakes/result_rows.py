"""Minute rows with recognisable numbers, for whoever stores and reads them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from module.model.market import MarketType
from module.model.results import IndicatorRow, MinuteRows, PortfolioRow, SymbolRow, WatchedSession

OWNER_ID = "0d1f0000-0000-4000-8000-000000000001"
ACCOUNT_ID = "acc00000-0000-4000-8000-000000000001"
ZERO = Decimal(0)
LATE_START = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


def watched(session_id: str, market: MarketType = MarketType.FUTURES) -> WatchedSession:
    """A session that nothing but its key is asked of."""
    return WatchedSession(
        session_id=session_id,
        owner_id=OWNER_ID,
        account_id=ACCOUNT_ID,
        market=market,
        strategy_name="mine",
        started_at=LATE_START,
        leverage=Decimal(2),
        allocated=None,
        compounding=False,
        initial_balance=Decimal(10_000),
        is_over=False,
        ended_at=None,
    )


def symbol_row(symbol: str, value: Decimal | str = "1550.25") -> SymbolRow:
    """A long position."""
    return SymbolRow(
        symbol=symbol,
        size=Decimal("0.031"),
        entry_price=Decimal(50_000),
        mark_price=Decimal("50008.06"),
        position_value=Decimal(value),
        margin_size=Decimal("775.125"),
        unrealized_pnl=Decimal("0.25"),
        unrealized_roe=0.00032,
        realized_pnl=ZERO,
        fees=Decimal("-0.93"),
        funding=ZERO,
        weight=0.0775,
        target=0.08,
        leverage=Decimal(2),
        liquidation_price=Decimal(25_100),
        stop_loss=Decimal(48_500),
        take_profit=None,
        flags="",
    )


def minute_rows(
    session_id: str,
    minute: datetime,
    pv: Decimal | int | str = 10_000,
    *,
    market: MarketType = MarketType.FUTURES,
    writer: str = "writer-1",
    symbols: tuple[str, ...] = ("BTCUSDT",),
) -> MinuteRows:
    """A whole minute; `returns_1min` is the minute of the day, so that a row tells which it is."""
    portfolio = PortfolioRow(
        current_pv=Decimal(pv),
        netprofit=Decimal(pv) - 10_000,
        roe=float((Decimal(pv) - 10_000) / 10_000),
        position_value=Decimal("1550.25"),
        gross_position_value=Decimal("1550.25"),
        cash=Decimal(pv) - Decimal("775.375"),
        unrealized_pnl=Decimal("0.25"),
        unrealized_roe=0.00032,
        margin_size=Decimal("775.125"),
        available=Decimal(10_000),
        wallet_balance=Decimal(pv),
        initial_balance=Decimal(10_000),
        net_transfers=ZERO,
        realized_pnl=ZERO,
        fees=Decimal("-0.93"),
        funding=ZERO,
        positions=len(symbols),
        open_orders=0,
        unprotected=0,
        measured_at=minute,
        late=False,
        flags="",
        gross_exposure=0.155025,
        net_exposure=0.155025,
        unprotected_s=0.0,
    )
    indicators = IndicatorRow(
        returns_1min=minute.hour * 60 + minute.minute,
        cumulative_return=0.01,
        drawdown=-0.002,
        max_drawdown=-0.003,
        sharpe_1min=1.5,
        sortino_1min=1.75,
        volatility_1min=0.25,
        returns_1day=1,
        sharpe_1day=None,
        sortino_1day=None,
        volatility_1day=None,
        trades=3,
        trades_won=2,
        win_rate=2 / 3,
        flags="",
    )
    return MinuteRows(
        session_id=session_id,
        owner_id=OWNER_ID,
        account_id=ACCOUNT_ID,
        market=market,
        minute=minute,
        writer=writer,
        symbols=tuple(symbol_row(symbol) for symbol in symbols),
        portfolio=portfolio,
        indicators=indicators,
    )


def without_portfolio(rows: MinuteRows) -> MinuteRows:
    """The same minute as it is when that part failed."""
    return replace(rows, portfolio=None)
