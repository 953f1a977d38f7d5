"""What an account is worth at one moment. PURE: the numbers on every dashboard.

    snapshot + session + history ─► measure_symbols, measure_portfolio ─► indicators: the curve

Money stays Decimal; ratios are floats, None (with a flag) where they do not exist. docs/metrics.md
has every column's formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from module.model.accounts import AccountSnapshot, Position, SpotBalance
from module.model.errors import InvariantViolated, require
from module.model.market import MarketType
from module.model.money import ZERO
from module.model.results import (
    NO_TRADES,
    PortfolioRow,
    SymbolRow,
    SymbolTotals,
    TradeSums,
    WatchedSession,
)
from monitoring.lots import DUST_QUOTE, LotCost

QUOTE_ASSET = "USDT"
COST_KNOWN_MIN = Decimal("0.99")
"""A spot row over dust is flagged when less than this share of its coins has a known cost."""
_NOTHING = SymbolTotals()
_POSITION_NUMBERS = ("size", "entry_price", "mark_price", "margin_size", "unrealized_pnl")


@dataclass(frozen=True, slots=True)
class Totals:
    """A session's history up to one moment. `costs`: what a spot account's coins have cost."""

    by_symbol: Mapping[str, SymbolTotals]
    net_transfers: Decimal = ZERO
    sums: TradeSums = NO_TRADES
    costs: Mapping[str, LotCost] = field(default_factory=dict)


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
            spot=session.market is MarketType.SPOT,
            cost=_cost_of(held.get(symbol), session, totals),
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
    unprotected_s: float | None = None,
) -> PortfolioRow:
    """The account as a whole.

    PV = wallet balance + unrealised PnL; available = initial balance + net transfers; net profit
    = PV − available; ROE = net profit ÷ available. Initial 10,000, deposit 500, PV 10,920:
    available 10,500, net profit 420, ROE 0.04. Without an initial balance these three are None.
    On spot the unrealised PnL is that of the coins whose cost is known, and the wallet balance what
    is left of PV: money, and what the coins have cost.
    """
    _require_finite(snapshot, ("wallet_balance", "unrealized_pnl", "equity"))
    for position in snapshot.positions:
        _require_finite(position, _POSITION_NUMBERS)
    notes = set(flags)
    net_value = _total(position.value for position in snapshot.positions)
    gross_value = _total(abs(position.value) for position in snapshot.positions)
    margin = _total(position.margin_size for position in snapshot.positions)
    available = netprofit = roe = None
    if session.initial_balance is None:
        notes.add("initial-balance-unknown")
    else:
        available = session.initial_balance + totals.net_transfers
        netprofit = snapshot.equity - available
        roe = _ratio(netprofit, available, "roe", notes)
    spot = session.market is MarketType.SPOT
    unrealized, wallet = snapshot.unrealized_pnl, snapshot.wallet_balance
    if spot:
        costs = ((item, _cost_of(item, session, totals)) for item in snapshot.positions)
        unrealized = _total(_gain(item, cost) for item, cost in costs)
        wallet = snapshot.equity - unrealized
    pv = snapshot.equity
    return PortfolioRow(
        current_pv=pv,
        netprofit=netprofit,
        roe=roe,
        position_value=net_value,
        gross_position_value=gross_value,
        cash=_quote_balance(snapshot.balances) if spot else snapshot.wallet_balance - margin,
        unrealized_pnl=unrealized,
        unrealized_roe=_ratio(unrealized, margin, "", notes),
        margin_size=margin,
        available=available,
        wallet_balance=wallet,
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
        gross_exposure=_ratio(gross_value, pv, "exposure", notes) if pv > 0 else None,
        net_exposure=_ratio(net_value, pv, "exposure", notes) if pv > 0 else None,
        unprotected_s=unprotected_s,
        flags=_joined(notes | (set() if pv > 0 else {"exposure-undefined"})),
    )


def _cost_of(position: Position | None, session: WatchedSession, totals: Totals) -> LotCost | None:
    """What is held, and at which price it was entered: on spot, the coins whose cost is known."""
    if position is None:
        return None
    if session.market is not MarketType.SPOT:
        return LotCost(position.size, position.entry_price)
    return totals.costs.get(position.symbol)


def _gain(position: Position, cost: LotCost | None) -> Decimal:
    """Unrealised PnL of spot coins against their average cost."""
    if cost is None:
        return ZERO
    return (position.mark_price - cost.average) * min(position.size, cost.size)


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
    spot: bool,
    cost: LotCost | None,
) -> SymbolRow:
    notes: set[str] = set()
    if position is not None:
        _require_finite(position, _POSITION_NUMBERS)
    value = ZERO if position is None else position.value
    margin = ZERO if position is None else position.margin_size
    unrealized = ZERO if position is None else position.unrealized_pnl
    if spot and position is not None:
        unrealized = _gain(position, cost)
        known = ZERO if cost is None else cost.size
        if value >= DUST_QUOTE and known < position.size * COST_KNOWN_MIN:
            notes.add("cost-partly-unknown")
    weight = None if base is None else _ratio(value, leverage * base, "weight", notes)
    return SymbolRow(
        symbol=symbol,
        size=ZERO if position is None else position.size,
        entry_price=None if cost is None else cost.average,
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
        if not value.is_finite():
            where = f"{type(source).__name__}.{name}"
            raise InvariantViolated(f"{where} is {value}; it is not stored")


def _joined(notes: Iterable[str]) -> str:
    return ",".join(sorted(notes))[:255]
