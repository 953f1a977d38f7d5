"""Opening legs cut to the money that is really there, and legs by rules that changed. PURE.

Called by execution once the reducing legs are confirmed: what is free then is not what it was when
the plan was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from module.model.market import Instrument
from module.model.money import ONE, ZERO, round_down
from module.model.stop_ticks import round_stops
from trading.rebalance.legs import Leg, Policy, SkippedLeg, SkipReason
from trading.rebalance.lots import RoundedUp, give_up


def fit_opening_legs(
    legs: Sequence[Leg],
    available: Decimal,
    instruments: Mapping[str, Instrument],
    policy: Policy,
) -> tuple[list[Leg], list[SkippedLeg]]:
    """Shrink opening legs so that margin, fees and slippage fit `available`; none grows.

    Needed per leg = notional × (1 + slippage) ÷ leverage + notional × (1 + slippage) × taker fee.
    All are shrunk by one factor, then rounded to the nearest lot as far as the money goes. A leg
    that falls under a minimum is skipped with NO_MARGIN_LEFT, the furthest under first, and its
    money goes to the others; one whose rules are gone since it was planned (A20), with
    NOT_TRADABLE.
    """
    kept = [
        _Opening(leg, instruments[leg.symbol], policy) for leg in legs if leg.symbol in instruments
    ]
    skipped = [
        _skipped(leg, SkipReason.NOT_TRADABLE) for leg in legs if leg.symbol not in instruments
    ]
    if sum((opening.needed for opening in kept), ZERO) <= available:
        return [opening.leg for opening in kept], skipped
    while kept:
        sizes = _shrunk(kept, max(available, ZERO))
        too_small = [opening for opening in kept if not opening.allows(sizes[opening.leg.symbol])]
        if not too_small:
            fitted = [resized(opening.leg, sizes[opening.leg.symbol]) for opening in kept]
            return fitted, sorted(skipped, key=lambda item: item.symbol)
        worst = min(too_small, key=lambda opening: (opening.enough, opening.leg.symbol))
        kept.remove(worst)
        skipped.append(_skipped(worst.leg, SkipReason.NO_MARGIN_LEFT))
    return [], sorted(skipped, key=lambda item: item.symbol)


def _skipped(leg: Leg, reason: SkipReason) -> SkippedLeg:
    return SkippedLeg(leg.symbol, reason, leg.current_weight, leg.target_weight)


class _Opening:
    """An opening leg with what its notional and its lots need, in quote asset."""

    def __init__(self, leg: Leg, instrument: Instrument, policy: Policy) -> None:
        slipped = ONE + policy.slippage_buffer
        self.leg = leg
        self.rules = instrument
        self.lot_value = instrument.size_step * leg.reference_price
        per_notional = slipped / policy.leverage + slipped * instrument.taker_fee
        self.needed = leg.notional * per_notional
        self.lot_needed = self.lot_value * per_notional

    @property
    def enough(self) -> Decimal:
        """Planned size ÷ the least size that the venue takes: which leg is nearest to nothing."""
        least = max(
            self.rules.size_min, self.rules.notional_min / self.leg.reference_price, Decimal(0)
        )
        return self.leg.size / (least or self.rules.size_step)

    def allows(self, size: Decimal) -> bool:
        """Whether the venue takes an order of this size."""
        return (
            size > 0
            and size >= self.rules.size_min
            and size * self.leg.reference_price >= self.rules.notional_min
        )


def _shrunk(openings: Sequence[_Opening], available: Decimal) -> dict[str, Decimal]:
    """Symbol → size: each opening by the same factor, to the nearest lot that the money allows."""
    needed = sum((opening.needed for opening in openings), ZERO)
    if needed <= available:
        return {opening.leg.symbol: opening.leg.size for opening in openings}
    factor = available / needed
    lots: dict[str, Decimal] = {}
    rounded: list[RoundedUp] = []
    spent = ZERO
    for opening in openings:
        whole, rest = divmod(opening.leg.notional * factor, opening.lot_value)
        fits = (whole + ONE) * opening.rules.size_step <= opening.leg.size
        if fits and rest + rest > opening.lot_value:
            rounded.append(
                RoundedUp(opening.leg.symbol, opening.lot_needed, rest + rest - opening.lot_value)
            )
            whole += ONE
        lots[opening.leg.symbol] = whole
        spent += whole * opening.lot_needed
    for symbol in give_up(rounded, spent - available):
        lots[symbol] -= ONE
    return {
        opening.leg.symbol: lots[opening.leg.symbol] * opening.rules.size_step
        for opening in openings
    }


def resized(leg: Leg, size: Decimal) -> Leg:
    """The same leg with another size."""
    return leg._replace(size=size)


def rounded_anew(leg: Leg, filled: Decimal, instrument: Instrument) -> Leg | None:
    """The leg by the rules as they are now, `filled` of it being done; None when nothing of the
    rest may be traded any more. Minimums stand in the way of opening only (A19)."""
    rest = round_down(leg.size - filled, instrument.size_step)
    too_small = rest < instrument.size_min or rest * leg.reference_price < instrument.notional_min
    if rest <= 0 or (too_small and not leg.reduce_only):
        return None
    return leg._replace(size=filled + rest, stops=round_stops(leg.stops, instrument))
