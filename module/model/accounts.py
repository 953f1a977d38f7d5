"""What an account holds: balances, positions, movements of money."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from module.model.orders import OrderReport, StopPrices


class TradeEnv(StrEnum):
    """Where an account's money is: simulated by us, simulated by the venue, or real."""

    PAPER = "paper"
    DEMO = "demo"
    LIVE = "live"


class PositionMode(StrEnum):
    ONE_WAY = "one_way"
    HEDGE = "hedge"


class MarginMode(StrEnum):
    CROSSED = "crossed"
    ISOLATED = "isolated"


@dataclass(frozen=True, slots=True)
class Position:
    """One open position. `size` is signed in base asset (negative is short), never zero.

    A coin of a spot account is a long at leverage 1 without liquidation price, and all of it
    counts; `locked` of it cannot be sold now: what waiting orders reserve, what is off the lot, or
    everything when that is under the pair's minimum (dust). An exchange does not know what a coin
    has cost: its `entry_price` is the mark and its unrealised PnL 0.
    """

    symbol: str
    size: Decimal
    entry_price: Decimal
    mark_price: Decimal
    margin_size: Decimal
    unrealized_pnl: Decimal
    realized_pnl: Decimal
    fees: Decimal
    funding: Decimal
    leverage: Decimal
    margin_mode: MarginMode
    liquidation_price: Decimal | None
    stops: StopPrices
    opened_at: datetime
    locked: Decimal = Decimal(0)

    @property
    def value(self) -> Decimal:
        """Signed notional at mark."""
        return self.size * self.mark_price

    @property
    def free_size(self) -> Decimal:
        """How much of |size| a closing order may take; zero for dust."""
        return abs(self.size) - self.locked


@dataclass(frozen=True, slots=True)
class SpotBalance:
    """One coin of a spot account, in units of the coin."""

    asset: str
    free: Decimal
    locked: Decimal


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """One consistent look at an account, in quote asset (USDT).

    `equity` = `wallet_balance` + `unrealized_pnl` is the PV of the account at mark prices. On spot
    it is the quote coin and every coin that has a price, `positions` are these coins (`balances`
    has all of them), and `available` is the quote coin that no order reserves.
    """

    account_id: str
    at: datetime
    wallet_balance: Decimal
    unrealized_pnl: Decimal
    equity: Decimal
    available: Decimal
    margin_used: Decimal
    position_mode: PositionMode
    positions: tuple[Position, ...]
    open_orders: tuple[OrderReport, ...]
    balances: tuple[SpotBalance, ...] = ()

    @property
    def closable(self) -> tuple[Position, ...]:
        """The positions that an order may close: all but dust and what waiting orders reserve."""
        return tuple(position for position in self.positions if position.free_size > 0)


@dataclass(frozen=True, slots=True)
class SymbolSettings:
    """Leverage and margin mode of one symbol as the exchange has them."""

    symbol: str
    leverage: Decimal
    margin_mode: MarginMode


class BillKind(StrEnum):
    """Why the wallet changed."""

    TRADE = "trade"
    FUNDING = "funding"
    TRANSFER = "transfer"
    LIQUIDATION = "liquidation"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Bill:
    """One movement of the wallet. `amount` excludes `fee`; both signed, in `asset`."""

    bill_id: str
    kind: BillKind
    venue_kind: str
    symbol: str
    asset: str
    amount: Decimal
    fee: Decimal
    balance: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class ClosedPosition:
    """A position that is over. `net_profit` = gross PnL + funding + fees (fees negative)."""

    position_id: str
    symbol: str
    is_long: bool
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
class AccountCheck:
    """What the exchange says of an account and its keys right now.

    `faults` keep it from being traded; `warnings` do not. `clock_ahead_ms` is how far the
    exchange's clock is ahead of ours. `address_bound` None: the exchange does not say whether the
    key works from listed addresses only. Money in quote asset.
    """

    account_id: str
    at: datetime
    trade_env: TradeEnv
    base_url: str
    family: str
    may_trade: bool
    may_withdraw: bool
    address_bound: bool | None
    authorities: tuple[str, ...]
    position_mode: PositionMode | None
    equity: Decimal
    available: Decimal
    positions: int
    open_orders: int
    clock_ahead_ms: int
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
