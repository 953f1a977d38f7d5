"""What the gateway writes down of missing stops is what the exchange's own ledger says."""

from __future__ import annotations

from pathlib import Path

import pytest

from module.gateway.protection_loop import ACTIVE_PERIOD
from tests.simulation.test_kinds import quiet
from tests.simulation.world import World

LOOK_S = ACTIVE_PERIOD.total_seconds() + 0.3
"""A period of looks, and the way of a request there and back."""


def test_I2_recorded_unprotected_seconds_are_the_ledgers_within_a_look(tmp_path: Path) -> None:
    """A spot book: its stops are placed after its purchases, so each of them is bare for a while;
    nothing else goes wrong."""
    world = World(quiet("spot", dropped=0.0), tmp_path)
    report = world.run()
    assert report.violations == []
    ledger = sorted(report.unprotected_s)
    periods = list(world.postgres.gateway_tables.periods.values())
    assert len(periods) == len(ledger) >= 9
    recorded = sorted(
        (period.ended_at - period.started_at).total_seconds()
        for period in periods
        if period.ended_at is not None
    )
    assert len(recorded) == len(periods), "at the end of the day nothing is bare"
    pairs = zip(recorded, ledger, strict=True)
    assert all(abs(ours_s - theirs_s) <= LOOK_S for ours_s, theirs_s in pairs)
    since, until = min(p.started_at for p in periods), world.hub.now()
    account = periods[0].account_id
    assert world.postgres.periods.seconds(account, since, until) == pytest.approx(sum(recorded))
