"""`python -m monitoring`: the finwatcher without a session host. Composition root.

--session ID   watches one session until it is over (Jobs, debugging)
--all          one pass over all sessions (a CronJob's form); ends at once without any
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from module.clock import SystemClock
from module.db.database import Database
from module.db.repositories.fleet import FleetRepository
from module.db.repositories.results import ResultsRepository
from module.db.repositories.sessions import SessionRepository
from module.exchange.gateway_client import GatewayExchange
from module.files.session_folder import make_session_folder, session_folder
from module.files.watch_note import passes_folder
from module.logs import configure_logs, get_logger
from module.model.results import WatchedSession
from module.ports import Clock
from module.security.tokens import mint_grant, session_grant
from module.settings import Settings
from module.wire.service_http import Connections
from monitoring.finwatcher import FinwatcherWiring, run_finwatcher
from monitoring.fleet import Fleet
from monitoring.fleet_storing import FleetWiring
from monitoring.lanes import ThreadLanes
from trading.bootstrap import build_alerts, build_clock, participant

LANES = 32
ANSWER_TIMEOUT_S = 10.0
CONNECT_PATIENCE_S = 3.0
_log = get_logger("monitoring.main")


class Installation:
    """The databases and the clock that the watchers of this process share."""

    def __init__(self, settings: Settings, clock: SystemClock, connections: int = 1) -> None:
        self.settings = settings
        self.clock = clock
        self.platform = Database(settings, "finplatform", connections)
        self.finwatcher = Database(settings, "finwatcher", connections)
        self.sessions = SessionRepository(self.platform)

    def wiring(self, session_id: str) -> FinwatcherWiring:
        """What a finwatcher of this session needs."""
        session = self.sessions.watched(session_id)
        return FinwatcherWiring(
            session_id=session_id,
            clock=self.clock,
            exchange=GatewayExchange(
                self.settings.gateway_url, session.account_id, self._token(session), self.clock
            ),
            sessions=self.sessions,
            results=ResultsRepository(self.finwatcher),
            alerts=build_alerts(self.settings, self.platform, self.clock),
            folder=make_session_folder(self.settings.data_dir, session_id),
            days_per_year=self.settings.days_per_year,
        )

    def fleet(self, http: Connections) -> FleetWiring:
        """What a pass over all sessions needs; its calls share the connections."""

        def open_account(session: WatchedSession, clock: Clock) -> GatewayExchange:
            return GatewayExchange(
                self.settings.gateway_url,
                session.account_id,
                self._token(session),
                clock,
                connect_patience_s=CONNECT_PATIENCE_S,
                answer_timeout_s=ANSWER_TIMEOUT_S,
                connections=http,
            )

        return FleetWiring(
            clock=self.clock,
            store=FleetRepository(self.platform, self.finwatcher),
            results=ResultsRepository(self.finwatcher),
            registry=self.sessions,
            open_account=open_account,
            alerts=build_alerts(self.settings, self.platform, self.clock),
            folder=passes_folder(self.settings.data_dir, self.settings.finwatcher_dir),
            lanes=lambda: ThreadLanes(LANES, self.clock),
            session_folder=partial(session_folder, self.settings.data_dir),
            days_per_year=self.settings.days_per_year,
        )

    def _token(self, session: WatchedSession) -> str:
        grant = session_grant(session.account_id, session.session_id, session.owner_id)
        return mint_grant(grant, self.settings.secret("token_key"))

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
    """One pass; 0, or 1 when minutes were neither measured nor recorded as gaps."""
    installation = Installation(settings, build_clock(settings, None), connections=4)
    http = Connections(LANES)
    with ExitStack() as stack:
        stack.callback(installation.close)
        stack.callback(http.close)
        begun_s = installation.clock.monotonic()
        report = Fleet(installation.fleet(http)).step()
        if report.sessions:
            _log.info(
                "pass done",
                minute=f"{report.minute:%H:%M}",
                took_s=round(installation.clock.monotonic() - begun_s, 2),
                sessions=report.sessions,
                measured=report.measured,
                gaps=report.gaps,
                rows=report.rows,
                history_asked=report.history_asked,
                spooled=report.spooled,
                failed=report.failed,
            )
    return 1 if report.failed or report.lost else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--session", metavar="ID", help="watch one session until it is over")
    form.add_argument("--all", action="store_true", help="one pass over all sessions")
    chosen = parser.parse_args(arguments)
    settings = Settings()
    configure_logs("finwatcher", settings.log_level)
    return measure_all(settings) if chosen.all else watch(settings, chosen.session)


if __name__ == "__main__":
    sys.exit(main())
