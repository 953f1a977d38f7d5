"""Books, policies and the perfect execution of a plan, for the tests of the pure rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from module.model.accounts import MarginMode, Position
from module.model.market import Instrument, MarketType
from module.model.orders import NO_STOPS, StopPrices
from module.model.sessions import TradeMode
from tests.fakes.exchange import MARKS, make_instrument
from trading.rebalance.plan import Book, OrderPlan, Policy
from trading.rebalance.weights import Target

OPENED_AT = datetime(2026, 11, 20, 7, 13, tzinfo=UTC)
POLICY = Policy(TradeMode.REBALANCING, MarketType.FUTURES, Decimal(1), Decimal("0.01"))


def policy(**changes: object) -> Policy:
    return replace(POLICY, **changes)  # type: ignore[arg-type]


def position(
    symbol: str, size: Decimal | str, mark: Decimal, stops: StopPrices = NO_STOPS
) -> Position:
    amount = Decimal(size)
    return Position(
        symbol=symbol,
        size=amount,
        entry_price=mark,
        mark_price=mark,
        margin_size=abs(amount) * mark,
        unrealized_pnl=Decimal(0),
        realized_pnl=Decimal(0),
        fees=Decimal(0),
        funding=Decimal(0),
        leverage=Decimal(1),
        margin_mode=MarginMode.CROSSED,
        liquidation_price=None,
        stops=stops,
        opened_at=OPENED_AT,
    )


def book(
    held: Mapping[str, Decimal | str] | None = None,
    *,
    base: Decimal | str = "10007",
    marks: Mapping[str, Decimal] | None = None,
    rules: Mapping[str, Instrument] | None = None,
) -> Book:
    prices = dict(MARKS) if marks is None else dict(marks)
    return Book(
        base=Decimal(base),
        available=Decimal(base),
        positions={s: position(s, size, prices[s]) for s, size in (held or {}).items()},
        marks=prices,
        instruments={s: make_instrument(s) for s in MARKS} if rules is None else rules,
    )


def targets(weights: Mapping[str, str | Decimal]) -> dict[str, Target]:
    return {symbol: Target(symbol, Decimal(weight)) for symbol, weight in weights.items()}


def executed(before: Book, plan: OrderPlan) -> Book:
    """What is held once every leg filled completely at its reference price."""
    sizes = {symbol: held.size for symbol, held in before.positions.items()}
    for leg in plan.legs:
        sizes[leg.symbol] = sizes.get(leg.symbol, Decimal(0)) + leg.side.sign * leg.size
    held = {s: position(s, size, before.marks[s]) for s, size in sizes.items() if size}
    return replace(before, positions=held)
