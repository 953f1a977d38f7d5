"""What holds of every plan, whatever is held and whatever is wanted."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from module.model.orders import Side
from module.model.sessions import TradeMode
from tests.unit.trading.rebalance.books import executed
from tests.unit.trading.rebalance.situations import (
    DUST,
    SYMBOLS,
    ZERO,
    Situation,
    situations,
)
from trading.rebalance.plan import DiffCase, SkipReason, plan_rebalance
from trading.rebalance.weights import Target

EXAMPLES = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
BOTH_MARKETS = st.one_of(situations(), situations(spot=True))


def reached(situation: Situation) -> dict[str, Decimal]:
    """Signed size per symbol once every leg is filled."""
    after = executed(situation.book, situation.plan)
    return {symbol: position.size for symbol, position in after.positions.items()}


@EXAMPLES
@given(BOTH_MARKETS)
def test_I9_a_book_opened_from_nothing_is_never_larger_than_base_times_leverage(
    situation: Situation,
) -> None:
    flat = replace(situation, book=replace(situation.book, positions={}))
    plan = flat.plan
    assert sum((leg.notional for leg in plan.legs), ZERO) <= flat.capital + DUST
    for leg in plan.legs:
        assert leg.notional < abs(flat.goal(leg.symbol)) + flat.lot(leg.symbol)


@EXAMPLES
@given(BOTH_MARKETS)
def test_I9_nothing_opens_that_makes_the_book_larger_than_base_times_leverage(
    situation: Situation,
) -> None:
    gross = situation.gross(reached(situation))
    if any(not leg.reduce_only for leg in situation.plan.legs):
        assert gross <= situation.capital + DUST
    else:
        assert gross <= situation.gross({s: situation.held(s) for s in situation.book.positions})


@EXAMPLES
@given(BOTH_MARKETS)
def test_planning_again_after_a_perfect_execution_trades_nothing(situation: Situation) -> None:
    again = replace(situation, book=executed(situation.book, situation.plan))
    assert again.plan.legs == ()


@EXAMPLES
@given(BOTH_MARKETS)
def test_the_order_of_symbols_changes_nothing(situation: Situation) -> None:
    book = situation.book
    backwards = replace(
        book,
        positions=dict(sorted(book.positions.items(), reverse=True)),
        marks=dict(sorted(book.marks.items(), reverse=True)),
        instruments=dict(sorted(book.instruments.items(), reverse=True)),
    )
    wanted = dict(sorted(situation.targets.items(), reverse=True))
    assert plan_rebalance(wanted, backwards, situation.policy) == situation.plan


@EXAMPLES
@given(BOTH_MARKETS)
def test_each_traded_symbol_ends_within_one_lot_of_its_target(situation: Situation) -> None:
    sizes = reached(situation)
    skipped = {item.symbol for item in situation.plan.skipped}
    opening = {leg.symbol for leg in situation.plan.legs if not leg.reduce_only}
    for leg in situation.plan.legs:
        if leg.symbol in skipped:
            continue
        symbol = leg.symbol
        mark = situation.book.marks[symbol]
        off = abs(sizes.get(symbol, ZERO) * mark - situation.goal(symbol))
        cut = symbol in opening and situation.is_full(sizes, situation.lot(symbol))
        assert cut or off <= situation.lot(symbol) + DUST
        step = situation.book.instruments[symbol].size_step
        assert leg.size == abs(situation.held(symbol)) or leg.size % step == 0


@EXAMPLES
@given(BOTH_MARKETS)
def test_no_symbol_is_traded_further_than_its_difference_and_one_lot(situation: Situation) -> None:
    """Never more turnover than needed: one leg per symbol toward the target, and two, the same
    way, only to turn a position round."""
    by_symbol: dict[str, list[Decimal]] = {}
    for leg in situation.plan.legs:
        by_symbol.setdefault(leg.symbol, []).append(leg.side.sign * leg.notional)
    for symbol, traded in by_symbol.items():
        difference = situation.goal(symbol) - situation.held(symbol) * situation.book.marks[symbol]
        total = sum(traded, ZERO)
        assert abs(total) <= abs(difference) + situation.lot(symbol) + DUST
        assert abs(total) == sum(abs(part) for part in traded)
        assert total * difference > 0
        assert len(traded) == 1 or situation.held(symbol) * situation.goal(symbol) < 0


@EXAMPLES
@given(BOTH_MARKETS)
def test_residuals_are_exactly_what_is_left_of_the_targets(situation: Situation) -> None:
    plan = situation.plan
    sizes = reached(situation)
    named = set(situation.targets)
    if situation.policy.mode is not TradeMode.GENERAL:
        named |= set(situation.book.positions)
    for symbol in named:
        after = sizes.get(symbol, ZERO) * situation.book.marks[symbol]
        off = (situation.goal(symbol) - after) / situation.capital
        assert abs(plan.residuals.get(symbol, ZERO) - off) < DUST
    assert set(plan.residuals) <= named


@EXAMPLES
@given(situations(), st.integers(0, len(SYMBOLS) - 1), st.decimals(0, "0.2", places=5))
def test_a_larger_weight_never_leads_to_a_smaller_position(
    situation: Situation, chosen: int, more: Decimal
) -> None:
    longs = sorted(name for name, target in situation.targets.items() if target.weight > 0)
    assume(longs)
    symbol = longs[chosen % len(longs)]
    larger = Target(symbol, situation.targets[symbol].weight + more)
    targets = {**situation.targets, symbol: larger}
    smaller = reached(situation).get(symbol, ZERO)
    assert reached(replace(situation, targets=targets)).get(symbol, ZERO) >= smaller


@EXAMPLES
@given(situations())
def test_reducing_first_closes_exact_and_flips_are_two_legs(situation: Situation) -> None:
    plan = situation.plan
    kinds = [leg.reduce_only for leg in plan.legs]
    assert kinds == sorted(kinds, reverse=True)
    by_id = {leg.leg_id: leg for leg in plan.legs}
    assert len(by_id) == len(plan.legs)
    for leg in plan.legs:
        before = situation.held(leg.symbol)
        assert leg.size > 0
        if leg.reduce_only:  # I6: never more than there is, never the same way
            assert leg.size <= abs(before)
            assert leg.side is (Side.SELL if before > 0 else Side.BUY)
        if leg.case is DiffCase.GONE:
            assert leg.size == abs(before)
        if leg.after is not None:
            closed = by_id[leg.after]
            assert closed.size == abs(before)
            assert (leg.case, closed.case) == (DiffCase.OPPOSITE, DiffCase.OPPOSITE)


@EXAMPLES
@given(situations(), st.sampled_from([None, "0", "0.001", "0.3"]), st.sampled_from([None, "2"]))
def test_closes_are_never_blocked(
    situation: Situation, turnover: str | None, band: str | None
) -> None:
    """Neither by minimums, lots, thresholds, bands, open orders, nor the turnover cap."""
    symbols = list(situation.book.positions)
    hindered = replace(
        situation,
        targets={},
        book=replace(
            situation.book,
            open_orders=dict.fromkeys(symbols, Decimal("0.07")),
            volatility=dict.fromkeys(symbols, Decimal("1.3")),
        ),
        policy=replace(
            situation.policy,
            mode=TradeMode.REBALANCING,
            turnover_max=None if turnover is None else Decimal(turnover),
            no_trade_band=None if band is None else Decimal(band),
        ),
    )
    closed = {leg.symbol: (leg.size, leg.reduce_only) for leg in hindered.plan.legs}
    assert closed == {s: (abs(situation.held(s)), True) for s in symbols}


@EXAMPLES
@given(situations())
def test_general_mode_touches_only_what_is_named(situation: Situation) -> None:
    general = replace(situation, policy=replace(situation.policy, mode=TradeMode.GENERAL))
    plan = general.plan
    touched = {leg.symbol for leg in plan.legs} | {item.symbol for item in plan.skipped}
    assert touched | set(plan.residuals) | set(plan.stops) <= set(situation.targets)


@EXAMPLES
@given(BOTH_MARKETS)
def test_every_difference_is_traded_or_skipped_with_a_reason(situation: Situation) -> None:
    plan = situation.plan
    handled = {leg.symbol for leg in plan.legs} | {item.symbol for item in plan.skipped}
    for symbol, off in plan.residuals.items():
        if symbol not in handled:  # silent: less than a lot, or under the threshold
            assert abs(off) * situation.capital < situation.lot(symbol) + DUST


@EXAMPLES
@given(BOTH_MARKETS, st.sampled_from(["0", "0.05", "0.21", "0.8"]))
def test_the_turnover_cap_is_kept_by_all_but_closes(situation: Situation, cap: str) -> None:
    capped = replace(situation, policy=replace(situation.policy, turnover_max=Decimal(cap)))
    closing = traded = ZERO
    for leg in capped.plan.legs:
        if leg.leg_id.endswith("-close"):
            closing += leg.notional
        else:
            traded += leg.notional
    assert traded <= max(Decimal(cap) * capped.capital - closing, ZERO) + DUST
    uncapped = sum((leg.notional for leg in situation.plan.legs), ZERO)
    assert closing + traded <= uncapped + DUST


@EXAMPLES
@given(situations(minimums=False, thresholds=False))
def test_a_capped_book_arrives_after_enough_cycles(situation: Situation) -> None:
    capped = replace(situation, policy=replace(situation.policy, turnover_max=Decimal("0.4")))
    assume(all(situation.lot(symbol) < capped.capital / 10 for symbol in SYMBOLS))
    for _ in range(30):
        plan = capped.plan
        if not plan.legs:
            break
        capped = replace(capped, book=executed(capped.book, plan))
    assert all(item.reason is not SkipReason.TURNOVER_CAP for item in capped.plan.skipped)
    assert capped.plan.legs == ()


@pytest.mark.parametrize("market", ["futures", "spot"])
def test_a_plan_is_the_same_each_time(market: str) -> None:
    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(situations(spot=market == "spot"))
    def same(situation: Situation) -> None:
        assert situation.plan == situation.plan

    same()
