"""Openings are cut to the money that is really there, together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.exchange import make_instrument
from tests.unit.trading.rebalance.books import book, policy, targets
from tests.unit.trading.rebalance.situations import DUST, ZERO, draw_situation
from trading.rebalance.plan import (
    Leg,
    Policy,
    SkipReason,
    fit_opening_legs,
    plan_rebalance,
    resized,
    rounded_anew,
)


def cost(leg: Leg, rules: Policy) -> Decimal:
    """Margin, slippage and fee of an opening leg."""
    notional = leg.notional * Decimal("1.002")
    return notional / rules.leverage + notional * Decimal("0.0006")


def test_openings_are_shrunk_by_one_factor_to_what_is_free() -> None:
    start = book(base="10000")
    plan = plan_rebalance(targets({"BTCUSDT": "0.6", "SOLUSDT": "0.4"}), start, policy())
    fitted, skipped = fit_opening_legs(plan.legs, Decimal(5000), start.instruments, policy())
    assert skipped == []
    assert Decimal(4980) < sum((cost(leg, policy()) for leg in fitted), ZERO) <= Decimal(5000)
    shares = [new.notional / old.notional for new, old in zip(fitted, plan.legs, strict=True)]
    assert abs(shares[0] - shares[1]) < Decimal("0.01")


def test_openings_that_fit_are_not_touched() -> None:
    start = book()
    plan = plan_rebalance(targets({"BTCUSDT": "0.3"}), start, policy())
    fitted = fit_opening_legs(plan.legs, Decimal(9000), start.instruments, policy())
    assert fitted == (list(plan.legs), [])


def test_A20_an_opening_whose_rules_are_gone_is_skipped_and_the_others_are_not() -> None:
    start = book(base="1000")
    plan = plan_rebalance(targets({"ADAUSDT": "0.3", "XRPUSDT": "0.31"}), start, policy())
    left = {s: rules for s, rules in start.instruments.items() if s != "ADAUSDT"}
    fitted, skipped = fit_opening_legs(plan.legs, Decimal(900), left, policy())
    assert [leg.symbol for leg in fitted] == ["XRPUSDT"]
    assert [(s.symbol, s.reason) for s in skipped] == [("ADAUSDT", SkipReason.NOT_TRADABLE)]


@pytest.mark.parametrize("free", ["0", "-12.5", "0.01"])
def test_without_margin_nothing_opens_and_the_reason_is_kept(free: str) -> None:
    start = book()
    plan = plan_rebalance(targets({"BTCUSDT": "0.3"}), start, policy())
    fitted, skipped = fit_opening_legs(plan.legs, Decimal(free), start.instruments, policy())
    assert fitted == []
    assert [item.reason for item in skipped] == [SkipReason.NO_MARGIN_LEFT]


def test_what_falls_under_a_minimum_leaves_its_money_to_the_others() -> None:
    """Six units would be three each, under the minimum of five: one leg gets them."""
    start = book(base="1000")
    wanted = targets({"ADAUSDT": "0.3", "XRPUSDT": "0.31"})
    plan = plan_rebalance(wanted, start, policy())
    fitted, skipped = fit_opening_legs(plan.legs, Decimal(6), start.instruments, policy())
    assert [leg.symbol for leg in fitted] == ["XRPUSDT"]
    assert Decimal(5) <= fitted[0].notional <= Decimal(6)
    assert [(item.symbol, item.reason) for item in skipped] == [
        ("ADAUSDT", SkipReason.NO_MARGIN_LEFT)
    ]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 2**40), st.decimals(-50, 5000, places=2))
def test_fitted_openings_cost_no_more_than_is_free(seed: int, free: Decimal) -> None:
    situation = draw_situation(random.Random(seed), spot=False, minimums=True, thresholds=False)
    rules = situation.policy
    instruments = situation.book.instruments
    openings = [leg for leg in situation.plan.legs if not leg.reduce_only]
    fitted, skipped = fit_opening_legs(openings, free, instruments, rules)
    assert sum((cost(leg, rules) for leg in fitted), ZERO) <= max(free, ZERO) + DUST
    planned = {leg.leg_id: leg.size for leg in openings}
    for leg in fitted:
        instrument = instruments[leg.symbol]
        assert 0 < leg.size <= planned[leg.leg_id]
        assert leg.size % instrument.size_step == 0
        assert leg.size >= instrument.size_min
        assert leg.notional >= instrument.notional_min
    assert len(fitted) + len(skipped) == len(openings)
    again, none = fit_opening_legs(fitted, free, instruments, rules)
    assert (again, none) == (fitted, []), "what fits is left as it is"


@pytest.mark.parametrize("seed", range(60))
def test_no_other_lots_that_the_money_pays_for_are_nearer_to_the_shrunken_legs(seed: int) -> None:
    """The oracle: every combination of the two lots next to each shrunken size."""
    situation = draw_situation(random.Random(seed), spot=False, minimums=False, thresholds=False)
    rules, instruments = situation.policy, situation.book.instruments
    openings = [leg for leg in situation.plan.legs if not leg.reduce_only]
    needed = sum((cost(leg, rules) for leg in openings), ZERO)
    free = needed * random.Random(seed).randint(5, 99) / 100
    fitted, skipped = fit_opening_legs(openings, free, instruments, rules)
    if not openings or skipped:
        return
    factor = free / needed
    options = []
    for leg in openings:
        step = instruments[leg.symbol].size_step
        floor = leg.size * factor // step * step
        sizes = [size for size in (floor, floor + step) if size <= leg.size]
        options.append([resized(leg, size) for size in sizes])
    best = min(
        off(openings, chosen, factor)
        for chosen in product(*options)
        if sum((cost(leg, rules) for leg in chosen), ZERO) <= free + DUST
    )
    assert abs(off(openings, fitted, factor) - best) < DUST


def off(planned: Sequence[Leg], sizes: Sequence[Leg], factor: Decimal) -> Decimal:
    """Σ |notional - planned notional × factor|."""
    pairs = zip(planned, sizes, strict=True)
    return sum((abs(leg.notional - plan.notional * factor) for plan, leg in pairs), ZERO)


def test_resized_changes_nothing_but_the_size() -> None:
    leg = plan_rebalance(targets({"SOLUSDT": "0.3"}), book(), policy()).legs[0]
    assert resized(leg, Decimal("7.7")) == leg._replace(size=Decimal("7.7"))


def test_A19_a_leg_is_rounded_by_the_rules_as_they_are_now() -> None:
    leg = plan_rebalance(targets({"SOLUSDT": "0.3"}), book(), policy()).legs[0]
    coarse = make_instrument("SOLUSDT", size_step=Decimal(5))
    anew = rounded_anew(leg, Decimal("3.3"), coarse)
    assert anew is not None
    assert anew.size == Decimal("18.3")  # 3.3 are filled; 16.5 of the rest make three lots of 5
    assert rounded_anew(leg, Decimal("17"), coarse) is None
    dear = make_instrument("SOLUSDT", notional_min=Decimal(500))
    assert rounded_anew(leg, Decimal("17"), dear) is None, "2.8 are worth 424"
    reducing = leg._replace(reduce_only=True)
    assert rounded_anew(reducing, Decimal("17"), dear) == reducing, "a reduction has no minimum"
    assert rounded_anew(reducing, leg.size, dear) is None, "there is nothing left of it"
