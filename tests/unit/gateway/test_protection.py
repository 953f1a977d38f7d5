"""Promise 2: a position whose target has a stop has exactly that stop, whoever lives."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from module import points
from module.exchange.venue import NoPosition, PlacedStop, WrongSideOfPrice
from module.model.errors import (
    AifapError,
    Forbidden,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Unavailable,
)
from module.model.orders import OrderRequest, OrderType, Outcome, Side, StopPrices, SubmitResult
from tests.fakes.gateway_rig import GatewayRig, buy, sell
from tests.fakes.gateway_stores import MemoryWrites

STOPS = StopPrices(Decimal("55000.5"), Decimal("66000.1"))
ETH_STOPS = StopPrices(Decimal("2000.5"))


@pytest.fixture
def rig() -> GatewayRig:
    return GatewayRig()


def stops_of(rig: GatewayRig, symbol: str = "BTCUSDT") -> StopPrices:
    return next(p for p in rig.venue._positions() if p.symbol == symbol).stops


def protected(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])


def test_a_preset_that_the_exchange_lost_is_placed_at_the_next_look(rig: GatewayRig) -> None:
    rig.venue.presets_lost = True
    protected(rig)
    assert stops_of(rig).empty
    assert rig.gateway.protect_now("acc") == ()
    assert stops_of(rig) == STOPS


def test_A1_what_is_filled_gets_its_stop_while_the_exchange_is_silent_about_the_batch_s_other_order(
    rig: GatewayRig,
) -> None:
    found: list[tuple[str, StopPrices]] = []
    submit_one, rig.venue.presets_lost = rig.venue._submit_one, True

    def silent_about_the_second(order: OrderRequest) -> SubmitResult:
        if order.symbol == "ETHUSDT":  # its answer takes ten seconds: the guard looks meanwhile
            rig.gateway.protect_now("acc")
            found.append(("BTCUSDT", stops_of(rig)))
            return SubmitResult(order.client_id, Outcome.UNKNOWN, message="timed out")
        return submit_one(order)

    rig.venue._submit_one = silent_about_the_second  # type: ignore[method-assign]
    silent = buy("af-2", "0.5", symbol="ETHUSDT", stops=ETH_STOPS)
    filled, unknown = rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS), silent])
    assert (filled.outcome, unknown.outcome) == (Outcome.ACCEPTED, Outcome.UNKNOWN)
    assert found == [("BTCUSDT", STOPS)]
    assert set(rig.postgres.wanted) == {("acc", "BTCUSDT")}  # nobody knows of the other one


def test_B6_a_position_that_must_be_closed_keeps_no_other_one_waiting_for_its_stop(
    rig: GatewayRig,
) -> None:
    """The answer to the close may take seconds."""
    both = [buy(stops=STOPS), buy("af-2", "0.5", symbol="ETHUSDT", stops=ETH_STOPS)]
    rig.gateway.submit("acc", rig.stamp(), both)
    rig.venue.stops.clear()
    rig.venue.script["set_stop"].append(WrongSideOfPrice("the mark is below"))
    before = len(rig.venue.calls)
    rig.gateway.protect_now("acc")
    calls = rig.venue.calls[before:]
    assert [call for call in calls if call in ("set_stop", "submit")] == [
        *["set_stop"] * (calls.count("set_stop")), "submit",
    ]  # fmt: skip
    assert stops_of(rig, "ETHUSDT") == ETH_STOPS
    assert all(position.symbol != "BTCUSDT" for position in rig.venue._positions())


def _three_bare(rig: GatewayRig) -> None:
    """BTC is beyond its stop; nobody else is."""
    orders = [
        buy(stops=STOPS),
        buy("af-2", "0.5", symbol="ETHUSDT", stops=ETH_STOPS),
        buy("af-3", "100", symbol="XRPUSDT", stops=StopPrices(Decimal("0.1"))),
    ]
    rig.gateway.submit("acc", rig.stamp(), orders)
    rig.venue.stops.clear()
    rig.venue.marks["BTCUSDT"] = Decimal(54_000)


def test_B6_a_position_beyond_its_stop_waits_for_one_silent_answer_about_others_at_most(
    rig: GatewayRig,
) -> None:
    _three_bare(rig)
    began, closed_after_s = rig.clock.now(), []
    set_stop, submit = rig.venue.set_stop, rig.venue.submit

    def silent_about_others(symbol: str, **words: Any) -> None:
        if symbol != "BTCUSDT":
            rig.clock.advance(10)
            raise OutcomeUnknown("timed out")
        set_stop(symbol, **words)

    def closing(orders: Any, **words: Any) -> list[SubmitResult]:
        closed_after_s.append((rig.clock.now() - began).total_seconds())
        return submit(orders, **words)

    rig.venue.set_stop = silent_about_others  # type: ignore[method-assign]
    rig.venue.submit = closing  # type: ignore[method-assign]
    rig.gateway.protect_now("acc")
    assert closed_after_s == [10]


def test_a_position_whose_session_has_set_other_stops_meanwhile_is_not_closed(
    rig: GatewayRig,
) -> None:
    _three_bare(rig)
    set_stop = rig.venue.set_stop

    def session_is_quick(symbol: str, **words: Any) -> None:
        if symbol == "ETHUSDT":
            rig.venue.set_stop = set_stop  # type: ignore[method-assign]
            wider = StopPrices(Decimal(50_000))
            assert rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", wider) == wider
        set_stop(symbol, **words)

    rig.venue.set_stop = session_is_quick  # type: ignore[method-assign]
    rig.gateway.protect_now("acc")
    assert stops_of(rig) == StopPrices(Decimal(50_000))
    assert stops_of(rig, "ETHUSDT") == ETH_STOPS


def test_stops_that_a_session_sets_stay_when_an_order_of_before_is_found(rig: GatewayRig) -> None:
    submit_one = rig.venue._submit_one

    def silent(order: OrderRequest) -> SubmitResult:
        submit_one(order)
        return SubmitResult(order.client_id, Outcome.UNKNOWN, message="timed out")

    rig.venue._submit_one = silent  # type: ignore[method-assign]
    rig.venue.script["order"].append(Unavailable("silent"))
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    assert result.outcome is Outcome.UNKNOWN
    rig.clock.advance(5)
    later = StopPrices(Decimal(58_000))
    rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", later)
    for _ in range(3):
        rig.clock.advance(61)
        rig.gateway.protect_now("acc")
    assert stops_of(rig) == later


def test_C7_what_is_wanted_after_a_clock_was_set_back_replaces_what_was_wanted_before(
    rig: GatewayRig,
) -> None:
    """Else a gateway that starts anew knows the older wish only, by its later time."""
    rig.clock.current += timedelta(hours=1)
    protected(rig)
    rig.clock.current -= timedelta(hours=1)
    rig.clock.advance(60)
    moved = StopPrices(Decimal("54000.1"), Decimal("67000.1"))
    rig.gateway.submit("acc", rig.stamp(), [buy("af-2", stops=moved)])
    assert rig.postgres.wanted["acc", "BTCUSDT"].stops == moved
    later = StopPrices(Decimal(58_000))
    rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", later)
    assert rig.postgres.wanted["acc", "BTCUSDT"].stops == later
    rig.venue.held.clear()
    rig.clock.advance(3700)
    rig.gateway.protect_now("acc")
    assert rig.postgres.wanted == {}


def test_stops_that_a_session_sets_before_its_order_is_on_record_stay(rig: GatewayRig) -> None:
    later = StopPrices(Decimal(58_000))

    def set_them(name: str) -> None:
        if name == "gateway: answered":
            points.listen(None)
            rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", later)

    points.listen(set_them)
    try:
        protected(rig)
    finally:
        points.listen(None)
    rig.gateway.protect_now("acc")
    assert stops_of(rig) == later
    assert rig.postgres.wanted["acc", "BTCUSDT"].stops == later


def test_a_stop_that_somebody_moved_or_removed_is_put_back(rig: GatewayRig) -> None:
    protected(rig)
    rig.venue._place("BTCUSDT", True, True, Decimal("1000.1"))
    del rig.venue.stops[("BTCUSDT", False)]
    rig.gateway.protect_now("acc")
    assert stops_of(rig) == STOPS


def test_a_look_at_a_protected_position_changes_nothing(rig: GatewayRig) -> None:
    protected(rig)
    rig.gateway.protect_now("acc")
    before = list(rig.venue.calls)
    rig.gateway.protect_now("acc")
    assert {"set_stop", "remove_stop", "submit"}.isdisjoint(rig.venue.calls[len(before) :])


def test_a_position_that_nobody_asked_to_protect_is_left_alone(rig: GatewayRig) -> None:
    rig.venue.hold("ETHUSDT", Decimal(-2))
    rig.venue._place("ETHUSDT", True, False, Decimal("3500.5"))
    assert rig.gateway.protect_now("acc") == ()
    assert stops_of(rig, "ETHUSDT") == StopPrices(Decimal("3500.5"))


def test_set_stops_makes_them_exactly_these_and_reads_them_back(rig: GatewayRig) -> None:
    protected(rig)
    only_loss = StopPrices(Decimal("54000.1"))
    assert rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", only_loss) == only_loss
    assert set(rig.venue.stops) == {("BTCUSDT", True)}
    rig.gateway.protect_now("acc")
    assert stops_of(rig) == only_loss


def test_I2_a_look_while_a_session_sets_stops_does_not_put_the_old_ones_back(
    rig: GatewayRig,
) -> None:
    protected(rig)
    moved = StopPrices(Decimal("54000.1"), Decimal("67000.1"))

    def look(name: str) -> None:
        if name == "gateway: stops set":  # at the exchange, and not yet what is wanted
            points.listen(None)
            rig.gateway.protect_now("acc")

    points.listen(look)
    try:
        assert rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", moved) == moved
    finally:
        points.listen(None)
    assert stops_of(rig) == moved


def test_I2_stops_that_are_in_place_are_said_again_at_the_price_of_one_reading(
    rig: GatewayRig,
) -> None:
    protected(rig)
    wanted = StopPrices(Decimal("54000.1"))
    rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", wanted)
    rig.clock.advance(1.1)
    before = len(rig.venue.calls)
    assert rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", wanted) == wanted
    assert rig.venue.calls[before:] == ["positions"]
    assert rig.postgres.wanted[("acc", "BTCUSDT")].stops == wanted


def test_I14_stops_of_several_positions_cost_one_reading_each(rig: GatewayRig) -> None:
    protected(rig)
    rig.venue.hold("ETHUSDT", Decimal(-2))
    rig.gateway.snapshot("acc")
    before = len(rig.venue.calls)
    rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", StopPrices(Decimal("54000.1")))
    rig.gateway.set_stops("acc", rig.stamp(), "ETHUSDT", StopPrices(Decimal("3300.01")))
    assert rig.venue.calls[before:].count("positions") == 2


def test_B5_a_reading_from_before_a_stop_was_answered_is_not_believed(rig: GatewayRig) -> None:
    protected(rig)
    wanted = StopPrices(Decimal("54000.1"), STOPS.take_profit)
    rig.gateway.snapshot("acc")
    rig.venue.script["set_stop"].append("lost")
    with pytest.raises(OutcomeUnknown):
        rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", wanted)
    before = len(rig.venue.calls)
    assert rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", wanted) == wanted
    assert rig.venue.calls[before:] == ["positions"]


def test_B8_a_position_that_ended_since_it_was_read_is_not_found(rig: GatewayRig) -> None:
    protected(rig)
    rig.gateway.snapshot("acc")
    rig.venue.hold("BTCUSDT", Decimal(0))
    with pytest.raises(NoPosition):
        rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", StopPrices(Decimal("54000.1")))


def test_I2_a_look_that_began_with_an_older_wish_writes_nothing_after_a_newer_one(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected(rig)
    rig.venue._place("BTCUSDT", True, True, Decimal("1000.1"))
    newer = StopPrices(Decimal("54000.1"), STOPS.take_profit)
    setting: list[threading.Thread] = []
    reserve = MemoryWrites.reserve

    def slow(self: MemoryWrites, *args: Any) -> int:
        if not setting:  # the guard is about to write what was wanted so far
            arguments = ("acc", rig.stamp(), "BTCUSDT", newer)
            setting.append(threading.Thread(target=rig.gateway.set_stops, args=arguments))
            setting[0].start()
            setting[0].join(0.2)  # it waits for the guard
        return reserve(self, *args)

    monkeypatch.setattr(MemoryWrites, "reserve", slow)
    rig.gateway.protect_now("acc")
    setting[0].join()
    assert stops_of(rig) == newer


def test_set_stops_of_a_short_protects_the_short(rig: GatewayRig) -> None:
    rig.venue.hold("ETHUSDT", Decimal(-2))
    stops = StopPrices(Decimal("3300.01"), Decimal("2500.02"))
    assert rig.gateway.set_stops("acc", rig.stamp(), "ETHUSDT", stops) == stops
    assert rig.venue.stops[("ETHUSDT", True)].protects_long is False


def test_set_stops_without_a_position_is_not_found(rig: GatewayRig) -> None:
    with pytest.raises(NoPosition):
        rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", STOPS)
    assert issubclass(NoPosition, NotFound)
    assert rig.postgres.wanted == {}


def test_set_stops_on_the_wrong_side_is_refused_and_nothing_is_closed(rig: GatewayRig) -> None:
    protected(rig)
    wrong = StopPrices(Decimal(70000))
    with pytest.raises(WrongSideOfPrice):
        rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", wrong)
    assert rig.postgres.wanted[("acc", "BTCUSDT")].stops == STOPS
    rig.gateway.protect_now("acc")
    assert stops_of(rig) == STOPS
    assert rig.venue.held


def test_B5_a_lost_stop_is_wanted_and_placed_again(rig: GatewayRig) -> None:
    rig.venue.hold("BTCUSDT", Decimal("0.01"))
    rig.venue.script["set_stop"].append(OutcomeUnknown("lost"))
    with pytest.raises(OutcomeUnknown):
        rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", STOPS)
    rig.gateway.protect_now("acc")
    assert stops_of(rig) == STOPS


def test_B5_a_stop_that_stays_unknown_for_thirty_seconds_closes_the_position(
    rig: GatewayRig,
) -> None:
    rig.venue.presets_lost = True
    protected(rig)
    for _ in range(12):
        rig.venue.script["set_stop"].append(OutcomeUnknown("lost"))
        rig.gateway.protect_now("acc")
        rig.clock.advance(3)
    assert rig.venue.held == {}
    assert len(rig.alerts.of_kind("protection")) == 1


def test_A19_a_stop_that_is_not_on_the_new_tick_goes_onto_it(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.venue.presets_lost = True
    protected(rig)
    rules = rig.venue.instruments()
    coarse = {**rules, "BTCUSDT": replace(rules["BTCUSDT"], price_step=Decimal(1))}
    monkeypatch.setattr(rig.venue, "instruments", lambda: coarse)
    rig.venue.script["set_stop"].append(Rejected("not a multiple of 1", code="40808"))
    assert rig.gateway.protect_now("acc") == ("BTCUSDT",)
    assert rig.gateway.protect_now("acc") == ()
    assert stops_of(rig) == StopPrices(Decimal(55000), Decimal(66000))
    assert rig.venue.held


def test_B6_a_stop_on_the_wrong_side_closes_the_position_reduce_only(rig: GatewayRig) -> None:
    rig.venue.presets_lost = True
    protected(rig)
    rig.venue.marks["BTCUSDT"] = Decimal("54321.9")
    assert rig.gateway.protect_now("acc") == ("BTCUSDT",)
    assert rig.venue.held == {}
    close = [r for r in rig.venue.orders.values() if r.side is Side.SELL]
    assert [(r.reduce_only, r.size) for r in close] == [(True, Decimal("0.0123"))]
    assert rig.alerts.of_kind("protection")[0].owner_id == "owner"
    assert any(w.kind == "guard" and w.client_id for w in rig.postgres.writes)


def test_B7_a_stop_that_is_refused_does_not_stop_the_other_positions(rig: GatewayRig) -> None:
    rig.venue.presets_lost = True
    protected(rig)
    eth = StopPrices(Decimal("2500.5"))
    rig.gateway.submit("acc", rig.stamp(), [buy("af-2", "1", symbol="ETHUSDT", stops=eth)])
    rig.venue.script["set_stop"].append(Rejected("too many trigger orders", code="40890"))
    assert rig.gateway.protect_now("acc") == ("BTCUSDT",)
    assert stops_of(rig, "ETHUSDT") == eth


def test_B8_stops_of_a_position_that_is_gone_are_removed(rig: GatewayRig) -> None:
    protected(rig)
    rig.venue.hold("BTCUSDT", Decimal(0))
    rig.venue.stops[("BTCUSDT", True)] = PlacedStop("BTCUSDT", "77", True, True, Decimal(50000))
    rig.gateway.protect_now("acc")
    assert rig.venue.stops == {}


def test_stops_that_point_the_other_way_are_removed(rig: GatewayRig) -> None:
    rig.venue.hold("BTCUSDT", Decimal("-0.5"))
    rig.venue.stops[("BTCUSDT", True)] = PlacedStop("BTCUSDT", "77", True, True, Decimal(50000))
    rig.gateway.protect_now("acc")
    assert rig.venue.stops == {}


def test_B10_a_new_process_protects_what_the_old_one_promised(rig: GatewayRig) -> None:
    rig.venue.presets_lost = True
    protected(rig)
    rig.postgres.owner = None
    second = rig.another("gw-2")
    assert second.protect_now("acc") == ()
    assert stops_of(rig) == STOPS


def test_B10_what_the_order_of_a_leader_that_is_gone_brought_is_protected(rig: GatewayRig) -> None:
    """Gateway and leader died before anybody heard of the order; the next leader came first."""
    rig.venue.script["submit"].append("lost")
    rig.venue.script["order"].append(Unavailable("no answer"))
    protected(rig)
    rig.postgres.wanted.clear()  # what became of the order was never on record
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], epoch=8)
    rig.postgres.owner = None
    rig.venue.stops.clear()
    second = rig.another("gw-2")
    second.protect_now("acc")
    assert stops_of(rig) == STOPS


def test_a_wanted_stop_is_forgotten_once_its_position_is_gone_for_good(rig: GatewayRig) -> None:
    protected(rig)
    rig.clock.advance(20)
    rig.gateway.submit("acc", rig.stamp(), [sell()])
    rig.clock.advance(20)
    rig.gateway.protect_now("acc")
    assert rig.postgres.wanted == {}


def test_a_wanted_stop_stays_while_an_order_can_still_bring_the_position(rig: GatewayRig) -> None:
    limit = buy(order_type=OrderType.LIMIT, price=Decimal(50000), stops=StopPrices(Decimal(40000)))
    assert rig.gateway.submit("acc", rig.stamp(), [limit])[0].outcome is Outcome.ACCEPTED
    rig.clock.advance(100)
    rig.gateway.protect_now("acc")
    assert ("acc", "BTCUSDT") in rig.postgres.wanted


def test_the_guard_protects_while_postgres_is_away(rig: GatewayRig) -> None:
    protected(rig)
    rig.venue.stops.clear()
    rig.postgres.away = True
    loop = rig.gateway._loop
    loop.step(rig.clock.now())
    assert stops_of(rig) == STOPS
    rig.postgres.away = False
    rig.clock.advance(5)
    loop.step(rig.clock.now())
    assert any(write.kind == "guard" for write in rig.postgres.writes)


def test_a_gateway_that_lost_an_account_to_another_does_not_touch_it(rig: GatewayRig) -> None:
    protected(rig)
    rig.postgres.owner = "gw-2"
    rig.venue.stops.clear()
    rig.gateway._loop.step(rig.clock.now())
    assert rig.venue.stops == {}


def test_the_loop_looks_soon_after_a_write_often_at_positions_seldom_at_nothing(
    rig: GatewayRig,
) -> None:
    loop = rig.gateway._loop
    rig.gateway._desk.on_write = loop.nudge

    def wait_s() -> float:
        return (loop.step(rig.clock.now()) - rig.clock.now()).total_seconds()

    assert wait_s() == 60
    protected(rig)
    assert wait_s() == pytest.approx(0.2)
    rig.clock.advance(0.2)
    assert wait_s() == pytest.approx(0.8)
    rig.clock.advance(0.8)
    assert wait_s() == 1
    rig.clock.advance(1)
    assert wait_s() == 1


def test_a_flat_account_costs_one_look_a_minute(rig: GatewayRig) -> None:
    loop = rig.gateway._loop
    loop.step(rig.clock.now())
    before = len(rig.venue.calls)
    for _ in range(59):
        rig.clock.advance(1)
        loop.step(rig.clock.now())
    assert len(rig.venue.calls) == before


def test_C7_a_clock_that_is_set_back_five_minutes_delays_no_look(rig: GatewayRig) -> None:
    protected(rig)
    loop = rig.gateway._loop
    loop.step(rig.clock.now())
    rig.venue.stops.clear()
    rig.clock.current -= timedelta(seconds=300)
    loop.step(rig.clock.now())
    assert stops_of(rig) == STOPS


def test_an_account_that_fails_does_not_keep_others_from_protection() -> None:
    rig = GatewayRig()
    from tests.fakes.gateway_stores import account
    from tests.fakes.memory_venue import MemoryVenue

    other = MemoryVenue(rig.clock, "bcc")
    rig.postgres.put_account(account("bcc", label="other"))
    rig.venues.by_account["bcc"] = other
    rig.venue.presets_lost = True
    protected(rig)
    other.script["placed_stops"].append(Forbidden("key revoked", code="40037"))
    rig.gateway._loop.step(rig.clock.now())
    assert stops_of(rig) == STOPS
    assert "key revoked" in str(rig.gateway.health()["errors"])


def test_the_thread_wakes_for_a_write_and_ends_when_told(rig: GatewayRig) -> None:
    rig.gateway.start()
    try:
        assert rig.gateway.health()["alive"]
        protected(rig)
        assert "gateway:protection" in rig.clock.woken
    finally:
        rig.gateway.stop()
    assert rig.gateway.health()["alive"] is False
    assert rig.venue.closed


def test_an_exchange_that_is_away_is_looked_at_again(rig: GatewayRig) -> None:
    loop = rig.gateway._loop
    rig.venue.presets_lost = True
    protected(rig)
    rig.venue.script["set_stop"].append(Unavailable("maintenance"))
    loop.step(rig.clock.now())
    assert rig.gateway.health()["unprotected"] == {"acc": ["BTCUSDT"]}
    rig.clock.advance(5)
    loop.step(rig.clock.now())
    assert rig.gateway.health()["unprotected"] == {}
    assert stops_of(rig) == STOPS


@pytest.mark.parametrize(
    "failures",
    [
        [],
        [OutcomeUnknown("no answer")],
        [Unavailable("not now")],
        [Rejected("maintenance", code="40200")],
        [OutcomeUnknown("no answer"), Unavailable("not now")],
    ],
)
def test_I2_B5_B7_B9_a_missing_stop_is_tried_again_within_a_second(
    rig: GatewayRig, failures: list[AifapError]
) -> None:
    rig.venue.presets_lost = True
    protected(rig)
    rig.venue.script["set_stop"].extend(failures)
    loop = rig.gateway._loop
    loop.nudge("acc")
    for _ in range(8):
        until = loop.step(rig.clock.now())
        rig.clock.sleep_until(until)
        if stops_of(rig) == STOPS:
            break
    loop.step(rig.clock.now())
    figures = rig.gateway.health()["unprotected_times"]
    assert isinstance(figures, dict)
    assert figures["count"] >= 1
    assert figures["max_ms"] <= 2200
