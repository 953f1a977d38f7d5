"""`python -m monitoring` as real processes: real Postgres, a gateway over a real socket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text

from module.clock import SystemClock
from module.db.database import Database
from module.db.platform_tables import Account, User
from module.db.repositories.results import ResultsRepository
from module.db.repositories.sessions import SessionRepository
from module.model.results import GapCause, WatchedSession
from module.model.sessions import SessionState
from module.settings import Settings
from tests.fakes.account_gateway import AccountGateway
from tests.fakes.stored_rows import session_spec
from tests.fakes.watched_account import AccountExchange, fill, position

CLOCK = SystemClock()
MINUTE = timedelta(minutes=1)


class World:
    """An installation with one account and, on demand, sessions on it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.exchange = AccountExchange(CLOCK, positions=(position(),))
        self.gateway = AccountGateway(self.exchange, "account-1", settings.secret("token_key"))
        self.platform = Database(settings, "finplatform", 2)
        self.finwatcher = Database(settings, "finwatcher", 2)
        self.results = ResultsRepository(self.finwatcher)
        self.sessions = SessionRepository(self.platform)
        now = CLOCK.now()
        with self.platform.transaction() as db:
            db.execute(text("TRUNCATE user_details CASCADE"))
            db.add(User(user_id="owner-1", name="ada", role="trader", active=True, created_at=now))
            db.flush()
            db.add(
                Account(
                    account_id="account-1",
                    owner_id="owner-1",
                    label="paper",
                    venue="bitget",
                    market="futures",
                    market_id="synthetic:7",
                    trade_env="paper",
                    base_url="http://127.0.0.1",
                    limits={},
                    created_at=now,
                )
            )

    def open_session(self, session_id: str, started_at: datetime) -> WatchedSession:
        """A running session whose account began with 10,000."""
        spec = session_spec(
            "owner-1",
            "account-1",
            started_at,
            session_id=session_id,
            strategy_name="momentum",
            leverage=Decimal(2),
            ends_at=started_at + timedelta(hours=720),
        )
        self.sessions.create(spec, sessions_max=10)
        self.sessions.set_initial_balance(session_id, 0, Decimal(10_000))
        return self.sessions.watched(session_id)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "AIFAP_DATA_DIR": str(self.settings.data_dir),
            "AIFAP_GATEWAY_URL": self.gateway.url,
        }
        return subprocess.Popen([sys.executable, "-m", "monitoring", *arguments], env=environment)

    def run(self, *arguments: str) -> int:
        process = self.start(*arguments)
        try:
            return process.wait(timeout=90)
        finally:
            process.kill()
            process.wait(timeout=30)

    def close(self) -> None:
        self.gateway.close()
        self.platform.close()
        self.finwatcher.close()


@pytest.fixture
def world(postgres: Settings, database: Database) -> Iterator[World]:
    made = World(postgres)
    yield made
    made.close()


def minute_now() -> datetime:
    return CLOCK.now().replace(second=0, microsecond=0)


def test_without_sessions_the_pass_over_all_of_them_ends_at_once(world: World) -> None:
    assert world.run("--all") == 0
    assert world.gateway.answered == 0


def test_one_pass_measures_every_active_session_and_records_what_was_missed(world: World) -> None:
    started = minute_now() - 5 * MINUTE
    session = world.open_session("2603030917-ab3x", started)
    world.exchange.all_fills.append(fill(1, started + timedelta(seconds=20), pnl="3.25"))
    assert world.run("--all") == 0
    assert world.run("--all") == 0
    latest = world.results.latest(session)
    assert latest is not None
    portfolio, symbols, indicators = latest
    assert portfolio.row.current_pv == Decimal(10_050)
    assert portfolio.row.realized_pnl == Decimal("3.25")
    assert [row.symbol for row in symbols] == ["BTCUSDT"]
    assert indicators is not None
    end = CLOCK.now() + MINUTE
    rows = {item.minute for item in world.results.portfolio_series(session, started, end, 99)}
    gaps = {item.minute: item.cause for item in world.results.gaps(session, started, end, 99)}
    assert set(gaps.values()) == {GapCause.NOT_RUNNING}
    assert not rows & set(gaps)
    assert {started + number * MINUTE for number in range(6)} <= rows | set(gaps)


def test_a_session_that_ended_lately_gets_its_last_row_and_old_ones_are_left(world: World) -> None:
    started = minute_now() - 9 * MINUTE
    old = world.open_session("2603030901-old2", started)
    world.sessions.set_state(old.session_id, SessionState.ENDED, started + 2 * MINUTE)
    lately = world.open_session("2603030905-new2", started)
    world.sessions.set_state(lately.session_id, SessionState.ENDED, CLOCK.now())
    assert world.run("--all") == 0
    assert world.results.latest(old) is None


def test_E9_a_killed_watcher_is_followed_by_one_that_records_the_gap(world: World) -> None:
    session = world.open_session("2603030917-ab3x", minute_now() - 4 * MINUTE)
    first = world.start("--session", session.session_id)
    try:
        _wait_for_row(world, session)
        first.send_signal(signal.SIGKILL)
        assert first.wait(timeout=30) == -signal.SIGKILL
    finally:
        first.kill()
        first.wait(timeout=30)
    with world.finwatcher.transaction() as db:  # as if it had been killed three minutes ago
        db.execute(
            text("UPDATE futures_portfolio_result_1min SET minute = minute - interval '3 min'")
        )
        db.execute(text("UPDATE finwatcher_state SET minute = minute - interval '3 min'"))
        db.execute(text("DELETE FROM result_gaps_1min"))
    second = world.start("--session", session.session_id)
    try:
        _wait_for_row(world, session, after=minute_now() - 2 * MINUTE)
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=60) == 0
    finally:
        second.kill()
        second.wait(timeout=30)
    start, end = session.started_at, CLOCK.now() + MINUTE
    rows = {item.minute for item in world.results.portfolio_series(session, start, end, 99)}
    gaps = {item.minute: item.cause for item in world.results.gaps(session, start, end, 99)}
    first_row = min(rows)
    wanted = set()
    while first_row <= max(rows):
        wanted.add(first_row)
        first_row += MINUTE
    assert wanted <= rows | set(gaps)
    assert {gaps[at] for at in set(gaps) & wanted} == {GapCause.NOT_RUNNING}


def test_an_unknown_session_is_an_error(world: World, tmp_path: Path) -> None:
    assert world.run("--session", "2603030917-zzzz") == 1


def _wait_for_row(world: World, session: WatchedSession, after: datetime | None = None) -> None:
    for _ in range(900):
        latest = world.results.latest(session)
        if latest is not None and (after is None or latest[0].minute > after):
            return
        CLOCK.sleep(0.1)
    raise AssertionError("no row was written in 90 s")
