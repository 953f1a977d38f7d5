"""What the finwatcher needs besides `module.ports`: sessions to watch, a store for results.

Every call raises Unavailable while Postgres cannot be reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from module.model.results import (
    CurvePoint,
    GapRow,
    HistoryRows,
    MinuteRows,
    PlannedOrder,
    StoredAdditions,
    StoredHistory,
    StoredMinute,
    TradeSums,
    WatchedSession,
)


class SessionRegistry(Protocol):
    """Which sessions there are, as the finwatcher sees them."""

    def watched(self, session_id: str) -> WatchedSession:
        """The session now; NotFound if there is none."""
        ...

    def active(self) -> Sequence[str]:
        """The ids of the sessions that are not over."""
        ...

    def planned_orders(
        self, session: WatchedSession, since: datetime, until: datetime
    ) -> Mapping[str, PlannedOrder]:
        """The orders of the cycles of [since, until], by the exchange's order id."""
        ...

    def unprotected_s(self, session: WatchedSession, until: datetime) -> float | None:
        """Seconds × positions of the account without their stop, from the session's start to
        `until`; None where nobody records them."""
        ...


class ResultsStore(Protocol):
    """Rows of sessions (`module.db.repositories.results`). All writes may be repeated."""

    def store_minute(
        self, rows: MinuteRows, state: Mapping[str, object] | None = None
    ) -> StoredMinute:
        """Write a minute's rows, and with them the running indicator `state`, in one go.

        Without a portfolio row, what is there of the minute stays."""
        ...

    def store_minutes(
        self, batch: Sequence[tuple[MinuteRows, Mapping[str, object] | None]]
    ) -> Sequence[StoredMinute]:
        """`store_minute` for many sessions at once, with the same outcome for each, in order.

        What the database refuses of one session is named in its place and stops no other.
        Unavailable: some may have been written; the whole batch may be repeated.
        """
        ...

    def store_history(self, rows: HistoryRows) -> int:
        """Add historical rows that are not there yet; how many were new."""
        ...

    def store_histories(self, batch: Sequence[HistoryRows]) -> Sequence[StoredAdditions]:
        """`store_history` for many sessions at once; for each, in order, what became of it."""
        ...

    def store_gaps(self, session: WatchedSession, gaps: Sequence[GapRow]) -> int:
        """Record gaps for minutes that have neither row nor gap; how many were new."""
        ...

    def last_minute(self, session: WatchedSession) -> datetime | None:
        """The last minute with a portfolio row or a recorded gap."""
        ...

    def kept_minutes(
        self, session: WatchedSession, first: datetime, last: datetime
    ) -> set[datetime]:
        """The minutes of [first, last] with a portfolio row or a recorded gap."""
        ...

    def indicator_state(self, session: WatchedSession) -> Mapping[str, object] | None:
        """The running indicator state as last stored."""
        ...

    def curve(self, session: WatchedSession, after: datetime | None) -> Sequence[CurvePoint]:
        """The stored curve after a minute (None: all of it), oldest first."""
        ...

    def trade_sums_at(
        self, session: WatchedSession, moments: Sequence[datetime]
    ) -> Sequence[TradeSums]:
        """What the stored trades and fills up to each of these moments (oldest first) add up to."""
        ...

    def history(self, session: WatchedSession, overlap: timedelta) -> StoredHistory:
        """The stored history's sums, its newest times, and the ids within `overlap` of them."""
        ...
