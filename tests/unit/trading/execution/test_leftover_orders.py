"""Open orders that no letter waits for: ours are canceled, others' are named and left alone."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.errors import AifapError, OutcomeUnknown, Rejected, TooLate, Unavailable
from module.model.orders import Side
from tests.fakes.exchange import Fails
from tests.unit.trading.execution.desk import Desk, wanted
from tests.unit.trading.execution.test_account_review import MINE, SOL, ZERO, review_of, waiting
from trading.execution.account_review import (
    CANCEL_AGAIN_S,
    CANCEL_TRIES,
    GUARD_MARK,
    STOP_PREFIX,
)
from trading.execution.reconcile import Difference, Finding
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import Slice


def test_A29_orders_of_ours_that_no_letter_knows_are_canceled_and_others_named() -> None:
    desk = Desk()
    orders = [
        waiting(desk, f"{MINE}old-1", Side.SELL, filled="2"),
        waiting(desk, f"{MINE}{GUARD_MARK}9"),
        waiting(desk, f"{STOP_PREFIX}7"),
        waiting(desk, "by-hand"),
    ]
    found = review_of(desk).clear_leftovers(None, orders)
    assert desk.exchange.canceled == [f"{MINE}old-1"]
    assert found == [
        Finding(
            Difference.LEFTOVER_ORDER,
            "SOLUSDT",
            ZERO,
            Decimal(-3),
            f"sell 5 SOLUSDT, id {MINE}old-1: canceled",
        ),
        Finding(
            Difference.FOREIGN_ORDER,
            "SOLUSDT",
            ZERO,
            Decimal(5),
            "buy 5 SOLUSDT, id by-hand: left alone",
        ),
    ]


def test_A29_an_order_that_the_letter_waits_for_is_left_to_it() -> None:
    desk = Desk()
    letter = desk.planned(wanted(SOL))
    (record,) = letter.legs
    known = Slice(0, "af-known", Decimal(5), LegState.ACKNOWLEDGED)
    letter = letter.with_legs({record.leg.leg_id: replace(record, slices=(known,))})
    assert review_of(desk).clear_leftovers(letter, [waiting(desk, "af-known")]) == []
    assert desk.exchange.canceled == []


def test_A29_what_the_gateway_has_of_its_own_does_not_hide_what_follows_it() -> None:
    desk = Desk()
    orders = [waiting(desk, f"{MINE}{GUARD_MARK}9"), waiting(desk, f"{MINE}old-1")]
    review_of(desk).clear_leftovers(None, orders)
    assert desk.exchange.canceled == [f"{MINE}old-1"]


@pytest.mark.parametrize(
    "error", [Unavailable("away"), OutcomeUnknown("lost"), TooLate("nothing was sent")]
)
def test_A30_a_cancel_that_did_not_get_through_is_said_again_a_few_times(
    error: AifapError,
) -> None:
    desk = Desk()
    order = waiting(desk, f"{MINE}old-1")
    desk.exchange.script["cancel"].extend([Fails(error)] * (CANCEL_TRIES - 1))
    (finding,) = review_of(desk).clear_leftovers(None, [order])
    assert finding.detail.endswith(": canceled")
    assert desk.exchange.canceled == [f"{MINE}old-1"]
    assert desk.clock.slept == [CANCEL_AGAIN_S] * (CANCEL_TRIES - 1)


def test_A29_an_order_that_cannot_be_canceled_is_never_left_behind_silently() -> None:
    desk = Desk()
    order = waiting(desk, f"{MINE}old-1")
    desk.exchange.script["cancel"].extend([Fails(Unavailable("away"))] * 9)
    with pytest.raises(Unavailable):
        review_of(desk).clear_leftovers(None, [order])
    assert desk.exchange.calls.count("cancel") == CANCEL_TRIES
    desk.exchange.script["cancel"].clear()
    desk.exchange.script["cancel"].append(Fails(Rejected("no", code="40762")))
    with pytest.raises(Rejected):
        review_of(desk).clear_leftovers(None, [order])


def test_A31_a_leftover_that_is_over_by_itself_is_said_to_be() -> None:
    desk = Desk()
    order = replace(waiting(desk, f"{MINE}old-1"), client_id=f"{MINE}gone")
    (finding,) = review_of(desk).clear_leftovers(None, [order])
    assert finding.detail.endswith(": gone by itself")


def test_a_cancel_carries_the_writer_and_no_cycle() -> None:
    desk = Desk()
    review_of(desk).clear_leftovers(None, [waiting(desk, f"{MINE}old-1")])
    (stamp,) = desk.exchange.stamps
    assert (stamp.epoch, stamp.cycle) == (desk.epoch, None)
    assert stamp.not_after > desk.clock.now()
