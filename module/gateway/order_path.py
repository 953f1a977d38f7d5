"""From a session's request to the exchange: the only way an order leaves.

    stamp ─► last gate ─► request budget ─► audit row ─► send ─► outcome on record ─► wanted stops

Each step can refuse; after the audit row nothing is refused any more, it is sent or it is written
down as not sent. A client id that has been here before is answered by asking the exchange.

Postgres is asked twice for a batch: the statement that puts it on record also compares the epoch
and the owner and comes back with the limits of that moment; the one that records the outcomes also
keeps the stops that go with them (`order_record.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from module.db.repositories.gateway_writes import KnownWrite, WriteOutcome
from module.exchange.agreement import difference
from module.exchange.venue import CLIENT_ID_CLASH, Priority, leaving_by
from module.gateway.account_desk import AccountDesk
from module.gateway.account_view import held_back, read_view
from module.gateway.alarms import Alarms
from module.gateway.limits import AccountView, Refusal, judge_orders, read_limits
from module.gateway.order_record import (
    Batch,
    OrderRecord,
    as_recorded,
    brings_stops,
    nobody_knows,
    outcome_on_record,
)
from module.gateway.owned_account import IN_FLIGHT_S, OwnedAccount
from module.gateway.read_back import overfilled
from module.gateway.settings_path import CLIENT_ID, WITHOUT_POSTGRES
from module.model.canonical import instant_text
from module.model.errors import InvalidInput, InvariantViolated, Retryable, Unavailable
from module.model.orders import (
    NOT_SENT,
    RULED_OUT,
    Fill,
    OrderReport,
    OrderRequest,
    Outcome,
    SubmitResult,
    WriteStamp,
)
from module.points import reach
from module.wire.model_codec import from_document

log = logging.getLogger(__name__)

BATCH_MAX = 5
STANDSTILL_MAX_S = 1.0
HALTED = "halted"
CLASH_IS_NEWS = timedelta(minutes=10)


class OrderPath:
    """Orders of all accounts of a desk. Thread safe."""

    def __init__(self, desk: AccountDesk, alarms: Alarms) -> None:
        self._desk = desk
        self._alarms = alarms
        self._record = OrderRecord(desk)

    def submit(
        self, owned: OwnedAccount, stamp: WriteStamp, orders: Sequence[OrderRequest]
    ) -> list[SubmitResult]:
        """See `ports.Exchange.submit`; RateLimited and Unavailable mean that nothing was sent."""
        _check_batch(orders)
        with owned.gate:
            batch = Batch(owned, self._desk.admit(owned, stamp), stamp, orders)
            if batch.opens and not batch.permission.audited:
                raise Unavailable(WITHOUT_POSTGRES)
            view = read_view(self._desk, owned, orders)
            self._judge(batch, view)
            if batch.refusals and not batch.permission.is_read:
                batch.permission = self._desk.permit(owned, stamp)  # limits may have been raised
                batch.refusals.clear()
                self._judge(batch, view)
            if batch.going:
                priority = Priority.ORDER if batch.opens else Priority.CANCEL
                owned.venue.admit_orders(batch.going, priority=priority)
            self._desk.check_deadline(stamp)
            reach("gateway: judged")
            self._put_on_record(batch, view)
            self._note_in_flight(batch)
        reach("gateway: reserved")
        results = {
            order.client_id: self._answer_seen(owned, order, batch.seen[order.client_id])
            for order in orders
            if order.client_id in batch.seen
        }
        fresh = [order for order in batch.going if order.client_id not in results]
        results.update({result.client_id: result for result in self._send(batch, fresh)})
        for order in orders:
            if order.client_id not in results:
                refusal = batch.refusals[order.client_id]
                results[order.client_id] = self._refused(batch, order, refusal)
        answered = [results[order.client_id] for order in orders]
        reach("gateway: answered")
        if not self._record.end(batch, answered):
            answered = [as_recorded(result) for result in answered]
        reach("gateway: recorded")
        self._after(batch, answered)
        return answered

    # --- the last gate -------------------------------------------------------------------------

    def _judge(self, batch: Batch, view: AccountView) -> None:
        """Refuse what limits or the account's state forbid."""
        owned = batch.owned
        batch.refusals.update(judge_orders(batch.going, owned.limits, view))
        for order in batch.going:
            refusal = held_back(owned, order)
            if refusal is not None:
                batch.refusals[order.client_id] = refusal

    def _put_on_record(self, batch: Batch, view: AccountView) -> None:
        """Audit rows, committed; without Postgres the spool. After this only sending is left.

        The rows come back with the limits of that very moment: a kill switch that was set while
        this batch was judged still holds (I22).
        """
        owned = batch.owned
        self._record.begin(batch)
        if batch.reservation is not None:
            limits = read_limits(batch.reservation.limits)
            if limits != owned.limits:
                with owned.lock:
                    owned.limits = limits
                self._judge(batch, view)
        batch.taken_at, batch.taken_s = self._desk.clock.now(), self._desk.clock.monotonic()

    def _note_in_flight(self, batch: Batch) -> None:
        owned, now = batch.owned, self._desk.clock.now()
        leaving = [order for order in batch.going if order.client_id not in batch.seen]
        owned.touch({order.symbol for order in leaving}, now)
        owned.note_written({order.symbol for order in leaving}, now)
        with owned.lock:
            owned.order_times.extend([now] * len(leaving))
            for order in leaving:
                owned.remember_sent(order)
                if not order.reduce_only:
                    signed = order.side.sign * order.size
                    owned.in_flight[order.client_id] = (order.symbol, signed, None)

    # --- sending -------------------------------------------------------------------------------

    def _send(self, batch: Batch, orders: Sequence[OrderRequest]) -> list[SubmitResult]:
        """Send and resolve at once what stayed unknown. Retryable: nothing was sent, and everybody
        can know it; what only this process knows is unknown (its ids are taken on the record)."""
        owned = batch.owned
        if not orders:
            return []
        try:
            self._check_pace(batch)
            reach("gateway: sending")
            with leaving_by(batch.stamp.not_after):
                results = owned.venue.submit(orders, on_answer=partial(self._answered, batch))
        except Retryable as error:
            owned.forget_sent(order.client_id for order in orders)
            if self._record.end_unsent(batch, error):
                self._settle_in_flight(owned, orders, [])
                raise
            results = [nobody_knows(order.client_id, error.message) for order in orders]
            self._settle_in_flight(owned, orders, results)
            return results
        reach("gateway: sent")
        by_id = {order.client_id: order for order in orders}
        resolved = [self._resolved(batch, by_id[each.client_id], each) for each in results]
        self._settle_in_flight(owned, orders, resolved)
        return resolved

    @staticmethod
    def _resolved(batch: Batch, order: OrderRequest, result: SubmitResult) -> SubmitResult:
        """An unknown outcome is asked for at once. So is the refusal of what was sent back before:
        a copy of it that got there may be why (nothing left to reduce, no margin left)."""
        if result.outcome is Outcome.UNKNOWN and result.code is None:
            return batch.owned.venue.look_up(order)
        is_refused = result.outcome is Outcome.REJECTED and result.code != NOT_SENT
        if is_refused and batch.was_sent_back(order):
            found = batch.owned.venue.look_up(order)
            is_there = found.outcome is Outcome.ACCEPTED or found.code == CLIENT_ID_CLASH
            return found if is_there else result
        return result

    def _answered(self, batch: Batch, result: SubmitResult) -> None:
        """The exchange took one order, others of its batch may be silent for ten seconds: the guard
        knows its stops from now on. They get on record with the batch; a gateway that dies before
        asks for the order and wishes them then (`resolve`)."""
        order = next(order for order in batch.orders if order.client_id == result.client_id)
        if result.outcome is Outcome.ACCEPTED and brings_stops(order):
            wish = self._record.wish(batch.owned, order, batch.permission.author.epoch)
            kept = self._desk.expect_stops(batch.owned, wish)
            batch.wishes[order.client_id] = wish if kept is None else kept

    def _check_pace(self, batch: Batch) -> None:
        """A process that stood still between record and sending, or while the record was written,
        sends nothing old (C8)."""
        clock = self._desk.clock
        now = clock.now()
        if now > batch.stamp.not_after:
            raise Unavailable(
                f"not_after {instant_text(batch.stamp.not_after)} passed while this was put on "
                f"record, it is {instant_text(now)}; nothing was sent"
            )
        stood_s = (now - (batch.taken_at or now)).total_seconds()
        if stood_s > STANDSTILL_MAX_S and clock.monotonic() - batch.taken_s > STANDSTILL_MAX_S:
            raise Unavailable(
                f"this gateway stood still for {stood_s:.1f} s before it could send; nothing was "
                "sent, what it knew may be old"
            )

    def _refused(self, batch: Batch, order: OrderRequest, refusal: Refusal) -> SubmitResult:
        """What the last gate refuses. An order that was handed over before and sent back (a 429)
        is refused only by evidence: that answer may have been a copy's, and "no position to
        reduce" its own doing."""
        if batch.was_sent_back(order):
            return batch.owned.venue.look_up(order)
        return _refused(order, refusal)

    def _answer_seen(
        self, owned: OwnedAccount, order: OrderRequest, known: KnownWrite
    ) -> SubmitResult:
        """The client id has been here: the recorded refusal, else what the exchange says."""
        if known.outcome is WriteOutcome.RULED_OUT:
            why = "it was ruled out before it left, and is never sent"
            return SubmitResult(order.client_id, Outcome.REJECTED, None, RULED_OUT, why)
        recorded = from_document(OrderRequest, known.request.get("order"), name="order")
        if replace(recorded, reference_price=order.reference_price) != order:
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

    def _settle_in_flight(
        self,
        owned: OwnedAccount,
        orders: Sequence[OrderRequest],
        results: Sequence[SubmitResult],
    ) -> None:
        """Accepted orders count until positions surely show them; others not any more."""
        now = self._desk.clock.now()
        until = now + timedelta(seconds=IN_FLIGHT_S)
        owned.note_written({order.symbol for order in orders}, now)
        may_exist = {r.client_id for r in results if r.outcome is not Outcome.REJECTED}
        with owned.lock:
            for order in orders:
                entry = owned.in_flight.pop(order.client_id, None)
                if entry is not None and order.client_id in may_exist:
                    owned.in_flight[order.client_id] = (entry[0], entry[1], until)

    # --- what is left behind -------------------------------------------------------------------

    def _after(self, batch: Batch, results: Sequence[SubmitResult]) -> None:
        """Let the guard look, and halt where an id belongs to another order."""
        owned = batch.owned
        for result in results:
            owned.remember_id(result.order_id, result.client_id)
        self._desk.on_write(owned.account_id)
        for result in results:
            if result.code == CLIENT_ID_CLASH:
                raise self.halt(owned, result.message or f"clash of id {result.client_id}")

    def halt(self, owned: OwnedAccount, why: str) -> InvariantViolated:
        """Open nothing more for this session, tell people; the error to raise."""
        with owned.lock:
            owned.halted = why
        log.error("account %s is halted: %s", owned.account_id, why)
        self._alarms.tell(
            owned,
            "halted",
            "Trading was halted: the exchange shows another order than was sent",
            (("why", why), ("what now", "nothing opens until a session is started again")),
            cause="halted",
        )
        return InvariantViolated(f"account {owned.account_id} is halted: {why}", code=HALTED)

    def check_read_back(self, owned: OwnedAccount, report: OrderReport) -> None:
        """The exchange shows an order of ours: is it what was sent (A26)? Else halt."""
        order = owned.sent.get(report.client_id)
        if order is None or order.symbol != report.symbol:
            return
        other = difference(order, report, owned.venue.market)
        if other:
            raise self.halt(owned, f"order {report.client_id} is another than was sent: {other}")
        owned.remember_id(report.order_id, report.client_id)

    def check_fills(self, owned: OwnedAccount, fills: Sequence[Fill]) -> None:
        """The exchange tells fills: no order of ours was filled beyond its size (B3). Else halt."""
        with owned.lock:
            sent = {
                order_id: owned.sent[client_id]
                for order_id, client_id in owned.ids.items()
                if client_id in owned.sent
            }
        found = overfilled(fills, sent, owned.venue.market)
        if found:
            raise self.halt(owned, found)

    def resolve(self, owned: OwnedAccount, write: KnownWrite) -> bool:
        """Ask for an order whose outcome is unknown; True once there is nothing more to ask: it is
        known and on record, or another order lives under its id."""
        order = from_document(OrderRequest, write.request.get("order"), name="order")
        owned.remember_sent(order)  # so that its session, too, is told of no other as its own
        result = owned.venue.look_up(order, priority=Priority.PROTECTION)
        if result.code == CLIENT_ID_CLASH:
            self._halt_for(owned, write, result.message or f"clash of id {result.client_id}")
            return True
        if result.outcome is not Outcome.ACCEPTED:
            return False
        # A leader that came since may not have wished anything of this symbol: its stops are right.
        # So are those that the order's own session has set since it was sent.
        with owned.lock:
            known = owned.wanted.get(order.symbol)
        is_newest = write.epoch == owned.epoch or known is None or known.epoch <= write.epoch
        if known is not None and known.epoch == write.epoch and write.sent_at is not None:
            was_set_back = known.updated_at > self._desk.clock.now()  # C7: its time says nothing
            is_newest = is_newest and (known.updated_at <= write.sent_at or was_set_back)
        is_ours = is_newest and brings_stops(order)
        self._desk.record(
            owned,
            {write.write_id: outcome_on_record(result)},
            [self._record.wish(owned, order, write.epoch)] if is_ours else [],
        )
        return True

    def _halt_for(self, owned: OwnedAccount, write: KnownWrite, why: str) -> None:
        """A clash that only a later look shows halts as one at submit does (A6), once. On record it
        stays unknown, so every gateway finds it again: one of a session that is over, and was told
        long ago, is no news."""
        sent_at = write.sent_at
        is_young = sent_at is not None and self._desk.clock.now() - sent_at <= CLASH_IS_NEWS
        if (write.epoch == owned.epoch or is_young) and not owned.halted:
            self.halt(owned, why)


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


def _refused(order: OrderRequest, refusal: Refusal) -> SubmitResult:
    return SubmitResult(order.client_id, Outcome.REJECTED, None, refusal.code, refusal.message)
