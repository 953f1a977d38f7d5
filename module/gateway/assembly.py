"""Puts a real gateway together from settings: Postgres, ccxt, the paper exchange's control door.

A composition root of its own, so that `trading/bootstrap.py` and a test build the same thing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from module.db.database import Database
from module.db.repositories.accounts import AccountLeases, AccountRepository
from module.db.repositories.gateway_writes import WriteRepository
from module.db.repositories.unprotected_periods import UnprotectedPeriodRepository
from module.db.repositories.wanted_stops import WantedStopRepository
from module.exchange.bitget_venue import CcxtVenues
from module.exchange.paper_control import PaperControl
from module.gateway.account_opening import OpeningRules
from module.gateway.moment import MomentClock
from module.gateway.service import Gateway, GatewayRules, GatewayStores
from module.ports import AlertSink, Clock
from module.security.credentials import KeyRing
from module.security.key_files import KeyFolder
from module.settings import Settings

LIVE_MARKET_ID = "bitget-live"
LIVE_VENUE_URL = "https://api.bitget.com"


def assemble_gateway(
    settings: Settings,
    database: Database,
    *,
    clock: Clock,
    make_loop_clock: Callable[[], Clock],
    alerts: AlertSink | None = None,
) -> Gateway:
    """A gateway that is not started yet. `database` is `finplatform`.

    `clock` serves request handlers (an observer where the world is stepped); `make_loop_clock`
    makes the participant `module.gateway.protection.PARTICIPANT` in the protection thread.
    """
    clock = MomentClock(clock)
    gateway_id = f"{settings.installation[:40]}:{secrets.token_hex(8)}"
    lease_database = Database(settings, "finplatform", pool_size=1)
    paper_url = settings.simulator_url.rstrip("/")
    market_urls = {LIVE_MARKET_ID: ("bitget", LIVE_VENUE_URL)}
    if paper_url and settings.market_id != LIVE_MARKET_ID:
        market_urls[settings.market_id] = ("bitget", paper_url)
    return Gateway(
        stores=GatewayStores(
            accounts=AccountRepository(database),
            leases=AccountLeases(lease_database, gateway_id),
            writes=WriteRepository(database),
            stops=WantedStopRepository(database),
            periods=UnprotectedPeriodRepository(database),
        ),
        venues=CcxtVenues(clock),
        paper=PaperControl(paper_url, settings.secret("control_token")) if paper_url else None,
        clock=clock,
        make_loop_clock=make_loop_clock,
        alerts=alerts,
        rules=GatewayRules(
            installation=settings.installation,
            opening=OpeningRules(
                simulator_url=paper_url,
                paper_market_id=settings.market_id,
                allowed_venue_urls=settings.allowed_venue_urls,
                id_seed=settings.id_seed,
                keys=KeyRing(KeyFolder(settings.data_dir / "secrets").read),
            ),
            market_urls=market_urls,
            spool_folder=settings.data_dir / "gateway",
            is_stepped=bool(settings.world_clock),
        ),
    )
