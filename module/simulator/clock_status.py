"""How the world clock stands: who holds time, who waits. Shown on the clock's wire and /control."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParticipantStatus:
    """How one participant stands; `since_s` is real seconds in this state."""

    name: str
    busy: bool
    since_s: float
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class ClockStatus:
    """The clock at one moment. `expected`: names that are given time to come back; `alarms`: how
    many observers sleep; `paused`: told to stand still."""

    now_ms: int
    speed: float
    participants: tuple[ParticipantStatus, ...]
    expected: tuple[str, ...]
    alarms: int
    paused: bool = False


def status_json(status: ClockStatus) -> dict[str, object]:
    """The status as it goes over wires."""
    return {
        "now_ms": status.now_ms,
        "speed": status.speed,
        "participants": [
            {
                "name": each.name,
                "state": "busy" if each.busy else "waiting",
                "since_s": round(each.since_s, 3),
                "until_ms": each.until_ms,
            }
            for each in status.participants
        ],
        "expected": list(status.expected),
        "alarms": status.alarms,
        "paused": status.paused,
    }
