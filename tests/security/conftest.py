"""One application per test, over the databases of the test module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from module.settings import Settings
from tests.fakes.platform import FakePlatform, fake_platform
from tests.fakes.previews import FakePreviews
from tests.fakes.tear_sheets import draw_with


@pytest.fixture
def platform(postgres: Settings, tmp_path: Path) -> Iterator[FakePlatform]:
    """The platform API, its fakes, and an empty data folder."""
    made = fake_platform(postgres, tmp_path, FakePreviews())
    draw_with(made)
    yield made
    made.close()
