"""Bugs of the gateway and of the wire: fences, limits, stops, budgets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from module.gateway.limits import Limits
from module.model.errors import Unavailable
from module.simulator.engine.engine_types import PlanType
from tests.simulation.fault_strokes import (
    Command,
    GapMove,
    Kill,
    Pause,
    SecondGateway,
    SecondLeader,
)
from tests.simulation.planted_bugs.bug import Hunt, Misbehave, Patch, PlantedBug
from tests.simulation.planted_bugs.in_execution import BOUNDARIES, FAULTY, SHORT
from tests.simulation.world import World

DESK = "module.gateway.account_desk:AccountDesk"
GUARD = "module.gateway.protection:PositionGuard"


def _no_epoch_check(patch: Patch) -> None:
    """Neither the gateway nor the statement that reserves compares epochs, and the successor does
    not rule out what its predecessor had on its way."""

    def make_compare(original: Any) -> Any:
        def compare(self: Any, author: Any) -> Any:
            record = self._tables.accounts[author.account_id]
            return original(self, replace(author, epoch=record.epoch))

        return compare

    def make_permit(original: Any) -> Any:
        def permit(self: Any, owned: Any, stamp: Any) -> Any:
            record = self._accounts.get(owned.account_id)
            return original(self, owned, replace(stamp, epoch=record.epoch))

        return permit

    patch.wrap("tests.simulation.memory_postgres.gateway:MemoryWrites._compare", make_compare)
    patch.wrap(f"{DESK}.permit", make_permit)
    patch.replace("module.gateway.tracing:Tracer.rule_out", _cannot_say)
    _not_after_ignored(patch)


def _cannot_say(*_: object) -> None:
    raise Unavailable("there is no record")


def _not_after_ignored(patch: Patch) -> None:
    patch.replace(f"{DESK}.check_deadline", lambda *_, **__: None)
    patch.replace("module.gateway.order_path:OrderPath._check_pace", lambda *_, **__: None)
    patch.replace("module.exchange.bitget_wire:BitgetWire.require_in_time", lambda *_: None)
    patch.replace("trading.execution.sending:SEND_WINDOW_S", float("inf"))


def _window_ignored(patch: Patch) -> None:
    """An order counts as too late to arrive as soon as the last gate would refuse it."""
    patch.replace("module.exchange.bitget_futures:SIGNATURE_HOLDS_S", 0.0)


def _lease_ignored(patch: Patch) -> None:
    """A gateway writes whoever's name is in the account's row."""

    def make_compare(original: Any) -> Any:
        def compare(self: Any, author: Any) -> Any:
            record = self._tables.accounts[author.account_id]
            return original(self, replace(author, gateway_id=record.gateway_lease or ""))

        return compare

    patch.wrap("tests.simulation.memory_postgres.gateway:MemoryWrites._compare", make_compare)

    def make_claim(original: Any) -> Any:
        def claim(self: Any, account_id: str) -> None:
            if account_id not in self._held:
                self._connection.server.locks.pop(account_id, None)
            original(self, account_id)

        return claim

    patch.wrap("tests.simulation.memory_postgres.gateway:MemoryLeases.claim", make_claim)
    patch.replace("module.gateway.order_path:OrderPath._check_pace", lambda *_, **__: None)


def _reduce_only_missing(patch: Patch) -> None:
    def make(original: Any) -> Any:
        def order_params(order: Any) -> Any:
            params = dict(original(order))
            if "reduceOnly" in params:
                params["reduceOnly"] = "NO"
            return params

        return order_params

    patch.wrap("module.exchange.bitget_orders:order_params", make)


def _rounds_up(patch: Patch) -> None:
    """The wire sends one lot more than the letter says."""

    def make(original: Any) -> Any:
        def order_params(order: Any) -> Any:
            exponent = order.size.as_tuple().exponent
            lot = order.size.__class__((0, (1,), exponent if isinstance(exponent, int) else 0))
            return original(replace(order, size=order.size + lot))

        return order_params

    patch.wrap("module.exchange.bitget_orders:order_params", make)


def _limits_ignored(patch: Patch) -> None:
    """Nothing is refused by a limit, and the strategy's weights are not scaled either."""
    patch.replace("module.gateway.order_path:judge_orders", lambda *_, **__: {})

    def make(original: Any) -> Any:
        def submit(self: Any, owned: Any, stamp: Any, orders: Any) -> Any:
            larger = [
                order if order.reduce_only else replace(order, size=order.size * 4)
                for order in orders
            ]
            return original(self, owned, stamp, larger)

        return submit

    patch.wrap("module.gateway.order_path:OrderPath.submit", make)


def _kill_switch_ignored(patch: Patch) -> None:
    def make(original: Any) -> Any:
        def read_limits(document: Any) -> Limits:
            limits: Limits = original(document)
            return replace(limits, kill_switch=False)

        return read_limits

    patch.wrap("module.gateway.order_path:read_limits", make)
    patch.wrap("module.gateway.account_desk:read_limits", make)


def _orphans_kept(patch: Patch) -> None:
    patch.replace(
        "module.gateway.stop_keeper:StopKeeper.remove_orphans",
        lambda *_, **__: 0,
    )


def _wrong_side_ignored(patch: Patch) -> None:
    """A position whose stop the price has passed already is left as it is."""
    patch.replace(f"{GUARD}._close", lambda *_, **__: None)


def _stops_not_mended(patch: Patch) -> None:
    patch.replace(f"{GUARD}._mend", lambda *_, **__: True)


def _penalty_ignored(patch: Patch) -> None:
    """A 429 closes nothing: the next request goes out at once."""
    patch.replace("module.gateway.budget:RequestBudget.penalise", lambda *_, **__: None)


def _wanted_stops_forgotten(patch: Patch) -> None:
    """A gateway that starts does not read what was wanted before it."""
    patch.replace(
        "tests.simulation.memory_postgres.gateway:MemoryWantedStops.list_for_account",
        lambda *_, **__: [],
    )


@dataclass(frozen=True, slots=True)
class StopsGone:
    """Somebody cancels every stop by hand (A28)."""

    at_s: float
    fault_id: str = "A28"

    def apply(self, world: World) -> None:
        """At the exchange itself."""
        kinds = frozenset((PlanType.POS_LOSS, PlanType.POS_PROFIT))
        if world.exchange.act(lambda e: e.cancel_plans(world.exchange.account_id, kinds)):
            world.hit(self.fault_id)


PAUSED_LEADERS = tuple(SecondLeader(second - 5, 9.5) for second in FAULTY)

BUGS = (
    PlantedBug(
        "missing epoch check",
        "a leader that has been replaced goes on sending",
        ("I8",),
        _no_epoch_check,
        Hunt(PAUSED_LEADERS),
    ),
    PlantedBug(
        "not_after ignored",
        "an order leaves long after the moment until which it might",
        ("I15", "I8", "I3"),
        _not_after_ignored,
        Hunt(
            tuple(
                Pause("C8", second - 1, "gateway", 60.0, "gateway: reserved") for second in FAULTY
            )
        ),
    ),
    PlantedBug(
        "signature window ignored",
        "an order that a frozen gateway still holds counts as absent, and its leg is sent again",
        ("I1",),
        _window_ignored,
        Hunt(
            tuple(
                SecondGateway(second - 1, 20.0, "wire: about to leave", leader_too=True)
                for second in FAULTY
            )
        ),
    ),
    PlantedBug(
        "lease ignored",
        "two gateway processes write to one account",
        ("I8",),
        _lease_ignored,
        Hunt(tuple(SecondGateway(second - 5, 8.0, "gateway: reserved") for second in FAULTY)),
    ),
    PlantedBug(
        "reduce-only missing",
        "closing orders leave without reduce-only on the wire",
        ("I6", "I3"),
        _reduce_only_missing,
    ),
    PlantedBug(
        "wrong rounding up",
        "the wire sends one lot more than the letter says",
        ("I3",),
        _rounds_up,
        Hunt(hours=SHORT),
    ),
    PlantedBug(
        "limits not applied",
        "orders four times as large as planned leave, and no limit stops them",
        ("I9", "I3"),
        _limits_ignored,
        Hunt(hours=SHORT),
    ),
    PlantedBug(
        "kill switch ignored",
        "orders open after the kill switch was acknowledged",
        ("I22",),
        _kill_switch_ignored,
        Hunt((Command("O8", 925.0, "kill switch"),)),
    ),
    PlantedBug(
        "orphan stops kept",
        "the stops of a position that is gone stay",
        ("I2", "I20", "I21"),
        _orphans_kept,
        Hunt(tuple(Misbehave("B8", second, "really") for second in (960.0, 1300.0, 1900.0))),
    ),
    PlantedBug(
        "stop on the wrong side ignored",
        "a position whose stop is refused stays open without one",
        ("I2",),
        _wrong_side_ignored,
        Hunt(tuple(GapMove(second) for second in (300.0, 1200.0))),
    ),
    PlantedBug(
        "lost stops not mended",
        "a stop that vanished at the exchange is not placed again",
        ("I2",),
        _stops_not_mended,
        Hunt(tuple(StopsGone(second) for second in (300.0, 600.0, 1500.0))),
    ),
    PlantedBug(
        "wanted stops forgotten",
        "a gateway that starts does not know what stops its predecessor had promised",
        ("I2",),
        _wanted_stops_forgotten,
        Hunt((Kill("D2", 600.0, "gateway"), StopsGone(606.0))),
    ),
    PlantedBug(
        "penalty ignored",
        "requests go on after the exchange said 429",
        ("I14",),
        _penalty_ignored,
        Hunt(tuple(Misbehave("A12", second - 2) for second in BOUNDARIES)),
    ),
)
