"""One pass over all sessions: real Postgres, many accounts, everything in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zlib import crc32

import pytest
from sqlalchemy import text

from module.db.database import Database
from module.db.platform_tables import Account, User
from module.db.repositories.fleet import FleetRepository
from module.db.repositories.results import ResultsRepository
from module.db.repositories.sessions import SessionRepository
from module.model.accounts import AccountSnapshot
from module.model.errors import Unavailable
from module.model.results import NO_TRADES, GapCause, GapRow, StoredHistory, WatchedSession
from module.model.sessions import SessionState
from module.settings import Settings
from monitoring import fleet_notes
from monitoring.finwatcher import Finwatcher, FinwatcherWiring
from monitoring.fleet import Fleet
from monitoring.fleet_ports import AccountReads
from monitoring.fleet_storing import FleetWiring, PassReport
from monitoring.indicators import replay
from monitoring.lanes import InlineLanes, Lanes, ThreadLanes
from monitoring.ledger import OVERLAP
from monitoring.ports import ResultsStore
from tests.fakes.stored_rows import session_spec
from tests.fakes.watched_account import (
    AccountExchange,
    KeptAlerts,
    WatchClock,
    closed,
    fill,
    position,
)

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)


@dataclass
class Installation:
    """Sessions on accounts of their own, and the clock of their watchers."""

    platform: Database
    finwatcher: Database
    folder: Path
    clock: WatchClock = field(default_factory=lambda: WatchClock(NOON))
    accounts: dict[str, AccountReads] = field(default_factory=dict)
    lanes: Callable[[], Lanes] = InlineLanes
    patience_s: float = 12.0
    away: bool = False

    def __post_init__(self) -> None:
        self.sessions = SessionRepository(self.platform)
        self.results = ResultsRepository(self.finwatcher)
        self.store = FleetRepository(self.platform, self.finwatcher)

    def open(
        self, name: str, started_at: datetime = NOON - timedelta(seconds=20)
    ) -> AccountExchange:
        """A running session `2603031200-<name>` that began with 10,000."""
        with self.platform.transaction() as db:
            db.add(
                Account(
                    account_id=name,
                    owner_id="owner",
                    label=name,
                    venue="bitget",
                    market="futures",
                    market_id="synthetic:7",
                    trade_env="paper",
                    base_url="http://127.0.0.1",
                    limits={},
                    created_at=NOON,
                )
            )
        spec = session_spec("owner", name, started_at, session_id=f"2603031200-{name}")
        self.sessions.create(spec, sessions_max=99)
        self.sessions.set_initial_balance(spec.session_id, 0, Decimal(10_000))
        account = AccountExchange(self.clock, positions=(position(),))
        self.accounts[name] = account
        return account

    def step(self, second: float = 0, folder: str = "fleet") -> PassReport:
        """One pass, so many seconds into the minute."""
        self.clock.time = self.clock.time.replace(microsecond=0) + timedelta(seconds=second)
        wiring = FleetWiring(
            clock=self.clock,
            store=self.store,
            results=self.results,
            registry=self.sessions,
            open_account=lambda session, _clock: self.accounts[session.account_id],
            alerts=KeptAlerts(),
            folder=self.folder / folder,
            lanes=self.lanes,
            session_folder=lambda session_id: self.folder / session_id,
            patience_s=self.patience_s,
            pass_max_s=self.patience_s,
        )
        return Fleet(wiring).step()

    def step_alone(self, name: str, results: ResultsStore | None = None) -> None:
        """One minute of the session's own finwatcher, which then is killed. `results`: what it
        takes for Postgres."""
        session_id = f"2603031200-{name}"
        wiring = FinwatcherWiring(
            session_id=session_id,
            clock=self.clock,
            exchange=self.accounts[name],  # type: ignore[arg-type]  # reads only
            sessions=self.sessions,
            results=results or self.results,
            alerts=KeptAlerts(),
            folder=self.folder / session_id,
        )
        Finwatcher(wiring).step()

    def forget(self, name: str, since: datetime) -> None:
        """A fail-over: the session's minutes from `since` on are not in the database any more."""
        session_id = self.watched(name).session_id
        with self.finwatcher.transaction() as db:
            for table in ("futures_portfolio_result_1min", "futures_result_1min"):
                db.execute(
                    text(f"DELETE FROM {table} WHERE session_id = :name AND minute >= :since"),
                    {"name": session_id, "since": since},
                )

    def next_minute(self) -> None:
        self.clock.time = self.clock.time.replace(second=0, microsecond=0) + MINUTE

    def watched(self, name: str) -> WatchedSession:
        return self.sessions.watched(f"2603031200-{name}")

    def rows(self, name: str) -> list[datetime]:
        series = self.results.portfolio_series(
            self.watched(name), NOON - timedelta(days=1), NOON + timedelta(days=9), 999
        )
        return [row.minute for row in series]

    def gaps(self, name: str) -> dict[datetime, GapCause]:
        found = self.results.gaps(
            self.watched(name), NOON - timedelta(days=1), NOON + timedelta(days=9), 999
        )
        return {gap.minute: gap.cause for gap in found}


@pytest.fixture
def place(postgres: Settings, database: Database, tmp_path: Path) -> Iterator[Installation]:
    platform = Database(postgres, "finplatform", 2)
    with platform.transaction() as db:
        db.execute(text("TRUNCATE user_details CASCADE"))
        db.add(User(user_id="owner", name="ada", role="trader", active=True, created_at=NOON))
    yield Installation(platform, database, tmp_path)
    platform.close()


def test_one_pass_writes_what_each_sessions_own_finwatcher_would_have_written(
    place: Installation,
) -> None:
    for name in ("aaaa", "bbbb"):
        account = place.open(name)
        account.all_fills.append(fill(1, NOON - timedelta(seconds=5), pnl="3.25"))
        account.all_closed.append(closed(1, NOON - timedelta(seconds=5), "3.25"))
    assert place.step().measured == 2
    own = place.watched("bbbb")
    assert place.store.sessions(NOON) == [place.watched("aaaa"), own]
    assert own.owner_name == "ada"
    theirs = place.results.latest(place.watched("aaaa"))
    place.forget("bbbb", NOON)
    with place.finwatcher.transaction() as db:
        db.execute(text(f"DELETE FROM finwatcher_state WHERE session_id = '{own.session_id}'"))
    place.step_alone("bbbb")
    mine = place.results.latest(own)
    assert mine is not None
    assert theirs is not None
    assert mine[0].row == theirs[0].row
    assert mine[1:] == theirs[1:]
    assert theirs[0].row.realized_pnl == Decimal("3.25")


def test_history_as_a_pass_leaves_it_is_what_the_stored_rows_add_up_to(place: Installation) -> None:
    account = place.open("aaaa")
    for number in range(1, 25):
        at = place.clock.time - timedelta(seconds=7)
        account.all_fills.append(fill(number, at, pnl=f"{number}.25"))
        account.wallet += number
        if number % 3 == 0:
            account.all_closed.append(closed(number, at, f"{number - 9}"))
        place.step()
        place.next_minute()
    session = place.watched("aaaa")
    state = place.results.indicator_state(session)
    assert state is not None
    notes = fleet_notes.from_document(state[fleet_notes.MEMBER])
    assert notes is not None
    assert notes.history is not None
    stored = place.results.history(session, OVERLAP)
    assert dict(notes.history.by_symbol) == dict(stored.by_symbol)
    assert notes.history.sums == stored.sums
    assert notes.history.fill_at == stored.fill_at
    assert stored.recent <= notes.history.recent


def test_history_of_a_quiet_account_is_asked_for_every_fifth_minute_and_nothing_is_lost(
    place: Installation,
) -> None:
    account = place.open("aaaa")
    asked = []
    for number in range(16):
        if number == 9:  # nothing in the account shows it: it came and went within the minute
            account.all_fills.append(fill(1, place.clock.time - timedelta(seconds=30)))
        before = len(account.asked_since)
        place.step()
        asked.append(len(account.asked_since) > before)
        place.next_minute()
    assert asked.count(True) <= 5
    assert [row.exchange_id for row in place.results.transactions(place.watched("aaaa"), "fill", 9)]


def test_a_fill_that_is_published_hours_late_is_found_once_an_hour(place: Installation) -> None:
    account = place.open("aaaa", NOON - timedelta(hours=5))
    account.all_fills.append(fill(2, NOON - timedelta(minutes=1), pnl="2"))
    place.step()
    account.all_fills.insert(0, fill(1, NOON - timedelta(hours=4), pnl="40"))
    asked: list[int] = []
    history = place.results.history

    def counted(session: WatchedSession, overlap: timedelta) -> StoredHistory:
        asked.append(place.clock.time.minute)
        return history(session, overlap)

    place.results.history = counted  # type: ignore[method-assign]
    session = place.watched("aaaa")
    deep = crc32(session.session_id.encode()) % 60  # its own minute of each hour
    for _ in range(3):
        place.next_minute()
        assert place.clock.time.minute != deep
        place.step()
    assert asked == []  # a pass goes on from what the last one left
    place.clock.time = NOON.replace(minute=deep)
    place.step()
    assert asked == [deep]
    place.next_minute()
    place.step()
    assert asked == [deep]
    rows = place.results.portfolio_series(session, NOON, NOON + 90 * MINUTE, 90)
    realized = {item.minute.minute: item.row.realized_pnl for item in rows}
    assert realized == {0: 2, 1: 2, 2: 2, 3: 2, deep: 42, deep + 1: 42}


def test_E7_two_passes_at_once_write_each_minute_once(place: Installation) -> None:
    place.open("aaaa")
    place.open("bbbb")
    place.step()
    first = place.results.latest(place.watched("aaaa"))
    second = place.step(second=5, folder="another-node")
    assert (second.sessions, second.measured) == (0, 0)  # both have this minute's row
    assert place.results.latest(place.watched("aaaa")) == first
    assert place.gaps("aaaa") == {}


class Hanging:
    """An account whose exchange never answers."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def snapshot(self) -> AccountSnapshot:
        self.released.wait(timeout=60)
        raise Unavailable("too late")


def test_an_account_that_hangs_costs_its_session_a_gap_and_no_other(place: Installation) -> None:
    from module.clock import SystemClock

    class RealTimeouts(WatchClock):
        """World time stands still; time-outs are real."""

        def monotonic(self) -> float:
            return SystemClock().monotonic()

    place.clock = RealTimeouts(NOON)
    place.patience_s = 3.0
    for name in ("aaaa", "bbbb", "cccc", "dddd"):
        place.open(name)
    hanging = Hanging()
    for name in ("aaaa", "bbbb"):
        place.accounts[name] = hanging  # type: ignore[assignment]  # never gets further
    place.lanes = lambda: ThreadLanes(2, place.clock)
    report = place.step()
    hanging.released.set()
    assert (report.measured, report.gaps) == (2, 2)
    assert place.gaps("aaaa") == {NOON: GapCause.EXCHANGE_UNREACHABLE}
    assert place.rows("cccc") == place.rows("dddd") == [NOON]


class Away:
    """A results database that does not answer."""

    def __init__(self, place: Installation) -> None:
        self._before = (place.store, place.results)
        self._place = place

    def __enter__(self) -> None:
        self._place.store = _Silent()  # type: ignore[assignment]  # raises whatever is asked
        self._place.results = _Silent()  # type: ignore[assignment]

    def __exit__(self, *_error: object) -> None:
        self._place.store, self._place.results = self._before


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., object]:
        def refuse(*_arguments: object) -> object:
            raise Unavailable("Postgres does not answer")

        return refuse


def test_E5_what_postgres_does_not_take_is_filled_in_later_with_its_own_times(
    place: Installation,
) -> None:
    account = place.open("aaaa")
    place.step()
    place.next_minute()
    with Away(place):
        account.wallet = Decimal(10_111)
        account.all_fills.append(fill(7, place.clock.time - timedelta(seconds=3), pnl="111"))
        report = place.step(second=2)
        assert (report.spooled, report.lost) == (1, 0)
        place.next_minute()
        account.down = Unavailable("the exchange is down")
        place.step()
        account.down = None
        place.next_minute()
    place.next_minute()  # nobody ran in the minute before
    place.step()
    assert place.rows("aaaa") == [NOON, NOON + MINUTE, NOON + 4 * MINUTE]
    assert place.gaps("aaaa") == {
        NOON + 2 * MINUTE: GapCause.EXCHANGE_UNREACHABLE,
        NOON + 3 * MINUTE: GapCause.NOT_RUNNING,
    }
    series = place.results.portfolio_series(place.watched("aaaa"), NOON, NOON + 9 * MINUTE, 9)
    assert series[1].row.measured_at == NOON + MINUTE + timedelta(seconds=2)
    assert series[1].row.realized_pnl == series[2].row.realized_pnl == Decimal(111)
    place.next_minute()
    place.step()
    session = place.watched("aaaa")
    told = place.results.indicator_series(session, NOON, NOON + 9 * MINUTE, 9)
    assert [row.minute for row in told] == place.rows("aaaa")  # none lacks its indicators
    for number, row in enumerate(told):
        whole = replay(None, place.results.curve(session, None)[: number + 1])
        assert whole is not None
        traded = row.row.traded_notional or Decimal(0)
        assert row.row == whole.read(replace(NO_TRADES, traded_notional=traded))


def test_a_session_that_ended_between_two_passes_gets_its_missing_minutes(
    place: Installation,
) -> None:
    place.open("aaaa")
    place.step()
    place.sessions.set_state("2603031200-aaaa", SessionState.ENDED, NOON + timedelta(seconds=150))
    place.clock.time = NOON + 40 * MINUTE
    place.step()
    place.next_minute()
    assert place.step().sessions == 0
    assert place.rows("aaaa") == [NOON]
    assert place.gaps("aaaa") == dict.fromkeys(
        (NOON + MINUTE, NOON + 2 * MINUTE, NOON + 3 * MINUTE), GapCause.NOT_RUNNING
    )


def test_a_minute_of_a_sessions_own_finwatcher_that_a_fail_over_forgot_is_lost_by_the_store(
    place: Installation,
) -> None:
    place.open("aaaa")
    place.step()
    place.next_minute()
    place.step_alone("aaaa")  # before the pass, which then has nothing to do
    assert place.step(second=9).sessions == 0
    assert place.rows("aaaa") == [NOON, NOON + MINUTE]
    place.forget("aaaa", NOON + MINUTE)
    place.next_minute()
    place.step()
    assert place.rows("aaaa") == [NOON, NOON + 2 * MINUTE]
    assert place.gaps("aaaa") == {NOON + MINUTE: GapCause.STORE_LOST}


def test_what_a_killed_own_finwatcher_spooled_is_taken_over_an_hour_after_the_end(
    place: Installation,
) -> None:
    place.open("aaaa")
    name = "2603031200-aaaa"
    place.step()
    place.next_minute()
    place.clock.time += timedelta(seconds=3)
    silent: ResultsStore = _Silent()  # type: ignore[assignment]  # raises whatever is asked
    place.step_alone("aaaa", silent)
    place.sessions.set_state(name, SessionState.ENDED, NOON + timedelta(seconds=100))
    place.clock.time = NOON + 2 * MINUTE
    place.step()
    assert place.gaps("aaaa") == {NOON + MINUTE: GapCause.NOT_RUNNING}
    place.clock.time = NOON + 62 * MINUTE
    place.step()
    assert NOON + MINUTE in place.gaps("aaaa")  # it might still come for it itself
    place.next_minute()
    place.step()
    assert place.gaps("aaaa") == {}
    assert place.rows("aaaa") == [NOON, NOON + MINUTE, NOON + 2 * MINUTE]
    place.step()
    assert not (place.folder / name / "finwatcher.spool").exists()


def test_a_row_takes_the_place_of_a_gap_and_a_true_cause_that_of_an_ignorant_one(
    place: Installation,
) -> None:
    place.open("aaaa")
    session = place.watched("aaaa")

    def gap(minute: datetime, cause: GapCause) -> Sequence[tuple[WatchedSession, GapRow]]:
        row = GapRow(session.session_id, session.owner_id, minute, cause, "", NOON)
        return [(session, row)]

    place.store.store_gaps(gap(NOON - MINUTE, GapCause.NOT_RUNNING))
    place.store.store_gaps(gap(NOON - MINUTE, GapCause.EXCHANGE_UNREACHABLE))
    place.store.store_gaps(gap(NOON - MINUTE, GapCause.NOT_RUNNING))
    assert place.gaps("aaaa") == {NOON - MINUTE: GapCause.EXCHANGE_UNREACHABLE}
    place.step()
    place.store.store_gaps(gap(NOON, GapCause.NOT_RUNNING))
    assert NOON not in place.gaps("aaaa")
