"""The same session, run by the real processes at speed 10, 60 and 600: one ledger, to the byte.

Seven symbols on both sides with stops that move every cycle, so that leader, finwatcher and the
protection of positions meet at the request budget. All three run at once, on a busy machine.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import urllib3

from api.standalone import Standalone, StandaloneOptions
from module.launch.stack import free_port
from tests.e2e.installation import CONDUCTOR, Installation

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
START = datetime(2026, 3, 2, 10, 58, tzinfo=UTC)  # over the turn of an hour
STRATEGY = """
LONGS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "ADAUSDT")
SHORTS = ("XRPUSDT", "DOGEUSDT", "BNBUSDT")
PHASES = [
    (.11, .1, .09, .08, -.11, -.1, -.09),
    (.15, .05, .09, -.08, -.15, -.05, .09),
    (-.1, .05, .12, -.08, 0, -.1, .09),
]

def strategy(context, config_dict):
    at = int(context.current_dt.timestamp())
    weights = dict(zip(LONGS + SHORTS, PHASES[min((at - config_dict["first_s"]) // 60, 2)]))
    prices = context.get_history(list(weights), window=5, frequency="1m", fields="close").iloc[-1]
    return {
        symbol: {
            "weight": weight,
            "presetStopLossPrice": prices[symbol] * (.97 if weight > 0 else 1.03),
            "presetStopSurplusPrice": prices[symbol] * (1.05 if weight > 0 else .95),
        }
        for symbol, weight in weights.items()
        if weight
    }
"""


def ledger_of_a_session(folder: Path, speed: float) -> str:
    """The whole ledger after three cycles of one minute."""
    options = StandaloneOptions(
        folder, free_port(), speed=speed, seed=11, start=START, waits_for=CONDUCTOR
    )
    stack = Standalone(options, lambda _line: None)
    try:
        stack.start()
        token = stack.first_user("ada")
        assert token is not None
        installation = Installation(stack, token)
        installation.upload("moving", STRATEGY)
        account = installation.paper_account("any-speed")
        session = installation.start(
            account, "moving", timedelta(minutes=1), cycles=3, on_end="flat", threshold="0.002"
        )
        view = installation.wait_over(session)
        assert view["state"] == "ended", view["reason"]
        settings = stack.settings
        answer = urllib3.request(
            "GET",
            f"{settings.simulator_url}/control/ledger?dump=1",
            headers={"Authorization": f"Bearer {settings.secret('control_token')}"},
            timeout=30.0,
        ).json()
        assert answer["balanced"]
        return str(answer["dump"])
    finally:
        stack.stop()


def test_the_same_session_at_speed_10_60_and_600_has_the_same_ledger(tmp_path: Path) -> None:
    speeds = (10.0, 60.0, 600.0)
    with ThreadPoolExecutor(len(speeds)) as threads:
        folders = [tmp_path / f"at-{speed:g}" for speed in speeds]
        slow, medium, fast = threads.map(ledger_of_a_session, folders, speeds)
    ledger: dict[str, Any] = json.loads(fast)
    filled = [order for order in ledger["orders"] if Decimal(order[4]) > 0]
    assert len(filled) >= 7 + 6 + 5, "every phase traded, and the end left the account flat"
    assert medium == fast
    assert slow == fast
