"""Each process killed with SIGKILL in the middle of its work: nothing lost, no order twice.

The strategy turns its book over in every cycle, so that a kill meets orders on their way. The judge
is the exchange's own ledger.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from datetime import timedelta

import psutil
import pytest

from module.db.embedded import EmbeddedPostgres
from module.launch.host_protocol import ask_host, host_socket_path
from module.model.errors import AifapError
from tests.e2e.installation import Installation, kill, pid_listening_at

pytestmark = pytest.mark.timeout(240)

TURNING = """
def strategy(context, config_dict):
    at = int(context.current_dt.timestamp())
    sign = 1 if (at - config_dict["first_s"]) // 60 % 2 else -1
    prices = context.get_history(
        ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"], window=3, frequency="1m", fields="close"
    ).iloc[-1]
    result = {}
    for place, symbol in enumerate(prices.index):
        away = sign if place % 2 else -sign
        result[symbol] = {
            "weight": 0.2 * away,
            "presetStopLossPrice": prices[symbol] * (1 - .2 * away),
        }
    return result
"""
CYCLES_AFTER = 3
_numbers = itertools.count(1)


def of_role(role: str) -> Callable[[Installation, str], int]:
    def find(installation: Installation, session: str) -> int:
        identity = installation.processes(session).alive(role)
        assert identity is not None, f"no {role} runs"
        return identity.pid

    return find


def gateway(installation: Installation, _session: str) -> int:
    return pid_listening_at(installation.stack.settings.gateway_url)


def market(installation: Installation, _session: str) -> int:
    return pid_listening_at(installation.stack.settings.market_url)


def simulator(installation: Installation, _session: str) -> int:
    return pid_listening_at(installation.stack.settings.simulator_url)


def router(installation: Installation, _session: str) -> int:
    for _ in range(50):
        # The one that was killed before may still stand in the table of sockets.
        with contextlib.suppress(psutil.NoSuchProcess, AssertionError):
            worker = psutil.Process(pid_listening_at(installation.stack.api_url))
            parent = worker.parent()
            if parent is not None and "api.compose" in " ".join(parent.cmdline()):
                return parent.pid
            return worker.pid
        time.sleep(0.1)
    raise AssertionError("no router listens")


def router_worker(installation: Installation, session: str) -> int:
    parent = psutil.Process(router(installation, session))
    return sorted(parent.children(), key=lambda child: child.create_time())[-1].pid


def host(installation: Installation, _session: str) -> int:
    answer = ask_host(host_socket_path(installation.stack.settings.data_dir), {"op": "ping"})
    return int(str(answer["pid"]))


def runner_host(installation: Installation, session: str) -> int:
    children = psutil.Process(host(installation, session)).children()
    (pid,) = [child.pid for child in children if "trading.runner_host" in child.cmdline()]
    return pid


def postgres(installation: Installation, _session: str) -> int:
    pid = EmbeddedPostgres(installation.stack.settings).pid
    assert pid is not None
    return pid


VICTIMS = {
    "router": router,
    "router_worker": router_worker,
    "host": host,
    "runner_host": runner_host,
    "leader": of_role("leader"),
    "strategy": of_role("strategy"),
    "finwatcher": of_role("finwatcher"),
    "gateway": gateway,
    "market": market,
    "simulator": simulator,
    "postgres": postgres,
}


@pytest.mark.parametrize("name", list(VICTIMS))
def test_D2_a_killed_process_costs_nothing_and_no_order_is_sent_twice(
    installation: Installation, name: str
) -> None:
    installation.upload("turning", TURNING)
    number = next(_numbers)
    account = installation.paper_account(f"kill-{name}")
    session = installation.start(
        account, "turning", timedelta(minutes=1), threshold="0.005", on_end="protected"
    )
    installation.wait_cycles(session, 2)
    time.sleep(0.04 * number)  # at another moment of the cycle for each victim
    kill(VICTIMS[name](installation, session))

    reached = int(installation.calm_view(session)["cycle"])
    installation.wait_cycles(session, reached + CYCLES_AFTER)
    installation.terminate(session, "flat")
    view = installation.wait_over(session)

    assert view["state"] == "ended", view["reason"]
    ledger = installation.ledger(account)
    ids = [order["clientOid"] for order in ledger["orders"]]
    assert len(set(ids)) == len(ids), "a client id stands twice on the exchange"
    sent = installation.sent(session)
    assert sent == {order["clientOid"]: order["orderId"] for order in ledger["orders"]}, (
        "the exchange has an order that our letters do not know, or the reverse"
    )
    assert ledger["positions"] == []
    assert ledger["plans"] == []
    assert installation.leftovers(session) == []
    check_minutes(installation, session)


def check_minutes(installation: Installation, session: str) -> None:
    """Every minute has its row, or a recorded gap with its cause (promise 5)."""
    from module.model.canonical import parse_instant

    rows = installation.client.get(f"/results/{session}/portfolio?limit=2000")["rows"]
    gaps = installation.client.get(f"/results/{session}/gaps?limit=2000")["gaps"]
    assert isinstance(rows, list)
    assert isinstance(gaps, list)
    seen = {row["minute"] for row in rows} | {gap["minute"] for gap in gaps}
    times = sorted(parse_instant(text) for text in seen)
    missing = [
        earlier
        for earlier, later in itertools.pairwise(times)
        if later - earlier != timedelta(minutes=1)
    ]
    assert missing == [], "minutes without a row and without a gap row"
    assert all(gap["cause"] for gap in gaps)


def test_O5_a_session_that_does_not_exist_is_not_found(installation: Installation) -> None:
    with pytest.raises(AifapError) as error:
        installation.view("2601010101-aaaa")
    assert error.value.code == "not-found"
