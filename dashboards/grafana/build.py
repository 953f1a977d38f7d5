"""Writes the Grafana boards: `python -m dashboards.grafana.build` (a test compares them).

    queries ─► trader, risk, operations, fleet, comparison ─► panels ─► boards/*.json ─► Grafana
                                                                  └─► deploy/grafana (ConfigMaps)

Grafana finds the files through `provisioning/`. Three datasources by uid: results (finwatcher) and
sessions (finplatform), both as the role that only reads, and metrics (Prometheus).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from dashboards.grafana import comparison, fleet, operations, risk, trader
from dashboards.grafana.manifests import render_manifests
from dashboards.grafana.panels import Board, Json, render_board

FOLDER: Final = Path(__file__).parent / "boards"


def boards() -> tuple[Board, ...]:
    """All boards, in the order of the documentation."""
    return (
        trader.board(),
        risk.board(),
        operations.board(),
        fleet.board(),
        comparison.board(),
    )


def render_boards() -> dict[str, Json]:
    """Every board's JSON, by name."""
    return {board.name: render_board(board) for board in boards()}


def render_files() -> dict[Path, str]:
    """Every generated file and its text."""
    boards = render_boards()
    files = {
        FOLDER / f"{name}.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in boards.items()
    }
    return files | render_manifests(boards)


def main() -> int:
    """Write them; a board that is no longer made is taken away."""
    files = render_files()
    FOLDER.mkdir(exist_ok=True)
    for stale in set(FOLDER.glob("*.json")) - files.keys():
        stale.unlink()
    for path, text in files.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
