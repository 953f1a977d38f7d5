"""One browser and one served application for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from module.db.repositories.users import Role, UserRecord
from module.settings import Settings
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.browser import Browser, Page, find_chromium, opened
from tests.fakes.platform import FakePlatform, fake_platform
from tests.fakes.serving import served

_numbers = count()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    if find_chromium() is None:
        pytest.skip("no Chromium is installed: the live page is not looked at")
    with Browser() as started:
        yield started


@pytest.fixture(scope="module")
def platform(
    postgres: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakePlatform]:
    """The platform API with its fakes, for a whole module: each test has persons of its own."""
    folder: Path = tmp_path_factory.mktemp("live-page")
    made = fake_platform(postgres, folder, display_timezone="UTC")
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(platform: FakePlatform) -> Iterator[str]:
    """Where the application is served."""
    with served() as serve:
        yield serve(platform.app)


@dataclass(slots=True)
class Visitor:
    """A person with a token."""

    user: UserRecord
    client: AsgiClient
    address: str

    @property
    def token(self) -> str:
        assert self.client.token is not None
        return self.client.token

    def sign_in(self, page: Page, hash_: str = "") -> None:
        """Open the page and give it the token, as a person would."""
        page.go(f"{self.address}/dashboard/{hash_}")
        page.type("#token", self.token)
        page.press("Enter")
        page.wait_text("#line-text", "live")


@pytest.fixture(scope="module")
def visitor(platform: FakePlatform, address: str) -> Callable[..., Visitor]:
    """Makes persons."""

    def make(role: Role = Role.TRADER) -> Visitor:
        name = f"visitor-{next(_numbers)}-{datetime.now(UTC).timestamp():.0f}"
        return Visitor(*platform.person(name, role), address)

    return make


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Iterator[Page]:
    """One tab of desktop size; a new one for each test would cost as much as the page itself."""
    with opened(browser) as found:
        yield found


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """The tab, empty as a new one; it complains of nothing and asks nobody else, to the end."""
    tab.asked.clear()
    tab.complaints.clear()
    try:
        yield tab
        assert tab.complaints == []
        assert len(tab.origins) <= 1
    finally:
        emptied(tab)


def emptied(tab: Page) -> None:
    """Leave the page, and nothing that the next visitor could find."""
    tab.run("location.protocol.startsWith('http') && sessionStorage.clear()")
    for origin in tab.origins:
        tab.call("Storage.clearDataForOrigin", origin=origin, storageTypes="all")
    tab.call("Page.navigate", url="about:blank")
    tab.wait("location.href === 'about:blank'")
    tab.call("Page.resetNavigationHistory")


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    """The same on a phone of 390 points width."""
    with opened(browser, 390, 844, phone=True) as tab:
        yield tab
        assert tab.complaints == []
