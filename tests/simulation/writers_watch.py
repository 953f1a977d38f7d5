"""Who writes, and when: I8 and I15 of everything that reaches the exchange.

    durable letters ─► saw_letter: when a plan was first there, who sent which slice, until when
    requests        ─► on_request: writes of one gateway process only
    orders          ─► on_order:   of the newest epoch, in time, by a plan that is fresh

A slice belongs to the epoch that moved it to *sent*; that a later leader keeps it in its letter
does not make it the later leader's. Ages are in the world's true time: a machine's clock may
jump.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from module.model.canonical import parse_instant
from tests.simulation.exchange_side import Carried
from tests.simulation.hub import Process
from trading.execution.freshness import FIRST_ORDER_AGE_MAX_S, OPENING_AGE_MAX_S

if TYPE_CHECKING:
    from tests.simulation.letters_seen import Document
    from tests.simulation.world import World

UNFINISHED: Final = ("planned", "trading", "protecting")
LAST_CHECK: Final = "gateway: sending"
ON_ITS_WAY_MS: Final = 1_500
"""What has passed the gateway's last check may still be on its way for so long."""
CLOCKS_MS: Final = 3_000
PLAN_TO_WIRE_MS: Final = 12_000
"""From the last look at a plan's age to the wire: one durable letter and its `not_after`."""


@dataclass(slots=True)
class _Leave:
    """A slice that was to leave: which epoch moved it to sent, and until when it might leave."""

    epoch: int
    until_ms: int
    plan: tuple[str, str]


class WritersWatch:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._states: dict[str, tuple[str, str]] = {}
        self._leaves: dict[str, _Leave] = {}
        self._plans: dict[tuple[str, str], int] = {}
        self._begun: set[tuple[str, str]] = set()
        self._writer: tuple[Process | None, int] = (None, 0)
        self._epoch = (0, 0)
        self._newest: dict[str, tuple[int, int]] = {}
        self._checked_ms: dict[Process, int] = {}
        self._sent_from: set[str] = set()
        self._cycles: dict[str, tuple[str, str]] = {}

    def saw_read(self, document: Document | None) -> None:
        """I13: who reads a letter finds the newest that was durable.

        Where the letter is a file, and nobody took it away: a row of Postgres may be lost by a
        fail-over (E4), and the mirror that replaces a lost file may be behind.
        """
        world = self._world
        if world.plan.letters != "file" or world.host is None:
            return
        session_id = world.host.ground.spec.session_id
        newest = self._newest.get(session_id)
        if newest is None:
            return
        if document is None:
            if world.kit.letters_lost and session_id not in self._sent_from:
                return  # the mirror need not have it, or could not be reached: nothing has left
            world.judge.violate("I13", f"the letter of {session_id} is gone, {newest} was there")
        elif document["session_id"] == session_id and not world.kit.letters_lost:
            found = (document["epoch"], document["revision"])
            if found < newest:
                world.judge.violate("I13", f"the letter of {session_id} went back to {found}")

    def saw_letter(self, document: Document) -> None:
        """This letter is durable now. I8: never one of an older epoch than was there."""
        session_id, stamp = document["session_id"], (document["epoch"], document["revision"])
        newest = self._newest.get(session_id, stamp)
        if stamp[0] < newest[0]:
            self._world.judge.violate(
                "I8", f"a letter of epoch {stamp[0]} was written after epoch {newest[0]}"
            )
        self._newest[session_id] = max(stamp, newest)
        if any(record["slices"] for record in document["legs"]):
            self._sent_from.add(session_id)
        self._check_left_open(document)
        if not document["legs"]:
            return
        now_ms = self._world.hub.now_ms
        plan = (document["session_id"], str(document["plan_digest"]) + document["cycle"])
        self._plans.setdefault(plan, now_ms)
        for record in document["legs"]:
            for part in record["slices"]:
                self._saw_slice(part, document["epoch"], plan)

    def _check_left_open(self, document: Document) -> None:
        """I16: a cycle that has begun is brought to its end before the next one begins."""
        session_id, cycle, stage = document["session_id"], document["cycle"], document["stage"]
        before = self._cycles.get(session_id)
        self._cycles[session_id] = (cycle, stage)
        if self._world.kit.letters_lost:
            return  # the mirror may not have known that it had begun
        if before is not None and before[0] != cycle and before[1] in UNFINISHED:
            self._world.judge.violate(
                "I16", f"cycle {before[0]} was left {before[1]} when {cycle} began"
            )

    def _saw_slice(self, part: Any, epoch: int, plan: tuple[str, str]) -> None:
        client_id, state = part["client_id"], (part["state"], str(part["not_after"]))
        if state[0] == "sent" and self._states.get(client_id) != state:
            left = parse_instant(part["not_after"]) - self._world.hub.now()
            until_ms = self._world.hub.now_ms + int(left.total_seconds() * 1000)
            self._leaves[client_id] = _Leave(epoch, until_ms, plan)
        if state[0] not in ("planned", "sent"):
            self._begun.add(plan)  # something of this plan may have left
        self._states[client_id] = state

    def reached(self, process: Process, name: str) -> None:
        """A gateway has checked for the last time what it is about to send: a process that stands
        still right there cannot know it."""
        if name == LAST_CHECK:
            self._checked_ms[process] = self._world.hub.now_ms

    def on_request(self, carried: Carried) -> None:
        """I8: one gateway process writes; an older one only what was on its way."""
        process, now_ms = carried.process, self._world.hub.now_ms
        newest, since_ms = self._writer
        if newest is None or _number(process) > _number(newest):
            self._writer = (process, now_ms)
        elif (
            carried.method == "POST"
            and process is not newest
            and carried.sent_ms > since_ms + ON_ITS_WAY_MS
            and not self._was_checked_before(process, since_ms)
        ):
            self._world.judge.violate(
                "I8", f"{process.name} wrote {carried.path} after {newest.name} had taken over"
            )

    def on_order(self, carried: Carried, client_id: str, *, opens: bool) -> None:
        """I8, I15: of the newest epoch, within its time, by a plan that is not old."""
        world, leave = self._world, self._leaves.get(client_id)
        epoch = world.postgres.gateway_tables.accounts[world.account_key].epoch
        if epoch != self._epoch[0]:
            self._epoch = (epoch, world.hub.now_ms)
        if leave is None:
            return  # the guard's, or one that no letter has (I3)
        sent_ms = self.last_check_ms(carried)
        if leave.epoch < epoch and sent_ms > self._epoch[1] + ON_ITS_WAY_MS:
            world.judge.violate(
                "I8", f"order {client_id}, sent in epoch {leave.epoch}, left in epoch {epoch}"
            )
        if sent_ms > leave.until_ms + CLOCKS_MS:
            late_s = (sent_ms - leave.until_ms) / 1000
            world.judge.violate("I15", f"order {client_id} left {late_s:.1f} s after its not_after")
        age_ms = sent_ms - self._plans[leave.plan]
        first = leave.plan not in self._begun
        most_s = FIRST_ORDER_AGE_MAX_S if first else OPENING_AGE_MAX_S
        if (first or opens) and age_ms > most_s * 1000 + PLAN_TO_WIRE_MS:
            world.judge.violate(
                "I15", f"order {client_id} left by a plan that is {age_ms / 1000:.1f} s old"
            )

    def last_check_ms(self, carried: Carried) -> int:
        """When whoever sent it could know for the last time whether it may still leave."""
        return min(carried.sent_ms, self._checked_ms.get(carried.process, carried.sent_ms))

    def _was_checked_before(self, process: Process, when_ms: int) -> bool:
        return self._checked_ms.get(process, when_ms + 1) <= when_ms + ON_ITS_WAY_MS


def _number(process: Process) -> int:
    return int(process.name.rpartition("-")[2])
