"""What one scrape of the platform's `/metrics` costs: real Postgres, many sessions that trade.

Every session has a cycle a minute with its orders on record for the hours before, and measured
minutes. The world then goes on, a scrape every 15 seconds: rows that have come are found and added.
Wall time of a scrape (median, highest), this process's CPU, and what each statement takes.

    python -m benchmarks scrape [--sessions 1000] [--hours 2] [--scrapes 24]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import event, text

from api.telemetry.installation import InstallationMetrics
from api.telemetry.requests import spell
from api.telemetry.running_totals import RunningTotals
from api.telemetry.samples import once
from benchmarks.results import results_databases
from module.db.database import Database
from module.db.repositories.installation_counts import InstallationCounts
from module.db.repositories.installation_numbers import InstallationNumbers
from module.db.repositories.results import ResultsRepository
from tests.fakes.hand_clock import HandClock
from tests.fakes.result_rows import minute_rows

BEGIN = datetime(2026, 12, 1, 12, tzinfo=UTC)
EVERY_S = 15.0
ORDERS = 4
WANTED_MS = 50.0
_SESSION = "'2612010000-' || lpad(s::text, 4, '0')"
_FILL = (
    "INSERT INTO user_details VALUES ('u', 'bench', 'trader', true, :begin)",
    """INSERT INTO accounts (account_id, owner_id, label, venue, market, market_id, trade_env,
           base_url, active, epoch, key_hint, limits, created_at)
       SELECT 'a' || s, 'u', 'l' || s, 'bitget', 'futures', 'm', 'paper', '', true, 1, '', '{}',
              :begin FROM generate_series(0, :sessions - 1) AS s""",
    f"""INSERT INTO active_sessions (session_id, owner_id, account_id, state, desired, end_state,
           epoch, spec, order_info_store, started_at, ends_at, reason, cycle, heartbeat_wall,
           restarts)
       SELECT {_SESSION}, 'u', 'a' || s, 'running', 'running', 'ended', 1, '{{}}', 'file',
              :begin - interval '1 day', :begin + interval '9 day', '', 1, :begin, 0
       FROM generate_series(0, :sessions - 1) AS s""",
    f"""INSERT INTO cycles (session_id, boundary, number, state, reason, started_at, ended_at,
           own_ms)
       SELECT {_SESSION}, at, 1, 'done', '', at, at + interval '3 second' + s * interval '20 ms', 90
       FROM generate_series(0, :sessions - 1) AS s,
            generate_series(:since, :until, interval '1 minute') AS at""",
    f"""INSERT INTO gateway_writes (account_id, session_id, epoch, kind, client_id, symbol, request,
           sent_at)
       SELECT 'a' || s, {_SESSION}, 1, 'order', 'c-' || s || '-' || n || '-'
              || extract(epoch FROM at), 'BTCUSDT', '{{}}', at + n * interval '300 ms'
       FROM generate_series(0, :sessions - 1) AS s,
            generate_series(:since, :until, interval '1 minute') AS at,
            generate_series(1, :orders) AS n""",
)


def main(arguments: list[str] | None = None) -> int:
    """Print what it costs; 1 where a scrape takes more than WANTED_MS of our CPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scrape")
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--scrapes", type=int, default=24)
    options = parser.parse_args(arguments)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, load {load}, {options.sessions} sessions")
    with results_databases() as (finwatcher, finplatform):
        _fill(finplatform, finwatcher, options.sessions, options.hours, options.scrapes)
        return _measure(finplatform, finwatcher, options.scrapes)


def _fill(
    finplatform: Database, finwatcher: Database, sessions: int, hours: float, scrapes: int
) -> None:
    minutes = int(scrapes * EVERY_S // 60) + 1
    values = {
        "sessions": sessions,
        "orders": ORDERS,
        "begin": BEGIN,
        "since": BEGIN - timedelta(hours=hours),
        "until": BEGIN + timedelta(minutes=minutes),
    }
    with finplatform.transaction() as session:
        for statement in _FILL:
            session.execute(text(statement), values)
    store = ResultsRepository(finwatcher)
    for number in range(-3, minutes):
        at = BEGIN + timedelta(minutes=number)
        names = (f"2612010000-{session:04d}" for session in range(sessions))
        store.store_minutes([(minute_rows(name, at, 10_000), {}) for name in names])
    for database in (finplatform, finwatcher):
        with database.engine().connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))


def _measure(finplatform: Database, finwatcher: Database, scrapes: int) -> int:
    clock, took = HandClock(BEGIN), dict[str, list[float]]()
    for database in (finplatform, finwatcher):
        _time_statements(database, took)
    databases = (finplatform, finwatcher)
    metrics = InstallationMetrics(
        InstallationNumbers(*databases), InstallationCounts(*databases), RunningTotals(), clock
    )
    walls, owns, spelled = list[float](), list[float](), b""
    for _ in range(scrapes + 1):
        wall, own = time.perf_counter(), time.process_time()
        from prometheus_client import CollectorRegistry

        told = CollectorRegistry()
        told.register(once(metrics.families()))
        spelled = spell((told,))
        walls.append(1000 * (time.perf_counter() - wall))
        owns.append(1000 * (time.process_time() - own))
        clock.advance(EVERY_S)
    first, walls, owns = walls[0], walls[1:], owns[1:]
    for line in spelled.decode().splitlines():
        if line.startswith(('aifap_cycles_ended_total{outcome="done', "aifap_finwatcher_measured")):
            print(f"  {line}")
    median = statistics.median(walls)
    print(
        f"  first scrape {first:.1f} ms, then median {median:.1f} ms, highest {max(walls):.1f} ms"
    )
    own_ms = statistics.median(owns)
    print(f"  CPU of this process: {own_ms:.1f} ms a scrape (wanted {WANTED_MS:.0f})")
    for statement, spans in sorted(took.items(), key=lambda each: -sum(each[1]))[:6]:
        mean = sum(spans) / (scrapes + 1)
        print(f"  {mean:7.2f} ms a scrape (highest {max(spans):6.1f})  {statement}")
    return 1 if own_ms > WANTED_MS else 0


def _time_statements(database: Database, took: dict[str, list[float]]) -> None:
    began: list[float] = []

    def before(*_: object) -> None:
        began.append(time.perf_counter())

    def after(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        words = " ".join(statement.split())
        took.setdefault(words[:90], []).append(1000 * (time.perf_counter() - began.pop()))

    event.listen(database.engine(), "before_cursor_execute", before)
    event.listen(database.engine(), "after_cursor_execute", after)
