"""How a leader leaves: everything closed and confirmed, or what is left said in words.

end: flat ─► what is held ─► a letter that closes it ─► carried out ─► looked at again ─► flat
                ▲                                                          └─ left: again
end: protected, failed ─► what is held, in words, for the owner
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from module.logs import get_logger
from module.model.accounts import AccountSnapshot, Position
from module.model.errors import PASSING, Conflict
from module.model.money import plain
from module.model.sessions import SessionSpec
from module.ports import Clock, Exchange
from trading.rebalance.decision import closing_inputs, decide, plan_letter
from trading.rebalance.order_info import CycleStage, OrderInfo
from trading.rebalancing_strategy import flat_policy
from trading.session.letters import Letters
from trading.session.vigil import Vigil

FLAT_TRIES = 3
"""So many closing letters are carried out to their end; what an outage interrupts is no try."""
FLAT_PAUSE_S = 5.0
"""World seconds between two tries: what refused a close (a price band, an empty book) may pass."""

FLAT_LOOKS_MAX = 4
"""So often the account is looked at before it is taken for flat while a coin has no price."""
FLAT_LOOK_AGAIN_S = 1.0
"""World seconds between two looks: one odd reading must not leave a position behind."""

log = get_logger("trading.leader")


@dataclass(frozen=True, slots=True)
class WayOut:
    """One leader's. `look` reads what of the account is the session's; `trade` carries a letter
    out, `keep` archives it; `clear_orders` cancels what of ours waits at the exchange."""

    spec: SessionSpec
    clock: Clock
    exchange: Exchange
    letters: Letters
    vigil: Vigil
    look: Callable[[], AccountSnapshot]
    trade: Callable[[OrderInfo], OrderInfo]
    keep: Callable[[OrderInfo], None]
    clear_orders: Callable[[], None]

    def flatten(self, number: int, epoch: int, build: str) -> None:
        """Cancel what waits, close everything, confirm it, do it again if something is left.

        `number`: the first closing letter's; each further one has the next. Conflict names what
        is left after FLAT_TRIES.
        """
        self.clear_orders()
        numbers = itertools.count(number)
        tries = 0
        while tries < FLAT_TRIES:
            snapshot = self._look_well()
            if not snapshot.closable:
                return
            if tries:
                self.vigil.let_pass(FLAT_PAUSE_S)
                snapshot = self.vigil.outlast(self.look)
                if not snapshot.closable:
                    return
            instruments = self.vigil.outlast(self.exchange.instruments)
            letter = self.letters.request(self._cycle(), next(numbers), epoch)
            inputs = closing_inputs(
                self.spec.session_id,
                letter.cycle,
                flat_policy(self.spec),
                snapshot,
                instruments,
                build,
            )
            done = self.trade(self.letters.save(plan_letter(letter, inputs, decide(inputs))))
            self.keep(done)
            tries += done.stage is CycleStage.DONE
        left = self._look_well()
        if left.closable:
            raise Conflict(
                f"the account could not be made flat after {FLAT_TRIES} tries: "
                f"{held_in_words(left)}"
            )

    def _look_well(self) -> AccountSnapshot:
        return look_well(lambda: self.vigil.outlast(self.look), self.vigil.let_pass)

    def what_is_held(self) -> str:
        """In words; an exchange that is away keeps no session from ending."""
        try:
            return held_in_words(self.look())
        except PASSING as error:
            log.warning("positions not read at the end", detail=error.message)
            return "the exchange did not say what is held"

    def _cycle(self) -> datetime:
        """A time for a closing letter that no letter before it had: client ids are made of whole
        seconds, and each letter needs ids of its own."""
        now, last = self.clock.now(), self.letters.last
        return now if last is None else max(now, last.cycle + timedelta(seconds=1))


def held_in_words(snapshot: AccountSnapshot) -> str:
    """What is held, what of it has no stop loss, and which coins cannot be sold at any price."""
    told = [
        f"{position.symbol} {plain(position.size)}"
        + ("" if position.stops.stop_loss is not None else " (no stop loss)")
        for position in snapshot.closable
    ]
    told += [
        f"{position.symbol} {plain(position.size)} (has no price, cannot be sold)"
        for position in without_price(snapshot)
    ]
    return ", ".join(told) or "nothing"


def look_well(
    look: Callable[[], AccountSnapshot], let_pass: Callable[[float], object]
) -> AccountSnapshot:
    """A look that shows what is to be closed; that nothing is, two looks in a row must say, and
    FLAT_LOOKS_MAX of them while a coin has no price."""
    snapshot = look()
    for looks in range(1, FLAT_LOOKS_MAX):
        if snapshot.closable or (looks > 1 and not without_price(snapshot)):
            break
        let_pass(FLAT_LOOK_AGAIN_S)
        snapshot = look()
    return snapshot


def without_price(snapshot: AccountSnapshot) -> list[Position]:
    """Coins that are there but have no price: delisted, or left out of one reading."""
    return [position for position in snapshot.positions if not position.mark_price]
