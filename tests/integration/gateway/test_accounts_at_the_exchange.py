"""Demo accounts at an exchange: the paper exchange stands for it, a real gateway is before it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal

import pytest
from sqlalchemy import update

from module.db.platform_tables import Account
from module.db.repositories.credential_keys import CredentialKeyRepository
from module.gateway.key_rotation import rotate_keys
from module.model.accounts import TradeEnv
from module.model.credentials import Credentials
from module.model.errors import Conflict, Forbidden, InvalidInput, NotFound
from module.model.market import MarketType
from module.model.orders import Outcome, Side
from module.security.credentials import new_credentials
from module.security.key_files import KeyFolder
from tests.integration.gateway.conftest import OWNER, Installation

READS = ["coor", "cpor", "stor"]
pytestmark = pytest.mark.timeout(120)


@dataclass
class Venue:
    """The installation, and what a person does at the exchange."""

    installation: Installation

    def make_keys(self, **words: object) -> Credentials:
        """Keys of a new demo account at the exchange."""
        keys = new_credentials()
        document = {
            "api_key": keys.api_key,
            "api_secret": keys.api_secret,
            "passphrase": keys.passphrase,
            "futures_usdt": "10007",
            "environment": "demo",
            **words,
        }
        self.installation.simulator.control("POST", "accounts", document)
        return keys

    def add(self, keys: Credentials, *, force: bool = False, url: str | None = None) -> str:
        admin = self.installation.admin()
        try:
            account_id = admin.add_account(
                owner_id=OWNER,
                label=uuid.uuid4().hex,
                venue="bitget",
                market=MarketType.FUTURES,
                trade_env=TradeEnv.DEMO,
                base_url=url or self.installation.simulator.base_url,
                credentials=keys,
                force=force,
            )
        finally:
            admin.close()
        with self.installation.database.transaction() as session:
            session.execute(update(Account).where(Account.account_id == account_id).values(epoch=7))
        return account_id

    def trade(self, account_id: str, side: Side, **changes: object) -> Outcome:
        order = self.installation.order(side, "0.0123", **changes)
        exchange = self.installation.exchange(account_id)
        (result,) = exchange.submit(self.installation.stamp(), [order])
        self.installation.clock.sleep(2)
        return result.outcome


@pytest.fixture
def venue(installation: Installation) -> Venue:
    installation.settings = installation.settings.model_copy(
        update={"allowed_venue_urls": (installation.simulator.base_url,)}
    )
    installation.gateways.pop().stop()
    installation.start_gateway()
    return Venue(installation)


def test_a_demo_account_is_checked_added_looked_at_and_traded(venue: Venue) -> None:
    account_id = venue.add(venue.make_keys())
    venue.installation.clock.sleep(2)  # the exchange tells once a second what a key may do
    admin = venue.installation.admin()
    found = admin.check_account(account_id)
    assert (found.faults, found.equity, found.family) == ((), Decimal(10_007), "classic")
    assert (found.may_trade, found.may_withdraw, found.trade_env) == (True, False, "demo")
    assert venue.trade(account_id, Side.BUY) is Outcome.ACCEPTED
    assert admin.check_account(account_id).positions == 1
    with pytest.raises(Conflict, match="1 position"):
        admin.switch_off_account(account_id, erase_keys=False, force=False)
    assert venue.trade(account_id, Side.SELL, reduce_only=True) is Outcome.ACCEPTED
    venue.installation.clock.sleep(2)
    admin.switch_off_account(account_id, erase_keys=True, force=False)
    with pytest.raises(NotFound, match="no credentials"):
        admin.check_account(account_id)
    admin.close()


def test_the_same_account_of_the_exchange_is_not_added_twice(venue: Venue) -> None:
    keys = venue.make_keys()
    venue.add(keys)
    venue.installation.clock.sleep(2)
    with pytest.raises(Conflict, match="one writer"):
        venue.add(keys)


def test_S34_A16_keys_that_do_not_fit_are_refused_with_the_reason(venue: Venue) -> None:
    risky = venue.make_keys(authorities=[*READS, "coow", "wwow"])
    with pytest.raises(Forbidden, match="withdraw"):
        venue.add(risky)
    venue.installation.clock.sleep(2)
    assert venue.add(risky, force=True)
    with pytest.raises(Forbidden, match="may not trade futures"):
        venue.add(venue.make_keys(authorities=READS))
    with pytest.raises(Forbidden):
        venue.add(new_credentials())
    with pytest.raises(Conflict, match="hedge"):
        venue.add(venue.make_keys(position_mode="hedge"))
    with pytest.raises(InvalidInput, match="not an allowed exchange address"):
        venue.add(venue.make_keys(), url="https://api.bitget.example")


def test_keys_of_another_account_are_refused_and_the_old_ones_trade_on(venue: Venue) -> None:
    first, other = venue.make_keys(), venue.make_keys()
    account_id = venue.add(first)
    venue.installation.clock.sleep(2)
    admin = venue.installation.admin()
    with pytest.raises(Conflict, match="another account"):
        admin.replace_keys(account_id, other)
    assert venue.installation.keys(account_id) == first
    venue.installation.clock.sleep(2)
    admin.replace_keys(account_id, first)
    admin.close()
    assert venue.trade(account_id, Side.BUY) is Outcome.ACCEPTED


def test_S31_a_rotation_of_keys_at_rest_is_not_noticed_by_who_trades(venue: Venue) -> None:
    account_id, other = venue.add(venue.make_keys()), venue.add(venue.make_keys())
    assert venue.trade(account_id, Side.BUY) is Outcome.ACCEPTED
    rows = CredentialKeyRepository(venue.installation.database)
    folder = KeyFolder(venue.installation.settings.data_dir / "secrets")
    now = venue.installation.clock.now()
    with rows.rotating():
        report = rotate_keys(folder, rows, now, lambda _line: None)
    assert (report.failed, report.retired) == ((), (report.version - 1,))
    for trading in (account_id, other):
        assert venue.trade(trading, Side.BUY) is Outcome.ACCEPTED
    assert venue.add(venue.make_keys())
    assert rows.counts()[report.version] >= 3
