"""Replay: the plan of an archived cycle once more, from its journal, the strategy included.

    archived letter ─ inputs ─┐
    archived bars ────────────┼─► the user's function in the runner ─► answer ─► decide ─► plan
    pinned source, config ────┘                                              compared, part by part

Nothing of the world is read: not the exchange, not the market, not the clock. What differs is
listed as was/is; what was altered on disk is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from module.model.canonical import canonical_json, instant_text
from module.model.errors import AifapError, InvariantViolated, NotFound, Rejected, StrategyFailed
from module.model.market import Candle, Frequency
from module.ports import StrategyRunner
from trading.gathering import SeenMarket, measure_volatility
from trading.rebalance.bars_seen import BarsSeen, raise_refusal
from trading.rebalance.decision import CycleInputs, decide, plan_letter
from trading.rebalance.order_info import OrderInfo, requested, to_json


class Verdict(StrEnum):
    """same: the same plan, byte for byte. different: another one. no_plan: the cycle had none, so
    there is nothing to rebuild (the reason says why)."""

    SAME = "same"
    DIFFERENT = "different"
    NO_PLAN = "no-plan"


@dataclass(frozen=True, slots=True)
class Difference:
    """One part that came out otherwise; `where` is a path like `legs/BTCUSDT-open/size`."""

    where: str
    was: str
    now: str


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What became of one cycle's replay. `notes` say what may explain a difference (another
    build), or what was not replayed."""

    session_id: str
    cycle: datetime
    number: int
    verdict: Verdict
    plan_digest: str
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()


class ArchivedMarket:
    """MarketData that has only the bars that the cycle saw, and says again what was refused."""

    def __init__(self, seen: Sequence[BarsSeen]) -> None:
        self._seen = {
            (each.asked.assets, each.asked.frequency, each.asked.window): each for each in seen
        }

    def closed_bars(
        self, symbols: Sequence[str], frequency: Frequency, window: int, end: datetime
    ) -> Mapping[str, Sequence[Candle]]:
        """NotFound for a window that the cycle did not ask for."""
        found = self._seen.get((tuple(symbols), frequency, window))
        if found is None:
            raise NotFound(
                f"the cycle did not ask for {window} × {frequency} of {', '.join(symbols)}: its "
                "archive does not have them"
            )
        raise_refusal(found.asked)
        return found.bars


@dataclass(frozen=True, slots=True)
class Journal:
    """What one archived cycle left: its letter, the bars it saw (None: they were not kept), and the
    pinned source of its strategy (None: not at hand)."""

    letter: OrderInfo
    bars: Sequence[BarsSeen] | None
    source: str | None


def read_inputs(letter: OrderInfo) -> CycleInputs | None:
    """What the plan was made of; None where the cycle had no plan. InvariantViolated when they are
    not this letter's."""
    if not letter.inputs:
        return None
    inputs = CycleInputs.from_json(letter.inputs)
    if (inputs.session_id, inputs.cycle) != (letter.session_id, letter.cycle):
        raise InvariantViolated(
            f"the inputs are of cycle {inputs.session_id} {instant_text(inputs.cycle)}, the letter "
            f"of {letter.session_id} {instant_text(letter.cycle)}"
        )
    return inputs


def replay_cycle(
    journal: Journal, runner: StrategyRunner, build: str, *, ask_strategy: bool = True
) -> ReplayReport:
    """Rebuild the plan of the journal's letter and compare it.

    `runner` shows user code the zone that it saw (`call.timezone`); `build` is this code's. Without
    `ask_strategy` the recorded answer is taken. InvariantViolated names what of the journal was
    altered; NotFound what of it is missing.
    """
    letter = journal.letter
    inputs = read_inputs(letter)
    if inputs is None:
        return _report(letter, Verdict.NO_PLAN, notes=(letter.reason or "it was never planned",))
    notes = []
    if inputs.build != build:
        notes.append(
            f"planned by build {inputs.build or 'unknown'}, replayed by build {build or 'unknown'}"
        )
    differences: list[Difference] = []
    if journal.bars is not None:
        check_bars(inputs, journal.bars)
    if inputs.call.name and not ask_strategy:
        notes.append("the strategy was not asked again: the answer is the recorded one")
    elif inputs.call.name:
        inputs = _asked_again(inputs, journal, runner, differences)
    differences.extend(_compare_plans(letter, inputs))
    verdict = Verdict.DIFFERENT if differences else Verdict.SAME
    return _report(letter, verdict, tuple(differences), tuple(notes))


def check_bars(inputs: CycleInputs, bars: Sequence[BarsSeen]) -> None:
    """InvariantViolated unless the kept bars are those that the letter names, by their digests."""
    kept = tuple(each.asked for each in bars)
    if len(kept) != len(inputs.bars):
        raise InvariantViolated(
            f"the letter names {len(inputs.bars)} windows of bars, the archive has {len(kept)}"
        )
    for wanted, found in zip(inputs.bars, kept, strict=True):
        if wanted != found:
            raise InvariantViolated(
                f"the archived bars of the window {wanted.label} are not those that the letter "
                f"names (digest {found.digest[:12] or '-'}, wanted {wanted.digest[:12] or '-'})"
            )


def _asked_again(
    inputs: CycleInputs, journal: Journal, runner: StrategyRunner, differences: list[Difference]
) -> CycleInputs:
    """The inputs with what the strategy says now, and volatilities measured from the bars."""
    if journal.source is None:
        raise NotFound(f"the source of strategy {inputs.call.name!r} is not at hand")
    bars = journal.bars if inputs.bars else ()
    if bars is None:
        raise NotFound(
            f"the bars of cycle {instant_text(inputs.cycle)} were not kept: its strategy cannot be "
            "asked again (--without-strategy takes its recorded answer)"
        )
    market = SeenMarket(ArchivedMarket(bars))
    try:
        answer = runner.run(
            journal.source, json.loads(inputs.call.config), inputs.cycle, market
        ).targets
    except StrategyFailed as error:
        differences.append(Difference("strategy", "returned weights", error.message))
        return inputs
    asked = [each.asked.label for each in market.seen]
    wanted = [each.label for each in inputs.bars[: inputs.strategy_bars]]
    _differ(differences, "strategy/windows", wanted, asked)
    again = replace(inputs, answer={name: dict(each) for name, each in sorted(answer.items())})
    _differ(differences, "strategy/answer", inputs.to_json()["answer"], again.to_json()["answer"])
    try:
        measured = measure_volatility(
            again.answer, again.instruments, again.policy, ArchivedMarket(bars), inputs.cycle
        )
    except Rejected as error:
        differences.append(Difference("volatility", "measured", error.message))
        return again
    again = replace(
        again, realized_volatility=measured.of_book, volatility=dict(measured.by_symbol)
    )
    for name in ("realized_volatility", "volatility"):
        _differ(differences, name, inputs.to_json()[name], again.to_json()[name])
    return again


def _compare_plans(letter: OrderInfo, inputs: CycleInputs) -> list[Difference]:
    found: list[Difference] = []
    try:
        blank = requested(
            letter.session_id, letter.cycle, letter.number, letter.epoch, letter.revision
        )
        now = plan_letter(blank, inputs, decide(inputs))
    except AifapError as error:
        return [Difference("plan", "there was one", f"{error.code}: {error.message}")]
    was_document, now_document = to_json(letter), to_json(now)
    for name in ("targets", "strategy_digest", "skipped", "stops", "residuals"):
        _differ(found, name, was_document.get(name), now_document.get(name))
    was_legs = {record.leg.leg_id: record for record in letter.legs}
    now_legs = {record.leg.leg_id: record for record in now.legs}
    _differ(found, "legs", list(was_legs), list(now_legs))
    was_spelled, now_spelled = _legs(was_document), _legs(now_document)
    for leg_id in was_legs:
        if leg_id in now_legs:
            _differ(found, f"legs/{leg_id}", was_spelled[leg_id], now_spelled[leg_id])
    if not found and letter.plan_digest != now.plan_digest:
        found.append(Difference("plan_digest", letter.plan_digest, now.plan_digest))
    return found


def _legs(document: Mapping[str, object]) -> dict[str, object]:
    """The legs as they were planned, by id, spelled as in the letter."""
    records = document["legs"]
    assert isinstance(records, list)
    return {record["leg"]["leg_id"]: record["leg"] for record in records}


def _differ(found: list[Difference], where: str, was: object, now: object) -> None:
    """Add what differs between two plain documents, as deep as both have the same shape."""
    if was == now:
        return
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in sorted({*was, *now}):
            _differ(found, f"{where}/{key}", was.get(key), now.get(key))
        return
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (left, right) in enumerate(zip(was, now, strict=True)):
            _differ(found, f"{where}/{number}", left, right)
        return
    found.append(Difference(where, _spell(was), _spell(now)))


def _spell(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else canonical_json(value)


def _report(
    letter: OrderInfo,
    verdict: Verdict,
    differences: tuple[Difference, ...] = (),
    notes: tuple[str, ...] = (),
) -> ReplayReport:
    return ReplayReport(
        letter.session_id,
        letter.cycle,
        letter.number,
        verdict,
        letter.plan_digest,
        differences,
        notes,
    )
