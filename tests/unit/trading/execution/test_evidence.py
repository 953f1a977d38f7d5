"""What became of an order: looked up, waited for, canceled, proven absent; never guessed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.model.errors import (
    AifapError,
    Conflict,
    NotFound,
    OutcomeUnknown,
    Rejected,
    StaleWriter,
    TooLate,
    Unavailable,
)
from module.model.orders import (
    MissingOrder,
    OrderRequest,
    OrderTrace,
    Passage,
    Side,
    WriteStamp,
)
from tests.fakes.exchange import Fails, FakeExchange, FillsPart, ShowsCanceled
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.evidence import (
    ABSENCES,
    END_BELIEVED_S,
    FORGOTTEN,
    FORGOTTEN_AFTER,
    FORGOTTEN_WITHIN,
    POLL_FIRST_S,
    POLL_MAX_S,
    POLLS_MAX,
    SETTLE_LIMIT_S,
    WITHOUT_RECORD_S,
    Evidence,
)
from trading.execution.scribe import SEND_WINDOW_S, Scribe
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import LegRecord, OrderInfo, Slice, from_json

ZERO = Decimal(0)
BTC, SOL = "BTCUSDT-open", "SOLUSDT-open"
PART = Decimal("0.0123")


class TracingExchange(FakeExchange):
    """Answers the question how far an order came as a test says; notes who asks for what."""

    def says(self, trace: OrderTrace) -> None:
        self.answer = trace
        self.asked: list[tuple[WriteStamp, MissingOrder]] = []

    def rule_out(self, stamp: WriteStamp, missing: MissingOrder) -> OrderTrace:
        self._happens("rule_out")
        self.asked.append((stamp, missing))
        return self.answer


@dataclass
class Case:
    """A letter whose two orders are on the exchange, or may be."""

    desk: Desk
    info: OrderInfo

    def __post_init__(self) -> None:
        self.scribe = Scribe(self.desk.ports(), self.desk.rules())
        self.evidence = Evidence(self.scribe)
        self.desk.exchange.calls.clear()
        self.desk.store.written.clear()
        self.desk.clock.slept.clear()

    def settle(self, *leg_ids: str) -> OrderInfo:
        """Wait for these legs (all unless told)."""

        def waits_for(record: LegRecord) -> bool:
            return not leg_ids or record.leg.leg_id in leg_ids

        return self.evidence.settle(self.info, waits_for)


def sent(
    desk: Desk, state: LegState = LegState.SENT, *, both: bool = False, known: bool = True
) -> Case:
    """BTC's order (and SOL's) left a moment ago; where it is `known` it rests on the exchange."""
    info = desk.planned(wanted({"BTCUSDT": "0.3", "SOLUSDT": "0.25"}))
    not_after = desk.clock.now() + timedelta(seconds=SEND_WINDOW_S)
    for leg_id in (BTC, SOL) if both else (BTC,):
        record = info.leg(leg_id)
        client_id = f"af-{record.leg.symbol.lower()}-0"
        part = Slice(0, client_id, record.size, state, not_after=not_after)
        info = info.with_legs({leg_id: replace(record, slices=(part,))})
        if known:
            order = OrderRequest(client_id, record.leg.symbol, Side.BUY, record.size, False)
            desk.exchange.ledger.append(order)
            desk.exchange.rest(order)
    return Case(desk, info)


def traced(trace: OrderTrace, state: LegState = LegState.SENT) -> tuple[Case, TracingExchange]:
    """BTC's order is not at the exchange; asked, the gateway's record says `trace`."""
    desk = Desk()
    exchange = TracingExchange(desk.clock, epoch=desk.epoch)
    exchange.says(trace)
    desk.exchange = exchange
    return sent(desk, state, known=False), exchange


def state_of(info: OrderInfo, leg_id: str = BTC) -> LegState:
    current = info.leg(leg_id).current
    assert current is not None
    return current.state


def part_of(info: OrderInfo, leg_id: str = BTC) -> Slice:
    return info.leg(leg_id).slices[-1]


# --- waiting --------------------------------------------------------------------------------------


def test_nothing_that_is_open_is_nothing_to_wait_for() -> None:
    desk = Desk()
    case = Case(desk, desk.planned(wanted({"BTCUSDT": "0.3"})))
    assert case.settle() is case.info
    assert (desk.exchange.calls, desk.clock.slept, desk.store.written) == ([], [], [])


def test_what_was_just_acknowledged_is_given_a_moment_before_it_is_asked_for() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED)
    case.desk.exchange.fill_rest("BTCUSDT")
    done = case.settle()
    assert state_of(done) is LegState.FILLED
    assert case.desk.clock.slept == [POLL_FIRST_S]
    assert case.desk.exchange.calls == ["order"]


@pytest.mark.parametrize("state", [LegState.SENT, LegState.UNKNOWN])
def test_A1_what_nobody_has_seen_is_asked_for_at_once(state: LegState) -> None:
    case = sent(Desk(), state)
    case.desk.exchange.fill_rest("BTCUSDT")
    done = case.settle()
    assert state_of(done) is LegState.FILLED
    assert case.desk.clock.slept == []
    assert from_json(case.desk.store.last) == done


def test_A14_the_exchange_is_asked_less_and_less_often() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED)
    case.desk.clock.after(5, lambda: case.desk.exchange.fill_rest("BTCUSDT"))
    case.settle()
    waits = [POLL_FIRST_S * 2**power for power in range(5)]
    assert waits[-1] < POLL_MAX_S < waits[-1] * 2
    assert case.desk.clock.slept == [*waits, *[POLL_MAX_S] * 4]
    assert case.desk.exchange.calls == ["order"] * 9
    assert len(case.desk.store.written) == 2, "booked with its number, and when it was over"


def test_what_nobody_has_seen_is_asked_for_less_and_less_often_too() -> None:
    desk = Desk()
    case = sent(desk, known=False)
    desk.exchange.handed.add("af-btcusdt-0")
    done = case.settle()
    assert state_of(done) is LegState.ABANDONED
    waits = [POLL_FIRST_S * 2**power for power in range(5)]
    assert desk.clock.slept[:7] == [*waits, POLL_MAX_S, POLL_MAX_S]
    assert set(desk.clock.slept[7:]) == {POLL_MAX_S}


def test_only_what_it_waits_for_is_waited_for_and_the_rest_is_looked_at_with_it() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED, both=True)
    case.desk.exchange.fill_rest("BTCUSDT")
    case.desk.exchange.fill_rest("SOLUSDT")
    done = case.settle(SOL)
    assert (state_of(done), state_of(done, SOL)) == (LegState.FILLED, LegState.FILLED)
    assert case.desk.clock.slept == [POLL_FIRST_S]
    other = sent(Desk(), LegState.ACKNOWLEDGED, both=True)
    other.desk.exchange.fill_rest("BTCUSDT")
    done = other.settle(BTC)
    assert (state_of(done), state_of(done, SOL)) == (LegState.FILLED, LegState.ACKNOWLEDGED)
    assert other.desk.exchange.calls == ["order"] * 2


def test_an_unknown_order_that_nobody_waits_for_does_not_hurry_the_others() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED, both=True)
    record = case.info.leg(SOL)
    lost = replace(record, slices=(replace(record.slices[0], state=LegState.UNKNOWN),))
    case.info = case.info.with_legs({SOL: lost})
    case.desk.exchange.fill_rest("BTCUSDT")
    case.settle(BTC)
    assert case.desk.clock.slept == [POLL_FIRST_S]


def test_orders_that_stay_unresolved_are_given_to_a_person_after_a_bounded_number_of_looks() -> (
    None
):
    case = sent(Desk(), LegState.ACKNOWLEDGED)
    case.desk.exchange.script["cancel"].extend([Fails(Unavailable("away"))] * (POLLS_MAX + 9))
    with pytest.raises(Conflict, match=f"unresolved after {POLLS_MAX} looks"):
        case.settle()
    assert case.desk.exchange.calls.count("order") == POLLS_MAX


# --- what rests too long --------------------------------------------------------------------------


def test_B1_what_rests_too_long_is_canceled_once_and_its_end_asked_for() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED)
    began = case.desk.clock.now()
    done = case.settle()
    assert state_of(done) is LegState.ABANDONED
    assert case.desk.exchange.canceled == ["af-btcusdt-0"]
    (stamp,) = case.desk.exchange.stamps
    assert (stamp.cycle, stamp.epoch) == (case.info.cycle, case.desk.epoch)
    took_s = (case.desk.clock.now() - began).total_seconds()
    assert SETTLE_LIMIT_S + POLL_MAX_S < took_s < SETTLE_LIMIT_S + 4 * POLL_MAX_S
    cancel = case.desk.exchange.calls.index("cancel")
    assert case.desk.exchange.calls[cancel:] == [
        "cancel", "order", "order", "fills",
    ], "said twice, and by the fills (B4)"  # fmt: skip


def test_what_is_over_in_time_is_not_canceled() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED)
    case.desk.clock.after(SETTLE_LIMIT_S - 2, lambda: case.desk.exchange.fill_rest("BTCUSDT"))
    assert state_of(case.settle()) is LegState.FILLED
    assert case.desk.exchange.canceled == []


def test_only_what_it_waits_for_is_canceled_and_only_what_is_acknowledged() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED, both=True)
    done = case.settle(SOL)
    assert case.desk.exchange.canceled == ["af-solusdt-0"]
    assert state_of(done) is LegState.ACKNOWLEDGED


def test_one_cancel_that_fails_does_not_keep_another_from_being_sent() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED, both=True)
    case.desk.exchange.script["cancel"].append(Fails(Unavailable("away")))
    case.settle()
    assert sorted(case.desk.exchange.canceled) == ["af-btcusdt-0", "af-solusdt-0"]
    assert case.desk.exchange.calls.count("cancel") == 3
    assert case.desk.exchange.canceled[0] == "af-solusdt-0"


@pytest.mark.parametrize(
    "error",
    [OutcomeUnknown("lost"), Unavailable("away"), TooLate("nothing was sent"), NotFound("43001")],
)
def test_A30_A31_a_cancel_that_did_not_work_is_tried_again_after_the_next_look(
    error: AifapError,
) -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED)
    case.desk.exchange.script["cancel"].append(Fails(error))
    case.settle()
    cancels = [call for call in case.desk.exchange.calls if call == "cancel"]
    assert len(cancels) == 2
    first = case.desk.exchange.calls.index("cancel")
    assert case.desk.exchange.calls[first : first + 3] == ["cancel", "order", "cancel"]


@pytest.mark.parametrize("error", [StaleWriter("epoch 4"), Rejected("no", code="40762")])
def test_I8_a_cancel_that_is_refused_for_good_ends_it(error: AifapError) -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED)
    case.desk.exchange.script["cancel"].append(Fails(error))
    with pytest.raises(type(error)):
        case.settle()


def half_filled(desk: Desk) -> Case:
    """An order that is over, canceled with a part of it filled; nobody has looked yet."""
    case = sent(desk, LegState.ACKNOWLEDGED, known=False)
    desk.exchange.script["submit"].append(FillsPart("BTCUSDT", PART))
    order = OrderRequest("af-btcusdt-0", "BTCUSDT", Side.BUY, case.info.leg(BTC).size, False)
    desk.exchange.submit(case.scribe.stamp(case.info), [order])
    return case


def test_B4_a_cancelled_order_must_say_the_same_twice() -> None:
    """The first look shows it cancelled with nothing filled: its fills are still on their way."""
    desk = Desk()
    case = half_filled(desk)
    desk.exchange.script["order"].append(ShowsCanceled())
    looks = [case.evidence.look(case.info) for _ in range(3)]
    assert [state_of(info) for info in looks] == [
        LegState.ACKNOWLEDGED, LegState.ACKNOWLEDGED, LegState.ABANDONED,
    ]  # fmt: skip
    assert part_of(looks[-1]).filled_size == PART


def test_B4_two_looks_that_are_wrong_in_the_same_way_are_no_proof_against_the_fills() -> None:
    case = half_filled(Desk())
    case.desk.exchange.script["order"].extend([ShowsCanceled()] * 3)
    done = case.settle()
    assert state_of(done) is LegState.ABANDONED
    assert part_of(done).filled_size == PART


@pytest.mark.parametrize("hidden_s", [3.0, 1000.0])
def test_B2_an_order_is_believed_without_its_fills_once_it_has_said_the_same_for_long(
    hidden_s: float,
) -> None:
    desk = Desk()
    case = half_filled(desk)
    began = desk.clock.now()
    desk.exchange.fills_hidden_until = began + timedelta(seconds=hidden_s)
    done = case.settle()
    assert part_of(done).filled_size == PART
    took_s = (desk.clock.now() - began).total_seconds()
    believed_s = min(hidden_s, END_BELIEVED_S)
    assert believed_s <= took_s <= believed_s + 3 * POLL_MAX_S


def test_a_list_of_fills_that_cannot_be_had_is_asked_for_again() -> None:
    case = half_filled(Desk())
    case.desk.exchange.script["fills"].extend([Fails(Unavailable("away"))] * 2)
    assert part_of(case.settle()).filled_size == PART
    assert case.desk.exchange.calls.count("fills") == 3


# --- one look -------------------------------------------------------------------------------------


def test_a_look_that_shows_nothing_new_writes_nothing() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED)
    known = case.evidence.look(case.info)  # with its number
    assert part_of(known).order_id is not None
    written = len(case.desk.store.written)
    assert case.evidence.look(known) is known
    assert len(case.desk.store.written) == written == 1


def test_a_leg_that_is_over_hides_none_that_is_open() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED, both=True)
    record = case.info.leg(BTC)
    over = replace(record, slices=(replace(record.slices[0], state=LegState.REJECTED),))
    case.desk.exchange.fill_rest("SOLUSDT")
    done = case.evidence.look(case.info.with_legs({BTC: over}))
    assert state_of(done, SOL) is LegState.FILLED
    assert case.desk.exchange.calls == ["order"]


def test_an_order_that_is_as_it_was_hides_none_that_is_another_now() -> None:
    case = sent(Desk(), LegState.ACKNOWLEDGED, both=True)
    known = case.evidence.look(case.info)
    case.desk.exchange.fill_rest("SOLUSDT")
    done = case.evidence.look(known)
    assert (state_of(done), state_of(done, SOL)) == (LegState.ACKNOWLEDGED, LegState.FILLED)


# --- what the exchange does not know --------------------------------------------------------------


@pytest.mark.parametrize("state", [LegState.SENT, LegState.UNKNOWN])
def test_A9_what_never_left_is_over_at_once_with_the_records_words(state: LegState) -> None:
    never = OrderTrace("af-btcusdt-0", Passage.NEVER, None, "limit-exceeded", "over the limit")
    case, exchange = traced(never, state)
    done = case.evidence.look(case.info)
    ended = part_of(done)
    assert (ended.state, ended.code, ended.message) == (
        LegState.ABANDONED, "limit-exceeded", "over the limit",
    )  # fmt: skip
    ((stamp, missing),) = exchange.asked
    record = case.info.leg(BTC)
    not_after = record.slices[0].not_after
    assert not_after is not None
    assert missing == MissingOrder("af-btcusdt-0", "BTCUSDT", False, not_after)
    assert (stamp.cycle, stamp.epoch) == (case.info.cycle, case.desk.epoch)


def test_A9_what_was_taken_is_waited_for_though_the_exchange_does_not_show_it() -> None:
    case, _ = traced(OrderTrace("af-btcusdt-0", Passage.TAKEN))
    assert state_of(case.evidence.look(case.info)) is LegState.ACKNOWLEDGED


def test_A10_an_acknowledged_order_that_has_no_number_is_never_called_absent() -> None:
    case, exchange = traced(OrderTrace("af-btcusdt-0", Passage.NEVER), state=LegState.ACKNOWLEDGED)
    case.desk.clock.advance(3600)
    for _ in range(ABSENCES + 1):
        assert case.evidence.look(case.info) is case.info
    assert exchange.asked == []


def forgotten(filled: str | None, *, age: timedelta = FORGOTTEN_AFTER * 3) -> Case:
    """BTC's order was taken, long ago; the exchange does not show it by its id any more. `filled`:
    how much was executed of it (None: nothing)."""
    desk = Desk()
    case = sent(desk, LegState.ACKNOWLEDGED, known=False)
    size = case.info.leg(BTC).size
    order = OrderRequest("af-btcusdt-0", "BTCUSDT", Side.BUY, size, False)
    if filled is not None:
        part = size if filled == "all" else Decimal(filled)
        desk.exchange.script["submit"].append(FillsPart("BTCUSDT", part))
        (result,) = desk.exchange.submit(case.scribe.stamp(case.info), [order])
        number = result.order_id
    else:
        desk.exchange.rest(order)
        number = desk.exchange.order("BTCUSDT", "af-btcusdt-0").order_id
    record = case.info.leg(BTC)
    numbered = replace(record, slices=(replace(record.slices[0], order_id=number),))
    case.info = case.info.with_legs({BTC: numbered})
    desk.exchange.lose_sight("af-btcusdt-0")
    desk.clock.advance(SEND_WINDOW_S + age.total_seconds())
    desk.exchange.calls.clear()
    return case


@pytest.mark.parametrize(
    ("filled", "state"),
    [
        (None, LegState.ABANDONED),
        (str(PART), LegState.ABANDONED),
        ("all", LegState.FILLED),
    ],
)
def test_B4_an_order_that_is_no_longer_shown_is_over_as_its_fills_say(
    filled: str | None, state: LegState
) -> None:
    """Cancelled orders without fills are kept for hours only; the leader was away for longer."""
    case = forgotten(filled)
    size = case.info.leg(BTC).size
    began = case.desk.clock.now()
    done = case.settle()
    part = part_of(done)
    wanted_size = size if filled == "all" else Decimal(filled or 0)
    assert (part.state, part.filled_size, part.code) == (state, wanted_size, FORGOTTEN)
    assert (part.average_price is None) is (filled is None)
    took_s = (case.desk.clock.now() - began).total_seconds()
    assert END_BELIEVED_S < took_s < END_BELIEVED_S + 3 * POLL_MAX_S
    assert case.desk.exchange.calls.count("fills") == 2, "said twice"
    (detail,) = case.desk.told
    assert "af-btcusdt-0" in detail
    assert from_json(case.desk.store.last) == done


def seen_for(case: Case, seconds: float) -> OrderInfo:
    """Looked at every ten seconds."""
    info = case.info
    for _ in range(int(seconds / 10)):
        info = case.evidence.look(info)
        case.desk.clock.advance(10)
    return info


@pytest.mark.parametrize("age", [timedelta(0), FORGOTTEN_AFTER - timedelta(minutes=3)])
def test_A10_an_order_that_was_taken_lately_is_not_over_because_nobody_shows_it(
    age: timedelta,
) -> None:
    case = forgotten(None, age=age)
    assert state_of(seen_for(case, 100)) is LegState.ACKNOWLEDGED
    assert "fills" not in case.desk.exchange.calls
    assert case.desk.told == []


def test_A10_an_order_older_than_the_lists_of_fills_is_left_to_a_person() -> None:
    case = forgotten(None, age=FORGOTTEN_WITHIN)
    assert state_of(seen_for(case, 100)) is LegState.ACKNOWLEDGED


def test_A10_an_order_that_is_listed_as_open_is_not_over() -> None:
    case = forgotten(None)
    case.desk.exchange.lost_sight.clear()
    case.desk.exchange.index_lag_s = 1e6  # the list has it, the question by id does not
    assert state_of(seen_for(case, 100)) is LegState.ACKNOWLEDGED
    assert case.desk.told == []


def test_B4_fills_that_come_late_begin_the_half_minute_anew() -> None:
    case = forgotten(str(PART))
    began = case.desk.clock.now()
    case.desk.exchange.fills_hidden_until = began + timedelta(seconds=25)
    done = case.settle()
    assert part_of(done).filled_size == PART
    assert (case.desk.clock.now() - began).total_seconds() > 2 * END_BELIEVED_S


def test_B2_a_list_of_fills_with_less_than_was_booked_is_no_proof() -> None:
    case = forgotten(str(PART))
    record = case.info.leg(BTC)
    booked = replace(record.slices[0], filled_size=PART * 2)
    case.info = case.info.with_legs({BTC: replace(record, slices=(booked,))})
    assert state_of(seen_for(case, 100)) is LegState.ACKNOWLEDGED


def test_a_list_of_fills_that_is_away_is_no_proof_and_asked_for_again() -> None:
    case = forgotten(None)
    case.desk.exchange.script["fills"].extend([Fails(Unavailable("away"))] * 3)
    info = seen_for(case, 30)
    assert state_of(info) is LegState.ACKNOWLEDGED
    assert case.desk.exchange.calls.count("fills") == 3
    case.info = info
    assert state_of(seen_for(case, 60)) is LegState.ABANDONED


def test_a_slice_without_a_deadline_is_never_called_absent() -> None:
    case, exchange = traced(OrderTrace("af-btcusdt-0", Passage.NEVER))
    record = case.info.leg(BTC)
    timeless = replace(record, slices=(replace(record.slices[0], not_after=None),))
    info = case.info.with_legs({BTC: timeless})
    case.desk.clock.advance(3600)
    for _ in range(ABSENCES + 1):
        assert case.evidence.look(info) is info
    assert exchange.asked == []


LEFT = OrderTrace("af-btcusdt-0", Passage.LEFT)


@pytest.mark.parametrize("says", ["when it arrives", "that it left", "nothing"])
def test_A9_A10_an_absence_counts_only_once_nothing_can_arrive_and_only_twice(says: str) -> None:
    """What the record cannot say is waited for longest."""
    case, exchange = traced(LEFT)
    not_after = case.info.leg(BTC).slices[0].not_after
    assert not_after is not None
    last = not_after + timedelta(seconds=WITHOUT_RECORD_S)
    if says == "when it arrives":
        last = not_after + timedelta(seconds=35)
        exchange.says(replace(LEFT, arrives_by=last))
    if says == "nothing":
        exchange.script["rule_out"].extend([Fails(Unavailable("Postgres is away"))] * 9)
    for moment in (case.desk.clock.now(), last - timedelta(seconds=1), last, last):
        case.desk.clock.sleep_until(moment)
        assert case.evidence.look(case.info) is case.info
    case.desk.clock.advance(0.001)
    assert case.evidence.look(case.info) is case.info, "once is not enough"
    ended = part_of(case.evidence.look(case.info))
    assert (ended.state, ended.code, ended.filled_size) == (LegState.ABANDONED, None, ZERO)


@pytest.mark.parametrize(
    "error", [OutcomeUnknown("lost"), Unavailable("away"), TooLate("nothing was sent")]
)
def test_A10_a_record_that_cannot_be_read_proves_nothing(error: AifapError) -> None:
    case, exchange = traced(OrderTrace("af-btcusdt-0", Passage.NEVER))
    exchange.script["rule_out"].append(Fails(error))
    assert case.evidence.look(case.info) is case.info
    assert state_of(case.evidence.look(case.info)) is LegState.ABANDONED


def test_I8_a_writer_that_another_has_replaced_asks_no_further() -> None:
    case, exchange = traced(LEFT)
    exchange.script["rule_out"].append(Fails(StaleWriter("epoch 4")))
    with pytest.raises(StaleWriter):
        case.evidence.look(case.info)


def test_A10_a_question_that_fails_is_no_absence() -> None:
    case, exchange = traced(OrderTrace("af-btcusdt-0", Passage.NEVER))
    exchange.script["order"].append(Fails(Unavailable("no name service")))
    with pytest.raises(Unavailable):
        case.evidence.look(case.info)
    assert exchange.asked == []


def test_absences_are_counted_order_by_order() -> None:
    desk = Desk()
    case = sent(desk, both=True, known=False)
    desk.exchange.handed.update({"af-btcusdt-0", "af-solusdt-0"})
    desk.clock.advance(3600)
    once = case.evidence.look(case.info)
    assert once is case.info
    twice = case.evidence.look(once)
    assert (state_of(twice), state_of(twice, SOL)) == (LegState.ABANDONED, LegState.ABANDONED)
