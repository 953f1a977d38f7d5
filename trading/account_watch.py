"""What a leader does about an account that is not what its letters lead to.

    at start, and with each plan's snapshot ─► AccountReview ─► recorded in the letter ─► told once
                                                   └─ nothing explains it: the session stops

The review itself is `trading.execution.account_review`; here are the letter, the alert, the stop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from module.model.accounts import AccountSnapshot
from module.model.errors import Conflict
from trading.execution.account_review import AccountReview, Review
from trading.execution.freshness import STALE
from trading.execution.reconcile import FORCED, QUIET, Difference
from trading.execution.scribe import ExecutionPorts, ExecutionRules
from trading.rebalance.order_info import CycleStage, Noted, OrderInfo
from trading.session.announcer import Announcer
from trading.session.letters import Letters
from trading.session.vigil import Vigil

SEVERE = FORCED | {Difference.UNEXPLAINED}


@dataclass(frozen=True, slots=True)
class AccountWatch:
    """One leader's. `look` reads what of the account is the session's."""

    ports: ExecutionPorts
    rules: ExecutionRules
    look: Callable[[], AccountSnapshot]
    letters: Letters
    vigil: Vigil
    announcer: Announcer

    def at_start(self) -> None:
        """What happened while nobody led: classified, recorded, told; leftovers are canceled.

        Conflict when the session must not go on.
        """
        letter = self.letters.last

        def compared() -> Review:
            return self._review().at_start(letter, self.look())

        review = _without_known(self.vigil.outlast(compared), letter)
        noted = self._noted(review)
        if noted and letter is not None:
            self.letters.save(
                letter.changed(
                    epoch=self.rules.epoch,
                    held_after=review.held if letter.stage.is_over else None,
                    noted=(*letter.noted, *noted),
                    corrections=review.verdict.corrections,
                )
            )
        self._tell(review)

    def before_trading(self, info: OrderInfo, before: OrderInfo | None) -> OrderInfo:
        """The planned letter `info`, with what its snapshot showed to be other than `before` leads
        to; dropped, to be planned anew, when a further look shows other positions than its own.

        Conflict when the session must not go on.
        """
        if info.basis is None or before is None:
            return info
        review = self.vigil.outlast(partial(self._review().compare, before, info.basis))
        if not review.findings:
            return info
        same = dict(review.held.sizes) == dict(info.basis.sizes)
        info = info.changed(
            noted=(*info.noted, *self._noted(review)), corrections=review.verdict.corrections
        )
        if not same:
            reason = f"{STALE}: positions were others at a further look"
            info = info.changed(stage=CycleStage.DROPPED, reason=reason)
        info = self.letters.save(info)
        self._tell(review)
        return info

    def _noted(self, review: Review) -> tuple[Noted, ...]:
        now = self.ports.clock.now()
        return tuple(finding.noted(now) for finding in review.findings)

    def _tell(self, review: Review) -> None:
        told = [finding for finding in review.findings if finding.kind not in QUIET]
        if told:
            self.announcer.account_changed(
                [(finding.kind.value, finding.detail) for finding in told],
                severe=any(finding.kind in SEVERE for finding in told),
            )
        if review.verdict.stop:
            raise Conflict(review.verdict.stop)

    def _review(self) -> AccountReview:
        return AccountReview(self.ports, self.rules, self.look, self.letters.recent)


def _without_known(review: Review, letter: OrderInfo | None) -> Review:
    """What a leader before this one recorded in the same letter is told by it."""
    known = {(item.kind, item.detail) for item in (() if letter is None else letter.noted)}
    fresh = [each for each in review.findings if (each.kind.value, each.detail) not in known]
    return Review(tuple(fresh), review.verdict, review.held)
