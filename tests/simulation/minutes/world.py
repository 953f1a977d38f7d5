"""The world of the minutes: one jumping clock, sessions, a CronJob, and what goes wrong.

Each simulated minute draws its troubles from the seed, lets the accounts live, and runs what the
machine would have run at second 0: one pass of the production `Fleet`, sometimes late, sometimes
two of them, one inside the other, sometimes beside a production `Finwatcher` of one session, or
none. The judge then looks at every row that was written and, at the end, at every minute.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import cast

from module.model.errors import Unavailable
from module.model.market import MarketType
from module.model.results import MinuteRows, WatchedSession
from module.model.sessions import boundary_at_or_before
from module.points import listen
from module.ports import Alert, Clock, Exchange
from monitoring.finwatcher import Finwatcher, FinwatcherWiring
from monitoring.fleet import Fleet
from monitoring.fleet_folder import FleetFolder
from monitoring.fleet_ports import AccountReads
from monitoring.fleet_storing import FleetWiring
from monitoring.lanes import InlineLanes
from monitoring.spool import DETAIL_BYTES_MAX
from tests.simulation.minutes.accounts import LivingAccount
from tests.simulation.minutes.judge import (
    Facts,
    Violation,
    judge_history,
    judge_minutes,
    judge_row,
)
from tests.simulation.minutes.store import MemoryStore
from tests.simulation.planted_bugs.bug import Patch

MINUTE = timedelta(minutes=1)
START = datetime(2026, 3, 3, 9, 17, 41, tzinfo=UTC)
SESSIONS = 3
CALM_AT_END = 80
"""So many quiet minutes at the end: what was missed must be made up for by then. More than an hour:
so long after its end a session's own watcher may still come for what it spooled."""
VIOLATIONS_MAX = 20


class Killed(BaseException):
    """The process ends here."""


@dataclass
class JumpingClock:
    """World time that only moves when somebody waits. `offset` is how wrong the machine is."""

    true: datetime
    offset: timedelta = timedelta(0)
    real_s: float = 0.0

    def now(self) -> datetime:
        """What the machine believes."""
        return self.true + self.offset

    def monotonic(self) -> float:
        """Real seconds."""
        return self.real_s

    def wall(self) -> datetime:
        """The same as now."""
        return self.now()

    def sleep(self, seconds: float) -> None:
        """Jump."""
        if seconds > 0:
            self.true += timedelta(seconds=seconds)
            self.real_s += seconds

    def sleep_until(self, when: datetime) -> None:
        """Jump there."""
        self.sleep((when - self.now()).total_seconds())

    def pause(self, seconds: float) -> None:
        """Jump."""
        self.sleep(seconds)

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        """Nobody waits here."""
        raise NotImplementedError

    def wake(self, participant: str) -> None:
        """Nobody sleeps."""


class KeptAlerts:
    """Counts what would have been told."""

    def __init__(self) -> None:
        self.count = 0

    def notify(self, alert: Alert) -> None:
        """One more."""
        self.count += 1


@dataclass(frozen=True, slots=True)
class Troubles:
    """How often in a minute each thing goes wrong."""

    exchange_down: float = 0.02
    hangs: float = 0.01
    slow: float = 0.02
    postgres_away: float = 0.012
    cut_commit: float = 0.02
    lose_answer: float = 0.02
    fail_over: float = 0.01
    kill: float = 0.05
    no_pass: float = 0.03
    late_start: float = 0.05
    second_pass: float = 0.03
    inner_pass: float = 0.02
    watcher: float = 0.01
    disk_full: float = 0.004
    spool_bound: float = 0.004
    clock_step: float = 0.004
    overrun: float = 0.01
    session_ends: float = 0.008
    own_spool_bound: float = 0.004


@dataclass
class Lived:
    """What a run found."""

    seed: int
    minutes: int
    session_minutes: int = 0
    rows: int = 0
    gaps: int = 0
    kills: int = 0
    passes: int = 0
    sessions: int = 0
    history: int = 0
    asked: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    troubles: dict[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)


class MinutesWorld:
    """One seed's minutes. `run` lives them and judges."""

    def __init__(
        self, seed: int, minutes: int, folder: Path, troubles: Troubles | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.minutes = minutes
        self.folder = folder
        self.odds = troubles or Troubles()
        self.clock = JumpingClock(START)
        self.store = MemoryStore(self.clock)
        self.alerts = KeptAlerts()
        self.facts = Facts()
        self.lived = Lived(seed, minutes)
        self.accounts: dict[str, LivingAccount] = {}
        self.watchers: dict[str, Finwatcher] = {}
        self.disk_full_until: datetime | None = None
        self.own_bound_until: datetime | None = None
        self.bytes_max = 512_000_000
        self._seen: dict[tuple[str, datetime], tuple[str, datetime]] = {}
        self._latest = START

    # --- the run ----------------------------------------------------------------------------------

    def run(self) -> Lived:
        """Live all minutes; the report."""
        for _ in range(SESSIONS):
            self._open_session()
        with self._disk():
            for number in range(self.minutes):
                self._minute(calm=number >= self.minutes - CALM_AT_END)
                if len(self.lived.violations) >= VIOLATIONS_MAX:
                    break
        self._judge_all()
        return self.lived

    def _minute(self, *, calm: bool) -> None:
        """From just after one second 0 to just after the next one."""
        before = self.clock.true
        second0 = boundary_at_or_before(self.clock.now(), MINUTE) + MINUTE
        if second0 <= self.clock.now():
            second0 += MINUTE
        until = self.clock.true + (second0 - self.clock.now())
        for account in self.accounts.values():
            account.live(before, until - timedelta(seconds=1))
        self.clock.true = until
        for account in self.accounts.values():
            account.hangs, account.slow_s = False, 0.0
        minute = boundary_at_or_before(self.clock.now(), MINUTE)
        troubles = set() if calm else self._draw(minute)
        if calm:
            self.store.moods.away_until = None
            self.store.moods.cut_commits = 0
            self.disk_full_until = self.own_bound_until = None
            self._restart_watchers()
            for account in self.accounts.values():
                account.down_until = None
        self._latest = max(self._latest, minute)
        self._run_minute(minute, troubles)
        self._check_new_rows()

    def _draw(self, minute: datetime) -> set[str]:
        """This minute's troubles; those that last are set here."""
        odds, rng = self.odds, self.rng
        drawn = {
            name
            for name in Troubles.__dataclass_fields__
            if rng.random() < cast(float, getattr(odds, name))
        }
        for name in sorted(drawn):
            self.lived.troubles[name] = self.lived.troubles.get(name, 0) + 1
        now = self.clock.now()
        victim = self.accounts[rng.choice(sorted(self.accounts))]
        if "exchange_down" in drawn:
            for account in rng.choice(([victim], list(self.accounts.values()))):
                account.down_until = now + timedelta(seconds=rng.choice((5, 70, 400)))
        victim.hangs = "hangs" in drawn
        victim.slow_s = rng.choice((4.0, 8.0, 14.0)) if "slow" in drawn else 0.0
        moods = self.store.moods
        if "postgres_away" in drawn:
            moods.away_until = now + timedelta(seconds=rng.choice((20, 90, 600, 2400)))
        if "cut_commit" in drawn:
            moods.cut_commits = rng.randrange(1, 8)
        if "lose_answer" in drawn:
            moods.lose_next = rng.random() < 0.5
        if "disk_full" in drawn:
            self.disk_full_until = now + timedelta(minutes=rng.choice((1, 5, 20)))
        self.bytes_max = 0 if "spool_bound" in drawn else 512_000_000
        if "own_spool_bound" in drawn:
            self.own_bound_until = now + timedelta(minutes=rng.choice((1, 5, 20)))
        if "session_ends" in drawn:
            self._end_session()
        return drawn

    def _run_minute(self, minute: datetime, troubles: set[str]) -> None:
        """What runs in this minute, in order, and afterwards whether it was undisturbed."""
        facts, rng = self.facts, self.rng
        if "watcher" in troubles:
            self._toggle_watcher()
        if "clock_step" in troubles:
            self._step_clock(minute)
        if "fail_over" in troubles:
            self._fail_over(minute)
        orders: list[Callable[[], bool]] = []
        if "no_pass" not in troubles:
            if "late_start" in troubles:
                self.clock.sleep(rng.uniform(0.5, 39))
            orders.append(lambda: self._pass(troubles))
            if "second_pass" in troubles:
                orders.append(self._later_pass)
        for session_id in sorted(self.watchers):
            orders.insert(
                rng.randrange(len(orders) + 1), partial(self._watch, session_id, troubles, minute)
            )
        refused = len(self.store.moods.refused)
        fine = [order() for order in orders]
        disturbed = (
            len(self.store.moods.refused) > refused
            or not self._has_room()
            or "clock_step" in troubles
            or self.store.moods.cut_commits > 0
        )
        if len(self.store.moods.refused) > refused:
            facts.postgres_away |= {minute, boundary_at_or_before(self.clock.now(), MINUTE)}
        ran = "no_pass" not in troubles and all(fine)
        unreachable = any(at == minute for _, at in facts.unreachable)
        if ran and not disturbed and not unreachable and self.clock.now() < minute + MINUTE:
            facts.whole.add(minute)
        if self.clock.now() >= minute + MINUTE:
            over = minute + MINUTE
            while over <= self.clock.now():
                facts.overran.add(over)
                over += MINUTE

    def _pass(self, troubles: set[str]) -> bool:
        """One pass; False when it was killed."""
        minute = boundary_at_or_before(self.clock.now(), MINUTE)
        self.lived.passes += 1
        self.facts.begun.update((name, minute) for name in self.accounts)
        if not self._has_room():
            self.facts.no_room.add(minute)
        asked = {name: len(account.refused) for name, account in self.accounts.items()}
        try:
            with self._points(troubles):
                self._fleet().step()
            if "overrun" in troubles:
                self.clock.sleep(self.rng.choice((60, 75, 130)))
        except Killed:
            self.lived.kills += 1
            self.facts.killed.update((name, minute) for name in self.accounts)
            return False
        finally:
            self._note_looks(minute, asked)
        return True

    def _later_pass(self) -> bool:
        """Another one, some seconds later."""
        self.clock.sleep(self.rng.uniform(0.5, 15))
        return self._pass(set())

    def _watch(self, session_id: str, troubles: set[str], due: datetime) -> bool:
        """A step of a session's own watcher, meant for the minute `due`."""
        minute = boundary_at_or_before(self.clock.now(), MINUTE)
        while due < minute:  # whatever stepped before it here would have stepped beside it
            self.facts.held_up.add((session_id, due))
            due += MINUTE
        self.facts.begun.add((session_id, minute))
        asked = {name: len(account.refused) for name, account in self.accounts.items()}
        watcher, until = self.watchers[session_id], self.own_bound_until
        at_bound = until is not None and self.clock.now() < until
        watcher._keeper._spool._detail_bytes_max = 0 if at_bound else DETAIL_BYTES_MAX
        if at_bound:
            self.facts.own_spool_full.add((session_id, minute))
        try:
            with self._points(troubles if self.rng.random() < 0.5 else set()):
                report = watcher.step()
        except Killed:
            self.lived.kills += 1
            self.facts.killed.add((session_id, minute))
            del self.watchers[session_id]
            return False
        finally:
            self._note_looks(minute, asked)
        if report.session_over:
            del self.watchers[session_id]
        return True

    def _note_looks(self, minute: datetime, asked: dict[str, int]) -> None:
        for name, account in self.accounts.items():
            if len(account.refused) > asked.get(name, 0):
                self.facts.unreachable.add((name, minute))

    # --- the machine ------------------------------------------------------------------------------

    def _fleet(self) -> Fleet:
        def open_account(session: WatchedSession, clock: Clock) -> AccountReads:
            return self.accounts[session.session_id].seen_by(clock)

        fleet = Fleet(
            FleetWiring(
                clock=self.clock,
                store=self.store,
                results=self.store.results,
                registry=self.store.registry,
                open_account=open_account,
                alerts=self.alerts,
                folder=self.folder / "fleet",
                lanes=InlineLanes,
                session_folder=lambda session_id: self.folder / session_id,
            ),
            writer=f"{self.lived.passes}-{self.rng.randrange(10**9)}",
        )
        fleet._folder = fleet._storing.folder = FleetFolder(self.folder / "fleet", self.bytes_max)
        return fleet

    @contextmanager
    def _points(self, troubles: set[str]) -> Iterator[None]:
        """Ends the process, or runs another pass, at some point of the program."""
        left = self.rng.randrange(1, 14) if troubles & {"kill", "inner_pass"} else 0
        kill = "kill" in troubles

        def reached(_name: str) -> None:
            nonlocal left
            left -= 1
            if left != 0:
                return
            if kill:
                raise Killed
            listen(None)
            self._fleet().step()
            listen(reached)

        listen(reached if left else None)
        try:
            yield
        finally:
            listen(None)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Writing files fails while the disk is full; small ones fit into what is set aside."""
        world, write = self, FleetFolder._write

        def refusing(folder: FleetFolder, name: str, content: bytes) -> None:
            reserved = (folder._path / "reserved").exists()
            if not world._has_room() and (reserved or len(content) > 100_000):
                raise OSError(errno.ENOSPC, "no space left on device")
            write(folder, name, content)

        patch = Patch()
        patch.replace("monitoring.fleet_folder:FleetFolder._write", refusing)
        try:
            yield
        finally:
            patch.put_back()

    def _has_room(self) -> bool:
        full = self.disk_full_until
        return (full is None or self.clock.now() >= full) and self.bytes_max > 0

    def _toggle_watcher(self) -> None:
        """One session's own watcher starts, or is killed."""
        session_id = self.rng.choice(sorted(self.accounts))
        if self.watchers.pop(session_id, None) is None:
            self._start_watcher(session_id)

    def _restart_watchers(self) -> None:
        """What a living session's killed watcher has spooled is drained by the one after it."""
        for session_id in sorted(self.accounts):
            spooled = (self.folder / session_id / "finwatcher.spool").exists()
            over = self.store.registry.rows[session_id].is_over
            if spooled and not over and session_id not in self.watchers:
                self._start_watcher(session_id)

    def _start_watcher(self, session_id: str) -> None:
        (self.folder / session_id).mkdir(exist_ok=True)
        self.watchers[session_id] = Finwatcher(
            FinwatcherWiring(
                session_id=session_id,
                clock=self.clock,
                exchange=cast(Exchange, self.accounts[session_id]),
                sessions=self.store.registry,
                results=self.store.results,
                alerts=self.alerts,
                folder=self.folder / session_id,
            ),
            writer=f"own-{self.rng.randrange(10**9)}",
        )

    def _step_clock(self, minute: datetime) -> None:
        step = timedelta(seconds=self.rng.choice((-90, -30, 20, 150)))
        self.clock.offset += step
        now = boundary_at_or_before(self.clock.now(), MINUTE)
        self._latest = max(self._latest, now)
        low, high = min(minute, now) - MINUTE, max(minute, now) + 2 * MINUTE
        while low <= high:
            self.facts.clock_moved.add(low)
            self.facts.whole.discard(low)
            low += MINUTE

    def _fail_over(self, minute: datetime) -> None:
        """A replica takes over that lacks the last commits: those since before the last pass."""
        back = self.rng.choice((1.0, 30.0, 64.0))
        tables = self.store.tables
        before = {*tables.minutes, *tables.gaps}
        if self.store.server.forget_since(self.clock.now() - timedelta(seconds=back)):
            lost = {at for _, at in before.difference(tables.minutes, tables.gaps)}
            lost |= {minute - number * MINUTE for number in range(3)}
            self.facts.forgotten |= lost  # older ones too: those that had come out of a spool
            self.facts.whole -= lost
        for key in [key for key in self._seen if key not in self.store.tables.minutes]:
            del self._seen[key]

    # --- sessions ---------------------------------------------------------------------------------

    def _open_session(self) -> None:
        number = self.lived.sessions
        self.lived.sessions += 1
        session_id = f"2603030917-{number:04d}"
        account = LivingAccount(
            f"account-{number}",
            self.clock,
            random.Random(self.rng.randrange(10**9)),
            lambda: self.clock.true,
        )
        self.accounts[session_id] = account
        self.store.registry.rows[session_id] = WatchedSession(
            session_id=session_id,
            owner_id="owner",
            account_id=account.account_id,
            market=MarketType.FUTURES,
            strategy_name="momentum",
            started_at=self.clock.now(),
            leverage=Decimal(1),
            allocated=None,
            compounding=False,
            initial_balance=account.wallet,
            is_over=False,
            ended_at=None,
        )

    def _end_session(self) -> None:
        """One ends now, and another one begins."""
        with suppress(IndexError, Unavailable):
            session_id = self.rng.choice(list(self.store.registry.active()))
            row = self.store.registry.rows[session_id]
            self.store.registry.rows[session_id] = replace(
                row, is_over=True, ended_at=self.clock.now()
            )
            self.facts.ended[session_id] = self.clock.true
            self._open_session()

    # --- judging ----------------------------------------------------------------------------------

    def _check_new_rows(self) -> None:
        """Every row that was written since the last check: true, and written once."""
        for session_id, minute in sorted(self.store.tables.minutes.changed):
            self._check_row(session_id, minute)
        self.store.tables.minutes.changed.clear()

    def _check_row(self, session_id: str, minute: datetime) -> None:
        key = (session_id, minute)
        rows: MinuteRows | None = self.store.tables.minutes.get(key)
        if rows is None or rows.portfolio is None:
            return
        owner = (rows.writer, rows.portfolio.measured_at)
        known = self._seen.get(key)
        if known == owner:
            return
        self._seen[key] = owner
        if known is not None:
            detail = f"{known[0]} wrote it, then {owner[0]}"
            self.lived.violations.append(Violation("written-twice", *key, detail))
        account = self.accounts[session_id]
        self.lived.violations.extend(judge_row(rows, account, self.store.registry.rows[session_id]))

    def _judge_all(self) -> None:
        lived, tables = self.lived, self.store.tables
        told = self.clock.true - 8 * MINUTE
        for session_id, session in self.store.registry.rows.items():
            lived.violations.extend(judge_minutes(session, tables, self.facts, self._latest))
            ended = self.facts.ended.get(session_id)
            account = self.accounts[session_id]
            lived.violations.extend(judge_history(session, tables, account, told, ended))
        lived.rows = sum(rows.portfolio is not None for rows in tables.minutes.values())
        lived.gaps = len(tables.gaps)
        lived.session_minutes = lived.rows + lived.gaps
        lived.history = len(tables.transactions) + len(tables.positions)
        lived.asked = sum(len(account.asked) for account in self.accounts.values())
        for gap in tables.gaps.values():
            lived.causes[gap.cause.value] = lived.causes.get(gap.cause.value, 0) + 1
