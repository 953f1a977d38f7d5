"""Who is calling: keys, signatures, timestamps, the demo header.

A signature is accepted over the query as it was sent and over its percent-decoded form; a
timestamp is accepted in wall time and in world time, because a client may read either clock.
A key whose secret is a PEM public key is an RSA key: its client signs with the private half.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_plus

from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_params import Params, wrong

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

TIMESTAMP_WINDOW_MS = 30_000
RECEIVE_WINDOW_MS_MAX = 60_000

READ_AUTHORITIES = ("coor", "cpor", "stor")
TRADE_AUTHORITIES = ("coow", "cpow", "stow")
WITHDRAW_AUTHORITY = "wwow"
_OTHER_AUTHORITIES = ("smor", "ttor", "wtor", "taxr", "chor", "p2pr")
_OTHER_WRITE_AUTHORITIES = ("smow", "ttow", "wtow", "chow", "p2p")
KNOWN_AUTHORITIES = frozenset(
    (
        *READ_AUTHORITIES,
        *TRADE_AUTHORITIES,
        *_OTHER_AUTHORITIES,
        *_OTHER_WRITE_AUTHORITIES,
        WITHDRAW_AUTHORITY,
    )
)
DEFAULT_AUTHORITIES = (*TRADE_AUTHORITIES, *READ_AUTHORITIES)
"""What a key may do, in Bitget's words: futures orders, futures positions, spot; write and read."""

PUBLIC_KEY_MARK = "-----BEGIN PUBLIC KEY-----"

ENVIRONMENTS = ("paper", "demo")
"""A paper account has an ordinary key; a demo account's key needs the demo header."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Credentials of one account and what they allow. Never printed: repr hides the secrets.

    `api_secret` is the HMAC secret, or the PEM text of an RSA public key.
    """

    api_key: str
    api_secret: str
    passphrase: str
    account_id: str
    environment: str = "paper"
    authorities: tuple[str, ...] = DEFAULT_AUTHORITIES

    def __repr__(self) -> str:
        return f"ApiKey(account_id={self.account_id!r}, environment={self.environment!r})"

    def allows(self, authority: str) -> bool:
        """Whether it may do what `authority` names; writing includes reading."""
        if authority in self.authorities:
            return True
        return authority.endswith("r") and authority[:-1] + "w" in self.authorities


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of a request that its signature covers, and its headers (lower case names)."""

    method: str
    path: str
    query: str
    body: bytes
    headers: Mapping[str, str]


def signature_fits(request: SignedRequest, secret: str) -> bool:
    """Whether the request was signed with this secret (or the private half of this public key)."""
    try:
        sent = base64.b64decode(request.headers["access-sign"], validate=True)
    except (binascii.Error, ValueError):
        return False
    forms = {request.query, unquote(request.query), unquote_plus(request.query)}
    stamp = request.headers["access-timestamp"]
    fits = False
    for query in sorted(forms):
        head = f"{stamp}{request.method}{request.path}{'?' + query if query else ''}"
        fits |= _one_fits(secret, head.encode() + request.body, sent)
    return fits


def authenticate(
    request: SignedRequest,
    keys: Mapping[str, ApiKey],
    world_ms: int,
    wall_ms: int,
    fits: Callable[[SignedRequest, str], bool] = signature_fits,
) -> ApiKey:
    """The key that signed the request; WireError says what is wrong with it."""
    headers = request.headers
    for name, code in (
        ("access-key", "40001"),
        ("access-sign", "40002"),
        ("access-timestamp", "40003"),
        ("access-passphrase", "40011"),
    ):
        if not headers.get(name):
            raise WireError(code, f"{name.upper().replace('-', '_')} cannot be empty")
    stamp = headers["access-timestamp"]
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > 16:
        raise WireError("40005", "Invalid ACCESS_TIMESTAMP")
    if not is_near(int(stamp), TIMESTAMP_WINDOW_MS, world_ms, wall_ms):
        raise WireError("40008", "Request timestamp expired")
    key = keys.get(headers["access-key"])
    if key is None:
        raise WireError("40006", "Invalid ACCESS_KEY")
    if not fits(request, key.api_secret):
        raise WireError("40009", "sign signature error")
    if not hmac.compare_digest(headers["access-passphrase"].encode(), key.passphrase.encode()):
        raise WireError("40012", "apikey/password is incorrect")
    demo = headers.get("paptrading") == "1"
    if demo != (key.environment == "demo"):
        raise WireError("40099", "exchange environment is incorrect")
    return key


def require_authority(key: ApiKey, authority: str) -> None:
    """40014 unless the key may do it."""
    if not key.allows(authority):
        raise WireError("40014", "Incorrect permissions, need " + authority)


def check_receive_window(params: Params, world_ms: int, wall_ms: int) -> None:
    """Spot orders may carry requestTime and receiveWindow: outside of it they are refused."""
    sent_ms = params.optional_ms("requestTime")
    window_ms = params.optional_ms("receiveWindow")
    if sent_ms is None or window_ms is None:
        return
    if window_ms >= RECEIVE_WINDOW_MS_MAX:
        raise WireError("40079", "receiveWindow must be less than 60 s")
    if not is_near(sent_ms, window_ms, world_ms, wall_ms):
        raise WireError("40078", "requestTime is outside of the receiveWindow")


def is_near(stamp_ms: int, window_ms: int, world_ms: int, wall_ms: int) -> bool:
    """Whether `stamp_ms` is within the window of either clock."""
    return min(abs(stamp_ms - world_ms), abs(stamp_ms - wall_ms)) <= window_ms


def sign(secret: str, message: bytes) -> str:
    """Base64 of HMAC-SHA256, as clients send it."""
    return base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()


def check_authorities(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if all are known permissions."""
    for name in names:
        if name not in KNOWN_AUTHORITIES:
            raise wrong("authorities", name)
    return names


def check_public_key(pem: str) -> str:
    """The PEM text of an RSA public key; ValueError or TypeError when it is not one."""
    _rsa_key(pem)
    return pem


def _one_fits(secret: str, message: bytes, sent: bytes) -> bool:
    if secret.startswith(PUBLIC_KEY_MARK):
        return _rsa_fits(secret, message, sent)
    wanted = hmac.new(secret.encode(), message, hashlib.sha256).digest()
    return hmac.compare_digest(sent, wanted)


def _rsa_fits(pem: str, message: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        _rsa_key(pem).verify(signature, message, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=64)
def _rsa_key(pem: str) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(pem.encode())
    if not isinstance(key, RSAPublicKey):
        raise TypeError("the public key is not an RSA key")
    return key
