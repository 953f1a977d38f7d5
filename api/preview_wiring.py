"""What previews need of the world: one account's exchange, its market, order books, the sandbox.

Part of the composition root of the API processes; `api/previews.py` knows only the ports.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from module.ports import Exchange, MarketData, OrderBooks, OrderInfoStore, StrategyRunner
from trading.gathering import House, OwnPart
from trading.session.own_coins import OwnCoins

if TYPE_CHECKING:
    from module.db.database import Database
    from module.db.repositories.accounts import AccountRecord
    from module.db.repositories.session_records import SessionRecord
    from module.exchange.gateway_books import GatewayBooks
    from module.model.market import MarketType
    from module.model.sessions import SessionSpec
    from module.ports import Clock
    from module.settings import Settings

PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class PreviewTools:
    """The ports of one preview. `own`: what of the account the plan may touch."""

    exchange: Exchange
    market: MarketData
    books: OrderBooks
    runner: StrategyRunner
    own: OwnPart


class PreviewPorts(Protocol):
    """Opens them."""

    @property
    def house(self) -> House:
        """What of the installation a decision depends on."""
        ...

    def open(
        self, account: AccountRecord, spec: SessionSpec, of: SessionRecord | None
    ) -> AbstractContextManager[PreviewTools]:
        """The ports for `account`, speaking for the session of `spec`; closed when the context
        ends. `of`: the session that is previewed, whose coins are told by its own archive."""
        ...


class GatewayPreviews:
    """Through the gateway, the market service and the runner host of this installation."""

    def __init__(self, settings: Settings, finplatform: Database, clock: Clock) -> None:
        """`clock`: an observer of the world (a request never holds the world)."""
        self._settings = settings
        self._finplatform = finplatform
        self._clock = clock
        self._books: dict[tuple[str, MarketType], GatewayBooks] = {}

    @cached_property
    def house(self) -> House:
        """This build, and the zone that user code sees."""
        from module.launch.host_protocol import build_id

        return House(build_id(), self._settings.display_timezone)

    @contextmanager
    def open(
        self, account: AccountRecord, spec: SessionSpec, of: SessionRecord | None
    ) -> Iterator[PreviewTools]:
        """See `PreviewPorts.open`."""
        from module.exchange.gateway_books import GatewayBooks
        from module.exchange.gateway_client import GatewayExchange
        from module.launch.host_protocol import runner_socket_path
        from module.market.market_client import MarketServiceClient
        from module.security.sandboxed_runner import SandboxedRunner
        from module.security.tokens import mint_grant, service_grant, session_grant

        settings, clock = self._settings, self._clock
        key = settings.secret("token_key")
        grant = session_grant(account.account_id, spec.session_id, account.owner_id)
        token = mint_grant(grant, key)
        exchange = GatewayExchange(
            settings.gateway_url, account.account_id, token, clock, connect_patience_s=PATIENCE_S
        )
        market = MarketServiceClient(
            settings.market_url, account.market_id, account.market, token, clock
        )
        place = (account.market_id, account.market)
        if place not in self._books:
            public = mint_grant(service_grant("preview"), key)
            self._books[place] = GatewayBooks(settings.gateway_url, *place, public, clock)
        runner = SandboxedRunner(
            runner_socket_path(settings.data_dir),
            clock,
            timeout_s=settings.strategy_timeout_s,
            display_timezone=settings.display_timezone,
        )
        own = OwnCoins(spec if of is None else of.spec, exchange, self._archive(of)).of
        try:
            yield PreviewTools(exchange, market, self._books[place], runner, own)
        finally:
            exchange.close()
            market.close()

    def _archive(self, of: SessionRecord | None) -> OrderInfoStore | None:
        from module.db.repositories.order_info import PostgresOrderInfoStore
        from module.files.order_info_file import FileOrderInfoStore
        from module.files.session_folder import make_session_folder
        from trading.bootstrap import POSTGRES_STORE

        if of is None:
            return None
        if of.order_info_store == POSTGRES_STORE:
            return PostgresOrderInfoStore(self._finplatform, of.session_id)
        return FileOrderInfoStore(make_session_folder(self._settings.data_dir, of.session_id))
