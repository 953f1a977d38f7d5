"""The paper exchange misbehaves in the middle of a session; its own ledger is the judge.

A few of the cases of `python -m tests.simulation.processes --faults all`: those that once found
something.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.processes.fault_cases import chosen
from tests.simulation.processes.faults import Laboratory, laboratory

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def lab() -> Iterator[Laboratory]:
    with laboratory() as made:
        yield made


@pytest.mark.parametrize("name", ["B4/cancelled", "B6/45062-moved", "A19/lot"])
def test_a_session_converges_or_says_why_and_the_ledger_agrees(lab: Laboratory, name: str) -> None:
    """B4: a filled order is shown as cancelled. B6: the session moves a stop and is told that the
    price has passed it. A19: the lot grows under a position."""
    (case,) = chosen(name)
    outcome = lab.run(case)
    assert outcome.violations == []
    assert outcome.fired > 0
    assert not outcome.how.startswith("failed"), outcome.how
