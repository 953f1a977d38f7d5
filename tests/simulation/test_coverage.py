"""Every id of the catalogue's groups A to E and O is met by days, or excused with its tests."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.day_plan import day_plan, possible_ids
from tests.simulation.excused import EXCUSED
from tests.simulation.fault_postgres import DATABASE_FAULTS

ROOT = Path(__file__).parents[2]
CATALOGUE = (
    *(f"A{number}" for number in range(1, 32)),
    *(f"B{number}" for number in range(1, 18)),
    *(f"C{number}" for number in range(1, 12)),
    *(f"D{number}" for number in range(1, 22)),
    *(f"E{number}" for number in range(1, 13)),
    *(f"O{number}" for number in range(1, 12)),
)
UNTESTED = {"C11"}
"""Excused without a test: its reason says so."""
DAYS = 200
FEWEST = 5


def test_every_fault_of_the_catalogue_can_be_met_or_is_excused_with_a_reason() -> None:
    assert set(possible_ids()) | set(EXCUSED) == set(CATALOGUE)
    assert not set(possible_ids()) & set(EXCUSED)
    assert all(excuse.why for excuse in EXCUSED.values())
    assert {fault for fault, excuse in EXCUSED.items() if not excuse.tests} == UNTESTED


@pytest.mark.parametrize("fault", sorted(set(EXCUSED) - UNTESTED))
def test_the_tests_that_meet_an_excused_fault_exist(fault: str) -> None:
    for test in EXCUSED[fault].tests:
        path, _, name = test.partition("::")
        assert re.search(rf"def {re.escape(name)}", (ROOT / path).read_text()), test


def test_two_hundred_days_plan_every_fault_that_can_be_met() -> None:
    planned: Counter[str] = Counter()
    for seed in range(DAYS):
        plan = day_plan(seed)
        planned.update({stroke.fault_id for stroke in plan.strokes})
        planned.update({fault.fault_id for fault in plan.database})
    scarce = {fault: planned[fault] for fault in possible_ids() if planned[fault] < FEWEST}
    assert scarce == {}
    assert set(DATABASE_FAULTS) <= set(planned)
