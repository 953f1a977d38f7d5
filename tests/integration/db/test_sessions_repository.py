"""Sessions in Postgres: one per account, one writer, states that move only along the table."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import pytest

from module.db.database import Database
from module.db.repositories.accounts import AccountRepository
from module.db.repositories.order_info import PostgresMirror
from module.db.repositories.session_records import Leader
from module.db.repositories.session_specs import spec_from_json, spec_to_json
from module.db.repositories.sessions import SessionRepository
from module.db.repositories.users import Role, UserRepository
from module.model.credentials import SealedCredentials
from module.model.errors import Conflict, InvariantViolated, NotFound, RateLimited, StaleWriter
from module.model.sessions import (
    DesiredState,
    EndState,
    SessionSpec,
    SessionState,
    new_session_id,
)
from module.ports import CycleRecord
from module.settings import Settings
from tests.fakes.stored_rows import NOON, paper_account, session_spec


@pytest.fixture
def database(postgres: Settings) -> Iterator[Database]:
    made = Database(postgres, "finplatform", 5)
    yield made
    made.close()


@pytest.fixture
def sessions(database: Database) -> SessionRepository:
    return SessionRepository(database)


@pytest.fixture
def spec(database: Database) -> SessionSpec:
    """A session of a fresh user on a fresh account; not stored yet."""
    user = UserRepository(database).add(f"user-{uuid.uuid4()}", Role.TRADER, NOON)
    account = paper_account(user.user_id, epoch=41)
    AccountRepository(database).add(account, SealedCredentials(1, b"sealed"))
    return session_spec(
        user.user_id,
        account.account_id,
        strategy_name="momentum",
        strategy_digest="ab" * 32,
        config={"top": 3, "speed": 0.37, "names": ["a", None, True]},
        leverage=Decimal(3),
        allocated=Decimal("1234.567890123456789"),
        target_volatility=Decimal("0.4"),
        on_end=EndState.FLAT,
        apply_account_settings=True,
        ends_at=NOON + timedelta(hours=720),
        cycles_max=7,
    )


def cycle(spec: SessionSpec, number: int, state: str = "done") -> CycleRecord:
    boundary = NOON + number * spec.interval
    return CycleRecord(
        session_id=spec.session_id,
        boundary=boundary,
        number=number,
        state=state,
        reason="",
        started_at=boundary,
        ended_at=None,
        own_ms=12.5,
        targets={"BTCUSDT": {"weight": "0.37", "presetStopLossPrice": "61000"}},
        order_info={"revision": number},
        digest="cd" * 32,
    )


def test_a_spec_comes_back_from_its_row_as_it_was(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    assert spec_from_json(spec_to_json(spec)) == spec
    record = sessions.create(spec, sessions_max=1000)
    assert sessions.get(spec.session_id) == record
    assert record.spec == spec
    assert record.end_state is EndState.FLAT


def test_a_spec_that_was_damaged_is_no_spec(spec: SessionSpec) -> None:
    for name, value in (("leverage", 3), ("interval_s", "300"), ("trade_mode", "hodl")):
        with pytest.raises(InvariantViolated, match="cannot be read"):
            spec_from_json({**spec_to_json(spec), name: value})


def test_one_session_per_account_however_many_ask_at_once(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    from dataclasses import replace

    wanted = [
        replace(spec, session_id=new_session_id(NOON, bytes([number]) * 3)) for number in range(20)
    ]

    def attempt(one: SessionSpec) -> str:
        try:
            return sessions.create(one, sessions_max=1000).session_id
        except Conflict:
            return ""

    with ThreadPoolExecutor(10) as pool:
        made = [found for found in pool.map(attempt, wanted) if found]
    assert len(made) == 1
    living = sessions.living_on_account(spec.account_id)
    assert living is not None
    assert living.session_id == made[0]


def test_admission_ends_at_sessions_max(sessions: SessionRepository, spec: SessionSpec) -> None:
    with pytest.raises(RateLimited):
        sessions.create(spec, sessions_max=0)
    assert sessions.find(spec.session_id) is None


def test_taking_an_epoch_raises_the_accounts_and_outdates_all_older_writers(
    sessions: SessionRepository, spec: SessionSpec, database: Database
) -> None:
    sessions.create(spec, sessions_max=1000)
    first = sessions.take_epoch(spec.session_id)
    second = sessions.take_epoch(spec.session_id)
    assert (first, second) == (42, 43)
    assert AccountRepository(database).get(spec.account_id).epoch == 43
    with pytest.raises(StaleWriter):
        sessions.heartbeat(spec.session_id, first, NOON)
    with pytest.raises(StaleWriter):
        sessions.set_state(spec.session_id, SessionState.RUNNING, NOON, epoch=first)
    with pytest.raises(StaleWriter):
        sessions.record_cycle(first, cycle(spec, 1))
    with pytest.raises(StaleWriter):
        sessions.set_initial_balance(spec.session_id, first, Decimal(1))
    assert sessions.get(spec.session_id).state is SessionState.STARTING


def test_epochs_taken_at_once_are_all_different(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    sessions.create(spec, sessions_max=1000)
    with ThreadPoolExecutor(5) as pool:
        epochs = list(pool.map(lambda _: sessions.take_epoch(spec.session_id), range(20)))
    assert sorted(epochs) == list(range(42, 62))
    assert sessions.get(spec.session_id).epoch == 61


def test_a_session_that_is_over_may_not_trade_again(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    sessions.create(spec, sessions_max=1000)
    sessions.set_state(spec.session_id, SessionState.FAILED, NOON, reason="no keys")
    for act in (
        lambda: sessions.take_epoch(spec.session_id),
        lambda: sessions.set_state(spec.session_id, SessionState.RUNNING, NOON),
        lambda: sessions.set_desired(spec.session_id, DesiredState.RUNNING),
    ):
        with pytest.raises(Conflict):
            act()
    record = sessions.get(spec.session_id)
    assert (record.reason, record.ended_at) == ("no keys", NOON)


def test_states_move_along_the_table_and_repeating_is_harmless(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    sessions.create(spec, sessions_max=1000)
    for state in (
        SessionState.RUNNING,
        SessionState.RUNNING,
        SessionState.STOPPING,
        SessionState.ENDED,
    ):
        sessions.set_state(spec.session_id, state, NOON, reason=state.value)
    again = sessions.set_state(
        spec.session_id, SessionState.ENDED, NOON + timedelta(hours=1), reason="again"
    )
    assert (again.reason, again.ended_at) == ("ended", NOON)
    with pytest.raises(NotFound):
        sessions.set_state("2611211010-zzzz", SessionState.ENDED, NOON)


def test_a_heartbeat_brings_the_owners_wishes_back(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    sessions.create(spec, sessions_max=1000)
    epoch = sessions.take_epoch(spec.session_id)
    assert sessions.heartbeat(spec.session_id, epoch, NOON).desired is DesiredState.RUNNING
    sessions.set_desired(spec.session_id, DesiredState.STOPPED, EndState.PROTECTED)
    wishes = sessions.heartbeat(spec.session_id, epoch, NOON + timedelta(seconds=2))
    assert (wishes.desired, wishes.end_state) == (DesiredState.STOPPED, EndState.PROTECTED)
    assert sessions.get(spec.session_id).heartbeat_wall == NOON + timedelta(seconds=2)


def test_the_leader_the_restarts_and_the_first_balance_are_kept(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    sessions.create(spec, sessions_max=1000)
    epoch = sessions.take_epoch(spec.session_id)
    sessions.record_leader(spec.session_id, Leader(4711, 123456789012, "host-7"))
    assert [sessions.record_restart(spec.session_id) for _ in range(2)] == [1, 2]
    sessions.set_initial_balance(spec.session_id, epoch, Decimal("9999.123456789012345678"))
    sessions.set_initial_balance(spec.session_id, epoch, Decimal(1))
    record = sessions.get(spec.session_id)
    assert record.leader == Leader(4711, 123456789012, "host-7")
    assert record.initial_balance == Decimal("9999.123456789012345678")


def test_cycles_are_upserted_and_the_newest_is_found(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    sessions.create(spec, sessions_max=1000)
    epoch = sessions.take_epoch(spec.session_id)
    assert sessions.latest_cycle(spec.session_id) is None
    for number in (1, 2, 2, 1):
        sessions.record_cycle(epoch, cycle(spec, number, f"state-{number}"))
    latest = sessions.latest_cycle(spec.session_id)
    assert latest == cycle(spec, 2, "state-2")
    assert [item.number for item in sessions.cycles(spec.session_id, 10)] == [2, 1]
    record = sessions.get(spec.session_id)
    assert (record.cycle, record.last_boundary) == (2, NOON + timedelta(minutes=10))


def test_the_finwatcher_sees_the_targets_of_the_latest_cycle_that_has_any(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    from dataclasses import replace

    sessions.create(spec, sessions_max=1000)
    epoch = sessions.take_epoch(spec.session_id)
    assert sessions.watched(spec.session_id).targets == ()
    sessions.record_cycle(epoch, cycle(spec, 1))
    sessions.record_cycle(epoch, replace(cycle(spec, 2, "skipped"), targets=None))
    watched = sessions.watched(spec.session_id)
    assert watched.targets == (("BTCUSDT", Decimal("0.37")),)
    assert (watched.is_over, watched.leverage) == (False, Decimal(3))
    assert spec.session_id in sessions.active()


def test_the_letters_copy_never_goes_back(
    database: Database, sessions: SessionRepository, spec: SessionSpec
) -> None:
    sessions.create(spec, sessions_max=1000)
    mirror = PostgresMirror(database, spec.session_id)
    assert mirror.read() is None
    mirror.write({"n": 1}, 42, 9)
    mirror.write({"n": 2}, 43, 1)
    mirror.write({"n": 3}, 43, 1)
    for epoch, revision in ((42, 10), (43, 0)):
        with pytest.raises(StaleWriter):
            mirror.write({"n": 4}, epoch, revision)
    assert mirror.read() == {"n": 3}


def test_sessions_of_an_owner_come_newest_first_the_running_ones_before(
    sessions: SessionRepository, spec: SessionSpec
) -> None:
    from dataclasses import replace

    ids = []
    for number in range(4):
        one = replace(
            spec,
            session_id=new_session_id(NOON, bytes([number, 7, 7])),
            started_at=NOON + timedelta(minutes=number),
        )
        ids.append(sessions.create(one, sessions_max=1000).session_id)
        if number != 1:
            sessions.set_state(ids[-1], SessionState.ENDED, NOON)
        else:
            sessions.set_state(ids[-1], SessionState.FAILED, NOON)
    found = sessions.list_for_owner(spec.owner_id, over_max=2)
    assert [record.session_id for record in found] == [ids[3], ids[2]]
    assert sessions.list_for_owner(spec.owner_id) == []
