"""The ports: what the engine needs of the world, as Protocols. Adapters live at the edges.

Every call may raise the errors of `module.model.errors`: reads raise Retryable kinds that the
caller may repeat; writes raise OutcomeUnknown when the answer was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from module.model.accounts import (
    AccountSnapshot,
    Bill,
    ClosedPosition,
    MarginMode,
    SymbolSettings,
)
from module.model.books import Depth, MarginTier
from module.model.market import Candle, Frequency, Instrument, Quote
from module.model.orders import (
    Fill,
    MissingOrder,
    OrderReport,
    OrderRequest,
    OrderTrace,
    StopPrices,
    SubmitResult,
    WriteStamp,
)
from module.model.sessions import DesiredState, EndState, SessionState


class Clock(Protocol):
    """The only source of time. `now` and the sleeps are world time; `monotonic` and `wall` real."""

    def now(self) -> datetime:
        """World time, aware UTC."""
        ...

    def monotonic(self) -> float:
        """Real seconds from an arbitrary start; the same for all processes of one machine."""
        ...

    def wall(self) -> datetime:
        """Real time, aware UTC: heartbeats that other machines compare."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let `seconds` of world time pass."""
        ...

    def sleep_until(self, when: datetime) -> None:
        """Return when world time has reached `when` (at once if it has)."""
        ...

    def pause(self, seconds: float) -> None:
        """Let real time pass without giving world time away: back-off while a part of our own
        installation restarts (a stepped world stands still meanwhile)."""
        ...

    def wait_readable(self, fds: Sequence[int], until: datetime | None) -> list[int]:
        """Wait for any of the descriptors; the readable ones, or [] when `until` came first."""
        ...

    def wake(self, participant: str) -> None:
        """Tell a stepped world that `participant` has just been rung (no effect elsewhere)."""
        ...


class MarketData(Protocol):
    """Closed bars of one market. Rows are oldest first."""

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        """The last `window` bars of each symbol that close at or before `end`.

        NotYet while the bar that closes at `end` (when `end` is a boundary) is still missing;
        NotFound names a symbol that the market does not have.
        """
        ...


class Exchange(Protocol):
    """One account on one venue, as the gateway or its client offers it."""

    def snapshot(self) -> AccountSnapshot:
        """Balances, positions with their stops, open orders: one consistent look."""
        ...

    def instruments(self) -> Mapping[str, Instrument]:
        """Trading rules by symbol."""
        ...

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """Best prices and marks now; NotFound where one of `symbols` has none."""
        ...

    def symbol_settings(self, symbols: Sequence[str]) -> Mapping[str, SymbolSettings]:
        """Leverage and margin mode as the exchange has them."""
        ...

    def apply_symbol_settings(
        self, stamp: WriteStamp, symbol: str, leverage: Decimal, margin_mode: MarginMode
    ) -> SymbolSettings:
        """Set leverage and margin mode of a flat symbol; the settings read back."""
        ...

    def submit(self, stamp: WriteStamp, orders: Sequence[OrderRequest]) -> list[SubmitResult]:
        """Send up to five orders at once; one result per order, matched by client id.

        OutcomeUnknown when the answer for the whole batch was lost. Retryable kinds and TooLate
        say that certainly none of it was sent; so does a refusal with the code NOT_SENT of one.
        """
        ...

    def order(self, symbol: str, client_id: str) -> OrderReport:
        """The order with this client id; NotFound when the exchange does not know it (yet)."""
        ...

    def rule_out(self, stamp: WriteStamp, missing: MissingOrder) -> OrderTrace:
        """Make sure that an order leaves never, where it has not left yet, and say how far it came
        otherwise. Repeating it is harmless; StaleWriter for another epoch than the account's."""
        ...

    def cancel(self, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        """Cancel it; already over counts as done."""
        ...

    def set_stops(self, stamp: WriteStamp, symbol: str, stops: StopPrices) -> StopPrices:
        """Make the position's stops exactly these; the stops read back."""
        ...

    def fills(self, since: datetime) -> Sequence[Fill]:
        """Executions from `since` on, oldest first."""
        ...

    def bills(self, since: datetime) -> Sequence[Bill]:
        """Movements of the wallet from `since` on, oldest first."""
        ...

    def closed_positions(self, since: datetime) -> Sequence[ClosedPosition]:
        """Positions that ended from `since` on, oldest first."""
        ...


class OrderBooks(Protocol):
    """Public depth and margin rules of one market: what a preview prices a plan with."""

    def depth(self, symbols: Sequence[str]) -> Mapping[str, Depth]:
        """The order books now; a symbol that the venue does not have is left out."""
        ...

    def margin_tiers(self, symbols: Sequence[str]) -> Mapping[str, tuple[MarginTier, ...]]:
        """What positions must keep, by size, smallest first; a symbol without tiers (spot, or not
        listed) is left out."""
        ...


@dataclass(frozen=True, slots=True)
class StrategyOutput:
    """What the user's function returned, after the schema check; numbers as decimal text.

    `targets` maps symbol → {"weight", "presetStopSurplusPrice"?, "presetStopLossPrice"?};
    `windows` is what it asked of the context, so that it can be fetched ahead next time.
    """

    targets: Mapping[str, Mapping[str, str]]
    windows: tuple[WindowRequest, ...]
    log: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """One `get_history` call of a strategy."""

    assets: tuple[str, ...]
    window: int
    frequency: Frequency
    fields: tuple[str, ...]


class StrategyRunner(Protocol):
    """Runs the user's function behind a wall. StrategyFailed says what went wrong, to its owner."""

    def run(
        self, source: str, config: Mapping[str, object], at: datetime, market: MarketData
    ) -> StrategyOutput:
        """Call `strategy(context, config)` with world time `at`; data is cut at `at`."""
        ...

    def close(self) -> None:
        """Leave nothing running."""
        ...


class AlertSink(Protocol):
    """Takes messages off the trading path. Never raises, never waits on the network."""

    def notify(self, alert: Alert) -> None:
        """Store it for delivery."""
        ...


@dataclass(frozen=True, slots=True)
class Alert:
    """One message to a person. `cause` groups repeats; `lines` are label → value, in order."""

    kind: str
    severity: str
    title: str
    lines: tuple[tuple[str, str], ...]
    cause: str
    session_id: str | None
    owner_id: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ClaimedAlert:
    """One alert to be sent now; `stands_for` are the ids it covers, its own among them."""

    alert_id: int
    alert: Alert
    attempts: int
    stands_for: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many alerts of the cause this message stands for."""
        return len(self.stands_for)


@dataclass(frozen=True, slots=True)
class AlertBacklog:
    """What has not reached anybody; `oldest_wall` is when the oldest pending one was made."""

    pending: int
    oldest_wall: datetime | None
    undelivered: int


class SessionLauncher(Protocol):
    """Three verbs: start, stop, poll."""

    def start(self, session_id: str) -> None:
        """Make the session's processes run (idempotent)."""
        ...

    def stop(self, session_id: str) -> None:
        """Tell the session to look at its desired state now (idempotent)."""
        ...

    def poll(self, session_id: str) -> bool:
        """Whether anything of the session runs."""
        ...


class OrderInfoStore(Protocol):
    """Where a session's letter is kept: one truth, durable when `write` returns.

    Documents are plain JSON objects; (epoch, revision) only grows.
    """

    def read(self) -> Mapping[str, object] | None:
        """The last document, or None where there never was one. A damaged one is an error."""
        ...

    def write(self, document: Mapping[str, object], epoch: int, revision: int) -> None:
        """Replace the document; StaleWriter when a newer epoch or revision is there."""
        ...

    def archive(self, document: Mapping[str, object]) -> None:
        """Keep the ended cycle."""
        ...

    def archived(self, count_max: int) -> Sequence[Mapping[str, object]]:
        """The newest ended cycles, oldest first."""
        ...


class BarsArchive(Protocol):
    """Where the bars that a cycle saw lie beside its archived letter."""

    def keep_bars(self, cycle: datetime, content: bytes) -> None:
        """Keep what `pack_bars` made of them; Unavailable when it was not kept."""
        ...

    def bars_of(self, cycle: datetime) -> bytes | None:
        """What was kept, or None."""
        ...


@dataclass(frozen=True, slots=True)
class CycleRecord:
    """The journal of one cycle; `targets` and `order_info` are plain JSON."""

    session_id: str
    boundary: datetime
    number: int
    state: str
    reason: str
    started_at: datetime
    ended_at: datetime | None
    own_ms: float | None
    targets: Mapping[str, object] | None
    order_info: Mapping[str, object] | None
    digest: str | None


class Wish(Protocol):
    """What the owner wants of a session now, and what it is."""

    @property
    def state(self) -> SessionState: ...

    @property
    def desired(self) -> DesiredState: ...

    @property
    def end_state(self) -> EndState: ...


class SessionRow(Wish, Protocol):
    """A session as Postgres has it."""

    @property
    def cycle(self) -> int: ...

    @property
    def last_boundary(self) -> datetime | None: ...

    @property
    def initial_balance(self) -> Decimal | None: ...


class SessionRegistry(Protocol):
    """The truth about sessions, as a leader uses it. A stale epoch raises StaleWriter."""

    def get(self, session_id: str) -> SessionRow:
        """NotFound when there is no such session."""
        ...

    def take_epoch(self, session_id: str) -> int:
        """Raise the account's epoch; writes of every older epoch are refused from now on."""
        ...

    def set_state(
        self,
        session_id: str,
        state: SessionState,
        at: datetime,
        *,
        reason: str = "",
        epoch: int | None = None,
    ) -> SessionRow:
        """What the session is from world time `at` on."""
        ...

    def set_initial_balance(self, session_id: str, epoch: int, balance: Decimal) -> None:
        """Remember the equity at start; the first one stays."""
        ...

    def heartbeat(self, session_id: str, epoch: int, wall: datetime) -> Wish:
        """The leader lives; what the owner wants."""
        ...

    def wishes(self, session_id: str) -> Wish:
        """What the owner wants."""
        ...

    def record_cycle(self, epoch: int, cycle: CycleRecord) -> None:
        """The journal of one cycle (idempotent by its boundary)."""
        ...


class SessionChild(Protocol):
    """A process of a session (strategy, finwatcher), as its leader sees it."""

    def begin(self) -> None:
        """Fork one (or adopt the one that runs); `await_ready` must follow."""
        ...

    def await_ready(self) -> None:
        """Return when it is ready; Unavailable when it ended instead."""
        ...

    def start(self) -> None:
        """`begin` and `await_ready`."""
        ...

    def fileno(self) -> int:
        """Readable when it has ended."""
        ...

    def stop(self) -> None:
        """End it, or let go of it."""
        ...
