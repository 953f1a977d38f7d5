"""What people are told while sessions come, fail and go, as a webhook receives it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tests.e2e.installation import Installation

pytestmark = pytest.mark.timeout(180)

RAISING = """
def strategy(context, config_dict):
    return {"BTCUSDT": 1 / 0}
"""


def told(installation: Installation, path: str, session: str) -> str:
    """Everything that went to one channel about the session so far, as text."""
    assert installation.webhooks is not None
    hooks = installation.webhooks
    bodies = [
        json.dumps(body, ensure_ascii=False)
        for body, where in zip(list(hooks.received), list(hooks.paths), strict=False)
        if where == path
    ]
    return "\n".join(body for body in bodies if session in body.replace("\\", ""))


def test_start_and_stop_reach_slack_and_discord(installation: Installation) -> None:
    account = installation.paper_account("told")
    session = installation.start(account, "equal_weight", timedelta(minutes=1), cycles=1)
    installation.wait_over(session)
    for path in ("/slack", "/discord"):
        installation.wait(
            lambda where=path: "System Stopped" in told(installation, where, session),  # type: ignore[misc]
            f"the stop message on {path}",
        )
        assert "System Started" in told(installation, path, session)
        assert "equal_weight" in told(installation, path, session).replace("\\", "")


def test_G3_a_strategy_that_raises_is_told_with_its_line_and_ends_the_session(
    installation: Installation,
) -> None:
    installation.upload("raising", RAISING)
    account = installation.paper_account("raising")
    session = installation.start(account, "raising", timedelta(minutes=1))
    view = installation.wait_over(session)
    assert view["state"] == "failed"
    assert "ZeroDivisionError" in view["reason"]
    assert "line 3" in view["reason"]
    installation.wait(
        lambda: "Critical Error" in told(installation, "/slack", session), "the critical alert"
    )
    ledger = installation.ledger(account)
    assert ledger["orders"] == [], "a strategy that raises trades nothing"
    assert installation.leftovers(session) == []
