"""What an API process is made of: filled in by the composition root, handed to `create_app`.

Only ports, clients and prebuilt services; nothing here reads a setting or opens a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from module.db.database import Database
from module.model.accounts import AccountCheck, TradeEnv
from module.model.credentials import Credentials
from module.model.market import MarketType
from module.ports import AlertSink, Clock, SessionLauncher
from module.settings import Settings

if TYPE_CHECKING:
    from api.preview_wiring import PreviewPorts
    from module.gateway.service import Gateway
    from module.market.service import MarketService


class AccountAdmin(Protocol):
    """What the platform asks of the gateway (`module.exchange.gateway_admin.GatewayAdmin`)."""

    def open_paper_account(
        self, owner_id: str, label: str, market: MarketType, balance: Decimal
    ) -> str:
        """Open an account at the paper exchange; its id."""
        ...

    def deposit(self, account_id: str, amount: Decimal) -> None:
        """Transfer `amount` USDT into a paper account."""
        ...

    def add_account(
        self,
        *,
        owner_id: str,
        label: str,
        venue: str,
        market: MarketType,
        trade_env: TradeEnv,
        base_url: str,
        credentials: Credentials,
        force: bool = False,
    ) -> str:
        """Check keys against the exchange and save them; the account's id."""
        ...

    def check_account(self, account_id: str) -> AccountCheck:
        """What the exchange says of the account now."""
        ...

    def replace_keys(
        self, account_id: str, credentials: Credentials, *, force: bool = False
    ) -> None:
        """Check other keys of the same account of the exchange, and use them from now on."""
        ...

    def switch_off_account(self, account_id: str, *, erase_keys: bool, force: bool) -> None:
        """Trade and protect an idle, flat account no more."""
        ...

    def switch_on_account(self, account_id: str) -> None:
        """Let sessions trade the account again."""
        ...


class Background(Protocol):
    """Work beside the requests, in a thread of its own (alert dispatcher, protection loop)."""

    def start(self) -> None:
        """Begin; returns at once."""
        ...

    def stop(self) -> None:
        """End it, bounded in time."""
        ...


@dataclass(frozen=True, slots=True)
class Platform:
    """What the platform API needs beyond settings and clock."""

    finplatform: Database
    finwatcher: Database
    launcher: SessionLauncher
    accounts: AccountAdmin
    alerts: AlertSink
    previews: PreviewPorts | None = None


@dataclass(frozen=True, slots=True)
class Services:
    """Services of our own that this process mounts; every one of their routes asks for a grant."""

    gateway: Gateway | None = None
    market: MarketService | None = None


@dataclass(frozen=True, slots=True)
class ApiWiring:
    """Everything `create_app` needs.

    `platform` is None in a process that opens no doors for people. `token_key` signs the grants
    that `services` ask for. `probes` are what `/health/ready` asks besides Postgres: each returns,
    or raises or returns False; `neighbours` are told there too, and decide nothing. `vital` is what
    `/health/live` asks: whether the threads live without which the process is of no use.
    `background` starts with the application and ends with it.
    """

    settings: Settings
    clock: Clock
    platform: Platform | None = None
    services: Services = Services()
    token_key: str = field(default="", repr=False)
    probes: Mapping[str, Callable[[], bool | None]] = field(default_factory=dict)
    neighbours: Mapping[str, Callable[[], bool | None]] = field(default_factory=dict)
    vital: Mapping[str, Callable[[], bool]] = field(default_factory=dict)
    background: tuple[Background, ...] = ()
