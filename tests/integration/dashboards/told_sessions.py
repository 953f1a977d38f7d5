"""A session's rows as the product would write them, with numbers that a test recognises."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from module.db.database import Database
from module.db.repositories.accounts import AccountRepository
from module.db.repositories.sessions import SessionRepository
from module.model.credentials import SealedCredentials
from module.model.market import MarketType
from module.model.results import (
    IndicatorRow,
    MinuteRows,
    PortfolioRow,
    SymbolRow,
    WatchedSession,
)
from tests.fakes.stored_rows import paper_account, session_spec

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def symbol_row(symbol: str, value: str, size: str = "1") -> SymbolRow:
    return SymbolRow(
        symbol=symbol,
        size=Decimal(size),
        entry_price=Decimal(100),
        mark_price=Decimal(101),
        position_value=Decimal(value),
        margin_size=abs(Decimal(value)),
        unrealized_pnl=Decimal("1.5"),
        unrealized_roe=0.01,
        realized_pnl=Decimal(0),
        fees=Decimal(0),
        funding=Decimal(0),
        weight=0.3,
        target=0.3,
        leverage=Decimal(1),
        liquidation_price=None,
        stop_loss=None,
        take_profit=None,
        flags="",
    )


def portfolio_row(value: str, roe: float | None, at: datetime) -> PortfolioRow:
    return PortfolioRow(
        current_pv=Decimal(value),
        netprofit=Decimal(value) - 10_000,
        roe=roe,
        position_value=Decimal(0),
        gross_position_value=Decimal(0),
        cash=Decimal(value),
        unrealized_pnl=Decimal(0),
        unrealized_roe=None,
        margin_size=Decimal(0),
        available=Decimal(10_000),
        wallet_balance=Decimal(value),
        initial_balance=Decimal(10_000),
        net_transfers=Decimal(0),
        realized_pnl=Decimal(0),
        fees=Decimal(0),
        funding=Decimal(0),
        positions=0,
        open_orders=0,
        unprotected=0,
        measured_at=at,
        late=False,
        flags="",
    )


def indicator_row(sharpe: float | None, drawdown: float) -> IndicatorRow:
    return IndicatorRow(
        returns_1min=3,
        cumulative_return=0.01,
        drawdown=drawdown,
        max_drawdown=drawdown,
        sharpe_1min=sharpe,
        sortino_1min=None,
        volatility_1min=0.2,
        returns_1day=0,
        sharpe_1day=None,
        sortino_1day=None,
        volatility_1day=None,
        trades=0,
        trades_won=0,
        win_rate=None,
        flags="",
    )


@dataclass(frozen=True)
class Told:
    """A session to tell minutes of."""

    session_id: str
    owner_id: str
    account_id: str
    market: MarketType

    def minute(
        self, number: int, value: str, roe: float | None, symbols: tuple[SymbolRow, ...]
    ) -> MinuteRows:
        at = START + timedelta(minutes=number)
        return MinuteRows(
            session_id=self.session_id,
            owner_id=self.owner_id,
            account_id=self.account_id,
            market=self.market,
            minute=at,
            writer="writer",
            symbols=symbols,
            portfolio=portfolio_row(value, roe, at),
            indicators=indicator_row(None if number == 0 else 1.75 + number, -0.03 * number),
        )

    def watched(self) -> WatchedSession:
        return WatchedSession(
            session_id=self.session_id,
            owner_id=self.owner_id,
            account_id=self.account_id,
            market=self.market,
            strategy_name="momentum",
            started_at=START,
            leverage=Decimal(1),
            allocated=None,
            compounding=False,
            initial_balance=Decimal(10_000),
            is_over=False,
            ended_at=None,
        )


def stored_session(database: Database, told: Told, started_at: datetime) -> None:
    account = paper_account(
        told.owner_id,
        account_id=told.account_id,
        label=f"paper-{told.session_id[-4:]}",
        market=told.market,
        created_at=started_at,
    )
    AccountRepository(database).add(account, SealedCredentials(1, b"sealed"))
    spec = session_spec(
        told.owner_id,
        told.account_id,
        started_at,
        session_id=told.session_id,
        market=told.market,
        strategy_name="momentum",
        apply_account_settings=True,
        ends_at=started_at + timedelta(hours=720),
    )
    SessionRepository(database).create(spec, sessions_max=100)
