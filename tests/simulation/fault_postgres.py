"""The simulation's Postgres, and what goes wrong with it: group E of the fault catalogue.

    world ─► SimulatedPostgres(now) ─► the repositories of gateway, leader, strategy, finwatcher:
                                       sessions, accounts, leases, writes, stops, results, alerts
    plan  ─► seeded_database_faults ─► arm(faults): each is counted when it changed something

Faults are found by world time: those with a length hold for it (E1, E5), the others strike the
next transaction that has something to lose (E2, E3, E6, E7), a fail-over happens at its time (E4).
A process that dies calls nothing; whoever discards a gateway calls `disconnect(gateway_id)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Final

from module.db.database import UNDONE_CODE, DatabaseName
from module.model.errors import OutcomeUnknown, Unavailable
from module.model.results import MinuteRows, StoredMinute
from tests.simulation.memory_postgres.alerts import AlertTables, MemoryAlerts
from tests.simulation.memory_postgres.gateway import (
    GatewayTables,
    MemoryAccounts,
    MemoryBarePeriods,
    MemoryLeases,
    MemoryWantedStops,
    MemoryWrites,
)
from tests.simulation.memory_postgres.letters import MemoryLetterStore, MemoryMirror, Rendering
from tests.simulation.memory_postgres.results import MemoryResults, ResultTables
from tests.simulation.memory_postgres.server import Connection, Server
from tests.simulation.memory_postgres.sessions import MemorySessions, SessionTables

LOST_BY_FAIL_OVER_S: Final = 2.0
RECOVERY_S: Final = 1.5
"""How long a crashed server recovers (measured on a real one: 1.3 to 1.8 s)."""
ANOTHER_WRITER: Final = "another finwatcher of this session"
DATABASE_FAULTS: Final[Mapping[str, str]] = {
    "E1": "away for minutes",
    "E2": "the answer to a COMMIT is lost (it was applied, or not)",
    "E3": "the server crashes in mid-write, recovers, and every connection is cut",
    "E4": "a replica takes over that misses the last 2 s",
    "E5": "no connection, or a lock, within the time-out",
    "E6": "a deadlock undoes the transaction",
    "E7": "another process has written the minute already",
}


@dataclass(frozen=True, slots=True)
class DatabaseFault:
    """One thing that goes wrong from world time `at` on.

    `seconds`: how long (E1, E5). `times`: how many transactions one after another (E2, E6: three
    outlive the retries). `applied`: whether a commit without an answer happened (E2). `database`:
    the one it strikes; None: any.
    """

    fault_id: str
    at: datetime
    seconds: float = 0.0
    times: int = 1
    applied: bool = True
    database: DatabaseName | None = None

    @property
    def until(self) -> datetime:
        """When it is over."""
        return self.at + timedelta(seconds=self.seconds)

    def strikes(self, database: str, now: datetime) -> bool:
        """Whether it is due, for that database."""
        return now >= self.at and self.database in (None, database)


class FaultGate:
    """Decides what happens to each transaction; `hits` counts what really changed something."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._armed: list[DatabaseFault] = []
        self.server: Server | None = None
        self.hits: Counter[str] = Counter()
        self._recovers_at: datetime | None = None
        self._next_due: datetime | None = None

    def arm(self, faults: Iterable[DatabaseFault]) -> None:
        """From now on these too."""
        self._armed.extend(faults)
        self._armed.sort(key=lambda fault: (fault.at, fault.fault_id))
        self._next_due = self._armed[0].at if self._armed else None

    @property
    def pending(self) -> int:
        """How many have not struck yet."""
        return len(self._armed)

    def begin(self, database: str) -> None:
        """Refuse while the server is away, or has no connection left."""
        now = self._now()
        if self._recovers_at is not None:
            if now < self._recovers_at:
                raise _away(database, "the server is starting up")
            self._recovers_at = None
        if self._next_due is None or now < self._next_due:
            return
        for fault in list(self._armed):
            if fault.at > now:
                break
            if fault.fault_id == "E4":
                self._fail_over(fault)
            elif fault.fault_id in ("E1", "E5"):
                self._refuse(fault, database, now)

    def before_commit(self, database: str) -> None:
        """A crash, or a deadlock, before anything is committed."""
        crash = self._due("E3", database)
        if crash is not None:
            self._strike(crash)
            self._recovers_at = self._now() + timedelta(seconds=crash.seconds or RECOVERY_S)
            self._cut()
            raise _away(database, "the server closed the connection unexpectedly")
        deadlock = self._due("E6", database)
        if deadlock is not None:
            self._strike(deadlock)
            raise Unavailable(
                f"Postgres undid a transaction in {database} (deadlock detected); it may be "
                "repeated whole",
                code=UNDONE_CODE,
                retry_after_s=0.1,
            )

    def lose_answer(self, database: str) -> bool | None:
        """Whether this COMMIT's answer is lost, and if so whether it was applied."""
        fault = self._due("E2", database)
        if fault is None:
            return None
        self._strike(fault)
        return fault.applied

    def answer_lost(self, database: str) -> None:
        """What the caller sees of it: its own connection broke, the others did not."""
        raise OutcomeUnknown(
            f"the answer to a COMMIT in {database} was lost (connection reset); what it wrote may "
            "or may not be there: read it back by its key"
        )

    def take_minute(self) -> bool:
        """Whether another process has just written the minute that is to be stored (E7)."""
        fault = self._due("E7", "finwatcher")
        if fault is None:
            return False
        self._strike(fault)
        return True

    def _due(self, fault_id: str, database: str) -> DatabaseFault | None:
        if self._next_due is None:
            return None
        now = self._now()
        if now < self._next_due:
            return None
        for fault in self._armed:
            if fault.fault_id == fault_id and fault.strikes(database, now):
                return fault
        return None

    def _strike(self, fault: DatabaseFault) -> None:
        """Count it; one that strikes several transactions stays for the next one."""
        self.hits[fault.fault_id] += 1
        self._armed.remove(fault)
        if fault.times > 1:
            self._armed.append(replace(fault, times=fault.times - 1))
        self.arm(())

    def _refuse(self, fault: DatabaseFault, database: str, now: datetime) -> None:
        """A server that is away, or busy, for a while: it counts once it has refused anybody."""
        if now >= fault.until:
            self._armed.remove(fault)
            self.arm(())
            return
        if fault.database not in (None, database):
            return
        if fault.times:  # still to be counted
            self.hits[fault.fault_id] += 1
            self._armed[self._armed.index(fault)] = replace(fault, times=0)
            if fault.fault_id == "E1":
                self._cut()
        if fault.fault_id == "E1":
            raise _away(database, "connection refused")
        raise Unavailable(
            f"all connections to {database} are busy and none became free; ask again later",
            retry_after_s=1.0,
        )

    def _fail_over(self, fault: DatabaseFault) -> None:
        self._armed.remove(fault)
        self.arm(())
        if self.server is None:
            return
        seconds = fault.seconds or LOST_BY_FAIL_OVER_S
        if self.server.forget_since(fault.at - timedelta(seconds=seconds)):
            self.hits[fault.fault_id] += 1
        self._cut()

    def _cut(self) -> None:
        if self.server is not None:
            self.server.cut_connections()


class SimulatedPostgres:
    """The databases of one simulated installation, and the repositories on them."""

    def __init__(self, now: Callable[[], datetime], faults: Iterable[DatabaseFault] = ()) -> None:
        self.gate = FaultGate(now)
        self.server = Server(now, self.gate)
        self.gate.server = self.server
        self.gateway_tables = GatewayTables()
        self.session_tables = SessionTables(self.gateway_tables)
        self.result_tables = ResultTables()
        self.alert_tables = AlertTables()
        platform = Connection(self.server, "finplatform")
        self.sessions = MemorySessions(platform, self.session_tables)
        self.accounts = MemoryAccounts(platform, self.gateway_tables)
        self.writes = MemoryWrites(platform, self.gateway_tables)
        self.stops = MemoryWantedStops(platform, self.gateway_tables)
        self.periods = MemoryBarePeriods(platform, self.gateway_tables)
        self.alerts = MemoryAlerts(platform, self.alert_tables)
        self.results: MemoryResults = _ContestedResults(
            Connection(self.server, "finwatcher"), self.result_tables, self.gate
        )
        self.arm(faults)

    def leases(self, gateway_id: str) -> MemoryLeases:
        """The leases of one gateway process."""
        return MemoryLeases(Connection(self.server, "finplatform"), self.gateway_tables, gateway_id)

    def mirror(self, session_id: str) -> MemoryMirror:
        """The copy of a session's letter, for a file store."""
        return MemoryMirror(self.sessions, session_id)

    def letters(self, session_id: str, rendering: Rendering | None = None) -> MemoryLetterStore:
        """The store of a session whose letter's truth is its row."""
        return MemoryLetterStore(
            Connection(self.server, "finplatform"), self.session_tables, session_id, rendering
        )

    def disconnect(self, gateway_id: str) -> None:
        """That process is dead: the server frees what it held."""
        locks = self.server.locks
        for key in [key for key, (holder, _) in locks.items() if holder == gateway_id]:
            del locks[key]

    def arm(self, faults: Iterable[DatabaseFault]) -> None:
        """These happen from their times on."""
        self.gate.arm(faults)

    @property
    def hits(self) -> Counter[str]:
        """Faults that changed something, by catalogue id."""
        return self.gate.hits


class _ContestedResults(MemoryResults):
    """Results of which another process of the session may have written a minute first (E7)."""

    def __init__(self, connection: Connection, tables: ResultTables, gate: FaultGate) -> None:
        super().__init__(connection, tables)
        self._gate = gate

    def store_minute(
        self, rows: MinuteRows, state: Mapping[str, object] | None = None
    ) -> StoredMinute:
        """As `MemoryResults`, unless somebody was faster."""
        fresh = (rows.session_id, rows.minute) not in self._tables.minutes
        if fresh and rows.portfolio is not None and self._gate.take_minute():
            super().store_minute(replace(rows, writer=ANOTHER_WRITER))
        return super().store_minute(rows, state)


def seeded_database_faults(
    random: Random, start: datetime, end: datetime, count: int
) -> list[DatabaseFault]:
    """`count` faults of group E between two world times, drawn from `random`."""
    span_s = (end - start).total_seconds()
    faults: list[DatabaseFault] = []
    for _ in range(count):
        fault_id = random.choices(tuple(DATABASE_FAULTS), weights=(2, 4, 3, 2, 2, 3, 1))[0]
        at = start + timedelta(seconds=round(random.uniform(0, span_s), 3))
        database: DatabaseName = random.choice(("finplatform", "finwatcher"))
        drawn = DatabaseFault(fault_id, at, database=database)
        if fault_id in ("E1", "E3", "E4", "E7"):
            drawn = replace(drawn, database=None)
        if fault_id == "E1":
            drawn = replace(drawn, seconds=float(random.choice((20, 60, 180))))
        elif fault_id == "E5":
            drawn = replace(drawn, seconds=float(random.choice((2, 6, 30))))
        elif fault_id in ("E2", "E6"):
            drawn = replace(drawn, times=random.choice((1, 1, 1, 2, 3)))
        if fault_id == "E2":
            drawn = replace(drawn, applied=random.random() < 0.5)
        faults.append(drawn)
    return faults


def _away(database: str, why: str) -> Unavailable:
    return Unavailable(
        f"database {database} does not answer ({why}); nothing was written", retry_after_s=1.0
    )
