"""The boards and the provisioning as ConfigMaps, for `kubectl apply -k deploy/grafana`.

A ConfigMap for each board: what kubectl keeps of an object beside it is bounded to 256 KB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dashboards.grafana.panels import Json

PROVISIONING: Final = Path(__file__).parent / "provisioning"
DEPLOY: Final = Path(__file__).parents[2] / "deploy" / "grafana"
WRITTEN: Final = (
    "# Written by `python -m dashboards.grafana.build`: change the boards, not this file.\n"
)


def render_manifests(boards: Mapping[str, Json]) -> dict[Path, str]:
    """The generated files of `deploy/grafana` and their texts."""
    documents = [
        _config_map(f"grafana-board-{name}", f"{name}.json", json.dumps(board, ensure_ascii=False))
        for name, board in boards.items()
    ]
    provisioning = [
        _config_map(f"grafana-{path.parent.name}", path.name, path.read_text())
        for path in sorted(PROVISIONING.glob("*/*.yaml"))
    ]
    return {
        DEPLOY / "boards.yaml": WRITTEN + "---\n".join(documents),
        DEPLOY / "provisioning.yaml": WRITTEN + "---\n".join(provisioning),
    }


def _config_map(name: str, key: str, text: str) -> str:
    lines = "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())
    return (
        "apiVersion: v1\n"
        "kind: ConfigMap\n"
        "metadata:\n"
        f"  name: {name}\n"
        "  namespace: fin-finwatcher\n"
        "  labels:\n"
        "    app.kubernetes.io/name: aifap-grafana\n"
        "    app.kubernetes.io/part-of: aifap\n"
        "data:\n"
        f"  {key}: |\n{lines}"
    )
