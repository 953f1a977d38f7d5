"""Everything of one account: settings, positions, orders, plans, and their histories."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from module.simulator.engine.engine_records import (
    BillRecord,
    ClosedPositionRecord,
    FillRecord,
    OrderRecord,
    PlanRecord,
    PositionRecord,
    TransferRecord,
)
from module.simulator.engine.engine_types import MarginMode, MarketType, PositionMode, PositionSide

PositionKey = tuple[str, PositionSide]


@dataclass(slots=True)
class SymbolLeverage:
    """Leverage and margin mode of one symbol on one account."""

    margin_mode: MarginMode
    crossed: Decimal
    isolated_long: Decimal
    isolated_short: Decimal

    def effective(self, side: PositionSide) -> Decimal:
        """What applies to a position of `side` in the present margin mode."""
        if self.margin_mode is MarginMode.CROSSED:
            return self.crossed
        return self.isolated_short if side is PositionSide.SHORT else self.isolated_long


@dataclass(slots=True)
class AccountState:
    """Everything of one account. Histories are append-only, oldest first."""

    account_id: str
    position_mode: PositionMode
    leverages: dict[str, SymbolLeverage] = field(default_factory=dict)
    positions: dict[PositionKey, PositionRecord] = field(default_factory=dict)
    orders: dict[str, OrderRecord] = field(default_factory=dict)
    open_orders: dict[str, OrderRecord] = field(default_factory=dict)
    client_ids: dict[tuple[MarketType, str], str] = field(default_factory=dict)
    plans: dict[str, PlanRecord] = field(default_factory=dict)
    plan_history: list[PlanRecord] = field(default_factory=list)
    plan_client_ids: dict[str, str] = field(default_factory=dict)
    fills: list[FillRecord] = field(default_factory=list)
    closed_positions: list[ClosedPositionRecord] = field(default_factory=list)
    bills: list[BillRecord] = field(default_factory=list)
    transfers: list[TransferRecord] = field(default_factory=list)

    def live_orders(self, symbol: str, market: MarketType) -> list[OrderRecord]:
        """Live orders of one symbol, oldest first."""
        return [
            order
            for order in self.open_orders.values()
            if order.symbol == symbol and order.market is market
        ]

    def positions_of(self, symbol: str) -> list[PositionRecord]:
        """Open positions of one symbol, long first."""
        sides = (PositionSide.LONG, PositionSide.SHORT)
        found = (self.positions.get((symbol, side)) for side in sides)
        return [position for position in found if position is not None]

    def holds(self, symbol: str) -> bool:
        """It has a position of the symbol."""
        positions = self.positions
        return (symbol, PositionSide.LONG) in positions or (symbol, PositionSide.SHORT) in positions
