"""What the doors say to whoever asks wrongly: the reason, the value, the way out; never a 500."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api.edge import BODY_BYTES_MAX
from api.schemas import RunSystemRequest
from module.db.repositories.users import Role
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.platform import FakePlatform, fake_platform
from tests.fakes.serving import served

SEED: dict[str, object] = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}
NONSENSE: tuple[object, ...] = (
    None, True, -1, 0, 10**40, "", "NaN", "1e999", "x" * 300, "٣", [], [1], {}, {"a": 1},
)  # fmt: skip
_numbers = count()


@pytest.fixture(scope="module")
def office(postgres: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePlatform]:
    """One application for the whole module: nothing here changes what the next test finds."""
    folder: Path = tmp_path_factory.mktemp("plain-words")
    made = fake_platform(postgres, folder)
    yield made
    made.close()


@pytest.fixture
def client(office: FakePlatform) -> AsgiClient:
    _, made = office.person(f"asker-{next(_numbers)}")
    return made


@pytest.fixture(scope="module")
def session_id(office: FakePlatform) -> str:
    """A session of somebody's whom `seer` may see."""
    _, client = office.person("seer")
    return str(client.post("/command/run-system", SEED).json()["session_id"])


def test_no_nonsense_in_any_field_of_run_system_is_an_error_of_ours(client: AsgiClient) -> None:
    for name, field in RunSystemRequest.model_fields.items():
        for value in NONSENSE:
            answer = client.post("/command/run-system", {**SEED, (field.alias or name): value})
            assert answer.status in (200, 404, 409, 422), (name, value, answer.body)
            if answer.status == 422:
                assert len(answer.json()["detail"]) > 20


def test_a_parameter_that_does_not_exist_is_refused_before_anything_happens(
    office: FakePlatform,
) -> None:
    _, client = office.person(f"hasty-{next(_numbers)}")
    started = client.post("/command/run-system", SEED).json()["session_id"]
    refused = client.get(f"/command/terminate?session_id={started}&mod=flat")
    assert refused.status == 422
    assert refused.json()["errors"] == [
        {"field": "mod", "message": "there is no such parameter; known are session_id, mode"}
    ]
    view = client.get(f"/command/sessions/{started}").json()
    assert view["desired"] == "running"
    nothing = client.get("/auth/whoami?x=1")
    assert (nothing.status, "takes none" in nothing.json()["detail"]) == (422, True)
    assert office.anonymous.get("/auth/whoami?x=1").status == 401


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nothing", 404, "there is nothing at /nothing"),
        ("/command/session-check/", 404, "leave out the slash at its end"),
        ("/command/run-system", 405, "it takes POST"),
        ("/command/session-check?over=abc", 422, 'over: must be a whole number, got "abc"'),
        ("/command/session-check?over=201", 422, 'over: must be at most 200, got "201"'),
        ("/results/sessions?start=2026-01-05T00:00:00+00:00", 422, "+ is %2B"),
        ("/results/sessions?start=yesterday", 422, "got 'yesterday'"),
        ("/results/sessions?start=8000-01-01T00:00Z", 422, "must be before now"),
        ("/results/sessions?limit=0", 422, "limit: must be at least 1"),
        ("/results/sessions?cursor=abc", 422, "leave it out to begin with the first one"),
        ("/results/sessions?state=dead", 422, "must be one of living, over, starting"),
    ],
)
def test_an_address_that_is_wrong_says_how_it_would_be_right(
    client: AsgiClient, path: str, status: int, words: str
) -> None:
    answer = client.get(path)
    assert answer.status == status
    assert words in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_wrong_kinds_of_records_are_told_by_the_name_of_their_parameter(
    office: FakePlatform, session_id: str
) -> None:
    _, client = office.person(f"reader-{next(_numbers)}", Role.SUPERVISOR)
    for path, field in (
        ("orders?kind=x", "kind"), ("bills?kind=x", "kind"), ("orders?outcome=x", "outcome"),
        ("cycles?state=x", "state"), ("portfolio?resolution=2m", "resolution"),
    ):  # fmt: skip
        answer = client.get(f"/results/{session_id}/{path}")
        assert [error["field"] for error in answer.json()["errors"]] == [field]
        assert "must be one of" in answer.json()["detail"]


def test_methods_that_several_routes_share_are_all_told(client: AsgiClient) -> None:
    answer = client.call("PUT", "/accounts")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
    assert "does not take PUT; it takes GET, POST" in answer.json()["detail"]


def test_a_body_of_another_type_is_told_which_it_was(client: AsgiClient) -> None:
    odd = client.call("POST", "/auth/tokens", raw=b"a=b", headers={"content-type": "text/x"})
    assert (odd.status, odd.json()["title"]) == (415, "unsupported media type")
    assert "Content-Type: application/json; the header is text/x" in odd.json()["detail"]
    none = client.call("POST", "/auth/tokens")
    assert "the header is missing" in none.json()["detail"]


def test_S4_whoever_sends_far_too_much_at_once_still_reads_why(office: FakePlatform) -> None:
    with served() as serve:
        address = urlsplit(serve(office.app))
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        body = b"x" * (BODY_BYTES_MAX * 12)
        connection.request("POST", "/upload/strategies", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 413
        assert b"640 KiB" in answer.read()
        connection.close()


def test_openapi_tells_of_tokens_problems_and_what_is_made(office: FakePlatform) -> None:
    _, client = office.person(f"boss-{next(_numbers)}", Role.SUPERVISOR)
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert "422" not in operation["responses"]
            problem = operation["responses"]["default"]["content"]["application/problem+json"]
            assert problem["schema"]["$ref"].endswith("/Problem")
            assert operation["security"] == ([] if path.startswith("/health") else [{"token": []}])
    assert "201" in document["paths"]["/accounts/paper"]["post"]["responses"]
