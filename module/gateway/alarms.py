"""What the gateway tells people about an account: once per cause until it is over."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from module.gateway.owned_account import OwnedAccount
from module.model.accounts import Position
from module.model.money import plain
from module.model.orders import StopPrices
from module.ports import Alert, AlertSink, Clock

CAUSES_MAX = 1000


class Alarms:
    """Speaks through the installation's alert sink (None: nobody listens). Thread safe."""

    def __init__(self, sink: AlertSink | None, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def tell(
        self,
        owned: OwnedAccount,
        kind: str,
        title: str,
        lines: Sequence[tuple[str, str]],
        *,
        cause: str,
        severity: str = "critical",
    ) -> None:
        """Say it now. `cause` groups repeats."""
        if self._sink is None:
            return
        self._sink.notify(
            Alert(
                kind=kind,
                severity=severity,
                title=title,
                lines=(("account", owned.record.label), *lines),
                cause=f"{cause}:{owned.account_id}",
                session_id=None,
                owner_id=owned.record.owner_id,
                at=self._clock.now(),
            )
        )

    def tell_once(
        self,
        owned: OwnedAccount,
        kind: str,
        title: str,
        lines: Sequence[tuple[str, str]],
        *,
        cause: str,
        severity: str = "critical",
    ) -> bool:
        """As `tell`, but only the first time until `over`; whether it was said."""
        key = f"{cause}:{owned.account_id}"
        with self._lock:
            if key in self._told:
                return False
            if len(self._told) >= CAUSES_MAX:
                self._told.clear()
            self._told.add(key)
        self.tell(owned, kind, title, lines, cause=cause, severity=severity)
        return True

    def over(self, owned: OwnedAccount, cause: str) -> None:
        """The cause is gone: the next time is told again."""
        with self._lock:
            self._told.discard(f"{cause}:{owned.account_id}")


def position_lines(positions: Sequence[Position]) -> list[tuple[str, str]]:
    """One line per position: its size and its stops as last seen."""
    return [
        (
            position.symbol,
            f"{plain(position.size)}, {_spelled(position.stops)}",
        )
        for position in positions
    ]


def _spelled(stops: StopPrices) -> str:
    loss, profit = stops.stop_loss, stops.take_profit
    return (
        f"stop loss {'none' if loss is None else plain(loss)}, "
        f"take profit {'none' if profit is None else plain(profit)}"
    )
