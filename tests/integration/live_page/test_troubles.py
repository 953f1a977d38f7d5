"""When something is away the page says so, and since when; what may be framed is a setting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.routers.dashboard import content_policy
from api.routers.stream import STREAMS_PER_USER_MAX
from module.model.errors import Unavailable
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.browser import Browser, Page, opened
from tests.fakes.platform import FakePlatform, fake_platform
from tests.fakes.serving import served
from tests.integration.live_page.conftest import Visitor
from tests.integration.live_page.told import tell

pytestmark = pytest.mark.timeout(240)
Visitors = Callable[..., Visitor]
GRAFANA = "http://127.0.0.1:9/grafana"


def test_a_token_that_ends_leads_back_to_the_door(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    told = tell(platform, person.user)
    told.minute(1, "10033")
    person.sign_in(page)
    page.wait_text("#figures", "10,033.00")
    for token in platform.doors.users.list_tokens(person.user.user_id):
        platform.doors.users.revoke_token(
            person.user.user_id, token.token_id, datetime.now(UTC), audit_by=person.user.user_id
        )
    page.wait("document.querySelector('#token').checkVisibility()")
    assert page.text("#token-said") != ""
    assert page.run("sessionStorage.length") == 0
    assert "10,033" not in page.run("document.body.textContent")
    page.complaints.clear()  # the browser notes each answer of 401


def test_a_wrong_token_is_said_at_the_door(visitor: Visitors, page: Page) -> None:
    person = visitor()
    page.go(f"{person.address}/dashboard/")
    page.type("#token", "aifap_" + "A" * 43)
    page.press("Enter")
    page.wait("document.querySelector('#token-said').textContent")
    assert page.run("document.querySelector('#token').checkVisibility()")
    assert page.run("sessionStorage.length") == 0
    page.complaints.clear()  # the browser notes each answer of 401


def test_numbers_that_do_not_move_any_more_are_said_to_be_old(
    platform: FakePlatform,
    visitor: Visitors,
    page: Page,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = visitor()
    tell(platform, person.user).minute(1, "10044")
    person.sign_in(page)
    page.wait_text("#figures", "10,044.00")

    def away(*_: object) -> None:
        raise Unavailable("database finplatform does not answer; nothing was written")

    with monkeypatch.context() as patched:
        patched.setattr(type(platform.doors.users), "authenticate", away)
        page.wait_text("#trouble", "does not answer")
        said = page.text("#trouble")
        assert "Since " in said
        assert "does not move" in said
        assert "10,044.00" in page.text("#figures")
    page.wait("!document.querySelector('#trouble').checkVisibility()")
    assert page.text("#line-text") == "live"


def test_a_stream_that_is_not_let_in_is_tried_again(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    tell(platform, person.user)
    places = platform.app.state.stream_places
    for _ in range(STREAMS_PER_USER_MAX):
        places.take(person.user.user_id)
    page.go(f"{person.address}/dashboard/")
    page.type("#token", person.token)
    page.press("Enter")
    page.wait_text("#trouble", "live streams of yours are under way")
    assert "trying again in" in page.text("#line-text")
    places.give_back(person.user.user_id)
    page.run("window.dispatchEvent(new Event('online'))")
    page.wait_text("#line-text", "live")
    page.wait("document.querySelector('#board').checkVisibility()")
    page.complaints.clear()  # the browser notes each answer of 429


def test_a_page_that_is_left_gives_its_stream_back(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    tell(platform, person.user)
    open_of = platform.app.state.stream_places._taken
    person.sign_in(page)
    for _ in range(STREAMS_PER_USER_MAX + 2):
        page.go("about:blank#left")
        until(lambda: not open_of[person.user.user_id])
        page.run("history.back()")
        page.wait("document.querySelector('#line-text')?.innerText === 'live'")


def until(true: Callable[[], bool]) -> None:
    """Wait for what a server thread is about to do."""
    give_up_at = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up_at, "not within a minute"
        time.sleep(0.05)


@pytest.fixture
def embedding(postgres: Settings, tmp_path: Path) -> Iterator[FakePlatform]:
    made = fake_platform(postgres, tmp_path, grafana_url=GRAFANA)
    yield made
    made.close()


def test_grafana_is_framed_where_one_is_configured_and_nobody_else(
    embedding: FakePlatform, browser: Browser
) -> None:
    user, client = embedding.person(f"framed-{datetime.now(UTC).timestamp():.0f}")
    told = tell(embedding, user)
    policy = AsgiClient(embedding.app).get("/dashboard/").headers["content-security-policy"]
    assert policy.endswith("; frame-src http://127.0.0.1:9")
    with served() as serve, opened(browser) as page:
        Visitor(user, client, serve(embedding.app)).sign_in(page)
        page.click("#tab-grafana")
        page.wait("document.querySelector('#tab-panel-grafana iframe')")
        source = page.run("document.querySelector('#tab-panel-grafana iframe').src")
        assert source.startswith(f"{GRAFANA}/d/aifap-trader/")
        assert f"var-session={told.session_id}" in source
        assert client.token is not None
        assert client.token not in source


def test_without_grafana_there_is_neither_frame_nor_tab(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    tell(platform, person.user)
    person.sign_in(page)
    page.wait("document.querySelector('#board').checkVisibility()")
    assert not page.run("document.querySelector('#tabs').checkVisibility()")
    assert "frame-src" not in content_policy("")


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "https://a.example; script-src *", "https://a.example b", "//a", "a"],
)
def test_an_address_of_grafana_cannot_widen_the_policy(url: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"grafana_url": url})


def test_a_file_of_the_page_that_the_browser_has_is_not_sent_again(
    platform: FakePlatform,
) -> None:
    first = platform.anonymous.get("/dashboard/live.js")
    again = platform.anonymous.get("/dashboard/live.js", If_None_Match=first.headers["etag"])
    assert (first.status, again.status, again.body) == (200, 304, b"")
    assert platform.anonymous.get("/dashboard/__init__.py").status == 404
