"""Where the key versions of credentials lie: one file each under `<data>/secrets`.

`credentials_key` is version 1, `credentials_key.2` the next, and so on; `retired/` keeps what no
row needs any more, for the backups that still do. The folder may be a mounted Secret: then it is
read-only, and versions are added and removed there.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from module.model.errors import Conflict, InvalidInput, Unavailable
from module.security.credentials import FIRST_KEY_VERSION, KEY_LENGTH_MIN

KEY_NAME: Final = "credentials_key"
RETIRED: Final = "retired"
VERSIONS_MAX: Final = 1000
_FILE: Final = re.compile(rf"{KEY_NAME}(?:\.([1-9][0-9]{{0,3}}))?", re.ASCII)


class KeyFolder:
    """The key files of one installation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[int, str]:
        """Version → key. Makes version 1 where there has never been a key.

        Unavailable when the folder cannot be read; InvalidInput for a file that holds no key.
        """
        found = self._read()
        if not found:
            if any((self.folder / RETIRED).glob(f"{KEY_NAME}*")):
                raise InvalidInput(
                    f"{self.folder} holds retired keys only; put the newest one back as "
                    f"{KEY_NAME}.<version>"
                )
            self.create(FIRST_KEY_VERSION)
            found = self._read()
        return found

    def create(self, version: int) -> None:
        """A new random key under `version`; durable when this returns, kept if it is there.

        Unavailable, saying what to do, where the folder is read-only.
        """
        if version > VERSIONS_MAX:
            raise InvalidInput(f"key versions end at {VERSIONS_MAX}")
        path = self._path(version)
        temporary = self.folder / f".{KEY_NAME}.{secrets.token_hex(6)}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Written whole, then linked: whoever reads meanwhile sees nothing or all of it.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(temporary)
            temporary.unlink()
            self._sync()
        except OSError as error:
            raise Unavailable(
                f"{path} cannot be written ({error.strerror}); where keys come from a Secret, add "
                f"{path.name} there (32 or more random characters), then repeat this"
            ) from error

    def retire(self, version: int) -> bool:
        """Take the version out of use; its file goes to `retired/`.

        False where the folder is read-only: whoever keeps the Secret removes it there.
        """
        place = self.folder / RETIRED
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            for path in (self._path(version), self.folder / f"{KEY_NAME}.{version}"):
                if path.exists():
                    path.replace(place / f"{KEY_NAME}.{version}")
            self._sync()
        except OSError:
            return False
        return True

    def retired(self) -> list[int]:
        """Versions whose files are kept for backups."""
        names = [path.name for path in (self.folder / RETIRED).glob(f"{KEY_NAME}*")]
        return sorted(int(match[1] or 1) for name in names if (match := _FILE.fullmatch(name)))

    def _read(self) -> dict[int, str]:
        found: dict[int, str] = {}
        try:
            paths = sorted(self.folder.glob(f"{KEY_NAME}*")) if self.folder.is_dir() else []
            for path in paths:
                match = _FILE.fullmatch(path.name)
                if match is None or not path.is_file():
                    continue
                version = int(match[1] or FIRST_KEY_VERSION)
                try:
                    key = path.read_text().strip()
                except FileNotFoundError:  # retired this very moment
                    continue
                if len(key) < KEY_LENGTH_MIN:
                    raise InvalidInput(
                        f"{path} holds no key: it needs {KEY_LENGTH_MIN} characters or more"
                    )
                if found.setdefault(version, key) != key:
                    raise Conflict(f"two files of {self.folder} claim key version {version}")
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the keys in {self.folder} cannot be read: {error}") from error
        return found

    def _path(self, version: int) -> Path:
        first = version == FIRST_KEY_VERSION
        return self.folder / (KEY_NAME if first else f"{KEY_NAME}.{version}")

    def _sync(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
