"""`python -m module.db.results_upkeep`: keeps the minute tables in months, days and bounds.

    1 months ahead (and for what waits without one) ─► 2 days rolled up ─► 3 what is old goes

It is run once a day (a CronJob, or the standalone installation), may be run at any time and as
often as one likes, by several at once (one works, the others leave), while finwatchers write. What
it could not do because somebody held a lock is named, and done the next time.

A session's minutes go as a whole: `minutes_kept_days` after its last one, once it is over; those of
a paper session, with its fills and closed positions, `paper_kept_days` after it ended. Its days
stay for ever. A month in which nobody has anything left is dropped in one piece.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.platform_tables import Account, ActiveSession
from module.db.repositories.session_records import OVER
from module.db.results_partitions import (
    PARTITIONED,
    Month,
    default_partition,
    drop_month,
    known_months,
    make_month,
    sessions_in,
    waiting_months,
)
from module.db.results_rollups import day_of, roll_up
from module.db.results_tables import positions_table, transactions_table
from module.model.accounts import TradeEnv
from module.model.errors import Unavailable
from module.model.market import MarketType

if TYPE_CHECKING:
    from module.settings import Settings

MONTHS_AHEAD: Final = 2
MONTHS_MADE_MAX: Final = 60  # per table and run; a clock gone wild makes no thousands
STATEMENT_TIMEOUT_MS: Final = 300_000
UPKEEP_LOCK: Final = 0x6169_6661_7002
HISTORIES: Final = tuple(
    table(market).name for market in MarketType for table in (transactions_table, positions_table)
)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept."""

    minutes: timedelta = timedelta(days=400)
    paper: timedelta = timedelta(days=90)

    @classmethod
    def of(cls, settings: Settings) -> Retention:
        """As the installation wants it."""
        return cls(
            timedelta(days=settings.minutes_kept_days), timedelta(days=settings.paper_kept_days)
        )


@dataclass(slots=True)
class UpkeepReport:
    """What one run did. `postponed` names what a lock kept it from."""

    busy: bool = False
    made: list[str] = field(default_factory=list)
    moved_rows: int = 0
    days_rolled: int = 0
    dropped: list[str] = field(default_factory=list)
    expired_sessions: int = 0
    deleted_rows: int = 0
    postponed: list[str] = field(default_factory=list)


class ResultsUpkeep:
    """One run over the `finwatcher` database; `platform` tells which sessions live and are paper.

    Unavailable while Postgres is away: what was done stays done, the next run does the rest.
    """

    def __init__(self, finwatcher: Database, platform: Database, retention: Retention) -> None:
        self._finwatcher = finwatcher
        self._platform = platform
        self._retention = retention

    def run(self, now: datetime) -> UpkeepReport:
        """Do what is due at `now` (world time); `busy` when another process is at it."""
        report = UpkeepReport()
        with self._finwatcher.hold_lock(UPKEEP_LOCK) as alone:
            if not alone:
                report.busy = True
                return report
            self._make_months(now, report)
            report.days_rolled = roll_up(self._finwatcher, day_of(now))
            self._expire(now, report)
        return report

    # --- months ---------------------------------------------------------------------------------

    def _make_months(self, now: datetime, report: UpkeepReport) -> None:
        for table in PARTITIONED:
            this = Month.of(table, now)
            with self._finwatcher.read() as db:
                waiting = waiting_months(db, table)
                known = set(known_months(db, table))
            ahead = [this.later(number) for number in range(MONTHS_AHEAD + 1)]
            for month in [*ahead, *waiting][:MONTHS_MADE_MAX]:
                if month in known:
                    continue
                try:
                    moved = make_month(self._finwatcher, month)
                except Unavailable as error:
                    report.postponed.append(f"{month.name}: {error.message}")
                    continue
                if moved is not None:
                    report.made.append(month.name)
                    report.moved_rows += moved

    # --- retention ------------------------------------------------------------------------------

    def _expire(self, now: datetime, report: UpkeepReport) -> None:
        kept = _Kept.look(self._finwatcher)
        expired, expired_paper = self._expired(now, kept)
        for month in sorted(kept.by_month):
            there = kept.by_month[month]
            # an empty month may still be written to, by a spool that is drained late
            is_over = month.end <= (now if there else now - self._retention.minutes)
            if there <= expired and is_over:
                self._drop(month, expired, report)
            else:
                for session_id in sorted(there & expired):
                    report.deleted_rows += _delete(self._finwatcher, month.name, session_id)
        for table in HISTORIES:
            for session_id in sorted(kept.by_history[table] & expired_paper):
                report.deleted_rows += _delete(self._finwatcher, table, session_id)
        for session_id in sorted(kept.states & expired):
            _delete(self._finwatcher, "finwatcher_state", session_id)
        report.expired_sessions = len(expired & kept.sessions())

    def _expired(self, now: datetime, kept: _Kept) -> tuple[set[str], set[str]]:
        """Whose minutes may go, and of them the paper sessions.

        Age counts from the clock, or from the newest month that has rows where that is earlier: a
        clock that runs ahead of everything that was ever measured takes nothing away.
        """
        as_of = min(now, max((month.end for month in kept.newest.values()), default=now))
        before, paper_before = as_of - self._retention.minutes, as_of - self._retention.paper
        living, paper_ended = self._sessions()
        old = {name for name, month in kept.newest.items() if month.end <= before}
        old_paper = {
            name
            for name, ended_at in paper_ended.items()
            if ended_at is not None and ended_at <= paper_before
        }
        hindered = living | kept.waiting | kept.due
        return (old | old_paper) - hindered, old_paper - hindered

    def _sessions(self) -> tuple[set[str], dict[str, datetime | None]]:
        """Sessions that are not over; paper sessions that are, and when they ended."""
        with self._platform.read() as db:
            rows = db.execute(
                select(
                    ActiveSession.session_id,
                    ActiveSession.state,
                    ActiveSession.ended_at,
                    Account.trade_env,
                ).join(Account, Account.account_id == ActiveSession.account_id)
            ).all()
        living = {row.session_id for row in rows if row.state not in OVER}
        paper = {
            row.session_id: row.ended_at
            for row in rows
            if row.trade_env == TradeEnv.PAPER and row.session_id not in living
        }
        return living, paper

    def _drop(self, month: Month, expired: set[str], report: UpkeepReport) -> None:
        def may_go(db: Session) -> bool:
            return sessions_in(db, month.name) <= expired

        try:
            if drop_month(self._finwatcher, month, may_go):
                report.dropped.append(month.name)
        except Unavailable as error:
            report.postponed.append(f"{month.name}: {error.message}")


@dataclass(frozen=True, slots=True)
class _Kept:
    """Which sessions have rows where. `waiting`: in a default partition; `due`: with days that are
    not rolled up; `newest`: the newest month that a session has rows in."""

    by_month: dict[Month, set[str]]
    by_history: dict[str, set[str]]
    states: set[str]
    waiting: set[str]
    due: set[str]
    newest: dict[str, Month]

    @classmethod
    def look(cls, database: Database) -> _Kept:
        """What there is now."""
        with database.read() as db:
            by_month = {
                month: sessions_in(db, month.name)
                for table in PARTITIONED
                for month in known_months(db, table)
            }
            by_history = {table: sessions_in(db, table) for table in HISTORIES}
            states = sessions_in(db, "finwatcher_state")
            waiting = {
                name for table in PARTITIONED for name in sessions_in(db, default_partition(table))
            }
            due = sessions_in(db, "result_days_due")
        newest: dict[str, Month] = {}
        for month in sorted(by_month, key=lambda item: item.begin):
            newest.update(dict.fromkeys(by_month[month], month))
        return cls(by_month, by_history, states, waiting, due, newest)

    def sessions(self) -> set[str]:
        """All of them."""
        return set().union(*self.by_month.values(), *self.by_history.values(), self.states)


def _delete(database: Database, table: str, session_id: str) -> int:
    """All rows of one session in one table or partition; how many those were."""

    def work(db: Session) -> int:
        gone = db.execute(
            text(
                f"WITH gone AS (DELETE FROM {table} WHERE session_id = :name RETURNING 1) "  # noqa: S608
                "SELECT count(*) FROM gone"
            ),
            {"name": session_id},
        )
        return int(gone.scalar_one())

    return database.run_idempotent(work)


def main(arguments: Sequence[str] | None = None) -> int:
    """One run with the settings of this installation; 1 when something had to be postponed."""
    from module.clock import SystemClock, WorldClock
    from module.logs import configure_logs, get_logger
    from module.settings import Settings

    parser = argparse.ArgumentParser(prog="python -m module.db.results_upkeep", description=__doc__)
    parser.parse_args(arguments)
    settings = Settings()
    configure_logs("results-upkeep", settings.log_level)
    clock = SystemClock()
    if settings.world_clock:
        host, _, port = settings.world_clock.rpartition(":")
        clock = WorldClock(host, int(port), None)
    finwatcher = Database(settings, "finwatcher", 2, statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    platform = Database(settings, "finplatform", 1)
    try:
        report = ResultsUpkeep(finwatcher, platform, Retention.of(settings)).run(clock.now())
    finally:
        clock.close()
        finwatcher.close()
        platform.close()
    get_logger("results.upkeep").info("done", **dataclasses.asdict(report))
    return 1 if report.postponed else 0


if __name__ == "__main__":
    sys.exit(main())
