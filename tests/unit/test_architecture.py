"""The house's walls: the build fails when a room imports what it must not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("api", "trading", "monitoring", "module")
LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def copy_of_the_house(tmp_path: Path) -> Path:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


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


def test_the_house_as_it_stands_keeps_its_contracts(copy_of_the_house: Path) -> None:
    found = lint(copy_of_the_house)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("trading/rebalance/plan.py", "import sqlalchemy"),
        ("trading/execution/auto_trade.py", "from module.db import database"),
        ("trading/execution/auto_trade.py", "import requests"),
        ("module/model/money.py", "import module.ports"),
        ("module/db/database.py", "import module.exchange.gateway_client"),
        ("module/files/atomic.py", "import trading.rebalance.plan"),
        ("monitoring/metrics.py", "import pandas"),
        ("module/market/service.py", "import ccxt"),
        ("trading/session/bells.py", "import trading.execution.auto_trade"),
    ],
)
def test_a_planted_forbidden_import_fails_the_build(
    copy_of_the_house: Path, file: str, line: str
) -> None:
    plant(copy_of_the_house, file, line)
    found = lint(copy_of_the_house)
    assert found.returncode != 0
    assert "BROKEN" in found.stdout


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
