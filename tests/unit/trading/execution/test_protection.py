"""Positions whose stop the plan had to leave out: they are not left bare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, SymbolSettings
from module.model.errors import Conflict, Rejected, Unavailable
from module.model.orders import NO_STOPS, StopPrices
from module.wire.model_codec import to_document
from tests.fakes.exchange import Fails
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.auto_trade import auto_trade
from trading.execution.protection import STOP_ON_WRONG_SIDE
from trading.rebalance.decision import AccountInputs
from trading.rebalance.order_info import CycleStage, OrderInfo
from trading.rebalance.plan import SkipReason

STOPS: Mapping[str, tuple[str | None, str | None]] = {"BTCUSDT": ("65000", None)}


def letter_with_a_stop_beyond_the_price(desk: Desk, weight: str = "0.3") -> OrderInfo:
    """The mark is below the stop loss that the strategy wants: the plan skips the symbol."""
    planned = desk.planned(wanted({"BTCUSDT": weight}, STOPS))
    assert [item.reason for item in planned.skipped] == [SkipReason.STOP_ON_WRONG_SIDE]
    fields = {"weight": weight, "presetStopLossPrice": "65000"}
    return replace(planned, targets={"BTCUSDT": fields})


def test_B6_I2_a_bare_position_below_its_stop_is_given_to_the_gateway_to_close() -> None:
    """Somebody opened it by hand; the strategy wants the symbol, with a stop that the price has
    passed. The gateway, told of the stop, closes what has none."""
    desk = Desk()
    desk.exchange.hold("BTCUSDT", "0.0009")
    refusal = Rejected("it would trigger at once", code=STOP_ON_WRONG_SIDE)
    desk.exchange.script["set_stops"].append(Fails(refusal))
    letter = letter_with_a_stop_beyond_the_price(desk)
    done = auto_trade(letter, desk.ports(), desk.rules())
    assert desk.exchange.calls.count("set_stops") == 1
    assert done.stage is CycleStage.DONE
    assert done.wanted_stops()["BTCUSDT"] == StopPrices(Decimal("65000.0"))


def test_I2_where_the_price_is_back_the_stop_is_placed() -> None:
    desk = Desk()
    desk.exchange.hold("BTCUSDT", "0.0009")
    letter = letter_with_a_stop_beyond_the_price(desk)
    desk.exchange.marks["BTCUSDT"] = Decimal(66_000)
    auto_trade(letter, desk.ports(), desk.rules())
    assert desk.exchange.stops_of("BTCUSDT") == StopPrices(Decimal("65000.0"))


@pytest.mark.parametrize(
    ("size", "stops", "weight"),
    [
        ("0.0009", StopPrices(Decimal("55000.0")), "0.3"),  # the old stop stands
        ("-0.0009", NO_STOPS, "0.3"),  # it is the other side's: its flip did not happen
    ],
)
def test_what_has_a_stop_or_is_not_wanted_is_left_as_it_is(
    size: str, stops: StopPrices, weight: str
) -> None:
    desk = Desk()
    desk.exchange.hold("BTCUSDT", size, stops)
    letter = letter_with_a_stop_beyond_the_price(desk, weight)
    auto_trade(letter, desk.ports(), desk.rules())
    assert desk.exchange.calls.count("set_stops") == 0


@pytest.mark.parametrize("number", [1, 7])
def test_B10_I2_a_position_that_cannot_be_traded_gets_its_stop_before_the_session_ends(
    number: int,
) -> None:
    """Somebody opened it with another leverage; the session cannot add to it, and says so."""
    desk = Desk(apply_account_settings=True, leverage=Decimal(2))
    desk.exchange.hold("BTCUSDT", "0.0009")
    desk.exchange.modes["BTCUSDT"] = SymbolSettings("BTCUSDT", Decimal(20), MarginMode.CROSSED)
    stops: Mapping[str, tuple[str | None, str | None]] = {"BTCUSDT": ("55000", None)}
    letter = replace(desk.planned(wanted({"BTCUSDT": "0.3"}, stops)), number=number)
    with pytest.raises(Conflict, match="leverage 20"):
        auto_trade(letter, desk.ports(), desk.rules())
    assert desk.exchange.stops_of("BTCUSDT") == StopPrices(Decimal("55000.0"))


def test_B10_what_a_session_adopts_is_protected_before_anything_is_sent() -> None:
    desk = Desk()
    desk.exchange.hold("BTCUSDT", "0.0009")
    stops: Mapping[str, tuple[str | None, str | None]] = {"BTCUSDT": ("55000", None)}
    desk.trade(wanted({"BTCUSDT": "0.1", "ETHUSDT": "0.3"}, stops))
    calls = desk.exchange.calls
    assert calls.index("set_stops") < calls.index("submit")


def later_letter(desk: Desk, weights: Mapping[str, str]) -> OrderInfo:
    """Of the seventh cycle, planned from what the exchange shows, with it in its inputs."""
    stops: Mapping[str, tuple[str | None, str | None]] = {"BTCUSDT": ("55000", None)}
    letter = desk.planned(wanted(weights, stops))
    account = to_document(AccountInputs.of(desk.exchange.snapshot()))
    desk.exchange.calls.clear()
    return replace(letter, number=7, inputs={"account": account})


def test_A10_I2_what_was_found_bare_is_protected_though_nothing_but_stops_is_answered() -> None:
    """A resting order of an older run has opened it since the last cycle: nobody has told the
    gateway of a stop. Orders leave, then the account cannot be read for long."""
    desk = Desk()
    desk.exchange.hold("BTCUSDT", "0.0009")
    desk.exchange.hold("ETHUSDT", "-0.5")
    letter = later_letter(desk, {"BTCUSDT": "0.1"})
    away = Fails(Unavailable("connection reset"))
    desk.exchange.script["snapshot"].extend([away] * 4)
    with pytest.raises(Unavailable):
        auto_trade(letter, desk.ports(), desk.rules())
    assert desk.exchange.stops_of("BTCUSDT") == StopPrices(Decimal("55000.0"))
    assert "submit" not in desk.exchange.calls[: desk.exchange.calls.index("set_stops")]


@pytest.mark.parametrize(
    ("size", "stops"),
    [("0.0009", StopPrices(Decimal("54000.0"))), ("-0.0009", NO_STOPS)],
    ids=["its stop stands until the cycle's end", "it is the other side's"],
)
def test_I2_a_cycle_asks_for_nothing_more_where_nothing_was_found_bare(
    size: str, stops: StopPrices
) -> None:
    desk = Desk()
    desk.exchange.hold("BTCUSDT", size, stops)
    desk.exchange.hold("ETHUSDT", "-0.5")
    letter = later_letter(desk, {"BTCUSDT": "0.1"})
    auto_trade(letter, desk.ports(), desk.rules())
    calls = desk.exchange.calls
    assert "set_stops" not in calls[: calls.index("submit")]
