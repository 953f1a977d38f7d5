"""When to look at which symbol again: the engine sleeps through every price that changes nothing.

    commands, fills -> World -> Attention -> next_event_ms;  quiet.settle says until when to sleep

Only bookkeeping lives here. Why a symbol may be left alone until a moment is decided in `quiet`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from module.simulator.engine.engine_types import NEVER_MS
from module.simulator.prices.minute_path import POINT_MS


@dataclass(frozen=True, slots=True)
class Band:
    """Marks above `low` and below `high` cannot liquidate, whatever the account's others do."""

    low: Decimal
    high: Decimal


def next_point_ms(now_ms: int) -> int:
    """The next moment of the price grid."""
    return now_ms - now_ms % POINT_MS + POINT_MS


@dataclass(slots=True)
class Attention:
    """What must be looked at, and when. Moments are points of the price grid."""

    bands: dict[str, dict[str, Band]] = field(default_factory=dict)
    """Per account: the marks of its symbols that are safe together; absent: not known."""
    _look_at: dict[str, int] = field(default_factory=dict)
    _looked: dict[str, int] = field(default_factory=dict)
    _soonest_ms: int = NEVER_MS
    _touched: set[str] = field(default_factory=set)
    _stirred: dict[str, None] = field(default_factory=dict)

    def touch(self, symbol: str) -> None:
        """Look at the symbol at once, though the grid may have no point now."""
        self._touched.add(symbol)

    def stir(self, account_id: str) -> None:
        """Something of this account has changed: look at all that is its own at the next point."""
        self._stirred[account_id] = None

    def looked_ms(self, symbol: str) -> int:
        """When the symbol was looked at last; 0 if never."""
        return self._looked.get(symbol, 0)

    def sleep_until(self, symbol: str, when_ms: int, now_ms: int) -> None:
        """The symbol, just looked at, can wait until `when_ms` (NEVER_MS: nobody cares)."""
        self._looked[symbol] = now_ms
        before_ms = self._look_at.pop(symbol, NEVER_MS)
        if when_ms < NEVER_MS:
            self._look_at[symbol] = when_ms
        if when_ms <= self._soonest_ms:
            self._soonest_ms = when_ms
        elif before_ms == self._soonest_ms:
            self._soonest_ms = min(self._look_at.values(), default=NEVER_MS)

    def next_ms(self, now_ms: int, *, watched: bool) -> int:
        """When something must be looked at; NEVER_MS if nothing ever (nothing is `watched`)."""
        if self._touched:
            return now_ms
        if not watched:
            return NEVER_MS
        # a moment that is past was meant for a symbol that nobody had any more
        if self._stirred or self._soonest_ms <= now_ms:
            return next_point_ms(now_ms)
        return self._soonest_ms

    def take_touched(self) -> set[str]:
        """Symbols to look at once, at any moment."""
        touched, self._touched = self._touched, set()
        return touched

    def take_stirred(self) -> Iterable[str]:
        """Accounts that changed since the last point, in the order in which they did."""
        stirred, self._stirred = self._stirred, {}
        return stirred

    def due(self, now_ms: int) -> set[str]:
        """Symbols whose sleep is over."""
        if self._soonest_ms > now_ms:
            return set()
        return {symbol for symbol, when_ms in self._look_at.items() if when_ms <= now_ms}
