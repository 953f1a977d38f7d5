"""One's accounts over the API: what may change, who is asked first, what is never shown."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from module.db.repositories.users import UserRecord
from module.model.accounts import TradeEnv
from module.model.errors import Forbidden, Unavailable
from module.model.market import MarketType
from tests.fakes.asgi_client import AsgiClient
from tests.fakes.platform import FakePlatform

KEYS = {"api_key": "CANARY-KEY-1", "api_secret": "CANARY-SECRET", "passphrase": "CANARY-PHRASE"}
RUN = {
    "tradeType": "futures",
    "strategy_name": "momentum",
    "trade_mode": "rebalancing",
    "trade_env": "paper",
}
Person = tuple[UserRecord, AsgiClient]


@pytest.fixture
def person(platform: FakePlatform) -> Person:
    return platform.person(f"person-{datetime.now(UTC).timestamp()}".replace(".", "-"))


def live_account(platform: FakePlatform, user: UserRecord, label: str = "main") -> str:
    return platform.gateway.put(user.user_id, label, MarketType.FUTURES, TradeEnv.LIVE, None)


def actions(platform: FakePlatform, user: UserRecord) -> list[str]:
    return [row.action for row in platform.doors.audit.latest(20, user.user_id)]


def test_an_added_account_is_shown_without_its_secrets(
    platform: FakePlatform, person: Person
) -> None:
    _, client = person
    added = client.post(
        "/accounts", {"label": "main", "market": "spot", "trade_env": "demo", **KEYS}
    )
    assert added.status == 201
    shown = added.json()
    assert (shown["label"], shown["trade_env"], shown["active"]) == ("main", "demo", True)
    assert b"CANARY" not in added.body
    assert set(shown) == {
        *("account_id", "label", "venue", "market", "trade_env", "base_url", "active"),
        *("initial_balance", "key_hint", "limits", "created_at"),
    }


def test_what_is_wrong_with_a_new_account_is_said_by_field_without_the_values(
    person: Person,
) -> None:
    _, client = person
    wrong = client.post(
        "/accounts", {**KEYS, "api_secret": "", "label": "\u202e", "market": "bonds", "x": 1}
    )
    assert wrong.status == 422
    assert wrong.headers["content-type"] == "application/problem+json"
    named = {item["field"] for item in wrong.json()["errors"]}
    assert named == {"api_secret", "label", "market", "trade_env", "x"}
    assert b"CANARY" not in wrong.body


def test_a_check_says_what_the_exchange_says(platform: FakePlatform, person: Person) -> None:
    user, client = person
    account_id = live_account(platform, user)
    found = client.post(f"/accounts/{account_id}/check", {}).json()
    assert (found["fit"], found["equity"], found["clock_ahead_ms"]) == (True, "10007.5", -37)
    assert (found["position_mode"], found["may_withdraw"]) == ("one_way", False)
    platform.gateway.failure = Forbidden("Bitget 40037: no such key")
    refused = client.post(f"/accounts/{account_id}/check", {})
    assert (refused.status, refused.json()["detail"]) == (403, "Bitget 40037: no such key")


def test_label_and_limits_change_at_once(platform: FakePlatform, person: Person) -> None:
    user, client = person
    account_id = live_account(platform, user)
    limits = {
        "symbols": ["BTCUSDT"],
        "order_notional_max": "1234.5",
        "leverage_max": 3,
        "kill_switch": True,
    }
    changed = client.patch(f"/accounts/{account_id}", {"label": "other", "limits": limits})
    assert changed.status == 200
    assert changed.json()["label"] == "other"
    stored = platform.doors.accounts.get(account_id).limits
    assert stored == {**limits, "leverage_max": "3"}
    assert client.patch(f"/accounts/{account_id}", {"limits": {}}).json()["limits"] == {}
    assert actions(platform, user)[:2] == ["account-change", "account-change"]


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"leverage_max": 0}, "limits.leverage_max"),
        ({"order_notional_max": -1}, "limits.order_notional_max"),
        ({"kill_switch": "yes"}, "limits.kill_switch"),
        ({"symbols": ["btc/usdt"]}, "limits.symbols.0"),
        ({"orders_per_hour": 3}, "limits.orders_per_hour"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_field(
    platform: FakePlatform, person: Person, limits: dict[str, object], field: str
) -> None:
    user, client = person
    account_id = live_account(platform, user)
    refused = client.patch(f"/accounts/{account_id}", {"limits": limits})
    assert refused.status == 422
    assert [item["field"] for item in refused.json()["errors"]] == [field]


def test_labels_are_unique_among_the_active_accounts_of_an_owner(
    platform: FakePlatform, person: Person
) -> None:
    user, client = person
    first, second = live_account(platform, user, "one"), live_account(platform, user, "two")
    clash = client.patch(f"/accounts/{second}", {"label": "one"})
    assert (clash.status, clash.json()["code"]) == (409, "conflict")
    assert client.patch(f"/accounts/{first}", {"active": False}).status == 200
    assert client.patch(f"/accounts/{second}", {"label": "one"}).status == 200
    again = client.patch(f"/accounts/{first}", {"active": True})
    assert again.status == 409, "its label is another account's now"


def test_an_account_that_is_switched_off_starts_no_session_and_keeps_its_history(
    platform: FakePlatform, person: Person
) -> None:
    user, client = person
    account_id = live_account(platform, user)
    assert client.patch(f"/accounts/{account_id}", {"active": False}).json()["active"] is False
    assert client.get("/accounts").json()["accounts"] == []
    assert len(client.get("/accounts?all=true").json()["accounts"]) == 1
    run = {**RUN, "trade_env": "live", "account_id": account_id}
    refused = client.post("/command/run-system", run)
    assert (refused.status, "switched off" in refused.json()["detail"]) == (409, True)
    assert client.patch(f"/accounts/{account_id}", {"active": True}).json()["active"] is True
    assert client.post("/command/run-system", run).status == 200


def test_an_account_with_a_session_is_neither_switched_off_nor_deleted(
    platform: FakePlatform, person: Person
) -> None:
    _, client = person
    session_id = client.post("/command/run-system", RUN).json()["session_id"]
    account_id = platform.doors.sessions.get(session_id).account_id
    for refused in (
        client.patch(f"/accounts/{account_id}", {"active": False}),
        client.patch(f"/accounts/{account_id}", {"active": False, "force": True}),
        client.delete(f"/accounts/{account_id}"),
        client.delete(f"/accounts/{account_id}?force=true"),
    ):
        assert (refused.status, session_id in refused.json()["detail"]) == (409, True)
    assert platform.doors.accounts.get(account_id).active


def test_deleting_forgets_the_keys_and_is_audited_when_forced(
    platform: FakePlatform, person: Person
) -> None:
    user, client = person
    account_id = live_account(platform, user)
    platform.gateway.failure = Unavailable("the exchange does not answer")
    assert client.delete(f"/accounts/{account_id}").status == 503
    gone = client.delete(f"/accounts/{account_id}?force=true")
    assert (gone.status, gone.json()["active"], gone.json()["key_hint"]) == (200, False, "")
    assert actions(platform, user)[:2] == ["account-delete-forced", "account-delete"]
    platform.gateway.failure = None
    assert client.patch(f"/accounts/{account_id}", {"active": True}).status == 409
    assert client.get(f"/accounts/{account_id}").status == 200


def test_new_keys_go_to_the_gateway_and_nowhere_else(
    platform: FakePlatform, person: Person
) -> None:
    user, client = person
    account_id = live_account(platform, user)
    path = f"/accounts/{account_id}/credentials"
    saved = client.call("PUT", path, document=KEYS)
    assert saved.status == 200
    assert b"CANARY" not in saved.body
    ((named, keys, force),) = platform.gateway.replaced
    assert (named, keys.api_secret, force) == (account_id, "CANARY-SECRET", False)
    assert client.call("PUT", path, document={**KEYS, "force": True}).status == 200
    assert actions(platform, user)[:2] == ["account-keys-forced", "account-keys"]
    assert "CANARY" not in str(platform.doors.audit.latest(20, user.user_id))


def test_S34_an_insisted_right_to_withdraw_is_in_the_audit(
    platform: FakePlatform, person: Person
) -> None:
    user, client = person
    wish = {"label": "risky", "market": "futures", "trade_env": "live", **KEYS, "force": True}
    assert client.post("/accounts", wish).status == 201
    assert actions(platform, user)[0] == "account-add-forced"


def test_one_account_of_the_exchange_is_one_account_here(
    platform: FakePlatform, person: Person
) -> None:
    user, _ = person
    accounts = platform.doors.accounts
    first, second = live_account(platform, user, "a"), live_account(platform, user, "b")
    sealed = accounts.sealed_credentials(first)
    accounts.save_credentials(
        first,
        sealed,
        key_hint="…",
        venue_user_id="777",
        at=datetime.now(UTC),
        while_trading=False,
    )
    with pytest.raises(Exception, match="one writer"):
        accounts.save_credentials(
            second,
            sealed,
            key_hint="…",
            venue_user_id="777",
            at=datetime.now(UTC),
            while_trading=False,
        )
    assert accounts.get(second).venue_user_id == ""
