"""Keeps promise 2 for every account this gateway owns, whether or not a session lives.

    positions and their stops, read back ─► compared with what is wanted ─► upsert, remove, or,
    where the market is already beyond the stop, close the position reduce-only at market

`PositionGuard` is one look at one account, and a session's own wish; `protection_loop.py` is the
thread that looks again and again.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from module.db.repositories.gateway_writes import (
    Author,
    KnownWrite,
    WriteEntry,
    WriteKind,
    WriteOutcome,
)
from module.db.repositories.wanted_stops import WantedStops
from module.exchange.venue import NoPosition, PlacedStop, Priority, WrongSideOfPrice
from module.gateway.order_path import OrderPath
from module.gateway.owned_account import AccountDesk, OwnedAccount
from module.model.accounts import Position
from module.model.errors import (
    AifapError,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Retryable,
    StaleWriter,
    Unavailable,
)
from module.model.market import MarketType
from module.model.money import plain
from module.model.orders import (
    OrderRequest,
    Outcome,
    Side,
    StopPrices,
    WriteStamp,
)
from module.model.sessions import installation_prefix
from module.ports import Alert, AlertSink
from module.wire.model_codec import from_document, to_document

log = logging.getLogger(__name__)

PARTICIPANT: Final = "gateway:protection"
GUARD_SESSION: Final = "guard"
WANTED_GRACE = timedelta(seconds=10)
UNRESOLVED_KEPT = timedelta(minutes=10)
UNRESOLVED_PER_LOOK = 3
BARE_MAX = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an account found: is anything open, is every wanted stop in place."""

    open: bool
    unprotected: tuple[str, ...]


class PositionGuard:
    """Makes the stops of positions what they should be. Thread safe, one look per account."""

    def __init__(
        self, desk: AccountDesk, orders: OrderPath, installation: str, alerts: AlertSink | None
    ) -> None:
        self._desk = desk
        self._orders = orders
        self._installation = installation
        self._alerts = alerts
        self._attempts: dict[tuple[str, str, datetime], int] = {}
        self._bare_since: dict[tuple[str, str, datetime], datetime] = {}

    # --- a session's own wish --------------------------------------------------------------

    def set_stops(
        self, owned: OwnedAccount, stamp: WriteStamp, symbol: str, stops: StopPrices
    ) -> StopPrices:
        """See `ports.Exchange.set_stops`. NoPosition, WrongSideOfPrice, OutcomeUnknown."""
        if owned.venue.market is MarketType.SPOT:
            raise InvalidInput(
                "spot balances have no position stops here; start with software_stops"
            )
        permission = self._desk.permit(owned, stamp)
        _check_ticks(owned, symbol, stops)
        position = self._desk.read_positions(owned, Priority.PROTECTION).get(symbol)
        if position is None:
            raise NoPosition(f"{symbol}: there is no position to protect")
        wanted = WantedStops(
            owned.account_id, symbol, position.size > 0, stops, stamp.epoch, self._desk.clock.now()
        )
        entry = WriteEntry(
            WriteKind.STOPS,
            symbol,
            {"stops": to_document(stops), "is_long": position.size > 0},
        )
        try:
            with _Audited(self._desk, owned, permission.author, entry, permission.audited):
                self._apply(owned, position, stops)
        except OutcomeUnknown:
            self._desk.want_stops(owned, wanted)
            raise
        self._desk.want_stops(owned, wanted)
        found = self._desk.read_positions(owned, Priority.PROTECTION).get(symbol)
        if found is None:
            raise NoPosition(f"{symbol}: the position ended meanwhile")
        return found.stops

    # --- one look ----------------------------------------------------------------------------

    def look(self, owned: OwnedAccount, *, thorough: bool) -> Look:
        """Compare and mend once. `thorough` also looks for stops of positions that are gone."""
        if owned.venue.market is MarketType.SPOT:
            return Look(open=self._resolve_unknown(owned), unprotected=())
        pending = self._resolve_unknown(owned)
        self._desk.save_wanted(owned)
        self._desk.write_late(owned)
        placed: tuple[PlacedStop, ...] = ()
        if thorough:
            placed = owned.venue.placed_stops(priority=Priority.PROTECTION)
        positions = self._desk.read_positions(owned, Priority.PROTECTION)
        unprotected = [
            symbol for symbol, position in positions.items() if not self._mend(owned, position)
        ]
        self._remove_orphans(owned, placed, positions)
        if thorough:
            self._forget_gone(owned, positions)
        return Look(
            open=bool(positions) or pending or bool(owned.wanted),
            unprotected=tuple(unprotected),
        )

    def _mend(self, owned: OwnedAccount, position: Position) -> bool:
        """Whether the position has exactly the stops it should have, mending them if not."""
        with owned.lock:
            wanted = owned.wanted.get(position.symbol)
        if wanted is None or wanted.is_long != (position.size > 0):
            return True
        if wanted.stops == position.stops:
            return True
        author = self._desk.author(owned, GUARD_SESSION, owned.epoch)
        entry = WriteEntry(
            WriteKind.GUARD,
            position.symbol,
            {"wanted": to_document(wanted.stops), "found": to_document(position.stops)},
        )
        log.warning("%s: stops are %s, wanted %s", position.symbol, position.stops, wanted.stops)
        try:
            with _Audited(self._desk, owned, author, entry, audited=True):
                self._apply(owned, position, wanted.stops)
        except WrongSideOfPrice as error:
            self._close(owned, position, error.message)
            return False
        except NoPosition:
            return True
        except Retryable as error:
            log.warning("%s: stops are not in place yet: %s", position.symbol, error.message)
            return False
        except (Rejected, OutcomeUnknown) as error:
            log.warning("%s: stops are not in place: %s", position.symbol, error.message)
            since = self._bare_since.setdefault(_key(owned, position), self._desk.clock.now())
            if self._desk.clock.now() - since > BARE_MAX:
                self._close(owned, position, f"no stop for {BARE_MAX}: {error.message}")
            return False
        self._bare_since.pop(_key(owned, position), None)
        return True

    def _apply(self, owned: OwnedAccount, position: Position, wanted: StopPrices) -> None:
        """Upsert what differs, remove what is not wanted: the new one first, never a gap."""
        is_long = position.size > 0
        have = position.stops
        for is_stop_loss, price, current in (
            (True, wanted.stop_loss, have.stop_loss),
            (False, wanted.take_profit, have.take_profit),
        ):
            if price is not None and price != current:
                owned.venue.set_stop(
                    position.symbol,
                    is_stop_loss=is_stop_loss,
                    protects_long=is_long,
                    trigger_price=price,
                )
            elif price is None and current is not None:
                for stop in owned.venue.placed_stops():
                    if (stop.symbol, stop.is_stop_loss, stop.protects_long) == (
                        position.symbol,
                        is_stop_loss,
                        is_long,
                    ):
                        owned.venue.remove_stop(stop)

    def _close(self, owned: OwnedAccount, position: Position, why: str) -> None:
        """The market is beyond the stop: do now what the stop would have done."""
        key = _key(owned, position)
        attempt = self._attempts.get(key, 0) + 1
        self._attempts[key] = attempt
        instrument = owned.venue.instruments().get(position.symbol)
        size = abs(position.size)
        if instrument is not None and instrument.market_size_max > 0:
            size = min(size, instrument.market_size_max)
        order = OrderRequest(
            client_id=guard_client_id(self._installation, *key, attempt),
            symbol=position.symbol,
            side=Side.SELL if position.size > 0 else Side.BUY,
            size=size,
            reduce_only=True,
        )
        author = self._desk.author(owned, GUARD_SESSION, owned.epoch)
        entry = WriteEntry(
            WriteKind.GUARD,
            position.symbol,
            {"order": to_document(order), "why": why},
            order.client_id,
        )
        owned.venue.admit_orders([order], priority=Priority.PROTECTION)
        with _Audited(self._desk, owned, author, entry, audited=True) as write:
            (result,) = owned.venue.submit([order])
            write.answer = {"order_id": result.order_id, "code": result.code}
            if result.outcome is Outcome.REJECTED:
                write.outcome = WriteOutcome.REJECTED
            elif result.outcome is Outcome.UNKNOWN:
                write.outcome = WriteOutcome.UNKNOWN
        owned.forget_positions()
        log.warning("%s: closed by the guard (%s): %s", position.symbol, why, result)
        self._alert(owned, position, why, result.outcome)

    def _alert(self, owned: OwnedAccount, position: Position, why: str, outcome: Outcome) -> None:
        if self._alerts is None:
            return
        self._alerts.notify(
            Alert(
                kind="protection",
                severity="critical",
                title=f"{position.symbol} was closed at market: its stop could not be placed",
                lines=(
                    ("account", owned.record.label),
                    ("position", plain(position.size)),
                    ("mark price", plain(position.mark_price)),
                    ("why", why),
                    ("close order", outcome.value),
                ),
                cause=f"guard:{owned.account_id}:{position.symbol}",
                session_id=None,
                owner_id=owned.record.owner_id,
                at=self._desk.clock.now(),
            )
        )

    # --- leftovers ---------------------------------------------------------------------------

    def _remove_orphans(
        self, owned: OwnedAccount, placed: Sequence[PlacedStop], positions: dict[str, Position]
    ) -> None:
        """Stops were listed before positions were read, so one without a position is left over."""
        for stop in placed:
            position = positions.get(stop.symbol)
            if position is not None and (position.size > 0) == stop.protects_long:
                continue
            author = self._desk.author(owned, GUARD_SESSION, owned.epoch)
            entry = WriteEntry(WriteKind.GUARD, stop.symbol, {"orphan": stop.order_id})
            log.warning("%s: removing stop %s of a position that is gone", stop.symbol, stop)
            with _Audited(self._desk, owned, author, entry, audited=True):
                owned.venue.remove_stop(stop)

    def _forget_gone(self, owned: OwnedAccount, positions: dict[str, Position]) -> None:
        """A wanted stop whose position is gone, and that no order can bring back, is over."""
        now = self._desk.clock.now()
        with owned.lock:
            gone = [
                wanted
                for wanted in owned.wanted.values()
                if wanted.symbol not in positions and now - wanted.updated_at > WANTED_GRACE
            ]
        if not gone:
            return
        snapshot = owned.venue.snapshot(priority=Priority.PROTECTION)
        busy = {report.symbol for report in snapshot.open_orders}
        busy |= {position.symbol for position in snapshot.positions}
        busy |= set(owned.exposure_in_flight(now))
        busy |= {write.symbol for write in owned.unresolved.values()}
        for wanted in gone:
            if wanted.symbol not in busy and owned.wanted.get(wanted.symbol) is wanted:
                self._desk.unwant_stops(owned, wanted.symbol)

    def _resolve_unknown(self, owned: OwnedAccount) -> bool:
        """Ask for orders whose outcome nobody knows. True while there are any."""
        now = self._desk.clock.now()
        with owned.lock:
            writes = sorted(owned.unresolved.values(), key=lambda write: -write.write_id)
        for write in writes[:UNRESOLVED_PER_LOOK]:
            if self._resolve_one(owned, write) or (
                write.sent_at is None or now - write.sent_at > UNRESOLVED_KEPT
            ):
                with owned.lock:
                    owned.unresolved.pop(write.write_id, None)
        return bool(owned.unresolved)

    def _resolve_one(self, owned: OwnedAccount, write: KnownWrite) -> bool:
        try:
            if write.kind is WriteKind.ORDER:
                return self._orders.resolve(owned, write)
            if write.epoch == owned.epoch:
                stops = from_document(StopPrices, write.request.get("stops"), name="stops")
                self._desk.want_stops(
                    owned,
                    WantedStops(
                        owned.account_id,
                        write.symbol,
                        write.request.get("is_long") is True,
                        stops,
                        write.epoch,
                        self._desk.clock.now(),
                    ),
                )
            return True
        except (Retryable, InvalidInput) as error:
            log.warning("write %d stays unresolved: %s", write.write_id, error.message)
            return False


@dataclass(slots=True)
class _Audited:
    """A guard's write on record: before it is sent if Postgres answers, afterwards if not."""

    desk: AccountDesk
    owned: OwnedAccount
    author: Author
    entry: WriteEntry
    audited: bool
    outcome: WriteOutcome = WriteOutcome.ACCEPTED
    answer: dict[str, object] = field(default_factory=dict)
    _write_id: int | None = None

    def __enter__(self) -> _Audited:
        if self.audited:
            try:
                self._write_id = self.desk.writes.reserve(
                    self.author, self.entry, self.desk.clock.now()
                )
            except (Unavailable, OutcomeUnknown, StaleWriter) as error:
                self.desk.fenced(self.owned, error)
                if not self.owned.lease_held or self.author.session_id != GUARD_SESSION:
                    raise Unavailable(f"{error.message}; nothing was sent") from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AifapError):
            self.outcome = WriteOutcome.REJECTED
            if isinstance(error, OutcomeUnknown):
                self.outcome = WriteOutcome.UNKNOWN
            elif isinstance(error, Retryable):
                self.outcome = WriteOutcome.NOT_SENT
            self.answer = {"code": error.code, "message": error.message}
        if self._write_id is not None:
            self.desk.record(self.owned, {self._write_id: (self.outcome, self.answer)})
        else:
            self.desk.record_late(self.owned, self.author, self.entry, self.outcome, self.answer)


def guard_client_id(
    installation: str, account_id: str, symbol: str, opened_at: datetime, attempt: int
) -> str:
    """The client id of a guard's close: a pure function of what is closed and the attempt."""
    text = f"{account_id}|{symbol}|{opened_at.timestamp()}|{attempt}"
    body = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()
    prefix = f"{installation_prefix(installation)}guard-"
    return prefix + body[: 32 - len(prefix)].rstrip("=")


def _key(owned: OwnedAccount, position: Position) -> tuple[str, str, datetime]:
    return (owned.account_id, position.symbol, position.opened_at)


def _check_ticks(owned: OwnedAccount, symbol: str, stops: StopPrices) -> None:
    instrument = owned.venue.instruments().get(symbol)
    if instrument is None:
        raise NotFound(f"{symbol} is not traded here")
    for name, price in (("stop_loss", stops.stop_loss), ("take_profit", stops.take_profit)):
        if price is not None and (price <= Decimal(0) or price % instrument.price_step):
            raise InvalidInput(
                f"{name} of {symbol} must be a positive multiple of "
                f"{plain(instrument.price_step)}, got {plain(price)}"
            )
