"""Logs as the product writes them (the default renderer is slow); what is watched."""

from __future__ import annotations

from pathlib import Path

import pytest

from module.logs import configure_logs
from tests.fakes.watched_session import Watched

configure_logs("tests")


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A finwatcher with everything it sees in the test's hands."""
    return Watched(tmp_path)
