"""`python -m tests.integration.telemetry.report`: a whole installation and a real Prometheus.

Everything is started as `aifap up` does it, with two workers of the API; a session trades on the
paper exchange each minute. Then all that is shipped for Prometheus is asked there: panels' queries,
their series, rules. Ends with 1 where something is wrong or an alert would fire; with 0, saying so,
where no Prometheus is installed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from api.client import PlatformClient
from api.standalone import Standalone, StandaloneOptions
from module.launch.stack import free_port
from module.security.tokens import mint_grant, scrape_grant
from tests.integration.telemetry.prometheus_server import (
    PROMETHEUS,
    Told,
    ask_everything,
    prometheus,
)

SCRAPE_S = 15
SESSION: dict[str, object] = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
    "apply_account_settings": True,
    "interval": "1m",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="let it run so long")
    options = parser.parse_args(arguments)
    if not PROMETHEUS:
        print("skipped: Prometheus is not installed (Debian: apt-get install prometheus)")
        return 0
    told = ask_installation(options.minutes)
    for one in told:
        rows = ", ".join(_shown(labels, value) for labels, value in one.rows[:5])
        print(
            f"{one.kind:<7} {one.name[:60]:<60} {len(one.rows):>4}  {one.problem or 'ok'}  {rows}"
        )
    bad = [one for one in told if one.problem]
    print(f"{len(told)} questions, {len(bad)} not ok")
    return 1 if bad else 0


def ask_installation(minutes: float) -> list[Told]:
    """What a Prometheus says of an installation that has run for so long; nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="aifap-prometheus-"))
    stack = Standalone(StandaloneOptions(folder / "up", free_port(), workers=2, speed=1.0), print)
    try:
        stack.start()
        client = PlatformClient(stack.api_url, stack.first_user("me") or "")
        client.post("/command/run-system", SESSION)
        settings = stack.reload_settings()
        urls = (stack.api_url, settings.gateway_url, settings.market_url)
        token = mint_grant(scrape_grant("prometheus"), settings.secret("token_key"))
        addresses = [url.removeprefix("http://") for url in urls]
        with prometheus(folder, addresses, token, SCRAPE_S) as server:
            server.wait(len(urls))
            time.sleep(minutes * 60)
            unread = [Told("target", one, [], "was not read") for one in server.unscraped()]
            return unread + ask_everything(server, f"{5 * SCRAPE_S}s")
    finally:
        stack.stop()
        shutil.rmtree(folder)


def _shown(labels: dict[str, str], value: str) -> str:
    return ",".join(labels.values()) + f" {value[:8]}".rjust(2)


if __name__ == "__main__":
    sys.exit(main())
