"""Every command of docs/results.md, run by curl against a real API with what a finwatcher wrote."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from module.db.repositories.results import ResultsRepository
from module.db.repositories.sessions import SessionRepository
from module.model.accounts import BillKind
from module.model.results import WatchedSession
from module.ports import Alert
from module.settings import Settings
from monitoring.minute import Finwatcher, FinwatcherWiring
from tests.fakes.measured_run import START, add_session
from tests.fakes.platform import FakePlatform, fake_platform
from tests.fakes.serving import served
from tests.fakes.watched_account import (
    AccountExchange,
    WatchClock,
    bill,
    closed,
    fill,
    position,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "results.md"
MINUTE = timedelta(minutes=1)
MINUTES = 6
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.S)
COMMANDS = [
    command.strip()
    for block in BLOCKS
    for command in re.split(r"(?<!\\)\n", block)
    if command.strip()
]


@dataclass(frozen=True)
class Installation:
    """A served API, a person's token, and two sessions of theirs that a finwatcher measured."""

    url: str
    token: Path
    sessions: tuple[WatchedSession, ...]
    platform: FakePlatform


class Silent:
    """Nobody to be alerted."""

    def notify(self, alert: Alert) -> None:
        pass


def watch(platform: FakePlatform, watched: WatchedSession, folder: Path) -> None:
    """Measure the session's first minutes."""
    clock = WatchClock(watched.started_at)
    exchange = AccountExchange(clock, positions=(position(),))
    at = watched.started_at + timedelta(seconds=90)
    exchange.all_fills = [fill(1, at), fill(2, at + MINUTE, pnl="12.5")]
    exchange.all_bills = [bill(1, at, BillKind.FUNDING, "-0.75")]
    exchange.all_closed = [closed(1, at + MINUTE, "11.25")]
    folder.mkdir()
    finwatcher = Finwatcher(
        FinwatcherWiring(
            session_id=watched.session_id,
            clock=clock,
            exchange=exchange,
            sessions=SessionRepository(platform.databases[0]),
            results=ResultsRepository(platform.databases[1]),
            alerts=Silent(),
            folder=folder,
        )
    )
    for number in range(1, MINUTES + 1):
        clock.time = watched.started_at + number * MINUTE
        held = position()
        exchange.positions = (replace(held, unrealized_pnl=held.unrealized_pnl + number),)
        finwatcher.step()


@pytest.fixture(scope="module")
def installation(
    postgres: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("data")
    platform = fake_platform(postgres, folder)
    try:
        _, client = platform.person("reader")
        sessions = tuple(add_session(platform, "reader") for _ in range(2))
        for watched in sessions:
            watch(platform, watched, folder / watched.session_id)
        token = folder / "token"
        token.write_text(client.token or "")
        with served() as serve:
            yield Installation(serve(platform.app), token, sessions, platform)
    finally:
        platform.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_answers(
    command: str, installation: Installation, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["/bin/sh", "-ec", command.replace("curl ", "curl -sS --fail-with-body ", 1)],
        env={
            "PATH": "/usr/bin:/bin",
            "API": installation.url,
            "TOKEN": installation.token.read_text(),
            "SESSION": installation.sessions[0].session_id,
            "OTHER": installation.sessions[1].session_id,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "-OJ" in command:
        (file,) = tmp_path.iterdir()
        assert file.name == f"aifap-{installation.sessions[0].session_id}-portfolio-1m.csv"
        assert len(file.read_text().splitlines()) == MINUTES + 1
    elif "cycles" not in command and "orders" not in command:
        assert len(done.stdout) > 100, "there is something to see"


def test_every_path_and_parameter_of_the_page_is_the_apis_own(installation: Installation) -> None:
    paths = installation.platform.app.openapi()["paths"]
    served_paths = {path for path in paths if path.startswith("/results")}
    page = PAGE.read_text()
    told = {f"/results{path}" for path in re.findall(r"/results(/[\w{}/-]+)`", page)}
    told = {path.replace("{session}", "{session_id}") for path in told} | {"/results/compare"}
    assert told == served_paths - {"/results/{session_id}/transactions"}
    parameters = {
        item["name"]
        for path in served_paths
        for item in paths[path]["get"].get("parameters", ())
        if item["in"] == "query"
    }
    unsaid = {name for name in parameters if f"`{name}" not in page and f"{name}=" not in page}
    assert unsaid == set()


# --- the same on a terminal -----------------------------------------------------------------------


def typed(installation: Installation, *words: str) -> Result:
    asks = ["--url", installation.url, "--token-file", str(installation.token)]
    return CliRunner().invoke(app, ["results", *words, *asks])


def test_a_person_at_a_terminal_sees_the_same(installation: Installation) -> None:
    first, second = (each.session_id for each in installation.sessions)
    listed = typed(installation, "list")
    assert (listed.exit_code, listed.exception) == (0, None)
    assert first in listed.stdout
    assert "10,056.00" in listed.stdout
    shown = typed(installation, "show", first).stdout
    assert "BTCUSDT" in shown
    assert typed(installation, "cycle", first).stdout.endswith("has no cycle yet\n")
    table = typed(installation, "compare", first, second).stdout
    assert "profit factor" in table
    assert START.strftime("%m-%d %H:%M") in table


def test_an_export_is_a_whole_file_or_none(installation: Installation, tmp_path: Path) -> None:
    session_id = installation.sessions[0].session_id
    out = tmp_path / "trades.csv"
    saved = typed(installation, "export", session_id, "trades", "--out", str(out))
    assert (saved.exit_code, saved.exception) == (0, None)
    assert [line.split(",")[1] for line in out.read_text().splitlines()[1:]] == [
        "trade-2",
        "trade-1",
    ]
    wrong = typed(
        installation, "export", session_id, "--columns", "profit", "--out", str(tmp_path / "no.csv")
    )
    assert wrong.exit_code != 0
    assert "there is no column 'profit'" in str(wrong.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trades.csv"]
    said = typed(
        installation, "export", session_id, "--columns", "current_pv", "--resolution", "5m",
        "--out", "-",
    )  # fmt: skip
    assert said.stdout.splitlines()[0] == "minute,current_pv"
