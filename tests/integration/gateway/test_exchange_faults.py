"""Groups A and B of the fault catalogue, met by the gateway at the real paper exchange over HTTP.

After each fault the exchange's own ledger is asked what really happened: an order is there at most
once (I1), an outcome is only called rejected on proof (I4), what is held is protected (I2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.clock import WorldClock
from module.exchange.venue import NoPosition, UnifiedAccount
from module.model.accounts import MarginMode
from module.model.canonical import parse_instant
from module.model.errors import (
    AifapError,
    Conflict,
    Forbidden,
    InvariantViolated,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Unavailable,
)
from module.model.orders import OrderStatus, OrderType, Outcome, StopPrices
from tests.fakes.faulty_exchange import FaultyExchange, faulty_exchange
from tests.fakes.gateway_rig import buy, sell
from tests.fakes.simulator_process import RunningSimulator, running_simulator

pytestmark = pytest.mark.timeout(120)
Running = tuple[RunningSimulator, WorldClock]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_simulator(tmp_path_factory.mktemp("simulator")) as simulator:
        clock = simulator.clock("faults")
        yield simulator, clock
        clock.close()


@pytest.fixture
def exchange(running: Running) -> Iterator[FaultyExchange]:
    with faulty_exchange(*running) as found:
        yield found


def limit_buy(exchange: FaultyExchange, client_id: str = "af-1", factor: str = "0.97") -> None:
    order = buy(client_id, "0.05", order_type=OrderType.LIMIT, price=exchange.price(factor))
    (result,) = exchange.submit(order)
    assert result.outcome is Outcome.ACCEPTED


# --- orders whose answer says nothing ---


@pytest.mark.parametrize(
    "fault",
    [
        *(("A1", "reset"), ("A4", "cut"), ("A4", "never_read")),
        *(("A5", v) for v in ("html", "empty", "truncated", "null", "content_type")),
        *(("A6", c) for c in ("40786", "40708", "43118", "45034", "50060", "25212")),
        *(("A11", c) for c in ("40010", "40015", "40725", "45001", "31016", "40908", "40910")),
        ("A11", "12018"),
    ],
    ids="-".join,
)
def test_A1_A4_A5_A6_A11_an_order_is_there_once_whatever_was_answered(
    exchange: FaultyExchange, fault: tuple[str, str]
) -> None:
    exchange.fault(fault[0], variant=fault[1])
    order = buy(stops=exchange.stops())
    (result,) = exchange.submit(order)
    assert exchange.fired() == 1
    assert result.outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN)
    assert result.outcome is Outcome.UNKNOWN or exchange.orders_at_the_exchange() == ["af-1"]
    exchange.look()
    (again,) = exchange.submit(order)
    there = exchange.orders_at_the_exchange()
    assert there == (["af-1"] if again.outcome is Outcome.ACCEPTED else [])
    assert (fault == ("A4", "never_read")) == (there == [])
    if there:
        assert exchange.stops_held() == order.stops
        assert exchange.outcomes() == {"af-1": "accepted"}


@pytest.mark.parametrize(("variant", "there"), [("filled", ["af-1"]), ("closed", ["af-1", "af-2"])])
def test_A2_a_lost_batch_is_resolved_leg_by_leg(
    exchange: FaultyExchange, variant: str, there: list[str]
) -> None:
    exchange.fault("A2", variant=variant)
    stops = exchange.stops()
    results = exchange.submit(buy("af-1", stops=stops), buy("af-2", stops=stops))
    assert exchange.fired() == 1
    assert exchange.orders_at_the_exchange() == there
    for result in results:
        found = result.client_id in there
        assert result.outcome is (Outcome.ACCEPTED if found else Outcome.UNKNOWN)
    exchange.look()
    assert exchange.held() in (0, Decimal("0.0123"))
    assert exchange.stops_held() in (None, stops)


def test_A3_an_order_that_arrives_late_is_adopted_and_not_sent_again(
    exchange: FaultyExchange,
) -> None:
    exchange.fault("A3", hold_s=8)
    order = buy(stops=exchange.stops())
    (result,) = exchange.submit(order)
    assert result.outcome is Outcome.UNKNOWN
    assert exchange.submit(order)[0].outcome is Outcome.UNKNOWN
    exchange.look(9)
    assert exchange.submit(order)[0].outcome is Outcome.ACCEPTED
    assert exchange.orders_at_the_exchange() == ["af-1"]
    assert exchange.stops_held() == order.stops


@pytest.mark.parametrize("variant", ["lost", "mixed"])
def test_A7_each_leg_of_a_batch_has_its_own_outcome(exchange: FaultyExchange, variant: str) -> None:
    exchange.fault("A7", variant=variant)
    results = exchange.submit(buy("af-1"), buy("af-2"), buy("af-3"))
    assert exchange.fired() == 1
    there = exchange.orders_at_the_exchange()
    for result in results:
        assert (result.outcome is Outcome.ACCEPTED) == (result.client_id in there)
    assert len(there) == (3 if variant == "lost" else 2)


def test_A7_a_leg_in_both_lists_halts_the_account(exchange: FaultyExchange) -> None:
    exchange.fault("A7", variant="both")
    with pytest.raises(InvariantViolated, match="placed and as failed"):
        exchange.submit(buy("af-1"), buy("af-2"))
    exchange.clock.sleep(1.2)
    assert exchange.submit(buy("af-3"))[0].code == "halted"
    assert len(exchange.alerts.of_kind("halted")) == 1


@pytest.mark.parametrize("variant", ["shuffled", "case", "cut"])
def test_A8_legs_are_matched_by_their_exact_ids(exchange: FaultyExchange, variant: str) -> None:
    exchange.fault("A8", variant=variant)
    results = exchange.submit(buy("af-one"), buy("af-two"), buy("af-six"))
    assert exchange.fired() == 1
    assert [result.client_id for result in results] == ["af-one", "af-two", "af-six"]
    assert {result.outcome for result in results} == {Outcome.ACCEPTED}
    assert sorted(exchange.orders_at_the_exchange()) == ["af-one", "af-six", "af-two"]


def test_A9_an_order_that_is_not_found_for_a_while_is_not_sent_again(
    exchange: FaultyExchange,
) -> None:
    exchange.fault("A9", lag_s=5)
    exchange.fault("A1")
    order = buy(stops=exchange.stops())
    assert exchange.submit(order)[0].outcome is Outcome.UNKNOWN
    assert exchange.submit(order)[0].outcome is Outcome.UNKNOWN
    exchange.look(5)
    assert exchange.outcomes() == {"af-1": "accepted"}
    assert exchange.orders_at_the_exchange() == ["af-1"]


def test_A10_a_query_that_fails_is_never_not_found(exchange: FaultyExchange) -> None:
    exchange.fault("A10", count=4)
    exchange.fault("A1")
    order = buy()
    assert exchange.submit(order)[0].outcome is Outcome.UNKNOWN
    with pytest.raises(Unavailable):
        exchange.gateway.order(exchange.account_id, "BTCUSDT", "af-1")
    exchange.clock.sleep(1.2)
    assert exchange.orders_at_the_exchange() == ["af-1"]


# --- limits, outages, keys ---


def test_A12_after_a_429_nobody_of_the_key_asks_before_it_may(exchange: FaultyExchange) -> None:
    exchange.fault("A12")
    with pytest.raises(RateLimited) as caught:
        exchange.submit(buy())
    assert caught.value.retry_after_s == 7
    for _ in range(3):
        with pytest.raises(RateLimited):
            exchange.gateway.snapshot(exchange.account_id)
        exchange.clock.sleep(2)
    exchange.clock.sleep(1.2)
    assert exchange.submit(buy())[0].outcome is Outcome.ACCEPTED
    assert exchange.orders_at_the_exchange() == ["af-1"]


@pytest.mark.parametrize("variant", ["418", "403"])
def test_A13_a_ban_stops_everything_of_the_address(exchange: FaultyExchange, variant: str) -> None:
    exchange.fault("A13", variant=variant)
    seen = 0
    for number in range(8):
        try:
            exchange.submit(buy(f"af-{number}", "0.001"))
        except RateLimited as error:
            seen += 1
            exchange.clock.sleep(error.retry_after_s or 0)
    assert seen >= 2
    assert len(exchange.orders_at_the_exchange()) == 8 - seen


@pytest.mark.parametrize("variant", ["503", "40200", "45043"])
def test_A14_A15_an_outage_opens_the_circuit_and_everything_goes_on_afterwards(
    exchange: FaultyExchange, variant: str
) -> None:
    stops = exchange.protected_long()
    exchange.fault("A14", variant=variant, span_s=90)
    errors: list[AifapError] = []
    for number in range(30):
        try:
            exchange.gateway.submit(exchange.account_id, exchange.stamp(), [buy(f"af-{number}")])
        except (Unavailable, RateLimited) as error:
            errors.append(error)
        exchange.clock.sleep(0.5)
    assert len(errors) >= 29, "the first may be unknown"
    assert sum(error.code == "circuit-open" for error in errors) >= 20
    circuits = exchange.gateway.health()["circuits"]
    assert isinstance(circuits, list)
    assert circuits[0]["state"] in ("open", "half-open")
    since = exchange.clock.now() - parse_instant(circuits[0]["since"])
    assert timedelta(0) <= since < timedelta(seconds=60), "world time, and not long ago"
    asked = exchange.fired()
    exchange.look(60)
    assert exchange.fired() - asked <= 3, "an exchange that is down is asked seldom"
    exchange.clock.sleep(80)
    assert exchange.submit(buy("af-after", stops=stops))[0].outcome is Outcome.ACCEPTED
    assert exchange.orders_at_the_exchange() == ["af-first", "af-after"]
    exchange.look()
    assert exchange.stops_held() == stops


@pytest.mark.parametrize("variant", ["40037", "40036", "40038"])
def test_A16_refused_keys_stop_everything_and_are_told_once(
    exchange: FaultyExchange, variant: str
) -> None:
    exchange.protected_long()
    exchange.fault("A16", variant=variant)
    for _ in range(3):
        exchange.look()
        with contextlib.suppress(Forbidden):
            assert exchange.submit(buy("af-2"))[0].outcome is Outcome.REJECTED
    assert exchange.fired() == 1
    (alert,) = exchange.alerts.of_kind("credentials")
    assert "BTCUSDT" in str(alert.lines)


def test_A17_what_breaks_the_rules_is_refused_before_it_leaves(exchange: FaultyExchange) -> None:
    assert exchange.submit(buy(size="0.00001"))[0].code == "size"
    assert exchange.submit(buy("af-2", stops=StopPrices(Decimal("0.01"))))[0].code == "price"
    assert exchange.orders_at_the_exchange() == []


def test_A18_no_money_left_is_a_final_refusal(exchange: FaultyExchange) -> None:
    exchange.fault("A18")
    (result,) = exchange.submit(buy())
    assert exchange.fired() == 1
    assert (result.outcome, result.rules_changed) == (Outcome.REJECTED, False)
    assert exchange.outcomes() == {"af-1": "rejected"}
    assert exchange.held() == 0


@pytest.mark.parametrize(("rule", "symbol"), [("lot", "XRPUSDT"), ("minimum", "ADAUSDT")])
def test_A19_changed_rules_are_read_again_at_the_first_refusal(
    exchange: FaultyExchange, rule: str, symbol: str
) -> None:
    before = exchange.gateway.instruments(exchange.account_id)[symbol]
    exchange.fault("A19", variant=rule, factor=1000, symbol=symbol)
    order = buy("af-1", "11", symbol=symbol)
    (result,) = exchange.submit(order)
    assert exchange.fired() == 1
    assert (result.outcome, result.rules_changed) == (Outcome.REJECTED, True)
    after = exchange.gateway.instruments(exchange.account_id)[symbol]
    assert after != before


def test_A19_a_position_off_the_new_lot_is_closed_whole(exchange: FaultyExchange) -> None:
    symbol = "LTCUSDT"
    assert exchange.submit(buy("af-1", "1.3", symbol=symbol))[0].outcome is Outcome.ACCEPTED
    exchange.fault("A19", variant="lot", symbol=symbol)
    (refused,) = exchange.submit(buy("af-2", "1.1", symbol=symbol))
    assert (exchange.fired(), refused.rules_changed) == (1, True)
    (part,) = exchange.submit(sell("af-3", "0.7", symbol=symbol))
    assert part.outcome is Outcome.REJECTED
    (whole,) = exchange.submit(sell("af-4", "1.3", symbol=symbol))
    assert whole.outcome is Outcome.ACCEPTED
    assert exchange.held(symbol) == 0


@pytest.mark.parametrize("variant", ["suspended", "delisted"])
def test_A20_a_symbol_that_is_not_traded_refuses_and_others_go_on(
    exchange: FaultyExchange, variant: str
) -> None:
    exchange.gateway.instruments(exchange.account_id)
    symbol = "DOGEUSDT" if variant == "delisted" else "SOLUSDT"
    exchange.fault("A20", variant=variant, symbol=symbol)
    (result,) = exchange.submit(buy("af-1", "1", symbol=symbol))
    assert exchange.fired() == 1
    assert result.outcome in (Outcome.REJECTED, Outcome.UNKNOWN)
    assert exchange.submit(buy("af-2"))[0].outcome is Outcome.ACCEPTED
    assert exchange.orders_at_the_exchange() == ["af-2"]


def test_A21_settings_whose_answer_is_lost_are_read_back(exchange: FaultyExchange) -> None:
    exchange.fault("A21", variant="lost")
    found = exchange.gateway.apply_symbol_settings(
        *(exchange.account_id, exchange.stamp(), "ETHUSDT", Decimal(7), MarginMode.CROSSED)
    )
    assert exchange.fired() == 1
    assert found.leverage == 7


def test_A22_hedge_mode_opens_nothing_and_says_how_to_leave_it(exchange: FaultyExchange) -> None:
    exchange.fault("A22", signed_only=True)
    with pytest.raises(Conflict, match="One-way"):
        exchange.submit(buy())
    assert exchange.orders_at_the_exchange() == []


def test_A23_an_exchange_whose_clock_is_off_is_signed_for_and_opens_nothing(
    exchange: FaultyExchange,
) -> None:
    stops = exchange.protected_long()
    exchange.fault("A23", skew_s=40)
    exchange.look(61)
    assert len(exchange.alerts.of_kind("clock")) == 1
    assert exchange.submit(buy("af-2"))[0].code == "clock-skew"
    assert exchange.submit(sell("af-3", "0.0023"))[0].outcome is Outcome.ACCEPTED
    assert exchange.stops_held() == stops


def test_A26_an_order_with_another_size_than_sent_halts(exchange: FaultyExchange) -> None:
    exchange.fault("A26", variant="size")
    exchange.submit(buy(stops=exchange.stops()))
    assert exchange.fired() == 1
    with pytest.raises(InvariantViolated, match=r"size 0\.0246, sent 0\.0123"):
        exchange.gateway.order(exchange.account_id, "BTCUSDT", "af-1")
    assert exchange.submit(buy("af-2"))[0].code == "halted"


def test_A28_B13_B17_a_position_that_somebody_halved_keeps_its_stops_and_opens_nothing(
    exchange: FaultyExchange,
) -> None:
    stops = exchange.protected_long("0.1")
    exchange.look(60)
    exchange.fault("A28", variant="close", share="0.5", operation="all-position")
    exchange.look()
    exchange.look()
    assert exchange.fired() == 1
    assert exchange.held() == Decimal("0.05")
    assert len(exchange.alerts.of_kind("position-changed")) == 1
    assert exchange.submit(buy("af-2"))[0].code == "paused"
    assert exchange.stops_held() == stops


@pytest.mark.parametrize("variant", ["lost", "told"])
def test_A30_a_cancel_that_lost_the_race_is_a_fill(exchange: FaultyExchange, variant: str) -> None:
    limit_buy(exchange)
    exchange.fault("A30", variant=variant)
    try:
        exchange.gateway.cancel(exchange.account_id, exchange.stamp(), "BTCUSDT", "af-1")
    except OutcomeUnknown:
        assert variant == "lost"
    report = exchange.gateway.order(exchange.account_id, "BTCUSDT", "af-1")
    assert (report.status, report.filled_size) == (OrderStatus.FILLED, Decimal("0.05"))
    cancels = [write for write in exchange.postgres.writes if write.kind == "cancel"]
    assert [write.outcome for write in cancels] == ["unknown" if variant == "lost" else "accepted"]


@pytest.mark.parametrize("variant", ["filled", "cancelled", "43001", "45055", "22001"])
def test_A31_cancelling_what_is_over_succeeds_after_asking(
    exchange: FaultyExchange, variant: str
) -> None:
    limit_buy(exchange)
    exchange.fault("A31", variant=variant)
    exchange.gateway.cancel(exchange.account_id, exchange.stamp(), "BTCUSDT", "af-1")
    assert exchange.fired() == 1
    assert exchange.gateway.order(exchange.account_id, "BTCUSDT", "af-1").status.is_terminal


def test_a_key_of_a_unified_account_is_refused_with_the_way_to_a_classic_one(
    exchange: FaultyExchange,
) -> None:
    exchange.simulator.control(
        "POST",
        "faults",
        {"operation": "*", "moment": "before", "answer": "code", "code": "40085"},
    )
    with pytest.raises(UnifiedAccount, match="classic mode"):
        exchange.gateway._desk.open(exchange.account_id).venue.check_key()


# --- protection ---


def without_stops(exchange: FaultyExchange) -> StopPrices:
    """A long that lost its stops; what they should be."""
    stops = exchange.protected_long()
    venue = exchange.gateway._desk.open(exchange.account_id).venue
    for stop in venue.placed_stops():
        venue.remove_stop(stop)
    exchange.clock.sleep(1.2)
    return stops


@pytest.mark.parametrize("variant", ["done", "not_done"])
def test_B5_a_stop_whose_answer_is_lost_is_placed_at_the_next_look(
    exchange: FaultyExchange, variant: str
) -> None:
    stops = without_stops(exchange)
    exchange.fault("B5", variant=variant)
    exchange.look()
    assert exchange.fired() == 1
    exchange.look()
    assert exchange.stops_held() == stops


def test_B5_a_stop_that_stays_unknown_closes_the_position(exchange: FaultyExchange) -> None:
    without_stops(exchange)
    exchange.fault("B5", variant="not_done", count=99)
    for _ in range(8):
        exchange.look(5)
    exchange.clock.sleep(1.2)
    assert exchange.held() == 0
    assert exchange.alerts.of_kind("protection")


@pytest.mark.parametrize("variant", ["40834", "40836", "40917", "45062", "45122", "moved"])
def test_B6_a_stop_that_the_price_has_passed_closes_at_once_and_never_more(
    exchange: FaultyExchange, variant: str
) -> None:
    without_stops(exchange)
    exchange.fault("B6", variant=variant)
    exchange.look()
    exchange.look()
    assert exchange.fired() == 1
    assert exchange.held() == 0
    (alert,) = exchange.alerts.of_kind("protection")
    assert "closed" in alert.title


@pytest.mark.parametrize("variant", ["40834", "45062"])
def test_B6_a_moved_stop_that_the_price_has_passed_leaves_the_old_one(
    exchange: FaultyExchange, variant: str
) -> None:
    stops = exchange.protected_long()
    exchange.fault("B6", variant=variant)
    moved = StopPrices(exchange.price("0.91"), stops.take_profit)
    with pytest.raises(Rejected) as refused:
        exchange.gateway.set_stops(exchange.account_id, exchange.stamp(), "BTCUSDT", moved)
    assert exchange.fired() == 1
    assert refused.value.code == "stop-on-wrong-side"
    exchange.look()
    assert exchange.stops_held() == stops
    assert exchange.held() == Decimal("0.0123")


@pytest.mark.parametrize("variant", ["43031", "40890", "43071"])
def test_B7_a_refused_stop_is_in_place_soon(exchange: FaultyExchange, variant: str) -> None:
    stops = without_stops(exchange)
    exchange.fault("B7", variant=variant)
    exchange.look()
    exchange.look()
    assert exchange.fired() == 1
    assert exchange.stops_held() == stops
    assert exchange.held() == Decimal("0.0123")


@pytest.mark.parametrize("variant", ["listed", "really"])
def test_B8_a_stop_without_a_position_is_gone_within_a_minute(
    exchange: FaultyExchange, variant: str
) -> None:
    exchange.protected_long()
    exchange.submit(sell("af-2"))
    exchange.fault("B8", variant=variant)
    exchange.look()
    exchange.look(40)
    exchange.look()
    assert exchange.fired() >= (variant == "really")
    venue = exchange.gateway._desk.open(exchange.account_id).venue
    assert venue.placed_stops() == ()


@pytest.mark.parametrize("variant", ["refused", "lost"])
def test_B9_a_moved_stop_that_was_lost_on_the_way_is_back_at_the_next_look(
    exchange: FaultyExchange, variant: str
) -> None:
    stops = exchange.protected_long()
    exchange.fault("B9", variant=variant)
    moved = StopPrices(exchange.price("0.92"), stops.take_profit)
    with pytest.raises((Rejected, OutcomeUnknown)):
        exchange.gateway.set_stops(exchange.account_id, exchange.stamp(), "BTCUSDT", moved)
    assert exchange.fired() == 1
    exchange.look()
    found = exchange.stops_held()
    assert found in (stops, moved)
    assert found is not None
    assert found.stop_loss is not None


def test_B10_a_position_that_lost_its_stops_has_them_again(exchange: FaultyExchange) -> None:
    stops = exchange.protected_long()
    exchange.fault("B10", variant="cancelled", operation="all-position")
    exchange.look()
    exchange.look()
    assert exchange.fired() == 1
    assert exchange.stops_held() == stops


@pytest.mark.parametrize("variant", ["liquidated", "deleveraged", "profit"])
def test_B11_a_reduction_of_a_position_that_is_gone_opens_nothing(
    exchange: FaultyExchange, variant: str
) -> None:
    exchange.protected_long()
    exchange.fault("B11", variant=variant, operation="place-order", signed_only=True)
    (result,) = exchange.submit(sell("af-2"))
    assert exchange.fired() == 1
    assert variant == "profit" or result.outcome in (Outcome.REJECTED, Outcome.UNKNOWN)
    assert exchange.held() == 0
    exchange.look()
    venue = exchange.gateway._desk.open(exchange.account_id).venue
    assert venue.placed_stops() == ()
    with pytest.raises(NoPosition):
        exchange.gateway.set_stops(
            *(exchange.account_id, exchange.stamp(), "BTCUSDT", exchange.stops())
        )


def test_B15_a_stop_that_fired_without_an_order_is_finished_by_the_guard(
    exchange: FaultyExchange,
) -> None:
    exchange.protected_long()
    exchange.fault("B15")
    exchange.simulator.control("POST", "prices", {"symbol": "BTCUSDT", "factor": "0.8"})
    for _ in range(3):
        exchange.look(2)
    assert exchange.fired() >= 1
    assert exchange.held() == 0


def test_promise_4_a_write_past_its_deadline_never_leaves(exchange: FaultyExchange) -> None:
    late = replace(exchange.stamp(), not_after=exchange.clock.now() - timedelta(seconds=1))
    with pytest.raises(Rejected):
        exchange.gateway.submit(exchange.account_id, late, [buy()])
    assert exchange.orders_at_the_exchange() == []
