"""The double-entry ledger: balanced or loud."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from module.model.errors import InvariantViolated
from module.simulator.engine.engine_types import MarketType
from module.simulator.engine.ledger import House, Ledger, LedgerEntry, LedgerLeg, WalletKey

D = Decimal
ANN = WalletKey("ann", MarketType.FUTURES, "USDT")
COIN = WalletKey("ann", MarketType.SPOT, "BTC")

amounts = st.decimals(min_value=-(10**9), max_value=10**9, places=12)


def test_a_movement_is_taken_from_the_house() -> None:
    ledger = Ledger()
    ledger.move(17, "sell", "t1", ((ANN, House.MARKET, D("12.5")), (ANN, House.FEES, D("-0.3"))))
    assert ledger.balance(ANN) == D("12.2")
    assert ledger.house_balance(House.MARKET, "USDT") == D("-12.5")
    assert ledger.house_balance(House.FEES, "USDT") == D("0.3")
    [entry] = ledger.entries
    assert (entry.number, entry.at_ms, entry.what, len(entry.legs)) == (1, 17, "sell", 4)
    assert list(ledger.entries_after(1)) == []


def test_nothing_moved_is_nothing_recorded() -> None:
    ledger = Ledger()
    ledger.move(1, "buy", "t1", ((ANN, House.MARKET, D(0)),))
    assert ledger.entries == ()
    assert ledger.coins_of("ann", MarketType.FUTURES) == []


@given(st.lists(st.tuples(st.sampled_from([ANN, COIN]), st.sampled_from(list(House)), amounts)))
def test_any_movements_leave_every_coin_balanced(
    movements: list[tuple[WalletKey, House, Decimal]],
) -> None:
    ledger = Ledger()
    for wallet, house, amount in movements:
        ledger.move(1, "x", "y", ((wallet, house, amount),))
        ledger.check()
    ledger.audit()
    for wallet in (ANN, COIN):
        expected = sum((amount for key, _, amount in movements if key == wallet), D(0))
        assert ledger.balance(wallet) == expected


def test_a_one_sided_entry_is_an_invariant_violation() -> None:
    entry = LedgerEntry(1, 1, "bad", "r", (LedgerLeg("user:ann", "USDT", D(1)),))
    with pytest.raises(InvariantViolated):
        Ledger()._post(entry)


def test_money_from_nowhere_is_found_by_check_and_audit() -> None:
    ledger = Ledger()
    ledger.move(1, "in", "r", ((ANN, House.OUTSIDE, D(10)),))
    ledger._balances[str(ANN), "USDT"] += D("1e-12")
    with pytest.raises(InvariantViolated):
        ledger.check()
    with pytest.raises(InvariantViolated):
        ledger.audit()


def test_infinite_money_is_refused() -> None:
    with pytest.raises(InvariantViolated):
        Ledger().move(1, "in", "r", ((ANN, House.OUTSIDE, D("Infinity")),))
