"""Paper accounts are made at the simulator; real ones are checked before anything is saved."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from module.gateway.account_opening import NewAccount
from module.model.accounts import PositionMode, TradeEnv
from module.model.credentials import Credentials
from module.model.errors import Conflict, Forbidden, InvalidInput
from module.model.market import MarketType
from module.security.credentials import open_credentials
from tests.fakes.gateway_rig import GatewayRig
from tests.fakes.gateway_stores import CREDENTIALS_KEY, account
from tests.fakes.memory_venue import MemoryVenue


@pytest.fixture
def rig() -> GatewayRig:
    rig = GatewayRig()
    rig.venues.spare = MemoryVenue(rig.clock, "new")
    return rig


def wish(**changes: object) -> NewAccount:
    values: dict[str, object] = {
        "owner_id": "owner",
        "label": "demo",
        "venue": "bitget",
        "market": MarketType.FUTURES,
        "trade_env": TradeEnv.DEMO,
        "base_url": "https://api.bitget.com/",
        "credentials": Credentials("key-123456789", "secret", "pass"),
        **changes,
    }
    return NewAccount(**values)  # type: ignore[arg-type]


def test_a_paper_account_has_the_keys_that_the_simulator_was_told(rig: GatewayRig) -> None:
    account_id = rig.gateway.open_paper_account(
        "owner", "first", MarketType.FUTURES, Decimal("10007.5")
    )
    record = rig.postgres.records[account_id]
    keys = open_credentials(rig.postgres.sealed[account_id], account_id, CREDENTIALS_KEY)
    assert rig.paper.accounts[keys.api_key] == (Decimal("10007.5"), Decimal(0))
    assert (record.trade_env, record.epoch, record.market_id) == ("paper", 0, "synthetic:7")
    assert record.initial_balance == Decimal("10007.5")


def test_a_spot_paper_account_has_its_money_in_the_spot_wallet(rig: GatewayRig) -> None:
    rig.gateway.open_paper_account("owner", "spot", MarketType.SPOT, Decimal(500))
    assert list(rig.paper.accounts.values()) == [(Decimal(0), Decimal(500))]


def test_a_deposit_reaches_the_account_it_names(rig: GatewayRig) -> None:
    account_id = rig.gateway.open_paper_account("o", "p", MarketType.FUTURES, Decimal(10))
    rig.gateway.deposit(account_id, Decimal("33.3"))
    assert rig.paper.deposits == [(rig.paper.secrets[0].api_key, True, Decimal("33.3"))]


def test_deposits_are_for_paper_accounts_only(rig: GatewayRig) -> None:
    rig.postgres.put_account(account("live", label="live", trade_env=TradeEnv.LIVE))
    with pytest.raises(Forbidden):
        rig.gateway.deposit("live", Decimal(1))


@pytest.mark.parametrize("balance", ["0", "-1", "1000000001"])
def test_a_balance_is_a_sensible_number(rig: GatewayRig, balance: str) -> None:
    with pytest.raises(InvalidInput):
        rig.gateway.open_paper_account("o", "p", MarketType.FUTURES, Decimal(balance))
    assert rig.paper.accounts == {}


def test_a_demo_account_is_saved_after_the_exchange_has_confirmed_it(rig: GatewayRig) -> None:
    account_id = rig.gateway.add_account(wish())
    record = rig.postgres.records[account_id]
    assert (record.base_url, record.market_id) == ("https://api.bitget.com", "bitget-live")
    assert record.initial_balance == Decimal(10_007)
    assert rig.venues.spare is not None
    assert rig.venues.spare.closed


def test_A16_refused_keys_are_not_saved(rig: GatewayRig) -> None:
    assert rig.venues.spare is not None
    rig.venues.spare.script["check_key"].append(Forbidden("no such key", code="40037"))
    with pytest.raises(Forbidden):
        rig.gateway.add_account(wish())
    assert set(rig.postgres.records) == {"acc"}


def test_S34_a_key_that_may_withdraw_is_refused_unless_forced(rig: GatewayRig) -> None:
    assert rig.venues.spare is not None
    rig.venues.spare.authorities = ("coow", "wwow")
    with pytest.raises(Forbidden, match="withdraw"):
        rig.gateway.add_account(wish())
    assert rig.gateway.add_account(wish(force=True))


def test_a_key_that_may_not_trade_is_refused(rig: GatewayRig) -> None:
    assert rig.venues.spare is not None
    rig.venues.spare.authorities = ("coor",)
    with pytest.raises(Forbidden, match="trade"):
        rig.gateway.add_account(wish())


def test_A22_a_hedge_mode_account_is_refused_with_the_way_to_change_it(rig: GatewayRig) -> None:
    assert rig.venues.spare is not None
    rig.venues.spare.position_mode = PositionMode.HEDGE
    with pytest.raises(Conflict, match="one-way"):
        rig.gateway.add_account(wish())


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.bitget.com",
        "https://api.bitget.com.evil.example",
        "https://user:pass@api.bitget.com",
        "https://api.bitget.com@evil.example",
        "https://api.bitget.com:444",
        "https://api.bitget.com/api",
        "https://api.bitget.com?x=1",
        "https://api.bitget.com#x",
        "http://169.254.169.254",
        "http://127.0.0.1:8001",
        "http://[::1]/",
        "file:///etc/passwd",
        "",
    ],
)
def test_S18_only_allowed_addresses_are_ever_asked(rig: GatewayRig, base_url: str) -> None:
    with pytest.raises(InvalidInput):
        rig.gateway.add_account(wish(base_url=base_url))
    assert rig.venues.opened == []


def test_paper_accounts_cannot_be_added_by_hand(rig: GatewayRig) -> None:
    with pytest.raises(InvalidInput):
        rig.gateway.add_account(wish(trade_env=TradeEnv.PAPER))


def test_labels_are_unique_per_owner(rig: GatewayRig) -> None:
    rig.gateway.add_account(wish())
    with pytest.raises(Conflict):
        rig.gateway.add_account(wish())
    rig.gateway.add_account(replace(wish(), owner_id="somebody else"))


@pytest.mark.parametrize("label", ["", "x" * 65, "a\nb", "a\x1b[31m"])
def test_S20_labels_are_printable(rig: GatewayRig, label: str) -> None:
    with pytest.raises(InvalidInput):
        rig.gateway.open_paper_account("o", label, MarketType.FUTURES, Decimal(10))
