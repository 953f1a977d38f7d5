"""Moves every account's credentials to a new key version, and retires the old ones.

`aifap keys rotate` ─► new key file ─► row by row: open, seal, verify, commit ─► old keys retire

May be killed at any moment and run again: the new key is durable before any row needs it, each row
moves in a transaction of its own, and a key retires only when the database holds no row that needs
it. A gateway that runs takes the new version up with the first row it reads; accounts that are open
there are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from module.db.repositories.credential_keys import SealedRow
from module.model.credentials import SealedCredentials
from module.model.errors import InvalidInput, InvariantViolated
from module.security.credentials import (
    CredentialsUnreadable,
    KeyRing,
    fingerprint,
    open_credentials,
    seal_credentials,
)
from module.security.key_files import KeyFolder


class SealedRows(Protocol):
    """The stored side: `module.db.repositories.credential_keys.CredentialKeyRepository`."""

    def counts(self) -> dict[int, int]: ...

    def rows_below(self, key_version: int) -> list[SealedRow]: ...

    def admit(self, key_version: int) -> None: ...

    def reseal(
        self,
        account_id: str,
        at: datetime,
        work: Callable[[SealedCredentials], SealedCredentials],
    ) -> None: ...

    def retire(self, key_version: int) -> int: ...


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key version: how many rows need it, and what its file is. `newest` seals new rows."""

    version: int
    rows: int
    fingerprint: str
    newest: bool
    retired: bool

    @property
    def missing(self) -> bool:
        """Rows need it, and it is not here."""
        return self.rows > 0 and not self.fingerprint


@dataclass(frozen=True, slots=True)
class RotationReport:
    """What a rotation did. `failed`: rows that do not open, with the reason; they kept their key.

    `kept_files`: retired versions whose files could not be moved (a mounted Secret).
    """

    version: int
    created: bool
    moved: int
    failed: tuple[tuple[SealedRow, str], ...]
    retired: tuple[int, ...]
    kept_files: tuple[int, ...]


def list_keys(folder: KeyFolder, rows: SealedRows) -> list[KeyLine]:
    """Every version that is here, was here, or is needed; oldest first."""
    keys, counts, retired = folder.read(), rows.counts(), set(folder.retired())
    return [
        KeyLine(
            version=version,
            rows=counts.get(version, 0),
            fingerprint=fingerprint(keys[version]) if version in keys else "",
            newest=version == max(keys),
            retired=version in retired and version not in keys,
        )
        for version in sorted(set(keys) | set(counts) | retired)
    ]


def rotate_keys(
    folder: KeyFolder, rows: SealedRows, at: datetime, say: Callable[[str], None]
) -> RotationReport:
    """One rotation to its end; the caller holds `CredentialKeyRepository.rotating`.

    Goes on with one that was interrupted (more than one version is here), else begins with a new
    key. Unavailable where the folder is read-only and holds one version only.
    """
    keys = folder.read()
    created = len(keys) == 1
    if created:
        folder.create(_next_version(keys, rows.counts(), folder.retired()))
        keys = folder.read()
    newest = max(keys)
    say(f"{'new key' if created else 'going on with key'} version {newest}")
    rows.admit(newest)
    moved, failed = _move_rows(rows, keys, newest, at, say)
    retired, kept = [], []
    for version in sorted(set(keys) - {newest}):
        if rows.retire(version):
            continue
        retired.append(version)
        if not folder.retire(version):
            kept.append(version)
    return RotationReport(newest, created, moved, tuple(failed), tuple(retired), tuple(kept))


def _next_version(keys: Mapping[int, str], counts: Mapping[int, int], retired: list[int]) -> int:
    """Above everything that was ever used, so that no number ever means two keys."""
    return max([*keys, *counts, *retired]) + 1


def _move_rows(
    rows: SealedRows,
    keys: Mapping[int, str],
    newest: int,
    at: datetime,
    say: Callable[[str], None],
) -> tuple[int, list[tuple[SealedRow, str]]]:
    ring = KeyRing(lambda: keys)
    moved, failed = 0, []
    for row in rows.rows_below(newest):

        def move(sealed: SealedCredentials, account_id: str = row.account_id) -> SealedCredentials:
            if sealed.key_version >= newest:
                return sealed  # saved again meanwhile
            credentials = ring.open(sealed, account_id)
            fresh = seal_credentials(credentials, account_id, keys[newest], newest)
            if open_credentials(fresh, account_id, keys[newest]) != credentials:
                raise InvariantViolated(f"credentials of {account_id} do not survive resealing")
            return fresh

        try:
            rows.reseal(row.account_id, at, move)
        except (CredentialsUnreadable, InvalidInput) as error:
            failed.append((row, error.message))
            say(f"account {row.label} ({row.account_id}) stays behind: {error.message}")
            continue
        moved += 1
    return moved, failed
