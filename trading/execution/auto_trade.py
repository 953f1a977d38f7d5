"""Drives a cycle's letter from *planned* to *done*: reduce first, then open, then protect.

    letter (planned) ─► is the plan fresh? settings as wanted? ─► reducing legs, back to back
                     ─► size the opens from what is free ─► opening legs, back to back
                     ─► stops read back and mended ─► orders still unknown, until proven
                     ─► what waited for them ─► letter (done)

Every step can be the first after a crash: what the letter says is looked up on the exchange before
anything new is sent in the same symbol. A slice is written as *sent* before it is sent (promise 1).
While an order of a symbol is unknown nothing opens in that symbol; others go on (I5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from module.model.errors import Conflict
from module.model.market import Instrument
from module.model.orders import RULED_OUT
from module.model.stop_ticks import round_stops
from module.points import reach
from trading.execution.departures import Departures
from trading.execution.evidence import Chosen, Evidence
from trading.execution.freshness import (
    STALE,
    changed_symbols,
    is_stale,
    must_be_proven,
    must_look_again,
    thrown_away,
    too_old_to_begin,
)
from trading.execution.opening import (
    ClosedByAccount,
    require_one_way,
    see_closed,
    size_openings,
    verify_settings,
)
from trading.execution.protection import protect, protect_found_bare
from trading.execution.scribe import ExecutionPorts, ExecutionRules, Known, Scribe
from trading.execution.sending import BATCH_MAX, Sender
from trading.rebalance.leg_state import LegState
from trading.rebalance.order_info import (
    SLICES_MAX,
    CycleStage,
    LegRecord,
    OrderInfo,
    Sized,
    given_up,
)
from trading.rebalance.plan import rounded_anew

__all__ = [
    "BATCH_MAX",
    "ExecutionPorts",
    "ExecutionRules",
    "Known",
    "auto_trade",
    "is_stale",
    "settle_open_slices",
]

PASSES_MAX = 4
TOO_MANY_SLICES = f"not finished after {SLICES_MAX} slices per leg"
RESUMED = (CycleStage.TRADING, CycleStage.PROTECTING)


def auto_trade(
    info: OrderInfo,
    ports: ExecutionPorts,
    rules: ExecutionRules,
    known: Known | None = None,
) -> OrderInfo:
    """Carry out the letter and return it *done*, or *dropped* where `is_stale` says that its plan
    was too old, or the account another one, before the first order left: plan anew. Dropped with
    the reason SPENT it was too old, and what was sent of it never arrived: its letter is over.

    Raises what outlives its retries (Unavailable, StaleWriter, Conflict …): the caller stops the
    session or waits, and leaves the account protected. Called again with the same letter it goes
    on. `known`: what was read shortly before; None: it is read now.
    """
    instruments = None if known is None else known.instruments
    return _Execution.of(info, ports, rules, instruments).run(info, known)


def settle_open_slices(
    info: OrderInfo, ports: ExecutionPorts, rules: ExecutionRules, reason: str
) -> OrderInfo:
    """Find out what became of everything that was sent, send nothing new, and drop the rest."""
    execution = _Execution.of(info, ports, rules, {})
    info = protect(execution.scribe, info)
    info = execution.evidence.settle(info, _every)
    info = execution.give_up_rest(info, reason)
    info = protect(execution.scribe, info)
    return execution.scribe.save(info.changed(stage=CycleStage.DROPPED, reason=reason))


@dataclass(slots=True)
class _Execution:
    """One letter being carried out by one process."""

    scribe: Scribe
    evidence: Evidence
    sender: Sender
    instruments: Mapping[str, Instrument]
    closed: ClosedByAccount | None = None

    @classmethod
    def of(
        cls,
        info: OrderInfo,
        ports: ExecutionPorts,
        rules: ExecutionRules,
        instruments: Mapping[str, Instrument] | None,
    ) -> _Execution:
        scribe = Scribe(ports, rules)
        evidence = Evidence(scribe)
        found = ports.exchange.instruments() if instruments is None else instruments
        lots = {symbol: instrument.size_step for symbol, instrument in found.items()}
        return cls(scribe, evidence, Sender(scribe, evidence, Departures.of(info, lots)), found)

    def run(self, info: OrderInfo, known: Known | None) -> OrderInfo:
        if info.stage in RESUMED:
            info = protect(self.scribe, info)  # what is held is protected before all else (B10)
            info = self._proven(self.evidence.look(info))
        stale = self._why_stale(info)
        if stale:
            return self._throw_away(info, stale)
        if info.number == 1 and info.basis is not None and info.basis.sizes:
            info = protect(self.scribe, info, only_bare=True)  # what it adopts may have none (B10)
        elif info.stage not in RESUMED:
            info = protect_found_bare(self.scribe, info)
        self._verify_settings(info, known)
        info = info.changed(stage=CycleStage.TRADING)
        for _ in range(PASSES_MAX):
            info = self._trade(info, reducing=True)
            if not thrown_away(info):
                info = self._open(info)
            stale = thrown_away(info)
            if stale:
                return self._throw_away(info, stale)
            info = self._protect(info)
            info = self.evidence.settle(info, _every)
            if all(record.is_over for record in info.legs):
                break
            info = info.changed(stage=CycleStage.TRADING)
        info = self.give_up_rest(info, TOO_MANY_SLICES)
        reach("execution: cycle traded")
        return self.scribe.save(info.changed(stage=CycleStage.DONE))

    def _verify_settings(self, info: OrderInfo, known: Known | None) -> None:
        """Conflict where something cannot be traded: what is held is not left bare for that."""
        try:
            verify_settings(self.scribe, _opening_symbols(info), known)
        except Conflict:
            protect(self.scribe, info)
            raise

    def _protect(self, info: OrderInfo) -> OrderInfo:
        return protect(self.scribe, info.changed(stage=CycleStage.PROTECTING))

    def _proven(self, info: OrderInfo) -> OrderInfo:
        """Whether a plan has begun that is too old to begin now: seen before anything else of it
        leaves."""
        if not must_be_proven(info, self.scribe.now(), self.scribe.rules.least_age_s(info)):
            return info
        return self.evidence.settle(info, lambda record: record.is_unproven)

    def _throw_away(self, info: OrderInfo, why: str) -> OrderInfo:
        """Dropped before its first order arrived."""
        if info.has_sent:  # it is not made anew under its own client ids: this is its end
            info = self.give_up_rest(info, why)
        return self.scribe.save(info.changed(stage=CycleStage.DROPPED, reason=why))

    def _why_stale(self, info: OrderInfo) -> str:
        """Why the plan is thrown away before its first order; empty: it is traded."""
        now, least_age_s = self.scribe.now(), self.scribe.rules.least_age_s(info)
        why = too_old_to_begin(info, now, least_age_s)
        if why or info.has_sent:
            return why
        if info.stage not in RESUMED and not must_look_again(info, now, least_age_s):
            return ""
        snapshot = self.scribe.ports.exchange.snapshot()
        require_one_way(self.scribe, snapshot)
        lots = {name: instrument.size_step for name, instrument in self.instruments.items()}
        changed = changed_symbols(info, snapshot, lots)
        return f"{STALE}: {'; '.join(changed.values())}" if changed else ""

    # --- phases ----------------------------------------------------------------------------------

    def _open(self, info: OrderInfo) -> OrderInfo:
        info = size_openings(self.scribe, info, self.instruments, self.closed)
        return self._trade(info, reducing=False)

    def _trade(self, info: OrderInfo, *, reducing: bool) -> OrderInfo:
        """Send all legs of one phase, slice after slice, until each is over or unknown."""
        in_phase = _phase(reducing=reducing)
        info = self._give_up_stuck(info, reducing=reducing)
        for _ in range(SLICES_MAX * max(1, len(info.legs))):
            ready = self._ready(info, reducing=reducing)
            if not ready and not any(_rests(record, in_phase=reducing) for record in info.legs):
                return info
            info = self.sender.send(
                info,
                ready,
                self.instruments,
                opening=not reducing,
                refit=lambda letter: size_openings(self.scribe, letter, self.instruments),
            )
            if reducing:
                self.closed = see_closed(self.scribe, info)
                if self.closed is not None:
                    return info  # their ends are booked once what opens has left
            info = self.evidence.settle(info, lambda r: in_phase(r) and not r.is_unproven)
            info = self._round_anew(info, reducing=reducing)
            info = self._give_up_stuck(info, reducing=reducing)
        return self.give_up_rest(info, TOO_MANY_SLICES)

    def _ready(self, info: OrderInfo, *, reducing: bool) -> list[str]:
        """Legs that may leave now. Nothing opens in a symbol with an order that is unknown (I5)."""
        unknown = frozenset() if reducing else info.unproven_symbols
        return [
            record.leg.leg_id
            for record in info.legs
            if record.leg.reduce_only is reducing
            and not record.is_over
            and not record.is_open
            and record.leg.symbol not in unknown
        ]

    def _round_anew(self, info: OrderInfo, *, reducing: bool) -> OrderInfo:
        """Legs that were refused because the trading rules changed get the fresh ones, and with
        them one further slice (A19)."""
        refused = [r for r in info.legs if _phase(reducing=reducing)(r) and _refused_by_rules(r)]
        if not refused:
            return info
        self.instruments = self.scribe.ports.exchange.instruments()
        updates: dict[str, LegRecord] = {}
        stops = dict(info.stops_now)
        wanted = info.wanted_stops()
        for record in refused:
            symbol = record.leg.symbol
            instrument = self.instruments.get(symbol)
            leg = None
            if instrument is not None and instrument.tradable:
                leg = rounded_anew(record.carried, record.filled_size, instrument)
            if instrument is None or leg is None:
                why = "the trading rules changed, and by the new ones nothing of it can be traded"
                updates[record.leg.leg_id] = given_up(record, why)
                continue
            sized = Sized(leg.size, leg.stops, "the trading rules changed")
            updates[record.leg.leg_id] = replace(record, sized=sized)
            if symbol in wanted:
                stops[symbol] = round_stops(wanted[symbol], instrument)
        return self.scribe.save(info.with_legs(updates, stops_now=stops))

    def _give_up_stuck(self, info: OrderInfo, *, reducing: bool) -> OrderInfo:
        """A leg whose last slice brought nothing, or was the last it may have, waits for the next
        cycle.

        One that a process before this one sent, and that never arrived, may leave once more (D4);
        so may one that never left, by the gateway's record.
        """
        updates: dict[str, LegRecord] = {}
        for record in info.legs:
            current = record.current
            if record.leg.reduce_only is not reducing or current is None or record.is_over:
                continue
            if not current.state.is_terminal:
                continue
            if len(record.slices) >= SLICES_MAX:
                updates[record.leg.leg_id] = given_up(record, TOO_MANY_SLICES)
                continue
            if current.state is LegState.FILLED or _refused_by_rules(record):
                continue
            mine = current.client_id in self.sender.sent_here and not _never_left(record)
            fruitless = current.filled_size == 0 and (mine or current.state is LegState.REJECTED)
            if fruitless:
                why = current.message or current.code or f"slice {current.number} {current.state}"
                updates[record.leg.leg_id] = given_up(record, why)
        return self.scribe.save(info.with_legs(updates)) if updates else info

    def give_up_rest(self, info: OrderInfo, reason: str) -> OrderInfo:
        """Give up every leg that is not over; nothing of them is open any more."""
        updates = {
            record.leg.leg_id: given_up(record, reason)
            for record in info.legs
            if not record.is_over and not record.is_open
        }
        return self.scribe.save(info.with_legs(updates)) if updates else info


def _every(_record: LegRecord) -> bool:
    return True


def _phase(*, reducing: bool) -> Chosen:
    return lambda record: record.leg.reduce_only is reducing


def _rests(record: LegRecord, *, in_phase: bool) -> bool:
    """The exchange has an order of it that is not over."""
    return record.leg.reduce_only is in_phase and record.is_open and not record.is_unproven


def _opening_symbols(info: OrderInfo) -> list[str]:
    return [r.leg.symbol for r in info.legs if not r.leg.reduce_only and not r.is_over]


def _never_left(record: LegRecord) -> bool:
    """Its newest slice was ruled out by the gateway's record, for the first time."""
    current = record.current
    ruled_out = sum(part.code == RULED_OUT for part in record.slices)
    return current is not None and current.code == RULED_OUT and ruled_out == 1


def _refused_by_rules(record: LegRecord) -> bool:
    """Its newest slice was refused because the trading rules changed, for the first time."""
    current = record.current
    if current is None or record.is_over or not current.rules_changed:
        return False
    return sum(part.rules_changed for part in record.slices) == 1
