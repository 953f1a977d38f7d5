"""The months of the partitioned tables of `finwatcher`: made ahead, filled, dropped.

    upkeep ── make_month, drop_month ─► {minute tables, gaps}: one partition per UTC month
    writers ─► a month that has no partition yet: the default partition, until the next upkeep

Writers make nothing: what they write finds a place in any case, also with a clock that jumped a
year, and also where the writer's role may not create tables. All locks are waited for shortly, so
that nobody who writes waits long behind a partition that is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final, TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session

from module.db.database import Database
from module.db.results_tables import BY_MONTH, ResultsBase

T = TypeVar("T")
LOCK_TIMEOUT_MS: Final = 1000
PARTITIONED: Final[tuple[str, ...]] = tuple(
    table.name
    for table in ResultsBase.metadata.sorted_tables
    if table.dialect_options["postgresql"]["partition_by"] == BY_MONTH["postgresql_partition_by"]
)
_NAME: Final = re.compile(r"(?P<table>.+)_y(?P<year>\d{4})m(?P<month>\d{2})")


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """One partition: the rows of `table` with minute in [begin, end)."""

    table: str
    year: int
    month: int

    @classmethod
    def of(cls, table: str, minute: datetime) -> Month:
        """The month that a minute lies in."""
        at = minute.astimezone(UTC)
        return cls(table, at.year, at.month)

    @property
    def name(self) -> str:
        """The partition's own name."""
        return f"{self.table}_y{self.year:04}m{self.month:02}"

    @property
    def begin(self) -> datetime:
        """00:00 UTC of its first day."""
        return datetime.combine(date(self.year, self.month, 1), time.min, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """00:00 UTC of the day after its last."""
        return self.later(1).begin

    def later(self, months: int) -> Month:
        """The month so many months later."""
        number = self.year * 12 + self.month - 1 + months
        return Month(self.table, number // 12, number % 12 + 1)


def default_partition(table: str) -> str:
    """Where rows wait whose month has no partition."""
    return f"{table}_default"


def known_months(db: Session, table: str) -> list[Month]:
    """The partitions that there are, oldest first."""
    names = db.scalars(
        text(
            "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid "
            "WHERE inhparent = to_regclass(:table)"
        ),
        {"table": table},
    )
    found = (_NAME.fullmatch(name) for name in names)
    return sorted(
        Month(table, int(match["year"]), int(match["month"]))
        for match in found
        if match is not None and match["table"] == table
    )


def waiting_months(db: Session, table: str) -> list[Month]:
    """The months of the rows in the default partition, oldest first."""
    begins = db.scalars(
        text(
            "SELECT DISTINCT date_trunc('month', minute, 'UTC') "  # noqa: S608
            f"FROM {default_partition(table)}"
        )
    )
    return sorted(Month.of(table, begin) for begin in begins)


def make_month(database: Database, month: Month) -> int | None:
    """Make the partition, with the rows that waited for it: how many; None if it was there.

    Those who write to the default partition wait meanwhile, all others go on. Unavailable when a
    lock was not to be had: nothing was done.
    """

    def work(db: Session) -> int | None:
        if db.scalar(text("SELECT to_regclass(:name)"), {"name": month.name}) is not None:
            return None
        waiting = default_partition(month.table)
        db.execute(text(f"LOCK TABLE {waiting} IN ACCESS EXCLUSIVE MODE"))
        # somebody may have made it while we waited: `LOCK` gave us a new look at it
        if db.scalar(text("SELECT to_regclass(:name)"), {"name": month.name}) is not None:
            return None
        db.execute(
            text(
                f"CREATE TABLE {month.name} (LIKE {month.table} INCLUDING DEFAULTS "
                "INCLUDING CONSTRAINTS INCLUDING INDEXES)"
            )
        )
        bounds = {"begin": month.begin, "end": month.end}
        moved = db.execute(
            text(
                f"WITH moved AS (DELETE FROM {waiting} "  # noqa: S608
                "WHERE minute >= :begin AND minute < :end RETURNING *), "
                f"placed AS (INSERT INTO {month.name} SELECT * FROM moved RETURNING 1) "
                "SELECT count(*) FROM placed"
            ),
            bounds,
        ).scalar_one()
        db.execute(
            text(
                f"ALTER TABLE {month.table} ATTACH PARTITION {month.name} FOR VALUES "
                f"FROM ('{month.begin.isoformat()}') TO ('{month.end.isoformat()}')"
            )
        )
        return int(moved)

    return _locking(database, work)


def drop_month(database: Database, month: Month, may_go: Callable[[Session], bool]) -> bool:
    """Drop the partition if `may_go` still says so once nobody else can write to it.

    Unavailable when a lock was not to be had: nothing was done.
    """

    def work(db: Session) -> bool:
        if db.scalar(text("SELECT to_regclass(:name)"), {"name": month.name}) is None:
            return False
        db.execute(text(f"LOCK TABLE ONLY {month.table} IN ACCESS EXCLUSIVE MODE"))
        if not may_go(db):
            return False
        db.execute(text(f"DROP TABLE {month.name}"))
        return True

    return _locking(database, work)


def sessions_in(db: Session, table: str) -> set[str]:
    """Whose rows a table or partition holds: one step into its key per session."""
    # loose index scan: Postgres would read every row for DISTINCT
    return set(
        db.scalars(
            text(
                "WITH RECURSIVE found AS ("  # noqa: S608
                f"(SELECT session_id FROM {table} ORDER BY session_id LIMIT 1) "
                f"UNION ALL SELECT (SELECT t.session_id FROM {table} AS t "
                "WHERE t.session_id > found.session_id ORDER BY t.session_id LIMIT 1) "
                "FROM found WHERE found.session_id IS NOT NULL) "
                "SELECT session_id FROM found WHERE session_id IS NOT NULL"
            )
        )
    )


def _locking(database: Database, work: Callable[[Session], T]) -> T:
    def bounded(db: Session) -> T:
        db.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
        return work(db)

    return database.run_idempotent(bounded)
