"""A part of the ten thousand minutes in every test run (the whole: `make minutes`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.minutes.__main__ import silence
from tests.simulation.minutes.planted import BUGS, LONELY, found
from tests.simulation.minutes.world import MinutesWorld, Troubles


@pytest.fixture(autouse=True)
def _silent() -> None:
    silence()


def test_no_minute_is_lost_without_a_gap_row_while_everything_goes_wrong(tmp_path: Path) -> None:
    lived = MinutesWorld(4, 260, tmp_path).run()
    assert lived.violations == []
    assert lived.kills > 0
    assert lived.gaps > 0
    assert lived.rows > 400


def test_when_nothing_goes_wrong_every_minute_has_its_row(tmp_path: Path) -> None:
    calm = Troubles(**dict.fromkeys(Troubles.__dataclass_fields__, 0.0))
    lived = MinutesWorld(1, 60, tmp_path, calm).run()
    assert lived.violations == []
    assert (lived.gaps, lived.rows) == (0, 180)


def test_E12_watchers_at_the_bound_of_their_spools_know_why_minutes_are_missing(
    tmp_path: Path,
) -> None:
    lived = MinutesWorld(1, 220, tmp_path, LONELY).run()
    assert lived.violations == []
    assert lived.causes["spool-full"] > 0
    assert lived.causes["exchange-unreachable"] > 0


@pytest.mark.parametrize(
    "name",
    [
        "a gap is not recorded",
        "changes of an account are not seen",
        "every gap has one cause",
        "holes are not looked for",
        "a full spool swallows gaps",
    ],
)
def test_a_planted_bug_is_seen(name: str) -> None:
    (bug,) = [bug for bug in BUGS if bug.name == name]
    assert found(bug, seed=1, minutes=220) & set(bug.caught_by)
