"""Previews that may still be carried out: `<data>/previews/<owner>/<hash>.json`.

    api: POST /temp/preview ─► put          api: execute ─► get          process of the plan ─► get

A preview is immutable, and its file begins with the digest of the rest: one that was altered is an
error. Old ones go when new ones come.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from module.files.atomic import create_durably, make_private_folder, read_regular
from module.model.errors import InvalidInput, InvariantViolated, NotFound, Unavailable

KEPT: Final = timedelta(hours=1)
KEPT_MAX: Final = 200
BYTES_MAX: Final = 16 * 1024 * 1024
BARS: Final = ".bars"
BARS_BYTES_MAX: Final = 64 * 1024 * 1024
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OWNER: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class PreviewStore:
    """The previews of an installation, by owner."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "previews"

    def put(
        self,
        owner_id: str,
        plan_hash: str,
        document: Mapping[str, object],
        wall: datetime,
        *,
        bars: bytes | None = None,
    ) -> None:
        """Keep it, and the packed bars that it was made from; the same again is harmless.

        Those older than an hour of real time go, and the oldest beyond KEPT_MAX. Unavailable when
        the disk refuses.
        """
        folder = make_private_folder(self._owner_folder(owner_id))
        self._forget_old(folder, wall)
        text = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
        if bars is not None:
            create_durably((folder / _name(plan_hash)).with_suffix(BARS), bars)
        create_durably(folder / _name(plan_hash), _seal(text) + b"\n" + text)

    def get(self, owner_id: str, plan_hash: str) -> dict[str, object]:
        """What was kept under the hash; NotFound where the owner has none (any more)."""
        path = self._owner_folder(owner_id) / _name(plan_hash)
        try:
            stated, _, text = read_regular(path, BYTES_MAX).partition(b"\n")
        except FileNotFoundError as error:
            raise NotFound(
                f"you have no preview {plan_hash[:12]}…; previews are kept for an hour: make one"
            ) from error
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
        if stated != _seal(text):
            raise InvariantViolated(f"{path} does not match its own digest: it was altered")
        loaded = json.loads(text)
        if not isinstance(loaded, dict):
            raise InvariantViolated(f"{path} holds no object")
        return loaded

    def bars(self, owner_id: str, plan_hash: str) -> bytes | None:
        """The packed bars that the plan was made from; None where there were too many to keep."""
        path = (self._owner_folder(owner_id) / _name(plan_hash)).with_suffix(BARS)
        try:
            return read_regular(path, BARS_BYTES_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error

    def _owner_folder(self, owner_id: str) -> Path:
        if not _OWNER.fullmatch(owner_id):
            raise InvalidInput(f"not the id of a person: {owner_id[:40]!r}")
        return self._folder / owner_id

    def _forget_old(self, folder: Path, wall: datetime) -> None:
        too_old = (wall - KEPT).timestamp()
        aged = []
        for path in folder.glob("*.json"):
            try:
                aged.append((path.stat().st_mtime, path))
            except FileNotFoundError:
                continue  # another worker was faster
        aged.sort()
        beyond = len(aged) - KEPT_MAX
        for number, (changed_at, path) in enumerate(aged):
            if number <= beyond or changed_at < too_old:
                path.unlink(missing_ok=True)
                path.with_suffix(BARS).unlink(missing_ok=True)


def _seal(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


def _name(plan_hash: str) -> str:
    if not _HASH.fullmatch(plan_hash):
        raise InvalidInput("plan_hash: it has 64 hex digits, as the preview told it")
    return f"{plan_hash}.json"
