"""The page about previews names what may be asked and what may come back."""

from __future__ import annotations

import re
from pathlib import Path

from api.preview_schemas import PreviewRequest
from api.previews import NOTHING_TO_TRADE, PLAN_OUTDATED
from trading.rebalance.given_plan import FRESH_S, PRICE_TOLERANCE

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "preview.md").read_text()
ASKED = PAGE.partition("## What is asked")[2].partition("## What is told")[0]


def test_every_field_is_documented_and_nothing_else() -> None:
    cells = [line.split("|")[1] for line in ASKED.splitlines() if line.startswith("| `")]
    documented = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert documented == set(PreviewRequest.model_fields)


def test_defaults_and_reasons_are_the_codes_own() -> None:
    assert f"| `fresh_s` | `{FRESH_S}` |" in ASKED
    assert f"| `price_tolerance` | `{PRICE_TOLERANCE}` |" in ASKED
    for code in (PLAN_OUTDATED, NOTHING_TO_TRADE):
        assert f"`{code}`" in PAGE
