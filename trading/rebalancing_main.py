"""The session leader: asks for a plan at every boundary, trades it, ends as it was told.

    start: epoch + 1 ─► settle what an earlier leader left ─► running
    boundary ─► letter (requested), ring rebalance_start ─► strategy_done ─► auto_trade
             ─► journal, ring autotrade_done ─► rebalance_done ─► next boundary
    exchange or gateway away: told once, waited for; then the letter is taken up, or dropped by age
    end: flat or protected, as asked; a critical error ends it protected, with an alert

`python -m trading.rebalancing_main --session ID` runs one session without a host.
"""

from __future__ import annotations

import argparse
import enum
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from module.logs import get_logger
from module.model.errors import (
    PASSING,
    AifapError,
    Conflict,
    InvariantViolated,
    RateLimited,
    StaleWriter,
    Unavailable,
)
from module.model.sessions import (
    DesiredState,
    EndState,
    SessionSpec,
    SessionState,
    boundary_at_or_after,
)
from module.ports import (
    AlertSink,
    Clock,
    Exchange,
    OrderInfoStore,
    SessionChild,
    SessionRegistry,
)
from trading.execution.auto_trade import (
    ExecutionPorts,
    ExecutionRules,
    auto_trade,
    settle_open_slices,
)
from trading.rebalance.order_info import (
    CycleStage,
    OrderInfo,
    from_json,
    requested,
    to_json,
    with_plan,
)
from trading.rebalance.plan import Book, plan_rebalance
from trading.rebalancing_strategy import AWAY, flat_policy, policy_of
from trading.session.announcer import Announcer
from trading.session.bells import Bells
from trading.session.control import Control
from trading.session.journal import Journal
from trading.session.vigil import AWAY_PAUSE_FIRST_S, HandOver, Vigil

STRATEGY_WAIT_S = 120.0
DONE_WAIT_S = 30.0
STRATEGY_FAILURES_MAX = 5
FLAT_TRIES = 3
RECOVERY_AGE_FRACTION = 2
NOT_THE_STRATEGYS = ("no-bar", Unavailable.code, RateLimited.code)

log = get_logger("trading.leader")


class Exit(enum.IntEnum):
    """How the process ends: the host starts another leader only after HANDED_OVER or CRASHED."""

    OVER = 0
    CRASHED = 1
    HANDED_OVER = 75


@dataclass(frozen=True, slots=True)
class LeaderWiring:
    """What a leader needs of the world. `user` is the owner's name."""

    spec: SessionSpec
    user: str
    clock: Clock
    exchange: Exchange
    store: OrderInfoStore
    registry: SessionRegistry
    alerts: AlertSink
    bells: Bells
    strategy: SessionChild
    finwatcher: SessionChild
    control: Control


def run_trading(wiring: LeaderWiring) -> Exit:
    """Lead the session until it is over, handed over, or something outlives its retries."""
    leader = _Leader(wiring)
    try:
        return leader.run()
    except StaleWriter as error:
        log.warning("another leader took over", detail=error.message)
        return Exit.OVER
    except HandOver:
        log.info("handed over while the exchange is away", session=wiring.spec.session_id)
        return Exit.HANDED_OVER
    except Exception as error:  # noqa: BLE001 - the top of a process: record, alert, end
        return leader.fail(error)
    finally:
        wiring.strategy.stop()


class _Leader:
    """The state of one leader: its epoch, the last letter, failures in a row."""

    def __init__(self, wiring: LeaderWiring) -> None:
        self._wiring = wiring
        self._spec = wiring.spec
        self._clock = wiring.clock
        self._epoch = 0
        self._last: OrderInfo | None = None
        self._cycles_done = 0
        self._failures = 0
        self._announcer = Announcer(wiring.spec, wiring.user, wiring.alerts, wiring.clock)
        self._vigil = Vigil(
            wiring.spec.session_id,
            wiring.clock,
            wiring.registry,
            wiring.control,
            (wiring.strategy, wiring.finwatcher),
            self._announcer,
        )
        self._journal = Journal(wiring.store, wiring.registry, wiring.clock, epoch=0)

    # --- life ------------------------------------------------------------------------------------

    def run(self) -> Exit:
        self._start()
        while True:
            ending = self._ending()
            if ending is not None:
                return self._finish(*ending)
            if self._wiring.control.hand_over:
                log.info("handed over", session=self._spec.session_id)
                return Exit.HANDED_OVER
            boundary = boundary_at_or_after(
                self._clock.now() + timedelta(milliseconds=1), self._spec.interval
            )
            if self._vigil.wait_until(min(boundary, self._spec.ends_at)) and self._ending() is None:
                self._cycle(boundary)

    def _start(self) -> None:
        spec, registry = self._spec, self._wiring.registry
        watching = self._vigil.begin_watching()
        self._vigil.patiently(self._wiring.strategy.begin)
        self._epoch = self._vigil.patiently(lambda: registry.take_epoch(spec.session_id))
        self._vigil.epoch = self._epoch
        self._journal = Journal(self._wiring.store, registry, self._clock, self._epoch)
        self._wiring.strategy.await_ready()
        if watching:
            self._vigil.await_watching()
        log.info("processes ready", at_monotonic_s=round(self._clock.monotonic(), 3))
        row = self._vigil.patiently(lambda: registry.get(spec.session_id))
        self._cycles_done = row.cycle
        if row.desired is DesiredState.STOPPED or row.state is SessionState.STOPPING:
            self._vigil.stop_wanted = row.end_state
        first = row.initial_balance is None
        snapshot = self._vigil.outlast(self._wiring.exchange.snapshot)
        if first and snapshot.positions and not spec.adopt_existing:
            held = ", ".join(position.symbol for position in snapshot.positions)
            raise Conflict(
                f"the account already holds {held}; close it, or start with adopt_existing"
            )
        self._vigil.patiently(
            lambda: registry.set_initial_balance(spec.session_id, self._epoch, snapshot.equity)
        )
        document = self._wiring.store.read()
        self._last = None if document is None else from_json(document)
        self._journal.find_unstored(row.last_boundary)
        self._recover()
        if row.state is SessionState.STARTING:
            self._set_state(SessionState.RUNNING)
        if first:
            self._announcer.started()

    def _set_state(self, state: SessionState, reason: str = "") -> None:
        self._vigil.patiently(
            lambda: self._wiring.registry.set_state(
                self._spec.session_id,
                state,
                self._clock.now(),
                reason=reason,
                epoch=self._epoch or None,
            )
        )

    def _recover(self) -> None:
        """Starting is recovering: what an earlier leader left is finished, or dropped by age."""
        info = self._last
        if info is None or info.stage.is_over:
            return
        if info.stage is CycleStage.REQUESTED:
            self._last = self._save(
                info.changed(
                    epoch=self._epoch,
                    stage=CycleStage.DROPPED,
                    reason="the leader was replaced before there was a plan",
                )
            )
            return
        info = self._save(info.changed(epoch=self._epoch))
        self._keep(self._vigil.outlast(self._take_up), info.cycle, None)
        self._cycles_done = max(self._cycles_done, info.number)

    def _take_up(self) -> OrderInfo:
        """Go on with the letter that was interrupted; an old one is settled and dropped."""
        info = self._last = self._read_letter()
        age = self._clock.now() - info.cycle
        log.info("taking up a cycle", session=self._spec.session_id, age_s=age.total_seconds())
        if age <= self._spec.interval / RECOVERY_AGE_FRACTION and self._ending() is None:
            return auto_trade(info, self._ports(), self._rules())
        reason = f"interrupted, and {age.total_seconds():.0f} s old when it was found"
        return settle_open_slices(info, self._ports(), self._rules(), reason)

    def _trade(self, info: OrderInfo) -> OrderInfo:
        """Carry out the letter; when the exchange goes away in the middle, wait and take it up."""
        try:
            done = auto_trade(info, self._ports(), self._rules())
        except PASSING as error:
            self._vigil.note_away(error.message)
            self._vigil.let_pass(AWAY_PAUSE_FIRST_S)
            return self._vigil.outlast(self._take_up)
        self._vigil.note_back()
        return done

    def _ending(self) -> tuple[EndState, str] | None:
        """Whether the session is to end now, how, and why."""
        if self._vigil.stop_wanted is not None:
            return self._vigil.stop_wanted, "terminated by its owner"
        if self._clock.now() >= self._spec.ends_at:
            return self._spec.on_end, "its trading hours are over"
        limit = self._spec.cycles_max
        if limit is not None and self._cycles_done >= limit and self._last_cycle_is_over():
            return self._spec.on_end, f"its {limit} cycles are done"
        return None

    def _last_cycle_is_over(self) -> bool:
        """A cycle lasts until the next boundary: its book is held that long."""
        last = self._last
        return last is None or self._clock.now() >= last.cycle + self._spec.interval

    def _finish(self, end_state: EndState, reason: str) -> Exit:
        self._set_state(SessionState.STOPPING, reason)
        # From here on the way of ending is fixed; what was asked up to now counts.
        wish = self._vigil.patiently(lambda: self._wiring.registry.wishes(self._spec.session_id))
        if wish.desired is DesiredState.STOPPED:
            end_state = wish.end_state
        if end_state is EndState.FLAT:
            self._flatten()
        how = self._how_it_ends(end_state)
        self._set_state(SessionState.ENDED, f"{reason}; {how}")
        self._journal.flush()
        self._announcer.stopped(end_state, f"{reason}; {how}")
        return Exit.OVER

    def _how_it_ends(self, end_state: EndState) -> str:
        """What the account holds; an exchange that is away keeps no session from ending."""
        try:
            held = len(self._wiring.exchange.snapshot().positions)
        except PASSING as error:
            log.warning("positions not read at the end", detail=error.message)
            return f"{end_state.value}; the exchange did not say what is held"
        return "flat" if held == 0 else f"protected, {held} positions open"

    def fail(self, error: Exception) -> Exit:
        """A critical error: alert, leave the account protected, stop the session."""
        detail = (
            error.message if isinstance(error, AifapError) else f"{type(error).__name__}: {error}"
        )
        log.error("session failed", session=self._spec.session_id, detail=detail, exc_info=error)
        self._announcer.failed(detail)
        try:
            self._set_state(SessionState.FAILED, detail)
        except AifapError as unrecorded:
            log.warning("the failure could not be recorded", detail=unrecorded.message)
            return Exit.CRASHED
        return Exit.OVER

    # --- one cycle -------------------------------------------------------------------------------

    def _cycle(self, boundary: datetime) -> None:
        started_real = self._clock.monotonic()
        info, answered = self._ask_for_plan(boundary)
        if info.stage is CycleStage.PLANNED:
            self._failures = 0
            info = self._trade(info)
        elif info.stage is CycleStage.SKIPPED:
            self._report_skipped(info)
        self._cycles_done += 1
        own_ms = (self._clock.monotonic() - started_real) * 1000
        self._keep(info, boundary, own_ms)
        if answered:
            self._close_cycle()
        self._vigil.beat()
        if self._failures >= STRATEGY_FAILURES_MAX:
            raise Conflict(f"{self._failures} cycles in a row had no plan; the last: {info.reason}")

    def _close_cycle(self) -> None:
        """Ring autotrade_done and wait until the strategy process has heard it."""
        bells = self._wiring.bells
        bells.autotrade_done.set()
        fds = [bells.rebalance_done.fileno(), self._wiring.strategy.fileno()]
        until = self._clock.now() + timedelta(seconds=DONE_WAIT_S)
        if fds[0] not in self._clock.wait_readable(fds, until):
            self._restart_strategy("did not confirm the end of the cycle")
        bells.rebalance_done.clear()

    def _ask_for_plan(self, boundary: datetime) -> tuple[OrderInfo, bool]:
        """Write the request, ring, wait for the plan; and whether the strategy process answered.

        One that dies or does not answer skips the cycle and is replaced.
        """
        asked = self._save(
            requested(
                self._spec.session_id,
                boundary,
                self._cycles_done + 1,
                self._epoch,
                0 if self._last is None else self._last.revision + 1,
            )
        )
        bells = self._wiring.bells
        bells.strategy_done.clear()
        bells.rebalance_start.set()
        deadline = self._clock.now() + timedelta(seconds=STRATEGY_WAIT_S)
        done, died = bells.strategy_done.fileno(), self._wiring.strategy.fileno()
        ready = self._clock.wait_readable([done, died], deadline)
        if done not in ready:
            self._restart_strategy("did not answer")
            reason = "strategy-gone: the strategy process ended or did not answer"
            return self._skip(asked, reason), False
        bells.strategy_done.clear()
        info = self._read_letter()
        if info.cycle != boundary or info.stage is CycleStage.REQUESTED:
            return self._skip(asked, "strategy-late: the plan was for another cycle"), True
        self._last = info
        return info, True

    def _restart_strategy(self, why: str) -> None:
        log.warning("restarting the strategy process", why=why)
        self._wiring.strategy.stop()
        bells = self._wiring.bells
        for bell in (bells.autotrade_done, bells.rebalance_start, bells.strategy_done):
            bell.clear()
        self._vigil.patiently(self._wiring.strategy.start)

    def _skip(self, info: OrderInfo, reason: str) -> OrderInfo:
        return self._save(info.changed(stage=CycleStage.SKIPPED, reason=reason))

    def _report_skipped(self, info: OrderInfo) -> None:
        if info.reason.startswith(AWAY):
            self._vigil.note_away(info.reason)
            return
        if not info.reason.startswith(NOT_THE_STRATEGYS):
            self._failures += 1
        self._announcer.cycle_skipped(info.reason)

    def _read_letter(self) -> OrderInfo:
        document = self._wiring.store.read()
        if document is None:
            raise InvariantViolated("order_info is gone in the middle of a cycle")
        return from_json(document)

    def _save(self, info: OrderInfo) -> OrderInfo:
        self._wiring.store.write(to_json(info), info.epoch, info.revision)
        self._last = info
        return info

    def _keep(self, info: OrderInfo, started_at: datetime, own_ms: float | None) -> None:
        self._last = info
        self._journal.keep(info, started_at, own_ms)

    # --- leaving flat ----------------------------------------------------------------------------

    def _flatten(self) -> None:
        """Close everything, confirm it, and do it again if something is left."""
        for _ in range(FLAT_TRIES):
            snapshot = self._vigil.outlast(self._wiring.exchange.snapshot)
            if not snapshot.positions:
                return
            instruments = self._vigil.outlast(self._wiring.exchange.instruments)
            book = Book(
                base=max(snapshot.equity, Decimal(1)),
                available=snapshot.available,
                positions={position.symbol: position for position in snapshot.positions},
                marks={p.symbol: p.mark_price for p in snapshot.positions},
                instruments=instruments,
            )
            plan = plan_rebalance({}, book, flat_policy(self._spec))
            letter = requested(
                self._spec.session_id,
                self._flat_cycle(),
                self._cycles_done,
                self._epoch,
                0 if self._last is None else self._last.revision + 1,
            )
            letter = self._save(
                with_plan(letter, plan, inputs={}, targets={}, strategy_digest="flat")
            )
            self._keep(self._trade(letter), letter.cycle, None)
        left = self._vigil.outlast(self._wiring.exchange.snapshot).positions
        if left:
            names = ", ".join(f"{position.symbol} {position.size}" for position in left)
            raise Conflict(f"the account could not be made flat after {FLAT_TRIES} tries: {names}")

    def _flat_cycle(self) -> datetime:
        """A time for a closing letter that no letter before it had: client ids are made of whole
        seconds, and each letter needs ids of its own."""
        now = self._clock.now()
        return now if self._last is None else max(now, self._last.cycle + timedelta(seconds=1))

    # --- parts -----------------------------------------------------------------------------------

    def _ports(self) -> ExecutionPorts:
        return ExecutionPorts(self._wiring.exchange, self._wiring.store, self._clock)

    def _rules(self) -> ExecutionRules:
        spec = self._spec
        return ExecutionRules(
            installation=spec.installation,
            session_id=spec.session_id,
            epoch=self._epoch,
            policy=policy_of(spec),
            margin_mode=spec.margin_mode,
            apply_account_settings=spec.apply_account_settings,
            stop_requested=self._vigil.stop_requested,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one session in the foreground, without a host."""
    parser = argparse.ArgumentParser(prog="python -m trading.rebalancing_main")
    parser.add_argument("--session", required=True, help="the id of a session that was created")
    options = parser.parse_args(arguments)
    from trading.bootstrap import lead_without_host

    return int(lead_without_host(options.session))


if __name__ == "__main__":
    sys.exit(main())
