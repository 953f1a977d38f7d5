"""A plan that somebody looked at and may carry out, exactly as it is, while it is fresh. PURE.

    CycleInputs ─► give_plan ─► GivenPlan (letter, hash) ─► shown ─► execute(hash)
                                                                       │ what has changed since?
    account, marks, epoch now ─► changes_since ─► nothing: it is traded; else it says what

The hash is over the inputs and the plan (`decision_digest`): one hash is one plan, and because the
letter's session is fixed with it, a plan can be carried out once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from module.model.accounts import Position
from module.model.errors import InvalidInput, InvariantViolated, require
from module.model.money import ZERO, parse_decimal, plain
from module.model.orders import OrderReport
from trading.rebalance.decision import (
    CycleInputs,
    Decision,
    decide,
    decision_digest,
    plan_letter,
)
from trading.rebalance.order_info import OrderInfo, requested

FRESH_S = 60
PRICE_TOLERANCE = Decimal("0.005")
CHANGES_SHOWN_MAX = 12


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long the plan may be carried out (world seconds since its account was read), and by how
    much a mark of what it trades may have moved since (a fraction)."""

    seconds: int = FRESH_S
    price_tolerance: Decimal = PRICE_TOLERANCE


@dataclass(frozen=True, slots=True)
class GivenPlan:
    """A decision with its letter. `letter.epoch` is the account's epoch when it was made: whoever
    carries it out takes the next one, and finds that nobody was in between. `held`: the signed
    sizes of the whole account at that moment (a spot plan's inputs have its own coins alone)."""

    inputs: CycleInputs
    decision: Decision
    letter: OrderInfo
    freshness: Freshness
    held: Mapping[str, Decimal]

    @property
    def plan_hash(self) -> str:
        """64 hex characters over inputs and plan."""
        return decision_digest(self.inputs, self.letter)

    @property
    def moved_stops(self) -> tuple[str, ...]:
        """Held symbols whose stops the plan changes."""
        stops = self.decision.plan.stops
        return tuple(
            held.symbol
            for held in self.inputs.account.positions
            if stops.get(held.symbol, held.stops) != held.stops
        )

    @property
    def does_anything(self) -> bool:
        """Whether there is anything to carry out: an order, or a stop to move."""
        return bool(self.decision.plan.legs or self.moved_stops)

    @property
    def fresh_until(self) -> datetime:
        """World time after which it is not carried out any more."""
        return self.inputs.account.at + timedelta(seconds=self.freshness.seconds)

    def to_json(self) -> dict[str, object]:
        """Plain JSON, with the hash."""
        return {
            "plan_hash": self.plan_hash,
            "inputs": self.inputs.to_json(),
            "epoch": self.letter.epoch,
            "held": {symbol: plain(size) for symbol, size in sorted(self.held.items())},
            "fresh_s": self.freshness.seconds,
            "price_tolerance": plain(self.freshness.price_tolerance),
        }


def give_plan(
    inputs: CycleInputs, epoch: int, freshness: Freshness, held: Mapping[str, Decimal]
) -> GivenPlan:
    """The plan that these inputs lead to, as every cycle comes to its plan: through `decide`.

    StrategyFailed, Conflict, InvalidInput as `decide` raises them.
    """
    decision = decide(inputs)
    asked = requested(inputs.session_id, inputs.cycle, 1, epoch, 0)
    letter = plan_letter(asked, inputs, decision)
    return GivenPlan(inputs, decision, letter, freshness, dict(held))


def given_plan_from_json(document: Mapping[str, object]) -> GivenPlan:
    """What `to_json` wrote (further keys do not matter), decided again; InvariantViolated when the
    result is another plan."""
    inputs, epoch, fresh_s = document.get("inputs"), document.get("epoch"), document.get("fresh_s")
    held = document.get("held")
    try:
        if not isinstance(held, Mapping):
            raise InvalidInput("nothing of what was held")
        sizes = {str(name): parse_decimal(str(size), name="held") for name, size in held.items()}
        if not isinstance(inputs, Mapping) or not isinstance(epoch, int):
            raise InvalidInput("no inputs or no epoch")
        if not isinstance(fresh_s, int):
            raise InvalidInput("fresh_s is no whole number")
        tolerance = parse_decimal(str(document.get("price_tolerance")), name="price_tolerance")
    except InvalidInput as error:
        raise InvariantViolated(f"a stored preview cannot be read: {error.message}") from error
    freshness = Freshness(fresh_s, tolerance)
    given = give_plan(CycleInputs.from_json(inputs), epoch, freshness, sizes)
    require(
        given.plan_hash == document.get("plan_hash"),
        "a stored preview does not lead to its own plan: it was altered, or this build decides "
        "differently; make another preview",
    )
    return given


@dataclass(frozen=True, slots=True)
class AccountNow:
    """What the account and the market are when the plan is to be carried out."""

    now: datetime
    epoch: int
    positions: Sequence[Position]
    open_orders: Sequence[OrderReport]
    marks: Mapping[str, Decimal]


def symbols_to_watch(given: GivenPlan) -> list[str]:
    """Whose marks must be read anew: everything that the plan trades."""
    return sorted({leg.symbol for leg in given.decision.plan.legs})


def changes_since(given: GivenPlan, found: AccountNow) -> list[str]:
    """What has changed since the plan was made, in words; empty when it may be carried out."""
    changes = []
    age_s = (found.now - given.inputs.account.at).total_seconds()
    if age_s > given.freshness.seconds:
        changes.append(f"it is {age_s:.0f} s old, and was good for {given.freshness.seconds} s")
    if found.epoch != given.letter.epoch:
        changes.append(
            f"the account has had another writer since: its epoch is {found.epoch}, it was "
            f"{given.letter.epoch}"
        )
    changes += _changed_positions(given.held, sizes_of(found.positions))
    changes += _changed_orders(given.inputs.account.open_orders, found.open_orders)
    changes += _moved_prices(given, found.marks)
    return changes


def in_words(changes: Sequence[str]) -> str:
    """The changes as one sentence of bounded length."""
    shown = "; ".join(changes[:CHANGES_SHOWN_MAX])
    more = len(changes) - CHANGES_SHOWN_MAX
    return shown if more <= 0 else f"{shown}; and {more} more"


def sizes_of(positions: Sequence[Position]) -> dict[str, Decimal]:
    """Signed sizes in base asset, by symbol."""
    return {position.symbol: position.size for position in positions}


def _changed_positions(then: Mapping[str, Decimal], now: Mapping[str, Decimal]) -> list[str]:
    return [
        f"{symbol} was {plain(then.get(symbol, ZERO))}, is {plain(now.get(symbol, ZERO))}"
        for symbol in sorted(then.keys() | now.keys())
        if then.get(symbol, ZERO) != now.get(symbol, ZERO)
    ]


def _changed_orders(before: Sequence[OrderReport], now: Sequence[OrderReport]) -> list[str]:
    then = {order.order_id: order for order in before}
    there = {order.order_id: order for order in now}
    changes = [
        f"an order for {there[each].symbol} has appeared" for each in sorted(there.keys() - then)
    ]
    changes += [f"an order for {then[each].symbol} is gone" for each in sorted(then.keys() - there)]
    changes += [
        f"an order for {then[each].symbol} has filled further"
        for each in sorted(then.keys() & there)
        if then[each].filled_size != there[each].filled_size
    ]
    return changes


def _moved_prices(given: GivenPlan, marks: Mapping[str, Decimal]) -> list[str]:
    changes = []
    tolerance = given.freshness.price_tolerance
    for symbol in symbols_to_watch(given):
        then, now = given.inputs.marks.get(symbol), marks.get(symbol)
        if not then:
            continue  # a close without a price: it is what is there, whatever the price
        if now is None:
            changes.append(f"{symbol} has no price any more")
        elif abs(now - then) > then * tolerance:
            moved = (now - then) / then * 100
            changes.append(
                f"{symbol} moved {moved:+.2f} % (from {plain(then)} to {plain(now)}), more than "
                f"{plain(tolerance * 100)} %"
            )
    return changes
