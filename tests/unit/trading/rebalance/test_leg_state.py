"""The transition table is the only way between the states of a slice, and the docs show it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from module.model.errors import InvariantViolated
from trading.rebalance.leg_state import TERMINAL, TRANSITIONS, LegState, move, render_table

ROOT = Path(__file__).resolve().parents[4]
WAYS = {
    ("planned", "sent"),
    ("planned", "abandoned"),
    ("sent", "planned"),
    ("sent", "acknowledged"),
    ("sent", "rejected"),
    ("sent", "unknown"),
    ("unknown", "acknowledged"),
    ("unknown", "abandoned"),
    ("acknowledged", "filled"),
    ("acknowledged", "abandoned"),
}


@pytest.mark.parametrize(("start", "end"), list(product(LegState, LegState)))
def test_only_the_tables_ways_are_open(start: LegState, end: LegState) -> None:
    if start is end or (start.value, end.value) in WAYS:
        assert move(start, end) is end
    else:
        with pytest.raises(InvariantViolated):
            move(start, end)


def test_I4_unknown_never_becomes_rejected_or_filled_without_evidence() -> None:
    assert set(TRANSITIONS[LegState.UNKNOWN]) == {LegState.ACKNOWLEDGED, LegState.ABANDONED}


def test_terminal_states_are_those_without_a_way_out() -> None:
    assert {state for state in LegState if not TRANSITIONS[state]} == TERMINAL
    assert {state for state in LegState if state.is_terminal} == TERMINAL


def test_what_may_exist_on_the_exchange() -> None:
    assert {state.value for state in LegState if state.may_exist} == {
        "sent",
        "unknown",
        "acknowledged",
    }


def test_the_documentation_shows_the_table() -> None:
    page = (ROOT / "docs" / "order-states.md").read_text()
    assert f"\n\n{render_table()}\n\n" in page
