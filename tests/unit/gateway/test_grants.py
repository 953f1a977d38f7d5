"""Grants and sealed credentials: proofs that cannot be forged, secrets that do not show."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from module.exchange.venue import VenueAccess
from module.gateway.account_opening import NewAccount
from module.model.accounts import TradeEnv
from module.model.credentials import Credentials, SealedCredentials
from module.model.errors import Forbidden, InvalidInput, Unauthenticated
from module.model.market import MarketType
from module.security.credentials import (
    CredentialsUnreadable,
    new_credentials,
    open_credentials,
    seal_credentials,
)
from module.security.tokens import (
    bearer_token,
    mint_grant,
    read_grant,
    service_grant,
    session_grant,
)

KEY = "a-token-key-of-forty-three-characters-length"
OTHER_KEY = "another-token-key-of-forty-three-characters"
SECRETS = Credentials("canary-key-1234", "canary-secret", "canary-passphrase")


def test_a_session_grant_opens_its_account_and_no_other() -> None:
    grant = read_grant(mint_grant(session_grant("acc", "2611211130-ab3x", "u"), KEY), KEY)
    grant.opens_account("acc")
    with pytest.raises(Forbidden):
        grant.opens_account("bcc")
    with pytest.raises(Forbidden):
        grant.opens_account("")
    with pytest.raises(Forbidden):
        grant.opens_services()


def test_a_service_grant_opens_no_account() -> None:
    grant = read_grant(mint_grant(service_grant("market"), KEY), KEY)
    grant.opens_services()
    for account_id in ("acc", ""):
        with pytest.raises(Forbidden):
            grant.opens_account(account_id)


def test_a_session_grant_without_an_account_is_not_minted() -> None:
    with pytest.raises(InvalidInput):
        mint_grant(session_grant("", "2611211130-ab3x", "u"), KEY)


@pytest.mark.parametrize(
    "forge",
    [
        lambda t: "",
        lambda t: "afg1..",
        lambda t: t.replace("afg1", "none"),
        lambda t: t.rsplit(".", 1)[0] + ".",
        lambda t: t + "A",
        lambda t: t + "=",
        lambda t: t.replace(".", ". ", 1),
        lambda t: "afg1." + t.split(".")[1][:-2] + "AA." + t.split(".")[2],
        lambda t: t * 40,
        lambda t: mint_grant(session_grant("acc", "2611211130-ab3x", "u"), OTHER_KEY),
    ],
)
def test_S13_a_forged_token_is_nobody(forge: Callable[[str], str]) -> None:
    token = mint_grant(session_grant("acc", "2611211130-ab3x", "u"), KEY)
    with pytest.raises(Unauthenticated):
        read_grant(forge(token), KEY)


@given(st.text(max_size=60))
def test_no_text_of_chance_is_a_token(text: str) -> None:
    with pytest.raises(Unauthenticated):
        read_grant(text, KEY)


def test_a_flipped_character_anywhere_is_noticed() -> None:
    token = mint_grant(service_grant("platform"), KEY)
    for index in range(5, len(token)):
        other = "A" if token[index] != "A" else "B"
        if token[index] == ".":
            continue
        with pytest.raises(Unauthenticated):
            read_grant(token[:index] + other + token[index + 1 :], KEY)


@pytest.mark.parametrize("header", [None, "", "Basic abc", "Bearer", "Bearer  "])
def test_a_header_without_a_bearer_token_is_nobody(header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        bearer_token(header)


def test_sealed_credentials_open_for_their_account_only() -> None:
    sealed = seal_credentials(SECRETS, "acc", KEY)
    assert open_credentials(sealed, "acc", KEY) == SECRETS
    moved: list[tuple[SealedCredentials, str, str]] = [
        (sealed, "bcc", KEY),
        (sealed, "acc", OTHER_KEY),
        (SealedCredentials(2, sealed.ciphertext), "acc", KEY),
        (SealedCredentials(1, sealed.ciphertext[:-1]), "acc", KEY),
        (SealedCredentials(1, b""), "acc", KEY),
    ]
    for wrong, account_id, key in moved:
        with pytest.raises(CredentialsUnreadable, match=account_id):
            open_credentials(wrong, account_id, key)


def test_S30_what_is_stored_holds_nothing_of_the_secrets_and_is_never_the_same() -> None:
    first, second = (seal_credentials(SECRETS, "acc", KEY).ciphertext for _ in range(2))
    assert b"canary" not in first
    assert first != second
    assert first[:12] != second[:12]


def test_S21_nothing_that_carries_secrets_prints_them() -> None:
    access = VenueAccess("acc", "http://x", MarketType.FUTURES, TradeEnv.LIVE, SECRETS)
    wish = NewAccount("o", "l", "bitget", MarketType.FUTURES, TradeEnv.LIVE, "http://x", SECRETS)
    for carrier in (SECRETS, access, wish, [SECRETS], {"a": access}):
        assert "canary" not in f"{carrier} {carrier!r}"
    assert "canary-se" not in SECRETS.hint


def test_new_credentials_are_never_the_same() -> None:
    assert len({new_credentials().api_secret for _ in range(50)}) == 50
