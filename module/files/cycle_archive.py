"""The ended cycles of a session as files: `archive/<cycle>.json`, and the bars that each one saw.

    leader ─► <cycle>.json   the letter as it ended, sealed
    strategy process ─► <cycle>.bars   what its strategy was shown, packed under a seal of its own

Both are read by `aifap replay`, with nothing running. The oldest go beyond ARCHIVE_MAX.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from module.files.atomic import make_private_folder, read_regular, write_durably
from module.logs import get_logger
from module.model.canonical import instant_text, parse_instant
from module.model.errors import InvalidInput, InvariantViolated, NotFound, Unavailable
from module.model.sealed import seal, unseal

FOLDER = "archive"
ARCHIVE_MAX = 500
LETTER_BYTES_MAX = 16 * 1024 * 1024
BARS_BYTES_MAX = 64 * 1024 * 1024

log = get_logger("files.archive")


class CycleArchive:
    """One session's, in `<session folder>/archive`; the folder is made when something is kept."""

    def __init__(self, session_folder: Path) -> None:
        self._folder = session_folder / FOLDER

    def keep(self, document: Mapping[str, object]) -> None:
        """Keep an ended cycle's letter; keeping it again replaces it. Unavailable when the disk
        refuses."""
        folder = make_private_folder(self._folder)
        write_durably(
            folder / f"{_name(str(document['cycle']))}.json", seal(document), what="archive"
        )
        self._prune()

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        """Keep the packed bars of a cycle. Unavailable when the disk refuses."""
        folder = make_private_folder(self._folder)
        write_durably(folder / f"{_name(instant_text(cycle))}.bars", content, what="archive bars")

    def bars_of(self, cycle: datetime) -> bytes | None:
        """The packed bars of a cycle, or None where none were kept."""
        return read_bars(self._folder / f"{_name(instant_text(cycle))}.bars")

    def paths(self) -> list[Path]:
        """The letters, oldest first."""
        return sorted(self._folder.glob("*.json"), key=lambda path: _time_of(path.stem))

    def newest(self, count_max: int) -> list[Mapping[str, object]]:
        """The newest letters, oldest first; one that cannot be read is left out and logged."""
        found: list[Mapping[str, object]] = []
        for path in self.paths()[-count_max:]:
            try:
                found.append(read_letter(path))
            except (InvalidInput, InvariantViolated, NotFound, Unavailable) as error:
                log.warning("an archived cycle cannot be read", detail=error.message)
        return found

    def _prune(self) -> None:
        letters = self.paths()
        for old in letters[: max(0, len(letters) - ARCHIVE_MAX)]:
            old.unlink(missing_ok=True)
            old.with_suffix(".bars").unlink(missing_ok=True)
        bars = sorted(self._folder.glob("*.bars"), key=lambda path: _time_of(path.stem))
        for old in bars[: max(0, len(bars) - ARCHIVE_MAX)]:  # of cycles that never ended
            old.unlink(missing_ok=True)


def read_letter(path: Path) -> dict[str, object]:
    """An archived letter. InvariantViolated names the file when one bit of it was altered, NotFound
    when it is not there."""
    try:
        content = read_regular(path, LETTER_BYTES_MAX)
    except FileNotFoundError as error:
        raise NotFound(f"there is no archived cycle {path}") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error}") from error
    document = unseal(content, str(path))
    named = _name(str(document.get("cycle")))
    if path.stem != named:
        raise InvariantViolated(f"{path} holds the cycle {named}: it was renamed or replaced")
    return document


def read_bars(path: Path) -> bytes | None:
    """The packed bars of an archived letter, or None where there is no such file."""
    try:
        return read_regular(path, BARS_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error}") from error


def _name(cycle: str) -> str:
    return cycle.replace(":", "").replace("-", "")


def _time_of(stem: str) -> datetime:
    """When the cycle of a file is; what is named otherwise comes first."""
    try:
        return parse_instant(stem)
    except (ValueError, InvariantViolated):
        return parse_instant("19700101T000000Z")
