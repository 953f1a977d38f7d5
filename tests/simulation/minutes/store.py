"""Postgres of the simulation: production's memory model, the reads of the fleet, and its faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from module.db.repositories.fleet import SURE_UNTIL
from module.model.canonical import parse_instant
from module.model.errors import NotFound, OutcomeUnknown, Unavailable
from module.model.results import (
    CurvePoint,
    GapCause,
    GapRow,
    PlannedOrder,
    StoredProgress,
    WatchedSession,
)
from module.model.sessions import boundary_at_or_after
from module.ports import Clock
from monitoring.ports import ResultsStore
from tests.simulation.memory_postgres.results import MemoryResults, ResultTables
from tests.simulation.memory_postgres.server import Connection, Server

MINUTE = timedelta(minutes=1)


@dataclass
class Moods:
    """`memory_postgres.server.Gate`: away until a moment, and answers to COMMIT that get lost."""

    clock: Clock
    away_until: datetime | None = None
    cut_commits: int = 0
    lose_next: bool | None = None
    refused: list[datetime] = field(default_factory=list)

    def begin(self, database: str) -> None:
        """Unavailable while it is away."""
        if self.away_until is not None and self.clock.now() < self.away_until:
            self.refused.append(self.clock.now())
            raise Unavailable(f"database {database} does not answer")

    def before_commit(self, database: str) -> None:
        """Cut in the middle of a pass, and away for a while from then on."""
        if self.cut_commits:
            self.cut_commits -= 1
            if not self.cut_commits:
                self.away_until = self.clock.now() + timedelta(seconds=100)
                self.begin(database)

    def lose_answer(self, database: str) -> bool | None:
        """Once, when it was drawn."""
        lost, self.lose_next = self.lose_next, None
        return lost

    def answer_lost(self, database: str) -> None:
        """What the caller sees."""
        raise OutcomeUnknown("the answer to a COMMIT was lost")


@dataclass
class Registry:
    """The sessions there are; `SessionRegistry` of both forms of the finwatcher."""

    connection: Connection
    rows: dict[str, WatchedSession] = field(default_factory=dict)

    def watched(self, session_id: str) -> WatchedSession:
        """One of them."""
        self.connection.read()
        if session_id not in self.rows:
            raise NotFound(f"there is no session {session_id}")
        return self.rows[session_id]

    def active(self) -> Sequence[str]:
        """Those that are not over."""
        self.connection.read()
        return [name for name, row in self.rows.items() if not row.is_over]

    def planned_orders(
        self, session: WatchedSession, since: datetime, until: datetime
    ) -> Mapping[str, PlannedOrder]:
        """Nobody planned them."""
        self.connection.read()
        return {}

    def unprotected_s(self, session: WatchedSession, until: datetime) -> float | None:
        """Nobody records them."""
        return None


class MemoryStore:
    """The server with its tables, as both forms of the finwatcher see it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.moods = Moods(clock)
        self.server = Server(clock.now, self.moods)
        self.tables = ResultTables()
        self._connection = Connection(self.server, "finwatcher")
        self.results: ResultsStore = MemoryResults(self._connection, self.tables)
        self.registry = Registry(Connection(self.server, "finplatform"))

    # --- FleetStore -------------------------------------------------------------------------------

    def sessions(self, ended_since: datetime) -> Sequence[WatchedSession]:
        """Those that live, and those that ended lately."""
        self.registry.connection.read()
        return [
            row
            for row in self.registry.rows.values()
            if row.ended_at is None or row.ended_at >= ended_since
        ]

    def unprotected_s(
        self, sessions: Sequence[WatchedSession], until: datetime
    ) -> Mapping[str, float]:
        """Nobody records them."""
        return {}

    def progress(
        self, sessions: Sequence[WatchedSession], look_back: timedelta
    ) -> Mapping[str, StoredProgress]:
        """As `FleetRepository.progress`."""
        self._connection.read()
        return {session.session_id: self._progress(session, look_back) for session in sessions}

    def store_gaps(self, gaps: Sequence[tuple[WatchedSession, GapRow]]) -> int:
        """As `FleetRepository.store_gaps`."""
        by_session: dict[str, tuple[WatchedSession, list[GapRow]]] = {}
        for session, gap in gaps:
            by_session.setdefault(session.session_id, (session, []))[1].append(gap)
        return sum(self.results.store_gaps(*item) for item in by_session.values())

    def _progress(self, session: WatchedSession, look_back: timedelta) -> StoredProgress:
        last = self._last_minute(session)
        known = self.tables.states.get(session.session_id)
        state = None if known is None else known[1]
        sure = None
        if state is not None and SURE_UNTIL in state:
            sure = parse_instant(str(state[SURE_UNTIL]))
        kept, curve = set(), []
        if last is not None:
            minute = (last - look_back if sure is None else sure) + MINUTE
            while minute <= last:
                if self._has(session, minute):
                    kept.add(minute)
                minute += MINUTE
        if state is not None and last is not None:
            minute = parse_instant(str(state["minute"])) + MINUTE
            while minute <= last:
                rows = self.tables.minutes.get((session.session_id, minute))
                row = None if rows is None else rows.portfolio
                if row is not None:
                    curve.append(
                        CurvePoint(minute, row.current_pv, row.net_transfers, row.initial_balance)
                    )
                minute += MINUTE
        unexplained = frozenset(
            at
            for at in kept
            if (gap := self.tables.gaps.get((session.session_id, at))) is not None
            and gap.cause is GapCause.NOT_RUNNING
        )
        return StoredProgress(last, sure, frozenset(kept), state, tuple(curve), unexplained)

    def _last_minute(self, session: WatchedSession) -> datetime | None:
        """From the last one that there ever was backwards: it may have been forgotten."""
        first = boundary_at_or_after(session.started_at, MINUTE)
        name = session.session_id
        highest = [
            table.highest[name][1]
            for table in (self.tables.minutes, self.tables.gaps)
            if name in table.highest
        ]
        minute = max(highest, default=first - MINUTE)
        while minute >= first:
            if self._has(session, minute):
                return minute
            minute -= MINUTE
        return None

    def _has(self, session: WatchedSession, minute: datetime) -> bool:
        key = (session.session_id, minute)
        rows = self.tables.minutes.get(key)
        return key in self.tables.gaps or (rows is not None and rows.portfolio is not None)
