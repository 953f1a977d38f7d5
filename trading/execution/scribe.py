"""What execution has in hand: its ports, the session's rules, and the letter that is durable.

Everything in this room goes through `Scribe.save` before the world may depend on it; what was saved
last is what the last check before sending compares orders with (`departures`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from module.model.accounts import MarginMode, SymbolSettings
from module.model.market import Instrument
from module.model.orders import WriteStamp
from module.model.sessions import client_id
from module.points import reach
from module.ports import Clock, Exchange, OrderInfoStore
from trading.rebalance.order_info import OrderInfo, to_json
from trading.rebalance.plan import Policy

SEND_WINDOW_S = 10.0
"""Seconds for which a write may leave once it was made: of world time for the gateway
(`not_after`), of real time for a process that stood still before it sent."""
SETTINGS_AGE_MAX_S = 30.0
"""World seconds for which a reading of leverage and margin mode holds."""


@dataclass(frozen=True, slots=True)
class ExecutionPorts:
    """What execution touches of the world."""

    exchange: Exchange
    store: OrderInfoStore
    clock: Clock


def _tell_nobody(_detail: str) -> None:
    """Nobody listens."""


def _unknown_age_s(_info: OrderInfo) -> float:
    """Nobody has watched this plan."""
    return 0.0


@dataclass(frozen=True, slots=True)
class ExecutionRules:
    """The session's pinned rules. `stop_requested` is asked before each batch that opens.

    `frozen`: symbols that open nothing, each with the reason that its leg is given up with.
    `least_age_s`: how old a letter's plan is at least, in seconds, by this process's real time.
    `tell_forgotten`: hears of an order whose end only other lists than the order's own said.
    """

    installation: str
    session_id: str
    epoch: int
    policy: Policy
    margin_mode: MarginMode
    apply_account_settings: bool
    stop_requested: Callable[[], bool]
    frozen: Mapping[str, str] = field(default_factory=dict)
    least_age_s: Callable[[OrderInfo], float] = _unknown_age_s
    tell_forgotten: Callable[[str], None] = _tell_nobody


@dataclass(frozen=True, slots=True)
class Known:
    """What was read at `at`, shortly before a cycle, so that the cycle need not wait for it."""

    at: datetime
    instruments: Mapping[str, Instrument]
    settings: Mapping[str, SymbolSettings]

    def settings_of(
        self, symbols: Sequence[str], now: datetime
    ) -> Mapping[str, SymbolSettings] | None:
        """Of all `symbols`, while the reading is at most SETTINGS_AGE_MAX_S old; else None."""
        is_old = not 0 <= (now - self.at).total_seconds() <= SETTINGS_AGE_MAX_S
        return None if is_old or set(symbols) - set(self.settings) else self.settings


@dataclass(slots=True)
class Scribe:
    """Saves the letter of one cycle. `durable` is what a new process would find."""

    ports: ExecutionPorts
    rules: ExecutionRules
    durable: OrderInfo | None = None

    def save(self, info: OrderInfo) -> OrderInfo:
        """Durable before anything depends on it."""
        reach("execution: letter to be saved")
        self.ports.store.write(to_json(info), info.epoch, info.revision)
        self.durable = info
        reach("execution: letter saved")
        return info

    def now(self) -> datetime:
        """World time."""
        return self.ports.clock.now()

    def deadline(self) -> datetime:
        """Until when a write that is made now may leave."""
        return self.now() + timedelta(seconds=SEND_WINDOW_S)

    def stamp(self, info: OrderInfo, not_after: datetime | None = None) -> WriteStamp:
        """Who writes, for which cycle, and until when it may leave."""
        return WriteStamp(
            self.rules.session_id, self.rules.epoch, not_after or self.deadline(), info.cycle
        )

    def stamp_without_cycle(self) -> WriteStamp:
        """Who writes what belongs to the account rather than to a cycle."""
        return WriteStamp(self.rules.session_id, self.rules.epoch, self.deadline())

    def identify(self, info: OrderInfo) -> Callable[[str, int], str]:
        """The client id of a slice of this cycle, by leg id and slice number."""

        def identified(leg_id: str, number: int) -> str:
            return client_id(
                self.rules.installation, self.rules.session_id, info.cycle, leg_id, number
            )

        return identified
