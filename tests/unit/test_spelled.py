"""A document that is spelled once: its bytes are those of a document spelled anew, always."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.canonical import Spelled, canonical_json
from module.model.errors import InvariantViolated
from module.model.orders import Side, StopPrices
from module.model.sealed import seal, unseal
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    CycleStage,
    Holding,
    Noted,
    OrderInfo,
    from_json,
    given_up,
    next_slice,
    requested,
    to_json,
    with_current,
    with_plan,
)
from trading.rebalance.plan import DiffCase, Leg, OrderPlan, SkippedLeg, SkipReason

CYCLE = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
PLAIN = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.text(max_size=3), LEAVES)
OBJECTS = st.dictionaries(st.text(max_size=4), PLAIN, max_size=4)


def anew(document: object) -> str:
    """Spelled from copies that remember nothing."""
    return canonical_json(json.loads(json.dumps(document)))


# --- any document ---


@given(OBJECTS, OBJECTS, st.lists(OBJECTS, max_size=2), PLAIN)
@settings(max_examples=40, deadline=None)
def test_a_document_of_spelled_parts_is_spelled_as_if_it_had_none(
    part: dict[str, object], other: dict[str, object], rows: list[dict[str, object]], last: object
) -> None:
    whole = Spelled(
        {"ü": Spelled(part), "a": other, "rows": [*map(Spelled, rows)], "mixed": [other, last]}
    )
    assert canonical_json(whole) == anew(whole)
    assert canonical_json({"outside": whole}) == anew({"outside": whole})


@given(OBJECTS)
@settings(max_examples=60, deadline=None)
def test_what_was_sealed_is_read_with_its_spelling(document: dict[str, object]) -> None:
    found = unseal(seal(document), "letter")
    assert found == document
    assert seal(found) == seal(document)
    assert seal({**found, "more": "0.10"}) == seal({**document, "more": "0.10"})


@pytest.mark.parametrize(
    "text",
    [
        '{ "a":1}',
        '{"a": 1}',
        '{"a":1 }',
        '{"a":1,}',
        '{"a":1',
        '{"a":1}}',
        '{"a" :1}',
        '{"a":1}x',
        '{"b":1,"a":2}',
        '{"a":1,"a":2}',
        "[1]",
        "{}",
        "",
        '"a"',
    ],
)
def test_what_is_spelled_otherwise_is_not_taken_for_canonical(text: str) -> None:
    assert Spelled.read(text) is None


def change_item(document: Spelled[object]) -> None:
    document["a"] = 2


def remove_item(document: Spelled[object]) -> None:
    del document["a"]


@pytest.mark.parametrize(
    "change",
    [
        change_item,
        remove_item,
        lambda document: document.update(a=2),
        lambda document: document.pop("a"),
        lambda document: document.clear(),
        lambda document: document.setdefault("b", 2),
    ],
)
def test_a_spelled_document_is_never_changed(change: Callable[[Spelled[object]], None]) -> None:
    document = Spelled[object]({"a": 1})
    with pytest.raises(TypeError, match="never changed"):
        change(document)
    assert document == {"a": 1}


def test_a_copy_is_a_plain_document() -> None:
    document: Spelled[object] = Spelled({"a": {"b": 1}})
    other = copy.deepcopy(document)
    plain: dict[str, object] = {**other}
    plain["a"] = 2
    assert type(copy.deepcopy(document)).__name__ == "dict"
    assert document.text == '{"a":{"b":1}}'


def test_a_float_has_no_spelling_in_a_part_either() -> None:
    with pytest.raises(InvariantViolated, match="float"):
        _ = Spelled({"a": Spelled({"b": 0.1})}).text


# --- letters ---


def leg(number: int) -> Leg:
    return Leg(
        leg_id=f"COIN{number}-open",
        symbol=f"COIN{number}",
        case=DiffCase.NEW,
        side=Side.BUY,
        size=Decimal("3.10"),
        reduce_only=False,
        reference_price=Decimal("99.870"),
        current_weight=Decimal(0),
        target_weight=Decimal("0.1"),
        stops=StopPrices(Decimal("71.30")),
        after=None,
    )


def planned() -> OrderInfo:
    plan = OrderPlan(
        tuple(leg(number) for number in range(3)),
        (SkippedLeg("COIN7", SkipReason.BELOW_THRESHOLD, Decimal("0.30"), Decimal("0.3")),),
        {f"COIN{number}": leg(number).stops for number in range(3)},
    )
    blank = requested("2611211102-ab3x", CYCLE, 7, 3, 41)
    return with_plan(
        blank,
        plan,
        inputs={"answer": {"COIN1": {"weight": "0.1"}}, "marks": {"COIN1": "99.87"}},
        targets={"COIN1": {"weight": "0.1"}},
        strategy_digest="5f3a",
        basis=Holding(CYCLE, {"COIN7": Decimal("1.50")}),
    )


def send(info: OrderInfo, leg_id: str) -> OrderInfo:
    record = info.leg(leg_id)
    if record.abandoned is not None or record.slices:
        return info
    sliced = next_slice(record, Decimal(9), lambda name, number: f"af-{name.lower()}-{number}")
    return info.with_legs({leg_id: with_current(sliced, LegState.SENT, not_after=CYCLE)})


def lose(info: OrderInfo, leg_id: str) -> OrderInfo:
    record = info.leg(leg_id)
    if record.current is None or record.current.state is not LegState.SENT:
        return info
    return info.with_legs({leg_id: with_current(record, LegState.UNKNOWN, message="lost")})


def give_up(info: OrderInfo, leg_id: str) -> OrderInfo:
    if info.leg(leg_id).is_open:
        return info
    return info.with_legs({leg_id: given_up(info.leg(leg_id), "the session is stopping")})


def note(info: OrderInfo, leg_id: str) -> OrderInfo:
    item = Noted("dust", leg_id, Decimal("1.0"), Decimal(1), "a little", CYCLE)
    return info.changed(noted=(*info.noted, item), corrections={leg_id: 2})


def protect(info: OrderInfo, leg_id: str) -> OrderInfo:
    stops = {**info.stops_now, leg_id: StopPrices(Decimal("70.0"))}
    return info.changed(stage=CycleStage.PROTECTING, stops_now=stops)


def hand_over(info: OrderInfo, _leg_id: str) -> OrderInfo:
    """The next leader reads the file."""
    return from_json(unseal(seal(to_json(info)), "letter"))


STEPS = st.lists(
    st.tuples(
        st.sampled_from([send, lose, give_up, note, protect, hand_over]),
        st.sampled_from([leg(number).leg_id for number in range(3)]),
    ),
    max_size=12,
)


@given(STEPS)
@settings(max_examples=40, deadline=None)
def test_every_revision_of_a_letter_is_spelled_as_if_it_were_the_first(
    steps: list[tuple[Callable[[OrderInfo, str], OrderInfo], str]],
) -> None:
    info = planned()
    for step, leg_id in steps:
        info = step(info, leg_id)
        document = to_json(info)
        assert canonical_json(document) == anew(document)
        again = from_json(json.loads(canonical_json(document)))
        assert again == info
        assert canonical_json(to_json(again)) == canonical_json(document)
