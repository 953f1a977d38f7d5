"""The faults of one venue: judged, done, counted, and remembered across restarts.

    bitget_app   -> FaultDesk.open_case -> FaultCase.before, edit, after -> Reply
    Venue        -> FaultDesk.next_ms, act (effects at a time, requests that were held back)
    engine       -> the gate of triggers

Nothing here knows sockets, real time or asyncio: the same seed, requests and world times give the
same faults in a process of its own and inside a simulation. Counters and effects go into the
journal, so that a restart neither repeats a fault nor forgets how many calls it still lets pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from module.simulator.engine.engine import Engine
from module.simulator.engine.engine_records import PlanRecord
from module.simulator.engine.engine_types import NEVER_MS, EngineRejected, MarketType, RejectReason
from module.simulator.faults import fault_edits
from module.simulator.faults.fault_answers import spoil
from module.simulator.faults.fault_changes import changed_params
from module.simulator.faults.fault_effects import EffectTarget, apply_effect
from module.simulator.faults.fault_words import parse_words, words_json
from module.simulator.faults.faults import (
    FaultAnswer,
    FaultChange,
    FaultEffect,
    FaultMoment,
    FaultPlan,
    FaultQuestion,
    FaultRule,
    FaultWords,
    Verdict,
)
from module.simulator.wire.bitget_codes import WireError
from module.simulator.wire.bitget_params import Params
from module.simulator.wire.wire_answer import Reply, WireAnswer, envelope

ADD_FAULT = "CONTROL add-fault"
CLEAR_FAULTS = "CONTROL clear-faults"
FAULT_FIRED = "CONTROL fault-fired"
FAULT_SEEN = "CONTROL fault-seen"
FAULT_EFFECT = "CONTROL fault-effect"
HOLD_REQUEST = "CONTROL hold-request"
DELIVER_HELD = "CONTROL deliver-held"
_HOLDS = (FaultAnswer.HOLD, FaultAnswer.HOLD_DROP)

Record = Callable[[str, str, Mapping[str, object]], None]


@dataclass(frozen=True, slots=True)
class HeldRequest:
    """A request on its way: it reaches the exchange at `due_ms`."""

    due_ms: int
    call: str
    account_id: str
    params: Mapping[str, object]


class FaultDesk:
    """See the module's docstring.

    `record` appends to the journal, `deliver` executes a request, `changed` says that the next
    event of the world may be another one.
    """

    def __init__(
        self,
        engine: Engine,
        record: Record,
        deliver: Callable[[HeldRequest], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan = FaultPlan()
        self._engine = engine
        self._record = record
        self._deliver = deliver
        self._changed = changed
        self._held: list[HeldRequest] = []
        self._effects = 0
        engine.set_trigger_gate(self._gate)

    @property
    def rules(self) -> Sequence[FaultRule]:
        """All rules, in the order in which they were given."""
        return self.plan.rules

    # -- commands -----------------------------------------------------------------------------

    def add(self, words: FaultWords) -> FaultRule:
        """One more rule, journaled."""
        self._record(ADD_FAULT, "", words_json(words))
        rule = self.plan.add(words)
        self._changed()
        return rule

    def clear(self) -> None:
        """No more faults; requests that are held back still arrive."""
        self._record(CLEAR_FAULTS, "", {})
        self.plan.clear()

    def replay(self, call: str, account_id: str, params: Params) -> bool:
        """Do again what the journal says; False when `call` is not about faults."""
        match call:
            case "CONTROL add-fault":
                self.plan.add(parse_words(params.values, self._engine.now_ms))
            case "CONTROL clear-faults":
                self.plan.clear()
            case "CONTROL fault-fired":
                self._restore(params).fired += 1
            case "CONTROL fault-seen":
                self._restore(params)
            case "CONTROL fault-effect":
                rule = self._restore(params)
                self._apply(rule, _target_of(account_id, params))
            case "CONTROL hold-request":
                self._held.append(_held_of(account_id, params))
            case "CONTROL deliver-held":
                self._deliver(self._held.pop(params.integer("index", 0)))
            case _:
                return False
        return True

    def _restore(self, params: Params) -> FaultRule:
        rule = self.plan.rules[params.integer("number", 0)]
        rule.seen = params.integer("seen", 0)
        rule.started_ms = params.optional_ms("started_ms")
        return rule

    # -- requests -----------------------------------------------------------------------------

    def open_case(self, path: str, call: str, account_id: str, params: Params) -> FaultCase | None:
        """What the rules have against this request; None where there are no rules."""
        if not self.plan.rules:
            return None
        named = params.values.get("symbol")
        symbol = named.upper() if isinstance(named, str) else ""
        verdict = self.plan.judge(FaultQuestion(path, account_id, symbol, self._engine.now_ms))
        for rule in verdict.counted:
            if rule.seen <= rule.words.skip + 1 and _counts_matter(rule.words):
                self._record(FAULT_SEEN, "", self._counters(rule))
        if verdict.spoiler is None and not verdict.editors:
            return None
        return FaultCase(self, self._engine, verdict, (call, account_id, symbol), params)

    def skew_ms(self) -> int:
        """How far the exchange's clock is ahead of world time now."""
        rule = self.plan.skewing(self._engine.now_ms) if self.plan.rules else None
        return 0 if rule is None else int(rule.words.skew_s * 1000)

    def skew_changed(self) -> None:
        """The moved clock has really changed an answer."""
        rule = self.plan.skewing(self._engine.now_ms)
        if rule is not None:
            rule.seen += 1
            self.fire(rule)

    def fire(self, rule: FaultRule) -> None:
        """Count that a rule has really changed something."""
        self._record(FAULT_FIRED, "", self._counters(rule))
        rule.fired += 1

    def hold(self, rule: FaultRule, held: HeldRequest) -> None:
        """Keep a request back until it is due."""
        words = {"due_ms": held.due_ms, "call": held.call, "params": dict(held.params)}
        self._record(HOLD_REQUEST, held.account_id, words)
        self._held.append(held)
        self.fire(rule)
        self._changed()

    def disturb(self, rule: FaultRule, target: EffectTarget) -> bool:
        """Let a rule's effect happen; whether it changed anything (then it is counted).

        It is journaled after it has acted and before anybody is answered: a kill in between
        forgets both.
        """
        counters = self._counters(rule)
        if not self._apply(rule, target):
            return False
        words = {"symbol": target.symbol, "orders": list(target.order_ids)}
        self._record(FAULT_EFFECT, target.account_id, {**counters, **words})
        self._changed()
        return True

    def _apply(self, rule: FaultRule, target: EffectTarget) -> bool:
        numbered = replace(target, number=self._effects + 1)
        changed = self._engine.disturb(lambda world: apply_effect(world, rule.words, numbered))
        if changed:
            self._effects += 1
            rule.fired += 1
        return changed

    def _counters(self, rule: FaultRule) -> dict[str, object]:
        number = self.plan.rules.index(rule)
        return {"number": number, "seen": rule.seen, "started_ms": rule.started_ms}

    def _gate(self, plan: PlanRecord) -> None:
        """Refuse the order of a fired stop. Not journaled: a replay fires the same stops."""
        now_ms = self._engine.now_ms
        rule = self.plan.refusing_trigger(plan.account_id, plan.symbol, now_ms)
        if rule is None:
            return
        rule.seen += 1
        if rule.seen > rule.words.skip:
            rule.fired += 1
            raise EngineRejected(RejectReason.PRICE_BELOW_BAND, f"of plan {plan.plan_id}")

    # -- time ---------------------------------------------------------------------------------

    def next_ms(self) -> int:
        """When something is due by itself next; NEVER_MS if nothing is."""
        due_ms = min((held.due_ms for held in self._held), default=NEVER_MS)
        rule = self.plan.next_timed()
        return due_ms if rule is None else min(due_ms, rule.words.at_ms or 0)

    def act(self) -> None:
        """Do what is due now: held requests in the order of their time, then timed effects."""
        now_ms = self._engine.now_ms
        while self._held:
            index, held = min(enumerate(self._held), key=lambda item: (item[1].due_ms, item[0]))
            if held.due_ms > now_ms:
                break
            self._record(DELIVER_HELD, held.account_id, {"index": index})
            del self._held[index]
            self._deliver(held)
        while (rule := self.plan.next_timed()) is not None and (rule.words.at_ms or 0) <= now_ms:
            rule.seen += 1
            if not self.disturb(rule, EffectTarget(rule.words.account_id, rule.words.symbol)):
                self._record(FAULT_SEEN, "", self._counters(rule))


class FaultCase:
    """One request and the rules that hit it. `params` are its words, perhaps changed."""

    def __init__(
        self,
        desk: FaultDesk,
        engine: Engine,
        verdict: Verdict,
        who: tuple[str, str, str],
        params: Params,
    ) -> None:
        self.params = params
        self._desk = desk
        self._engine = engine
        self._rule = verdict.spoiler
        self._editors = verdict.editors
        self._call, self._account_id, self._symbol = who
        self._changed = False
        self._counted = False

    def before(self, patience_ms: Callable[[], int]) -> Reply | None:
        """What happens before the exchange sees the request; a Reply when it never does.

        `patience_ms`: for how long the exchange would still take it if it came later.
        """
        rule = self._rule
        if rule is None:
            return None
        words, now_ms = rule.words, self._engine.now_ms
        if words.answer in _HOLDS:
            return self._hold(rule, patience_ms())
        if words.change is not FaultChange.NONE:
            changed = changed_params(words, self.params, self._engine)
            self._changed = changed is not None
            self.params = changed or self.params
        if words.moment is FaultMoment.AFTER:
            return None
        acts = words.effect is not FaultEffect.NONE
        if acts and not self._disturb(rule, self._ids_of_request()):
            self._rule = None  # nothing to act on: this request is served honestly
            return None
        if words.answer is FaultAnswer.HONEST:
            return None
        self._fire(rule)
        return spoil(words, envelope(now_ms, None), now_ms)

    def edit(self, data: object) -> object:
        """The data as the client sees it; WireError where it is told that there is nothing."""
        for rule in self._editors:
            view = fault_edits.ReadView(self._engine, self._account_id, self._symbol or None)
            try:
                changed = fault_edits.edit(rule.words, data, view)
            except WireError:
                self._desk.fire(rule)
                raise
            if changed is not None:
                self._desk.fire(rule)
                data = changed
        return data

    def after(self, answer: WireAnswer, data: object) -> Reply:
        """What the client gets; `data` is what the exchange did, None when it refused."""
        rule = self._rule
        honest = Reply(answer)
        if rule is None or (rule.words.needs_success and data is None):
            return honest
        words = rule.words
        acts = words.moment is FaultMoment.AFTER and words.effect is not FaultEffect.NONE
        if acts and not self._disturb(rule, _ids_of(data)):
            return honest
        reply = honest
        if words.moment is FaultMoment.AFTER or words.answer is FaultAnswer.HONEST:
            reply = spoil(words, answer, self._engine.now_ms)
        if (reply != honest and not _says(answer, words)) or (self._changed and data is not None):
            self._fire(rule)
        return reply

    def _hold(self, rule: FaultRule, patience_ms: int) -> Reply:
        """Keep it back; one that comes too late for the exchange is as if it never came."""
        now_ms, hold_ms = self._engine.now_ms, int(rule.words.hold_s * 1000)
        if hold_ms > patience_ms:
            self._desk.fire(rule)
        else:
            held = HeldRequest(now_ms + hold_ms, self._call, self._account_id, self.params.values)
            self._desk.hold(rule, held)
        return spoil(rule.words, envelope(now_ms, None), now_ms)

    def _disturb(self, rule: FaultRule, order_ids: tuple[str, ...]) -> bool:
        words = rule.words
        account_id = words.account_id or self._account_id
        symbol = words.symbol or self._symbol
        done = self._desk.disturb(rule, EffectTarget(account_id, symbol, order_ids))
        self._counted |= done
        return done

    def _ids_of_request(self) -> tuple[str, ...]:
        """The orders that the request names by their ids or client ids."""
        named = _ids_of(self.params.values)
        client_id = self.params.values.get("clientOid")
        if named or not isinstance(client_id, str):
            return named
        for market in MarketType:
            with contextlib.suppress(EngineRejected):
                order = self._engine.order(self._account_id, client_id=client_id, market=market)
                return (order.order_id,)
        return ()

    def _fire(self, rule: FaultRule) -> None:
        """Count it once for this request."""
        if not self._counted:
            self._counted = True
            self._desk.fire(rule)


def _counts_matter(words: FaultWords) -> bool:
    return bool(words.skip or words.starts_on or words.span_s is not None)


def _says(answer: WireAnswer, words: FaultWords) -> bool:
    """The honest answer has this very code already."""
    return words.answer is FaultAnswer.CODE and answer.body.startswith(
        f'{{"code":"{words.code}"'.encode()
    )


def _ids_of(words: object) -> tuple[str, ...]:
    """The order ids that a request or its answer names."""
    if not isinstance(words, Mapping):
        return ()
    rows: list[object] = [words]
    for name in ("successList", "orderIdList", "orderList"):
        listed = words.get(name)
        rows += listed if isinstance(listed, list) else []
    found = [row.get("orderId") for row in rows if isinstance(row, Mapping)]
    return tuple(order_id for order_id in found if isinstance(order_id, str) and order_id)


def _target_of(account_id: str, params: Params) -> EffectTarget:
    orders = params.values.get("orders")
    named = tuple(str(each) for each in orders) if isinstance(orders, list) else ()
    return EffectTarget(account_id, params.text("symbol") or "", named)


def _held_of(account_id: str, params: Params) -> HeldRequest:
    words = params.values.get("params")
    values = dict(words) if isinstance(words, dict) else {}
    return HeldRequest(params.integer("due_ms", 0), params.needed("call"), account_id, values)
