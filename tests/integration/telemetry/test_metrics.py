"""What `/metrics` of each service says: true numbers, for a scraper alone, and nobody's names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from api.compose import share_counters
from api.wiring import Services
from module.db.database import Database
from module.db.repositories.alerts import AlertRepository
from module.db.repositories.results import ResultsRepository
from module.db.repositories.unprotected_periods import (
    BareCause,
    UnprotectedPeriodRepository,
    begin_period,
)
from module.db.repositories.users import Role
from module.model.sessions import SessionState
from module.ports import Alert, CycleRecord
from module.security.tokens import mint_grant, service_grant, session_grant
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.gateway_rig import GatewayRig, buy
from tests.fakes.market_data import HandClock
from tests.fakes.platform import TOKEN_KEY, FakePlatform, fake_platform
from tests.fakes.result_rows import minute_rows
from tests.integration.telemetry.scrapes import Scrape, scrape, scrape_platform, service_app

pytestmark = pytest.mark.timeout(120)
NOW = datetime.now(UTC).replace(minute=9, second=50, microsecond=0)
"""World time when these installations are first asked."""
SEED_FIELDS: dict[str, object] = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}


@pytest.fixture
def platform(postgres: Settings, tmp_path: Path) -> Iterator[FakePlatform]:
    made = fake_platform(postgres, tmp_path)
    made.app.state.board._installation._clock = HandClock(NOW)
    yield made
    made.close()


def later(platform: FakePlatform, **span: float) -> Scrape:
    """What is told when so much time has passed since NOW."""
    platform.app.state.board._installation._clock = HandClock(NOW + timedelta(**span))
    return scrape_platform(platform)


def session_of(platform: FakePlatform) -> str:
    _, client = platform.person(f"person-{uuid.uuid4().hex[:12]}", Role.TRADER)
    return str(client.post("/command/run-system", SEED_FIELDS).json()["session_id"])


def running(platform: FakePlatform, session_id: str) -> int:
    """The session trades from now on; its epoch."""
    sessions, now = platform.doors.sessions, NOW
    epoch = sessions.take_epoch(session_id)
    sessions.set_state(session_id, SessionState.RUNNING, now, epoch=epoch)
    sessions.heartbeat(session_id, epoch, now - timedelta(seconds=90))
    return epoch


def change(scrapes: tuple[Scrape, Scrape], name: str, **labels: str) -> float:
    before, after = scrapes
    return after.value(name, **labels) - before.value(name, **labels)


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (None, 401),
        ("aifap_" + "A" * 43, 401),
        (mint_grant(session_grant("a", "2611211130-ab3x", "o"), TOKEN_KEY), 403),
        (mint_grant(service_grant("platform"), TOKEN_KEY), 200),
    ],
    ids=["nobody", "a person", "a session", "a service"],
)
def test_S11_metrics_are_for_scrapers(
    platform: FakePlatform, token: str | None, status: int
) -> None:
    assert AsgiClient(platform.app, token).get("/metrics").status == status


def test_S12_a_scrapers_token_opens_nothing_else(tmp_path: Path) -> None:
    from tests.integration.telemetry.scrapes import SCRAPER

    rig = GatewayRig()
    app = service_app(tmp_path, Services(gateway=rig.gateway), "gateway", rig.clock)
    client = AsgiClient(app, SCRAPER)
    assert client.get("/gateway/accounts/acc/snapshot").status == 403
    assert client.post("/gateway/paper-accounts", {}).status == 403
    assert client.get("/gateway/state").status == 403
    assert client.get("/gateway/health").status == 403


def test_requests_are_counted_by_route_and_never_by_what_they_name(
    platform: FakePlatform,
) -> None:
    session_id = session_of(platform)
    _, client = platform.person(f"person-{uuid.uuid4().hex[:12]}")
    scrape_platform(platform)
    for path in ("/auth/whoami", f"/command/sessions/{session_id}", f"/x{uuid.uuid4()}"):
        client.get(path)
    AsgiClient(platform.app, headers={"host": "evil.example"}).get("/auth/whoami")
    client.call("BREW", "/auth/whoami")
    after = scrape_platform(platform)
    name = "aifap_http_requests_total"
    assert after.value(name, route="/auth/whoami", method="GET", status="2xx") == 1
    assert after.value(name, route="/command/sessions/{session_id}", status="4xx") == 1
    assert after.value(name, route="unmatched", method="GET", status="4xx") == 2
    assert after.value("aifap_http_request_seconds_count", route="/auth/whoami", method="GET") == 1
    assert after.value(name, route="/metrics", status="2xx") == 1
    assert after.value(name, method="OTHER", status="4xx") == 1
    assert session_id not in after.text


def test_the_installation_is_told_from_postgres(platform: FakePlatform) -> None:
    session_id = session_of(platform)
    epoch = running(platform, session_id)
    before = scrape_platform(platform)
    sessions, now = platform.doors.sessions, NOW
    boundary, ended_at = now - timedelta(seconds=60), now + timedelta(seconds=20)
    cycle = CycleRecord(
        session_id, boundary, 1, "done", "", boundary, ended_at, 137.0, None, None, None
    )  # fmt: skip
    sessions.record_cycle(epoch, cycle)
    late = replace(cycle, boundary=boundary - timedelta(minutes=5), number=2, state="skipped")
    sessions.record_cycle(epoch, replace(late, own_ms=None))
    before_us = replace(cycle, boundary=boundary + timedelta(seconds=1), number=3)
    hour_ago = now - timedelta(hours=1)
    sessions.record_cycle(epoch, replace(before_us, ended_at=hour_ago))  # before we counted
    account = sessions.get(session_id).account_id
    finplatform = platform.databases[0]
    UnprotectedPeriodRepository(finplatform).put(
        [begin_period(account, "BTCUSDT", now, BareCause.REMOVED)]
    )
    alert = Alert("x", "warning", "t", (), f"c-{uuid.uuid4()}", None, None, now)
    AlertRepository(finplatform).add(alert, ("slack",), now - timedelta(seconds=400))
    after = later(platform, seconds=80)
    both = (before, after)
    paper = {"state": "running", "market": "futures", "trade_env": "paper"}
    assert after.value("aifap_sessions", **paper) >= 1
    assert 80 <= after.value("aifap_sessions_heartbeat_age_seconds") <= 300
    assert change(both, "aifap_cycles_ended_total", outcome="done") == 1
    assert change(both, "aifap_cycles_ended_total", outcome="skipped") == 1
    assert change(both, "aifap_cycle_own_seconds_bucket", le="0.25") == 1
    assert change(both, "aifap_cycle_own_seconds_bucket", le="0.1") == 0
    assert change(both, "aifap_cycle_own_seconds_sum") == pytest.approx(0.137)
    assert change(both, "aifap_unprotected_periods_open") == 1
    assert after.value("aifap_alert_oldest_seconds") >= 400
    assert after.value("aifap_alert_deliveries", channel="slack", state="pending") >= 1
    assert after.value("aifap_postgres_up", database="finwatcher") == 1
    assert session_id not in after.text
    assert account not in after.text


def test_first_and_last_orders_of_cycles_are_measured_from_their_boundary(
    platform: FakePlatform,
) -> None:
    from sqlalchemy import text

    session_id = session_of(platform)
    epoch = running(platform, session_id)
    before = scrape_platform(platform)
    now = NOW
    boundary, ended_at = now - timedelta(seconds=10), now + timedelta(seconds=20)
    with platform.databases[0].transaction() as session:
        for seconds, kind in ((0.2, "stops"), (0.7, "order"), (3.0, "order"), (-9.0, "order")):
            session.execute(
                text(
                    "INSERT INTO gateway_writes (account_id, session_id, epoch, kind, client_id, "
                    "symbol, request, sent_at) VALUES (:a, :s, 1, :k, :c, 'BTCUSDT', '{}', :t)"
                ),
                {
                    "a": str(uuid.uuid4()),
                    "s": session_id,
                    "k": kind,
                    "c": uuid.uuid4().hex,
                    "t": boundary + timedelta(seconds=seconds),
                },
            )
    cycle = CycleRecord(
        session_id, boundary, 1, "done", "", boundary, ended_at, 50.0, None, None, None
    )  # fmt: skip
    platform.doors.sessions.record_cycle(epoch, cycle)
    both = (before, later(platform, seconds=80))
    assert change(both, "aifap_cycle_first_order_seconds_sum") == pytest.approx(0.7)
    assert change(both, "aifap_cycle_last_order_seconds_sum") == pytest.approx(3.0)
    assert change(both, "aifap_cycle_last_order_seconds_count") == 1


def test_I5_a_session_that_nobody_measures_is_behind(platform: FakePlatform) -> None:
    from sqlalchemy import text

    before = scrape_platform(platform).value("aifap_finwatcher_sessions_behind")
    now = NOW
    names = [session_of(platform), session_of(platform)]
    for name in names:
        running(platform, name)
    minutes = {names[0]: now - timedelta(seconds=70), names[1]: now - timedelta(seconds=200)}
    with platform.databases[0].transaction() as session:
        session.execute(
            text("UPDATE active_sessions SET started_at = :t WHERE session_id = ANY(:ids)"),
            {"t": now - timedelta(hours=1), "ids": names},
        )
    with platform.databases[1].transaction() as session:
        for name, minute in minutes.items():
            session.execute(
                text("INSERT INTO finwatcher_state VALUES (:s, :m, '{}')"), {"s": name, "m": minute}
            )
        session.execute(
            text(
                "INSERT INTO result_gaps_1min (session_id, minute, owner_id, cause, detail, "
                "recorded_at) VALUES (:s, :m, 'o', :c, '', :m)"
            ),
            [
                {"s": names[0], "m": now + timedelta(seconds=10), "c": "exchange-unreachable"},
                {"s": names[1], "m": now + timedelta(seconds=10), "c": "of another version"},
            ],
        )
    assert scrape_platform(platform).value("aifap_finwatcher_sessions_behind") - before == 1
    told = later(platform, minutes=4)
    assert told.value("aifap_finwatcher_gaps_total", cause="exchange-unreachable") == 1
    assert told.value("aifap_finwatcher_gaps_total", cause="other") == 1
    assert told.value("aifap_finwatcher_gaps_total", cause="spool-full") == 0


def test_E2_counters_never_fall_and_count_what_comes_late_once(platform: FakePlatform) -> None:
    """Through an hour's end, with a cycle that is recorded a quarter of an hour after its end, and
    minutes out of a spool."""
    session_id = session_of(platform)
    epoch = running(platform, session_id)
    day_s = 20 * 3600  # away from what other tests of this file have recorded
    begin = NOW + timedelta(seconds=day_s)
    first = later(platform, seconds=day_s)
    boundary = begin - timedelta(seconds=60)
    cycle = CycleRecord(
        session_id, boundary, 1, "done", "", boundary, begin + timedelta(seconds=9), 137.0, None,
        None, None,
    )  # fmt: skip
    platform.doors.sessions.record_cycle(epoch, cycle)
    rows = minute_rows(session_id, begin.replace(second=0) + timedelta(minutes=1), 1)
    told = [first]
    for minutes in (1, 10, 14, 25, 61, 400):
        if minutes == 14:
            late = replace(cycle, boundary=boundary + timedelta(seconds=1), number=2)
            platform.doors.sessions.record_cycle(epoch, late)
            ResultsRepository(platform.databases[1]).store_minutes([(rows, {})])
        told.append(later(platform, seconds=day_s + 60 * minutes))
    done = [each.value("aifap_cycles_ended_total", outcome="done") for each in told]
    assert done == [0, 1, 1, 1, 2, 2, 2]
    measured = [each.value("aifap_finwatcher_measured_total", market="futures") for each in told]
    assert measured == [0, 0, 0, 0, 0, 1, 1]


def test_E1_without_postgres_metrics_say_so_and_tell_the_rest(
    postgres: Settings, tmp_path: Path
) -> None:
    nowhere = postgres.model_copy(update={"database_host": "127.0.0.1", "database_port": 9})
    platform = fake_platform(nowhere, tmp_path)
    told = scrape(platform.app)
    platform.close()
    assert told.value("aifap_postgres_up", database="finplatform") == 0
    assert told.value("aifap_postgres_up", database="finwatcher") == 0
    assert "aifap_sessions" not in told.families
    assert told.value("aifap_data_size_bytes") > 0


def test_the_gateway_tells_its_protection(tmp_path: Path) -> None:
    rig = GatewayRig()
    app = service_app(tmp_path, Services(gateway=rig.gateway), "gateway", rig.clock)
    rig.gateway.submit("acc", rig.stamp(), [buy()])
    told = scrape(app)
    assert told.value("aifap_gateway_orders_total", outcome="accepted") == 1
    assert told.value("aifap_protection_alive") == 0
    assert told.value("aifap_gateway_leases_held") == 1
    assert told.value("aifap_exchange_circuits_not_closed", endpoints="trade") == 0
    assert Decimal(str(told.value("aifap_unprotected_positions"))) == 0


def test_the_first_failure_is_a_step_from_zero(platform: FakePlatform, tmp_path: Path) -> None:
    """No rate sees a line that begins with one."""
    rig = GatewayRig()
    app = service_app(tmp_path, Services(gateway=rig.gateway), "gateway", rig.clock)
    scrape(app)
    told = scrape(app)
    assert told.value("aifap_http_requests_total", route="/metrics", status="5xx") == 0
    assert told.value("aifap_http_requests_total", route="/metrics", status="2xx") == 1
    for outcome in ("answered", "limited", "failed", "lost"):
        assert told.value("aifap_exchange_requests_total", outcome=outcome) == 0
    rig.gateway._budget.counts.took("place", "lost", 0.2)
    assert scrape(app).value("aifap_exchange_requests_total", outcome="lost") == 1
    told = scrape_platform(platform)
    assert told.value("aifap_alert_deliveries", channel="discord", state="dead") == 0


_WORKER = """
import json, os, sys
from api.telemetry.requests import RequestMetrics, spell
from module.clock import SystemClock
metrics = RequestMetrics(SystemClock())
metrics.answered.labels("/users", "GET", "2xx").inc(float(sys.argv[1]))
metrics.seconds.labels("/users", "GET").observe(0.02)
metrics.under_way.inc()
print(json.dumps(spell([metrics.registry()]).decode()), flush=True)
os.kill(os.getpid(), 9)
"""


def test_D2_workers_count_together_and_one_that_died_stays_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "counter_1.db").write_bytes(b"of the service that was here before")
    share_counters(folder)
    assert list(folder.iterdir()) == []
    said = [
        subprocess.run(
            [sys.executable, "-c", _WORKER, number],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            check=False,
            capture_output=True,
            timeout=60,
        ).stdout
        for number in ("3", "4")
    ]
    told = Scrape(json.loads(said[-1]))
    assert told.value("aifap_http_requests_total", route="/users", status="2xx") == 7
    assert told.value("aifap_http_request_seconds_count", route="/users") == 2
    assert told.value("aifap_http_requests_under_way") == 1, "the dead one's ended with it"


def test_two_scrapes_within_a_second_ask_postgres_once(platform: FakePlatform) -> None:
    installation = platform.app.state.board._installation
    scrape_platform(platform)
    installation._kept_until_s = float("inf")
    kept = installation.families()
    assert installation.families() is kept
    database: Database = platform.databases[0]
    assert database.name == "finplatform"
