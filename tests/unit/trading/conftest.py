"""What sessions log under test goes where this run's errors go."""

from __future__ import annotations

import pytest

from module.logs import configure_logs


@pytest.fixture(autouse=True, scope="session")
def logs() -> None:
    """Once a run: a further run in the same process has a stream of its own."""
    configure_logs("tests")
