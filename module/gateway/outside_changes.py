"""Notices what somebody else did to a position: by hand, liquidation, another program (B13, A28).

Between two looks a position changes by our own orders, by its stops, or by somebody else. The last
is told to people, and the symbol opens nothing more until a session is started again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from module.gateway.alarms import Alarms
from module.gateway.owned_account import OwnedAccount
from module.model.accounts import Position
from module.model.errors import Retryable
from module.model.money import plain

log = logging.getLogger(__name__)

TOLERATED = Decimal("0.02")
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Sizes by symbol at one look."""

    sizes: Mapping[str, Decimal]
    at: datetime
    epoch: int


@dataclass(slots=True)
class OutsideChanges:
    """Compares each look at an account with the one before."""

    alarms: Alarms
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def compare(
        self, owned: OwnedAccount, positions: Mapping[str, Position], now: datetime
    ) -> None:
        """`positions` were read just now. A position that ended is not a change: stops do that."""
        before = self._seen.get(owned.account_id)
        sizes = {symbol: position.size for symbol, position in positions.items()}
        self._seen[owned.account_id] = _Seen(sizes, now, owned.epoch)
        if before is None or before.epoch != owned.epoch or not owned.verified:
            return
        for symbol, size in sizes.items():
            was = before.sizes.get(symbol, ZERO)
            if size == was or owned.is_touched(symbol, before.at):
                continue
            if was and abs(size - was) <= max(abs(was) * TOLERATED, _lot(owned, symbol)):
                log.info("%s: %s became %s; the next cycle sees to it", symbol, was, size)
                continue
            self._pause(owned, symbol, was, size)

    def _pause(self, owned: OwnedAccount, symbol: str, was: Decimal, size: Decimal) -> None:
        why = (
            f"the position of {symbol} became {plain(size)} from {plain(was)} without an order "
            "from here"
        )
        with owned.lock:
            owned.paused[symbol] = why
        log.warning("account %s: %s", owned.account_id, why)
        self.alarms.tell(
            owned,
            "position-changed",
            f"{symbol} was changed from outside; it opens nothing more",
            (
                ("before", plain(was)),
                ("now", plain(size)),
                ("what now", "its stops are kept; start the session again to trade it"),
            ),
            cause=f"outside:{symbol}",
            severity="warning",
        )


def _lot(owned: OwnedAccount, symbol: str) -> Decimal:
    try:
        instrument = owned.venue.instruments().get(symbol)
    except Retryable:
        return ZERO  # the look goes on: stops are mended after this
    return ZERO if instrument is None else instrument.size_step
