"""What a session's fills and closed positions add up to within a period, for comparisons."""

from __future__ import annotations

from datetime import datetime

from module.db.database import Database
from module.db.repositories.results_history import trade_sums
from module.model.results import TradeSums, WatchedSession


class ResultsPeriods:
    """Reads of `finwatcher`; Unavailable while Postgres is away. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def trades(self, session: WatchedSession, after: datetime, until: datetime) -> TradeSums:
        """The sums over (after, until]: by the time a position closed, and by the time of a fill.

        Of the same statement as a session's sums since its start.
        """
        with self._database.read() as db:
            return trade_sums(db, session, after, until)
