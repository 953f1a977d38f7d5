"""Asks the strategy process for a plan: the letter (requested), the bell, the answer.

    request saved ─► rebalance_start ─► strategy_done (or it died, or said nothing) ─► the letter
    cycle over    ─► autotrade_done  ─► rebalance_done

One that dies or does not answer is replaced, and its cycle is skipped with the reason.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from module.logs import get_logger
from module.points import reach
from module.ports import Clock, SessionChild
from trading.rebalance.order_info import CycleStage, OrderInfo
from trading.session.bells import Bells
from trading.session.letters import Letters
from trading.session.vigil import Vigil

STRATEGY_WAIT_S = 120.0
DONE_WAIT_S = 30.0

log = get_logger("trading.leader")


class PlanDesk:
    """The leader's side of the four bells."""

    def __init__(
        self, bells: Bells, strategy: SessionChild, clock: Clock, letters: Letters, vigil: Vigil
    ) -> None:
        self._bells = bells
        self._strategy = strategy
        self._clock = clock
        self._letters = letters
        self._vigil = vigil

    def ask(self, asked: OrderInfo) -> tuple[OrderInfo, bool]:
        """Save the request, ring, wait for the plan; and whether the strategy process answered."""
        self._letters.save(asked)
        bells = self._bells
        bells.strategy_done.clear()
        reach("leader: before rebalance_start")
        bells.rebalance_start.set()
        deadline = self._clock.now() + timedelta(seconds=STRATEGY_WAIT_S)
        done, died = bells.strategy_done.fileno(), self._strategy.fileno()
        ready = self._clock.wait_readable([done, died], deadline)
        if done not in ready:
            self._replace_strategy("did not answer")
            return self._skip(asked, "strategy-gone: the strategy process ended or did not answer")
        bells.strategy_done.clear()
        reach("leader: strategy answered")
        info = self._letters.read()
        if info.cycle != asked.cycle or info.stage is CycleStage.REQUESTED:
            skipped, _ = self._skip(asked, "strategy-late: the plan was for another cycle")
            return skipped, True
        return info, True

    def close(self) -> None:
        """Ring autotrade_done and wait until the strategy process has heard it."""
        reach("leader: before autotrade_done")
        self._bells.autotrade_done.set()
        fds = [self._bells.rebalance_done.fileno(), self._strategy.fileno()]
        until: datetime = self._clock.now() + timedelta(seconds=DONE_WAIT_S)
        if fds[0] not in self._clock.wait_readable(fds, until):
            self._replace_strategy("did not confirm the end of the cycle")
        self._bells.rebalance_done.clear()

    def _skip(self, asked: OrderInfo, reason: str) -> tuple[OrderInfo, bool]:
        skipped = asked.changed(stage=CycleStage.SKIPPED, reason=reason)
        return self._letters.save(skipped), False

    def _replace_strategy(self, why: str) -> None:
        log.warning("restarting the strategy process", why=why)
        self._strategy.stop()
        bells = self._bells
        for bell in (bells.autotrade_done, bells.rebalance_start, bells.strategy_done):
            bell.clear()
        self._vigil.patiently(self._strategy.start)
