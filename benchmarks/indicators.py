"""A session's indicators, minute by minute: running sums beside reading a year and recomputing it.

Timed in this process's CPU, all in one run: one minute as the finwatcher measures it, the point
added to the running sums and the row with all numbers read off them (`StackFuturesIndicatorResult`,
budget 5 µs for both together), and, as a dashboard without running sums would, a year of minutes
read from Postgres (two float columns, no ORM) and computed with empyrical on both bases. The
server's CPU is not counted, which favours the recompute. Microseconds are the best of many short
turns, as timeit advises (what is more is the machine's other work), and the median is told beside
it; the ratio takes the medians of both. The numbers of both ways are compared, too.

    python -m benchmarks indicators [--days 365] [--repeats 5]
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from sqlalchemy import text

from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.db.migrate import migrate
from module.model.results import CurvePoint, IndicatorRow, PortfolioRow, TradeSums
from module.settings import Settings
from monitoring.indicators import MINUTES_PER_DAY, IndicatorState, replay
from monitoring.metrics import Totals
from monitoring.stacks import StackFuturesIndicatorResult

BUDGET_US = 5.0
RATIO_MIN = 10_000.0
SESSION_ID = "2511210000-benc"
START = datetime(2025, 11, 21, tzinfo=UTC)
YEAR = 365
BATCH = 200
TURNS = 200
EXCHANGE_PLACES = 8
"""Decimals of a live minute; a number that comes back from Postgres has 18."""
MINUTE = timedelta(minutes=1)
SUMS = TradeSums(
    1_207,
    655,
    Decimal("8400.125"),
    Decimal("-6100.75"),
    Decimal("2500000.5"),
    Decimal("310.25"),
    Decimal("2100000.75"),
)
# A curve with ups and downs, a deposit after a third of it.
FILL = """
INSERT INTO futures_portfolio_result_1min (
    session_id, minute, owner_id, account_id, current_pv, position_value, gross_position_value,
    cash, unrealized_pnl, margin_size, wallet_balance, initial_balance, net_transfers,
    realized_pnl, fees, funding, positions, open_orders, unprotected, measured_at, late, writer,
    flags)
SELECT :session, at, 'o', 'a',
    round((10000 + 900 * sin(n / 9000.0) + 40 * sin(n / 37.0) + 3 * sin(n * 1.7))::numeric, 8)
        + CASE WHEN n > :deposit THEN 2500 ELSE 0 END,
    0, 0, 0, 0, 0, 0, 10000, CASE WHEN n > :deposit THEN 2500 ELSE 0 END,
    0, 0, 0, 0, 0, 0, at, false, 'w', ''
FROM (SELECT n, :start + n * interval '1 minute' AS at FROM generate_series(1, :count) AS n) AS m
"""
READ = """
SELECT minute, current_pv::float8, net_transfers::float8 FROM futures_portfolio_result_1min
WHERE session_id = :session ORDER BY minute
"""
EXACT = """
SELECT minute, current_pv, net_transfers, initial_balance FROM futures_portfolio_result_1min
WHERE session_id = :session ORDER BY minute
"""


def main(arguments: list[str] | None = None) -> int:
    """Print both ways; 1 when a minute is over its budget or the ratio under 10,000."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks indicators")
    parser.add_argument("--days", type=int, default=365, help="length of the stored curve")
    parser.add_argument("--repeats", type=int, default=5, help="how often each way is timed")
    options = parser.parse_args(arguments)
    load = f"{os.getloadavg()[0]:.1f}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},")
    print(f"load {load}; process CPU, medians of {options.repeats}")
    with tempfile.TemporaryDirectory(prefix="aifap-bench-") as folder:
        settings = Settings(data_dir=Path(folder))
        server = EmbeddedPostgres(settings)
        server.start(ends_with_parent=True)
        database = Database(settings, "finwatcher", 1, statement_timeout_ms=600_000)
        try:
            migrate(settings, "finwatcher")
            count = options.days * MINUTES_PER_DAY
            fill(database, count)
            return compare(database, options.repeats)
        finally:
            database.close()
            server.stop()


def fill(database: Database, count: int) -> None:
    """A session's minutes."""
    values = {"session": SESSION_ID, "start": START, "count": count, "deposit": count // 3}
    with database.transaction() as db:
        db.execute(text(FILL), values)
    with database.transaction() as db:
        db.execute(text("ANALYZE futures_portfolio_result_1min"))


def compare(database: Database, repeats: int) -> int:
    """Both ways over the same rows."""
    with database.read() as db:
        points = [CurvePoint(*row) for row in db.execute(text(EXACT), {"session": SESSION_ID})]
    state = replay(None, points)
    assert state is not None
    turns_us = sorted(_minute_us(state, points[-1]) for _ in range(TURNS))
    best_us, usual_us = turns_us[0], statistics.median(turns_us)
    recompute(database)  # warm: imports, caches of the server
    walls: list[float] = []
    seconds: list[float] = []
    theirs: dict[str, float] = {}
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        theirs = recompute(database)
        seconds.append(time.process_time() - cpu)
        walls.append(time.perf_counter() - wall)
    recompute_s = statistics.median(seconds)
    difference = _furthest(state.read(SUMS), theirs)
    ratio = recompute_s * 1e6 / usual_us
    print(
        f"one minute, update and row of 26 numbers: {best_us:.2f} µs, the median {usual_us:.2f} µs"
    )
    print(
        f"{len(points):,} minutes read and recomputed: {recompute_s:.2f} s CPU (the server's not "
        f"counted), {statistics.median(walls):.2f} s wall"
    )
    print(f"ratio recomputing / update and row   {ratio:,.0f} x")
    print(f"furthest number apart: {difference:.1e} (relative)")
    within = best_us <= BUDGET_US and ratio >= RATIO_MIN and difference <= 1e-9
    print(f"budget {BUDGET_US:.0f} µs, {RATIO_MIN:,.0f} x, 1e-9: {'within' if within else 'OVER'}")
    return 0 if within else 1


def recompute(database: Database) -> dict[str, float]:
    """The session's numbers from its rows, with pandas and empyrical."""
    import empyrical
    import pandas as pd

    with database.read() as db:
        rows = db.execute(text(READ), {"session": SESSION_ID}).all()
    frame = pd.DataFrame(rows, columns=["minute", "pv", "moved"])
    before = frame.pv.shift(1, fill_value=10_000.0)
    since = frame.moved.diff().fillna(0.0)
    returns = pd.Series(((frame.pv - since) / before - 1).to_numpy(), index=frame.minute)
    day_of = (pd.DatetimeIndex(frame.minute) - pd.Timedelta(microseconds=1)).floor("D")
    daily = (1 + returns).groupby(day_of).prod() - 1
    found: dict[str, float] = {}
    for basis, series, year in (("1min", returns, YEAR * MINUTES_PER_DAY), ("1day", daily, YEAR)):
        functions: Sequence[tuple[str, Callable[..., float]]] = (
            ("sharpe", empyrical.sharpe_ratio),
            ("sortino", empyrical.sortino_ratio),
            ("volatility", empyrical.annual_volatility),
            ("calmar", empyrical.calmar_ratio),
        )
        for name, function in functions:
            found[f"{name}_{basis}"] = float(function(series, annualization=year))
    found["max_drawdown"] = float(empyrical.max_drawdown(returns))
    found["max_drawdown_1day"] = float(empyrical.max_drawdown(daily))
    found["cumulative_return"] = float(empyrical.cum_returns_final(returns))
    return found


def _minute_us(state: IndicatorState, last: CurvePoint) -> float:
    """The minutes after `last`, each measured from a portfolio row that is there."""
    part = StackFuturesIndicatorResult()
    part.resume(state.copy())
    totals = Totals({}, last.net_transfers, SUMS)
    minutes = [
        (last.minute + number * MINUTE, _portfolio(last, number % 97 - 48))
        for number in range(1, BATCH + 1)
    ]
    began = time.process_time()
    for minute, row in minutes:
        part.measure(minute, row, totals)
    return (time.process_time() - began) / BATCH * 1e6


def _portfolio(last: CurvePoint, moved: int) -> PortfolioRow:
    """What the indicators read of a row; the rest is nothing."""
    zero = Decimal(0)
    return PortfolioRow(
        current_pv=round(last.current_pv + Decimal(moved) / 16, EXCHANGE_PLACES),
        netprofit=None,
        roe=None,
        position_value=zero,
        gross_position_value=zero,
        cash=zero,
        unrealized_pnl=zero,
        unrealized_roe=None,
        margin_size=zero,
        available=None,
        wallet_balance=zero,
        initial_balance=last.initial_balance,
        net_transfers=round(last.net_transfers, EXCHANGE_PLACES),
        realized_pnl=zero,
        fees=zero,
        funding=zero,
        positions=0,
        open_orders=0,
        unprotected=0,
        measured_at=last.minute,
        late=False,
        flags="",
    )


def _furthest(row: IndicatorRow, theirs: dict[str, float]) -> float:
    """The largest relative difference of the two ways; 1 where only one has a number."""
    apart = [0.0]
    for name, value in theirs.items():
        ours = getattr(row, name)
        if ours is None or not math.isfinite(value):
            apart.append(float((ours is None) == math.isfinite(value)))
        else:
            apart.append(abs(ours - value) / max(abs(value), 1e-12))
    return max(apart)
