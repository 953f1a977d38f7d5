"""`aifap account …` and `aifap keys …` as a person types them, against a real API on a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from module.model.errors import AifapError, RateLimited
from tests.fakes.platform import FakePlatform
from tests.fakes.serving import served

SECRETS = "CANARY-KEY-7\nCANARY-SECRET\nCANARY-PHRASE\n"
Type = Callable[..., Result]


@pytest.fixture
def typed(
    platform: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Type]:
    """Type a command as a person whose token is in a file; the API is served for real."""
    monkeypatch.setenv("AIFAP_DATA_DIR", "/nonexistent/aifap-tests")
    _, client = platform.person(f"person-{datetime.now(UTC).timestamp()}".replace(".", "-"))
    assert client.token is not None
    (tmp_path / "token").write_text(client.token)
    (tmp_path / "keys").write_text(SECRETS)
    with served() as serve:
        url = serve(platform.app)

        def run(*words: str, said: str = "") -> Result:
            asks = ["--url", url, "--token-file", str(tmp_path / "token")]
            return CliRunner().invoke(app, ["account", *words, *asks], input=said)

        yield run


def test_S22_keys_come_from_a_file_or_standard_input_and_are_never_shown(
    typed: Type, platform: FakePlatform, tmp_path: Path
) -> None:
    file = str(tmp_path / "keys")
    added = typed("add", "--label", "one", "--env", "demo", "--keys-file", file)
    assert (added.exit_code, added.exception) == (0, None)
    assert typed("add", "--label", "two", "--env", "live", "--keys-file", "-", said=SECRETS).stdout
    assert [keys.api_secret for _, keys, _ in platform.gateway.added] == ["CANARY-SECRET"] * 2
    listed = typed("list")
    assert listed.exit_code == 0
    assert "one" in listed.stdout
    assert "CANARY" not in added.stdout + listed.stdout


def test_a_live_account_warns_of_real_money(typed: Type, tmp_path: Path) -> None:
    file = str(tmp_path / "keys")
    said = typed("add", "--label", "main", "--env", "live", "--keys-file", file).stdout
    assert "real money" in said


def test_without_a_terminal_nothing_is_asked_for(typed: Type) -> None:
    failed = typed("add", "--label", "one", "--env", "demo")
    assert isinstance(failed.exception, AifapError)
    assert "--keys-file" in failed.exception.message


def test_an_account_is_checked_given_keys_switched_off_and_on_by_its_label(
    typed: Type, platform: FakePlatform, tmp_path: Path
) -> None:
    file = str(tmp_path / "keys")
    typed("add", "--label", "one", "--env", "demo", "--keys-file", file)
    checked = typed("check", "one")
    assert checked.exit_code == 0
    assert "10007.5 USDT" in checked.stdout
    assert "fit to be traded" in checked.stdout
    assert typed("rotate-keys", "one", "--keys-file", file).exit_code == 0
    assert len(platform.gateway.replaced) == 1
    assert typed("deactivate", "one").exit_code == 0
    assert "off" in typed("list", "--all").stdout
    assert typed("activate", "one").exit_code == 0
    assert typed("deactivate", "one", "--erase-keys").exit_code == 0
    unknown = typed("check", "nobody")
    assert "yours: one" in str(unknown.exception)


def test_a_check_waits_for_its_turn_at_the_exchange_and_then_says_why_not(
    typed: Type, platform: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.account_commands.CHECK_PAUSE_S", 0.0)
    typed("add", "--label", "one", "--env", "demo", "--keys-file", str(tmp_path / "keys"))
    platform.gateway.failure = RateLimited("the request budget has no room")
    assert "no room" in str(typed("check", "one").exception)
