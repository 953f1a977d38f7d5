"""Which mutants the type checker refuses: they need no test, as `make check` would not let them by.

    mutants (every variant of every function, in one file) ─► mypy, once ─► refused names ─► *.meta

The tool can do this too, at five times the price.
"""

from __future__ import annotations

import ast
import bisect
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tests.mutation.workspace import Room

REFUSED_CODE = 37
"""How the tool writes down that a type checker caught a mutant."""


def refuse_by_type(room: Room) -> int:
    """Mark every mutant of `room` that has not run yet and that mypy refuses; how many are now."""
    lines = _error_lines(room)
    refused = 0
    for meta in room.metas:
        source = meta.with_suffix("")
        names = _functions_at(source, lines[source.name])
        record = json.loads(meta.read_text())
        codes = record["exit_code_by_key"]
        for mutant in codes:
            if mutant.rpartition(".")[2] in names and codes[mutant] is None:
                codes[mutant] = REFUSED_CODE
            refused += codes[mutant] == REFUSED_CODE
        meta.write_text(json.dumps(record, indent=4))
    return refused


def _error_lines(room: Room) -> dict[str, list[int]]:
    """File name → lines with an error."""
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "../mypy-mutants.ini",
         "--output", "json", f"trading/{room.name}"],
        cwd=room.folder / "mutants",
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if found.returncode not in {0, 1}:
        raise SystemExit(f"mypy ended with {found.returncode}: {found.stderr or found.stdout}")
    lines: dict[str, list[int]] = defaultdict(list)
    for text in found.stdout.splitlines():
        error = json.loads(text)
        if error["severity"] == "error" and error["file"].startswith(f"trading/{room.name}/"):
            lines[Path(error["file"]).name].append(error["line"])
    return lines


def _functions_at(source: Path, lines: list[int]) -> set[str]:
    """Names of the functions that `lines` are in."""
    functions = sorted(
        (node.lineno, node.end_lineno or node.lineno, node.name)
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name
    )
    starts = [start for start, _, _ in functions]
    names = set()
    for line in lines:
        place = bisect.bisect_right(starts, line) - 1
        if place >= 0 and line <= functions[place][1]:
            names.add(functions[place][2])
    return names
