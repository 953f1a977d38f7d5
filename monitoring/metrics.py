"""What an account is worth and how its curve has done. PURE: the numbers on every dashboard.

    snapshot + session + history ─► measure_symbols, measure_portfolio
    portfolio rows, one by one   ─► IndicatorState.advance ─► IndicatorState.read

Money stays Decimal; ratios are floats, None (with a flag) where they do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

from module.model.accounts import AccountSnapshot, Position, SpotBalance
from module.model.canonical import instant_text, parse_instant
from module.model.errors import InvariantViolated, require
from module.model.market import MarketType
from module.model.money import ZERO
from module.model.results import (
    CurvePoint,
    IndicatorRow,
    PortfolioRow,
    SymbolRow,
    SymbolTotals,
    WatchedSession,
)

QUOTE_ASSET = "USDT"
MINUTES_PER_YEAR = 365 * 24 * 60
DAYS_PER_YEAR = 365
STATE_VERSION = 1
_NOTHING = SymbolTotals()
_POSITION_NUMBERS = ("size", "entry_price", "mark_price", "margin_size", "unrealized_pnl")


@dataclass(frozen=True, slots=True)
class Totals:
    """A session's history up to one moment."""

    by_symbol: Mapping[str, SymbolTotals]
    net_transfers: Decimal = ZERO
    trades: int = 0
    trades_won: int = 0


# --- one moment -----------------------------------------------------------------------------------


def measure_symbols(
    snapshot: AccountSnapshot, session: WatchedSession, totals: Totals
) -> tuple[SymbolRow, ...]:
    """One row per symbol that is held or wanted, by symbol.

    Weight = signed size × mark ÷ L ÷ base, L and base the session's. InvariantViolated when the
    account holds one symbol twice (hedge mode) or a number is not finite.
    """
    held = {position.symbol: position for position in snapshot.positions}
    require(
        len(held) == len(snapshot.positions),
        f"account {snapshot.account_id} holds a symbol twice; one-way mode is required",
    )
    wanted = dict(session.targets)
    base = rebalance_base(session, snapshot.equity)
    symbols = sorted(set(held) | {symbol for symbol, weight in wanted.items() if weight != 0})
    return tuple(
        _symbol_row(
            symbol,
            held.get(symbol),
            target=wanted.get(symbol),
            totals=totals.by_symbol.get(symbol, _NOTHING),
            leverage=session.leverage,
            base=base,
            has_entry=session.market is not MarketType.SPOT,
        )
        for symbol in symbols
    )


def measure_portfolio(
    snapshot: AccountSnapshot,
    session: WatchedSession,
    totals: Totals,
    *,
    late: bool = False,
    flags: Iterable[str] = (),
) -> PortfolioRow:
    """The account as a whole.

    PV = wallet balance + unrealised PnL; available = initial balance + net transfers; net profit
    = PV − available; ROE = net profit ÷ available. Initial 10,000, deposit 500, PV 10,920:
    available 10,500, net profit 420, ROE 0.04. Without an initial balance these three are None.
    """
    _require_finite(snapshot, ("wallet_balance", "unrealized_pnl", "equity"))
    for position in snapshot.positions:
        _require_finite(position, _POSITION_NUMBERS)
    notes = set(flags)
    net_value = _total(position.value for position in snapshot.positions)
    margin = _total(position.margin_size for position in snapshot.positions)
    available = netprofit = roe = None
    if session.initial_balance is None:
        notes.add("initial-balance-unknown")
    else:
        available = session.initial_balance + totals.net_transfers
        netprofit = snapshot.equity - available
        roe = _ratio(netprofit, available, "roe", notes)
    spot = session.market is MarketType.SPOT
    return PortfolioRow(
        current_pv=snapshot.equity,
        netprofit=netprofit,
        roe=roe,
        position_value=net_value,
        gross_position_value=_total(abs(position.value) for position in snapshot.positions),
        cash=_quote_balance(snapshot.balances) if spot else snapshot.wallet_balance - margin,
        unrealized_pnl=snapshot.unrealized_pnl,
        unrealized_roe=_ratio(snapshot.unrealized_pnl, margin, "", notes),
        margin_size=margin,
        available=available,
        wallet_balance=snapshot.wallet_balance,
        initial_balance=session.initial_balance,
        net_transfers=totals.net_transfers,
        realized_pnl=_total(item.realized_pnl for item in totals.by_symbol.values()),
        fees=_total(item.fees for item in totals.by_symbol.values()),
        funding=_total(item.funding for item in totals.by_symbol.values()),
        positions=len(snapshot.positions),
        open_orders=len(snapshot.open_orders),
        unprotected=sum(
            1 for item in snapshot.positions if item.free_size and item.stops.stop_loss is None
        ),
        measured_at=snapshot.at,
        late=late,
        flags=_joined(notes),
    )


def _quote_balance(balances: Iterable[SpotBalance]) -> Decimal:
    return _total(item.free + item.locked for item in balances if item.asset == QUOTE_ASSET)


def rebalance_base(session: WatchedSession, equity: Decimal) -> Decimal | None:
    """What weights are fractions of: PV with `compounding`, else min(allocated, PV).

    Without an allocation the initial balance counts as allocated; None when that is unknown too.
    """
    if session.compounding:
        return equity
    allocated = session.initial_balance if session.allocated is None else session.allocated
    return None if allocated is None else min(allocated, equity)


def _symbol_row(
    symbol: str,
    position: Position | None,
    *,
    target: Decimal | None,
    totals: SymbolTotals,
    leverage: Decimal,
    base: Decimal | None,
    has_entry: bool,
) -> SymbolRow:
    notes: set[str] = set()
    if position is not None:
        _require_finite(position, _POSITION_NUMBERS)
    value = ZERO if position is None else position.value
    margin = ZERO if position is None else position.margin_size
    unrealized = ZERO if position is None else position.unrealized_pnl
    weight = None if base is None else _ratio(value, leverage * base, "weight", notes)
    return SymbolRow(
        symbol=symbol,
        size=ZERO if position is None else position.size,
        entry_price=position.entry_price if position is not None and has_entry else None,
        mark_price=None if position is None else position.mark_price,
        position_value=value,
        margin_size=margin,
        unrealized_pnl=unrealized,
        unrealized_roe=None
        if position is None
        else _ratio(unrealized, margin, "unrealized_roe", notes),
        realized_pnl=totals.realized_pnl,
        fees=totals.fees,
        funding=totals.funding,
        weight=weight,
        target=None if target is None else float(target),
        leverage=leverage if position is None else position.leverage,
        liquidation_price=None if position is None else position.liquidation_price,
        stop_loss=None if position is None else position.stops.stop_loss,
        take_profit=None if position is None else position.stops.take_profit,
        flags=_joined(notes),
    )


def _ratio(above: Decimal, below: Decimal, name: str, notes: set[str]) -> float | None:
    """above ÷ below, or None and the note `<name>-undefined` (no note without a name)."""
    if below != 0:
        value = float(above / below)
        if math.isfinite(value):
            return value
    if name:
        notes.add(f"{name}-undefined")
    return None


def _total(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, ZERO)


def _require_finite(source: AccountSnapshot | Position, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(source, name)
        require(value.is_finite(), f"{type(source).__name__}.{name} is {value}; it is not stored")


def _joined(notes: Iterable[str]) -> str:
    return ",".join(sorted(notes))[:255]


# --- the curve ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReturnSums:
    """Running moments of a series of returns (Welford); `downside` sums squares below zero."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    downside: float = 0.0

    def add(self, value: float) -> ReturnSums:
        """The sums with one more return."""
        count = self.count + 1
        step = value - self.mean
        mean = self.mean + step / count
        below = min(value, 0.0)
        return ReturnSums(
            count, mean, self.squares + step * (value - mean), self.downside + below * below
        )

    def volatility(self, periods_per_year: int) -> float | None:
        """Sample standard deviation × √periods; None under two returns."""
        if self.count < 2:
            return None
        return _finite(math.sqrt(self.squares / (self.count - 1)) * math.sqrt(periods_per_year))

    def sharpe(self, periods_per_year: int) -> float | None:
        """mean ÷ standard deviation × √periods, risk-free rate 0; None where nothing varies."""
        volatility = self.volatility(periods_per_year)
        if not volatility:
            return None
        return _finite(self.mean * periods_per_year / volatility)

    def sortino(self, periods_per_year: int) -> float | None:
        """Annualised mean ÷ annualised downside deviation; None without a loss or two returns."""
        if self.count < 2 or self.downside == 0:
            return None
        deviation = math.sqrt(self.downside / self.count) * math.sqrt(periods_per_year)
        return _finite(self.mean * periods_per_year / deviation) if deviation else None


@dataclass(frozen=True, slots=True)
class IndicatorState:
    """A curve so far, as running sums: 0.5 µs a minute however long the curve is.

    The curve begins at the initial balance. A return is (PV − transfers since) ÷ PV before − 1, so
    that a deposit is no profit. A point belongs to the UTC day that ends at or after it: the
    point at 00:00 closes the day before. `undefined` counts returns that do not exist (PV before
    was not above zero); the curve goes on from the next point.
    """

    minute: datetime
    pv: Decimal
    transfers: Decimal
    minutes: ReturnSums = ReturnSums()
    days: ReturnSums = ReturnSums()
    index: float = 1.0
    peak: float = 1.0
    max_drawdown: float = 0.0
    day: date | None = None
    index_at_day_start: float = 1.0
    undefined: int = 0

    @classmethod
    def begin(cls, minute: datetime, initial_balance: Decimal) -> IndicatorState:
        """The curve before its first point."""
        return cls(minute=minute, pv=initial_balance, transfers=ZERO)

    def advance(self, minute: datetime, pv: Decimal, transfers: Decimal) -> IndicatorState:
        """The state after one more point; `transfers` are net transfers since the start."""
        moved = self._into_day((minute - timedelta(microseconds=1)).date())
        change = _return(self.pv, pv - (transfers - self.transfers))
        if change is None:
            return replace(
                moved, minute=minute, pv=pv, transfers=transfers, undefined=self.undefined + 1
            )
        index = self.index * (1.0 + change)
        peak = max(self.peak, index)
        drawdown = (index - peak) / peak
        return replace(
            moved,
            minute=minute,
            pv=pv,
            transfers=transfers,
            minutes=self.minutes.add(change),
            index=index,
            peak=peak,
            max_drawdown=min(self.max_drawdown, drawdown),
        )

    def read(self, trades: int, trades_won: int) -> IndicatorRow:
        """The indicators now; the running day counts with its return so far."""
        days = self.days
        if self.day is not None and self.index_at_day_start > 0:
            days = days.add(self.index / self.index_at_day_start - 1.0)
        some = self.minutes.count > 0
        return IndicatorRow(
            returns_1min=self.minutes.count,
            cumulative_return=_finite(self.index - 1.0) if some else None,
            drawdown=_finite((self.index - self.peak) / self.peak) if some else None,
            max_drawdown=_finite(self.max_drawdown) if some else None,
            sharpe_1min=self.minutes.sharpe(MINUTES_PER_YEAR),
            sortino_1min=self.minutes.sortino(MINUTES_PER_YEAR),
            volatility_1min=self.minutes.volatility(MINUTES_PER_YEAR),
            returns_1day=days.count,
            sharpe_1day=days.sharpe(DAYS_PER_YEAR),
            sortino_1day=days.sortino(DAYS_PER_YEAR),
            volatility_1day=days.volatility(DAYS_PER_YEAR),
            trades=trades,
            trades_won=trades_won,
            win_rate=trades_won / trades if trades else None,
            flags="return-undefined" if self.undefined else "",
        )

    def _into_day(self, day: date) -> IndicatorState:
        if self.day is None:
            return replace(self, day=day)
        if day == self.day:
            return self
        days = self.days
        if self.index_at_day_start > 0:
            days = days.add(self.index / self.index_at_day_start - 1.0)
        return replace(self, day=day, days=days, index_at_day_start=self.index)

    def to_document(self) -> dict[str, object]:
        """Plain JSON; floats survive the round trip bit by bit."""
        return {
            "version": STATE_VERSION,
            "minute": instant_text(self.minute),
            "pv": str(self.pv),
            "transfers": str(self.transfers),
            "minutes": [getattr(self.minutes, field.name) for field in fields(ReturnSums)],
            "days": [getattr(self.days, field.name) for field in fields(ReturnSums)],
            "index": self.index,
            "peak": self.peak,
            "max_drawdown": self.max_drawdown,
            "day": None if self.day is None else self.day.isoformat(),
            "index_at_day_start": self.index_at_day_start,
            "undefined": self.undefined,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> IndicatorState | None:
        """What `to_document` wrote; None when it is another version or not that at all."""
        if document.get("version") != STATE_VERSION:
            return None
        try:
            day = document["day"]
            return cls(
                minute=parse_instant(str(document["minute"])),
                pv=Decimal(str(document["pv"])),
                transfers=Decimal(str(document["transfers"])),
                minutes=_sums(document["minutes"]),
                days=_sums(document["days"]),
                index=_number(document["index"]),
                peak=_number(document["peak"]),
                max_drawdown=_number(document["max_drawdown"]),
                day=None if day is None else date.fromisoformat(str(day)),
                index_at_day_start=_number(document["index_at_day_start"]),
                undefined=int(_number(document["undefined"])),
            )
        except (KeyError, ValueError, ArithmeticError, TypeError, InvariantViolated):
            return None


def replay(state: IndicatorState | None, curve: Iterable[CurvePoint]) -> IndicatorState | None:
    """The state after `curve`, continued from `state` or, without one, from the curve's start.

    A curve without an initial balance begins at its first point. None for an empty curve.
    """
    for point in curve:
        state = advance_or_begin(
            state, point.minute, point.current_pv, point.net_transfers, point.initial_balance
        )
    return state


def advance_or_begin(
    state: IndicatorState | None,
    minute: datetime,
    pv: Decimal,
    transfers: Decimal,
    initial_balance: Decimal | None,
) -> IndicatorState:
    """`state` after one more point, or the curve's first state when there is none yet."""
    if state is not None:
        return state.advance(minute, pv, transfers)
    if initial_balance is not None:
        return IndicatorState.begin(minute, initial_balance).advance(minute, pv, transfers)
    return replace(IndicatorState.begin(minute, pv), transfers=transfers)


def _return(before: Decimal, after: Decimal) -> float | None:
    if before <= 0:
        return None
    return _finite(float(after / before - 1))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: object) -> float:
    if not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return float(value)


def _sums(value: object) -> ReturnSums:
    if not isinstance(value, list) or len(value) != len(fields(ReturnSums)):
        raise TypeError("expected the list of a ReturnSums")
    count, mean, squares, downside = value
    return ReturnSums(int(count), _number(mean), _number(squares), _number(downside))
