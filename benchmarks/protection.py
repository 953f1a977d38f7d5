"""How long a position stands without its stop loss while the exchange answers, but misbehaves.

A whole installation in real time, a session of 1-minute cycles that turns its book over and moves
every stop in every cycle. All along single faults are armed at the exchange: the placing of a stop
times out, done or not (B5); it is refused for the wrong side of the price (B6); the old stop is
cancelled and the new one fails (B9); a position's stops are gone (B10). Asked again and again, the
exchange's own ledger says which positions have no stop; the gateway's own figure stands beside it.

    python -m benchmarks protection [--minutes 10] [--symbols 20]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from benchmarks.installation import Trading, symbol_names
from module.security.tokens import mint_grant, service_grant

LOOK_PAUSE_S = 0.2
ARM_EVERY_S = 0.3
ARMED_MAX = 12
FAULTS: tuple[dict[str, object], ...] = (
    {"catalogue": "B5", "variant": "done"},
    {"catalogue": "B5", "variant": "not_done"},
    {"catalogue": "B6"},
    {"catalogue": "B9", "variant": "refused"},
    {"catalogue": "B9", "variant": "lost"},
    {"catalogue": "B10"},
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks protection")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--symbols", type=int, default=20)
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="aifap-bench-") as folder:
        trading = Trading(Path(folder), symbol_names(options.symbols), stops=True)
        try:
            trading.start_session("1m")
            spans, fired = misbehave(trading, options.minutes * 60)
            report(spans, fired, gateway_figures(trading))
        finally:
            trading.stop()
    return 0


@dataclass(slots=True)
class Spans:
    """Since when a position has no stop by the ledger, and how long each such time was. A position
    is named by symbol and opening time, so that a new one starts anew."""

    since: dict[tuple[str, str], float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    looks: int = 0

    def look(self, positions: Sequence[dict[str, Any]], now_s: float) -> None:
        """Note what is bare now, and what is not any more."""
        self.looks += 1
        bare = {
            (str(row["symbol"]), str(row["cTime"])) for row in positions if not row.get("stopLoss")
        }
        for key in bare:
            self.since.setdefault(key, now_s)
        for key in [key for key in self.since if key not in bare]:
            self.seconds.append(now_s - self.since.pop(key))


def misbehave(trading: Trading, for_s: float) -> tuple[Spans, Counter[str]]:
    """Arm faults and look at the ledger until the time is over; then let it settle."""
    clock, chance = trading.clock, random.Random(7)
    spans = Spans()
    ends_s = clock.monotonic() + for_s
    arm_at_s = clock.monotonic()
    fired: Counter[str] = Counter()
    while (now_s := clock.monotonic()) < ends_s or (spans.since and now_s < ends_s + 30):
        if arm_at_s <= now_s < ends_s:
            arm_at_s = now_s + ARM_EVERY_S
            rules = _control(trading, "GET")["rules"]
            if sum(not rule["fired"] for rule in rules) < ARMED_MAX:
                _control(trading, "POST", {**chance.choice(FAULTS), "count": 1})
        spans.look(trading.ledger()["positions"], clock.monotonic())
        clock.pause(LOOK_PAUSE_S)
    for rule in _control(trading, "GET")["rules"]:
        fired[str(rule["fault"])] += int(rule["fired"])
    return spans, fired


def gateway_figures(trading: Trading) -> dict[str, Any]:
    """What the gateway measured itself."""
    token = mint_grant(service_grant("bench"), trading.settings.secret("token_key"))
    answer = urllib3.request(
        "GET",
        f"{trading.settings.gateway_url}/gateway/state",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30.0,
    )
    return dict(json.loads(answer.data)["unprotected_times"])


def report(spans: Spans, fired: Counter[str], gateway: dict[str, Any]) -> None:
    """Both figures."""
    print(f"faults that changed something: {dict(sorted(fired.items()))}")
    found = sorted(spans.seconds)
    if found:
        p50, p99 = (found[max(0, math.ceil(len(found) * q) - 1)] for q in (0.5, 0.99))
        print(
            f"by the ledger ({spans.looks} looks)  {len(found)} spans without a stop: p50 "
            f"{p50:.2f} s   p99 {p99:.2f} s   max {found[-1]:.2f} s"
        )
    print(f"still without one at the end: {len(spans.since)}")
    print(
        f"by the gateway  {gateway['count']} spans: p50 {gateway['p50_ms'] / 1000:.2f} s   p99 "
        f"{gateway['p99_ms'] / 1000:.2f} s   max {gateway['max_ms'] / 1000:.2f} s"
    )


def _control(
    trading: Trading, method: str, words: dict[str, object] | None = None
) -> dict[str, Any]:
    answer = urllib3.request(
        method,
        f"{trading.settings.simulator_url}/control/faults",
        headers={"Authorization": f"Bearer {trading.settings.secret('control_token')}"},
        json=words,
        timeout=30.0,
    )
    if answer.status != 200:
        raise RuntimeError(f"the exchange's control said {answer.status}: {answer.data[:300]!r}")
    return dict(json.loads(answer.data))


if __name__ == "__main__":
    sys.exit(main())
