"""What holds of every plan, whatever is held and whatever is wanted."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from module.model.orders import Side
from module.model.sessions import TradeMode
from tests.fakes.exchange import MARKS, make_instrument
from tests.unit.trading.rebalance.books import book, executed, policy, targets
from trading.rebalance.plan import (
    DiffCase,
    OrderPlan,
    Policy,
    SkipReason,
    fit_opening_legs,
    plan_rebalance,
)

SYMBOLS = sorted(MARKS)
DUST = Decimal("1e-18")  # of the 28 digits that a quotient keeps
SLOW = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@st.composite
def weights(draw: st.DrawFn) -> dict[str, Decimal]:
    """Signed weights whose absolute values add up to at most 1."""
    chosen = draw(st.lists(st.sampled_from(SYMBOLS), unique=True, max_size=len(SYMBOLS)))
    left = Decimal(1)
    found: dict[str, Decimal] = {}
    for symbol in chosen:
        share = draw(st.decimals(0, 1, places=4)) * left
        left -= share
        found[symbol] = share * draw(st.sampled_from([1, -1]))
    return found


@st.composite
def holdings(draw: st.DrawFn) -> dict[str, Decimal]:
    """Signed sizes, on the lot or (as after a funding in coins) off it, worth up to 9,000."""
    chosen = draw(st.lists(st.sampled_from(SYMBOLS), unique=True, max_size=5))
    found: dict[str, Decimal] = {}
    for symbol in chosen:
        worth = draw(st.decimals(Decimal("0.5"), 9000, places=2))
        step = make_instrument(symbol).size_step
        step /= draw(st.sampled_from([1, 1, 1, 7]))
        lots = (worth / MARKS[symbol] / step).to_integral_value(ROUND_DOWN)
        if lots:
            found[symbol] = lots * step * draw(st.sampled_from([1, -1]))
    return found


POLICIES = st.builds(
    lambda leverage, threshold, mode: policy(
        leverage=Decimal(leverage), threshold=Decimal(threshold), mode=mode
    ),
    st.sampled_from([1, 2, 7, 50]),
    st.sampled_from(["0", "0.0007", "0.01", "0.11"]),
    st.sampled_from([TradeMode.REBALANCING, TradeMode.GENERAL]),
)


def sizes_after(held: dict[str, Decimal], plan: OrderPlan) -> dict[str, Decimal]:
    return {s: p.size for s, p in executed(book(held), plan).positions.items()}


@SLOW
@given(weights(), holdings(), POLICIES)
def test_I9_what_the_legs_lead_to_is_never_more_than_the_weights_allow(
    wanted: dict[str, Decimal], held: dict[str, Decimal], rules: Policy
) -> None:
    start = book(held)
    plan = plan_rebalance(targets(wanted), start, rules)
    reached = executed(start, plan).positions
    ceiling = start.base * rules.leverage
    total = Decimal(0)
    for symbol in {leg.symbol for leg in plan.legs}:
        now = reached.get(symbol)
        notional = Decimal(0) if now is None else abs(now.value)
        lot = make_instrument(symbol).size_step * MARKS[symbol]
        assert notional <= abs(wanted.get(symbol, Decimal(0))) * ceiling + DUST + (
            lot if held.get(symbol, Decimal(0)) % make_instrument(symbol).size_step else 0
        )
        total += notional
    openings = [leg for leg in plan.legs if not leg.reduce_only]
    assert sum((leg.notional for leg in openings), Decimal(0)) <= ceiling + DUST


@SLOW
@given(weights(), holdings(), POLICIES)
def test_planning_again_after_a_perfect_execution_trades_nothing(
    wanted: dict[str, Decimal], held: dict[str, Decimal], rules: Policy
) -> None:
    start = book(held)
    first = plan_rebalance(targets(wanted), start, rules)
    again = plan_rebalance(targets(wanted), executed(start, first), rules)
    assert again.legs == ()


@SLOW
@given(weights(), holdings(), POLICIES)
def test_the_order_of_symbols_changes_nothing(
    wanted: dict[str, Decimal], held: dict[str, Decimal], rules: Policy
) -> None:
    shuffled_targets = dict(sorted(wanted.items(), reverse=True))
    shuffled_held = dict(sorted(held.items(), reverse=True))
    assert plan_rebalance(targets(wanted), book(held), rules) == plan_rebalance(
        targets(shuffled_targets), book(shuffled_held), rules
    )


@SLOW
@given(weights(), holdings(), POLICIES)
def test_each_traded_symbol_ends_within_one_lot_of_its_target(
    wanted: dict[str, Decimal], held: dict[str, Decimal], rules: Policy
) -> None:
    start = book(held)
    plan = plan_rebalance(targets(wanted), start, rules)
    skipped = {item.symbol for item in plan.skipped}
    reached = sizes_after(held, plan)
    for leg in plan.legs:
        if leg.symbol in skipped:
            continue
        exact = wanted.get(leg.symbol, Decimal(0)) * start.base * rules.leverage
        exact /= MARKS[leg.symbol]
        residual = abs(reached.get(leg.symbol, Decimal(0)) - exact)
        lot = make_instrument(leg.symbol).size_step
        # what is held off the lot stays off it: the difference is rounded down once more
        assert residual <= lot * (2 if held.get(leg.symbol, Decimal(0)) % lot else 1)
        closes = leg.reduce_only and leg.size == abs(held.get(leg.symbol, Decimal(0)))
        assert closes or leg.size % lot == 0


@SLOW
@given(weights(), holdings(), POLICIES)
def test_reducing_first_closes_exact_and_flips_are_two_legs(
    wanted: dict[str, Decimal], held: dict[str, Decimal], rules: Policy
) -> None:
    plan = plan_rebalance(targets(wanted), book(held), rules)
    kinds = [leg.reduce_only for leg in plan.legs]
    assert kinds == sorted(kinds, reverse=True)
    by_id = {leg.leg_id: leg for leg in plan.legs}
    assert len(by_id) == len(plan.legs)
    for leg in plan.legs:
        before = held.get(leg.symbol, Decimal(0))
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


@SLOW
@given(weights(), holdings(), POLICIES)
def test_every_difference_is_traded_or_skipped_with_a_reason(
    wanted: dict[str, Decimal], held: dict[str, Decimal], rules: Policy
) -> None:
    start = book(held)
    plan = plan_rebalance(targets(wanted), start, rules)
    handled = {leg.symbol for leg in plan.legs} | {item.symbol for item in plan.skipped}
    expected = set(wanted) if rules.mode is TradeMode.GENERAL else set(wanted) | set(held)
    assert handled <= expected
    assert all(item.reason in SkipReason for item in plan.skipped)
    for symbol in expected - handled:
        exact = wanted.get(symbol, Decimal(0)) * start.base * rules.leverage / MARKS[symbol]
        step = make_instrument(symbol).size_step
        on_lot = (exact / step).to_integral_value(ROUND_DOWN) * step
        assert held.get(symbol, Decimal(0)) == on_lot


@SLOW
@given(weights(), st.decimals(-50, 12_000, places=2), POLICIES)
def test_fitted_openings_cost_no_more_than_is_free(
    wanted: dict[str, Decimal], free: Decimal, rules: Policy
) -> None:
    start = book()
    legs = plan_rebalance(targets(wanted), start, rules).legs
    fitted, skipped = fit_opening_legs(legs, free, start.instruments, rules)
    cost = Decimal(0)
    for leg in fitted:
        notional = leg.notional * Decimal("1.002")
        cost += notional / rules.leverage + notional * Decimal("0.0006")
        assert leg.size % make_instrument(leg.symbol).size_step == 0
    assert cost <= max(free, Decimal(0)) + DUST
    assert len(fitted) + len(skipped) == len(legs)
