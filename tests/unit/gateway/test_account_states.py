"""What makes an account stop opening: kill switch, halts, pauses, clocks, refused keys."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from module.db.repositories.gateway_writes import Author, Reservation, WriteEntry
from module.exchange.venue import KeysRefused, StopExists, StopsFull
from module.model.errors import (
    AifapError,
    Conflict,
    Forbidden,
    InvariantViolated,
    TooLate,
    Unavailable,
)
from module.model.orders import OrderType, Outcome, Side, StopPrices
from tests.fakes.gateway_rig import GatewayRig, buy, sell

pytestmark = pytest.mark.timeout(60)
STOPS = StopPrices(Decimal("55000.5"), Decimal("66000.1"))


@pytest.fixture
def rig() -> GatewayRig:
    return GatewayRig()


def limit(rig: GatewayRig, **limits: object) -> None:
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], limits=limits)


def code_of(rig: GatewayRig, client_id: str, **changes: object) -> str | None:
    return rig.gateway.submit("acc", rig.stamp(), [buy(client_id, **changes)])[0].code  # type: ignore[arg-type]


def look(rig: GatewayRig, after_s: float = 5) -> None:
    rig.clock.advance(after_s)
    rig.gateway._loop.step(rig.clock.now())


# --- kill switch ---


def test_I22_a_kill_switch_that_is_set_while_an_order_is_judged_still_stops_it(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = rig.gateway._desk.audit.writes
    reserve = writes.reserve_orders

    def set_then_reserve(author: Author, entries: Sequence[WriteEntry], at: object) -> Reservation:
        limit(rig, kill_switch=True)
        return reserve(author, entries, at)  # type: ignore[arg-type]

    monkeypatch.setattr(writes, "reserve_orders", set_then_reserve)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert (result.outcome, result.code) == (Outcome.REJECTED, "kill-switch")
    assert rig.venue.orders == {}
    assert [write.outcome for write in rig.postgres.orders()] == ["rejected"]


def test_I22_no_opening_order_leaves_after_the_kill_switch_is_acknowledged() -> None:
    rig = GatewayRig()
    start = threading.Barrier(9)
    killed_at: list[int] = []
    sent_after: list[str] = []
    accept = rig.venue._accept

    def accept_and_note(order: object) -> object:
        if killed_at:
            sent_after.append(order.client_id)  # type: ignore[attr-defined]
        return accept(order)  # type: ignore[arg-type]

    rig.venue._accept = accept_and_note  # type: ignore[assignment, method-assign]

    def trade(number: int) -> None:
        start.wait()
        for turn in range(20):
            rig.gateway.submit("acc", rig.stamp(), [buy(f"af-{number}-{turn}", "0.0001")])

    threads = [threading.Thread(target=trade, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    start.wait()
    limit(rig, kill_switch=True)
    with rig.gateway._desk.open("acc").gate:  # whoever had its row before has left by now
        pass
    in_the_air = len(threads)
    killed_at.append(len(rig.venue.orders))
    for thread in threads:
        thread.join(30)
    assert len(sent_after) <= in_the_air
    assert len({client_id.rsplit("-", 1)[0] for client_id in sent_after}) == len(sent_after)
    assert code_of(rig, "af-last") == "kill-switch"


def test_C8_a_process_that_stood_still_before_sending_sends_nothing(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rig.gateway._orders
    note = path._note_in_flight

    def stand_still(batch: object) -> None:
        note(batch)  # type: ignore[arg-type]
        rig.clock.advance(1.5)

    monkeypatch.setattr(path, "_note_in_flight", stand_still)
    with pytest.raises(Unavailable, match="stood still"):
        rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert rig.venue.orders == {}
    monkeypatch.undo()
    assert rig.gateway.submit("acc", rig.stamp(), [buy()])[0].outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("where", ["admit", "read_positions"])
def test_C8_a_deadline_that_passes_while_an_order_is_judged_stops_it(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    desk = rig.gateway._desk
    work = getattr(desk, where)

    def stand_still(*arguments: object) -> object:
        result = work(*arguments)
        rig.clock.advance(31)
        return result

    monkeypatch.setattr(desk, where, stand_still)
    with pytest.raises(TooLate, match="nothing was sent"):
        rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert rig.venue.orders == {}
    assert rig.postgres.orders() == []


def test_C8_a_deadline_that_passes_while_an_order_is_put_on_record_stops_it(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = rig.gateway._desk.audit.writes
    reserve = writes.reserve_orders

    def stand_still(author: Author, entries: Sequence[WriteEntry], at: object) -> Reservation:
        found = reserve(author, entries, at)  # type: ignore[arg-type]
        rig.clock.advance(31)
        return found

    monkeypatch.setattr(writes, "reserve_orders", stand_still)
    with pytest.raises(Unavailable, match="passed while this was put on record"):
        rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert rig.venue.orders == {}
    assert [write.outcome for write in rig.postgres.orders()] == ["not_sent"]


# --- what the exchange shows is another order ---


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": Decimal("0.0124")}, "size 0.0124, sent 0.0123"),
        ({"side": Side.SELL}, "side sell"),
        ({"reduce_only": True}, "reduce-only"),
    ],
)
def test_A26_an_order_that_was_changed_on_its_way_halts_the_account(
    rig: GatewayRig, change: Mapping[str, object], told: str
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.venue.orders["af-1"] = replace(rig.venue.orders["af-1"], **change)  # type: ignore[arg-type]
    with pytest.raises(InvariantViolated, match=told):
        rig.gateway.order("acc", "BTCUSDT", "af-1")
    assert code_of(rig, "af-2") == "halted"
    assert rig.gateway.submit("acc", rig.stamp(), [sell("af-3")])[0].outcome is Outcome.ACCEPTED
    assert len(rig.alerts.of_kind("halted")) == 1
    assert told in str(rig.gateway.health()["halted"])


def test_A26_a_limit_order_that_filled_worse_than_its_limit_is_noticed(rig: GatewayRig) -> None:
    order = buy(order_type=OrderType.LIMIT, price=Decimal("60000.1"))
    rig.gateway.submit("acc", rig.stamp(), [order])
    filled = replace(rig.venue.orders["af-1"], average_price=Decimal("60000.2"))
    rig.venue.orders["af-1"] = filled
    with pytest.raises(InvariantViolated, match="worse than the limit"):
        rig.gateway.order("acc", "BTCUSDT", "af-1")


def test_a_new_session_may_open_again_after_a_halt(rig: GatewayRig) -> None:
    rig.gateway._orders.halt(rig.gateway._desk.open("acc"), "something is wrong")
    assert code_of(rig, "af-1") == "halted"
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], epoch=8)
    assert rig.gateway.submit("acc", rig.stamp(epoch=8), [buy("af-2")])[0].code is None


# --- changes from outside ---


@pytest.mark.parametrize(
    ("size", "pauses"),
    [("0.1001", False), ("0.1019", False), ("0.1021", True), ("0.07", True), ("-0.1", True)],
)
def test_B13_a_position_that_somebody_else_changed_opens_nothing_more(
    rig: GatewayRig, size: str, pauses: bool
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(size="0.1", stops=STOPS)])
    look(rig)
    look(rig, 60)
    rig.venue.hold("BTCUSDT", Decimal(size), opened_at=rig.venue.held["BTCUSDT"].opened_at)
    look(rig)
    assert bool(rig.alerts.of_kind("position-changed")) is pauses
    side = Side.BUY if Decimal(size) > 0 else Side.SELL
    assert (code_of(rig, "af-2", size="0.0001", side=side) == "paused") is pauses
    assert code_of(rig, "af-3", size="0.01", symbol="ETHUSDT") is None


def test_our_own_orders_and_ended_positions_are_no_outside_changes(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(size="0.1", stops=STOPS)])
    look(rig)
    look(rig, 60)
    rig.gateway.submit("acc", rig.stamp(), [buy("af-2", size="0.05", stops=STOPS)])
    look(rig, 1)
    look(rig, 60)
    rig.venue.hold("BTCUSDT", Decimal(0))
    look(rig)
    assert rig.alerts.of_kind("position-changed") == []


def test_a_person_may_trade_an_account_that_no_session_uses(rig: GatewayRig) -> None:
    look(rig)
    rig.venue.hold("BTCUSDT", Decimal("0.5"))
    look(rig, 60)
    assert rig.alerts.alerts == []


# --- clocks ---


def test_A23_a_clock_that_is_off_is_told_once_and_far_off_opens_nothing(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    for skew_s, alerts, code in (
        (1.9, 0, None),
        (2.1, 1, None),
        (-29.9, 1, None),
        (-30.1, 1, "clock-skew"),
        (0.0, 1, None),
        (40.0, 2, "clock-skew"),
    ):
        rig.venue.skew_s = skew_s
        look(rig, 60)
        assert len(rig.alerts.of_kind("clock")) == alerts
        assert code_of(rig, f"af-{skew_s}".replace(".", "-"), size="0.0001") == code
    assert rig.gateway.submit("acc", rig.stamp(), [sell("af-x", "0.0001")])[0].code is None


# --- keys ---


def test_A16_refused_keys_are_told_once_with_the_positions_that_nobody_manages(
    rig: GatewayRig,
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    look(rig)
    rig.venue.script["positions"].extend([Forbidden("the keys were revoked", code="40037")] * 3)
    for _ in range(3):
        look(rig, 301)
    (alert,) = rig.alerts.of_kind("credentials")
    assert ("BTCUSDT", "0.0123, stop loss 55000.5, take profit 66000.1") in alert.lines
    look(rig, 301)
    rig.venue.script["positions"].append(Forbidden("again", code="40037"))
    look(rig, 301)
    assert len(rig.alerts.of_kind("credentials")) == 2


def test_A5_an_account_that_cannot_be_read_for_two_minutes_is_told_once(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    look(rig)
    rig.venue.script["positions"].extend([Unavailable("one row is unreadable")] * 60)
    for _ in range(23):
        look(rig, 5)
    assert rig.alerts.of_kind("protection") == []
    for _ in range(6):
        look(rig, 5)
    (alert,) = rig.alerts.of_kind("protection")
    assert ("why", "one row is unreadable") in alert.lines
    assert ("BTCUSDT", "0.0123, stop loss 55000.5, take profit 66000.1") in alert.lines
    rig.venue.script["positions"].clear()
    look(rig, 5)
    rig.venue.script["positions"].extend([Unavailable("again")] * 60)
    for _ in range(30):
        look(rig, 5)
    assert len(rig.alerts.of_kind("protection")) == 2


def test_A5_an_account_that_could_never_be_read_is_told_where_a_stop_is_wanted(
    rig: GatewayRig,
) -> None:
    """A gateway that was started while the exchange was away."""
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.gateway._desk._leases.close()
    after = rig.another("gw-2")
    rig.venue.script["positions"].extend([Unavailable("no answer")] * 60)
    for _ in range(30):
        rig.clock.advance(5)
        after._loop.step(rig.clock.now())
    (alert,) = rig.alerts.of_kind("protection")
    assert ("why", "no answer") in alert.lines


def test_I8_an_account_that_another_gateway_has_taken_over_is_not_told_as_blind(
    rig: GatewayRig,
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    look(rig)
    rig.gateway._desk._leases.close()
    rig.another("gw-2").protect_now("acc")
    for _ in range(30):
        look(rig, 5)
    assert rig.alerts.of_kind("protection") == []
    assert rig.gateway._loop.numbers().open_accounts == 0


def test_A16_a_refused_key_is_tried_at_most_once_in_five_minutes(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    look(rig)
    rig.venue.script["positions"].extend([Forbidden("revoked")] * 2)
    look(rig)
    before = rig.venue.calls.count("positions")
    for _ in range(58):
        look(rig, 5)
    assert rig.venue.calls.count("positions") == before
    look(rig, 15)
    assert rig.venue.calls.count("positions") == before + 1


def test_A16_the_guard_is_back_when_the_keys_may_be_tried_again(rig: GatewayRig) -> None:
    """Somebody else's try was refused meanwhile: the guard's own five minutes would add to it."""
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    look(rig)
    rig.venue.script["positions"].append(KeysRefused("revoked", again_in_s=0.02))
    look(rig)
    rig.venue.stops.clear()
    look(rig, 1)
    assert {stop.trigger_price for stop in rig.venue.stops.values()} == {
        STOPS.stop_loss, STOPS.take_profit,
    }  # fmt: skip


# --- modes ---


def test_A22_modes_are_read_before_the_first_opening_of_each_session(rig: GatewayRig) -> None:
    rig.venue.shares_collateral = True
    with pytest.raises(Conflict, match="Asset mode"):
        rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert rig.venue.orders == {}


# --- protection that meets resistance ---


def bare(rig: GatewayRig) -> None:
    rig.venue.presets_lost = True
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])


def test_B7_where_the_exchange_is_full_of_stops_orphans_make_room(rig: GatewayRig) -> None:
    bare(rig)
    rig.venue._place("XRPUSDT", True, True, Decimal("0.4"))
    rig.venue.script["set_stop"].append(StopsFull("too many", code="40890"))
    owned = rig.gateway._desk.open("acc")
    assert rig.gateway._guard.look(owned, thorough=False).unprotected == ()
    assert ("XRPUSDT", True) not in rig.venue.stops
    assert rig.venue._positions()[0].stops == STOPS


def test_B7_a_stop_that_exists_is_compared_and_replaced_if_it_is_another(rig: GatewayRig) -> None:
    bare(rig)
    rig.venue.script["set_stop"].append(StopExists("already", code="43031"))
    assert rig.gateway.protect_now("acc") == ()
    assert rig.venue._positions()[0].stops == STOPS


@pytest.mark.parametrize("error", [Unavailable("upkeep", code="43071"), Unavailable("502")])
def test_B7_while_the_exchange_takes_no_stops_nothing_is_added_and_people_are_told(
    rig: GatewayRig, error: AifapError
) -> None:
    bare(rig)
    rig.venue.script["set_stop"].extend([error] * 9)
    for _ in range(9):
        assert rig.gateway.protect_now("acc") == ("BTCUSDT",)
        rig.clock.advance(5)
    assert len(rig.alerts.of_kind("protection")) == 1
    assert code_of(rig, "af-2", size="0.0001") == "unprotected"
    assert rig.gateway.protect_now("acc") == ()
    assert code_of(rig, "af-3", size="0.0001") is None


def test_B15_a_stop_that_fired_without_closing_is_finished_by_the_guard(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.venue.stops.clear()
    rig.venue.marks["BTCUSDT"] = Decimal("54000.1")
    rig.venue.script["submit"].append(Unavailable("the band is closed"))
    assert rig.gateway.protect_now("acc") == ("BTCUSDT",)
    assert rig.venue.held
    rig.gateway.protect_now("acc")
    assert rig.venue.held == {}


def test_B9_a_stop_is_moved_in_place_and_never_taken_away_first(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.venue.script["set_stop"].append(Unavailable("not now"))
    moved = StopPrices(Decimal("56000.5"), Decimal("66000.1"))
    with pytest.raises(Unavailable):
        rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", moved)
    assert rig.venue._positions()[0].stops == STOPS
    assert "remove_stop" not in rig.venue.calls


def test_B11_a_reduction_of_a_position_that_is_gone_is_refused_and_opens_nothing(
    rig: GatewayRig,
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.venue.hold("BTCUSDT", Decimal(0))
    rig.clock.advance(10)  # what was sent has long been filled
    assert rig.gateway.submit("acc", rig.stamp(), [sell("af-2")])[0].code == "no-position"
    assert rig.venue.held == {}
