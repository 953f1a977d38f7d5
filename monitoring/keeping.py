"""Where a minute's rows go: into Postgres, or into the local spool while it is away.

monitoring.minute ── keep_minute, keep_history, keep_gaps ─► RowKeeper ─► results store
                                                              ├─ away ─► spool ── drain ─►
                                                              └─ forgotten ─► stored again
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import Enum
from functools import partial

from module.logs import get_logger
from module.model.errors import Unavailable
from module.model.market import MarketType
from module.model.results import GapRow, HistoryRows, MinuteRows, WatchedSession
from monitoring.gaps import MissingMinutes
from monitoring.ports import ResultsStore
from monitoring.spool import Spool, SpoolRecord
from monitoring.stacks import Stacks
from monitoring.troubles import Troubles
from monitoring.unsettled import Unsettled

MINUTE = timedelta(minutes=1)
_log = get_logger("monitoring.finwatcher")


class Kept(Enum):
    """Where a record is after a step."""

    IN_DATABASE = "database"
    LOCALLY = "spool"
    NO_ROOM = "no room"
    NOWHERE = "nowhere"

    @property
    def is_kept(self) -> bool:
        """Whether it comes, or has come, to the database."""
        return self in (Kept.IN_DATABASE, Kept.LOCALLY)


class RowKeeper:
    """One session's rows on their way; what fails is told to `troubles` by the part's name."""

    def __init__(
        self,
        results: ResultsStore,
        spool: Spool,
        unsettled: Unsettled,
        missing: MissingMinutes,
        troubles: Troubles,
    ) -> None:
        self._results = results
        self._spool = spool
        self._unsettled = unsettled
        self._missing = missing
        self._troubles = troubles

    @property
    def waits(self) -> bool:
        """Whether records wait in the spool."""
        return bool(self._spool)

    def waiting(self) -> tuple[int, datetime | None]:
        """How many minutes wait in the spool, and the oldest of them."""
        return self._spool.waiting()

    def keep_minute(
        self, rows: MinuteRows, state: Mapping[str, object] | None
    ) -> tuple[Kept, bool]:
        """Where the minute's rows are now, and whether the minute is this writer's."""
        refused: set[str] = set()
        is_ours = True

        def store() -> None:
            nonlocal is_ours
            stored = self._results.store_minute(rows, state)
            is_ours = stored.written
            if not is_ours:
                _log.info("minute has another writer", minute=str(rows.minute))
            refused.update(stored.failed)
            self.say_refused(rows, stored.failed)
            if is_ours and "portfolio" not in refused:
                self._note(rows)

        kept = self._troubles.guard("store", lambda: self._keep(rows, store)) or Kept.NOWHERE
        if rows.portfolio is None or "portfolio" in refused:
            return Kept.NOWHERE, is_ours
        return kept, is_ours

    def keep_history(self, part: str, rows: HistoryRows) -> Kept:
        """Where the historical rows of `part` are now."""

        def store() -> Kept:
            kept = self._keep(rows, lambda: self._results.store_history(rows))
            if kept is Kept.IN_DATABASE:
                self._note(rows)
            return kept

        return self._troubles.guard(part, store) or Kept.NOWHERE

    def keep_gaps(self, session: WatchedSession, rows: list[GapRow]) -> int:
        """Record gaps (a minute that has a row keeps it); how many there are, spooled ones too.
        What is kept nowhere stays due, with its cause."""
        kept = 0
        try:
            if not self._spool:
                try:
                    stored = self._results.store_gaps(session, rows)
                except Unavailable as error:
                    self._troubles.say_spooling(error)
                else:
                    kept = len(rows)
                    for row in rows:
                        self._note(row)
                    return stored
            while kept < len(rows) and self._spool.append(rows[kept]):
                kept += 1
            if kept < len(rows):
                self._say_no_room()
            return kept
        finally:
            self._missing.put_back(rows[kept:])

    def drain(self, session: WatchedSession) -> bool:
        """Store what waits, with its original times; what cannot be stored stays.

        Whether a minute among what was stored has no indicator row.
        """
        lacking = False
        if not self._spool:
            return lacking

        def store(record: SpoolRecord) -> None:
            nonlocal lacking
            self._write(session, record)
            if isinstance(record, MinuteRows):
                lacking |= record.portfolio is not None and record.indicators is None

        try:
            stored = self._spool.drain(store)
        except Unavailable as error:
            _log.warning("rows stay in the spool", error=error.message)
            return lacking
        except Exception as error:  # noqa: BLE001 (it stays in the spool, and is said)
            _log.exception("a spooled record cannot be stored")
            self._troubles.part_failed("Spool", f"{type(error).__name__}: {error}")
            return lacking
        self._troubles.spooling = False
        _log.info("spooled records filled in", records=stored)
        return lacking

    def look_for_losses(self, session: WatchedSession, last: datetime) -> list[datetime] | None:
        """What was stored lately and is not there any more is stored again: a replica that took
        over has missed it. The minutes up to `last` of which nothing is known; None while Postgres
        cannot be asked."""
        sure = self._unsettled.sure_until
        if sure is None or self._spool:
            return None
        there = self._troubles.load(
            "stored minutes", lambda: self._results.kept_minutes(session, sure + MINUTE, last)
        )
        if there is None:
            return None

        def store_again(record: SpoolRecord) -> None:
            _log.warning("stored rows were lost; storing them again")
            self._troubles.guard(
                "store again", partial(self._keep, record, partial(self._write, session, record))
            )

        unknown = self._unsettled.look(there, last, store_again)
        for rows in self._unsettled.histories_to_repeat():
            self._troubles.guard(
                "history again", partial(self._keep, rows, partial(self._write, session, rows))
            )
        return unknown

    def _keep(self, record: SpoolRecord, store: Callable[[], object]) -> Kept:
        """Store `record`, or spool it while Postgres is away. Order is kept: while older records
        wait, new ones queue behind them."""
        if not self._spool:
            try:
                store()
            except Unavailable as error:
                self._troubles.say_spooling(error)
            else:
                self._troubles.spooling = False
                return Kept.IN_DATABASE
        if self._spool.append(record):
            return Kept.LOCALLY
        self._say_no_room()
        return Kept.NO_ROOM

    def _say_no_room(self) -> None:
        self._troubles.part_failed("Spool", "the local spool takes no more; minutes become gaps")

    def _note(self, record: SpoolRecord) -> None:
        """It has just been committed."""
        self._unsettled.note(record)
        self._missing.stored(record)

    def _write(self, session: WatchedSession, record: SpoolRecord) -> None:
        """Store a record of an earlier minute."""
        failed: Mapping[str, str] = {}
        if isinstance(record, MinuteRows):
            failed = self._results.store_minute(record).failed
            self.say_refused(record, failed)
        elif isinstance(record, HistoryRows):
            if self._results.store_history(record) == 0:
                return  # it was there: nothing that could be forgotten any more
        else:
            self._results.store_gaps(session, (record,))
        if "portfolio" not in failed:
            self._note(record)

    def say_refused(self, rows: MinuteRows, failed: Mapping[str, str]) -> None:
        """Alert what the database refused, by the part's name."""
        for part, error in failed.items():
            self._troubles.part_failed(part_name(rows.market, part), error)


def part_name(market: MarketType, rows: str) -> str:
    """The Stack class that measures these `rows` of a minute: symbols, portfolio or indicators."""
    stacks = Stacks.of(market)
    names = {
        "symbols": stacks.result.name,
        "portfolio": stacks.portfolio.name,
        "indicators": stacks.indicators.name,
    }
    return names.get(rows, rows)
