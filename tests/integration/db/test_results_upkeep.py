"""Months, days and bounds of the stored minutes: nothing is lost, what is old goes, days stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text

from module.clock import SystemClock
from module.db.repositories.results_curves import CurveRepository
from module.db.repositories.results_series import Resolution, SeriesQuery, Subject
from module.db.results_partitions import PARTITIONED, Month, make_month
from module.db.results_upkeep import UPKEEP_LOCK, UpkeepReport
from module.settings import Settings
from tests.fakes.result_rows import minute_rows, watched
from tests.integration.db.results_rig import MINUTE, ResultsRig, at, results_rig

ONE, TWO, THREE = "2601010000-one1", "2601010000-two2", "2601010000-thr3"
PORTFOLIO = "futures_portfolio_result_1min"
BEGIN, NOW, DAY = at("2025-09-14 22:00"), at("2026-11-21 00:30"), timedelta(days=1)
COLUMNS = ("current_pv", "minutes", "gaps", "low_pv", "high_pv")
CLOCK = SystemClock()


@pytest.fixture
def rig(postgres: Settings) -> Iterator[ResultsRig]:
    with results_rig(postgres) as made:
        yield made


def places(rig: ResultsRig, session_id: str) -> list[str]:
    """In which partition each minute lies, oldest first."""
    with rig.database.read() as db:
        return list(
            db.scalars(
                text(
                    f"SELECT CAST(tableoid::regclass AS text) FROM {PORTFOLIO} "
                    "WHERE session_id = :name ORDER BY minute"
                ),
                {"name": session_id},
            )
        )


# --- months ---------------------------------------------------------------------------------------


def test_a_minute_without_a_month_is_kept_and_gets_one(rig: ResultsRig) -> None:
    """A stepped world may begin years ago and jump a year in one step."""
    minutes = [at("2019-02-03 04:05"), at("2026-11-21 07:15"), at("2027-11-21 07:16")]
    rig.measure(ONE, minutes)
    assert places(rig, ONE) == [f"{PORTFOLIO}_default"] * 3
    report = rig.upkeep(at("2026-11-21 12:00"))
    assert places(rig, ONE) == [
        f"{PORTFOLIO}_y{month}" for month in ("2019m02", "2026m11", "2027m11")
    ]
    assert report.moved_rows == 3 * 3  # portfolio, one symbol, indicators
    ahead = {Month(table, 2027, 1).name for table in PARTITIONED}
    assert ahead <= set(report.made)
    page = rig.series.series(
        watched(ONE),
        SeriesQuery(Subject.PORTFOLIO, ("current_pv",), at("2000-01-01"), at("2100-01-01")),
    )
    assert page.rows == [
        (minute, Decimal(10_000 + number)) for number, minute in enumerate(minutes)
    ]
    again = rig.upkeep(at("2026-11-21 12:00"))
    assert again == UpkeepReport()


def test_only_one_upkeep_works_at_a_time(rig: ResultsRig) -> None:
    with rig.database.hold_lock(UPKEEP_LOCK) as taken:
        assert taken
        assert rig.upkeep(at("2024-05-06 07:00")) == UpkeepReport(busy=True)
    assert Month(PORTFOLIO, 2024, 7).name in rig.upkeep(at("2024-05-06 07:00")).made


def test_a_month_that_two_make_at_once_is_made_once(rig: ResultsRig) -> None:
    barrier = threading.Barrier(3)
    answers: list[int | None] = []

    def make() -> None:
        barrier.wait(timeout=30)
        answers.append(make_month(rig.database, Month(PORTFOLIO, 2023, 3)))

    rig.measure(ONE, [at("2023-03-04 05:06"), at("2023-03-04 05:07")])
    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(answers, key=str) == [2, None, None]


@pytest.mark.parametrize("in_bulk", [False, True])
def test_a_minute_that_is_written_while_its_month_is_made_goes_into_it(
    rig: ResultsRig, in_bulk: bool
) -> None:
    """The writer had chosen the default partition, which then no longer takes the row."""
    month = Month(PORTFOLIO, 2022, 8 if in_bulk else 9)
    first, second = month.begin + MINUTE, month.begin + 2 * MINUTE
    outcome: list[bool] = []

    def write() -> None:
        batch = [(minute_rows(ONE, first), None), (minute_rows(TWO, second), None)]
        if in_bulk:
            stored = rig.store.store_minutes(batch)
        else:
            stored = [rig.store.store_minute(*entry) for entry in batch]
        outcome.extend(item.written and not item.failed for item in stored)

    writer = threading.Thread(target=write)
    with rig.database.transaction() as db:
        db.execute(text(f"LOCK TABLE {PORTFOLIO}_default IN ACCESS EXCLUSIVE MODE"))
        writer.start()
        _wait_until_somebody_waits(rig)
        db.execute(text(f"CREATE TABLE {month.name} (LIKE {PORTFOLIO} INCLUDING ALL)"))
        db.execute(
            text(
                f"ALTER TABLE {PORTFOLIO} ATTACH PARTITION {month.name} FOR VALUES "
                f"FROM ('{month.begin}') TO ('{month.end}')"
            )
        )
    writer.join(timeout=60)
    assert outcome == [True, True]
    assert places(rig, ONE) == places(rig, TWO) == [month.name]


def test_upkeep_makes_months_while_finwatchers_write(rig: ResultsRig) -> None:
    """Each writer jumps from month to month, over years that nobody has made yet."""
    minutes = [at("2010-01-31 23:59") + number * timedelta(days=10) for number in range(20)]
    failures: list[object] = []

    def write(session_id: str) -> None:
        for minute in minutes:
            stored = rig.store.store_minute(minute_rows(session_id, minute))
            if not stored.written or stored.failed:
                failures.append(stored)

    writers = [threading.Thread(target=write, args=(name,)) for name in (ONE, TWO)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        rig.upkeep(at("2010-01-31 12:00"))
    for writer in writers:
        writer.join(timeout=60)
    rig.upkeep(at("2010-01-31 12:00"))
    assert failures == []
    assert [len(places(rig, name)) for name in (ONE, TWO)] == [20, 20]
    assert f"{PORTFOLIO}_default" not in {*places(rig, ONE), *places(rig, TWO)}


def test_what_a_lock_hinders_is_named_and_done_the_next_time(rig: ResultsRig) -> None:
    now = at("2021-06-07 08:09")
    with rig.database.transaction() as db:
        db.execute(text("LOCK TABLE result_gaps_1min_default IN ACCESS SHARE MODE"))
        hindered = rig.upkeep(now)
    assert {Month("result_gaps_1min", 2021, number).name for number in (6, 7, 8)} <= {
        line.split(":")[0] for line in hindered.postponed
    }
    assert Month(PORTFOLIO, 2021, 8).name in hindered.made
    done = rig.upkeep(now)
    assert (len(done.made), done.postponed) == (3, [])


# --- days -----------------------------------------------------------------------------------------


def day_row(rig: ResultsRig, session_id: str, day: str) -> tuple[object, ...] | None:
    with rig.database.read() as db:
        found = db.execute(
            text(
                "SELECT p.minute, p.current_pv, p.minutes, p.gaps, p.low_pv, p.high_pv, "
                "i.returns_1min FROM futures_portfolio_result_1day AS p "
                "LEFT JOIN futures_indicator_result_1day AS i USING (session_id, day) "
                "WHERE session_id = :name AND day = CAST(:day AS date)"
            ),
            {"name": session_id, "day": day},
        ).one_or_none()
    return None if found is None else tuple(found)


def test_a_day_is_its_last_minute_and_what_it_held(rig: ResultsRig) -> None:
    night = at("2026-04-30 00:00")  # the row of 00:00 ends the day before, also over a month's end
    for minute, pv in (
        (night - 2 * MINUTE, 10_100),
        (night - MINUTE, 9_900),
        (night, 10_050),
        (night + MINUTE, 20_000),
    ):
        rig.measure(ONE, [minute], pv)
    rig.miss(ONE, night - 3 * MINUTE, night - 4 * MINUTE, night + 2 * MINUTE)
    report = rig.upkeep(night + timedelta(hours=6))
    assert report.days_rolled == 1
    wanted = (night, Decimal(10_050), 3, 2, Decimal(9_900), Decimal(10_100), 0)
    assert day_row(rig, ONE, "2026-04-29") == wanted
    assert day_row(rig, ONE, "2026-04-30") is None  # it is not over


def test_rows_that_arrive_late_correct_their_day(rig: ResultsRig) -> None:
    noon = at("2026-05-01 12:00")
    rig.measure(ONE, [noon], 10_000)
    rig.upkeep(noon + timedelta(days=2))
    rig.measure(ONE, [noon - MINUTE, noon + MINUTE], 11_000)  # a spool, drained on the third day
    rig.miss(ONE, noon + 2 * MINUTE)
    assert rig.upkeep(noon + timedelta(days=3)).days_rolled == 1
    wanted = (noon + MINUTE, Decimal(11_000), 3, 1, Decimal(10_000), Decimal(11_000), 721)
    assert day_row(rig, ONE, "2026-05-01") == wanted
    assert rig.upkeep(noon + timedelta(days=3)).days_rolled == 0


def test_a_day_whose_minutes_are_gone_is_not_undone_by_a_late_row(rig: ResultsRig) -> None:
    noon = at("2026-05-01 12:00")
    rig.measure(ONE, [noon + number * MINUTE for number in range(5)], 10_000)
    rig.upkeep(noon + timedelta(days=1))
    known = day_row(rig, ONE, "2026-05-01")
    with rig.database.transaction() as db:
        db.execute(text(f"DELETE FROM {PORTFOLIO}"))
    rig.measure(ONE, [noon + MINUTE], 10_000)
    rig.upkeep(noon + timedelta(days=1))
    assert day_row(rig, ONE, "2026-05-01") == known


def test_a_day_that_is_being_written_stays_due(rig: ResultsRig) -> None:
    noon = at("2026-05-01 12:00")
    rig.measure(ONE, [noon])
    with rig.database.transaction() as db:
        db.execute(text("SELECT 1 FROM result_days_due FOR UPDATE"))  # as a writer holds it
        assert rig.upkeep(noon + timedelta(days=1)).days_rolled == 0
    assert rig.upkeep(noon + timedelta(days=1)).days_rolled == 1


# --- retention ------------------------------------------------------------------------------------


def minutes_left(rig: ResultsRig, session_id: str) -> int:
    return len(places(rig, session_id))


def test_what_is_old_goes_and_days_stay(rig: ResultsRig) -> None:
    now = at("2026-11-21 00:30")
    old = [at("2025-09-15 10:00"), at("2025-09-15 10:01")]
    rig.register(ONE, "live", old[-1], old[0])  # over, 432 days ago
    rig.register(TWO, "live", None, old[0])  # began then, and runs
    rig.measure(ONE, old)
    rig.measure(TWO, [*old, now - MINUTE])
    rig.measure(THREE, [at("2025-08-15 10:00")])  # of whom finplatform knows nothing any more
    rig.miss(ONE, old[1] + MINUTE)
    report = rig.upkeep(now)
    assert (minutes_left(rig, ONE), minutes_left(rig, TWO), minutes_left(rig, THREE)) == (0, 3, 0)
    assert rig.value("SELECT count(*) FROM result_gaps_1min") == 0
    assert {Month(PORTFOLIO, 2025, 8).name, Month("result_gaps_1min", 2025, 9).name} <= set(
        report.dropped
    )
    assert Month(PORTFOLIO, 2025, 9).name not in report.dropped  # somebody who runs has rows there
    assert (report.expired_sessions, report.postponed) == (2, [])
    days = day_row(rig, ONE, "2025-09-15"), day_row(rig, THREE, "2025-08-15")
    assert [None if day is None else day[2:4] for day in days] == [(2, 1), (1, 0)]
    assert rig.upkeep(now) == UpkeepReport()


def add_an_old_session(rig: ResultsRig) -> None:
    """ONE, live, three days long, which ended 431 days before NOW; TWO runs."""
    rig.register(ONE, "live", BEGIN + 3 * DAY, BEGIN)
    rig.register(TWO, "live", None, NOW - DAY)
    rig.measure(ONE, [BEGIN + number * 13 * MINUTE for number in range(332)])
    rig.miss(ONE, BEGIN + MINUTE)
    rig.measure(TWO, [NOW - MINUTE])


def test_days_and_curves_are_the_same_after_their_minutes_are_gone(rig: ResultsRig) -> None:
    add_an_old_session(rig)
    session, curves = watched(ONE), CurveRepository(rig.database)
    days = SeriesQuery(Subject.PORTFOLIO, COLUMNS, BEGIN, NOW, Resolution.DAY)
    numbers = SeriesQuery(Subject.INDICATORS, ("returns_1min",), BEGIN, NOW, Resolution.DAY)
    span = curves.span(session, BEGIN, NOW)
    assert span is not None
    before = rig.series.series(session, days).rows
    indicators = rig.series.series(session, numbers).rows
    points = curves.points(session, span, DAY)
    assert [row[2] for row in before] == [10, 111, 110, 101]
    assert len(points) == len(indicators) == 4
    assert len(curves.points(session, span, MINUTE)) == 332

    report = rig.upkeep(NOW)

    assert (report.days_rolled, report.expired_sessions) == (4, 1)
    minutes = SeriesQuery(Subject.PORTFOLIO, ("current_pv",), BEGIN, NOW)
    assert rig.series.series(session, minutes).rows == []
    assert rig.series.series(session, days).rows == before
    assert rig.series.series(session, numbers).rows == indicators
    kept = curves.span(session, BEGIN, NOW)
    assert kept is not None
    assert (kept.first, kept.last) == (before[0][0], span.last)
    for step in (MINUTE, DAY):  # whatever step is asked for: nothing finer is there
        assert curves.points(session, kept, step) == points
    part = SeriesQuery(Subject.PORTFOLIO, COLUMNS, at("2025-09-15 12:00"), NOW, Resolution.DAY, 2)
    page = rig.series.series(session, part)
    assert (page.rows, page.next_after is None) == (before[1:3], False)


def test_a_curve_goes_on_from_its_days_to_the_minutes_that_are_kept(rig: ResultsRig) -> None:
    add_an_old_session(rig)
    rig.upkeep(NOW)
    last = rig.value(
        "SELECT max(minute) FROM futures_portfolio_result_1day WHERE session_id = :name", name=ONE
    )
    later = [NOW - number * MINUTE for number in (9, 8, 7)]
    rig.measure(ONE, later)  # what a spool had kept for long
    curves = CurveRepository(rig.database)
    span = curves.span(watched(ONE), BEGIN, NOW)
    assert span is not None
    points = curves.points(watched(ONE), span, MINUTE)
    assert [point.minute for point in points[3:]] == [last, *later]
    assert len(points) == 7


def test_paper_sessions_go_by_the_time_since_they_ended(rig: ResultsRig) -> None:
    now, start = at("2026-11-21 00:30"), at("2026-07-01 10:00")
    rig.register(ONE, "paper", start + timedelta(hours=1), start)
    rig.register(TWO, "live", start + timedelta(hours=1), start)
    rig.register(THREE, "paper", now - timedelta(days=89), start)
    for name in (ONE, TWO, THREE):
        rig.measure(name, [start])
    rig.measure("2611202350-four", [now - timedelta(hours=1)])  # the installation is in use
    rig.upkeep(now)
    assert (minutes_left(rig, ONE), minutes_left(rig, TWO), minutes_left(rig, THREE)) == (0, 1, 1)
    assert day_row(rig, ONE, "2026-07-01") is not None


def test_a_clock_that_runs_ahead_of_all_rows_takes_nothing(rig: ResultsRig) -> None:
    rig.register(ONE, "live", at("2026-07-02 10:00"), at("2026-07-01 10:00"))
    rig.measure(ONE, [at("2026-07-01 10:00")])
    report = rig.upkeep(at("2099-01-01 00:00"))
    assert (minutes_left(rig, ONE), report.expired_sessions) == (1, 0)


def _wait_until_somebody_waits(rig: ResultsRig) -> None:
    for _ in range(600):
        if rig.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            return
        CLOCK.sleep(0.05)
    raise AssertionError("no writer came to the lock within 30 s")


def test_it_is_a_program_that_says_what_it_did(rig: ResultsRig, postgres: Settings) -> None:
    rig.measure(ONE, [at("2018-02-03 04:05")])
    done = subprocess.run(
        [sys.executable, "-m", "module.db.results_upkeep"],
        cwd=Path(__file__).parents[3],
        env={"PATH": os.environ["PATH"], "AIFAP_DATA_DIR": str(postgres.data_dir)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stderr.strip().splitlines()[-1])
    assert (said["moved_rows"], said["days_rolled"], said["busy"]) == (3, 1, False)
    # nobody has measured anything since: that it is old is the clock's word alone
    assert places(rig, ONE) == [f"{PORTFOLIO}_y2018m02"]
    assert day_row(rig, ONE, "2018-02-03") is not None
