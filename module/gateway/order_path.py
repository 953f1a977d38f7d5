"""From a session's request to the exchange: the only way an order leaves.

    stamp ─► last gate ─► request budget ─► audit row ─► send ─► outcome on record ─► wanted stops

Each step can refuse; after the audit row nothing is refused any more, it is sent or it is written
down as not sent. A client id that has been here before is answered by asking the exchange.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal

from module.db.repositories.gateway_writes import (
    KnownWrite,
    Reservation,
    WriteEntry,
    WriteKind,
    WriteOutcome,
)
from module.db.repositories.wanted_stops import WantedStops
from module.exchange.venue import CLIENT_ID_CLASH, NOT_SENT, Priority
from module.gateway.limits import AccountView, Refusal, judge_orders
from module.gateway.owned_account import (
    IN_FLIGHT_S,
    ONE_WAY_HINT,
    AccountDesk,
    OwnedAccount,
    Permission,
)
from module.model.accounts import MarginMode, Position, PositionMode, SymbolSettings
from module.model.canonical import instant_text
from module.model.errors import (
    AifapError,
    Conflict,
    InvalidInput,
    InvariantViolated,
    LimitExceeded,
    NotFound,
    OutcomeUnknown,
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
    SubmitResult,
    WriteStamp,
)
from module.wire.model_codec import from_document, to_document

log = logging.getLogger(__name__)

BATCH_MAX = 5
MODE_FRESH_S = 300.0
CLIENT_ID = re.compile(r"^[a-z0-9-]{1,32}$")
_OUTCOMES = {
    Outcome.ACCEPTED: WriteOutcome.ACCEPTED,
    Outcome.REJECTED: WriteOutcome.REJECTED,
    Outcome.UNKNOWN: WriteOutcome.UNKNOWN,
}


class OrderPath:
    """Orders, cancels and settings of all accounts of a desk. Thread safe."""

    def __init__(self, desk: AccountDesk) -> None:
        self._desk = desk

    # --- orders ------------------------------------------------------------------------------

    def submit(
        self, owned: OwnedAccount, stamp: WriteStamp, orders: Sequence[OrderRequest]
    ) -> list[SubmitResult]:
        """See `ports.Exchange.submit`; RateLimited and Unavailable mean that nothing was sent."""
        _check_batch(orders)
        permission = self._desk.permit(owned, stamp)
        if not permission.audited and not all(order.reduce_only for order in orders):
            raise Unavailable(
                "Postgres does not answer: only reducing orders and stops leave; nothing was sent"
            )
        results: dict[str, SubmitResult] = {}
        with owned.gate:
            refusals = judge_orders(orders, owned.limits, self._view(owned, orders))
            going = [order for order in orders if order.client_id not in refusals]
            if going:
                owned.venue.admit_orders(going)
            self._desk.check_deadline(stamp)
            reservation = self._reserve(owned, permission, stamp, orders)
            seen = reservation.seen if reservation else {}
            self._note_in_flight(owned, [order for order in going if order.client_id not in seen])
        for order in orders:
            known = seen.get(order.client_id)
            refusal = refusals.get(order.client_id)
            if known is not None:
                results[order.client_id] = self._answer_seen(owned, order, known)
            elif refusal is not None:
                results[order.client_id] = _refused(order, refusal)
        fresh = [order for order in orders if order.client_id not in results]
        for result in self._send(owned, permission, reservation, fresh):
            results[result.client_id] = result
        answered = [results[order.client_id] for order in orders]
        self._record(owned, permission, reservation, orders, answered)
        self._after(owned, permission, orders, answered, set(seen))
        return answered

    def _send(
        self,
        owned: OwnedAccount,
        permission: Permission,
        reservation: Reservation | None,
        orders: Sequence[OrderRequest],
    ) -> list[SubmitResult]:
        """Send and resolve at once what stayed unknown. Retryable: nothing was sent."""
        if not orders:
            return []
        try:
            results = owned.venue.submit(orders)
        except Retryable as error:
            self._settle_in_flight(owned, orders, [])
            if reservation is not None:
                answer: dict[str, object] = {"message": error.message}
                self._desk.record(
                    owned,
                    {
                        reservation.fresh[order.client_id]: (WriteOutcome.NOT_SENT, answer)
                        for order in orders
                    },
                )
            raise
        finally:
            owned.forget_positions()
        by_id = {order.client_id: order for order in orders}
        resolved = [
            owned.venue.look_up(by_id[result.client_id])
            if result.outcome is Outcome.UNKNOWN
            else result
            for result in results
        ]
        self._settle_in_flight(owned, orders, resolved)
        return resolved

    def _answer_seen(
        self, owned: OwnedAccount, order: OrderRequest, known: KnownWrite
    ) -> SubmitResult:
        """The client id has been here: the recorded refusal, else what the exchange says."""
        if known.request.get("order") != to_document(order):
            raise InvariantViolated(
                f"client id {order.client_id} was used for another order before; nothing was sent"
            )
        if known.outcome is WriteOutcome.REJECTED:
            code, message = known.answer.get("code"), known.answer.get("message")
            return SubmitResult(
                order.client_id,
                Outcome.REJECTED,
                None,
                None if code is None else str(code),
                None if message is None else str(message),
            )
        return owned.venue.look_up(order)

    # --- the steps before sending --------------------------------------------------------------

    def _view(self, owned: OwnedAccount, orders: Sequence[OrderRequest]) -> AccountView:
        """What the last gate needs to know; readings are at most a few seconds old."""
        now = self._desk.clock.now()
        opening = {order.symbol for order in orders if not order.reduce_only}
        instruments = owned.venue.instruments()
        leverages: dict[str, Decimal] = {}
        positions: Mapping[str, Position] | None = {}
        if owned.venue.market is MarketType.FUTURES:
            for symbol in sorted({order.symbol for order in orders} & set(instruments)):
                mode = owned.venue.trading_mode(
                    symbol, max_age_s=MODE_FRESH_S, priority=Priority.ORDER
                )
                if mode.position_mode is PositionMode.HEDGE:
                    raise Conflict(f"account {owned.account_id} is in hedge mode; {ONE_WAY_HINT}")
                leverages[symbol] = mode.settings.leverage
            positions = self._positions(owned, must=bool(opening))
        quotes = self._desk.read_quotes(owned, opening & set(instruments)) if opening else {}
        return AccountView(
            market=owned.venue.market,
            positions=positions,
            in_flight=owned.exposure_in_flight(now),
            quotes=quotes,
            instruments=instruments,
            leverages=leverages,
            orders_last_minute=owned.orders_last_minute(now),
        )

    def _positions(self, owned: OwnedAccount, *, must: bool) -> Mapping[str, Position] | None:
        fresh = owned.fresh_positions(self._desk.clock.now())
        if fresh is not None:
            return fresh
        try:
            return self._desk.read_positions(owned, Priority.ORDER)
        except Unavailable:
            if must:
                raise
            return None  # reduce-only on the wire protects what cannot be checked here

    def _reserve(
        self,
        owned: OwnedAccount,
        permission: Permission,
        stamp: WriteStamp,
        orders: Sequence[OrderRequest],
    ) -> Reservation | None:
        """The audit rows, committed; None without Postgres. After this only sending is left."""
        if not permission.audited:
            return None
        entries = [
            WriteEntry(WriteKind.ORDER, order.symbol, _request(stamp, order), order.client_id)
            for order in orders
        ]
        try:
            return self._desk.writes.reserve_orders(
                permission.author, entries, self._desk.clock.now()
            )
        except (Unavailable, StaleWriter) as error:
            self._desk.fenced(owned, error)
            raise

    def _note_in_flight(self, owned: OwnedAccount, orders: Sequence[OrderRequest]) -> None:
        now = self._desk.clock.now()
        with owned.lock:
            owned.order_times.extend([now] * len(orders))
            for order in orders:
                if not order.reduce_only:
                    signed = order.side.sign * order.size
                    owned.in_flight[order.client_id] = (order.symbol, signed, None)

    def _settle_in_flight(
        self,
        owned: OwnedAccount,
        orders: Sequence[OrderRequest],
        results: Sequence[SubmitResult],
    ) -> None:
        """Accepted orders count until positions surely show them; others not any more."""
        until = self._desk.clock.now() + timedelta(seconds=IN_FLIGHT_S)
        may_exist = {r.client_id for r in results if r.outcome is not Outcome.REJECTED}
        with owned.lock:
            for order in orders:
                entry = owned.in_flight.pop(order.client_id, None)
                if entry is not None and order.client_id in may_exist:
                    owned.in_flight[order.client_id] = (entry[0], entry[1], until)

    # --- what is left behind -------------------------------------------------------------------

    def _record(
        self,
        owned: OwnedAccount,
        permission: Permission,
        reservation: Reservation | None,
        orders: Sequence[OrderRequest],
        results: Sequence[SubmitResult],
    ) -> None:
        if reservation is None:
            for order, result in zip(orders, results, strict=True):
                request: dict[str, object] = {"order": to_document(order), "without_postgres": True}
                entry = WriteEntry(WriteKind.ORDER, order.symbol, request, order.client_id)
                self._desk.record_late(
                    owned, permission.author, entry, _outcome(result), _answer(result)
                )
            return
        self._desk.record(
            owned,
            {
                reservation.fresh[result.client_id]: (_outcome(result), _answer(result))
                for result in results
                if result.client_id in reservation.fresh
            },
        )
        unresolved = {r.client_id for r in results if r.outcome is Outcome.UNKNOWN}
        with owned.lock:
            for order in orders:
                write_id = reservation.fresh.get(order.client_id)
                if write_id is not None and order.client_id in unresolved:
                    owned.unresolved[write_id] = KnownWrite(
                        write_id,
                        WriteKind.ORDER,
                        order.client_id,
                        order.symbol,
                        permission.author.epoch,
                        {"order": to_document(order)},
                        WriteOutcome.UNKNOWN,
                        sent_at=self._desk.clock.now(),
                    )

    def _after(
        self,
        owned: OwnedAccount,
        permission: Permission,
        orders: Sequence[OrderRequest],
        results: Sequence[SubmitResult],
        seen: set[str],
    ) -> None:
        """Keep the stops of what was accepted, and halt where an id belongs to another order."""
        for order, result in zip(orders, results, strict=True):
            if result.outcome is Outcome.ACCEPTED and order.client_id not in seen:
                self.want_stops_of(owned, order, permission.author.epoch)
        self._desk.on_write(owned.account_id)
        for result in results:
            if result.code == CLIENT_ID_CLASH:
                raise InvariantViolated(result.message or f"clash of id {result.client_id}")

    def want_stops_of(self, owned: OwnedAccount, order: OrderRequest, epoch: int) -> None:
        """An accepted opening order's stops are kept from now on."""
        if order.reduce_only or order.stops.empty:
            return
        self._desk.want_stops(
            owned,
            WantedStops(
                owned.account_id,
                order.symbol,
                order.side is Side.BUY,
                order.stops,
                epoch,
                self._desk.clock.now(),
            ),
        )

    def resolve(self, owned: OwnedAccount, write: KnownWrite) -> bool:
        """Ask for an order whose outcome is unknown; True once it is known and on record."""
        order = from_document(OrderRequest, write.request.get("order"), name="order")
        result = owned.venue.look_up(order, priority=Priority.PROTECTION)
        if result.outcome is not Outcome.ACCEPTED:
            return False
        self._desk.record(owned, {write.write_id: (_outcome(result), _answer(result))})
        if write.epoch == owned.epoch:
            self.want_stops_of(owned, order, write.epoch)
        return True

    # --- cancel and settings -------------------------------------------------------------------

    def cancel(self, owned: OwnedAccount, stamp: WriteStamp, symbol: str, client_id: str) -> None:
        """See `ports.Exchange.cancel`."""
        if not CLIENT_ID.match(client_id):
            raise InvalidInput(f"not a client id: {client_id[:40]!r}")
        permission = self._audited(owned, stamp)
        entry = WriteEntry(WriteKind.CANCEL, symbol, _stamp_document(stamp), client_id)
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
        current = owned.venue.trading_mode(symbol).settings
        if (current.leverage, current.margin_mode) == (leverage, margin_mode):
            return current
        self._require_flat(owned, symbol)
        request: dict[str, object] = {
            **_stamp_document(stamp),
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
        found = owned.venue.trading_mode(symbol).settings
        self._desk.record(owned, {write_id: (WriteOutcome.ACCEPTED, {"found": to_document(found)})})
        return found

    def _require_flat(self, owned: OwnedAccount, symbol: str) -> None:
        snapshot = owned.venue.snapshot(priority=Priority.ORDER)
        held = any(position.symbol == symbol for position in snapshot.positions)
        resting = any(report.symbol == symbol for report in snapshot.open_orders)
        if held or resting:
            what = "has a position" if held else "has open orders"
            raise Conflict(
                f"{symbol} {what}; leverage and margin mode change only while it is flat"
            )

    def _audited(self, owned: OwnedAccount, stamp: WriteStamp) -> Permission:
        permission = self._desk.permit(owned, stamp)
        if not permission.audited:
            raise Unavailable(
                "Postgres does not answer: only reducing orders and stops leave; nothing was sent"
            )
        return permission

    def _reserve_one(self, owned: OwnedAccount, permission: Permission, entry: WriteEntry) -> int:
        try:
            return self._desk.writes.reserve(permission.author, entry, self._desk.clock.now())
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


def _check_batch(orders: Sequence[OrderRequest]) -> None:
    if not 1 <= len(orders) <= BATCH_MAX:
        raise InvalidInput(f"a batch has 1 to {BATCH_MAX} orders, got {len(orders)}")
    ids = [order.client_id for order in orders]
    if len(set(ids)) != len(ids):
        raise InvalidInput(f"a client id is twice in the batch: {ids}")
    for client_id in ids:
        if not CLIENT_ID.match(client_id):
            raise InvalidInput(
                f"client id {client_id[:40]!r} must be 1 to 32 of the characters a-z 0-9 -"
            )


def _stamp_document(stamp: WriteStamp) -> dict[str, object]:
    return {
        "not_after": instant_text(stamp.not_after),
        "cycle": None if stamp.cycle is None else instant_text(stamp.cycle),
    }


def _request(stamp: WriteStamp, order: OrderRequest) -> dict[str, object]:
    return {**_stamp_document(stamp), "order": to_document(order)}


def _refused(order: OrderRequest, refusal: Refusal) -> SubmitResult:
    return SubmitResult(order.client_id, Outcome.REJECTED, None, refusal.code, refusal.message)


def _outcome(result: SubmitResult) -> WriteOutcome:
    if result.outcome is Outcome.REJECTED and result.code == NOT_SENT:
        return WriteOutcome.NOT_SENT
    return _OUTCOMES[result.outcome]


def _answer(result: SubmitResult) -> dict[str, object]:
    return {"order_id": result.order_id, "code": result.code, "message": result.message}
