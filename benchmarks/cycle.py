"""From a bar's arrival to the first and the last order, in a whole installation.

Postgres, paper exchange, gateway, market service, session: one of 1-minute cycles over 30 symbols
in real time, in which every leg trades. *Arrival* is when the market service has the
boundary's bar of every symbol, asked for by this program as the strategy process asks for it; an
order has *left* when its row in the gateway's audit is committed, which is the last thing before
it is sent.

A machine that does other things as well lets everybody wait for a CPU. So beside the wall time
stand, for the time between bar and first order, what the kernel says of the session's leader and
strategy process: how long they were on a CPU, and how long they were ready and had none (*queued*;
the wall time without it is what a quiet machine would come near to). The strategy's own child and
the services on the way (gateway, market; whatever else they did meanwhile included) stand apart.

*Forced* is the least that the exchange's limit allows the same orders: ten a second, the first ten
at once. The pace that this gateway keeps is a tenth slower (`budget.WINDOW`), so that requests of
one second here cannot fall into one with those of the next there.

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

from benchmarks.installation import (
    Burden,
    Trading,
    burden_of,
    ended_children_ms,
    symbol_names,
)
from module.db.database import Database
from module.market.market_client import HELD_S, MarketServiceClient
from module.model.errors import NotYet
from module.model.market import Frequency, MarketType
from module.security.tokens import mint_grant, service_grant

PER_SECOND = 10
MINUTE = timedelta(minutes=1)
LOOK_PAUSE_S = 0.002
SESSION = ("leader", "strategy")
CHILD = "strategy's child"
SERVICES = ("gateway", "market")
CYCLE_ENDS_S = 25.0
LEFT = text("SELECT count(*) FROM gateway_writes WHERE kind = 'order'")


@dataclass(slots=True)
class Cycle:
    """One boundary; times are real seconds of one clock."""

    boundary: datetime
    arrived_s: float = 0.0
    at_arrival: dict[str, Burden] = field(default_factory=dict)
    at_first: dict[str, Burden] = field(default_factory=dict)
    left_s: list[float] = field(default_factory=list)

    @property
    def first_ms(self) -> float:
        """From the bar to the first batch of orders."""
        return (self.left_s[0] - self.arrived_s) * 1000

    def burden(self, *roles: str) -> Burden:
        """Of these processes between the bar and the first batch."""
        total = Burden()
        for role in roles:
            total += self.at_first[role] - self.at_arrival[role]
        return total

    @property
    def without_queue_ms(self) -> float:
        """From the bar to the first batch without the time for which leader and strategy process,
        which follow each other on the path, had no CPU."""
        return self.first_ms - self.burden(*SESSION).queue_ms

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
            report(measure(trading, session_id, options.cycles + 1), trading, session_id)
        finally:
            trading.stop()
    return 0


def measure(trading: Trading, session_id: str, count: int) -> list[Cycle]:
    """Watch `count` boundaries."""
    clock = trading.clock
    token = mint_grant(service_grant("bench"), trading.settings.secret("token_key"))
    market = MarketServiceClient(
        trading.settings.market_url,
        trading.settings.market_id,
        MarketType.FUTURES,
        token,
        clock,
        held_s=HELD_S,
    )
    database = Database(trading.settings, "finplatform", 1)
    cycles: list[Cycle] = []
    boundary = _next_minute(clock.now())
    for _ in range(count):
        while (wait_s := (boundary - clock.now()).total_seconds()) > 0:
            clock.pause(wait_s + 0.001)
        cycle = Cycle(boundary)
        look = Watch(trading.processes(session_id))
        ends_s = time.monotonic() + CYCLE_ENDS_S
        watching = threading.Thread(target=_watch, args=(database, cycle, look, ends_s))
        watching.start()
        try:
            market.closed_bars(trading.symbols, Frequency.MINUTE_1, 2, boundary)
            cycle.arrived_s, cycle.at_arrival = time.monotonic(), look.burdens()
            cycles.append(cycle)
        except NotYet as error:
            print(f"no bar at {boundary}: {error.message}")
        watching.join()
        boundary += MINUTE
    database.close()
    return cycles


@dataclass(frozen=True, slots=True)
class Watch:
    """Looks at the processes on the path, by role."""

    pids: dict[str, list[int]]

    def burdens(self) -> dict[str, Burden]:
        """Of each role so far."""
        found = {role: burden_of(pids) for role, pids in self.pids.items()}
        ended_ms = sum(ended_children_ms(pid) for pid in self.pids["runner host"])
        return {**found, CHILD: Burden(ended_ms)}


def _watch(database: Database, cycle: Cycle, look: Watch, ends_s: float) -> None:
    """Note when each order is put on record."""
    with database.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as rows:
        before = int(rows.execute(LEFT).scalar_one())
        while (now_s := time.monotonic()) < ends_s:
            left = int(rows.execute(LEFT).scalar_one()) - before
            if left > len(cycle.left_s):
                if not cycle.left_s:
                    cycle.at_first = look.burdens()
                cycle.left_s.extend([now_s] * (left - len(cycle.left_s)))
            time.sleep(LOOK_PAUSE_S)


def report(cycles: list[Cycle], trading: Trading, session_id: str) -> None:
    """Medians and worst of the cycles that rebalanced; the first apart."""
    for cycle in cycles:
        if not cycle.left_s:
            print(f"{cycle.boundary:%H:%M}  no orders")
            continue
        session, services = cycle.burden(*SESSION), cycle.burden(*SERVICES)
        print(
            f"{cycle.boundary:%H:%M}  orders {len(cycle.left_s):3d}  first {cycle.first_ms:7.1f} ms"
            f" after the bar (session on the CPU {session.cpu_ms:5.1f}, queued "
            f"{session.queue_ms:5.1f}; child {cycle.burden(CHILD).cpu_ms:3.0f}, services "
            f"{services.cpu_ms:5.1f})   last {cycle.span_ms:5.0f} ms after it, forced "
            f"{cycle.forced_ms:5.0f}"
        )
    for row in trading.session(session_id)["cycles"]:
        if row["reason"]:
            print(f"cycle {row['number']} {row['state']}: {row['reason']}")
    steady = [cycle for cycle in cycles[1:] if len(cycle.left_s) > 1]
    if len(steady) < 2:
        print("too few cycles traded")
        return
    _told("bar to first order, wall", [cycle.first_ms for cycle in steady])
    _told("the same without waiting for a CPU", [cycle.without_queue_ms for cycle in steady])
    _told("session's processes on the CPU", [cycle.burden(*SESSION).cpu_ms for cycle in steady])
    _told("strategy's child on the CPU, whole", [c.burden(CHILD).cpu_ms for c in steady])
    _told("gateway and market on the CPU", [c.burden(*SERVICES).cpu_ms for c in steady])
    ratio = [cycle.span_ms / cycle.forced_ms for cycle in steady if cycle.forced_ms]
    print(
        f"ratio  first to last order / forced by the limit: p50 {statistics.median(ratio):.2f} x, "
        f"max {max(ratio):.2f} x"
    )


def _told(what: str, values_ms: list[float]) -> None:
    print(f"{what:36} p50 {statistics.median(values_ms):7.1f} ms   max {max(values_ms):7.1f} ms")


def _next_minute(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0) + MINUTE


if __name__ == "__main__":
    sys.exit(main())
