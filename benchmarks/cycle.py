"""From a bar's arrival to the first and the last order, in a whole installation.

Postgres, paper exchange, gateway, market service, session: one of 1-minute cycles over 30 symbols
at the speed of real time, in which every leg trades. *Arrival* is when the market service has the
boundary's bar of every symbol, asked for by this program as the strategy process asks for it; an
order has *left* when its row in the gateway's audit is committed, which is the last thing before
it is sent. Both are real time: the world itself stands still while somebody works. Apart from it
the time on the CPU that our processes took together from the bar to the first order: on a machine
that does other things as well it says what is ours. The alternative to the last order's time is
the least that the exchange's limit forces: the same orders, ten a second, the first ten at once.

    python -m benchmarks cycle [--symbols 30] [--cycles 8]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from benchmarks.installation import Trading, cpu_ms, symbol_names
from module.clock import WorldClock
from module.db.database import Database
from module.market.market_client import MarketServiceClient
from module.model.errors import NotYet
from module.model.market import Frequency, MarketType
from module.security.tokens import mint_grant, service_grant

PER_SECOND = 10
MINUTE = timedelta(minutes=1)


LOOK_PAUSE_S = 0.003
CYCLE_ENDS_S = 25.0
LEFT = text("SELECT count(*) FROM gateway_writes WHERE kind = 'order'")


@dataclass(slots=True)
class Cycle:
    """One boundary; times are real seconds of one clock."""

    boundary: datetime
    arrived_s: float = 0.0
    cpu_at_arrival_ms: float = 0.0
    cpu_at_first_ms: float = 0.0
    left_s: list[float] = field(default_factory=list)

    @property
    def first_ms(self) -> float:
        """From the bar to the first batch of orders."""
        return (self.left_s[0] - self.arrived_s) * 1000

    @property
    def own_cpu_ms(self) -> float:
        """On the CPU from the bar to the first batch: all of our processes together."""
        return self.cpu_at_first_ms - self.cpu_at_arrival_ms

    @property
    def span_ms(self) -> float:
        """From the first order to the last."""
        return (self.left_s[-1] - self.left_s[0]) * 1000

    @property
    def forced_ms(self) -> float:
        """The least that the limit allows for so many orders: ten a second."""
        return 1000.0 * ((len(self.left_s) - 1) // PER_SECOND)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks cycle")
    parser.add_argument("--symbols", type=int, default=30)
    parser.add_argument("--cycles", type=int, default=8, help="after the first, which only opens")
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="aifap-bench-") as folder:
        trading = Trading(Path(folder), symbol_names(options.symbols), stops=True)
        try:
            session_id = trading.start_session("1m")
            report(measure(trading, options.cycles + 1), trading, session_id)
        finally:
            trading.stop()
    return 0


def measure(trading: Trading, count: int) -> list[Cycle]:
    """Watch `count` boundaries."""
    host, _, port = trading.settings.world_clock.rpartition(":")
    clock = WorldClock(host, int(port), None)
    token = mint_grant(service_grant("bench"), trading.settings.secret("token_key"))
    market = MarketServiceClient(
        trading.settings.market_url,
        trading.settings.market_id,
        MarketType.FUTURES,
        token,
        clock,
    )
    database = Database(trading.settings, "finplatform", 1)
    cycles: list[Cycle] = []
    boundary = _next_minute(clock.now())
    for _ in range(count):
        while (wait_s := (boundary - clock.now()).total_seconds()) > 0:
            clock.pause(wait_s + 0.001)
        cycle = Cycle(boundary)
        ends_s = time.monotonic() + CYCLE_ENDS_S
        watching = threading.Thread(target=_watch, args=(database, cycle, ends_s))
        watching.start()
        try:
            market.closed_bars(trading.symbols, Frequency.MINUTE_1, 2, boundary)
            cycle.arrived_s, cycle.cpu_at_arrival_ms = time.monotonic(), cpu_ms()
            cycles.append(cycle)
        except NotYet as error:
            print(f"no bar at {boundary}: {error.message}")
        watching.join()
        boundary += MINUTE
    clock.close()
    database.close()
    return cycles


def _watch(database: Database, cycle: Cycle, ends_s: float) -> None:
    """Note when each order is put on record."""
    with database.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as rows:
        before = int(rows.execute(LEFT).scalar_one())
        while (now_s := time.monotonic()) < ends_s:
            left = int(rows.execute(LEFT).scalar_one()) - before
            if left > len(cycle.left_s):
                if not cycle.left_s:
                    cycle.cpu_at_first_ms = cpu_ms()
                cycle.left_s.extend([now_s] * (left - len(cycle.left_s)))
            time.sleep(LOOK_PAUSE_S)


def report(cycles: list[Cycle], trading: Trading, session_id: str) -> None:
    """Medians and worst of the cycles that rebalanced; the first apart."""
    for cycle in cycles:
        if not cycle.left_s:
            print(f"{cycle.boundary:%H:%M}  no orders")
            continue
        print(
            f"{cycle.boundary:%H:%M}  orders {len(cycle.left_s):3d}  first {cycle.first_ms:7.1f} ms"
            f" after the bar (CPU {cycle.own_cpu_ms:6.1f} ms)   last {cycle.span_ms:7.0f} ms after"
            f" it, forced {cycle.forced_ms:5.0f} ms"
        )
    for row in trading.session(session_id)["cycles"]:
        if row["reason"]:
            print(f"cycle {row['number']} {row['state']}: {row['reason']}")
    steady = [cycle for cycle in cycles[1:] if len(cycle.left_s) > 1]
    if len(steady) < 2:
        print("too few cycles traded")
        return
    first = [cycle.first_ms for cycle in steady]
    ratio = [cycle.span_ms / cycle.forced_ms for cycle in steady if cycle.forced_ms]
    cpu = [cycle.own_cpu_ms for cycle in steady]
    print(
        f"bar to first order: p50 {statistics.median(first):.1f} ms, max {max(first):.1f} ms; on "
        f"the CPU p50 {statistics.median(cpu):.1f} ms"
    )
    print(
        f"ratio  first to last order / forced by the limit: p50 {statistics.median(ratio):.2f} x, "
        f"max {max(ratio):.2f} x"
    )


def _next_minute(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0) + MINUTE


if __name__ == "__main__":
    sys.exit(main())
