"""The session leader: asks for a plan at every boundary, trades it, ends as it was told.

    start: epoch + 1 ─► compare the account with the letters ─► finish what was interrupted, or
           drop it by age ─► running
    boundary (one that was traded already is passed over, one that is long over is missed, C7)
             ─► letter (requested), ring rebalance_start ─► strategy_done ─► compare ─► auto_trade
             ─► journal, ring autotrade_done ─► rebalance_done ─► next boundary
    plan too old, or the account another one, before its first order: it is made anew
    exchange or gateway away: told once, waited for; then the letter is taken up, or dropped by age
    end: flat or protected, as asked; a critical error ends it protected, with an alert

`python -m trading.rebalancing_main --session ID` runs one session without a host.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime

from module.logs import get_logger
from module.model.accounts import AccountSnapshot
from module.model.errors import (
    PASSING,
    AifapError,
    Conflict,
    RateLimited,
    StaleWriter,
    Unavailable,
)
from module.model.sessions import (
    DesiredState,
    EndState,
    SessionState,
    boundary_at_or_before,
)
from module.points import reach
from trading.account_watch import AccountWatch, OpeningWatch
from trading.completion import Completion
from trading.execution.auto_trade import (
    ExecutionPorts,
    ExecutionRules,
    auto_trade,
    is_stale,
    settle_open_slices,
)
from trading.execution.freshness import STALE
from trading.execution.opening import require_one_way
from trading.execution.reconcile import judge
from trading.execution.scribe import Scribe
from trading.leader_wiring import Exit, LeaderWiring
from trading.leaving import WayOut
from trading.rebalance.order_info import CycleStage, OrderInfo
from trading.rebalancing_strategy import AWAY, policy_of
from trading.session.announcer import Announcer
from trading.session.asking import STOPPING, PlanDesk
from trading.session.journal import Journal
from trading.session.letters import Letters, PatientStore
from trading.session.time_steps import (
    STEP_MIN,
    Boundaries,
    FirstSight,
    told_already_traded,
    told_missed,
)
from trading.session.vigil import AWAY_PAUSE_FIRST_S, HandOver, Vigil
from trading.warm_up import WarmUp

__all__ = ["Exit", "LeaderWiring", "run_trading"]

STRATEGY_FAILURES_MAX = 5
"""So many cycles in a row without a plan, by the strategy's fault, end the session."""
RECOVERY_AGE_FRACTION = 2
"""A cycle is traded in the first half of its interval; found later it is missed, or dropped."""
PLANS_MAX = 3
"""So often one cycle is planned; then it is dropped."""
NOT_THE_STRATEGYS = ("no-bar", Unavailable.code, RateLimited.code)

log = get_logger("trading.leader")


def run_trading(wiring: LeaderWiring) -> Exit:
    """Lead the session until it is over, handed over, or something outlives its retries."""
    leader = _Leader(wiring)
    try:
        return leader.run()
    except StaleWriter as error:
        log.warning("another leader took over", detail=error.message)
        return Exit.OVER
    except HandOver:
        log.info("handed over in the middle of a cycle", session=wiring.spec.session_id)
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
        self._store = PatientStore(wiring.store, self._vigil.until_kept)
        self._letters = Letters(self._store, wiring.spec.session_id)
        self._warm_up = WarmUp(wiring.spec, self._ports(), self._letters)
        self._journal = Journal(wiring.store, wiring.registry, wiring.clock, epoch=0)
        self._opening = OpeningWatch(self._announcer)
        self._boundaries = Boundaries(wiring.spec.interval)
        self._first_sight = FirstSight(wiring.clock)
        self._plans = PlanDesk(
            wiring.bells, wiring.strategy, wiring.clock, self._letters, self._vigil
        )

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
            boundary = self._next_boundary()
            if not self._wait_for(boundary):
                continue
            if self._is_young(boundary):
                self._cycle(boundary, self._cycles_done + 1)
            else:
                self._miss(boundary, self._cycles_done + 1)

    def _next_boundary(self) -> datetime:
        found = self._boundaries.next_after(self._clock.now())
        for passed in found.passed_over:
            self._announcer.cycle_skipped(told_already_traded(passed, found.boundary))
        return found.boundary

    def _wait_for(self, boundary: datetime) -> bool:
        """Whether the boundary came, the account's rules read shortly before; False: look first."""
        warm = self._warm_up.begins_at(boundary)
        if self._clock.now() < warm < self._spec.ends_at:
            if not self._vigil.wait_until(warm):
                return False
            self._warm_up.read()
        return self._vigil.wait_until(min(boundary, self._spec.ends_at)) and self._ending() is None

    def _start(self) -> None:
        spec, registry = self._spec, self._wiring.registry
        watching = self._vigil.begin_watching()
        self._vigil.patiently(self._wiring.strategy.begin)
        self._epoch = self._vigil.once_postgres_answers(
            lambda: registry.take_epoch(spec.session_id)
        )
        self._vigil.epoch = self._epoch
        self._journal = Journal(self._wiring.store, registry, self._clock, self._epoch)
        self._wiring.strategy.await_ready()
        if watching:
            self._vigil.await_watching()
        log.info("processes ready", at_monotonic_s=round(self._clock.monotonic(), 3))
        row = self._vigil.once_postgres_answers(lambda: registry.get(spec.session_id))
        if row.desired is DesiredState.STOPPED or row.state is SessionState.STOPPING:
            self._vigil.stop_wanted = row.end_state
        first = row.initial_balance is None
        snapshot = self._vigil.outlast(self._wiring.exchange.snapshot)
        if first:
            require_one_way(Scribe(self._ports(), self._rules(None)), snapshot)
        if first and snapshot.closable and not spec.adopt_existing:
            held = ", ".join(position.symbol for position in snapshot.closable)
            raise Conflict(
                f"the account already holds {held}; close it, or start with adopt_existing"
            )
        self._vigil.once_postgres_answers(
            lambda: registry.set_initial_balance(spec.session_id, self._epoch, snapshot.equity)
        )
        self._letters.find()
        archived = self._letters.archive()
        self._boundaries.recall(archived)
        self._opening.recall(self._letters.recent())
        self._journal.find_unstored(archived, row.cycle, row.last_boundary)
        self._cycles_done = max([row.cycle, *(info.number for info in archived)])
        self._watch().at_start()
        log.info("account compared", at_monotonic_s=round(self._clock.monotonic(), 3))
        self._recover(archived)
        self._complete()
        if row.state is SessionState.STARTING:
            self._set_state(SessionState.RUNNING)
        if first:
            self._announcer.started()
        if self._ending() is None:
            self._warm_up.set_settings(self._rules(None))
        log.info("reconciled", at_monotonic_s=round(self._clock.monotonic(), 3))

    def _set_state(self, state: SessionState, reason: str = "") -> None:
        self._vigil.once_postgres_answers(lambda: self._record_state(state, reason))

    def _record_state(self, state: SessionState, reason: str) -> None:
        now, epoch = self._clock.now(), self._epoch or None
        self._wiring.registry.set_state(
            self._spec.session_id, state, now, reason=reason, epoch=epoch
        )

    def _recover(self, archived: Sequence[OrderInfo]) -> None:
        """Starting is recovering: what an earlier leader left is finished, or dropped by age."""
        info = self._letters.last
        if info is None:
            return
        reach("leader: before recovery")
        if info.stage.is_over:
            if (info.cycle, info.number) in {(each.cycle, each.number) for each in archived}:
                return  # else its leader died right before it did so
            if self._may_plan_anew(info):
                self._cycle(info.cycle, info.number)
            elif not is_stale(info) or info.legs:  # else it never was a plan
                self._keep(info)
                self._cycles_done = max(self._cycles_done, info.number)
            return
        if info.stage is CycleStage.REQUESTED:
            reason = f"{STALE}: the leader was replaced before there was a plan"
            done = info.changed(epoch=self._epoch, stage=CycleStage.DROPPED, reason=reason)
            self._letters.save(done)
        else:
            self._letters.save(info.changed(epoch=self._epoch))
            done = self._vigil.outlast(self._take_up)
        if self._may_plan_anew(done):
            self._cycle(done.cycle, done.number)
            return
        if info.stage is not CycleStage.REQUESTED:
            self._keep(done)
            self._cycles_done = max(self._cycles_done, done.number)
        reach("leader: recovered")

    def _take_up(self) -> OrderInfo:
        """Go on with the letter that was interrupted; an old one is settled and dropped."""
        info = self._letters.read()
        self._first_sight.note(info)
        age = self._clock.now() - info.cycle
        log.info("taking up a cycle", session=self._spec.session_id, age_s=age.total_seconds())
        if info.stage.is_over:
            return info
        if self._is_young(info.cycle) and self._ending() is None:
            if info.stage is CycleStage.PLANNED:  # its leader died before it had compared it
                info = self._watch().before_trading(info)
                if info.stage.is_over:
                    return info
            return auto_trade(info, self._ports(), self._rules(info))
        reason = f"interrupted, and {age.total_seconds():.0f} s old when it was found"
        if self._ending() is not None:
            reason = "interrupted, and the session ends"
        return settle_open_slices(info, self._ports(), self._rules(info), reason)

    def _is_young(self, cycle: datetime) -> bool:
        """Whether it may still be traded; one still to come is of a clock that was wrong."""
        age = self._clock.now() - cycle
        return -STEP_MIN <= age <= self._spec.interval / RECOVERY_AGE_FRACTION

    def _may_plan_anew(self, info: OrderInfo) -> bool:
        """Whether a plan that was thrown away before its first order is made again now."""
        going_on = self._ending() is None and not self._wiring.control.hand_over
        return is_stale(info) and self._is_young(info.cycle) and going_on

    def _trade(self, info: OrderInfo) -> OrderInfo:
        """Carry out the letter; when the exchange goes away in the middle, wait and take it up."""
        known = self._warm_up.take()
        try:
            done = auto_trade(info, self._ports(), self._rules(info), known)
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
        last, now, interval = self._letters.last, self._clock.now(), self._spec.interval
        if last is None:
            return True
        boundary = boundary_at_or_before(last.cycle, interval)  # of a completion its cycle's
        return not boundary - STEP_MIN <= now < boundary + interval

    def _finish(self, end_state: EndState, reason: str) -> Exit:
        self._set_state(SessionState.STOPPING, reason)
        # From here on the way of ending is fixed; what was asked up to now counts.
        wish = self._vigil.once_postgres_answers(
            lambda: self._wiring.registry.wishes(self._spec.session_id)
        )
        if wish.desired is DesiredState.STOPPED:
            end_state = wish.end_state
        way_out = self._way_out()
        if end_state is EndState.FLAT:
            way_out.flatten(self._cycles_done + 1, self._epoch, self._wiring.build)
        held = way_out.what_is_held()
        how = "flat" if held == "nothing" else f"{end_state.value}; held: {held}"
        self._set_state(SessionState.ENDED, f"{reason}; {how}")
        self._journal.flush()
        self._announcer.stopped(end_state, f"{reason}; {how}")
        return Exit.OVER

    def fail(self, error: Exception) -> Exit:
        """A critical error: alert, leave the account protected, stop the session."""
        detail = (
            error.message if isinstance(error, AifapError) else f"{type(error).__name__}: {error}"
        )
        log.error("session failed", session=self._spec.session_id, detail=detail, exc_info=error)
        self._announcer.failed(detail, self._what_is_left())
        try:
            self._vigil.patiently(lambda: self._record_state(SessionState.FAILED, detail))
        except AifapError as unrecorded:
            log.warning("the failure could not be recorded", detail=unrecorded.message)
            return Exit.CRASHED
        return Exit.OVER

    def _what_is_left(self) -> str:
        """What a session that fails leaves behind; whatever broke it may break this too."""
        try:
            return self._way_out().what_is_held()
        except Exception as error:  # noqa: BLE001 - the top of a process, which is ending
            log.warning("positions not read at the end", detail=str(error))
            return "the exchange did not say what is held"

    # --- one cycle -------------------------------------------------------------------------------

    def _cycle(self, boundary: datetime, number: int) -> None:
        started_real = self._clock.monotonic()
        info, answered = self._plan_and_trade(boundary, number)
        if info.stage is CycleStage.SKIPPED:
            self._report_skipped(info)
        self._cycles_done = max(self._cycles_done, number)
        own_ms = (self._clock.monotonic() - started_real) * 1000
        self._keep(info, own_ms)
        if answered:
            self._plans.close()
        self._vigil.beat()
        self._complete()
        if self._failures >= STRATEGY_FAILURES_MAX:
            raise Conflict(f"{self._failures} cycles in a row had no plan; the last: {info.reason}")

    def _complete(self) -> None:
        """What became too old on the way is planned anew now, where its slot is long enough."""
        wiring, last = self._wiring, self._letters.last
        if last is None or self._ending() is not None or wiring.control.hand_over:
            return
        completion = Completion(
            self._spec,
            self._clock,
            wiring.exchange,
            self._letters,
            wiring.own,
            wiring.build,
            self._compare_and_trade,
            self._keep,
        )
        if completion.is_needed(last):
            completion.complete(last, self._epoch)

    def _compare_and_trade(self, info: OrderInfo, before: OrderInfo | None) -> OrderInfo:
        self._first_sight.note(info)
        info = self._watch().before_trading(info, before)
        return self._trade(info) if info.stage is CycleStage.PLANNED else info

    def _miss(self, boundary: datetime, number: int) -> None:
        """Its time was over long before it was noticed: recorded and told, nothing is traded."""
        reason = told_missed(boundary, self._clock.now())
        asked = self._letters.request(boundary, number, self._epoch)
        info = self._letters.save(asked.changed(stage=CycleStage.SKIPPED, reason=reason))
        self._announcer.cycle_skipped(reason)
        self._cycles_done = max(self._cycles_done, number)
        self._keep(info)

    def _plan_and_trade(self, boundary: datetime, number: int) -> tuple[OrderInfo, bool]:
        """The cycle's letter when it is over, and whether the strategy process waits for its end.

        A plan that is too old, or whose account is another one by now, is made again.
        """
        plans = 0
        while True:
            before = self._letters.last
            asked = self._letters.request(boundary, number, self._epoch)
            info, answered = self._plans.ask(asked)
            plans += 1
            if info.stage is not CycleStage.PLANNED:
                return info, answered
            self._failures = 0
            info = self._compare_and_trade(info, before)
            if plans == PLANS_MAX or not self._may_plan_anew(info):
                return info, answered
            log.warning("planning anew", session=self._spec.session_id, why=info.reason)
            self._plans.close()

    def _report_skipped(self, info: OrderInfo) -> None:
        if info.reason.startswith(STOPPING):
            return  # its end is told
        if info.reason.startswith(AWAY):
            self._vigil.note_away(info.reason)
            return
        if not info.reason.startswith(NOT_THE_STRATEGYS):
            self._failures += 1
        self._announcer.cycle_skipped(info.reason)

    def _keep(self, info: OrderInfo, own_ms: float | None = None) -> None:
        reach("leader: before the cycle is archived")
        self._letters.kept(info)
        self._journal.keep(info, own_ms)
        self._boundaries.note(info)
        self._opening.note(info)
        reach("leader: cycle archived")

    # --- parts -----------------------------------------------------------------------------------

    def _own_snapshot(self) -> AccountSnapshot:
        """The account with what the session may touch: of a spot account its own coins."""
        return self._wiring.own(self._wiring.exchange.snapshot(), ())

    def _way_out(self) -> WayOut:
        wiring = self._wiring
        return WayOut(
            self._spec,
            self._clock,
            wiring.exchange,
            self._letters,
            self._vigil,
            self._own_snapshot,
            self._trade,
            self._keep,
            self._watch().clear_orders,
        )

    def _watch(self) -> AccountWatch:
        return AccountWatch(
            self._ports(),
            self._rules(None),
            self._own_snapshot,
            self._letters,
            self._vigil,
            self._announcer,
        )

    def _ports(self) -> ExecutionPorts:
        return ExecutionPorts(self._wiring.exchange, self._store, self._clock)

    def _rules(self, info: OrderInfo | None) -> ExecutionRules:
        spec = self._spec
        frozen = {} if info is None else judge((), info.corrections).frozen
        return ExecutionRules(
            installation=spec.installation,
            session_id=spec.session_id,
            epoch=self._epoch,
            policy=policy_of(spec),
            margin_mode=spec.margin_mode,
            apply_account_settings=spec.apply_account_settings,
            stop_requested=self._vigil.stop_requested,
            frozen=frozen,
            least_age_s=self._first_sight.age_s,
            tell_forgotten=self._announcer.order_forgotten,
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
