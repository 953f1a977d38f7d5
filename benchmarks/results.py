"""The results database: writing a minute of many sessions, and reading a year of one.

*Writing*: a minute of 1,000 sessions with 10 positions each (portfolio, ten symbols, indicators,
running state, the day's mark) through `store_minutes`; beside it, in turns on the same server, the
same rows as ORM objects with a commit for each, `execute_values` without any of our promises, and
`store_minute` session by session. Rows per second of wall time, and this process's CPU.

*Reading*: a year of minutes (525,600) of one session, stored among those of others minute by
minute, as finwatchers write them; its days rolled up; then what pages ask for. Milliseconds,
median.

    python -m benchmarks results [--part writes|year] [--sessions 1000] [--others 20] [--days 365]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.migrate import migrate_all
from module.db.repositories.results import ResultsRepository
from module.db.repositories.results_series import (
    Resolution,
    ResultsSeries,
    SeriesPage,
    SeriesQuery,
    Subject,
)
from module.db.repositories.results_writes import owner_columns, values_of
from module.db.results_tables import (
    FuturesIndicatorResult,
    FuturesPortfolioResult,
    FuturesResult,
    ResultsBase,
    portfolio_table,
)
from module.db.results_upkeep import STATEMENT_TIMEOUT_MS, ResultsUpkeep, Retention
from module.logs import configure_logs
from module.model.market import MarketType
from module.model.results import MinuteRows
from module.settings import Settings
from tests.fakes.result_rows import minute_rows, watched

POSITIONS = 10
RATIO_WANTED = 10.0
YEAR_MS_MAX = 500.0
ORM_ROWS = 360
ROUNDS = 5
MINUTE = timedelta(minutes=1)
YEAR_END = datetime(2026, 11, 1, tzinfo=UTC)
THE_ONE = "2511010000-year"
SYMBOLS = tuple(f"C{number:03d}USDT" for number in range(POSITIONS))
STATE: dict[str, object] = {
    "version": 2,
    "minutes": [525_600, 1.234567e-06, 0.0123456789, 0.00456789],
    "days": [365, 0.00123456789, 0.123456789, 0.0456789],
    "index": 1.23456789012345,
    "peak": 1.3456789012345,
    "max_drawdown": -0.123456789,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks results")
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--others", type=int, default=20)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--part", choices=("writes", "year"))
    options = parser.parse_args(arguments)
    configure_logs("benchmark", "ERROR")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {load}"
    )
    with results_databases() as (finwatcher, finplatform):
        missed = False
        if options.part != "year":
            missed |= measure_writes(finwatcher, options.sessions)
        if options.part != "writes":
            missed |= measure_year(finwatcher, finplatform, options.others, options.days)
    return 1 if missed else 0


@contextmanager
def results_databases() -> Iterator[tuple[Database, Database]]:
    """A Postgres of its own that ends with this process, migrated and empty."""
    folder = Path(tempfile.mkdtemp(prefix="aifap-bench-"))
    settings = Settings(data_dir=folder)
    server = EmbeddedPostgres(settings)
    finwatcher = Database(settings, "finwatcher", 3, statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    finplatform = Database(settings, "finplatform", 1, statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    try:
        server.start(ends_with_parent=True)
        migrate_all(settings)
        yield finwatcher, finplatform
    finally:
        finwatcher.close()
        finplatform.close()
        server.stop()
        shutil.rmtree(folder)


# --- writing --------------------------------------------------------------------------------------


def measure_writes(database: Database, sessions: int) -> bool:
    """Print each way's rows per second; whether ours is too slow."""
    store = ResultsRepository(database)
    begin = datetime(2026, 12, 1, tzinfo=UTC)
    rows_per_minute = sessions * (POSITIONS + 2)
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(ROUNDS):
        minute = begin + 10 * number * MINUTE
        ways: dict[str, tuple[int, Callable[[], None]]] = {
            "store_minutes (bulk)": (
                rows_per_minute,
                lambda at=minute: _store_bulk(store, sessions, at),  # type: ignore[misc]
            ),
            "store_minute, one by one": (
                rows_per_minute // 10,
                lambda at=minute + MINUTE: _store_each(store, sessions // 10, at),  # type: ignore[misc]
            ),
            "execute_values, nothing else": (
                rows_per_minute,
                lambda at=minute + 2 * MINUTE: _execute_values(database, sessions, at),  # type: ignore[misc]
            ),
            "ORM, a commit per row": (
                ORM_ROWS,
                lambda at=minute + 3 * MINUTE: _orm_commits(database, at),  # type: ignore[misc]
            ),
        }
        for name, (count, work) in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            found.setdefault(name, []).append((count / wall, 1e6 * cpu / count))
    rates = {}
    print(f"writing {sessions} sessions × {POSITIONS} positions, median of {ROUNDS}")
    for name, measured in found.items():
        rates[name] = statistics.median(rate for rate, _ in measured)
        own_us = statistics.median(cpu for _, cpu in measured)
        print(f"  {name:30s} {rates[name]:9.0f} rows/s   {own_us:7.1f} µs of our CPU a row")
    ratio = rates["store_minutes (bulk)"] / rates["ORM, a commit per row"]
    seconds = rows_per_minute / rates["store_minutes (bulk)"]
    print(f"  bulk / ORM commit per row {ratio:.1f} × (wanted {RATIO_WANTED:.0f})")
    print(f"  a minute of {sessions} sessions: {seconds:.2f} s, states and marks included")
    return ratio < RATIO_WANTED


def _minutes(sessions: int, minute: datetime) -> list[MinuteRows]:
    return [
        minute_rows(f"2612010000-{number:04d}", minute, 10_000 + number, symbols=SYMBOLS)
        for number in range(sessions)
    ]


def _store_bulk(store: ResultsRepository, sessions: int, minute: datetime) -> None:
    stored = store.store_minutes([(rows, STATE) for rows in _minutes(sessions, minute)])
    if not all(item.written and not item.failed for item in stored):
        raise RuntimeError("a minute was not written")


def _store_each(store: ResultsRepository, sessions: int, minute: datetime) -> None:
    for rows in _minutes(sessions, minute):
        store.store_minute(rows, STATE)


def _execute_values(database: Database, sessions: int, minute: datetime) -> None:
    from psycopg2.extras import execute_values

    tables: dict[str, list[dict[str, object]]] = {}
    for kind, values in _as_values(_minutes(sessions, minute)):
        tables.setdefault(kind.__tablename__, []).append(values)
    with database.transaction() as db:
        cursor = db.connection().connection.cursor()
        for table, rows in tables.items():
            names = ", ".join(rows[0])
            execute_values(
                cursor,
                f"INSERT INTO {table} ({names}) VALUES %s",
                [tuple(row.values()) for row in rows],
                page_size=1000,
            )


def _orm_commits(database: Database, minute: datetime) -> None:
    objects = [kind(**values) for kind, values in _as_values(_minutes(ORM_ROWS // 12, minute))]
    with Session(database.engine()) as db:
        for item in objects:
            db.add(item)
            db.commit()


def _as_values(
    minutes: Sequence[MinuteRows],
) -> Iterator[tuple[type[ResultsBase], dict[str, object]]]:
    for rows in minutes:
        key = owner_columns(rows) | {"minute": rows.minute}
        yield FuturesPortfolioResult, key | values_of(rows.portfolio) | {"writer": rows.writer}
        for symbol in rows.symbols or ():
            yield FuturesResult, key | values_of(symbol)
        yield FuturesIndicatorResult, key | values_of(rows.indicators)


# --- reading --------------------------------------------------------------------------------------


def measure_year(database: Database, platform_db: Database, others: int, days: int) -> bool:
    """Print what pages cost; whether a year takes too long."""
    begin = YEAR_END - timedelta(days=days)
    names = [THE_ONE, *(f"2511010000-{number:04d}" for number in range(others))]
    upkeep = ResultsUpkeep(database, platform_db, Retention())
    month = begin
    while month < YEAR_END:
        upkeep.run(month)
        month += timedelta(days=31)
    wall = time.perf_counter()
    _fill(database, names, begin)
    filled_s = time.perf_counter() - wall
    rows = days * 1440 * len(names)
    print(f"a year: {rows:,} rows of {len(names)} sessions in {filled_s:.0f} s")
    with database.transaction() as db:
        db.execute(
            text(
                "INSERT INTO result_days_due SELECT :name, CAST(CAST(:begin AS timestamptz) "
                "AS date) + n, 'futures' FROM generate_series(0, :last) AS n"
            ),
            {"name": THE_ONE, "begin": begin, "last": days - 1},
        )
    wall = time.perf_counter()
    rolled = upkeep.run(YEAR_END + timedelta(hours=6)).days_rolled
    print(f"  {rolled} of its days rolled up in {time.perf_counter() - wall:.1f} s")
    return _read_year(ResultsSeries(database), database, begin)


def _read_year(series: ResultsSeries, database: Database, begin: datetime) -> bool:
    money = ("current_pv", "netprofit", "roe", "gross_exposure")
    later = YEAR_END + MINUTE
    asked = {
        "the year by days": SeriesQuery(
            Subject.PORTFOLIO, money, begin, later, Resolution.DAY, 1000
        ),
        "the year by 4 hours": SeriesQuery(
            Subject.PORTFOLIO, money, begin, later, Resolution.FOUR_HOURS, 10_000
        ),
        "the year by hours": SeriesQuery(
            Subject.PORTFOLIO, money, begin, later, Resolution.HOUR, 10_000
        ),
        "a month by 5 minutes": SeriesQuery(
            Subject.PORTFOLIO,
            money,
            YEAR_END - timedelta(days=30),
            later,
            Resolution.FIVE_MINUTES,
            10_000,
        ),
        "a day by minutes": SeriesQuery(
            Subject.PORTFOLIO, money, YEAR_END - timedelta(days=1), later, rows_max=2000
        ),
        "the newest page of minutes": SeriesQuery(
            Subject.PORTFOLIO, money, begin, later, rows_max=500, newest_first=True
        ),
    }
    missed = False
    for name, query in asked.items():
        taken_ms, page = _median_ms(lambda query=query: series.series(watched(THE_ONE), query))  # type: ignore[misc]
        missed |= name.startswith("the year") and taken_ms > YEAR_MS_MAX
        print(f"  {name:28s} {len(page.rows):6d} rows {taken_ms:8.1f} ms")
    with database.read() as db:
        plan = "\n".join(
            db.scalars(
                text(
                    "EXPLAIN SELECT minute, current_pv FROM futures_portfolio_result_1min "
                    "WHERE session_id = :name AND minute >= :start AND minute < :end "
                    "ORDER BY minute"
                ),
                {"name": THE_ONE, "start": YEAR_END - timedelta(days=20), "end": YEAR_END},
            )
        )
    touched = plan.count("futures_portfolio_result_1min_y")
    print(f"  plan of twenty days of one month (limit {YEAR_MS_MAX:.0f} ms for a year above):")
    print("    " + plan.replace("\n", "\n    "))
    print(f"    names of partitions in it: {touched}")
    return missed


def _median_ms(work: Callable[[], SeriesPage]) -> tuple[float, SeriesPage]:
    page = work()
    spent = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent), page


def _fill(database: Database, names: Sequence[str], begin: datetime) -> None:
    """All sessions' rows minute by minute, a day at a time, as they would have come."""
    example = minute_rows(THE_ONE, begin)
    values = owner_columns(example) | {"minute": example.minute, "writer": example.writer}
    values |= values_of(example.portfolio)
    moving = {
        "session_id": "s.name",
        "minute": "m.minute",
        "measured_at": "m.minute",
        "current_pv": "10000 + mod(CAST(extract(epoch FROM m.minute) AS bigint) * 7919, 100000)",
    }
    columns = [column.name for column in portfolio_table(MarketType.FUTURES).columns]
    shown = ", ".join(moving.get(name, f":{name}") for name in columns)
    bound = {name: value for name, value in values.items() if name not in moving}
    statement = text(
        f"INSERT INTO futures_portfolio_result_1min ({', '.join(columns)}) SELECT {shown} "
        "FROM generate_series(CAST(:first AS timestamptz), CAST(:last AS timestamptz), "
        "interval '1 minute') AS m (minute) CROSS JOIN unnest(CAST(:names AS text[])) AS s (name)"
    )
    day = begin
    while day < YEAR_END:
        following = min(day + timedelta(days=5), YEAR_END)
        with database.transaction() as db:
            db.execute(text("SET LOCAL synchronous_commit = off"))
            db.execute(
                statement,
                {**bound, "first": day + MINUTE, "last": following, "names": list(names)},
            )
        day = following


if __name__ == "__main__":
    raise SystemExit(main())
