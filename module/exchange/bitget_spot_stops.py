"""Stops of spot coins: Bitget's spot trigger orders (`place-plan-order`), kept like position stops.

A trigger order locks nothing while it waits, so a stop loss, a take profit and a session's own sale
can stand side by side over the same coins; what is called TP/SL on spot locks them and would make
that sale fail. It fires when the last price comes to its trigger from the side on which the price
was when it was placed or moved: beyond the price it would be dead, or the opposite of what was
meant, so it is refused here. Its kind is in its client id, which the exchange gives back.
"""

from __future__ import annotations

import itertools
import threading
from decimal import Decimal
from typing import Final

from module.clock import to_epoch_ms
from module.exchange import bitget_rows as rows
from module.exchange.agreement import passed
from module.exchange.bitget_requests import Listing, read_pages
from module.exchange.bitget_spot_rows import STOP_PREFIX, spot_stop
from module.exchange.bitget_wire import BitgetWire, endpoint
from module.exchange.venue import PlacedStop, Priority, WrongSideOfPrice
from module.model.accounts import Position
from module.model.errors import NotFound, OutcomeUnknown, Unavailable
from module.model.money import plain
from module.ports import Clock

CURRENT = endpoint("privateSpotGetV2SpotTradeCurrentPlanOrder", 20)
PLACE = endpoint("privateSpotPostV2SpotTradePlacePlanOrder", 20, is_write=True)
MODIFY = endpoint("privateSpotPostV2SpotTradeModifyPlanOrder", 20, is_write=True)
CANCEL = endpoint("privateSpotPostV2SpotTradeCancelPlanOrder", 20, is_write=True)

STOP_LIST: Final = Listing(CURRENT, "orderList", "idLessThan")


class SpotStops:
    """The stops of one spot account. Thread safe."""

    def __init__(self, wire: BitgetWire, clock: Clock) -> None:
        self._wire = wire
        self._clock = clock
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def placed(self, priority: Priority, *, first: object = None) -> tuple[PlacedStop, ...]:
        """All stops of ours that wait; `first` is a first page that was read already."""
        found = read_pages(self._wire, STOP_LIST, {}, spot_stop, priority=priority, first=first)
        return tuple(stop for stop in found if stop is not None)

    def set(
        self, held: Position, trigger_price: Decimal, *, is_stop_loss: bool, priority: Priority
    ) -> None:
        """Exactly one stop of this kind for all of `held`: one is moved or placed, others go.

        One at a time: a session and the gateway's own look may want the same at one moment, and the
        exchange would take both.
        """
        with self._lock:
            self._set(held, trigger_price, is_stop_loss=is_stop_loss, priority=priority)

    def _set(
        self, held: Position, trigger_price: Decimal, *, is_stop_loss: bool, priority: Priority
    ) -> None:
        if passed(trigger_price, held, is_stop_loss=is_stop_loss):
            raise WrongSideOfPrice(
                f"{held.symbol}: the price is {plain(held.mark_price)}, already beyond "
                f"{plain(trigger_price)}"
            )
        same_kind = [
            stop
            for stop in self.placed(priority)
            if (stop.symbol, stop.is_stop_loss) == (held.symbol, is_stop_loss)
        ]
        if not same_kind:
            self._place(held, trigger_price, is_stop_loss=is_stop_loss, priority=priority)
            return
        kept, *others = same_kind
        if (kept.trigger_price, kept.size) != (trigger_price, held.size):
            self._move(kept, held, trigger_price, priority)
        for stop in others:
            self.remove(stop, priority)

    def remove(self, stop: PlacedStop, priority: Priority) -> None:
        """Remove it; already gone counts as done, after the exchange has confirmed it."""
        try:
            data = self._wire.call(CANCEL, {"orderId": stop.order_id}, priority)
        except NotFound:
            data = None
        if isinstance(data, dict) and data.get("result") == "success":
            return
        if any(left.order_id == stop.order_id for left in self.placed(priority)):
            raise OutcomeUnknown(f"{stop.symbol}: stop {stop.order_id} is still there; look again")

    def _place(
        self, held: Position, trigger_price: Decimal, *, is_stop_loss: bool, priority: Priority
    ) -> None:
        moment_ms = to_epoch_ms(self._clock.now())
        kind = "l" if is_stop_loss else "p"
        client_id = f"{STOP_PREFIX}{kind}-{moment_ms}-{next(self._numbers)}"
        params = {
            "symbol": held.symbol,
            "side": "sell",
            "triggerPrice": plain(trigger_price),
            "orderType": "market",
            "planType": "amount",
            "size": plain(held.size),
            "triggerType": "fill_price",
            "clientOid": client_id,
        }
        data = self._wire.call(PLACE, params, priority)
        if not isinstance(data, dict) or not rows.optional_text(data, "orderId"):
            raise OutcomeUnknown(f"{held.symbol}: the stop's answer names no order; read it back")

    def _move(
        self, stop: PlacedStop, held: Position, trigger_price: Decimal, priority: Priority
    ) -> None:
        """In place: there is no moment without a stop."""
        params = {
            "orderId": stop.order_id,
            "triggerPrice": plain(trigger_price),
            "orderType": "market",
            "size": plain(held.size),
        }
        try:
            data = self._wire.call(MODIFY, params, priority)
        except NotFound as error:
            raise Unavailable(
                f"{held.symbol}: stop {stop.order_id} has just gone ({error.message}); look again",
                retry_after_s=0.5,
            ) from error
        if not isinstance(data, dict) or data.get("orderId") != stop.order_id:
            raise OutcomeUnknown(f"{held.symbol}: another stop was answered; read them back")
