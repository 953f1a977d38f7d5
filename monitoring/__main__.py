"""`python -m monitoring`: the finwatcher without a session host. Composition root.

--session ID   watches one session until it is over (Jobs, debugging)
--all          one pass over all active sessions (a CronJob's form); ends at once without any
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta

from module.clock import SystemClock
from module.db.database import Database
from module.db.repositories.results import ResultsRepository
from module.db.repositories.sessions import SessionRepository
from module.exchange.gateway_client import GatewayExchange
from module.files.session_folder import make_session_folder
from module.logs import configure_logs, get_logger
from module.model.errors import AifapError
from module.security.tokens import mint_grant, session_grant
from module.settings import Settings
from monitoring.finwatcher import Finwatcher, FinwatcherWiring, run_finwatcher
from trading.bootstrap import build_alerts, build_clock, participant

ENDED_LATELY = timedelta(minutes=2)
ENDED_MAX = 50
_log = get_logger("monitoring.main")


class Installation:
    """The databases and the clock that the watchers of this process share."""

    def __init__(self, settings: Settings, clock: SystemClock) -> None:
        self.settings = settings
        self.clock = clock
        self.platform = Database(settings, "finplatform", 1)
        self.finwatcher = Database(settings, "finwatcher", 1)
        self.sessions = SessionRepository(self.platform)

    def wiring(self, session_id: str) -> FinwatcherWiring:
        """What a finwatcher of this session needs."""
        session = self.sessions.watched(session_id)
        grant = session_grant(session.account_id, session_id, session.owner_id)
        token = mint_grant(grant, self.settings.secret("token_key"))
        return FinwatcherWiring(
            session_id=session_id,
            clock=self.clock,
            exchange=GatewayExchange(
                self.settings.gateway_url, session.account_id, token, self.clock
            ),
            sessions=self.sessions,
            results=ResultsRepository(self.finwatcher),
            alerts=build_alerts(self.settings, self.platform, self.clock),
            folder=make_session_folder(self.settings.data_dir, session_id),
        )

    def to_measure(self) -> list[str]:
        """Active sessions, and those that ended so lately that their last row is due."""
        now = self.clock.now()
        return [
            record.session_id
            for record in self.sessions.list_for_owner(None, over_max=ENDED_MAX)
            if record.ended_at is None or now - record.ended_at < ENDED_LATELY
        ]

    def close(self) -> None:
        """Give the connections back."""
        self.platform.close()
        self.finwatcher.close()
        self.clock.close()


def watch(settings: Settings, session_id: str) -> int:
    """Watch one session until it is over or SIGTERM comes; 0."""
    installation = Installation(
        settings, build_clock(settings, participant(session_id, "finwatcher"))
    )
    with ExitStack() as stack:
        stack.callback(installation.close)
        never, keep_open = os.pipe()
        stack.callback(os.close, never)
        stack.callback(os.close, keep_open)
        run_finwatcher(installation.wiring(session_id), never)
    return 0


def measure_all(settings: Settings) -> int:
    """One row for each active session; 0, or 1 when one of them could not be measured."""
    installation = Installation(settings, build_clock(settings, None))
    failed = 0
    with ExitStack() as stack:
        stack.callback(installation.close)
        for session_id in installation.to_measure():
            try:
                report = Finwatcher(installation.wiring(session_id)).step()
            except AifapError as error:
                _log.error("not measured", session_id=session_id, error=error.message)
                failed += 1
            else:
                failed += bool(report.failed) or not (report.measured or report.session_over)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--session", metavar="ID", help="watch one session until it is over")
    form.add_argument("--all", action="store_true", help="one pass over all active sessions")
    chosen = parser.parse_args(arguments)
    settings = Settings()
    configure_logs("finwatcher", settings.log_level)
    return measure_all(settings) if chosen.all else watch(settings, chosen.session)


if __name__ == "__main__":
    sys.exit(main())
