"""The guard's own writes: on record before they are sent, in the spool while Postgres is away.

Used by `protection.py`: stops that are placed or removed, and closes of positions that cannot be
protected. A close is reduce-only and its client id is a function of what is closed.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from module.db.circuit import hurried
from module.db.repositories.gateway_writes import (
    Author,
    WriteEntry,
    WriteKind,
    WriteOutcome,
    named_for_later,
)
from module.exchange.venue import Priority
from module.gateway.account_desk import AccountDesk
from module.gateway.alarms import Alarms
from module.gateway.owned_account import OwnedAccount
from module.model.accounts import Position
from module.model.canonical import instant_text, parse_instant
from module.model.errors import (
    AifapError,
    OutcomeUnknown,
    Retryable,
    StaleWriter,
    Unavailable,
)
from module.model.money import plain
from module.model.orders import OrderRequest, Outcome, Side
from module.model.sessions import installation_prefix
from module.points import reach
from module.wire.model_codec import to_document

log = logging.getLogger(__name__)

GUARD_SESSION: Final = "guard"
GUARD_PATIENCE_S: Final = 1.5
"""Real seconds that a write of the guard waits for Postgres; then its intent is spooled."""
SESSION_PATIENCE_S: Final = 3.0
"""A session's write of stops: the guard leaves the symbol alone meanwhile."""
PositionKey = tuple[str, str, datetime]


@dataclass(slots=True)
class AuditedWrite:
    """A write on record: before it is sent if Postgres answers, else its intent in the spool.

    A session's write that cannot be kept anywhere is not sent; the guard's is: protection first.
    It waits for Postgres no longer than it may; where its row came to be all the same, what is
    spooled ends in that row.
    """

    desk: AccountDesk
    owned: OwnedAccount
    author: Author
    entry: WriteEntry
    audited: bool
    outcome: WriteOutcome = WriteOutcome.ACCEPTED
    answer: dict[str, object] = field(default_factory=dict)
    _write_id: int | None = None
    _late_id: str | None = None

    @property
    def _patience_s(self) -> float:
        is_guard = self.author.session_id == GUARD_SESSION
        return GUARD_PATIENCE_S if is_guard else SESSION_PATIENCE_S

    def __enter__(self) -> AuditedWrite:
        is_guard = self.author.session_id == GUARD_SESSION
        at, entry = self.desk.clock.now(), self.entry
        if is_guard:  # the same time in the row and, as it spells it, in the spool
            at, entry = parse_instant(instant_text(at)), named_for_later(entry)
        if self.audited:
            try:
                with hurried(self._patience_s):
                    self._write_id = self.desk.audit.writes.reserve(self.author, entry, at)
            except (Unavailable, OutcomeUnknown, StaleWriter) as error:
                self.desk.fenced(self.owned, error)
                if not self.owned.lease_held or not is_guard:
                    raise Unavailable(f"{error.message}; nothing was sent") from error
        if self._write_id is None:
            try:
                self._late_id = self.desk.audit.begin_late(self.author, entry, at)
            except Unavailable as error:
                if not is_guard:
                    raise
                log.error("a write of the guard leaves without a record: %s", error.message)
        self.owned.touch({self.entry.symbol}, self.desk.clock.now())
        self.owned.note_stops_written(self.entry.symbol)
        reach("gateway: guarded write on record")
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, Exception):
            return  # the process ends here: the row stays without an outcome, and is asked for
        self.owned.note_stops_written(self.entry.symbol)
        reach("gateway: guarded write answered")
        if isinstance(error, AifapError):
            self.outcome = WriteOutcome.REJECTED
            if isinstance(error, OutcomeUnknown):
                self.outcome = WriteOutcome.UNKNOWN
            elif isinstance(error, Retryable):
                self.outcome = WriteOutcome.NOT_SENT
            self.answer = {"code": error.code, "message": error.message}
        elif error is not None:
            self.outcome = WriteOutcome.UNKNOWN
        if self._write_id is not None:
            with hurried(self._patience_s):
                self.desk.record(self.owned, {self._write_id: (self.outcome, self.answer)})
        elif self._late_id is not None:
            self.desk.audit.end_late(self._late_id, self.outcome, self.answer)


class EmergencyClose:
    """Closes positions that cannot be protected: reduce-only, at market, and tells people."""

    def __init__(self, desk: AccountDesk, installation: str, alarms: Alarms) -> None:
        self._desk = desk
        self._installation = installation
        self._alarms = alarms
        self._attempts: dict[PositionKey, int] = {}

    def close(self, owned: OwnedAccount, position: Position, why: str) -> None:
        """Do now what the stop would have done; the next look sees whether it did."""
        key = position_key(owned, position)
        attempt = self._attempts.get(key, 0) + 1
        self._attempts[key] = attempt
        order = OrderRequest(
            client_id=guard_client_id(self._installation, *key, attempt),
            symbol=position.symbol,
            side=Side.SELL if position.size > 0 else Side.BUY,
            size=_at_once(owned, position),
            reduce_only=True,
        )
        entry = WriteEntry(
            WriteKind.GUARD,
            position.symbol,
            {"order": to_document(order), "why": why},
            order.client_id,
        )
        author = self._desk.author(owned, GUARD_SESSION, owned.epoch)
        owned.venue.admit_orders([order], priority=Priority.PROTECTION)
        with AuditedWrite(self._desk, owned, author, entry, audited=True) as write:
            reach("gateway: closing")
            (result,) = owned.venue.submit([order])
            reach("gateway: closed")
            write.answer = {"order_id": result.order_id, "code": result.code}
            if result.outcome is Outcome.REJECTED:
                write.outcome = WriteOutcome.REJECTED
            elif result.outcome is Outcome.UNKNOWN:
                write.outcome = WriteOutcome.UNKNOWN
        owned.note_written({position.symbol}, self._desk.clock.now())
        log.warning("%s: closed by the guard (%s): %s", position.symbol, why, result)
        self._alarms.tell(
            owned,
            "protection",
            f"{position.symbol} was closed at market: its stop could not be placed",
            (
                ("position", plain(position.size)),
                ("mark price", plain(position.mark_price)),
                ("why", why),
                ("close order", result.outcome.value),
            ),
            cause=f"guard:{position.symbol}",
        )


def _at_once(owned: OwnedAccount, position: Position) -> Decimal:
    """As much of it as one market order may close; all where the rules cannot be read now."""
    size = abs(position.size)
    try:
        instrument = owned.venue.instruments().get(position.symbol)
    except Retryable:
        return size
    if instrument is None or instrument.market_size_max <= 0:
        return size
    return min(size, instrument.market_size_max)


def guard_client_id(
    installation: str, account_id: str, symbol: str, opened_at: datetime, attempt: int
) -> str:
    """The client id of a guard's close: a pure function of what is closed and the attempt."""
    text = f"{account_id}|{symbol}|{opened_at.timestamp()}|{attempt}"
    body = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()
    prefix = f"{installation_prefix(installation)}guard-"
    return prefix + body[: 32 - len(prefix)].rstrip("=")


def position_key(owned: OwnedAccount, position: Position) -> PositionKey:
    """What makes a position this one: account, symbol, when it was opened."""
    return (owned.account_id, position.symbol, position.opened_at)
