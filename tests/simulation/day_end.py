"""What must hold when a day is over: everything ended, nothing left, no minute missing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from module.model.sessions import (
    EndState,
    SessionState,
    boundary_at_or_after,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

MINUTE = timedelta(minutes=1)


def judge_end(world: World) -> None:
    """I17, I21: the command to end was carried out, and flat means that nothing is left."""
    host = world.host
    if host is None:
        return
    record = world.postgres.session_tables.sessions[host.ground.spec.session_id]
    if not record.state.is_over:
        world.judge.violate(
            "I17", f"session {record.session_id} was asked to end and is {record.state}"
        )
        return
    flat = record.end_state is EndState.FLAT and record.state is SessionState.ENDED
    if not flat or not world.owner.asked_to_end(record.session_id):
        return
    left = world.judge.left_over()
    if left:
        world.judge.violate("I21", f"ended flat, and left are {', '.join(left)}")


def judge_minutes(world: World) -> None:
    """I18: every minute of a session has its row, or a gap with its cause.

    One that was over when its finwatcher was killed has nobody left who would start another: the
    minute that its end fell into is not judged then.
    """
    tables = world.postgres.result_tables
    for host in world.hosts:
        record = world.postgres.session_tables.sessions[host.ground.spec.session_id]
        if record.ended_at is None:
            continue
        minute = boundary_at_or_after(record.spec.started_at, MINUTE)
        last = boundary_at_or_after(record.ended_at, MINUTE)
        gone_at = host.finwatcher_gone_at
        if gone_at is not None and record.ended_at <= gone_at < last:
            last -= MINUTE
        missing = []
        while minute <= last:
            key = (record.session_id, minute)
            if key not in tables.minutes and key not in tables.gaps:
                missing.append(minute)
            minute += MINUTE
        if missing:
            world.judge.violate(
                "I18",
                f"session {record.session_id} has neither row nor gap for {len(missing)} minutes, "
                f"the first is {missing[0]:%H:%M}, it ended at {record.ended_at:%H:%M:%S}",
            )
