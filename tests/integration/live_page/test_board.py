"""The board shows what is stored, and moves when a minute is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from module.model.results import GapCause
from tests.fakes.browser import Browser, Page, opened
from tests.fakes.platform import FakePlatform
from tests.integration.live_page.conftest import Visitor
from tests.integration.live_page.told import Told, tell, tell_many

pytestmark = pytest.mark.timeout(240)
Visitors = Callable[..., Visitor]
OVERFLOWING = "document.documentElement.scrollWidth > window.innerWidth"
HITTING = """[...document.querySelectorAll('button, input, select, summary, label.switch')]
  .filter((n) => n.checkVisibility() && !n.closest('label.choice, label.switch')
    && n.getBoundingClientRect().height < 39.5)
  .map((n) => n.id || n.textContent)"""


SCROLLING = """[...document.querySelectorAll('.scroll')]
  .filter((n) => n.checkVisibility() && n.scrollWidth > n.clientWidth)
  .map((n) => [n.getAttribute('aria-label'), n.scrollWidth, n.clientWidth])"""


def whole(platform: FakePlatform, visitor: Visitor) -> Told:
    """A session with an hour behind it, a hole in it, two cycles."""
    told = tell(platform, visitor.user)
    for ago in range(40, 0, -1):
        if not 20 <= ago < 26:
            told.minute(ago, f"{10_000 + 3 * (40 - ago)}.25")
    told.gap(25, 20, GapCause.EXCHANGE_UNREACHABLE)
    told.fill(1)
    told.cycle(1, 10)
    told.skipped_cycle(2, 5, "the bar of the boundary did not arrive within 5 s")
    told.alert("Position without a stop", "ETHUSDT")
    return told


@pytest.fixture(scope="module")
def reader(platform: FakePlatform, visitor: Visitors) -> Visitor:
    """A person with such a session, for tests that only look."""
    person = visitor()
    whole(platform, person)
    return person


@pytest.fixture(scope="module")
def shown(reader: Visitor, browser: Browser) -> Iterator[Page]:
    """Their board, in a tab that stays open; who opens something in it closes it again."""
    with opened(browser) as tab:
        reader.sign_in(tab)
        yield tab
        assert tab.complaints == []
        assert len(tab.origins) == 1


def test_the_board_shows_the_stored_numbers_and_moves_with_the_next_minute(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    told = whole(platform, person)
    person.sign_in(page)

    page.wait_text("#tiles", "+1.17")
    tiles = page.text("#tiles").replace("\xa0", " ")
    for words in ("ROE", "+1.17 %", "+117.25 USDT on 10,000.00", "1.87", "−5.19 %", "now −1.23 %"):
        assert words in tiles
    assert "10,117.25" in page.text("#figures")
    assert "⚠ 1" in page.text("#figures")
    positions = page.text("#positions").replace("\xa0", " ")
    for words in ("BTCUSDT", "long", "5,000.25", "50.0 % → 47.6 %", "57,123", "10.0 %",
                  "ETHUSDT", "short", "−3,000.50", "⚠ none"):  # fmt: skip
        assert words in positions
    page.wait("document.querySelectorAll('.slice').length === 3")
    assert "33.3" not in page.text("#allocation")
    assert "5,000.25" in page.text("#sizes")
    page.wait_text("#trades", "61,010.5")
    page.wait_text("#gaps", "6 minutes: the exchange did not answer")
    page.wait_text("#cycles", "the bar of the boundary did not arrive within 5 s")
    assert "Position without a stop" in page.text("#alert-list")

    # The curve: two stretches, a hole between them, capital at work dashed.
    page.wait("document.querySelectorAll('#curve .line').length === 2")
    assert page.run("document.querySelectorAll('#curve .hole').length") == 1
    assert page.run("Boolean(document.querySelector('#curve .capital'))")
    page.run("document.querySelector('#curve').focus()")
    page.press("End")
    page.wait_text(".tip", "10,117.25 USDT")
    page.press("ArrowLeft")
    page.wait_text(".tip", "10,114.25 USDT")

    told.minute(0, "10250.75")
    page.wait_text("#tiles", "+2.51")
    page.wait_text("#session-list", "10,250.75")
    page.run("document.querySelector('#curve').focus()")
    page.press("End")
    page.wait_text(".tip", "10,250.75 USDT")


def test_a_range_asks_for_no_more_points_than_can_be_seen(
    shown: Page,
) -> None:
    page = shown
    page.wait("document.querySelectorAll('#ranges button').length === 5")
    page.click("#ranges button:nth-child(4)")
    page.wait("document.querySelector('#ranges [aria-pressed=true]').textContent === '7d'")
    page.wait("document.querySelectorAll('#curve .line').length >= 1")
    chosen = page.run(
        "import('/dashboard/curve.js').then((curve) => [6e5, 864e5, 6048e5, 31536e6]"
        ".map((length) => curve.resolutionFor(length)[0]))"
    )
    assert chosen == ["1m", "5m", "15m", "1d"]


def test_a_cycles_plan_is_shown_with_its_legs_and_what_was_skipped(
    shown: Page,
) -> None:
    page = shown
    page.wait_text("#cycles", "#1")
    page.click("#cycles button[aria-label='Plan of cycle 1']")
    page.wait_text("#plan", "Legs (1)")
    plan = page.text("#plan").replace("\xa0", " ")
    for words in ("BTCUSDT", "increase, buy", "25.0 % → 47.6 %", "61,000", "61,100", "+3.7000",
                  "✓ filled", "XRPUSDT", "worth less than the smallest order", "−1.3542 USDT",
                  "412 ms", "57,123"):  # fmt: skip
        assert words in plan, plan
    page.press("Escape")
    page.wait("!document.querySelector('#plan-dialog').open")


def test_on_a_desktop_a_fee_in_coins_fits_beside_the_cycles(shown: Page) -> None:
    page = shown
    page.wait_text("#trades", "61,010.5")
    fee = "document.querySelector('#trades td:last-child')"
    before = page.run(f"{fee}.textContent")
    page.run(f"{fee}.textContent = '−0.00003456 BTC'")
    assert page.run(SCROLLING) == []
    page.run(f"{fee}.textContent = {before!r}")


def test_on_a_phone_nothing_scrolls_sideways_and_everything_can_be_hit(
    reader: Visitor, phone: Page
) -> None:
    person = reader
    phone.go(f"{person.address}/dashboard/")
    phone.wait("document.querySelector('#token').checkVisibility()")
    assert not phone.run(OVERFLOWING)
    person.sign_in(phone)
    phone.wait("document.querySelectorAll('#curve .line').length === 2")
    phone.wait_text("#cycles", "#1")
    assert not phone.run(OVERFLOWING)
    assert phone.run(SCROLLING) == []
    assert phone.run(HITTING) == []
    phone.click("#cycles button[aria-label='Plan of cycle 1']")
    phone.wait_text("#plan", "Skipped (1)")
    assert phone.run(SCROLLING) == []
    phone.press("Escape")
    phone.click("#rail-toggle")
    phone.wait("document.querySelector('#session-list button').checkVisibility()")
    phone.click("#start-open")
    phone.wait("document.querySelector('#start-send')?.checkVisibility()")
    assert not phone.run(OVERFLOWING)
    assert phone.run(HITTING) == []


def test_S35_markup_in_names_and_alerts_stays_text(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    bad = "<img src=x onerror=document.title='broken'>"
    told = tell(platform, person.user, strategy=bad[:64], label=bad)
    told.minute(1, "10010")
    told.skipped_cycle(1, 5, f"{bad} in a reason")
    told.alert(f"{bad} in a title", f"{bad} in a line")
    person.sign_in(page)
    page.wait_text("#session-name", bad)
    page.wait_text("#cycles", f"{bad} in a reason")
    page.wait_text("#alert-list", f"{bad} in a line")
    assert bad in page.text("#session-facts")
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.title") == "AIFAP live"


def test_two_hundred_sessions_are_listed_found_and_chosen(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    sought = tell(platform, person.user, strategy="needle", label="in-hay")
    sought.minute(1, "10777")
    tell_many(sought, 199)
    person.sign_in(page)
    page.wait("document.querySelectorAll('#session-list li').length === 200")
    assert page.text("#counts") == "200 running, 0 over"
    page.type("#search", "needle")
    page.wait("document.querySelectorAll('#session-list li').length === 1")
    page.click("#session-list button")
    page.wait_text("#session-name", "needle")
    page.wait_text("#figures", "10,777.00")
