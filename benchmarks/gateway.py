"""What the gateway costs: the same calls through it over HTTP, and with plain ccxt to the exchange.

A whole installation (Postgres, paper exchange, gateway) on this machine; the calls go one after
another, in turn and below the request limits, so that both see the same machine. The gateway's
order is a judged, audited one (limits, budget, an audit row before and after); ccxt's is the bare
request. A snapshot is three requests, which the gateway makes at once. Prints ratios.

    python -m benchmarks gateway [--calls 60]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

from api.standalone import Standalone, StandaloneOptions
from module.clock import SystemClock, WorldClock
from module.db.database import Database
from module.db.repositories.accounts import AccountRepository
from module.exchange.gateway_admin import GatewayAdmin
from module.exchange.gateway_client import GatewayExchange
from module.launch.stack import free_port
from module.model.credentials import Credentials
from module.model.errors import Retryable
from module.model.market import MarketType
from module.model.orders import OrderRequest, Outcome, Side, WriteStamp
from module.security.credentials import KeyRing
from module.security.key_files import KeyFolder
from module.security.tokens import mint_grant, service_grant, session_grant

SESSION = "2601050000-bnch"
BALANCE = Decimal(1_000_000)
SPEED = 1.0  # world seconds per second
PACE_S = 0.4  # between rounds: within the five looks at positions a second that an account has
PARTS = (
    *("spot", "mix", "user", "p2p", "broker", "margin"),
    *("common", "tax", "convert", "copy", "earn", "uta"),
)
PERPETUAL = "BTC/USDT:USDT"
PAUSE_S = 0.02


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gateway")
    parser.add_argument("--calls", type=int, default=60, help="of each kind")
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="aifap-bench-") as folder:
        stack = Standalone(
            StandaloneOptions(Path(folder), free_port(), speed=SPEED), lambda _line: None
        )
        try:
            stack.start()
            compare(Both(stack), options.calls)
        finally:
            stack.stop()
    return 0


class Both:
    """One account behind the gateway, another like it for ccxt, at the same exchange."""

    def __init__(self, stack: Standalone) -> None:
        settings = stack.settings = stack.reload_settings()
        stack.first_user("bench")
        database = Database(settings, "finplatform", 1)
        accounts = AccountRepository(database)
        key = settings.secret("token_key")
        admin = GatewayAdmin(settings.gateway_url, mint_grant(service_grant("platform"), key))
        owner = _owner(database)
        first, second = (
            admin.open_paper_account(owner, label, MarketType.FUTURES, BALANCE)
            for label in ("through", "direct")
        )
        ring = KeyRing(KeyFolder(settings.data_dir / "secrets").read)
        self.ccxt = _ccxt(
            settings.simulator_url, ring.open(accounts.sealed_credentials(second), second)
        )
        host, _, port = settings.world_clock.rpartition(":")
        self.clock = WorldClock(host, int(port), None)
        token = mint_grant(session_grant(first, SESSION, owner), key)
        self.exchange = GatewayExchange(settings.gateway_url, first, token, self.clock)
        self._ids = count()
        database.close()

    def order_through(self) -> None:
        order = OrderRequest(
            client_id=f"bench-{next(self._ids)}",
            symbol="BTCUSDT",
            side=Side.BUY,
            size=Decimal("0.001"),
            reduce_only=False,
        )
        stamp = WriteStamp(SESSION, 0, self.clock.now() + timedelta(minutes=5))
        (result,) = self.exchange.submit(stamp, [order])
        if result.outcome is not Outcome.ACCEPTED:
            raise RuntimeError(f"{result}")

    def order_direct(self) -> None:
        self.ccxt.create_order(PERPETUAL, "market", "buy", 0.001)

    def snapshot_direct(self) -> None:
        """The three requests of a snapshot, as a program with ccxt makes them."""
        self.ccxt.fetch_balance({"type": "swap"})
        self.ccxt.fetch_positions()
        self.ccxt.fetch_open_orders()

    def fills_through(self) -> None:
        self.exchange.fills(self.clock.now() - timedelta(seconds=30))

    def fills_direct(self) -> None:
        since = int((self.clock.now() - timedelta(seconds=30)).timestamp() * 1000)
        self.ccxt.fetch_my_trades(PERPETUAL, since=since)


def compare(both: Both, calls: int) -> None:
    """Print milliseconds and ratios of each kind of call."""
    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("order", both.order_through, both.order_direct),
        ("snapshot", both.exchange.snapshot, both.snapshot_direct),
        ("fills", both.fills_through, both.fills_direct),
    ]
    for name, through, direct in pairs:
        ours, theirs = measure(through, direct, calls)
        for who, times in (("gateway", ours), ("ccxt", theirs)):
            print(
                f"{name:9} {who:8} p50 {_percentile(times, 50):7.2f} ms   "
                f"p99 {_percentile(times, 99):7.2f} ms"
            )
        more = _percentile(ours, 50) - _percentile(theirs, 50)
        ratio = _percentile(ours, 50) / _percentile(theirs, 50)
        print(f"ratio  {name}: gateway / ccxt {ratio:.2f} x (p50), {more:+.2f} ms a call")


def measure(
    through: Callable[[], object], direct: Callable[[], object], calls: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of each call of both, taken in turn after a few to warm up."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(calls + 10):
        SystemClock().pause(PACE_S)
        for call, times in ((through, ours), (direct, theirs)):
            elapsed = _timed(call)
            if number >= 10:
                times.append(elapsed)
    return ours, theirs


def _timed(call: Callable[[], object]) -> float:
    """Milliseconds; a call that was not sent (no room in the budget) is made again later."""
    clock = SystemClock()
    while True:
        started = time.perf_counter()
        try:
            call()
        except Retryable:
            clock.pause(PAUSE_S)
            continue
        return (time.perf_counter() - started) * 1000


def _percentile(times: list[float], percent: int) -> float:
    return statistics.quantiles(times, n=100)[percent - 1]


def _owner(database: Database) -> str:
    from module.db.repositories.users import UserRepository

    return UserRepository(database).list_all()[0].user_id


def _ccxt(url: str, keys: Credentials) -> Any:
    import ccxt

    client = ccxt.bitget(
        {
            "apiKey": keys.api_key,
            "secret": keys.api_secret,
            "password": keys.passphrase,
            "enableRateLimit": False,
            "urls": {"api": dict.fromkeys(PARTS, url)},
            "options": {"uta": False, "defaultType": "swap", "fetchMarkets": {"types": ["swap"]}},
        }
    )
    client.load_markets()
    return client


if __name__ == "__main__":
    sys.exit(main())
