"""Sessions that were really lived, in a real Postgres: what boards are asked about.

    World (simulated installation, jumping clock) ─► leader, strategy process, finwatcher, gateway
        └─ the rows that they wrote ─► the product's repositories ─► Postgres

A session's processes write into the databases' model of `tests.simulation`; what stands there at
the end is written once more, row by row, into the real ones. Only account and owner get new ids:
every simulated installation has the same.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final

from module.db.database import Database
from module.db.platform_tables import GatewayWrite
from module.db.repositories.accounts import AccountRepository
from module.db.repositories.alerts import AlertRepository
from module.db.repositories.audit import AuditEntry
from module.db.repositories.results import ResultsRepository
from module.db.repositories.session_records import SessionRecord
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.unprotected_periods import UnprotectedPeriodRepository
from module.db.repositories.users import Role, UserRepository
from module.model.credentials import SealedCredentials
from module.model.results import HistoryRows, WatchedSession
from module.model.sessions import SessionState
from module.settings import Settings
from module.simulator.engine.engine_types import PlanType
from tests.simulation.day_kinds import day_kind
from tests.simulation.fault_strokes import Pause
from tests.simulation.hub import EPOCH
from tests.simulation.world import ACCOUNT, START_MS, World
from tests.simulation.world_plan import Stroke, WorldPlan

BORN: Final = EPOCH + timedelta(milliseconds=START_MS)
HOURS: Final = 1.0
PATH: Final = (SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING)


@dataclass(frozen=True)
class StopsRemoved:
    """Somebody cancels every stop of the account at the exchange, by hand."""

    at_s: float
    fault_id: str = "B15"

    def apply(self, world: World) -> None:
        """The gateway notices, and puts them back."""
        account = world.exchange.account_id
        kinds = frozenset({PlanType.POS_LOSS, PlanType.POS_PROFIT})
        world.exchange.act(lambda engine: engine.cancel_plans(account, kinds))


@dataclass(frozen=True)
class Life:
    """One session's life. `ends` False: it is still going on when it is looked at."""

    name: str
    kind: str
    seed: int
    ends: bool = True
    strokes: tuple[Stroke, ...] = ()


LIVES: Final = (
    Life(
        "busy",
        "ordinary",
        11,
        strokes=(
            Pause("E8", 1200.0, "finwatcher", 250.0),  # minutes that nobody measured
            Pause("C8", 1820.0, "leader", 500.0),  # a boundary that nobody traded
            StopsRemoved(2400.0),
        ),
    ),
    Life("living", "isolated", 12, ends=False),
    Life("spot", "spot", 14),
)


@dataclass(frozen=True)
class Lived:
    """What there is to look at. `sessions`: ids by the name of the life."""

    owner_id: str
    sessions: dict[str, str]
    start: datetime
    end: datetime


class _OpenWorld(World):
    """A world that is looked at in mid-session: nobody ends it."""

    def _run(self) -> None:
        self._start()
        self.hub.run(START_MS + int(self.plan.hours * 3_600_000))


def live_and_store(settings: Settings) -> Lived:
    """Live every life and store what it wrote, for an owner who is new."""
    platform, finwatcher = Database(settings, "finplatform", 1), Database(settings, "finwatcher", 1)
    try:
        owner_id = UserRepository(platform).add("ada", Role.TRADER, BORN).user_id
        sessions: dict[str, str] = {}
        for life in LIVES:
            world = _lived(life)
            carried = _Carried(world, life.name, owner_id, platform, finwatcher)
            sessions[life.name] = carried.store()
        return Lived(
            owner_id, sessions, BORN - timedelta(minutes=1), BORN + timedelta(hours=HOURS + 0.25)
        )
    finally:
        platform.close()
        finwatcher.close()


@cache
def _lived(life: Life) -> World:
    """The world after that life; lived once in a process, whoever asks for its rows."""
    plan = WorldPlan(
        life.seed,
        hours=HOURS,
        kind=day_kind(life.seed, life.kind),
        strokes=life.strokes,
        watched=True,
    )
    make: Callable[[WorldPlan, Path], World] = World if life.ends else _OpenWorld
    with tempfile.TemporaryDirectory(prefix="aifap-life-") as folder:
        world = make(plan, Path(folder))
        world.run()
    return world


class _Carried:
    """One world's rows on their way into Postgres."""

    def __init__(
        self, world: World, label: str, owner_id: str, platform: Database, finwatcher: Database
    ) -> None:
        self._postgres = world.postgres
        self._label = label
        self._owner_id = owner_id
        self._account_id = str(uuid.uuid5(uuid.NAMESPACE_URL, label))
        self._platform = platform
        self._sessions = SessionRepository(platform)
        self._results = ResultsRepository(finwatcher)

    def store(self) -> str:
        """Everything; the session's id."""
        account = replace(
            self._postgres.gateway_tables.accounts[ACCOUNT],
            account_id=self._account_id,
            owner_id=self._owner_id,
            label=self._label,
            epoch=0,
            gateway_lease=None,
        )
        AccountRepository(self._platform).add(account, SealedCredentials(1, b"sealed"))
        (record,) = self._postgres.session_tables.sessions.values()
        self._store_session(record)
        self._store_writes()
        self._store_results(record)
        return record.session_id

    def _store_session(self, record: SessionRecord) -> None:
        session_id = record.session_id
        asked = AuditEntry(self._owner_id, "run-system", session_id, record.spec.started_at)
        spec = replace(record.spec, owner_id=self._owner_id, account_id=self._account_id)
        self._sessions.create(spec, sessions_max=100, audit=asked)
        epoch = self._sessions.take_epoch(session_id)
        self._sessions.set_initial_balance(session_id, epoch, record.initial_balance or Decimal(0))
        for cycle in self._postgres.session_tables.cycles.values():
            self._sessions.record_cycle(epoch, cycle)
        for state in (*PATH[1:], record.state):
            if state is record.state or PATH.index(state) < _place(record.state):
                at = record.ended_at or record.spec.started_at
                self._sessions.set_state(session_id, state, at, reason=record.reason)

    def _store_writes(self) -> None:
        tables = self._postgres.gateway_tables
        with self._platform.transaction() as session:
            for stored in tables.writes.values():
                write = stored.write
                session.add(
                    GatewayWrite(
                        account_id=self._account_id,
                        session_id=stored.session_id,
                        epoch=write.epoch,
                        kind=write.kind.value,
                        client_id=write.client_id,
                        symbol=write.symbol,
                        request=dict(write.request),
                        outcome=None if write.outcome is None else write.outcome.value,
                        answer=dict(write.answer),
                        sent_at=write.sent_at,
                        answered_at=stored.answered_at or write.answered_at,
                    )
                )
        UnprotectedPeriodRepository(self._platform).put(
            [replace(each, account_id=self._account_id) for each in tables.periods.values()]
        )
        alerts = AlertRepository(self._platform)
        for alert, channels, wall in self._postgres.alert_tables.alerts.values():
            alerts.add(replace(alert, owner_id=self._owner_id), channels, wall)

    def _store_results(self, record: SessionRecord) -> None:
        tables = self._postgres.result_tables
        owned = [
            replace(rows, owner_id=self._owner_id, account_id=self._account_id)
            for _, rows in sorted(tables.minutes.items())
        ]
        _, state = tables.states[record.session_id]
        self._results.store_minutes([(rows, state) for rows in owned])
        watched = self._watched(record)
        gaps = [replace(gap, owner_id=self._owner_id) for gap in tables.gaps.values()]
        self._results.store_gaps(watched, gaps)
        self._results.store_history(
            HistoryRows(
                session_id=record.session_id,
                owner_id=self._owner_id,
                account_id=self._account_id,
                market=record.spec.market,
                transactions=tuple(tables.transactions.values()),
                positions=tuple(tables.positions.values()),
            )
        )

    def _watched(self, record: SessionRecord) -> WatchedSession:
        spec = record.spec
        return WatchedSession(
            session_id=spec.session_id,
            owner_id=self._owner_id,
            account_id=self._account_id,
            market=spec.market,
            strategy_name=spec.strategy_name,
            started_at=spec.started_at,
            leverage=spec.leverage,
            allocated=spec.allocated,
            compounding=spec.compounding,
            initial_balance=record.initial_balance,
            is_over=record.state.is_over,
            ended_at=record.ended_at,
        )


def _place(state: SessionState) -> int:
    return len(PATH) if state.is_over else PATH.index(state)
