"""`/command`: sessions are started once, seen by their owners, ended as asked."""

from __future__ import annotations

import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from module.db.repositories.users import Role, UserRecord
from module.model.accounts import MarginMode, TradeEnv
from module.model.errors import Conflict, OutcomeUnknown, Unavailable
from module.model.market import MarketType
from module.model.sessions import DesiredState, EndState, SessionState, TradeMode
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.platform import FakePlatform, fake_platform
from tests.fakes.serving import served
from trading.rebalancing_strategy import policy_of

SEED_FIELDS = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}
RUN = "/command/run-system"


def fresh(platform: FakePlatform, role: Role = Role.TRADER) -> tuple[UserRecord, AsgiClient]:
    return platform.person(f"person-{datetime.now(UTC).timestamp()}".replace(".", "-"), role)


def start(client: AsgiClient, **changes: object) -> Any:
    answer = client.post(RUN, {**SEED_FIELDS, **changes})
    assert answer.status == 200, answer.body
    return answer.json()


def test_the_seeds_four_fields_start_a_paper_session(platform: FakePlatform) -> None:
    user, client = fresh(platform)

    answer = start(client)

    session_id = answer["session_id"]
    assert answer["message"] == f"AIFAP-BT running (session ID: {session_id})"
    assert answer["dashboard_url"].endswith(f"/dashboard/#session={session_id}")
    assert platform.launcher.started == [session_id]
    record = platform.doors.sessions.get(session_id)
    assert record.state is SessionState.STARTING
    assert record.desired is DesiredState.RUNNING
    spec = record.spec
    assert spec.owner_id == user.user_id
    assert (spec.market, spec.trade_env) == (MarketType.FUTURES, TradeEnv.PAPER)
    assert spec.trade_mode is TradeMode.REBALANCING
    assert (spec.interval, spec.leverage) == (timedelta(minutes=5), Decimal(1))
    assert (spec.threshold, spec.margin_mode) == (Decimal("0.01"), MarginMode.CROSSED)
    assert spec.ends_at - spec.started_at == timedelta(hours=720)
    assert spec.on_end is EndState.PROTECTED
    assert platform.doors.accounts.get(spec.account_id).initial_balance == Decimal(10_000)


def test_every_optional_field_arrives_exactly(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    body = (
        '{"tradeType":"futures","strategy_name":"equal_weight","trade_mode":"volatility_targeting",'
        '"trade_env":"paper","interval":"15m","leverage":3,"margin_mode":"isolated",'
        '"allocated":1234.567890123456789,"compounding":true,"threshold":0.025,"trading_hours":1.5,'
        '"default_stop_loss_pct":"2.5","target_volatility":0.4,"on_end":"flat",'
        '"apply_account_settings":true,"adopt_existing":true,"config":{"gross":0.5},"cycles":3,'
        '"threshold_relative":0.1,"no_trade_band":"1.25","turnover_max":0.35}'
    )

    answer = client.call("POST", RUN, raw=body.encode())

    assert answer.status == 200, answer.body
    spec = platform.doors.sessions.get(answer.json()["session_id"]).spec
    assert spec.allocated == Decimal("1234.567890123456789")
    assert spec.threshold == Decimal("0.025")
    assert (spec.threshold_relative, spec.no_trade_band, spec.turnover_max) == (
        Decimal("0.1"),
        Decimal("1.25"),
        Decimal("0.35"),
    )
    policy = policy_of(spec)
    assert (policy.threshold_relative, policy.no_trade_band, policy.turnover_max) == (
        spec.threshold_relative,
        spec.no_trade_band,
        spec.turnover_max,
    )
    view = client.get(f"/command/sessions/{spec.session_id}").json()
    assert [view[name] for name in ("threshold_relative", "no_trade_band", "turnover_max")] == [
        "0.1",
        "1.25",
        "0.35",
    ]
    assert spec.default_stop_loss_pct == Decimal("2.5")
    assert spec.ends_at - spec.started_at == timedelta(minutes=90)
    assert spec.config == {"gross": 0.5}
    assert (spec.leverage, spec.cycles_max) == (Decimal(3), 3)
    assert spec.on_end is EndState.FLAT
    assert spec.compounding
    assert spec.apply_account_settings
    assert spec.adopt_existing


def test_a_spot_session_starts_on_a_spot_account_at_leverage_one(platform: FakePlatform) -> None:
    user, client = fresh(platform)
    spot = platform.gateway.put(user.user_id, "spot", MarketType.SPOT, TradeEnv.PAPER, None)
    body = {**SEED_FIELDS, "tradeType": "spot"}
    answer = client.post(RUN, body)
    assert answer.status == 200, answer.body
    spec = platform.doors.sessions.get(answer.json()["session_id"]).spec
    assert (spec.market, spec.account_id, spec.leverage) == (MarketType.SPOT, spot, Decimal(1))
    refused = client.post(RUN, {**body, "leverage": 2})
    assert refused.status == 422
    assert "leverage: must be 1 on spot" in str(refused.json())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tradeType", "options"),
        ("trade_mode", "hodl"),
        ("trade_env", "moon"),
        ("interval", "7m"),
        ("interval", "30s"),
        ("interval", 300),
        ("leverage", 0),
        ("leverage", 126),
        ("leverage", "2.5"),
        ("leverage", True),
        ("threshold", 0.51),
        ("threshold", -0.01),
        ("threshold", "1e-2"),
        ("threshold_relative", 0),
        ("threshold_relative", "1.01"),
        ("no_trade_band", 0),
        ("no_trade_band", "10.5"),
        ("no_trade_band", True),
        ("turnover_max", 0),
        ("turnover_max", "2.1"),
        ("allocated", 0),
        ("allocated", "NaN"),
        ("trading_hours", 0),
        ("cycles", 0),
        ("cycles", "3"),
        ("compounding", "yes"),
        ("config", [1]),
        ("default_stop_loss_pct", 100),
        ("account_id", "../../etc"),
        ("strategy_name", "../momentum"),
        ("strategy_name", "no_such_strategy"),
    ],
)
def test_a_field_out_of_bounds_is_named_and_nothing_starts(
    platform: FakePlatform, field: str, value: object
) -> None:
    _, client = fresh(platform)

    answer = client.post(RUN, {**SEED_FIELDS, field: value})

    assert answer.status in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] in ("invalid-input", "not-found")
    assert field.partition("_")[0] in problem["detail"]
    assert platform.launcher.started == []


def test_S12_unknown_fields_are_refused(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    for extra in ("owner_id", "role", "leverage_cap", "session_id", "trade_type"):
        answer = client.post(RUN, {**SEED_FIELDS, extra: "x"})
        assert answer.status == 422
        assert answer.json()["errors"] == [{"field": extra, "message": "there is no such field"}]


def test_an_account_of_another_market_or_environment_is_refused(platform: FakePlatform) -> None:
    user, client = fresh(platform)
    live = platform.gateway.put(user.user_id, "live", MarketType.FUTURES, TradeEnv.LIVE, None)
    spot = platform.gateway.put(user.user_id, "spot", MarketType.SPOT, TradeEnv.PAPER, None)
    for account_id in (live, spot):
        answer = client.post(RUN, {**SEED_FIELDS, "account_id": account_id})
        assert answer.status == 422, answer.body
    stranger, _ = fresh(platform)
    other = platform.gateway.put(
        stranger.user_id, "theirs", MarketType.FUTURES, TradeEnv.PAPER, None
    )
    assert client.post(RUN, {**SEED_FIELDS, "account_id": other}).status == 404


def test_several_matching_accounts_must_be_told_apart(platform: FakePlatform) -> None:
    user, client = fresh(platform)
    ids = [
        platform.gateway.put(user.user_id, name, MarketType.FUTURES, TradeEnv.PAPER, None)
        for name in ("one", "two")
    ]

    answer = client.post(RUN, SEED_FIELDS)

    assert answer.status == 422
    assert all(account_id in answer.json()["detail"] for account_id in ids)
    assert start(client, account_id=ids[1])["session_id"]


def test_a_live_account_is_never_made_up(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    answer = client.post(RUN, {**SEED_FIELDS, "trade_env": "live"})
    assert answer.status == 422
    assert platform.gateway.opened == 0


def test_a_second_session_on_an_account_is_refused_and_the_first_is_named(
    platform: FakePlatform,
) -> None:
    _, client = fresh(platform)
    first = start(client)["session_id"]

    answer = client.post(RUN, SEED_FIELDS)

    assert answer.status == 409
    assert first in answer.json()["detail"]
    assert platform.launcher.started == [first]


def test_a_session_that_is_over_frees_its_account(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    first = start(client)["session_id"]
    platform.doors.sessions.set_state(first, SessionState.ENDED, datetime.now(UTC))
    assert start(client)["session_id"] != first


def test_O1_fifty_identical_requests_under_one_key_are_one_session(platform: FakePlatform) -> None:
    _, client = fresh(platform)

    def ask(_: int) -> tuple[int, bytes]:
        answer = client.post(RUN, SEED_FIELDS, Idempotency_Key="once-7")
        return answer.status, answer.body

    with ThreadPoolExecutor(25) as pool:
        answers = set(pool.map(ask, range(50)))

    assert len(answers) == 1
    status, body = answers.pop()
    assert status == 200
    assert platform.launcher.started == [json.loads(body)["session_id"]]


def test_O1_fifty_requests_without_a_key_are_one_session_too(platform: FakePlatform) -> None:
    _, client = fresh(platform)

    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda _: client.post(RUN, SEED_FIELDS), range(50)))

    statuses = [answer.status for answer in answers]
    assert statuses.count(200) == 1
    assert statuses.count(409) == 49
    assert len(platform.launcher.started) == 1
    assert platform.gateway.opened == 1


def test_S54_a_key_with_another_body_is_a_conflict_and_keys_of_two_people_never_meet(
    platform: FakePlatform,
) -> None:
    _, client = fresh(platform)
    _, other = fresh(platform)
    mine = client.post(RUN, SEED_FIELDS, Idempotency_Key="shared").json()

    changed = client.post(RUN, {**SEED_FIELDS, "leverage": 2}, Idempotency_Key="shared")
    theirs = other.post(RUN, SEED_FIELDS, Idempotency_Key="shared").json()

    assert changed.status == 409
    assert changed.json()["code"] == "conflict"
    assert theirs["session_id"] != mine["session_id"]


def test_a_refused_request_leaves_its_key_free(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    platform.gateway.failure = Unavailable("the gateway cannot be reached; nothing was sent")
    assert client.post(RUN, SEED_FIELDS, Idempotency_Key="k").status == 503
    platform.gateway.failure = None
    assert client.post(RUN, SEED_FIELDS, Idempotency_Key="k").status == 200


def test_O6_a_router_that_died_between_is_continued_with_the_same_session(
    platform: FakePlatform,
) -> None:
    user, client = fresh(platform)
    body = json.dumps(SEED_FIELDS).encode()
    import hashlib

    long_ago = datetime.now(UTC) - timedelta(minutes=2)
    plan = {"session_id": "2611211010-dead"}
    platform.doors.idempotency.reserve(
        user.user_id, "k", hashlib.sha256(body).hexdigest(), plan, long_ago
    )

    answer = client.call("POST", RUN, raw=body, headers={"Idempotency-Key": "k"})

    assert answer.json()["session_id"] == "2611211010-dead"
    again = client.call("POST", RUN, raw=body, headers={"Idempotency-Key": "k"})
    assert again.body == answer.body
    assert platform.launcher.started == ["2611211010-dead"]


def test_a_launcher_that_fails_leaves_a_failed_session_with_the_reason(
    platform: FakePlatform,
) -> None:
    _, client = fresh(platform)
    platform.launcher.failure = Unavailable("the session host does not answer")

    answer = client.post(RUN, SEED_FIELDS)

    assert answer.status == 503
    assert "Retry-After".lower() in answer.headers
    over = client.get("/command/session-check").json()["over"]
    assert over[0]["state"] == "failed"
    assert "session host does not answer" in over[0]["reason"]
    with pytest.raises(Conflict):
        platform.doors.sessions.take_epoch(over[0]["session_id"])
    platform.launcher.failure = None
    assert start(client)["session_id"]


def test_a_paper_account_whose_answer_was_lost_is_found_again(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    platform.gateway.lose_answer = OutcomeUnknown("the gateway's answer was lost")
    assert start(client)["session_id"]
    assert platform.gateway.opened == 1


def test_sessions_max_is_an_admission_limit(postgres: Settings, tmp_path: Path) -> None:
    running = fake_platform(postgres, tmp_path)
    count = len(running.doors.sessions.active_sessions())
    running.close()
    platform = fake_platform(postgres, tmp_path, sessions_max=count + 1)
    _, client = fresh(platform)
    _, other = fresh(platform)
    start(client)
    answer = other.post(RUN, SEED_FIELDS)
    platform.close()
    assert answer.status == 429
    assert answer.headers["retry-after"] == "60"


def test_session_check_shows_ones_own_and_a_supervisor_all(platform: FakePlatform) -> None:
    user, client = fresh(platform)
    _, stranger = fresh(platform)
    _, supervisor = fresh(platform, Role.SUPERVISOR)
    session_id = start(client)["session_id"]
    epoch = platform.doors.sessions.take_epoch(session_id)
    wall = datetime.now(UTC) - timedelta(seconds=3)
    platform.doors.sessions.heartbeat(session_id, epoch, wall)

    (mine,) = client.get("/command/session-check").json()["sessions"]

    assert mine["session_id"] == session_id
    assert (mine["state"], mine["desired"], mine["cycle"]) == ("starting", "running", 0)
    assert 3 <= mine["heartbeat_age_s"] < 60
    assert mine["account"] == "paper-futures"
    assert mine["strategy_name"] == "momentum"
    assert stranger.get("/command/session-check").json()["sessions"] == []
    seen = supervisor.get("/command/session-check").json()["sessions"]
    assert session_id in [view["session_id"] for view in seen]
    assert next(v for v in seen if v["session_id"] == session_id)["owner_id"] == user.user_id


def test_a_bare_get_terminate_means_protected(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    session_id = start(client, on_end="flat")["session_id"]

    answer = client.get(f"/command/terminate?session_id={session_id}")

    assert answer.status == 200
    assert answer.json()["mode"] == "protected"
    record = platform.doors.sessions.get(session_id)
    assert (record.desired, record.end_state) == (DesiredState.STOPPED, EndState.PROTECTED)
    assert platform.launcher.stopped == [session_id]


def test_O3_a_flat_that_was_asked_for_stays_however_often_it_is_repeated(
    platform: FakePlatform,
) -> None:
    _, client = fresh(platform)
    session_id = start(client)["session_id"]
    client.post(f"/command/terminate?session_id={session_id}&mode=flat")
    for _ in range(20):
        assert client.get(f"/command/terminate?session_id={session_id}").json()["mode"] == "flat"
    assert platform.doors.sessions.get(session_id).end_state is EndState.FLAT


def test_terminate_is_recorded_even_if_the_host_does_not_answer(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    session_id = start(client)["session_id"]
    platform.launcher.failure = Unavailable("the session host does not answer")

    answer = client.post(f"/command/terminate?session_id={session_id}&mode=flat")

    assert answer.status == 200
    assert answer.json()["delivered"] is False
    assert platform.doors.sessions.get(session_id).desired is DesiredState.STOPPED


def test_O5_wrong_and_ended_sessions_are_typed_refusals(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    assert client.get("/command/terminate?session_id=nonsense").status == 422
    assert client.get("/command/terminate?session_id=2611211010-aaaa").status == 404
    session_id = start(client)["session_id"]
    platform.doors.sessions.set_state(session_id, SessionState.ENDED, datetime.now(UTC))
    answer = client.get(f"/command/terminate?session_id={session_id}")
    assert answer.status == 409
    assert platform.launcher.stopped == []


def test_a_session_in_detail_shows_what_it_was_asked(platform: FakePlatform) -> None:
    _, client = fresh(platform)
    session_id = start(client, config={"top": 3}, interval="1h")["session_id"]
    detail = client.get(f"/command/sessions/{session_id}").json()
    assert detail["config"] == {"top": 3}
    assert detail["interval_s"] == 3600
    assert detail["cycles"] == []


def test_a_built_in_that_changes_later_stays_readable_as_it_was(platform: FakePlatform) -> None:
    user, client = fresh(platform)
    spec = platform.doors.sessions.get(start(client)["session_id"]).spec
    kept = platform.folder / "strategies" / "built-in" / "momentum" / spec.strategy_digest
    assert (kept / "strategy.py").is_file()
    version = platform.doors.strategies.read_version(
        user.user_id, spec.strategy_name, spec.strategy_digest
    )
    assert "def strategy(context, config_dict)" in version.source


def test_commands_leave_one_audit_row_each(platform: FakePlatform) -> None:
    user, client = fresh(platform)
    session_id = start(client)["session_id"]
    client.get(f"/command/terminate?session_id={session_id}")
    rows = platform.doors.audit.latest(20, user.user_id)
    commands = [(row.action, row.subject) for row in rows if row.subject == session_id]
    assert commands == [("terminate", session_id), ("run-system", session_id)]


@pytest.mark.parametrize("reset", [False, True])
def test_O4_a_client_that_hangs_up_in_mid_request_has_its_session_all_the_same(
    platform: FakePlatform, reset: bool
) -> None:
    user, client = fresh(platform)
    body = json.dumps(SEED_FIELDS).encode()
    head = (
        f"POST {RUN} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {client.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with served() as serve:
        host, _, port = serve(platform.app).removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as line:
            line.sendall(head.encode() + body)
            if reset:  # gone without a word, instead of a proper end
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until = time.monotonic() + 30.0
        while not (listed := client.get("/results/sessions").json()["sessions"]):
            assert time.monotonic() < until, "the command was lost with its client"
            time.sleep(0.05)
    assert [one["strategy_name"] for one in listed] == [SEED_FIELDS["strategy_name"]]
    assert platform.doors.sessions.get(listed[0]["session_id"]).owner_id == user.user_id
