"""What the gateway must not forget: the audit row of each write, the stops it promised to keep, the
times in which they were missing.

    write ──► Postgres ── away ──► spool (synced) ── Postgres back ──► Postgres, in order

Nothing lives in memory alone: what Postgres does not take is in the spool before the call returns.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from module.db.circuit import hurried
from module.db.repositories.gateway_writes import (
    Author,
    WriteEntry,
    WriteKind,
    WriteOutcome,
)
from module.db.repositories.unprotected_periods import BarePeriod
from module.db.repositories.wanted_stops import WantedStops
from module.gateway.quiet_log import QuietLog
from module.gateway.spool import Record, Spool
from module.gateway.stores import BarePeriodStore, WantedStopStore, WriteLog
from module.model.canonical import instant_text, parse_instant
from module.model.errors import InvalidInput, Unavailable
from module.ports import Clock
from module.wire.model_codec import from_document, to_document

log = logging.getLogger(__name__)

Learnt = Mapping[int, tuple[WriteOutcome, Mapping[str, object]]]
FLUSH_MAX_S: Final = 1.0
WISH_PATIENCE_S: Final = 3.0
"""Real seconds that a wish waits for Postgres before it is spooled: others wait for its symbol."""
_INTENT: Final = "intent"
_OUTCOME: Final = "outcome"
_LEARNT: Final = "learnt"
_WANT: Final = "want"
_UNWANT: Final = "unwant"
_BARE: Final = "bare"


class Audit:
    """Audit rows and wanted stops of all accounts of this process. Thread safe."""

    def __init__(
        self,
        writes: WriteLog,
        stops: WantedStopStore,
        periods: BarePeriodStore,
        spool: Spool | None,
        clock: Clock,
    ) -> None:
        """`spool` None: without Postgres nothing can be kept, so nothing is sent either."""
        self.writes = writes
        self.stops = stops
        self.periods = periods
        self._spool = spool
        self._clock = clock
        self._quiet = QuietLog(log, clock)
        self._lock = threading.Lock()
        self._in_flight: set[str] = set()

    @property
    def waiting(self) -> int:
        """How many records wait for Postgres."""
        return 0 if self._spool is None else self._spool.count

    @property
    def waiting_bytes(self) -> int:
        """How large the file is that they wait in."""
        return 0 if self._spool is None else self._spool.size_bytes

    # --- writes that leave without a row -------------------------------------------------------

    def begin_late(self, author: Author, entry: WriteEntry, at: datetime | None = None) -> str:
        """Postgres is away: the intent is kept before anything is sent; its late id. `at`: when a
        reservation of it was tried, whose answer may have been lost; None: now.

        Unavailable when it cannot be kept: then nothing may be sent.
        """
        late_id = secrets.token_hex(8)
        with self._lock:
            self._in_flight.add(late_id)
        try:
            self._keep(
                {
                    "kind": _INTENT,
                    "late_id": late_id,
                    "author": _author_document(author),
                    "entry": _entry_document(entry),
                    "at": instant_text(at or self._clock.now()),
                }
            )
        except Unavailable:
            with self._lock:
                self._in_flight.discard(late_id)
            raise
        return late_id

    def end_late(self, late_id: str, outcome: WriteOutcome, answer: Mapping[str, object]) -> None:
        """What became of it. When even this cannot be kept, it counts as unknown and is asked."""
        record = {
            "kind": _OUTCOME,
            "late_id": late_id,
            "outcome": outcome.value,
            "answer": dict(answer),
        }
        try:
            self._keep(record)
        except Unavailable as error:
            log.error("the outcome of late write %s is not kept: %s", late_id, error.message)
        with self._lock:
            self._in_flight.discard(late_id)
        self.try_flush()

    # --- outcomes ------------------------------------------------------------------------------

    def record(self, outcomes: Learnt, wanted: Sequence[WantedStops] = ()) -> bool:
        """Write down what became of rows that are there, and the stops that go with it, as one;
        False when they wait for Postgres, so that another process does not know them yet."""
        if not outcomes and not wanted:
            return True
        at = self._clock.now()
        if self._told(lambda: self.writes.record_outcomes(outcomes, at, wanted)):
            return True
        for wish in wanted:  # before the outcome: one that is lost is asked for again
            self._keep_wish({"kind": _WANT, "wanted": to_document(wish)})
        rows = [
            [number, outcome.value, dict(answer)] for number, (outcome, answer) in outcomes.items()
        ]
        try:
            self._keep({"kind": _LEARNT, "rows": rows, "at": instant_text(at)})
        except Unavailable as error:  # the rows stay without an outcome: they are asked for again
            log.error("outcomes of %d writes are not kept: %s", len(rows), error.message)
        return False

    # --- wanted stops --------------------------------------------------------------------------

    def want(self, wanted: WantedStops) -> None:
        """Keep the wish; durable when this returns."""
        with hurried(WISH_PATIENCE_S):
            if self._told(lambda: self.stops.put(wanted)):
                return
        self._keep_wish({"kind": _WANT, "wanted": to_document(wanted)})

    def unwant(self, account_id: str, symbol: str, at: datetime) -> None:
        """Nothing is wanted for this symbol any more, from `at` on."""
        with hurried(WISH_PATIENCE_S):
            if self._told(lambda: self.stops.remove(account_id, symbol, at)):
                return
        self._keep_wish(
            {"kind": _UNWANT, "account_id": account_id, "symbol": symbol, "at": instant_text(at)}
        )

    # --- unprotected periods ---------------------------------------------------------------------

    def keep_periods(self, periods: Sequence[BarePeriod]) -> bool:
        """Write them down, in Postgres or the spool; False when neither took all of them: then
        they are to be told again."""
        if self._told(lambda: self.periods.put(periods)):
            return True
        try:
            for period in periods:
                self._keep({"kind": _BARE, "period": to_document(period)})
        except Unavailable as error:
            self._quiet.warning("periods", f"unprotected periods wait: {error.message}")
            return False
        return True

    # --- bringing home -------------------------------------------------------------------------

    def flush(self) -> None:
        """Bring to Postgres what waits, oldest first. Unavailable leaves the rest where it is."""
        self._bring_home(None)

    def try_flush(self) -> bool:
        """`flush`, for FLUSH_MAX_S and a record: a look at positions does not wait until all of a
        long outage is told. False when Postgres is away, or has not got all of it yet."""
        try:
            return self._bring_home(self._clock.monotonic() + FLUSH_MAX_S)
        except Unavailable as error:
            self._away(error)
            return False

    def _told(self, tell: Callable[[], None]) -> bool:
        """Whether Postgres has it, and all that waited before it."""
        if not self.try_flush():
            return False
        try:
            tell()
        except Unavailable as error:
            self._away(error)
            return False
        return True

    def _bring_home(self, until_s: float | None) -> bool:
        """Whether nothing that could be stored is left."""
        is_whole = True

        def store(records: Sequence[Record]) -> int:
            nonlocal is_whole
            complete = self._still_in_flight(records)
            taken = self._store(records, complete, until_s)
            is_whole = taken == complete
            return taken

        if self._spool is not None and self._spool.count:
            self._spool.drain(store)
        return is_whole

    def adopt(self) -> int:
        """Bring home what processes that died left behind; how many records. Unavailable."""
        return 0 if self._spool is None else self._spool.adopt(self._store_all)

    def _store_all(self, records: Sequence[Record]) -> int:
        return self._store(records, len(records), None)

    def close(self) -> None:
        """Flush once more and let go of the spool."""
        self.try_flush()
        if self._spool is not None:
            self._spool.close()

    def _still_in_flight(self, records: Sequence[Record]) -> int:
        """How many records from the front are complete: no answer of theirs is on its way."""
        with self._lock:
            flying = set(self._in_flight)
        for position, record in enumerate(records):
            if record.get("late_id") in flying:
                return position
        return len(records)

    def _store(self, records: Sequence[Record], count: int, until_s: float | None) -> int:
        """How many of the first `count` are stored when (real) `until_s` is over; one at least."""
        outcomes = {r.get("late_id"): r for r in records if r.get("kind") == _OUTCOME}
        for position, record in enumerate(records[:count]):
            if position and until_s is not None and self._clock.monotonic() >= until_s:
                return position
            try:
                self._store_one(record, outcomes.get(record.get("late_id")))
            except Unavailable:
                if until_s is None or not position:
                    raise
                return position  # what is stored is not told again
            except (InvalidInput, KeyError, TypeError, ValueError) as error:
                log.error("a spooled record cannot be understood and is left out: %r", error)
        return count

    def _store_one(self, record: Record, outcome: Record | None) -> None:
        kind = record.get("kind")
        if kind == _INTENT:
            author, entry = _author(record["author"]), _entry(record["entry"])
            late_id = str(record["late_id"])
            entry = WriteEntry(
                entry.kind, entry.symbol, {**entry.request, "late_id": late_id}, entry.client_id
            )
            result = WriteOutcome.UNKNOWN
            answer: Mapping[str, object] = {}
            if outcome is not None:
                result = WriteOutcome(str(outcome["outcome"]))
                answer = _mapping(outcome["answer"])
            self.writes.add_late(author, [(entry, result, answer, _instant(record["at"]))])
        elif kind == _LEARNT:
            rows = record["rows"]
            learnt = {
                int(number): (WriteOutcome(name), _mapping(answer))
                for number, name, answer in (rows if isinstance(rows, list) else [])
            }
            self.writes.record_outcomes(learnt, _instant(record["at"]))
        elif kind == _WANT:
            self.stops.put(from_document(WantedStops, record["wanted"], name="wanted"))
        elif kind == _UNWANT:
            at = _instant(record["at"])
            self.stops.remove(str(record["account_id"]), str(record["symbol"]), at)
        elif kind == _BARE:
            self.periods.put([from_document(BarePeriod, record["period"], name="period")])

    def _keep(self, record: Record) -> None:
        if self._spool is None:
            raise Unavailable("Postgres is away and there is no spool to keep a write in")
        self._spool.append(record)

    def _keep_wish(self, record: Record) -> None:
        try:
            self._keep(record)
        except Unavailable as error:  # it is kept in memory, and by the position's own stops
            log.error("a wanted stop is not written down: %s", error.message)

    def _away(self, error: Unavailable) -> None:
        self._quiet.warning("postgres", f"kept in the spool for now: {error.message}")


def _author_document(author: Author) -> dict[str, object]:
    return {
        "account_id": author.account_id,
        "session_id": author.session_id,
        "epoch": author.epoch,
        "gateway_id": author.gateway_id,
    }


def _entry_document(entry: WriteEntry) -> dict[str, object]:
    return {
        "kind": entry.kind.value,
        "symbol": entry.symbol,
        "client_id": entry.client_id,
        "request": dict(entry.request),
    }


def _author(value: object) -> Author:
    found = _mapping(value)
    return Author(
        str(found["account_id"]),
        str(found["session_id"]),
        int(str(found["epoch"])),
        str(found["gateway_id"]),
    )


def _entry(value: object) -> WriteEntry:
    found = _mapping(value)
    client_id = found["client_id"]
    return WriteEntry(
        WriteKind(str(found["kind"])),
        str(found["symbol"]),
        _mapping(found["request"]),
        None if client_id is None else str(client_id),
    )


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InvalidInput(f"an object was expected, got {type(value).__name__}")
    return value


def _instant(value: object) -> datetime:
    return parse_instant(str(value))
