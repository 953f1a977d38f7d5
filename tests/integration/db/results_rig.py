"""The results database as tests of its months, days and series use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import text

from module.db.database import Database
from module.db.platform_tables import Account, ActiveSession, User
from module.db.repositories.results import ResultsRepository
from module.db.repositories.results_series import ResultsSeries
from module.db.results_tables import ResultsBase
from module.db.results_upkeep import ResultsUpkeep, Retention, UpkeepReport
from module.model.results import GapCause, GapRow
from module.settings import Settings
from tests.fakes.result_rows import OWNER_ID, minute_rows, watched

MINUTE = timedelta(minutes=1)


def at(words: str) -> datetime:
    """`2026-11-21 07:15`, UTC."""
    return datetime.fromisoformat(words).replace(tzinfo=UTC)


class ResultsRig:
    """`finwatcher` with its writers, readers and upkeep; `finplatform` beside it."""

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings, "finwatcher", 6)
        self.platform = Database(settings, "finplatform", 2)
        self.store = ResultsRepository(self.database)
        self.series = ResultsSeries(self.database)

    def upkeep(self, now: datetime, retention: Retention | None = None) -> UpkeepReport:
        made = ResultsUpkeep(self.database, self.platform, retention or Retention())
        return made.run(now)

    def measure(self, session_id: str, minutes: Iterable[datetime], pv: Decimal | int = 0) -> None:
        """Rows whose value is `pv`, or tells the minute's place in the sequence."""
        batch = [
            (minute_rows(session_id, minute, pv or 10_000 + number), None)
            for number, minute in enumerate(minutes)
        ]
        assert all(item.written and not item.failed for item in self.store.store_minutes(batch))

    def miss(self, session_id: str, *minutes: datetime) -> None:
        """Gaps."""
        gaps = [
            GapRow(session_id, OWNER_ID, minute, GapCause.NOT_RUNNING, "", minute)
            for minute in minutes
        ]
        assert self.store.store_gaps(watched(session_id), gaps) == len(minutes)

    def register(
        self, session_id: str, trade_env: str, ended_at: datetime | None, started_at: datetime
    ) -> None:
        """The session as `finplatform` knows it, with an account of its own."""
        account_id = f"{session_id}-account"
        with self.platform.transaction() as db:
            if db.get(User, OWNER_ID) is None:
                db.add(User(user_id=OWNER_ID, name="ann", role="user", created_at=started_at))
                db.flush()
            db.add(
                Account(
                    account_id=account_id,
                    owner_id=OWNER_ID,
                    label=session_id,
                    venue="bitget",
                    market="futures",
                    market_id="bitget-live",
                    trade_env=trade_env,
                    base_url="https://api.bitget.com",
                    created_at=started_at,
                )
            )
            db.flush()
            db.add(
                ActiveSession(
                    session_id=session_id,
                    owner_id=OWNER_ID,
                    account_id=account_id,
                    state="running" if ended_at is None else "ended",
                    desired="running",
                    end_state="flat",
                    spec={},
                    started_at=started_at,
                    ends_at=started_at + timedelta(days=900),
                    ended_at=ended_at,
                )
            )

    def value(self, statement: str, **values: object) -> object:
        """The one value that a query returns."""
        with self.database.read() as db:
            found: object = db.execute(text(statement), values).scalar_one()
            return found

    def empty(self) -> None:
        """No rows anywhere; months stay."""
        names = ", ".join(
            table.name
            for table in ResultsBase.metadata.sorted_tables
            if table.name != "result_columns"
        )
        with self.database.transaction() as db:
            db.execute(text(f"TRUNCATE {names}"))
        with self.platform.transaction() as db:
            db.execute(text("TRUNCATE user_details, accounts, active_sessions CASCADE"))

    def close(self) -> None:
        self.database.close()
        self.platform.close()


@contextmanager
def results_rig(settings: Settings) -> Iterator[ResultsRig]:
    """An empty one."""
    rig = ResultsRig(settings)
    try:
        rig.empty()
        yield rig
    finally:
        rig.close()
