"""The states of a leg and of its slices, and the only ways between them.

Source of truth for `docs/order-states.md`; `render_table()` prints it.
"""

from __future__ import annotations

from enum import StrEnum

from module.model.errors import InvariantViolated


class LegState(StrEnum):
    """planned: durable, not sent. sent: may be on its way. unknown: the answer was lost.
    acknowledged: the exchange has it. filled/rejected/abandoned: over."""

    PLANNED = "planned"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    FILLED = "filled"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    ABANDONED = "abandoned"

    @property
    def is_terminal(self) -> bool:
        """Nothing more will happen to it."""
        return self in TERMINAL

    @property
    def may_exist(self) -> bool:
        """The exchange may have an order for it that we have not seen the end of."""
        return self in MAY_EXIST

    @property
    def is_unproven(self) -> bool:
        """Nobody has seen yet whether the exchange has it."""
        return self in UNPROVEN


TERMINAL = frozenset({LegState.FILLED, LegState.REJECTED, LegState.ABANDONED})
UNPROVEN = frozenset({LegState.SENT, LegState.UNKNOWN})
MAY_EXIST = UNPROVEN | {LegState.ACKNOWLEDGED}

TRANSITIONS: dict[LegState, dict[LegState, str]] = {
    LegState.PLANNED: {
        LegState.SENT: "written durably, about to leave",
        LegState.ABANDONED: "plan too old, session stopping, or nothing left to trade",
    },
    LegState.SENT: {
        LegState.PLANNED: "proven not to have left (rate limit, deadline, gateway away): it may "
        "leave again under the same client id, with a new deadline",
        LegState.ACKNOWLEDGED: "the exchange answered with an order id",
        LegState.REJECTED: "the exchange or the last gate refused it, with proof",
        LegState.UNKNOWN: "the answer was lost",
    },
    LegState.UNKNOWN: {
        LegState.ACKNOWLEDGED: "found on the exchange by client id",
        LegState.ABANDONED: "proven absent: by the gateway's record it never left, or it is too "
        "late to arrive and not found twice",
    },
    LegState.ACKNOWLEDGED: {
        LegState.FILLED: "the exchange reports it executed",
        LegState.ABANDONED: "the exchange reports it canceled (what was filled is booked), or no "
        "longer shows it, and its fills say how far it came",
    },
    LegState.FILLED: {},
    LegState.REJECTED: {},
    LegState.ABANDONED: {},
}


def move(current: LegState, new: LegState) -> LegState:
    """Return `new` if the table allows it from `current`; staying is always allowed."""
    if new is current or new in TRANSITIONS[current]:
        return new
    raise InvariantViolated(f"a slice cannot go from {current} to {new}")


def render_table() -> str:
    """The transition table as Markdown."""
    lines = ["| from | to | when |", "|---|---|---|"]
    for start, ends in TRANSITIONS.items():
        if not ends:
            lines.append(f"| {start} | - | over |")
        lines.extend(f"| {start} | {end} | {why} |" for end, why in ends.items())
    return "\n".join(lines)
