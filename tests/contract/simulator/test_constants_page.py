"""What is constant in the answers stands in docs/simulator.md, with its reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.contract.report import CONSTANTS_PAGE, constant_lines

SIMULATOR = Path(__file__).parents[3] / "module" / "simulator" / "wire"
ROWS = ("account", "funding", "instruments", "market", "rows", "spot_plans", "spot_rows", "wallet")
ACKNOWLEDGEMENTS = {"endId", "successList", "failureList", "result"}
EMPTY_LISTS = {"bills", "list", "entrustedList", "fillList"}
STATUS_WORDS = {"normal", "maintain", "off"}
NOT_FIELDS = ACKNOWLEDGEMENTS | EMPTY_LISTS | STATUS_WORDS
"""Empty lists and plain acknowledgements, and a word list that is no row."""


def constant_fields(source: str) -> set[str]:
    """Keys of dict literals inside functions whose value is written there."""
    found: set[str] = set()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    empty = isinstance(value, ast.List) and not value.elts
                    if isinstance(key, ast.Constant) and (isinstance(value, ast.Constant) or empty):
                        found.add(str(key.value))
    return found


def test_every_constant_field_is_listed_with_its_reason() -> None:
    rows = constant_lines(CONSTANTS_PAGE.read_text())
    assert len(rows) > 10
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("  -  ")[0])}
    for word in ROWS:
        source = (SIMULATOR / f"bitget_{word}.py").read_text()
        missing = constant_fields(source) - listed - NOT_FIELDS
        assert not missing, f"bitget_{word}.py: {sorted(missing)} are constant and not in the table"
    for row in rows:
        assert len(row.split("  -  ")) == 3, row
