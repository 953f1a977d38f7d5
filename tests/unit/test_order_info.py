"""The letter: what is written is what is read, what was altered is noticed, slices keep order."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from module.model.canonical import canonical_json
from module.model.errors import AifapError, InvariantViolated
from module.model.orders import NO_STOPS, OrderReport, OrderStatus, Side, StopPrices
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    CycleStage,
    LegRecord,
    OrderInfo,
    Slice,
    from_json,
    next_slice,
    requested,
    to_json,
    with_current,
    with_plan,
    with_report,
)
from trading.rebalance.plan import DiffCase, Leg, OrderPlan, SkippedLeg, SkipReason

CYCLE = datetime(2026, 11, 21, 11, 5, tzinfo=UTC)
LEG = Leg(
    leg_id="SOLUSDT-open",
    symbol="SOLUSDT",
    case=DiffCase.OPPOSITE,
    side=Side.SELL,
    size=Decimal("39.6"),
    reduce_only=False,
    reference_price=Decimal("151.37"),
    current_weight=Decimal("0.1234"),
    target_weight=Decimal("-0.2"),
    stops=StopPrices(stop_loss=Decimal("160.01")),
    after="SOLUSDT-close",
)
SKIPPED = SkippedLeg("BTCUSDT", SkipReason.BELOW_THRESHOLD, Decimal("0.301"), Decimal("0.3"))


def identify(leg_id: str, number: int) -> str:
    return f"af-{leg_id.lower()}-{number}"


def letter() -> OrderInfo:
    plan = OrderPlan((LEG,), (SKIPPED,), {"SOLUSDT": LEG.stops, "ETHUSDT": NO_STOPS})
    return with_plan(
        requested("2611211102-ab3x", CYCLE, 17, 3, 40),
        plan,
        inputs={"base": "10007", "marks": {"SOLUSDT": "151.37"}, "windows": [{"window": 100}]},
        targets={"SOLUSDT": {"weight": "-0.2"}},
        strategy_digest="5f3a",
    )


def report(status: OrderStatus, filled: str, client_id: str) -> OrderReport:
    return OrderReport(
        order_id="70001",
        client_id=client_id,
        symbol="SOLUSDT",
        side=Side.SELL,
        status=status,
        size=Decimal("39.6"),
        filled_size=Decimal(filled),
        average_price=Decimal("151.36"),
        fee=Decimal("-3.59"),
        realized_pnl=Decimal(0),
        reduce_only=False,
        source="normal",
        created_at=CYCLE,
        updated_at=CYCLE,
    )


def sent(record: LegRecord, size_max: str = "1000") -> LegRecord:
    return with_current(next_slice(record, Decimal(size_max), identify), LegState.SENT)


# --- spelling -------------------------------------------------------------------------------------


SIZES = st.decimals("0.000001", "1e9", places=6)
TEXTS = st.one_of(st.none(), st.text(max_size=12))
SLICES = st.builds(
    Slice,
    number=st.integers(0, 39),
    client_id=st.text("abc-0123", min_size=1, max_size=32),
    size=SIZES,
    state=st.sampled_from(LegState),
    order_id=TEXTS,
    filled_size=SIZES,
    average_price=st.one_of(st.none(), SIZES),
    fee=st.decimals(-9, 9, places=8),
    code=TEXTS,
    message=TEXTS,
    not_after=st.one_of(st.none(), st.just(CYCLE), st.just(CYCLE.replace(microsecond=123_000))),
)
STOPS = st.builds(StopPrices, st.one_of(st.none(), SIZES), st.one_of(st.none(), SIZES))
LEGS = st.builds(
    Leg,
    leg_id=st.text("ABC-", min_size=1, max_size=9),
    symbol=st.sampled_from(["BTCUSDT", "1000PEPEUSDT"]),
    case=st.sampled_from(DiffCase),
    side=st.sampled_from(Side),
    size=SIZES,
    reduce_only=st.booleans(),
    reference_price=SIZES,
    current_weight=st.decimals(-1, 1, places=12),
    target_weight=st.decimals(-1, 1, places=12),
    stops=STOPS,
    after=TEXTS,
)
LETTERS = st.builds(
    OrderInfo,
    session_id=st.just("2611211102-ab3x"),
    cycle=st.just(CYCLE),
    number=st.integers(1, 99_999),
    epoch=st.integers(1, 99),
    revision=st.integers(0, 99_999),
    stage=st.sampled_from(CycleStage),
    reason=st.text(max_size=30),
    strategy_digest=st.just("5f3a"),
    inputs=st.dictionaries(st.text(max_size=4), st.one_of(st.text(max_size=4), st.integers())),
    targets=st.dictionaries(st.text(max_size=4), st.just({"weight": "0.3"}), max_size=2),
    legs=st.lists(
        st.builds(LegRecord, LEGS, st.lists(SLICES, max_size=3).map(tuple), TEXTS), max_size=3
    ).map(tuple),
    skipped=st.lists(st.just(SKIPPED), max_size=2).map(tuple),
    stops=st.dictionaries(st.sampled_from(["BTCUSDT", "ETHUSDT"]), STOPS, max_size=2),
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(LETTERS)
def test_what_is_written_is_what_is_read(info: OrderInfo) -> None:
    text = canonical_json(to_json(info))
    back = from_json(json.loads(text))
    assert back == info
    assert canonical_json(to_json(back)) == text


def test_the_plan_digest_is_of_the_decision_not_of_its_progress() -> None:
    before = letter()
    record = sent(before.leg("SOLUSDT-open"))
    after = before.with_legs({"SOLUSDT-open": record}, stage=CycleStage.TRADING)
    assert after.plan_digest == before.plan_digest
    other = replace(before, legs=(LegRecord(LEG._replace(size=Decimal("39.7"))),))
    assert other.plan_digest != before.plan_digest


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("legs", 0, "leg", "size"), "396"),
        (("legs", 0, "leg", "side"), "buy"),
        (("legs", 0, "leg", "stops", "stop_loss"), None),
        (("skipped", 0, "reason"), "no_price"),
        (("stops", "SOLUSDT", "stop_loss"), "161"),
        (("plan_digest",), "0" * 64),
        (("version",), 3),
        (("legs", 0, "leg", "size"), 39.6),
        (("legs", 0, "leg", "size"), "NaN"),
        (("legs", 0, "slices"), None),
        (("stage",), "dreaming"),
        (("cycle",), "2026-11-21T11:05:00"),
        (("epoch",), True),
        (("epoch",), "3"),
        (("legs",), {}),
    ],
)
def test_an_altered_letter_is_our_bug_never_a_surprise(
    where: tuple[str | int, ...], value: object
) -> None:
    document = json.loads(canonical_json(to_json(letter())))
    spot = document
    for step in where[:-1]:
        spot = spot[step]
    spot[where[-1]] = value
    with pytest.raises(InvariantViolated):
        from_json(document)


@pytest.mark.parametrize("missing", sorted(to_json(letter())))
def test_a_letter_without_one_of_its_fields_is_refused(missing: str) -> None:
    document = dict(to_json(letter()))
    del document[missing]
    with pytest.raises(InvariantViolated):
        from_json(document)


def test_any_flipped_byte_is_noticed_or_harmless_outside_the_plan() -> None:
    """Whatever byte of the plan's part is altered: an error of ours, never another plan."""
    text = canonical_json(to_json(letter())).encode()
    for place in range(0, len(text), 3):
        altered = bytearray(text)
        altered[place] ^= 0x01
        try:
            found = from_json(json.loads(bytes(altered)))
        except (ValueError, AifapError):
            continue
        assert found.plan_digest == letter().plan_digest


# --- slices ---------------------------------------------------------------------------------------


def test_each_change_is_the_next_revision() -> None:
    assert letter().revision == 41
    assert letter().changed(stage=CycleStage.TRADING).revision == 42


def test_a_leg_larger_than_the_venues_maximum_goes_in_slices() -> None:
    record = LegRecord(LEG)
    sizes: list[Decimal] = []
    for _ in range(3):
        record = sent(record, "15.3")
        current = record.current
        assert current is not None
        sizes.append(current.size)
        record = with_report(
            record, report(OrderStatus.FILLED, str(current.size), current.client_id)
        )
    assert sizes == [Decimal("15.3"), Decimal("15.3"), Decimal(9)]
    assert record.is_over
    assert record.filled_size == LEG.size
    ids = {part.client_id for part in record.slices}
    assert len(ids) == 3


@pytest.mark.parametrize("state", [LegState.SENT, LegState.UNKNOWN, LegState.ACKNOWLEDGED])
def test_I1_no_further_slice_while_the_last_one_may_exist(state: LegState) -> None:
    record = sent(LegRecord(LEG))
    if state is not LegState.SENT:
        record = with_current(record, state)
    assert not record.is_over
    with pytest.raises(InvariantViolated):
        next_slice(record, Decimal(1000), identify)


def test_nothing_is_left_to_slice_of_a_filled_leg() -> None:
    record = sent(LegRecord(LEG))
    record = with_report(record, report(OrderStatus.FILLED, "39.6", identify(LEG.leg_id, 0)))
    with pytest.raises(InvariantViolated):
        next_slice(record, Decimal(1000), identify)


def test_B1_a_canceled_rest_books_the_part_and_leaves_the_remainder() -> None:
    record = sent(LegRecord(LEG))
    record = with_report(record, report(OrderStatus.CANCELED, "12.5", identify(LEG.leg_id, 0)))
    assert record.state is LegState.ABANDONED
    assert (record.filled_size, record.is_over) == (Decimal("12.5"), False)
    following = next_slice(record, Decimal(1000), identify).current
    assert following is not None
    assert following.size == Decimal("27.1")


def test_D3_an_unknown_slice_is_found_by_its_report() -> None:
    record = with_current(sent(LegRecord(LEG)), LegState.UNKNOWN)
    found = with_report(record, report(OrderStatus.FILLED, "39.6", identify(LEG.leg_id, 0)))
    assert found.state is LegState.FILLED
    assert found.filled_size == LEG.size


def test_B4_a_weaker_report_after_the_end_changes_nothing() -> None:
    record = sent(LegRecord(LEG))
    over = with_report(record, report(OrderStatus.FILLED, "39.6", identify(LEG.leg_id, 0)))
    late = report(OrderStatus.PARTIALLY_FILLED, "3.1", identify(LEG.leg_id, 0))
    assert with_report(over, late) == over


def test_a_report_of_another_order_is_refused() -> None:
    with pytest.raises(InvariantViolated):
        with_report(sent(LegRecord(LEG)), report(OrderStatus.FILLED, "39.6", "af-other-0"))


def test_a_letter_has_only_its_own_legs() -> None:
    with pytest.raises(InvariantViolated):
        letter().leg("BTCUSDT-open")
