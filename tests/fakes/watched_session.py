"""A finwatcher and all it sees, in a test's hands."""

from __future__ import annotations

from pathlib import Path

from module.model.results import PortfolioRow
from monitoring.minute import Finwatcher, FinwatcherWiring
from tests.fakes.watched_account import (
    SESSION_ID,
    START,
    AccountExchange,
    KeptAlerts,
    MemoryResults,
    MemorySessions,
    WatchClock,
    minute,
    position,
    session,
)


class Watched:
    """A finwatcher with everything it sees in a test's hands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = WatchClock(START)
        self.exchange = AccountExchange(self.clock, positions=(position(),))
        self.sessions = MemorySessions(session())
        self.results = MemoryResults()
        self.alerts = KeptAlerts()
        self.watcher = self.new_process()

    def wiring(self) -> FinwatcherWiring:
        return FinwatcherWiring(
            session_id=SESSION_ID,
            clock=self.clock,
            exchange=self.exchange,
            sessions=self.sessions,
            results=self.results,
            alerts=self.alerts,
            folder=self.folder,
        )

    def new_process(self) -> Finwatcher:
        """A finwatcher that remembers nothing (the old one was killed)."""
        self.watcher = Finwatcher(self.wiring())
        return self.watcher

    def run_minutes(self, first: int, last: int) -> None:
        """Step at second 0 of each of these minutes."""
        for number in range(first, last + 1):
            self.clock.time = max(self.clock.time, minute(number))
            self.watcher.step()

    def portfolio(self, number: int) -> PortfolioRow:
        row = self.results.minutes[minute(number)].portfolio
        assert row is not None
        return row

    def assert_no_silent_gap(self, last: int) -> None:
        """Promise 5: a row or a gap for every minute up to `last`, never both."""
        rows, gaps = self.results.measured(), set(self.results.gap_rows)
        assert not rows & gaps
        assert rows | gaps >= {minute(number) for number in range(last + 1)}
