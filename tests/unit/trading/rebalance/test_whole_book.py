"""Lots are solved for the whole book: an exhaustive search of small books is the oracle."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from module.model.sessions import TradeMode
from tests.fakes.exchange import make_instrument
from tests.unit.trading.rebalance.books import book, executed, policy, targets
from tests.unit.trading.rebalance.situations import DUST, ZERO, Situation, draw_situation
from trading.rebalance.lots import RoundedUp, give_up
from trading.rebalance.plan import SkipReason, plan_rebalance

Choice = tuple[Decimal, Decimal]  # |notional| that it leads to, |residual|


def choices(situation: Situation, symbol: str) -> list[Choice]:
    """Every |notional| within one lot of the goal that one allowed order leads to, smallest first;
    with `stay` where rounding down is not allowed."""
    rules = situation.book.instruments[symbol]
    mark, lot = situation.book.marks[symbol], situation.lot(symbol)
    goal = abs(situation.goal(symbol))
    held = situation.held(symbol) * mark
    gross = abs(held) if held * situation.goal(symbol) > 0 else ZERO
    steps = ((goal - gross) / lot).to_integral_value(ROUND_DOWN)
    stay = (gross, abs(goal - gross))
    found: list[Choice] = []
    for lots in (steps - 1, steps, steps + 1):
        size = abs(lots) * rules.size_step
        closes = gross > 0 and lots < 0 and size == abs(situation.held(symbol))
        allowed = size >= rules.size_min and size * mark >= rules.notional_min
        after = gross + lots * lot
        if (not lots or allowed or closes) and after >= 0 and abs(after - goal) < lot:
            found.append((after, abs(after - goal)))
    if not found or (goal > gross and all(after > goal for after, _ in found)):
        found = [stay, *(choice for choice in found if choice[1] < stay[1])]
    return sorted(found)


def best_residual(situation: Situation, symbols: list[str]) -> Decimal | None:
    """The least Σ|residual| of all combinations whose book is within the limit; None where none is:
    a minimum keeps a reduction from making room."""
    options = [choices(situation, symbol) for symbol in symbols]
    allowed = [
        sum((off for _, off in chosen), ZERO)
        for chosen in product(*options)
        if sum((after for after, _ in chosen), ZERO) <= situation.capital + DUST
    ]
    return min(allowed, default=None)


def small_book(seed: int, *, minimums: bool) -> Situation:
    situation = draw_situation(random.Random(seed), spot=False, minimums=minimums, thresholds=False)
    return replace(situation, policy=replace(situation.policy, mode=TradeMode.REBALANCING))


@pytest.mark.parametrize("minimums", [False, True])
def test_no_combination_of_lots_within_the_limit_has_a_smaller_residual(minimums: bool) -> None:
    limited = 0
    for seed in range(400):
        situation = small_book(seed, minimums=minimums)
        symbols = sorted(s for s in situation.targets if situation.goal(s) != 0)
        plan = situation.plan
        after = executed(situation.book, plan).positions
        found = sum(
            (abs(situation.goal(s) - (after[s].value if s in after else ZERO)) for s in symbols),
            ZERO,
        )
        nearest = sum((min(off for _, off in choices(situation, s)) for s in symbols), ZERO)
        best = best_residual(situation, symbols)
        if best is None:
            continue
        limited += best > nearest
        assert abs(found - best) < DUST, f"seed {seed}"
    assert limited > 20, "the limit has to matter in some of them"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 2**40))
def test_giving_up_lots_costs_the_least_that_any_choice_of_them_costs(seed: int) -> None:
    draw = random.Random(seed)
    items = [
        RoundedUp(f"C{number}", Decimal(draw.randint(1, 30)), Decimal(draw.randint(1, 12)))
        for number in range(draw.randint(0, 9))
    ]
    excess = Decimal(draw.randint(-3, 120))
    given_up = give_up(items, excess)
    sets = [
        chosen
        for count in range(len(items) + 1)
        for chosen in combinations(items, count)
        if sum((item.frees for item in chosen), ZERO) >= excess
    ]
    losses = [sum((item.loss for item in chosen), ZERO) for chosen in sets]
    least = min(losses, default=sum((item.loss for item in items), ZERO))
    assert sum((item.loss for item in items if item.symbol in given_up), ZERO) == least
    draw.shuffle(items)
    assert give_up(items, excess) == given_up


def test_too_many_choices_to_compare_still_free_enough() -> None:
    """Lots whose worths are powers of two and losses alike: no state beats another."""
    items = [RoundedUp(f"C{n:02d}", Decimal(2**n), Decimal(2**n)) for n in range(40)]
    excess = Decimal(2**39 + 12345)
    given_up = give_up(items, excess)
    assert sum(item.frees for item in items if item.symbol in given_up) >= excess


def test_a_lot_is_rounded_up_when_the_book_has_room_for_it() -> None:
    # 0.3 × 10007 ÷ 151.37 = 19.83 lots of 1 SOL
    rules = {"SOLUSDT": make_instrument("SOLUSDT", size_step=Decimal(1))}
    plan = plan_rebalance(targets({"SOLUSDT": "0.3"}), book(rules=rules), policy())
    assert plan.legs[0].size == 20
    # 0.992 × 10007 ÷ 151.37 = 65.58, but 66 lots are worth 9,990.42: still within 10,007
    plan = plan_rebalance(targets({"SOLUSDT": "0.992"}), book(rules=rules), policy())
    assert plan.legs[0].size == 66
    # 0.9999 × 9990 ÷ 151.37 = 65.99 lots, and 66 are worth 9,990.42: more than there is
    small = book(rules=rules, base="9990")
    plan = plan_rebalance(targets({"SOLUSDT": "0.9999"}), small, policy())
    assert plan.legs[0].size == 65
    left = Decimal("0.9999") - 65 * Decimal("151.37") / 9990
    assert abs(plan.residuals["SOLUSDT"] - left) < DUST


@pytest.mark.parametrize(
    ("link", "sizes"),
    [
        ("0.353", {"SOLUSDT": 4, "LINKUSDT": 20}),  # 2.60 lots of 10 LINK: the cheaper to give up
        ("0.367", {"SOLUSDT": 3, "LINKUSDT": 30}),  # 2.70 lots: now the lot of SOL is cheaper
    ],
)
def test_of_two_lots_the_one_that_costs_least_accuracy_goes_down(
    link: str, sizes: dict[str, int]
) -> None:
    rules = {
        "LINKUSDT": make_instrument("LINKUSDT", size_step=Decimal(10)),
        "SOLUSDT": make_instrument("SOLUSDT", size_step=Decimal(1)),
    }
    # 0.545 × 1000 ÷ 151.37 = 3.60 lots of SOL; 4 of them and 3 of LINK are 1,012.85 > 1,000
    wanted = targets({"SOLUSDT": "0.545", "LINKUSDT": link})
    plan = plan_rebalance(wanted, book(rules=rules, base="1000"), policy())
    assert {leg.symbol: leg.size for leg in plan.legs} == sizes


def test_I9_openings_get_what_room_is_left_by_what_cannot_be_reduced() -> None:
    names = ["BTCUSDT", "LINKUSDT", "SOLUSDT", "XRPUSDT"]
    rules = {name: make_instrument(name, tradable=name != "BTCUSDT") for name in names}
    held = book({"BTCUSDT": "0.15"}, rules=rules, base="10000")  # 9,018.51, and it stays
    wanted = {"BTCUSDT": "0.5", "LINKUSDT": "0.1", "SOLUSDT": "0.39", "XRPUSDT": "0.01"}
    plan = plan_rebalance(targets(wanted), held, policy())
    opened = {leg.symbol: leg.notional for leg in plan.legs}
    assert Decimal("980") < sum(opened.values()) <= Decimal("981.49")
    assert abs(opened["SOLUSDT"] / opened["LINKUSDT"] - Decimal("3.9")) < Decimal("0.3")
    assert plan_rebalance(targets(wanted), executed(held, plan), policy()).legs == ()
    full = book({"BTCUSDT": "0.2"}, rules=rules, base="10000")  # 12,024.68: nothing more opens
    plan = plan_rebalance(targets(wanted), full, policy())
    assert plan.legs == ()
    assert {item.symbol: item.reason for item in plan.skipped} == {
        "BTCUSDT": SkipReason.NOT_TRADABLE,
        **dict.fromkeys(names[1:], SkipReason.BOOK_LIMIT),
    }
    assert plan.residuals["SOLUSDT"] == Decimal("0.39")


def test_a_lot_that_went_down_for_the_limit_goes_up_again_where_whole_lots_leave_room() -> None:
    """BTC cannot be traded and takes its part; 18 lots of ADA of 451.7 are too many by three, and
    without them there is room for SOL's nearest lot after all: it is not sold to be bought back."""
    rules = {
        "ADAUSDT": make_instrument("ADAUSDT", size_step=Decimal(1000)),
        "BTCUSDT": make_instrument("BTCUSDT", tradable=False),
        "SOLUSDT": make_instrument("SOLUSDT", size_step=Decimal(1)),
    }
    start = book({"BTCUSDT": "0.03", "SOLUSDT": "20"}, rules=rules, base="10000")
    wanted = targets({"BTCUSDT": "0.01", "SOLUSDT": "0.18", "ADAUSDT": "0.81"})
    plan = plan_rebalance(wanted, start, policy())
    # SOL 1,800 is 11.89 lots: 12, not 11
    assert {leg.leg_id: leg.size for leg in plan.legs} == {
        "SOLUSDT-reduce": Decimal(8),
        "ADAUSDT-open": Decimal(14000),
    }
    assert plan_rebalance(wanted, executed(start, plan), policy()).legs == ()


@pytest.mark.parametrize("threshold", ["0", "0.01"])
def test_more_than_a_lot_that_is_not_traded_always_has_a_reason(threshold: str) -> None:
    """XRP wants 2.66 lots more of 100, and no order under 2.5 is taken: three lots would be more
    than the book may be, and two are refused. Silence is for less than a lot."""
    rules = {
        "BTCUSDT": make_instrument("BTCUSDT", tradable=False),
        "XRPUSDT": make_instrument("XRPUSDT", size_step=Decimal(100), size_min=Decimal(250)),
    }
    marks = {"BTCUSDT": Decimal(50_000), "XRPUSDT": Decimal(1)}
    start = book({"BTCUSDT": "0.009", "XRPUSDT": "300"}, rules=rules, base="1020", marks=marks)
    wanted = targets({"BTCUSDT": "0.44", "XRPUSDT": "0.555"})
    plan = plan_rebalance(wanted, start, policy(threshold=Decimal(threshold)))
    assert plan.legs == ()
    assert plan.residuals["XRPUSDT"] * 1020 > 200
    assert "XRPUSDT" in {item.symbol for item in plan.skipped}


def test_I9_in_general_mode_what_is_not_named_takes_its_part_of_the_limit() -> None:
    held = book({"BTCUSDT": "0.1"}, base="10000")  # 6,012.34
    general = policy(mode=TradeMode.GENERAL)
    plan = plan_rebalance(targets({"SOLUSDT": "0.5"}), held, general)
    assert Decimal("3972") < plan.legs[0].notional <= Decimal("3987.66")


@pytest.mark.parametrize("held", ["3", "4"])
def test_a_price_around_half_a_lot_does_not_trade_that_lot_to_and_fro(held: str) -> None:
    rules = {"SOLUSDT": make_instrument("SOLUSDT", size_step=Decimal(1))}
    start = book({"SOLUSDT": held}, rules=rules, base="1000")
    for weight in ("0.5268", "0.5328"):  # 3.48 and 3.52 lots of 151.37
        plan = plan_rebalance(targets({"SOLUSDT": weight}), start, policy())
        assert plan.legs == ()
        assert [item.reason for item in plan.skipped] == [SkipReason.LOT_ROUNDING]
    # with 3.6 lots wanted the fourth brings the weight 0.03 nearer, more than the threshold
    plan = plan_rebalance(targets({"SOLUSDT": "0.545"}), start, policy())
    assert [leg.size for leg in plan.legs] == ([1] if held == "3" else [])


@pytest.mark.parametrize(("least", "sizes"), [(1, [1]), (3, [])])
def test_a_reduction_takes_one_lot_more_where_the_limit_asks_and_the_minimum_allows(
    least: int, sizes: list[int]
) -> None:
    rules = {"SOLUSDT": make_instrument("SOLUSDT", size_step=Decimal(1), size_min=Decimal(least))}
    held = book({"SOLUSDT": "8"}, rules=rules, base="1190")  # worth 1,210.96
    # 0.9668 is 7.60 lots: 8 would be nearest, but are 0.018 more than there is
    plan = plan_rebalance(targets({"SOLUSDT": "0.9668"}), held, policy())
    assert [leg.size for leg in plan.legs] == sizes
    if not sizes:
        assert [item.reason for item in plan.skipped] == [SkipReason.LOT_ROUNDING]


def test_a_minimum_is_reached_by_one_more_lot_when_that_is_nearer_than_nothing() -> None:
    exact = policy(threshold=Decimal("0.001"))
    rules = {"XRPUSDT": make_instrument("XRPUSDT", notional_min=Decimal("5.1"))}
    small = book(rules=rules, base="1000")
    for weight, lots in [
        ("0.00507", 10),  # 9.9 lots; 10 are worth 5.123
        ("0.00471", 10),  # 9.2 lots; 9 are under the minimum
    ]:
        plan = plan_rebalance(targets({"XRPUSDT": weight}), small, exact)
        assert plan.legs[0].size == lots
    plan = plan_rebalance(targets({"XRPUSDT": "0.00456"}), small, exact)  # 8.9 lots
    assert [item.reason for item in plan.skipped] == [SkipReason.BELOW_MIN_NOTIONAL]


@pytest.mark.parametrize("base", ["1010", "1015"])
def test_prices_that_carry_a_full_book_over_its_limit_and_back_trade_nothing(base: str) -> None:
    rules = {
        "LINKUSDT": make_instrument("LINKUSDT", size_step=Decimal(10)),
        "SOLUSDT": make_instrument("SOLUSDT", size_step=Decimal(1)),
    }
    held = book({"LINKUSDT": "30", "SOLUSDT": "4"}, rules=rules, base=base)  # worth 1,012.85
    wanted = targets({"LINKUSDT": "0.367", "SOLUSDT": "0.545"})
    assert plan_rebalance(wanted, held, policy()).legs == ()
    # more than the threshold over: a lot is given up, and not bought back before it fits
    over = replace(held, base=Decimal(1000))
    after = executed(over, plan_rebalance(wanted, over, policy()))
    assert sum(position.value for position in after.positions.values()) < 1000
    assert plan_rebalance(wanted, replace(after, base=Decimal(1010)), policy()).legs == ()
