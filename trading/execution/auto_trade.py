"""Drives a cycle's letter from *planned* to *done*: reduce first, then open, then protect.

    letter (planned) ─► resolve what is open ─► reducing legs ─► size the opens from what is free
                     ─► opening legs ─► stops read back and mended ─► letter (done)

Every step can be the first after a crash: what the letter says is looked up on the exchange before
anything new is sent. A slice is written as *sent* before it is sent (promise 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from module.model.accounts import AccountSnapshot, MarginMode, Position
from module.model.errors import (
    Conflict,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Retryable,
    StaleWriter,
)
from module.model.market import Instrument, MarketType
from module.model.money import round_down
from module.model.orders import (
    NO_STOPS,
    OrderReport,
    OrderRequest,
    OrderStatus,
    Outcome,
    StopPrices,
    SubmitResult,
    WriteStamp,
)
from module.model.sessions import client_id
from module.ports import Clock, Exchange, OrderInfoStore
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    SLICES_MAX,
    CycleStage,
    LegRecord,
    OrderInfo,
    next_slice,
    to_json,
    with_current,
    with_report,
)
from trading.rebalance.plan import Policy, fit_opening_legs, resized, rounded_anew
from trading.rebalance.rounding import round_stops

BATCH_MAX = 5
SEND_WINDOW_S = 10.0
PROOF_MARGIN_S = 5.0
SETTLE_LIMIT_S = 30.0
POLL_FIRST_S = 0.06
POLL_MAX_S = 1.0
POLLS_MAX = 400
STOP_TRIES = 3
STOP_ON_WRONG_SIDE = "stop-on-wrong-side"


@dataclass(frozen=True, slots=True)
class ExecutionPorts:
    """What execution touches of the world."""

    exchange: Exchange
    store: OrderInfoStore
    clock: Clock


@dataclass(frozen=True, slots=True)
class ExecutionRules:
    """The session's pinned rules. `stop_requested` is asked before anything opens."""

    installation: str
    session_id: str
    epoch: int
    policy: Policy
    margin_mode: MarginMode
    apply_account_settings: bool
    stop_requested: Callable[[], bool]


def auto_trade(info: OrderInfo, ports: ExecutionPorts, rules: ExecutionRules) -> OrderInfo:
    """Carry out the letter and return it *done*.

    Raises what outlives its retries (Unavailable, StaleWriter, Conflict …): the caller stops the
    session and leaves the account protected. Called again with the same letter it goes on.
    """
    return _Execution(ports, rules).run(info)


def settle_open_slices(
    info: OrderInfo, ports: ExecutionPorts, rules: ExecutionRules, reason: str
) -> OrderInfo:
    """Find out what became of everything that was sent, send nothing new, and drop the rest."""
    execution = _Execution(ports, rules)
    info = execution.resolve(info)
    info = execution.abandon_unsent(info, reason)
    info = execution.protect(info)
    return execution.save(info.changed(stage=CycleStage.DROPPED, reason=reason))


@dataclass(slots=True)
class _Doubts:
    """Evidence that one look does not prove: an absence, and an end without a full fill (B4)."""

    absences: dict[str, int] = field(default_factory=dict)
    ended_at: dict[str, Decimal] = field(default_factory=dict)

    def confirm(self, report: OrderReport) -> bool:
        """Whether `report` is proof: a cancelled order must say twice how much of it was filled."""
        if report.status is not OrderStatus.CANCELED:
            return True
        before = self.ended_at.get(report.client_id)
        self.ended_at[report.client_id] = report.filled_size
        return before == report.filled_size


@dataclass(frozen=True, slots=True)
class _Execution:
    ports: ExecutionPorts
    rules: ExecutionRules

    def run(self, info: OrderInfo) -> OrderInfo:
        info = self.save(info.changed(stage=CycleStage.TRADING))
        info = self.resolve(info)
        instruments = self.ports.exchange.instruments()
        info = self._trade(info, instruments, reducing=True)
        if any(not record.leg.reduce_only and not record.is_over for record in info.legs):
            info = self._prepare_opening(info, instruments)
            info = self._trade(info, instruments, reducing=False)
        info = self.save(info.changed(stage=CycleStage.PROTECTING))
        info = self.protect(info)
        return self.save(info.changed(stage=CycleStage.DONE))

    def save(self, info: OrderInfo) -> OrderInfo:
        """Durable before anything depends on it."""
        self.ports.store.write(to_json(info), info.epoch, info.revision)
        return info

    # --- sending ---------------------------------------------------------------------------------

    def _trade(
        self, info: OrderInfo, instruments: Mapping[str, Instrument], *, reducing: bool
    ) -> OrderInfo:
        """Send all legs of one phase, five at a time, slice after slice, until each is over."""
        for _ in range(SLICES_MAX * max(1, len(info.legs))):
            ready = [
                record
                for record in info.legs
                if record.leg.reduce_only is reducing and not record.is_over
            ]
            if not ready:
                return info
            if not reducing and self.rules.stop_requested():
                return self.abandon_unsent(info, "the session is stopping")
            info = self._send_batch(info, ready[:BATCH_MAX], instruments)
            info = self.resolve(info)
            leg_ids = [record.leg.leg_id for record in ready[:BATCH_MAX]]
            if any(_refused_by_rules(info.leg(leg_id)) for leg_id in leg_ids):
                instruments = self.ports.exchange.instruments()
                info = self._round_anew(info, leg_ids, instruments)
            info = self._give_up_stuck(info, leg_ids)
        return self.abandon_unsent(info, f"not finished after {SLICES_MAX} slices per leg")

    def _send_batch(
        self,
        info: OrderInfo,
        records: Sequence[LegRecord],
        instruments: Mapping[str, Instrument],
    ) -> OrderInfo:
        """One durable write, then one submit of up to five orders."""
        not_after = self.ports.clock.now() + timedelta(seconds=SEND_WINDOW_S)
        sent: dict[str, LegRecord] = {}
        for record in records:
            instrument = instruments.get(record.leg.symbol)
            size_max = record.leg.size
            if instrument is not None:
                size_max = round_down(instrument.market_size_max, instrument.size_step)
            sliced = next_slice(record, size_max, self._identify(info))
            sent[record.leg.leg_id] = with_current(sliced, LegState.SENT, not_after=not_after)
        info = self.save(info.with_legs(sent))
        orders = [_request(record) for record in sent.values()]
        stamp = self._stamp(info, not_after)
        try:
            results = self.ports.exchange.submit(stamp, orders)
        except (OutcomeUnknown, Retryable) as error:
            # Retryable says that nothing was sent; it is proven like any other absence.
            results = _unknown(orders, error.message)
        except StaleWriter as error:
            if self.ports.clock.now() <= not_after:
                raise  # another leader owns the account
            results = _unknown(orders, error.message)
        except Rejected as error:
            results = [
                SubmitResult(order.client_id, Outcome.REJECTED, None, error.code, error.message)
                for order in orders
            ]
        return self.save(info.with_legs(_apply(sent, results)))

    def _identify(self, info: OrderInfo) -> Callable[[str, int], str]:
        def identify(leg_id: str, number: int) -> str:
            return client_id(
                self.rules.installation, self.rules.session_id, info.cycle, leg_id, number
            )

        return identify

    def _stamp(self, info: OrderInfo, not_after: datetime) -> WriteStamp:
        return WriteStamp(self.rules.session_id, self.rules.epoch, not_after, info.cycle)

    def _round_anew(
        self, info: OrderInfo, leg_ids: Sequence[str], instruments: Mapping[str, Instrument]
    ) -> OrderInfo:
        """Legs that were refused because the trading rules changed get the fresh ones, and with
        them one further slice (A19)."""
        updates: dict[str, LegRecord] = {}
        stops = dict(info.stops)
        for record in (info.leg(leg_id) for leg_id in leg_ids):
            if not _refused_by_rules(record):
                continue
            symbol = record.leg.symbol
            instrument = instruments.get(symbol)
            leg = None
            if instrument is not None and instrument.tradable:
                leg = rounded_anew(record.leg, record.filled_size, instrument)
            if instrument is None or leg is None:
                why = "the trading rules changed, and by the new ones nothing of it can be traded"
                updates[record.leg.leg_id] = replace(record, abandoned=why)
                continue
            updates[record.leg.leg_id] = replace(record, leg=leg)
            if symbol in stops:
                stops[symbol] = round_stops(stops[symbol], instrument)
        return self.save(info.with_legs(updates, stops=stops))

    def _give_up_stuck(self, info: OrderInfo, leg_ids: Sequence[str]) -> OrderInfo:
        """A leg whose last slice brought nothing waits for the next cycle."""
        updates: dict[str, LegRecord] = {}
        for leg_id in leg_ids:
            record = info.leg(leg_id)
            current = record.current
            if current is None or record.is_over or current.state is LegState.FILLED:
                continue
            if _refused_by_rules(record):
                continue
            if current.filled_size == 0 or len(record.slices) >= SLICES_MAX:
                why = current.message or current.code or f"slice {current.number} {current.state}"
                updates[leg_id] = replace(record, abandoned=why)
        return self.save(info.with_legs(updates)) if updates else info

    def abandon_unsent(self, info: OrderInfo, reason: str) -> OrderInfo:
        """Give up every leg that is not over; nothing of them is open any more."""
        updates = {
            record.leg.leg_id: replace(record, abandoned=reason)
            for record in info.legs
            if not record.is_over
        }
        return self.save(info.with_legs(updates)) if updates else info

    # --- evidence --------------------------------------------------------------------------------

    def resolve(self, info: OrderInfo) -> OrderInfo:
        """Ask the exchange until no slice is open: found and over, canceled, or proven absent."""
        started = self.ports.clock.now()
        doubts = _Doubts()
        delay_s = POLL_FIRST_S
        canceled: set[str] = set()
        for _ in range(POLLS_MAX):
            open_records = [record for record in info.legs if _is_open(record)]
            if not open_records:
                return info
            if all(_acknowledged(record) for record in open_records):
                self.ports.clock.sleep(delay_s)
            info = self._ask(info, open_records, doubts)
            overdue = self.ports.clock.now() - started > timedelta(seconds=SETTLE_LIMIT_S)
            for record in info.legs if overdue else ():
                current = record.current
                if current is None or not _acknowledged(record) or current.client_id in canceled:
                    continue
                if self._cancel(info, record):
                    canceled.add(current.client_id)
            if any(_is_open(record) and not _acknowledged(record) for record in info.legs):
                self.ports.clock.sleep(delay_s)
            delay_s = min(delay_s * 2, POLL_MAX_S)
        raise Conflict(
            f"cycle {info.cycle}: orders are still unresolved after {POLLS_MAX} looks; "
            "the session stops so that a person can see why"
        )

    def _ask(self, info: OrderInfo, records: Sequence[LegRecord], doubts: _Doubts) -> OrderInfo:
        updates: dict[str, LegRecord] = {}
        for record in records:
            current = record.current
            assert current is not None
            try:
                report = self.ports.exchange.order(record.leg.symbol, current.client_id)
            except NotFound:
                if self._proven_absent(record, doubts.absences):
                    updates[record.leg.leg_id] = _absent(record)
                continue
            if not doubts.confirm(report):
                continue
            updated = with_report(record, report)
            if updated != record:
                updates[record.leg.leg_id] = updated
        return self.save(info.with_legs(updates)) if updates else info

    def _proven_absent(self, record: LegRecord, absences: dict[str, int]) -> bool:
        """Too late to arrive (the gate drops it after `not_after`) and not found twice since."""
        current = record.current
        assert current is not None
        if current.not_after is None or current.state is LegState.ACKNOWLEDGED:
            return False
        if self.ports.clock.now() <= current.not_after + timedelta(seconds=PROOF_MARGIN_S):
            return False
        absences[current.client_id] = absences.get(current.client_id, 0) + 1
        return absences[current.client_id] >= 2

    def _cancel(self, info: OrderInfo, record: LegRecord) -> bool:
        """Whether the exchange took it; if not, the next look tries again."""
        assert record.current is not None
        not_after = self.ports.clock.now() + timedelta(seconds=SEND_WINDOW_S)
        try:
            self.ports.exchange.cancel(
                self._stamp(info, not_after), record.leg.symbol, record.current.client_id
            )
        except (OutcomeUnknown, Retryable):
            return False
        return True

    # --- opening ---------------------------------------------------------------------------------

    def _prepare_opening(self, info: OrderInfo, instruments: Mapping[str, Instrument]) -> OrderInfo:
        """Size the opening legs from what is really free now; verify leverage and margin mode."""
        snapshot = self.ports.exchange.snapshot()
        waiting = [r for r in info.legs if not r.leg.reduce_only and not r.is_over]
        updates: dict[str, LegRecord] = {}
        for record in waiting:
            after = record.leg.after
            if after is not None and not _closed(info.leg(after)):
                why = f"{after} was not confirmed, so nothing opens the other way"
                updates[record.leg.leg_id] = replace(record, abandoned=why)
        going = [r for r in waiting if r.leg.leg_id not in updates and not r.slices]
        if self.rules.policy.market is MarketType.FUTURES and going:
            self._verify_settings([record.leg.symbol for record in going], snapshot)
        fitted, skipped = fit_opening_legs(
            [record.leg for record in going], snapshot.available, instruments, self.rules.policy
        )
        sizes: dict[str, Decimal] = {leg.leg_id: leg.size for leg in fitted}
        for record in going:
            size = sizes.get(record.leg.leg_id)
            if size is None:
                updates[record.leg.leg_id] = replace(record, abandoned="no margin left")
            elif size != record.leg.size:
                updates[record.leg.leg_id] = replace(record, leg=resized(record.leg, size))
        if not updates:
            return info
        return self.save(info.with_legs(updates, skipped=(*info.skipped, *skipped)))

    def _verify_settings(self, symbols: Sequence[str], snapshot: AccountSnapshot) -> None:
        policy = self.rules.policy
        held = {position.symbol for position in snapshot.positions}
        settings = self.ports.exchange.symbol_settings(symbols)
        for symbol in symbols:
            found = settings[symbol]
            if (found.leverage, found.margin_mode) == (policy.leverage, self.rules.margin_mode):
                continue
            described = (
                f"{symbol} has leverage {found.leverage} {found.margin_mode} on the exchange"
            )
            wanted = f"{policy.leverage} {self.rules.margin_mode}"
            if not self.rules.apply_account_settings:
                raise Conflict(
                    f"{described}, the session wants {wanted}: set it there, or start the session "
                    "with apply_account_settings"
                )
            if symbol in held:
                raise Conflict(
                    f"{described} and is held; {wanted} can be set only while it is flat"
                )
            not_after = self.ports.clock.now() + timedelta(seconds=SEND_WINDOW_S)
            stamp = WriteStamp(self.rules.session_id, self.rules.epoch, not_after)
            now = self.ports.exchange.apply_symbol_settings(
                stamp, symbol, policy.leverage, self.rules.margin_mode
            )
            if (now.leverage, now.margin_mode) != (policy.leverage, self.rules.margin_mode):
                raise Conflict(f"{described} after it was told to be {wanted}")

    # --- protection ------------------------------------------------------------------------------

    def protect(self, info: OrderInfo) -> OrderInfo:
        """Make the stops of every held position what the letter wants, and read them back."""
        if self.rules.policy.market is not MarketType.FUTURES:
            return info
        snapshot = self.ports.exchange.snapshot()
        rounded: dict[str, StopPrices] = {}
        for position in snapshot.positions:
            wanted = info.stops.get(position.symbol)
            if wanted is None or wanted == position.stops:
                continue
            weight = Decimal(info.targets.get(position.symbol, {}).get("weight", "0"))
            if weight * position.size <= 0:
                continue  # its flip did not happen: these stops are the other side's
            placed = self._set_stops(info, position, wanted)
            if placed != wanted:
                rounded[position.symbol] = placed
        return info.changed(stops={**info.stops, **rounded}) if rounded else info

    def _set_stops(self, info: OrderInfo, position: Position, wanted: StopPrices) -> StopPrices:
        """Set and read back; what was wanted in the end: on another tick where that has changed."""
        symbol = position.symbol
        not_after = self.ports.clock.now() + timedelta(seconds=SEND_WINDOW_S)
        stamp = self._stamp(info, not_after)
        seen: StopPrices | str = NO_STOPS
        for _ in range(STOP_TRIES):
            try:
                seen = self.ports.exchange.set_stops(stamp, symbol, wanted)
            except OutcomeUnknown as error:
                seen = f"unknown ({error.message})"  # an upsert: the same again is harmless
            except NotFound:
                return wanted  # the position ended meanwhile; there is nothing to protect
            except Rejected as error:
                if error.code == STOP_ON_WRONG_SIDE:
                    return wanted  # the old stop stands, or the gateway closes what has none (B6)
                fresh = self.ports.exchange.instruments().get(symbol)
                if fresh is None or round_stops(wanted, fresh) == wanted:
                    raise
                wanted = round_stops(wanted, fresh)  # the tick is another one now (A19)
                seen = error.message
            if seen == wanted:
                return wanted
        raise Conflict(f"{symbol}: stops are {seen} after they were set to {wanted}")


def _request(record: LegRecord) -> OrderRequest:
    current = record.current
    assert current is not None
    return OrderRequest(
        client_id=current.client_id,
        symbol=record.leg.symbol,
        side=record.leg.side,
        size=current.size,
        reduce_only=record.leg.reduce_only,
        stops=NO_STOPS if record.leg.reduce_only else record.leg.stops,
    )


def _unknown(orders: Sequence[OrderRequest], message: str) -> list[SubmitResult]:
    return [SubmitResult(order.client_id, Outcome.UNKNOWN, message=message) for order in orders]


def _apply(sent: dict[str, LegRecord], results: Sequence[SubmitResult]) -> dict[str, LegRecord]:
    """Each leg by its exact client id; one that no result names is unknown."""
    by_id = {result.client_id: result for result in results}
    updates: dict[str, LegRecord] = {}
    for leg_id, record in sent.items():
        assert record.current is not None
        result = by_id.get(record.current.client_id)
        if result is None or result.outcome is Outcome.UNKNOWN:
            message = "no result for it" if result is None else result.message
            updates[leg_id] = with_current(record, LegState.UNKNOWN, message=message)
        elif result.outcome is Outcome.ACCEPTED:
            updates[leg_id] = with_current(record, LegState.ACKNOWLEDGED, order_id=result.order_id)
        else:
            updates[leg_id] = with_current(
                record,
                LegState.REJECTED,
                code=result.code,
                message=result.message,
                rules_changed=result.rules_changed,
            )
    return updates


def _is_open(record: LegRecord) -> bool:
    return record.current is not None and record.current.state.may_exist


def _acknowledged(record: LegRecord) -> bool:
    return record.current is not None and record.current.state is LegState.ACKNOWLEDGED


def _refused_by_rules(record: LegRecord) -> bool:
    """Its newest slice was refused because the trading rules changed, for the first time."""
    current = record.current
    if current is None or record.is_over or not current.rules_changed:
        return False
    return sum(part.rules_changed for part in record.slices) == 1


def _closed(record: LegRecord) -> bool:
    return record.filled_size >= record.leg.size


def _absent(record: LegRecord) -> LegRecord:
    assert record.current is not None
    if record.current.state is LegState.SENT:
        record = with_current(record, LegState.UNKNOWN)
    return with_current(record, LegState.ABANDONED, message="proven absent on the exchange")
