"""Database faults: each does what its row says, is counted once it changed something, and ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from module.db.repositories.wanted_stops import WantedStops
from module.model.errors import OutcomeUnknown, Unavailable
from module.model.orders import NO_STOPS
from module.model.results import MinuteRows
from tests.simulation.fault_postgres import (
    DatabaseFault,
    SimulatedPostgres,
    seeded_database_faults,
)
from tests.simulation.memory_postgres.server import Connection

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@dataclass
class Rig:
    """A database and a hand on its time."""

    now: datetime = NOON
    table: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.postgres = SimulatedPostgres(lambda: self.now)
        self.connection = Connection(self.postgres.server, "finplatform")

    def fault(self, fault_id: str, **words: object) -> None:
        self.postgres.arm([DatabaseFault(fault_id, self.now, **words)])  # type: ignore[arg-type]

    def put(self, key: str, value: int) -> None:
        with self.connection.transaction() as transaction:
            transaction.put(self.table, key, value)

    def put_again_and_again(self, key: str, value: int) -> None:
        self.connection.run_idempotent(lambda t: t.put(self.table, key, value))

    def wish(self, minute: int) -> WantedStops:
        return WantedStops("acc", "BTCUSDT", True, NO_STOPS, 7, NOON + timedelta(minutes=minute))


def test_E1_a_database_that_is_away_writes_nothing_until_it_is_back() -> None:
    rig = Rig()
    rig.fault("E1", seconds=180)
    for _ in range(3):
        with pytest.raises(Unavailable):
            rig.put("a", 1)
    assert (rig.table, rig.postgres.hits) == ({}, {"E1": 1})
    rig.now += timedelta(seconds=180)
    rig.put("a", 1)
    assert rig.table == {"a": 1}


@pytest.mark.parametrize("applied", [True, False])
def test_E2_a_commit_without_an_answer_happened_or_not(applied: bool) -> None:
    rig = Rig()
    rig.fault("E2", applied=applied)
    with pytest.raises(OutcomeUnknown):
        rig.put("a", 1)
    assert rig.table == ({"a": 1} if applied else {})
    rig.fault("E2", applied=applied)
    rig.put_again_and_again("b", 2)
    assert rig.table["b"] == 2
    assert rig.postgres.hits["E2"] == 2


def test_E2_nobody_notices_where_nothing_was_written() -> None:
    rig = Rig()
    rig.fault("E2")
    with rig.connection.transaction():
        pass
    assert rig.postgres.hits == {}


def test_E3_a_crash_in_mid_write_undoes_it_and_frees_every_lock() -> None:
    rig = Rig()
    rig.postgres.leases("gw-1").claim("acc")
    rig.fault("E3")
    with pytest.raises(Unavailable):
        rig.put("a", 1)
    assert (rig.table, rig.postgres.server.locks) == ({}, {})
    with pytest.raises(Unavailable):
        rig.put("a", 1)
    rig.now += timedelta(seconds=2)
    rig.put("a", 1)
    assert rig.postgres.hits == {"E3": 1}


def test_E4_a_fail_over_forgets_the_last_two_seconds() -> None:
    rig = Rig()
    rig.put("kept", 1)
    rig.put("changed", 1)
    rig.now += timedelta(seconds=5)
    rig.put("changed", 2)
    rig.put("new", 3)
    rig.fault("E4")
    rig.postgres.sessions.active()
    assert rig.table == {"kept": 1, "changed": 1}
    assert rig.postgres.hits == {"E4": 1}


def test_E4_with_nothing_to_forget_does_not_count() -> None:
    rig = Rig()
    rig.put("kept", 1)
    rig.now += timedelta(seconds=5)
    rig.fault("E4")
    rig.postgres.sessions.active()
    assert (rig.table, rig.postgres.hits) == ({"kept": 1}, {})


def test_E5_and_E6_say_what_the_real_ones_say() -> None:
    rig = Rig()
    rig.fault("E5", seconds=6)
    with pytest.raises(Unavailable) as busy:
        rig.put("a", 1)
    assert busy.value.retry_after_s == 1.0
    rig.now += timedelta(seconds=6)
    rig.fault("E6", times=2)
    rig.put_again_and_again("a", 1)
    assert rig.table == {"a": 1}
    rig.fault("E6", times=3)
    with pytest.raises(Unavailable):
        rig.put_again_and_again("a", 2)
    assert rig.table == {"a": 1}
    assert rig.postgres.hits == {"E5": 1, "E6": 5}


def test_a_fault_of_one_database_leaves_the_other_alone() -> None:
    rig = Rig()
    rig.fault("E5", seconds=60, database="finwatcher")
    rig.put("a", 1)
    rows = MinuteRows("s", "o", "a", None, NOON, "me", None, None, None)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        rig.postgres.results.store_minute(rows)


def test_an_exception_in_the_work_undoes_all_of_it() -> None:
    rig = Rig()
    rig.put("a", 1)

    class Dies(BaseException):
        pass

    with pytest.raises(Dies), rig.connection.transaction() as transaction:
        transaction.put(rig.table, "a", 2)
        transaction.remove(rig.table, "a")
        transaction.put(rig.table, "b", 3)
        raise Dies
    assert rig.table == {"a": 1}


def test_a_seed_gives_the_same_faults_again() -> None:
    end = NOON + timedelta(days=1)
    one = seeded_database_faults(Random(7), NOON, end, 40)
    assert one == seeded_database_faults(Random(7), NOON, end, 40)
    assert {fault.fault_id for fault in one} == {"E1", "E2", "E3", "E4", "E5", "E6", "E7"}
    assert all(NOON <= fault.at <= end for fault in one)
