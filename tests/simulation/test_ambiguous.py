"""Submits that are never answered truly: no planned leg is executed twice, none is lost."""

from __future__ import annotations

from tests.simulation.ambiguous import KINDS, doubt_all


def test_A1_A11_no_ambiguous_submit_becomes_two_orders() -> None:
    seen = doubt_all(5, submits=120)
    assert seen.crash == ""
    assert seen.violations == ()
    assert (seen.duplicates, seen.foreign) == (0, 0)
    assert seen.submits >= 120
    assert set(seen.kinds) == set(KINDS)
    assert seen.orders >= 60
