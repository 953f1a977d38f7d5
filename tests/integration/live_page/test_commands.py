"""What is commanded on the page reaches the API, and what the API refuses is said by the field."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from module.db.repositories.users import Role
from module.model.accounts import TradeEnv
from module.model.market import MarketType
from tests.fakes.browser import Page
from tests.fakes.platform import FakePlatform
from tests.integration.live_page.conftest import Visitor
from tests.integration.live_page.told import tell

pytestmark = pytest.mark.timeout(240)
Visitors = Callable[..., Visitor]


def open_form(page: Page) -> None:
    page.click("#start-open")
    page.wait("document.querySelector('#start-send')?.checkVisibility()")


def test_a_first_session_is_started_and_stopped(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    source = "def strategy(context, config_dict):\n    return {}\n"
    person.client.post("/upload/strategies", {"name": "mine", "source": source})
    person.sign_in(page)
    page.wait_text("#empty", "No session yet")
    page.click("#start-first")
    page.wait("document.querySelector('#start-send')?.checkVisibility()")
    assert "mine" in page.text("#start-strategy_name")
    page.choose("#start-strategy_name", "mine")
    page.choose("#start-interval", "15m")
    page.type("#start-leverage", "3")
    page.type("#start-default_stop_loss_pct", "2.5")
    page.click("#start-send")
    page.wait_text("#session-name", "mine")
    (record,) = platform.doors.sessions.list_for_owner(person.user.user_id)
    assert platform.launcher.started[-1] == record.session_id
    spec = record.spec
    assert (spec.leverage, spec.default_stop_loss_pct) == (Decimal(3), Decimal("2.5"))
    assert spec.interval.total_seconds() == 900
    assert record.session_id in page.run("location.hash")
    assert person.token not in page.run("location.href")

    page.click("#stop-open")
    page.click("#ask-form input[value=flat]")
    page.click("#ask-form button[type=submit]")
    page.wait_text("#ask-form", "its positions are closed and nothing is left behind")
    assert platform.launcher.stopped[-1] == record.session_id
    page.wait_text("#session-reason", "Asked to stop, flat")


def test_what_the_server_refuses_stands_beside_its_field(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    person.sign_in(page)
    open_form(page)
    page.type("#start-leverage", "1.5")
    page.run("document.querySelector('#start-form details').open = true")
    page.type("#start-allocated", "1,000")
    page.click("#start-send")
    page.wait_text("#said-leverage", "must be a whole number")
    page.wait_text("#said-allocated", "must be a plain decimal number")
    assert platform.doors.sessions.list_for_owner(person.user.user_id) == []
    assert page.run("document.activeElement.id") == "start-leverage"
    page.complaints.clear()  # the browser notes each answer of 422


def test_real_money_is_confirmed_first(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    account = platform.gateway.put(
        person.user.user_id, "savings", MarketType.FUTURES, TradeEnv.LIVE, None
    )
    person.sign_in(page)
    open_form(page)
    page.choose("#start-account_id", account)
    page.wait_text("#start-send", "real money")
    page.click("#start-send")
    page.wait_text("#said-form", "Confirm that this trades real money")
    assert platform.doors.sessions.list_for_owner(person.user.user_id) == []
    page.click("#live-check input")
    page.click("#start-send")
    page.wait_text("#session-env", "real money")
    (record,) = platform.doors.sessions.list_for_owner(person.user.user_id)
    assert record.account_id == account


def test_an_account_is_halted_and_let_go_again(
    platform: FakePlatform, visitor: Visitors, page: Page
) -> None:
    person = visitor()
    told = tell(platform, person.user)
    person.sign_in(page)
    page.click("#halt-open")
    page.type("#ask-form input[name=reason]", "strange prices")
    page.click("#ask-form button[type=submit]")
    page.wait_text("#session-reason", "kill switch of this account is on: strange prices")
    assert platform.doors.accounts.get(told.account_id).limits["kill_switch"] is True
    page.press("Escape")
    page.click("#halt-open")
    page.wait_text("#ask-form", "open again?")
    page.click("#ask-form button[type=submit]")
    page.wait("!document.querySelector('#session-reason').checkVisibility()")
    assert platform.doors.accounts.get(told.account_id).limits.get("kill_switch") is not True


@pytest.mark.parametrize(("role", "shown"), [(Role.TRADER, False), (Role.SUPERVISOR, True)])
def test_only_a_supervisor_sees_the_switch_for_all(
    visitor: Visitors, page: Page, role: Role, shown: bool
) -> None:
    person = visitor(role)
    person.sign_in(page)
    assert page.run("document.querySelector('#halt-all').checkVisibility()") is shown
