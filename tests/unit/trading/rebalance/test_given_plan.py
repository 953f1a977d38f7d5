"""A plan that was looked at: one hash, one plan, and what makes it another one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.model.accounts import PositionMode
from module.model.canonical import canonical_json
from module.model.errors import InvariantViolated
from module.model.market import MarketType
from module.model.orders import OrderReport, OrderStatus, Side
from module.model.sessions import TradeMode
from tests.unit.trading.rebalance.test_estimate import AT, position, rules
from trading.rebalance.decision import AccountInputs, CycleInputs
from trading.rebalance.given_plan import (
    AccountNow,
    Freshness,
    GivenPlan,
    changes_since,
    give_plan,
    given_plan_from_json,
    in_words,
    sizes_of,
    symbols_to_watch,
)
from trading.rebalance.legs import Policy

HELD = (position("AUSDT", "3", "100"),)


def given(fresh_s: int = 60, tolerance: str = "0.005") -> GivenPlan:
    inputs = CycleInputs(
        session_id="2603020507-abcd",
        cycle=AT,
        policy=Policy(TradeMode.REBALANCING, MarketType.FUTURES, Decimal(2), Decimal("0.01")),
        account=AccountInputs(AT, Decimal(1007), Decimal(700), PositionMode.ONE_WAY, HELD),
        initial_balance=Decimal(1007),
        allocated=None,
        compounding=False,
        answer={"AUSDT": {"weight": "0.4"}, "BUSDT": {"weight": "-0.2"}},
        marks={"AUSDT": Decimal(100), "BUSDT": Decimal(10)},
        instruments={"AUSDT": rules("AUSDT"), "BUSDT": rules("BUSDT")},
    )
    return give_plan(inputs, 7, Freshness(fresh_s, Decimal(tolerance)), sizes_of(HELD))


def now(plan: GivenPlan, **changes: object) -> AccountNow:
    found = AccountNow(
        now=AT + timedelta(seconds=31),
        epoch=7,
        positions=HELD,
        open_orders=(),
        marks=dict(plan.inputs.marks),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def order(order_id: str, filled: str = "0") -> OrderReport:
    return OrderReport(
        order_id, "theirs", "BUSDT", Side.BUY, OrderStatus.LIVE, Decimal(9), Decimal(filled), None,
        Decimal(0), Decimal(0), reduce_only=False, source="api", created_at=AT, updated_at=AT,
    )  # fmt: skip


def test_it_is_the_same_plan_after_it_was_stored() -> None:
    plan = given()
    again = given_plan_from_json(json.loads(canonical_json(plan.to_json())))
    assert again.plan_hash == plan.plan_hash
    assert again.letter == plan.letter
    assert again.freshness == plan.freshness
    assert again.held == plan.held
    assert again.fresh_until == AT + timedelta(seconds=60)


@pytest.mark.parametrize("field", ["equity", "available"])
def test_another_input_is_another_hash_and_a_stored_plan_that_was_altered_is_an_error(
    field: str,
) -> None:
    document = json.loads(canonical_json(given().to_json()))
    document["inputs"]["account"][field] = "1008"
    with pytest.raises(InvariantViolated, match="altered"):
        given_plan_from_json(document)


def test_one_that_cannot_be_read_is_an_error() -> None:
    for missing in ("inputs", "epoch", "held", "fresh_s", "price_tolerance"):
        document = json.loads(canonical_json(given().to_json()))
        del document[missing]
        with pytest.raises(InvariantViolated):
            given_plan_from_json(document)


def test_nothing_has_changed() -> None:
    plan = given()
    assert symbols_to_watch(plan) == ["AUSDT", "BUSDT"]
    assert changes_since(plan, now(plan)) == []


def test_age_epoch_positions_orders_and_prices_are_told() -> None:
    plan = given()
    found = now(
        plan,
        now=AT + timedelta(seconds=61),
        epoch=8,
        positions=(position("AUSDT", "2", "100"), position("CUSDT", "5", "1")),
        open_orders=(order("1"),),
        marks={"AUSDT": Decimal("100.51")},
    )
    told = "\n".join(changes_since(plan, found))
    for part in (
        "61 s old", "60 s", "epoch is 8, it was 7", "AUSDT was 3, is 2", "CUSDT was 0, is 5",
        "order for BUSDT has appeared", "AUSDT moved +0.51 %", "BUSDT has no price",
    ):  # fmt: skip
        assert part in told


def test_a_price_may_move_as_far_as_the_tolerance() -> None:
    plan = given(tolerance="0.01")
    edge = {"AUSDT": Decimal(101), "BUSDT": Decimal("9.9")}
    assert changes_since(plan, now(plan, marks=edge)) == []
    beyond = {**edge, "BUSDT": Decimal("9.89")}
    assert len(changes_since(plan, now(plan, marks=beyond))) == 1


def test_a_close_that_had_no_price_does_not_ask_for_one() -> None:
    held = (position("AUSDT", "3", "0"),)
    inputs = replace(given().inputs, marks={"AUSDT": Decimal(0)}, answer={})
    inputs = replace(inputs, account=replace(inputs.account, positions=held))
    plan = give_plan(inputs, 7, Freshness(), sizes_of(held))
    assert [leg.leg_id for leg in plan.decision.plan.legs] == ["AUSDT-close"]
    for marks in ({}, {"AUSDT": Decimal(100)}):
        assert changes_since(plan, now(plan, positions=held, marks=marks)) == []


def test_waiting_orders_that_filled_or_went_are_told() -> None:
    plan = given()
    inputs = replace(plan.inputs, account=replace(plan.inputs.account, open_orders=(order("1"),)))
    waiting = replace(plan, inputs=inputs)
    assert changes_since(waiting, now(plan, open_orders=(order("1"),))) == []
    assert "filled further" in changes_since(waiting, now(plan, open_orders=(order("1", "2"),)))[0]
    assert "is gone" in changes_since(waiting, now(plan))[0]


def test_many_changes_are_told_in_bounded_length() -> None:
    assert in_words([f"change {number}" for number in range(40)]).endswith("and 28 more")
