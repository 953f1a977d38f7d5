"""What a leader does about an account that is not what its letters lead to.

    at start, and with each plan's snapshot ─► AccountReview ─► recorded in the letter ─► told once
                                                   └─ nothing explains it: the session stops

The review itself is `trading.execution.account_review`; here are the letter, the alert, the stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from module.model.accounts import AccountSnapshot
from module.model.errors import Conflict
from trading.execution.account_review import AccountReview, Review
from trading.execution.freshness import STALE
from trading.execution.reconcile import (
    CORRECTIONS_MAX,
    FORCED,
    FROM_OUTSIDE,
    QUIET,
    Difference,
    Verdict,
    holding_of,
)
from trading.execution.scribe import ExecutionPorts, ExecutionRules
from trading.execution.sending import why_nothing_opens
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
        self._tell(review)
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
        _require_going_on(review)

    def before_trading(self, info: OrderInfo, before: OrderInfo | None = None) -> OrderInfo:
        """The planned letter `info`, with what its snapshot showed to be other than the letters
        before it lead to; dropped, to be planned anew, when a further look shows other positions
        than its own. Said again after a crash it records nothing twice. `before`: the letter before
        it, where that is known (the archive has it otherwise).

        Conflict when the session must not go on.
        """
        if info.basis is None or info.held_before is None:
            return info
        compare = partial(self._review().compare, info, info.held_before, info.basis, led_by=before)
        review = _without_known(self.vigil.outlast(compare), info)
        if not review.findings:
            _require_going_on(review)
            return info
        self._tell(review)
        same = dict(review.held.sizes) == dict(info.basis.sizes)
        info = info.changed(
            noted=(*info.noted, *self._noted(review)), corrections=review.verdict.corrections
        )
        if not same:
            reason = f"{STALE}: positions were others at a further look"
            info = info.changed(stage=CycleStage.DROPPED, reason=reason)
        info = self.letters.save(info)
        _require_going_on(review)
        return info

    def clear_orders(self) -> None:
        """Cancel every open order of ours: for a session that leaves flat."""

        def cleared() -> Review:
            snapshot = self.look()
            found = self._review().clear_leftovers(None, snapshot.open_orders)
            ours = [each for each in found if each.kind is Difference.LEFTOVER_ORDER]
            return Review(tuple(ours), Verdict(), holding_of(snapshot))

        self._tell(self.vigil.outlast(cleared))

    def _noted(self, review: Review) -> tuple[Noted, ...]:
        now = self.ports.clock.now()
        return tuple(finding.noted(now) for finding in review.findings)

    def _tell(self, review: Review) -> None:
        """Before it is recorded: a leader that dies in between has it told again, never not."""
        told = [finding for finding in review.findings if finding.kind not in QUIET]
        if told:
            self.announcer.account_changed(
                [(finding.kind.value, finding.detail) for finding in told],
                _next_steps(review),
                severe=any(finding.kind in SEVERE for finding in told),
            )

    def _review(self) -> AccountReview:
        return AccountReview(self.ports, self.rules, self.look, self.letters.recent)


def _require_going_on(review: Review) -> None:
    """Conflict when what was found stops the session."""
    if review.verdict.stop:
        raise Conflict(review.verdict.stop)


class OpeningWatch:
    """Whether the last gate lets the account open anything (kill switch, halt, clocks): told once
    when it does not, and once when it does again. The session goes on with reductions meanwhile."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._why = ""

    def recall(self, letters: Sequence[OrderInfo]) -> None:
        """What a leader before this one has told; `letters` oldest first."""
        for info in letters:
            why = _nothing_opens(info)
            if why or _has_opened(info):
                self._why = why

    def note(self, info: OrderInfo) -> None:
        """A cycle is over."""
        why = _nothing_opens(info)
        if why and not self._why:
            self._announcer.opens_nothing(why)
            self._why = why
        elif self._why and not why and _has_opened(info):
            self._announcer.opens_again()
            self._why = ""


def _nothing_opens(info: OrderInfo) -> str:
    return next((why for why in map(why_nothing_opens, info.legs) if why), "")


def _has_opened(info: OrderInfo) -> bool:
    return any(not record.leg.reduce_only and record.filled_size for record in info.legs)


def _next_steps(review: Review) -> str:
    """What the session does about it, for people."""
    verdict = review.verdict
    if verdict.stop:
        return (
            "The session stops now; what is held stays, with its stops. Find out what happened, "
            "then close by hand, or start again with adopt_existing."
        )
    steps = ["The session goes on: its next plan starts from what is held now."]
    changed = {finding.symbol for finding in review.findings if finding.kind in FROM_OUTSIDE}
    back = sorted(changed - set(verdict.frozen))
    if back:
        steps.append(
            f"{', '.join(back)}: the strategy's weight is traded again, at most "
            f"{CORRECTIONS_MAX} times per symbol."
        )
    frozen = sorted(changed & set(verdict.frozen))
    if frozen:
        steps.append(f"{', '.join(frozen)}: changed too often, opens nothing more in this session.")
    return " ".join(steps)


def _without_known(review: Review, letter: OrderInfo | None) -> Review:
    """What a leader before this one recorded in the same letter is told by it."""
    known = {(item.kind, item.detail) for item in (() if letter is None else letter.noted)}
    fresh = [each for each in review.findings if (each.kind.value, each.detail) not in known]
    return Review(tuple(fresh), review.verdict, review.held)
