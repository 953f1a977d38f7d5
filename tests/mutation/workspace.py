"""The copy of the tree that mutants are made in: the program, its tests, the tool's settings.

    the tree ─► build/mutation/<room>/ ─► mutmut ─► build/mutation/<room>/mutants/…/*.meta

Nothing is ever changed in the tree itself, and others may go on working in it meanwhile.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
FOLDERS = ("api", "dashboards", "docs", "module", "monitoring", "tests", "trading")
# What the tool's decorators and the many copies of a function do to a type checker is no finding;
# neither is a condition that is always true when it was made so in as many words.
_TYPE_CHECK = """\
[mypy]
strict = True
python_version = 3.11
plugins = pydantic.mypy
explicit_package_bases = True
namespace_packages = True
enable_error_code = possibly-undefined
disable_error_code = no-redef, has-type, comparison-overlap
warn_unused_ignores = False
disallow_untyped_decorators = False
follow_imports = silent
"""


@dataclass(frozen=True, slots=True)
class Room:
    """A room of the program, and the tests that must notice its mutants."""

    name: str
    tests: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its copy of the tree is."""
        return TREE / "build" / "mutation" / self.name

    @property
    def metas(self) -> list[Path]:
        """The tool's records of this room's mutants, one a module."""
        return sorted((self.folder / "mutants" / "trading" / self.name).glob("*.meta"))


ROOMS = {
    "rebalance": Room(
        "rebalance",
        (
            "tests/unit/trading/rebalance",
            "tests/unit/trading/test_decision.py",
            "tests/unit/trading/test_bars_seen.py",
            "tests/unit/trading/test_volatility.py",
            "tests/unit/test_order_info.py",
        ),
    ),
    "execution": Room(
        "execution",
        (
            "tests/unit/trading/execution",
            "--ignore=tests/unit/trading/execution/test_crashes.py",  # sweeps: too slow for this
        ),
    ),
}


def lay_out(room: Room) -> None:
    """Bring the copy up to the tree as it is now. What survived is asked again when any file that
    is not mutated has changed: a test may have come that notices it."""
    folder = room.folder
    changed = [name for name in FOLDERS if _mirror(TREE / name, folder / name)]
    if changed:  # the tool would not see that a test reaches a function that is new
        (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    settings = (TREE / "pyproject.toml").read_text()
    (folder / "mypy-mutants.ini").write_text(f"{_TYPE_CHECK}python_executable = {sys.executable}\n")
    (folder / "pyproject.toml").write_text(
        f"""{settings}
[tool.mutmut]
source_paths = ["trading"]
only_mutate = ["trading/{room.name}/*.py"]
also_copy = {json.dumps([name for name in FOLDERS if name not in {"tests", "trading"}])}
pytest_add_cli_args_test_selection = {json.dumps(room.tests)}
pytest_add_cli_args = ["-p", "tests.mutation.quick_kills"]
use_git_change_detection = false
"""
    )
    _forget_survivors_of_other_tests(room)


def _mirror(source: Path, target: Path) -> bool:
    """`target` with the files of `source`, those that differ copied anew, those gone removed;
    whether there were any."""
    wanted = set(_files(source))
    gone = set(_files(target)) - wanted
    for name in gone:
        (target / name).unlink()
    other = [
        name
        for name in wanted
        if not (target / name).exists() or not filecmp.cmp(source / name, target / name)
    ]
    for name in other:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    return bool(gone or other)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder)


def _forget_survivors_of_other_tests(room: Room) -> None:
    digest = hashlib.sha256()
    for name in FOLDERS:
        for path in sorted(_files(room.folder / name)):
            if name not in {"trading", "docs"} or path.parts[0] != room.name:
                digest.update(f"{name}/{path}".encode())
                digest.update((room.folder / name / path).read_bytes())
    note = room.folder / "tests.sha256"
    if note.exists() and note.read_text() == digest.hexdigest():
        return
    for meta in room.metas:
        record = json.loads(meta.read_text())
        record["exit_code_by_key"] = {
            mutant: code if code == 1 else None
            for mutant, code in record["exit_code_by_key"].items()
        }
        meta.write_text(json.dumps(record, indent=4))
    note.write_text(digest.hexdigest())
