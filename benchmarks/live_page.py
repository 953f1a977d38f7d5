"""How soon the live page is there: first contentful paint, and the first board with its numbers.

A whole installation with a paper session that trades, and a headless Chromium on the same machine.
Each load is a new tab: *cold* ones have an empty cache, *warm* ones ask with what they kept (the
server answers 304). *Paint* is what the browser reports as `first-contentful-paint`; *board* is the
moment at which the tiles, the table and the ring of a session were drawn from the stream's first
event, both counted from the navigation's start.

    python -m benchmarks live_page [--loads 20]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from api.client import PlatformClient
from api.standalone import Standalone, StandaloneOptions
from module.clock import SystemClock
from module.launch.stack import free_port
from tests.fakes.browser import Browser, Page, find_chromium

MEASURED_WAIT_S = 120.0
WORLD_SPEED = 20.0
TARGET_MS = 1000.0
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
BOARD = "performance.getEntriesByName('board')[0]?.startTime"


@dataclass(frozen=True, slots=True)
class Load:
    """One load: milliseconds to the first paint and to the first board."""

    paint_ms: float
    board_ms: float


def main(arguments: list[str]) -> int:
    """Print the distribution; 1 where no browser is installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks live_page")
    parser.add_argument("--loads", type=int, default=20)
    options = parser.parse_args(arguments)
    if find_chromium() is None:
        print("no Chromium is installed: nothing was measured")
        return 1
    with tempfile.TemporaryDirectory(prefix="aifap-bench-") as folder:
        stack = Standalone(
            StandaloneOptions(Path(folder) / "up", free_port(), speed=WORLD_SPEED), print
        )
        try:
            stack.start()
            token = stack.first_user("bench")
            assert token is not None
            _trade(stack, token)
            with Browser() as browser:
                for kind in ("cold", "warm"):
                    loads = _loads(browser, stack.api_url, token, options.loads, kind == "warm")
                    _report(kind, loads)
        finally:
            stack.stop()
    print(f"load of the machine while measured: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    return 0


def _trade(stack: Standalone, token: str) -> None:
    """A session that has been measured at least once."""
    client = PlatformClient(stack.api_url, token)
    body = {
        "tradeType": "futures",
        "strategy_name": "equal_weight",
        "trade_mode": "rebalancing",
        "trade_env": "paper",
        "interval": "1m",
        "apply_account_settings": True,
    }
    session_id = str(client.post("/command/run-system", body)["session_id"])
    clock = SystemClock()
    until = clock.monotonic() + MEASURED_WAIT_S
    while client.get(f"/results/{session_id}/latest")["result"] is None:
        assert clock.monotonic() < until, "the session was not measured"
        clock.pause(0.5)


def _loads(browser: Browser, url: str, token: str, count: int, is_warm: bool) -> list[Load]:
    found = []
    page = _tab(browser, token)
    if is_warm:
        _load(page, url)
    for _ in range(count):
        if not is_warm:
            page.close()
            page = _tab(browser, token)
        found.append(_load(page, url))
    page.close()
    return found


def _tab(browser: Browser, token: str) -> Page:
    page = browser.page()
    source = (
        "if (location.protocol.startsWith('http')) "
        f"sessionStorage.setItem('aifap-token', {json.dumps(token)})"
    )
    page.call("Page.addScriptToEvaluateOnNewDocument", source=source)
    return page


def _load(page: Page, url: str) -> Load:
    page.call("Page.navigate", url="about:blank")
    page.wait("location.href === 'about:blank'")
    page.go(f"{url}/dashboard/")
    page.wait(f"{PAINT} && {BOARD}")
    return Load(float(page.run(PAINT)), float(page.run(BOARD)))


def _report(kind: str, loads: list[Load]) -> None:
    for name, values in (
        ("first contentful paint", [load.paint_ms for load in loads]),
        ("first board", [load.board_ms for load in loads]),
    ):
        ordered = sorted(values)
        worst = ordered[-1]
        late = sum(value > TARGET_MS for value in values)
        print(
            f"{kind} {name:<23} median {statistics.median(ordered):6.0f} ms   "
            f"p95 {ordered[int(0.95 * (len(ordered) - 1))]:6.0f} ms   worst {worst:6.0f} ms   "
            f"over {TARGET_MS:.0f} ms: {late} of {len(values)}"
        )
