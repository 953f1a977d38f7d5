"""What one session's finwatcher is given when many are measured at once: answers that are there.

    monitoring.fleet ─ bulk reads, looks ─► Prepared… ─► Finwatcher.step ─► Batch ─ bulk writes ─►

A `Finwatcher` measures each session by the same code as ever. Its ports do not ask: what they
answer was read for all sessions together, and what it stores is gathered and stored together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from module.model.accounts import AccountSnapshot, Bill, ClosedPosition
from module.model.errors import AifapError, Unavailable
from module.model.market import Instrument, Quote
from module.model.orders import Fill
from module.model.results import (
    CurvePoint,
    GapCause,
    GapRow,
    HistoryRows,
    MinuteRows,
    PlannedOrder,
    StoredAdditions,
    StoredHistory,
    StoredMinute,
    StoredProgress,
    TradeSums,
    WatchedSession,
)
from module.ports import Alert, Clock
from monitoring.ports import ResultsStore, SessionRegistry


class FleetStore(Protocol):
    """Reads and writes for many sessions at once (`module.db.repositories.fleet`)."""

    def sessions(self, ended_since: datetime) -> Sequence[WatchedSession]:
        """The sessions that are not over, and those that ended since then; with their targets."""
        ...

    def unprotected_s(
        self, sessions: Sequence[WatchedSession], until: datetime
    ) -> Mapping[str, float]:
        """Seconds × positions without their stop since each session's start, by session."""
        ...

    def progress(
        self, sessions: Sequence[WatchedSession], look_back: timedelta
    ) -> Mapping[str, StoredProgress]:
        """Where the stored rows of each session stand."""
        ...

    def store_gaps(self, gaps: Sequence[tuple[WatchedSession, GapRow]]) -> int:
        """Record gaps for minutes that have neither row nor gap; how many were new."""
        ...


class AccountReads(Protocol):
    """The part of `ports.Exchange` that measuring needs, for one account. The reads only."""

    def snapshot(self) -> AccountSnapshot:
        """One consistent look."""
        ...

    def fills(self, since: datetime) -> Sequence[Fill]:
        """Executions, oldest first."""
        ...

    def bills(self, since: datetime) -> Sequence[Bill]:
        """Movements of the wallet, oldest first."""
        ...

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        """Positions that ended, oldest first."""
        ...

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Prices now."""
        ...

    def instruments(self) -> Mapping[str, Instrument]:
        """Trading rules by symbol."""
        ...


class MinuteClock:
    """A clock that does not leave the pass's minute: rows of a pass that runs on into the next
    minute belong to the one that it began in."""

    def __init__(self, clock: Clock, minute: datetime) -> None:
        self._clock = clock
        self._last = minute + timedelta(minutes=1) - timedelta(microseconds=1)
        self._first = minute

    def now(self) -> datetime:
        """Now, within the minute."""
        return max(self._first, min(self._clock.now(), self._last))

    def monotonic(self) -> float:
        """Real seconds."""
        return self._clock.monotonic()

    def wall(self) -> datetime:
        """Real time."""
        return self._clock.wall()

    def sleep(self, seconds: float) -> None:
        """Let world time pass."""
        self._clock.sleep(seconds)

    def sleep_until(self, when: datetime) -> None:
        """Return when `when` has come."""
        self._clock.sleep_until(when)

    def pause(self, seconds: float) -> None:
        """Let real time pass."""
        self._clock.pause(seconds)

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        """See `ports.Clock`."""
        return self._clock.wait_readable(fds, until)

    def wake(self, participant: str) -> None:
        """See `ports.Clock`."""
        self._clock.wake(participant)


class ImpatientClock(MinuteClock):
    """The clock of one look: whoever would wait past its end is told Unavailable instead."""

    def __init__(self, clock: Clock, minute: datetime, patience_s: float) -> None:
        super().__init__(clock, minute)
        self._patience_s = patience_s
        self._give_up_s = clock.monotonic() + patience_s

    def begin(self) -> None:
        """The next calls may take the whole patience again."""
        self._give_up_s = self._clock.monotonic() + self._patience_s

    def now(self) -> datetime:
        """Now."""
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        """Let world time pass, or give up."""
        self._require(seconds)
        super().sleep(seconds)

    def pause(self, seconds: float) -> None:
        """Let real time pass, or give up."""
        self._require(seconds)
        super().pause(seconds)

    def _require(self, seconds: float) -> None:
        if self._clock.monotonic() + seconds > self._give_up_s:
            raise Unavailable(
                f"the account did not answer within {self._patience_s:g} s; the next minute asks "
                "again"
            )


@dataclass(slots=True)
class Batch:
    """What one session's step wants to have stored, and which alerts it raised."""

    session: WatchedSession
    minute: MinuteRows | None = None
    state: Mapping[str, object] | None = None
    histories: list[HistoryRows] = field(default_factory=list)
    filled: list[tuple[MinuteRows, Mapping[str, object] | None]] = field(default_factory=list)
    gaps: list[GapRow] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)

    def notify(self, alert: Alert) -> None:
        """Keep the alert; the pass tells."""
        self.alerts.append(alert)


class PreparedSession:
    """`SessionRegistry` of one session, as it was read at the pass's start."""

    def __init__(
        self, session: WatchedSession, unprotected_s: float | None, registry: SessionRegistry
    ) -> None:
        self._session = session
        self._unprotected_s = unprotected_s
        self._registry = registry

    def watched(self, session_id: str) -> WatchedSession:
        """The session."""
        return self._session

    def active(self) -> Sequence[str]:
        """Itself, unless it is over."""
        return () if self._session.is_over else (self._session.session_id,)

    def planned_orders(
        self, session: WatchedSession, since: datetime, until: datetime
    ) -> Mapping[str, PlannedOrder]:
        """Asked for where there are new fills only, so one by one."""
        return self._registry.planned_orders(session, since, until)

    def unprotected_s(self, session: WatchedSession, until: datetime) -> float | None:
        """As it was at the pass's start."""
        return self._unprotected_s


class PreparedResults:
    """`ResultsStore` of one session: reads what was read, gathers what is to be stored.

    `progress` None: Postgres does not answer, and neither does this. `waiting` are the minutes that
    lie in the spool: they are as good as kept, but the curve has to wait for them. `cause_of` tells
    why a minute that has nothing was missed.
    """

    def __init__(
        self,
        batch: Batch,
        progress: StoredProgress | None,
        history: Callable[[timedelta], StoredHistory],
        rest: ResultsStore,
        waiting: frozenset[datetime],
        cause_of: Callable[[GapRow], GapRow],
    ) -> None:
        self._batch = batch
        self._progress = progress
        self._history = history
        self._rest = rest
        self._waiting = waiting
        self._cause_of = cause_of

    def store_minute(
        self, rows: MinuteRows, state: Mapping[str, object] | None = None
    ) -> StoredMinute:
        """Kept for the pass."""
        self._batch.minute, self._batch.state = rows, state
        return StoredMinute(True, {})

    def store_minutes(
        self, batch: Sequence[tuple[MinuteRows, Mapping[str, object] | None]]
    ) -> Sequence[StoredMinute]:
        """Kept for the pass: what earlier minutes lack."""
        self._batch.filled.extend(batch)
        return [StoredMinute(True, {})] * len(batch)

    def store_history(self, rows: HistoryRows) -> int:
        """Kept for the pass."""
        self._batch.histories.append(rows)
        return len(rows.transactions) + len(rows.positions)

    def store_histories(self, batch: Sequence[HistoryRows]) -> Sequence[StoredAdditions]:
        """Each of them."""
        return [StoredAdditions(self.store_history(rows)) for rows in batch]

    def store_gaps(self, session: WatchedSession, gaps: Sequence[GapRow]) -> int:
        """Kept for the pass, but for minutes that lie in the spool."""
        new = [self._cause_of(gap) for gap in gaps if gap.minute not in self._waiting]
        self._batch.gaps.extend(new)
        return len(new)

    def last_minute(self, session: WatchedSession) -> datetime | None:
        """The last one with a row or a gap."""
        return self._known().last_minute

    def kept_minutes(
        self, session: WatchedSession, first: datetime, last: datetime
    ) -> set[datetime]:
        """Those of [first, last] with a row or a gap, stored or in the spool."""
        kept = self._known().kept | self._waiting
        return {minute for minute in kept if first <= minute <= last}

    def indicator_state(self, session: WatchedSession) -> Mapping[str, object] | None:
        """As stored; it waits until the spool is empty, so that no point is left out."""
        if self._waiting:
            raise Unavailable("rows of earlier minutes wait to be stored; the curve follows them")
        return self._known().state

    def curve(self, session: WatchedSession, after: datetime | None) -> Sequence[CurvePoint]:
        """What was read goes on from the stored state; another curve is asked for."""
        known = self._known()
        if known.state is None or after is None:
            return () if known.last_minute is None else self._rest.curve(session, after)
        return tuple(point for point in known.curve if point.minute > after)

    def history(self, session: WatchedSession, overlap: timedelta) -> StoredHistory:
        """What the last pass left, else the sums over the stored rows."""
        return self._history(overlap)

    def trade_sums_at(
        self, session: WatchedSession, moments: Sequence[datetime]
    ) -> Sequence[TradeSums]:
        """Asked for where minutes lack their indicators only, so one by one."""
        return self._rest.trade_sums_at(session, moments)

    def _known(self) -> StoredProgress:
        if self._progress is None:
            raise Unavailable("database finwatcher does not answer; the next minute asks again")
        return self._progress


@dataclass(frozen=True, slots=True)
class Look:
    """An account at one moment, or why it could not be seen."""

    snapshot: AccountSnapshot | None
    error: Exception | None = None


class LookedAccount:
    """The exchange of one session's step: the look that was taken, then history if it is due.

    `quiet`: nothing moved in the account since history was last asked for, so it is not.
    """

    def __init__(self, look: Look, account: AccountReads | None, *, quiet: bool) -> None:
        self._look = look
        self._open = account
        self._quiet = quiet

    def snapshot(self) -> AccountSnapshot:
        """The look, or its error."""
        if self._look.snapshot is not None:
            return self._look.snapshot
        raise self._look.error or Unavailable("the account was not looked at")

    def fills(self, since: datetime) -> Sequence[Fill]:
        """Executions, oldest first."""
        return () if self._quiet else self._account.fills(since)

    def bills(self, since: datetime) -> Sequence[Bill]:
        """Movements of the wallet, oldest first."""
        return () if self._quiet else self._account.bills(since)

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        """Positions that ended, oldest first."""
        return () if self._quiet else self._account.closed_positions(since)

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Prices now."""
        return self._account.quotes(symbols)

    def instruments(self) -> Mapping[str, Instrument]:
        """Trading rules by symbol."""
        return self._account.instruments()

    @property
    def _account(self) -> AccountReads:
        if self._open is None:
            raise Unavailable("the account was not looked at")
        return self._open


def with_detail(gap: GapRow, cause: GapCause, detail: str) -> GapRow:
    """The same minute for another reason."""
    return replace(gap, cause=cause, detail=detail)


def why(error: Exception) -> str:
    """One line for a gap's detail."""
    return error.message if isinstance(error, AifapError) else f"{type(error).__name__}: {error}"
