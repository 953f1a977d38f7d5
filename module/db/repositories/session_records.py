"""What a session is in the database, for the rest of the program: records, states, translations.

`module.db.repositories.sessions` reads and writes the rows; the records here carry no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from module.db.platform_tables import ActiveSession, Cycle
from module.db.repositories.session_specs import spec_from_json, spec_to_json
from module.model.money import parse_decimal
from module.model.results import WatchedSession
from module.model.sessions import DesiredState, EndState, SessionSpec, SessionState
from module.ports import CycleRecord

OVER: Final = tuple(state.value for state in SessionState if state.is_over)
# From which states a state may be reached; staying where it is is always allowed.
REACHED_FROM: Final[Mapping[SessionState, frozenset[SessionState]]] = {
    SessionState.STARTING: frozenset(),
    SessionState.RUNNING: frozenset({SessionState.STARTING}),
    SessionState.STOPPING: frozenset({SessionState.STARTING, SessionState.RUNNING}),
    SessionState.ENDED: frozenset(
        {SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING}
    ),
    SessionState.FAILED: frozenset(
        {SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING}
    ),
}


@dataclass(frozen=True, slots=True)
class Leader:
    """The process that leads a session: pid and start ticks name it for good on its host."""

    pid: int
    started_ticks: int
    host: str


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One row of `active_sessions`. Times are world time but for `heartbeat_wall`."""

    spec: SessionSpec
    state: SessionState
    desired: DesiredState
    end_state: EndState
    epoch: int
    order_info_store: str
    ended_at: datetime | None
    reason: str
    cycle: int
    last_boundary: datetime | None
    heartbeat_wall: datetime | None
    initial_balance: Decimal | None
    leader: Leader | None
    restarts: int

    @property
    def session_id(self) -> str:
        return self.spec.session_id

    @property
    def owner_id(self) -> str:
        return self.spec.owner_id

    @property
    def account_id(self) -> str:
        return self.spec.account_id


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the owner wants of the session now, and how it is to leave its account."""

    desired: DesiredState
    end_state: EndState
    state: SessionState


def new_row(spec: SessionSpec, order_info_store: str) -> ActiveSession:
    """The first row of a session: wanted, and about to start."""
    return ActiveSession(
        session_id=spec.session_id,
        owner_id=spec.owner_id,
        account_id=spec.account_id,
        state=SessionState.STARTING.value,
        desired=DesiredState.RUNNING.value,
        end_state=spec.on_end.value,
        epoch=0,
        spec=spec_to_json(spec),
        order_info_store=order_info_store,
        started_at=spec.started_at,
        ends_at=spec.ends_at,
        reason="",
        cycle=0,
        restarts=0,
    )


def record_of(row: ActiveSession) -> SessionRecord:
    """The row as the rest of the program sees it."""
    leader = None
    if row.leader_pid is not None and row.leader_started_ticks is not None:
        leader = Leader(row.leader_pid, row.leader_started_ticks, row.leader_host or "")
    return SessionRecord(
        spec=spec_from_json(row.spec),
        state=SessionState(row.state),
        desired=DesiredState(row.desired),
        end_state=EndState(row.end_state),
        epoch=row.epoch,
        order_info_store=row.order_info_store,
        ended_at=row.ended_at,
        reason=row.reason,
        cycle=row.cycle,
        last_boundary=row.last_boundary,
        heartbeat_wall=row.heartbeat_wall,
        initial_balance=row.initial_balance,
        leader=leader,
        restarts=row.restarts,
    )


def cycle_of(row: Cycle) -> CycleRecord:
    """The cycle's row as the rest of the program sees it."""
    return CycleRecord(
        session_id=row.session_id,
        boundary=row.boundary,
        number=row.number,
        state=row.state,
        reason=row.reason,
        started_at=row.started_at,
        ended_at=row.ended_at,
        own_ms=row.own_ms,
        targets=row.targets,
        order_info=row.order_info,
        digest=row.digest,
    )


def watched_session(
    record: SessionRecord, targets: Mapping[str, Any] | None, owner_name: str = ""
) -> WatchedSession:
    """The session as the finwatcher sees it, with the targets of a cycle."""
    spec = record.spec
    return WatchedSession(
        session_id=spec.session_id,
        owner_id=spec.owner_id,
        account_id=spec.account_id,
        market=spec.market,
        strategy_name=spec.strategy_name,
        started_at=spec.started_at,
        leverage=spec.leverage,
        allocated=spec.allocated,
        compounding=spec.compounding,
        initial_balance=record.initial_balance,
        is_over=record.state.is_over,
        ended_at=record.ended_at,
        targets=_weights(targets),
        owner_name=owner_name,
    )


def _weights(targets: Mapping[str, Any] | None) -> tuple[tuple[str, Decimal], ...]:
    if not targets:
        return ()
    return tuple(
        (symbol, parse_decimal(fields["weight"], name=f"target of {symbol}"))
        for symbol, fields in sorted(targets.items())
    )
