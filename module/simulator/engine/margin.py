"""Formulas of futures trading: profit, fees, margin, liquidation. Pure; Decimal in, Decimal out.

Source of each formula: the exchange's recorded answers (positions re-computed to ten digits) and,
for the isolated liquidation price, its support pages. `direction` is +1 long, -1 short.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

FEE_STEP = Decimal("1e-8")
QUOTE_STEP = Decimal("1e-4")
MONEY_STEP = Decimal("1e-12")
ENTRY_STEP = Decimal("1e-18")


def truncated_fee(price: Decimal, size: Decimal, rate: Decimal) -> Decimal:
    """What the venue takes (>= 0): price x size x rate cut to 8 decimals.

    83464.7 x 0.0001 x 0.0006 = 0.005007882 becomes 0.00500788.
    """
    return (price * size * rate).quantize(FEE_STEP, rounding=ROUND_DOWN)


def truncated_quote(price: Decimal, size: Decimal) -> Decimal:
    """The quote volume as fills show it: price x size cut to 4 decimals."""
    return (price * size).quantize(QUOTE_STEP, rounding=ROUND_DOWN)


def money(amount: Decimal) -> Decimal:
    """Round to the ledger's step (1e-12), so that sums of wallets stay exact."""
    return amount.quantize(MONEY_STEP, rounding=ROUND_HALF_EVEN)


def price_profit(entry: Decimal, price: Decimal, size: Decimal, direction: int) -> Decimal:
    """Gross profit of `size` between two prices, to the ledger's step."""
    return money((price - entry) * size * direction)


def average_entry(
    entry: Decimal, size: Decimal, added_price: Decimal, added_size: Decimal
) -> Decimal:
    """Volume-weighted entry after adding, to 18 decimals."""
    total = (entry * size + added_price * added_size) / (size + added_size)
    return total.quantize(ENTRY_STEP, rounding=ROUND_HALF_EVEN).normalize() + 0


def break_even(entry: Decimal, direction: int, fee_rate: Decimal) -> Decimal:
    """Exit price at which profit pays both fees: long entry x (1+f)/(1-f), short the inverse."""
    if direction > 0:
        return entry * (1 + fee_rate) / (1 - fee_rate)
    return entry * (1 - fee_rate) / (1 + fee_rate)


def funding_payment(size: Decimal, mark: Decimal, rate: Decimal, direction: int) -> Decimal:
    """What goes into the wallet at a settlement: a long pays notional x rate when rate > 0."""
    return -direction * (size * mark * rate).quantize(FEE_STEP, rounding=ROUND_DOWN)


def crossed_liquidation_price(
    net: Decimal, largest: Decimal, mark: Decimal, equity: Decimal, others: Decimal, rate: Decimal
) -> Decimal:
    """Mark price at which crossed equity equals the maintenance requirement.

    `net` signed size and `largest` leg of the symbol, `equity` crossed equity at `mark`, `others`
    the requirement of the other symbols, `rate` = maintenance rate + taker fee. Solves
    equity + (P - mark) x net = others + P x largest x rate; 0 where no price does. For one long:
    P = (size x entry - equity without it + others) / (size x (1 - rate)).
    """
    slope = net - largest * rate
    return (others - equity + mark * net) / slope if slope else Decimal(0)


def isolated_liquidation_price(
    size: Decimal, entry: Decimal, direction: int, margin: Decimal, rate: Decimal
) -> Decimal:
    """[margin - size x entry x dir] / [size x (maintenance rate + taker fee - dir)]."""
    return (margin - size * entry * direction) / (size * (rate - direction))
