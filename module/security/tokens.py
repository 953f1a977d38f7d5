"""Signed grants: how one part of an installation proves to another what it may open.

A session's processes show a *session* grant: it opens exactly one account. A service of our own
(market collector, platform API) shows a *service* grant: it opens public market data, the opening
of paper accounts and the saving of credentials, and no account's orders.

A scraper shows a *scrape* grant: it opens the numbers of `/metrics` and nothing else.

A token is `afg1.<payload>.<signature>`: base64url of canonical JSON, then HMAC-SHA256 over the
first two parts. There is one algorithm and no header that could name another. Grants do not
expire; they end when `token_key` is replaced.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from module.model.canonical import canonical_json
from module.model.errors import Forbidden, InvalidInput, Unauthenticated

_VERSION = "afg1"
_TOKEN_LENGTH_MAX = 2048
_FIELDS = frozenset({"kind", "account_id", "session_id", "owner_id", "name"})

GrantKind = Literal["session", "service", "scrape"]


@dataclass(frozen=True, slots=True)
class Grant:
    """What the bearer may open. A session grant names its account, session and owner."""

    kind: GrantKind
    account_id: str = ""
    session_id: str = ""
    owner_id: str = ""
    name: str = ""

    def opens_account(self, account_id: str) -> None:
        """Return if this grant opens `account_id`; Forbidden otherwise."""
        if self.kind != "session" or not account_id or self.account_id != account_id:
            raise Forbidden("this token does not open that account")

    def opens_services(self) -> None:
        """Return if this is a service grant; Forbidden otherwise."""
        if self.kind != "service":
            raise Forbidden("this needs a service token")

    def opens_metrics(self) -> None:
        """Return if this grant opens `/metrics`: a scraper's, or a service's; else Forbidden."""
        if self.kind not in ("scrape", "service"):
            raise Forbidden("this needs a scraper's token")


def session_grant(account_id: str, session_id: str, owner_id: str) -> Grant:
    """The grant of one session: its account, for reading and writing."""
    return Grant("session", account_id=account_id, session_id=session_id, owner_id=owner_id)


def service_grant(name: str) -> Grant:
    """The grant of one of our own services, e.g. `market` or `platform`."""
    return Grant("service", name=name)


def scrape_grant(name: str) -> Grant:
    """The grant of whoever reads metrics."""
    return Grant("scrape", name=name)


def mint_grant(grant: Grant, key: str) -> str:
    """The token that spells `grant`, signed with `key` (`settings.secret("token_key")`)."""
    if grant.kind == "session" and not (grant.account_id and grant.session_id):
        raise InvalidInput("a session grant names its account and its session")
    payload = _encode(canonical_json(asdict(grant)).encode())
    return f"{_VERSION}.{payload}.{_encode(_signature(payload, key))}"


def read_grant(token: str, key: str) -> Grant:
    """The grant that `token` spells; Unauthenticated unless `key` signed exactly this text."""
    parts = token.split(".")
    if len(token) > _TOKEN_LENGTH_MAX or len(parts) != 3 or parts[0] != _VERSION:
        raise Unauthenticated("not a token of this installation")
    try:
        signature = _decode(parts[2])
        expected = _signature(parts[1], key)
        if not hmac.compare_digest(signature, expected):
            raise Unauthenticated("not a token of this installation")
        loaded = json.loads(_decode(parts[1]))
    except (ValueError, binascii.Error) as error:
        raise Unauthenticated("not a token of this installation") from error
    return _grant_from(loaded)


def bearer_token(authorization: str | None) -> str:
    """The token of an `Authorization: Bearer …` header; Unauthenticated without one."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send the header Authorization: Bearer <token>")
    return token.strip()


def _grant_from(loaded: object) -> Grant:
    if (
        not isinstance(loaded, dict)
        or set(loaded) != _FIELDS
        or not all(isinstance(value, str) for value in loaded.values())
        or loaded["kind"] not in get_args(GrantKind)
    ):
        raise Unauthenticated("not a token of this installation")
    return Grant(**loaded)


def _signature(payload: str, key: str) -> bytes:
    if len(key) < 16:
        raise InvalidInput("the token key is too short to sign with")
    return hmac.new(key.encode(), f"{_VERSION}.{payload}".encode(), hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    if not text.isascii() or any(c in "+/=" for c in text):
        raise ValueError("not base64url")
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encode(raw) != text:
        raise ValueError("not the one spelling")
    return raw
