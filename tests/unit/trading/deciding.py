"""Inputs of a decision as tests need them: a whole document, with odd, recognisable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from module.model.accounts import MarginMode, Position, PositionMode
from module.model.market import MarketType
from module.model.orders import NO_STOPS, OrderReport, OrderStatus, Side, StopPrices
from module.model.sessions import TradeMode
from tests.fakes.exchange import MARKS, make_instrument
from trading.rebalance.decision import AccountInputs, CycleInputs, StrategyCall, decide, plan_letter
from trading.rebalance.order_info import OrderInfo, requested
from trading.rebalance.plan import Policy

CYCLE = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
SESSION = "2611211102-ab3x"


def make_position(symbol: str, size: str, **changes: object) -> Position:
    """Held since a while, entered at the mark."""
    mark = MARKS[symbol]
    position = Position(
        symbol=symbol,
        size=Decimal(size),
        entry_price=mark,
        mark_price=mark,
        margin_size=abs(Decimal(size)) * mark,
        unrealized_pnl=Decimal("0.31"),
        realized_pnl=Decimal("-1.7"),
        fees=Decimal("-0.02"),
        funding=Decimal("0.003"),
        leverage=Decimal(1),
        margin_mode=MarginMode.CROSSED,
        liquidation_price=None,
        stops=NO_STOPS,
        opened_at=datetime(2026, 11, 21, 10, 5, 3, 250_000, tzinfo=UTC),
    )
    return replace(position, **changes)  # type: ignore[arg-type]


def make_order(symbol: str, side: Side, size: str, filled: str = "0") -> OrderReport:
    """One that still waits."""
    return OrderReport(
        order_id="117",
        client_id="somebodys-order",
        symbol=symbol,
        side=side,
        status=OrderStatus.PARTIALLY_FILLED if filled != "0" else OrderStatus.LIVE,
        size=Decimal(size),
        filled_size=Decimal(filled),
        average_price=None,
        fee=Decimal(0),
        realized_pnl=Decimal(0),
        reduce_only=False,
        source="api",
        created_at=CYCLE,
        updated_at=CYCLE,
    )


def make_inputs(
    weights: Mapping[str, str],
    positions: tuple[Position, ...] = (),
    orders: tuple[OrderReport, ...] = (),
    **changes: object,
) -> CycleInputs:
    """10,007 USDT, threshold 1 %, whatever is named or held at its mark."""
    policy = Policy(TradeMode.REBALANCING, MarketType.FUTURES, Decimal(1), Decimal("0.01"))
    held = {each.symbol for each in positions} | {each.symbol for each in orders}
    symbols = sorted({*weights, *held})
    inputs = CycleInputs(
        session_id=SESSION,
        cycle=CYCLE,
        policy=policy,
        account=AccountInputs(
            at=CYCLE,
            equity=Decimal("10007.53"),
            available=Decimal("9003.17"),
            position_mode=PositionMode.ONE_WAY,
            positions=positions,
            open_orders=orders,
        ),
        initial_balance=Decimal(10_007),
        allocated=None,
        compounding=False,
        answer={symbol: {"weight": weight} for symbol, weight in weights.items()},
        marks={symbol: MARKS[symbol] for symbol in symbols},
        instruments={symbol: make_instrument(symbol) for symbol in symbols},
        call=StrategyCall(),
        build="8d1f02aa",
    )
    return replace(inputs, **changes)  # type: ignore[arg-type]


def planned(inputs: CycleInputs) -> OrderInfo:
    """The letter that follows from the inputs."""
    blank = requested(inputs.session_id, inputs.cycle, 7, 3, 41)
    return plan_letter(blank, inputs, decide(inputs))


LONG_STOPS = StopPrices(Decimal("55000.04"), Decimal("70000"))
