"""The venue contract, stops: placed, read back, moved, removed, refused, lost."""

from __future__ import annotations

from decimal import Decimal
from functools import partial

import pytest

from module.exchange.agreement import read_stops
from module.exchange.venue import Ability, NoPosition, WrongSideOfPrice
from module.model.errors import InvalidInput, OutcomeUnknown
from module.model.orders import Outcome, Side, StopPrices
from tests.contract.exchange.harness import Failure, Operation, Stage

pytestmark = pytest.mark.timeout(120)
needs, lacks = pytest.mark.needs, pytest.mark.lacks


def place(stage: Stage, price: Decimal, *, is_stop_loss: bool = True) -> None:
    stage.venue.set_stop(
        "BTCUSDT", is_stop_loss=is_stop_loss, protects_long=True, trigger_price=price
    )


def read_back(stage: Stage) -> StopPrices:
    """The stops in order of what is held; none may be untidy."""
    (held,) = stage.venue.holdings()
    reading = read_stops(held, stage.venue.placed_stops())
    assert not reading.untidy
    return reading.stops


@needs(Ability.PRESETS)
def test_the_stops_of_a_market_buy_are_there_with_its_position(stage: Stage) -> None:
    stops = StopPrices(stage.price("0.9"), stage.price("1.1"))
    assert stage.send(stage.order(Side.BUY, "0.0123", stops=stops)) == [Outcome.ACCEPTED]
    (position,) = stage.venue.positions()
    assert (position.symbol, position.size) == ("BTCUSDT", Decimal("0.0123"))
    assert position.stops == stops == read_back(stage)


@needs(Ability.PRESETS, Ability.SHORT)
def test_the_stops_of_a_short_lie_the_other_way(stage: Stage) -> None:
    stops = StopPrices(stage.price("1.1"), stage.price("0.9"))
    assert stage.send(stage.order(Side.SELL, "0.02", stops=stops)) == [Outcome.ACCEPTED]
    (position,) = stage.venue.positions()
    assert position.stops == stops == read_back(stage)
    assert not any(stop.protects_long for stop in stage.venue.placed_stops())


@needs(Ability.PRESETS)
def test_B8_the_stops_of_a_position_go_with_it(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03", stops=StopPrices(stage.price("0.9"))))
    stage.send(stage.closing("0.03"))
    assert stage.venue.placed_stops() == ()


@needs(Ability.STOPS)
@lacks(Ability.PRESETS)
def test_without_presets_stops_are_accepted_with_an_order_and_placed_afterwards(
    stage: Stage,
) -> None:
    stops = StopPrices(stage.price("0.9"), stage.price("1.1"))
    assert stage.send(stage.order(Side.BUY, "0.0123", stops=stops)) == [Outcome.ACCEPTED]
    assert stage.venue.placed_stops() == ()
    assert stops.stop_loss is not None
    place(stage, stops.stop_loss)
    assert read_back(stage) == StopPrices(stops.stop_loss)


@needs(Ability.STOPS)
def test_stops_are_read_back_to_the_last_digit(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    stops = StopPrices(stage.price("0.87654321"), stage.price("1.12345678"))
    assert stops.stop_loss is not None
    assert stops.take_profit is not None
    place(stage, stops.stop_loss)
    place(stage, stops.take_profit, is_stop_loss=False)
    assert read_back(stage) == stops
    (held,) = stage.venue.holdings()
    assert {stop.size for stop in stage.venue.placed_stops()} <= {None, held.size}


@needs(Ability.STOPS)
def test_a_stop_is_an_upsert_and_can_be_removed_twice(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    place(stage, stage.price("0.8"))
    (first,) = stage.venue.placed_stops()
    place(stage, stage.price("0.85"))
    (second,) = stage.venue.placed_stops()
    assert first.trigger_price < second.trigger_price
    assert (second.symbol, second.is_stop_loss, second.protects_long) == ("BTCUSDT", True, True)
    stage.venue.remove_stop(second)
    assert stage.venue.placed_stops() == ()
    stage.venue.remove_stop(second)


@needs(Ability.STOPS)
def test_B17_a_stop_set_again_has_the_size_of_what_is_held_now(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    price = stage.price("0.8")
    place(stage, price)
    stage.send(stage.order(Side.BUY, "0.01"))
    place(stage, price)
    assert read_back(stage) == StopPrices(price)
    stage.send(stage.closing("0.025"))
    place(stage, price)
    assert read_back(stage) == StopPrices(price)
    assert len(stage.venue.placed_stops()) == 1


@needs(Ability.STOPS)
def test_stops_do_not_keep_what_they_protect_from_being_sold(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    place(stage, stage.price("0.8"))
    place(stage, stage.price("1.2"), is_stop_loss=False)
    assert stage.send(stage.closing(stage.sellable())) == [Outcome.ACCEPTED]
    assert stage.sellable() == 0


@needs(Ability.STOPS)
def test_B6_a_stop_beyond_the_market_is_refused_by_name(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    for is_loss, factor in ((True, "1.05"), (False, "0.95")):
        with pytest.raises(WrongSideOfPrice):
            place(stage, stage.price(factor), is_stop_loss=is_loss)
    assert stage.venue.placed_stops() == ()


@needs(Ability.STOPS)
def test_a_stop_of_what_is_not_held_is_refused_by_name(stage: Stage) -> None:
    with pytest.raises(NoPosition):
        place(stage, stage.price("0.8"))


@needs(Ability.STOPS)
def test_B5_a_stop_whose_answer_is_lost_is_unknown_and_may_be_repeated(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    again = partial(place, stage, stage.price("0.8"))
    stage.harness.fail_next(Operation.SET_STOP, Failure.LOST_ANSWER)
    with pytest.raises(OutcomeUnknown):
        again()
    again()
    assert len(stage.venue.placed_stops()) == 1
    assert read_back(stage) == StopPrices(stage.price("0.8"))


@lacks(Ability.STOPS)
def test_without_stops_they_are_refused_by_name(stage: Stage) -> None:
    stage.send(stage.order(Side.BUY, "0.03"))
    with pytest.raises(InvalidInput):
        place(stage, stage.price("0.8"))
    assert stage.venue.placed_stops() == ()
    stopped = stage.order(Side.BUY, "0.01", stops=StopPrices(stage.price("0.8")))
    assert stage.send(stopped) == [Outcome.REJECTED]
