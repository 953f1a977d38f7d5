"""What a cycle will ask the exchange for, read and set before it: rules, leverage, margin mode.

    a session's start ─► set_ahead ──► leverage and margin mode of what it will trade
    before a boundary ─► read_ahead ─► Known: the cycle need not read them again

Exchanges tell the settings of ten symbols a second and set those of five: while no cycle waits for
it that costs nothing. Whatever goes wrong here is met again in the cycle.
"""

from __future__ import annotations

from collections.abc import Mapping

from module.model.market import MarketType
from trading.execution.opening import verify_settings
from trading.execution.scribe import ExecutionPorts, ExecutionRules, Known, Scribe
from trading.rebalance.order_info import OrderInfo

ASSETS = "assets"
"""Where a session's configuration names what it trades, if it does."""


def likely_symbols(last: OrderInfo | None, config: Mapping[str, object]) -> frozenset[str]:
    """What the next cycle will probably open: the targets of the last one; before the first one
    what the configuration names. A guess: it may be empty, or name what is not traded."""
    if last is not None and last.targets:
        return frozenset(last.targets)
    named = config.get(ASSETS)
    if not isinstance(named, list):
        return frozenset()
    return frozenset(item for item in named if isinstance(item, str))


def read_ahead(ports: ExecutionPorts, market: MarketType, symbols: frozenset[str]) -> Known:
    """Rules, and the settings of those of `symbols` that are traded there."""
    at = ports.clock.now()
    instruments = ports.exchange.instruments()
    named = sorted(symbols & set(instruments))
    is_futures = market is MarketType.FUTURES
    settings = ports.exchange.symbol_settings(named) if named and is_futures else {}
    return Known(at, instruments, settings)


def set_ahead(ports: ExecutionPorts, rules: ExecutionRules, symbols: frozenset[str]) -> None:
    """Set and verify leverage and margin mode of those of `symbols` that are traded there, where
    the session may; see `verify_settings` for what is raised."""
    if not rules.apply_account_settings or not symbols:
        return
    named = sorted(symbols & set(ports.exchange.instruments()))
    verify_settings(Scribe(ports, rules), named)
