"""Who may do what: every route declares it, and nobody sees or touches what is somebody else's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from api.dependencies import Policy, RoutePolicy, anybody, check_policies, route_policies
from module.db.repositories.users import Role, UserRecord
from module.files.session_folder import log_path, make_session_folder
from module.model.errors import InvariantViolated, Unauthenticated
from tests.fakes.asgi_client import AsgiClient, CalledAnswer
from tests.fakes.curves import short_document
from tests.fakes.platform import FakePlatform
from tests.fakes.tear_sheets import put_sheet

SEED_FIELDS: dict[str, object] = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}
STREAMS = ("/stream/sessions", "/stream/live")
NAMED_IN_QUERY = ("/command/terminate", "/results/compare")


@dataclass(frozen=True, slots=True)
class Owned:
    """One person with one of everything."""

    user: UserRecord
    client: AsgiClient
    session_id: str
    account_id: str
    token_id: str
    strategy: str
    plan_hash: str = "0" * 64
    job_id: str = "0" * 32


def name_of_now() -> str:
    return f"person-{datetime.now(UTC).timestamp()}".replace(".", "-")


def somebody(platform: FakePlatform, role: Role = Role.TRADER) -> Owned:
    user, client = platform.person(name_of_now(), role)
    session_id = client.post("/command/run-system", SEED_FIELDS).json()["session_id"]
    make_session_folder(platform.folder, session_id)
    log_path(platform.folder, session_id, "leader").write_text(f"{session_id} secret line\n")
    account_id = platform.doors.sessions.get(session_id).account_id
    token = client.post("/auth/tokens", {"label": "spare"}).json()
    client.post(
        "/upload/strategies", {"name": "mine", "source": "def strategy(a, b):\n    return {}\n"}
    )
    plan = client.post("/temp/preview", {"account_id": account_id, "weights": {}}).json()
    plan_hash = plan["plan_hash"]
    job_id = put_sheet(platform, user.user_id)
    return Owned(user, client, session_id, account_id, token["token_id"], "mine", plan_hash, job_id)


def calls(platform: FakePlatform) -> list[tuple[RoutePolicy, str]]:
    return [
        (route, method)
        for route in route_policies(platform.app)
        for method in route.methods
        if method not in ("HEAD", "OPTIONS")
    ]


BODIES: dict[str, dict[str, object]] = {
    "/command/run-system": SEED_FIELDS,
    "/command/halt": {},
    "/command/resume": {},
    "/upload/strategies": {"name": "mine", "source": "def strategy(a, b):\n    return {}\n"},
    "/auth/tokens": {"label": "made"},
    "/temp/preview": {"weights": {}},
    "/users": {"name": "made"},
    "/users/{user_id}": {"active": True},
    "/users/{user_id}/tokens": {"label": "made"},
    "/accounts/paper": {"label": "made"},
    "/accounts/{account_id}/deposits": {"amount": 7},
    "/analysis/tear-sheets": {"curve": short_document(["100", "101"])},
    "/accounts": {
        "label": "real",
        "market": "futures",
        "trade_env": "live",
        "api_key": "k",
        "api_secret": "s",
        "passphrase": "p",
    },
    "/accounts/{account_id}": {"label": "renamed"},
    "/accounts/{account_id}/credentials": {"api_key": "k", "api_secret": "s", "passphrase": "p"},
}


def ask(client: AsgiClient, route: RoutePolicy, method: str, owned: Owned) -> CalledAnswer:
    path = (
        route.path.replace("{session_id}", owned.session_id)
        .replace("{account_id}", owned.account_id)
        .replace("{token_id}", owned.token_id)
        .replace("{user_id}", owned.user.user_id)
        .replace("{plan_hash}", owned.plan_hash)
        .replace("{part}", "leader")
        .replace("{job_id}", owned.job_id)
        .replace("{cycle}", "latest")
        .replace("{name}", "index.html" if "dashboard" in route.path else owned.strategy)
    )
    if route.path == "/command/terminate":
        path += f"?session_id={owned.session_id}"
    if route.path == "/results/compare":
        path += f"?session={owned.session_id}"
    bodies = {**BODIES, "/temp/execute": {"plan_hash": owned.plan_hash}}
    body = bodies.get(route.path) if method in ("POST", "PATCH", "PUT") else None
    return client.call(method, path, document=body)


def test_S11_every_route_declares_a_policy(platform: FakePlatform) -> None:
    found = {route.path: route.policy for route in route_policies(platform.app)}
    assert None not in found.values()
    assert {path for path, policy in found.items() if policy is Policy.PUBLIC} == {
        "/",
        "/dashboard",
        "/dashboard/",
        "/dashboard/{name}",
        "/health/live",
        "/health/ready",
    }
    assert {path for path, policy in found.items() if policy is Policy.SCRAPE} == {"/metrics"}
    assert {path for path, policy in found.items() if policy is Policy.SUPERVISOR} == {
        "/users",
        "/users/{user_id}",
        "/users/{user_id}/tokens",
        "/openapi.json",
    }


def test_S11_an_application_with_a_silent_route_is_not_built() -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/declared", dependencies=[Depends(anybody)])
    def declared() -> str:
        return ""

    check_policies(app)

    @app.get("/silent")
    def silent() -> str:
        return ""

    with pytest.raises(InvariantViolated, match="/silent"):
        check_policies(app)


def test_S11_S45_no_hidden_doors(platform: FakePlatform) -> None:
    _, client = platform.person(name_of_now())
    for path in ("/docs", "/redoc", "/openapi.json", "/debug", "/temp", "/admin"):
        assert platform.anonymous.get(path).status in (401, 404)
        assert client.get(path).status in (403, 404)


def test_S10_S11_without_a_token_only_public_routes_answer(platform: FakePlatform) -> None:
    owned = somebody(platform)
    for route, method in calls(platform):
        answer = ask(platform.anonymous, route, method, owned)
        if route.policy is Policy.PUBLIC:
            assert answer.status in (200, 307), route
        else:
            assert answer.status == 401, route
            assert answer.json()["code"] == "unauthenticated"
            assert answer.headers["www-authenticate"] == "Bearer"


def test_S11_a_trader_is_forbidden_what_is_the_supervisors(platform: FakePlatform) -> None:
    owned = somebody(platform)
    manager = somebody(platform, Role.MANAGER)
    for route, method in calls(platform):
        if route.policy is Policy.SUPERVISOR:
            for person in (owned, manager):
                assert ask(person.client, route, method, person).status == 403, route
    for path in ("/users", "/command/session-check"):
        for method in ("PUT", "TRACE", "PROPFIND"):
            assert owned.client.call(method, path).status == 405


def test_S10_the_matrix_somebody_elses_things_are_not_found(platform: FakePlatform) -> None:
    owned = somebody(platform)
    stranger = somebody(platform)
    missing = Owned(
        owned.user,
        owned.client,
        "2611211010-zzzz",
        "00000000-0000-4000-8000-000000000000",
        "0" * 16,
        "nothing",
    )
    tried = 0
    for route, method in calls(platform):
        names_a_thing = "{" in route.path or route.path in NAMED_IN_QUERY
        if not names_a_thing or route.policy is not Policy.USER:
            continue
        tried += 1
        foreign = Owned(
            owned.user,
            owned.client,
            owned.session_id,
            owned.account_id,
            owned.token_id,
            "nothing",
            owned.plan_hash,
            owned.job_id,
        )
        seen = ask(stranger.client, route, method, foreign)
        absent = ask(stranger.client, route, method, missing)
        assert seen.status == 404, (route, seen.body)
        # Existing and absent things cannot be told apart, but for the name that was asked for.
        assert (seen.status, set(seen.json())) == (absent.status, set(absent.json()))
        assert b"secret line" not in seen.body
    assert tried >= 14
    record = platform.doors.sessions.get(owned.session_id)
    assert record.desired == "running"
    assert platform.gateway.deposits == []
    rows = platform.doors.audit.latest(200, stranger.user.user_id)
    refused = [row.subject for row in rows if row.action == "refused"]
    assert refused.count(owned.session_id) >= 8
    assert refused.count(owned.account_id) >= 2


def test_S10_the_matrix_ones_own_things_are_there(platform: FakePlatform) -> None:
    owned = somebody(platform)
    for route, method in calls(platform):
        if route.policy is not Policy.USER or route.path in STREAMS or method == "DELETE":
            continue
        answer = ask(owned.client, route, method, owned)
        assert answer.status in (200, 201, 202, 409), (route, answer.body)


def test_a_supervisor_sees_sessions_but_never_trades_with_anothers_account(
    platform: FakePlatform,
) -> None:
    owned = somebody(platform)
    _, supervisor = platform.person(name_of_now(), Role.SUPERVISOR)
    assert supervisor.get(f"/command/sessions/{owned.session_id}").status == 200
    assert supervisor.get(f"/accounts/{owned.account_id}").status == 404
    refused = supervisor.post(
        "/command/run-system", {**SEED_FIELDS, "account_id": owned.account_id}
    )
    assert refused.status == 404


def test_S14_a_token_ends_at_once_when_it_is_revoked_expires_or_its_owner_is_locked_out(
    platform: FakePlatform,
) -> None:
    user, client = platform.person(name_of_now())
    _, supervisor = platform.person(name_of_now(), Role.SUPERVISOR)
    made = client.post("/auth/tokens", {"label": "spare"}).json()
    spare = AsgiClient(platform.app, made["token"])
    assert spare.get("/auth/whoami").status == 200
    assert client.delete(f"/auth/tokens/{made['token_id']}").status == 200
    assert spare.get("/auth/whoami").status == 401

    now = datetime.now(UTC)
    users = platform.doors.users
    short = users.issue_token(user.user_id, "short", now, now + timedelta(seconds=5))
    assert users.authenticate(short.secret, now).user_id == user.user_id
    with pytest.raises(Unauthenticated):
        users.authenticate(short.secret, now + timedelta(seconds=5))

    assert supervisor.patch(f"/users/{user.user_id}", {"active": False}).status == 200
    assert client.get("/auth/whoami").status == 401


def test_S14_a_changed_role_holds_from_the_next_request(platform: FakePlatform) -> None:
    user, client = platform.person(name_of_now())
    _, supervisor = platform.person(name_of_now(), Role.SUPERVISOR)
    assert client.get("/users").status == 403
    supervisor.patch(f"/users/{user.user_id}", {"role": "supervisor"})
    assert client.get("/users").status == 200


@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "x",
        "aifap_",
        "aifap_" + "A" * 43,
        "aifap_" + "A" * 1_000_000,
        "afg1.e30.c2ln",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
        "aifap_' OR '1'='1",
        "aifap_%",
        "aifap_\x7f",
    ],
)
def test_S13_S15_S19_whatever_is_no_token_gets_the_same_answer(
    platform: FakePlatform, token: str
) -> None:
    answer = AsgiClient(platform.app, token).get("/auth/whoami")
    assert answer.status == 401
    assert answer.json()["detail"] in (
        "this token is not valid; use another, or ask your operator for one",
        "send the header Authorization: Bearer <token>",
    )


def test_S33_a_tokens_secret_is_shown_once_and_accounts_show_no_secret(
    platform: FakePlatform,
) -> None:
    user, client = platform.person(name_of_now())
    made = client.post("/auth/tokens", {"label": "spare"}).json()
    added = client.post(
        "/accounts",
        {
            "label": "main",
            "market": "futures",
            "trade_env": "live",
            "api_key": "CANARY-KEY",
            "api_secret": "CANARY-SECRET",
            "passphrase": "CANARY-PHRASE",
        },
    )
    assert added.status == 201
    said = b"".join(
        client.get(path).body
        for path in ("/auth/tokens", "/auth/whoami", "/accounts", "/command/session-check")
    )
    assert made["token"].encode() not in said
    assert b"CANARY" not in said + added.body
    rows = platform.doors.audit.latest(50, user.user_id)
    assert "CANARY" not in str(rows)
    assert made["token"] not in str(rows)
    base_url, credentials, force = platform.gateway.added[-1]
    assert (base_url, force) == ("https://api.bitget.com", False)
    assert credentials.api_secret == "CANARY-SECRET"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://localhost:5432",
        "https://api.bitget.com.evil.example",
        "https://api.bitget.com@evil.example",
        "file:///etc/passwd",
        "https://api.bitget.com/",
        "",
    ],
)
def test_S18_an_address_is_only_ever_one_of_the_installations(
    platform: FakePlatform, url: str
) -> None:
    _, client = platform.person(name_of_now())
    body: dict[str, Any] = {
        "label": "main",
        "market": "futures",
        "trade_env": "live",
        "api_key": "k",
        "api_secret": "s",
        "base_url": url,
    }
    assert client.post("/accounts", body).status == 422
    assert platform.gateway.added == []


def test_S56_tokens_carry_256_random_bits(platform: FakePlatform) -> None:
    user, _ = platform.person(name_of_now())
    now = datetime.now(UTC)
    secrets = {platform.doors.users.issue_token(user.user_id, "x", now).secret for _ in range(50)}
    assert len(secrets) == 50
    assert all(len(secret) == len("aifap_") + 43 for secret in secrets)


def test_there_is_always_a_supervisor(platform: FakePlatform) -> None:
    users = platform.doors.users
    now = datetime.now(UTC)
    last, client = platform.person(name_of_now(), Role.SUPERVISOR)
    for other in users.list_all():
        if other.role is Role.SUPERVISOR and other.user_id != last.user_id:
            users.change(other.user_id, now, audit_by=last.user_id, role=Role.TRADER)
    for change in ({"active": False}, {"role": "trader"}):
        answer = client.patch(f"/users/{last.user_id}", change)
        assert answer.status == 409
