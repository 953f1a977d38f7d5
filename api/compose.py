"""Composition root of the API processes: settings in, one wired application out.

`python -m api.compose --port N` serves the doors that `Settings.services` names with one uvicorn
process (gateway and market must be one process each; the platform may have several workers, and
the process that only watches over them loads nothing of what they serve).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from module.life_line import end_with_parent, end_with_server
from module.settings import Settings

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from api.wiring import ApiWiring, Background, Platform
    from module.clock import SystemClock
    from module.db.database import Database
    from module.gateway.service import Gateway

GRACEFUL_STOP_S = 5
STARTUP_FAILED = 3
_log = logging.getLogger(__name__)


def build_wiring(settings: Settings) -> ApiWiring:
    """Everything the services of this process need; nothing is connected before it is used."""
    from api.wiring import ApiWiring, Services
    from module.db.database import Database
    from trading.bootstrap import build_clock

    clock = build_clock(settings, None)
    finplatform = Database(settings, "finplatform")
    background: list[Background] = []
    gateway = market = platform = None
    probes: dict[str, Callable[[], bool | None]] = {"postgres": finplatform.ping}
    neighbours: dict[str, Callable[[], bool | None]] = {}
    vital: dict[str, Callable[[], bool]] = {}
    if "gateway" in settings.services:
        gateway = _gateway(settings, finplatform, clock)
        background.append(gateway)
        probes["protection"] = vital["protection"] = gateway.is_alive
    if "market" in settings.services:
        from module.db.repositories.candles import PostgresCandles
        from module.market.collector import PARTICIPANT, CollectorThread
        from module.market.gateway_source import GatewayCandles
        from module.market.service import MarketService
        from module.security.tokens import mint_grant, service_grant

        store = PostgresCandles(Database(settings, "fin_crypto"))
        token = mint_grant(service_grant("market"), settings.secret("token_key"))
        source = GatewayCandles(settings.gateway_url, settings.market_id, token)
        market = MarketService(settings.market_id, store, source, clock)
        collector = CollectorThread(market, store, lambda: build_clock(settings, PARTICIPANT))
        background.append(collector)
        probes["market"] = market.ready
        vital["collector"] = collector.is_alive
    if "platform" in settings.services:
        platform = _platform(settings, finplatform, clock, neighbours, background)
    return ApiWiring(
        settings=settings,
        clock=clock,
        platform=platform,
        services=Services(gateway=gateway, market=market),
        token_key=settings.secret("token_key"),
        probes=probes,
        neighbours=neighbours,
        vital=vital,
        background=tuple(background),
    )


def _gateway(settings: Settings, finplatform: Database, clock: SystemClock) -> Gateway:
    from module.gateway.assembly import assemble_gateway
    from module.gateway.protection import PARTICIPANT
    from trading.bootstrap import build_alerts, build_clock

    return assemble_gateway(
        settings,
        finplatform,
        clock=clock,
        make_loop_clock=lambda: build_clock(settings, PARTICIPANT),
        alerts=build_alerts(settings, finplatform, clock),
    )


def _platform(
    settings: Settings,
    finplatform: Database,
    clock: SystemClock,
    neighbours: dict[str, Callable[[], bool | None]],
    background: list[Background],
) -> Platform:
    from api.preview_wiring import GatewayPreviews
    from api.wiring import Platform
    from module.alerts.dispatcher import build_dispatcher
    from module.clock import SystemClock as RealClock
    from module.db.database import Database
    from module.db.repositories.alerts import AlertRepository
    from module.exchange.gateway_admin import GatewayAdmin
    from module.launch.local import LocalLauncher
    from module.security.tokens import mint_grant, service_grant
    from trading.bootstrap import build_alerts

    launcher = LocalLauncher(settings, RealClock())
    token = mint_grant(service_grant("platform"), settings.secret("token_key"))
    admin = GatewayAdmin(settings.gateway_url, token)
    alerts = build_alerts(settings, finplatform, clock)
    background.append(build_dispatcher(settings, AlertRepository(finplatform), RealClock(), alerts))
    # Without them much still works, the page and a wish to stop first of all.
    neighbours["gateway"] = admin.ready
    neighbours["session-host"] = launcher.host_answers
    return Platform(
        finplatform=finplatform,
        finwatcher=Database(settings, "finwatcher"),
        launcher=launcher,
        accounts=admin,
        alerts=alerts,
        previews=GatewayPreviews(settings, finplatform, clock),
    )


def application() -> FastAPI:
    """The application of this process's settings (`uvicorn --factory api.compose:application`)."""
    from api.app import create_app
    from module.logs import configure_logs

    end_with_server()
    settings = Settings()
    configure_logs("+".join(settings.services), settings.log_level)
    return create_app(build_wiring(settings))


def share_counters(folder: Path) -> None:
    """Have the workers of this process count together, in files of `folder` that it empties."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m api.compose")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    end_with_parent()
    settings = Settings()
    if options.workers > 1 and settings.services != ("platform",):
        parser.error("only the platform may have several workers")
    if options.workers > 1:
        share_counters(settings.data_dir / "run" / "metrics")
    import uvicorn

    config = uvicorn.Config(
        "api.compose:application",
        factory=True,
        host=options.host,
        port=options.port,
        workers=options.workers,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_STOP_S,
        server_header=False,
    )
    port = settings.dashboard_port if "platform" in settings.services else 0
    return _serve(config, None if port == options.port else second_socket(options.host, port))


def second_socket(host: str, port: int) -> socket.socket | None:
    """The dashboard's port, bound; None for port 0, and where somebody else has it (it is logged:
    the page is then at the first port alone)."""
    if not port:
        return None
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        _log.warning("the dashboard has no port of its own: %s:%d: %s", host, port, error.strerror)
        return None
    listener.set_inheritable(True)
    return listener


def _serve(config: uvicorn.Config, second: socket.socket | None) -> int:
    """The same doors at every socket, in one process or several; as `uvicorn.run` does it, which
    knows one socket."""
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    server = uvicorn.Server(config)
    sockets = [config.bind_socket(), *([second] if second else [])]
    with contextlib.suppress(KeyboardInterrupt):
        if config.workers > 1:
            Multiprocess(config, sockets=sockets).run()
            return 0
        server.run(sockets=sockets)
    return 0 if server.started else STARTUP_FAILED


if __name__ == "__main__":
    sys.exit(main())
