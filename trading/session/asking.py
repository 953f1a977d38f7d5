"""Asks the strategy process for a plan: the letter (requested), the bell, the answer.

    request saved ─► rebalance_start ─► strategy_done (or it died, or said nothing) ─► the letter
    cycle over    ─► autotrade_done  ─► rebalance_done

One that dies or does not answer is replaced, and its cycle is skipped with the reason. So is one
that is still busy when the session is to end: whoever ends it does not wait for a strategy that
hangs.
"""

from __future__ import annotations

import math
from datetime import timedelta

from module.logs import get_logger
from module.points import reach
from module.ports import Clock, SessionChild
from trading.rebalance.order_info import CycleStage, OrderInfo
from trading.session.bells import Bell, Bells
from trading.session.letters import Letters
from trading.session.vigil import Vigil

STOPPING = "stopping"
"""How the reason of a cycle begins that was skipped because the session ends."""
STRATEGY_WAIT_S = 120.0
DONE_WAIT_S = 30.0
LISTENS_EVERY_S = 10.0
"""World seconds between two heartbeats while the strategy process is waited for."""
STOP_GRACE_S = 1.0
STOP_LOOK_S = 0.05
"""Real seconds that it has left to answer once the session is to end, and between two looks."""

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
        if not self._hears(bells.strategy_done, STRATEGY_WAIT_S):
            self._replace_strategy("did not answer")
            if self._vigil.stop_wanted is not None:
                return self._skip(asked, f"{STOPPING}: the strategy had not answered yet")
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
        if not self._hears(self._bells.rebalance_done, DONE_WAIT_S):
            self._replace_strategy("did not confirm the end of the cycle")
        self._bells.rebalance_done.clear()

    def _hears(self, bell: Bell, wait_s: float) -> bool:
        """Whether the strategy process rang; not, where it ended, or the time is over, or the
        session is to end. HandOver when another leader shall go on."""
        waited_for = [bell.fileno(), self._strategy.fileno(), self._vigil.ear]
        for _ in range(math.ceil(wait_s / LISTENS_EVERY_S)):
            until = self._clock.now() + timedelta(seconds=LISTENS_EVERY_S)
            ready = self._clock.wait_readable(waited_for, until)
            if bell.fileno() in ready:
                return True
            if self._strategy.fileno() in ready:
                return False
            if self._vigil.stop_requested():
                return self._hears_soon(bell)
        return False

    def _hears_soon(self, bell: Bell) -> bool:
        """In real time: a stepped world stands still while the strategy is busy."""
        for _ in range(math.ceil(STOP_GRACE_S / STOP_LOOK_S)):
            if bell.is_set():
                return True
            self._clock.pause(STOP_LOOK_S)
        return bell.is_set()

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
