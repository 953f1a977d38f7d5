"""Exchange keys at rest: AES-256-GCM, bound to the account and the key version.

The associated data is account id and key version, so that a ciphertext that was moved to another
row, or relabelled, does not open. A `KeyRing` holds the versions: new ones seal with the newest,
each opens with its own. Only the gateway's room opens credentials.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Mapping

from module.model.credentials import Credentials, SealedCredentials
from module.model.errors import Forbidden, InvalidInput

FIRST_KEY_VERSION = 1
KEY_LENGTH_MIN = 32
_NONCE_BYTES = 12


class CredentialsUnreadable(Forbidden):
    """Stored credentials do not open: tampered with, of another row, or their key is not here."""

    code = "credentials-unreadable"


def new_credentials() -> Credentials:
    """Keys for a paper account, made here: 128 and 256 random bits."""
    return Credentials(
        api_key="paper-" + secrets.token_hex(16),
        api_secret=secrets.token_urlsafe(32),
        passphrase=secrets.token_urlsafe(16),
    )


def seal_credentials(
    credentials: Credentials, account_id: str, key: str, key_version: int = FIRST_KEY_VERSION
) -> SealedCredentials:
    """Encrypt for exactly this account with `key`, which is the key ring's `key_version`."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE_BYTES)
    plain = json.dumps(
        [credentials.api_key, credentials.api_secret, credentials.passphrase]
    ).encode()
    body = AESGCM(_derive(key)).encrypt(nonce, plain, _bound_to(account_id, key_version))
    return SealedCredentials(key_version, nonce + body)


def open_credentials(sealed: SealedCredentials, account_id: str, key: str) -> Credentials:
    """Decrypt; CredentialsUnreadable when row, version or key do not belong together."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, body = sealed.ciphertext[:_NONCE_BYTES], sealed.ciphertext[_NONCE_BYTES:]
    try:
        plain = AESGCM(_derive(key)).decrypt(nonce, body, _bound_to(account_id, sealed.key_version))
    except (InvalidTag, ValueError) as error:
        raise CredentialsUnreadable(
            f"the stored credentials of account {account_id} do not open with key version "
            f"{sealed.key_version} of this installation: the row was changed, or the key is "
            "another one; save the account's keys again, or put the right key back"
        ) from error
    api_key, api_secret, passphrase = json.loads(plain)
    return Credentials(api_key, api_secret, passphrase)


class KeyRing:
    """All key versions that are here. `read` gives them anew; thread safe; repr shows none.

    A version that is not known yet is looked for once more, so that a process that runs takes a
    new version up with the first row that needs it.
    """

    def __init__(self, read: Callable[[], Mapping[int, str]]) -> None:
        self._read = read
        self._known: dict[int, str] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"KeyRing(versions {sorted(self._known)})"

    def seal(self, credentials: Credentials, account_id: str) -> SealedCredentials:
        """Encrypt with the newest version there is now."""
        keys = self._fresh()
        newest = max(keys)
        return seal_credentials(credentials, account_id, keys[newest], newest)

    def open(self, sealed: SealedCredentials, account_id: str) -> Credentials:
        """Decrypt with the version that sealed it; CredentialsUnreadable names the account."""
        keys = self._known
        if sealed.key_version not in keys:
            keys = self._fresh()
        key = keys.get(sealed.key_version)
        if key is None:
            raise CredentialsUnreadable(
                f"the stored credentials of account {account_id} need key version "
                f"{sealed.key_version}; this installation has {sorted(keys)}: put that key back, "
                "or save the account's keys again"
            )
        return open_credentials(sealed, account_id, key)

    def _fresh(self) -> dict[int, str]:
        """As it is read now; versions that went away are forgotten."""
        found = dict(self._read())
        if not found:
            raise InvalidInput("there is no key to seal credentials with")
        with self._lock:
            self._known = found
        return found


def fingerprint(key: str) -> str:
    """Eight hexadecimal digits that name a key and say nothing of it."""
    return hashlib.sha256(b"aifap credentials fingerprint\0" + key.encode()).hexdigest()[:8]


def _derive(key: str) -> bytes:
    """256 bits from the installation's random secret (not a password: no stretching needed)."""
    if len(key) < KEY_LENGTH_MIN:
        raise InvalidInput("the credentials key is too short")
    return hashlib.sha256(b"aifap credentials\0" + key.encode()).digest()


def _bound_to(account_id: str, key_version: int) -> bytes:
    return f"account={account_id};key_version={key_version}".encode()
