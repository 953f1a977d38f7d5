"""The check before the door: nothing leaves that is not in the durable letter and the plan (I3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.errors import InvariantViolated
from module.model.money import plain
from module.model.orders import NO_STOPS, OrderRequest, Side, StopPrices
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.auto_trade import auto_trade
from trading.execution.departures import Departures
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    SLICES_MAX,
    LegRecord,
    OrderInfo,
    Slice,
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
        current.client_id,
        leg.symbol,
        leg.side,
        current.size,
        leg.reduce_only,
        stops=stops,
        reference_price=leg.reference_price,
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
    lambda order: replace(order, reference_price=Decimal(600_000)),
    lambda order: replace(order, reference_price=None),
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


def test_a_slice_that_is_only_planned_has_not_left() -> None:
    info = planned()
    record = next_slice(info.leg("BTCUSDT-open"), Decimal(100_000), lambda leg, n: f"af-{n}")
    gate = Departures.of(info.with_legs({"BTCUSDT-open": record}), {})
    assert gate.left == {}
    durable = info.with_legs({"BTCUSDT-open": with_current(record, LegState.SENT)})
    gate.admit([request(durable.leg("BTCUSDT-open"))], durable)
    assert gate.totals(reducing=False).orders == 1


# What an earlier process sent is not judged by leg any more, but it counts in its phase.


def sent_earlier(info: OrderInfo, leg_id: str, *sizes: Decimal) -> OrderInfo:
    """So many slices of a leg are on their way already, of these sizes."""
    parts = [Slice(n, f"af-{leg_id}-{n}", size, LegState.SENT) for n, size in enumerate(sizes)]
    record = replace(info.leg(leg_id), slices=tuple(parts))
    return info.with_legs({leg_id: record})


LOT = Decimal("0.0001")


@pytest.mark.parametrize(
    ("more", "rounding", "stopped"),
    [
        (LOT, {"BTCUSDT": LOT}, False),  # one lot more than planned
        (LOT + Decimal("0.000001"), {"BTCUSDT": LOT}, True),
        (LOT, {"XRPUSDT": Decimal(100_000)}, True),  # the lots of the other phase
        (-LOT, {}, False),
    ],
)
def test_I3_a_phase_is_worth_no_more_than_planned(
    more: Decimal, rounding: dict[str, Decimal], stopped: bool
) -> None:
    info = planned()
    leg = info.leg("BTCUSDT-open").leg
    begun = sent_earlier(info, "BTCUSDT-open", leg.size + more)
    gate = Departures.of(begun, rounding)
    durable = sent(begun, "SOLUSDT-open")
    orders = [request(durable.leg("SOLUSDT-open"))]
    if not stopped:
        gate.admit(orders, durable)
        return
    whole = gate.planned_totals(reducing=False).notional
    said = (
        rf"2 opening orders worth [\d.]+ would have left, the plan has 2 legs worth {plain(whole)}"
    )
    with pytest.raises(InvariantViolated, match=said):
        gate.admit(orders, durable)


def test_I3_reducing_orders_have_totals_of_their_own() -> None:
    info = planned()
    leg = info.leg("XRPUSDT-close").leg
    begun = sent_earlier(info, "XRPUSDT-close", leg.size, Decimal(1))
    durable = sent(begun, "SOLUSDT-open")
    with pytest.raises(InvariantViolated, match="2 reducing orders worth"):
        Departures.of(begun, {}).admit([request(durable.leg("SOLUSDT-open"))], durable)


def test_I3_a_phase_is_no_more_orders_than_its_legs_may_have_slices() -> None:
    info = planned()
    tiny = Decimal("0.0001")
    for count, stopped in ((2 * SLICES_MAX - 1, False), (2 * SLICES_MAX, True)):
        begun = sent_earlier(info, "BTCUSDT-open", *([tiny] * count))
        gate = Departures.of(begun, {})
        durable = sent(begun, "SOLUSDT-open")
        orders = [request(durable.leg("SOLUSDT-open"))]
        if stopped:
            with pytest.raises(InvariantViolated, match=f"{count + 1} opening orders"):
                gate.admit(orders, durable)
        else:
            gate.admit(orders, durable)


def test_I3_of_an_order_that_is_over_only_what_was_executed_counts() -> None:
    info = planned()
    leg = info.leg("BTCUSDT-open").leg
    begun = sent_earlier(info, "BTCUSDT-open", leg.size)
    record = begun.leg("BTCUSDT-open")
    part = replace(record.slices[0], state=LegState.ABANDONED, filled_size=leg.size / 4)
    begun = begun.with_legs({"BTCUSDT-open": replace(record, slices=(part,))})
    gate = Departures.of(begun, {})
    assert gate.totals(reducing=False).notional == leg.notional / 4
    durable = sent(begun, "BTCUSDT-open")
    gate.admit([request(durable.leg("BTCUSDT-open"))], durable)
    assert gate.totals(reducing=False).notional == leg.notional


def test_B3_a_purchase_that_brought_a_little_more_counts_as_its_size() -> None:
    """On spot a purchase is sized in the quote coin: a falling price buys a little more."""
    info = planned()
    leg = info.leg("BTCUSDT-open").leg
    begun = sent_earlier(info, "BTCUSDT-open", leg.size)
    record = begun.leg("BTCUSDT-open")
    more = leg.size * Decimal("1.01")
    part = replace(record.slices[0], state=LegState.FILLED, filled_size=more)
    begun = begun.with_legs({"BTCUSDT-open": replace(record, slices=(part,))})
    assert Departures.of(begun, {}).totals(reducing=False).notional == leg.notional


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
