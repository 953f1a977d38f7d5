"""A pytest plugin for runs on mutants: the fastest tests come first, and a property that fails is
not shrunk. Both only shorten the way to the first failure; what fails is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import Phase, settings

_DURATIONS = Path("mutmut-stats.json")

# Before any test module is imported: their own settings begin from the profile in force.
settings.register_profile(
    "mutation",
    database=None,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("mutation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order of what each took when nothing was changed."""
    if _DURATIONS.exists():
        took_s: dict[str, float] = json.loads(_DURATIONS.read_text())["duration_by_test"]
        items.sort(key=lambda item: took_s.get(item.nodeid, 0.0))
