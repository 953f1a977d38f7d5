"""Cancels, leverage and margin mode: the writes of an account beside its orders.

stamp ─► what is there now ─► audit row ─► send ─► outcome on record ─► read back

Settings of many symbols are set one after another, as fast as the exchange's limits let them: what
was read within the last half minute is not read again, and one look shows which symbols are flat.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from module.db.repositories.gateway_writes import WriteEntry, WriteKind, WriteOutcome
from module.exchange.venue import Priority
from module.gateway.account_desk import AccountDesk, Permission
from module.gateway.owned_account import POSITIONS_FRESH, OwnedAccount
from module.model.accounts import MarginMode, SymbolSettings
from module.model.canonical import instant_text
from module.model.errors import (
    AifapError,
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
    Retryable,
    StaleWriter,
    Unavailable,
)
from module.model.market import MarketType
from module.model.money import plain
from module.model.orders import WriteStamp
from module.wire.model_codec import to_document

log = logging.getLogger(__name__)

CLIENT_ID = re.compile(r"^[a-z0-9-]{1,32}$")
WITHOUT_POSTGRES = (
    "Postgres does not answer: only reducing orders and stops leave; nothing was sent"
)


SETTINGS_FRESH_S = 30.0
"""World seconds for which a reading of leverage and margin mode holds."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Symbols with a position, and with open orders, at `at`, after the write number `turn`."""

    at: datetime
    turn: int
    held: frozenset[str]
    resting: frozenset[str]


class SettingsPath:
    """Cancels and settings of all accounts of a desk. Thread safe."""

    def __init__(self, desk: AccountDesk) -> None:
        self._desk = desk
        self._looks: dict[str, _Look] = {}

    def cancel(self, owned: OwnedAccount, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        """See `ports.Exchange.cancel`."""
        if not CLIENT_ID.match(client_id):
            raise InvalidInput(f"not a client id: {client_id[:40]!r}")
        permission = self._audited(owned, stamp)
        entry = WriteEntry(WriteKind.CANCEL, symbol, stamp_document(stamp), client_id)
        write_id = self._reserve_one(owned, permission, entry)
        try:
            owned.venue.cancel(symbol, client_id)
        except AifapError as error:
            self._record_failure(owned, write_id, error)
            raise
        finally:
            self._desk.on_write(owned.account_id)
        self._desk.record(owned, {write_id: (WriteOutcome.ACCEPTED, {})})

    def apply_settings(
        self,
        owned: OwnedAccount,
        stamp: WriteStamp,
        symbol: str,
        leverage: Decimal,
        margin_mode: MarginMode,
    ) -> SymbolSettings:
        """See `ports.Exchange.apply_symbol_settings`; the same values again change nothing."""
        permission = self._audited(owned, stamp)
        if owned.venue.market is not MarketType.FUTURES:
            raise InvalidInput("a spot account has neither leverage nor margin mode")
        instrument = owned.venue.instruments().get(symbol)
        if instrument is None:
            raise NotFound(f"{symbol} is not traded here")
        highest = min(owned.limits.leverage_max, instrument.leverage_max)
        if not 1 <= leverage <= highest:
            raise LimitExceeded(
                f"leverage {plain(leverage)} of {symbol} is not within 1 and {plain(highest)}"
            )
        mode = owned.venue.trading_mode(symbol, max_age_s=SETTINGS_FRESH_S, priority=Priority.ORDER)
        current = mode.settings
        if (current.leverage, current.margin_mode) == (leverage, margin_mode):
            return current
        self._require_flat(owned, symbol)
        request: dict[str, object] = {
            **stamp_document(stamp),
            "leverage": plain(leverage),
            "margin_mode": margin_mode.value,
        }
        write_id = self._reserve_one(
            owned, permission, WriteEntry(WriteKind.SETTINGS, symbol, request)
        )
        try:
            if current.margin_mode is not margin_mode:
                owned.venue.set_margin_mode(symbol, margin_mode)
            if current.leverage != leverage or current.margin_mode is not margin_mode:
                owned.venue.set_leverage(symbol, leverage)
        except OutcomeUnknown as error:
            log.warning("settings of %s: %s; reading back", symbol, error.message)
        except AifapError as error:
            self._record_failure(owned, write_id, error)
            raise
        found = owned.venue.trading_mode(symbol, priority=Priority.ORDER).settings
        self._desk.record(owned, {write_id: (WriteOutcome.ACCEPTED, {"found": to_document(found)})})
        return found

    def _require_flat(self, owned: OwnedAccount, symbol: str) -> None:
        look = self._look(owned)
        if symbol in look.held or symbol in look.resting:
            what = "has a position" if symbol in look.held else "has open orders"
            raise Conflict(
                f"{symbol} {what}; leverage and margin mode change only while it is flat"
            )

    def _look(self, owned: OwnedAccount) -> _Look:
        """What is held and what rests: seconds old, and from after the last order that left."""
        now = self._desk.clock.now()
        known = self._looks.get(owned.account_id)
        fresh = known is not None and timedelta(0) <= now - known.at <= POSITIONS_FRESH
        if known is not None and fresh and known.turn == owned.turn:
            return known
        turn = owned.turn
        snapshot = owned.venue.snapshot(priority=Priority.ORDER)
        found = _Look(
            now,
            turn,
            frozenset(position.symbol for position in snapshot.positions),
            frozenset(report.symbol for report in snapshot.open_orders),
        )
        self._looks[owned.account_id] = found
        return found

    def _audited(self, owned: OwnedAccount, stamp: WriteStamp) -> Permission:
        permission = self._desk.permit(owned, stamp)
        if not permission.audited:
            raise Unavailable(WITHOUT_POSTGRES)
        return permission

    def _reserve_one(self, owned: OwnedAccount, permission: Permission, entry: WriteEntry) -> int:
        try:
            return self._desk.audit.writes.reserve(permission.author, entry, self._desk.clock.now())
        except OutcomeUnknown as error:
            raise Unavailable(f"{error.message}; nothing was sent") from error
        except (Unavailable, StaleWriter) as error:
            self._desk.fenced(owned, error)
            raise

    def _record_failure(self, owned: OwnedAccount, write_id: int, error: AifapError) -> None:
        outcome = WriteOutcome.REJECTED
        if isinstance(error, OutcomeUnknown):
            outcome = WriteOutcome.UNKNOWN
        elif isinstance(error, Retryable):
            outcome = WriteOutcome.NOT_SENT
        answer: dict[str, object] = {"code": error.code, "message": error.message}
        self._desk.record(owned, {write_id: (outcome, answer)})


def stamp_document(stamp: WriteStamp) -> dict[str, object]:
    """What of a stamp goes on record."""
    return {
        "not_after": instant_text(stamp.not_after),
        "cycle": None if stamp.cycle is None else instant_text(stamp.cycle),
    }
