"""What an interrupted cycle left undone is planned anew, once, where much of its slot is left.

    cycle over ─► its plan became too old on the way ─► same targets, present account
               ─► a letter of its own (planned, journaled, replayed like any) ─► traded

Without it a portfolio that an outage left half open would stay so until the next boundary: a day,
with an interval of a day. The letter's time is not a boundary; that is how it is known, and why
nothing is completed twice. The strategy is not asked: its answer of the boundary still holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from module.logs import get_logger
from module.model.errors import PASSING, Rejected, StaleWriter
from module.model.money import ZERO
from module.model.sessions import SessionSpec, boundary_at_or_before
from module.points import reach
from module.ports import Clock, Exchange
from trading.execution.freshness import TOO_OLD_TO_OPEN
from trading.gathering import Gatherer, House, OwnPart, marks_of, named_in
from trading.rebalance.decision import (
    AccountInputs,
    CycleInputs,
    completing_inputs,
    decide,
    plan_letter,
)
from trading.rebalance.order_info import CycleStage, OrderInfo
from trading.rebalancing_strategy import policy_of
from trading.session.letters import Letters

SLOT_LEFT_MIN = timedelta(minutes=5)
"""World time that must be left until the next boundary: less is not worth the fees."""

log = get_logger("trading.leader")


@dataclass(frozen=True, slots=True)
class Completion:
    """One leader's. `trade` compares a planned letter with the account and carries it out, `keep`
    archives it; `own`: what of the account is the session's."""

    spec: SessionSpec
    clock: Clock
    exchange: Exchange
    letters: Letters
    own: OwnPart
    build: str
    trade: Callable[[OrderInfo, OrderInfo], OrderInfo]
    keep: Callable[[OrderInfo], None]

    def is_needed(self, info: OrderInfo) -> bool:
        """Whether `info` is the current slot's cycle, was left undone by its age, and is to be
        completed now."""
        now, interval = self.clock.now(), self.spec.interval
        slot = boundary_at_or_before(now, interval)
        left = min(slot + interval, self.spec.ends_at) - now
        return info.cycle == slot and left >= SLOT_LEFT_MIN and _was_left_undone(info)

    def complete(self, info: OrderInfo, epoch: int) -> None:
        """Plan the cycle's targets anew from the present account, trade that, archive it.

        What passes, or cannot be planned, is left to the next boundary.
        """
        reach("leader: before completion")
        log.warning("completing a cycle", session=self.spec.session_id, why=_why(info))
        try:
            letter = self._planned(info, epoch)
        except StaleWriter:
            raise
        except (*PASSING, Rejected) as error:
            log.warning("not completed; the next cycle comes", detail=error.message)
            return
        if letter.legs:
            self.keep(self.trade(self.letters.save(letter), info))

    def _planned(self, info: OrderInfo, epoch: int) -> OrderInfo:
        """A letter for this second: client ids are made of whole seconds."""
        before = CycleInputs.from_json(info.inputs)
        gatherer = Gatherer(
            self.spec, policy_of(self.spec), self.exchange, lambda: ZERO, House(self.build)
        )
        reading = gatherer.read_account(before.answer)
        snapshot = self.own(reading.snapshot, set(before.answer))
        named = named_in(before.answer, snapshot) & set(reading.instruments)
        at = max(self.clock.now(), info.cycle + timedelta(seconds=1))
        inputs = completing_inputs(
            before,
            at,
            AccountInputs.of(snapshot),
            marks_of(snapshot, reading.quotes),
            {name: reading.instruments[name] for name in sorted(named)},
            self.build,
        )
        letter = self.letters.request(at, info.number, epoch)
        reason = f"completes {info.cycle:%H:%M:%S} UTC: {_why(info)}"
        return plan_letter(letter, inputs, decide(inputs)).changed(reason=reason)


def _was_left_undone(info: OrderInfo) -> bool:
    if not info.inputs or not info.legs:
        return False
    if info.stage is CycleStage.DROPPED:
        return True
    return info.stage is CycleStage.DONE and any(
        not record.leg.reduce_only and TOO_OLD_TO_OPEN in (record.abandoned or "")
        for record in info.legs
    )


def _why(info: OrderInfo) -> str:
    if info.stage is CycleStage.DROPPED:
        return info.reason
    return next(
        record.abandoned
        for record in info.legs
        if record.abandoned is not None and TOO_OLD_TO_OPEN in record.abandoned
    )
