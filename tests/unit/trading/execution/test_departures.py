"""The check before the door: nothing leaves that is not in the durable letter and the plan (I3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.errors import InvariantViolated
from module.model.orders import NO_STOPS, OrderRequest, Side, StopPrices
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.auto_trade import auto_trade
from trading.execution.departures import Departures
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    SLICES_MAX,
    LegRecord,
    OrderInfo,
    next_slice,
    with_current,
)

STOPS = {"BTCUSDT": ("55000", None)}


def planned() -> OrderInfo:
    desk = Desk()
    desk.exchange.hold("XRPUSDT", "1007")
    return desk.planned(wanted({"BTCUSDT": "0.3", "SOLUSDT": "0.25"}, STOPS))


def sent(info: OrderInfo, leg_id: str, size_max: str = "100000") -> OrderInfo:
    record = next_slice(info.leg(leg_id), Decimal(size_max), lambda leg, n: f"af-{leg.lower()}-{n}")
    return info.with_legs({leg_id: with_current(record, LegState.SENT)})


def request(record: LegRecord, **changes: object) -> OrderRequest:
    current = record.current
    assert current is not None
    leg = record.leg
    stops = NO_STOPS if leg.reduce_only else record.stops
    order = OrderRequest(
        current.client_id, leg.symbol, leg.side, current.size, leg.reduce_only, stops=stops
    )
    return replace(order, **changes)  # type: ignore[arg-type]


def test_I3_what_is_in_the_letter_may_leave() -> None:
    info = planned()
    gate = Departures.of(info, {})
    durable = sent(sent(info, "BTCUSDT-open"), "XRPUSDT-close")
    legs = [durable.leg("BTCUSDT-open"), durable.leg("XRPUSDT-close")]
    gate.admit([request(record) for record in legs], durable)
    for reducing, record in ((False, legs[0]), (True, legs[1])):
        assert gate.totals(reducing=reducing).orders == 1
        assert gate.totals(reducing=reducing).notional == record.leg.notional


ALTERED: list[Callable[[OrderRequest], OrderRequest]] = [
    lambda order: replace(order, client_id="af-another-0"),
    lambda order: replace(order, size=order.size + Decimal("0.0001")),
    lambda order: replace(order, size=order.size * 2),
    lambda order: replace(order, symbol="ETHUSDT"),
    lambda order: replace(order, side=Side.SELL),
    lambda order: replace(order, reduce_only=True),
    lambda order: replace(order, stops=NO_STOPS),
    lambda order: replace(order, stops=StopPrices(Decimal(54000))),
]


@pytest.mark.parametrize("alter", ALTERED)
def test_I3_an_order_that_is_not_the_letters_is_stopped(
    alter: Callable[[OrderRequest], OrderRequest],
) -> None:
    info = planned()
    gate = Departures.of(info, {"BTCUSDT": Decimal("0.0001")})
    durable = sent(info, "BTCUSDT-open")
    with pytest.raises(InvariantViolated, match="stopped before it left"):
        gate.admit([alter(request(durable.leg("BTCUSDT-open")))], durable)
    assert gate.totals(reducing=False).orders == 0


def test_I3_nothing_leaves_before_the_letter_is_durable() -> None:
    info = planned()
    gate = Departures.of(info, {})
    order = request(sent(info, "BTCUSDT-open").leg("BTCUSDT-open"))
    with pytest.raises(InvariantViolated, match="before any letter was saved"):
        gate.admit([order], None)
    with pytest.raises(InvariantViolated, match="not in the letter"):
        gate.admit([order], info)


def test_I3_the_same_order_does_not_leave_twice() -> None:
    info = planned()
    gate = Departures.of(info, {})
    durable = sent(info, "BTCUSDT-open")
    order = request(durable.leg("BTCUSDT-open"))
    gate.admit([order], durable)
    with pytest.raises(InvariantViolated, match="left already"):
        gate.admit([order], durable)


def test_an_order_that_is_proven_not_to_have_left_may_leave_again() -> None:
    info = planned()
    gate = Departures.of(info, {})
    durable = sent(info, "BTCUSDT-open")
    order = request(durable.leg("BTCUSDT-open"))
    gate.admit([order], durable)
    gate.take_back(order.client_id)
    gate.admit([order], durable)
    assert gate.totals(reducing=False).orders == 1


def test_I3_a_leg_that_was_made_larger_after_planning_is_stopped() -> None:
    info = planned()
    gate = Departures.of(info, {})
    record = info.leg("BTCUSDT-open")
    larger = replace(record, leg=record.leg._replace(size=record.leg.size * 3))
    durable = sent(info.with_legs({"BTCUSDT-open": larger}), "BTCUSDT-open")
    with pytest.raises(InvariantViolated, match="not what was planned"):
        gate.admit([request(durable.leg("BTCUSDT-open"))], durable)


def test_I3_slices_add_up_to_no_more_than_their_leg() -> None:
    info = planned()
    gate = Departures.of(info, {"SOLUSDT": Decimal("0.1")})
    size = info.leg("SOLUSDT-open").leg.size
    durable = sent(info, "SOLUSDT-open", "9")
    gate.admit([request(durable.leg("SOLUSDT-open"))], durable)
    first = with_current(durable.leg("SOLUSDT-open"), LegState.ACKNOWLEDGED)
    ended = with_current(first, LegState.ABANDONED, filled_size=Decimal(2))
    durable = sent(info.with_legs({"SOLUSDT-open": ended}), "SOLUSDT-open")
    rest = durable.leg("SOLUSDT-open")
    current = rest.current
    assert current is not None
    whole = replace(rest, slices=(*rest.slices[:-1], replace(current, size=size)))
    again = durable.with_legs({"SOLUSDT-open": whole})
    with pytest.raises(InvariantViolated, match="have left already"):
        gate.admit([request(whole)], again)
    gate.admit([request(rest)], durable)
    assert gate.totals(reducing=False).notional == rest.leg.notional


def test_I3_what_an_earlier_process_sent_counts() -> None:
    info = planned()
    durable = sent(info, "BTCUSDT-open")
    gate = Departures.of(durable, {})
    assert gate.totals(reducing=False).orders == 1
    with pytest.raises(InvariantViolated, match="left already"):
        gate.admit([request(durable.leg("BTCUSDT-open"))], durable)


def test_I3_a_slice_beyond_the_last_is_stopped() -> None:
    info = planned()
    durable = sent(info, "BTCUSDT-open")
    record = durable.leg("BTCUSDT-open")
    assert record.current is not None
    many = replace(record, slices=(record.current,) * (SLICES_MAX + 1))
    durable = durable.with_legs({"BTCUSDT-open": many})
    with pytest.raises(InvariantViolated, match="is slice"):
        Departures.of(info, {}).admit([request(many)], durable)


def test_I3_a_session_whose_orders_differ_halts_before_anything_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    letter = desk.planned(wanted({"BTCUSDT": "0.3"}))

    def doubled(record: LegRecord) -> OrderRequest:
        order = request(record)
        return replace(order, size=order.size * 2)

    monkeypatch.setattr("trading.execution.sending._request", doubled)
    with pytest.raises(InvariantViolated, match="the letter says"):
        auto_trade(letter, desk.ports(), desk.rules())
    assert desk.exchange.ledger == []
    assert desk.exchange.batches == []
