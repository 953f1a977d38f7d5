"""Leverage and margin mode that were read just before a cycle are not read again in it (A21)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, SymbolSettings
from module.model.errors import Conflict
from tests.unit.trading.execution.desk import Desk, wanted
from trading.execution.auto_trade import Known, auto_trade
from trading.execution.scribe import SETTINGS_AGE_MAX_S
from trading.rebalance.order_info import CycleStage

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def known(desk: Desk, age_s: float = 0.0, leverage: str | None = None) -> Known:
    """What the exchange says now, as if read `age_s` ago; with another leverage of the second."""
    settings = dict(desk.exchange.symbol_settings(SYMBOLS))
    if leverage is not None:
        settings["ETHUSDT"] = replace(settings["ETHUSDT"], leverage=Decimal(leverage))
    at = desk.clock.now() - timedelta(seconds=age_s)
    return Known(at, desk.exchange.instruments(), settings)


def asked_for_settings(desk: Desk, before: Known, *symbols: str) -> int:
    """How often a cycle that opens these symbols asks the exchange for settings."""
    letter = desk.planned(wanted(dict.fromkeys(symbols, "0.3")))
    count = desk.exchange.calls.count("symbol_settings")
    done = auto_trade(letter, desk.ports(), desk.rules(), before)
    assert done.stage is CycleStage.DONE
    assert {record.leg.symbol for record in done.legs} == set(symbols)
    return desk.exchange.calls.count("symbol_settings") - count


@pytest.mark.parametrize(
    ("age_s", "asked"), [(0.0, 0), (SETTINGS_AGE_MAX_S, 0), (SETTINGS_AGE_MAX_S + 0.1, 1), (-5, 1)]
)
def test_A21_a_fresh_reading_is_enough_an_old_one_is_not(age_s: float, asked: int) -> None:
    desk = Desk()
    assert asked_for_settings(desk, known(desk, age_s), *SYMBOLS) == asked


def test_A21_a_symbol_that_was_not_read_is_asked_for() -> None:
    desk = Desk()
    before = known(desk)
    before = replace(before, settings={"BTCUSDT": before.settings["BTCUSDT"]})
    assert asked_for_settings(desk, before, *SYMBOLS) == 1


def test_A21_a_reading_that_differs_is_read_again_and_the_exchange_is_right() -> None:
    desk = Desk()
    assert asked_for_settings(desk, known(desk, leverage="7"), *SYMBOLS) == 1
    other = Desk(leverage=Decimal(3))
    other.exchange.modes["ETHUSDT"] = SymbolSettings("ETHUSDT", Decimal(7), MarginMode.CROSSED)
    letter = other.planned(wanted({"ETHUSDT": "0.3"}))
    with pytest.raises(Conflict, match="leverage 7"):
        auto_trade(letter, other.ports(), other.rules(), known(other))


def test_trading_rules_that_were_read_just_before_are_not_read_again() -> None:
    desk = Desk()
    before = known(desk)
    letter = desk.planned(wanted({"ETHUSDT": "0.3"}))
    desk.exchange.calls.clear()
    done = auto_trade(letter, desk.ports(), desk.rules(), before)
    assert done.stage is CycleStage.DONE
    assert "instruments" not in desk.exchange.calls
