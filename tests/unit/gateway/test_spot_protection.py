"""Promise 2 on spot: a coin whose target has a stop has exactly one stop, of the coin's size."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from module.exchange.venue import NoPosition, PlacedStop, WrongSideOfPrice
from module.model.errors import InvalidInput, OutcomeUnknown, Unavailable
from module.model.market import MarketType
from module.model.orders import Outcome, Side, StopPrices
from tests.fakes.gateway_rig import GatewayRig, buy, sell
from tests.fakes.gateway_stores import account
from tests.fakes.memory_spot import MemoryBare, MemorySpot

STOPS = StopPrices(Decimal("55000.5"), Decimal("66000.1"))
LOSS, PROFIT = ("BTCUSDT", True), ("BTCUSDT", False)


@pytest.fixture
def rig() -> GatewayRig:
    rig = GatewayRig(record=replace(account(), market=MarketType.SPOT))
    rig.venue = MemorySpot(rig.clock)
    rig.venues.by_account["acc"] = rig.venue
    return rig


def spot(rig: GatewayRig) -> MemorySpot:
    assert isinstance(rig.venue, MemorySpot)
    return rig.venue


def bought(rig: GatewayRig, size: str = "0.0123", client_id: str = "af-1") -> None:
    order = buy(client_id, size, stops=STOPS)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [order])
    assert result.outcome is Outcome.ACCEPTED


def placed(rig: GatewayRig) -> dict[bool, tuple[Decimal, Decimal | None]]:
    stops = rig.venue.placed_stops()
    assert len({stop.is_stop_loss for stop in stops}) == len(stops)
    return {stop.is_stop_loss: (stop.trigger_price, stop.size) for stop in stops}


def test_the_stops_of_a_purchase_are_placed_at_the_first_look(rig: GatewayRig) -> None:
    bought(rig)
    assert placed(rig) == {}
    assert rig.gateway.protect_now("acc") == ()
    size = Decimal("0.0123")
    assert placed(rig) == {True: (Decimal("55000.5"), size), False: (Decimal("66000.1"), size)}


def test_a_second_look_changes_nothing(rig: GatewayRig) -> None:
    bought(rig)
    rig.gateway.protect_now("acc")
    before = len(rig.venue.calls)
    rig.gateway.protect_now("acc")
    assert {"set_stop", "remove_stop", "submit"}.isdisjoint(rig.venue.calls[before:])


def test_B17_the_size_of_the_stops_follows_the_balance(rig: GatewayRig) -> None:
    bought(rig)
    rig.gateway.protect_now("acc")
    bought(rig, "0.0077", "af-2")
    rig.gateway.protect_now("acc")
    assert {size for _, size in placed(rig).values()} == {Decimal("0.02")}
    rig.gateway.submit("acc", rig.stamp(), [sell("af-3", "0.015")])
    rig.gateway.protect_now("acc")
    assert {size for _, size in placed(rig).values()} == {Decimal("0.005")}


def test_B8_stops_of_a_coin_that_is_gone_are_removed_and_forgotten(rig: GatewayRig) -> None:
    bought(rig)
    rig.gateway.protect_now("acc")
    rig.gateway.submit("acc", rig.stamp(), [sell("af-3", "0.0123")])
    assert len(rig.venue.placed_stops()) == 2
    rig.clock.advance(11)
    rig.gateway.protect_now("acc")
    assert rig.venue.placed_stops() == ()
    assert rig.postgres.wanted == {}


def test_B9_of_several_stops_of_a_kind_one_is_left(rig: GatewayRig) -> None:
    bought(rig)
    rig.gateway.protect_now("acc")
    size = Decimal("0.0123")
    spot(rig).more_stops = (PlacedStop("BTCUSDT", "77", True, True, Decimal("55000.5"), size),)
    rig.gateway.protect_now("acc")
    assert placed(rig)[True] == (Decimal("55000.5"), size)


def test_a_stop_that_is_not_wanted_any_more_is_removed_whatever_its_size(rig: GatewayRig) -> None:
    bought(rig)
    rig.gateway.protect_now("acc")
    rig.venue.stops[PROFIT] = replace(rig.venue.stops[PROFIT], size=Decimal("0.001"))
    only_loss = StopPrices(Decimal("54000.1"))
    assert rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", only_loss) == only_loss
    assert set(rig.venue.stops) == {LOSS}


def test_B10_removed_stops_are_put_back(rig: GatewayRig) -> None:
    bought(rig)
    rig.gateway.protect_now("acc")
    rig.venue.stops.clear()
    rig.gateway.protect_now("acc")
    assert set(placed(rig)) == {True, False}


def test_B5_a_stop_whose_answer_is_lost_is_there_once(rig: GatewayRig) -> None:
    bought(rig)
    rig.venue.script["set_stop"].append("lost")
    assert rig.gateway.protect_now("acc") == ("BTCUSDT",)
    assert rig.gateway.protect_now("acc") == ()
    assert set(placed(rig)) == {True, False}


def test_B5_a_stop_that_stays_unknown_for_thirty_seconds_sells_the_coin(rig: GatewayRig) -> None:
    bought(rig)
    for _ in range(12):
        rig.venue.script["set_stop"].append(OutcomeUnknown("lost"))
        rig.gateway.protect_now("acc")
        rig.clock.advance(3)
    assert spot(rig).sold("BTCUSDT") == Decimal("0.0123")
    assert len(rig.alerts.of_kind("protection")) == 1


def test_B15_a_stop_that_the_price_has_passed_and_that_did_not_act_sells_the_coin(
    rig: GatewayRig,
) -> None:
    bought(rig)
    rig.gateway.protect_now("acc")
    rig.venue.marks["BTCUSDT"] = Decimal("54321.9")
    assert rig.gateway.protect_now("acc") == ("BTCUSDT",)
    assert spot(rig).sold("BTCUSDT") == Decimal("0.0123")
    rig.gateway.protect_now("acc")
    assert rig.venue.placed_stops() == ()


def test_a_stop_that_fires_while_the_guard_looks_is_not_acted_for(rig: GatewayRig) -> None:
    bought(rig)
    rig.gateway.protect_now("acc")
    venue = spot(rig)
    venue.marks["BTCUSDT"] = Decimal("54321.9")
    seen = venue.holdings()
    venue.hold("BTCUSDT", Decimal(0))
    venue.holdings = lambda **words: seen  # type: ignore[method-assign]
    assert rig.gateway.protect_now("acc") == ()
    assert venue.sold("BTCUSDT") == 0
    assert rig.alerts.of_kind("protection") == []


def test_coins_that_nobody_asked_to_protect_are_left_alone(rig: GatewayRig) -> None:
    rig.venue.hold("ETHUSDT", Decimal(2))
    assert rig.gateway.protect_now("acc") == ()
    assert rig.venue.placed_stops() == ()
    assert "submit" not in rig.venue.calls


def test_set_stops_of_a_coin_that_is_not_held_is_not_found(rig: GatewayRig) -> None:
    with pytest.raises(NoPosition):
        rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", STOPS)


def test_set_stops_on_the_wrong_side_is_refused_and_nothing_is_sold(rig: GatewayRig) -> None:
    bought(rig)
    rig.gateway.protect_now("acc")
    with pytest.raises(WrongSideOfPrice):
        rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", StopPrices(Decimal(70000)))
    rig.gateway.protect_now("acc")
    assert placed(rig)[True][0] == STOPS.stop_loss


def test_B10_a_new_process_protects_what_the_old_one_promised(rig: GatewayRig) -> None:
    bought(rig)
    another = rig.another("gw-1")
    another.protect_now("acc")
    assert set(placed(rig)) == {True, False}


def test_a_venue_without_stop_orders_refuses_them_and_names_the_way_out(rig: GatewayRig) -> None:
    rig.venues.by_account["acc"] = MemoryBare(rig.clock)
    stamp = rig.stamp()
    with pytest.raises(InvalidInput, match="software_stops"):
        rig.gateway.set_stops("acc", stamp, "BTCUSDT", STOPS)
    (result,) = rig.gateway.submit("acc", stamp, [buy(stops=STOPS)])
    assert (result.outcome, result.code) == (Outcome.REJECTED, "stops")
    (result,) = rig.gateway.submit("acc", stamp, [buy("af-2")])
    assert result.outcome is Outcome.ACCEPTED
    assert rig.gateway.protect_now("acc") == ()


def test_a_sale_never_carries_stops(rig: GatewayRig) -> None:
    bought(rig)
    order = buy("af-4", side=Side.SELL, stops=STOPS)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [order])
    assert (result.outcome, result.code) == (Outcome.REJECTED, "stops")


def test_the_position_cap_counts_the_coins_that_are_held() -> None:
    """The last gate's cap of one position holds on spot too (promise 8)."""
    record = replace(account(), market=MarketType.SPOT, limits={"position_notional_max": "1500"})
    rig = GatewayRig(record=record)
    rig.venue = MemorySpot(rig.clock)
    rig.venues.by_account["acc"] = rig.venue
    bought(rig)
    rig.clock.advance(10)
    bought(rig, client_id="af-2")
    rig.clock.advance(10)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy("af-3", "0.0123")])
    assert result.code == "limit-position-notional"
    (sale,) = rig.gateway.submit("acc", rig.stamp(), [sell("af-4", "0.0123")])
    assert sale.outcome is Outcome.ACCEPTED


def test_I2_a_coin_that_had_no_stop_for_long_opens_again_once_it_has_one(rig: GatewayRig) -> None:
    """Its session says the stops again meanwhile: that must not make it another coin."""
    bought(rig)
    rig.venue.script["set_stop"].extend([Unavailable("maintenance")] * 9)
    rig.gateway.protect_now("acc")
    rig.clock.advance(40)
    rig.gateway.protect_now("acc")
    (refused,) = rig.gateway.submit("acc", rig.stamp(), [buy("af-2", "0.001", stops=STOPS)])
    assert refused.code == "unprotected"
    rig.venue.script["set_stop"].clear()
    assert rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", STOPS) == STOPS
    rig.gateway.protect_now("acc")
    (again,) = rig.gateway.submit("acc", rig.stamp(), [buy("af-3", "0.001", stops=STOPS)])
    assert again.outcome is Outcome.ACCEPTED


def test_I2_what_was_told_of_a_coin_that_is_gone_is_over(rig: GatewayRig) -> None:
    bought(rig)
    rig.venue.script["set_stop"].extend([Unavailable("maintenance")] * 9)
    rig.gateway.protect_now("acc")
    rig.clock.advance(40)
    rig.gateway.protect_now("acc")
    rig.gateway.submit("acc", rig.stamp(), [sell("af-2", "0.0123")])
    rig.venue.script["set_stop"].clear()
    rig.gateway.protect_now("acc")
    (again,) = rig.gateway.submit("acc", rig.stamp(), [buy("af-3", "0.001", stops=STOPS)])
    assert again.outcome is Outcome.ACCEPTED
