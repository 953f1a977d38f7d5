"""A whole installation for end-to-end tests: real processes, real wire, real Postgres."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.standalone import Standalone, StandaloneOptions
from module.launch.stack import free_port
from tests.e2e.installation import Installation
from tests.fakes.webhook_server import WebhookServer


@pytest.fixture(scope="package")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Synthetic market, as fast as it goes while nobody holds it back.

    One for all tests of this folder: starting it costs more than most of them. Each test has
    accounts and sessions of its own.
    """
    folder: Path = tmp_path_factory.mktemp("up")
    said: list[str] = []
    webhooks = WebhookServer()
    environment = pytest.MonkeyPatch()
    environment.setenv("AIFAP_SLACK_WEBHOOK_URL", webhooks.url("/slack"))
    environment.setenv("AIFAP_DISCORD_WEBHOOK_URL", webhooks.url("/discord"))
    environment.setenv("AIFAP_WEBHOOK_HOSTS", '["http://127.0.0.1"]')
    stack = Standalone(StandaloneOptions(folder, free_port(), workers=2, speed=240.0), said.append)
    with contextlib.ExitStack() as ending:
        ending.callback(environment.undo)
        ending.callback(webhooks.close)
        ending.callback(stack.stop)
        stack.start()
        token = stack.first_user("ada")
        assert token is not None
        yield Installation(stack, token, webhooks)
