"""What leaves is compared with what was planned, right before it leaves (I3). PURE.

    durable letter ──┐
    orders to leave ─┼─► Departures.admit ─► nothing, or InvariantViolated: the session halts
    plan's totals  ──┘

Built on its own from the plan as it was when the cycle began: a bug in sending cannot also be in
what it is compared with. Knight Capital's 2012 loss passed through a door that had no such check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from module.model.errors import InvariantViolated
from module.model.money import ZERO, plain
from module.model.orders import OrderRequest
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import SLICES_MAX, LegRecord, OrderInfo
from trading.rebalance.plan import Leg


@dataclass(frozen=True, slots=True)
class PhaseTotals:
    """Orders and notional (size × reference price, in quote asset) of one phase of a cycle."""

    orders: int
    notional: Decimal


@dataclass(slots=True)
class Departures:
    """What has left in one cycle, by client id. Make it with `of`, from the letter as it is found.

    `rounding` is how much more than planned a leg may be, in base asset by symbol: one lot.
    """

    planned: Mapping[str, Leg]
    rounding: Mapping[str, Decimal]
    left: dict[str, tuple[str, Decimal]] = field(default_factory=dict)

    @classmethod
    def of(cls, info: OrderInfo, rounding: Mapping[str, Decimal]) -> Departures:
        """The plan's legs, and what an earlier process may have sent of them already."""
        departures = cls({record.leg.leg_id: record.leg for record in info.legs}, rounding)
        for record in info.legs:
            for part in record.slices:
                if part.state is not LegState.PLANNED:
                    departures._count(part.client_id, record.leg.leg_id, part.size)
        departures._settle(info)
        return departures

    def admit(self, orders: Sequence[OrderRequest], durable: OrderInfo | None) -> None:
        """Count `orders` as left; InvariantViolated when one of them is not in the durable letter
        as it leaves, or when a leg or phase would be more than was planned."""
        if durable is None:
            raise InvariantViolated("orders were to leave before any letter was saved")
        self._settle(durable)
        records = {
            record.current.client_id: record
            for record in durable.legs
            if record.current is not None
        }
        for order in orders:
            record = records.get(order.client_id)
            why = "it is not in the letter" if record is None else self._differs(order, record)
            if why:
                raise InvariantViolated(
                    f"order {order.client_id} ({order.symbol} {order.side} {plain(order.size)}) "
                    f"was stopped before it left: {why}; the session halts"
                )
            assert record is not None
            self._count(order.client_id, record.leg.leg_id, order.size)
        self._compare_totals()

    def take_back(self, client_id: str) -> None:
        """It is proven that this order did not leave."""
        self.left.pop(client_id, None)

    def totals(self, *, reducing: bool) -> PhaseTotals:
        """What has left of one phase, at the plan's reference prices."""
        gone = [
            (self.planned[leg_id], size)
            for leg_id, size in self.left.values()
            if self.planned[leg_id].reduce_only is reducing
        ]
        return PhaseTotals(len(gone), sum((size * leg.reference_price for leg, size in gone), ZERO))

    def planned_totals(self, *, reducing: bool) -> PhaseTotals:
        """What was planned for one phase; `orders` counts legs."""
        legs = [leg for leg in self.planned.values() if leg.reduce_only is reducing]
        return PhaseTotals(len(legs), sum((leg.notional for leg in legs), ZERO))

    def _differs(self, order: OrderRequest, record: LegRecord) -> str:
        leg = self.planned.get(record.leg.leg_id)
        current = record.current
        if leg is None or leg != record.leg:
            return f"leg {record.leg.leg_id} is not what was planned"
        if current is None or current.state is not LegState.SENT:
            return "the letter does not say that it is sent"
        if order.client_id in self.left:
            return "it has left already"
        if (order.symbol, order.side, order.reduce_only) != (leg.symbol, leg.side, leg.reduce_only):
            return f"the plan says {leg.symbol} {leg.side}, reduce only {leg.reduce_only}"
        if order.size != current.size:
            return f"the letter says {plain(current.size)}"
        if order.reference_price != leg.reference_price:
            return f"it was planned at {plain(leg.reference_price)}, not {order.reference_price}"
        if not leg.reduce_only and order.stops != record.stops:
            return "its stops are not the letter's"
        if len(record.slices) > SLICES_MAX:
            return f"it is slice {len(record.slices)} of leg {leg.leg_id}"
        gone = sum((size for leg_id, size in self.left.values() if leg_id == leg.leg_id), ZERO)
        most = leg.size + self.rounding.get(leg.symbol, ZERO)
        if gone + order.size > most:
            return f"of leg {leg.leg_id} {plain(gone)} of {plain(leg.size)} have left already"
        return ""

    def _settle(self, durable: OrderInfo) -> None:
        """Of an order that is over only what was executed counts."""
        for record in durable.legs:
            for part in record.slices:
                if part.state.is_terminal and part.client_id in self.left:
                    executed = min(part.filled_size, part.size)
                    self._count(part.client_id, record.leg.leg_id, executed)

    def _count(self, client_id: str, leg_id: str, size: Decimal) -> None:
        self.left[client_id] = (leg_id, size)

    def _compare_totals(self) -> None:
        for reducing in (True, False):
            left, planned = self.totals(reducing=reducing), self.planned_totals(reducing=reducing)
            slack = sum(
                (
                    self.rounding.get(leg.symbol, ZERO) * leg.reference_price
                    for leg in self.planned.values()
                    if leg.reduce_only is reducing
                ),
                ZERO,
            )
            if (
                left.notional > planned.notional + slack
                or left.orders > planned.orders * SLICES_MAX
            ):
                phase = "reducing" if reducing else "opening"
                raise InvariantViolated(
                    f"{left.orders} {phase} orders worth {plain(left.notional)} would have left, "
                    f"the plan has {planned.orders} legs worth {plain(planned.notional)}; "
                    "the session halts"
                )
