"""One session's history as its finwatcher follows it: asked for, counted, stored once.

    exchange ─ fills, bills, closed positions ─► SessionHistory ─► ledger (sums up to any moment)
                                                      └─ keep_history ─► Postgres, or spool

What was counted and could not be stored is counted again from what is stored. Now and then history
is asked for from far back: exchanges publish some of it late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from module.model.accounts import AccountSnapshot
from module.model.market import MarketType
from module.model.results import (
    ClosedPositionRow,
    HistoryRows,
    PlannedOrder,
    TransactionRow,
    WatchedSession,
)
from module.model.sessions import boundary_at_or_after
from module.ports import Exchange
from monitoring.keeping import RowKeeper
from monitoring.ledger import DEEP_OVERLAP, OVERLAP, HistoryLedger
from monitoring.lots import SpotBook
from monitoring.ports import ResultsStore
from monitoring.stacks import Stacks
from monitoring.troubles import Troubles

MINUTE = timedelta(minutes=1)
DEEP_LOOK_EVERY = timedelta(hours=1)
PlansOf = Callable[[datetime, datetime], Mapping[str, PlannedOrder] | None]
"""What was decided of the orders executed from one time to another; None: it cannot be asked."""


class SessionHistory:
    """`deep_look`: whether to ask from far back now; None: as the process starts, once an hour, and
    once the session is over."""

    def __init__(
        self,
        exchange: Exchange,
        results: ResultsStore,
        keeper: RowKeeper,
        troubles: Troubles,
        deep_look: bool | None = None,
    ) -> None:
        self._exchange = exchange
        self._results = results
        self._keeper = keeper
        self._troubles = troubles
        self._deep_look = deep_look
        self._ledger: HistoryLedger | None = None
        self._is_stale = False
        self._asked_at: datetime | None = None
        self._deep_at: datetime | None = None
        self._deep_after_end = False

    @property
    def ledger(self) -> HistoryLedger | None:
        """As counted; None where that is not what is stored."""
        return None if self._is_stale else self._ledger

    def ledger_of(self, session: WatchedSession) -> HistoryLedger:
        """As counted so far; an empty one before anything was."""
        if self._ledger is None:
            self._ledger = HistoryLedger(session.started_at, _book_of(session))
        return self._ledger

    def is_known_until(self, moment: datetime) -> bool:
        """Whether history was asked for, and answered, at `moment` or later."""
        return self._asked_at is not None and self._asked_at >= moment

    def resume(self, session: WatchedSession, minute: datetime) -> None:
        """Pick up the sums where the stored rows end.

        Without Postgres the history is counted afresh from what the exchange still tells. For a
        deep look it is read again with the ids of so far back; so it is after something was counted
        and kept nowhere, which others' newer items may hide from an ordinary look.
        """
        looks_deep = self._is_stale or self._looks_deep(session, minute)
        deep = looks_deep and not self._keeper.waits
        if self._ledger is not None and not self._is_stale and not deep:
            return
        overlap = DEEP_OVERLAP if deep else OVERLAP

        def load() -> HistoryLedger:
            stored = self._results.history(session, overlap)
            return HistoryLedger.resume(session.started_at, stored, _book_of(session), overlap)

        loaded = self._troubles.load("history", load)
        self._ledger = loaded or self.ledger_of(session)
        self._is_stale &= loaded is None

    def collect(
        self, session: WatchedSession, snapshot: AccountSnapshot, stacks: Stacks, plans: PlansOf
    ) -> tuple[str, ...]:
        """Store what is new; flags for a row whose sums may be stale."""
        ledger = self.ledger_of(session)
        ledger.ends_at = last_minute_of(session, snapshot.at) if session.is_over else None
        flags: list[str] = []

        def plans_or_flag(first: datetime, last: datetime) -> Mapping[str, PlannedOrder]:
            found = plans(first, last)
            if found is None:
                flags.append("decisions-unknown")
            return found or {}

        transactions: tuple[TransactionRow, ...] | None = self._troubles.guard(
            stacks.transactions.name,
            lambda: stacks.transactions.collect(self._exchange, ledger, snapshot, plans_or_flag),
        )
        positions: tuple[ClosedPositionRow, ...] | None = self._troubles.guard(
            stacks.positions.name, lambda: stacks.positions.collect(self._exchange, ledger)
        )
        self._store(session, stacks.transactions.name, transactions or (), ())
        self._store(session, stacks.positions.name, (), positions or ())
        if transactions is None or positions is None:
            return (*flags, "history-stale")
        self._asked_at = snapshot.at
        if ledger.overlap > OVERLAP:
            ledger.look_near()
            self._deep_at, self._deep_after_end = snapshot.at, session.is_over
        return tuple(flags)

    def _looks_deep(self, session: WatchedSession, minute: datetime) -> bool:
        if self._deep_look is not None:
            return self._deep_look
        if session.is_over and not self._deep_after_end:
            return True
        return self._deep_at is None or minute - self._deep_at >= DEEP_LOOK_EVERY

    def _store(
        self,
        session: WatchedSession,
        name: str,
        transactions: tuple[TransactionRow, ...],
        positions: tuple[ClosedPositionRow, ...],
    ) -> None:
        if not transactions and not positions:
            return
        rows = HistoryRows(
            session.session_id,
            session.owner_id,
            session.account_id,
            session.market,
            transactions,
            positions,
        )
        if not self._keeper.keep_history(name, rows).is_kept:
            self._is_stale = True  # counted but not stored: read the truth back next minute


def last_minute_of(session: WatchedSession, otherwise: datetime) -> datetime:
    """The minute of a session's last row: the first second 0 at or after its end."""
    if session.ended_at is None:
        return otherwise
    return boundary_at_or_after(session.ended_at, MINUTE)


def _book_of(session: WatchedSession) -> SpotBook | None:
    return SpotBook() if session.market is MarketType.SPOT else None
