"""Promise 2, written down: since when, until when and why a position had no stop."""

from __future__ import annotations

import os
from datetime import timedelta
from decimal import Decimal

import pytest

from module.db.repositories.accounts import LEASE_LOST
from module.db.repositories.unprotected_periods import BareCause, BarePeriod, begin_period
from module.gateway.service import Gateway
from module.gateway.unprotected_times import UNWRITTEN_MAX, UnprotectedTimes
from module.model.errors import Unavailable
from module.model.orders import StopPrices
from tests.fakes.gateway_rig import GatewayRig, buy, sell

STOPS = StopPrices(Decimal("55000.5"), Decimal("66000.1"))


@pytest.fixture
def rig() -> GatewayRig:
    return GatewayRig()


def written(rig: GatewayRig) -> list[tuple[str, float | None]]:
    """Cause and length of every period on record, in their order."""
    known = sorted(rig.postgres.periods.values(), key=lambda period: period.started_at)
    return [(period.cause.value, length_s(period)) for period in known]


def length_s(period: BarePeriod) -> float | None:
    if period.ended_at is None:
        return None
    return (period.ended_at - period.started_at).total_seconds()


def take_no_stops(rig: GatewayRig, times: int = 1) -> None:
    rig.venue.script["set_stop"].extend([Unavailable("not now")] * times)


def die(rig: GatewayRig, gateway: Gateway) -> None:
    """As SIGKILL does."""
    spool = gateway._desk.audit._spool
    assert spool is not None
    os.close(spool._file)
    spool._file = -1
    rig.postgres.owner = None


def test_I2_a_position_that_was_opened_without_its_stop_counts_from_its_opening(
    rig: GatewayRig,
) -> None:
    rig.venue.presets_lost = True
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.clock.advance(3)
    assert rig.gateway.protect_now("acc") == ()
    assert written(rig) == [("opened", 3.0)]


def test_I2_a_stop_that_is_removed_counts_from_the_look_that_misses_it(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.gateway.protect_now("acc")
    assert written(rig) == []
    del rig.venue.stops[("BTCUSDT", True)]
    rig.clock.advance(1)
    take_no_stops(rig)
    assert rig.gateway.protect_now("acc") == ("BTCUSDT",)
    assert written(rig) == [("removed", None)]
    rig.clock.advance(2.5)
    rig.gateway.protect_now("acc")
    rig.clock.advance(60)
    rig.gateway.protect_now("acc")
    assert written(rig) == [("removed", 2.5)]


def test_I2_it_is_over_when_the_position_is(rig: GatewayRig) -> None:
    rig.venue.presets_lost = True
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    take_no_stops(rig)
    rig.gateway.protect_now("acc")
    rig.clock.advance(4)
    rig.gateway.submit("acc", rig.stamp(), [sell()])
    rig.gateway.protect_now("acc")
    assert written(rig) == [("opened", 4.0)]
    assert rig.gateway.numbers().unprotected == 0


def test_E1_while_postgres_is_away_periods_wait_in_the_spool(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.gateway.protect_now("acc")
    rig.postgres.away = True
    del rig.venue.stops[("BTCUSDT", True)]
    take_no_stops(rig)
    rig.gateway._guard.look(rig.gateway._desk.open("acc"), thorough=False)
    rig.clock.advance(2)
    rig.gateway._guard.look(rig.gateway._desk.open("acc"), thorough=False)
    assert written(rig) == []
    assert rig.gateway.health()["spooled"]
    rig.postgres.away = False
    rig.gateway.protect_now("acc")
    assert written(rig) == [("removed", 2.0)]
    assert rig.gateway.health()["spooled"] == 0


@pytest.mark.parametrize("away", [False, True], ids=["in Postgres", "in the spool"])
def test_D17_what_a_dead_gateway_left_open_goes_on_with_the_next_one(
    rig: GatewayRig, away: bool
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.gateway.protect_now("acc")
    rig.postgres.away = away
    del rig.venue.stops[("BTCUSDT", True)]
    take_no_stops(rig, times=2)
    rig.gateway._guard.look(rig.gateway._desk.open("acc"), thorough=False)
    die(rig, rig.gateway)
    rig.postgres.away = False
    rig.clock.advance(100)
    heir = rig.another("gw-2")
    assert heir.protect_now("acc") == ("BTCUSDT",)
    rig.clock.advance(7)
    assert heir.protect_now("acc") == ()
    assert written(rig) == [("removed", 100.0), ("found", 7.0)]


def test_D17_what_a_dead_gateway_left_open_ends_with_the_look_that_sees_the_stop(
    rig: GatewayRig,
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.gateway.protect_now("acc")
    del rig.venue.stops[("BTCUSDT", True)]
    take_no_stops(rig)
    rig.gateway.protect_now("acc")
    die(rig, rig.gateway)
    rig.venue._place("BTCUSDT", True, True, Decimal("55000.5"))
    rig.clock.advance(9)
    heir = rig.another("gw-2")
    heir.protect_now("acc")
    assert written(rig) == [("removed", 9.0)]


def test_I4_a_period_that_another_gateway_has_ended_is_not_gone_on_with(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.gateway.protect_now("acc")
    del rig.venue.stops[("BTCUSDT", True)]
    take_no_stops(rig)
    rig.gateway.protect_now("acc")
    owned = rig.gateway._desk.open("acc")
    rig.gateway._desk.fenced(owned, Unavailable("another gateway", code=LEASE_LOST))
    rig.postgres.owner = None
    rig.clock.advance(5)
    other = rig.another("gw-2")
    other.protect_now("acc")
    assert written(rig) == [("removed", 5.0)]
    rig.postgres.owner = None
    rig.clock.advance(50)
    rig.gateway.protect_now("acc")
    rig.clock.advance(1)
    rig.gateway.protect_now("acc")
    assert written(rig) == [("removed", 5.0)]


def test_the_same_period_is_never_two() -> None:
    rig = GatewayRig()
    at = rig.clock.now()
    one, other = (begin_period("a", "BTCUSDT", at, BareCause.OPENED) for _ in range(2))
    assert one == other
    assert one.ended(at - timedelta(seconds=5)).ended_at == at


def test_D21_what_can_be_written_nowhere_is_told_again_and_its_number_is_bounded() -> None:
    rig = GatewayRig()
    times, now = UnprotectedTimes(), rig.clock.now()
    for number in range(UNWRITTEN_MAX + 3):
        key = ("acc", f"S{number}USDT", now - timedelta(hours=1))
        times.missing(key, now)
    waiting = times.changed("acc")
    assert len(waiting) == UNWRITTEN_MAX
    times.written("acc", waiting[:-1])
    assert times.changed("acc") == waiting[-1:]
    count, seconds = times.totals(now + timedelta(seconds=2))
    assert (count, seconds) == (0, 2.0 * (UNWRITTEN_MAX + 3))
