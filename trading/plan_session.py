"""The process of a session that has one given plan: carries it out and ends. No strategy is asked.

    epoch + 1 ─► is the plan still what was looked at? ─► letter ─► auto_trade ─► journal ─► ended
                              └─ no: nothing is traded, the session ends and says what changed
    started again after a crash: the letter is taken up, or settled when it has become too old

It is the same letter, the same `auto_trade` and the same journal as every cycle's. While it lives
the account is its own (one session per account, one epoch), so nobody trades between the check and
the orders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TypeVar

from module.logs import get_logger
from module.model.accounts import AccountSnapshot
from module.model.errors import PASSING, AifapError, Conflict, NotFound, StaleWriter
from module.model.sessions import DesiredState, EndState, SessionSpec, SessionState
from module.ports import (
    AlertSink,
    BarsArchive,
    Clock,
    Exchange,
    OrderInfoStore,
    SessionRegistry,
)
from trading.execution.auto_trade import (
    ExecutionPorts,
    ExecutionRules,
    auto_trade,
    settle_open_slices,
)
from trading.gathering import OwnPart, everything
from trading.leader_wiring import Exit
from trading.leaving import held_in_words, look_well
from trading.rebalance.decision import closing_inputs, decide, plan_letter
from trading.rebalance.given_plan import (
    AccountNow,
    GivenPlan,
    changes_since,
    in_words,
    sizes_of,
    symbols_to_watch,
)
from trading.rebalance.order_info import (
    CycleStage,
    Holding,
    OrderInfo,
    from_json,
    requested,
    to_json,
)
from trading.rebalancing_strategy import flat_policy, policy_of
from trading.session.announcer import Announcer
from trading.session.control import Control
from trading.session.journal import Journal

START_GRACE = timedelta(minutes=10)
PATIENCE_S = 30.0
PATIENCE_PAUSE_S = 1.0
AWAY_PAUSE_FIRST_S = 1.0
AWAY_PAUSE_MAX_S = 30.0
FLAT_TRIES = 3

log = get_logger("trading.plan")
T = TypeVar("T")


class _HandOver(Exception):
    """Another process shall go on, and this one was waiting for the exchange."""


@dataclass(frozen=True, slots=True)
class PlanWiring:
    """What the process needs of the world. `given` reads the plan that `spec.given_plan` names,
    `bars` the packed bars that it was made from (None: none were kept); `user` is the owner's
    name; `archive` keeps the bars for a replay; `own`: what of the account a flat end may close."""

    spec: SessionSpec
    user: str
    given: Callable[[], GivenPlan]
    bars: Callable[[], bytes | None]
    clock: Clock
    exchange: Exchange
    store: OrderInfoStore
    archive: BarsArchive
    registry: SessionRegistry
    alerts: AlertSink
    control: Control
    own: OwnPart = everything


def carry_out_plan(wiring: PlanWiring) -> Exit:
    """Carry out the session's plan, once, and end the session."""
    carrier = _Carrier(wiring)
    try:
        return carrier.run()
    except StaleWriter as error:
        log.warning("another process took over", detail=error.message)
        return Exit.OVER
    except _HandOver:
        return Exit.HANDED_OVER
    except Exception as error:  # noqa: BLE001 - the top of a process: record, alert, end
        return carrier.fail(error)


class _Carrier:
    """One process of one given plan."""

    def __init__(self, wiring: PlanWiring) -> None:
        self._wiring = wiring
        self._spec = wiring.spec
        self._clock = wiring.clock
        self._epoch = 0
        self._announcer = Announcer(wiring.spec, wiring.user, wiring.alerts, wiring.clock)

    def run(self) -> Exit:
        """From the epoch to the end of the session."""
        session_id, registry = self._spec.session_id, self._wiring.registry
        self._epoch = self._patiently(lambda: registry.take_epoch(session_id))
        document = self._wiring.store.read()
        if document is None:
            info = self._begin()
        else:
            info = from_json(document)
            if not info.stage.is_over:
                info = self._trade(self._save(info.changed(epoch=self._epoch)))
        return self._finish(info)

    def _begin(self) -> OrderInfo:
        """The first look: what was decided is traded, or dropped with what has changed since."""
        given = self._wiring.given()
        snapshot, marks = self._outlast(lambda: self._look(symbols_to_watch(given)))
        changes = changes_since(given, self._found(snapshot, marks))
        if self._stop_requested():
            changes = ["it was terminated by its owner"]
        if changes:
            reason = f"not carried out: {in_words(changes)}"
            letter = given.letter.changed(epoch=self._epoch, stage=CycleStage.DROPPED)
            return self._save(replace(letter, reason=reason))
        # The account is what the plan was made from, as of this look: that is how old the plan is.
        basis = Holding(snapshot.at, dict(sorted(sizes_of(snapshot.positions).items())))
        info = self._save(given.letter.changed(epoch=self._epoch, basis=basis))
        self._set_state(SessionState.RUNNING)
        return self._trade(info)

    def _look(self, symbols: Sequence[str]) -> tuple[AccountSnapshot, dict[str, Decimal]]:
        snapshot = self._wiring.exchange.snapshot()
        session_id, epoch = self._spec.session_id, self._epoch
        self._wiring.registry.set_initial_balance(session_id, epoch, snapshot.equity)
        return snapshot, marks_now(self._wiring.exchange, snapshot, symbols)

    def _found(self, snapshot: AccountSnapshot, marks: Mapping[str, Decimal]) -> AccountNow:
        """As `changes_since` wants it. The plan's age counted when the command came; from then on
        it has START_GRACE to begin (a process has to start, and a paper world may be fast)."""
        return AccountNow(
            now=self._clock.now() - START_GRACE,
            epoch=self._epoch - 1,
            positions=snapshot.positions,
            open_orders=snapshot.open_orders,
            marks=marks,
        )

    def _trade(self, info: OrderInfo) -> OrderInfo:
        """Carry out the letter for as long as it is young; an exchange that is away is waited for,
        and what was sent is settled in any case."""
        pause_s = AWAY_PAUSE_FIRST_S
        while True:
            try:
                if self._clock.now() - info.cycle <= START_GRACE and not self._stop_requested():
                    return auto_trade(info, self._ports(), self._rules())
                return settle_open_slices(info, self._ports(), self._rules(), "broken off")
            except PASSING as error:
                log.warning("the exchange is away", detail=error.message)
            self._let_pass(pause_s)
            pause_s = min(pause_s * 2, AWAY_PAUSE_MAX_S)
            document = self._wiring.store.read()
            info = info if document is None else from_json(document)

    def _finish(self, info: OrderInfo) -> Exit:
        """Into the journal; flat if the owner asked for that meanwhile; ended."""
        registry, session_id = self._wiring.registry, self._spec.session_id
        journal = Journal(self._wiring.store, registry, self._clock, self._epoch)
        self._set_state(SessionState.STOPPING)
        journal.keep(info)
        self._keep_bars(info)
        wish = self._patiently(lambda: registry.wishes(session_id))
        end_state = EndState.PROTECTED
        if wish.desired is DesiredState.STOPPED:
            end_state = wish.end_state
        if end_state is EndState.FLAT:
            self._flatten(info, journal)
        reason = _outcome(info)
        self._set_state(SessionState.ENDED, reason)
        journal.flush()
        self._announcer.stopped(end_state, reason)
        return Exit.OVER

    def _keep_bars(self, info: OrderInfo) -> None:
        """For a replay; one that could not be kept is told by the replay itself."""
        try:
            packed = self._wiring.bars()
            if packed is not None:
                self._wiring.archive.keep_bars(info.cycle, packed)
        except AifapError as error:
            log.warning("the bars were not kept for a replay", detail=error.message)

    def _flatten(self, last: OrderInfo, journal: Journal) -> None:
        spec, exchange = self._spec, self._wiring.exchange

        def look() -> AccountSnapshot:
            return self._outlast(lambda: self._wiring.own(exchange.snapshot(), ()))

        for _ in range(FLAT_TRIES):
            snapshot = look_well(look, self._let_pass)
            if not snapshot.closable:
                return
            instruments = self._outlast(exchange.instruments)
            cycle = max(self._clock.now(), last.cycle + timedelta(seconds=1))
            inputs = closing_inputs(
                spec.session_id, cycle, flat_policy(spec), snapshot, instruments
            )
            letter = requested(
                spec.session_id, cycle, last.number + 1, self._epoch, last.revision + 1
            )
            last = self._save(plan_letter(letter, inputs, decide(inputs)))
            last = self._outlast(partial(self._close, last))
            journal.keep(last)
        left = look_well(look, self._let_pass)
        if left.closable:
            raise Conflict(
                f"the account could not be made flat after {FLAT_TRIES} tries: "
                f"{held_in_words(left)}"
            )

    def _close(self, letter: OrderInfo) -> OrderInfo:
        """Carry out a closing letter; after an outage it goes on where the stored one stands."""
        document = self._wiring.store.read()
        found = letter if document is None else from_json(document)
        return found if found.stage.is_over else auto_trade(found, self._ports(), self._rules())

    def fail(self, error: Exception) -> Exit:
        """A critical error: alert, leave the account protected, end the session."""
        detail = (
            error.message if isinstance(error, AifapError) else f"{type(error).__name__}: {error}"
        )
        log.error("plan failed", session=self._spec.session_id, detail=detail, exc_info=error)
        self._announcer.failed(detail)
        try:
            self._set_state(SessionState.FAILED, detail)
        except AifapError as unrecorded:
            log.warning("the failure could not be recorded", detail=unrecorded.message)
            return Exit.CRASHED
        return Exit.OVER

    # --- parts -----------------------------------------------------------------------------------

    def _save(self, info: OrderInfo) -> OrderInfo:
        self._wiring.store.write(to_json(info), info.epoch, info.revision)
        return info

    def _set_state(self, state: SessionState, reason: str = "") -> None:
        self._patiently(
            lambda: self._wiring.registry.set_state(
                self._spec.session_id,
                state,
                self._clock.now(),
                reason=reason,
                epoch=self._epoch or None,
            )
        )

    def _stop_requested(self) -> bool:
        """Whether its owner wants it to end. A hand-over breaks off at once: the letter says how
        far it is, and the next process goes on with it."""
        control = self._wiring.control
        control.look()
        if control.hand_over:
            raise _HandOver
        try:
            wish = self._wiring.registry.wishes(self._spec.session_id)
        except PASSING as error:
            log.warning("desired state not read", detail=error.message)
            return False
        return wish.desired is DesiredState.STOPPED

    def _outlast(self, work: Callable[[], T]) -> T:
        """Repeat `work` for as long as the exchange is away, in world time."""
        pause_s = AWAY_PAUSE_FIRST_S
        while True:
            try:
                return work()
            except PASSING as error:
                log.warning("the exchange is away", detail=error.message)
            self._let_pass(pause_s)
            pause_s = min(pause_s * 2, AWAY_PAUSE_MAX_S)

    def _let_pass(self, seconds: float) -> None:
        control = self._wiring.control
        until = self._clock.now() + timedelta(seconds=seconds)
        while self._clock.wait_readable([control.fileno()], until):
            control.look()
            if control.hand_over:
                raise _HandOver

    def _patiently(self, work: Callable[[], T]) -> T:
        """Repeat `work` while Postgres is away, in real time, bounded."""
        give_up_at = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                return work()
            except PASSING:
                if self._clock.monotonic() >= give_up_at:
                    raise
                self._clock.pause(PATIENCE_PAUSE_S)

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
            stop_requested=self._stop_requested,
            tell_forgotten=self._announcer.order_forgotten,
        )


def marks_now(
    exchange: Exchange, snapshot: AccountSnapshot, symbols: Sequence[str]
) -> dict[str, Decimal]:
    """The marks of `symbols`, of what is held the snapshot's; one without price is left out."""
    marks = {position.symbol: position.mark_price for position in snapshot.positions}
    for symbol in symbols:
        if symbol in marks:
            continue
        try:
            marks[symbol] = exchange.quotes([symbol])[symbol].mark
        except NotFound:
            continue
    return marks


def _outcome(info: OrderInfo) -> str:
    """How the plan ended, for its owner."""
    if info.reason:
        return info.reason
    if not info.legs:
        return "the plan was carried out: there was nothing to trade, its stops are set"
    done = sum(record.filled_size >= record.size > 0 for record in info.legs)
    smaller = sum(record.size < record.leg.size for record in info.legs)
    cut = f", {smaller} of them cut to the money that was free" if smaller else ""
    return f"the plan was carried out: {done} of {len(info.legs)} legs filled{cut}"
