"""What leaves for the exchange, what is refused, and what is answered for ids seen before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.db.repositories.gateway_writes import WriteOutcome
from module.gateway.service import Gateway
from module.model.accounts import MarginMode, PositionMode
from module.model.errors import (
    Conflict,
    InvalidInput,
    InvariantViolated,
    LimitExceeded,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    StaleWriter,
    TooLate,
    Unavailable,
)
from module.model.orders import (
    MissingOrder,
    OrderRequest,
    OrderType,
    Outcome,
    Passage,
    Side,
    StopPrices,
    SubmitResult,
)
from tests.fakes.gateway_rig import GatewayRig, buy, sell

STOPS = StopPrices(Decimal("55000.5"), Decimal("66000.1"))


@pytest.fixture
def rig() -> GatewayRig:
    return GatewayRig()


def test_an_order_is_on_record_before_it_is_sent_and_its_outcome_after(rig: GatewayRig) -> None:
    seen_when_sent: list[WriteOutcome | None] = []
    submit = rig.venue.submit

    def watching(orders, **listening):  # type: ignore[no-untyped-def]
        seen_when_sent.extend(write.outcome for write in rig.postgres.orders())
        return submit(orders, **listening)

    rig.venue.submit = watching  # type: ignore[method-assign]
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    assert result.outcome is Outcome.ACCEPTED
    assert seen_when_sent == [None]
    (write,) = rig.postgres.orders()
    assert (write.client_id, write.outcome) == ("af-1", WriteOutcome.ACCEPTED)


def test_results_come_in_the_order_of_the_batch(rig: GatewayRig) -> None:
    orders = [
        buy(f"af-{n}", symbol=symbol, size="2")
        for n, symbol in enumerate(["XRPUSDT", "ETHUSDT", "BTCUSDT"])
    ]
    results = rig.gateway.submit("acc", rig.stamp(), orders)
    assert [result.client_id for result in results] == ["af-0", "af-1", "af-2"]


def test_the_stops_of_an_accepted_opening_order_are_wanted(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    wanted = rig.postgres.wanted[("acc", "BTCUSDT")]
    assert (wanted.stops, wanted.is_long, wanted.epoch) == (STOPS, True, 7)


def test_the_stops_of_a_rejected_order_are_not_wanted(rig: GatewayRig) -> None:
    rig.venue.script["submit_one"].append(Rejected("no money", code="40762"))
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    assert (result.outcome, result.code) == (Outcome.REJECTED, "40762")
    assert rig.postgres.wanted == {}
    assert rig.postgres.orders()[0].outcome is WriteOutcome.REJECTED


# --- the stamp ----------


@pytest.mark.parametrize("epoch", [6, 8])
def test_only_the_epoch_of_the_account_writes(rig: GatewayRig, epoch: int) -> None:
    with pytest.raises(StaleWriter, match=f"epoch {epoch}"):
        rig.gateway.submit("acc", rig.stamp(epoch), [buy()])
    assert rig.venue.orders == {}


def test_a_raised_epoch_is_noticed_by_the_very_next_write(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(7), [buy("af-1")])
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], epoch=8)
    with pytest.raises(StaleWriter):
        rig.gateway.submit("acc", rig.stamp(7), [buy("af-2")])
    assert rig.gateway.submit("acc", rig.stamp(8), [buy("af-3")])[0].outcome is Outcome.ACCEPTED


def test_a_write_past_its_deadline_is_dropped(rig: GatewayRig) -> None:
    stamp = rig.stamp(seconds=2)
    rig.clock.advance(2.001)
    with pytest.raises(TooLate, match="nothing was sent"):
        rig.gateway.submit("acc", stamp, [buy()])
    assert rig.postgres.writes == []


def test_a_second_gateway_process_does_not_write(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1")])
    second = rig.another("gw-2")
    with pytest.raises(Unavailable):
        second.submit("acc", rig.stamp(), [buy("af-2")])
    assert set(rig.venue.orders) == {"af-1"}
    assert second.snapshot("acc").positions  # reading is free


def test_an_inactive_account_takes_no_writes(rig: GatewayRig) -> None:
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], active=False)
    with pytest.raises(Conflict):
        rig.gateway.submit("acc", rig.stamp(), [buy()])


# --- the shape of a batch ----------


def test_a_batch_has_one_to_five_orders_with_ids_of_their_own(rig: GatewayRig) -> None:
    for batch in (
        [],
        [buy(f"af-{n}") for n in range(6)],
        [buy("af-1"), buy("af-1")],
        [buy("AF_1")],
        [buy("a" * 33)],
        [buy("")],
    ):
        with pytest.raises(InvalidInput):
            rig.gateway.submit("acc", rig.stamp(), batch)
    assert rig.postgres.writes == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"symbol": "NOSUCHUSDT"}, "unknown-symbol"),
        ({"size": Decimal("0.00015")}, "size"),
        ({"size": Decimal(0)}, "size"),
        ({"size": Decimal(-1)}, "size"),
        ({"stops": StopPrices(Decimal("55000.05"))}, "price"),
        ({"order_type": OrderType.LIMIT}, "price"),
        ({"price": Decimal(60000)}, "price"),
    ],
)
def test_an_order_that_cannot_be_right_is_refused_with_its_reason(
    rig: GatewayRig, changes: dict[str, object], code: str
) -> None:
    order = replace(buy(), **changes)  # type: ignore[arg-type]
    (result,) = rig.gateway.submit("acc", rig.stamp(), [order])
    assert (result.outcome, result.code) == (Outcome.REJECTED, code)
    assert rig.venue.orders == {}


# --- limits ----------


def with_limits(**limits: object) -> GatewayRig:
    rig = GatewayRig()
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], limits=limits)
    return rig


def test_limits_refuse_openings_one_by_one_and_let_reductions_through() -> None:
    rig = with_limits(order_notional_max="700")
    rig.venue.hold("ETHUSDT", Decimal("1.5"))
    results = rig.gateway.submit(
        "acc",
        rig.stamp(),
        [buy("af-1", "0.0123"), buy("af-2", "0.0001"), sell("af-3", "1.5", symbol="ETHUSDT")],
    )
    assert [(r.outcome, r.code) for r in results] == [
        (Outcome.REJECTED, "limit-order-notional"),
        (Outcome.ACCEPTED, None),
        (Outcome.ACCEPTED, None),
    ]


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"kill_switch": True}, "kill-switch"),
        ({"symbols": ["ETHUSDT"]}, "limit-symbols"),
        ({"position_notional_max": "739"}, "limit-position-notional"),
        ({"leverage_max": "2"}, "limit-leverage"),
        ({"orders_per_minute": 0}, "limit-orders-per-minute"),
    ],
)
def test_I9_every_cap_holds_for_openings(limits: dict[str, object], code: str) -> None:
    rig = with_limits(**limits)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert (result.outcome, result.code) == (Outcome.REJECTED, code)
    rig.venue.hold("BTCUSDT", Decimal("0.5"))
    rig.clock.advance(5)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [sell(size="0.5")])
    assert result.outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
@pytest.mark.parametrize("factor", ["0.1", "0.89", "1.11", "10"])
def test_C3_nothing_opens_at_a_price_far_off_the_planned_one(
    rig: GatewayRig, side: Side, factor: str
) -> None:
    planned = rig.venue.marks["BTCUSDT"]
    rig.venue.marks["BTCUSDT"] = planned * Decimal(factor)
    order = buy(side=side, reference_price=planned)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [order])
    assert (result.outcome, result.code) == (Outcome.REJECTED, "price-moved")
    assert "submit" not in rig.venue.calls


def test_C3_a_close_leaves_whatever_the_price_is(rig: GatewayRig) -> None:
    planned = rig.venue.marks["BTCUSDT"]
    opening = buy(reference_price=planned * Decimal("1.09"))
    closing = sell(reference_price=planned * 10)
    for order in (opening, closing):
        (result,) = rig.gateway.submit("acc", rig.stamp(), [order])
        assert result.outcome is Outcome.ACCEPTED


def test_the_position_cap_counts_what_is_held_and_what_is_on_its_way() -> None:
    rig = with_limits(position_notional_max="1500")
    results = rig.gateway.submit("acc", rig.stamp(), [buy("af-1"), buy("af-2"), buy("af-3")])
    assert [r.outcome for r in results] == [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.REJECTED]
    rig.clock.advance(10)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy("af-4")])
    assert result.code == "limit-position-notional"


def test_orders_per_minute_are_counted_in_world_time() -> None:
    rig = with_limits(orders_per_minute=2)
    codes = [
        rig.gateway.submit("acc", rig.stamp(), [buy(f"af-{n}", "0.0001")])[0].code for n in range(3)
    ]
    assert codes == [None, None, "limit-orders-per-minute"]
    rig.clock.advance(61)
    assert rig.gateway.submit("acc", rig.stamp(), [buy("af-9", "0.0001")])[0].code is None


def test_limits_that_cannot_be_read_stop_the_account() -> None:
    rig = with_limits(order_notionl_max="5")
    with pytest.raises(InvalidInput, match="order_notionl_max"):
        rig.gateway.submit("acc", rig.stamp(), [buy()])


def test_I22_the_kill_switch_holds_from_the_next_order_on(rig: GatewayRig) -> None:
    assert rig.gateway.submit("acc", rig.stamp(), [buy("af-1")])[0].outcome is Outcome.ACCEPTED
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], limits={"kill_switch": True})
    assert rig.gateway.submit("acc", rig.stamp(), [buy("af-2")])[0].code == "kill-switch"


# --- reduce-only must be true ----------


@pytest.mark.parametrize(
    ("held", "order", "code"),
    [
        ("0", sell(size="0.0123"), "no-position"),
        ("-0.0123", sell(size="0.0123"), "reduce-only"),
        ("0.0123", sell(size="0.0124"), "reduce-only"),
        ("0.0123", buy(side=Side.SELL, size="0.0300"), "would-flip"),
    ],
)
def test_I6_nothing_turns_a_position_round(
    rig: GatewayRig, held: str, order: object, code: str
) -> None:
    rig.venue.hold("BTCUSDT", Decimal(held))
    (result,) = rig.gateway.submit("acc", rig.stamp(), [order])  # type: ignore[list-item]
    assert (result.outcome, result.code) == (Outcome.REJECTED, code)


def test_a_position_that_was_read_before_its_fill_can_be_reduced_at_once(rig: GatewayRig) -> None:
    assert rig.gateway.submit("acc", rig.stamp(), [buy("af-1")])[0].outcome is Outcome.ACCEPTED
    rig.venue.hold("BTCUSDT", Decimal(0))
    rig.gateway.snapshot("acc")  # read while the order is still on its way
    rig.venue.hold("BTCUSDT", buy().size)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [sell("af-2", str(buy().size))])
    assert result.outcome is Outcome.ACCEPTED
    (result,) = rig.gateway.submit("acc", rig.stamp(), [sell("af-3", str(buy().size * 3))])
    assert result.code == "reduce-only"


def test_two_reductions_of_a_batch_may_not_exceed_the_position_together(rig: GatewayRig) -> None:
    rig.venue.hold("BTCUSDT", Decimal("0.0200"))
    results = rig.gateway.submit(
        "acc", rig.stamp(), [sell("af-1", "0.0150"), sell("af-2", "0.0060")]
    )
    assert [r.code for r in results] == [None, "reduce-only"]


def test_A22_hedge_mode_is_refused_with_the_way_to_change_it(rig: GatewayRig) -> None:
    rig.venue.position_mode = PositionMode.HEDGE
    with pytest.raises(Conflict, match="One-way mode"):
        rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert rig.venue.orders == {}


# --- unknown outcomes ----------


def test_A1_timeout_after_accept_is_unknown_and_found_by_asking(rig: GatewayRig) -> None:
    rig.venue.script["submit_one"].append("lost")
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    assert result.outcome is Outcome.ACCEPTED
    assert result.order_id == rig.venue.orders["af-1"].order_id
    assert ("acc", "BTCUSDT") in rig.postgres.wanted


def test_A9_not_found_after_a_lost_answer_stays_unknown(rig: GatewayRig) -> None:
    rig.venue.script["submit_one"].append("lost")
    rig.venue.script["order"].append(Unavailable("index lag"))
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    assert result.outcome is Outcome.UNKNOWN
    assert rig.postgres.orders()[0].outcome is WriteOutcome.UNKNOWN
    assert rig.postgres.wanted == {}


def test_an_unknown_order_that_turns_up_later_is_recorded_and_protected(rig: GatewayRig) -> None:
    rig.venue.script["submit_one"].append("lost")
    rig.venue.script["order"].append(Unavailable("index lag"))
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.gateway.protect_now("acc")
    assert rig.postgres.orders()[0].outcome is WriteOutcome.ACCEPTED
    assert rig.postgres.wanted[("acc", "BTCUSDT")].stops == STOPS


def test_an_unknown_order_is_asked_for_at_a_pace_of_its_own_however_often_one_looks(
    rig: GatewayRig,
) -> None:
    rig.venue.script["submit_one"].append("lost")
    rig.venue.script["order"].extend([Unavailable("index lag")] * 100)
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])

    def asked_within(seconds: int) -> int:
        before = rig.venue.calls.count("order")
        for _ in range(seconds * 10):
            rig.gateway.protect_now("acc")
            rig.clock.advance(0.1)
        return rig.venue.calls.count("order") - before

    # at once, after 0.3 s, as the position came, after 0.6, 1.2, 2.4 s
    assert asked_within(8) <= 6
    assert asked_within(60) <= 4  # 4.8, 9.6, 19.2, 38.4 s
    assert asked_within(1) == 0
    rig.venue.hold("BTCUSDT", Decimal("0.0246"))
    assert asked_within(1) == 1  # the position changed
    assert rig.postgres.orders()[0].outcome is WriteOutcome.UNKNOWN
    rig.venue.script["order"].clear()
    assert asked_within(60) == 1
    assert rig.postgres.orders()[0].outcome is WriteOutcome.ACCEPTED
    assert rig.postgres.wanted[("acc", "BTCUSDT")].stops == STOPS


def test_a_gateway_that_died_while_sending_leaves_orders_that_the_next_one_finds(
    rig: GatewayRig,
) -> None:
    class Killed(BaseException):
        pass

    def die(order, report):  # type: ignore[no-untyped-def]
        raise Killed

    fill, rig.venue._preset = rig.venue._preset, lambda order: None  # type: ignore[method-assign]
    rig.venue._fill, filled = die, rig.venue._fill  # type: ignore[method-assign]
    with pytest.raises(Killed):
        rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    rig.venue._fill, rig.venue._preset = filled, fill  # type: ignore[method-assign]
    rig.venue.hold("BTCUSDT", Decimal("0.0123"))
    rig.postgres.owner = None
    second = rig.another("gw-2")
    assert second.protect_now("acc") == ()
    assert rig.postgres.orders()[0].outcome is WriteOutcome.ACCEPTED
    assert rig.venue.snapshot().positions[0].stops == STOPS


def test_promise_1_a_client_id_seen_before_is_answered_by_asking_the_exchange(
    rig: GatewayRig,
) -> None:
    first = rig.gateway.submit("acc", rig.stamp(), [buy()])
    rig.clock.advance(4)
    again = rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert again[0].order_id == first[0].order_id
    assert rig.venue.calls.count("submit_one") == 1
    assert len(rig.postgres.orders()) == 1


def test_an_order_that_was_recorded_without_its_planned_price_is_the_same(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    planned = buy(reference_price=rig.venue.marks["BTCUSDT"])
    (again,) = rig.gateway.submit("acc", rig.stamp(), [planned])
    assert again.outcome is Outcome.ACCEPTED
    assert len(rig.venue.orders) == 1


def test_a_seen_id_that_the_exchange_does_not_show_is_unknown_and_not_sent(
    rig: GatewayRig,
) -> None:
    rig.venue.script["submit_one"].append(OutcomeUnknown("never arrived"))
    assert rig.gateway.submit("acc", rig.stamp(), [buy()])[0].outcome is Outcome.UNKNOWN
    assert rig.gateway.submit("acc", rig.stamp(), [buy()])[0].outcome is Outcome.UNKNOWN
    assert rig.venue.calls.count("submit_one") == 1


def test_a_seen_rejection_is_repeated_as_it_was(rig: GatewayRig) -> None:
    rig.venue.script["submit_one"].append(Rejected("no money", code="40762"))
    first = rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert rig.gateway.submit("acc", rig.stamp(), [buy()]) == first


def test_a_client_id_is_never_used_for_another_order(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(size="0.0123")])
    with pytest.raises(InvariantViolated):
        rig.gateway.submit("acc", rig.stamp(), [buy(size="0.0124")])
    assert rig.venue.calls.count("submit_one") == 1


def test_A6_another_order_under_our_client_id_halts(rig: GatewayRig) -> None:
    rig.venue._accept(buy(size="0.5"))
    with pytest.raises(InvariantViolated):
        rig.gateway.submit("acc", rig.stamp(), [buy(size="0.0123")])
    assert rig.postgres.orders()[0].outcome is WriteOutcome.UNKNOWN


def clash_left_behind(rig: GatewayRig) -> Gateway:
    """A gateway died while it sent; the next one finds another order under the id."""

    class Killed(BaseException):
        pass

    def die(orders, **listening):  # type: ignore[no-untyped-def]
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rig.venue, "submit", die)
        with pytest.raises(Killed):
            rig.gateway.submit("acc", rig.stamp(), [buy(size="0.0123", stops=STOPS)])
    rig.venue._accept(buy(size="0.5"))
    rig.postgres.owner = None
    return rig.another("gw-2")


@pytest.mark.parametrize("epoch", [7, 8])
def test_A6_another_order_under_our_id_that_is_found_after_a_restart_halts_once(
    rig: GatewayRig, epoch: int
) -> None:
    """Also where the session's next leader was quicker than the gateway's first look."""
    second = clash_left_behind(rig)
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], epoch=epoch)
    for _ in range(30):
        second.protect_now("acc")
        rig.clock.advance(3)
    assert len(rig.alerts.of_kind("halted")) == 1
    assert rig.venue.calls.count("order") == 1
    (opening,) = second.submit("acc", rig.stamp(epoch), [buy("af-2", symbol="ETHUSDT", size="1")])
    assert (opening.outcome, opening.code) == (Outcome.REJECTED, "halted")
    (closing,) = second.submit("acc", rig.stamp(epoch), [sell("af-3", "0.5")])
    assert closing.outcome is Outcome.ACCEPTED
    assert rig.postgres.orders()[0].outcome is None  # never guessed
    assert rig.postgres.wanted == {}


def test_A6_the_next_leader_of_the_session_does_not_take_the_other_order_for_its_own(
    rig: GatewayRig,
) -> None:
    second = clash_left_behind(rig)
    second.protect_now("acc")
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], epoch=8)
    second.submit("acc", rig.stamp(8), [sell("af-9", "0.0001")])  # its halt would be over
    with pytest.raises(InvariantViolated, match=r"size 0.5, sent 0.0123"):
        second.order("acc", "BTCUSDT", "af-1")


def test_A6_a_clash_of_a_session_that_is_over_halts_no_other(rig: GatewayRig) -> None:
    second = clash_left_behind(rig)
    rig.clock.advance(3600)
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], epoch=8)
    second.protect_now("acc")
    (opening,) = second.submit("acc", rig.stamp(8), [buy("af-2", symbol="ETHUSDT", size="1")])
    assert opening.outcome is Outcome.ACCEPTED
    assert rig.alerts.of_kind("halted") == []


# --- nothing was sent ----------


def test_a_budget_that_is_used_up_leaves_no_trace_and_the_batch_may_be_repeated(
    rig: GatewayRig,
) -> None:
    rig.venue.script["admit_orders"].append(RateLimited("no room", retry_after_s=0.5))
    with pytest.raises(RateLimited):
        rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert rig.postgres.writes == []
    assert rig.gateway.submit("acc", rig.stamp(), [buy()])[0].outcome is Outcome.ACCEPTED


def test_A12_a_batch_that_the_exchange_did_not_take_may_be_repeated_under_its_ids(
    rig: GatewayRig,
) -> None:
    rig.venue.script["submit"].append(RateLimited("429", retry_after_s=7))
    with pytest.raises(RateLimited):
        rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])
    assert rig.postgres.orders()[0].outcome is WriteOutcome.NOT_SENT
    assert rig.gateway.submit("acc", rig.stamp(), [buy(stops=STOPS)])[0].outcome is Outcome.ACCEPTED
    assert rig.postgres.orders()[0].outcome is WriteOutcome.ACCEPTED


def test_A12_what_a_limit_sent_back_is_not_refused_afterwards_without_a_look(
    rig: GatewayRig,
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1", "0.0123")])
    rig.clock.advance(4)
    close = sell("af-2", "0.0123")
    taken, rig.venue.submit = rig.venue.submit, _twice(rig)  # type: ignore[method-assign]
    with pytest.raises(RateLimited):  # that is what the second of two copies was told
        rig.gateway.submit("acc", rig.stamp(), [close])
    rig.venue.submit = taken  # type: ignore[method-assign]
    rig.clock.advance(4)
    (result,) = rig.gateway.submit("acc", rig.stamp(), [close])  # there is no position any more
    assert result.outcome is Outcome.ACCEPTED
    assert rig.venue.calls.count("submit_one") == 2
    assert rig.postgres.orders()[1].outcome is WriteOutcome.ACCEPTED


def test_A12_what_was_sent_back_is_looked_for_however_often_its_batch_comes_back(
    rig: GatewayRig,
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1", "0.0123")])
    rig.clock.advance(4)
    close, other = sell("af-2", "0.0123"), buy("af-3", "20", symbol="XRPUSDT")
    taken, rig.venue.submit = rig.venue.submit, _twice(rig)  # type: ignore[method-assign]
    with pytest.raises(RateLimited):
        rig.gateway.submit("acc", rig.stamp(), [close])
    rig.venue.submit = taken  # type: ignore[method-assign]
    rig.clock.advance(4)  # from now on there is no position: the last gate refuses the close
    rig.venue.script["submit"].append(RateLimited("429", retry_after_s=7))
    with pytest.raises(RateLimited):
        rig.gateway.submit("acc", rig.stamp(), [close, other])
    assert "order" not in rig.venue.calls  # what nobody is told is not asked for
    closed, opened = rig.gateway.submit("acc", rig.stamp(), [close, other])
    assert (closed.outcome, opened.outcome) == (Outcome.ACCEPTED, Outcome.ACCEPTED)


@pytest.mark.parametrize("is_there", [True, False])
def test_A12_a_refusal_of_what_was_sent_back_is_believed_once_it_is_not_found(
    rig: GatewayRig, is_there: bool
) -> None:
    """The exchange may refuse the second of two copies for what the first one has done."""
    taken = rig.venue.submit
    if is_there:
        rig.venue.submit = _twice(rig)  # type: ignore[method-assign]
    else:
        rig.venue.script["submit"].append(RateLimited("429", retry_after_s=7))
    with pytest.raises(RateLimited):
        rig.gateway.submit("acc", rig.stamp(), [buy()])
    rig.venue.submit = taken  # type: ignore[method-assign]
    rig.venue.script["submit_one"].append(Rejected("not enough margin", code="40754"))
    (result,) = rig.gateway.submit("acc", rig.stamp(), [buy()])
    assert result.outcome is (Outcome.ACCEPTED if is_there else Outcome.REJECTED)
    assert result.code == (None if is_there else "40754")


def test_A12_a_look_for_what_was_sent_back_keeps_nothing_else_from_leaving(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange that is silent about orders for seconds: the others would be too old to leave."""
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1", "0.0123")])
    rig.clock.advance(4)
    close, other = sell("af-2", "0.0123"), buy("af-3", "20", symbol="XRPUSDT")
    rig.venue.script["submit"].append(RateLimited("429", retry_after_s=7))
    with pytest.raises(RateLimited):
        rig.gateway.submit("acc", rig.stamp(), [close])
    rig.venue.hold("BTCUSDT", Decimal(0))
    rig.clock.advance(4)
    look_up = rig.venue.look_up

    def slowly(order: OrderRequest, **words: object) -> SubmitResult:
        rig.clock.advance(9)
        return look_up(order, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.venue, "look_up", slowly)
    closed, opened = rig.gateway.submit("acc", rig.stamp(), [close, other])
    assert (closed.outcome, opened.outcome) == (Outcome.UNKNOWN, Outcome.ACCEPTED)


def _twice(rig: GatewayRig):  # type: ignore[no-untyped-def]
    take = rig.venue.submit

    def submit(orders, **listening):  # type: ignore[no-untyped-def]
        take(orders)
        raise RateLimited("429", retry_after_s=7)

    return submit


def test_a_refused_order_whose_batch_was_sent_back_is_refused_again_without_a_look() -> None:
    rig = with_limits(order_notional_max="1000")
    rig.venue.script["submit"].append(RateLimited("429", retry_after_s=7))
    batch = [buy("af-1", "0.0999"), buy("af-2", "0.0123")]
    with pytest.raises(RateLimited):
        rig.gateway.submit("acc", rig.stamp(), batch)
    over, fine = rig.gateway.submit("acc", rig.stamp(), batch)
    assert (over.outcome, fine.outcome) == (Outcome.REJECTED, Outcome.ACCEPTED)


def test_E1_what_was_not_sent_is_unknown_until_the_record_says_that_its_ids_are_free(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.gateway.protect_now("acc")
    rig.clock.advance(61)  # it has owned the account since before the order could leave

    def refuse(_orders: object, **_listening: object) -> None:
        rig.postgres.away = True
        raise RateLimited("429", retry_after_s=7)

    with monkeypatch.context() as patched:
        patched.setattr(rig.venue, "submit", refuse)
        (result,) = rig.gateway.submit("acc", rig.stamp(), [buy(size="0.0123")])
    assert result.outcome is Outcome.UNKNOWN  # or its id would be used for an order made anew
    rig.postgres.away = False
    missing = MissingOrder("af-1", "BTCUSDT", False, rig.stamp().not_after)
    assert rig.gateway.rule_out("acc", rig.stamp(), missing).passage is Passage.NEVER


def test_a_batch_that_was_not_sent_frees_the_ids_of_what_was_refused_too() -> None:
    rig = with_limits(order_notional_max="1000")
    rig.venue.script["submit"].append(RateLimited("429", retry_after_s=7))
    with pytest.raises(RateLimited):  # says nothing of the order that is over the limit
        rig.gateway.submit("acc", rig.stamp(), [buy("af-1", "0.0999"), buy("af-2", "0.0123")])
    assert {write.outcome for write in rig.postgres.orders()} == {WriteOutcome.NOT_SENT}
    results = rig.gateway.submit("acc", rig.stamp(), [buy("af-1", "0.0124"), buy("af-2", "0.0123")])
    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 2


# --- without Postgres ----------


def test_without_postgres_nothing_opens_and_reductions_of_the_last_epoch_leave(
    rig: GatewayRig,
) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1")])
    rig.postgres.away = True
    with pytest.raises(Unavailable):
        rig.gateway.submit("acc", rig.stamp(), [buy("af-2")])
    with pytest.raises(Unavailable):
        rig.gateway.submit("acc", rig.stamp(6), [sell("af-3")])
    (result,) = rig.gateway.submit("acc", rig.stamp(), [sell("af-4")])
    assert result.outcome is Outcome.ACCEPTED
    assert rig.venue.held == {}


def test_what_left_without_postgres_is_written_down_when_it_is_back(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy("af-1")])
    rig.postgres.away = True
    rig.gateway.submit("acc", rig.stamp(), [sell("af-2", "0.0100")])
    rig.postgres.away = False
    rig.gateway.submit("acc", rig.stamp(), [sell("af-3", "0.0023")])
    assert {w.client_id for w in rig.postgres.orders()} == {"af-1", "af-2", "af-3"}


def test_a_gateway_that_has_never_seen_postgres_writes_nothing(rig: GatewayRig) -> None:
    rig.postgres.away = True
    with pytest.raises(Unavailable):
        rig.gateway.submit("acc", rig.stamp(), [sell()])


def test_stops_can_be_set_without_postgres_and_are_kept(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    rig.postgres.away = True
    assert rig.gateway.set_stops("acc", rig.stamp(), "BTCUSDT", STOPS) == STOPS
    assert rig.postgres.wanted == {}
    rig.postgres.away = False
    rig.gateway.protect_now("acc")
    assert rig.postgres.wanted[("acc", "BTCUSDT")].stops == STOPS


# --- cancel and settings ----------


def test_a_cancel_is_on_record(rig: GatewayRig) -> None:
    order = buy(order_type=OrderType.LIMIT, price=Decimal(50000))
    rig.gateway.submit("acc", rig.stamp(), [order])
    rig.gateway.cancel("acc", rig.stamp(), "BTCUSDT", "af-1")
    assert rig.venue.orders["af-1"].status.is_terminal
    assert rig.postgres.writes[-1].outcome is WriteOutcome.ACCEPTED


def test_A30_a_lost_cancel_is_unknown(rig: GatewayRig) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    rig.venue.script["cancel"].append(OutcomeUnknown("lost"))
    with pytest.raises(OutcomeUnknown):
        rig.gateway.cancel("acc", rig.stamp(), "BTCUSDT", "af-1")
    assert rig.postgres.writes[-1].outcome is WriteOutcome.UNKNOWN


def test_leverage_is_set_while_flat_and_read_back(rig: GatewayRig) -> None:
    found = rig.gateway.apply_symbol_settings(
        "acc", rig.stamp(), "BTCUSDT", Decimal(5), MarginMode.ISOLATED
    )
    assert (found.leverage, found.margin_mode) == (Decimal(5), MarginMode.ISOLATED)


def test_one_look_at_the_account_serves_many_settings_until_an_order_leaves(
    rig: GatewayRig,
) -> None:
    def apply(symbol: str, leverage: int) -> None:
        mode = MarginMode.CROSSED
        rig.gateway.apply_symbol_settings("acc", rig.stamp(), symbol, Decimal(leverage), mode)

    apply("BTCUSDT", 5)
    apply("ETHUSDT", 5)
    assert rig.venue.calls.count("snapshot") == 1
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    with pytest.raises(Conflict, match="BTCUSDT has a position"):
        apply("BTCUSDT", 4)
    assert rig.venue.calls.count("snapshot") == 2
    rig.clock.advance(4)
    apply("ETHUSDT", 4)
    assert rig.venue.calls.count("snapshot") == 3


def test_leverage_of_a_held_symbol_changes_only_to_the_same_value(rig: GatewayRig) -> None:
    rig.venue.hold("BTCUSDT", Decimal("0.1"))
    same = rig.gateway.apply_symbol_settings(
        "acc", rig.stamp(), "BTCUSDT", Decimal(3), MarginMode.CROSSED
    )
    assert same.leverage == 3
    with pytest.raises(Conflict, match="flat"):
        rig.gateway.apply_symbol_settings(
            "acc", rig.stamp(), "BTCUSDT", Decimal(4), MarginMode.CROSSED
        )
    assert "set_leverage" not in rig.venue.calls


def test_A21_a_lost_leverage_call_is_verified_by_reading(rig: GatewayRig) -> None:
    rig.venue.script["set_leverage"].append(OutcomeUnknown("lost"))
    found = rig.gateway.apply_symbol_settings(
        "acc", rig.stamp(), "BTCUSDT", Decimal(5), MarginMode.CROSSED
    )
    assert found.leverage == 3  # the caller sees what is, not what was asked


def test_leverage_above_the_limit_is_refused(rig: GatewayRig) -> None:
    with pytest.raises(LimitExceeded):
        rig.gateway.apply_symbol_settings(
            "acc", rig.stamp(), "BTCUSDT", Decimal(21), MarginMode.CROSSED
        )


def test_stale_writers_are_refused_everywhere(rig: GatewayRig) -> None:
    stale = rig.stamp(6)
    with pytest.raises(StaleWriter):
        rig.gateway.cancel("acc", stale, "BTCUSDT", "af-1")
    with pytest.raises(StaleWriter):
        rig.gateway.set_stops("acc", stale, "BTCUSDT", STOPS)
    with pytest.raises(StaleWriter):
        rig.gateway.apply_symbol_settings("acc", stale, "BTCUSDT", Decimal(5), MarginMode.CROSSED)
    assert timedelta(0) < rig.stamp().not_after - rig.clock.now()
