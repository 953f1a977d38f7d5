"""I2 and what belongs to it: how long positions had no stop, and stops without a position.

Looked at after every change at the exchange. A position counts when a session of ours wants it (the
newest letter with a plan has a target of its sign, with a stop loss). One that somebody else's
order has opened (by hand, or a resting order of an older run) counts from the first plan on that
can know it, the next cycle's, and while the session lives: one that cannot trade it (its leverage,
say) fails and tells its owner. Two clocks run while it has no live stop loss: all of the time, and
the time in which the exchange answered truly of this position to a gateway that runs
(`true_answers.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from module.model.sessions import TradeMode
from module.simulator.engine.account_state import AccountState
from module.simulator.engine.engine_records import PositionRecord
from module.simulator.engine.engine_types import PlanType, PositionSide
from tests.simulation.letters_seen import Document

if TYPE_CHECKING:
    from tests.simulation.world import World

LATELY_MS = 5_000
UNPROTECTED_MAX_S = 10.0
ORPHAN_MAX_S = 90.0


@dataclass(slots=True)
class _Bare:
    """A position without its stop, since when, and for how long while the exchange answered."""

    since_ms: int
    answering_ms: int = 0
    told: bool = False


class ProtectionWatch:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._bare: dict[str, _Bare] = {}
        self._orphans: dict[str, _Bare] = {}
        self._openings: dict[str, str | None] = {}
        self._seen_ms = world.hub.now_ms
        self._fired = 0
        self._fired_ms = -LATELY_MS
        self.unprotected_s: list[float] = []
        self.answering_s: list[float] = []
        self._named: dict[str, Mapping[str, str]] = {}
        self._named_by: Document | None = None
        self.longest: list[tuple[float, float, float, str]] = []

    def look(self, decided: Document | None) -> None:
        """What is bare now; clocks run on from the last look."""
        now_ms = self._world.hub.now_ms
        account = self._world.exchange.account
        for (symbol, _), position in account.positions.items():
            if symbol in self._bare and self._is_news_to_us(position, decided):
                del self._bare[symbol]  # its session has ended since the last look
        self._let_clocks_run(now_ms)
        held: set[tuple[str, PositionSide]] = set()
        bare: set[str] = set()
        for (symbol, side), position in account.positions.items():
            held.add((symbol, side))
            is_news = self._is_news_to_us(position, decided)
            if is_news or not self._is_wanted(decided, symbol, position.signed_size > 0):
                continue
            if not has_stop(account, symbol, side):
                bare.add(symbol)
        orphans = {
            plan.plan_id
            for plan in account.plans.values()
            if plan.protects is not None and (plan.symbol, plan.protects) not in held
        }
        self._note(bare, orphans, now_ms)

    def _note(self, bare: set[str], orphans: set[str], now_ms: int) -> None:
        """These have no stop now, these stops protect nothing."""
        for symbol in sorted(bare):
            self._bare.setdefault(symbol, _Bare(now_ms))
        for symbol in [name for name in self._bare if name not in bare]:
            self._over(symbol, self._bare.pop(symbol), now_ms)
        for plan_id in orphans:
            self._orphans.setdefault(plan_id, _Bare(now_ms))
        for plan_id in [name for name in self._orphans if name not in orphans]:
            del self._orphans[plan_id]
        self._judge()

    def _is_news_to_us(self, position: PositionRecord, decided: Document | None) -> bool:
        """Somebody else has opened it, and no plan was made since, or nobody trades any more."""
        known = position.position_id
        cycle = None if decided is None else str(decided["cycle"])
        if known not in self._openings:
            fills = reversed(self._world.exchange.account.fills)
            opener = next((fill for fill in fills if fill.symbol == position.symbol), None)
            is_ours = opener is not None and self._world.judge.letters.lookup(opener.client_id)
            self._openings[known] = None if is_ours else cycle
        if self._openings[known] is None:
            return False
        host = self._world.host
        return self._openings[known] == cycle or host is None or host.is_over

    @property
    def misbehaved_lately(self) -> bool:
        """Whether a scripted fault changed something within the last seconds."""
        return self._world.hub.now_ms - self._fired_ms < LATELY_MS

    def end(self) -> None:
        """The day is over: what is bare still is counted as it is."""
        now_ms = self._world.hub.now_ms
        self._let_clocks_run(now_ms)
        for symbol, bare in self._bare.items():
            self._over(symbol, bare, now_ms)
        self._bare.clear()

    def _is_wanted(self, decided: Document | None, symbol: str, is_long: bool) -> bool:
        if decided is None:
            return False
        target = self._targets(decided).get(symbol)
        if target is None or "presetStopLossPrice" not in target:
            return False
        weight = str(target["weight"])
        return (not weight.startswith("-")) == is_long

    def _targets(self, decided: Document) -> Mapping[str, Mapping[str, str]]:
        """Of the newest plan; in the mode general also what older ones named: it stays as it is."""
        targets: Mapping[str, Mapping[str, str]] = decided["targets"]
        if self._world.plan.kind.mode is not TradeMode.GENERAL:
            return targets
        if decided is not self._named_by:
            self._named_by = decided
            is_flat = decided["strategy_digest"] == "flat"
            self._named = {} if is_flat else {**self._named, **targets}
        return self._named

    def _let_clocks_run(self, now_ms: int) -> None:
        fired = self._world.exchange.fired
        if fired != self._fired:
            self._fired, self._fired_ms = fired, now_ms
        seen_ms, self._seen_ms = self._seen_ms, now_ms
        if not (self._bare or self._orphans):
            return
        truth, stood = self._world.exchange.truth, self._world.gateway_stood
        truth.forget(now_ms)
        for symbol, bare in (*self._bare.items(), *(("", each) for each in self._orphans.values())):
            since_ms = max(seen_ms, bare.since_ms)
            withheld_ms = truth.withheld_ms(symbol, since_ms, now_ms, stood)
            bare.answering_ms += now_ms - since_ms - withheld_ms

    def _over(self, symbol: str, bare: _Bare, now_ms: int) -> None:
        self._judge_bare(symbol, bare)  # nothing may have happened since it began
        total_s = (now_ms - bare.since_ms) / 1000
        self.unprotected_s.append(total_s)
        self.answering_s.append(bare.answering_ms / 1000)
        if total_s:
            found = (bare.answering_ms / 1000, total_s, self._world.second, symbol)
            self.longest = sorted([*self.longest, found], reverse=True)[:5]

    def _judge(self) -> None:
        for symbol, bare in self._bare.items():
            self._judge_bare(symbol, bare)
        for plan_id, orphan in self._orphans.items():
            if orphan.answering_ms / 1000 > ORPHAN_MAX_S and not orphan.told:
                orphan.told = True
                self._world.judge.violate(
                    "I2", f"stop {plan_id} is left behind without its position"
                )

    def _judge_bare(self, symbol: str, bare: _Bare) -> None:
        if bare.answering_ms / 1000 > UNPROTECTED_MAX_S and not bare.told:
            bare.told = True
            self._world.judge.violate(
                "I2",
                f"{symbol} has had no stop for over {UNPROTECTED_MAX_S:g} s while the exchange "
                "answered",
            )


def has_stop(account: AccountState, symbol: str, side: PositionSide) -> bool:
    """Whether the position has a live stop loss for all of it."""
    return any(
        plan.symbol == symbol and plan.plan_type is PlanType.POS_LOSS and plan.protects is side
        for plan in account.plans.values()
    )
