"""Exchange keys at rest: AES-256-GCM, bound to the account and the key version.

The associated data is account id and key version, so that a ciphertext that was moved to another
row, or relabelled, does not open. Only the gateway calls `open_credentials`.
"""

from __future__ import annotations

import hashlib
import json
import secrets

from module.model.credentials import Credentials, SealedCredentials
from module.model.errors import InvalidInput, InvariantViolated

CURRENT_KEY_VERSION = 1
_NONCE_BYTES = 12


def new_credentials() -> Credentials:
    """Keys for a paper account, made here: 128 and 256 random bits."""
    return Credentials(
        api_key="paper-" + secrets.token_hex(16),
        api_secret=secrets.token_urlsafe(32),
        passphrase=secrets.token_urlsafe(16),
    )


def seal_credentials(credentials: Credentials, account_id: str, key: str) -> SealedCredentials:
    """Encrypt for exactly this account with `key` (`settings.secret("credentials_key")`)."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE_BYTES)
    plain = json.dumps(
        [credentials.api_key, credentials.api_secret, credentials.passphrase]
    ).encode()
    body = AESGCM(_derive(key)).encrypt(nonce, plain, _bound_to(account_id, CURRENT_KEY_VERSION))
    return SealedCredentials(CURRENT_KEY_VERSION, nonce + body)


def open_credentials(sealed: SealedCredentials, account_id: str, key: str) -> Credentials:
    """Decrypt; InvariantViolated when row, version or key do not belong together."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, body = sealed.ciphertext[:_NONCE_BYTES], sealed.ciphertext[_NONCE_BYTES:]
    try:
        plain = AESGCM(_derive(key)).decrypt(nonce, body, _bound_to(account_id, sealed.key_version))
    except (InvalidTag, ValueError) as error:
        raise InvariantViolated(
            f"stored credentials of account {account_id} do not open with this installation's key; "
            "save them again"
        ) from error
    api_key, api_secret, passphrase = json.loads(plain)
    return Credentials(api_key, api_secret, passphrase)


def _derive(key: str) -> bytes:
    """256 bits from the installation's random secret (not a password: no stretching needed)."""
    if len(key) < 32:
        raise InvalidInput("the credentials key is too short")
    return hashlib.sha256(b"aifap credentials\0" + key.encode()).digest()


def _bound_to(account_id: str, key_version: int) -> bytes:
    return f"account={account_id};key_version={key_version}".encode()
