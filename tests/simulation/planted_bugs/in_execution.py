"""Bugs of execution: sending, evidence, booking, protection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from module.model.errors import NotFound
from module.model.orders import NO_STOPS, Outcome
from tests.simulation.fault_strokes import Pause
from tests.simulation.planted_bugs.bug import Hunt, Misbehave, Patch, PlantedBug
from trading.rebalance.leg_record import with_current
from trading.rebalance.leg_state import LegState

BOUNDARIES = (30.0, 930.0, 1830.0)
FAULTY = BOUNDARIES[1:]
"""Boundaries at which something goes wrong: what follows is calm, so that a sound day rests."""
SHORT = 0.3
"""Hours for what shows at the first boundary already."""
SENDING = "trading.execution.sending"
EVIDENCE = "trading.execution.evidence"


def _just_before(fault: str, variant: str = "", **words: object) -> tuple[Misbehave, ...]:
    """The exchange misbehaves at every boundary but the first and the last."""
    return tuple(Misbehave(fault, second - 2, variant, tuple(words.items())) for second in FAULTY)


LOST_ANSWERS = _just_before("A1")
MANY_LOST = tuple(
    Misbehave("A1", second - 2 + number / 100) for second in BOUNDARIES for number in range(4)
)
ALL_LOST = tuple(
    Misbehave("A1", second - 2 + number / 100) for second in FAULTY for number in range(14)
)
NO_QUERIES = tuple(
    Misbehave(
        "",
        second - 2,
        words=(
            ("fault", "A10"),
            ("operation", "detail"),
            ("moment", "before"),
            ("answer", "drop"),
            ("count", 500),
            ("until_s", 30),
        ),
    )
    for second in FAULTY
)
"""Nobody can ask for an order by its id; everything else is answered."""


def _retry_with_a_new_id(patch: Patch) -> None:
    def make(original: Any) -> Any:
        def send(self: Any, batch: Any, orders: Any) -> Any:
            results = original(self, batch, orders)
            unknown = {r.client_id for r in results if r.outcome is Outcome.UNKNOWN}
            again = [
                replace(order, client_id=order.client_id[:-1] + "z")
                for order in orders
                if order.client_id in unknown
            ]
            if again:
                batch.owned.venue.submit(again)
            return results

        return send

    patch.wrap("module.gateway.order_path:OrderPath._send", make)
    patch.replace("module.exchange.bitget_account:BitgetAccount.look_up", _still_unknown)


def _still_unknown(self: Any, order: Any, **_: Any) -> Any:
    from module.model.orders import SubmitResult

    return SubmitResult(order.client_id, Outcome.UNKNOWN, None, None, "nobody asked")


def _unknown_counts_as_absent(patch: Patch) -> None:
    """An order without an answer is over at once, and the leg gets its next slice."""

    def make(original: Any) -> Any:
        def with_result(record: Any, result: Any) -> Any:
            moved = original(record, result)
            if moved.current is not None and moved.current.state is LegState.UNKNOWN:
                return with_current(moved, LegState.ABANDONED, message="no answer: again")
            return moved

        return with_result

    patch.wrap(f"{SENDING}:_with_result", make)
    patch.replace(f"{SENDING}:Departures.admit", lambda *_, **__: None)
    patch.replace("module.exchange.bitget_account:BitgetAccount.look_up", _still_unknown)

    def never_stuck(self: Any, info: Any, *, reducing: bool) -> Any:
        return info

    patch.replace("trading.execution.auto_trade:_Execution._give_up_stuck", never_stuck)


def _recorded_after_it_was_sent(patch: Patch) -> None:
    """The letter with the slices that leave is written after they have left."""

    def make(original: Any) -> Any:
        def save(self: Any, info: Any) -> Any:
            leaving = any(
                record.current is not None and record.current.state is LegState.SENT
                for record in info.legs
            )
            if leaving:
                self.durable = info
                return info
            return original(self, info)

        return save

    patch.wrap("trading.execution.scribe:Scribe.save", make)


def _absence_after_one_look(patch: Patch) -> None:
    patch.replace(f"{EVIDENCE}:Evidence._is_absent", lambda *_, **__: True)
    patch.replace("module.exchange.bitget_account:BitgetAccount.look_up", _still_unknown)


def _network_error_is_absence(patch: Patch) -> None:
    """Whatever a query raises counts as "not found", and that at once."""

    def make(original: Any) -> Any:
        def order(self: Any, symbol: str, client_id: str) -> Any:
            try:
                return original(self, symbol, client_id)
            except Exception as error:
                raise NotFound("nothing was found") from error

        return order

    patch.wrap("tests.simulation.gateway_side:DirectExchange.order", make)
    _absence_after_one_look(patch)


def _open_before_the_close_is_confirmed(patch: Patch) -> None:
    def make(original: Any) -> Any:
        def trade(self: Any, info: Any, *, reducing: bool) -> Any:
            return original(self, info, reducing=not reducing)

        return trade

    patch.wrap("trading.execution.auto_trade:_Execution._trade", make)

    def make_judge(original: Any) -> Any:
        def judge_orders(orders: Any, limits: Any, view: Any) -> Any:
            found = original(orders, limits, view)
            return {name: why for name, why in found.items() if why.code != "would-flip"}

        return judge_orders

    patch.wrap("module.gateway.order_path:judge_orders", make_judge)
    patch.replace("trading.execution.opening:_why_not", lambda *_, **__: "")


def _opens_while_unknown(patch: Patch) -> None:
    """Legs leave although an order of their symbol is unknown."""

    def make(original: Any) -> Any:
        def ready(self: Any, info: Any, *, reducing: bool) -> Any:
            return [
                record.leg.leg_id
                for record in info.legs
                if record.leg.reduce_only is reducing and not record.is_over and not record.is_open
            ]

        del original
        return ready

    patch.wrap("trading.execution.auto_trade:_Execution._ready", make)
    patch.replace("trading.execution.opening:_why_not", lambda *_, **__: "")
    patch.replace("module.exchange.bitget_account:BitgetAccount.look_up", _still_unknown)


def _booked_twice(patch: Patch) -> None:
    """What a report says was filled is added to what is booked, every time."""

    def make(original: Any) -> Any:
        def with_report(record: Any, report: Any) -> Any:
            booked = original(record, report)
            current = booked.current
            if current is None or not current.filled_size:
                return booked
            more = replace(current, filled_size=current.filled_size * 2)
            return replace(booked, slices=(*booked.slices[:-1], more))

        return with_report

    patch.wrap(f"{EVIDENCE}:with_report", make)


def _matched_by_position(patch: Patch) -> None:
    """The gateway answers in any order, and results go to legs by their place in the list."""

    def make_booked(original: Any) -> Any:
        def booked(self: Any, info: Any, leaving: Any, results: Any, wait_s: float) -> Any:
            ids = [record.current.client_id for record in leaving.values()]
            renamed = [
                replace(result, client_id=client_id)
                for client_id, result in zip(ids, results, strict=False)
            ]
            return original(self, info, leaving, renamed, wait_s)

        return booked

    def make_submit(original: Any) -> Any:
        def submit(self: Any, stamp: Any, orders: Any) -> Any:
            return sorted(original(self, stamp, orders), key=lambda result: result.client_id)

        return submit

    patch.wrap(f"{SENDING}:Sender._booked", make_booked)
    patch.wrap("tests.simulation.gateway_side:DirectExchange.submit", make_submit)


def _rejected_counts_as_filled(patch: Patch) -> None:
    def make(original: Any) -> Any:
        def with_result(record: Any, result: Any) -> Any:
            moved = original(record, result)
            if moved.current is None or moved.current.state is not LegState.REJECTED:
                return moved
            filled = replace(moved.current, state=LegState.FILLED, filled_size=moved.current.size)
            return replace(moved, slices=(*moved.slices[:-1], filled))

        return with_result

    patch.wrap(f"{SENDING}:_with_result", make)


def _stop_after_a_sleep(patch: Patch) -> None:
    """Orders leave bare; their stops are placed half a minute later."""

    def make_request(original: Any) -> Any:
        return lambda record: replace(original(record), stops=NO_STOPS)

    def make_protect(original: Any) -> Any:
        def protect(scribe: Any, info: Any) -> Any:
            scribe.ports.clock.sleep(30.0)
            return original(scribe, info)

        return protect

    patch.wrap(f"{SENDING}:_request", make_request)
    patch.wrap("trading.execution.auto_trade:protect", make_protect)
    patch.replace("trading.execution.departures:Departures._differs", lambda *_, **__: "")


def _stale_plan(patch: Patch) -> None:
    """A plan is traded however old it is, whatever has changed since."""
    patch.replace("trading.execution.auto_trade:too_old_to_begin", lambda *_, **__: "")
    patch.replace("trading.execution.auto_trade:must_look_again", lambda *_, **__: False)
    patch.replace("trading.execution.auto_trade:changed_symbols", lambda *_, **__: {})
    patch.replace("trading.execution.opening:changed_symbols", lambda *_, **__: {})
    patch.replace(f"{SENDING}:too_old_to_begin", lambda *_, **__: "")
    patch.replace(f"{SENDING}:too_old_to_open", lambda *_, **__: "")


BUGS = (
    PlantedBug(
        "retry with a new client id",
        "an order without an answer is sent again under another id",
        ("I1", "I3"),
        _retry_with_a_new_id,
        Hunt(LOST_ANSWERS),
    ),
    PlantedBug(
        "resend an unknown",
        "an order without an answer counts as absent, and its leg is sent once more",
        ("I1", "I3", "I4", "I5"),
        _unknown_counts_as_absent,
        Hunt(MANY_LOST),
    ),
    PlantedBug(
        "record after send",
        "the letter names an order only after it has left",
        ("I3", "I13"),
        _recorded_after_it_was_sent,
        Hunt(hours=SHORT),
    ),
    PlantedBug(
        "absence after one look",
        "an order that one look does not find is given up",
        ("I4", "I5", "I7"),
        _absence_after_one_look,
        Hunt((*MANY_LOST, *_just_before("A9", lag_s=6))),
    ),
    PlantedBug(
        "network error is absence",
        "a query that fails counts as an order that is not there",
        ("I4", "I5", "I7"),
        _network_error_is_absence,
        Hunt((*ALL_LOST, *NO_QUERIES)),
    ),
    PlantedBug(
        "open before the close is confirmed",
        "a flip opens the other side before its close is done",
        ("I5", "I6", "I3"),
        _open_before_the_close_is_confirmed,
    ),
    PlantedBug(
        "opens while unknown",
        "a symbol with an unknown order gets another opening order",
        ("I5",),
        _opens_while_unknown,
        Hunt(ALL_LOST),
    ),
    PlantedBug(
        "fills booked twice",
        "a report's fills are added each time that they are read",
        ("I7",),
        _booked_twice,
        Hunt(hours=SHORT),
    ),
    PlantedBug(
        "results matched by position",
        "results of a batch go to its legs by their place in the list",
        ("I4", "I7"),
        _matched_by_position,
        Hunt((*_just_before("A18"), *_just_before("A20", halt_s=150))),
    ),
    PlantedBug(
        "rejected is filled",
        "an order that the exchange refused is booked as filled",
        ("I4", "I7"),
        _rejected_counts_as_filled,
        Hunt((*_just_before("A18"), *_just_before("A20", halt_s=150))),
    ),
    PlantedBug(
        "stop placed after a sleep",
        "positions are opened bare and get their stops half a minute later",
        ("I2",),
        _stop_after_a_sleep,
    ),
    PlantedBug(
        "stale plan traded",
        "a plan is traded although the account was read long ago",
        ("I15", "I3"),
        _stale_plan,
        Hunt(
            tuple(
                Pause("C8", second - 1, "strategy", 60.0, "strategy: letter written")
                for second in FAULTY
            )
        ),
    ),
)
