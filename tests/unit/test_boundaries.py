"""Boundaries are multiples of the interval since the epoch, whatever calendar people keep."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from module.model.sessions import boundary_at_or_after

ODD_DAYS = (
    datetime(2024, 2, 29, tzinfo=UTC),  # a leap day
    datetime(2026, 12, 31, tzinfo=UTC),  # the end of a year
    datetime(2026, 3, 29, tzinfo=UTC),  # clocks go forward in Europe …
    datetime(2026, 10, 25, tzinfo=UTC),  # … and back
    datetime(2032, 2, 29, tzinfo=UTC),
)


@pytest.mark.parametrize("interval", [timedelta(minutes=5), timedelta(minutes=15)], ids=str)
@pytest.mark.parametrize("day", ODD_DAYS, ids=lambda day: f"{day:%F}")
def test_C6_every_slot_of_every_odd_day_comes_once(day: datetime, interval: timedelta) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    seen, now = [], day
    while now < day + timedelta(days=2):
        boundary = boundary_at_or_after(now.astimezone(berlin), interval)
        seen.append(boundary)
        now = boundary + timedelta(milliseconds=1)
    assert len(seen) == len(set(seen)) == timedelta(days=2) // interval + 1
    assert all(later - earlier == interval for earlier, later in itertools.pairwise(seen))
