"""A gateway process that is killed while an order is on its way, and the one that comes after."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
import urllib3
from sqlalchemy import select

from module.db.embedded import EmbeddedPostgres
from module.db.platform_tables import WantedStop
from module.model.errors import OutcomeUnknown
from module.model.orders import Outcome, Side, StopPrices
from module.settings import Settings
from tests.integration.gateway.conftest import Installation

pytestmark = pytest.mark.timeout(120)
READY_WITHIN_S = 40


@contextmanager
def gateway_process(settings: Settings) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A gateway of its own, started as an installation starts it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "AIFAP_DATA_DIR": str(settings.data_dir),
        "AIFAP_SERVICES": json.dumps(["gateway"]),
        "AIFAP_SIMULATOR_URL": settings.simulator_url,
        "AIFAP_WORLD_CLOCK": settings.world_clock,
        "AIFAP_MARKET_ID": settings.market_id,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "api.compose", "--port", str(port)],
        cwd=Path(__file__).parents[3],
        env=environment,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(READY_WITHIN_S * 10):
            assert process.poll() is None, "the gateway ended by itself"
            try:
                if urllib3.request("GET", f"{url}/health/live", retries=False).status == 200:
                    break
            except urllib3.exceptions.HTTPError:
                time.sleep(0.1)
        yield url, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        process.wait(timeout=20)


def test_promise_1_and_2_a_gateway_killed_between_sending_and_recording(
    installation: Installation,
) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    stops = StopPrices(installation.price(exchange, "0.9"), installation.price(exchange, "1.1"))
    order = installation.order(Side.BUY, "0.0123", stops=stops)
    installation.gateways.pop().stop()
    with gateway_process(installation.settings) as (url, process):
        installation.simulator.control(
            "POST",
            "faults",
            {"operation": "place-order", "moment": "after", "answer": "honest", "delay_s": 6},
        )
        session = installation.exchange(account_id, url)
        stamp = installation.stamp()
        outcome: list[BaseException] = []

        def submit() -> None:
            try:
                session.submit(stamp, [order])
            except OutcomeUnknown as error:
                outcome.append(error)

        thread = threading.Thread(target=submit)
        thread.start()
        while not _orders_at_the_exchange(installation, account_id):
            time.sleep(0.05)
        process.kill()
        thread.join(30)
    assert [type(error) for error in outcome] == [OutcomeUnknown]
    (row,) = installation.writes(account_id)
    assert (row.client_id, row.outcome) == (order.client_id, None)
    person = installation.by_hand(account_id)
    installation.clock.sleep(1)
    for stop in person.placed_stops():
        person.remove_stop(stop)
    person.close()
    with gateway_process(installation.settings) as (url, _):
        session = installation.exchange(account_id, url)
        installation.clock.sleep(10)
        (position,) = session.snapshot().positions
        assert (position.size, position.stops) == (Decimal("0.0123"), stops)
        (result,) = session.submit(installation.stamp(), [order])
        assert result.outcome is Outcome.ACCEPTED
    assert _orders_at_the_exchange(installation, account_id) == [order.client_id]
    row = installation.writes(account_id)[0]
    assert (row.client_id, row.outcome) == (order.client_id, "accepted")
    with installation.database.read() as reading:
        (wanted,) = reading.execute(
            select(WantedStop).where(WantedStop.account_id == account_id)
        ).scalars()
    assert wanted.stop_loss == stops.stop_loss


def test_E3_a_gateway_killed_while_postgres_is_away_has_forgotten_nothing(
    installation: Installation, postgres_server: EmbeddedPostgres
) -> None:
    account_id = installation.open_account()
    exchange = installation.exchange(account_id)
    stops = StopPrices(installation.price(exchange, "0.9"), installation.price(exchange, "1.1"))
    lower = StopPrices(installation.price(exchange, "0.85"), stops.take_profit)
    installation.gateways.pop().stop()
    opening = installation.order(Side.BUY, "0.03", stops=stops)
    reduction = installation.order(Side.SELL, "0.01", reduce_only=True)
    with gateway_process(installation.settings) as (url, process):
        session = installation.exchange(account_id, url)
        session.submit(installation.stamp(), [opening])
        installation.clock.sleep(1)
        postgres_server.stop()
        try:
            (result,) = session.submit(installation.stamp(), [reduction])
            assert result.outcome is Outcome.ACCEPTED
            assert session.set_stops(installation.stamp(), "BTCUSDT", lower) == lower
            health = _health(url, installation.token(account_id))
            assert (health["status"], health["spooled"] == 0) == ("degraded", False), health
        finally:
            process.kill()
            process.wait(timeout=20)
            postgres_server.start(ends_with_parent=True)
    with gateway_process(installation.settings) as (url, _):
        session = installation.exchange(account_id, url)
        installation.clock.sleep(10)
        (position,) = session.snapshot().positions
        assert (position.size, position.stops) == (Decimal("0.02"), lower)
        health = _health(url, installation.token(account_id))
        assert (health["status"], health["spooled"]) == ("ok", 0), health
    written = [(row.kind, row.client_id, row.outcome) for row in installation.writes(account_id)]
    assert ("order", reduction.client_id, "accepted") in written
    assert ("stops", None, "accepted") in written
    late = [row.request["late_id"] for row in installation.writes(account_id)[1:]]
    assert len(late) == len(set(late)) >= 2
    with installation.database.read() as reading:
        (wanted,) = reading.execute(
            select(WantedStop).where(WantedStop.account_id == account_id)
        ).scalars()
    assert wanted.stop_loss == lower.stop_loss


def _health(url: str, token: str) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {token}"}
    found = urllib3.request("GET", f"{url}/gateway/health", headers=headers).json()
    assert isinstance(found, dict)
    return found


def _orders_at_the_exchange(installation: Installation, account_id: str) -> list[object]:
    orders = installation.ledger(account_id)["orders"]
    assert isinstance(orders, list)
    return [row["clientOid"] for row in orders]
