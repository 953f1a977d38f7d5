"""Sessions and cycles: what a user asked for, and the names everything of it carries."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from module.model.accounts import MarginMode, TradeEnv
from module.model.errors import InvalidInput
from module.model.market import MarketType

SESSION_ID_PATTERN = re.compile(r"^\d{10}-[a-z2-7]{4}\Z", re.ASCII)
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)


class TradeMode(StrEnum):
    """How targets are read; see the strategy contract."""

    REBALANCING = "rebalancing"
    GENERAL = "general"
    VOLATILITY_TARGETING = "volatility_targeting"


class EndState(StrEnum):
    """How a session leaves its account."""

    PROTECTED = "protected"
    FLAT = "flat"


class DesiredState(StrEnum):
    """What the owner wants; lives in Postgres, whoever runs the session reads it."""

    RUNNING = "running"
    STOPPED = "stopped"


class SessionState(StrEnum):
    """What a session is. starting → running → stopping → ended | failed."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        return self in (SessionState.ENDED, SessionState.FAILED)


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """Everything a session needs to know about itself; pinned when it starts.

    `threshold` and weights are fractions of the base; `interval` is the cycle length;
    `ends_at` is the world time after which it ends by itself; `cycles_max` ends it after so many
    cycles (None: never). `threshold_relative`, `no_trade_band` and `turnover_max` are options of
    planning with the meaning that `trading.rebalance.plan.Policy` gives them (None: off). A session
    with `given_plan` (the hash of a preview) has one cycle, that plan, and asks no strategy.
    """

    session_id: str
    installation: str
    owner_id: str
    account_id: str
    market: MarketType
    market_id: str
    trade_env: TradeEnv
    trade_mode: TradeMode
    strategy_name: str
    strategy_digest: str
    config: dict[str, object]
    interval: timedelta
    leverage: Decimal
    margin_mode: MarginMode
    allocated: Decimal | None
    compounding: bool
    threshold: Decimal
    default_stop_loss_pct: Decimal | None
    target_volatility: Decimal | None
    on_end: EndState
    apply_account_settings: bool
    adopt_existing: bool
    started_at: datetime
    ends_at: datetime
    cycles_max: int | None = None
    threshold_relative: Decimal | None = None
    no_trade_band: Decimal | None = None
    turnover_max: Decimal | None = None
    given_plan: str | None = None


def new_session_id(started_at: datetime, entropy: bytes) -> str:
    """`YYMMDDHHMM-xxxx`: start in UTC and four characters out of at least 3 random bytes."""
    suffix = base64.b32encode(hashlib.sha256(entropy).digest()).decode().lower()[:4]
    return f"{started_at.astimezone(UTC):%y%m%d%H%M}-{suffix}"


def check_session_id(text: str) -> str:
    """Return `text` if it is shaped like a session id; InvalidInput otherwise."""
    if not SESSION_ID_PATTERN.match(text):
        raise InvalidInput(f"not a session id: {text[:40]!r}; it looks like 2611211030-ab3x")
    return text


def boundary_at_or_after(when: datetime, interval: timedelta) -> datetime:
    """The first multiple of `interval` since the epoch that is not before `when`."""
    since = when - _EPOCH_START
    steps = -((-since) // interval)
    return _EPOCH_START + steps * interval


def boundary_at_or_before(when: datetime, interval: timedelta) -> datetime:
    """The last multiple of `interval` since the epoch that is not after `when`."""
    return _EPOCH_START + ((when - _EPOCH_START) // interval) * interval


def client_id(
    installation: str, session_id: str, cycle: datetime, leg: str, slice_number: int
) -> str:
    """The one client id of a slice of a leg: `af` + installation tag + hash, 32 characters.

    A pure function of its arguments, so that a process that comes back after a crash asks the
    exchange about the same id. Lower case letters, digits and `-` only. The prefix
    `client_id_prefix(installation, session_id)` is shared by all orders of a session.
    """
    text = f"{installation}|{session_id}|{int(cycle.timestamp())}|{leg}|{slice_number}"
    body = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()
    prefix = client_id_prefix(installation, session_id)
    return prefix + body[: 32 - len(prefix)]


def client_id_prefix(installation: str, session_id: str) -> str:
    """`af<3>-<6>-`: how orders of this installation and session are recognised later."""
    return f"{installation_prefix(installation)}{_tag(session_id, 6)}-"


def installation_prefix(installation: str) -> str:
    """`af<3>-`: how orders of this installation are told from anybody else's."""
    return f"af{_tag(installation, 3)}-"


def _tag(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:length]
