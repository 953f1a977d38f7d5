"""Counters over what comes late, and over workers: nothing is counted twice, nothing falls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.telemetry.running_totals import RunningTotals
from module.db.repositories.installation_counts import SLICE_S, SliceCount
from module.model.errors import Unavailable

BEGIN = datetime(2026, 3, 2, 10, 59, 55, tzinfo=UTC)
DELAYS = (timedelta(seconds=5), timedelta(minutes=2))


class Table:
    """Rows by time, as Postgres would count them."""

    def __init__(self) -> None:
        self.rows: list[tuple[datetime, float]] = []
        self.away = False
        self.longest_s = 0.0

    def add(self, after_s: float, bears: float = 0.0) -> None:
        self.rows.append((BEGIN + timedelta(seconds=after_s), bears))

    def ask(self, since: datetime, until: datetime) -> Sequence[SliceCount]:
        if self.away:
            raise Unavailable("the database is away")
        self.longest_s = max(self.longest_s, (until - since).total_seconds())
        slices: dict[int, list[float]] = {}
        for at, bears in self.rows:
            if since <= at < until:
                at_s = int(at.timestamp())
                slices.setdefault(at_s - at_s % SLICE_S, []).append(bears)
        return [SliceCount(at_s, "k", len(all_), sum(all_)) for at_s, all_ in slices.items()]


def told(totals: RunningTotals, table: Table, after_s: float) -> tuple[int, float]:
    now = BEGIN + timedelta(seconds=after_s)
    return totals.advance("rows", now, DELAYS, table.ask).get("k", (0, 0.0))


def test_what_was_there_before_is_not_counted_and_what_follows_is_counted_once() -> None:
    table, totals = Table(), RunningTotals()
    table.add(-30)
    assert told(totals, table, 0) == (0, 0.0)
    table.add(8, 0.5)
    assert told(totals, table, 9) == (0, 0.0)
    assert [told(totals, table, after_s) for after_s in (20, 21, 150, 4000)] == [(1, 0.5)] * 4


def test_E2_rows_that_come_after_their_slice_was_counted_are_added_with_the_next_pass() -> None:
    table, totals = Table(), RunningTotals()
    told(totals, table, 0)
    table.add(8, 1.0)
    told(totals, table, 30)
    table.add(9, 2.0)
    assert [told(totals, table, after_s) for after_s in (40, 100, 140)] == [
        (1, 1.0),
        (1, 1.0),
        (2, 3.0),
    ]


def test_a_counter_never_falls_though_rows_are_deleted_or_the_clock_is_set_back() -> None:
    table, totals = Table(), RunningTotals()
    told(totals, table, 0)
    table.add(8, 1.0)
    told(totals, table, 30)
    table.rows.clear()
    assert told(totals, table, 400) == (1, 1.0)
    assert told(totals, table, -4000) == (1, 1.0)


def test_E1_what_ended_while_the_database_was_away_is_counted_when_it_is_back() -> None:
    table, totals = Table(), RunningTotals()
    told(totals, table, 0)
    table.add(8)
    table.away = True
    with pytest.raises(Unavailable):
        told(totals, table, 600)
    table.away = False
    assert told(totals, table, 610) == (1, 0.0)


def test_after_a_long_silence_each_question_is_bounded() -> None:
    table, totals = Table(), RunningTotals()
    told(totals, table, 0)
    table.add(3 * 3600)
    found = [told(totals, table, 4 * 3600) for _ in range(5)]
    assert found[0] == (0, 0.0)
    assert found[-1] == (1, 0.0)
    assert table.longest_s <= 3600


def test_D2_workers_go_on_from_where_the_last_one_stopped(tmp_path: Path) -> None:
    table = Table()
    first, second = RunningTotals(tmp_path), RunningTotals(tmp_path)
    told(first, table, 0)
    table.add(8, 0.25)
    assert told(second, table, 20) == (1, 0.25)
    table.add(28, 0.25)
    assert told(first, table, 45) == (2, 0.5)
    assert told(RunningTotals(tmp_path), table, 46) == (2, 0.5)  # one that took another's place
