"""What a session's leader needs of the world, and how it ends: between wiring and leader.

trading.bootstrap (or a test) ─► LeaderWiring ─► rebalancing_main.run_trading ─► Exit
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from module.model.sessions import SessionSpec
from module.ports import (
    AlertSink,
    Clock,
    Exchange,
    OrderInfoStore,
    SessionChild,
    SessionRegistry,
)
from trading.gathering import OwnPart, everything
from trading.session.bells import Bells
from trading.session.control import Control


class Exit(enum.IntEnum):
    """How the process ends: the host starts another leader only after HANDED_OVER or CRASHED."""

    OVER = 0
    CRASHED = 1
    HANDED_OVER = 75


@dataclass(frozen=True, slots=True)
class LeaderWiring:
    """What a leader needs of the world. `user` is the owner's name; `own`: what of the account is
    the session's."""

    spec: SessionSpec
    user: str
    clock: Clock
    exchange: Exchange
    store: OrderInfoStore
    registry: SessionRegistry
    alerts: AlertSink
    bells: Bells
    strategy: SessionChild
    finwatcher: SessionChild
    control: Control
    own: OwnPart = everything
    build: str = ""
