"""Finds out what became of orders: by their client ids, until each is over or proven absent.

    sent / unknown ─► ask by client id ─► found: booked ─► over
                                      └─► not found ─► the gateway's record ─► never left: absent
                                          left, too late to arrive, not found again: absent
    acknowledged, long ago, not shown ─► open orders and fills say its end ─► over, and told

A failing query is no evidence. An order that rests too long is canceled, and its end is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from operator import attrgetter

from module.model.errors import Conflict, NotFound, OutcomeUnknown, Retryable, TooLate
from module.model.money import ZERO, plain
from module.model.orders import MissingOrder, OrderReport, OrderStatus, OrderTrace, Passage
from module.points import reach
from trading.execution.scribe import Scribe
from trading.ledger.ledger import filled_by_order
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import LegRecord, OrderInfo, Slice, with_current, with_report

WITHOUT_RECORD_S = 60.0
"""World seconds after `not_after` before an absence counts while the gateway cannot say how far the
order came: longer than any exchange takes a request after the time that it was signed with."""
SETTLE_LIMIT_S = 30.0
"""World seconds after which an order that still rests is canceled."""
POLL_FIRST_S = 0.06
POLL_MAX_S = 1.0
POLLS_MAX = 400
END_BELIEVED_S = 30.0
"""World seconds after which a cancelled order is believed without the list of fills."""
FILLS_MARGIN_S = 5.0
"""The list of fills is asked for from so long before the order was made."""
FORGOTTEN_AFTER = timedelta(hours=1)
"""World time after its deadline before an acknowledged order may be over without being shown: far
longer than any index lags. Exchanges may keep cancelled orders without fills for hours only."""
FORGOTTEN_WITHIN = timedelta(days=80)
"""And so long at most: executions are listed for 90 days."""
FORGOTTEN = "forgotten"
ABSENCES = 2
"""So many looks, once it is too late to arrive, must not find an order before it is absent."""

Chosen = Callable[[LegRecord], bool]


@dataclass(frozen=True, slots=True)
class _End:
    """So much of an order that was canceled was filled, said first at that time."""

    filled_size: Decimal
    said_at: datetime


@dataclass(slots=True)
class Evidence:
    """What one run has seen: absences and ends that one look does not prove (B4)."""

    scribe: Scribe
    absences: dict[str, int] = field(default_factory=dict)
    ends: dict[str, _End] = field(default_factory=dict)
    canceled: set[str] = field(default_factory=set)

    def settle(self, info: OrderInfo, waits_for: Chosen) -> OrderInfo:
        """Look at every open order until none of those in `waits_for` is open any more.

        Conflict after POLLS_MAX looks: the session stops so that a person can see why.
        """
        clock = self.scribe.ports.clock
        started = clock.now()
        delay_s = POLL_FIRST_S
        for _ in range(POLLS_MAX):
            waiting = [record for record in info.legs if record.is_open and waits_for(record)]
            if not waiting:
                return info
            if not any(record.is_unproven for record in waiting):
                clock.sleep(delay_s)  # just acknowledged: asked at once it would not be over
            info = self.look(info)
            if clock.now() - started > timedelta(seconds=SETTLE_LIMIT_S):
                self._cancel_resting(info, waits_for)
            if any(record.is_unproven and waits_for(record) for record in info.legs):
                clock.sleep(delay_s)
            delay_s = min(delay_s * 2, POLL_MAX_S)
        raise Conflict(
            f"cycle {info.cycle}: orders are still unresolved after {POLLS_MAX} looks; "
            "the session stops so that a person can see why"
        )

    def look(self, info: OrderInfo) -> OrderInfo:
        """Ask once for every open order and book what is proven."""
        updates: dict[str, LegRecord] = {}
        for record in info.legs:
            if not record.is_open:
                continue
            seen = self._ask(info, record)
            if seen != record:
                updates[record.leg.leg_id] = seen
        if not updates:
            return info
        reach("execution: evidence found")
        return self.scribe.save(info.with_legs(updates))

    def _ask(self, info: OrderInfo, record: LegRecord) -> LegRecord:
        current = record.current
        assert current is not None
        try:
            report = self.scribe.ports.exchange.order(record.leg.symbol, current.client_id)
        except NotFound:
            return self._missing(info, record)
        return with_report(record, report) if self._is_proof(report) else record

    def _missing(self, info: OrderInfo, record: LegRecord) -> LegRecord:
        """The exchange does not know it: is it over, on its way, or only not shown yet?"""
        current = record.current
        assert current is not None
        if current.not_after is None:
            return record
        if current.state is LegState.ACKNOWLEDGED:
            return self._forgotten(record, current, current.not_after)
        trace = self._trace(info, record, current.not_after)
        arrives_by = current.not_after + timedelta(seconds=WITHOUT_RECORD_S)
        if trace is not None and trace.passage is Passage.NEVER:
            return _absent(record, trace.code, trace.detail)
        if trace is not None and trace.passage is Passage.TAKEN:
            return with_current(record, LegState.ACKNOWLEDGED, order_id=trace.order_id)
        if trace is not None and trace.arrives_by is not None:
            arrives_by = trace.arrives_by
        return _absent(record) if self._is_absent(record, arrives_by) else record

    def _forgotten(self, record: LegRecord, current: Slice, not_after: datetime) -> LegRecord:
        """The exchange had taken it, and does not show it: over once it is long ago, it is not
        among the open orders, and the executions since say twice, half a minute apart, how much of
        it was filled. What these would hide is found by the next comparison with the account."""
        now, said = self.scribe.now(), self.ends.get(current.client_id)
        if not FORGOTTEN_AFTER < now - not_after < FORGOTTEN_WITHIN:
            return record
        if said is not None and now - said.said_at <= timedelta(seconds=END_BELIEVED_S):
            return record
        report = self._told_elsewhere(record, current, not_after - FORGOTTEN_AFTER)
        if report is None:
            self.ends.pop(current.client_id, None)
            return record
        if said is None or said.filled_size != report.filled_size:
            self.ends[current.client_id] = _End(report.filled_size, now)
            return record
        detail = (
            f"order {current.client_id} of {record.leg.symbol} is not shown any more; by the list "
            f"of fills {plain(report.filled_size)} of {plain(current.size)} was executed"
        )
        self.scribe.rules.tell_forgotten(detail)
        state = LegState.FILLED if report.filled_size >= current.size else LegState.ABANDONED
        return with_current(with_report(record, report), state, code=FORGOTTEN, message=detail)

    def _told_elsewhere(
        self, record: LegRecord, current: Slice, since: datetime
    ) -> OrderReport | None:
        """Its end by open orders and executions; None: they do not say, or contradict each other
        or what was booked."""
        if current.order_id is None:
            return None
        exchange = self.scribe.ports.exchange
        try:
            waiting, fills = exchange.snapshot().open_orders, exchange.fills(since)
        except (OutcomeUnknown, Retryable):
            return None
        if any(current.client_id == o.client_id or current.order_id == o.order_id for o in waiting):
            return None
        once = {fill.trade_id: fill for fill in fills if fill.order_id == current.order_id}
        own = sorted(once.values(), key=attrgetter("at", "trade_id"))
        filled = sum((fill.size for fill in own), ZERO)
        if filled < current.filled_size:
            return None
        now = self.scribe.now()
        return OrderReport(
            order_id=current.order_id,
            client_id=current.client_id,
            symbol=record.leg.symbol,
            side=record.leg.side,
            status=OrderStatus.FILLED if filled >= current.size else OrderStatus.CANCELED,
            size=current.size,
            filled_size=filled,
            average_price=sum((f.quote_size for f in own), ZERO) / filled if filled else None,
            fee=sum((fill.fee for fill in own), ZERO),
            realized_pnl=sum((fill.realized_pnl for fill in own), ZERO),
            reduce_only=record.leg.reduce_only,
            source=FORGOTTEN,
            created_at=own[0].at if own else now,
            updated_at=own[-1].at if own else now,
        )

    def _trace(self, info: OrderInfo, record: LegRecord, not_after: datetime) -> OrderTrace | None:
        """How far it came by the gateway's record; None: it cannot say now."""
        assert record.current is not None
        missing = MissingOrder(
            record.current.client_id, record.leg.symbol, record.leg.reduce_only, not_after
        )
        try:
            return self.scribe.ports.exchange.rule_out(self.scribe.stamp(info), missing)
        except (OutcomeUnknown, Retryable, TooLate):
            return None

    def _is_proof(self, report: OrderReport) -> bool:
        """A cancelled order must say twice how much of it was filled (B4), and the list of fills
        must agree: two looks can be wrong in the same way. A list that never agrees (B2, B3) is
        overruled by an order that has said the same for long."""
        if report.status is not OrderStatus.CANCELED:
            return True
        said, now = self.ends.get(report.client_id), self.scribe.now()
        if said is None or said.filled_size != report.filled_size:
            self.ends[report.client_id] = _End(report.filled_size, now)
            return False
        if now - said.said_at > timedelta(seconds=END_BELIEVED_S):
            return True
        return self._executed(report) == report.filled_size

    def _executed(self, report: OrderReport) -> Decimal | None:
        """What the list of fills says of an order; None: it cannot be had now."""
        since = report.created_at - timedelta(seconds=FILLS_MARGIN_S)
        try:
            fills = self.scribe.ports.exchange.fills(since)
        except (OutcomeUnknown, Retryable):
            return None
        return filled_by_order(fills).get(report.order_id, ZERO)

    def _is_absent(self, record: LegRecord, arrives_by: datetime) -> bool:
        """Too late to arrive, and not found twice since."""
        current = record.current
        assert current is not None
        if self.scribe.now() <= arrives_by:
            return False
        self.absences[current.client_id] = self.absences.get(current.client_id, 0) + 1
        return self.absences[current.client_id] >= ABSENCES

    def _cancel_resting(self, info: OrderInfo, waits_for: Chosen) -> None:
        for record in _acknowledged(info.legs):
            current = record.current
            assert current is not None
            if not waits_for(record) or current.client_id in self.canceled:
                continue
            if self._cancel(info, record.leg.symbol, current.client_id):
                self.canceled.add(current.client_id)

    def _cancel(self, info: OrderInfo, symbol: str, client_id: str) -> bool:
        """Whether the exchange took it; if not, the next look tries again. Only a look says what
        became of the order: it may have filled meanwhile (A30, A31)."""
        reach("execution: before cancel")
        try:
            self.scribe.ports.exchange.cancel(self.scribe.stamp(info), symbol, client_id)
        except (OutcomeUnknown, Retryable, TooLate, NotFound):
            return False
        reach("execution: after cancel")
        return True


def _acknowledged(records: Sequence[LegRecord]) -> list[LegRecord]:
    return [
        record
        for record in records
        if record.current is not None and record.current.state is LegState.ACKNOWLEDGED
    ]


def _absent(
    record: LegRecord, code: str | None = None, detail: str = "proven absent on the exchange"
) -> LegRecord:
    assert record.current is not None
    if record.current.state is LegState.SENT:
        record = with_current(record, LegState.UNKNOWN)
    return with_current(record, LegState.ABANDONED, code=code, message=detail)
