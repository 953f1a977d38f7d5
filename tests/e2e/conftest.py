"""A whole installation for end-to-end tests: real processes, real wire, real Postgres."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.standalone import Standalone, StandaloneOptions
from module.launch.stack import free_port
from tests.e2e.installation import Installation


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Synthetic market, as fast as it goes while nobody holds it back."""
    folder: Path = tmp_path_factory.mktemp("up")
    said: list[str] = []
    stack = Standalone(StandaloneOptions(folder, free_port(), workers=2, speed=240.0), said.append)
    with contextlib.ExitStack() as ending:
        ending.callback(stack.stop)
        stack.start()
        token = stack.first_user("ada")
        assert token is not None
        yield Installation(stack, token)
