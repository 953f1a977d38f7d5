"""Exchange keys as they travel inside the installation: never printed, sealed where they rest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys of one account on its venue. Never printed: repr and str are masked."""

    api_key: str
    api_secret: str
    passphrase: str

    def __repr__(self) -> str:
        return "Credentials(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    @property
    def hint(self) -> str:
        """What may be shown: the last four characters of the key (fewer where it is short)."""
        return "…" + self.api_key[-4:] if len(self.api_key) > 8 else "…"


@dataclass(frozen=True, slots=True)
class SealedCredentials:
    """What is stored: nonce and ciphertext, and the version of the key that sealed it."""

    key_version: int
    ciphertext: bytes
