"""The outer wall over real sockets: Host, size, speed, methods, headers, failing neighbours."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import api.edge
from api.edge import BODY_BYTES_MAX
from module.db.repositories.users import UserRecord
from module.model.errors import Unavailable
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.platform import FakePlatform, fake_platform
from tests.fakes.serving import served


@pytest.fixture
def address(platform: FakePlatform) -> Iterator[tuple[str, int]]:
    with served() as serve:
        url = urlsplit(serve(platform.app))
        assert url.hostname is not None
        assert url.port is not None
        yield url.hostname, url.port


def speak(address: tuple[str, int], *chunks: bytes) -> bytes:
    """What the server answers to these bytes."""
    with socket.create_connection(address, timeout=30) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
        received = b""
        while part := connection.recv(65_536):
            received += part
        return received


def status_of(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "169.254.169.254"]
)
def test_S39_a_host_that_is_not_ours_is_refused(address: tuple[str, int], host: str) -> None:
    raw = speak(
        address, f"GET /dashboard/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    assert status_of(raw) in (400, 421)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:80", "LOCALHOST"])
def test_S39_our_own_hosts_are_answered(address: tuple[str, int], host: str) -> None:
    raw = speak(
        address, f"GET /dashboard/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    assert status_of(raw) == 200


def test_health_is_probed_by_address(platform: FakePlatform) -> None:
    prober = AsgiClient(platform.app, headers={"host": "10.1.2.3:8000"})
    assert prober.get("/health/live").status == 200
    assert prober.get("/health/ready").status == 200


def test_S39_further_hosts_are_a_setting(postgres: Settings, tmp_path: Path) -> None:
    made = fake_platform(postgres, tmp_path, api_hosts=("aifap.example",))
    client = AsgiClient(made.app, headers={"host": "aifap.example:8443"})
    assert client.get("/dashboard/").status == 200
    made.close()


def test_S39_forwarded_headers_change_nothing(platform: FakePlatform) -> None:
    answer = platform.anonymous.get(
        "/health/live/../../users", X_Forwarded_Prefix="/health", X_Original_URL="/health/live"
    )
    assert answer.status in (401, 404)


def test_S4_a_body_that_says_it_is_too_long_is_not_read(address: tuple[str, int]) -> None:
    head = (
        "POST /upload/strategies HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {BODY_BYTES_MAX + 1}\r\n\r\n"
    )
    raw = speak(address, head.encode())
    assert status_of(raw) == 413
    assert b"application/problem+json" in raw


def test_S4_a_chunked_body_without_length_is_cut_off(address: tuple[str, int]) -> None:
    head = (
        b"POST /upload/strategies HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    whole_chunks = [chunk] * (BODY_BYTES_MAX // 0x10000)
    raw = speak(address, head, *whole_chunks, b"1\r\nx")
    assert status_of(raw) == 413


def test_S4_a_body_that_never_comes_is_given_up(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.edge, "BODY_SECONDS_MAX", 0.2)
    head = b"POST /auth/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    assert status_of(speak(address, head)) == 408


def test_S4_a_strategy_of_the_full_size_passes_and_one_byte_more_does_not(
    platform: FakePlatform,
) -> None:
    _, client = platform.person("uploader")
    source = "def strategy(a, b):\n    return {}\n"
    exact = source + "#" * (256 * 1024 - len(source))
    assert client.post("/upload/strategies", {"name": "big", "source": exact}).status == 201
    answer = client.post("/upload/strategies", {"name": "big", "source": exact + "#"})
    assert answer.status == 422
    assert "262144" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/accounts/%00", 404), ("/results/x%00/trades", 404), ("/results/sessions?state=a%00b", 400)],
)
def test_an_address_with_a_nul_is_refused(platform: FakePlatform, path: str, status: int) -> None:
    _, client = platform.person("asker")
    answer = client.get(path)
    assert answer.status == status
    assert answer.json()["status"] == status


def test_problems_cover_what_http_itself_refuses(platform: FakePlatform) -> None:
    _, client = platform.person("asker")
    for answer, status in (
        (client.get("/no/such/thing"), 404),
        (client.call("DELETE", "/command/run-system"), 405),
        (client.call("POST", "/auth/tokens", raw=b"a=b", headers={"content-type": "text/x"}), 415),
        (client.call("POST", "/auth/tokens", raw=b"{"), 422),
        (client.get("/command/session-check?over=-1"), 422),
    ):
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == status
        assert problem["type"] == "about:blank"
        assert problem["code"]


def test_S21_an_unexpected_error_says_nothing_of_the_inside(
    platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = platform.person("unlucky")

    def broken(_launcher: object, _session_id: str) -> None:
        raise ZeroDivisionError("CANARY: /srv/secrets/token_key")

    monkeypatch.setattr(type(platform.launcher), "start", broken)
    body = {
        "tradeType": "futures",
        "strategy_name": "momentum",
        "trade_mode": "rebalancing",
        "trade_env": "paper",
    }
    answer = client.post("/command/run-system", body)
    assert answer.status == 500
    assert answer.json()["code"] == "invariant-violated"
    assert b"CANARY" not in answer.body
    assert b"Traceback" not in answer.body


def test_every_answer_carries_the_security_headers(platform: FakePlatform) -> None:
    for path in ("/health/live", "/dashboard/", "/nothing", "/command/session-check"):
        headers = platform.anonymous.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "cache-control" in headers


def test_S38_no_origin_is_ever_allowed(platform: FakePlatform) -> None:
    for origin in ("null", "https://evil.example", "http://localhost"):
        answer = platform.anonymous.get("/health/live", Origin=origin)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_live_page_loads_nothing_from_elsewhere(platform: FakePlatform) -> None:
    page = platform.anonymous.get("/dashboard/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    parts = [platform.anonymous.get(f"/dashboard/{name}") for name in ("live.css", "live.js")]
    everything = page.body + b"".join(part.body for part in parts)
    assert all(part.status == 200 for part in parts)
    assert everything.count(b"http://") == everything.count(b"http://www.w3.org/2000/svg")
    assert b"https://" not in everything
    assert b"innerHTML" not in everything
    for name in ("..%2f..%2fapi%2fapp.py", "__init__.py", "live.js%00", ".."):
        assert platform.anonymous.get(f"/dashboard/{name}").status in (404, 307)


def test_S55_without_the_database_nothing_is_allowed(tmp_path: Path) -> None:
    absent = Settings(data_dir=tmp_path, database_host="127.0.0.1", database_port=9)
    made = fake_platform(absent, tmp_path)
    answer = AsgiClient(made.app, "aifap_" + "A" * 43).get("/command/session-check")
    assert answer.status == 503
    assert answer.json()["code"] == "unavailable"
    assert "127.0.0.1" not in answer.json()["detail"]
    ready = made.anonymous.get("/health/ready")
    assert (ready.status, ready.json()["checks"]) == (503, {"postgres": "failed"})
    assert made.anonymous.get("/health/live").status == 200
    made.close()


def test_the_stream_tells_of_ones_own_sessions_and_ends_with_the_token(
    platform: FakePlatform, address: tuple[str, int]
) -> None:
    user, client = platform.person(f"viewer-{datetime.now(UTC).timestamp()}".replace(".", "-"))
    _, stranger = platform.person("another-viewer")
    body = {
        "tradeType": "futures",
        "strategy_name": "momentum",
        "trade_mode": "rebalancing",
        "trade_env": "paper",
    }
    stranger.post("/command/run-system", body)
    session_id = client.post("/command/run-system", body).json()["session_id"]
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request(
        "GET", "/stream/sessions", headers={"Authorization": f"Bearer {client.token}"}
    )
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("content-type") == "text/event-stream; charset=utf-8"

    name, data = answer.readline(), answer.readline()
    assert name == b"event: sessions\n"
    document = json.loads(data.removeprefix(b"data: "))
    assert [view["session_id"] for view in document["sessions"]] == [session_id]
    assert document["sessions"][0]["result"] is None
    assert document["alerts"] == []

    platform.doors.users.change(
        user.user_id, datetime.now(UTC), audit_by=user.user_id, active=False
    )
    rest = answer.read()
    assert rest.count(b"event: end\n") == 1
    connection.close()


def test_the_stream_goes_on_through_an_outage_of_the_database(
    platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.live_views import LiveBoard
    from api.routers.stream import _event

    _, client = platform.person("patient")
    assert client.token is not None
    board = LiveBoard(None)

    def look(user: UserRecord) -> tuple[str, object]:
        return "live", board.changes(platform.doors, user)

    assert _event(platform.doors, client.token, look)[0].startswith("event: live\n")

    def away(*_: object) -> None:
        raise Unavailable("database finplatform does not answer; nothing was written")

    monkeypatch.setattr(type(platform.doors.users), "authenticate", away)
    event, last = _event(platform.doors, client.token, look)
    assert event.startswith("event: trouble\n")
    assert not last


def test_S17_streams_are_bounded_per_person(
    platform: FakePlatform, address: tuple[str, int]
) -> None:
    _, client = platform.person("collector")
    held = []
    for _ in range(5):
        connection = http.client.HTTPConnection(*address, timeout=30)
        connection.request(
            "GET", "/stream/sessions", headers={"Authorization": f"Bearer {client.token}"}
        )
        assert connection.getresponse().status == 200
        held.append(connection)
    refused = client.get("/stream/sessions")
    assert refused.status == 429
    assert refused.headers["retry-after"] == "10"
    for connection in held:
        connection.close()
