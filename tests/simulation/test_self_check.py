"""Some planted bugs are caught within the ordinary tests; `make self-check` plants all of them."""

from __future__ import annotations

import pytest

from tests.simulation.planted_bugs import BUGS, PlantedBug, planted
from tests.simulation.self_check import check

pytestmark = pytest.mark.timeout(120)
QUICK = (
    "record after send",
    "wrong rounding up",
    "two owners of one account",
    "flat is not flat",
    "planning raises",
    "planning gives up",
)


def test_at_least_twenty_bugs_are_planted_each_under_its_own_name() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20
    assert all(bug.what and bug.caught_by for bug in BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_be_planted_and_leaves_nothing_behind(bug: PlantedBug) -> None:
    with planted(bug):
        pass
    with planted(bug):
        pass


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_caught_and_its_day_is_clean_without_it(name: str) -> None:
    (bug,) = (each for each in BUGS if each.name == name)
    finding = check(bug)
    assert finding.caught, finding
    assert finding.unclean == ()
