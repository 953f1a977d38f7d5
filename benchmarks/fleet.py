"""A minute of many sessions: one pass of `python -m monitoring --all` beside one plain loop.

Everything is real but the exchange: a Postgres of its own, the pass as the CronJob starts it (a new
process at second 0 of each minute), and, behind loopback sockets in a further process, a stand-in
for the gateway that answers every call after 50 ms. Each account holds ten positions and, in the
first minutes, trades five times a minute. Wall seconds count from second 0 until the process has
ended, so its start and the last commit are in them. CPU is told for each side.

The alternative measures the same rows by the same functions: one session after the other, four
calls each, one ORM object and one COMMIT per row. It does so for a few sessions; its seconds for
all of them are extrapolated, which is fair to it (a longer loop only gets slower).

    python -m benchmarks.fleet [--sessions 1000] [--minutes 5] [--plain 20]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import text
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.embedded import EmbeddedPostgres
from module.settings import Settings

POSITIONS = 10
FILLS = 5
DELAY_S = 0.05
MINUTE = timedelta(minutes=1)
SYMBOLS = [f"COIN{number}USDT" for number in range(POSITIONS)]
TARGET_S = 20.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet")
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--minutes", type=int, default=5)
    parser.add_argument("--plain", type=int, default=20, help="sessions of the plain loop")
    parser.add_argument("--profile", help="a file for the profile of the last pass")
    parser.add_argument("--stand-in", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stand_in:
        return asyncio.run(stand_in(Path(options.stand_in)))
    load = " ".join(f"{number:.1f}" for number in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},")
    print(f"load {load}; exchange calls {DELAY_S * 1000:.0f} ms, {POSITIONS} positions a session")
    with tempfile.TemporaryDirectory(prefix="aifap-bench-") as folder:
        settings = Settings(data_dir=Path(folder))
        with served(settings):
            return compare(settings, options)


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[None]:
    """A migrated Postgres of this folder's own."""
    from module.db.migrate import migrate_all

    server = EmbeddedPostgres(settings)
    server.start(ends_with_parent=True)
    try:
        migrate_all(settings)
        yield
    finally:
        server.stop()


def compare(settings: Settings, options: argparse.Namespace) -> int:
    """Both ways, one after the other; 1 when a pass was slower than the promise."""
    with standing_in(settings) as (url, process):
        open_sessions(settings, options.sessions)
        environment = os.environ | {
            "AIFAP_DATA_DIR": str(settings.data_dir),
            "AIFAP_GATEWAY_URL": url,
        }
        walls = []
        for number in range(options.minutes):
            last = number == options.minutes - 1
            profile = options.profile if last else None
            walls.append(one_pass(settings, environment, process, number, profile))
        check_rows(settings, options.sessions, options.minutes)
        if options.plain:
            plain_s = plain_loop(settings, url, options.plain)
            whole_s = plain_s / options.plain * options.sessions
            print(
                f"plain loop: {options.plain} sessions {plain_s:.1f} s, so {whole_s:.0f} s for all"
            )
            print(f"ratio   plain loop / slowest pass   {whole_s / max(walls):6.1f} x")
    within = max(walls) <= TARGET_S
    print(f"slowest pass {max(walls):.1f} s: {'within' if within else 'OVER'} {TARGET_S:.0f} s")
    return 0 if within else 1


def one_pass(
    settings: Settings,
    environment: dict[str, str],
    gateway: subprocess.Popen[bytes],
    number: int,
    profile: str | None,
) -> float:
    """A pass at the next second 0; wall seconds from there to the process's end."""
    now = datetime.now(UTC)
    begin = now.replace(second=0, microsecond=0) + MINUTE
    if number == 0 and (begin - now).total_seconds() < 5:
        begin += MINUTE
    time.sleep((begin - now).total_seconds())
    others = (cpu_s([gateway.pid]), cpu_s(postgres_pids(settings)))
    log = settings.data_dir / "pass.log"
    command = [sys.executable, "-m", "monitoring", "--all"]
    if profile:
        command = [sys.executable, "-m", "cProfile", "-o", profile, *command[1:]]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    wall_s = (datetime.now(UTC) - begin).total_seconds()
    said = next((line for line in log.read_text().splitlines()[::-1] if "pass done" in line), "{}")
    report = json.loads(said) if said.startswith("{") else {}
    if status != 0 or not report:
        print(log.read_text()[-3000:])
    gateway_s = cpu_s([gateway.pid]) - others[0]
    postgres_s = cpu_s(postgres_pids(settings)) - others[1]
    own_s = usage.ru_utime + usage.ru_stime
    print(
        f"{begin:%H:%M}  {wall_s:5.1f} s from second 0   CPU {own_s:5.1f} s"
        f" (user {usage.ru_utime:.1f}), Postgres {postgres_s:.1f} s, stand-in {gateway_s:.1f} s"
        f"   {usage.ru_maxrss / 1024:.0f} MB   measured {report.get('measured')},"
        f" gaps {report.get('gaps')}, rows {report.get('rows')},"
        f" history asked of {report.get('history_asked')}"
    )
    return wall_s


def check_rows(settings: Settings, sessions: int, minutes: int) -> None:
    """Every minute is there, whole, near its second 0."""
    database = Database(settings, "finwatcher", 1)
    with database.read() as db:
        rows = db.execute(
            text(
                "SELECT minute, count(*), max(measured_at - minute), count(*) FILTER (WHERE late)"
                " FROM futures_portfolio_result_1min GROUP BY 1 ORDER BY 1"
            )
        ).all()
        symbols = db.execute(text("SELECT count(*) FROM futures_result_1min")).scalar_one()
        indicators = db.execute(
            text("SELECT count(*) FROM futures_indicator_result_1min_1day")
        ).scalar_one()
        fills = db.execute(
            text("SELECT count(*) FROM futures_historical_transactions_details WHERE source='fill'")
        ).scalar_one()
    database.close()
    for minute, count, furthest, late in rows:
        print(f"{minute:%H:%M}  {count} rows, the last one looked at {furthest} after, {late} late")
    print(f"in Postgres: {symbols} symbol rows, {indicators} indicator rows, {fills} fills")
    whole = [count for _, count, _, _ in rows] == [sessions] * minutes
    print("every minute whole" if whole else "MINUTES ARE MISSING")


# --- the installation -----------------------------------------------------------------------------


def open_sessions(settings: Settings, count: int) -> None:
    """Running sessions on accounts of their own, each with the targets of a cycle."""
    from module.db.platform_tables import Account, Cycle, User
    from module.db.repositories.session_records import new_row
    from tests.fakes.stored_rows import session_spec

    started = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    database = Database(settings, "finplatform", 1)
    targets = {symbol: {"weight": "0.08"} for symbol in SYMBOLS}
    with database.transaction() as db:
        db.add(User(user_id="owner", name="ada", role="trader", active=True, created_at=started))
        db.flush()
        for number in range(count):
            db.add(
                Account(
                    account_id=f"account-{number:04d}",
                    owner_id="owner",
                    label=f"a{number}",
                    venue="bitget",
                    market="futures",
                    market_id="synthetic:7",
                    trade_env="paper",
                    base_url="http://127.0.0.1",
                    limits={},
                    created_at=started,
                )
            )
        db.flush()
        for number in range(count):
            spec = session_spec(
                "owner", f"account-{number:04d}", started, session_id=f"2603030917-{number:04d}"
            )
            row = new_row(spec, "file")
            row.state, row.initial_balance = "running", Decimal(10_000)
            db.add(row)
        db.flush()
        for number in range(count):
            db.add(
                Cycle(
                    session_id=f"2603030917-{number:04d}",
                    boundary=started,
                    number=1,
                    state="done",
                    started_at=started,
                    targets=targets,
                )
            )
    database.close()


def postgres_pids(settings: Settings) -> list[int]:
    """The server of this folder, with its children."""
    head = int((settings.data_dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{head}/task/{head}/children").read_text().split()
    return [head, *map(int, children)]


def cpu_s(pids: list[int]) -> float:
    """Seconds on a CPU so far, ended children included."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


# --- the stand-in for the gateway -----------------------------------------------------------------


@contextlib.contextmanager
def standing_in(settings: Settings) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The stand-in as a process: its address, itself."""
    file = settings.data_dir / "stand-in.port"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.fleet", "--stand-in", str(file)])
    try:
        while not file.exists():
            time.sleep(0.05)
        yield f"http://127.0.0.1:{int(file.read_text())}", process
    finally:
        process.terminate()
        process.wait(timeout=30)


async def stand_in(port_file: Path) -> int:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    accounts = Accounts(datetime.now(UTC))
    server = await loop.create_server(lambda: Door(accounts, loop), "127.0.0.1", 0, backlog=1024)
    temporary = port_file.with_suffix(".tmp")
    temporary.write_text(str(server.sockets[0].getsockname()[1]))
    temporary.replace(port_file)
    await server.serve_forever()
    return 0


class Door(asyncio.Protocol):
    """One connection: reads a request, answers after the delay."""

    def __init__(self, accounts: Accounts, loop: asyncio.AbstractEventLoop) -> None:
        self._accounts = accounts
        self._loop = loop
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
            body = self._accounts.answer(head.split(b" ", 2)[1].decode()).encode()
            answer = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            self._loop.call_later(DELAY_S, self._send, answer)

    def _send(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


class Accounts:
    """Accounts that trade five times in each of the first two whole minutes, then hold."""

    def __init__(self, begun: datetime) -> None:
        first = begun.replace(second=0, microsecond=0)
        self._trades = [first + number * MINUTE - timedelta(seconds=7) for number in (1, 2, 3)]

    def answer(self, target: str) -> str:
        parts = urlsplit(target)
        account, what = parts.path.split("/")[-2:]
        if what == "snapshot":
            return self._snapshot(account)
        since = datetime.fromisoformat(parse_qs(parts.query)["since"][0])
        now = datetime.now(UTC)
        done = [
            (minute, number, at)
            for minute, at in enumerate(self._trades)
            if since <= at <= now
            for number in range(FILLS)
        ]
        match what:
            case "fills":
                return json.dumps([_fill(account, *item) for item in done])
            case "bills":
                return json.dumps([_bill(account, *item) for item in done])
        return json.dumps([_closed(account, minute, at) for minute, n, at in done if n == 0])

    def _snapshot(self, account: str) -> str:
        now = datetime.now(UTC)
        trades = sum(at <= now for at in self._trades)
        wallet = 10_000 - 7 * trades
        tick = now.minute % 10
        positions = [_position(symbol, tick + place) for place, symbol in enumerate(SYMBOLS)]
        pnl = sum(5 * (tick + place) for place in range(POSITIONS)) / 100
        return json.dumps(
            {
                "account_id": account,
                "at": now.isoformat(),
                "wallet_balance": str(wallet),
                "unrealized_pnl": f"{pnl:.2f}",
                "equity": f"{wallet + pnl:.2f}",
                "available": "2000",
                "margin_used": "8000",
                "position_mode": "one_way",
                "positions": positions,
                "open_orders": [],
                "balances": [],
            }
        )


def _position(symbol: str, ticks: int) -> dict[str, object]:
    return {
        "symbol": symbol,
        "size": "5",
        "entry_price": "160",
        "mark_price": f"{160 + ticks / 100:.2f}",
        "margin_size": "800",
        "unrealized_pnl": f"{5 * ticks / 100:.2f}",
        "realized_pnl": "0",
        "fees": "-0.48",
        "funding": "0",
        "leverage": "1",
        "margin_mode": "crossed",
        "liquidation_price": None,
        "stops": {"stop_loss": "120", "take_profit": None},
        "opened_at": "2026-03-03T09:17:41Z",
    }


def _fill(account: str, minute: int, number: int, at: datetime) -> dict[str, object]:
    return {
        "trade_id": f"{account}-{minute}-{number}",
        "order_id": f"order-{account}-{minute}-{number}",
        "symbol": SYMBOLS[number],
        "side": "buy",
        "price": "160.01",
        "size": "0.5",
        "quote_size": "80.005",
        "fee": "-0.48",
        "fee_asset": "USDT",
        "realized_pnl": "-0.92",
        "is_taker": True,
        "at": at.isoformat(),
    }


def _bill(account: str, minute: int, number: int, at: datetime) -> dict[str, object]:
    return {
        "bill_id": f"{account}-{minute}-{number}",
        "kind": "trade",
        "venue_kind": "buy",
        "symbol": SYMBOLS[number],
        "asset": "USDT",
        "amount": "-0.92",
        "fee": "-0.48",
        "balance": "9993",
        "at": at.isoformat(),
    }


def _closed(account: str, minute: int, at: datetime) -> dict[str, object]:
    return {
        "position_id": f"{account}-{minute}",
        "symbol": SYMBOLS[0],
        "is_long": True,
        "entry_price": "160",
        "close_price": "160.01",
        "size": "0.5",
        "gross_pnl": "0.005",
        "funding": "0",
        "open_fee": "-0.05",
        "close_fee": "-0.05",
        "net_profit": "-0.095",
        "opened_at": (at - MINUTE).isoformat(),
        "closed_at": at.isoformat(),
    }


# --- the alternative ------------------------------------------------------------------------------


def plain_loop(settings: Settings, url: str, count: int) -> float:
    """Seconds for `count` sessions: four calls in turn, one ORM object and one COMMIT per row."""
    from module.clock import SystemClock
    from module.db.repositories.fleet import FleetRepository
    from module.db.repositories.results_writes import values_of
    from module.db.results_tables import (
        FuturesIndicatorResult,
        FuturesPortfolioResult,
        FuturesResult,
    )
    from module.exchange.gateway_client import GatewayExchange
    from monitoring.indicators import IndicatorState, advance_or_begin
    from monitoring.ledger import HistoryLedger
    from monitoring.metrics import measure_portfolio, measure_symbols

    platform_db, results_db = (
        Database(settings, "finplatform", 1),
        Database(settings, "finwatcher", 1),
    )
    sessions = FleetRepository(platform_db, results_db).sessions(datetime.now(UTC))[:count]
    minute = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(days=1)
    begun_s = time.monotonic()
    for session in sessions:
        exchange = GatewayExchange(url, session.account_id, "token", SystemClock())
        snapshot = exchange.snapshot()
        ledger = HistoryLedger(session.started_at)
        ledger.book_fills(exchange.fills(session.started_at))
        ledger.book_bills(exchange.bills(session.started_at))
        ledger.book_positions(exchange.closed_positions(session.started_at))
        totals = ledger.totals_at(snapshot.at)
        portfolio = measure_portfolio(snapshot, session, totals)
        state: IndicatorState = advance_or_begin(
            None, minute, portfolio.current_pv, portfolio.net_transfers, portfolio.initial_balance
        )
        key = {
            "session_id": session.session_id,
            "owner_id": session.owner_id,
            "account_id": session.account_id,
            "minute": minute,
        }
        rows: list[object] = [
            FuturesPortfolioResult(**key, **values_of(portfolio), writer="plain"),
            FuturesIndicatorResult(**key, **values_of(state.read(totals.sums))),
        ]
        rows += [
            FuturesResult(**key, **values_of(row))
            for row in measure_symbols(snapshot, session, totals)
        ]
        for row in rows:
            with Session(results_db.engine()) as db:
                db.add(row)
                db.commit()
        exchange.close()
    seconds = time.monotonic() - begun_s
    with results_db.transaction() as db:
        for table in (FuturesPortfolioResult, FuturesIndicatorResult, FuturesResult):
            db.execute(text(f"DELETE FROM {table.__tablename__} WHERE minute = :m"), {"m": minute})
    platform_db.close()
    results_db.close()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
