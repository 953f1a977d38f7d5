"""The house's walls: the build fails when a room imports what it must not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("api", "trading", "monitoring", "module")
LINT = Path(sys.executable).with_name("lint-imports")


def copy_house(folder: Path) -> Path:
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT), "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def plant(folder: Path, file: str, line: str) -> None:
    path = folder / file
    path.write_text(path.read_text() + f"\n{line}\n")


def test_the_house_as_it_stands_keeps_its_contracts(tmp_path: Path) -> None:
    found = lint(copy_house(tmp_path))
    assert found.returncode == 0, found.stdout


FORBIDDEN = [
    ("trading/rebalance/plan.py", "import sqlalchemy"),
    ("trading/execution/auto_trade.py", "import module.db.database"),
    ("trading/execution/auto_trade.py", "import requests"),
    ("module/model/money.py", "import module.ports"),
    ("module/db/database.py", "import module.exchange.gateway_client"),
    ("module/files/atomic.py", "import trading.rebalance.plan"),
    ("monitoring/metrics.py", "import pandas"),
    ("module/market/service.py", "import ccxt"),
    ("trading/session/bells.py", "import trading.execution.auto_trade"),
]


@pytest.fixture(scope="module")
def findings_of_planted_imports(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says of a house in which all of them are planted at once."""
    folder = copy_house(tmp_path_factory.mktemp("planted"))
    for file, line in FORBIDDEN:
        plant(folder, file, line)
    found = lint(folder)
    assert found.returncode != 0
    return found.stdout


@pytest.mark.parametrize(("file", "line"), FORBIDDEN)
def test_a_planted_forbidden_import_fails_the_build(
    findings_of_planted_imports: str, file: str, line: str
) -> None:
    importer = file.removesuffix(".py").replace("/", ".")
    imported = line.removeprefix("import ")
    contracts = findings_of_planted_imports.split("Broken contracts")[1]
    assert re.search(rf"- +{re.escape(importer)} -> {re.escape(imported)} ", contracts)


def test_every_room_stands_in_the_contracts() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    named = " ".join(contracts["contracts"][0]["layers"])
    for parent in ("module", "trading", "monitoring"):
        for room in (ROOT / parent).iterdir():
            name = room.stem if room.suffix == ".py" else room.name
            if name.startswith("__") or (room.is_file() and room.suffix != ".py"):
                continue
            if room.is_dir() and not (room / "__init__.py").exists():
                continue
            if f"{parent}.{name}" == "trading.strategies":
                continue  # users' functions: they import nothing of ours
            assert f"{parent}.{name}" in named, f"{parent}.{name} has no place in the layers"
