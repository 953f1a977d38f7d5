"""How far a weight may drift before trading it is worth its cost. PURE.

Trading costs c per unit (fee + half spread), and a weight that is let go moves by itself: its
volatility is s = |weight| × annualised volatility of the price. Keep it within ± h of the target by
trading at the edges only. Then it is spread evenly over the band, so that

    cost per year   = c × s² ÷ (2h)     (what reflection at both edges trades)
    error per year  = h² ÷ 3            (mean squared distance from the target)

and the sum is least at h = (¾ × c × s²)^⅓: the cube-root law of proportional transaction costs.
Rogers, "Why is the effect of proportional transaction costs O(δ^⅔)?" (2004) gives this argument;
Janeček and Shreve, "Asymptotic analysis for optimal investment and consumption with transaction
costs" (Finance and Stochastics 8, 2004) and Whalley and Wilmott (Mathematical Finance 7, 1997) the
same power for investors and hedgers with a utility function. How dear an error is to the user is
what the multiplier `Policy.no_trade_band` says.
"""

from __future__ import annotations

from decimal import Context, Decimal

from module.model.money import ZERO

THREE_QUARTERS = Decimal("0.75")
# Decimal arithmetic of a stated precision: the same digits on every machine, for replays.
_CONTEXT = Context(prec=12)
_THIRD = _CONTEXT.divide(Decimal(1), Decimal(3))


def half_width(weight: Decimal, cost: Decimal, volatility: Decimal, multiplier: Decimal) -> Decimal:
    """multiplier × (¾ × cost × (|weight| × volatility)²)^⅓, as a weight.

    weight 0.3, cost 0.0007 (0.06 % fee, 0.01 % half spread), volatility 0.6, multiplier 1: 0.0257.
    """
    moved = abs(weight) * volatility
    inside = THREE_QUARTERS * cost * moved * moved
    if inside <= 0:
        return ZERO
    return _CONTEXT.multiply(multiplier, _CONTEXT.power(inside, _THIRD))


def edge_of_band(weight: Decimal, current: Decimal, half: Decimal) -> Decimal:
    """The nearest weight to `current` that is within `half` of `weight` and on its side, or 0.

    A band never asks for a position on the other side of its target: for 0.01 ± 0.02 and a current
    weight of -0.3 the edge is 0, not -0.01.
    """
    edge = min(current, weight + half) if current > weight else max(current, weight - half)
    if edge * weight < 0:
        return ZERO
    return edge
