"""What a leader does ahead of its cycles, so that no cycle waits for it.

    the session starts    ─► set_settings ─► leverage and margin mode of what it will trade
    shortly before a boundary (begins_at) ─► read ─► the cycle takes what was read, once

What fails here is told in the log only: the cycle meets it again, and treats it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from module.logs import get_logger
from module.model.errors import PASSING, Rejected, StaleWriter
from module.model.sessions import SessionSpec
from trading.execution.ahead import likely_symbols, read_ahead, set_ahead
from trading.execution.scribe import ExecutionPorts, ExecutionRules, Known
from trading.session.letters import Letters

WARM_UP_S = 2.0
WARM_UP_PER_SYMBOL_S = 0.12
"""World seconds before a boundary at which rules and settings are read, so that the cycle need
not: the exchange tells the settings of ten symbols a second."""

log = get_logger("trading.leader")


class WarmUp:
    """One leader's. What was read is for the next cycle alone."""

    def __init__(self, spec: SessionSpec, ports: ExecutionPorts, letters: Letters) -> None:
        self._spec = spec
        self._ports = ports
        self._letters = letters
        self._known: Known | None = None

    def begins_at(self, boundary: datetime) -> datetime:
        """When to read for the cycle of `boundary`: the more symbols, the earlier."""
        symbols = len(self._likely_symbols())
        return boundary - timedelta(seconds=WARM_UP_S + symbols * WARM_UP_PER_SYMBOL_S)

    def read(self) -> None:
        """Read what the next cycle will ask for."""
        try:
            self._known = read_ahead(self._ports, self._spec.market, self._likely_symbols())
        except (*PASSING, Rejected) as error:
            log.info("not warm for the next cycle", detail=error.message)

    def take(self) -> Known | None:
        """What was read for this cycle, if it was; None from then on."""
        known, self._known = self._known, None
        return known

    def set_settings(self, rules: ExecutionRules) -> None:
        """Set what the first cycle would set; StaleWriter where another leader took over."""
        try:
            set_ahead(self._ports, rules, self._likely_symbols())
        except StaleWriter:
            raise
        except (*PASSING, Rejected) as error:
            log.info("settings are left to the cycle", detail=error.message)

    def _likely_symbols(self) -> frozenset[str]:
        return likely_symbols(self._letters.last, self._spec.config)
