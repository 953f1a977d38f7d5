"""Which lots to give up when a book that is rounded to the nearest lot is larger than it may be.

Rounding every size to the nearest lot makes Σ|residual| of the book as small as lots allow. If that
book fits the limit (or the money), it is the answer: `plan` and `fitting` ask here only when it
does not. Then some sizes that were rounded up must go down again, and the question is which: the
smallest rise of Σ|residual| that frees enough. That is a knapsack (minimum cover); it is solved
exactly over the states that no other state beats (Nemhauser and Ullmann, "Discrete dynamic
programming and capital allocation", Management Science 15, 1969).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from module.model.money import ZERO

STATES_MAX = 10_000


class RoundedUp(NamedTuple):
    """A size that may go down to its next smaller choice. `frees` is what that takes off the book
    (or off the money needed), `loss` by how much |residual| grows: both in quote asset, > 0."""

    symbol: str
    frees: Decimal
    loss: Decimal


class _State(NamedTuple):
    """Some of the choices made; `mask`: a bit per symbol given up, the first symbol's highest."""

    loss: Decimal
    freed: Decimal
    mask: int


def give_up(rounded: Sequence[RoundedUp], excess: Decimal) -> frozenset[str]:
    """The symbols to round down so that at least `excess` is freed at the least loss.

    Among equal losses the one that frees most, then the one that gives up the later symbols. All of
    them when all together do not free enough. Exact while at most STATES_MAX states have to be
    looked at (some 20 ms), else the greedy answer: it frees enough too, at little more than the
    least loss.
    """
    if excess <= 0:
        return frozenset()
    if sum((item.frees for item in rounded), ZERO) <= excess:
        return frozenset(item.symbol for item in rounded)
    names = sorted(item.symbol for item in rounded)
    bit = {name: 1 << (len(names) - 1 - place) for place, name in enumerate(names)}
    items = sorted(rounded, key=lambda item: (item.loss / item.frees, item.symbol))
    best = _greedy(items, excess, bit)
    mask = _exact(items, excess, bit, best).mask
    return frozenset(name for name in names if mask & bit[name])


def _greedy(items: Sequence[RoundedUp], excess: Decimal, bit: dict[str, int]) -> _State:
    """The cheapest per freed unit until it is enough; then what turned out superfluous, dearest
    first, stays rounded up."""
    chosen: list[RoundedUp] = []
    freed = ZERO
    for item in items:
        if freed >= excess:
            break
        chosen.append(item)
        freed += item.frees
    for item in sorted(chosen, key=lambda item: (-item.loss, item.symbol)):
        if freed - item.frees >= excess:
            chosen.remove(item)
            freed -= item.frees
    return _State(
        sum((item.loss for item in chosen), ZERO), freed, sum(bit[item.symbol] for item in chosen)
    )


def _exact(
    items: Sequence[RoundedUp], excess: Decimal, bit: dict[str, int], best: _State
) -> _State:
    """The best state, or `best` when there are too many to compare."""
    found = best
    looked_at = 0
    open_states = [_State(ZERO, ZERO, 0)]
    for place, item in enumerate(items):
        grown: list[_State] = []
        for state in open_states:
            with_item = _State(
                state.loss + item.loss, state.freed + item.frees, state.mask | bit[item.symbol]
            )
            if with_item.freed < excess:
                grown.append(with_item)
            elif _rank(with_item) < _rank(found):
                found = with_item
        rest = items[place + 1] if place + 1 < len(items) else None
        if rest is None:
            return found
        open_states = [
            state
            for state in _undominated([*open_states, *grown])
            # what is still missing costs at least the next item's loss per freed unit
            if (state.loss - found.loss) * rest.frees + (excess - state.freed) * rest.loss <= 0
        ]
        looked_at += len(open_states)
        if looked_at > STATES_MAX:
            return best
    return found


def _undominated(states: list[_State]) -> list[_State]:
    """The states of which no other frees as much at no more loss."""
    states.sort(key=_rank)
    kept: list[_State] = []
    for state in states:
        if not kept or state.freed > kept[-1].freed:
            kept.append(state)
    return kept


def _rank(state: _State) -> tuple[Decimal, Decimal, int]:
    """Smaller is better: least loss, then most freed, then later symbols."""
    return state.loss, -state.freed, state.mask
