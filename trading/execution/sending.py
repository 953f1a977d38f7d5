"""The only place where orders leave a session: durable as *sent*, compared, submitted, booked.

    legs of a phase ─► batches of ≤ 5 ─► letter (sent) ─► departures ─► submit ─► each leg's result
                          ▲                                                 │
                          └── room again (rate limit): same id, new deadline┘

Batches of one phase follow each other without waiting for fills. A batch's results are saved with
the next batch, or with what the exchange says of its orders: a process that dies in between asks
the exchange. What the exchange cannot tell (a refusal, a lost answer, what did not leave) is saved
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from module.model.errors import (
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Retryable,
    StaleWriter,
    TooLate,
)
from module.model.market import Instrument
from module.model.money import round_down
from module.model.orders import (
    NO_STOPS,
    NOT_SENT,
    OrderRequest,
    Outcome,
    SubmitResult,
)
from module.points import reach
from trading.execution.departures import Departures
from trading.execution.evidence import Evidence
from trading.execution.freshness import too_old_to_begin, too_old_to_open
from trading.execution.scribe import SEND_WINDOW_S, Scribe
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    LegRecord,
    OrderInfo,
    given_up,
    next_slice,
    with_current,
)

BATCH_MAX = 5
SEND_PATIENCE_S = 60.0
"""World seconds for which one phase waits for room to send; then its rest waits for the next
cycle."""
ROOM_WAIT_FIRST_S = 0.1
ROOM_WAIT_MAX_S = 30.0
OPENS_NOTHING = frozenset({"kill-switch", "halted", "clock-skew"})
"""Codes with which the last gate says that this account opens nothing at all for now."""

Refit = Callable[[OrderInfo], OrderInfo]


@dataclass(frozen=True, slots=True)
class _Sent:
    """A letter after a batch; when there is room again for what did not leave; why the account
    opens nothing for now (empty: it does)."""

    info: OrderInfo
    room_at: datetime | None
    refused: bool
    held: str = ""


@dataclass(slots=True)
class Sender:
    """Sends the legs of one cycle. `sent_here`: client ids of what this process has sent."""

    scribe: Scribe
    evidence: Evidence
    departures: Departures
    sent_here: set[str] = field(default_factory=set)

    def send(
        self,
        info: OrderInfo,
        leg_ids: Sequence[str],
        instruments: Mapping[str, Instrument],
        *,
        opening: bool,
        refit: Refit,
    ) -> OrderInfo:
        """Send these legs, back to back, limited only by the exchange's budget.

        Before each batch that opens the session is asked whether it is to stop (I22). The first
        refusal of an opening makes `refit` size what has not left yet anew, once (A18); one that
        says that the account opens nothing at all ends the phase (I22). Unavailable when the
        gateway or the exchange is away: nothing of that batch has left.
        """
        queue = list(leg_ids)
        give_up_at = self.scribe.now() + timedelta(seconds=SEND_PATIENCE_S)
        refitted = False
        while queue:
            why = self._reason_to_end(info, opening=opening)
            if why:
                return self._give_up(info, queue, why)
            sent = self._send_batch(info, queue[:BATCH_MAX], instruments)
            info = sent.info
            queue = [leg_id for leg_id in queue if _may_leave(info.leg(leg_id), queue[:BATCH_MAX])]
            if sent.held and opening:
                return self._give_up(info, queue, sent.held)
            if sent.room_at is not None:
                if sent.room_at > give_up_at:
                    return self._give_up(info, queue, "there was no room to send it in time")
                info = self._await_room(info, sent.room_at)
            if sent.refused and opening and queue and not refitted:
                refitted = True
                info = refit(info)
                queue = [leg_id for leg_id in queue if not info.leg(leg_id).is_over]
        return self.scribe.save(info) if self._says_more(info) else info

    def _says_more(self, info: OrderInfo) -> bool:
        """Whether `info` has more than the durable letter and what the exchange says of orders that
        were sent."""
        durable = self.scribe.durable
        if info is durable:
            return False
        if durable is None or len(durable.legs) != len(info.legs):
            return True
        return any(
            record is not known and not _is_answered(known, record)
            for known, record in zip(durable.legs, info.legs, strict=True)
        )

    def _reason_to_end(self, info: OrderInfo, *, opening: bool) -> str:
        # A process that stood still after its plan was judged (C8): nothing of it has left yet.
        least_age_s = self.scribe.rules.least_age_s(info)
        why = too_old_to_begin(info, self.scribe.now(), least_age_s)
        if why or not opening:
            return why
        if self.scribe.rules.stop_requested():
            return "the session is stopping"
        return too_old_to_open(info, self.scribe.now(), least_age_s)

    def _give_up(self, info: OrderInfo, leg_ids: Sequence[str], why: str) -> OrderInfo:
        updates = {leg_id: given_up(info.leg(leg_id), why) for leg_id in leg_ids}
        return self.scribe.save(info.with_legs(updates))

    def _await_room(self, info: OrderInfo, room_at: datetime) -> OrderInfo:
        """Until the budget has room; what has left already is asked for meanwhile."""
        if any(record.is_open for record in info.legs):
            info = self.evidence.look(info)
        wait_s = (room_at - self.scribe.now()).total_seconds()
        if wait_s > 0:
            self.scribe.ports.clock.sleep(wait_s)
        return info

    def _send_batch(
        self, info: OrderInfo, leg_ids: Sequence[str], instruments: Mapping[str, Instrument]
    ) -> _Sent:
        """One durable write, the comparison with the plan, one submit of up to five orders."""
        clock = self.scribe.ports.clock
        not_after, began_s = self.scribe.deadline(), clock.monotonic()
        leaving: dict[str, LegRecord] = {}
        for leg_id in leg_ids:
            record = self._sliced(info, info.leg(leg_id), instruments)
            leaving[leg_id] = with_current(
                record, LegState.SENT, not_after=not_after, code=None, message=None
            )
        info = self.scribe.save(info.with_legs(leaving))
        orders = [_request(record) for record in leaving.values()]
        stood_s = clock.monotonic() - began_s
        if stood_s > SEND_WINDOW_S:  # real time: `not_after` says nothing if a clock is set back
            error = TooLate(f"this process stood still for {stood_s:.0f} s; nothing was sent")
            return self._booked(info, leaving, _none_left(orders, error), _bounded(None))
        self.departures.admit(orders, self.scribe.durable)
        self.sent_here.update(order.client_id for order in orders)
        reach("execution: before submit")
        try:
            results = self.scribe.ports.exchange.submit(self.scribe.stamp(info, not_after), orders)
        except OutcomeUnknown as error:
            results = [
                SubmitResult(order.client_id, Outcome.UNKNOWN, message=error.message)
                for order in orders
            ]
        except (RateLimited, TooLate) as error:
            results = _none_left(orders, error)
            wait_s = error.retry_after_s if isinstance(error, RateLimited) else None
            return self._booked(info, leaving, results, _bounded(wait_s))
        except Retryable as error:
            booked = self._booked(info, leaving, _none_left(orders, error), 0.0)
            self.scribe.save(booked.info)
            raise
        except StaleWriter:
            raise  # another leader owns the account
        except Rejected as error:
            results = [
                SubmitResult(order.client_id, Outcome.REJECTED, None, error.code, error.message)
                for order in orders
            ]
        reach("execution: after submit")
        return self._booked(info, leaving, results, _bounded(None))

    def _sliced(
        self, info: OrderInfo, record: LegRecord, instruments: Mapping[str, Instrument]
    ) -> LegRecord:
        """With a slice that may leave: one that did not leave before, or the next one."""
        if record.current is not None and record.current.state is LegState.PLANNED:
            return record
        instrument = instruments.get(record.leg.symbol)
        size_max = record.size
        if instrument is not None:
            size_max = round_down(instrument.market_size_max, instrument.size_step)
        return next_slice(record, size_max, self.scribe.identify(info))

    def _booked(
        self,
        info: OrderInfo,
        leaving: Mapping[str, LegRecord],
        results: Sequence[SubmitResult],
        wait_s: float,
    ) -> _Sent:
        """Each leg by its exact client id; one that no result names is unknown (A7, A8)."""
        by_id = {result.client_id: result for result in results}
        updates: dict[str, LegRecord] = {}
        for leg_id, record in leaving.items():
            assert record.current is not None
            result = by_id.get(record.current.client_id)
            updates[leg_id] = _with_result(record, result)
            if _did_not_leave(result):
                self.departures.take_back(record.current.client_id)
        unsent = any(record.state is LegState.PLANNED for record in updates.values())
        refused = any(record.state is LegState.REJECTED for record in updates.values())
        room_at = self.scribe.now() + timedelta(seconds=wait_s) if unsent else None
        held = next((why for why in map(why_nothing_opens, updates.values()) if why), "")
        return _Sent(info.with_legs(updates), room_at, refused, held)


def why_nothing_opens(record: LegRecord) -> str:
    """What the last gate said when it refused this leg because the account opens nothing at all;
    empty: it did not."""
    current = record.current
    if current is None or current.state is not LegState.REJECTED:
        return ""
    if current.code not in OPENS_NOTHING:
        return ""
    return current.message or str(current.code)


def _is_answered(known: LegRecord, record: LegRecord) -> bool:
    """`record` is `known`, whose newest slice was sent and has been taken since."""
    sent, now = known.current, record.current
    return (
        sent is not None
        and now is not None
        and sent.state is LegState.SENT
        and now.state is LegState.ACKNOWLEDGED
        and sent.client_id == now.client_id
        and (known.abandoned, known.sized) == (record.abandoned, record.sized)
    )


def _may_leave(record: LegRecord, tried: Sequence[str]) -> bool:
    """Still to be sent in this phase: not tried yet, or it certainly did not leave."""
    if record.is_over:
        return False
    if record.leg.leg_id not in tried:
        return True
    return record.current is not None and record.current.state is LegState.PLANNED


def _request(record: LegRecord) -> OrderRequest:
    current = record.current
    assert current is not None
    return OrderRequest(
        client_id=current.client_id,
        symbol=record.leg.symbol,
        side=record.leg.side,
        size=current.size,
        reduce_only=record.leg.reduce_only,
        stops=NO_STOPS if record.leg.reduce_only else record.stops,
        reference_price=record.leg.reference_price,
    )


def _none_left(orders: Sequence[OrderRequest], error: Retryable | TooLate) -> list[SubmitResult]:
    return [
        SubmitResult(order.client_id, Outcome.REJECTED, None, NOT_SENT, error.message)
        for order in orders
    ]


def _did_not_leave(result: SubmitResult | None) -> bool:
    return result is not None and (result.outcome, result.code) == (Outcome.REJECTED, NOT_SENT)


def _with_result(record: LegRecord, result: SubmitResult | None) -> LegRecord:
    if result is None or result.outcome is Outcome.UNKNOWN:
        message = "no result for it" if result is None else result.message
        return with_current(record, LegState.UNKNOWN, message=message)
    if result.outcome is Outcome.ACCEPTED:
        return with_current(record, LegState.ACKNOWLEDGED, order_id=result.order_id)
    if _did_not_leave(result):
        return with_current(
            record, LegState.PLANNED, not_after=None, code=NOT_SENT, message=result.message
        )
    return with_current(
        record,
        LegState.REJECTED,
        code=result.code,
        message=result.message,
        rules_changed=result.rules_changed,
    )


def _bounded(wait_s: float | None) -> float:
    return min(max(wait_s or 0.0, ROOM_WAIT_FIRST_S), ROOM_WAIT_MAX_S)
