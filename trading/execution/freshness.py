"""Whether a plan may still be traded: how old its inputs are, and what has changed since. PURE.

A plan is made from one look at the account. When that look is old, or the positions are others now,
the plan is thrown away before its first order leaves and made anew (A14, A15, B12, C8).

How old it is says the machine's clock, which may be set back meanwhile (C7). Whoever has had the
plan in its hands for a while knows by real time that it is at least so old: `least_age_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from module.model.accounts import AccountSnapshot
from module.model.money import ZERO, plain
from trading.rebalance.order_info import CycleStage, OrderInfo

STALE = "stale-plan"
"""How the reason of a dropped letter begins whose cycle may be planned anew."""

SPENT = "spent-plan"
"""The same where orders were sent that never arrived: their client ids are used up, so the letter
ends, and its targets are planned anew by a letter of its own (or by the next cycle)."""

FIRST_ORDER_AGE_MAX_S = 30.0
"""World seconds from the plan's snapshot to the first order; later it is planned anew."""

OPENING_AGE_MAX_S = 180.0
"""World seconds from the plan's snapshot after which nothing more of it opens."""

TOO_OLD_TO_OPEN = "what it still opens waits for the next cycle"
"""In the words with which a leg is given up whose plan became too old on the way."""

LOOK_AGAIN_S = 3.0
"""A plan that is older than this is compared with the account before its first order."""

CLOCK_BACK_MAX_S = 5.0
"""World seconds that a plan may seem to be from the future (clocks differ); more means that a clock
was set back, and nobody can say how old it is."""

TOLERATED = Decimal("0.02")
"""A position may differ by this share (or one lot) from what is expected: fees, dust (B13)."""


def is_stale(info: OrderInfo) -> bool:
    """Whether the letter was dropped so that its cycle can be planned anew."""
    return info.stage is CycleStage.DROPPED and info.reason.startswith(STALE)


def too_old_to_begin(info: OrderInfo, now: datetime, least_age_s: float = 0.0) -> str:
    """Why the plan's first order may not leave any more; empty: it may, or the plan has begun."""
    return "" if info.has_begun else _too_old_at_first(info, now, least_age_s)


def must_be_proven(info: OrderInfo, now: datetime, least_age_s: float = 0.0) -> bool:
    """Whether the plan is too old to begin, and only orders of which nobody knows whether they
    arrived can say that it has begun: until that is proven nothing else of it may leave."""
    parts = [part for record in info.legs for part in record.slices if part.may_have_arrived]
    if not parts or not all(part.state.is_unproven for part in parts):
        return False
    return bool(_too_old_at_first(info, now, least_age_s))


def _too_old_at_first(info: OrderInfo, now: datetime, least_age_s: float) -> str:
    """Why the plan is too old for its first order; empty: it is not."""
    age_s = _age_s(info, now, least_age_s)
    if age_s is None:
        return ""
    kind = SPENT if info.has_sent else STALE
    if age_s < -CLOCK_BACK_MAX_S:
        return f"{kind}: {_clock_was_set_back(age_s)}; nothing was traded by it"
    if age_s <= FIRST_ORDER_AGE_MAX_S:
        return ""
    return (
        f"{kind}: the account was read {age_s:.1f} s before the first order could leave, more "
        f"than {FIRST_ORDER_AGE_MAX_S:g} s; nothing was traded by it"
    )


def thrown_away(info: OrderInfo) -> str:
    """Why the plan was given up as too old right before its first order; empty: it was not."""
    if info.has_begun:
        return ""
    reasons = (record.abandoned or "" for record in info.legs)
    return next((why for why in reasons if why.startswith((STALE, SPENT))), "")


def too_old_to_open(info: OrderInfo, now: datetime, least_age_s: float = 0.0) -> str:
    """Why nothing more of the plan opens; empty: it may."""
    age_s = _age_s(info, now, least_age_s)
    if age_s is not None and age_s < -CLOCK_BACK_MAX_S:
        return f"{_clock_was_set_back(age_s)}; {TOO_OLD_TO_OPEN}"
    if age_s is None or age_s <= OPENING_AGE_MAX_S:
        return ""
    return f"the plan is {age_s:.0f} s old; {TOO_OLD_TO_OPEN}"


def must_look_again(info: OrderInfo, now: datetime, least_age_s: float = 0.0) -> bool:
    """Whether the account is to be compared with the plan's basis before the first order."""
    age_s = _age_s(info, now, least_age_s)
    return age_s is not None and age_s > LOOK_AGAIN_S and bool(info.legs)


def changed_symbols(
    info: OrderInfo, snapshot: AccountSnapshot, lots: Mapping[str, Decimal]
) -> dict[str, str]:
    """Symbols of the plan's legs whose position is not what the letter leads to, and how.

    Symbols with an order whose end nobody has seen are left out: nobody can say.
    """
    expected = info.expected()
    if expected is None:
        return {}
    held = {position.symbol: position.size for position in snapshot.positions}
    open_symbols = {record.leg.symbol for record in info.legs if record.is_open}
    changed: dict[str, str] = {}
    for symbol in sorted({record.leg.symbol for record in info.legs} - open_symbols):
        should, found = expected.sizes.get(symbol, ZERO), held.get(symbol, ZERO)
        if not agree(should, found, lots.get(symbol, ZERO)):
            changed[symbol] = (
                f"the position of {symbol} is {plain(found)}, by the letter {plain(should)}"
            )
    return changed


def agree(expected: Decimal, actual: Decimal, lot: Decimal) -> bool:
    """Whether two sizes differ by no more than one lot or 2 %, on the same side."""
    if expected == actual:
        return True
    if expected * actual < 0:
        return False
    return abs(actual - expected) <= max(lot, abs(expected) * TOLERATED)


def _clock_was_set_back(age_s: float) -> str:
    return f"by the clock the account was read {-age_s:.1f} s from now: the clock was set back"


def _age_s(info: OrderInfo, now: datetime, least_age_s: float) -> float | None:
    """By the clock, unless that says less than is known (or less than nothing); None: no plan."""
    if info.basis is None:
        return None
    age_s = (now - info.basis.at).total_seconds()
    return age_s if age_s < -CLOCK_BACK_MAX_S else max(age_s, least_age_s)
