"""What is on record of a batch of orders: that it may leave, before it does; what became of it.

    last gate ─► begin ─► sent? ── yes ─► end: outcomes and the stops that go with them, as one
                                 └─ no ──► end_unsent: its client ids are free again

The rows are in Postgres; where it is away and the batch only reduces, they are in the spool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from module.db.repositories.accounts import LEASE_LOST
from module.db.repositories.gateway_writes import (
    GATE_REFUSED,
    KnownWrite,
    Reservation,
    WriteEntry,
    WriteKind,
    WriteOutcome,
)
from module.db.repositories.wanted_stops import WantedStops
from module.gateway.account_desk import AccountDesk, Permission
from module.gateway.limits import Refusal
from module.gateway.owned_account import OwnedAccount
from module.gateway.settings_path import WITHOUT_POSTGRES, stamp_document
from module.model.errors import NotFound, Retryable, StaleWriter, Unavailable
from module.model.orders import NOT_SENT, OrderRequest, Outcome, Side, SubmitResult, WriteStamp
from module.wire.model_codec import to_document

UNRECORDED = "that could not be put on record, so ask first"
_OUTCOMES = {
    Outcome.ACCEPTED: WriteOutcome.ACCEPTED,
    Outcome.REJECTED: WriteOutcome.REJECTED,
    Outcome.UNKNOWN: WriteOutcome.UNKNOWN,
}


@dataclass(slots=True)
class Batch:
    """One submit on its way. `taken_at` and `taken_s`: when it was put on record, in world and in
    real time (neither a world that stands still nor one that runs fast makes it old)."""

    owned: OwnedAccount
    permission: Permission
    stamp: WriteStamp
    orders: Sequence[OrderRequest]
    refusals: dict[str, Refusal] = field(default_factory=dict)
    reservation: Reservation | None = None
    late_ids: dict[str, str] = field(default_factory=dict)
    wishes: dict[str, WantedStops] = field(default_factory=dict)
    taken_at: datetime | None = None
    taken_s: float = 0.0

    @property
    def going(self) -> list[OrderRequest]:
        """Orders that nothing has refused."""
        return [order for order in self.orders if order.client_id not in self.refusals]

    @property
    def opens(self) -> bool:
        """Whether any of it adds exposure."""
        return any(not order.reduce_only for order in self.orders)

    def was_sent_back(self, order: OrderRequest) -> bool:
        """Whether it was on its way before, by the record, and was told not to be there."""
        return self.reservation is not None and order.client_id in self.reservation.again

    @property
    def seen(self) -> dict[str, KnownWrite]:
        """Orders whose client id has been here before."""
        return dict(self.reservation.seen) if self.reservation else {}


class OrderRecord:
    """What batches leave behind in Postgres, or in the spool. Thread safe."""

    def __init__(self, desk: AccountDesk) -> None:
        self._desk = desk

    def begin(self, batch: Batch) -> None:
        """The rows of a batch, committed; without Postgres the spool's, of what is going.

        NotFound, StaleWriter, Unavailable: nothing may be sent.
        """
        permission = batch.permission
        entries = {
            order.client_id: WriteEntry(
                WriteKind.ORDER, order.symbol, _request(batch.stamp, order), order.client_id
            )
            for order in batch.orders
        }
        if permission.audited:
            batch.reservation = self._reserve(batch, list(entries.values()))
        if batch.reservation is None:
            for order in batch.going:
                batch.late_ids[order.client_id] = self._desk.audit.begin_late(
                    permission.author, entries[order.client_id]
                )

    def _reserve(self, batch: Batch, entries: list[WriteEntry]) -> Reservation | None:
        """The rows; None where Postgres is away and the batch only reduces: it is spooled."""
        owned, author = batch.owned, batch.permission.author
        try:
            return self._desk.audit.writes.reserve_orders(author, entries, self._desk.clock.now())
        except NotFound:
            self._desk.permit(owned, batch.stamp)  # says why: switched off, or not there
            raise
        except StaleWriter:
            raise
        except Unavailable as error:
            self._desk.fenced(owned, error)
            if error.code == LEASE_LOST:
                raise
            if batch.opens:
                raise Unavailable(WITHOUT_POSTGRES) from error
            return None

    def end_unsent(self, batch: Batch, error: Retryable) -> bool:
        """Free the client ids of the whole batch, of what was refused too: nobody is told that.
        False when Postgres has the ids and not yet that they are free."""
        answer: dict[str, object] = {"message": error.message}
        for late_id in batch.late_ids.values():
            self._desk.audit.end_late(late_id, WriteOutcome.NOT_SENT, answer)
        if batch.reservation is None:
            return True
        never_left = batch.refusals.keys() - batch.reservation.again
        refused = {**answer, GATE_REFUSED: True}
        return self._desk.record(
            batch.owned,
            {
                number: (WriteOutcome.NOT_SENT, refused if client_id in never_left else answer)
                for client_id, number in batch.reservation.fresh.items()
            },
        )

    def end(self, batch: Batch, results: Sequence[SubmitResult]) -> bool:
        """Write down what became of each; False when Postgres does not have it yet."""
        owned, reservation = batch.owned, batch.reservation
        if reservation is None:
            for result in results:
                late_id = batch.late_ids.get(result.client_id)
                if late_id is not None:
                    self._desk.audit.end_late(late_id, *outcome_on_record(result))
            return True
        author = batch.permission.author
        kept = self._desk.record(
            owned,
            {
                reservation.fresh[result.client_id]: outcome_on_record(result)
                for result in results
                if result.client_id in reservation.fresh
            },
            [
                wish
                for order, result in zip(batch.orders, results, strict=True)
                if result.outcome is Outcome.ACCEPTED
                and order.client_id in reservation.fresh
                and brings_stops(order)
                and (wish := self._lasting_wish(batch, order)) is not None
            ],
        )
        unresolved = {r.client_id for r in results if r.outcome is Outcome.UNKNOWN}
        with owned.lock:
            for order in batch.orders:
                write_id = reservation.fresh.get(order.client_id)
                if write_id is not None and order.client_id in unresolved:
                    owned.unresolved[write_id] = KnownWrite(
                        write_id,
                        WriteKind.ORDER,
                        order.client_id,
                        order.symbol,
                        author.epoch,
                        {"order": to_document(order)},
                        WriteOutcome.UNKNOWN,
                        sent_at=self._desk.clock.now(),
                    )
        return kept

    def wish(self, owned: OwnedAccount, order: OrderRequest, epoch: int) -> WantedStops:
        """An accepted opening order's stops, which are kept from now on."""
        return WantedStops(
            owned.account_id,
            order.symbol,
            order.side is Side.BUY,
            order.stops,
            epoch,
            self._desk.clock.now(),
        )

    def _lasting_wish(self, batch: Batch, order: OrderRequest) -> WantedStops | None:
        """What to put on record of an accepted order; None: its session has set other stops since
        the exchange answered, and those stay."""
        wish = batch.wishes.get(order.client_id)
        if wish is None:  # a look-up found it: nobody has wished it yet
            return self.wish(batch.owned, order, batch.permission.author.epoch)
        with batch.owned.lock:
            return wish if batch.owned.wanted.get(order.symbol) is wish else None


def brings_stops(order: OrderRequest) -> bool:
    """Whether it opens a position that is to have stops."""
    return not order.reduce_only and not order.stops.empty


def nobody_knows(client_id: str, message: str | None) -> SubmitResult:
    """It may have left, or not: whoever asked for it asks again."""
    return SubmitResult(client_id, Outcome.UNKNOWN, message=f"{message}; {UNRECORDED}")


def as_recorded(result: SubmitResult) -> SubmitResult:
    """A result that could not be put on record. That an order was not sent counts only there: a
    gateway that takes over finds its client id taken, by an order that may have left."""
    if result.outcome is Outcome.REJECTED and result.code == NOT_SENT:
        return nobody_knows(result.client_id, result.message)
    return result


def outcome_on_record(result: SubmitResult) -> tuple[WriteOutcome, dict[str, object]]:
    """What a result is written down as, and its answer."""
    answer: dict[str, object] = {
        "order_id": result.order_id,
        "code": result.code,
        "message": result.message,
    }
    if result.outcome is Outcome.REJECTED and result.code == NOT_SENT:
        return WriteOutcome.NOT_SENT, answer
    return _OUTCOMES[result.outcome], answer


def _request(stamp: WriteStamp, order: OrderRequest) -> dict[str, object]:
    return {**stamp_document(stamp), "order": to_document(order)}
