"""The door that orders leave by: what the letter says of each, when it waits, when it gives up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from module.model.errors import (
    AifapError,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    StaleWriter,
    TooLate,
    Unavailable,
)
from module.model.orders import NOT_SENT, OrderRequest, Outcome, SubmitResult
from tests.fakes.exchange import Edits, Fails, Late, Lost, Refuses, make_instrument
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.departures import Departures
from trading.execution.evidence import Evidence
from trading.execution.scribe import SEND_WINDOW_S, Scribe
from trading.execution.sending import (
    BATCH_MAX,
    ROOM_WAIT_FIRST_S,
    ROOM_WAIT_MAX_S,
    SEND_PATIENCE_S,
    Sender,
    why_nothing_opens,
)
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import OrderInfo, Slice, from_json, given_up

ONE = {"BTCUSDT": "0.3"}
SEVEN = {
    "ADAUSDT": "0.1",
    "BTCUSDT": "0.11",
    "DOGEUSDT": "-0.12",
    "ETHUSDT": "0.13",
    "LINKUSDT": "-0.14",
    "SOLUSDT": "0.15",
    "XRPUSDT": "0.16",
}
LIMIT = RateLimited("the budget is used up; nothing was sent", retry_after_s=7)


@dataclass
class Door:
    """A sender at a test's hand. `refitted`: how often it was told to size anew."""

    desk: Desk
    info: OrderInfo
    refitted: list[OrderInfo] = field(default_factory=list)

    def __post_init__(self) -> None:
        scribe = Scribe(self.desk.ports(), self.desk.rules())
        lots = {name: rules.size_step for name, rules in self.desk.exchange.rules.items()}
        departures = Departures.of(self.info, lots)
        self.sender = Sender(scribe, Evidence(scribe), departures)
        self.desk.exchange.calls.clear()
        self.desk.store.written.clear()

    def send(self, *, opening: bool = True) -> OrderInfo:
        """Every leg of the letter, in its order."""
        leg_ids = [record.leg.leg_id for record in self.info.legs]
        rules = self.desk.exchange.rules
        return self.sender.send(self.info, leg_ids, rules, opening=opening, refit=self.refit)

    def refit(self, info: OrderInfo) -> OrderInfo:
        self.refitted.append(info)
        return info


def door(targets: Mapping[str, str] | None = None, desk: Desk | None = None) -> Door:
    """Before a plan that opens these targets (ONE unless told)."""
    found = desk or Desk()
    return Door(found, found.planned(wanted(ONE if targets is None else targets)))


def closing_door(desk: Desk | None = None) -> Door:
    """Before a plan that closes seven positions."""
    found = desk or Desk()
    for symbol in SEVEN:
        found.exchange.hold(symbol, make_instrument(symbol).size_step * 40)
    return door({}, found)


def part(info: OrderInfo, number: int = 0, leg: int = 0) -> Slice:
    return info.legs[leg].slices[number]


def letters(desk: Desk) -> list[OrderInfo]:
    return [from_json(document) for document in desk.store.written]


# --- the letter -----------------------------------------------------------------------------------


def test_C8_the_gate_gets_the_deadline_that_the_letter_has() -> None:
    """Saving took a second: an order that may leave for longer than its letter says could arrive
    after it was proven absent."""
    found = door()
    write = found.desk.store.write

    def slow(document: Mapping[str, object], epoch: int, revision: int) -> None:
        write(document, epoch, revision)
        found.desk.clock.advance(1)

    found.desk.store.write = slow  # type: ignore[method-assign]
    began = found.desk.clock.now()
    done = found.send()
    (stamp,) = found.desk.exchange.stamps
    assert stamp.not_after == part(done).not_after == began + timedelta(seconds=SEND_WINDOW_S)
    assert stamp.cycle == done.cycle


def test_D3_an_acceptance_is_saved_with_what_the_exchange_says_next() -> None:
    """Whoever comes next asks the exchange for what the letter calls *sent*."""
    found = door()
    done = found.send()
    report = found.desk.exchange.order("BTCUSDT", part(done).client_id)
    assert (part(done).state, part(done).order_id) == (LegState.ACKNOWLEDGED, report.order_id)
    assert part(from_json(found.desk.store.last)).state is LegState.SENT
    assert found.sender.sent_here == {part(done).client_id}


def test_a_refusal_is_kept_with_its_code_and_its_words() -> None:
    found = door()
    rules = {"BTCUSDT": make_instrument("BTCUSDT", size_step=Decimal("0.001"))}
    found.desk.exchange.script["submit"].append(Refuses({"BTCUSDT": "22038"}, rules))
    refused = part(found.send())
    assert (refused.state, refused.code, refused.message, refused.rules_changed) == (
        LegState.REJECTED, "22038", "refused", True,
    )  # fmt: skip
    other = door()
    other.desk.exchange.script["submit"].append(Refuses({"BTCUSDT": "40762"}))
    assert part(other.send()).rules_changed is False


def test_a_batch_that_is_refused_as_a_whole_is_refused_order_by_order() -> None:
    found = door(SEVEN)
    error = Rejected("over the limit", code="limit-exceeded")
    found.desk.exchange.script["submit"].append(Fails(error))
    done = found.send()
    for leg in range(BATCH_MAX):
        refused = part(done, leg=leg)
        assert (refused.state, refused.code, refused.message, refused.order_id) == (
            LegState.REJECTED, "limit-exceeded", "over the limit", None,
        )  # fmt: skip
    assert part(done, leg=BATCH_MAX).state is LegState.ACKNOWLEDGED


def test_A1_a_lost_answer_leaves_every_order_of_the_batch_unknown_with_its_reason() -> None:
    found = door({"BTCUSDT": "0.3", "SOLUSDT": "0.25"})
    found.desk.exchange.script["submit"].append(Fails(OutcomeUnknown("HTTP 502")))
    done = found.send()
    for leg in (0, 1):
        assert (part(done, leg=leg).state, part(done, leg=leg).message) == (
            LegState.UNKNOWN, "HTTP 502",
        )  # fmt: skip
        assert part(done, leg=leg).not_after is not None
    assert found.desk.exchange.calls == ["submit"], "nothing is sent again"


def test_A7_an_order_that_the_exchange_is_not_sure_of_is_unknown() -> None:
    found = door()

    def unsure(results: list[SubmitResult]) -> list[SubmitResult]:
        return [SubmitResult(results[0].client_id, Outcome.UNKNOWN, message="being processed")]

    found.desk.exchange.script["submit"].append(Edits(unsure))
    done = found.send()
    assert (part(done).state, part(done).message) == (LegState.UNKNOWN, "being processed")


def test_A7_results_of_nobody_are_nobodys() -> None:
    found = door()
    stray = SubmitResult("af-stray", Outcome.REJECTED, None, "40762", "no")
    found.desk.exchange.script["submit"].append(Edits(lambda results: [stray, *results]))
    assert part(found.send()).state is LegState.ACKNOWLEDGED


def test_each_batch_costs_one_write_with_the_results_of_the_one_before() -> None:
    found = door(SEVEN)
    done = found.send()
    assert len(found.desk.store.written) == 2
    states = [[record.state for record in info.legs] for info in (*letters(found.desk), done)]
    sent, planned, taken = LegState.SENT, LegState.PLANNED, LegState.ACKNOWLEDGED
    assert states == [[sent] * 5 + [planned] * 2, [taken] * 5 + [sent] * 2, [taken] * 7]


def test_nothing_to_send_writes_what_is_not_durable_yet_and_nothing_else() -> None:
    found = door()
    assert found.sender.send(found.info, [], {}, opening=True, refit=found.refit) is found.info
    assert [letter.revision for letter in letters(found.desk)] == [found.info.revision]
    found.sender.send(found.info, [], {}, opening=True, refit=found.refit)
    assert len(found.desk.store.written) == 1
    assert found.desk.exchange.calls == []


# --- slices ---------------------------------------------------------------------------------------


def test_an_order_is_no_larger_than_the_exchange_takes() -> None:
    desk = Desk()
    desk.exchange.rules["SOLUSDT"] = make_instrument("SOLUSDT", market_size_max=Decimal("7.77"))
    assert part(door({"SOLUSDT": "0.25"}, desk).send()).size == Decimal("7.7")


def test_A20_a_close_of_a_symbol_without_rules_leaves_whole() -> None:
    found = closing_door()
    record = found.info.legs[0]
    sent = found.sender.send(found.info, [record.leg.leg_id], {}, opening=False, refit=found.refit)
    assert part(sent).size == record.leg.size


def test_only_orders_that_open_carry_stops() -> None:
    """Stops on an order that closes a part would be set for what is left, at the old prices."""
    desk = Desk()
    desk.exchange.hold("SOLUSDT", "30")
    stops: Mapping[str, tuple[str | None, str | None]] = {"SOLUSDT": ("140", None)}
    found = Door(desk, desk.planned(wanted({"SOLUSDT": "0.25"}, stops)))
    (record,) = found.info.legs
    assert record.leg.reduce_only
    assert not found.info.wanted_stops()["SOLUSDT"].empty
    found.send(opening=False)
    (order,) = desk.exchange.ledger
    assert (order.reduce_only, order.stops.empty) == (True, True)


# --- what did not leave ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (RateLimited("full"), ROOM_WAIT_FIRST_S),
        (RateLimited("full", retry_after_s=0.01), ROOM_WAIT_FIRST_S),
        (LIMIT, 7.0),
        (RateLimited("full", retry_after_s=29.5), 29.5),
        (TooLate("the deadline passed"), ROOM_WAIT_FIRST_S),
    ],
)
def test_A12_what_did_not_leave_waits_for_room_and_leaves_under_its_id(
    error: AifapError, wait_s: float
) -> None:
    found = door()
    found.desk.exchange.script["submit"].append(Fails(error))
    done = found.send()
    assert found.desk.clock.slept == [wait_s]
    assert found.desk.exchange.calls == ["submit", "submit"], "nothing is open: nobody is asked"
    assert len(done.legs[0].slices) == 1
    assert part(done).state is LegState.ACKNOWLEDGED
    planned = letters(found.desk)
    assert [part(letter).state for letter in planned] == [LegState.SENT, LegState.SENT]
    assert part(planned[1]).not_after == found.desk.clock.now() + timedelta(seconds=SEND_WINDOW_S)


def test_C8_an_order_that_leaves_after_all_is_no_longer_one_that_certainly_did_not() -> None:
    """If the note stayed and the order were lost, its plan would count as never begun, and could be
    made anew beside it."""
    found = door()
    found.desk.exchange.script["submit"].extend([Fails(LIMIT), Fails(OutcomeUnknown("lost"))])
    done = found.send()
    again = letters(found.desk)[1]
    for letter in (again, done):
        assert part(letter).code is None
        assert letter.has_sent
    assert part(again).message is None


def test_what_certainly_did_not_leave_says_so_in_the_letter() -> None:
    found = door()
    found.desk.exchange.script["submit"].append(Fails(Unavailable("Postgres is away")))
    with pytest.raises(Unavailable):
        found.send()
    unsent = part(from_json(found.desk.store.last))
    assert (unsent.state, unsent.code, unsent.message, unsent.not_after) == (
        LegState.PLANNED, NOT_SENT, "Postgres is away", None,
    )  # fmt: skip
    assert not unsent.may_have_left
    assert found.desk.exchange.calls == ["submit"]
    assert found.desk.clock.slept == []


def test_A12_one_order_of_a_batch_that_did_not_leave_waits_and_the_rest_is_not_resent() -> None:
    found = door({"BTCUSDT": "0.3", "SOLUSDT": "0.25"})
    batches: list[list[str]] = []

    def first_unsent(results: list[SubmitResult]) -> list[SubmitResult]:
        client_id = results[0].client_id
        found.desk.exchange.forget(client_id)
        return [SubmitResult(client_id, Outcome.REJECTED, None, NOT_SENT, "429"), *results[1:]]

    def note(orders: Sequence[OrderRequest]) -> None:
        batches.append([order.symbol for order in orders])

    found.desk.exchange.before_submit = note
    found.desk.exchange.script["submit"].append(Edits(first_unsent))
    done = found.send()
    assert batches == [["BTCUSDT", "SOLUSDT"], ["BTCUSDT"]]
    assert found.desk.clock.slept == [ROOM_WAIT_FIRST_S]
    assert found.desk.exchange.calls == ["submit", "order", "submit"]
    assert [record.state for record in done.legs] == [LegState.ACKNOWLEDGED, LegState.FILLED]


def test_while_it_waits_for_room_it_asks_for_what_has_left_and_waits_no_longer_for_that() -> None:
    found = door(SEVEN)
    moments: list[datetime] = []
    found.desk.exchange.before_submit = lambda _orders: moments.append(found.desk.clock.now())
    found.desk.exchange.script["submit"].extend([Late(0), Fails(LIMIT)])
    found.desk.exchange.script["order"].append(Late(3))
    found.send()
    assert found.desk.exchange.calls[:2] == ["submit", "submit"]
    assert found.desk.exchange.calls.count("order") == BATCH_MAX
    assert [(moment - moments[0]).total_seconds() for moment in moments] == [0, 0, 7]


def test_A12_a_phase_waits_for_room_only_so_long_and_the_rest_is_for_the_next_cycle() -> None:
    """A limit of an hour is waited for in bounded steps, 60 s at most; what has left stays."""
    found = door(SEVEN)
    hour = Fails(RateLimited("full", retry_after_s=3600))
    found.desk.exchange.script["submit"].extend([Late(0), hour, hour, hour, hour])
    done = found.send()
    assert found.desk.clock.slept == [0, ROOM_WAIT_MAX_S, ROOM_WAIT_MAX_S]
    assert SEND_PATIENCE_S == 2 * ROOM_WAIT_MAX_S
    assert found.desk.exchange.calls.count("submit") == 4
    assert [record.abandoned is None for record in done.legs] == [True] * 5 + [False] * 2
    assert part(done, leg=6).state is LegState.ABANDONED
    assert from_json(found.desk.store.last) == done


@pytest.mark.parametrize("stood_s", [SEND_WINDOW_S, SEND_WINDOW_S + 0.5])
def test_C8_a_process_that_stood_still_after_its_letter_sends_nothing_until_it_has_written_anew(
    stood_s: float,
) -> None:
    found = door()
    real_s = [0.0]
    found.desk.clock.monotonic = lambda: real_s[0]  # type: ignore[method-assign]
    write = found.desk.store.write

    def stand_still(document: Mapping[str, object], epoch: int, revision: int) -> None:
        write(document, epoch, revision)
        if len(found.desk.store.written) == 1:
            real_s[0] += stood_s

    found.desk.store.write = stand_still  # type: ignore[method-assign]
    done = found.send()
    stood = stood_s > SEND_WINDOW_S
    assert found.desk.exchange.calls.count("submit") == 1
    assert found.desk.clock.slept == ([ROOM_WAIT_FIRST_S] if stood else [])
    assert len(found.desk.store.written) == (2 if stood else 1)
    assert part(done).state is LegState.ACKNOWLEDGED


def test_I8_a_writer_that_another_has_replaced_books_nothing() -> None:
    found = door()
    found.desk.exchange.script["submit"].append(Fails(StaleWriter("epoch 4")))
    with pytest.raises(StaleWriter):
        found.send()
    assert [part(letter).state for letter in letters(found.desk)] == [LegState.SENT]


# --- what is refused ------------------------------------------------------------------------------


def test_A18_the_first_refusal_of_an_opening_has_the_rest_sized_anew_and_only_the_first() -> None:
    found = door({**SEVEN, "BTCUSDT": "0.05"})
    desk = found.desk
    desk.exchange.script["submit"].append(Refuses({"ADAUSDT": "40762", "BTCUSDT": "40762"}))
    desk.exchange.script["submit"].append(Refuses({"SOLUSDT": "40762"}))
    found.send()
    assert len(found.refitted) == 1
    assert [record.state for record in found.refitted[0].legs][:2] == [LegState.REJECTED] * 2
    assert len(desk.exchange.batches) == 2


def test_A18_what_the_sizing_gave_up_does_not_leave() -> None:
    found = door(SEVEN)
    last = found.info.legs[-1].leg.leg_id

    def refit(info: OrderInfo) -> OrderInfo:
        return info.with_legs({last: given_up(info.leg(last), "no margin left")})

    found.refit = refit  # type: ignore[method-assign]
    found.desk.exchange.script["submit"].append(Refuses({"ADAUSDT": "40762"}))
    done = found.send()
    assert [len(batch) for batch in found.desk.exchange.batches] == [5, 1]
    assert done.leg(last).abandoned == "no margin left"


def test_a_refusal_in_the_last_batch_has_nothing_to_size() -> None:
    found = door()
    found.desk.exchange.script["submit"].append(Refuses({"BTCUSDT": "40762"}))
    found.send()
    assert found.refitted == []


def test_a_close_that_is_refused_has_nothing_sized_anew() -> None:
    found = closing_door()
    found.desk.exchange.script["submit"].append(Refuses({"ADAUSDT": "40309"}))
    found.send(opening=False)
    assert found.refitted == []
    assert [len(batch) for batch in found.desk.exchange.batches] == [5, 2]


@pytest.mark.parametrize("code", ["kill-switch", "halted", "clock-skew"])
def test_I22_an_account_that_opens_nothing_still_closes_everything(code: str) -> None:
    found = closing_door()
    found.desk.exchange.script["submit"].append(Refuses({"ADAUSDT": code}))
    done = found.send(opening=False)
    assert [len(batch) for batch in found.desk.exchange.batches] == [5, 2]
    assert [record.state for record in done.legs][1:] == [LegState.ACKNOWLEDGED] * 6


def test_I22_what_did_not_leave_yet_is_given_up_with_the_gates_words() -> None:
    found = door(SEVEN)
    found.desk.exchange.script["submit"].append(Refuses({"ETHUSDT": "kill-switch"}))
    done = found.send()
    assert [len(batch) for batch in found.desk.exchange.batches] == [5]
    given = [record.abandoned for record in done.legs]
    assert given == [None] * 5 + ["refused"] * 2
    assert [why_nothing_opens(record) for record in done.legs] == ["", "", "", "refused"] + [""] * 3
    assert from_json(found.desk.store.last) == done


def test_I22_a_gate_without_words_is_quoted_by_its_code() -> None:
    found = door()

    def silent(results: list[SubmitResult]) -> list[SubmitResult]:
        client_id = results[0].client_id
        found.desk.exchange.forget(client_id)
        return [SubmitResult(client_id, Outcome.REJECTED, None, "halted")]

    found.desk.exchange.script["submit"].append(Edits(silent))
    done = found.send()
    assert why_nothing_opens(done.legs[0]) == "halted"
    assert part(letters(found.desk)[-1]).code == "halted", "it is durable, though nothing is left"
    assert why_nothing_opens(found.info.legs[0]) == ""


def test_an_ordinary_refusal_says_nothing_about_the_account() -> None:
    found = door()
    found.desk.exchange.script["submit"].append(Refuses({"BTCUSDT": "40762"}))
    assert why_nothing_opens(found.send().legs[0]) == ""


def test_I22_a_session_that_stops_still_closes() -> None:
    desk = Desk(stopping=True)
    found = closing_door(desk)
    found.send(opening=False)
    assert len(desk.exchange.ledger) == 7
    other = door(desk=Desk(stopping=True))
    done = other.send()
    assert other.desk.exchange.calls == []
    assert done.legs[0].abandoned == "the session is stopping"


def test_A2_a_batch_that_was_taken_partly_is_unknown_as_a_whole() -> None:
    found = door({"BTCUSDT": "0.3", "SOLUSDT": "0.25"})
    found.desk.exchange.script["submit"].append(Lost(accepted=1))
    done = found.send()
    assert [record.state for record in done.legs] == [LegState.UNKNOWN] * 2
    assert found.sender.sent_here == {part(done, leg=leg).client_id for leg in (0, 1)}
