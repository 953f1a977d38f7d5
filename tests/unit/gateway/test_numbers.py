"""What the gateway counts of itself: it grows when something happened, and names nobody."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal

import pytest

from module.exchange.venue import Priority, RequestKind
from module.gateway.budget import ADDRESS_PER_MINUTE, RequestBudget
from module.gateway.numbers import REQUEST_BOUNDS_S, Spread
from module.model.errors import RateLimited, Unavailable
from module.model.orders import StopPrices
from tests.fakes.gateway_rig import GatewayRig, buy, sell
from tests.fakes.hand_clock import HandClock

STOPS = StopPrices(Decimal("55000.5"), Decimal("66000.1"))
PLACE = RequestKind("place", 10, private=True)


def test_orders_are_counted_by_what_became_of_them() -> None:
    rig = GatewayRig()
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    rig.venue.script["submit"].append(Unavailable("not now"))
    rig.gateway.submit("acc", rig.stamp(), [sell("af-9", "7000")])
    counted = rig.gateway.numbers().counts.orders
    assert counted["accepted"] == 1
    assert sum(counted.values()) == 2


def test_the_budget_tells_what_is_left_and_what_it_refused() -> None:
    budget = RequestBudget(HandClock())
    account = budget.for_account("http://x/", "a-key")
    account.admit([PLACE] * 10, Priority.ORDER)
    with pytest.raises(RateLimited):
        account.admit([PLACE], Priority.ORDER)
    rooms = {room.priority: room for room in budget.rooms()}
    assert {room.address for room in rooms.values()} == {"http://x"}
    assert rooms["protection"].capacity == ADDRESS_PER_MINUTE
    assert rooms["protection"].left == ADDRESS_PER_MINUTE - 10
    assert rooms["market_data"].capacity == ADDRESS_PER_MINUTE // 2
    assert budget.counts.read().refused == {"order": 1}
    assert budget.shut_out() == 0
    account.penalise(30, whole_address=False)
    assert budget.shut_out() == 1


def test_requests_are_spread_by_endpoint_outcome_and_time() -> None:
    budget = RequestBudget(HandClock())
    account = budget.for_account("http://x", "k")
    for seconds in (0.02, 0.3, 99.0):
        account.took(PLACE, "answered", seconds)
    account.took(PLACE, "lost", 10.0)
    spreads = budget.counts.read().requests
    assert set(spreads) == {("place", "answered"), ("place", "lost")}
    answered = spreads["place", "answered"]
    assert (sum(answered.counts), answered.counts[0], answered.counts[-1]) == (3, 1, 1)
    assert answered.total == pytest.approx(99.32)


def test_a_value_on_a_bound_belongs_to_it() -> None:
    spread = Spread(REQUEST_BOUNDS_S)
    spread.add(REQUEST_BOUNDS_S[2])
    assert spread.counts[2] == 1


def test_I2_unprotected_positions_and_their_seconds_are_told_and_never_fall() -> None:
    rig = GatewayRig()
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.gateway.protect_now("acc")
    assert rig.gateway.numbers().unprotected == 0
    del rig.venue.stops[("BTCUSDT", True)]
    rig.venue.script["set_stop"].append(Unavailable("not now"))
    rig.gateway.protect_now("acc")
    rig.clock.advance(4)
    bare = rig.gateway.numbers()
    assert (bare.unprotected, bare.unprotected_oldest_s, bare.unprotected_s) == (1, 4.0, 4.0)
    rig.gateway.protect_now("acc")
    rig.clock.advance(60)
    mended = rig.gateway.numbers()
    assert (mended.unprotected, mended.unprotected_periods, mended.unprotected_s) == (0, 1, 4.0)


def test_the_age_of_the_last_good_look_grows_while_looks_fail() -> None:
    rig = GatewayRig()
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    loop = rig.gateway._loop
    loop.nudge("acc")
    for _ in range(3):
        rig.clock.sleep_until(loop.step(rig.clock.now()))
    fresh = rig.gateway.numbers()
    assert fresh.protection.open_accounts == 1
    assert fresh.counts.looks["ended"] >= 2
    rig.venue.script["positions"].extend([Unavailable("gone")] * 50)
    rig.venue.script["holdings"].extend([Unavailable("gone")] * 50)
    for _ in range(20):
        rig.clock.sleep_until(loop.step(rig.clock.now()))
    stale = rig.gateway.numbers()
    assert stale.counts.looks["failed"] >= 10
    assert stale.protection.look_age_s >= 10.0


def test_I6_numbers_name_no_account_and_no_key() -> None:
    rig = GatewayRig()
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.gateway.protect_now("acc")
    told = str(asdict(rig.gateway.numbers()))
    assert "acc'" not in told
    assert "BTCUSDT" not in told
