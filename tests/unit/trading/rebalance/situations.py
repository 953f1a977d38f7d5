"""Random situations of a planner: what is held, what is wanted, by which rules. For hypothesis."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Decimal

from hypothesis import strategies as st

from module.model.market import Instrument, MarketType
from module.model.sessions import TradeMode
from tests.fakes.exchange import MARKS, make_instrument
from tests.unit.trading.rebalance.books import book, policy, targets
from trading.rebalance.plan import Book, OrderPlan, Policy, plan_rebalance
from trading.rebalance.weights import Target

SYMBOLS = sorted(MARKS)
DUST = Decimal("1e-18")  # of the 28 digits that a quotient keeps
ZERO = Decimal(0)


@dataclass(frozen=True)
class Situation:
    """Everything that a plan follows from."""

    targets: Mapping[str, Target]
    book: Book
    policy: Policy

    @property
    def plan(self) -> OrderPlan:
        return plan_rebalance(self.targets, self.book, self.policy)

    @property
    def capital(self) -> Decimal:
        return self.book.base * self.policy.leverage

    def goal(self, symbol: str) -> Decimal:
        """Signed notional that the target asks for."""
        target = self.targets.get(symbol)
        return ZERO if target is None else target.weight * self.capital

    def held(self, symbol: str) -> Decimal:
        position = self.book.positions.get(symbol)
        return ZERO if position is None else position.size

    def lot(self, symbol: str) -> Decimal:
        """What one lot is worth."""
        return self.book.instruments[symbol].size_step * self.book.marks[symbol]

    def gross(self, sizes: Mapping[str, Decimal]) -> Decimal:
        """Σ|notional| of signed sizes."""
        return sum((abs(size) * self.book.marks[s] for s, size in sizes.items()), ZERO)

    def is_full(self, sizes: Mapping[str, Decimal], more: Decimal) -> bool:
        """Whether a book of these sizes has no room for `more` of notional."""
        return self.gross(sizes) + more > self.capital


def situations(
    *, spot: bool = False, minimums: bool = True, thresholds: bool = True
) -> st.SearchStrategy[Situation]:
    """Books of 200 to 5,000, at leverage 1 to 7 (1 on spot), thresholds from 0 to 11 %.

    Drawn from one seed each: a hundred times as fast as drawing number by number.
    """
    return st.integers(0, 2**40).map(
        lambda seed: draw_situation(
            random.Random(seed), spot=spot, minimums=minimums, thresholds=thresholds
        )
    )


def draw_situation(
    random: random.Random, *, spot: bool, minimums: bool, thresholds: bool
) -> Situation:
    instruments = draw_rules(random, minimums=minimums)
    if spot:
        instruments = {s: replace(i, market=MarketType.SPOT) for s, i in instruments.items()}
    signs = [1] if spot else [1, -1]
    held = draw_holdings(random, instruments, signs)
    return Situation(
        targets(draw_weights(random, signs)),
        book(held, base=Decimal(random.randint(2000, 50_000)) / 10, rules=instruments),
        policy(
            market=MarketType.SPOT if spot else MarketType.FUTURES,
            leverage=Decimal(1 if spot else random.choice([1, 2, 7])),
            threshold=Decimal(random.choice(["0", "0.0007", "0.01", "0.11"]) if thresholds else 0),
            mode=random.choice([TradeMode.REBALANCING, TradeMode.GENERAL]),
        ),
    )


def draw_weights(random: random.Random, signs: Sequence[int]) -> dict[str, Decimal]:
    """Signed weights whose absolute values add up to at most 1; every second time to 1."""
    chosen = random.sample(SYMBOLS, random.randint(0, len(SYMBOLS)))
    shares = [random.randint(1, 1000) for _ in chosen]
    whole = random.choice([sum(shares), 7000])
    return {
        symbol: Decimal(share * (10**9 // whole)).scaleb(-9) * random.choice(signs)
        for symbol, share in zip(chosen, shares, strict=True)
    }


def draw_rules(random: random.Random, *, minimums: bool) -> dict[str, Instrument]:
    """Lots from a thousandth to a fifth of a book of 1,000, minimums up to three lots."""
    found: dict[str, Instrument] = {}
    for symbol in SYMBOLS:
        step = make_instrument(symbol).size_step * random.choice([1, 1, 2, 5])
        least = step * random.choice([0, 1, 3]) if minimums else ZERO
        worth = Decimal(random.choice([0, 5, 31])) if minimums else ZERO
        found[symbol] = make_instrument(symbol, size_step=step, size_min=least, notional_min=worth)
    return found


def draw_holdings(
    random: random.Random, instruments: Mapping[str, Instrument], signs: Sequence[int]
) -> dict[str, Decimal]:
    """Signed sizes, on the lot or off it, worth up to 900."""
    found: dict[str, Decimal] = {}
    for symbol in random.sample(SYMBOLS, random.randint(0, 5)):
        worth = Decimal(random.randint(50, 90_000)) / 100
        step = instruments[symbol].size_step / random.choice([1, 1, 1, 8])
        lots = (worth / MARKS[symbol] / step).to_integral_value(ROUND_DOWN)
        if lots:
            found[symbol] = lots * step * random.choice(signs)
    return found
