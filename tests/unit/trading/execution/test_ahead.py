"""What is read and set before a cycle, so that the cycle need not wait for it (A21)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.accounts import MarginMode, SymbolSettings
from module.model.errors import Conflict, Unavailable
from module.model.market import MarketType
from tests.fakes.exchange import MARKS, Fails, make_instrument
from tests.unit.trading.execution.desk import Desk, wanted
from tests.unit.trading.leading import FIRST_BOUNDARY, Session, make_spec
from trading.execution.ahead import likely_symbols, read_ahead, set_ahead
from trading.execution.opening import SETTINGS_AT_ONCE, verify_settings
from trading.execution.scribe import Scribe

BOOK = ("ADAUSDT", "BNBUSDT", "BTCUSDT", "DOGEUSDT", "DOTUSDT", "ETHUSDT", "LTCUSDT", "SOLUSDT")


def large_book(desk: Desk) -> Desk:
    """Eight symbols, each with another leverage than is wanted."""
    for symbol in BOOK:
        desk.exchange.rules[symbol] = replace(make_instrument("BTCUSDT"), symbol=symbol)
        desk.exchange.modes[symbol] = SymbolSettings(symbol, Decimal(20), MarginMode.CROSSED)
    return desk


def test_the_last_targets_are_likely_and_before_them_what_the_configuration_names() -> None:
    letter = Desk().planned(wanted({"BTCUSDT": "0.3", "ETHUSDT": "-0.2"}))
    config: dict[str, object] = {"assets": ["SOLUSDT", 7, "XRPUSDT"], "gross": 0.9}
    assert likely_symbols(letter, config) == {"BTCUSDT", "ETHUSDT"}
    assert likely_symbols(None, config) == {"SOLUSDT", "XRPUSDT"}
    assert likely_symbols(letter.changed(targets={}), config) == {"SOLUSDT", "XRPUSDT"}
    assert likely_symbols(None, {"assets": "SOLUSDT"}) == likely_symbols(None, {}) == frozenset()


def test_only_what_is_traded_there_is_read_and_on_spot_no_settings() -> None:
    desk = Desk()
    known = read_ahead(desk.ports(), MarketType.FUTURES, frozenset({"BTCUSDT", "NOPEUSDT"}))
    assert set(known.settings) == {"BTCUSDT"}
    assert set(known.instruments) == set(MARKS)
    desk.exchange.calls.clear()
    assert read_ahead(desk.ports(), MarketType.SPOT, frozenset({"BTCUSDT"})).settings == {}
    assert desk.exchange.calls == ["instruments"]


def test_A21_settings_are_set_ahead_where_the_session_may_set_them() -> None:
    desk = large_book(Desk(apply_account_settings=True))
    set_ahead(desk.ports(), desk.rules(), frozenset({*BOOK, "NOPEUSDT"}))
    assert {desk.exchange.modes[symbol].leverage for symbol in BOOK} == {Decimal(1)}
    other = large_book(Desk())
    set_ahead(other.ports(), other.rules(), frozenset(BOOK))
    assert other.exchange.calls == []


def test_A21_some_are_set_before_the_next_ones_are_read() -> None:
    desk = large_book(Desk(apply_account_settings=True))
    verify_settings(Scribe(desk.ports(), desk.rules()), BOOK)
    reads = [n for n, call in enumerate(desk.exchange.calls) if call == "symbol_settings"]
    sets = [n for n, call in enumerate(desk.exchange.calls) if call == "apply_symbol_settings"]
    assert len(sets) == len(BOOK)
    assert len(reads) == 2
    assert reads[0] < sets[0] < sets[SETTINGS_AT_ONCE - 1] < reads[1] < sets[SETTINGS_AT_ONCE]
    assert desk.exchange.calls.count("snapshot") == 1


def test_A21_a_large_book_that_is_as_wanted_is_asked_for_in_two_questions() -> None:
    desk = large_book(Desk(leverage=Decimal(20), apply_account_settings=True))
    verify_settings(Scribe(desk.ports(), desk.rules()), BOOK)
    assert desk.exchange.calls == ["symbol_settings", "symbol_settings"]


def test_A21_one_of_the_later_ones_that_differs_is_refused_by_name() -> None:
    desk = large_book(Desk(leverage=Decimal(20)))
    desk.exchange.modes["SOLUSDT"] = SymbolSettings("SOLUSDT", Decimal(7), MarginMode.CROSSED)
    with pytest.raises(Conflict, match="SOLUSDT has leverage 7"):
        verify_settings(Scribe(desk.ports(), desk.rules()), BOOK)


def led(session: Session) -> list[str]:
    """Settings calls from the first boundary on."""
    seen: list[str] = []
    session.clock.at(FIRST_BOUNDARY, lambda: seen.append(str(len(session.exchange.calls))))
    session.lead()
    calls = session.exchange.calls[int(seen[0]) :]
    return [call for call in calls if "settings" in call]


@pytest.mark.parametrize("named", [True, False])
def test_A21_a_sessions_first_cycle_finds_what_its_configuration_names_set_already(
    named: bool,
) -> None:
    config: dict[str, object] = {"assets": ["BTCUSDT", "ETHUSDT"]} if named else {}
    spec = make_spec(apply_account_settings=True, config=config, cycles_max=1)
    session = Session(spec)
    try:
        for symbol in ("BTCUSDT", "ETHUSDT"):
            other = SymbolSettings(symbol, Decimal(20), MarginMode.ISOLATED)
            session.exchange.modes[symbol] = other
        calls = led(session)
        assert ("apply_symbol_settings" in calls) is not named
        assert len(session.exchange.snapshot().positions) == 2
    finally:
        session.close()


def test_what_goes_wrong_ahead_is_met_again_in_the_cycle() -> None:
    spec = make_spec(
        apply_account_settings=True, config={"assets": ["BTCUSDT", "ETHUSDT"]}, cycles_max=1
    )
    session = Session(spec)
    try:
        for symbol in ("BTCUSDT", "ETHUSDT"):
            other = SymbolSettings(symbol, Decimal(20), MarginMode.CROSSED)
            session.exchange.modes[symbol] = other
        session.exchange.script["apply_symbol_settings"].append(Fails(Unavailable("away")))
        assert "apply_symbol_settings" in led(session)
        assert len(session.exchange.snapshot().positions) == 2
    finally:
        session.close()
