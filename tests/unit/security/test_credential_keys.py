"""Key versions of stored credentials: files, the ring that opens, the rotation that moves rows."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from module.db.repositories.credential_keys import SealedRow
from module.gateway.key_rotation import list_keys, rotate_keys
from module.model.credentials import Credentials, SealedCredentials
from module.model.errors import InvalidInput
from module.security.credentials import (
    CredentialsUnreadable,
    KeyRing,
    new_credentials,
    seal_credentials,
)
from module.security.key_files import KeyFolder

NOW = datetime(2026, 11, 21, 12, 7, tzinfo=UTC)


class KilledError(Exception):
    """The process ends here."""


@dataclass
class MemoryRows:
    """Stored rows; `dies_at` counts down the calls until the process is killed in one."""

    rows: dict[str, SealedCredentials] = field(default_factory=dict)
    admitted: set[int] = field(default_factory=set)
    dies_at: int = 1_000_000

    def _lives(self) -> None:
        self.dies_at -= 1
        if self.dies_at < 0:
            raise KilledError

    def counts(self) -> dict[int, int]:
        found = dict.fromkeys(self.admitted, 0)
        for sealed in self.rows.values():
            found[sealed.key_version] = found.get(sealed.key_version, 0) + 1
        return found

    def rows_below(self, key_version: int) -> list[SealedRow]:
        self._lives()
        return [
            SealedRow(account_id, f"label of {account_id}", sealed.key_version)
            for account_id, sealed in sorted(self.rows.items())
            if sealed.key_version < key_version
        ]

    def admit(self, key_version: int) -> None:
        self._lives()
        self.admitted.add(key_version)

    def reseal(
        self,
        account_id: str,
        at: datetime,
        work: Callable[[SealedCredentials], SealedCredentials],
    ) -> None:
        self._lives()
        self.rows[account_id] = work(self.rows[account_id])
        self._lives()

    def retire(self, key_version: int) -> int:
        self._lives()
        needed = sum(sealed.key_version == key_version for sealed in self.rows.values())
        if not needed:
            self.admitted.discard(key_version)
        self._lives()
        return needed


@dataclass
class Vault:
    """A folder with keys, rows, and what the rows should open to."""

    folder: KeyFolder
    rows: MemoryRows = field(default_factory=MemoryRows)
    secrets: dict[str, Credentials] = field(default_factory=dict)

    def save(self, *account_ids: str) -> None:
        ring = KeyRing(self.folder.read)
        for account_id in account_ids:
            self.secrets[account_id] = new_credentials()
            sealed = ring.seal(self.secrets[account_id], account_id)
            self.rows.admitted.add(sealed.key_version)
            self.rows.rows[account_id] = sealed

    def opens(self) -> None:
        ring = KeyRing(self.folder.read)
        for account_id, sealed in self.rows.rows.items():
            assert ring.open(sealed, account_id) == self.secrets[account_id]

    def rotate(self) -> tuple[int, int, tuple[int, ...]]:
        report = rotate_keys(self.folder, self.rows, NOW, lambda _line: None)
        return report.version, report.moved, report.retired


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    vault = Vault(KeyFolder(tmp_path / "secrets"))
    vault.save("acc-a", "acc-b", "acc-c")
    return vault


def test_the_first_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "secrets")
    assert folder.read() == folder.read()
    path = tmp_path / "secrets" / "credentials_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["credentials_key"]


def test_S31_a_rotation_moves_every_row_and_retires_the_old_key(vault: Vault) -> None:
    before = dict(vault.rows.rows)
    assert vault.rotate() == (2, 3, (1,))
    vault.opens()
    assert set(vault.folder.read()) == {2}
    assert vault.folder.retired() == [1]
    assert all(vault.rows.rows[name].ciphertext != row.ciphertext for name, row in before.items())
    assert vault.rotate() == (3, 3, (2,))
    vault.opens()


def test_S31_a_rotation_that_is_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    for moment in range(14):
        vault = Vault(KeyFolder(tmp_path / str(moment)))
        vault.save("acc-a", "acc-b", "acc-c")
        vault.rows.dies_at = moment
        try:
            vault.rotate()
        except KilledError:
            vault.opens()
            vault.rows.dies_at = 1_000_000
            vault.rotate()
        vault.opens()
        assert vault.rows.counts() == {2: 3}, moment
        assert set(vault.folder.read()) == {2}


def test_a_running_ring_takes_the_new_version_up_without_being_told(vault: Vault) -> None:
    running = KeyRing(vault.folder.read)
    running.open(vault.rows.rows["acc-a"], "acc-a")
    vault.rotate()
    assert running.open(vault.rows.rows["acc-b"], "acc-b") == vault.secrets["acc-b"]
    assert running.seal(vault.secrets["acc-a"], "acc-a").key_version == 2


def test_S30_a_row_that_was_changed_or_swapped_is_named_and_harms_no_other(vault: Vault) -> None:
    rows = vault.rows.rows
    rows["acc-a"], rows["acc-b"] = rows["acc-b"], rows["acc-a"]
    ring = KeyRing(vault.folder.read)
    for account_id in ("acc-a", "acc-b"):
        with pytest.raises(CredentialsUnreadable, match=f"account {account_id} do not open"):
            ring.open(rows[account_id], account_id)
    assert ring.open(rows["acc-c"], "acc-c") == vault.secrets["acc-c"]
    report = rotate_keys(vault.folder, vault.rows, NOW, lambda _line: None)
    assert (report.moved, report.retired) == (1, ())
    assert [row.account_id for row, _ in report.failed] == ["acc-a", "acc-b"]
    assert set(vault.folder.read()) == {1, 2}, "a key that a row needs stays"


def test_S31_rows_that_stayed_behind_move_once_they_are_mended(vault: Vault) -> None:
    good = vault.rows.rows["acc-a"]
    vault.rows.rows["acc-a"] = SealedCredentials(1, b"\0" * len(good.ciphertext))
    vault.rotate()
    vault.rows.rows["acc-a"] = good
    assert vault.rotate() == (2, 1, (1,))
    vault.opens()


def test_S30_a_relabelled_row_does_not_open(vault: Vault) -> None:
    vault.folder.create(2)
    sealed = vault.rows.rows["acc-a"]
    with pytest.raises(CredentialsUnreadable):
        KeyRing(vault.folder.read).open(SealedCredentials(2, sealed.ciphertext), "acc-a")


def test_a_row_whose_key_is_not_here_says_which_key_to_put_back(vault: Vault) -> None:
    sealed = seal_credentials(new_credentials(), "acc-d", "x" * 40, 7)
    with pytest.raises(CredentialsUnreadable, match=r"acc-d need key version 7; .* has \[1\]"):
        KeyRing(vault.folder.read).open(sealed, "acc-d")
    vault.rows.rows["acc-d"] = sealed
    line = next(line for line in list_keys(vault.folder, vault.rows) if line.version == 7)
    assert line.missing


def test_the_list_says_which_key_seals_and_how_many_rows_need_each(vault: Vault) -> None:
    vault.rotate()
    vault.save("acc-d")
    lines = list_keys(vault.folder, vault.rows)
    assert [(line.version, line.rows, line.newest, line.retired) for line in lines] == [
        (1, 0, False, True),
        (2, 4, True, False),
    ]
    key = vault.folder.read()[2]
    assert lines[1].fingerprint not in ("", key[:8])


def test_S21_neither_ring_nor_report_prints_a_key(vault: Vault) -> None:
    ring = KeyRing(vault.folder.read)
    ring.open(vault.rows.rows["acc-a"], "acc-a")
    keys = vault.folder.read()
    report = rotate_keys(vault.folder, vault.rows, NOW, lambda _line: None)
    for key in [*keys.values(), *vault.folder.read().values()]:
        assert key not in f"{ring!r} {report!r} {vault.folder!r}"


@pytest.mark.parametrize("content", ["", "short", "\n"])
def test_a_file_that_holds_no_key_is_refused_by_name(vault: Vault, content: str) -> None:
    (vault.folder.folder / "credentials_key.2").write_text(content)
    with pytest.raises(InvalidInput, match=r"credentials_key\.2 holds no key"):
        vault.folder.read()


def test_lost_keys_are_not_replaced_by_new_ones(vault: Vault) -> None:
    vault.rotate()
    (vault.folder.folder / "credentials_key.2").unlink()
    with pytest.raises(InvalidInput, match="retired keys only"):
        vault.folder.read()
