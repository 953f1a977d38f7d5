"""Stops of a whole book: each position gets its own, whatever is the matter with the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
from module.model.orders import NO_STOPS, StopPrices, WriteStamp
from tests.fakes.exchange import Fails, FakeExchange, make_instrument
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.protection import STOP_ON_WRONG_SIDE, STOP_TRIES, protect
from trading.execution.scribe import Scribe
from trading.rebalance.order_info import OrderInfo

Fields = Mapping[str, Mapping[str, str]]
LONG = StopPrices(Decimal("55000.0"), Decimal("70000.0"))
WRONG_SIDE = Rejected("it would trigger at once", code=STOP_ON_WRONG_SIDE)


def held_with(desk: Desk, targets: Fields, stops: Mapping[str, StopPrices]) -> OrderInfo:
    """The letter of a book that is at its weights: nothing is to be traded, `stops` are wanted."""
    letter = desk.planned(wanted({}))
    return replace(letter, targets=targets, stops=stops, legs=())


def protected(desk: Desk, letter: OrderInfo, *, only_bare: bool = False) -> OrderInfo:
    return protect(Scribe(desk.ports(), desk.rules()), letter, only_bare=only_bare)


def test_I2_a_position_that_is_not_wanted_hides_none_that_is() -> None:
    """Stopping at the first that has no target would leave all after it without their stops."""
    desk = Desk()
    desk.exchange.hold("ADAUSDT", "100")
    desk.exchange.hold("BTCUSDT", "0.01")
    letter = held_with(desk, {"BTCUSDT": {"weight": "0.1"}}, {"BTCUSDT": LONG})
    protected(desk, letter)
    assert desk.exchange.stop_calls == [("BTCUSDT", LONG)]


def test_I2_a_position_that_has_its_stops_hides_none_that_has_not() -> None:
    desk = Desk()
    ada = StopPrices(Decimal("0.4000"))
    desk.exchange.hold("ADAUSDT", "100", ada)
    desk.exchange.hold("BTCUSDT", "0.01")
    weights = {"ADAUSDT": {"weight": "0.1"}, "BTCUSDT": {"weight": "0.1"}}
    protected(desk, held_with(desk, weights, {"ADAUSDT": ada, "BTCUSDT": LONG}))
    assert desk.exchange.stop_calls == [("BTCUSDT", LONG)]


def test_I2_a_position_whose_stop_was_left_out_hides_none_that_has_one() -> None:
    """ADA has a take profit only, and nothing to be given to the gateway."""
    desk = Desk()
    desk.exchange.hold("ADAUSDT", "100")
    desk.exchange.hold("BTCUSDT", "0.01")
    targets = {
        "ADAUSDT": {"weight": "0.1", "presetStopSurplusPrice": "0.4"},
        "BTCUSDT": {"weight": "0.1"},
    }
    protected(desk, held_with(desk, targets, {"BTCUSDT": LONG}))
    assert desk.exchange.stop_calls == [("BTCUSDT", LONG)]


def test_I2_a_bare_position_is_found_behind_a_protected_one() -> None:
    desk = Desk()
    desk.exchange.hold("ADAUSDT", "100", StopPrices(Decimal("0.3999")))
    desk.exchange.hold("BTCUSDT", "0.01")
    weights = {"ADAUSDT": {"weight": "0.1"}, "BTCUSDT": {"weight": "0.1"}}
    ada = StopPrices(Decimal("0.4000"))
    letter = held_with(desk, weights, {"ADAUSDT": ada, "BTCUSDT": LONG})
    protected(desk, letter, only_bare=True)
    assert desk.exchange.stop_calls == [("BTCUSDT", LONG)], "ADA's can wait: it has a stop"
    protected(desk, letter)
    assert desk.exchange.stops_of("ADAUSDT") == ada


def test_a_letter_without_stops_costs_no_look_at_the_account() -> None:
    desk = Desk()
    desk.exchange.hold("BTCUSDT", "0.01")
    letter = held_with(desk, {"BTCUSDT": {"weight": "0.1"}}, {})
    desk.exchange.calls.clear()
    assert protected(desk, letter) is letter
    assert desk.exchange.calls == []
    flat = Desk(default_stop_loss_pct=Decimal(5))
    nothing = held_with(flat, {}, {})
    flat.exchange.calls.clear()
    assert protected(flat, nothing) is nothing
    assert flat.exchange.calls == []


def test_where_every_stop_is_in_place_the_letter_stays_as_it_is() -> None:
    desk = Desk()
    desk.exchange.hold("BTCUSDT", "0.01", LONG)
    letter = held_with(desk, {"BTCUSDT": {"weight": "0.1"}}, {"BTCUSDT": LONG})
    assert protected(desk, letter) is letter
    assert desk.exchange.stop_calls == []


# --- what the plan left out -----------------------------------------------------------------------


def test_B6_the_sessions_default_stop_is_measured_from_the_entry_of_what_fell_through_it() -> None:
    """Bought at 60,123.4; the price is 11 % lower. The default stop of 5 % is above the price: the
    plan leaves it out, and the gateway is told of it, to close what it would have closed."""
    desk = Desk(default_stop_loss_pct=Decimal(5))
    desk.exchange.hold("BTCUSDT", "0.01")
    desk.exchange.marks["BTCUSDT"] = Decimal(53_500)
    desk.exchange.script["set_stops"].append(Fails(WRONG_SIDE))
    done = protected(desk, held_with(desk, {"BTCUSDT": {"weight": "0.1"}}, {}))
    assert done.stops_now == {"BTCUSDT": StopPrices(Decimal("57117.2"))}
    assert desk.exchange.calls.count("set_stops") == 1


def test_B6_a_shorts_default_stop_is_above_its_entry() -> None:
    desk = Desk(default_stop_loss_pct=Decimal(5))
    desk.exchange.hold("BTCUSDT", "-0.01")
    done = protected(desk, held_with(desk, {"BTCUSDT": {"weight": "-0.1"}}, {}))
    assert done.stops_now == {"BTCUSDT": StopPrices(Decimal("63129.6"))}
    assert desk.exchange.stops_of("BTCUSDT") == StopPrices(Decimal("63129.6"))


def test_B6_a_target_keeps_its_take_profit_with_the_stop_that_was_left_out() -> None:
    desk = Desk()
    desk.exchange.hold("BTCUSDT", "0.01")
    fields = {"weight": "0.1", "presetStopLossPrice": "55000", "presetStopSurplusPrice": "70000"}
    done = protected(desk, held_with(desk, {"BTCUSDT": fields}, {}))
    assert desk.exchange.stops_of("BTCUSDT") == LONG
    assert done.stops_now == {"BTCUSDT": LONG}


def test_a_take_profit_that_was_left_out_is_not_given_to_the_gateway() -> None:
    """Only a stop loss is worth a close at any price."""
    desk = Desk()
    desk.exchange.hold("ADAUSDT", "100")
    desk.exchange.hold("BTCUSDT", "0.01")
    targets = {
        "ADAUSDT": {"weight": "0.1", "presetStopLossPrice": "0.4"},
        "BTCUSDT": {"weight": "0.1", "presetStopSurplusPrice": "70000"},
    }
    done = protected(desk, held_with(desk, targets, {}))
    assert [symbol for symbol, _ in desk.exchange.stop_calls] == ["ADAUSDT"]
    assert list(done.stops_now) == ["ADAUSDT"]


def test_what_was_left_out_waits_where_only_bare_positions_are_seen_to() -> None:
    desk = Desk(default_stop_loss_pct=Decimal(5))
    desk.exchange.hold("BTCUSDT", "0.01")
    letter = held_with(desk, {"BTCUSDT": {"weight": "0.1"}}, {})
    assert protected(desk, letter, only_bare=True) is letter
    assert desk.exchange.stop_calls == []


def test_A20_a_symbol_that_is_not_listed_any_more_gets_no_new_stop() -> None:
    desk = Desk(default_stop_loss_pct=Decimal(5))
    desk.exchange.hold("BTCUSDT", "0.01")
    letter = held_with(desk, {"BTCUSDT": {"weight": "0.1"}}, {})
    del desk.exchange.rules["BTCUSDT"]
    assert protected(desk, letter) is letter
    assert desk.exchange.stop_calls == []


def test_what_was_placed_earlier_is_kept_in_the_letter() -> None:
    """Also the stops that an earlier look put onto another tick."""
    desk = Desk(default_stop_loss_pct=Decimal(5))
    desk.exchange.hold("BTCUSDT", "0.01")
    letter = held_with(desk, {"BTCUSDT": {"weight": "0.1"}}, {})
    before = StopPrices(Decimal("0.39"))
    letter = replace(letter, stops_now={"ADAUSDT": before})
    done = protected(desk, letter)
    assert done.stops_now == {"ADAUSDT": before, "BTCUSDT": StopPrices(Decimal("57117.2"))}
    assert done.revision == letter.revision + 1


# --- what the exchange answers --------------------------------------------------------------------


def one_position(desk: Desk) -> OrderInfo:
    desk.exchange.hold("BTCUSDT", "0.01")
    return held_with(desk, {"BTCUSDT": {"weight": "0.1"}}, {"BTCUSDT": LONG})


@pytest.mark.parametrize("error", [OutcomeUnknown("lost"), TooLate("nothing was sent")])
def test_B5_stops_are_said_again_a_few_times_and_no_more(error: AifapError) -> None:
    desk = Desk()
    letter = one_position(desk)
    desk.exchange.script["set_stops"].extend([Fails(error)] * (STOP_TRIES - 1))
    protected(desk, letter)
    assert desk.exchange.stops_of("BTCUSDT") == LONG
    other = Desk()
    letter = one_position(other)
    other.exchange.script["set_stops"].extend([Fails(error)] * 99)
    with pytest.raises(Conflict, match=f"BTCUSDT: stops are .*{error.message}.* after"):
        protected(other, letter)
    assert other.exchange.calls.count("set_stops") == STOP_TRIES


@pytest.mark.parametrize(
    "error",
    [StaleWriter("epoch 4"), Unavailable("away"), Rejected("no", code="40762")],
)
def test_I8_what_is_not_to_be_said_again_ends_at_once(error: AifapError) -> None:
    desk = Desk()
    letter = one_position(desk)
    desk.exchange.script["set_stops"].append(Fails(error))
    with pytest.raises(type(error)):
        protected(desk, letter)
    assert desk.exchange.calls.count("set_stops") == 1


def test_B8_a_position_that_ended_meanwhile_hides_no_other() -> None:
    desk = Desk()
    desk.exchange.hold("ADAUSDT", "100")
    letter = one_position(desk)
    ada = StopPrices(Decimal("0.4000"))
    letter = replace(
        letter,
        targets={"ADAUSDT": {"weight": "0.1"}, **letter.targets},
        stops={"ADAUSDT": ada, **letter.stops},
    )
    desk.exchange.script["set_stops"].append(Fails(NotFound("no position")))
    assert protected(desk, letter) is letter
    assert desk.exchange.stops_of("BTCUSDT") == LONG


def test_A19_a_refused_stop_goes_onto_the_new_tick_once_and_is_remembered() -> None:
    desk = Desk()
    letter = one_position(desk)
    off_tick = StopPrices(Decimal("55000.4"))
    letter = replace(letter, stops={"BTCUSDT": off_tick})
    desk.exchange.rules["BTCUSDT"] = make_instrument("BTCUSDT", price_step=Decimal(1))
    done = protected(desk, letter)
    assert desk.exchange.stops_of("BTCUSDT") == StopPrices(Decimal(55_000))
    assert done.stops_now == {"BTCUSDT": StopPrices(Decimal(55_000))}
    assert desk.exchange.calls.count("set_stops") == 2


def test_A20_a_refusal_of_an_unlisted_symbol_is_said_aloud() -> None:
    desk = Desk()
    letter = one_position(desk)
    del desk.exchange.rules["BTCUSDT"]
    desk.exchange.script["set_stops"].append(Fails(Rejected("removed", code="40309")))
    with pytest.raises(Rejected, match="removed"):
        protected(desk, letter)


class DeafExchange(FakeExchange):
    """Says yes to stops, and has none."""

    def set_stops(self, stamp: WriteStamp, symbol: str, stops: StopPrices) -> StopPrices:
        FakeExchange.set_stops(self, stamp, symbol, stops)
        return NO_STOPS


def test_I2_stops_that_read_back_otherwise_are_not_in_place() -> None:
    """The venue took them and keeps others: nobody may believe that the position is protected."""
    desk = Desk()
    desk.exchange = DeafExchange(desk.clock, epoch=desk.epoch)
    letter = one_position(desk)
    with pytest.raises(Conflict, match="after they were set to"):
        protected(desk, letter)
    assert len(desk.exchange.stop_calls) == STOP_TRIES
