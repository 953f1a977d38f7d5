"""How far an order came, by the record: never, left, taken. What never left can leave no more."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from module.gateway.tracing import CLOCKS_DIFFER, ORDER_LIFE_MAX
from module.model.errors import InvalidInput, OutcomeUnknown, Rejected, StaleWriter, Unavailable
from module.model.orders import RULED_OUT, MissingOrder, OrderTrace, Outcome, Passage
from tests.fakes.gateway_rig import GatewayRig, buy, sell

LATE = timedelta(seconds=30) + CLOCKS_DIFFER
"""What the memory exchange takes after the signature, and what clocks may differ by."""


@pytest.fixture
def rig() -> GatewayRig:
    """A gateway that has owned the account for longer than any order lives."""
    found = GatewayRig()
    found.gateway.submit("acc", found.stamp(), [buy("af-0")])
    found.clock.advance(ORDER_LIFE_MAX.total_seconds() + 7)
    return found


def asked(
    rig: GatewayRig,
    client_id: str = "af-1",
    *,
    reduces: bool = False,
    not_after: datetime | None = None,
) -> OrderTrace:
    """The answer for an order that was to leave within ten seconds from now."""
    until = not_after or rig.clock.now() + timedelta(seconds=10)
    missing = MissingOrder(client_id, "BTCUSDT", reduces, until)
    return rig.gateway.rule_out("acc", rig.stamp(), missing)


@pytest.mark.parametrize("reduces", [False, True])
def test_D4_what_is_not_on_record_never_left_and_never_will(rig: GatewayRig, reduces: bool) -> None:
    found = asked(rig, reduces=reduces)
    assert (found.passage, found.code) == (Passage.NEVER, RULED_OUT)
    assert asked(rig, reduces=reduces) == found
    sent_before = rig.venue.calls.count("submit_one")
    (late,) = rig.gateway.submit("acc", rig.stamp(), [sell() if reduces else buy()][:1])
    if not reduces:
        assert (late.outcome, late.code) == (Outcome.REJECTED, RULED_OUT)
        assert rig.venue.calls.count("submit_one") == sent_before


def test_an_order_that_was_ruled_out_is_no_order_of_the_last_minute(rig: GatewayRig) -> None:
    before = rig.postgres.orders()
    asked(rig)
    writes = rig.another("gw-1")._desk.audit.writes
    assert len(rig.postgres.orders()) == len(before) + 1
    assert writes.sent_since("acc", rig.clock.now() - timedelta(seconds=60)) == []


def test_A3_what_was_handed_over_without_an_answer_arrives_within_the_signatures_time(
    rig: GatewayRig,
) -> None:
    rig.venue.script["submit_one"].append(OutcomeUnknown("the connection broke"))
    sent_at = rig.clock.now()
    stamp = rig.stamp(seconds=10)
    rig.gateway.submit("acc", stamp, [buy()])
    rig.clock.advance(3)
    found = asked(rig, not_after=stamp.not_after)
    assert found.passage is Passage.LEFT
    assert found.arrives_by == sent_at + LATE  # it was answered for at once: signed before that


def test_C8_a_row_without_an_end_may_be_on_its_way_until_its_deadline_and_the_signatures_time(
    rig: GatewayRig,
) -> None:
    class Killed(BaseException):
        pass

    def die(order, report):  # type: ignore[no-untyped-def]
        raise Killed

    rig.venue._fill, filled = die, rig.venue._fill  # type: ignore[method-assign]
    stamp = rig.stamp(seconds=10)
    with pytest.raises(Killed):
        rig.gateway.submit("acc", stamp, [buy()])
    rig.venue._fill = filled  # type: ignore[method-assign]
    rig.postgres.owner = None
    found = rig.another("gw-2").rule_out(
        "acc", rig.stamp(), MissingOrder("af-1", "BTCUSDT", False, stamp.not_after)
    )
    assert found.passage is Passage.LEFT
    assert found.arrives_by == stamp.not_after + LATE


def test_a_refusal_on_record_is_told_with_its_code(rig: GatewayRig) -> None:
    rig.venue.script["submit_one"].append(Rejected("no money", code="40762"))
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    found = asked(rig)
    assert (found.passage, found.code) == (Passage.NEVER, "40762")


def test_an_order_that_the_exchange_has_accepted_is_never_ruled_out(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    told = asked(rig)
    assert (told.passage, told.order_id) == (Passage.TAKEN, rig.venue.orders["af-1"].order_id)
    (again,) = rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert again.outcome is Outcome.ACCEPTED


def test_E4_a_gateway_that_remembers_an_order_whose_record_is_lost_says_that_it_left(
    rig: GatewayRig,
) -> None:
    rig.venue.script["submit_one"].append(OutcomeUnknown("the connection broke"))
    stamp = rig.stamp(seconds=10)
    rig.gateway.submit("acc", stamp, [buy()])
    rig.postgres.writes.pop()
    found = asked(rig, not_after=stamp.not_after)
    assert (found.passage, found.arrives_by) == (Passage.LEFT, stamp.not_after + LATE)


@pytest.mark.parametrize(("reduces", "margin"), [(False, CLOCKS_DIFFER), (True, LATE)])
def test_a_gateway_that_has_just_begun_says_how_long_to_look(
    rig: GatewayRig, reduces: bool, margin: timedelta
) -> None:
    rig.postgres.owner = None
    second = rig.another("gw-2")
    until = rig.clock.now() + timedelta(seconds=10)
    missing = MissingOrder("af-1", "BTCUSDT", reduces, until)
    found = second.rule_out("acc", rig.stamp(), missing)
    assert (found.passage, found.arrives_by) == (Passage.LEFT, until + margin)


def test_without_postgres_and_from_an_older_epoch_nothing_is_ruled_out(rig: GatewayRig) -> None:
    missing = MissingOrder("af-1", "BTCUSDT", False, rig.clock.now())
    with pytest.raises(StaleWriter):
        rig.gateway.rule_out("acc", rig.stamp(epoch=6), missing)
    with pytest.raises(InvalidInput):
        asked(rig, "Not An Id")
    rig.postgres.away = True
    with pytest.raises(Unavailable):
        asked(rig)
    rig.postgres.away = False
    assert len(rig.postgres.orders()) == 1
