"""What is done to an account that is there: looked at, given other keys, switched off and on."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from module.model.accounts import PositionMode, TradeEnv
from module.model.credentials import Credentials, SealedCredentials
from module.model.errors import Conflict, Forbidden, Unavailable
from module.model.orders import NO_STOPS, StopPrices
from module.security.credentials import CredentialsUnreadable, KeyRing
from tests.fakes.gateway_rig import GatewayRig, buy, sell
from tests.fakes.gateway_stores import CREDENTIALS_KEY, account
from tests.fakes.memory_venue import MemoryVenue

NEW_KEYS = Credentials("key-of-the-morning", "secret", "pass")


@pytest.fixture
def rig() -> GatewayRig:
    """A demo account whose exchange calls it 777."""
    made = GatewayRig(record=account(trade_env=TradeEnv.DEMO, venue_user_id="777"))
    made.venue.user_id = "777"
    return made


def stored(rig: GatewayRig) -> Credentials:
    ring = KeyRing(lambda: {1: CREDENTIALS_KEY})
    return ring.open(rig.postgres.sealed["acc"], "acc")


def hold(rig: GatewayRig, stops: StopPrices = NO_STOPS) -> None:
    rig.gateway.submit("acc", rig.stamp(), [buy(stops=stops)])


# --- a look ---------------------------------------------------------------------------------------


def test_a_check_tells_what_the_exchange_says(rig: GatewayRig) -> None:
    rig.venue.skew_s = 2.5
    found = rig.gateway.check_account("acc")
    assert (found.faults, found.may_trade, found.family) == ((), True, "classic")
    assert (found.equity, found.positions, found.open_orders) == (Decimal(10_007), 0, 0)
    assert (found.clock_ahead_ms, found.position_mode) == (2500, PositionMode.ONE_WAY)
    assert found.warnings == ("the exchange's clock is +2.5 s from this machine's",)


def test_a_check_lists_everything_that_keeps_the_account_from_trading(rig: GatewayRig) -> None:
    rig.venue.authorities = ("coor", "wwow")
    rig.venue.position_mode = PositionMode.HEDGE
    rig.venue.shares_collateral = True
    rig.venue.skew_s = -40
    rig.venue.user_id = "778"
    found = rig.gateway.check_account("acc")
    for number, word in enumerate(("may not trade", "hedge", "collateral", "clock", "another")):
        assert word in found.faults[number]
    assert len(found.faults) == 5
    assert "withdraw" in found.warnings[0]


def test_a_live_account_warns_that_its_money_is_real(rig: GatewayRig) -> None:
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], trade_env=TradeEnv.LIVE)
    assert "real money" in rig.gateway.check_account("acc").warnings[0]


def test_A16_refused_keys_are_told_as_the_exchange_tells_them(rig: GatewayRig) -> None:
    rig.venue.script["check_key"].append(Forbidden("Bitget 40037: no such key", code="40037"))
    with pytest.raises(Forbidden, match="40037"):
        rig.gateway.check_account("acc")


def test_S30_a_row_that_does_not_open_names_its_account_and_harms_no_other(
    rig: GatewayRig,
) -> None:
    rig.postgres.put_account(account("bcc", label="other"))
    rig.postgres.sealed["acc"] = rig.postgres.sealed["bcc"]
    rig.venues.by_account["bcc"] = MemoryVenue(rig.clock, "bcc")
    for ask in (rig.gateway.check_account, rig.gateway.snapshot):
        with pytest.raises(CredentialsUnreadable, match="account acc do not open"):
            ask("acc")
    assert rig.gateway.snapshot("bcc").equity == Decimal(10_007)


# --- other keys -----------------------------------------------------------------------------------


def test_new_keys_are_checked_saved_and_used_from_the_next_order_on(rig: GatewayRig) -> None:
    hold(rig)
    rig.postgres.living["acc"] = "2611211130-ab3x"
    rig.gateway.replace_keys("acc", NEW_KEYS, force=False)
    assert stored(rig) == NEW_KEYS
    assert rig.postgres.records["acc"].key_hint == "…ning"
    assert rig.venues.opened[-1].credentials == NEW_KEYS
    rig.gateway.submit("acc", rig.stamp(), [sell()])
    assert len(rig.venues.opened) == 3, "first keys, the check of the new ones, the new ones"


def test_keys_of_another_account_of_the_exchange_are_refused(rig: GatewayRig) -> None:
    before = stored(rig)
    rig.venue.user_id = "778"
    with pytest.raises(Conflict, match="another account"):
        rig.gateway.replace_keys("acc", NEW_KEYS, force=False)
    assert stored(rig) == before


def test_while_a_session_trades_only_proven_keys_are_taken(rig: GatewayRig) -> None:
    rig.postgres.living["acc"] = "2611211130-ab3x"
    rig.postgres.records["acc"] = replace(rig.postgres.records["acc"], venue_user_id="")
    with pytest.raises(Conflict):
        rig.gateway.replace_keys("acc", NEW_KEYS, force=False)
    del rig.postgres.living["acc"]
    rig.gateway.replace_keys("acc", NEW_KEYS, force=False)
    assert rig.postgres.records["acc"].venue_user_id == "777"


def test_S34_new_keys_that_may_withdraw_are_refused_unless_forced(rig: GatewayRig) -> None:
    rig.venue.authorities = ("coow", "wwow")
    with pytest.raises(Forbidden, match="withdraw"):
        rig.gateway.replace_keys("acc", NEW_KEYS, force=False)
    rig.gateway.replace_keys("acc", NEW_KEYS, force=True)
    assert stored(rig) == NEW_KEYS


def test_A16_keys_that_the_exchange_refuses_are_not_saved(rig: GatewayRig) -> None:
    before = stored(rig)
    rig.venue.script["check_key"].append(Forbidden("no such key", code="40037"))
    with pytest.raises(Forbidden):
        rig.gateway.replace_keys("acc", NEW_KEYS, force=True)
    assert stored(rig) == before


def test_the_keys_of_a_paper_account_are_not_replaced() -> None:
    with pytest.raises(Forbidden, match="paper"):
        GatewayRig().gateway.replace_keys("acc", NEW_KEYS, force=True)


# --- off and on -----------------------------------------------------------------------------------


def test_a_flat_idle_account_is_switched_off_and_trades_no_more(rig: GatewayRig) -> None:
    rig.gateway.snapshot("acc")
    rig.gateway.switch_off_account("acc", erase_keys=False, force=False)
    assert not rig.postgres.records["acc"].active
    assert rig.venue.closed
    for attempt in (lambda: rig.gateway.snapshot("acc"), lambda: hold(rig)):
        with pytest.raises(Conflict, match="switched off"):
            attempt()
    rig.gateway.switch_on_account("acc")
    hold(rig)


def test_an_account_that_holds_anything_is_not_switched_off(rig: GatewayRig) -> None:
    hold(rig, StopPrices(Decimal(50_000), None))
    for force in (False, True):
        with pytest.raises(Conflict, match="1 position"):
            rig.gateway.switch_off_account("acc", erase_keys=True, force=force)
    assert rig.postgres.records["acc"].active
    assert "acc" in rig.postgres.sealed


def test_an_account_with_a_session_is_not_switched_off(rig: GatewayRig) -> None:
    rig.postgres.living["acc"] = "2611211130-ab3x"
    with pytest.raises(Conflict, match="2611211130-ab3x"):
        rig.gateway.switch_off_account("acc", erase_keys=False, force=True)


def test_an_exchange_that_does_not_answer_needs_force(rig: GatewayRig) -> None:
    for force in (False, True):
        rig.venue.script["snapshot"].append(Unavailable("the exchange does not answer"))
        if not force:
            with pytest.raises(Unavailable, match="insist with force"):
                rig.gateway.switch_off_account("acc", erase_keys=True, force=force)
            continue
        rig.gateway.switch_off_account("acc", erase_keys=True, force=force)
    assert "acc" not in rig.postgres.sealed


def test_switching_on_asks_the_exchange_first(rig: GatewayRig) -> None:
    rig.gateway.switch_off_account("acc", erase_keys=False, force=False)
    rig.venue.script["check_key"].append(Forbidden("no such key"))
    with pytest.raises(Forbidden):
        rig.gateway.switch_on_account("acc")
    assert not rig.postgres.records["acc"].active


def test_a_version_of_a_key_that_is_not_here_is_named(rig: GatewayRig) -> None:
    sealed = rig.postgres.sealed["acc"]
    rig.postgres.sealed["acc"] = SealedCredentials(3, sealed.ciphertext)
    with pytest.raises(CredentialsUnreadable, match="key version 3"):
        rig.gateway.check_account("acc")
